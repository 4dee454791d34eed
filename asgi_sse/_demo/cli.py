"""
The command line: what to serve.
"""

from __future__ import annotations

import platform
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio

from .._options import OptionTypes
from .._stream import EventStream
from .hypercorn import ServeError
from .lines import Lines
from .serving import add_arguments, listen_to, read_options, serve_site
from .site import App, Site
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

Other commands, each with a --help of its own: channel, check, record, replay.
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
    options = read_options(parser, args)
    try:
        stream, title, run = _choose(args.target, options)
        serve_site(
            args,
            listen_to(args),
            Site(stream, title),
            greet=lambda url: f"{title}: {url} (the stream alone: {url}events). Ctrl-C stops.",
            run=run,
        )
    except (TargetError, ServeError) as error:
        sys.stderr.write(f"{_PROG}: {error}\n")
        return 2
    return 0


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


def _make_parser() -> ArgumentParser:
    parser = ArgumentParser(
        _PROG,
        description="Serve an event stream with hypercorn: the stream at /events, "
        "and at / a page that shows it live.",
        epilog=_TARGETS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="?", metavar="TARGET", help="what to serve, see below")
    add_arguments(parser)
    return parser
