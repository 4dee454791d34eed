import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse._accept import (
    asks_for_event_stream,
    choose_coding,
    is_event_source,
    quality_of_event_stream,
    values,
)

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"

# What is made of what is put together.
PIECES = [",", ";", "=", '"', "\\", " ", "\t", "q", "q=0", "q=1", "q=.5", "1", ".", "*", "/"]
PIECES += ["text", "event-stream", "text/event-stream", "charset=utf-8", "gzip", "br", "identity"]
headers = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))


@pytest.mark.parametrize(
    ("accept", "quality", "asks"),
    [
        pytest.param(None, 1, False, id="no-header"),
        pytest.param("", 1, False, id="empty"),
        pytest.param(" ,\t, ", 1, False, id="nothing-but-commas"),
        pytest.param("text/event-stream", 1, True, id="event-source"),
        pytest.param("Text/Event-Stream;Charset=UTF-8", 1, True, id="any-case"),
        pytest.param('text/event-stream; charset="utf-8"', 1, True, id="quoted"),
        pytest.param("text/event-stream;charset=latin1", 0, False, id="another-charset"),
        pytest.param("text/event-stream;level=1", 0, False, id="unknown-parameter"),
        pytest.param("text/*", 1, False, id="any-text"),
        pytest.param("*/*", 1, False, id="anything"),
        pytest.param("*/event-stream", 0, False, id="no-range"),
        pytest.param("application/json", 0, False, id="json"),
        pytest.param("application/json, text/event-stream", 1, True, id="mcp"),
        pytest.param("application/json, text/event-stream;q=0.5", 0.5, False, id="rather-json"),
        pytest.param("application/json;q=0.5, text/event-stream", 1, True, id="rather-events"),
        pytest.param(FIREFOX, 0.8, False, id="navigation"),
        pytest.param(JAVA, 0.2, False, id="java"),
        pytest.param("text/event-stream;q=0", 0, False, id="not-at-all"),
        pytest.param("*/*, text/event-stream;q=0", 0, False, id="all-but-this"),
        pytest.param("text/*;q=0, text/event-stream;q=0.1, */*", 0.1, False, id="specific"),
        pytest.param("text/*;q=0.3, */*;q=0.9", 0.3, False, id="text-before-anything"),
        pytest.param(
            "text/event-stream;charset=utf-8;q=0.2, text/event-stream", 0.2, True, id="parameters"
        ),
        pytest.param("text/event-stream;q=0.001", 0.001, True, id="hardly"),
        pytest.param("text/event-stream ; q = 1.000", 1, True, id="spaces"),
        pytest.param("text/event-stream;q=1.5", 0, False, id="more-than-one"),
        pytest.param("text/event-stream;q=-1", 0, False, id="negative"),
        pytest.param("text/event-stream;q=nan", 0, False, id="nan"),
        pytest.param("text/event-stream;q=.", 0, False, id="no-number"),
        pytest.param("text/event-stream;q=", 0, False, id="no-quality"),
        pytest.param("text/event-stream;q=0.5;x=1", 0.5, True, id="extension"),
        pytest.param("text/event-stream;; ;", 1, True, id="empty-parameters"),
        pytest.param('a/b;x="text/event-stream, text/event-stream"', 0, False, id="in-quotes"),
        pytest.param('a/b;x="\\",text/event-stream', 0, False, id="escaped-quote"),
        pytest.param('"text/event-stream', 0, False, id="open-quote"),
        pytest.param(",;q=1,text/event-stream", 1, True, id="nameless"),
        pytest.param("a/b," * 2000 + "text/event-stream", 0, False, id="too-long"),
    ],
)
def test_media_type(accept: str | None, quality: float, asks: bool) -> None:
    assert quality_of_event_stream(accept) == quality
    assert asks_for_event_stream(accept) is asks


ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("accept_encoding", "offered", "coding"),
    [
        pytest.param(None, ALL, None, id="no-header"),
        pytest.param("", ALL, None, id="empty"),
        pytest.param("gzip, deflate, br, zstd", ALL, "zstd", id="chromium"),
        pytest.param("gzip, deflate, br, zstd", ("gzip", "zstd"), "gzip", id="our-order"),
        pytest.param("gzip, deflate", ALL, "gzip", id="plain-http"),
        pytest.param("deflate", ALL, None, id="none-of-ours"),
        pytest.param("gzip", (), None, id="none-offered"),
        pytest.param("GZip", ALL, "gzip", id="any-case"),
        pytest.param("x-gzip", ALL, "gzip", id="old-name"),
        pytest.param("gzip;q=1, br;q=0.9, zstd;q=0.8", ALL, "gzip", id="quality-before-order"),
        pytest.param("br;q=0.5, zstd;q=0.5", ("br", "zstd"), "br", id="equals"),
        pytest.param("gzip;q=0", ALL, None, id="refused"),
        pytest.param("*", ALL, "zstd", id="anything"),
        pytest.param("*;q=0.5, zstd;q=0", ALL, "br", id="anything-but"),
        pytest.param("*;q=0", ALL, None, id="nothing"),
        pytest.param("identity", ALL, None, id="as-it-is"),
        pytest.param("identity, gzip;q=0.5", ALL, None, id="rather-as-it-is"),
        pytest.param("identity;q=0.5, gzip", ALL, "gzip", id="rather-compressed"),
        pytest.param("identity;q=0, deflate", ALL, None, id="what-there-is"),
        pytest.param("gzip;q=0, gzip", ALL, None, id="first-word-counts"),
    ],
)
def test_coding(accept_encoding: str | None, offered: tuple[str, ...], coding: str | None) -> None:
    assert choose_coding(accept_encoding, offered) == coding


@given(headers)
def test_garbage_never_raises(text: str) -> None:
    assert 0 <= quality_of_event_stream(text) <= 1
    assert choose_coding(text, ALL) in (None, *ALL)
    assert asks_for_event_stream(text) in (False, True)


def test_values_of_a_header_are_one_list() -> None:
    raw = [(b"Accept", b"a/b"), (b"x", b"y"), (b"accept", b"c/d")]

    assert values(raw, b"accept") == "a/b,c/d"
    assert values(raw, b"accept-encoding") is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([(b"accept", b"text/event-stream")], True),
        ([(b"accept", b"text/event-stream, */*")], False),
        ([(b"accept", b"*/*")], False),
        ([], False),
    ],
)
def test_event_sources_accept_nothing_else(raw: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_event_source(raw) is expected
