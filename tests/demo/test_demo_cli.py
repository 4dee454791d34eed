import socket

import pytest

from asgi_sse._demo.cli import main


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """
    Return the one line that says why it cannot begin.
    """
    status = main(argv)
    out, err = capsys.readouterr()

    assert (status, out) == (2, "")
    assert err.startswith("python -m asgi_sse: ")
    assert err.count("\n") == 1
    return err.removeprefix("python -m asgi_sse: ").rstrip()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nonsense"], "TARGET must be module:name or - (got 'nonsense')"),
        (["json:loads_not"], "json:loads_not is not there: module 'json' has no attribute"),
        (["--bind", "nonsense"], "cannot listen on nonsense: --bind must be HOST:PORT (got "),
        (["--bind", "no.such.host.invalid:1"], "cannot listen on no.such.host.invalid:1: "),
        (
            ["--bind", "127.0.0.1:0", "--certfile", "/no/cert", "--keyfile", "/no/key"],
            "/no/cert and /no/key are no certificate and its key: ",
        ),
    ],
)
def test_what_cannot_begin_says_why(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(argv, capsys).startswith(message)


def test_port_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"

        assert refused(["--bind", bind], capsys) == (
            f"cannot listen on {bind}: Address already in use"
        )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--certfile", "x"], "--certfile and --keyfile go together"),
        (["--keyfile", "x"], "--certfile and --keyfile go together"),
        (["--keep-alive", "-1"], "keep_alive must be"),
        (["--keep-alive", "nan"], "keep_alive must be"),
        (["--keep-alive", "x"], "argument --keep-alive: invalid float value: 'x'"),
        (["--retry", "-1"], "retry must be"),
        (["--retry", "1.5"], "argument --retry: invalid int value: '1.5'"),
        (["--worker-class", "x"], "argument --worker-class: invalid choice: 'x'"),
        (["a", "b"], "unrecognized arguments: b"),
    ],
)
def test_wrong_arguments_are_refused_with_the_usage(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(argv)

    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: python -m asgi_sse ")
    assert f"error: {message}" in err
