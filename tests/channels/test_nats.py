"""
Channels in NATS.
"""

import json
import re
import shutil
import socket
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import anyio.lowlevel
import nats
import pytest

from asgi_sse.channels import Broker, BrokerError
from asgi_sse.channels._nats import NatsBackend, _Consumer
from asgi_sse.testing import check_backend
from engines import Nats, kill_again_and_again, logs, on_asyncio, publish_at_last

DOCS = Path(__file__).parents[2] / "docs" / "channels.rst"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path) as server:
        yield server


async def ask(server: Nats, what: str, **body: Any) -> Any:
    """
    Ask JetStream something, as an operator would.
    """
    client = await nats.connect(server.url)
    answer = await client.request(f"$JS.API.{what}", json.dumps(body).encode())
    await client.close()
    return json.loads(answer.data)


@pytest.mark.real_time
@on_asyncio
async def test_nats_keeps_its_promises(server: Nats) -> None:
    await check_backend(lambda history: Broker(server.url, history=history))


@pytest.mark.real_time
@on_asyncio
async def test_nothing_is_lost_or_doubled_when_nats_is_killed(server: Nats) -> None:
    await kill_again_and_again(server, kills=4)


@pytest.mark.real_time
@on_asyncio
async def test_garbage_in_nats_is_skipped_and_counted(server: Nats) -> None:
    async with Broker(server.url) as broker:
        channel = broker.channel("a..b c")
        subscription = channel.subscribe()
        await anext(subscription)
        client = await nats.connect(server.url)
        subject = "asgi_sse.a%2E%2Eb%20c"
        await client.publish(subject, b"\xff\xfe")
        await client.publish(subject, b"x", headers={"retry": "soon"})
        await client.publish(subject, b"good", headers={"event": "e"})
        await client.close()
        event = await anext(subscription)

        assert (event.data, event.event) == ("good", "e")
        assert channel.statistics().skipped == 2


@pytest.mark.real_time
@on_asyncio
async def test_another_program_publishes_to_nats_as_the_docs_say(server: Nats) -> None:
    [says] = re.findall(r"\$ (printf '.*') \| nc ", DOCS.read_text())
    wire = (await anyio.run_process(["bash", "-c", says])).stdout
    async with Broker(server.url) as broker, broker.subscribe("news") as subscription:
        await anext(subscription)
        with socket.create_connection(server.address) as client:
            client.sendall(wire)
            event = await anext(subscription)
            answer = client.recv(10_000)

    assert (event.data, event.event) == ("hello", "greeting")
    assert b"PONG" in answer
    assert b"-ERR" not in answer


@pytest.mark.real_time
@on_asyncio
async def test_a_stream_that_was_made_anew_is_told(server: Nats) -> None:
    async with Broker(server.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        for number in range(3):
            await broker.publish("news", number)
            last = (await anext(subscription)).id
        assert (await ask(server, "STREAM.DELETE.asgi_sse"))["success"]
        with anyio.fail_after(20):
            for number in range(3, 10):
                await broker.publish("news", number)
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "3"
        # There is an event with its sequence, but not the one that it was.
        async with broker.subscribe("news", last_event_id=last) as subscription:
            assert (await anext(subscription)).event == "reset"


@pytest.mark.real_time
@on_asyncio
@pytest.mark.parametrize("grown", [0, 10])
async def test_a_server_that_has_lost_its_latest_messages_is_told(
    server: Nats, tmp_path: Path, grown: int
) -> None:
    async with (
        Broker(server.url, overflow="skip") as broker,
        Broker(server.url) as other,
        broker.subscribe("news") as subscription,
    ):
        await anext(subscription)
        await publish_at_last(broker, "1")
        await anext(subscription)
        server.kill()
        shutil.copytree(server.store, tmp_path / "older")
        server.start()
        with anyio.fail_after(20):
            for number in range(2, 5):
                await publish_at_last(broker, str(number))
                last = (await anext(subscription)).id
            server.kill()
            shutil.rmtree(server.store)
            shutil.move(tmp_path / "older", server.store)
            server.start()
            # More than were lost, perhaps before anybody looks.
            client = await nats.connect(server.url)
            for number in range(grown):
                await client.request("asgi_sse.news", b"new %d" % number)
            await client.close()
            assert (await anext(subscription)).event == "reset"
            events = [await anext(subscription) for _ in range(1 + grown)]
            assert [event.data for event in events] == ["1", *(f"new {n}" for n in range(grown))]
            async with other.subscribe("news", last_event_id=last) as later:
                assert (await anext(later)).event == "reset"


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_nats_has_overtaken_tells_so(server: Nats) -> None:
    async with Broker(server.url, history=2) as broker:
        await broker.publish("news", "0")
        backend = broker._open()
        assert isinstance(backend, NatsBackend)
        batches = backend.read("news", None)

        async def sequences() -> tuple[list[int], int | None]:
            batch = await anext(batches)
            missing = None if batch.missing is None else batch.missing[1]
            return [entry.order[1] for entry in batch.entries], missing

        assert await sequences() == ([1], 0)
        for number in range(1, 6):
            await broker.publish("news", str(number))
        assert await sequences() == ([5, 6], 4)
        # These are all that is kept, but nothing is missing before them.
        await broker.publish("other", "x")
        await broker.publish("news", "6")
        assert await sequences() == ([8], None)
        await batches.aclose()
        assert not backend._places
        last = (backend._incarnation, 6)
        batches = backend.read("news", last)
        assert await sequences() == ([8], None)
        await batches.aclose()
        await backend.aclose()


@pytest.mark.real_time
@on_asyncio
async def test_a_long_batch_is_no_gap_in_nats(server: Nats) -> None:
    async with Broker(server.url, history=5000) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "0")
        await anext(subscription)
        client = await nats.connect(server.url)
        for number in range(1, 2500):
            await client.publish("asgi_sse.news", b"%d" % number)
        await client.close()
        with anyio.fail_after(10):
            events = [await anext(subscription) for _ in range(2499)]

    assert [event.data for event in events] == [str(n) for n in range(1, 2500)]


@pytest.mark.real_time
@on_asyncio
async def test_messages_in_nats_age(server: Nats) -> None:
    # Long enough to receive what is written to the disk first.
    async with Broker(server.url, max_age=3) as broker:
        first = await broker.publish("news", "1")
        await broker.publish("news", "2")
        with anyio.fail_after(10):
            while (await ask(server, "STREAM.INFO.asgi_sse"))["state"]["messages"]:
                pass
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
            last = await broker.publish("news", "3")
            assert (await anext(subscription)).id == last


@pytest.mark.real_time
@on_asyncio
async def test_without_nats_nothing_is_published() -> None:
    async with Broker("nats://127.0.0.1:1", timeout=0.5) as broker:
        with pytest.raises(BrokerError, match="NATS: .*127.0.0.1"):
            await broker.publish("news", "x")


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_nats_says_what_it_needs() -> None:
    with pytest.raises(BrokerError, match="nats:// needs asyncio: nats-py knows no trio"):
        await Broker("nats://").__aenter__()


@pytest.mark.real_time
@on_asyncio
async def test_wildcards_in_nats_lose_and_double_nothing_either(server: Nats) -> None:
    await kill_again_and_again(server, kills=2, name="news.sports.chess", pattern="news.*.>")


@pytest.mark.real_time
@on_asyncio
async def test_what_is_too_large_for_nats_is_refused_with_both_sizes(server: Nats) -> None:
    async with Broker(server.url) as broker:
        with pytest.raises(BrokerError, match=r"max_payload is 1048576 bytes \(got 10000\d\d\d\)"):
            await broker.publish("news", "x" * 10_000_000)
        # The headers count, too: to the byte.
        for size in range(1048480, 1048580):
            try:
                await broker.publish("news", "x" * size, event="greeting")
            except BrokerError as exc:
                assert "max_payload" in str(exc)  # noqa: PT017
                largest = size - 1
                break
        with pytest.raises(BrokerError, match="max_payload"):
            await broker.publish("news", "x" * (largest + 1), event="greeting")


@pytest.mark.real_time
@on_asyncio
async def test_a_burst_of_large_messages_comes_in_parts(server: Nats) -> None:
    async with Broker(server.url) as broker, broker.subscribe("news") as subscription:
        await anext(subscription)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(broker.publish, "news", f"{number}" + 900_000 * " ")
        with anyio.fail_after(20):
            events = [await anext(subscription) for _ in range(20)]

    assert {int(event.data or "") for event in events} == set(range(20))


@pytest.mark.real_time
@on_asyncio
async def test_a_full_nats_is_told_to_the_publisher(server: Nats) -> None:
    async with Broker(server.url) as broker:
        await broker.publish("news", "x")
        config = (await ask(server, "STREAM.INFO.asgi_sse"))["config"]
        config |= {"max_bytes": 1000, "discard": "new"}
        assert "error" not in await ask(server, "STREAM.UPDATE.asgi_sse", **config)
        with pytest.raises(BrokerError, match="NATS: maximum bytes exceeded"):
            await broker.publish("news", "x" * 1000)


@pytest.mark.real_time
@on_asyncio
async def test_a_nats_that_does_not_answer_is_told_to_the_publisher(server: Nats) -> None:
    async with Broker(server.url, timeout=1) as broker:
        await publish_at_last(broker, "x")
        server.pause()
        with pytest.raises(BrokerError, match=r"NATS: .*(no answer within 1 s|timeout)"):
            await broker.publish("news", "x")
        # It accepts connections, and says nothing.
        async with Broker(server.url, timeout=1) as other:
            with pytest.raises(BrokerError, match=r"NATS: .*(no answer within 1 s|timeout)"):
                await other.publish("news", "x")
        server.go_on()
        with anyio.fail_after(10):
            await publish_at_last(broker, "x")


@pytest.mark.real_time
@on_asyncio
async def test_a_connection_that_answers_no_more_is_given_up(server: Nats) -> None:
    async with Broker(server.url, timeout=1) as broker:
        await publish_at_last(broker, "1")
        backend = broker._backend
        assert isinstance(backend, NatsBackend)
        client = backend._client
        server.pause()
        with anyio.fail_after(20):
            while not client.is_closed:
                with suppress(BrokerError):
                    await broker.publish("news", "x")
        server.go_on()
        with anyio.fail_after(10):
            await publish_at_last(broker, "2")
        assert backend._client is not client


@pytest.mark.real_time
@on_asyncio
async def test_a_nats_without_jetstream_is_told(server: Nats, tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text(config.read_text().partition("\n")[0])
    server.kill()
    server.start()
    async with Broker(server.url) as broker:
        with pytest.raises(BrokerError, match="NATS: nobody answers. Is JetStream enabled?"):
            await broker.publish("news", "x")


async def refused(broker: Broker, why: str) -> BrokerError:
    """
    Publish until it is said why that is refused.
    """
    # The server may hang up so fast that its reason is lost on the way.
    with anyio.fail_after(20):
        while True:
            with pytest.raises(BrokerError, match=r"NATS: ") as caught:
                await broker.publish("news", "x")
            if why in str(caught.value):
                return caught.value


@pytest.mark.real_time
@on_asyncio
async def test_who_may_not_enter_nats_is_told_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = 'authorization: {user: "me@home", password: "s3cret/?"}'
    with Nats(tmp_path, more) as server:
        url = server.url.replace("//", "//me%40home:s3cret%2F%3F@")
        async with Broker(url) as broker:
            await broker.publish("news", "x")
        async with Broker(url.replace("s3cret", "s3cre7"), timeout=1) as broker:
            caught = await refused(broker, "Authorization")
            with logs("not read for .*Authorization") as logged:
                broker.subscribe("news")
                await logged.wait()

    told = caplog.text + "".join(traceback.format_exception(caught))
    assert not re.search("s3cre[7t]%?[2/]", told)


@pytest.mark.real_time
@on_asyncio
async def test_a_token_opens_nats(tmp_path: Path) -> None:
    with Nats(tmp_path, 'authorization: {token: "s3cret/?"}') as server:
        other = server.url.replace("//", "//s3cret%2F%3F@")
        # The first of several may be down.
        async with Broker(f"nats://s3cret%2F%3F@127.0.0.1:1,{other}") as broker:
            assert await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_a_stream_of_an_operator_is_used_as_it_is_but_keeps_enough(server: Nats) -> None:
    mine = {"name": "asgi_sse", "subjects": ["asgi_sse.>"], "max_bytes": 1_000_000}
    more = {"max_msgs_per_subject": 2, "description": "mine", "storage": "memory"}
    assert "error" not in await ask(server, "STREAM.CREATE.asgi_sse", **mine, **more)
    async with Broker(server.url, history=10, max_age=60) as broker:
        first = await broker.publish("news", "1")
        config = (await ask(server, "STREAM.INFO.asgi_sse"))["config"]
        assert (config["description"], config["max_bytes"]) == ("mine", 1_000_000)
        assert (config["max_msgs_per_subject"], config["max_age"]) == (11, 60 * 10**9)
        for number in range(2, 12):
            await broker.publish("news", number)
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).data == "2"


class Reading:
    """
    A reader of one channel, that can be away and come back.
    """

    def __init__(self, server: Nats, history: int = 10, **options: Any) -> None:
        backend = Broker(server.url, history=history, **options)._open()
        assert isinstance(backend, NatsBackend)
        self.backend = backend
        self.last: tuple[int, ...] | None = None
        self._batches: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self.backend.aclose()

    async def leave(self) -> None:
        """
        Be away as after an error, and not for good.
        """
        if self._batches is not None:
            with suppress(BrokerError):
                await self._batches.athrow(BrokerError())
            self._batches = None

    async def publish(self, *texts: str) -> None:
        for text in texts:
            await self.backend.publish("news", {"data": text})

    async def read(self) -> tuple[str, bool]:
        """
        Return what comes next, and whether something may be missing before it.
        """
        self._batches = self._batches or self.backend.read("news", self.last)
        batch = await anext(self._batches)
        if batch.missing is not None:
            self.last = batch.missing
        if batch.entries:
            self.last = batch.entries[-1].order
        return "".join(entry.fields["data"] for entry in batch.entries), batch.missing is not None


@pytest.mark.real_time
@on_asyncio
async def test_what_nats_let_go_of_while_nobody_read_is_told(server: Nats) -> None:
    async with Reading(server, history=3) as reader:
        await reader.publish("a")
        assert await reader.read() == ("a", True)
        await reader.leave()
        await reader.publish("b", "c", "d")
        assert await reader.read() == ("bcd", False)
        await reader.leave()
        await reader.publish("e", "f", "g", "h")
        assert await reader.read() == ("fgh", True)


@pytest.mark.real_time
@on_asyncio
async def test_what_nats_let_go_of_by_size_is_told(server: Nats) -> None:
    mine = {"name": "asgi_sse", "subjects": ["asgi_sse.>"], "max_msgs": 3}
    assert "error" not in await ask(server, "STREAM.CREATE.asgi_sse", **mine)
    async with Reading(server) as reader:
        await reader.publish("a")
        assert await reader.read() == ("a", True)
        await reader.leave()
        await reader.publish("b", "c")
        assert await reader.read() == ("bc", False)
        await reader.leave()
        await reader.publish("d", "e", "f", "g")
        assert await reader.read() == ("efg", True)


@pytest.mark.real_time
@on_asyncio
async def test_what_became_too_old_in_nats_while_nobody_read_is_told(server: Nats) -> None:
    # Long enough to read what is written to the disk first.
    async with Reading(server, max_age=2) as reader:

        async def wait_until_empty() -> None:
            with anyio.fail_after(10):
                while (await ask(server, "STREAM.INFO.asgi_sse"))["state"]["messages"]:
                    pass

        # There was nothing when it left.
        assert await reader.read() == ("", True)
        await reader.leave()
        await reader.publish("lost")
        await wait_until_empty()
        assert (await reader.read())[1]
        await reader.publish("a")
        assert await reader.read() == ("a", False)
        place = reader.backend._places["news"]
        await reader.leave()
        await wait_until_empty()
        place.seen = anyio.current_time() - 3
        # It was the last.
        assert await reader.read() == ("", False)
        await reader.leave()
        await reader.publish("lost")
        await wait_until_empty()
        place.seen = anyio.current_time() - 3
        assert (await reader.read())[1]
        await reader.publish("b")
        assert await reader.read() == ("b", False)
        place = reader.backend._places["news"]
        await reader.leave()
        await wait_until_empty()
        # It has just read, and there was nothing.
        place.seen = anyio.current_time() + 60
        assert await reader.read() == ("", False)


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_comes_back_finds_a_loss(server: Nats) -> None:
    async with Reading(server) as reader:
        await reader.publish("a", "b")
        assert await reader.read() == ("ab", True)
        await reader.leave()
        incarnation = reader.backend._incarnation
        # What has this sequence now is another message.
        reader.backend._places["news"].time -= timedelta(seconds=1)
        assert await reader.read() == ("ab", True)
        assert reader.backend._incarnation > incarnation
        await reader.leave()
        incarnation = reader.backend._incarnation
        # Nothing has this sequence.
        reader.last = (incarnation, 1000)
        assert await reader.read() == ("ab", True)
        assert reader.backend._incarnation > incarnation


@pytest.mark.real_time
@on_asyncio
async def test_a_loss_that_another_reader_has_found_is_told(server: Nats) -> None:
    async with Reading(server) as reader:
        await reader.publish("a")
        assert await reader.read() == ("a", True)
        await reader.backend._begin_incarnation()
        await reader.backend._look()
        with pytest.raises(BrokerError, match="NATS: the stream has lost messages"):
            await reader.read()
        await reader.leave()
        assert await reader.read() == ("a", True)


@pytest.mark.real_time
@on_asyncio
async def test_messages_that_go_while_they_are_loaded_are_not_waited_for(server: Nats) -> None:
    async with Reading(server) as reader:
        await reader.publish("a", "b")
        client = reader.backend._client
        consumer = await reader.backend._consume(client, "asgi_sse.news", 1)
        consumer.pending += 1
        batch = await reader.backend._load(consumer, "news")
        await consumer.aclose()

        assert [entry.fields["data"] for entry in batch.entries] == ["a", "b"]


class Client:
    """
    It answers each pull with what it was given for it.
    """

    is_closed = False
    max_payload = 1000

    def __init__(self, *answers: list[Any]) -> None:
        self.consumer = _Consumer(self, "stream", "consumer", 0)
        self._answers = list(answers)

    def new_inbox(self) -> str:
        return "inbox"

    async def publish(self, subject: str, data: bytes, inbox: str) -> None:
        for message in self._answers.pop(0):
            await self.consumer._put(message)


def status(code: int, about: str = "") -> Any:
    return SimpleNamespace(reply="", headers={"Status": str(code), "Description": about})


def message(number: int) -> Any:
    sequence = SimpleNamespace(consumer=number)
    return SimpleNamespace(reply="$JS.ACK", metadata=SimpleNamespace(sequence=sequence))


@on_asyncio
async def test_a_consumer_asks_again_where_the_answer_was_cut() -> None:
    one, two = message(1), message(2)
    cut = status(409, "Message Size Exceeds MaxBytes")
    done = status(409, "Batch Completed")
    client = Client([one, cut], [cut], [two], [done])

    assert await client.consumer.take(0) == [one]
    assert await client.consumer.take(0) == [two]


@on_asyncio
@pytest.mark.parametrize("code", [404, 408])
async def test_a_consumer_says_when_there_is_nothing(code: int) -> None:
    one, two = message(1), message(2)
    client = Client([one, status(code)], [status(code)], [two])

    assert [await client.consumer.take(0) for _ in range(3)] == [[one], [], [two]]


@on_asyncio
async def test_a_consumer_says_what_went_wrong() -> None:
    with pytest.raises(BrokerError, match="NATS: Server Shutdown"):
        await Client([status(409, "Server Shutdown")]).consumer.take(0)
    with pytest.raises(BrokerError, match="NATS: 503"):
        await Client([status(503)]).consumer.take(0)
    with pytest.raises(BrokerError, match="NATS: a message was lost on the way"):
        await Client([message(2)]).consumer.take(0)
    client = Client()
    client.is_closed = True
    with pytest.raises(BrokerError, match="NATS: the connection was lost"):
        await client.consumer.take(0)


@pytest.mark.real_time
@on_asyncio
async def test_an_account_without_jetstream_is_told(tmp_path: Path) -> None:
    more = "accounts: {mine: {users: [{user: me, password: x}]}}"
    with Nats(tmp_path, more) as server:
        async with Broker(server.url.replace("//", "//me:x@")) as broker:
            with pytest.raises(BrokerError, match="NATS: .*[Jj]et[Ss]tream"):
                await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_a_message_that_was_lost_on_the_way_is_read_again(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = _Consumer._put
    lost: list[Any] = []

    async def lose(self: _Consumer, message: Any) -> None:
        if message.data == b"5" and not lost:
            lost.append(message)
        else:
            await put(self, message)

    monkeypatch.setattr(_Consumer, "_put", lose)
    async with Broker(server.url) as broker, broker.subscribe("news") as subscription:
        await anext(subscription)
        for number in range(10):
            await broker.publish("news", number)
        with anyio.fail_after(10):
            events = [await anext(subscription) for _ in range(10)]

    assert lost
    assert [event.data for event in events] == [str(number) for number in range(10)]


@pytest.mark.real_time
@on_asyncio
async def test_a_quiet_channel_of_a_busy_stream_is_found(server: Nats) -> None:
    async with Broker(server.url, history=2) as broker:
        ids = [await broker.publish("quiet", number) for number in range(3)]
        for number in range(200):
            await broker.publish(f"busy.{number}", "x")
        async with broker.subscribe("quiet", last_event_id=ids[0]) as subscription:
            assert [(await anext(subscription)).id for _ in range(2)] == ids[1:]
        async with broker.subscribe("busy.*", last_event_id="earliest") as subscription:
            assert len([await anext(subscription) for _ in range(3)]) == 3
            assert broker.channel("busy.*").statistics().position == 2


@on_asyncio
async def test_a_prefix_for_nats_has_something_to_call_the_stream() -> None:
    with pytest.raises(ValueError, match="prefix must have a letter or a digit"):
        await Broker("nats://", prefix=":").__aenter__()


class FakeClient:
    """
    It connects when it is told to, and says that it was closed when the test does.
    """

    max_payload = 1_000_000

    def __init__(self) -> None:
        self.is_closed = False
        self.connects = anyio.Event()
        self.closed_cb: Any = None

    async def connect(self, _: list[str], *, closed_cb: Any, **options: Any) -> None:
        self.closed_cb = closed_cb
        await self.connects.wait()

    async def request(self, *_: Any, **options: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return SimpleNamespace(data=b'{"seq": 1}')

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[FakeClient]:
    made: list[FakeClient] = []

    def make() -> FakeClient:
        made.append(FakeClient())
        return made[-1]

    async def look(_: NatsBackend) -> None:
        pass

    monkeypatch.setattr("asgi_sse.channels._nats.Client", make)
    monkeypatch.setattr(NatsBackend, "_look", look)
    return made


@on_asyncio
async def test_a_client_that_connects_after_the_end_is_closed(clients: list[FakeClient]) -> None:
    backend = NatsBackend("nats://", 10, None, "x", 5)
    errors: list[str] = []

    async def publish() -> None:
        with pytest.raises(BrokerError) as caught:
            await backend.publish("news", {})
        errors.append(str(caught.value))

    async with anyio.create_task_group() as tasks:
        # The second waits for the first, and is not to connect by itself.
        tasks.start_soon(publish)
        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        await backend.aclose()
        clients[0].connects.set()

    assert errors == ["NATS: the broker is closed"] * 2
    assert [client.is_closed for client in clients] == [True]


@on_asyncio
async def test_a_client_that_says_late_that_it_was_closed_leaves_the_next_alone(
    clients: list[FakeClient],
) -> None:
    backend = NatsBackend("nats://", 10, None, "x", 5)
    ended: list[str] = []

    async def publish(name: str) -> None:
        await backend.publish(name, {})
        ended.append(name)

    async def wait() -> None:
        with pytest.raises(BrokerError, match="the connection was lost"):
            async with backend._talk():
                await anyio.sleep(60)
        ended.append("talk to the first")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish, "first")
        await anyio.wait_all_tasks_blocked()
        clients[0].connects.set()
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await clients[0].close()
        tasks.start_soon(publish, "second")
        await anyio.wait_all_tasks_blocked()
        await clients[0].closed_cb()
        await anyio.wait_all_tasks_blocked()
        assert ended == ["first", "talk to the first"]
        clients[1].connects.set()

    assert ended == ["first", "talk to the first", "second"]
