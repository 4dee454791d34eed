"""
Telling an EventSource of each event type before its first event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Announcer", "announcing"]

_BOM = b"\xef\xbb\xbf"


class Announcer:
    """
    A filter for the bytes of one event stream.

    An ``EventSource`` cannot listen to every event: it drops those of a type that
    nobody has asked for by name. So a page that is to show any stream must learn
    each name in time. In front of the first event of each type the filter puts an
    event of a type of its own, ``asgi-sse-event-type``, whose data is the name. It
    has no ID, so it also tells at which event ID the stream was before.

    What it is fed goes on otherwise unchanged; a byte order mark, which counts only
    at the very start, stays there. An event is held back until it is complete;
    comments, and so keep-alives, pass at once.

    Example:
        >>> Announcer().feed(b"event: tick\\ndata: 1\\n\\n")
        b'event: asgi-sse-event-type\\ndata: tick\\n\\nevent: tick\\ndata: 1\\n\\n'

    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._begun = False
        self._line = b""
        self._after_cr = False
        self._event: list[bytes] = []
        self._type = b""
        self._has_data = False

    def feed(self, data: bytes) -> bytes:
        """
        Return what may be sent on now.
        """
        data = self._line + data
        mark = b""
        if not self._begun:
            if _BOM.startswith(data):
                self._line = data
                return b""
            self._begun = True
            if data.startswith(_BOM):
                # Not left out: what follows may be another, which is none at the start.
                mark, data = _BOM, data.removeprefix(_BOM)

        # On bytes, splitlines() knows the line ends of the event stream format and no
        # others.
        lines = data.splitlines(keepends=True)
        self._line = lines.pop() if data and not data.endswith((b"\r", b"\n")) else b""
        return mark + b"".join([self._feed_line(line) for line in lines])

    def end(self) -> bytes:
        """
        Return what was held back: an event that never became complete.
        """
        return b"".join(self._event) + self._line

    def _feed_line(self, line: bytes) -> bytes:
        # This line feed belongs to the line before: a CRLF came in two pieces.
        second_half = self._after_cr and line == b"\n"
        self._after_cr = line.endswith(b"\r")
        if not self._event and (second_half or line.startswith(b":")):
            return line

        self._event.append(line)
        content = line.rstrip(b"\r\n")
        if content or second_half:
            field, _, value = content.partition(b":")
            if field == b"event":
                self._type = value.removeprefix(b" ")
            elif field == b"data":
                self._has_data = True
            return b""

        ready, self._event = b"".join(self._event), []
        type_, self._type = self._type or b"message", b""
        # Without data nothing is dispatched.
        dispatched, self._has_data = self._has_data, False
        if type_ in self._known or not dispatched:
            return ready
        self._known.add(type_)
        return b"event: asgi-sse-event-type\ndata: " + type_ + b"\n\n" + ready


def announcing(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """
    Return a ``send`` that announces the event types of an event stream.

    Other responses, refusals for one, and compressed ones go through as they are.

    Args:
        send: The server's.

    """
    announcer: Announcer | None = None

    async def announcing_send(message: Any) -> None:
        nonlocal announcer
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind == b"text/event-stream" and b"content-encoding" not in headers:
                announcer = Announcer()
        elif message["type"] == "http.response.body" and announcer is not None:
            body = announcer.feed(message.get("body", b""))
            if not message.get("more_body", False):
                body += announcer.end()
            message = {**message, "body": body}
        await send(message)

    return announcing_send
