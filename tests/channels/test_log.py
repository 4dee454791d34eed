from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sse import ServerSentEvent
from asgi_sse.channels._log import CompactLog, Log

LOGS = [Log, CompactLog]


def fill(log: Log, count: int, **options: Any) -> None:
    for _ in range(count):
        number = log.end + 1
        log.append(ServerSentEvent(str(number), id=log.id_at(number)), **options)


def kept(log: Log, position: int | None = None) -> list[str | None]:
    return [event.data for _, event in log.events(log.start if position is None else position)]


@pytest.mark.parametrize("make", LOGS)
def test_the_latest_events_are_kept(make: type[Log]) -> None:
    log = make(3)
    fill(log, 5)

    assert kept(log) == ["3", "4", "5"]
    assert (log.start, log.end) == (2, 5)
    assert (log.oldest(), log.latest()) == (log.id_at(3), log.id_at(5))


@pytest.mark.parametrize("make", LOGS)
def test_an_empty_log(make: type[Log]) -> None:
    log = make(3)

    assert kept(log) == []
    assert log.oldest() is None
    assert log.latest() is None
    assert log.since(0, 100) == (0, b"", 0)
    assert log.find(log.id_at(0)) == 0


@pytest.mark.parametrize("make", LOGS)
def test_events_age(make: type[Log]) -> None:
    log = make(10, max_age=5.0)
    fill(log, 2, now=1.0)
    fill(log, 1, now=3.0)
    log.expire(5.9)
    assert kept(log) == ["1", "2", "3"]

    log.expire(6.0)
    assert kept(log) == ["3"]

    fill(log, 1, now=8.0)
    assert kept(log) == ["4"]

    log.expire(100.0)
    assert kept(log) == []
    assert log.latest() is None
    assert log.find(log.id_at(4)) == 4
    assert log.find(log.id_at(3)) is None


@pytest.mark.parametrize("make", LOGS)
def test_without_an_age_nothing_expires(make: type[Log]) -> None:
    log = make(10)
    fill(log, 2)
    log.expire(1e9)

    assert kept(log) == ["1", "2"]


@pytest.mark.parametrize("make", LOGS)
def test_since_joins_and_stops_at_the_limit(make: type[Log]) -> None:
    log = make(10, epoch="e")
    fill(log, 3)
    one = len(b"id: e-1\ndata: 1\n\n")

    assert log.since(0, 2 * one) == (2, b"id: e-1\ndata: 1\n\nid: e-2\ndata: 2\n\n", 2)
    assert log.since(2, 2 * one) == (1, b"id: e-3\ndata: 3\n\n", 3)
    assert log.since(3, 2 * one) == (0, b"", 3)


@pytest.mark.parametrize("make", LOGS)
def test_one_event_is_never_too_large(make: type[Log]) -> None:
    log = make(10)
    fill(log, 2)

    assert log.since(0, 1)[0] == 1


@pytest.mark.parametrize("make", LOGS)
def test_readers_at_the_same_position_share_the_bytes(make: type[Log]) -> None:
    log = make(10)
    fill(log, 3)
    first = log.since(1, 1000)[1]
    # In between the first reader looks whether there is more.
    log.since(3, 1000)
    again = log.since(1, 1000)[1]

    assert again is first

    fill(log, 1)
    assert log.since(1, 1000)[0] == 3


@pytest.mark.parametrize("make", LOGS)
def test_a_single_event_is_not_copied(make: type[Log]) -> None:
    log = make(10)
    event = ServerSentEvent("x", id=log.id_at(1))
    log.append(event)

    assert log.since(0, 1000)[1] is event.encode()


def test_ids_name_the_log() -> None:
    log = Log(10)
    fill(log, 3)

    assert log.epoch != Log(10).epoch
    assert [log.find(log.id_at(n)) for n in range(5)] == [0, 1, 2, 3, None]


@pytest.mark.parametrize(
    "event_id",
    ["", "e", "e-", "-1", "e--1", "e-01", "e-+1", "e-1 ", "f-1", "e-\u0661", "e-" + "9" * 5000],
)
def test_ids_that_are_none(event_id: str) -> None:
    log = Log(10, epoch="e")
    fill(log, 3)

    assert log.find(event_id) is None


def test_given_ids_are_found_while_nothing_after_them_is_gone() -> None:
    log = Log(2)
    for name in "abc":
        log.append(ServerSentEvent(name, id=name), given=True)

    assert [log.find(name) for name in "abc"] == [None, 2, 3]
    assert [log.has_given(name) for name in "abc"] == [False, True, True]


def test_a_given_id_may_come_again_when_it_is_no_longer_kept() -> None:
    log = Log(3, max_age=1.0)
    log.append(ServerSentEvent("1", id="a"), given=True, now=0.0)
    log.append(ServerSentEvent("2", id="b"), given=True, now=0.5)
    log.append(ServerSentEvent("3", id="c"), given=True, now=2.0)
    assert not log.has_given("a")

    log.append(ServerSentEvent("4", id="a"), given=True, now=2.0)
    log.append(ServerSentEvent("5", id="d"), given=True, now=2.0)
    assert log.find("a") == 4


def test_a_long_log_does_not_keep_what_is_gone() -> None:
    log = Log(10, max_age=1.0)
    fill(log, 10_000)

    assert len(log._events) < 200
    assert len(log._times) < 200
    assert kept(log) == [str(n) for n in range(9_991, 10_001)]


# Only the latest of each key.


def append(log: Log, key: str | None, data: str) -> None:
    log.append(ServerSentEvent(data, id=log.id_at(log.end + 1)), key=key)


def test_an_event_supersedes_the_former_of_its_key() -> None:
    log = CompactLog(2)
    for number in range(100):
        append(log, "a", f"a{number}")
        append(log, "b", f"b{number}")

    assert kept(log) == ["a99", "b99"]
    # What is superseded is nothing that anybody has missed.
    assert log.start == 0
    assert kept(log, 199) == ["b99"]


def test_keys_that_are_too_many_go_as_events_do() -> None:
    log = CompactLog(2)
    append(log, "a", "a1")
    append(log, None, "none")
    append(log, "b", "b1")
    append(log, "a", "a2")

    assert kept(log) == ["b1", "a2"]
    assert log.start == 2
    # Neither the keys of those that went are kept.
    assert len(log._latest) == 2


@given(st.lists(st.sampled_from([None, "a", "b", "c"])), st.integers(1, 5))
def test_what_a_compact_log_tells_leads_to_the_same_state(
    keys: list[str | None], history: int
) -> None:
    """
    Whoever reads from a position that is not before the start has all that counts.
    """
    log = CompactLog(history)
    everything: list[tuple[int, str | None]] = []
    for number, key in enumerate(keys, 1):
        append(log, key, str(number))
        everything.append((number, key))
    last = {key: number for number, key in everything}

    for position in range(log.start, log.end + 1):
        expected = [
            str(number)
            for number, key in everything
            if number > position and (key is None or last[key] == number)
        ]
        assert kept(log, position) == expected


@given(st.integers(1, 200), st.integers(0, 1000))
def test_from_every_position_that_is_kept_the_rest_is_read(history: int, count: int) -> None:
    log = Log(history)
    fill(log, count)

    assert log.start == max(0, count - history)
    for position in {log.start, (log.start + log.end) // 2, log.end}:
        assert kept(log, position) == [str(n) for n in range(position + 1, count + 1)]
