"""
What servers do that the ASGI specification does not say.
"""

# Everything here is read off a server's own objects, because ASGI has no word for
# it. Nothing is changed on them, and what is not found is done without.

from __future__ import annotations

import functools
import itertools
import logging
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from ._runtime import Runtime

logger = logging.getLogger("asgi_sse")

# Through the wrappers of Starlette, its GZip and session middleware and two
# BaseHTTPMiddlewares it takes 23 steps; and no time worth mentioning.
_MOST_STEPS = 64

# Those with objects that know of a stop, or of a connection.
_SERVERS = {"gunicorn", "hypercorn", "uvicorn"}

# Where they run, and what the object is called there that knows of a stop.
_RUNNERS = {
    "gunicorn.workers.gasgi": "self",
    "hypercorn.asyncio.run": "context",
    "hypercorn.trio.run": "context",
    "uvicorn.server": "self",
}


def hangs_when_truncated(scope: Mapping[str, Any]) -> bool:
    """
    Whether a response without a final chunk would leave the client waiting.

    hypercorn says nothing to an HTTP/2 or HTTP/3 client when the application
    fails, daphne nothing to any.
    """
    return _is_hypercorn_http2(scope) or _is_daphne(scope)


def breaks_when_raised(scope: Mapping[str, Any]) -> bool:
    """
    Whether the server must not see an exception once the response has started.

    daphne then tries to answer 500, fails, and never again looks after its
    applications, those that have nothing to do with this one included.
    """
    return _is_daphne(scope)


def waits_when_cancelled(scope: Mapping[str, Any]) -> bool:
    """
    Whether the server cancels the application when it stops, and waits for its return.

    daphne does, without any grace. It waits for all applications until one of
    them raises the cancellation: then the process ends under the others. And it
    does not wait for what they have sent to be on its way.
    """
    return _is_daphne(scope)


def forgets_an_empty_end(scope: Mapping[str, Any]) -> bool:
    """
    Whether the end of a response gets lost when the server stops, if nothing comes with it.

    hypercorn closes an HTTP/2 connection as soon as the last of its responses
    is over, and that waits only for what the responses had to send, not for
    their ends to be sent.
    """
    return _is_hypercorn_http2(scope)


def says_it_only_once() -> bool:
    """
    Whether whoever did not hear the signal cannot learn any more that the server is stopping.

    granian cannot be asked, cancels nothing, and takes requests for a moment
    more; and then it waits for them.
    """
    return "granian" in sys.modules


def breaks_on_a_late_body(scope: Mapping[str, Any]) -> bool:
    """
    Whether the response must not end before all of the request has come.

    When a part of the body arrives for a request that hypercorn has already
    answered over HTTP/2, it drops the connection with all its other requests;
    on trio the whole worker.
    """
    return _is_hypercorn_http2(scope) and scope["method"] not in ("GET", "HEAD")


def _is_hypercorn_http2(scope: Mapping[str, Any]) -> bool:
    # Of the servers with HTTP/2 and HTTP/3 it alone offers server push.
    return "http.response.push" in (scope.get("extensions") or {})


def _is_daphne(scope: Mapping[str, Any]) -> bool:
    # It alone names no version of the specification; but so do clients for tests.
    return "spec_version" not in scope.get("asgi", {}) and "daphne.server" in sys.modules


@dataclass(frozen=True, slots=True)
class Stop:
    """
    How a server can be asked whether it is stopping.

    Two are equal if they ask the same object.
    """

    is_set: Callable[[], bool]
    #: Returns when it is; ``None`` where the server can only be asked again and again.
    wait: Callable[[], Awaitable[None]] | None = None


def find_stops(address: object, send: Callable[..., Any], runtime: Runtime) -> list[Stop]:
    """
    Return how to learn that the server behind *send* is stopping, if it can be learnt.

    hypercorn's workers get no signal by default, uvicorn and gunicorn also
    stop for other reasons than a signal, and granian's may have come before
    anybody listened. There are several if the event loop has several servers,
    and it cannot be told which of them it is.
    """
    context = find_hypercorn(send)
    if context is not None:
        return [Stop(context.terminated.is_set, context.terminated.wait)]
    stops = []
    for runner in _find_runners(runtime):
        # It is looked at what they have, because one of tomorrow may have it no more.
        if _is_from("hypercorn", runner) and hasattr(runner, "terminated"):
            stops.append(Stop(runner.terminated.is_set, runner.terminated.wait))
        elif _is_from("uvicorn", runner) and hasattr(runner, "should_exit"):
            if _serves(runner, send):
                # A method, for it to be equal to others of the same server.
                stops.append(Stop(MethodType(_uvicorn_stops, runner)))
        elif _is_from("gunicorn", runner) and hasattr(runner, "alive"):
            stops.append(Stop(MethodType(_gunicorn_stops, runner)))
    if not stops and says_it_only_once():
        stops = [Stop(listener) for listener in _find_listeners(address)]
    return stops


@dataclass(frozen=True, slots=True)
class _Listener:
    """
    Whether a socket of this process that took connections is closed.
    """

    number: int
    inode: int

    def __call__(self) -> bool:
        """
        Whether it is gone, also if its number is that of something else by now.
        """
        try:
            return os.fstat(self.number).st_ino != self.inode
        except OSError:
            return True


def _find_listeners(address: object) -> list[_Listener]:
    """
    Return the socket on which a server takes connections, if it can be found.

    granian closes it when it begins to stop, and there is no object to ask.
    """
    # Not on Windows.
    folder = "/dev/fd"
    if not (isinstance(address, tuple) and len(address) == 2 and os.path.isdir(folder)):
        return []
    for number in map(int, os.listdir(folder)):
        # The folder's own is closed already, and others may be meanwhile.
        with suppress(OSError):
            status = os.fstat(number)
            if stat.S_ISSOCK(status.st_mode) and _listens(number, address[1]):
                return [_Listener(number, status.st_ino)]
    return []


def _listens(number: int, port: object) -> bool:
    # A copy, for what belongs to the server must not be closed here.
    with socket.socket(fileno=os.dup(number)) as copy:
        if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        name = copy.getsockname()
        # granian gives the port as text.
        return isinstance(name, tuple) and str(name[1]) == str(port)


def find_hypercorn(send: Callable[..., Any]) -> Any:
    """
    Return what all connections of a hypercorn worker share, or ``None``.

    Its ``terminate`` is the event that makes the worker stop, ``terminated``
    the one that is set as soon as it does.
    """
    for owner in owners(send):
        if _is_from("hypercorn", owner):
            context = getattr(owner, "context", None)
            if hasattr(context, "terminated"):
                return context
    return None


def abort(scope: Mapping[str, Any], send: Callable[..., Any], runtime: Runtime) -> None:
    """
    Cut the connection of a request, if it can be found, and what waits to be sent.

    ASGI can only end a response, and then servers wait, most of them for ever,
    until the client has taken what was sent before.
    """
    try:
        for owner in itertools.chain(owners(send), _find_hidden(scope, runtime)):
            if _cut(owner):
                return
    except Exception:
        # A server of tomorrow. Whoever calls this has other streams to look after.
        logger.warning("The connection of a client cannot be cut", exc_info=True)


def _cut(owner: Any) -> bool:
    """
    Cut a connection, if this is an object that has one.
    """
    module = type(owner).__module__
    transport: Any = None
    if module == "hypercorn.trio.tcp_server":
        # With TLS it is the one within. Whoever waits for it is woken by an error.
        getattr(owner.stream, "transport_stream", owner.stream).socket.close()
        return True
    if module == "hypercorn.asyncio.tcp_server":
        transport = owner.writer.transport
    elif _is_from("uvicorn", owner) or _is_from("gunicorn", owner):
        transport = getattr(owner, "transport", None)
    if hasattr(transport, "abort"):
        transport.abort()
        return True
    return False


def owners(function: Any, *, everywhere: bool = False) -> Iterator[Any]:
    """
    Walk through what wraps a function, down to the objects whose methods they are.

    Args:
        function: Where to begin.
        everywhere: Look also into what the functions on the way keep in
            containers and in global variables.

    """
    seen: set[int] = set()
    queue = [function]
    while queue and len(seen) < _MOST_STEPS:
        thing = queue.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        # Not isinstance(), which asks the thing itself: it may be a proxy of another.
        kind = type(thing)
        if issubclass(kind, functools.partial):
            queue += [thing.func, *thing.args, *thing.keywords.values()]
        elif kind is MethodType:
            queue += [thing.__self__, thing.__func__] if everywhere else [thing.__self__]
        elif kind is FunctionType:
            queue += [_contents(cell) for cell in thing.__closure__ or ()]
            if everywhere:
                names = thing.__code__.co_names
                queue += [thing.__globals__[name] for name in names if name in thing.__globals__]
        elif everywhere and kind in (list, tuple):
            queue += thing
        elif everywhere and kind is dict:
            queue += thing.values()
        elif kind is ModuleType:
            continue
        else:
            yield thing
            # Middleware that is a class keeps what it wraps in an attribute.
            queue += [value for value in _attributes(thing) if everywhere or callable(value)]


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return None


def _attributes(thing: Any) -> list[Any]:
    attributes = getattr(thing, "__dict__", None)
    return list(attributes.values()) if isinstance(attributes, dict) else []


def _is_from(package: str, thing: object) -> bool:
    """
    Whether the class of a thing, or one that it is derived from, is of this package.
    """
    return any(base.__module__.partition(".")[0] == package for base in type(thing).__mro__)


def _find_runners(runtime: Runtime) -> Iterator[Any]:
    """
    Give what the servers of the event loop run by: each once.
    """
    seen = set()
    for module, frame in _frames(runtime):
        name = _RUNNERS.get(module)
        runner = frame.f_locals.get(name) if name else None
        if runner is not None and id(runner) not in seen:
            seen.add(id(runner))
            yield runner


def _find_hidden(scope: Mapping[str, Any], runtime: Runtime) -> Iterator[Any]:
    """
    Give the owners of the server's own ``send`` for a request, wherever it is.

    Middleware may hide it: Starlette's BaseHTTPMiddleware puts a stream of
    anyio's in between, the other end of which is in the server's task.
    """
    for _, frame in _frames(runtime):
        here = frame.f_locals
        this = here.get("self")
        theirs = here.get("scope", getattr(this, "scope", None))
        # Ours may be a copy, and the client's address another, as a proxy has told it. But
        # who copies a scope leaves the headers as they are.
        if isinstance(theirs, dict) and theirs.get("headers") is scope["headers"]:
            yield from owners(here.get("send", this))


def _frames(runtime: Runtime) -> Iterator[tuple[str, FrameType]]:
    """
    Give the frames of servers in the event loop's tasks, each with its module's name.
    """
    if sys.modules.keys().isdisjoint(_SERVERS):
        return
    for coroutine in runtime.coroutines():
        for _ in range(_MOST_STEPS):
            frame = getattr(coroutine, "cr_frame", None)
            if frame is None:
                break
            module = frame.f_globals.get("__name__", "")
            # Of nobody else's: to look at the variables of a frame can make them live
            # longer than it.
            if module.partition(".")[0] in _SERVERS:
                yield module, frame
            coroutine = coroutine.cr_await


def _serves(server: Any, send: Callable[..., Any]) -> bool:
    """
    Whether it is this uvicorn, of those in the event loop, that is behind *send*.
    """
    states = [
        owner.server_state
        for owner in owners(send)
        if _is_from("uvicorn", owner) and hasattr(owner, "server_state")
    ]
    return not states or server.server_state in states


def _gunicorn_stops(worker: Any) -> bool:
    return not worker.alive


def _uvicorn_stops(server: Any) -> bool:
    # With --limit-max-requests it stops without should_exit: its sockets are closed.
    sockets = getattr(server, "servers", ())
    return bool(server.should_exit) or not all(socket.is_serving() for socket in sockets)
