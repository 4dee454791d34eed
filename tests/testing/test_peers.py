"""
The kit finds in others what is known of them, and does not find it here.

Each test says what a version does that was measured (November 2026); when a newer one
does better, its line goes.
"""

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import anyio
import fastapi
import fastapi.sse
import httpx
import litestar
import litestar.response
import pytest
import sse_starlette
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asgi_sse import EventStream, Refused, ServerSentEvent
from asgi_sse.testing import (
    CheckFailed,
    Report,
    check_event_stream,
    check_source_cleanup,
    connect,
)
from bare import App, clock

# Litestar and sse-starlette run parts of themselves in asyncio only.
pytestmark = [pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]

Source = Callable[[], AsyncIterator[Any]]
Make = Callable[[Source], App]


def with_starlette(source: Source) -> App:
    async def endpoint(request: StarletteRequest) -> Response:
        return StreamingResponse(source(), media_type="text/event-stream")

    return Starlette(routes=[Route("/", endpoint)])


def with_sse_starlette(source: Source) -> App:
    async def endpoint(request: StarletteRequest) -> Response:
        return sse_starlette.EventSourceResponse(source())

    return Starlette(routes=[Route("/", endpoint)])


def with_fastapi(source: Source) -> App:
    app = fastapi.FastAPI()
    app.get("/", response_class=fastapi.sse.EventSourceResponse)(source)
    return app


def with_litestar(source: Source) -> App:
    @litestar.get("/")
    async def endpoint() -> litestar.response.ServerSentEvent:
        return litestar.response.ServerSentEvent(source())

    return litestar.Litestar([endpoint], openapi_config=None, logging_config=None)


def with_ours(source: Source) -> App:
    return EventStream(source)


THEIRS = [with_starlette, with_sse_starlette, with_fastapi, with_litestar]
ALL = [*THEIRS, with_ours]


async def found(check: Any, app: App, **options: Any) -> Report:
    """Return the report of a check, failed or not."""
    try:
        report = await check(app, **options)
    except CheckFailed as error:
        report = error.report
    assert isinstance(report, Report)
    return report


def texts(report: Report, check: str) -> str:
    return "\n".join(finding.detail for finding in report.findings if finding.check == check)


def awaiting(cleaned: list[str]) -> Source:
    """Return a source with a cleanup that awaits."""

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "data: x\n\n"
                await anyio.sleep(2)
        finally:
            await anyio.sleep(0.5)
            cleaned.append("cleaned up")

    return source


# M3: cleanup when the client leaves.


@pytest.mark.parametrize("make", ALL)
async def test_awaits_in_finally_are_cancelled(make: Make) -> None:
    cleaned: list[str] = []
    async with connect(make(awaiting(cleaned))) as stream:
        await stream.wait_chunks(1)
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()
        assert cleaned == (["cleaned up"] if make is with_ours else [])

    report = await found(check_source_cleanup, make(awaiting([])))
    assert report.outcome("client leaves") == ("ok" if make is with_ours else "failed")
    assert ("what it awaited there did not happen" in texts(report, "client leaves")) == (
        make is not with_ours
    )


@pytest.mark.parametrize("make", ALL)
async def test_a_generator_at_its_yield_is_left_open(make: Make) -> None:
    report = await found(check_source_cleanup, make(awaiting([])))

    closed = make in (with_sse_starlette, with_ours)
    assert ("was left open at" in texts(report, "slow client leaves")) != closed
    assert report.outcome("slow client leaves") == ("ok" if closed else "failed")


# M1, M2: what a server does when it stops.


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
@pytest.mark.parametrize("make", ALL)
async def test_a_stop_of_the_server_waits_for_ever(make: Make, server: str) -> None:
    async with connect(make(awaiting([])), server=server) as stream:
        await stream.wait_chunks(1)
        await stream.shutdown()
        await anyio.sleep(60)
        assert stream.closed == (make is with_ours)
        assert stream.complete == (make is with_ours)


# M1: "send() after disconnect" is of no help.


async def test_an_app_that_only_sends_never_notices() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b":\n", "more_body": True})
            await anyio.sleep(1)

    async with connect(app, server="uvicorn", lifespan=False) as stream:
        stream.disconnect()
        with pytest.raises(TimeoutError):
            await stream.wait_closed(60)


@pytest.mark.parametrize("make", ALL)
async def test_an_idle_stream_on_a_server_that_raises_is_not_noticed(make: Make) -> None:
    async def idle() -> AsyncIterator[str]:
        yield "data: x\n\n"
        await anyio.sleep_forever()

    async with connect(make(idle), server="raise") as stream:
        await stream.wait_chunks(1)
        stream.disconnect()
        await anyio.sleep(10)

        # They trust ASGI 2.4, and wait for a send() that may never come.
        assert stream.closed == (make not in (with_starlette, with_fastapi))


# M4 and the list: headers, HEAD, keep-alives.


@pytest.mark.parametrize("make", ALL)
async def test_the_checks(make: Make) -> None:
    async def quiet() -> AsyncIterator[Any]:
        yield "x" if make is not with_starlette else "data: x\n\n"
        await anyio.sleep_forever()

    report = await found(check_event_stream, make(quiet))

    connection = "header connection is forbidden in HTTP/2 and 3" in texts(report, "ASGI")
    assert connection == (make in (with_sse_starlette, with_litestar))
    assert (report.outcome("HEAD") == "failed") == (make is with_starlette)
    assert (report.outcome("keep-alive") == "failed") == (make in (with_starlette, with_litestar))
    assert (report.outcome("headers") == "warning") == (make is not with_ours)
    assert report.failed == (make is not with_ours)


# M4: sse-starlette.


@pytest.mark.parametrize("make", [with_sse_starlette, with_ours])
async def test_the_final_chunk_is_lost_to_a_late_request_message(make: Make) -> None:
    async def source() -> AsyncIterator[str]:
        yield "last"

    async def upload() -> AsyncIterator[bytes]:
        await anyio.sleep(2)
        yield b"late"
        await anyio.sleep_forever()

    # The server takes the final chunk only when the client has read.
    def slow_to_end(app: App) -> App:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def slowly(message: Any) -> None:
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    await anyio.sleep(5)
                await send(message)

            await app(scope, receive, slowly)

        return wrapped

    app = slow_to_end(make(source))
    async with connect(app, body=upload(), lifespan=False, timeout=20) as stream:
        await stream.wait_closed()
        assert stream.complete == (make is with_ours)


@pytest.mark.parametrize(
    ("item", "finding"),
    [
        ({"data": {"a": 1}}, "Python's repr() and not JSON"),
        ("data: x\n\n", "framed twice"),
        (None, "is the text 'None'"),
        (sse_starlette.ServerSentEvent("x", id="a\0b"), "an event ID with NUL"),
        (sse_starlette.ServerSentEvent("x", retry=-5), "a retry that is no number"),
        (sse_starlette.ServerSentEvent("x", retry=True), "a retry that is no number"),
    ],
)
async def test_what_sse_starlette_sends(item: Any, finding: str) -> None:
    async def source() -> AsyncIterator[Any]:
        yield item

    report = await found(check_event_stream, with_sse_starlette(source))

    assert finding in texts(report, "format")


@pytest.mark.parametrize("item", [{"data": {"a": 1}}, None])
async def test_what_we_send_of_it(item: Any) -> None:
    async def source() -> AsyncIterator[Any]:
        yield item

    report = await found(check_event_stream, with_ours(source))

    assert report.outcome("format") == "ok"


@pytest.mark.parametrize("fields", [{"id": "a\0b"}, {"retry": -5}, {"retry": True}])
async def test_what_we_do_not_even_make(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        ServerSentEvent("x", **fields)


@pytest.mark.parametrize("item", [{"data": "x", "id": 1}, {"user": "bob"}])
@pytest.mark.parametrize("make", [with_sse_starlette, with_ours])
async def test_items_that_end_the_stream(make: Make, item: dict[str, Any]) -> None:
    async def source() -> AsyncIterator[Any]:
        yield item

    async with connect(make(source)) as stream:
        await stream.read()
        await stream.wait_closed()
        assert (stream.error is None) == (make is with_ours)
        assert len(stream.events) == (make is with_ours)


async def test_sep_is_ignored_for_events() -> None:
    async def source() -> AsyncIterator[Any]:
        yield sse_starlette.ServerSentEvent("x")

    async def endpoint(request: StarletteRequest) -> Response:
        return sse_starlette.EventSourceResponse(source(), sep="\n")

    async with connect(Starlette(routes=[Route("/", endpoint)])) as stream:
        assert await stream.read() == b"data: x\r\n\r\n"


@pytest.mark.parametrize("make", [with_sse_starlette, with_ours])
async def test_a_swallowed_cancellation_holds_the_server(make: Make) -> None:
    released = False

    async def stubborn() -> AsyncIterator[str]:
        yield "x"
        while not released:
            try:
                # In its own time, or the event loop would do nothing but cancel.
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class():
                pass

    async with connect(make(stubborn), cleanup_timeout=math.inf) as stream:
        await stream.wait_chunks(1)
        stream.disconnect()
        await anyio.sleep(60)
        ended = stream.closed
        released = True
        await stream.wait_closed(None)

    assert ended == (make is with_ours)


# M4: FastAPI.


@pytest.mark.parametrize("make", [with_fastapi, with_ours])
async def test_the_event_before_an_error_is_lost(make: Make) -> None:
    async def source() -> AsyncIterator[str]:
        yield "seen"
        raise ZeroDivisionError

    async with connect(make(source)) as stream:
        await stream.wait_closed()
        assert len(stream.events) == (make is with_ours)
        assert isinstance(stream.error, ExceptionGroup) == (make is with_fastapi)


async def test_an_error_before_the_first_event_is_a_200() -> None:
    async def theirs() -> AsyncIterator[str]:
        # Look something up.
        await anyio.sleep(1)
        raise fastapi.HTTPException(403)
        yield "x"

    async def setup() -> AsyncIterable[str]:
        await anyio.sleep(1)
        raise Refused(403)

    async def ours() -> AsyncIterator[str]:
        raise Refused(403)
        yield "x"

    async with connect(with_fastapi(theirs)) as stream:
        await stream.wait_closed()
        assert stream.status == 200
        assert stream.error is not None
    for source in (setup, ours):
        async with connect(EventStream(source)) as response:
            assert response.status == 403


# M4: httpx.


async def test_httpx_hangs_and_this_does_not() -> None:
    transport = httpx.ASGITransport(clock)
    with anyio.move_on_after(3600) as scope:
        async with (
            httpx.AsyncClient(transport=transport, timeout=None) as client,
            client.stream("GET", "http://server/"),
        ):
            pass  # pragma: no cover
    assert scope.cancelled_caught

    async with connect(clock) as stream:
        assert await stream.next_event()
