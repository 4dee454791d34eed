"""
A source's items become bytes, at the pace at which they are taken.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from time import monotonic
from typing import Any

from anyio import get_cancelled_exc_class, move_on_after

from ._item import encode_item
from ._options import Options
from ._request import Request
from ._runtime import Entry, Runtime, Signal, Task
from ._source import Feed, Source, is_context_manager, is_feed

logger = logging.getLogger("asgi_sse")

#: What is logged of a source by its name.
TOO_LATE = "%s did not end within its cleanup_timeout, and is cancelled"

# How long a source that never waits may keep the event loop to itself, in seconds.
# A tenth of what a person notices, and a hundred times what letting go costs.
_LONGEST_TURN = 0.002


class Pump:
    """
    Drives one source for one response, from its setup phase to its closing.

    :meth:`run` is for a task of its own; whoever sends takes what is in
    :attr:`buffer`, and notifies :attr:`room`. A source that is a feed needs
    no buffer: then it is :attr:`feed` that is to be asked.

    Args:
        source: What is driven.
        options: Those of the stream.
        runtime: Of the running event loop.
        news: Notified when there is something new: in the buffer, or that it has opened.

    """

    __slots__ = (
        "_limit",
        "_news",
        "_opening_entry",
        "_options",
        "_runtime",
        "_source",
        "buffer",
        "cancelled_at",
        "fed",
        "feed",
        "full",
        "in_flight",
        "opened",
        "room",
        "task",
    )

    #: The task that runs it.
    task: Task

    def __init__(self, source: Source, options: Options, runtime: Runtime, news: Signal) -> None:
        self._source = source
        self._options = options
        self._runtime = runtime
        # Not its notify: for a subscription that waits, 64 bytes count.
        self._news = news
        self._opening_entry: Entry | None = None
        # What buffer and in_flight may come to before the source waits, in bytes; -1 when
        # nothing is wanted any more.
        self._limit = options.buffer_size
        #: Encoded items that nobody has taken yet.
        self.buffer: list[bytes] = []
        #: Notify it when something was taken while :attr:`full`; the source's task alone
        #: waits for it.
        self.room = runtime.signal()
        #: Whether the source waits for room.
        self.full = False
        #: How many bytes have been taken, but are not sent yet.
        self.in_flight = 0
        #: What gives blocks without this task, if the source is such a thing.
        self.feed: Feed | None = None
        #: Whether that may have something.
        self.fed = False
        #: Whether the setup phase is done, and the response may start.
        self.opened = False
        #: When the source was cancelled, by the event loop's time.
        self.cancelled_at: float | None = None

    async def run(
        self, request: Request, ended: Callable[[BaseException | None], Awaitable[None]]
    ) -> None:
        """
        Set the source up, keep what it yields as bytes, and close it.

        Args:
            request: For the setup phase.
            ended: Awaited last, with what the source has raised, if it has.

        """
        error: BaseException | None = None
        try:
            result = await self._source.call(request)
            if is_feed(result):
                self._attach(result)
            else:
                # Here, not in a function of its own: each wake-up of the source passes every
                # coroutine that it runs in.
                async with result if is_context_manager(result) else nullcontext(result) as given:
                    iterator = self._source.iterate(given, self._runtime.threads)
                    self._begin()
                    items = iterator
                    try:
                        while (cancellation := await self._fill(items)) is not None:
                            items = await _throw(cancellation, iterator)
                    finally:
                        await self._close(iterator)
        except BaseException as exc:  # noqa: BLE001 - whoever awaits the end raises it
            error = exc
        try:
            await ended(error)
        finally:
            # Its traceback holds this frame.
            del error

    def refuse(self) -> None:
        """
        Want nothing more: what waits for room waits no longer, and ends.
        """
        self._limit = -1

    def cancel(self) -> None:
        """
        Cancel the source. Once: a second one would hit what it awaits in its ``finally``.
        """
        if self.cancelled_at is None:
            self.cancelled_at = self._runtime.now()
            self.task.cancel()

    def discard(self) -> None:
        """
        Take no more part in anything: the response is over.
        """
        if self._opening_entry is not None:
            self._runtime.ticker.discard(self._opening_entry)
        if self.feed is not None:
            self.feed.detach()
        self.room.notify()

    def _attach(self, feed: Feed) -> None:
        # If nothing is wanted any more, nobody would detach it.
        if self._limit >= 0:
            self.feed = feed
            self.fed = True
            feed.attach(self._wake_for_feed)
            self._open(0.0)

    def _wake_for_feed(self) -> None:
        self.fed = True
        self._news.notify()

    def _begin(self) -> None:
        if delay := self._options.open_delay:
            due = self._runtime.now() + delay
            self._opening_entry = self._runtime.ticker.add(due, self._open)
        else:
            self._open(0.0)

    async def _close(self, iterator: Any) -> None:
        """
        Close a source that may be over, or may have failed.
        """
        if not hasattr(iterator, "aclose"):
            return
        if not isinstance(sys.exception(), Exception):
            await iterator.aclose()
            return
        # What the source, or its item, has failed with is what goes up.
        with move_on_after(self._options.cleanup_timeout) as scope:
            try:
                await iterator.aclose()
            except Exception:
                logger.exception("%s raised when it was closed", self._source.name)
        if scope.cancelled_caught:
            logger.warning(TOO_LATE, self._source.name)

    def _open(self, _: float) -> float:
        self.opened = True
        self._news.notify()
        return math.inf

    async def _fill(self, items: AsyncIterator[Any]) -> BaseException | None:
        """
        Put items into the buffer to the last one, or to a cancellation that is not ours.
        """
        json = self._options.json
        encode = self._options.encode
        # Most items are such: they need no call.
        plain = str if encode is None else None
        buffer = self.buffer
        append = buffer.append
        wake = self._news.notify
        room = 0
        deadline = 0.0
        async for item in items:
            try:
                if type(item) is plain and "\n" not in item and "\r" not in item:
                    block = f"data: {item}\n\n".encode()
                else:
                    block = encode(item) if encode else encode_item(item, json)
            except (TypeError, ValueError) as exc:
                what = f"{self._source.name} yielded {item!r:.100}"
                if encode is not None:
                    # An adapter's own, whose type and text may be known to the user.
                    exc.add_note(what)
                    raise
                what = f"{what}: {exc}"
                raise (TypeError if isinstance(exc, TypeError) else ValueError)(what) from exc
            if buffer:
                append(block)
                room -= len(block)
                # A look at the clock costs a fifth of an event.
                if room >= 0 and (len(buffer) % 8 or monotonic() < deadline):
                    continue
            else:
                # The writer has taken everything.
                append(block)
                wake()
                room = self._limit - self.in_flight - len(block)
                deadline = monotonic() + _LONGEST_TURN
                if room >= 0:
                    continue
            try:
                if room < 0:
                    if not await self._wait_for_room():
                        return None
                else:
                    # The source does not wait, so nobody else has had a turn, and a
                    # disconnect would never be seen.
                    await self._runtime.turn()
                    deadline = monotonic() + _LONGEST_TURN
            except get_cancelled_exc_class() as exc:
                if self.cancelled_at is not None:
                    raise
                return exc
        return None

    async def _wait_for_room(self) -> bool:
        """
        Wait until the writer has sent enough; ``False`` if it never will.
        """
        self.full = True
        while self._limit >= 0 and (self.buffer or self.in_flight > self._limit):
            await self.room.wait()
        self.full = False
        if self.cancelled_at is not None:
            # Or it would arrive where the source next awaits, in its finally.
            await self.task.arrive()
        return self._limit >= 0


async def _throw(cancellation: BaseException, iterator: Any) -> AsyncIterator[Any]:
    """
    Raise where the source stands what cancels it: a timeout it holds across its yield.

    Returns what it yields from there on. (See PEP 789.)
    """
    if not hasattr(iterator, "athrow"):
        raise cancellation
    try:
        item = await iterator.athrow(cancellation)
    except StopAsyncIteration:
        return _WithFirst([], iterator)
    return _WithFirst([item], iterator)


class _WithFirst:
    """
    An async iterator with items before its next one.
    """

    __slots__ = ("_first", "_rest")

    def __init__(self, first: list[Any], rest: AsyncIterator[Any]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return self._first.pop() if self._first else await anext(self._rest)
