"""
Every order in which an engine, its reader and subscribers can take turns.
"""

from collections.abc import AsyncGenerator, Mapping
from itertools import product
from typing import Any

import pytest

from asgi_sse.channels import Broker, Subscription
from asgi_sse.channels._backend import Backend, Batch, Entry, Order
from asgi_sse.channels._broker import BrokerChannel

HISTORY = 3


class Engine(Backend):
    """
    It keeps entries, and tells at any moment what a reader would get.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.gone: Order = (0,)
        self.number = 0

    def add(self) -> None:
        self.number += 1
        self.entries.append(Entry((self.number,), {"data": str(self.number)}))
        if len(self.entries) > HISTORY:
            self.gone = self.entries.pop(0).order

    def batch(self, after: Order | None, size: int) -> Batch:
        missing = self.gone if after is None or after < self.gone else None
        entries = [entry for entry in self.entries if entry.order > (after or (0,))]
        return Batch(entries[:size], missing)

    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        raise NotImplementedError

    def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        raise NotImplementedError

    def write_id(self, order: Order) -> str:
        return str(order[0])

    def read_id(self, event_id: str) -> Order | None:
        return (int(event_id),) if event_id.isdigit() else None

    async def aclose(self) -> None:
        raise NotImplementedError


class Client:
    """
    It takes what it can get, and comes back with the last ID that it has seen.
    """

    def __init__(self, channel: BrokerChannel, last: str | None) -> None:
        self._channel = channel
        self._last = last
        #: Numbers of events, and ``None`` for each time it was told of a gap.
        self.got: list[int | None] = []
        # Where it began: what follows it is to get.
        self.first: int | None = None if last is None else int(last)
        self._subscription: Subscription = channel.subscribe(last)

    def take(self, most: int) -> None:
        for _ in range(most):
            event = self._subscription.next_nowait()
            if event is None:
                if self._subscription.over:
                    self._come_back()
                return
            assert event.id is not None
            self._last = event.id
            if event.event == "reset":
                self.got.append(None)
            elif event.data is not None:
                self.got.append(int(event.data))
            elif self.first is None:
                # New, and told where it is.
                self.first = int(event.id)

    def _come_back(self) -> None:
        self._subscription = self._channel.subscribe(self._last)

    def leave(self) -> None:
        self._subscription.detach()
        self._come_back()

    def check(self, engine: Engine) -> None:
        """
        It has each event once, in order, but where it was told.
        """
        expected = self.first or 0
        told = False
        for number in self.got:
            if number is None:
                told = True
            else:
                # Told of a gap, it gets all that is kept.
                assert number == expected + 1 or told
                expected = number
                told = False
        assert expected == engine.number or told or self.first is None
        # Nothing is told without a reason.
        assert engine.gone != (0,) or None not in self.got


def play(turns: tuple[str, ...], overflow: Any) -> None:
    broker = Broker("memory://", history=HISTORY, overflow=overflow)
    engine = broker._backend = Engine()
    channel = broker.channel("news")
    # Its reader is played here.
    channel._reading = True
    fanout = channel._fanout
    clients: list[Client] = []

    def read(size: int) -> Batch:
        batch = engine.batch(fanout.last(), size)
        channel._take(batch)
        return batch

    for turn in (*turns, "read", "read", "take all"):
        match turn:
            case "add":
                engine.add()
            case "read one":
                read(1)
            case "read":
                while read(2).entries:
                    pass
            case "new":
                clients.append(Client(channel, None))
            case "come with latest":
                # It was published, and told by another process.
                clients.append(Client(channel, str(engine.number)))
            case "add three":
                for _ in range(3):
                    engine.add()
            case "come three behind":
                clients.append(Client(channel, str(max(0, engine.number - 3))))
            case "come five behind":
                clients.append(Client(channel, str(max(0, engine.number - 5))))
            case "take one":
                for client in clients:
                    client.take(1)
            case "leave":
                for client in clients:
                    client.leave()
            case "take all":
                for client in clients:
                    # One that is closed comes back.
                    for _ in range(3):
                        client.take(100)
    for client in clients:
        client.check(engine)


TURNS = [
    "add",
    "add three",
    "read one",
    "read",
    "new",
    "come with latest",
    "come three behind",
    "come five behind",
    "take one",
    "leave",
]


# As many turns in a row: six take a quarter of an hour.
LENGTH = 4


@pytest.mark.parametrize("overflow", ["close", "skip"])
@pytest.mark.parametrize("before", [0, 1, 5])
async def test_each_event_comes_once_or_is_told_whoever_is_first(
    before: int, overflow: Any
) -> None:
    for turns in product(TURNS, repeat=LENGTH):
        try:
            play(("add",) * before + turns, overflow)
        except AssertionError as exc:
            raise AssertionError(f"{before} events before, then {turns}") from exc
