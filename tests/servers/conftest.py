"""
One process for each server, shared by the tests that only open streams.
"""

from collections.abc import Iterator

import pytest

from harness import SERVERS, Certificates, Server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Server]:
    with Server(SERVERS[request.param], "served:app", certificates) as server:
        yield server
