"""
A server of two functions and a list, for what no server does that people use.

Whatever a real one does is better tested with ``asgi_sse.testing.connect()``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Literal

import anyio
import pytest
import trio

from asgi_sse._runtime import current_runtime
from asgi_sse.testing import autojump_backend

__all__ = ["NO_BODY", "Server", "count_tasks", "http_scope", "in_asyncio", "run", "stepping"]

ASGIApp = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
Message = dict[str, Any]

NO_BODY: Message = {"type": "http.request", "body": b"", "more_body": False}


def http_scope(method: str = "GET", **more: Any) -> dict[str, Any]:
    """
    Return what a server says of a request, and *more*.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": method,
        "path": "/",
        "query_string": b"",
        "headers": [],
        **more,
    }


class Server:
    """
    Calls an app once, and calls *step* whenever something happens.

    Args:
        messages: What ``receive()`` returns one by one; an exception is raised.
        after_disconnect: What ``send()`` does when the client has left.
        step: Called on both sides of every wait.

    """

    def __init__(
        self,
        *messages: Message | Exception,
        after_disconnect: Literal["ignore", "raise", "hang"] = "ignore",
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self.inbox = list(messages or [NO_BODY])
        self.sent: list[Message] = []
        self._after_disconnect = after_disconnect
        self._step = step
        self._disconnected = False
        self._leaving = anyio.Event()
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        self._step()
        # Where a message is at hand, servers do not let go.
        if not self.inbox:
            await self._leaving.wait()
            self._step()
            return {"type": "http.disconnect"}
        message = self.inbox.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message) -> None:
        self._step()
        await anyio.lowlevel.checkpoint()
        self._step()
        if not self._disconnected:
            self.sent.append(message)
        elif self._after_disconnect == "hang":
            await anyio.sleep_forever()
        elif self._after_disconnect == "raise":
            raise OSError("the client has left")

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def call(self, app: ASGIApp, scope: dict[str, Any] | None = None) -> None:
        """
        Return when the app does, or was cancelled.
        """
        with self._scope:
            if in_asyncio():
                # A task as servers make it, that can be cancelled without a scope.
                self._task = asyncio.create_task(app(scope or http_scope(), *self))
                await asyncio.wait([self._task])
                if not self._task.cancelled():
                    self._task.result()
            else:
                await app(scope or http_scope(), *self)

    def __iter__(self) -> Any:
        return iter((self.receive, self.send))

    def disconnect(self) -> None:
        self._disconnected = True
        self._leaving.set()

    def cancel(self) -> None:
        """
        Cancel the app, on asyncio once and without a scope.
        """
        if self._task is not None:
            self._task.cancel()
        else:
            self._scope.cancel()


@coroutine
def stepping(task: Awaitable[None], step: Callable[[], None]) -> Generator[Any, Any, None]:
    """
    Await *task*, and call *step* whenever it is about to wait.
    """
    inner = task.__await__()
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            trap = inner.send(answer) if error is None else inner.throw(error)
        except StopIteration:
            return
        step()
        answer = error = None
        try:
            answer = yield trap
        except BaseException as exc:  # noqa: BLE001 - it is passed on
            error = exc


# What was left alone cannot end well when it is collected: do it where nobody minds,
# and not whenever the garbage collector runs, in a test that is not to blame.
left_alone = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"
)


def in_asyncio() -> bool:
    return not trio.lowlevel.in_trio_run()


def run(name: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """
    Run an event loop of its own, with a clock that jumps, from its beginning to its end.
    """
    backend, options = autojump_backend(name)
    if backend == "trio":
        # anyio.run() passes no options to trio before anyio 4.12.
        return trio.run(function, **options)
    return anyio.run(function, backend=backend, backend_options=options)


async def count_tasks() -> int:
    """
    Return how many tasks there are, and raise if a stream is still known.
    """
    # Those that are over have to run once more.
    await current_runtime().turn()
    assert len(current_runtime().ticker) == 0
    if in_asyncio():
        return len(asyncio.all_tasks())
    return trio.lowlevel.current_statistics().tasks_living
