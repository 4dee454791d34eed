"""
What is read off servers' own objects, with objects that look like theirs.
"""

import asyncio
import functools
import itertools
import sys
import time
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

import pytest

from asgi_sse import _servers
from asgi_sse._servers import abort, find_hypercorn, find_stops, owners


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


class Flag:
    """
    An event as hypercorn has it.
    """

    def __init__(self) -> None:
        self.set = False

    def is_set(self) -> bool:
        return self.set

    async def wait(self) -> None: ...


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


def test_hypercorn_says_it_itself() -> None:
    terminated = Flag()
    context = Thing(terminated=terminated)
    send = make("hypercorn.protocol.http_stream", context=context).send

    async def wrapped(message: Any) -> None:
        await send(message)

    assert find_hypercorn(wrapped) is context
    (stop,) = find_stops(wrapped)
    (same,) = find_stops(send)
    assert stop == same
    assert stop.wait == terminated.wait
    assert not stop.is_set()
    terminated.set = True
    assert stop.is_set()


def test_another_context_is_none_of_hypercorns() -> None:
    assert find_hypercorn(make("other", context=Thing(terminated=Flag())).send) is None
    assert find_hypercorn(make("hypercorn.protocol", context=Thing()).send) is None
    assert find_stops(Thing().send) == []


class Serving:
    """
    A server that runs in a task of the event loop.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def serve(self) -> None:
        await self._serve()

    async def _serve(self) -> None:
        await self.over.wait()


def serving(module: str, **attributes: Any) -> Any:
    server = type("Server", (Serving,), {"__module__": module})()
    server.__dict__.update(attributes)
    return server


class Socket:
    def __init__(self) -> None:
        self.serving = True

    def is_serving(self) -> bool:
        return self.serving


on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@on_asyncio
async def test_uvicorn_is_found_in_the_task_that_runs_it(loaded: Callable[[str], None]) -> None:
    loaded("uvicorn")
    socket = Socket()
    server = serving("uvicorn.server", should_exit=False, server_state=object())
    # It has these as well, and is no server.
    lifespan = serving("uvicorn.lifespan.on", should_exit=True)
    tasks = [asyncio.create_task(each.serve()) for each in (lifespan, server)]
    await asyncio.sleep(0)

    (stop,) = find_stops(Thing().send)
    assert [stop] == find_stops(Thing().send)
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

    for each in (lifespan, server):
        each.over.set()
    await asyncio.gather(*tasks)
    assert find_stops(Thing().send) == []


@on_asyncio
async def test_of_several_uvicorns_it_is_the_one_behind_send(
    loaded: Callable[[str], None],
) -> None:
    loaded("uvicorn")
    states = [object(), object()]
    servers = [
        serving("uvicorn.server", should_exit=False, server_state=state) for state in states
    ]
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.sleep(0)
    protocol = make("uvicorn.protocols.http.h11_impl", server_state=states[1])
    cycle = make("uvicorn.protocols.http.h11_impl", on_response=protocol.send)
    servers[1].should_exit = True

    (stop,) = find_stops(cycle.send)
    assert stop.is_set()
    # If it cannot be told apart, any may be it.
    assert [stop.is_set() for stop in find_stops(Thing().send)].count(True) == 1
    assert len(find_stops(Thing().send)) == 2

    for server in servers:
        server.over.set()
    await asyncio.gather(*tasks)


@on_asyncio
async def test_gunicorn_has_a_worker_that_is_alive(loaded: Callable[[str], None]) -> None:
    loaded("gunicorn")
    worker = serving("gunicorn.workers.gasgi", alive=True)
    other = serving("gunicorn.arbiter")
    tasks = [asyncio.create_task(each.serve()) for each in (other, worker)]
    await asyncio.sleep(0)

    (stop,) = find_stops(Thing().send)
    assert not stop.is_set()
    worker.alive = False
    assert stop.is_set()

    for each in (other, worker):
        each.over.set()
    await asyncio.gather(*tasks)


async def test_nothing_is_found_where_no_such_server_is(loaded: Callable[[str], None]) -> None:
    loaded("uvicorn")
    loaded("gunicorn")

    # On trio there are no tasks of asyncio's at all.
    assert find_stops(Thing().send) == []


def test_nothing_is_found_without_asyncio(
    loaded: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded("uvicorn")
    monkeypatch.delitem(sys.modules, "asyncio")

    assert find_stops(Thing().send) == []


@on_asyncio
async def test_a_task_may_await_without_end(loaded: Callable[[str], None]) -> None:
    loaded("uvicorn")
    over = asyncio.Event()

    async def deep(level: int) -> None:
        if level:
            await deep(level - 1)
        else:
            await over.wait()

    task = asyncio.create_task(deep(200))
    await asyncio.sleep(0)
    assert find_stops(Thing().send) == []
    over.set()
    await task


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


@pytest.mark.parametrize("module", ["uvicorn.protocols.http.h11_impl", "gunicorn.asgi.protocol"])
def test_uvicorn_and_gunicorn_have_a_transport(module: str) -> None:
    transport = Transport()
    abort(make(module, transport=transport).send)

    assert transport.aborted


def test_hypercorn_on_asyncio_has_a_writer() -> None:
    transport = Transport()
    server = make("hypercorn.asyncio.tcp_server", writer=Thing(transport=transport))
    protocol = make("hypercorn.protocol.h11", send=server.send)
    abort(make("hypercorn.protocol.http_stream", inner=protocol.send).send)

    assert transport.aborted


@pytest.mark.parametrize("tls", [False, True])
def test_hypercorn_on_trio_has_a_socket(tls: bool) -> None:
    socket = TrioSocket()
    stream = Thing(socket=socket)
    if tls:
        stream = Thing(transport_stream=stream)
    abort(make("hypercorn.trio.tcp_server", stream=stream).send)

    assert socket.closed


def test_what_is_not_found_is_not_cut() -> None:
    transport = Transport()
    abort(make("granian.asgi", transport=transport).send)
    abort(make("uvicorn.lifespan").send)

    assert not transport.aborted
