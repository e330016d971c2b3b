"""Building a baseline from a data file, in bounded memory.

The numbers of a column are kept, and its bins are exact, as long as all that is kept fits the memory limit. Beyond it
a sketch says where the quantiles lie, roughly, and a second pass over the file counts exactly around them: the edges
are then quantiles of a known rank, and every count in the file is exact all the same. The same file gives the same
baseline, to the byte.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec
import numpy as np
from datasketches import tdigest_double

from mlexporter.baseline import LARGEST, Baseline, CategoricalColumn, Column, NumericColumn, sealed
from mlexporter.binning import to_floats
from mlexporter.columns import (
    ColumnType,
    Moments,
    Outside,
    Tally,
    categorical_column,
    column_from_grid,
    column_type_of,
    exact_grid,
    finite_values,
)
from mlexporter.config import ColumnConfig
from mlexporter.daily import learn_days
from mlexporter.dataset import Cells, Chunk, Dataset, Key, Types
from mlexporter.edges import COARSE_BINS, FINE_QUANTILES, Floats, Grid, Ints
from mlexporter.outcome_profile import ProfileError
from mlexporter.profiling import OutcomeProfiler

MEMORY_LIMIT: Final = 1 << 30
MAX_CATEGORIES: Final = 200_000
_FEWEST_CATEGORIES: Final = 2_000
# What sorting a column and counting its values takes, as a multiple of the column, and what a category takes.
_WORKING_COPIES: Final = 7
_CATEGORY_BYTES: Final = 120
# Columns with no more different values than this are counted value by value, however many rows there are.
_DISTINCT: Final = 64
# The digest draws no random numbers, so the same data give the same edges. Its ranks are good to about 0.1 %.
_DIGEST_SIZE: Final = 5000
_ATOM_SHARE: Final = 0.005
_MAX_ATOMS: Final = 1000
# Ranks at which the second pass looks: everywhere each 0.1 %, and each 0.01 % within 0.2 % of a wanted quantile.
_WANTED: Final = (*FINE_QUANTILES, *(i / COARSE_BINS for i in range(1, COARSE_BINS)))
_RANKS: Final = np.unique(
    np.clip(
        np.concatenate([np.arange(1, 1000) / 1000, *(q + np.arange(-20, 21) / 10_000 for q in _WANTED)]).round(6), 0, 1
    )
)

_Value = TypeVar("_Value", str, float)
Progress = Callable[[int, int], None]
"""Called with the pass over the file, 1 to 3, and the units of work done in it since the call before."""


def build(
    dataset: Dataset,
    *,
    model: str | None = None,
    version: str | None = None,
    settings: Mapping[str, ColumnConfig] | None = None,
    timezone: str = "UTC",
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress | None = None,
    outcomes: OutcomeProfiler | None = None,
) -> Baseline:
    """Build a baseline.

    Args:
        dataset: the rows.
        model: what the baseline is of.
        version: of the model.
        settings: what is said of columns, by name: a type that is not to be guessed, a season, a time zone.
        timezone: of the seasons of columns of which nothing is said.
        memory_limit: bytes that values and categories may take, with the room to sort the largest column. The chunk
            in hand, what a sketch takes (about 0.2 MB a column) and the outcomes come on top.
        progress: called as the work goes on.
        outcomes: profiler that knows what is said of the model; by default one that knows nothing.

    Raises:
        DatasetError: the data are broken, or changed while they were read, or do not fit the task.

    """
    settings = settings or {}
    types = {name: column.type for name, column in settings.items()}
    profile = _Profile(types, memory_limit)
    outcomes = outcomes or OutcomeProfiler()
    try:
        for chunk in dataset.chunks(types, progress and (lambda units: progress(1, units))):
            profile.add(chunk)
            outcomes.add_chunk(chunk)
        known = outcomes.result()
    except ProfileError as error:
        raise dataset.error(str(error)) from error
    for warning in outcomes.warnings:
        dataset.warn(warning)
    keys = profile.start_counting()
    if keys:
        for chunk in dataset.chunks(types, progress and (lambda units: progress(2, units)), keys):
            profile.count(chunk)
    columns = profile.columns()
    if columns is None:
        raise dataset.changed()
    if not columns:
        raise dataset.error("no columns; accepted is at least one feature, prediction or label")
    baseline = Baseline(model=model, version=version, rows=profile.rows, columns=tuple(columns))
    if known is not None:
        baseline = msgspec.structs.replace(baseline, outcomes=known)
    baseline = sealed(baseline)
    if dataset.timed:
        return learn_days(dataset, baseline, settings, timezone, progress and (lambda units: progress(3, units)))
    return baseline


class _Profile:
    """What is known of all columns so far."""

    def __init__(self, types: Types, memory_limit: int) -> None:
        self.rows = 0
        self._types = types
        self._limit = memory_limit
        self._rows_again = 0
        self._columns: dict[Key, _Numbers | _Categories | None] = {}
        self._sketching = False
        self._max_categories = MAX_CATEGORIES

    def add(self, chunk: Chunk) -> None:
        """The first pass."""
        self.rows += chunk.rows
        for key, cells in chunk.columns.items():
            column = self._columns.get(key)
            if column is None:
                column = self._columns[key] = self._new(key, cells)
            if column is not None:
                column.add(cells)
        self._hold_limit()

    def _new(self, key: Key, cells: Cells) -> "_Numbers | _Categories | None":
        """A column, as soon as it has a value."""
        column_type: ColumnType | None = "numeric"
        if not isinstance(cells, np.ndarray):
            column_type = column_type_of(cells) and (self._types.get(key[1]) or column_type_of(cells))
        if column_type is None:
            return None
        if column_type == "numeric":
            return _Numbers(sketching=self._sketching)
        return _Categories(boolean=column_type == "boolean")

    def _hold_limit(self) -> None:
        numbers = [column for column in self._columns.values() if isinstance(column, _Numbers)]
        categories = [column for column in self._columns.values() if isinstance(column, _Categories)]
        for column in categories:
            column.prune(self._max_categories)
        # half of it is for categories where there are so many
        while sum(column.bytes for column in categories) > self._limit // 2:
            if self._max_categories == _FEWEST_CATEGORIES:
                break
            self._max_categories = max(self._max_categories // 2, _FEWEST_CATEGORIES)
            for column in categories:
                column.prune(self._max_categories)
        kept = [column.bytes for column in numbers]
        taken = sum(kept) + _WORKING_COPIES * max(kept, default=0) + sum(column.bytes for column in categories)
        if taken > self._limit and not self._sketching:
            self._sketching = True
            for number in numbers:
                number.sketch()

    def start_counting(self) -> frozenset[Key]:
        """The columns that need a second pass."""
        return frozenset(key for key, column in self._columns.items() if column and column.start_counting())

    def count(self, chunk: Chunk) -> None:
        """The second pass."""
        self._rows_again += chunk.rows
        for key, cells in chunk.columns.items():
            column = self._columns.get(key)
            if column is not None:
                column.count(cells)

    def columns(self) -> list[Column] | None:
        """The columns of the baseline; None where the passes did not see the same. Uses them up."""
        if self._rows_again not in (0, self.rows):
            return None
        columns: list[Column] = []
        while self._columns:
            key, column = self._columns.popitem()
            result: Column | None
            if column is None:
                result = categorical_column(*key, Tally({}, self.rows, 0), boolean=self._types.get(key[1]) == "boolean")
            else:
                result = column.result(key, self.rows)
            if result is None:
                return None
            columns.append(result)
        return columns


class _Numbers:
    """A numeric column: value by value while there are few, kept whole while that fits, else in a sketch."""

    def __init__(self, *, sketching: bool) -> None:
        self._sketching = sketching
        self._rows = 0
        self._moments = Moments()
        self._outside = Outside(0, 0, 0, 0)
        self._few: Grid | None = Grid.of(np.empty(0))
        self._kept: list[Floats] = []
        self._sketch: _Sketch | None = None
        self._grid: Grid | None = None

    @property
    def bytes(self) -> int:
        """What the values take that are kept."""
        return sum(values.nbytes for values in self._kept)

    def add(self, cells: Cells) -> None:
        values, invalid = _floats(cells)
        self._rows += len(values)
        self._moments.add(values)
        self._outside += Outside.of(values, invalid)
        finite = finite_values(values)
        if self._sketch is not None:
            self._sketch.add(finite)
            return
        if self._few is not None:
            few = _merged(self._few, exact_grid(finite))
            if len(few.values) <= _DISTINCT:
                self._few = few
                return
            self._kept.append(np.repeat(self._few.values, self._few.counts))
            self._few = None
        self._kept.append(finite)
        if self._sketching:
            self.sketch()

    def sketch(self) -> None:
        """Keep no more values."""
        self._sketching = True
        if self._few is None and self._sketch is None:
            self._sketch = _Sketch()
            for values in self._kept:
                self._sketch.add(values)
            self._kept = []

    def start_counting(self) -> bool:
        if self._sketch is None:
            return False
        points = self._sketch.points()
        self._grid = Grid(
            values=points, counts=np.zeros(len(points), np.int64), sums=np.zeros(len(points)), exact=False
        )
        return True

    def count(self, cells: Cells) -> None:
        assert self._grid is not None
        grid = self._grid
        values = np.sort(finite_values(_floats(cells)[0]))
        index = np.searchsorted(grid.values, values, side="left")
        # a value over the last point was not there in the first pass; it is dropped, and the count will not agree
        index, values = index[: (stop := int(np.searchsorted(index, len(grid.values))))], values[:stop]
        counts: Ints = np.bincount(index, minlength=len(grid.values))
        sums = np.bincount(index, np.clip(values, -LARGEST, LARGEST), len(grid.values))
        self._grid = msgspec.structs.replace(grid, counts=grid.counts + counts, sums=grid.sums + sums)

    def result(self, key: Key, rows: int) -> NumericColumn | None:
        outside = self._outside + Outside(0, 0, rows - self._rows, 0)
        grid = self._grid or self._few
        if grid is None:
            values = np.concatenate(self._kept)
            self._kept = []
            grid = exact_grid(values)
        if int(grid.counts.sum()) != self._moments.rows:
            return None
        return column_from_grid(*key, grid, outside, self._moments)


def _floats(cells: Cells) -> tuple[Floats, int]:
    """Cells as numbers, NaN where missing, and how many were of the wrong type."""
    if isinstance(cells, np.ndarray):
        return cells, 0
    values = np.empty(len(cells), dtype=np.float64)
    invalid = to_floats(cells, values)
    return values, invalid


def _merged(first: Grid, second: Grid) -> Grid:
    """Two exact grids as one."""
    values = np.union1d(first.values, second.values)
    counts = np.zeros(len(values), dtype=np.int64)
    for grid in (first, second):
        counts[np.searchsorted(values, grid.values)] += grid.counts
    return Grid(values=values, counts=counts, sums=np.clip(values, -LARGEST, LARGEST) * counts, exact=True)


class _Sketch:
    """Where the quantiles of a column lie, roughly, and which values may be atoms."""

    def __init__(self) -> None:
        self._digest = tdigest_double(_DIGEST_SIZE)
        self._atoms: Counter[float] = Counter()
        self._minimum, self._maximum = math.inf, -math.inf

    def add(self, values: Floats) -> None:
        if not len(values):
            return
        values = np.sort(values)  # which the digest, too, is quicker with
        distinct, counts = np.unique(values, return_counts=True)
        self._minimum = min(self._minimum, float(distinct[0]))
        self._maximum = max(self._maximum, float(distinct[-1]))
        heavy = counts >= max(_ATOM_SHARE * len(values), 2)
        self._atoms.update(dict(zip(distinct[heavy].tolist(), counts[heavy].tolist(), strict=True)))
        if len(self._atoms) > 2 * _MAX_ATOMS:
            self._atoms = Counter(dict(_top(self._atoms, _MAX_ATOMS)))
        # the digest takes differences of values
        self._digest.update(np.clip(values, -LARGEST, LARGEST))

    def points(self) -> Floats:
        """Where to count in the second pass: ascending, from the minimum to the maximum."""
        quantiles = [self._digest.get_quantile(rank) for rank in _RANKS.tolist()]
        atoms = [value for value, _ in _top(self._atoms, _MAX_ATOMS)]
        points = np.array([*quantiles, *atoms, self._maximum])
        points = points[(points > self._minimum) & (points <= self._maximum)] + 0.0
        # with the double below it, every point can be cut off as a value of its own
        below = np.nextafter(points, -math.inf)
        return np.unique(np.concatenate([[self._minimum], points, below[below > self._minimum]])) + 0.0


class _Categories:
    """A categorical column: all categories counted, while they are not too many."""

    def __init__(self, *, boolean: bool) -> None:
        self._boolean = boolean
        self._rows = 0
        self._count: Counter[str] = Counter()
        self._missing = 0
        self._invalid = 0
        self._complete = True
        self._counting = False
        self._measured = (0, 0)

    @property
    def bytes(self) -> int:
        """What the categories take."""
        if self._measured[0] != len(self._count):
            text = sum(map(len, self._count))
            self._measured = (len(self._count), text + _CATEGORY_BYTES * len(self._count))
        return self._measured[1]

    def add(self, cells: Cells) -> None:
        tally = Tally.of(_objects(cells), boolean=self._boolean)
        self._rows += len(cells)
        self._count.update(tally.categories)
        self._missing += tally.missing
        self._invalid += tally.invalid

    def prune(self, most: int) -> None:
        """Forget the rarer half of more than `most` categories."""
        if len(self._count) > most:
            self._count = Counter(dict(_top(self._count, most // 2)))
            self._complete = False

    def start_counting(self) -> bool:
        self._counting = not self._complete
        if self._counting:
            self._count = Counter(dict.fromkeys(self._count, 0))
        return self._counting

    def count(self, cells: Cells) -> None:
        for category, rows in Tally.of(_objects(cells), boolean=self._boolean).categories.items():
            if category in self._count:
                self._count[category] += rows

    def result(self, key: Key, rows: int) -> CategoricalColumn | None:
        unlisted = self._rows - self._missing - self._count.total()
        if unlisted < 0 or (self._complete and unlisted):
            return None
        tally = Tally(self._count, self._missing + rows - self._rows, self._invalid, unlisted)
        return categorical_column(*key, tally, boolean=self._boolean)


def _objects(cells: Cells) -> list[object]:
    return (
        [None if math.isnan(value) else value for value in cells.tolist()] if isinstance(cells, np.ndarray) else cells
    )


def _top(counts: Counter[_Value], most: int) -> list[tuple[_Value, int]]:
    """The most frequent ones, of equal ones the smaller first."""
    names = sorted(counts)
    names.sort(key=counts.__getitem__, reverse=True)  # a stable sort keeps equal ones in order
    return [(name, counts[name]) for name in names[:most]]
