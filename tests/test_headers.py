from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import EventStream, Refused, Request
from asgi_sse._headers import RawHeader, ResponseHeaders, add_vary, header, stream_header
from asgi_sse.testing import connect

# One header


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("X-Accel", "no", (b"x-accel", b"no"), id="lower-case"),
        pytest.param("a", "", (b"a", b""), id="empty"),
        pytest.param("a", " \tb c\t ", (b"a", b"b c"), id="spaces-around"),
        pytest.param("a", "zürich", (b"a", b"z\xfcrich"), id="latin-1"),
        pytest.param("!#$%&'*+-.^_`|~09az", "", (b"!#$%&'*+-.^_`|~09az", b""), id="all-tokens"),
    ],
)
def test_header(name: str, value: str, expected: tuple[bytes, bytes]) -> None:
    assert header(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (b"a", "b", TypeError, "a header must be a str and a str (got b'a': 'b')"),
        ("a", b"b", TypeError, "a header must be a str and a str (got 'a': b'b')"),
        ("a", 7, TypeError, "a header must be a str and a str (got 'a': 7)"),
        ("", "b", ValueError, "a header name must be a token (got '')"),
        ("a b", "c", ValueError, "a header name must be a token (got 'a b')"),
        ("a:", "c", ValueError, "a header name must be a token (got 'a:')"),
        ("ä", "c", ValueError, "a header name must be a token (got 'ä')"),
        ("a\n", "c", ValueError, r"a header name must be a token (got 'a\n')"),
        ("A", "b\nc", ValueError, r"header A must be a single line without NUL (got 'b\nc')"),
        ("A", "b\rc", ValueError, r"header A must be a single line without NUL (got 'b\rc')"),
        ("A", "b\0c", ValueError, r"header A must be a single line without NUL (got 'b\x00c')"),
        ("A", "b\n", ValueError, r"header A must be a single line without NUL (got 'b\n')"),
        ("A", "€", ValueError, "header A must be Latin-1 (got '€')"),
    ],
)
def test_bad_header_is_refused(
    name: Any, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        header(name, value)

    assert str(caught.value) == message
    # The codec's own error would say the same in its own words.
    assert caught.value.__cause__ is None


@given(st.text(), st.text())
def test_header_is_fit_to_send_or_refused(name: str, value: str) -> None:
    try:
        raw_name, raw_value = header(name, value)
    except ValueError:
        return

    assert raw_name == raw_name.lower()
    assert not set(raw_name) & set(b" :\r\n\0")
    assert not set(raw_value) & set(b"\r\n\0")


@pytest.mark.parametrize("name", ["Connection", "content-length", "TE", "Transfer-Encoding"])
def test_headers_of_the_connection_are_the_servers(name: str) -> None:
    message = f"headers must not hold {name}: it is the server's to set"
    with pytest.raises(ValueError, match=message):
        stream_header(name, "x")


# Vary


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], [(b"vary", b"Origin")]),
        ([(b"a", b"b")], [(b"a", b"b"), (b"vary", b"Origin")]),
        ([(b"Vary", b"Accept")], [(b"vary", b"Accept, Origin")]),
        ([(b"vary", b"")], [(b"vary", b"Origin")]),
        ([(b"vary", b"a"), (b"vary", b"b")], [(b"vary", b"a, b, Origin")]),
        ([(b"vary", b"a, ORIGIN ,b")], [(b"vary", b"a, ORIGIN ,b")]),
        ([(b"vary", b"*")], [(b"vary", b"*")]),
    ],
)
def test_vary_names_each_header_once(headers: list[RawHeader], expected: list[RawHeader]) -> None:
    assert add_vary(headers, "Origin") == expected


# Those of a response


def test_headers_are_a_mapping_in_any_case() -> None:
    headers = ResponseHeaders([(b"content-type", b"a"), (b"X-Two", b"2"), (b"x-two", b"3")])
    headers["Content-Type"] = " b "
    headers["X-New"] = "n\xfc"

    assert dict(headers) == {"content-type": "b", "x-new": "n\xfc", "x-two": "2"}
    assert headers["CONTENT-TYPE"] == "b"
    assert "X-TWO" in headers
    assert "x-three" not in headers
    assert len(headers) == 3
    del headers["X-TWO"]
    assert headers.send() == [(b"content-type", b"b"), (b"x-new", b"n\xfc")]
    assert repr(headers) == "ResponseHeaders([('content-type', b'b'), ('x-new', b'n\\xfc')])"
    with pytest.raises(KeyError, match="x-two"):
        headers["x-two"]


def test_a_name_may_have_several_values() -> None:
    headers = ResponseHeaders([])
    headers.append("Set-Cookie", "a=1")
    headers.append("set-cookie", "b=2")

    assert headers.send() == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


@pytest.mark.parametrize("change", [ResponseHeaders.__setitem__, ResponseHeaders.append])
def test_what_is_no_header_is_refused_when_it_is_set(
    change: Callable[[ResponseHeaders, str, str], None],
) -> None:
    headers = ResponseHeaders([(b"a", b"b")])
    with pytest.raises(ValueError, match="header a must be a single line"):
        change(headers, "a", "c\r\nx: y")
    with pytest.raises(ValueError, match="headers must not hold Connection"):
        change(headers, "Connection", "close")
    with pytest.raises(KeyError):
        del headers["c"]

    assert headers.send() == [(b"a", b"b")]


# In the setup phase


async def yielding() -> AsyncIterator[str]:
    yield "a"


async def test_the_setup_phase_sets_headers() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        await anyio.sleep(1)
        request.response_headers["Cache-Control"] = "no-store"
        request.response_headers.append("Set-Cookie", "a=1")
        request.response_headers.append("Set-Cookie", "b=2")
        return yielding()

    async with connect(EventStream(source)) as stream:
        await stream.read()

        assert stream.headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
    async with connect(EventStream(yielding)) as stream:
        assert stream.headers["cache-control"] == "no-cache, no-transform"


async def test_a_generator_sets_headers_until_it_first_waits() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        request.response_headers["X-Early"] = "1"
        yield "a"
        await anyio.sleep(1)
        request.response_headers["X-Late"] = "1"

    async with connect(EventStream(source)) as stream:
        await stream.read()

        assert stream.headers["x-early"] == "1"
        assert isinstance(stream.error, RuntimeError)
        assert str(stream.error).startswith("header X-Late must be set before the response starts")


async def test_headers_may_be_read_later() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        yield "a"
        await anyio.sleep(1)
        yield request.response_headers["content-type"]
        for change in (request.response_headers.append, request.response_headers.__setitem__):
            with pytest.raises(RuntimeError, match="Let the source be a coroutine function"):
                change("a", "b")
        with pytest.raises(RuntimeError, match="must be set before"):
            del request.response_headers["content-type"]

    async with connect(EventStream(source)) as stream:
        assert [event.data async for event in stream] == [
            "a",
            "text/event-stream; charset=utf-8",
        ]


async def test_a_refusal_has_its_own_headers() -> None:
    async def source(request: Request) -> Any:
        request.response_headers["X-Mine"] = "1"
        raise Refused(401, headers={"WWW-Authenticate": "Bearer"})

    async with connect(EventStream(source)) as stream:
        await stream.wait_closed()

        assert dict(stream.headers) == {"www-authenticate": "Bearer", "content-length": "0"}
