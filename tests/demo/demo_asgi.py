"""
What the tests of this folder ask an ASGI application, and what comes back.
"""

from typing import Any, NamedTuple

import anyio

from asgi_sse import Request

__all__ = ["Answer", "ask", "make_request", "make_scope"]


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


def make_scope(method: str = "GET", path: str = "/", query: bytes = b"") -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [],
    }


def make_request(last_event_id: str | None = None) -> Request:
    scope: Any = make_scope()
    if last_event_id is not None:
        scope["headers"] = [(b"last-event-id", last_event_id.encode())]
    lifetime: Any = None
    return Request(scope, lifetime)


async def ask(app: Any, method: str = "GET", path: str = "/", query: bytes = b"") -> Answer:
    """
    Return the whole response to a client that stays.
    """
    messages: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not incoming:
            await anyio.sleep_forever()
        return incoming.pop()

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(make_scope(method, path, query), receive, send)
    start, *chunks = messages
    body = b"".join(chunk["body"] for chunk in chunks)
    return Answer(start["status"], dict(start["headers"]), body)
