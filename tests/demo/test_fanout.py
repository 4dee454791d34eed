from collections.abc import AsyncIterator

import anyio
import pytest

from asgi_sse import ServerSentEvent
from asgi_sse._demo.fanout import Fanout


def make_fanout(events: int = 3, size: int = 10_000) -> Fanout:
    return Fanout(lambda id: int(id) if id.isdecimal() else None, events=events, size=size)


def event(id: int) -> ServerSentEvent:
    return ServerSentEvent(f"data {id}", id=id)


async def read(client: AsyncIterator[ServerSentEvent]) -> list[str | None]:
    """
    Return the IDs of the events that are there, or else their comments.
    """
    seen: list[str | None] = []
    with anyio.move_on_after(1):
        while True:
            event = await anext(client)
            seen.append(event.id or event.comment)
    return seen


async def test_new_client_gets_what_is_kept() -> None:
    fanout = make_fanout()
    fanout.publish(*map(event, range(1, 6)))

    assert await read(fanout.follow(None)) == ["3", "4", "5"]


@pytest.mark.parametrize(
    ("last_event_id", "expected"),
    [
        pytest.param("4", ["5"], id="kept"),
        pytest.param("5", [], id="the-newest"),
        pytest.param("1", ["3", "4", "5"], id="no-longer-kept"),
        pytest.param("99", [], id="of-the-future"),
        pytest.param("elsewhere", ["3", "4", "5"], id="of-another-source"),
    ],
)
async def test_reconnected_client_goes_on_after_its_last_event(
    last_event_id: str, expected: list[str]
) -> None:
    fanout = make_fanout()
    fanout.publish(*map(event, range(1, 6)))

    assert await read(fanout.follow(last_event_id)) == expected


async def test_event_without_id_is_passed_over_when_looking_for_the_last() -> None:
    fanout = make_fanout()
    fanout.publish(event(1), ServerSentEvent(comment="the end"))

    assert await read(fanout.follow("1")) == ["the end"]


async def test_every_client_gets_what_comes() -> None:
    fanout = make_fanout()
    seen: list[list[str | None]] = []

    async def client() -> None:
        seen.append(await read(fanout.follow(None)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(client)
        for id in range(5):
            # Everyone is waiting when the next one comes.
            await anyio.sleep(0.1)
            fanout.publish(event(id))

    assert seen == [["0", "1", "2", "3", "4"]] * 3


async def test_slow_client_is_told_what_it_lost() -> None:
    fanout = make_fanout()
    fanout.publish(event(1))
    client = fanout.follow(None)

    assert (await anext(client)).id == "1"

    fanout.publish(*map(event, range(2, 10)))

    assert await read(client) == ["5 events were lost: the client is too slow", "7", "8", "9"]


async def test_history_is_bounded_in_bytes() -> None:
    fanout = make_fanout(events=100, size=3 * len(event(1).encode()))
    fanout.publish(*map(event, range(1, 10)))

    assert await read(fanout.follow(None)) == ["7", "8", "9"]


async def test_newest_event_is_kept_whatever_its_size() -> None:
    fanout = make_fanout(size=10)
    fanout.publish(event(1), event(2))

    assert await read(fanout.follow(None)) == ["2"]
