"""
Channels and their subscriptions, served and iterated over.
"""

import gc
import json
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import ClosedResourceError
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_sse import EventStream, ServerSentEvent
from asgi_sse.channels import Channel, Gap, Subscription
from asgi_sse.testing import connect, serve


def texts(subscription: Subscription) -> list[str]:
    """
    Return the data of all that is pending now; of an event without, its ID.
    """
    found: list[str] = []
    while (event := subscription.next_nowait()) is not None:
        found.append(event.data if event.data is not None else f"#{event.id}")
    return found


def cursor(channel: Channel, position: int) -> str:
    return channel._fanout.log.id_at(position)


async def publish(channel: Channel, *items: Any, **options: Any) -> list[str]:
    return [await channel.publish(item, **options) for item in items]


# Publishing.


async def test_what_is_published_comes_in_order() -> None:
    channel = Channel()
    async with connect(EventStream(channel)) as stream:
        ids = await publish(channel, "one", {"two": 2}, ServerSentEvent("three", event="number"))
        events = await stream.take(3)

    assert events == [
        ServerSentEvent("one", id=ids[0]),
        ServerSentEvent('{"two":2}', id=ids[1]),
        ServerSentEvent("three", event="number", id=ids[2]),
    ]


async def test_event_type_and_id_can_be_given() -> None:
    channel = Channel()
    async with channel.subscribe() as subscription:
        assert await channel.publish("a", event="kind", id=7) == "7"
        assert await channel.publish(ServerSentEvent("b", event="old", id="x", retry=5)) == "x"
        assert await channel.publish(ServerSentEvent("c", id="old"), event="new", id="y") == "y"
        await anext(subscription)
        events = [await anext(subscription) for _ in range(3)]

    assert events == [
        ServerSentEvent("a", event="kind", id="7"),
        ServerSentEvent("b", event="old", id="x", retry=5),
        ServerSentEvent("c", event="new", id="y"),
    ]


async def test_an_event_is_encoded_once() -> None:
    channel = Channel()
    one, two = channel.subscribe(), channel.subscribe()
    for subscription in (one, two):
        subscription.attach(lambda: None)
        subscription.take()
    await publish(channel, "x")

    assert one.take()[1] is two.take()[1]


@pytest.mark.parametrize("item", [b"x", bytearray(b"x"), memoryview(b"x")])
async def test_bytes_are_refused(item: Any) -> None:
    with pytest.raises(TypeError, match="Did you forget to decode it"):
        await Channel().publish(item)


async def test_what_has_no_form_in_json_is_refused() -> None:
    channel = Channel()
    with pytest.raises(TypeError, match="has no form in JSON"):
        await channel.publish(object())

    assert channel.statistics().published == 0


@pytest.mark.parametrize(
    ("event_id", "error"),
    [
        ("", "must not be empty"),
        ("earliest", "asks for all that is kept"),
        ("kept", "must not be that of another event"),
        ("a\nb", "must be a single line"),
    ],
)
async def test_ids_that_cannot_be_are_refused(event_id: str, error: str) -> None:
    channel = Channel()
    await channel.publish("x", id="kept")
    with pytest.raises(ValueError, match=error):
        await channel.publish("y", id=event_id)

    assert channel.statistics().published == 1


async def test_an_id_of_the_channels_own_cannot_be_given() -> None:
    channel = Channel()
    event_id = await channel.publish("x")

    with pytest.raises(ValueError, match="must not look like one of the channel's own"):
        await channel.publish("y", id=event_id)


async def test_a_cancelled_publish_has_not_published() -> None:
    channel = Channel()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await channel.publish("x")

    assert channel.statistics().published == 0


async def test_publishing_lets_others_have_their_turn() -> None:
    channel = Channel(history=5)
    async with connect(EventStream(channel)) as stream:
        # Ten times as many as it keeps.
        await publish(channel, *range(50))
        events = await stream.take(50)

    assert [event.data for event in events] == [str(n) for n in range(50)]


@pytest.mark.real_time
async def test_publishing_from_threads() -> None:
    async with Channel() as channel:
        subscription = channel.subscribe(cursor(channel, 0))
        ids: list[str] = []

        def work(number: int) -> None:
            ids.extend(channel.publish_from_thread(f"{number} {n}", id=None) for n in range(10))

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        got = [await anext(subscription) for _ in range(40)]
        for thread in threads:
            thread.join()

    assert sorted(ids) == sorted(str(event.id) for event in got)
    for number in range(4):
        mine = [str(event.data) for event in got if str(event.data).startswith(f"{number} ")]
        assert mine == [f"{number} {n}" for n in range(10)]


@pytest.mark.real_time
async def test_publishing_from_a_worker_thread_of_anyio() -> None:
    channel = Channel()
    event_id = await anyio.to_thread.run_sync(channel.publish_from_thread, "x")

    assert event_id == cursor(channel, 1)


def test_publishing_from_any_thread_needs_an_event_loop() -> None:
    with pytest.raises(RuntimeError):
        Channel().publish_from_thread("x")


# Replay.


async def test_a_new_client_has_an_id_before_any_event() -> None:
    channel = Channel()
    await publish(channel, "before")
    async with connect(EventStream(channel)) as stream:
        await anyio.sleep(1)

        assert stream.events == []
        assert stream.last_event_id == cursor(channel, 1)

        stream.disconnect()
        await publish(channel, "meanwhile")
        await stream.reconnect()
        assert (await stream.next_event()).data == "meanwhile"


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    channel = Channel()
    async with connect(EventStream(channel)) as stream:
        await publish(channel, "1", "2")
        await stream.take(2)
        stream.disconnect()
        await publish(channel, "3", "4")
        await stream.reconnect()
        await publish(channel, "5")

        assert [event.data for event in await stream.take(3)] == ["3", "4", "5"]


async def test_from_every_id_exactly_the_rest_comes() -> None:
    channel = Channel()
    ids = [cursor(channel, 0), *await publish(channel, *"abcdef")]

    for number, event_id in enumerate(ids):
        assert texts(channel.subscribe(event_id)) == list("abcdef"[number:])


async def test_from_given_ids_exactly_the_rest_comes() -> None:
    channel = Channel()
    for name in "abc":
        await channel.publish(name, id=name)

    assert texts(channel.subscribe("b")) == ["c"]


async def test_earliest_is_all_that_is_kept() -> None:
    channel = Channel(history=2)
    await publish(channel, "1", "2", "3")

    assert texts(channel.subscribe("earliest")) == [f"#{cursor(channel, 1)}", "2", "3"]


async def test_earliest_can_be_asked_for_in_the_query() -> None:
    channel = Channel()
    await publish(channel, "1", "2")
    async with connect(EventStream(channel), "/?lastEventId=earliest") as stream:
        assert [event.data for event in await stream.take(2)] == ["1", "2"]


@pytest.mark.parametrize("last_event_id", [None, ""])
async def test_without_an_id_what_follows_comes(last_event_id: str | None) -> None:
    channel = Channel()
    await publish(channel, "1")
    subscription = channel.subscribe(last_event_id)
    await publish(channel, "2")

    assert texts(subscription) == [f"#{cursor(channel, 1)}", "2"]


# What is gone.


@pytest.mark.parametrize(
    "last_event_id", ["nonsense", "old-1", "\ud800", "x" * 5000, "\U0001f4a3"]
)
async def test_an_unknown_id_is_told(last_event_id: str) -> None:
    channel = Channel()
    ids = await publish(channel, "1", "2")
    subscription = channel.subscribe(last_event_id)
    reset = await anext(subscription)

    assert reset.event == "reset"
    assert reset.id == cursor(channel, 0)
    assert json.loads(reset.data or "") == {
        "requested": last_event_id[:200].replace("\ud800", "?"),
        "oldest": ids[0],
        "latest": ids[1],
    }
    assert texts(subscription) == ["1", "2"]


async def test_an_id_from_before_a_restart_is_told() -> None:
    before, after = Channel(), Channel()
    last = (await publish(before, "a", "b"))[-1]
    await publish(after, "c", "d", "e")
    async with connect(EventStream(after), last_event_id=last) as stream:
        events = await stream.take(4)

    assert [event.event for event in events] == ["reset", None, None, None]
    assert [event.data for event in events][1:] == ["c", "d", "e"]


async def test_an_evicted_id_is_told_and_the_one_before_the_oldest_is_none() -> None:
    channel = Channel(history=2)
    ids = await publish(channel, "1", "2", "3", "4")

    assert texts(channel.subscribe(ids[1])) == ["3", "4"]
    assert (await anext(channel.subscribe(ids[0]))).event == "reset"


async def test_an_aged_id_is_told() -> None:
    channel = Channel(max_age=10)
    [first] = await publish(channel, "1")
    await anyio.sleep(5)
    [second] = await publish(channel, "2")
    await anyio.sleep(5)

    assert texts(channel.subscribe(first)) == ["2"]
    await anyio.sleep(5)
    assert texts(channel.subscribe(second)) == []
    reset = await anext(channel.subscribe("gone"))
    assert json.loads(reset.data or "") == {"requested": "gone", "oldest": None, "latest": None}


async def test_a_client_goes_on_from_a_reset() -> None:
    channel = Channel(history=2)
    await publish(channel, "1", "2", "3")
    reset = await anext(channel.subscribe("unknown"))

    assert texts(channel.subscribe(reset.id)) == ["2", "3"]


async def test_the_reset_can_have_another_name() -> None:
    channel = Channel(on_gap="begin-anew")

    assert (await anext(channel.subscribe("unknown"))).event == "begin-anew"


async def test_the_reset_can_be_left_out() -> None:
    channel = Channel(on_gap=None)
    await publish(channel, "1")

    assert texts(channel.subscribe("unknown")) == [f"#{cursor(channel, 0)}", "1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("state", ["state"]),
        ({"a": 1}, ['{"a":1}']),
        (["one", "two"], ["one", "two"]),
        (("one", {"b": 2}), ["one", '{"b":2}']),
        (ServerSentEvent("three", id="taken-off"), ["three"]),
    ],
    ids=["nothing", "text", "object", "list", "iterator", "event"],
)
async def test_a_hook_may_give_a_snapshot(given: Any, expected: list[str]) -> None:
    gaps: list[Gap] = []

    def hook(gap: Gap) -> Any:
        gaps.append(gap)
        return iter(given) if isinstance(given, tuple) else given

    channel = Channel(on_gap=hook)
    [event_id] = await publish(channel, "1")
    subscription = channel.subscribe("unknown")

    assert texts(subscription) == [*expected, f"#{cursor(channel, 0)}", "1"]
    assert gaps == [Gap("unknown", event_id, event_id)]


async def test_only_a_whole_snapshot_counts_as_seen() -> None:
    channel = Channel(on_gap=lambda gap: [ServerSentEvent("a", id="1"), "b"])
    subscription = channel.subscribe("unknown")
    ids = [(await anext(subscription)).id for _ in range(3)]

    assert ids == [None, None, cursor(channel, 0)]


# Slow subscribers.


async def test_a_subscriber_may_lag_by_all_that_is_kept() -> None:
    channel = Channel(history=10)
    subscription = channel.subscribe(cursor(channel, 0))
    await publish(channel, *range(10))

    assert channel.statistics().largest_lag == 10
    assert texts(subscription) == [str(n) for n in range(10)]


async def test_close_ends_the_stream_and_the_client_comes_back_for_the_rest() -> None:
    channel = Channel(history=3)
    async with connect(EventStream(channel, send_timeout=None)) as stream:
        await publish(channel, "1")
        await stream.take(1)
        stream.stall()
        await publish(channel, "2")
        await stream.wait_blocked()
        await publish(channel, "3", "4", "5", "6")
        stream.resume()
        assert [event.data async for event in stream] == ["2"]
        assert stream.complete

        await stream.reconnect()
        events = await stream.take(4)

    assert [event.event for event in events] == ["reset", None, None, None]
    assert json.loads(events[0].data or "")["requested"] == cursor(channel, 2)
    assert [event.data for event in events][1:] == ["4", "5", "6"]
    assert channel.statistics().closed_for_lag == 1
    assert channel.statistics().dropped == 0


async def test_skip_goes_on_with_the_oldest_that_is_kept() -> None:
    channel = Channel(history=3, overflow="skip")
    async with connect(EventStream(channel, send_timeout=None)) as stream:
        await publish(channel, "1")
        await stream.take(1)
        stream.stall()
        await publish(channel, "2")
        await stream.wait_blocked()
        await publish(channel, "3", "4", "5", "6")
        stream.resume()
        events = await stream.take(5)

    assert [event.data for event in events if event.event is None] == ["2", "4", "5", "6"]
    assert [event.event for event in events] == [None, "reset", None, None, None]
    assert json.loads(events[1].data or "")["requested"] == cursor(channel, 2)
    assert channel.statistics().dropped == 1
    assert channel.statistics().closed_for_lag == 0


async def test_latest_is_of_each_key() -> None:
    channel = Channel(history=3, overflow="latest", key=lambda item: item["name"])
    subscription = channel.subscribe(cursor(channel, 0))
    for price in range(100):
        for name in ("gold", "tin"):
            await channel.publish({"name": name, "price": price})
    await channel.publish("heading", key="heading")

    assert texts(subscription) == [
        '{"name":"gold","price":99}',
        '{"name":"tin","price":99}',
        "heading",
    ]
    assert channel.statistics().dropped == 0


async def test_latest_tells_of_keys_that_are_too_many() -> None:
    channel = Channel(history=2, overflow="latest")
    subscription = channel.subscribe(cursor(channel, 0))
    for key in "abc":
        await channel.publish(key, key=key)

    assert (await anext(subscription)).event == "reset"
    assert texts(subscription) == ["b", "c"]


async def test_an_iterating_subscriber_that_falls_behind_comes_to_an_end() -> None:
    channel = Channel(history=2)
    subscription = channel.subscribe(cursor(channel, 0))
    await publish(channel, "1", "2", "3")

    assert [event async for event in subscription] == []
    assert channel.statistics().subscribers == 0


async def test_a_backlog_comes_in_chunks() -> None:
    channel = Channel()
    subscription = channel.subscribe(cursor(channel, 0))
    subscription.attach(lambda: None)
    for _ in range(10):
        channel.publish_nowait("x" * 100_000)

    counts = []
    while (taken := subscription.take())[0]:
        counts.append(taken[0])
        assert len(taken[1]) < 300_000
    assert counts == [2, 2, 2, 2, 2]


async def test_one_that_does_not_read_does_not_hold_the_others() -> None:
    channel = Channel(history=10)
    async with (
        serve(EventStream(channel, send_timeout=None)) as server,
        server.connect() as stalled,
        server.connect() as reading,
    ):
        stalled.stall()
        await publish(channel, *range(100))
        events = await reading.take(100)
        statistics = channel.statistics()
        stalled.resume()

    assert [event.data for event in events] == [str(n) for n in range(100)]
    assert statistics.largest_lag >= 90
    assert statistics.position - statistics.oldest == 10


async def test_what_is_published_in_one_go_is_sent_in_one_go() -> None:
    channel = Channel()
    async with connect(EventStream(channel)) as stream:
        await stream.wait_chunks(1)
        for _ in range(4):
            await publish(channel, *range(20))
            await stream.take(20)

    assert len(stream.chunks) == 1 + 4


async def test_a_publisher_that_does_nothing_else_leaves_nobody_behind() -> None:
    channel = Channel(history=3)
    async with connect(EventStream(channel)) as stream:
        await stream.wait_chunks(1)
        await publish(channel, *range(100))
        events = await stream.take(100)

    assert [event.data for event in events] == [str(n) for n in range(100)]
    assert channel.statistics().dropped == 0


async def test_only_those_that_wait_are_called() -> None:
    channel = Channel()
    calls: list[str] = []
    waiting, lagging = channel.subscribe(), channel.subscribe()
    waiting.attach(lambda: calls.append("waiting"))
    lagging.attach(lambda: calls.append("lagging"))
    while waiting.take()[1]:
        pass
    channel.publish_nowait("1")
    channel.publish_nowait("2")

    assert calls == ["waiting"]


# The end.


async def test_closing_lets_all_take_what_there_is() -> None:
    channel = Channel()
    async with connect(EventStream(channel)) as stream:
        channel.publish_nowait("1")
        channel.publish_nowait("2")
        await channel.aclose()

        assert [event.data async for event in stream] == ["1", "2"]
        assert stream.complete


async def test_a_closed_channel_takes_nothing_more() -> None:
    async with Channel() as channel:
        await publish(channel, "1")
    await channel.aclose()

    with pytest.raises(ClosedResourceError):
        await channel.publish("2")
    assert [event.data async for event in channel.subscribe("earliest")] == [None, "1"]


async def test_closing_wakes_who_iterates() -> None:
    channel = Channel()
    subscription = channel.subscribe(cursor(channel, 0))
    got: list[ServerSentEvent] = []

    async def iterate() -> None:
        got.extend([event async for event in subscription])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(iterate)
        await anyio.sleep(1)
        await channel.aclose()

    assert got == []


async def test_closing_a_subscription_wakes_who_iterates() -> None:
    channel = Channel()
    subscription = channel.subscribe(cursor(channel, 0))

    async def iterate() -> None:
        async for _ in subscription:
            pytest.fail("nothing was published")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(iterate)
        await anyio.sleep(1)
        await subscription.aclose()
    await subscription.aclose()

    assert channel.statistics().subscribers == 0


async def test_what_is_published_wakes_who_iterates() -> None:
    channel = Channel()
    got: list[tuple[float, str | None]] = []
    start = anyio.current_time()

    async def iterate() -> None:
        async with channel.subscribe() as subscription:
            async for event in subscription:
                got.append((round(anyio.current_time() - start), event.data))
                if event.data == "2":
                    break

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(iterate)
        await anyio.sleep(3)
        await publish(channel, "1")
        await anyio.sleep(4)
        await publish(channel, "2")

    assert got == [(0, None), (3, "1"), (7, "2")]
    assert channel.statistics().subscribers == 0


async def test_a_cancelled_wait_loses_nothing() -> None:
    channel = Channel()
    subscription = channel.subscribe(cursor(channel, 0))
    with anyio.move_on_after(1) as scope:
        await anext(subscription)
    assert scope.cancelled_caught
    await publish(channel, "1")

    assert (await anext(subscription)).data == "1"


async def test_a_forgotten_subscription_is_none() -> None:
    channel = Channel()
    channel.subscribe()
    gc.collect()

    assert channel.statistics().subscribers == 0


async def test_a_subscription_goes_with_its_response() -> None:
    subscriptions: list[weakref.ref[Subscription]] = []

    class Watched(Channel):
        def subscribe(self, last_event_id: str | None = None) -> Subscription:
            subscription = super().subscribe(last_event_id)
            subscriptions.append(weakref.ref(subscription))
            return subscription

    # Not only once the garbage collector comes.
    gc.disable()
    try:
        async with connect(EventStream(Watched())) as stream:
            await anyio.sleep(1)
            stream.disconnect()
            await stream.wait_closed()
        assert subscriptions[0]() is None
    finally:
        gc.enable()


async def test_a_response_that_ends_leaves_nothing_behind() -> None:
    channel = Channel()
    async with connect(EventStream(channel)):
        await anyio.sleep(1)
        assert channel.statistics().subscribers == 1
        assert len(channel._fanout.waiting) == 1

    assert channel.statistics().subscribers == 0
    assert not channel._fanout.waiting


async def test_statistics() -> None:
    channel = Channel(history=2)
    await publish(channel, "1", "2", "3")
    subscription = channel.subscribe(cursor(channel, 1))

    found = channel.statistics()
    assert found == type(found)(
        subscribers=1,
        position=3,
        oldest=1,
        largest_lag=2,
        published=3,
        dropped=0,
        closed_for_lag=0,
    )
    await subscription.aclose()


# Options.


@dataclass
class Wrong:
    options: dict[str, Any]
    error: type[Exception]
    message: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"history": 0}, ValueError, r"history must be at least 1 event \(got 0\)"),
        Wrong({"history": True}, TypeError, r"history must be an int \(got True\)"),
        Wrong({"history": 1.5}, TypeError, r"history must be an int \(got 1.5\)"),
        Wrong({"max_age": 0}, ValueError, "max_age must be more than 0 seconds"),
        Wrong({"max_age": float("nan")}, ValueError, "max_age must be more than 0 seconds"),
        Wrong({"overflow": "drop"}, ValueError, "overflow must be 'close', 'skip' or 'latest'"),
        Wrong({"key": len}, ValueError, "key is for overflow='latest'"),
        Wrong({"on_gap": 3}, TypeError, "on_gap must be an event type or a function"),
        Wrong({"on_gap": "a\nb"}, ValueError, "event must be a single line"),
    ],
    ids=lambda wrong: str(wrong.options),
)
def test_wrong_options_are_refused(wrong: Wrong) -> None:
    with pytest.raises(wrong.error, match=wrong.message):
        Channel(**wrong.options)


# No gap, no double, whatever happens meanwhile.

steps = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["publish", "take", "drop"])), max_size=60
)


@pytest.mark.parametrize("overflow", ["close", "skip"])
@given(steps, st.integers(1, 5))
@settings(max_examples=200)
async def test_every_client_sees_all_once_or_is_told(
    overflow: Any, steps: list[tuple[int, str]], history: int
) -> None:
    """
    Clients take, lose what was on the way, and come back with the ID that they saw last.
    """
    channel = Channel(history=history, overflow=overflow)
    clients: list[Any] = [channel.subscribe() for _ in range(4)]
    last_ids: list[str | None] = [None] * 4
    seen: list[list[int]] = [[] for _ in range(4)]
    for client in clients:
        await read(client)
    published = 0

    async def take(who: int) -> None:
        for event in await read(clients[who]):
            last_ids[who] = event.id
            if event.event == "reset":
                seen[who].append(-1)
            elif event.data is not None:
                seen[who].append(int(event.data))

    for who, step in steps:
        if step == "publish":
            published += 1
            channel.publish_nowait(published)
        elif step == "drop" or clients[who].over:
            # What it has taken since is lost with its connection.
            await clients[who].aclose()
            clients[who] = channel.subscribe(last_ids[who] or cursor(channel, 0))
        else:
            await take(who)

    for who in range(4):
        await take(who)
        if clients[who].over:
            clients[who] = channel.subscribe(last_ids[who] or cursor(channel, 0))
            await take(who)
        expected = 1
        for number in seen[who]:
            if number == -1:
                # It was told, so any later number will do, but none that it has seen.
                expected = -expected if expected > 0 else expected
            elif expected < 0:
                assert number >= -expected
                expected = number + 1
            else:
                assert number == expected
                expected += 1
        if published and expected > 0:
            assert expected == published + 1


async def read(subscription: Subscription) -> list[ServerSentEvent]:
    events = []
    while (event := subscription.next_nowait()) is not None:
        events.append(event)
    return events
