"""
The last words of a source that is finished, after which its client stays away.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from ._request import FINISHED

# A line of the field "id", at whatever kind of line end. "If the field value does not
# contain U+0000 NULL", else it is ignored.
_ID = re.compile(rb"(?:\A|[\r\n])id(?:: ?([^\r\n\0]*))?(?=[\r\n])")

# sse-starlette has any of them.
_LINE_ENDS = (b"\r\n", b"\n", b"\r")


class LastID:
    """
    Knows the last event ID of a client, from the blocks that are sent to it.

    They are looked through instead of the items, because a channel and
    an adapter hand over blocks; and only where this is wanted.

    Args:
        last_event_id: What the client has said itself.

    """

    __slots__ = ("_id",)

    def __init__(self, last_event_id: str | None) -> None:
        self._id = (last_event_id or "").encode()

    def watching(self, send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """
        Return a ``send`` that looks at what is sent.
        """

        def watch(message: Any) -> Awaitable[None]:
            self._look_through(message["body"])
            return send(message)

        return watch

    def finish(self, done: bytes) -> bytes:
        """
        Return the last block, with an ID by which the client is known when it comes back.
        """
        self._look_through(done)
        # In the block of the last event, if there is one: several clients dispatch an
        # empty event for a block of its own.
        end = next((end for end in _LINE_ENDS if done.endswith(end + end)), b"")
        head = done.removesuffix(end)
        return b"%bid: %b%b\n\n" % (head, FINISHED.encode(), self._id)

    def _look_through(self, blocks: bytes) -> None:
        if ids := _ID.findall(blocks):
            self._id = ids[-1]
