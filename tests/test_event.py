import copy
import enum
import pickle
from typing import Any, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse._event import encode_data
from asgi_sse.parser import EventStreamParser
from wire_cases import BOTH_WAYS, events, texts

FULL = ServerSentEvent("x", event="tick", id=7, retry=10, comment="c")


# Unlike a StrEnum, it writes its name.
class Kind(str, enum.Enum):  # noqa: UP042
    TOKEN = "token"


class Number(int, enum.Enum):
    SEVEN = 7


class Loud(str):
    """
    Text that is not what it seems, as Markup and other subclasses are.
    """

    def __format__(self, spec: str) -> str:
        return "LOUD\n"

    def __str__(self) -> str:
        return "LOUD\n"


@pytest.mark.parametrize(("sent", "wire", "received"), BOTH_WAYS)
def test_encode(sent: ServerSentEvent, wire: bytes, received: list[ServerSentEvent]) -> None:
    assert sent.encode() == wire


def test_bytes_are_made_once() -> None:
    assert FULL.encode() is FULL.encode()


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", b"data: \n\n"),
        ("a", b"data: a\n\n"),
        ("a\nb\rc\r\nd", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
    ],
)
def test_encode_data(text: str, wire: bytes) -> None:
    assert encode_data(text) == wire


@given(texts)
def test_encode_data_makes_the_bytes_of_an_event(text: str) -> None:
    assert encode_data(text) == ServerSentEvent(text).encode()


def test_fields_are_kept_as_given() -> None:
    event = ServerSentEvent("a\r\nb", event="", id="", retry=0, comment="c\rd")

    assert event.data == "a\r\nb"
    assert event.event == ""
    assert event.id == ""
    assert event.retry == 0
    assert event.comment == "c\rd"


def test_fields_not_given_are_none() -> None:
    event = ServerSentEvent("x")

    assert (event.event, event.id, event.retry, event.comment) == (None, None, None, None)
    assert ServerSentEvent(id=1).data is None


def test_types() -> None:
    event = ServerSentEvent("x", id=7)

    assert_type(event.data, str | None)
    assert_type(event.event, str | None)
    assert_type(event.id, str | None)
    assert_type(event.retry, int | None)
    assert_type(event.comment, str | None)
    assert_type(event.encode(), bytes)
    assert_type(ServerSentEvent.json([1]), ServerSentEvent)


@pytest.mark.parametrize("number", [7, Number.SEVEN])
def test_integer_becomes_text_as_id(number: int) -> None:
    event = ServerSentEvent("x", id=number)

    assert event.id == "7"
    assert event.encode() == b"id: 7\ndata: x\n\n"


def test_integer_of_a_subclass_becomes_plain_as_retry() -> None:
    event = ServerSentEvent(retry=Number.SEVEN)

    assert type(event.retry) is int
    assert event.encode() == b"retry: 7\n"


@pytest.mark.parametrize("text", [Kind.TOKEN, Loud("token")])
def test_text_of_a_subclass_becomes_plain(text: str) -> None:
    event = ServerSentEvent(text, event=text, id=text, comment=text)
    fields = (event.data, event.event, event.id, event.comment)

    assert fields == ("token", "token", "token", "token")
    assert {type(field) for field in fields} == {str}
    assert event.encode() == b": token\nevent: token\nid: token\ndata: token\n\n"
    assert encode_data(text) == b"data: token\n\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data": {"a": 1}},
            "data must be a str or None (got {'a': 1}); did you mean ServerSentEvent.json()?",
        ),
        (
            {"data": b"x"},
            "data must be a str or None (got b'x'); did you mean ServerSentEvent.json()?",
        ),
        ({"event": 7}, "event must be a str or None (got 7)"),
        ({"event": b"x"}, "event must be a str or None (got b'x')"),
        ({"id": 7.0}, "id must be a str, an int or None (got 7.0)"),
        ({"id": True}, "id must be a str, an int or None (got True)"),
        ({"retry": 1.5}, "retry must be an int or None (got 1.5)"),
        ({"retry": "1"}, "retry must be an int or None (got '1')"),
        ({"retry": True}, "retry must be an int or None (got True)"),
        ({"comment": 7}, "comment must be a str or None (got 7)"),
    ],
)
def test_other_types_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        ServerSentEvent(**fields)

    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["event", "id"])
@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "a\nb", "7\r\ndata: x", "7\n\n", "\0a"])
def test_second_line_or_nul_is_refused(name: str, bad: str) -> None:
    fields: dict[str, Any] = {name: bad}

    with pytest.raises(ValueError, match="must be a single line without NUL") as caught:
        ServerSentEvent("x", **fields)

    assert str(caught.value) == f"{name} must be a single line without NUL (got {bad!r})"


@pytest.mark.parametrize("name", ["data", "event", "id", "comment"])
@pytest.mark.parametrize("bad", ["\ud800", "a\udc80b", "\udfff\ud800"])
def test_lone_surrogate_is_refused(name: str, bad: str) -> None:
    fields: dict[str, Any] = {"data": "x", "comment": "y", name: bad}

    with pytest.raises(ValueError, match="surrogate") as caught:
        ServerSentEvent(**fields)

    culprit = bad.strip("ab")[0]
    assert str(caught.value) == f"{name} must not hold lone surrogates (got {culprit!r})"


def test_lone_surrogate_is_refused_in_encode_data() -> None:
    with pytest.raises(ValueError, match="^data must not hold lone surrogates"):
        encode_data("\ud800")


def test_other_types_are_refused_in_encode_data() -> None:
    with pytest.raises(TypeError, match="^data must be a str"):
        encode_data(b"x")  # type: ignore[arg-type]


def test_negative_retry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^retry must be 0 or more milliseconds \(got -1\)$"):
        ServerSentEvent(retry=-1)


def test_event_without_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="^an event must have a field"):
        ServerSentEvent()


def test_long_values_are_shortened_in_errors() -> None:
    with pytest.raises(ValueError, match="single line") as caught:
        ServerSentEvent(id="\n" * 100_000)

    assert len(str(caught.value)) < 100


@given(texts | st.text(st.characters()))
def test_no_event_or_id_adds_a_line(text: str) -> None:
    try:
        event = ServerSentEvent("x", event=text, id=text)
    except ValueError:
        return

    assert event.encode().replace(b"\r", b"\n").count(b"\n") == 4


@pytest.mark.parametrize("name", ["data", "event", "id", "retry", "comment", "anything"])
def test_nothing_can_be_changed(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(FULL, name, "y")
    with pytest.raises(AttributeError):
        delattr(FULL, name)

    assert FULL == ServerSentEvent("x", event="tick", id=7, retry=10, comment="c")


@pytest.mark.parametrize(
    "other",
    [
        ServerSentEvent("y", event="tick", id=7, retry=10, comment="c"),
        ServerSentEvent("x", event="tock", id=7, retry=10, comment="c"),
        ServerSentEvent("x", event="tick", id=8, retry=10, comment="c"),
        ServerSentEvent("x", event="tick", id=7, retry=11, comment="c"),
        ServerSentEvent("x", event="tick", id=7, retry=10, comment="d"),
        ServerSentEvent("x"),
        "x",
        None,
    ],
)
def test_unequal(other: object) -> None:
    assert FULL != other
    assert ServerSentEvent("") != ServerSentEvent(event="")


@given(events)
def test_equal_events_have_one_hash_and_one_encoding(event: ServerSentEvent) -> None:
    again = ServerSentEvent(
        event.data, event=event.event, id=event.id, retry=event.retry, comment=event.comment
    )

    assert again == event
    assert hash(again) == hash(event)
    assert again.encode() == event.encode()


@given(events)
def test_repr_makes_the_event(event: ServerSentEvent) -> None:
    assert eval(repr(event)) == event


def test_repr_shows_what_was_given() -> None:
    assert repr(ServerSentEvent("")) == "ServerSentEvent(data='')"
    assert repr(FULL) == ("ServerSentEvent(data='x', event='tick', id='7', retry=10, comment='c')")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol: int) -> None:
    again = pickle.loads(pickle.dumps(FULL, protocol))

    assert again == FULL
    assert again.encode() == FULL.encode()


def test_copy() -> None:
    assert copy.copy(FULL) == FULL
    assert copy.deepcopy(FULL) == FULL
    assert copy.copy(FULL).encode() == FULL.encode()


def test_received_event_can_be_sent_on() -> None:
    """
    A proxy yields what a parser gave it, even what could not be made here.
    """
    wire = b"event: a\0\nid: 7\ndata: x\n\n"
    [event] = EventStreamParser().feed(wire)

    assert event.event == "a\0"
    assert event.encode() == wire
    assert copy.copy(event) == event


def test_json() -> None:
    event = ServerSentEvent.json({"a": [1, "ü\n"]}, event="e", id=7, retry=10, comment="c")

    assert event == ServerSentEvent('{"a":[1,"ü\\n"]}', event="e", id="7", retry=10, comment="c")


def test_json_of_none_is_data() -> None:
    assert ServerSentEvent.json(None).data == "null"


def test_json_makes_events_of_a_subclass() -> None:
    class Tick(ServerSentEvent):
        pass

    tick = Tick.json(1)

    assert type(tick) is Tick
    assert repr(tick) == "Tick(data='1')"
    assert tick == ServerSentEvent("1")


def test_json_refuses_what_json_does_not_know() -> None:
    with pytest.raises(TypeError, match="has no form in JSON"):
        ServerSentEvent.json(object())
