"""A state that was kept, back into the store: part by part, each where what it was counted for is still the same.

After a clean stop every counter goes on where it was. After a crash the state is older than what was last scraped, and
a counter that came back below that would look to Prometheus like a reset and an increase by all of its value. So it
begins at 0, which is a reset and nothing else; windows, evidence, learned baselines and times come back all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from mlexporter.baseline import CategoricalColumn, Column, NumericColumn
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.derived_profile import counted_profile
from mlexporter.diary import Diary
from mlexporter.feedback import Feedback, decoded, fingerprint_of
from mlexporter.feedback_sink import FeedbackSink
from mlexporter.learning import absorbed
from mlexporter.outcomes import OutcomeCounts
from mlexporter.registry import Registry, Version, key_of
from mlexporter.samples import Rejection
from mlexporter.snapshot import Monitor
from mlexporter.state import FeedbackState, LearnedBaseline, State, VersionState
from mlexporter.window import Window, WindowState

T = TypeVar("T", bound=msgspec.Struct)


class Afresh(msgspec.Struct, frozen=True):
    """Something of a version that does not come back, and why."""

    model: str
    version: str
    why: str


def kept_totals(state: State) -> Mapping[str, bytes]:
    """Totals of outcomes after a clean stop, for versions of which the store of pending predictions kept none."""
    return {key_of(version.model, version.name): version.feedback.totals for version in state.versions}


def restore(
    registry: Registry, sink: FeedbackSink, state: State, detection: DetectionConfig, now: float, *, clean: bool
) -> list[Afresh]:
    """Bring back what fits; under the lock, before anything else happens.

    Args:
        registry: of the versions that are configured, as new.
        sink: of labels.
        state: that was kept.
        detection: settings of the alarm.
        now: Unix time.
        clean: whether nothing was counted after the state was copied.

    Returns:
        What starts afresh.

    """
    work = _Restorer(registry, state, detection, now, clean=clean)
    for version in state.versions:
        work.version(version)
    for version in state.versions:
        work.beside(version)
    known = registry.models
    sink.labels_waiting = {model: count for model, count in state.labels_waiting.items() if model in known}
    for model, reason, count in state.labels_unmatched if clean else ():
        sink.labels_unmatched[model, reason] = count
    return work.afresh


class _Restorer:
    def __init__(
        self, registry: Registry, state: State, detection: DetectionConfig, now: float, *, clean: bool
    ) -> None:
        self.afresh: list[Afresh] = []
        self._registry = registry
        self._state = state
        self._detection = detection
        self._now = now
        self._clean = clean
        self._learned: dict[int, Monitor] = {}

    def _note(self, saved: VersionState, why: str) -> None:
        note = Afresh(saved.model, saved.name, why)
        if note not in self.afresh:
            self.afresh.append(note)

    def version(self, saved: VersionState) -> None:
        known = self._registry.find(saved.model, saved.name)
        if known is None and saved.configured:
            # it may be sent to no more; and if it is, it is newer than those that are configured now
            self._note(saved, "it is not configured any more")
            return
        found = self._registry.readmit(saved.model, saved.name, self._monitor(saved, known), self._now)
        if isinstance(found, Rejection):
            self._note(saved, found.message)
            return
        self._counters(found, saved)
        monitor = found.monitor
        if not saved.baseline:
            if saved.learns and saved.samples and monitor is None:
                self._note(saved, "it was learning its baseline, and no samples are kept to learn from")
        elif monitor is None or monitor.baseline.hash != saved.baseline:
            self._note(saved, "its baseline changed")
        elif saved.counts is None or not alike(saved.counts, monitor.binner.zero()):
            self._note(saved, "the bins of its baseline changed")
        else:
            self._columns(found, monitor, saved)
        self._feedback(found, saved)

    def _counters(self, found: Version, saved: VersionState) -> None:
        found.last_sample = saved.last_sample
        if found.learner is None:  # else the period in which it learns begins with its next sample
            found.first_sample = saved.first_sample
        found.error_reasons = dict.fromkeys(saved.error_reasons, 0)
        if not self._clean:
            return
        found.samples, found.errors, found.unknown = saved.samples, saved.errors, saved.unknown
        found.error_reasons = dict(saved.error_reasons)
        if saved.latency_counts.shape == found.latency_counts.shape:
            found.latency_counts, found.latency_sum = saved.latency_counts.copy(), saved.latency_sum
        found.feedback.expired = dict(saved.feedback.expired)

    # -- baselines ----------------------------------------------------------------------------------------------------

    def _monitor(self, saved: VersionState, known: Version | None) -> Monitor | None:
        """What a version was held against; None where that is not there any more."""
        if known is not None and known.monitor is not None:
            return known.monitor  # that of its file, whether it is the same or not
        versions = self._registry.versions_of(saved.model) if saved.model in self._registry.models else []
        if saved.learned is None:
            monitors = [version.monitor for version in versions if version.monitor is not None]
            return next((each for each in monitors if each.baseline.hash == saved.baseline), None)
        if saved.learned not in self._learned:
            learned = self._state.learned[saved.learned]
            if learned.baseline.provisional and not saved.learns:
                return None  # the version whose samples it is learned from has not come back
            configured = next((version for version in versions if version.config is not None), None)
            if not typed_as(learned.columns, configured.settings if configured is not None else {}):
                return None
            self._learned[saved.learned] = self._rebuilt(learned, configured, saved)
        return self._learned[saved.learned]

    def _rebuilt(self, learned: LearnedBaseline, configured: Version | None, saved: VersionState) -> Monitor:
        settings = configured.settings if configured is not None else {}
        begun = msgspec.structs.replace(learned.baseline, columns=learned.columns, provisional=True)
        profile = counted_profile(begun, configured.config if configured is not None else None)
        monitor = Monitor.of(begun, self._detection, settings, profile)
        if not learned.baseline.provisional:
            return monitor.frozen(learned.baseline, learned.reference, self._detection, settings)
        reference = learned.reference
        if not self._clean and saved.counts is not None:
            # its counters begin at 0, and what they had counted has been learned
            reference = absorbed(monitor.binner, reference, saved.counts)
        return msgspec.structs.replace(monitor, baseline=learned.baseline, reference=reference)

    # -- what was counted against them --------------------------------------------------------------------------------

    def _columns(self, found: Version, monitor: Monitor, saved: VersionState) -> None:
        assert saved.counts is not None
        counts = found.counts = saved.counts if self._clean else monitor.binner.zero()
        self._windows(found.windows, saved.windows, saved)
        found.alarm_from = self._shifted(saved.alarm_from, saved) if saved.alarm_from is not None else counts
        if saved.alarm is not None:
            self._alarm(found, monitor, saved)
        if saved.diary is not None and monitor.baseline.provisional:
            diary = Diary(monitor.binner, found.settings, self._detection.timezone)
            state = saved.diary
            if state.seen is not None and not self._clean:
                state = msgspec.structs.replace(state, seen=state.seen - saved.counts.bins)
            found.diary = diary
            if not diary.restore(state):
                self._note(saved, "time zones changed: the season it is learning")

    def _alarm(self, found: Version, monitor: Monitor, saved: VersionState) -> None:
        alarm, state = monitor.alarm, saved.alarm
        assert state is not None
        fits = alarm is not None and alarm.fingerprint() == saved.alarm_null
        if alarm is None or not fits or not alike(state, alarm.start(state.seen, self._now)):
            self._note(saved, "what its drift alarm accepts changed: the evidence")
            return
        seen = self._shifted(state.seen, saved)
        found.alarm = alarm.restored(msgspec.structs.replace(state, seen=seen))

    def _shifted(self, counts: T, saved: VersionState) -> T:
        """Counts since the start, once those of `saved` are where counting starts."""
        assert saved.counts is not None
        return counts if self._clean else plus(counts, saved.counts, -1)

    def _windows(
        self, windows: Sequence[tuple[str, Window]], states: Mapping[str, WindowState], saved: VersionState
    ) -> None:
        for label, window in windows:
            state = states.get(label)
            if state is None or not window.restore(state):
                self._note(saved, f"window {label} is new")
            window.advance(self._now)

    def beside(self, saved: VersionState) -> None:
        """Live data in the bins of the version before."""
        found = self._registry.find(saved.model, saved.name)
        if found is None or saved.beside is None:
            return
        beside = self._registry.beside(found, self._now)
        if beside is not None and beside.monitor.baseline.hash == saved.beside.baseline:
            self._windows(beside.windows, saved.beside.windows, saved)

    def _feedback(self, found: Version, saved: VersionState) -> None:
        state, feedback = saved.feedback, found.feedback
        feedback.pending = state.pending
        if feedback.totals.last_label is None:
            feedback.totals = msgspec.structs.replace(feedback.totals, last_label=state.last_label)
        if feedback.binner is None or not state.bins:
            return
        if state.bins != fingerprint_of(feedback.binner):
            self._note(saved, "outcomes are counted in other bins")
            return
        self._windows(feedback.windows, state.windows, saved)
        self._windows(feedback.score_windows, state.scores, saved)
        self._later_outcomes(feedback, state)
        if all(label in state.windows for label, _ in feedback.windows):
            feedback.since = state.since  # a window that is new holds nothing that a correction could take back
        self._concept(found, saved, state)

    def _later_outcomes(self, feedback: Feedback, state: FeedbackState) -> None:
        """Into the windows, what was kept with the labels after the state was copied: a correction may take it back."""
        totals, copied = feedback.totals, decoded(state.totals, feedback.binner)
        if totals.since != copied.since or (totals.outcomes.bins < copied.outcomes.bins).any():
            return  # they have begun elsewhere
        for counts, before, sign in (
            (totals.outcomes, copied.outcomes, 1),
            (totals.retracted, copied.retracted, -1),
        ):
            later = plus(counts, before, -1)
            for label, window in feedback.windows:
                if label in state.windows:
                    window.add_at(later, self._state.time, sign=sign)

    def _concept(self, found: Version, saved: VersionState, state: FeedbackState) -> None:
        alarm = found.monitor.concept if found.monitor is not None else None
        feedback, totals = found.feedback, found.feedback.totals.outcomes
        if alarm is None or not alike(totals, state.outcomes):
            return
        # totals that were kept with the labels are as new, or newer; others have begun elsewhere
        goes_on = bool((totals.bins >= state.outcomes.bins).all())

        def shifted(counts: OutcomeCounts) -> OutcomeCounts:
            return counts if goes_on else plus(plus(counts, state.outcomes, -1), totals, 1)

        if state.concept_from is not None:
            feedback.concept_from = shifted(state.concept_from)
        if state.concept is None:
            return
        fits = alarm.fingerprint() == state.concept_null
        if not fits or not alike(state.concept, alarm.start(state.outcomes)):
            self._note(saved, "what its alarm on concept drift accepts changed: the evidence")
            return
        feedback.concept = msgspec.structs.replace(state.concept, seen=shifted(state.concept.seen))


def plus(counts: T, other: Any, sign: int) -> T:
    """Counts and others of the same kind, or less these."""
    pairs = zip(msgspec.structs.astuple(counts), msgspec.structs.astuple(other), strict=True)
    return type(counts)(*(one + sign * another for one, another in pairs))


def alike(one: object, other: object) -> bool:
    """Whether two structs have arrays of the same shapes and types in the same places."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and (one.shape, one.dtype) == (other.shape, other.dtype)
    if isinstance(one, msgspec.Struct):
        if not isinstance(other, type(one)):
            return False
        pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
        return all(alike(*pair) for pair in pairs)
    return True


def typed_as(columns: Sequence[Column], settings: Mapping[str, ColumnConfig]) -> bool:
    """Whether columns have the types that the configuration gives them."""
    for column in columns:
        wanted = settings[column.name].type if column.name in settings else None
        of_categories = "boolean" if isinstance(column, CategoricalColumn) and column.boolean else "categorical"
        own = "numeric" if isinstance(column, NumericColumn) else of_categories
        if wanted not in (None, own):
            return False
    return True
