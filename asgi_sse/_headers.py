"""
Response headers, fit to send or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

#: A header as ASGI has it.
RawHeader = tuple[bytes, bytes]

# RFC 9110, 5.6.2: what a header name is made of.
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")

# They belong to one connection, not to the response: HTTP/2 and HTTP/3 forbid them
# (RFC 9113, 8.2.2), and some servers hand them on to the client, which then gives up.
_HOP_BY_HOP = {
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def header(name: str, value: str) -> RawHeader:
    """
    Return a header as ASGI wants it: bytes, the name in lower case.

    Raises:
        TypeError: Name or value is not a str.
        ValueError: The name is not a token, or the value would break out of
            its line or is not Latin-1.

    """
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a header must be a str and a str (got {name!r}: {value!r})")
    lower = name.lower()
    if not lower or not TOKEN.issuperset(lower):
        raise ValueError(f"a header name must be a token (got {name!r})")
    if any(c in value for c in "\r\n\0"):
        raise ValueError(f"header {name} must be a single line without NUL (got {value!r})")
    try:
        return lower.encode(), value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name} must be Latin-1 (got {value!r})") from None


def stream_header(name: str, value: str) -> RawHeader:
    """
    Return a header of an event stream as ASGI wants it.

    Raises:
        TypeError: As :func:`header` does.
        ValueError: As :func:`header` does, or it is not the application's to set.

    """
    raw = header(name, value)
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"headers must not hold {name}: it is the server's to set")
    return raw


def add_vary(headers: Iterable[RawHeader], name: str) -> list[RawHeader]:
    """
    Return response headers that say that the response depends on a request header, too.
    """
    headers = list(headers)
    named = [value for key, value in headers if key.lower() == b"vary"]
    listed = {part.strip().lower() for value in named for part in value.split(b",")}
    if listed.isdisjoint({b"*", name.lower().encode()}):
        headers = [pair for pair in headers if pair[0].lower() != b"vary"]
        headers.append((b"vary", b", ".join([*filter(None, named), name.encode()])))
    return headers


class ResponseHeaders(MutableMapping[str, str]):
    """
    The headers of a response, to be changed until it starts.

    A mapping of names, in any case, to values; where a name has several, to
    the first. What makes no header is refused when it is set.

    Args:
        raw: What they are at first.

    Raises:
        TypeError: On setting: name or value is not a str.
        ValueError: On setting: it is not fit to send, or it is the server's to set.
        RuntimeError: On changing anything: the response has started.

    """

    __slots__ = ("_raw", "_sent")

    def __init__(self, raw: Iterable[RawHeader]) -> None:
        self._raw = [(name.decode("latin-1").lower(), value) for name, value in raw]
        self._sent = False

    def append(self, name: str, value: str) -> None:
        """
        Add a header beside those of the same name, as ``Set-Cookie`` needs it.

        Raises:
            TypeError: As setting one does.
            ValueError: As setting one does.
            RuntimeError: As setting one does.

        """
        _, raw = stream_header(name, value)
        self._check(name)
        self._raw.append((name.lower(), raw))

    def send(self) -> list[RawHeader]:
        """
        Return them as ASGI wants them, and refuse every change from now on.
        """
        self._sent = True
        return [(name.encode("latin-1"), value) for name, value in self._raw]

    def __getitem__(self, name: str) -> str:
        for key, value in self._raw:
            if key == name.lower():
                return value.decode("latin-1")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        stream_header(name, value)
        self._check(name)
        self._raw = [pair for pair in self._raw if pair[0] != name.lower()]
        self.append(name, value)

    def __delitem__(self, name: str) -> None:
        self._check(name)
        # Which may raise.
        self[name]
        self._raw = [pair for pair in self._raw if pair[0] != name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._raw))

    def __len__(self) -> int:
        return len(dict(self._raw))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._raw!r})"

    def _check(self, name: str) -> None:
        if self._sent:
            raise RuntimeError(
                f"header {name} must be set before the response starts. Let the source be a "
                "coroutine function that returns what to stream: until it returns, it may."
            )
