"""
Serving a site with hypercorn, until it is time to stop.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.abc import TaskGroup

from .._shutdown import drain
from .site import Receive, Send

if TYPE_CHECKING:
    from hypercorn.config import Config

__all__ = ["LONGEST_STOP", "ServeError", "Served", "serve"]

# Seconds for the streams to end when it is time to stop.
_GRACE = 1.5

#: After so many seconds, what has not ended yet will not end by itself.
LONGEST_STOP = 2.0


class ServeError(Exception):
    """
    It cannot be served, for the reason it tells.
    """


class Served(Protocol):
    """
    An ASGI application that can cancel its streams.
    """

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None: ...
    def close(self) -> None: ...


def serve(
    site: Served,
    listener: socket.socket,
    *,
    worker_class: str = "asyncio",
    certfile: str | None = None,
    keyfile: str | None = None,
    run: Callable[[], Coroutine[Any, Any, None]],
    stop: Callable[[], Awaitable[None]],
) -> None:
    """
    Serve until *stop* returns, then cancel what is open and come to an end.

    Args:
        site: The application.
        listener: A listening socket, which is closed in the end.
        worker_class: ``asyncio``, ``uvloop`` or ``trio``, as hypercorn calls them.
        certfile: A certificate. With it comes TLS, and with TLS HTTP/2.
        keyfile: The key of the certificate.
        run: What else is to be done, in the same event loop.
        stop: It returns when it is time to stop.

    Raises:
        ServeError: A package or a file is missing or not fit for use, or the
            application has refused to start.

    """
    backend = "trio" if worker_class == "trio" else "asyncio"
    with listener:
        for package in ("hypercorn", worker_class):
            try:
                import_module(package)
            except ImportError as error:
                raise ServeError(
                    f"{package} is not installed; try: pip install 'asgi-sse[serve]'"
                ) from error
        from hypercorn.utils import LifespanFailureError

        config = _configure(certfile, keyfile)
        # hypercorn makes a socket of its own from the number, and closes it.
        config.bind = [f"fd://{listener.detach()}"]

    stopped = anyio.Event()

    async def wait_stopped() -> None:
        await stop()
        with anyio.move_on_after(_GRACE):
            await drain()
        # The others: applications that have never heard of drain().
        site.close()
        stopped.set()

    # A task of its own, which is over when it has ended: on asyncio, hypercorn leaves a
    # cancellation of its own making behind in the task that calls it.
    async def serve_site(tasks: TaskGroup) -> None:
        server = import_module(f"hypercorn.{backend}")
        await server.serve(site, config, mode="asgi", shutdown_trigger=stopped.wait)
        tasks.cancel_scope.cancel()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            tasks.start_soon(wait_stopped)
            tasks.start_soon(serve_site, tasks)

    options = {"use_uvloop": True} if worker_class == "uvloop" else {}
    try:
        anyio.run(main, backend=backend, backend_options=options)
    except ExceptionGroup as group:
        refused = group.subgroup(LifespanFailureError)
        if refused is None:
            raise
        # hypercorn says "Lifespan failure in startup.", and then the reason in quotes.
        raise ServeError(str(_first(refused)).partition(". ")[2][1:-1]) from None


def _configure(certfile: str | None, keyfile: str | None) -> Config:
    from hypercorn.config import Config

    config = Config()
    # Connections that are still open then are cancelled with a traceback for each. Whoever
    # wants an end before that, ends the process.
    config.graceful_timeout = 10 * LONGEST_STOP
    # Below that, it greets, and warns of applications that know no lifespan.
    config.loglevel = "ERROR"
    config.certfile, config.keyfile = certfile, keyfile
    try:
        config.create_ssl_context()
    except OSError as error:
        raise ServeError(
            f"{certfile} and {keyfile} are no certificate and its key: {error}"
        ) from error
    return config


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
