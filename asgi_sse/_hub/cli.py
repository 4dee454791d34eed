"""
The command line: which channels, on which engine, for whom.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

import anyio

from .._demo.hypercorn import ServeError
from .._demo.serving import add_arguments, listen_to, read_options, serve_site
from ..channels import Broker
from .door import Door, is_loopback
from .hub import Hub

__all__ = ["main"]

_PROG = "python -m asgi_sse channel"
_TOKEN = "ASGI_SSE_TOKEN"
_BROKER = "ASGI_SSE_BROKER"

_PATHS = """\
GET /events               subscribes to every NAME
GET /events?channel=NAME  to one, or to several: &channel=NAME
POST /publish/NAME        publishes the body, and answers with the event ID;
                          ?event=TYPE, or a header Event-Type, gives it a type
GET /                     a page that shows them live

  curl -N http://127.0.0.1:8000/events
  curl -d hello http://127.0.0.1:8000/publish/NAME

URL is memory:// (nothing is kept when the hub stops; the default), redis://...,
rediss://..., unix://... or nats://... In memory and in NATS a NAME may have
wildcards: 'news.*' is every channel like news.sports, 'news.>' also those like
news.sports.chess.
"""


def main(argv: Sequence[str]) -> int:
    """
    Serve channels, until SIGINT or SIGTERM.

    Args:
        argv: The arguments, without the name of the command.

    Returns:
        The exit status: 0 once it was told to stop, 2 if it could not begin.

    Raises:
        SystemExit: As argparse has it, for ``--help`` and for wrong arguments.

    """
    parser = _make_parser()
    args = parser.parse_args(argv)
    options = read_options(parser, args)
    token = os.environ.get(_TOKEN) if args.token is None else args.token
    if token is not None and not (token.isascii() and token.isprintable() and token):
        parser.error("--token must be printable ASCII, and not empty")
    # Those of what a publisher shows are no part of it.
    if token is not None and token != token.strip(" "):
        parser.error("--token must not begin or end with a space")
    url = os.environ.get(_BROKER, "memory://") if args.broker is None else args.broker
    try:
        broker = Broker(url, history=args.history, max_age=args.max_age)
        hub = Hub(broker, args.names, Door(token), **options)
    except ValueError as error:
        parser.error(str(error))
    try:
        listener = listen_to(args)
        if token is None and not is_loopback(listener.getsockname()[0]):
            listener.close()
            raise ServeError(
                f"others can reach {args.bind}, and might publish: give a --token, or {_TOKEN}"
            )
        serve_site(
            args,
            listener,
            hub,
            greet=lambda url: (
                f"{hub.title}: {url} (the stream alone: {url}events; "
                f"to publish: POST {url}publish/NAME). Ctrl-C stops."
            ),
            run=anyio.sleep_forever,
            ready=hub.wait_opened,
        )
    except ServeError as error:
        sys.stderr.write(f"{_PROG}: {error}\n")
        return 2
    return 0


def _make_parser() -> ArgumentParser:
    parser = ArgumentParser(
        _PROG,
        description="Serve channels with hypercorn, to subscribe and to publish over HTTP.",
        epilog=_PATHS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="a channel, or several by a wildcard")
    add(
        "--broker",
        metavar="URL",
        help=f"the engine; with a password better in the environment variable {_BROKER}, which "
        "others on this machine do not see; default: memory://",
    )
    add(
        "--token",
        metavar="TOKEN",
        help=f"what publishers must show; better in the environment variable {_TOKEN}, which "
        "others on this machine do not see; needed only if others can reach the hub",
    )
    add(
        "--history",
        metavar="COUNT",
        type=int,
        default=1000,
        help="events that are kept of each channel; default: %(default)s",
    )
    add("--max-age", metavar="SECONDS", type=float, help="how long an event is kept")
    add_arguments(parser)
    return parser
