"""
Each framework on a real server: the first event arrives at once, and the source is closed.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import SERVERS, Certificates, Server

FOLDER = Path(__file__).parent.parent.parent / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("mount_*.py"))
LEFT = "The client has left."


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["hypercorn-asyncio", "uvicorn-h11"])
def server_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def app_of(name: str, server_name: str) -> str:
    return name if server_name.startswith("hypercorn") else f"{name.removesuffix('.py')}:app"


def first_event(response: httpx.Response) -> bytes:
    body = b""
    chunks: Iterator[bytes] = response.iter_raw()
    while b"data: " not in body:
        body += next(chunks)
    return body


@pytest.mark.parametrize("name", EXAMPLES)
def test_event_stream_is_mounted(name: str, server_name: str, certificates: Certificates) -> None:
    """
    As behind a proxy that takes the first part of the path away, and tells the server.
    """
    app = app_of(name, server_name)
    # BlackSheep's mount() knows nothing of it.
    options = [] if "blacksheep" in name else ["--root-path", "/behind"]
    with Server(SERVERS[server_name], app, certificates, *options, folder=FOLDER) as server:
        with server.client().stream("GET", "/clock/", timeout=5) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert first_event(response).startswith(b":\n\ndata: ")
        server.take_output(until=LEFT)


@pytest.mark.parametrize(
    ("name", "path", "begin"),
    [
        ("mount_starlette.py", "/route", b":\n\ndata: "),
        ("mount_fastapi.py", "/ticks/7", b':\n\ndata: {"n":7}'),
        ("mount_django.py", "/view/", b":\n\ndata: "),
    ],
)
def test_event_stream_is_what_an_endpoint_gives(
    name: str, path: str, begin: bytes, server_name: str, certificates: Certificates
) -> None:
    app = app_of(name, server_name)
    with Server(SERVERS[server_name], app, certificates, folder=FOLDER) as server:
        with server.client().stream("GET", path, timeout=5) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert first_event(response).startswith(begin)
        if "fastapi" not in name:
            server.take_output(until=LEFT)


def test_every_framework_has_its_example() -> None:
    assert [name.removeprefix("mount_").removesuffix(".py") for name in EXAMPLES] == [
        "asgi",
        "blacksheep",
        "django",
        "falcon",
        "fastapi",
        "litestar",
        "quart",
        "starlette",
    ]
