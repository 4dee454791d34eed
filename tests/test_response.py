import asyncio
import contextvars
import gc
import math
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from asgi import NO_BODY, Server, count_tasks, http_scope, in_asyncio, left_alone, run, stepping
from asgi_sse import EventStream, Refused, Request, ServerSentEvent, drain
from asgi_sse._options import Closed
from asgi_sse._response import Response
from asgi_sse._runtime import current_runtime
from asgi_sse.testing import Stream, Temper, connect

OPEN = b":\n\n"


class Boom(Exception):
    pass


@pytest.fixture(autouse=True)
def no_longest_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let a slow machine cut no chunk in two.
    """
    monkeypatch.setattr("asgi_sse._pump.monotonic", lambda: 0.0)


async def answer(app: Any, **options: Any) -> Stream:
    """
    Call an app, and return what a patient client has got when it is over.
    """
    async with connect(app, timeout=None, **options) as stream:
        await stream.wait_closed()
        assert stream.problems == []
        # Seen, and for the caller to judge.
        _ = stream.error
    return stream


async def forever() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asgi_sse"]


# What the client gets.


async def test_items_that_are_there_are_sent_at_once_and_in_order() -> None:
    async def source() -> AsyncIterator[Any]:
        for n in range(4):
            yield n
        await anyio.sleep(1)
        yield "four"
        yield ServerSentEvent("five", id=5)
        await anyio.sleep(1)

    stream = await answer(EventStream(source))

    assert stream.chunks == [
        (0, b":\n\ndata: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"),
        (1, b"data: four\n\nid: 5\ndata: five\n\n"),
    ]
    assert stream.messages[-1] == {
        "type": "http.response.body",
        "body": b"",
        "more_body": False,
    }
    assert stream.error is None


async def test_a_lone_event_is_sent_at_once() -> None:
    async def source() -> AsyncIterator[int]:
        for n in range(3):
            await anyio.sleep(1)
            yield n

    stream = await answer(EventStream(source))

    assert stream.chunks == [
        (0, OPEN),
        (1, b"data: 0\n\n"),
        (2, b"data: 1\n\n"),
        (3, b"data: 2\n\n"),
    ]


async def test_no_events_are_an_event_stream_too() -> None:
    async def source() -> AsyncIterator[int]:
        return
        yield

    stream = await answer(EventStream(source))

    assert stream.chunks == [(0, OPEN)]
    assert stream.complete


async def test_without_a_buffer_the_source_goes_on_when_its_item_was_sent() -> None:
    sent: list[int] = []

    async def source() -> AsyncIterator[str]:
        for text in "abc":
            yield text
            sent.append(len(server.sent))

    server = Server()
    await server.call(EventStream(source, buffer_size=0))

    # The start, the opening with the first, and then one by one.
    assert sent == [2, 3, 4]
    assert [message.get("body") for message in server.sent] == [
        None,
        b":\n\ndata: a\n\n",
        b"data: b\n\n",
        b"data: c\n\n",
        b"",
    ]


async def test_a_source_waits_when_the_buffer_is_full() -> None:
    yielded: list[int] = []

    async def source() -> AsyncIterator[int]:
        await anyio.sleep(2)
        for n in range(10):
            yielded.append(n)
            yield n

    # Each is nine bytes: 27 are more than the buffer may hold.
    app = EventStream(source, buffer_size=20, send_timeout=None)
    async with connect(app, timeout=None) as stream:
        await anyio.sleep(1)
        stream.stall()
        await anyio.sleep(100)

        # They are being sent, and count until that is done.
        assert yielded == [0, 1, 2]

        stream.resume()
        await stream.wait_closed()

    assert yielded == list(range(10))
    assert stream.chunks[1:] == [
        (101, b"data: 0\n\ndata: 1\n\ndata: 2\n\n"),
        (101, b"data: 3\n\ndata: 4\n\ndata: 5\n\n"),
        (101, b"data: 6\n\ndata: 7\n\ndata: 8\n\n"),
        (101, b"data: 9\n\n"),
    ]


async def test_keep_alive_is_sent_only_in_silence() -> None:
    async def source() -> AsyncIterator[int]:
        for seconds in (14, 14, 40, 2):
            await anyio.sleep(seconds)
            yield seconds

    stream = await answer(EventStream(source))

    assert stream.chunks == [
        (0, OPEN),
        (14, b"data: 14\n\n"),
        (28, b"data: 14\n\n"),
        (43, b":\n"),
        (58, b":\n"),
        (68, b"data: 40\n\n"),
        (70, b"data: 2\n\n"),
    ]


async def test_keep_alive_can_be_turned_off() -> None:
    async def source() -> AsyncIterator[int]:
        await anyio.sleep(1000)
        yield 1

    stream = await answer(EventStream(source, keep_alive=None))

    assert stream.chunks == [(0, OPEN), (1000, b"data: 1\n\n")]


async def test_keep_alive_waits_for_a_client_that_does_not_read() -> None:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(2)
        yield "a"
        await anyio.sleep(30)

    async with connect(EventStream(source), timeout=None) as stream:
        await anyio.sleep(1)
        stream.stall()
        await anyio.sleep(20)
        stream.resume()
        await stream.wait_closed()

    assert stream.chunks == [(0, OPEN), (21, b"data: a\n\n")]


@pytest.mark.parametrize("as_function", [True, False])
async def test_a_keep_alive_event_replaces_the_comment(as_function: bool) -> None:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(2)
        yield "a"

    event = ServerSentEvent("", event="alive")
    app = EventStream(
        source, keep_alive=1.5, keep_alive_event=(lambda: event) if as_function else event
    )
    stream = await answer(app)

    assert stream.chunks == [(0, OPEN), (1.5, b"event: alive\ndata: \n\n"), (2, b"data: a\n\n")]


@pytest.mark.parametrize("made", [Boom, lambda: "no event"])
async def test_a_keep_alive_event_that_cannot_be_made_leaves_the_comment(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Any:
        if made is Boom:
            raise Boom
        return made()

    async with connect(EventStream(forever, keep_alive_event=make)) as stream:
        await anyio.sleep(20)

    assert stream.chunks == [(0, OPEN + b"data: a\n\n"), (15, b":\n")]
    assert logged(caplog) == [f"keep_alive_event of {__name__}.forever raised"]


async def test_the_opening_tells_the_reconnection_time() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    stream = await answer(EventStream(source, retry=3000))

    assert stream.body == b":\nretry: 3000\ndata: a\n\n"


async def test_the_headers_are_those_of_an_event_stream() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    app = EventStream(source)
    stream = await answer(app)

    assert stream.messages[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
        ],
        "trailers": False,
    }

    # Middleware adds to the list that it is given.
    stream.messages[0]["headers"].append((b"x-mine", b"1"))
    stream = await answer(app)

    assert "x-mine" not in stream.headers


async def test_headers_and_status_can_be_others() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    headers = {"Cache-Control": "public, max-age=29", "x-accel-buffering": None, "X-More": "1"}
    stream = await answer(EventStream(source, headers=headers, status=201))

    assert stream.status == 201
    assert stream.messages[0]["headers"] == [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"public, max-age=29"),
        (b"x-more", b"1"),
    ]


async def test_a_source_that_never_waits_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter(range(10**9))
    # Each look at the clock is a millisecond after the one before.
    monkeypatch.setattr("asgi_sse._pump.monotonic", lambda: next(times) / 1000)
    turns = 0
    closed = False

    async def source() -> AsyncIterator[str]:
        nonlocal closed
        try:
            while True:
                yield "a"
        finally:
            closed = True

    async def other() -> None:
        nonlocal turns
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
            turns += 1
        stream.disconnect()

    app = EventStream(source, buffer_size=10**9)
    async with connect(app, server="uvicorn") as stream, anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await stream.wait_closed()

    assert turns == 10
    assert closed


async def test_a_source_that_computes_for_long_is_soon_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    monkeypatch.setattr("asgi_sse._pump.monotonic", lambda: clock)

    async def source() -> AsyncIterator[str]:
        nonlocal clock
        for n in range(1000):
            # Fast at first.
            clock += 0.001 if n >= 900 else 0.0
            yield ""

    async with connect(EventStream(source)) as stream:
        await stream.wait_closed()
    counts = [chunk.count(b"data:") for _, chunk in stream.chunks]

    assert counts[0] <= 920
    assert max(counts[1:]) <= 10


# What cannot be sent.


@pytest.mark.parametrize(
    ("item", "error", "reason"),
    [
        pytest.param({1, 2}, TypeError, "it cannot be made JSON", id="set"),
        pytest.param(math.nan, TypeError, "it cannot be made JSON", id="nan"),
        pytest.param(b"data: a", ValueError, "bytes must be whole blocks", id="unframed-bytes"),
        pytest.param("\udc80", ValueError, "surrogates not allowed", id="surrogate"),
        pytest.param("\n\udc80", ValueError, "must not hold lone surrogates", id="two-lines"),
    ],
)
async def test_an_item_that_cannot_be_sent_names_the_source(
    item: Any, error: type[Exception], reason: str
) -> None:
    closed = False

    async def source() -> AsyncIterator[Any]:
        nonlocal closed
        try:
            yield "a"
            yield item
        finally:
            closed = True

    stream = await answer(EventStream(source))

    assert type(stream.error) is error
    assert str(stream.error).startswith(
        "test_response.test_an_item_that_cannot_be_sent_names_the_source.<locals>.source "
        f"yielded {item!r}: "
    )
    assert reason in str(stream.error)
    assert closed
    assert stream.body == OPEN + b"data: a\n\n"
    assert not stream.complete


@pytest.mark.parametrize("cleanup", [1, math.inf])
async def test_cleanup_after_an_item_that_cannot_be_sent_hides_no_error(
    cleanup: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def source() -> AsyncIterator[Any]:
        try:
            yield {1, 2}
        finally:
            await anyio.sleep(cleanup)
            raise Boom("cleanup")

    stream = await answer(EventStream(source, cleanup_timeout=7))

    assert isinstance(stream.error, TypeError)
    assert anyio.current_time() == min(cleanup, 7)
    what = {
        1: "raised when it was closed",
        math.inf: "did not end within its cleanup_timeout, and is cancelled",
    }
    name = "test_cleanup_after_an_item_that_cannot_be_sent_hides_no_error.<locals>.source"
    assert logged(caplog) == [f"test_response.{name} {what[cleanup]}"]


# How a stream ends, and what the client, the source and on_close see of it.


class Ends:
    """
    An endless stream that notes its end; what awaits in its cleanup comes to its end.
    """

    def __init__(self, cleanup: float = 1, **options: Any) -> None:
        self.trace: list[Any] = []
        self.closed: list[Closed] = []
        self.request: Request
        self._cleanup = cleanup
        options.setdefault("farewell", None)
        self.app = EventStream(self.source, on_close=self.on_close, **options)

    async def source(self, request: Request) -> AsyncIterator[str]:
        self.request = request
        self.trace.append("opened")
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            self.trace.append("cancelled")
            await anyio.sleep(self._cleanup)
            self.trace.append("closed")

    async def on_close(self, closed: Closed) -> None:
        await anyio.sleep(1)
        self.closed.append(closed)
        self.trace.append(closed.reason)


async def test_it_ends_when_the_client_leaves() -> None:
    ends = Ends()
    async with connect(ends.app) as stream:
        await anyio.sleep(3)
        stream.disconnect()
        await stream.wait_closed()

        assert anyio.current_time() == 5

    assert stream.chunks == [(0, b":\n\ndata: a\n\n")]
    assert stream.error is None
    assert ends.trace == ["opened", "cancelled", "closed", "client"]
    assert ends.closed == [Closed("client", 4, 1, 12, None)]


async def test_it_ends_when_the_server_cancels_it() -> None:
    ends = Ends()
    async with connect(ends.app) as stream:
        await anyio.sleep(3)
        stream.cancel()
        await stream.wait_closed()

        assert anyio.current_time() == 5

    assert stream.body == b":\n\ndata: a\n\n"
    assert stream.complete
    assert ends.trace == ["opened", "cancelled", "closed", "shutdown"]
    assert ends.closed == [Closed("shutdown", 4, 1, 12, None)]


async def test_it_ends_when_a_cancel_scope_around_it_does() -> None:
    ends = Ends()
    server = Server()
    with anyio.move_on_after(3) as scope:
        await ends.app(http_scope(), *server)

    assert scope.cancelled_caught
    assert anyio.current_time() == 5
    assert server.body == b":\n\ndata: a\n\n"
    assert ends.trace == ["opened", "cancelled", "closed", "shutdown"]


@pytest.mark.parametrize("from_inside", [True, False])
async def test_it_ends_politely_when_it_is_closed(from_inside: bool) -> None:
    ends: list[Closed] = []
    trace: list[Any] = []

    async def source(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            if from_inside:
                await anyio.sleep(1)
                request.close()
                request.close()
                trace.append(request.closing)
            else:
                tasks.start_soon(close, request)
            await anyio.sleep_forever()
        finally:
            await request.wait_closing()
            yield "bye"
            await anyio.sleep(1)
            trace.append("closed")

    async def close(request: Request) -> None:
        await anyio.sleep(1)
        assert not request.closing
        request.close()
        trace.append(request.closing)

    async with anyio.create_task_group() as tasks:
        stream = await answer(EventStream(source, on_close=ends.append))

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (1, b"data: bye\n\n")]
    assert stream.complete
    assert stream.error is None
    assert trace == [True, "closed"]
    assert ends == [Closed("closed", 2, 2, 23, None)]


async def test_a_source_may_close_its_stream_and_return() -> None:
    ends: list[Closed] = []

    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"
        request.close()

    async def on_close(closed: Closed) -> None:
        await anyio.sleep(1)
        ends.append(closed)

    stream = await answer(EventStream(source, on_close=on_close))

    assert stream.body == b":\n\ndata: a\n\n"
    assert stream.complete
    assert ends == [Closed("closed", 0, 1, 12, None)]


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_a_source_that_ends_before_its_cancellation_arrives_is_just_over() -> None:
    ends: list[Closed] = []
    requests: list[Request] = []

    async def source(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        yield "a"
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)

    async def on_close(closed: Closed) -> None:
        await anyio.sleep(1)
        ends.append(closed)

    async with connect(EventStream(source, on_close=on_close)) as stream:
        await anyio.sleep(1)
        requests[0].close()
        await stream.wait_closed()

    assert stream.complete
    assert ends == [Closed("closed", 2, 1, 12, None)]


async def test_others_may_wait_until_it_is_being_closed() -> None:
    times: list[float] = []

    async def source(request: Request) -> AsyncIterator[str]:
        for _ in range(2):
            tasks.start_soon(wait, request)
        yield "a"
        await anyio.sleep(2)
        request.close()
        await anyio.sleep_forever()

    async def wait(request: Request) -> None:
        await request.wait_closing()
        times.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        await answer(EventStream(source))

    assert times == [2, 2]


async def test_closing_in_the_setup_phase_is_an_empty_stream() -> None:
    async def source(request: Request) -> Any:
        request.close()
        await anyio.sleep_forever()

    stream = await answer(EventStream(source))

    assert stream.body == OPEN
    assert stream.complete


async def test_it_ends_politely_when_it_is_old_enough() -> None:
    ends = Ends(max_age=20)
    stream = await answer(ends.app)

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (15, b":\n")]
    assert stream.complete
    assert ends.trace == ["opened", "cancelled", "closed", "max_age"]
    assert ends.closed == [Closed("max_age", 21, 1, 14, None)]


@pytest.mark.parametrize("keep_alive", [7, 15, 20])
async def test_it_ends_when_the_client_takes_nothing_for_too_long(keep_alive: float) -> None:
    ends = Ends(keep_alive=keep_alive)
    async with connect(ends.app, timeout=None) as stream:
        await anyio.sleep(1)
        stream.stall()
        await stream.wait_closed()

        # One more for the cleanup, and one for on_close.
        assert anyio.current_time() == keep_alive + 30 + 2

    assert stream.error is None
    assert stream.chunks == [(0, b":\n\ndata: a\n\n")]
    assert ends.trace == ["opened", "cancelled", "closed", "send_timeout"]
    assert ends.closed == [Closed("send_timeout", keep_alive + 31, 1, 12, None)]


@pytest.mark.parametrize("keep_alive", [None, 20])
async def test_the_very_first_send_may_take_too_long(keep_alive: float | None) -> None:
    ends: list[Closed] = []

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    server = Server()
    app = EventStream(forever, keep_alive=keep_alive, on_close=ends.append)
    await app(http_scope(), server.receive, send)

    assert anyio.current_time() == 30
    assert ends == [Closed("send_timeout", 30, 0, 0, None)]


async def test_the_source_need_not_wait_for_a_send_that_cannot_be_cancelled() -> None:
    """
    hypercorn on trio shields what it writes to a socket.
    """
    ends = Ends()
    async with connect(ends.app, server=Temper(shields_send=True), timeout=None) as stream:
        await anyio.sleep(1)
        stream.stall()
        await anyio.sleep(100)

        assert ends.trace == ["opened", "cancelled", "closed", "send_timeout"]
        assert not stream.closed


async def test_no_timeout_at_all() -> None:
    ends = Ends(keep_alive=None, send_timeout=None)
    async with connect(ends.app) as stream:
        await anyio.sleep(10_000)
        assert not stream.closed

    assert ends.closed == [Closed("client", 10_001, 1, 12, None)]


async def test_what_was_yielded_before_an_exception_is_sent() -> None:
    boom = Boom()
    ends: list[Closed] = []

    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        yield "b"
        yield "c"
        raise boom

    stream = await answer(EventStream(source, on_close=ends.append))

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (1, b"data: b\n\ndata: c\n\n")]
    assert stream.error is boom
    assert not stream.complete
    assert ends == [Closed("error", 1, 3, 30, boom)]
    assert ends[0].error is boom


async def test_what_was_yielded_at_once_before_an_exception_is_sent() -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise boom

    stream = await answer(EventStream(source))

    assert stream.body == b":\n\ndata: a\n\n"
    assert stream.error is boom


async def test_nothing_is_sent_between_the_last_event_and_a_cut() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        raise Boom

    stream = await answer(EventStream(source))

    assert [message.get("body") for message in stream.messages] == [None, b":\n\ndata: a\n\n"]


async def test_on_error_may_have_the_last_word() -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        raise boom

    def on_error(exc: Exception) -> ServerSentEvent:
        assert exc is boom
        return ServerSentEvent("sorry", event="error")

    stream = await answer(EventStream(source, on_error=on_error))

    assert stream.chunks == [
        (0, b":\n\ndata: a\n\n"),
        (1, b"event: error\ndata: sorry\n\n"),
    ]
    assert stream.error is boom
    assert not stream.complete


async def test_on_error_may_have_nothing_to_say() -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise boom

    stream = await answer(EventStream(source, on_error=lambda exc: None))

    assert stream.body == b":\n\ndata: a\n\n"
    assert stream.error is boom


async def test_on_error_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise boom

    def on_error(exc: Exception) -> ServerSentEvent:
        raise ValueError("mine")

    stream = await answer(EventStream(source, on_error=on_error))

    assert stream.error is boom
    name = "test_on_error_hides_no_error.<locals>.source"
    assert logged(caplog) == [f"on_error of test_response.{name} raised"]


async def test_an_exception_before_the_start_is_the_servers_to_answer() -> None:
    boom = Boom()
    ends: list[Closed] = []

    async def source() -> Any:
        await anyio.sleep(20)
        raise boom

    server = Server()
    with pytest.raises(Boom) as caught:
        await server.call(
            EventStream(source, on_close=ends.append, on_error=lambda exc: ServerSentEvent("a"))
        )

    assert caught.value is boom
    assert server.sent == []
    assert ends == [Closed("error", 20, 0, 0, boom)]


async def test_an_oserror_of_the_source_is_an_error() -> None:
    error = ConnectionResetError("the database has gone away")
    ends: list[Closed] = []

    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        raise error

    stream = await answer(EventStream(source, on_close=ends.append))

    assert stream.error is error
    assert ends == [Closed("error", 1, 1, 12, error)]


async def test_groups_of_the_source_stay_what_they_are() -> None:
    group = ExceptionGroup("mine", [Boom()])

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise group

    stream = await answer(EventStream(source))

    assert stream.error is group
    assert len(group.exceptions) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_what_is_no_exception_comes_out_too(error: BaseException) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        raise error

    # On a server of its own: asyncio lets go of everything when a task raises these.
    server = Server()
    app = EventStream(source, on_error=lambda exc: ServerSentEvent("a"))
    with pytest.raises(type(error)) as caught:
        await app(http_scope(), *server)

    assert caught.value is error
    assert server.body == b":\n\ndata: a\n\n"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        task = asyncio.ensure_future(anyio.sleep_forever())
        asyncio.get_running_loop().call_later(1, task.cancel)
        await task

    stream = await answer(EventStream(source))

    # The cancellation itself would cancel whoever has called the app.
    assert type(stream.error) is RuntimeError
    assert str(stream.error).endswith(".source awaits something that was cancelled")
    assert type(stream.error.__cause__) is asyncio.CancelledError
    assert not stream.complete


# Shutdown.


async def test_draining_ends_a_stream_with_a_farewell() -> None:
    ends = Ends(farewell=ServerSentEvent("bye"))
    async with connect(ends.app) as stream:
        await anyio.sleep(3)
        assert await drain() == (0, 1, 0)

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (4, b"data: bye\n\n")]
    assert stream.complete
    assert ends.trace == ["opened", "cancelled", "closed", "shutdown"]
    assert ends.closed == [Closed("shutdown", 4, 1, 23, None)]


@pytest.mark.parametrize(
    ("on_shutdown", "grace", "drained", "end"),
    [
        pytest.param("close", 2.5, (1, 0, 0), 3, id="in-time"),
        pytest.param("close", 1.5, (0, 1, 0), 2.5, id="too-late"),
        pytest.param("finish", 1.5, (1, 0, 0), 3, id="as-long-as-it-takes"),
    ],
)
async def test_a_source_that_asks_gets_time_to_finish(
    on_shutdown: Any, grace: float, drained: tuple[int, int, int], end: float
) -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        while not request.closing:
            yield "a"
            await anyio.sleep(2)
        yield "last"
        await anyio.sleep(1)

    def farewell(request: Request) -> ServerSentEvent:
        return ServerSentEvent(request.method)

    async with connect(EventStream(source, on_shutdown=on_shutdown)) as stream:
        await anyio.sleep(1)
        assert await drain(grace, farewell=farewell) == drained

    assert stream.chunks == [
        (0, b":\n\ndata: a\n\n"),
        (2, b"data: last\n\n"),
        (end, b"data: GET\n\n"),
    ]
    assert stream.complete


async def test_a_stream_that_may_finish_can_be_closed_all_the_same() -> None:
    ends = Ends(on_shutdown="finish")
    async with connect(ends.app) as stream, anyio.create_task_group() as tasks:
        await anyio.sleep(1)
        tasks.start_soon(drain)
        await anyio.sleep(2)
        assert not stream.complete
        ends.request.close()

    assert stream.complete
    # The first reason stays.
    assert [(closed.reason, closed.duration) for closed in ends.closed] == [("shutdown", 4)]


@left_alone
async def test_a_source_that_cannot_be_ended_does_not_delay_the_farewell() -> None:
    cancelled = anyio.get_cancelled_exc_class()

    async def source() -> AsyncIterator[str]:
        yield "a"
        while True:
            try:
                await anyio.sleep_forever()
            except cancelled:
                pass

    app = EventStream(source, farewell=ServerSentEvent("bye"))
    async with connect(app) as stream:
        await anyio.sleep(1)
        assert await drain() == (0, 0, 1)

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (2, b"data: bye\n\n")]
    assert stream.complete
    gc.collect()


async def test_a_request_that_comes_too_late_gets_a_farewell() -> None:
    ends = Ends(cleanup=2)
    app = EventStream(forever, farewell=ServerSentEvent("bye", retry=1234))
    async with connect(ends.app) as stream, anyio.create_task_group() as tasks:
        await stream.next_event()
        tasks.start_soon(drain)
        await anyio.sleep(0.5)

        late = await answer(app)
        assert late.status == 200
        assert late.chunks == [(0, b":\n\nretry: 1234\ndata: bye\n\n")]
        assert late.complete

        async def send(message: Any) -> None:
            raise ConnectionResetError

        await app(http_scope(), Server().receive, send)


async def test_over_http2_hypercorn_gets_something_to_end_with() -> None:
    scope = http_scope(extensions={"http.response.push": {}})
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, EventStream(forever, farewell=None), scope)
        await anyio.sleep(1)
        await drain()

    assert server.sent[-1]["body"] == b":\n"
    assert not server.sent[-1]["more_body"]


async def test_a_farewell_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def farewell(request: Request) -> ServerSentEvent:
        raise Boom

    async with connect(EventStream(forever, farewell=farewell)) as stream:
        await anyio.sleep(1)
        await drain()

    assert stream.complete
    assert logged(caplog) == ["farewell of test_response.forever raised"]


async def test_a_client_that_is_slow_gets_what_was_yielded_before_it_was_closed() -> None:
    """
    Only the server's stop is in a hurry; else there is the send timeout.
    """
    requests: list[Request] = []

    async def source(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        await anyio.sleep(1)
        yield "a"
        yield "b"
        await anyio.sleep_forever()

    app = EventStream(source, buffer_size=0, cleanup_timeout=2, send_timeout=None)
    async with connect(app, timeout=None) as stream:
        stream.stall()
        await anyio.sleep(2)
        requests[0].close()
        await anyio.sleep(50)
        stream.resume()
        await stream.wait_closed()

    assert stream.complete
    assert [event.data for event in stream.events] == ["a"]


async def test_a_client_that_takes_nothing_delays_the_end_only_for_a_while() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(2)
        yield "b"
        await anyio.sleep_forever()

    ends: list[Closed] = []
    async with connect(EventStream(source, on_close=ends.append)) as stream:
        await anyio.sleep(1)
        stream.stall()
        await anyio.sleep(2)
        await drain()

    assert not stream.complete
    assert [(closed.reason, closed.duration) for closed in ends] == [("shutdown", 4)]


async def test_what_is_on_its_way_when_it_is_closed_is_not_lost() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        await anyio.sleep(2)
        yield "a"

    requests: list[Request] = []
    async with connect(EventStream(source)) as stream:
        await anyio.sleep(1)
        stream.stall()
        await anyio.sleep(2)
        requests[0].close()
        await anyio.sleep(1)
        stream.resume()
        await stream.wait_closed()

    assert stream.chunks == [(0, OPEN), (4, b"data: a\n\n")]
    assert stream.complete


async def test_what_is_due_after_its_end_does_nothing() -> None:
    ends: list[Closed] = []

    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        request.close()
        await anyio.sleep(1)

    async def send(message: Any) -> None:
        # One that cannot be cancelled outlives everything else.
        with anyio.CancelScope(shield=True):
            while anyio.current_time() < 40:
                with suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(40 - anyio.current_time())

    server = Server()
    app = EventStream(source, on_close=ends.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app, http_scope(), server.receive, send)
        await anyio.sleep(2)
        server.disconnect()

    assert anyio.current_time() == 40
    assert [(closed.reason, closed.duration) for closed in ends] == [("client", 2)]


async def test_an_iterator_need_not_have_aclose() -> None:
    class Numbers:
        n = 0

        def __aiter__(self) -> "Numbers":
            return self

        async def __anext__(self) -> int:
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

    stream = await answer(EventStream(Numbers))

    assert stream.body == OPEN + b"data: 1\n\ndata: 2\n\ndata: 3\n\n"


# What on_close may do.


async def test_on_close_may_be_a_function_or_a_coroutine_function() -> None:
    seen: list[str] = []

    async def source() -> AsyncIterator[str]:
        yield "a"

    async def slow(closed: Closed) -> None:
        await anyio.sleep(4)
        seen.append(closed.reason)

    def fast(closed: Closed) -> None:
        seen.append(closed.reason)

    await answer(EventStream(source, on_close=slow))
    await answer(EventStream(source, on_close=fast))

    assert seen == ["finished", "finished"]


async def test_on_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def on_close(closed: Closed) -> None:
        raise Boom

    app = EventStream(forever, on_close=on_close)
    async with connect(app):
        pass

    assert logged(caplog) == ["on_close of test_response.forever raised"]


async def test_on_close_that_hangs_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async def on_close(closed: Closed) -> None:
        await anyio.sleep_forever()

    app = EventStream(forever, on_close=on_close, cleanup_timeout=7)
    async with connect(app, cleanup_timeout=20):
        pass

    assert anyio.current_time() == 7
    assert logged(caplog) == ["on_close of test_response.forever did not return in time"]


# Cancellation and cleanup.


@pytest.mark.parametrize("after_disconnect", ["ignore", "raise", "hang"])
@pytest.mark.parametrize("how", ["cancel", "cancel scope", "disconnect", "close"])
async def test_it_may_end_at_every_await(how: str, after_disconnect: Any) -> None:
    """
    Count every step of the app, the source and the server, and end it at the n-th.
    """
    n = 0
    tasks = None
    while await end_at(n, how, after_disconnect):
        # What is made once for an event loop is there after the first.
        tasks = tasks or await count_tasks()
        assert await count_tasks() == tasks, n
        n += 1

    assert n >= 30


async def end_at(n: int, how: str, after_disconnect: Any) -> bool:
    """
    Return whether it was ended, and not over before.
    """
    trace: list[str] = []
    requests: list[Request] = []

    def step() -> None:
        nonlocal n
        n -= 1
        if n != -1:
            return
        if how == "cancel":
            server.cancel()
        elif how == "cancel scope":
            scope.cancel()
        elif how == "disconnect":
            server.disconnect()
        elif requests:
            requests[0].close()

    @asynccontextmanager
    async def held() -> AsyncIterator[None]:
        trace.append("open")
        try:
            step()
            await anyio.sleep(1)
            step()
            yield
        finally:
            try:
                step()
                await anyio.sleep(1)
                step()
            finally:
                trace.append("closed")

    async def source(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        async with held():
            for text in "abc":
                step()
                yield text
                step()
                await anyio.sleep(1)

    async def on_close(closed: Closed) -> None:
        trace.append("on_close")
        step()
        await anyio.sleep(1)
        step()
        trace.append("over")

    async def counted(*args: Any) -> None:
        await stepping(app(*args), step)

    app = EventStream(source, on_close=on_close, buffer_size=0)
    server = Server(after_disconnect=after_disconnect, step=step)
    with anyio.CancelScope() as scope:
        if how == "cancel scope":
            await counted(http_scope(), *server)
        else:
            await server.call(counted)

    assert trace == ["open", "closed", "on_close", "over"]
    if n < 0:
        return True
    assert server.body == b":\n\ndata: a\n\ndata: b\n\ndata: c\n\n"
    return False


async def test_a_second_cancellation_does_not_cut_the_cleanup_short() -> None:
    ends = Ends(cleanup=3)
    async with connect(ends.app) as stream:
        stream.disconnect()
        await anyio.sleep(1)
        stream.cancel()
        await anyio.sleep(1)
        stream.cancel()
        await stream.wait_closed()

        assert anyio.current_time() == 4

    assert ends.trace == ["opened", "cancelled", "closed", "client"]


@pytest.mark.parametrize("how", ["disconnect", "close"])
async def test_cleanup_that_takes_too_long_is_cut(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends(cleanup=math.inf, cleanup_timeout=7)
    async with connect(ends.app, timeout=None) as stream:
        await anyio.sleep(1)
        if how == "close":
            ends.request.close()
        else:
            stream.disconnect()
        await stream.wait_closed()

        # The last one is that of on_close.
        assert anyio.current_time() == 1 + 7 + 1

    assert stream.complete == (how == "close")
    assert stream.error is None
    assert ends.trace == ["opened", "cancelled", "client" if how == "disconnect" else "closed"]
    assert logged(caplog) == [
        "test_response.Ends.source did not end within its cleanup_timeout, and is cancelled"
    ]


async def test_cleanup_that_raises_is_an_error() -> None:
    boom = Boom()
    ends: list[Closed] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            raise boom

    async with connect(EventStream(source, on_close=ends.append)) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()
        assert stream.error is boom

    assert ends == [Closed("client", 2, 1, 12, boom)]


async def test_cleanup_that_raises_while_the_server_cancels_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            raise Boom

    async with connect(EventStream(source)) as stream:
        stream.cancel()
        await stream.wait_closed()
        assert stream.error is None

    assert len(logged(caplog)) == 1
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is Boom


async def test_children_that_fail_while_they_are_cancelled_leave_no_cancellation() -> None:
    """
    A server that gets a BaseExceptionGroup stops.
    """

    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Boom

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[str]]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            tasks.start_soon(anyio.sleep_forever)
            yield forever()

    async with connect(EventStream(source)) as stream:
        stream.disconnect()
        await stream.wait_closed()
        error = stream.error

    assert isinstance(error, ExceptionGroup)
    assert [type(exc) for exc in error.exceptions] == [Boom]


async def test_a_source_that_yields_after_it_was_cancelled_is_closed() -> None:
    trace: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                try:
                    yield "a"
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    trace.append("swallowed")
        finally:
            await anyio.sleep(1)
            trace.append("closed")

    async with connect(EventStream(source)) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()

    assert trace == ["swallowed", "closed"]
    assert stream.body == b":\n\ndata: a\n\n"
    assert stream.error is None


async def test_a_client_that_leaves_does_not_cancel_a_source_that_is_closing_again() -> None:
    trace: list[str] = []

    async def closing(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            request.close()
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(2)
            trace.append("cleaned up")

    async with connect(EventStream(closing, cleanup_timeout=5)) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()

        assert anyio.current_time() == 2
    assert trace == ["cleaned up"]


async def test_a_source_that_yields_after_it_was_closed_is_cut_after_a_while() -> None:
    trace: list[str] = []

    async def source(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            request.close()
            while True:
                try:
                    await anyio.sleep(2)
                except anyio.get_cancelled_exc_class():
                    trace.append("swallowed")
                yield "b"
        finally:
            trace.append("closed")

    stream = await answer(EventStream(source))

    assert stream.chunks == [
        (0, b":\n\ndata: a\n\ndata: b\n\n"),
        (2, b"data: b\n\n"),
        (4, b"data: b\n\n"),
    ]
    assert stream.complete
    assert trace == ["swallowed", "swallowed", "closed"]


@left_alone
def test_a_source_that_swallows_every_cancellation_is_left_alone(
    caplog: pytest.LogCaptureFixture, anyio_backend_name: str
) -> None:
    ends: list[Closed] = []
    swallowed = 0

    async def stubborn() -> AsyncIterator[str]:
        nonlocal swallowed
        # Later there is no event loop to ask.
        cancelled = anyio.get_cancelled_exc_class()
        yield "a"
        while True:
            try:
                await anyio.sleep_forever()
            except cancelled:
                swallowed += 1

    async def main() -> float:
        app = EventStream(stubborn, cleanup_timeout=7, on_close=ends.append)
        async with connect(app, timeout=None) as stream:
            await anyio.sleep(1)
            stream.disconnect()
            await stream.wait_closed()
            return anyio.current_time()

    # The event loop ends as well.
    assert run(anyio_backend_name, main) == 8
    assert swallowed > 1
    assert ends == [Closed("client", 8, 1, 12, None)]
    name = "test_a_source_that_swallows_every_cancellation_is_left_alone.<locals>.stubborn"
    assert logged(caplog) == [
        f"test_response.{name} did not end within its cleanup_timeout, and is cancelled",
        f"test_response.{name} swallows its cancellation, and is left alone",
    ]
    gc.collect()


@left_alone
async def test_a_source_that_was_left_alone_may_end_after_all() -> None:
    ends: list[Closed] = []
    over = anyio.Event()
    deaf = True

    async def source() -> AsyncIterator[str]:
        yield "a"
        while deaf:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass
        over.set()

    async with connect(EventStream(source, on_close=ends.append), timeout=None) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()
    deaf = False
    if in_asyncio():
        await over.wait()
        await anyio.sleep(1)

    assert ends == [Closed("client", 6, 1, 12, None)]
    gc.collect()


@left_alone
async def test_a_receive_that_swallows_every_cancellation_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cancelled = anyio.get_cancelled_exc_class()

    async def source() -> AsyncIterator[str]:
        yield "a"

    async def receive() -> Any:
        while True:
            try:
                await anyio.sleep_forever()
            except cancelled:
                pass

    server = Server()
    await EventStream(source)(http_scope(), receive, server.send)

    assert anyio.current_time() == 5
    assert not server.sent[-1]["more_body"]
    assert len(logged(caplog)) == 1
    gc.collect()


async def test_a_timeout_in_a_generator_never_touches_a_send() -> None:
    """
    PEP 789: where the writer iterated itself, it would be cancelled in ``send()``.
    """
    timed_out = False

    async def source() -> AsyncIterator[str]:
        nonlocal timed_out
        with anyio.move_on_after(2) as scope:
            yield "a"
            await anyio.sleep_forever()
        timed_out = scope.cancelled_caught
        yield "b"

    sent: list[tuple[float, Any]] = []

    async def send(message: Any) -> None:
        await anyio.sleep(3)
        sent.append((anyio.current_time(), message.get("body")))

    await EventStream(source)(http_scope(), Server().receive, send)

    assert timed_out
    assert sent == [(3, None), (6, b":\n\ndata: a\n\ndata: b\n\n"), (9, b"")]


async def test_a_context_manager_may_hold_a_task_group() -> None:
    trace: list[str] = []

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[int]]:
        send, receive = anyio.create_memory_object_stream[int]()

        async def child() -> None:
            async with send:
                for n in range(2):
                    await send.send(n)
                    await anyio.sleep(1)

        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(child)
            yield receive
        trace.append("left")

    stream = await answer(EventStream(source))

    assert stream.chunks == [(0, OPEN), (0, b"data: 0\n\n"), (1, b"data: 1\n\n")]
    assert stream.complete
    assert trace == ["left"]


async def test_a_child_of_a_context_manager_may_fail() -> None:
    boom = Boom()

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[str]]:
        async def child() -> None:
            await anyio.sleep(3)
            raise boom

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            yield forever()

    stream = await answer(EventStream(source))

    assert anyio.current_time() == 3
    assert stream.body == b":\n\ndata: a\n\n"
    assert isinstance(stream.error, ExceptionGroup)
    assert stream.error.exceptions == (boom,)


async def test_context_variables_reach_the_source_and_its_cleanup() -> None:
    variable = contextvars.ContextVar[str]("variable")
    seen: list[str] = []

    async def source() -> AsyncIterator[str]:
        seen.append(variable.get())
        variable.set("of the source")
        try:
            yield variable.get()
            await anyio.sleep_forever()
        finally:
            seen.append(variable.get())

    def on_close(closed: Closed) -> None:
        seen.append(variable.get())

    async def app(*args: Any) -> None:
        variable.set("of the request")
        await EventStream(source, on_close=on_close)(*args)
        seen.append(variable.get())

    async with connect(app, lifespan=False) as stream:
        assert (await stream.next_event()).data == "of the source"

    assert seen == ["of the request", "of the source", "of the source", "of the request"]


# Refusing.


async def test_a_setup_phase_may_refuse() -> None:
    ends: list[Closed] = []
    refused = Refused(401, "Who are you?", {"WWW-Authenticate": "Basic"})

    async def source() -> Any:
        await anyio.sleep(20)
        raise refused

    stream = await answer(EventStream(source, on_close=ends.append))

    assert stream.messages == [
        {
            "type": "http.response.start",
            "status": 401,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"12"),
                (b"www-authenticate", b"Basic"),
            ],
            "trailers": False,
        },
        {"type": "http.response.body", "body": b"Who are you?", "more_body": False},
    ]
    assert stream.error is None
    assert ends == [Closed("refused", 20, 0, 0, refused)]


@pytest.mark.parametrize("status", [204, 304])
async def test_refusing_without_a_body(status: int) -> None:
    async def source() -> Any:
        raise Refused(status, "never sent")

    stream = await answer(EventStream(source))

    assert stream.status == status
    assert "content-length" not in stream.headers
    assert stream.body == b""
    assert stream.complete


async def test_refusing_in_another_type_of_content() -> None:
    async def source() -> Any:
        raise Refused(400, "{}", {"Content-Type": "application/json"})

    stream = await answer(EventStream(source))

    assert stream.messages[0]["headers"] == [
        (b"content-length", b"2"),
        (b"content-type", b"application/json"),
    ]


async def test_refusing_without_a_word() -> None:
    async def source() -> Any:
        raise Refused(404)

    stream = await answer(EventStream(source))

    assert stream.messages[0]["headers"] == [(b"content-length", b"0")]
    assert stream.complete


async def test_a_generator_may_refuse_before_it_waits() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        if request.last_event_id is None:
            raise Refused(204)
        yield "a"

    stream = await answer(EventStream(source))

    assert stream.status == 204

    stream = await answer(EventStream(source), last_event_id="1")

    assert stream.status == 200


async def test_refusing_after_the_start_is_an_error_that_says_what_to_do() -> None:
    refused = Refused(403)

    async def source() -> AsyncIterator[str]:
        await anyio.sleep(1)
        raise refused
        yield

    stream = await answer(EventStream(source))

    assert stream.error is refused
    assert stream.chunks == [(0, OPEN)]
    assert "until it returns, it may refuse" in refused.__notes__[0]


async def test_nobody_is_refused_who_has_left() -> None:
    async def source() -> Any:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise Refused(503) from None

    server = Server(after_disconnect="hang")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, EventStream(source))
        await anyio.sleep(1)
        server.disconnect()

    assert server.sent == []


# The request's body, and everything else that receive() says.


async def test_the_body_is_there_as_often_as_it_is_asked_for() -> None:
    async def upload() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"", b"three"):
            await anyio.sleep(1)
            yield part

    async def source(request: Request) -> Any:
        bodies = [await request.body(), await request.body()]
        return [body.decode() for body in bodies]

    stream = await answer(EventStream(source, methods=["POST"]), method="POST", body=upload())

    assert stream.chunks == [(4, b":\n\ndata: one two three\n\ndata: one two three\n\n")]


async def test_the_body_may_come_while_the_stream_flows() -> None:
    async def upload() -> AsyncIterator[bytes]:
        await anyio.sleep(1)
        yield b"text"

    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"
        yield (await request.body()).decode()

    stream = await answer(EventStream(source, methods=["POST"]), method="POST", body=upload())

    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (1, b"data: text\n\n")]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_body_that_is_too_large_is_refused(method: str) -> None:
    async def source(request: Request) -> Any:
        with anyio.move_on_after(0):
            await request.body()
        for _ in range(2):
            with pytest.raises(Refused):
                await request.body()
        await request.body()

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(4):
            await anyio.sleep(1)
            yield b"12345"

    app = EventStream(source, methods=["POST", "PUT"], max_body_size=14)
    stream = await answer(app, method=method, body=upload())

    assert stream.status == 413
    assert stream.body == b"The body must not exceed 14 bytes."
    assert anyio.current_time() == 3


async def test_a_body_of_the_greatest_size_is_not_refused() -> None:
    async def source(request: Request) -> Any:
        return [len(await request.body())]

    app = EventStream(source, methods=["POST"], max_body_size=5)
    stream = await answer(app, method="POST", body=b"12345")

    assert stream.body == b":\n\ndata: 5\n\n"


async def test_the_body_of_a_client_that_has_left_never_comes() -> None:
    trace = []

    async def upload() -> AsyncIterator[bytes]:
        yield b"one"
        await anyio.sleep_forever()

    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"
        try:
            await request.body()
        finally:
            trace.append("cancelled")
            with anyio.move_on_after(1):
                await request.body()
            trace.append("closed")

    app = EventStream(source, methods=["POST"])
    async with connect(app, method="POST", body=upload()) as stream:
        stream.disconnect()
        await stream.wait_closed()

    assert trace == ["cancelled", "closed"]


@pytest.mark.parametrize("more_body", [True, False])
async def test_a_receive_that_never_waits_keeps_nobody_from_running(more_body: bool) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.lowlevel.checkpoint()
        yield "b"

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": more_body}

    server = Server()
    await EventStream(source)(http_scope(), receive, server.send)

    assert server.body == b":\n\ndata: a\n\ndata: b\n\n"
    assert not server.sent[-1]["more_body"]


async def test_what_receive_raises_ends_the_stream() -> None:
    boom = Boom()
    ends: list[Closed] = []

    server = Server(NO_BODY, boom)
    with pytest.raises(Boom) as caught:
        await server.call(EventStream(forever, on_close=ends.append))

    assert caught.value is boom
    assert [closed.reason for closed in ends] == ["error"]


async def test_an_oserror_of_receive_is_a_disconnect() -> None:
    ends: list[Closed] = []

    server = Server(NO_BODY, ConnectionResetError())
    await server.call(EventStream(forever, on_close=ends.append))

    assert [closed.reason for closed in ends] == ["client"]


async def test_what_receive_raises_when_it_is_cancelled_is_nobodys_concern() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    async def receive() -> Any:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise RuntimeError("the server is confused") from None

    ends: list[Closed] = []
    server = Server()
    await EventStream(source, on_close=ends.append)(http_scope(), receive, server.send)

    assert not server.sent[-1]["more_body"]
    assert ends == [Closed("finished", 0, 1, 12, None)]


async def test_what_receive_raises_hides_no_error_of_the_source() -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise boom

    async def receive() -> Any:
        await anyio.sleep(1)
        raise RuntimeError("the server is confused")

    async def send(message: Any) -> None:
        await anyio.sleep(3)

    with pytest.raises(Boom) as caught:
        await EventStream(source)(http_scope(), receive, send)

    assert caught.value is boom
    assert anyio.current_time() == 1


# What send() does.


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_an_oserror_of_send_is_a_disconnect(
    failing: int, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if len(sent) == failing:
            raise ConnectionResetError
        sent.append(message)

    await ends.app(http_scope(), Server().receive, send)

    assert ends.closed[0].reason == "client"
    assert logged(caplog) == []


async def test_another_exception_of_send_is_a_disconnect_once_the_response_has_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = Ends()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if sent:
            raise RuntimeError("Response already complete")
        sent.append(message)

    await ends.app(http_scope(), Server().receive, send)

    assert ends.closed[0].reason == "client"
    name = "test_response.Ends.source"
    assert logged(caplog) == [f"send() failed while {name} was streaming"]


async def test_another_exception_of_send_before_that_comes_out() -> None:
    boom = Boom()
    ends = Ends()

    async def send(message: Any) -> None:
        raise boom

    with pytest.raises(Boom) as caught:
        await ends.app(http_scope(), Server().receive, send)

    assert caught.value is boom
    assert ends.trace == ["opened", "cancelled", "closed", "error"]


@pytest.mark.parametrize("started", [True, False])
async def test_what_send_raises_when_it_is_cancelled_is_nobodys_concern(
    started: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    sent: list[Any] = []
    server = Server()

    async def send(message: Any) -> None:
        if started and not sent:
            sent.append(message)
            return
        server.disconnect()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise RuntimeError("the server is confused") from None

    await ends.app(http_scope(), server.receive, send)

    assert ends.closed[0].reason == "client"
    assert ends.closed[0].error is None
    assert logged(caplog) == []


async def test_what_comes_while_the_final_chunk_is_sent_does_not_cut_it() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    async def receive() -> Any:
        await anyio.sleep(1)
        return NO_BODY

    sent: list[Any] = []

    async def send(message: Any) -> None:
        await anyio.sleep(5)
        sent.append(message)

    await EventStream(source)(http_scope(), receive, send)

    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_disconnect_during_the_final_chunk_is_no_loss() -> None:
    ends: list[Closed] = []

    async def source() -> AsyncIterator[str]:
        yield "a"

    server = Server()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if not message.get("more_body", True):
            # uvicorn says so when the response is complete, from within this very send.
            server.disconnect()
            await anyio.lowlevel.checkpoint()
        sent.append(message)

    await EventStream(source, on_close=ends.append)(http_scope(), server.receive, send)

    assert not sent[-1].get("more_body", True)
    assert ends == [Closed("finished", 0, 1, 12, None)]


async def test_a_final_chunk_that_is_never_taken_is_cut() -> None:
    """
    hypercorn never returns from it when the client of an HTTP/2 stream has left.
    """
    ends: list[Closed] = []

    async def source() -> AsyncIterator[str]:
        yield "a"

    server = Server()

    async def send(message: Any) -> None:
        if not message.get("more_body", True):
            await anyio.sleep(1)
            server.disconnect()
            await anyio.sleep_forever()

    await EventStream(source, on_close=ends.append)(http_scope(), server.receive, send)

    assert ends == [Closed("finished", 2, 1, 12, None)]


# What some servers need.


async def test_hypercorn_gets_a_final_chunk_after_an_error_too() -> None:
    boom = Boom()

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise boom

    app = EventStream(source, on_error=lambda exc: ServerSentEvent("sorry"))
    stream = await answer(app, scope={"extensions": {"http.response.push": {}}})

    assert stream.error is boom
    assert stream.complete
    assert stream.chunks == [(0, b":\n\ndata: a\n\n"), (0, b"data: sorry\n\n")]


async def test_daphne_sees_no_exception_once_the_response_has_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))

    async def source() -> AsyncIterator[str]:
        yield "a"
        raise Boom

    stream = await answer(EventStream(source), server="daphne")

    assert stream.error is None
    assert stream.complete
    assert len(logged(caplog)) == 1
    assert caplog.messages[0].endswith("source raised")


@pytest.mark.parametrize("finish", [False, True])
async def test_daphne_cancels_when_it_stops_and_waits_for_the_goodbye(
    finish: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    cleaned = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(0.5)
            cleaned.append(True)

    app = EventStream(
        source, farewell=ServerSentEvent("bye"), on_shutdown="finish" if finish else "close"
    )
    scope = http_scope(asgi={"version": "3.0"})
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, app, scope)
        await anyio.sleep(1)
        server.cancel()

    assert server.body == OPEN + b"data: a\n\ndata: bye\n\n"
    assert server.sent[-1]["more_body"] is False
    assert cleaned == [True]


async def test_daphne_cancels_before_the_response_has_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))

    async def setup() -> list[str]:
        await anyio.sleep_forever()
        raise AssertionError

    app = EventStream(setup, farewell=ServerSentEvent("bye"))
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, app, http_scope(asgi={"version": "3.0"}))
        await anyio.sleep(1)
        server.cancel()

    assert server.body == OPEN + b"data: bye\n\n"
    assert server.sent[-1]["more_body"] is False


async def test_what_send_raises_while_daphne_stops_is_nobodys_concern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    ends: list[Closed] = []
    server = Server(after_disconnect="raise")
    app = EventStream(forever, on_close=ends.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, app, http_scope(asgi={"version": "3.0"}))
        await anyio.sleep(1)
        server._disconnected = True
        server.cancel()

    assert [end.reason for end in ends] == ["shutdown"]


async def test_while_daphne_stops_middleware_may_take_nothing_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Starlette's BaseHTTPMiddleware is cancelled too, and waits for the stream to end.
    """
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))
    ends: list[Closed] = []
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def stalling(message: Any) -> None:
            await (anyio.sleep_forever() if stopping else send(message))

        await EventStream(forever, on_close=ends.append)(scope, receive, stalling)

    stopping = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, app, http_scope(asgi={"version": "3.0"}))
        await anyio.sleep(1)
        stopping = True
        server.cancel()

    assert [(closed.reason, closed.duration) for closed in ends] == [("shutdown", 2)]


async def test_daphne_sees_an_exception_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "daphne.server", ModuleType("daphne.server"))

    async def source() -> Any:
        raise Boom

    with pytest.raises(Boom):
        await answer(EventStream(source), server="daphne")


# What is left of it.


def count_responses() -> int:
    # Not isinstance(), which asks proxies of what is gone.
    return sum(type(thing) is Response for thing in gc.get_objects())


async def test_ten_thousand_streams_leave_nothing_behind() -> None:
    app = EventStream(forever, on_close=lambda closed: None)

    async def hundred_streams() -> None:
        servers = [Server() for _ in range(100)]
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(app, http_scope(), *server)
            await anyio.sleep(1)
            for server in servers:
                server.disconnect()
        assert all(server.body == b":\n\ndata: a\n\n" for server in servers)

    await hundred_streams()
    gc.collect()
    tasks = await count_tasks()
    responses = count_responses()
    blocks = sys.getallocatedblocks()
    for _ in range(100):
        await hundred_streams()
    gc.collect()

    assert await count_tasks() == tasks
    assert count_responses() == responses
    # One block of memory left by every stream would be 10,000.
    assert sys.getallocatedblocks() - blocks < 5_000


async def test_a_stream_leaves_no_cycle_behind() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"

    gc.collect()
    gc.disable()
    before = count_responses()
    try:
        await EventStream(source)(http_scope(), *Server())
        await current_runtime().turn()
        assert count_responses() == before
    finally:
        gc.enable()


def stream_once(name: str) -> list[tuple[float, bytes]]:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(20)
        yield "a"

    async def main() -> list[tuple[float, bytes]]:
        return list((await answer(app)).chunks)

    app = EventStream(source)
    chunks: list[tuple[float, bytes]] = run(name, main)
    return chunks


def test_one_app_may_be_served_by_one_event_loop_after_another(anyio_backend_name: str) -> None:
    expected = [(0, OPEN), (15, b":\n"), (20, b"data: a\n\n")]

    assert [stream_once(anyio_backend_name) for _ in range(2)] == [expected] * 2


def test_one_app_may_be_served_by_several_event_loops_at_once(anyio_backend_name: str) -> None:
    got: list[list[tuple[float, bytes]]] = []
    threads = [
        threading.Thread(target=lambda: got.append(stream_once(anyio_backend_name)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == [[(0, OPEN), (15, b":\n"), (20, b"data: a\n\n")]] * 2


async def test_a_cancellation_arrives_before_the_cleanup_of_a_source_that_was_woken() -> None:
    """
    It waits for room, gets it, and is cancelled, all in one turn.
    """
    for _ in range(20):
        cleaned = False

        async def source() -> AsyncIterator[str]:
            nonlocal cleaned
            try:
                while True:
                    yield "x" * 100_000
                    await anyio.lowlevel.checkpoint()
            finally:
                await anyio.sleep(1)
                cleaned = True

        async with connect(EventStream(source)) as stream:
            stream.stall()
            await anyio.sleep(3)
            stream.disconnect()
            await stream.wait_closed()

        assert cleaned


# A server that breaks when a body comes late.


@pytest.mark.parametrize("ending", ["finished", "refused"])
@pytest.mark.parametrize(("arrives", "ends"), [(0.5, 0.5), (math.inf, 1)])
async def test_the_end_waits_for_the_body_where_the_server_would_break(
    ending: str, arrives: float, ends: float
) -> None:
    async def setup() -> list[str]:
        if ending == "refused":
            raise Refused(403)
        return ["a"]

    class Late(Server):
        async def receive(self) -> Any:
            await anyio.sleep(arrives)
            return await super().receive()

    server = Late({"type": "http.request", "body": b"x" * 9}, NO_BODY)
    scope = http_scope("POST", http_version="2", extensions={"http.response.push": {}})
    began = anyio.current_time()
    await server.call(EventStream(setup, methods=["POST"], max_body_size=1), scope)

    assert anyio.current_time() - began == ends
    assert server.sent[0]["status"] == (403 if ending == "refused" else 200)
    assert server.sent[-1]["more_body"] is False


# A source that hands over blocks itself.


class Ready:
    """
    A feed of which a test says what is there and when.
    """

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = list(blocks)
        self.over = False
        self.wake: Any = None
        self.asked = 0
        self.detached = 0

    def attach(self, wake: Any) -> None:
        self.wake = wake

    def take(self) -> tuple[int, bytes, bool]:
        self.asked += 1
        count, blocks = len(self.blocks), b"".join(self.blocks)
        self.blocks.clear()
        return count, blocks, self.over and count > 0

    def detach(self) -> None:
        self.detached += 1

    def put(self, block: bytes) -> None:
        self.blocks.append(block)
        self.wake()

    def end(self) -> None:
        self.over = True
        self.wake()


async def test_a_feed_that_comes_when_all_is_over_is_not_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = Ready(b"data: a\n\n")
    ends: list[Closed] = []

    async def setup() -> Any:
        with suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()
        return feed

    app = EventStream(setup, on_close=ends.append)
    server = Server()
    async with anyio.create_task_group() as group:
        group.start_soon(server.call, app)
        await anyio.sleep(1)
        server.disconnect()

    # Nobody would detach it.
    assert feed.wake is None
    assert ends == [Closed("client", 1, 0, 0, None)]
    assert caplog.records == []


async def test_a_feed_is_sent_with_the_opening_and_then_as_it_wakes() -> None:
    feed = Ready(b"data: a\n\n", b"data: b\n\n")
    ends: list[Closed] = []

    async with connect(EventStream(lambda: feed, on_close=ends.append)) as stream:
        await anyio.sleep(1)
        feed.put(b"data: c\n\n")
        await anyio.sleep(1)
        feed.end()
        await stream.wait_closed()

    assert stream.chunks == [
        (0, OPEN + b"data: a\n\ndata: b\n\n"),
        (1, b"data: c\n\n"),
    ]
    assert stream.complete
    assert ends == [Closed("finished", 2, 3, 30, None)]
    assert feed.detached == 1
    # It said itself that there was no more.
    assert feed.asked == 3


async def test_a_feed_that_wakes_during_a_send_is_asked_after_it() -> None:
    feed = Ready()

    async with connect(EventStream(lambda: feed)) as stream:
        await anyio.sleep(1)
        stream.stall()
        feed.put(b"data: a\n\n")
        await stream.wait_blocked()
        feed.put(b"data: b\n\n")
        await anyio.sleep(1)
        assert feed.asked == 2
        stream.resume()
        await anyio.sleep(1)

    assert feed.asked == 3
    assert stream.body == OPEN + b"data: a\n\ndata: b\n\n"


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_what_is_to_end_the_program_comes_out_of_a_send(after: int) -> None:
    class End(BaseException):
        pass

    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > after:
            raise End

    with pytest.raises(End):
        await EventStream(forever)(http_scope(), Server().receive, send)


async def test_what_is_to_end_the_program_comes_out_of_a_send_that_was_cancelled() -> None:
    class End(BaseException):
        pass

    async def send(message: Any) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            raise End from None

    # It takes nothing.
    with pytest.raises(End):
        await EventStream(forever, send_timeout=1)(http_scope(), Server().receive, send)


@pytest.mark.parametrize("through", ["source", "feed"])
async def test_no_event_wakes_the_task_of_the_request(through: str) -> None:
    """
    It would wake it through every coroutine of the server, the framework and the middleware.
    """
    feed = Ready()

    async def source() -> AsyncIterator[str]:
        for text in "abcde":
            yield text
            await anyio.sleep(1)

    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    stream_app = EventStream(source if through == "source" else lambda: feed)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await stepping(stream_app(scope, receive, send), step)

    async with connect(app) as stream:
        await anyio.sleep(0.5)
        before = steps
        for text in "bcde":
            if through == "feed":
                feed.put(f"data: {text}\n\n".encode())
            await anyio.sleep(1)

        assert stream.body.endswith(b"data: e\n\n")
        assert steps == before > 0


def living_tasks() -> int:
    if in_asyncio():
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living


async def test_a_feed_needs_no_task() -> None:
    feed = Ready()

    async with connect(EventStream(lambda: feed, keep_alive=None)) as stream:
        await anyio.sleep(1)
        with_a_feed = living_tasks()
        stream.disconnect()
    async with connect(EventStream(forever, keep_alive=None)) as stream:
        await anyio.sleep(1)
        with_a_source = living_tasks()

    assert with_a_feed == with_a_source - 1


async def test_what_can_be_subscribed_to_is_asked_for_what_the_client_has_not_seen() -> None:
    class Many:
        def __init__(self) -> None:
            self.asked: list[str | None] = []

        def subscribe(self, last_event_id: str | None) -> Ready:
            self.asked.append(last_event_id)
            feed = Ready(b"data: a\n\n")
            feed.over = True
            return feed

    many = Many()
    app = EventStream(many)
    await answer(app)
    await answer(app, last_event_id="7")

    assert many.asked == [None, "7"]


async def test_a_feed_is_left_when_the_client_leaves() -> None:
    feed = Ready()
    ends: list[Closed] = []

    async with connect(EventStream(lambda: feed, on_close=ends.append)) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()

    assert feed.detached == 1
    assert ends == [Closed("client", 1, 0, 3, None)]


async def test_a_feed_is_closed_politely() -> None:
    feed = Ready()
    ends: list[Closed] = []
    app = EventStream(lambda: feed, on_close=ends.append, farewell=ServerSentEvent("bye"))

    async with connect(app) as stream:
        await anyio.sleep(1)
        feed.put(b"data: a\n\n")
        counts = await drain()
        await stream.wait_closed()

    assert counts == (1, 0, 0)
    assert stream.body == OPEN + b"data: a\n\ndata: bye\n\n"
    assert stream.complete
    assert ends == [Closed("shutdown", 1, 1, 23, None)]


async def test_a_feed_that_raises_is_an_error() -> None:
    class Broken(Ready):
        def take(self) -> tuple[int, bytes, bool]:
            raise boom

    boom = Boom()
    feed = Broken()
    ends: list[Closed] = []

    stream = await answer(EventStream(lambda: feed, on_close=ends.append))

    assert stream.error is boom
    assert feed.detached == 1
    assert [end.reason for end in ends] == ["error"]


# Timeouts of the source's own, while it is not its turn.


async def test_a_timeout_around_a_yield_is_raised_there() -> None:
    """
    It passes while the client is slow, and the source waits at its yield (PEP 789).
    """
    timed_out = []

    async def source() -> AsyncIterator[str]:
        for n in range(3):
            with anyio.move_on_after(10) as timeout:
                await anyio.sleep(1)
                yield f"{n}"
                await anyio.sleep(1)
            timed_out.append((n, anyio.current_time(), timeout.cancelled_caught))
        yield "end"

    async with connect(EventStream(source, buffer_size=0, send_timeout=None)) as stream:
        stream.stall()
        await anyio.sleep(100)
        stream.resume()
        await stream.wait_closed()

    # The first yield waits from 1 on, the second one begins to wait at 11.
    assert timed_out == [(0, 10, True), (1, 20, True), (2, 30, True)]
    assert stream.complete
    assert [event.data for event in stream.events] == ["0", "1", "2", "end"]


async def test_a_source_may_end_on_a_timeout_around_its_yield() -> None:
    async def source() -> AsyncIterator[str]:
        with anyio.move_on_after(10):
            await anyio.sleep(1)
            yield "a"
            yield "never"

    async with connect(EventStream(source, buffer_size=0, send_timeout=None)) as stream:
        stream.stall()
        await anyio.sleep(100)
        stream.resume()
        await stream.wait_closed()

    assert stream.error is None
    assert stream.complete
    assert [event.data for event in stream.events] == ["a"]


@pytest.mark.parametrize("made_by", ["a generator", "a class"])
async def test_a_timeout_around_the_whole_stream_ends_it(made_by: str) -> None:
    async def items() -> AsyncIterator[str]:
        while True:
            await anyio.sleep(1)
            yield "a"

    class Items:
        def __aiter__(self) -> "Items":
            return self

        async def __anext__(self) -> str:
            await anyio.sleep(1)
            return "a"

    @asynccontextmanager
    async def source() -> AsyncIterator[Any]:
        with anyio.move_on_after(10):
            yield items() if made_by == "a generator" else Items()

    async with connect(EventStream(source, buffer_size=0, send_timeout=None)) as stream:
        stream.stall()
        await anyio.sleep(100)
        stream.resume()
        await stream.wait_closed()

    assert stream.error is None
    assert stream.complete
    assert [event.data for event in stream.events] == ["a"]


# The start, deferred; keep-alives on a clock of their own


async def test_open_delay_waits_for_the_first_event() -> None:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(3)
        yield "a"

    async with connect(EventStream(source, open_delay=5)) as stream:
        await stream.wait_closed()

    assert [(chunk.time, chunk.body) for chunk in stream.chunks] == [(3, b":\n\ndata: a\n\n")]


async def test_open_delay_is_not_longer_than_it_says() -> None:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(3)
        yield "a"

    async with connect(EventStream(source, open_delay=2)) as stream:
        await stream.wait_closed()

    assert [(chunk.time, chunk.body) for chunk in stream.chunks] == [
        (2, b":\n\n"),
        (3, b"data: a\n\n"),
    ]


async def test_source_may_refuse_within_the_open_delay() -> None:
    async def source() -> AsyncIterator[str]:
        await anyio.sleep(3)
        raise Refused(404)
        yield "never"

    async with connect(EventStream(source, open_delay=5)) as stream:
        assert stream.status == 404


async def test_keep_alive_always_comes_between_events() -> None:
    async def source() -> AsyncIterator[str]:
        for n in range(3):
            yield f"{n}"
            await anyio.sleep(1.5)

    async with connect(EventStream(source, keep_alive=2, keep_alive_always=True)) as stream:
        await stream.wait_closed()

    assert [(chunk.time, chunk.body) for chunk in stream.chunks if chunk.body] == [
        (0, b":\n\ndata: 0\n\n"),
        (1.5, b"data: 1\n\n"),
        (2, b":\n"),
        (3, b"data: 2\n\n"),
        (4, b":\n"),
    ]


async def test_keep_alive_always_lets_a_source_without_a_buffer_go_on() -> None:
    """
    When each send takes as long as from one keep-alive to the next.
    """

    async def source() -> AsyncIterator[str]:
        for n in range(3):
            yield f"{n}"
            await anyio.sleep(0.5)

    server = Server()

    async def send(message: Any) -> None:
        await anyio.sleep(1)
        await server.send(message)

    app = EventStream(source, buffer_size=0, keep_alive=1, keep_alive_always=True)
    with anyio.fail_after(60):
        await app(http_scope(), server.receive, send)

    assert server.body.replace(b":\n", b"") == b"\ndata: 0\n\ndata: 1\n\ndata: 2\n\n"
