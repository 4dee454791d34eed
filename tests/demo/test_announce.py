from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse._demo.announce import Announcer, announcing
from asgi_sse.parser import EventStreamParser

TYPE = "asgi-sse-event-type"
NOTE = f"event: {TYPE}\ndata: %b\n\n".encode()

CASES = [
    pytest.param(b"data: 1\n\n", NOTE % b"message" + b"data: 1\n\n", id="no-type"),
    pytest.param(
        b"event: message\ndata\n\ndata\n\n",
        NOTE % b"message" + b"event: message\ndata\n\ndata\n\n",
        id="message",
    ),
    pytest.param(
        b"event:\ndata: 1\n\n", NOTE % b"message" + b"event:\ndata: 1\n\n", id="empty-type"
    ),
    pytest.param(b"event: a\ndata: 1\n\n", NOTE % b"a" + b"event: a\ndata: 1\n\n", id="type"),
    pytest.param(b"event:a\ndata\n\n", NOTE % b"a" + b"event:a\ndata\n\n", id="without-space"),
    pytest.param(
        b"event:  a\ndata\n\n", NOTE % b" a" + b"event:  a\ndata\n\n", id="with-two-spaces"
    ),
    pytest.param(
        b"data: 1\nevent: a\nid: 1\n\n", NOTE % b"a" + b"data: 1\nevent: a\nid: 1\n\n", id="last"
    ),
    pytest.param(
        b"event: a\nevent: b\ndata\n\n",
        NOTE % b"b" + b"event: a\nevent: b\ndata\n\n",
        id="the-last-counts",
    ),
    pytest.param(
        b"event: a\ndata\n\nevent: b\ndata\n\nevent: a\ndata\n\n",
        b"%bevent: a\ndata\n\n%bevent: b\ndata\n\nevent: a\ndata\n\n" % (NOTE % b"a", NOTE % b"b"),
        id="each-once",
    ),
    pytest.param(
        b"id: 1\n\nevent: a\n\ndata\n\n",
        b"id: 1\n\nevent: a\n\n" + NOTE % b"message" + b"data\n\n",
        id="not-what-is-not-dispatched",
    ),
    pytest.param(
        b"event: a\r\ndata\r\n\r\n", NOTE % b"a" + b"event: a\r\ndata\r\n\r\n", id="crlf"
    ),
    pytest.param(b"event: a\rdata\r\r", NOTE % b"a" + b"event: a\rdata\r\r", id="cr"),
    pytest.param(
        b"event: a\r\ndata: 1\r\n\r\n: comment\n",
        NOTE % b"a" + b"event: a\r\ndata: 1\r\n\r\n: comment\n",
        id="comment-after-crlf",
    ),
    pytest.param(
        b"\xef\xbb\xbfevent: a\ndata\n\n",
        b"\xef\xbb\xbf" + NOTE % b"a" + b"event: a\ndata\n\n",
        id="byte-order-mark",
    ),
    pytest.param(
        b"\xef\xbb\xbf" * 2 + b"data\n\n",
        b"\xef\xbb\xbf" * 2 + b"data\n\n",
        id="one-byte-order-mark-and-one-that-is-none",
    ),
    pytest.param(b"\xef\xbb", b"\xef\xbb", id="half-a-byte-order-mark"),
    pytest.param(b"event: a\ndata: un", b"event: a\ndata: un", id="unfinished"),
    pytest.param(b":\n\n: x\n\n\n", b":\n\n: x\n\n\n", id="comments-and-blank-lines"),
    pytest.param(
        b"event: \xff\ndata\n\n", NOTE % b"\xff" + b"event: \xff\ndata\n\n", id="not-utf-8"
    ),
    pytest.param(b"", b"", id="nothing"),
]


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_each_type_is_announced_before_its_first_event(stream: bytes, expected: bytes) -> None:
    for cut in range(len(stream) + 1):
        announcer = Announcer()
        got = announcer.feed(stream[:cut]) + announcer.feed(stream[cut:]) + announcer.end()

        assert got == expected, cut


def test_comments_pass_at_once() -> None:
    announcer = Announcer()

    assert announcer.feed(b"id: 1\n\n:\n") == b"id: 1\n\n:\n"
    assert announcer.feed(b":\n") == b":\n"


def test_event_is_held_back_until_it_is_complete() -> None:
    announcer = Announcer()

    assert announcer.feed(b"data: 1\n") == b""
    assert announcer.feed(b": in between\n") == b""
    assert announcer.feed(b"\n") == NOTE % b"message" + b"data: 1\n: in between\n\n"


def read(stream: bytes) -> list[ServerSentEvent]:
    return EventStreamParser().feed(stream)


@given(
    st.lists(
        st.sampled_from(
            [
                b"event",
                b"data",
                b"id",
                b":",
                b" ",
                b"a",
                b"b",
                b"\r",
                b"\n",
                b"\r\n",
                b"\xef\xbb\xbf",
            ]
        )
    ).map(b"".join),
    st.data(),
)
def test_announcements_are_all_that_is_added(stream: bytes, data: st.DataObject) -> None:
    announcer = Announcer()
    cut = data.draw(st.integers(0, len(stream)))
    got = announcer.feed(stream[:cut]) + announcer.feed(stream[cut:]) + announcer.end()
    known = set()

    for event in read(got):
        if event.event == TYPE:
            known.add(event.data or "")
        elif event.data is not None:
            assert (event.event or "message") in known
    assert [event for event in read(got) if event.event != TYPE] == read(stream)


async def through(headers: list[tuple[bytes, bytes]], *bodies: bytes) -> list[bytes]:
    """
    Return the bodies that the server gets to send.
    """
    messages: list[Any] = []

    async def server_send(message: Any) -> None:
        messages.append(message)

    send = announcing(server_send)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for body in bodies:
        await send({"type": "http.response.body", "body": body, "more_body": body != bodies[-1]})
    await send({"type": "http.response.trailers"})

    assert [message.get("more_body") for message in messages[1:-1]] == [
        body != bodies[-1] for body in bodies
    ]
    return [message["body"] for message in messages[1:-1]]


async def test_event_stream_is_announced() -> None:
    headers = [(b"Content-Type", b"text/event-stream; charset=utf-8")]

    assert await through(headers, b"event: a\ndata\n", b"\ndata") == [
        b"",
        NOTE % b"a" + b"event: a\ndata\n\ndata",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no-headers"),
        pytest.param([(b"content-type", b"text/plain")], id="other-type"),
        pytest.param(
            [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")], id="gzip"
        ),
    ],
)
async def test_other_responses_go_through_as_they_are(headers: list[tuple[bytes, bytes]]) -> None:
    assert await through(headers, b"event: a\n\n", b"x") == [b"event: a\n\n", b"x"]
