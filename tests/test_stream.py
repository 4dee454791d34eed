from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, assert_type, cast

import anyio
import pytest

from asgi import Server, http_scope
from asgi_sse import EventStream, Request, event_stream
from asgi_sse.testing import connect

if TYPE_CHECKING:
    from asgiref.typing import HTTPScope


async def source() -> AsyncIterator[str]:
    """
    Tell one thing.
    """
    yield "a"


async def test_http_is_answered_with_the_stream() -> None:
    async with connect(EventStream(source)) as stream:
        assert await stream.read() == b":\n\ndata: a\n\n"
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"


HEADERS = {
    "type": "http.response.start",
    "status": 203,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-more", b"1"),
    ],
    "trailers": False,
}
NO_BODY = {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("methods", [("GET",), ("GET", "HEAD"), ("HEAD",), ("POST", "GET")])
async def test_head_is_answered_without_touching_the_source(methods: tuple[str, ...]) -> None:
    def untouched() -> Any:
        raise AssertionError

    app = EventStream(untouched, methods=methods, status=203, headers={"X-More": "1"})
    async with connect(app, method="HEAD") as stream:
        await stream.wait_closed()

    assert stream.messages == [HEADERS, NO_BODY]
    assert stream.problems == []


@pytest.mark.parametrize(
    ("methods", "method", "allow"),
    [
        pytest.param(("GET",), "POST", "GET, HEAD", id="post"),
        pytest.param(("GET", "POST"), "PUT", "GET, POST, HEAD", id="put"),
        pytest.param(("head", "get"), "PUT", "HEAD, GET", id="head-is-named-once"),
        pytest.param(("POST",), "GET", "POST", id="get"),
    ],
)
async def test_other_methods_are_not_allowed(
    methods: tuple[str, ...], method: str, allow: str
) -> None:
    async with connect(EventStream(source, methods=methods), method=method) as stream:
        body = await stream.read()

    assert stream.status == 405
    assert dict(stream.headers) == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "allow": allow,
    }
    assert body.decode() == f"Only {allow} are answered here."


async def test_head_is_not_allowed_where_get_is_not() -> None:
    async with connect(EventStream(source, methods=["POST"]), method="HEAD") as stream:
        await stream.wait_closed()

    assert stream.status == 405
    # Those that GET would have.
    assert dict(stream.headers) == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len("Only POST are answered here.")),
        "allow": "POST",
    }
    assert stream.messages[1] == NO_BODY
    assert stream.problems == []


async def test_post_is_answered_where_it_is_allowed() -> None:
    app = EventStream(source, methods=["post"])
    async with connect(app, method="POST", body=b"hello") as stream:
        assert await stream.read() == b":\n\ndata: a\n\n"


async def test_an_iterator_is_good_for_one_response() -> None:
    app = EventStream(source())
    async with connect(app) as stream:
        assert await stream.read() == b":\n\ndata: a\n\n"

    with pytest.raises(RuntimeError, match="has already been sent to a client") as caught:
        async with connect(app):
            pass

    assert "Pass the function" in str(caught.value)


async def test_a_lifespan_is_completed() -> None:
    server = Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await EventStream(source)({"type": "lifespan"}, *server)

    assert server.sent == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


async def test_a_lifespan_may_be_cancelled() -> None:
    server = Server({"type": "lifespan.startup"})
    with anyio.move_on_after(1):
        await EventStream(source)({"type": "lifespan"}, *server)

    assert server.sent == [{"type": "lifespan.startup.complete"}]


async def test_a_websocket_is_closed() -> None:
    server = Server({"type": "websocket.connect"})
    await EventStream(source)({"type": "websocket"}, *server)

    assert server.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    assert server.inbox == []


async def test_another_scope_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scope type must be .* \(got 'smtp'\)"):
        await EventStream(source)({"type": "smtp"}, *Server())


def test_it_says_what_it_streams() -> None:
    assert repr(EventStream(source)) == "<EventStream test_stream.source>"


@pytest.mark.parametrize("options", [{"keep_alive": 0}, {"status": 99}])
def test_wrong_options_are_refused_when_it_is_made(options: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        EventStream(source, **options)
    # Before there is anything to decorate.
    with pytest.raises(ValueError, match="must be"):
        event_stream(**options)


def test_a_wrong_source_is_refused_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="source must be"):
        EventStream(3)
    with pytest.raises(TypeError, match="source must be"):
        event_stream(3)


async def test_a_function_can_be_decorated() -> None:
    app = event_stream(source)

    assert isinstance(app, EventStream)
    # A decorator leaves name, documentation and the function within reach.
    names: Any = app
    assert names.__wrapped__ is source
    assert names.__name__ == "source"
    assert names.__doc__ == source.__doc__
    server = Server()
    await app(http_scope(), *server)
    assert server.body == b":\n\ndata: a\n\n"


async def test_a_function_can_be_decorated_with_options() -> None:
    @event_stream(headers={"X-More": "1"}, methods=["PUT"])
    def numbers() -> Iterator[int]:
        raise AssertionError

    async with connect(numbers) as stream:
        assert stream.status == 405
        assert stream.headers["allow"] == "PUT"


HYPERCORN_HTTP2 = {"http_version": "2", "extensions": {"http.response.push": {}}}


async def test_a_refused_method_waits_for_the_body_where_the_server_would_break() -> None:
    received: list[str] = []

    async def receive() -> dict[str, Any]:
        await anyio.sleep(0.25)
        received.append("part")
        return {"type": "http.request", "body": b"x", "more_body": len(received) < 3}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = http_scope(method="POST", **HYPERCORN_HTTP2)
    await EventStream(["a"])(scope, receive, send)

    assert received == ["part"] * 3
    assert sent[0]["status"] == 405


async def test_a_refused_method_does_not_wait_for_ever_for_the_body() -> None:
    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    sent: list[tuple[float, dict[str, Any]]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append((anyio.current_time(), message))

    scope = http_scope(method="POST", **HYPERCORN_HTTP2)
    began = anyio.current_time()
    await EventStream(["a"])(scope, receive, send)

    assert [time - began for time, _ in sent] == [1, 1]


async def test_decorator_keeps_the_parameters_of_the_function() -> None:
    @event_stream
    async def plain(request: Request) -> AsyncIterator[str]:
        yield request.method

    @event_stream(keep_alive=5)
    async def with_options(request: Request, start: int = 3) -> AsyncIterator[int]:
        yield start

    request = Request(cast("HTTPScope", http_scope()), cast("Any", None))
    # For users who test their function as it is.
    assert_type(plain.__wrapped__(request), AsyncIterator[str])
    assert [item async for item in plain.__wrapped__(request)] == ["GET"]
    assert_type(with_options.__wrapped__(request, start=5), AsyncIterator[int])
    assert [item async for item in with_options.__wrapped__(request, 5)] == [5]
    plain.__wrapped__("GET")  # type: ignore[arg-type]
    stream: EventStream = plain
    assert repr(stream).startswith("<EventStream test_stream.")
