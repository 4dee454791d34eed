"""
What compression saves and costs: bytes, CPU and memory, for each codec and level.

``python -m benchmarks.compression`` prints a table. Each event is flushed by itself, as it
is when it comes alone. Linux only: the memory is read from the kernel, in a process of its
own for each row, when every stream has sent more than any window holds.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pydoc_data.topics import topics
from typing import Any

import brotli  # type: ignore[import-untyped]

from asgi_sse._compress import COMPRESSORS, _zstd

Flush = Callable[[bytes], bytes]

EVENTS = 3000
#: How many streams the memory is divided by, and what each has sent, in bytes.
STREAMS, SENT = 60, 400_000


def tokens() -> Iterator[bytes]:
    """
    An answer of a language model, token by token, as OpenAI's API streams it.
    """
    words = itertools.cycle(" ".join(topics.values()).split())
    for word in words:
        chunk = {
            "id": "chatcmpl-9f8a7c6b5e4d",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "demo-1",
            "choices": [{"index": 0, "delta": {"content": f" {word}"}, "finish_reason": None}],
        }
        yield f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n".encode()


def ticker() -> Iterator[bytes]:
    """
    Trades of eight symbols.
    """
    draw = random.Random(1)
    prices = dict.fromkeys(
        ["ACME", "GLOBEX", "INITECH", "UMBRELLA", "HOOLI", "STARK", "WAYNE", "WONKA"], 100.0
    )
    for number in itertools.count(1):
        symbol = draw.choice(list(prices))
        prices[symbol] *= 1 + draw.gauss(0, 0.001)
        trade = {
            "symbol": symbol,
            "price": round(prices[symbol], 2),
            "bid": round(prices[symbol] - 0.01, 2),
            "ask": round(prices[symbol] + 0.01, 2),
            "volume": draw.randint(1, 5000),
            "time": 1700000000000 + number * 137,
        }
        data = json.dumps(trade, separators=(",", ":"))
        yield f"id: {number}\nevent: trade\ndata: {data}\n\n".encode()


def page() -> Iterator[bytes]:
    """
    A table as HTML, 15 KB, of which a few cells are others each time.
    """
    draw = random.Random(1)
    values = [draw.uniform(1, 100) for _ in range(120)]
    while True:
        for row in draw.sample(range(120), 6):
            values[row] *= 1 + draw.gauss(0, 0.01)
        rows = "".join(
            f'<tr class="row" id="r{n}"><td>{value:.2f}</td><td>{value * 1.1:.2f}</td>'
            f'<td>{value * 0.9:.2f}</td><td><a href="/item/{n}">open</a></td></tr>'
            for n, value in enumerate(values)
        )
        yield f"event: patch\ndata: <table>{rows}</table>\n\n".encode()


def gzip(level: int, window: int, memory: int) -> Flush:
    compressor = zlib.compressobj(level, zlib.DEFLATED, 16 + window, memory)
    return lambda data: compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


def zstd(level: int, window: int) -> Flush:
    module = _zstd()
    parameter = module.CompressionParameter
    options = {parameter.compression_level: level, parameter.window_log: window}
    compressor: Any = module.ZstdCompressor(options=options)
    return lambda data: compressor.compress(data, compressor.FLUSH_BLOCK)


def br(quality: int, window: int) -> Flush:
    compressor = brotli.Compressor(mode=brotli.MODE_TEXT, quality=quality, lgwin=window)
    return lambda data: compressor.process(data) + compressor.flush()


ROWS: dict[str, Callable[[], Flush]] = {
    **{f"compress: {name}": lambda make=make: make().flush for name, make in COMPRESSORS.items()},  # type: ignore[misc]
    **{
        f"gzip {level}, {1 << window - 10} KiB": lambda level=level, window=window: gzip(  # type: ignore[misc]
            level, window, window - 7
        )
        for window in (13, 15)
        for level in (1, 6, 9)
    },
    **{
        f"zstd {level}, {1 << window - 10} KiB": lambda level=level, window=window: zstd(  # type: ignore[misc]
            level, window
        )
        for window in (15, 17)
        for level in (1, 3, 6, 9)
    },
    **{
        f"br {quality}, {1 << window - 10} KiB": lambda quality=quality, window=window: br(  # type: ignore[misc]
            quality, window
        )
        for window in (16, 18)
        for quality in (1, 3, 4, 5, 6, 9)
    },
}


def measure(make: Callable[[], Flush], source: Callable[[], Iterator[bytes]]) -> str:
    """
    Return how often an event's bytes go into what is sent for it, and the CPU time.
    """
    events = list(itertools.islice(source(), EVENTS if source is not page else EVENTS // 10))
    flush = make()
    began = time.process_time()
    sent = sum(len(flush(event)) for event in events)
    spent = (time.process_time() - began) / len(events)
    return f"{sum(map(len, events)) / sent:5.1f} x {1e6 * spent:6.1f} us"


def memory(make: Callable[[], Flush]) -> float:
    """
    Return the KiB that one stream holds.
    """
    read, write = os.pipe()
    if os.fork() == 0:
        events = list(itertools.islice(ticker(), 4000))
        chunk = b"".join(events)[: SENT // 20]
        before = _resident()
        streams = [make() for _ in range(STREAMS)]
        for _ in range(20):
            for flush in streams:
                flush(chunk)
        os.write(write, str((_resident() - before) / STREAMS).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    with open(read) as answer:
        return float(answer.read())


def _resident() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def main() -> None:
    """
    Print a row for each codec and level.
    """
    sizes = [len(next(source())) for source in (tokens, ticker, page)]
    titles = ("tokens", "ticker", "page")
    columns = [f"{title}, {size} bytes" for title, size in zip(titles, sizes, strict=True)]
    rule = " ".join(["=" * 20, *["=" * 18] * 3, "=" * 6])
    print(rule)
    print(" ".join([" " * 20, *(f"{column:18}" for column in columns), "KiB"]))
    print(rule)
    for name, make in ROWS.items():
        cells = [f"{measure(make, source):18}" for source in (tokens, ticker, page)]
        print(" ".join([f"{name:20}", *cells, f"{memory(make):6.0f}"]), flush=True)
    print(rule)


if __name__ == "__main__":
    main()
