"""
Time that passes only when nothing else can happen.
"""

import asyncio  # noqa: TID251 - this is an event loop
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio.to_thread

__all__ = ["AutojumpLoop", "autojump_backend"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _AutojumpSelector(selectors.DefaultSelector):
    """
    A selector that, instead of waiting for time to pass, moves the clock.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0
        self.limiter: anyio.CapacityLimiter | None = None
        self._threshold = threshold

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without a timeout nothing is due: only a thread or a signal can go on.
        wait = timeout
        if timeout and not self._thread_works():
            wait = min(timeout, self._threshold)
        ready = super().select(wait)
        if not ready and timeout:
            self.now += timeout
        return ready

    def _thread_works(self) -> bool:
        return self.threads > 0 or (self.limiter is not None and self.limiter.borrowed_tokens > 0)


class AutojumpLoop(asyncio.SelectorEventLoop):
    """
    An asyncio event loop whose clock starts at 0 and jumps to what is due next.

    ``asyncio.Runner(loop_factory=AutojumpLoop)`` runs a program without waiting for
    anything, and in the same order every time. The clock stands still while a thread
    works for the loop (``anyio.to_thread``, ``run_in_executor``), but what is awaited
    from a socket is not waited for longer than the threshold.

    Args:
        threshold: Real seconds for which nothing must happen before the clock jumps.

    """

    def __init__(self, threshold: float = 0.0) -> None:
        self._clock = _AutojumpSelector(threshold)
        super().__init__(self._clock)

    def time(self) -> float:
        """
        Return the seconds that have passed, or rather have not.
        """
        # Frameworks call what is not async in one of anyio's threads. It counts them for
        # each event loop, and can be asked only in a task; where nothing has asked for
        # the time yet, nothing is due.
        if self._clock.limiter is None and asyncio.current_task(self) is not None:
            self._clock.limiter = anyio.to_thread.current_default_thread_limiter()
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """
        Call a function in a thread, while the clock stands still.
        """
        future = super().run_in_executor(executor, func, *args)
        self._clock.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncio has it
    ) -> None:
        """
        Wait for the threads of the loop, in their time.
        """
        # Python 3.12 gives them so many seconds, which here would be none.
        self._clock.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._clock.threads -= 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._clock.threads -= 1


def autojump_backend(name: str, threshold: float = 0.0) -> tuple[str, dict[str, Any]]:
    """
    Return what ``anyio.run()`` and the ``anyio_backend`` fixture need for such a clock.

    Args:
        name: ``"asyncio"`` or ``"trio"``.
        threshold: As for ``AutojumpLoop``. On trio it is also the time for which
            threads are waited for.

    Example:
        >>> anyio.run(anyio.sleep, 3600, backend="asyncio",
        ...           backend_options=autojump_backend("asyncio")[1])

    """
    if name == "trio":
        from trio.testing import MockClock  # noqa: TID251 - only if it is asked for

        return "trio", {"clock": MockClock(autojump_threshold=threshold)}
    return "asyncio", {"loop_factory": lambda: AutojumpLoop(threshold)}
