"""What the drift alarm expects of each column, and how much drift it accepts, at each hour.

What is accepted is the largest of: what the tier accepts at least; what the days of the history usually differ by; and
what a baseline of so many rows can resolve at all. The configuration replaces the first two, never the last one,
without which the baseline's own error would alarm.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.alarm_bins import RATES, AlarmBins
from mlexporter.baseline import Baseline, Column, Days, Variation
from mlexporter.binning import Binner, in_order
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.dictionary import radius, share_at, smoothed
from mlexporter.drift import MIN_ROWS
from mlexporter.edges import Floats, Ints
from mlexporter.history import unusual
from mlexporter.timezones import local_hour, zone_of

TIERS: Final = ("warn", "page")
# What a rate may exceed the baseline's by at least, per tier.
_RATE_SLACK: Final = (0.001, 0.01)

Hours = tuple[int, ...]
"""The local hour in each of the time zones of an alarm; () where no column has a season."""


class Expectation(msgspec.Struct, frozen=True):
    """What is expected, and accepted, at one hour. E tiers, C columns, T bins of the alarm.

    Attributes:
        shares: (T,) smoothed shares.
        tolerance: (E, C) accepted divergences from them.
        rate_tolerance: (C, E, 2) accepted rates of missing and of strange values.

    """

    shares: Floats
    tolerance: Floats
    rate_tolerance: Floats

    def part(self, columns: Ints, bins: Ints) -> "Expectation":
        """The same of some columns, whose bins are `bins`."""
        return Expectation(self.shares[bins], self.tolerance[:, columns], self.rate_tolerance[columns])


class Expectations:
    """The expectations of one baseline.

    Args:
        baseline: with its seasons and days.
        binner: of the baseline.
        counts: its flat counts in fine bins.
        detection: the tolerances of both tiers.
        settings: what the configuration says of columns.

    Attributes:
        bins: of the alarm.
        seasonal: indices of the columns that have a season, ascending.

    """

    def __init__(
        self,
        baseline: Baseline,
        binner: Binner,
        counts: Ints,
        detection: DetectionConfig,
        settings: Mapping[str, ColumnConfig],
    ) -> None:
        self.bins = AlarmBins(binner)
        self._counts = self.bins.counts(counts)
        self._rows = self.bins.layout.totals(self._counts)
        columns = in_order(baseline, binner)
        own_settings = [settings.get(column.name, ColumnConfig()) for column in columns]
        self._overrides = np.array(
            [[own.warn_tolerance for own in own_settings], [own.page_tolerance for own in own_settings]],
            dtype=np.float64,
        )
        least = np.array([[detection.warn_tolerance], [detection.page_tolerance]])
        self._tolerance = np.where(
            np.isnan(self._overrides), np.maximum(_learned(columns, "divergence"), least), self._overrides
        )
        self._tolerance = _ordered(self._tolerance, given=~np.isnan(self._overrides))
        learned = np.stack([_learned(columns, rate) for rate in RATES], axis=-1)
        self._rate_slack = np.maximum(learned, np.array(_RATE_SLACK)[:, None, None])  # (E, C, 2)
        seasons = {
            i: (own.timezone or column.season.timezone, np.array(column.season.hours, dtype=np.float64))
            for i, (column, own) in enumerate(zip(columns, own_settings, strict=True))
            if column.season is not None and own.season is not False
        }
        self.seasonal: Ints = np.array(list(seasons), dtype=np.int64)
        names = self._zone_names = sorted({name for name, _ in seasons.values()})
        self._zones: list[tzinfo] = [zone_of(name) for name in names]
        self._seasons = [(names.index(name), hours) for name, hours in seasons.values()]

    def fingerprint(self) -> str:
        """Of all that decides what is expected and accepted, so of the null hypothesis that evidence is against.

        How often a false alarm may come is no part of it.
        """
        digest = hashlib.sha256()
        arrays = (self.bins.layout.offsets, self._counts, self._overrides, self._tolerance, self._rate_slack)
        seasons = [hours for _, hours in self._seasons]
        for array in (*arrays, self.seasonal, *seasons):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr((self._zone_names, [zone for zone, _ in self._seasons])).encode())
        return digest.hexdigest()[:16]

    def hours(self, now: float) -> Hours:
        """The hours at a Unix time."""
        return tuple(local_hour(now, zone) for zone in self._zones)

    def at_hour(self, hour: int) -> Expectation:
        """What is expected at an hour of the day, in whatever time zone a column is told."""
        return self.at((hour,) * len(self._zones))

    def at(self, hours: Hours) -> Expectation:
        """What is expected at these hours."""
        layout = self.bins.layout
        counts = self._counts.copy()
        for column, (zone, profiles) in zip(self.seasonal.tolist(), self._seasons, strict=True):
            counts[layout.offsets[column] : layout.offsets[column + 1]] = profiles[hours[zone]]
        rows = layout.totals(counts)
        # an hour with few rows says too little of its shares: the whole stands in, within what the hour can resolve
        few = layout.spread(rows) < MIN_ROWS
        centre = self.bins.expected(np.where(few, self._counts, counts), self._rows)
        shares = smoothed(layout, centre)
        rates = self.bins.rates(centre) / np.maximum(layout.totals(centre), 1.0)[:, None]
        bounds = self.bins.upper_rates(self.bins.expected(counts, self._rows))
        accepted = np.maximum(np.minimum(rates + self._rate_slack, 1.0), bounds)
        return Expectation(
            shares=shares,
            tolerance=np.maximum(self._tolerance, radius(layout.sizes, rows)),
            rate_tolerance=np.swapaxes(self._overridden(accepted, self.bins.rates(shares)), 0, 1),
        )

    def _overridden(self, accepted: Floats, shares: Floats) -> Floats:
        """(E, C, 2) accepted rates: whoever accepts more drift in a column accepts that of its rates, too."""
        given = ~np.isnan(self._overrides)
        if given.any():
            share = np.broadcast_to(shares, accepted.shape)[given]
            within = share_at(share, self._overrides[given][:, None], 0.1 * share + 0.9)
            accepted[given] = np.maximum(accepted[given], within)
        return accepted


def _ordered(tolerance: Floats, given: NDArray[np.bool_]) -> Floats:
    """(E, C) tolerances of which no tier pages for less than it warns of: the one that was not given gives way."""
    warn, page = tolerance
    return np.stack(
        [np.where(given[1], np.minimum(warn, page), warn), np.where(given[1], page, np.maximum(warn, page))]
    )


def _learned(columns: Sequence[Column], name: str) -> Floats:
    """(E, C) what the days of the columns' histories differ by: what is usual to warn, what is unusual to page."""

    def accepted(days: Days | None) -> tuple[float, float]:
        if days is None:
            return 0.0, 0.0
        variation: Variation = getattr(days, name)
        return variation.usual, unusual(variation, days.count)

    return np.array([accepted(column.days) for column in columns]).reshape(-1, 2).T
