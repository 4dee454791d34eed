"""
How many streams may be open at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Hashable
from inspect import isawaitable
from threading import Lock
from typing import NamedTuple

from ._request import Refused, Request

#: Returns whose stream it is, or ``None`` for one that counts in the total alone.
Per = Callable[[Request], Hashable | Awaitable[Hashable]]


class LimiterStatistics(NamedTuple):
    """
    What a :class:`Limiter` has counted.
    """

    #: Streams that are open, and the keys that they have.
    open: int
    keys: int
    #: Requests that were turned away since it was made: because of the total, and of the
    #: limit of one key.
    refused_total: int
    refused_each: int


class Limiter:
    """
    A limit for the streams that are open at once, in all and for each key.

    Who comes when there is no room gets 503, or 429 if he has had his share,
    with ``Retry-After``. An ``EventSource`` would give up for good, so it gets
    200 with a reconnection time and an end at once. HEAD is not counted.

    One may be given to several event streams, and to several event loops and
    threads of the process; it counts them together. It knows nothing of other
    processes: with eight workers give each an eighth.

    Args:
        total: How many may be open in all. ``None``: any number.
        each: How many of one key.
        per: A function, or coroutine function, that is given the
            :class:`Request` and returns the key: the client's host, a user.
            What is ``None`` has no limit of its own. It may raise
            :class:`Refused`. The request has no body yet.
        retry_after: When to come again, in seconds. What comes back by itself
            is spread over half as long again.

    Raises:
        TypeError: An argument is of another type, or only one of *each* and
            *per* is given.
        ValueError: A number makes no sense, or nothing is limited.

    Example:
        >>> def host(request):
        ...     return request.client and request.client[0]
        >>> limit = Limiter(10_000, each=6, per=host)

    """

    def __init__(
        self,
        total: int | None = None,
        *,
        each: int | None = None,
        per: Per | None = None,
        retry_after: float = 30.0,
    ) -> None:
        for name, value in (("total", total), ("each", each)):
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int (got {value!r})")
            if value < 0:
                raise ValueError(f"{name} must be 0 or more (got {value!r})")
        if (each is None) != (per is None):
            raise TypeError("each and per must be given together: how many, and of whom")
        if per is not None and not callable(per):
            raise TypeError(f"per must be a function (got {per!r})")
        if total is None and each is None:
            raise ValueError("a Limiter must have a total, or each and per")
        if not isinstance(retry_after, int | float) or isinstance(retry_after, bool):
            raise TypeError(f"retry_after must be a number of seconds (got {retry_after!r})")
        if not 0 < retry_after < math.inf:
            raise ValueError(f"retry_after must be finite and more than 0 (got {retry_after!r})")
        self._total = total
        self._each = each
        self._per = per
        self._retry_after = retry_after
        # Not one of an event loop: several may count here, each in a thread of its own. It
        # is held for a few additions.
        self._lock = Lock()
        self._open = 0
        # Only those with an open stream, so it cannot grow beyond these.
        self._keys: dict[Hashable, int] = {}
        self._refused_total = 0
        self._refused_each = 0

    def __repr__(self) -> str:
        return f"<Limiter {self._open} of {self._total}, {len(self._keys)} keys>"

    def statistics(self) -> LimiterStatistics:
        """
        Return what it has counted.
        """
        with self._lock:
            return LimiterStatistics(
                self._open, len(self._keys), self._refused_total, self._refused_each
            )

    async def key(self, request: Request) -> Hashable:
        """
        Return whose stream it would be.

        Raises:
            Exception: What *per* raises.

        """
        if self._per is None:
            return None
        key = self._per(request)
        return await key if isawaitable(key) else key

    def enter(self, key: Hashable) -> Refused | None:
        """
        Count a stream, which must leave once; or return why it may not enter.
        """
        with self._lock:
            if self._total is not None and self._open >= self._total:
                self._refused_total += 1
                status, detail = 503, "Too many streams are open."
            elif key is not None and self._keys.get(key, 0) >= (self._each or 0):
                self._refused_each += 1
                status, detail = 429, "Too many of your streams are open."
            else:
                self._open += 1
                if key is not None:
                    self._keys[key] = self._keys.get(key, 0) + 1
                return None
        return Refused(status, detail, {"Retry-After": str(math.ceil(self._retry_after))})

    def leave(self, key: Hashable) -> None:
        """
        Give back what was entered.
        """
        with self._lock:
            self._open -= 1
            if key is not None:
                self._keys[key] -= 1
                if not self._keys[key]:
                    del self._keys[key]

    def reconnection_time(self) -> int:
        """
        Return when an ``EventSource`` is to come again, in milliseconds, at random.
        """
        return round(1000 * self._retry_after * random.uniform(1, 1.5))
