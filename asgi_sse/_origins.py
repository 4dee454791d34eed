"""
Which pages of other origins may read an event stream (CORS, of the Fetch standard).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from ._answer import check_bool
from ._headers import TOKEN, RawHeader
from ._request import Refused

#: Origins, ``"*"`` for any, or what is asked for each.
AllowOrigins = Literal["*"] | Collection[str] | Callable[[str], bool]

# A scheme and what follows it, up to a path: browsers' extensions have origins, too.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[!-.0-~]+")

# A port that goes without saying is not in what browsers send.
_NEEDLESS_PORT = re.compile(r"http://.*:80|https://.*:443")

# How long a browser need not ask again, in seconds. Chromium keeps it for at most 7200.
_MAX_AGE = 600

# What comes from outside, and is sent back, is bounded.
_LONGEST = 4096


class Origins:
    """
    Whom the browser is told that it may hand the stream to.

    Nothing is taken away by it: a page of an origin that is not allowed gets
    the answer without these headers, and its browser keeps it from the page.

    Args:
        allow: Origins as browsers send them, ``"*"`` for every one, or a
            function that is given one and returns a bool.
        credentials: Whether cookies may come with the request.
        methods: The methods that a preflight allows.

    Raises:
        TypeError: An argument is of another type.
        ValueError: One of the origins is none, or credentials are allowed to all.

    """

    __slots__ = ("_allow", "_credentials", "_methods")

    def __init__(
        self, allow: AllowOrigins, *, credentials: bool, methods: Collection[str]
    ) -> None:
        if not isinstance(credentials, bool):
            raise TypeError(f"allow_credentials must be a bool (got {credentials!r})")
        self._allow = _check(allow)
        self._credentials = credentials
        self._methods = ", ".join(methods)
        if self._allow == "*" and credentials:
            raise ValueError(
                "allow_origins must not be '*' with allow_credentials: every page in the world "
                "could read what is meant for your users. Did you forget to list the origins?"
            )

    def headers(self, request_headers: Iterable[RawHeader]) -> list[RawHeader]:
        """
        Return the headers that allow the origin of a request to read the response, if any.

        Raises:
            TypeError: The function has not returned a bool.
            BaseException: What it raises.

        """
        if self._allow == "*":
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        origin = self._allowed(request_headers)
        if origin is None:
            return []
        headers = [(b"access-control-allow-origin", origin), _EXPOSED]
        if self._credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers

    @property
    def varies(self) -> bool:
        """
        Whether a response is good for the origin only that it was made for.
        """
        return self._allow != "*"

    def answer_preflight(self, request_headers: Iterable[RawHeader], *, allowed: bool) -> Refused:
        """
        Return the answer to the question whether the real request may be made.

        *allowed* is whether there are :meth:`headers` for it.
        """
        if not allowed:
            return Refused(403, "This origin is not allowed.")
        headers = {
            "Access-Control-Allow-Methods": self._methods,
            "Access-Control-Max-Age": str(_MAX_AGE),
        }
        asked = _header(request_headers, b"access-control-request-headers") or b""
        names = asked.decode("latin-1").lower().replace(" ", "").split(",")
        # Who may read the stream may send what he likes: it is the origin that is trusted.
        if len(asked) <= _LONGEST and all(name and TOKEN.issuperset(name) for name in names):
            headers["Access-Control-Allow-Headers"] = ", ".join(names)
        return Refused(204, headers=headers)

    def _allowed(self, request_headers: Iterable[RawHeader]) -> bytes | None:
        origin = _header(request_headers, b"origin")
        if origin is None:
            return None
        text = origin.decode("latin-1")
        # What no browser sends is not asked for, nor sent back.
        if text != "null" and not _ORIGIN.fullmatch(text):
            return None
        if callable(self._allow):
            allowed = check_bool("allow_origins", self._allow(text))
        else:
            allowed = text in self._allow
        return origin if allowed else None


# The one header of an answer here that a page could not read otherwise.
_EXPOSED = (b"access-control-expose-headers", b"retry-after")


def is_preflight(method: str, request_headers: Iterable[RawHeader]) -> bool:
    """
    Whether a browser asks before it makes the real request.
    """
    names = {name.lower() for name, _ in request_headers}
    return method == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names


def _header(headers: Iterable[RawHeader], wanted: bytes) -> bytes | None:
    """
    Return the value of a header that comes once; more than one is nobody's.
    """
    found = [value for name, value in headers if name.lower() == wanted]
    return found[0] if len(found) == 1 else None


def _check(allow: object) -> AllowOrigins:
    if allow == "*" or callable(allow):
        return allow
    if isinstance(allow, str | bytes) or not isinstance(allow, Collection):
        raise TypeError(
            f"allow_origins must be a collection of origins, a function or '*' (got {allow!r})"
        )
    for origin in allow:
        if not isinstance(origin, str):
            raise TypeError(f"allow_origins must hold str (got {origin!r})")
        if origin == "*":
            return "*"
        if (
            not _ORIGIN.fullmatch(origin)
            or origin != origin.lower()
            or _NEEDLESS_PORT.fullmatch(origin)
        ):
            raise ValueError(
                "allow_origins must hold origins as browsers send them: scheme, host and port in "
                "lower case, without a path, and without :80 of http or :443 of https "
                f"(got {origin!r})"
            )
    return frozenset(allow)
