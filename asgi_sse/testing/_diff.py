"""
How two lists of events differ, in words.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeGuard

from .._event import ServerSentEvent
from ._exchange import Chunk

__all__ = ["explain"]

_FIELDS = ("comment", "event", "id", "retry", "data")


def explain(got: object, expected: object) -> list[str] | None:
    """
    Return lines that tell how what a test got differs from what it expected.

    Args:
        got: The left side of ``==``.
        expected: The right side.

    Returns:
        A summary, then the lines; ``None`` if there is nothing of ours to compare.

    """
    if isinstance(got, ServerSentEvent) and isinstance(expected, ServerSentEvent):
        return ["the events differ (- expected, + got)", *_fields(got, expected)]
    if not (_is_list(got) and _is_list(expected)):
        return None
    if not any(isinstance(item, ServerSentEvent | Chunk) for item in [*got, *expected]):
        return None
    count = f"got {len(got)}, expected {len(expected)}"
    return [f"the lists differ ({count}; - expected, + got)", *_list(got, expected)]


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple) and not isinstance(value, Chunk)


def _list(got: Sequence[Any], expected: Sequence[Any]) -> Iterator[str]:
    old, new = [_describe(item) for item in expected], [_describe(item) for item in got]
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from (f"  [{index}] {new[index]}" for index in range(j1, j2))
            continue
        # Two that stand in each other's place are shown together.
        for offset in range(max(i2 - i1, j2 - j1)):
            i, j = i1 + offset, j1 + offset
            if i < i2:
                yield f"- [{i}] {old[i]}"
            if j < j2:
                yield f"+ [{j}] {new[j]}"


def _describe(item: object) -> str:
    if isinstance(item, ServerSentEvent):
        pairs = ((name, getattr(item, name)) for name in _FIELDS)
        return ", ".join(f"{name}={value!r}" for name, value in pairs if value is not None)
    match item:
        case (int() | float() as time, bytes() as body):
            return f"at {time:g} s: {body!r}"
    return repr(item)


def _fields(got: ServerSentEvent, expected: ServerSentEvent) -> Iterator[str]:
    for name in _FIELDS:
        one, other = getattr(got, name), getattr(expected, name)
        if one == other:
            if one is not None:
                yield f"  {name}={one!r}"
        else:
            yield f"- {name}={other!r}"
            yield f"+ {name}={one!r}"
