"""Bets that the outcomes change in all strata together, which one stratum alone may have too few rows to show.

S strata, O outcomes, E tiers, K alternatives. The reference has m_s outcomes in stratum s, m altogether, with the
smoothed shares q_s; its share of the rows is mu_s = m_s / m. The null hypothesis is about outcomes given the stratum:

    KL(q_s || p_s) <= eps_s  in each stratum, and  D(p) = sum over s of mu_s KL(q_s || p_s) <= eps

As m D(p) is the log likelihood ratio of the reference itself, eps = chi-square(S (O - 1)) / (2 m) makes the latter a
confidence set for what the reference was drawn from: its errors in different strata are not all at their worst, nor in
the same direction, at once. (Balls of each stratum alone have to allow for that, and with ten strata they are several
times as large. They are smaller where the accepted drift is more than the reference leaves open.)

**E-value.** A block of outcomes has n_s in stratum s. Against an alternative p1, let p* be the point of the null with
the least sum of n_s KL(p1_s || p_s). Then the product of e_s(x) = p1_s(x) / p*_s(x) over the outcomes x of the block
has, given the strata and however many outcomes fall into which, a mean of at most 1 under every p in the null. For let
f(p) be the sum of n_s ln E_{p_s} e_s, the logarithm of that mean. It is concave, as E is linear; f(p*) = 0; and its
slope at p* towards p is the sum of n_s (E_{p_s} e_s - 1), which is minus that of what p* minimises over a convex set,
so it is at most 0. Hence f(p) <= f(p*) = 0. If p wanders within the block, the sum of the logarithms is at most f of
its mean in each stratum, which lies in the null as well where the strata come in the same proportions throughout.

**Projection.** By Lagrange, p*_s = (1 - w_s) p1_s + w_s q_s. Where only D binds, w_s = u mu_s / (u mu_s + (1 - u) n_s)
with one u for all; where the stratum's own ball binds as well, w_s is larger, and what takes p1_s into that ball.
D falls while u grows, so bisection finds the u for which it is eps, or 0 if the strata's balls are enough for that.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.dictionary import SIZES, normal_scores
from mlexporter.edges import Floats

# Log-odds of an outcome beyond which no alternative goes.
_FARTHEST: Final = 8.0
_STEPS: Final = 35
_PROJECTION_STEPS: Final = 25
# No bet wins more with one block; the others less by as much as the best, so that it stays ahead after a flood.
_MOST: Final = 600.0
# What a bet that is not there pays: its capital is gone, and stays gone.
_NOTHING: Final = -1e300


class JointBets(msgspec.Struct, frozen=True):
    """Alternatives in all strata at once.

    Attributes:
        q: (S, O) smoothed shares of outcomes in the reference.
        shares: (S,) of the reference's rows.
        tolerance: (E,) accepted divergences, on average over the strata.
        alternatives: (E, K, S, O) shares of outcomes.
        least: (E, K, S) what an alternative has to be mixed with of q to be in the ball of a stratum.
        there: (E, K) which of them exist.

    """

    q: Floats
    shares: Floats
    tolerance: Floats
    alternatives: Floats
    least: Floats
    there: NDArray[np.bool_]

    @staticmethod
    def of(reference: Floats, q: Floats, tolerance: Floats, stratum_tolerance: Floats, *, ordered: bool) -> "JointBets":
        """The bets against a reference.

        They lie on the paths q exp(t d), at the points with D = c eps for c in `SIZES`, for these directions d, both
        ways: an outcome becomes likelier everywhere; or it does so where the model says more, and less likely where it
        says less, so that the model tells less well, or better, what comes. Of outcomes in an order it is their mean
        that goes up, and their spread as well.

        Args:
            reference: (S, O) counts.
            q: (S, O) their smoothed shares.
            tolerance: (E,) accepted divergences, on average over the strata.
            stratum_tolerance: (E, S) accepted divergences of each.
            ordered: whether outcomes are in an order; where not, there are two of them.

        """
        shares = reference.sum(axis=1) / reference.sum()
        directions = _directions(q, shares, ordered=ordered)
        target = np.multiply.outer(tolerance, np.array(SIZES))[:, None, :]  # (E, 1, 5)
        low = np.zeros((len(tolerance), len(directions), len(SIZES)))
        high = np.full(low.shape, _FARTHEST)
        there = divergence(q, shares, _tilted(q, directions, high)) > target
        for _ in range(_STEPS):
            middle = (low + high) / 2
            beyond = divergence(q, shares, _tilted(q, directions, middle)) > target
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        p = _tilted(q, directions, high).reshape(len(tolerance), -1, *q.shape)
        least = _least(q, p, stratum_tolerance[:, None])
        return JointBets(q, shares, tolerance, p, least, there.reshape(len(tolerance), -1))

    def scores(self, counts: Floats) -> Floats:
        """(E, K) logarithms of the e-values of a block of (S, O) counts, at least one; -1e300 where no bet is."""
        paid = np.log(self.alternatives) - np.log(self.projections(counts.sum(axis=1)))
        scores = np.where(self.there, (counts * paid).sum(axis=(2, 3)), _NOTHING)
        over: Floats = scores - np.maximum(scores.max(axis=1, keepdims=True) - _MOST, 0.0)
        return over

    def projections(self, rows: Floats) -> Floats:
        """(E, K, S, O) points of the null that are nearest to the alternatives for (S,) outcomes in the strata."""
        own = rows / rows.sum()

        def mixed(u: Floats) -> Floats:
            u = u[..., None]
            weight = np.maximum(u * self.shares / (u * self.shares + (1.0 - u) * own), self.least)[..., None]
            p: Floats = self.alternatives + weight * (self.q - self.alternatives)
            return p

        low = np.full(self.there.shape, 1e-12)
        high = np.ones(self.there.shape)
        for _ in range(_PROJECTION_STEPS):
            middle = (low + high) / 2
            outside = divergence(self.q, self.shares, mixed(middle)) > self.tolerance[:, None]
            low, high = np.where(outside, middle, low), np.where(outside, high, middle)
        # by a rounding outside of the null rather than inside: there the mean of the e-values is below 1
        return mixed(low)


def divergence(q: Floats, shares: Floats, p: Floats) -> Floats:
    """(...) D(p) of (..., S, O) shares p from (S, O) q, with the strata's (S,) shares of the rows."""
    weights = shares[:, None] * q
    logs = np.log(p).reshape(*p.shape[:-2], weights.size)
    result: Floats = (weights * np.log(q)).sum() - logs @ weights.ravel()
    return result


def dispersion_ratio(counts: Floats, before: Floats) -> float | None:
    """How much more two blocks differ, over all strata, than independent outcomes do; 1 on average if they do not.

    Cochran, Mantel and Haenszel: given the outcomes of both blocks together in each stratum, those of one block are
    hypergeometric, whatever the chances of outcomes and however the rows are spread over the strata.

    Args:
        counts: (S, O) of a block.
        before: of the block before it.

    Returns:
        The mean over the outcomes; None where the blocks tell nothing.

    """
    n, n_before = counts.sum(axis=1, keepdims=True), before.sum(axis=1, keepdims=True)
    rows, both = n + n_before, counts + before
    told = (n[:, 0] > 0) & (n_before[:, 0] > 0)
    n, n_before, rows, both, counts = n[told], n_before[told], rows[told], both[told], counts[told]
    difference = (counts - n * both / rows).sum(axis=0)
    variance = (n * n_before * both * (rows - both) / (rows**2 * (rows - 1.0))).sum(axis=0)
    varies = variance > 0
    return float((difference[varies] ** 2 / variance[varies]).mean()) if varies.any() else None


def _least(q: Floats, p: Floats, tolerance: Floats) -> Floats:
    """(E, K, S) least share w of q with which (E, K, S, O) alternatives, (1 - w) p + w q, are in balls around q."""
    low, high = np.zeros(p.shape[:-1]), np.ones(p.shape[:-1])
    for _ in range(_STEPS):
        middle = (low + high) / 2
        mixture = p + middle[..., None] * (q - p)
        outside = (q * np.log(q / mixture)).sum(axis=-1) > tolerance
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return low


def _tilted(q: Floats, directions: Floats, t: Floats) -> Floats:
    """(E, D, 5, S, O) shares q exp(t d), from (D, S, O) directions and (E, D, 5) distances."""
    p = q * np.exp(t[..., None, None] * directions[:, None])
    tilted: Floats = p / p.sum(axis=-1, keepdims=True)
    return tilted


def _directions(q: Floats, shares: Floats, *, ordered: bool) -> Floats:
    """(D, S, O) directions of alternatives."""
    if ordered:
        mean, spread = normal_scores(q)
        said = np.cumsum(shares) - shares / 2
        said = (said - 0.5) * np.sqrt(12.0)
        ways = [mean, spread, said[:, None] * mean]
    else:
        positive = np.broadcast_to([0.0, 1.0], q.shape)
        log_odds = np.log(q[:, 1] / q[:, 0])
        told = shares * q[:, 0] * q[:, 1]
        said = log_odds - (told * log_odds).sum() / told.sum()
        largest = np.abs(said).max()
        ways = [positive, said[:, None] / (largest or 1.0) * positive]
        if not largest:
            ways = ways[:1]  # one stratum, or all alike: nothing tells them apart
    return np.stack([sign * way for way in ways for sign in (1.0, -1.0)])
