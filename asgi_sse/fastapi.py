"""
Typed event streams for FastAPI, described in OpenAPI.
"""

import inspect
import types
from collections.abc import AsyncIterable, Iterable, Mapping
from copy import deepcopy
from dataclasses import is_dataclass, replace
from functools import partial
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeAlias,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from fastapi import Depends, Header
from fastapi import Response as InjectedResponse
from fastapi.exceptions import ResponseValidationError
from fastapi.openapi.models import MediaType
from fastapi.routing import APIRoute
from fastapi.sse import ServerSentEvent
from fastapi.utils import create_model_field, deep_dict_update
from pydantic import GetJsonSchemaHandler, RootModel, TypeAdapter, ValidationError
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from ._event import ServerSentEvent as CoreEvent
from ._headers import ResponseHeaders
from ._item import check_blocks
from ._options import Options, ResponseOptions
from ._request import Request
from ._response import Response
from ._source import Source
from .starlette import EventStreamResponse

__all__ = [
    "EventSourceResponse",
    "EventStreamRoute",
    "EventType",
    "LastEventID",
    "ServerSentEvent",
    "StreamRequest",
    "format_sse_event",
]

# The path operation has the say in these.
_FRAMEWORKS_OWN = {"json", "max_body_size", "methods", "status"}

_EVENT_PROPERTIES: dict[str, Any] = {
    "data": {"type": "string"},
    "event": {"type": "string"},
    "id": {"type": "string"},
    "retry": {"type": "integer", "minimum": 0},
}


class EventType:
    """
    The event type of an item type: ``Annotated[Tick, EventType("tick")]``.

    Without it the models of a union have their own name for it, and a type
    that is alone has none.

    Args:
        name: The event type.

    Raises:
        TypeError: It is not a str.
        ValueError: It has a CR, LF or NUL.

    """

    def __init__(self, name: str) -> None:
        CoreEvent(event=name)
        self.name = name


class EventSourceResponse(EventStreamResponse):
    """
    The response of a path operation that yields.

    Pass the class as ``response_class``, as that of ``fastapi.sse``. What the
    function yields is validated and written as JSON by the item type of its
    return annotation, ``AsyncIterator[Tick]``; an event goes out as it is. An
    ``HTTPException`` that is raised before the first event, within
    ``open_delay`` seconds, gives its status.

    Args:
        content: The generator.
        status_code: The HTTP status.
        headers: Response headers.
        media_type: The content type.
        background: Run when the response is over, unless by an exception.

    Example:
        >>> Ticks = EventSourceResponse.with_options(keep_alive=5)

    """

    #: How long is waited for the first event, unless :meth:`with_options` says else; a
    #: subclass may have another.
    OPEN_DELAY: ClassVar[float] = 5.0

    options: ClassVar[Options] = Options(open_delay=OPEN_DELAY)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "OPEN_DELAY" in vars(cls) and "options" not in vars(cls):
            cls.options = replace(cls.options, open_delay=cls.OPEN_DELAY)

    @classmethod
    def with_options(cls, **options: Unpack[ResponseOptions]) -> type[Self]:
        """
        Return this class with the options of an :class:`asgi_sse.EventStream`.

        What is not given stays as this class has it.

        Raises:
            TypeError: An option is of another type, or is the path operation's to set.
            ValueError: An option has a value that makes no sense.

        """
        for name in _FRAMEWORKS_OWN.intersection(options):
            raise TypeError(f"{name} is not an option here: the path operation has the say in it")
        # Not as the path operation's items are: "[DONE]" is none of their type.
        if isinstance(done := options.get("done"), ServerSentEvent):
            options["done"] = _to_core_event(done)
        changed = replace(cls.options, json=_ANYTHING.to_json, **options)
        return type(cls.__name__, (cls,), {"options": changed})

    def __init__(
        self,
        content: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        super().__init__(status_code, headers, media_type, background)
        self.body_iterator = _unwrapped(content)

    def make_source(self) -> Source:
        return Source(self.body_iterator)

    def make_options(self, scope: Scope) -> Options:
        return self.options.adapted(encode=_items_of(scope.get("route")).encode)

    def make_response(
        self, options: Options, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        stream = scope.get(_STREAM)
        if stream is not None and stream.injected is not None:
            send = _with_late_headers(send, options.status, stream.injected)
        response = super().make_response(options, scope, receive, send)
        if stream is not None:
            stream.response = response
            # What a dependency has said of it is known to the source's side, too.
            response.request = stream.request
        return response


class EventStreamRoute(APIRoute):
    """
    A route that describes what its path operation yields in OpenAPI.

    And for which it is not too late, within the path operation and before its
    first event, to set headers, cookies or the status of the injected response.

    As the ``route_class`` of a router: ``APIRouter(route_class=EventStreamRoute)``,
    or ``app.router.route_class = EventStreamRoute``. Path operations that have
    no :class:`EventSourceResponse` are left as they are.
    """

    def __init__(self, path: str, endpoint: Any, **kwargs: Any) -> None:
        given = kwargs.get("response_class")
        response_class: Any = getattr(given, "value", given)
        streams = (
            isinstance(response_class, type)
            and issubclass(response_class, EventSourceResponse)
            and _yields(endpoint)
        )
        if streams:
            dependencies = kwargs.get("dependencies") or ()
            kwargs["dependencies"] = [Depends(_keep_injected), *dependencies]
        super().__init__(path, endpoint, **kwargs)
        if not streams:
            return
        # Here, so that an item type that makes no sense is refused when it is declared.
        items = _items_of(self)
        schema: dict[str, Any] = {"type": "object", "properties": _EVENT_PROPERTIES}
        if items.types:
            # FastAPI finds the models in it, and gives each a name in the document. This
            # one has its name from here, so that it can be referred to.
            name = f"Event_{self.unique_id}"
            described = {"types": items.types, "others": items.others}
            self.stream_item_type = type(name, (_Event,), described)
            self.stream_item_field = create_model_field(
                f"StreamItem_{self.unique_id}", self.stream_item_type, mode="serialization"
            )
            schema = {"$ref": f"#/components/schemas/{name}"}
        # An object and not a dict, which would be merged with what FastAPI says.
        content = MediaType.model_validate({"itemSchema": deepcopy(schema)})
        status = str(self.status_code or 200)
        extra = {"responses": {status: {"content": {response_class.media_type: content}}}}
        deep_dict_update(extra, self.openapi_extra or {})
        self.openapi_extra = extra


class _Event(RootModel[Any]):
    """
    The event of a stream, for OpenAPI: one schema for each event type.
    """

    types: ClassVar[list[tuple[Any, str | None]]]
    #: Whether any other event may come, too.
    others: ClassVar[bool]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        contents: dict[str | None, list[Any]] = {}
        for item, name in cls.types:
            # Below another schema, or a model would not get its place among the components.
            below: Any = {"type": "list", "items_schema": TypeAdapter(item).core_schema}
            contents.setdefault(name, []).append(handler(below)["items"])
        alone = len(contents) == 1
        events = [_event_schema(name, found, alone) for name, found in contents.items()]
        if cls.others:
            return {"anyOf": [*events, {"type": "object", "properties": _EVENT_PROPERTIES}]}
        return events[0] if alone else {"oneOf": events}


def _event_schema(name: str | None, contents: list[Any], alone: bool) -> dict[str, Any]:
    """
    Return the schema of the events of one type; without a name: of those that have none.
    """
    properties = deepcopy(_EVENT_PROPERTIES)
    properties["data"] |= {
        "contentMediaType": "application/json",
        # It tells what is in the text and decides nothing, so it cannot tell events apart.
        "contentSchema": contents[0] if len(contents) == 1 else {"anyOf": contents},
    }
    schema = {"type": "object", "properties": properties, "required": ["data"]}
    if name is not None:
        properties["event"]["const"] = name
        schema["required"] = ["data", "event"]
    elif not alone:
        # What clients take it for. Else it would fit those that have a name, too, and of a
        # oneOf only one may.
        properties["event"]["const"] = "message"
    return schema


class _Items:
    """
    How the items of a path operation become bytes.

    Args:
        annotation: The type of an item.
        framed: Whether text and bytes are blocks that somebody has framed already.
        dump: How pydantic is to write an item.

    """

    def __init__(self, annotation: Any, *, framed: bool = False, **dump: Any) -> None:
        members = _members(annotation)
        kept = [member for member in members if member not in (ServerSentEvent, CoreEvent)]
        #: Whether it may also be an event.
        self.others = len(kept) < len(members)
        #: The types that an item may have, and their event types; of any type: none.
        self.types: list[tuple[Any, str | None]] = []
        if Any not in kept:
            self.types = [(member, _event_type(member, len(kept) > 1)) for member in kept]
        self._heads = {
            _bare(member): CoreEvent(event=name).encode()[:-1]
            for member, name in self.types
            if name is not None
        }
        if self.others:
            annotation = Union[tuple(kept)] if kept else Any  # noqa: UP007 - made at run time
        self._framed = framed
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self._dump = dump

    def encode(self, item: Any) -> bytes:
        """
        Return the event that carries an item, or that the item is.

        Raises:
            ResponseValidationError: It is none of the types that were declared.
            ValueError: It is to be framed already, and does not end with a blank line.

        """
        if isinstance(item, CoreEvent):
            return item.encode()
        if isinstance(item, ServerSentEvent):
            return _to_core_event(item).encode()
        if self._framed and isinstance(item, str | bytes | bytearray | memoryview):
            blocks = item.encode() if isinstance(item, str) else bytes(item)
            return check_blocks(blocks, "ServerSentEvent")
        try:
            value = self._adapter.validate_python(item, from_attributes=True)
        except ValidationError as exc:
            raise ResponseValidationError(exc.errors(), body=item) from exc
        data = self.to_json(value)
        if not self._heads:
            return b"data: %b\n\n" % data
        heads = (self._heads[kind] for kind in type(value).__mro__ if kind in self._heads)
        return b"%bdata: %b\n\n" % (next(heads, b""), data)

    def to_json(self, value: Any) -> bytes:
        """
        Return a value as JSON.
        """
        return self._adapter.dump_json(value, **self._dump)


def format_sse_event(
    *,
    data_str: str | None = None,
    event: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    """
    Return the bytes of an event, for a response that is returned.

    It has the arguments of FastAPI's function of this name, which lets line ends
    into *event* and *id* and so events into the stream; here they are refused.

    Raises:
        TypeError: An argument is of another type.
        ValueError: *event* or *id* is not a single line, or *retry* is negative.

    """
    block = CoreEvent(data_str, event=event, id=id, retry=retry, comment=comment).encode()
    # What is framed elsewhere has to be whole blocks; FastAPI's are, too.
    return block if block.endswith(b"\n\n") else block + b"\n"


def _to_core_event(event: ServerSentEvent) -> CoreEvent:
    """
    Return an event of FastAPI's, whose data is always JSON, as one of ours.
    """
    data = event.raw_data
    if event.data is not None:
        data = _ANYTHING.to_json(event.data).decode()
    return CoreEvent(
        data, event=event.event, id=event.id, retry=event.retry, comment=event.comment
    )


def _items_of(route: Any) -> _Items:
    """
    Return how what the path operation of a route yields becomes bytes.
    """
    if not isinstance(route, APIRoute) or not _yields(route.endpoint):
        return _RETURNED
    # It lives as long as the route, and is made once for it.
    items: _Items | None = getattr(route, "event_stream_items", None)
    if items is None:
        items = _Items(
            _item_type(route.endpoint),
            include=route.response_model_include,
            exclude=route.response_model_exclude,
            by_alias=route.response_model_by_alias,
            exclude_unset=route.response_model_exclude_unset,
            exclude_defaults=route.response_model_exclude_defaults,
            exclude_none=route.response_model_exclude_none,
        )
        route.event_stream_items = items  # type: ignore[attr-defined]
    return items


def _yields(endpoint: Any) -> bool:
    function = _function(endpoint)
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


def _function(endpoint: Any) -> Any:
    """
    Return the function that was written, below all that was put around it.
    """
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    endpoint = inspect.unwrap(endpoint)
    return endpoint if inspect.isroutine(endpoint) else type(endpoint).__call__


def _item_type(endpoint: Any) -> Any:
    """
    Return what is in the brackets of ``AsyncIterator[...]``, or ``Any``.
    """
    returned = get_type_hints(_function(endpoint), include_extras=True).get("return")
    origin = get_origin(returned)
    if isinstance(origin, type) and issubclass(origin, AsyncIterable | Iterable):
        return get_args(returned)[0]
    return Any


def _members(annotation: Any) -> list[Any]:
    """
    Return the types of a union, or the one type that it is.
    """
    # "type Item = Tick | Trade"
    if hasattr(annotation, "__value__"):
        return _members(annotation.__value__)
    inner = _bare(annotation)
    if get_origin(inner) in (Union, types.UnionType):
        return [member for arg in get_args(inner) for member in _members(arg)]
    return [annotation]


def _bare(annotation: Any) -> Any:
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _event_type(member: Any, in_union: bool) -> str | None:
    for it in getattr(member, "__metadata__", ()):
        if isinstance(it, EventType):
            return it.name
    kind = _bare(member)
    is_model = hasattr(kind, "__pydantic_fields__") or is_dataclass(kind)
    return kind.__name__ if in_union and is_model else None


def _unwrapped(content: Any) -> Any:
    """
    Return the generator of the path operation, around which FastAPI puts one of its own.

    That one does not close it: a source that waits for the client to take
    something would be left to the garbage collector.
    """
    if inspect.isasyncgen(content) and content.__name__ == "_async_stream_raw":
        frame: Any = content.ag_frame
        return frame.f_locals.get("async_gen", content)
    return content


_ANYTHING = _Items(Any)

# What a response is made of that was returned. FastAPI writes no item of it, so that users
# have framed them, and go on doing so.
_RETURNED = _Items(Any, framed=True)

_STREAM = "asgi_sse.stream"


class _Stream:
    """
    The response of a request, for those who ask before it is there.
    """

    response: Response

    #: The response that FastAPI injects, from which the real one has its headers.
    injected: InjectedResponse | None = None

    def __init__(self, scope: Any) -> None:
        self.request = Request(scope, self)

    @property
    def closing(self) -> bool:
        return self.response.closing

    async def wait_closing(self) -> None:
        await self.response.wait_closing()

    @property
    def response_headers(self) -> ResponseHeaders:
        return self.response.response_headers

    async def body(self) -> bytes:
        return await self.response.body()

    def close(self) -> None:
        self.response.close()

    def expire_at(self, when: float | None) -> None:
        # Before, the request keeps it.
        if hasattr(self, "response"):
            self.response.expire_at(when)


# Not plain functions, which FastAPI would run in a thread.


async def _request(connection: HTTPConnection) -> Request:
    return _stream_of(connection).request


async def _keep_injected(connection: HTTPConnection, response: InjectedResponse) -> None:
    _stream_of(connection).injected = response


def _stream_of(connection: HTTPConnection) -> _Stream:
    stream: _Stream | None = connection.scope.get(_STREAM)
    if stream is None:
        stream = connection.scope[_STREAM] = _Stream(connection.scope)
    return stream


def _with_late_headers(send: Send, status: int, injected: InjectedResponse) -> Send:
    """
    Return a ``send`` that knows what a response has been given since now.

    FastAPI has copied its headers before the path operation runs. They are for
    the stream, which has this status, and not for an answer in its place.
    """
    copied = list(injected.raw_headers)

    async def send_late_headers(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == status:
            late = injected.raw_headers
            if late != copied:
                names = {name for name, _ in late}
                kept = [
                    header
                    for header in message["headers"]
                    if header[0] not in names and header not in copied
                ]
                message = {**message, "headers": kept + late}
            if injected.status_code is not None:
                message = {**message, "status": injected.status_code}
        await send(message)

    return send_late_headers


async def _last_event_id(
    connection: HTTPConnection,
    # For OpenAPI: FastAPI does not decode it as the standard has it encoded.
    header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> str | None:
    return (await _request(connection)).last_event_id


#: A parameter of a path operation: the library's request, to ask whether the stream is
#: being closed, or to close it. It answers once the path operation runs.
StreamRequest: TypeAlias = Annotated[Request, Depends(_request)]

#: A parameter of a path operation: the ID of the last event that the client has seen.
LastEventID: TypeAlias = Annotated[str | None, Depends(_last_event_id)]
