"""
What the docstring of the chat room promises.
"""

import importlib.util
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_sse.channels._memory import MemoryBackend
from asgi_sse.testing import Server, serve

EXAMPLE = Path(__file__).parents[2] / "examples" / "06_chat.py"


def started(engine: MemoryBackend | None = None) -> AbstractAsyncContextManager[Server]:
    """
    Serve the room, with what an engine has kept, if there is one.
    """
    spec = importlib.util.spec_from_file_location("example_06_chat", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if engine is not None:
        engine._closed = False
        module.broker._open = lambda: engine
    return serve(module.app)


async def say(server: Server, name: str, text: str) -> None:
    message = {"name": name, "text": text}
    async with server.connect("/messages", method="POST", json=message) as answer:
        await answer.read()
        assert answer.status == 201


async def test_nobody_misses_a_message_over_a_restart() -> None:
    engine = MemoryBackend(1000, None)
    async with started(engine) as before:
        await say(before, "Ada", "Hi")
        async with before.connect("/events?lastEventId=earliest") as stream:
            first = json.loads((await stream.next_event()).data or "")
            last_event_id = stream.last_event_id
        await say(before, "Bob", "While she was away")

    async with started(engine) as after:
        await say(after, "Bob", "After the restart")
        async with after.connect(
            "/events?lastEventId=earliest", last_event_id=last_event_id
        ) as stream:
            events = await stream.take(2)
            await anyio.sleep(1)
            assert len(stream.events) == 2

    assert (first["name"], first["text"], first["time"][-6:]) == ("Ada", "Hi", "+00:00")
    texts = [json.loads(event.data or "")["text"] for event in events]
    assert texts == ["While she was away", "After the restart"]


async def test_who_has_missed_something_is_told() -> None:
    async with started() as before:
        await say(before, "Ada", "Hi")
        async with before.connect("/events?lastEventId=earliest") as stream:
            await stream.next_event()
            last_event_id = stream.last_event_id

    async with started() as after:
        await say(after, "Ada", "Hi again")
        async with after.connect("/events", last_event_id=last_event_id) as stream:
            events = await stream.take(2)

    assert [event.event for event in events] == ["reset", None]


async def test_an_engine_that_is_away_is_told() -> None:
    engine = MemoryBackend(1000, None)
    async with started(engine) as server:
        await engine.aclose()
        message = {"name": "Ada", "text": "Hi"}
        async with server.connect("/messages", method="POST", json=message) as answer:
            await answer.read()
            assert (answer.status, answer.body) == (503, b"the broker is closed\n")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"name": "Ada", "text": "Hi"}', 201),
        (b'{"name": "Ada"}', 400),
        (b'{"name": "", "text": "Hi"}', 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 4000, 400),
        (b'"' + b"x" * 5000 + b'"', 400),
    ],
)
async def test_what_may_be_said(body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    async with (
        started() as server,
        server.connect("/messages", method="POST", body=body, headers=headers) as answer,
    ):
        await answer.read()
        assert answer.status == status


@pytest.mark.parametrize(
    ("method", "where", "status"),
    [("GET", "/", 200), ("GET", "/x", 404), ("POST", "/messages", 415), ("POST", "/", 404)],
)
async def test_what_is_where(method: str, where: str, status: int) -> None:
    async with started() as server, server.connect(where, method=method) as answer:
        await answer.read()
        assert answer.status == status
