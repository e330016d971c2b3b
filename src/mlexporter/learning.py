"""Learning a baseline from a model's own traffic, for models whose training data nobody has."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from mlexporter.baseline import Baseline, Column, NumericColumn, sealed
from mlexporter.binning import Binner, Counts
from mlexporter.categories import Missing, category_of
from mlexporter.columns import ColumnType, learn_column
from mlexporter.samples import Batch, Role
from mlexporter.statistics import Reference

# A column with a longer name is not learned, for its name is in every line of the page that tells of it.
LONGEST_NAME: Final = 256


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
    """A learned reference and what was counted since, squares included.

    Standard deviations of `start` are from the mean that its column had when the bins were fixed.
    """
    bins = start.bins + since.bins
    sums = start.sums + since.sums
    stddevs = start.stddevs.copy()
    for i, column in enumerate(binner.numeric):
        begin, end = int(binner.offsets[i]), int(binner.offsets[i + 1]) - 1
        before, now = int(start.bins[begin:end].sum()), int(bins[begin:end].sum())
        if now:
            # distances were summed from the mean at the start: shift them to the mean of all
            shift = float(sums[begin:end].sum()) / now - column.mean
            squares = before * float(start.stddevs[i]) ** 2 + float(since.squares[i])
            stddevs[i] = math.sqrt(max(squares / now - shift * shift, 0.0))
    return Reference(bins=bins, sums=sums, stddevs=stddevs, rows=start.rows + since.rows)


def absorbed(binner: Binner, start: Reference, since: Counts) -> Reference:
    """The same, to go on with: `extended` by what comes after it, it is what all of it together would give."""
    whole = extended(binner, start, since)
    means = [column.mean for column in binner.numeric]
    spans = [slice(int(a), int(b) - 1) for a, b in pairwise(binner.offsets[: len(means) + 1])]
    rows = np.array([whole.bins[span].sum() for span in spans], dtype=np.float64)
    sums = np.array([whole.sums[span].sum() for span in spans])
    shifts = np.where(rows > 0, sums / np.maximum(rows, 1.0) - means, 0.0)
    return msgspec.structs.replace(whole, stddevs=np.hypot(whole.stddevs, shifts))
