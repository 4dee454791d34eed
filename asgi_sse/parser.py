"""
Bytes to events, to the letter of the WHATWG standard.
"""

import codecs
import contextlib

from ._event import ServerSentEvent

__all__ = ["EventStreamParser"]


class EventStreamParser:
    """
    What an ``EventSource`` makes of the body of a response.

    Feed it the bytes as they come, cut anywhere. No bytes are an error: what the
    standard gives no meaning is ignored. A parser reads one response, so take a
    new one after a reconnect. An event that the end of the body cut short is never
    returned, as the standard asks.

    Example:
        >>> parser = EventStreamParser()
        >>> parser.feed(b"id: 7\\ndata: two\\nda")
        []
        >>> parser.feed(b"ta: lines\\n\\n")
        [ServerSentEvent(data='two\\nlines', id='7')]

    """

    def __init__(self) -> None:
        # Lines are cut out of the bytes, before decoding: the bytes of CR and LF are
        # part of no other character, and even end a malformed one.
        self._line = bytearray()
        self._at_start = True
        self._after_cr = False

        # The three buffers of the standard. Data is kept as lines, since it differs
        # whether there was an empty one ("data:") or none.
        self._data: list[str] = []
        self._event = ""
        self._id = ""

        self._last_event_id = ""
        self._reconnection_time: int | None = None

    @property
    def last_event_id(self) -> str:
        """
        The ``Last-Event-ID`` to reconnect with; with ``""``, none is sent.
        """
        return self._last_event_id

    @property
    def reconnection_time(self) -> int | None:
        """
        The milliseconds to wait before reconnecting; ``None`` if never told.
        """
        return self._reconnection_time

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """
        Take the next bytes of the body and return the events that they complete.

        Args:
            data: Any number of bytes.

        Returns:
            The events as a client sees them. They have ``data`` and, unless empty,
            ``event`` and ``id``: the last event ID when the event was dispatched,
            which may come from an earlier block. Nothing else is ever set.

        """
        if not data:
            return []

        # A CR ends its line at once, so that no event waits for what comes next. If
        # that is an LF, it is the second half of the same line end.
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")

        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
            if self._at_start:
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
                self._at_start = False
        self._line += rest

        events = []
        for line in lines:
            if line:
                self._process(line)
            elif event := self._dispatch():
                events.append(event)
        return events

    def _process(self, line: bytes) -> None:
        # The name of a comment is empty, which is none of these.
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(_decode(value))
        elif name == b"event":
            self._event = _decode(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _decode(value)
        elif name == b"retry" and value.isdigit():
            # int() alone would take "+1", " 1" and "1_0". It refuses a number of
            # thousands of digits, which no client could wait for either.
            with contextlib.suppress(ValueError):
                self._reconnection_time = int(value)

    def _dispatch(self) -> ServerSentEvent | None:
        # The last event ID changes even if the block has no data to dispatch.
        self._last_event_id = self._id
        event = None
        if self._data:
            event = ServerSentEvent._received(
                "\n".join(self._data), self._event or None, self._id or None
            )
            self._data.clear()
        self._event = ""
        return event


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")
