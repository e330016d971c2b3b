"""Bets on all strata at once: e-values against enumeration and random members of the null, dispersion against scipy."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from mlexporter.dictionary import log_e_values, radius
from mlexporter.edges import Floats
from mlexporter.joint_bets import JointBets, dispersion_ratio, divergence

# (S, O) reference counts
BINARY = np.array([[900.0, 100], [700, 300], [450, 550], [40, 160]])
RESIDUALS = np.array([[100.0, 300, 500, 100], [50, 450, 450, 50], [400, 200, 200, 400]])
TOLERANCE = np.array([0.002, 0.02])
# binding in the tier that accepts more
STRATUM_TOLERANCE = (0.02, 0.025)


def shares_of(reference: Floats) -> Floats:
    shares: Floats = (reference + 0.5) / (reference + 0.5).sum(axis=1, keepdims=True)
    return shares


def bets_of(reference: Floats, tolerance: Floats = TOLERANCE) -> JointBets:
    of_strata = np.tile(np.array([STRATUM_TOLERANCE[: len(tolerance)]]).T, (1, len(reference)))
    return JointBets.of(reference, shares_of(reference), tolerance, of_strata, ordered=reference.shape[1] > 2)


def members(rng: np.random.Generator, bets: JointBets, tier: int, count: int) -> Floats:
    """(count, S, O) points on the surface of the null, in random directions, some of them in one stratum only."""
    tolerance, of_stratum = bets.tolerance[tier], STRATUM_TOLERANCE[tier]

    def at(t: float, direction: Floats) -> Floats:
        weights = bets.q * np.exp(t * direction)
        p: Floats = weights / weights.sum(axis=1, keepdims=True)
        return p

    def excess(t: float, direction: Floats) -> float:
        of_strata = (bets.q * np.log(bets.q / at(t, direction))).sum(axis=1)
        return float(max(bets.shares @ of_strata - tolerance, (of_strata - of_stratum).max()))

    found = []
    for i in range(count):
        direction = rng.normal(size=bets.q.shape)
        if i % 3 == 0:
            direction *= rng.random((len(bets.q), 1)) < 0.4
        direction[rng.integers(len(bets.q))] += rng.normal(size=bets.q.shape[1])
        if excess(40.0, direction) > 0:
            found.append(at(optimize.brentq(excess, 0.0, 40.0, args=(direction,)), direction))
    return np.array(found)


@pytest.mark.parametrize("reference", [BINARY, RESIDUALS], ids=["binary", "residuals"])
@pytest.mark.parametrize("seed", range(3))
def test_no_member_of_the_null_gains_from_a_block(reference: Floats, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bets = bets_of(reference)
    for rows in ([50, 50, 50, 50], [200, 3, 0, 1], [0, 0, 1, 0], rng.integers(1, 90, 4).tolist()):
        n = np.array(rows[: len(reference)], float)
        nearest = bets.projections(n)
        e_values = bets.alternatives / nearest
        for tier in range(2):
            p = members(rng, bets, tier, 60)
            assert len(p) > 30
            # the logarithm of the mean of the product over the block, for each bet and member
            means = np.einsum("kso,pso->kps", e_values[tier], p)
            assert ((n * np.log(means)).sum(axis=2)[bets.there[tier]] <= 1e-6).all()
        # a bet is not worth less than it may be: the nearest member gains nothing, and loses nothing
        of_nearest = (n * np.log((e_values * nearest).sum(axis=3))).sum(axis=2)
        assert of_nearest[bets.there] == pytest.approx(0.0, abs=1e-9)


def test_mean_of_a_block_by_enumeration() -> None:
    """All outcomes of three rows in two strata, by the scores that the alarm uses."""
    bets = bets_of(BINARY[:2], np.array([0.01]))
    null = members(np.random.default_rng(4), bets, 0, 10)
    assert len(null) > 3
    for p in null:
        mean = np.zeros(bets.there.shape)
        for first, second, third in itertools.product((0, 1), repeat=3):
            counts = np.zeros((2, 2))
            for stratum, outcome in ((0, first), (0, second), (1, third)):
                counts[stratum, outcome] += 1
            mean += p[0, first] * p[0, second] * p[1, third] * np.exp(bets.scores(counts))
        assert mean.max() <= 1 + 1e-9
        assert mean.max() > 0.5


def test_projection_is_the_nearest_member() -> None:
    rng = np.random.default_rng(5)
    bets, n = bets_of(RESIDUALS), np.array([30.0, 100, 7])
    nearest = bets.projections(n)

    def distance(alternatives: Floats, p: Floats) -> Floats:
        result: Floats = (n[:, None] * alternatives * np.log(alternatives / p)).sum(axis=(-1, -2))
        return result

    of_strata = (bets.q * np.log(bets.q / nearest)).sum(axis=3)
    on_average = of_strata @ bets.shares
    for tier in range(2):
        there = bets.there[tier]
        # it is in the null, and on the surface of each part that binds
        assert on_average[tier, there].max() == pytest.approx(TOLERANCE[tier], rel=1e-4)
        assert of_strata[tier, there].max() <= STRATUM_TOLERANCE[tier] * (1 + 1e-6)
        assert tier == 0 or of_strata[tier, there].max() == pytest.approx(STRATUM_TOLERANCE[tier], rel=1e-4)
        for p in members(rng, bets, tier, 60):
            own, others = distance(bets.alternatives[tier], nearest[tier]), distance(bets.alternatives[tier], p)
            assert (own[there] <= others[there] + 1e-6).all()


def test_one_stratum_is_the_ball_of_a_column() -> None:
    bets = bets_of(BINARY[2:3], np.array([0.02, 0.025]))
    paid = log_e_values(bets.q, bets.alternatives, np.broadcast_to(bets.tolerance[:, None, None], (2, 10, 1)))
    counts = np.array([[30.0, 90.0]])
    assert bets.scores(counts)[bets.there] == pytest.approx((counts * paid).sum(axis=(2, 3))[bets.there], rel=1e-6)
    assert bets.there.all()


@pytest.mark.parametrize("reference", [BINARY, RESIDUALS], ids=["binary", "residuals"])
def test_alternatives_are_so_many_tolerances_away(reference: Floats) -> None:
    bets = bets_of(reference)
    away = divergence(bets.q, bets.shares, bets.alternatives).reshape(2, -1, 5)
    expected = np.broadcast_to(np.multiply.outer(TOLERANCE, [2, 4, 9, 25, 80])[:, None], away.shape)
    there = bets.there.reshape(away.shape)
    assert there.mean() > 0.7
    assert away[there] == pytest.approx(expected[there], rel=1e-6)
    assert (bets.scores(reference)[~bets.there] == -1e300).all()


def test_directions_of_two_outcomes() -> None:
    """The first five bets say that the log-odds of all strata grow alike, the last five that they draw together."""
    bets = bets_of(BINARY)
    change = np.log(bets.alternatives[..., 1] / bets.alternatives[..., 0]) - np.log(bets.q[:, 1] / bets.q[:, 0])
    up, together = change[0, 0], change[0, 15]
    assert up == pytest.approx(np.full(4, up[0]))
    assert up[0] > 0
    assert together[0] > 0 > together[3]


def test_null_holds_what_the_reference_was_drawn_from() -> None:
    """In all but one of 2,000; chi-square is an approximation, so a little more is granted."""
    rng = np.random.default_rng(6)
    p = BINARY / BINARY.sum(axis=1, keepdims=True)
    rows = BINARY.sum(axis=1)
    eps = radius(np.array([5]), np.array([rows.sum()]), 0.9995)
    outside = 0
    for _ in range(4000):
        drawn = np.stack([rng.multinomial(int(n), own) for n, own in zip(rows, p, strict=True)]).astype(float)
        q = shares_of(drawn)
        outside += bool(divergence(q, rows / rows.sum(), p) > eps)
    assert outside <= 6


# -- dispersion --------------------------------------------------------------------------------------------------------


def test_ratio_of_one_stratum_is_pearsons() -> None:
    now, before = np.array([[30.0, 12.0]]), np.array([[55.0, 41.0]])
    pearson = stats.chi2_contingency(np.concatenate([now, before]), correction=False).statistic
    # hypergeometric rather than binomial variance: N - 1 instead of N
    assert dispersion_ratio(now, before) == pytest.approx(pearson * 137 / 138)


def test_ratio_of_nothing() -> None:
    none = np.zeros((2, 2))
    some = np.array([[3.0, 0.0], [0.0, 0.0]])
    assert dispersion_ratio(some, none) is None
    assert dispersion_ratio(some, 4 * some) is None  # no other outcome in either
    assert dispersion_ratio(some, np.array([[0.0, 0.0], [5.0, 5.0]])) is None  # no stratum in both


@pytest.mark.parametrize("clump", [1, 3])
def test_ratio_is_the_size_of_clumps(clump: int) -> None:
    """On average, with few rows and other strata in each block; where all strata err together it shows, too."""
    rng = np.random.default_rng(7)
    p = np.array([0.05, 0.3, 0.8])
    found = []
    for _ in range(6000):
        blocks = []
        for _ in range(2):
            rows = rng.multinomial(12, rng.dirichlet([2, 2, 2]))
            positive = rng.binomial(rows, p)
            blocks.append(clump * np.stack([rows - positive, positive], axis=1).astype(float))
        ratio = dispersion_ratio(*blocks)
        if ratio is not None:
            found.append(ratio)
    # with so few rows a factor of (N - 1) / N of the clumps' number is missing
    assert np.mean(found) == pytest.approx(clump, rel=0.1)
