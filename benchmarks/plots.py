"""
Drawing tables and curves, as SVG.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rcParams
from matplotlib.figure import Figure

from .contestants import FLOOR
from .measures import Curves, Table

# The same page for the same numbers.
rcParams["svg.hashsalt"] = "asgi_sse"
rcParams["font.size"] = 9

OURS_COLOR, FLOOR_COLOR, PEER_COLOR = "#c2410c", "#1f2937", "#94a3b8"


def draw_bars(table: Table, path: Path) -> None:
    """
    Draw a bar for each contestant of a table.
    """
    names = list(table.bars)[::-1]
    values = [table.bars[name] for name in names]
    figure = Figure(figsize=(7, 0.6 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, values, color=[_color(name) for name in names])
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.margins(x=0.12)
    if "ratio" in table.header:
        axes.axvline(1, color=FLOOR_COLOR, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"{table.header[1]}, hand-written = 1")
        if max(values) > 20:
            axes.set_xscale("log")
    else:
        axes.set_xlabel(table.header[1])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def draw_curves(curves: Curves, path: Path) -> None:
    """
    Draw a line for each contestant.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.lines.items():
        style = "--" if name == FLOOR else "-"
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, style, marker="o", markersize=4, label=name, color=_color(name))
    axes.set_xscale("log")
    if curves.grows:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(curves.x_label)
    axes.set_ylabel(curves.y_label)
    axes.grid(True, which="major", linewidth=0.4)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _color(name: str) -> str:
    if name.startswith("asgi_sse"):
        return OURS_COLOR
    return FLOOR_COLOR if name == FLOOR else PEER_COLOR
