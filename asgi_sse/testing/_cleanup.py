"""
Whether async generators are closed, and may clean up, when a stream ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, Unpack

import anyio
from anyio.lowlevel import checkpoint

from ._exchange import ASGIApp
from ._report import Report
from ._server import RequestOptions, Server, serve
from ._stream import Stream
from ._temper import TEMPERS

__all__ = ["check_source_cleanup"]

_PROMPT = 1.0


async def check_source_cleanup(
    app: ASGIApp,
    path: str = "/",
    *,
    max_silence: float = 30.0,
    lifespan: bool = True,
    **options: Unpack[RequestOptions],
) -> Report:
    """
    Find out what becomes of the async generators behind an endpoint of any ASGI app.

    A client leaves while the source waits, a client leaves that has not read what was
    sent, and a server cancels the app. Each time every async generator that the app
    has begun must be closed when the app returns (not some time later, by the garbage
    collector), and what it awaits in its ``finally`` must not be cancelled.

    While it waits for the cleanup it replaces the tracing function of the thread.

    Args:
        app: Any ASGI 3 app.
        path: The path of the endpoint.
        max_silence: Seconds to wait for the app to send something that is not read.
        lifespan: Whether to tell the app of its startup and shutdown.
        options: About the request, as for ``connect()``, and ``cleanup_timeout``: the
            seconds that the app gets to end.

    Returns:
        The report.

    Raises:
        CheckFailed: If anything failed, with the report.

    """
    report = Report(f"cleanup of {path}")

    async def idle(stream: Stream) -> bool:
        # Into the silence after what comes at first.
        await anyio.sleep(_PROMPT / 2)
        return True

    async def blocked(stream: Stream) -> bool:
        stream.stall()
        with anyio.move_on_after(max_silence), suppress(anyio.EndOfStream):
            await stream.wait_blocked(None)
            return True
        return False

    async with serve(_watched(app), lifespan=lifespan) as server:
        # The second server leaves the source suspended at its yield, as gunicorn does
        # and hypercorn over HTTP/2.
        for check, prepare, end, place in (
            ("client leaves", idle, Stream.disconnect, server),
            (
                "slow client leaves",
                blocked,
                Stream.disconnect,
                server.with_temper(TEMPERS["hang"]),
            ),
            ("cancellation", idle, Stream.cancel, server),
        ):
            await _check(report, place, path, options, check, prepare, end)
    report.raise_if_failed()
    return report


async def _check(
    report: Report,
    server: Server,
    path: str,
    options: RequestOptions,
    check: str,
    prepare: Callable[[Stream], Awaitable[bool]],
    end: Callable[[Stream], None],
) -> None:
    cleanup_timeout = options.get("cleanup_timeout", 5.0)
    with _watch() as sources:
        async with server.connect(path, **options) as stream:
            with anyio.move_on_after(_PROMPT):
                await stream.wait_chunks(1, None)
            if not await prepare(stream) or stream.closed:
                report.add(check, "skipped", "the stream did not get into this situation")
                return
            began = anyio.current_time()
            with _trace(sources):
                end(stream)
                with anyio.move_on_after(cleanup_timeout):
                    await stream.wait_closed(None)
            # A debugger or a coverage tool sees this task again once it is resumed.
            await checkpoint()
            took, ended = anyio.current_time() - began, stream.closed
            # Looked at, so that it is not raised.
            _ = stream.error
        if not ended:
            report.add(check, "failed", f"the app did not end within {cleanup_timeout:g} s")
        for source in sources:
            if source.cut is not None:
                report.add(
                    check,
                    "failed",
                    f"the cleanup of {source.name} was cancelled at {source.cut}: "
                    "what it awaited there did not happen",
                )
            if source.left is not None:
                report.add(
                    check,
                    "failed",
                    f"{source.name} was left open at {source.left}: its finally runs when the "
                    "garbage collector finds it, in another task",
                )
            await source.close()
        if report.outcome(check) == "skipped":
            number = f"{len(sources)} async generator{'s' * (len(sources) != 1)}"
            report.add(check, "ok", f"{number} closed, and the app ended after {took:.2g} s")


class _Source:
    """
    An async generator of the app.
    """

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Something else only if it is compiled (Cython), and that has no frame.
        self._generator: Any = generator
        self.name: str = getattr(generator, "__qualname__", repr(generator))
        self._ending: BaseException | None = None
        #: Where its cleanup was cancelled.
        self.cut: str | None = None
        #: Where it was when the app had ended.
        self.left: str | None = None

    @property
    def frame(self) -> FrameType | None:
        frame: FrameType | None = getattr(self._generator, "ag_frame", None)
        return frame

    # No coverage tool sees what is called while it is another function that traces.

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:  # pragma: no cover
        if event == "exception":
            error = arg[1]
            if self._ending is None:
                self._ending = error
            elif error is not self._ending and isinstance(error, anyio.get_cancelled_exc_class()):
                # The second of them, so it did not end the source but what it did then.
                self.cut = self.cut or _place(frame)
        return self.trace

    def look(self) -> None:  # pragma: no cover
        if self.frame is not None:
            self.left = _place(self.frame)

    async def close(self) -> None:
        with anyio.move_on_after(1):
            with suppress(Exception):
                await self._generator.aclose()


_sources: ContextVar[list[_Source] | None] = ContextVar("sources", default=None)


def _watched(app: ASGIApp) -> ASGIApp:
    """
    Return the app, so that generators begun in it are known from others.
    """

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        sources = _requested.get()
        if scope["type"] == "http":
            _sources.set(sources)
        try:
            await app(scope, receive, send)
        finally:
            for source in sources or ():
                source.look()

    return watched


_requested: ContextVar[list[_Source] | None] = ContextVar("requested", default=None)


@contextmanager
def _watch() -> Iterator[list[_Source]]:
    """
    Note every async generator that the app begins.
    """
    sources: list[_Source] = []
    hooks = sys.get_asyncgen_hooks()

    def begin(generator: AsyncGenerator[Any, Any]) -> None:
        if _sources.get() is sources:
            sources.append(_Source(generator))
        # Event loops note them too.
        assert hooks.firstiter is not None
        hooks.firstiter(generator)

    token = _requested.set(sources)
    sys.set_asyncgen_hooks(firstiter=begin)
    try:
        yield sources
    finally:
        sys.set_asyncgen_hooks(firstiter=hooks.firstiter)
        _requested.reset(token)


@contextmanager
def _trace(sources: list[_Source]) -> Iterator[None]:
    """
    Let the sources be told of the exceptions in their frames.
    """
    traced = {}
    for source in sources:
        if source.frame is not None:
            source.frame.f_trace = traced[source.frame] = source.trace

    def trace(frame: FrameType, event: str, arg: Any) -> Any:  # pragma: no cover
        return traced.get(frame)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:  # pragma: no cover
        sys.settrace(before)


def _place(frame: FrameType) -> str:  # pragma: no cover
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
