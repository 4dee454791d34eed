"""
Drive any ASGI event stream in a test.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._backend import check_backend
    from ._check import check_event_stream
    from ._cleanup import check_source_cleanup
    from ._clock import AutojumpLoop, autojump_backend
    from ._exchange import Chunk, ClientDisconnected
    from ._headers import Headers
    from ._probe import check_url
    from ._record import Recording, replay
    from ._report import CheckFailed, Finding, Report
    from ._server import Server, connect, serve
    from ._stream import Stream
    from ._sync import SyncStream, connect_sync
    from ._temper import Temper

__all__ = [
    "AutojumpLoop",
    "CheckFailed",
    "Chunk",
    "ClientDisconnected",
    "Finding",
    "Headers",
    "Recording",
    "Report",
    "Server",
    "Stream",
    "SyncStream",
    "Temper",
    "autojump_backend",
    "check_backend",
    "check_event_stream",
    "check_source_cleanup",
    "check_url",
    "connect",
    "connect_sync",
    "replay",
    "serve",
]

_ROOMS = {
    "AutojumpLoop": "_clock",
    "CheckFailed": "_report",
    "Chunk": "_exchange",
    "ClientDisconnected": "_exchange",
    "Finding": "_report",
    "Headers": "_headers",
    "Recording": "_record",
    "Report": "_report",
    "Server": "_server",
    "Stream": "_stream",
    "SyncStream": "_sync",
    "Temper": "_temper",
    "autojump_backend": "_clock",
    "check_backend": "_backend",
    "check_event_stream": "_check",
    "check_source_cleanup": "_cleanup",
    "check_url": "_probe",
    "connect": "_server",
    "connect_sync": "_sync",
    "replay": "_record",
    "serve": "_server",
}


def __getattr__(name: str) -> object:
    # The pytest plugin is in this package, and pytest imports it at every start, for
    # test runs too that have nothing to do with event streams.
    try:
        room = _ROOMS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{room}"), name)
