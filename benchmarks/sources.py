"""
What the streams carry: the same few sources for every contestant.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl


async def flood(events: int = 1000, size: int = 30) -> AsyncIterator[str]:
    """
    A source that never waits.
    """
    text = "x" * size
    for _ in range(events):
        yield text


async def models(events: int = 1000) -> AsyncIterator[Any]:
    """
    A source of models, to be sent as JSON, that never waits.
    """
    from .models import Tick

    tick = Tick(symbol="ASGI", price=42.5, volume=1000)
    for _ in range(events):
        yield tick


async def turning(events: int = 1000, size: int = 30) -> AsyncIterator[str]:
    """
    A source that lets everyone else have a turn before each event.
    """
    sleep = _sleep_of_the_running_loop()
    text = "x" * size
    for _ in range(events):
        await sleep(0)
        yield text


async def paced(events: int = 100, interval: float = 0.02, size: int = 30) -> AsyncIterator[str]:
    """
    A source that waits before each event.

    It ends by itself: the hand-written loop does not see its client leave,
    and would run on through the measurements that follow.
    """
    sleep = _sleep_of_the_running_loop()
    text = "x" * size
    for _ in range(events):
        await sleep(interval)
        yield text


async def idle() -> AsyncIterator[str]:
    """
    One event, then silence.
    """
    yield "hello"
    await asyncio.get_running_loop().create_future()


def numbers(query: str) -> dict[str, Any]:
    """
    Return the parameters of a query; a number with a point is a float.
    """
    return {name: float(value) if "." in value else int(value) for name, value in parse_qsl(query)}


class Sources:
    """
    The sources of one server process, by the path they are asked for.
    """

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[str]] = set()
        self._by_path: dict[str, Callable[..., AsyncIterator[str]]] = {
            "/flood": flood,
            "/models": models,
            "/turning": turning,
            "/paced": paced,
            "/idle": idle,
            "/subscribe": self.subscribe,
        }
        #: Replaced by contestants that bring a channel of their own.
        self.publish: Callable[[str], Awaitable[Any]] = self._publish

    def open(self, scope: Any) -> AsyncIterator[str]:
        """
        Return the source that an ASGI scope asks for.
        """
        return self.open_path(scope["path"], scope["query_string"].decode())

    def open_path(self, path: str, query: str) -> AsyncIterator[str]:
        """
        Return the source that a path and its query ask for.
        """
        return self._by_path[path](**numbers(query))

    def subscribe(self) -> AsyncIterator[str]:
        """
        Return everything that is published from now on: a queue per reader.
        """
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._queues.add(queue)
        return self._read(queue)

    async def _read(self, queue: asyncio.Queue[str]) -> AsyncIterator[str]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    async def _publish(self, text: str) -> None:
        for queue in self._queues:
            queue.put_nowait(text)

    async def publish_many(self, times: int, burst: int, interval: float) -> list[int]:
        """
        Publish so many times *burst* events at once; return the moment of each, in ns.
        """
        moments = []
        for _ in range(times):
            for _ in range(burst):
                moments.append(time.monotonic_ns())
                await self.publish("x" * 30)
            if interval:
                await asyncio.sleep(interval)
        return moments


def _sleep_of_the_running_loop() -> Callable[[float], Awaitable[Any]]:
    # Not anyio.sleep(): looking the backend up would be charged to everyone.
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.sleep  # type: ignore[no-any-return]
    return asyncio.sleep
