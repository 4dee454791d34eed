"""
The same client for tests that know nothing of async.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - a loop that runs only while the test waits for it
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, Self, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio.lowlevel import checkpoint

from .._event import ServerSentEvent
from ._clock import AutojumpLoop
from ._exchange import ASGIApp, Chunk
from ._server import RequestOptions, connect
from ._stream import Response, Stream
from ._temper import Temper

__all__ = ["SyncStream", "connect_sync"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SyncStream(Response):
    """
    A client's connection to an app, without async; made by ``connect_sync()``.

    The app runs only while a method is waiting for it. Everything else is as with a
    ``Stream``.
    """

    def __init__(self, stream: Stream, call: _Call) -> None:
        self._stream = stream
        self._call = call

    def __getattr__(self, name: str) -> Any:
        # What there is to see is kept by the other one.
        return getattr(self._stream, name)

    @property
    def error(self) -> BaseException | None:
        """
        What the app raised, if it did.
        """
        return self._stream.error

    def next_event(self, timeout: float | None | EllipsisType = ...) -> ServerSentEvent:
        """
        Return the next event, as a client sees it.

        Raises:
            TimeoutError: If none came in time.
            EndOfStream: If none will come.

        """
        return self._call(self._stream.next_event, timeout)

    def take(
        self, count: int, timeout: float | None | EllipsisType = ...
    ) -> list[ServerSentEvent]:
        """
        Return the next events, so many; each may take as long as the timeout says.

        Raises:
            TimeoutError: As ``next_event()``.
            EndOfStream: As ``next_event()``.

        """
        return self._call(self._stream.take, count, timeout)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ServerSentEvent:
        try:
            return self._call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def read(self, timeout: float | None | EllipsisType = ...) -> bytes:
        """
        Return the whole body, for a response that is not endless.

        Raises:
            TimeoutError: If the response did not end in time.

        """
        return self._call(self._stream.read, timeout)

    def sleep(self, seconds: float) -> None:
        """
        Let time pass for the app.
        """
        self._call(anyio.sleep, seconds)

    def wait_chunks(self, count: int, timeout: float | None | EllipsisType = ...) -> list[Chunk]:
        """
        Wait until the client has received so many chunks, or will receive no more.

        Returns:
            All chunks so far.

        Raises:
            TimeoutError: If there were too few in time.

        """
        return self._call(self._stream.wait_chunks, count, timeout)

    def wait_blocked(self, timeout: float | None | EllipsisType = ...) -> None:
        """
        Wait until the app waits in ``send()`` for a client that has stopped reading.

        Raises:
            TimeoutError: If it did not come to this in time.
            EndOfStream: If it will not come to this any more.

        """
        self._call(self._stream.wait_blocked, timeout)

    def wait_closed(self, timeout: float | None | EllipsisType = ...) -> None:
        """
        Wait until the call of the app is over.

        Raises:
            TimeoutError: If the app did not end in time.

        """
        self._call(self._stream.wait_closed, timeout)

    def disconnect(self) -> None:
        """
        Leave, as a client that closes its connection.
        """
        self._call(_in_loop, self._stream.disconnect)

    def stall(self, room: int = 0) -> None:
        """
        Stop reading, when the buffers on the way have taken so many bytes more.
        """
        self._call(_in_loop, self._stream.stall, room)

    def resume(self) -> None:
        """
        Read again, first of all what came meanwhile.
        """
        self._call(_in_loop, self._stream.resume)

    def reconnect(self) -> bool:
        """
        Do what an ``EventSource`` does when its connection is lost.

        Returns:
            Whether the client has a stream again.

        Raises:
            TimeoutError: If the app did not start its response in time.

        """
        return self._call(self._stream.reconnect)

    def cancel(self) -> None:
        """
        Cancel the app, as a server that gives up.
        """
        self._call(_in_loop, self._stream.cancel)

    def shutdown(self) -> None:
        """
        Stop the server, as a deployment does.
        """
        self._call(self._stream.shutdown)


@contextmanager
def connect_sync(
    app: ASGIApp,
    path: str = "/",
    *,
    autojump: bool = False,
    lifespan: bool = True,
    server: str | Temper = "ignore",
    **options: Unpack[RequestOptions],
) -> Iterator[SyncStream]:
    """
    Make a request to any ASGI app, in memory, in a test that is not async.

    The app runs on an asyncio event loop in this thread, and only while a method of
    the stream is waiting.

    Args:
        app: Any ASGI 3 app.
        path: The path, with or without a query.
        autojump: Whether the clock jumps instead of letting time pass. Not for an app
            that uses sockets or threads.
        lifespan: Whether to tell the app of its startup and shutdown.
        server: How the server behaves: the name of a temper, or a ``Temper``.
        options: As for ``connect()``.

    Yields:
        The response, as soon as it has started.

    Raises:
        TimeoutError: If the app did not start its response in time.
        RuntimeError: If the app ended without a response, or its startup failed, or
            an event loop is running in this thread.

    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("connect_sync() cannot wait inside an event loop: use connect() there")
    with _Call(AutojumpLoop if autojump else None) as call:
        context = connect(app, path, lifespan=lifespan, server=server, **options)
        stream = SyncStream(call(context.__aenter__), call)
        try:
            yield stream
        except BaseException as error:
            call(context.__aexit__, type(error), error, error.__traceback__)
            raise
        call(context.__aexit__, None, None, None)


class _Call:
    """
    Calls async functions, one after the other, always in the same task.

    A task group that one call has opened can only be closed by the task that opened it.
    """

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self._calls: asyncio.Queue[tuple[Any, Any, asyncio.Future[Any]]] = asyncio.Queue()

    def __enter__(self) -> Self:
        self._loop = self._runner.get_loop()
        self._task = self._loop.create_task(self._work())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def __call__(self, function: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put_nowait((function, args, future))
        return self._loop.run_until_complete(future)

    async def _work(self) -> None:
        while True:
            function, args, future = await self._calls.get()
            try:
                future.set_result(await function(*args))
            except Exception as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)


async def _in_loop(function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    result = function(*args)
    # What it caused may happen before the test goes on.
    await checkpoint()
    return result
