import asyncio
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import anyio
import pytest

from asgi import count_tasks, in_asyncio
from asgi_sse._runtime import current_runtime
from asgi_sse._servers import Stop
from asgi_sse._watch import SWITCH, Watcher


async def send(message: Any) -> None: ...


class Log:
    """
    What has happened, in order; and a watcher that adds to it.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, what: str) -> Callable[[], None]:
        return functools.partial(self.seen.append, what)

    def watcher(self, what: str = "told", *, stays: bool = False) -> Watcher:
        return Watcher(current_runtime(), self.note(what), stays=stays)

    def handler(self, what: str) -> Callable[[int, FrameType | None], None]:
        return lambda number, frame: self.seen.append(what)

    async def after_raising(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """
        Return what a signal leads to.
        """
        self.seen.clear()
        signal.raise_signal(number)
        # Not before the event loop's next turn.
        assert "told" not in self.seen
        await anyio.sleep(0.01)
        return self.seen


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(autouse=True)
def server(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """
    A signal handler as a server has it.
    """
    monkeypatch.delenv(SWITCH, raising=False)
    handler = log.handler("server")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT)}
    signal.signal(signal.SIGTERM, handler)
    yield handler
    for number, previous in before.items():
        signal.signal(number, previous)


# Signals.


async def test_a_signal_tells_and_then_goes_on_to_the_server(log: Log, server: Any) -> None:
    watcher = log.watcher()
    watcher.enter(True)

    assert signal.getsignal(signal.SIGTERM) is not server
    assert await log.after_raising() == ["server", "told"]
    watcher.leave()


async def test_the_server_gets_the_frame_that_was_interrupted(log: Log) -> None:
    frames: list[FrameType | None] = []
    signal.signal(signal.SIGTERM, lambda number, frame: frames.append(frame))
    watcher = log.watcher()
    watcher.enter(True)
    await log.after_raising()
    watcher.leave()

    assert isinstance(frames[0], FrameType)
    assert frames[0].f_code is Log.after_raising.__code__


async def test_with_the_last_user_the_handler_is_as_it_was(log: Log, server: Any) -> None:
    watcher = log.watcher()
    for _ in range(2):
        watcher.enter(True)
        watcher.enter(True)
        watcher.leave()
        assert await log.after_raising() == ["server", "told"]
        watcher.leave()

        assert signal.getsignal(signal.SIGTERM) is server
        assert await log.after_raising() == ["server"]


async def test_granian_is_listened_to_also_without_a_user(
    log: Log, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It says it once, and takes requests after that.
    """
    monkeypatch.setitem(sys.modules, "granian", ModuleType("granian"))
    watcher = log.watcher(stays=True)
    for _ in range(2):
        watcher.enter(True)
        chain = signal.getsignal(signal.SIGTERM)
        watcher.leave()

        assert signal.getsignal(signal.SIGTERM) is chain
        assert await log.after_raising() == ["server", "told"]


async def test_granian_is_not_listened_to_for_those_who_only_pass_by(
    log: Log, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "granian", ModuleType("granian"))
    for _ in range(2):
        watcher = log.watcher()
        watcher.enter(True)
        watcher.leave()

        assert signal.getsignal(signal.SIGTERM) is server
        assert await log.after_raising() == ["server"]


@pytest.mark.parametrize(
    "handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None]
)
async def test_what_is_no_server_is_left_alone(
    log: Log, handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None: it was not installed from Python.
    monkeypatch.setattr(signal, "getsignal", lambda number: handler)
    installed: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *args: installed.append(args))
    watcher = log.watcher()
    watcher.enter(True)
    watcher.leave()

    assert installed == []


async def test_another_thread_leaves_signals_alone(log: Log, server: Any) -> None:
    async def watch() -> None:
        watcher = Watcher(current_runtime(), log.note("told"))
        watcher.enter(True)
        assert signal.getsignal(signal.SIGTERM) is server
        watcher.leave()

    backend = "asyncio" if in_asyncio() else "trio"
    thread = threading.Thread(target=anyio.run, args=(watch,), kwargs={"backend": backend})
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is server


@pytest.mark.parametrize("off", [False, True])
async def test_it_can_be_switched_off(
    log: Log, server: Any, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not off:
        monkeypatch.setenv(SWITCH, "0")
    watcher = log.watcher()
    watcher.enter(not off)

    assert signal.getsignal(signal.SIGTERM) is server
    assert off or watcher.is_stopping((), send) is None
    watcher.leave()


async def test_an_event_loop_that_has_ended_is_not_told(log: Log) -> None:
    gone: list[Watcher] = []

    async def watch() -> None:
        gone.append(Watcher(current_runtime(), log.note("gone")))
        gone[0].enter(True)

    # As if its streams had never been closed.
    run = threading.Thread(target=anyio.run, args=(watch,))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(threading, "main_thread", threading.current_thread)
        patch.setattr(signal, "signal", lambda *args: None)
        patch.setattr(signal, "siginterrupt", lambda *args: None)
        run.start()
        run.join()
    watcher = log.watcher()
    watcher.enter(True)
    gone[0]._call_soon()

    assert await log.after_raising() == ["server", "told"]
    watcher.leave()


# Who else has handlers.


async def test_two_watchers_share_one_handler(log: Log, server: Any) -> None:
    first, second = log.watcher("first"), log.watcher("second")
    first.enter(True)
    ours = signal.getsignal(signal.SIGTERM)
    second.enter(True)

    assert signal.getsignal(signal.SIGTERM) is ours
    assert await log.after_raising() == ["server", "first", "second"]
    first.leave()
    assert await log.after_raising() == ["server", "second"]
    second.leave()
    assert signal.getsignal(signal.SIGTERM) is server


async def test_a_server_may_come_late(log: Log) -> None:
    watcher = log.watcher()
    watcher.enter(True)
    # As uvicorn does, which is not interested in those before.
    late = log.handler("late")
    signal.signal(signal.SIGTERM, late)
    assert await log.after_raising() == ["late"]

    watcher.enter(True)
    assert await log.after_raising() == ["late", "told"]
    watcher.leave()
    watcher.leave()
    assert signal.getsignal(signal.SIGTERM) is late


async def test_what_a_server_has_taken_away_is_not_put_back(log: Log, server: Any) -> None:
    watcher = log.watcher()
    watcher.enter(True)
    signal.signal(signal.SIGTERM, server)
    watcher.leave()

    assert signal.getsignal(signal.SIGTERM) is server


class Wrapper:
    """
    What other libraries do, in as many ways as they keep the handler before theirs.
    """

    before: Any

    def __init__(self, note: Callable[[], None]) -> None:
        self.note = note

    def __call__(self, number: int, frame: Any) -> None:
        self.note()
        self.before(number, frame)

    def method(self, number: int, frame: Any) -> None:
        self.note()
        self.handlers[number](number, frame)

    handlers: dict[int, Any]


the_one_before: Any = None
note_wrapper: Any = None


def global_wrapper(number: int, frame: Any) -> None:
    note_wrapper()
    the_one_before(number, frame)


def in_closure(note: Callable[[], None], before: Any) -> Any:
    def wrapper(number: int, frame: Any) -> None:
        note()
        before(number, frame)

    return wrapper


def in_attribute(note: Callable[[], None], before: Any) -> Any:
    wrapper = Wrapper(note)
    wrapper.before = before
    return wrapper


def in_mapping(note: Callable[[], None], before: Any) -> Any:
    wrapper = Wrapper(note)
    wrapper.handlers = {signal.SIGTERM: before}
    return wrapper.method


def in_global(note: Callable[[], None], before: Any) -> Any:
    global the_one_before, note_wrapper
    the_one_before, note_wrapper = before, note
    return global_wrapper


def in_partial(note: Callable[[], None], before: Any) -> Any:
    def wrapper(before: Any, number: int, frame: Any) -> None:
        note()
        before(number, frame)

    return functools.partial(wrapper, before)


@pytest.mark.parametrize("wrap", [in_closure, in_attribute, in_mapping, in_global, in_partial])
async def test_others_may_wrap_ours(log: Log, wrap: Any) -> None:
    watcher = log.watcher()
    watcher.enter(True)
    wrapper = wrap(log.note("wrapper"), signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGTERM, wrapper)
    for _ in range(3):
        # Ours is still called, and is not put on top once more.
        watcher.enter(True)

        assert signal.getsignal(signal.SIGTERM) is wrapper
        assert await log.after_raising() == ["wrapper", "server", "told"]
        watcher.leave()
    watcher.leave()

    # Not removed from below another's.
    assert signal.getsignal(signal.SIGTERM) is wrapper
    assert await log.after_raising() == ["wrapper", "server"]

    # And it serves again.
    watcher.enter(True)
    assert signal.getsignal(signal.SIGTERM) is wrapper
    assert await log.after_raising() == ["wrapper", "server", "told"]
    watcher.leave()


async def test_chains_are_not_endless(log: Log) -> None:
    class Hidden:
        __slots__ = ("before",)

        def __init__(self, before: Any) -> None:
            self.before = before

        def __call__(self, number: int, frame: Any) -> None:
            self.before(number, frame)

    watcher = log.watcher()
    on_top = []
    for _ in range(10):
        watcher.enter(True)
        ours = signal.getsignal(signal.SIGTERM)
        on_top.append(not isinstance(ours, Hidden))
        if on_top[-1]:
            # One that wants to be first, and cannot be looked into.
            signal.signal(signal.SIGTERM, Hidden(ours))

    assert on_top == [True] * 4 + [False] * 6
    assert set(await log.after_raising()) == {"server", "told"}
    for _ in range(10):
        watcher.leave()
    assert await log.after_raising() == ["server"]

    watcher.enter(True)
    assert set(await log.after_raising()) == {"server", "told"}
    watcher.leave()


async def test_another_signals_handler_is_not_taken_for_this_ones(log: Log) -> None:
    signal.signal(signal.SIGQUIT, log.handler("quit"))
    watcher = log.watcher()
    watcher.enter(True)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGQUIT)}

    def wrapper(number: int, frame: Any) -> None:
        handlers[signal.Signals(number)](number, frame)  # type: ignore[operator, misc]

    for number in handlers:
        signal.signal(number, wrapper)
    watcher.enter(True)

    assert await log.after_raising(signal.SIGTERM) == ["server", "told"]
    assert await log.after_raising(signal.SIGQUIT) == ["quit", "told"]
    watcher.leave()
    watcher.leave()


async def test_the_server_is_called_even_if_telling_fails(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: Any) -> None:
        raise ValueError("this event loop is another one")

    watcher = log.watcher()
    monkeypatch.setattr(current_runtime(), "call_soon_threadsafe", fail)
    watcher.enter(True)
    with pytest.raises(ValueError, match="another one"):
        signal.raise_signal(signal.SIGTERM)
    watcher.leave()

    assert log.seen == ["server"]


# Functions that return when the server stops.


async def test_a_function_may_say_when(log: Log, server: Any) -> None:
    stop = anyio.Event()
    calls = []

    async def wait() -> None:
        calls.append(current_runtime().now())
        await stop.wait()

    watcher = log.watcher()
    watcher.enter(wait)
    watcher.enter(wait)
    # It replaces all else.
    assert signal.getsignal(signal.SIGTERM) is server
    await anyio.sleep(1)
    assert len(calls) == 1
    assert log.seen == []
    stop.set()
    await anyio.sleep(1)
    assert log.seen == ["told"]
    watcher.leave()
    watcher.leave()

    # A new beginning, and it says so at once.
    watcher.enter(wait)
    await anyio.sleep(1)
    assert log.seen == ["told", "told"]
    watcher.leave()
    assert await count_tasks() >= 1


async def test_nobody_waits_for_it_any_more_when_nobody_wants_to_know(log: Log) -> None:
    left = anyio.Event()

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    watcher = log.watcher()
    watcher.enter(wait)
    await anyio.sleep(1)
    watcher.leave()
    await left.wait()

    assert log.seen == []


async def test_if_it_raises_that_is_logged(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise LookupError

    watcher = log.watcher()
    watcher.enter(broken)
    await anyio.sleep(1)
    watcher.leave()

    assert "broken" in caplog.records[0].getMessage()
    assert caplog.records[0].exc_info is not None
    assert log.seen == []


# Servers that can be asked.


class Flag:
    def __init__(self) -> None:
        self.set = False

    def is_set(self) -> bool:
        return self.set


class Finds:
    """
    Stands for what is found behind ``send()``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *stops: Stop) -> None:
        self.stops = list(stops)
        self.looked = 0
        monkeypatch.setattr("asgi_sse._watch.find_stops", self.find)

    def find(self, address: Any, send: Any, runtime: Any) -> list[Stop]:
        self.looked += 1
        return self.stops


async def test_a_server_is_looked_for_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    finds = Finds(monkeypatch)
    watcher = log.watcher()
    for _ in range(3):
        watcher.enter(True)

        assert watcher.is_stopping(("127.0.0.1", 80), send) is None
    assert finds.looked == 1
    assert watcher.is_stopping(("127.0.0.1", 81), send) is None
    assert finds.looked == 2
    for _ in range(3):
        watcher.leave()

    watcher.enter(True)
    assert watcher.is_stopping(("127.0.0.1", 80), send) is None
    assert finds.looked == 3
    watcher.leave()


async def test_a_server_that_can_only_be_asked_is_asked_again_and_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [Flag(), Flag()]
    finds = Finds(monkeypatch, Stop(flags[0].is_set))
    watcher = log.watcher()
    watcher.enter(True)
    assert watcher.is_stopping(1, send) is False
    # Another address of the same server, and another server.
    assert watcher.is_stopping(2, send) is False
    finds.stops = [Stop(flags[1].is_set)]
    assert watcher.is_stopping(3, send) is False
    await anyio.sleep(1)
    assert log.seen == []

    flags[0].set = True
    await anyio.sleep(0.11)
    assert log.seen == ["told"]
    assert watcher.is_stopping(1, send) is True
    assert watcher.is_stopping(3, send) is False
    # It is told once of each.
    await anyio.sleep(1)
    assert log.seen == ["told"]
    flags[1].set = True
    await anyio.sleep(0.11)
    assert log.seen == ["told", "told"]
    watcher.leave()
    assert await count_tasks() >= 1


async def test_one_of_several_servers_cannot_be_asked_but_is_watched(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [Flag(), Flag()]
    Finds(monkeypatch, *(Stop(flag.is_set) for flag in flags))
    watcher = log.watcher()
    watcher.enter(True)
    assert watcher.is_stopping(1, send) is None

    flags[0].set = True
    await anyio.sleep(0.11)
    assert log.seen == ["told"]
    # The other one may serve on, for ever.
    assert watcher.is_stopping(1, send) is None
    watcher.leave()


async def test_a_server_that_can_be_waited_for_is(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = anyio.Event()
    Finds(monkeypatch, Stop(stop.is_set, stop.wait))
    watcher = log.watcher()
    watcher.enter(True)
    assert watcher.is_stopping(1, send) is False
    await anyio.sleep(1)
    assert log.seen == []
    stop.set()
    await anyio.sleep(0.01)
    assert log.seen == ["told"]
    assert watcher.is_stopping(2, send) is True
    watcher.leave()


async def test_a_server_that_was_already_stopping_is_not_waited_for(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = Flag()
    flag.set = True
    Finds(monkeypatch, Stop(flag.is_set))
    watcher = log.watcher()
    watcher.enter(True)
    assert watcher.is_stopping(1, send) is True
    await anyio.sleep(1)
    watcher.leave()

    # It has been returned.
    assert log.seen == []


async def test_a_server_that_nobody_understands_is_no_obstacle(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(address: Any, send: Any, runtime: Any) -> Any:
        raise AttributeError

    monkeypatch.setattr("asgi_sse._watch.find_stops", find)
    caplog.set_level(logging.WARNING, logger="asgi_sse")
    watcher = log.watcher()
    watcher.enter(True)
    assert watcher.is_stopping(1, send) is None
    assert watcher.is_stopping(1, send) is None
    watcher.leave()

    assert len(caplog.records) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_event_loops_own_handlers_go_on(log: Log) -> None:
    """
    granian, gunicorn and hypercorn install theirs in this way.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, log.note("loop"))
    watcher = log.watcher()
    watcher.enter(True)

    assert sorted(await log.after_raising()) == ["loop", "told"]
    watcher.leave()
    assert await log.after_raising() == ["loop"]
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


@pytest.mark.real_time
async def test_a_signal_wakes_an_event_loop_that_waits(log: Log) -> None:
    told = anyio.Event()
    watcher = Watcher(current_runtime(), told.set)
    watcher.enter(True)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with anyio.fail_after(10):
        await told.wait()
    watcher.leave()

    assert log.seen == ["server"]


async def test_not_every_system_can_interrupt_calls(
    log: Log, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "siginterrupt")
    watcher = log.watcher()
    watcher.enter(True)
    assert await log.after_raising() == ["server", "told"]
    watcher.leave()

    assert signal.getsignal(signal.SIGTERM) is server
