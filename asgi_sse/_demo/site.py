"""
The page at ``/``, the stream at ``/events``, the numbers at ``/statistics``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from anyio import CancelScope

from .._shutdown import statistics
from .announce import announcing
from .page import make_page

__all__ = ["App", "Receive", "Send", "Site", "answer"]

# Wide types, so that every server's own ones fit.
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class Site:
    """
    An ASGI application around another one, which is the stream.

    Args:
        stream: What answers at ``/events``; the lifespan is for it too.
        title: What the page calls it.
        channels: What the page is to offer, if the stream is one of channels.
        publish: Whether the page is to offer to publish in them, at ``/publish/NAME``.

    """

    def __init__(
        self, stream: App, title: str, *, channels: Sequence[str] = (), publish: bool = False
    ) -> None:
        self._stream = stream
        self._page, self._page_headers = make_page(title, channels, publish=publish)
        self._open: set[CancelScope] = set()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """
        Answer one ASGI scope.
        """
        if scope["type"] == "lifespan":
            await self._stream(scope, receive, send)
        elif scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
        elif scope["path"] == "/events":
            await self._events(scope, receive, send)
        elif scope["path"] not in ("/", "/statistics"):
            text = b"Here are / (a page), /events and /statistics only.\n"
            await answer(send, scope, 404, _TEXT, text)
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(send, scope, 405, [*_TEXT, (b"allow", b"GET, HEAD")], b"GET it.\n")
        elif scope["path"] == "/":
            await answer(send, scope, 200, self._page_headers, self._page)
        else:
            numbers = {"time": time.time(), **asdict(statistics())}
            await answer(send, scope, 200, _JSON, json.dumps(numbers).encode())

    def close(self) -> None:
        """
        Cancel every response of the stream.

        A server that stops waits for its responses, but some streams never end,
        and not every application knows of :func:`asgi_sse.drain`.
        """
        for response in self._open:
            response.cancel()

    async def _events(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        # The page asks for what EventSource needs. The stream itself is not to know.
        query = scope.get("query_string", b"").split(b"&")
        if _ANNOUNCE in query:
            query.remove(_ANNOUNCE)
            scope = {**scope, "query_string": b"&".join(query)}
            send = announcing(send)
        with CancelScope() as response:
            self._open.add(response)
            try:
                await self._stream(scope, receive, send)
            finally:
                self._open.remove(response)


_ANNOUNCE = b"announce-event-types="
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]
_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


async def answer(
    send: Send,
    scope: Mapping[str, Any],
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    """
    Answer with a body that is no stream.
    """
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
