"""
Whatever may be wrapped becomes one async iterator, closed well.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import Any, Protocol, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from ._request import Request

T = TypeVar("T")


class Feed(Protocol):
    """
    A source that hands over blocks itself, and needs no task to drive it.

    A channel's subscription is one: it reads a log that others write. None of
    its methods waits.
    """

    #: Whether nothing will ever come again, once :meth:`take` has given nothing.
    over: bool

    def attach(self, wake: Callable[[], None]) -> None:
        """
        Begin, and call *wake* whenever there is something to take, or it is over.
        """

    def take(self) -> tuple[int, bytes, bool]:
        """
        Return how many events are pending, their blocks, and whether to take again at once.

        Nothing is ``b""``. Unless it is to be taken again, *wake* will be called.
        """

    def detach(self) -> None:
        """
        Let go: the response has ended, and *wake* is not to be called again.
        """


class Source:
    """
    What an event stream is made of, checked when the app is made.

    Args:
        source: What :class:`~asgi_sse.EventStream` takes.

    Raises:
        TypeError: It is none of the things that can be a source.

    """

    __slots__ = ("_call", "_source", "_spent", "name")

    #: What to call it in an error: the qualified name of the function or of the type.
    name: str

    def __init__(self, source: Any) -> None:
        function = source
        while isinstance(function, partial):
            function = function.func
        named = function if hasattr(function, "__qualname__") else type(function)
        # A generator knows the name of its function, but not where that is from.
        module = getattr(named, "__module__", None)
        self.name = f"{module}.{named.__qualname__}" if module else named.__qualname__
        self._source = source
        self._call: Callable[[Request], Any]
        # An iterator serves one response: after it, it has nothing left to give.
        self._spent = False
        if isinstance(source, type):
            self._call = self._function(source)
        elif hasattr(source, "subscribe"):
            self._call = lambda request: source.subscribe(request.last_event_id)
        elif not _is_iterable(source):
            self._call = self._function(source)
        elif hasattr(source, "__anext__") or hasattr(source, "__next__"):
            self._call = self._iterate_once
        else:
            self._call = lambda request: source

    def _function(self, function: Any) -> Callable[[Request], Any]:
        if inspect.iscoroutine(function):
            function.close()
            raise TypeError(
                f"source must be a function or an async iterable (got {function!r}). "
                "Did you forget to pass the function itself, without calling it?"
            )
        if not callable(function):
            raise TypeError(f"source must be a function or an async iterable (got {function!r})")
        if _takes_request(function, self.name):
            call: Callable[[Request], Any] = function
            return call
        return lambda request: function()

    def _iterate_once(self, request: Request) -> Any:
        if self._spent:
            raise RuntimeError(
                f"{self.name} is one iterator, and has already been sent to a client. "
                "Pass the function that makes it, and each request gets its own"
            )
        self._spent = True
        return self._source

    async def call(self, request: Request) -> Any:
        """
        Return what is to be streamed for one request.

        This is the setup phase: a coroutine function is awaited, and what it
        raises comes out. If it is a context manager, enter it and stay in it
        while you iterate over what it gives.

        Raises:
            RuntimeError: The source was one iterator, and is spent.

        """
        result = self._call(request)
        # A connection pool's acquire() can be awaited, or entered; that gives it back, too.
        if inspect.isawaitable(result) and not is_context_manager(result):
            return await result
        return result

    def iterate(self, iterable: Any, threads: CapacityLimiter) -> AsyncIterator[Any]:
        """
        Return the async iterator of what :meth:`call` has returned.

        Raises:
            TypeError: It cannot be iterated over.

        """
        if hasattr(iterable, "__aiter__"):
            return aiter(iterable)
        if isinstance(iterable, list | tuple | set | frozenset | range):
            return _at_once(iterable)
        if _is_iterable(iterable):
            # Its steps may take their time: a generator that sleeps, a database's rows.
            return _in_threads(iterable, threads)
        raise TypeError(
            f"{self.name} must give something to iterate over (got {iterable!r:.100}). "
            "Did you forget to yield?"
        )


def is_feed(value: Any) -> bool:
    """
    Whether the engine can take blocks from it without a task.
    """
    return hasattr(value, "attach") and hasattr(value, "take") and hasattr(value, "detach")


def is_context_manager(value: Any) -> bool:
    """
    Whether the iterable has to be got from it with ``async with``.
    """
    return hasattr(value, "__aenter__") and hasattr(value, "__aexit__")


def _is_iterable(value: Any) -> bool:
    """
    Whether it gives items one by one; text and mappings are single items.
    """
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping):
        return False
    return hasattr(value, "__aiter__") or hasattr(value, "__iter__")


if sys.version_info >= (3, 14):  # pragma: no cover - not in the coverage run's Python

    def _signature(function: Callable[..., Any]) -> inspect.Signature:
        from annotationlib import Format

        # What an annotation names may be imported for type checkers only.
        return inspect.signature(function, annotation_format=Format.FORWARDREF)

else:
    _signature = inspect.signature


def _takes_request(function: Callable[..., Any], name: str) -> bool:
    """
    Whether a function is to be called with the request, or with nothing.
    """
    try:
        signature = _signature(function)
    except (TypeError, ValueError):  # Some that are written in C do not tell.
        return False
    parameters = signature.parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if len(required) > 1 or any(
        p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters
    ):
        raise TypeError(
            f"source must be callable with the request or with nothing (got {name}{signature})"
        )
    return (
        bool(required)
        or any(p.kind is p.VAR_POSITIONAL for p in parameters)
        or (bool(positional) and positional[0].name == "request")
    )


async def _at_once(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


_END: Any = object()


async def _in_threads(iterable: Iterable[T], threads: CapacityLimiter) -> AsyncIterator[T]:
    """
    Iterate over a synchronous iterable in worker threads, one step at a time.

    Every step runs in the same context, so that its context variables keep
    what it sets. A step cannot be interrupted: when the stream ends during
    one, it is closed after that step.
    """
    context = copy_context()
    one_at_a_time = Lock()

    def run(step: Callable[..., Any], *args: Any) -> Any:
        with one_at_a_time:
            return context.run(step, *args)

    async def in_thread(step: Callable[..., Any], *args: Any) -> Any:
        return await run_sync(run, step, *args, abandon_on_cancel=True, limiter=threads)

    iterator = await in_thread(iter, iterable)
    try:
        while (item := await in_thread(next, iterator, _END)) is not _END:
            yield item
    finally:
        if hasattr(iterator, "close"):
            await in_thread(iterator.close)
