import json
from typing import Any

import anyio

from asgi_sse import ServerSentEvent
from asgi_sse._demo.vitals import Vitals, rates
from demo_asgi import make_request

START = 1_800_000_000.3


def wall_clock() -> float:
    return START + anyio.current_time()


async def measure(vitals: Vitals, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await vitals.run()


async def read(vitals: Vitals, last_event_id: str | None = None) -> list[ServerSentEvent]:
    events: list[ServerSentEvent] = []
    with anyio.move_on_after(0.01):
        client = await vitals.events(make_request(last_event_id))
        while True:
            events.append(await anext(client))
    return events


def ids(events: list[ServerSentEvent]) -> list[str | None]:
    return [event.id for event in events]


async def test_each_second_of_the_clock_is_an_event_and_its_id() -> None:
    vitals = Vitals(wall_clock)
    await measure(vitals, 3)

    assert ids(await read(vitals)) == ["1800000001", "1800000002", "1800000003"]


async def test_data_are_numbers_and_a_time() -> None:
    vitals = Vitals(wall_clock)
    await measure(vitals, 1)
    [event] = await read(vitals)
    data: dict[str, Any] = json.loads(event.data or "")

    assert data.pop("time") == "2027-01-15T08:00:01Z"
    assert "load" in data
    for section in data.values():
        assert all(isinstance(value, int | float) for value in section.values())


async def test_too_short_a_second_is_passed_over() -> None:
    """
    A rate over a few milliseconds would be any number.
    """
    vitals = Vitals(lambda: wall_clock() + 0.5)
    await measure(vitals, 1.4)

    assert ids(await read(vitals)) == ["1800000002"]


async def test_ids_rise_when_the_clock_is_set_back() -> None:
    vitals = Vitals(lambda: wall_clock() - (3600 if anyio.current_time() > 2 else 0))
    await measure(vitals, 4)

    assert ids(await read(vitals)) == [f"180000000{n}" for n in (1, 2, 3, 4)]


async def test_client_goes_on_after_a_restart_without_repeats() -> None:
    await measure(Vitals(wall_clock), 3)
    vitals = Vitals(wall_clock)
    await measure(vitals, 2)

    assert ids(await read(vitals, "1800000003")) == ["1800000004", "1800000005"]


async def test_malformed_last_event_id_counts_as_none() -> None:
    vitals = Vitals(wall_clock)
    await measure(vitals, 1)

    for last_event_id in ("", "-1", "1e9", "٣", "9" * 5000, "a"):
        assert ids(await read(vitals, last_event_id)) == ["1800000001"]


def test_rates_are_means_over_the_time_between() -> None:
    before = {"idle": 0.0, "total": 0.0, "received": 5, "sent": 0, "read": 0, "written": 7}
    after = {"idle": 30.0, "total": 40.0, "received": 25, "sent": 1, "read": 0, "written": 9}

    assert rates(before, after, 2) == {
        "cpu": {"busy_percent": 25.0},
        "network": {"received_bytes_per_s": 10, "sent_bytes_per_s": 0},
        "disk": {"read_bytes_per_s": 0, "written_bytes_per_s": 1},
    }


def test_rates_are_of_counters_that_are_in_both_readings() -> None:
    assert rates({}, {"idle": 1, "total": 2, "received": 1, "sent": 1}, 1) == {}


def test_rates_are_never_negative() -> None:
    """
    Counters go back when an interface goes, and idleness may on some kernels.
    """
    before = {"idle": 0, "total": 0, "received": 100, "sent": 100}
    after = {"idle": 12, "total": 10, "received": 10, "sent": 101}

    assert rates(before, after, 1) == {
        "cpu": {"busy_percent": 0},
        "network": {"received_bytes_per_s": 0, "sent_bytes_per_s": 1},
    }
