"""The sequential drift alarm: a mixture of Shiryaev-Roberts e-detectors, for all columns and tiers at once.

Pure: counts of one tick and the state before it in, the state after it out. Each bet k of a `Bets` keeps the statistic

    R_k <- (1 + R_k) exp(s_k),    s_k = sum over bins of (count / dispersion^1.25) ln e_k(bin)

and the evidence of a column is the logarithm of the average: of the bets of the shape, of the bets of each rate, and
then of these channels. Where the stream stays in the ball the expected number of ticks until it reaches ln A is at
least A. Source: Shin, Ramdas, Rinaldo, "E-detectors", NEJSDS 2023. Natural logarithms throughout.
"""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.dictionary import MOVES, RATE_FACTORS, SIZES, TILTS, Bets, Layout
from mlexporter.edges import Floats

CAP: Final = 8.0
"""Evidence is held this far over the threshold at most, so that an alarm can clear however long the drift lasted.

It leaves room for ln R, by which the evidence of one of R replicas has to pass its threshold: some 400 of them.
"""
CLEAR: Final = 2.0
"""An alarm clears once the evidence is this far under the threshold."""
TICK_SECONDS: Final = 15.0
HALF_LIFE_TICKS: Final = 5760.0
"""Ticks after which what they told of the dispersion counts half: a day of them."""
PRIOR_TICKS: Final = 20.0
"""How many ticks with a dispersion of 1 the estimate begins with."""

# Clusters do more than widen the counts: they make large ones likelier than n / dispersion independent samples do. With
# a design effect of 4 this exponent left no false alarm in 55 column-days, and 1 left two.
_TAIL: Final = 1.25
# The tick in which a drift begins differs from the one before by as much as its samples tell, thousands of times what
# chance does. It counts with this many times the dispersion up to now, or the column would be blind for a day;
# that of clusters is reached in some fifteen ticks all the same.
_MOST_JUMP: Final = 10.0
_KEPT: Final = 2.0 ** (-1.0 / HALF_LIFE_TICKS)
# No bet wins more in one tick than what takes any evidence over its cap; nor is a double overrun.
_MOST: Final = 600.0
_LEAST: Final = 1e-250


class Evidence(msgspec.Struct, frozen=True):
    """What the alarm has gathered. E tiers, C columns, T bins; none of the arrays is ever changed.

    Attributes:
        moves, tilts, rates: the statistics R of the bets, in the layout of `Bets`.
        log_evidence: (E, C) logarithms of the evidence; minus infinity before the first tick.
        dispersion: of the counts of the ticks up to now.

    """

    moves: Floats
    tilts: Floats
    rates: Floats
    log_evidence: Floats
    dispersion: "Dispersion"


class Dispersion(msgspec.Struct, frozen=True):
    """How much more the counts of adjacent ticks differ than independent samples would.

    Attributes:
        total, weight: (C,) sum of chi-square per degree of freedom, and of the ticks that gave one.
        previous: (T,) counts of the tick before; zeros before the first one.

    """

    total: Floats
    weight: Floats
    previous: Floats

    @staticmethod
    def start(layout: Layout) -> "Dispersion":
        """Before the first tick."""
        columns = len(layout.offsets) - 1
        prior = np.full(columns, PRIOR_TICKS)
        return Dispersion(total=prior, weight=prior, previous=np.zeros(int(layout.offsets[-1])))

    @property
    def ratio(self) -> Floats:
        """(C,) the design effect of the ticks: at least 1."""
        return np.maximum(self.total / self.weight, 1.0)

    @property
    def divisor(self) -> Floats:
        """(C,) what counts are divided by."""
        divisor: Floats = self.ratio**_TAIL
        return divisor

    def after(self, layout: Layout, counts: Floats) -> "Dispersion":
        """The estimate with one tick more.

        The two-sample chi-square of two ticks of n and n' samples has, given their sum, the mean
        (B - 1)(n + n') / (n + n' - 1), B the bins with a count in either.
        """
        n, before = layout.totals(counts), layout.totals(self.previous)
        both = counts + self.previous
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = layout.spread(np.sqrt(n / before))
            difference = np.where(both > 0, (counts / scale - self.previous * scale) ** 2 / both, 0.0)
        freedom = layout.totals((both > 0).astype(np.float64)) - 1.0
        told = (before > 0) & (freedom > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = freedom * (n + before) / (n + before - 1.0)
            ratio = np.where(told, layout.totals(difference) / mean, 0.0)
        return self.told(ratio, told, counts)

    def told(self, ratio: Floats, told: NDArray[np.bool_], counts: Floats) -> "Dispersion":
        """The estimate with (C,) ratios more, of the columns in which a tick told one; and the counts of the tick."""
        ratio = np.where(told, np.minimum(ratio, _MOST_JUMP * self.ratio), 0.0)
        return Dispersion(
            total=np.where(told, self.total * _KEPT + ratio, self.total),
            weight=np.where(told, self.weight * _KEPT + 1.0, self.weight),
            previous=counts,
        )


def start(layout: Layout, tiers: int) -> Evidence:
    """No evidence yet."""
    columns, bins, sizes = len(layout.offsets) - 1, int(layout.offsets[-1]), len(SIZES)
    return Evidence(
        moves=np.zeros((tiers, bins, len(MOVES) * sizes)),
        tilts=np.zeros((layout.ordered, tiers * len(TILTS) * sizes)),
        rates=np.zeros((columns, tiers, 2, len(RATE_FACTORS))),
        log_evidence=np.full((tiers, columns), -np.inf),
        dispersion=Dispersion.start(layout),
    )


def advance(
    layout: Layout, bets: Bets, evidence: Evidence, counts: Floats, rate_counts: Floats, log_cap: float
) -> Evidence:
    """The evidence after one tick.

    Args:
        layout: of the bins.
        bets: at the time of the tick.
        evidence: up to now.
        counts: (T,) samples of the tick per bin, at least one in each column.
        rate_counts: (C, 2) samples of the tick that count to each rate.
        log_cap: what the log evidence is held under.

    """
    # by the ticks before this one, so that the divisor of a bet does not depend on its outcome
    divisor = evidence.dispersion.divisor
    n = layout.totals(counts) / divisor
    scaled = counts / layout.spread(divisor)
    moves = grown(evidence.moves, bets.moves * layout.spread(n)[:, None] + bets.moves_inside * scaled[:, None])
    tilts = grown(evidence.tilts, np.matmul(bets.tilts, np.append(scaled, 0.0)[layout.matrix][:, :, None])[:, :, 0])
    rates = grown(
        evidence.rates,
        bets.rates * n[:, None, None, None] + bets.rates_inside * (rate_counts / divisor[:, None])[:, None, :, None],
    )
    total = average(layout, bets, moves, tilts, rates)
    cap = math.exp(min(log_cap, _MOST))
    over = cap / np.maximum(total, cap)
    if over.min(initial=1.0) < 1.0:
        # all bets alike: the one that fits best stays ahead, and it is the first to fall when the drift is over
        moves *= layout.spread(over)[:, :, None]
        tilts *= np.repeat(over[:, : layout.ordered].T, tilts.shape[1] // len(over), axis=1)
        rates *= over.T[:, :, None, None]
        total *= over
    return Evidence(
        moves=moves,
        tilts=tilts,
        rates=rates,
        log_evidence=np.log(np.maximum(total, _LEAST)),
        dispersion=evidence.dispersion.after(layout, counts),
    )


def grown(statistics: Floats, scores: Floats) -> Floats:
    """Shiryaev-Roberts statistics after one more tick: (1 + R) exp(s). The scores are used up."""
    np.minimum(scores, _MOST, out=scores)
    np.exp(scores, out=scores)
    scores += statistics * scores
    return scores


def average(layout: Layout, bets: Bets, moves: Floats, tilts: Floats, rates: Floats) -> Floats:
    """(E, C) evidence: the average over the channels of the averages over their bets."""
    shape = layout.totals(moves.sum(axis=2))
    shape[:, : layout.ordered] += tilts.reshape(len(tilts), len(shape), len(TILTS) * len(SIZES)).sum(axis=2).T
    shape /= np.maximum(bets.alternatives, 1.0)
    by_rate = rates.sum(axis=3) / np.maximum(bets.rate_alternatives, 1.0)
    channels = 1.0 + (bets.rate_alternatives > 0).sum(axis=2).T
    total: Floats = (shape + by_rate.sum(axis=2).T) / channels
    return total


def log_threshold(columns: int, false_alarm_every: float) -> float:
    """The log evidence at which a column alarms: the logarithm of the columns times the ticks between false alarms.

    The average of the evidence of all columns reaches A only once that of some column reaches A times their number, so
    the bound holds for all of them together, however they depend on each other.

    Args:
        columns: that are watched, of all models together; at least 1.
        false_alarm_every: seconds.

    >>> round(log_threshold(100, 30 * 86400), 2)
    16.67

    """
    return math.log(columns * false_alarm_every / TICK_SECONDS)
