"""The usual predictions, numbers with an id, as columns: no row of them is an object of its own.

Objects that outlive their request stand between those of the next ones: they spread over memory, and decoding takes up
to twice as long.
"""

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Final, cast

import msgspec
import numpy as np

from mlexporter.pending.hashing import Ids
from mlexporter.pending.records import Predictions
from mlexporter.samples import Batch

ID_LENGTH: Final = 256
"""Longer ids are dropped."""

_NUMBERS: Final = frozenset({int, float})

Came = tuple[Batch, float]
"""A batch, and the Unix time at which it came."""


class Packed(msgspec.Struct, frozen=True, gc=False):
    """Predictions of some batches.

    Attributes:
        ids: each with a zero at its end.
        values: as floats of 8 bytes.
        times, sizes: when each batch came, and its rows.

    """

    ids: bytes
    values: bytes
    times: Sequence[float]
    sizes: Sequence[int]

    def __len__(self) -> int:
        """Rows."""
        return len(self.values) // 8

    @property
    def weight(self) -> int:
        """Bytes that it takes."""
        return len(self.ids) + len(self.values) + 16 * len(self.times)


def packed(batches: Sequence[Came]) -> Packed | None:
    """The ids and predictions of batches; None unless all are ids and finite numbers, without labels."""
    ids: list[str] = []
    values: list[float] = []
    for batch, _ in batches:
        if batch.label is not None or batch.probabilities is not None or not batch.ids or batch.prediction is None:
            return None
        ids += cast(Sequence[str], batch.ids)
        values += cast(Sequence[float], batch.prediction)
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS or (int in kinds and any(type(value) is int and abs(value) >= 2**53 for value in values)):
        return None  # others do not come back as they were from floats
    if not math.isfinite(sum(values)):
        return None
    try:
        text = "\0".join(ids)
    except TypeError:  # one is missing
        return None
    if text.count("\0") != len(ids) - 1 or not all(ids):
        return None
    content = b"%b\0" % text.encode("utf-8", "surrogatepass")
    sizes, times = [batch.size for batch, _ in batches], [time for _, time in batches]
    return Packed(content, struct.pack(f"{len(values)}d", *values), times, sizes)


class Run:
    """Predictions of one version that came one after another.

    Args:
        model, version: that predicted.

    Attributes:
        weight: bytes that it takes.

    """

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.weight = 0
        self._ids = bytearray()
        self._values = bytearray()
        self._times: array[float] = array("d")
        self._sizes: array[int] = array("q")

    def __len__(self) -> int:
        """Rows."""
        return len(self._values) // 8

    def add(self, rows: Packed) -> None:
        """Add what came."""
        self._ids += rows.ids
        self._values += rows.values
        self._times.extend(rows.times)
        self._sizes.extend(rows.sizes)
        self.weight += rows.weight

    def predictions(self) -> Predictions:
        """All of it but what has too long an id; nothing can be added any more."""
        ids, values = Ids.split(self._ids), np.frombuffer(self._values, np.float64)
        times, sizes = self._times, self._sizes
        if int(ids.lengths.max()) > ID_LENGTH:
            short = np.array([len(name) <= ID_LENGTH for name in ids.names()])  # in characters
            kept = np.add.reduceat(short, np.cumsum(sizes, dtype=np.int64) - np.array(sizes), dtype=np.int64)
            ids, values = Ids(ids.content, ids.starts[short], ids.lengths[short]), values[short]
            times, sizes = array("d", np.array(times)[kept > 0]), array("q", kept[kept > 0])
        return Predictions(self.model, self.version, ids, values, times, sizes)
