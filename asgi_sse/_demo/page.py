"""
The page that shows an event stream, and the headers that fence it in.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files

__all__ = ["make_page"]


def make_page(title: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """
    Return the page and its headers.

    Whatever a stream may hold, nothing but the page's own script and style is
    ever run, and they talk to no other server.

    Args:
        title: What the stream is of.

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
    body = text.replace("$title", html.escape(title)).encode()
    return body, [
        (b"content-type", b"text/html; charset=utf-8"),
        # The next one to answer at this address may be another program.
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
