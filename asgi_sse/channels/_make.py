"""
Whatever may be published becomes an event.
"""

from __future__ import annotations

from typing import Any

from .._event import ServerSentEvent
from .._json import encode_json

__all__ = ["make_event", "without_id"]


def make_event(
    item: Any, *, event: str | None = None, id: str | int | None = None
) -> ServerSentEvent:
    """
    Return an item as an event, with another event type and ID if they are given.

    Args:
        item: A str is data, an event is itself, anything else is data as JSON.
        event: The event type.
        id: The event ID.

    Raises:
        TypeError: The item is bytes, or has no form in JSON.
        ValueError: It cannot be an event.

    """
    if isinstance(item, str):
        return ServerSentEvent(item, event=event, id=id)
    if isinstance(item, ServerSentEvent):
        if event is None and (id is None):
            return item
        return ServerSentEvent(
            item.data,
            event=item.event if event is None else event,
            id=item.id if id is None else id,
            retry=item.retry,
            comment=item.comment,
        )
    if isinstance(item, bytes | bytearray | memoryview):
        raise TypeError(
            f"item must be text, an event or fit for JSON (got {item!r:.100}). "
            "Did you forget to decode it?"
        )
    return ServerSentEvent(encode_json(item), event=event, id=id)


def without_id(item: Any) -> ServerSentEvent:
    """
    Return an item as an event that leaves the client's last event ID alone.

    Raises:
        TypeError: As :func:`make_event`.
        ValueError: As :func:`make_event`, or nothing is left of it.

    """
    event = make_event(item)
    if event.id is None:
        return event
    return ServerSentEvent(event.data, event=event.event, retry=event.retry, comment=event.comment)
