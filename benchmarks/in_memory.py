"""
Apps called without a server: what a contestant costs by itself.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio

from .contestants import CONTESTANTS, ASGIApp
from .sources import Sources


def make_app(contestant: str) -> ASGIApp:
    """
    Make a contestant's app, with sources of its own.
    """
    make = CONTESTANTS[contestant].make
    assert make is not None
    return make(Sources())


def make_scope(path: str, query: str = "") -> dict[str, Any]:
    """
    Return what uvicorn would say of an EventSource's request.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"accept", b"text/event-stream"),
            (b"cache-control", b"no-cache"),
            (b"user-agent", b"asgi-sse-benchmarks"),
        ],
    }


class Connection:
    """
    The least of a server: what every HTTP/1.1 server has to do for a body.

    A client that never leaves, and takes everything at once.
    """

    def __init__(self) -> None:
        self.started = False
        self._over = anyio.Event()
        self._asked = False
        self._out = bytearray()

    async def receive(self) -> Any:
        """
        Give the request, and then nothing until the response is over.
        """
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """
        Frame a chunk of the body.
        """
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            self._out += b"%x\r\n%b\r\n" % (len(body), body)
            if len(self._out) > 65536:
                self._out.clear()
            if not message.get("more_body", False):
                self._over.set()
        else:
            self.started = True


class NullConnection(Connection):
    """
    Not even that: ``send`` does nothing, so that only the app's own cost is left.
    """

    async def send(self, message: Any) -> None:
        """
        Do nothing, but for the end of the response.
        """
        if "more_body" not in message:
            await super().send(message)


async def call(app: ASGIApp, path: str, query: str, connection: Connection) -> None:
    """
    Make one request.
    """
    await app(make_scope(path, query), connection.receive, connection.send)


class Subscriptions:
    """
    Open subscriptions of one app, to which something is published.
    """

    def __init__(self, contestant: str, count: int) -> None:
        self._sources = Sources()
        make = CONTESTANTS[contestant].make
        assert make is not None
        self._app = make(self._sources)
        self._count = count
        self._received = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            connection = Connection()
            send = partial(self._send, connection)
            response = self._app(make_scope("/subscribe"), connection.receive, send)
            self._tasks.append(asyncio.ensure_future(response))
        await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deliver(self, events: int) -> None:
        """
        Publish *events* at once; return when everybody has them.
        """
        expected = self._received + self._count * events
        await self._sources.publish_many(1, events, 0)
        # An Event would be one more to wake for each delivery.
        while self._received < expected:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def _send(self, connection: Connection, message: Any) -> None:
        self._received += message.get("body", b"").count(b"data:")
        await connection.send(message)


def cpu_per_event(
    app: ASGIApp,
    path: str,
    events: int,
    backend: str = "asyncio",
    connect: Callable[[], Connection] = Connection,
) -> float:
    """
    Return the CPU seconds per event of one response.
    """

    async def main() -> float:
        began = time.process_time()
        await call(app, path, f"events={events}", connect())
        return (time.process_time() - began) / events

    gc.collect()
    return anyio.run(main, backend=backend)


def cpu_per_stream(app: ASGIApp, streams: int) -> float:
    """
    Return the CPU seconds of a stream of one event, from its request to its end.

    Another one is open all the time: what a library does for the first stream
    of a process is not counted.
    """

    async def main() -> float:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(call, app, "/idle", "", Connection())
            await anyio.sleep(0.05)
            began = time.process_time()
            for _ in range(streams):
                await call(app, "/flood", "events=1", Connection())
            used = time.process_time() - began
            task_group.cancel_scope.cancel()
        return used / streams

    gc.collect()
    return anyio.run(main)


def cpu_per_delivery(contestant: str, subscribers: int, burst: int, deliveries: int) -> float:
    """
    Return the CPU seconds of one event to one subscriber, *burst* events at a time.
    """
    times = deliveries // (subscribers * burst) + 1

    async def main() -> float:
        async with Subscriptions(contestant, subscribers) as subscriptions:
            await subscriptions.deliver(burst)
            began = time.process_time()
            for _ in range(times):
                await subscriptions.deliver(burst)
            return (time.process_time() - began) / (times * subscribers * burst)

    gc.collect()
    return asyncio.run(main())


def memory_per_stream(contestant: str, path: str, streams: int, measure: str) -> float:
    """
    Return the bytes that one more open stream takes, in a fresh process.

    ``traced`` is what Python allocated, ``resident`` how much RAM the process
    has gained by it.
    """
    command = [sys.executable, "-m", "benchmarks.in_memory", contestant, path, str(streams)]
    output = subprocess.run(
        [*command, measure],
        cwd=Path(__file__).parent.parent,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    return float(json.loads(output))


async def _memory_per_stream(app: ASGIApp, path: str, streams: int, measure: str) -> float:
    async def open_streams(count: int) -> list[Any]:
        connections = [Connection() for _ in range(count)]
        tasks = [asyncio.ensure_future(call(app, path, "", each)) for each in connections]
        # An Event would belong to the memory of each stream.
        while not all(each.started for each in connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        gc.collect()
        return tasks

    # What the first streams import and cache is not theirs.
    kept = [await open_streams(20)]
    if measure == "traced":
        tracemalloc.start()
        kept.append(await open_streams(streams))
        used, _ = tracemalloc.get_traced_memory()
    else:
        before = _resident()
        kept.append(await open_streams(streams))
        used = _resident() - before
    # Without a word to the tasks, which would take longer than all of this.
    sys.stdout.write(json.dumps(used / streams))
    sys.stdout.flush()
    os._exit(0)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _, contestant, path, streams, measure = sys.argv
    asyncio.run(_memory_per_stream(make_app(contestant), path, int(streams), measure))
