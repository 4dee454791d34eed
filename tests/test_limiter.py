import gc
from collections.abc import AsyncIterator, Callable
from threading import Thread
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi import Server, http_scope, in_asyncio, left_alone, run
from asgi_sse import EventStream, Limiter, Refused, Request
from asgi_sse._limiter import LimiterStatistics
from asgi_sse.testing import Stream, connect

CURL = {"Accept": "*/*"}


async def forever() -> AsyncIterator[str]:
    """
    Tell one thing, and wait.
    """
    yield "a"
    await anyio.sleep_forever()


def host(request: Request) -> str | None:
    """
    Return who a client says that he is.
    """
    return request.headers.get("x-host")


def is_free(limit: Limiter) -> bool:
    return limit.statistics()[:2] == (0, 0)


async def test_one_too_many_gets_503_and_when_to_come_again() -> None:
    limit = Limiter(1, retry_after=7.5)
    app = EventStream(forever, limit=limit)
    async with connect(app, headers=CURL):
        async with connect(app, headers=CURL) as second:
            assert await second.read() == b"Too many streams are open."
            assert (second.status, second.headers["retry-after"]) == (503, "8")
        assert limit.statistics() == LimiterStatistics(1, 0, refused_total=1, refused_each=0)
        assert repr(limit) == "<Limiter 1 of 1, 0 keys>"
    async with connect(app, headers=CURL) as third:
        assert third.status == 200
    assert is_free(limit)


@pytest.mark.parametrize("is_async", [False, True])
async def test_one_too_many_of_a_key_gets_429(is_async: bool) -> None:
    async def host_from_the_database(request: Request) -> str | None:
        await anyio.sleep(1)
        return host(request)

    limit = Limiter(each=2, per=host_from_the_database if is_async else host)
    app = EventStream(forever, limit=limit)
    alice, bob = CURL | {"X-Host": "alice"}, CURL | {"X-Host": "bob"}
    async with (
        connect(app, headers=alice),
        connect(app, headers=bob),
        connect(app, headers=alice),
    ):
        async with connect(app, headers=alice) as fourth:
            assert await fourth.read() == b"Too many of your streams are open."
            assert (fourth.status, fourth.headers["retry-after"]) == (429, "30")
        assert limit.statistics() == LimiterStatistics(3, 2, refused_total=0, refused_each=1)
    assert is_free(limit)


async def test_who_has_no_key_counts_in_the_total_alone() -> None:
    limit = Limiter(2, each=1, per=host)
    app = EventStream(forever, limit=limit)
    async with connect(app), connect(app), connect(app, headers=CURL) as third:
        assert third.status == 503
        assert limit.statistics() == LimiterStatistics(2, 0, refused_total=1, refused_each=0)


async def test_an_event_source_is_told_to_come_again() -> None:
    app = EventStream(forever, limit=Limiter(0, retry_after=60))
    times = set()
    for _ in range(20):
        async with connect(app) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["cache-control"] == "no-store"
            body = await stream.read()
            assert stream.headers["content-length"] == str(len(body))
            # Several clients dispatch an event at a blank line.
            assert b"\n\n" not in body
            assert stream.complete
            assert stream.events == []
            assert stream.problems == []
            times.add(stream.reconnection_time)

    assert len(times) > 1
    assert all(60_000 <= time <= 90_000 for time in times)


async def test_head_and_other_methods_are_not_counted() -> None:
    limit = Limiter(0)
    app = EventStream(forever, limit=limit)
    for method, status in (("HEAD", 200), ("PUT", 405)):
        async with connect(app, method=method) as stream:
            await stream.wait_closed()

            assert stream.status == status
    assert limit.statistics() == LimiterStatistics(0, 0, refused_total=0, refused_each=0)


async def test_several_apps_share_one() -> None:
    limit = Limiter(1)
    async with (
        connect(EventStream(forever, limit=limit)),
        connect(EventStream(forever, limit=limit), headers=CURL) as second,
    ):
        assert second.status == 503


async def test_a_function_may_refuse() -> None:
    def refusing(request: Request) -> str:
        raise Refused(401, headers={"WWW-Authenticate": "Bearer"})

    limit = Limiter(each=1, per=refusing)
    async with connect(EventStream(forever, limit=limit)) as stream:
        assert (stream.status, stream.headers["www-authenticate"]) == (401, "Bearer")
    assert limit.statistics() == LimiterStatistics(0, 0, refused_total=0, refused_each=0)


async def test_a_request_has_no_stream_yet() -> None:
    async def reading(request: Request) -> bytes:
        return await request.body()

    app = EventStream(forever, limit=Limiter(each=1, per=reading))
    with pytest.raises(RuntimeError, match="body is known only once the stream may open"):
        async with connect(app):
            pass


async def test_what_is_said_of_a_stream_too_early_would_be_lost() -> None:
    def saying(request: Request) -> str:
        request.meta["user"] = "ada"
        raise AssertionError

    app = EventStream(forever, limit=Limiter(each=1, per=saying))
    with pytest.raises(RuntimeError, match="meta is known only once the stream may open"):
        async with connect(app):
            pass


# A slot is given back once, however the stream ends.


async def finish(stream: Stream) -> None:
    await stream.wait_closed()
    # Or what the source has raised would be raised again.
    assert isinstance(stream.error, ValueError | None)


async def leave(stream: Stream) -> None:
    stream.disconnect()
    await stream.wait_closed()


async def cancel(stream: Stream) -> None:
    stream.cancel()
    await stream.wait_closed()


async def stall(stream: Stream) -> None:
    stream.stall()
    await stream.wait_closed(timeout=100)


async def shut_down(stream: Stream) -> None:
    await stream.shutdown()


async def refusing() -> Any:
    await anyio.sleep(1)
    raise Refused(403)


async def failing() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep(1)
    raise ValueError


async def short() -> AsyncIterator[str]:
    yield "a"


async def busy() -> AsyncIterator[str]:
    while True:
        yield "a" * 100_000


@pytest.mark.parametrize(
    ("source", "end"),
    [
        pytest.param(short, finish, id="finished"),
        pytest.param(forever, leave, id="client"),
        pytest.param(forever, cancel, id="cancelled"),
        pytest.param(forever, shut_down, id="shutdown"),
        pytest.param(forever, finish, id="max-age"),
        pytest.param(busy, stall, id="send-timeout"),
        pytest.param(failing, finish, id="error"),
        pytest.param(refusing, finish, id="refused"),
    ],
)
async def test_a_slot_is_given_back(source: Any, end: Callable[[Stream], Any]) -> None:
    limit = Limiter(1, each=1, per=host)
    app = EventStream(source, limit=limit, max_age=50)
    for _ in range(2):
        async with connect(app, headers={"X-Host": "a"}, timeout=100) as stream:
            assert limit.statistics()[:2] in ((1, 1), (0, 0))
            await end(stream)

        assert stream.status in (200, 403)
        assert is_free(limit)


async def setting_up() -> Any:
    await anyio.sleep_forever()


@pytest.mark.parametrize("end", [Server.disconnect, Server.cancel])
async def test_a_slot_is_given_back_during_setup(end: Callable[[Server], None]) -> None:
    limit = Limiter(1)
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, EventStream(setting_up, limit=limit))
        await anyio.sleep(1)

        assert limit.statistics().open == 1
        end(server)

    assert server.sent == []
    assert is_free(limit)


async def test_a_slot_is_given_back_when_setup_fails() -> None:
    async def failing_at_once() -> Any:
        raise ValueError

    limit = Limiter(1)
    with pytest.raises(ValueError, match="^$"):
        await EventStream(failing_at_once, limit=limit)(http_scope(), *Server())

    assert is_free(limit)


@left_alone
async def test_a_slot_of_an_abandoned_source_is_given_back() -> None:
    limit = Limiter(1)
    over = anyio.Event()
    deaf = True

    async def stubborn() -> AsyncIterator[str]:
        yield "a"
        while deaf:
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass
        over.set()

    async with connect(EventStream(stubborn, limit=limit), timeout=None) as stream:
        await anyio.sleep(1)
        stream.disconnect()
        await stream.wait_closed()

        assert is_free(limit)
    deaf = False
    if in_asyncio():
        await over.wait()
        await anyio.sleep(1)
    gc.collect()


def test_one_counts_over_event_loops_and_threads() -> None:
    limit = Limiter(each=1000, per=lambda request: "all")
    app = EventStream(short, limit=limit)
    most = 0

    async def main() -> None:
        nonlocal most
        for _ in range(50):
            async with connect(app) as stream:
                most = max(most, limit.statistics().open)
                await stream.read()

    threads = [Thread(target=run, args=(name, main)) for name in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most >= 1
    assert limit.statistics() == LimiterStatistics(0, 0, refused_total=0, refused_each=0)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", None]))),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_no_more_are_open_than_may_be(
    steps: list[tuple[bool, str | None]], total: int, each: int
) -> None:
    limit = Limiter(total, each=each, per=host)
    entered: list[str | None] = []
    for enters, key in steps:
        if enters:
            refused = limit.enter(key)
            full = len(entered) >= total
            shared = key is not None and entered.count(key) >= each

            assert (refused and refused.status) == (503 if full else 429 if shared else None)
            if refused is None:
                entered.append(key)
        elif key in entered:
            entered.remove(key)
            limit.leave(key)

        assert limit.statistics().open == len(entered)
        assert limit.statistics().keys == len(set(entered) - {None})


# What is refused when it is made


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "a Limiter must have a total, or each and per"),
        ({"total": "5"}, TypeError, "total must be an int (got '5')"),
        ({"total": True}, TypeError, "total must be an int (got True)"),
        ({"total": -1}, ValueError, "total must be 0 or more (got -1)"),
        ({"each": 1.5, "per": host}, TypeError, "each must be an int (got 1.5)"),
        ({"each": 1}, TypeError, "each and per must be given together: how many, and of whom"),
        ({"per": host}, TypeError, "each and per must be given together: how many, and of whom"),
        ({"each": 1, "per": "ip"}, TypeError, "per must be a function (got 'ip')"),
        (
            {"total": 1, "retry_after": None},
            TypeError,
            "retry_after must be a number of seconds (got None)",
        ),
        (
            {"total": 1, "retry_after": 0},
            ValueError,
            "retry_after must be finite and more than 0 (got 0)",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        Limiter(**arguments)

    assert str(caught.value) == message


def test_a_limit_is_a_limiter() -> None:
    with pytest.raises(TypeError) as caught:
        EventStream(short, limit=100)  # type: ignore[arg-type]

    assert str(caught.value) == "limit must be a Limiter (got 100)"
