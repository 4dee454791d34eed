"""
Learning that the server is stopping.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Hashable
from types import FrameType
from typing import Any
from weakref import WeakSet

from ._runtime import Entry, Runtime, Task
from ._servers import Stop, find_stops, owners, says_it_only_once

logger = logging.getLogger("asgi_sse")

#: Set this environment variable to ``0`` to leave signals and servers alone.
SWITCH = "ASGI_SSE_WATCH_SHUTDOWN"

# How often a server is asked that can only be asked, in seconds.
_POLL = 0.1

# So many handlers of ours for one signal, one below the other, and no more, if another
# library hides each of them so well that it seems to be gone.
_MOST_CHAINS = 4

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK")
    if hasattr(signal, name)
]


class Watcher:
    """
    Calls back when the server stops, as long as anybody wants to know.

    No server tells an application. What can be done is to be called before
    the server's own signal handler, and to look at objects of the server's.
    With the last one that leaves everything is as it was before, unless it
    would miss what is said only once.

    Args:
        runtime: The event loop in which it calls back.
        on_stop: What it calls.
        stays: It is the event loop's own, there for as long as that runs, and
            may stay where it is told what is said only once.

    """

    def __init__(
        self, runtime: Runtime, on_stop: Callable[[], None], *, stays: bool = False
    ) -> None:
        self._runtime = runtime
        self._on_stop = on_stop
        self._stays = stays
        self._users = 0
        # For each signal the handler that is known to call ours, and one that does not:
        # looking through it costs a tenth of a millisecond.
        self._handlers: dict[int, Any] = {}
        self._bare: dict[int, Any] = {}
        self._chains: list[_Chain] = []
        self._made: WeakSet[_Chain] = WeakSet()
        # By the address of the server; those that are asked, and those that have said so.
        self._stops: dict[Hashable, list[Stop]] = {}
        self._asked: list[Stop] = []
        self._poll: Entry | None = None
        self._tasks: dict[Any, Task] = {}

    def enter(self, watch: bool | Callable[[], Awaitable[Any]]) -> None:
        """
        Watch for one user more: signals, or what returns when the server stops.
        """
        self._users += 1
        if callable(watch):
            self._wait_for(watch)
        # Each time, because a server may install its handlers late, or a second one anew.
        elif (
            watch
            and threading.current_thread() is threading.main_thread()
            and not _is_switched_off()
        ):
            for number in _SIGNALS:
                self._chain(number)

    def leave(self) -> None:
        """
        Watch for one user less.
        """
        self._users -= 1
        if self._users == 0:
            for task in self._tasks.values():
                task.cancel()
            if self._poll is not None:
                self._runtime.ticker.discard(self._poll)
                self._poll = None
            for kept in (self._stops, self._asked, self._tasks):
                kept.clear()
            if not (self._stays and says_it_only_once()):
                for chain in self._chains:
                    chain.remove(self._call_soon)
                self._chains.clear()
                self._handlers.clear()

    def is_stopping(self, address: Hashable, send: Callable[..., Any]) -> bool | None:
        """
        Whether the server behind *send* is stopping; ``None`` if it cannot be asked.

        From now on it is watched too. Its address is what it is known by, so
        that it is looked for only once. If it may be one of several, all of
        them are watched, and none can be asked.
        """
        if _is_switched_off():
            return None
        if address not in self._stops:
            self._stops[address] = self._find(address, send)
        stops = self._stops[address]
        return stops[0].is_set() if len(stops) == 1 else None

    def _find(self, address: Hashable, send: Callable[..., Any]) -> list[Stop]:
        try:
            stops = find_stops(address, send, self._runtime)
        except Exception:
            # A server of tomorrow, or middleware that nobody has thought of.
            logger.warning("The server cannot be asked whether it stops", exc_info=True)
            return []
        known = {stop for stops in self._stops.values() for stop in stops}
        for stop in stops:
            if stop in known or stop.is_set():
                continue
            if stop.wait is not None:
                self._wait_for(stop.wait)
            else:
                self._asked.append(stop)
                if self._poll is None:
                    now = self._runtime.now()
                    self._poll = self._runtime.ticker.add(now + _POLL, self._ask)
        return stops

    def _ask(self, now: float) -> float:
        # Once for each: another server may live on in this event loop.
        if stopping := [stop for stop in self._asked if stop.is_set()]:
            self._asked = [stop for stop in self._asked if stop not in stopping]
            self._on_stop()
        return now + _POLL

    def _wait_for(self, wait: Callable[[], Awaitable[Any]]) -> None:
        async def watch() -> None:
            try:
                await wait()
                # If it is called again, it says again what it has to say.
                self._tasks.pop(wait, None)
                self._on_stop()
            except Exception:
                logger.exception("%r, which should tell when the server stops, raised", wait)

        if wait not in self._tasks:
            self._tasks[wait] = self._runtime.spawn(watch, "asgi_sse shutdown watcher")

    def _chain(self, number: signal.Signals) -> None:
        handler: Any = signal.getsignal(number)
        # With SIG_DFL or SIG_IGN there is no server to learn from, and a handler over
        # them would change what the signal does. Python's own is no server either.
        if (
            handler is self._handlers.get(number)
            or not callable(handler)
            or handler is signal.default_int_handler
        ):
            return
        found = []
        if handler is not self._bare.get(number):
            # It may be there already, below what somebody else has put over it.
            found = [
                owner
                for owner in owners(handler, everywhere=True)
                if isinstance(owner, _Chain) and owner.number == number
            ][:1]
        if not found:
            self._bare[number] = handler
            found = [chain for chain in self._made if chain.number == number]
            if len(found) < _MOST_CHAINS:
                handler = _Chain(number, handler)
                self._made.add(handler)
                found = [handler]
        self._handlers[number] = handler
        self._chains += [chain for chain in found if chain.add(self._call_soon)]

    def _call_soon(self) -> None:
        self._runtime.call_soon_threadsafe(self._on_stop)


def _is_switched_off() -> bool:
    return os.environ.get(SWITCH) == "0"


class _Chain:
    """
    A signal handler that tells watchers, and then calls the handler before it.

    Not the event loop's ``add_signal_handler()``: that would replace what the
    server has added there, and the server would never stop.
    """

    def __init__(self, number: signal.Signals, previous: Callable[..., Any]) -> None:
        self.number = number
        self._previous = previous
        self._watchers: list[Callable[[], None]] = []
        self._install(self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            for tell in tuple(self._watchers):
                tell()
        finally:
            self._previous(number, frame)

    def add(self, tell: Callable[[], None]) -> bool:
        """
        Tell one watcher more, and return whether it is new here.
        """
        new = tell not in self._watchers
        if new:
            self._watchers.append(tell)
        return new

    def remove(self, tell: Callable[[], None]) -> None:
        """
        Tell one watcher less; without any, the handler before this one is back.
        """
        self._watchers.remove(tell)
        # If somebody has put theirs over it, or the server has taken it away, leave it.
        handler: object = signal.getsignal(self.number)
        if not self._watchers and handler is self:
            self._install(self._previous)

    def _install(self, handler: Callable[..., Any]) -> None:
        signal.signal(self.number, handler)
        if hasattr(signal, "siginterrupt"):
            # As asyncio has it: system calls go on after the handler.
            signal.siginterrupt(self.number, False)
