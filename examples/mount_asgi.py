"""
An event stream in a router of ten lines, without any framework.

::

    hypercorn examples/mount_asgi.py
    curl -N http://127.0.0.1:8000/clock/

What is mounted finds its place in ``root_path``, as ASGI wants it.
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)

MOUNTED: dict[str, Any] = {"/clock": clock}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve what is mounted at the beginning of the path, and a lifespan to nobody else.
    """
    if scope["type"] == "lifespan":
        await clock(scope, receive, send)
        return
    # Behind a proxy, or mounted itself, all of this may be at a path of its own.
    path = scope["path"].removeprefix(scope["root_path"])
    for prefix, mounted in MOUNTED.items():
        if path.startswith(prefix):
            await mounted({**scope, "root_path": scope["root_path"] + prefix}, receive, send)
            return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})
