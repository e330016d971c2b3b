"""What a tick does to all versions: windows forget, learned baselines freeze, alarms advance.

The lock is held to look up and to install; learning and betting go on outside it, and one thread at a time ticks.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack

from mlexporter.binning import Counts
from mlexporter.concept import ConceptAlarm
from mlexporter.config import Config
from mlexporter.detector import log_threshold
from mlexporter.diary import Diary
from mlexporter.history import MIN_DAYS
from mlexporter.learning import extended, with_counts
from mlexporter.registry import Registry, Version
from mlexporter.snapshot import Monitor


class Tick:
    """Ticks of all versions.

    Args:
        config: of learning and of the alarms.
        registry: of the versions.
        lock: that guards them.
        clock: Unix time in seconds, read under the lock.

    Attributes:
        config: of learning and of the alarms, which may be another with each tick.

    """

    def __init__(self, config: Config, registry: Registry, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self.config = config
        self._registry = registry
        self._lock = lock
        self._clock = clock

    def run(self) -> None:
        """Tick once, when all that came before it is counted."""
        self._freeze_due()
        self._advance_alarms()

    def log_threshold(self) -> float | None:
        """The evidence at which an alarm goes on; None where nothing is watched. Under the lock."""
        watched = self._registry.watched
        return log_threshold(watched, self.config.detection.false_alarm_every) if watched else None

    def _freeze_due(self) -> None:
        with self._lock:
            now = self._clock()
            for version in self._registry:
                for window in version.all_windows():
                    window.advance(now)
            learning = [
                (version, version.monitor, version.counts, version.first_sample)
                for version in self._registry
                if version.learns and version.monitor is not None and version.monitor.baseline.provisional
            ]
        period = self.config.discovery.learn_period
        for version, monitor, counts, first in learning:
            assert counts is not None
            assert first is not None
            if period >= MIN_DAYS * 86400 and monitor.binner.columns:
                self._remember(version, monitor, counts, now)
            if now - first >= period:
                self._freeze(version, monitor, counts)

    def _remember(self, version: Version, monitor: Monitor, counts: Counts, now: float) -> None:
        """Keep by day and hour what was counted since the last tick, to learn a season and a tolerance from."""
        if version.diary is None:
            version.diary = Diary(monitor.binner, version.settings, self.config.detection.timezone)
        version.diary.note(counts, now)

    def _freeze(self, version: Version, monitor: Monitor, counts: Counts) -> None:
        reference = extended(monitor.binner, monitor.reference, counts)
        baseline = with_counts(monitor.baseline, monitor.binner, reference, provisional=False)
        if version.diary is not None:
            baseline = version.diary.learn(baseline)
        frozen = monitor.frozen(baseline, reference, self.config.detection, version.settings)
        with self._lock:
            version.diary = None
            for other in self._registry.versions_of(version.model):
                if other.monitor is monitor:
                    other.monitor = frozen
                    # what it learned from is not held against it
                    other.alarm_from = counts if other is version else other.counts

    def _advance_alarms(self) -> None:
        """Hold what was counted since the last tick against the baselines, outside the lock."""
        with self._lock:
            now = self._clock()
            threshold = self.log_threshold()
            watched = [
                version
                for version in self._registry
                if version.monitor is not None and version.monitor.watched and threshold is not None
            ]
        with ExitStack() as stack:  # advances every one of them, also after a bug in one
            for version in watched:
                assert threshold is not None
                stack.callback(self._advance, version, now, threshold)

    def _advance(self, version: Version, now: float, threshold: float) -> None:
        if version.monitor is not None and version.monitor.concept is not None:
            self._advance_concept(version, version.monitor.concept, now, threshold)
        with self._lock:
            monitor, state, begin, counts = version.monitor, version.alarm, version.alarm_from, version.counts
        assert monitor is not None
        if monitor.alarm is None:
            return
        assert begin is not None
        assert counts is not None
        if state is None:
            state = monitor.alarm.start(begin, now)
        state = monitor.alarm.advance(state, counts, now, threshold)
        monitor.alarm.prepare(now)
        with self._lock:
            if version.monitor is monitor:
                version.alarm = state

    def _advance_concept(self, version: Version, concept: ConceptAlarm, now: float, threshold: float) -> None:
        """Hold the outcomes that came since the last tick against the baseline's."""
        with self._lock:
            feedback = version.feedback
            state, begin, counts = feedback.concept, feedback.concept_from, feedback.totals.outcomes
        assert begin is not None
        state = concept.advance(state or concept.start(begin), counts, now, threshold)
        with self._lock:
            if version.monitor is not None and version.monitor.concept is concept:
                feedback.concept = state
