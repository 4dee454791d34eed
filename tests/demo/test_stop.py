import os
import signal
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from asgi_sse._demo.stop import wait_for_signal

pytestmark = pytest.mark.real_time


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_first_signal_is_waited_for_and_the_second_ends_the_process(number: int) -> None:
    before = signal.getsignal(number)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_signal)
            while signal.getsignal(number) == before:
                await anyio.lowlevel.checkpoint()
            os.kill(os.getpid(), number)

    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
