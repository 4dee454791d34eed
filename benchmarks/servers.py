"""
Starting a contestant's server in a process of its own, and asking what it uses.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from .contestants import NCHAN_MODULE, PEERS, Contestant

PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = os.sched_getaffinity(0)


class Server:
    """
    A contestant on a server, from ``with`` to the end of it.

    It is killed, not stopped: most servers wait for open streams.
    """

    def __init__(self, contestant: Contestant, server: str) -> None:
        self.contestant = contestant
        self.server = contestant.own_server or server

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._log = Path(self._directory.name, "log").open("w+")
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = listener.getsockname()[1]
        if self.server in ("granian", "node", "nginx"):  # They want to listen themselves.
            listener.close()
        with listener:
            self._process = subprocess.Popen(
                self._command(listener.fileno()),
                pass_fds=[fd for fd in [listener.fileno()] if fd >= 0],
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
                cwd=Path(__file__).parent.parent,
            )
        _, cores = split_cores()
        os.sched_setaffinity(self._process.pid, cores)
        self._wait_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def cpu(self) -> float:
        """
        Return the CPU seconds, user and system, used so far by all its processes.
        """
        return sum(map(_cpu_of, self._processes()))

    def memory(self) -> int:
        """
        Return the bytes that all its processes hold in RAM.
        """
        return sum(map(_memory_of, self._processes()))

    def publish(
        self, times: int, burst: int, interval: float, read: Callable[[float], None]
    ) -> list[int]:
        """
        Publish so many times *burst* events at once; return the moment of each, in ns.

        *read* is called with seconds, for the clients to read meanwhile.
        """
        moments: list[int] = []
        if self.server == "nginx":
            for _ in range(times):
                moments += [self._publish_over_http() for _ in range(burst)]
                read(interval)
            return moments
        target = f"/publish?times={times}&burst={burst}&interval={interval:.6f}"
        self._control.request("GET", target)
        read(times * interval)
        moments += json.loads(self._control.getresponse().read())
        return moments

    def _publish_over_http(self) -> int:
        moment = time.monotonic_ns()
        self._request("POST", "/publish", b"x" * 30)
        return moment

    def _request(self, method: str, target: str, body: bytes | None = None) -> bytes:
        self._control.request(method, target, body)
        return self._control.getresponse().read()

    def _command(self, fd: int) -> list[str]:
        if self.server == "node":
            return ["node", str(PEERS / "better_sse.mjs"), str(self.port)]
        if self.server == "nginx":
            return ["nginx", "-c", self._write_nginx_configuration(), "-p", self._directory.name]
        arguments = [self.server, self.contestant.name, str(fd), str(self.port)]
        return [sys.executable, "-m", "benchmarks.serve", *arguments]

    def _write_nginx_configuration(self) -> str:
        template = (PEERS / "nchan.conf").read_text()
        path = Path(self._directory.name, "nginx.conf")
        path.write_text(
            template
            % {"directory": self._directory.name, "port": self.port, "module": NCHAN_MODULE}
        )
        return str(path)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            self._control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                self._request("GET", "/ready")
            except OSError:
                time.sleep(0.05)
            else:
                return
        self._log.seek(0)
        output = self._log.read()
        if self._process.poll() is None:
            self.__exit__(None, None, None)
        raise RuntimeError(
            f"{self.contestant.name} did not start on {self.server}:\n{output[-2000:]}"
        )

    def _processes(self) -> list[int]:
        found = [self._process.pid]
        for pid in found:  # Grows while it is walked.
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found


def split_cores() -> tuple[set[int], set[int]]:
    """
    Return the core for the load, and those for the servers.

    Left alone, the kernel likes to put a client beside the server that wakes it, where
    it reads only when the server pauses: it falls behind, and what servers then do is
    another thing, at half the price.
    """
    last = {max(CORES)}
    return last, CORES - last or last


def _cpu_of(pid: int) -> float:
    # The CPU clock of another process (CPUCLOCK_SCHED in Linux's
    # posix-timers.h): nanoseconds, where /proc/PID/stat counts ticks of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


def _memory_of(pid: int) -> int:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return resident * PAGE
