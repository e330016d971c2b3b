"""How many series the metrics of a model version take, before they exist: limits.max_series is held to this."""

from collections.abc import Iterable, Sequence
from typing import Final

from mlexporter.baseline import Column, NumericColumn
from mlexporter.metrics.feedback import FIGURES
from mlexporter.outcome_profile import EXPORTED_OF_MANY, OutcomeProfile, RegressionProfile

# samples, last sample, info, baseline rows, unknown columns, errors and up to 11 reasons of them, the 17 of the latency
# histogram
PER_VERSION: Final = 34
# info, agreement and right
_PER_COMPARISON: Final = 7
# labels and predictions, by what became of them, the 14 of the histogram of delays, concept drift
_PER_FEEDBACK: Final = 30
# of a window, and of a baseline: figures with a sampling error, and the number of outcomes
_ERRORS: Final = 9
_NUMERIC_GAUGES: Final = 9
# evidence and tolerance of both tiers, and the dispersion
_ALARM_GAUGES: Final = 5
_CATEGORICAL_GAUGES: Final = 7


def series_of(columns: Iterable[Column], windows: int) -> int:
    """An upper bound: a statistic that lacks data is absent, but may appear."""
    total = PER_VERSION
    for column in columns:
        total += _ALARM_GAUGES
        if isinstance(column, NumericColumn):
            bins = len(column.coarse) + 2
            buckets = len(column.coarse) + 2  # at most a bucket per edge but the lowest, +Inf, count and sum
            edges = len(column.coarse) - 1
            total += 2 * bins + buckets + edges + 1 + _NUMERIC_GAUGES * windows
        else:
            total += 2 * len(column.counts) + 1 + _CATEGORICAL_GAUGES * windows
    return total


def comparison_series(columns: Sequence[Column], windows: int) -> int:
    """An upper bound for the series that hold a version against the one before it."""
    return _PER_COMPARISON + len(columns) * windows


def outcome_series(profile: OutcomeProfile | None, windows: int) -> int:
    """An upper bound for the series of outcomes and performance; 0 where nothing is counted."""
    if profile is None:
        return 0
    if isinstance(profile, RegressionProfile):
        task, per_class, counters = "regression", 1, 10
    else:
        task = profile.task
        many = task == "multiclass"
        classes = len(profile.classes) + many
        per_class = classes + 2 if many else 1
        bins = sum(min(len(edges) - 1, EXPORTED_OF_MANY) if many else len(edges) - 1 for edges in profile.score_edges)
        counters = classes**2 + 4 * bins + 2
    figures = [(per_class if figure.by_class else 1, figure) for figure in FIGURES if task in figure.tasks]
    shown = sum(count for count, _ in figures) + _ERRORS
    estimated = sum(count for count, figure in figures if figure.estimated)
    return _PER_FEEDBACK + 2 * counters + shown + windows * (shown + 2 * estimated)
