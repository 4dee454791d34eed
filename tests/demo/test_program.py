import json
import signal
import socket
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import httpx_sse
import pytest

from program import PATIENCE, run, start

TARGET = """
    import anyio, signal, time
    from asgi_sse import ServerSentEvent

    async def clock(request):
        n = int(request.last_event_id or 0)
        while True:
            n += 1
            yield ServerSentEvent(f"tick {n}", event="tick", id=n)
            await anyio.sleep(0.01)

    async def flood():
        while True:
            yield "x" * 10_000

    def blocked():
        yield "one"
        time.sleep(1000)

    async def stubborn():
        try:
            yield "one"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                while signal.getsignal(signal.SIGINT) != signal.SIG_DFL:
                    await anyio.sleep(0.01)
                print("cleaning up", flush=True)
                await anyio.sleep(1000)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clock.py").write_text(textwrap.dedent(TARGET))
    return tmp_path


def take(url: str, count: int, last_event_id: str = "") -> list[httpx_sse.ServerSentEvent]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    with (
        httpx.Client(timeout=PATIENCE) as client,
        httpx_sse.connect_sse(client, "GET", f"{url}events", headers=headers) as source,
    ):
        events = source.iter_sse()
        return [next(events) for _ in range(count)]


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_at_once_with_open_clients(worker_class: str, number: int) -> None:
    with start("--worker-class", worker_class) as program, ExitStack() as clients:
        url = httpx.URL(program.url)
        for _ in range(3):
            client = socket.create_connection((url.host, url.port), PATIENCE)
            clients.enter_context(client)
            client.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1) == b"H"
        before = time.monotonic()

        assert program.end(number) == (0, "")
        # Far more than it takes; less than the last resort.
        assert time.monotonic() - before < 1.9


@pytest.mark.parametrize("target", ["clock:flood", "clock:blocked"])
def test_signal_ends_it_whatever_holds_on(target: str, folder: Path) -> None:
    """
    A client that takes nothing, and a source that blocks its thread.
    """
    with start(target, cwd=folder) as program:
        url = httpx.URL(program.url)
        with socket.create_connection((url.host, url.port), PATIENCE) as client:
            client.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1) == b"H"

            assert program.end(signal.SIGINT) == (0, "")


def test_second_signal_ends_it_on_the_spot(folder: Path) -> None:
    with start("clock:stubborn", cwd=folder) as program:
        url = httpx.URL(program.url)
        with socket.create_connection((url.host, url.port), PATIENCE) as client:
            client.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1) == b"H"
            program.process.send_signal(signal.SIGINT)
            assert program.process.stdout is not None
            assert program.process.stdout.readline() == "cleaning up\n"

            assert program.end(signal.SIGINT) == (-signal.SIGINT, "")


def test_vitals_are_served_by_default() -> None:
    with start() as program:
        assert program.greeting.startswith("Vitals of ")

        [event] = take(program.url, 1)

        assert event.event == "message"
        assert abs(int(event.id) - time.time()) < PATIENCE
        assert json.loads(event.data)["load"].keys() == {"one", "five", "fifteen"}


def test_lines_of_standard_input_go_to_every_client() -> None:
    with start("-") as program:
        program.stdin.write("first\n")
        program.stdin.flush()
        [first] = take(program.url, 1)
        program.stdin.write("second\nthird")
        program.stdin.close()

        assert first.data == "first"
        for _ in range(2):
            assert [event.data for event in take(program.url, 2, first.id)] == ["second", "third"]

        program.process.send_signal(signal.SIGTERM)
        assert program.process.stderr is not None
        assert "end of input after 3 lines" in program.process.stderr.read()


def test_target_is_served_from_the_current_directory(folder: Path) -> None:
    with start("clock:clock", "--retry", "7", cwd=folder) as program:
        [event] = take(program.url, 1, "41")

        assert (event.event, event.id, event.data) == ("tick", "42", "tick 42")
        assert program.greeting.startswith("clock:clock: http://127.0.0.1:")


def test_retry_and_keep_alive_are_the_streams_own() -> None:
    with start("-", "--retry", "7", "--keep-alive", "0.05") as program:
        with httpx.stream("GET", f"{program.url}events", timeout=PATIENCE) as response:
            body = b""
            for chunk in response.iter_raw():
                body += chunk
                if body.endswith(b":\n:\n"):
                    break

        assert b"retry: 7\n" in body


def test_port_in_use_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("--bind", bind)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"python -m asgi_sse: cannot listen on {bind}: Address already in use\n"
    )


def test_missing_module_is_told_in_one_sentence() -> None:
    ended = run("no_such_module:stream")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "python -m asgi_sse: no_such_module:stream cannot be imported: "
        "No module named 'no_such_module'\n"
    )
