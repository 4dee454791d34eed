"""
Rounds, medians and ratios: how numbers become tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import TypeVar

from .contestants import FLOOR

T = TypeVar("T")

#: What one measurement found: a value by its name.
Values = dict[str, float]
#: A contestant's values, one entry a round.
Samples = dict[str, list[Values]]


@dataclass
class Table:
    """
    One table of the page.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    #: The value of each contestant by which they are compared.
    values: dict[str, float] = field(default_factory=dict)
    #: The value that was to be reached, for whom there is one.
    targets: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    drawn: bool = True


@dataclass
class Curves:
    """
    What is drawn of a table whose columns are steps: a line for each contestant.
    """

    x_label: str
    y_label: str
    lines: dict[str, list[tuple[float, float]]]
    #: Whether it is meant to grow; what should stay flat is drawn from zero.
    grows: bool


@dataclass
class Result:
    """
    What one case found.
    """

    tables: list[Table] = field(default_factory=list)
    #: By the titles of their tables.
    curves: dict[str, Curves] = field(default_factory=dict)
    #: Contestants that did not take part, and why.
    absent: dict[str, str] = field(default_factory=dict)


def prepare(
    names: Iterable[str], make: Callable[[str], Callable[[], Values]], absent: dict[str, str]
) -> dict[str, Callable[[], Values]]:
    """
    Make everyone's measurement, warm and with a load of the right size.

    Whoever fails is named in *absent*.
    """
    measures = {}
    for name in names:
        if (measure := _attempt(name, partial(make, name), absent)) is not None:
            measures[name] = measure
    return measures


def interleave(
    rounds: int, measures: Mapping[str, Callable[[], Values]], absent: dict[str, str]
) -> Samples:
    """
    Let everyone run once in each round, so that a busy minute strikes all.

    Every other round runs backwards. Whoever fails is named in *absent*, and
    takes part no more.
    """
    samples: Samples = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(samples)[:: -1 if number % 2 else 1]:
            if (values := _attempt(name, measures[name], absent)) is None:
                del samples[name]
            else:
                samples[name].append(values)
    return samples


def _attempt(name: str, function: Callable[[], T], absent: dict[str, str]) -> T | None:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - one that fails shall not end the run
        absent[name] = f"{type(error).__name__}: {error}"
        print(f"  {name} failed: {absent[name]}", file=sys.stderr)
        return None


def middle(samples: Samples, name: str, value: str) -> float:
    """
    Return the median over the rounds of one contestant's value.
    """
    return median(values[value] for values in samples[name])


def ratios(samples: Samples, name: str, value: str) -> list[float]:
    """
    Return the ratio to the hand-written loop, of each round.
    """
    return [
        mine[value] / floor[value]
        for mine, floor in zip(samples[name], samples[FLOOR], strict=True)
    ]


def ratio_table(
    title: str,
    samples: Samples,
    value: str,
    unit: str,
    targets: Mapping[str, float] | None = None,
    scale: float = 1e6,
) -> Table:
    """
    Compare one value of all contestants with the hand-written loop.
    """
    targets = targets or {}
    rows = []
    compared = {}
    for name in samples:
        row = [name, _number(middle(samples, name, value) * scale)]
        if FLOOR in samples:
            all_ratios = ratios(samples, name, value)
            compared[name] = median(all_ratios)
            row += [f"{compared[name]:.2f}", f"{min(all_ratios):.2f} - {max(all_ratios):.2f}"]
        else:
            row += ["", ""]
        rows.append([*row, _target(targets, name)])
    header = ["", unit, "ratio", "least - most", "to reach"]
    return _without_empty_columns(
        Table(title, header, rows, compared, targets, f"{unit}, {FLOOR} = 1")
    )


def value_table(
    title: str,
    samples: Samples,
    columns: Mapping[str, tuple[str, float]],
    targets: Mapping[str, float] | None = None,
    *,
    drawn: bool = False,
) -> Table:
    """
    List several values of all contestants; *columns* has a header and a scale for each.

    They are compared by the last one, or the only one.
    """
    targets = targets or {}
    rows = [
        [
            name,
            *(
                _number(middle(samples, name, value) * scale)
                for value, (_, scale) in columns.items()
            ),
            _target(targets, name),
        ]
        for name in samples
    ]
    header = ["", *(header for header, _ in columns.values()), "to reach"]
    last, (unit, scale) = list(columns.items())[-1]
    compared = {name: middle(samples, name, last) * scale for name in samples}
    return _without_empty_columns(Table(title, header, rows, compared, targets, unit, drawn))


def _target(targets: Mapping[str, float], name: str) -> str:
    return f"{targets[name]:g}" if name in targets else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _without_empty_columns(table: Table) -> Table:
    kept = [i for i in range(len(table.header)) if any(row[i] for row in table.rows)]
    header = [table.header[i] for i in kept]
    return replace(table, header=header, rows=[[row[i] for i in kept] for row in table.rows])
