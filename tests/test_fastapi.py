"""
What a path operation yields reaches the client as it was declared, and OpenAPI says so.
"""

import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial, wraps
from typing import Annotated, Any, Literal, assert_type

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

import asgi_sse
from asgi_sse import Channel, Limiter, Refused, Request, drain
from asgi_sse._options import Options
from asgi_sse.fastapi import (
    EventSourceResponse,
    EventStreamRoute,
    EventType,
    LastEventID,
    ServerSentEvent,
    StreamRequest,
    format_sse_event,
)
from asgi_sse.testing import connect


class Venue(BaseModel):
    name: str


class Tick(BaseModel):
    n: int
    venue: Venue | None = None


class Trade(BaseModel):
    price: float = Field(serialization_alias="p")


class BigTrade(Trade):
    size: int = 1


@dataclass
class Quote:
    bid: float


class Up(BaseModel):
    kind: Literal["up"] = "up"


class Down(BaseModel):
    kind: Literal["down"] = "down"


Either = Annotated[Up | Down, Field(discriminator="kind")]

# "type Named = Up | Down", as soon as it may be written so
Named = TypeAliasType("Named", Up | Down)


def app_of(
    endpoint: Any, response_class: type[Any] = EventSourceResponse, **route: Any
) -> FastAPI:
    app = FastAPI()
    app.router.route_class = EventStreamRoute
    app.get("/", response_class=response_class, **route)(endpoint)
    return app


async def body_of(endpoint: Any, **route: Any) -> bytes:
    async with connect(app_of(endpoint, **route)) as stream:
        await stream.wait_closed()
    assert stream.complete
    return stream.body.removeprefix(b":\n\n")


def item_schema(app: FastAPI, path: str = "/", method: str = "get") -> Any:
    document = app.openapi()
    content = document["paths"][path][method]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
    assert list(content["text/event-stream"]) == ["itemSchema"]
    schema = content["text/event-stream"]["itemSchema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def event_schema(content: Any, event: str | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": content,
            },
            "event": {"type": "string"} | ({} if event is None else {"const": event}),
            "id": {"type": "string"},
            "retry": {"type": "integer", "minimum": 0},
        },
        "required": ["data"] if event is None else ["data", "event"],
    }


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# Items


async def test_items_are_validated_and_written_by_their_type() -> None:
    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)
        yield {"n": "2", "venue": {"name": "ü"}}  # type: ignore[misc]

    assert await body_of(ticks) == (
        b'data: {"n":1,"venue":null}\n\ndata: {"n":2,"venue":{"name":"\xc3\xbc"}}\n\n'
    )


async def test_item_of_another_type_ends_the_stream() -> None:
    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)
        yield {"m": 2}  # type: ignore[misc]

    async with connect(app_of(ticks)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, ResponseValidationError)
        assert stream.error.body == {"m": 2}
    # The event before it is not lost, as it is with FastAPI.
    assert stream.body == b':\n\ndata: {"n":1,"venue":null}\n\n'
    assert not stream.complete


@pytest.mark.parametrize(
    ("annotation", "item", "wire"),
    [
        pytest.param(AsyncIterator[str], "a\nb", rb'data: "a\nb"', id="str"),
        pytest.param(AsyncIterator[int], "7", b"data: 7", id="int"),
        pytest.param(AsyncIterable[Quote], Quote(1), b'data: {"bid":1.0}', id="dataclass"),
        pytest.param(AsyncIterator[Any], {"a": float("nan")}, b'data: {"a":null}', id="any"),
        pytest.param(None, [1, "b"], b'data: [1,"b"]', id="not-declared"),
        pytest.param(AsyncIterator[Trade], Trade(price=1), b'data: {"p":1.0}', id="serialization-alias"),
        pytest.param(AsyncIterator[int | None], None, b"data: null", id="none"),
        pytest.param(AsyncIterator[Tick | None], Tick(n=1), b'event: Tick\ndata: {"n":1,"venue":null}', id="optional"),
        pytest.param(AsyncIterator[Tick | Trade], Trade(price=1), b'event: Trade\ndata: {"p":1.0}', id="union"),
        pytest.param(AsyncIterator[Tick | Trade], {"n": 1}, b'event: Tick\ndata: {"n":1,"venue":null}', id="union-of-dict"),
        pytest.param(AsyncIterator[Tick | Trade], BigTrade(price=1), b'event: Trade\ndata: {"p":1.0}', id="subclass"),
        pytest.param(AsyncIterator[Tick | int], 1, b"data: 1", id="union-with-a-number"),
        pytest.param(AsyncIterator[Either], {"kind": "down"}, b'event: Down\ndata: {"kind":"down"}', id="discriminator"),
        pytest.param(AsyncIterator[Named], Up(), b'event: Up\ndata: {"kind":"up"}', id="type-alias"),
        pytest.param(AsyncIterator[Annotated[Tick, EventType("t")]], Tick(n=1), b'event: t\ndata: {"n":1,"venue":null}', id="type-of-one"),
        pytest.param(AsyncIterator[Annotated[Tick, EventType("t")] | Quote], Tick(n=1), b'event: t\ndata: {"n":1,"venue":null}', id="type-of-one-in-a-union"),
        pytest.param(AsyncIterator[Annotated[int, Field(ge=1)]], 1, b"data: 1", id="other-metadata"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_item_becomes_bytes(annotation: Any, item: Any, wire: bytes) -> None:
    async def items() -> Any:
        yield item

    if annotation is None:
        del items.__annotations__["return"]
    else:
        items.__annotations__["return"] = annotation

    assert await body_of(items) == wire + b"\n\n"


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (ServerSentEvent(data="a", id="1"), b'id: 1\ndata: "a"\n\n'),
        (ServerSentEvent(data=Tick(n=1), event="t"), b'event: t\ndata: {"n":1,"venue":null}\n\n'),
        (ServerSentEvent(raw_data="a\nb"), b"data: a\ndata: b\n\n"),
        (ServerSentEvent(comment="c"), b": c\n"),
        (ServerSentEvent(retry=0), b"retry: 0\n"),
        (ServerSentEvent(id=""), b"id: \n\n"),
        (asgi_sse.ServerSentEvent("a", id=1), b"id: 1\ndata: a\n\n"),
    ],
)
async def test_events_go_out_as_they_are(event: Any, wire: bytes) -> None:
    async def items() -> AsyncIterator[Tick | ServerSentEvent | asgi_sse.ServerSentEvent]:
        yield event

    assert await body_of(items) == wire


async def test_events_alone_may_be_declared() -> None:
    async def items() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(data=1)
        yield 2  # type: ignore[misc]

    assert await body_of(items) == b"data: 1\n\ndata: 2\n\n"
    assert "contentSchema" not in json.dumps(item_schema(app_of(items)))


async def test_options_of_the_response_model_count() -> None:
    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    assert await body_of(ticks, response_model_exclude_none=True) == b'data: {"n":1}\n\n'


def test_event_type_is_a_single_line() -> None:
    with pytest.raises(ValueError, match="event must be a single line"):
        EventType("a\nb")


# Path operations


@pytest.mark.real_time
async def test_generator_may_be_sync() -> None:
    def ticks() -> Iterator[Tick]:
        yield Tick(n=1)
        yield Tick(n=2)

    assert (await body_of(ticks)).count(b"data:") == 2


async def test_parameters_and_any_method() -> None:
    async def token(q: str) -> AsyncIterator[str]:
        yield f"token of {q}"

    app = FastAPI()

    @app.post("/{room}", response_class=EventSourceResponse)
    async def chat(
        room: int,
        tick: Tick,
        who: Annotated[str, Depends(token)],
        last_event_id: LastEventID,
        response: Response,
    ) -> AsyncIterator[dict[str, Any]]:
        yield {"room": room, "n": tick.n, "who": who, "last": last_event_id}

    async with connect(
        app, "/7?q=x", method="POST", json={"n": 3}, last_event_id="42ü", headers={}
    ) as stream:
        event = await stream.next_event()

    assert json.loads(event.data or "") == {
        "room": 7,
        "n": 3,
        "who": "token of x",
        "last": "42ü",
    }
    async with connect(app, "/seven", method="POST") as stream:
        assert stream.status == 422


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
async def test_any_method_may_have_a_stream(method: str) -> None:
    app = FastAPI()
    app.router.route_class = EventStreamRoute

    @app.api_route("/", methods=[method], response_class=EventSourceResponse)
    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    async with connect(app, method=method) as stream:
        assert (await stream.next_event()).data == '{"n":1,"venue":null}'


async def test_last_event_id_may_stand_in_the_query() -> None:
    async def ids(last: LastEventID) -> AsyncIterator[str | None]:
        yield last

    async with connect(app_of(ids), "/?lastEventId=9") as stream:
        assert (await stream.next_event()).data == '"9"'
    async with connect(app_of(ids)) as stream:
        assert (await stream.next_event()).data == "null"


async def test_headers() -> None:
    async def add(response: Response) -> None:
        response.headers["cache-control"] = "no-store"
        response.set_cookie("a", "b")

    async def items(_: Annotated[None, Depends(add)]) -> AsyncIterator[int]:
        yield 1

    response_class = EventSourceResponse.with_options(headers={"x-a": "b"}, retry=5)
    async with connect(app_of(items, response_class, status_code=201)) as stream:
        await stream.wait_closed()

    assert stream.status == 201
    assert dict(stream.headers) == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
        "set-cookie": "a=b; Path=/; SameSite=lax",
        "x-a": "b",
    }
    assert stream.body == b":\nretry: 5\ndata: 1\n\n"


@pytest.mark.parametrize("seconds", [0, 4])
async def test_headers_may_be_set_until_the_first_event(seconds: float) -> None:
    """
    FastAPI sends those that it has when the path operation is called.
    """

    async def add(response: Response) -> None:
        response.headers["x-a"] = "dependency"
        response.headers["x-b"] = "dependency"

    async def items(response: Response, _: Annotated[None, Depends(add)]) -> AsyncIterator[int]:
        await anyio.sleep(seconds)
        response.headers["x-b"] = "path operation"
        response.headers["cache-control"] = "no-store"
        response.set_cookie("a", "b")
        response.set_cookie("c", "d")
        response.status_code = 202
        yield 1
        await anyio.sleep(1)
        response.headers["x-c"] = "too late"

    async with connect(app_of(items)) as stream:
        await stream.wait_closed()

    assert stream.status == 202
    assert sorted(stream.messages[0]["headers"]) == [
        (b"cache-control", b"no-store"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"set-cookie", b"a=b; Path=/; SameSite=lax"),
        (b"set-cookie", b"c=d; Path=/; SameSite=lax"),
        (b"x-a", b"dependency"),
        (b"x-accel-buffering", b"no"),
        (b"x-b", b"path operation"),
    ]


async def test_headers_of_the_stream_are_not_those_of_a_refusal() -> None:
    async def items(response: Response) -> AsyncIterator[int]:
        response.headers["x-a"] = "b"
        response.status_code = 202
        raise Refused(403, "not you")
        yield 1

    async with connect(app_of(items)) as stream:
        await stream.wait_closed()

    assert (stream.status, stream.body) == (403, b"not you")
    assert "x-a" not in stream.headers


async def test_headers_may_be_set_by_the_request_without_the_route_class() -> None:
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def items(request: StreamRequest) -> AsyncIterator[int]:
        request.response_headers["x-a"] = "b"
        yield 1

    async with connect(app) as stream:
        assert stream.headers["x-a"] == "b"


@pytest.mark.parametrize("seconds", [0, 4])
@pytest.mark.parametrize("where", ["dependency", "path operation"])
async def test_http_exception_before_the_first_event_gives_its_status(
    seconds: float, where: str
) -> None:
    """
    FastAPI answers 200 when it comes from the path operation.
    """

    async def refuse(here: str) -> None:
        if here == where:
            await anyio.sleep(seconds)
            raise HTTPException(404, "no such room", {"x-a": "b"})

    async def items(
        _: Annotated[None, Depends(partial(refuse, "dependency"))],
    ) -> AsyncIterator[int]:
        await refuse("path operation")
        yield 1

    async with connect(app_of(items)) as stream:
        await stream.wait_closed()

    assert stream.status == 404
    assert stream.headers["x-a"] == "b"
    assert stream.problems == []


async def test_response_starts_without_an_event_after_the_delay() -> None:
    async def items() -> AsyncIterator[int]:
        await anyio.sleep(7)
        yield 1

    async with connect(app_of(items)) as stream:
        await stream.next_event(10)
    assert [(chunk.time, chunk.body) for chunk in stream.chunks] == [
        (5, b":\n\n"),
        (7, b"data: 1\n\n"),
    ]

    options = EventSourceResponse.with_options(open_delay=0)
    async with connect(app_of(items, options)) as stream:
        await stream.next_event(10)
    assert [chunk.time for chunk in stream.chunks] == [0, 7]


@pytest.mark.parametrize("seconds", [0, 1])
async def test_stream_without_an_event_starts_when_it_ends(seconds: float) -> None:
    async def items() -> AsyncIterator[int]:
        if seconds < 0:
            yield 1
        await anyio.sleep(seconds)

    assert await body_of(items) == b""


async def test_nothing_is_lost_when_the_generator_raises() -> None:
    """
    With FastAPI the events are lost, and what comes out is an exception group.
    """

    async def items() -> AsyncIterator[int]:
        yield 1
        raise KeyError("a")

    async with connect(app_of(items)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, KeyError)
    assert stream.body == b":\n\ndata: 1\n\n"


@pytest.mark.parametrize("stalled", [False, True])
async def test_client_that_leaves_closes_the_generator(stalled: bool) -> None:
    ended = []

    async def opened() -> AsyncIterator[str]:
        yield "open"
        ended.append("dependency")

    async def items(_: Annotated[str, Depends(opened)]) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
                await anyio.sleep(0 if stalled else 1)
        finally:
            await anyio.sleep(1)
            ended.append("generator")

    async with connect(app_of(items)) as stream:
        if stalled:
            stream.stall()
        await anyio.sleep(3)
        stream.disconnect()
        await stream.wait_closed()

    assert ended == ["generator", "dependency"]


async def test_options() -> None:
    closed: list[Any] = []
    options = EventSourceResponse.with_options(
        keep_alive=2,
        on_error=lambda exc: asgi_sse.ServerSentEvent(str(exc), event="error"),
        on_close=closed.append,
    )

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(3)
        raise ValueError("sorry")

    async with connect(app_of(items, options)) as stream:
        await stream.wait_closed()

        assert isinstance(stream.error, ValueError)
    assert stream.body == b":\n\ndata: 1\n\n:\nevent: error\ndata: sorry\n\n"
    assert [info.reason for info in closed] == ["error"]


async def test_door_is_that_of_an_event_stream() -> None:
    options = EventSourceResponse.with_options(limit=Limiter(total=1), compress=True)

    async def items() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(60)

    app = app_of(items, options)
    async with connect(app, headers={"accept-encoding": "gzip"}) as stream:
        assert stream.headers["content-encoding"] == "gzip"
        async with connect(app) as late:
            await late.wait_closed()

    assert late.body.startswith(b":\nretry: ")
    assert late.events == []


def test_types_are_kept() -> None:
    app = FastAPI()

    @app.get("/{n}", response_class=EventSourceResponse.with_options(keep_alive=5))
    async def ticks(n: int, last: LastEventID = None) -> AsyncIterator[Tick]:
        yield Tick(n=n)

    assert_type(ticks(1), AsyncIterator[Tick])
    ticks("1")  # type: ignore[arg-type]
    assert_type(EventSourceResponse.with_options(max_age=5), type[EventSourceResponse])
    with pytest.raises(TypeError):
        EventSourceResponse.with_options(status=201)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        EventSourceResponse.with_options(keep_alive="5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"status": 201}, "status is not an option here"),
        ({"methods": ["POST"]}, "methods is not an option here"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_option_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EventSourceResponse.with_options(**option)


def test_options_are_added_to_what_the_class_has() -> None:
    first = EventSourceResponse.with_options(keep_alive=5, headers={"x-a": "b"})
    second = first.with_options(max_age=3)
    third = second.with_options(open_delay=0, keep_alive=None)

    assert (first.options.max_age, second.options.max_age) == (None, 3)
    assert (first.options.keep_alive, second.options.keep_alive) == (5, 5)
    assert (b"x-a", b"b") in third.options.raw_headers
    assert (third.options.keep_alive, third.options.open_delay) == (None, 0)
    assert EventSourceResponse.options.keep_alive == 15


def test_subclass_has_an_open_delay_of_its_own() -> None:
    class AtOnce(EventSourceResponse):
        OPEN_DELAY = 0.0

    class Ticks(AtOnce.with_options(keep_alive=5)):  # type: ignore[misc]
        pass

    class Own(EventSourceResponse):
        OPEN_DELAY = 0.0
        options = Options(open_delay=1)

    assert AtOnce.options.open_delay == 0
    assert (Ticks.options.open_delay, Ticks.options.keep_alive) == (0, 5)
    assert Own.options.open_delay == 1
    assert EventSourceResponse.options.open_delay == 5


@pytest.mark.parametrize(
    ("done", "block"),
    [
        ("[DONE]", b"data: [DONE]\n\n"),
        (ServerSentEvent(event="end", data="bye"), b'event: end\ndata: "bye"\n\n'),
        (ServerSentEvent(raw_data="bye"), b"data: bye\n\n"),
        (asgi_sse.ServerSentEvent("bye", event="end"), b"event: end\ndata: bye\n\n"),
        (Trade(price=1.5), b'data: {"price":1.5}\n\n'),
        ({"day": date(2026, 1, 2)}, b'data: {"day":"2026-01-02"}\n\n'),
    ],
)
async def test_last_item_is_of_any_type(done: Any, block: bytes) -> None:
    async def items() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    response_class = EventSourceResponse.with_options(done=done)
    body = await body_of(items, response_class=response_class)

    assert body == b'data: {"n":1,"venue":null}\n\n' + block


async def test_path_operation_may_ask_whether_the_stream_is_being_closed() -> None:
    async def items(request: StreamRequest) -> AsyncIterator[str]:
        yield f"{request.closing} {await request.body()!r}"
        await request.wait_closing()
        yield f"{request.closing}"

    async with connect(app_of(items)) as stream:
        await stream.next_event()
        await drain()
        await stream.wait_closed()

    assert stream.body.startswith(b':\n\ndata: "False b\'\'"\n\ndata: "True"\n\nretry: ')
    assert stream.complete


async def test_path_operation_may_close_the_stream() -> None:
    async def items(request: StreamRequest) -> AsyncIterator[int]:
        yield 1
        request.close()
        await anyio.sleep(60)

    assert await body_of(items) == b"data: 1\n\n"


async def test_dependency_may_say_whose_stream_it_is_and_how_long() -> None:
    closed: list[Any] = []
    asked: list[Any] = []

    def may_read(request: Request) -> bool:
        asked.append(request.meta["user"])
        return True

    async def identify(request: StreamRequest) -> None:
        request.meta["user"] = "ada"
        request.expires_at = time.time() + 1000

    async def items(request: StreamRequest) -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(100)
        request.expires_at = time.time() - 1
        await anyio.sleep_forever()

    response_class = EventSourceResponse.with_options(on_close=closed.append, revalidate=may_read)
    app = app_of(items, response_class=response_class, dependencies=[Depends(identify)])
    async with connect(app, timeout=None) as stream:
        await stream.wait_closed()

    assert [(info.reason, info.meta) for info in closed] == [("expired", {"user": "ada"})]
    assert set(asked) == {"ada"}


async def test_response_may_be_returned() -> None:
    async def numbers() -> AsyncIterator[Any]:
        yield {"n": 1}

    async def items() -> EventSourceResponse:
        return EventSourceResponse(numbers(), media_type="text/event-stream")

    assert await body_of(items, response_model=None) == b'data: {"n":1}\n\n'
    # Without any framework around it.
    async with connect(EventSourceResponse(numbers())) as stream:
        assert (await stream.next_event()).data == '{"n":1}'


@pytest.mark.parametrize(
    "item",
    [
        "data: a\n\n",
        b"data: a\n\n",
        memoryview(b"data: a\n\n"),
        format_sse_event(data_str="a"),
        ServerSentEvent(raw_data="a"),
        asgi_sse.ServerSentEvent("a"),
    ],
)
async def test_what_is_framed_goes_out_as_it_is_if_a_response_is_returned(item: Any) -> None:
    """
    FastAPI encodes nothing there, so its users do.
    """

    async def items() -> AsyncIterator[Any]:
        yield item

    async def endpoint() -> EventSourceResponse:
        return EventSourceResponse(items())

    assert await body_of(endpoint) == b"data: a\n\n"


async def test_text_that_is_not_framed_is_refused_where_it_would_go_out_as_it_is() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"

    with pytest.raises(ValueError, match="did you mean to yield a ServerSentEvent"):
        async with connect(EventSourceResponse(items())):
            pass


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({"data_str": "a\nb", "event": "e", "id": "1"}, b"event: e\nid: 1\ndata: a\ndata: b\n\n"),
        ({"retry": 5}, b"retry: 5\n\n"),
        ({"comment": "c"}, b": c\n\n"),
    ],
)
def test_format_sse_event(fields: dict[str, Any], wire: bytes) -> None:
    assert format_sse_event(**fields) == wire
    with pytest.raises(ValueError, match="event must be a single line"):
        format_sse_event(event="a\ndata: b")


@pytest.mark.parametrize("form", ["returned", "yielded"])
async def test_channel_is_what_a_path_operation_gives(form: str) -> None:
    news = Channel()
    app = FastAPI()

    if form == "returned":

        @app.get("/")
        async def returned(last: LastEventID) -> EventSourceResponse:
            return EventSourceResponse(news.subscribe(last))
    else:

        @app.get("/", response_class=EventSourceResponse)
        async def yielded(last: LastEventID) -> AsyncIterator[asgi_sse.ServerSentEvent]:
            async with news.subscribe(last) as events:
                async for event in events:
                    yield event

    first = await news.publish({"n": 1})
    await news.publish({"n": 2})
    async with connect(app, last_event_id=first) as stream:
        assert (await stream.next_event()).data == '{"n":2}'


async def test_import_is_all_that_changes() -> None:
    """
    Without the route class there is only no description of the items.
    """
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def ticks() -> AsyncIterator[Tick | Trade]:
        yield Tick(n=1)

    for _ in range(2):
        async with connect(app) as stream:
            assert (await stream.next_event()).event == "Tick"
    assert "text/event-stream" in json.dumps(app.openapi())


@pytest.mark.parametrize("kind", ["partial", "wrapped", "object"])
async def test_path_operation_may_be_any_callable(kind: str) -> None:
    async def ticks(n: int = 0) -> AsyncIterator[Tick]:
        yield Tick(n=n)

    class Ticks:
        async def __call__(self) -> AsyncIterator[Tick]:
            yield Tick(n=1)

    @wraps(ticks)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return ticks(*args, **kwargs)

    endpoint: Any = {"partial": partial(ticks, n=1), "wrapped": wrapped, "object": Ticks()}[kind]
    app = app_of(endpoint)

    assert item_schema(app) == event_schema(ref("Tick"))
    async with connect(app) as stream:
        assert (await stream.next_event()).data


# OpenAPI


def test_items_are_described() -> None:
    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    app = app_of(ticks)

    assert item_schema(app) == event_schema(ref("Tick"))
    assert {"Tick", "Venue"} <= set(app.openapi()["components"]["schemas"])


def test_union_is_described_by_event_type() -> None:
    Known = Tick | Annotated[Trade, EventType("trade")] | Annotated[BigTrade, EventType("trade")]

    async def items() -> AsyncIterator[Known | Quote | int | str]:
        yield Tick(n=1)

    nameless = event_schema({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "message")
    assert item_schema(app_of(items)) == {
        "oneOf": [
            event_schema(ref("Tick"), "Tick"),
            event_schema({"anyOf": [ref("Trade"), ref("BigTrade")]}, "trade"),
            event_schema(ref("Quote"), "Quote"),
            nameless | {"required": ["data"]},
        ]
    }


def test_other_events_may_come_if_events_are_declared() -> None:
    async def items() -> AsyncIterator[Tick | ServerSentEvent]:
        yield Tick(n=1)

    one, other = item_schema(app_of(items))["anyOf"]

    assert one == event_schema(ref("Tick"))
    assert other["properties"]["data"] == {"type": "string"}


def test_items_of_any_type_are_described_as_events() -> None:
    async def items() -> Any:
        yield 1

    assert item_schema(app_of(items)) == {
        "type": "object",
        "properties": {
            "data": {"type": "string"},
            "event": {"type": "string"},
            "id": {"type": "string"},
            "retry": {"type": "integer", "minimum": 0},
        },
    }


async def test_routers_may_be_included_more_than_once() -> None:
    router = APIRouter(route_class=EventStreamRoute)

    @router.post("/ticks", response_class=EventSourceResponse)
    async def ticks(response: Response) -> AsyncIterator[Annotated[Tick, EventType("tick")]]:
        response.headers["x-a"] = "b"
        yield Tick(n=1)

    app = FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")

    assert item_schema(app, "/a/ticks", "post") == event_schema(ref("Tick"), "tick")
    assert item_schema(app, "/b/ticks", "post") == event_schema(ref("Tick"), "tick")
    async with connect(app, "/b/ticks", method="POST") as stream:
        assert stream.headers["x-a"] == "b"
        assert [await stream.next_event()] == [
            asgi_sse.ServerSentEvent('{"n":1,"venue":null}', event="tick")
        ]


async def test_route_classes_may_be_combined() -> None:
    """
    Those of dishka and others put something around each path operation.
    """
    called = []

    class Wrapping(APIRoute):
        def __init__(self, path: str, endpoint: Any, **kwargs: Any) -> None:
            @wraps(endpoint)
            async def wrapped(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                called.append(endpoint.__name__)
                async for item in endpoint(*args, **kwargs):
                    yield item

            super().__init__(path, wrapped, **kwargs)

    class Both(EventStreamRoute, Wrapping):
        pass

    async def ticks() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    app = FastAPI()
    app.router.route_class = Both
    app.get("/", response_class=EventSourceResponse)(ticks)

    assert item_schema(app) == event_schema(ref("Tick"))
    async with connect(app) as stream:
        await stream.wait_closed()
    assert called == ["ticks"]


def test_extra_of_the_path_operation_is_kept() -> None:
    async def ticks(last_event_id: LastEventID) -> AsyncIterator[Tick]:
        yield Tick(n=1)

    app = app_of(ticks, openapi_extra={"x-a": 1, "responses": {"200": {"x-b": 2}}})
    operation = app.openapi()["paths"]["/"]["get"]

    assert operation["x-a"] == 1
    assert operation["responses"]["200"]["x-b"] == 2
    assert operation["parameters"][0]["name"] == "Last-Event-ID"
    assert item_schema(app) == event_schema(ref("Tick"))


def test_other_path_operations_are_left_as_they_are() -> None:
    app = FastAPI()
    app.router.route_class = EventStreamRoute

    @app.get("/one")
    async def one() -> Tick:
        return Tick(n=1)

    @app.get("/lines")
    async def lines() -> AsyncIterator[Tick]:
        yield Tick(n=1)

    document = app.openapi()["paths"]

    assert list(document["/one"]["get"]["responses"]["200"]["content"]) == ["application/json"]
    assert list(document["/lines"]["get"]["responses"]["200"]["content"]) == ["application/jsonl"]
