import socket
import ssl
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme

from asgi_sse import EventStream, Request, ServerSentEvent
from asgi_sse._demo.hypercorn import ServeError, serve
from asgi_sse._demo.listen import listen, url_of
from asgi_sse._demo.site import App, Site

WORKER_CLASSES = [
    "asyncio",
    pytest.param(
        "uvloop", marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="needs uvloop")
    ),
    "trio",
]


async def count(request: Request) -> Any:
    n = int(request.last_event_id or 0)
    while True:
        n += 1
        yield ServerSentEvent("one more", id=n)
        await anyio.sleep(0.01)


def serve_while(
    talk: Callable[[str], object],
    app: App,
    *,
    run: Callable[[], Any] = anyio.sleep_forever,
    scheme: str = "http",
    **options: Any,
) -> None:
    """
    Serve until a client, in a thread, has had its talk.
    """
    listener = listen("127.0.0.1:0")
    url = url_of(listener, scheme)

    async def stop() -> None:
        await anyio.to_thread.run_sync(talk, url)

    serve(Site(app, "count"), listener, run=run, stop=stop, **options)


def read(client: httpx.Client, url: str, until: bytes, **options: Any) -> httpx.Response:
    body = b""
    with client.stream("GET", f"{url}events", **options) as response:
        for chunk in response.iter_raw():
            body += chunk
            if until in body:
                break
    response.extensions["body"] = body
    return response


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_page_and_stream_are_served(worker_class: str) -> None:
    bodies = []

    def talk(url: str) -> None:
        with httpx.Client() as client:
            bodies.append(client.get(url).content)
            headers = {"last-event-id": "41"}
            bodies.append(read(client, url, b"id: 44", headers=headers).extensions["body"])

    serve_while(talk, EventStream(count), worker_class=worker_class)
    page, stream = bodies

    assert b"<h1>count</h1>" in page
    assert b"id: 42\ndata: one more\n\nid: 43\n" in stream


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_open_streams_end_when_it_stops(
    worker_class: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Politely, where that can be: the response is complete.
    """
    sockets: list[socket.socket] = []

    def talk(url: str) -> None:
        port = httpx.URL(url).port
        assert port is not None
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", port), 20)
            client.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1) == b"H"
            sockets.append(client)

    serve_while(talk, EventStream(count), worker_class=worker_class)

    for client in sockets:
        with client, client.makefile("rb") as file:
            assert file.read().endswith(b"0\r\n\r\n")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_streams_of_other_libraries_end_too(worker_class: str) -> None:
    ended = []

    async def other(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    clients = []

    def talk(url: str) -> None:
        client = httpx.Client()
        clients.append(client)
        response = client.send(client.build_request("GET", f"{url}events"), stream=True)
        assert next(response.iter_raw()) == b"data: 1\n\n"

    serve_while(talk, other, worker_class=worker_class)
    clients[0].close()

    assert ended == [True]


def test_something_else_runs_beside_it() -> None:
    said = []

    async def run() -> None:
        said.append("running")

    serve_while(lambda url: None, EventStream(count), run=run)

    assert said == ["running"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder / "cert.pem", folder / "key.pem", context


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_certificate_brings_http_2(
    worker_class: str, certificate: tuple[Path, Path, ssl.SSLContext]
) -> None:
    certfile, keyfile, context = certificate
    responses = []

    def talk(url: str) -> None:
        with httpx.Client(http2=True, verify=context) as client:
            responses.append(read(client, url, b"id: 3\n"))

    serve_while(
        talk,
        EventStream(count),
        scheme="https",
        worker_class=worker_class,
        certfile=str(certfile),
        keyfile=str(keyfile),
    )

    assert responses[0].http_version == "HTTP/2"
    assert b"id: 3\n" in responses[0].extensions["body"]


def refuse(app: App, **options: Any) -> str:
    """
    Return why it cannot be served.
    """
    with pytest.raises(ServeError) as raised:
        serve_while(lambda url: None, app, **options)
    return str(raised.value)


@pytest.mark.parametrize("package", ["hypercorn", "trio"])
def test_missing_package_is_told(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    assert refuse(EventStream(count), worker_class="trio") == (
        f"{package} is not installed; try: pip install 'asgi-sse[serve]'"
    )


def test_missing_certificate_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")

    assert refuse(EventStream(count), certfile=missing, keyfile=missing).startswith(
        f"{missing} and {missing} are no certificate and its key: [Errno 2]"
    )


def test_wrong_certificate_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")

    assert "are no certificate and its key: [SSL" in refuse(
        EventStream(count), certfile=str(wrong), keyfile=str(wrong)
    )


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_application_that_refuses_to_start_is_told(worker_class: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    assert "no database" in refuse(app, worker_class=worker_class)


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_other_failures_come_out(worker_class: str) -> None:
    async def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as raised:
        serve_while(lambda url: None, EventStream(count), run=run, worker_class=worker_class)

    assert raised.group_contains(ZeroDivisionError)
