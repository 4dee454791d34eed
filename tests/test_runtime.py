import asyncio
import gc
import math
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from types import coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgi import run
from asgi_sse._runtime import Entry, Runtime, Task, Ticker, current_runtime

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def wait_for_others() -> None:
    """
    Return when all others wait for something that is later than now.
    """
    await anyio.sleep(0.001)


def count_tasks() -> int:
    """
    Return how many tasks the event loop knows.
    """
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


def task_names() -> set[str]:
    """
    Return the names of all tasks that the event loop knows.
    """
    if not trio.lowlevel.in_trio_task():
        return {task.get_name() for task in asyncio.all_tasks()}
    names: set[str] = set()
    tasks = [trio.lowlevel.current_root_task()]
    while tasks:
        if (task := tasks.pop()) is not None:
            names.add(task.name)
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return names


# One runtime for each event loop


async def test_runtime_is_the_same_for_the_whole_event_loop() -> None:
    runtimes = {current_runtime()}

    async def other() -> None:
        runtimes.add(current_runtime())

    async with anyio.create_task_group() as group:
        group.start_soon(other)

    assert runtimes == {current_runtime()}


def test_each_event_loop_has_its_own_runtime(anyio_backend_name: str) -> None:
    async def main() -> Runtime:
        return current_runtime()

    first, second = run(anyio_backend_name, main), run(anyio_backend_name, main)

    assert first is not second
    assert first.ticker is not second.ticker
    assert first.threads is not second.threads


def test_no_runtime_without_an_event_loop() -> None:
    with pytest.raises(RuntimeError):
        current_runtime()


async def test_now_is_the_time_of_the_event_loop() -> None:
    runtime = current_runtime()
    begin = runtime.now()
    await anyio.sleep(10)

    assert runtime.now() == begin + 10 == anyio.current_time()


def test_runtime_does_not_keep_its_event_loop_alive(anyio_backend_name: str) -> None:
    """
    What belongs to a run is held by a table of weak references to event loops.
    """
    seen: list[weakref.ref[Any]] = []

    async def main() -> None:
        runtime = current_runtime()
        runtime.ticker.discard(runtime.ticker.add(runtime.now() + 1, lambda now: math.inf))
        runtime.spawn(anyio.sleep_forever, "sleeper").cancel()
        await wait_for_others()
        seen.append(weakref.ref(runtime))
        seen.append(weakref.ref(anyio.lowlevel.current_token().native_token))

    run(anyio_backend_name, main)
    # The first sets free what the second finds.
    gc.collect()
    gc.collect()

    assert [reference() for reference in seen] == [None, None]


def test_trio_and_asyncio_in_one_thread_have_a_runtime_each() -> None:
    """
    In trio's guest mode there is a trio run while asyncio's tasks run.
    """
    kinds: list[tuple[str, str]] = []

    async def guest() -> None:
        kinds.append(("trio", type(current_runtime()).__name__))

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        while not done.done():
            kinds.append(("asyncio", type(current_runtime()).__name__))
            await asyncio.sleep(0)
        done.result().unwrap()

    asyncio.run(host())

    assert set(kinds) == {("trio", "TrioRuntime"), ("asyncio", "AsyncioRuntime")}


# Signal


async def test_signal_wakes_the_one_that_waits() -> None:
    runtime = current_runtime()
    signal = runtime.signal()
    woken: list[float] = []

    async def waiter() -> None:
        for _ in range(2):
            await signal.wait()
            woken.append(runtime.now() - begin)

    begin = runtime.now()
    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        for second in (1, 2):
            await anyio.sleep_until(begin + second)
            signal.notify()

    assert woken == [1, 2]


async def test_signal_keeps_no_state() -> None:
    signal = current_runtime().signal()
    signal.notify()

    with anyio.move_on_after(1) as scope:
        await signal.wait()

    assert scope.cancelled_caught


async def test_signal_wakes_once_however_often_it_is_given() -> None:
    signal = current_runtime().signal()
    woken: list[int] = []

    async def waiter() -> None:
        for n in range(2):
            await signal.wait()
            woken.append(n)

    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        await wait_for_others()
        for _ in range(3):
            signal.notify()
        await wait_for_others()

        assert woken == [0]

        signal.notify()

    assert woken == [0, 1]


async def test_signal_may_be_given_after_the_wait_was_cancelled() -> None:
    signal = current_runtime().signal()
    woken: list[str] = []

    async def waiter() -> None:
        await signal.wait()
        woken.append("woken")

    for _ in range(2):
        with anyio.move_on_after(1):
            await signal.wait()
    signal.notify()
    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        await wait_for_others()

        assert woken == []

        signal.notify()

    assert woken == ["woken"]


async def test_signal_may_be_given_while_the_wait_is_being_cancelled() -> None:
    signal = current_runtime().signal()

    async def waiter() -> None:
        await signal.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        await wait_for_others()
        group.cancel_scope.cancel()
        signal.notify()


async def test_wait_may_be_cancelled_while_the_signal_is_being_given() -> None:
    signal = current_runtime().signal()

    async def waiter() -> None:
        await signal.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(waiter)
        await wait_for_others()
        signal.notify()
        group.cancel_scope.cancel()


# coroutines()


async def test_what_every_task_runs_is_known() -> None:
    async def one() -> None:
        await over.wait()

    async def other() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)

    over = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        tasks.start_soon(one)
        await anyio.sleep(1)
        names = []
        for coroutine in current_runtime().coroutines():
            # anyio may have put one of its own around it.
            while coroutine is not None:
                names.append(getattr(coroutine, "__name__", ""))
                coroutine = getattr(coroutine, "cr_await", None)
        over.set()

    assert names.count("one") == 2
    assert names.count("other") == 1


# turn()


async def test_turn_lets_a_new_task_run_to_its_first_wait() -> None:
    runtime = current_runtime()
    steps: list[int] = []

    async def task(n: int) -> None:
        steps.append(n)
        await anyio.sleep_forever()

    tasks = [runtime.spawn(lambda n=n: task(n), "task") for n in range(10)]  # type: ignore[misc]

    assert steps == []

    await runtime.turn()

    assert sorted(steps) == list(range(10))
    for each in tasks:
        each.cancel()


async def test_turn_lets_a_woken_task_run() -> None:
    runtime = current_runtime()
    signal = runtime.signal()
    steps: list[str] = []

    async def waiter() -> None:
        await signal.wait()
        steps.append("woken")

    runtime.spawn(waiter, "waiter")
    await runtime.turn()
    signal.notify()
    await runtime.turn()

    assert steps == ["woken"]


async def test_turn_takes_no_time() -> None:
    begin = current_runtime().now()
    await current_runtime().turn()

    assert current_runtime().now() == begin


# spawn() and worker(): what holds for a task whatever the event loop

Source = Callable[[], Coroutine[Any, Any, None]]
Spawn = Callable[[Source, str], Task]


@pytest.fixture(params=["task", "worker"])
def spawn(request: pytest.FixtureRequest) -> Spawn:
    """
    A task, or a worker that has begun.
    """

    def spawn(function: Source, name: str) -> Task:
        if request.param == "task":
            return current_runtime().spawn(function, name)
        worker = current_runtime().worker()
        worker.begin(function, name)
        return worker

    return spawn


class Log:
    """
    What a task did, and when.
    """

    def __init__(self) -> None:
        self.begin = anyio.current_time()
        self.steps: list[tuple[int, str]] = []

    def __call__(self, step: str) -> None:
        self.steps.append((round(anyio.current_time() - self.begin), step))


async def test_task_has_a_name(spawn: Spawn) -> None:
    names: list[str] = []

    async def task() -> None:
        if trio.lowlevel.in_trio_task():
            names.append(trio.lowlevel.current_task().name)
        elif (current := asyncio.current_task()) is not None:
            names.append(current.get_name())

    spawn(task, "shop.orders")
    await wait_for_others()

    assert names == ["shop.orders"]


async def test_task_has_a_copy_of_the_context(spawn: Spawn) -> None:
    seen: list[str] = []

    async def task() -> None:
        seen.append(variable.get())
        variable.set("task")
        await checkpoint()
        seen.append(variable.get())

    variable.set("request")
    spawn(task, "task")
    variable.set("changed")
    await wait_for_others()

    assert seen == ["request", "task"]
    assert variable.get() == "changed"


async def test_task_leaves_nothing_behind(spawn: Spawn) -> None:
    tasks = count_tasks()
    for _ in range(10):
        spawn(checkpoint, "short")
        spawn(anyio.sleep_forever, "long").cancel()
    await wait_for_others()

    assert count_tasks() == tasks


@pytest.mark.skipif(sys.version_info < (3, 12), reason="not on this Python: eager tasks")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_task_begins_after_spawn_also_with_eager_tasks(spawn: Spawn) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    steps: list[str] = []

    async def task() -> None:
        steps.append("begun")

    try:
        spawn(task, "task")
        assert steps == []
        await wait_for_others()
    finally:
        loop.set_task_factory(None)

    assert steps == ["begun"]


async def cancel_at(second: int, log: Log, task: Task) -> None:
    await anyio.sleep_until(log.begin + second)
    log("cancel")
    task.cancel()


async def test_cancellation_is_delivered_once(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log("finally")
            await checkpoint()
            await anyio.lowlevel.checkpoint_if_cancelled()
            await anyio.sleep(5)
            log("slept")
            async with anyio.Lock():
                await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (1, "finally"), (6, "slept"), (11, "closed")]


async def test_cancellation_is_the_one_of_the_event_loop(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            log("cancelled")
            raise

    spawn(source, "source")
    await wait_for_others()
    spawn(source, "source").cancel()
    await wait_for_others()

    assert log.steps == [(0, "cancelled")]


async def test_second_cancellation_is_delivered_to_the_cleanup(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                await anyio.sleep(10)
            finally:
                log("cut")
                await anyio.sleep(10)
                log("closed")

    task = spawn(source, "source")
    await cancel_at(1, log, task)
    await cancel_at(4, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (4, "cancel"), (4, "cut"), (14, "closed")]


async def test_task_that_swallows_its_cancellation_goes_on(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        for _ in range(3):
            try:
                await anyio.sleep(10)
            except anyio.get_cancelled_exc_class():
                log("swallowed")
        log("over")

    task = spawn(source, "source")
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (1, "swallowed"), (21, "over")]


async def test_task_that_is_cancelled_before_it_begins_begins(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        log("begun")
        try:
            await anyio.sleep_forever()
        finally:
            log("finally")
            await anyio.sleep(5)
            log("closed")

    spawn(source, "source").cancel()
    await anyio.sleep(100)

    assert log.steps == [(0, "begun"), (0, "finally"), (5, "closed")]


async def test_task_may_cancel_itself(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        await anyio.sleep(1)
        task.cancel()
        log("goes on")
        try:
            await anyio.sleep_forever()
        finally:
            log("finally")
            await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await anyio.sleep(100)

    assert log.steps == [(1, "goes on"), (1, "finally"), (6, "closed")]


async def test_task_that_cancelled_itself_is_cancelled_where_it_next_waits(spawn: Spawn) -> None:
    """
    trio's own functions look for a cancellation before they wait.
    """
    log = Log()
    send, receive = anyio.create_memory_object_stream[str]()

    async def source() -> None:
        await checkpoint()
        task.cancel()
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
            await receive.receive()
        finally:
            log("finally")
            await checkpoint()
            await anyio.sleep(5)
            log("closed")

    with send, receive:
        task = spawn(source, "source")
        await anyio.sleep(100)

    assert log.steps == [(0, "finally"), (5, "closed")]


async def test_task_that_is_over_may_be_cancelled(spawn: Spawn) -> None:
    task = spawn(checkpoint, "task")
    await wait_for_others()
    for _ in range(2):
        task.cancel()
        await wait_for_others()


async def test_task_that_never_really_waits_is_cancelled_too(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            while True:
                await checkpoint()
        finally:
            log("finally")
            for _ in range(1000):
                await checkpoint()
            log("closed")

    task = spawn(source, "source")
    await current_runtime().turn()
    task.cancel()
    await wait_for_others()

    assert log.steps == [(0, "finally"), (0, "closed")]


async def test_time_limit_of_its_own_that_is_over_just_then_uses_nothing_up(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            with anyio.move_on_after(5):
                await anyio.sleep_forever()
            log("moved on")
            await anyio.sleep_forever()
        finally:
            log("finally")
            await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await wait_for_others()
    await cancel_at(5, log, task)
    await anyio.sleep(100)

    # Which comes first is by chance.
    assert sorted(log.steps[:-2]) == [(5, "cancel"), (5, "moved on")]
    assert log.steps[-2:] == [(5, "finally"), (10, "closed")]


async def test_time_limit_in_the_cleanup_works(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(5):
                await anyio.sleep_forever()
            log("moved on")
            await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (6, "moved on"), (11, "closed")]


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_shield_of_its_own_is_respected(spawn: Spawn) -> None:
    """
    asyncio's own cancellation, which is what servers use there, knows no shields.
    """
    log = Log()

    async def source() -> None:
        try:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(5):
                    await anyio.sleep_forever()
                log("moved on")
                await anyio.sleep(5)
            log("unshielded")
            await anyio.sleep_forever()
        finally:
            log("finally")
            await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [
        (1, "cancel"),
        (5, "moved on"),
        (10, "unshielded"),
        (10, "finally"),
        (15, "closed"),
    ]


async def test_tasks_of_its_own_are_cancelled_too(spawn: Spawn) -> None:
    log = Log()

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log("child")

    async def source() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
                await anyio.sleep_forever()
        finally:
            log("finally")
            await anyio.sleep(5)
            log("closed")

    task = spawn(source, "source")
    await wait_for_others()
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (1, "child"), (1, "finally"), (6, "closed")]


async def test_task_that_waits_for_its_own_tasks_is_cancelled(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()

    async def spawned() -> None:
        try:
            await source()
        finally:
            log("over")

    task = spawn(spawned, "source")
    await wait_for_others()
    await cancel_at(1, log, task)
    await anyio.sleep(100)

    assert log.steps == [(1, "cancel"), (1, "over")]


@coroutine
def foreign() -> Generator[object, object, None]:
    """
    Wait as no event loop knows it, or as the other one does.
    """
    yield object()


async def test_task_that_awaits_what_is_not_of_this_event_loop_is_told(spawn: Spawn) -> None:
    log = Log()

    async def source() -> None:
        for _ in range(2):
            with pytest.raises((TypeError, RuntimeError), match=r"unrecognized yield|bad yield"):
                await foreign()
            log("refused")
        await anyio.sleep(1)
        log("goes on")

    spawn(source, "source")
    await anyio.sleep(100)

    assert log.steps == [(0, "refused"), (0, "refused"), (1, "goes on")]


async def test_task_that_awaits_what_is_not_of_this_event_loop_can_be_cancelled(
    spawn: Spawn,
) -> None:
    log = Log()

    async def source() -> None:
        task.cancel()
        with pytest.raises((TypeError, RuntimeError, anyio.get_cancelled_exc_class())):
            await foreign()
        with anyio.move_on_after(1):
            await anyio.sleep_forever()
        log("over")

    task = spawn(source, "source")
    await anyio.sleep(100)

    # asyncio gives it the cancellation in the place of the refusal.
    assert log.steps in ([(1, "over")], [])


# abandon()


def swallowing(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        while True:
            try:
                await anyio.sleep(10)
            except cancelled:
                pass

    return source


def swallowing_and_closing(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        try:
            await swallowing(cancelled)()
        finally:
            with anyio.move_on_after(10):
                await anyio.sleep(5)

    return source


def swallowing_with_tasks_of_its_own(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await swallowing(cancelled)()

    return source


def swallowing_in_a_generator(cancelled: type[BaseException]) -> Source:
    async def generate() -> Any:
        while True:
            try:
                with anyio.fail_after(10):
                    await anyio.sleep_forever()
                    yield
            except cancelled:
                pass

    async def source() -> None:
        async for _ in generate():
            raise AssertionError

    return source


def shielding(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        with anyio.CancelScope(shield=True):
            await swallowing(cancelled)()

    return source


def shielding_tasks_of_its_own(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)

    return source


def swallowing_by_checkpoints(cancelled: type[BaseException]) -> Source:
    async def source() -> None:
        while True:
            try:
                await checkpoint()
            except cancelled:
                pass

    return source


STUBBORN = [
    swallowing,
    swallowing_with_tasks_of_its_own,
    swallowing_in_a_generator,
    shielding,
]


@pytest.mark.parametrize(
    ("make", "anyio_backend"),
    [(make, name) for make in STUBBORN for name in ("asyncio", "trio")]
    # What asyncio forgets the interpreter closes some time later, and complains if
    # that awaits something.
    + [(swallowing_and_closing, "trio")]
    # asyncio's own cancellation knows no shields.
    + [(shielding_tasks_of_its_own, "trio")],
    indirect=["anyio_backend"],
)
def test_event_loop_ends_without_a_task_that_was_abandoned(
    spawn: Spawn,
    make: Callable[[type[BaseException]], Source],
    anyio_backend_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        runtime = current_runtime()
        task = spawn(make(anyio.get_cancelled_exc_class()), "stubborn")
        await runtime.turn()
        for _ in range(3):
            task.cancel()
            await runtime.turn()

        assert "stubborn" in task_names()

        runtime.abandon(task)
        await wait_for_others()

        assert "stubborn" not in task_names()

    run(anyio_backend_name, main)
    gc.collect()

    # asyncio says that of every other task that it never hears of again.
    assert "Task was destroyed but it is pending" not in caplog.text


def test_task_that_was_not_abandoned_is_waited_for_and_cancelled_at_the_end(
    spawn: Spawn,
    anyio_backend_name: str,
) -> None:
    log: list[str] = []

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("cancelled")

    async def main() -> None:
        spawn(source, "source")
        await wait_for_others()

    run(anyio_backend_name, main)

    assert log == ["cancelled"]


async def test_task_may_end_after_it_was_abandoned(spawn: Spawn) -> None:
    """
    In trio there is no way to go on; in asyncio nobody waits for it any more.
    """
    runtime = current_runtime()
    waiting = anyio.Event()
    log = Log()

    async def source() -> None:
        try:
            await waiting.wait()
        finally:
            log("over")

    task = spawn(source, "source")
    await wait_for_others()
    runtime.abandon(task)
    waiting.set()
    await wait_for_others()

    assert log.steps == [(0, "over")]


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_abandoned_task_that_only_checks_in_is_cut_too(spawn: Spawn) -> None:
    source = swallowing_by_checkpoints(anyio.get_cancelled_exc_class())
    runtime = current_runtime()
    task = spawn(source, "stubborn")
    await runtime.turn()
    runtime.abandon(task)
    for _ in range(100):
        await runtime.turn()

    assert "stubborn" not in task_names()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_abandoned_task_that_waits_for_its_own_tasks_ends_with_them(spawn: Spawn) -> None:
    """
    That wait cannot be taken back.
    """
    runtime = current_runtime()
    go_on = anyio.Event()

    async def child() -> None:
        with anyio.CancelScope(shield=True):
            await go_on.wait()

    async def source() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    task = spawn(source, "stubborn")
    await runtime.turn()
    for _ in range(2):
        task.cancel()
        await runtime.turn()
    runtime.abandon(task)
    await wait_for_others()

    assert "stubborn" in task_names()

    go_on.set()
    await wait_for_others()

    assert "stubborn" not in task_names()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_abandoned_task_that_catches_everything_stays_and_harms_nobody(spawn: Spawn) -> None:
    runtime = current_runtime()
    deaf = True
    caught: list[str] = []

    async def source() -> None:
        while deaf:
            try:
                await anyio.sleep(1000)
            except BaseException as exc:  # noqa: BLE001
                caught.append(type(exc).__name__)

    task = spawn(source, "stubborn")
    await runtime.turn()
    task.cancel()
    await runtime.turn()
    runtime.abandon(task)
    await anyio.sleep(100)
    left = "stubborn" in task_names()
    # Or this run would never end.
    deaf = False
    task.cancel()
    await wait_for_others()

    assert left
    assert caught == ["Cancelled"] * 2 + ["_Abandoned"] * 10 + ["Cancelled"]
    assert "stubborn" not in task_names()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_abandoned_task_ends_in_silence(spawn: Spawn) -> None:
    runtime = current_runtime()

    async def source() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise RuntimeError("nobody wants to know")

    task = spawn(source, "stubborn")
    await runtime.turn()
    runtime.abandon(task)
    await wait_for_others()

    assert "stubborn" not in task_names()


# call_soon_threadsafe()


@pytest.mark.real_time
async def test_another_thread_may_call_into_the_event_loop() -> None:
    runtime = current_runtime()
    here = threading.get_ident()
    called = anyio.Event()
    threads: list[int] = []

    def call() -> None:
        threads.append(threading.get_ident())
        called.set()

    thread = threading.Thread(target=runtime.call_soon_threadsafe, args=(call,))
    thread.start()
    await called.wait()
    thread.join()

    assert threads == [here]


def test_calls_into_an_event_loop_that_has_ended_are_dropped(anyio_backend_name: str) -> None:
    calls: list[str] = []
    kept: list[Any] = []

    async def main() -> Runtime:
        kept.append(anyio.lowlevel.current_token().native_token)
        return current_runtime()

    runtime = run(anyio_backend_name, main)
    runtime.call_soon_threadsafe(lambda: calls.append("ended"))
    kept.clear()
    gc.collect()
    runtime.call_soon_threadsafe(lambda: calls.append("gone"))

    assert calls == []


# The ticker, with the event loop's own alarm


async def test_callback_comes_at_the_very_time_that_it_asks_for() -> None:
    ticker = current_runtime().ticker
    begin = current_runtime().now()
    calls: list[float] = []
    times = iter([2.5, 100.0, 3600.0, math.inf])

    def callback(now: float) -> float:
        calls.append(now - begin)
        return begin + next(times)

    entry = ticker.add(begin + 1, callback)
    await anyio.sleep(10_000)

    assert calls == [1, 2.5, 100, 3600]

    ticker.discard(entry)


async def test_callbacks_come_in_order_of_their_times() -> None:
    ticker = current_runtime().ticker
    begin = current_runtime().now()
    calls: list[tuple[float, str]] = []
    entries: list[Entry] = []

    def add(when: float, name: str) -> None:
        def callback(now: float) -> float:
            calls.append((now - begin, name))
            return math.inf

        entries.append(ticker.add(begin + when, callback))

    # Each is earlier than the alarm that is set, or later, or at the same time.
    for when, name in [(5, "a"), (3, "b"), (9, "c"), (3, "d"), (1, "e"), (math.inf, "f")]:
        add(when, name)
    await anyio.sleep(2)
    add(2.5, "g")
    await anyio.sleep(100)

    assert calls == [(1, "e"), (2.5, "g"), (3, "b"), (3, "d"), (5, "a"), (9, "c")]

    for entry in entries:
        ticker.discard(entry)


async def test_discarded_callback_never_comes() -> None:
    ticker = current_runtime().ticker
    begin = current_runtime().now()
    calls: list[float] = []

    def callback(now: float) -> float:
        calls.append(now - begin)
        return now + 1

    entries = [ticker.add(begin + 1, callback) for _ in range(3)]
    await anyio.sleep(1.5)
    ticker.discard(entries[0])
    await anyio.sleep(1)
    ticker.discard(entries[1])
    await anyio.sleep(1)
    ticker.discard(entries[2])
    await anyio.sleep(100)

    assert calls == [1, 1, 1, 2, 2, 3]
    assert len(ticker) == 0


async def test_no_alarm_is_left() -> None:
    runtime = current_runtime()
    tasks = count_tasks()
    for _ in range(3):
        entries = [runtime.ticker.add(runtime.now() + n, lambda now: now + 5) for n in range(20)]
        await anyio.sleep(7)
        for entry in entries:
            runtime.ticker.discard(entry)
        await wait_for_others()

        assert count_tasks() == tasks

    if not trio.lowlevel.in_trio_task():
        timers: Any = vars(asyncio.get_running_loop())["_scheduled"]
        assert [timer for timer in timers if not timer.cancelled()] == []


async def test_alarm_may_be_set_again_at_once() -> None:
    runtime = current_runtime()
    begin = runtime.now()
    calls: list[float] = []

    def callback(now: float) -> float:
        calls.append(now - begin)
        return math.inf

    for when in (10, 5, 7):
        begin = runtime.now()
        for _ in range(2):
            # The alarm goes with it, before it was ever waited for.
            runtime.ticker.discard(runtime.ticker.add(begin + 1, callback))
        await wait_for_others()
        runtime.ticker.discard(runtime.ticker.add(begin + 2, callback))
        entry = runtime.ticker.add(begin + when, callback)
        await anyio.sleep_until(begin + when + 0.5)
        runtime.ticker.discard(entry)

    assert calls == [10, 5, 7]
    assert len(runtime.ticker) == 0


# The ticker by itself


class Clock:
    """
    As much of a runtime as a ticker needs.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.alarm = math.inf

    def now(self) -> float:
        return self.time

    def set_alarm(self, when: float) -> None:
        self.alarm = when


def make_ticker() -> tuple[Ticker, Clock]:
    clock = Clock()
    return Ticker(clock), clock  # type: ignore[arg-type]


def never(now: float) -> float:
    return math.inf


def test_length_is_the_number_of_callbacks() -> None:
    ticker, _ = make_ticker()
    entries = [ticker.add(n, never) for n in range(10)]

    assert len(ticker) == 10

    for left, entry in enumerate(reversed(entries)):
        assert len(ticker) == 10 - left
        ticker.discard(entry)

    assert len(ticker) == 0


def test_discarded_callback_is_not_kept_alive() -> None:
    class Stream:
        def tick(self, now: float) -> float:
            return math.inf

    ticker, _ = make_ticker()
    streams = [Stream() for _ in range(10)]
    references = [weakref.ref(stream) for stream in streams]
    entries = [ticker.add(1, stream.tick) for stream in streams]
    ticker.discard(entries[3])
    streams.clear()

    assert [reference() is None for reference in references].count(True) == 1


def test_alarm_is_the_earliest_time() -> None:
    ticker, clock = make_ticker()
    alarms: list[float] = []
    entries: list[Entry] = []
    for when in (5.0, 7.0, 3.0, math.inf):
        entries.append(ticker.add(when, never))
        alarms.append(clock.alarm)

    assert alarms == [5, 5, 3, 3]

    for entry in entries:
        ticker.discard(entry)

    assert clock.alarm == math.inf


def test_time_in_the_past_is_due_at_once() -> None:
    ticker, clock = make_ticker()
    clock.time = 10
    ticker.add(-5, never)

    assert clock.alarm == -5

    ticker.ring()

    assert clock.alarm == math.inf


def test_callback_may_discard_itself() -> None:
    ticker, clock = make_ticker()
    calls: list[str] = []

    def once(now: float) -> float:
        calls.append("once")
        ticker.discard(first)
        return now

    def other(now: float) -> float:
        calls.append("other")
        return math.inf

    first = ticker.add(1, once)
    ticker.add(1, other)
    clock.time = 1
    ticker.ring()
    ticker.ring()

    assert calls == ["once", "other"]
    assert len(ticker) == 1


def test_callback_may_discard_others() -> None:
    ticker, clock = make_ticker()
    calls: list[int] = []
    entries: list[Entry] = []

    def callback(now: float) -> float:
        calls.append(len(calls))
        for entry in entries[1:]:
            ticker.discard(entry)
        del entries[1:]
        return math.inf

    entries += [ticker.add(1, callback) for _ in range(5)]
    clock.time = 1
    ticker.ring()

    assert calls == [0]
    assert len(ticker) == 1


def test_callback_may_add_one_that_is_due_before_it() -> None:
    ticker, clock = make_ticker()
    calls: list[str] = []

    def late(now: float) -> float:
        calls.append("late")
        ticker.add(0, early)
        return 20

    def early(now: float) -> float:
        calls.append("early")
        return math.inf

    ticker.add(5, late)
    clock.time = 10
    ticker.ring()

    assert calls == ["late", "early"]
    assert len(ticker) == 2
    assert clock.alarm == 20


class Ticking(RuleBasedStateMachine):
    """
    Whatever is added and discarded, each callback comes when it is due.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ticker, self.clock = make_ticker()
        # When each of those that are left is due, and its entry.
        self.due: dict[int, float] = {}
        self.entries: dict[int, Entry] = {}
        self.called: list[int] = []

    times = st.integers(0, 10) | st.just(math.inf)

    @rule(after=times, pause=times)
    def add(self, after: float, pause: float) -> None:
        number = len(self.entries)

        def callback(now: float) -> float:
            self.called.append(number)
            self.due[number] = now + pause + 1
            return self.due[number]

        self.due[number] = self.clock.time + after
        self.entries[number] = self.ticker.add(self.due[number], callback)

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.due)))
        del self.due[number]
        self.ticker.discard(self.entries[number])

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.time += 1
            expected = [
                n
                for when, n in sorted((w, n) for n, w in self.due.items())
                if when <= self.clock.time
            ]
            self.called.clear()
            if self.clock.alarm <= self.clock.time:
                self.ticker.ring()

            assert self.called == expected

    @invariant()
    def nothing_is_kept_that_is_not_needed(self) -> None:
        assert len(self.ticker) == len(self.due)
        # An alarm may be too early, when what it was set for has been discarded.
        assert self.clock.alarm <= min(self.due.values(), default=math.inf)
        assert self.due or self.clock.alarm == math.inf


TestTicking = Ticking.TestCase
