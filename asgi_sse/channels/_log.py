"""
The latest events of a channel, in order, for any number of cursors.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Hashable, Iterator

from .._event import ServerSentEvent

__all__ = ["CompactLog", "Log"]

# When so many places at the beginning of the list are vacant, and no fewer than are not, they
# go: the move costs no more than the events did that left them.
_MOST_VACANT = 64


class Log:
    """
    A bounded log of events, read from a position.

    A position is a number of events: a reader at *n* has seen the first *n* of all that
    were ever appended. The log knows nothing of its readers.

    Args:
        history: How many events are kept.
        max_age: How many seconds an event is kept; ``None``: however long.
        epoch: What the log's own IDs begin with, so that it knows them from another's.

    """

    __slots__ = (
        "_events",
        "_given",
        "_history",
        "_joined",
        "_joined_for",
        "_max_age",
        "_times",
        "_vacant",
        "end",
        "epoch",
        "start",
    )

    def __init__(
        self, history: int, max_age: float | None = None, *, epoch: str | None = None
    ) -> None:
        self._history = history
        self._max_age = max_age
        self.epoch = secrets.token_urlsafe(6) if epoch is None else epoch
        #: Whoever has seen fewer events has missed some.
        self.start = 0
        #: How many events were ever appended.
        self.end = 0
        # Side by side; the first so many places are vacant.
        self._events: list[ServerSentEvent | None] = []
        self._times: list[float] = []
        self._vacant = 0
        # From IDs that are not the log's own to positions.
        self._given: OrderedDict[str, int] = OrderedDict()
        # Readers at the same position get the very same bytes.
        self._joined_for = (-1, -1)
        self._joined = (0, b"", 0)

    def append(
        self,
        event: ServerSentEvent,
        *,
        given: bool = False,
        key: Hashable = None,
        now: float = 0.0,
    ) -> None:
        """
        Add an event, and let go of those that are too many or too old.

        Args:
            event: The event, with its ID.
            given: Whether that ID is another than :meth:`id_at` would tell.
            key: What the event is the latest state of; for a compact log only.
            now: The time, if events age.

        """
        self._add(event, key, now)
        self.end += 1
        if given:
            assert event.id is not None
            # One that was expired is at its old place.
            self._given.pop(event.id, None)
            self._given[event.id] = self.end
            if len(self._given) > self._history:
                self._given.popitem(last=False)
        if self._count() > self._history:
            self._evict()
        if self._max_age is not None:
            self.expire(now)

    def expire(self, now: float) -> None:
        """
        Let go of the events that are too old.
        """
        if self._max_age is not None:
            while self._count() and self._oldest_time() <= now - self._max_age:
                self._evict()

    def since(self, position: int, limit: int) -> tuple[int, bytes, int]:
        """
        Return the blocks of what follows a position.

        Args:
            position: Where to begin, not before *start*.
            limit: At how many bytes to stop. The first event is there, whatever its size.

        Returns:
            The number of events, their bytes, and the position after them.

        """
        # Not joined: every reader asks so between two who want the same.
        if position == self.end:
            return 0, b"", position
        if self._joined_for != (position, self.end):
            self._joined_for = position, self.end
            self._joined = self._join(position, limit)
        return self._joined

    def _join(self, position: int, limit: int) -> tuple[int, bytes, int]:
        blocks: list[bytes] = []
        size = 0
        for end, event in self.events(position):
            block = event.encode()
            size += len(block)
            if size > limit and blocks:
                break
            blocks.append(block)
            position = end
        # A single one is not copied.
        return len(blocks), blocks[0] if len(blocks) == 1 else b"".join(blocks), position

    # IDs.

    def id_at(self, position: int) -> str:
        """
        Return the ID that says that so many events were seen.
        """
        return f"{self.epoch}-{position}"

    def find(self, event_id: str) -> int | None:
        """
        Return the position after the event with this ID.

        Returns:
            ``None`` if nobody can say what followed it: it was never an ID of this log, or
            some of what followed is gone.

        """
        position = self._given.get(event_id)
        if position is None:
            epoch, _, number = event_id.rpartition("-")
            # Not a number with thousands of digits, which Python refuses to read.
            if epoch != self.epoch or not (number.isascii() and number.isdigit()):
                return None
            position = int(number[:20])
            if self.id_at(position) != event_id:
                return None
        return position if self.start <= position <= self.end else None

    def has_given(self, event_id: str) -> bool:
        """
        Whether one of the events that are kept has this ID, and it is not the log's own.
        """
        return self._given.get(event_id, 0) > self.start

    def oldest(self) -> str | None:
        """
        Return the ID of the oldest event that is kept.
        """
        for _, event in self.events(self.start):
            return event.id
        return None

    def latest(self) -> str | None:
        """
        Return the ID of the latest event, if it is kept.
        """
        event = self._events[-1] if self._events else None
        return None if event is None else event.id

    # What is kept, and where.

    def events(self, position: int) -> Iterator[tuple[int, ServerSentEvent]]:
        """
        Yield what follows a position, each event with the position after it.
        """
        first = position - self.start + self._vacant
        for index in range(first, len(self._events)):
            event = self._events[index]
            position += 1
            assert event is not None
            yield position, event

    def _add(self, event: ServerSentEvent, key: Hashable, now: float) -> None:
        self._events.append(event)
        if self._max_age is not None:
            self._times.append(now)

    def _count(self) -> int:
        return self.end - self.start

    def _oldest_time(self) -> float:
        return self._times[self._vacant]

    def _evict(self) -> None:
        vacant = self._vacant
        self._events[vacant] = None
        self.start += 1
        vacant += 1
        if vacant > _MOST_VACANT and vacant * 2 >= len(self._events):
            del self._events[:vacant]
            del self._times[:vacant]
            vacant = 0
        self._vacant = vacant


class CompactLog(Log):
    """
    A log that keeps only the latest event of each key.

    What is superseded is neither counted for *history* nor missed by anybody.
    """

    __slots__ = ("_kept", "_latest")

    def __init__(
        self, history: int, max_age: float | None = None, *, epoch: str | None = None
    ) -> None:
        super().__init__(history, max_age, epoch=epoch)
        # From the position after each event to the event, its key and its time.
        self._kept: OrderedDict[int, tuple[ServerSentEvent, Hashable, float]] = OrderedDict()
        # From keys to these positions.
        self._latest: dict[Hashable, int] = {}

    def latest(self) -> str | None:
        return self._kept[self.end][0].id if self.end in self._kept else None

    def events(self, position: int) -> Iterator[tuple[int, ServerSentEvent]]:
        pending: list[tuple[int, ServerSentEvent]] = []
        # From the end: most readers are there.
        for end in reversed(self._kept):
            if end <= position:
                break
            pending.append((end, self._kept[end][0]))
        return reversed(pending)

    def _add(self, event: ServerSentEvent, key: Hashable, now: float) -> None:
        end = self.end + 1
        if key is not None:
            former = self._latest.get(key)
            if former is not None:
                del self._kept[former]
            self._latest[key] = end
        self._kept[end] = event, key, now

    def _count(self) -> int:
        return len(self._kept)

    def _oldest_time(self) -> float:
        return self._kept[next(iter(self._kept))][2]

    def _evict(self) -> None:
        self.start, (_, key, _) = self._kept.popitem(last=False)
        if key is not None:
            del self._latest[key]
