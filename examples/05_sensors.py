"""
Several tasks in the background feed one stream, and end with it.

::

    hypercorn examples/05_sensors.py
    curl -N http://127.0.0.1:8000/

An async generator must not yield from within a task group (PEP 789): if a task fails, it is
whoever iterates over the generator that is cancelled. A context manager may. The stream is
read inside it, and leaves it when the client has left.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from asgi_sse import event_stream

Reading = dict[str, str | float]

#: How often each is read, in seconds.
SENSORS = {"wind": 0.7, "temperature": 2.0}


@event_stream
@asynccontextmanager
async def app() -> AsyncIterator[MemoryObjectReceiveStream[Reading]]:
    # Nothing waits in it: a sensor is not read again before the client has got its reading.
    send, receive = anyio.create_memory_object_stream[Reading](0)
    async with anyio.create_task_group() as tasks:
        async with send:
            for name in SENSORS:
                tasks.start_soon(watch, name, send.clone())
        yield receive


async def watch(name: str, send: MemoryObjectSendStream[Reading]) -> None:
    async with send:
        while True:
            await send.send({"sensor": name, "value": round(random.gauss(10, 2), 1)})
            await anyio.sleep(SENSORS[name])
