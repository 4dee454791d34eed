"""
Whether what a running server sends arrives as an event stream, proxies included.
"""

from __future__ import annotations

import ssl
import statistics
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import anyio

from ._check import check_headers, check_resumed, event_ids, watch_stream
from ._exchange import Chunk
from ._http import Download, download, encode_request
from ._report import Outcome, Report
from ._wire import inspect

__all__ = ["check_url"]

_PROMPT = 1.0

# What proxies and caches add to a response.
_TRACES = ("via", "x-cache", "x-served-by", "x-varnish", "age", "cf-ray", "x-amz-cf-id")


async def check_url(
    url: str,
    *,
    origin: str | None = None,
    watch: float = 60.0,
    max_silence: float = 30.0,
    headers: Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> Report:
    """
    Try out an endpoint of a running server, over HTTP/1.1, through whatever is in between.

    Args:
        url: The URL of the endpoint.
        origin: The URL of the same endpoint without the proxy: what arrives from both is
            compared.
        watch: Seconds for which to look at the stream.
        max_silence: Seconds without a byte after which a proxy may cut the connection.
        headers: More headers for the requests, such as a cookie.
        ssl_context: What to trust, if not what the system trusts.

    Returns:
        The report, failed or not.

    Raises:
        ValueError: If the URL cannot be used.

    """
    headers = list(headers)
    for each in (url, origin or url):
        encode_request(each, "GET", headers)
    report = Report(f"event stream {url}")
    probe = _Probe(report, url, headers, ssl_context)
    async with anyio.create_task_group() as tasks:
        if origin is not None:
            tasks.start_soon(probe.compares, origin)
        await probe.opens(watch, max_silence)
        tasks.cancel_scope.cancel()
    if report.outcome("response") != "failed":
        probe.tells_lag()
        await probe.compresses()
        await probe.resumes(watch)
        await probe.answers_head()
    return report


class _Probe:
    def __init__(
        self,
        report: Report,
        url: str,
        headers: list[tuple[str, str]],
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._report = report
        self._url = url
        self._headers = headers
        self._ssl_context = ssl_context
        self._here: Download | None = None
        self._there: Download | None = None

    async def _with(
        self,
        check: str,
        use: Callable[[Download], Awaitable[None]],
        *headers: tuple[str, str],
        url: str | None = None,
        method: str = "GET",
    ) -> None:
        """
        Make a request and do something with the response; tell what prevented it.
        """
        try:
            async with download(
                url or self._url,
                method=method,
                headers=[*self._headers, *headers],
                ssl_context=self._ssl_context,
            ) as response:
                await use(response)
        except TimeoutError:
            detail = f"no response from {url or self._url} in time"
            if check == "compression":
                detail += ", when gzip is allowed: something keeps back what it compresses"
            self._report.add(check, "failed", detail)
        except OSError as error:
            self._report.add(check, "failed", f"no response from {url or self._url}: {error}")

    async def opens(self, watch: float, max_silence: float) -> None:
        """
        Look at the stream for a while, as it arrives here.
        """
        report = self._report

        async def use(stream: Download) -> None:
            self._here = stream
            check_headers(report, stream.status, stream.headers)
            if report.outcome("response") == "failed":
                return
            self._tells_proxies(stream)
            with anyio.move_on_after(_PROMPT):
                await stream.wait_chunks(1)
            self._tells_first_bytes(stream)
            await watch_stream(report, stream, watch, max_silence)
            self._tells_cut(stream)
            for outcome, detail in inspect(stream.body, stream.complete):
                report.add("format", outcome, detail)
            if report.outcome("format") == "skipped":
                report.add("format", "ok", f"{len(stream.body)} bytes without a mistake")

        await self._with("response", use)

    def _tells_first_bytes(self, stream: Download) -> None:
        if not stream.chunks:
            detail = (
                f"no bytes for {_PROMPT:g} s after the headers: there is no opening comment, "
                "or something in between collects the body"
            )
            self._report.add("opens", "failed", detail)
            return
        first = stream.chunks[0].time
        outcome: Outcome = "ok" if first <= _PROMPT else "warning"
        self._report.add("opens", outcome, f"the first bytes took {1000 * first:.0f} ms")

    def _tells_proxies(self, stream: Download) -> None:
        traces = [f"{name}: {stream.headers[name]}" for name in _TRACES if name in stream.headers]
        if server := stream.headers.get("server"):
            traces.append(f"server: {server}")
        seen = f"traces of {', '.join(traces)}" if traces else "none that shows itself"
        self._report.add("in between", "ok", seen)
        self._tells_encoding(stream)

    def _tells_encoding(self, stream: Download) -> None:
        encoding = stream.headers.get("content-encoding", "identity")
        if encoding != "identity":
            detail = f"the body is {encoding}, which was not asked for"
            self._report.add("compression", "failed", detail)

    def _tells_cut(self, stream: Download) -> None:
        """
        Tell whether the connection was cut, and after how much silence.
        """
        if not stream.closed or stream.complete:
            return
        end = stream.time()
        silence = end - stream.chunks[-1].time if stream.chunks else end
        idle = ", as a proxy does with an idle connection" if silence > _PROMPT else ""
        self._report.add(
            "cut-off", "failed", f"cut after {end:.1f} s, {silence:.1f} s of them silent{idle}"
        )

    async def compares(self, origin: str) -> None:
        """
        Receive the same stream without the proxy, until this is cancelled.
        """

        async def use(stream: Download) -> None:
            self._there = stream
            await anyio.sleep_forever()

        await self._with("buffering", use, url=origin)

    def tells_lag(self) -> None:
        """
        Tell how much later events arrive through the proxy.
        """
        here, there = self._here, self._there
        if here is None or there is None:
            return
        direct = _arrivals(there)
        late = [time - direct[key] for key, time in _arrivals(here).items() if key in direct]
        if not late:
            self._report.add("buffering", "skipped", "no event arrived both ways")
            return
        lag = statistics.median(late)
        detail = f"{len(late)} events took {lag:.2f} s more than from the origin"
        if lag > _PROMPT / 2:
            self._report.add("buffering", "failed", f"something collects them: {detail}")
        else:
            self._report.add("buffering", "ok", detail)

    async def compresses(self) -> None:
        """
        Ask as browsers do, who allow compression.
        """

        async def use(stream: Download) -> None:
            encoding = stream.headers.get("content-encoding", "none").lower()
            if encoding != "gzip":
                detail = f"{encoding}, though gzip was allowed"
                self._report.add("compression", "ok" if encoding == "none" else "failed", detail)
                return
            with anyio.move_on_after(_PROMPT):
                while not _unzip(stream.chunks) and not stream.closed:
                    await stream.wait_chunks(len(stream.chunks) + 1)
            if _unzip(stream.chunks):
                self._report.add("compression", "ok", "gzip, and what is sent is flushed")
            else:
                self._report.add("compression", "failed", "gzip, and it keeps back what is sent")

        await self._with("compression", use, ("accept-encoding", "gzip"))

    async def resumes(self, watch: float) -> None:
        """
        Come back with the last event ID.
        """
        assert self._here is not None
        ids = event_ids(self._here.events)
        if len(ids) < 2:
            self._report.add("resuming", "skipped", "fewer than two event IDs were seen")
            return

        async def use(stream: Download) -> None:
            with anyio.move_on_after(watch):
                while not stream.events and not stream.closed:
                    await stream.wait_chunks(len(stream.chunks) + 1)
            if stream.events:
                check_resumed(self._report, ids, stream.events[0])
            else:
                self._report.add("resuming", "skipped", f"after {ids[0]!r} nothing came")

        await self._with("resuming", use, ("last-event-id", ids[0]))

    async def answers_head(self) -> None:
        """
        Ask with HEAD, as link checkers and proxies do.
        """

        async def use(response: Download) -> None:
            self._report.add("HEAD", "ok", f"answered with {response.status}")

        await self._with("HEAD", use, method="HEAD")


def _arrivals(stream: Download) -> dict[object, float]:
    """
    Return when each event arrived, on the clock of the event loop.
    """
    arrivals: dict[object, float] = {}
    for time, event in stream.arrivals:
        arrivals.setdefault(event, time)
    return arrivals


def _unzip(chunks: Sequence[Chunk]) -> bytes:
    # 16 for the header of gzip, 15 for any window.
    return zlib.decompressobj(16 + 15).decompress(b"".join(chunk.body for chunk in chunks))
