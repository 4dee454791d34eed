from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi import Server, http_scope
from asgi_sse import EventStream, Refused, Request
from asgi_sse.opentelemetry import OpenTelemetry
from asgi_sse.testing import connect


class SDK:
    """
    An SDK that keeps everything.
    """

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meters = MeterProvider([self._metrics])

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        """
        Return the values by name, and by what they are of: a reason or a source.
        """
        found: dict[str, Any] = {}
        data = self._metrics.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:  # type: ignore[union-attr]
            points = found[metric.name.removeprefix("asgi_sse.")] = {}
            for point in metric.data.data_points:
                attributes: Any = point.attributes
                source = attributes["asgi_sse.source"].rpartition(".")[2]
                key = attributes.get("asgi_sse.close.reason", source)
                points[key] = getattr(point, "value", None) or getattr(point, "sum", 0)
        return found


@pytest.fixture
def sdk() -> Iterator[SDK]:
    sdk = SDK()
    yield sdk
    sdk.meters.shutdown()
    sdk.tracers.shutdown()


@pytest.fixture
def observe(sdk: SDK) -> OpenTelemetry:
    return OpenTelemetry(tracer_provider=sdk.tracers, meter_provider=sdk.meters)


async def two() -> AsyncIterator[str]:
    yield "a"
    yield "b"
    await anyio.sleep_forever()


async def answer(app: Any, **scope: Any) -> None:
    await Server().call(app, http_scope(**scope))


async def test_metrics_are_up_to_date_while_streams_are_open(
    sdk: SDK, observe: OpenTelemetry
) -> None:
    app = EventStream(two, observe=observe)
    async with connect(app) as one, connect(app) as other:
        await one.take(2)
        await other.take(2)
        before = sdk.metrics()
        await anyio.sleep(9)
        one.disconnect()
        await one.wait_closed()
        after = sdk.metrics()

    assert before == {
        "active_streams": {"two": 2},
        "opened_streams": {"two": 2},
        "sent_events": {"two": 4},
        "sent_bytes": {"two": 42},
    }
    assert after == {
        "active_streams": {"two": 1},
        "opened_streams": {"two": 2},
        "closed_streams": {"client": 1},
        "stream.duration": {"client": 9},
        "sent_events": {"two": 4},
        "sent_bytes": {"two": 42},
    }


async def test_a_stream_is_a_span_below_the_current_one(sdk: SDK, observe: OpenTelemetry) -> None:
    seen = []

    async def source(request: Request) -> AsyncIterator[str]:
        seen.append(trace.get_current_span())
        with sdk.tracers.get_tracer("test").start_as_current_span("inner"):
            yield "a"

    with sdk.tracers.get_tracer("test").start_as_current_span("outer") as outer:
        await answer(
            EventStream(source, observe=observe),
            path="/clock",
            query_string=b"token=secret",
            http_version="2",
            scheme="https",
        )
        # It was only for the stream.
        assert trace.get_current_span() is outer

    inner, span, _ = sdk.spans
    name = f"{__name__}.test_a_stream_is_a_span_below_the_current_one.<locals>.source"
    assert span.name == f"event stream {name}"
    assert span.parent == outer.get_span_context()
    assert inner.parent == span.context == seen[0].get_span_context()
    assert span.kind is trace.SpanKind.INTERNAL
    assert span.status.status_code is trace.StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "asgi_sse.source": name,
        "asgi_sse.close.reason": "finished",
        "asgi_sse.sent_events": 1,
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "network.protocol.version": "2",
        "url.path": "/clock",
        "url.scheme": "https",
    }


@pytest.mark.parametrize(
    ("error", "status", "failed"),
    [
        (Refused(403), 403, False),
        (Refused(204), 204, False),
        (Refused(503), 503, True),
        (LookupError("x"), None, True),
    ],
)
async def test_who_is_to_blame_for_a_setup_phase_that_raises(
    sdk: SDK, observe: OpenTelemetry, error: Exception, status: int | None, failed: bool
) -> None:
    async def source() -> Any:
        raise error

    try:
        await answer(EventStream(source, observe=observe))
    except LookupError:
        pass
    [span] = sdk.spans
    attributes: Any = span.attributes

    assert attributes.get("http.response.status_code") == status
    assert (span.status.status_code is trace.StatusCode.ERROR) is failed
    assert ("error.type" in attributes) is failed
    assert len(span.events) == failed
    assert attributes["asgi_sse.close.reason"] == ("refused" if status else "error")


async def test_a_source_that_raises_is_an_error(sdk: SDK, observe: OpenTelemetry) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        await answer(EventStream(source, observe=observe))
    [span] = sdk.spans
    attributes: Any = span.attributes

    assert span.status.status_code is trace.StatusCode.ERROR
    assert attributes["error.type"] == "builtins.LookupError"
    assert attributes["http.response.status_code"] == 200
    assert [event.name for event in span.events] == ["exception"]


async def test_a_client_that_leaves_is_no_error(sdk: SDK, observe: OpenTelemetry) -> None:
    async with connect(EventStream(two, observe=observe)) as stream:
        await stream.take(2)
    [span] = sdk.spans

    assert span.status.status_code is trace.StatusCode.UNSET


async def test_without_an_sdk_nothing_happens() -> None:
    async with connect(EventStream(two, observe=OpenTelemetry())) as stream:
        assert len(await stream.take(2)) == 2
