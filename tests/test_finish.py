from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi import Server, http_scope
from asgi_sse import Channel, EventStream, Refused, Request, ServerSentEvent, drain
from asgi_sse._finish import LastID
from asgi_sse._options import Closed
from asgi_sse.testing import Stream, connect

OPEN = b":\n\n"
BYE = ServerSentEvent(retry=1234)


async def three(request: Request) -> AsyncIterator[ServerSentEvent]:
    for n in range(int(request.last_event_id or 0) + 1, 4):
        yield ServerSentEvent(str(n), id=n)


async def watch(app: Any, **options: Any) -> Stream:
    """
    Return what a client has got of a stream when it is over.
    """
    async with connect(app, timeout=None, **options) as stream:
        await stream.wait_closed()

    assert stream.problems == []
    return stream


async def test_client_of_a_source_that_is_finished_comes_back_once() -> None:
    ends: list[Closed] = []
    app = EventStream(three, end="stop", on_close=ends.append)
    async with connect(app) as stream:
        await stream.wait_closed()

        assert stream.body.endswith(b"id: 3\ndata: 3\n\nid: asgi-sse-finished:3\n\n")
        assert [event.data for event in stream.events] == ["1", "2", "3"]
        assert stream.complete
        await stream.reconnect()

        assert stream.status == 204
        assert stream.body == b""
    # The second was none.
    assert [(end.reason, end.events) for end in ends] == [("finished", 3)]


async def test_one_that_was_cut_off_goes_on_where_it_was() -> None:
    stream = await watch(EventStream(three, end="stop"), last_event_id="2")

    assert stream.body == OPEN + b"id: 3\ndata: 3\n\nid: asgi-sse-finished:3\n\n"


async def test_without_ids_the_last_one_is_that_of_the_client() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    for before in ("", "7", "ü"):
        stream = await watch(EventStream(source, end="stop"), last_event_id=before)

        last = f"id: asgi-sse-finished:{before}\n\n".encode()
        assert stream.body == OPEN + b"data: a\n\n" + last


@pytest.mark.parametrize(
    ("blocks", "last"),
    [
        (b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", b"2"),
        (b"data: a\r\nid:2\r\n\r\n", b"2"),
        (b"id: 2\r\rdata: id: 3\r\r", b"2"),
        (b"id:  2 \n\n", b" 2 "),
        (b"id: 1\nid: 2\n\n", b"2"),
        (b"id: 1\n\nid\ndata: x\n\n", b""),
        (b"id: 1\n\nid:\n\n", b""),
        # Is ignored by the client.
        (b"id: 2\n\nid: 3\0\n\n", b"2"),
        (b"id: 2\n\nidle: 3\ndata: id: 4\n: id: 5\nID: 6\n\n", b"2"),
        (b":\n", b"0"),
    ],
)
async def test_the_last_id_is_found_as_a_client_finds_it(blocks: bytes, last: bytes) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    last_id = LastID("0")
    message = {"type": "http.response.body", "body": blocks, "more_body": True}
    await last_id.watching(send)(message)

    assert sent == [message]
    assert last_id.finish(b"") == b"id: asgi-sse-finished:%b\n\n" % last


@pytest.mark.parametrize(
    ("done", "block", "marked"),
    [
        ("[DONE]", b"data: [DONE]\n\n", b"data: [DONE]\nid: asgi-sse-finished:3\n\n"),
        ({"a": 1}, b'data: {"a":1}\n\n', b'data: {"a":1}\nid: asgi-sse-finished:3\n\n'),
        ("", b"data: \n\n", b"data: \nid: asgi-sse-finished:3\n\n"),
        # The last one counts.
        (
            ServerSentEvent("x", event="end", id=4),
            b"event: end\nid: 4\ndata: x\n\n",
            b"event: end\nid: 4\ndata: x\nid: asgi-sse-finished:4\n\n",
        ),
        (ServerSentEvent(comment="x"), b": x\n", b": x\nid: asgi-sse-finished:3\n\n"),
        # Whatever its line ends are.
        (b"data: x\r\n\r\n", b"data: x\r\n\r\n", b"data: x\r\nid: asgi-sse-finished:3\n\n"),
        (b"data: x\r\r", b"data: x\r\r", b"data: x\rid: asgi-sse-finished:3\n\n"),
    ],
)
async def test_a_last_item_of_choice(done: Any, block: bytes, marked: bytes) -> None:
    stream = await watch(EventStream(three, done=done), last_event_id="2")
    assert stream.body == OPEN + b"id: 3\ndata: 3\n\n" + block

    stream = await watch(EventStream(three, done=done, end="stop"), last_event_id="2")
    assert stream.body == OPEN + b"id: 3\ndata: 3\n\n" + marked


async def fails() -> AsyncIterator[str]:
    yield "a"
    raise LookupError


async def asks(request: Request) -> AsyncIterator[str]:
    yield "a"
    await request.wait_closing()


async def closes(request: Request) -> AsyncIterator[str]:
    yield "a"
    request.close()
    await anyio.sleep_forever()


async def ends_when_closed(request: Request) -> AsyncIterator[str]:
    yield "a"
    with anyio.CancelScope(shield=True):
        await anyio.sleep(2)


async def lasts() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


async def refuses() -> Any:
    raise Refused(401)


async def channel_that_is_closed() -> Any:
    channel = Channel()
    subscription = channel.subscribe()
    await channel.publish("a")
    await channel.aclose()
    return subscription


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (fails, {}),
        (asks, {}),
        (closes, {}),
        (ends_when_closed, {"max_age": 1}),
        (lasts, {"max_age": 1}),
        (lasts, {}),
        (refuses, {}),
        (channel_that_is_closed, {}),
    ],
)
async def test_who_was_only_cut_off_is_to_come_back(source: Any, options: Any) -> None:
    app = EventStream(source, end="stop", done="[DONE]", farewell=BYE, **options)
    async with connect(app, timeout=None) as stream:
        await anyio.sleep(0.5)
        if not options:
            await drain()
        await stream.wait_closed()
        _ = stream.error

        assert b"DONE" not in stream.body
        assert b"finished" not in stream.body
        assert not stream.last_event_id.startswith("asgi-sse-finished:")


async def test_a_source_that_finishes_while_the_server_stops_is_finished() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(2)
        yield "b"

    app = EventStream(source, end="stop", done="[DONE]", farewell=BYE, on_shutdown="finish")
    async with connect(app) as stream:
        await anyio.sleep(1)
        await drain()

        assert stream.body.endswith(
            b"data: b\n\ndata: [DONE]\nid: asgi-sse-finished:\n\nretry: 1234\n"
        )
        assert stream.complete


async def test_the_last_id_is_the_sources_own_where_nobody_stops() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        yield f"{request.last_event_id} {request.finished}"

    for asked, told in (("asgi-sse-finished:3", "3 True"), ("asgi-sse-finished:", "None True")):
        stream = await watch(EventStream(source), last_event_id=asked)
        assert [event.data for event in stream.events] == [told]

    stream = await watch(EventStream(source), query="lastEventId=asgi-sse-finished:4")
    assert [event.data for event in stream.events] == ["4 True"]

    stream = await watch(EventStream(source), last_event_id="3")
    assert [event.data for event in stream.events] == ["3 False"]


async def test_one_that_comes_back_and_has_left_already() -> None:
    server = Server(after_disconnect="raise")
    server.disconnect()
    headers = [(b"last-event-id", b"asgi-sse-finished:3")]
    await server.call(EventStream(three, end="stop"), http_scope(headers=headers))

    assert server.sent == []


async def test_the_body_is_read_first_where_a_late_one_does_harm() -> None:
    server = Server(
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
    )
    app = EventStream(three, end="stop", methods=["POST"])
    headers = [(b"last-event-id", b"asgi-sse-finished:3")]
    extensions: Any = {"http.response.push": {}}
    await server.call(app, http_scope("POST", headers=headers, extensions=extensions))

    assert server.inbox == []
    assert server.sent[0]["status"] == 204
