"""The series of what labels tell of a model version: counts of outcomes, performance, concept drift, comparison."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mlexporter.categories import shorten
from mlexporter.edges import Floats, Ints
from mlexporter.estimates import estimated, gap
from mlexporter.expectation import TIERS
from mlexporter.exposition.text import Families, add_histogram, prefix
from mlexporter.feedback import DELAY_BUCKETS, RIGHT
from mlexporter.labels import interval
from mlexporter.metrics import Metric
from mlexporter.metrics import feedback as metrics
from mlexporter.metrics.feedback import retracted
from mlexporter.outcome_profile import EXPORTED_OF_MANY, ClassProfile
from mlexporter.outcomes import RESIDUAL_SUMS, OutcomeBinner, OutcomeCounts
from mlexporter.performance import FigureValue, realised
from mlexporter.snapshot import VersionSnapshot

_ONE_SUM = {
    "squared": metrics.SQUARED_ERROR_SUM,
    "fourth": metrics.QUARTIC_ERROR_SUM,
    "percentage": metrics.PERCENTAGE_ERROR_SUM,
    "percentages": metrics.PERCENTAGE_ERRORS,
    "label_squared": metrics.LABEL_SQUARED_DEVIATION_SUM,
}
_TWO_SUMS = {
    "over": (metrics.ABSOLUTE_ERROR_SUM, "over"),
    "under": (metrics.ABSOLUTE_ERROR_SUM, "under"),
    "label_over": (metrics.LABEL_DEVIATION_SUM, "over"),
    "label_under": (metrics.LABEL_DEVIATION_SUM, "under"),
}


class _Block:
    """Series of one counter and of its retracted twin, and how their numbers come from counts."""

    def __init__(self, metric: Metric, labels: Sequence[Mapping[str, str]]) -> None:
        self.names = (metric.name, retracted(metric).name)
        self.prefixes = [[prefix(name, own) for own in labels] for name in self.names]

    def add(self, families: Families, values: tuple[Floats | Ints, Floats | Ints]) -> None:
        """The numbers as counted, and as retracted."""
        for name, prefixes, numbers in zip(self.names, self.prefixes, values, strict=True):
            families[name].add(prefixes, np.asarray(numbers, np.float64))


class FeedbackLines:
    """The text of the outcome counters of one model version, and what changes with its baseline only."""

    def __init__(self, version: VersionSnapshot, binner: OutcomeBinner) -> None:
        self.binner = binner
        self.hides = version.hides_classes
        self.labels = labels = {"model": version.model, "version": version.version}
        self._names = _class_names(binner.classes, hidden=self.hides)
        self._classes = [self._names[name] for name in binner.classes]
        self.baseline = realised(binner, binner.reference) if binner.reference is not None else []
        self._figures: dict[tuple[str, str | None, str | None], bytes] = {}
        self._starts = [_exported_starts(binner, k) for k in range(len(binner.scored))]
        if not isinstance(binner.profile, ClassProfile):
            self._residuals = _Block(metrics.RESIDUALS, [labels])
            self._sums = [_Block(*_sum_series(name, labels)) for name in RESIDUAL_SUMS]
            return
        pairs = [{**labels, "predicted": a, "actual": b} for a in self._classes for b in self._classes]
        self._outcomes = _Block(metrics.OUTCOMES, pairs)
        bins = [
            {**labels, "class": self._names[name], "bin": label}
            for k, name in enumerate(binner.scored)
            for label in _bin_labels(binner.profile.score_edges[k], self._starts[k])
        ]
        self._scores = _Block(metrics.SCORE_BIN, [{**own, "actual": a} for own in bins for a in ("false", "true")])
        self._cumulative = _Block(metrics.SCORE_CUMULATIVE, bins)
        self._score_sums = _Block(metrics.SCORE_SUM, bins)
        self._losses = [
            _Block(metric, [labels] if bins else []) for metric in (metrics.LOG_LOSS_SUM, metrics.SQUARED_ERROR_SUM)
        ]

    def add_figures(
        self,
        families: Families,
        by_name: Mapping[str, Metric],
        values: Sequence[FigureValue],
        window: str | None = None,
    ) -> None:
        """Figures, by their name and class, as the metrics of these names."""
        found: dict[str, tuple[list[bytes], list[float]]] = {}
        for each in values:
            name = by_name[each.figure].name
            prefixes, numbers = found.setdefault(name, ([], []))
            prefixes.append(self._figure(name, each.of_class, window))
            numbers.append(each.value)
        for name, (prefixes, numbers) in found.items():
            families[name].add(prefixes, np.array(numbers))

    def _figure(self, name: str, of_class: str | None, window: str | None) -> bytes:
        """The text of one; the names of means over the classes stand for themselves."""
        known = self._figures.get((name, of_class, window))
        if known is None:
            of = {} if of_class is None else {"class": self._names.get(of_class, of_class)}
            during = {} if window is None else {"window": window}
            known = self._figures[name, of_class, window] = prefix(name, {**self.labels, **of, **during})
        return known

    def add_counts(self, families: Families, both: tuple[OutcomeCounts, OutcomeCounts]) -> None:
        """The counters: of outcomes as they came, and as corrections took them back."""
        binner = self.binner
        if not binner.classes:
            self._residuals.add(families, (np.array([both[0].rows]), np.array([both[1].rows])))
            for i, block in enumerate(self._sums):
                block.add(families, (both[0].sums[i : i + 1], both[1].sums[i : i + 1]))
            return
        self._outcomes.add(families, (binner.confusion(both[0].bins).ravel(), binner.confusion(both[1].bins).ravel()))
        if not binner.scored:
            return
        scores, cumulative, sums = zip(*(self._by_bin(counts) for counts in both), strict=True)
        self._scores.add(families, scores)
        self._cumulative.add(families, cumulative)
        self._score_sums.add(families, sums)
        for i, block in enumerate(self._losses):
            block.add(families, tuple(np.array([binner.losses(counts.sums)[i]]) for counts in both))  # type: ignore[arg-type]

    def _by_bin(self, counts: OutcomeCounts) -> tuple[Ints, Ints, Floats]:
        """Exported bins of all scored classes: by actual; those of another class up to each; sums of scores."""
        scores = [
            np.add.reduceat(self.binner.scores(counts.bins, k), starts, axis=0) for k, starts in enumerate(self._starts)
        ]
        sums = [
            np.add.reduceat(self.binner.score_sums(counts.sums, k), starts) for k, starts in enumerate(self._starts)
        ]
        return (
            np.concatenate([each.ravel() for each in scores]),
            np.concatenate([np.cumsum(each[:, 0]) for each in scores]),
            np.concatenate(sums),
        )


def _class_names(classes: Sequence[str], *, hidden: bool) -> dict[str, str]:
    """Classes as label values: numbers where their names are personal, or would not be different ones."""
    named = {name: name if name == "__other__" else shorten(name) for name in classes}
    if not hidden and len(set(named.values())) == len(named):
        return named
    return {name: name if name == "__other__" else f"{i:02d}" for i, name in enumerate(classes, start=1)}


def _exported_starts(binner: OutcomeBinner, k: int) -> Ints:
    """Where each exported bin of the k-th scored class begins: all its bins of a binary model, else at most 20."""
    bins = binner.score_bins[k]
    if len(binner.scored) == 1:
        return np.arange(bins)
    return np.unique(np.linspace(0, bins, min(bins, EXPORTED_OF_MANY) + 1).astype(np.int64))[:-1]


def _sum_series(name: str, labels: Mapping[str, str]) -> tuple[Metric, list[Mapping[str, str]]]:
    if name in _ONE_SUM:
        return _ONE_SUM[name], [labels]
    metric, direction = _TWO_SUMS[name]
    return metric, [{**labels, "direction": direction}]


def _bin_labels(edges: Sequence[float], starts: Ints) -> Iterator[str]:
    ends = [*starts[1:].tolist(), len(edges) - 1]
    for number, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True), start=1):
        yield f"{number:02d} {interval(edges[start], edges[end])}"


def add_feedback(families: Families, version: VersionSnapshot, lines: FeedbackLines) -> None:
    """Families of labels, outcomes, performance and concept drift."""
    labels = {"model": version.model, "version": version.version}
    feedback = version.feedback
    totals = feedback.totals

    def add(metric: Metric, value: float, **more: str) -> None:
        families[metric.name].add_one(metric.name, {**labels, **more}, value)

    add(metrics.LABELS, totals.labels)
    add(metrics.LABELS_CORRECTED, totals.corrected)
    add(metrics.LABELS_REPEATED, totals.repeated)
    add(metrics.LABELS_INVALID, totals.outcomes.invalid)
    if totals.last_label is not None:
        add(metrics.LAST_LABEL, totals.last_label)
    name = metrics.LABEL_DELAY.name
    add_histogram(families[name], name, labels, DELAY_BUCKETS, totals.delay_counts, totals.delay_sum)
    add(metrics.PREDICTIONS_TRACKED, totals.tracked)
    add(metrics.PREDICTIONS_PENDING, feedback.pending)
    for reason, count in feedback.expired.items():
        add(metrics.PREDICTIONS_EXPIRED, count, reason=reason)
    # hundreds of series, which are not for models that nobody sends labels for
    if lines.binner.reference is not None or totals.tracked or totals.labels:
        lines.add_counts(families, (totals.outcomes, totals.retracted))
        _add_performance(families, version, lines, labels)
    for window, scores in feedback.scores:
        lines.add_figures(families, metrics.PERFORMANCE_ESTIMATED, estimated(lines.binner, scores), window)
    if feedback.concept is not None:
        for tier, evidence, tolerance in zip(
            TIERS, feedback.concept.log_evidence.tolist(), feedback.concept.tolerance.tolist(), strict=True
        ):
            if np.isfinite(evidence):
                add(metrics.CONCEPT_LOG_EVIDENCE, evidence, tier=tier)
            add(metrics.CONCEPT_TOLERANCE, tolerance, tier=tier)


def _add_performance(
    families: Families, version: VersionSnapshot, lines: FeedbackLines, labels: Mapping[str, str]
) -> None:
    """What labels show, what the baseline promised, and how far estimates are off."""

    def add_errors(metric: Metric, values: Sequence[FigureValue], **more: str) -> None:
        for each in values:
            if each.of_class is None and not np.isnan(each.standard_error):
                own = {**labels, "figure": each.figure, **more}
                families[metric.name].add_one(metric.name, own, each.standard_error)

    binner = lines.binner
    if binner.reference is not None:
        name = metrics.PERFORMANCE_BASELINE_OUTCOMES.name
        families[name].add_one(name, labels, binner.reference.rows)
        lines.add_figures(families, metrics.PERFORMANCE_BASELINE, lines.baseline)
        add_errors(metrics.PERFORMANCE_BASELINE_STANDARD_ERROR, lines.baseline)
    for window, counts in version.feedback.windows:
        name = metrics.PERFORMANCE_OUTCOMES.name
        families[name].add_one(name, {**labels, "window": window}, counts.rows)
        values = realised(binner, counts)
        lines.add_figures(families, metrics.PERFORMANCE, values, window)
        add_errors(metrics.PERFORMANCE_STANDARD_ERROR, values, window=window)
        lines.add_figures(families, metrics.PERFORMANCE_GAP, gap(binner, counts, values), window)


def add_comparison(families: Families, version: VersionSnapshot) -> None:
    """Families that hold a version against the one before it."""
    comparison = version.comparison
    if comparison is None:
        return
    labels = {"model": version.model, "version": version.version, "previous_version": comparison.previous}

    def add(metric: Metric, value: float, **more: str) -> None:
        families[metric.name].add_one(metric.name, {**labels, **more}, value)

    add(metrics.VERSION_PREVIOUS_INFO, 1.0)
    agreement, who_was_right = version.feedback.totals.against(comparison.previous)
    for agree, count in zip(("false", "true"), agreement.tolist(), strict=True):
        add(metrics.VERSION_AGREEMENT, count, agree=agree)
    for right, count in zip(RIGHT, who_was_right.tolist(), strict=True):
        add(metrics.VERSION_RIGHT, count, right=right)
    if comparison.monitor is None:
        return
    columns = comparison.monitor.binner.columns
    for window, before, after in comparison.windows:
        psi = comparison.monitor.statistician.psi_between(before, after)
        for column, value in zip(columns, psi.tolist(), strict=True):
            if not np.isnan(value):
                add(metrics.VERSION_PSI, value, role=column.role.value, column=column.name, window=window)
