"""
An event stream under BlackSheep.

::

    hypercorn examples/mount_blacksheep.py
    curl -N http://127.0.0.1:8000/clock/
"""

import time
from collections.abc import AsyncIterator

import anyio
from blacksheep import Application

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)
app = Application()
app.mount("/clock", clock)
