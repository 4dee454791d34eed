"""
Channels in Redis.
"""

import re
import shlex
import shutil
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
import trustme

from asgi_sse.channels import Broker, BrokerError, Subscription
from asgi_sse.testing import check_backend
from engines import (
    Redis,
    free_port,
    kill_again_and_again,
    logs,
    on_asyncio,
    programs,
    publish_at_last,
)


@pytest.fixture(params=programs(), ids=lambda program: "wheel" if "wheel" in program else "system")
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    # Not tmp_path, which may be longer than the path of a socket may be.
    with TemporaryDirectory() as directory, Redis(request.param, Path(directory)) as server:
        yield server


@pytest.mark.real_time
@on_asyncio
async def test_redis_keeps_its_promises(redis: Redis) -> None:
    await check_backend(lambda history: Broker(redis.url, history=history))


@pytest.mark.real_time
@on_asyncio
async def test_subscribers_of_redis_survive_that_it_is_killed(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(redis.url) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        first = await broker.publish("news", "1")
        assert (await anext(subscription)).id == first
        redis.kill()
        with pytest.raises(BrokerError, match="Redis: "):
            await broker.publish("news", "lost, and that is known")
        await anyio.sleep(0.3)
        redis.start()
        second = await broker.publish("news", "2")
        with anyio.fail_after(10):
            assert (await anext(subscription)).id == second
        async with broker.subscribe("news", last_event_id=first) as later:
            assert (await anext(later)).id == second
    assert "channel 'news' is not read for" in caplog.text


@pytest.mark.real_time
@on_asyncio
async def test_what_was_lost_with_redis_is_told(redis: Redis) -> None:
    async with Broker(redis.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        command(redis, "DEL", "asgi_sse:news")
        command(redis, "XADD", "asgi_sse:news", "1-1", "data", "older")
        redis.kill()
        redis.start()
        with anyio.fail_after(10):
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "older"


@pytest.mark.real_time
@on_asyncio
async def test_garbage_in_redis_is_skipped_counted_and_logged(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with Broker(redis.url) as broker:
        channel = broker.channel("news")
        subscription = channel.subscribe()
        await anext(subscription)
        for fields in (
            ["x", "y"],
            ["data", b"\xff\xfe"],
            ["data", "x", "event", "a\nb"],
            ["data", "x", "retry", "soon"],
        ):
            command(redis, "XADD", "asgi_sse:news", "*", *fields)
        command(redis, "XADD", "asgi_sse:news", "*", "data", "good", "event", "e", "more", "?")
        event = await anext(subscription)

        assert (event.data, event.event) == ("good", "e")
        assert channel.statistics().skipped == 4
    assert caplog.text.count("has an entry that is no event") == 4


@pytest.mark.real_time
@on_asyncio
async def test_a_key_that_is_no_stream_is_no_dead_reader(redis: Redis) -> None:
    command(redis, "SET", "asgi_sse:news", "text")
    async with Broker(redis.url) as broker:
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await broker.publish("news", "x")
        with logs("not read for .*WRONGTYPE") as logged:
            subscription = broker.subscribe("news")
            with anyio.fail_after(10):
                await logged.wait()
        command(redis, "DEL", "asgi_sse:news")
        with anyio.fail_after(10):
            await anext(subscription)


@pytest.mark.real_time
@on_asyncio
async def test_a_full_redis_is_told_to_the_publisher(redis: Redis) -> None:
    command(redis, "CONFIG", "SET", "maxmemory", "1")
    async with Broker(redis.url) as broker:
        with pytest.raises(BrokerError, match="maxmemory"):
            await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_a_redis_that_does_not_answer_is_told_to_the_publisher(redis: Redis) -> None:
    async with Broker(redis.url, timeout=0.5) as broker:
        await publish_at_last(broker, "x")
        command(redis, "CLIENT", "PAUSE", "20000")
        with pytest.raises(BrokerError, match="no answer within 0.5 s"):
            await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_entries_in_redis_age(redis: Redis) -> None:
    # Long enough to subscribe before the second has aged.
    async with Broker(redis.url, max_age=2) as broker:
        first = await broker.publish("news", "1")
        await anyio.sleep(2.1)
        second = await broker.publish("news", "2")
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).id == second


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_on_trio_redis_says_what_it_needs() -> None:
    with pytest.raises(BrokerError, match="redis:// needs asyncio: redis-py knows no trio"):
        await Broker("redis://").__aenter__()


def command(redis: Redis, *words: str | bytes) -> None:
    answer = redis.send(*words)
    assert not answer.startswith(b"-"), answer


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_that_redis_has_overtaken_tells_so(redis: Redis) -> None:
    async with Broker(redis.url, history=5, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        # All before the reader is asked again.
        script = "for i = 1, 1000 do redis.call('XADD', KEYS[1], 'MAXLEN', 5, '*', 'data', i) end"
        command(redis, "EVAL", script, "1", "asgi_sse:news")
        with anyio.fail_after(10):
            assert (await anext(subscription)).event == "reset"
            events = [await anext(subscription) for _ in range(5)]

    assert [event.data for event in events] == ["996", "997", "998", "999", "1000"]


@pytest.mark.real_time
@on_asyncio
async def test_a_long_batch_is_no_gap(redis: Redis) -> None:
    async with Broker(redis.url, history=5000) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "0")
        script = "for i = 1, 2000 do redis.call('XADD', KEYS[1], '*', 'data', i) end"
        command(redis, "EVAL", script, "1", "asgi_sse:news")
        with anyio.fail_after(10):
            events = [await anext(subscription) for _ in range(2001)]

    assert [event.data for event in events] == [str(n) for n in range(2001)]


@pytest.mark.real_time
@on_asyncio
async def test_a_deleted_entry_is_no_gap(redis: Redis) -> None:
    async with Broker(redis.url) as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        first = await broker.publish("news", "1")
        await broker.publish("news", "2")
        assert [(await anext(subscription)).data for _ in range(2)] == ["1", "2"]
        # Were it the last one, nobody could tell whether Redis has lost it.
        command(redis, "XDEL", "asgi_sse:news", first)
        redis.kill()
        await anyio.sleep(0.2)
        redis.start()
        await broker.publish("news", "3")
        with anyio.fail_after(10):
            assert (await anext(subscription)).data == "3"


@pytest.mark.real_time
@on_asyncio
async def test_a_stream_that_was_emptied_is_told(redis: Redis) -> None:
    async with Broker(redis.url) as broker:
        first = await broker.publish("news", "1")
        last = await broker.publish("news", "2")
        command(redis, "XTRIM", "asgi_sse:news", "MAXLEN", "0")
        async with broker.subscribe("news", last_event_id=first) as subscription:
            assert (await anext(subscription)).event == "reset"
        async with broker.subscribe("news", last_event_id=last) as subscription:
            await broker.publish("news", "3")
            assert (await anext(subscription)).data == "3"


@pytest.mark.real_time
@on_asyncio
async def test_nothing_is_lost_or_doubled_when_redis_is_killed(redis: Redis) -> None:
    await kill_again_and_again(redis, kills=4)


@pytest.mark.real_time
@on_asyncio
async def test_another_program_publishes_to_redis_as_the_docs_say(redis: Redis) -> None:
    docs = Path(__file__).parents[2] / "docs" / "channels.rst"
    [words] = re.findall(r"\$ redis-cli (.*)", docs.read_text())
    program = str(Path(redis.command[0]).with_name("redis-cli"))
    command = [program, "-s", redis.url.removeprefix("unix://"), *shlex.split(words)]
    async with Broker(redis.url) as broker, broker.subscribe("news") as subscription:
        await anext(subscription)
        run = await anyio.run_process(command)
        event = await anext(subscription)

    assert (event.data, event.event) == ("hello", "greeting")
    assert event.id == run.stdout.decode().strip()


@pytest.mark.real_time
@on_asyncio
async def test_redis_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    port = free_port()
    more = [
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem")),
        *("--tls-key-file", str(tmp_path / "key.pem")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem")),
    ]
    # That of PyPI was built without TLS.
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server with TLS")
    with TemporaryDirectory() as directory, Redis(program, Path(directory), *more):
        url = f"rediss://localhost:{port}"
        async with Broker(f"{url}?ssl_ca_certs={tmp_path}/ca.pem") as broker:
            event_id = await broker.publish("news", "x")
            async with broker.subscribe("news", last_event_id="earliest") as subscription:
                assert [(await anext(subscription)).id for _ in range(2)][1] == event_id
        async with Broker(url) as broker:
            with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
                await broker.publish("news", "x")


@pytest.mark.real_time
@on_asyncio
async def test_who_may_not_enter_redis_is_told_without_the_password(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    command(redis, "CONFIG", "SET", "requirepass", "s3cret/?")
    url = redis.url.replace("unix://", "unix://:s3cret%2F%3F@")
    async with Broker(url) as broker:
        await broker.publish("news", "x")
    async with Broker(url.replace("s3cret", "s3cre7")) as broker:
        with pytest.raises(BrokerError, match="Redis: .*password") as caught:
            await broker.publish("news", "x")
        with logs("not read for .*password") as logged:
            broker.subscribe("news")
            await logged.wait()

    told = caplog.text + "".join(traceback.format_exception(caught.value))
    assert not re.search("s3cre[7t]%?[2/]", told)


@pytest.mark.real_time
@on_asyncio
async def test_what_is_too_much_or_too_old_is_no_longer_in_redis(redis: Redis) -> None:
    async with Broker(redis.url, history=10) as broker:
        for number in range(1000):
            await broker.publish("many", number)
    # Nodes of a hundred are let go of as a whole.
    assert 10 <= int(redis.send("XLEN", "asgi_sse:many")[1:]) < 200

    async with Broker(redis.url, max_age=0.1) as broker:
        await broker.publish("old", "x")
        await anyio.sleep(0.2)
        await broker.publish("old", "x")
    assert redis.send("XLEN", "asgi_sse:old") == b":1\r\n"


@pytest.mark.real_time
@on_asyncio
async def test_a_redis_that_lost_its_latest_entries_is_told(redis: Redis, tmp_path: Path) -> None:
    async with Broker(redis.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        await anext(subscription)
        await broker.publish("news", "1")
        await anext(subscription)
        redis.kill()
        shutil.copytree(redis.directory, tmp_path / "older", ignore=no_sockets)
        redis.start()
        with anyio.fail_after(20):
            await publish_at_last(broker, "lost")
            assert (await anext(subscription)).data == "lost"
            redis.kill()
            shutil.copytree(tmp_path / "older", redis.directory, dirs_exist_ok=True)
            redis.start()
            assert (await anext(subscription)).event == "reset"
            assert (await anext(subscription)).data == "1"
            await publish_at_last(broker, "2")
            assert (await anext(subscription)).data == "2"


def no_sockets(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


# What is told of losses, although Redis has more by the time that anybody looks.


@pytest.fixture
def forgetful() -> Iterator[Redis]:
    # Not tmp_path, which may be longer than the path of a socket may be.
    with (
        TemporaryDirectory() as folder,
        Redis(programs()[0], Path(folder), "--appendonly", "no") as server,
    ):
        yield server


async def next_event(subscription: Subscription) -> tuple[str | None, str | None]:
    with anyio.fail_after(10):
        event = await anext(subscription)
    return event.event, event.data


@asynccontextmanager
async def reader_with_a_loss(redis: Redis) -> AsyncIterator[Subscription]:
    """
    Read an event of which the engine knows nothing any more.
    """
    async with Broker(redis.url, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        assert isinstance(subscription, Subscription)
        await anext(subscription)
        await broker.publish("news", "lost")
        assert await next_event(subscription) == (None, "lost")
        redis.kill()
        redis.start()
        yield subscription


@pytest.mark.real_time
@on_asyncio
async def test_a_reader_tells_what_was_lost_before_it_was_back(forgetful: Redis) -> None:
    async with reader_with_a_loss(forgetful) as subscription:
        # Before the reader has tried again: it waits for a moment after a failure.
        forgetful.send("XADD", "asgi_sse:news", "*", "data", "kept")

        kind, _ = await next_event(subscription)
        assert kind == "reset"
        assert await next_event(subscription) == (None, "kept")


@pytest.mark.real_time
@on_asyncio
async def test_a_client_is_told_what_was_lost_while_nobody_read(forgetful: Redis) -> None:
    async with Broker(forgetful.url) as broker:
        last_event_id = await broker.publish("news", "lost")
    forgetful.kill()
    forgetful.start()
    async with Broker(forgetful.url) as broker:
        await broker.publish("news", "kept")
        subscription = broker.subscribe("news", last_event_id=last_event_id)
        assert isinstance(subscription, Subscription)

        kind, _ = await next_event(subscription)
        assert kind == "reset"
        assert await next_event(subscription) == (None, "kept")


@pytest.mark.real_time
@on_asyncio
async def test_what_comes_after_a_loss_may_have_lower_ids(forgetful: Redis) -> None:
    async with reader_with_a_loss(forgetful) as subscription:
        kind, _ = await next_event(subscription)
        assert kind == "reset"
        # By a clock that is behind.
        command(forgetful, "XADD", "asgi_sse:news", "1-1", "data", "kept")

        assert await next_event(subscription) == (None, "kept")


@pytest.mark.real_time
@on_asyncio
async def test_what_became_too_old_while_the_process_was_blocked_is_told(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_sse.channels._redis._PATIENCE", 0.05)

    def block() -> None:
        # The reader asks already, and gets the first.
        for item in ("read", "lost"):
            command(redis, "XADD", "asgi_sse:news", "*", "data", item)
        time.sleep(0.4)
        command(redis, "XTRIM", "asgi_sse:news", "MAXLEN", "0")
        command(redis, "XADD", "asgi_sse:news", "*", "data", "kept")

    async with Broker(redis.url, max_age=0.3, overflow="skip") as broker:
        subscription = broker.subscribe("news")
        assert isinstance(subscription, Subscription)
        await anext(subscription)
        await anyio.sleep(0.2)
        block()
        got = [await next_event(subscription)]
        while got[-1][1] != "kept":
            got.append(await next_event(subscription))

    # In doubt, so it may be before the first.
    assert got[-2][0] == "reset"
