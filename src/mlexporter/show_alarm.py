"""What the drift alarm makes of a baseline, as a table for people: seasons, tolerances, and days beyond them."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from mlexporter.baseline import Baseline, Column
from mlexporter.binning import Binner
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.expectation import Expectations
from mlexporter.history import HOURS
from mlexporter.statistics import reference_of
from mlexporter.terminal import aligned, clipped, printable

_LONGEST_NAME: Final = 40
_DAYS_LISTED: Final = 4
_HEADINGS: Final = ("role", "name", "season", "days", "warn", "page", "days beyond (and how far)")


def alarm_table(baseline: Baseline, detection: DetectionConfig, settings: Mapping[str, ColumnConfig]) -> list[str]:
    """A heading, and a line for each column; tolerances of a column with a season are the median of its hours."""
    binner = Binner(baseline)
    expectations = Expectations(baseline, binner, reference_of(binner).bins, detection, settings)
    hours = range(HOURS) if len(expectations.seasonal) else range(1)
    by_hour = [expectations.at_hour(hour).tolerance for hour in hours]
    warn, page = np.median(by_hour, axis=0)
    seasonal = set(expectations.seasonal.tolist())
    rows = [_line(column, i in seasonal, float(warn[i]), float(page[i])) for i, column in enumerate(binner.columns)]
    return aligned([_HEADINGS, *sorted(rows, key=lambda row: row[:2])], left=(0, 1, 2, 6))


def _line(column: Column, seasonal: bool, warn: float, page: float) -> tuple[str, ...]:
    days = column.days
    return (
        column.role.value,
        clipped(printable(column.name), _LONGEST_NAME),
        column.season.timezone if seasonal and column.season is not None else "-",
        str(days.count) if days is not None else "-",
        f"{warn:.4f}",
        f"{page:.4f}",
        _beyond(days.beyond) if days is not None else "",
    )


def _beyond(beyond: Sequence[tuple[str, float]]) -> str:
    """The worst days, in the order of time."""
    worst = sorted(beyond, key=lambda day: -day[1])[:_DAYS_LISTED]
    text = ", ".join(f"{date} ({off:.3g})" for date, off in sorted(worst))
    more = len(beyond) - len(worst)
    return f"{text} and {more} more" if more else text
