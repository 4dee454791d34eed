"""
What conftest.py promises to the tests: both event loops, and whose time it is.
"""

import time

import anyio
import pytest
import sniffio


async def test_an_hour_is_over_at_once() -> None:
    begin = time.monotonic()
    start = anyio.current_time()
    await anyio.sleep(3600)

    assert anyio.current_time() - start == 3600
    assert time.monotonic() - begin < 60


@pytest.mark.real_time
async def test_real_time_passes_by_itself() -> None:
    begin = time.monotonic()
    await anyio.sleep(0.02)

    assert time.monotonic() - begin >= 0.01


async def test_each_test_runs_on_the_event_loop_in_its_name(
    anyio_backend_name: str, request: pytest.FixtureRequest
) -> None:
    assert sniffio.current_async_library() == anyio_backend_name
    assert f"[{anyio_backend_name}]" in request.node.name


@pytest.mark.real_time
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_test_may_choose_its_event_loop() -> None:
    assert sniffio.current_async_library() == "asyncio"
