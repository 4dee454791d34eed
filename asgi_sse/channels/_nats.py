"""
Channels in NATS: subjects of one JetStream stream, whose sequence is the event ID.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

from anyio import Lock, fail_after, get_cancelled_exc_class

try:
    import nats
    from nats.errors import Error as NatsError
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
    from nats.js.errors import NotFoundError
except ImportError as error:  # pragma: no cover
    raise ImportError("nats:// needs nats-py; try: pip install 'asgi-sse[nats]'") from error

from ._backend import Backend, Batch, BrokerError, Entry, Order

__all__ = ["NatsBackend"]

# How long a reader waits in NATS until it says that there is nothing, in seconds.
_PATIENCE = 1.0

# How many messages a reader takes at once.
_BATCH = 1000

_ID = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)


class NatsBackend(Backend):
    """
    JetStream by nats-py.

    Args:
        url: As nats-py reads it.
        history: How many messages of each subject are kept.
        max_age: How many seconds a message is kept.
        prefix: The name of the stream, and what its subjects begin with. What cannot be
            in a name is left out.
        timeout: How many seconds NATS has to answer.

    """

    def __init__(
        self, url: str, history: int, max_age: float | None, prefix: str, timeout: float
    ) -> None:
        if get_cancelled_exc_class().__module__.partition(".")[0] == "trio":
            raise BrokerError("nats:// needs asyncio: nats-py knows no trio")
        self._url = url
        self._history = history
        self._max_age = max_age
        self._stream = re.sub(r"[^A-Za-z0-9_-]", "", prefix)
        self._timeout = timeout
        self._client: Any = None
        self._js: Any = None
        self._opening = Lock()

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        headers = {key: quote(text) for key, text in fields.items() if key != "data"}
        if "data" not in fields:
            headers["no-data"] = "1"
        async with self._talk(self._timeout):
            await self._open()
            done = await self._js.publish(
                self._subject(name),
                fields.get("data", "").encode(),
                timeout=self._timeout,
                headers=headers or None,
            )
        return (done.seq,)

    async def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        subject = self._subject(name)
        async with self._talk(self._timeout):
            await self._open()
            batch, newest, consumer = await self._load(subject)
        assert batch.missing is not None
        if after is not None and batch.missing <= after <= newest:
            batch = Batch([entry for entry in batch.entries if entry.order > after])
        yield batch
        last = batch.entries[-1].order if batch.entries else after or batch.missing or (0,)
        while True:
            async with self._talk(self._timeout + _PATIENCE):
                batch = await self._follow(consumer, last)
            if batch.entries:
                last = batch.entries[-1].order
            yield batch

    async def _load(self, subject: str) -> tuple[Batch, Order, Any]:
        """
        Return what is kept, the highest sequence ever given, and who tells what follows.
        """
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            filter_subject=subject,
            inactive_threshold=60.0,
        )
        consumer = await self._js.pull_subscribe(subject, stream=self._stream, config=config)
        count = (await consumer.consumer_info()).num_pending or 0
        newest = (await self._js.stream_info(self._stream)).state.last_seq
        entries: list[Entry] = []
        # Some may have been let go of meanwhile.
        while len(entries) < count and (messages := await self._fetch(consumer)):
            entries += messages
        if count < self._history and self._max_age is None:
            missing: Order = (0,)
        else:
            missing = (entries[0].order[0] - 1,) if entries else (newest,)
        return Batch(entries, missing), (max(newest, *(e.order[0] for e in entries), 0),), consumer

    async def _follow(self, consumer: Any, last: Order) -> Batch:
        entries = await self._fetch(consumer)
        # Fewer than it keeps: then it has let go of none that were not read.
        if len(entries) < min(_BATCH, self._history) or await self._has(last):
            return Batch(entries)
        return Batch(entries, (entries[0].order[0] - 1,))

    async def _fetch(self, consumer: Any) -> list[Entry]:
        try:
            messages = await consumer.fetch(_BATCH, timeout=_PATIENCE)
        except TimeoutError:
            # It may be gone, if NATS was started anew.
            await consumer.consumer_info()
            return []
        return [_entry(message) for message in messages]

    async def _has(self, order: Order) -> bool:
        try:
            await self._js.get_msg(self._stream, seq=order[0])
        except NatsError:
            return False
        return True

    async def _open(self) -> None:
        """
        Connect, and make the stream, unless that is done.
        """
        async with self._opening:
            if self._js is not None:
                return
            self._client = self._client or await nats.connect(
                self._url,
                connect_timeout=self._timeout,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,
                # What fails is raised where it was asked for.
                error_cb=_ignore,
            )
            js = self._client.jetstream(timeout=self._timeout)
            try:
                await js.stream_info(self._stream)
            except NotFoundError:
                await js.add_stream(
                    StreamConfig(
                        name=self._stream,
                        subjects=[f"{self._stream}.>"],
                        max_msgs_per_subject=self._history,
                        max_age=self._max_age,
                    )
                )
            self._js = js

    def _subject(self, name: str) -> str:
        text = quote(name)
        if "" in text.split("."):
            # NATS knows no empty part of a subject.
            text = text.replace(".", "%2E")
        return f"{self._stream}.{text}"

    @asynccontextmanager
    async def _talk(self, seconds: float) -> AsyncIterator[None]:
        try:
            with fail_after(seconds):
                yield
        except (NatsError, OSError, TimeoutError) as error:
            what = str(error) or f"no answer within {seconds:g} s"
            raise BrokerError(f"NATS: {what}") from error

    def write_id(self, order: Order) -> str:
        return str(order[0])

    def read_id(self, event_id: str) -> Order | None:
        return (int(event_id),) if _ID.fullmatch(event_id) else None

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()


def _entry(message: Any) -> Entry:
    headers = message.headers or {}
    fields = {key: unquote(text) for key, text in headers.items()}
    if "no-data" not in fields:
        fields["data"] = message.data.decode("utf-8", "surrogateescape")
    return Entry((message.metadata.sequence.stream,), fields)


async def _ignore(error: Exception) -> None:
    pass
