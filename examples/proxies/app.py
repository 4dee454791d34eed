"""
Two event streams behind proxies: one for each client, and one from which all clients drink.

::

    hypercorn examples/proxies/app.py
    nginx -p /tmp -c $PWD/examples/proxies/nginx.conf
    curl -N http://127.0.0.1:8080/mine
    varnishd -F -n /tmp/fan-out -a 127.0.0.1:8081 -f $PWD/examples/proxies/fan_out.vcl
    curl -N http://127.0.0.1:8081/everyones

nginx is as it comes: that it does not buffer is due to the stream's headers. Varnish opens
``/everyones`` once and serves every client from it, because of the stream's ``Cache-Control``. It
keeps what it has seen, so a client that comes late gets all since the beginning of the stream.
Hence the stream ends when its ``max-age`` is over, and the clients come back to the next one.
"""

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

from asgi_sse import EventStream, ServerSentEvent

numbers = itertools.count(1)


async def ticks() -> AsyncIterator[ServerSentEvent]:
    number = next(numbers)
    print(f"Stream {number} begins.", flush=True)
    try:
        while True:
            yield ServerSentEvent(f"stream {number}, {time.ctime()}", id=time.time_ns())
            await anyio.sleep(1)
    finally:
        print(f"Stream {number} is over.", flush=True)


mine = EventStream(ticks)
everyones = EventStream(
    ticks,
    headers={"cache-control": "public, max-age=29"},
    max_age=29,
    # At once: what reconnects to the proxy is no burden here.
    farewell=ServerSentEvent(retry=0),
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    fans_out = scope["type"] == "http" and scope["path"] == "/everyones"
    await (everyones if fans_out else mine)(scope, receive, send)
