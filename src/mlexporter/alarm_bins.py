"""The bins of the drift alarm: the 13 exported ones of a numeric column, at most 23 of a categorical one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlexporter.baseline import CategoricalColumn, NumericColumn
from mlexporter.binning import Binner, alarm_starts
from mlexporter.dictionary import Layout, upper_rate
from mlexporter.edges import Floats, Ints

RATES = ("missing", "strange")
"""The two rates of a column that the alarm watches: missing values; and those out of range, or new categories."""


class AlarmBins:
    """Where a binner's fine bins go in the alarm. C columns, T bins, in the order of the binner.

    Attributes:
        layout: of the bins.

    """

    def __init__(self, binner: Binner) -> None:
        starts = [alarm_starts(column) for column in binner.columns]
        sizes = [len(own) for own in starts]
        self.layout = Layout(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), len(binner.numeric))
        self._starts: Ints = np.array(
            [int(offset) + start for offset, own in zip(binner.offsets, starts, strict=False) for start in own],
            dtype=np.int64,
        )
        self._ends: Ints = binner.offsets[1:]
        ends = self.layout.offsets[1:]
        self._missing = ends - 1
        # out of range is two bins; new categories are one, and lie in `other` where the baseline cannot tell them apart
        strange = [
            (int(end) - size, int(end) - 2)
            if isinstance(column, NumericColumn)
            else (int(end) - (2 if column.complete else 3), int(ends[-1]))
            for column, size, end in zip(binner.columns, sizes, ends, strict=True)
        ]
        self._strange = np.array(strange, dtype=np.int64).reshape(-1, 2)
        self._beyond_range = np.arange(len(sizes)) < len(binner.numeric)
        complete = [
            (int(end) - 2, column.singletons)
            for column, end in zip(binner.columns, ends, strict=True)
            if isinstance(column, CategoricalColumn) and column.complete
        ]
        self._new = np.array([index for index, _ in complete], dtype=np.int64)
        self._singletons = np.array([count for _, count in complete], dtype=np.float64)
        self._new_columns = np.searchsorted(ends, self._new, side="right")

    def counts(self, fine: NDArray[Any]) -> Floats:
        """(T,) counts from the flat fine bins of the binner."""
        return np.add.reduceat(fine, self._starts).astype(np.float64) if len(self._starts) else np.empty(0)

    def merged(self, fine: NDArray[Any], column: int) -> Floats:
        """Fine numbers of one column, in the bins of the alarm.

        The flat vector may end with the numeric columns, as that of sums does, if the column is one of them.
        """
        begin, end = self.layout.offsets[column], self.layout.offsets[column + 1]
        return np.add.reduceat(fine[: self._ends[column]], self._starts[begin:end]).astype(np.float64)

    def rates(self, counts: Floats) -> Floats:
        """(..., C, 2) counts of missing and of strange values, from (..., T) counts."""
        padded = np.concatenate([counts, np.zeros((*counts.shape[:-1], 1))], axis=-1)
        return np.stack([padded[..., self._missing], padded[..., self._strange].sum(axis=-1)], axis=-1)

    def upper_rates(self, counts: Floats) -> Floats:
        """(C, 2) 99.9 % upper confidence bounds of the two rates, from (T,) baseline counts."""
        rates, rows = self.rates(counts), self.layout.totals(counts)
        strange = np.where(
            self._beyond_range,
            upper_rate(rates[:, 1], rows, beyond_range=True),
            upper_rate(rates[:, 1], rows),
        )
        return np.stack([upper_rate(rates[:, 0], rows), strange], axis=-1)

    def expected(self, counts: Floats, rows: Floats) -> Floats:
        """Baseline counts as they would be if each row were counted with itself left out.

        A category with a single row would be new then. So a column of many rare categories is expected to meet new
        ones, and how often: Good, "The population frequencies of species", Biometrika 40 (1953).

        Args:
            counts: (T,) of the baseline, or of a part of its rows.
            rows: (C,) of the baseline as a whole.

        """
        expected = counts.copy()
        part = self.layout.totals(counts)[self._new_columns] / np.maximum(rows[self._new_columns], 1.0)
        singletons = self._singletons * part
        expected[self._new] += singletons
        expected[self._new - 1] = np.maximum(expected[self._new - 1] - singletons, 0.0)
        return expected
