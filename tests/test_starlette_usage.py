"""
What programs do with sse-starlette, they can do here: each test is a way of using it.

They are told after programs that people publish: servers of language models, chats, job
queues, agents, log viewers; none is a copy of one.
"""

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectSendStream
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asgi_sse.starlette import (
    AppStatus,
    ContentStream,
    EventSourceResponse,
    JSONServerSentEvent,
    SendTimeoutError,
    ServerSentEvent,
    ensure_bytes,
)
from asgi_sse.testing import Stream, connect


def app_of(endpoint: Any) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)])


async def read(app: Any, **options: Any) -> Stream:
    async with connect(app, **options) as stream:
        await stream.wait_closed()
        # Seen, and for the caller to judge.
        _ = stream.error
    return stream


def data_of(stream: Stream) -> list[str | None]:
    return [event.data for event in stream.events]


class Prompt(BaseModel):
    text: str


@pytest.mark.parametrize("text", ["hello you", "fail"])
async def test_server_of_a_language_model_tells_of_its_errors_itself(text: str) -> None:
    router = APIRouter(prefix="/v1")

    async def answer(prompt: Prompt) -> AsyncIterator[dict[str, str]]:
        try:
            for word in prompt.text.split():
                if word == "fail":
                    raise RuntimeError("out of memory")
                yield {"event": "token", "data": json.dumps({"text": word})}
        except RuntimeError as exc:
            yield {"event": "error", "data": str(exc)}
        else:
            yield {"data": "[DONE]"}

    @router.post("/chat")
    async def chat(prompt: Prompt, tasks: BackgroundTasks) -> EventSourceResponse:
        return EventSourceResponse(answer(prompt), headers={"X-Accel-Buffering": "no"}, ping=1000)

    app = FastAPI()
    app.include_router(router)
    stream = await read(app, path="/v1/chat", method="POST", json={"text": text})

    assert data_of(stream)[-1] == ("out of memory" if text == "fail" else "[DONE]")
    assert stream.complete


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_queue_for_each_subscriber_with_a_heartbeat_of_its_own() -> None:
    queues: list[asyncio.Queue[str]] = []

    async def events() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.append(queue)
        try:
            while True:
                try:
                    yield {"event": "job", "data": await asyncio.wait_for(queue.get(), 3)}
                except TimeoutError:
                    yield {"event": "ping", "data": ""}
        except asyncio.CancelledError:
            pass
        finally:
            queues.remove(queue)

    async def endpoint(request: Request) -> Response:
        return EventSourceResponse(events())

    async with connect(app_of(endpoint)) as stream:
        await anyio.sleep(1)
        queues[0].put_nowait("done")
        first, second = await stream.take(2)
        stream.disconnect()
        await stream.wait_closed()

    assert (first.event, second.event) == ("job", "ping")
    assert queues == []


async def test_generator_asks_whether_the_client_has_left() -> None:
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                while not await request.is_disconnected():
                    yield "tick"
                    await anyio.sleep(1)
            finally:
                # As for a pubsub.unsubscribe().
                await anyio.sleep(1)
                log.append("closed")

        return EventSourceResponse(events())

    async with connect(app_of(endpoint)) as stream:
        await stream.take(3)
        stream.disconnect()
        await stream.wait_closed()

    assert log == ["closed"]


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_publisher_that_cancels_itself_when_the_client_has_left(leave: bool) -> None:
    """
    This is how servers of local language models have it.
    """
    ended: list[str] = []

    async def publish(request: Request, channel: MemoryObjectSendStream[Any]) -> None:
        async with channel:
            try:
                for n in range(3):
                    await channel.send({"data": n})
                    await anyio.sleep(1)
                    if await request.is_disconnected():
                        raise anyio.get_cancelled_exc_class()
                await channel.send({"data": "[DONE]"})
            finally:
                ended.append("publisher")

    async def endpoint(request: Request) -> Response:
        send, receive = anyio.create_memory_object_stream[Any](10)
        return EventSourceResponse(
            receive,
            data_sender_callable=partial(publish, request, send),
            sep="\n",
            ping_message_factory=lambda: "ping",
        )

    async with connect(app_of(endpoint)) as stream:
        await stream.take(2)
        if leave:
            stream.disconnect()
        await stream.wait_closed()

    assert ended == ["publisher"]
    assert leave or data_of(stream) == ["0", "1", "2", "[DONE]"]


async def test_task_and_queue_within_a_generator() -> None:
    """
    A task group in a generator stays in the task that has made it.
    """
    stopped: list[str] = []

    async def work(send: MemoryObjectSendStream[str]) -> None:
        try:
            async with send:
                for n in range(3):
                    await send.send(f"{n}")
                    await anyio.sleep(1)
        finally:
            stopped.append("worker")

    async def events() -> AsyncIterator[str]:
        send, receive = anyio.create_memory_object_stream[str](0)
        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(work, send)
            async for text in receive:
                yield text

    async def endpoint(request: Request) -> Response:
        return EventSourceResponse(events())

    assert data_of(await read(app_of(endpoint))) == ["0", "1", "2"]
    async with connect(app_of(endpoint)) as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.wait_closed()
    assert stopped == ["worker", "worker"]


async def test_response_is_called_as_an_application() -> None:
    """
    An MCP server does, with headers of its own, and goes on when it returns.
    """
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        writer, reader = anyio.create_memory_object_stream[dict[str, Any]](0)

        async def sender() -> None:
            async with writer:
                await writer.send({"id": "1", "data": ""})
                await writer.send({"event": "message", "data": "{}", "retry": 5})

        headers = {
            "Cache-Control": "no-cache, no-transform",
            "Content-Type": "text/event-stream",
            "mcp-session-id": "7",
        }
        response = EventSourceResponse(
            content=reader, data_sender_callable=sender, headers=headers
        )
        await response(scope, receive, send)
        log.append("returned")

    stream = await read(app)

    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.body == b"id: 1\r\ndata: \r\n\r\nevent: message\r\ndata: {}\r\nretry: 5\r\n\r\n"
    assert log == ["returned"]


def test_subclass_names_its_media_type_for_openapi() -> None:
    class Documented(EventSourceResponse):
        media_type = "text/event-stream"

    app = FastAPI()

    @app.get("/ours", response_class=EventSourceResponse)
    @app.get("/theirs", response_class=Documented)
    async def endpoint() -> Response:
        return EventSourceResponse([])

    for path in ("/ours", "/theirs"):
        operation = app.openapi()["paths"][path]["get"]
        assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]


async def test_subclass_wraps_receive_and_send() -> None:
    log: list[str] = []

    class Guarded(EventSourceResponse):
        def __init__(self, content: ContentStream, *, who: str, **kwargs: Any) -> None:
            self.who = who
            super().__init__(content, **kwargs)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def only_disconnects() -> Any:
                # A guard against servers that repeat themselves without ever waiting.
                while (message := await receive())["type"] != "http.disconnect":  # noqa: ASYNC110
                    await anyio.sleep(0.5)
                return message

            async def counting(message: Any) -> None:
                log.append(message["type"])
                await send(message)

            try:
                await super().__call__(scope, only_disconnects, counting)
            finally:
                log.append(f"{self.who} has left")

    async def endpoint(request: Request) -> Response:
        return Guarded(forever(), who="anna")

    async with connect(app_of(endpoint)) as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.wait_closed()

    assert log == ["http.response.start", "http.response.body", "anna has left"]


async def forever() -> AsyncIterator[str]:
    while True:
        yield "tick"
        await anyio.sleep(1)


async def test_body_and_handler_are_replaced_before_the_response_is_sent() -> None:
    """
    As a gateway does that has to free a model when its client has left.
    """
    freed: list[str] = []

    async def counted(items: Any) -> AsyncIterator[Any]:
        n = 0
        async for item in items:
            n += 1
            yield f"{n} {item}"

    async def free(message: Any) -> None:
        freed.append(message["type"])

    async def endpoint(request: Request) -> Response:
        response = EventSourceResponse(forever(), ping=600)
        response.body_iterator = counted(response.body_iterator)
        response.client_close_handler_callable = free
        return response

    async with connect(app_of(endpoint)) as stream:
        assert (await stream.next_event()).data == "1 tick"
        stream.disconnect()
        await stream.wait_closed()

    assert freed == ["http.disconnect"]


async def test_events_are_written_without_the_response() -> None:
    async def endpoint(request: Request) -> Response:
        async def blocks() -> AsyncIterator[bytes]:
            yield ServerSentEvent(comment="open").encode()
            yield ensure_bytes({"data": "a", "event": "b"}, None)
            yield JSONServerSentEvent(data=[1], id="2").encode()

        return StreamingResponse(blocks(), media_type="text/event-stream")

    stream = await read(app_of(endpoint))

    assert stream.body == b": open\r\n\r\nevent: b\r\ndata: a\r\n\r\nid: 2\r\ndata: [1]\r\n\r\n"


@pytest.mark.real_time
@pytest.mark.parametrize("content", [forever, lambda: iter(["tick"])], ids=["async", "sync"])
async def test_unit_test_reads_the_body_iterator(content: Any) -> None:
    response = EventSourceResponse(content())

    async for item in response.body_iterator:
        assert item == "tick"
        break
    with suppress(AttributeError):
        await response.body_iterator.aclose()  # type: ignore[attr-defined]
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"


async def test_endpoint_is_a_class() -> None:
    class Log(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            last = request.headers.get("last-event-id", "0")
            lines = ({"id": f"{n}", "data": f"line {n}"} for n in range(int(last) + 1, 4))
            return EventSourceResponse(as_async(lines))

    stream = await read(app_of(Log), last_event_id="1")

    assert [(event.id, event.data) for event in stream.events] == [
        ("2", "line 2"),
        ("3", "line 3"),
    ]


async def as_async(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.real_time
async def test_endpoint_and_generator_are_sync() -> None:
    app = FastAPI()

    @app.get("/")
    def endpoint(count: int = 2) -> EventSourceResponse:
        def tokens() -> Iterator[str]:
            yield from map(str, range(count))

        return EventSourceResponse(tokens(), media_type="text/event-stream")

    assert data_of(await read(app)) == ["0", "1"]


async def test_client_is_turned_away_before_there_is_a_response() -> None:
    async def user(request: Request) -> str:
        if "authorization" not in request.headers:
            raise HTTPException(401, "who are you?")
        return "anna"

    app = FastAPI()

    @app.get("/")
    async def endpoint(user: str = Depends(user)) -> EventSourceResponse:
        if user != "bert":
            raise HTTPException(404, "no such session")
        return EventSourceResponse(forever())

    assert (await read(app)).status == 401
    assert (await read(app, headers={"authorization": "x"})).status == 404


async def test_timeout_of_a_client_that_reads_nothing_is_handled_around_the_response() -> None:
    log: list[str] = []

    class Settled(EventSourceResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError:
                log.append("too slow")
            finally:
                log.append("settled")

    async def endpoint(request: Request) -> Response:
        async def large() -> AsyncIterator[str]:
            while True:
                yield "x" * 100_000
                await anyio.sleep(0.1)

        return Settled(large(), send_timeout=2, background=BackgroundTask(print))

    async with connect(app_of(endpoint)) as stream:
        stream.stall()
        await stream.wait_closed()

    assert log == ["too slow", "settled"]


async def test_connection_is_held_by_the_generator_and_given_back() -> None:
    log: list[str] = []
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    @asynccontextmanager
    async def subscribed(channel: str) -> AsyncIterator[AsyncIterator[str]]:
        log.append(f"subscribed to {channel}")
        try:
            yield forever()
        finally:
            await anyio.sleep(1)
            log.append("unsubscribed")

    async def endpoint(request: Request) -> Response:
        who.set("anna")

        async def events() -> AsyncIterator[dict[str, str]]:
            yield {"event": "connected", "data": who.get()}
            async with subscribed("news") as messages:
                async for text in messages:
                    yield {"event": "news", "data": text}

        return EventSourceResponse(events())

    async with connect(app_of(endpoint)) as stream:
        first, second = await stream.take(2)
        stream.disconnect()
        await stream.wait_closed()

    assert (first.data, second.data) == ("anna", "tick")
    assert log == ["subscribed to news", "unsubscribed"]


async def test_fixture_resets_the_switches_between_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_sse.starlette.AppStatus.should_exit", True)
    AppStatus.should_exit = False
    AppStatus.should_exit_event = anyio.Event()

    async def endpoint(request: Request) -> Response:
        return EventSourceResponse(as_async(iter("ab")))

    assert data_of(await read(app_of(endpoint))) == ["a", "b"]
    AppStatus.should_exit_event = None
