"""
An ASGI application made of a source.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast, overload

from ._door import Door
from ._options import Options, OptionTypes
from ._response import Response
from ._shutdown import current_open_streams
from ._source import Source
from ._statistics import Statistics, Tally

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

S = TypeVar("S")


class EventStream:
    """
    An event stream as an ASGI application, or as an endpoint of a framework.

    Each request gets a response with a source of its own: what it yields is
    sent as it comes, and when either side leaves, it is closed.

    Args:
        source: What gives the items of one response: an async generator
            function; a generator function (it runs in worker threads); a
            coroutine function that returns an iterable (what it awaits is the
            setup phase: it runs before the response starts, and may raise
            :class:`Refused`); a function that returns an async context
            manager of an iterable (it is held as long as the stream); an
            async iterable that can be iterated over anew; or one async
            iterator, good for one response. A function takes the
            :class:`Request`, or nothing.
        options: See :class:`Options`.

    Raises:
        TypeError: The source is none of these, or an option is of another type.
        ValueError: An option has a value that makes no sense.

    Example:
        >>> async def three():
        ...     for n in range(3):
        ...         yield n
        >>> app = EventStream(three, keep_alive=10)

    """

    def __init__(self, source: Any, **options: Unpack[OptionTypes]) -> None:
        self._source = Source(source)
        self._options = Options(**options)
        self._tally = Tally()
        self._door = Door(self._options)

    def __repr__(self) -> str:
        return f"<EventStream {self._source.name}>"

    def statistics(self) -> Statistics:
        """
        Return what has become of the streams of this app, in numbers.

        Call it in the event loop. What it counts costs no stream anything
        while it is open.
        """
        return self._tally.statistics()

    async def __call__(
        self,
        # Wide types, so that every server's and framework's own ones fit.
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """
        Answer one ASGI scope.

        HTTP is answered with the stream; HEAD with the headers alone, and
        without touching the source. A lifespan is completed, a WebSocket closed.

        Cancellation: the source is closed before it goes on, within the
        ``cleanup_timeout``.

        Raises:
            BaseException: What the source raised, as it is.

        """
        kind = scope["type"]
        if kind == "http":
            await self._door.enter(self._stream, scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
        else:
            raise ValueError(f"scope type must be http, lifespan or websocket (got {kind!r})")

    async def _lifespan(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        streams = current_open_streams()
        await receive()
        streams.begin_lifespan(self._options.watch_shutdown)
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            streams.end_lifespan()
        await send({"type": "lifespan.shutdown.complete"})

    def _stream(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Awaitable[None]:
        if scope["method"] == "HEAD":
            return self._head(send)
        return Response(self._source, self._options, scope, receive, send, self._tally).run()

    async def _head(self, send: ASGISendCallable) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self._options.status,
                "headers": list(self._options.raw_headers),
                "trailers": False,
            }
        )
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class DecoratedStream(EventStream, Generic[S]):
    """
    An :class:`EventStream` that stands where its source did.
    """

    #: The source as it was written, with its own parameters.
    __wrapped__: S


@overload
def event_stream(source: S, /) -> DecoratedStream[S]: ...


@overload
def event_stream(**options: Unpack[OptionTypes]) -> Callable[[S], DecoratedStream[S]]: ...


def event_stream(
    source: Any = None, /, **options: Unpack[OptionTypes]
) -> DecoratedStream[Any] | Callable[[Any], DecoratedStream[Any]]:
    """
    Make an :class:`EventStream` of the function below, with or without options.

    The function stays within reach as ``__wrapped__``, with its parameters.

    Raises:
        TypeError: As :class:`EventStream` does.
        ValueError: As :class:`EventStream` does.

    Example:
        >>> @event_stream(keep_alive=10)
        ... async def three():
        ...     for n in range(3):
        ...         yield n

    """
    if source is None:
        # Checked here, so that a wrong option is refused in its own line.
        Options(**options)
        return functools.partial(_decorate, options=options)
    return _decorate(source, options)


def _decorate(source: S, options: OptionTypes) -> DecoratedStream[S]:
    stream: DecoratedStream[S] = DecoratedStream(source, **options)
    functools.update_wrapper(stream, cast("Any", source))
    return stream
