"""What `GET /api/v1/status` tells: models, versions, columns, baselines, sample counts, current drift numbers."""

import math
from typing import Any

from mlexporter import __version__
from mlexporter.baseline import NumericColumn
from mlexporter.feedback_status import labels_of
from mlexporter.snapshot import Snapshot, VersionSnapshot
from mlexporter.statistics import WindowStatistics


def status_of(snapshot: Snapshot, *, started: float, max_series: int) -> dict[str, Any]:
    """The status as JSON values.

    Args:
        snapshot: of the store.
        started: Unix time of the start.
        max_series: the limit.

    """
    return {
        "version": __version__,
        "started": started,
        "series": {"used": snapshot.series, "limit": max_series},
        "models": [_version(version) for version in snapshot.versions],
    }


def _version(version: VersionSnapshot) -> dict[str, Any]:
    described: dict[str, Any] = {
        "model": version.model,
        "version": version.version,
        "task": version.task or None,
        "samples": version.samples,
        "last_sample": version.last_sample,
        "inference_errors": version.errors,
        "values_in_unknown_columns": version.unknown,
    }
    described["feedback"] = labels_of(version)
    monitor, reference, counts = version.monitor, version.reference, version.counts
    if monitor is None or reference is None or counts is None:
        return described | {"state": "learning", "learned_samples": version.learned_rows or 0, "columns": []}
    baseline = monitor.baseline
    windows = [(label, monitor.statistician.compute(reference, bins, sums)) for label, bins, sums in version.windows]
    return described | {
        "state": "provisional" if baseline.provisional else "watching",
        "baseline": {
            "source": baseline.source,
            "hash": None if baseline.provisional else baseline.hash,
            "rows": reference.rows,
        },
        "columns": [
            {
                "role": column.role.value,
                "column": column.name,
                "type": _type(column),
                "invalid": int(counts.invalid[i]),
                "windows": {label: _numbers(statistics, i) for label, statistics in windows},
            }
            for i, column in enumerate(monitor.binner.columns)
        ],
    }


def _type(column: object) -> str:
    if isinstance(column, NumericColumn):
        return "numeric"
    return "boolean" if getattr(column, "boolean", False) else "categorical"


def _numbers(statistics: WindowStatistics, column: int) -> dict[str, float | None]:
    """The statistics of one column; None where one is absent."""
    numbers: dict[str, float | None] = {}
    for name in WindowStatistics.__struct_fields__:
        value = float(getattr(statistics, name)[column])
        numbers[name] = None if math.isnan(value) else value
    return numbers
