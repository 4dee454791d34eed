"""
A client for real servers, which notes what comes when.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from .._event import ServerSentEvent
from ..parser import EventStreamParser
from ._comments import Comments
from ._exchange import Chunk
from ._headers import Headers

__all__ = ["Download", "download", "encode_request"]

_MAX_HEAD = 65536

# How a connection ends that should not: closed, reset, or speaking of something else.
_CUT = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    anyio.BrokenResourceError,
    OSError,
    ValueError,
)


class Download:
    """
    A response that is being received; made by ``download()``.

    Its attributes are those of a ``Stream`` where they mean the same.
    """

    def __init__(self) -> None:
        self._began = anyio.current_time()
        self._changed = anyio.Event()
        self._parser = EventStreamParser()
        self._comments = Comments()
        self.status = 0
        self.headers = Headers([])
        #: Seconds until the head of the response was there.
        self.opened = 0.0
        self.chunks: list[Chunk] = []
        self.events: list[ServerSentEvent] = []
        #: The events with the time of the event loop.
        self.arrivals: list[tuple[float, ServerSentEvent]] = []
        #: Whether the body has come to its end, and was not cut off.
        self.complete = False
        #: Whether nothing more will come.
        self.closed = False

    @property
    def comments(self) -> list[str]:
        """
        The comments so far.
        """
        return self._comments.comments

    @property
    def body(self) -> bytes:
        """
        All that was received.
        """
        return b"".join(chunk.body for chunk in self.chunks)

    async def wait_chunks(self, count: int, patience: float | None = None) -> list[Chunk]:
        """
        Wait until so many chunks were received, or no more will be.
        """
        with anyio.fail_after(patience):
            while len(self.chunks) < count and not self.closed:
                await self._changed.wait()
        return self.chunks

    async def _receive(self, stream: BufferedByteReceiveStream, method: str) -> None:
        try:
            async for body in _body(stream, self.status, self.headers, method):
                self.chunks.append(Chunk(self.time(), body))
                self._comments.feed(body)
                events = self._parser.feed(body)
                self.events += events
                self.arrivals += [(anyio.current_time(), event) for event in events]
                self._notify()
            self.complete = True
        except _CUT:
            pass
        finally:
            self.closed = True
            self._notify()

    def time(self) -> float:
        """
        Return the seconds since the request.
        """
        return round(anyio.current_time() - self._began, 6)

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


@asynccontextmanager
async def download(
    url: str,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    patience: float = 10.0,
) -> AsyncIterator[Download]:
    """
    Make a request to a server, over HTTP/1.1, and yield the response while it comes.

    Args:
        url: The URL, ``http`` or ``https``.
        method: The method.
        headers: More headers, or others than an ``EventSource`` would send.
        ssl_context: What to trust, if not what the system trusts.
        patience: Seconds to wait for the connection and the head of the response.

    Yields:
        The response, once its head is there.

    Raises:
        OSError: If there was no connection, or what answers does not speak HTTP.
        TimeoutError: If the response did not begin in time.
        ValueError: If the URL cannot be used.

    """
    request = encode_request(url, method, headers)
    parts = urlsplit(url)
    failure: BaseException | None = None
    received = Download()
    with anyio.fail_after(patience):
        connection = await _connect(
            parts.hostname or "", parts.port, ssl_context, tls=parts.scheme == "https"
        )
    async with connection:
        stream = BufferedByteReceiveStream(connection)
        try:
            with anyio.fail_after(patience):
                await connection.send(request)
                received.status, received.headers = await _head(stream)
        except _CUT as error:
            if isinstance(error, OSError):
                raise
            raise ConnectionError("the connection was closed without a response") from None
        received.opened = received.time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(received._receive, stream, method)
            try:
                yield received
            except (anyio.get_cancelled_exc_class(), GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                # Past the task group, which would put it into an exception group.
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _connect(
    host: str, port: int | None, ssl_context: ssl.SSLContext | None, *, tls: bool
) -> ByteStream:
    if not tls:
        return await anyio.connect_tcp(host, port or 80)
    # Many servers close a connection without the goodbye of TLS.
    return await anyio.connect_tcp(
        host, port or 443, tls=True, ssl_context=ssl_context, tls_standard_compatible=False
    )


def encode_request(url: str, method: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """
    Return the bytes of a request.

    Raises:
        ValueError: If the URL or a header cannot be used.

    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"url must be like http://host/path (got {url!r})")
    fields = {"host": parts.netloc, "accept": "text/event-stream", "cache-control": "no-cache"}
    fields |= {name.lower(): value for name, value in headers}
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    for line in lines:
        if re.search(r"[\r\n\0]", line):
            raise ValueError(f"a line of the request must be a single line (got {line!r})")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _head(stream: BufferedByteReceiveStream) -> tuple[int, Headers]:
    while True:
        head = await stream.receive_until(b"\r\n\r\n", _MAX_HEAD)
        start, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.[01] (\d{3})(?: .*)?", start)
        if match is None:
            raise ConnectionError(f"what answers does not speak HTTP/1.1: {start[:60]!r}")
        status = int(match[1])
        # "A client MUST be able to parse one or more 1xx responses" before the real one.
        if status >= 200:
            fields = (line.partition(b":") for line in lines)
            return status, Headers((name, value.strip()) for name, _, value in fields)


async def _body(
    stream: BufferedByteReceiveStream, status: int, headers: Headers, method: str
) -> AsyncIterator[bytes]:
    """
    Yield the body as it comes, without the chunks of HTTP.
    """
    if method == "HEAD" or status in {204, 304}:
        return
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await stream.receive_until(b"\r\n", 1000)).partition(b";")[0], 16):
            yield await stream.receive_exactly(size)
            await stream.receive_exactly(2)
    elif "content-length" in headers:
        left = int(headers["content-length"])
        while left:
            body = await stream.receive(left)
            left -= len(body)
            yield body
    else:
        # To the end of the connection, so that an end cannot be told from a cut.
        while True:
            try:
                yield await stream.receive()
            except anyio.EndOfStream:
                return
