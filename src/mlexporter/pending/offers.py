"""Columns of a batch to predictions that wait, the labels that came with them, and outcomes that need no join."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final, cast

import msgspec
import numpy as np
import orjson

from mlexporter.pending.blocks import Numbers, floats_of, numbers_of
from mlexporter.pending.hashing import Ids
from mlexporter.pending.records import Arrival, Direct, Label, Predictions, json_value
from mlexporter.samples import Batch, Values

ID_LENGTH: Final = 256
"""Longer ids are dropped."""

SMALL_ROWS: Final = 200
LARGE_ROWS: Final = 10_000
"""Batches of fewer rows are packed together later, off the request path; of more ones they are written in parts."""
_SEPARATOR: Final = "\0"

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
        ids, prediction, probabilities, label: as in `Batch`; or all ids in one text, separated by zeros, and numbers.
        taken: rows, from the first one, that were encoded.

    """

    model: str
    version: str
    time: float
    size: int
    weight: int
    ids: Sequence[str | None] | str | None
    prediction: Values | Numbers
    probabilities: Values | None
    label: Values | None
    taken: int = 0

    @staticmethod
    def of(model: str, version: str, batch: Batch, now: float) -> "Offer | None":
        """What a batch offers; None where no prediction of it has an id or a label."""
        if batch.prediction is None or (batch.ids is None and batch.label is None):
            return None
        columns = batch.ids, batch.prediction, batch.probabilities, batch.label
        offer = Offer(model, version, now, batch.size, batch.weight, *columns)
        if SMALL_ROWS <= batch.size <= LARGE_ROWS and batch.label is None:
            offer._pack()
        return offer

    def _pack(self) -> None:
        """Let go of the objects of rows, if they are numbers with an id: they are in the way of the next requests."""
        text = _text(self.ids)
        if text is not None and self.probabilities is None:
            numbers = floats_of(cast(Values, self.prediction))
            if numbers is not None:
                self.ids, self.prediction = text, numbers

    @property
    def least(self) -> int:
        """Rows that are encoded together at least: all of them where they are packed."""
        return self.size if isinstance(self.ids, str) else 1

    def unpack(self) -> None:
        """Have each row as an object again."""
        if isinstance(self.ids, str):
            self.ids, self.prediction = self.ids.split(_SEPARATOR), cast(Numbers, self.prediction).tolist()

    def encode(
        self, begin: int, end: int, predictions: list[Arrival], labels: list[Label], direct: list[Direct]
    ) -> int:
        """Add some rows to predictions and labels, or those without an id to direct ones; how many cannot be written.

        Rows without a prediction, and those with neither an id nor a label, are passed over.
        """
        self.unpack()
        values = cast(Values, self.prediction)[begin:end]
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

    def labels(self, begin: int, end: int) -> Iterator[Label]:
        """The labels of some rows, all of which have an id."""
        if self.label is not None and self.ids is not None:
            for index in range(begin, end):
                yield from self._label(index, cast(str, self.ids[index]))

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


def by_version(parts: Iterable[Part]) -> list[list[Part]]:
    """Parts of the same version together, in their order."""
    found: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        found.setdefault((part[0].model, part[0].version), []).append(part)
    return list(found.values())


def joined(parts: Sequence[Part]) -> Predictions | None:
    """All rows of parts of one version, if they are numbers that have an id; no row is touched on its own then."""
    texts: list[str] = []
    columns: list[Numbers] = []
    for packed, run in groupby(parts, lambda part: isinstance(part[0].ids, str)):
        if packed:
            for offer, _, _ in run:
                texts.append(cast(str, offer.ids))
                columns.append(cast(Numbers, offer.prediction))
            continue
        text, numbers = _plain(list(run))
        if text is None or numbers is None:
            return None
        texts.append(text)
        columns.append(numbers)
    found = Ids.split(_SEPARATOR.join(texts))
    if not len(found.lengths) or found.lengths.min() == 0 or found.lengths.max() > ID_LENGTH:
        return None
    values = np.concatenate(columns)
    if not np.isfinite(values).all():
        return None
    times, sizes = [offer.time for offer, _, _ in parts], [end - begin for _, begin, end in parts]
    return Predictions(parts[0][0].model, parts[0][0].version, found, values, times, sizes)


def _plain(parts: Sequence[Part]) -> tuple[str | None, Numbers | None]:
    """Ids and numbers of parts that are not packed; None where they are something else."""
    ids: list[str | None] = []
    values: list[object] = []
    for offer, begin, end in parts:
        if offer.ids is None or offer.probabilities is not None:
            return None, None
        whole = end - begin == offer.size
        ids += offer.ids if whole else offer.ids[begin:end]
        values += offer.prediction if whole else offer.prediction[begin:end]
    return _text(ids), floats_of(values)


def _text(ids: Sequence[str | None] | None) -> str | None:
    """Ids as one text, separated by zeros; None where one is missing or has a zero in it."""
    try:
        text = _SEPARATOR.join(cast(Sequence[str], ids))
    except TypeError:
        return None
    return text if ids and text.count(_SEPARATOR) == len(ids) - 1 else None


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
