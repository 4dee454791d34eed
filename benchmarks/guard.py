"""
A guard for the hot paths: how much work they take, counted, not timed.

``python -m benchmarks.guard`` compares asgi_sse with the hand-written loop in memory
and fails if an event, the opening and closing of a stream, or the delivery of what was
published takes more than the bounds below. Counted are the bytecode instructions and
the function calls that the interpreter runs for one more of them: the same on every
machine, whatever else it is doing; and the memory of what waits. ``--instructions``
counts those of the processor too, where ``perf`` or ``valgrind`` is at hand.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel

from asgi_sse import _pump

from . import in_memory
from .contestants import FLOOR, OURS, OURS_CHANNEL

# valgrind runs fifty times slower, so mind the minutes.
FEW_INSTRUCTIONS, MANY_INSTRUCTIONS = 2000, 12000

SUBSCRIBERS = 50
BURST = 10


async def events(contestant: str, path: str, count: int) -> None:
    """
    Answer one request with so many events.
    """
    app = in_memory.make_app(contestant)
    await in_memory.call(app, path, f"events={count}", in_memory.Connection())


async def streams(contestant: str, path: str, count: int) -> None:
    """
    Answer so many requests with one event, one after the other.
    """
    app = in_memory.make_app(contestant)
    async with anyio.create_task_group() as task_group:
        # What is done for the first stream of an event loop, and undone after the last.
        task_group.start_soon(in_memory.call, app, "/idle", "", in_memory.Connection())
        await anyio.lowlevel.checkpoint()
        for _ in range(count):
            await in_memory.call(app, path, "events=1", in_memory.Connection())
        task_group.cancel_scope.cancel()


async def deliveries(contestant: str, path: str, count: int) -> None:
    """
    Publish to subscribers, one by one or in bursts; so many deliveries in all.
    """
    burst = BURST if path == "burst" else 1
    async with in_memory.Subscriptions(contestant, SUBSCRIBERS) as subscriptions:
        for _ in range(count // (SUBSCRIBERS * burst)):
            await subscriptions.deliver(burst)


@dataclass(frozen=True)
class Bound:
    """
    What something may cost at most, as a ratio to the hand-written loop.
    """

    title: str
    work: Callable[[str, str, int], Awaitable[None]]
    path: str
    few: int
    many: int
    bytecodes: float
    calls: float
    ours: str = OURS
    backend: str = "asyncio"


# What was counted on CPython 3.11 to 3.13, and a tenth on top of the highest. Bytecodes
# do not weigh the same, so these are no ratios of speed: they only must not rise.
# Where the source gives way, the event loops' own work counts on both sides.
BOUNDS = (
    Bound("event, never waits", events, "/flood", 500, 2500, 0.97, 0.8),
    Bound("event, never waits, trio", events, "/flood", 500, 2500, 0.99, 0.8, backend="trio"),
    Bound("event, gives way", events, "/turning", 500, 2500, 2.15, 1.8),
    Bound("event, gives way, trio", events, "/turning", 500, 2500, 2.07, 1.8, backend="trio"),
    Bound("stream of one event", streams, "/flood", 50, 250, 9.5, 8.7),
    Bound("delivery", deliveries, "paced", 500, 2500, 1.07, 0.63, OURS_CHANNEL),
    Bound("delivery, bursts of ten", deliveries, "burst", 1000, 5000, 0.23, 0.14, OURS_CHANNEL),
)

#: KiB that Python may allocate for a stream, and for a subscription, that waits.
IDLE = (
    ("idle stream", OURS, "/idle", 10.3),
    ("idle subscription", OURS_CHANNEL, "/subscribe", 9.5),
)


@contextmanager
def counted_bytecodes() -> Iterator[Callable[[], int]]:
    """
    Count the bytecode instructions that run.
    """
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        elif event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: count
    finally:
        sys.settrace(before)


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """
    Count the functions that are called, in Python and in C, and the generators resumed.
    """
    count = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield lambda: count
    finally:
        sys.setprofile(before)


def per_unit(counter: Callable[[], Any], bound: Bound, contestant: str) -> float:
    """
    Return what *counter* counts for one event, stream or delivery more.
    """

    async def count(units: int) -> int:
        with counter() as counted:
            await bound.work(contestant, bound.path, units)
            return int(counted())

    async def main() -> float:
        await bound.work(contestant, bound.path, bound.few)
        few = await count(bound.few)
        return (await count(bound.many) - few) / (bound.many - bound.few)

    return anyio.run(main, backend=bound.backend)


def check(bound: Bound) -> tuple[str, bool]:
    """
    Return a line about one bound, and whether it is kept.
    """
    ratios = []
    line = f"{bound.title:26}"
    for name, counter, most in (
        ("bytecodes", counted_bytecodes, bound.bytecodes),
        ("calls", counted_calls, bound.calls),
    ):
        of_floor = per_unit(counter, bound, FLOOR)
        of_ours = per_unit(counter, bound, bound.ours)
        ratios.append((of_ours / of_floor, most))
        line += (
            f"  {name} {of_ours:6.1f} / {of_floor:5.1f} = {of_ours / of_floor:5.2f} <= {most:<5}"
        )
    return line, all(ratio <= most for ratio, most in ratios)


def check_idle(title: str, contestant: str, path: str, most: float) -> tuple[str, bool]:
    """
    Return a line about the memory of what waits, and whether it is in bounds.
    """
    used = in_memory.memory_per_stream(contestant, path, 500, "traced") / 1024
    return f"{title:26}  {used:.2f} KiB <= {most:g}", used <= most


def instructions_per_event(contestant: str, path: str) -> float | None:
    """
    Return the processor's instructions for one event more; None if none can count them.
    """
    few = _instructions(contestant, path, FEW_INSTRUCTIONS)
    many = _instructions(contestant, path, MANY_INSTRUCTIONS)
    if few is None or many is None:
        return None
    return (many - few) / (MANY_INSTRUCTIONS - FEW_INSTRUCTIONS)


def _instructions(contestant: str, path: str, events: int) -> int | None:
    command = [sys.executable, "-m", "benchmarks.guard", "--run", contestant, path, str(events)]
    perf = ["perf", "stat", "-x,", "-e", "instructions:u"]
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    for tool, pattern in ((perf, r"^(\d+),,instructions"), (valgrind, r"Collected : (\d+)")):
        if shutil.which(tool[0]) is None:
            continue
        output = subprocess.run(
            [*tool, *command],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            check=False,
            text=True,
        ).stderr
        if found := re.search(pattern, output, re.MULTILINE):
            return int(found[1])
    return None


def main() -> None:
    """
    Print what was counted; exit with 1 if it is too much.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard")
    parser.add_argument("--instructions", action="store_true", help="count the processor's, too")
    parser.add_argument(
        "--run", nargs=3, metavar=("NAME", "PATH", "EVENTS"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.run:
        contestant, path, events = arguments.run
        in_memory.cpu_per_event(in_memory.make_app(contestant), path, int(events))
        return
    # The interpreter is slow while it is watched: it would turn away from a source that
    # never waits much more often than it does.
    _pump._LONGEST_TURN = math.inf
    good = True
    for line, kept in (*map(check, BOUNDS), *(check_idle(*idle) for idle in IDLE)):
        print(line if kept else f"{line}  TOO MUCH")
        good = good and kept
    if arguments.instructions:
        for path in ("/flood", "/turning"):
            ours, floor = (instructions_per_event(name, path) for name in (OURS, FLOOR))
            if ours is None or floor is None:
                print("neither perf nor valgrind counts instructions here")
                break
            print(f"{path}: {ours:,.0f} / {floor:,.0f} = {ours / floor:.2f} instructions")
    sys.exit(not good)


if __name__ == "__main__":
    main()
