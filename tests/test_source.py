import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from anyio import CapacityLimiter

from asgi_sse import Request
from asgi_sse._runtime import current_runtime
from asgi_sse._source import Source, is_context_manager, is_feed

NAME = "test_source"


class FakeRequest:
    """
    Only what a source may ask of a request: to be passed on, and the last event ID.
    """

    last_event_id = "7"


REQUEST: Any = FakeRequest()

variable: ContextVar[str] = ContextVar("variable", default="outside")


async def items(source: Any) -> list[Any]:
    """
    Return all that one response gets from a source.
    """
    made = Source(source)
    result = await made.call(REQUEST)
    threads = CapacityLimiter(2)
    if is_context_manager(result):
        async with result as iterable:
            return [item async for item in made.iterate(iterable, threads)]
    return [item async for item in made.iterate(result, threads)]


# Whatever may be wrapped. Each gives one item: "request" if it got that, or "nothing".


def seen(arguments: Any) -> str:
    return {(): "nothing", (REQUEST,): "request"}[tuple(arguments)]


async def with_nothing() -> AsyncIterator[str]:
    yield seen([])


async def with_request(request: Request) -> AsyncIterator[str]:
    yield seen([request])


async def with_any_name(scope: Request, /) -> AsyncIterator[str]:
    yield seen([scope])


async def with_default(request: Request | None = None) -> AsyncIterator[str]:
    yield seen([] if request is None else [request])


async def with_other_default(limit: int = 10) -> AsyncIterator[str]:
    assert limit == 10
    yield seen([])


async def with_request_and_default(request: Request, limit: int = 10) -> AsyncIterator[str]:
    assert limit == 10
    yield seen([request])


async def with_request_second(limit: int = 10, request: Any = None) -> AsyncIterator[str]:
    assert limit == 10
    yield seen([] if request is None else [request])


async def with_arguments(*args: Any, **kwargs: Any) -> AsyncIterator[str]:
    assert kwargs == {}
    yield seen(args)


async def with_keywords(*, limit: int = 10, **kwargs: Any) -> AsyncIterator[str]:
    assert (limit, kwargs) == (10, {})
    yield seen([])


async def with_room(request: Request, room: str) -> AsyncIterator[str]:
    assert room == "a"
    yield seen([request])


async def with_room_first(room: str, request: Request) -> AsyncIterator[str]:
    assert room == "a"
    yield seen([request])


async def that_returns_a_generator(request: Request) -> AsyncIterator[str]:
    await anyio.lowlevel.checkpoint()
    return with_request(request)


async def that_returns_a_list() -> list[str]:
    return [seen([])]


def that_returns_a_tuple() -> tuple[str]:
    return (seen([]),)


def that_returns_an_awaitable(request: Request) -> Awaitable[list[str]]:
    class Later:
        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            return [seen([request])]

    return Later()


@asynccontextmanager
async def that_manages_a_context(request: Request) -> AsyncIterator[AsyncIterator[str]]:
    yield with_request(request)


async def that_returns_a_context_manager(request: Request) -> Any:
    return that_manages_a_context(request)


@functools.wraps(with_request)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return with_request(*args, **kwargs)


class Callee:
    async def __call__(self, request: Request) -> AsyncIterator[str]:
        yield seen([request])

    async def method(self, request: Request) -> AsyncIterator[str]:
        yield seen([request])

    async def method_without(self) -> AsyncIterator[str]:
        yield seen([])

    @classmethod
    async def class_method(cls, request: Request) -> AsyncIterator[str]:
        yield seen([request])

    @staticmethod
    async def static_method(request: Request) -> AsyncIterator[str]:
        yield seen([request])


class Feed:
    """
    A class that is made anew for each request, and iterated over.
    """

    def __init__(self, request: Request) -> None:
        self._items = [seen([request])]

    def __aiter__(self) -> AsyncIterator[str]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[str]:
        for item in self._items:
            yield item


class Again:
    """
    What can be iterated over anew for each request.
    """

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "nothing"


class Channel:
    """
    What does the work of the last event ID itself.
    """

    def subscribe(self, last_event_id: str | None = None) -> Any:
        assert last_event_id == "7"
        return Again()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(with_nothing, ["nothing"], id="nothing"),
        pytest.param(with_request, ["request"], id="request"),
        pytest.param(with_any_name, ["request"], id="positional-only"),
        pytest.param(with_default, ["request"], id="request-with-default"),
        pytest.param(with_other_default, ["nothing"], id="another-default"),
        pytest.param(with_request_and_default, ["request"], id="request-and-default"),
        pytest.param(with_request_second, ["nothing"], id="request-is-not-first"),
        pytest.param(with_arguments, ["request"], id="arguments"),
        pytest.param(with_keywords, ["nothing"], id="keywords"),
        pytest.param(lambda: ["nothing"], ["nothing"], id="lambda"),
        pytest.param(lambda _: [seen([_])], ["request"], id="lambda-with-request"),
        pytest.param(wrapped, ["request"], id="decorated"),
        pytest.param(functools.partial(with_nothing), ["nothing"], id="partial"),
        pytest.param(functools.partial(with_request), ["request"], id="partial-request"),
        pytest.param(functools.partial(with_room, room="a"), ["request"], id="partial-by-name"),
        pytest.param(functools.partial(with_room_first, "a"), ["request"], id="partial-by-place"),
        pytest.param(functools.partial(with_request, REQUEST), ["request"], id="partial-full"),
        pytest.param(Callee(), ["request"], id="callable-object"),
        pytest.param(functools.partial(Callee()), ["request"], id="partial-object"),
        pytest.param(Callee().method, ["request"], id="method"),
        pytest.param(Callee().method_without, ["nothing"], id="method-without"),
        pytest.param(Callee.class_method, ["request"], id="class-method"),
        pytest.param(Callee.static_method, ["request"], id="static-method"),
        pytest.param(Feed, ["request"], id="class"),
        pytest.param(Again, ["nothing"], id="class-without"),
        # Its signature cannot be told.
        pytest.param(frozenset, [], id="class-written-in-c"),
        pytest.param(that_returns_a_generator, ["request"], id="coroutine-generator"),
        pytest.param(that_returns_a_list, ["nothing"], id="coroutine-list"),
        pytest.param(that_returns_a_tuple, ["nothing"], id="function-tuple"),
        pytest.param(that_returns_an_awaitable, ["request"], id="function-awaitable"),
        pytest.param(that_manages_a_context, ["request"], id="context-manager"),
        pytest.param(that_returns_a_context_manager, ["request"], id="coroutine-manager"),
        pytest.param(["nothing"], ["nothing"], id="list"),
        pytest.param(range(2), [0, 1], id="range"),
        pytest.param({"nothing"}, ["nothing"], id="set"),
        pytest.param(Again(), ["nothing"], id="re-iterable"),
        pytest.param(Channel(), ["nothing"], id="channel"),
    ],
)
async def test_source(source: Any, expected: list[Any]) -> None:
    made = Source(source)
    # One after the other, as requests come.
    for _ in range(2):
        assert await items(source) == expected
    assert made.name


async def test_items_are_whatever_they_are() -> None:
    given: list[Any] = [None, "", 0, b"\n", {}, [], StopIteration()]

    assert await items(given) == given


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (with_request, f"{NAME}.with_request"),
        (wrapped, f"{NAME}.with_request"),
        (functools.partial(functools.partial(with_request)), f"{NAME}.with_request"),
        (Callee(), f"{NAME}.Callee"),
        (functools.partial(Callee()), f"{NAME}.Callee"),
        (Callee().method, f"{NAME}.Callee.method"),
        (Feed, f"{NAME}.Feed"),
        (Again(), f"{NAME}.Again"),
        ([], "builtins.list"),
        (list, "builtins.list"),
        ([].copy, "list.copy"),
        (iter([]), "builtins.list_iterator"),
        (with_request(REQUEST), "with_request"),
        ((letter for letter in ""), "<genexpr>"),
    ],
)
def test_name_is_the_one_of_the_function_or_type(source: Any, name: str) -> None:
    assert Source(source).name == name


# What is no source


async def two(request: Request, room: str) -> AsyncIterator[str]:
    yield ""


async def keyword(*, request: Request) -> AsyncIterator[str]:
    yield ""


class Two:
    def __init__(self, request: Request, room: str) -> None: ...


NEITHER = "source must be a function or an async iterable (got "
CALLABLE = "source must be callable with the request or with nothing (got "


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, f"{NEITHER}None)"),
        (7, f"{NEITHER}7)"),
        ("abc", f"{NEITHER}'abc')"),
        (b"abc", f"{NEITHER}b'abc')"),
        ({"a": 1}, f"{NEITHER}{{'a': 1}})"),
        (two, f"{CALLABLE}{NAME}.two(request: asgi_sse._request.Request, room: str) "),
        (keyword, f"{CALLABLE}{NAME}.keyword(*, request: asgi_sse._request.Request) "),
        (functools.partial(two), f"{CALLABLE}{NAME}.two(request: "),
        (Two, f"{CALLABLE}{NAME}.Two(request: "),
        (isinstance, f"{CALLABLE}builtins.isinstance(obj, "),
    ],
)
def test_what_is_no_source_is_refused(source: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        Source(source)

    assert str(caught.value).startswith(message)


def test_called_coroutine_function_is_refused_with_a_question() -> None:
    with pytest.raises(
        TypeError, match=r"<coroutine .*Did you forget to pass the function itself, without call"
    ):
        # Nor is there a warning that it was never awaited.
        Source(that_returns_a_list())


@pytest.mark.parametrize("given", [None, 7, "abc", b"abc", bytearray(), memoryview(b""), {"a": 1}])
async def test_function_must_give_something_to_iterate_over(given: Any) -> None:
    async def source() -> Any:
        return given

    with pytest.raises(TypeError) as caught:
        await items(source)

    assert str(caught.value) == (
        f"{NAME}.{source.__qualname__} must give something to iterate over (got {given!r}). "
        "Did you forget to yield?"
    )


async def test_what_was_given_is_told_briefly() -> None:
    with pytest.raises(TypeError) as caught:
        await items(lambda: "x" * 10_000)

    assert len(str(caught.value)) < 300


async def test_context_manager_must_give_something_to_iterate_over() -> None:
    @asynccontextmanager
    async def source() -> AsyncIterator[None]:
        yield

    with pytest.raises(TypeError, match=r"must give something to iterate over \(got None\)"):
        await items(source)


# One iterator, one response


def two_numbers() -> Iterator[int]:
    yield from range(2)


async def two_numbers_async() -> AsyncIterator[int]:
    for number in range(2):
        yield number


class Numbers:
    """
    An iterator that is no generator.
    """

    def __init__(self) -> None:
        self._numbers = iter(range(2))

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        for number in self._numbers:
            return number
        raise StopAsyncIteration


@pytest.mark.parametrize("make", [two_numbers_async, Numbers])
async def test_iterator_is_good_for_one_response(make: Callable[[], Any]) -> None:
    made = Source(make())
    numbers = [n async for n in made.iterate(await made.call(REQUEST), CapacityLimiter(1))]

    assert numbers == [0, 1]
    with pytest.raises(RuntimeError) as caught:
        await made.call(REQUEST)
    assert str(caught.value) == (
        f"{made.name} is one iterator, and has already been sent to a client. "
        "Pass the function that makes it, and each request gets its own"
    )


@pytest.mark.parametrize("make", [two_numbers, lambda: iter(range(2)), lambda: map(int, "01")])
@pytest.mark.real_time
async def test_synchronous_iterator_is_good_for_one_response(make: Callable[[], Any]) -> None:
    made = Source(make())
    numbers = [n async for n in made.iterate(await made.call(REQUEST), CapacityLimiter(1))]

    assert numbers == [0, 1]
    with pytest.raises(RuntimeError, match="is one iterator, and has already been sent"):
        await made.call(REQUEST)


async def test_memory_stream_is_closed_at_the_end() -> None:
    send, receive = anyio.create_memory_object_stream[str](2)
    for item in "ab":
        send.send_nowait(item)
    send.close()

    assert await items(receive) == ["a", "b"]
    assert send.statistics().open_receive_streams == 0


async def test_memory_stream_made_for_each_request() -> None:
    async def source() -> Any:
        send, receive = anyio.create_memory_object_stream[str](1)
        send.send_nowait("a")
        send.close()
        return receive

    assert await items(source) == await items(source) == ["a"]


async def test_context_is_held_while_it_is_iterated_over() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[str]]:
        log.append("enter")
        try:
            yield iterate()
        finally:
            log.append("exit")

    async def iterate() -> AsyncIterator[str]:
        log.append("iterate")
        yield "a"

    assert await items(source) == ["a"]
    assert log == ["enter", "iterate", "exit"]


async def test_what_the_setup_raises_comes_out() -> None:
    async def source() -> list[str]:
        raise PermissionError("not you")

    with pytest.raises(PermissionError, match="not you"):
        await items(source)


async def test_function_is_not_called_before_a_request() -> None:
    calls: list[str] = []

    def source() -> list[str]:
        calls.append("called")
        return []

    Source(source)

    assert calls == []


async def test_list_gives_what_is_in_it_at_the_time_of_the_request() -> None:
    given = ["a"]
    made = Source(given)
    given.append("b")

    assert [item async for item in made.iterate(await made.call(REQUEST), CapacityLimiter(1))] == [
        "a",
        "b",
    ]


def test_feed_is_known_by_its_methods() -> None:
    class Taken:
        attach = take = detach = None

    assert is_feed(Taken())
    assert not is_feed(Again())


# Synchronous sources, in worker threads


def in_thread(source: Any, threads: CapacityLimiter | None = None) -> AsyncGenerator[Any, None]:
    iterator = Source(source).iterate(source, threads or CapacityLimiter(4))
    assert isinstance(iterator, AsyncGenerator)
    return iterator


@pytest.mark.real_time
async def test_synchronous_generator_runs_in_worker_threads() -> None:
    here = threading.get_ident()

    def source(request: Request) -> Iterator[bool]:
        assert request is REQUEST
        yield threading.get_ident() == here
        yield threading.get_ident() == here

    assert await items(source) == [False, False]


@pytest.mark.real_time
async def test_context_variables_keep_what_a_step_sets() -> None:
    variable.set("request")

    def source() -> Iterator[str]:
        yield variable.get()
        variable.set("source")
        yield variable.get()
        yield variable.get()

    assert await items(source) == ["request", "source", "source"]
    assert variable.get() == "request"


@pytest.mark.real_time
async def test_step_may_call_back_into_the_event_loop() -> None:
    async def fetch() -> str:
        await anyio.lowlevel.checkpoint()
        return "fetched"

    def source() -> Iterator[str]:
        yield anyio.from_thread.run(fetch)

    assert await items(source) == ["fetched"]


@pytest.mark.real_time
async def test_what_a_step_raises_comes_out() -> None:
    def source() -> Iterator[str]:
        yield "a"
        raise PermissionError("not you")

    iterator = in_thread(source())

    assert await anext(iterator) == "a"
    with pytest.raises(PermissionError, match="not you"):
        await anext(iterator)


@pytest.mark.real_time
async def test_number_of_threads_is_limited() -> None:
    threads = CapacityLimiter(1)
    inside = 0
    most = 0

    def source() -> Iterator[None]:
        nonlocal inside, most
        for _ in range(5):
            inside += 1
            most = max(most, inside)
            inside -= 1
            yield

    async def consume() -> None:
        async for _ in in_thread(source(), threads):
            pass

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consume)

    assert most == 1
    assert threads.borrowed_tokens == 0


@pytest.mark.real_time
async def test_synchronous_generator_is_closed_in_a_worker_thread() -> None:
    here = threading.get_ident()
    log: list[Any] = []

    def source() -> Iterator[str]:
        variable.set("source")
        try:
            yield "a"
            log.append("not reached")
        finally:
            log.append((threading.get_ident() == here, variable.get()))

    async with aclosing(in_thread(source())) as iterator:
        assert await anext(iterator) == "a"

    assert log == [(False, "source")]


class Countdown:
    """
    An iterator that cannot be closed.
    """

    def __init__(self) -> None:
        self.left = 3

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.left -= 1
        return self.left


@pytest.mark.real_time
async def test_iterator_without_close_is_left_alone() -> None:
    countdown = Countdown()
    async with aclosing(in_thread(countdown)) as iterator:
        assert await anext(iterator) == 2

    assert countdown.left == 2


@pytest.mark.real_time
async def test_synchronous_generator_is_closed_after_the_step_that_runs() -> None:
    """
    A step cannot be interrupted, and a generator cannot be closed while it runs.
    """
    running = anyio.Event()
    over = anyio.Event()
    go_on = threading.Event()
    log: list[str] = []

    def source() -> Iterator[str]:
        try:
            yield "a"
            anyio.from_thread.run_sync(running.set)
            go_on.wait(10)
            log.append("step")
            yield "lost"
        finally:
            log.append("close")

    async def consume() -> None:
        try:
            iterator = in_thread(source())
            log.append(await anext(iterator))
            await anext(iterator)
        finally:
            log.append("over")
            over.set()

    runtime = current_runtime()
    task = runtime.spawn(consume, "consume")
    await running.wait()
    task.cancel()
    for _ in range(10):
        await runtime.turn()

    assert log == ["a"]

    go_on.set()
    await over.wait()

    assert log == ["a", "step", "close", "over"]


@pytest.mark.real_time
async def test_step_that_never_ends_does_not_hold_a_task_that_is_cancelled_again() -> None:
    running = anyio.Event()
    over = anyio.Event()
    go_on = threading.Event()

    def source() -> Iterator[str]:
        anyio.from_thread.run_sync(running.set)
        go_on.wait(10)
        yield "lost"

    async def consume() -> None:
        try:
            await anext(in_thread(source()))
        finally:
            over.set()

    runtime = current_runtime()
    task = runtime.spawn(consume, "consume")
    await running.wait()
    task.cancel()
    for _ in range(10):
        await runtime.turn()

    assert not over.is_set()

    task.cancel()
    await over.wait()

    assert not go_on.is_set()

    go_on.set()


@pytest.mark.real_time
async def test_iterable_that_may_take_its_time_is_iterated_over_in_a_worker_thread() -> None:
    """
    A database's rows are fetched when the iteration begins.
    """
    here = threading.get_ident()

    class Rows:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[bool]:
            begun_here = threading.get_ident() == here
            yield from [begun_here, threading.get_ident() == here]

    assert await items(Rows()) == [False, False]


async def test_what_can_be_entered_or_awaited_is_entered() -> None:
    """
    As a connection pool's ``acquire()``, which is given back only so.
    """
    log: list[str] = []

    class Acquired:
        def __await__(self) -> Any:
            raise AssertionError

        async def __aenter__(self) -> list[str]:
            log.append("enter")
            return ["a"]

        async def __aexit__(self, *exc_info: object) -> None:
            log.append("exit")

    assert await items(Acquired) == ["a"]
    assert log == ["enter", "exit"]
