"""
Event streams under FastAPI: mounted, and typed in a path operation.

::

    hypercorn examples/mount_fastapi.py
    curl -N http://127.0.0.1:8000/clock/

The path operation is described in OpenAPI, see http://127.0.0.1:8000/openapi.json.
"""

import time
from collections.abc import AsyncIterator

import anyio
from fastapi import FastAPI
from pydantic import BaseModel

from asgi_sse import EventStream
from asgi_sse.fastapi import EventSourceResponse, EventStreamRoute, LastEventID


async def ticks() -> AsyncIterator[str]:
    try:
        while True:
            yield time.ctime()
            await anyio.sleep(1)
    finally:
        print("The client has left.", flush=True)


clock = EventStream(ticks)


class Tick(BaseModel):
    n: int


app = FastAPI()
app.router.route_class = EventStreamRoute
app.mount("/clock", clock)


@app.get("/ticks/{step}", response_class=EventSourceResponse.with_options(keep_alive=5))
async def count(step: int, last: LastEventID) -> AsyncIterator[Tick]:
    """
    Count in steps, from where the client has left off.
    """
    n = int(last or 0)
    while True:
        n += step
        yield Tick(n=n)
        await anyio.sleep(1)
