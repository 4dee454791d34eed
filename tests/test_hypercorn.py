"""
What asgi_sse.hypercorn does, with a hypercorn of a few lines; tests/servers has the real one.
"""

import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest

from asgi import Server, in_asyncio
from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse._options import Closed
from asgi_sse.hypercorn import heed_signals, serve
from asgi_sse.testing import autojump_backend

BYE = ServerSentEvent("bye")
CONFIG: Any = SimpleNamespace(graceful_timeout=3.0)


class Hypercorn:
    """
    Serves one client, and notes when it was told to stop.
    """

    def __init__(self) -> None:
        self.client = Server()
        self.stopped_at: float | None = None
        self.mode: str | None = None
        self.ready = anyio.Event()

    async def serve(
        self,
        app: Any,
        config: Any,
        *,
        shutdown_trigger: Callable[[], Awaitable[None]],
        mode: str | None,
    ) -> None:
        assert config is CONFIG
        self.mode = mode
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.call, app)
            await anyio.sleep(1)
            self.ready.set()
            await shutdown_trigger()
            self.stopped_at = anyio.current_time()
            tasks.cancel_scope.cancel()


@pytest.fixture
async def hypercorn(monkeypatch: pytest.MonkeyPatch) -> Hypercorn:
    hypercorn = Hypercorn()
    monkeypatch.setitem(sys.modules, "hypercorn", ModuleType("hypercorn"))
    for backend in ("asyncio", "trio"):
        module: Any = ModuleType(f"hypercorn.{backend}")
        module.serve = hypercorn.serve
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return hypercorn


@pytest.fixture(autouse=True)
def sigint() -> Iterator[list[int]]:
    """
    A handler for SIGINT that does not raise, and what it was called with.
    """
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGINT, before)


async def polite(request: Request) -> AsyncIterator[str]:
    yield "a"
    await request.wait_closing()
    await anyio.sleep(0.5)
    yield "last words"


# serve()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_at_a_signal_it_drains_before_hypercorn_stops(
    hypercorn: Hypercorn, sigint: list[int], number: signal.Signals
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, EventStream(polite, farewell=BYE), CONFIG)
        await hypercorn.ready.wait()
        signal.raise_signal(number)
        # Nothing that has to do with SIGTERM dies of a second one.
        signal.raise_signal(signal.SIGTERM)

    assert hypercorn.client.body == b":\n\ndata: a\n\ndata: last words\n\ndata: bye\n\n"
    assert not hypercorn.client.sent[-1]["more_body"]
    assert hypercorn.stopped_at == 1.5
    assert sigint == []
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_second_ctrl_c_is_not_ours(hypercorn: Hypercorn, sigint: list[int]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, EventStream(polite), CONFIG)
        await hypercorn.ready.wait()
        signal.raise_signal(signal.SIGINT)
        assert sigint == []
        signal.raise_signal(signal.SIGINT)
        assert sigint == [signal.SIGINT]


async def test_nobody_may_be_there_for_a_second_ctrl_c(hypercorn: Hypercorn) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, EventStream(polite), CONFIG)
        await hypercorn.ready.wait()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


async def test_it_also_stops_when_its_trigger_returns(hypercorn: Hypercorn) -> None:
    async def trigger() -> None:
        await anyio.sleep(6)

    app = EventStream(polite, watch_shutdown=False)
    await serve(app, CONFIG, shutdown_trigger=trigger, mode="asgi")

    assert hypercorn.stopped_at == 7.5
    assert hypercorn.client.body.startswith(b":\n\ndata: a\n\ndata: last words\n\nretry: ")
    assert hypercorn.mode == "asgi"


async def test_or_at_a_signal_before_that(hypercorn: Hypercorn) -> None:
    async with anyio.create_task_group() as tasks:

        async def serve_it() -> None:
            await serve(EventStream(polite), CONFIG, shutdown_trigger=anyio.sleep_forever)

        tasks.start_soon(serve_it)
        await hypercorn.ready.wait()
        signal.raise_signal(signal.SIGTERM)

    assert hypercorn.stopped_at == 1.5


async def test_a_trigger_that_raises_is_heard(hypercorn: Hypercorn) -> None:
    async def trigger() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        await serve(EventStream(polite), CONFIG, shutdown_trigger=trigger)

    assert caught.group_contains(LookupError)


async def test_a_stream_that_finishes_has_hypercorns_own_time(hypercorn: Hypercorn) -> None:
    ends: list[Closed] = []

    async def endless() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep_forever()

    app = EventStream(endless, on_shutdown="finish", farewell=BYE, on_close=ends.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, app, CONFIG)
        await hypercorn.ready.wait()
        signal.raise_signal(signal.SIGTERM)

    assert hypercorn.stopped_at == 4
    assert hypercorn.client.body.endswith(b"data: bye\n\n")
    assert [closed.reason for closed in ends] == ["shutdown"]


async def test_in_another_thread_there_is_the_trigger(hypercorn: Hypercorn) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def trigger() -> None:
        assert signal.getsignal(signal.SIGTERM) is before

    async def serve_there() -> None:
        hypercorn.client = Server()
        hypercorn.ready = anyio.Event()
        await serve(EventStream(polite), CONFIG, shutdown_trigger=trigger)

    backend, options = autojump_backend("asyncio" if in_asyncio() else "trio")
    thread = threading.Thread(
        target=anyio.run,
        args=(serve_there,),
        kwargs={"backend": backend, "backend_options": options},
    )
    thread.start()
    thread.join()

    assert hypercorn.client.body.startswith(b":\n\ndata: a\n\ndata: last words\n\n")


async def test_without_hypercorn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hypercorn", "hypercorn.asyncio", "hypercorn.trio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'asgi-sse\[serve\]'") as caught:
        await serve(EventStream(polite), CONFIG)

    assert caught.value.name == "hypercorn"


# heed_signals()


class Context:
    """
    What the connections of a worker of hypercorn's share.
    """

    def __init__(self) -> None:
        self.terminate = Flag()
        self.terminated = Flag()


class Flag:
    def __init__(self) -> None:
        self.event = anyio.Event()

    async def set(self) -> None:
        self.event.set()

    async def wait(self) -> None:
        await self.event.wait()

    def is_set(self) -> bool:
        return self.event.is_set()


class HTTPStream:
    def __init__(self, context: Context | None) -> None:
        self.context = context
        self.server = Server()

    async def send(self, message: Any) -> None:
        await self.server.send(message)


HTTPStream.__module__ = "hypercorn.protocol.http_stream"


async def nothing(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.fixture
def default() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default")
async def test_sigterm_makes_a_worker_terminate() -> None:
    context = Context()
    app = heed_signals(nothing)
    for _ in range(2):
        await app({"type": "http"}, anyio.sleep_forever, HTTPStream(context).send)
    signal.raise_signal(signal.SIGTERM)
    # As when hypercorn sends another.
    signal.raise_signal(signal.SIGTERM)
    await context.terminate.wait()

    assert not context.terminated.is_set()


@pytest.mark.usefixtures("default")
async def test_a_second_sigint_is_not_for_the_streams(sigint: list[int]) -> None:
    """
    On trio the first one would be: there it makes a worker end without a word.
    """
    context = Context()
    app = heed_signals(nothing)
    await app({"type": "http"}, anyio.sleep_forever, HTTPStream(context).send)
    signal.raise_signal(signal.SIGINT)
    on_trio = not in_asyncio()
    if on_trio:
        await context.terminate.wait()

    assert sigint == ([] if on_trio else [signal.SIGINT])

    sigint.clear()
    signal.raise_signal(signal.SIGINT)

    assert sigint == [signal.SIGINT]


@pytest.mark.usefixtures("default")
async def test_and_its_streams_say_goodbye() -> None:
    context = Context()
    client = HTTPStream(context)
    app = heed_signals(EventStream(polite, farewell=BYE))
    async with anyio.create_task_group() as tasks:
        scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "path": "/"}
        tasks.start_soon(app, scope, client.server.receive, client.send)
        await anyio.sleep(1)
        signal.raise_signal(signal.SIGTERM)

    assert client.server.body == b":\n\ndata: a\n\ndata: last words\n\ndata: bye\n\n"
    assert context.terminate.is_set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.usefixtures("default")
def test_when_the_event_loop_ends_sigterm_kills_again(backend: str, taken_over: bool) -> None:
    def other(number: int, frame: Any) -> None: ...

    async def main() -> None:
        app = heed_signals(nothing)
        await app({"type": "http"}, anyio.sleep_forever, HTTPStream(Context()).send)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        await anyio.sleep(0.01)
        if taken_over:
            signal.signal(signal.SIGTERM, other)

    anyio.run(main, backend=backend)

    assert signal.getsignal(signal.SIGTERM) is (other if taken_over else signal.SIG_DFL)


@pytest.mark.parametrize(
    ("kind", "context"), [("lifespan", True), ("http", False), ("websocket", False)]
)
@pytest.mark.usefixtures("default")
async def test_where_there_is_no_hypercorn_sigterm_kills(kind: str, context: bool) -> None:
    send = HTTPStream(Context() if context else None).send
    await heed_signals(nothing)({"type": kind}, anyio.sleep_forever, send)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
