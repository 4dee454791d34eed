"""
What an event loop lends: wake-ups, tasks, an alarm.
"""

# anyio's own tools for these cost more than everything else that an event
# passes through (an anyio.Event made per wait 4 us, a cancel scope per send
# 9 us, a future under 1 us), and its task groups wait for a task that refuses
# to end. Hence one small file for each of the two kinds of event loop.

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol

from anyio import CapacityLimiter

# Threads that may be inside a synchronous source at the same time, per event loop.
_THREADS = 256


class Signal(Protocol):
    """
    Wakes the one task that waits for it.

    It keeps no state: look whether there is something to do, and only then
    wait, without an await in between.
    """

    def wait(self) -> Awaitable[None]: ...
    def notify(self) -> None: ...


class Task(Protocol):
    """
    A task of its own, waited for by nobody unless its maker does.
    """

    def cancel(self) -> None:
        """
        Deliver one cancellation; what the task awaits after it is not disturbed.

        A task that has not begun yet does so, and is cancelled where it first waits.
        """

    async def arrive(self) -> None:
        """
        In the task itself: let a cancellation arrive that is still on its way.
        """


class Worker(Task, Signal, Protocol):
    """
    A task for what comes again and again, with a signal that it alone waits for.

    Many of them may be woken at once, so waking one is to cost little.
    """

    def begin(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """
        Start the task, as :meth:`Runtime.spawn` does.
        """


class Runtime(ABC):
    """
    What the streams of one event loop share.
    """

    #: What anyio calls this kind of event loop.
    backend: str

    def __init__(self) -> None:
        self.ticker = Ticker(self)
        self.threads = CapacityLimiter(_THREADS)

    @abstractmethod
    def clock(self) -> Callable[[], float]:
        """
        Return what tells the event loop's time in seconds, for use within this loop.
        """

    def now(self) -> float:
        """
        Return the event loop's time in seconds.
        """
        return self.clock()()

    @abstractmethod
    def signal(self) -> Signal:
        """
        Return a new signal.
        """

    @abstractmethod
    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> Task:
        """
        Start a task that lets no exception out, in a copy of the current context.
        """

    @abstractmethod
    def worker(self) -> Worker:
        """
        Return a new worker that has not begun.
        """

    @abstractmethod
    def abandon(self, task: Task) -> None:
        """
        Let the event loop end without a task that refuses to be cancelled.
        """

    @abstractmethod
    def coroutines(self) -> Iterator[Any]:
        """
        Give what each task of the event loop runs, whoever has started it.
        """

    @abstractmethod
    async def turn(self) -> None:
        """
        Let every task that is ready, or was just spawned, run to its next wait.
        """

    @abstractmethod
    async def let_earlier_begin(self) -> None:
        """
        At the beginning of a task: let those that were spawned before it run to their first wait.
        """

    @abstractmethod
    def call_soon_threadsafe(self, function: Callable[[], None]) -> None:
        """
        Call a function in the event loop, from a signal handler or another thread.

        If the event loop has ended meanwhile, nothing happens.
        """

    @abstractmethod
    def set_alarm(self, when: float) -> None:
        """
        Ring the ticker at this time, and not at the one set before; ``math.inf``: never.
        """


class Ticker:
    """
    Calls every stream back when something of it may be due.

    One timer for all streams of the event loop, and none set anew for an
    event or a send: a callback looks what has happened meanwhile, and returns
    the time at which to look again (``math.inf``: never). It must not raise.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._entries: list[Entry] = []
        self._numbers = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, when: float, callback: Callable[[float], float]) -> Entry:
        """
        Call back at *when*, with the time, and then as the callback says.
        """
        entry: Entry = [when, next(self._numbers), callback]
        heapq.heappush(self._entries, entry)
        self._size += 1
        if self._entries[0] is entry:
            self._runtime.set_alarm(when)
        return entry

    def discard(self, entry: Entry) -> None:
        """
        Never call back again; once for an entry.
        """
        # It stays in the heap, but holds no stream, and not for long: when half of the
        # heap is such, they go.
        entry[2] = None
        self._size -= 1
        if self._size * 2 < len(self._entries):
            self._entries = [entry for entry in self._entries if entry[2] is not None]
            heapq.heapify(self._entries)
            self._set_alarm()

    def ring(self) -> None:
        """
        Call back all that is due; the runtime does this at the alarm.
        """
        now = self._runtime.now()
        while self._entries and self._entries[0][0] <= now:
            # Out of the heap first: the callback may add to it, and discard from it.
            entry = heapq.heappop(self._entries)
            if entry[2] is not None:
                entry[0] = entry[2](now)
            if entry[2] is not None:
                heapq.heappush(self._entries, entry)
        self._set_alarm()

    def _set_alarm(self) -> None:
        self._runtime.set_alarm(self._entries[0][0] if self._entries else math.inf)


# When, a number that settles ties, and whom to call (None: nobody any more).
Entry = list[Any]
