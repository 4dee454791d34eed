"""
The load: many event streams, read by one thread and counted.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

REQUEST = (
    "GET {target} HTTP/1.1\r\n"
    "host: 127.0.0.1\r\n"
    "accept: text/event-stream\r\n"
    "cache-control: no-cache\r\n"
    "user-agent: asgi-sse-benchmarks\r\n"
    "\r\n"
)

# Every contestant writes exactly one data field for an event and none in a
# comment, so that nothing needs to be parsed, not even the chunks.
MARK = b"data:"


class Stream:
    """
    One event stream, as far as it is of interest.
    """

    __slots__ = ("bytes", "events", "first_byte_at", "first_event_at", "socket", "tail")

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.bytes = 0
        self.events = 0
        self.tail = b""  # The end of what was read: a mark may be cut in two.
        self.first_byte_at = 0
        self.first_event_at = 0


class Clients:
    """
    Event streams from one server.
    """

    def __init__(self, port: int) -> None:
        self.streams: list[Stream] = []
        self.events = 0
        #: (index of the event in its stream, moment of its arrival), if wanted.
        self.arrivals: list[tuple[int, int]] | None = None
        self._address = ("127.0.0.1", port)
        self._selector = selectors.DefaultSelector()
        self._space = memoryview(bytearray(262144))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self.streams:
            stream.socket.close()
        self._selector.close()

    def open(self, count: int, target: str) -> None:
        """
        Open *count* streams; return when each has its response's beginning.
        """
        # In batches, so that the server's queue of connections never overflows.
        for begin in range(0, count, 100):
            self._open_batch(min(100, count - begin), target)

    def _open_batch(self, count: int, target: str) -> None:
        batch = [self.start(target) for _ in range(count)]
        self.wait(lambda: all(stream.bytes for stream in batch), 20)

    def start(self, target: str) -> Stream:
        """
        Open one stream, without waiting for an answer.
        """
        sock = socket.create_connection(self._address, timeout=20)
        sock.sendall(REQUEST.format(target=target).encode())
        sock.setblocking(False)
        stream = Stream(sock)
        self.streams.append(stream)
        self._selector.register(sock, selectors.EVENT_READ, stream)
        return stream

    def close(self, stream: Stream) -> None:
        """
        Leave one stream.
        """
        self._selector.unregister(stream.socket)
        stream.socket.close()
        self.streams.remove(stream)

    def run(self, seconds: float) -> None:
        """
        Read for some time.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)

    def wait(self, condition: Callable[[], bool], timeout: float) -> None:
        """
        Read until *condition* holds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"{len(self.streams)} streams, {self.events} events after {timeout} s"
                )
            self._read(left)

    def wait_events(self, count: int, timeout: float = 20) -> None:
        """
        Read until *count* events have arrived on all streams together.
        """
        self.wait(lambda: self.events >= count, timeout)

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            stream: Stream = key.data
            size = stream.socket.recv_into(self._space)
            if not size:
                raise ConnectionError("a server closed the connection of an open stream")
            data = stream.tail + self._space[:size]
            if not stream.bytes:
                stream.first_byte_at = time.monotonic_ns()
                if not data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"no event stream: {data[:200]!r}")
            stream.bytes += size
            stream.tail = data[1 - len(MARK) :]
            if events := data.count(MARK):
                self._count(stream, events)

    def _count(self, stream: Stream, events: int) -> None:
        if not stream.events:
            stream.first_event_at = time.monotonic_ns()
        if self.arrivals is not None:
            now = time.monotonic_ns()
            self.arrivals += [(stream.events + i, now) for i in range(events)]
        stream.events += events
        self.events += events
