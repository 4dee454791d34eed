"""
Who may come in, and who may publish.
"""

from __future__ import annotations

from hmac import compare_digest
from ipaddress import ip_address

from .._request import Refused, Request

__all__ = ["Door", "is_loopback"]


class Door:
    """
    Whoever reaches the hub may subscribe; to publish takes the token.

    Without a token a hub is for this machine alone, and everybody there may publish. But a
    browser there shows pages of strangers, and these must not: neither by a request across
    origins, nor under a name of theirs that they let lead to this machine (DNS rebinding).

    Args:
        token: The bearer token; ``None``: nobody needs one, because only this machine can
            reach the hub.

    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    @property
    def is_open(self) -> bool:
        """
        Whether everybody who may come in may publish.
        """
        return self._token is None

    def admit(self, request: Request) -> None:
        """
        Let somebody in.

        Raises:
            Refused: The request is for another host.

        """
        host = request.headers.get("host", "")
        if self._token is None and not is_loopback(_hostname(host)):
            raise Refused(
                421,
                f"Without a token this hub is for its own machine only, not for {host!a:.100}.\n",
            )

    def admit_publisher(self, request: Request) -> None:
        """
        Let somebody publish who was let in.

        Raises:
            Refused: It is none of those who may.

        """
        headers = request.headers
        if self._token is not None:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            # Header values came as Latin-1, and compare_digest() takes no other text.
            given = token.strip(" ").encode("latin-1")
            if scheme.lower() != "bearer":
                raise Refused(
                    401, "To publish takes a bearer token.\n", {"WWW-Authenticate": "Bearer"}
                )
            if not compare_digest(given, self._token):
                raise Refused(
                    401,
                    "It is not this token.\n",
                    {"WWW-Authenticate": 'Bearer error="invalid_token"'},
                )
            return
        # Every browser tells an origin with a POST; newer ones tell both.
        origin = headers.get("origin")
        here = headers.get("host", "").lower()
        same = origin is None or origin.lower().partition("://")[2] == here
        if not same or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "Pages of other origins may not publish here.\n")


def is_loopback(host: str) -> bool:
    """
    Whether a name or an address is that of this machine for itself.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # RFC 6761, 6.3: no other name can be relied on to stay here.
        return host == "localhost" or host.endswith(".localhost")


def _hostname(host: str) -> str:
    """
    Return what the Host header names, without the port.
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
