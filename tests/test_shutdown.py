import gc
import math
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from asgi import NO_BODY, Server, count_tasks, http_scope, left_alone
from asgi_sse import EventStream, Request, ServerSentEvent, close_streams, drain
from asgi_sse._options import Closed
from asgi_sse._servers import Stop
from asgi_sse._shutdown import OpenStreams, current_open_streams
from asgi_sse._watch import SWITCH
from asgi_sse.testing import connect

BYE = ServerSentEvent("bye", retry=1234)
GOODBYE = b"retry: 1234\ndata: bye\n\n"


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """
    A server's signal handler, and how often it was called.
    """
    monkeypatch.delenv(SWITCH, raising=False)
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


async def unaware() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


async def polite(request: Request) -> AsyncIterator[str]:
    """
    Needs half a second for its last words.
    """
    yield "a"
    await request.wait_closing()
    await anyio.sleep(0.5)
    yield "last words"


async def endless(request: Request) -> AsyncIterator[str]:
    """
    Knows that it should end, and does not.
    """
    yield "a"
    await request.wait_closing()
    await anyio.sleep_forever()


async def stubborn() -> AsyncIterator[str]:
    cancelled = anyio.get_cancelled_exc_class()
    yield "a"
    while True:
        try:
            await anyio.sleep_forever()
        except cancelled:
            pass


# drain()


async def test_without_a_stream_there_is_nothing_to_do() -> None:
    assert await drain() == (0, 0, 0)


@left_alone
async def test_all_streams_are_closed_at_the_same_time() -> None:
    sources: list[Any] = [unaware] * 5 + [polite] * 3 + [endless] * 2 + [stubborn]
    started = anyio.current_time()
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(
                connect(EventStream(source, farewell=BYE, cleanup_timeout=3))
            )
            for source in sources
        ]
        await anyio.sleep(1)
        counts = await drain()

        assert (counts.ended, counts.cancelled, counts.abandoned) == (3, 7, 1)
        # No longer than the slowest: one second of patience, and cleaning up.
        assert anyio.current_time() - started == 4
        assert all(stream.complete for stream in streams)
        assert all(stream.body.endswith(GOODBYE) for stream in streams)
        last_words = [stream.body.count(b"last words") for stream in streams]
        assert last_words == [0] * 5 + [1] * 3 + [0] * 3
    del stack, streams
    gc.collect()


@pytest.mark.parametrize(
    ("grace", "end", "words"),
    [(None, 2.5, True), (0.4, 2.4, False), (0, 2, False), (2, 2.5, True)],
)
async def test_a_source_that_asks_has_the_grace(
    grace: float | None, end: float, words: bool
) -> None:
    async with connect(EventStream(polite, farewell=BYE)) as stream:
        await anyio.sleep(2)
        counts = await drain(grace)

        assert anyio.current_time() == end
        assert counts == ((1, 0, 0) if words else (0, 1, 0))
        assert (b"last words" in stream.body) == words
        assert stream.complete


async def test_the_grace_is_an_option_of_the_stream() -> None:
    async with connect(EventStream(endless, shutdown_grace=7)) as stream:
        await drain()

        assert anyio.current_time() == 7
        assert stream.complete


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, b"data: own\n\n"),
        ({"farewell": BYE}, GOODBYE),
        ({"farewell": lambda request: ServerSentEvent(request.scope["path"])}, b"data: /p\n\n"),
        ({"farewell": lambda request: None}, b""),
        ({"farewell": None}, b""),
    ],
)
async def test_the_farewell_is_the_streams_or_given(arguments: Any, expected: bytes) -> None:
    app = EventStream(unaware, farewell=ServerSentEvent("own"))
    async with connect(app, "/p") as stream:
        await drain(**arguments)

        assert stream.body == b":\n\ndata: a\n\n" + expected
        assert stream.complete


async def test_by_default_clients_do_not_come_back_all_at_once() -> None:
    times = set()
    for _ in range(20):
        async with connect(EventStream(unaware)) as stream:
            await drain()
            times.add(stream.reconnection_time)

    assert len(times) > 10
    assert all(1000 <= time <= 5000 for time in times)


async def test_on_close_is_told_the_reason() -> None:
    ends: list[Closed] = []
    async with connect(EventStream(unaware, on_close=ends.append)):
        await drain(reason="max_age")

    assert [closed.reason for closed in ends] == ["max_age"]


async def test_a_stream_may_finish() -> None:
    async def answer(request: Request) -> AsyncIterator[str]:
        for word in ("this", "is", "long"):
            yield word
            await anyio.sleep(20)
        assert request.closing

    app = EventStream(answer, on_shutdown="finish", farewell=BYE)
    async with connect(app) as stream:
        await anyio.sleep(10)
        assert await drain() == (1, 0, 0)
        assert anyio.current_time() == 60
        assert [event.data for event in await stream.take(4)] == ["this", "is", "long", "bye"]


async def test_unless_it_must_not() -> None:
    async with connect(EventStream(unaware, on_shutdown="finish")) as stream:
        counts = await current_open_streams().drain(finish=False)

        assert counts == (0, 1, 0)
        assert stream.complete


async def test_a_drain_may_be_given_up() -> None:
    async with connect(EventStream(endless, shutdown_grace=5)) as stream:
        with anyio.move_on_after(1):
            await drain()

        assert anyio.current_time() == 1
        assert not stream.complete
        # It goes on closing.
        await stream.wait_closed()
        assert anyio.current_time() == 5


async def test_two_drains_are_one() -> None:
    async with connect(EventStream(polite)):
        results: list[Any] = []

        async def note() -> None:
            results.append((await drain(), anyio.current_time()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(note)
            await anyio.sleep(0.2)
            tasks.start_soon(note)

    assert results == [((1, 0, 0), 0.5), ((1, 0, 0), 0.5)]


async def test_a_stream_that_is_being_closed_slowly_is_hurried() -> None:
    """
    request.close() leaves it to the send timeout; but a server that stops cannot wait.
    """

    async def source(request: Request) -> AsyncIterator[str]:
        requests.append(request)
        yield "a"
        await anyio.sleep(1)
        yield "b"
        await anyio.sleep_forever()

    requests: list[Request] = []
    async with connect(EventStream(source)) as stream:
        stream.stall()
        await anyio.sleep(2)
        requests[0].close()
        await anyio.sleep(3)
        counts = await drain()

        assert counts == (0, 1, 0)
        assert anyio.current_time() == 6
        assert not stream.complete


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grace": -1}, ValueError, "grace must be"),
        ({"grace": math.inf}, ValueError, "grace must be"),
        ({"grace": "1"}, TypeError, "grace must be"),
        ({"farewell": "bye"}, TypeError, "farewell must be"),
        ({"reason": "because"}, ValueError, "reason must be"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    arguments: Any, error: type[Exception], message: str
) -> None:
    async with connect(EventStream(unaware)) as stream:
        with pytest.raises(error, match=message):
            await drain(**arguments)

        assert not stream.complete


# Some of them.


async def who(request: Request) -> Any:
    request.meta["user"] = request.query["user"]
    return endless(request)


async def test_some_streams_are_closed() -> None:
    ends: list[Closed] = []
    app = EventStream(who, on_close=ends.append, farewell=BYE)
    async with connect(app, query="user=ada") as ada, connect(app, query="user=bob") as bob:
        await anyio.sleep(1)
        count = await close_streams(
            lambda request: request.meta["user"] == "ada",
            event=ServerSentEvent("out", event="revoked"),
        )

        assert count == 1
        # Nobody who was meant reads on.
        assert ada.closed
        assert ada.complete
        assert ada.events[-1] == ServerSentEvent("out", event="revoked")
        assert not bob.closed
        assert [(end.reason, end.meta) for end in ends] == [("revoked", {"user": "ada"})]
        assert await close_streams(lambda request: True, reason="closed") == 1
        assert bob.events[-1].data == BYE.data
        assert ends[1].reason == "closed"
        assert await close_streams(lambda request: True) == 0


async def test_one_whose_client_takes_nothing_is_cut_off() -> None:
    ends: list[Closed] = []
    async with connect(EventStream(unaware, on_close=ends.append, keep_alive=1)) as stream:
        stream.stall()
        await anyio.sleep(5)
        before = anyio.current_time()
        assert await close_streams(lambda request: True) == 1

        assert anyio.current_time() - before <= 2
        assert not stream.complete
        assert ends[0].reason == "revoked"


@pytest.mark.parametrize(
    ("version", "reason", "cut"),
    [
        ("1.1", "revoked", True),
        ("2", "shutdown", True),
        ("2", "revoked", False),
        ("3", "closed", False),
    ],
)
async def test_the_connection_is_cut_where_others_of_it_are_to_go_too(
    version: str, reason: Any, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted: list[object] = []
    monkeypatch.setattr("asgi_sse._response.abort", lambda *arguments: aborted.append(arguments))
    scope = {"http_version": version}
    async with connect(EventStream(unaware, keep_alive=1), scope=scope) as stream:
        stream.stall()
        await anyio.sleep(5)
        assert await close_streams(lambda request: True, reason=reason) == 1

        assert not stream.complete

    assert bool(aborted) == cut


async def coroutine_function(_: Request) -> bool:
    return False


@pytest.mark.parametrize("where", [coroutine_function, lambda request: request.meta["user"]])
async def test_none_is_closed_by_what_is_neither_yes_nor_no(where: Any) -> None:
    """
    A coroutine that nobody awaits is true.
    """
    app = EventStream(who)
    async with connect(app, query="user=ada") as one, connect(app, query="user=bob") as other:
        await anyio.sleep(1)
        with pytest.raises(TypeError, match="where must return a bool"):
            await close_streams(where)

        assert not one.closed
        assert not other.closed


async def test_none_is_closed_when_it_cannot_be_told_which() -> None:
    app = EventStream(who)
    async with connect(app, query="user=ada") as one, connect(app, query="user=bob") as other:
        await anyio.sleep(1)
        with pytest.raises(KeyError):
            await close_streams(lambda request: request.meta["USER"] == "ada")
        for arguments, error in (
            ({"where": "ada"}, TypeError),
            ({"where": bool, "event": "out"}, TypeError),
            ({"where": bool, "reason": "because"}, ValueError),
        ):
            with pytest.raises(error):
                await close_streams(**arguments)

        assert not one.closed
        assert not other.closed


# Requests that come too late.


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({"farewell": BYE}, b":\n\n" + GOODBYE),
        ({"farewell": None, "retry": 7}, b":\nretry: 7\n"),
    ],
)
async def test_a_late_request_gets_an_answer_that_brings_it_back(
    options: Any, body: bytes
) -> None:
    ends: list[Closed] = []
    calls: list[Request] = []

    async def source(request: Request) -> AsyncIterator[str]:
        calls.append(request)
        yield "never"

    async with connect(EventStream(polite)), anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        await anyio.sleep(0.1)
        async with connect(EventStream(source, on_close=ends.append, **options)) as late:
            await late.wait_closed()
            assert late.status == 200
            assert late.body == body
            assert late.complete

    # There was nothing to close.
    assert calls == []
    assert ends == []


@pytest.mark.parametrize("farewell", [None, ServerSentEvent("bye")])
async def test_a_late_client_is_told_not_to_come_back_at_once(farewell: Any) -> None:
    async with connect(EventStream(polite)), anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        await anyio.sleep(0.1)
        async with connect(EventStream(unaware, farewell=farewell)) as late:
            await late.wait_closed()
            assert 1000 <= late.reconnection_time <= 5000
            assert late.complete

    # When it is over, streams are welcome again.
    async with connect(EventStream(unaware)) as stream:
        assert await stream.next_event() == ServerSentEvent("a")


async def test_hypercorn_has_the_whole_of_a_late_request_before_the_answer() -> None:
    """
    Or else it would drop the connection, and other streams in their last words.
    """
    sent: list[int] = []
    server = Server({"type": "http.request", "body": b"x", "more_body": True}, NO_BODY)

    async def send(message: Any) -> None:
        sent.append(len(server.inbox))

    scope = http_scope("POST", extensions={"http.response.push": {}})
    async with connect(EventStream(polite)), anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        await anyio.sleep(0.1)
        await EventStream(unaware, methods=["POST"])(scope, server.receive, send)

    assert sent == [0, 0]


# A stop that is learnt.


async def test_at_a_signal_all_streams_say_goodbye(server: list[int]) -> None:
    ends: list[Closed] = []
    before = signal.getsignal(signal.SIGTERM)
    app = EventStream(polite, farewell=BYE, on_close=ends.append)
    async with connect(app) as first, connect(app) as second:
        signal.raise_signal(signal.SIGTERM)
        assert server == [signal.SIGTERM]
        await first.wait_closed()
        await second.wait_closed()

        assert first.body == second.body == b":\n\ndata: a\n\ndata: last words\n\n" + GOODBYE
        assert first.complete

    assert [closed.reason for closed in ends] == ["shutdown"] * 2
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_stop_is_learnt_by_streams_in_their_setup_too() -> None:
    async def setup(request: Request) -> Any:
        await anyio.sleep_forever()

    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.call, EventStream(setup, farewell=BYE))
        await anyio.sleep(1)
        assert server.sent == []
        signal.raise_signal(signal.SIGTERM)

    assert server.sent[0]["status"] == 200
    assert server.body == b":\n\n" + GOODBYE
    assert not server.sent[-1]["more_body"]


async def test_soon_after_a_stop_requests_come_too_late() -> None:
    async with connect(EventStream(unaware)) as stream:
        signal.raise_signal(signal.SIGTERM)
        await stream.wait_closed()
    for _ in range(4):
        await anyio.sleep(1)
        async with connect(EventStream(unaware, farewell=BYE), lifespan=False) as late:
            await late.wait_closed()
            assert late.body == b":\n\n" + GOODBYE

    # Then it was another signal, and the server lives on.
    await anyio.sleep(1)
    async with connect(EventStream(unaware), lifespan=False) as stream:
        assert await stream.next_event() == ServerSentEvent("a")


@pytest.mark.parametrize("how", ["option", "environment"])
async def test_learning_can_be_switched_off(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "environment":
        monkeypatch.setenv(SWITCH, "0")
    app = EventStream(unaware, watch_shutdown=how != "option")
    async with connect(app) as stream:
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(10)

        assert not stream.complete
        # Others may tell it.
        await drain()
        assert stream.complete


async def test_what_others_learn_is_no_concern_of_a_stream_that_does_not_want_to() -> None:
    deaf = EventStream(unaware, watch_shutdown=False)
    async with connect(deaf) as stream, connect(EventStream(unaware)) as other:
        signal.raise_signal(signal.SIGTERM)
        await other.wait_closed()
        await anyio.sleep(1)
        assert not stream.complete
        async with connect(deaf, lifespan=False) as late:
            assert await late.next_event() == ServerSentEvent("a")


async def test_a_function_may_say_when(server: list[int]) -> None:
    stop = anyio.Event()
    app = EventStream(unaware, watch_shutdown=stop.wait, farewell=BYE)
    async with connect(app) as stream:
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(1)
        assert server == [signal.SIGTERM]
        assert not stream.complete
        stop.set()
        await stream.wait_closed()
        assert stream.complete
    async with connect(app, lifespan=False) as late:
        await late.wait_closed()
        assert late.body == b":\n\n" + GOODBYE


async def test_a_function_that_has_said_so_is_asked_again() -> None:
    stop = anyio.Event()
    finishing = EventStream(unaware, watch_shutdown=stop.wait, on_shutdown="finish")
    async with connect(finishing) as stream:
        stop.set()
        await anyio.sleep(60)
        async with connect(EventStream(unaware, watch_shutdown=stop.wait)) as late:
            await late.wait_closed()
            assert late.complete
        assert not stream.complete


# Servers that can be asked.


class Flag:
    """
    Stands for a server: ``set`` when it stops.
    """

    def __init__(self) -> None:
        self.set = False

    def is_set(self) -> bool:
        return self.set


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> list[Flag]:
    """
    Two servers, on the ports 0 and 1.
    """
    flags = [Flag(), Flag()]

    def find(address: Any, send: Any, runtime: Any) -> list[Stop]:
        return [Stop(flags[send.port].is_set)]

    monkeypatch.setattr("asgi_sse._watch.find_stops", find)
    return flags


class Client:
    """
    Makes a request to the server on a port, and keeps what it answers.
    """

    def __init__(self, app: Any, port: int) -> None:
        self.server = Server()
        self._app = app
        self._port = port

    async def __call__(self) -> None:
        client = self

        class Send:
            port = client._port

            async def __call__(self, message: Any) -> None:
                await client.server.send(message)

        scope = http_scope(server=("127.0.0.1", self._port))
        await self._app(scope, self.server.receive, Send())

    @property
    def data(self) -> bytes:
        return self.server.body

    @property
    def complete(self) -> bool:
        return not self.server.sent[-1].get("more_body", True)


async def test_a_server_that_stops_without_a_signal_is_noticed(flags: list[Flag]) -> None:
    client = Client(EventStream(unaware, farewell=BYE), 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client)
        await anyio.sleep(1)
        flags[0].set = True

    assert client.data == b":\n\ndata: a\n\n" + GOODBYE
    assert client.complete


async def test_a_server_that_is_stopping_when_the_first_request_comes(flags: list[Flag]) -> None:
    flags[0].set = True
    client = Client(EventStream(unaware, farewell=BYE), 0)
    await client()

    assert client.data == b":\n\n" + GOODBYE


async def test_a_request_that_finds_the_server_stopping_tells_the_others(
    flags: list[Flag],
) -> None:
    clients = [Client(EventStream(unaware, farewell=BYE), 0) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clients[0])
        await anyio.sleep(1)
        flags[0].set = True
        # Before it is asked the next time.
        await clients[1]()
        await anyio.sleep(0.01)
        assert clients[0].complete
        await clients[2]()

    assert clients[1].data == clients[2].data == b":\n\n" + GOODBYE


async def test_the_next_server_is_not_the_one_that_has_stopped(flags: list[Flag]) -> None:
    app = EventStream(unaware, farewell=BYE)
    first, late, second = Client(app, 0), Client(app, 0), Client(app, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.sleep(1)
        flags[0].set = True
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(0.1)
        assert first.complete
        await late()
        assert late.data == b":\n\n" + GOODBYE

        # It can be asked, and so what was heard a moment ago does not count.
        tasks.start_soon(second)
        await anyio.sleep(60)
        assert second.data.startswith(b":\n\ndata: a\n\n")
        assert not second.complete
        flags[1].set = True

    assert second.complete


async def test_a_server_that_has_stopped_is_not_asked_any_more(flags: list[Flag]) -> None:
    """
    While an app is told of its lifespan, that is watched all the time.
    """
    streams = current_open_streams()
    streams.begin_lifespan(True)
    app = EventStream(unaware, farewell=BYE)
    first, second = Client(app, 0), Client(app, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.sleep(1)
        flags[0].set = True
        await anyio.sleep(1)
        assert first.complete
        tasks.start_soon(second)
        await anyio.sleep(60)
        assert not second.complete
        await drain()
    streams.end_lifespan()
    assert await count_tasks() >= 1


# The lifespan.


async def run_lifespan(app: EventStream, between: Callable[[], Any]) -> None:
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        message = next(messages)
        if message == "lifespan.shutdown":
            await between()
        return {"type": message}

    async def send(message: Any) -> None: ...

    await app({"type": "lifespan"}, receive, send)


async def test_from_its_startup_on_an_app_watches(server: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def serve() -> None:
        assert signal.getsignal(signal.SIGTERM) is not before
        # A signal while there is no stream: those that come now come too late.
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(0.1)
        async with connect(EventStream(unaware, farewell=BYE), lifespan=False) as late:
            await late.wait_closed()
            assert late.body == b":\n\n" + GOODBYE

    await run_lifespan(EventStream(unaware), serve)

    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_new_lifespan_is_a_new_beginning() -> None:
    async with connect(EventStream(unaware)) as stream:
        signal.raise_signal(signal.SIGTERM)
        await stream.wait_closed()

    async def serve() -> None:
        async with connect(EventStream(unaware), lifespan=False) as stream:
            assert await stream.next_event() == ServerSentEvent("a")

    await run_lifespan(EventStream(unaware), serve)


async def test_each_event_loop_has_its_own(server: list[int]) -> None:
    streams = current_open_streams()

    assert isinstance(streams, OpenStreams)
    assert current_open_streams() is streams
    assert len(streams) == 0
