"""A baseline as a table for people, with a small histogram of each column."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from msgspec import UNSET

from mlexporter.baseline import Baseline, CategoricalColumn, Column, NumericColumn
from mlexporter.categories import shorten
from mlexporter.drift import MIN_ROWS
from mlexporter.edges import Floats
from mlexporter.show_outcomes import outcome_warnings, outcomes_table
from mlexporter.terminal import clipped, padded, printable, width

WIDTH: Final = 120
# Below this many rows the baseline's own error hides what is worth a page, a divergence of 0.02 or a shift of 0.2
# standard deviations: the 99.9 % point of chi-square with 12 degrees of freedom, over twice that divergence.
FEW_ROWS: Final = 820

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_CELLS: Final = 20
_TAIL: Final = 0.01
_TOP: Final = 3
_NARROWEST_NAME: Final = 8
_LONGEST_NAME: Final = 40
_NARROWEST_MIDDLE: Final = 32


def render(baseline: Baseline) -> str:
    """The whole text, each line at most WIDTH wide."""
    source = f"{baseline.source}, provisional" if baseline.provisional else baseline.source
    header = {
        "model": baseline.model or "-",
        "version": baseline.version or "-",
        "rows": f"{baseline.rows:,}",
        "columns": str(len(baseline.columns)),
        "hash": baseline.hash,
        "source": source,
        "format": str(baseline.format_version),
    }
    lines = [f"{name:<9}{clipped(printable(value), WIDTH - 9)}" for name, value in header.items()]
    lines += ["", *_table(baseline.columns)]
    if baseline.outcomes is not UNSET:
        lines += ["", *(clipped(line, WIDTH) for line in outcomes_table(baseline.outcomes))]
    notes = warnings(baseline)
    lines += ["", *(clipped(f"warning: {note}", WIDTH) for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def warnings(baseline: Baseline) -> list[str]:
    """What a person should know before relying on a baseline."""
    notes: list[str] = []
    if baseline.rows < MIN_ROWS:
        notes.append(f"only {baseline.rows:,} rows: below {MIN_ROWS} there are no distances, only rates")
    elif baseline.rows < FEW_ROWS:
        notes.append(
            f"only {baseline.rows:,} rows: below {FEW_ROWS} the baseline's own error hides shifts of 0.2 standard "
            "deviations"
        )
    sketched = [c for c in baseline.columns if isinstance(c, NumericColumn) and c.rank_error > 0]
    if sketched:
        worst = max(column.rank_error for column in sketched)
        notes.append(f"edges by sketch, within {worst:.2%} of the rows of their quantiles: {_listed(sketched)}")
    for column in baseline.columns:
        label = _labelled(column)
        rows = sum(column.counts)
        if column.invalid:
            share = f"{column.invalid / rows:.1%}" if rows else "-"
            what = "numbers" if isinstance(column, NumericColumn) else "categories"
            notes.append(f"{label}: {column.invalid:,} values ({share}) are no {what} and count as missing")
        if rows and column.counts[-1] == rows:
            notes.append(f"{label}: all values are missing")
        if isinstance(column, CategoricalColumn) and not column.complete:
            notes.append(f"{label}: too many categories to list, so one that is new counts as __other__")
    return notes if baseline.outcomes is UNSET else [*notes, *outcome_warnings(baseline.outcomes)]


def _labelled(column: Column) -> str:
    return f"{column.role} {clipped(printable(column.name), _LONGEST_NAME)}"


def _listed(columns: Sequence[Column]) -> str:
    names = ", ".join(clipped(printable(column.name), _LONGEST_NAME) for column in columns[:5])
    return names if len(columns) <= 5 else f"{names} and {len(columns) - 5} more"


def _table(columns: Iterable[Column]) -> list[str]:
    """A heading, and a line for each column."""
    lines = [_HEADINGS, *map(_line, columns)]
    moments = [line.middle for line in lines if not isinstance(line.middle, str)]
    widths = [max(map(len, cells)) for cells in zip(*moments, strict=True)]
    span = max(sum(widths) + len(widths) - 1, _NARROWEST_MIDDLE)
    rows = [
        [
            line.role,
            line.name,
            line.type,
            line.rows,
            line.missing,
            _middle(line.middle, widths, span),
            line.bins,
            line.shape,
        ]
        for line in lines
    ]
    widths = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    widths[1] = max(min(widths[1], WIDTH - sum(widths) + widths[1] - len("  ") * 3 - 4), _NARROWEST_NAME)
    return [_joined(row, widths) for row in rows]


class _Line(msgspec.Struct, frozen=True):
    """The cells of a line of the table; `middle` are moments, or text about categories."""

    role: str
    name: str
    type: str
    rows: str
    missing: str
    middle: Sequence[str]
    bins: str
    shape: str


_HEADINGS: Final = _Line("role", "name", "type", "rows", "missing", ("min", "mean", "sd", "max"), "bins", "shape")


def _middle(middle: Sequence[str], widths: list[int], span: int) -> str:
    if isinstance(middle, str):
        return padded(clipped(middle, span), span, left=True)
    text = " ".join(cell.rjust(width) for cell, width in zip(middle, widths, strict=True))
    return text.rjust(span)


def _joined(row: list[str], widths: list[int]) -> str:
    """Two spaces beside text, one between numbers."""
    role, name, kind, rows, missing, middle, bins, shape = (
        padded(clipped(cell, width), width, left=i in (0, 1, 2, 7))
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"{role}  {name}  {kind} {rows} {missing} {middle} {bins}  {shape}".rstrip()


def _line(column: Column) -> _Line:
    rows = sum(column.counts)
    middle: Sequence[str]
    if isinstance(column, CategoricalColumn):
        kind = "boolean" if column.boolean else "categorical"
        middle, bins = _categories(column), len(column.categories)
        shape = _bars(column.counts[: min(bins, _CELLS)])
    else:
        kind, bins, shape = "numeric", len(column.coarse) - 1, _numeric_shape(column)
        middle = [f"{value:.3g}" for value in (column.minimum, column.mean, column.stddev, column.maximum)]
        if not sum(column.counts[1:-2]):
            middle = ["-"] * len(middle)
    return _Line(
        role=column.role.value,
        name=clipped(printable(column.name), _LONGEST_NAME),
        type=kind,
        rows=f"{rows:,}",
        missing=f"{column.counts[-1] / rows:.1%}" if rows else "-",
        middle=middle,
        bins=str(bins),
        shape=shape,
    )


def _categories(column: CategoricalColumn) -> str:
    """How many, and the most frequent ones with their shares of the values."""
    values = sum(column.counts[:-1])
    ordered = sorted(zip(column.categories, column.counts, strict=False), key=lambda item: -item[1])
    listed = len(column.categories) + len(column.rare)
    number = f"{listed}:" if column.complete else "many:"
    shares = [f"{clipped(shorten(name), 12)} {_percent(count / values)}" for name, count in ordered[:_TOP] if count]
    return " ".join([number, ", ".join(shares)]).rstrip(": ")


def _percent(share: float) -> str:
    """A share in two digits or so.

    >>> _percent(0.123), _percent(0.0123), _percent(0.0001)
    ('12%', '1.2%', '<0.1%')
    """
    return "<0.1%" if share < 0.0005 else f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def _numeric_shape(column: NumericColumn) -> str:
    """Shares of the values in cells of equal width, from the 1 % point to the 99 % point."""
    counts = np.array(column.counts[1:-2], dtype=np.float64)
    total = counts.sum()
    if not total:
        return ""
    edges = np.array(column.edges)
    edges = edges / np.abs(edges).max()  # so that no difference overflows
    if len(counts) <= _CELLS and column.means[1:-1] == column.edges[1:]:  # every bin holds a single value
        return _bars(counts.tolist())
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / total
    low = edges[np.abs(cumulative - _TAIL).argmin()]
    high = edges[np.abs(cumulative - (1 - _TAIL)).argmin()]
    if low >= high:
        return _BLOCKS[-1]
    return _bars(_spread(edges, counts, np.linspace(low, high, _CELLS + 1)).tolist())


def _spread(edges: Floats, counts: Floats, cells: Floats) -> Floats:
    """Counts per cell, as if the values of a bin lay evenly in it."""
    spread = np.zeros(len(cells) - 1)
    for (begin, end), count in zip(pairwise(edges.tolist()), counts.tolist(), strict=True):
        overlap = np.minimum(cells[1:], end) - np.maximum(cells[:-1], begin)
        inside = np.clip(overlap, 0, None)
        if end - begin > (cells[-1] - cells[0]) * 1e-9:
            spread += count * inside / (end - begin)
        elif cells[0] <= end <= cells[-1]:  # a single value
            spread[max(int(np.searchsorted(cells, end, side="left")) - 1, 0)] += count
    return spread


def _bars(values: Sequence[float]) -> str:
    """A block for each value, the highest one for the largest.

    >>> _bars([1, 4, 8, 0])
    '▁▄█ '
    """
    most = max(values, default=0.0)
    if not most:
        return ""
    return "".join(_BLOCKS[-int(-(value * (len(_BLOCKS) - 1)) // most)] for value in values)
