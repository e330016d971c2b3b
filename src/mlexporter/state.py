"""What is kept of the store over a restart, as immutable structs, and how it is copied out of the store.

What waits for its label, and what was counted of labels, is kept with the store of pending predictions, in the
transaction that joins them. Totals of outcomes are here as well, for a store that keeps none, as a shared one.

Samples that a baseline is still to be learned from are not in it: no raw value is ever written to disk.
"""

from collections.abc import Iterable

import msgspec

from mlexporter.alarm import AlarmState
from mlexporter.baseline import Baseline, Column
from mlexporter.binning import Counts
from mlexporter.concept import ConceptState
from mlexporter.diary import DiaryState
from mlexporter.edges import Ints
from mlexporter.feedback import Feedback, FeedbackTotals, encoded, fingerprint_of
from mlexporter.feedback_sink import FeedbackSink
from mlexporter.outcomes import OutcomeCounts
from mlexporter.registry import Version
from mlexporter.snapshot import Monitor
from mlexporter.statistics import Reference
from mlexporter.window import Window, WindowState


class LearnedBaseline(msgspec.Struct, frozen=True):
    """A baseline that was learned from traffic, which is in no file.

    Attributes:
        baseline: as it stands; while it is provisional, as it was when its bins were fixed.
        columns: as they were when the bins were fixed, which is what is counted by.
        reference: what live data are held against.

    """

    baseline: Baseline
    columns: tuple[Column, ...]
    reference: Reference


class FeedbackState(msgspec.Struct, frozen=True):
    """What labels told of a version.

    Attributes:
        bins: fingerprint of the bins of outcomes; empty where nothing is counted.
        totals: as `feedback.encoded` writes them.
        last_label: of `totals`.
        outcomes: of `totals`, which `concept` and `concept_from` are relative to.
        windows, scores: by label; `since` is as in `Feedback`.
        pending, expired: as in `Feedback`.
        concept, concept_from: as in `Feedback`; `concept_null` is the fingerprint of the null hypothesis.

    """

    bins: str
    totals: bytes
    last_label: float | None
    outcomes: OutcomeCounts
    windows: dict[str, WindowState]
    scores: dict[str, WindowState]
    since: float
    pending: int
    expired: dict[str, int]
    concept: ConceptState | None
    concept_from: OutcomeCounts | None
    concept_null: str


class BesideState(msgspec.Struct, frozen=True):
    """Live data in the bins of the version before: the hash of its baseline, and windows by label."""

    baseline: str
    windows: dict[str, WindowState]


class VersionState(msgspec.Struct, frozen=True):
    """One version. What is not said here is as in `registry.Version`.

    Attributes:
        baseline: hash of what it is held against; empty while there is none.
        learned: which of the learned baselines that is; None where it came from a file.
        alarm: without its bets, which follow from the baseline; `alarm_null` is the fingerprint of the null hypothesis.
        alarm_from: None once there is an alarm.

    """

    model: str
    name: str
    configured: bool
    learns: bool
    baseline: str
    learned: int | None
    samples: int
    errors: int
    unknown: int
    error_reasons: dict[str, int]
    first_sample: float | None
    last_sample: float | None
    latency_counts: Ints
    latency_sum: float
    counts: Counts | None
    windows: dict[str, WindowState]
    alarm: AlarmState | None
    alarm_from: Counts | None
    alarm_null: str
    diary: DiaryState | None
    feedback: FeedbackState
    beside: BesideState | None


class State(msgspec.Struct, frozen=True):
    """All versions, those of one model oldest first.

    Attributes:
        time: Unix time at which it was copied.
        learned: baselines that were learned.
        labels_waiting, labels_unmatched: as in `FeedbackSink`.

    """

    time: float
    versions: tuple[VersionState, ...]
    learned: tuple[LearnedBaseline, ...]
    labels_waiting: dict[str, int]
    labels_unmatched: tuple[tuple[str, str, int], ...]


class Copier:
    """Copies versions, one after the other, each under the lock: no other thread waits for more than one of them."""

    def __init__(self) -> None:
        self._versions: list[tuple[VersionState, Monitor | None, FeedbackTotals]] = []
        self._learned: list[Monitor] = []
        self._from_files: list[Monitor] = []

    def add(self, version: Version) -> None:
        """Copy a version, after those of its model that are older. Under the lock; no tick may be under way."""
        monitor, alarm, beside = version.monitor, version.alarm, version.beside
        if version.configured and not version.learns and monitor is not None:
            self._from_files.append(monitor)
        state = VersionState(
            model=version.model,
            name=version.name,
            configured=version.configured,
            learns=version.learns,
            baseline=monitor.baseline.hash if monitor is not None else "",
            learned=self._index(monitor),
            samples=version.samples,
            errors=version.errors,
            unknown=version.unknown,
            error_reasons=dict(version.error_reasons),
            first_sample=version.first_sample,
            last_sample=version.last_sample,
            latency_counts=version.latency_counts.copy(),
            latency_sum=version.latency_sum,
            counts=version.counts,
            windows=_windows(version.windows),
            alarm=msgspec.structs.replace(alarm, bets=None) if alarm is not None else None,
            alarm_from=version.alarm_from if alarm is None else None,
            alarm_null="",
            diary=version.diary.state() if version.diary is not None else None,
            feedback=_feedback(version.feedback),
            beside=BesideState(beside.monitor.baseline.hash, _windows(beside.windows)) if beside is not None else None,
        )
        self._versions.append((state, monitor, version.feedback.totals))

    def _index(self, monitor: Monitor | None) -> int | None:
        """Which of the learned baselines that is."""
        if monitor is None or any(known is monitor for known in self._from_files):
            return None
        for i, known in enumerate(self._learned):
            if known is monitor:
                return i
        self._learned.append(monitor)
        return len(self._learned) - 1

    def state(self, sink: FeedbackSink, now: float) -> State:
        """All that was copied. Under no lock: what is left to do takes its time."""
        versions = tuple(_with_fingerprints(*copy) for copy in self._versions)
        learned = tuple(LearnedBaseline(each.baseline, each.binner.columns, each.reference) for each in self._learned)
        unmatched = tuple((*key, count) for key, count in sorted(sink.labels_unmatched.copy().items()))
        return State(now, versions, learned, sink.labels_waiting, unmatched)


def _windows(windows: Iterable[tuple[str, Window]]) -> dict[str, WindowState]:
    return {label: window.state() for label, window in windows}


def _feedback(feedback: Feedback) -> FeedbackState:
    return FeedbackState(
        bins="",
        totals=b"",
        last_label=feedback.totals.last_label,
        outcomes=feedback.totals.outcomes,
        windows=_windows(feedback.windows),
        scores=_windows(feedback.score_windows),
        since=feedback.since,
        pending=feedback.pending,
        expired=dict(feedback.expired),
        concept=feedback.concept,
        concept_from=feedback.concept_from if feedback.concept is None else None,
        concept_null="",
    )


def _with_fingerprints(state: VersionState, monitor: Monitor | None, totals: FeedbackTotals) -> VersionState:
    binner = monitor.outcomes if monitor is not None else None
    feedback = msgspec.structs.replace(
        state.feedback,
        bins=fingerprint_of(binner),
        totals=encoded(totals, binner),
        concept_null=monitor.concept.fingerprint() if monitor is not None and monitor.concept is not None else "",
    )
    null = monitor.alarm.fingerprint() if monitor is not None and monitor.alarm is not None else ""
    return msgspec.structs.replace(state, alarm_null=null, feedback=feedback)
