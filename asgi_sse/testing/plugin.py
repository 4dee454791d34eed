"""
The pytest plugin: a clock that jumps, clients, and differences that can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

# pytest imports this file at every start, also where no event stream is tested; so it
# imports what it needs when it needs it.
if TYPE_CHECKING:
    from ._sync import SyncStream

__all__ = ["autojump", "sse_connect"]


@pytest.fixture
def autojump(anyio_backend: Any) -> Iterator[None]:
    """
    Let no time pass: the clock jumps to what is due next, on asyncio and on trio.

    For tests that anyio's pytest plugin runs. Name it before any async fixture, since
    the first of these starts the event loop; or give the clock to a whole test suite
    with ``autojump_backend()``. Only for what happens in memory: while a socket or a
    thread is waited for the clock would run away.
    """
    from anyio import pytest_plugin

    from ._clock import autojump_backend

    if getattr(pytest_plugin, "_current_runner", None) is not None:
        pytest.fail(
            "the event loop runs already, so its clock cannot jump. "
            "Did you forget to name autojump before the async fixtures?",
            pytrace=False,
        )
    name, options = pytest_plugin.extract_backend_and_options(anyio_backend)
    # Whoever runs something of this test gets the runner that is there.
    with pytest_plugin.get_runner(name, {**options, **autojump_backend(name)[1]}):
        yield


@pytest.fixture
def sse_connect() -> Iterator[Callable[..., SyncStream]]:
    """
    Connect to an app in a test that is not async, until the end of the test.

    The arguments are those of ``connect_sync()``, and the clock jumps unless
    ``autojump=False`` is given.
    """
    from ._sync import connect_sync

    with ExitStack() as stack:

        def connect(app: Any, path: str = "/", **options: Any) -> SyncStream:
            return stack.enter_context(connect_sync(app, path, **{"autojump": True, **options}))

        yield connect


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """
    Say how two lists of events differ.
    """
    if op != "==":
        return None
    from ._diff import explain

    return explain(left, right)
