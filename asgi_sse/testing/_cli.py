"""
The commands that check, record and replay event streams.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, TextIO, TypeVar

import anyio

from ._check import check_event_stream
from ._clock import autojump_backend
from ._http import Download, download
from ._probe import check_url
from ._record import replay as replaying
from ._record import write_chunk, write_end, write_start
from ._report import CheckFailed, Report

__all__ = ["check", "record", "replay"]

T = TypeVar("T")


def check(argv: Sequence[str]) -> int:
    """
    Check the endpoint of a running server, or an app in memory, and print the report.

    Args:
        argv: The arguments.

    Returns:
        0 if nothing failed, else 1.

    """
    parser = _parser("check", check)
    parser.add_argument(
        "target",
        help="the URL of an endpoint, or module:app for an app that is imported and checked "
        "in memory, with a clock that jumps",
    )
    parser.add_argument("--path", default="/", help="the endpoint of the app (default: /)")
    parser.add_argument(
        "--origin", metavar="URL", help="the same endpoint without the proxy, to compare"
    )
    parser.add_argument(
        "--watch", type=float, default=60.0, metavar="SECONDS", help="how long to look at it"
    )
    parser.add_argument(
        "--max-silence",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="after how much silence a proxy may cut the connection (default: 30)",
    )
    _add_request(parser)
    options = parser.parse_args(argv)
    if "://" in options.target:
        report = _run(
            parser,
            partial(
                check_url,
                options.target,
                origin=options.origin,
                headers=options.header,
                ssl_context=_ssl_context(options),
                watch=options.watch,
                max_silence=options.max_silence,
            ),
        )
    else:
        report = _run(
            parser,
            partial(_check_app, _import(parser, options.target), options),
            backend_options=autojump_backend("asyncio")[1],
        )
    _print(str(report))
    return int(report.failed)


async def _check_app(app: Any, options: argparse.Namespace) -> Report:
    try:
        return await check_event_stream(
            app,
            options.path,
            headers=options.header,
            watch=options.watch,
            max_silence=options.max_silence,
        )
    except CheckFailed as failure:
        return failure.report


def record(argv: Sequence[str]) -> int:
    """
    Write what a server sends, with its timing, into a file.

    Args:
        argv: The arguments.

    Returns:
        0 if something was recorded, else 1.

    """
    parser = _parser("record", record)
    parser.add_argument("url", help="the URL of the endpoint")
    parser.add_argument("file", help="the file to write")
    parser.add_argument(
        "--for", type=float, dest="seconds", metavar="SECONDS", help="stop after so long"
    )
    parser.add_argument("--events", type=int, metavar="COUNT", help="stop after so many events")
    _add_request(parser)
    options = parser.parse_args(argv)
    return _run(parser, partial(_record, options))


async def _record(options: argparse.Namespace) -> int:
    try:
        async with download(
            options.url, headers=options.header, ssl_context=_ssl_context(options)
        ) as stream:
            with _create(options.file) as file:
                await _write(stream, file, options.seconds, options.events or sys.maxsize)
    except OSError as error:
        _print(f"{options.url}: {str(error) or type(error).__name__}", sys.stderr)
        return 1
    _print(f"{len(stream.chunks)} chunks with {len(stream.events)} events in {options.file}")
    return 0


async def _write(stream: Download, file: TextIO, seconds: float | None, events: int) -> None:
    write_start(file, stream.status, [*stream.headers.items()])
    written = 0
    with anyio.move_on_after(seconds):
        while not stream.closed and len(stream.events) < events:
            await stream.wait_chunks(written + 1)
            for chunk in stream.chunks[written:]:
                write_chunk(file, chunk)
            written = len(stream.chunks)
    if not stream.closed:
        write_end(file, "stopped")
    else:
        write_end(file, "complete" if stream.complete else "cut")


def _create(path: str) -> TextIO:
    return open(path, "w", encoding="utf-8")


def replay(argv: Sequence[str]) -> int:
    """
    Serve what was recorded, to every client from the beginning.

    Args:
        argv: The arguments.

    Returns:
        0 after it was stopped.

    """
    parser = _parser("replay", replay)
    parser.add_argument("file", help="the file to read")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="how many times as fast (default: 1)"
    )
    parser.add_argument("--repeat", action="store_true", help="begin again at the end")
    parser.add_argument(
        "--bind", default="127.0.0.1:8000", metavar="HOST:PORT", help="where to listen"
    )
    options = parser.parse_args(argv)
    try:
        app = replaying(options.file, speed=options.speed, repeat=options.repeat)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        from hypercorn.asyncio import serve  # noqa: TID251 - this is a program
        from hypercorn.config import Config  # noqa: TID251
    except ImportError:
        parser.error("hypercorn is not installed; try: pip install 'asgi-sse[serve]'")

    config = Config()
    config.bind = [options.bind]
    config.graceful_timeout = 0.5
    return _run(parser, partial(_serve, partial(serve, app, config)))


async def _serve(serve: Callable[[], Awaitable[None]]) -> int:
    await serve()
    return 0


def _parser(name: str, command: Any) -> argparse.ArgumentParser:
    description = command.__doc__.strip().partition("\n")[0]
    return argparse.ArgumentParser(f"python -m asgi_sse {name}", description=description)


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--header",
        "-H",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="a header for the requests",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="trust any certificate of the server"
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError(f"a header must be like 'NAME: VALUE' (got {text!r})")
    return name.strip(), value.strip()


def _ssl_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.insecure:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _import(parser: argparse.ArgumentParser, target: str) -> Any:
    module, _, name = target.partition(":")
    # As servers do: the app is where the command is run.
    sys.path.insert(0, "")
    try:
        app: Any = import_module(module)
        for part in (name or "app").split("."):
            app = getattr(app, part)
    except (ImportError, AttributeError, ValueError) as error:
        parser.error(f"{target!r} is neither a URL nor the place of an app: {error}")
    return app


def _run(
    parser: argparse.ArgumentParser, function: Callable[[], Awaitable[T]], **options: Any
) -> T:
    try:
        return anyio.run(function, **options)
    except ValueError as error:
        parser.error(str(error))


def _print(text: str, file: Any = None) -> None:
    print(text, file=file)
