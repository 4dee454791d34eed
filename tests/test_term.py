from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from asgi import count_tasks
from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse._options import Closed
from asgi_sse._runtime import current_runtime
from asgi_sse._term import Term
from asgi_sse.testing import Stream, connect

BYE = ServerSentEvent("bye")


class Wall:
    """
    The clock on the wall: that of the event loop, set forward or back.
    """

    def __init__(self) -> None:
        self.ahead = 1_000_000.0

    def time(self) -> float:
        return anyio.current_time() + self.ahead


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr("asgi_sse._term.time", wall)
    return wall


async def watch(source: Any, **options: Any) -> tuple[Stream, Closed]:
    """
    Return what a client has got of a stream when it is over, and what ``on_close``.
    """
    ends: list[Closed] = []
    app = EventStream(source, on_close=ends.append, farewell=BYE, keep_alive=None, **options)
    before = await count_tasks()
    async with connect(app, timeout=None) as stream:
        await stream.wait_closed()

    assert stream.problems == []
    assert await count_tasks() == before
    [closed] = ends
    return stream, closed


async def forever() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


async def test_a_stream_of_a_certain_age_ends_politely() -> None:
    stream, closed = await watch(forever, max_age=20)

    assert closed == Closed("max_age", 20, 1, 23, None)
    assert [event.data for event in stream.events] == ["a", "bye"]
    assert stream.complete


async def test_of_a_range_each_stream_draws_its_own_age() -> None:
    ages = [(await watch(forever, max_age=(100, 200)))[1].duration for _ in range(30)]

    assert len(set(ages)) == 30
    assert 100 <= min(ages) < 130
    assert 170 < max(ages) <= 200


async def test_a_stream_ends_when_it_expires(wall: Wall) -> None:
    async def source(request: Request) -> Any:
        request.expires_at = wall.time() + 100
        return forever()

    stream, closed = await watch(source)

    assert (closed.reason, closed.duration) == ("expired", 100)
    assert [event.data for event in stream.events] == ["a", "bye"]
    assert stream.complete


async def test_a_stream_that_has_expired_already_ends_at_once(wall: Wall) -> None:
    async def source(request: Request) -> Any:
        request.expires_at = wall.time() - 1
        return forever()

    stream, closed = await watch(source)

    assert (closed.reason, closed.duration) == ("expired", 0)
    assert stream.complete


@pytest.mark.parametrize(
    ("ahead", "duration"),
    [
        pytest.param(-50, 150, id="set-back"),
        # As after a night of sleep: noticed when the clock is looked at next.
        pytest.param(1000, 30, id="set-forward"),
    ],
)
async def test_the_clock_on_the_wall_may_be_set(wall: Wall, ahead: float, duration: float) -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        request.expires_at = wall.time() + 100
        yield "a"
        await anyio.sleep(10)
        wall.ahead += ahead
        await anyio.sleep_forever()

    _, closed = await watch(source)

    assert (closed.reason, closed.duration) == ("expired", duration)


@pytest.mark.parametrize(
    ("later", "reason", "duration"),
    [(50, "expired", 50), (300, "expired", 300), (None, "max_age", 1000)],
)
async def test_it_may_be_set_anew(
    wall: Wall, later: float | None, reason: str, duration: float
) -> None:
    start = wall.time()

    async def source(request: Request) -> AsyncIterator[str]:
        request.expires_at = start + 100
        yield "a"
        await anyio.sleep(10)
        request.expires_at = None if later is None else start + later
        await anyio.sleep_forever()

    _, closed = await watch(source, max_age=1000)

    assert (closed.reason, closed.duration) == (reason, duration)


async def test_nothing_is_set_on_a_stream_that_is_over() -> None:
    async def source(request: Request) -> AsyncIterator[str]:
        try:
            yield "a"
            await anyio.sleep_forever()
        finally:
            request.expires_at = 1e12

    _, closed = await watch(source, max_age=1)

    assert closed.reason == "max_age"

    async def late(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        yield "a"

    requests: list[Request] = []
    await watch(late)
    requests[0].expires_at = 1e12

    assert await count_tasks() > 0


async def test_what_is_discarded_never_comes() -> None:
    reasons: list[Any] = []
    term = Term(current_runtime(), reasons.append)
    term.limit_age(10)
    term.expire_at(0)
    term.discard()
    term.discard()
    await anyio.sleep(20)

    assert reasons == []
    assert len(current_runtime().ticker) == 0
