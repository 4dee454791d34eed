"""
The command line: what to serve, where and how.
"""

from __future__ import annotations

import os
import platform
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Coroutine, Sequence
from threading import Timer
from typing import Any

import anyio

from .._options import Options, OptionTypes
from .._stream import EventStream
from .hypercorn import LONGEST_STOP, ServeError, serve
from .lines import Lines
from .listen import listen, url_of
from .site import App, Site
from .stop import wait_for_signal
from .target import TargetError, load_target
from .vitals import Vitals

__all__ = ["main"]

_PROG = "python -m asgi_sse"

_TARGETS = """\
TARGET is one of
  module:name  a generator function, an async iterable that can be iterated over
               anew, or an ASGI application; modules are looked for here first
  -            standard input: each line becomes an event for every client
  (nothing)    this machine's load, processor, memory, network and disks, every
               second

Other commands, each with a --help of its own: check, record, replay.
"""


def main(argv: Sequence[str]) -> int:
    """
    Serve what the arguments ask for, until SIGINT or SIGTERM.

    Args:
        argv: The arguments, without the name of the program.

    Returns:
        The exit status: 0 once it was told to stop, 2 if it could not begin.

    Raises:
        SystemExit: As argparse has it, for ``--help`` and for wrong arguments.

    """
    parser = _make_parser()
    args = parser.parse_args(argv)
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

    try:
        _serve(args, options)
    except (TargetError, ServeError) as error:
        sys.stderr.write(f"{_PROG}: {error}\n")
        return 2
    return 0


def _serve(args: Namespace, options: OptionTypes) -> None:
    stream, title, run = _choose(args.target, options)
    try:
        listener = listen(args.bind)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ServeError(f"cannot listen on {args.bind}: {reason}") from error
    url = url_of(listener, "https" if args.certfile else "http")

    # Some connections cannot be ended: those of a client that takes nothing, above all.
    last_resort = Timer(LONGEST_STOP, os._exit, [0])
    last_resort.daemon = True

    async def announce_and_run() -> None:
        _say(f"{title}: {url} (the stream alone: {url}events). Ctrl-C stops.")
        await run()

    async def stop() -> None:
        await wait_for_signal()
        last_resort.start()

    try:
        serve(
            Site(stream, title),
            listener,
            worker_class=args.worker_class,
            certfile=args.certfile,
            keyfile=args.keyfile,
            run=announce_and_run,
            stop=stop,
        )
    finally:
        last_resort.cancel()


def _choose(
    target: str | None, options: OptionTypes
) -> tuple[App, str, Callable[[], Coroutine[Any, Any, None]]]:
    """
    Return the stream, its title, and what has to run for it.
    """
    if target is None:
        vitals = Vitals()
        return EventStream(vitals.events, **options), f"Vitals of {platform.node()}", vitals.run
    if target == "-":
        lines = Lines(0, _end_of_input)
        return EventStream(lines.events, **options), "Standard input", lines.run
    return load_target(target, **options), target, anyio.sleep_forever


def _end_of_input(count: int) -> None:
    sys.stderr.write(f"{_PROG}: end of input after {count} lines; the last stay to be read\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    # Whoever reads it from a pipe is waiting for it.
    sys.stdout.flush()


def _make_parser() -> ArgumentParser:
    parser = ArgumentParser(
        _PROG,
        description="Serve an event stream with hypercorn: the stream at /events, "
        "and at / a page that shows it live.",
        epilog=_TARGETS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("target", nargs="?", metavar="TARGET", help="what to serve, see below")
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
    return parser
