"""
An event stream beside Falcon.

::

    hypercorn examples/mount_falcon.py
    curl -N http://127.0.0.1:8000/clock/
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import falcon
import falcon.asgi

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)


class Hello:
    async def on_get(self, request: falcon.asgi.Request, response: falcon.asgi.Response) -> None:
        response.text = "The time is at /clock/."


falcon_app = falcon.asgi.App()
falcon_app.add_route("/", Hello())


async def app(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve the event stream at its path, and Falcon at all others.
    """
    # Behind a proxy all of this may be at a path of its own.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if scope["type"] == "http" and path.startswith("/clock"):
        await clock(scope, receive, send)
    else:
        await falcon_app(scope, receive, send)
