"""
The stream of stopping.py that knows of nothing, made with fastapi.sse.
"""

import sys
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import anyio

# Not a dependency of the tests: the table leaves out what is not installed.
fastapi: Any = import_module("fastapi")
app: Any = fastapi.FastAPI()


async def nothing() -> Any:
    return fastapi.Response()


async def stream() -> AsyncIterator[str]:
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


# Not as decorators, which for type checkers would have no type.
app.head("/")(nothing)
app.get("/unaware", response_class=import_module("fastapi.sse").EventSourceResponse)(stream)
