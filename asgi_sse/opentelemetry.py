"""
Metrics and spans of event streams, through OpenTelemetry's API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from opentelemetry import context, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import Span, StatusCode, TracerProvider, get_tracer

from ._options import Closed, OpenStream
from ._request import Refused
from ._statistics import Tally

__all__ = ["OpenTelemetry"]

# From the tokens of an answer to a day, in seconds; those of HTTP end at ten.
_DURATIONS = [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400]


class OpenTelemetry:
    """
    Observes streams: ``EventStream(source, observe=OpenTelemetry())``.

    One of them serves all the streams of a process. Nothing that it records
    is from the query, where tokens are.

    Args:
        tracer_provider: Where spans go; ``None``: the global one.
        meter_provider: Where metrics go; ``None``: the global one.

    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = get_tracer("asgi_sse", tracer_provider=tracer_provider)
        meter = get_meter("asgi_sse", meter_provider=meter_provider)
        self._active = meter.create_up_down_counter(
            "asgi_sse.active_streams", "{stream}", "Streams that are open."
        )
        self._opened = meter.create_counter(
            "asgi_sse.opened_streams", "{stream}", "Streams that were opened."
        )
        self._closed = meter.create_counter(
            "asgi_sse.closed_streams", "{stream}", "Streams that are over, by what ended them."
        )
        self._duration = meter.create_histogram(
            "asgi_sse.stream.duration",
            "s",
            "How long streams were open.",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        # Asked for when they are exported: a stream that lasts for days counts meanwhile.
        self._tallies: dict[str, Tally] = {}
        for name, unit, what, index in (
            ("asgi_sse.sent_events", "{event}", "Items of the sources that were sent.", 0),
            ("asgi_sse.sent_bytes", "By", "Bytes of body that were sent.", 1),
        ):
            meter.create_observable_counter(name, [partial(self._sent, index)], unit, what)

    def __call__(self, stream: OpenStream) -> Callable[[Closed], None]:
        """
        Record that a stream opens, and return what records its end.

        Its span becomes the current one, and what the source does is below it.
        """
        source = {"asgi_sse.source": stream.source}
        tally = self._tallies.setdefault(stream.source, Tally())
        tally.begin(stream)
        self._opened.add(1, source)
        self._active.add(1, source)
        span = self._tracer.start_span(
            f"event stream {stream.source}", attributes={**source, **_describe(stream)}
        )
        token = context.attach(trace.set_span_in_context(span))

        def end(closed: Closed) -> None:
            context.detach(token)
            tally.end(stream, closed.reason, closed.events, closed.bytes)
            self._active.add(-1, source)
            reason = {**source, "asgi_sse.close.reason": closed.reason}
            self._closed.add(1, reason)
            self._duration.record(closed.duration, reason)
            span.set_attributes({**reason, "asgi_sse.sent_events": closed.events})
            _conclude(span, stream, closed)
            span.end()

        return end

    def _sent(self, index: int, _: CallbackOptions) -> Iterator[Observation]:
        # Maybe in a thread of the exporter's.
        for source, tally in list(self._tallies.items()):
            yield Observation(tally.sent()[index], {"asgi_sse.source": source})


# Names as the semantic conventions for HTTP have them, where they have one.


def _describe(stream: OpenStream) -> dict[str, Any]:
    scope = stream.request.scope
    return {
        "http.request.method": scope["method"],
        "network.protocol.version": scope.get("http_version", "1.1"),
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
    }


def _conclude(span: Span, stream: OpenStream, closed: Closed) -> None:
    """
    Say what was answered, and whether that was an error of this side.
    """
    error = closed.error
    status = stream.status
    failed = closed.reason == "error"
    if isinstance(error, Refused) and closed.reason == "refused":
        status = error.status
        # "For HTTP status codes in the 4xx range span status MUST be left unset in case
        # of SpanKind.SERVER", and this is what is behind it.
        failed = status >= 500
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if failed and error is not None:
        kind = type(error)
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", f"{kind.__module__}.{kind.__qualname__}")
        span.record_exception(error)
