"""
An answer that appears word by word, as from the APIs of language models.

::

    hypercorn examples/04_chat.py
    curl -N http://127.0.0.1:8000/ -d '{"messages": [{"role": "user", "content": "Say it."}]}'

A request that cannot be understood is refused before the stream begins, so that the client
gets a plain 400. What is neither text nor an event is sent as JSON.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio

from asgi_sse import Refused, Request, event_stream

EXPECTED = 'The body must be like {"messages": [{"role": "user", "content": "..."}]}'


@event_stream(methods=["POST"])
async def app(request: Request) -> AsyncIterator[dict[str, Any] | str]:
    return answer(prompt_in(await request.body()))


def prompt_in(body: bytes) -> str:
    try:
        chat = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, f"{EXPECTED}, and it is no JSON.") from None
    match chat:
        case {"messages": [*_, {"role": "user", "content": str(prompt)}]}:
            return prompt
    raise Refused(400, f"{EXPECTED}.")


async def answer(prompt: str) -> AsyncIterator[dict[str, Any] | str]:
    async with aclosing(model(prompt)) as tokens:
        async for token in tokens:
            yield {"choices": [{"index": 0, "delta": {"content": token}}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield "[DONE]"


async def model(prompt: str) -> AsyncGenerator[str, None]:
    """
    Has learnt only to repeat what it is told, but that very well.
    """
    for word in prompt.split():
        await anyio.sleep(0.1)
        yield f"{word} "
