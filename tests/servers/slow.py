"""
Many clients of one channel, of which some never read.

The others must not notice. How much they do, in time, is measured by::

    python tests/servers/slow.py
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import statistics
import time
from dataclasses import dataclass
from threading import Thread
from typing import Any, Self

from port import Port

__all__ = ["Crowd"]

# No client waits for anything so long, even on a busy machine.
_PATIENCE = 60.0

# Open files that a process may have: many systems allow 1024, unless one asks for more.
_FILES = 4096

# Of a socket's buffer, in bytes: small, so that who does not read is noticed early.
_BUFFER = 16_384

_SERVERS = {
    "hypercorn": "hypercorn --log-level warning --bind fd://{fd}",
    # Its other HTTP implementation sends chunks to clients of HTTP/1.0.
    "uvicorn": "uvicorn --http h11 --log-level warning --fd {fd}",
}


@dataclass
class Client:
    """
    One client, and what it has got.
    """

    socket: socket.socket
    body: bytearray
    events: int = 0
    over: bool = False

    def read(self) -> None:
        """
        Take what is there.
        """
        while not self.over:
            try:
                data = self.socket.recv(2**18)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            # A blank line may come in two pieces.
            begun = max(0, len(self.body) - 1)
            self.body += data
            self.events += self.body.count(b"\n\n", begun)
            self.over = not data

    def drain(self) -> bytes:
        """
        Return all that has come, once the server has closed the connection.
        """
        self.socket.settimeout(_PATIENCE)
        while not self.over:
            self.read()
        return bytes(self.body)


class Crowd:
    """
    Clients of one server process: those that read, and those that do not.

    Args:
        server: Which one.
        reading: How many read.
        silent: How many do not.
        send_timeout: After how many seconds the server gives those up.

    """

    def __init__(self, server: str, reading: int, silent: int, *, send_timeout: float) -> None:
        self._server = server
        self._counts = reading, silent
        self._send_timeout = send_timeout
        self._port = Port(_BUFFER)
        self._selector = selectors.DefaultSelector()
        self._published = 0
        self.readers: list[Client] = []
        self.silent: list[Client] = []

    def __enter__(self) -> Self:
        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Infinity is -1.
        if 0 <= now < _FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, most))
        self._port.start(
            "served_channel:app",
            command=_SERVERS[self._server],
            environment={"SEND_TIMEOUT": str(self._send_timeout)},
        )
        try:
            reading, silent = self._counts
            for clients, count in ((self.readers, reading), (self.silent, silent)):
                for _ in range(count):
                    clients.append(self._connect())
            for reader in self.readers:
                reader.socket.setblocking(False)
                self._selector.register(reader.socket, selectors.EVENT_READ, reader)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._port.__exit__()
        for client in (*self.readers, *self.silent):
            client.socket.close()
        self._selector.close()

    def _connect(self) -> Client:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        client.settimeout(_PATIENCE)
        client.connect(("127.0.0.1", self._port.number))
        # With HTTP/1.0 the body is not chunked, and so the same for all.
        client.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        received = b""
        # Until it has its place: the ID alone.
        while b"\n\nid: " not in received or not received.endswith(b"\n\n"):
            part = client.recv(4096)
            assert part, received
            received += part
        return Client(client, bytearray())

    def ask(self, path: str, method: str = "GET") -> bytes:
        """
        Return what the server answers to another client.
        """
        with socket.create_connection(("127.0.0.1", self._port.number), _PATIENCE) as client:
            client.sendall(f"{method} {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        return answer.partition(b"\r\n\r\n")[2]

    def statistics(self) -> dict[str, Any]:
        """
        Return how the server is doing.
        """
        found: dict[str, Any] = json.loads(self.ask("/statistics"))
        return found

    def wait_until_given_up(self) -> dict[str, Any]:
        """
        Return how the server is doing once it has closed the connections of the silent.
        """
        deadline = time.monotonic() + _PATIENCE
        while (found := self.statistics())["subscribers"] > len(self.readers):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def publish(self, count: int, size: int) -> list[int]:
        """
        Publish so many events of so many bytes, and read until each reader has got them.

        Returns:
            When each had, in nanoseconds.

        """
        self._published += count
        # Meanwhile they read, or would be given up with those who do not.
        asking = Thread(target=self.ask, args=(f"/publish?count={count}&size={size}", "POST"))
        asking.start()
        times = self._pump(self._published)
        asking.join()
        return times

    def _pump(self, events: int) -> list[int]:
        times = []
        waiting = {id(reader) for reader in self.readers if reader.events < events}
        deadline = time.monotonic() + _PATIENCE
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} readers still wait"
            for key, _ in self._selector.select(0.1):
                key.data.read()
                assert not key.data.over, "a reader was closed"
                if key.data.events >= events and id(key.data) in waiting:
                    waiting.remove(id(key.data))
                    times.append(time.monotonic_ns())
        return times


def measure(server: str, silent: int, events: int = 200) -> str:
    """
    Return how long an event takes to 900 readers, one every 50 ms, and the server's memory.
    """
    with Crowd(server, 900, silent, send_timeout=600) as crowd:
        before = crowd.statistics()["memory"]
        # Until who does not read has stopped the server from sending to it.
        for _ in range(12):
            crowd.publish(50, 1000)
        stuck = crowd.statistics()
        medians, lasts = [], []
        for _ in range(events):
            begun = time.monotonic_ns()
            times = sorted(at - begun for at in crowd.publish(1, 1000))
            medians.append(times[len(times) // 2] / 1e6)
            lasts.append(times[-1] / 1e6)
            time.sleep(0.05)
        after = crowd.statistics()
    return (
        f"{server:9} {silent:3} silent, lag {stuck['largest_lag']:4}:"
        f" half of 900 have it after {statistics.median(medians):5.1f} ms,"
        f" all after {statistics.median(lasts):5.1f} ms (p99 {sorted(lasts)[-3]:5.1f});"
        f" memory {before / 1e6:.0f}, {stuck['memory'] / 1e6:.0f}, {after['memory'] / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    for server in _SERVERS:
        for silent in (0, 100):
            print(measure(server, silent), flush=True)
