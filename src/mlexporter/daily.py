"""The third pass over a data file with a time column: its rows by day and hour, in the bins of the drift alarm."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np

from mlexporter.baseline import Baseline, CategoricalColumn, NumericColumn
from mlexporter.binning import Binner, alarm_starts, category_lookup, to_floats
from mlexporter.categories import Missing, category_of
from mlexporter.config import ColumnConfig
from mlexporter.dataset import Cells, Chunk, Dataset
from mlexporter.dataset.source import Progress
from mlexporter.diary import QUARTER, Diary
from mlexporter.drift import MIN_ROWS
from mlexporter.edges import Floats, Ints
from mlexporter.history import MIN_DAYS, HistoryError

# Numbers of a block of counts, which bounds the memory where every row is in a quarter of an hour of its own.
_BLOCK: Final = 1 << 22


def learn_days(
    dataset: Dataset,
    baseline: Baseline,
    settings: Mapping[str, ColumnConfig],
    timezone: str,
    progress: Progress | None = None,
) -> Baseline:
    """The baseline of a data file, with the seasons and tolerances that the times of its rows tell.

    Args:
        dataset: the rows, with times.
        baseline: that was built from them.
        settings: what the configuration says of columns.
        timezone: of those of which it says none.
        progress: called with the units of work done since the call before.

    Raises:
        DatasetError: the data are broken, or have more days than are kept.

    """
    daily = _Daily(baseline, settings, timezone)
    types = {name: column.type for name, column in settings.items()}
    rows = 0
    try:
        for chunk in dataset.chunks(types, progress):
            daily.add(chunk)
            rows += chunk.rows
    except HistoryError as error:
        raise dataset.error(str(error)) from error
    if rows != baseline.rows:
        raise dataset.changed()
    if daily.untimed:
        dataset.warn(f"{daily.untimed:,} rows have no time; they are in the baseline, and in no hour or day of it")
    if daily.diary.days < MIN_DAYS:
        dataset.warn(
            f"days with {MIN_ROWS} rows or more: {daily.diary.days}; a season and a tolerance are learned from "
            f"{MIN_DAYS} of them or more"
        )
    return daily.diary.learn(baseline)


class _Daily:
    """Counts chunks of a data file by quarters of an hour.

    Args:
        baseline: whose bins are counted.
        settings: what the configuration says of columns.
        timezone: of those of which it says none.

    Attributes:
        diary: what was counted.
        untimed: rows without a time, which are left out.

    """

    def __init__(self, baseline: Baseline, settings: Mapping[str, ColumnConfig], timezone: str) -> None:
        binner = Binner(baseline)
        self.diary = Diary(binner, settings, timezone)
        self.untimed = 0
        self._columns = [_column(column) for column in binner.columns]
        self._offsets = self.diary.bins.layout.offsets

    def add(self, chunk: Chunk) -> None:
        """Count a chunk, whose times are known.

        Raises:
            HistoryError: too many days.

        """
        assert chunk.times is not None
        known = np.isfinite(chunk.times)
        self.untimed += chunk.rows - int(known.sum())
        quarters, group = np.unique(chunk.times[known] // QUARTER, return_inverse=True)
        bins = [column.bins(chunk)[known] for column in self._columns]
        most = max(_BLOCK // max(int(self._offsets[-1]), 1), 1)
        for first in range(0, len(quarters), most):
            part = quarters[first : first + most].astype(np.int64)
            here = (group >= first) & (group < first + len(part))
            counts = np.zeros((len(part), int(self._offsets[-1])))
            for (begin, end), own in zip(pairwise(self._offsets.tolist()), bins, strict=True):
                size = end - begin
                cells = (group[here] - first) * size + own[here]
                counts[:, begin:end] = np.bincount(cells, minlength=len(part) * size).reshape(-1, size)
            self.diary.add(part, counts)


def _column(column: NumericColumn | CategoricalColumn) -> "_Numbers | _Categories":
    return _Numbers(column) if isinstance(column, NumericColumn) else _Categories(column)


class _Numbers:
    """Numbers to the alarm's bins."""

    def __init__(self, column: NumericColumn) -> None:
        self._key = column.role, column.name
        self._edges: Floats = np.array([column.edges[i] for i in column.coarse])

    def bins(self, chunk: Chunk) -> Ints:
        """(rows,) bins."""
        cells = chunk.columns.get(self._key)
        missing = len(self._edges) + 1
        if cells is None:
            return np.full(chunk.rows, missing, dtype=np.int64)
        if isinstance(cells, np.ndarray):
            values = cells
        else:
            values = np.empty(len(cells))
            to_floats(cells, values)
        index: Ints = np.searchsorted(self._edges, values, side="left")
        return np.where(np.isnan(values), missing, index)


class _Categories:
    """Categories to the alarm's bins."""

    def __init__(self, column: CategoricalColumn) -> None:
        self._key = column.role, column.name
        self._boolean = column.boolean
        starts = np.array(alarm_starts(column))
        alarm: Ints = np.searchsorted(starts, np.arange(len(column.counts)), side="right") - 1
        self._bins: dict[str | Missing, int] = {
            category: int(alarm[fine]) for category, fine in category_lookup(column).items()
        }
        self._missing = len(starts) - 1
        self._unlisted = int(alarm[len(column.categories)])

    def bins(self, chunk: Chunk) -> Ints:
        """(rows,) bins."""
        cells = chunk.columns.get(self._key)
        if cells is None:
            return np.full(chunk.rows, self._missing, dtype=np.int64)
        # True and 1 are one key, so each is looked up with its type
        known: dict[tuple[type, object], int] = {}
        index = np.empty(chunk.rows, dtype=np.int64)
        for row, value in enumerate(_objects(cells)):
            key = type(value), value
            found = known.get(key)
            if found is None:
                found = known[key] = self._bin(value)
            index[row] = found
        return index

    def _bin(self, value: object) -> int:
        category = category_of(value, boolean=self._boolean)
        if isinstance(category, Missing):
            return self._missing
        return self._bins.get(category, self._unlisted)


def _objects(cells: Cells) -> list[object]:
    return cells.tolist() if isinstance(cells, np.ndarray) else cells
