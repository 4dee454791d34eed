"""
A guard for the hot path: how much work one event takes, counted, not timed.

``python -m benchmarks.guard`` compares asgi_sse with the hand-written loop in memory
and fails if an event takes more than the bounds below. Counted are the bytecode
instructions and the function calls that the interpreter runs for one event more: the
same on every machine, whatever else it is doing. ``--instructions`` counts those of
the processor too, where ``perf`` or ``valgrind`` is at hand.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import anyio

from . import in_memory
from .contestants import FLOOR, OURS, ASGIApp

FEW, MANY = 500, 2500
# valgrind runs fifty times slower, so mind the minutes.
FEW_INSTRUCTIONS, MANY_INSTRUCTIONS = 2000, 12000


@dataclass(frozen=True)
class Bound:
    """
    What an event may cost at most, as a ratio to the hand-written loop.
    """

    title: str
    path: str
    backend: str
    bytecodes: float
    calls: float


# What was counted on CPython 3.11 to 3.13, and a tenth on top of the highest. Bytecodes
# do not weigh the same, so these are no ratios of speed: they only must not rise.
# Where the source gives way, the event loops' own work counts on both sides.
BOUNDS = (
    Bound("source never waits", "/flood", "asyncio", 0.98, 0.78),
    Bound("source never waits, trio", "/flood", "trio", 1.05, 0.8),
    Bound("source gives way each time", "/turning", "asyncio", 2.3, 2.1),
    Bound("source gives way each time, trio", "/turning", "trio", 2.1, 2.0),
)

#: KiB that Python may allocate for a stream that waits.
IDLE_KIB = 11.0


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


def per_event(
    counter: Callable[[], Any], app: ASGIApp, path: str, backend: str = "asyncio"
) -> float:
    """
    Return what *counter* counts for one event more.
    """

    async def count(events: int) -> int:
        with counter() as counted:
            await in_memory.call(app, path, f"events={events}", in_memory.Connection())
            return int(counted())

    async def main() -> float:
        await in_memory.call(app, path, f"events={FEW}", in_memory.Connection())
        few = await count(FEW)
        return (await count(MANY) - few) / (MANY - FEW)

    return anyio.run(main, backend=backend)


def check(bound: Bound) -> tuple[str, bool]:
    """
    Return a line about one bound, and whether it is kept.
    """
    ratios = []
    line = f"{bound.title:36}"
    floor, ours = in_memory.make_app(FLOOR), in_memory.make_app(OURS)
    for name, counter, most in (
        ("bytecodes", counted_bytecodes, bound.bytecodes),
        ("calls", counted_calls, bound.calls),
    ):
        of_floor = per_event(counter, floor, bound.path, bound.backend)
        of_ours = per_event(counter, ours, bound.path, bound.backend)
        ratios.append((of_ours / of_floor, most))
        line += (
            f"  {name} {of_ours:6.1f} / {of_floor:5.1f} = {of_ours / of_floor:5.2f} <= {most:<5}"
        )
    return line, all(ratio <= most for ratio, most in ratios)


def check_idle() -> tuple[str, bool]:
    """
    Return a line about the memory of an idle stream, and whether it is in bounds.
    """
    used = in_memory.memory_per_stream(OURS, "/idle", 500, "traced") / 1024
    return f"{'an idle stream':36}  {used:.2f} KiB <= {IDLE_KIB:g}", used <= IDLE_KIB


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
    good = True
    for line, kept in (*map(check, BOUNDS), check_idle()):
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
