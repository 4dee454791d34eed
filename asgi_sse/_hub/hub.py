"""
The channels of a broker as an ASGI application.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import anyio

from .._demo.site import Receive, Send, Site, answer
from .._options import OptionTypes
from .._refusal import discard_body
from .._request import Refused, Request
from .._servers import breaks_on_a_late_body
from .._stream import EventStream
from ..channels import Broker, BrokerError
from ..channels._names import is_pattern, matches
from .door import Door
from .publishing import read_event

__all__ = ["Hub"]

_PUBLISH = "/publish/"
# Of one request. The broker reads each channel by itself, so a single GET with names that a
# wildcard allows would begin as many readers.
_MOST = 50
_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


class Hub:
    """
    ``GET /events`` subscribes, ``POST /publish/NAME`` publishes, ``/`` is a page.

    The broker is open as long as the lifespan.

    Args:
        broker: It keeps the channels.
        names: Those of the channels, and no others. With a wildcard: of all that it means.
        door: Who may do what.
        options: Of the streams.

    """

    def __init__(
        self, broker: Broker, names: Sequence[str], door: Door, **options: Unpack[OptionTypes]
    ) -> None:
        self._broker = broker
        # Each once, and each fit to be one.
        self._channels = {name: broker.channel(name) for name in names}
        self._door = door
        self.title = ("Channel " if len(self._channels) == 1 else "Channels ") + ", ".join(
            self._channels
        )
        self._site = Site(
            EventStream(self._subscribe, **options),
            self.title,
            channels=tuple(self._channels),
            publish=door.is_open,
        )
        self._opened = anyio.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """
        Answer one ASGI scope.
        """
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._site(scope, receive, send)

    def close(self) -> None:
        """
        Cancel every stream.
        """
        self._site.close()

    async def wait_opened(self) -> None:
        """
        Return when the broker is open.
        """
        await self._opened.wait()

    async def _live(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        try:
            async with self._broker:
                self._opened.set()
                await self._site(scope, receive, send)
        except (BrokerError, ImportError) as error:
            # It was not asked for yet, and hypercorn on trio wants it to be.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def _http(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        # Only a stream has a lifetime to ask about.
        request = Request(cast("Any", scope), cast("Any", None))
        try:
            self._door.admit(request)
            if scope["path"].startswith(_PUBLISH):
                await self._publish(request, receive, send)
            else:
                await self._site(scope, receive, send)
        except Refused as refused:
            if breaks_on_a_late_body(cast("Any", scope)):
                await discard_body(receive)
            headers = [*_TEXT, *refused.headers]
            await answer(send, scope, refused.status, headers, refused.detail.encode())

    async def _publish(self, request: Request, receive: Receive, send: Send) -> None:
        if request.method != "POST":
            raise Refused(405, "POST what is to be published.\n", {"Allow": "POST"})
        self._door.admit_publisher(request)
        name = self._known(request.scope["path"].removeprefix(_PUBLISH))
        event = await read_event(request, receive)
        if event is None:
            return
        try:
            event_id = await self._broker.publish(name, event)
        except ValueError as error:
            # The name is that of several channels.
            raise Refused(400, f"{error}.\n") from error
        except BrokerError as error:
            raise Refused(
                503, f"It is not known to be published: {error}\n", {"Retry-After": "1"}
            ) from error
        await answer(send, request.scope, 201, _TEXT, f"{event_id}\n".encode())

    def _subscribe(self, request: Request) -> Any:
        names = request.query.get_all("channel")
        if len(names) > _MOST:
            raise Refused(
                400, f"One request may ask for {_MOST} channels at most (got {len(names)}).\n"
            )
        known = [*map(self._known, names or self._channels)]
        try:
            return self._broker.subscribe(*known, last_event_id=request.last_event_id)
        except ValueError as error:
            # They are too many for one event ID.
            raise Refused(400, f"{error}.\n") from error

    def _known(self, name: str) -> str:
        if name not in self._channels:
            # By its parts "news.*" would mean "news.>", too, which means more than it does.
            if is_pattern(name) or not any(
                is_pattern(each) and matches(each, name) for each in self._channels
            ):
                raise Refused(
                    404,
                    f"There is no channel {name!a:.100} here, but: {', '.join(self._channels)}.\n",
                )
            try:
                self._broker.channel(name)
            except ValueError as error:
                raise Refused(400, f"{error}.\n") from error
        return name
