"""The usual predictions, numbers with an id, as columns: no row of them is an object of its own.

Objects that outlive their request stand between those of the next ones: they spread over memory, and decoding takes up
to twice as long.
"""

import math
from array import array
from collections.abc import Sequence
from typing import Final, cast

import numpy as np

from mlexporter.pending.hashing import Ids
from mlexporter.pending.records import Predictions
from mlexporter.samples import Batch

ID_LENGTH: Final = 256
"""Longer ids are dropped."""

_SEPARATOR: Final = "\0"
_NUMBERS: Final = frozenset({int, float})

Packed = tuple[bytes, "array[float]"]
"""Ids, each with a zero at its end, and predictions."""


def packed(batch: Batch) -> Packed | None:
    """The ids and predictions of a batch; None unless all are ids and finite numbers, without labels."""
    if batch.label is not None or batch.probabilities is not None or not batch.ids or batch.prediction is None:
        return None
    ids, values = cast(Sequence[str], batch.ids), cast(Sequence[float], batch.prediction)
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS or (int in kinds and any(type(value) is int and abs(value) >= 2**53 for value in values)):
        return None  # others do not come back as they were from floats
    if not math.isfinite(sum(values)):
        return None
    try:
        text = _SEPARATOR.join(ids)
    except TypeError:  # one is missing
        return None
    if text.count(_SEPARATOR) != len(ids) - 1 or not all(ids) or max(map(len, ids)) > ID_LENGTH:
        return None
    return text.encode("utf-8", "surrogatepass") + b"\0", array("d", values)


class Run:
    """Predictions of one version that came one after another.

    Args:
        model, version: that predicted.

    """

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self._ids = bytearray()
        self._values: array[float] = array("d")
        self._times: array[float] = array("d")
        self._sizes: array[int] = array("q")

    def __len__(self) -> int:
        """Rows."""
        return len(self._values)

    @property
    def weight(self) -> int:
        """Bytes that it takes."""
        return len(self._ids) + 8 * len(self._values) + 16 * len(self._times)

    def add(self, rows: Packed, time: float) -> None:
        """Add what came at a Unix time."""
        ids, values = rows
        self._ids += ids
        self._values += values
        self._times.append(time)
        self._sizes.append(len(values))

    def predictions(self) -> Predictions:
        """All of it; nothing can be added any more."""
        ids, values = Ids.split(self._ids), np.frombuffer(self._values, np.float64)
        return Predictions(self.model, self.version, ids, values, self._times, self._sizes)
