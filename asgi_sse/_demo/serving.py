"""
Serving a site as the arguments say: where, how, and until when.
"""

from __future__ import annotations

import os
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Coroutine
from threading import Timer
from typing import Any

from anyio.lowlevel import checkpoint

from .._options import Options, OptionTypes
from .hypercorn import LONGEST_STOP, Served, ServeError, serve
from .listen import listen, url_of
from .stop import wait_for_signal

__all__ = ["add_arguments", "listen_to", "read_options", "serve_site"]


def add_arguments(parser: ArgumentParser) -> None:
    """
    Let a command take the arguments that every command has that serves.
    """
    add = parser.add_argument
    add("--bind", metavar="HOST:PORT", default="127.0.0.1:8000", help="default: %(default)s")
    add("--worker-class", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    add("--certfile", metavar="FILE", help="a certificate; with it comes HTTP/2")
    add("--keyfile", metavar="FILE", help="the key of the certificate")
    add(
        "--keep-alive",
        metavar="SECONDS",
        type=float,
        help="send a comment after so much silence; 0: never",
    )
    add(
        "--retry",
        metavar="MILLISECONDS",
        type=int,
        help="how long clients wait before they reconnect",
    )


def read_options(parser: ArgumentParser, args: Namespace) -> OptionTypes:
    """
    Return the options of the stream.

    Raises:
        SystemExit: As argparse has it, when the arguments make no sense.

    """
    if (args.certfile is None) != (args.keyfile is None):
        parser.error("--certfile and --keyfile go together")
    options: OptionTypes = {}
    if args.keep_alive is not None:
        options["keep_alive"] = args.keep_alive or None
    if args.retry is not None:
        options["retry"] = args.retry
    try:
        Options(**options)
    except ValueError as error:
        parser.error(str(error))
    return options


def listen_to(args: Namespace) -> socket.socket:
    """
    Return the socket that the arguments ask for.

    Raises:
        ServeError: Nobody can listen there.

    """
    try:
        return listen(args.bind)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ServeError(f"cannot listen on {args.bind}: {reason}") from error


def serve_site(
    args: Namespace,
    listener: socket.socket,
    site: Served,
    *,
    greet: Callable[[str], str],
    run: Callable[[], Coroutine[Any, Any, None]],
    ready: Callable[[], Awaitable[None]] = checkpoint,
) -> None:
    """
    Serve until SIGINT or SIGTERM.

    Args:
        args: What :func:`add_arguments` has asked for.
        listener: It is closed in the end.
        site: The application.
        greet: From the URL, what to say.
        run: What else is to be done in the same event loop.
        ready: It returns when it is time to say so.

    Raises:
        ServeError: It cannot be served.

    """
    url = url_of(listener, "https" if args.certfile else "http")

    # Some connections cannot be ended: those of a client that takes nothing, above all.
    last_resort = Timer(LONGEST_STOP, os._exit, [0])
    last_resort.daemon = True

    async def greet_and_run() -> None:
        await ready()
        sys.stdout.write(f"{greet(url)}\n")
        # Whoever reads it from a pipe is waiting for it.
        sys.stdout.flush()
        await run()

    async def stop() -> None:
        await wait_for_signal()
        last_resort.start()

    try:
        serve(
            site,
            listener,
            worker_class=args.worker_class,
            certfile=args.certfile,
            keyfile=args.keyfile,
            run=greet_and_run,
            stop=stop,
        )
    finally:
        last_resort.cancel()
