"""
A clock that goes on where a client has left off.

::

    hypercorn examples/01_clock.py
    curl -N http://127.0.0.1:8000/
    curl -N http://127.0.0.1:8000/ -H "Last-Event-ID: $(($(date +%s) - 5))"

The ID of an event says which second it was. A client that was away sends the last ID that
it has seen, as the second ``curl`` does, and gets what it has missed at once.
"""

import time
from collections.abc import AsyncIterator

import anyio

from asgi_sse import Request, ServerSentEvent, event_stream

MOST_MISSED = 60


@event_stream(retry=1000)
async def app(request: Request) -> AsyncIterator[ServerSentEvent]:
    second = next_second(request.last_event_id)
    while True:
        await anyio.sleep(max(0, second - time.time()))
        yield ServerSentEvent(time.ctime(second), id=second)
        second += 1


def next_second(last_event_id: str | None) -> int:
    """
    Return the second to begin with, whatever the client says that it has seen.
    """
    now = int(time.time())
    try:
        seen = int(last_event_id or "")
    except ValueError:
        return now
    return min(max(seen + 1, now - MOST_MISSED), now + 1)
