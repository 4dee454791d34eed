import threading

import pytest

from asgi_sse.__main__ import leave, main
from program import run


def test_serves_if_no_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "TARGET must be module:name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["channel", "check", "record", "replay"])
def test_command_gets_the_other_arguments(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])

    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m asgi_sse {command} ")


def test_interrupt_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("asgi_sse._demo.cli.main", interrupted)

    assert main([]) == 130
    assert capsys.readouterr() == ("", "")


def test_help_names_every_command() -> None:
    out = run("--help").stdout

    for word in ("module:name", "--worker-class", "channel", "check", "record", "replay"):
        assert word in out


def test_leaves_with_the_status() -> None:
    # About to end, but not yet.
    idle = threading.Thread(target=threading.Event().wait, args=(0.1,))
    idle.start()

    with pytest.raises(SystemExit) as raised:
        leave(3)

    assert raised.value.code == 3


def test_leaves_a_thread_that_is_blocked_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(BaseException):
        pass

    def gone(status: int) -> None:
        raise Gone(status)

    monkeypatch.setattr("os._exit", gone)
    go_on = threading.Event()
    blocked = threading.Thread(target=go_on.wait)
    blocked.start()

    with pytest.raises(Gone) as raised:
        leave(3)

    assert raised.value.args == (3,)
    go_on.set()
    blocked.join()
