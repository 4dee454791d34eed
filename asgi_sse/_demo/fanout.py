"""
The latest events of one source, for any number of clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable

import anyio

from .._event import ServerSentEvent

__all__ = ["Fanout"]


class Fanout:
    """
    A short history of events that goes on growing at one end.

    A client that is new gets what is kept and then what comes; one that
    reconnects gets what it has not seen. The source never waits for a client.
    One that falls so far behind that events are gone is told so in a comment.

    Args:
        order: From an event ID, a number that rises with each event; ``None``
            for an ID that is not of this source, whose client counts as new.
        events: How many events are kept.
        size: How many bytes of them are kept.

    """

    def __init__(
        self, order: Callable[[str], int | None], *, events: int, size: int = 4_194_304
    ) -> None:
        self._order = order
        self._events = events
        self._size = size
        self._kept: deque[ServerSentEvent] = deque()
        self._kept_size = 0
        self._end = 0
        self._news = anyio.Event()

    @property
    def _start(self) -> int:
        return self._end - len(self._kept)

    def publish(self, *events: ServerSentEvent) -> None:
        """
        Give events to every client.
        """
        for event in events:
            self._kept.append(event)
            self._kept_size += len(event.encode())
        self._end += len(events)
        # The newest stays, whatever its size: someone is about to read it.
        while len(self._kept) > self._events or (
            self._kept_size > self._size and len(self._kept) > 1
        ):
            self._kept_size -= len(self._kept.popleft().encode())

        self._news.set()
        self._news = anyio.Event()

    async def follow(self, last_event_id: str | None) -> AsyncGenerator[ServerSentEvent]:
        """
        Yield the events that a client has not seen, without end.

        Args:
            last_event_id: The event ID that the client saw last.

        """
        position = self._first_unseen(last_event_id)
        while True:
            if position < self._start:
                lost = self._start - position
                yield ServerSentEvent(comment=f"{lost} events were lost: the client is too slow")
                position = self._start
            elif position < self._end:
                event = self._kept[position - self._start]
                position += 1
                yield event
            else:
                await self._news.wait()

    def _first_unseen(self, last_event_id: str | None) -> int:
        last = None if last_event_id is None else self._order(last_event_id)
        if last is None:
            return self._start
        for newer, event in enumerate(reversed(self._kept)):
            order = None if event.id is None else self._order(event.id)
            if order is not None and order <= last:
                return self._end - newer
        return self._start
