"""
What has become of streams, in numbers.
"""

# Counted when a stream ends, and looked up while it is open: an event and a send count
# anyway for on_close, and pay nothing for this.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import cast, get_args

from ._options import OpenStream, Reason


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    What has become of the streams of one app, or of one event loop.
    """

    #: Streams that are open now, from the request to the end of the cleanup: the setup
    #: phase is part of it.
    open: int
    #: Streams that were ever opened. Always ``open`` and the sum of ``closed``.
    opened: int
    #: Streams that are over, by what ``on_close`` was told; each reason is there.
    closed: Mapping[Reason, int]
    #: Requests that never became a stream, because the server was stopping, or the client
    #: had seen the end of a stream with ``end="stop"``. A :class:`Limiter` has its own.
    turned_away: int
    #: Items of the sources that were handed to the server, of streams that are open too.
    events: int
    #: Bytes of body, comments included and before any compression.
    bytes: int
    #: Streams whose client does not take what is being sent at this moment.
    send_waits: int
    #: For how many seconds the slowest of these has been waiting; else 0.
    longest_lag: float


class Tally:
    """
    Counts the streams of one app, or of one event loop.
    """

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()
        self._closed: dict[Reason, int] = dict.fromkeys(
            cast("tuple[Reason, ...]", get_args(Reason)), 0
        )
        self._turned_away = 0
        self._events = 0
        self._bytes = 0
        # An app may serve in several event loops, and an exporter asks from its own thread.
        self._lock = Lock()

    def begin(self, stream: OpenStream) -> None:
        """
        Count a stream as open.
        """
        with self._lock:
            self._open.add(stream)

    def end(self, stream: OpenStream, reason: Reason, events: int, size: int) -> None:
        """
        Count a stream as over, with what it has sent in the end.
        """
        with self._lock:
            self._open.remove(stream)
            self._closed[reason] += 1
            self._events += events
            self._bytes += size

    def turn_away(self) -> None:
        """
        Count a request that became no stream.
        """
        with self._lock:
            self._turned_away += 1

    def sent(self) -> tuple[int, int]:
        """
        Return how many events, and how many bytes; from any thread.
        """
        with self._lock:
            return (
                self._events + sum(stream.sent_events for stream in self._open),
                self._bytes + sum(stream.sent_bytes for stream in self._open),
            )

    def statistics(self) -> Statistics:
        """
        Return all the numbers; in an event loop, whose clock tells the lag.
        """
        events, size = self.sent()
        with self._lock:
            lags = [lag for stream in self._open if (lag := stream.lag)]
            return Statistics(
                open=len(self._open),
                opened=len(self._open) + sum(self._closed.values()),
                closed=dict(self._closed),
                turned_away=self._turned_away,
                events=events,
                bytes=size,
                send_waits=len(lags),
                longest_lag=max(lags, default=0.0),
            )
