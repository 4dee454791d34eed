"""
Server-sent events for every ASGI server and framework.
"""

from ._event import ServerSentEvent
from ._limiter import Limiter
from ._request import Refused, Request
from ._shutdown import close_streams, drain, statistics
from ._stream import EventStream, event_stream
from .channels import Broker, Channel, broadcast

__version__ = "0.1.0"

__all__ = [
    "Broker",
    "Channel",
    "EventStream",
    "Limiter",
    "Refused",
    "Request",
    "ServerSentEvent",
    "broadcast",
    "close_streams",
    "drain",
    "event_stream",
    "statistics",
]
