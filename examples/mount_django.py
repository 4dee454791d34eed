"""
Event streams with Django: beside it, and returned from an async view.

::

    hypercorn examples/mount_django.py
    curl -N http://127.0.0.1:8000/clock/

This is a project of one file. In yours, what is below ``get_asgi_application()`` stands in
``asgi.py``; the view in ``views.py``::

    curl -N http://127.0.0.1:8000/view/
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import django  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.handlers.asgi import ASGIRequest  # type: ignore[import-untyped]
from django.http import StreamingHttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from asgi_sse import EventStream


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")
django.setup()


async def view(request: ASGIRequest) -> StreamingHttpResponse:
    """
    Return the event stream as a response of Django.
    """
    return StreamingHttpResponse(body_of(clock, request), headers=dict(HEADERS))


HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


async def body_of(stream: EventStream, request: ASGIRequest) -> AsyncIterator[bytes]:
    """
    Run an event stream within a response that Django sends.
    """
    send_body, body = anyio.create_memory_object_stream[bytes](0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await send_body.send(message["body"])

    async def run() -> None:
        async with send_body:
            # Django has read the request, and cancels this when the client leaves.
            await stream(request.scope, anyio.sleep_forever, send)

    async with anyio.create_task_group() as tasks, body:
        tasks.start_soon(run)
        async for part in body:
            yield part


urlpatterns = [path("view/", view)]
django_app = get_asgi_application()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """
    Serve the event stream at its path, and Django at all others.
    """
    # Behind a proxy all of this may be at a path of its own.
    path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
    if scope["type"] == "lifespan" or path.startswith("/clock"):
        await clock(scope, receive, send)
    else:
        await django_app(scope, receive, send)
