"""What labels tell of a version as prometheus_client's own families, written one number at a time."""

import math
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from mlexporter.estimates import estimated, gap
from mlexporter.feedback import DELAY_BUCKETS
from mlexporter.labels import interval
from mlexporter.outcome_profile import RegressionProfile
from mlexporter.outcomes import RESIDUAL_SUMS, OutcomeBinner, OutcomeCounts
from mlexporter.performance import FigureValue, realised
from mlexporter.snapshot import VersionSnapshot


class SlowFeedback:
    """What labels tell of a version, written one number at a time."""

    def __init__(self, families: dict[str, Metric], version: VersionSnapshot, binner: OutcomeBinner) -> None:
        self.families = families
        self.version = version
        self.binner = binner

    def add(self, name: str, value: float, *labels: str) -> None:
        family = self.families["mlexporter_" + name]
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric([self.version.model, self.version.version, *labels], value)

    def collect(self) -> None:
        feedback, totals = self.version.feedback, self.version.feedback.totals
        self.add("labels_total", totals.labels)
        self.add("labels_corrected_total", totals.corrected)
        self.add("labels_repeated_total", totals.repeated)
        self.add("labels_invalid_total", totals.outcomes.invalid)
        if totals.last_label is not None:
            self.add("last_label_timestamp_seconds", totals.last_label)
        delays = self.families["mlexporter_label_delay_seconds"]
        assert isinstance(delays, HistogramMetricFamily)
        ends = [floatToGoString(float(end)) for end in DELAY_BUCKETS]  # type: ignore[no-untyped-call]
        buckets = [(le, int(totals.delay_counts[: i + 1].sum())) for i, le in enumerate((*ends, "+Inf"))]
        delays.add_metric([self.version.model, self.version.version], buckets, totals.delay_sum)
        self.add("predictions_tracked_total", totals.tracked)
        self.add("predictions_pending", feedback.pending)
        for reason, count in feedback.expired.items():
            self.add("predictions_expired_total", count, reason)
        if self.binner.reference is not None or totals.tracked or totals.labels:
            for end, counts in (("_total", totals.outcomes), ("_retracted_total", totals.retracted)):
                self._add_counts(end, counts)
            self._add_figures()
        if feedback.concept is not None:
            for tier, label in enumerate(("warn", "page")):
                if feedback.concept.log_evidence[tier] > -math.inf:
                    self.add("concept_drift_log_evidence", feedback.concept.log_evidence[tier], label)
                self.add("concept_drift_tolerance", feedback.concept.tolerance[tier], label)

    def _add_counts(self, end: str, counts: OutcomeCounts) -> None:
        binner, profile = self.binner, self.binner.profile
        if isinstance(profile, RegressionProfile):
            sums = dict(zip(RESIDUAL_SUMS, counts.sums.tolist(), strict=True))
            self.add("residuals" + end, counts.rows)
            for direction in ("over", "under"):
                self.add("absolute_error_sum" + end, sums[direction], direction)
            self.add("squared_error_sum" + end, sums["squared"])
            self.add("quartic_error_sum" + end, sums["fourth"])
            self.add("percentage_error_sum" + end, sums["percentage"])
            self.add("percentage_errors" + end, sums["percentages"])
            for direction in ("over", "under"):
                self.add("label_deviation_sum" + end, sums["label_" + direction], direction)
            self.add("label_squared_deviation_sum" + end, sums["label_squared"])
            return
        for i, predicted in enumerate(binner.classes):
            for j, actual in enumerate(binner.classes):
                self.add("outcomes" + end, int(binner.confusion(counts.bins)[i, j]), predicted, actual)
        for k, name in enumerate(binner.scored):
            edges, cells = profile.score_edges[k], binner.scores(counts.bins, k).tolist()
            assert len(binner.scored) == 1 or len(edges) <= 21, "small enough for every bin to be exported"
            others = 0
            for i, (wrong, right) in enumerate(cells):
                label = f"{i + 1:02d} {interval(edges[i], edges[i + 1])}"
                others += wrong
                self.add("score_bin" + end, wrong, name, label, "false")
                self.add("score_bin" + end, right, name, label, "true")
                self.add("score_cumulative" + end, others, name, label)
                self.add("score_sum" + end, float(binner.score_sums(counts.sums, k)[i]), name, label)
        if binner.scored:
            self.add("log_loss_sum" + end, binner.losses(counts.sums)[0])
            self.add("squared_error_sum" + end, binner.losses(counts.sums)[1])

    def _add_figures(self) -> None:
        """The figures themselves have their own tests; here it is about how they are written."""

        def add(kind: str, values: Iterable[FigureValue], *window: str) -> None:
            for each in values:
                name = f"mlexporter_performance_{kind}{each.figure}"
                labels = {"model": self.version.model, "version": self.version.version}
                labels |= {} if each.of_class is None else {"class": each.of_class}
                # a binary model has no class to name, which a family of prometheus_client cannot leave out
                self.families[name].add_sample(name, labels | dict(zip(("window",), window, strict=False)), each.value)
                if kind in ("", "baseline_") and each.of_class is None and not math.isnan(each.standard_error):
                    self.add(f"performance_{kind}standard_error", each.standard_error, each.figure, *window)

        reference = self.binner.reference
        if reference is not None:
            self.add("performance_baseline_outcomes", reference.rows)
            add("baseline_", realised(self.binner, reference))
        for window, counts in self.version.feedback.windows:
            self.add("performance_outcomes", counts.rows, window)
            add("", realised(self.binner, counts), window)
            add("gap_", gap(self.binner, counts, realised(self.binner, counts)), window)
        for window, scores in self.version.feedback.scores:
            add("estimated_", estimated(self.binner, scores), window)
