"""
What a client accepts, by RFC 9110: media types and content codings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EVENT_STREAM = "text/event-stream"

# What comes from outside is bounded: the longest of any browser has some 200 characters.
_LONGEST = 4096

# 12.4.2, and what is seen besides: "q=.5", and more than three digits.
_QUALITY = re.compile(r"(?:0|1|(?=\.[0-9]))(?:\.[0-9]*)?")

# Elements of a list, and the parts of one: a comma between quotes is none.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PART = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_SPACE = " \t"

# What matches, and how closely. Java's oldest client says "*" for "*/*".
_RANGES = {EVENT_STREAM: 2, "text/*": 1, "*/*": 0, "*": 0}
# The parameters of what is served. Another value of one of them asks for something else.
_PARAMETERS = {"charset": "utf-8"}


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """
    Return all values of a request header as one list, or ``None`` if there is none.
    """
    found = [value.decode("latin-1") for key, value in headers if key.lower() == name]
    return ",".join(found) if found else None


def quality_of_event_stream(accept: str | None) -> float:
    """
    Return how welcome an event stream is, from 0 (not at all) to 1.

    Of the ranges that match, the most specific one counts (12.5.1). No header
    accepts everything, and so does one without a word in it.
    """
    if accept is None or not accept.strip(_SPACE + ","):
        return 1.0
    found = [(_specificity(kind, parameters), q) for kind, parameters, q in _parse(accept)]
    closest, quality = max(found, default=(-1, 0.0))
    return quality if closest >= 0 else 0.0


def asks_for_event_stream(accept: str | None) -> bool:
    """
    Whether an event stream is asked for by its name, and nothing is preferred to it.
    """
    ranges = _parse(accept or "")
    named = [q for kind, parameters, q in ranges if _specificity(kind, parameters) >= 2]
    return max(named, default=0.0) >= max((q for _, _, q in ranges), default=0.0) > 0


def choose_coding(accept_encoding: str | None, offered: Iterable[str]) -> str | None:
    """
    Return the coding that is most welcome, of equals the first that is offered.

    ``None``: send it as it is. So it is without the header, which by 12.5.3
    would accept everything: who says nothing often cannot decode anything.
    """
    qualities: dict[str, float] = {}
    for name, _, q in _parse(accept_encoding or ""):
        # 8.4.1: "x-gzip" is the same.
        qualities.setdefault(name.removeprefix("x-"), q)
    others = qualities.get("*", 0.0)
    best, most = None, 0.0
    for name in offered:
        q = qualities.get(name, others)
        if q > most:
            best, most = name, q
    return best if most >= qualities.get("identity", 0.0) else None


def is_event_source(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """
    Whether this is the request of an ``EventSource``, a browser's or one like it.

    They all send this one media type and nothing else. So do clients that are
    written for event streams, and they know what a reconnection time is.
    """
    return values(headers, b"accept") == EVENT_STREAM


def _specificity(kind: str, parameters: dict[str, str]) -> int:
    """
    Return how closely a media range matches: -1 if not at all.
    """
    if kind not in _RANGES or not parameters.items() <= _PARAMETERS.items():
        return -1
    return _RANGES[kind] + len(parameters)


def _parse(text: str) -> list[tuple[str, dict[str, str], float]]:
    """
    Return what a list has, each with its parameters and quality; garbage is left out.
    """
    elements = map(_parse_element, _ELEMENT.findall(text[:_LONGEST]))
    return [element for element in elements if element is not None]


def _parse_element(text: str) -> tuple[str, dict[str, str], float] | None:
    name, *rest = _PART.findall(text) or [""]
    parameters: dict[str, str] = {}
    quality = 1.0
    for part in rest:
        key, _, value = (each.strip(_SPACE) for each in part.partition("="))
        if key.lower() == "q":
            if not _QUALITY.fullmatch(value) or float(value) > 1:
                return None
            quality = float(value)
            # What follows were extensions, of which there has never been one.
            break
        if key:
            parameters[key.lower()] = value.strip('"').lower()
    name = name.strip(_SPACE).lower()
    return (name, parameters, quality) if name else None
