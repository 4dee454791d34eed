import contextvars
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from asgi import Server, count_tasks, http_scope
from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse._options import Closed
from asgi_sse._revalidation import Revalidation, _current_questions
from asgi_sse._runtime import current_runtime
from asgi_sse.testing import Stream, connect

BYE = ServerSentEvent("bye")


@pytest.fixture(autouse=True)
def no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let every question come as late as it may.
    """
    monkeypatch.setattr("asgi_sse._revalidation.random.uniform", lambda least, most: most)


async def forever() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


async def watch(revalidate: Any, source: Any = forever, **options: Any) -> tuple[Stream, Closed]:
    """
    Return what a client has got of a stream when it is over, and what ``on_close``.
    """
    ends: list[Closed] = []
    app = EventStream(
        source,
        revalidate=revalidate,
        on_close=ends.append,
        **{"farewell": BYE, "keep_alive": None, **options},
    )
    before = await count_tasks()
    async with connect(app, timeout=None) as stream:
        await stream.wait_closed()

    assert stream.problems == []
    assert await count_tasks() == before
    [closed] = ends
    return stream, closed


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asgi_sse"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_client_that_may_no_longer_read_is_let_go(is_async: bool) -> None:
    times = []

    def ask(request: Request) -> Any:
        assert request.meta == {"user": "ada"}
        times.append(anyio.current_time())
        return later() if is_async else len(times) < 3

    async def later() -> bool:
        await anyio.sleep(2)
        return len(times) < 3

    async def source(request: Request) -> Any:
        await anyio.sleep(100)
        request.meta["user"] = "ada"
        return forever()

    stream, closed = await watch(ask, source)

    # Never while it is set up, and never two at once.
    assert times == ([130, 162, 194] if is_async else [130, 160, 190])
    assert (closed.reason, closed.meta) == ("revoked", {"user": "ada"})
    assert [event.data for event in stream.events] == ["a", "bye"]
    assert stream.complete


async def test_the_answer_may_be_the_last_event() -> None:
    stream, closed = await watch(
        lambda _: ServerSentEvent("signed out", event="revoked"), revalidate_every=5
    )

    assert (closed.reason, closed.duration) == ("revoked", 5)
    assert stream.events[-1] == ServerSentEvent("signed out", event="revoked")
    assert stream.complete


async def test_questions_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    times = []

    def ask(_: Request) -> bool:
        times.append(anyio.current_time())
        return True

    app = EventStream(forever, revalidate=ask, revalidate_every=100, keep_alive=None)
    async with anyio.create_task_group() as group:

        async def stay() -> None:
            async with connect(app, timeout=None) as stream:
                await stream.next_event()
                await anyio.sleep(1000)

        for _ in range(100):
            group.start_soon(stay)

    assert len(set(times)) == len(times)
    # Each at least once in so much time, and at most a little more often.
    assert 950 < len(times) < 1150
    assert 25 <= times[0] < 30
    assert max(sum(start <= time < start + 1 for time in times) for start in range(25, 999)) < 15


@pytest.mark.parametrize("answer", [None, 1, "yes", "raises", "hangs", "clings"])
async def test_without_an_answer_the_stream_goes_on_but_not_for_ever(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    times = []

    async def ask(_: Request) -> Any:
        times.append(anyio.current_time())
        if answer == "raises":
            raise LookupError
        if answer == "hangs":
            await anyio.sleep_forever()
        if answer == "clings":
            with anyio.CancelScope(shield=True):
                await anyio.sleep(15)
            return False
        return answer

    if answer == "clings":
        # It cannot be stopped, but nobody waits for it.
        app = EventStream(forever, revalidate=ask, keep_alive=None)
        async with connect(app, timeout=None) as stream:
            await stream.wait_closed()
    else:
        stream, closed = await watch(ask)
        assert closed.reason == "revoked"

    late = 10 if answer in ("hangs", "clings") else 0
    assert times == [30, 60 + late, 90 + 2 * late]
    assert stream.complete
    [record] = [record for record in caplog.records if record.name == "asgi_sse"]
    assert record.getMessage() == (
        "revalidate of test_revalidation.forever gives no answer; "
        "streams end at the third one that is missing"
    )
    assert record.exc_info
    expected = {"raises": LookupError, "hangs": TimeoutError, "clings": TimeoutError}
    assert record.exc_info[0] is expected.get(answer, TypeError)


async def test_an_answer_makes_up_for_those_that_were_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([None, None, True, None, None, True, False])

    _, closed = await watch(lambda _: next(answers))

    assert closed.duration == 7 * 30
    # Once for each time that it began.
    assert len(logged(caplog)) == 2


@dataclass
class Rights:
    """
    What is asked and cannot be hashed.
    """

    answers: list[Any]

    def __call__(self, _: Request) -> Any:
        return self.answers.pop(0)


async def test_what_is_asked_need_not_be_hashable(caplog: pytest.LogCaptureFixture) -> None:
    _, closed = await watch(Rights([None, True, False]))

    assert closed.duration == 3 * 30
    assert len(logged(caplog)) == 1


async def test_what_is_asked_may_be_a_closure_of_each_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        await watch(lambda _: None)

    assert len(logged(caplog)) == 1


async def test_nothing_is_asked_of_a_stream_that_ends_before_its_question_begins() -> None:
    def ask(_: Request) -> bool:
        raise AssertionError

    def revoke(_: ServerSentEvent | None) -> None:
        raise AssertionError

    runtime = current_runtime()
    request: Any = Request(http_scope(), None)  # type: ignore[arg-type]
    revalidation = Revalidation(runtime, ask, 30, request, "source", revoke)
    questions = _current_questions()
    questions.add(revalidation)
    revalidation.discard()
    await count_tasks()

    assert questions._open == 0


async def test_only_so_many_ask_at_once() -> None:
    now = most = asked = 0

    async def ask(_: Request) -> bool:
        nonlocal now, most, asked
        now += 1
        asked += 1
        most = max(most, now)
        try:
            await anyio.sleep(1)
        finally:
            now -= 1
        return True

    app = EventStream(forever, revalidate=ask, keep_alive=None)
    async with anyio.create_task_group() as group:

        async def stay(seconds: float) -> None:
            async with connect(app, timeout=None) as stream:
                await stream.next_event()
                await anyio.sleep(seconds)

        for n in range(250):
            # Some leave while they ask, some while they wait for their turn.
            group.start_soon(stay, 30.5 if n in (50, 150, 200) else 50)
            await anyio.sleep(0.001)

    # The one whose stream has ended meanwhile is cancelled, and not waited for.
    assert 100 <= most <= 101
    assert now == 0
    # Not those that left before it was their turn.
    assert asked == 248


async def test_nothing_is_asked_of_a_stream_that_never_opened() -> None:
    def ask(_: Request) -> bool:
        raise AssertionError

    async def source(request: Request) -> Any:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return forever()

    server = Server()
    async with anyio.create_task_group() as group:
        group.start_soon(server.call, EventStream(source, revalidate=ask))
        await anyio.sleep(1)
        server.disconnect()
    await anyio.sleep(100)

    await count_tasks()


async def test_it_is_asked_in_the_context_of_the_request() -> None:
    who = contextvars.ContextVar[str]("who")
    seen = []

    async def ask(_: Request) -> bool:
        seen.append(who.get())
        return len(seen) < 4

    app = EventStream(forever, revalidate=ask)

    async def stay(name: str) -> None:
        who.set(name)
        async with connect(app, timeout=None) as stream:
            await stream.wait_closed()

    async with anyio.create_task_group() as group:
        group.start_soon(stay, "ada")
        await anyio.sleep(1)
        group.start_soon(stay, "bob")

    assert seen == ["ada", "bob", "ada", "bob", "ada"]
