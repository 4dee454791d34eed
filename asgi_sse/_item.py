"""
Whatever a source may yield becomes bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._event import ServerSentEvent, encode_data

_LINE_ENDS = (b"\r\n", b"\n", b"\r")


def encode_item(item: Any, json: Callable[[Any], str | bytes]) -> bytes:
    """
    Return the block, or blocks, that carry an item on the wire.

    A str is an event's data, an event is itself, bytes are blocks already
    framed, and anything else is data that *json* makes text of.

    Raises:
        TypeError: *json* cannot make text of the item.
        ValueError: The bytes do not end with a blank line, or the text
            cannot be UTF-8.

    """
    if isinstance(item, ServerSentEvent):
        return item.encode()
    if isinstance(item, str):
        return encode_data(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return check_blocks(bytes(item))
    try:
        text = json(item)
    except Exception as exc:
        raise TypeError(f"it cannot be made JSON: {exc}") from exc
    if isinstance(text, bytes):
        text = text.decode()
    if not isinstance(text, str):
        raise TypeError(f"json= must return str or bytes (got {text!r:.100})")
    return encode_data(text)


def check_blocks(blocks: bytes, meant: str = "str") -> bytes:
    """
    Refuse bytes after which the next event would be read as part of this one.

    Raises:
        ValueError: They are such; with a guess at what was *meant*.

    """
    for end in _LINE_ENDS:
        if blocks.endswith(end):
            rest = blocks[: -len(end)]
            if not rest or rest.endswith((b"\n", b"\r")):
                return blocks
            break
    raise ValueError(
        f"bytes must be whole blocks that end with a blank line; did you mean to yield a {meant}?"
    )
