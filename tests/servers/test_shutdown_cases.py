"""
Stops that come at a bad time, in an odd way, or again and again.
"""

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from crowd import Crowd
from harness import Certificates, Server, ServerConfig
from ways_to_stop import CONFIGS, RELOADS

# One for each way to learn of the stop.
SOME = ["hypercorn -k asyncio -w 1", "hypercorn -k trio -w 1", "uvicorn", "granian", "daphne"]

on_some = pytest.mark.parametrize("name", SOME)


def ends(output: str) -> Counter[str]:
    return Counter(line for line in output.splitlines() if line.startswith("closed "))


def say_goodbye(server: Server, stop: Callable[[], object]) -> None:
    with Crowd(server.connect, ["/asking"] * 20) as crowd:
        crowd.wait_for(b"hello")
        stop()
        crowd.wait_over()

        assert all(reader.complete for reader in crowd.readers)
        assert all(reader.data[-2:] == ["last words", "goodbye"] for reader in crowd.readers)


# When the sources are not what one would wish.


@on_some
@pytest.mark.parametrize(
    ("path", "cleaned_up"), [("/setup", True), ("/stubborn", False)], ids=["setup", "stubborn"]
)
def test_sources_that_are_not_ready_to_end(
    name: str, path: str, cleaned_up: bool, certificates: Certificates
) -> None:
    with Server(CONFIGS[name], "stopping:app", certificates) as server:
        with Crowd(server.connect, [path] * 10) as crowd:
            if path == "/stubborn":
                crowd.wait_for(b"hello")
            else:
                server.take_output(until="setting up\n" * 10)
            server.signal(signal.SIGTERM)
            crowd.wait_over()

            assert all(reader.complete for reader in crowd.readers)
            assert all(reader.data[-1] == "goodbye" for reader in crowd.readers)
        server.wait_stopped()
        # With the last connection granian's process ends, and not with the last application.
        if (name, path) != ("granian", "/stubborn"):
            assert ends(server.take_output()) == {f"closed {path} shutdown {cleaned_up}": 10}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hypercorn -k uvloop -w 1", ["--graceful-timeout=1"]),
        ("hypercorn -k trio -w 1", ["--graceful-timeout=1"]),
        ("uvicorn", ["--timeout-graceful-shutdown=1"]),
        ("daphne", []),
    ],
)
def test_sources_that_want_to_finish_and_do_not(
    name: str, options: list[str], certificates: Certificates
) -> None:
    """
    They have as long as the server gives them. Then it cancels, and there is time for this.
    """
    with Server(CONFIGS[name], "stopping:app", certificates, *options) as server:
        with Crowd(server.connect, ["/endless"] * 10) as crowd:
            crowd.wait_for(b"hello")
            server.signal(signal.SIGTERM)
            crowd.wait_over()

            assert all(reader.complete for reader in crowd.readers)
            assert all(reader.data[-1] == "goodbye" for reader in crowd.readers)
        server.wait_stopped()
        # They print a traceback for each request that they cancel.
        server.take_output()


# When the clients are not.


@pytest.mark.parametrize(
    "name",
    [
        "hypercorn -k asyncio -w 1",
        "hypercorn -k trio -w 1",
        "hypercorn -k uvloop, HTTP/2",
        "asgi_sse.hypercorn.serve(), trio, HTTP/2",
        "uvicorn",
        "gunicorn -k asgi",
    ],
)
def test_clients_that_read_nothing_hold_nobody_up(name: str, certificates: Certificates) -> None:
    """
    All servers wait for them without end, but for those that we can take the connections from.
    """
    config = CONFIGS[name]
    with Server(config, "stopping:app", certificates) as server:
        with Crowd(server.connect, ["/flood"] * 3, http2=config.http2) as crowd:
            crowd.wait_stalled()
            server.signal(signal.SIGTERM)
            server.wait_stopped()
        assert ends(server.take_output()) == {"closed /flood shutdown True": 3}


# daphne ends without waiting for anything when a request has not come in wholly.
@pytest.mark.parametrize("name", [*SOME[:4], "gunicorn -k asgi"])
def test_streams_that_are_being_opened(name: str, certificates: Certificates) -> None:
    with Server(CONFIGS[name], "stopping:app", certificates) as server:
        with Crowd(server.connect, ["/asking"] * 50) as crowd:
            server.signal(signal.SIGTERM)
            crowd.wait_over()

            # Those that were not accepted any more are cut off by the server, or the system;
            # hypercorn also closes connections that it has just begun to answer on.
            for reader in crowd.readers:
                if reader.events:
                    assert reader.complete
                    assert reader.data[-1] == "goodbye"
        server.wait_stopped()


def test_a_first_stream_that_comes_after_the_signal(certificates: Certificates) -> None:
    with Server(CONFIGS["granian"], "stopping:late", certificates) as server:
        with Crowd(server.connect, ["/asking"]) as crowd:
            crowd.wait_over()
            (reader,) = crowd.readers

            assert reader.complete
            assert reader.data[-1] == "goodbye"
        server.wait_stopped()
        assert ends(server.take_output()) == {"closed /asking shutdown True": 1}


# Not granian: one signal more than it expects blocks its event loop for ever.
@pytest.mark.parametrize("name", [name for name in SOME if name != "granian"])
def test_a_second_ctrl_c(name: str, certificates: Certificates) -> None:
    """
    What it does is the server's to say: it may cut off, but not hang or complain.
    """
    with Server(CONFIGS[name], "stopping:app", certificates) as server:
        with Crowd(server.connect, ["/asking"] * 10) as crowd:
            crowd.wait_for(b"hello")
            server.signal(signal.SIGINT, group=True)
            crowd.pump(lambda: True)
            server.signal(signal.SIGINT, group=True)
            crowd.wait_over()
        server.wait_stopped()


# When the server stops for other reasons, or not at once.


@pytest.mark.parametrize("worker", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("workers", [1, 4])
def test_sigterm_to_the_whole_group(worker: str, workers: int, certificates: Certificates) -> None:
    """
    As systemd sends it; without heed_signals() it kills hypercorn's workers at once.
    """
    config = CONFIGS[f"hypercorn -k {worker} -w {workers}"]
    with Server(config, "stopping:heedful", certificates) as server:
        say_goodbye(server, lambda: server.signal(signal.SIGTERM, group=True))
        server.wait_stopped()
        assert ends(server.take_output()) == {"closed /asking shutdown True": 20}


@pytest.mark.parametrize(
    ("name", "option", "stops"),
    [
        ("hypercorn -k asyncio -w 0", "--max-requests=20", True),
        ("uvicorn", "--limit-max-requests=3", True),
        ("gunicorn -k asgi", "--max-requests=3", False),
    ],
)
def test_enough_requests(name: str, option: str, stops: bool, certificates: Certificates) -> None:
    """
    hypercorn counts those that begin, the others those that are over. gunicorn goes on with
    another worker.
    """

    def make_requests() -> None:
        for _ in range(3):
            with suppress(httpx.TransportError), server.client() as client:
                client.head("/")

    with Server(CONFIGS[name], "stopping:app", certificates, option) as server:
        say_goodbye(server, make_requests)
        if stops:
            server.wait_stopped()


@on_some
def test_a_drain_before_the_stop(name: str, certificates: Certificates) -> None:
    with Server(CONFIGS[name], "stopping:app", certificates) as server:
        with Crowd(server.connect, ["/slow"] * 10 + ["/unaware"] * 5 + ["/stubborn"] * 3) as crowd:
            crowd.wait_for(b"hello")
            with Crowd(server.connect, ["/drain"]) as drain:
                slow = crowd.readers[:10]
                crowd.pump(lambda: all(reader.data[-1] == "closing" for reader in slow))
                with Crowd(server.connect, ["/asking"] * 10) as late:
                    late.wait_over()

                    for reader in late.readers:
                        # After any other status an EventSource gives up for good.
                        assert reader.status == 200
                        assert reader.complete
                        assert reader.data == ["goodbye"]
                assert server.client().get("/release").is_success
                crowd.wait_over()
                drain.wait_over()

                assert all(reader.complete for reader in crowd.readers)
                assert all(reader.data[-1] == "drained" for reader in crowd.readers)
                assert all(reader.data[-2] == "last words" for reader in slow)
                (counts,) = drain.readers
                assert counts.body == b"Drained(ended=10, cancelled=5, abandoned=3)"
        # The server goes on, and so do new streams.
        say_goodbye(server, lambda: server.signal(signal.SIGTERM))
        server.wait_stopped()
        assert ends(server.take_output()) == {
            "closed /slow closed True": 10,
            "closed /unaware closed True": 5,
            "closed /stubborn closed False": 3,
            "closed /asking shutdown True": 20,
        }


def test_it_is_switched_off(certificates: Certificates) -> None:
    environment = {"ASGI_SSE_WATCH_SHUTDOWN": "0"}
    with Server(
        CONFIGS["uvicorn"], "stopping:app", certificates, environment=environment
    ) as server:
        with Crowd(server.connect, ["/asking"] * 10) as crowd:
            crowd.wait_for(b"hello")
            server.signal(signal.SIGTERM)
            # For ever, as uvicorn does by itself.
            server.take_output(until="Waiting for connections to close")
            crowd.pump(lambda: True)

            assert not any(reader.over for reader in crowd.readers)
        server.wait_stopped()
        assert ends(server.take_output()) == {"closed /asking client True": 10}


@pytest.mark.parametrize("how", ["uvicorn-task", "uvicorn-threads"])
def test_a_program_that_stops_its_server_itself(how: str, certificates: Certificates) -> None:
    config = ServerConfig(how, f"embedded {how} {{fd}}")
    with Server(config, "stopping:app", certificates) as server:
        with Crowd(server.connect, ["/asking"] * 40) as crowd:
            crowd.wait_for(b"hello")
            # In two threads, first the one and then the other.
            server.signal(signal.SIGUSR1)
            crowd.pump(lambda: any(reader.over for reader in crowd.readers))
            if how == "uvicorn-threads":
                server.signal(signal.SIGTERM)
            crowd.wait_over()

            assert all(reader.complete for reader in crowd.readers)
            assert all(reader.data[-2:] == ["last words", "goodbye"] for reader in crowd.readers)
        server.wait_stopped()
        assert ends(server.take_output()) == {"closed /asking shutdown True": 40}


@pytest.mark.parametrize("how", ["twice-asyncio", "twice-trio", "uvicorn-twice"])
def test_two_servers_one_after_the_other(how: str, certificates: Certificates) -> None:
    config = ServerConfig(how, f"embedded {how} {{fd}}")
    with Server(config, "stopping:app", certificates) as server:
        say_goodbye(server, lambda: server.signal(signal.SIGUSR1))
        output = server.take_output(until="the second begins")
        # It is not taken for the one that has just stopped.
        say_goodbye(server, lambda: server.signal(signal.SIGTERM))
        server.wait_stopped()
        output += server.take_output()
        assert ends(output) == {"closed /asking shutdown True": 40}


@pytest.mark.parametrize("name", RELOADS)
def test_a_reload(name: str, certificates: Certificates, tmp_path: Path) -> None:
    reload = RELOADS[name]
    app = tmp_path / "stopping.py"
    shutil.copy(Path(__file__).with_name(app.name), app)
    outputs = []
    with Server(reload.config, "stopping:app", certificates, folder=tmp_path) as server:
        outputs.append(server.take_output(until=reload.serves))
        say_goodbye(server, lambda: outputs.append(reload.change(server, app)))
        outputs.append(server.take_output(until=reload.serves))
        say_goodbye(server, lambda: server.signal(signal.SIGTERM))
        server.wait_stopped()
        outputs.append(server.take_output())
        assert ends("".join(outputs)) == {"closed /asking shutdown True": 40}
