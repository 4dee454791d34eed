"""
An hour in no time.
"""

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio.pytest_plugin import get_runner as anyio_runner

from asgi_sse.testing import AutojumpLoop, autojump_backend


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_time_jumps(name: str) -> None:
    async def main() -> list[float]:
        began = anyio.current_time()
        times = []
        for seconds in (0.25, 3600):
            await anyio.sleep(seconds)
            times.append(anyio.current_time() - began)
        with anyio.move_on_after(10):
            await anyio.sleep_forever()
        times.append(anyio.current_time() - began)
        return times

    backend, options = autojump_backend(name)
    real = time.monotonic()
    # Not anyio.run(), which in anyio 4.11 has no options for trio.
    with anyio_runner(backend, options) as runner:
        times = runner.run_fixture(main, {})

    assert times == [0.25, 3600.25, 3610.25]
    assert time.monotonic() - real < 10


def test_what_is_ready_comes_before_what_is_due() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, seen.set)
        os.write(writer, b"x")
        await seen.wait()
        loop.remove_reader(reader)
        os.close(reader)
        os.close(writer)
        assert loop.time() == 0

    with asyncio.Runner(loop_factory=AutojumpLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "in_thread",
    [
        partial(anyio.to_thread.run_sync, time.sleep, 0.05),
        partial(asyncio.to_thread, time.sleep, 0.05),
    ],
    ids=["anyio", "executor"],
)
def test_the_clock_stands_still_while_a_thread_works(
    in_thread: Callable[[], Awaitable[None]],
) -> None:
    async def main() -> float:
        with anyio.move_on_after(3600):
            await in_thread()
        began = anyio.current_time()
        await anyio.sleep(1)
        return began

    with asyncio.Runner(loop_factory=AutojumpLoop) as runner:
        assert runner.run(main()) == 0


def test_a_threshold_is_for_all_that_comes_from_elsewhere() -> None:
    async def main() -> float:
        told = anyio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, [told.set])
        thread.start()
        with anyio.move_on_after(3600):
            await told.wait()
        thread.join()
        return anyio.current_time()

    _, options = autojump_backend("asyncio", threshold=5)

    assert anyio.run(main, backend_options=options) == 0
    assert anyio.run(main, backend_options=autojump_backend("asyncio")[1]) == 3600
