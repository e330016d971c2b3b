"""Predictions as they come, sorted by version into columns."""

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mlexporter.pending.blocks import Values, label_number, together
from mlexporter.pending.family import MICROSECONDS
from mlexporter.pending.hashing import Hashes, Ids, hashes_of
from mlexporter.pending.records import Arrivals, Prediction, Predictions, VersionKey

Places = NDArray[np.int64]


class Column:
    """Predictions of one version, in the order of arrival."""

    def __init__(self) -> None:
        self._ids: list[str] = []  # of those that came one by one
        self._hashes: list[Hashes] = []
        self._parts: list[Values] = []
        self._single: list[bytes] = []  # and what was predicted, to become a part
        self._times: list[float] = []
        self._sizes: list[int] = []  # of runs of the same time
        self._begins: list[int] = []
        self._lengths: list[int] = []  # of what came together
        self._chosen: Places | None = None

    def add(self, row: Prediction, begin: int) -> None:
        """Add one row, before which so many came."""
        self._ids.append(row.id)
        self._single.append(row.value)
        self._times.append(row.time)
        self._sizes.append(1)
        self._begins.append(begin)
        self._lengths.append(1)

    def extend(self, part: Predictions, begin: int) -> None:
        """Add rows, before which so many came."""
        self._flush()
        self._hashes.append(hashes_of(part.ids))
        self._parts.append(part.values)
        self._times += part.times
        self._sizes += part.sizes
        self._begins.append(begin)
        self._lengths.append(len(part.values))

    def rows(self, chosen: Places) -> "Column":
        """Some of the rows."""
        self._chosen = chosen
        return self

    def hashes(self) -> Hashes:
        """Of the ids of all rows."""
        self._flush()
        return np.concatenate(self._hashes)

    def values(self) -> Values:
        """Of the rows."""
        self._flush()
        values = together(self._parts)
        if self._chosen is None:
            return values
        return values[self._chosen] if isinstance(values, np.ndarray) else [values[i] for i in self._chosen.tolist()]

    def order(self) -> Places:
        """How many predictions of any version came before each row."""
        sizes = np.array(self._lengths)
        shift = np.array(self._begins) - (np.cumsum(sizes) - sizes)
        order: Places = np.repeat(shift, sizes) + np.arange(sizes.sum())
        return order if self._chosen is None else order[self._chosen]

    def runs(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Rows from which on another time holds, and these, in microseconds."""
        sizes, times = np.array(self._sizes), np.rint(np.array(self._times) * MICROSECONDS).astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        if self._chosen is not None:
            times = np.repeat(times, sizes)[self._chosen]
            starts = np.arange(len(times))
        changed = np.append(True, times[1:] != times[:-1])
        return starts[changed].astype(np.uint32), times[changed]

    def _flush(self) -> None:
        if self._single:
            self._parts.append(_numbers(self._single))
            self._hashes.append(hashes_of(Ids.of(self._ids)))
            self._single, self._ids = [], []


def columns_of(predictions: Arrivals) -> dict[VersionKey, Column]:
    """Predictions by version."""
    columns: dict[VersionKey, Column] = {}
    begin = 0
    for each in predictions:
        key = each.model, each.version
        column = columns.get(key) or columns.setdefault(key, Column())
        if isinstance(each, Prediction):
            column.add(each, begin)
            begin += 1
        else:
            column.extend(each, begin)
            begin += len(each.values)
    return columns


def _numbers(values: Sequence[bytes]) -> Values:
    """JSON as numbers, where all are such that come back as they were."""
    numbers = [*map(label_number, values)]
    return values if None in numbers else np.fromiter(cast(Iterable[float], numbers), np.float64, len(values))
