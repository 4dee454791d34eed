import os
from collections.abc import Iterator
from contextlib import aclosing, suppress

import anyio
import pytest

from asgi_sse import ServerSentEvent
from asgi_sse._demo.lines import Lines
from demo_asgi import make_request

pytestmark = pytest.mark.real_time


class Pipe:
    def __init__(self) -> None:
        self.fd, self._write = os.pipe()

    def write(self, data: bytes) -> None:
        assert os.write(self._write, data) == len(data)

    def end(self) -> None:
        os.close(self._write)

    def close(self) -> None:
        for fd in (self.fd, self._write):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


async def read(lines: Lines, last_event_id: str | None = None) -> list[ServerSentEvent]:
    """
    Return the events that a client gets until the input has ended.
    """
    events = []
    with anyio.fail_after(20):
        async with aclosing(await lines.events(make_request(last_event_id))) as client:
            async for event in client:
                events.append(event)
                if event.comment == "end of input":
                    break
    return events


async def data_of(written: bytes, pipe: Pipe) -> list[str | None]:
    lines = Lines(pipe.fd, print)
    pipe.write(written)
    pipe.end()
    await lines.run()
    return [event.data for event in await read(lines)][:-1]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param(b"a\nb\n", ["a", "b"], id="lines"),
        pytest.param(b"a\nb", ["a", "b"], id="last-line-without-an-end"),
        pytest.param(b"a\r\nb\r\n", ["a", "b"], id="crlf"),
        pytest.param(b"\n\n", ["", ""], id="empty-lines-are-events"),
        pytest.param(b"10%\r20%\n", ["10%\r20%"], id="progress-bar"),
        pytest.param("ä\u2028\x85\x0c\n".encode(), ["ä\u2028\x85\x0c"], id="no-other-line-ends"),
        pytest.param(b"\xff\xc3\n\xc3", ["\ufffd\ufffd", "\ufffd"], id="not-utf-8"),
        pytest.param(b"a\0b\n", ["a\0b"], id="nul"),
        pytest.param(b"a", ["a"], id="no-line-end-at-all"),
        pytest.param(b"", [], id="nothing"),
    ],
)
async def test_each_line_is_an_event(written: bytes, expected: list[str], pipe: Pipe) -> None:
    assert await data_of(written, pipe) == expected


async def test_character_may_come_in_two_pieces(pipe: Pipe) -> None:
    lines = Lines(pipe.fd, print)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lines.run)
        pipe.write(b"first\n\xc3")
        with anyio.fail_after(20):
            async with aclosing(await lines.events(make_request())) as client:
                first = await anext(client)
                pipe.write(b"\xa4\n")
                second = await anext(client)
        pipe.end()

    assert (first.data, second.data) == ("first", "ä")
    assert first.id is not None
    assert second.id is not None
    assert first.id.endswith("-1")
    assert second.id.endswith("-2")


async def test_end_is_told_to_clients_and_to_whoever_started_it(pipe: Pipe) -> None:
    counts: list[int] = []
    lines = Lines(pipe.fd, counts.append)
    pipe.write(b"a\nb\n")
    pipe.end()
    await lines.run()

    assert counts == [2]
    assert (await read(lines))[-1] == ServerSentEvent(comment="end of input")


async def test_reconnected_client_goes_on_after_its_last_line(pipe: Pipe) -> None:
    lines = Lines(pipe.fd, print)
    pipe.write(b"a\nb\nc\n")
    pipe.end()
    await lines.run()
    [first, *_] = await read(lines)

    assert [event.data for event in await read(lines, first.id)] == ["b", "c", None]


@pytest.mark.parametrize("last_event_id", ["", "-", "2", "another run-2", "x-y-z"])
async def test_last_event_id_of_another_run_counts_as_none(last_event_id: str, pipe: Pipe) -> None:
    lines = Lines(pipe.fd, print)
    pipe.write(b"a\n")
    pipe.end()
    await lines.run()

    assert [event.data for event in await read(lines, last_event_id)] == ["a", None]


async def test_line_without_end_is_not_gathered_in_memory(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_sse._demo.lines._LONGEST", 1000)

    lines = Lines(pipe.fd, print)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lines.run)
        pipe.write(b"x" * 2000)
        with anyio.fail_after(20):
            async with aclosing(await lines.events(make_request())) as client:
                first = await anext(client)
        pipe.end()

    assert first.data == "x" * 2000


async def test_nonblocking_input_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.fd, False)
    lines = Lines(pipe.fd, print)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lines.run)
        # The reader has found nothing by now, or will: either way it must wait.
        await anyio.sleep(0.05)
        pipe.write(b"a\n")
        pipe.end()

    assert [event.data for event in await read(lines)] == ["a", None]


async def test_input_that_cannot_be_read_is_at_its_end(pipe: Pipe) -> None:
    os.close(pipe.fd)
    lines = Lines(pipe.fd, print)
    await lines.run()

    assert await read(lines) == [ServerSentEvent(comment="end of input")]


async def test_reader_that_is_left_behind_does_no_harm(pipe: Pipe) -> None:
    lines = Lines(pipe.fd, print)
    with anyio.move_on_after(0.05) as scope:
        await lines.run()

    assert scope.cancelled_caught
