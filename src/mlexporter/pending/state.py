"""What memory holds of predictions that wait, but for the labels of rows: what a transaction changes a copy of."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.pending.blocks import Block
from mlexporter.pending.hashing import Hashes
from mlexporter.pending.records import VersionKey

EVER: Final = -(2**62)
"""A time before all others, in microseconds."""


class Version(msgspec.Struct, frozen=True):
    """Rows of one version.

    Attributes:
        number: of it in the tables.
        blocks: one after another.
        first, before: rows with lower numbers, and from earlier times in microseconds, are given up.

    """

    number: int
    blocks: tuple[Block, ...] = ()
    first: int = 0
    before: int = EVER

    @property
    def end(self) -> int:
        """Number of the next row."""
        return self.blocks[-1].end if self.blocks else self.first


class State(msgspec.Struct):
    """What is in memory, but for the labels of rows.

    Attributes:
        versions: that ever had a prediction.
        waiting, labelled: rows without and with a label, by version.
        labels: that wait, by model.
        told_entries, told_rows: how labels of rows are written.

    """

    versions: dict[VersionKey, Version] = {}
    waiting: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labelled: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labels: Counter[str] = msgspec.field(default_factory=Counter)
    told_entries: int = 0
    told_rows: int = 0

    @property
    def rows(self) -> int:
        """Predictions, with and without a label."""
        return self.waiting.total() + self.labelled.total()

    def copy(self) -> "State":
        """One that can be changed."""
        return State(
            dict(self.versions),
            self.waiting.copy(),
            self.labelled.copy(),
            self.labels.copy(),
            self.told_entries,
            self.told_rows,
        )


class Added(msgspec.Struct):
    """What an insertion did.

    Attributes:
        tracked: rows that were added, by version.
        ids: of added rows that may be known otherwise, in parts, by model.
        firsts: numbers of the first rows that were added, by version.
        orders: tells when among all each of them came, by version.

    """

    tracked: dict[VersionKey, int] = {}
    ids: dict[str, list[Hashes]] = {}
    firsts: dict[VersionKey, int] = {}
    orders: dict[VersionKey, Callable[[], NDArray[np.int64]]] = {}
