"""
Behind middleware the first event arrives at once, and the disconnect closes the source.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from harness import SERVERS, Certificates, Server
from served_middleware import MIDDLEWARE

LEFT = "The client has left."


@pytest.fixture(scope="module", params=["hypercorn-asyncio", "hypercorn-trio", "uvicorn-h11"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    config = SERVERS[request.param]
    with Server(config, "served_middleware:app", certificates, folder=Path(__file__).parent) as it:
        yield it


@pytest.mark.parametrize("path", ["clock/", "drop-in", "gzip/"])
@pytest.mark.parametrize("name", MIDDLEWARE)
def test_first_event_arrives_at_once(name: str, path: str, server: Server) -> None:
    """
    sse-starlette's README says that GZipMiddleware does not work; here it does.
    """
    headers = {"accept-encoding": "gzip, br", "origin": "https://example.org"}
    url = f"/{name}/sub/{path}"
    with server.client().stream("GET", url, headers=headers, timeout=5) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        encoding = response.headers.get("content-encoding", "")
        decode = {
            "": lambda data: data,
            "gzip": zlib.decompressobj(31).decompress,
            "br": brotli.Decompressor().process,
        }[encoding]
        body = b""
        chunks = response.iter_raw()
        while b"xxx" not in body:
            body += decode(next(chunks))

    root = "" if path == "drop-in" else f"/{path[:-1]}"
    if path == "gzip/":
        # Once, and by nobody else.
        assert encoding == "gzip"
    assert f"data: /{name}/sub{root}".encode() in body
    assert ("x-passed" in response.headers) == name.startswith("base-http")
    assert ("access-control-allow-origin" in response.headers) == (name == "cors")
    server.take_output(until=LEFT)
