"""
A hub on the engine that ``$BROKER`` names, for servers that import what they serve.
"""

import os

from asgi_sse._hub.door import Door
from asgi_sse._hub.hub import Hub
from asgi_sse.channels import Broker

app = Hub(
    Broker(os.environ["BROKER"], history=int(os.environ["HISTORY"]), timeout=2),
    ["even", "odd"],
    Door(None),
)
