"""
The page that shows an event stream, and the headers that fence it in.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files

__all__ = ["make_page"]


def make_page(
    title: str, channels: Sequence[str] = (), *, publish: bool = False
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """
    Return the page and its headers.

    Whatever a stream may hold, nothing but the page's own script and style is
    ever run, and they talk to no other server.

    Args:
        title: What the stream is of.
        channels: Those of which it may be.
        publish: Whether there is a form to publish in them.

    """
    text = files(__package__).joinpath("page.html").read_text("utf-8")
    policy = (
        "default-src 'none'",
        *(
            f"{kind}-src 'sha256-{_sha256(inner)}'"
            for kind, inner in re.findall(r"<(script|style)>(.*?)</\1>", text, re.DOTALL)
        ),
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
    values = {"title": title, "channels": json.dumps(channels), "publish": json.dumps(publish)}
    # In one go: a title may look like a place for another value.
    body = re.sub(rf"\$({'|'.join(values)})\b", lambda found: html.escape(values[found[1]]), text)
    return body.encode(), [
        (b"content-type", b"text/html; charset=utf-8"),
        # The next one to answer at this address may be another program.
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
