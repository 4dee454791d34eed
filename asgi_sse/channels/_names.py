"""
Which names channels may have, and which of them a wildcard means.
"""

from __future__ import annotations

__all__ = ["check_name", "is_pattern", "matches", "split"]

# In an engine a name is a key, and perhaps shown in a log.
_LONGEST = 1024


def check_name(name: str, *, wildcards: bool) -> None:
    """
    Refuse what can be no name of a channel, nor of several.

    Args:
        name: One name, or parts of it with dots in between, of which some are wildcards.
        wildcards: Whether the engine has them.

    Raises:
        TypeError: It is not text.
        ValueError: It is out of bounds, or has wildcards where they cannot be.

    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str (got {name!r:.100})")
    if not name or len(name.encode("utf-8", "replace")) > _LONGEST:
        raise ValueError(f"name must have 1 to {_LONGEST} bytes (got {name!r:.100})")
    if not name.replace(" ", "").isprintable():
        raise ValueError(f"name must not have control characters (got {name!r:.100})")
    if {"*", ">"}.isdisjoint(name):
        return
    if not wildcards:
        raise ValueError(f"name must not have * or >: Redis has no wildcards (got {name!r:.100})")
    parts = name.split(".")
    good = all(part == "*" or (part and {"*", ">"}.isdisjoint(part)) for part in parts[:-1])
    if not good or (parts[-1] not in ("*", ">") and not {"*", ">"}.isdisjoint(parts[-1])):
        raise ValueError(
            f"name must have * only as a whole part, > only as the last (got {name!r:.100})"
        )


def is_pattern(name: str) -> bool:
    """
    Whether a name has wildcards.
    """
    return not {"*", ">"}.isdisjoint(name)


def split(name: str) -> list[str]:
    """
    Return the parts of a name that a wildcard may stand for.

    A name with an empty part is one part as a whole, because NATS knows no empty ones.

    Example:
        >>> split("news.sports"), split("what?..")
        (['news', 'sports'], ['what?..'])

    """
    parts = name.split(".")
    return parts if all(parts) else [name]


def matches(pattern: str, name: str) -> bool:
    """
    Whether a name is meant: ``*`` is one part, ``>`` one or more at the end.

    Example:
        >>> matches("news.*", "news.sports"), matches("news.>", "news"), matches(">", "news")
        (True, False, True)

    """
    wanted, parts = split(pattern), split(name)
    if wanted[-1] == ">":
        wanted.pop()
        if len(parts) <= len(wanted):
            return False
        parts = parts[: len(wanted)]
    return len(wanted) == len(parts) and all(
        one in ("*", part) for one, part in zip(wanted, parts, strict=True)
    )
