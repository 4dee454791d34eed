"""
Stopping hypercorn with a goodbye where it leaves no time for one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from anyio import CancelScope, move_on_after, sleep_forever

from ._runtime import current_runtime
from ._servers import find_hypercorn
from ._shutdown import current_open_streams

if TYPE_CHECKING:
    from hypercorn.config import Config

__all__ = ["heed_signals", "serve"]

# Wide, so that every framework's own types fit.
_App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]


async def serve(
    app: Any,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[Any]] | None = None,
    mode: Literal["asgi", "wsgi"] | None = None,
) -> None:
    """
    Serve an application with hypercorn, and say goodbye on every stream before it stops.

    Like ``hypercorn.asyncio.serve()`` and ``hypercorn.trio.serve()``, for the
    event loop that runs. At SIGINT or SIGTERM (in the main thread), or when
    *shutdown_trigger* returns, all streams are drained while hypercorn still
    serves, for ``config.graceful_timeout`` seconds at most; those that have not
    ended then are closed. Only then hypercorn is told to stop. A second SIGINT
    goes to whoever handled it before.

    Cancellation: hypercorn stops at once, and gives what is open its
    ``graceful_timeout``.

    Args:
        app: The application.
        config: hypercorn's configuration.
        shutdown_trigger: When it returns it is time to stop.
        mode: As hypercorn has it; left out, it looks for itself.

    Raises:
        ImportError: hypercorn is not installed.
        ExceptionGroup: *shutdown_trigger* raised.

    """
    backend = current_runtime().backend
    try:
        server = import_module(f"hypercorn.{backend}")
    except ImportError as error:
        raise ImportError(
            "serve() needs hypercorn (pip install 'asgi-sse[serve]')", name="hypercorn"
        ) from error
    waiting = CancelScope()

    async def stop() -> None:
        with waiting:
            await (shutdown_trigger or sleep_forever)()
        streams = current_open_streams()
        with move_on_after(config.graceful_timeout) as drained:
            await streams.drain()
        if drained.cancelled_caught:
            await streams.drain(grace=0.0, finish=False)

    with _on_signal(waiting.cancel):
        await server.serve(app, config, shutdown_trigger=stop, mode=mode)


@contextmanager
def _on_signal(function: Callable[[], None]) -> Iterator[None]:
    """
    Call a function in the event loop when the process is told to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    call_soon = current_runtime().call_soon_threadsafe
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        before: Any = previous[number]
        if interrupted and number == signal.SIGINT and callable(before):
            before(number, frame)
        interrupted = interrupted or number == signal.SIGINT
        call_soon(function)

    # Not the event loop's own handlers, which do not give back those before them.
    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def heed_signals(app: _App) -> _App:
    """
    Let a worker of hypercorn stop gracefully at signals that else would cut it off.

    The command ``hypercorn`` leaves SIGTERM alone in its workers. It kills them
    when it is sent to all processes of a group (as systemd does by default),
    when the first of several workers has ended (hypercorn itself sends it to
    the others), and with ``--workers 0 --worker-class trio``. There SIGINT is
    no better: trio raises it in whatever task is running.

    With this around the application, a worker that has had a request stops at
    SIGTERM as it does for ``--max-requests``, and takes no notice of further
    ones; a second SIGINT is trio's again. Without hypercorn, or if SIGTERM is
    handled already, nothing changes.

    Args:
        app: The application.

    Returns:
        The application that hypercorn is to serve.

    Example:
        >>> from asgi_sse import EventStream
        >>> app = heed_signals(EventStream(range(3)))

    """

    async def heedful(scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] != "lifespan"
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            context = find_hypercorn(send)
            if context is not None:
                _terminate_at_signals(context)
        await app(scope, receive, send)

    return heedful


def _terminate_at_signals(context: Any) -> None:
    runtime = current_runtime()
    name = "asgi_sse signals"
    interrupted = False

    def terminate() -> None:
        # As hypercorn itself does when it has answered as many requests as it should.
        runtime.spawn(context.terminate.set, name)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted and number == signal.SIGINT:
            before[number](number, frame)
        interrupted = interrupted or number == signal.SIGINT
        runtime.call_soon_threadsafe(terminate)

    async def restore() -> None:
        try:
            await sleep_forever()
        finally:
            # The event loop ends.
            for number, handler in before.items():
                if signal.getsignal(number) is handle:
                    signal.signal(number, handler)

    before: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL}
    interrupt: Any = signal.getsignal(signal.SIGINT)
    if runtime.backend == "trio" and callable(interrupt):
        before[signal.SIGINT] = interrupt
    for number in before:
        signal.signal(number, handle)
    runtime.spawn(restore, name)
