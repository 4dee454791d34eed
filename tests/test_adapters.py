"""
What ends a stream, and what counts it, under the adapters.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.routing import Route

from asgi_sse import EventStream, Request, close_streams, statistics
from asgi_sse import fastapi as for_fastapi
from asgi_sse import starlette as for_starlette
from asgi_sse._options import Closed, OpenStream
from asgi_sse.testing import connect


async def numbers() -> AsyncIterator[int]:
    yield 1
    await anyio.sleep(10)
    yield 2


def with_starlette(**options: Any) -> Any:
    async def endpoint(request: StarletteRequest) -> Any:
        return for_starlette.EventSourceResponse(numbers(), **options)

    return Starlette(routes=[Route("/", endpoint)])


def with_an_app_in_starlette(**options: Any) -> Any:
    return Starlette(routes=[Route("/", EventStream(numbers, **options))])


def with_fastapi(**options: Any) -> Any:
    app = FastAPI()
    response_class = for_fastapi.EventSourceResponse.with_options(**options)

    @app.get("/", response_class=response_class)
    async def endpoint() -> AsyncIterator[int]:
        async for number in numbers():
            yield number

    return app


@pytest.fixture(params=[with_starlette, with_an_app_in_starlette, with_fastapi])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    made: Callable[..., Any] = request.param
    return made


async def reason_of(make: Callable[..., Any], **options: Any) -> tuple[str, float]:
    """
    Return what ended a stream, and when.
    """
    ends: list[Closed] = []
    async with connect(make(on_close=ends.append, **options), timeout=None) as stream:
        await stream.wait_closed()

    assert stream.complete
    [closed] = ends
    return closed.reason, closed.duration


async def test_time_and_rights_end_a_stream(make: Callable[..., Any]) -> None:
    def may_not(_: Request) -> bool:
        return False

    assert await reason_of(make) == ("finished", 10)
    assert await reason_of(make, max_age=5) == ("max_age", 5)
    reason, duration = await reason_of(make, revalidate=may_not, revalidate_every=4)
    assert reason == "revoked"
    assert 1 <= duration <= 4


async def test_streams_are_found_and_closed(make: Callable[..., Any]) -> None:
    async with connect(make(), path="/") as stream:
        await stream.next_event()

        assert await close_streams(lambda request: request.scope["path"] == "/nowhere") == 0
        assert await close_streams(lambda request: request.scope["path"] == "/") == 1
        assert stream.complete


async def test_finished_is_finished(make: Callable[..., Any]) -> None:
    async with connect(make(end="stop", done="[DONE]"), timeout=None) as stream:
        await stream.wait_closed()

        assert stream.events[-1].data == "[DONE]"
        await stream.reconnect()

        assert stream.status == 204
        assert stream.body == b""


async def test_it_is_counted_and_observed(make: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def observe(stream: OpenStream) -> Callable[[Closed], None]:
        seen.append(stream.request.scope["path"])
        return seen.append

    async with connect(make(observe=observe), timeout=None) as stream:
        await stream.next_event()

        assert statistics().open == 1
        await stream.wait_closed()

    assert seen[0] == "/"
    assert seen[1].reason == "finished"
    assert statistics().closed["finished"] == 1
    assert statistics().events == 2
