"""What a stream looked like by day and by hour, and what follows for its drift alarm: a season, and a tolerance.

Real streams breathe with the hours and differ from day to day, and their history holds incidents. So a column that
moves with the hours is held against a profile of the hour, and what it may differ by is learned from the days of its
history, at a quantile that incidents do not reach.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from mlexporter.alarm_bins import AlarmBins
from mlexporter.baseline import Column, Days, Season, Variation
from mlexporter.dictionary import Layout, radius, smoothed
from mlexporter.drift import MIN_ROWS
from mlexporter.edges import Floats, Ints
from mlexporter.timezones import date_of

HOURS: Final = 24
MIN_DAYS: Final = 7
"""Fewest days, of at least `drift.MIN_ROWS` rows each, that tell of a season and of what is usual."""
MAX_DAYS: Final = 3660
"""Most days that are kept: ten years."""

_QUANTILE: Final = 0.95
# A column has a season where its hours differ, in the mean, by this divergence: a wave of some 0.07 standard deviations
# at its height, half of what the warn tier accepts at least. And by this many times what chance would do.
_LEAST_SEASON: Final = 0.0005
_CHANCE: Final = 3.0
# No day is listed that is off by less than the warn tier accepts by default.
_LEAST_LISTED: Final = 0.001
# The tail falls by a factor of 10 from the median to the 95 % quantile; four such steps lead to 0.00005.
_DECADES: Final = 4.0
_FEW: Final = 15.0


class HistoryError(Exception):
    """A history that cannot be kept; the message says why."""


class HistoryState(msgspec.Struct, frozen=True):
    """A history at one moment, to be kept over a restart.

    Attributes:
        days: (D,) numbers of the days.
        counts: (D, T) of each day.
        rows: (D, 24) of each day and hour.
        hours: (2, 24, T) counts of even and of odd days.

    """

    days: Ints
    counts: Floats
    rows: Floats
    hours: Floats


class History:
    """Counts by day and by hour. Memory is bounded by the number of days, not of rows.

    Args:
        layout: of T bins of C columns.
        timezone: in which days and hours are told.

    """

    def __init__(self, layout: Layout, timezone: str) -> None:
        self.timezone = timezone
        self._layout = layout
        self._days: dict[int, Floats] = {}
        self._rows: dict[int, Floats] = {}
        # of even and of odd days: two halves that share no day's own accidents
        self._hours: Floats = np.zeros((2, HOURS, int(layout.offsets[-1])))

    @property
    def days(self) -> int:
        """The number of days so far that have enough rows to tell something."""
        return len(self._long_days())

    def _long_days(self) -> list[int]:
        return sorted(day for day, rows in self._rows.items() if rows.sum() >= MIN_ROWS)

    def add(self, day: int, hour: int, counts: Floats) -> None:
        """Add (T,) counts of one hour of one day."""
        if day not in self._days:
            if len(self._days) == MAX_DAYS:
                raise HistoryError(f"more than {MAX_DAYS} days; no history is as long: is the time of all rows right?")
            self._days[day] = np.zeros(len(counts))
            self._rows[day] = np.zeros(HOURS)
        self._days[day] += counts
        # every column has every row, if only as missing
        self._rows[day][hour] += counts[: int(self._layout.offsets[1])].sum()
        self._hours[day % 2, hour] += counts

    def state(self) -> HistoryState:
        """All of it, as copies."""
        days = sorted(self._days)
        bins = int(self._layout.offsets[-1])
        return HistoryState(
            np.array(days, dtype=np.int64),
            np.array([self._days[day] for day in days]).reshape(len(days), bins),
            np.array([self._rows[day] for day in days]).reshape(len(days), HOURS),
            self._hours.copy(),
        )

    def restore(self, state: HistoryState) -> bool:
        """Go on from a state; False, and nothing is changed, where it is of other bins."""
        days, bins = state.days.tolist(), int(self._layout.offsets[-1])
        shapes = (state.counts.shape, state.rows.shape, state.hours.shape)
        if shapes != ((len(days), bins), (len(days), HOURS), self._hours.shape):
            return False
        self._days = {day: counts.copy() for day, counts in zip(days, state.counts, strict=True)}
        self._rows = {day: rows.copy() for day, rows in zip(days, state.rows, strict=True)}
        self._hours = state.hours.copy()
        return True

    def learn(self, bins: AlarmBins, columns: Sequence[Column], wanted: Sequence[bool | None]) -> list[Column]:
        """The columns with their seasons and days, where the history is long enough to tell.

        Args:
            bins: of the columns.
            columns: in the order of the bins.
            wanted: whether a column is to have a season; None leaves it to the history.

        """
        kept = self._long_days()
        if len(kept) < MIN_DAYS:
            return [msgspec.structs.replace(column, season=None, days=None) for column in columns]
        moving = self._moving()
        seasonal = np.array([own if want is None else want for own, want in zip(moving, wanted, strict=True)])
        shares = self._hourly_shares(seasonal)
        divergence, rates = self._days_off(bins, kept, shares)
        least = radius(self._layout.sizes, self._layout.totals(self._hours.sum(axis=(0, 1))))
        learned: list[Column] = []
        for i, column in enumerate(columns):
            usual = _variation(divergence[:, i])
            beyond = [
                (date_of(day), round(off, 6))
                for day, off in zip(kept, divergence[:, i].tolist(), strict=True)
                if off > max(usual.usual, _LEAST_LISTED, least[i])
            ]
            days = Days(
                count=len(kept),
                divergence=usual,
                missing=_variation(rates[:, i, 0]),
                strange=_variation(rates[:, i, 1]),
                beyond=tuple(beyond),
            )
            season = self._season(i) if seasonal[i] else None
            learned.append(msgspec.structs.replace(column, season=season, days=days))
        return learned

    def _season(self, column: int) -> Season:
        begin, end = self._layout.offsets[column], self._layout.offsets[column + 1]
        hours = self._hours[:, :, begin:end].sum(axis=0).astype(np.int64)
        return Season(timezone=self.timezone, hours=tuple(tuple(row) for row in hours.tolist()))

    def _moving(self) -> list[bool]:
        """Which columns move with the hours.

        Half the chi-square distance of an hour from the whole is its divergence, to second order. As the product of
        what two halves of the days say of it, each against its own whole, it has no bias: what chance, or a day's
        accident, adds to one half is not in the other.
        """
        totals = self._hours.sum(axis=(0, 1))
        sizes = self._layout.sizes
        rows = np.stack([self._layout.totals(half) for half in self._hours])  # (2, 24, C)
        q = smoothed(self._layout, totals)
        off = [
            half / np.maximum(self._layout.spread(n), 1.0)
            - half.sum(axis=0) / np.maximum(self._layout.spread(n.sum(axis=0)), 1.0)
            for half, n in zip(self._hours, rows, strict=True)
        ]
        divergence = 0.5 * self._layout.totals(off[0] * off[1] / q)
        both = (rows > 0).all(axis=0)
        weight = np.where(both, rows.sum(axis=0), 0.0)
        weight /= np.maximum(weight.sum(axis=0), 1.0)
        chance = 0.5 * np.sqrt((weight**2 * (sizes - 1) / np.maximum(rows[0] * rows[1], 1.0)).sum(axis=0))
        mean = (weight * np.where(both, divergence, 0.0)).sum(axis=0)
        return [bool(moves) for moves in mean > np.maximum(_LEAST_SEASON, _CHANCE * chance)]

    def _hourly_shares(self, seasonal: Floats) -> Floats:
        """(24, T) what is expected at each hour: its own where a column has a season and the hour enough rows."""
        hours = self._hours.sum(axis=0)
        flat = smoothed(self._layout, hours.sum(axis=0))
        own = np.array([smoothed(self._layout, hour) for hour in hours])
        enough = self._layout.spread((self._layout.totals(hours) >= MIN_ROWS) & (seasonal > 0))
        return np.where(enough, own, flat)

    def _days_off(self, bins: AlarmBins, kept: Sequence[int], shares: Floats) -> tuple[Floats, Floats]:
        """(D, C) divergences and (D, C, 2) rates of days over what was to be expected of them."""
        divergence: list[Floats] = []
        rates: list[Floats] = []
        for day in kept:
            rows, counts = self._rows[day], self._days[day]
            n = rows.sum()
            expected = rows @ shares / n
            live = smoothed(self._layout, counts)
            chance = (self._layout.sizes - 1) / (2.0 * n)
            divergence.append(self._layout.totals(expected * np.log(expected / live)) - chance)
            rates.append(bins.rates(counts) / n - bins.rates(expected))
        return np.array(divergence), np.array(rates)


def _variation(off: Floats) -> Variation:
    """Median and 95 % quantile of the days.

    The quantile is a value that is there, and never the largest: an incident must not become what is usual.
    """
    usual = float(np.quantile(off, _QUANTILE, method="lower"))
    return Variation(typical=max(float(np.median(off)), 0.0), usual=max(usual, 0.0))


def unusual(variation: Variation, days: int) -> float:
    """What a day is off by once in some 20,000 days, by the exponential tail through the median and the 95 % quantile.

    A day in twenty is beyond the 95 % quantile. That is good for a warning, and too often for a page: this leaves 600
    columns with one such day in a month. Few days tell little of the tail, so it is drawn out by 15 / days: where the
    mean moves by a normal number each day, 30 days of history then leave 0.0003 pages a day instead of 0.002.

    >>> round(unusual(Variation(typical=0.01, usual=0.05), 60), 12)  # 4 x 1.25 steps; ln 10,000 = 4 ln 10
    0.21
    """
    return variation.typical + _DECADES * (1.0 + _FEW / days) * max(variation.usual - variation.typical, 0.0)
