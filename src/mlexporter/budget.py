"""How many series the metrics of a model version take, before they exist: limits.max_series is held to this."""

from collections.abc import Iterable
from typing import Final

from mlexporter.baseline import Column, NumericColumn

# samples, last sample, info, baseline rows, unknown columns, errors, and the 17 of the latency histogram
PER_VERSION: Final = 23
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
