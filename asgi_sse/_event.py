"""
One server-sent event, valid or refused, and its bytes.
"""

import reprlib
from typing import Self

from ._json import encode_json

__all__ = ["ServerSentEvent", "encode_data"]


class ServerSentEvent:
    """
    One event of an event stream.

    It is checked when it is made and never changes, so its bytes are made once,
    however many clients they are sent to. Events are equal if their fields are.

    Args:
        data: The text for the client. CRLF, CR and LF end a line in it, and the
            client sees LF for each. ``""`` is data: the client gets an event
            without text. Without data (``None``) no event is dispatched, but the
            other fields take effect.
        event: The event type, which selects the client's listeners. ``None`` and
            ``""`` mean ``message``.
        id: The event ID. A client that reconnects sends the last one it saw as
            ``Last-Event-ID``. ``""`` makes it forget that one, ``None`` leaves it
            alone. An integer is stored as text.
        retry: The reconnection time: how many milliseconds a client that lost
            its connection waits before it connects again.
        comment: Text for whoever looks at the wire; clients ignore it.

    Raises:
        TypeError: If a field is of another type.
        ValueError: If no field is given, if *event* or *id* holds CR, LF or NUL,
            if *retry* is negative, or if a text holds lone surrogates.

    Example:
        >>> ServerSentEvent("two\\nlines", id=7).encode()
        b'id: 7\\ndata: two\\ndata: lines\\n\\n'

    """

    __slots__ = ("_comment", "_data", "_event", "_id", "_retry", "_wire")

    _data: str | None
    _event: str | None
    _id: str | None
    _retry: int | None
    _comment: str | None
    _wire: bytes | None

    def __init__(
        self,
        data: str | None = None,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        if data is not None and type(data) is not str:
            data = _text("data", data)
        if event is not None:
            if type(event) is not str:
                event = _text("event", event)
            # A line end would add fields of somebody else's choice; NUL has no use in a name.
            if "\n" in event or "\r" in event or "\0" in event:
                raise _not_single_line("event", event)
        if id is not None:
            if type(id) is not str:
                id = str(id) if type(id) is int else _id(id)
            # "If the field value does not contain U+0000 NULL, then set the last event
            # ID buffer [...]. Otherwise, ignore the field." Refuse it here, where the
            # mistake can still be traced.
            if "\n" in id or "\r" in id or "\0" in id:
                raise _not_single_line("id", id)
        if retry is not None:
            retry = _milliseconds(retry)
        if comment is not None:
            comment = _text("comment", comment)

        self._data = data
        self._event = event
        self._id = id
        self._retry = retry
        self._comment = comment
        try:
            self._wire = _encode(data, event, id, retry, comment)
        except UnicodeEncodeError as error:
            raise _no_utf8(error, data=data, event=event, id=id, comment=comment) from None
        if not self._wire:
            raise ValueError('an event must have a field (got none); did you mean data=""?')

    @classmethod
    def json(
        cls,
        obj: object,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> Self:
        """
        Return an event whose data is an object, as JSON.

        Args:
            obj: The object. Dataclasses, pydantic models and msgspec structs are
                understood; ``None`` becomes ``null``.
            event: As in the class, and so are the others.
            id: The event ID.
            retry: The reconnection time.
            comment: A comment.

        Raises:
            TypeError: If the object has no form in JSON, or as in the class.
            ValueError: If there is a NaN or an infinity, or as in the class.

        Example:
            >>> ServerSentEvent.json({"load": 0.5}).data
            '{"load":0.5}'

        """
        return cls(encode_json(obj), event=event, id=id, retry=retry, comment=comment)

    @classmethod
    def _received(cls, data: str, event: str | None, id: str | None) -> Self:
        """
        Return an event as a client saw it, without judging or writing it.
        """
        self = cls.__new__(cls)
        self._data = data
        self._event = event
        self._id = id
        self._retry = None
        self._comment = None
        self._wire = None
        return self

    @property
    def data(self) -> str | None:
        """
        The text for the client, with the line ends that it was given.
        """
        return self._data

    @property
    def event(self) -> str | None:
        """
        The event type.
        """
        return self._event

    @property
    def id(self) -> str | None:
        """
        The event ID, always as text.
        """
        return self._id

    @property
    def retry(self) -> int | None:
        """
        The reconnection time in milliseconds.
        """
        return self._retry

    @property
    def comment(self) -> str | None:
        """
        The text that clients ignore.
        """
        return self._comment

    def encode(self) -> bytes:
        """
        Return the bytes that carry the event on the wire.

        They are one whole block: every field line, then the blank line that makes
        the client dispatch it. Send them in a single ``http.response.body``
        message, so that a keep-alive never lands in the middle of an event.

        What has only a comment or a reconnection time is written without the
        blank line: these take effect with their own line, there is nothing to
        dispatch, and several clients would then dispatch an empty event.

        Returns:
            UTF-8 bytes, the same object each time.

        Example:
            >>> ServerSentEvent(comment="hello").encode()
            b': hello\\n'

        """
        if self._wire is None:
            self._wire = _encode(self._data, self._event, self._id, self._retry, self._comment)
        return self._wire

    def _fields(self) -> tuple[str | None, str | None, str | None, int | None, str | None]:
        return self._data, self._event, self._id, self._retry, self._comment

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServerSentEvent):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        names = ("data", "event", "id", "retry", "comment")
        fields = zip(names, self._fields(), strict=True)
        given = ", ".join(f"{name}={value!r}" for name, value in fields if value is not None)
        return f"{type(self).__name__}({given})"


def encode_data(text: str) -> bytes:
    """
    Return the bytes of an event that has only data.

    They are those of ``ServerSentEvent(text)``, without making one.

    Args:
        text: The data.

    Returns:
        UTF-8 bytes, ending in a blank line.

    Raises:
        TypeError: If it is not a str.
        ValueError: If it holds lone surrogates.

    Example:
        >>> encode_data("two\\nlines")
        b'data: two\\ndata: lines\\n\\n'

    """
    if type(text) is not str:
        text = _text("data", text)
    try:
        if "\n" in text or "\r" in text:
            text = _lines(text, "data: ")
        return f"data: {text}\n\n".encode()
    except UnicodeEncodeError as error:
        raise _no_utf8(error, data=text) from None


def _encode(
    data: str | None, event: str | None, id: str | None, retry: int | None, comment: str | None
) -> bytes:
    head = ""
    if comment is not None:
        head = f": {_lines(comment, ': ')}\n"
    if event is not None:
        head = f"{head}event: {event}\n"
    if id is not None:
        head = f"{head}id: {id}\n"
    if retry is not None:
        head = f"{head}retry: {retry}\n"
    if data is not None:
        if "\n" in data or "\r" in data:
            data = _lines(data, "data: ")
        return f"{head}data: {data}\n\n".encode()
    if event is None and id is None:
        return head.encode()
    return f"{head}\n".encode()


def _lines(text: str, start: str) -> str:
    """
    Return text in which every line but the first begins with *start*.
    """
    # str.splitlines() would also split on U+2028, \x0b, \x85...; the event stream
    # format knows only these three.
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"\n{start}")


def _text(name: str, value: object, types: str = "a str or None") -> str:
    """
    Return the value of a field as a plain str.
    """
    if isinstance(value, str):
        # A subclass may write itself unlike it reads: a member of a (str, Enum) is
        # "Kind.TOKEN" in an f-string, and Markup escapes what is added to it.
        return str.__str__(value)

    hint = "; did you mean ServerSentEvent.json()?" if name == "data" else ""
    raise TypeError(f"{name} must be {types} (got {reprlib.repr(value)}){hint}")


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # int() first: a member of an (int, Enum) writes its name.
        return str(int(value))
    return _text("id", value, "a str, an int or None")


def _milliseconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"retry must be an int or None (got {reprlib.repr(value)})")
    if value < 0:
        raise ValueError(f"retry must be 0 or more milliseconds (got {value})")
    return int(value)


def _not_single_line(name: str, value: str) -> ValueError:
    return ValueError(f"{name} must be a single line without NUL (got {reprlib.repr(value)})")


def _no_utf8(error: UnicodeEncodeError, **fields: str | None) -> ValueError:
    # The error tells a position in the whole block, so look for its character.
    culprit = error.object[error.start]
    name = next(name for name, text in fields.items() if text is not None and culprit in text)
    return ValueError(f"{name} must not hold lone surrogates (got {culprit!r})")
