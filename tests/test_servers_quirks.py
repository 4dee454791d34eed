"""
What is read off servers' own objects, with objects that look like theirs.
"""

import functools
import itertools
import logging
import math
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import MethodType, ModuleType
from typing import Any

import anyio
import pytest

from asgi_sse import _servers
from asgi_sse._runtime import current_runtime
from asgi_sse._servers import Stop, abort, find_hypercorn, find_stops, owners


class Thing:
    """
    An object of a server's: its class is from there, its attributes are given.
    """

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    async def send(self, message: Any) -> None: ...


def make(module: str, **attributes: Any) -> Any:
    # Derived, because servers are subclassed.
    base = type("Base", (Thing,), {"__module__": module})
    return type("Derived", (base,), {"__module__": module})(**attributes)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """
    Let it look as if a module had been imported.
    """

    def load(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))

    return load


# Who needs what.


def test_hypercorn_leaves_http2_clients_waiting() -> None:
    scope: dict[str, Any] = {"asgi": {"spec_version": "2.1"}}

    assert not _servers.hangs_when_truncated(scope)
    assert not _servers.hangs_when_truncated({**scope, "extensions": None})
    assert not _servers.hangs_when_truncated({**scope, "extensions": {"tls": {}}})
    assert _servers.hangs_when_truncated({**scope, "extensions": {"http.response.push": {}}})


def test_hypercorn_needs_something_to_end_with_over_http2() -> None:
    assert _servers.forgets_an_empty_end({"extensions": {"http.response.push": {}}})
    assert not _servers.forgets_an_empty_end({"extensions": {}})


def test_hypercorn_must_have_a_whole_request_over_http2() -> None:
    extensions: dict[str, Any] = {"http.response.push": {}}

    assert _servers.breaks_on_a_late_body({"extensions": extensions, "method": "POST"})
    assert not _servers.breaks_on_a_late_body({"extensions": extensions, "method": "GET"})
    assert not _servers.breaks_on_a_late_body({"extensions": {}, "method": "POST"})


@pytest.mark.parametrize(
    "quirk",
    [
        _servers.hangs_when_truncated,
        _servers.breaks_when_raised,
        _servers.waits_when_cancelled,
    ],
)
def test_daphne_is_known_by_what_it_does_not_say(
    quirk: Callable[[Any], bool], monkeypatch: pytest.MonkeyPatch, loaded: Callable[[str], None]
) -> None:
    monkeypatch.delitem(sys.modules, "daphne.server", raising=False)
    assert not quirk({"asgi": {"version": "3.0"}})
    loaded("daphne.server")
    assert quirk({"asgi": {"version": "3.0"}})
    assert not quirk({"asgi": {"version": "3.0", "spec_version": "2.3"}})


# The walk.


def test_the_walk_goes_through_whatever_wraps_a_function() -> None:
    stream = Thing()
    middleware: Any = Thing(inner=stream.send, app=functools.partial(print, 1))

    async def wrapped(message: Any) -> None:
        await middleware.inner(message)

    async def outer(*args: Any, send: Any = None) -> None: ...

    found = list(owners(functools.partial(outer, wrapped, send=outer)))

    assert found[0] is middleware
    assert stream in found
    assert print in found


def test_the_walk_survives_what_it_meets() -> None:
    def unassigned() -> Callable[..., Any]:
        def send() -> Any:
            return later  # type: ignore[has-type]

        return send
        later = 1

    class Proxy:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("nobody is to ask")

        def __call__(self) -> None: ...

    class Odd:
        __slots__ = ("__dict__",)

        def __getattribute__(self, name: str) -> Any:
            return 5

    ring = Thing()
    ring.__dict__["again"] = ring.send
    first: Any = functools.partial(unassigned(), Proxy(), Odd(), ring.send)

    assert ring in list(owners(first))


def test_the_walk_ends() -> None:
    things: list[Any] = [Thing() for _ in range(200)]
    for thing, after in itertools.pairwise(things):
        thing.__dict__["send"] = after.send

    assert things[10] in list(owners(things[0].send))
    assert things[-1] not in list(owners(things[0].send))


hidden: Any = Thing()


def test_the_walk_looks_everywhere_if_it_is_asked_to() -> None:
    def wrapper(number: int) -> Any:
        return hidden, time, undefined  # type: ignore[name-defined]  # noqa: F821

    kept = Thing()
    keeper = Thing(handlers={"a": [(kept,)]})

    assert list(owners(wrapper)) == []
    assert list(owners(wrapper, everywhere=True)) == [hidden]
    assert kept in list(owners(keeper.send, everywhere=True))
    assert list(owners(keeper.send)) == [keeper]
    # A function of a class is a function too.
    assert hidden in list(owners(MethodType(wrapper, keeper), everywhere=True))


# Learning of the stop.


def find(send: Any, address: object = ("127.0.0.1", 80)) -> list[Stop]:
    return find_stops(address, send, current_runtime())


class Flag:
    """
    An event as hypercorn has it.
    """

    def __init__(self) -> None:
        self.set = False

    def is_set(self) -> bool:
        return self.set

    async def wait(self) -> None: ...


async def test_hypercorn_says_it_itself() -> None:
    terminated = Flag()
    context = Thing(terminated=terminated)
    send = make("hypercorn.protocol.http_stream", context=context).send

    async def wrapped(message: Any) -> None:
        await send(message)

    assert find_hypercorn(wrapped) is context
    (stop,) = find(wrapped)
    (same,) = find(send)
    assert stop == same
    assert stop.wait == terminated.wait
    assert not stop.is_set()
    terminated.set = True
    assert stop.is_set()


@pytest.mark.usefixtures("no_servers")
async def test_another_context_is_none_of_hypercorns() -> None:
    assert find_hypercorn(make("other", context=Thing(terminated=Flag())).send) is None
    assert find_hypercorn(make("hypercorn.protocol", context=Thing()).send) is None
    assert find(Thing().send) == []


# What servers run in their tasks, as far as it is looked at.
CODE = """
async def worker_serve(context, over):
    await over.wait()

async def _handle(scope, send, over):
    await over.wait()

class Server:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    async def serve(self, over):
        await self._serve(over)

    async def _serve(self, over):
        await over.wait()

    async def send(self, message): ...
"""


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let it look as if none had been imported.
    """
    for name in _servers._SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def load(no_servers: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """
    Return what makes a module of a server's, as if it had been imported.
    """

    def load(name: str) -> Any:
        package = name.partition(".")[0]
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        module = ModuleType(name)
        exec(CODE, module.__dict__)  # noqa: S102 - our own, in a module of another name
        return module

    return load


@asynccontextmanager
async def running(*functions: Callable[..., Any]) -> AsyncIterator[None]:
    """
    Call each in a task of its own, until the block is over.
    """
    over = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for function in functions:
            tasks.start_soon(function, over)
        await anyio.sleep(0.01)
        yield
        over.set()


@pytest.mark.parametrize("worker", ["asyncio", "trio"])
async def test_hypercorn_is_found_in_the_task_that_runs_it(
    worker: str, load: Callable[[str], Any]
) -> None:
    """
    Middleware may hide it: what is before a stream does not lead to what is after it.
    """
    module = load(f"hypercorn.{worker}.run")
    terminated = Flag()
    context = make(f"hypercorn.{worker}.worker_context", terminated=terminated)
    unknown = make("hypercorn.of_tomorrow")
    async with running(
        functools.partial(module.worker_serve, context),
        functools.partial(module.worker_serve, context),
        functools.partial(module.worker_serve, unknown),
        functools.partial(module.worker_serve, None),
    ):
        (stop,) = find(Thing().send)
        assert stop.wait == terminated.wait
        assert not stop.is_set()
        terminated.set = True
        assert stop.is_set()

    assert find(Thing().send) == []


class Socket:
    def __init__(self) -> None:
        self.serving = True

    def is_serving(self) -> bool:
        return self.serving


async def test_uvicorn_is_found_in_the_task_that_runs_it(load: Callable[[str], Any]) -> None:
    socket = Socket()
    server = load("uvicorn.server").Server(should_exit=False, server_state=object())
    # It has this as well, and is no server.
    lifespan = load("uvicorn.lifespan.on").Server(should_exit=True)
    async with running(lifespan.serve, server.serve):
        (stop,) = find(Thing().send)
        assert [stop] == find(Thing().send)
        assert stop.wait is None
        # Its sockets come later than the lifespan.
        assert not stop.is_set()
        server.servers = [socket]
        assert not stop.is_set()
        # With --limit-max-requests there is no should_exit.
        socket.serving = False
        assert stop.is_set()
        socket.serving = True
        server.should_exit = True
        assert stop.is_set()

    assert find(Thing().send) == []


async def test_of_several_uvicorns_it_is_the_one_behind_send(load: Callable[[str], Any]) -> None:
    module = load("uvicorn.server")
    states = [object(), object()]
    servers = [module.Server(should_exit=False, server_state=state) for state in states]
    protocol = make("uvicorn.protocols.http.h11_impl", server_state=states[1])
    cycle = make("uvicorn.protocols.http.h11_impl", on_response=protocol.send)
    servers[1].should_exit = True
    async with running(*(server.serve for server in servers)):
        (stop,) = find(cycle.send)
        assert stop.is_set()
        # If it cannot be told apart, any may be it.
        stops = find(Thing().send)
        assert sorted(stop.is_set() for stop in stops) == [False, True]


async def test_gunicorn_has_a_worker_that_is_alive(load: Callable[[str], Any]) -> None:
    worker = load("gunicorn.workers.gasgi").Server(alive=True)
    other = load("gunicorn.workers.gasgi").Server()
    async with running(other.serve, worker.serve):
        (stop,) = find(Thing().send)
        assert not stop.is_set()
        worker.alive = False
        assert stop.is_set()


async def test_nothing_is_found_where_no_such_server_runs(load: Callable[[str], Any]) -> None:
    for name in _servers._SERVERS:
        load(name)

    assert find(Thing().send) == []


async def test_a_task_may_await_without_end(load: Callable[[str], Any]) -> None:
    load("uvicorn")

    async def deep(level: int, over: anyio.Event) -> None:
        if level:
            await deep(level - 1, over)
        else:
            await over.wait()

    async with running(functools.partial(deep, 200)):
        assert find(Thing().send) == []


# Cutting a connection.


class Transport:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class TrioSocket:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def scope(**more: Any) -> dict[str, Any]:
    return {"type": "http", "headers": [], **more}


async def cut(scope: dict[str, Any], send: Any) -> None:
    """
    Call it from where the engine does, which on asyncio is no task.
    """
    runtime = current_runtime()

    def ring(now: float) -> float:
        abort(scope, send, runtime)
        return math.inf

    entry = runtime.ticker.add(runtime.now(), ring)
    await anyio.sleep(0.01)
    runtime.ticker.discard(entry)


@pytest.mark.parametrize("module", ["uvicorn.protocols.http.h11_impl", "gunicorn.asgi.protocol"])
async def test_uvicorn_and_gunicorn_have_a_transport(module: str) -> None:
    transport = Transport()
    await cut(scope(), make(module, transport=transport).send)

    assert transport.aborted


async def test_hypercorn_on_asyncio_has_a_writer() -> None:
    transport = Transport()
    server = make("hypercorn.asyncio.tcp_server", writer=Thing(transport=transport))
    protocol = make("hypercorn.protocol.h11", send=server.send)
    await cut(scope(), make("hypercorn.protocol.http_stream", inner=protocol.send).send)

    assert transport.aborted


@pytest.mark.parametrize("tls", [False, True])
async def test_hypercorn_on_trio_has_a_socket(tls: bool) -> None:
    socket = TrioSocket()
    stream = Thing(socket=socket)
    if tls:
        stream = Thing(transport_stream=stream)
    await cut(scope(), make("hypercorn.trio.tcp_server", stream=stream).send)

    assert socket.closed


@pytest.mark.parametrize(
    "module", ["gunicorn.asgi.protocol", "hypercorn.asyncio.task_group", "uvicorn.protocols.http"]
)
async def test_a_connection_that_middleware_hides_is_the_one_with_the_same_request(
    module: str, load: Callable[[str], Any]
) -> None:
    server = load(module)
    scopes = [scope(client=("127.0.0.1", 0)) for _ in range(2)]
    ours, other = (server.Server(scope=one, transport=Transport()) for one in scopes)
    tasks: list[Any] = [other.serve, ours.serve]
    if not module.startswith("uvicorn"):
        # They keep the scope in a variable.
        tasks = [
            functools.partial(server._handle, None, None),
            functools.partial(server._handle, scopes[1], other.send),
            functools.partial(server._handle, scopes[0], ours.send),
        ]
        if module.startswith("hypercorn"):
            for each in (ours, other):
                tcp = make("hypercorn.asyncio.tcp_server", writer=Thing(transport=each.transport))
                each.inner = tcp.send
    async with running(*tasks):
        # Who is behind a proxy has the same address as others, and middleware copies.
        await cut({**scopes[0], "client": ("192.0.2.1", 0)}, Thing().send)

    assert ours.transport.aborted
    assert not other.transport.aborted


async def test_what_is_not_found_is_not_cut(load: Callable[[str], Any]) -> None:
    load("uvicorn")
    transport = Transport()
    await cut(scope(), make("granian.asgi", transport=transport).send)
    await cut(scope(), make("uvicorn.lifespan").send)

    assert not transport.aborted


async def test_a_connection_that_nobody_understands_is_no_obstacle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="asgi_sse")
    await cut(scope(), make("hypercorn.asyncio.tcp_server").send)

    assert [record.message for record in caplog.records] == [
        "The connection of a client cannot be cut"
    ]


async def test_granian_stops_when_it_no_longer_listens(loaded: Callable[[str], None]) -> None:
    send = Thing().send
    # Not the one: a client's, one of another port, one that has no port.
    others = [socket.socket(), socket.create_server(("127.0.0.1", 0)), unix_listener()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = ("127.0.0.1", str(listener.getsockname()[1]))
        assert find(send, address) == []
        loaded("granian")
        (stop,) = find(send, address)
        assert find(send, address) == [stop]
        assert not stop.is_set()
        number = listener.fileno()
    assert stop.is_set()
    # Its number may be that of another.
    os.dup2(others[0].fileno(), number)
    assert stop.is_set()
    os.close(number)
    for other in others:
        other.close()
    assert find(send, address) == []


def unix_listener() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    return listener


async def test_granian_cannot_be_asked_without_a_port(
    loaded: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded("granian")
    assert find(Thing().send, ()) == []
    assert find(Thing().send, "/run/socket") == []
    monkeypatch.setattr("os.path.isdir", lambda path: False)
    assert find(Thing().send) == []
