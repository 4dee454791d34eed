"""
Names for channels that an engine keeps, so that many processes have the same.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Self
from urllib.parse import quote_plus, urlsplit
from weakref import WeakValueDictionary

from anyio import create_task_group, current_time, sleep
from anyio.abc import TaskGroup

from .._event import ServerSentEvent
from ._backend import Backend, Batch, BrokerError, Entry, Order
from ._log import Log
from ._make import make_event
from ._merged import Merged
from ._names import check_name, is_pattern
from ._subscription import LONGEST_ID, Fanout, OnGap, Overflow, Statistics, Subscription

__all__ = ["Broker", "BrokerChannel"]

logger = logging.getLogger("asgi_sse")

# For so many seconds a channel is read on after its last subscriber has left.
_LINGER = 30.0

# How long to wait before an engine that failed is asked again, in seconds: first, at most.
_BACKOFF = (0.1, 5.0)

# How many seconds the reader may take to come to an event that a client says it has. (The engine
# had it before the client, but there may be no moment in which all is read.)
_LONGEST_SEARCH = 5.0

# How long an event ID may be that a client comes back with: as Request.last_event_id reads it.
_LONGEST_EVENT_ID = 4096

# Which engines know wildcards.
_WITH_WILDCARDS = {"memory", "nats"}


class _Mirror(Log):
    """
    What is kept of a channel in the engine, as far as it was read.
    """

    __slots__ = ("_backend", "_orders", "gone", "last")

    def __init__(
        self, history: int, max_age: float | None, backend: Backend, missing: Order
    ) -> None:
        super().__init__(history, max_age)
        self._backend = backend
        # Side by side with the events.
        self._orders: list[Order] = []
        #: Up to here nothing is kept, and up to here everything was read.
        self.gone = self.last = missing

    def mirror(self, event: ServerSentEvent, order: Order, now: float) -> None:
        self._orders.append(order)
        self.last = order
        self.append(event, now=now)

    def miss(self, missing: Order) -> None:
        """
        Let everybody fall behind: entries before this place may never be read.
        """
        self._events.clear()
        self._orders.clear()
        self._times.clear()
        self._vacant = 0
        self.end += 1
        self.start = self.end
        self.gone = self.last = missing

    def id_at(self, position: int) -> str:
        if position <= self.start:
            return self._backend.write_id(self.gone)
        return self._backend.write_id(self._orders[position - self.start + self._vacant - 1])

    def find(self, event_id: str) -> int | None:
        order = self._backend.read_id(event_id)
        if order is None or not self.gone <= order <= self.last:
            return None
        index = bisect_right(self._orders, order, lo=self._vacant)
        found = index > self._vacant and self._orders[index - 1] == order
        if self._backend.dense and not found and order != self.gone:
            # And so may have been others that followed it.
            return None
        return index - self._vacant + self.start

    def is_ahead(self, event_id: str) -> bool:
        order = self._backend.read_id(event_id)
        return order is not None and order > self.last

    def _evict(self) -> None:
        vacant = self._vacant
        self.gone = self._orders[vacant]
        super()._evict()
        if self._vacant <= vacant:
            del self._orders[: vacant + 1]


class BrokerChannel:
    """
    A channel that an engine keeps; made by :meth:`Broker.channel`.

    ``EventStream(channel)`` serves it.
    """

    _fanout: _Fanout
    _reading: bool

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._begin()
        self._published = 0
        self._skipped = 0
        self._idle_since = 0.0
        #: What it is called.
        self.name = name

    async def publish(self, item: Any, *, event: str | None = None) -> str:
        """
        Give an item to the subscribers of all processes.

        Cancellation: the event may or may not have been published.

        Args:
            item: A str is data, an event without an ID is itself, anything else is data
                as JSON.
            event: The event type.

        Returns:
            The event ID. The engine has the event then.

        Raises:
            BrokerError: The engine has refused it, or cannot be reached, or the broker is not
                open. After a timeout it may have been published all the same.
            TypeError: The item cannot be an event.
            ValueError: The item cannot be an event, or has an ID, or the channel is several.

        """
        if is_pattern(self.name):
            raise ValueError(f"name must be that of one channel (got {self.name!r:.100})")
        made = make_event(item, event=event)
        if made.id is not None:
            raise ValueError(f"id must not be given: the engine makes it (got {made.id!r})")
        backend = self._broker._open_backend()
        order = await backend.publish(self.name, _fields(made))
        self._published += 1
        return backend.write_id(order)

    def subscribe(self, last_event_id: str | None = None) -> Subscription:
        """
        Return a place in the channel, as :meth:`asgi_sse.Channel.subscribe` does.

        Where it is the engine tells: the place is held from when the first event has come.

        Args:
            last_event_id: What ``publish()`` returned, or an event had, in any process.

        """
        if not self._reading:
            self._reading = True
            self._broker._start_soon(self._read)
        return Subscription(self._fanout, last_event_id)

    def statistics(self) -> Statistics:
        """
        Return how the channel is doing in this process.
        """
        fanout = self._fanout
        return Statistics(
            subscribers=len(fanout.subscriptions),
            position=fanout.log.end,
            oldest=fanout.log.start,
            largest_lag=fanout.largest_lag(),
            published=self._published,
            dropped=fanout.dropped,
            closed_for_lag=fanout.closed_for_lag,
            skipped=self._skipped,
        )

    def _begin(self) -> None:
        """
        Know nothing of what was before the broker was opened.
        """
        self._fanout = _Fanout(self._broker)
        self._reading = False

    # The reader.

    async def _read(self) -> None:
        first, longest = _BACKOFF
        delay = first
        self._idle_since = current_time()
        while not self._is_idle():
            try:
                async with aclosing(
                    self._broker._backend.read(self.name, self._fanout.last())
                ) as batches:
                    async for batch in batches:
                        delay = first
                        self._take(batch)
                        if self._is_idle():
                            break
            except Exception as exc:
                known = isinstance(exc, BrokerError)
                logger.warning(
                    "channel %r is not read for %g s: %s",
                    self.name,
                    delay,
                    exc,
                    exc_info=None if known else exc,
                )
                await sleep(delay)
                delay = min(2 * delay, longest)
        self._fanout.forget()
        self._reading = False

    def _is_idle(self) -> bool:
        if self._fanout.subscriptions:
            self._idle_since = current_time()
        return current_time() - self._idle_since > _LINGER

    def _take(self, batch: Batch) -> None:
        fanout = self._fanout
        log = fanout.get_ready(batch.missing)
        # By the clock of this process, which reads even if nothing comes: so an event may stay
        # here for as long again as it was in the engine before it was read.
        now = current_time()
        for entry in batch.entries:
            try:
                event = _event(entry, self._broker._backend.write_id(entry.order))
            except ValueError as exc:
                self._skipped += 1
                log.last = entry.order
                logger.warning("channel %r has an entry that is no event: %s", self.name, exc)
            else:
                log.mirror(event, entry.order, now)
        log.expire(now)
        fanout.wake()
        fanout.place_all(caught_up=not batch.entries)


class _Fanout(Fanout):
    def __init__(self, broker: Broker) -> None:
        super().__init__(
            history=broker._history,
            max_age=None,
            overflow=broker._overflow,
            on_gap=broker._on_gap,
        )
        self._broker = broker
        self._mirror: _Mirror | None = None
        self._caught_up = False

    def last(self) -> Order | None:
        return None if self._mirror is None else self._mirror.last

    def get_ready(self, missing: Order | None) -> _Mirror:
        if self._mirror is None:
            assert missing is not None
            broker = self._broker
            self._mirror = _Mirror(broker._history, broker._max_age, broker._backend, missing)
            self.log = self._mirror
        elif missing is not None:
            self._mirror.miss(missing)
        return self._mirror

    def forget(self) -> None:
        self._mirror = None
        self.log = Log(1)

    def is_known(self, event_id: str) -> bool:
        if self._mirror is None:
            return False
        # Another process may have sent it, which has read further.
        return self._caught_up or not self._mirror.is_ahead(event_id)

    def place_all(self, *, caught_up: bool) -> None:
        """
        Find the places of those that could not be found before.
        """
        now = current_time()
        for subscription, since in list(self.unplaced.items()):
            self._caught_up = caught_up or now - since > _LONGEST_SEARCH
            try:
                subscription.place()
            except Exception:
                # Only this one ends: the reader is there for all of them.
                logger.exception("on_gap raised")
                subscription.detach()
            subscription.wake()
        self._caught_up = False


class Broker:
    """
    Channels by name, kept by an engine, for any number of processes and machines.

    It is an async context manager, and may be entered again later. While it is open, each
    channel that has subscribers in this process is read once, for all of them.

    Args:
        url: ``memory://``: this process only, nothing is kept over its end. ``redis://``,
            ``rediss://`` and ``unix://``: Redis, as redis-py reads it. ``nats://``: NATS
            with JetStream, as nats-py reads it; several servers with commas in between.
            A password is percent-encoded, and never told in an error.
        history: How many events of each channel are kept.
        max_age: How many seconds an event is kept.
        prefix: What the names begin with in the engine.
        overflow: As for :class:`asgi_sse.Channel`, but not ``"latest"``.
        on_gap: As for :class:`asgi_sse.Channel`.
        timeout: How many seconds the engine has to answer.

    Raises:
        TypeError: An option is of another type.
        ValueError: An option is out of bounds, or the URL is of no engine that is known.

    """

    def __init__(
        self,
        url: str,
        *,
        history: int = 1000,
        max_age: float | None = None,
        prefix: str = "asgi_sse:",
        overflow: Overflow = "close",
        on_gap: OnGap = "reset",
        timeout: float = 5.0,
    ) -> None:
        # Refuses what is out of bounds.
        Fanout(history=history, max_age=max_age, overflow=overflow, on_gap=on_gap)
        if overflow == "latest":
            raise ValueError("overflow must be 'close' or 'skip' (got 'latest')")
        self._scheme = _check_url(url)
        self._url = url
        self._history = history
        self._max_age = max_age
        self._prefix = prefix
        self._overflow = overflow
        self._on_gap = on_gap
        self._timeout = timeout
        # What clients ask for may be any name: those go that nobody holds or reads.
        self._channels: WeakValueDictionary[str, BrokerChannel] = WeakValueDictionary()
        self._backend: Backend
        self._tasks: TaskGroup | None = None

    def channel(self, name: str) -> BrokerChannel:
        """
        Return the channel with this name; the same one each time.

        Names are parts with dots in between. In memory and in NATS a part may be ``*``, and
        the last one ``>``: ``news.*`` means ``news.sports``, and ``news.>`` also
        ``news.sports.chess``. All channels that are meant, those that do not exist yet
        included, are then read as if they were one, which keeps *history* events as well.
        The events have the same IDs there as in their own channels.

        Raises:
            ValueError: The name is empty, longer than 1024 bytes, has control
                characters, or wildcards where they cannot be.

        """
        found = self._channels.get(name)
        if found is None:
            check_name(name, wildcards=self._scheme in _WITH_WILDCARDS)
            found = self._channels[name] = BrokerChannel(self, name)
        return found

    async def publish(self, name: str, item: Any, *, event: str | None = None) -> str:
        """
        Give an item to all subscribers of a channel, as :meth:`BrokerChannel.publish` does.
        """
        return await self.channel(name).publish(item, event=event)

    def subscribe(self, *names: str, last_event_id: str | None = None) -> Subscription | Merged:
        """
        Return a place in one channel, or in several at once.

        With several, an event ID tells a place in each of them.

        Args:
            names: The channels.
            last_event_id: The ID of the last event of such a subscription.

        Raises:
            BrokerError: The broker is not open.
            ValueError: There is no name, or one that cannot be, or there are so many that an
                ID might be longer than 4,096 characters, which is all that is read of it
                when a client comes back: percent-encoded, and each with 43 more.

        """
        if not names:
            raise ValueError("names must be at least one (got none)")
        channels = [self.channel(name) for name in dict.fromkeys(names)]
        if len(channels) == 1:
            return channels[0].subscribe(last_event_id)
        # With "=" and "&".
        length = sum(len(quote_plus(each.name)) + LONGEST_ID + 2 for each in channels)
        if length > _LONGEST_EVENT_ID:
            raise ValueError(
                f"names must be fewer, or shorter: an event ID has up to {_LONGEST_EVENT_ID} "
                f"characters (got {len(channels)} names, which may need {length})"
            )
        return Merged({each.name: each.subscribe for each in channels}, last_event_id)

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("the broker is open. Did you forget that a lifespan opens it?")
        self._backend = self._open()
        # An application outlives its lifespan, in tests above all, and holds its channels.
        for channel in self._channels.values():
            channel._begin()
        tasks = create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        for channel in self._channels.values():
            channel._fanout.closed = True
            channel._fanout.end_all()
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        finally:
            await self._backend.aclose()

    def _open(self) -> Backend:
        if self._scheme == "memory":
            from ._memory import MemoryBackend

            return MemoryBackend(self._history, self._max_age)
        kind: Callable[[str, int, float | None, str, float], Backend]
        if self._scheme == "nats":
            from ._nats import NatsBackend as kind
        else:
            from ._redis import RedisBackend as kind
        return kind(self._url, self._history, self._max_age, self._prefix, self._timeout)

    def _start_soon(self, function: Callable[[], Any]) -> None:
        if self._tasks is None:
            raise _not_open()
        self._tasks.start_soon(function)

    def _open_backend(self) -> Backend:
        if self._tasks is None:
            # Or its client would connect anew, and nobody would close that.
            raise _not_open()
        return self._backend


def _not_open() -> BrokerError:
    return BrokerError("the broker is closed, or not open yet. Did you forget async with?")


def _check_url(url: str) -> str:
    """
    Return the scheme, and say nothing of what stands after it: there may be a password.
    """
    scheme, found, _ = url.partition("://")
    if not found or scheme not in ("memory", "redis", "rediss", "unix", "nats"):
        got = f"{scheme}://..." if found else "none of them"
        raise ValueError(f"url must be of memory, redis, rediss, unix or nats (got {got})")
    try:
        for part in url.split(","):
            urlsplit(part).port  # noqa: B018
    except ValueError:
        # Its reason would tell what it took for a port.
        raise ValueError(
            "url must have a number as its port. Did you forget to percent-encode the password?"
        ) from None
    return scheme


def _fields(event: ServerSentEvent) -> dict[str, str]:
    fields = {
        "data": event.data,
        "event": event.event,
        "retry": event.retry,
        "comment": event.comment,
    }
    return {name: str(value) for name, value in fields.items() if value is not None}


def _event(entry: Entry, event_id: str) -> ServerSentEvent:
    fields = entry.fields
    retry = fields.get("retry")
    if fields.keys().isdisjoint(("data", "event", "retry", "comment")):
        raise ValueError(f"it has no field of an event (got {list(fields)!r:.100})")
    return ServerSentEvent(
        fields.get("data"),
        event=fields.get("event"),
        id=event_id,
        retry=None if retry is None else int(retry),
        comment=fields.get("comment"),
    )
