"""
The request's body, as it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import Event

from ._request import Refused

if TYPE_CHECKING:
    from asgiref.typing import HTTPRequestEvent

# How long, in seconds, the end of a response waits for the body, where it must.
LATEST = 1.0


class Body:
    """
    What has come of a request's body, up to a limit.

    Args:
        limit: Bytes that are kept.

    """

    __slots__ = ("_event", "_limit", "_parts", "_readable", "_size", "over")

    #: Whether all of it has come, be it kept or not.
    over: bool

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # None when it was too large to keep.
        self._parts: list[bytes] | None = []
        self._size = 0
        self._readable = False
        self._event: Event | None = None
        self.over = False

    def take(self, message: HTTPRequestEvent) -> bool:
        """
        Take the next part, and return whether it makes a difference to who waits.
        """
        before = self._readable, self.over
        if not message.get("more_body", False):
            self.over = True
        if not self._readable:
            assert self._parts is not None
            part = message.get("body", b"")
            self._parts.append(part)
            self._size += len(part)
            if self._size > self._limit:
                # The caller reads on, or would never see the disconnect behind it.
                self._parts = None
            self._readable = self.over or self._parts is None
            if self._readable and self._event is not None:
                self._event.set()
        return before != (self._readable, self.over)

    async def read(self) -> bytes:
        """
        Return all of it, once it is there.

        Raises:
            Refused: With 413, if it is larger than the limit.

        """
        if self._event is None:
            self._event = Event()
        if not self._readable:
            await self._event.wait()
        if self._parts is None:
            raise Refused(413, f"The body must not exceed {self._limit} bytes.")
        return b"".join(self._parts)
