"""
The vitals of this machine as events, one a second.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime

import anyio

from .._event import ServerSentEvent
from .._request import Request
from .counters import read_counters, read_levels
from .fanout import Fanout

__all__ = ["Vitals", "rates"]

# Five minutes: a page that is opened has something to plot at once, and one that was
# away has no gap.
_KEPT = 300


class Vitals:
    """
    One task that measures, and the streams of all who watch.

    Args:
        clock: The time of day, in seconds since 1970.

    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._fanout = Fanout(_second, events=_KEPT)

    async def events(self, request: Request) -> AsyncGenerator[ServerSentEvent]:
        """
        Return what the client of a request has not seen.
        """
        return self._fanout.follow(request.last_event_id)

    async def run(self) -> None:
        """
        Measure at each whole second, until cancelled.
        """
        before, then, second = read_counters(), anyio.current_time(), 0
        while True:
            # To the next whole second, or the one after: less than half a second is too
            # short to measure a rate.
            await anyio.sleep(1.5 - (self._clock() + 0.5) % 1)
            counters, now = read_counters(), anyio.current_time()
            # An ID that is the time goes on rising when the server is started again:
            # who reconnects to the new process sees no event twice. It rises even when
            # the clock is set back.
            second = max(second + 1, round(self._clock()))
            self._fanout.publish(
                ServerSentEvent.json(
                    {"time": f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"}
                    | read_levels()
                    | rates(before, counters, now - then),
                    id=second,
                )
            )
            before, then = counters, now


def rates(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, dict[str, float]]:
    """
    Return what two readings of the counters say about the time between them.

    The names end in their unit, which is how the page knows it.

    Args:
        before: The earlier reading.
        after: The later one.
        seconds: How far they are apart.

    Example:
        >>> rates({"idle": 50, "total": 100}, {"idle": 125, "total": 200}, 1)
        {'cpu': {'busy_percent': 25.0}}

    """

    # A counter that went back was reset: a disk or an interface has been taken away.
    change = {name: max(0, after[name] - before[name]) for name in before.keys() & after.keys()}
    found: dict[str, dict[str, float]] = {}
    if change.get("total"):
        busy = 100 * (1 - change["idle"] / change["total"])
        found["cpu"] = {"busy_percent": round(max(0, busy), 1)}
    for section, names in _RATES.items():
        if change.keys() >= set(names):
            found[section] = {
                f"{name}_bytes_per_s": round(change[name] / seconds) for name in names
            }
    return found


_RATES = {"network": ("received", "sent"), "disk": ("read", "written")}


def _second(id_: str) -> int | None:
    # Not int() alone, which takes " 1_000 " and refuses what is very long.
    return int(id_) if id_.isascii() and id_.isdecimal() and len(id_) < 16 else None
