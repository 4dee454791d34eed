"""
A stream for members only.

::

    hypercorn examples/03_members.py
    curl -N http://127.0.0.1:8000/ -H "Authorization: Bearer alice"
    curl -N http://127.0.0.1:8000/ -H "Authorization: Bearer bob"
    curl -Ni http://127.0.0.1:8000/

What a coroutine function awaits before it returns the stream is the setup phase: it may
still answer with another status, and what it holds is given back before the stream begins.
Here that is a connection to the database, which thousands of open streams must not keep.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from asgi_sse import Refused, Request, event_stream


class Database:
    """
    Stands for a real one.
    """

    connections = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    async def is_member(self, name: str) -> bool:
        await anyio.sleep(0.01)
        return name == "alice"


database = Database()


@event_stream
async def app(request: Request) -> AsyncIterator[str]:
    scheme, _, name = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refused(401, "Who are you?", {"WWW-Authenticate": 'Bearer realm="news"'})
    async with database.connect():
        if not await database.is_member(name):
            raise Refused(403, "This is for members.")
    return news(name)


async def news(name: str) -> AsyncIterator[str]:
    number = 0
    while True:
        number += 1
        yield f"No. {number}, for {name} only"
        await anyio.sleep(1)
