"""
Behind real proxies: events arrive at once, and one stream serves many clients.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import SERVERS, Certificates, Server

FOLDER = Path(__file__).parent.parent.parent / "examples" / "proxies"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    with Server(SERVERS["hypercorn-asyncio"], "app.py", certificates, folder=FOLDER) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """
    Run a proxy until the end of the block, and give its URL.
    """
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = (FOLDER / "nginx.conf").read_text()
    config = config.replace(":8000", f":{server.port}").replace(":8080", f":{port}")
    path = tmp_path / "nginx.conf"
    path.write_text(config)
    command = ["nginx", "-p", str(tmp_path), "-c", str(path), "-g", "daemon off;"]
    with running(command, port) as url:
        yield url


@pytest.fixture
def varnish(server: Server, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = (FOLDER / "fan_out.vcl").read_text().replace('"8000"', f'"{server.port}"')
    path = tmp_path / "fan_out.vcl"
    path.write_text(config)
    # As the user who runs the test, or a file of root's could not be read.
    process = ["-j", "none", "-n", str(tmp_path / "varnish"), "-s", "malloc,10m"]
    command = ["varnishd", "-F", *process, "-a", f"127.0.0.1:{port}", "-f", str(path)]
    with running(command, port) as url:
        yield url


@contextlib.contextmanager
def visit(url: str) -> Iterator[Iterator[str]]:
    with (
        httpx.Client(trust_env=False, timeout=5) as client,
        client.stream("GET", url) as response,
    ):
        assert response.status_code == 200
        yield (line for line in response.iter_lines() if line.startswith("data: "))


def test_nginx_passes_events_on_at_once(server: Server, nginx: str) -> None:
    server.take_output()
    with visit(f"{nginx}/mine") as events:
        began = time.monotonic()
        first = next(events)
        next(events)
        # Whatever nginx would do with its buffers of 4 KiB and more, it does not here.
        assert time.monotonic() - began < 4

    number = first.partition(",")[0].rpartition(" ")[2]
    server.take_output(until=f"Stream {number} is over.")


def test_nginx_opens_a_stream_for_each_client(nginx: str) -> None:
    with visit(f"{nginx}/mine") as one, visit(f"{nginx}/mine") as other:
        assert next(one).partition(",")[0] != next(other).partition(",")[0]


def test_varnish_serves_many_clients_from_one_stream(server: Server, varnish: str) -> None:
    server.take_output()
    with contextlib.ExitStack() as stack:
        visits = [stack.enter_context(visit(f"{varnish}/everyones")) for _ in range(10)]
        firsts = {next(events) for events in visits}
        seconds = {next(events) for events in visits}

    # All have seen the same two events, also those who came a little later.
    assert len(firsts) == len(seconds) == 1
    assert server.take_output().count("begins") == 1
