"""
What the hub answers.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest

from asgi_sse._hub.door import Door
from asgi_sse._hub.hub import Hub
from asgi_sse._hub.publishing import LARGEST
from asgi_sse.channels import Broker, BrokerError
from asgi_sse.testing import Headers, Server, Stream, serve
from demo_asgi import make_scope

HOST = "localhost:8000"
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    status: int
    text: str
    headers: Headers


class Client:
    """
    What this file asks a hub that is served.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    async def ask(self, path: str, **options: Any) -> Answer:
        options["headers"] = {"host": HOST, **options.get("headers", {})}
        async with self._server.connect(path, **options) as stream:
            await stream.read()
            return Answer(stream.status, stream.body.decode(), stream.headers)

    async def publish(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.ask(f"/publish/{path}", method="POST", body=body, **options)

    def subscribe(self, which: str = "", **options: Any) -> AbstractAsyncContextManager[Stream]:
        return self._server.connect(f"/events{which}", headers={"host": HOST}, **options)


@asynccontextmanager
async def opened(
    *names: str, token: str | None = None, broker: Broker | None = None
) -> AsyncIterator[Client]:
    """
    A hub, served as long as the ``with`` block.
    """
    hub = Hub(broker or Broker("memory://"), names, Door(token))
    async with serve(hub) as server:
        await hub.wait_opened()
        yield Client(server)


async def test_what_is_published_comes_with_the_id_that_was_answered() -> None:
    async with opened("news") as hub, hub.subscribe() as stream:
        status, text, headers = await hub.publish("news", "hello\nworld")
        event = await stream.next_event()

        assert (status, headers["content-type"]) == (201, "text/plain; charset=utf-8")
        assert (event.data, event.event, f"{event.id}\n") == ("hello\nworld", None, text)


async def test_a_client_goes_on_where_it_was() -> None:
    async with opened("news") as hub:
        first = (await hub.publish("news", "1")).text.strip()
        await hub.publish("news", "2")
        for options in ({"last_event_id": first}, {"query": {"lastEventId": first}}):
            async with hub.subscribe(**options) as stream:
                assert (await stream.next_event()).data == "2"


async def test_several_channels_come_in_one_stream_with_a_place_in_each() -> None:
    async with opened("a", "b", "c") as hub:
        async with hub.subscribe("?channel=a&channel=b&channel=a") as stream:
            for name in "abc":
                await hub.publish(name, name)
            await hub.publish("b", "b again")
            events = await stream.take(3)
        async with hub.subscribe(last_event_id=events[1].id) as stream:
            assert (await stream.next_event()).data == "b again"

    assert [event.data for event in events] == ["a", "b", "b again"]
    assert [(event.id or "").count("=") for event in events] == [2, 2, 2]


async def test_every_channel_is_subscribed_to_unless_some_are_named() -> None:
    async with opened("a", "b") as hub, hub.subscribe() as stream:
        await hub.publish("a", "1")
        await hub.publish("b", "2")

        assert [event.data for event in await stream.take(2)] == ["1", "2"]


async def test_a_wildcard_means_every_channel_like_it() -> None:
    async with opened("news.*") as hub, hub.subscribe() as stream:
        async with hub.subscribe("?channel=news.sports") as one:
            for name in ("news.sports", "news.weather"):
                assert (await hub.publish(name, name)).status == 201
            assert (await one.next_event()).data == "news.sports"
        refused = [
            await hub.publish(name, "x") for name in ("news.*", "news", "news.a.b", "news.%00")
        ]

        assert [event.data for event in await stream.take(2)] == ["news.sports", "news.weather"]
        assert [answer.status for answer in refused] == [400, 404, 404, 400]


async def test_more_channels_than_an_event_id_can_tell_are_refused() -> None:
    async with opened("news.*") as hub:
        query = "&".join(f"channel=news.{number:0200}" for number in range(50))
        answer = await hub.ask(f"/events?{query}", method="GET")

        assert answer.status == 400
        assert "names must be fewer, or shorter" in answer.text


@pytest.mark.parametrize(
    ("channel", "status"),
    [("news.*", 200), ("news.>", 404), (">", 404), ("*.*", 404), ("news.sports", 200)],
)
async def test_a_wildcard_of_a_client_means_no_more_than_that_of_the_hub(
    channel: str, status: int
) -> None:
    async with opened("news.*") as hub, hub.subscribe(f"?channel={channel}") as stream:
        assert stream.status == status


@pytest.mark.parametrize(("count", "status"), [(50, 200), (51, 400)])
async def test_a_request_may_ask_for_so_many_channels(count: int, status: int) -> None:
    query = "&".join(f"channel=news.{number}" for number in range(count))
    broker = Broker("memory://")
    async with opened("news.*", broker=broker) as hub, hub.subscribe(f"?{query}") as stream:
        assert stream.status == status
        if status == 400:
            await stream.read()
            assert stream.body == b"One request may ask for 50 channels at most (got 51).\n"


async def test_a_hub_may_have_more_channels_than_a_request_may_ask_for() -> None:
    async with opened(*map(str, range(51))) as hub, hub.subscribe() as stream:
        await hub.publish("50", "x")

        assert (await stream.next_event()).data == "x"


@pytest.mark.parametrize("options", [{"query": {"event": "x"}}, {"headers": {"Event-Type": "x"}}])
async def test_event_type_is_a_parameter_or_a_header(options: Any) -> None:
    async with opened("news") as hub, hub.subscribe() as stream:
        await hub.publish("news", "data", **options)

        assert (await stream.next_event()).event == "x"


async def test_json_is_the_data_as_it_is() -> None:
    async with opened("news") as hub, hub.subscribe() as stream:
        assert (await hub.publish("news", '{"a":  1}', headers=JSON)).status == 201
        assert (await stream.next_event()).data == '{"a":  1}'


async def test_a_name_may_have_any_characters_that_a_channel_may_have() -> None:
    async with opened("a/b", "Zürich 1") as hub, hub.subscribe() as stream:
        await hub.publish("a/b", "1")
        await hub.publish("Zürich 1", "2")

        assert [event.data for event in await stream.take(2)] == ["1", "2"]


async def test_a_name_with_wildcards_is_subscribed_to_only() -> None:
    async with opened("news.*", "news.sports") as hub, hub.subscribe("?channel=news.*") as stream:
        await hub.publish("news.sports", "1")
        refused = await hub.publish("news.*", "2")

        assert (await stream.next_event()).data == "1"
        assert (refused.status, refused.text) == (
            400,
            "name must be that of one channel (got 'news.*').\n",
        )


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "text"),
    [
        ("news", "", {}, 400, "it is empty"),
        ("news", b"\xff", {}, 400, "must be UTF-8"),
        ("news", "{", JSON, 400, "must be JSON"),
        ("news", "{", {"content-type": "Application/x+JSON; a=b"}, 400, "must be JSON"),
        ("news", "[" * 100_000, JSON, 400, "must be JSON"),
        ("news?event=a%0Ab", "x", {}, 400, "event must be a single line"),
        ("news", "x" * (LARGEST + 1), {}, 413, "must not exceed 1048576 bytes"),
        ("olds", "x", {}, 404, "There is no channel 'olds' here, but: news, chat."),
        ("", "x", {}, 404, "There is no channel '' here"),
        ("n" * 10_000, "x", {}, 404, "There is no channel 'nnn"),
        ("*", "x", {}, 404, "There is no channel '*' here"),
        ("news%00", "x", {}, 404, "There is no channel 'news\\x00' here"),
    ],
)
async def test_what_cannot_be_published_is_refused(
    path: str, body: Any, headers: Any, status: int, text: str
) -> None:
    async with opened("news", "chat") as hub:
        answer = await hub.publish(path, body, headers=headers)

        assert answer.status == status
        assert text in answer.text
        assert len(answer.text) < 300


async def test_the_largest_event_is_published() -> None:
    async with opened("news") as hub, hub.subscribe() as stream:
        assert (await hub.publish("news", "x" * LARGEST)).status == 201
        assert (await stream.next_event()).data == "x" * LARGEST


async def test_nothing_is_published_by_a_client_that_left_halfway() -> None:
    messages = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    broker = Broker("memory://")
    hub = Hub(broker, ["news"], Door(None))
    scope = make_scope("POST", "/publish/news") | {"headers": [(b"host", b"localhost")]}
    async with broker:
        await hub(scope, receive, send)

    assert broker.channel("news").statistics().published == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/events?channel=olds", 404, "There is no channel 'olds' here, but: news."),
        ("POST", "/events", 405, ""),
        ("GET", "/publish/news", 405, "POST what is to be published."),
        ("HEAD", "/publish/news", 405, ""),
        ("GET", "/publish", 404, ""),
        ("GET", "/", 200, "<h1>Channel news</h1>"),
    ],
)
async def test_what_is_where(method: str, path: str, status: int, text: str) -> None:
    async with opened("news") as hub:
        answer = await hub.ask(path, method=method)

        assert answer.status == status
        assert text in answer.text


@pytest.mark.parametrize(
    ("token", "expected"), [(None, 'data-publish="true"'), ("secret", 'data-publish="false"')]
)
async def test_page_offers_the_channels_and_to_publish_where_everybody_may(
    token: str | None, expected: str
) -> None:
    async with opened("news", '"chat"', token=token) as hub:
        page = (await hub.ask("/")).text

        assert expected in page
        assert 'data-channels="[&quot;news&quot;, &quot;\\&quot;chat\\&quot;&quot;]"' in page


async def test_an_engine_that_cannot_be_reached_is_told() -> None:
    broker = Broker("memory://")
    async with opened("news", broker=broker) as hub:
        await broker._backend.aclose()
        answer = await hub.publish("news", "x")

        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.text == "It is not known to be published: the broker is closed\n"


async def test_an_engine_that_cannot_be_opened_is_no_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Any:
        raise BrokerError("not here")

    broker = Broker("memory://")
    monkeypatch.setattr(broker, "_open", refuse)
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    await Hub(broker, ["news"], Door(None))({"type": "lifespan"}, receive, send)

    assert said == [{"type": "lifespan.startup.failed", "message": "not here"}]


async def test_streams_end_when_the_hub_closes() -> None:
    hub = Hub(Broker("memory://"), ["news"], Door(None))
    async with serve(hub) as server, Client(server).subscribe() as stream:
        hub.close()
        await anyio.sleep(1)

        assert stream.closed


async def test_a_websocket_is_refused() -> None:
    sent = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    hub = Hub(Broker("memory://"), ["news"], Door(None))
    await hub({"type": "websocket", "path": "/events"}, receive, send)

    assert sent == ["websocket.close"]


# Who may.


async def test_a_token_is_asked_for() -> None:
    async with opened("news", token="s3cret") as hub:
        nobody = await hub.publish("news", "x")
        wrong = [
            await hub.publish("news", "x", headers={"authorization": value})
            for value in (
                "Bearer s3cre",
                "Bearer ",
                "bearer S3CRET",
                "Bearer \xe9",
                "Bearer s3crett",
            )
        ]
        other = await hub.publish("news", "x", headers={"authorization": "Basic s3cret"})
        right = await hub.publish("news", "x", headers={"authorization": "bearer  s3cret"})

    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert {(a.status, a.headers["www-authenticate"]) for a in wrong} == {
        (401, 'Bearer error="invalid_token"')
    }
    assert (other.status, right.status) == (401, 201)


async def test_who_has_no_token_learns_no_names() -> None:
    async with opened("news", token="s3cret") as hub:
        assert (await hub.publish("olds", "x")).status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 201),
        ("LOCALHOST:8000", 201),
        ("hub.localhost:8000", 201),
        ("127.0.0.1:8000", 201),
        ("127.9.9.9", 201),
        ("[::1]:8000", 201),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.0.1:8000", 421),
        ("[2001:db8::1]:8000", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_without_a_token_only_this_machine_is_answered(host: str, status: int) -> None:
    """
    A stranger's name may lead to this machine (DNS rebinding).
    """
    async with opened("news") as hub:
        answer = await hub.publish("news", "x", headers={"host": host})
        page = await hub.ask("/", headers={"host": host})

    assert (answer.status, page.status) == (status, 200 if status == 201 else status)


async def test_with_a_token_every_name_will_do() -> None:
    async with opened("news", token="s3cret") as hub:
        assert (await hub.ask("/", headers={"host": "hub.example"})).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://localhost:8000"}, 201),
        ({"origin": "https://LOCALHOST:8000"}, 201),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_without_a_token_pages_of_other_origins_may_not_publish(
    headers: dict[str, str], status: int
) -> None:
    async with opened("news") as hub:
        assert (await hub.publish("news", "x", headers=headers)).status == status


async def test_a_body_is_read_although_it_is_refused_where_hypercorn_would_break() -> None:
    """
    Over HTTP/2 the connection, with all its streams.
    """

    async def upload() -> AsyncIterator[bytes]:
        yield b"half"
        yield b"the other half"
        uploaded.append(True)

    uploaded: list[bool] = []
    async with opened("news") as hub:
        answer = await hub.publish(
            "news",
            upload(),
            headers={"origin": "null"},
            scope={"extensions": {"http.response.push": {}}},
        )

    assert (answer.status, uploaded) == (403, [True])
