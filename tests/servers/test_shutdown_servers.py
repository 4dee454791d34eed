"""
Every server stops with a goodbye on every stream.
"""

import signal
from collections import Counter

import pytest

from crowd import Crowd, Reader
from harness import Certificates, Server
from ways_to_stop import CASES, Case

# Sources that have something to say at the end, that know of nothing, that finish.
CROWD = ["/asking"] * 50 + ["/unaware"] * 25 + ["/finite"] * 25
LAST_WORDS = {
    "/asking": ["hello", "last words"],
    "/unaware": ["hello"],
    "/finite": ["hello", "these", "are", "my", "last", "words"],
}


def check_goodbye(reader: Reader) -> None:
    """
    The client has got all that its source had to say, and then the farewell.
    """
    assert reader.status == 200
    assert reader.data == [*LAST_WORDS[reader.path], "goodbye"]


@pytest.mark.parametrize(
    ("case", "number"),
    [
        pytest.param(case, number, id=f"{case.name}-{number.name}")
        for number in (signal.SIGTERM, signal.SIGINT)
        for case in CASES
        # How a server learns of a signal has nothing to do with how it sends.
        if number == signal.SIGTERM or not case.config.http2
    ],
)
def test_every_stream_says_goodbye(
    case: Case, number: signal.Signals, certificates: Certificates
) -> None:
    http2 = case.config.http2
    # The harness sees that the process ends and that no traceback was printed.
    with Server(case.config, case.app, certificates) as server:
        case.wait_started(server)
        with Crowd(server.connect, CROWD, http2=http2) as crowd:
            crowd.wait_for(b"hello")
            # As a terminal sends it: to every process of the server.
            server.signal(number, group=number == signal.SIGINT)
            crowd.wait_over()

            for reader in crowd.readers:
                check_goodbye(reader)
            assert sum(not reader.complete for reader in crowd.readers) == case.unended
        server.wait_stopped()
        output = server.take_output()

    ends = Counter(line for line in output.splitlines() if line.startswith("closed "))
    # Every finally has come to its end, although it awaits.
    assert ends == {f"closed {path} shutdown True": CROWD.count(path) for path in LAST_WORDS}
