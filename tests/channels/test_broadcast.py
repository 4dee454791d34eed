"""
One source for all clients.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio import get_cancelled_exc_class

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse.channels import broadcast
from asgi_sse.testing import connect, serve


class Upstream:
    """
    Ticks each second, and keeps a diary of when it began and ended.
    """

    def __init__(self) -> None:
        self.diary: list[tuple[str, float]] = []
        self.start = anyio.current_time()

    def note(self, what: str) -> None:
        self.diary.append((what, round(anyio.current_time() - self.start, 1)))

    async def __call__(self) -> AsyncIterator[str]:
        self.note("began")
        try:
            for number in range(1, 1000):
                await anyio.sleep(1)
                yield f"{number}"
        finally:
            await anyio.sleep(0.5)
            self.note("ended")


async def test_it_runs_once_for_all_clients() -> None:
    upstream = Upstream()
    shared = broadcast(upstream)
    async with (
        serve(EventStream(shared)) as server,
        server.connect() as one,
        server.connect() as two,
    ):
        assert [event.data for event in await one.take(3)] == ["1", "2", "3"]
        assert [event.data for event in await two.take(3)] == ["1", "2", "3"]
        assert [event.id for event in one.events] == [event.id for event in two.events]
        assert shared.statistics().subscribers == 2
    assert upstream.diary == [("began", 0)]


async def test_nothing_runs_before_the_first_client() -> None:
    upstream = Upstream()
    broadcast(upstream)
    await anyio.sleep(10)

    assert upstream.diary == []


async def test_it_lingers_after_the_last_client_and_then_ends() -> None:
    upstream = Upstream()
    app = EventStream(broadcast(upstream, linger=5))
    async with serve(app) as server:
        async with server.connect() as stream:
            await stream.next_event()
        await anyio.sleep(4)
        assert upstream.diary == [("began", 0)]
        async with server.connect("/?lastEventId=earliest") as stream:
            # It went on meanwhile.
            assert [event.data for event in await stream.take(5)][-1] == "5"
        await anyio.sleep(10)
        assert upstream.diary == [("began", 0), ("ended", 10.5)]

        async with server.connect() as stream:
            assert (await stream.next_event()).data == "1"
        assert upstream.diary[2][0] == "began"


async def test_without_linger_it_ends_with_the_last_client() -> None:
    upstream = Upstream()
    app = EventStream(broadcast(upstream, linger=0))
    async with serve(app) as server:
        async with server.connect() as stream:
            await stream.next_event()
        await anyio.sleep(1)

    assert upstream.diary == [("began", 0), ("ended", 1.5)]


async def test_who_comes_during_the_cleanup_gets_it_anew() -> None:
    upstream = Upstream()
    shared = broadcast(upstream, linger=0)
    async with serve(EventStream(shared)) as server:
        async with server.connect() as stream:
            await stream.next_event()
        await anyio.sleep(0.2)
        async with server.connect() as stream:
            assert (await stream.next_event()).data == "1"

    assert upstream.diary == [("began", 0), ("ended", 1.5), ("began", 1.5)]


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async with connect(EventStream(broadcast(Upstream()))) as stream:
        await stream.take(2)
        await stream.reconnect()

        assert [event.data for event in await stream.take(3)] == ["3", "4", "5"]


async def test_when_it_raises_it_is_started_again_later_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []

    async def upstream() -> AsyncIterator[str]:
        begun.append(anyio.current_time())
        if len(begun) == 6:
            yield "at last"
        if len(begun) == 8:
            await anyio.sleep_forever()
        raise OSError("no upstream")

    async with connect(EventStream(broadcast(upstream, backoff=(1, 4)))) as stream:
        await stream.next_event(timeout=100)
        await anyio.sleep(100)

    waits = [round(late - early) for early, late in pairwise(begun)]
    assert waits == [1, 2, 4, 4, 4, 1, 2]
    assert "upstream raised, and is started again in 4 s" in caplog.text
    assert "no upstream" in caplog.text


async def test_when_it_ends_all_streams_end_and_the_next_client_starts_it_again() -> None:
    async def upstream() -> AsyncIterator[str]:
        for text in ("1", "2"):
            await anyio.sleep(1)
            yield text

    app = EventStream(broadcast(upstream))
    async with serve(app) as server:
        for _ in range(2):
            async with server.connect() as one, server.connect() as two:
                assert [event.data async for event in one] == ["1", "2"]
                assert [event.data async for event in two] == ["1", "2"]


async def test_ids_stay_unless_they_come_again(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0

    async def upstream() -> AsyncIterator[ServerSentEvent]:
        nonlocal begun
        begun += 1
        yield ServerSentEvent("a", id="1")
        yield ServerSentEvent("b", id="2")
        if begun == 1:
            raise OSError
        await anyio.sleep_forever()

    async with connect(EventStream(broadcast(upstream))) as stream:
        events = await stream.take(4)
        await stream.reconnect()
        await anyio.sleep(1)

        assert stream.events == []
    assert [event.data for event in events] == ["a", "b", "a", "b"]
    ids = [event.id for event in events]
    assert ids[:2] == ["1", "2"]
    assert len(set(ids)) == 4


async def test_a_source_that_never_waits_leaves_nobody_behind() -> None:
    async def upstream() -> AsyncIterator[int]:
        for number in range(1000):
            yield number

    async with connect(EventStream(broadcast(upstream, history=5))) as stream:
        assert [event.data async for event in stream] == [str(n) for n in range(1000)]


class Plain:
    """
    An async iterator that cannot be closed.
    """

    def __init__(self) -> None:
        self.left = ["1", "2"]

    def __aiter__(self) -> "Plain":
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def generator() -> AsyncIterator[str]:
    yield "1"
    yield "2"


def sync_generator() -> Iterator[str]:
    yield "1"
    yield "2"


async def coroutine_function() -> list[str]:
    return ["1", "2"]


@asynccontextmanager
async def context_manager() -> AsyncIterator[AsyncIterator[str]]:
    yield generator()


class Optional:
    def __call__(self, limit: int = 2) -> AsyncIterator[str]:
        return generator()


@pytest.mark.parametrize(
    "make",
    [
        lambda: generator,
        lambda: generator(),
        lambda: Plain(),
        lambda: coroutine_function,
        lambda: context_manager,
        lambda: ["1", "2"],
        lambda: Optional(),
    ],
)
async def test_what_a_source_may_be(make: Any) -> None:
    async with connect(EventStream(broadcast(make()))) as stream:
        assert [event.data async for event in stream] == ["1", "2"]


@pytest.mark.real_time
async def test_a_source_may_be_synchronous() -> None:
    async with connect(EventStream(broadcast(sync_generator))) as stream:
        assert [event.data async for event in stream] == ["1", "2"]


async def test_one_iterator_cannot_be_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "1"
        raise OSError("broken")

    app = EventStream(broadcast(failing()))
    async with serve(app) as server:
        async with server.connect() as stream:
            assert [event.data async for event in stream] == ["1"]
        assert "broken" in caplog.text
        async with server.connect() as stream:
            assert [event.data async for event in stream] == []
    assert "is one iterator" in caplog.text


async def test_what_the_cleanup_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def upstream() -> AsyncIterator[str]:
        try:
            await anyio.sleep_forever()
            yield ""
        finally:
            raise OSError("while cleaning up")

    app = EventStream(broadcast(upstream, linger=0))
    async with serve(app) as server:
        async with server.connect():
            await anyio.sleep(1)
        await anyio.sleep(1)

    assert "while cleaning up" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_closing_it_ends_all() -> None:
    upstream = Upstream()
    shared = broadcast(upstream)
    app = EventStream(shared)
    async with serve(app) as server:
        async with server.connect() as stream:
            await stream.next_event()
            await shared.aclose()
            assert [event.data async for event in stream] == []
            assert stream.complete
        await anyio.sleep(1)
        assert upstream.diary == [("began", 0), ("ended", 1.5)]
        async with server.connect() as stream:
            assert [event.data async for event in stream] == []
    await shared.aclose()

    assert len(upstream.diary) == 2


async def test_closing_it_while_it_lingers_ends_it_at_once() -> None:
    upstream = Upstream()
    shared = broadcast(upstream)
    async with serve(EventStream(shared)) as server, server.connect() as stream:
        await stream.next_event()
    await anyio.sleep(1.3)
    await shared.aclose()
    await anyio.sleep(10)

    assert upstream.diary == [("began", 0), ("ended", 2.8)]


async def test_closing_it_at_the_instant_of_an_event_lets_the_source_clean_up() -> None:
    for _ in range(20):
        upstream = Upstream()
        shared = broadcast(upstream)
        async with serve(EventStream(shared)) as server, server.connect() as stream:
            await stream.next_event()
        await anyio.sleep(1)
        await shared.aclose()
        await anyio.sleep(10)

        assert upstream.diary[-1] == ("ended", 2.5)


async def needs_request(request: Request) -> AsyncIterator[str]:
    yield ""


def test_a_source_cannot_get_a_request() -> None:
    with pytest.raises(TypeError, match="must be callable with nothing"):
        broadcast(needs_request)


def test_a_source_is_not_already_for_many() -> None:
    with pytest.raises(TypeError, match="must be a source of one stream"):
        broadcast(broadcast(generator))


def test_a_builtin_may_not_tell_what_it_takes() -> None:
    broadcast(iter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linger": -1}, "linger must be 0 or more seconds"),
        ({"backoff": (0, 1)}, "backoff must be two rising numbers"),
        ({"backoff": (2, 1)}, "backoff must be two rising numbers"),
        ({"history": 0}, "history must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broadcast(generator, **options)


async def test_a_source_that_goes_on_after_it_was_stopped_is_closed() -> None:
    closed = []

    async def stubborn() -> AsyncIterator[str]:
        try:
            while True:
                with suppress(get_cancelled_exc_class()):
                    await anyio.sleep(1)
                yield "a"
        finally:
            closed.append(True)

    shared = broadcast(stubborn)
    async with serve(EventStream(shared)) as server, server.connect() as stream:
        await stream.next_event()
    await anyio.sleep(0.3)
    await shared.aclose()
    await anyio.sleep(10)

    assert closed == [True]
