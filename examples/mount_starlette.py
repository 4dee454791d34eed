"""
Event streams under Starlette: mounted, and as the endpoint of a route.

::

    hypercorn examples/mount_starlette.py
    curl -N http://127.0.0.1:8000/clock/

An event stream is an ASGI application, and a route may have one in place of a function.
"""

import time
from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)

app = Starlette(routes=[Mount("/clock", clock), Route("/route", clock)])
