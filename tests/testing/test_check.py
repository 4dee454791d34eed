"""
The checks find what is wrong, and nothing where all is well.
"""

import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse.testing import (
    CheckFailed,
    Finding,
    Report,
    check_event_stream,
    check_source_cleanup,
)
from asgi_sse.testing._wire import inspect
from bare import HEADERS, App, body, clock, start, streaming, ticks

Check = Callable[..., Any]


async def found(check: Check, app: App, **options: Any) -> Report:
    """Return the report of a check, failed or not."""
    try:
        report = await check(app, "/", lifespan=False, **options)
    except CheckFailed as error:
        report = error.report
        assert report.failed
    else:
        assert not report.failed
    assert isinstance(report, Report)
    return report


def bad(report: Report) -> list[tuple[str, str]]:
    """Return the checks that found something."""
    return list(
        dict.fromkeys(
            (finding.check, finding.outcome)
            for finding in report.findings
            if finding.outcome in ("failed", "warning")
        )
    )


@pytest.fixture
def good() -> EventStream:
    async def source(request: Request) -> AsyncIterator[ServerSentEvent]:
        number = int(request.last_event_id or 0)
        try:
            while True:
                number += 1
                yield ServerSentEvent(f"tick {number}", id=number)
                await anyio.sleep(20)
        finally:
            await anyio.sleep(0.5)

    return EventStream(source)


# Where all is well.


async def test_ours_is_a_good_event_stream(good: EventStream) -> None:
    report = await check_event_stream(good)

    assert {finding.outcome for finding in report.findings} == {"ok"}
    assert [finding.check for finding in report.findings] == [
        "response",
        "headers",
        "opens",
        "keep-alive",
        "format",
        "client leaves",
        "slow client leaves",
        "cancellation",
        "resuming",
        "HEAD",
        "ASGI",
    ]


async def test_ours_cleans_up(good: EventStream) -> None:
    report = await check_source_cleanup(good)

    assert report.findings == [
        Finding(check, "ok", "1 async generator closed, and the app ended after 0.5 s")
        for check in ("client leaves", "slow client leaves", "cancellation")
    ]


async def test_what_cannot_be_told_is_skipped() -> None:
    report = await found(check_event_stream, streaming(partial(ticks, interval=5)), watch=20)
    assert bad(report) == []
    assert report.outcome("keep-alive") == "skipped"

    async def short(scope: Any) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"

    report = await found(check_event_stream, streaming(short))
    assert bad(report) == []
    assert report.outcome("keep-alive") == "skipped"
    assert report.outcome("slow client leaves") == "skipped"
    assert report.outcome("resuming") == "skipped"
    report = await found(check_source_cleanup, streaming(short))
    assert {finding.outcome for finding in report.findings} == {"skipped"}


async def test_a_post_is_not_asked_with_head() -> None:
    report = await found(check_event_stream, clock, method="POST", watch=3)

    assert "HEAD" not in [finding.check for finding in report.findings]


# What may be wrong.


async def test_no_event_stream() -> None:
    async def missing(scope: Any, receive: Any, send: Any) -> None:
        await start(send, status=404, headers=[])
        await body(send, b"", more=False)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    for app in (missing, broken):
        report = await found(check_event_stream, app)
        assert bad(report) == [("response", "failed")]
        assert len(report.findings) == 1


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ([(b"content-type", b"text/event-stream; charset=latin-1"), *HEADERS[1:]], "response"),
        ([HEADERS[0], HEADERS[2]], "headers"),
        ([HEADERS[0], (b"cache-control", b"no-cache"), HEADERS[2]], "headers"),
        (HEADERS[:2], "headers"),
    ],
)
async def test_headers_that_invite_trouble(headers: Any, outcome: str) -> None:
    report = await found(check_event_stream, streaming(ticks, headers), watch=3)

    assert bad(report) == [(outcome, "warning")]


async def test_a_stream_that_is_silent() -> None:
    async def silent(scope: Any) -> AsyncIterator[bytes]:
        await anyio.sleep_forever()
        yield b""  # pragma: no cover

    report = await found(check_event_stream, streaming(silent))

    assert bad(report) == [("opens", "failed"), ("keep-alive", "failed")]
    assert report.outcome("slow client leaves") == "skipped"


async def test_a_format_that_clients_do_not_read() -> None:
    async def wrong(scope: Any) -> AsyncIterator[bytes]:
        yield b"datta: 1\n\n"
        await anyio.sleep_forever()

    report = await found(check_event_stream, streaming(wrong))

    assert ("format", "failed") in bad(report)


async def test_a_source_that_fails() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\n")
        raise ZeroDivisionError

    report = await found(check_event_stream, app)

    assert ("source", "failed") in bad(report)


async def test_an_app_that_does_not_notice_that_the_client_has_left() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        if scope["method"] == "HEAD":
            await body(send, b"", more=False)
            return
        while True:
            await body(send, b":\n")
            await anyio.sleep(20)

    report = await found(check_event_stream, app)
    assert bad(report) == [("client leaves", "failed"), ("slow client leaves", "failed")]

    report = await found(check_source_cleanup, app)
    assert bad(report) == [("client leaves", "failed"), ("slow client leaves", "failed")]
    assert report.findings[2].detail.startswith("0 async generators closed")


async def test_an_app_that_takes_its_time() -> None:
    async def slow() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await anyio.sleep(1)
        finally:
            await anyio.sleep(3)

    report = await found(check_event_stream, EventStream(slow), watch=3)

    assert bad(report) == [("client leaves", "warning"), ("slow client leaves", "warning")]


async def test_an_app_that_fails_when_the_client_leaves() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\n")
        await receive()
        await receive()
        raise ZeroDivisionError

    report = await found(check_event_stream, app)

    assert report.outcome("client leaves") == "failed"


async def test_an_app_that_does_not_hear_a_cancellation() -> None:
    deaf = True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        with anyio.CancelScope(shield=True):
            while deaf:
                await body(send, b":\n")
                await anyio.sleep(20)

    async def hear() -> None:
        nonlocal deaf
        await anyio.sleep(3600)
        deaf = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hear)
        report = await found(check_event_stream, app, cleanup_timeout=1)

    assert report.outcome("client leaves") == "failed"
    # asyncio's cancel() knows no shield.
    assert report.outcome("HEAD") == "failed"


async def test_a_stream_that_does_not_resume() -> None:
    def again(scope: Any) -> AsyncIterator[bytes]:
        return ticks({"headers": []})

    def elsewhere(scope: Any) -> AsyncIterator[bytes]:
        resumed = b"last-event-id" in dict(scope["headers"])
        return ticks({"headers": [(b"last-event-id", b"7")] if resumed else []})

    async def silent(scope: Any) -> AsyncIterator[bytes]:
        yield b":\n"
        await anyio.sleep_forever()

    def nothing(scope: Any) -> AsyncIterator[bytes]:
        return (silent if b"last-event-id" in dict(scope["headers"]) else ticks)(scope)

    async def refused(scope: Any, receive: Any, send: Any) -> None:
        if b"last-event-id" in dict(scope["headers"]):
            raise ZeroDivisionError
        await clock(scope, receive, send)

    report = await found(check_event_stream, streaming(again), watch=3)
    assert bad(report) == [("resuming", "failed")]
    report = await found(check_event_stream, streaming(elsewhere), watch=3)
    assert bad(report) == [("resuming", "warning")]
    report = await found(check_event_stream, streaming(nothing), watch=3)
    assert report.outcome("resuming") == "skipped"
    report = await found(check_event_stream, refused, watch=3)
    assert bad(report) == [("resuming", "failed")]


async def test_head() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await clock({**scope, "method": "GET"}, receive, send)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "HEAD":
            raise ZeroDivisionError
        await clock(scope, receive, send)

    for app in (endless, broken):
        report = await found(check_event_stream, app, watch=3)
        assert bad(report) == [("HEAD", "failed")]


async def test_what_asgi_forbids() -> None:
    headers = [*HEADERS, (b"connection", b"keep-alive")]
    report = await found(check_event_stream, streaming(ticks, headers), watch=3)
    assert bad(report) == [("ASGI", "failed")]

    async def impatient(scope: Any, receive: Any, send: Any) -> None:
        async def receive_in_pieces() -> Any:
            while True:
                with anyio.move_on_after(0.3):
                    return await receive()

        await clock(scope, receive_in_pieces, send)

    report = await found(check_event_stream, impatient, watch=3)
    assert bad(report) == [("ASGI", "warning")]


# What becomes of generators.


def plain(source: Callable[[], AsyncIterator[bytes]]) -> App:
    """Return an app as most frameworks have it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await start(send)
            # One that is over is no trouble.
            async for chunk in opening():
                await body(send, chunk)
            async for chunk in source():
                await body(send, chunk)

    return app


async def opening() -> AsyncIterator[bytes]:
    """Yield the opening comment."""
    yield b":\n\n"


async def waiting() -> AsyncIterator[bytes]:
    """Clean up with an await."""
    try:
        while True:
            yield b"data: 1\n\n"
            await anyio.sleep(2)
    finally:
        await anyio.sleep(0.5)


async def test_cleanup_that_is_cancelled_and_a_generator_that_is_left_open(
    anyio_backend_name: str,
) -> None:
    report = await found(check_source_cleanup, plain(waiting))

    line = waiting.__code__.co_firstlineno
    cut = (
        f"the cleanup of waiting was cancelled at test_check.py:{line + 7}: "
        "what it awaited there did not happen"
    )
    left = (
        f"waiting was left open at test_check.py:{line + 4}: its finally runs when the "
        "garbage collector finds it, in another task"
    )
    assert report.findings == [
        Finding("client leaves", "failed", cut),
        Finding("slow client leaves", "failed", left),
        # asyncio's servers cancel once, so that the cleanup goes on.
        Finding("cancellation", "failed", cut)
        if anyio_backend_name == "trio"
        else Finding(
            "cancellation", "ok", "2 async generators closed, and the app ended after 0.5 s"
        ),
    ]


async def test_cleanup_that_takes_too_long(anyio_backend_name: str) -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await anyio.sleep(1)
        finally:
            await anyio.sleep(100)

    app = EventStream(source, cleanup_timeout=50)
    report = await found(check_source_cleanup, app, cleanup_timeout=1)

    assert report.outcome("client leaves") == "failed"
    assert "the app did not end within 1 s" in str(report)


async def test_the_tracing_function_is_given_back(good: EventStream) -> None:
    before = sys.gettrace()
    await check_source_cleanup(good)

    assert sys.gettrace() is before


# The format.


@pytest.mark.parametrize(
    ("wire", "found"),
    [
        (b": hello\nid: 1\nretry: 5\nevent: x\ndata\n\n:\n", []),
        (b"\xef\xbb\xbfdata: 1\r\ndata: 2\rdata: 3\n\n", []),
        (b'data: {"a": 1}\n\ndata: [1]\n\ndata: {"\n\ndata: {broken}\n\n', []),
        (b"id: 7\n\n", []),
        (b"data: \xff\n\n", ["failed: not UTF-8: 'utf-8' codec can't decode byte 0xff in"]),
        (b"\nhello\n\n", ["failed: line 2 is no field that clients know, and is ignored: b'hel"]),
        (b"id: a\0b\n\n", ["failed: line 1 has an event ID with NUL, which is ignored: b'a"]),
        (b"retry: 1.5\n\n", ["failed: line 1 has a retry that is no number, which is ignored"]),
        (b"event: x\n\n", ["warning: line 2 ends an event without data, which clients do not"]),
        (
            b"id: 1\ndata: 1\n\n: ping\n\n",
            ["warning: line 5 is a blank line after a comment, where some clients that have se"],
        ),
        (b": ping\n\nid: 1\ndata: 1\n\n", []),
        (b"data: data: x\n\n", ["warning: line 2 ends data that looks framed twice: 'data: x'"]),
        (b"data: None\n\n", ["warning: line 2 ends data that is the text 'None'"]),
        (
            b"data: {'a': 1}\n\n",
            ["warning: line 2 ends data that is Python's repr() and not JSON: \"{'a': 1}\""],
        ),
        (b"data: 1\n", ["failed: the last event has no blank line after it, and is lost"]),
        (b"data: 1", ["failed: the last event has no blank line after it, and is lost"]),
    ],
)
def test_format(wire: bytes, found: list[str]) -> None:
    got = [f"{outcome}: {detail}" for outcome, detail in inspect(wire, complete=True)]

    assert len(got) == len(found)
    assert all(one.startswith(other) for one, other in zip(got, found, strict=True)), got


# Reports.


def test_a_report_reads_well() -> None:
    report = Report("event stream /events")
    report.add("response", "ok", "200 text/event-stream")
    report.add("response", "ok", "200 text/event-stream")
    report.add("HEAD", "failed", "streams for ever; " + "and ever " * 12)
    report.add("keep-alive", "skipped", "the response ended")

    assert str(report).splitlines() == [
        "event stream /events",
        "",
        "  ok       response    200 text/event-stream",
        f"  FAILED   HEAD        streams for ever; {'and ever ' * 6}and",
        f"                       ever{' and ever' * 5}",
        "  skipped  keep-alive  the response ended",
        "",
        "1 failed, 0 warning, 1 ok, 1 skipped",
    ]
    with pytest.raises(CheckFailed, match=r"^event stream /events\n\n  ok ") as caught:
        report.raise_if_failed()
    assert caught.value.report is report
    assert report.outcome("HEAD") == "failed"
    assert report.outcome("nothing") == "skipped"
