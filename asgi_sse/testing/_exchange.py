"""
One request and its response, seen from the server's side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ._headers import Headers
from ._temper import Temper

__all__ = ["ASGIApp", "Chunk", "ClientDisconnected", "Exchange", "Message"]

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

# So many sends without any other task having run: the event loop is stuck.
_BUSY = 10_000

# RFC 9110, 7.6.1 and RFC 9113, 8.2.2: meant for one connection, not for the response.
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


class Chunk(NamedTuple):
    """
    What the client received at once, and when: in seconds since the request.
    """

    time: float
    body: bytes


class ClientDisconnected(OSError):
    """
    What ``send()`` raises on a server that tells in this way that the client has left.
    """


class Exchange:
    """
    One call of an app with a request.

    Args:
        app: The app to call.
        scope: What it is called with.
        body: The body of the request. An iterator is a slow upload.
        temper: What the server does where ASGI leaves it open.
        on_chunk: Called with each chunk as the client receives it.

    """

    def __init__(
        self,
        app: ASGIApp,
        scope: dict[str, Any],
        body: bytes | AsyncIterable[bytes],
        temper: Temper,
        on_chunk: Callable[[bytes], None],
    ) -> None:
        self._app = app
        self._scope = scope
        self._body = body
        self._temper = temper
        self._on_chunk = on_chunk
        self._began = anyio.current_time()

        #: The response so far.
        self.status: int | None = None
        self.headers = Headers([])
        self.opened: float | None = None
        self.chunks: list[Chunk] = []
        self.messages: list[Message] = []
        self.complete = False
        #: What the app did that ASGI or HTTP forbids.
        self.problems: list[str] = []

        #: A send() waits for the client to read.
        self.blocked = False
        #: The client has left.
        self.disconnected = False
        #: The call of the app is over, with this error.
        self.closed = False
        self.error: BaseException | None = None

        self._changed = anyio.Event()
        self._inbox: deque[Message] = deque()
        self._told = False
        self._receiving = 0
        self._interrupted = False
        self._sending = 0
        self._busy = 0
        # What the server takes for a client that does not read: bytes left, bodies held.
        self._room: int | None = None
        self._held: list[bytes] = []
        self._cancel_scope = anyio.CancelScope()
        self._task: Any = None
        self._cancelled = False
        self._released = False

    # The client's side.

    def start(self, tasks: TaskGroup) -> None:
        """
        Call the app in a task of its own.
        """
        self._tasks = tasks
        if isinstance(self._body, bytes):
            self._inbox.append(_request(self._body, more_body=False))
        else:
            tasks.start_soon(self._upload, self._body)
        tasks.start_soon(self._run, name=f"app {self._scope['path']}")

    async def wait(self, ready: Callable[[], bool]) -> None:
        """
        Wait until something is true that only the app's messages or its end change.
        """
        while not ready():
            await self._changed.wait()

    def disconnect(self) -> None:
        """
        Let the client leave. What it has not read is lost.
        """
        self.disconnected = True
        self._held.clear()
        self._notify()

    def stall(self, room: int) -> None:
        """
        Let the client stop reading; the server takes so many more bytes for it.
        """
        self._room = room

    def resume(self) -> None:
        """
        Let the client read again.
        """
        self._room = None
        held, self._held = self._held, []
        for body in held:
            self._deliver(body)
        self._notify()

    def cancel(self) -> None:
        """
        Cancel the app as a server would.
        """
        self._cancelled = True
        if self._task is None:
            self._cancel_scope.cancel()
        else:
            # Once, as servers do on asyncio. A cancel scope would cancel again and
            # again whatever the app awaits in its ``finally``.
            self._task.cancel()

    def abandon(self) -> None:
        """
        End the app by all means there are.
        """
        self._released = True
        self._cancelled = True
        self._cancel_scope.cancel()
        self._notify()

    def time(self) -> float:
        """
        Return the seconds since the request.
        """
        # Sums of floats would be 0.30000000000000004, and no one would guess it.
        return round(anyio.current_time() - self._began, 6)

    # The app's side.

    async def _run(self) -> None:
        self._task = _asyncio_task()
        try:
            with self._cancel_scope:
                await self._app(self._scope, self._receive, self._send)
        except anyio.get_cancelled_exc_class() as error:
            if not self._cancelled:
                self.error = error
                raise
        except BaseException as error:  # noqa: BLE001 - the test decides what it means
            self.error = error
        finally:
            self.closed = True
            self._notify()

    async def _upload(self, body: AsyncIterable[bytes]) -> None:
        async for part in body:
            self._inbox.append(_request(part, more_body=True))
            self._notify()
        self._inbox.append(_request(b"", more_body=False))
        self._notify()

    async def _receive(self) -> Message:
        if self._receiving:
            self._problem("receive() was called while another receive() was waiting")
        if self._told:
            self._problem("receive() was called again after the disconnect")
            if not self._temper.repeats_disconnect:
                await self._never()
        if self._interrupted:
            # gunicorn's worker takes this for a client that has left.
            self._problem("receive() was called again after it had been cancelled")
        self._receiving += 1
        try:
            await self.wait(lambda: bool(self._inbox or self.disconnected or self.complete))
        except anyio.get_cancelled_exc_class():
            self._interrupted = True
            raise
        finally:
            self._receiving -= 1
        if self._inbox and not self.disconnected:
            return self._inbox.popleft()
        self._told = self.disconnected
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._sending:
            self._problem("send() was called while another send() was waiting")
        self._sending += 1
        try:
            await self._turn()
            kind = message["type"]
            if kind == "http.response.start":
                await self._start(message)
            elif kind == "http.response.body":
                await self._continue(message)
            else:
                raise RuntimeError(f"unexpected message type {kind!r}")
        finally:
            self._sending -= 1

    async def _start(self, message: Message) -> None:
        if self.status is not None:
            raise RuntimeError("http.response.start was sent a second time")
        headers = [(name, value) for name, value in message.get("headers", ())]
        for name, value in headers:
            if not (isinstance(name, bytes) and isinstance(value, bytes)):
                raise TypeError(f"header names and values must be bytes (got {name!r}: {value!r})")
            if name != name.lower():
                self._problem(f"header names must be in lower case (got {name!r})")
            if name.decode("latin-1").lower() in _HOP_BY_HOP:
                self._problem(f"header {name.decode('latin-1')} is forbidden in HTTP/2 and 3")
        if self.disconnected:
            await self._send_to_nobody()
            return
        self.messages.append(message)
        self.status = message["status"]
        self.headers = Headers(headers)
        self.opened = self.time()
        self._notify()

    async def _continue(self, message: Message) -> None:
        if self.disconnected:
            await self._send_to_nobody()
            return
        if self.status is None:
            raise RuntimeError("http.response.body was sent before http.response.start")
        if self.complete:
            raise RuntimeError("http.response.body was sent after the final one")
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            # daphne refuses anything else, and granian drops it without a word.
            raise TypeError(f"body must be bytes (got {type(body).__name__})")
        if body and self._scope["method"] == "HEAD":
            self._problem("a body was sent in answer to HEAD")
            body = b""
        if body and self._room is not None:
            self.blocked = not self._fits(body)
            self._notify()
            try:
                await self._wait_for_room(body)
            finally:
                self.blocked = False
            if self.disconnected:
                await self._send_to_nobody()
                return
        self.messages.append(message)
        self.complete = not message.get("more_body", False)
        if body:
            if self._room is None:
                self._deliver(body)
            else:
                self._room -= len(body)
                self._held.append(body)
        self._notify()

    async def _wait_for_room(self, body: bytes) -> None:
        def ready() -> bool:
            return self._fits(body) or self.disconnected or self._released

        shields = self._temper.shields_send
        cancelled = False
        with anyio.CancelScope(shield=shields):
            while not ready():
                try:
                    await self.wait(ready)
                except anyio.get_cancelled_exc_class():
                    if not shields:
                        raise
                    # asyncio's own, which no shield keeps out.
                    cancelled = True
        if cancelled:
            raise anyio.get_cancelled_exc_class()

    async def _send_to_nobody(self) -> None:
        if self._temper.after_disconnect == "raise" or self._released:
            raise ClientDisconnected("the client has disconnected")
        if self._temper.after_disconnect == "hang":
            await self._never()

    def _fits(self, body: bytes) -> bool:
        return self._room is None or len(body) <= self._room

    async def _never(self) -> None:
        await self.wait(lambda: self._released)
        raise ClientDisconnected("the client has disconnected")

    async def _turn(self) -> None:
        if self._temper.send_yields:
            await checkpoint()
            return
        if not self._busy:
            self._tasks.start_soon(self._rest)
        self._busy += 1
        if self._busy > _BUSY:
            message = f"send() was called {_BUSY} times in a row, and no other task could run"
            self._problem(message)
            raise RuntimeError(message)

    async def _rest(self) -> None:
        self._busy = 0

    def _deliver(self, body: bytes) -> None:
        self.chunks.append(Chunk(self.time(), body))
        self._on_chunk(body)

    def _problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


def _request(body: bytes, more_body: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more_body}


def _asyncio_task() -> Any:
    """
    Return the running task, on asyncio.
    """
    import asyncio  # noqa: TID251 - anyio has no way to cancel a task once

    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.current_task()
    return None
