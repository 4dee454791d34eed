"""
What is served under Starlette and FastAPI while the server stops.

What ``stopping.py`` serves is mounted there, too.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

import asgi_sse.fastapi
import asgi_sse.starlette
import stopping


@asynccontextmanager
async def cleaning_up(path: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await anyio.sleep(0.05)
        sys.stdout.write(f"cleaned up {path}\n")


async def drop_in(request: Request) -> asgi_sse.starlette.EventSourceResponse:
    """
    As it is written for sse-starlette.
    """
    shutting_down = anyio.Event()

    async def source() -> AsyncIterator[str]:
        async with cleaning_up("/drop-in"):
            yield "hello"
            await shutting_down.wait()
            await anyio.sleep(0.05)
            yield "last words"

    return asgi_sse.starlette.EventSourceResponse(
        source(), shutdown_event=shutting_down, shutdown_grace_period=1
    )


plain = FastAPI()
plain.add_route("/drop-in", drop_in)


@plain.get(
    "/path-operation",
    response_class=asgi_sse.fastapi.EventSourceResponse.with_options(farewell=stopping.GOODBYE),
)
async def path_operation(request: asgi_sse.fastapi.StreamRequest) -> AsyncIterator[str]:
    async with cleaning_up("/path-operation"):
        yield "hello"
        await request.wait_closing()
        await anyio.sleep(0.05)
        yield "last words"


plain.mount("/", stopping.app)


async def pass_on(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    return await call_next(request)


#: Behind middleware that hides the server: its messages go through a stream of anyio's.
behind = BaseHTTPMiddleware(GZipMiddleware(plain), pass_on)
