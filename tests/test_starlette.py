"""
What sse-starlette does is done, and better where its users had to complain.
"""

import inspect
import re
import signal
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import asgi_sse
from asgi import NO_BODY, Server, http_scope
from asgi_sse import Channel, EventStream, Limiter, drain
from asgi_sse._options import Options
from asgi_sse._source import Source
from asgi_sse.starlette import (
    AppStatus,
    EventSourceResponse,
    EventStreamResponse,
    JSONServerSentEvent,
    SendTimeoutError,
    ServerSentEvent,
    ensure_bytes,
)
from asgi_sse.testing import Stream, connect


@pytest.fixture(autouse=True)
def _reset(monkeypatch: pytest.MonkeyPatch) -> None:
    # As the tests of many programs do.
    monkeypatch.setattr("asgi_sse.starlette.AppStatus.should_exit", False)
    monkeypatch.setattr("asgi_sse.starlette.AppStatus.should_exit_event", None)
    monkeypatch.setattr(AppStatus, "enable_automatic_graceful_drain", True)


class Events:
    """
    An async iterable of items with seconds between them, and what became of it.
    """

    def __init__(self, *items: Any, every: float = 0, then: float | Exception = 0) -> None:
        self.items = items
        self.every = every
        self.then = then
        self.ended = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                yield item
                if self.every:
                    await anyio.sleep(self.every)
            if isinstance(self.then, Exception):
                raise self.then
            await anyio.sleep(self.then)
        finally:
            # Where sse-starlette cuts a cleanup off.
            await anyio.sleep(0.1)
            self.ended = True


async def note(log: list[str], entry: str) -> None:
    # A function that is not async would run in a thread, which sees the clock jump.
    log.append(entry)


# What an item becomes


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        pytest.param("a", b"data: a\r\n\r\n", id="text"),
        pytest.param(
            "a\nb\rc\r\nd", b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n\r\n", id="lines"
        ),
        pytest.param("", b"data: \r\n\r\n", id="empty"),
        pytest.param(7, b"data: 7\r\n\r\n", id="number"),
        pytest.param(None, b"data: None\r\n\r\n", id="none"),
        pytest.param(b"data: x\n\n", b"data: x\n\n", id="bytes"),
        pytest.param(b"half", b"half", id="bytes-are-not-looked-at"),
        pytest.param(memoryview(b"data: x\n\n"), b"data: x\n\n", id="memoryview"),
        pytest.param({"data": 1}, b"data: 1\r\n\r\n", id="dict"),
        pytest.param(
            {"comment": "c\nd", "id": "7", "event": "e", "data": "x\ny", "retry": 9},
            b": c\r\n: d\r\nid: 7\r\nevent: e\r\ndata: x\r\ndata: y\r\nretry: 9\r\n\r\n",
            id="order",
        ),
        pytest.param({"id": 7, "data": ""}, b"id: 7\r\ndata: \r\n\r\n", id="int-id"),
        pytest.param(
            {"id": "a\r\nb", "event": "c\nd"}, b"id: ab\r\nevent: cd\r\n\r\n", id="injection"
        ),
        pytest.param(ServerSentEvent("a", sep="\n"), b"data: a\n\n", id="event-with-sep"),
        pytest.param(ServerSentEvent(), b"\r\n", id="nothing"),
        pytest.param(
            JSONServerSentEvent({"a": "ü"}, id="1"),
            'id: 1\r\ndata: {"a":"ü"}\r\n\r\n'.encode(),
            id="json",
        ),
        pytest.param(JSONServerSentEvent(None, event="e"), b"event: e\r\n\r\n", id="json-of-none"),
        pytest.param(
            asgi_sse.ServerSentEvent("a", id=1), b"id: 1\ndata: a\n\n", id="event-of-the-core"
        ),
    ],
)
def test_item_becomes_bytes(item: Any, wire: bytes) -> None:
    assert ensure_bytes(item, "\r\n") == wire
    assert ensure_bytes(item, None) == wire


def test_events_can_be_changed_until_they_are_sent() -> None:
    event = ServerSentEvent("a")
    event.data = "b"

    assert event.encode() == b"data: b\r\n\r\n"


def test_retry_that_is_no_int_is_refused() -> None:
    with pytest.raises(TypeError, match=r"retry must be an int \(got 'soon'\)"):
        ServerSentEvent(retry="soon").encode()  # type: ignore[arg-type]


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        JSONServerSentEvent(float("nan"))


@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n", None])
async def test_sep_ends_lines(sep: str | None) -> None:
    item = {"data": "a\nb"}
    async with connect(EventSourceResponse(Events(item, "c"), sep=sep)) as stream:
        await stream.wait_closed()

    assert stream.body == b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n".replace(
        b"\r\n", (sep or "\r\n").encode()
    )
    assert item == {"data": "a\nb"}


# The response


async def test_headers() -> None:
    response = EventSourceResponse(Events(then=60))
    async with connect(response) as stream:
        assert stream.status == 200
        assert dict(stream.headers) == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "connection": "keep-alive",
            "x-accel-buffering": "no",
        }
        # At once, before there is an event; and nothing else.
        assert stream.body == b""


async def test_headers_of_ones_own() -> None:
    headers = {"Cache-Control": "public, max-age=29", "Content-Type": "text/plain", "X-A": "b"}
    response = EventSourceResponse(Events(), status_code=201, headers=headers)
    response.set_cookie("a", "b")
    response.set_cookie("c", "d")
    async with connect(response) as stream:
        await stream.wait_closed()

    assert stream.status == 201
    assert stream.headers["cache-control"] == "public, max-age=29"
    assert stream.headers["content-type"] == "text/plain"
    assert stream.headers["x-a"] == "b"
    assert [value for name, value in stream.messages[0]["headers"] if name == b"set-cookie"] == [
        b"a=b; Path=/; SameSite=lax",
        b"c=d; Path=/; SameSite=lax",
    ]


@pytest.mark.parametrize("version", ["2", "3"])
async def test_connection_header_stays_out_of_http_2(version: str) -> None:
    async with connect(EventSourceResponse(Events()), scope={"http_version": version}) as stream:
        await stream.wait_closed()

    assert "connection" not in stream.headers


def test_it_is_a_response_of_starlette() -> None:
    response = EventSourceResponse([], media_type=None)

    assert isinstance(response, Response)
    assert EventSourceResponse.media_type == "text/event-stream"
    assert response.media_type == "text/event-stream"
    with pytest.raises(NotImplementedError):
        response.enable_compression()


def test_it_has_the_parameters_of_sse_starlette() -> None:
    theirs: Any = pytest.importorskip("sse_starlette.sse").EventSourceResponse
    parameters = inspect.signature(theirs).parameters
    names = [*inspect.signature(EventSourceResponse).parameters]

    assert names == [*parameters, "options"]
    for name, parameter in parameters.items():
        assert inspect.signature(EventSourceResponse).parameters[name].default == parameter.default
    for name in ("DEFAULT_PING_INTERVAL", "DEFAULT_SEPARATOR", "DEFAULT_CLEANUP_TIMEOUT"):
        assert getattr(EventSourceResponse, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sep": "x"}, ValueError, r"sep must be one of \\r\\n, \\r and \\n \(got 'x'\)"),
        ({"ping": -1}, ValueError, r"ping interval must be >= 0 \(got -1\)"),
        ({"ping": "1"}, TypeError, r"ping interval must be an int or a float \(got '1'\)"),
        ({"shutdown_grace_period": -1}, ValueError, r"shutdown_grace_period must be >= 0"),
        ({"cleanup_timeout": -1}, ValueError, r"cleanup_timeout must be >= 0 \(got -1\)"),
        ({"keep_alive": 5}, TypeError, "keep_alive is called ping here"),
        ({"status": 201}, TypeError, "status is called status_code here"),
        ({"methods": ["POST"]}, TypeError, "methods is not an option here"),
        ({"max_age": -1}, ValueError, "max_age must be finite and more than 0 seconds"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_wrong_argument_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EventSourceResponse([], **arguments)


def sync_generator() -> Iterator[str]:
    yield from "ab"


@pytest.mark.real_time
@pytest.mark.parametrize("content", [["a", "b"], sync_generator()], ids=["list", "generator"])
async def test_content_may_be_sync(content: Any) -> None:
    if inspect.isgenerator(content):
        content = sync_generator()
    async with connect(EventSourceResponse(content)) as stream:
        await stream.wait_closed()

    assert stream.body == b"data: a\r\n\r\ndata: b\r\n\r\n"
    assert stream.complete


async def test_attributes_may_be_assigned_before_the_response_is_sent() -> None:
    left: list[str] = []

    async def on_leave(message: Any) -> None:
        left.append(message["type"])

    response = EventSourceResponse(Events("a"), ping=15)
    response.body_iterator = Events("b", then=60)
    response.ping_interval = 1
    response.client_close_handler_callable = on_leave
    response.ping_message_factory = lambda: b": p\n"
    async with connect(response) as stream:
        await anyio.sleep(1.5)
        stream.disconnect()
        await stream.wait_closed()

    assert response.ping_interval == 1
    assert stream.body == b"data: b\r\n\r\n: p\n"
    assert left == ["http.disconnect"]


async def test_head_does_not_touch_the_content() -> None:
    events = Events("a", then=60)
    ran: list[str] = []
    response = EventSourceResponse(events, background=BackgroundTask(note, ran, "ran"))
    async with connect(response, method="HEAD") as stream:
        await stream.wait_closed()

    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in stream.headers
    assert ran == ["ran"]


async def test_head_has_the_headers_that_the_stream_would_have() -> None:
    class Plain(EventStreamResponse):
        def make_options(self, scope: Any) -> Options:
            return Options(headers={"x-a": "b"})

    for response in (EventSourceResponse([]), Plain()):
        heads = [(await head(response, http_version)).headers for http_version in ("1.1", "2")]
        assert all(each["content-type"] == "text/event-stream; charset=utf-8" for each in heads)
        assert all(each["x-accel-buffering"] == "no" for each in heads)
        assert "connection" not in heads[1]
        assert heads[0].get("x-a") == ("b" if isinstance(response, Plain) else None)


async def head(response: Response, http_version: str) -> Stream:
    scope = {"http_version": http_version}
    async with connect(response, method="HEAD", scope=scope) as stream:
        await stream.wait_closed()
    return stream


async def test_head_may_take_too_long() -> None:
    ran: list[str] = []
    response = EventSourceResponse([], send_timeout=2, background=BackgroundTask(note, ran, "ran"))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    with pytest.raises(SendTimeoutError):
        await response(http_scope("HEAD"), Server().receive, send)

    assert anyio.current_time() == 2
    assert ran == []


async def test_websocket_is_denied_with_the_stream() -> None:
    scope = {**http_scope(), "type": "websocket"}
    del scope["method"]
    server = Server({"type": "websocket.connect"})

    await server.call(EventSourceResponse(Events("a")), scope)

    assert [message["type"] for message in server.sent] == [
        "websocket.http.response.start",
        *["websocket.http.response.body"] * (len(server.sent) - 1),
    ]
    assert server.body == b"data: a\r\n\r\n"
    assert not server.sent[-1]["more_body"]


def test_base_for_adapters_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError):
        EventStreamResponse().make_source()
    with pytest.raises(NotImplementedError):
        EventStreamResponse().make_options({})


async def test_base_for_adapters_needs_no_more_than_two_methods() -> None:
    class Numbers(EventStreamResponse):
        def make_source(self) -> Source:
            return Source([1, 2])

        def make_options(self, scope: Any) -> Options:
            return Options()

    async with connect(Numbers(status_code=202)) as stream:
        await stream.wait_closed()

    assert stream.status == 202
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert "content-length" not in stream.headers
    assert stream.body == b":\n\ndata: 1\n\ndata: 2\n\n"


# Options


async def test_options_of_an_event_stream_are_understood() -> None:
    closed: list[str] = []
    response = EventSourceResponse(
        Events("a", then=KeyError("b")),
        retry=5000,
        on_error=lambda exc: asgi_sse.ServerSentEvent(type(exc).__name__, event="error"),
        on_close=lambda info: closed.append(info.reason),
    )
    async with connect(response) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, KeyError)
    assert stream.body == b":\nretry: 5000\ndata: a\r\n\r\nevent: error\ndata: KeyError\n\n"
    assert closed == ["error"]


async def test_door_is_that_of_an_event_stream() -> None:
    ran: list[str] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("a page")(scope, receive, send)

    limit = Limiter(total=1)

    async def respond(request: Request) -> Response:
        return EventSourceResponse(
            Events("a", then=60),
            headers={"x-a": "b"},
            background=BackgroundTask(note, ran, "ran"),
            allow_origins=["https://example.org"],
            fallback=page,
            limit=limit,
            compress=True,
        )

    app = Starlette(routes=[Route("/", respond, methods=["GET", "POST"])])
    headers = {"origin": "https://example.org", "accept-encoding": "gzip"}
    async with connect(app, headers=headers, method="POST") as stream:
        assert stream.status == 200
        assert stream.headers["x-a"] == "b"
        assert stream.headers["content-encoding"] == "gzip"
        assert stream.headers["access-control-allow-origin"] == "https://example.org"
        await stream.wait_chunks(1)
        body = b"".join(message.get("body", b"") for message in stream.messages)
        assert zlib.decompressobj(31).decompress(body) == b"data: a\r\n\r\n"

        async with connect(app) as late:
            await late.wait_closed()
        assert late.body.startswith(b":\nretry: ")
        async with connect(app, headers={"accept": "text/html"}) as other:
            await other.wait_closed()
        assert other.body == b"a page"
        async with connect(app, method="HEAD", headers=headers) as head:
            await head.wait_closed()
        assert head.headers["content-encoding"] == "gzip"
    assert ran == ["ran"] * 4


async def test_end_of_an_event_stream() -> None:
    async def respond(request: Request) -> Response:
        events = [{"id": "1", "data": "a"}]
        return EventSourceResponse(aiterate(events), end="stop", done="[DONE]")

    app = Starlette(routes=[Route("/", respond)])
    async with connect(app) as stream:
        await stream.wait_closed()
    async with connect(app, last_event_id=stream.last_event_id) as again:
        await again.wait_closed()

    assert [event.data for event in stream.events if event.data] == ["a", "[DONE]"]
    assert again.status == 204


def test_codings_are_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    response = EventSourceResponse([], compress=["gzip"])
    monkeypatch.setattr("asgi_sse._compress.COMPRESSORS", {})

    assert response.make_options({}).codings == ("gzip",)
    assert EventSourceResponse([]).make_options({}).codings == ()


@pytest.mark.parametrize("sep", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(
    "done",
    [
        "[DONE]",
        7,
        {"event": "end", "data": "bye"},
        ServerSentEvent("bye", event="end", sep="\r"),
        asgi_sse.ServerSentEvent("bye"),
        b": bye\n\n",
    ],
)
async def test_last_item_is_written_as_any_other(done: Any, sep: str) -> None:
    async def respond(request: Request) -> Response:
        return EventSourceResponse(aiterate(["a"]), sep=sep, done=done)

    async with connect(Starlette(routes=[Route("/", respond)])) as stream:
        await stream.wait_closed()

    assert stream.body == ensure_bytes("a", sep) + ensure_bytes(done, sep)


def test_last_item_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="done must be what a source may yield"):
        EventSourceResponse([], done={"colour": "red"})


async def aiterate(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def test_type_checkers_know_the_options() -> None:
    EventSourceResponse([], buffer_size=0, on_error=lambda exc: None)
    with pytest.raises(TypeError):
        EventSourceResponse([], keep_alive=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        EventSourceResponse([], buffer_size="0")  # type: ignore[arg-type]


async def test_ping_may_wait_for_silence() -> None:
    """
    sse-starlette's pings do not.
    """
    response = EventSourceResponse(
        Events("a", "b", every=1.5),
        ping=2,
        ping_message_factory=lambda: b": p\n",
        keep_alive_always=False,
    )
    async with connect(response) as stream:
        await stream.wait_closed()

    assert stream.body == b"data: a\r\n\r\ndata: b\r\n\r\n"


async def test_content_may_be_kept_from_running_ahead() -> None:
    """
    sse-starlette resumes its content when the server has taken the item.
    """
    sent: list[int] = []

    async def content() -> AsyncIterator[str]:
        for text in "abc":
            yield text
            sent.append(len(server.sent))

    server = Server()
    await server.call(EventSourceResponse(content(), buffer_size=0))

    assert sent == [2, 3, 4]


@pytest.mark.parametrize("options", [{"max_age": 3}, {"open_delay": 3}])
async def test_times_of_an_event_stream(options: dict[str, Any]) -> None:
    events = Events(then=5)
    async with connect(EventSourceResponse(events, **options)) as stream:
        await stream.wait_closed()

    assert stream.complete
    assert stream.body.startswith(b"retry: ") == ("max_age" in options)


# Pings


async def test_ping_fires_on_its_own_clock() -> None:
    response = EventSourceResponse(
        Events("a", "b", "c", every=0.7), ping=1, ping_message_factory=lambda: ": p"
    )
    async with connect(response) as stream:
        await stream.wait_closed()

    assert [(round(chunk.time, 1), chunk.body) for chunk in stream.chunks if chunk.body] == [
        (0.0, b"data: a\r\n\r\n"),
        (0.7, b"data: b\r\n\r\n"),
        (1.0, b"data: : p\r\n\r\n"),
        (1.4, b"data: c\r\n\r\n"),
        (2.0, b"data: : p\r\n\r\n"),
    ]


async def test_default_ping_tells_the_time() -> None:
    async with connect(EventSourceResponse(Events(then=20), sep="\n")) as stream:
        await anyio.sleep(16)

        assert re.fullmatch(rb": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*\n\n", stream.body)


@pytest.mark.parametrize(
    ("ping", "wire"),
    [
        (ServerSentEvent(comment="p"), b": p\r\n\r\n"),
        ({"event": "ping"}, b"event: ping\r\n\r\n"),
        ("p", b"data: p\r\n\r\n"),
        (b": p\n", b": p\n"),
        (asgi_sse.ServerSentEvent(comment="p"), b": p\n"),
    ],
)
async def test_ping_may_be_anything(ping: Any, wire: bytes) -> None:
    response = EventSourceResponse(Events(then=1), ping=0.75, ping_message_factory=lambda: ping)
    async with connect(response) as stream:
        await stream.wait_closed()

    assert stream.body == wire


@pytest.mark.parametrize("ping", [0, float("inf")])
async def test_no_ping(ping: float) -> None:
    async with connect(EventSourceResponse(Events(then=100), ping=ping)) as stream:
        await stream.wait_closed(200)

    assert stream.body == b""


async def test_ping_that_fails_does_not_end_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    """
    In sse-starlette it does.
    """

    def fail() -> Any:
        raise ValueError("no ping")

    response = EventSourceResponse(Events(then=3), ping=2, ping_message_factory=fail)
    async with connect(response) as stream:
        await stream.wait_closed()

    assert stream.body == b":\n"
    assert stream.complete
    assert "no ping" in caplog.text


# Ends


async def test_what_the_content_raises_comes_out_bare() -> None:
    ran: list[str] = []
    cause = ValueError("cause")
    error = KeyError("a")
    error.__cause__ = cause
    for sender in (None, anyio.sleep_forever):
        events = Events("a", then=error)
        response = EventSourceResponse(
            events, background=BackgroundTask(note, ran, "ran"), data_sender_callable=sender
        )
        async with connect(response) as stream:
            await stream.wait_closed()

            assert stream.error is error
            assert error.__cause__ is cause
        assert stream.body == b"data: a\r\n\r\n"
        assert not stream.complete
        assert events.ended
    assert ran == []


async def test_item_that_cannot_be_encoded_ends_the_stream() -> None:
    events = Events("a", {"colour": "red"}, then=60)
    async with connect(EventSourceResponse(events)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, TypeError)
        assert "colour" in str(stream.error)
    assert stream.body == b"data: a\r\n\r\n"
    assert events.ended


async def test_error_of_an_item_comes_out_as_it_is() -> None:
    class Special(ValueError):
        def __str__(self) -> str:
            raise self

    special = Special()
    async with connect(EventSourceResponse(Events("a", special))) as stream:
        await stream.wait_closed()

        assert stream.error is special
        assert [note.split(" yielded ")[1] for note in special.__notes__] == ["Special()"]


async def test_background_runs_after_the_end_and_after_a_disconnect() -> None:
    ran: list[str] = []
    response = EventSourceResponse(Events("a"), background=BackgroundTask(note, ran, "end"))
    async with connect(response) as stream:
        await stream.wait_closed()
    assert not response.active

    events = Events("a", then=60)
    response = EventSourceResponse(events, background=BackgroundTask(note, ran, "left"))
    async with connect(response) as stream:
        stream.disconnect()
        await stream.wait_closed()

    assert ran == ["end", "left"]
    assert events.ended


async def test_client_that_leaves_is_told_of_before_the_content_is_cancelled() -> None:
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            await anyio.sleep(60)
            yield "never"
        finally:
            log.append("cancelled")

    async def on_leave(message: Any) -> None:
        await anyio.sleep(1)
        log.append(message["type"])

    response = EventSourceResponse(source(), client_close_handler_callable=on_leave)
    async with connect(response) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()

    assert log == ["http.disconnect", "cancelled"]


async def test_late_message_does_not_cut_the_end_off() -> None:
    """
    In sse-starlette a late http.request ends the response before its final chunk.
    """
    server = Server(NO_BODY, NO_BODY, NO_BODY)

    await server.call(EventSourceResponse(Events("a")))

    assert server.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_send_timeout() -> None:
    events = Events("x" * 100_000, "y", then=60)
    ran: list[str] = []
    response = EventSourceResponse(
        events, send_timeout=2, background=BackgroundTask(note, ran, "ran")
    )
    async with connect(response) as stream:
        stream.stall()
        await stream.wait_closed()

        assert isinstance(stream.error, SendTimeoutError)
    assert events.ended
    assert ran == []


@pytest.mark.parametrize("cleanup_timeout", [0, 2, None])
async def test_cleanup_timeout(cleanup_timeout: float | None) -> None:
    ended: list[float] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep(60)
        finally:
            try:
                await anyio.sleep(10)
            finally:
                ended.append(anyio.current_time())

    async with connect(EventSourceResponse(source(), cleanup_timeout=cleanup_timeout)) as stream:
        await stream.wait_chunks(1)
        began = anyio.current_time()
        stream.disconnect()
        await stream.wait_closed(30)

    [end] = ended
    assert round(end - began, 1) == (10 if cleanup_timeout is None else cleanup_timeout)


# What runs beside it


async def fill(send: Any, count: int) -> None:
    async with send:
        for n in range(count):
            await send.send({"id": str(n), "data": n})


async def test_data_sender_fills_a_stream_of_dicts() -> None:
    """
    This is what the MCP SDK does.
    """
    send, receive = anyio.create_memory_object_stream[dict[str, Any]](0)

    async def sender() -> None:
        await fill(send, 2)

    response = EventSourceResponse(content=receive, data_sender_callable=sender)
    async with connect(response) as stream:
        await stream.wait_closed()

    assert stream.body == b"id: 0\r\ndata: 0\r\n\r\nid: 1\r\ndata: 1\r\n\r\n"
    # It is closed, or a ResourceWarning would say so.
    with pytest.raises(anyio.ClosedResourceError):
        receive.receive_nowait()


@pytest.mark.parametrize("end", ["disconnect", "finish"])
async def test_data_sender_is_cancelled_with_the_response(end: str) -> None:
    log: list[str] = []
    send, receive = anyio.create_memory_object_stream[str](0)

    async def sender() -> None:
        try:
            while True:
                await send.send("a")
                await anyio.sleep(1)
        except BaseException as exc:
            log.append(type(exc).__name__)
            raise
        finally:
            send.close()

    async def first(stream: MemoryObjectReceiveStream[str]) -> AsyncIterator[str]:
        async with stream:
            yield await stream.receive()
            yield await stream.receive()

    content = receive if end == "disconnect" else first(receive)
    async with connect(EventSourceResponse(content, data_sender_callable=sender)) as stream:
        await stream.take(2)
        if end == "disconnect":
            stream.disconnect()
        await stream.wait_closed()

    assert (
        log
        in (["CancelledError"], ["Cancelled"], ["BrokenResourceError"])[
            : 2 if end == "disconnect" else 3
        ]
    )


async def test_data_sender_that_fails_ends_the_response() -> None:
    async def fail() -> None:
        await anyio.sleep(1)
        raise KeyError("sender")

    events = Events("a", then=60)
    async with connect(EventSourceResponse(events, data_sender_callable=fail)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, KeyError)
    assert events.ended
    assert not stream.complete


async def test_content_that_fails_hides_what_fails_after_it() -> None:
    async def fail() -> None:
        try:
            await anyio.sleep(60)
        finally:
            raise ValueError("sender")

    response = EventSourceResponse(Events(then=KeyError("content")), data_sender_callable=fail)
    async with connect(response) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, KeyError)


async def test_data_sender_that_fails_at_the_end_makes_the_response_fail() -> None:
    async def fail() -> None:
        try:
            await anyio.sleep(60)
        finally:
            raise ValueError("sender")

    async with connect(EventSourceResponse(Events("a"), data_sender_callable=fail)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, ValueError)


# Shutdown


async def test_shutdown_event_is_set_and_the_grace_kept() -> None:
    closing = anyio.Event()

    async def source() -> AsyncIterator[str]:
        await closing.wait()
        await anyio.sleep(1)
        yield "bye"

    response = EventSourceResponse(source(), shutdown_event=closing, shutdown_grace_period=2)
    async with connect(response) as stream:
        await anyio.sleep(1)
        await drain()
        await stream.wait_closed()

    assert stream.body.startswith(b"data: bye\r\n\r\nretry: ")
    assert stream.complete


@pytest.mark.parametrize("grace", [0, 3])
async def test_grace_is_bounded(grace: float) -> None:
    events = Events("a", then=60)
    async with connect(EventSourceResponse(events, shutdown_grace_period=grace)) as stream:
        await anyio.sleep(1)
        before = anyio.current_time()
        await drain()

        assert round(anyio.current_time() - before, 1) == grace + 0.1
    assert events.ended
    assert stream.complete


async def test_should_exit_ends_streams_old_and_new() -> None:
    async with connect(EventSourceResponse(Events("a", then=60))) as stream:
        await stream.wait_chunks(1)
        AppStatus.should_exit = True
        await stream.wait_closed()
    assert stream.complete

    async with connect(EventSourceResponse(Events(then=60))) as stream:
        await stream.wait_closed()
    assert stream.complete

    AppStatus.should_exit = False
    async with connect(EventSourceResponse(Events("a", then=60))) as stream:
        await stream.wait_chunks(1)
        assert not stream.closed


def test_switches_of_app_status() -> None:
    called: list[Any] = []
    AppStatus.disable_automatic_graceful_drain()
    AppStatus.handle_exit(15, None)
    assert not AppStatus.should_exit

    AppStatus.enable_automatic_graceful_drain_mode()
    AppStatus.original_handler = lambda *args: called.append(args)
    try:
        AppStatus.handle_exit(15, None)
    finally:
        AppStatus.original_handler = None

    assert AppStatus.should_exit
    assert called == [(15, None)]


@pytest.mark.parametrize("learns", [True, False])
async def test_streams_may_be_left_alone_when_the_server_stops(learns: bool) -> None:
    if not learns:
        AppStatus.disable_automatic_graceful_drain()
    options = EventSourceResponse([]).make_options({})

    assert options.watch_shutdown is learns


# Subclasses


class Copied(EventSourceResponse):
    """
    A response that answers by itself, as langgraph-api has it.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:

            async def until_over(function: Any, *args: Any) -> None:
                await function(*args)
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_over, self.stream_response, send)
            tasks.start_soon(until_over, self._listen_for_exit_signal)
            await until_over(self._listen_for_disconnect, receive)

    async def stream_response(self, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for data in self.body_iterator:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.mark.parametrize("how", ["finish", "disconnect", "signal", "should_exit"])
async def test_subclass_may_answer_by_itself(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    # A server has one.
    handler = signal.signal(signal.SIGTERM, lambda *args: None)

    async def on_leave(message: Any) -> None:
        left.append(message["type"])

    events = Events(b"data: a\n\n", then=0 if how == "finish" else 60)

    async def respond(request: Request) -> Response:
        return Copied(events, client_close_handler_callable=on_leave)

    async with connect(Starlette(routes=[Route("/", respond)])) as stream:
        await anyio.sleep(1)
        if how == "disconnect":
            stream.disconnect()
        elif how == "signal":
            signal.raise_signal(signal.SIGTERM)
        elif how == "should_exit":
            AppStatus.should_exit = True
            # Also for who comes later.
            await EventSourceResponse._listen_for_exit_signal()
        await stream.wait_closed()
    signal.signal(signal.SIGTERM, handler)

    assert stream.complete == (how == "finish")
    assert stream.body == b"data: a\n\n"
    assert left == (["http.disconnect"] if how == "disconnect" else [])


async def test_who_answers_by_itself_leaves_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where granian is imported, too, for which the engine leaves one.
    """
    monkeypatch.setitem(sys.modules, "granian", ModuleType("granian"))
    before = signal.signal(signal.SIGTERM, lambda *args: None)
    server = signal.getsignal(signal.SIGTERM)
    with anyio.move_on_after(1):
        await EventSourceResponse._listen_for_exit_signal()
    after = signal.signal(signal.SIGTERM, before)

    assert after is server


@pytest.mark.parametrize("name", ["_ping", "_stream_response", "_send_with_timeout"])
def test_override_that_is_never_called_is_warned_of(name: str) -> None:
    async def override(*args: Any) -> None: ...

    with pytest.warns(RuntimeWarning, match=f"Mine.{name} is never called"):
        type("Mine", (EventSourceResponse,), {name: override, "__qualname__": "Mine"})
    # Not if it is called by the class itself.
    type("Mine", (EventSourceResponse,), {name: override, "__call__": override})


# In an app


async def endpoint(request: Request) -> EventSourceResponse:
    if request.query_params.get("who") == "nobody":
        raise HTTPException(403, "not you")
    return EventSourceResponse(Events("a", {"data": "b"}))


@pytest.mark.parametrize("form", ["endpoint", "returned", "drop-in", "grace"])
async def test_channel_is_what_an_endpoint_gives(form: str) -> None:
    news = Channel()

    async def respond(request: Request) -> Any:
        if form == "returned":
            return EventStream(news)
        subscription = news.subscribe(request.headers.get("last-event-id"))
        return EventSourceResponse(subscription, shutdown_grace_period=1 if form == "grace" else 0)

    app = Starlette(routes=[Route("/", EventStream(news) if form == "endpoint" else respond)])
    async with connect(app) as stream:
        await stream.wait_chunks(form in ("endpoint", "returned"))
        first = await news.publish("a")
        await news.publish("b")
        assert [event.data for event in await stream.take(2)] == ["a", "b"]
    async with connect(app, last_event_id=first) as stream:
        assert (await stream.next_event()).data == "b"


async def test_exception_before_the_first_wait_is_answered_by_the_framework() -> None:
    """
    sse-starlette has sent its headers by then.
    """

    async def content() -> AsyncIterator[str]:
        raise HTTPException(404, "no such room")
        yield

    async def respond(request: Request) -> Response:
        return EventSourceResponse(content())

    async with connect(Starlette(routes=[Route("/", respond)])) as stream:
        await stream.wait_closed()

    assert stream.status == 404
    assert stream.body == b"no such room"


async def of_the_core(request: asgi_sse.Request) -> AsyncIterator[str]:
    yield f"{request.path_params}"


CORE = EventStream(of_the_core)


async def returns_the_core(_: Request) -> Any:
    return CORE


APP = Starlette(
    routes=[
        Route("/events", endpoint),
        Route("/core/{n:int}", CORE),
        Route("/returned/{n}", returns_the_core),
        Mount("/mounted", CORE),
    ]
)


def test_test_client_of_starlette_reads_a_stream() -> None:
    with TestClient(APP) as client:
        assert client.get("/events").text == "data: a\r\n\r\ndata: b\r\n\r\n"
        assert client.head("/events").text == ""
        assert client.get("/events?who=nobody").status_code == 403
        assert client.post("/events").status_code == 405


@pytest.mark.parametrize(
    ("path", "params"),
    [("/core/7", {"n": 7}), ("/returned/7", {"n": "7"}), ("/mounted/", {})],
)
async def test_event_stream_of_the_core_is_an_endpoint(path: str, params: dict[str, Any]) -> None:
    async with connect(APP, path) as stream:
        assert stream.status == 200
        event = await stream.next_event()

    assert event.data == f"{params}"
