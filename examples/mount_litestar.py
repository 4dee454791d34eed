"""
An event stream under Litestar.

::

    hypercorn examples/mount_litestar.py
    curl -N http://127.0.0.1:8000/clock/
"""

import time
from collections.abc import AsyncIterator

import anyio
from litestar import Litestar, asgi

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)

app = Litestar([asgi("/clock", is_mount=True)(clock)])
