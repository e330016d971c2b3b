"""Learning a baseline: columns from their values, and whole baselines from a model's own traffic.

The latter is for models whose training data nobody has; where there is a file of it, `builder` does the work.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from mlexporter.edges import Edges, Floats, Grid, choose_edges
from mlexporter.samples import Batch, Role
from mlexporter.statistics import Reference

ColumnType = Literal["numeric", "categorical", "boolean"]

# A column with a longer name is not learned, for its name is in every line of the page that tells of it.
LONGEST_NAME: Final = 256
CATEGORIES: Final = 50
RARE_CATEGORIES: Final = 1000
# A column is numeric if at least this share of its values are numbers; the others are then of the wrong type.
_NUMERIC_SHARE: Final = 0.95
# Moments are summed over blocks of this many rows and merged block by block, so that a column gives the same bits
# whether it comes whole or in chunks, as long as the chunks are whole blocks.
MOMENT_ROWS: Final = 1024
# The smallest double has no double under it that could be the lowest edge, so it counts as minus infinity.
_SMALLEST: Final = -sys.float_info.max


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
                if len(self._values) >= self._max_columns or len(name) > LONGEST_NAME:
                    self.unknown += len(values) - values.count(None)
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


def column_type_of(values: Sequence[object]) -> ColumnType | None:
    """The type that values suggest; None where all are missing.

    >>> column_type_of([1, 2.5, None]), column_type_of([True, False]), column_type_of(["a", 1]), column_type_of([None])
    ('numeric', 'boolean', 'categorical', None)
    """
    kinds = Counter(map(type, values))
    present = len(values) - kinds[type(None)]
    if not present:
        return None
    if kinds[bool] == present:
        return "boolean"
    return "numeric" if kinds[int] + kinds[float] >= _NUMERIC_SHARE * present else "categorical"


def learn_column(role: Role, name: str, values: Sequence[object], column_type: ColumnType | None) -> Column:
    """One column of a baseline from all its values; its type is what they suggest where None is given."""
    column_type = column_type or column_type_of(values) or "categorical"
    if column_type == "numeric":
        floats = np.empty(len(values), dtype=np.float64)
        invalid = to_floats(values, floats)
        return numeric_column(role, name, floats, invalid)
    tally = Tally.of(values, boolean=column_type == "boolean")
    return categorical_column(role, name, tally, boolean=column_type == "boolean")


class Tally(msgspec.Struct, frozen=True):
    """Values of a categorical column, counted.

    Attributes:
        categories: rows per category.
        missing: rows without one, the invalid ones among them.
        invalid: rows whose value is no category.
        unlisted: rows whose category is not in `categories`, because there were too many to keep.

    """

    categories: Mapping[str, int]
    missing: int
    invalid: int
    unlisted: int = 0

    @staticmethod
    def of(values: Sequence[object], *, boolean: bool) -> "Tally":
        """Count values."""
        counted: Iterable[tuple[object, int]]
        kinds = set(map(type, values))
        if bool in kinds and kinds & {int, float}:
            # True and 1 are one key of a Counter but two categories
            counted = Counter(category_of(value, boolean=boolean) for value in values).items()
            counted = [(None if value is Missing.MISSING else value, times) for value, times in counted]
        else:
            counted = Counter(values).items()
        categories: Counter[str] = Counter()
        invalid = missing = 0
        for value, times in counted:
            category = category_of(value, boolean=boolean)
            if isinstance(category, str):
                categories[category] += times
            else:
                missing += times
                invalid += times if category is Missing.INVALID else 0
        return Tally(categories, missing, invalid)


def finite_values(values: Floats) -> Floats:
    """The finite ones, in a new array and without negative zeros (a sort may put 0 and -0 in any order)."""
    finite: Floats = values[(values > _SMALLEST) & (values < math.inf)] + 0.0
    return finite


class Outside(msgspec.Struct, frozen=True):
    """Rows without a finite value: minus and plus infinity, missing, and those of the missing of the wrong type."""

    below: int
    above: int
    missing: int
    invalid: int

    @staticmethod
    def of(values: Floats, invalid: int) -> "Outside":
        """Count what `finite_values` leaves out."""
        below, above = int((values <= _SMALLEST).sum()), int((values == math.inf).sum())
        return Outside(below, above, int(np.isnan(values).sum()), invalid)

    def __add__(self, other: "Outside") -> "Outside":
        """The counts of both together."""
        return Outside(
            self.below + other.below,
            self.above + other.above,
            self.missing + other.missing,
            self.invalid + other.invalid,
        )


class Moments:
    """Number, mean and sum of squared distances from the mean of the finite values of a column.

    Blocks of rows are merged by the formula of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
    variance". Values beyond LARGEST enter as if they were that large.

    >>> moments = Moments()
    >>> moments.add(np.array([1.0, 2.0, math.nan, 6.0]))
    >>> moments.rows, moments.mean, moments.squares
    (3, 3.0, 14.0)
    """

    def __init__(self) -> None:
        self.rows = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: Floats) -> None:
        """Add rows, NaN where missing. All calls but the last one bring a multiple of MOMENT_ROWS."""
        padded = np.full(-(-len(values) // MOMENT_ROWS) * MOMENT_ROWS, np.nan)
        padded[: len(values)] = values
        blocks = padded.reshape(-1, MOMENT_ROWS)
        usable = (blocks > _SMALLEST) & (blocks < math.inf)
        blocks[~usable] = 0.0
        np.clip(blocks, -LARGEST, LARGEST, out=blocks)
        rows = usable.sum(axis=1)
        means = blocks.sum(axis=1) / np.maximum(rows, 1)
        blocks -= means[:, np.newaxis]
        blocks[~usable] = 0.0
        np.square(blocks, out=blocks)
        for n, mean, squares in zip(rows.tolist(), means.tolist(), blocks.sum(axis=1).tolist(), strict=True):
            if n:
                self._merge(n, mean, squares)

    def _merge(self, rows: int, mean: float, squares: float) -> None:
        total = self.rows + rows
        delta = mean - self.mean
        self.mean += delta * rows / total
        self.squares += squares + delta * delta * self.rows * rows / total
        self.rows = total


def numeric_column(role: Role, name: str, values: Floats, invalid: int) -> NumericColumn:
    """A numeric column from all its values, NaN where missing."""
    moments = Moments()
    moments.add(values)
    return column_from_grid(role, name, exact_grid(finite_values(values)), Outside.of(values, invalid), moments)


def exact_grid(values: Floats) -> Grid:
    """The exact grid of finite values; they enter its sums within LARGEST, so that no sum overflows."""
    with np.errstate(over="ignore"):
        grid = Grid.of(values)
    return msgspec.structs.replace(grid, sums=np.clip(grid.values, -LARGEST, LARGEST) * grid.counts)


def column_from_grid(role: Role, name: str, grid: Grid, outside: Outside, moments: Moments) -> NumericColumn:
    """A numeric column from its values on a grid.

    Args:
        role: of the column.
        name: of the column.
        grid: its finite values.
        outside: its other rows.
        moments: of the finite values.

    """
    rows = int(grid.counts.sum())
    mean, stddev = moments.mean, math.sqrt(moments.squares / rows) if rows else 0.0
    minimum, maximum = (float(grid.values[0]), float(grid.values[-1])) if rows else (0.0, 0.0)
    if minimum == maximum:  # a sum of many equal values may miss by a rounding, and no distance is left to divide by
        mean, stddev = min(max(minimum, -LARGEST), LARGEST), 0.0
    edges = _ranked(choose_edges(grid), grid)
    # a column without a single finite value is cut at 0, so that whatever comes is out of its range
    fine = edges.fine or (math.nextafter(0.0, -math.inf), 0.0)
    cells = np.searchsorted(grid.values, fine, side="right")
    counts = np.diff(np.concatenate([[0], np.cumsum(grid.counts)])[cells])
    draft = NumericColumn(
        role=role,
        name=name,
        edges=fine,
        coarse=edges.coarse or (0, 1),
        counts=(outside.below, *counts.tolist(), outside.above, outside.missing),
        means=(),
        mean=mean,
        stddev=stddev,
        minimum=minimum,
        maximum=maximum,
        rank_error=edges.rank_error,
        invalid=outside.invalid,
    )
    least, most = draft.sum_limits
    # Means are held within their bins (the same rounding), and within what live values enter sums as.
    sums = [float(grid.sums[a:b].sum()) for a, b in pairwise(cells)]
    means = [
        min(max(min(max(total / count, math.nextafter(low, math.inf)), high), least), most) if count else None
        for total, count, low, high in zip(sums, counts.tolist(), fine, fine[1:], strict=False)
    ]
    return msgspec.structs.replace(
        draft, means=(least if outside.below else None, *means, most if outside.above else None)
    )


def _ranked(edges: Edges, grid: Grid) -> Edges:
    """Only the edges whose rank the grid knows.

    Where two quantiles fall in one cell it is taken for an atom and cut just below its upper end too. If the cell is
    none, nobody knows how many rows lie on which side of that cut.
    """
    known = np.isin(edges.fine, grid.values)
    known[:1] = True  # the lowest edge lies under all values
    if grid.exact or known.all():
        return edges
    unknown = np.asarray(edges.fine)[~known]
    cells = grid.counts[np.searchsorted(grid.values, unknown, side="left")]
    kept = np.flatnonzero(known).tolist()
    return Edges(
        fine=tuple(edges.fine[i] for i in kept),
        coarse=tuple(j for j, i in enumerate(kept) if i in edges.coarse),
        rank_error=max(edges.rank_error, float(cells.max()) / int(grid.counts.sum())),
    )


def categorical_column(role: Role, name: str, tally: Tally, *, boolean: bool) -> CategoricalColumn:
    """A categorical column from counts per category. Equal counts are in the order of their names."""
    count = tally.categories
    by_frequency = sorted(count, key=lambda category: (-count[category], category))
    categories, rest = by_frequency[:CATEGORIES], by_frequency[CATEGORIES:]
    if boolean:
        categories, rest = ["false", "true"], [name for name in by_frequency if name not in ("false", "true")]
    other = sum(count[name] for name in rest) + tally.unlisted
    complete = len(rest) <= RARE_CATEGORIES and not tally.unlisted
    return CategoricalColumn(
        role=role,
        name=name,
        boolean=boolean,
        categories=tuple(categories),
        rare=tuple(sorted(rest)) if len(rest) <= RARE_CATEGORIES else (),
        complete=complete,
        counts=(*(count.get(category, 0) for category in categories), other, 0, tally.missing),
        invalid=tally.invalid,
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
