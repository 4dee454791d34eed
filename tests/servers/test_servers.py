"""
What a stream promises, on every server that is supported.
"""

import time
from typing import Literal

import httpx
import pytest

from harness import SERVERS, Certificates, Server
from visitor import BackDoor, Http2Connection, Visitor

HTTP2_SERVERS = [name for name, config in SERVERS.items() if config.http2]
HALF_A_MEGABYTE = b"x" * 2**19


def test_events_arrive_as_they_are_yielded(server: Server) -> None:
    with Visitor(server, "/steered") as visitor:
        assert visitor.response.status_code == 200
        assert visitor.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert visitor.read(b"\n\n") == b":\n\n"
        # Each is yielded only after the one before has arrived: no clock is needed.
        for data in ("one", "two", "three"):
            visitor.let_go_on(data)

            assert next(visitor).data == data


def test_compressed_events_arrive_as_they_are_yielded(server: Server) -> None:
    door = BackDoor(server)
    headers = {"accept-encoding": "gzip"}
    with server.client().stream("GET", "/gzip", params=door.key, headers=headers) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["vary"] == "Accept-Encoding"
        body = response.iter_bytes()
        assert next(body) == b":\n\n"
        for data in ("one", "two", "three"):
            door.let_go_on(data)

            assert next(body) == f"data: {data}\n\n".encode()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_leaves_has_its_source_closed_within_a_second(
    server: Server, how: Literal["close", "reset", "half-close"]
) -> None:
    with Visitor(server, "/steered") as visitor:
        visitor.let_go_on("one")
        next(visitor)
        left = time.monotonic()
        visitor.leave(how)
        report = visitor.report()

        assert time.monotonic() - left < 1
        assert report["cleaned_up"]
        assert (report["reason"], report["events"]) == ("client", 1)


@pytest.mark.parametrize("server", HTTP2_SERVERS, indirect=True)
def test_one_of_several_http2_streams_is_left(server: Server) -> None:
    leaver, stayer = BackDoor(server), BackDoor(server)
    with Http2Connection(server) as connection:
        left = connection.request("/steered", leaver.key)
        stayed = connection.request("/steered", stayer.key)
        connection.read(left, until=b":\n\n")
        connection.reset(left)
        report = leaver.report(timeout=1)

        assert (report["reason"], report["cleaned_up"]) == ("client", True)

        stayer.let_go_on("one")

        assert connection.read(stayed, until=b"one\n\n") == b":\n\ndata: one\n\n"


def test_head_gets_the_headers_and_leaves_the_connection_usable(server: Server) -> None:
    client = server.client()
    for _ in range(2):
        response = client.head("/steered")

        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"

    assert "data: two" in client.get("/finishing").text


def test_keep_alives_arrive(server: Server) -> None:
    with Visitor(server, "/silent") as visitor:
        assert visitor.read(until=b":\n:\n:\n") in (b":\n\n" + b":\n" * n for n in range(3, 10))


@pytest.mark.parametrize(
    ("path", "reason", "expected"),
    [
        ("/finishing", "finished", ["one", "two"]),
        ("/closing", "closed", ["one"]),
        ("/aging", "max_age", []),
    ],
)
def test_a_stream_that_ends_on_this_side_is_complete(
    server: Server, path: str, reason: str, expected: list[str]
) -> None:
    with Visitor(server, path) as visitor:
        assert [event.data for event in visitor] == expected
        report = visitor.report()
        assert (report["reason"], report["events"]) == (reason, len(expected))


def test_a_source_that_raises_has_its_events_sent_and_no_client_left_waiting(
    server: Server,
) -> None:
    with Visitor(server, "/failing") as visitor:
        assert [next(visitor).data, next(visitor).data] == ["one", "two"]
        end = httpx.RemoteProtocolError if server.config.truncates else StopIteration
        with pytest.raises(end):
            next(visitor)
        report = visitor.report()

        assert (report["reason"], report["error"]) == ("error", "DeliberateError")

    message = "DeliberateError: after two events"
    assert server.take_output(until=message).count(message) == 1


def test_a_source_that_raises_before_anything_is_an_internal_server_error(
    server: Server,
) -> None:
    assert server.client().get("/broken").status_code == 500
    message = "DeliberateError: before the first event"
    assert server.take_output(until=message).count(message) == 1


def test_a_refusal_is_an_ordinary_response(server: Server) -> None:
    response = server.client().get("/refusing")

    assert (response.status_code, response.text) == (403, "not you")
    assert response.headers["x-reason"] == "test"


def test_a_request_body_is_read(server: Server) -> None:
    with Visitor(server, "/echo", method="POST", content=HALF_A_MEGABYTE) as visitor:
        assert [event.data for event in visitor] == ["524288"]


def test_a_request_body_that_nobody_reads_hides_no_disconnect(server: Server) -> None:
    with Visitor(server, "/steered", method="POST", content=HALF_A_MEGABYTE) as visitor:
        visitor.read(until=b":\n\n")
        visitor.leave()

        assert visitor.report(timeout=1)["reason"] == "client"


@pytest.mark.parametrize(
    ("path", "answer"), [("/refusing", b"not you"), ("/finishing", b"Only GET, HEAD are answered")]
)
@pytest.mark.parametrize("name", HTTP2_SERVERS)
def test_a_request_is_refused_before_its_body_arrives(
    name: str, path: str, answer: bytes, certificates: Certificates
) -> None:
    with (
        Server(SERVERS[name], "served:app", certificates) as server,
        Http2Connection(server) as connection,
    ):
        refused = connection.request(path, method="POST")
        time.sleep(0.1)
        connection.complete(refused, b"late")

        assert connection.read(refused, until=answer).startswith(answer)

        other = connection.request("/finishing")

        assert connection.read(other, until=b"two").endswith(b"data: two\n\n")


def test_a_client_that_reads_nothing_is_given_up(server: Server) -> None:
    with Visitor(server, "/flood") as visitor:
        expected = "send_timeout" if server.config.waits else "finished"

        assert visitor.report()["reason"] == expected
