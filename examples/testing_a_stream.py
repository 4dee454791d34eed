"""
An event stream and the tests that most people want for theirs: copy them.

Run them with ``pytest testing_a_stream.py``; nothing waits, and no server is started.
"""

from collections.abc import AsyncIterator

import anyio
import pytest

from asgi_sse import Request, ServerSentEvent, event_stream
from asgi_sse.testing import check_event_stream, check_source_cleanup, connect

watching: set[str] = set()


@event_stream(keep_alive=15)
async def clock(request: Request) -> AsyncIterator[ServerSentEvent]:
    minute = int(request.last_event_id or 0)
    name = request.query.get("name", "someone")
    watching.add(name)
    try:
        while True:
            minute += 1
            yield ServerSentEvent(f"minute {minute}", id=minute)
            await anyio.sleep(60)
    finally:
        # Such as giving back a database connection, which waits too.
        await anyio.sleep(0.1)
        watching.discard(name)


pytestmark = pytest.mark.anyio


async def test_events_and_keep_alives(autojump: None) -> None:
    async with connect(clock, "/", timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert await stream.take(2) == [
            ServerSentEvent("minute 1", id=1),
            ServerSentEvent("minute 2", id=2),
        ]
        # All that comes after the first event, and the second at which it comes.
        assert stream.chunks[-4:] == [
            (15, b":\n"),
            (30, b":\n"),
            (45, b":\n"),
            (60, b"id: 2\ndata: minute 2\n\n"),
        ]


async def test_cleanup_when_the_client_leaves(autojump: None) -> None:
    async with connect(clock, "/", query={"name": "Ada"}) as stream:
        await stream.next_event()
        assert watching == {"Ada"}

        stream.disconnect()
        await stream.wait_closed(timeout=1)
        assert watching == set()
        assert stream.error is None

    # Or let the kit find out what is left open or cut short.
    await check_source_cleanup(clock, max_silence=60)


async def test_a_client_that_reconnects_gets_what_it_missed(autojump: None) -> None:
    async with connect(clock, "/") as stream:
        await stream.next_event()

        assert await stream.reconnect()
        assert await stream.next_event() == ServerSentEvent("minute 2", id=2)


async def test_that_it_is_a_good_event_stream(autojump: None) -> None:
    await check_event_stream(clock, "/")
