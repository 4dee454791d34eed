"""
Channels that are kept in this process, for a broker that needs no engine.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncGenerator, Mapping

from anyio import Event, current_time, move_on_after
from anyio.lowlevel import checkpoint

from ._backend import Backend, Batch, BrokerError, Entry, Order

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
        self._number = 0
        self._closed = False

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        await checkpoint()
        if self._closed:
            raise BrokerError("the broker is closed")
        self._number += 1
        kept = self._channels.setdefault(name, _Kept())
        kept.entries.append((current_time(), Entry((self._number,), fields)))
        self._trim(kept)
        kept.news.set()
        kept.news = Event()
        return (self._number,)

    def _trim(self, kept: _Kept) -> None:
        oldest = -1.0 if self._max_age is None else current_time() - self._max_age
        while kept.entries and (len(kept.entries) > self._history or kept.entries[0][0] <= oldest):
            kept.gone = kept.entries.popleft()[1].order

    async def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        kept = self._channels.setdefault(name, _Kept())
        self._trim(kept)
        missing = kept.gone if after is None or after < kept.gone else None
        after = after or (0,)
        while not self._closed:
            news = kept.news
            entries = [entry for _, entry in kept.entries if entry.order > after]
            if entries:
                after = entries[-1].order
            yield Batch(entries, missing)
            with move_on_after(_PATIENCE):
                await news.wait()
            missing = kept.gone if after < kept.gone else None
        raise BrokerError("the broker is closed")

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
        for kept in self._channels.values():
            kept.news.set()


class _Kept:
    """
    What is kept of one channel.
    """

    def __init__(self) -> None:
        # With the time at which each was published.
        self.entries: deque[tuple[float, Entry]] = deque()
        self.gone: Order = (0,)
        self.news = Event()
