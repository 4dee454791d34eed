"""
What trio's event loop lends.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import copy_context
from types import coroutine
from typing import Any, NoReturn

import trio
from trio import lowlevel

from ._loop import Runtime, Signal, Task, Worker

# After so many checkpoints in a row one of them is cancelled: more than code makes that
# holds something which it would then never release, and over in some milliseconds.
_MOST_CHECKPOINTS = 100

# How often a task that was abandoned is thrown out of what it waits for. A bare
# ``except`` in a loop takes any number.
_MOST_THROWS = 10


# trio hands it to whoever is cancelled, so it tells our own cancellations from others.
_REASON = "asgi_sse closes the source"


class TrioRuntime(Runtime):
    """
    What the streams of one trio run share.
    """

    backend = "trio"

    def __init__(self, token: lowlevel.TrioToken) -> None:
        super().__init__()
        # As with asyncio's loop: it must not be held from here.
        self._token = weakref.ref(token)
        self._alarm: trio.CancelScope | None = None
        self._when = math.inf

    def clock(self) -> Callable[[], float]:
        clock: Callable[[], float] = trio.current_time
        return clock

    def signal(self) -> Signal:
        return _Signal()

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> Task:
        task = _Task()
        task.begin(function, name)
        return task

    def worker(self) -> Worker:
        return _Worker()

    def abandon(self, task: Task) -> None:
        assert isinstance(task, _Task)
        task.abandon()

    def coroutines(self) -> Iterator[Any]:
        # It grows while it is walked through.
        tasks: list[Any] = [lowlevel.current_root_task()]
        for task in tasks:
            yield task.coro
            for nursery in task.child_nurseries:
                tasks += nursery.child_tasks

    async def turn(self) -> None:
        # A task that was spawned, or woken, runs in the next round, and the order
        # within a round is random: after two, all of them have had theirs.
        await lowlevel.checkpoint()
        await lowlevel.checkpoint()

    async def let_earlier_begin(self) -> None:
        # They begin in the same round as this one.
        await lowlevel.checkpoint()

    def call_soon_threadsafe(self, function: Callable[[], None]) -> None:
        if (token := self._token()) is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(function)

    def set_alarm(self, when: float) -> None:
        self._when = when
        if self._alarm is not None:
            # Nothing more to wait for: wake the task below, and it ends.
            self._alarm.deadline = -math.inf if when == math.inf else when
        elif when != math.inf:
            self._alarm = trio.CancelScope()
            lowlevel.spawn_system_task(self._wait_for_alarm)

    async def _wait_for_alarm(self) -> None:
        while self._when != math.inf:
            with trio.CancelScope(deadline=self._when) as self._alarm:
                await trio.sleep_forever()
            if self._when <= self.now():
                self.ticker.ring()
        self._alarm = None


class _Signal:
    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: lowlevel.Task | None = None

    async def wait(self) -> None:
        def abort(_: object) -> lowlevel.Abort:
            self._task = None
            return lowlevel.Abort.SUCCEEDED

        self._task = lowlevel.current_task()
        await lowlevel.wait_task_rescheduled(abort)

    def notify(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            lowlevel.reschedule(task)


class _Task:
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

    _task: lowlevel.Task

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._shield = trio.CancelScope()
        self._pending = False
        self._waiting = False
        # Takes back what the task waits for; None when that was tried, or cannot be.
        self._abort: Callable[[Any], lowlevel.Abort] | None = None
        self._abandoned = False

    def begin(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        lowlevel.spawn_system_task(self._run, function, name=name, context=copy_context())

    async def _run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = lowlevel.current_task()
        with self._scope, self._shield:
            await self._watch(function())

    def cancel(self) -> None:
        self._pending = True
        # Not up before: the end of the run has to reach whoever is still there.
        self._shield.shield = not self._waiting
        self._scope.cancel(_REASON)

    async def arrive(self) -> None:
        if self._pending:
            await self._wait()

    def abandon(self) -> None:
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
                    trap = self._wait().send(None)
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
                trap = self._wait().send(None)
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
    async def _wait() -> None:
        await lowlevel.wait_task_rescheduled(lambda _: lowlevel.Abort.SUCCEEDED)

    def _take_back(self, raise_cancel: Callable[[], NoReturn]) -> lowlevel.Abort:
        """
        Abort what the task waits for; trio allows to try so once.
        """
        abort, self._abort = self._abort, None
        return lowlevel.Abort.FAILED if abort is None else abort(raise_cancel)


class _Worker(_Task):
    __slots__ = ("notify", "wait")

    def __init__(self) -> None:
        super().__init__()
        signal = _Signal()
        self.wait = signal.wait
        self.notify = signal.notify


class _Abandoned(BaseException):
    pass


def _abandon() -> NoReturn:
    raise _Abandoned
