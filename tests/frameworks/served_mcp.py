"""
A server of the MCP SDK, with asgi_sse.starlette in place of sse-starlette.
"""

import sys
from typing import Any

import asgi_sse.starlette

for name in ("sse_starlette", "sse_starlette.sse", "sse_starlette.event"):
    sys.modules[name] = asgi_sse.starlette

from mcp.server.mcpserver import Context, MCPServer

make_response = asgi_sse.starlette.EventSourceResponse.__call__


async def counting(self: Any, scope: Any, receive: Any, send: Any) -> None:
    print("An EventSourceResponse of ours begins.", flush=True)
    await make_response(self, scope, receive, send)
    print("An EventSourceResponse of ours is over.", flush=True)


asgi_sse.starlette.EventSourceResponse.__call__ = counting  # type: ignore[method-assign]

server = MCPServer("test")


@server.tool()
async def add(a: int, b: int, context: Context) -> int:
    """
    Add, and say so on the way.
    """
    await context.report_progress(1, 2)
    return a + b


streamable = server.streamable_http_app()
sse = server.sse_app()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan" or scope["path"].startswith("/mcp"):
        await streamable(scope, receive, send)
    else:
        await sse(scope, receive, send)
