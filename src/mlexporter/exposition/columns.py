"""The series of the columns of a model version.

The text of a series, its name and labels, is encoded once per baseline; a scrape only writes numbers.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from mlexporter import metrics
from mlexporter.alarm import AlarmState
from mlexporter.baseline import NumericColumn
from mlexporter.binning import Binner
from mlexporter.edges import Floats, Ints
from mlexporter.expectation import TIERS
from mlexporter.exposition.text import Families, Family, go_number, prefix
from mlexporter.labels import bin_labels
from mlexporter.snapshot import Monitor, VersionSnapshot
from mlexporter.statistics import Reference

_WINDOW_METRICS = (
    metrics.WINDOW_SAMPLES, metrics.PSI, metrics.PSI_NOISE_FLOOR, metrics.JS_DISTANCE, metrics.HELLINGER_DISTANCE,
    metrics.KS_DISTANCE, metrics.WASSERSTEIN, metrics.MISSING_RATIO, metrics.OUT_OF_RANGE_RATIO,
    metrics.NEW_CATEGORY_RATIO,
)  # fmt: skip
_WINDOW_FIELDS = (
    "samples", "psi", "psi_noise_floor", "js_distance", "hellinger_distance", "ks_distance", "wasserstein_stddevs",
    "missing_ratio", "out_of_range_ratio", "new_category_ratio",
)  # fmt: skip


class _HistogramLines:
    """Lines of one metric's histograms, and where their counts lie in a flat vector of bins."""

    def __init__(self, binner: Binner, labels: Mapping[str, str]) -> None:
        name = metrics.COLUMN_VALUE.name
        self.prefixes: list[bytes] = []
        self.edge_prefixes: list[bytes] = []
        edges_at: list[int] = []
        values_end: list[int] = []
        begins: list[int] = []
        ends: list[int] = []
        self._sums_at: list[int] = []
        self._sum_columns: list[int] = []
        for i, column in enumerate(binner.numeric):
            own = {**labels, "role": column.role.value, "column": column.name}
            begin = int(binner.offsets[i])
            missing = int(binner.offsets[i + 1]) - 1
            for edge in _bucket_edges(column):
                le = go_number(column.edges[edge])
                edges_at.append(len(self.prefixes))
                values_end.append(missing)
                self.edge_prefixes.append(prefix(metrics.COLUMN_BASELINE_VALUE_RATIO.name, {**own, "edge": le}))
                self.prefixes.append(prefix(f"{name}_bucket", {**own, "le": le}))
                begins.append(begin)
                ends.append(begin + edge + 1)
            lines: list[tuple[str, dict[str, str]]] = [("_bucket", {"le": "+Inf"})]
            # a sum that falls is no counter: OpenMetrics forbids it, and the count with it, below zero
            if has_sum := column.minimum >= 0:
                lines += [("_count", {}), ("_sum", {})]
            for suffix, le_label in lines:
                self.prefixes.append(prefix(f"{name}{suffix}", {**own, **le_label}))
                begins.append(begin)
                ends.append(missing)
            if has_sum:
                self._sums_at.append(len(self.prefixes) - 1)
                self._sum_columns.append(i)
        self._edges_at, self._values_end = np.array(edges_at, dtype=np.int64), np.array(values_end, dtype=np.int64)
        self._begins, self._ends = np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64)
        self._columns = [int(offset) for offset in binner.offsets[: len(binner.numeric)]]

    def values(self, bins: Ints, sums: Floats) -> Floats:
        """The numbers of the lines."""
        if not self.prefixes:
            return np.empty(0)
        cumulative = np.concatenate([[0], np.cumsum(bins)])
        values: Floats = (cumulative[self._ends] - cumulative[self._begins]).astype(np.float64)
        values[self._sums_at] = np.add.reduceat(sums, self._columns)[self._sum_columns]
        return values

    def ratios(self, bins: Ints) -> Floats:
        """The shares of the values up to each edge; NaN where there is no value."""
        cumulative = np.concatenate([[0], np.cumsum(bins)])
        before = cumulative[self._begins[self._edges_at]]
        with np.errstate(invalid="ignore"):
            ratios: Floats = (cumulative[self._ends[self._edges_at]] - before) / (cumulative[self._values_end] - before)
        return ratios


def _bucket_edges(column: NumericColumn) -> Iterator[int]:
    """Edges that become buckets: not the lowest, and not one that only sets an atom apart."""
    for i, following in pairwise((*column.coarse[1:], None)):
        assert i is not None
        if following is None or np.nextafter(column.edges[i], np.inf) != column.edges[following]:
            yield i


class ColumnLines:
    """The text of all series of one model version with a baseline."""

    def __init__(self, snapshot: VersionSnapshot, monitor: Monitor) -> None:
        self.monitor = monitor
        self._made_for = _named(snapshot)
        labels = {"model": snapshot.model, "version": snapshot.version}
        columns = [{**labels, "role": column.role.value, "column": column.name} for column in monitor.binner.columns]
        bins = [
            {**own, "bin": label}
            for own, column in zip(columns, monitor.binner.columns, strict=True)
            for label in bin_labels(column, export_names=column.name not in snapshot.hidden)
        ]
        self.bins = [prefix(metrics.COLUMN_BIN.name, own) for own in bins]
        self._ratios = [prefix(metrics.COLUMN_BASELINE_RATIO.name, own) for own in bins]
        self._ratios_of: tuple[Reference, list[bytes], list[bytes]] | None = None
        self.invalid = [prefix(metrics.VALUES_INVALID.name, own) for own in columns]
        self.histogram = _HistogramLines(monitor.binner, labels)
        self.dispersion = [prefix(metrics.COLUMN_DISPERSION.name, own) for own in columns]
        self.evidence, self.tolerance = (
            [[prefix(metric.name, {**own, "tier": tier}) for own in columns] for tier in TIERS]
            for metric in (metrics.DRIFT_LOG_EVIDENCE, metrics.COLUMN_TOLERANCE)
        )
        self.windows = [
            [[prefix(metric.name, {**own, "window": window}) for own in columns] for metric in _WINDOW_METRICS]
            for window, _, _ in snapshot.windows
        ]

    def fits(self, snapshot: VersionSnapshot, monitor: Monitor) -> bool:
        """Whether the text is that of a version as it is now: bins, windows and hidden names may change."""
        return self.monitor.binner is monitor.binner and self._made_for == _named(snapshot)

    def ratios(self, reference: Reference) -> tuple[list[bytes], list[bytes]]:
        """The lines of the baseline's shares, numbers and all, which change with the baseline only: of the bins, and of
        the values up to the edges.
        """
        if self._ratios_of is None or self._ratios_of[0] is not reference:
            of_bins, of_values = Family(), Family()
            of_bins.add(self._ratios, self.monitor.statistician.baseline_ratios(reference))
            of_values.add(self.histogram.edge_prefixes, self.histogram.ratios(reference.bins))
            self._ratios_of = (reference, of_bins.parts, of_values.parts)
        return self._ratios_of[1:]


def _named(snapshot: VersionSnapshot) -> tuple[frozenset[str], tuple[str, ...]]:
    return snapshot.hidden, tuple(label for label, _, _ in snapshot.windows)


def add_columns(families: Families, version: VersionSnapshot, lines: ColumnLines) -> None:
    """Families with series per column."""
    statistician = lines.monitor.statistician
    assert version.reference is not None
    assert version.counts is not None
    counts = version.counts
    families[metrics.COLUMN_BIN.name].add(lines.bins, statistician.exported(counts.bins).astype(np.float64))
    of_bins, of_values = lines.ratios(version.reference)
    families[metrics.COLUMN_BASELINE_RATIO.name].parts += of_bins
    families[metrics.COLUMN_BASELINE_VALUE_RATIO.name].parts += of_values
    families[metrics.VALUES_INVALID.name].add(lines.invalid, counts.invalid.astype(np.float64))
    families[metrics.COLUMN_VALUE.name].add(lines.histogram.prefixes, lines.histogram.values(counts.bins, counts.sums))
    for (_, bins, sums), by_metric in zip(version.windows, lines.windows, strict=True):
        statistics = statistician.compute(version.reference, bins, sums)
        for metric, field, prefixes in zip(_WINDOW_METRICS, _WINDOW_FIELDS, by_metric, strict=True):
            families[metric.name].add(prefixes, getattr(statistics, field))


def add_alarm(families: Families, alarm: AlarmState, lines: ColumnLines) -> None:
    """Families of the drift alarm."""
    families[metrics.COLUMN_DISPERSION.name].add(lines.dispersion, alarm.evidence.dispersion.ratio)
    # before the first samples there is no evidence, and its logarithm is no number
    evidence = np.where(np.isfinite(alarm.evidence.log_evidence), alarm.evidence.log_evidence, np.nan)
    for tier in range(len(TIERS)):
        families[metrics.DRIFT_LOG_EVIDENCE.name].add(lines.evidence[tier], evidence[tier])
        families[metrics.COLUMN_TOLERANCE.name].add(lines.tolerance[tier], alarm.tolerance[tier])
