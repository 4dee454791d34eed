"""
What asyncio's event loops lend.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from asyncio.tasks import _enter_task, _leave_task, _unregister_task
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from inspect import CORO_CREATED, getcoroutinestate
from time import monotonic
from typing import Any, cast

from ._loop import Runtime, Signal, Task, Worker


class AsyncioRuntime(Runtime):
    """
    What the streams of one of asyncio's event loops share.
    """

    backend = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        # This lives as long as the loop. If it held the loop, both would live for ever.
        self._loop = weakref.ref(loop)
        # asyncio's own time() is a function in Python that calls this one.
        time = getattr(loop.time, "__func__", None)
        self._is_monotonic = time is asyncio.BaseEventLoop.time
        self._timer: asyncio.TimerHandle | None = None
        self._round = _Round()

    def clock(self) -> Callable[[], float]:
        return monotonic if self._is_monotonic else asyncio.get_running_loop().time

    def signal(self) -> Signal:
        return _Signal(asyncio.get_running_loop())

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> Task:
        # Not create_task(): a task factory may run a task before it is known here.
        return _Task(asyncio.Task(function(), name=name))

    def worker(self) -> Worker:
        # It has a close(), which typeshed believes to be abstract.
        return _Worker(self._round, asyncio.get_running_loop())  # type: ignore[abstract]

    def abandon(self, task: Task) -> None:
        # asyncio.run() would cancel it and wait for it, for ever. This is asyncio's
        # documented way for a task that the event loop shall not know of; and then
        # nobody wants to read that it was still pending when it was destroyed.
        assert isinstance(task, _Task)
        assert task.task is not None
        _unregister_task(task.task)
        task.task._log_destroy_pending = False  # type: ignore[attr-defined]

    def coroutines(self) -> Iterator[Any]:
        # Not anyio.get_running_tasks(), which takes ten times as long.
        return (task.get_coro() for task in asyncio.all_tasks())

    async def turn(self) -> None:
        # Tasks run in the order in which they became ready.
        await asyncio.sleep(0)

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
            self._timer = asyncio.get_running_loop().call_at(when, self.ticker.ring)


class _Signal:
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


class _Task:
    """
    A task in which a cancellation is delivered once, as asyncio does by itself.
    """

    __slots__ = ("task",)

    def __init__(self, task: asyncio.Task[None] | None) -> None:
        #: None if there is nothing to cancel.
        self.task = task

    def cancel(self) -> None:
        task = self.task
        if task is None:
            return
        if getcoroutinestate(cast("Any", task.get_coro())) == CORO_CREATED:
            # asyncio would not begin it at all. Its first step comes before this.
            task.get_loop().call_soon(task.cancel)
        else:
            task.cancel()

    async def arrive(self) -> None:
        # asyncio throws it in as soon as the task runs.
        pass


# To wake a task, asyncio makes a future, a callback for its result, and the callback's
# handle: half of what an event costs. So while workers wait for their signals, their tasks
# wait for nothing that ever comes, and the event loop calls back once for all workers that
# were woken meanwhile. It runs the coroutine of each in the name of its task, which is
# what _enter_task() and _leave_task() are documented for. Whoever asks who is running,
# such as a timeout or a cancel scope, is told the same as ever.
#
# Whatever else a coroutine then awaits, and its end, is left to its task. A worker that in
# a round cancels itself, or a cancel scope that it is in, is cancelled where it next waits,
# maybe a checkpoint later, and can no longer take that back with Task.uncancel().


class _Round:
    """
    Runs the workers that were woken, all in one callback.
    """

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: list[_Parked] = []

    def add(self, parked: _Parked) -> None:
        """
        Let a worker run in the next round.
        """
        if not self._woken:
            parked.worker.loop.call_soon(self.run)
        self._woken.append(parked)

    def run(self) -> None:
        """
        Run each of them to its next wait; who is woken meanwhile comes in the next round.
        """
        woken, self._woken = self._woken, []
        # Not in a method of the worker: a call is a tenth of what is saved here.
        for parked in woken:
            if parked.cancelled():
                # With its task, which runs instead.
                continue
            worker = parked.worker
            loop, task = worker.loop, worker.task
            assert task is not None
            try:
                # An interrupt from the keyboard may come as soon as this returns.
                _enter_task(loop, task)
                awaited = worker.context.run(worker.coroutine.send, None)
            except StopIteration:
                awaited = _END
            except BaseException as exc:  # noqa: BLE001 - its task raises it; the others run
                awaited = exc
            finally:
                _leave_task(loop, task)
            if awaited is _SIGNAL:
                parked.woken = False
            else:
                worker.parked = None
                worker.awaited = awaited
                # Unless it has cancelled itself.
                if not parked.cancelled():
                    parked.set_result(None)


class _Signalled:
    """
    What a worker awaits, and what its task or a round is told then.
    """

    __await__: Callable[[], Generator[Any, Any, None]]


_SIGNAL = _Signalled()
# Not a function in Python, because it is called for each event.
_Signalled.__await__ = (_SIGNAL,).__iter__  # type: ignore[assignment]

# What a coroutine awaits, for its task: what that knows already, or nothing any more.
_KNOWN = object()
_END = object()


class _Parked(asyncio.Future[None]):
    """
    What a worker's task waits for while the coroutine waits for its signal.
    """

    __slots__ = ("woken", "worker")

    #: Whether the worker is to run in the next round, or runs in this one.
    woken: bool
    worker: _Worker

    def done(self) -> bool:
        # Those who ask want to know whether the task can go on, as
        # anyio.wait_all_tasks_blocked() does, and anyio's cancel scopes.
        return self.woken or super().done()


class _Worker(_Task, Coroutine[Any, Any, None]):
    """
    A task's coroutine that rounds may run, too.
    """

    __slots__ = ("_round", "awaited", "context", "coroutine", "loop", "parked")

    context: Context

    def __init__(self, round_: _Round, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(None)
        self._round = round_
        self.loop = loop
        self.coroutine: Any = None
        #: None if the coroutine is the task's to run.
        self.parked: _Parked | None = None
        #: What a round has left to the task.
        self.awaited: Any = _KNOWN

    def begin(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self.coroutine = function()
        self.context = copy_context()
        self.task = asyncio.Task(self, name=name, context=self.context)

    def wait(self) -> Awaitable[None]:
        return _SIGNAL

    def notify(self) -> None:
        parked = self.parked
        # It may just be running; then it looks itself whether there is more to do.
        if parked is not None and not parked.woken:
            self._round.add(parked)
            parked.woken = True

    # What its task does with it.

    def send(self, _: None) -> Any:
        awaited = self.awaited
        # None is awaited by sleep(0) and the like: to let a turn go by, which it has.
        if awaited is _KNOWN or awaited is None:
            try:
                awaited = self.coroutine.send(None)
            except BaseException:
                self.task = None
                raise
        return self._tell_task(awaited)

    def throw(self, *error: Any) -> Any:
        self.parked = None
        awaited = self.awaited
        if awaited is _END or isinstance(awaited, BaseException):
            # Too late.
            pass
        elif asyncio.isfuture(awaited) and awaited.cancel(*error[0].args):
            # As Task.cancel() does with what the task waits for.
            pass
        else:
            try:
                awaited = self.coroutine.throw(*error)
            except BaseException:
                self.task = None
                raise
        return self._tell_task(awaited)

    def _tell_task(self, awaited: Any) -> Any:
        self.awaited = _KNOWN
        if awaited is _SIGNAL:
            self.parked = parked = _Parked(loop=self.loop)
            parked.woken = False
            parked.worker = self
            # As if it were awaited by the coroutine.
            return parked.__await__().send(None)
        if awaited is _END:
            # The two hold each other.
            self.task = None
            raise StopIteration
        if isinstance(awaited, BaseException):
            self.task = None
            raise awaited
        return awaited

    # Nobody but its task runs it.
    __await__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        # For debuggers, and for those who ask whether it has begun.
        return getattr(self.coroutine, name)
