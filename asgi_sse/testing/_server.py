"""
A server inside the test: it runs an app and connects clients to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Unpack

import anyio
from anyio.abc import TaskGroup

from ._exchange import ASGIApp, Exchange, Message
from ._request import Body, Pairs, Request, RequestOptions
from ._stream import Stream
from ._temper import Temper, temper

__all__ = ["RequestOptions", "Server", "connect", "serve"]


class Server:
    """
    An app that is being served, in memory; made by ``serve()``.

    Every client that ``connect()`` makes has the same app, the same lifespan and
    the same ``scope["state"]``.
    """

    def __init__(self, app: ASGIApp, temper: Temper, tasks: TaskGroup) -> None:
        self._app = app
        self._temper = temper
        self._tasks = tasks
        #: What the app's lifespan left for its requests.
        self.state: dict[str, Any] = {}

    def with_temper(self, temper: Temper) -> Server:
        """
        Return the same server, with the same app running on it, in another temper.
        """
        other = Server(self._app, temper, self._tasks)
        other.state = self.state
        return other

    @asynccontextmanager
    async def connect(
        self, path: str = "/", **options: Unpack[RequestOptions]
    ) -> AsyncIterator[Stream]:
        """
        Make a request and yield its response, as ``asgi_sse.testing.connect()`` does.

        Args:
            path: The path, with or without a query.
            options: As for ``connect()``.

        """
        timeout = options.pop("timeout", 5.0)
        cleanup_timeout = options.pop("cleanup_timeout", 5.0)
        last_event_id = options.pop("last_event_id", "")
        request = Request(path, options)

        def start(event_id: str, on_chunk: Callable[[bytes], None]) -> Exchange:
            scope = request.scope(self._temper.spec_version, event_id, dict(self.state))
            exchange = Exchange(self._app, scope, request.body, self._temper, on_chunk)
            exchange.start(self._tasks)
            return exchange

        stream = Stream(start, last_event_id, self._temper, timeout)
        try:
            await stream._open()
            yield stream
        finally:
            await stream._leave(cleanup_timeout)
        stream._raise_unseen()


@asynccontextmanager
async def serve(
    app: ASGIApp,
    *,
    lifespan: bool = True,
    server: str | Temper = "ignore",
    timeout: float | None = 5.0,  # noqa: ASYNC109 - of each phase of the lifespan
) -> AsyncIterator[Server]:
    """
    Run an app on a server inside the test, for several clients or requests.

    Args:
        app: Any ASGI 3 app.
        lifespan: Whether to tell the app of its startup and shutdown. An app that
            does not understand this is served all the same.
        server: How the server behaves where ASGI leaves it open: the name of a
            temper (``"ignore"``, ``"raise"``, ``"hang"``, ``"uvicorn"``, ...) or a
            ``Temper``.
        timeout: Seconds that the startup and the shutdown of the app may each take.

    Yields:
        The server, to ``connect()`` to.

    Raises:
        RuntimeError: If the startup or the shutdown of the app failed.
        TimeoutError: If one of them took too long.

    """
    failure: BaseException | None = None
    behaviour = temper(server)
    async with anyio.create_task_group() as tasks:
        serving = Server(app, behaviour, tasks)
        try:
            async with _Lifespan(serving, timeout) if lifespan else nullcontext():
                yield serving
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised below
            # Past the task group, which would put it into an exception group.
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def connect(
    app: ASGIApp,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Pairs | None = None,
    query: Pairs | str | None = None,
    body: Body = b"",
    json: Any = None,
    cookies: Mapping[str, str] | None = None,
    last_event_id: str = "",
    scope: Mapping[str, Any] | None = None,
    lifespan: bool = True,
    server: str | Temper = "ignore",
    timeout: float | None = 5.0,  # noqa: ASYNC109 - of each wait, not of the block
    cleanup_timeout: float = 5.0,
) -> AsyncIterator[Stream]:
    """
    Make a request to any ASGI app, in memory, and yield its response while it streams.

    At the end of the block the client leaves, and the app gets ``cleanup_timeout``
    to notice; then it is cancelled. An error of the app that the test has not looked
    at (``stream.error``) is raised there.

    Args:
        app: Any ASGI 3 app.
        path: The path, percent-encoded where it must be, with or without a query.
        method: The method.
        headers: More headers, or others than an ``EventSource`` would send.
        query: Added to the query of the path: pairs or text.
        body: The body of the request. An async iterator is a slow upload.
        json: The body as an object.
        cookies: The cookies, by name.
        last_event_id: What a client that reconnects would send.
        scope: What to change in the scope, such as ``{"root_path": "/api"}``.
        lifespan: Whether to tell the app of its startup and shutdown.
        server: How the server behaves: the name of a temper, or a ``Temper``.
        timeout: Seconds that anything may take for which the test waits; ``None``
            waits for ever.
        cleanup_timeout: Seconds that the app gets to end after the client has left.

    Yields:
        The response, as soon as it has started.

    Raises:
        TimeoutError: If the app did not start its response in time.
        RuntimeError: If the app ended without a response, or its startup failed.

    """
    async with (
        serve(app, lifespan=lifespan, server=server, timeout=timeout) as serving,
        serving.connect(
            path,
            method=method,
            headers=headers,
            query=query,
            body=body,
            json=json,
            cookies=cookies,
            last_event_id=last_event_id,
            scope=scope,
            timeout=timeout,
            cleanup_timeout=cleanup_timeout,
        ) as stream,
    ):
        yield stream


class _Lifespan(AbstractAsyncContextManager[None]):
    """
    The startup and the shutdown of an app.
    """

    def __init__(self, server: Server, timeout: float | None) -> None:
        self._server = server
        self._timeout = timeout
        self._stopping = anyio.Event()
        self._answered = anyio.Event()
        self._ended = anyio.Event()
        self._asked = 0
        self._started = False
        self._failure: str | None = None

    async def __aenter__(self) -> None:
        self._server._tasks.start_soon(self._run, name="lifespan")
        await self._wait(self._answered, "startup")

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await self._wait(self._ended, "shutdown")

    async def _wait(self, answer: anyio.Event, phase: str) -> None:
        try:
            with anyio.fail_after(self._timeout):
                await answer.wait()
        except TimeoutError:
            message = f"no end of the {phase} of the app within {self._timeout:g} s"
            raise TimeoutError(message) from None
        if self._failure is not None:
            raise RuntimeError(f"the {phase} of the app failed: {self._failure}")

    async def _run(self) -> None:
        asgi = {"version": "3.0", "spec_version": "2.0"}
        scope = {"type": "lifespan", "asgi": asgi, "state": self._server.state}
        try:
            await self._server._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - an app may say it in any way
            # Before the startup is over this is how an app says that it knows no lifespan.
            if self._started:
                self._failure = repr(error)
        finally:
            self._answered.set()
            self._ended.set()

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        phase, _, outcome = message["type"].removeprefix("lifespan.").partition(".")
        if outcome == "failed":
            self._failure = message.get("message", "")
        if phase == "startup":
            self._started = outcome == "complete"
            self._answered.set()
        else:
            self._ended.set()
