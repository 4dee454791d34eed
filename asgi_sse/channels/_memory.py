"""
Channels that are kept in this process, for a broker that needs no engine.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from heapq import merge
from itertools import takewhile

from anyio import Event, current_time, move_on_after
from anyio.lowlevel import checkpoint

from ._backend import Backend, Batch, BrokerError, Entry, Order
from ._names import is_pattern, matches

__all__ = ["MemoryBackend"]

# How long a reader waits until it says that there is nothing, in seconds.
_PATIENCE = 1.0


class MemoryBackend(Backend):
    """
    As an engine would do it, but nothing survives the process, nor leaves it.
    """

    def __init__(self, history: int, max_age: float | None) -> None:
        self._history = history
        self._max_age = max_age
        self._epoch = secrets.token_urlsafe(6)
        self._channels: dict[str, _Kept] = {}
        # Those in which something may age, in the order of their latest events.
        self._aging: OrderedDict[str, _Kept] = OrderedDict()
        # Of all channels, so that it tells a place in several of them, too.
        self._number = 0
        # From names and patterns to what wakes those who wait for them.
        self._news: dict[str, Event] = {}
        self._closed = False

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        await checkpoint()
        if self._closed:
            raise BrokerError("the broker is closed")
        self._number += 1
        kept = self._channels.setdefault(name, _Kept())
        kept.entries.append((current_time(), Entry((self._number,), fields)))
        self._trim(kept)
        if self._max_age is not None:
            self._aging[name] = kept
            self._aging.move_to_end(name)
            self._trim_others()
        self._wake(name)
        for each in [each for each in self._news if is_pattern(each) and matches(each, name)]:
            self._wake(each)
        return (self._number,)

    async def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        last = after or (0,)
        first = after is None
        try:
            while not self._closed:
                news = self._news.setdefault(name, Event())
                gone = max((kept.gone for kept in self._find(name)), default=(0,))
                missing = gone if first or last < gone else None
                first = False
                last = max(last, gone)
                parts = [kept.after(last) for kept in self._find(name)]
                entries = list(merge(*parts, key=lambda entry: entry.order))
                if len(entries) > self._history:
                    # Of several channels together no more is kept than of one.
                    missing = entries[-self._history - 1].order
                    entries = entries[-self._history :]
                if entries:
                    last = entries[-1].order
                yield Batch(entries, missing)
                with move_on_after(_PATIENCE):
                    await news.wait()
        finally:
            # If somebody else waits for it, too, he asks again.
            self._wake(name)
        raise BrokerError("the broker is closed")

    def _wake(self, name: str) -> None:
        if name in self._news:
            self._news.pop(name).set()

    def _find(self, name: str) -> list[_Kept]:
        """
        Return what is kept by now of the channels that are meant.
        """
        if is_pattern(name):
            found = [kept for each, kept in self._channels.items() if matches(name, each)]
        else:
            found = [self._channels[name]] if name in self._channels else []
        for kept in found:
            self._trim(kept)
        return found

    def _trim_others(self) -> None:
        """
        Let go of what is too old in channels to which nobody publishes any more.
        """
        while True:
            # It comes to an end: the last one has an event that is new.
            name, kept = next(iter(self._aging.items()))
            self._trim(kept)
            if kept.entries:
                break
            del self._aging[name]

    def _trim(self, kept: _Kept) -> None:
        oldest = -1.0 if self._max_age is None else current_time() - self._max_age
        while kept.entries and (len(kept.entries) > self._history or kept.entries[0][0] <= oldest):
            kept.gone = kept.entries.popleft()[1].order

    def write_id(self, order: Order) -> str:
        return f"{self._epoch}-{order[0]}"

    def read_id(self, event_id: str) -> Order | None:
        epoch, _, number = event_id.rpartition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit()):
            return None
        order = (int(number[:20]),)
        return order if self.write_id(order) == event_id else None

    async def aclose(self) -> None:
        self._closed = True
        for news in self._news.values():
            news.set()


class _Kept:
    """
    What is kept of one channel.
    """

    def __init__(self) -> None:
        # With the time at which each was published.
        self.entries: deque[tuple[float, Entry]] = deque()
        self.gone: Order = (0,)

    def after(self, order: Order) -> Iterator[Entry]:
        # From the end: a reader has most of them.
        newest = (entry for _, entry in reversed(self.entries))
        return reversed(list(takewhile(lambda entry: entry.order > order, newest)))
