"""What the store hands out: immutable structs, all of whose counts belong to one moment."""

from collections.abc import Mapping
from typing import Final

import msgspec

from mlexporter.alarm import Alarm, AlarmState
from mlexporter.baseline import Baseline
from mlexporter.binning import Binner, Counts
from mlexporter.concept import ConceptAlarm
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.edges import Floats, Ints
from mlexporter.expectation import Expectations
from mlexporter.feedback import FeedbackSnapshot
from mlexporter.outcome_profile import OutcomeProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.samples import LABEL_COLUMN, PREDICTION_COLUMN, Batch, Rejection
from mlexporter.statistics import Reference, Statistician, reference_of

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends, in seconds, of the buckets of a model's latencies."""


class Monitor(msgspec.Struct, frozen=True):
    """What a version is held against: its baseline and what follows from it. Shared by versions.

    There is no alarm while the baseline is provisional, no outcomes where the baseline has no predictions, and no
    alarm of concept drift where it has no, or too few, labels for them.
    """

    baseline: Baseline
    binner: Binner
    statistician: Statistician
    reference: Reference
    alarm: Alarm | None
    outcomes: OutcomeBinner | None = None
    concept: ConceptAlarm | None = None

    @staticmethod
    def of(
        baseline: Baseline,
        detection: DetectionConfig,
        settings: Mapping[str, ColumnConfig],
        profile: OutcomeProfile | None = None,
    ) -> "Monitor":
        """The monitor of a baseline, with what the configuration says of the alarm, of columns and of outcomes."""
        binner = Binner(baseline)
        reference = reference_of(binner)
        alarm = None if baseline.provisional else alarm_of(baseline, binner, reference, detection, settings)
        outcomes = OutcomeBinner(profile) if profile is not None else None
        concept = ConceptAlarm.of(outcomes, detection) if outcomes is not None else None
        return Monitor(baseline, binner, Statistician(binner), reference, alarm, outcomes, concept)

    @property
    def watched(self) -> int:
        """How many numbers the alarms watch: the columns, and the outcomes."""
        return (len(self.binner.columns) if self.alarm is not None else 0) + (self.concept is not None)

    def frozen(
        self,
        baseline: Baseline,
        reference: Reference,
        detection: DetectionConfig,
        settings: Mapping[str, ColumnConfig],
    ) -> "Monitor":
        """The monitor once its provisional baseline is learned, with the same bins."""
        alarm = alarm_of(baseline, self.binner, reference, detection, settings)
        return msgspec.structs.replace(self, baseline=baseline, reference=reference, alarm=alarm)

    def refitted(
        self, detection: DetectionConfig, settings: Mapping[str, ColumnConfig], profile: OutcomeProfile | None
    ) -> "Monitor":
        """The monitor of the same baseline under other settings, with the same bins."""
        alarm = self.alarm
        if not self.baseline.provisional:
            alarm = alarm_of(self.baseline, self.binner, self.reference, detection, settings)
        outcomes = OutcomeBinner(profile) if profile is not None else None
        concept = ConceptAlarm.of(outcomes, detection) if outcomes is not None else None
        return msgspec.structs.replace(self, alarm=alarm, outcomes=outcomes, concept=concept).keeping(self)

    def keeping(self, before: "Monitor") -> "Monitor":
        """Itself, with those parts of another one of the same baseline that ask and count the same."""
        alarm, outcomes, concept = self.alarm, self.outcomes, self.concept
        if alarm is not None and before.alarm is not None and alarm.fingerprint() == before.alarm.fingerprint():
            alarm = before.alarm
        if outcomes is not None and before.outcomes is not None and outcomes.fingerprint == before.outcomes.fingerprint:
            outcomes = before.outcomes
            if concept is not None and before.concept is not None:
                concept = before.concept if concept.fingerprint() == before.concept.fingerprint() else concept
        return msgspec.structs.replace(self, alarm=alarm, outcomes=outcomes, concept=concept)


def alarm_of(
    baseline: Baseline,
    binner: Binner,
    reference: Reference,
    detection: DetectionConfig,
    settings: Mapping[str, ColumnConfig],
) -> Alarm:
    """The drift alarm of a baseline."""
    return Alarm(binner, Expectations(baseline, binner, reference.bins, detection, settings))


class Latency(msgspec.Struct, frozen=True):
    """Latencies of the model: (K+1,) counts per bucket, the last one unbounded, not cumulative; and their sum."""

    counts: Ints
    sum: float


class VersionComparison(msgspec.Struct, frozen=True):
    """The live data of a version and of the one before it, in the bins of the latter.

    Attributes:
        previous: name of the version before.
        monitor: of the version before; None where it has no bins yet.
        windows: label, fine bins of the version before, and of this one.

    """

    previous: str
    monitor: Monitor | None = None
    windows: tuple[tuple[str, Ints, Ints], ...] = ()


class VersionSnapshot(msgspec.Struct, frozen=True):
    """One model version.

    Attributes:
        model, version, task: its names; task is empty where nobody said.
        samples: accepted since the start.
        last_sample: Unix time, None before the first sample.
        errors: samples that carried an error; `error_reasons` those that named a reason.
        unknown: values in columns that the baseline does not have.
        latency: of the model.
        learned_rows: samples collected so far while there is no baseline, else None.
        monitor, reference, counts: None while there is no baseline. `counts` are since the start.
        windows: label, fine bins and sums of each.
        hidden: columns whose categories are exported as numbers.
        alarm: None until the first tick of a version with a frozen baseline.
        comparison: None of a model's first version.

    """

    model: str
    version: str
    task: str
    samples: int
    last_sample: float | None
    errors: int
    unknown: int
    latency: Latency
    learned_rows: int | None
    monitor: Monitor | None
    reference: Reference | None
    counts: Counts | None
    windows: tuple[tuple[str, Ints, Floats], ...]
    hidden: frozenset[str]
    alarm: AlarmState | None
    error_reasons: Mapping[str, int]
    feedback: FeedbackSnapshot
    comparison: VersionComparison | None

    @property
    def hides_classes(self) -> bool:
        """Whether classes of outcomes are exported as numbers, as those of predictions or of labels are."""
        return not self.hidden.isdisjoint((PREDICTION_COLUMN, LABEL_COLUMN))


class Snapshot(msgspec.Struct, frozen=True):
    """All model versions, ordered by name.

    Attributes:
        versions: all of them.
        series: how many series they may take.
        log_threshold: of the evidence of drift; None where no column is watched.
        labels_waiting: labels that wait for their prediction, by model.
        labels_unmatched: labels that were given up, by model and reason.

    """

    versions: tuple[VersionSnapshot, ...]
    series: int
    log_threshold: float | None
    labels_waiting: Mapping[str, int] = {}
    labels_unmatched: Mapping[tuple[str, str], int] = {}


class Receipt(msgspec.Struct, frozen=True):
    """What became of batches that were sent.

    `awaiting` are those of whose samples some have an id or a label, with their model and version: labels may come for
    them, or came with them.
    """

    accepted: int
    rejections: tuple[Rejection, ...]
    awaiting: tuple[tuple[str, str, Batch], ...] = ()
