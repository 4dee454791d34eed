"""
One upstream source for all clients, run while there is one.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Hashable
from typing import Any, cast

from anyio import current_time, get_cancelled_exc_class, sleep

from .._request import Request
from .._runtime import Entry, Runtime, Task, current_runtime
from .._source import Source, is_context_manager
from ._channel import Channel
from ._subscription import OnGap, Overflow, Statistics, Subscription

__all__ = ["Broadcast", "broadcast"]

logger = logging.getLogger("asgi_sse")


class Broadcast:
    """
    A source that all clients share; made by :func:`broadcast`.
    """

    def __init__(
        self, source: Any, channel: Channel, linger: float, backoff: tuple[float, float]
    ) -> None:
        self._source = Source(source)
        self._channel = channel
        self._linger = linger
        self._backoff = backoff
        self._runtime: Runtime
        self._task: Task | None = None
        # Whether the task is to end because nobody listens.
        self._stopping = False
        self._alarm: Entry | None = None
        channel._renames = True
        channel._fanout.on_left = self._left
        # One iterator cannot be started again.
        self._once = hasattr(source, "__anext__") or hasattr(source, "__next__")

    def subscribe(self, last_event_id: str | None = None) -> Subscription:
        """
        Return a place in the channel, and let the source run.

        To iterate over it, use ``async with``: else nobody knows when you have left.

        Args:
            last_event_id: As for :meth:`asgi_sse.Channel.subscribe`.

        """
        subscription = self._channel.subscribe(last_event_id)
        self._runtime = current_runtime()
        if self._alarm is not None:
            self._runtime.ticker.discard(self._alarm)
            self._alarm = None
        if self._task is None and not self._channel._fanout.closed:
            self._start()
        return subscription

    def statistics(self) -> Statistics:
        """
        Return how the channel is doing.
        """
        return self._channel.statistics()

    async def aclose(self) -> None:
        """
        Stop the source, and end every subscription when it has taken what there is.

        It does not wait for them. To close it again does nothing.

        Cancellation: it is closed all the same.
        """
        self._stop()
        await self._channel.aclose()

    # The subscribers.

    def _left(self) -> None:
        if self._task is None or self._channel._fanout.subscriptions:
            return
        if self._linger:
            due = current_time() + self._linger
            self._alarm = self._runtime.ticker.add(due, self._linger_is_over)
        else:
            self._stop()

    def _linger_is_over(self, now: float) -> float:
        self._stop()
        return math.inf

    def _start(self) -> None:
        self._task = self._runtime.spawn(self._run, f"broadcast of {self._source.name}")

    def _stop(self) -> None:
        if self._alarm is not None:
            self._runtime.ticker.discard(self._alarm)
            self._alarm = None
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()

    # The task.

    async def _run(self) -> None:
        fanout = self._channel._fanout
        try:
            await self._repeat()
            if not self._stopping:
                fanout.end_all()
        except get_cancelled_exc_class():
            if not self._stopping:
                # Then it is the event loop that ends.
                raise
        finally:
            self._task = None
            if self._stopping:
                self._stopping = False
                # Somebody may have come while the source was cleaning up.
                if fanout.subscriptions and not fanout.closed:
                    self._start()

    async def _repeat(self) -> None:
        """
        Publish what the source gives until it has come to its end.
        """
        first, longest = self._backoff
        delay = first
        while True:
            before = self._channel._fanout.log.end
            try:
                await self._iterate()
                return
            except Exception:
                if self._stopping or self._once:
                    logger.exception("%s raised", self._source.name)
                    return
                if self._channel._fanout.log.end > before:
                    delay = first
                logger.exception(
                    "%s raised, and is started again in %g s", self._source.name, delay
                )
            await sleep(delay)
            delay = min(2 * delay, longest)

    async def _iterate(self) -> None:
        # It was made sure that the source does not ask for a request.
        result = await self._source.call(cast("Request", None))
        if is_context_manager(result):
            async with result as iterable:
                await self._pump(iterable)
        else:
            await self._pump(result)

    async def _pump(self, iterable: Any) -> None:
        iterator = self._source.iterate(iterable, self._runtime.threads)
        task = self._task
        assert task is not None
        try:
            async for item in iterator:
                if self._stopping:
                    # Or it would arrive where the source next awaits, in its finally.
                    await task.arrive()
                    return
                self._channel.publish_nowait(item)
                # A source that does not wait would leave every subscriber behind.
                await self._runtime.turn()
        finally:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()


def broadcast(
    source: Any,
    *,
    linger: float = 5.0,
    backoff: tuple[float, float] = (0.5, 30.0),
    history: int = 1000,
    max_age: float | None = None,
    overflow: Overflow = "close",
    key: Callable[[Any], Hashable] | None = None,
    on_gap: OnGap = "reset",
) -> Broadcast:
    """
    Return one source for all clients, to be served by ``EventStream``.

    It runs while there is a client: once, however many there are. Its items are published
    in a channel, with the event IDs that they have, unless another kept event has the same.
    When it raises, that is logged, and it is started again. When it comes to its end, so
    does every client's stream; the next client starts it again.

    Args:
        source: What ``EventStream`` takes, but it cannot get a request: it is for all.
        linger: How many seconds it goes on after the last client has left.
        backoff: How many seconds to wait before it is started again: the first time, and
            at most. Each time it is twice as long, until something has been published.
        history: As for :class:`asgi_sse.Channel`, and so are the others.
        max_age: How long an event is kept.
        overflow: What becomes of slow subscribers.
        key: From an item, its key.
        on_gap: What a client gets first that has missed something.

    Raises:
        TypeError: The source cannot be one, or an option is of another type.
        ValueError: An option is out of bounds.

    Example:
        >>> async def prices():
        ...     yield {"gold": 2400}
        >>> app = broadcast(prices, linger=60)

    """
    if hasattr(source, "subscribe"):
        raise TypeError(f"source must be a source of one stream (got {source!r:.100})")
    if callable(source) and not hasattr(source, "__aiter__") and not hasattr(source, "__iter__"):
        try:
            signature = inspect.signature(source)
        except ValueError:  # Some that are written in C do not tell.
            signature = inspect.Signature()
        try:
            signature.bind()
        except TypeError:
            raise TypeError(
                f"source must be callable with nothing, because it is for all clients "
                f"(got {source!r:.100})"
            ) from None
    if not linger >= 0:
        raise ValueError(f"linger must be 0 or more seconds (got {linger!r})")
    first, longest = backoff
    if not 0 < first <= longest:
        raise ValueError(f"backoff must be two rising numbers of seconds (got {backoff!r})")
    channel = Channel(history=history, max_age=max_age, overflow=overflow, key=key, on_gap=on_gap)
    return Broadcast(source, channel, linger, (first, longest))
