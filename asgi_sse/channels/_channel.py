"""
A channel: what is published in this process, for any number of subscribers in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Self

from anyio import ClosedResourceError, current_time, from_thread
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from .._event import ServerSentEvent
from ._make import make_event
from ._subscription import EARLIEST, Fanout, OnGap, Overflow, Statistics, Subscription

__all__ = ["Channel"]

_BURST = 32


class Channel:
    """
    One source of events for many clients, in one process and event loop.

    It is a bounded log, and a subscription is a place in it: publishing costs the same for
    one subscriber as for ten thousand, but for waking those that wait, and memory is
    bounded by *history*, whatever clients do.

    ``EventStream(channel)`` serves it. A client that is new gets what is published from
    then on; one that comes back gets what it has missed, then the same. A new one that
    wants all that is kept asks for ``?lastEventId=earliest``.

    Args:
        history: How many events are kept, for clients that come back or are slow.
        max_age: How many seconds an event is kept. It goes when another is published, or
            somebody subscribes.
        overflow: What becomes of a subscriber so slow that what it should get next is no
            longer kept. ``"close"``: its stream ends, and the client comes back for what is
            kept. ``"skip"``: it goes on with that at once. Both are told of the gap.
            ``"latest"``: as ``"skip"``, but an event supersedes the former one of the same
            key, also in the history: for states, of which only the latest counts.
        key: From an item, its key (any hashable, or ``None``: never superseded), unless
            ``publish()`` is given one. Only for ``"latest"``.
        on_gap: What a client gets first that has missed something, or whose last event ID
            is unknown. An event type: an event whose data is JSON with ``requested``,
            ``oldest`` and ``latest``, which are event IDs. A function: what it returns,
            called with a ``Gap``: an item, a list or iterator of items (such as a
            snapshot), or ``None``. ``None``: nothing. Then comes all that is kept.

    Raises:
        TypeError: An option is of another type.
        ValueError: An option is out of bounds.

    Example:
        >>> channel = Channel(history=100)
        >>> channel.publish_nowait("hello", id="greeting")
        'greeting'

    """

    def __init__(
        self,
        *,
        history: int = 1000,
        max_age: float | None = None,
        overflow: Overflow = "close",
        key: Callable[[Any], Hashable] | None = None,
        on_gap: OnGap = "reset",
    ) -> None:
        self._fanout = Fanout(history=history, max_age=max_age, overflow=overflow, on_gap=on_gap)
        if key is not None and overflow != "latest":
            raise ValueError(f"key is for overflow='latest' (got overflow={overflow!r})")
        # How many events may be published in one go: enough for a send to carry many, and
        # too few for anybody to fall behind.
        self._burst = max(1, min(_BURST, history // 2))
        # How many there were when others than the publisher last had a turn: long ago.
        self._turn_at = -self._burst
        self._max_age = max_age
        self._key = key
        self._token: EventLoopToken | None = None
        # Whether an event gets another ID if its own cannot be one here.
        self._renames = False

    async def publish(
        self,
        item: Any,
        *,
        event: str | None = None,
        id: str | int | None = None,
        key: Hashable = None,
    ) -> str:
        """
        Give an item to every subscriber.

        It does not wait for them; now and then it lets them have their turn.

        Cancellation: the event was not published.

        Args:
            item: A str is data, an event is itself, anything else is data as JSON.
            event: The event type.
            id: The event ID, instead of one that the channel makes. It must not be that of
                another event that is kept: a client could not say which it saw.
            key: What the event is the latest state of.

        Returns:
            The event ID.

        Raises:
            ClosedResourceError: The channel is closed.
            TypeError: The item cannot be an event.
            ValueError: The item cannot be an event, or the ID cannot be one here.

        """
        # A publisher that does nothing else has to let the subscribers have their turn, before
        # they fall behind; but what is published in one go they are to get in one go.
        end = self._fanout.log.end
        if self._fanout.waiting:
            # They have had it since the last event.
            self._turn_at = end
        elif end - self._turn_at >= self._burst:
            await checkpoint()
            self._turn_at = end
        return self.publish_nowait(item, event=event, id=id, key=key)

    def publish_nowait(
        self,
        item: Any,
        *,
        event: str | None = None,
        id: str | int | None = None,
        key: Hashable = None,
    ) -> str:
        """
        Give an item to every subscriber, from code that cannot wait.

        Only in the channel's event loop: from a thread, call :meth:`publish_from_thread`.
        More of them in a row than *history*, without an ``await`` between them, leave every
        subscriber behind.

        Args:
            item: As for :meth:`publish`, and so are the others.
            event: The event type.
            id: The event ID.
            key: What the event is the latest state of.

        Returns:
            The event ID.

        Raises:
            ClosedResourceError: The channel is closed.
            TypeError: As :meth:`publish`.
            ValueError: As :meth:`publish`.

        """
        fanout = self._fanout
        if fanout.closed:
            raise ClosedResourceError("the channel is closed")
        log = fanout.log
        given = id is not None or (isinstance(item, ServerSentEvent) and item.id is not None)
        made = make_event(item, event=event, id=id if given else log.id_at(log.end + 1))
        if given:
            try:
                self._check(made.id or "")
            except ValueError:
                if not self._renames:
                    raise
                given = False
                made = make_event(made, id=log.id_at(log.end + 1))
        if key is None and self._key is not None:
            key = self._key(item)
        now = 0.0 if self._max_age is None else current_time()
        log.append(made, given=given, key=key, now=now)
        fanout.wake()
        assert made.id is not None
        return made.id

    def publish_from_thread(
        self,
        item: Any,
        *,
        event: str | None = None,
        id: str | int | None = None,
        key: Hashable = None,
    ) -> str:
        """
        Give an item to every subscriber, from a thread, and wait until that is done.

        Any thread will do once somebody has subscribed, or the channel was entered with
        ``async with``; before that, only one of anyio's worker threads.

        Args:
            item: As for :meth:`publish`, and so are the others.
            event: The event type.
            id: The event ID.
            key: What the event is the latest state of.

        Returns:
            The event ID.

        Raises:
            ClosedResourceError: The channel is closed.
            RuntimeError: The channel knows no event loop yet, or the event loop has
                ended, or this is its thread.
            TypeError: As :meth:`publish`.
            ValueError: As :meth:`publish`.

        """
        publish = partial(self.publish_nowait, item, event=event, id=id, key=key)
        return from_thread.run_sync(publish, token=self._token)

    def subscribe(self, last_event_id: str | None = None) -> Subscription:
        """
        Return a place in the channel: what is published from now on comes.

        Args:
            last_event_id: After which event to begin. If it is unknown, or something of
                what followed is no longer kept, *on_gap* comes first, then all that is
                kept. ``"earliest"``: all that is kept. ``None`` and ``""``: what follows.

        Returns:
            An async iterator of events, and an async context manager. If the channel is
            closed, it ends after what is kept.

        """
        self._token = current_token()
        if self._max_age is not None:
            self._fanout.log.expire(current_time())
        return Subscription(self._fanout, last_event_id)

    def statistics(self) -> Statistics:
        """
        Return how the channel is doing.
        """
        fanout = self._fanout
        return Statistics(
            subscribers=len(fanout.subscriptions),
            position=fanout.log.end,
            oldest=fanout.log.start,
            largest_lag=fanout.largest_lag(),
            published=fanout.log.end,
            dropped=fanout.dropped,
            closed_for_lag=fanout.closed_for_lag,
        )

    async def aclose(self) -> None:
        """
        End every subscription when it has taken what there is, and publish nothing more.

        It does not wait for them. To close it again does nothing.

        Cancellation: it is closed all the same.
        """
        self._fanout.closed = True
        self._fanout.end_all()
        await checkpoint()

    async def __aenter__(self) -> Self:
        self._token = current_token()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check(self, event_id: str) -> None:
        """
        Refuse an ID by which nobody could tell where a client is.
        """
        log = self._fanout.log
        if not event_id:
            raise ValueError("id must not be empty: a client that saw it could not come back")
        if event_id == EARLIEST:
            raise ValueError(f"id must not be {EARLIEST!r}: it asks for all that is kept")
        if event_id.startswith(f"{log.epoch}-"):
            raise ValueError(f"id must not look like one of the channel's own (got {event_id!r})")
        if log.has_given(event_id):
            raise ValueError(f"id must not be that of another event (got {event_id!r})")
