"""
Several channels in one stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self
from urllib.parse import parse_qsl, urlencode

from .._event import ServerSentEvent
from .._runtime import Signal, current_runtime
from ._subscription import EARLIEST, Subscription

__all__ = ["Merged"]

# As for a single channel.
_CHUNK = 262_144


class Merged:
    """
    Places in several channels, read as one.

    Events of one channel come in order. The ID of each tells a place in every channel, as
    the query of a URL would: ``news=17-0&chat=12-3``.
    """

    # Also a Feed, which a response reads without a task of its own.

    def __init__(
        self,
        channels: dict[str, Callable[[str | None], Subscription]],
        last_event_id: str | None,
    ) -> None:
        ids = dict(parse_qsl(last_event_id or "", keep_blank_values=True))
        if last_event_id == EARLIEST or channels.keys().isdisjoint(ids):
            # Each says itself that it does not know it.
            ids = dict.fromkeys(channels, last_event_id or "")
        self._parts = {name: subscribe(ids.get(name)) for name, subscribe in channels.items()}
        # Once all have their places.
        self._ids: dict[str, str] = {}
        self._signal: Signal | None = None
        self.over = False

    def attach(self, wake: Callable[[], None]) -> None:
        for part in self._parts.values():
            part.attach(wake)

    def take(self) -> tuple[int, bytes, bool]:
        """
        Return how many events are pending, their blocks up to a limit, and if there is more.
        """
        blocks: list[bytes] = []
        size = count = 0
        while size < _CHUNK and (event := self._next()) is not None:
            block = event.encode()
            blocks.append(block)
            size += len(block)
            count += event.data is not None
        if not blocks:
            self._wait()
        return count, b"".join(blocks), bool(blocks)

    def detach(self) -> None:
        """
        Give the places up.
        """
        self.over = True
        for part in self._parts.values():
            part.detach()

    async def aclose(self) -> None:
        """
        Give the places up: whoever waits for the next event gets no more.
        """
        self.detach()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.detach()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """
        Return the next event.

        Cancellation: nothing is lost; the next call returns it.

        Raises:
            StopAsyncIteration: It was closed, or fell too far behind in one of them.

        """
        if self._signal is None:
            self._signal = current_runtime().signal()
            self.attach(self._signal.notify)
        while (event := self._next()) is None:
            self._wait()
            if self.over:
                raise StopAsyncIteration
            await self._signal.wait()
        return event

    def _next(self) -> ServerSentEvent | None:
        if self.over:
            return None
        if not self._ids:
            if not all(part.is_ready() for part in self._parts.values()):
                return None
            for name, part in self._parts.items():
                self._ids[name] = part.event_id()
            return ServerSentEvent(id=urlencode(self._ids))
        for name, part in self._parts.items():
            while (event := part.next_nowait()) is not None:
                told = self._ids[name]
                # What a hook gives when something was missed has none.
                if event.id is not None:
                    self._ids[name] = event.id
                if event == ServerSentEvent(id=told):
                    continue
                return ServerSentEvent(
                    event.data,
                    event=event.event,
                    id=urlencode(self._ids),
                    retry=event.retry,
                    comment=event.comment,
                )
        return None

    def _wait(self) -> None:
        parts = self._parts.values()
        if any(part.over for part in parts) or all(part.ending for part in parts):
            self.detach()
        for part in parts:
            part.wait_for_more()
