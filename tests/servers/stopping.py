"""
What is served while the server stops: a stream for each way to take it, and a record.

Every stream prints one line when it is over, so that it can be counted whatever became
of the client: ``closed PATH REASON CLEANED_UP``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio

from asgi_sse import EventStream, Request, ServerSentEvent, drain
from asgi_sse._options import Closed
from asgi_sse.hypercorn import heed_signals

GOODBYE = ServerSentEvent("goodbye", event="farewell", retry=1234)


class Record:
    """
    What is printed of one stream.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.cleaned_up = False

    def close(self, info: Closed) -> None:
        # In one piece, because there may be several processes.
        sys.stdout.write(f"closed {self._path} {info.reason} {self.cleaned_up}\n")


async def _asking(record: Record, request: Request) -> AsyncIterator[str]:
    """
    Has something to say before it ends.
    """
    try:
        yield "hello"
        await request.wait_closing()
        await anyio.sleep(0.05)
        yield "last words"
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


async def _unaware(record: Record) -> AsyncIterator[str]:
    """
    Has never heard of a server that stops.
    """
    try:
        yield "hello"
        await anyio.sleep_forever()
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


async def _finite(record: Record, request: Request) -> AsyncIterator[str]:
    """
    Is in the middle of its answer when the server stops.
    """
    try:
        yield "hello"
        await request.wait_closing()
        for word in ("these", "are", "my", "last", "words"):
            await anyio.sleep(0.05)
            yield word
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


async def _setup(record: Record) -> Any:
    """
    Waits for something before its response starts.
    """
    try:
        sys.stdout.write("setting up\n")
        await anyio.sleep_forever()
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


async def _stubborn(record: Record) -> AsyncIterator[str]:
    """
    Does not want to end.
    """
    yield "hello"
    while True:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            record.cleaned_up = False


# One event loop, one drain.
_released = anyio.Event()


async def _slow(record: Record, request: Request) -> AsyncIterator[str]:
    """
    Has something to say before it ends, and takes its time.
    """
    try:
        yield "hello"
        await request.wait_closing()
        yield "closing"
        await _released.wait()
        yield "last words"
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


async def _flood(record: Record) -> AsyncIterator[bytes]:
    """
    Yields more than goes to a client that reads nothing.
    """
    try:
        # Some servers take everything, and have to keep it.
        for _ in range(128):
            yield b"data: " + b"x" * 2**16 + b"\n\n"
            await anyio.lowlevel.checkpoint()
        await anyio.sleep_forever()
    finally:
        await anyio.sleep(0.05)
        record.cleaned_up = True


_SOURCES: dict[str, Any] = {
    "/asking": (_asking, {}),
    "/unaware": (_unaware, {}),
    "/finite": (_finite, {"on_shutdown": "finish"}),
    "/endless": (_unaware, {"on_shutdown": "finish"}),
    "/setup": (_setup, {}),
    "/stubborn": (_stubborn, {"cleanup_timeout": 0.3}),
    "/slow": (_slow, {}),
    "/flood": (_flood, {}),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "/unaware")
    if path not in _SOURCES:
        body = ""
        if path == "/drain":
            body = str(await drain(30, farewell=ServerSentEvent("drained"), reason="closed"))
        elif path == "/release":
            _released.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
        return
    source, options = _SOURCES[path]
    record = Record(path)

    stream = EventStream(
        partial(source, record), farewell=GOODBYE, on_close=record.close, **options
    )
    await stream(scope, receive, send)


async def late(scope: Any, receive: Any, send: Any) -> None:
    """
    Opens its first stream when the signal is over, in a lifespan that is not the library's.
    """
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
        return
    if scope["path"] not in _SOURCES:
        await app(scope, receive, send)
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    os.kill(os.getppid(), signal.SIGTERM)
    while not arrived:
        os.sched_yield()
    # The server's work is done from its event loop, whatever the handler was.
    signal.signal(signal.SIGTERM, handler)
    await app(scope, receive, send)


#: For hypercorn's workers.
heedful = heed_signals(app)
