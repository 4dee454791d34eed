"""
What the docstring of the chat room promises.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_sse.testing import connect

EXAMPLE = Path(__file__).parents[2] / "examples" / "06_chat.py"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAT", str(tmp_path / "chat.jsonl"))
    return tmp_path / "chat.jsonl"


class Started:
    """
    The room, as it is after a start of the server.
    """

    def __init__(self) -> None:
        spec = importlib.util.spec_from_file_location("example_06_chat", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        self.module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.module.app(scope, receive, send)

    def stop(self) -> None:
        self.module.the_room()._file.close()


async def say(app: Any, name: str, text: str) -> None:
    message = {"name": name, "text": text}
    async with connect(app, "/messages", method="POST", json=message) as answer:
        await answer.read()
        assert answer.status == 201


async def test_nobody_misses_a_message_over_a_restart(path: Path) -> None:
    before = Started()
    await say(before, "Ada", "Hi")
    async with connect(before, "/events?lastEventId=earliest") as stream:
        assert json.loads((await stream.next_event()).data or "") == {"name": "Ada", "text": "Hi"}
        last_event_id = stream.last_event_id
    await say(before, "Bob", "While she was away")
    before.stop()

    after = Started()
    await say(after, "Bob", "After the restart")
    async with connect(
        after, "/events?lastEventId=earliest", last_event_id=last_event_id
    ) as stream:
        events = await stream.take(2)
        await anyio.sleep(1)
        assert len(stream.events) == 2
    after.stop()

    texts = [json.loads(event.data or "")["text"] for event in events]
    assert texts == ["While she was away", "After the restart"]


async def test_a_browser_that_had_seen_nothing_is_told_to_begin_anew(path: Path) -> None:
    before = Started()
    async with connect(before, "/events?lastEventId=earliest") as stream:
        await anyio.sleep(1)
        last_event_id = stream.last_event_id
    before.stop()

    after = Started()
    await say(after, "Ada", "Hi")
    async with connect(after, "/events", last_event_id=last_event_id) as stream:
        events = await stream.take(2)
    after.stop()

    assert [event.event for event in events] == ["reset", None]


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
async def test_what_may_be_said(path: Path, body: bytes, status: int) -> None:
    app = Started()
    headers = {"content-type": "application/json"}
    async with connect(app, "/messages", method="POST", body=body, headers=headers) as answer:
        await answer.read()
        assert answer.status == status
    app.stop()


@pytest.mark.parametrize(
    ("method", "where", "status"),
    [("GET", "/", 200), ("GET", "/x", 404), ("POST", "/messages", 415), ("POST", "/", 404)],
)
async def test_what_is_where(path: Path, method: str, where: str, status: int) -> None:
    app = Started()
    async with connect(app, where, method=method) as answer:
        await answer.read()
        assert answer.status == status


def test_nothing_is_opened_before_somebody_enters_the_room(path: Path) -> None:
    Started()

    assert not path.exists()
