"""
``python -m asgi_sse channel`` as it begins, and as it is used.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import httpx_sse
import pytest

from asgi_sse._hub.cli import main
from program import PATIENCE, start


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: NAME"),
        (["a*", "b"], "name must have * only as a whole part, > only as the last (got 'a*')"),
        ([""], "name must have 1 to 1024 bytes (got '')"),
        (["a", "--broker", "x://y"], "url must be of memory"),
        (["a", "--history", "0"], "history must be at least 1 event (got 0)"),
        (["a", "--max-age", "0"], "max_age must be more than 0 seconds, or None (got 0.0)"),
        (["a", "--token", ""], "--token must be printable ASCII, and not empty"),
        (["a", "--token", "\xe9"], "--token must be printable ASCII, and not empty"),
        (["a", "--token", " "], "--token must not begin or end with a space"),
        (["a", "--token", "s3cret "], "--token must not begin or end with a space"),
        (["a", "--token", " s3cret"], "--token must not begin or end with a space"),
        (["a", "--retry", "-1"], "retry must be"),
        (["a", "--certfile", "x"], "--certfile and --keyfile go together"),
    ],
)
def test_wrong_arguments_are_refused_with_the_usage(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(argv)

    err = capsys.readouterr().err
    assert raised.value.code == 2
    assert err.startswith("usage: python -m asgi_sse channel ")
    assert f"error: {message}" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bind", "nonsense"], "cannot listen on nonsense: --bind must be HOST:PORT (got "),
        (["--bind", "0.0.0.0:0"], "others can reach 0.0.0.0:0, and might publish: give a --token"),
        (
            ["--bind", "127.0.0.1:0", "--broker", "redis://localhost", "--worker-class", "trio"],
            "redis:// needs asyncio: redis-py knows no trio",
        ),
    ],
)
def test_what_cannot_begin_says_why(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["news", *argv])
    out, err = capsys.readouterr()

    assert (status, out) == (2, "")
    assert err.startswith(f"python -m asgi_sse channel: {message}")
    assert err.count("\n") == 1


@contextmanager
def events(url: str, last_event_id: str = "") -> Iterator[Iterator[httpx_sse.ServerSentEvent]]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    with (
        httpx.Client(timeout=PATIENCE) as client,
        httpx_sse.connect_sse(client, "GET", f"{url}events", headers=headers) as source,
    ):
        iterator = source.iter_sse()
        # The ID alone, which tells where it begins.
        if not last_event_id:
            next(iterator)
        yield iterator


@pytest.mark.parametrize("worker_class", ["asyncio", "uvloop", "trio"])
def test_it_is_subscribed_to_published_in_and_stopped(worker_class: str) -> None:
    with start("channel", "news", "chat", "--worker-class", worker_class) as program:
        url = program.url
        assert program.greeting == (
            f"Channels news, chat: {url} (the stream alone: {url}events; "
            f"to publish: POST {url}publish/NAME). Ctrl-C stops.\n"
        )
        with events(url) as stream:
            answer = httpx.post(
                f"{url}publish/news?event=headline", content="hello", timeout=PATIENCE
            )
            event = next(stream)

            assert (event.event, event.data) == ("headline", "hello")
            assert f"news={answer.text.strip()}&chat=" in event.id
            assert program.end(signal.SIGINT) == (0, "")


def test_a_large_upload_is_answered() -> None:
    with start("channel", "news") as program:
        url = f"{program.url}publish/news"
        answer = httpx.post(url, content=b"x" * 20_000_000, timeout=PATIENCE)

        assert answer.status_code == 413
        assert program.end(signal.SIGTERM) == (0, "")


def test_the_token_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_SSE_TOKEN", "s3cret")
    with start("channel", "news", "--bind", "0.0.0.0:0") as program:
        url = f"{program.url}publish/news"
        statuses = [
            httpx.post(url, content="x", headers=headers, timeout=PATIENCE).status_code
            for headers in ({}, {"authorization": "Bearer s3cret"})
        ]

    assert statuses == [401, 201]


def test_the_broker_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASGI_SSE_BROKER", "mine://:s3cret@localhost")
    with pytest.raises(SystemExit):
        main(["news"])
    err = capsys.readouterr().err
    assert "(got mine://...)" in err
    assert "s3cret" not in err
    # The command line is nearer.
    with pytest.raises(SystemExit):
        main(["news", "--broker", "other://"])
    assert "(got other://...)" in capsys.readouterr().err
