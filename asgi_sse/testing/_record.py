"""
A response kept with its timing, to be sent again.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

import anyio

from ..parser import EventStreamParser
from ._exchange import Chunk

__all__ = ["Recording", "replay", "write_chunk", "write_end", "write_start"]

End = Literal["complete", "cut", "stopped"]

# They are about the connection or the moment, and the next server sets its own.
_NOT_REPLAYED = {
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "keep-alive",
    "server",
    "transfer-encoding",
}


@dataclass
class Recording:
    """
    What a server sent, and when.

    A file of it is text: one JSON object a line, first the response and then the chunks.
    Edit it to make a test of it.

    Args:
        headers: The headers of the response.
        chunks: What came, with the seconds since the request.
        end: Whether the response came to its end (``"complete"``), was ``"cut"`` off, or
            went on when the recording was ``"stopped"``.
        status: The status of the response.

    """

    headers: Sequence[tuple[str, str]] = ()
    chunks: list[Chunk] = field(default_factory=list)
    end: End = "stopped"
    status: int = 200

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """
        Return the recording in a file.

        Raises:
            ValueError: If the file holds something else.

        """
        recording = cls()
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    recording._read(json.loads(line), first=number == 1)
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{os.fspath(path)!r} is no recording: line {number}: {error!r}"
                    ) from error
        return recording

    def _read(self, line: dict[str, Any], *, first: bool) -> None:
        if first:
            self.status = int(line["status"])
            self.headers = [(name, value) for name, value in line["headers"]]
        elif "end" in line:
            self.end = line["end"]
        elif "base64" in line:
            self.chunks.append(Chunk(float(line["at"]), base64.b64decode(line["base64"])))
        else:
            self.chunks.append(Chunk(float(line["at"]), line["body"].encode()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the recording into a file.
        """
        with open(path, "w", encoding="utf-8") as file:
            write_start(file, self.status, self.headers)
            for chunk in self.chunks:
                write_chunk(file, chunk)
            write_end(file, self.end)


def write_start(file: TextIO, status: int, headers: Sequence[tuple[str, str]]) -> None:
    """
    Begin the file of a recording.
    """
    _write(file, {"status": status, "headers": [list(header) for header in headers]})


def write_chunk(file: TextIO, chunk: Chunk) -> None:
    """
    Add a chunk to the file.
    """
    try:
        body = {"body": chunk.body.decode()}
    except UnicodeDecodeError:
        # A character was cut in two, or it is no text at all.
        body = {"base64": base64.b64encode(chunk.body).decode()}
    _write(file, {"at": chunk.time, **body})


def write_end(file: TextIO, end: End) -> None:
    """
    End the file.
    """
    _write(file, {"end": end})


def _write(file: TextIO, line: dict[str, Any]) -> None:
    json.dump(line, file, ensure_ascii=False)
    file.write("\n")
    # Whatever happens next, this has been kept.
    file.flush()


def replay(
    recording: Recording | str | os.PathLike[str], *, speed: float = 1.0, repeat: bool = False
) -> Any:
    """
    Return an ASGI app that sends a recording, with its timing, to every client.

    A client that sends a last event ID which is in the recording gets what followed.

    Args:
        recording: The recording, or the path of its file.
        speed: How many times as fast as it was recorded; ``math.inf`` for all at once.
        repeat: Whether to begin again at the end.

    Returns:
        An ASGI 3 app.

    Raises:
        ValueError: If the file holds something else, or the speed is not more than 0.

    """
    if not speed > 0:
        raise ValueError(f"speed must be more than 0 (got {speed})")
    if not isinstance(recording, Recording):
        recording = Recording.load(recording)
    return _Replay(recording, speed, repeat)


class _Replay:
    def __init__(self, recording: Recording, speed: float, repeat: bool) -> None:
        self._recording = recording
        self._speed = speed
        self._repeat = repeat

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"a recording is sent over HTTP, not {scope['type']}")

        async with anyio.create_task_group() as tasks:

            async def send_all() -> None:
                # On some servers this is how one learns that the client has left.
                with suppress(OSError):
                    await self._send(scope, send)
                tasks.cancel_scope.cancel()

            tasks.start_soon(send_all)
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

    async def _send(self, scope: Any, send: Any) -> None:
        recording = self._recording
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in recording.headers
            if name.lower() not in _NOT_REPLAYED
        ]
        await send({"type": "http.response.start", "status": recording.status, "headers": headers})
        if scope["method"] != "HEAD":
            last_event_id = dict(scope["headers"]).get(b"last-event-id", b"").decode()
            await self._send_chunks(self._after(last_event_id), send)
            while self._repeat:
                await self._send_chunks(0, send)
            if recording.end == "cut":
                # Without a final message the server cuts it off too.
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _after(self, last_event_id: str) -> int:
        """
        Return the number of chunks up to an event ID; 0 if there is none.
        """
        if last_event_id:
            parser = EventStreamParser()
            for count, chunk in enumerate(self._recording.chunks, 1):
                parser.feed(chunk.body)
                if parser.last_event_id == last_event_id:
                    return count
        return 0

    async def _send_chunks(self, first: int, send: Any) -> None:
        chunks = self._recording.chunks
        now = chunks[first - 1].time if first else 0.0
        for time, body in chunks[first:]:
            # Also where nothing is to be waited for: a busy app stops every stream.
            await anyio.sleep((time - now) / self._speed)
            now = time
            await send({"type": "http.response.body", "body": body, "more_body": True})
