"""
Whether an endpoint is a good event stream, tried out in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack

import anyio

from .._event import ServerSentEvent
from ._exchange import ASGIApp
from ._headers import Headers
from ._http import Download
from ._report import Report
from ._server import RequestOptions, Server, serve
from ._stream import Stream, is_disconnect
from ._temper import TEMPERS
from ._wire import inspect

__all__ = ["check_event_stream", "check_headers", "check_resumed", "event_ids", "watch_stream"]

# Within this time, in seconds, a stream should open and a disconnect be noticed.
_PROMPT = 1.0
# And within this, an app that does clean up should have ended.
_SLOW = 5.0


async def check_event_stream(
    app: ASGIApp,
    path: str = "/",
    *,
    watch: float = 60.0,
    max_silence: float = 30.0,
    lifespan: bool = True,
    **options: Unpack[RequestOptions],
) -> Report:
    """
    Try out an endpoint of any ASGI app as clients, proxies and servers will.

    Headers; the first bytes; the format; keep-alives; whether it notices that a
    client has left, idle or with a full buffer, on servers of each temper; whether
    it ends when it is cancelled; whether it resumes if it has event IDs; HEAD; and
    whether it keeps to ASGI.

    It makes about ten requests and takes up to *watch* seconds, so let the clock jump
    if the app allows it.

    Args:
        app: Any ASGI 3 app.
        path: The path of the endpoint.
        watch: Seconds for which to look at the stream.
        max_silence: Seconds without a byte after which a proxy may cut the connection.
        lifespan: Whether to tell the app of its startup and shutdown.
        options: About the request, as for ``connect()``.

    Returns:
        The report, which may hold warnings.

    Raises:
        CheckFailed: If anything failed, with the report.

    """
    report = Report(f"event stream {path}")
    async with serve(app, lifespan=lifespan) as server:
        check = _Check(report, server, path, options)
        if await check.opens(watch, max_silence):
            for temper in ("ignore", "raise", "hang"):
                await check.leaves(temper)
                await check.leaves_blocked(temper, max_silence)
            await check.cancels()
            await check.resumes(watch)
            await check.answers_head()
            check.tells_problems()
    report.raise_if_failed()
    return report


class _Check:
    """
    The checks, one after the other, each with a request of its own.
    """

    def __init__(self, report: Report, server: Server, path: str, options: RequestOptions) -> None:
        self._report = report
        self._server = server
        self._path = path
        self._options = options
        self._events: list[ServerSentEvent] = []
        self._problems: dict[str, None] = {}

    async def _with(
        self,
        use: Callable[[Stream], Any],
        *,
        temper: str = "ignore",
        problems: bool = True,
        **options: Any,
    ) -> Exception | None:
        """
        Make a request and do something with the stream; return what prevented it.
        """
        server = self._server.with_temper(TEMPERS[temper])
        try:
            async with server.connect(self._path, **{**self._options, **options}) as stream:
                try:
                    await use(stream)
                finally:
                    # Looked at, so that it is not raised.
                    _ = stream.error
                    stream.disconnect()
                    with anyio.move_on_after(_SLOW):
                        await stream.wait_closed(None)
                    _ = stream.error
        except Exception as error:  # noqa: BLE001 - the app may raise anything
            return error
        if problems:
            self._problems.update(dict.fromkeys(stream.problems))
        return None

    async def opens(self, watch: float, max_silence: float) -> bool:
        """
        Look at the stream for a while; tell whether it is one.
        """
        report = self._report

        async def use(stream: Stream) -> None:
            check_headers(report, stream.status, stream.headers)
            if report.outcome("response") == "failed":
                return
            await _first_chunk(stream)
            if stream.chunks:
                report.add("opens", "ok", "the first bytes come with the headers")
            else:
                report.add(
                    "opens",
                    "failed",
                    f"nothing for {_PROMPT:g} s: without a first byte some servers and proxies "
                    "hold back the headers, and EventSource is not open; send a comment",
                )
            await watch_stream(report, stream, watch, max_silence)
            for outcome, detail in inspect(stream.body, stream.complete):
                report.add("format", outcome, detail)
            if report.outcome("format") == "skipped":
                report.add("format", "ok", f"{len(stream.body)} bytes without a mistake")
            if stream.error is not None:
                report.add("source", "failed", f"the app raised {stream.error!r}")
            self._events = stream.events

        error = await self._with(use)
        if error is not None:
            report.add("response", "failed", f"no response: {error!r}")
        return report.outcome("response") != "failed"

    async def leaves(self, temper: str) -> None:
        """
        Let a client leave that waits for the next event.
        """

        async def use(stream: Stream) -> None:
            await _first_chunk(stream)
            # Into the silence after what comes at first.
            await anyio.sleep(_PROMPT / 2)
            await self._leave(stream, "client leaves", temper)

        await self._with(use, temper=temper)

    async def leaves_blocked(self, temper: str, max_silence: float) -> None:
        """
        Let a client leave that has not read what was sent.
        """

        async def use(stream: Stream) -> None:
            await _first_chunk(stream)
            stream.stall()
            with anyio.move_on_after(max_silence), suppress(anyio.EndOfStream):
                await stream.wait_blocked(None)
                await self._leave(stream, "slow client leaves", temper)
                return
            self._report.add("slow client leaves", "skipped", "nothing was sent to it")

        await self._with(use, temper=temper)

    async def _leave(self, stream: Stream, check: str, temper: str) -> None:
        report = self._report
        began = anyio.current_time()
        stream.disconnect()
        with anyio.move_on_after(_SLOW):
            await stream.wait_closed(None)
        took = anyio.current_time() - began
        where = f"where send() after a disconnect is of the kind {temper!r}"
        error = stream.error
        if not stream.closed:
            report.add(check, "failed", f"not noticed within {_SLOW:g} s, {where}")
        elif error is not None and not is_disconnect(error):
            report.add(check, "failed", f"the app raised {error!r}, {where}")
        elif took > _PROMPT:
            report.add(check, "warning", f"the app went on for {took:.1f} s, {where}")
        else:
            report.add(check, "ok", "noticed within a second")

    async def cancels(self) -> None:
        """
        Cancel the app.
        """

        async def use(stream: Stream) -> None:
            await _first_chunk(stream)
            stream.cancel()
            with anyio.move_on_after(_SLOW):
                await stream.wait_closed(None)
            if stream.closed:
                self._report.add("cancellation", "ok", "ends the app")
            else:
                self._report.add(
                    "cancellation",
                    "failed",
                    f"the app went on for {_SLOW:g} s: does it catch the cancellation?",
                )

        await self._with(use)

    async def resumes(self, watch: float) -> None:
        """
        Come back with the last event ID.
        """
        ids = event_ids(self._events)
        if len(ids) < 2:
            self._report.add("resuming", "skipped", "fewer than two event IDs were seen")
            return

        async def use(stream: Stream) -> None:
            with anyio.move_on_after(watch):
                event = await stream.next_event(None)
                check_resumed(self._report, ids, event)
                return
            self._report.add("resuming", "skipped", f"after {ids[0]!r} nothing came")

        error = await self._with(use, last_event_id=ids[0])
        if error is not None:
            self._report.add("resuming", "failed", f"after {ids[0]!r}: {error!r}")

    async def answers_head(self) -> None:
        """
        Ask with HEAD, as link checkers and proxies do.
        """
        if self._options.get("method", "GET").upper() != "GET":
            return

        async def use(stream: Stream) -> None:
            with anyio.move_on_after(_PROMPT):
                await stream.read(None)
            if stream.complete:
                self._report.add("HEAD", "ok", f"answered with {stream.status}")
            else:
                self._report.add("HEAD", "failed", "streams for ever; answer with the headers")

        # Most servers drop the body that frameworks send with an error.
        error = await self._with(use, problems=False, method="HEAD")
        if error is not None:
            self._report.add("HEAD", "failed", f"no response: {error!r}")

    def tells_problems(self) -> None:
        """
        Tell in what the app did not keep to ASGI.
        """
        for problem in self._problems:
            # Servers live with the one, though some of them badly.
            outcome = "warning" if problem.startswith("receive()") else "failed"
            self._report.add("ASGI", outcome, problem)  # type: ignore[arg-type]
        if not self._problems:
            self._report.add("ASGI", "ok", "nothing that a server could refuse")


def check_headers(report: Report, status: int, headers: Headers) -> None:
    """
    Check what comes before the body.
    """
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    if status != 200 or kind.strip() != "text/event-stream":
        report.add(
            "response",
            "failed",
            f"status {status} and content type {headers.get('content-type')!r}: "
            "an EventSource fails for good unless these are 200 and text/event-stream",
        )
        return
    report.add("response", "ok", f"200 {headers['content-type']}")
    if parameters.strip() not in {"", "charset=utf-8", 'charset="utf-8"'}:
        report.add("response", "warning", f"event streams are UTF-8, not {parameters.strip()}")

    cache = headers.get("cache-control", "")
    if not cache:
        report.add("headers", "warning", "no cache-control: a cache may keep the stream")
    elif "no-transform" not in cache:
        report.add(
            "headers",
            "warning",
            f"cache-control {cache!r} lets a proxy compress: add no-transform",
        )
    if headers.get("x-accel-buffering", "").lower() != "no":
        report.add("headers", "warning", "without x-accel-buffering: no nginx collects the events")
    if report.outcome("headers") == "skipped":
        report.add("headers", "ok", "caches and proxies are told")


def event_ids(events: list[ServerSentEvent]) -> list[str]:
    """
    Return the different event IDs, in their order.
    """
    return list(dict.fromkeys(event.id for event in events if event.id is not None))


def check_resumed(report: Report, ids: list[str], event: ServerSentEvent) -> None:
    """
    Check the event that came after the first of these IDs was sent back.
    """
    if event.id == ids[1]:
        report.add("resuming", "ok", f"after {ids[0]!r} comes {ids[1]!r}, as before")
    elif event.id == ids[0]:
        report.add(
            "resuming",
            "failed",
            f"after {ids[0]!r} comes {ids[0]!r} again: events have IDs, but "
            "Last-Event-ID is not heeded, so every reconnect repeats or loses events",
        )
    else:
        report.add("resuming", "warning", f"after {ids[0]!r} comes {event.id!r}, not {ids[1]!r}")


async def _first_chunk(stream: Stream) -> None:
    """
    Wait for the first bytes, but not for long.
    """
    with anyio.move_on_after(_PROMPT):
        await stream.wait_chunks(1, None)


async def watch_stream(
    report: Report, stream: Stream | Download, watch: float, max_silence: float
) -> None:
    """
    Look at the stream until it is clear whether it has keep-alives and event IDs.
    """
    kept_alive = False
    longest = 0.0
    began = last = anyio.current_time()
    while not stream.complete and not stream.closed:
        count, events, comments = len(stream.chunks), len(stream.events), len(stream.comments)
        with anyio.move_on_after(max_silence):
            await stream.wait_chunks(count + 1, None)
        now = anyio.current_time()
        silence, last = now - last, now
        longest = max(longest, silence)
        if len(stream.chunks) == count:
            break
        if silence > _PROMPT and len(stream.events) == events and len(stream.comments) > comments:
            kept_alive = True
            report.add("keep-alive", "ok", f"after {silence:.3g} s of silence")
        ids = event_ids(stream.events)
        if now - began >= watch or (kept_alive and len(ids) != 1):
            break
    if kept_alive:
        return
    if stream.complete or stream.closed:
        report.add("keep-alive", "skipped", "the response ended before one was due")
    elif longest >= max_silence:
        report.add(
            "keep-alive",
            "failed",
            f"nothing for {max_silence:g} s: proxies cut such connections, and a client "
            "that has gone without a word is never noticed",
        )
    else:
        report.add("keep-alive", "skipped", f"never silent for more than {longest:.3g} s")
