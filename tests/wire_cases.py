"""
Events and the bytes that carry them, for everyone who writes or reads event streams.
"""

import re
from collections.abc import Iterable, Iterator

import pytest
from _pytest.mark import ParameterSet
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent


def case(
    name: str,
    sent: ServerSentEvent,
    wire: bytes,
    received: list[ServerSentEvent] | None = None,
) -> ParameterSet:
    return pytest.param(sent, wire, [sent] if received is None else received, id=name)


# What is made, its bytes, and what a client sees that is sent nothing else (if that
# is not the same).
BOTH_WAYS = [
    case("data", ServerSentEvent("x"), b"data: x\n\n"),
    case("empty-data-is-an-event", ServerSentEvent(""), b"data: \n\n"),
    case("two-lines", ServerSentEvent("a\nb"), b"data: a\ndata: b\n\n"),
    case("final-line-end-is-kept", ServerSentEvent("a\n"), b"data: a\ndata: \n\n"),
    case("only-a-line-end", ServerSentEvent("\n"), b"data: \ndata: \n\n"),
    case(
        "crlf-is-one-line-end",
        ServerSentEvent("a\r\nb\r\n\r\nc"),
        b"data: a\ndata: b\ndata: \ndata: c\n\n",
        [ServerSentEvent("a\nb\n\nc")],
    ),
    case(
        "cr-is-a-line-end",
        ServerSentEvent("a\rb\n\rc"),
        b"data: a\ndata: b\ndata: \ndata: c\n\n",
        [ServerSentEvent("a\nb\n\nc")],
    ),
    case(
        "nothing-else-is-a-line-end",
        ServerSentEvent("a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"),
        b"data: a\x0bb\x0cc\x1cd\xc2\x85e\xe2\x80\xa8f\xe2\x80\xa9g\n\n",
    ),
    case(
        "data-cannot-add-fields",
        ServerSentEvent("x\n\nevent: y\rdata: z"),
        b"data: x\ndata: \ndata: event: y\ndata: data: z\n\n",
        [ServerSentEvent("x\n\nevent: y\ndata: z")],
    ),
    case("spaces-are-kept", ServerSentEvent("  x "), b"data:   x \n\n"),
    case("colon", ServerSentEvent(":"), b"data: :\n\n"),
    case("nul-in-data", ServerSentEvent("\0"), b"data: \0\n\n"),
    case("bom-in-data", ServerSentEvent("\ufeffx"), b"data: \xef\xbb\xbfx\n\n"),
    case("utf-8", ServerSentEvent("ü€😀"), b"data: \xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\n\n"),
    case("event", ServerSentEvent("x", event="tick"), b"event: tick\ndata: x\n\n"),
    case(
        "event-with-odd-characters",
        ServerSentEvent("x", event=" a: b\u2028"),
        b"event:  a: b\xe2\x80\xa8\ndata: x\n\n",
    ),
    case(
        "empty-event-is-a-message",
        ServerSentEvent("x", event=""),
        b"event: \ndata: x\n\n",
        [ServerSentEvent("x")],
    ),
    case("without-data-nothing-comes", ServerSentEvent(event="tick"), b"event: tick\n\n", []),
    case("id", ServerSentEvent("x", id="7"), b"id: 7\ndata: x\n\n"),
    case("id-as-int", ServerSentEvent("x", id=0), b"id: 0\ndata: x\n\n"),
    case(
        "id-with-odd-characters",
        ServerSentEvent("x", id=" a: ü"),
        b"id:  a: \xc3\xbc\ndata: x\n\n",
    ),
    case(
        "empty-id",
        ServerSentEvent("x", id=""),
        b"id: \ndata: x\n\n",
        [ServerSentEvent("x")],
    ),
    case("only-an-id", ServerSentEvent(id="7"), b"id: 7\n\n", []),
    case(
        "retry",
        ServerSentEvent("x", retry=3000),
        b"retry: 3000\ndata: x\n\n",
        [ServerSentEvent("x")],
    ),
    case("only-a-retry", ServerSentEvent(retry=0), b"retry: 0\n", []),
    case("only-a-comment-ends-no-block", ServerSentEvent(comment="x"), b": x\n", []),
    case("empty-comment", ServerSentEvent(comment=""), b": \n", []),
    case(
        "comment-cannot-add-fields",
        ServerSentEvent(comment="a\r\n\r\ndata: b\rc\0"),
        b": a\n: \n: data: b\n: c\0\n",
        [],
    ),
    case(
        "everything",
        ServerSentEvent("a\nb", event="tick", id=7, retry=10, comment="c"),
        b": c\nevent: tick\nid: 7\nretry: 10\ndata: a\ndata: b\n\n",
        [ServerSentEvent("a\nb", event="tick", id="7")],
    ),
]

# Text full of what means something to somebody.
texts = st.lists(
    st.sampled_from(
        ["\n", "\r", "\r\n", "\0", " ", ":", "data: x", "\x0b\x85", "\u2028", "\ufeff"]
    )
    | st.text(max_size=5)
).map("".join)
single_lines = texts.map(lambda text: re.sub("[\r\n\0]", "", text))
events = st.builds(
    ServerSentEvent,
    st.none() | texts,
    event=st.none() | single_lines,
    id=st.none() | single_lines,
    # JavaScript counts no further.
    retry=st.none() | st.integers(0, 2**53 - 1),
    comment=texts,
) | st.builds(ServerSentEvent, texts, event=st.none() | single_lines, id=st.none() | single_lines)
sizes = st.lists(st.integers(0, 9))


def cut(wire: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """
    Yield *wire* in chunks of these sizes, and what is left of it.
    """
    for size in sizes:
        yield wire[:size]
        wire = wire[size:]
    yield wire


def as_received(text: str) -> str:
    """
    Return text with the line ends that a client sees.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")
