"""
The commands, as a shell calls them.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_sse.testing import Chunk, Recording, _cli
from test_http import CHUNKED, END, chunk, event, listening

HERE = Path(__file__).parent


@pytest.fixture
def url() -> Iterator[str]:
    with listening(CHUNKED + chunk(event(1)) + chunk(event(2)) + END) as port:
        yield f"http://127.0.0.1:{port}/"


def test_check_an_app(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(HERE)

    assert _cli.check(["bare:clock", "--path", "/x", "--watch", "3", "-H", "x: y"]) == 0
    assert capsys.readouterr().out.startswith("event stream /x\n\n  ok       response ")
    assert _cli.check(["bare:silent", "--max-silence", "5"]) == 1
    assert "nothing for 5 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["no_such_module:app"], "'no_such_module:app' is neither a URL nor the place of an app"),
        (["bare"], "'bare' is neither a URL nor the place of an app"),
        ([":app"], "':app' is neither a URL nor the place of an app"),
        (["ftp://server/"], "url must be like http://host/path (got 'ftp://server/')"),
        (["http://server/", "-H", "x"], "a header must be like 'NAME: VALUE' (got 'x')"),
    ],
)
def test_check_something_else(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    error: str,
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(SystemExit) as caught:
        _cli.check(argv)

    assert caught.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.real_time
def test_check_a_server(capsys: pytest.CaptureFixture[str], url: str) -> None:
    status = _cli.check([url, "--watch", "1"])

    # It does not heed the last event ID.
    assert status == 1
    output = capsys.readouterr().out
    assert output.startswith(f"event stream {url}\n")
    assert "1 failed, 0 warning" in output


@pytest.mark.real_time
def test_record(capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str) -> None:
    path = tmp_path / "events.jsonl"

    assert _cli.record([url, str(path)]) == 0
    assert capsys.readouterr().out == f"2 chunks with 2 events in {path}\n"
    recording = Recording.load(path)
    assert [chunk.body for chunk in recording.chunks] == [event(1), event(2)]
    assert recording.end == "complete"
    assert ("content-type", "text/event-stream") in recording.headers

    assert _cli.record(["http://127.0.0.1:9/", str(path)]) == 1
    assert capsys.readouterr().err.startswith("http://127.0.0.1:9/: ")


@pytest.mark.real_time
def test_record_a_part(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with listening(CHUNKED + chunk(event(1))) as port:
        _cli.record([f"http://127.0.0.1:{port}", str(path)])
    assert Recording.load(path).end == "cut"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", SERVE, str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as server:
            for options in (["--for", "0.2"], ["--events", "1"]):
                assert _cli.record([url, str(path), *options, "--insecure"]) == 0
                recording = Recording.load(path)
                assert [chunk.body for chunk in recording.chunks] == [event(1)]
                assert recording.end == "stopped"
            server.kill()


# A server that never ends its response.
SERVE = f"""
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.recv(10000)
    connection.sendall({CHUNKED + chunk(event(1))!r})
    globals().setdefault("open", []).append(connection)
"""


@pytest.mark.real_time
def test_replay(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    chunks = [Chunk(0, event(1)), Chunk(3600, event(2))]
    Recording([("content-type", "text/event-stream")], chunks, "complete").save(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = (
            "import sys; from asgi_sse.testing import _cli; sys.exit(_cli.replay(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", program, str(path)]
        command += ["--bind", f"fd://{listener.fileno()}", "--speed", "inf"]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as server:
            assert _cli.record([f"http://127.0.0.1:{port}/", str(tmp_path / "again")]) == 0
            server.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 30
            assert server.wait(deadline - time.monotonic()) == 0
    again = Recording.load(tmp_path / "again")

    assert b"".join(chunk.body for chunk in again.chunks) == event(1) + event(2)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["missing"], "No such file or directory: 'missing'"),
        (["events.jsonl", "--speed", "0"], "speed must be more than 0"),
    ],
)
def test_replay_something_else(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    argv: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Recording().save("events.jsonl")
    with pytest.raises(SystemExit):
        _cli.replay(argv)

    assert error in capsys.readouterr().err


def test_replay_without_a_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn.asyncio", None)
    Recording().save(tmp_path / "events.jsonl")
    with pytest.raises(SystemExit):
        _cli.replay([str(tmp_path / "events.jsonl")])

    assert "hypercorn is not installed" in capsys.readouterr().err
