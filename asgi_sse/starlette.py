"""
``EventSourceResponse`` and the other names of sse-starlette, on this library's engine.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, Unpack, cast

import anyio
from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from . import _response as engine
from ._door import Door
from ._event import ServerSentEvent as CoreEvent
from ._options import Closed, CommonOptions, Options
from ._request import Request
from ._runtime import Runtime, current_runtime
from ._source import Source
from ._watch import Watcher

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger("asgi_sse")

__all__ = [
    "AppStatus",
    "Content",
    "ContentStream",
    "EventSourceResponse",
    "EventStreamResponse",
    "JSONServerSentEvent",
    "SendTimeoutError",
    "ServerSentEvent",
    "ensure_bytes",
]


class ServerSentEvent:
    """
    One event, as sse-starlette has it: mutable, and written when it is sent.

    Line ends in *id* and *event* are removed. :class:`asgi_sse.ServerSentEvent`,
    which refuses them, may be yielded just as well.

    Args:
        data: What becomes text with ``str()``.
        event: The event type.
        id: The event ID.
        retry: The reconnection time in milliseconds.
        comment: Text that clients ignore.
        sep: What ends a line, CRLF by default.

    """

    DEFAULT_SEPARATOR = "\r\n"

    def __init__(
        self,
        data: Any | None = None,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
        sep: str | None = None,
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment
        self._sep = sep if sep is not None else self.DEFAULT_SEPARATOR

    def encode(self) -> bytes:
        """
        Return the bytes that carry the event on the wire, a blank line at their end.

        Raises:
            TypeError: *retry* is no int.

        """
        sep = self._sep
        text = ""
        if self.comment is not None:
            text = _field("", self.comment, sep)
        if self.id is not None:
            text += f"id: {_single_line(self.id)}{sep}"
        if self.event is not None:
            text += f"event: {_single_line(self.event)}{sep}"
        if self.data is not None:
            text += _field("data", self.data, sep)
        if self.retry is not None:
            if not isinstance(self.retry, int):
                raise TypeError(f"retry must be an int (got {self.retry!r})")
            text += f"retry: {self.retry}{sep}"
        return f"{text}{sep}".encode()


class JSONServerSentEvent(ServerSentEvent):
    """
    One event whose data is an object as compact JSON; ``None`` is no data.
    """

    def __init__(self, data: Any | None = None, *args: Any, **kwargs: Any) -> None:
        text = None if data is None else _encode_json(data)
        super().__init__(text, *args, **kwargs)


# Not that of the core: sse-starlette knows nothing but what json does.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _field(name: str, value: object, sep: str) -> str:
    text = str(value)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in text:
        text = text.replace("\n", f"{sep}{name}: ")
    return f"{name}: {text}{sep}"


def _single_line(value: str | int) -> str:
    text = str(value)
    if "\r" in text or "\n" in text:
        text = text.replace("\r", "").replace("\n", "")
    return text


def ensure_bytes(data: Any, sep: str | None) -> bytes:
    """
    Return the bytes of whatever an :class:`EventSourceResponse` may be given.

    Bytes are themselves, an event writes itself, a dict has the fields of an
    event, and anything else is data that becomes text with ``str()``.
    """
    if type(data) is str:
        sep = sep or ServerSentEvent.DEFAULT_SEPARATOR
        return f"{_field('data', data, sep)}{sep}".encode()
    if isinstance(data, ServerSentEvent | CoreEvent):
        return data.encode()
    if isinstance(data, dict):
        return ServerSentEvent(**{**data, "sep": sep}).encode()
    if isinstance(data, bytes | memoryview):
        return bytes(data)
    return ServerSentEvent(str(data), sep=sep).encode()


Content: TypeAlias = str | bytes | memoryview | dict[str, Any] | ServerSentEvent | CoreEvent | Any
SyncContentStream: TypeAlias = Iterable[Content]
AsyncContentStream: TypeAlias = AsyncIterable[Content]
ContentStream: TypeAlias = AsyncContentStream | SyncContentStream


class SendTimeoutError(TimeoutError):
    """
    Raised by a response whose client has taken nothing for its ``send_timeout``.
    """


class _AppStatusType(type):
    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "should_exit" and value:
            # From a signal handler, or from another thread.
            for stream, runtime in list(_open.items()):
                _close(stream, runtime)


class AppStatus(metaclass=_AppStatusType):
    """
    The switches of sse-starlette, for programs and tests that set them.

    Nothing in this library sets ``should_exit``: each event loop learns by
    itself that its server stops.
    """

    #: Set it to end every open :class:`EventSourceResponse` of the process, and new
    #: ones at once, until it is reset.
    should_exit = False
    #: Whether they end by themselves when the server stops.
    enable_automatic_graceful_drain = True
    original_handler: Callable[..., Any] | None = None
    #: Without a meaning; tests reset it.
    should_exit_event: anyio.Event | None = None

    @staticmethod
    def disable_automatic_graceful_drain() -> None:
        """
        Let streams go on when the server stops, until ``should_exit`` is set.
        """
        AppStatus.enable_automatic_graceful_drain = False

    @staticmethod
    def enable_automatic_graceful_drain_mode() -> None:
        """
        Undo :meth:`disable_automatic_graceful_drain`.
        """
        AppStatus.enable_automatic_graceful_drain = True

    @staticmethod
    def handle_exit(*args: Any, **kwargs: Any) -> None:
        """
        Do what sse-starlette's signal handler does.
        """
        if AppStatus.enable_automatic_graceful_drain:
            AppStatus.should_exit = True
        if AppStatus.original_handler is not None:
            AppStatus.original_handler(*args, **kwargs)


# What a switch for the whole process cannot do without.
_open: dict[engine.Response | _Exit, Runtime] = {}


def _close(stream: engine.Response | _Exit, runtime: Runtime) -> None:
    runtime.call_soon_threadsafe(partial(stream.shut_down, "shutdown"))


class EventStreamResponse(Response):
    """
    A response of Starlette whose body is sent by the engine.

    A base for adapters, which say what is streamed, and how.

    Args:
        status_code: The HTTP status.
        headers: Response headers; what is missing comes from the options.
        media_type: The content type.
        background: Run when the response is over, unless by an exception.

    """

    media_type = "text/event-stream"

    def __init__(
        self,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        # Not that of the class above, which would make a body, and count its bytes.
        self.status_code = status_code
        if media_type is not None:
            self.media_type = media_type
        self.background = background
        self.init_headers(headers)

    def make_source(self) -> Source:
        """
        Return what is to be streamed.
        """
        raise NotImplementedError

    def make_options(self, scope: Scope) -> Options:
        """
        Return how, but for the status and the headers.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request, and then run the background task.

        HEAD is answered with the headers alone, and without touching the
        source; a WebSocket with a denial.

        Raises:
            BaseException: What the source raised, as it is.

        """
        options = self.make_options(scope)
        options = options.adapted(
            status=self.status_code, raw_headers=self.make_headers(options, scope)
        )
        if scope["type"] == "websocket":
            await self.stream(options, scope, *_deny(receive, send))
        else:
            door = Door(options, routed=True)
            await door.enter(partial(self._answer, options), scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _answer(self, options: Options, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"].upper() == "HEAD":
            await self.head(options, send)
        else:
            await self.stream(options, scope, receive, send)

    async def head(self, options: Options, send: Send) -> None:
        """
        Send the headers that the stream would have, and no body.
        """
        headers = list(options.raw_headers)
        await send({"type": "http.response.start", "status": options.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def stream(self, options: Options, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Stream to the client, and return when it is over, whoever has ended it.
        """
        await self.make_response(options, scope, receive, send).run()

    def make_response(
        self, options: Options, scope: Scope, receive: Receive, send: Send
    ) -> engine.Response:
        """
        Return the engine's response.
        """
        return engine.Response(
            self.make_source(),
            options,
            cast("Any", scope),
            cast("Any", receive),
            cast("Any", send),
        )

    def make_headers(self, options: Options, scope: Scope) -> tuple[tuple[bytes, bytes], ...]:
        """
        Return the headers of this response, and those of the options that it lacks.
        """
        headers = list(self.raw_headers)
        given = {name for name, _ in headers}
        headers += [header for header in options.raw_headers if header[0] not in given]
        # HTTP/2 and 3 forbid it, and some servers hand it on all the same.
        if not scope.get("http_version", "1.1").startswith("1"):
            headers = [header for header in headers if header[0] != b"connection"]
        return tuple(headers)


def _deny(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """
    Return what speaks of HTTP to us, and of a WebSocket's denial to the server.
    """

    async def receive_http() -> Message:
        message = await receive()
        return {**message, "type": message["type"].replace("websocket.", "http.")}

    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return receive_http, send_denial


class EventSourceResponse(EventStreamResponse):
    """
    A streaming response with the parameters and the wire format of sse-starlette.

    Args:
        content: What to send: an async or sync iterable of events, dicts with
            the fields of an event, bytes that are sent as they are, or anything
            else, which is data.
        status_code: The HTTP status.
        headers: Response headers, among them a ``Cache-Control`` of your own.
        media_type: The content type.
        background: Run when the response is over, unless by an exception.
        ping: Send a comment every so many seconds; 15 by default, 0 never.
        sep: What ends a line: CRLF by default, LF or CR.
        ping_message_factory: Returns what to send instead of the comment.
        data_sender_callable: Runs beside the response, and is cancelled with it.
        send_timeout: Raise :class:`SendTimeoutError` when the client has not
            taken what was sent for so many seconds.
        client_close_handler_callable: Awaited with the message when the client
            leaves, before *content* is cancelled.
        shutdown_event: Set when the server stops.
        shutdown_grace_period: Seconds that *content* then has to end by itself.
        cleanup_timeout: Seconds that it may take to end once it was cancelled;
            ``None``: as long as it wants.
        options: What sse-starlette has no word for, and an
            :class:`asgi_sse.EventStream` has: ``on_error``, ``on_close``,
            ``max_age``, ``buffer_size`` and others.

    Raises:
        TypeError: *ping* is no number, or an option is of another type, or is
            a parameter here.
        ValueError: *sep* is no line end, a number is negative, or an option has
            a value that makes no sense.

    """

    DEFAULT_PING_INTERVAL: ClassVar[float] = 15
    DEFAULT_SEPARATOR: ClassVar[str] = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT: ClassVar[float] = 30.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A subclass that answers by itself may have whatever it likes.
        if "__call__" not in vars(cls):
            for name in _NEVER_CALLED & vars(cls).keys():
                warnings.warn(
                    f"{cls.__qualname__}.{name} is never called: what it is for is an argument "
                    "of asgi_sse.starlette.EventSourceResponse (on_error, send_timeout, ...)",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def __init__(
        self,
        content: ContentStream,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = "text/event-stream",
        background: BackgroundTask | None = None,
        ping: float | None = None,
        sep: str | None = None,
        ping_message_factory: Callable[[], Content] | None = None,
        data_sender_callable: Callable[[], Coroutine[None, None, None]] | None = None,
        send_timeout: float | None = None,
        client_close_handler_callable: Callable[[Message], Awaitable[None]] | None = None,
        shutdown_event: anyio.Event | None = None,
        shutdown_grace_period: float = 0,
        cleanup_timeout: float | None = DEFAULT_CLEANUP_TIMEOUT,
        **options: Unpack[CommonOptions],
    ) -> None:
        if sep not in (None, "\r\n", "\r", "\n"):
            raise ValueError(f"sep must be one of \\r\\n, \\r and \\n (got {sep!r})")
        if shutdown_grace_period < 0:
            raise ValueError(f"shutdown_grace_period must be >= 0 (got {shutdown_grace_period!r})")
        if cleanup_timeout is not None and cleanup_timeout < 0:
            raise ValueError(f"cleanup_timeout must be >= 0 (got {cleanup_timeout!r})")
        self._codings = _check(options) if options else ()
        self.sep = sep or self.DEFAULT_SEPARATOR
        self.body_iterator: AsyncIterable[Content] = (
            content if isinstance(content, AsyncIterable) else _iterate(content)
        )
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.data_sender_callable = data_sender_callable
        self.send_timeout = send_timeout
        self.client_close_handler_callable = client_close_handler_callable
        #: Whether it may still send something.
        self.active = True
        self._shutdown_event = shutdown_event
        self._shutdown_grace_period = shutdown_grace_period
        self._cleanup_timeout = cleanup_timeout
        self._options = options
        self._closed: Closed | None = None
        self._error: Exception | None = None

        merged = MutableHeaders(headers)
        merged.setdefault("Cache-Control", "no-store")
        merged["Connection"] = "keep-alive"
        merged["X-Accel-Buffering"] = "no"
        super().__init__(status_code, merged, media_type, background)

    @property
    def ping_interval(self) -> float:
        """
        Seconds between two pings; 0 for none.
        """
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if not isinstance(value, int | float):
            raise TypeError(f"ping interval must be an int or a float (got {value!r})")
        if value < 0:
            raise ValueError(f"ping interval must be >= 0 (got {value!r})")
        self._ping_interval = value

    def enable_compression(self, force: bool = False) -> None:
        """
        Refuse: sse-starlette has this name, and does so too.
        """
        raise NotImplementedError("Compression is an option here: pass compress=True.")

    _response: engine.Response

    def make_source(self) -> Source:
        source = Source(self.body_iterator)
        waits = self._shutdown_event is not None or self._shutdown_grace_period
        if self.data_sender_callable is not None or waits:
            name = source.name
            source = Source(self._accompanied)
            source.name = name
        return source

    def make_options(self, scope: Scope) -> Options:
        ping = self._ping_interval
        cleanup_timeout = math.inf if self._cleanup_timeout is None else self._cleanup_timeout
        given: CommonOptions = {
            "keep_alive_always": True,
            "watch_shutdown": AppStatus.enable_automatic_graceful_drain,
            **self._options,
            "on_close": self._on_close,
            "done": None,
            "compress": False,
        }
        options = Options(
            keep_alive=ping if 0 < ping < math.inf else None,
            keep_alive_event=cast("Any", self.ping_message_factory or self._make_ping),
            send_timeout=self.send_timeout,
            cleanup_timeout=min(max(cleanup_timeout, _AT_ONCE), _FOR_EVER),
            shutdown_grace=self._shutdown_grace_period,
            **given,
        )
        # Nothing before the first event, unless it was asked for.
        opening = b"" if options.retry is None else options.opening
        return options.adapted(
            opening=opening,
            encode=partial(ensure_bytes, sep=self.sep),
            # It is what an item is here, which the core would write in another way.
            done=self._options.get("done"),
            # Known already, and to find out takes longer than all the rest.
            codings=self._codings,
        )

    async def head(self, options: Options, send: Send) -> None:
        """
        Send the headers that the stream would have, and no body.

        Raises:
            SendTimeoutError: The client has taken nothing for too long.

        """
        with anyio.move_on_after(self.send_timeout) as too_long:
            await super().head(options, send)
        if too_long.cancelled_caught:
            raise SendTimeoutError

    async def stream(self, options: Options, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Stream to the client, and return when it is over, whoever has ended it.

        Raises:
            SendTimeoutError: The client has taken nothing for too long.
            BaseException: What *content* or another part raised, as it is.

        """

        async def receive_or_handle() -> Message:
            message = await receive()
            await self._heed(message)
            return message

        self._response = response = self.make_response(options, scope, receive_or_handle, send)
        _open[response] = runtime = current_runtime()
        if AppStatus.should_exit:
            _close(response, runtime)
        try:
            await response.run()
        finally:
            self.active = False
            del _open[response]
        if self._closed is not None and self._closed.reason == "send_timeout":
            raise SendTimeoutError

    async def _heed(self, message: Message) -> None:
        if message["type"] == "http.disconnect" and self.active:
            self.active = False
            if self.client_close_handler_callable is not None:
                await self.client_close_handler_callable(message)

    def _on_close(self, closed: Closed) -> Awaitable[None] | None:
        self._closed = closed
        on_close = self._options.get("on_close")
        return None if on_close is None else on_close(closed)

    def _make_ping(self) -> ServerSentEvent:
        return ServerSentEvent(comment=f"ping - {datetime.now(UTC)}", sep=self.sep)

    @asynccontextmanager
    async def _accompanied(self, request: Request) -> AsyncIterator[AsyncIterable[Content]]:
        """
        Give what is to be sent, and have tasks beside it run meanwhile.
        """
        # Not in a task group around it: there a cancellation of the one cuts short what
        # the other awaits in its cleanup.
        runtime = current_runtime()
        sent = anyio.Event()
        tasks = [
            runtime.spawn(partial(self._wait_for_shutdown, request), "shutdown_event"),
            runtime.spawn(partial(self._send_data, sent), "data_sender_callable"),
        ]
        try:
            yield _Open(self.body_iterator)
        finally:
            self.active = False
            for task in tasks:
                task.cancel()
            await sent.wait()
            if hasattr(self.body_iterator, "aclose"):
                await self.body_iterator.aclose()
        # What the content raises comes first.
        if self._error is not None:
            raise self._error

    async def _send_data(self, sent: anyio.Event) -> None:
        try:
            if self.data_sender_callable is not None:
                await self.data_sender_callable()
        except Exception as exc:
            if self.active:
                self._response.fail(exc)
            else:
                logger.exception("data_sender_callable raised at the end")
                self._error = exc
        finally:
            sent.set()

    async def _wait_for_shutdown(self, request: Request) -> None:
        # Whoever waits for it is given the grace.
        await request.wait_closing()
        if self._shutdown_event is not None:
            self._shutdown_event.set()

    # For subclasses that answer by themselves, with a __call__() of their own: langgraph-api
    # and others do. What they make of it is not the engine's.

    @cached_property
    def _send_lock(self) -> anyio.Lock:
        return anyio.Lock()

    async def _listen_for_disconnect(self, receive: Receive) -> None:
        while self.active:
            await self._heed(await receive())

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        await _Exit().wait()


class _Open:
    """
    Iterates over something, and leaves it open.

    If it were closed with the stream, a task that still sends to it would fail
    before it is cancelled.
    """

    def __init__(self, iterable: AsyncIterable[Content]) -> None:
        self._anext = aiter(iterable).__anext__

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Content]:
        return self._anext()


class _Exit:
    """
    Learns of an exit for those who answer by themselves: from a signal, or from AppStatus.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def shut_down(self, _: str) -> None:
        self._event.set()

    async def wait(self) -> None:
        if AppStatus.should_exit:
            return
        runtime = current_runtime()
        watcher = Watcher(runtime, self._event.set)
        watcher.enter(AppStatus.enable_automatic_graceful_drain)
        _open[self] = runtime
        try:
            await self._event.wait()
        finally:
            del _open[self]
            watcher.leave()


# What subclasses of sse-starlette's response override.
_NEVER_CALLED = {
    "_listen_for_exit_signal_with_grace",
    "_ping",
    "_send_with_timeout",
    "_stream_response",
}

# The parameters of sse-starlette for what has another name as an option, or none.
_CALLED = {
    "keep_alive": "ping",
    "keep_alive_event": "ping_message_factory",
    "shutdown_grace": "shutdown_grace_period",
    "status": "status_code",
}
_FRAMEWORKS_OWN = {"json", "max_body_size", "methods"}


def _check(options: CommonOptions) -> tuple[str, ...]:
    """
    Refuse options that make no sense, and return the codings that they ask for.
    """
    for name in options:
        if name in _CALLED:
            raise TypeError(f"{name} is called {_CALLED[name]} here")
        if name in _FRAMEWORKS_OWN:
            raise TypeError(f"{name} is not an option here: the endpoint has the say in it")
    given: CommonOptions = {**options, "done": None}
    encode = partial(ensure_bytes, sep=None)
    return Options(**given).adapted(encode=encode, done=options.get("done")).codings


# What the engine wants a number for.
_AT_ONCE = 0.001
_FOR_EVER = 1e9


async def _iterate(content: Iterable[Content]) -> AsyncIterator[Content]:
    """
    Iterate in worker threads, and close what can be closed.
    """
    threads = current_runtime().threads
    async with aclosing(cast("Any", Source(content).iterate(content, threads))) as items:
        async for item in items:
            yield item
