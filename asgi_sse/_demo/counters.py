"""
What the operating system tells of itself: levels, and counters that rise.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

__all__ = ["read_counters", "read_levels"]

# Whole disks only: what is read from a partition, or through a device mapper, is
# read from its disk too and would count twice.
_DISK = re.compile(r"(?:[hsv]|xv)d[a-z]+|nvme\d+n\d+|mmcblk\d+")
# The unit of /proc/diskstats, whatever the sectors of the disk itself.
_SECTOR = 512


def read_levels(proc: Path = Path("/proc")) -> dict[str, dict[str, float]]:
    """
    Return the load averages and the use of memory, where they can be known.

    Args:
        proc: Where Linux shows them.

    """
    levels: dict[str, dict[str, float]] = {}
    try:
        one, five, fifteen = _load(proc)
    except (AttributeError, OSError):
        pass  # os.getloadavg() is Unix's.
    else:
        levels["load"] = {"one": one, "five": five, "fifteen": fifteen}

    memory = {name: words for name, *words in _table(proc / "meminfo")}
    if "MemAvailable:" in memory:
        total, available = (int(memory[name][0]) * 1024 for name in ("MemTotal:", "MemAvailable:"))
        levels["memory"] = {"used_bytes": total - available}
    return levels


def read_counters(proc: Path = Path("/proc")) -> dict[str, float]:
    """
    Return the counters that there are, by name.

    They are ``idle`` and ``total``, the processors' time; ``received`` and
    ``sent``, bytes through every interface but the loopback; ``read`` and
    ``written``, bytes from and to every disk. Only the difference of two readings
    means something.

    Args:
        proc: Where Linux shows them.

    """
    counters: dict[str, float] = {}
    for name, *words in _table(proc / "stat"):
        if name == "cpu":
            # The first eight are apart from each other; guest time, which follows,
            # is in them already.
            times = [int(word) for word in words[:8]]
            # Waiting for a disk (the fifth) leaves the processor free.
            counters |= {"idle": times[3] + times[4], "total": sum(times)}
    if not counters:
        cores = os.cpu_count() or 1
        used, total = time.process_time(), time.monotonic() * cores
        counters = {"idle": total - used, "total": total}

    interfaces = [
        [int(word) for word in words.split()]
        for name, _, words in (line.partition(":") for line in _lines(proc / "net/dev"))
        if words and name.strip() != "lo"
    ]
    if interfaces:
        counters["received"] = sum(numbers[0] for numbers in interfaces)
        counters["sent"] = sum(numbers[8] for numbers in interfaces)

    disks = [words for words in _table(proc / "diskstats") if _DISK.fullmatch(words[2])]
    if disks:
        counters["read"] = sum(int(words[5]) for words in disks) * _SECTOR
        counters["written"] = sum(int(words[9]) for words in disks) * _SECTOR
    return counters


def _load(proc: Path) -> tuple[float, ...]:
    for words in _table(proc / "loadavg"):
        return tuple(map(float, words[:3]))
    return tuple(round(load, 2) for load in os.getloadavg())


def _table(path: Path) -> list[list[str]]:
    return [line.split() for line in _lines(path) if line.strip()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").splitlines()
    except OSError:
        return []
