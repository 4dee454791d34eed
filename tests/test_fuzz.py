"""
Whatever comes from outside, with everything switched on: no error, and nothing left over.

::

    FUZZ=20000 pytest tests/test_fuzz.py -s

makes so many examples on each event loop, of some requests each, and says how many it were.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asgi_sse import EventStream, Limiter, Request, ServerSentEvent
from asgi_sse.starlette import EventSourceResponse

EXAMPLES = int(os.environ.get("FUZZ", "60"))

#: How many requests got which answer.
answers: Counter[int | None] = Counter()


# What comes from outside

# What a server lets through is not more than this: no CR or LF in a header. It is sent
# all the same, for the next server.
raw = st.binary(max_size=60)
huge = st.builds(lambda part, times: part * times, raw, st.sampled_from([300, 3000]))


def pieces(*parts: bytes) -> st.SearchStrategy[bytes]:
    """
    Return values that are put together from what a header may be made of.
    """
    glue = [b",", b", ", b";", b"=", b" ", b"\t", b'"', b"\\", b"q=0", b";q=0.5", b"*", b"\xff"]
    return st.lists(st.sampled_from([*parts, *glue]), max_size=8).map(b"".join)


KNOWN: dict[bytes, st.SearchStrategy[bytes]] = {
    b"accept": st.sampled_from([b"text/event-stream", b"*/*", b"text/html"])
    | pieces(b"text/event-stream", b"text/*", b"*/*", b"charset=utf-8", b"application/json"),
    b"accept-encoding": st.sampled_from([b"gzip, deflate, br, zstd", b"identity;q=0, br"])
    | pieces(b"gzip", b"br", b"zstd", b"identity", b"deflate"),
    b"origin": st.sampled_from([b"https://shop.example", b"null", b"https://evil.example"])
    | pieces(b"https://", b"shop.example", b":443", b"/", b"null"),
    b"access-control-request-method": st.sampled_from([b"POST", b"", b"\x00"]),
    b"access-control-request-headers": pieces(b"x-token", b"content-type", b"\r\n"),
    b"last-event-id": st.sampled_from([b"7", b"", b"\xe2\x82\xac", b"a\nb"]) | raw,
    b"x-user": st.sampled_from([b"alice", b"bob", b""]),
    b"content-type": pieces(b"application/json"),
    b"sec-fetch-dest": st.sampled_from([b"empty", b"document"]),
    b"cookie": raw,
}


def header(name: bytes) -> st.SearchStrategy[tuple[bytes, bytes]]:
    """
    Return a header by this name, in any case, with a value that makes sense or none.
    """
    names = st.sampled_from([name, name.title(), name.upper()])
    return st.tuples(names, KNOWN[name] | raw | huge)


headers = st.lists(
    st.sampled_from(sorted(KNOWN)).flatmap(header) | st.tuples(raw, raw),
    max_size=10,
)
queries = st.lists(
    st.sampled_from([b"lastEventId", b"user", b"=", b"&", b"%", b"%0", b"%ff", b"%0a", b"+", b"7"])
    | raw,
    max_size=6,
).map(b"".join)
methods = st.sampled_from(
    [*["GET"] * 6, *["POST"] * 4, "HEAD", "OPTIONS", "OPTIONS", "PUT", "", "get", "\u20ac"]
)
bodies = st.lists(raw | huge, max_size=4)


@dataclass
class Visit:
    """
    One request, and how long its client stays.
    """

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: list[bytes]
    #: Seconds until it leaves.
    leaves: float


visits = st.builds(
    Visit,
    method=methods,
    path=st.sampled_from(["/", "/strict", "/page", "/starlette", "\x00"]),
    query=queries,
    headers=headers,
    body=bodies,
    leaves=st.sampled_from([0, 0.5, 5, 50]),
)

ASKS = [(b"origin", b"https://shop.example"), (b"access-control-request-method", b"POST")]


# What it comes to


def user(request: Request) -> str | None:
    """
    Return whatever says who it is.
    """
    return request.query.get("user") or request.headers.get("x-user")


async def echo(request: Request) -> AsyncIterator[Any]:
    """
    Look at everything that a request has, and give it back.
    """
    body = b"" if request.method == "GET" else await request.body()
    request.response_headers["X-Length"] = str(len(body))
    return tell(request, body)


async def tell(request: Request, body: bytes) -> AsyncIterator[Any]:
    yield ServerSentEvent(repr(dict(request.query)), id=request.last_event_id)
    yield list(request.headers.items())
    await anyio.sleep(1)
    yield body.decode("latin-1")
    if request.last_event_id == "7":
        await anyio.sleep_forever()
    await anyio.sleep(1)


async def page(scope: Any, receive: Any, send: Any) -> None:
    """
    Answer who does not ask for an event stream.
    """
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = b"" if scope["method"] == "HEAD" else b"a page"
    await send({"type": "http.response.body", "body": body})


limit = Limiter(4, each=2, per=user, retry_after=5)
every: dict[str, Any] = {
    "methods": ["GET", "POST"],
    "limit": limit,
    "compress": True,
    "max_age": 20.0,
    "keep_alive": 1.0,
    "max_body_size": 1000,
    "retry": 1000,
}
APPS: dict[str, Any] = {
    "/": EventStream(echo, **every, allow_origins="*"),
    "/strict": EventStream(
        echo,
        **{**every, "compress": ["br", "gzip"]},
        accept="strict",
        allow_origins=lambda origin: "shop" in origin,
        allow_credentials=True,
    ),
    "/page": EventStream(echo, **every, fallback=page, allow_origins=["https://shop.example"]),
}


async def adapter(scope: Any, receive: Any, send: Any) -> None:
    """
    Answer as an endpoint of Starlette does.
    """
    response = EventSourceResponse(
        tell(Request(scope, cast("Any", None)), b""),
        ping=1,
        limit=limit,
        compress=True,
        accept="strict",
        allow_origins=["https://shop.example"],
        allow_credentials=True,
    )
    await response(scope, receive, send)


APPS["/starlette"] = adapter


class Client:
    """
    A server and a client, that take nothing which ASGI does not allow.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._body = self._messages(visit.body)
        self._left = anyio.Event()
        self.status: int | None = None
        self._over = False

    def _messages(self, parts: list[bytes]) -> Iterator[dict[str, Any]]:
        for part in parts:
            yield {"type": "http.request", "body": part, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    async def run(self) -> None:
        """
        Make the request, and leave when it is time to.
        """
        visit = self._visit
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": visit.method,
            "path": visit.path,
            "query_string": visit.query,
            "headers": visit.headers,
            "client": None,
        }
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._leave, visit.leaves)
            app = APPS.get(visit.path, APPS["/"])
            await app(scope, self._receive, self._send)
            tasks.cancel_scope.cancel()
        assert self._over or self._left.is_set()
        answers[self.status] += 1

    async def _leave(self, when: float) -> None:
        await anyio.sleep(when)
        self._left.set()

    async def _receive(self) -> dict[str, Any]:
        message = next(self._body, None)
        if message is not None:
            return message
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        assert not self._over
        if message["type"] == "http.response.start":
            assert self.status is None
            self.status = message["status"]
            assert self.status in (200, 204, 403, 405, 406, 413, 429, 503)
            for name, value in message["headers"]:
                assert type(name) is type(value) is bytes
                assert name == name.lower()
                assert not {*b"\r\n\0"} & {*name, *value}
        else:
            assert message["type"] == "http.response.body"
            assert self.status is not None
            assert type(message["body"]) is bytes
            assert not (message["body"] and self._visit.method == "HEAD")
            self._over = not message["more_body"] if "more_body" in message else True


# Of a request with a header of 180 KB.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(visits, min_size=1, max_size=8)
    # The same client again and again.
    | st.builds(lambda visit, times: [visit] * times, visits, st.integers(3, 8))
)
@example([Visit("GET", "/", b"user=alice", [(b"accept", b"*/*")], [], 50)] * 3)
@example([Visit("GET", "/strict", b"", [(b"accept", b"a/b")], [], 0)])
@example([Visit("OPTIONS", "/page", b"", ASKS, [], 0)])
@example([Visit("POST", "/", b"", [], [b"too much" * 1000], 50)] * 5)
async def test_no_request_does_harm(together: list[Visit]) -> None:
    async with anyio.create_task_group() as tasks:
        for visit in together:
            tasks.start_soon(Client(visit).run)

    assert limit.statistics()[:2] == (0, 0)


def test_every_answer_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Or the requests above would not have been what they are meant to be.
    """
    with capsys.disabled():
        if "FUZZ" in os.environ:
            print(f"\n{answers.total():,} requests: {dict(answers.most_common())}")

    assert {200, 204, 406, 413, 429, 503} <= set(answers)
