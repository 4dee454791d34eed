import codecs
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse.parser import EventStreamParser
from wire_cases import BOTH_WAYS, as_received, cut, events, sizes

# Named after the files of the Web Platform Tests, directory "eventsource". Those
# called format-mime-* are about a header, which is not the parser's.
ONLY_READ = [
    pytest.param(
        b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n",
        [ServerSentEvent("a"), ServerSentEvent("c")],
        id="format-bom",
    ),
    pytest.param(
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
        [ServerSentEvent("b")],
        id="format-bom-2",
    ),
    pytest.param(b"\xef\xbbdata: a\n\ndata: b\n\n", [ServerSentEvent("b")], id="half-a-bom"),
    pytest.param(
        b"data: a\n:\n:data: b\n: \0\ndata: c\n:" + b"x" * 100 + b"\ndata: d\n\n",
        [ServerSentEvent("a\nc\nd")],
        id="format-comments",
    ),
    pytest.param(
        b"data: a\n\ndata: b\n", [ServerSentEvent("a")], id="format-data-before-final-empty-line"
    ),
    pytest.param(b"data: a\n\ndata: b", [ServerSentEvent("a")], id="unterminated-line"),
    pytest.param(b"data: a", [], id="nothing-but-an-unterminated-line"),
    pytest.param(
        b"data:\n\ndata\ndata\n\ndata:a\n\n",
        [ServerSentEvent(""), ServerSentEvent("\n"), ServerSentEvent("a")],
        id="format-field-data",
    ),
    pytest.param(
        b"event: e\ndata: a\n\ndata: b\n\n",
        [ServerSentEvent("a", event="e"), ServerSentEvent("b")],
        id="format-field-event",
    ),
    pytest.param(
        b"event: e\nevent: \ndata: a\n\nevent: e\nevent\ndata: b\n\n",
        [ServerSentEvent("a"), ServerSentEvent("b")],
        id="format-field-event-empty",
    ),
    pytest.param(
        b"event: d\nevent: e\ndata: a\n\n", [ServerSentEvent("a", event="e")], id="last-event-wins"
    ),
    pytest.param(
        b"event: e\n\ndata: a\n\n", [ServerSentEvent("a")], id="event-is-forgotten-without-data"
    ),
    pytest.param(b"data: a\nid: 1\n\n", [ServerSentEvent("a", id="1")], id="format-field-id"),
    pytest.param(
        b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\n",
        [ServerSentEvent("a", id="1"), ServerSentEvent("b", id="1"), ServerSentEvent("c", id="2")],
        id="format-field-id-2",
    ),
    pytest.param(
        b"id: 1\ndata: a\n\nid\ndata: b\n\nid: 2\nid:\ndata: c\n\n",
        [ServerSentEvent("a", id="1"), ServerSentEvent("b"), ServerSentEvent("c")],
        id="format-field-id-3",
    ),
    pytest.param(
        b"id: 1\ndata: a\n\nid: 2\0\nid: \0\ndata: b\n\n",
        [ServerSentEvent("a", id="1"), ServerSentEvent("b", id="1")],
        id="format-field-id-null",
    ),
    pytest.param(
        b"data:  a\nData: b\n data: c\ndata : d\nda-ta: e\ndata_f\ndata\0: g\ndata:h:i\n\n",
        [ServerSentEvent(" a\nh:i")],
        id="format-field-parsing",
    ),
    pytest.param(
        b"retry: 1000\ndata: a\n\nretry: x\ndata: b\n\nretry\ndata: c\n\n",
        [ServerSentEvent("a"), ServerSentEvent("b"), ServerSentEvent("c")],
        id="format-field-retry",
    ),
    pytest.param(
        b"data: a\n data\ndata\nfoobar: x\njustsometext\n: y\n: z: data\ndata: b\n\n",
        [ServerSentEvent("a\n\nb")],
        id="format-field-unknown",
    ),
    pytest.param(
        b"data:\ta\ndata: \tb\ndata:  c\ndata:d\ndata: \xc2\xa0e\n\n",
        [ServerSentEvent("\ta\n\tb\n c\nd\n\xa0e")],
        id="format-leading-space",
    ),
    pytest.param(
        b"data: a\r\ndata: b\ndata: c\r\rdata: d\n\rdata: e\r\n\r\ndata: f\r\r\n",
        [
            ServerSentEvent("a\nb\nc"),
            ServerSentEvent("d"),
            ServerSentEvent("e"),
            ServerSentEvent("f"),
        ],
        id="format-newlines",
    ),
    pytest.param(
        "data: a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\n\n".encode(),
        [ServerSentEvent("a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")],
        id="no-other-newlines",
    ),
    pytest.param(
        b"data: \0a\0\n\0\n\0data: b\n\n",
        [ServerSentEvent("\0a\0")],
        id="format-null-character",
    ),
    pytest.param(
        b"data: \xc3\xbc\xf0\x9f\x98\x80\nevent: \xe2\x82\xac\nid: \xc3\xbf\n\n",
        [ServerSentEvent("ü😀", event="€", id="ÿ")],
        id="format-utf-8",
    ),
    # The Unicode Standard, table 3-11: how many U+FFFD stand for what is ill-formed.
    pytest.param(
        b"data: a\xf1\x80\x80\xe1\x80\xc2b\x80c\x80\xbfd\n\n",
        [ServerSentEvent("a\ufffd\ufffd\ufffdb\ufffdc\ufffd\ufffdd")],
        id="truncated-utf-8",
    ),
    pytest.param(
        b"data: \xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41\n\n",
        [ServerSentEvent("\ufffd" * 8 + "A")],
        id="overlong-utf-8",
    ),
    pytest.param(
        b"data: \xed\xa0\x80\xf4\x91\x92\x93\xff\n\n",
        [ServerSentEvent("\ufffd" * 8)],
        id="surrogates-and-more-in-utf-8",
    ),
    pytest.param(
        b"data: \xf0\x9f\x98\r\xe2\x82\ndata: \xc3\n\n",
        [ServerSentEvent("\ufffd\n\ufffd")],
        id="line-end-ends-ill-formed-utf-8",
    ),
    pytest.param(b"\n\r\r\n\n", [], id="only-line-ends"),
    pytest.param(b"", [], id="nothing"),
]


def check_parse(wire: bytes, expected: list[ServerSentEvent]) -> None:
    """
    Parse *wire* in every way the network may cut it once, and byte by byte.
    """
    for place in range(len(wire) + 1):
        parser = EventStreamParser()
        assert parser.feed(wire[:place]) + parser.feed(wire[place:]) == expected

    assert parse(wire[place : place + 1] for place in range(len(wire))) == expected


def parse(chunks: Iterable[bytes]) -> list[ServerSentEvent]:
    parser = EventStreamParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(("sent", "wire", "received"), BOTH_WAYS)
def test_what_is_written_is_read(
    sent: ServerSentEvent, wire: bytes, received: list[ServerSentEvent]
) -> None:
    check_parse(wire, received)


@pytest.mark.parametrize(("wire", "received"), ONLY_READ)
def test_only_read(wire: bytes, received: list[ServerSentEvent]) -> None:
    check_parse(wire, received)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize(("sent", "wire", "received"), BOTH_WAYS)
def test_line_ends_are_equal(
    sent: ServerSentEvent, wire: bytes, received: list[ServerSentEvent], end: bytes
) -> None:
    check_parse(wire.replace(b"\n", end), received)


@given(st.lists(events), sizes)
def test_what_is_sent_is_received(sent: list[ServerSentEvent], sizes: list[int]) -> None:
    wire = b"".join(event.encode() for event in sent)

    expected, last_event_id = [], ""
    for event in sent:
        if event.id is not None:
            last_event_id = event.id
        if event.data is not None:
            expected.append(
                ServerSentEvent(
                    as_received(event.data), event=event.event or None, id=last_event_id or None
                )
            )
    assert parse(cut(wire, sizes)) == expected


def read_by_the_letter(
    body: bytes,
) -> tuple[list[tuple[str, str, str]], str, int | None]:
    """
    Return what "interpreting an event stream" in the standard says, step by step.

    It has all of the body at once, and spends its time freely.
    """
    stream = body.decode("utf-8", "replace").removeprefix("\ufeff")
    dispatched, last_event_id, reconnection_time = [], "", None
    data = event_type = id_buffer = ""

    *lines, _ = re.split("\r\n|\r|\n", stream)
    for line in lines:
        if line == "":
            last_event_id = id_buffer
            if data != "":
                dispatched.append((data.removesuffix("\n"), event_type, last_event_id))
            data = event_type = ""
            continue
        if line[0] == ":":
            continue
        field, value = (line.split(":", 1) + [""])[:2]
        value = value[1:] if value[:1] == " " else value
        if field == "event":
            event_type = value
        if field == "data":
            data += value + "\n"
        if field == "id" and "\0" not in value:
            id_buffer = value
        if field == "retry" and re.fullmatch("[0-9]+", value):
            reconnection_time = int(value)
    return dispatched, last_event_id, reconnection_time


@given(
    st.lists(
        st.sampled_from(
            [b"data", b"event", b"id", b"retry", b":", b": ", b" ", b"x", b"7", b"\0"]
            + [b"\n", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xef\xbb", b"\xbf", b"\xe2\x80"]
            + [b"data: x\n", b"event: x\n", b"id: 7\n", b"retry: 7\n", "ü\u2028".encode()]
        )
        | st.binary(max_size=3)
    ).map(b"".join),
    sizes,
)
def test_garbage_is_read_by_the_letter_however_it_is_cut(wire: bytes, sizes: list[int]) -> None:
    parser = EventStreamParser()
    received = [event for chunk in cut(wire, sizes) for event in parser.feed(chunk)]

    dispatched = [(event.data, event.event or "", event.id or "") for event in received]
    assert (dispatched, parser.last_event_id, parser.reconnection_time) == (
        read_by_the_letter(wire)
    )


def test_event_is_dispatched_without_waiting_for_what_follows_a_cr() -> None:
    parser = EventStreamParser()

    assert parser.feed(b"data: a\r\r") == [ServerSentEvent("a")]
    # Only the first of these belongs to a line end that began before.
    assert parser.feed(b"\n\ndata: b\r\n\r") == [ServerSentEvent("b")]
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: c\n\n") == [ServerSentEvent("c")]


def test_ill_formed_utf_8_is_replaced_though_cut() -> None:
    assert parse([b"data: \xe2", b"\x82", b"a\xe2\x82", b"\xac\xf0\x9f", b"\n\n"]) == [
        ServerSentEvent("\ufffda€\ufffd")
    ]


def test_events_have_what_a_client_sees_and_nothing_else() -> None:
    [event] = parse([b": c\nretry: 5\ndata: a\n\n"])

    assert event.data == "a"
    assert (event.event, event.id, event.retry, event.comment) == (None, None, None, None)


def test_nul_in_the_event_type_is_kept() -> None:
    [event] = parse([b"event: a\0\ndata: b\n\n"])

    assert event.event == "a\0"


def test_many_events_in_one_feed_and_one_event_in_many() -> None:
    assert EventStreamParser().feed(b"data: a\n\n" * 1000) == [ServerSentEvent("a")] * 1000
    assert parse([b"data: ", *[b"x" * 1000] * 1000, b"\n\n"]) == [ServerSentEvent("x" * 1_000_000)]


def test_last_event_id_is_that_of_the_last_whole_block() -> None:
    parser = EventStreamParser()
    assert parser.last_event_id == ""

    parser.feed(b"data: a\nid: 1\n")
    assert parser.last_event_id == ""
    parser.feed(b"\n")
    assert parser.last_event_id == "1"
    parser.feed(b"id: 2\n\n")
    assert parser.last_event_id == "2"
    parser.feed(b"data: b\n\n")
    assert parser.last_event_id == "2"
    parser.feed(b"id\n\n")
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (b"0", 0),
        (b"1500", 1500),
        (b"007", 7),
        (b"9" * 30, int("9" * 30)),
        (b"", None),
        (b" ", None),
        (b" 5", None),
        (b"5 ", None),
        (b"+5", None),
        (b"-5", None),
        (b"5_0", None),
        (b"5.0", None),
        (b"5e3", None),
        (b"0x5", None),
        (b"5s", None),
        (b"5\0", None),
        ("٣".encode(), None),
        ("５".encode(), None),
        ("²".encode(), None),
        (b"9" * 5000, None),
    ],
)
def test_retry_is_digits_only(value: bytes, milliseconds: int | None) -> None:
    parser = EventStreamParser()
    assert parser.reconnection_time is None

    assert parser.feed(b"retry: " + value + b"\n") == []
    assert parser.reconnection_time == milliseconds


def test_bogus_retry_leaves_the_reconnection_time_alone() -> None:
    parser = EventStreamParser()
    parser.feed(b"retry: 5\nretry: 6\nretry: x\nretry\n")

    assert parser.reconnection_time == 6


def test_what_was_learnt_cannot_be_set() -> None:
    parser = EventStreamParser()

    with pytest.raises(AttributeError):
        parser.last_event_id = "7"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        parser.reconnection_time = 7  # type: ignore[misc]


def test_a_bom_counts_only_at_the_start() -> None:
    assert parse([codecs.BOM_UTF8, b"data: a\n", codecs.BOM_UTF8 + b"data: b\n\n"]) == [
        ServerSentEvent("a")
    ]
