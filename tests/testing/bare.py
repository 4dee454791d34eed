"""
Apps without a framework, each with one habit.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio

App = Callable[[Any, Any, Any], Awaitable[None]]

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


async def start(send: Any, status: int = 200, headers: Any = HEADERS) -> None:
    """Begin a response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Any, body: bytes, more: bool = True) -> None:
    """Go on with a response."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


def streaming(source: Callable[[Any], AsyncIterator[bytes]], headers: Any = HEADERS) -> App:
    """
    Return an app that sends what a generator yields until the client leaves.

    It does what it should, in few lines: it reads ``receive()`` all the time, and closes
    the generator in the task that ran it, with time to clean up.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["method"] == "HEAD":
            await start(send, headers=headers)
            await body(send, b"", more=False)
            return

        inner = anyio.CancelScope()

        async def listen(outer: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            outer.cancel()

        async def write(outer: anyio.CancelScope) -> None:
            generator = source(scope)
            try:
                await start(send, headers=headers)
                with inner:
                    async for chunk in generator:
                        await body(send, chunk)
                await body(send, b"", more=False)
            except OSError:
                pass
            finally:
                with anyio.CancelScope(shield=True):
                    await generator.aclose()  # type: ignore[attr-defined]
            outer.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, tasks.cancel_scope)
            tasks.start_soon(write, tasks.cancel_scope)

    return app


async def ticks(scope: Any, *, interval: float = 1) -> AsyncIterator[bytes]:
    """Count the seconds, from the last event ID on."""
    headers = dict(scope["headers"])
    number = int(headers.get(b"last-event-id", b"0"))
    yield b":\n\n"
    while True:
        number += 1
        yield b"id: %d\ndata: tick %d\n\n" % (number, number)
        await anyio.sleep(interval)


async def nothing(scope: Any) -> AsyncIterator[bytes]:
    """Wait for ever."""
    await anyio.sleep_forever()
    yield b""  # pragma: no cover


clock = streaming(ticks)
silent = streaming(nothing)
slow_clock = streaming(partial(ticks, interval=100))
