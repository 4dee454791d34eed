"""
Real servers on real sockets, each in a process of its own.

::

    with Server(SERVERS["uvicorn-h11"], "served:app", certificates) as server:
        server.client().get("/")

A server is given a socket that listens already: there is no race for a port, and nothing
sleeps until the server is ready, because who connects early waits in the backlog. When the
block ends, the server is told to stop, must stop, and must have printed no traceback that
the test has not taken out of its output.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self

import httpx
import trustme

__all__ = ["SERVERS", "Certificates", "Server", "ServerConfig"]

# Long, because a machine with two cores may be busy with something else.
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0


@dataclass(frozen=True)
class ServerConfig:
    """
    How to start a server, and in what it differs from the others.
    """

    #: What tests call it.
    name: str
    #: A module and its arguments, in which {fd} is a socket that listens, {port} one to
    #: listen on, {certificate} and {key} are files. The app comes last.
    command: str
    #: Whether it speaks HTTP/2, over TLS, instead of HTTP/1.1.
    http2: bool = False
    #: Whether a client sees that a response was cut off; if not, it would wait for ever.
    truncates: bool = True
    #: Whether send(), the last one at least, waits for a client that does not read.
    waits: bool = True


_HYPERCORN = "hypercorn --bind fd://{fd} --worker-class "
_UVICORN = "uvicorn --fd {fd} --http "
_GRANIAN = "granian --interface asgi --loop asyncio --port {port}"
# Its control socket is one per user, however many of it run.
_GUNICORN = "gunicorn --bind fd://{fd} --worker-class asgi --no-control-socket"
_TLS = " --certfile {certificate} --keyfile {key}"
_GRANIAN_TLS = " --ssl-certificate {certificate} --ssl-keyfile {key}"

SERVERS = {
    config.name: config
    for config in (
        ServerConfig("hypercorn-asyncio", _HYPERCORN + "asyncio"),
        ServerConfig("hypercorn-uvloop", _HYPERCORN + "uvloop"),
        ServerConfig("hypercorn-trio", _HYPERCORN + "trio"),
        ServerConfig(
            "hypercorn-asyncio-h2", _HYPERCORN + "asyncio" + _TLS, http2=True, truncates=False
        ),
        ServerConfig(
            "hypercorn-uvloop-h2", _HYPERCORN + "uvloop" + _TLS, http2=True, truncates=False
        ),
        ServerConfig("hypercorn-trio-h2", _HYPERCORN + "trio" + _TLS, http2=True, truncates=False),
        ServerConfig("uvicorn-h11", _UVICORN + "h11"),
        ServerConfig("uvicorn-httptools", _UVICORN + "httptools"),
        ServerConfig("granian", _GRANIAN),
        ServerConfig("granian-h2", _GRANIAN + _GRANIAN_TLS, http2=True),
        ServerConfig("daphne", "daphne --fd {fd}", truncates=False, waits=False),
        ServerConfig("gunicorn", _GUNICORN),
        ServerConfig("gunicorn-h2", _GUNICORN + _TLS + " --http-protocols h2", http2=True),
    )
}


class Certificates:
    """
    A certificate for 127.0.0.1 in files, and what a client needs to trust it.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        for pem in issued.cert_chain_pems:
            pem.write_to_path(self.certificate, append=True)
        issued.private_key_pem.write_to_path(self.key)
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)


class Server:
    """
    A server, from the beginning of a ``with`` block to its end.

    Args:
        config: Which one.
        app: What it serves, as ``module:name``.
        certificates: What it shows, and its clients trust, if it speaks HTTP/2.
        options: Further arguments of its command line.
        folder: Where the module is.
        environment: Further environment variables.

    Raises:
        RuntimeError: It does not start; the message has what it printed.
        AssertionError: At the end of the block, unless by an exception: it does
            not stop, or has printed a traceback.

    """

    def __init__(
        self,
        config: ServerConfig,
        app: str,
        certificates: Certificates,
        *options: str,
        folder: Path = Path(__file__).parent,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self._app = app
        self._certificates = certificates
        self._options = options
        self._folder = folder
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._clients: list[httpx.Client] = []
        self._taken = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._output = stack.enter_context(TemporaryFile())
            # One that insists on listening itself shares the port, and finds it free
            # because until it is ready the port is bound here.
            listens = "{port}" in self.config.command
            with socket.socket() as listener:
                for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                    listener.setsockopt(socket.SOL_SOCKET, option, listens)
                listener.bind(("127.0.0.1", 0))
                self.port: int = listener.getsockname()[1]
                if not listens:
                    listener.listen(1024)
                self._process = subprocess.Popen(
                    self._command(listener.fileno()),
                    pass_fds=[] if listens else [listener.fileno()],
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    # What runs in the background ignores it, and so would the server.
                    preexec_fn=_heed_ctrl_c,  # noqa: PLW1509 - no thread holds what it needs
                )
                stack.callback(self._kill)
                if not listens:
                    # Or who connects to a server that has died would wait.
                    listener.close()
                self._wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with self._stack:
            for client in self._clients:
                client.close()
            if self._process.poll() is None:
                self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait_stopped()
            output = self.take_output()
            if kind is None:
                assert self._process.poll() is not None, f"it did not stop:\n{output}"
                assert not _PROBLEM.search(output), output

    @property
    def pid(self) -> int:
        """
        The process that was started; it may have workers.
        """
        return self._process.pid

    def client(self) -> httpx.Client:
        """
        Return a client that is closed with the server, if not before.
        """
        http2 = self.config.http2
        client = httpx.Client(
            base_url=f"{'https' if http2 else 'http'}://127.0.0.1:{self.port}",
            http1=not http2,
            http2=http2,
            verify=self._certificates.context,
            trust_env=False,
            timeout=5.0,
        )
        self._clients.append(client)
        return client

    def connect(self) -> socket.socket:
        """
        Return a bare connection, with TLS where HTTP/2 is spoken.
        """
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5.0)
        if not self.config.http2:
            return connection
        self._certificates.context.set_alpn_protocols(["h2"])
        return self._certificates.context.wrap_socket(connection, server_hostname="127.0.0.1")

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """
        Send a signal to the process that was started, or also to all that it has started.
        """
        (os.killpg if group else os.kill)(self.pid, number)

    def wait_stopped(self, timeout: float = _STOP_TIMEOUT) -> int:
        """
        Return the exit code, as soon as there is one.

        Raises:
            subprocess.TimeoutExpired: The server did not stop in time.

        """
        return self._process.wait(timeout)

    def take_output(self, until: str = "", timeout: float = 5.0) -> str:
        """
        Return what was printed since the last time, as soon as *until* is part of it.

        Raises:
            TimeoutError: It was not printed in time.

        """
        deadline = time.monotonic() + timeout
        while True:
            output = os.pread(self._output.fileno(), 1 << 24, self._taken)
            text = output.decode(errors="replace")
            if until in text:
                self._taken += len(output)
                return text
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.config.name} did not print {until!r}:\n{text}")
            time.sleep(0.01)

    def _command(self, fd: int) -> list[str]:
        arguments = self.config.command.split()
        replaced = {
            "fd": fd,
            "port": self.port,
            "certificate": self._certificates.certificate,
            "key": self._certificates.key,
        }
        return [
            *(sys.executable, "-m"),
            *(argument.format_map(replaced) for argument in arguments),
            *self._options,
            self._app,
        ]

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            with (
                contextlib.suppress(httpx.TransportError),
                self.client() as client,
                # Any answer will do, even an error with a body that HEAD must not have.
                client.stream("HEAD", "/", timeout=_START_TIMEOUT),
            ):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.config.name} did not start:\n{self.take_output()}")
            time.sleep(0.02)

    def _kill(self) -> None:
        # If a worker outlives its server, it is still in the same group.
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL, group=True)
        self._process.wait()


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


_PROBLEM = re.compile(r"Traceback|never (awaited|retrieved)|was destroyed|Exception ignored")
