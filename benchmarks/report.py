"""
Printing tables, and writing the page with its plots.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from .cases import FASTAPI, NCHAN, SSE_STARLETTE, Case
from .contestants import CONTESTANTS, FLOOR, OURS, PEERS, version
from .measures import Result, Table

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.rst"
PLOTS = HERE / "plots"

INTRODUCTION = """\
What an event stream costs with asgi_sse, beside a loop written by hand (the floor) and
beside other libraries. Written by ``python -m benchmarks``; ``benchmarks/README.rst`` says
how to run it and how to read it. Everything was taken in one run of {minutes:.0f} minutes.
*Ratio* is to the hand-written loop, round by round: the median of all rounds, then the
least and the most.
"""

# So much of a core may be in use by others before the numbers say more about them.
QUIET = 0.5
QUICK = """\
.. warning::

   This was a quick run, with small loads and few rounds.
"""
BUSY = """\
.. warning::

   The machine was busy with other things when this run began (load {load}). The ratios
   that are the farthest apart say the least.
"""

LOAD = "load before"
SERVERS = ("uvicorn", "httptools", "hypercorn", "granian")
FOUNDATIONS = ("anyio", "trio", "h11")


def print_result(case: Case, result: Result) -> None:
    """
    Print what a case found.
    """
    print(f"\n== {case.title}")
    for table in result.tables:
        print(f"\n{table.title}")
        print(_plain(table))
    for name, reason in result.absent.items():
        print(f"absent: {name}: {reason}")


def _plain(table: Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def machine() -> list[tuple[str, str]]:
    """
    Say on what was measured.
    """
    return [
        ("date", datetime.now(UTC).strftime("%Y-%m-%d")),
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        (LOAD, f"{os.getloadavg()[0]:.2f}"),
    ]


def versions() -> list[tuple[str, str]]:
    """
    Say what was measured.
    """
    found = {}
    for name in (*SERVERS, *FOUNDATIONS):
        found[name] = version(name)
    for contestant in CONTESTANTS.values():
        if not contestant.missing():
            found.update((name, version(name)) for name in contestant.distributions)
    if (PEERS / "node_modules").is_dir() and shutil.which("node"):
        found["Node.js"] = _first_line("node", "--version")
        found["better-sse"] = _better_sse_version()
    if shutil.which("nginx"):
        found["nginx"] = _first_line("nginx", "-v").rpartition("/")[2]
    if not CONTESTANTS[NCHAN].missing() and shutil.which("dpkg-query"):
        package = "libnginx-mod-nchan"
        found[package] = _first_line("dpkg-query", "-W", "-f", "${Version}", package)
    return list(found.items())


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def _better_sse_version() -> str:
    package = json.loads((PEERS / "node_modules/better-sse/package.json").read_text())
    return str(package["version"])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def glance(results: list[tuple[Case, Result]]) -> Table:
    """
    Gather what was to be reached, and whether it was.
    """
    rows = []
    for _, result in results:
        for table in result.tables:
            for name, target in table.targets.items():
                if name in table.values:
                    what = table.title if name == OURS else f"{table.title}: {name}"
                    cells = [_cell(table, other) for other in (FLOOR, SSE_STARLETTE, FASTAPI)]
                    mine = f"**{_cell(table, name)}**"
                    reached = "yes" if table.values[name] <= target else "no"
                    rows.append([what, *cells, mine, f"{target:g}", reached])
    header = ["", FLOOR, SSE_STARLETTE, FASTAPI, OURS, "to reach", "reached"]
    return Table("At a glance", header, rows)


def _cell(table: Table, name: str) -> str:
    if name not in table.values:
        return ""
    value = f"{table.values[name]:.2f}".rstrip("0").rstrip(".")
    if "KiB" in table.unit and "ratio" not in table.header:
        return f"{value} KiB"
    if "ratio" not in table.header:
        # A difference, which the hand-written loop has no part in.
        return "" if name == FLOOR else f"{value} us"
    if name == FLOOR:
        return f"1 ({next(row[1] for row in table.rows if row[0] == FLOOR)} us)"
    return value


def write_page(
    results: list[tuple[Case, Result]],
    about: list[tuple[str, str]],
    minutes: float,
    *,
    quick: bool,
) -> None:
    """
    Write RESULTS.rst and its plots.
    """
    from . import plots

    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    load = dict(about)[LOAD]
    gathered = glance(results)
    parts = [
        _title("Speed and memory", "="),
        INTRODUCTION.format(minutes=minutes),
        QUICK if quick else "",
        BUSY.format(load=load) if float(load) > QUIET else "",
        _title(gathered.title, "-"),
        "Ratios to the hand-written loop, unless a unit is given: less is better.\n",
        _list_table(gathered.header, gathered.rows),
        _title("Where and what", "-"),
        _list_table(["", "measured on"], [list(row) for row in about]),
        ", ".join(f"{name} {version}" for name, version in versions()) + ".\n",
    ]
    for case, result in results:
        parts += [_title(case.title, "-"), case.text + "\n"]
        for number, table in enumerate(result.tables):
            parts += [f"**{table.title}**\n", _list_table(table.header, table.rows)]
            if table.drawn and len(table.values) > 1:
                path = PLOTS / f"{case.name}_{number}.svg"
                plots.draw_bars(table, path)
                parts.append(_image(path, table.title))
            if table.title in result.curves:
                path = PLOTS / f"{case.name}_{number}.svg"
                plots.draw_curves(table.title, result.curves[table.title], path)
                parts.append(_image(path, table.title))
        parts += [
            f"Absent: {name} ({reason.splitlines()[0]}).\n"
            for name, reason in result.absent.items()
        ]
    PAGE.write_text("\n".join(filter(None, parts)))


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _image(path: Path, text: str) -> str:
    # This way it is found also from docs/, which include the page.
    return f".. image:: ../benchmarks/plots/{path.name}\n   :alt: {text}\n"


def _list_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        for i, cell in enumerate(row):
            lines.append(f"   {'*' if i == 0 else ' '} - {cell}".rstrip())
    return "\n".join([*lines, ""])
