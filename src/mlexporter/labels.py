"""The names of bins as label values: sortable, readable, bounded in length, and unique within a column."""

import math
from itertools import pairwise
from typing import Final

from mlexporter.baseline import Column, NumericColumn
from mlexporter.binning import ALARM_CATEGORIES, alarm_starts
from mlexporter.categories import shorten

BELOW: Final = "__below__"
ABOVE: Final = "__above__"
OTHER: Final = "__other__"
NEW: Final = "__new__"
MISSING: Final = "__missing__"


def bin_labels(column: Column, *, export_names: bool = True) -> tuple[str, ...]:
    """Labels of the exported bins of a column, in the order of the counts.

    Args:
        column: a column of a baseline.
        export_names: False gives categories numbers instead of names, for categories that are personal.

    """
    if isinstance(column, NumericColumn):
        edges = [column.edges[i] for i in column.coarse]
        inner = [f"{number:02d} {interval(low, high)}" for number, (low, high) in enumerate(pairwise(edges), start=1)]
        return (BELOW, *inner, ABOVE, MISSING)
    names = [shorten(category) for category in column.categories]
    if not export_names or len(set(names)) != len(names):
        names = [f"{number:02d}" for number in range(1, len(names) + 1)]
    return (*names, OTHER, NEW, MISSING)


def alarm_labels(column: Column, *, export_names: bool = True) -> tuple[str, ...]:
    """Labels of the bins of the drift alarm: the exported ones, but for categories that it counts as other."""
    labels = bin_labels(column, export_names=export_names)
    return labels if len(alarm_starts(column)) == len(labels) else (*labels[:ALARM_CATEGORIES], *labels[-3:])


def interval(low: float, high: float) -> str:
    """A half-open interval (low, high] as people read it; one value where nothing else fits between.

    >>> interval(1.2, 3.4), interval(math.nextafter(0, -1), 0.0), interval(math.nextafter(2, 0), 8.0)
    ('1.2..3.4', '0', '2..8')
    """
    first = math.nextafter(low, math.inf)
    if first == high:
        return f"{high + 0.0:.6g}"
    # an edge just under a value stands for that value: 2 reads better than 1.9999999999999998
    shown = first if len(repr(first)) < len(repr(low)) else low
    return f"{shown + 0.0:.6g}..{high + 0.0:.6g}"  # + 0.0 makes 0 of -0
