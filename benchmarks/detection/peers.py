"""Other tools' rules on a sliding window of raw values, a look with each tick; vectorised over streams.

* PSI > 0.1 and > 0.2: the usual thresholds, on 10 bins between quantiles of the baseline, half a row added to each.
* Two-sample Kolmogorov-Smirnov test, p < 0.05, asymptotic as `scipy.stats.ks_2samp(method="asymp")`: the default of
  Evidently up to 1,000 rows and of whylogs. With p < 0.05 / 100, Bonferroni over 100 columns: alibi-detect.
* Wasserstein distance over the baseline's standard deviation > 0.1: Evidently over 1,000 rows.
* Jensen-Shannon distance > 0.1 as `scipy.spatial.distance.jensenshannon` gives it, natural logarithm: Evidently over
  1,000 rows, though here on the 10 quantile bins, where it is quieter than on Evidently's equally wide bins.

Missing values are left out by all of them. For categories the tests are chi-square tests, as in Evidently and
alibi-detect, and there is no Wasserstein distance.
"""

from collections import deque
from functools import cache
from typing import Final, Protocol

import numpy as np
from scipy import special, stats

from mlexporter.binning import Bools
from mlexporter.edges import Floats, Ints

WINDOW_TICKS: Final = 5
QUANTILE_BINS: Final = 10
LEVEL: Final = 0.05
FLEET_LEVEL: Final = LEVEL / 100
RULES: Final = (
    "PSI > 0.1",
    "PSI > 0.2",
    "Kolmogorov-Smirnov p < 0.05",
    "Wasserstein > 0.1 sd",
    "Jensen-Shannon > 0.1",
    "Kolmogorov-Smirnov p < 0.05 / 100",
)


class Peers(Protocol):
    """The rules on some streams."""

    def tick(self, values: Floats) -> Bools:
        """(6, C) what fires after a tick of (C, n) values; nothing before the window is full."""
        ...


@cache
def critical_distance(rows: int, baseline_rows: int, level: float) -> float:
    """The Kolmogorov-Smirnov distance over which the p-value is under the level."""
    return float(stats.kstwo.isf(level, np.round(rows * baseline_rows / (rows + baseline_rows))))


def psi(counts: Floats, baseline: Floats) -> Floats:
    """(C,) population stability index of (C, B) counts, half a row added to each."""
    live, expected = ((k + 0.5) / (k + 0.5).sum(axis=1, keepdims=True) for k in (counts, baseline))
    result: Floats = ((live - expected) * np.log(live / expected)).sum(axis=1)
    return result


def jensen_shannon(counts: Floats, baseline: Floats) -> Floats:
    """(C,) Jensen-Shannon distances of (C, B) counts, natural logarithm."""
    live, expected = (k / k.sum(axis=1, keepdims=True) for k in (counts, baseline))
    middle = (live + expected) / 2
    divergence = special.rel_entr(live, middle).sum(axis=1) + special.rel_entr(expected, middle).sum(axis=1)
    result: Floats = np.sqrt(np.maximum(divergence, 0.0) / 2)
    return result


class NumericPeers:
    """The rules for numbers.

    Args:
        baseline: (C, m) raw values.

    """

    def __init__(self, baseline: Floats) -> None:
        self._rows = baseline.shape[1]
        self._sorted = np.sort(baseline, axis=1)
        self._sums = np.concatenate([np.zeros((len(baseline), 1)), np.cumsum(self._sorted, axis=1)], axis=1)
        self._stddev = baseline.std(axis=1)
        bins = np.arange(self._rows) * QUANTILE_BINS // self._rows
        self._counts = np.tile(np.bincount(bins).astype(np.float64), (len(baseline), 1))
        self._values: deque[Floats] = deque(maxlen=WINDOW_TICKS)
        self._below: deque[Ints] = deque(maxlen=WINDOW_TICKS)
        self._bins: deque[Floats] = deque(maxlen=WINDOW_TICKS)
        self._steps_of: tuple[Ints, Floats, Floats] | None = None

    def tick(self, values: Floats) -> Bools:
        below = np.array([own.searchsorted(new) for own, new in zip(self._sorted, values, strict=True)])
        self._values.append(values)
        self._below.append(below)
        self._bins.append(self._binned(below, ~np.isnan(values)))
        if len(self._values) < WINDOW_TICKS:
            return np.zeros((len(RULES), len(values)), dtype=np.bool_)
        window = np.sort(np.concatenate(self._values, axis=1), axis=1)  # NaN at the end
        ranks = np.sort(np.concatenate(self._below, axis=1), axis=1)
        rows = window.shape[1] - np.isnan(window).sum(axis=1)
        return self._fires(window, ranks, rows, sum(self._bins, np.zeros_like(self._counts)))

    def _binned(self, below: Ints, there: Bools) -> Floats:
        bins = np.minimum(below * QUANTILE_BINS // self._rows, QUANTILE_BINS - 1)
        return np.stack([((bins == i) & there).sum(axis=1) for i in range(QUANTILE_BINS)], axis=1).astype(np.float64)

    def _fires(self, window: Floats, ranks: Ints, rows: Ints, counts: Floats) -> Bools:
        stability = psi(counts, self._counts)
        distance = self.kolmogorov_smirnov(ranks, rows)
        critical = [
            np.array([critical_distance(n, self._rows, level) for n in rows.tolist()]) for level in (LEVEL, FLEET_LEVEL)
        ]
        return np.stack(
            [
                stability > 0.1,
                stability > 0.2,
                distance > critical[0],
                self.wasserstein(window, ranks, rows) > 0.1 * self._stddev,
                jensen_shannon(counts, self._counts) > 0.1,
                distance > critical[1],
            ]
        )

    def kolmogorov_smirnov(self, ranks: Ints, rows: Ints) -> Floats:
        """(C,) distances of windows whose sorted values have so many baseline values under them; without ties."""
        step = np.arange(ranks.shape[1] + 1) / rows[:, None]
        expected = ranks / self._rows
        off = np.maximum(step[:, 1:] - expected, expected - step[:, :-1])
        result: Floats = np.where(step[:, 1:] < 1.0 + 1e-9, off, 0.0).max(axis=1)
        return result

    def wasserstein(self, window: Floats, ranks: Ints, rows: Ints) -> Floats:
        """(C,) distances of sorted windows: the integral of |Q(t) - Q'(t)|, exact.

        Where the window's quantile function is x, from t = a to b, the baseline's Q crosses x at its rank c there, so
        the integral is x (2 c - a - b) + P(a) + P(b) - 2 P(c), with P the integral of Q.
        """
        steps, areas = self._steps(rows, window.shape[1])
        a, b, area_a, area_b = steps[:, :-1], steps[:, 1:], areas[:, :-1], areas[:, 1:]
        c = ranks / self._rows
        area = np.take_along_axis(self._sums, ranks, axis=1) / self._rows
        area = np.where(c <= a, area_a, np.where(c >= b, area_b, area))
        c = np.clip(c, a, b)
        parts = window * (2 * c - a - b) + area_a + area_b - 2 * area
        result: Floats = np.where(np.isnan(window), 0.0, parts).sum(axis=1)
        return result

    def _steps(self, rows: Ints, size: int) -> tuple[Floats, Floats]:
        """(C, size + 1) levels 0, 1/n, ... 1, 1, ... and the integrals of the baseline's quantile function to them."""
        if self._steps_of is None or not np.array_equal(rows, self._steps_of[0]):
            steps = np.minimum(np.arange(size + 1) / rows[:, None], 1.0)
            whole = np.minimum(np.floor(steps * self._rows), self._rows - 1).astype(np.int64)
            part = steps * self._rows - whole
            areas = np.take_along_axis(self._sums, whole, axis=1)
            areas += part * np.take_along_axis(self._sorted, whole, axis=1)
            self._steps_of = (rows, steps, areas / self._rows)
        return self._steps_of[1:]


class CategoricalPeers:
    """The rules for categories, by their numbers.

    Args:
        baseline: (C, K) counts.

    """

    def __init__(self, baseline: Ints) -> None:
        self._counts = baseline.astype(np.float64)
        self._window: deque[Floats] = deque(maxlen=WINDOW_TICKS)

    def tick(self, values: Floats) -> Bools:
        size = self._counts.shape[1]
        self._window.append(np.stack([(values == i).sum(axis=1) for i in range(size)], axis=1).astype(np.float64))
        if len(self._window) < WINDOW_TICKS:
            return np.zeros((len(RULES), len(values)), dtype=np.bool_)
        counts = sum(self._window, np.zeros_like(self._counts))
        stability = psi(counts, self._counts)
        p = self.chi_square_p(counts)
        return np.stack(
            [
                stability > 0.1,
                stability > 0.2,
                p < LEVEL,
                np.zeros(len(values), dtype=np.bool_),
                jensen_shannon(counts, self._counts) > 0.1,
                p < FLEET_LEVEL,
            ]
        )

    def chi_square_p(self, counts: Floats) -> Floats:
        """(C,) p-values of the two-sample chi-square test."""
        n, m = counts.sum(axis=1, keepdims=True), self._counts.sum(axis=1, keepdims=True)
        both = counts + self._counts
        square = (counts * np.sqrt(m / n) - self._counts * np.sqrt(n / m)) ** 2
        statistic = np.divide(square, both, out=np.zeros_like(both), where=both > 0).sum(axis=1)
        result: Floats = special.chdtrc((both > 0).sum(axis=1) - 1, statistic)
        return result
