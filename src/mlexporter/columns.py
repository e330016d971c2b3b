"""Columns of a baseline from their values: types, bins, counts, moments."""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec
import numpy as np

from mlexporter.baseline import LARGEST, CategoricalColumn, Column, NumericColumn
from mlexporter.binning import to_floats
from mlexporter.categories import Missing, category_of
from mlexporter.edges import Floats, Grid, choose_edges
from mlexporter.samples import Role

ColumnType = Literal["numeric", "categorical", "boolean"]

CATEGORIES: Final = 50
RARE_CATEGORIES: Final = 1000
# A column is numeric if at least this share of its values are numbers; the others are then of the wrong type.
_NUMERIC_SHARE: Final = 0.95
# Moments are summed over blocks of this many rows and merged block by block, so that a column gives the same bits
# whether it comes whole or in chunks, as long as the chunks are whole blocks.
MOMENT_ROWS: Final = 1024
# The smallest double has no double under it that could be the lowest edge, so it counts as minus infinity.
_SMALLEST: Final = -sys.float_info.max


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
    edges = choose_edges(grid)
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
        singletons=sum(rows == 1 for rows in count.values()),
    )
