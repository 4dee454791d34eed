"""
A stream that is kept, and sent again.
"""

import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_sse import ServerSentEvent
from asgi_sse.testing import Chunk, Recording, check_event_stream, connect, replay
from bare import clock

HEADERS = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-transform"),
    ("x-accel-buffering", "no"),
]
CHUNKS = [
    Chunk(0.5, b":\n\n"),
    Chunk(1.5, b"id: 1\ndata: 1\n\nid: 2\ndata: \xc3"),
    Chunk(2, b"\xa4\n\n"),
    Chunk(5, b"id: 3\ndata: 3\n\n"),
]
THREE = [ServerSentEvent("1", id=1), ServerSentEvent("ä", id=2), ServerSentEvent("3", id=3)]


@pytest.fixture
def recording() -> Recording:
    return Recording([*HEADERS, ("Transfer-Encoding", "chunked")], list(CHUNKS), "complete")


async def test_a_recording_is_sent_with_its_timing(recording: Recording) -> None:
    async with connect(replay(recording)) as stream:
        assert [event async for event in stream] == THREE
        assert stream.chunks == CHUNKS
        assert dict(stream.headers) == dict(HEADERS)
        assert stream.complete


@pytest.mark.parametrize(("speed", "time"), [(0.5, 10), (10, 0.5), (math.inf, 0)])
async def test_a_recording_is_sent_at_another_speed(
    recording: Recording, speed: float, time: float
) -> None:
    async with connect(replay(recording, speed=speed), timeout=20) as stream:
        await stream.read()
        assert stream.chunks[-1].time == time


async def test_a_recording_begins_again(recording: Recording) -> None:
    async with connect(replay(recording, repeat=True)) as stream:
        await stream.take(9)
        assert stream.events == THREE * 3
        stream.disconnect()
        await stream.wait_closed()


async def test_a_client_that_reconnects_gets_what_followed(recording: Recording) -> None:
    async with connect(replay(recording), last_event_id="2") as stream:
        assert [event async for event in stream] == THREE[2:]
        assert stream.chunks == [(3, b"id: 3\ndata: 3\n\n")]
    async with connect(replay(recording), last_event_id="unknown") as stream:
        assert await stream.next_event() == THREE[0]


async def test_a_response_that_was_cut_is_cut_again(recording: Recording) -> None:
    recording.end = "cut"
    async with connect(replay(recording), timeout=5) as stream:
        await stream.read()
        await stream.wait_closed()
        assert not stream.complete
    async with connect(replay(recording), method="HEAD") as stream:
        await stream.read()
        assert (stream.complete, stream.chunks) == (True, [])


async def test_a_replay_is_a_good_event_stream(recording: Recording) -> None:
    recording.chunks += [Chunk(20, b":\n"), Chunk(100, b":\n")]
    await check_event_stream(replay(recording), watch=18)
    with pytest.raises(NotImplementedError, match="a recording is sent over HTTP, not websocket"):
        await replay(recording)({"type": "websocket"}, None, None)


def test_files(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    recording.save(path)

    assert path.read_text() == (
        '{"status": 200, "headers": [["content-type", "text/event-stream"], '
        '["cache-control", "no-transform"], ["x-accel-buffering", "no"], '
        '["Transfer-Encoding", "chunked"]]}\n'
        '{"at": 0.5, "body": ":\\n\\n"}\n'
        '{"at": 1.5, "base64": "aWQ6IDEKZGF0YTogMQoKaWQ6IDIKZGF0YTogww=="}\n'
        '{"at": 2, "base64": "pAoK"}\n'
        '{"at": 5, "body": "id: 3\\ndata: 3\\n\\n"}\n'
        '{"end": "complete"}\n'
    )
    assert Recording.load(path) == recording


async def test_a_file_is_replayed(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "events.jsonl")
    async with connect(replay(tmp_path / "events.jsonl")) as stream:
        assert await stream.take(3) == THREE


async def test_a_test_is_recorded(tmp_path: Path) -> None:
    async with connect(clock) as stream:
        await stream.take(3)
        Recording([*stream.headers.items()], stream.chunks).save(tmp_path / "clock.jsonl")

    async with connect(replay(tmp_path / "clock.jsonl")) as again:
        assert [event async for event in again] == stream.events
    assert anyio.current_time() == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hello\n", "is no recording: line 1: JSONDecodeError"),
        ('{"data": 1}\n', "is no recording: line 1: KeyError"),
        ('{"status": 200, "headers": []}\n{"body": "x"}\n', "is no recording: line 2: KeyError"),
        ("[]\n", "is no recording: line 1: TypeError"),
    ],
)
def test_files_that_are_no_recordings(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=error):
        replay(tmp_path / "file")


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_speed(recording: Recording, speed: Any) -> None:
    with pytest.raises(ValueError, match="speed must be more than 0"):
        replay(recording, speed=speed)
