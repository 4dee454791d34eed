"""
The lines of a file, and those that it will have: ``tail -f`` over HTTP.

::

    FOLLOW=/tmp/some.log hypercorn examples/02_tail.py
    curl -N http://127.0.0.1:8000/
    date >> /tmp/some.log

The ID of an event is the place in the file where its line ends, so that a client that
reconnects continues there. Without ``FOLLOW`` it is this file that is followed.
"""

import os
from collections.abc import AsyncIterator

import anyio

from asgi_sse import Request, ServerSentEvent, event_stream

FILE = anyio.Path(os.environ.get("FOLLOW", __file__))


@event_stream
async def app(request: Request) -> AsyncIterator[ServerSentEvent]:
    place = place_after(request.last_event_id)
    async with await FILE.open("rb") as file:
        while True:
            if place > (await FILE.stat()).st_size:
                place = 0  # It was cut, or the client has made that up.
            await file.seek(place)
            # Without its end a line is still being written.
            while (line := await file.readline()).endswith(b"\n"):
                place += len(line)
                yield ServerSentEvent(line[:-1].decode(errors="replace"), id=place)
            await anyio.sleep(0.2)


def place_after(last_event_id: str | None) -> int:
    """
    Return where to begin reading, whatever the client says that it has seen.
    """
    try:
        return max(0, int(last_event_id or ""))
    except ValueError:
        return 0
