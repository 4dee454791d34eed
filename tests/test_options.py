import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import Request, ServerSentEvent
from asgi_sse._options import (
    Closed,
    Options,
    OptionTypes,
    check_farewell,
    check_reason,
    check_seconds,
    encode_event,
    spread_reconnects,
)

DEFAULT_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
EVENT = ServerSentEvent("x")
NO_REQUEST: Any = None


def refused(error: type[Exception], **options: Any) -> str:
    """
    Return what is said about options that are refused.
    """
    with pytest.raises(error) as caught:
        Options(**options)
    return str(caught.value)


def test_defaults() -> None:
    options = Options()

    assert options.keep_alive == 15
    assert options.send_timeout == 30
    assert options.cleanup_timeout == 5
    assert options.max_age is None
    assert options.shutdown_grace == 1
    assert options.on_shutdown == "close"
    assert options.watch_shutdown is True
    assert options.buffer_size == 65536
    assert options.max_body_size == 1048576
    assert options.status == 200
    assert options.methods == ("GET",)
    assert options.raw_headers == DEFAULT_HEADERS
    assert options.opening == b":\n\n"
    assert options.keep_alive_event is None
    assert options.keep_alive_always is False
    assert options.open_delay == 0
    assert options.encode is None
    assert options.json({"a": "ü"}) == '{"a":"ü"}'
    assert options.farewell is spread_reconnects


def test_type_checkers_know_every_option() -> None:
    assert {field.name for field in fields(Options) if field.init} == {
        *OptionTypes.__annotations__
    }


def test_every_option_is_documented() -> None:
    described = Options.__doc__ or ""

    assert all(f" {name}: " in described for name in OptionTypes.__annotations__)


def test_options_do_not_change() -> None:
    options = Options()

    with pytest.raises(FrozenInstanceError):
        options.status = 201  # type: ignore[misc]


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Options(15.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["ping", "opening", "raw_headers"])
def test_unknown_option_is_refused(name: str) -> None:
    assert f"unexpected keyword argument '{name}'" in refused(TypeError, **{name: 1})


# Seconds

SECONDS = [
    "keep_alive",
    "send_timeout",
    "max_age",
    "cleanup_timeout",
    "shutdown_grace",
    "open_delay",
    "revalidate_every",
]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.001, 1e9])
def test_seconds_may_be_any_time(name: str, value: float) -> None:
    assert getattr(Options(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["keep_alive", "send_timeout", "max_age"])
def test_none_turns_a_time_off(name: str) -> None:
    assert getattr(Options(**{name: None}), name) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["shutdown_grace", "open_delay"])
def test_delays_may_be_nothing(name: str) -> None:
    assert getattr(Options(**{name: 0}), name) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["15", True, b"1", [1], 1j])
def test_seconds_of_another_type_are_refused(name: str, value: Any) -> None:
    message = refused(TypeError, **{name: value})

    assert message == f"{name} must be a number of seconds (got {value!r})"


@pytest.mark.parametrize("name", ["cleanup_timeout", "shutdown_grace", "open_delay"])
def test_what_has_an_end_cannot_be_turned_off(name: str) -> None:
    assert refused(TypeError, **{name: None}) == f"{name} must be a number of seconds (got None)"


@pytest.mark.parametrize(
    ("name", "rule", "hint"),
    [
        ("keep_alive", "more than 0", "; None turns it off"),
        ("send_timeout", "more than 0", "; None turns it off"),
        ("max_age", "more than 0", "; None turns it off"),
        ("cleanup_timeout", "more than 0", ""),
        ("shutdown_grace", "0 or more", ""),
        ("open_delay", "0 or more", ""),
    ],
)
@pytest.mark.parametrize("value", [-1, -0.5, math.inf, -math.inf, math.nan])
def test_seconds_that_make_no_sense_are_refused(
    name: str, rule: str, hint: str, value: float
) -> None:
    message = refused(ValueError, **{name: value})

    assert message == f"{name} must be finite and {rule} seconds (got {value!r}){hint}"


@pytest.mark.parametrize("name", ["keep_alive", "send_timeout", "max_age", "cleanup_timeout"])
def test_no_time_at_all_is_refused(name: str) -> None:
    message = f"{name} must be finite and more than 0 seconds (got 0)"

    assert refused(ValueError, **{name: 0}).startswith(message)


@given(st.floats() | st.integers())
def test_seconds_are_positive_and_finite_or_refused(value: float) -> None:
    try:
        check_seconds("grace", value)
    except ValueError:
        assert not 0 < value < math.inf
    else:
        assert 0 < value < math.inf


# Whole numbers


@pytest.mark.parametrize("name", ["buffer_size", "max_body_size"])
@pytest.mark.parametrize("value", [0, 1, 10**12])
def test_sizes_may_be_any_number(name: str, value: int) -> None:
    assert getattr(Options(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["buffer_size", "max_body_size", "status"])
@pytest.mark.parametrize("value", ["1", 1.0, True, None])
def test_numbers_of_another_type_are_refused(name: str, value: Any) -> None:
    assert refused(TypeError, **{name: value}) == f"{name} must be an int (got {value!r})"


@pytest.mark.parametrize("name", ["buffer_size", "max_body_size"])
def test_negative_sizes_are_refused(name: str) -> None:
    assert refused(ValueError, **{name: -1}) == f"{name} must be 0 or more (got -1)"


@pytest.mark.parametrize("status", [200, 201, 299, HTTPStatus.ACCEPTED])
def test_status_is_one_of_success(status: int) -> None:
    assert Options(status=status).status == status


@pytest.mark.parametrize("status", [0, 199, 300, 404, -200])
def test_other_statuses_are_refused(status: int) -> None:
    message = refused(ValueError, status=status)

    assert message == f"status must be from 200 to 299 (got {status})"


@pytest.mark.parametrize("status", [204, 205])
def test_statuses_without_body_are_refused(status: int) -> None:
    message = refused(ValueError, status=status)

    assert message == f"status must be one that has a body (got {status})"


def test_retry_is_in_the_opening_and_no_blank_line() -> None:
    assert Options(retry=0).opening == b":\nretry: 0\n"
    assert Options(retry=3000).opening == b":\nretry: 3000\n"


@pytest.mark.parametrize(
    ("retry", "error", "message"),
    [
        ("3000", TypeError, "retry must be an int or None (got '3000')"),
        (3.0, TypeError, "retry must be an int or None (got 3.0)"),
        (True, TypeError, "retry must be an int or None (got True)"),
        (-1, ValueError, "retry must be 0 or more milliseconds (got -1)"),
    ],
)
def test_bad_retry_is_refused(retry: Any, error: type[Exception], message: str) -> None:
    assert refused(error, retry=retry) == message


# Functions


@pytest.mark.parametrize("name", ["json", "on_error", "on_close"])
def test_functions_are_kept(name: str) -> None:
    assert getattr(Options(**{name: repr}), name) is repr  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["on_error", "on_close"])
def test_functions_may_be_absent(name: str) -> None:
    assert getattr(Options(**{name: None}), name) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["json", "on_error", "on_close"])
@pytest.mark.parametrize("value", ["print", 7, EVENT])
def test_what_cannot_be_called_is_refused(name: str, value: Any) -> None:
    assert refused(TypeError, **{name: value}) == f"{name} must be callable (got {value!r})"


def test_json_cannot_be_none() -> None:
    assert refused(TypeError, json=None) == "json must be callable (got None)"


# Events

RETURNS_EVENT: list[Any] = [EVENT, lambda *_: EVENT]


@pytest.mark.parametrize("event", [None, *RETURNS_EVENT])
def test_keep_alive_event_is_kept(event: Any) -> None:
    assert Options(keep_alive_event=event).keep_alive_event is event


@pytest.mark.parametrize("value", ["ping", b": ping\n", 15, {}])
def test_keep_alive_event_of_another_type_is_refused(value: Any) -> None:
    message = refused(TypeError, keep_alive_event=value)

    assert message == f"keep_alive_event must be a ServerSentEvent or return one (got {value!r})"


@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_keep_alive_always_is_yes_or_no(value: Any) -> None:
    message = refused(TypeError, keep_alive_always=value)

    assert message == f"keep_alive_always must be a bool (got {value!r})"


def test_event_from_an_option_is_encoded() -> None:
    assert encode_event("farewell", EVENT) == b"data: x\n\n"


@pytest.mark.parametrize("value", ["ping", b": ping\n", None])
def test_option_that_returns_no_event_is_refused(value: Any) -> None:
    """
    A str has an ``encode()`` too, and what it returns would be taken for fields.
    """
    with pytest.raises(TypeError) as caught:
        encode_event("on_error", value)

    assert str(caught.value) == f"on_error must return a ServerSentEvent (got {value!r})"


@pytest.mark.parametrize("farewell", [None, *RETURNS_EVENT])
def test_farewell_is_kept(farewell: Any) -> None:
    check_farewell(farewell)

    assert Options(farewell=farewell).farewell is farewell


@pytest.mark.parametrize("value", ["bye", b"bye", 7])
def test_farewell_of_another_type_is_refused(value: Any) -> None:
    message = f"farewell must be a ServerSentEvent, return one, or be None (got {value!r})"

    assert refused(TypeError, farewell=value) == message


def test_farewell_by_default_spreads_the_reconnects() -> None:
    events = [spread_reconnects(NO_REQUEST) for _ in range(100)]
    times = [event.retry for event in events if event.retry is not None]

    assert len(times) == 100
    assert all(1000 <= time <= 5000 for time in times)
    assert len(set(times)) > 1
    assert events[0] == ServerSentEvent(retry=times[0])


# Shutdown


@pytest.mark.parametrize("value", ["close", "finish"])
def test_on_shutdown(value: Any) -> None:
    assert Options(on_shutdown=value).on_shutdown == value


@pytest.mark.parametrize("value", ["", "CLOSE", None, True, print])
def test_other_ways_to_shut_down_are_refused(value: Any) -> None:
    message = refused(ValueError, on_shutdown=value)

    assert message == f"on_shutdown must be close or finish (got {value!r})"


async def stop() -> None:
    pass


@pytest.mark.parametrize("value", [True, False, stop])
def test_watch_shutdown(value: Any) -> None:
    assert Options(watch_shutdown=value).watch_shutdown is value


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_what_cannot_be_watched_is_refused(value: Any) -> None:
    message = refused(TypeError, watch_shutdown=value)

    assert message == f"watch_shutdown must be a bool or a coroutine function (got {value!r})"


@pytest.mark.parametrize(
    "reason",
    [
        "finished",
        "client",
        "shutdown",
        "send_timeout",
        "max_age",
        "expired",
        "revoked",
        "closed",
        "error",
        "refused",
    ],
)
def test_reasons(reason: str) -> None:
    check_reason(reason)


@pytest.mark.parametrize("reason", ["", "SHUTDOWN", None])
def test_other_reasons_are_refused(reason: Any) -> None:
    with pytest.raises(
        ValueError, match="reason must be one of finished, client, .* refused "
    ) as c:
        check_reason(reason)

    assert str(c.value).endswith(f"(got {reason!r})")


def test_closed_does_not_change() -> None:
    closed = Closed("client", 1.5, 2, 30, None)

    assert repr(closed) == (
        "Closed(reason='client', duration=1.5, events=2, bytes=30, error=None)"
    )
    with pytest.raises(FrozenInstanceError):
        closed.reason = "error"  # type: ignore[misc]


# The end


def test_end_is_one_of_two() -> None:
    assert Options(end="stop").end == "stop"
    assert refused(ValueError, end="halt") == "end must be reconnect or stop (got 'halt')"


def test_done_is_made_a_block() -> None:
    assert Options().done_block == b""
    assert Options(done="[DONE]").done_block == b"data: [DONE]\n\n"
    assert Options(done=[1], json=lambda _: "x").done_block == b"data: x\n\n"


@pytest.mark.parametrize(("done", "error"), [(object(), TypeError), (b"data: x\n", ValueError)])
def test_done_that_cannot_be_sent_is_refused(done: Any, error: type[Exception]) -> None:
    message = refused(error, done=done)

    assert message.startswith(f"done must be what a source may yield (got {done!r}): ")


# Ages


@pytest.mark.parametrize("age", [(1, 2), (0.5, 0.5), (1, 1e9)])
def test_age_may_be_a_range(age: Any) -> None:
    assert Options(max_age=age).max_age == age


@pytest.mark.parametrize(
    ("age", "error", "rule"),
    [
        ((1,), ValueError, "a pair of least and most"),
        ((1, 2, 3), ValueError, "a pair of least and most"),
        ((2, 1), ValueError, "a pair of least and most"),
        ((0, 1), ValueError, "finite and more than 0 seconds"),
        ((1, math.inf), ValueError, "finite and more than 0 seconds"),
        (("1", 2), TypeError, "a number of seconds"),
        ([1, 2], TypeError, "a number of seconds"),
    ],
)
def test_other_ranges_are_refused(age: Any, error: type[Exception], rule: str) -> None:
    assert refused(error, max_age=age).startswith(f"max_age must be {rule} (got ")


# Methods


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["GET"], ("GET",)),
        (("get", "Post"), ("GET", "POST")),
        (["GET", "get", "GET"], ("GET",)),
        ({"M-SEARCH"}, ("M-SEARCH",)),
        ({"POST": "a dict is a collection"}, ("POST",)),
    ],
)
def test_methods(methods: Any, expected: tuple[str, ...]) -> None:
    assert Options(methods=methods).methods == expected


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ("GET", TypeError, "methods must be a collection of str (got 'GET')"),
        (None, TypeError, "methods must be a collection of str (got None)"),
        (7, TypeError, "methods must be a collection of str (got 7)"),
        (b"GET", TypeError, "methods must hold str (got 71)"),
        (["GET", None], TypeError, "methods must hold str (got None)"),
        ([], ValueError, "methods must not be empty (got [])"),
        ([""], ValueError, "methods must hold HTTP methods (got '')"),
        (["GET,POST"], ValueError, "methods must hold HTTP methods (got 'GET,POST')"),
        (["GET\n"], ValueError, r"methods must hold HTTP methods (got 'GET\n')"),
        (["GÉT"], ValueError, "methods must hold HTTP methods (got 'GÉT')"),
        (["-"], ValueError, "methods must hold HTTP methods (got '-')"),
    ],
)
def test_bad_methods_are_refused(methods: Any, error: type[Exception], message: str) -> None:
    assert refused(error, methods=methods) == message


# Headers


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(None, DEFAULT_HEADERS, id="none"),
        pytest.param({}, DEFAULT_HEADERS, id="empty"),
        pytest.param({"X-A": "b"}, (*DEFAULT_HEADERS, (b"x-a", b"b")), id="added"),
        pytest.param(
            {"Cache-Control": "public, max-age=29"},
            (DEFAULT_HEADERS[0], (b"cache-control", b"public, max-age=29"), DEFAULT_HEADERS[2]),
            id="replaced",
        ),
        pytest.param({"X-Accel-Buffering": None}, DEFAULT_HEADERS[:2], id="removed"),
        pytest.param({"X-A": None}, DEFAULT_HEADERS, id="removed-what-is-not-there"),
        pytest.param(
            {"Content-Type": None, "cache-control": None, "X-ACCEL-BUFFERING": None},
            (),
            id="all-removed",
        ),
        pytest.param(MappingProxyType({"X-A": "b"}), (*DEFAULT_HEADERS, (b"x-a", b"b")), id="map"),
    ],
)
def test_headers(
    headers: Mapping[str, str | None] | None, expected: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert Options(headers=headers).raw_headers == expected


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Content-Length",
        "keep-alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "upgrade",
    ],
)
@pytest.mark.parametrize("value", ["keep-alive", None])
def test_headers_of_a_connection_are_refused(name: str, value: str | None) -> None:
    message = refused(ValueError, headers={name: value})

    assert message == f"headers must not hold {name}: it is the server's to set"


@pytest.mark.parametrize(
    ("headers", "error", "message"),
    [
        ([("a", "b")], TypeError, "headers must be a mapping (got [('a', 'b')])"),
        ("a: b", TypeError, "headers must be a mapping (got 'a: b')"),
        ({7: "b"}, TypeError, "a header must be a str and a str (got 7: 'b')"),
        ({"a": 7}, TypeError, "a header must be a str and a str (got 'a': 7)"),
        ({b"a": None}, TypeError, "a header must be a str and a str (got b'a': '')"),
        ({"a b": "c"}, ValueError, "a header name must be a token (got 'a b')"),
        ({"a b": None}, ValueError, "a header name must be a token (got 'a b')"),
        ({"A": "b\nc"}, ValueError, r"header A must be a single line without NUL (got 'b\nc')"),
        ({"A": "€"}, ValueError, "header A must be Latin-1 (got '€')"),
    ],
)
def test_bad_headers_are_refused(headers: Any, error: type[Exception], message: str) -> None:
    assert refused(error, headers=headers) == message


def test_what_was_given_is_neither_changed_nor_kept() -> None:
    headers: dict[str, str | None] = {"X-A": "b", "Content-Type": None}
    methods = ["get", "GET"]
    options = Options(headers=headers, methods=methods)
    expected = options.raw_headers

    assert headers == {"X-A": "b", "Content-Type": None}
    assert methods == ["get", "GET"]

    headers["X-C"] = "d"
    methods.append("POST")

    assert options.raw_headers == expected
    assert options.methods == ("GET",)


def test_a_function_may_take_the_request_for_a_farewell() -> None:
    def farewell(request: Request) -> ServerSentEvent:
        return ServerSentEvent(retry=1000)

    assert Options(farewell=farewell).farewell is farewell


def test_adapter_gets_options_of_its_own() -> None:
    def encode(item: Any) -> bytes:
        return b""

    options = Options(keep_alive=7)
    adapted = options.adapted(status=404, raw_headers=(), opening=b"", encode=encode)

    assert (adapted.status, adapted.raw_headers, adapted.opening) == (404, (), b"")
    assert adapted.encode is encode
    assert adapted.keep_alive == 7
    assert (options.status, options.raw_headers) == (200, DEFAULT_HEADERS)
    assert (options.opening, options.encode) == (b":\n\n", None)


def test_adapter_says_how_the_last_item_is_written() -> None:
    def encode(item: Any) -> bytes:
        return b"%d" % item

    options = Options(done="[DONE]")

    # Its encode may know but one type of items.
    assert options.adapted(encode=encode).done_block == b"data: [DONE]\n\n"
    assert options.adapted(encode=encode, done=7).done_block == b"7"
    assert options.adapted(encode=encode, done=None).done_block == b""
    with pytest.raises(TypeError, match=r"done must be what a source may yield \(got 'x'\): "):
        options.adapted(encode=encode, done="x")
