"""
What is decided about a request before its stream opens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from ._accept import (
    EVENT_STREAM,
    asks_for_event_stream,
    choose_coding,
    is_event_source,
    quality_of_event_stream,
    values,
)
from ._compress import Send, compressing
from ._headers import RawHeader, add_vary
from ._limiter import Limiter
from ._options import ASGIApp, Options
from ._origins import is_preflight
from ._refusal import refuse
from ._request import Refused, Request

Receive = Callable[[], Awaitable[Any]]


class Door:
    """
    What stands before an ASGI application that streams.

    What is asked first stands first:

    - whether another origin may come: a preflight is answered here;
    - the media type: who wants another gets the fallback, or 406;
    - the method: another one gets 405;
    - the limit: one too many gets 503 or 429, or is to come again later.

    Whoever gets through has his stream compressed, if he likes. Everything but
    what the fallback answers says which origins may read it.

    Args:
        options: What is asked for.
        routed: Whether a framework has looked at the method already.

    """

    def __init__(self, options: Options, *, routed: bool = False) -> None:
        self._options = options
        methods = tuple(options.methods)
        if "GET" in methods and "HEAD" not in methods:
            methods = (*methods, "HEAD")
        self._methods = None if routed else methods
        self._vary = []
        if options.accept == "strict" or options.fallback is not None:
            self._vary.append("Accept")
        if options.origins is not None and options.origins.varies:
            self._vary.append("Origin")

    # Neither this nor what it lets through is a coroutine function: the stream would wait
    # in it, and each wake-up of the stream come by it.

    def enter(self, app: ASGIApp, scope: Any, receive: Receive, send: Send) -> Awaitable[None]:
        """
        Return what answers an HTTP request, or lets it through to an application.

        Raises:
            BaseException: What a function raises that is an option.

        """
        options = self._options
        headers = scope["headers"]
        preflight = options.origins is not None and is_preflight(scope["method"], headers)
        if options.fallback is not None and not (
            preflight or asks_for_event_stream(values(headers, b"accept"))
        ):
            return options.fallback(scope, receive, _with_headers(send, [], ["Accept"]))
        added = [] if options.origins is None else options.origins.headers(headers)
        if added or self._vary:
            send = _with_headers(send, added, self._vary)
        refused = self._refuse(scope["method"], headers, allowed=bool(added))
        if refused is not None:
            return refuse(scope, receive, send, refused)
        if options.limit is None or scope["method"] == "HEAD":
            return self._let_through(app, scope, receive, send)
        return self._limit(options.limit, app, scope, receive, send)

    def _refuse(
        self, method: str, headers: Iterable[RawHeader], *, allowed: bool
    ) -> Refused | None:
        """
        Return the answer to what asks for no stream, or for none that there is.
        """
        options = self._options
        if options.origins is not None and is_preflight(method, headers):
            return options.origins.answer_preflight(headers, allowed=allowed)
        strict = options.accept == "strict"
        if strict and not quality_of_event_stream(values(headers, b"accept")):
            return Refused(406, f"This is {EVENT_STREAM}, and nothing else.")
        if self._methods is not None and method not in self._methods:
            allow = ", ".join(self._methods)
            return Refused(405, f"Only {allow} are answered here.", {"Allow": allow})
        return None

    async def _limit(
        self, limit: Limiter, app: ASGIApp, scope: Any, receive: Receive, send: Send
    ) -> None:
        try:
            key = await limit.key(_Visitor(scope, cast("Any", _Outside())))
        except Refused as refused:
            await refuse(scope, receive, send, refused)
            return
        refusal = limit.enter(key)
        if refusal is None:
            try:
                await self._let_through(app, scope, receive, send)
            finally:
                limit.leave(key)
        elif is_event_source(scope["headers"]):
            # On anything but 200 it would never come again.
            headers = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"}
            # No blank line: several clients dispatch it as an event.
            text = f":\nretry: {limit.reconnection_time()}\n"
            await refuse(scope, receive, send, Refused(200, text, headers))
        else:
            await refuse(scope, receive, send, refusal)

    def _let_through(
        self, app: ASGIApp, scope: Any, receive: Receive, send: Send
    ) -> Awaitable[None]:
        codings = self._options.codings
        if codings:
            coding = choose_coding(values(scope["headers"], b"accept-encoding"), codings)
            send = compressing(send, coding, head=scope["method"] == "HEAD")
        return app(scope, receive, send)


def _with_headers(send: Send, added: list[RawHeader], vary: list[str]) -> Send:
    """
    Return a ``send`` that puts headers over those of the response.
    """
    # A list, unlike the others: what the caller lets pages read stays.
    names = {name for name, _ in added} - {b"access-control-expose-headers"}

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            # ASGI lets an application leave them out.
            theirs = message.get("headers", ())
            headers = [pair for pair in theirs if pair[0].lower() not in names]
            headers += added
            for name in vary:
                headers = add_vary(headers, name)
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


class _Visitor(Request):
    """
    A request that may yet be turned away.
    """

    __slots__ = ()

    @property
    def meta(self) -> dict[str, Any]:
        # What was put here would be lost: the source gets a request of its own.
        raise RuntimeError("meta is known only once the stream may open")


class _Outside:
    """
    What a request cannot tell before it is let through.
    """

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} is known only once the stream may open")
