"""
What the running event loop lends: wake-ups, tasks, an alarm.
"""

# anyio's own tools for these cost more than everything else that an event
# passes through (an anyio.Event made per wait 4 us, a cancel scope per send
# 9 us, a future under 1 us), and its task groups wait for a task that refuses
# to end. Hence one small class for each of the two kinds of event loop.

from __future__ import annotations

import heapq
import itertools
import math
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import copy_context
from inspect import CORO_CREATED, getcoroutinestate
from time import monotonic
from types import coroutine
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar, current_token

if TYPE_CHECKING:
    import asyncio

    import trio

# Threads that may be inside a synchronous source at the same time, per event loop.
_THREADS = 256

# After so many checkpoints in a row one of them is cancelled: more than code makes that
# holds something which it would then never release, and over in some milliseconds.
_MOST_CHECKPOINTS = 100

# How often a task that was abandoned is thrown out of what it waits for. A bare
# ``except`` in a loop takes any number.
_MOST_THROWS = 10


# trio hands it to whoever is cancelled, so it tells our own cancellations from others.
_REASON = "asgi_sse closes the source"


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


_runtime: RunVar[Runtime] = RunVar("asgi_sse_runtime")


def current_runtime() -> Runtime:
    """
    Return the runtime of the running event loop, made with its first stream.
    """
    try:
        return _runtime.get()
    except LookupError:
        # Not whether there is a trio run: in guest mode trio and asyncio take turns in
        # one thread, and anyio knows whose turn it is.
        token: Any = current_token().native_token
        trio = sys.modules.get("trio")
        in_trio = trio is not None and isinstance(token, trio.lowlevel.TrioToken)
        runtime: Runtime = _TrioRuntime(token) if in_trio else _AsyncioRuntime(token)
        _runtime.set(runtime)
        return runtime


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


class _AsyncioRuntime(Runtime):
    backend = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        super().__init__()
        self._asyncio = asyncio
        self._running_loop = asyncio.get_running_loop
        # This lives as long as the loop. If it held the loop, both would live for ever.
        self._loop = weakref.ref(loop)
        # asyncio's own time() is a function in Python that calls this one.
        time = getattr(loop.time, "__func__", None)
        self._is_monotonic = time is asyncio.BaseEventLoop.time
        self._timer: asyncio.TimerHandle | None = None

    def clock(self) -> Callable[[], float]:
        return monotonic if self._is_monotonic else self._running_loop().time

    def signal(self) -> Signal:
        return _AsyncioSignal(self._running_loop())

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> Task:
        # Not create_task(): a task factory may run a task before it is known here.
        return _AsyncioTask(self._asyncio.Task(function(), name=name))

    def abandon(self, task: Task) -> None:
        # asyncio.run() would cancel it and wait for it, for ever. This is asyncio's
        # documented way for a task that the event loop shall not know of; and then
        # nobody wants to read that it was still pending when it was destroyed.
        assert isinstance(task, _AsyncioTask)
        self._asyncio._unregister_task(task.task)
        task.task._log_destroy_pending = False  # type: ignore[attr-defined]

    def coroutines(self) -> Iterator[Any]:
        # Not anyio.get_running_tasks(), which takes ten times as long.
        return (task.get_coro() for task in self._asyncio.all_tasks())

    async def turn(self) -> None:
        # Tasks run in the order in which they became ready.
        await self._asyncio.sleep(0)

    async def let_earlier_begin(self) -> None:
        # They have: see above.
        pass

    def call_soon_threadsafe(self, function: Callable[[], None]) -> None:
        if (loop := self._loop()) is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(function)

    def set_alarm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when != math.inf:
            self._timer = self._running_loop().call_at(when, self.ticker.ring)


class _AsyncioSignal:
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def wait(self) -> Awaitable[None]:
        self._future = future = self._loop.create_future()
        return future

    def notify(self) -> None:
        future = self._future
        if future is not None:
            self._future = None
            # It is done if whoever waited was cancelled.
            if not future.done():
                future.set_result(None)


class _AsyncioTask:
    """
    A task in which a cancellation is delivered once, as asyncio does by itself.
    """

    __slots__ = ("task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task

    def cancel(self) -> None:
        if getcoroutinestate(cast("Any", self.task.get_coro())) == CORO_CREATED:
            # asyncio would not begin it at all. Its first step comes before this.
            self.task.get_loop().call_soon(self.task.cancel)
        else:
            self.task.cancel()

    async def arrive(self) -> None:
        # asyncio throws it in as soon as the task runs.
        pass


class _TrioRuntime(Runtime):
    backend = "trio"

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        import trio

        super().__init__()
        self._trio = trio
        # As with asyncio's loop: it must not be held from here.
        self._token = weakref.ref(token)
        self._alarm: trio.CancelScope | None = None
        self._when = math.inf

    def clock(self) -> Callable[[], float]:
        clock: Callable[[], float] = self._trio.current_time
        return clock

    def signal(self) -> Signal:
        return _TrioSignal()

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> Task:
        task = _TrioTask()
        self._trio.lowlevel.spawn_system_task(
            task.run, function, name=name, context=copy_context()
        )
        return task

    def abandon(self, task: Task) -> None:
        assert isinstance(task, _TrioTask)
        task.abandon()

    def coroutines(self) -> Iterator[Any]:
        # It grows while it is walked through.
        tasks: list[Any] = [self._trio.lowlevel.current_root_task()]
        for task in tasks:
            yield task.coro
            for nursery in task.child_nurseries:
                tasks += nursery.child_tasks

    async def turn(self) -> None:
        # A task that was spawned, or woken, runs in the next round, and the order
        # within a round is random: after two, all of them have had theirs.
        await self._trio.lowlevel.checkpoint()
        await self._trio.lowlevel.checkpoint()

    async def let_earlier_begin(self) -> None:
        # They begin in the same round as this one.
        await self._trio.lowlevel.checkpoint()

    def call_soon_threadsafe(self, function: Callable[[], None]) -> None:
        if (token := self._token()) is not None:
            with suppress(self._trio.RunFinishedError):
                token.run_sync_soon(function)

    def set_alarm(self, when: float) -> None:
        self._when = when
        if self._alarm is not None:
            # Nothing more to wait for: wake the task below, and it ends.
            self._alarm.deadline = -math.inf if when == math.inf else when
        elif when != math.inf:
            self._alarm = self._trio.CancelScope()
            self._trio.lowlevel.spawn_system_task(self._wait_for_alarm)

    async def _wait_for_alarm(self) -> None:
        while self._when != math.inf:
            with self._trio.CancelScope(deadline=self._when) as self._alarm:
                await self._trio.sleep_forever()
            if self._when <= self.now():
                self.ticker.ring()
        self._alarm = None


class _TrioSignal:
    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        from trio import lowlevel

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return lowlevel.Abort.SUCCEEDED

        self._task = lowlevel.current_task()
        await lowlevel.wait_task_rescheduled(abort)

    def notify(self) -> None:
        from trio import lowlevel

        task, self._task = self._task, None
        if task is not None:
            lowlevel.reschedule(task)


class _TrioTask:
    """
    A system task in which a cancellation is delivered once.

    In trio whatever is awaited in a cancelled scope is cancelled too, so that
    a source could not await in its ``finally``. A shield within the scope
    prevents that. It is down only while the task waits and a cancellation is
    on its way to it: a task that runs must see none, or trio's own
    checkpoints take it for theirs, and swallow it.
    """

    # A nursery of the task's own that is cancelled in its body keeps our cancellation for
    # itself, because it does not see it behind the shield: the task goes on after it.

    __slots__ = ("_abandoned", "_abort", "_pending", "_scope", "_shield", "_task", "_waiting")

    _task: trio.lowlevel.Task

    def __init__(self) -> None:
        import trio

        self._scope = trio.CancelScope()
        self._shield = trio.CancelScope()
        self._pending = False
        self._waiting = False
        # Takes back what the task waits for; None when that was tried, or cannot be.
        self._abort: Callable[[Any], trio.lowlevel.Abort] | None = None
        self._abandoned = False

    async def run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        from trio import lowlevel

        self._task = lowlevel.current_task()
        with self._scope, self._shield:
            await self._watch(function())

    def cancel(self) -> None:
        self._pending = True
        # Not up before: the end of the run has to reach whoever is still there.
        self._shield.shield = not self._waiting
        self._scope.cancel(_REASON)

    async def arrive(self) -> None:
        from trio import lowlevel

        if self._pending:
            await self._wait(lowlevel)

    def abandon(self) -> None:
        from trio import lowlevel

        self._abandoned = True
        self.cancel()
        # That does not reach a task that shields itself.
        if self._take_back(_abandon) is lowlevel.Abort.SUCCEEDED:
            lowlevel.reschedule(self._task, _Abandoned())  # type: ignore[arg-type]

    @coroutine
    def _watch(self, task: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """
        Pass on what trio and the task say to each other.
        """
        from trio import lowlevel

        answer: Any = None
        error: BaseException | None = None
        throws = 0
        checkpoints = 0
        while True:
            try:
                trap = task.send(answer) if error is None else task.throw(error)
            except StopIteration:
                return
            except BaseException:
                # What was thrown in, or a group around it: nobody is left to tell.
                if self._abandoned:
                    return
                raise
            if self._pending:
                # A checkpoint looks like what must not be cancelled, such as the end of
                # acquiring a lock. But a task may do nothing else for ever.
                checkpoints = 0 if hasattr(trap, "abort_func") else checkpoints + 1
                if checkpoints > _MOST_CHECKPOINTS:
                    trap = self._wait(lowlevel).send(None)
            self._abort = getattr(trap, "abort_func", None)
            if self._abandoned and self._take_back(_abandon) is lowlevel.Abort.SUCCEEDED:
                # It has swallowed every cancellation, and trio would wait for it at
                # the end of its run. What it is waiting for now it never gets. Not
                # close(): that does not reach into an async generator, and the cancel
                # scopes that it is in would stay open, for which trio ends its run.
                if throws < _MOST_THROWS:
                    throws += 1
                    error = _Abandoned()
                    continue
                # Not even this gets through. Better a run that does not end than one
                # that ends now, with every stream.
                self._pending = False
                trap = self._wait(lowlevel).send(None)
            error = None
            if self._pending:
                self._shield.shield = False
            if self._abort is not None:
                trap = type(trap)(self._take_back)
            self._waiting = True
            try:
                answer = yield trap
            except BaseException as exc:  # noqa: BLE001
                # So trio refuses what is not from trio.
                answer = exc
            self._waiting = False
            self._abort = None
            if isinstance(answer, BaseException):
                error = answer
            if self._pending:
                self._shield.shield = True
                # One from a scope of the task's own ends there, and ours is still to come.
                reason = getattr(getattr(answer, "error", None), "reason", None)
                self._pending = reason != _REASON

    @staticmethod
    async def _wait(lowlevel: Any) -> None:
        await lowlevel.wait_task_rescheduled(lambda _: lowlevel.Abort.SUCCEEDED)

    def _take_back(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        """
        Abort what the task waits for; trio allows to try so once.
        """
        from trio import lowlevel

        abort, self._abort = self._abort, None
        return lowlevel.Abort.FAILED if abort is None else abort(raise_cancel)


class _Abandoned(BaseException):
    pass


def _abandon() -> NoReturn:
    raise _Abandoned
