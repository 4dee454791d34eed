"""
Saying goodbye on every open stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import EllipsisType
from typing import Any, Literal, NamedTuple, Protocol

from anyio import Event
from anyio.lowlevel import RunVar

from ._answer import check_bool
from ._options import Farewell, Reason, check_farewell, check_reason, check_seconds
from ._request import Request
from ._runtime import current_runtime
from ._statistics import Statistics, Tally
from ._watch import Watcher

# For so many seconds after a stop was learnt a new request gets a goodbye. Servers take
# new ones for up to a second; and if there are any after this, then it was no stop.
_LATCH = 5.0


class Drained(NamedTuple):
    """
    How the streams ended that :func:`drain` has closed.
    """

    #: The source came to its end in the time that it was given.
    ended: int
    #: The source was cancelled, and cleaned up.
    cancelled: int
    #: The source did not end when it was cancelled, and was left alone.
    abandoned: int


class Stream(Protocol):
    """
    What an open stream offers to be closed from here.
    """

    @property
    def request(self) -> Request: ...
    @property
    def ending(self) -> Literal["ended", "cancelled", "abandoned"]: ...

    def shut_down(
        self,
        reason: Reason,
        grace: float | None = None,
        farewell: Farewell | EllipsisType = ...,
        *,
        finish: bool = True,
    ) -> None: ...


class OpenStreams:
    """
    The open streams of one event loop.
    """

    def __init__(self) -> None:
        self._runtime = current_runtime()
        self._watcher = Watcher(self._runtime, self._learn, stays=True)
        # Each with whether it wants to be closed when a stop is learnt.
        self._streams: dict[Stream, bool] = {}
        #: What is counted of them, and of those that were.
        self.tally = Tally()
        self._drains = 0
        self._latched_until = 0.0
        self._someone_left: Event | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def add(
        self,
        stream: Stream,
        scope: Mapping[str, Any],
        send: Callable[..., Any],
        watch: bool | Callable[[], Awaitable[Any]],
    ) -> bool:
        """
        Keep a stream until it is removed; ``False``: it comes too late to be kept.

        As long as there is one, it is learnt when its server stops.
        """
        self._watcher.enter(watch)
        latched = self._runtime.now() < self._latched_until
        too_late = bool(watch) and latched
        if watch is True:
            # Its host and port, or its path. A server that can be asked knows best: it
            # may be another than the one that has stopped.
            address = tuple(scope.get("server") or ())
            stopping = self._watcher.is_stopping(address, send)
            if stopping is not None:
                too_late = stopping
            if stopping and not latched:
                # It began before anybody watched.
                self._learn()
        if too_late or self._drains:
            self._watcher.leave()
            return False
        self._streams[stream] = bool(watch)
        return True

    def remove(self, stream: Stream) -> None:
        """
        Forget a stream that has ended.
        """
        del self._streams[stream]
        self._watcher.leave()
        if self._someone_left is not None:
            self._someone_left.set()
            self._someone_left = None

    def begin_lifespan(self, watch: bool | Callable[[], Awaitable[Any]]) -> None:
        """
        Learn of a stop also while no stream is open; a new server starts afresh.
        """
        self._latched_until = 0.0
        self._watcher.enter(watch)

    def end_lifespan(self) -> None:
        """
        Undo what :meth:`begin_lifespan` did.
        """
        self._watcher.leave()

    async def drain(
        self,
        reason: Reason = "shutdown",
        grace: float | None = None,
        farewell: Farewell | EllipsisType = ...,
        *,
        finish: bool = True,
    ) -> Drained:
        """
        Close every open stream, and return when all have ended.

        Without *finish* also those that would come to an end of their own.
        """
        streams = list(self._streams)
        for stream in streams:
            stream.shut_down(reason, grace, farewell, finish=finish)
        self._drains += 1
        try:
            await self._wait_for(streams)
        finally:
            self._drains -= 1
        endings = [stream.ending for stream in streams]
        return Drained(
            endings.count("ended"), endings.count("cancelled"), endings.count("abandoned")
        )

    async def close(
        self, where: Callable[[Request], bool], reason: Reason, event: Farewell | EllipsisType
    ) -> int:
        """
        Close the streams that are meant, and return how many, when they have ended.
        """
        # All are asked before any is closed: the question may raise.
        streams = [
            stream for stream in self._streams if check_bool("where", where(stream.request))
        ]
        for stream in streams:
            stream.shut_down(reason, 0.0, event, finish=False)
        await self._wait_for(streams)
        return len(streams)

    async def _wait_for(self, streams: list[Stream]) -> None:
        for stream in streams:
            while stream in self._streams:
                if self._someone_left is None:
                    self._someone_left = Event()
                await self._someone_left.wait()

    def _learn(self) -> None:
        self._latched_until = self._runtime.now() + _LATCH
        for stream, wanted in list(self._streams.items()):
            if wanted:
                stream.shut_down("shutdown")


_open_streams: RunVar[OpenStreams] = RunVar("asgi_sse_open_streams")


def current_open_streams() -> OpenStreams:
    """
    Return the open streams of the running event loop.
    """
    try:
        return _open_streams.get()
    except LookupError:
        streams = OpenStreams()
        _open_streams.set(streams)
        return streams


async def drain(
    grace: float | None = None,
    *,
    farewell: Farewell | EllipsisType = ...,
    reason: Reason = "shutdown",
) -> Drained:
    """
    Say goodbye on every open stream of the running event loop, and wait for all to end.

    In parallel: ``request.closing`` becomes true; a source that has ever asked
    for it gets *grace* seconds to yield its last events, any other is
    cancelled at once; then comes the farewell, and a correct end. A stream with
    ``on_shutdown="finish"`` goes on to its own end, and is waited for. A
    request that arrives meanwhile gets a farewell and an end at once.

    The library does the same when it learns that the server is stopping; call
    this before a stop of your own.

    Cancellation: the streams go on closing, and nobody waits for them.

    Args:
        grace: Seconds; ``None``: each stream's own ``shutdown_grace``.
        farewell: The last event, or a function that is given the
            :class:`Request` and returns it; ``None``: no farewell; left out:
            each stream's own.
        reason: What ``on_close`` is told.

    Returns:
        How many streams ended in which way.

    Raises:
        TypeError: An argument is of another type.
        ValueError: ``grace`` is negative or not finite, or there is no such reason.

    """
    if grace is not None:
        check_seconds("grace", grace, least=0)
    if farewell is not ...:
        check_farewell(farewell)
    check_reason(reason)
    return await current_open_streams().drain(reason, grace, farewell)


async def close_streams(
    where: Callable[[Request], bool],
    *,
    event: Farewell | EllipsisType = ...,
    reason: Reason = "revoked",
) -> int:
    """
    End some of the open streams of the running event loop, and wait for their end.

    Each gets what its source has yielded, *event*, and a correct end; one whose
    client takes nothing is cut off after a second or two. An ``EventSource``
    reconnects: it is for the setup phase to refuse it then.

    Cancellation: the streams go on closing, and nobody waits for them.

    Args:
        where: Called with the :class:`Request` of each stream, returns a bool: whether
            it is meant; ``request.meta`` has what the setup phase has put there.
        event: The last event, or a function that is given the :class:`Request`
            and returns it; ``None``: none; left out: each stream's own farewell.
        reason: What ``on_close`` is told.

    Returns:
        How many streams there were.

    Raises:
        TypeError: An argument is of another type, or *where* has not returned a bool;
            then no stream is closed.
        ValueError: There is no such reason.
        Exception: What *where* raises; then no stream is closed.

    """
    if not callable(where):
        raise TypeError(f"where must be callable (got {where!r})")
    if event is not ...:
        check_farewell(event, "event")
    check_reason(reason)
    return await current_open_streams().close(where, reason, event)


def statistics() -> Statistics:
    """
    Return what has become of the streams of the running event loop, in numbers.

    All of them, of whatever app or adapter. What it counts costs no stream
    anything while it is open.
    """
    return current_open_streams().tally.statistics()
