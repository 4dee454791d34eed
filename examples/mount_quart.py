"""
An event stream beside Quart.

::

    hypercorn examples/mount_quart.py
    curl -N http://127.0.0.1:8000/clock/

Quart is given what it does not know itself: the paths of the event stream never reach it.
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
from quart import Quart

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)
app = Quart(__name__)
quart_app = app.asgi_app


@app.get("/")
async def hello() -> str:
    return "The time is at /clock/."


async def mounted(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve the event stream at its path, and Quart at all others.
    """
    # Behind a proxy all of this may be at a path of its own.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if scope["type"] == "http" and path.startswith("/clock"):
        await clock(scope, receive, send)
    else:
        await quart_app(scope, receive, send)


app.asgi_app = mounted  # type: ignore[method-assign]
