"""
A channel for many clients, and a back door to it.
"""

import json
import os
from pathlib import Path
from typing import Any

from asgi_sse import Channel, EventStream, Request, event_stream

channel = Channel(history=200)
events = EventStream(channel, send_timeout=float(os.environ["SEND_TIMEOUT"]))


@event_stream(methods=["POST"])
async def publish(request: Request) -> Any:
    for _ in range(int(request.query["count"])):
        yield await channel.publish("x" * int(request.query["size"]))


def memory() -> int:
    """
    Return how many bytes of this process are in memory.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] == "/events":
        await events(scope, receive, send)
    elif scope["path"] == "/publish":
        await publish(scope, receive, send)
    else:
        statistics = channel.statistics()
        body = {
            "memory": memory(),
            "subscribers": statistics.subscribers,
            "largest_lag": statistics.largest_lag,
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})
