"""
A cursor into a log, and what it is to be told when the log has moved on without it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote_plus

from anyio import current_time

from .._event import ServerSentEvent
from .._runtime import Signal, current_runtime
from ._log import CompactLog, Log
from ._make import without_id

__all__ = [
    "EARLIEST",
    "LONGEST_ID",
    "Fanout",
    "Gap",
    "OnGap",
    "Overflow",
    "Statistics",
    "Subscription",
]

#: Where a client begins that wants all that is kept.
EARLIEST = "earliest"

#: How many characters the ID of an engine has at most: two numbers of 64 bits.
LONGEST_ID = 41

# What one send takes of a backlog, in bytes: enough to cost nothing, and little enough to be
# held for a moment by each of a thousand slow clients.
_CHUNK = 262_144

# How much of an event ID that nobody knows is said back: what clients send may be anything.
_LONGEST_ECHO = 200

Overflow = Literal["close", "skip", "latest"]


@dataclass(frozen=True, slots=True)
class Gap:
    """
    What a subscriber has missed, because it is no longer kept.

    Attributes:
        requested: The event ID after which the subscriber wanted to go on.
        oldest: The ID of the oldest event that is kept; ``None`` if none is.
        latest: The ID of the latest one.

    """

    requested: str
    oldest: str | None
    latest: str | None


OnGap = str | Callable[[Gap], Any] | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    How a channel is doing.

    Attributes:
        subscribers: How many subscriptions there are.
        position: How many events this channel has had so far.
        oldest: The position before the oldest event that is kept.
        largest_lag: How many events the slowest subscriber has still to take.
        published: How many events were published here. (A broker forgets it with a channel
            that nobody holds or reads.)
        dropped: How many events subscribers have missed, and were told so.
        closed_for_lag: How many subscriptions were closed, because they fell behind.
        skipped: How many entries of the engine could not be read as events.

    """

    subscribers: int
    position: int
    oldest: int
    largest_lag: int
    published: int
    dropped: int
    closed_for_lag: int
    skipped: int = 0


class Fanout:
    """
    A log, those who read it, and those of them that wait for more.

    Adding an event costs one call for each subscription that waits, and nothing for one
    that does not.
    """

    def __init__(
        self,
        *,
        history: int,
        max_age: float | None,
        overflow: Overflow,
        on_gap: OnGap,
    ) -> None:
        if not isinstance(history, int) or isinstance(history, bool):
            raise TypeError(f"history must be an int (got {history!r})")
        if history < 1:
            raise ValueError(f"history must be at least 1 event (got {history})")
        if max_age is not None and not max_age > 0:
            raise ValueError(f"max_age must be more than 0 seconds, or None (got {max_age!r})")
        if overflow not in ("close", "skip", "latest"):
            raise ValueError(f"overflow must be 'close', 'skip' or 'latest' (got {overflow!r})")
        if isinstance(on_gap, str):
            # It is checked where the mistake is made.
            ServerSentEvent(event=on_gap)
        elif on_gap is not None and not callable(on_gap):
            raise TypeError(f"on_gap must be an event type or a function (got {on_gap!r})")
        self.overflow = overflow
        self.log = (CompactLog if overflow == "latest" else Log)(history, max_age)
        self.closed = False
        # A set with an order: a plain one is walked through as addresses hash, and thousands
        # of subscriptions are woken faster in the order in which they lie in memory.
        self.waiting: dict[Subscription, None] = {}
        # Those whose place is not known yet, and since when they wait for it.
        self.unplaced: dict[Subscription, float] = {}
        # Weakly: a subscription that was forgotten without being closed is no more.
        self.subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self.dropped = 0
        self.closed_for_lag = 0
        # Called when a subscription has left.
        self.on_left: Callable[[], None] | None = None
        self._on_gap = on_gap

    def wake(self) -> None:
        """
        Call everybody who waits.
        """
        waiting = self.waiting
        if waiting:
            self.waiting = {}
            for subscription in waiting:
                subscription.wake()

    def is_known(self, event_id: str) -> bool:
        """
        Whether the log can tell by now where an event with this ID is, or that it is gone.
        """
        return True

    def end_all(self) -> None:
        """
        Let every subscription end when it has taken what there is now.
        """
        for subscription in self.subscriptions:
            subscription.ending = True
        for subscription in self.unplaced:
            subscription.wake()
        self.wake()

    def largest_lag(self) -> int:
        """
        Return how many events the slowest subscription has still to take.
        """
        end = self.log.end
        return max((end - sub.position for sub in self.subscriptions), default=0)

    def first_events(self, requested: str) -> list[ServerSentEvent]:
        """
        Return what comes before all that is kept, for one who has missed something.
        """
        log = self.log
        # From here it can go on, also if it has seen nothing but this.
        resume = log.id_at(log.start)
        # It may come from the wire, and is to go back to it.
        requested = requested[:_LONGEST_ECHO].encode("utf-8", "replace").decode()
        gap = Gap(requested, log.oldest(), log.latest())
        if isinstance(self._on_gap, str):
            return [ServerSentEvent.json(gap, event=self._on_gap, id=resume)]
        given = None if self._on_gap is None else self._on_gap(gap)
        # Only after a whole snapshot it counts as seen.
        return [*map(without_id, _as_items(given)), ServerSentEvent(id=resume)]


class Subscription:
    """
    A place in a channel: what is published after it comes, in order and once.

    It is an async iterator and an async context manager; made by ``subscribe()``. The
    place is held from then on, so nothing is missed that is published before the first
    event is asked for. The first event has only an ID if the subscription is new, so that
    a client that loses its connection before it sees any other can go on from here.
    """

    # Also a Feed, which a response reads without a task of its own.

    __slots__ = (
        "__weakref__",
        "_fanout",
        "_first",
        "_missed",
        "_signal",
        "ending",
        "over",
        "position",
        "requested",
        "wake",
    )

    #: Called when there may be something to take.
    wake: Callable[[], None]

    def __init__(self, fanout: Fanout, last_event_id: str | None) -> None:
        self._fanout = fanout
        self._signal: Signal | None = None
        self.wake = _do_nothing
        self._first: list[ServerSentEvent] = []
        # After which event it has missed some, until that is told.
        self._missed: str | None = None
        #: After which event to begin, until that place is found.
        self.requested: str | None = last_event_id or ""
        self.over = False
        #: Whether it ends when there is nothing left to take.
        self.ending = fanout.closed
        #: How many events it has taken, or was too late for.
        self.position = fanout.log.end
        fanout.subscriptions.add(self)
        self.place()

    def place(self) -> None:
        """
        Find the place to begin at, unless it is not known yet.
        """
        requested = self.requested
        fanout = self._fanout
        assert requested is not None
        if not fanout.is_known(requested):
            fanout.unplaced.setdefault(self, current_time())
            return
        log = fanout.log
        found = log.find(requested) if requested else log.end
        if requested and found is None and requested != EARLIEST:
            self._miss(requested)
        elif not requested or requested == EARLIEST:
            found = log.start if found is None else found
            self._first = [ServerSentEvent(id=log.id_at(found))]
        self.position = log.start if found is None else found
        self.requested = None
        fanout.unplaced.pop(self, None)

    def attach(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def take(self) -> tuple[int, bytes, bool]:
        """
        Return how many events are pending, their blocks up to a limit, and if there is more.
        """
        fanout = self._fanout
        log = fanout.log
        # Most deliveries need no call to know that it is ready.
        settled = self.requested is None and self.position >= log.start
        if not (settled or self.is_ready()) or self.over:
            return 0, b"", False
        count, blocks, self.position = log.since(self.position, _CHUNK)
        if self._first:
            blocks = b"".join(event.encode() for event in self._first) + blocks
            count += sum(event.data is not None for event in self._first)
            self._first = []
            self._missed = None
        if self.ending:
            self.over = not blocks
            return count, blocks, not self.over
        if blocks and self.position != log.end:
            return count, blocks, True
        # At once: a response would only come back to be told that there is nothing more.
        fanout.waiting[self] = None
        return count, blocks, False

    def detach(self) -> None:
        """
        Give the place up.
        """
        fanout = self._fanout
        self.over = True
        waits = self in fanout.waiting or self in fanout.unplaced
        fanout.waiting.pop(self, None)
        fanout.unplaced.pop(self, None)
        if waits:
            # Whoever waits for the next event sees that there is none.
            self.wake()
        # It may hold what holds this: nothing is left to tell.
        self.wake = _do_nothing
        if self in fanout.subscriptions:
            fanout.subscriptions.remove(self)
            if fanout.on_left is not None:
                fanout.on_left()

    async def aclose(self) -> None:
        """
        Give the place up: whoever waits for the next event gets no more.
        """
        self.detach()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.detach()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """
        Return the next event.

        Cancellation: nothing is lost; the next call returns it.

        Raises:
            StopAsyncIteration: The channel or the subscription was closed, or it fell so
                far behind that the channel has given it up.

        """
        while (event := self.next_nowait()) is None:
            if self.over or self.ending:
                raise StopAsyncIteration
            if self._signal is None:
                self._signal = current_runtime().signal()
                self.wake = self._signal.notify
            self.wait_for_more()
            try:
                await self._signal.wait()
            finally:
                self._fanout.waiting.pop(self, None)
        return event

    def event_id(self) -> str:
        """
        Return the ID by which a client could come back to where it is.
        """
        # Coming back with another, it would never be told.
        return self._fanout.log.id_at(self.position) if self._missed is None else self._missed

    def wait_for_more(self) -> None:
        """
        Have ``wake`` called when something more is published.
        """
        if self.requested is None and not self.over:
            self._fanout.waiting[self] = None

    def next_nowait(self) -> ServerSentEvent | None:
        """
        Return the next event, if there is one.
        """
        if not self.is_ready():
            return None
        if self._first:
            event = self._first.pop(0)
            if not self._first:
                self._missed = None
            return event
        for position, event in self._fanout.log.events(self.position):
            self.position = position
            return event
        return None

    def is_ready(self) -> bool:
        """
        Whether there is a place to read on from.
        """
        if self.requested is not None and not self.over:
            self.place()
        if self.requested is not None:
            self.over = self.over or self.ending
            return False
        if self.position < self._fanout.log.start:
            self._fall_behind()
        return not self.over

    def _fall_behind(self) -> None:
        """
        Deal with that some of what it has not taken is gone.
        """
        fanout = self._fanout
        log = fanout.log
        if fanout.overflow == "close":
            fanout.closed_for_lag += 1
            self.detach()
        else:
            fanout.dropped += log.start - self.position
            self._miss(log.id_at(self.position))
            self.position = log.start

    def _miss(self, requested: str) -> None:
        self._first = self._fanout.first_events(requested)
        # Of one that no engine could have made it is enough that nobody knows it.
        fits = requested.isascii() and len(quote_plus(requested)) <= LONGEST_ID
        self._missed = requested if fits else "?"


def _as_items(given: Any) -> Iterable[Any]:
    """
    Return what a hook has given as several items.
    """
    if given is None:
        return ()
    # Not everything that can be iterated over: a mapping is one item, and so is a model.
    return given if isinstance(given, list | tuple | Iterator) else (given,)


def _do_nothing() -> None:
    pass
