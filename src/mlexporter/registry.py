"""Which models and versions there are: configured, discovered or rolled out, and the caps on all of them.

Nothing here locks: the store calls it under its lock.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from mlexporter.alarm import AlarmState
from mlexporter.baseline import Baseline
from mlexporter.binning import Counts
from mlexporter.budget import PER_VERSION, comparison_series, outcome_series, series_of
from mlexporter.config import UNVERSIONED, ColumnConfig, Config, ModelConfig
from mlexporter.config import Window as WindowConfig
from mlexporter.derived_profile import counted_profile
from mlexporter.diary import Diary
from mlexporter.edges import Ints
from mlexporter.feedback import Feedback
from mlexporter.learning import Learner
from mlexporter.samples import Batch, Reason, Rejection
from mlexporter.snapshot import LATENCY_BUCKETS, Monitor
from mlexporter.window import Window, refitted


def key_of(model: str, version: str) -> str:
    """By which what is kept of a version is found again."""
    return json.dumps((model, version))


MAX_ERROR_REASONS: Final = 10
"""Reasons of a model's errors that are told apart; those that come later are counted as one."""


class Beside(msgspec.Struct, frozen=True):
    """The live data of a version in the bins of the version before it, where its own are others."""

    monitor: Monitor
    windows: tuple[tuple[str, Window], ...]


class Version:
    """The state of one model version.

    Attributes that are not plain counters:
        config: of the model, if it is configured; `configured` tells whether this very version is.
        pending: batches that wait to be counted.
        folding: how many threads are counting batches taken from it.
        learner: collects samples while there is no baseline; `learns` stays true once there is one.
        refused: why no samples are taken any more.
        last_told: Unix time of the last prediction that came with its label and not as a sample.
        alarm: of drift, from the first tick on that has a frozen baseline; `alarm_from` is what was counted before.
        diary: of a version that learns for so long that it can learn its season, too.
        feedback: what labels tell of it.
        beside: while there is a version before it with other bins, and data.

    """

    def __init__(
        self, model: str, name: str, config: ModelConfig | None, *, configured: bool, kept: bytes | None = None
    ) -> None:
        self.model = model
        self.name = name
        self.config = config
        self.configured = configured
        self.series = PER_VERSION
        self.samples = self.errors = self.unknown = 0
        self.error_reasons: dict[str, int] = {}
        self.first_sample: float | None = None
        self.last_sample: float | None = None
        self.last_told: float | None = None
        self.latency_counts: Ints = np.zeros(len(LATENCY_BUCKETS) + 1, dtype=np.int64)
        self.latency_sum = 0.0
        self.pending: list[Batch] = []
        self.pending_rows = self.pending_bytes = 0
        self.folding = 0
        self.learner: Learner | None = None
        self.learns = False
        self.monitor: Monitor | None = None
        self.counts: Counts | None = None
        self.windows: list[tuple[str, Window]] = []
        self.alarm: AlarmState | None = None
        self.alarm_from: Counts | None = None
        self.diary: Diary | None = None
        self.refused: Rejection | None = None
        self.feedback = Feedback(kept)
        self.beside: Beside | None = None

    @property
    def settings(self) -> Mapping[str, ColumnConfig]:
        """What the configuration says of the model's columns."""
        return self.config.columns if self.config is not None else {}

    def accept(self, batch: Batch, now: float) -> None:
        """Append a batch to what waits to be counted."""
        self.errors += batch.errors
        for reason, count in batch.error_reasons.items():
            known = reason in self.error_reasons or len(self.error_reasons) < MAX_ERROR_REASONS
            name = reason if known else "__other__"
            self.error_reasons[name] = self.error_reasons.get(name, 0) + count
        self.last_sample = now
        if self.first_sample is None:
            self.first_sample = now
        self.pending.append(batch)
        self.pending_rows += batch.size
        self.pending_bytes += batch.weight

    def take(self) -> list[Batch]:
        """What waits to be counted, which is empty then."""
        taken, self.pending = self.pending, []
        self.pending_rows = self.pending_bytes = 0
        return taken

    def all_windows(self) -> Iterator[Window]:
        """The windows of columns, outcomes and scores."""
        of_feedback = self.feedback.windows + self.feedback.score_windows
        beside = self.beside.windows if self.beside is not None else ()
        for _, window in (*self.windows, *of_feedback, *beside):
            yield window

    def watch(self, monitor: Monitor, windows: Sequence[WindowConfig], now: float) -> None:
        """Begin to count against a baseline. Every bin is there, at 0, but for outcomes that were kept."""
        self.monitor = monitor
        self.learner = None
        self.counts = self.alarm_from = monitor.binner.zero()
        self.alarm = self.diary = self.refused = None
        self.windows = [(window.label, Window(window.seconds, self.counts)) for window in windows]
        self.feedback.watch(monitor.outcomes, windows, now)

    def rewindow(self, windows: Sequence[WindowConfig]) -> None:
        """Go on in these windows; those that are new begin empty."""
        assert self.counts is not None
        self.windows = refitted(self.windows, windows, self.counts)
        if self.beside is not None:
            zero = self.beside.monitor.binner.zero()
            beside = tuple(refitted(self.beside.windows, windows, zero))
            self.beside = msgspec.structs.replace(self.beside, windows=beside)

    def unwatch(self, now: float) -> None:
        """Be held against nothing any more."""
        self.monitor = self.counts = self.alarm = self.alarm_from = self.diary = self.beside = self.refused = None
        self.first_sample = None
        self.windows = []
        self.feedback.watch(None, (), now)


class Registry:
    """All model versions, made from the configuration and from what requests name, within hard caps.

    Args:
        config: models, windows, discovery and limits.
        baselines: of the configured models that have one, by (name, version).
        now: Unix time in seconds.
        kept: what an exporter before this one kept of outcomes, by `key_of`.

    """

    def __init__(
        self,
        config: Config,
        baselines: dict[tuple[str, str], Baseline],
        now: float,
        kept: Mapping[str, bytes] | None = None,
    ) -> None:
        self._config = config
        self._kept = dict(kept or {})
        self._models: dict[str, dict[str, Version]] = {}
        self.series = 0
        for model in config.models:
            version = self._add(model.name, model.version or UNVERSIONED, model, configured=True)
            baseline = baselines.get((model.name, model.version or UNVERSIONED))
            if baseline is not None:
                # one that was saved before it was whole goes on no more: it is what the live data are held against
                baseline = msgspec.structs.replace(baseline, provisional=False)
                monitor = Monitor.of(baseline, config.detection, model.columns, counted_profile(baseline, model))
                self.watch(version, monitor, now)
            else:
                self.learn(version)

    def begin_again(self, config: Config) -> list[Version]:
        """Take another configuration, and hand out all versions, oldest first; none of them is known any more."""
        versions = [version for model in self._models.values() for version in model.values()]
        self._config, self._models, self.series = config, {}, 0
        return versions

    def adopt(self, version: Version) -> None:
        """Know a version again, as the newest one of its model; what it is held against is yet to be booked."""
        version.series = PER_VERSION
        self.series += PER_VERSION
        self._models.setdefault(version.model, {})[version.name] = version

    def __iter__(self) -> Iterator[Version]:
        """All versions by model and name."""
        for model in sorted(self._models):
            for name in sorted(self._models[model]):
                yield self._models[model][name]

    @property
    def watched(self) -> int:
        """How many columns, and outcomes, the alarms watch, of all versions together."""
        return sum(version.monitor.watched for version in self if version.monitor is not None)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models."""
        return tuple(sorted(self._models))

    def before(self, version: Version) -> Version | None:
        """The version of the model that came before another one.

        Versions that are known from labels alone come before none and after none: their samples came before a restart.
        """
        known = self.versions_of(version.model)
        versions = [each for each in known if each.configured or each.first_sample is not None]
        index = versions.index(version) if version in versions else 0
        return versions[index - 1] if index else None

    def find(self, model: str, version: str) -> Version | None:
        """A version by its names."""
        return self._models.get(model, {}).get(version)

    def versions_of(self, model: str) -> list[Version]:
        """All versions of one model, oldest first."""
        return list(self._models[model].values())

    def resolve(self, model: str | None, version: str | None, now: float) -> Version | Rejection:
        """The version that a batch belongs to, made if need be; under the lock."""
        if model is None:
            if len(self._models) != 1:
                known = ", ".join(sorted(self._models)) or "none yet"
                return Rejection(
                    0, Reason.UNKNOWN_MODEL, f'"model" is needed unless exactly one is known; known: {known}'
                )
            model = next(iter(self._models))
        versions = self._models.get(model)
        if versions is None:
            return self._discover(model, version or UNVERSIONED)
        if version is None:
            version = self._default_version(versions)
        found = versions.get(version)
        return found if found is not None else self._roll_out(model, versions, version, now)

    def readmit(self, model: str, version: str, monitor: Monitor | None, now: float) -> Version | Rejection:
        """A version that was there before a restart, held against what it was held against then.

        Where that is not to be had, against what a new version is held against.
        """
        found = self.resolve(model, version, now)
        if isinstance(found, Rejection) or monitor is None or found.monitor is monitor:
            return found
        refused = self.room_for(self.series_of(monitor, found) - found.series)
        if refused is not None:
            return refused
        self.watch(found, monitor, now)
        return found

    @staticmethod
    def _default_version(versions: dict[str, Version]) -> str:
        """The version of samples that carry none: the first one that is configured, else the only one there is."""
        configured = [name for name, version in versions.items() if version.configured]
        if configured:
            return configured[0]
        return next(iter(versions)) if len(versions) == 1 else UNVERSIONED

    def _discover(self, model: str, version: str) -> Version | Rejection:
        refused = self.refuses_model(model) or self.room_for(PER_VERSION)
        if refused is not None:
            return refused
        return self.learn(self._add(model, version, None, configured=False))

    def refuses_model(self, model: str) -> Rejection | None:
        """Why a model that is not there is not learned; None where it is."""
        discovery = self._config.discovery
        if not discovery.enabled:
            known = ", ".join(sorted(self._models)) or "none"
            return Rejection(0, Reason.UNKNOWN_MODEL, f"model {model!r} is not configured; known: {known}")
        configured = {entry.name for entry in self._config.models}
        if sum(name not in configured for name in self._models) >= discovery.max_models:
            return Rejection(
                0, Reason.MODEL_LIMIT, f"model {model!r} is one more than discovery.max_models ({discovery.max_models})"
            )
        return None

    def _roll_out(self, model: str, versions: dict[str, Version], version: str, now: float) -> Version | Rejection:
        """A new version of a known model: under its own label, against the model's newest baseline."""
        refused = self.refuses_version(model, version)
        if refused is not None and not self._retire(versions, now):
            return refused
        monitors = [known.monitor for known in versions.values() if known.monitor is not None]
        refused = self.room_for(self.series_of(monitors[-1]) if monitors else PER_VERSION)
        if refused is not None:
            return refused
        config = next((known.config for known in versions.values() if known.config is not None), None)
        found = self._add(model, version, config, configured=False)
        if not monitors:
            return self.learn(found)
        self.watch(found, monitors[-1], now)
        return found

    def refuses_version(self, model: str, version: str) -> Rejection | None:
        """Why a version of a model that is there is one too many; None where it is not."""
        most = self._config.limits.max_versions
        if len(self._models[model]) < most:
            return None
        return Rejection(0, Reason.VERSION_LIMIT, f"version {version!r} is one more than limits.max_versions ({most})")

    def _retire(self, versions: dict[str, Version], now: float) -> bool:
        """Make room by forgetting a version that is not configured and was silent for the longest window."""
        longest = max(window.seconds for window in self._config.windows)
        for version in versions.values():
            if version.learns and version.monitor is not None and version.monitor.baseline.provisional:
                continue  # others may be held against what it learns, which freezes only with it
            # one that is known from what waited since before a restart is the first to go
            idle = now - max(version.last_sample or -math.inf, version.last_told or -math.inf)
            if not version.configured and idle > longest:
                self.forget(version)
                return True
        return False

    def forget(self, version: Version) -> None:
        """Know a version no more, nor its model where it was the only one."""
        self.series -= version.series
        versions = self._models[version.model]
        del versions[version.name]
        if not versions:
            del self._models[version.model]

    def room_for(self, series: int) -> Rejection | None:
        """Why so many series more are too many; None where they are not."""
        most = self._config.limits.max_series
        if self.series + series <= most:
            return None
        return Rejection(
            0,
            Reason.SERIES_LIMIT,
            f"{self.series} series are there and {series} more would pass limits.max_series ({most})",
        )

    def series_of(self, monitor: Monitor, version: Version | None = None) -> int:
        """How many series a version takes at most; without one, the next version of a model."""
        first = version is not None and self.versions_of(version.model)[0] is version
        windows = len(self._config.windows)
        outcomes = monitor.outcomes.profile if monitor.outcomes is not None else None
        # the columns are those of the version before; that of a rollout has the same
        before = self.before(version) if version is not None else None
        held = before.monitor if before is not None and before.monitor is not None else monitor
        compared = 0 if first else comparison_series(held.baseline.columns, windows)
        return series_of(monitor.baseline.columns, windows) + outcome_series(outcomes, windows) + compared

    def _add(self, model: str, version: str, config: ModelConfig | None, *, configured: bool) -> Version:
        kept = self._kept.pop(key_of(model, version), None)
        added = Version(model, version, config, configured=configured, kept=kept)
        self.series += PER_VERSION
        self._models.setdefault(model, {})[version] = added
        return added

    def watch(self, version: Version, monitor: Monitor, now: float) -> None:
        """Hold a version against a baseline from now on, and book the series that it takes."""
        self.book(version, monitor)
        version.watch(monitor, self._config.windows, now)

    def book(self, version: Version, monitor: Monitor) -> None:
        """Book the series that a version takes that is held against a baseline."""
        series = self.series_of(monitor, version)
        self.series += series - version.series
        version.series = series

    def beside(self, version: Version, now: float) -> Beside | None:
        """Where to count a version's samples once more, in the bins of the version before it; under the lock.

        None where its own bins are the same, and where that version has had no samples within the longest window.
        """
        previous = self.before(version)
        if previous is None or previous.monitor is None or version.monitor is None or previous.last_sample is None:
            return None
        longest = max(window.seconds for window in self._config.windows)
        if same_bins(previous.monitor, version.monitor) or now - previous.last_sample > longest:
            version.beside = None
        elif version.beside is None or version.beside.monitor.binner is not previous.monitor.binner:
            zero = previous.monitor.binner.zero()
            windows = tuple((window.label, Window(window.seconds, zero)) for window in self._config.windows)
            version.beside = Beside(previous.monitor, windows)
        return version.beside

    def learn(self, version: Version) -> Version:
        """Learn a baseline from a version's own samples, from now on."""
        version.learner = Learner(self._config.discovery.max_columns)
        version.learns = True
        return version


def same_bins(one: Monitor, other: Monitor) -> bool:
    """Whether counts of both add."""
    return one.binner is other.binner or one.baseline.hash == other.baseline.hash != ""
