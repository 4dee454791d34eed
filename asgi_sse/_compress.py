"""
Compressing an event stream, so that no event is held back.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from ._accept import EVENT_STREAM
from ._headers import RawHeader, add_vary

#: What ``send`` is in ASGI.
Send = Callable[[Any], Awaitable[None]]

#: ``True`` for what is best, or the names of codings, the best first.
Compress = bool | Collection[str]

# The parameters below are chosen by benchmarks/compression.py, which has the numbers: what
# an idle stream holds, and what one event costs, counts more than the last byte. Each
# codec has a window that covers another kind of stream.


class Compressor(Protocol):
    """
    What compresses one stream.
    """

    def flush(self, data: bytes) -> bytes:
        """
        Return bytes from which the client gets all that was given until now.
        """

    def finish(self, data: bytes) -> bytes:
        """
        Return the last bytes of the stream.
        """


class Gzip:
    """
    gzip, with a window of 8 KiB: the smallest, and all that small events need.
    """

    def __init__(self) -> None:
        # 16 is for the header of gzip; 6 is the memory level, half of the window's size.
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, 16 + 13, 6)

    def flush(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush()


class Zstd:
    """
    Zstandard, with a window of 128 KiB and small tables.
    """

    def __init__(self) -> None:
        zstd = _zstd()
        parameter = zstd.CompressionParameter
        # The levels have tables that are made for files: 200 to 80,000 KiB a stream.
        self._compressor = zstd.ZstdCompressor(
            options={
                parameter.window_log: 17,
                parameter.hash_log: 13,
                parameter.chain_log: 13,
                parameter.search_log: 4,
                parameter.min_match: 5,
                parameter.strategy: zstd.Strategy.lazy2,
            }
        )

    def flush(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.compress(data, self._compressor.FLUSH_BLOCK)
        return compressed

    def finish(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.compress(data, self._compressor.FLUSH_FRAME)
        return compressed


class Brotli:
    """
    Brotli, with a window of 64 KiB.
    """

    def __init__(self) -> None:
        brotli: Any = _brotli()
        self._compressor = brotli.Compressor(mode=brotli.MODE_TEXT, quality=5, lgwin=16)

    def flush(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.process(data) + self._compressor.flush()
        return compressed

    def finish(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.process(data) + self._compressor.finish()
        return compressed


# Python looks for a module that is not there anew at each import, 36 us for each stream.
@functools.cache
def _zstd() -> Any:
    # The one is in the standard library since 3.14, the other the same for those before.
    return _import("zstd", "compression.zstd", "backports.zstd")


@functools.cache
def _brotli() -> Any:
    return _import("br", "brotli")


def _import(coding: str, *names: str) -> ModuleType:
    for name in names:
        with suppress(ImportError):
            return import_module(name)
    raise ImportError(
        f"compress={coding!r} needs the package {names[-1]}. Did you forget to "
        "'pip install asgi-sse[compress]'?"
    )


#: What compresses for each coding.
COMPRESSORS: dict[str, Callable[[], Compressor]] = {"zstd": Zstd, "gzip": Gzip, "br": Brotli}

# Brotli takes three times the memory of zstd, and twice its time, for as many bytes.
_BEST = ("zstd", "gzip")


def choose_compressors(compress: Compress) -> tuple[str, ...]:
    """
    Return the names of the codings that can be had, in the order in which they are offered.

    Raises:
        TypeError: It is neither a bool nor a collection of str.
        ValueError: There is no such coding.
        ImportError: One that was named needs a package that is not installed.

    """
    if isinstance(compress, bool):
        return tuple(filter(_is_installed, _BEST)) if compress else ()
    if isinstance(compress, str | bytes) or not isinstance(compress, Collection):
        raise TypeError(f"compress must be a bool or names of codings (got {compress!r})")
    for name in compress:
        if name not in COMPRESSORS:
            known = ", ".join(COMPRESSORS)
            raise ValueError(f"compress must hold some of {known} (got {name!r})")
        # Which imports what it needs.
        COMPRESSORS[name]()
    return tuple(compress)


@functools.cache
def _is_installed(name: str) -> bool:
    with suppress(ImportError):
        COMPRESSORS[name]()
        return True
    return False


def compressing(send: Send, coding: str | None, *, head: bool = False) -> Send:
    """
    Return a ``send`` that compresses an event stream, and nothing else.

    Args:
        send: What takes the messages that come of it.
        coding: What the client accepts; ``None``: nothing that could be had.
        head: Whether it is HEAD that is answered, which has no body to compress.

    """
    compressor: Compressor | None = None

    async def send_compressed(message: Any) -> None:
        nonlocal compressor
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if _is_to_compress(headers):
                headers = add_vary(headers, "Accept-Encoding")
                if coding is not None:
                    headers.append((b"content-encoding", coding.encode()))
                    compressor = None if head else COMPRESSORS[coding]()
                message = {**message, "headers": headers}
        elif compressor is not None and message["type"] == "http.response.body":
            body = message.get("body", b"")
            if not message.get("more_body", False):
                message = {**message, "body": compressor.finish(body)}
                # The memory is given back now, whatever else keeps this function.
                compressor = None
            elif body:
                message = {**message, "body": compressor.flush(body)}
        await send(message)

    return send_compressed


def _is_to_compress(headers: list[RawHeader]) -> bool:
    names = {name.lower() for name, _ in headers}
    return names.isdisjoint({b"content-encoding", b"content-length"}) and any(
        name.lower() == b"content-type" and value.lower().startswith(EVENT_STREAM.encode())
        for name, value in headers
    )
