"""Columns of a batch to predictions that wait, the labels that came with them, and outcomes that need no join."""

from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from mlexporter.pending.records import Direct, Label, Prediction, json_value
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
    ids: Sequence[str | None] | None
    prediction: Values
    probabilities: Values | None
    label: Values | None
    taken: int = 0

    @staticmethod
    def of(model: str, version: str, batch: Batch, now: float) -> "Offer | None":
        """What a batch offers; None where no prediction of it has an id or a label."""
        if batch.prediction is None or (batch.ids is None and batch.label is None):
            return None
        columns = batch.ids, batch.prediction, batch.probabilities, batch.label
        return Offer(model, version, now, batch.size, batch.weight, *columns)

    def encode(
        self, begin: int, end: int, predictions: list[Prediction], labels: list[Label], direct: list[Direct]
    ) -> int:
        """Add some rows to predictions and labels, or those without an id to direct ones; how many cannot be written.

        Rows without a prediction, and those with neither an id nor a label, are passed over.
        """
        dropped = 0
        together: list[tuple[object, object]] = []
        for index in range(begin, end):
            try:
                dropped += not self._encode(index, predictions, labels, together)
            except Exception:  # noqa: BLE001 - whatever is wrong with a row, its neighbours are written
                dropped += 1
        if together:
            said, known = zip(*together, strict=True)
            direct.append(Direct(self.model, self.version, said, known, self.time))
        return dropped

    def _encode(
        self, index: int, predictions: list[Prediction], labels: list[Label], together: list[tuple[object, object]]
    ) -> bool:
        name = self.ids[index] if self.ids is not None else None
        value = self.probabilities[index] if self.probabilities is not None else None
        if value is None:
            value = self.prediction[index]
        label = self.label[index] if self.label is not None else None
        labelled = type(label) in _LABEL_TYPES and label == label  # NaN is no label
        if type(value) not in _PREDICTION_TYPES:
            return True
        if not name:
            if labelled:
                together.append((value, label))
            return True
        if len(name) > ID_LENGTH:
            return False
        encoded = orjson.dumps(value)
        if encoded == _NULL:
            return True
        predictions.append(Prediction(self.model, self.version, name, self.time, encoded))
        if labelled and (encoded := json_value(label)) != _NULL:
            labels.append(Label(self.model, self.version, name, self.time, encoded))
        return True


_NULL: Final = b"null"
"""What becomes of a number that is none, or infinite."""
