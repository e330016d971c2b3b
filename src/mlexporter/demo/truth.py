"""What became of the flights: the thread that tells the exporter when it is known, some time after the prediction.

As in life: the truth comes in batches, it never comes for some, and now and then what came first was wrong.
"""

import heapq
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from mlexporter.demo.data import Flight
from mlexporter.demo.model import MODEL, VERSION
from mlexporter.demo.wire import Address, Connection, push

LABELLED_SHARE = 0.9
CORRECTED_SHARE = 0.02
BATCH_LABELS = 1_000
BATCH_SECONDS = 1.0


@dataclass(frozen=True, order=True, slots=True)
class Label:
    """One label, and when it is known, by the monotonic clock."""

    due: float
    id: str
    late: bool


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What became of the labels: taken by the exporter, refused by it, or lost as nobody answered.

    A correction is one more label.
    """

    accepted: int
    rejected: int
    lost: int


class LabelSender:
    """Sends labels to the exporter from a thread of its own, in batches of the column form.

    Args:
        exporter: where to.
        seed: of what is late, wrong or never known.
        delay: seconds from the prediction to its label, least and most; and from a wrong label to its correction.

    """

    def __init__(self, exporter: Address, seed: int, delay: tuple[float, float]) -> None:
        self._exporter = exporter
        self._rng = random.Random(seed)  # noqa: S311 - which labels are late is no secret
        self._delay = delay
        self._changed = threading.Condition()
        # Guarded by the condition.
        self._waiting: list[Label] = []  # a heap
        self._sending = False
        self._accepted = self._rejected = self._lost = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="label-sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def learn(self, ids: Sequence[str], flights: Sequence[Flight]) -> None:
        """Flights were predicted under these ids: most of them will be told of when they have arrived."""
        now = time.monotonic()
        labels = [label for name, flight in zip(ids, flights, strict=True) for label in self._labels(name, flight, now)]
        with self._changed:
            for label in labels:
                heapq.heappush(self._waiting, label)

    def _labels(self, name: str, flight: Flight, now: float) -> list[Label]:
        """All that will be known of one flight: nothing, the truth, or something wrong and then the truth."""
        if self._rng.random() >= LABELLED_SHARE:
            return []
        first = now + self._rng.uniform(*self._delay)
        if self._rng.random() >= CORRECTED_SHARE:
            return [Label(first, name, flight.late)]
        return [Label(first, name, not flight.late), Label(first + self._rng.uniform(*self._delay), name, flight.late)]

    def settle(self, timeout: float) -> bool:
        """Wait until all that was learned is told; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._sending, timeout)

    def close(self) -> None:
        """Stop sending; what is not known yet never will be."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    @property
    def counts(self) -> LabelCounts:
        """What became of the labels so far."""
        with self._changed:
            return LabelCounts(self._accepted, self._rejected, self._lost)

    def _run(self) -> None:
        with Connection(self._exporter) as connection:
            while not self._pause(BATCH_SECONDS):
                while batch := self._take():
                    accepted, rejected = push(connection, "/v1/labels", label_columns(batch), len(batch), self._pause)
                    with self._changed:
                        self._sending = False
                        self._accepted += accepted
                        self._rejected += rejected
                        self._lost += len(batch) - accepted - rejected
                        self._changed.notify_all()

    def _pause(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)

    def _take(self) -> list[Label]:
        """The labels that are known by now, those known first first; at most a batch of them."""
        now = time.monotonic()
        batch: list[Label] = []
        with self._changed:
            while self._waiting and self._waiting[0].due <= now and len(batch) < BATCH_LABELS and not self._closing:
                batch.append(heapq.heappop(self._waiting))
            self._sending = bool(batch)
        return batch


def label_columns(batch: Sequence[Label]) -> bytes:
    """The body of `POST /v1/labels` for these labels, column by column."""
    return orjson.dumps(
        {
            "model": MODEL,
            "version": VERSION,
            "columns": {"id": [label.id for label in batch], "label": [label.late for label in batch]},
        }
    )
