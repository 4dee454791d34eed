"""
Channels in Redis: each is a stream, and the ID of an entry is that of the event.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from anyio import current_time, fail_after, get_cancelled_exc_class

try:
    import redis.asyncio as aioredis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
except ImportError as error:  # pragma: no cover
    raise ImportError("redis:// needs redis-py; try: pip install 'asgi-sse[redis]'") from error

from ._backend import Backend, Batch, BrokerError, Entry, Order

__all__ = ["RedisBackend"]

# How long a reader waits in Redis until it says that there is nothing, in seconds.
_PATIENCE = 1.0

# How many entries a reader takes at once.
_BATCH = 1000

# Two numbers of 64 bits.
_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)


class RedisBackend(Backend):
    """
    Redis Streams by redis-py's asyncio client.

    Args:
        url: As redis-py reads it.
        history: How many entries a stream keeps at least.
        max_age: How many seconds an entry is kept at least.
        prefix: What the keys of streams begin with.
        timeout: How many seconds Redis has to answer.

    """

    # Later IDs are given away after a loss than before it, so they alone tell nothing.
    dense = True

    def __init__(
        self, url: str, history: int, max_age: float | None, prefix: str, timeout: float
    ) -> None:
        if get_cancelled_exc_class().__module__.partition(".")[0] == "trio":
            raise BrokerError("redis:// needs asyncio: redis-py knows no trio")
        self._history = history
        self._max_age = max_age
        self._prefix = prefix
        self._timeout = timeout
        self._client: Any = aioredis.Redis.from_url(
            url,
            # An entry that was added although the connection broke would be added twice.
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=timeout,
            # A stream may hold what other programs have written.
            decode_responses=True,
            encoding_errors="surrogateescape",
        )

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        key = self._prefix + name
        async with self._talk(self._timeout):
            # "~": whole nodes of it are let go of, which costs a tenth.
            added = await self._client.xadd(key, fields, maxlen=self._history, approximate=True)
            order = _order(added)
            if self._max_age is not None:
                # By the clock of Redis.
                oldest = max(0, order[0] - int(self._max_age * 1000))
                await self._client.xtrim(key, minid=oldest, approximate=False)
        return order

    async def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        key = self._prefix + name
        asked = current_time()
        async with self._talk(self._timeout):
            if after is None:
                first, _ = await self._load(key)
            else:
                first = await self._resume(key, after)
        yield first
        # After a loss from its place on: what comes may have lower IDs than what was lost.
        last = first.entries[-1].order if first.entries else first.missing or after or (0, 0)
        while True:
            since, asked = asked, current_time()
            async with self._talk(self._timeout + _PATIENCE):
                batch = await self._follow(key, last, since)
            if batch.entries:
                last = batch.entries[-1].order
            yield batch

    async def _follow(self, key: str, last: Order, since: float) -> Batch:
        answer = await self._client.xread(
            {key: self.write_id(last)}, count=_BATCH, block=int(_PATIENCE * 1000)
        )
        entries = _entries(answer[0][1]) if answer else []
        # Fewer than it keeps: then it has let go of none that were not read,
        few = len(entries) < min(_BATCH, self._history)
        # unless they have become too old since it was asked before. (Twice it may have waited.)
        late = self._max_age is not None and current_time() - since >= max(
            self._max_age, 3 * _PATIENCE
        )
        if not entries or (few and not late) or await self._has(key, last):
            return Batch(entries)
        return Batch(entries, _just_before(entries[0]))

    async def _load(self, key: str) -> tuple[Batch, Order]:
        """
        Return what is kept, and the highest place that Redis has ever given away.
        """
        # At once: what is added in between would be neither here nor there.
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.xrevrange(key, count=self._history + 1)
            pipeline.xinfo_stream(key)
            rows, about = await pipeline.execute(raise_on_error=False)
        if isinstance(rows, Exception):
            raise rows
        entries = _entries(reversed(rows))
        if isinstance(about, Exception):
            # There is no such key.
            return Batch([], (0, 0)), (0, 0)
        newest = _order(about["last-generated-id"])
        if len(entries) > self._history:
            return Batch(entries[1:], entries[0].order), newest
        # Redis before 7 does not count them.
        if about.get("entries-added", -1) == about["length"]:
            return Batch(entries, (0, 0)), newest
        return Batch(entries, _just_before(entries[0]) if entries else newest), newest

    async def _resume(self, key: str, after: Order) -> Batch:
        """
        Go on after the connection was lost, if Redis still has what was read last.
        """
        batch, newest = await self._load(key)
        assert batch.missing is not None
        # What was written since Redis came back has later IDs, whatever was lost with it.
        has = any(entry.order == after for entry in batch.entries)
        if after <= newest and (has or after == batch.missing):
            return Batch([entry for entry in batch.entries if entry.order > after])
        # It was too long, or Redis has lost what it had.
        return batch

    async def _has(self, key: str, order: Order) -> bool:
        entry_id = self.write_id(order)
        return bool(await self._client.xrange(key, entry_id, entry_id))

    @asynccontextmanager
    async def _talk(self, seconds: float) -> AsyncIterator[None]:
        try:
            with fail_after(seconds):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            what = str(error) or f"no answer within {seconds:g} s"
            raise BrokerError(f"Redis: {what}") from error

    def write_id(self, order: Order) -> str:
        return f"{order[0]}-{order[1]}"

    def read_id(self, event_id: str) -> Order | None:
        return _order(event_id) if _ID.fullmatch(event_id) else None

    async def aclose(self) -> None:
        await self._client.aclose()


def _order(entry_id: str) -> Order:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


def _just_before(entry: Entry) -> Order:
    milliseconds, number = entry.order
    return (milliseconds, number - 1) if number else (milliseconds - 1, 2**64 - 1)


def _entries(rows: Any) -> list[Entry]:
    # An entry that was deleted while it was read has no fields.
    return [Entry(_order(entry_id), fields or {}) for entry_id, fields in rows]
