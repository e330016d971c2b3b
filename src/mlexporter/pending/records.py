"""What is joined, and what comes of it.

Predictions and labels travel as JSON values, so that a file outlives a restart. Nothing here knows tasks or baselines:
what a prediction means is for whoever counts the matches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Final, Protocol

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from mlexporter.pending.hashing import Ids

EARLY_LABEL_SECONDS: Final = 3600
"""A label waits for its prediction for at most this long, or for the horizon where that is shorter."""

VersionKey = tuple[str, str]
"""Names of a model and a version of it."""


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One that waits for its label.

    Attributes:
        model, version, id: by which its label finds it.
        time: Unix time at which it came.
        value: JSON of a number, a class, or an object of class to probability.

    """

    model: str
    version: str
    id: str
    time: float
    value: bytes


class Predictions(msgspec.Struct, frozen=True, eq=False):
    """Predictions of one version, column by column, in the order in which they came.

    Attributes:
        model, version: that predicted.
        ids: by which their labels find them.
        values: one for each id: finite numbers, where all of them are; else as JSON.
        times: Unix times at which they came, for runs of them.
        sizes: how many came at each time.

    """

    model: str
    version: str
    ids: Ids
    values: NDArray[np.float64] | Sequence[bytes]
    times: Sequence[float]
    sizes: Sequence[int]

    def rows(self) -> Iterator[Prediction]:
        """One by one."""
        values = map(json_value, self.values.tolist()) if isinstance(self.values, np.ndarray) else self.values
        times = chain.from_iterable(map(repeat, self.times, self.sizes))
        for name, value, time in zip(self.ids.names(), values, times, strict=True):
            yield Prediction(self.model, self.version, name, time, value)


Arrival = Prediction | Predictions
Arrivals = Sequence[Arrival]
"""Predictions in the order in which they came, one by one or in columns."""


class Label(msgspec.Struct, frozen=True, gc=False):
    """A true label.

    Attributes:
        model, id: of the prediction.
        version: of the model; None for that of every version which has predicted this id, or will.
        time: Unix time at which it came.
        value: JSON of a number, a text or a boolean.

    """

    model: str
    version: str | None
    id: str
    time: float
    value: bytes


class Match(msgspec.Struct, frozen=True, gc=False):
    """A prediction whose label is known now, or whose label was corrected.

    Attributes:
        model, version: of the prediction.
        prediction, label: as JSON.
        delay: seconds from prediction to label, at least 0.
        time: Unix time of the label.
        replaced: the label that was counted before and its Unix time; None at the first one.

    """

    model: str
    version: str
    prediction: bytes
    label: bytes
    delay: float
    time: float
    replaced: tuple[bytes, float] | None = None


class Direct(msgspec.Struct, frozen=True):
    """Predictions that came together with their labels and without an id: nothing waits, nothing is joined.

    `predictions` are numbers, classes, or objects of class to probability; `time` is when they came.
    """

    model: str
    version: str
    predictions: Sequence[object]
    labels: Sequence[object]
    time: float


class Pair(msgspec.Struct, frozen=True):
    """Predictions of two versions for the same id.

    Each pair is told once when both predictions are there (`label` is None), and once when both predictions and a
    label are there, whichever of the two versions it was given for. Corrections of a label do not tell it again.
    """

    model: str
    versions: tuple[str, str]
    predictions: tuple[bytes, bytes]
    label: bytes | None


class Joined(msgspec.Struct, frozen=True):
    """What came of one application of predictions and labels.

    Attributes:
        tracked: predictions that are waiting now, or were at once joined; not those whose id was there already.
        matches, pairs: in no particular order.
        repeated: labels, by version, that said again what was known.

    """

    tracked: Mapping[VersionKey, int] = {}
    matches: Sequence[Match] = ()
    pairs: Sequence[Pair] = ()
    repeated: Mapping[VersionKey, int] = {}


class Lost(msgspec.Struct, frozen=True):
    """What was given up: beyond its time (`horizon`), or the oldest ones beyond the limit on rows (`limit`).

    Predictions with a label are given up in the same order as those without one, and are not told here.

    Attributes:
        predictions: without a label, by model, version and reason.
        labels: without a prediction, by model and reason.

    """

    predictions: Mapping[tuple[str, str, str], int] = {}
    labels: Mapping[tuple[str, str], int] = {}


class Waiting(msgspec.Struct, frozen=True):
    """How many predictions wait for their label, by version, and labels for their prediction, by model."""

    predictions: Mapping[VersionKey, int] = {}
    labels: Mapping[str, int] = {}


Totals = Mapping[str, bytes]
"""What the counter of matches wants to be kept, by a key of its own; written together with what it was counted from."""


def json_value(label: object) -> bytes:
    """A label as JSON: the same for values that are the same, such as 1 and 1.0.

    >>> json_value(1.0), json_value("yes"), json_value(True)
    (b'1', b'"yes"', b'true')
    """
    if isinstance(label, float) and label.is_integer() and abs(label) < 2**53:
        label = int(label)
    return orjson.dumps(label)


def single(predictions: Arrivals) -> Iterator[Prediction]:
    """Predictions one by one."""
    for each in predictions:
        if isinstance(each, Predictions):
            yield from each.rows()
        else:
            yield each


def row_count(predictions: Arrivals) -> int:
    """How many predictions these are."""
    return sum(len(each.values) if isinstance(each, Predictions) else 1 for each in predictions)


class StoreError(Exception):
    """The store of pending predictions cannot be used now; nothing of the call was done. It is worth a retry."""


class PendingStore(Protocol):
    """Where predictions wait. Called from one thread at a time."""

    def apply(self, predictions: Arrivals, labels: Sequence[Label], totals: Callable[[Joined], Totals]) -> Joined:
        """Add predictions and labels, join them, and keep what `totals` makes of it: all of it, or nothing.

        Of a prediction's id in one version the first prediction stands. A label that says what is known changes
        nothing; one that says otherwise is a correction, as long as its prediction is kept. A label without a
        prediction waits for it.

        Raises:
            StoreError: nothing was done.

        """

    def forget(self, now: float) -> Lost:
        """Give up what has waited for too long, and the oldest ones beyond the limit.

        Raises:
            StoreError: nothing was done.

        """

    def waiting(self) -> Waiting:
        """What waits. Raises StoreError."""

    def totals(self) -> Totals:
        """What was kept last, also by a process before this one. Raises StoreError."""

    def close(self) -> None:
        """Let go of files and connections."""
