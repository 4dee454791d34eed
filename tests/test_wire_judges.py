"""
What we write is read by those who never saw our parser: both ends of the wire could
share a mistake.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse.parser import EventStreamParser
from wire_cases import BOTH_WAYS, as_received, cut, events, sizes

JUDGES = Path(__file__).parent / "judges"

Report = dict[str, Any]
Judge = Callable[[Iterable[bytes]], list[Report]]


@pytest.fixture(scope="module")
def eventsource_parser() -> Iterator[Judge]:
    """
    Return what npm's eventsource-parser, run by Node, reports of a body's chunks.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js (node and npm)")
    wanted = json.loads((JUDGES / "package.json").read_text())["dependencies"]
    installed = JUDGES / "node_modules" / "eventsource-parser" / "package.json"
    if (
        not installed.exists()
        or json.loads(installed.read_text())["version"] != wanted["eventsource-parser"]
    ):
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"]
        install = subprocess.run(command, check=False, cwd=JUDGES, capture_output=True, text=True)
        if install.returncode:
            reason = " ".join(install.stderr.split())
            pytest.skip(f"needs npm's eventsource-parser: {reason:.300}")

    with subprocess.Popen(
        [node, "eventsource_parser.mjs"],
        cwd=JUDGES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def judge(chunks: Iterable[bytes]) -> list[Report]:
            question = json.dumps([base64.b64encode(chunk).decode() for chunk in chunks])
            stdin.write(question.encode() + b"\n")
            stdin.flush()
            reports: list[Report] = json.loads(stdout.readline())
            return reports

        yield judge
        stdin.close()


def expected_of_eventsource_parser(sent: Iterable[ServerSentEvent]) -> Iterator[Report]:
    """
    Yield what it should report: every field of every event.

    It gives an event the ID of its own block, where the standard gives it the last
    event ID; it leaves that to its caller, who knows of the reconnects.
    """
    for event in sent:
        if event.comment is not None:
            for line in as_received(event.comment).split("\n"):
                yield {"comment": line}
        if event.retry is not None:
            yield {"retry": event.retry}
        if event.data is not None:
            report = {"data": as_received(event.data)}
            if event.event:
                report["event"] = event.event
            if event.id is not None:
                report["id"] = event.id
            yield report


@pytest.mark.parametrize(("sent", "wire", "received"), BOTH_WAYS)
def test_eventsource_parser_reads_each_event(
    eventsource_parser: Judge,
    sent: ServerSentEvent,
    wire: bytes,
    received: list[ServerSentEvent],
) -> None:
    assert eventsource_parser([sent.encode()]) == [*expected_of_eventsource_parser([sent])]


@given(sent=st.lists(events), sizes=sizes)
def test_eventsource_parser_reads_every_stream(
    eventsource_parser: Judge, sent: list[ServerSentEvent], sizes: list[int]
) -> None:
    wire = b"".join(event.encode() for event in sent)

    reports = eventsource_parser(cut(wire, sizes))

    assert reports == [*expected_of_eventsource_parser(sent)]


@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from(["data", "event", "retry", "", " data", "Data", "x"]),
            st.sampled_from([":", ": ", ":  ", "", " "]),
            st.text(max_size=3),
            st.sampled_from(["\n", "\n", "\r", "\r\n", "\n\n"]),
        ).map("".join),
    ),
    sizes=sizes,
)
def test_eventsource_parser_agrees_on_garbage(
    eventsource_parser: Judge, lines: list[str], sizes: list[int]
) -> None:
    # It waits for what follows a CR, where we do not.
    wire = "".join(lines).encode() + b"\n\n"
    parser = EventStreamParser()

    received = [event for chunk in cut(wire, sizes) for event in parser.feed(chunk)]
    reports = eventsource_parser(cut(wire, sizes))

    dispatched = [(report["data"], report.get("event")) for report in reports if "data" in report]
    retries = [report["retry"] for report in reports if "retry" in report]
    assert [(event.data, event.event) for event in received] == dispatched
    assert parser.reconnection_time == (retries[-1] if retries else None)


def read_with_httpx_sse(chunks: Iterable[bytes]) -> list[tuple[str, str, str, int | None]]:
    """
    Return what httpx-sse reads from a response of these chunks.
    """

    def respond(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        return httpx.Response(200, headers=headers, content=iter(chunks))

    with (
        httpx.Client(transport=httpx.MockTransport(respond)) as client,
        httpx_sse.connect_sse(client, "GET", "http://test/") as source,
    ):
        return [(sse.event, sse.data, sse.id, sse.retry) for sse in source.iter_sse()]


def expected_of_httpx_sse(
    sent: Iterable[ServerSentEvent],
) -> Iterator[tuple[str, str, str, int | None]]:
    """
    Yield what it should read: every field but comments.

    It dispatches an event without data at a blank line if there was an event type, a
    reconnection time, or ever an event ID. The standard says: "If the data buffer is an
    empty string, set the data buffer and the event type buffer to the empty string and
    return."
    """
    last_event_id = ""
    retry = None
    for event in sent:
        if event.id is not None:
            last_event_id = event.id
        if event.retry is not None:
            retry = event.retry
        if event.data is event.event is event.id is None:
            # Without a blank line: a reconnection time comes with the next event.
            continue
        if event.data is not None or event.event or retry is not None or last_event_id:
            yield (
                event.event or "message",
                as_received(event.data or ""),
                last_event_id,
                retry,
            )
            retry = None


@pytest.mark.parametrize(("sent", "wire", "received"), BOTH_WAYS)
def test_httpx_sse_reads_each_event(
    sent: ServerSentEvent, wire: bytes, received: list[ServerSentEvent]
) -> None:
    assert read_with_httpx_sse([sent.encode()]) == [*expected_of_httpx_sse([sent])]


@given(st.lists(events), sizes)
def test_httpx_sse_reads_every_stream(sent: list[ServerSentEvent], sizes: list[int]) -> None:
    wire = b"".join(event.encode() for event in sent)

    assert read_with_httpx_sse(cut(wire, sizes)) == [*expected_of_httpx_sse(sent)]


@pytest.mark.parametrize("silent", [{"comment": "x"}, {"retry": 3000}])
def test_what_dispatches_nothing_makes_no_client_dispatch_an_event(silent: Any) -> None:
    """
    It is written without a blank line for the sake of such clients.
    """
    first, comment, last = (
        ServerSentEvent("a", id=1).encode(),
        ServerSentEvent(**silent).encode(),
        ServerSentEvent("b").encode(),
    )

    assert [data for _, data, *_ in read_with_httpx_sse([first, comment, last])] == ["a", "b"]
    # As long as this is so, the reason stands.
    assert [data for _, data, *_ in read_with_httpx_sse([first, comment, b"\n", last])] == [
        "a",
        "",
        "b",
    ]
