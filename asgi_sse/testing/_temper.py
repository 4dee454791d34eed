"""
How servers differ when a client leaves, and when they are told to stop.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["TEMPERS", "Temper", "temper"]


@dataclass(frozen=True, kw_only=True)
class Temper:
    """
    What a server does at the moments that ASGI leaves open.

    Every field is something in which two servers in use today differ. Tempers
    with a name are in ``connect(app, server="uvicorn")``; make one of your own
    for what your server does.

    Args:
        spec_version: What ``scope["asgi"]["spec_version"]`` says; ``None`` leaves it out.
        after_disconnect: What ``send()`` does once the client has left: it may
            ``"ignore"`` the message, ``"raise"`` an ``OSError``, or ``"hang"`` for ever.
        repeats_disconnect: Whether ``receive()`` tells of the disconnect each time,
            or only once and then never returns.
        shields_send: Whether a ``send()`` that waits for the client cannot be cancelled.
        send_yields: Whether ``send()`` lets other tasks run when it need not wait.
        grace: Seconds between a stop and the cancellation of the app; with ``None``
            the app is never cancelled, and the server waits for it for ever.

    """

    spec_version: str | None = "2.3"
    after_disconnect: Literal["ignore", "raise", "hang"] = "ignore"
    repeats_disconnect: bool = True
    shields_send: bool = False
    send_yields: bool = True
    grace: float | None = 3.0


TEMPERS = {
    # The three of the ASGI specification, which allows them all.
    "ignore": Temper(),
    "raise": Temper(spec_version="2.4", after_disconnect="raise"),
    "hang": Temper(after_disconnect="hang"),
    # As measured with the versions of November 2026, over HTTP/1.1.
    "uvicorn": Temper(send_yields=False, grace=None),
    "hypercorn": Temper(spec_version="2.1", repeats_disconnect=False, send_yields=False),
    "hypercorn-trio": Temper(spec_version="2.1", repeats_disconnect=False, shields_send=True),
    "granian": Temper(grace=None),
    "daphne": Temper(spec_version=None, repeats_disconnect=False, send_yields=False, grace=0),
}


def temper(name: str | Temper) -> Temper:
    """
    Return the temper of this name, or the temper that was given.

    Raises:
        ValueError: If nothing has this name.

    """
    if isinstance(name, Temper):
        return name
    try:
        return TEMPERS[name]
    except KeyError:
        raise ValueError(
            f"server must be a Temper or one of {', '.join(TEMPERS)} (got {name!r})"
        ) from None
