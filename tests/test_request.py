import copy
import math
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, assert_type

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse._headers import ResponseHeaders
from asgi_sse._request import MultiMapping, Refused, Request

# Bytes that a server takes from the wire without looking at them.
header_values = st.binary(max_size=40)
header_names = st.one_of(
    st.sampled_from([b"last-event-id", b"Last-Event-ID", b"accept"]),
    st.binary(min_size=1, max_size=20),
)
queries = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from([b"lastEventId", b"=", b"&", b"%", b"%0", b"%00", b"%ff", b"+", b"7"])
    ).map(b"".join),
)


class Lifetime:
    """
    The response of a request, as a list of what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def closing(self) -> bool:
        self.asked.append("closing")
        return True

    async def wait_closing(self) -> None:
        self.asked.append("wait_closing")

    @property
    def response_headers(self) -> ResponseHeaders:
        self.asked.append("response_headers")
        return ResponseHeaders([(b"a", b"b")])

    async def body(self) -> bytes:
        self.asked.append("body")
        return b"the body"

    def close(self) -> None:
        self.asked.append("close")

    def expire_at(self, when: float | None) -> None:
        self.asked.append(f"expire_at {when}")


def make_request(**scope: Any) -> Request:
    """
    Return the request of a scope with what the specification requires, and *scope*.
    """
    full: Any = {"type": "http", "method": "GET", "path": "/events", "headers": [], **scope}
    return Request(full, Lifetime())


def with_id(*values: bytes, query: bytes = b"") -> Request:
    headers = [(b"accept", b"text/event-stream"), *((b"last-event-id", v) for v in values)]
    return make_request(headers=headers, query_string=query)


# Request


def test_repr_names_method_and_path() -> None:
    assert repr(make_request()) == "<Request GET /events>"


def test_scope_is_the_one_of_the_server() -> None:
    scope: Any = {"type": "http", "method": "POST", "path": "/", "headers": []}
    request = Request(scope, Lifetime())

    assert request.scope is scope
    assert request.method == "POST"


def test_types() -> None:
    request = make_request()

    assert_type(request.method, str)
    assert_type(request.headers["accept"] if request.headers else "", str)
    assert_type(request.query.get_all("a"), list[str])
    assert_type(request.path_params, Mapping[str, Any])
    assert_type(request.client, tuple[str, int] | None)
    assert_type(request.last_event_id, str | None)


def test_headers_are_found_in_any_case() -> None:
    request = make_request(
        headers=[(b"x-one", b"1"), (b"X-Two", b"2"), (b"x-one", b"3"), (b"x-name", b"z\xfcrich")]
    )

    assert request.headers["X-One"] == "1"
    assert request.headers["x-two"] == "2"
    assert request.headers["X-NAME"] == "zürich"
    assert "x-TWO" in request.headers
    assert "x-three" not in request.headers
    assert request.headers.get_all("X-ONE") == ["1", "3"]
    assert list(request.headers) == ["x-one", "x-two", "x-name"]


def test_query_is_decoded() -> None:
    request = make_request(query_string=b"a=1&b=%C3%A9+%26&a=2&empty=&A=3&flag")

    assert dict(request.query) == {"a": "1", "b": "é &", "empty": "", "A": "3", "flag": ""}
    assert request.query.get_all("a") == ["1", "2"]


@pytest.mark.parametrize("scope", [{}, {"query_string": b""}])
def test_query_may_be_absent(scope: dict[str, bytes]) -> None:
    assert dict(make_request(**scope).query) == {}


def test_headers_and_query_are_read_once() -> None:
    request = make_request(headers=[(b"a", b"1")], query_string=b"a=1")

    assert request.headers is request.headers
    assert request.query is request.query


def test_query_of_many_parameters_is_read() -> None:
    request = make_request(query_string=b"&".join(b"n=%d" % n for n in range(10_000)))

    assert request.query.get_all("n")[-1] == "9999"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"path_params": {"room": "a"}}, {"room": "a"}, id="starlette"),
        pytest.param({"path_params": {"number": 7}}, {"number": 7}, id="litestar"),
        pytest.param({"path_params": {}}, {}, id="no-parameters"),
        pytest.param(
            {"url_route": {"args": (), "kwargs": {"room": "a"}}}, {"room": "a"}, id="channels"
        ),
        pytest.param({"url_route": {"args": ()}}, {}, id="channels-without-names"),
        pytest.param({"url_route": None, "path_params": None}, {}, id="emptied"),
        pytest.param(
            {"path_params": {"room": "a"}, "url_route": {"kwargs": {"room": "b"}}},
            {"room": "a"},
            id="both",
        ),
    ],
)
def test_path_params(scope: dict[str, Any], expected: dict[str, Any]) -> None:
    assert make_request(**scope).path_params == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({}, None, id="absent"),
        pytest.param({"client": None}, None, id="none"),
        pytest.param({"client": ("127.0.0.1", 80)}, ("127.0.0.1", 80), id="tuple"),
        pytest.param({"client": ["::1", 80]}, ("::1", 80), id="list"),
        pytest.param({"client": ["127.0.0.1", "80"]}, ("127.0.0.1", 80), id="port-as-text"),
        pytest.param({"client": ("10.0.0.1", 0)}, ("10.0.0.1", 0), id="behind-a-proxy"),
        pytest.param({"client": ("/run/app.sock", None)}, ("/run/app.sock", 0), id="unix-socket"),
    ],
)
def test_client(scope: dict[str, Any], expected: tuple[str, int] | None) -> None:
    assert make_request(**scope).client == expected


# Last-Event-ID


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(with_id(), None, id="absent"),
        pytest.param(with_id(b"7"), "7", id="header"),
        pytest.param(with_id("€".encode()), "€", id="utf-8"),
        pytest.param(with_id(b"\xff7"), "\N{REPLACEMENT CHARACTER}7", id="malformed-utf-8"),
        pytest.param(with_id(b" 7\t"), " 7\t", id="spaces-are-kept"),
        pytest.param(with_id("\u2028\x85".encode()), "\u2028\x85", id="other-line-ends"),
        pytest.param(with_id(b""), None, id="empty"),
        pytest.param(with_id(b"a\0b"), None, id="nul"),
        pytest.param(with_id(b"a\nb"), None, id="lf"),
        pytest.param(with_id(b"a\rb"), None, id="cr"),
        pytest.param(with_id(b"x" * 4096), "x" * 4096, id="as-long-as-may-be"),
        pytest.param(with_id(b"x" * 4097), None, id="too-long"),
        pytest.param(with_id(b"9" * 1_000_000), None, id="a-megabyte"),
        pytest.param(with_id(b"1", b"2"), "2", id="twice"),
        pytest.param(with_id(query=b"lastEventId=7"), "7", id="query"),
        pytest.param(with_id(query=b"lastEventId=%E2%82%AC"), "€", id="query-encoded"),
        pytest.param(with_id(query=b"lasteventid=7"), None, id="query-in-another-case"),
        pytest.param(with_id(query=b"lastEventId="), None, id="query-empty"),
        pytest.param(with_id(query=b"lastEventId"), None, id="query-without-value"),
        pytest.param(with_id(query=b"lastEventId=%0A"), None, id="query-lf"),
        pytest.param(with_id(query=b"lastEventId=%0D"), None, id="query-cr"),
        pytest.param(with_id(query=b"lastEventId=%00"), None, id="query-nul"),
        pytest.param(with_id(query=b"lastEventId=" + b"x" * 4097), None, id="query-too-long"),
        pytest.param(with_id(b"1", query=b"lastEventId=2"), "1", id="header-before-query"),
        pytest.param(with_id(b"", query=b"lastEventId=2"), "2", id="empty-header-and-query"),
        pytest.param(with_id(b"\0", query=b"lastEventId=2"), None, id="bad-header-and-query"),
    ],
)
def test_last_event_id(request_: Request, expected: str | None) -> None:
    assert request_.last_event_id == expected


def test_last_event_id_is_found_in_any_case() -> None:
    assert make_request(headers=[(b"Last-Event-ID", b"7")]).last_event_id == "7"


@given(st.lists(st.tuples(header_names, header_values)), queries)
def test_garbage_never_raises(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    request = make_request(headers=headers, query_string=query)
    last_event_id = request.last_event_id

    assert {name.decode("latin-1").lower() for name, _ in headers} == set(request.headers)
    assert all(isinstance(value, str) for value in request.query.values())
    # Whatever it is, it can be sent back as the ID of an event.
    if last_event_id is not None:
        assert ServerSentEvent(id=last_event_id).encode() != b"id: \n\n"


# What is asked of the response


async def test_response_is_asked() -> None:
    lifetime = Lifetime()
    scope: Any = {"type": "http", "method": "GET", "path": "/", "headers": []}
    request = Request(scope, lifetime)

    assert request.closing is True
    assert await request.body() == b"the body"
    await request.wait_closing()
    request.close()

    assert dict(request.response_headers) == {"a": "b"}
    assert lifetime.asked == ["closing", "body", "wait_closing", "close", "response_headers"]


def test_meta_is_the_same_for_all_who_ask() -> None:
    request = make_request()

    assert request.meta == {}
    request.meta["user"] = "ada"
    assert request.meta == {"user": "ada"}


@pytest.mark.parametrize("when", [0, 1.5, 1_900_000_000, None])
def test_response_is_told_when_it_expires(when: float | None) -> None:
    lifetime = Lifetime()
    request = Request(make_request().scope, lifetime)

    assert request.expires_at is None
    request.expires_at = when
    assert request.expires_at == when
    assert lifetime.asked == [f"expire_at {when}"]


@pytest.mark.parametrize(
    ("when", "error", "hint"),
    [
        ("2030", TypeError, r"\(got '2030'\)$"),
        (True, TypeError, r"\(got True\)$"),
        (datetime(2030, 1, 1, tzinfo=UTC), TypeError, r"did you mean its timestamp\(\)\?$"),
        (math.inf, ValueError, r"finite \(got inf\)$"),
        (math.nan, ValueError, r"finite \(got nan\)$"),
    ],
)
def test_time_that_is_none_is_refused(when: Any, error: type[Exception], hint: str) -> None:
    request = make_request()

    with pytest.raises(error, match=f"^expires_at must be .*{hint}"):
        request.expires_at = when
    assert request.expires_at is None


async def test_wait_closing_may_be_cancelled_and_awaited_again() -> None:
    class Slow(Lifetime):
        async def wait_closing(self) -> None:
            self.asked.append("wait_closing")
            await anyio.sleep(10)

    request = Request({}, lifetime := Slow())  # type: ignore[typeddict-item]

    with anyio.move_on_after(1) as scope:
        await request.wait_closing()
    await request.wait_closing()

    assert scope.cancelled_caught
    assert lifetime.asked == ["wait_closing"] * 2


# MultiMapping


def test_multi_mapping_is_a_mapping() -> None:
    names = MultiMapping([("a", "1"), ("B", "2"), ("a", "3")])

    assert isinstance(names, Mapping)
    assert names == {"a": "1", "B": "2"}
    assert len(names) == 2
    assert list(names) == ["a", "B"]
    assert "b" not in names
    assert names.get("b") is None
    with pytest.raises(KeyError, match="'b'"):
        names["b"]


def test_multi_mapping_gives_all_values_as_a_list_of_its_own() -> None:
    names = MultiMapping([("a", "1"), ("a", "2")])
    names.get_all("a").clear()

    assert names.get_all("a") == ["1", "2"]
    assert names.get_all("b") == []


def test_multi_mapping_shows_every_value() -> None:
    names = MultiMapping([("A", "1"), ("a", "2")], fold=True)

    assert repr(names) == "MultiMapping({'a': ['1', '2']})"


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3))))
def test_multi_mapping_loses_nothing(items: list[tuple[str, str]]) -> None:
    names = MultiMapping(items)

    assert [v for name in names for v in names.get_all(name)] == [
        value for name in dict(items) for other, value in items if other == name
    ]


# Refused


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (Refused(404), "404 Not Found"),
        (Refused(404, "no such room"), "404 Not Found: no such room"),
        (Refused(HTTPStatus.NO_CONTENT), "204 No Content"),
        (Refused(599), "599"),
        (Refused(599, "odd"), "599: odd"),
    ],
)
def test_refused_says_what_is_answered(refused: Refused, text: str) -> None:
    assert str(refused) == text


def test_refused_keeps_what_it_was_given() -> None:
    headers = {"WWW-Authenticate": "Basic"}
    refused = Refused(HTTPStatus.UNAUTHORIZED, "who are you?", headers)

    assert type(refused.status) is int
    assert refused.status == 401
    assert refused.detail == "who are you?"
    assert refused.headers == [(b"www-authenticate", b"Basic")]
    assert headers == {"WWW-Authenticate": "Basic"}


def test_refused_needs_only_a_status() -> None:
    refused = Refused(204)

    assert (refused.status, refused.detail, refused.headers) == (204, "", [])


@pytest.mark.parametrize("clone", [copy.copy, lambda refused: pickle.loads(pickle.dumps(refused))])
def test_refused_can_be_copied_and_pickled(clone: Any) -> None:
    refused = clone(Refused(401, "who are you?", {"A": "b"}))

    assert (refused.status, refused.detail) == (401, "who are you?")
    assert refused.headers == [(b"a", b"b")]


@pytest.mark.parametrize("status", [200, 299, 300, 404, 599])
def test_refused_takes_every_final_status(status: int) -> None:
    assert Refused(status).status == status


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("404",), TypeError, "status must be an int (got '404')"),
        ((True,), TypeError, "status must be an int (got True)"),
        ((None,), TypeError, "status must be an int (got None)"),
        ((404.0,), TypeError, "status must be an int (got 404.0)"),
        ((101,), ValueError, "status must be from 200 to 599 (got 101)"),
        ((600,), ValueError, "status must be from 200 to 599 (got 600)"),
        ((-1,), ValueError, "status must be from 200 to 599 (got -1)"),
        ((404, b"x"), TypeError, "detail must be a str (got b'x')"),
        ((404, None), TypeError, "detail must be a str (got None)"),
        ((404, "", {"a b": "c"}), ValueError, "a header name must be a token (got 'a b')"),
        ((404, "", {"A": 7}), TypeError, "a header must be a str and a str (got 'A': 7)"),
    ],
)
def test_refused_refuses(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Refused(*arguments)

    assert str(caught.value) == message
