"""
A client and a server in one test, without sockets.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse.testing import Headers, Temper, connect, serve
from bare import HEADERS, body, clock, slow_clock, start, streaming


def tick(number: int) -> ServerSentEvent:
    return ServerSentEvent(f"tick {number}", id=number)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request."""
    parts = []
    while True:
        message = await receive()
        parts.append(message["body"])
        if not message["more_body"]:
            break
    await start(send, headers=[(b"content-type", b"text/plain")])
    await body(send, repr((scope, parts)).encode(), more=False)


async def asked(**options: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Return what an app is called with."""
    async with connect(echo, **{"path": "/", "lifespan": False, **options}) as response:
        scope, parts = eval(await response.read())
    return scope, parts


# What a client sees.


async def test_events_are_those_of_a_client() -> None:
    async with connect(clock) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await stream.next_event() == tick(1)
        assert await stream.take(2) == [tick(2), tick(3)]
        assert stream.events == [tick(1), tick(2), tick(3)]
        assert stream.last_event_id == "3"
        assert stream.comments == [""]
        assert not stream.complete
        assert not stream.closed
    assert stream.closed
    assert stream.problems == []


async def test_chunks_have_the_seconds_since_the_request() -> None:
    await anyio.sleep(0.1)
    async with connect(clock) as stream:
        await stream.take(3)

        assert stream.chunks == [
            (0, b":\n\n"),
            (0, b"id: 1\ndata: tick 1\n\n"),
            (1, b"id: 2\ndata: tick 2\n\n"),
            (2, b"id: 3\ndata: tick 3\n\n"),
        ]
        assert stream.body == b"".join(chunk.body for chunk in stream.chunks)


async def test_comments_are_found_however_they_are_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b": o")
        await body(send, b"ne\r")
        await body(send, b"\n:two\r: three\nno: comment\n:\xff\n", more=False)

    async with connect(app) as stream:
        await stream.read()
        assert stream.comments == ["one", "two", "three", "\ufffd"]


async def test_iteration_ends_with_the_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\ndata: 2\n\nda")
        await body(send, b"ta: 3\n\ndata: lost\n", more=False)

    async with connect(app) as stream:
        assert [event.data async for event in stream] == ["1", "2", "3"]
        assert stream.complete


async def test_a_request_is_that_of_an_event_source() -> None:
    scope, parts = await asked()

    assert parts == [b""]
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"testserver"),
            (b"accept", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "state": {},
    }


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"method": "post"}, "method", "POST"),
        ({"path": "/caf%C3%A9 x"}, "path", "/café x"),
        ({"path": "/caf%C3%A9 x"}, "raw_path", b"/caf%C3%A9%20x"),
        ({"path": "/?a=1"}, "query_string", b"a=1"),
        ({"query": {"a": [1, 2]}}, "query_string", b"a=1&a=2"),
        ({"path": "/?a=1", "query": "b=2"}, "query_string", b"a=1&b=2"),
        ({"query": [("a", "&")]}, "query_string", b"a=%26"),
        ({"scope": {"root_path": "/api"}}, "root_path", "/api"),
        ({"server": Temper(spec_version=None)}, "asgi", {"version": "3.0"}),
    ],
)
async def test_scope_of_a_request(options: dict[str, Any], key: str, value: object) -> None:
    scope, _ = await asked(**options)

    assert scope[key] == value


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"last_event_id": "ä"}, (b"last-event-id", b"\xc3\xa4")),
        ({"cookies": {"a": "1", "b": "2"}}, (b"cookie", b"a=1; b=2")),
        ({"body": "ä"}, (b"content-length", b"2")),
        ({"json": {"a": 1}}, (b"content-type", b"application/json")),
        ({"headers": {"ACCEPT": "*/*"}}, (b"accept", b"*/*")),
        ({"headers": [("x-bytes", b"\xff"), ("x-number", 1)]}, (b"x-bytes", b"\xff")),
    ],
)
async def test_headers_of_a_request(options: dict[str, Any], header: object) -> None:
    scope, _ = await asked(**options)

    names = [name for name, _ in scope["headers"]]
    assert header in scope["headers"]
    assert len(names) == len(set(names))


async def test_body_of_a_request() -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield b"a"
        await anyio.sleep(1)
        yield b"b"

    assert (await asked(body=b"a"))[1] == [b"a"]
    assert (await asked(json=[1]))[1] == [b"[1]"]
    assert (await asked(body=upload()))[1] == [b"a", b"b", b""]
    with pytest.raises(TypeError, match=r"body and json exclude each other \(got both\)"):
        await asked(body=b"a", json=1)


def test_headers_have_no_case_and_may_repeat() -> None:
    headers = Headers([(b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"x", b"\xff")])

    assert headers["SET-cookie"] == "a"
    assert headers.get_all("Set-Cookie") == ["a", "b"]
    assert dict(headers) == {"set-cookie": "a", "x": "ÿ"}
    assert len(headers) == 2
    assert headers.get("y") is None
    assert repr(headers) == "Headers([('set-cookie', 'a'), ('set-cookie', 'b'), ('x', 'ÿ')])"


# What does not come.


async def test_an_event_that_does_not_come_is_a_timeout() -> None:
    async with connect(slow_clock) as stream:
        await stream.next_event()

        with pytest.raises(TimeoutError) as caught:
            await stream.next_event(timeout=1)

        assert str(caught.value) == (
            "no event within 1 s: the response is open, 1 events so far, "
            "the last chunk at 0 s: b'id: 1\\ndata: tick 1\\n\\n'"
        )
        assert await stream.next_event(timeout=None) == tick(2)
        assert anyio.current_time() == 100


async def test_what_takes_as_long_as_the_timeout_is_in_time() -> None:
    async with connect(slow_clock, timeout=100) as stream:
        assert await stream.take(3) == [tick(1), tick(2), tick(3)]
        assert anyio.current_time() == 200


async def test_timeout_of_all_waits() -> None:
    async with connect(slow_clock, timeout=200) as stream:
        assert await stream.take(3) == [tick(1), tick(2), tick(3)]
        with pytest.raises(TimeoutError, match="no end of the app within 200 s"):
            await stream.wait_closed()
        with pytest.raises(TimeoutError, match="no end of the response within 1 s"):
            await stream.read(timeout=1)


async def test_no_events_after_the_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\n", more=False)

    async with connect(app) as stream:
        await stream.next_event()
        with pytest.raises(anyio.EndOfStream, match="no more events: the response is complete"):
            await stream.next_event()


async def test_a_response_that_is_cut_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"data: 1\n\n")

    async with connect(app) as stream:
        await stream.next_event()
        with pytest.raises(
            anyio.EndOfStream, match=r"the app returned without a final http\.response\.body"
        ):
            await stream.next_event()
        assert stream.closed
        assert not stream.complete


async def test_what_is_no_event_stream_has_no_events() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, status=404, headers=[])
        await body(send, b"data: not an event\n\n", more=False)

    async with connect(app) as response:
        with pytest.raises(
            anyio.EndOfStream, match="status 404 and content type None are no event stream"
        ):
            await response.next_event()
        assert response.status == 404
        assert await response.read() == b"data: not an event\n\n"


async def test_a_response_that_does_not_start() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        pass

    with pytest.raises(
        TimeoutError, match=r"no http\.response\.start within 1 s: the app has sent nothing"
    ):
        async with connect(silent, timeout=1, lifespan=False):
            pass  # pragma: no cover
    with pytest.raises(RuntimeError, match="the app returned without a response"):
        async with connect(nothing):
            pass  # pragma: no cover


# Errors.


async def broken(scope: Any, receive: Any, send: Any) -> None:
    """Fail while streaming."""
    await start(send)
    await body(send, b"data: 1\n\n")
    await anyio.sleep(1)
    raise ZeroDivisionError("broken")


async def test_an_error_that_the_test_has_seen_is_not_raised() -> None:
    async with connect(broken) as stream:
        await stream.next_event()
        assert stream.error is None
        with pytest.raises(anyio.EndOfStream, match=r"raised ZeroDivisionError") as caught:
            await stream.next_event()
        assert isinstance(stream.error, ZeroDivisionError)
        assert caught.value.__cause__ is stream.error


async def test_an_error_that_the_test_has_not_seen_is_raised() -> None:
    with pytest.raises(ZeroDivisionError, match="broken"):
        async with connect(broken) as stream:
            await stream.read()


async def test_an_error_before_the_response_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("at once")

    with pytest.raises(ZeroDivisionError, match="at once"):
        async with connect(app):
            pass  # pragma: no cover


async def test_an_error_of_the_test_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(clock):
            raise KeyError("mine")
    with pytest.raises(pytest.fail.Exception):
        async with connect(clock):
            pytest.fail("not an Exception")


async def test_a_test_may_be_cancelled() -> None:
    with anyio.move_on_after(1) as scope:
        async with connect(clock):
            await anyio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ([{"type": "what"}], RuntimeError, "unexpected message type 'what'"),
        ([{"type": "http.response.body"}], RuntimeError, r"body was sent before http\.response"),
        (
            [{"type": "http.response.start", "status": 200}] * 2,
            RuntimeError,
            r"http\.response\.start was sent a second time",
        ),
        (
            [
                {"type": "http.response.start", "status": 200},
                {"type": "http.response.body"},
                {"type": "http.response.body"},
            ],
            RuntimeError,
            r"http\.response\.body was sent after the final one",
        ),
        (
            [
                {"type": "http.response.start", "status": 200},
                {"type": "http.response.body", "body": "text"},
            ],
            TypeError,
            r"body must be bytes \(got str\)",
        ),
        (
            [{"type": "http.response.start", "status": 200, "headers": [("x", b"y")]}],
            TypeError,
            r"header names and values must be bytes \(got 'x': b'y'\)",
        ),
    ],
)
async def test_messages_that_a_server_refuses(
    messages: list[dict[str, Any]], error: type[Exception], text: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(error, match=text):
        async with connect(app, lifespan=False) as response:
            await response.wait_closed()


async def test_problems_are_what_only_some_servers_notice() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(1):
                await receive()
                await receive()
            for _ in range(2):
                tasks.start_soon(receive)
            await start(send, headers=[(b"Connection", b"close")])
            for _ in range(2):
                tasks.start_soon(body, send, b"x")

    async with connect(app, method="HEAD", lifespan=False) as stream:
        await anyio.sleep(2)
        stream.disconnect()
        await stream.wait_closed()

        assert stream.body == b""
        assert sorted(stream.problems) == [
            "a body was sent in answer to HEAD",
            "header Connection is forbidden in HTTP/2 and 3",
            "header names must be in lower case (got b'Connection')",
            "receive() was called again after it had been cancelled",
            "receive() was called while another receive() was waiting",
            "send() was called while another send() was waiting",
        ]


# What only a test can do.


async def test_disconnect_is_noticed() -> None:
    async with connect(clock) as stream:
        await stream.take(2)
        stream.disconnect()
        await stream.wait_closed()

        assert anyio.current_time() == 1
        with pytest.raises(anyio.EndOfStream, match="the client has left"):
            await stream.next_event()


async def test_a_client_that_stops_reading() -> None:
    async with connect(clock) as stream:
        await stream.take(1)
        stream.stall()
        await stream.wait_blocked()
        await anyio.sleep(9)
        assert len(stream.events) == 1

        stream.resume()
        assert await stream.take(2) == [tick(2), tick(3)]
        assert [chunk.time for chunk in stream.chunks] == [0, 0, 10, 11]


async def test_waiting_for_what_does_not_come() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await anyio.sleep(1)
        await body(send, b"x", more=False)

    async with connect(app) as response:
        with pytest.raises(TimeoutError, match=r"no blocked send within 0\.5 s"):
            await response.wait_blocked(timeout=0.5)
        with pytest.raises(
            anyio.EndOfStream, match=r"no send\(\) waits: .*, the last chunk at 1 s"
        ):
            await response.wait_blocked()
        assert await response.wait_chunks(2) == [(1, b"x")]


async def test_buffers_on_the_way_take_some() -> None:
    async with connect(clock) as stream:
        await stream.take(1)
        stream.stall(room=2 * len(b"id: 1\ndata: tick 1\n\n"))
        await anyio.sleep(10)
        assert len(stream.messages) == 5
        assert len(stream.events) == 1

        stream.resume()
        assert await stream.take(4) == [tick(2), tick(3), tick(4), tick(5)]
        assert [chunk.time for chunk in stream.chunks] == [0, 0, 10, 10, 10, 11]


async def test_what_a_stalled_client_has_not_read_is_lost() -> None:
    async with connect(clock) as stream:
        await stream.take(1)
        stream.stall(room=1000)
        await anyio.sleep(10)
        stream.disconnect()
        stream.resume()
        await stream.wait_closed()

        assert stream.events == [tick(1)]


async def test_cancel_lets_the_app_clean_up_as_a_server_does(anyio_backend_name: str) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        try:
            await anyio.sleep_forever()
        finally:
            # asyncio's servers cancel a task once; in trio there is only for good.
            with anyio.CancelScope(shield=anyio_backend_name == "trio"):
                await anyio.sleep(1)
            ended.append("cleaned up")

    async with connect(app, lifespan=False) as stream:
        stream.cancel()
        await stream.wait_closed()

        assert ended == ["cleaned up"]
        assert stream.error is None


async def test_an_app_that_cancels_itself(anyio_backend_name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        if anyio_backend_name == "asyncio":
            raise anyio.get_cancelled_exc_class()

    async with connect(app, lifespan=False) as stream:
        await stream.wait_closed()
        assert (stream.error is None) == (anyio_backend_name == "trio")


async def test_shutdown_cancels_after_the_grace_period_of_the_server() -> None:
    async with connect(clock, server="hypercorn") as stream:
        await stream.shutdown()
        await stream.wait_closed()

        assert anyio.current_time() == 3


async def test_shutdown_of_a_server_that_never_cancels() -> None:
    async with connect(clock, server="uvicorn") as stream:
        await stream.shutdown()
        with pytest.raises(TimeoutError):
            await stream.wait_closed()


async def test_shutdown_tells_the_streams_of_this_library() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        yield "hello"
        await request.wait_closing()
        yield "goodbye"

    async with connect(EventStream(source, shutdown_grace=1), server="uvicorn") as stream:
        await stream.next_event()
        await stream.shutdown()

        assert stream.complete
        assert (await stream.next_event()).data == "goodbye"


async def test_shutdown_after_the_end() -> None:
    async with connect(echo, server="hypercorn") as response:
        await response.read()
        await response.shutdown()
        assert response.closed


# Reconnecting.


async def test_reconnect_is_that_of_an_event_source() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]).get(b"last-event-id"))
        if len(seen) == 4:
            await start(send, status=204, headers=[])
            await body(send, b"", more=False)
            return
        await start(send)
        if len(seen) == 1:
            await body(send, b"retry: 500\nid: 7\ndata: 1\n\n", more=False)
        elif len(seen) == 2:
            await body(send, b"\xef\xbb\xbfdata: 2\n\n", more=False)
        else:
            await body(send, b"id\ndata: 3\n\n", more=False)

    seen: list[bytes | None] = []
    async with connect(app, lifespan=False) as stream:
        await stream.read()
        assert stream.reconnection_time == 500
        assert await stream.reconnect()
        assert anyio.current_time() == 0.5
        assert await stream.next_event() == ServerSentEvent("2", id="7")
        assert await stream.reconnect()
        assert await stream.next_event() == ServerSentEvent("3")
        assert stream.last_event_id == ""
        assert not await stream.reconnect()
        assert stream.status == 204
        assert seen == [None, b"7", b"7", None]
        with pytest.raises(RuntimeError, match="the client was told not to reconnect"):
            await stream.reconnect()


async def test_reconnect_after_an_error_of_the_app() -> None:
    async with connect(broken) as stream:
        await stream.read()
        with pytest.raises(ZeroDivisionError):
            await stream.reconnect()

    async with connect(broken) as stream:
        await stream.wait_closed()
        assert stream.error
        assert await stream.reconnect()
        assert stream.error is None
        assert await stream.next_event()
        assert len(stream.events) == 1
        assert stream.reconnection_time == 3000
        await stream.wait_closed()
        assert stream.error


# Several clients, and the lifespan.


@asynccontextmanager
async def noted(notes: list[str]) -> AsyncIterator[None]:
    notes.append("startup")
    yield
    notes.append("shutdown")


async def test_lifespan_is_that_of_all_clients() -> None:
    notes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["greeting"] = "hello"
            async with noted(notes):
                await send({"type": "lifespan.startup.complete"})
                assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await start(send)
            await body(send, b"data: %s\n\n" % scope["state"]["greeting"].encode(), more=False)

    async with serve(app) as server:
        for _ in range(2):
            async with server.connect("/") as stream:
                assert (await stream.next_event()).data == "hello"
        assert server.state == {"greeting": "hello"}
        assert notes == ["startup"]
    assert notes == ["startup", "shutdown"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_lifespan_that_fails(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for name in ("startup", "shutdown"):
            await receive()
            if name == phase:
                await send({"type": f"lifespan.{name}.failed", "message": "no database"})
                return
            await send({"type": f"lifespan.{name}.complete"})

    with pytest.raises(RuntimeError, match=f"the {phase} of the app failed: no database"):
        async with serve(app):
            pass


async def test_lifespan_that_raises_after_its_startup() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep(1)
        raise ValueError("no database")

    with pytest.raises(RuntimeError, match="the shutdown of the app failed: .*no database"):
        async with serve(app):
            await anyio.sleep(2)


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_lifespan_that_takes_too_long(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if phase == "shutdown":
            await send({"type": "lifespan.startup.complete"})
        await anyio.sleep_forever()

    with pytest.raises(TimeoutError, match=f"no end of the {phase} of the app within 2 s"):
        async with serve(app, timeout=2):
            pass


# Servers.


@pytest.mark.parametrize("name", ["ignore", "raise", "hang"])
async def test_send_after_the_disconnect(name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await anyio.sleep(1)
        with anyio.move_on_after(10):
            try:
                await body(send, b"x")
            except OSError:
                outcomes.append("raise")
                raise
            outcomes.append("ignore")
            return
        outcomes.append("hang")

    outcomes: list[str] = []
    async with connect(app, server=name, lifespan=False, cleanup_timeout=20) as stream:
        stream.disconnect()

    assert outcomes == [name]
    assert stream.body == b""


@pytest.mark.parametrize("name", ["ignore", "raise", "hang"])
async def test_the_start_of_a_response_for_nobody(name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"", more=False)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(1)
        await app(scope, receive, send)

    with pytest.raises(TimeoutError, match="no http.response.start"):
        async with connect(late, server=name, timeout=0.5, lifespan=False):
            pass  # pragma: no cover


@pytest.mark.parametrize("shields", [False, True])
async def test_a_send_that_waits_may_be_shielded(shields: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await anyio.sleep(1)
        with anyio.move_on_after(1):
            await body(send, b"x")
        ended.append(anyio.current_time())

    ended: list[float] = []
    async with connect(app, server=Temper(shields_send=shields), lifespan=False) as stream:
        stream.stall()
        await anyio.sleep(3)
        stream.resume()
        await stream.wait_closed()

    assert ended == [3 if shields else 2]


@pytest.mark.parametrize("name", ["ignore", "raise", "hang"])
async def test_the_disconnect_of_a_client_that_does_not_read(name: str) -> None:
    async with connect(clock, server=name) as stream:
        await stream.take(1)
        stream.stall()
        await anyio.sleep(3)
        stream.disconnect()
        await stream.wait_closed()
        assert anyio.current_time() == 3


@pytest.mark.parametrize("repeats", [False, True])
async def test_receive_after_the_disconnect(repeats: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        received.extend([(await receive())["type"] for _ in range(3)])

    received: list[str] = []
    temper = Temper(repeats_disconnect=repeats)
    async with connect(app, server=temper, lifespan=False, cleanup_timeout=1) as stream:
        await anyio.sleep(1)
        stream.disconnect()

    assert received == (["http.request", *["http.disconnect"] * 2] if repeats else [])
    assert stream.problems == ["receive() was called again after the disconnect"]


async def test_receive_after_the_response_is_complete() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await start(send)
        await body(send, b"", more=False)
        assert (await receive())["type"] == "http.disconnect"

    async with connect(app, lifespan=False) as stream:
        await stream.wait_closed()
    assert stream.problems == []


async def test_a_server_whose_send_never_yields_shows_a_busy_app() -> None:
    async def flood(scope: Any) -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"

    text = "10000 times in a row, and no other task could run"
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=text)):
        async with connect(streaming(flood), server="uvicorn") as stream:
            await stream.wait_closed()
    async with connect(streaming(flood)) as stream:
        await stream.next_event()
    async with connect(clock, server="uvicorn") as stream:
        await stream.take(3)


def test_tempers_have_names() -> None:
    text = "server must be a Temper or one of ignore, raise, hang, uvicorn, "
    with pytest.raises(ValueError, match=text):
        anyio.run(serve(clock, server="apache").__aenter__)


async def test_the_app_is_ended_whatever_it_does() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        while True:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                deaf.append(anyio.current_time())
            await body(send, b"x")

    deaf: list[float] = []
    async with connect(app, lifespan=False, cleanup_timeout=2.5) as stream:
        pass

    # Without reading receive() it never learns of the disconnect; it is cancelled, does
    # not listen, and is stopped by the next send().
    assert stream.closed
    assert deaf[0] == 2.5


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_an_app_that_swallows_a_cancellation_gets_more_of_them() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        for _ in range(2):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                deaf.append(anyio.current_time())

    deaf: list[float] = []
    async with connect(app, lifespan=False, cleanup_timeout=3) as stream:
        pass

    assert stream.closed
    assert deaf == [3, 6]


def test_headers_of_the_bare_app() -> None:
    assert re.fullmatch(rb"[a-z; =/8-]+", dict(HEADERS)[b"content-type"])
