"""
The options of an event stream, valid or refused.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict, Unpack, get_args

from ._compress import Compress, choose_compressors
from ._event import ServerSentEvent
from ._headers import RawHeader, stream_header
from ._item import encode_item
from ._json import encode_json
from ._limiter import Limiter
from ._origins import AllowOrigins, Origins
from ._request import Request

#: What ended a stream.
Reason = Literal[
    "finished",
    "client",
    "shutdown",
    "send_timeout",
    "max_age",
    "expired",
    "revoked",
    "closed",
    "error",
    "refused",
]

#: Tells whether a client may still read; an event ends its stream, as ``False`` does.
Revalidate = Callable[[Request], Awaitable[bool | ServerSentEvent] | bool | ServerSentEvent]

#: What is called with a scope, ``receive`` and ``send``, of whatever framework's types.
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

#: The last event of a stream that is closed from this side, or what returns it.
Farewell = ServerSentEvent | Callable[[Request], ServerSentEvent | None] | None


def spread_reconnects(_: Request) -> ServerSentEvent:
    """
    Return a reconnection time of 1 to 5 seconds, so that not all clients return at once.
    """
    return ServerSentEvent(retry=random.randint(1000, 5000))


@dataclass(frozen=True, slots=True)
class Closed:
    """
    What ``on_close`` is told about a stream that is over.
    """

    #: ``finished``: the source came to its end, and the client got all of it.
    #: ``error``: the source raised. ``refused``: it raised :class:`Refused` before the
    #: response started. ``client``: the client left. ``send_timeout``: it took nothing for
    #: too long. ``shutdown``: the server stopped, or cancelled the request. ``closed``:
    #: :meth:`Request.close`. ``max_age``: it was old enough. ``expired``: it was open until
    #: ``request.expires_at``. ``revoked``: :func:`close_streams`, or ``revalidate``.
    reason: Reason
    #: Seconds from the request to the end.
    duration: float
    #: Items of the source that were handed to the server.
    events: int
    #: Bytes of body that were handed to the server, comments included.
    bytes: int
    #: What the source raised, if it did.
    error: BaseException | None
    #: ``request.meta``, which is no text for a log.
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)


class OpenStream(Protocol):
    """
    What ``observe`` is told of a stream, from when it opens to its end.
    """

    @property
    def request(self) -> Request:
        """
        The request that it answers.
        """

    @property
    def source(self) -> str:
        """
        The name of the source: that of its function, with its module.
        """

    @property
    def status(self) -> int | None:
        """
        The status that was sent, or ``None`` as long as none was.
        """

    @property
    def sent_events(self) -> int:
        """
        Items of the source that were handed to the server so far.
        """

    @property
    def sent_bytes(self) -> int:
        """
        Bytes of body that were handed to the server so far, comments included.
        """

    @property
    def lag(self) -> float:
        """
        For how many seconds the client has not taken what is being sent; else 0.
        """


#: Told that a stream opens; what it returns is told of the end.
Observe = Callable[[OpenStream], Callable[[Closed], None]]


class CommonOptions(TypedDict, total=False):
    """
    The options by name, for type checkers; what they mean stands in :class:`Options`.

    These are the ones for which no framework has a word: adapters pass them on.
    """

    keep_alive_always: bool
    open_delay: float
    max_age: float | tuple[float, float] | None
    revalidate: Revalidate | None
    revalidate_every: float
    end: Literal["reconnect", "stop"]
    done: Any
    on_shutdown: Literal["close", "finish"]
    farewell: Farewell
    watch_shutdown: bool | Callable[[], Awaitable[Any]]
    buffer_size: int
    accept: Literal["any", "strict"]
    fallback: ASGIApp | None
    allow_origins: AllowOrigins
    allow_credentials: bool
    limit: Limiter | None
    compress: Compress
    retry: int | None
    on_error: Callable[[Exception], ServerSentEvent | None] | None
    on_close: Callable[[Closed], Awaitable[None] | None] | None
    observe: Observe | None


class ResponseOptions(CommonOptions, total=False):
    """
    Those, and the ones for which sse-starlette has words of its own.
    """

    keep_alive: float | None
    keep_alive_event: ServerSentEvent | Callable[[], ServerSentEvent] | None
    send_timeout: float | None
    cleanup_timeout: float
    shutdown_grace: float
    headers: Mapping[str, str | None] | None


class OptionTypes(ResponseOptions, total=False):
    """
    All of them: those, and the ones that a framework decides where there is one.
    """

    max_body_size: int
    status: int
    methods: Collection[str]
    json: Callable[[Any], str | bytes]


class Replaced(TypedDict, total=False):
    """
    What an adapter may replace, unchecked.
    """

    status: int
    raw_headers: tuple[RawHeader, ...]
    opening: bytes
    encode: Callable[[Any], bytes] | None
    done: Any
    codings: tuple[str, ...]


_DEFAULT_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    # "no-transform" keeps proxies from compressing, which makes most of them buffer.
    "cache-control": "no-cache, no-transform",
    # nginx buffers responses unless it is told not to.
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    The options of an event stream; durations are in seconds.

    Args:
        keep_alive: Send a comment after so much silence, so that nothing on
            the way takes the connection for dead. ``None``: never.
        keep_alive_event: Send this instead of the comment, or what this
            function returns.
        keep_alive_always: Send it every so many seconds, also between events, for
            clients that expect a heartbeat.
        open_delay: Wait so long for the first event before the response starts:
            what the source raises until then is still answered with a status.
        send_timeout: End the stream when the client has not taken what was
            sent for so long. ``None``: wait for ever.
        cleanup_timeout: How long the source may take to end once it was
            cancelled, and ``on_close`` to return.
        max_age: End the stream politely when it is so old. Of a pair ``(least,
            most)`` each stream draws its own, so that they do not all return at
            once. ``None``: never.
        revalidate: Asked from time to time, with the :class:`Request`, whether the
            client may still read: ``True`` lets it, ``False`` ends the stream
            politely, a :class:`ServerSentEvent` does so as its last event. May be a
            coroutine function; a plain one must not block. One that raises, or does
            not answer in time, is asked again, three times in all.
        revalidate_every: How long is waited for between two such questions, at most; with
            N streams not less than N / 100 times what an answer takes, for no more than
            100 questions are open at once. An answer may take as long, up to 10 seconds.
        end: What a client does when the source came to its end: ``"reconnect"``
            leaves it to the client, and every ``EventSource`` comes back;
            ``"stop"`` keeps it from that, by an ID and a 204.
        done: An item that is sent as the last when the source came to its end,
            such as ``"[DONE]"``. ``None``: none.
        shutdown_grace: How long a source that asks for ``request.closing`` may
            go on when the server stops. Less than the server's own grace.
        on_shutdown: ``"finish"`` lets the source come to its own end, if the
            server waits so long; ``"close"`` does not.
        farewell: The last event when the server stops, ``max_age`` is reached, or
            the client may no longer read; or a function that is given the request
            and returns it; ``None``: none. By default a reconnection time at random.
        watch_shutdown: Learn by itself that the server stops; or a coroutine
            function that returns when it does.
        buffer_size: Bytes that may wait to be sent before the source waits.
            ``0``: the source goes on only when its last item was sent.
        max_body_size: Bytes of request body that are kept for the source.
        headers: Response headers, put over the defaults; ``None`` as a value
            removes a default.
        status: The response's HTTP status, 200 to 299.
        methods: The HTTP methods that are answered. HEAD comes with GET.
        accept: ``"strict"`` answers 406 to clients that accept no event stream.
        fallback: The ASGI application for clients that do not ask for an event
            stream by its name, or prefer something else.
        allow_origins: The other origins whose pages may read the stream:
            ``"*"`` for all, or a function that is given one and returns a bool. They may
            send what headers they like, and use the *methods*.
        allow_credentials: Whether they may do so with cookies.
        limit: A :class:`Limiter`, which turns away who is one too many.
        compress: ``True`` compresses for clients that accept it; or name the
            codings, the best first: ``zstd``, ``gzip``, ``br``. No event is held back.
        retry: The client's reconnection time in milliseconds, sent at the start.
        json: Makes text of an item that is neither text, event nor bytes.
        on_error: Called with what the source raised; the event that it returns
            is sent before the stream ends.
        on_close: Called with a :class:`Closed` when the stream is over, however
            that came. May be a coroutine function.
        observe: Called with an :class:`OpenStream` for each stream, in the task and
            context of its request, before the setup phase; what it returns is called
            with a :class:`Closed` when nothing is left of the stream. For metrics and
            traces, such as those of :mod:`asgi_sse.opentelemetry`.

    Raises:
        TypeError: An option is of another type, or there is no option of this name.
        ValueError: An option has a value that makes no sense.
        ImportError: A coding needs a package that is not installed.

    """

    keep_alive: float | None = 15.0
    keep_alive_event: ServerSentEvent | Callable[[], ServerSentEvent] | None = None
    keep_alive_always: bool = False
    open_delay: float = 0.0
    send_timeout: float | None = 30.0
    cleanup_timeout: float = 5.0
    max_age: float | tuple[float, float] | None = None
    revalidate: Revalidate | None = None
    revalidate_every: float = 30.0
    end: Literal["reconnect", "stop"] = "reconnect"
    done: Any = None
    shutdown_grace: float = 1.0
    on_shutdown: Literal["close", "finish"] = "close"
    farewell: Farewell = spread_reconnects
    watch_shutdown: bool | Callable[[], Awaitable[Any]] = True
    buffer_size: int = 65536
    max_body_size: int = 1_048_576
    headers: Mapping[str, str | None] | None = None
    status: int = 200
    methods: Collection[str] = ("GET",)
    accept: Literal["any", "strict"] = "any"
    fallback: ASGIApp | None = None
    allow_origins: AllowOrigins = ()
    allow_credentials: bool = False
    limit: Limiter | None = None
    compress: Compress = False
    retry: int | None = None
    json: Callable[[Any], str | bytes] = encode_json
    on_error: Callable[[Exception], ServerSentEvent | None] | None = None
    on_close: Callable[[Closed], Awaitable[None] | None] | None = None
    observe: Observe | None = None

    #: The first bytes of every stream: onopen fires, and proxies commit to the response.
    opening: bytes = field(init=False)
    #: The block of ``done``.
    done_block: bytes = field(init=False)
    #: The response headers as ASGI wants them.
    raw_headers: tuple[RawHeader, ...] = field(init=False)
    #: Which other origins may read it, if any.
    origins: Origins | None = field(init=False)
    #: The codings that it may have, the best first.
    codings: tuple[str, ...] = field(init=False)
    #: Makes bytes of whatever the source yields, instead of what the core does.
    encode: Callable[[Any], bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        for name in ("keep_alive", "send_timeout"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name), hint="; None turns it off")
        _check_age(self.max_age)
        check_seconds("revalidate_every", self.revalidate_every)
        check_seconds("cleanup_timeout", self.cleanup_timeout)
        check_seconds("shutdown_grace", self.shutdown_grace, least=0)
        check_seconds("open_delay", self.open_delay, least=0)
        if not isinstance(self.keep_alive_always, bool):
            raise TypeError(f"keep_alive_always must be a bool (got {self.keep_alive_always!r})")
        if self.end not in ("reconnect", "stop"):
            raise ValueError(f"end must be reconnect or stop (got {self.end!r})")
        if self.on_shutdown not in ("close", "finish"):
            raise ValueError(f"on_shutdown must be close or finish (got {self.on_shutdown!r})")
        check_farewell(self.farewell)
        if not isinstance(self.watch_shutdown, bool) and not callable(self.watch_shutdown):
            raise TypeError(
                f"watch_shutdown must be a bool or a coroutine function "
                f"(got {self.watch_shutdown!r})"
            )
        _check_int("buffer_size", self.buffer_size, 0, math.inf)
        _check_int("max_body_size", self.max_body_size, 0, math.inf)
        _check_int("status", self.status, 200, 299)
        if self.status in (204, 205):
            raise ValueError(f"status must be one that has a body (got {self.status})")
        for name in ("json", "on_error", "on_close", "observe", "fallback", "revalidate"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name == "json"):
                raise TypeError(f"{name} must be callable (got {value!r})")
        if self.accept not in ("any", "strict"):
            raise ValueError(f"accept must be any or strict (got {self.accept!r})")
        if self.limit is not None and not isinstance(self.limit, Limiter):
            raise TypeError(f"limit must be a Limiter (got {self.limit!r})")
        event = self.keep_alive_event
        if not (event is None or isinstance(event, ServerSentEvent) or callable(event)):
            raise TypeError(
                f"keep_alive_event must be a ServerSentEvent or return one (got {event!r})"
            )
        # The dataclass is frozen; these are what __init__ makes of the arguments.
        object.__setattr__(self, "methods", _methods(self.methods))
        object.__setattr__(self, "raw_headers", _raw_headers(self.headers))
        object.__setattr__(self, "codings", choose_compressors(self.compress))
        origins = Origins(
            self.allow_origins, credentials=self.allow_credentials, methods=self.methods
        )
        object.__setattr__(self, "origins", origins if self.allow_origins else None)
        # With a reconnection time no blank line: several clients dispatch it as an event.
        retry = self.retry
        rest = b"\n" if retry is None else ServerSentEvent(retry=retry).encode()
        object.__setattr__(self, "opening", b":\n" + rest)
        object.__setattr__(self, "done_block", self._encode_done())

    def adapted(self, **replaced: Unpack[Replaced]) -> Options:
        """
        Return them as an adapter needs them, whose framework has the say in the rest.

        Raises:
            TypeError: What is given as *done* is nothing that *encode* takes.
            ValueError: The same.

        """
        options = copy(self)
        for name, value in replaced.items():
            object.__setattr__(options, name, value)
        if "done" in replaced:
            # Not whenever there is an encode: that of a framework may know but one type of
            # items, of which "[DONE]" is none.
            object.__setattr__(options, "done_block", options._encode_done())
        return options

    def _encode_done(self) -> bytes:
        if self.done is None:
            return b""
        try:
            if self.encode is not None:
                return self.encode(self.done)
            return encode_item(self.done, self.json)
        except (TypeError, ValueError) as exc:
            what = f"done must be what a source may yield (got {self.done!r:.100}): {exc}"
            raise (TypeError if isinstance(exc, TypeError) else ValueError)(what) from exc


def encode_event(option: str, event: object) -> bytes:
    """
    Return the bytes of what a function has returned that was given as an option.
    """
    # A str has an encode() too, and its bytes would be taken for fields.
    if not isinstance(event, ServerSentEvent):
        raise TypeError(f"{option} must return a ServerSentEvent (got {event!r})")
    return event.encode()


def check_seconds(name: str, value: object, *, least: float | None = None, hint: str = "") -> None:
    """
    Refuse what is no duration; without *least* it must be more than nothing.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds (got {value!r})")
    if not (value > 0 if least is None else value >= least) or value == math.inf:
        rule = "more than 0" if least is None else f"{least} or more"
        raise ValueError(f"{name} must be finite and {rule} seconds (got {value!r}){hint}")


def check_farewell(farewell: object, name: str = "farewell") -> None:
    """
    Refuse what is no last event, and cannot return one.
    """
    if not (farewell is None or isinstance(farewell, ServerSentEvent) or callable(farewell)):
        raise TypeError(
            f"{name} must be a ServerSentEvent, return one, or be None (got {farewell!r})"
        )


def check_reason(reason: object) -> None:
    """
    Refuse what ``on_close`` is never told.
    """
    if reason not in get_args(Reason):
        raise ValueError(f"reason must be one of {', '.join(get_args(Reason))} (got {reason!r})")


def _check_age(age: object) -> None:
    if isinstance(age, tuple):
        if len(age) != 2:
            raise ValueError(f"max_age must be a pair of least and most (got {age!r})")
        for seconds in age:
            check_seconds("max_age", seconds)
        if age[0] > age[1]:
            raise ValueError(f"max_age must be a pair of least and most (got {age!r})")
    elif age is not None:
        check_seconds("max_age", age, hint="; None turns it off")


def _check_int(name: str, value: object, least: int, most: float) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int (got {value!r})")
    if not least <= value <= most:
        rule = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be {rule} (got {value!r})")


def _methods(methods: object) -> tuple[str, ...]:
    if isinstance(methods, str) or not isinstance(methods, Collection):
        raise TypeError(f"methods must be a collection of str (got {methods!r})")
    for method in methods:
        if not isinstance(method, str):
            raise TypeError(f"methods must hold str (got {method!r})")
        if not method.isascii() or not method.replace("-", "").isalpha():
            raise ValueError(f"methods must hold HTTP methods (got {method!r})")
    if not methods:
        raise ValueError(f"methods must not be empty (got {methods!r})")
    return tuple(dict.fromkeys(method.upper() for method in methods))


def _raw_headers(headers: object) -> tuple[RawHeader, ...]:
    if headers is None:
        headers = {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping (got {headers!r})")
    merged: dict[str, str | None] = dict(_DEFAULT_HEADERS)
    for name, value in headers.items():
        stream_header(name, "" if value is None else value)
        merged[name.lower()] = value
    return tuple(stream_header(name, value) for name, value in merged.items() if value is not None)
