"""Another configuration for versions that are running: what is the same for it goes on, the rest begins afresh.

What comes of a version is what would come of it at a restart (see `restoring`), but for what is under way: samples that
were accepted are counted once, whatever they were sent to, and what collects samples to learn from keeps them.

Evidence goes on only against the null hypothesis that it was gathered against; against any other it begins at nothing,
so that the bound on false alarms holds for each stretch of it. A reload can delay an alarm, and never bring one about.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mlexporter.alarm import Alarm
from mlexporter.baseline import Baseline
from mlexporter.concept import ConceptAlarm
from mlexporter.config import UNVERSIONED, Config, ModelConfig
from mlexporter.derived_profile import counted_profile
from mlexporter.diary import Diary
from mlexporter.feedback import fingerprint_of
from mlexporter.registry import Registry, Version
from mlexporter.restoring import Afresh, typed_as
from mlexporter.samples import Rejection
from mlexporter.snapshot import Monitor

_NOT_CONFIGURED: Final = "it is not configured any more"


class Reloading:
    """One change of configuration. Between its making and the end of `apply` no learned baseline may be frozen.

    Args:
        registry: of the versions; as this is made under its lock, they are looked at.
        config: that is to hold.
        baselines: of the configured models that have one, by (name, version).

    """

    def __init__(self, registry: Registry, config: Config, baselines: Mapping[tuple[str, str], Baseline]) -> None:
        self.afresh: list[Afresh] = []
        self._registry = registry
        self._config = config
        self._baselines = baselines
        self._models: dict[str, ModelConfig] = {}
        for model in config.models:
            self._models.setdefault(model.name, model)
        self._own = {(model.name, model.version or UNVERSIONED): model for model in config.models}
        self._before = [(version, version.monitor) for version in registry if version.monitor is not None]
        self._of_files = [monitor for version, monitor in self._before if version.configured and not version.learns]
        self._from_files: dict[tuple[str, str], Monitor] = {}
        self._learned: dict[int, tuple[Monitor, Monitor | None]] = {}

    def prepare(self) -> None:
        """Make what the versions are to be held against, which takes its time; outside the lock."""
        for key, model in self._own.items():
            baseline = self._baselines.get(key)
            if baseline is not None:
                baseline = msgspec.structs.replace(baseline, provisional=False)
                self._from_files[key] = self._from_file(key, model, baseline)
        for version, monitor in self._before:
            if version.learns:
                self._refitted(version, monitor)

    def _from_file(self, key: tuple[str, str], model: ModelConfig, baseline: Baseline) -> Monitor:
        detection, profile = self._config.detection, counted_profile(baseline, model)
        known = next((monitor for version, monitor in self._before if (version.model, version.name) == key), None)
        if known is None or not _continues(known, baseline):
            return Monitor.of(baseline, detection, model.columns, profile)
        if any(monitor is known for monitor in self._of_files):
            return known.refitted(detection, model.columns, profile)
        return Monitor.of(baseline, detection, model.columns, profile).keeping(known)

    def _refitted(self, version: Version, monitor: Monitor) -> Monitor | None:
        """A learned monitor under the new settings; None where they give its columns other types."""
        if id(monitor) not in self._learned:
            model = self._own.get((version.model, version.name)) or self._models.get(version.model)
            settings = model.columns if model is not None else {}
            fits = typed_as(monitor.binner.columns, settings)
            refitted = None
            if fits:  # outcomes are counted in bins that follow from the columns as they were when they were fixed
                begun = msgspec.structs.replace(monitor.baseline, columns=monitor.binner.columns, provisional=True)
                refitted = monitor.refitted(self._config.detection, settings, counted_profile(begun, model))
            self._learned[id(monitor)] = monitor, refitted
        return self._learned[id(monitor)][1]

    # -- under the lock -----------------------------------------------------------------------------------------------

    def apply(self, now: float) -> list[Afresh]:
        """Let it hold; under the lock, with all that was accepted before `prepare` counted.

        Returns:
            What begins afresh.

        """
        versions = self._registry.begin_again(self._config)
        known = {(version.model, version.name): version for version in versions}
        for key, model in self._own.items():
            self._configured(known.pop(key, None), key, model, now)
        for version in versions:
            if (version.model, version.name) in known:
                self._other(version, now)
        return self.afresh

    def _note(self, version: Version, why: str) -> None:
        self.afresh.append(Afresh(version.model, version.name, why))

    def _configured(self, known: Version | None, key: tuple[str, str], model: ModelConfig, now: float) -> None:
        """A version that the configuration names."""
        version = known or Version(*key, model, configured=True)
        self._registry.adopt(version)
        same = known is not None and version.config == model
        version.configured, version.config = True, model
        monitor = self._from_files.get(key)
        if monitor is not None:
            self._hold(version, monitor, now)
            version.learns, version.learner = False, None
        else:
            self._learn(version, now, same=same, instead=self._goes_on(version))

    def _other(self, version: Version, now: float) -> None:
        """A version that was rolled out or discovered, or that the configuration named before."""
        refused = _NOT_CONFIGURED if version.configured else self._refusal(version)
        if refused is not None:
            self._note(version, refused)
            return
        model = self._models.get(version.model)
        same = version.config == model
        version.config = model
        monitor = self._goes_on(version) or _newest(self._others(version))
        self._registry.adopt(version)
        wanted = self._registry.series_of(monitor, version) if monitor is not None else version.series
        self._registry.forget(version)
        if no_room := self._registry.room_for(wanted):
            self._note(version, no_room.message)
            return
        self._registry.adopt(version)
        if monitor is None or version.learns:
            self._learn(version, now, same=same, instead=monitor)
        else:
            self._hold(version, monitor, now)

    def _refusal(self, version: Version) -> str | None:
        """Why a version that the configuration does not name may not go on."""
        known = self._registry.models
        if version.model not in known:
            refused = self._registry.refuses_model(version.model)
        else:
            refused = self._registry.refuses_version(version.model, version.name)
        return refused.message if isinstance(refused, Rejection) else None

    def _goes_on(self, version: Version) -> Monitor | None:
        """What a version without a file of its own goes on against; None where that is not there any more."""
        before, others = version.monitor, self._others(version)
        if before is None:
            return None
        if version.learns:
            return self._refitted(version, before)
        _, refitted = self._learned.get(id(before), (None, None))
        if refitted is not None and not refitted.baseline.provisional:
            return refitted
        # what is provisional is frozen by the version that learns it: without that one, it would be so for ever
        return next((other for other in others if other is refitted or _continues(before, other.baseline)), None)

    def _others(self, version: Version) -> Sequence[Monitor]:
        """What versions of its model that are settled already are held against."""
        known = self._registry.versions_of(version.model) if version.model in self._registry.models else []
        return [each.monitor for each in known if each is not version and each.monitor is not None]

    def _learn(self, version: Version, now: float, *, same: bool, instead: Monitor | None = None) -> None:
        """Go on with what was learned, or is being learned; `instead` is for a version that has learned nothing."""
        before = version.monitor
        if before is None:
            if instead is not None:
                version.learns = False
                self._registry.watch(version, instead, now)
            elif version.learner is None or not same or version.refused is not None:
                version.refused = None
                self._registry.learn(version)
            return
        monitor = self._refitted(version, before) if version.learns else None
        if monitor is not None:
            self._hold(version, monitor, now)
        elif instead is not None:
            version.learns = False
            self._hold(version, instead, now)
        else:
            self._note(version, "its baseline changed")
            version.unwatch(now)
            self._registry.learn(version)

    def _hold(self, version: Version, monitor: Monitor, now: float) -> None:
        """Hold a version against a monitor, and go on wherever it is the same as before."""
        before = version.monitor
        if before is None or not _continues(before, monitor.baseline):
            if before is not None:
                self._note(version, "its baseline changed")
            self._registry.watch(version, monitor, now)
            version.rewindow(self._config.windows)
            return
        self._registry.book(version, monitor)
        version.monitor = monitor
        if version.diary is not None:
            kept, version.diary = version.diary.state(), self._diary(version, monitor)
            if not version.diary.restore(kept):
                self._note(version, "time zones changed: the season it is learning")
        if _null(monitor.alarm) != _null(before.alarm):
            if version.alarm is not None:
                self._note(version, "what its drift alarm accepts changed: the evidence")
            version.alarm, version.alarm_from = None, version.counts
        self._feedback(version, monitor, before, now)
        windows = version.windows
        version.rewindow(self._config.windows)
        for label, window in version.windows:
            if (label, window) not in windows:
                self._note(version, f"window {label} is new")

    def _diary(self, version: Version, monitor: Monitor) -> Diary:
        return Diary(monitor.binner, version.settings, self._config.detection.timezone)

    def _feedback(self, version: Version, monitor: Monitor, before: Monitor, now: float) -> None:
        feedback = version.feedback
        if fingerprint_of(monitor.outcomes) != fingerprint_of(before.outcomes):
            self._note(version, "outcomes are counted in other bins")
            feedback.watch(monitor.outcomes, self._config.windows, now)
            return
        feedback.binner = monitor.outcomes
        feedback.rewindow(self._config.windows, now)
        if _null(monitor.concept) != _null(before.concept):
            if feedback.concept is not None:
                self._note(version, "what its alarm on concept drift accepts changed: the evidence")
            feedback.concept, feedback.concept_from = None, feedback.totals.outcomes


def _continues(before: Monitor, baseline: Baseline) -> bool:
    """Whether what was counted against a monitor goes on against a baseline."""
    own = before.baseline
    return own is baseline or (own.hash == baseline.hash != "" and own.provisional == baseline.provisional)


def _null(alarm: Alarm | ConceptAlarm | None) -> str:
    """The fingerprint of an alarm's null hypothesis; empty where there is no alarm."""
    return alarm.fingerprint() if alarm is not None else ""


def _newest(monitors: Sequence[Monitor]) -> Monitor | None:
    return monitors[-1] if monitors else None
