"""Columns of a batch to predictions that wait, and the labels that came with them."""

from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from mlexporter.pending.records import Label, Prediction
from mlexporter.samples import Batch, Values

ID_LENGTH: Final = 256
"""Longer ids are dropped."""

_PREDICTION_TYPES: Final = frozenset({int, float, str, bool, dict})
_LABEL_TYPES: Final = frozenset({int, float, str, bool})


class Offer(msgspec.Struct, eq=False):
    """What of a batch may wait for labels, column by column; its features are not held on to.

    Attributes:
        model, version: that predicted.
        time: Unix time at which it came.
        size: rows; those without an id or a prediction among them.
        weight: bytes it was decoded from.
        ids, prediction, probabilities, label: as in `Batch`.
        taken: rows, from the first one, that were encoded.

    """

    model: str
    version: str
    time: float
    size: int
    weight: int
    ids: Sequence[str | None]
    prediction: Values
    probabilities: Values | None
    label: Values | None
    taken: int = 0

    @staticmethod
    def of(model: str, version: str, batch: Batch, now: float) -> "Offer | None":
        """What a batch offers; None where no prediction of it has an id."""
        if batch.ids is None or batch.prediction is None:
            return None
        columns = batch.ids, batch.prediction, batch.probabilities, batch.label
        return Offer(model, version, now, batch.size, batch.weight, *columns)

    def encode(self, begin: int, end: int, predictions: list[Prediction], labels: list[Label]) -> int:
        """Add some rows to predictions and labels; how many rows cannot be written.

        Rows without an id or a prediction are passed over.
        """
        dropped = 0
        for index in range(begin, end):
            try:
                dropped += not self._encode(index, predictions, labels)
            except Exception:  # noqa: BLE001 - whatever is wrong with a row, its neighbours are written
                dropped += 1
        return dropped

    def _encode(self, index: int, predictions: list[Prediction], labels: list[Label]) -> bool:
        name = self.ids[index]
        value = self.probabilities[index] if self.probabilities is not None else None
        if value is None:
            value = self.prediction[index]
        if name is None or type(value) not in _PREDICTION_TYPES:
            return True
        if len(name) > ID_LENGTH:
            return False
        encoded = orjson.dumps(value)
        if encoded == _NULL:
            return True
        predictions.append(Prediction(self.model, self.version, name, self.time, encoded))
        label = self.label[index] if self.label is not None else None
        if type(label) in _LABEL_TYPES:
            encoded = orjson.dumps(label)
            if encoded != _NULL:
                labels.append(Label(self.model, self.version, name, self.time, encoded))
        return True


_NULL: Final = b"null"
"""What becomes of a number that is none, or infinite."""
