"""
The same client, for tests without async.
"""

from typing import Any

import anyio
import pytest

from asgi_sse import ServerSentEvent
from asgi_sse.testing import connect_sync
from bare import body, clock, slow_clock, start


def tick(number: int) -> ServerSentEvent:
    return ServerSentEvent(f"tick {number}", id=number)


def test_events_without_async() -> None:
    with connect_sync(clock, "/", autojump=True) as stream:
        assert stream.status == 200
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.next_event() == tick(1)
        assert stream.take(2) == [tick(2), tick(3)]
        stream.sleep(10)
        assert len(stream.events) == 13
        assert stream.chunks[-1] == (12, b"id: 13\ndata: tick 13\n\n")
        assert stream.last_event_id == "13"
        assert stream.reconnection_time == 3000
        assert stream.comments == [""]
        assert stream.problems == []
        assert len(stream.messages) == len(stream.chunks) + 1
        assert not stream.complete
        assert not stream.closed
        stream.disconnect()
        stream.wait_closed()
        assert stream.closed
        assert stream.error is None


def test_what_only_a_test_can_do_without_async() -> None:
    with connect_sync(clock, autojump=True) as stream:
        stream.next_event()
        stream.stall()
        stream.wait_blocked()
        stream.sleep(10)
        assert stream.events == [tick(1)]
        stream.resume()
        assert len(stream.wait_chunks(3)) == 3
        assert stream.next_event() == tick(2)
        assert stream.reconnect()
        assert stream.next_event() == tick(3)
        stream.cancel()
        stream.wait_closed()
        assert stream.reconnect()
        stream.shutdown()
        stream.wait_closed()


def test_iteration_without_async() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\ndata: 2\n\n", more=False)

    with connect_sync(app, lifespan=False) as stream:
        assert [event.data for event in stream] == ["1", "2"]
        assert stream.read() == stream.body == b"data: 1\n\ndata: 2\n\n"


def test_errors_without_async() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        raise ZeroDivisionError("broken")

    with connect_sync(slow_clock, autojump=True) as stream:
        stream.next_event()
        with pytest.raises(TimeoutError, match="no event within 1 s"):
            stream.next_event(timeout=1)
    with pytest.raises(KeyError, match="mine"), connect_sync(clock):
        raise KeyError("mine")
    with pytest.raises(ZeroDivisionError, match="broken"), connect_sync(broken) as stream:
        stream.wait_closed()
    with connect_sync(broken) as stream:
        with pytest.raises(anyio.EndOfStream):
            stream.next_event()
        assert isinstance(stream.error, ZeroDivisionError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_not_in_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="use connect\\(\\) there"), connect_sync(clock):
        pass  # pragma: no cover


@pytest.mark.real_time
def test_time_passes_only_while_the_test_waits() -> None:
    with connect_sync(clock) as stream:
        assert stream.next_event(timeout=1) == tick(1)
        with pytest.raises(TimeoutError):
            stream.next_event(timeout=0.01)
