import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import asgi_sse
from asgi import Server, http_scope
from asgi_sse import EventStream, Refused, Request, ServerSentEvent, drain
from asgi_sse._options import Closed, OpenStream
from asgi_sse._statistics import Statistics
from asgi_sse.testing import connect

OPEN = b":\n\n"


async def two() -> AsyncIterator[str]:
    yield "a"
    yield "b"
    await anyio.sleep_forever()


async def any_way(request: Request) -> Any:
    """
    End as the query says.
    """
    match request.query.get("end"):
        case "refused":
            raise Refused(403)
        case "error":
            raise LookupError
    return lasting(request)


async def lasting(request: Request) -> AsyncIterator[str]:
    yield "a"
    match request.query.get("end"):
        case "late-error":
            raise LookupError
        case "closed":
            request.close()
        case "finished":
            return
    await anyio.sleep_forever()


def numbers(statistics: Statistics) -> dict[str, Any]:
    """
    Return those that are not nothing.
    """
    found = {name: value for name, value in asdict(statistics).items() if value}
    found["closed"] = {reason: count for reason, count in statistics.closed.items() if count}
    return {name: value for name, value in found.items() if value}


async def test_at_first_there_is_nothing_but_every_reason() -> None:
    statistics = EventStream(two).statistics()

    assert numbers(statistics) == {}
    assert list(statistics.closed) == [
        "finished",
        "client",
        "shutdown",
        "send_timeout",
        "max_age",
        "expired",
        "revoked",
        "closed",
        "error",
        "refused",
    ]
    assert asgi_sse.statistics() == statistics


async def test_open_streams_count_with_what_they_have_sent() -> None:
    app = EventStream(two)
    async with connect(app) as one, connect(app) as other:
        await one.take(2)
        await other.take(2)
        size = len(OPEN + b"data: a\n\ndata: b\n\n")

        assert numbers(app.statistics()) == {
            "open": 2,
            "opened": 2,
            "events": 4,
            "bytes": 2 * size,
        }
        one.disconnect()
        await one.wait_closed()

        assert numbers(app.statistics()) == {
            "open": 1,
            "opened": 2,
            "closed": {"client": 1},
            "events": 4,
            "bytes": 2 * size,
        }


async def test_streams_that_are_over_count_by_what_on_close_is_told() -> None:
    ends: list[Closed] = []
    app = EventStream(any_way, on_close=ends.append)
    ways = ["refused", "error", "late-error", "closed", "finished"]
    for way in ways:
        server = Server()
        try:
            await server.call(app, http_scope(query_string=f"end={way}".encode()))
        except LookupError:
            pass
    statistics = app.statistics()

    assert numbers(statistics) == {
        "opened": 5,
        "closed": {"refused": 1, "error": 2, "closed": 1, "finished": 1},
        "events": 3,
        "bytes": sum(end.bytes for end in ends),
    }
    assert statistics.opened == statistics.open + sum(statistics.closed.values())
    # Of the event loop they are the only ones.
    assert asgi_sse.statistics() == statistics


async def test_an_app_knows_its_own_streams_and_the_event_loop_all() -> None:
    one, other = EventStream(two), EventStream(two)
    async with connect(one), connect(other), connect(other):
        await anyio.sleep(1)

        assert (one.statistics().open, other.statistics().open) == (1, 2)
        assert asgi_sse.statistics().open == 3


async def test_a_client_that_takes_nothing_lags() -> None:
    app = EventStream(two, keep_alive=2)
    async with connect(app) as quick, connect(app) as slow, connect(app) as slower:
        await anyio.sleep(1)
        slower.stall()
        await anyio.sleep(2)
        slow.stall()
        await anyio.sleep(6)
        await quick.take(2)
        statistics = app.statistics()

        assert statistics.send_waits == 2
        # A keep-alive was due at 2, and is not taken since.
        assert statistics.longest_lag == 7


async def test_requests_that_become_no_stream_are_turned_away() -> None:
    app = EventStream(two, end="stop")
    finished = http_scope(headers=[(b"last-event-id", b"asgi-sse-finished:3")])
    await Server().call(app, finished)

    assert numbers(app.statistics()) == {"turned_away": 1}

    async def ten_seconds() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(10)

    lasting = EventStream(ten_seconds, on_shutdown="finish")
    async with connect(lasting), anyio.create_task_group() as group:
        group.start_soon(drain)
        await anyio.sleep(1)
        await Server().call(app, http_scope())

    assert numbers(app.statistics()) == {"turned_away": 2}
    assert asgi_sse.statistics().turned_away == 2


# Observing.


class Observer:
    """
    Notes what it is told.
    """

    def __init__(self) -> None:
        self.streams: list[OpenStream] = []
        self.ends: list[Closed] = []

    def __call__(self, stream: OpenStream) -> Callable[[Closed], None]:
        assert stream.status is None
        self.streams.append(stream)
        return self.ends.append


async def test_an_observer_sees_a_stream_from_its_beginning_to_its_end() -> None:
    observer = Observer()

    async def source(request: Request) -> Any:
        request.meta["user"] = "ada"
        assert len(observer.streams) == 1
        return two()

    async with connect(EventStream(source, observe=observer)) as stream:
        await stream.take(2)
        [seen] = observer.streams

        assert seen.source.endswith("<locals>.source")
        assert seen.request.meta == {"user": "ada"}
        assert (seen.status, seen.sent_events, seen.sent_bytes, seen.lag) == (200, 2, 21, 0)
        assert observer.ends == []
        await anyio.sleep(9)

    assert observer.ends == [Closed("client", 9, 2, 21, None, {"user": "ada"})]


async def test_an_observer_that_fails_ends_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> Any:
        raise LookupError

    for observe in (fail, lambda _: fail):
        async with connect(EventStream(two, observe=observe)) as stream:
            assert await stream.take(2) == [ServerSentEvent("a"), ServerSentEvent("b")]

    records = [record for record in caplog.records if record.name == "asgi_sse"]
    assert [record.getMessage() for record in records] == [
        "observe of test_statistics.two raised"
    ] * 2
    assert all(record.exc_info for record in records)


async def test_the_end_of_a_stream_is_logged_for_who_looks_closely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "asgi_sse"):
        async with connect(EventStream(two)) as stream:
            await stream.take(2)
            await anyio.sleep(1.5)

    assert [(record.levelname, record.getMessage()) for record in caplog.records[-1:]] == [
        (
            "DEBUG",
            "test_statistics.two is closed: client after 1.500 s, 2 events, 21 bytes",
        )
    ]
