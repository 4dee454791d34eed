"""
From ``HOST:PORT`` to a listening socket, and from there to its URL.
"""

from __future__ import annotations

import os
import socket

__all__ = ["listen", "url_of"]


def listen(bind: str) -> socket.socket:
    """
    Return a socket that listens.

    Args:
        bind: ``HOST:PORT``; an IPv6 address stands in brackets, and port 0 is any
            that is free.

    Raises:
        ValueError: If it reads otherwise.
        OSError: If nobody can listen there.

    """
    host, colon, port = bind.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ValueError(f"--bind must be HOST:PORT (got {bind!r})")
    host = host.removeprefix("[").removesuffix("]")
    family, _, _, _, address = socket.getaddrinfo(
        host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family)
    try:
        # So that a port can be had again at once. On Windows it can anyway, and this would
        # take it from whoever has it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket, scheme: str) -> str:
    """
    Return the URL that leads to a socket from this machine.

    Args:
        listener: It listens.
        scheme: ``http`` or ``https``.

    """
    host, port = listener.getsockname()[:2]
    # The address that stands for all is none to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"
