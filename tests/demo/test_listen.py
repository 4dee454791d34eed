import errno
import socket

import pytest

from asgi_sse._demo.listen import listen, url_of


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:0", "https://127.0.0.1:{}/"),
        ("localhost:0", None),
        ("0.0.0.0:0", "https://127.0.0.1:{}/"),
        ("[::1]:0", "https://[::1]:{}/"),
        ("[::]:0", "https://[::1]:{}/"),
    ],
)
def test_url_leads_to_the_socket(bind: str, url: str | None) -> None:
    with listen(bind) as listener:
        port = listener.getsockname()[1]
        got = url_of(listener, "https")
        if url is not None:
            assert got == url.format(port)

        address = (got[len("https://") :].rpartition(":")[0].strip("[]"), port)
        with socket.create_connection(address, 5):
            pass


@pytest.mark.parametrize(
    "bind",
    ["", "8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "a:65536", "a:-1", "a:٣"],
)
def test_what_is_no_host_and_port_is_refused(bind: str) -> None:
    with pytest.raises(ValueError, match=r"--bind must be HOST:PORT \(got "):
        listen(bind)


def test_port_in_use_is_refused_and_nothing_is_left_open() -> None:
    with listen("127.0.0.1:0") as first, pytest.raises(OSError) as raised:  # noqa: PT011
        listen(f"127.0.0.1:{first.getsockname()[1]}")

    assert raised.value.errno == errno.EADDRINUSE
