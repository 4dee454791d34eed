"""
Any Python object as one line of JSON, or a clear refusal.
"""

import dataclasses
import json
import reprlib
import sys

__all__ = ["encode_json"]


def encode_json(obj: object) -> str:
    """
    Return an object as compact JSON text.

    This is what becomes the data of an item that is neither text nor an event.
    Dataclasses, pydantic models and msgspec structs are understood, at any
    depth. The result never holds a line end, so it is a single ``data`` line.

    Args:
        obj: What to write.

    Returns:
        JSON with characters beyond ASCII as they are (an event stream is UTF-8).

    Raises:
        TypeError: If the object, or anything inside it, has no form in JSON.
        ValueError: If there is a NaN, an infinity or a circular reference: JSON
            knows none of them, and ``JSON.parse()`` would fail in the browser.

    Example:
        >>> encode_json({"load": 0.5, "host": "zürich"})
        '{"load":0.5,"host":"zürich"}'

    """
    return _ENCODER.encode(obj)


def _default(obj: object) -> object:
    """
    Return something that JSON knows in place of an object that it does not.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        # Not asdict(), which copies deeply and would lose models in the fields;
        # the encoder comes back here for each of them.
        return {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}

    # Nothing is imported to find out: an instance can only exist if somebody
    # else imported its package.
    if (pydantic := sys.modules.get("pydantic")) and isinstance(obj, pydantic.BaseModel):
        return obj.model_dump(mode="json")
    if (msgspec := sys.modules.get("msgspec")) and isinstance(obj, msgspec.Struct):
        return msgspec.to_builtins(obj)

    raise TypeError(f"{type(obj).__qualname__} has no form in JSON (got {reprlib.repr(obj)})")


# Made once, because json.dumps() makes a new encoder whenever it is given options.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
)
