"""
When a stream has to end that could go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

from ._options import Reason
from ._runtime import Entry, Runtime

# How long it may go unnoticed, in seconds, that the clock on the wall was set, or that
# the machine was asleep, which the event loop's clock does not count.
_LONGEST_LOOK = 30.0


class Term:
    """
    Ends a stream when it is old enough, or when what it was opened with has expired.

    Args:
        runtime: Of the event loop.
        close: Called with the reason when it is time.

    """

    __slots__ = ("_close", "_entries", "_runtime")

    def __init__(self, runtime: Runtime, close: Callable[[Reason], None]) -> None:
        self._runtime = runtime
        self._close = close
        self._entries: dict[Reason, Entry] = {}

    def limit_age(self, seconds: float) -> None:
        """
        End the stream in so many seconds.
        """
        self._set("max_age", self._runtime.now() + seconds, self._end_of_age)

    def expire_at(self, when: float | None) -> None:
        """
        End the stream at a time of the clock on the wall, and not at the one set before.
        """
        if when is None:
            self._discard("expired")
        else:
            self._set("expired", self._runtime.now(), partial(self._look, when))

    def discard(self) -> None:
        """
        Let the stream be.
        """
        for reason in list(self._entries):
            self._discard(reason)

    def _set(self, reason: Reason, when: float, callback: Callable[[float], float]) -> None:
        self._discard(reason)
        self._entries[reason] = self._runtime.ticker.add(when, callback)

    def _discard(self, reason: Reason) -> None:
        entry = self._entries.pop(reason, None)
        if entry is not None:
            self._runtime.ticker.discard(entry)

    def _end_of_age(self, _: float) -> float:
        self._close("max_age")
        return math.inf

    def _look(self, when: float, now: float) -> float:
        left = when - time.time()
        if left <= 0:
            self._close("expired")
            return math.inf
        return now + min(left, _LONGEST_LOOK)
