"""
What a broker asks of an engine that keeps its channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

__all__ = ["Backend", "Batch", "BrokerError", "Entry", "Order"]

#: Where an entry stands among those of its channel.
Order = tuple[int, ...]


class BrokerError(Exception):
    """
    The engine cannot be reached, or has refused something.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What the engine keeps of one event.

    Attributes:
        order: Where it stands; it rises within a channel.
        fields: What was published, or whatever else somebody has written there.

    """

    order: Order
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Some entries of a channel.

    Attributes:
        entries: They follow those of the batch before; none if there are no more by now.
        missing: If entries up to this place may be missing before these.

    """

    entries: list[Entry]
    missing: Order | None = None


class Backend(ABC):
    """
    One engine, as a broker sees it.

    All methods may run concurrently, those of one reader excepted. After ``aclose()`` they
    raise :class:`BrokerError`.
    """

    #: Whether only an entry of the channel itself can have stood at the place that an ID
    #: tells; if there is none, the engine has lost it.
    dense = False

    @abstractmethod
    async def publish(self, name: str, fields: Mapping[str, str]) -> Order:
        """
        Add an entry to a channel, and let go of those that are too many or too old.

        It returns when the engine has the entry. Cancellation: the engine may have it.

        Raises:
            BrokerError: The engine has refused it, or cannot be reached.

        """

    @abstractmethod
    def read(self, name: str, after: Order | None) -> AsyncGenerator[Batch, None]:
        """
        Yield the entries of a channel, without end.

        Args:
            name: The channel. It need not exist yet.
            after: After which entry to begin. ``None``: with all that is kept, and the
                first batch tells what may be missing before it.

        Raises:
            BrokerError: The engine cannot be reached, or what it keeps is no channel.

        """

    @abstractmethod
    def write_id(self, order: Order) -> str:
        """
        Return the event ID of an entry.
        """

    @abstractmethod
    def read_id(self, event_id: str) -> Order | None:
        """
        Return where the entry with this ID stands; ``None`` if it is none.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """
        Let go of the engine.
        """
