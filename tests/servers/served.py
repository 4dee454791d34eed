"""
What the servers under test serve: streams that a test steers, and what became of them.

::

    GET  /KIND?key=KEY              one of the streams below
    POST /token?key=KEY&data=DATA   lets it yield its next event, if it is steered
    GET  /report?key=KEY            answers when it is over
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import anyio

from asgi_sse import EventStream, Refused, Request


class DeliberateError(Exception):
    """
    What a source raises here, so that its traceback is known from all others.
    """


class Visit:
    """
    One stream, under the key that the test has chosen for it.
    """

    def __init__(self) -> None:
        self.hand_over, self.tokens = anyio.create_memory_object_stream[str](math.inf)
        self.over = anyio.Event()
        self.cleaned_up = False
        self.report: dict[str, Any] = {}

    def close(self, info: Any) -> None:
        error = None if info.error is None else type(info.error).__name__
        self.report = {**asdict(info), "error": error, "cleaned_up": self.cleaned_up}
        self.over.set()


async def steered(visit: Visit) -> AsyncIterator[str]:
    try:
        async for token in visit.tokens:
            yield token
    finally:
        # It is here that a cleanup is cut off where nobody cares for it.
        await anyio.sleep(0.01)
        visit.cleaned_up = True


async def silent() -> AsyncIterator[str]:
    await anyio.sleep_forever()
    yield "never"


async def finishing() -> AsyncIterator[str]:
    yield "one"
    yield "two"


async def failing() -> AsyncIterator[str]:
    yield "one"
    yield "two"
    raise DeliberateError("after two events")


async def broken() -> AsyncIterator[str]:
    raise DeliberateError("before the first event")


async def refusing() -> AsyncIterator[str]:
    raise Refused(403, "not you", {"x-reason": "test"})


async def closing(request: Request) -> AsyncIterator[str]:
    yield "one"
    request.close()
    await anyio.sleep_forever()


async def flood() -> AsyncIterator[str]:
    # More than the buffers of any operating system take, and not too much for a server
    # that takes everything.
    for _ in range(40):
        yield "x" * 2**18


async def echo(request: Request) -> AsyncIterator[int]:
    yield len(await request.body())


def app_for(kind: str, visit: Visit) -> EventStream | None:
    stream = partial(EventStream, on_close=visit.close)
    match kind:
        case "/steered":
            return stream(partial(steered, visit), methods=("GET", "POST"))
        case "/gzip":
            return stream(partial(steered, visit), compress=["gzip"])
        case "/silent":
            return stream(silent, keep_alive=0.05)
        case "/aging":
            return stream(silent, max_age=0.1)
        case "/flood":
            return stream(flood, send_timeout=0.5)
        case "/finishing":
            return stream(finishing)
        case "/failing":
            return stream(failing)
        case "/broken":
            return stream(broken)
        case "/refusing":
            return stream(refusing, methods=("GET", "POST"))
        case "/closing":
            return stream(closing)
        case "/echo":
            return stream(echo, methods=("POST",))
    return None


visits: defaultdict[str, Visit] = defaultdict(Visit)
lifespan = EventStream(silent)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        await lifespan(scope, receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    visit = visits[query.get("key", "")]
    if scope["path"] == "/token":
        # On HTTP/2 hypercorn drops the connection when a body, be it empty, arrives after
        # the answer.
        while (await receive()).get("more_body", False):
            pass
        visit.hand_over.send_nowait(query["data"])
        await answer(send, 204)
    elif scope["path"] == "/report":
        await visit.over.wait()
        await answer(send, 200, json.dumps(visit.report).encode())
    elif stream := app_for(scope["path"], visit):
        await stream(scope, receive, send)
    else:
        await answer(send, 404)


async def answer(send: Any, status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", b"%d" % len(body))] if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
