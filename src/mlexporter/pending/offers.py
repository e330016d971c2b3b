"""Columns of a batch to predictions that wait, the labels that came with them, and outcomes that need no join."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, cast

import msgspec
import orjson

from mlexporter.pending.blocks import numbers_of
from mlexporter.pending.hashing import Ids
from mlexporter.pending.records import Arrival, Direct, Label, Predictions, json_value
from mlexporter.pending.runs import ID_LENGTH
from mlexporter.samples import Batch, Values

VALUE_LENGTH: Final = 16_384
"""Predictions and labels of more bytes of JSON are dropped: the store is bounded in rows, and so are its bytes."""

_PREDICTION_TYPES: Final = frozenset({int, float, str, bool, dict})
# what is written without a comma
_PLAIN_TYPES: Final = frozenset({int, float, bool, type(None)})
_LABEL_TYPES: Final = frozenset({int, float, str, bool})
_NOTHING: Final = b"null"
"""Also what becomes of a number that is none, or infinite."""


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
        self, begin: int, end: int, predictions: list[Arrival], labels: list[Label], direct: list[Direct]
    ) -> int:
        """Add some rows to predictions and labels, or those without an id to direct ones; how many cannot be written.

        Rows without a prediction, and those with neither an id nor a label, are passed over.
        """
        values = self.prediction[begin:end]
        if self.probabilities is not None:
            objects = self.probabilities[begin:end]
            values = [value if given is None else given for value, given in zip(values, objects, strict=True)]
        dropped = 0
        waiting: list[int] = []
        together: list[tuple[object, object]] = []
        ids = self.ids[begin:end] if self.ids is not None else (None,) * (end - begin)
        encoded = _encoded(values)
        for index, (name, value) in enumerate(zip(ids, encoded, strict=True)):
            if value == _NOTHING:
                continue
            if not name:
                together.extend(self._together(begin + index, values[index]))
            elif value is None or len(name) > ID_LENGTH or len(value) > VALUE_LENGTH:
                dropped += 1
            else:
                waiting.append(index)
                labels.extend(self._label(begin + index, name))
        if waiting:
            names = [cast(str, ids[index]) for index in waiting]
            numbers = numbers_of([values[index] for index in waiting])
            column = [cast(bytes, encoded[index]) for index in waiting] if numbers is None else numbers
            predictions.append(Predictions(self.model, self.version, Ids.of(names), column, [self.time], [len(names)]))
        if together:
            said, known = zip(*together, strict=True)
            direct.append(Direct(self.model, self.version, said, known, self.time))
        return dropped

    def _together(self, index: int, value: object) -> Iterator[tuple[object, object]]:
        """A prediction without an id and its label, where it has one."""
        given = self.label[index] if self.label is not None else None
        if type(given) in _LABEL_TYPES and given == given:  # NaN is none
            yield value, given

    def _label(self, index: int, name: str) -> Iterator[Label]:
        """The label of a row, where it has one."""
        given = self.label[index] if self.label is not None else None
        if type(given) in _LABEL_TYPES:
            with suppress(orjson.JSONEncodeError):  # an integer of more than 64 bits, say
                value = json_value(given)
                if len(value) > VALUE_LENGTH:
                    return
                if value != _NOTHING:
                    yield Label(self.model, self.version, name, self.time, value)


Part = tuple[Offer, int, int]
"""Some rows of an offer: the first one, and the one after the last."""


def _encoded(values: Values) -> list[bytes | None]:
    """Predictions as JSON: null where there is none, None where it cannot be written."""
    if values and set(map(type, values)) <= _PLAIN_TYPES:
        with suppress(orjson.JSONEncodeError):
            return [*orjson.dumps(values)[1:-1].split(b",")]  # several times as fast as one by one
    return [_dumps(value) if type(value) in _PREDICTION_TYPES else _NOTHING for value in values]


def _dumps(value: object) -> bytes | None:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, say; its neighbours are written
        return None
