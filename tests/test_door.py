"""
What stands before a stream, each by itself in its own test, all in their order here.
"""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi import NO_BODY, Server, http_scope
from asgi_sse import EventStream, Limiter
from asgi_sse._door import Door
from asgi_sse._options import Options
from asgi_sse._servers import owners
from asgi_sse.testing import connect

PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
SHOP = "https://shop.example"


async def source() -> AsyncIterator[str]:
    """
    Tell one thing.
    """
    yield "a"


async def page(scope: Any, receive: Any, send: Any) -> None:
    """
    Answer with a page.
    """
    headers = [(b"content-type", b"text/html"), (b"vary", b"Cookie")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": scope["method"].encode()})


# accept="strict"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200),
        ("text/event-stream", 200),
        ("text/*;q=0.1", 200),
        ("*/*", 200),
        (PAGE, 200),
        ("application/json", 406),
        ("application/json, text/event-stream;q=0", 406),
        ("text/event-stream;charset=utf-16", 406),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_strict_refuses_who_accepts_no_event_stream(
    accept: str | None, status: int, method: str
) -> None:
    app = EventStream(source, accept="strict")
    server = Server(NO_BODY)
    headers = [] if accept is None else [(b"Accept", accept.encode())]
    await app(http_scope(method, headers=headers), *server)

    assert server.sent[0]["status"] == status
    assert (b"vary", b"Accept") in server.sent[0]["headers"]
    assert (server.body == b"This is text/event-stream, and nothing else.") == (
        status == 406 and method == "GET"
    )


async def test_any_is_served_by_default() -> None:
    async with connect(EventStream(source), headers={"Accept": "application/json"}) as stream:
        assert stream.status == 200
        assert "vary" not in stream.headers


def test_there_is_any_and_strict() -> None:
    with pytest.raises(ValueError, match=r"accept must be any or strict \(got 'html'\)"):
        EventStream(source, accept="html")  # type: ignore[arg-type]


# fallback


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("accept", [PAGE, "*/*", "application/json", ""])
async def test_who_asks_for_no_event_stream_gets_the_fallback(method: str, accept: str) -> None:
    app = EventStream(source, fallback=page, limit=Limiter(0), allow_origins=[SHOP])
    headers = {"Accept": accept, "Origin": SHOP}
    async with connect(app, method=method, headers=headers) as stream:
        assert await stream.read() == method.encode()
        # It is another application: nothing is said for it but this.
        assert dict(stream.headers) == {"content-type": "text/html", "vary": "Cookie, Accept"}


@pytest.mark.parametrize("accept", ["strict", "any"])
async def test_who_asks_for_an_event_stream_gets_it(accept: Any) -> None:
    async with connect(EventStream(source, fallback=page, accept=accept)) as stream:
        assert (await stream.next_event()).data == "a"
        assert stream.headers["vary"] == "Accept"


async def test_a_fallback_may_have_no_headers() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"bare"})

    server = Server()
    await server.call(EventStream(source, fallback=bare), http_scope())

    assert server.sent[0]["headers"] == [(b"vary", b"Accept")]
    assert server.body == b"bare"


async def test_a_preflight_does_not_go_to_the_fallback() -> None:
    app = EventStream(source, fallback=page, allow_origins=[SHOP], methods=["POST"])
    headers = {"Accept": "*/*", "Origin": SHOP, "Access-Control-Request-Method": "POST"}
    async with connect(app, method="OPTIONS", headers=headers) as stream:
        assert stream.status == 204


def test_a_fallback_is_an_application() -> None:
    with pytest.raises(TypeError, match="fallback must be callable"):
        EventStream(source, fallback="page")  # type: ignore[arg-type]


# The order


async def test_what_is_asked_first_is_answered_first() -> None:
    app = EventStream(source, accept="strict", methods=["POST"], limit=Limiter(0))
    statuses = []
    for method, accept in (("GET", "a/b"), ("GET", "*/*"), ("POST", "*/*")):
        async with connect(app, method=method, headers={"Accept": accept}) as stream:
            statuses.append(stream.status)

    assert statuses == [406, 405, 503]


async def test_all_of_it_at_once() -> None:
    app = EventStream(
        source,
        accept="strict",
        fallback=page,
        allow_origins=[SHOP],
        limit=Limiter(1),
        compress=["gzip"],
    )
    headers = {"Origin": SHOP, "Accept-Encoding": "gzip"}
    async with connect(app, headers=headers) as stream:
        await stream.wait_closed()

        assert stream.headers["vary"] == "Accept-Encoding, Accept, Origin"
        assert stream.headers["content-encoding"] == "gzip"
        assert stream.headers["access-control-allow-origin"] == SHOP


async def test_who_is_turned_away_may_read_why() -> None:
    app = EventStream(source, allow_origins=[SHOP], limit=Limiter(0), compress=["gzip"])
    headers = {"Origin": SHOP, "Accept-Encoding": "gzip"}
    async with connect(app, headers=headers) as stream:
        assert stream.headers["access-control-allow-origin"] == SHOP
        assert b"retry: " in await stream.read()
        assert "content-encoding" not in stream.headers


async def test_the_server_is_found_behind_it() -> None:
    """
    By what it is asked whether it stops, and told to cut a connection.
    """
    found: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.lowlevel.checkpoint()
        found.extend(owners(send))

    server = Server()
    door = Door(Options(compress=["gzip"], allow_origins="*", accept="strict"))
    await door.enter(app, http_scope(), *server)

    assert server in found


async def test_a_framework_has_chosen_by_the_method() -> None:
    methods: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.lowlevel.checkpoint()
        methods.append(scope["method"])

    await Door(Options(), routed=True).enter(app, http_scope("POST"), *Server())

    assert methods == ["POST"]
