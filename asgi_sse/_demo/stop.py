"""
Being told to stop, by Ctrl-C or by whoever runs the program.
"""

from __future__ import annotations

import signal

import anyio

__all__ = ["wait_for_signal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def wait_for_signal() -> None:
    """
    Return at the first SIGINT or SIGTERM. A second one ends the process on the spot.
    """
    try:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            await anext(signals)
    except NotImplementedError:  # pragma: no cover
        # On Windows, asyncio raises KeyboardInterrupt when it is time.
        await anyio.sleep_forever()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
