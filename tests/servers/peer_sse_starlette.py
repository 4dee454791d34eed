"""
The stream of stopping.py that knows of nothing, made with sse-starlette.
"""

import sys
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import anyio

# Not a dependency of the tests: the table leaves out what is not installed.
starlette: Any = import_module("starlette.applications")
routing: Any = import_module("starlette.routing")
responses: Any = import_module("starlette.responses")
sse: Any = import_module("sse_starlette")


async def source() -> AsyncIterator[str]:
    cleaned_up = False
    try:
        yield "hello"
        await anyio.sleep_forever()
    finally:
        try:
            await anyio.sleep(0.05)
            cleaned_up = True
        finally:
            sys.stdout.write(f"closed /unaware shutdown {cleaned_up}\n")


async def stream(request: Any) -> Any:
    return sse.EventSourceResponse(source())


async def nothing(request: Any) -> Any:
    return responses.Response()


app: Any = starlette.Starlette(
    routes=[routing.Route("/unaware", stream), routing.Route("/", nothing)]
)
