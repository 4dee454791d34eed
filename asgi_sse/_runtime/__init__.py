"""
What the running event loop lends: wake-ups, tasks, an alarm.
"""

from __future__ import annotations

import sys
from typing import Any

from anyio.lowlevel import RunVar, current_token

from ._loop import Entry, Runtime, Signal, Task, Ticker, Worker

__all__ = ["Entry", "Runtime", "Signal", "Task", "Ticker", "Worker", "current_runtime"]

_runtime: RunVar[Runtime] = RunVar("asgi_sse_runtime")


def current_runtime() -> Runtime:
    """
    Return the runtime of the running event loop, made with its first stream.
    """
    try:
        return _runtime.get()
    except LookupError:
        runtime = _make_runtime()
        _runtime.set(runtime)
        return runtime


def _make_runtime() -> Runtime:
    # Not whether there is a trio run: in guest mode trio and asyncio take turns in one
    # thread, and anyio knows whose turn it is.
    token: Any = current_token().native_token
    trio = sys.modules.get("trio")
    if trio is not None and isinstance(token, trio.lowlevel.TrioToken):
        from ._trio import TrioRuntime

        return TrioRuntime(token)
    from ._asyncio import AsyncioRuntime

    return AsyncioRuntime(token)
