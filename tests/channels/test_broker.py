"""
Channels that an engine keeps.
"""

import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse.channels import Broker, BrokerError, Subscription
from asgi_sse.channels._backend import Batch
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


async def test_what_has_aged_before_it_was_read_is_told_once() -> None:
    backend = MemoryBackend(3, 10)
    batches = backend.read("news.>", None)
    assert (await anext(batches)).missing == (0,)
    await backend.publish("news.a", {})
    await anyio.sleep(20)

    assert await anext(batches) == Batch([], (1,))
    assert await anext(batches) == Batch([], None)
    await batches.aclose()


async def test_channels_that_nobody_holds_are_forgotten() -> None:
    async with Broker("memory://") as broker:
        async with broker.subscribe("made up"):
            await anyio.sleep(1)
        await broker.publish("real", "x")
        await anyio.sleep(60)
        gc.collect()

        assert list(broker._channels) == []
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
        ("me:s3cret@localhost", {}, r"url must be of .* \(got none of them\)$"),
        ("kafka://me:s3cret@localhost", {}, r"url must be of .* \(got kafka://...\)$"),
        ("redis://:s3c/ret@localhost", {}, "^url must have a number as its port. Did you forget"),
        ("nats://me@a:1,nats://me:s3c?ret@b", {}, "^url must have a number as its port"),
        ("memory://", {"overflow": "latest"}, "overflow must be 'close' or 'skip'"),
        ("memory://", {"history": 0}, "history must be at least 1"),
    ],
)
def test_wrong_options_are_refused(url: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Broker(url, **options)


async def test_a_broker_may_be_opened_again() -> None:
    """
    An application holds its channels longer than its lifespan, which tests run several times.
    """
    broker = Broker("memory://")
    channel = broker.channel("news")
    for number in range(2):
        async with broker, channel.subscribe() as subscription:
            await anext(subscription)
            await channel.publish(number)

            assert (await anext(subscription)).data == str(number)


async def test_an_open_broker_is_not_opened_again() -> None:
    async with Broker("memory://") as broker:
        with pytest.raises(RuntimeError, match="the broker is open"):
            await broker.__aenter__()

        assert await broker.publish("news", "1")


async def kinds(events: AsyncIterator[ServerSentEvent], count: int) -> list[str | None]:
    with anyio.fail_after(60):
        return [(await anext(events)).event for _ in range(count)]


async def test_what_was_missed_in_several_channels_is_told_after_each_loss_until_it_was() -> None:
    async with Broker("memory://") as broker:
        for name in ("a", "b"):
            await broker.publish(name, "x")
        subscription = broker.subscribe("a", "b", last_event_id="nonsense")
        ids = [(await anext(subscription)).id for _ in range(2)]

        # The connection was lost before any reset, then after that of "a".
        again = broker.subscribe("a", "b", last_event_id=ids[0])
        assert await kinds(again, 5) == [None, "reset", None, "reset", None]
        again = broker.subscribe("a", "b", last_event_id=ids[1])
        assert await kinds(again, 4) == [None, None, "reset", None]


async def test_a_long_id_that_nobody_knows_makes_no_long_id_of_several_channels() -> None:
    async with Broker("memory://") as broker:
        subscription = broker.subscribe("a", "b", last_event_id="\x7f" * 4000)

        assert (await anext(subscription)).id == "a=%3F&b=%3F"
        assert await kinds(subscription, 2) == ["reset", "reset"]


async def test_what_was_missed_counts_as_told_when_a_response_has_taken_it() -> None:
    async with Broker("memory://") as broker:
        subscription = broker.channel("a").subscribe("nonsense")
        await anyio.sleep(1)
        assert subscription.is_ready()
        assert subscription.event_id() == "nonsense"
        subscription.take()

        assert subscription.event_id() != "nonsense"


async def test_a_snapshot_is_given_in_several_channels() -> None:
    async with Broker("memory://", on_gap=lambda gap: ["snapshot"]) as broker:
        subscription = broker.subscribe("a", "b", last_event_id="nonsense")
        events = [await anext(subscription) for _ in range(5)]

        assert [event.data for event in events] == [None, "snapshot", None, "snapshot", None]
        # Only after a whole snapshot it counts as seen.
        assert [str(event.id).count("nonsense") for event in events] == [2, 2, 1, 1, 0]


async def test_a_hook_that_raises_ends_its_subscription_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def hook(gap: Any) -> list[str]:
        if gap.requested.startswith("bad"):
            raise RuntimeError("no snapshot")
        return ["snapshot"]

    async with Broker("memory://", on_gap=hook) as broker:
        names = ["bad", "good"] * 5
        requested = [f"{name} {number}" for number, name in enumerate(names)]
        subscriptions = [broker.subscribe("a", last_event_id=each) for each in requested]
        got: list[str | None] = []
        for name, subscription in zip(names, subscriptions, strict=True):
            with anyio.fail_after(5):
                if name == "bad":
                    assert [event async for event in subscription] == []
                else:
                    got.append((await anext(subscription)).data)

        assert got == ["snapshot"] * 5
        assert broker.channel("a").statistics().subscribers == 5
    assert caplog.text.count("RuntimeError: no snapshot") == 5


async def test_an_id_ahead_is_decided_although_there_is_always_more_to_read() -> None:
    async def publish() -> None:
        while True:
            await broker.publish("a", "x")
            await anyio.sleep(0.5)

    async with Broker("memory://") as broker, anyio.create_task_group() as tasks:
        last = await broker.publish("a", "x")
        tasks.start_soon(publish)
        start = anyio.current_time()
        ahead = last.rpartition("-")[0] + "-1000000"

        assert await kinds(broker.subscribe("a", last_event_id=ahead), 1) == ["reset"]
        assert 5 <= anyio.current_time() - start < 7
        tasks.cancel_scope.cancel()


async def test_no_more_channels_than_a_client_can_come_back_to() -> None:
    async with Broker("memory://") as broker:
        # 4 characters, and 41 for the ID, "=" and "&".
        fit = [f"{number:04}" for number in range(4096 // 47)]
        await broker.subscribe(*fit).aclose()
        with pytest.raises(ValueError, match=r"fewer, or shorter.* \(got 88 names, .* 4136\)"):
            broker.subscribe(*fit, "last")
        # One has the IDs of the engine, whatever its name is.
        await broker.subscribe("%" * 1024, "%" * 1024).aclose()


async def test_what_is_too_old_goes_from_memory_although_nobody_publishes_there() -> None:
    backend = MemoryBackend(10, 60)
    for number in range(100):
        await backend.publish(f"user.{number}", {})
        await anyio.sleep(1)
    await backend.publish("user.99", {})
    kept = [len(channel.entries) for channel in backend._channels.values()]

    assert kept == [0] * 41 + [1] * 58 + [2]
