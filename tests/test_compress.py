import importlib
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import EventStream, Refused, Request, _compress
from asgi_sse._compress import COMPRESSORS, choose_compressors, compressing
from asgi_sse.testing import Stream, connect

CODINGS = ("zstd", "gzip", "br")


def zstd() -> Any:
    """
    Return the module that there is on this Python.
    """
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return importlib.import_module("backports.zstd")


def make_decompress(coding: str) -> Callable[[bytes], bytes]:
    """
    Return a function that decompresses a stream part by part.
    """
    if coding == "gzip":
        return zlib.decompressobj(31).decompress
    if coding == "br":
        process: Callable[[bytes], bytes] = brotli.Decompressor().process
        return process
    decompress: Callable[[bytes], bytes] = zstd().ZstdDecompressor().decompress
    return decompress


async def clock() -> AsyncIterator[str]:
    """
    Tell the seconds.
    """
    for n in range(3):
        yield f"tick {n}"
        await anyio.sleep(10)


def said(stream: Stream) -> dict[str, str]:
    """
    Return what a response says about its coding.
    """
    names = ("content-encoding", "vary")
    return {name: value for name, value in stream.headers.items() if name in names}


@pytest.mark.parametrize("coding", CODINGS)
async def test_every_chunk_can_be_read_when_it_comes(coding: str) -> None:
    app = EventStream(clock, compress=[coding], keep_alive=4)
    decompress = make_decompress(coding)
    async with connect(app, headers={"Accept-Encoding": coding}, timeout=100) as stream:
        await stream.wait_closed()

        assert said(stream) == {"content-encoding": coding, "vary": "Accept-Encoding"}
        # The opening comment, the keep-alives and the end are compressed, too.
        assert [(chunk.time, decompress(chunk.body)) for chunk in stream.chunks] == [
            (0, b":\n\ndata: tick 0\n\n"),
            (4, b":\n"),
            (8, b":\n"),
            (10, b"data: tick 1\n\n"),
            (14, b":\n"),
            (18, b":\n"),
            (20, b"data: tick 2\n\n"),
            (24, b":\n"),
            (28, b":\n"),
            (30, b""),
        ]


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_stream_ends_as_its_coding_wants_it(coding: str) -> None:
    app = EventStream(clock, compress=CODINGS)
    async with connect(app, headers={"Accept-Encoding": coding}, timeout=100) as stream:
        compressed = await stream.read()

    text = b":\n\ndata: tick 0\n\ndata: tick 1\n\ndata: tick 2\n\n"
    if coding == "gzip":
        assert zlib.decompress(compressed, 31) == text
    elif coding == "br":
        assert brotli.decompress(compressed) == text
    else:
        assert zstd().decompress(compressed) == text


@pytest.mark.parametrize("accept", [None, "identity", "deflate", "gzip;q=0"])
async def test_who_cannot_read_it_gets_it_as_it_is(accept: str | None) -> None:
    headers = {} if accept is None else {"Accept-Encoding": accept}
    async with connect(EventStream(clock, compress=True), headers=headers) as stream:
        assert (await stream.next_event()).data == "tick 0"
        # A cache must not give this to those who can.
        assert said(stream) == {"vary": "Accept-Encoding"}


async def test_nothing_is_compressed_by_default() -> None:
    async with connect(EventStream(clock), headers={"Accept-Encoding": "gzip"}) as stream:
        assert (await stream.next_event()).data == "tick 0"
        assert said(stream) == {}


async def test_head_says_the_same_and_has_no_body() -> None:
    app = EventStream(clock, compress=["gzip"])
    async with connect(app, method="HEAD", headers={"Accept-Encoding": "gzip"}) as stream:
        await stream.wait_closed()

        assert said(stream) == {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        assert stream.body == b""


async def test_proxies_are_still_told_to_leave_it_as_it_is() -> None:
    """
    "no-transform" is said to those on the way (RFC 9110, 7.7), and this is the origin.
    """
    app = EventStream(clock, compress=["gzip"])
    async with connect(app, headers={"Accept-Encoding": "gzip"}) as stream:
        assert stream.headers["cache-control"] == "no-cache, no-transform"


async def test_what_is_encoded_already_is_left_alone() -> None:
    async def source(request: Request) -> Any:
        request.response_headers["Content-Encoding"] = "x-mine"
        return clock()

    async with connect(
        EventStream(source, compress=True), headers={"Accept-Encoding": "gzip"}
    ) as stream:
        assert (await stream.next_event()).data == "tick 0"
        assert said(stream) == {"content-encoding": "x-mine"}


async def test_a_refusal_is_not_compressed() -> None:
    async def refusing() -> Any:
        raise Refused(403, "No.")

    app = EventStream(refusing, compress=True)
    async with connect(app, headers={"Accept-Encoding": "gzip"}) as stream:
        assert await stream.read() == b"No."
        assert said(stream) == {}


async def test_what_a_failing_source_has_yielded_can_be_read() -> None:
    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise ValueError

    app = EventStream(failing, compress=["gzip"])
    async with connect(app, headers={"Accept-Encoding": "gzip"}) as stream:
        assert make_decompress("gzip")(await stream.read()) == b":\n\ndata: a\n\n"
        assert isinstance(stream.error, ValueError)
        assert not stream.complete


async def test_vary_names_it_beside_others() -> None:
    app = EventStream(clock, compress=True, headers={"Vary": "Cookie"})
    async with connect(app) as stream:
        assert said(stream) == {"vary": "Cookie, Accept-Encoding"}


async def test_other_messages_pass_as_they_are() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages: list[Any] = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a/b")]},
        {"type": "http.response.body", "body": b"a"},
    ]
    wrapped = compressing(send, "gzip")
    for message in messages:
        await wrapped(message)

    assert sent == messages


async def test_an_empty_part_stays_empty() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body"))

    wrapped = compressing(send, "gzip")
    headers = [(b"Content-Type", b"text/event-stream")]
    await wrapped({"type": "http.response.start", "status": 200, "headers": headers})
    await wrapped({"type": "http.response.body", "more_body": True})
    await wrapped({"type": "http.response.body"})

    assert sent[1] is None
    assert zlib.decompress(sent[2], 31) == b""


@pytest.mark.parametrize("coding", CODINGS)
@given(parts=st.lists(st.binary(min_size=1, max_size=200) | st.just(b"data: abc\n\n" * 2000)))
def test_every_part_comes_out_at_once(coding: str, parts: list[bytes]) -> None:
    compressor = COMPRESSORS[coding]()
    decompress = make_decompress(coding)

    assert [decompress(compressor.flush(part)) for part in parts] == parts
    assert decompress(compressor.finish(b"")) == b""


# Which there are


@pytest.mark.parametrize(
    ("compress", "expected"),
    [
        (False, ()),
        (True, ("zstd", "gzip")),
        ([], ()),
        (["br"], ("br",)),
        (("gzip", "br", "zstd"), ("gzip", "br", "zstd")),
    ],
)
def test_codings_are_offered_in_order(compress: Any, expected: tuple[str, ...]) -> None:
    assert choose_compressors(compress) == expected


@pytest.fixture
def forgetful() -> Iterator[None]:
    """
    Look anew for what is installed, and again afterwards.
    """

    def forget() -> None:
        for function in (_compress._zstd, _compress._brotli, _compress._is_installed):
            function.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    def import_module(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr("asgi_sse._compress.import_module", import_module)


@pytest.mark.usefixtures("forgetful")
def test_it_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for = []

    def import_module(name: str) -> ModuleType:
        looked_for.append(name)
        return importlib.import_module(name)

    monkeypatch.setattr("asgi_sse._compress.import_module", import_module)
    for _ in range(3):
        assert choose_compressors(True) == ("zstd", "gzip")
        for compressor in COMPRESSORS.values():
            compressor()

    assert len(looked_for) == len(set(looked_for))


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_not_there_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_compressors(True) == ("gzip",)
    monkeypatch.undo()

    assert choose_compressors(True) == ("gzip",)


@pytest.mark.usefixtures("nothing_installed")
def test_the_best_of_what_is_installed_is_gzip_at_least() -> None:
    assert choose_compressors(True) == ("gzip",)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(("name", "package"), [("zstd", "backports.zstd"), ("br", "brotli")])
def test_what_is_named_must_be_installed(name: str, package: str) -> None:
    with pytest.raises(ImportError) as caught:
        EventStream(clock, compress=[name])

    assert str(caught.value) == (
        f"compress={name!r} needs the package {package}. Did you forget to "
        "'pip install asgi-sse[compress]'?"
    )


@pytest.mark.parametrize("compress", ["gzip", b"gzip", 6, None])
def test_codings_of_another_type_are_refused(compress: Any) -> None:
    with pytest.raises(TypeError) as caught:
        EventStream(clock, compress=compress)

    assert str(caught.value) == (f"compress must be a bool or names of codings (got {compress!r})")


@pytest.mark.parametrize("name", ["deflate", "GZIP", 7])
def test_unknown_codings_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="compress must hold some of zstd, gzip, br"):
        EventStream(clock, compress=[name])
