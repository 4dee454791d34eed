"""
The lines of a file descriptor as events, until it ends.
"""

from __future__ import annotations

import codecs
import os
import select
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from threading import Thread

import anyio
from anyio.from_thread import run_sync
from anyio.lowlevel import current_token

from .._event import ServerSentEvent
from .._request import Request
from .fanout import Fanout

__all__ = ["Lines"]

_KEPT = 1000
# A longer one becomes several events, so that input without a line end (a disk image,
# say) is not gathered in memory.
_LONGEST = 1_048_576


class Lines:
    """
    One reader of a file descriptor, and the streams of all who watch.

    The reader never waits for a client. One that is new gets the last 1000 lines
    first, as far as 4 MiB hold them; one that reconnects, what it missed of these.

    Args:
        fd: The file descriptor, 0 for standard input.
        on_end: Called with the number of events when nothing more can come.

    """

    def __init__(self, fd: int, on_end: Callable[[int], object]) -> None:
        self._fd = fd
        self._on_end = on_end
        # IDs name the run that they are from: 12 of yesterday's lines says nothing
        # about where to go on in today's.
        self._run = f"{time.time_ns() // 1_000_000:x}"
        self._count = 0
        self._fanout = Fanout(self._number, events=_KEPT)

    async def events(self, request: Request) -> AsyncGenerator[ServerSentEvent]:
        """
        Return what the client of a request has not seen.
        """
        return self._fanout.follow(request.last_event_id)

    async def run(self) -> None:
        """
        Publish each line, until the input ends.

        Cancellation: what is read after it is dropped.
        """
        token, ended = current_token(), anyio.Event()

        def read() -> None:
            # The event loop may be over, which nobody who reads a pipe can foresee.
            with suppress(RuntimeError):
                for lines in _read_lines(self._fd):
                    run_sync(self._publish, lines, token=token)
                run_sync(ended.set, token=token)

        # A thread of our own, since none of the event loop's may be left behind in a
        # read that never returns. It may: whoever waits for input must not keep the
        # program from ending. Files, pipes and terminals all can be read like this.
        Thread(target=read, name="lines", daemon=True).start()
        await ended.wait()
        self._fanout.publish(ServerSentEvent(comment="end of input"))
        self._on_end(self._count)

    def _publish(self, lines: list[str]) -> None:
        first = self._count + 1
        self._count += len(lines)
        self._fanout.publish(
            *(ServerSentEvent(line, id=f"{self._run}-{n}") for n, line in enumerate(lines, first))
        )

    def _number(self, id_: str) -> int | None:
        run, _, number = id_.partition("-")
        known = run == self._run and number.isascii() and number.isdecimal() and len(number) < 16
        return int(number) if known else None


def _read_lines(fd: int) -> Iterator[list[str]]:
    # Not sys.stdin: a thread that is in it when the interpreter ends holds its lock,
    # which is a fatal error.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    while chunk := _read(fd):
        *lines, rest = (rest + decode(chunk)).split("\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], ""
        if lines:
            yield [line.removesuffix("\r") for line in lines]
    rest += decode(b"", final=True)
    if rest:
        yield [rest]


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            # Whoever shares the descriptor has made it non-blocking.
            select.select([fd], [], [])
        except OSError:
            # The terminal is gone, or there never was an input.
            return b""
