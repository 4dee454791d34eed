"""
What a client asks, as the scope and the body that an app is called with.
"""

import json
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, TypedDict
from urllib.parse import quote, unquote_to_bytes, urlencode

__all__ = ["Body", "Pairs", "Request", "RequestOptions"]

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]
Body = bytes | str | AsyncIterable[bytes]


class RequestOptions(TypedDict, total=False):
    """
    What ``connect()`` lets one say about a request.
    """

    method: str
    headers: Pairs | None
    query: Pairs | str | None
    body: Body
    json: Any
    cookies: Mapping[str, str] | None
    last_event_id: str
    scope: Mapping[str, Any] | None
    timeout: float | None
    cleanup_timeout: float


class Request:
    """
    A request as an ``EventSource`` makes it, but for what the caller wants otherwise.
    """

    def __init__(self, path: str, options: RequestOptions) -> None:
        path, _, self._query = path.partition("?")
        self._path = quote(path, safe="/%:@!$&'()*+,;=~-._")
        self._method = options.get("method", "GET").upper()
        self._more_scope = options.get("scope") or {}

        query = options.get("query")
        if query is not None:
            more = query if isinstance(query, str) else urlencode(_pairs(query), doseq=True)
            self._query = "&".join(filter(None, (self._query, more)))

        body = options.get("body", b"")
        fields: list[tuple[str, str | bytes]] = [("host", "testserver")]
        fields += [("accept", "text/event-stream"), ("cache-control", "no-cache")]
        if options.get("json") is not None:
            if body:
                raise TypeError("body and json exclude each other (got both)")
            body = json.dumps(options["json"])
            fields.append(("content-type", "application/json"))
        #: The bytes to send, or an upload that takes its time.
        self.body = body.encode() if isinstance(body, str) else body
        if not isinstance(self.body, bytes):
            fields.append(("transfer-encoding", "chunked"))
        elif self.body:
            fields.append(("content-length", str(len(self.body))))
        if cookies := options.get("cookies"):
            fields.append(("cookie", "; ".join(f"{name}={cookies[name]}" for name in cookies)))
        given = [(name.lower(), value) for name, value in _pairs(options.get("headers") or {})]
        replaced = {name for name, _ in given}
        self._fields = [field for field in fields if field[0] not in replaced] + given

    def scope(
        self, spec_version: str | None, last_event_id: str, state: dict[str, Any]
    ) -> dict[str, Any]:
        """
        Return a new scope, for the first request or for one after a reconnect.
        """
        asgi = {"version": "3.0"}
        if spec_version is not None:
            asgi["spec_version"] = spec_version
        headers = [(_bytes(name), _bytes(value)) for name, value in self._fields]
        if last_event_id:
            # "Encoded as UTF-8", where other header values are Latin-1.
            headers.append((b"last-event-id", last_event_id.encode()))
        return {
            "type": "http",
            "asgi": asgi,
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": unquote_to_bytes(self._path).decode(),
            "raw_path": self._path.encode(),
            "query_string": self._query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("testserver", 80),
            "state": state,
            **self._more_scope,
        }


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1")


def _pairs(given: Pairs) -> list[tuple[str, Any]]:
    return list(given.items() if isinstance(given, Mapping) else given)
