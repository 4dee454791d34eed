"""
One event stream behind middleware: ``GET /NAME/sub/clock`` is it behind that of the name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import brotli_asgi
import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

import asgi_sse
from asgi_sse import EventStream
from asgi_sse.starlette import EventSourceResponse

sentry_sdk.init()


async def source(request: asgi_sse.Request) -> AsyncIterator[str]:
    try:
        yield request.scope["root_path"]
        while True:
            # Enough that whoever collects before it compresses would be seen to.
            yield "x" * 600
            await anyio.sleep(0.05)
    finally:
        await anyio.sleep(0.01)
        print("The client has left.", flush=True)


def drop_in(request: Request) -> EventSourceResponse:
    return EventSourceResponse(source(asgi_sse.Request(request.scope, None)))  # type: ignore[arg-type]


class PassOn(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response


def four(app: Any) -> Any:
    return PassOn(PassOn(PassOn(PassOn(app))))


MIDDLEWARE: dict[str, Callable[[Any], Any]] = {
    "none": lambda app: app,
    "base-http": PassOn,
    "base-http-four-deep": four,
    "gzip": GZipMiddleware,
    "cors": lambda app: CORSMiddleware(app, allow_origins=["https://example.org"]),
    "brotli": brotli_asgi.BrotliMiddleware,
    "session": lambda app: SessionMiddleware(app, secret_key="only a test"),
    "opentelemetry": OpenTelemetryMiddleware,
    "sentry": SentryAsgiMiddleware,
}

inner = Starlette(
    routes=[
        Mount("/clock", EventStream(source)),
        Mount("/gzip", EventStream(source, compress=["gzip"])),
        Route("/drop-in", drop_in),
    ]
)

app = Starlette(
    routes=[
        Mount(f"/{name}", Mount("/sub", middleware(inner)))
        for name, middleware in MIDDLEWARE.items()
    ]
)
