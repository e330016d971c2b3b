"""Drift statistics: pure functions from baseline counts and live counts to numbers, all columns at once.

Arrays have shape (C, B): C columns, B bins. Columns with fewer bins are padded with zeros; where padding matters,
`valid` of the same shape tells the bins that are there. A result is NaN where a column has no rows.
Natural logarithms throughout.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlexporter.edges import Floats, Ints

Counts = NDArray[np.int64] | NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_ROWS: Final = 200
"""Fewest rows, live and in the baseline, for a distance to mean anything."""
_PSI_OF_INTEREST: Final = 0.1
_PSI_CHANCE: Final = 1e-6
_NOISE_FLOOR_CHANCE: Final = 1e-3
_MOST_BINS: Final = 1 << 8


def _chi2_upper(chance: float, bins: int) -> Floats:
    """Upper quantiles of chi2 by degrees of freedom, NaN at 0: a table, for the inverse costs a microsecond each."""
    return np.concatenate([[np.nan], special.chdtri(np.arange(1, bins), chance)])


_CHI2_NOISE_FLOOR: Final = _chi2_upper(_NOISE_FLOOR_CHANCE, _MOST_BINS)
_CHI2_INTEREST: Final = _chi2_upper(_PSI_CHANCE, _MOST_BINS)


def _chi2(table: Floats, chance: float, bins: Counts) -> Floats:
    """The upper quantiles for so many bins, one degree of freedom less than that."""
    freedom: Ints = np.maximum(np.asarray(bins, dtype=np.int64) - 1, 0)
    most = int(freedom.max(initial=0))
    return (table if most < len(table) else _chi2_upper(chance, most + 1))[freedom]


def shares(counts: Counts) -> Floats:
    """(C, B) shares of the bins; NaN in a column without rows.

    >>> shares(np.array([[1, 3]])).tolist()
    [[0.25, 0.75]]
    """
    totals = counts.sum(axis=1, keepdims=True, dtype=np.float64)
    result: Floats = np.divide(counts, totals, out=np.full_like(counts, np.nan, dtype=np.float64), where=totals > 0)
    return result


def smoothed_shares(counts: Counts, valid: Bools) -> Floats:
    """(C, B) shares with half a row added to every bin: (k + 0.5) / (m + 0.5 B). 0 where padded.

    >>> smoothed_shares(np.array([[0, 1, 0]]), np.array([[True, True, False]])).tolist()
    [[0.25, 0.75, 0.0]]
    """
    bins = valid.sum(axis=1, keepdims=True)
    result: Floats = np.where(valid, counts + 0.5, 0.0) / (counts.sum(axis=1, keepdims=True) + 0.5 * bins)
    return result


def psi(baseline: Counts, live: Counts, valid: Bools) -> Floats:
    """(C,) population stability index, sum of (p - q) ln(p / q) over smoothed shares.

    Source: Yurdakul, "Statistical properties of the population stability index", WMU 2018; smoothed as Jeffreys.

    >>> half, most = np.array([[50, 50]]), np.array([[90, 10]])
    >>> round(float(psi(half, most, np.array([[True, True]]))[0]), 4)  # (0.8960-0.5) ln 1.792 + (0.1040-0.5) ln 0.208
    0.8531
    """
    result = psi_between(smoothed_shares(baseline, valid), smoothed_shares(live, valid), valid)
    return np.where((live.sum(axis=1) > 0) & (baseline.sum(axis=1) > 0), result, np.nan)


def psi_between(q: Floats, p: Floats, valid: Bools) -> Floats:
    """`psi` of (C, B) smoothed shares."""
    terms = p - q
    terms *= np.log(np.divide(p, q, out=np.ones_like(p), where=valid))
    result: Floats = terms.sum(axis=1)
    return result


def psi_noise_floor(live_rows: Floats, baseline_rows: Floats, bins: Counts) -> Floats:
    """(C,) what PSI stays under in 999 of 1000 looks without drift: (1/n + 1/m) times chi2 with B-1 degrees.

    Source: Yurdakul 2018; du Pisanie et al., arXiv 2303.01227.

    >>> round(float(psi_noise_floor(np.array([1000.0]), np.array([10000.0]), np.array([10]))[0]), 6)
    0.030665
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = (1 / live_rows + 1 / baseline_rows) * _chi2(_CHI2_NOISE_FLOOR, _NOISE_FLOOR_CHANCE, bins)
    return np.where(np.isfinite(result), result, np.nan)


def psi_min_rows(baseline_rows: Floats, bins: Counts) -> Floats:
    """(C,) live rows from which on chance exceeds a PSI of 0.1 in one look of a million; infinite if it always does.

    n = chi2 / (0.1 - chi2 / m) at the 1e-6 point of chi2 with B-1 degrees.

    >>> float(np.floor(psi_min_rows(np.array([10000.0]), np.array([10])))[0])
    469.0
    """
    chi2 = _chi2(_CHI2_INTEREST, _PSI_CHANCE, bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = _PSI_OF_INTEREST - chi2 / baseline_rows
        result: Floats = np.where(room > 0, chi2 / room, np.inf)
    return np.maximum(result, MIN_ROWS)


def js_distance(baseline: Counts, live: Counts) -> Floats:
    """(C,) Jensen-Shannon distance: the square root of the divergence, between 0 and sqrt(ln 2).

    >>> round(float(js_distance(np.array([[1, 0]]), np.array([[0, 1]]))[0]) ** 2, 6)  # ln 2
    0.693147
    """
    return js_between(shares(baseline), shares(live))


def js_between(q: Floats, p: Floats) -> Floats:
    """`js_distance` of (C, B) shares."""
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(axis=1) / 2
    result: Floats = np.sqrt(np.maximum(divergence, 0.0))
    return result


def hellinger_distance(baseline: Counts, live: Counts) -> Floats:
    """(C,) Hellinger distance, between 0 and 1.

    >>> float(hellinger_distance(np.array([[1, 0]]), np.array([[0, 1]]))[0])
    1.0
    """
    return hellinger_between(np.sqrt(shares(baseline)), np.sqrt(shares(live)))


def hellinger_between(root_q: Floats, root_p: Floats) -> Floats:
    """`hellinger_distance` of the square roots of (C, B) shares."""
    difference = root_p - root_q
    difference *= difference
    result: Floats = np.sqrt(difference.sum(axis=1) / 2)
    return result


def ks_distance(baseline: Counts, live: Counts) -> Floats:
    """(C,) largest difference of the two distribution functions at the edges of ordered bins.

    >>> float(ks_distance(np.array([[5, 5, 0]]), np.array([[0, 5, 5]]))[0])
    0.5
    """
    return ks_between(np.cumsum(shares(live) - shares(baseline), axis=1))


def ks_between(difference: Floats) -> Floats:
    """`ks_distance` of the (C, B) differences of the distribution functions at the upper edges of the bins."""
    result: Floats = np.abs(difference).max(axis=1)
    return result


def wasserstein_distance(baseline: Counts, baseline_means: Floats, live: Counts, live_means: Floats) -> Floats:
    """(C,) first Wasserstein distance between point masses at the means of ordered bins, in units of the values.

    Args:
        baseline: (C, B) counts.
        baseline_means: (C, B) means of the values in the bins; NaN in a bin without rows.
        live: (C, B) counts.
        live_means: (C, B) means.

    >>> float(wasserstein_distance(np.array([[1, 1]]), np.array([[0.0, 10.0]]), np.array([[1, 3]]),
    ...                            np.array([[1.0, 10.0]]))[0])  # 0.25 moves 0 -> 10 less 1, and 0.25 by 1
    2.75

    """
    known = np.where(np.isnan(baseline_means), live_means, baseline_means)
    # A bin without any row may lie anywhere between its neighbours: at the one before, or at the first one of all.
    first = np.fmin.reduce(known, axis=1, keepdims=True)
    anywhere = np.fmax(np.fmax.accumulate(known, axis=1), first)
    q, p = shares(baseline), shares(live)
    return wasserstein_between(
        q,
        np.where(np.isnan(known), anywhere, known),
        p,
        np.where(np.isnan(live_means), np.where(np.isnan(known), anywhere, known), live_means),
        np.cumsum(p - q, axis=1),
    )


def wasserstein_between(q: Floats, q_at: Floats, p: Floats, p_at: Floats, difference: Floats) -> Floats:
    """`wasserstein_distance` of (C, B) shares.

    Args:
        q: shares of the baseline.
        q_at: where they lie: ascending, and none beyond a `p_at` of another bin. Where a side has no rows it lies
            where the other side does; where neither has, both lie somewhere between their neighbours.
        p: live shares.
        p_at: where they lie.
        difference: of the distribution functions, p less q, after each bin.

    """
    low, high = np.minimum(q_at, p_at), np.maximum(q_at, p_at)
    # between the two points of a bin only the lower one has been passed
    within = difference + np.where(q_at <= p_at, -p, q)
    distance = np.abs(within) * (high - low)
    distance[:, 1:] += np.abs(difference[:, :-1]) * (low[:, 1:] - high[:, :-1])
    result: Floats = distance.sum(axis=1)
    return result
