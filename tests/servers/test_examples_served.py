"""
Each example runs as its docstring says.
"""

from pathlib import Path

import pytest

from harness import SERVERS, Certificates, Server

FOLDER = Path(__file__).parent.parent.parent / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("[0-9]*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_served_by_hypercorn(name: str, certificates: Certificates) -> None:
    config = SERVERS["hypercorn-asyncio"]
    with Server(config, name, certificates, folder=FOLDER) as server:
        # Some are a page, too; their stream is elsewhere.
        path = "/events" if "/events" in (FOLDER / name).read_text() else "/"
        response = server.client().options(path)

        assert response.status_code == 405
        assert response.headers["allow"] in ("GET, HEAD", "POST")
