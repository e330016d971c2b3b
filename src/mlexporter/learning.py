"""Learning a baseline from a model's own traffic, for models whose training data nobody has."""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final, Literal

import msgspec
import numpy as np

from mlexporter.baseline import (
    LARGEST,
    Baseline,
    CategoricalColumn,
    Column,
    NumericColumn,
    sealed,
)
from mlexporter.binning import Binner, Counts, to_floats
from mlexporter.categories import Missing, category_of
from mlexporter.edges import Floats, Grid, choose_edges
from mlexporter.samples import Batch, Role
from mlexporter.statistics import Reference

ColumnType = Literal["numeric", "categorical", "boolean"]

CATEGORIES: Final = 50
RARE_CATEGORIES: Final = 1000
# A column is numeric if at least this share of its values are numbers; the others are then of the wrong type.
_NUMERIC_SHARE: Final = 0.95


class Learner:
    """Collects the first samples of a model version, at most `max_columns` columns of them.

    Not safe for threads; the store calls it from one at a time.
    """

    def __init__(self, max_columns: int) -> None:
        self._max_columns = max_columns
        self._values: dict[tuple[Role, str], list[object]] = {}
        self.rows = 0
        self.unknown = 0

    def add(self, batch: Batch) -> None:
        """Keep a batch. Values are bounded in length, so that memory is bounded by the number of samples."""
        for role, name, values in batch.columns():
            kept = self._values.get((role, name))
            if kept is None:
                if len(self._values) >= self._max_columns:
                    self.unknown += len(values)
                    continue
                kept = self._values[(role, name)] = [None] * self.rows
            kept.extend(_bounded(value) for value in values)
        self.rows += batch.size
        for kept in self._values.values():
            kept.extend((None,) * (self.rows - len(kept)))

    def learn(self, model: str, version: str, types: Mapping[str, ColumnType | None]) -> Baseline:
        """Fix types and bins; `types` are those that the configuration gives."""
        columns: list[Column] = [
            learn_column(role, name, values, types.get(name)) for (role, name), values in self._values.items()
        ]
        return sealed(
            Baseline(
                model=model,
                version=version,
                source="learned",
                provisional=True,
                rows=self.rows,
                columns=tuple(columns),
            )
        )


def _bounded(value: object) -> object:
    """A value as it may be kept: numbers as they are, text bounded, anything else a mark for the wrong type."""
    if value is None or isinstance(value, bool | int | float):
        return value
    category = category_of(value)
    return category if isinstance(category, str) else Missing.INVALID


def learn_column(role: Role, name: str, values: list[object], column_type: ColumnType | None) -> Column:
    """One column of a baseline from all its values."""
    kinds = Counter(map(type, values))
    present = len(values) - kinds[type(None)]
    if column_type is None:
        numbers = kinds[int] + kinds[float]
        if present and kinds[bool] == present:
            column_type = "boolean"
        elif present and numbers >= _NUMERIC_SHARE * present:
            column_type = "numeric"
        else:
            column_type = "categorical"
    if column_type == "numeric":
        floats = np.empty(len(values), dtype=np.float64)
        invalid = to_floats(values, floats)
        return numeric_column(role, name, floats, invalid)
    tally: Counter[str] = Counter()
    invalid = missing = 0
    for value, times in Counter(values).items():
        category = category_of(value, boolean=column_type == "boolean")
        if isinstance(category, str):
            tally[category] += times
        else:
            missing += times
            invalid += times if category is Missing.INVALID else 0
    return categorical_column(role, name, tally, missing, invalid, boolean=column_type == "boolean")


def numeric_column(role: Role, name: str, values: Floats, invalid: int) -> NumericColumn:
    """A numeric column from all its values, NaN where missing."""
    finite = values[np.isfinite(values)]
    below, above = int(np.isneginf(values).sum()), int(np.isposinf(values).sum())
    missing = len(values) - len(finite) - below - above
    clipped = np.clip(finite, -LARGEST, LARGEST)
    mean = float(clipped.mean()) if len(clipped) else 0.0
    squares = float(((clipped - mean) ** 2).sum())
    return column_from_grid(role, name, Grid.of(finite), Outside(below, above, missing, invalid), mean, squares)


class Outside(msgspec.Struct, frozen=True):
    """Rows without a finite value: minus and plus infinity, missing, and those of the missing of the wrong type."""

    below: int
    above: int
    missing: int
    invalid: int


def column_from_grid(role: Role, name: str, grid: Grid, outside: Outside, mean: float, squares: float) -> NumericColumn:
    """A numeric column from its values on a grid.

    Args:
        role: of the column.
        name: of the column.
        grid: its finite values.
        outside: its other rows.
        mean: mean of the finite values.
        squares: sum of their squared distances from the mean.

    """
    rows = int(grid.counts.sum())
    stddev = math.sqrt(squares / rows) if rows else 0.0
    edges = choose_edges(grid)
    # a column without a single finite value is cut at 0, so that whatever comes is out of its range
    fine = edges.fine or (math.nextafter(0.0, -math.inf), 0.0)
    cells = np.searchsorted(grid.values, fine, side="right")
    counts = np.diff(np.concatenate([[0], np.cumsum(grid.counts)])[cells])
    # Means are held within their bins: the sum of many equal values may miss by a rounding.
    sums = [float(grid.sums[a:b].sum()) for a, b in pairwise(cells)]
    means = [
        min(max(total / count, low), high) if count else None
        for total, count, low, high in zip(sums, counts.tolist(), fine, fine[1:], strict=False)
    ]
    draft = NumericColumn(
        role=role,
        name=name,
        edges=fine,
        coarse=edges.coarse or (0, 1),
        counts=(outside.below, *counts.tolist(), outside.above, outside.missing),
        means=(),
        mean=mean,
        stddev=stddev,
        minimum=float(grid.values[0]) if rows else 0.0,
        maximum=float(grid.values[-1]) if rows else 0.0,
        rank_error=edges.rank_error,
        invalid=outside.invalid,
    )
    low, high = draft.sum_limits
    return msgspec.structs.replace(
        draft, means=(low if outside.below else None, *means, high if outside.above else None)
    )


def categorical_column(
    role: Role,
    name: str,
    tally: Mapping[str, int],
    missing: int,
    invalid: int,
    *,
    boolean: bool,
    complete: bool = True,
) -> CategoricalColumn:
    """A categorical column from counts per category. Equal counts are in the order of their names."""
    by_frequency = sorted(tally, key=lambda category: (-tally[category], category))
    categories, rest = by_frequency[:CATEGORIES], by_frequency[CATEGORIES:]
    if boolean:
        categories, rest = ["false", "true"], [name for name in by_frequency if name not in ("false", "true")]
    rare = sorted(rest) if len(rest) <= RARE_CATEGORIES else []
    counts = (*(tally.get(category, 0) for category in categories), sum(tally[name] for name in rest), 0, missing)
    return CategoricalColumn(
        role=role,
        name=name,
        boolean=boolean,
        categories=tuple(categories),
        rare=tuple(rare),
        complete=complete and len(rest) <= RARE_CATEGORIES,
        counts=counts,
        invalid=invalid,
    )


def with_counts(baseline: Baseline, binner: Binner, reference: Reference, *, provisional: bool) -> Baseline:
    """The same bins with the counts of a reference."""
    columns: list[Column] = []
    for i, column in enumerate(binner.columns):
        span = slice(int(binner.offsets[i]), int(binner.offsets[i + 1]))
        counts = tuple(reference.bins[span].tolist())
        if isinstance(column, NumericColumn):
            sums = reference.sums[span].tolist()
            values = sum(counts[:-1])
            columns.append(
                msgspec.structs.replace(
                    column,
                    counts=counts,
                    means=tuple(s / k if k else None for s, k in zip(sums[:-1], counts[:-1], strict=True)),
                    mean=sum(sums[:-1]) / values if values else column.mean,
                    stddev=float(reference.stddevs[i]),
                )
            )
        else:
            columns.append(msgspec.structs.replace(column, counts=counts))
    return sealed(
        msgspec.structs.replace(baseline, columns=tuple(columns), rows=reference.rows, provisional=provisional)
    )


def extended(binner: Binner, start: Reference, since: Counts) -> Reference:
    """A learned reference and what was counted since, squares included."""
    bins = start.bins + since.bins
    sums = start.sums + since.sums
    stddevs = start.stddevs.copy()
    for i, column in enumerate(binner.numeric):
        begin, end = int(binner.offsets[i]), int(binner.offsets[i + 1]) - 1
        before, now = int(start.bins[begin:end].sum()), int(bins[begin:end].sum())
        if now > before:
            # distances were summed from the mean at the start: shift them to the mean of all
            shift = float(sums[begin:end].sum()) / now - column.mean
            squares = before * float(start.stddevs[i]) ** 2 + float(since.squares[i])
            stddevs[i] = math.sqrt(max(squares / now - shift * shift, 0.0))
    return Reference(bins=bins, sums=sums, stddevs=stddevs, rows=start.rows + since.rows)
