"""
Questions to a scope, and refusing one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

from ._headers import ResponseHeaders, header

if TYPE_CHECKING:
    from asgiref.typing import HTTPScope


class Refused(Exception):
    """
    Raise it before the response starts to answer with a status of your own.

    An ``EventSource`` treats every status but 200 as final: it does not
    reconnect. ``Refused(204)`` is the standard's way to say "no more events".

    Args:
        status: The HTTP status, 200 to 599.
        detail: Text for the body, sent as ``text/plain``; empty for no body.
        headers: Further response headers, such as ``WWW-Authenticate``.

    Raises:
        TypeError: ``status`` is not an int, or ``detail`` not a str.
        ValueError: ``status`` is out of range, or a header is not fit to send.

    """

    def __init__(
        self, status: int, detail: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"status must be an int (got {status!r})")
        if not 200 <= status <= 599:
            raise ValueError(f"status must be from 200 to 599 (got {status!r})")
        if not isinstance(detail, str):
            raise TypeError(f"detail must be a str (got {detail!r})")
        super().__init__(status, detail)
        self.status = int(status)
        self.detail = detail
        self.headers = [header(name, value) for name, value in dict(headers or {}).items()]

    def __str__(self) -> str:
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = ""
        return ": ".join(filter(None, (f"{self.status} {phrase}".strip(), self.detail)))


#: What the last event ID begins with after a stream that is finished; then comes the
#: source's own. No source has such IDs, and any server and proxy lets them through.
FINISHED = "asgi-sse-finished:"

# What comes from outside is bounded; this is also less than what int() takes.
_LONGEST_ID = 4096


class MultiMapping(Mapping[str, str]):
    """
    Names with one or more values each, in the order they came.

    As a mapping it gives the first value of a name; :meth:`get_all` gives
    every one. With ``fold`` the case of names does not matter.
    """

    __slots__ = ("_fold", "_items")

    def __init__(self, items: Iterable[tuple[str, str]], *, fold: bool = False) -> None:
        self._fold = fold
        self._items: dict[str, list[str]] = {}
        for name, value in items:
            self._items.setdefault(name.lower() if fold else name, []).append(value)

    def get_all(self, name: str) -> list[str]:
        """
        Return every value of a name, in order; an empty list if there is none.
        """
        return list(self._items.get(name.lower() if self._fold else name, ()))

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower() if self._fold else name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"


class Lifetime(Protocol):
    """
    What a request asks of the response that is made for it.
    """

    @property
    def closing(self) -> bool: ...
    async def wait_closing(self) -> None: ...
    @property
    def response_headers(self) -> ResponseHeaders: ...
    async def body(self) -> bytes: ...
    def close(self) -> None: ...
    def expire_at(self, when: float | None) -> None: ...


class Request:
    """
    What a source may ask about the request that it answers.

    A source function that takes one argument gets it; headers and query are
    read when first asked for.
    """

    __slots__ = ("_expires_at", "_headers", "_lifetime", "_meta", "_query", "scope")

    #: The ASGI scope, as the server and the frameworks above made it.
    scope: HTTPScope

    def __init__(self, scope: HTTPScope, lifetime: Lifetime) -> None:
        self.scope = scope
        self._lifetime = lifetime
        self._headers: MultiMapping | None = None
        self._query: MultiMapping | None = None
        self._meta: dict[str, Any] | None = None
        self._expires_at: float | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.scope['path']}>"

    @property
    def method(self) -> str:
        """
        The HTTP method, in upper case.
        """
        return self.scope["method"]

    @property
    def headers(self) -> MultiMapping:
        """
        The request's headers; the case of their names does not matter.
        """
        if self._headers is None:
            self._headers = MultiMapping(
                (
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in self.scope["headers"]
                ),
                fold=True,
            )
        return self._headers

    @property
    def query(self) -> MultiMapping:
        """
        The query's parameters, decoded; garbage in it is replaced, never an error.
        """
        if self._query is None:
            # The specification says that it is percent-encoded bytes and may be absent.
            text = self.scope.get("query_string", b"").decode("latin-1")
            self._query = MultiMapping(parse_qsl(text, keep_blank_values=True))
        return self._query

    @property
    def path_params(self) -> Mapping[str, Any]:
        """
        What the framework's router took from the path; empty without one.
        """
        scope: Mapping[str, Any] = self.scope
        params: Mapping[str, Any] = (
            # Channels and Django keep theirs elsewhere.
            scope.get("path_params") or (scope.get("url_route") or {}).get("kwargs") or {}
        )
        return params

    @property
    def client(self) -> tuple[str, int] | None:
        """
        The client's host and port as the server knows them, or ``None``.
        """
        client = self.scope.get("client")
        # granian gives the port as text.
        return None if client is None else (client[0], int(client[1] or 0))

    @property
    def last_event_id(self) -> str | None:
        """
        The ID of the last event that the client has seen, or ``None``.

        From the ``Last-Event-ID`` header, or from ``lastEventId`` in the
        query, where clients put it that cannot set headers. An empty one, one
        that no event can have (with CR, LF or NUL), and one of more than 4096
        characters reads as ``None``. The text comes from outside: nothing says
        that you have ever sent it. Of a client that comes back after the end of
        a stream with ``end="stop"`` it is the source's own last one.
        """
        text = self._sent_id().removeprefix(FINISHED)
        if not text or len(text) > _LONGEST_ID or not {"\r", "\n", "\0"}.isdisjoint(text):
            return None
        return text

    @property
    def finished(self) -> bool:
        """
        Whether the client has seen this stream come to its end.

        Its last event ID says so, after a stream with ``end="stop"``. Such a
        stream answers it with a 204, and does not call the source.
        """
        return self._sent_id().startswith(FINISHED)

    def _sent_id(self) -> str:
        text = ""
        for name, value in self.scope["headers"]:
            if name.lower() == b"last-event-id":
                # The standard has the client send it as UTF-8.
                text = value.decode("utf-8", "replace")
        return text or self.query.get("lastEventId", "")

    @property
    def response_headers(self) -> ResponseHeaders:
        """
        The response's headers, to be changed before it starts; ``append()`` adds a cookie.

        At first those of the stream's options. They are for the stream: an
        answer by :class:`Refused` has only its own. The response starts when
        the setup phase is over, or when a generator first waits.
        """
        return self._lifetime.response_headers

    @property
    def meta(self) -> dict[str, Any]:
        """
        What the setup phase says of the stream: who it is for, above all.

        Empty at first. ``close_streams()`` finds streams by it, and
        ``on_close`` gets it.
        """
        if self._meta is None:
            self._meta = {}
        return self._meta

    @property
    def expires_at(self) -> float | None:
        """
        When the stream is to end, in seconds since 1970, or ``None``: never.

        As the ``exp`` of a JWT has it. Set it in the setup phase, or later; the
        stream then ends politely, with the reason ``expired``. The clock on the
        wall is what counts, also when it is set meanwhile.

        Raises:
            TypeError: It is set to something that is no number.
            ValueError: It is set to a number that is not finite.

        """
        return self._expires_at

    @expires_at.setter
    def expires_at(self, when: float | None) -> None:
        if when is not None:
            if not isinstance(when, int | float) or isinstance(when, bool):
                hint = "; did you mean its timestamp()?" if hasattr(when, "timestamp") else ""
                raise TypeError(
                    f"expires_at must be seconds since 1970, or None (got {when!r}){hint}"
                )
            if not math.isfinite(when):
                raise ValueError(f"expires_at must be finite (got {when!r})")
        self._expires_at = when
        self._lifetime.expire_at(when)

    async def body(self) -> bytes:
        """
        Return the request's whole body, once it is there.

        May be called more than once. Cancellation: nothing is lost, a later
        call returns the same.

        Raises:
            Refused: With status 413, when the body is larger than the
                stream's ``max_body_size``.

        """
        return await self._lifetime.body()

    @property
    def closing(self) -> bool:
        """
        Whether the stream is being closed from this side, by shutdown above all.
        """
        return self._lifetime.closing

    async def wait_closing(self) -> None:
        """
        Return when the stream is being closed from this side.

        A client that leaves does not end this wait; it cancels the source.
        Cancellation: nothing changes, and it may be awaited again.
        """
        await self._lifetime.wait_closing()

    def close(self) -> None:
        """
        End the stream politely: what was yielded is sent, then a correct end.

        The source is cancelled once, and may await in its ``finally``. May be
        called from any task of the event loop, and more than once. The
        client reconnects, if it is an ``EventSource``.
        """
        self._lifetime.close()
