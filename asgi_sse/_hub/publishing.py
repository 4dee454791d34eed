"""
What a request says that is to be published.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from .._body import Body
from .._event import ServerSentEvent
from .._request import Refused, Request

__all__ = ["LARGEST", "read_event"]

#: Bytes of one event's data. A request is held in memory, and an event by every process.
LARGEST = 1_048_576


async def read_event(
    request: Request, receive: Callable[[], Awaitable[Any]]
) -> ServerSentEvent | None:
    """
    Return the event that a request describes, or ``None`` if the client has left.

    The body is its data, and must be JSON only if the content type says so. Its type is the
    parameter ``event`` of the query, or the header ``Event-Type``.

    Raises:
        Refused: It is no event.

    """
    body = Body(LARGEST)
    # Until it is complete, or too large.
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        if body.take(message):
            break
    data = await body.read()
    if not data:
        raise Refused(400, "The body is the event's data, and it is empty.\n")
    try:
        text = data.decode()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            json.loads(text)
    except UnicodeDecodeError as error:
        raise Refused(400, f"The body must be UTF-8: {error.reason}.\n") from error
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body must be JSON, as its type says: {error}.\n") from error
    try:
        return ServerSentEvent(
            text, event=request.query.get("event") or request.headers.get("event-type")
        )
    except ValueError as error:
        raise Refused(400, f"{error}.\n") from error
