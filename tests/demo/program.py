"""
``python -m asgi_sse`` as people run it: a process that serves until it gets a signal.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["PATIENCE", "Program", "run", "start"]

# It finds what the tests find, wherever it is started.
_PATH = {"PYTHONPATH": os.pathsep.join(sys.path)}

# No test waits for anything so long, even on a busy machine.
PATIENCE = 40.0


class Program:
    """
    The process, once it has told the URL.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.stdin: IO[str] = process.stdin
        #: The line that tells what is served, and where.
        self.greeting = process.stdout.readline()
        url = re.search(r"https?://\S+:\d+/", self.greeting)
        assert url, self.greeting + process.communicate(timeout=PATIENCE)[1]
        self.url = url[0]

    def end(self, number: int) -> tuple[int, str]:
        """
        Send a signal; return the exit status, and what it has written after the greeting.
        """
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out + err


@contextmanager
def start(*args: str, cwd: Path | None = None) -> Iterator[Program]:
    """
    Start it with arguments, at any port that is free unless they say otherwise.
    """
    bind = [] if "--bind" in args else ["--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_sse", *args, *bind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | _PATH,
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        process.wait(PATIENCE)


def run(*args: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """
    Run it to its own end.
    """
    return subprocess.run(
        [sys.executable, "-m", "asgi_sse", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | _PATH,
        timeout=PATIENCE,
        check=False,
    )
