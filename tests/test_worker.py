"""
Workers: tasks with a signal of their own, which asyncio's rounds run.
"""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Literal

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from asgi import run
from asgi_sse._runtime import Signal, Task, Worker, current_runtime

variable: ContextVar[str] = ContextVar("variable", default="unset")

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


def current_task() -> Any:
    """
    Return the task that runs, as its event loop says.
    """
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.current_task()


async def settle() -> None:
    """
    Let everybody go as far as they can without time.
    """
    for _ in range(5):
        await current_runtime().turn()


class Counter:
    """
    A worker that counts how often it was woken, and calls *work* each time.
    """

    def __init__(self, work: Callable[[], Any] = lambda: None) -> None:
        self.worker = current_runtime().worker()
        self.woken = 0
        self._work = work

    async def begin(self, name: str = "counter") -> None:
        self.worker.begin(self._run, name)
        await settle()

    async def _run(self) -> None:
        while True:
            await self.worker.wait()
            self.woken += 1
            self._work()


# What holds on every event loop


async def test_worker_is_woken_again_and_again() -> None:
    counter = Counter()
    await counter.begin()
    for n in range(1, 5):
        counter.worker.notify()

        assert counter.woken == n - 1

        await current_runtime().turn()

        assert counter.woken == n
    counter.worker.cancel()


async def test_to_wake_it_twice_is_to_wake_it_once() -> None:
    counter = Counter()
    await counter.begin()
    counter.worker.notify()
    counter.worker.notify()
    await settle()

    assert counter.woken == 1
    counter.worker.cancel()


async def test_to_wake_it_is_nothing_before_it_has_begun_and_when_it_has_ended() -> None:
    counter = Counter()
    counter.worker.notify()
    await counter.begin()
    counter.worker.cancel()
    await settle()
    counter.worker.notify()
    await settle()

    assert counter.woken == 0


async def test_to_wake_it_while_it_waits_for_something_else_is_nothing() -> None:
    worker = current_runtime().worker()
    steps: list[str] = []

    async def work() -> None:
        await worker.wait()
        steps.append("woken")
        await anyio.sleep(5)
        steps.append("slept")
        await worker.wait()
        steps.append("woken")

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    await anyio.sleep(1)
    worker.notify()
    await anyio.sleep(10)

    assert steps == ["woken", "slept"]

    worker.notify()
    await settle()

    assert steps == ["woken", "slept", "woken"]


async def test_all_that_were_woken_run() -> None:
    counters = [Counter() for _ in range(100)]
    for counter in counters:
        await counter.begin()
    for counter in counters:
        counter.worker.notify()
    await current_runtime().turn()

    assert [counter.woken for counter in counters] == [1] * 100
    for counter in counters:
        counter.worker.cancel()


async def test_worker_may_wake_others_and_itself() -> None:
    def wake() -> None:
        second.worker.notify()
        first.worker.notify()

    first, second = Counter(wake), Counter()
    await first.begin()
    await second.begin()
    first.worker.notify()
    await settle()

    # It was not waiting when it woke itself.
    assert (first.woken, second.woken) == (1, 1)
    first.worker.cancel()
    second.worker.cancel()


async def test_worker_is_always_the_same_task_in_the_same_context() -> None:
    worker = current_runtime().worker()
    seen: list[tuple[Any, str]] = []

    def note() -> None:
        seen.append((current_task(), variable.get()))

    async def work() -> None:
        variable.set("worker")
        note()
        await worker.wait()
        note()
        await checkpoint()
        note()
        await worker.wait()
        note()

    variable.set("request")
    worker.begin(work, "worker")
    await settle()
    for _ in range(2):
        worker.notify()
        await settle()

    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0][1] == "worker"
    assert variable.get() == "request"
    assert current_task() is not seen[0][0]


async def test_time_limit_that_was_set_after_it_was_woken_works() -> None:
    worker = current_runtime().worker()
    begin = anyio.current_time()
    steps: list[float] = []

    async def work() -> None:
        await worker.wait()
        with anyio.move_on_after(3):
            await worker.wait()
            await worker.wait()
        steps.append(anyio.current_time() - begin)
        with anyio.move_on_after(3):
            await anyio.sleep(100)
        steps.append(anyio.current_time() - begin)

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    await settle()
    worker.notify()
    await anyio.sleep(100)

    assert steps == [3, 6]


async def test_worker_that_was_woken_can_still_be_cancelled() -> None:
    """
    Once, whether or not it comes to do what it was woken for.
    """
    worker = current_runtime().worker()
    cancelled = anyio.get_cancelled_exc_class()
    steps: list[str] = []

    async def work() -> None:
        try:
            while True:
                await worker.wait()
                steps.append("woken")
        except cancelled:
            steps.append("cancelled")
            await anyio.sleep(1)
            steps.append("closed")

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    worker.cancel()
    await anyio.sleep(10)

    assert steps[-2:] == ["cancelled", "closed"]
    assert steps.count("cancelled") == 1


async def test_worker_that_was_cancelled_and_waits_again_is_not_woken_by_what_was_before() -> None:
    worker = current_runtime().worker()
    cancelled = anyio.get_cancelled_exc_class()
    steps: list[str] = []

    async def work() -> None:
        try:
            await worker.wait()
        except cancelled:
            steps.append("cancelled")
        await worker.wait()
        steps.append("woken")

    worker.begin(work, "worker")
    await settle()
    worker.cancel()
    worker.notify()
    await settle()

    # On trio it was woken first.
    assert steps in (["cancelled"], ["woken"])

    worker.cancel()


@on_asyncio
async def test_checkpoint_is_one_turn_also_for_who_was_woken_twice() -> None:
    """
    Before and after a cancellation that it ignores, all in one turn.
    """
    worker = current_runtime().worker()
    turns: list[int] = []
    turn = 0

    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await worker.wait()
        await worker.wait()
        while True:
            turns.append(turn)
            await checkpoint()

    worker.begin(work, "worker")
    await settle()
    worker.cancel()
    asyncio.get_running_loop().call_soon(worker.notify)
    worker.notify()
    while turn < 10:
        await checkpoint()
        turn += 1
    worker.cancel()

    assert len(turns) > 5
    assert turns == sorted(set(turns))


async def test_cancel_scope_of_its_own_that_it_cancels_when_it_was_woken_ends() -> None:
    worker = current_runtime().worker()
    steps: list[str] = []

    async def work() -> None:
        await worker.wait()
        with anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await checkpoint()
        steps.append("over")

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    await settle()

    assert steps == ["over"]


@on_asyncio
async def test_woken_worker_is_not_blocked() -> None:
    """
    ``wait_all_tasks_blocked()`` waits until it has run.
    """
    counter = Counter()
    await counter.begin()
    counter.worker.notify()
    await anyio.wait_all_tasks_blocked()

    assert counter.woken == 1
    counter.worker.cancel()


async def test_worker_may_cancel_itself_when_it_was_woken() -> None:
    worker = current_runtime().worker()
    cancelled = anyio.get_cancelled_exc_class()
    steps: list[str] = []

    async def work() -> None:
        await worker.wait()
        worker.cancel()
        steps.append("woken")
        try:
            await anyio.sleep(10)
        except cancelled:
            steps.append("cancelled")

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    await settle()

    assert steps == ["woken", "cancelled"]


async def test_worker_that_ends_when_it_was_woken_leaves_no_garbage() -> None:
    tasks: list[weakref.ref[Any]] = []

    async def end() -> None:
        worker = current_runtime().worker()

        async def work() -> None:
            tasks.append(weakref.ref(current_task()))
            await worker.wait()

        worker.begin(work, "worker")
        await settle()
        worker.notify()
        await settle()

    gc.collect()
    gc.disable()
    try:
        await end()
        assert [task() for task in tasks] == [None]
    finally:
        gc.enable()


def test_event_loop_may_end_while_workers_wait(anyio_backend_name: str) -> None:
    steps: list[str] = []

    async def main() -> None:
        async def work() -> None:
            try:
                await worker.wait()
            finally:
                steps.append("over")

        for name in ("waits", "is woken"):
            worker = current_runtime().worker()
            worker.begin(work, name)
            await settle()
        worker.notify()

    run(anyio_backend_name, main)

    assert steps == ["over", "over"]


# asyncio: what a round leaves to the task


@on_asyncio
async def test_exception_of_one_worker_is_its_own() -> None:
    """
    There should be none; if there is, the others run all the same.
    """

    def fail() -> None:
        raise RuntimeError("first")

    first, second = Counter(fail), Counter()
    await first.begin("first")
    await second.begin("second")
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "first")
    first.worker.notify()
    second.worker.notify()
    asyncio.get_running_loop().call_soon(first.worker.cancel)
    await settle()

    assert second.woken == 1
    assert str(task.exception()) == "first"
    second.worker.cancel()


@on_asyncio
async def test_future_that_its_task_does_not_await_yet_is_cancelled_with_it() -> None:
    worker = current_runtime().worker()
    future = asyncio.get_running_loop().create_future()
    steps: list[str] = []

    async def work() -> None:
        await worker.wait()
        try:
            await future
        except asyncio.CancelledError:
            steps.append("cancelled")

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    # The round comes before this, and the step of the task after it.
    asyncio.get_running_loop().call_soon(worker.cancel)
    await settle()

    assert future.cancelled()
    assert steps == ["cancelled"]


@on_asyncio
async def test_end_that_its_task_does_not_know_yet_cannot_be_cancelled() -> None:
    worker = current_runtime().worker()
    tasks: list[Any] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await worker.wait()

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    asyncio.get_running_loop().call_soon(worker.cancel)
    await settle()

    assert tasks[0].done()
    assert not tasks[0].cancelled()
    assert tasks[0].exception() is None


@on_asyncio
async def test_what_cannot_be_awaited_is_refused_in_a_round_too() -> None:
    worker = current_runtime().worker()
    steps: list[str] = []

    class Foreign:
        def __await__(self) -> Any:
            yield "a trap of another event loop"

    async def work() -> None:
        await worker.wait()
        try:
            await Foreign()
        except RuntimeError:
            steps.append("refused")
        await worker.wait()
        steps.append("woken")
        await Foreign()

    worker.begin(work, "worker")
    await settle()
    worker.notify()
    await settle()

    assert steps == ["refused"]

    worker.notify()
    asyncio.get_running_loop().call_soon(worker.cancel)
    await settle()

    assert steps == ["refused", "woken"]


@on_asyncio
async def test_debuggers_see_what_a_worker_does() -> None:
    counter = Counter()
    await counter.begin("shop.orders writer")
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "shop.orders writer")

    assert [frame.f_code.co_name for frame in task.get_stack()] == ["_run"]
    assert "Counter._run" in repr(task)
    counter.worker.cancel()


@on_asyncio
async def test_only_its_task_awaits_a_worker() -> None:
    worker: Any = current_runtime().worker()

    with pytest.raises(TypeError):
        await worker


def test_worker_of_an_event_loop_that_was_stopped_is_closed() -> None:
    steps: list[str] = []

    async def begin() -> None:
        worker = current_runtime().worker()

        async def work() -> None:
            try:
                await worker.wait()
            finally:
                steps.append("closed")

        worker.begin(work, "worker")
        await settle()
        # So that nobody complains.
        current_runtime().abandon(worker)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    gc.collect()

    assert steps == ["closed"]


# A worker, and a task with a signal, do the same

Step = Literal["signal", "sleep", "shielded", "checkpoint", "future"]
Action = Literal["notify", "resolve", "cancel", "turn", "settle", "sleep"]

# No sum of them is a whole number, when something else happens: in no order that is said.
SQRT_2, SQRT_5 = math.sqrt(2), math.sqrt(5)


async def play(
    begin: Callable[[Callable[[Signal], Any]], tuple[Task, Signal]],
    steps: list[tuple[Step, bool]],
    actions: list[Action],
) -> list[str]:
    """
    Run a task through *steps*, each with whether it then ignores a cancellation.
    """
    cancelled = anyio.get_cancelled_exc_class()
    event = anyio.Event()
    trace: list[str] = []

    async def work(signal: Signal) -> None:
        nonlocal event
        try:
            for step, ignores in steps:
                try:
                    if step == "signal":
                        await signal.wait()
                    elif step == "future":
                        await event.wait()
                        event = anyio.Event()
                    elif step == "checkpoint":
                        await checkpoint()
                    elif step == "sleep":
                        await anyio.sleep(SQRT_2)
                    else:
                        with anyio.move_on_after(SQRT_5, shield=True):
                            await signal.wait()
                    trace.append(f"{step} at {anyio.current_time() - start:.3f}")
                except cancelled:
                    trace.append(f"{step} cancelled at {anyio.current_time() - start:.3f}")
                    if not ignores:
                        raise
        finally:
            trace.append("over")

    start = anyio.current_time()
    task, signal = begin(work)
    await settle()
    for action in actions:
        if action == "notify":
            signal.notify()
        elif action == "resolve":
            event.set()
        elif action == "cancel":
            task.cancel()
        elif action == "turn":
            await current_runtime().turn()
        elif action == "settle":
            await settle()
        else:
            await anyio.sleep(1)
    await settle()
    # In the end nobody is left.
    for _ in range(len(steps)):
        task.cancel()
        await anyio.sleep(5)
    return trace


def begin_task(work: Callable[[Signal], Any]) -> tuple[Task, Signal]:
    signal = current_runtime().signal()
    return current_runtime().spawn(lambda: work(signal), "task"), signal


def begin_worker(work: Callable[[Signal], Any]) -> tuple[Task, Signal]:
    worker: Worker = current_runtime().worker()
    worker.begin(lambda: work(worker), "worker")
    return worker, worker


def programs(*steps: Step) -> st.SearchStrategy[list[tuple[Step, bool]]]:
    return st.lists(
        st.tuples(st.sampled_from(("signal", "sleep", "shielded", *steps)), st.booleans()),
        min_size=1,
        max_size=6,
    )


# On trio they are the same to begin with, and the order of a turn is random.
@on_asyncio
@given(
    # Not both: if a future has its result before the task awaits it, a turn more goes by.
    steps=programs("checkpoint") | programs("future"),
    actions=st.lists(
        st.sampled_from(["notify", "resolve", "cancel", "turn", "settle", "sleep"]), max_size=12
    ),
)
async def test_worker_and_task_do_the_same(
    steps: list[tuple[Step, bool]], actions: list[Action]
) -> None:
    expected = await play(begin_task, steps, actions)

    assert expected[-1] == "over"
    assert await play(begin_worker, steps, actions) == expected
