"""What the drift alarm bets on: alternatives to the baseline, and what a bet on each of them pays in each bin.

The null hypothesis is a ball around the baseline q: every p with KL(q||p) <= eps, the tolerance. An alternative p1
outside of it is bet on by the likelihood ratio of p1 against its reverse information projection p* on the ball, which
is (1 - w) p1 + w q with KL(q||p*) = eps. That ratio is an e-value: its mean is at most 1 under every p in the ball.
Source: Grünwald, de Heide, Koolen, "Safe Testing", arXiv 1906.07801; Larsson, Ramdas, Ruf, arXiv 2402.18810.

The alternatives of a column lie on paths away from q, at the points with KL(q||p1) = c eps for c in `SIZES`:

* a bin gains, the others shrink alike; or a bin loses. On such a path p is one number, the share x of the bin, the
  divergence is that of two coins, KL(q||p) = kl(q_i||x), and the projection lies on the path too, at kl(q_i||x) = eps.
  So a bet pays one amount in the bin and another one in all the others, and needs two numbers instead of one per bin.
* the mean or the variance of an ordered column moves: p is proportional to q exp(+-t s) with normal scores s.

Arrays are for all columns at once, in the flat order of a `Layout`: C columns, N of them ordered, T bins, E tiers.
Natural logarithms throughout.
"""

from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlexporter.edges import Floats, Ints

Scalar = TypeVar("Scalar", bound=np.generic)

SIZES: Final = (2.0, 4.0, 9.0, 25.0, 80.0)
"""Divergences of the alternatives, as multiples of the tolerance."""
RATE_FACTORS: Final = (1.5, 2.5, 5.0, 12.0, 40.0, 150.0)
"""Alternatives of a rate, as multiples of the accepted rate."""
TILTS: Final = ("mean_down", "mean_up", "variance_up", "variance_down")
MOVES: Final = ("gain", "loss")

_CONFIDENCE: Final = 0.999
_MOST_GAIN: Final = 0.9
_MOST_LOSS: Final = 0.95
_LEAST_SHARE_TO_LOSE: Final = 0.02
_MOST_TILT: Final = 3.0
_MOST_RATE: Final = 0.95
# What a bet that is not there pays per sample: its capital is gone at once, and stays gone.
_NOTHING: Final = -1e300
# A tolerance beyond this accepts everything; it stands for infinity.
_EVERYTHING: Final = 1e3
_STEPS: Final = 100
# Newton's method squares the error, so after a step this small nothing is left to gain.
_CLOSE: Final = 1e-10


class Layout:
    """Where the bins of the alarm lie in a flat vector, column after column, ordered columns first.

    Attributes:
        offsets: (C+1,) where each column's bins begin, and where the last ones end.
        ordered: N, the number of ordered columns.
        last_is_missing: whether their last bin is for missing values; all the others are in the order of the values.
        sizes: (C,) number of bins per column.
        matrix: (N, W) indices of the bins of the ordered columns; T where a column has fewer than W.

    """

    def __init__(self, offsets: Ints, ordered: int, *, last_is_missing: bool = True) -> None:
        self.offsets = offsets
        self.ordered = ordered
        self.last_is_missing = last_is_missing
        self.sizes: Ints = np.diff(offsets)
        sizes = self.sizes[:ordered]
        places = np.arange(int(sizes.max(initial=0)))
        index = offsets[:ordered, None] + places
        self.matrix: Ints = np.where(places < sizes[:, None], index, offsets[-1])

    def spread(self, per_column: NDArray[Scalar]) -> NDArray[Scalar]:
        """(..., C) numbers per column as (..., T) numbers per bin."""
        return per_column.repeat(self.sizes, axis=-1)

    def totals(self, flat: Floats) -> Floats:
        """(..., C) sums over the bins of (..., T) numbers."""
        totals: Floats = np.add.reduceat(flat, self.offsets[:-1], axis=-1)
        return totals

    def subset(self, columns: Ints) -> tuple["Layout", Ints]:
        """The layout of some columns, ascending, and the indices of their bins here."""
        bins = np.concatenate(
            [np.arange(self.offsets[c], self.offsets[c + 1]) for c in columns.tolist()] or [np.empty(0)]
        )
        offsets = np.concatenate([[0], np.cumsum(self.sizes[columns])])
        ordered = int((columns < self.ordered).sum())
        return Layout(offsets, ordered, last_is_missing=self.last_is_missing), bins.astype(np.int64)


class Bets(msgspec.Struct, frozen=True):
    """What every bet pays, as logarithms per sample.

    Attributes:
        moves, moves_inside: (E, T, 2 * 5) bets that a bin gains or loses: what they pay for a sample anywhere, and how
            much more for one in the bin.
        tilts: (N, E * 4 * 5, W) bets that the mean or the variance moves: what they pay in each bin.
        rates, rates_inside: (C, E, 2, 6) bets that a rate is above what is accepted: as for moves.
        alternatives: (E, C) number of alternatives among moves and tilts.
        rate_alternatives: (C, E, 2) number of alternatives of each rate.

    """

    moves: Floats
    moves_inside: Floats
    tilts: Floats
    rates: Floats
    rates_inside: Floats
    alternatives: Floats
    rate_alternatives: Floats

    def bounded(self, layout: Layout, columns: Ints) -> None:
        """Count for some columns, in place, as many alternatives as there can be at all.

        An average is an e-detector only where its weights stay; where the baseline's shares change by the hour, so do
        the alternatives within reach. One that is out of reach has lost its capital, which adds to no average.
        """
        most = len(MOVES) * len(SIZES) * layout.sizes[columns]
        self.alternatives[:, columns] = most + np.where(columns < layout.ordered, len(TILTS) * len(SIZES), 0)
        self.rate_alternatives[columns] = len(RATE_FACTORS)

    def copy(self) -> "Bets":
        """The same in other arrays."""
        return Bets(*(array.copy() for array in msgspec.structs.astuple(self)))

    def replace(self, other: "Bets", columns: Ints, bins: Ints) -> None:
        """Put in, in place, the bets of some columns: `other` was made for `Layout.subset(columns)`."""
        self.moves[:, bins], self.moves_inside[:, bins] = other.moves, other.moves_inside
        ordered = columns[: len(other.tilts)]
        width = other.tilts.shape[2]
        self.tilts[ordered] = 0.0
        self.tilts[ordered, :, :width] = other.tilts
        self.rates[columns], self.rates_inside[columns] = other.rates, other.rates_inside
        self.alternatives[:, columns] = other.alternatives
        self.rate_alternatives[columns] = other.rate_alternatives


def make_bets(layout: Layout, q: Floats, tolerance: Floats, rate_tolerance: Floats) -> Bets:
    """The bets of all columns and tiers.

    Args:
        layout: of C columns and T bins.
        q: (T,) smoothed shares of the baseline, none of them 0.
        tolerance: (E, C) divergences KL(q||p) that are accepted, over 0; infinity accepts everything.
        rate_tolerance: (C, E, 2) accepted rates of two kinds.

    """
    tolerance = np.minimum(tolerance, _EVERYTHING)
    moves, moves_inside, moving = _moves(q, layout.spread(tolerance))
    tilts, tilting = _tilts(layout, q, tolerance)
    rates, rates_inside, rate_alternatives = _rates(rate_tolerance)
    alternatives = layout.totals(moving)
    alternatives[:, : layout.ordered] += tilting
    return Bets(moves, moves_inside, tilts, rates, rates_inside, alternatives, rate_alternatives)


def smoothed(layout: Layout, counts: Floats) -> Floats:
    """(T,) shares of (T,) baseline counts with half a row more in every bin: (k + 0.5) / (m + 0.5 B)."""
    totals = layout.totals(counts) + 0.5 * layout.sizes
    shares: Floats = (counts + 0.5) / layout.spread(totals)
    return shares


def radius(bins: Ints, rows: Floats, confidence: float = _CONFIDENCE) -> Floats:
    """The divergence that a baseline of so many rows cannot resolve: chi-square(B-1) at 0.999, over twice its rows.

    m KL(q||p) is the log likelihood ratio of the baseline's own sample, so the ball of this size is a 99.9 % confidence
    set for what the baseline was drawn from. Infinite without rows.

    >>> round(float(radius(np.array([13]), np.array([10_000.0]))[0]), 10)  # 32.909490 / 20,000
    0.0016454745
    """
    with np.errstate(divide="ignore"):
        result: Floats = special.chdtri(np.maximum(bins - 1, 1), 1 - confidence) / (2.0 * rows)
    return result


def upper_rate(count: Floats, rows: Floats, *, beyond_range: bool = False) -> Floats:
    """The 99.9 % upper confidence bound (Clopper, Pearson) of a rate; 1 where there are no rows.

    Args:
        count: rows with it in the baseline.
        rows: rows of the baseline.
        beyond_range: the range ends at the baseline's own minimum and maximum, so a row more is to be expected beyond.

    >>> upper_rate(np.array([0.0, 120.0]), np.array([10_000.0, 10_000.0])).round(12).tolist()
    [0.000690536997, 0.015755982109]

    """
    a = count + (2.0 if beyond_range else 1.0)
    b = rows + 1.0 - a
    return np.where(b > 0, special.betaincinv(a, np.maximum(b, 1e-9), _CONFIDENCE), 1.0)


def coin_divergence(q: Floats, x: Floats) -> Floats:
    """KL of a coin with chance q from one with chance x, both between 0 and 1."""
    result: Floats = q * np.log(q / x) + (1.0 - q) * np.log((1.0 - q) / (1.0 - x))
    return result


def share_at(q: Floats, divergence: Floats, end: Floats) -> Floats:
    """The share x between q and `end` with kl(q||x) equal to a divergence; `end` where it is nowhere reached.

    The divergence is convex in x, so Newton's method comes from `end` without a detour.
    """
    q, divergence, end = np.broadcast_arrays(q, divergence, end)
    target = np.minimum(divergence, coin_divergence(q, end))
    x: Floats = end.astype(np.float64)
    for _ in range(_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (coin_divergence(q, x) - target) * x * (1.0 - x) / (x - q)
        moved = np.where(np.isfinite(step), x - step, x)
        # a rounding may carry it over q, where the divergence grows again
        moved = np.where((moved - q) * (end - q) > 0, moved, x)
        if np.all(np.abs(moved - x) <= _CLOSE * x):
            return moved
        x = moved
    return x


def _moves(q: Floats, tolerance: Floats) -> tuple[Floats, Floats, Floats]:
    """Bets that a bin gains or loses: for a sample anywhere, the more in the bin, and (E, T) how many there are."""
    sizes = np.array((1.0, *SIZES))[:, None, None]  # the first one is the projection
    divergence = sizes * tolerance
    anywhere: list[Floats] = []
    inside: list[Floats] = []
    total = np.zeros(tolerance.shape)
    for end in ((1.0 - _MOST_GAIN) * q + _MOST_GAIN, q * (1.0 - _MOST_LOSS) / (1.0 - _MOST_LOSS * q)):
        there = divergence[1:] < coin_divergence(q, end)
        if len(anywhere) == len(SIZES):
            there &= q > _LEAST_SHARE_TO_LOSE
        x = share_at(q, divergence, end)
        outside = np.log((1.0 - x[1:]) / (1.0 - x[0]))
        anywhere += list(np.where(there, outside, _NOTHING))
        inside += list(np.where(there, np.log(x[1:] / x[0]) - outside, 0.0))
        total += there.sum(axis=0)
    return np.stack(anywhere, axis=-1), np.stack(inside, axis=-1), total


def normal_scores(q: Floats) -> tuple[Floats, Floats]:
    """What the mean and the variance of a standard normal would be in each bin of ordered columns.

    Args:
        q: (N, W) shares; 0 where a column has fewer bins, which are the last ones.

    Returns:
        E[Z | bin] within +-4 and E[Z^2 - 1 | bin] within -1 and 6, both (N, W).

    """
    share = q / q.sum(axis=1, keepdims=True)
    cumulative = np.minimum(np.cumsum(share, axis=1), 1.0)
    last = np.arange(q.shape[1]) == (q > 0).sum(axis=1, keepdims=True) - 1
    above = special.ndtri(np.where(last, 1.0, cumulative))
    below = special.ndtri(np.concatenate([np.zeros((len(q), 1)), cumulative[:, :-1]], axis=1))

    def density(u: Floats) -> Floats:
        return np.where(np.isfinite(u), np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi), 0.0)

    def moment(u: Floats) -> Floats:
        return np.where(np.isfinite(u), u, 0.0) * density(u)

    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.clip((density(below) - density(above)) / share, -4.0, 4.0)
        v = np.clip((moment(below) - moment(above)) / share, -1.0, 6.0)
    return np.where(q > 0, z, 0.0), np.where(q > 0, v, 0.0)


def _tilts(layout: Layout, q: Floats, tolerance: Floats) -> tuple[Floats, Floats]:
    """Bets that the mean or the variance moves: what they pay, and (E, N) how many there are."""
    index = layout.matrix
    tiers, (columns, width) = len(tolerance), index.shape
    if not columns:
        return np.zeros((0, tiers * len(TILTS) * len(SIZES), width)), np.zeros((tiers, 0))
    q = np.append(q, 0.0)[index]
    values = q.copy()
    if layout.last_is_missing:
        values[np.arange(columns), layout.sizes[:columns] - 1] = 0.0  # it has no place in the order
    z, v = normal_scores(values)
    # (N, E, 4, 5, W) with the scores centred, so that q exp(t s) has the divergence ln sum q exp(t s) from q
    scores = np.stack([-z, z, v, -v], axis=1)
    scores = (scores - (q[:, None] * scores).sum(axis=2, keepdims=True))[:, None, :, None]
    q = q[:, None, None, None]
    eps = tolerance.T[:columns, :, None, None]
    divergence = np.multiply.outer(tolerance.T[:columns], np.array(SIZES))[:, :, None, :]
    p, there = _tilted(q, scores, divergence)
    paid = np.where(there[..., None], log_e_values(q, p, eps), _NOTHING)
    paid = np.where(q > 0, paid, 0.0)
    return paid.reshape(columns, -1, width), there.sum(axis=(2, 3)).T.astype(np.float64)


def _tilted(q: Floats, scores: Floats, divergence: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The points at given divergences on the paths q exp(t s), 0 <= t <= 3, and where they are reached."""

    def weights(t: Floats) -> Floats:
        return np.asarray(q * np.exp(t[..., None] * scores))

    t = np.full(np.broadcast_shapes(divergence.shape, scores.shape[:-1]), _MOST_TILT)
    there = np.log(weights(t).sum(axis=-1)) > divergence
    target = np.where(there, divergence, np.log(weights(t).sum(axis=-1)))
    for _ in range(_STEPS):
        p = weights(t)
        total = p.sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (np.log(total) - target) * total / (p * scores).sum(axis=-1)
        moved = np.maximum(np.where(np.isfinite(step), t - step, t), 0.0)
        done = np.all(np.abs(moved - t) <= _CLOSE * t)
        t = moved
        if done:
            break
    p = weights(t)
    return p / p.sum(axis=-1, keepdims=True), there


def log_e_values(q: Floats, p: Floats, tolerance: Floats) -> Floats:
    """What bets on alternatives pay: ln(p / p*), p* the projection of p on the ball around q.

    Args:
        q: (..., B) baseline; 0 where a bin is not there.
        p: (..., B) alternatives outside the ball.
        tolerance: (...) the size of the ball.

    Returns:
        (..., B) logarithms of e-values; NaN where q is 0.

    """
    inside = q > 0
    w = np.zeros(np.broadcast_shapes(p.shape[:-1], q.shape[:-1]))
    for _ in range(_STEPS):
        mixed = np.where(inside, (1.0 - w[..., None]) * p + w[..., None] * q, 1.0)
        excess = (q * np.log(np.where(inside, q, 1.0) / mixed)).sum(axis=-1) - tolerance
        with np.errstate(divide="ignore", invalid="ignore"):
            step = excess / (q * (p - q) / mixed).sum(axis=-1)
        # convex and falling in w, so Newton's method comes from the left; an alternative within the ball stays at 0
        moved = np.clip(np.where(np.isfinite(step), w - step, w), 0.0, 1.0)
        done = np.all(np.abs(moved - w) <= _CLOSE)
        w = moved
        if done:
            break
    mixed = (1.0 - w[..., None]) * p + w[..., None] * q
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = np.log(p / mixed)
    return result


def _rates(accepted: Floats) -> tuple[Floats, Floats, Floats]:
    """Bets that a rate is above what is accepted; a likelihood ratio pays most, on average, at the accepted rate."""
    accepted = np.minimum(accepted, 1.0 - 1e-12)[..., None]
    p = accepted * np.array(RATE_FACTORS)
    there = p <= _MOST_RATE
    p = np.minimum(p, _MOST_RATE)
    outside = np.log((1.0 - p) / (1.0 - accepted))
    inside = np.log(p / accepted) - outside
    alternatives = there.sum(axis=-1).astype(np.float64)
    return np.where(there, outside, _NOTHING), np.where(there, inside, 0.0), alternatives
