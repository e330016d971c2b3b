"""The only mutable state, behind the only lock.

The lock is held to look up, to append and to copy arrays, never to bin, to compute or to write text. A batch is
appended and the caller goes on; when enough rows wait, or someone wants to read, they are taken out under the lock,
counted into bins outside it, and the counts are added under it again. `snapshot` waits for counts that are on their
way, so it holds every sample that was accepted before it.

Write path and read path meet only in `snapshot()`.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Final

import msgspec
import numpy as np

from mlexporter.alarm import AlarmState
from mlexporter.baseline import Baseline
from mlexporter.config import Config
from mlexporter.derived_profile import counted_profile
from mlexporter.feedback_sink import FeedbackSink
from mlexporter.fold import Counted, Fold, counted_of
from mlexporter.learning import Learner, extended, with_counts
from mlexporter.outcomes import OutcomeCounts
from mlexporter.registry import Registry, Version, same_bins
from mlexporter.reloading import Reloading
from mlexporter.restoring import Afresh, restore
from mlexporter.samples import Batch, Reason, Rejection
from mlexporter.snapshot import Latency, Monitor, Receipt, Snapshot, VersionComparison, VersionSnapshot
from mlexporter.state import Copier, State
from mlexporter.tick import Tick
from mlexporter.window import Countable, Window

# Rows, batches and bytes of request bodies that may wait to be counted.
FOLD_ROWS: Final = 8192
FOLD_BATCHES: Final = 1024
FOLD_BYTES: Final = 2 << 20


class Store:
    """All model versions. Every method may be called from any thread.

    Args:
        config: models, windows, discovery and limits.
        baselines: of the configured models that have one, by (name, version).
        clock: Unix time in seconds. Read under the lock, so that no thread sets back the windows of another.
        kept: what the store of pending predictions kept of outcomes.

    """

    def __init__(
        self,
        config: Config,
        baselines: dict[tuple[str, str], Baseline],
        clock: Callable[[], float],
        kept: Mapping[str, bytes] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._ticking = threading.Lock()
        self._counted = threading.Condition(self._lock)
        self._registry = Registry(config, baselines, clock(), kept)
        self.feedback = FeedbackSink(self._registry, self._lock, clock)
        self._tick = Tick(config, self._registry, self._lock, clock)
        self._folds = 0
        self._active: set[int] = set()

    # -- writing ------------------------------------------------------------------------------------------------------

    def observe(self, batches: Iterable[Batch]) -> Receipt:
        """Accept batches, or refuse them whole where their model or version is not known or over a limit."""
        accepted = 0
        rejections: list[Rejection] = []
        awaiting: list[tuple[str, str, Batch]] = []
        for batch in batches:
            taken = self._observe(batch)
            if isinstance(taken, Rejection):
                rejections.append(msgspec.structs.replace(taken, index=batch.index, count=batch.size))
                continue
            accepted += batch.size
            if batch.prediction is not None and (batch.ids is not None or batch.label is not None):
                awaiting.append((taken.model, taken.name, batch))
        return Receipt(accepted, tuple(rejections), tuple(awaiting))

    def locate(self, model: str | None, version: str | None, *, one: bool) -> tuple[str, str | None] | Rejection:
        """The model, and where `one` is asked for the version, that labels are of. Labels make no model known."""
        with self._lock:
            known = self._registry.models
            if model is None and len(known) == 1:
                model = known[0]
            if model not in known:
                names = ", ".join(known) or "none yet"
                return Rejection(0, Reason.UNKNOWN_MODEL, f"labels are for a known model; known: {names}")
            if not one:
                return model, version
            found = self._registry.resolve(model, version, now := self._clock())
            if isinstance(found, Rejection):
                return found
            found.last_told = now
            return model, found.name

    def _observe(self, batch: Batch) -> Version | Rejection:
        with self._lock:
            now = self._clock()
            version = self._registry.resolve(batch.model, batch.version, now)
            if isinstance(version, Rejection):
                return version
            if version.refused is not None:
                return version.refused
            version.accept(batch, now)
            fold = self._take(version) if self._due(version) else None
        if fold is not None:
            self._count(fold)
        return version

    def _due(self, version: Version) -> bool:
        """Whether enough waits to be counted; under the lock."""
        rows = FOLD_ROWS
        if version.learner is not None:
            if version.folding:  # one thread at a time learns; what comes meanwhile waits
                return False
            rows = min(rows, self._config.discovery.learn_samples - version.learner.rows)
        return (
            version.pending_rows >= rows or len(version.pending) >= FOLD_BATCHES or version.pending_bytes >= FOLD_BYTES
        )

    # -- counting -----------------------------------------------------------------------------------------------------

    def _take(self, version: Version) -> Fold:
        """Take out what waits; whoever took it counts it. Under the lock."""
        self._folds += 1
        self._active.add(self._folds)
        version.folding += 1
        beside = self._registry.beside(version, self._clock())
        return Fold(self._folds, version, version.take(), version.learner, version.monitor, beside)

    def _count(self, fold: Fold) -> None:
        """Count what was taken, outside the lock, and add it under it."""
        version, learner = fold.version, fold.learner
        learned: Monitor | None = None
        counted: Counted | None = None
        try:
            if learner is not None:
                learned = self._learn(version, learner, fold.batches)
            counted = counted_of(fold)
        finally:
            # also after a bug: whoever waits for these counts must not wait for ever
            with self._counted:
                now = self._clock()
                version.folding -= 1
                self._active.discard(fold.number)
                self._counted.notify_all()
                if counted is not None:
                    self._add_counts(fold, counted, now)
                if learned is not None and version.learner is learner:
                    self._install(version, learned, now)
                if learner is not None and version.learner is learner and learned is None and counted is None:
                    # what it has collected could break it again and again, and would grow without end
                    version.learner = Learner(self._config.discovery.max_columns)

    @staticmethod
    def _add_counts(fold: Fold, counted: Counted, now: float) -> None:
        version, counts = fold.version, counted.columns
        version.samples += sum(batch.size for batch in fold.batches)
        version.latency_counts += counted.latency.counts
        version.latency_sum += counted.latency.sum
        now_held, then = version.monitor, fold.monitor
        if counts is not None and now_held is not None and then is not None and same_bins(now_held, then):
            assert version.counts is not None
            version.counts = version.counts + counts
            version.unknown += counts.unknown
            _add_to([window for _, window in version.windows], counts, now)
        if counted.beside is not None and fold.beside is not None:
            _add_to([window for _, window in fold.beside.windows], counted.beside, now)
        if counted.scores is not None and version.feedback.binner is fold.outcomes:
            scores = OutcomeCounts(counted.scores, np.zeros(0), 0, 0)
            _add_to([window for _, window in version.feedback.score_windows], scores, now)

    def _learn(self, version: Version, learner: Learner, batches: list[Batch]) -> Monitor | None:
        """Learn from samples; the monitor once there are enough of them."""
        for batch in batches:
            learner.add(batch)
        if learner.rows < self._config.discovery.learn_samples:
            return None
        columns = version.settings
        types = {name: column.type for name, column in columns.items()}
        baseline = learner.learn(version.model, version.name, types)
        return Monitor.of(baseline, self._config.detection, columns, counted_profile(baseline, version.config))

    def _install(self, version: Version, learned: Monitor, now: float) -> None:
        """Begin to count against a learned baseline, if the series it takes are to be had; under the lock."""
        series = self._registry.series_of(learned, version)
        refused = self._registry.room_for(series - version.series)
        if refused is None:
            assert version.learner is not None
            version.unknown += version.learner.unknown
            self._registry.watch(version, learned, now)
        else:
            version.refused = refused
            version.learner = None

    def _count_all(self) -> None:
        """Count everything that was accepted before the call, and wait for what others are counting."""
        with self._counted:
            self._counted.wait_for(lambda: not any(v.learner and v.folding for v in self._registry))
            folds = [self._take(version) for version in self._registry if version.pending]
            last = self._folds
        with ExitStack() as stack:  # counts every one of them, also after a bug in one
            for fold in folds:
                stack.callback(self._count, fold)
        with self._counted:
            self._counted.wait_for(lambda: not any(number <= last for number in self._active))

    # -- ticking ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Count what waits, let windows forget, freeze learned baselines whose period is over, advance the alarms."""
        with self._ticking:
            self._count_all()
            self._tick.run()

    # -- reading ------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Everything that was accepted before the call, copied at one moment."""
        self._count_all()
        with self._lock:
            now = self._clock()
            copies = tuple(self._copy(version, now) for version in self._registry)
            series = self._registry.series
            threshold = self._tick.log_threshold()
            waiting, unmatched = dict(self.feedback.labels_waiting), dict(self.feedback.labels_unmatched)
        return Snapshot(tuple(_with_reference(copy) for copy in copies), series, threshold, waiting, unmatched)

    def _copy(self, version: Version, now: float) -> VersionSnapshot:
        for window in version.all_windows():
            window.advance(now)
        config, monitor = version.config, version.monitor
        learning = version.learns and monitor is not None and monitor.baseline.provisional
        return VersionSnapshot(
            model=version.model,
            version=version.name,
            task=config.task or "" if config is not None else "",
            samples=version.samples,
            last_sample=version.last_sample,
            errors=version.errors,
            unknown=version.unknown,
            latency=Latency(version.latency_counts.copy(), version.latency_sum),
            learned_rows=version.learner.rows if version.learner is not None else None,
            monitor=monitor,
            reference=None if learning or monitor is None else monitor.reference,
            counts=version.counts,
            windows=tuple((label, *window.total()) for label, window in version.windows),
            hidden=frozenset()
            if config is None
            else frozenset(column for column, settings in config.columns.items() if not settings.export_names),
            alarm=version.alarm,
            error_reasons=dict(version.error_reasons),
            feedback=version.feedback.copy(),
            comparison=self._comparison(version, now),
        )

    def _comparison(self, version: Version, now: float) -> VersionComparison | None:
        previous = self._registry.before(version)
        if previous is None:
            return None
        beside = self._registry.beside(version, now)
        monitor = previous.monitor
        if beside is None and (monitor is None or version.monitor is None or not same_bins(monitor, version.monitor)):
            return VersionComparison(previous.name)
        for window in previous.all_windows():
            window.advance(now)
        own = beside.windows if beside is not None else version.windows
        return VersionComparison(
            previous.name,
            monitor,
            tuple(
                (label, before.total()[0], after.total()[0])
                for (label, before), (_, after) in zip(previous.windows, own, strict=True)
            ),
        )

    def state(self) -> State:
        """Everything that was accepted before the call, copied to be kept over a restart."""
        copier = Copier()
        with self._ticking:  # alarms and diaries change with a tick, outside the lock
            self._count_all()
            with self._lock:
                now = self._clock()
                versions = [version for model in self._registry.models for version in self._registry.versions_of(model)]
            for version in versions:
                with self._lock:
                    copier.add(version)
        return copier.state(self.feedback, now)

    def reload(self, config: Config, baselines: Mapping[tuple[str, str], Baseline]) -> list[Afresh]:
        """Go on with another configuration; see `reloading`. What was accepted before is counted as it was sent.

        Args:
            config: that holds from now on.
            baselines: of its models, as in `Store`.

        Returns:
            What begins afresh.

        """
        with self._ticking:  # no baseline freezes, no alarm advances and no state is copied meanwhile
            with self._lock:
                reloading = Reloading(self._registry, config, baselines)
            reloading.prepare()
            self._count_all()
            with self._lock:
                afresh = reloading.apply(self._clock())
                self._config = self._tick.config = config
                self.feedback.only(self._registry.models)
        return afresh

    def restore(self, state: State, *, clean: bool) -> list[Afresh]:
        """Go on from a state, before anything else happens; see `restoring`."""
        with self._lock:
            return restore(self._registry, self.feedback, state, self._config.detection, self._clock(), clean=clean)

    def alarm(self, model: str, version: str) -> AlarmState | None:
        """The drift alarm of a version after the last tick; None where it has none."""
        with self._lock:
            found = self._registry.find(model, version)
            return found.alarm if found is not None else None

    def baseline(self, model: str, version: str) -> Baseline | None:
        """The baseline of a version as it stands; None where there is none yet, or no such version."""
        for snapshot in self.snapshot().versions:
            if (snapshot.model, snapshot.version) == (model, version) and snapshot.monitor is not None:
                baseline = snapshot.monitor.baseline
                if not baseline.provisional:
                    return baseline
                assert snapshot.reference is not None
                return with_counts(baseline, snapshot.monitor.binner, snapshot.reference, provisional=True)
        return None


def _with_reference(snapshot: VersionSnapshot) -> VersionSnapshot:
    """A version that is still learning its baseline is held against all that it has learned up to now."""
    if snapshot.monitor is None or snapshot.reference is not None:
        return snapshot
    assert snapshot.counts is not None
    reference = extended(snapshot.monitor.binner, snapshot.monitor.reference, snapshot.counts)
    return msgspec.structs.replace(snapshot, reference=reference)


def _add_to(windows: Iterable[Window], counts: Countable, now: float) -> None:
    for window in windows:
        window.advance(now)
        window.add(counts)
