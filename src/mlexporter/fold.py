"""Counting batches that were taken out of what waits: pure, and outside the lock."""

from collections.abc import Iterable

import msgspec
import numpy as np

from mlexporter.binning import Counts
from mlexporter.edges import Ints
from mlexporter.learning import Learner
from mlexporter.outcomes import OutcomeBinner
from mlexporter.registry import Beside, Version
from mlexporter.samples import Batch
from mlexporter.snapshot import LATENCY_BUCKETS, Latency, Monitor


class Fold(msgspec.Struct, frozen=True):
    """Batches that were taken out to be counted, and what they are counted against."""

    number: int
    version: Version
    batches: list[Batch]
    learner: Learner | None
    monitor: Monitor | None
    beside: Beside | None

    @property
    def outcomes(self) -> OutcomeBinner | None:
        """What outcomes and scores are counted in."""
        return self.monitor.outcomes if self.monitor is not None else None


class Counted(msgspec.Struct, frozen=True):
    """What was counted of a fold's batches: by column, in the bins of the version before, scores, latencies."""

    columns: Counts | None
    beside: Counts | None
    scores: Ints | None
    latency: Latency


def counted_of(fold: Fold) -> Counted:
    """Count what was taken, against what it is held against."""
    monitor, beside = fold.monitor, fold.beside
    scores = None
    columns = None
    if monitor is not None:
        columns = monitor.binner.count(fold.batches, squares=monitor.baseline.provisional)
        if monitor.outcomes is not None and monitor.outcomes.score_bins:
            raw = [value for batch in fold.batches for value in batch.raw_predictions() or ()]
            scores = monitor.outcomes.count_scores(raw)
    return Counted(
        columns,
        beside.monitor.binner.count(fold.batches) if beside is not None else None,
        scores,
        _latency(fold.batches),
    )


def _latency(batches: Iterable[Batch]) -> Latency:
    given = [latency for batch in batches for latency in batch.latency_seconds or () if latency is not None]
    values = np.array(given, dtype=np.float64)
    buckets = np.searchsorted(np.asarray(LATENCY_BUCKETS), values, side="left")
    return Latency(np.bincount(buckets, minlength=len(LATENCY_BUCKETS) + 1).astype(np.int64), float(values.sum()))
