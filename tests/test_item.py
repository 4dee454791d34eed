import decimal
import enum
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse._item import encode_item
from asgi_sse._json import encode_json
from asgi_sse.parser import EventStreamParser


class Kind(str, enum.Enum):  # noqa: UP042 - StrEnum writes its value, this one its name
    TOKEN = "token"


class Markup(str):
    """
    Text that escapes what it is put together with, as in template engines.
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "ESCAPED"

    __str__ = __repr__ = lambda self: "ESCAPED"


class Loud(ServerSentEvent):
    __slots__ = ()


@dataclass
class Load:
    host: str
    load: float


def no_json(obj: object) -> str:
    raise AssertionError(f"{obj!r} needs no JSON")


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        pytest.param("a", b"data: a\n\n", id="str"),
        pytest.param("", b"data: \n\n", id="empty-str-is-an-event"),
        pytest.param("a\nb\r\nc", b"data: a\ndata: b\ndata: c\n\n", id="lines"),
        pytest.param("id: 7\n\ndata: x", b"data: id: 7\ndata: \ndata: data: x\n\n", id="fields"),
        pytest.param("zürich", "data: zürich\n\n".encode(), id="utf-8"),
        pytest.param(Kind.TOKEN, b"data: token\n\n", id="str-enum"),
        pytest.param(Markup("<b>"), b"data: <b>\n\n", id="str-subclass"),
        pytest.param(ServerSentEvent("a", id=7), b"id: 7\ndata: a\n\n", id="event"),
        pytest.param(ServerSentEvent(comment="c"), b": c\n", id="comment"),
        pytest.param(Loud("a"), b"data: a\n\n", id="event-subclass"),
        pytest.param(b"data: a\n\n", b"data: a\n\n", id="lf"),
        pytest.param(b"data: a\r\n\r\n", b"data: a\r\n\r\n", id="crlf"),
        pytest.param(b"data: a\r\r", b"data: a\r\r", id="cr"),
        pytest.param(b"data: a\n\r\n", b"data: a\n\r\n", id="lf-crlf"),
        pytest.param(b"data: a\r\n\n", b"data: a\r\n\n", id="crlf-lf"),
        pytest.param(b"data: a\n\r", b"data: a\n\r", id="lf-cr"),
        pytest.param(b"data: a\n\ndata: b\n\n", b"data: a\n\ndata: b\n\n", id="two-blocks"),
        pytest.param(b"\n", b"\n", id="blank-line"),
        pytest.param(b"\r\n", b"\r\n", id="blank-line-crlf"),
        pytest.param(b"\r", b"\r", id="blank-line-cr"),
        pytest.param(bytearray(b"data: a\n\n"), b"data: a\n\n", id="bytearray"),
        pytest.param(memoryview(b"data: a\n\n"), b"data: a\n\n", id="memoryview"),
        pytest.param(memoryview(b"\n-\n-x")[::2][:2], b"\n\n", id="memoryview-with-gaps"),
    ],
)
def test_item_is_written_as_it_is(item: Any, wire: bytes) -> None:
    got = encode_item(item, no_json)

    assert got == wire
    # Servers take nothing else.
    assert type(got) is bytes


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        pytest.param(None, b"data: null\n\n", id="none"),
        pytest.param(True, b"data: true\n\n", id="bool"),
        pytest.param(7, b"data: 7\n\n", id="int"),
        pytest.param({"a": [1, "ü"]}, 'data: {"a":[1,"ü"]}\n\n'.encode(), id="dict"),
        pytest.param({"a": "b\nc"}, b'data: {"a":"b\\nc"}\n\n', id="line-end-inside"),
        pytest.param(("a", 1), b'data: ["a",1]\n\n', id="tuple"),
        pytest.param(Load("x", 0.5), b'data: {"host":"x","load":0.5}\n\n', id="dataclass"),
    ],
)
def test_everything_else_is_json(item: Any, wire: bytes) -> None:
    assert encode_item(item, encode_json) == wire


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        pytest.param("[1]", b"data: [1]\n\n", id="str"),
        pytest.param(b"[1]", b"data: [1]\n\n", id="bytes"),
        pytest.param("[\n 1\n]", b"data: [\ndata:  1\ndata: ]\n\n", id="indented"),
        pytest.param(Markup("[1]"), b"data: [1]\n\n", id="str-subclass"),
        pytest.param("", b"data: \n\n", id="nothing"),
    ],
)
def test_json_is_made_by_the_given_function(text: str | bytes, wire: bytes) -> None:
    items: list[object] = []

    def json(obj: object) -> str | bytes:
        items.append(obj)
        return text

    assert encode_item({"a": 1}, json) == wire
    assert items == [{"a": 1}]


def test_item_is_not_changed() -> None:
    blocks = bytearray(b"data: a\n\n")
    item = {"a": [1]}

    written = encode_item(blocks, no_json)
    encode_item(item, encode_json)
    blocks.clear()

    assert written == b"data: a\n\n"
    assert item == {"a": [1]}


@pytest.mark.parametrize(
    "blocks",
    [
        b"",
        b"a",
        b"data: a",
        b"data: a\n",
        b"data: a\r\n",
        b"data: a\r",
        b"data: a\n\n ",
        b"data: a\n\ndata: b",
        b": comment\n",
    ],
)
def test_bytes_that_are_no_whole_blocks_are_refused(blocks: bytes) -> None:
    with pytest.raises(ValueError, match="must be whole blocks that end with a blank line; did "):
        encode_item(blocks, no_json)


@pytest.mark.parametrize(
    ("item", "json", "message"),
    [
        pytest.param(
            decimal.Decimal(7),
            encode_json,
            "it cannot be made JSON: Decimal has no form in JSON (got Decimal('7'))",
            id="no-form",
        ),
        pytest.param(
            float("nan"),
            encode_json,
            "it cannot be made JSON: ",
            id="nan",
        ),
        pytest.param(
            {}, lambda obj: obj["a"], "it cannot be made JSON: 'a'", id="function-raises"
        ),
        pytest.param({}, lambda obj: obj, "json= must return str or bytes (got {})", id="dict"),
        pytest.param({}, lambda obj: None, "json= must return str or bytes (got None)", id="none"),
        pytest.param(
            {},
            lambda obj: ["x" * 200],
            "json= must return str or bytes (got ['" + "x" * 98 + ")",
            id="much",
        ),
    ],
)
def test_what_cannot_be_json_is_refused(item: Any, json: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode_item(item, json)

    assert str(caught.value).startswith(message)


def test_refusal_tells_what_the_function_raised() -> None:
    with pytest.raises(TypeError) as caught:
        encode_item({}, lambda obj: 1 / 0)  # type: ignore[arg-type,return-value]

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("item", ["\ud800", {"a": "\ud800"}, [b"\xff"]])
def test_text_that_cannot_be_utf_8_is_refused(item: Any) -> None:
    def json(obj: Any) -> str | bytes:
        return obj[0] if isinstance(obj, list) else encode_json(obj)

    with pytest.raises(ValueError, match="surrogates|invalid start byte"):
        encode_item(item, json)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_read_as_it_was_written(text: str) -> None:
    [event] = EventStreamParser().feed(encode_item(text, no_json))

    assert event.data == text.replace("\r\n", "\n").replace("\r", "\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b": c", b"data: x"])).map(b"".join))
def test_bytes_never_leak_into_the_next_event(blocks: bytes) -> None:
    try:
        written = encode_item(blocks, no_json)
    except ValueError:
        return
    parser = EventStreamParser()
    parser.feed(written)

    assert [event.data for event in parser.feed(b"data: next\n\n")] == ["next"]
