"""
The server process: one contestant on one server.

Started by servers.py as ``python -m benchmarks.serve SERVER CONTESTANT FD PORT``.
FD is a socket that listens already; servers that cannot be given one take PORT.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

from .contestants import CONTESTANTS, ASGIApp
from .sources import Sources, numbers

CONTESTANT = "BENCHMARKS_CONTESTANT"


def controlled(sources: Sources, app: ASGIApp) -> ASGIApp:
    """
    Add to an app what the driver asks for: /ready and /publish.
    """

    async def controlled_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _complete_lifespan(receive, send)
        elif scope["path"] in ("/ready", "/publish"):
            body = json.dumps(await _control(sources, scope)).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return controlled_app


async def _control(sources: Sources, scope: Any) -> Any:
    if scope["path"] == "/ready":
        return "ready"
    return await sources.publish_many(**numbers(scope["query_string"].decode()))


async def _complete_lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def load() -> ASGIApp:
    """
    Make the app of the contestant named in the environment.
    """
    sources = Sources()
    make = CONTESTANTS[os.environ[CONTESTANT]].make
    assert make is not None
    return controlled(sources, make(sources))


# Every Python server runs on asyncio's own event loop, with its fastest parser,
# without logs: what is compared is what runs on them.


def uvicorn(fd: int, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        load(),
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_level="error",
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


def hypercorn(fd: int, port: int) -> None:
    from hypercorn.asyncio import serve

    asyncio.run(serve(load(), _hypercorn_config(fd), mode="asgi"))


def hypercorn_trio(fd: int, port: int) -> None:
    import trio
    from hypercorn.trio import serve

    trio.run(serve, load(), _hypercorn_config(fd))


def _hypercorn_config(fd: int) -> Any:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{fd}"]
    config.accesslog = None
    config.errorlog = None
    return config


def granian(fd: int, port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces, Loops

    Granian(
        "benchmarks.serve:load",
        factory=True,
        port=port,
        interface=Interfaces.ASGINL,
        loop=Loops.asyncio,
        websockets=False,
        backlog=2048,
        log_enabled=False,
    ).serve()


def aiohttp(fd: int, port: int) -> None:
    from aiohttp import web
    from aiohttp_sse import sse_response

    sources = Sources()

    async def stream(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as response:
            async for x in sources.open_path(request.path, request.query_string):
                await response.send(x)
        return response

    async def ready(request: web.Request) -> web.Response:
        return web.json_response("ready")

    async def publish(request: web.Request) -> web.Response:
        return web.json_response(await sources.publish_many(**numbers(request.query_string)))

    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/publish", publish)
    app.router.add_get("/{path}", stream)
    web.run_app(app, sock=socket.socket(fileno=fd), print=None, access_log=None, backlog=2048)


SERVERS = {
    "uvicorn": uvicorn,
    "hypercorn": hypercorn,
    "hypercorn-trio": hypercorn_trio,
    "granian": granian,
    "aiohttp": aiohttp,
}

if __name__ == "__main__":
    _, server, os.environ[CONTESTANT], fd, port = sys.argv
    SERVERS[server](int(fd), int(port))
