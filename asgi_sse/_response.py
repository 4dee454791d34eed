"""
One response: a task drives the source, one writes, one listens.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from types import EllipsisType
from typing import TYPE_CHECKING, Literal

from anyio import CancelScope, Event, get_cancelled_exc_class, move_on_after, sleep

from ._body import LATEST, Body
from ._event import ServerSentEvent
from ._finish import LastID
from ._headers import ResponseHeaders
from ._options import Closed, Farewell, Observe, Options, Reason, spread_reconnects
from ._pump import TOO_LATE, Pump
from ._refusal import discard_body, refuse, respond
from ._request import Refused, Request
from ._revalidation import Revalidation
from ._runtime import Entry, Task, current_runtime
from ._servers import (
    abort,
    breaks_on_a_late_body,
    breaks_when_raised,
    forgets_an_empty_end,
    hangs_when_truncated,
    waits_when_cancelled,
)
from ._shutdown import current_open_streams
from ._source import Source
from ._statistics import Tally
from ._term import Term
from ._words import keep_alive, last_event, last_farewell

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGIReceiveCallable,
        ASGISendCallable,
        HTTPScope,
    )

logger = logging.getLogger("asgi_sse")

# How long, in seconds, a source that was cancelled may keep the farewell from being sent
# when the server stops. Servers wait 3 seconds and more, people one.
_PATIENCE = 1.0

# How long a server that leaves no time for it is given to deliver the goodbye.
_DELIVERY = 0.1

# A source that has not ended within the cleanup timeout is cancelled so many times
# more, a turn of the event loop apart: enough for nested cleanups to be cut one by one.
_LAST_CANCELLATIONS = 10


class Response:
    """
    One event stream to one client.

    ::

        source task                     writer task                       listener task
          setup, then iterate             owns every send(): the start,     owns receive(): the
          item -> bytes -> buffer         the buffer, keep-alives, the      request body, then
          wait when it is full            final chunk                       the disconnect

    The request's own task starts them, waits, and cleans up. It could be the writer,
    but each event would wake it through every coroutine that it runs in: those of the
    server, of the framework and of each middleware.

    A response ends in one of two ways. Politely: the source is over (by itself,
    or because of :meth:`close` or :meth:`shut_down`), and the writer sends what
    is left, the farewell and the final chunk. Abruptly (:meth:`_end`): nothing
    more is sent, the writer and the source are cancelled.
    """

    __slots__ = (
        "_abandoned",
        "_asked",
        "_body",
        "_bytes",
        "_closing",
        "_closing_entry",
        "_closing_event",
        "_error",
        "_events",
        "_farewell",
        "_headers",
        "_keep_alive_due",
        "_last_id",
        "_left_behind",
        "_listener",
        "_listener_over",
        "_opened_at",
        "_options",
        "_outcome",
        "_over",
        "_patience",
        "_ping_at",
        "_ping_due",
        "_pump",
        "_quiet_since",
        "_reason",
        "_receive",
        "_revalidation",
        "_runtime",
        "_scope",
        "_send",
        "_send_began",
        "_source",
        "_source_over",
        "_source_task_over",
        "_started",
        "_stirred",
        "_strict",
        "_tally",
        "_term",
        "_told",
        "_writer",
        "_writer_over",
        "request",
    )

    #: What the source is called with, and others ask about it.
    request: Request

    def __init__(
        self,
        source: Source,
        options: Options,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        tally: Tally | None = None,
    ) -> None:
        self._source = source
        self._options = options
        self._receive = receive
        self._send = send
        self._scope = scope
        # That of the app, if there is one; the event loop has its own.
        self._tally = tally
        self.request = Request(scope, self)
        self._runtime = runtime = current_runtime()
        self._writer = runtime.worker()
        # For the request's own task.
        self._over = runtime.signal()
        # Whether there may be something to do but to send events.
        self._stirred = False
        self._pump = Pump(source, options, runtime, self._writer)

        # In this order, unless it ends abruptly: the response has started; the source is
        # closed; the reason is known; on_close was called; the tasks are over.
        self._started = False
        self._source_over = False
        self._reason: Reason | None = None
        self._told = False
        self._source_task_over = False
        self._writer_over = False
        self._listener_over = False
        self._error: BaseException | None = None

        # Why it is to end politely, before it has; the reason, once only the final chunk
        # is left to send, or nothing at all.
        self._closing: Reason | None = None
        self._outcome: Reason | None = None
        self._closing_event: Event | None = None
        self._closing_entry: Entry | None = None
        self._farewell: Farewell = None
        self._patience = _PATIENCE
        self._strict = False
        # What became of the source meanwhile: whether it ever asked for closing, no longer
        # keeps the writer waiting, no longer anybody.
        self._asked = False
        self._left_behind = False
        self._abandoned = False

        self._body = Body(options.max_body_size)
        # Those of the options, unless the source asks for them.
        self._headers: ResponseHeaders | None = None

        self._opened_at = self._quiet_since = runtime.now()
        self._send_began: float | None = None
        self._keep_alive_due = False
        # Those that come whether or not it is quiet.
        self._ping_at = self._opened_at + (options.keep_alive or 0.0)
        self._ping_due = False
        # What ends it without anybody's leaving, if anything does.
        self._term: Term | None = None
        self._revalidation: Revalidation | None = None
        # Only if the client is to know when the source is finished.
        self._last_id: LastID | None = None
        self._events = 0
        self._bytes = 0

    # What the source may ask of it through the request.

    @property
    def closing(self) -> bool:
        self._asked = True
        return self._closing is not None

    async def wait_closing(self) -> None:
        if self._closing_event is None:
            self._closing_event = Event()
        if not self.closing:
            await self._closing_event.wait()

    @property
    def response_headers(self) -> ResponseHeaders:
        if self._headers is None:
            self._headers = ResponseHeaders(self._options.raw_headers)
            if self._started or self._send_began is not None:
                self._headers.send()
        return self._headers

    async def body(self) -> bytes:
        return await self._body.read()

    def close(self) -> None:
        self._close("closed", None)

    def expire_at(self, when: float | None) -> None:
        # Not when it is over: who sets a timer then would never take it back.
        if self._reason is None:
            self._current_term().expire_at(when)

    def fail(self, error: Exception) -> None:
        """
        End abruptly, because of something that is not the source.
        """
        # Not what comes of its being cancelled, and not over the source's own.
        if self._reason is None:
            self._error = self._error or error
            self._end("error")

    # What drain() and close_streams() may ask of it.

    @property
    def ending(self) -> Literal["ended", "cancelled", "abandoned"]:
        if self._abandoned:
            return "abandoned"
        return "ended" if self._pump.cancelled_at is None else "cancelled"

    def shut_down(
        self,
        reason: Reason,
        grace: float | None = None,
        farewell: Farewell | EllipsisType = ...,
        *,
        finish: bool = True,
    ) -> None:
        options = self._options
        if farewell is ...:
            farewell = options.farewell
        if finish and options.on_shutdown == "finish":
            self._announce(reason, farewell)
        else:
            # A source that never asks cannot know that it has time to finish.
            grace = options.shutdown_grace if grace is None else grace
            self._close(reason, farewell, grace=grace if self._asked else 0.0, strict=True)

    # What those who count and observe may ask of it.

    @property
    def source(self) -> str:
        return self._source.name

    @property
    def status(self) -> int | None:
        return self._options.status if self._started else None

    @property
    def sent_events(self) -> int:
        return self._events

    @property
    def sent_bytes(self) -> int:
        return self._bytes

    @property
    def lag(self) -> float:
        began = self._send_began
        return 0.0 if began is None else self._runtime.now() - began

    # What ends it when its time is up.

    def _current_term(self) -> Term:
        if self._term is None:
            self._term = Term(self._runtime, self._expire)
        return self._term

    def _expire(self, reason: Reason) -> None:
        self._close(reason, self._options.farewell)

    def _revoke(self, event: ServerSentEvent | None) -> None:
        # Strictly: a client that takes nothing would otherwise stay.
        self._close("revoked", event or self._options.farewell, strict=True)

    def _begin_revalidation(self) -> None:
        options = self._options
        # Not before the setup phase is done: it asks about what that has found out.
        if options.revalidate is not None and self._revalidation is None:
            self._revalidation = Revalidation(
                self._runtime,
                options.revalidate,
                options.revalidate_every,
                self.request,
                self._source.name,
                self._revoke,
            )

    # The request's own task.

    async def run(self) -> None:
        """
        Answer the request, and return when nothing of it is left.

        Raises:
            BaseException: What the source raised, as it is, when all that was
                yielded before has been sent. What ``send`` raises is taken
                for the client's leaving once the response has started.

        """
        if self._options.end == "stop":
            if self.request.finished:
                await self._stay_finished()
                return
            self._last_id = LastID(self.request.last_event_id)
        runtime = self._runtime
        ticker = runtime.ticker
        streams = current_open_streams()
        watch = self._options.watch_shutdown
        if not streams.add(self, self._scope, self._send, watch):
            # Unless the client has left already.
            with suppress(OSError):
                await self._turn_away()
            return
        tallies = self._tallies()
        for tally in tallies:
            tally.begin(self)
        observe = self._options.observe
        observed = None if observe is None else self._begin_observing(observe)
        try:
            entry = ticker.add(self._next_tick(self._opened_at), self._tick)
            if (age := self._options.max_age) is not None:
                age = random.uniform(*age) if isinstance(age, tuple) else age
                self._current_term().limit_age(age)
            if (when := self.request.expires_at) is not None:
                self.expire_at(when)
            self._listener = runtime.spawn(self._listen, f"{self._source.name} listener")
            self._pump.task = runtime.spawn(
                lambda: self._pump.run(self.request, self._source_ended), self._source.name
            )
            self._writer.begin(self._send_all, f"{self._source.name} writer")
            try:
                # Not in a function: each stream that waits would keep the frame of it.
                while not self._writer_over:
                    await self._over.wait()
            except get_cancelled_exc_class():
                if not await self._request_cancelled():
                    raise
            finally:
                self._end("shutdown")
                for done in (entry, self._closing_entry):
                    if done is not None:
                        ticker.discard(done)
                for other in (self._term, self._revalidation):
                    if other is not None:
                        other.discard()
                # Without a task that could say so.
                self._source_over = self._source_over or self._pump.feed is not None
                self._pump.discard()
                self._listener.cancel()
                await self._clean_up()
        except get_cancelled_exc_class():
            if self._error is not None:
                # What goes up is the cancellation.
                logger.error("%s raised", self._source.name, exc_info=self._error)
            raise
        finally:
            streams.remove(self)
            reason = self._reason or "shutdown"
            for tally in tallies:
                tally.end(self, reason, self._events, self._bytes)
            if observed is not None:
                self._end_observing(observed)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "%s is closed: %s after %.3f s, %d events, %d bytes",
                    self._source.name,
                    reason,
                    self._runtime.now() - self._opened_at,
                    self._events,
                    self._bytes,
                )
            # What holds this response in turn: without it, both go at once.
            del self.request
        if self._error is not None:
            await self._fail()

    def _tallies(self) -> tuple[Tally, ...]:
        ours = current_open_streams().tally
        return (ours,) if self._tally is None else (ours, self._tally)

    def _begin_observing(self, observe: Observe) -> Callable[[Closed], None] | None:
        """
        Tell of this stream, and return who is to be told of its end.
        """
        try:
            return observe(self)
        except Exception:
            logger.exception("observe of %s raised", self._source.name)
            return None

    def _end_observing(self, observed: Callable[[Closed], None]) -> None:
        try:
            observed(self._make_closed())
        except Exception:
            logger.exception("observe of %s raised", self._source.name)

    async def _start(self) -> None:
        headers = self._headers
        self._send_began = self._runtime.now()
        await self._send(
            {
                "type": "http.response.start",
                "status": self._options.status,
                # A list of this response's own: middleware adds to it.
                "headers": list(self._options.raw_headers) if headers is None else headers.send(),
                "trailers": False,
            }
        )
        self._send_began = None
        self._started = True

    async def _finish(self, body: bytes, *, more: bool = False) -> None:
        self._send_began = self._runtime.now()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._send_began = None
        self._bytes += len(body)
        self._reason = self._outcome

    async def _turn_away(self) -> None:
        """
        Answer a request that arrives while the server is stopping.

        With 200, because an ``EventSource`` gives up for good on anything else.
        """
        for tally in self._tallies():
            tally.turn_away()
        options = self._options
        self._farewell = options.farewell
        body = options.opening + self._make_farewell()
        if b"retry: " not in body:
            # It came back at once, and so would all the others, again and again.
            body += spread_reconnects(self.request).encode()
        if breaks_on_a_late_body(self._scope):
            await discard_body(self._receive)
        await self._start()
        await self._finish(body)

    async def _stay_finished(self) -> None:
        """
        Answer a client that has seen all of it, and reconnects because it always does.
        """
        for tally in self._tallies():
            tally.turn_away()
        # Unless the client has left already.
        with suppress(OSError):
            await refuse(self._scope, self._receive, self._send, Refused(204))

    # The writer task.

    async def _send_all(self) -> None:
        """
        Write until there is nothing more to be written.
        """
        # Asked for here, because a task that was abandoned may outlive its event loop.
        cancelled = get_cancelled_exc_class()
        try:
            await self._write()
        except cancelled as exc:
            # See _listen.
            exc.__traceback__ = None
        except BaseException as exc:
            self._write_failed(exc)
        finally:
            self._writer_over = True
            self._over.notify()

    async def _write(self) -> None:
        """
        Send everything that this response ever sends.
        """
        send = self._send
        if self._last_id is not None:
            send = self._last_id.watching(send)
        now = self._runtime.clock()
        work = self._writer
        pump = self._pump
        buffer = pump.buffer
        # The source runs to its first wait: what it raises until then, or in a setup phase
        # however long, may still become another response.
        await self._runtime.let_earlier_begin()
        while not (pump.opened or buffer or self._source_over or self._left_behind):
            await work.wait()
        if self._outcome is not None:
            # A task that was cancelled before it began is so at its next wait.
            return
        if self._error is not None and not buffer:
            # Nothing was sent, so what becomes of it is decided by the caller.
            await self._wait_for_body()
            refused = isinstance(self._error, Refused)
            self._reason = self._reason or ("refused" if refused else "error")
            return
        self._begin_revalidation()

        await self._start()
        # A byte of body at once: without it some servers hold back the headers, and
        # browsers their onopen.
        body = self._options.opening
        feed = pump.feed
        # A send that does not wait, or is shielded, is not where a cancellation arrives.
        while self._outcome is None:
            # All that there is in one message: what the source yields faster than the
            # client takes it costs one send for many events.
            if buffer:
                self._events += len(buffer)
                body += b"".join(buffer)
                buffer.clear()
            elif feed is not None and pump.fed:
                count, blocks, pump.fed = feed.take()
                self._events += count
                body += blocks
            # Without the keep-alives: they come again and again, and a source that waits
            # until nothing is on its way would wait for ever on a slow client.
            pump.in_flight = size = len(body)
            if not body:
                if not self._stirred and (feed is None or not feed.over):
                    await work.wait()
                    continue
                if self._source_over or self._left_behind or (feed is not None and feed.over):
                    break
                self._stirred = False
                if not (self._keep_alive_due or self._ping_due):
                    continue
                self._ping_due = False
                body = keep_alive(self._options, self._source.name)
                size = len(body)
            self._send_began = now()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self._send_began = None
            pump.in_flight = 0
            self._quiet_since = now()
            self._keep_alive_due = False
            self._bytes += size
            body = b""
            if pump.full:
                pump.room.notify()

        await self._wait_for_body()
        if self._outcome is not None:
            return
        if self._error is None:
            self._outcome = self._closing or "finished"
            await self._finish(self._last_words() + self._make_farewell())
        else:
            self._outcome = "error"
            # What follows is no final chunk: the client is to see that it failed.
            more = not hangs_when_truncated(self._scope)
            body = last_event(self._options, self._error, self._source.name)
            if body or not more:
                await self._finish(body, more=more)
            self._reason = "error"

    def _stir(self) -> None:
        """
        Wake the writer for anything but an event.
        """
        self._stirred = True
        self._writer.notify()

    async def _wait_for_body(self) -> None:
        if breaks_on_a_late_body(self._scope):
            with move_on_after(LATEST):
                while not self._body.over:
                    await self._writer.wait()

    def _last_words(self) -> bytes:
        """
        Return what is sent when the source, and nobody else, has ended the stream.
        """
        # A channel ends with its process, or under a client that is too slow; and a
        # source that asks whether it is to close may have ended because of that.
        if (
            self._pump.feed is not None
            or self._pump.cancelled_at is not None
            or not self._source_over
            or (self._closing is not None and self._asked)
        ):
            return b""
        done = self._options.done_block
        return done if self._last_id is None else self._last_id.finish(done)

    def _make_farewell(self) -> bytes:
        """
        Return the last event of a stream that is closed from this side, as bytes.
        """
        body = last_farewell(self._farewell, self.request, self._source.name)
        if not body and self._closing is not None and forgets_an_empty_end(self._scope):
            body = b":\n"
        return body

    def _write_failed(self, exc: BaseException) -> None:
        sending = self._send_began is not None
        if self._reason is not None and isinstance(exc, Exception):
            # What comes of its being cancelled.
            pass
        elif sending and isinstance(exc, OSError):
            self._end("client")
        elif sending and self._started and isinstance(exc, Exception):
            # Not an OSError, but some servers say it so when the client is gone.
            logger.warning("send() failed while %s was streaming", self._source.name, exc_info=exc)
            self._end("client")
        else:
            # Or not from send(), but from a feed; or what is to end the program.
            self._error = exc
            self._end("error")

    async def _request_cancelled(self) -> bool:
        """
        Say goodbye after the server, or a framework, has cancelled the request's task.

        Returns whether the cancellation is not to go up.
        """
        options = self._options
        # Not in the middle of another message.
        if self._send_began is not None or self._reason is not None:
            return False
        if waits_when_cancelled(self._scope):
            # As if it had not been cancelled, but for "finish", which could take too long.
            finish = options.on_shutdown == "finish"
            grace = options.shutdown_grace if finish or self._asked else 0.0
            self._close("shutdown", options.farewell, grace=grace, strict=True)
            with CancelScope(shield=True):
                while not self._writer_over:
                    await self._over.wait()
                await sleep(_DELIVERY)
            return True
        if self._started:
            self._announce("shutdown", options.farewell)
            # Before anybody else has a turn, and not by the writer, which may have been
            # cancelled too: some servers leave no time for more.
            self._outcome = "shutdown"
            self._cancel_source()
            buffer = self._pump.buffer
            self._events += len(buffer)
            rest = b"".join(buffer)
            with move_on_after(_PATIENCE, shield=True), suppress(Exception):
                await self._finish(rest + self._make_farewell())
        return False

    async def _fail(self) -> None:
        """
        Let whoever called this application see why there is no good end.
        """
        error, self._error = self._error, None
        assert error is not None
        try:
            if not self._started and isinstance(error, Refused):
                if self._reason != "client":
                    await respond(self._send, error)
            elif self._started and breaks_when_raised(self._scope):
                logger.error("%s raised", self._source.name, exc_info=error)
            else:
                if isinstance(error, Refused):
                    error.add_note(
                        f"It came after the response had started. Let {self._source.name} be a "
                        "coroutine function that returns what to stream: until it returns, it "
                        "may refuse."
                    )
                raise error
        finally:
            # The traceback holds this frame, and the frame the error.
            del error

    # The source task.

    async def _source_ended(self, error: BaseException | None) -> None:
        """
        Take note of how the source has ended, and tell of the end of the response.
        """
        # Asked for here, because a task that was abandoned may outlive its event loop.
        cancelled = get_cancelled_exc_class()
        pump = self._pump
        if isinstance(error, cancelled):
            if self._reason is None and self._closing is None:
                # A CancelledError from here would cancel whoever called this application.
                self._error = RuntimeError(
                    f"{self._source.name} awaits something that was cancelled"
                )
                self._error.__cause__ = error
        elif error is not None:
            self._error = error if pump.cancelled_at is None else _without_cancellation(error)
        # With a feed the writer goes on without this task.
        self._source_over = self._source_over or pump.feed is None
        try:
            if self._abandoned or not self._source_over:
                return
            self._stir()
            self._over.notify()
            # A cancellation that comes now was meant for the source.
            with suppress(cancelled):
                while self._reason is None:
                    await pump.room.wait()
            while self._reason is None:
                await pump.room.wait()
            await self._tell()
        finally:
            self._source_task_over = True
            self._over.notify()

    async def _tell(self) -> None:
        """
        Call ``on_close``, and wait for it within bounds.
        """
        on_close = self._options.on_close
        if on_close is None or self._told:
            return
        # A source that was abandoned may end after all, and come here again.
        self._told = True
        closed = self._make_closed()
        try:
            with move_on_after(self._options.cleanup_timeout, shield=True) as scope:
                result = on_close(closed)
                if isawaitable(result):
                    await result
            if scope.cancelled_caught:
                logger.error("on_close of %s did not return in time", self._source.name)
        except Exception:
            logger.exception("on_close of %s raised", self._source.name)

    def _make_closed(self) -> Closed:
        assert self._reason is not None
        duration = self._runtime.now() - self._opened_at
        return Closed(
            self._reason, duration, self._events, self._bytes, self._error, self.request.meta
        )

    # The listener task.

    async def _listen(self) -> None:
        """
        Read every message until the client leaves; nothing else calls ``receive``.
        """
        try:
            # Not for ever: gunicorn's receive() swallows a cancellation when a part of the
            # body comes in the same turn, as asyncio's wait_for() did before 3.12.
            while self._reason is None:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    if self._outcome is not None:
                        # Some servers say so from within the final send, which then still
                        # has things to do, such as closing the connection; and in some it
                        # never returns.
                        await sleep(_PATIENCE)
                    self._end("client")
                    return
                if message["type"] == "http.request" and self._body.take(message):
                    self._stir()
                    continue
                # Some frameworks repeat themselves without ever waiting.
                await self._runtime.turn()
        except get_cancelled_exc_class() as exc:
            # asyncio's futures and their exceptions hold each other, and those would hold
            # this response by the frames that they have passed.
            exc.__traceback__ = None
        except OSError:
            self._end("client")
        except Exception as exc:
            self.fail(exc)
        finally:
            self._listener_over = True
            self._over.notify()

    # The two ways to end.

    def _close(
        self,
        reason: Reason,
        farewell: Farewell,
        *,
        grace: float = 0.0,
        strict: bool = False,
    ) -> None:
        """
        End politely: cancel the source after some grace, and let the writer finish.
        """
        if self._reason is None and (self._closing_entry is None or strict > self._strict):
            if self._closing_entry is not None:
                self._runtime.ticker.discard(self._closing_entry)
            self._announce(reason, farewell)
            self._strict = strict
            self._patience = self._options.cleanup_timeout
            if strict:
                self._patience = min(self._patience, _PATIENCE)
            now = self._runtime.now()
            if self._source_over:
                # What it yielded last may still be on its way to the client.
                due = now + self._patience
            else:
                due = now + grace if grace else self._hurry(now)
            self._closing_entry = self._runtime.ticker.add(due, self._hurry)

    def _announce(self, reason: Reason, farewell: Farewell) -> None:
        if self._closing is None:
            self._closing = reason
            self._farewell = farewell
            if self._closing_event is not None:
                self._closing_event.set()

    def _hurry(self, now: float) -> float:
        """
        Take the next step towards the end, and return when to take another.
        """
        if self._reason is not None:
            return math.inf
        if self._pump.cancelled_at is None and not self._source_over:
            self._cancel_source()
        elif not self._left_behind and not (self._strict and self._send_began is not None):
            # The goodbye does not wait for the source any longer.
            self._left_behind = True
            self._pump.refuse()
            self._stir()
        else:
            if self._strict:
                # The client takes nothing. Otherwise there is the send timeout for that.
                self._end(self._closing or "shutdown")
                self._abort()
            return math.inf
        return now + self._patience

    def _abort(self) -> None:
        """
        Cut the connection, unless other streams of it may be well.
        """
        if self._closing == "shutdown" or self._scope.get("http_version", "").startswith("1"):
            abort(self._scope, self._send, self._runtime)

    def _end(self, reason: Reason) -> None:
        """
        End abruptly: the source and the writer are cancelled; the first reason stays.
        """
        if self._reason is None:
            self._reason = self._outcome = self._outcome or reason
            # A source that swallows the cancellation and yields again finds no room.
            self._pump.refuse()
            self._pump.buffer.clear()
            self._writer.cancel()
            self._cancel_source()
            self._pump.room.notify()

    def _cancel_source(self) -> None:
        if self._pump.feed is not None:
            # There is no task to cancel.
            self._source_over = True
            self._stir()
        elif not self._source_over:
            self._pump.cancel()

    async def _clean_up(self) -> None:
        """
        Wait until nothing is left of it, also if this task is cancelled meanwhile.
        """
        cancelled = False
        with CancelScope(shield=True):
            while True:
                try:
                    await self._wait_for_tasks()
                    break
                except get_cancelled_exc_class():
                    # asyncio's own, which no shield keeps out.
                    cancelled = True
        if cancelled:
            raise get_cancelled_exc_class()

    async def _wait_for_tasks(self) -> None:
        """
        Wait until nothing is left of the three tasks, but not for ever.
        """
        # Where nothing is awaited any more, they are over after it, and need no timeout.
        await self._runtime.turn()
        if not self._are_over():
            cancelled_at = self._pump.cancelled_at
            spent = 0.0 if cancelled_at is None else self._runtime.now() - cancelled_at
            with move_on_after(self._options.cleanup_timeout - spent) as scope:
                while not self._are_over():
                    await self._over.wait()
            if scope.cancelled_caught:
                if not self._source_over:
                    logger.warning(TOO_LATE, self._source.name)
                await self._cut(self._writer, lambda: self._writer_over)
                await self._cut(self._listener, lambda: self._listener_over)
                await self._cut(self._pump.task, lambda: self._source_over)
        while self._source_over and not self._source_task_over:
            await self._over.wait()
        # If the task of the source could not.
        await self._tell()

    def _are_over(self) -> bool:
        return self._source_over and self._writer_over and self._listener_over

    async def _cut(self, task: Task, is_over: Callable[[], bool]) -> None:
        """
        End a task that takes too long, or leave it alone.
        """
        for _ in range(_LAST_CANCELLATIONS):
            if is_over():
                return
            task.cancel()
            await self._runtime.turn()
        self._abandoned = True
        logger.error("%s swallows its cancellation, and is left alone", self._source.name)
        self._runtime.abandon(task)

    # The ticker.

    def _next_tick(self, now: float) -> float:
        """
        Return when something may be due that is not yet.
        """
        options = self._options
        times = []
        if options.keep_alive is not None:
            always = options.keep_alive_always
            due = self._ping_at if always else self._quiet_since + options.keep_alive
            times.append(due if due > now else now + options.keep_alive)
        if options.send_timeout is not None:
            # A send that begins after now cannot be overdue before this.
            began = now if self._send_began is None else self._send_began
            times.append(began + options.send_timeout)
        return min(times, default=math.inf)

    def _tick(self, now: float) -> float:
        """
        Do what is due, and return when to look again.
        """
        options = self._options
        if self._reason is not None:
            return math.inf
        always = options.keep_alive_always and options.keep_alive is not None
        if always and now >= self._ping_at:
            self._ping_at = now + (options.keep_alive or 0.0)
            self._ping_due = True
            self._stir()
        if self._send_began is not None:
            if options.send_timeout is not None and (
                now >= self._send_began + options.send_timeout
            ):
                self._end("send_timeout")
                self._abort()
                return math.inf
        elif (
            options.keep_alive is not None
            and not always
            and now >= self._quiet_since + options.keep_alive
        ):
            self._keep_alive_due = True
            self._stir()
        return self._next_tick(now)


def _without_cancellation(exc: BaseException) -> BaseException | None:
    """
    Return an error without what trio leaves of a cancellation in a group.
    """
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(get_cancelled_exc_class())[1]
    return exc
