"""
The commands of ``python -m asgi_sse``, each where it is at home.
"""

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

__all__ = ["main"]

_SERVE = "asgi_sse._demo.cli:main"
_COMMANDS = {
    "channel": "asgi_sse._hub.cli:main",
    "check": "asgi_sse.testing._cli:check",
    "record": "asgi_sse.testing._cli:record",
    "replay": "asgi_sse.testing._cli:replay",
}


def main(argv: Sequence[str]) -> int:
    """
    Run the command that the first argument names; if it names none, serve.

    Args:
        argv: The arguments, without the name of the program.

    Returns:
        The exit status.

    """
    place = _SERVE
    if argv and argv[0] in _COMMANDS:
        place, argv = _COMMANDS[argv[0]], argv[1:]
    module, _, name = place.partition(":")
    try:
        # Only now: what one command imports, another may not have.
        status: int = getattr(import_module(module), name)(argv)
    except KeyboardInterrupt:
        # As a shell reports a program that SIGINT has ended.
        return 130
    return status


def leave(status: int) -> NoReturn:
    """
    End the process, even if a source still blocks a thread.

    Such a source cannot be cancelled, and Python would wait for it.
    """
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            # One that is idle is about to end.
            thread.join(0.5)
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
