"""
A port that outlives the servers behind it.

Who connects while none of them runs waits in the backlog of the socket, which stays open here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

__all__ = ["Port"]


class Port:
    """
    A listening socket, for any number of servers at once or one after the other.

    Args:
        send_buffer: Of what the servers accept, in bytes; ``None``: as the system likes it.

    """

    def __init__(self, send_buffer: int | None = None) -> None:
        self._listener = socket.socket()
        if send_buffer is not None:
            # What is accepted has that of its listener.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(2048)
        self._running: list[subprocess.Popen[bytes]] = []
        self.number: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._running):
            self.kill(process)
        self._listener.close()

    def start(
        self,
        app: str,
        *,
        command: str = "hypercorn --bind fd://{fd}",
        folder: Path = Path(__file__).parent,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """
        Start a server.

        Args:
            app: What it serves, as ``module:name``.
            command: A module and its arguments, in which {fd} is the socket.
            folder: Where the app is.
            environment: Further environment variables.

        """
        fd = self._listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", *command.format(fd=fd).split(), app],
            pass_fds=[fd],
            cwd=folder,
            env=os.environ | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """
        Kill a server, as the kernel does that is out of memory.
        """
        self._running.remove(process)
        # What serves may be a child of what was started, and would live on.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
