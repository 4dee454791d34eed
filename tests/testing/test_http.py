"""
What a client makes of the bytes of a server, and of what is in between.
"""

import socketserver
import ssl
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import ObjectStream
from anyio.streams.stapled import StapledObjectStream

from asgi_sse import ServerSentEvent
from asgi_sse.testing import Report, _http
from asgi_sse.testing._http import download
from asgi_sse.testing._probe import check_url

URL = "http://server/events"

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-transform\r\nX-Accel-Buffering: no\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

Connection = ObjectStream[bytes]
Server = Callable[[Connection, bytes], Awaitable[None]]
Serve = Callable[..., None]


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def event(number: int) -> bytes:
    return b"id: %d\ndata: %d\n\n" % (number, number)


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Return a function that lets a host be served in memory."""
    servers: dict[str, Server] = {}

    async def connect(host: str, port: int | None, *_: object, tls: bool) -> Connection:
        assert not tls
        if host not in servers:
            raise ConnectionRefusedError(f"nobody at {host}")
        to_server, from_client = anyio.create_memory_object_stream[bytes](100)
        to_client, from_server = anyio.create_memory_object_stream[bytes](100)

        async def run() -> None:
            async with StapledObjectStream(to_client, from_client) as connection:
                try:
                    await servers[host](connection, await connection.receive())
                except (anyio.BrokenResourceError, anyio.EndOfStream):
                    pass

        tasks.start_soon(run)
        return StapledObjectStream(to_server, from_server)

    monkeypatch.setattr(_http, "_connect", connect)
    async with anyio.create_task_group() as tasks:
        yield lambda server, host="server": servers.update({host: server})
        tasks.cancel_scope.cancel()


def answer(*parts: bytes) -> Server:
    """Return a server that sends this and closes."""

    async def server(connection: Connection, request: bytes) -> None:
        for part in parts:
            await connection.send(part)

    return server


async def received(serve: Serve, *parts: bytes, **options: Any) -> _http.Download:
    """Return the response when it has ended."""
    serve(answer(*parts))
    async with download(URL, **options) as response:
        await response.wait_chunks(1000)
        return response


# The client.


async def test_a_request_is_that_of_an_event_source(serve: Serve) -> None:
    async def server(connection: Connection, request: bytes) -> None:
        requests.append(request)
        await connection.send(HEAD + b"\r\n")

    requests: list[bytes] = []
    serve(server)
    async with download(f"{URL}?a=1", headers=[("Accept", "*/*"), ("X-Y", "z")], method="PUT"):
        pass

    assert [request.split(b"\r\n") for request in requests] == [
        [
            b"PUT /events?a=1 HTTP/1.1",
            b"host: server",
            b"accept: */*",
            b"cache-control: no-cache",
            b"x-y: z",
            b"",
            b"",
        ]
    ]


@pytest.mark.parametrize(
    ("parts", "complete"),
    [
        pytest.param([CHUNKED, chunk(event(1)), chunk(event(2)), END], True, id="chunks"),
        pytest.param([CHUNKED + chunk(event(1)) + chunk(event(2)) + END], True, id="at-once"),
        pytest.param(
            [
                CHUNKED,
                b"F;name=value\r\n" + event(1)[:15],
                b"\r\n",
                chunk(event(1)[15:] + event(2)),
                END,
            ],
            True,
            id="chunk-extension",
        ),
        pytest.param([CHUNKED, chunk(event(1)), chunk(event(2))], False, id="chunks-cut"),
        pytest.param(
            [CHUNKED, chunk(event(1)), chunk(event(2)), b"5\r\nda"], False, id="in-chunk"
        ),
        pytest.param(
            [CHUNKED, chunk(event(1)), chunk(event(2)), b"hello\r\n"], False, id="no-size"
        ),
        pytest.param(
            [HEAD + b"Content-Length: 30\r\n\r\n", event(1), event(2)], True, id="content-length"
        ),
        pytest.param(
            [HEAD + b"Content-Length: 99\r\n\r\n", event(1), event(2)], False, id="length-cut"
        ),
        pytest.param([HEAD + b"\r\n", event(1), event(2)], True, id="to-the-end"),
        pytest.param(
            [
                b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                + HEAD
                + b"\r\n"
                + event(1)
                + event(2)
            ],
            True,
            id="1xx",
        ),
    ],
)
async def test_bodies(serve: Serve, parts: list[bytes], complete: bool) -> None:
    response = await received(serve, *parts)

    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.events == [ServerSentEvent("1", id=1), ServerSentEvent("2", id=2)]
    assert response.complete == complete
    assert response.closed


async def test_responses_without_a_body(serve: Serve) -> None:
    response = await received(serve, CHUNKED, method="HEAD")
    assert response.complete
    response = await received(serve, b"HTTP/1.1 204\r\n\r\n")
    assert (response.status, response.complete, response.body) == (204, True, b"")


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], "the connection was closed without a response"),
        ([b"HTTP/1.1 200 OK\r\n"], "the connection was closed without a response"),
        ([b"x" * 70000], "the connection was closed without a response"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], r"does not speak HTTP/1\.1: b'SSH-2\.0-OpenSSH'"),
    ],
)
async def test_no_response(serve: Serve, parts: list[bytes], error: str) -> None:
    with pytest.raises(ConnectionError, match=error):
        await received(serve, *parts)


async def test_a_response_that_does_not_begin(serve: Serve) -> None:
    async def silent(connection: Connection, request: bytes) -> None:
        await anyio.sleep_forever()

    serve(silent)
    with pytest.raises(TimeoutError):
        await download(URL, patience=1).__aenter__()


@pytest.mark.parametrize("url", ["server/events", "ftp://server/", "http://"])
async def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match="url must be like http://host/path"):
        await download(url).__aenter__()
    with pytest.raises(ValueError, match="must be a single line"):
        await download(URL, headers=[("x", "a\r\nb: c")]).__aenter__()


async def test_an_error_of_the_test_is_raised_as_it_is(serve: Serve) -> None:
    serve(answer(CHUNKED))
    with pytest.raises(KeyError):
        async with download(URL):
            raise KeyError
    with anyio.move_on_after(1) as scope:
        async with download(URL):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


# The checks.


async def good(connection: Connection, request: bytes) -> None:
    """Send an event, then keep-alives, then more, or what follows the last event ID."""
    await connection.send(CHUNKED)
    if request.startswith(b"HEAD"):
        return
    number = 1 if b"last-event-id: 1\r" in request else 0
    await connection.send(chunk(b":\n\n"))
    while True:
        number += 1
        await connection.send(chunk(event(number)))
        await anyio.sleep(15)
        await connection.send(chunk(b":\n"))
        await anyio.sleep(5)


def bad(report: Report) -> list[tuple[str, str]]:
    """Return the checks that found something."""
    return [
        (finding.check, finding.outcome)
        for finding in report.findings
        if finding.outcome in ("failed", "warning")
    ]


async def test_a_good_event_stream(serve: Serve) -> None:
    serve(good)
    report = await check_url(URL)

    assert bad(report) == []
    assert {finding.check: finding.detail for finding in report.findings} == {
        "response": "200 text/event-stream",
        "headers": "caches and proxies are told",
        "in between": "none that shows itself",
        "opens": "the first bytes took 0 ms",
        "keep-alive": "after 15 s of silence",
        "format": "35 bytes without a mistake",
        "compression": "none, though gzip was allowed",
        "resuming": "after '1' comes '2', as before",
        "HEAD": "answered with 200",
    }


async def test_nothing_to_check(serve: Serve) -> None:
    report = await check_url(URL)
    assert bad(report) == [("response", "failed")]
    assert report.findings[0].detail == f"no response from {URL}: nobody at server"

    serve(answer(b"HTTP/1.1 404 Not Found\r\n\r\n"))
    report = await check_url(URL)
    assert bad(report) == [("response", "failed")]


async def test_a_body_that_is_held_back(serve: Serve) -> None:
    def after(delay: float, *, head: bool) -> Server:
        async def server(connection: Connection, request: bytes) -> None:
            if not head:
                await connection.send(CHUNKED)
            await anyio.sleep(delay)
            if head:
                await connection.send(CHUNKED)
            await connection.send(chunk(b": hello\n\n"))
            await anyio.sleep_forever()

        return server

    serve(after(2, head=False))
    report = await check_url(URL)
    assert report.outcome("opens") == "failed"
    serve(after(2, head=True))
    report = await check_url(URL)
    assert report.outcome("opens") == "warning"
    assert report.outcome("keep-alive") == "failed"


async def test_a_mistake_in_the_format(serve: Serve) -> None:
    serve(answer(CHUNKED, chunk(b"hello\n\n"), END))
    report = await check_url(URL)

    assert bad(report) == [("format", "failed")]
    assert report.outcome("keep-alive") == "skipped"
    assert report.outcome("resuming") == "skipped"


@pytest.mark.parametrize(
    ("silence", "detail"),
    [
        (20, "cut after 20.0 s, 20.0 s of them silent, as a proxy does with an idle connection"),
        (0, "cut after 0.0 s, 0.0 s of them silent"),
    ],
)
@pytest.mark.parametrize("first", [b"", chunk(b":\n\n")])
async def test_a_proxy_that_cuts(serve: Serve, silence: float, detail: str, first: bytes) -> None:
    async def server(connection: Connection, request: bytes) -> None:
        await connection.send(CHUNKED + first)
        await anyio.sleep(silence)

    serve(server)
    report = await check_url(URL)

    assert ("cut-off", "failed") in bad(report)
    assert detail in [finding.detail for finding in report.findings]


async def test_a_proxy_that_shows_itself(serve: Serve) -> None:
    head = HEAD + b"Via: 1.1 varnish\r\nServer: nginx\r\n"
    serve(answer(head + b"\r\n", event(1)))
    report = await check_url(URL)

    assert "traces of via: 1.1 varnish, server: nginx" in str(report)


async def test_a_proxy_that_collects_events(serve: Serve) -> None:
    async def collecting(connection: Connection, request: bytes) -> None:
        await connection.send(CHUNKED + chunk(b":\n\n"))
        for numbers in (range(1, 11), range(11, 21)):
            await anyio.sleep(10)
            await connection.send(chunk(b"".join(map(event, numbers))))
        await anyio.sleep_forever()

    async def prompt(connection: Connection, request: bytes) -> None:
        await connection.send(CHUNKED)
        for number in range(1, 100):
            await connection.send(chunk(event(number)))
            await anyio.sleep(1)

    serve(collecting)
    serve(prompt, host="origin")
    report = await check_url(URL, origin="http://origin/events", watch=25)
    assert "something collects them: 20 events took 5.50 s more than from the origin" in str(
        report
    )
    assert report.outcome("buffering") == "failed"

    serve(prompt)
    report = await check_url(URL, origin="http://origin/events", watch=25)
    assert report.outcome("buffering") == "ok"
    report = await check_url(URL, origin="http://nowhere/", watch=5)
    assert report.outcome("buffering") == "failed"
    serve(answer(CHUNKED, chunk(b"data: other\n\n"), END), host="origin")
    report = await check_url(URL, origin="http://origin/events", watch=5)
    assert report.outcome("buffering") == "skipped"


@pytest.mark.parametrize(
    ("encoding", "flush", "outcome"),
    [(b"gzip", True, "ok"), (b"gzip", False, "failed"), (b"br", True, "failed")],
)
async def test_a_proxy_that_compresses(
    serve: Serve, encoding: bytes, flush: bool, outcome: str
) -> None:
    async def server(connection: Connection, request: bytes) -> None:
        if b"accept-encoding" not in request:
            await good(connection, request)
        compressor = zlib.compressobj(wbits=31)
        await connection.send(HEAD + b"Content-Encoding: %s\r\n\r\n" % encoding)
        for number in (1, 2, 3):
            body = compressor.compress(event(number))
            if flush:
                body += compressor.flush(zlib.Z_SYNC_FLUSH)
            if body:
                await connection.send(body)
            await anyio.sleep(0.1)
        await anyio.sleep_forever()

    serve(server)
    report = await check_url(URL, watch=5)

    assert report.outcome("compression") == outcome


async def test_a_body_that_is_compressed_without_being_asked(serve: Serve) -> None:
    serve(answer(HEAD + b"Content-Encoding: gzip\r\n\r\n", b"\x1f\x8b"))
    report = await check_url(URL)

    assert ("compression", "failed") in bad(report)


async def test_what_a_server_does_not_answer(serve: Serve) -> None:
    async def server(connection: Connection, request: bytes) -> None:
        if request.startswith(b"HEAD") or b"accept-encoding" in request:
            await anyio.sleep_forever()
        if b"last-event-id" in request:
            await connection.send(CHUNKED + chunk(b":\n\n"))
            await anyio.sleep_forever()
        await good(connection, request)

    serve(server)
    report = await check_url(URL)

    assert bad(report) == [("compression", "failed"), ("HEAD", "failed")]
    assert report.outcome("resuming") == "skipped"
    assert "something keeps back what it compresses" in str(report)
    assert str(report).count(f"no response from {URL} in time") == 2


# Real sockets.


@contextmanager
def listening(response: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer every connection with these bytes; yield the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10000)
            self.request.sendall(response)

    class TCPServer(socketserver.ThreadingTCPServer):
        def get_request(self) -> Any:
            connection, address = super().get_request()
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            return connection, address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.real_time
async def test_a_real_server() -> None:
    with listening(CHUNKED + chunk(event(1)) + END) as port:
        async with download(f"http://127.0.0.1:{port}/") as response:
            assert await response.wait_chunks(1) == [(response.chunks[0].time, event(1))]


@pytest.mark.real_time
async def test_a_real_server_with_tls() -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    with listening(CHUNKED + chunk(event(1)) + END, theirs) as port:
        url = f"https://localhost:{port}/"
        async with download(url, ssl_context=ours) as response:
            await response.wait_chunks(1)
            assert response.body == event(1)
        report = await check_url(url)
        assert "certificate verify failed" in str(report)
