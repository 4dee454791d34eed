"""
Under Starlette and FastAPI every stream says goodbye, too.
"""

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crowd import Crowd
from harness import Certificates, Server
from ways_to_stop import CONFIGS, RELOADS

HYPERCORN = ["hypercorn -k asyncio -w 1", "hypercorn -k trio -w 1"]

# "hello", and then...
LAST_WORDS = {
    "/drop-in": ["hello", "last words"],
    "/path-operation": ['"hello"', '"last words"', "goodbye"],
    "/asking": ["hello", "last words", "goodbye"],
}
CROWD = ["/drop-in"] * 40 + ["/path-operation"] * 40 + ["/asking"] * 20


def say_goodbye(server: Server, stop: Callable[[], object]) -> None:
    with Crowd(server.connect, CROWD) as crowd:
        crowd.wait_for(b"hello")
        stop()
        crowd.wait_over()

        for reader in crowd.readers:
            assert reader.data == LAST_WORDS[reader.path]
            assert reader.complete
            # None of them comes back at once.
            assert b"retry: " in reader.body


def check_cleaned_up(output: str, crowds: int = 1) -> None:
    lines = output.splitlines()
    assert Counter(line for line in lines if line.startswith(("cleaned up", "closed"))) == {
        "cleaned up /drop-in": 40 * crowds,
        "cleaned up /path-operation": 40 * crowds,
        "closed /asking shutdown True": 20 * crowds,
    }


@pytest.mark.parametrize("name", [*HYPERCORN, "uvicorn", "granian", "daphne"])
def test_ctrl_c(name: str, certificates: Certificates) -> None:
    with Server(CONFIGS[name], "stopping_adapters:plain", certificates) as server:
        say_goodbye(server, lambda: server.signal(signal.SIGINT, group=True))
        server.wait_stopped()
        check_cleaned_up(server.take_output())


# daphne cancels the middleware, which then passes nothing on.
BEHIND = [*HYPERCORN, "uvicorn", "gunicorn -k asgi"]


@pytest.mark.parametrize("name", [*BEHIND, "granian"])
def test_sigterm_behind_middleware(name: str, certificates: Certificates) -> None:
    with Server(CONFIGS[name], "stopping_adapters:behind", certificates) as server:
        say_goodbye(server, lambda: server.signal(signal.SIGTERM))
        server.wait_stopped()
        check_cleaned_up(server.take_output())


@pytest.mark.parametrize("name", [*BEHIND, "granian"])
def test_requests_while_the_server_begins_to_stop(name: str, certificates: Certificates) -> None:
    """
    They come on connections that it has kept, and no other stream is open that would know.
    """
    with Server(CONFIGS[name], "stopping_adapters:plain", certificates) as server:
        with Crowd(server.connect, ["/asking"]) as crowd:
            crowd.wait_for(b"hello")
        server.take_output(until="closed /asking client True")
        connections = [server.connect() for _ in range(20)]
        for connection in connections:
            connection.sendall(b"GET /nothing HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            connection.recv(1024)
        server.signal(signal.SIGTERM)
        waiting = iter(connections)
        with Crowd(lambda: next(waiting), ["/asking"] * 20) as crowd:
            crowd.wait_over()

            for reader in crowd.readers:
                if reader.events:
                    assert reader.complete
                    assert reader.data[-1] == "goodbye"
        server.wait_stopped()


@pytest.mark.parametrize("name", BEHIND)
def test_clients_that_read_nothing_behind_middleware(
    name: str, certificates: Certificates
) -> None:
    with Server(CONFIGS[name], "stopping_adapters:behind", certificates) as server:
        with Crowd(server.connect, ["/flood"] * 3) as crowd:
            crowd.wait_stalled()
            server.signal(signal.SIGTERM)
            server.wait_stopped()
        assert server.take_output().count("closed /flood shutdown True") == 3


@pytest.mark.parametrize("name", RELOADS)
def test_a_reload(name: str, certificates: Certificates, tmp_path: Path) -> None:
    reload = RELOADS[name]
    app = tmp_path / "stopping_adapters.py"
    for file in (app.name, "stopping.py"):
        shutil.copy(Path(__file__).with_name(file), tmp_path)
    outputs = []
    with Server(
        reload.config, "stopping_adapters:behind", certificates, folder=tmp_path
    ) as server:
        outputs.append(server.take_output(until=reload.serves))
        say_goodbye(server, lambda: outputs.append(reload.change(server, app)))
        outputs.append(server.take_output(until=reload.serves))
        say_goodbye(server, lambda: server.signal(signal.SIGTERM))
        server.wait_stopped()
        outputs.append(server.take_output())
        check_cleaned_up("".join(outputs), crowds=2)
