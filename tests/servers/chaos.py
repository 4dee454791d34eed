"""
Workers and an engine are killed under many clients, who must lose and double nothing.

CI does each of these things once. For longer, and in any order::

    PYTHONPATH=tests/channels python tests/servers/chaos.py redis --seconds 300
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from asgi_sse.parser import EventStreamParser
from engines import Engine, Nats, Redis, programs
from port import Port

__all__ = ["ENGINES", "Report", "every_way", "run"]

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "redis": lambda folder: Redis(programs()[0], folder),
    "nats": Nats,
}

# No client waits for anything so long, even on a busy machine.
_PATIENCE = 60.0


@dataclass
class Report:
    """
    What became of what was published.
    """

    clients: int
    acknowledged: int
    #: Not known to be published: they may have come, but once.
    refused: int
    received: int
    #: Acknowledged events that a client has not got.
    lost: int
    #: Events that a client has got more than once, without having been told.
    doubled: int
    #: Events that came after a later one.
    disordered: int
    #: How often a client was told that something may be missing.
    resets: int
    #: Answers after which an EventSource would give up.
    given_up: int
    reconnects: int
    workers_killed: int
    engines_killed: int


class Client:
    """
    It comes back with what it has, wherever its connection ends.

    Args:
        port: Where.
        channels: Which: ``even`` or ``odd``, or both in one stream.

    """

    def __init__(self, port: int, channels: tuple[str, ...]) -> None:
        self._port = port
        self._channels = channels
        self._query = "&".join(f"channel={name}" for name in channels)
        self._last_event_id = ""
        self._ended: set[str] = set()
        #: The greatest number so far.
        self.latest = -1
        self.numbers: list[int] = []
        self.received = 0
        self.resets = 0
        self.connections = 0
        self.given_up = 0
        self.is_there = anyio.Event()
        self.over = anyio.Event()

    def split(self) -> list[list[int]]:
        """
        Return what has come of each of its channels.
        """
        return [
            [number for number in self.numbers if number % 2 == (name == "odd")]
            for name in self._channels
        ]

    def wanted(self, numbers: set[int]) -> set[int]:
        """
        Return those of its channels.
        """
        return {n for n in numbers if ("even", "odd")[n % 2] in self._channels}

    async def follow(self) -> None:
        while True:
            self.connections += 1
            try:
                async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
                    await self._read(stream)
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                await anyio.sleep(random.uniform(0.05, 0.3))

    async def _read(self, stream: anyio.abc.SocketStream) -> None:
        # With HTTP/1.0 the body is not chunked, and so as cheap to read as can be.
        await stream.send(
            f"GET /events?lastEventId=earliest&{self._query} HTTP/1.0\r\nHost: localhost\r\n"
            f"Last-Event-ID: {self._last_event_id}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        head, _, body = head.partition(b"\r\n\r\n")
        self.given_up += head.split()[1] != b"200"
        parser = EventStreamParser()
        while True:
            for event in parser.feed(body):
                self._take(event.event, event.data or "")
            if parser.last_event_id:
                self._last_event_id = parser.last_event_id
                self.is_there.set()
            body = await stream.receive()

    def _take(self, kind: str | None, data: str) -> None:
        if kind == "reset":
            self.resets += 1
        elif data.startswith("end of "):
            self._ended.add(data)
            if len(self._ended) == len(self._channels):
                self.over.set()
        else:
            self.received += 1
            self.numbers.append(int(data))
            self.latest = max(self.latest, int(data))


class Chaos:
    """
    Four workers behind one port, an engine, a publisher and many clients.
    """

    def __init__(self, engine: Engine, clients: int, rate: float, history: int) -> None:
        self._engine = engine
        self._rate = rate
        self._environment = {"BROKER": engine.url, "HISTORY": str(history)}
        self._port = Port()
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._refusal = anyio.Event()
        ways = [("even",), ("odd",), ("even", "odd"), ("even", "odd")]
        self.clients = [Client(self._port.number, ways[n % len(ways)]) for n in range(clients)]
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.workers_killed = 0
        self.engines_killed = 0

    def __enter__(self) -> Self:
        self._port.__enter__()
        for number in range(4):
            self.start_worker(number)
        return self

    def __exit__(self, *error: object) -> None:
        self._port.__exit__(*error)

    def start_worker(self, number: int) -> None:
        self._workers[number] = self._port.start("served_hub:app", environment=self._environment)

    def kill_worker(self, number: int) -> None:
        self._port.kill(self._workers.pop(number))
        self.workers_killed += 1

    async def kill_engine(self) -> None:
        """
        Kill it, and return when the publisher has noticed.
        """
        self._engine.kill()
        self.engines_killed += 1
        self._refusal = anyio.Event()
        with anyio.fail_after(_PATIENCE):
            await self._refusal.wait()

    async def start_engine(self) -> None:
        await anyio.to_thread.run_sync(self._engine.start)

    async def go_on(self, events: int = 20) -> None:
        """
        Return when every client has got so many events that are yet to be published.
        """
        until = max(self.acknowledged, default=-1) + events
        with anyio.fail_after(_PATIENCE):
            # An event that each of them sets would be set 10,000 times a second.
            while min(client.latest for client in self.clients) < until:  # noqa: ASYNC110
                await anyio.sleep(0.02)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """
        Publish as long as the ``with`` block, and then until all know that it is over.
        """
        process = await anyio.open_process(
            [sys.executable, "publisher.py", self._engine.url, str(self._rate)],
            cwd=Path(__file__).parent,
            env=os.environ | self._environment,
            stderr=None,
        )
        try:
            # It ends when all is read that was printed.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, process)
                yield
                assert process.stdin is not None
                with anyio.fail_after(_PATIENCE):
                    await process.stdin.aclose()
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                what, _, data = line.partition(" ")
                if what == "refused":
                    self._refusal.set()
                if data.isdecimal():
                    (self.acknowledged if what == "acknowledged" else self.refused).add(int(data))

    def report(self) -> Report:
        clients = self.clients
        # The others were told.
        untold = [client for client in clients if not client.resets]
        parts = [part for client in untold for part in client.split()]
        return Report(
            clients=len(clients),
            acknowledged=len(self.acknowledged),
            refused=len(self.refused),
            received=sum(client.received for client in clients),
            lost=sum(len(c.wanted(self.acknowledged).difference(c.numbers)) for c in untold),
            doubled=sum(len(part) - len(set(part)) for part in parts),
            disordered=sum(later < earlier for part in parts for earlier, later in pairwise(part)),
            resets=sum(client.resets for client in clients),
            given_up=sum(client.given_up for client in clients),
            reconnects=sum(client.connections - 1 for client in clients),
            workers_killed=self.workers_killed,
            engines_killed=self.engines_killed,
        )


async def every_way(chaos: Chaos) -> None:
    """
    Each worker is killed, the engine, one with the other, and all workers at once.
    """
    for number in range(4):
        chaos.kill_worker(number)
        await chaos.go_on()
        chaos.start_worker(number)
    await chaos.kill_engine()
    await chaos.start_engine()
    await chaos.go_on()
    await chaos.kill_engine()
    chaos.kill_worker(0)
    await chaos.start_engine()
    await chaos.go_on()
    for number in range(1, 4):
        chaos.kill_worker(number)
    for number in range(4):
        chaos.start_worker(number)
    await chaos.go_on()


def at_random(seconds: float, seed: int) -> Callable[[Chaos], Awaitable[None]]:
    """
    Return what does it for so long, in an order that the seed decides.
    """
    dice = random.Random(seed)

    async def chaos_at_random(chaos: Chaos) -> None:
        until = anyio.current_time() + seconds
        while anyio.current_time() < until:
            numbers = dice.sample(range(4), dice.choice([0, 1, 1, 1, 2, 4]))
            engine = dice.random() < 0.4 or not numbers
            for number in numbers:
                chaos.kill_worker(number)
            if engine:
                await chaos.kill_engine()
                await anyio.sleep(dice.choice([0, 0.1, 1, 3]))
            early = dice.random() < 0.5
            if early:
                for number in numbers:
                    chaos.start_worker(number)
            if engine:
                await chaos.start_engine()
            if not early:
                for number in numbers:
                    chaos.start_worker(number)
            await chaos.go_on(dice.choice([1, 20, 50]))

    return chaos_at_random


async def run(
    engine: Engine,
    what: Callable[[Chaos], Awaitable[None]],
    *,
    clients: int = 200,
    rate: float = 50,
    history: int = 10_000,
) -> Report:
    """
    Let many clients follow what is published while something is done to them.
    """
    with engine, Chaos(engine, clients, rate, history) as chaos:
        async with anyio.create_task_group() as tasks:
            for client in chaos.clients:
                tasks.start_soon(client.follow)
            with anyio.fail_after(_PATIENCE):
                for client in chaos.clients:
                    await client.is_there.wait()
            async with chaos.publishing():
                await what(chaos)
            with anyio.fail_after(_PATIENCE):
                for client in chaos.clients:
                    await client.over.wait()
            tasks.cancel_scope.cancel()
        return chaos.report()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--seconds", type=float, help="how long; without it, as CI does")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        doing = every_way if args.seconds is None else at_random(args.seconds, args.seed)
        report = anyio.run(lambda: run(ENGINES[args.engine](Path(folder)), doing, history=100_000))
    for name, value in asdict(report).items():
        print(f"{name:>15} {value}")
