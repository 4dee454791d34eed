"""
What is wrong with the bytes of an event stream.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

from ._report import Outcome

__all__ = ["inspect"]

_FIELDS = (b"data", b"event", b"id", b"retry")


def inspect(body: bytes, complete: bool) -> Iterator[tuple[Outcome, str]]:
    """
    Yield what a client would stumble over.

    Nothing is an error to an ``EventSource``, which ignores what it does not
    understand; that is why these mistakes live long.

    Args:
        body: The event stream from its beginning.
        complete: Whether it has come to its end.

    Yields:
        How bad it is, and what it is.

    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        yield "failed", f"not UTF-8: {error}"

    lines = re.split(rb"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    block = _Block()
    has_id = False
    for number, line in enumerate(lines[:-1], 1):
        here = f"line {number}"
        if not line:
            yield from block.end(here, has_id)
            block = _Block()
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name and name not in _FIELDS:
            yield "failed", f"{here} is no field that clients know, and is ignored: {line!r}"
        elif name == b"id" and b"\0" in value:
            yield "failed", f"{here} has an event ID with NUL, which is ignored: {value!r}"
        elif name == b"retry" and not value.isdigit():
            yield "failed", f"{here} has a retry that is no number, which is ignored: {value!r}"
        has_id = has_id or name == b"id"
        block.add(name, value)
    if complete and (block.data or lines[-1]):
        yield "failed", f"the last event has no blank line after it, and is lost: {lines[-2:]!r}"


class _Block:
    """
    The lines up to a blank line.
    """

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.data: list[bytes] = []

    def add(self, name: bytes, value: bytes) -> None:
        self.names.append(name)
        if name == b"data":
            self.data.append(value)

    def end(self, here: str, has_id: bool) -> Iterator[tuple[Outcome, str]]:
        fields = [name for name in self.names if name in _FIELDS]
        if b"event" in fields and not self.data:
            yield "warning", f"{here} ends an event without data, which clients do not dispatch"
        if b"" in self.names and not fields and has_id:
            phantom = "some clients that have seen an event ID dispatch an empty event"
            yield "warning", f"{here} is a blank line after a comment, where {phantom}"
        text = b"\n".join(self.data).decode(errors="replace")
        if text.startswith(("data:", "event:", "id:")):
            yield "warning", f"{here} ends data that looks framed twice: {text[:60]!r}"
        if text == "None":
            yield "warning", f"{here} ends data that is the text 'None'"
        if _is_repr(text):
            yield (
                "warning",
                f"{here} ends data that is Python's repr() and not JSON: {text[:60]!r}",
            )


def _is_repr(text: str) -> bool:
    if not text.startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except ValueError:
        try:
            ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return False
        return True
    return False
