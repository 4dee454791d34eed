"""
A language model that repeats the question, in the formats of OpenAI and Anthropic.

::

    hypercorn examples/language_model.py
    curl -N http://127.0.0.1:8000/v1/chat/completions -d '
        {"model": "echo", "stream": true, "messages": [{"role": "user", "content": "Hello, you"}]}'

The clients of both stream from it: ``OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")``,
``Anthropic(base_url="http://127.0.0.1:8000", api_key="-")``. The request is read and judged before
the response starts, so that a wrong one gets a status; when the client leaves, the model stops.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

from asgi_sse import EventStream, Refused, Request, ServerSentEvent


async def question(request: Request) -> list[str]:
    """
    Return the words of what was asked last, or refuse the request.
    """
    try:
        content = json.loads(await request.body())["messages"][-1]["content"]
    except (ValueError, LookupError, TypeError) as exc:
        raise Refused(400, f"There is no message in it: {exc!r}") from exc
    if not isinstance(content, str):
        raise Refused(400, "Only text is understood.")
    return content.split(" ")


async def think(words: list[str]) -> AsyncIterator[str]:
    for n, word in enumerate(words):
        await anyio.sleep(0.05)
        yield f" {word}" if n else word


async def completions(request: Request) -> AsyncIterator[Any]:
    return openai(await question(request))


async def openai(words: list[str]) -> AsyncIterator[Any]:
    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "echo",
            "choices": [choice],
        }

    yield chunk({"role": "assistant", "content": ""})
    async for token in think(words):
        yield chunk({"content": token})
    yield chunk({}, "stop")
    yield "[DONE]"


async def messages(request: Request) -> AsyncIterator[ServerSentEvent]:
    return anthropic(await question(request))


async def anthropic(words: list[str]) -> AsyncIterator[ServerSentEvent]:
    def event(kind: str, **fields: Any) -> ServerSentEvent:
        return ServerSentEvent.json({"type": kind, **fields}, event=kind)

    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "echo",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": len(words), "output_tokens": 0},
    }
    yield event("message_start", message=message)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    async for token in think(words):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": token})
    yield event("content_block_stop", index=0)
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": len(words)})
    yield event("message_stop")


PATHS = {
    "/v1/chat/completions": EventStream(completions, methods=["POST"]),
    "/v1/messages": EventStream(messages, methods=["POST"]),
}


async def not_found(request: Request) -> AsyncIterator[str]:
    raise Refused(404, f"There is {' and '.join(PATHS)}.")


ELSE = EventStream(not_found, methods=["GET", "POST"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    await PATHS.get(scope.get("path", ""), ELSE)(scope, receive, send)
