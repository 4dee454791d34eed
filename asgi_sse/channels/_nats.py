"""
Channels in NATS: subjects of one JetStream stream, whose sequence is the event ID.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from anyio import (
    CancelScope,
    Event,
    Lock,
    current_time,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
)

try:
    from nats.aio.client import Client
    from nats.errors import Error as NatsError
    from nats.errors import NoRespondersError
except ImportError as error:  # pragma: no cover
    raise ImportError("nats:// needs nats-py; try: pip install 'asgi-sse[nats]'") from error

from ._backend import Backend, Batch, BrokerError, Entry, Order
from ._names import split

__all__ = ["NatsBackend"]

# How long a reader waits in NATS until it says that there is nothing, in seconds.
_PATIENCE = 1.0

# How many messages a reader takes at once.
_BATCH = 1000

# For how long NATS keeps a consumer that asks for nothing, in seconds.
_FORGET_AFTER = 30

# How much further back to look, each time that there were too few messages of a channel.
_FURTHER = 8

_SECOND = 10**9

# An incarnation and a sequence.
_ID = re.compile(r"([1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)

# Where the metadata of the stream tells its incarnation, if that began after a loss.
_INCARNATION = "asgi_sse_incarnation"


class NatsBackend(Backend):
    """
    JetStream, spoken over nats-py: it is JSON on subjects whose names begin with ``$JS``.

    An order is an incarnation of the stream and a sequence in it. Sequences begin anew with
    a stream that was deleted and made again, and are given a second time when the server has
    lost its latest messages. An incarnation begins with each, and is the time of that in
    milliseconds, so that nobody takes the one for the other.

    Args:
        url: As nats-py reads it; several with commas in between. Who connects is told by
            the first.
        history: How many messages of each subject are kept at least.
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
        self._servers = url.split(",")
        self._history = history
        self._max_age = max_age
        self._name = re.sub(r"[^A-Za-z0-9_-]", "", prefix)
        if not self._name:
            raise ValueError(f"prefix must have a letter or a digit for NATS (got {prefix!r})")
        self._timeout = timeout
        self._client: Any = None
        self._opening = Lock()
        self._trouble: Exception | None = None
        self._closed = False
        # What is asked at the moment, and of which client: it is given up when that has lost
        # its connection.
        self._talks: dict[CancelScope, Any] = {}
        self._incarnation = 0
        # From the names of channels that are read to where.
        self._places: dict[str, _Place] = {}

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        headers = {key: quote(text) for key, text in fields.items() if key != "data"}
        if "data" not in fields:
            headers["no-data"] = "1"
        headers["Nats-Expected-Stream"] = self._name
        data = fields.get("data", "").encode()
        # As they are written: "NATS/1.0", then each on a line, then an empty one.
        size = 12 + sum(len(key) + len(text) + 4 for key, text in headers.items()) + len(data)
        async with self._talk() as talk:
            client = await self._connect(talk)
            if size > client.max_payload:
                raise BrokerError(f"NATS: max_payload is {client.max_payload} bytes (got {size})")
            try:
                answer = await self._request(self._subject(name), data, headers)
            except NoRespondersError:
                # Then nobody has it: the stream was deleted.
                await self._look()
                answer = await self._request(self._subject(name), data, headers)
        return self._incarnation, answer["seq"]

    async def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        async with self._talk() as talk:
            client = await self._connect(talk)
            stream = await self._look()
            resumed = after is not None and await self._still_has(stream, after, name)
            if not resumed:
                stream = await self._look()
                self._places.pop(name, None)
        subject = self._subject(name)
        if after is not None and resumed:
            consumer = await self._consume(client, subject, after[1] + 1)
        else:
            consumer = await self._consume_latest(client, subject, stream)
        try:
            batch = await self._load(consumer, name)
            if batch.missing is None and not resumed:
                batch = Batch(batch.entries, (stream.incarnation, stream.gone))
            while self._incarnation == stream.incarnation:
                yield batch
                async with self._talk(_PATIENCE):
                    batch = self._batch(await consumer.take(_PATIENCE), name)
        except GeneratorExit:
            # It is read no more. (After an error it is read on.)
            self._places.pop(name, None)
            raise
        finally:
            await consumer.aclose()
        raise BrokerError("NATS: the stream has lost messages")

    async def _still_has(self, stream: _Stream, after: Order, name: str) -> bool:
        """
        Whether what was read last is still what it was, and nothing was let go of since.
        """
        place = self._places.get(name, _Place())
        if stream.incarnation != after[0]:
            return False
        if after[1] > stream.last:
            await self._begin_incarnation()
            return False
        # Whether what came since nobody reads may be gone again. (Not because there was too
        # much of it in this channel: the number of those that are left will tell that.)
        aged = current_time() - place.seen >= stream.max_age
        gone = stream.limited and stream.first > after[1] + 1 and aged
        if place.sequence != after[1]:
            # There was no message yet.
            return not gone
        try:
            found = await self._ask(f"STREAM.MSG.GET.{self._name}", seq=place.sequence)
        except _Refused:
            return not gone
        when = datetime.fromisoformat(found["message"]["time"])
        if abs(when - place.time) > timedelta(milliseconds=1):
            # The server has lost it, and given its sequence to another one.
            await self._begin_incarnation()
            return False
        return True

    async def _consume_latest(self, client: Any, subject: str, stream: _Stream) -> _Consumer:
        """
        Return a consumer of the latest messages, a few more than are kept.
        """
        span = self._history + 1
        while True:
            start = max(stream.first, stream.last - span)
            consumer = await self._consume(client, subject, start)
            if start == stream.first or consumer.pending > self._history:
                return consumer
            await consumer.aclose()
            span *= _FURTHER

    async def _consume(self, client: Any, subject: str, start: int) -> _Consumer:
        # Made anew each time, and in memory only: a restarted server remembers of a kept
        # one less than it has sent, and would send it again.
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(start, 1),
            "filter_subject": subject,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _FORGET_AFTER * _SECOND,
        }
        async with self._talk():
            made = await self._ask(
                f"CONSUMER.CREATE.{self._name}", stream_name=self._name, config=config
            )
            # It fails on another connection: there the stream would have to be looked at again.
            consumer = _Consumer(client, self._name, made["name"], made["num_pending"])
            await consumer.subscribe()
        return consumer

    async def _load(self, consumer: _Consumer, name: str) -> Batch:
        """
        Return what was there when the consumer was made.
        """
        messages: list[Any] = []
        count = 0
        while count < consumer.pending:
            async with self._talk():
                more = await consumer.take(0)
            if not more:
                # Some were let go of meanwhile.
                break
            count += len(more)
            messages = (messages + more)[-self._history - 1 :]
        return self._batch(messages, name)

    def _batch(self, messages: list[Any], name: str) -> Batch:
        self._places.setdefault(name, _Place()).move(messages)
        # Each message tells how many follow. Where *history* follow, some before it may
        # have been let go of; where fewer do, none has: the stream keeps one more.
        for index in range(len(messages) - 1, -1, -1):
            if messages[index].metadata.num_pending >= self._history:
                missing = self._incarnation, messages[index].metadata.sequence.stream
                return Batch(self._entries(messages[index + 1 :]), missing)
        return Batch(self._entries(messages))

    def _entries(self, messages: list[Any]) -> list[Entry]:
        return [
            Entry((self._incarnation, message.metadata.sequence.stream), _fields(message))
            for message in messages
        ]

    # The stream.

    async def _look(self) -> _Stream:
        """
        Return what the stream is by now; make it, if there is none, and let it keep enough.
        """
        try:
            info = await self._ask(f"STREAM.INFO.{self._name}")
        except _Refused as refused:
            if refused.code != 404:
                raise
            config = {
                "name": self._name,
                "subjects": [f"{self._name}.>"],
                "retention": "limits",
                "storage": "file",
                "discard": "old",
                "max_msgs": -1,
                "max_bytes": -1,
                "max_consumers": -1,
                "max_msgs_per_subject": self._history + 1,
                "max_age": int((self._max_age or 0) * _SECOND),
            }
            info = await self._ask(f"STREAM.CREATE.{self._name}", **config)
        limits = self._limits(info["config"])
        if limits:
            config = info["config"] | limits
            info = await self._ask(f"STREAM.UPDATE.{self._name}", **config)
        stream = _Stream(info)
        self._incarnation = stream.incarnation
        return stream

    def _limits(self, config: dict[str, Any]) -> dict[str, Any]:
        """
        Return the limits of the stream that have to change.
        """
        limits: dict[str, Any] = {}
        if 0 < config["max_msgs_per_subject"] <= self._history:
            limits["max_msgs_per_subject"] = self._history + 1
        if self._max_age is not None:
            max_age = int(self._max_age * _SECOND)
            if config["max_age"] != max_age:
                limits["max_age"] = max_age
                limits["duplicate_window"] = min(max_age, config["duplicate_window"])
        return limits

    async def _begin_incarnation(self) -> None:
        info = await self._ask(f"STREAM.INFO.{self._name}")
        now = int(datetime.fromisoformat(info["ts"]).timestamp() * 1000)
        incarnation = str(max(now, _Stream(info).incarnation + 1))
        metadata = info["config"].get("metadata", {}) | {_INCARNATION: incarnation}
        await self._ask(f"STREAM.UPDATE.{self._name}", **info["config"] | {"metadata": metadata})

    def _subject(self, name: str) -> str:
        parts = (part if part in ("*", ">") else quote(part) for part in split(name))
        # Only a name that is one part has dots in it.
        return ".".join([self._name, *(part.replace(".", "%2E") for part in parts)])

    # The connection.

    async def _connect(self, talk: CancelScope) -> Any:
        """
        Return the client; a new one, if there is none that is connected.
        """
        self._talks[talk] = None
        async with self._opening:
            if self._client is not None and not self._client.is_closed:
                self._talks[talk] = self._client
                return self._client
            self._check_open()
            self._trouble = None
            client: Any = Client()
            try:
                await client.connect(
                    self._servers,
                    **_credentials(self._servers[0]),
                    connect_timeout=self._timeout,
                    # A reader has to know that there was another connection before, and
                    # what could not be published must not be published later.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.1,
                    # A machine that is gone says nothing: after three without an answer the
                    # connection is lost.
                    ping_interval=self._timeout,
                    max_outstanding_pings=2,
                    error_cb=self._note,
                    closed_cb=partial(self._give_up, client),
                )
                # Who closed it meanwhile did not know of this client.
                self._check_open()
                self._client = self._talks[talk] = client
                await self._look()
            except BaseException as exc:
                with move_on_after(1, shield=True):
                    await client.close()
                if isinstance(exc, NatsError) and self._trouble is not None:
                    # What it says itself is that there was no server left to try.
                    raise self._trouble from exc
                raise
            return client

    async def _note(self, trouble: Exception) -> None:
        self._trouble = trouble

    async def _give_up(self, client: Any) -> None:
        # It may be told so late that others talk to the next client already.
        for scope, used in self._talks.items():
            if used is client:
                scope.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("NATS: the broker is closed")

    async def _ask(self, what: str, **body: Any) -> Any:
        return await self._request(f"$JS.API.{what}", json.dumps(body).encode())

    async def _request(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None
    ) -> Any:
        message = await self._client.request(subject, data, timeout=self._timeout, headers=headers)
        answer = json.loads(message.data)
        if "error" in answer:
            raise _Refused(answer["error"])
        return answer

    @asynccontextmanager
    async def _talk(self, patience: float = 0.0) -> AsyncIterator[CancelScope]:
        seconds = self._timeout + patience
        try:
            with fail_after(seconds) as scope:
                self._talks[scope] = self._client
                try:
                    yield scope
                finally:
                    del self._talks[scope]
        except NoRespondersError as exc:
            raise BrokerError("NATS: nobody answers. Is JetStream enabled?") from exc
        except (NatsError, OSError, TimeoutError) as exc:
            raise BrokerError(f"NATS: {str(exc) or f'no answer within {seconds:g} s'}") from exc
        if scope.cancelled_caught:
            raise BrokerError("NATS: the connection was lost")

    def write_id(self, order: Order) -> str:
        return f"{order[0]}-{order[1]}"

    def read_id(self, event_id: str) -> Order | None:
        found = _ID.fullmatch(event_id)
        return (int(found[1]), int(found[2])) if found else None

    async def aclose(self) -> None:
        self._closed = True
        if self._client is not None:
            with move_on_after(self._timeout, shield=True):
                await self._client.close()


class _Refused(BrokerError):
    """
    JetStream has answered with an error.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__(f"NATS: {about.get('description')}")
        self.code = about.get("code")


class _Stream:
    """
    What the stream was when it was asked.

    Attributes:
        incarnation: When its sequences began to count.
        first: The sequence of the oldest message of all, or of the next if there is none.
        last: The highest sequence that was ever given.
        limited: Whether messages are let go of that are not too many of their channel.
        max_age: For how many seconds they are certainly not.
        gone: Up to here they may have been.

    """

    def __init__(self, info: dict[str, Any]) -> None:
        config, state = info["config"], info["state"]
        created = datetime.fromisoformat(info["created"])
        metadata = config.get("metadata", {})
        self.incarnation = int(metadata.get(_INCARNATION, 0)) or int(created.timestamp() * 1000)
        self.first: int = state["first_seq"]
        self.last: int = state["last_seq"]
        by_size = max(config["max_bytes"], config["max_msgs"]) > 0
        self.limited = by_size or config["max_age"] > 0
        self.max_age = 0 if by_size else config["max_age"] / _SECOND
        # One that is empty was emptied by hand, or is new.
        self.gone = max(self.first - 1, 0) if self.limited or not state["messages"] else 0


class _Place:
    """
    How far a channel was read.
    """

    def __init__(self) -> None:
        #: Of the latest message; 0 if there was none.
        self.sequence = 0
        self.time = datetime.min
        #: When the server has told last what there is.
        self.seen = -math.inf

    def move(self, messages: list[Any]) -> None:
        self.seen = current_time()
        if messages:
            self.sequence = messages[-1].metadata.sequence.stream
            self.time = messages[-1].metadata.timestamp


class _Consumer:
    """
    A consumer in JetStream, which is read from its first message on, without a gap.
    """

    def __init__(self, client: Any, stream: str, name: str, pending: int) -> None:
        self._client = client
        self._path = f"{stream}.{name}"
        self._subscription: Any = None
        self._inbox = client.new_inbox()
        self._messages: list[Any] = []
        self._news = Event()
        # How many more the server will send before it has to be asked again.
        self._asked = 0
        # How many it has sent, and whether it has said that there are no more by now.
        self._count = 0
        self._is_empty = False
        #: How many messages there were when it was made.
        self.pending = pending

    async def subscribe(self) -> None:
        self._subscription = await self._client.subscribe(
            self._inbox, cb=self._put, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def _put(self, message: Any) -> None:
        self._messages.append(message)
        self._news.set()

    async def take(self, patience: float) -> list[Any]:
        """
        Return what has come; nothing, if the server says after so many seconds that it has none.
        """
        while True:
            if self._client.is_closed:
                raise BrokerError("NATS: the connection was lost")
            if not self._asked:
                await self._ask(patience)
            await self._news.wait()
            self._news = Event()
            messages, self._messages = self._messages, []
            found = [message for message in messages if self._is_message(message)]
            if found or self._is_empty:
                self._is_empty = False
                return found

    async def _ask(self, patience: float) -> None:
        self._asked = _BATCH
        body = {
            "batch": _BATCH,
            # What it sends ahead is held in memory. One that is as large as can be has to fit.
            "max_bytes": 2 * self._client.max_payload,
            **({"expires": int(patience * _SECOND)} if patience else {"no_wait": True}),
        }
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._path}", json.dumps(body).encode(), self._inbox
        )

    def _is_message(self, message: Any) -> bool:
        if message.reply:
            self._asked -= 1
            self._count += 1
            if message.metadata.sequence.consumer != self._count:
                raise BrokerError("NATS: a message was lost on the way")
            return True
        status = message.headers["Status"]
        about = message.headers.get("Description", "")
        if status in ("404", "408"):
            # There are none, or none have come in time.
            self._asked = 0
            self._is_empty = True
        elif "MaxBytes" in about:
            # The next is too large for what was left of it.
            self._asked = 0
        elif about != "Batch Completed":
            # (That was seen before, and something else was asked since.)
            raise BrokerError(f"NATS: {about or status}")
        return False

    async def aclose(self) -> None:
        with suppress(NatsError, OSError), move_on_after(1, shield=True):
            await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._path}")
            await self._subscription.unsubscribe()


def _credentials(url: str) -> dict[str, str]:
    """
    Return what nats-py does not decode itself.
    """
    parts = urlsplit(url)
    if parts.password is not None:
        return {"user": unquote(parts.username or ""), "password": unquote(parts.password)}
    return {} if parts.username is None else {"token": unquote(parts.username)}


def _fields(message: Any) -> dict[str, str]:
    fields = {key.lower(): unquote(text) for key, text in (message.headers or {}).items()}
    if "no-data" not in fields:
        fields["data"] = message.data.decode("utf-8", "surrogateescape")
    return fields
