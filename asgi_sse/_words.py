"""
What an event stream says of its own accord: keep-alives, a farewell, an error.
"""

# What a function raises that was given as an option is logged, and silence is kept: it is
# no reason to end a stream, nor to hide why one ends.

from __future__ import annotations

import logging

from ._options import Farewell, Options, encode_event
from ._request import Request

logger = logging.getLogger("asgi_sse")


def keep_alive(options: Options, name: str) -> bytes:
    """
    Return what shows that the stream of a source is alive.
    """
    event = options.keep_alive_event
    if event is not None:
        try:
            event = event() if callable(event) else event
            encode = options.encode
            return encode(event) if encode else encode_event("keep_alive_event", event)
        except Exception:
            logger.exception("keep_alive_event of %s raised", name)
    # One line end, not two: on an empty line several popular clients dispatch an empty
    # event once they have seen an ID.
    return b":\n"


def last_farewell(farewell: Farewell, request: Request, name: str) -> bytes:
    """
    Return the last event of a stream that is closed from this side.
    """
    try:
        event = farewell(request) if callable(farewell) else farewell
        return b"" if event is None else encode_event("farewell", event)
    except Exception:
        logger.exception("farewell of %s raised", name)
        return b""


def last_event(options: Options, error: BaseException, name: str) -> bytes:
    """
    Return what ``on_error`` has to say about what a source has raised.
    """
    if options.on_error is None or not isinstance(error, Exception):
        return b""
    try:
        event = options.on_error(error)
        return b"" if event is None else encode_event("on_error", event)
    except Exception:
        logger.exception("on_error of %s raised", name)
        return b""
