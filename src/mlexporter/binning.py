"""Values to bins: which bin a value falls in, and counts that add, merge and coarsen.

No clock and no lock here. All counts of a model version lie in one flat vector, column after column, numeric columns
first, so that windows, snapshots and statistics work on whole arrays.

    numeric column      __below__ | fine bins 1..N | __above__ | __missing__
    categorical column  categories 1..K | __other__ | __new__ | __missing__
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.baseline import Baseline, CategoricalColumn, NumericColumn
from mlexporter.categories import Missing, category_of
from mlexporter.edges import Floats, Ints
from mlexporter.samples import CONFIDENCE_COLUMN, LABEL_COLUMN, PREDICTION_COLUMN, Batch, Role, Values

Bools = NDArray[np.bool_]

# Below this many rows one searchsorted beats a comparison per edge, whose cost is the calls.
SEARCHSORTED_ROWS: Final = 256
ALARM_CATEGORIES: Final = 20
"""The most frequent categories that have a bin of their own in the drift alarm."""
_NUMBER_TYPES: Final = frozenset((float, int, bool, type(None)))


class Counts(msgspec.Struct, frozen=True):
    """What was counted of a number of samples. The arrays add; nothing else is needed to merge two of them.

    Attributes:
        bins: number of values per fine bin, all columns in the order of the layout.
        sums: sum of the values per fine bin of the numeric columns.
        invalid: number of values of the wrong type, per column.
        squares: sum of the squared distances of the values from the baseline's mean, per numeric column; counted only
            while a baseline is learned.
        unknown: number of values in columns that the baseline does not have.
        rows: number of samples.

    """

    bins: Ints
    sums: Floats
    squares: Floats
    invalid: Ints
    unknown: int
    rows: int

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both together."""
        return Counts(
            bins=self.bins + other.bins,
            sums=self.sums + other.sums,
            squares=self.squares + other.squares,
            invalid=self.invalid + other.invalid,
            unknown=self.unknown + other.unknown,
            rows=self.rows + other.rows,
        )


class Binner:
    """Counts batches into the bins of a baseline. Immutable once made, so any thread may use it.

    Attributes:
        numeric, categorical: the columns in the order of the flat vector.
        offsets: where each column's bins begin in the flat vector, and where the last ones end.

    """

    def __init__(self, baseline: Baseline) -> None:
        self.numeric: tuple[NumericColumn, ...] = tuple(
            column for column in baseline.columns if isinstance(column, NumericColumn)
        )
        self.categorical: tuple[CategoricalColumn, ...] = tuple(
            column for column in baseline.columns if isinstance(column, CategoricalColumn)
        )
        sizes = [len(column.counts) for column in self.columns]
        self.offsets: Ints = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.numeric_size = int(self.offsets[len(self.numeric)])
        self._edges = [np.asarray(column.edges, dtype=np.float64) for column in self.numeric]
        self._known = frozenset((column.role, column.name) for column in self.columns)
        self._known_features = frozenset(column.name for column in self.columns if column.role is Role.FEATURE)
        self._lookups = [category_lookup(column) for column in self.categorical]
        # The bin of missing values is a column's last.
        self._missing_labels = [
            int(self.offsets[i + 1]) - 1 for i, column in enumerate(self.columns) if column.role is Role.LABEL
        ]

    @property
    def columns(self) -> tuple[NumericColumn | CategoricalColumn, ...]:
        """All columns, numeric ones first."""
        return (*self.numeric, *self.categorical)

    def zero(self) -> Counts:
        """The counts of no samples."""
        return Counts(
            bins=np.zeros(int(self.offsets[-1]), dtype=np.int64),
            sums=np.zeros(self.numeric_size, dtype=np.float64),
            squares=np.zeros(len(self.numeric), dtype=np.float64),
            invalid=np.zeros(len(self.columns), dtype=np.int64),
            unknown=0,
            rows=0,
        )

    def count(self, batches: Sequence[Batch], *, squares: bool = False) -> Counts:
        """Count samples into bins; `squares` too while a baseline is learned from them."""
        batches = _joined(batches)
        counts = self.zero()
        rows = sum(batch.size for batch in batches)
        bins, sums, invalid = counts.bins, counts.sums, counts.invalid
        work = _Workspace(rows)
        for i, (column, edges) in enumerate(zip(self.numeric, self._edges, strict=True)):
            begin, end = self.offsets[i], self.offsets[i + 1]
            invalid[i] = to_floats(_gather(batches, column.role, column.name), work.values)
            bins[begin:end], sums[begin:end] = count_numbers(work, edges, column.sum_limits)
            if squares:
                work.values -= column.mean
                work.values[work.index == len(edges) + 1] = 0.0  # missing
                counts.squares[i] = np.dot(work.values, work.values)
        for i, (categorical, lookup) in enumerate(zip(self.categorical, self._lookups, strict=True), len(self.numeric)):
            begin, end = self.offsets[i], self.offsets[i + 1]
            invalid[i] = _count_categories(batches, categorical, lookup, bins[begin:end])
        bins[self._missing_labels] = 0  # a label that does not come with its sample comes later, or not at all
        return msgspec.structs.replace(counts, unknown=self._unknown(batches), rows=rows)

    def _unknown(self, batches: Sequence[Batch]) -> int:
        """The number of values in columns that the baseline does not have."""
        unknown = 0
        for batch in batches:
            # the common case, all features known, is one comparison of sets
            if batch.features.keys() <= self._known_features and batch.prediction is None:
                continue
            for role, name, values in batch.columns():
                if role is not Role.LABEL and (role, name) not in self._known:
                    # None is how the other samples of the batch lack the column: no value
                    unknown += len(values) - values.count(None)
        return unknown


def in_order(baseline: Baseline, binner: Binner) -> list[NumericColumn | CategoricalColumn]:
    """The columns of a baseline in the order of a binner that has the same ones, if of another state of it."""
    columns = {(column.role, column.name): column for column in baseline.columns}
    return [columns[column.role, column.name] for column in binner.columns]


class _Workspace:
    """Arrays of one fold, made once and used for every column."""

    def __init__(self, rows: int) -> None:
        self.values: Floats = np.empty(rows, dtype=np.float64)
        self.index: NDArray[np.uint8] = np.empty(rows, dtype=np.uint8)
        self.mask: Bools = np.empty(rows, dtype=np.bool_)


def count_numbers(work: _Workspace, edges: Floats, limits: tuple[float, float]) -> tuple[Ints, Floats]:
    """Count numbers into the bins (edge, next edge], and add them up per bin.

    Args:
        work: `values` holds n numbers, NaN where one is missing; they are overwritten.
        edges: N+1 ascending edges, N > 0.
        limits: numbers enter the sums as if they lay within these, so that an infinity or a huge outlier cannot
            wipe out a mean for good.

    Returns:
        (N+3,) counts: below, N bins, above, missing; and (N+3,) sums.

    """
    x, index, mask = work.values, work.index, work.mask
    size = len(edges) + 2
    if len(x) < SEARCHSORTED_ROWS:
        index[:] = edges.searchsorted(x, side="left")
    else:
        # A comparison per edge has neither branches nor scatter: twice as fast as searchsorted, and exact.
        index[:] = 0
        added = mask.view(np.uint8)
        for edge in edges:
            np.greater(x, edge, out=mask)
            np.add(index, added, out=index)
    np.not_equal(x, x, out=mask)
    if mask.any():
        index[mask] = size - 1
        x[mask] = 0.0
    low, high = limits
    if len(x) and (np.minimum.reduce(x) < low or np.maximum.reduce(x) > high):
        np.clip(x, low, high, out=x)
        x[mask] = 0.0
    counts: Ints = np.bincount(index, minlength=size)
    return counts, np.bincount(index, weights=x, minlength=size).astype(np.float64, copy=False)


def floats_of(values: Values) -> Floats:
    """Values as an array of numbers, NaN where `to_floats` writes it."""
    floats = np.empty(len(values), np.float64)
    to_floats(values, floats)
    return floats


def to_floats(values: Values, out: Floats) -> int:
    """Write values as float64, NaN where one is missing or of the wrong type.

    Numbers and booleans are numbers; None is missing; all else is of the wrong type.

    Returns:
        How many were of the wrong type.

    """
    try:
        # the fast way for a column of numbers only: no None, no string
        struct.pack_into(f"{len(values)}d", out.data, 0, *values)
    except (struct.error, OverflowError):
        pass
    else:
        return 0
    try:
        # the same without those that are missing: a comparison by identity is cheaper than a look at the type
        struct.pack_into(f"{len(values)}d", out.data, 0, *[math.nan if value is None else value for value in values])
    except (struct.error, OverflowError):
        pass
    else:
        return 0
    invalid = 0
    if not set(map(type, values)) <= _NUMBER_TYPES:
        kept = [value if type(value) in _NUMBER_TYPES else _WRONG for value in values]
        invalid = kept.count(_WRONG)
        values = [None if value is _WRONG else value for value in kept]
    try:
        out[:] = np.array(values, dtype=np.float64)
    except OverflowError:
        # an integer beyond the range of a double
        out[:] = [math.nan if value is None else _as_float(value) for value in values]
    return invalid


_WRONG: Final = object()


def _as_float(value: object) -> float:
    assert isinstance(value, float | int)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _joined(batches: Iterable[Batch]) -> list[Batch]:
    """Runs of single samples with the same features as one batch each: a slice a column instead of many look-ups."""
    joined: list[Batch] = []
    run: list[Batch] = []
    names: tuple[str, ...] = ()
    for batch in batches:
        if batch.size == 1:
            own = tuple(batch.features)
            if own != names:
                joined += _as_one(run, names)
                run, names = [], own
            run.append(batch)
        else:
            joined.append(batch)
    return joined + _as_one(run, names)


def _as_one(run: list[Batch], names: tuple[str, ...]) -> list[Batch]:
    """Single samples with the same features, as one batch, if that is worth while."""
    if len(run) < 2 or not names:
        return run
    flat = [value for batch in run for (value,) in batch.features.values()]

    def column(role: Role, name: str) -> Values | None:
        values = [batch.values(role, name) for batch in run]
        return None if all(value is None for value in values) else [value[0] if value else None for value in values]

    return [
        Batch(
            size=len(run),
            features={name: flat[i :: len(names)] for i, name in enumerate(names)},
            prediction=column(Role.PREDICTION, PREDICTION_COLUMN),
            confidence=column(Role.PREDICTION, CONFIDENCE_COLUMN),
            label=column(Role.LABEL, LABEL_COLUMN),
        )
    ]


def _gather(batches: Iterable[Batch], role: Role, name: str) -> list[object]:
    """One column of several batches, None where a batch has no such column."""
    gathered: list[object] = []
    for batch in batches:
        values = batch.features.get(name) if role is Role.FEATURE else batch.values(role, name)
        gathered.extend((None,) * batch.size if values is None else values)
    return gathered


def category_lookup(column: CategoricalColumn) -> dict[str, int]:
    """Category to the index of its bin."""
    other = len(column.categories)
    lookup = dict.fromkeys(column.rare, other)
    lookup.update((category, i) for i, category in enumerate(column.categories))
    return lookup


def _count_categories(batches: Iterable[Batch], column: CategoricalColumn, lookup: dict[str, int], bins: Ints) -> int:
    """Count categories into `bins`, in place; returns how many values were of the wrong type."""
    values = _gather(batches, column.role, column.name)
    invalid = 0
    try:
        tally = Counter(values)
    except TypeError:  # something that cannot be hashed: an array or an object
        hashable = [value for value in values if not isinstance(value, list | dict)]
        invalid = len(values) - len(hashable)
        values = hashable
        tally = Counter(values)
    if not column.boolean and (0 in tally or 1 in tally) and bool in set(map(type, values)):
        # to a Counter True is 1 and False is 0, but as categories they differ
        tally = Counter([category_of(value) if isinstance(value, bool) else value for value in values])
    missing = len(bins) - 1
    # A baseline with more categories than it can list cannot tell a new one from a rare one.
    unlisted = len(column.categories) + (1 if column.complete else 0)
    bins[missing] += invalid
    for value, times in tally.items():
        category = category_of(value, boolean=column.boolean)
        if category is Missing.MISSING:
            bins[missing] += times
        elif category is Missing.INVALID:
            bins[missing] += times
            invalid += times
        else:
            bins[lookup.get(category, unlisted)] += times
    return invalid


def coarse_starts(binner: Binner) -> Ints:
    """Where, in the flat vector of fine bins, each exported bin begins.

    `np.add.reduceat(bins, coarse_starts(binner))` merges fine bins to exported ones.
    """
    return np.fromiter(
        (
            int(offset) + start
            for offset, column in zip(binner.offsets, binner.columns, strict=False)
            for start in _starts(column)
        ),
        dtype=np.int64,
    )


def alarm_starts(column: NumericColumn | CategoricalColumn) -> tuple[int, ...]:
    """Where, among the fine bins of a column, each bin of the drift alarm begins.

    They are the exported bins; of a categorical column the categories beyond the most frequent ones go with `other`,
    for each bin more costs the alarm some of its resolution.
    """
    starts = tuple(_starts(column))
    if isinstance(column, NumericColumn) or len(column.categories) <= ALARM_CATEGORIES:
        return starts
    return (*starts[: ALARM_CATEGORIES + 1], *starts[-2:])


def _starts(column: NumericColumn | CategoricalColumn) -> Iterator[int]:
    if isinstance(column, CategoricalColumn):
        yield from range(len(column.counts))
        return
    yield 0  # below
    for first, _ in pairwise(column.coarse):
        yield first + 1
    yield len(column.edges)  # above
    yield len(column.edges) + 1  # missing
