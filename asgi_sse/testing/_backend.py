"""
What a broker promises, whatever engine is behind it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
import anyio.lowlevel

from .._event import ServerSentEvent
from ..channels import Broker, BrokerError
from ..channels._merged import Merged
from ..channels._subscription import Subscription

__all__ = ["check_backend"]

# For an engine on a busy machine.
_TIMEOUT = 10.0

# All of Unicode, but for what no UTF-8 can hold and the ends of lines, in 18 texts.
_UNICODE = [
    "".join(map(chr, range(start, min(start + 0x10000, 0x110000))))
    for start in (0xE000, *range(0x10000, 0x110000, 0x10000))
] + ["".join(map(chr, range(0xD800))).replace("\r", "")]

_TEXTS = [
    "",
    "two\nlines",
    "\n",
    "a\0b",
    " leading",
    "data: x",
    "\u2028\x0b\x85",
    "\U0001f4a3",
    "x" * 1_000_000,
    *_UNICODE,
]

_NAMES = ["with space", "a/b", "a:b", "a.b", ".a..", "\u00e4" * 500, "x" * 1000, "?a=b&c=d", "%20"]
_BAD_NAMES = ["", "a\0b", "a\nb", "\x7f", "x" * 10_000, "\ud800", "a*", "a>b", "a.>.b"]

# What a client may send as its last event ID.
_GARBAGE = ["nonsense", "-", "1-", "-1", "\U0001f4a3", "9" * 4000, "0-0-0", " ", "\0", "\xff"]
_GARBAGE += ["x" * 10_000, "\r\nid: 1", "\ud800", "1-1 ", "\u0661-\u0661", "-1--1", "earliest "]


async def check_backend(make: Callable[[int], Broker]) -> None:
    """
    Check that channels on an engine keep the promises of this library.

    Each check makes channels with names of its own, so that the engine may hold others.

    Args:
        make: It is called with the *history*, and returns a broker that is not open yet.
            Those that it returns must share an engine.

    Raises:
        AssertionError: A promise is broken; the traceback shows which.
        TimeoutError: Something did not come in time.

    """
    for check in _CHECKS:
        with anyio.fail_after(_TIMEOUT * 3):
            await check(make)


async def _check_order(make: Callable[[int], Broker]) -> None:
    async with make(100) as broker, _subscribed(broker, "order") as (name, subscription):
        ids = [await broker.publish(name, number) for number in range(50)]
        events = await _take(subscription, 50)

    assert [event.data for event in events] == [str(number) for number in range(50)]
    assert [event.id for event in events] == ids
    assert len(set(ids)) == 50


async def _check_data(make: Callable[[int], Broker]) -> None:
    async with make(100) as broker, _subscribed(broker, "data") as (name, subscription):
        for text in _TEXTS:
            await broker.publish(name, text, event="kind")
        await broker.publish(name, ServerSentEvent(retry=7, comment="note"))
        await broker.publish(name, {"a": [1]})
        events = await _take(subscription, len(_TEXTS) + 2)

    assert [event.data for event in events[: len(_TEXTS)]] == _TEXTS
    assert {event.event for event in events[: len(_TEXTS)]} == {"kind"}
    assert (events[-2].retry, events[-2].comment, events[-2].data) == (7, "note", None)
    assert events[-1].data == '{"a":[1]}'


async def _check_replay(make: Callable[[int], Broker]) -> None:
    name = _name("replay")
    async with make(100) as broker:
        ids = [await broker.publish(name, number) for number in range(5)]
        for number, event_id in enumerate(ids[:-1]):
            async with broker.subscribe(name, last_event_id=event_id) as subscription:
                events = await _take(subscription, 4 - number)
                assert [event.id for event in events] == ids[number + 1 :]
        # Nothing follows, and that is no reason for a reset.
        async with broker.subscribe(name, last_event_id=ids[-1]) as subscription:
            later = await broker.publish(name, "later")
            assert [event.id for event in await _take(subscription, 1)] == [later]
        async with broker.subscribe(name, last_event_id="earliest") as subscription:
            events = await _take(subscription, 7)
            assert events[0].data is None
            assert [event.id for event in events[1:]] == [*ids, later]


async def _check_new_client_has_an_id(make: Callable[[int], Broker]) -> None:
    async with make(100) as broker:
        name = _name("new")
        for before in (0, 3):
            for _ in range(before):
                await broker.publish(name, "before")
            async with broker.subscribe(name) as subscription:
                [first] = await _take(subscription, 1)
                assert first.id
                assert first.data is None
            missed = await broker.publish(name, "meanwhile")
            async with broker.subscribe(name, last_event_id=first.id) as subscription:
                [event] = await _take(subscription, 1)
                # A reader may be a moment behind its engine.
                while event.id != missed:
                    assert event.data == "before"
                    [event] = await _take(subscription, 1)


async def _check_eviction(make: Callable[[int], Broker]) -> None:
    name = _name("eviction")
    async with make(10) as broker:
        ids = [await broker.publish(name, number) for number in range(1000)]
        async with broker.subscribe(name, last_event_id=ids[0]) as subscription:
            events = await _take(subscription, 11)
        # The event before the oldest may be known or not, but after none of those that
        # are kept anything is missing.
        async with broker.subscribe(name, last_event_id=ids[-10]) as subscription:
            rest = await _take(subscription, 9)

    _assert_reset(events[0], ids[0])
    assert [event.id for event in events[1:]] == ids[-10:]
    assert [event.id for event in rest] == ids[-9:]


async def _check_unknown_ids(make: Callable[[int], Broker]) -> None:
    name = _name("unknown")
    async with make(10) as broker:
        event_id = await broker.publish(name, "x")
        for unknown in _GARBAGE:
            async with broker.subscribe(name, last_event_id=unknown) as subscription:
                events = await _take(subscription, 2)
            _assert_reset(events[0], unknown)
            assert events[1].id == event_id


async def _check_ids_from_the_future(make: Callable[[int], Broker]) -> None:
    # From an engine that has lost its data, or one whose clock was ahead.
    name = _name("future")
    async with make(10) as broker:
        event_id = await broker.publish(name, "x")
        head, dash, tail = event_id.rpartition("-")
        if head.isdigit():
            # Milliseconds and a number.
            head = str(int(head) + 10_000_000)
        ahead = f"{head}{dash}{int(tail) + 10_000}"
        async with broker.subscribe(name, last_event_id=ahead) as subscription:
            events = await _take(subscription, 2)
        _assert_reset(events[0], ahead)
        assert events[1].id == event_id


async def _check_large_events(make: Callable[[int], Broker]) -> None:
    # More than that may be refused, in words; what follows comes all the same.
    async with make(10) as broker, _subscribed(broker, "large") as (name, subscription):
        for size in (900_000, 10_000_000):
            refused = None
            try:
                await broker.publish(name, "x" * size)
            except BrokerError as exc:
                refused = exc
            assert not refused or (size > 1_000_000 and str(refused))
            await broker.publish(name, "after")
            expected = ["after"] if refused else ["x" * size, "after"]
            assert [event.data for event in await _take(subscription, len(expected))] == expected


async def _check_names(make: Callable[[int], Broker]) -> None:
    async with make(10) as broker:
        for name in _BAD_NAMES:
            for use in (broker.channel, broker.subscribe):
                accepted: object = None
                with suppress(ValueError):
                    accepted = use(name)
                assert accepted is None


async def _check_wildcards(make: Callable[[int], Broker]) -> None:
    prefix = secrets.token_hex(4)
    names = [f"{prefix}.a", f"{prefix}.a.b", f"{prefix}.c d", prefix, f"{prefix}..a"]
    async with make(20) as broker:
        try:
            broker.channel(f"{prefix}.*")
        except ValueError:
            # The engine has none.
            return
        for pattern, meant in ((f"{prefix}.*", "02"), (f"{prefix}.>", "012")):
            ids: list[tuple[str, bool]] = []
            async with broker.subscribe(pattern) as subscription:
                await _take(subscription, 1)
                for number in range(10):
                    event_id = await broker.publish(names[number % 5], number)
                    ids.append((event_id, str(number % 5) in meant))
                expected = [event_id for event_id, wanted in ids if wanted]
                events = await _take(subscription, len(expected))
                assert [event.id for event in events] == expected
            # The ID of any event is a place in all channels, whichever it is from.
            for number, (last, _) in enumerate(ids[:]):
                expected = [event_id for event_id, wanted in ids[number + 1 :] if wanted]
                async with broker.subscribe(pattern, last_event_id=last) as subscription:
                    expected.append(await broker.publish(names[0], "later"))
                    events = await _take(subscription, len(expected))
                assert [event.id for event in events] == expected
                ids.append((expected[-1], True))


async def _check_many_channels(make: Callable[[int], Broker]) -> None:
    names = [_name(name) for name in _NAMES]
    async with make(10) as broker:
        for name in names:
            await broker.publish(name, name)
        for name in names:
            async with broker.subscribe(name, last_event_id="earliest") as subscription:
                events = await _take(subscription, 2)
            assert events[1].data == name


async def _check_many_channels_in_one_stream(make: Callable[[int], Broker]) -> None:
    one, two = _name("one & only"), _name("two")
    async with make(10) as broker:
        await broker.publish(one, "before")
        async with broker.subscribe(one, two) as subscription:
            [first] = await _take(subscription, 1)
            await broker.publish(two, "b")
            events = await _take(subscription, 1)
        await broker.publish(one, "a")
        await broker.publish(two, "c")
        for last, expected in ((first, {"a", "b", "c"}), (events[0], {"a", "c"})):
            async with broker.subscribe(one, two, last_event_id=last.id) as subscription:
                more = await _take(subscription, len(expected) + 1)
            assert first.data is None
            assert {event.data for event in more[1:]} == expected
        async with broker.subscribe(one, two, last_event_id="nonsense") as subscription:
            more = await _take(subscription, 7)
        assert [event.event for event in more].count("reset") == 2


async def _check_races(make: Callable[[int], Broker]) -> None:
    """
    Subscribe at every moment of a busy channel, and come back from each.
    """
    name = _name("races")
    published: list[str] = []
    seen: list[list[str]] = []

    async with make(1000) as broker, make(1000) as elsewhere:

        async def publish() -> None:
            for number in range(200):
                published.append(await elsewhere.publish(name, number))
                await anyio.lowlevel.checkpoint()

        async def follow(count: int) -> None:
            """
            Read so many events at a time, each time on a connection of its own.
            """
            ids: list[str] = []
            last = "earliest"
            while len(ids) < 200:
                async with broker.subscribe(name, last_event_id=last) as subscription:
                    for _ in range(count):
                        if len(ids) == 200:
                            break
                        [event] = await _take(subscription, 1)
                        assert event.event is None
                        assert event.id is not None
                        last = event.id
                        if event.data is not None:
                            ids.append(event.id)
            seen.append(ids)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            for count in (1, 2, 3, 7, 50, 1000):
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(follow, count)

    for ids in seen:
        assert ids == published


async def _check_every_moment(make: Callable[[int], Broker]) -> None:
    """
    Come with each ID at each moment, to a reader that runs and to one that begins.
    """
    name = _name("moments")
    ids: list[str] = []
    seen: list[tuple[int, list[str | None]]] = []
    count = 12

    async def follow(broker: Broker, start: int) -> None:
        last = ids[start - 1] if start else "earliest"
        async with broker.subscribe(name, last_event_id=last) as subscription:
            # All that is kept begins with a place.
            events = await _take(subscription, count - start + (not start))
        seen.append((start, [event.id for event in events][not start :]))

    async with AsyncExitStack() as brokers:
        # A reader begins with the first subscription of its broker.
        elsewhere, reading, *others = [
            await brokers.enter_async_context(make(100)) for _ in range(count + 2)
        ]
        await _take(reading.subscribe(name), 1)
        async with anyio.create_task_group() as tasks:
            for number, beginning in enumerate(others):
                for start in range(number + 1):
                    tasks.start_soon(follow, reading, start)
                    tasks.start_soon(follow, beginning, start)
                for _ in range(number % 4):
                    await anyio.lowlevel.checkpoint()
                ids.append(await elsewhere.publish(name, number))

    assert len(seen) == count * (count + 1)
    for start, got in seen:
        assert got == ids[start:]


async def _check_brokers_share_the_engine(make: Callable[[int], Broker]) -> None:
    name = _name("shared")
    async with make(10) as one, make(10) as two:
        async with one.subscribe(name) as subscription:
            await _take(subscription, 1)
            event_id = await two.publish(name, "x")
            assert [event.id for event in await _take(subscription, 1)] == [event_id]
        async with two.subscribe(name, last_event_id="earliest") as subscription:
            assert [event.id for event in await _take(subscription, 2)][1] == event_id


async def _check_closed(make: Callable[[int], Broker]) -> None:
    broker = make(10)

    async def publishes() -> bool:
        try:
            await broker.publish(_name("closed"), "x")
        except BrokerError:
            return False
        return True

    assert not await publishes()
    async with broker:
        assert await publishes()
    assert not await publishes()


_CHECKS = [
    _check_order,
    _check_data,
    _check_replay,
    _check_new_client_has_an_id,
    _check_eviction,
    _check_large_events,
    _check_names,
    _check_wildcards,
    _check_unknown_ids,
    _check_ids_from_the_future,
    _check_many_channels,
    _check_many_channels_in_one_stream,
    _check_races,
    _check_every_moment,
    _check_brokers_share_the_engine,
    _check_closed,
]


def _name(what: str) -> str:
    return f"{what} {secrets.token_hex(4)}"


@asynccontextmanager
async def _subscribed(
    broker: Broker, what: str
) -> AsyncIterator[tuple[str, Subscription | Merged]]:
    """
    Yield a name and a place in that channel that is held.
    """
    name = _name(what)
    async with broker.subscribe(name) as subscription:
        [first] = await _take(subscription, 1)
        assert first.data is None
        yield name, subscription


async def _take(subscription: Subscription | Merged, count: int) -> list[ServerSentEvent]:
    with anyio.fail_after(_TIMEOUT):
        return [await anext(subscription) for _ in range(count)]


def _assert_reset(event: ServerSentEvent, requested: str) -> None:
    assert event.event == "reset"
    assert json.loads(event.data or "")["requested"] == (
        requested[:200].encode("utf-8", "replace").decode()
    )
