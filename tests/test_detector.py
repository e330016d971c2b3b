"""The sequential alarm against a plain implementation, published vectors and simulation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import oracle
from mlexporter import detector
from mlexporter.detector import CAP, CLEAR, HALF_LIFE_TICKS, PRIOR_TICKS, Dispersion, Evidence, log_threshold
from mlexporter.dictionary import Bets, Layout, make_bets, smoothed
from mlexporter.edges import Floats
from test_dictionary import DECILES, TICKS, bets_of, layout_of, tables

NO_CAP = 250.0
MONTH = 30 * 86400.0
# accepts any rate, so that there is no bet on one
ANY_RATE = 1.0


def run(
    layout: Layout, bets: Bets, ticks: Sequence[Sequence[float]], log_cap: float = NO_CAP, tiers: int = 1
) -> list[Evidence]:
    """The evidence after each tick, without anything missing or strange."""
    evidence = detector.start(layout, tiers)
    found: list[Evidence] = []
    for counts in ticks:
        none = np.zeros((len(layout.sizes), 2))
        evidence = detector.advance(layout, bets, evidence, np.array(counts, dtype=float), none, log_cap)
        found.append(evidence)
    return found


# -- published vectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "expected"),
    [
        (0.00164547452037, [-1.16580939488, 0.247501712401, 32.8674658251]),
        (0.02, [-4.73229079263, -4.56329576792, -4.55043643662]),
    ],
)
def test_vector_of_the_scale_free_dictionary(eps: float, expected: list[float]) -> None:
    layout = layout_of([13])
    bets = bets_of(layout, smoothed(layout, np.array(DECILES, dtype=float)), [[eps]], ANY_RATE)
    found = run(layout, bets, TICKS * 10)
    assert [found[i].log_evidence.item() for i in (0, 2, 29)] == pytest.approx(expected, rel=1e-9)
    assert detector.start(layout, 1).log_evidence.tolist() == [[-math.inf]]


def test_vector_of_two_bets() -> None:
    paid = [
        [-0.21340843153108724, 0.08261745944423735, 0.20459865766358154],
        [0.13145295512814173, -0.23656418202252397, -0.16375518823187224],
    ]
    layout = layout_of([3])
    bets = bets_of(layout, np.array([0.5, 0.3, 0.2]), [[math.inf]], ANY_RATE)  # no bets, but for these
    bets.tilts[0, :2] = paid
    bets.alternatives[:] = 2
    found = run(layout, bets, [[8, 7, 5], [6, 8, 6], [7, 6, 7], [5, 8, 7], [7, 5, 8]])
    expected = [-0.5617388563867085, 0.5997137627842948, 1.2741761260900017, 2.4085458929100385, 3.0093913107401553]
    assert [evidence.log_evidence.item() for evidence in found] == pytest.approx(expected, rel=1e-9)
    components = [math.log(r) - math.log(2) for r in found[-1].tilts[0, :2].tolist()]
    # the published components are not weighted
    assert [x + math.log(2) for x in components] == pytest.approx([3.696827330684845, -1.4656487458053828], rel=1e-9)


@pytest.mark.parametrize(("columns", "expected"), [(1, 12.06), (10, 14.36), (100, 16.67), (300, 17.76), (1000, 18.97)])
def test_thresholds(columns: int, expected: float) -> None:
    assert round(log_threshold(columns, MONTH), 2) == expected
    # ten times as often is ln 10 less
    assert log_threshold(columns, MONTH) - log_threshold(columns, MONTH / 10) == pytest.approx(math.log(10))


# -- against the oracle ------------------------------------------------------------------------------------------------


def rate_tables(bets: Bets, tier: int, column: int, kind: int) -> list[list[float]]:
    """What each bet on a rate pays without and with it."""
    pairs = zip(bets.rates[column, tier, kind].tolist(), bets.rates_inside[column, tier, kind].tolist(), strict=True)
    return [[outside, outside + inside] for outside, inside in pairs if outside > -1e200]


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_that_of_the_oracle(seed: int) -> None:
    """Columns of several kinds and sizes, two tiers, three channels, counts that are overdispersed."""
    random = np.random.default_rng(seed)
    layout = layout_of([13, 5], [23, 2])
    shares = [random.dirichlet(np.ones(size)) for size in layout.sizes]
    q = smoothed(layout, np.concatenate([random.multinomial(3000, own) for own in shares]).astype(float))
    eps = np.array([[0.002, 0.004, 0.006, 0.001], [0.02, 0.03, 0.02, 0.2]])
    accepted = random.uniform(0.0005, 0.7, (4, 2, 2))
    accepted[1, :, 1] = accepted[3, 0] = 0.99  # no bets on these
    bets = make_bets(layout, q, eps, accepted)
    ticks, rate_ticks = [], []
    for _ in range(25):
        n = int(random.integers(1, 60))
        ticks.append([random.multinomial(n, random.dirichlet(6 * own)).astype(float) for own in shares])
        rate_ticks.append(random.integers(0, n // 3 + 1, (4, 2)).astype(float))

    evidence = detector.start(layout, 2)
    for counts, rates in zip(ticks, rate_ticks, strict=True):
        evidence = detector.advance(layout, bets, evidence, np.concatenate(counts), rates, NO_CAP)

    for column in range(4):
        own = [tick[column].tolist() for tick in ticks]
        ratios = expected_dispersions(own)
        assert max(ratios) > 1.2
        assert evidence.dispersion.ratio[column] == pytest.approx(ratios[-1], rel=1e-12)
        # a tick is divided by what the ticks before it tell
        # what clusters do beyond a larger variance takes a quarter more
        divisors = [phi**1.25 for phi in ratios]
        scaled = [[c / phi for c in counts] for counts, phi in zip(own, divisors, strict=False)]
        for tier in range(2):
            channels = [oracle.log_evidence(tables(layout, bets, tier, column), scaled)[-1]]
            for kind in range(2):
                bet_on = rate_tables(bets, tier, column, kind)
                if bet_on:
                    hits = [float(tick[column, kind]) / phi for tick, phi in zip(rate_ticks, divisors, strict=False)]
                    pairs = [[sum(counts) - k, k] for counts, k in zip(scaled, hits, strict=True)]
                    channels.append(oracle.log_evidence(bet_on, pairs)[-1])
            assert len(channels) == 1 + (1.5 * accepted[column, tier] <= 0.95).sum()
            assert evidence.log_evidence[tier, column] == pytest.approx(oracle.log_mean(channels), rel=1e-9, abs=1e-9)


def expected_dispersions(ticks: Sequence[Sequence[float]]) -> list[float]:
    """The dispersion before the first tick, and after each."""
    kept = 0.5 ** (1 / HALF_LIFE_TICKS)
    total = weight = PRIOR_TICKS
    found = [1.0]
    before: Sequence[float] = [0.0] * len(ticks[0])
    for counts in ticks:
        ratio = oracle.dispersion_ratio(before, counts)
        if ratio is not None:
            ratio = min(ratio, 10 * max(total / weight, 1))
            total, weight = total * kept + ratio, weight * kept + 1
        before = counts
        found.append(max(total / weight, 1.0))
    return found


def test_columns_and_tiers_do_not_touch_each_other() -> None:
    random = np.random.default_rng(1)
    both = layout_of([6, 4])
    q = smoothed(both, random.integers(1, 900, 10).astype(float))
    ticks = random.integers(0, 9, (10, 10))
    eps, rate = np.array([[0.001, 0.002], [0.02, 0.03]]), np.full((2, 2, 2), 0.01)
    together = run(both, make_bets(both, q, eps, rate), ticks.tolist(), tiers=2)[-1]
    for column, size, bins in ((0, 6, slice(0, 6)), (1, 4, slice(6, 10))):
        alone = layout_of([size])
        own = slice(column, column + 1)
        bets = make_bets(alone, q[bins], eps[own, own], rate[own, own])
        found = run(alone, bets, ticks[:, bins].tolist())[-1].log_evidence.item()
        assert together.log_evidence[column, column] == pytest.approx(found, rel=1e-12)


def test_nothing_is_changed_in_place() -> None:
    layout = layout_of([13])
    bets = bets_of(layout, smoothed(layout, np.array(DECILES, dtype=float)), [[0.01]])
    kept = bets.copy()
    (before, after) = run(layout, bets, TICKS[:2])
    again = run(layout, bets, TICKS[:2])
    for name in Bets.__struct_fields__:
        np.testing.assert_array_equal(getattr(bets, name), getattr(kept, name))
    for name in ("moves", "tilts", "rates", "log_evidence"):
        assert not np.array_equal(getattr(before, name), getattr(after, name))
        np.testing.assert_array_equal(getattr(before, name), getattr(again[0], name))


# -- simulations -------------------------------------------------------------------------------------------------------


def normal_bins(mean: float) -> Floats:
    """Shares of a shifted normal in the bins of DECILES; what is out of the range of 10,000 rows is rare."""
    far = stats.norm.ppf(1 - 1e-4)
    cuts = [-far, *stats.norm.ppf(np.arange(1, 10) / 10), far]
    inner = np.diff(stats.norm.cdf(np.array([-math.inf, *cuts, math.inf]) - mean))
    return np.append(inner, 0.0)


def simulated(
    random: np.random.Generator, shares: Floats, columns: int, n: int = 200
) -> tuple[NDArray[np.float64], Floats]:
    """(T,) counts of one tick, and (C, 2) of missing and out of range."""
    counts = random.multinomial(n, shares, size=columns).astype(float)
    return counts.ravel(), np.stack([counts[:, -1], counts[:, 0] + counts[:, -2]], axis=1)


def watched(columns: int, rows: int = 10_000, seed: int = 3) -> tuple[Layout, Floats, Bets]:
    """Columns with a baseline of their own each, and the bets of both tiers by default."""
    random = np.random.default_rng(seed)
    layout = layout_of([13] * columns)
    counts = random.multinomial(rows, normal_bins(0.0), size=columns).ravel().astype(float)
    least = 32.909490 / (2 * rows)
    eps = np.array([[max(0.001, least)], [max(0.02, least)]]).repeat(columns, axis=1)
    rate = np.broadcast_to(np.array([0.0017, 0.011])[:, None], (columns, 2, 2))
    q = smoothed(layout, counts)
    return layout, q, make_bets(layout, q, eps, rate)


def test_delays_are_those_of_the_study() -> None:
    """200 samples a tick, a baseline of 10,000 rows, 100 columns watched: table 3 of the study."""
    columns, random = 60, np.random.default_rng(4)
    layout, _, bets = watched(columns)
    threshold = log_threshold(100, MONTH)

    def delays(mean: float, tier: int, most: int) -> Floats:
        evidence = detector.start(layout, 2)
        found = np.full(columns, np.inf)
        for tick in range(1, most + 1):
            counts, rates = simulated(random, normal_bins(mean), columns)
            evidence = detector.advance(layout, bets, evidence, counts, rates, threshold + CAP)
            found = np.where((evidence.log_evidence[tier] >= threshold) & np.isinf(found), tick, found)
        return found

    assert np.median(delays(0.25, 0, 20)) == pytest.approx(7, abs=1)
    assert np.median(delays(0.5, 1, 10)) == pytest.approx(3, abs=1)
    assert np.median(delays(1.0, 1, 4)) == 1
    assert np.isinf(delays(0.0, 0, 150)).all()
    assert np.isinf(delays(0.1, 1, 150)).all()


def test_evidence_is_no_more_than_the_number_of_ticks_on_average() -> None:
    """That is what bounds false alarms; with streams on the surface of the ball, shape and rates."""
    random = np.random.default_rng(9)
    columns, ticks, eps, accepted = 400, 60, 0.01, 0.05
    layout = layout_of([6] * columns)
    q = np.array([0.05, 0.3, 0.25, 0.25, 0.1, 0.05])
    far = random.dirichlet(np.ones(6), columns).tolist()
    surface = np.array([oracle.projection(q.tolist(), p, eps) if oracle.kl(q.tolist(), p) > eps else p for p in far])
    rates = np.full((columns, 1, 2), accepted)
    bets = make_bets(layout, np.tile(q, columns), np.full((1, columns), eps), rates)
    evidence = detector.start(layout, 1)
    for tick in range(1, ticks + 1):
        counts = np.array([random.multinomial(40, p) for p in surface]).ravel().astype(float)
        hits = random.binomial(40, accepted, (columns, 2)).astype(float)
        evidence = detector.advance(layout, bets, evidence, counts, hits, NO_CAP)
        if tick in (1, 20, ticks):
            assert np.exp(evidence.log_evidence).mean() < tick
    # and it is no lame one: just outside the ball it grows
    assert np.exp(evidence.log_evidence).mean() > 0.2


def test_evidence_is_capped_and_clears_however_long_a_drift_lasts() -> None:
    columns, random = 40, np.random.default_rng(5)
    layout, _, bets = watched(columns)
    threshold = log_threshold(columns, MONTH)
    evidence = detector.start(layout, 2)
    for _ in range(200):
        counts, rates = simulated(random, normal_bins(1.0), columns)
        evidence = detector.advance(layout, bets, evidence, counts, rates, threshold + CAP)
        assert (evidence.log_evidence <= threshold + CAP + 1e-9).all()
    assert evidence.log_evidence == pytest.approx(np.full((2, columns), threshold + CAP))
    for statistics in (evidence.moves, evidence.tilts, evidence.rates):
        assert np.isfinite(statistics).all()
    for _ in range(20):
        counts, rates = simulated(random, normal_bins(0.0), columns)
        evidence = detector.advance(layout, bets, evidence, counts, rates, threshold + CAP)
    assert (evidence.log_evidence < threshold - CLEAR).all()


def test_huge_ticks_overflow_nothing() -> None:
    layout = layout_of([13], [4])
    q = smoothed(layout, np.array([*DECILES, 10, 9, 8, 0], dtype=float))
    bets = bets_of(layout, q, [[0.001, 0.001], [0.02, 0.02]])
    evidence = detector.start(layout, 2)
    for counts in ([10**8, *[0] * 12, 0, 0, 0, 10**8], [0, 10**8, *[0] * 11, 10**8, 0, 0, 0]):
        for _ in range(3):
            hits = np.full((2, 2), 5e7)
            evidence = detector.advance(layout, bets, evidence, np.array(counts, dtype=float), hits, 18.0)
            assert evidence.log_evidence == pytest.approx(np.full((2, 2), 18.0))


def test_no_bets_are_no_evidence() -> None:
    layout = layout_of([3], [2])
    bets = bets_of(layout, np.array([0.2, 0.3, 0.5, 0.5, 0.5]), [[math.inf, math.inf]], ANY_RATE)
    (evidence,) = run(layout, bets, [[5, 0, 0, 5, 0]], log_cap=18.0)
    assert (evidence.log_evidence < -500).all()
    assert np.isfinite(evidence.log_evidence).all()


# -- dispersion --------------------------------------------------------------------------------------------------------


def test_dispersion_of_two_ticks_by_hand() -> None:
    layout = layout_of([3], [2])
    first = Dispersion.start(layout).after(layout, np.array([4.0, 0, 0, 3, 1]))
    # one tick alone tells nothing
    assert first.ratio.tolist() == [1, 1]
    assert (first.total.tolist(), first.weight.tolist()) == ([20, 20], [20, 20])
    second = first.after(layout, np.array([1.0, 0, 3, 0, 2]))
    kept = 0.5 ** (1 / 5760)
    # of 4 and 4 samples, in two bins: (1 - 4)^2 / 5 + (3 - 0)^2 / 3 = 4.8, where 1 x 8/7 is to be expected
    assert second.total[0] == pytest.approx(20 * kept + 4.8 / (8 / 7), rel=1e-12)
    # of 4 and 2: (0 - 3 / sqrt 2)^2 / 3 + (2 sqrt 2 - 1 / sqrt 2)^2 / 3 = 1.5 + 1.5 = 3, where 1 x 6/5 is
    assert second.total[1] == pytest.approx(20 * kept + 3 / (6 / 5), rel=1e-12)
    assert second.weight == pytest.approx([20 * kept + 1] * 2, rel=1e-12)
    # two ticks in one bin tell nothing, and forget nothing
    third = second.after(layout, np.array([0.0, 0, 5, 0, 7]))
    assert third.total[1] == second.total[1]
    assert third.weight.tolist() == [second.weight[0] * kept + 1, second.weight[1]]
    assert third.previous.tolist() == [0, 0, 5, 0, 7]


def test_the_tick_of_a_jump_counts_as_ten_times_the_dispersion() -> None:
    """A column that turns from one category to another in a tick of 10,000 samples stays in sight."""
    layout = layout_of([], [3])
    state = (
        Dispersion.start(layout).after(layout, np.array([7000.0, 3000, 0])).after(layout, np.array([0.0, 10_000, 0]))
    )
    kept = 0.5 ** (1 / 5760)
    assert state.total[0] == pytest.approx(20 * kept + 10, rel=1e-12)
    # and back: of 1 and 30/21
    state = state.after(layout, np.array([7000.0, 3000, 0]))
    assert state.ratio[0] == pytest.approx((30 + 300 / 21) / 22, rel=1e-3)


def test_a_large_dispersion_is_found_in_a_few_ticks() -> None:
    layout, random = layout_of([], [4]), np.random.default_rng(3)
    state = Dispersion.start(layout)
    for _ in range(40):  # all samples of a tick alike, or nearly so: each differs from the one before
        state = state.after(layout, random.dirichlet([0.3] * 4) * 1000)
    assert state.ratio[0] > 100


def test_dispersion_is_never_under_1() -> None:
    layout = layout_of([3])
    state = Dispersion.start(layout)
    for _ in range(50):
        state = state.after(layout, np.array([5.0, 5, 5]))
    assert state.total[0] / state.weight[0] < 0.5
    assert state.ratio.tolist() == [1]


def measured(n: Sequence[int], concentration: float | None, ticks: int = 150) -> float:
    """The mean dispersion of 300 columns, without the ticks that it begins with."""
    columns, random = 300, np.random.default_rng(6)
    shares = np.array([0.02, 0.08, 0.3, 0.4, 0.2])
    layout = layout_of([], [5] * columns)
    state = Dispersion.start(layout)
    for _ in range(ticks):
        p = (
            np.tile(shares, (columns, 1))
            if concentration is None
            else random.dirichlet(concentration * shares, columns)
        )
        state = state.after(layout, random.multinomial(random.choice(n, columns), p).ravel().astype(float))
    kept = 0.5 ** (1 / HALF_LIFE_TICKS)
    prior = PRIOR_TICKS * kept ** (ticks - 1)
    return float(((state.total - prior) / (state.weight - prior)).mean())


@pytest.mark.parametrize("n", [[1], [2], [1, 2, 3, 4, 5], [5, 50], [200]], ids=str)
def test_dispersion_of_independent_samples_is_1_however_few_they_are(n: list[int]) -> None:
    assert measured(n, None) == pytest.approx(1.0, abs=0.02)


def test_dispersion_of_samples_that_come_in_clusters() -> None:
    """Dirichlet-multinomial ticks of 200 samples have the design effect (200 + a) / (1 + a), a the concentration."""
    assert measured([200], (200 - 4) / 3) == pytest.approx(4.0, rel=0.1)


def test_clusters_raise_no_alarm() -> None:
    """With a design effect of 4, which takes the evidence of every column over the threshold if left alone."""
    columns, random = 30, np.random.default_rng(8)
    layout, _, bets = watched(columns)
    threshold = log_threshold(100, MONTH)
    evidence, alone = detector.start(layout, 2), detector.start(layout, 2)
    peak, peak_alone = -math.inf, -math.inf
    for _ in range(400):
        p = np.zeros((columns, 13))
        p[:, 1:11] = random.dirichlet(np.full(10, 6.53), columns)  # 65.3 in all, see above
        counts = random.multinomial(200, p).ravel().astype(float)
        none = np.zeros((columns, 2))
        evidence = detector.advance(layout, bets, evidence, counts, none, threshold + CAP)
        alone = detector.advance(layout, bets, alone, counts, none, threshold + CAP)
        alone = Evidence(alone.moves, alone.tilts, alone.rates, alone.log_evidence, Dispersion.start(layout))
        peak = max(peak, float(evidence.log_evidence.max()))
        peak_alone = max(peak_alone, float(alone.log_evidence[0].max()))
    assert peak < threshold - CLEAR
    assert peak_alone > threshold
