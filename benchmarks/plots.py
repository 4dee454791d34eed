"""
Drawing tables and curves, as SVG.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rcParams
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .contestants import FLOOR
from .measures import Curves, Table

# The same page for the same numbers; text that stays text is small, and can be searched.
rcParams["svg.hashsalt"] = "asgi_sse"
rcParams["svg.fonttype"] = "none"
rcParams["font.family"] = "sans-serif"
rcParams["font.size"] = 9
rcParams["axes.titlelocation"] = "left"
rcParams["axes.titlesize"] = 10
rcParams["axes.spines.top"] = rcParams["axes.spines.right"] = False

OURS_COLOR, FLOOR_COLOR, PEER_COLOR = "#c2410c", "#1f2937", "#94a3b8"
# Lines that cross must be told from each other.
LINES = {
    "sse-starlette": ("#64748b", "s"),
    "better-sse (Node)": ("#15803d", "^"),
    "nchan (nginx)": ("#0369a1", "v"),
}


def draw_bars(table: Table, path: Path) -> None:
    """
    Draw a bar for each contestant of a table.
    """
    names = list(table.values)[::-1]
    values = [table.values[name] for name in names]
    figure = Figure(figsize=(7, 0.9 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, values, height=0.7, color=[_color(name) for name in names])
    labels = [
        f"{table.values[name]:,.3g}"
        + (f" (to reach {table.targets[name]:g})" if name in table.targets else "")
        for name in names
    ]
    axes.bar_label(bars, labels, padding=4)
    axes.margins(x=0.12, y=0.02)
    axes.set_title(table.title)
    axes.set_xlabel(table.unit)
    axes.tick_params(axis="y", length=0)
    if "ratio" in table.header:
        axes.axvline(1, color=FLOOR_COLOR, linewidth=0.8, linestyle=":")
        if max(values) > 20:
            axes.set_xscale("log")
            _write_plainly(axes.xaxis)
    figure.savefig(path, metadata={"Date": None})


def draw_curves(title: str, curves: Curves, path: Path) -> None:
    """
    Draw a line for each contestant.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.lines.items():
        color, marker = LINES.get(name, (_color(name), "o"))
        xs, ys = zip(*points, strict=True)
        line = "--" if name == FLOOR else "-"
        axes.plot(xs, ys, line, marker=marker, markersize=4.5, label=name, color=color)
    axes.set_xscale("log")
    _write_plainly(axes.xaxis)
    axes.set_xticks(sorted({x for points in curves.lines.values() for x, _ in points}))
    if curves.grows:
        axes.set_yscale("log")
        _write_plainly(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel(curves.x_label)
    axes.set_ylabel(curves.y_label)
    axes.grid(True, which="major", linewidth=0.4)
    figure.legend(frameon=False, loc="outside right center")
    figure.savefig(path, metadata={"Date": None})


def _write_plainly(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _color(name: str) -> str:
    if name.startswith("asgi_sse"):
        return OURS_COLOR
    return FLOOR_COLOR if name == FLOOR else PEER_COLOR
