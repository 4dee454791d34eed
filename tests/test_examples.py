"""
What the examples' docstrings promise.
"""

import importlib.util
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from asgi_sse.testing import connect

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]*.py"))


def load(name: str) -> Any:
    """
    Import an example, whose name begins with a number, anew.
    """
    [path] = [path for path in EXAMPLES if path.stem == name]
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_says_how_to_run_it(path: Path) -> None:
    doc = load(path.stem).__doc__ or ""

    assert f"hypercorn examples/{path.name}\n" in doc
    assert re.search(r"^    curl -N", doc, re.MULTILINE)


def test_examples_are_numbered_without_a_gap() -> None:
    numbers = [int(path.stem.partition("_")[0]) for path in EXAMPLES]

    assert numbers == list(range(1, len(EXAMPLES) + 1))


# 01


def load_clock() -> Any:
    """
    Import the clock, and let it be the second 1000 where tests begin.
    """
    clock = load("01_clock")
    clock.time = SimpleNamespace(time=lambda: 1000 + anyio.current_time(), ctime=time.ctime)
    return clock


async def test_clock_ticks() -> None:
    async with connect(load_clock().app) as stream:
        ticks = await stream.take(3)

        assert [tick.id for tick in ticks] == ["1000", "1001", "1002"]
        assert [tick.data for tick in ticks] == [time.ctime(1000 + n) for n in range(3)]
        assert [chunk.time for chunk in stream.chunks if chunk.time] == [1.0, 2.0]
        assert stream.reconnection_time == 1000


async def test_clock_catches_up() -> None:
    async with connect(load_clock().app, last_event_id="997") as stream:
        ticks = await stream.take(4)

        assert [tick.id for tick in ticks] == ["998", "999", "1000", "1001"]
        assert [chunk.time for chunk in stream.chunks if chunk.time] == [1.0]


async def test_clock_misses_nothing_while_a_client_reconnects() -> None:
    async with connect(load_clock().app) as stream:
        ticks = await stream.take(2)
        await anyio.sleep(0.5)
        assert await stream.reconnect()
        ticks += await stream.take(2)

        assert [tick.id for tick in ticks] == ["1000", "1001", "1002", "1003"]


@pytest.mark.parametrize(
    ("last_event_id", "expected"),
    [
        pytest.param(None, 1000, id="first-visit"),
        pytest.param("997", 998, id="was-away"),
        pytest.param("1000", 1001, id="has-all"),
        pytest.param("1", 940, id="was-away-too-long"),
        pytest.param("-7", 940, id="negative"),
        pytest.param("99999999999999999999", 1001, id="from-the-future"),
        pytest.param("12:00", 1000, id="not-a-number"),
        pytest.param("9" * 5000, 1000, id="more-digits-than-python-reads"),
    ],
)
async def test_clock_believes_no_last_event_id(last_event_id: str | None, expected: int) -> None:
    assert load_clock().next_second(last_event_id) == expected


# 02: a file is read in threads, for which a clock that jumps does not wait.


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> anyio.Path:
    path = tmp_path / "some.log"
    path.write_text("one\ntwo\nthr")
    monkeypatch.setenv("FOLLOW", str(path))
    return anyio.Path(path)


@pytest.mark.real_time
async def test_tail_follows_a_file(followed: anyio.Path) -> None:
    async with connect(load("02_tail").app) as stream:
        assert [(e.data, e.id) for e in await stream.take(2)] == [("one", "4"), ("two", "8")]
        async with await followed.open("a") as file:
            await file.write("ee\nfour\n")

        assert [e.data for e in await stream.take(2)] == ["three", "four"]

        await followed.write_text("new\n")

        assert (await stream.next_event()).data == "new"


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("last_event_id", "expected"),
    [("4", "two"), ("8000", "one"), ("-1", "one"), ("four", "one"), ("9" * 5000, "one")],
)
async def test_tail_continues_after_the_last_event_id(
    followed: anyio.Path, last_event_id: str, expected: str
) -> None:
    async with connect(load("02_tail").app, last_event_id=last_event_id) as stream:
        assert (await stream.next_event()).data == expected


# 03


async def test_members_get_their_stream_and_hold_no_connection() -> None:
    members = load("03_members")
    async with connect(members.app, headers={"Authorization": "Bearer alice"}) as stream:
        assert (await stream.next_event()).data == "No. 1, for alice only"
        assert members.database.connections == 0


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ({}, 401, 'Bearer realm="news"'),
        ({"Authorization": "Basic YWxpY2U6"}, 401, 'Bearer realm="news"'),
        ({"Authorization": "Bearer bob"}, 403, None),
    ],
)
async def test_others_are_refused(
    headers: dict[str, str], status: int, challenge: str | None
) -> None:
    members = load("03_members")
    async with connect(members.app, headers=headers) as stream:
        assert stream.status == status
        assert stream.headers.get("www-authenticate") == challenge
        assert members.database.connections == 0


# 04


async def test_chat_answers_token_by_token() -> None:
    chat = {"messages": [{"role": "user", "content": "Say it."}]}
    async with connect(load("04_chat").app, method="POST", json=chat) as stream:
        data = [event.data or "" async for event in stream]

        assert data[-1] == "[DONE]"
        deltas = [json.loads(each)["choices"][0]["delta"] for each in data[:-1]]
        assert deltas == [{"content": "Say "}, {"content": "it. "}, {}]
        assert [chunk.time for chunk in stream.chunks] == pytest.approx([0, 0.1, 0.2])
        assert stream.complete


@pytest.mark.parametrize(
    "body",
    [
        "",
        "Say it.",
        "[]",
        '{"messages": []}',
        '{"messages": [{"role": "user", "content": 1}]}',
        b"\xff",
        "[" * 100_000,
    ],
)
async def test_chat_refuses_what_it_does_not_understand(body: str | bytes) -> None:
    async with connect(load("04_chat").app, method="POST", body=body) as stream:
        assert stream.status == 400
        assert b"The body must be like" in await stream.read()


async def test_chat_is_no_page_to_get() -> None:
    async with connect(load("04_chat").app) as stream:
        assert (stream.status, stream.headers["allow"]) == (405, "POST")


# 05


async def test_sensors_are_read_by_turns_until_the_client_leaves() -> None:
    sensors = load("05_sensors")
    async with connect(sensors.app) as stream:
        began = anyio.current_time()
        readings = [json.loads((await stream.next_event()).data or "") for _ in range(6)]

        assert sorted(reading["sensor"] for reading in readings[:2]) == ["temperature", "wind"]
        assert [r["sensor"] for r in readings[2:]] == ["wind", "wind", "temperature", "wind"]
        assert anyio.current_time() - began == pytest.approx(2.1)

        stream.disconnect()
        await stream.wait_closed(timeout=0.1)

        assert stream.error is None


# 07


async def ticket_of(app: Any, token: str) -> str | None:
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(app, "/tickets", method="POST", headers=headers) as answer:
        assert answer.headers["cache-control"] == "no-store"
        ticket = (await answer.read()).decode()
        return ticket if answer.status == 200 else None


async def test_a_ticket_is_good_for_one_stream() -> None:
    app = load("07_tickets").app
    ticket = await ticket_of(app, "alice")
    async with connect(app, "/events", query={"ticket": [ticket]}) as stream:
        assert (await stream.next_event()).data == "No. 1, for alice only"

        # As a browser does; the page then asks for another ticket.
        assert not await stream.reconnect()
        assert stream.status == 401
    ticket = await ticket_of(app, "alice")
    async with connect(app, "/events", query={"ticket": [ticket], "lastEventId": [1]}) as stream:
        assert (await stream.next_event()).data == "No. 2, for alice only"


async def test_a_ticket_is_good_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("07_tickets")
    monkeypatch.setattr(example, "time", SimpleNamespace(monotonic=anyio.current_time))
    ticket = await ticket_of(example.app, "alice")
    await anyio.sleep(30)
    async with connect(example.app, "/events", query={"ticket": [ticket]}) as stream:
        assert stream.status == 401
    # Those that nobody came with are forgotten.
    await ticket_of(example.app, "alice")
    await anyio.sleep(30)
    await ticket_of(example.app, "alice")

    assert len(example.tickets._tickets) == 1


@pytest.mark.parametrize("query", ["", "ticket=", "ticket=guessed"])
async def test_nobody_enters_without_a_ticket(query: str) -> None:
    async with connect(load("07_tickets").app, "/events", query=query) as stream:
        assert stream.status == 401


async def test_tickets_are_for_members() -> None:
    app = load("07_tickets").app

    assert await ticket_of(app, "bob") is None
    for path, status in (("/", 200), ("/x", 404)):
        async with connect(app, path) as answer:
            assert answer.status == status


# 08


async def test_metrics_are_those_of_the_streams() -> None:
    app = load("08_prometheus").app
    async with connect(app, path="/events") as stream:
        assert json.loads((await stream.next_event()).data or "").keys() == {"price"}
    async with connect(app, path="/metrics") as answer:
        await answer.wait_closed()
    metrics = dict(
        line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if line[0] != "#"
    )

    assert metrics["sse_open_streams"] == "0.0"
    assert metrics['sse_closed_streams_total{reason="client"}'] == "1.0"
    assert float(metrics["sse_events_total"]) >= 1
    assert metrics["sse_stream_duration_seconds_count"] == "1.0"
    async with connect(app, path="/") as page:
        await page.wait_closed()
    # All that it plots is there.
    plotted = set(re.findall(r'"(sse_\w+)"', page.body.decode()))

    assert plotted <= {name.partition("{")[0] for name in metrics}
    assert len(plotted) == 6
