"""Labels that were sent, on their way to the join: which model they are of, and in what form they are joined."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec
import orjson

from mlexporter.pending.joiner import Joiner
from mlexporter.pending.records import Direct, Label, Prediction, json_value
from mlexporter.samples import Labels, Rejection
from mlexporter.snapshot import Receipt
from mlexporter.store import Store


class LabelIntake:
    """Takes labels in.

    Args:
        store: knows the models.
        joiner: joins them with their predictions.
        clock: Unix time in seconds.
        held_up: entered while this waits, so that another thread may go on.

    """

    def __init__(
        self,
        store: Store,
        joiner: Joiner,
        clock: Callable[[], float],
        held_up: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._store = store
        self._joiner = joiner
        self._clock = clock
        self._held_up = held_up

    def take(self, sent: Sequence[Labels]) -> Receipt:
        """Hand labels to the join and wait until they are written down, or refuse those of unknown models.

        Raises:
            StoreError: they could not be written down in time; they may be later, and can be sent again.

        """
        accepted = 0
        rejections: list[Rejection] = []
        known: list[tuple[str, str | None, Labels]] = []
        for labels in sent:
            # a label alone may be of every version; a prediction is of one
            named = self._store.locate(labels.model, labels.version, one=labels.prediction is not None)
            if isinstance(named, Rejection):
                rejections.append(msgspec.structs.replace(named, index=labels.index, count=labels.size))
                continue
            accepted += labels.size
            known.append((*named, labels))
        if accepted:
            work = _Work(self._clock())  # no label is older than the version that was made for it
            for each in known:
                work.add(*each)
            with self._held_up():
                self._joiner.submit(work.labels, work.predictions, work.direct)
        return Receipt(accepted, tuple(rejections))


class _Work:
    """Labels in the forms in which they are joined."""

    def __init__(self, now: float) -> None:
        self._now = now
        self.labels: list[Label] = []
        self.predictions: list[Prediction] = []
        self.direct: list[Direct] = []

    def add(self, model: str, version: str | None, sent: Labels) -> None:
        ids = sent.ids or (None,) * sent.size
        predictions = sent.prediction or (None,) * sent.size
        alone: list[tuple[object, object]] = []
        for id_, prediction, label in zip(ids, predictions, sent.label, strict=True):
            if id_ is None:
                alone.append((prediction, label))
                continue
            if prediction is not None and version is not None:
                self.predictions.append(Prediction(model, version, id_, self._now, orjson.dumps(prediction)))
            # a label alone is of every version, also beside one whose prediction is of the default version
            of = version if prediction is not None else sent.version
            self.labels.append(Label(model, of, id_, self._now, json_value(label)))
        if alone and version is not None:
            made, known = zip(*alone, strict=True)
            self.direct.append(Direct(model, version, made, known, self._now))
