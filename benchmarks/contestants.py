"""
The same event streams, served by each library.

Frameworks are imported only when their contestant is made. Responses that are
ASGI apps themselves are used bare, without their framework's router and
middleware, which is the cheapest way to use them.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from .sources import Sources

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

FLOOR = "hand-written"
OURS = "asgi_sse"
OURS_CHANNEL = "asgi_sse (channel)"

PEERS = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Contestant:
    """
    A library that can serve the sources.
    """

    name: str
    #: Makes its ASGI app; None for those that are servers themselves.
    make: Callable[[Sources], ASGIApp] | None
    #: Names of distributions, for the versions on the page.
    distributions: tuple[str, ...] = ()
    #: The only server it runs on, for those that are servers themselves.
    own_server: str | None = None
    #: Says what is missing, or None.
    missing: Callable[[], str | None] = lambda: None


def hand_written(sources: Sources) -> ASGIApp:
    """
    The floor: one send per event, the disconnect unread, nothing else.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        async for x in sources.open(scope):
            await send(
                {
                    "type": "http.response.body",
                    "body": f"data: {x}\n\n".encode(),
                    "more_body": True,
                }
            )
        await send({"type": "http.response.body", "body": b""})

    return app


def ours(sources: Sources) -> ASGIApp:
    """
    EventStream around the same sources.
    """
    from asgi_sse import EventStream, Request

    async def source(request: Request) -> AsyncIterator[str]:
        return sources.open(request.scope)

    return EventStream(source)


def ours_channel(sources: Sources) -> ASGIApp:
    """
    EventStream with a channel for the subscriptions, the same sources elsewhere.
    """
    from asgi_sse import Channel, EventStream, Request

    channel = Channel()
    sources.publish = channel.publish

    async def source(request: Request) -> Any:
        if request.scope["path"] == "/subscribe":
            return channel.subscribe(request.last_event_id)
        return sources.open(request.scope)

    return EventStream(source)


def starlette(sources: Sources) -> ASGIApp:
    """
    StreamingResponse, which leaves the framing to its user.
    """
    from starlette.responses import StreamingResponse

    async def framed(source: AsyncIterator[str]) -> AsyncIterator[str]:
        async for x in source:
            yield f"data: {x}\n\n"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = StreamingResponse(framed(sources.open(scope)), media_type="text/event-stream")
        await response(scope, receive, send)

    return app


def sse_starlette(sources: Sources, package: str = "sse_starlette") -> ASGIApp:
    """
    EventSourceResponse, called as the ASGI app it is.
    """
    response: Any = import_module(package).EventSourceResponse

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response(sources.open(scope))(scope, receive, send)

    return app


def fastapi(sources: Sources, package: str = "fastapi.sse") -> ASGIApp:
    """
    A generator endpoint whose response class is fastapi.sse's.
    """
    import fastapi

    from .models import Tick

    response: Any = import_module(package).EventSourceResponse
    app = fastapi.FastAPI()

    # Not postponed: FastAPI reads the annotations, and they are local names.
    async def endpoint(request):  # type: ignore[no-untyped-def]
        async for x in sources.open(request.scope):
            yield x

    async def ticks(request):  # type: ignore[no-untyped-def]
        async for x in sources.open(request.scope):
            yield x

    endpoint.__annotations__ = {"request": fastapi.Request}
    ticks.__annotations__ = {"request": fastapi.Request, "return": AsyncIterator[Tick]}
    app.get("/models", response_class=response)(ticks)
    app.get("/{path}", response_class=response)(endpoint)
    return app


def litestar(sources: Sources) -> ASGIApp:
    """
    A handler that returns Litestar's ServerSentEvent.
    """
    from litestar import Litestar, Request, get
    from litestar.response import ServerSentEvent

    async def endpoint(request, path):  # type: ignore[no-untyped-def]
        return ServerSentEvent(sources.open(request.scope))

    endpoint.__annotations__ = {"request": Request, "path": str, "return": ServerSentEvent}
    return Litestar([get("/{path:str}")(endpoint)])


def _asgi(name: str, make: Callable[[Sources], ASGIApp], *distributions: str) -> Contestant:
    def missing() -> str | None:
        try:
            make(Sources())
        except ImportError as error:
            return str(error)
        return None

    return Contestant(name, make, distributions, missing=missing)


def _aiohttp_sse_missing() -> str | None:
    try:
        import aiohttp_sse  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def _better_sse_missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    if not (PEERS / "node_modules" / "better-sse").is_dir():
        return "run: npm install --prefix benchmarks/peers"
    return None


NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def _nchan_missing() -> str | None:
    if shutil.which("nginx") is None or not NCHAN_MODULE.exists():
        return "nginx with libnginx-mod-nchan is not installed"
    return None


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        _asgi(FLOOR, hand_written),
        _asgi(OURS, ours, "asgi-sse"),
        _asgi(OURS_CHANNEL, ours_channel, "asgi-sse"),
        _asgi("Starlette StreamingResponse", starlette, "starlette"),
        _asgi("sse-starlette", sse_starlette, "sse-starlette"),
        _asgi(
            "asgi_sse.starlette",
            partial(sse_starlette, package="asgi_sse.starlette"),
            "asgi-sse",
            "starlette",
        ),
        _asgi("fastapi.sse", fastapi, "fastapi"),
        _asgi(
            "asgi_sse.fastapi", partial(fastapi, package="asgi_sse.fastapi"), "asgi-sse", "fastapi"
        ),
        _asgi("Litestar", litestar, "litestar"),
        Contestant(
            "aiohttp-sse", None, ("aiohttp-sse", "aiohttp"), "aiohttp", _aiohttp_sse_missing
        ),
        Contestant("better-sse (Node)", None, (), "node", _better_sse_missing),
        Contestant("nchan (nginx)", None, (), "nginx", _nchan_missing),
    )
}


def version(distribution: str) -> str:
    """
    Return the version of an installed distribution.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        if distribution != "asgi-sse":
            return "missing"
        # Run from a checkout that is not installed.
        import asgi_sse

        return asgi_sse.__version__
