"""
Many clients in one loop, each of which reads a stream to its end.

Nothing is read but in :meth:`Crowd.pump`; meanwhile the operating system keeps what comes.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from termios import FIONREAD
from typing import Self

import h2.config
import h2.connection
import h2.events
import h11

from asgi_sse import ServerSentEvent
from asgi_sse.parser import EventStreamParser

__all__ = ["Crowd", "Reader"]

# Streams on one connection: less than any server allows.
_STREAMS = 25


@dataclass
class Reader:
    """
    What one client has got so far.
    """

    #: What it has asked for.
    path: str
    #: HTTP status; 0 before the headers are there.
    status: int = 0
    body: bytes = b""
    #: Whether it has ended as it should: with a final chunk, or the end of the stream.
    complete: bool = False
    #: Whether it has ended in any other way.
    broken: bool = False
    events: list[ServerSentEvent] = field(default_factory=list)
    _parser: EventStreamParser = field(default_factory=EventStreamParser)

    @property
    def over(self) -> bool:
        return self.complete or self.broken

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in self.events]

    def feed(self, body: bytes) -> None:
        self.body += body
        self.events += self._parser.feed(body)


class _Connection:
    """
    One connection that sends requests, and hands what it receives to its readers.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.readers: list[Reader] = []

    def receive(self) -> None:
        """
        Read what is there.
        """
        while True:
            try:
                data = self.socket.recv(2**16)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError:
                data = b""
            try:
                self.take(data)
            except (h11.RemoteProtocolError, h2.exceptions.ProtocolError):
                data = b""
            if not data or all(reader.over for reader in self.readers):
                for reader in self.readers:
                    reader.broken = not reader.complete
                self.socket.close()
                return

    def take(self, data: bytes) -> None:
        raise NotImplementedError


class _Http1(_Connection):
    def __init__(self, connection: socket.socket, path: str) -> None:
        super().__init__(connection)
        self._h11 = h11.Connection(h11.CLIENT)
        self.readers = [Reader(path)]
        request = h11.Request(method="GET", target=path, headers=[("host", "127.0.0.1")])
        connection.sendall(self._h11.send(request) + self._h11.send(h11.EndOfMessage()))

    def take(self, data: bytes) -> None:
        self._h11.receive_data(data)
        (reader,) = self.readers
        while True:
            match self._h11.next_event():
                case h11.Response() as response:
                    reader.status = response.status_code
                case h11.Data() as part:
                    reader.feed(bytes(part.data))
                case h11.EndOfMessage():
                    reader.complete = True
                    return
                case h11.NEED_DATA | h11.PAUSED | h11.ConnectionClosed():
                    return


class _Http2(_Connection):
    def __init__(self, connection: socket.socket, paths: Sequence[str]) -> None:
        super().__init__(connection)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._received = b""
        self._streams: dict[int, Reader] = {}
        for path in paths:
            number = self._h2.get_next_available_stream_id()
            headers = [
                (":method", "GET"),
                (":path", path),
                (":scheme", "https"),
                (":authority", "127.0.0.1"),
            ]
            self._h2.send_headers(number, headers, end_stream=True)
            self._streams[number] = Reader(path)
        self.readers = list(self._streams.values())
        connection.sendall(self._h2.data_to_send())

    def take(self, data: bytes) -> None:
        self._received += data
        # One frame at a time, because of the last case.
        while len(self._received) >= (end := 9 + int.from_bytes(self._received[:3])):
            frame, self._received = self._received[:end], self._received[end:]
            for event in self._h2.receive_data(frame):
                self._handle(event)
        # The server may have gone.
        with suppress(OSError):
            self.socket.sendall(self._h2.data_to_send())

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=number, headers=headers):
                # Its pseudo-header comes first.
                self._streams[number].status = int(headers[0][1])
            case h2.events.DataReceived(stream_id=number):
                self._streams[number].feed(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded(stream_id=number):
                self._streams[number].complete = True
            case h2.events.StreamReset(stream_id=number):
                self._streams[number].broken = True
            case h2.events.ConnectionTerminated(error_code=0):
                # No new streams. Those that there are go on, which this client forgets.
                self._h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN


class Crowd:
    """
    So many streams at once, until the ``with`` block ends.

    Args:
        connect: Makes a connection.
        paths: What each asks for.
        http2: Whether they share connections, by 25.

    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        paths: Sequence[str],
        *,
        http2: bool = False,
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        size = _STREAMS if http2 else 1
        for first in range(0, len(paths), size):
            some = paths[first : first + size]
            made = _Http2(connect(), some) if http2 else _Http1(connect(), some[0])
            made.socket.setblocking(False)
            self._selector.register(made.socket, selectors.EVENT_READ, made)
            self._connections.append(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()

    @property
    def readers(self) -> list[Reader]:
        return [reader for connection in self._connections for reader in connection.readers]

    def pump(self, until: Callable[[], bool], timeout: float = 15.0) -> None:
        """
        Read, until there is nothing more to wait for.

        Raises:
            TimeoutError: It did not come to that.

        """
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the crowd still waits: {self}")
            for key, _ in self._selector.select(0.01):
                key.data.receive()
                if key.data.socket.fileno() == -1:
                    self._selector.unregister(key.fileobj)

    def wait_for(self, text: bytes, timeout: float = 15.0) -> None:
        """
        Read, until each has got this.
        """
        self.pump(lambda: all(text in reader.body for reader in self.readers), timeout)

    def wait_over(self, timeout: float = 15.0) -> None:
        """
        Read, until each has come to an end.
        """
        self.pump(lambda: all(reader.over for reader in self.readers), timeout)

    def wait_stalled(self, timeout: float = 15.0) -> None:
        """
        Read nothing, until nothing more comes.

        Raises:
            TimeoutError: It never ends.

        """
        deadline = time.monotonic() + timeout
        waiting = [0]
        # The same, and not nothing, a few times in a row.
        while waiting[0] == 0 or len(waiting) < 10:
            if time.monotonic() > deadline:
                raise TimeoutError("there is always more to read")
            time.sleep(0.03)
            count = 0
            for connection in self._connections:
                buffer = array("i", [0])
                ioctl(connection.socket, FIONREAD, buffer)
                count += buffer[0]
            waiting = [*waiting, count] if count == waiting[0] else [count]

    def __str__(self) -> str:
        readers = self.readers
        return (
            f"{len(readers)} clients, {sum(r.complete for r in readers)} complete, "
            f"{sum(r.broken for r in readers)} broken"
        )
