"""
Pages of several origins, and the streams that they ask for.

::

    GET  /             an empty page
    GET  /zstd /gzip /br    compressed; each event only when the one before has arrived
    POST /arrived      says so
    *    /origin       for pages of http://page.x.localhost, with cookies: what it was asked
    GET  /limited      one at once
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import anyio

from asgi_sse import EventStream, Limiter, Request, ServerSentEvent

arrived, wait_arrived = anyio.create_memory_object_stream[None](inf)


async def steered() -> AsyncIterator[int]:
    for n in range(3):
        yield n
        await wait_arrived.receive()


async def asked(request: Request) -> AsyncIterator[ServerSentEvent]:
    names = ("cookie", "last-event-id", "x-token", "origin", "accept-encoding")
    heard = {name: request.headers.get(name) for name in names}
    body = (await request.body()).decode()
    yield ServerSentEvent.json({**heard, "method": request.method, "body": body}, id="1", retry=1)


async def forever() -> AsyncIterator[str]:
    yield "in"
    await anyio.sleep_forever()


STREAMS = {
    **{f"/{name}": EventStream(steered, compress=[name]) for name in ("zstd", "gzip", "br")},
    "/origin": EventStream(
        asked,
        methods=["GET", "POST"],
        allow_origins=lambda origin: bool(re.fullmatch(r"http://page\.x\.localhost:\d+", origin)),
        allow_credentials=True,
    ),
    "/limited": EventStream(forever, limit=Limiter(1, retry_after=0.01)),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        await STREAMS["/gzip"](scope, receive, send)
    elif stream := STREAMS.get(scope["path"]):
        await stream(scope, receive, send)
    else:
        if scope["path"] == "/arrived":
            arrived.send_nowait(None)
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"<!doctype html><link rel=icon href=data:,>"}
        )
