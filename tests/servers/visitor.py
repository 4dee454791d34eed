"""
The client of a stream of served.py, and a back door to the stream's source.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal, Self
from uuid import uuid4

import h2.connection
import h2.events
import httpx

from asgi_sse import ServerSentEvent
from asgi_sse.parser import EventStreamParser
from harness import Server

__all__ = ["BackDoor", "Http2Connection", "Visitor"]


class BackDoor:
    """
    What a test tells the source of one stream, and hears of its end.
    """

    def __init__(self, server: Server) -> None:
        #: The query of the request for the stream.
        self.key = {"key": uuid4().hex}
        self._control = server.client()

    def let_go_on(self, data: str) -> None:
        """
        Have the source yield its next event.
        """
        self._control.post("/token", params={**self.key, "data": data}).raise_for_status()

    def report(self, timeout: float = 5.0) -> dict[str, Any]:
        """
        Return what ``on_close`` was told, as soon as the stream is over.

        Raises:
            httpx.ReadTimeout: It is not over in time.

        """
        response = self._control.get("/report", params=self.key, timeout=timeout)
        report: dict[str, Any] = response.json()
        return report


class Visitor(BackDoor):
    """
    A client with a stream, on a connection of its own, until the ``with`` block ends.

    What is waited for must come within seconds, or ``httpx.ReadTimeout`` is raised.
    """

    def __init__(
        self, server: Server, path: str, *, method: str = "GET", content: bytes | None = None
    ) -> None:
        super().__init__(server)
        self._client = server.client()
        request = self._client.build_request(method, path, params=self.key, content=content)
        self.response = self._client.send(request, stream=True)
        self._body = self.response.iter_raw()
        self._parser = EventStreamParser()
        self._events: deque[ServerSentEvent] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self._control.close()

    def read(self, until: bytes) -> bytes:
        """
        Return what comes next, as soon as *until* is part of it.
        """
        body = b""
        while until not in body:
            body += next(self._body)
        return body

    def __iter__(self) -> Iterator[ServerSentEvent]:
        return self

    def __next__(self) -> ServerSentEvent:
        while not self._events:
            self._events += self._parser.feed(next(self._body))
        return self._events.popleft()

    def leave(self, how: Literal["close", "reset", "half-close"] = "close") -> None:
        """
        Close the connection; or as if the client had crashed; or for sending only.
        """
        connection = self.response.extensions["network_stream"].get_extra_info("socket")
        if how == "half-close":
            connection.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.response.close()
        self._client.close()


class Http2Connection:
    """
    A connection with several streams on it. (httpx never resets one.)
    """

    def __init__(self, server: Server) -> None:
        self._authority = f"127.0.0.1:{server.port}"
        self._socket = server.connect()
        self._http2 = h2.connection.H2Connection()
        self._http2.initiate_connection()
        self._socket.sendall(self._http2.data_to_send())
        self._received: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, path: str, key: dict[str, str] | None = None, method: str = "GET") -> int:
        """
        Make a request, of which only GET is complete, and return the number of its stream.
        """
        stream = self._http2.get_next_available_stream_id()
        self._http2.send_headers(
            stream,
            [
                (":method", method),
                (":scheme", "https"),
                (":authority", self._authority),
                (":path", f"{path}?{httpx.QueryParams(key)}"),
            ],
            end_stream=method == "GET",
        )
        self._received[stream] = b""
        self._socket.sendall(self._http2.data_to_send())
        return stream

    def complete(self, stream: int, body: bytes) -> None:
        """
        Send the body of a request.
        """
        self._http2.send_data(stream, body, end_stream=True)
        self._socket.sendall(self._http2.data_to_send())

    def read(self, stream: int, until: bytes) -> bytes:
        """
        Return what has come on a stream so far, as soon as *until* is part of it.
        """
        while until not in self._received[stream]:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            for event in self._http2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self._received[event.stream_id] += event.data
            self._socket.sendall(self._http2.data_to_send())
        return self._received[stream]

    def reset(self, stream: int) -> None:
        """
        Leave one stream alone.
        """
        self._http2.reset_stream(stream)
        self._socket.sendall(self._http2.data_to_send())
