"""
Servers within a program: ``python -m embedded HOW FD [CERTIFICATE KEY] MODULE:NAME``.

SIGTERM and SIGINT end them in the way that the server has for it, SIGUSR1 without a signal
that the server would see.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.trio
import trio
import uvicorn
from hypercorn.config import Config

import asgi_sse.hypercorn

#: A certificate and its key.
TLS: list[Any] = [None, None]


def hypercorn_config(fd: int) -> Config:
    config = Config()
    config.bind = [f"fd://{fd}"]
    config.certfile, config.keyfile = TLS
    return config


async def wait_for(*signals: signal.Signals) -> None:
    with anyio.open_signal_receiver(*signals) as received:
        async for _ in received:
            return


async def wait_to_stop() -> None:
    await wait_for(signal.SIGTERM, signal.SIGINT)


# hypercorn's own serve(), with a trigger as its documentation has it.


def hypercorn_asyncio(app: Any, fd: int) -> None:
    asyncio.run(hypercorn.asyncio.serve(app, hypercorn_config(fd), shutdown_trigger=wait_to_stop))


def hypercorn_trio(app: Any, fd: int) -> None:
    config = hypercorn_config(fd)

    async def main() -> None:
        await hypercorn.trio.serve(app, config, shutdown_trigger=wait_to_stop)

    trio.run(main)


# Ours.


def serve_asyncio(app: Any, fd: int) -> None:
    anyio.run(asgi_sse.hypercorn.serve, app, hypercorn_config(fd))


def serve_uvloop(app: Any, fd: int) -> None:
    anyio.run(
        asgi_sse.hypercorn.serve,
        app,
        hypercorn_config(fd),
        backend_options={"use_uvloop": True},
    )


def serve_trio(app: Any, fd: int) -> None:
    anyio.run(asgi_sse.hypercorn.serve, app, hypercorn_config(fd), backend="trio")


async def _serve_twice(app: Any, fd: int) -> None:
    """
    Serve until SIGUSR1, and then again until SIGTERM.
    """
    first, second = hypercorn_config(os.dup(fd)), hypercorn_config(fd)

    async def wait_for_first() -> None:
        await wait_for(signal.SIGUSR1)

    await asgi_sse.hypercorn.serve(app, first, shutdown_trigger=wait_for_first)
    print("the second begins", flush=True)
    await asgi_sse.hypercorn.serve(app, second)


def twice_asyncio(app: Any, fd: int) -> None:
    anyio.run(_serve_twice, app, fd)


def twice_trio(app: Any, fd: int) -> None:
    anyio.run(_serve_twice, app, fd, backend="trio")


# uvicorn.


def _uvicorn(app: Any, fd: int) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, fd=fd))


async def _serve_until_told(server: uvicorn.Server) -> None:
    """
    Serve in a task, until SIGUSR1 or what uvicorn itself takes for the end.
    """
    serving = asyncio.create_task(server.serve())
    told = asyncio.create_task(wait_for(signal.SIGUSR1))
    await asyncio.wait([serving, told], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    told.cancel()


def uvicorn_task(app: Any, fd: int) -> None:
    asyncio.run(_serve_until_told(_uvicorn(app, fd)))


def uvicorn_twice(app: Any, fd: int) -> None:
    async def main() -> None:
        await _serve_until_told(_uvicorn(app, fd))
        print("the second begins", flush=True)
        await _serve_until_told(_uvicorn(app, fd))

    asyncio.run(main())


def uvicorn_threads(app: Any, fd: int) -> None:
    """
    Serve in two threads, and stop one at SIGUSR1, both at SIGTERM.
    """
    servers = [_uvicorn(app, fd), _uvicorn(app, fd)]

    def stop(number: int, frame: object) -> None:
        for server in servers[: 1 if number == signal.SIGUSR1 else 2]:
            server.should_exit = True

    signal.signal(signal.SIGUSR1, stop)
    signal.signal(signal.SIGTERM, stop)
    threads = [threading.Thread(target=server.run) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


HOW: dict[str, Callable[[Any, int], None]] = {
    "hypercorn-asyncio": hypercorn_asyncio,
    "hypercorn-trio": hypercorn_trio,
    "serve-asyncio": serve_asyncio,
    "serve-uvloop": serve_uvloop,
    "serve-trio": serve_trio,
    "twice-asyncio": twice_asyncio,
    "twice-trio": twice_trio,
    "uvicorn-task": uvicorn_task,
    "uvicorn-twice": uvicorn_twice,
    "uvicorn-threads": uvicorn_threads,
}

if __name__ == "__main__":
    how, fd, *files, target = sys.argv[1:]
    if files:
        TLS[:] = files
    module, _, name = target.partition(":")
    HOW[how](getattr(import_module(module), name), int(fd))
