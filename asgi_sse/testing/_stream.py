"""
A response while it streams, seen from the client's side.
"""

# A test without a limit to what it waits for hangs, so each wait has one, and it is
# a parameter because the message of the error says what was missing.
# ruff: noqa: ASYNC109

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from types import EllipsisType
from typing import Self

import anyio

from .._event import ServerSentEvent
from .._shutdown import drain
from ..parser import EventStreamParser
from ._comments import Comments
from ._exchange import Chunk, ClientDisconnected, Exchange, Message
from ._headers import Headers
from ._temper import Temper

__all__ = ["Response", "Stream", "is_disconnect"]

# "An implementation-defined value, probably in the region of a few seconds."
_RECONNECTION_TIME = 3000

# Where a clock jumps, what takes as long as the timeout is common, and is in time.
_AT_LAST = 0.001


class Response:
    """
    What there is to see of a response: all that a client sees, and what only a test may.

    It is about the response at hand, also after ``reconnect()``.
    """

    _exchange: Exchange
    _lines: Comments
    _seen: BaseException | None
    _last_event_id: str
    _reconnection_time: int

    #: Every event so far, whether or not the test has asked for it.
    events: list[ServerSentEvent]

    @property
    def status(self) -> int:
        """
        The status of the response.
        """
        assert self._exchange.status is not None
        return self._exchange.status

    @property
    def headers(self) -> Headers:
        """
        The headers of the response; names in any case.
        """
        return self._exchange.headers

    @property
    def chunks(self) -> list[Chunk]:
        """
        What the client received: bytes, and the seconds since the request.
        """
        return self._exchange.chunks

    @property
    def body(self) -> bytes:
        """
        All that the client received, as bytes.
        """
        return b"".join(chunk.body for chunk in self._exchange.chunks)

    @property
    def messages(self) -> list[Message]:
        """
        The ASGI messages that the server took from the app.
        """
        return self._exchange.messages

    @property
    def comments(self) -> list[str]:
        """
        The comments so far. An empty one, as most keep-alives are, is ``""``.
        """
        return self._lines.comments

    @property
    def problems(self) -> list[str]:
        """
        What the app did that ASGI or HTTP forbids, in words.
        """
        return self._exchange.problems

    @property
    def complete(self) -> bool:
        """
        Whether the response has come to its end, and was not cut off.
        """
        return self._exchange.complete

    @property
    def closed(self) -> bool:
        """
        Whether the call of the app is over.
        """
        return self._exchange.closed

    @property
    def error(self) -> BaseException | None:
        """
        What the app raised, if it did.
        """
        self._seen = self._exchange.error
        return self._exchange.error

    @property
    def last_event_id(self) -> str:
        """
        What the client would send as ``Last-Event-ID``; ``""`` for nothing.
        """
        return self._last_event_id

    @property
    def reconnection_time(self) -> int:
        """
        The milliseconds that the client would wait before it reconnects.
        """
        return self._reconnection_time


class Stream(Response):
    """
    A client's connection to an app; made by ``connect()``.

    Methods that wait take a ``timeout`` in seconds, by default that of ``connect()``;
    ``None`` waits for ever.
    """

    def __init__(
        self,
        request: Callable[[str, Callable[[bytes], None]], Exchange],
        last_event_id: str,
        temper: Temper,
        timeout: float | None,
    ) -> None:
        self._request = request
        self._temper = temper
        self._timeout = timeout
        self._last_event_id = last_event_id
        self._reconnection_time = _RECONNECTION_TIME
        self._seen = None
        self._connect()

    def _connect(self) -> None:
        self._parser = EventStreamParser()
        # Browsers keep the last event ID over a reconnect until they are told another.
        self._memory = b"id: %s\n\n" % self._last_event_id.encode()
        self._lines = Comments()
        self.events = []
        self._unread: deque[ServerSentEvent] = deque()
        self._exchange = self._request(self._last_event_id, self._feed)

    # What a client does.

    async def next_event(self, timeout: float | None | EllipsisType = ...) -> ServerSentEvent:
        """
        Return the next event, as a client sees it.

        Raises:
            TimeoutError: If none came in time.
            EndOfStream: If none will come. The message says what became of the
                response, and the cause is the error of the app.

        """
        await self._wait(lambda: bool(self._unread) or self._over, timeout, "no event")
        if not self._unread:
            raise anyio.EndOfStream(f"no more events: {self._state()}") from self.error
        return self._unread.popleft()

    async def take(
        self, count: int, timeout: float | None | EllipsisType = ...
    ) -> list[ServerSentEvent]:
        """
        Return the next events, so many; each may take as long as the timeout says.

        Raises:
            TimeoutError: As ``next_event()``.
            EndOfStream: As ``next_event()``.

        """
        return [await self.next_event(timeout) for _ in range(count)]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        await self._wait(lambda: bool(self._unread) or self._over, ..., "no event")
        if not self._unread:
            raise StopAsyncIteration
        return self._unread.popleft()

    async def read(self, timeout: float | None | EllipsisType = ...) -> bytes:
        """
        Return the whole body, for a response that is not endless.

        Raises:
            TimeoutError: If the response did not end in time.

        """
        await self._wait(lambda: self._over, timeout, "no end of the response")
        return self.body

    async def wait_closed(self, timeout: float | None | EllipsisType = ...) -> None:
        """
        Wait until the call of the app is over.

        Nothing is raised for an error of the app: look at ``error``.

        Raises:
            TimeoutError: If the app did not end in time.

        """
        await self._wait(lambda: self._exchange.closed, timeout, "no end of the app")

    async def wait_chunks(
        self, count: int, timeout: float | None | EllipsisType = ...
    ) -> list[Chunk]:
        """
        Wait until the client has received so many chunks, or will receive no more.

        Returns:
            All chunks so far.

        Raises:
            TimeoutError: If there were too few in time.

        """
        await self._wait(
            lambda: len(self.chunks) >= count or self._over, timeout, f"no {count} chunks"
        )
        return self.chunks

    async def wait_blocked(self, timeout: float | None | EllipsisType = ...) -> None:
        """
        Wait until the app waits in ``send()`` for a client that has stopped reading.

        Raises:
            TimeoutError: If it did not come to this in time.
            EndOfStream: If it will not come to this any more.

        """
        await self._wait(lambda: self._exchange.blocked or self._over, timeout, "no blocked send")
        if not self._exchange.blocked:
            raise anyio.EndOfStream(f"no send() waits: {self._state()}")

    def disconnect(self) -> None:
        """
        Leave, as a client that closes its connection.
        """
        self._exchange.disconnect()

    def stall(self, room: int = 0) -> None:
        """
        Stop reading, as a client on a train in a tunnel.

        Args:
            room: How many bytes buffers on the way still take before ``send()``
                waits. (Most servers: about 3 million.)

        """
        self._exchange.stall(room)

    def resume(self) -> None:
        """
        Read again, first of all what came meanwhile.
        """
        self._exchange.resume()

    async def reconnect(self) -> bool:
        """
        Do what an ``EventSource`` does when its connection is lost.

        Leave, if that has not happened; wait for the reconnection time; make the
        same request again, with the last event ID.

        Returns:
            Whether the client has a stream again. ``False`` means that it will never
            try again, as after a 204.

        Raises:
            TimeoutError: If the app did not start its response in time.
            RuntimeError: If the client has already been told never to try again.

        """
        if not self._is_event_stream():
            raise RuntimeError(f"the client was told not to reconnect (status {self.status})")
        self.disconnect()
        await anyio.sleep(self._reconnection_time / 1000)
        self._raise_unseen()
        self._seen = None
        self._connect()
        await self._open()
        return self._is_event_stream()

    # What a server does.

    def cancel(self) -> None:
        """
        Cancel the app, as a server that gives up: on asyncio once, on trio for good.
        """
        self._exchange.cancel()

    async def shutdown(self) -> None:
        """
        Stop the server, as a deployment does.

        Streams of this library are told first, as they are told of a signal. After
        the grace period of the server the app is cancelled; without one (uvicorn and
        granian have none) it goes on.
        """
        grace = self._temper.grace
        with anyio.move_on_after(self._timeout if grace is None else grace):
            await drain()
            if grace is not None:
                await self._exchange.wait(lambda: self._exchange.closed)
        if grace is not None and not self.closed:
            self.cancel()

    # For connect().

    async def _open(self) -> None:
        await self._wait(
            lambda: self._exchange.status is not None or self._exchange.closed,
            ...,
            "no http.response.start",
        )
        if self._exchange.status is None:
            if self.error is not None:
                raise self.error
            raise RuntimeError("the app returned without a response")

    async def _leave(self, cleanup_timeout: float) -> None:
        exchange = self._exchange
        exchange.disconnect()
        for insist in (None, exchange.cancel, exchange.abandon):
            if insist is not None and not exchange.closed:
                insist()
            with anyio.move_on_after(cleanup_timeout):
                await exchange.wait(lambda: exchange.closed)

    def _raise_unseen(self) -> None:
        error = self._exchange.error
        if error is not None and error is not self._seen and not is_disconnect(error):
            self._seen = error
            raise error

    # Inside.

    @property
    def _over(self) -> bool:
        return self._exchange.complete or self._exchange.closed or self._exchange.disconnected

    def _feed(self, body: bytes) -> None:
        self._lines.feed(body)
        if not self._is_event_stream():
            return
        if self._memory:
            self._parser.feed(self._memory)
            self._memory = b""
            body = body.removeprefix(codecs.BOM_UTF8)
        events = self._parser.feed(body)
        self.events += events
        self._unread += events
        self._last_event_id = self._parser.last_event_id
        if self._parser.reconnection_time is not None:
            self._reconnection_time = self._parser.reconnection_time

    def _is_event_stream(self) -> bool:
        kind = self.headers.get("content-type", "").partition(";")[0]
        return self.status == 200 and kind.strip().lower() == "text/event-stream"

    async def _wait(
        self, ready: Callable[[], bool], timeout: float | None | EllipsisType, missing: str
    ) -> None:
        seconds = self._timeout if isinstance(timeout, EllipsisType) else timeout
        try:
            with anyio.fail_after(None if seconds is None else seconds + _AT_LAST):
                await self._exchange.wait(ready)
        except TimeoutError:
            raise TimeoutError(f"{missing} within {seconds:g} s: {self._state()}") from None

    def _state(self) -> str:
        """
        Say what became of the response.
        """
        exchange = self._exchange
        if exchange.error is not None:
            state = f"the app raised {exchange.error!r}"
        elif exchange.status is None:
            state = "the app has sent nothing"
        elif not self._is_event_stream():
            kind = self.headers.get("content-type")
            state = f"status {exchange.status} and content type {kind!r} are no event stream"
        elif exchange.complete:
            state = "the response is complete"
        elif exchange.disconnected:
            state = "the client has left"
        elif exchange.closed:
            state = "the app returned without a final http.response.body"
        else:
            state = "the response is open"
        if not exchange.chunks:
            return state
        time, body = exchange.chunks[-1]
        return f"{state}, {len(self.events)} events so far, the last chunk at {time:g} s: {body!r}"


def is_disconnect(error: BaseException) -> bool:
    """
    Tell whether an error is only what ``send()`` raised when the client had left.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClientDisconnected):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
