"""
Answering with a status instead of a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import move_on_after

from ._body import LATEST
from ._request import Refused
from ._servers import breaks_on_a_late_body

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope


async def discard_body(receive: ASGIReceiveCallable) -> None:
    """
    Read the request's body to its end, but not for ever.
    """
    with move_on_after(LATEST):
        message = await receive()
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()


async def refuse(
    scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, refused: Refused
) -> None:
    """
    Answer a request of which nothing has been read.
    """
    if breaks_on_a_late_body(scope):
        await discard_body(receive)
    await respond(send, refused, head=scope["method"] == "HEAD")


async def respond(send: ASGISendCallable, refused: Refused, *, head: bool = False) -> None:
    """
    Answer with a status and a line of text instead of a stream.
    """
    body = refused.detail.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")] if body else []
    # RFC 9110, 8.6: a 204 or 304 must not have a length, HEAD none but that of GET.
    if refused.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    else:
        body = b""
    replaced = {name for name, _ in refused.headers}
    headers = [pair for pair in headers if pair[0] not in replaced] + refused.headers
    if head:
        # Some servers send what comes after the headers, in answer to HEAD too.
        body = b""
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": headers,
            "trailers": False,
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
