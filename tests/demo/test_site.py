import json
import time
from dataclasses import asdict
from typing import Any

import anyio
import pytest

from asgi_sse import EventStream, Request, ServerSentEvent, statistics
from asgi_sse._demo.site import Site
from asgi_sse.testing import connect
from demo_asgi import ask, make_scope


async def tick(request: Request) -> Any:
    yield ServerSentEvent(dict(request.query).get("n", "1"), event="tick")


SITE = Site(EventStream(tick), "A <title>")


async def test_page_is_at_the_root() -> None:
    answer = await ask(SITE)

    assert answer.status == 200
    assert answer.headers[b"content-type"] == b"text/html; charset=utf-8"
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    assert b"<h1>A &lt;title&gt;</h1>" in answer.body


async def test_head_of_the_page_has_no_body() -> None:
    page, head = await ask(SITE), await ask(SITE, "HEAD")

    assert (head.status, head.headers, head.body) == (200, page.headers, b"")


async def test_page_is_only_to_be_got() -> None:
    answer = await ask(SITE, "POST")

    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")


@pytest.mark.parametrize("path", ["/x", "/events/", "/events/1", "", "/favicon.ico", "//"])
async def test_nothing_is_elsewhere(path: str) -> None:
    answer = await ask(SITE, path=path)

    assert (answer.status, answer.headers[b"content-type"][:10]) == (404, b"text/plain")


async def test_statistics_are_those_of_the_event_loop() -> None:
    async with connect(EventStream(tick)) as stream:
        await stream.wait_closed()
    answer = await ask(SITE, path="/statistics")
    numbers = json.loads(answer.body)

    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.headers[b"cache-control"] == b"no-store"
    assert abs(numbers.pop("time") - time.time()) < 100
    assert numbers == asdict(statistics())
    assert (numbers["opened"], numbers["closed"]["finished"]) == (1, 1)


async def test_stream_is_at_events() -> None:
    answer = await ask(SITE, path="/events", query=b"n=7")

    assert answer.body.endswith(b":\n\nevent: tick\ndata: 7\n\n")


async def test_event_types_are_announced_if_asked_for_and_the_stream_does_not_know() -> None:
    async def echo(request: Request) -> Any:
        yield ServerSentEvent(request.scope["query_string"].decode(), event="query")

    answer = await ask(
        Site(EventStream(echo), "x"), path="/events", query=b"a=1&announce-event-types=&b=2"
    )

    assert answer.body.endswith(
        b":\n\nevent: asgi-sse-event-type\ndata: query\n\nevent: query\ndata: a=1&b=2\n\n"
    )


async def test_lifespan_is_for_the_stream() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "lifespan"}
    await Site(app, "x")(scope, anyio.sleep_forever, anyio.sleep)

    assert scopes == [scope]


async def test_websocket_is_refused() -> None:
    sent = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await SITE({"type": "websocket", "path": "/events"}, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]


async def test_close_ends_responses_that_never_would() -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(scope["path"])

    site = Site(app, "x")
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(site, make_scope(path="/events"), anyio.sleep_forever, anyio.sleep)
        await anyio.sleep(1)
        site.close()

    assert ended == ["/events", "/events"]
