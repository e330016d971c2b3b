"""A snapshot to the text that Prometheus scrapes.

The text of a series, its name and labels, is encoded once per baseline; a scrape only writes numbers. The result is
byte for byte what prometheus_client writes for the same families, which a test holds it to.
"""

from collections.abc import Mapping

from mlexporter import metrics
from mlexporter.expectation import TIERS
from mlexporter.exposition.columns import ColumnLines, add_alarm, add_columns
from mlexporter.exposition.feedback import FeedbackLines, add_comparison, add_feedback
from mlexporter.exposition.text import Families, Family, add_histogram, header, numbers, prefix
from mlexporter.metrics import Metric
from mlexporter.metrics.feedback import LABELS_UNMATCHED, LABELS_WAITING
from mlexporter.outcomes import OutcomeBinner
from mlexporter.snapshot import LATENCY_BUCKETS, Snapshot, VersionSnapshot

__all__ = ["Exposition", "header", "numbers", "prefix"]


class Exposition:
    """Writes pages. Safe to call from one thread at a time."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], ColumnLines] = {}
        self._feedback_lines: dict[tuple[str, str], FeedbackLines] = {}

    def page(self, snapshot: Snapshot, *, openmetrics: bool = False) -> bytes:
        """The families of all models, in the order of `metrics.MODEL_METRICS`, without an end-of-file mark.

        A family without a series is left out.
        """
        families = {metric.name: Family() for metric in metrics.MODEL_METRICS}
        lines: dict[tuple[str, str], ColumnLines] = {}
        feedback_lines: dict[tuple[str, str], FeedbackLines] = {}
        self._add_waiting(families, snapshot)
        for version in snapshot.versions:
            key = (version.model, version.version)
            self._add_version(families, version)
            if version.monitor is not None:
                known = self._lines.get(key)
                fits = known is not None and known.fits(version, version.monitor)
                lines[key] = known if fits and known is not None else ColumnLines(version, version.monitor)
                add_columns(families, version, lines[key])
                if version.alarm is not None:
                    add_alarm(families, version.alarm, lines[key])
                if version.monitor.outcomes is not None:
                    feedback_lines[key] = self._feedback_of(version, version.monitor.outcomes)
                    add_feedback(families, version, feedback_lines[key])
            add_comparison(families, version)
        self._lines, self._feedback_lines = lines, feedback_lines
        if snapshot.log_threshold is not None:
            for tier in TIERS:
                name = metrics.DRIFT_LOG_THRESHOLD.name
                families[name].add_one(name, {"tier": tier}, snapshot.log_threshold)
        text: list[bytes] = []
        for metric in metrics.MODEL_METRICS:
            parts = families[metric.name].parts
            if parts:
                text.append(header(metric, openmetrics=openmetrics))
                text += parts
        text.append(b"\n")
        return b"".join(text)[1:]

    def _feedback_of(self, version: VersionSnapshot, binner: OutcomeBinner) -> FeedbackLines:
        """The lines of a version's outcomes, made when its bins are new."""
        known = self._feedback_lines.get((version.model, version.version))
        fits = known is not None and known.binner is binner and known.hides == version.hides_classes
        return known if fits and known is not None else FeedbackLines(version, binner)

    @staticmethod
    def _add_waiting(families: Families, snapshot: Snapshot) -> None:
        """Families of labels that found no prediction, by model."""
        for model, count in sorted(snapshot.labels_waiting.items()):
            name = LABELS_WAITING.name
            families[name].add_one(name, {"model": model}, count)
            for reason in ("horizon", "limit"):
                name = LABELS_UNMATCHED.name
                lost = snapshot.labels_unmatched.get((model, reason), 0)
                families[name].add_one(name, {"model": model, "reason": reason}, lost)

    @staticmethod
    def _add_version(families: Families, version: VersionSnapshot) -> None:
        """Families with one series, or one histogram, per version."""
        labels = {"model": version.model, "version": version.version}

        def add(metric: Metric, value: float, more: Mapping[str, str] | None = None) -> None:
            families[metric.name].add_one(metric.name, {**labels, **(more or {})}, value)

        add(metrics.SAMPLES, version.samples)
        add(metrics.INFERENCE_ERRORS, version.errors)
        for reason, count in sorted(version.error_reasons.items()):
            add(metrics.INFERENCE_ERROR_REASONS, count, {"reason": reason})
        add(metrics.VALUES_UNKNOWN_COLUMN, version.unknown)
        if version.last_sample is not None:
            add(metrics.LAST_SAMPLE, version.last_sample)
        if version.monitor is not None and version.reference is not None:
            baseline = version.monitor.baseline
            add(
                metrics.MODEL_INFO,
                1.0,
                {
                    "task": version.task,
                    "baseline_hash": "provisional" if baseline.provisional else baseline.hash,
                    "baseline_source": baseline.source,
                },
            )
            add(metrics.BASELINE_ROWS, version.reference.rows)
        name, latency = metrics.INFERENCE_DURATION.name, version.latency
        add_histogram(families[name], name, labels, LATENCY_BUCKETS, latency.counts, latency.sum)
