import dataclasses
import datetime
import enum
import json
import reprlib
import subprocess
import sys
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse._json import encode_json

DAY = datetime.date(2026, 11, 23)


@dataclasses.dataclass
class Point:
    x: float
    next: "object" = None


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    x: int


class Model(pydantic.BaseModel):
    x: int
    day: datetime.date = DAY


class Struct(msgspec.Struct):
    x: int
    day: datetime.date = DAY


class Pair(NamedTuple):
    x: int
    y: int


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param(True, "true", id="bool"),
        pytest.param("ü\u2028\n", '"ü\u2028\\n"', id="text-stays-utf-8"),
        pytest.param({"a": [1, 2.5, ()], 3: None}, '{"a":[1,2.5,[]],"3":null}', id="compact"),
        pytest.param(Pair(1, 2), "[1,2]", id="named-tuple"),
        pytest.param(Level.LOW, "1", id="int-enum"),
        pytest.param(Point(1.5), '{"x":1.5,"next":null}', id="dataclass"),
        pytest.param(Slotted(1), '{"x":1}', id="dataclass-with-slots"),
        pytest.param(Model(x=1), '{"x":1,"day":"2026-11-23"}', id="pydantic"),
        pytest.param(Struct(x=1), '{"x":1,"day":"2026-11-23"}', id="msgspec"),
        pytest.param(
            [Point(1, next=Model(x=2)), {"s": Struct(x=3)}],
            '[{"x":1,"next":{"x":2,"day":"2026-11-23"}},{"s":{"x":3,"day":"2026-11-23"}}]',
            id="at-any-depth",
        ),
    ],
)
def test_encode_json(obj: object, text: str) -> None:
    assert encode_json(obj) == text


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param(DAY, "date has no form in JSON (got datetime.date(2026, 11, 23))", id="date"),
        pytest.param([b"x"], "bytes has no form in JSON (got b'x')", id="bytes"),
        pytest.param({"a": {1}}, "set has no form in JSON (got {1})", id="set"),
        pytest.param(Point(1, 2j), "complex has no form in JSON (got 2j)", id="in-a-dataclass"),
        pytest.param(
            Slotted, f"type has no form in JSON (got {reprlib.repr(Slotted)})", id="a-class"
        ),
    ],
)
def test_what_json_does_not_know_is_refused(obj: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode_json(obj)

    assert str(caught.value) == message


def test_keys_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(TypeError, match="keys must be str"):
        encode_json({(1, 2): 3})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_know_are_refused(number: float) -> None:
    for obj in (number, [number], Point(number)):
        with pytest.raises(ValueError, match="Out of range float"):
            encode_json(obj)


def test_circle_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    point = Point(1)
    point.next = point

    for obj in (loop, point):
        with pytest.raises(ValueError, match="Circular reference"):
            encode_json(obj)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_written_is_read(value: object) -> None:
    text = encode_json(value)

    assert json.loads(text) == value
    assert len(text.split("\n")) == len(text.split("\r")) == 1


def test_nothing_is_imported_to_find_out() -> None:
    code = """
import sys
from asgi_sse._json import encode_json
try:
    encode_json(object())
except TypeError:
    pass
print("msgspec" in sys.modules, "pydantic" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert run.stdout == "False False\n"
