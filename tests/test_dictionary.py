"""The bets of the drift alarm against a plain implementation, published vectors, and what makes them bets at all."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

import oracle
from mlexporter.dictionary import (
    RATE_FACTORS,
    SIZES,
    TILTS,
    Bets,
    Layout,
    coin_divergence,
    log_e_values,
    make_bets,
    normal_scores,
    radius,
    share_at,
    smoothed,
    upper_rate,
)
from mlexporter.edges import Floats

# one column as the reference has it: ten deciles; below, above and missing are empty
DECILES = [0, *[1000] * 10, 0, 0]
TICKS = [
    [0, 14, 16, 18, 19, 20, 20, 21, 22, 24, 26, 0, 0],
    [0, 13, 17, 18, 18, 20, 21, 22, 22, 23, 24, 1, 1],
    [0, 14, 16, 17, 20, 19, 21, 21, 23, 24, 25, 0, 0],
]


def layout_of(ordered: Sequence[int], unordered: Sequence[int] = ()) -> Layout:
    """The layout of columns of these sizes."""
    return Layout(np.cumsum([0, *ordered, *unordered]), len(ordered))


def bets_of(
    layout: Layout, q: Floats, tolerance: Sequence[Sequence[float]], rate: float | NDArray[np.float64] = 0.01
) -> Bets:
    """The bets, all rates with the same tolerance unless said."""
    tiers = np.array(tolerance, dtype=np.float64)
    return make_bets(layout, q, tiers, np.broadcast_to(rate, (len(layout.sizes), len(tiers), 2)))


def tables(layout: Layout, bets: Bets, tier: int, column: int) -> list[list[float]]:
    """What each bet of the shape of a column pays in each bin, in the order of the oracle."""
    begin, end = int(layout.offsets[column]), int(layout.offsets[column + 1])
    found: list[list[float]] = []
    if column < layout.ordered:
        tilts = bets.tilts[column].reshape(len(bets.moves), len(TILTS) * len(SIZES), -1)[tier]
        found += [row[: end - begin] for row in tilts.tolist() if row[0] > -1e200]
        assert not tilts[:, end - begin :].any(), "padding pays"
    for i in range(begin, end):
        for outside, inside in zip(bets.moves[tier, i].tolist(), bets.moves_inside[tier, i].tolist(), strict=True):
            if outside > -1e200:
                found.append([outside + inside if j == i else outside for j in range(begin, end)])
    assert bets.alternatives[tier, column] == len(found)
    return found


def expected_tables(q: Sequence[float], eps: float, *, ordered: bool) -> list[list[float]]:
    places = range(len(q) - 1) if ordered else ()
    return [oracle.log_e_values(q, p, eps) for p in oracle.alternatives(q, eps, places)]


# -- published vectors -------------------------------------------------------------------------------------------------


def test_vector_of_two_bets_on_three_bins() -> None:
    q = np.array([0.5, 0.3, 0.2])
    p = np.array([[0.35, 0.35, 0.3], [0.65, 0.2, 0.15]])
    expected = np.array(
        [
            [-0.21340843153108724, 0.08261745944423735, 0.20459865766358154],
            [0.13145295512814173, -0.23656418202252397, -0.16375518823187224],
        ]
    )
    ours = log_e_values(q, p, np.array(0.01))
    assert ours == pytest.approx(expected, rel=1e-9)
    # the projection is (1 - w) p + w q
    w = (p * np.exp(-ours) - p)[:, 0] / (q - p)[:, 0]
    assert w == pytest.approx([0.5550769965376503, 0.5337777290009171], rel=1e-9)


def test_vector_of_the_radius() -> None:
    ours = radius(np.array([13, 2]), np.array([10_000.0, 500.0]))
    assert ours == pytest.approx([0.00164547452037, 10.827566170662733 / 1000], rel=1e-11)
    assert radius(np.array([13]), np.array([0.0])).tolist() == [math.inf]
    # one bin alone, as of a column of missing values only, is taken as two
    assert radius(np.array([1]), np.array([500.0])) == pytest.approx([10.827566170662733 / 1000], rel=1e-11)


@pytest.mark.parametrize(
    ("count", "rows", "beyond", "expected"),
    [
        (0, 10_000, False, 0.00069053699741),
        (0, 1000, False, 0.00688395157907),
        (120, 10_000, False, 0.0157559821093),
        (0, 10_000, True, 0.000922961330661),
        (0, 1000, True, 0.00919549763539),
        (0, 0, False, 1.0),
        (0, 0, True, 1.0),
        (1000, 1000, False, 1.0),
        (1000, 1000, True, 1.0),
        (999, 1000, True, 1.0),
        (0, 1, False, 0.999),  # one row without it: 1 - 0.001
        (5, 2.5, False, 1.0),  # more than there are, as expected counts may round to
    ],
)
def test_vector_of_the_upper_rate(count: float, rows: float, beyond: bool, expected: float) -> None:
    ours = upper_rate(np.array([count], dtype=float), np.array([rows], dtype=float), beyond_range=beyond)
    assert ours == pytest.approx([expected], rel=1e-11)


@pytest.mark.parametrize(
    ("eps", "number", "total"), [(0.00164547452037, 135, -2.56823886765), (0.02, 115, -43.3660699886)]
)
def test_vector_of_the_scale_free_dictionary(eps: float, number: int, total: float) -> None:
    layout = layout_of([13])
    bets = bets_of(layout, smoothed(layout, np.array(DECILES, dtype=float)), [[eps]])
    found = tables(layout, bets, 0, 0)
    assert len(found) == number
    assert math.fsum(map(math.fsum, found)) / 13 == pytest.approx(total, rel=1e-9)


# -- against the oracle ------------------------------------------------------------------------------------------------

counts = st.one_of(st.integers(0, 5), st.integers(0, 3000), st.just(0), st.integers(0, 2_000_000))
tolerances = st.floats(math.log(5e-4), math.log(0.3)).map(math.exp)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, Floats, list[list[float]]]:
    """Columns of several sizes beside each other, with baselines of any counts and the tolerances of two tiers."""
    ordered = draw(st.lists(st.integers(2, 13), max_size=2))
    unordered = draw(st.lists(st.integers(2, 23), min_size=0 if ordered else 1, max_size=2))
    layout = layout_of(ordered, unordered)
    bins = int(layout.offsets[-1])
    drawn = np.array(draw(st.lists(counts, min_size=bins, max_size=bins)), dtype=np.float64)
    columns = len(ordered) + len(unordered)
    eps = [draw(st.lists(tolerances, min_size=columns, max_size=columns)) for _ in range(2)]
    return layout, smoothed(layout, drawn), eps


@settings(max_examples=20, deadline=None)
@given(layouts())
def test_bets_are_those_of_the_oracle(drawn: tuple[Layout, Floats, list[list[float]]]) -> None:
    layout, q, eps = drawn
    bets = bets_of(layout, q, eps)
    for column, own in enumerate(np.split(q, layout.offsets[1:-1])):
        tier = column % 2
        expected = expected_tables(own.tolist(), eps[tier][column], ordered=column < layout.ordered)
        found = tables(layout, bets, tier, column)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_smoothed_shares_are_those_of_the_oracle() -> None:
    layout = layout_of([3], [2, 4])
    own = [[0, 5, 1], [0, 0], [7, 0, 0, 100]]
    flat = np.array([k for column in own for k in column], dtype=np.float64)
    assert smoothed(layout, flat) == pytest.approx([p for k in own for p in oracle.smoothed(k)], rel=1e-14)


def test_a_subset_of_columns_has_the_bets_of_the_whole() -> None:
    """So the bets of some columns can be put among those of others."""
    random = np.random.default_rng(2)
    layout = layout_of([13, 4, 9], [7, 23])
    first, second = (smoothed(layout, random.integers(0, 900, 56).astype(float)) for _ in range(2))
    eps = np.array([[0.001, 0.004, 0.01, 0.002, 0.003], [0.02, 0.02, 0.05, 0.02, 0.1]])
    rate = random.uniform(0.001, 0.3, (5, 2, 2))
    whole = make_bets(layout, second, 2 * eps, 2 * rate)
    mixed = make_bets(layout, first, eps, rate)
    untouched = mixed.copy()
    for columns in (np.array([0, 3]), np.array([1, 2, 4])):
        part, bins = layout.subset(columns)
        mixed.replace(make_bets(part, second[bins], 2 * eps[:, columns], 2 * rate[columns]), columns, bins)
    for name in Bets.__struct_fields__:
        np.testing.assert_allclose(getattr(mixed, name), getattr(whole, name), rtol=1e-12, err_msg=name)
    again = make_bets(layout, first, eps, rate)
    for name in Bets.__struct_fields__:
        np.testing.assert_array_equal(getattr(untouched, name), getattr(again, name), err_msg=name)


def test_layout() -> None:
    layout = layout_of([3, 2], [4])
    assert layout.sizes.tolist() == [3, 2, 4]
    assert layout.spread(np.array([1.0, 2.0, 3.0])).tolist() == [1, 1, 1, 2, 2, 3, 3, 3, 3]
    assert layout.totals(np.arange(9.0)).tolist() == [3, 7, 26]
    assert layout.matrix.tolist() == [[0, 1, 2], [3, 4, 9]]
    part, bins = layout.subset(np.array([1, 2]))
    assert (part.offsets.tolist(), part.ordered, bins.tolist()) == ([0, 2, 6], 1, [3, 4, 5, 6, 7, 8])
    nothing, none = layout.subset(np.array([], dtype=np.int64))
    assert (nothing.offsets.tolist(), nothing.ordered, none.tolist()) == ([0], 0, [])


# -- what makes them bets: nobody wins on average while the stream stays in the ball -----------------------------------


def within(q: Floats, eps: float, random: np.random.Generator) -> Floats:
    """(1000, B) points: most of them on the surface of the ball, the others inside."""
    size = len(q)
    far = np.concatenate(
        [
            random.dirichlet(np.ones(size), 300),
            random.dirichlet(np.full(size, 0.1), 300) + 1e-12,
            random.dirichlet(q * 300, 300) + 1e-12,
            np.eye(size)[random.integers(size, size=100)] + 1e-12,
        ]
    )
    far /= far.sum(axis=1, keepdims=True)
    low, high = np.zeros(len(far)), np.ones(len(far))
    for _ in range(60):  # the share of q at which the mixture enters the ball
        middle = 0.5 * (low + high)
        mixed = (1 - middle[:, None]) * far + middle[:, None] * q
        inside = (q * np.log(q / mixed)).sum(axis=1) <= eps
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    share = np.where(np.arange(len(far)) % 4, high, high + (1 - high) * random.random(len(far)))[:, None]
    return np.asarray((1 - share) * far + share * q)


@settings(max_examples=15, deadline=None)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_no_bet_wins_on_average_within_the_ball(drawn: tuple[Layout, Floats, list[list[float]]], seed: int) -> None:
    layout, q, eps = drawn
    bets = bets_of(layout, q, eps)
    random = np.random.default_rng(seed)
    for column, own in enumerate(np.split(q, layout.offsets[1:-1])):
        for tier in range(2):
            points = within(own, eps[tier][column], random)
            divergence = (own * np.log(own / points)).sum(axis=1)
            assert divergence.max() <= eps[tier][column] * (1 + 1e-9)
            found = tables(layout, bets, tier, column)
            if not found:
                continue
            paid: Floats = np.exp(np.array(found))
            assert (points @ paid.T).max() <= 1 + 1e-9
            # and the bound is reached at the projection of each alternative, which is on the surface
            places = range(len(own) - 1) if column < layout.ordered else ()
            projections = np.array(oracle.alternatives(own.tolist(), eps[tier][column], places)) / paid
            assert (projections * paid).sum(axis=1) == pytest.approx(np.ones(len(found)), rel=1e-9)
            assert projections.sum(axis=1) == pytest.approx(np.ones(len(found)), rel=1e-9)
            surface = (own * np.log(own / projections)).sum(axis=1)
            assert surface == pytest.approx(np.full(len(found), eps[tier][column]), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1.0), st.floats(0, 1))
def test_no_bet_on_a_rate_wins_on_average_up_to_what_is_accepted(accepted: float, part: float) -> None:
    bets = bets_of(layout_of([], [2]), np.array([0.5, 0.5]), [[0.01]], accepted)
    outside, inside = bets.rates[0, 0, 0], bets.rates_inside[0, 0, 0]
    there = outside > -1e200
    factors = [factor for factor in RATE_FACTORS if accepted * factor <= 0.95]
    assert bets.rate_alternatives.tolist() == [[[len(factors)] * 2]]
    assert there.sum() == len(factors)

    def mean(rate: float) -> Floats:
        return np.asarray(((1 - rate) * np.exp(outside) + rate * np.exp(outside + inside))[there])

    assert (mean(part * accepted) <= 1 + 1e-9).all()
    assert mean(accepted) == pytest.approx(np.ones(len(factors)), rel=1e-9)
    # the alternative itself pays: ln (p / accepted) in the bin
    assert (outside + inside)[there] == pytest.approx(np.log(factors), rel=1e-9)


# -- its parts ---------------------------------------------------------------------------------------------------------


def test_divergence_of_two_coins() -> None:
    # by hand: 1/2 ln (1/2 / 1/4) + 1/2 ln (1/2 / 3/4) = 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3
    ours = coin_divergence(np.array([0.5, 0.2]), np.array([0.25, 0.2]))
    assert ours == pytest.approx([0.5 * math.log(4 / 3), 0.0], rel=1e-14)


@given(st.floats(1e-7, 1 - 1e-7), st.floats(1e-6, 20.0), st.booleans())
def test_share_at_a_divergence(q: float, divergence: float, up: bool) -> None:
    end = 0.1 * q + 0.9 if up else 0.05 * q / (1 - 0.95 * q)
    ours = float(share_at(np.array(q), np.array(divergence), np.array(end)))

    def excess(x: float) -> float:
        return float(coin_divergence(np.array(q), np.array(x))) - divergence

    if excess(end) <= 0:
        assert ours == pytest.approx(end, rel=1e-9)
    else:
        expected = optimize.brentq(excess, *sorted((q, end)), xtol=1e-15, rtol=1e-14)
        # the divergence is flat at q: what a rounding of it makes of the share
        slack = 1e-15 * q * (1 - q) / abs(expected - q)
        assert ours == pytest.approx(expected, rel=1e-9, abs=slack)
        assert min(q, end) <= ours <= max(q, end)


@pytest.mark.parametrize("shares", [[0.1] * 10, [0.0005, 0.2, 0.5, 0.2, 0.0995], [0.999, 0.0005, 0.0005], [1.0]])
def test_normal_scores_are_means_of_a_normal(shares: list[float]) -> None:
    padded = np.array([[*shares, 0.0, 0.0], [0.25, 0.75, *[0.0] * len(shares)]])
    z, v = normal_scores(padded * np.array([[0.9], [0.5]]))  # they need not add up to 1
    ends = [-math.inf, *stats.norm.ppf(np.cumsum(shares)[:-1]), math.inf]

    def mean(f: object, i: int) -> float:
        total, _ = integrate.quad(f, ends[i], ends[i + 1], epsabs=1e-13)
        return float(total) / shares[i]

    pdf = stats.norm.pdf
    for i in range(len(shares)):
        assert z[0, i] == pytest.approx(np.clip(mean(lambda x: x * pdf(x), i), -4, 4), rel=1e-7, abs=1e-9)
        assert v[0, i] == pytest.approx(np.clip(mean(lambda x: (x * x - 1) * pdf(x), i), -1, 6), rel=1e-7, abs=1e-9)
    assert z[0, len(shares) :].tolist() == v[0, len(shares) :].tolist() == [0, 0]
    # in the column beside it: a normal cut at its quartile, E[Z; Z < c] = -pdf(c)
    quartile = float(pdf(stats.norm.ppf(0.25)))
    assert z[1, :2] == pytest.approx([-quartile / 0.25, quartile / 0.75], rel=1e-12)


def test_normal_scores_are_clipped() -> None:
    z, v = normal_scores(np.array([[1e-9, 1 - 2e-9, 1e-9]]))
    assert z[0].tolist() == [-4, pytest.approx(0, abs=1e-6), 4]
    assert v[0].tolist() == [6, pytest.approx(0, abs=1e-6), 6]
    narrow = normal_scores(np.array([[0.4999, 0.0002, 0.4999]]))[1][0, 1]
    assert narrow == pytest.approx(-1, abs=1e-6)
    assert narrow >= -1


# -- what is not there -------------------------------------------------------------------------------------------------


def test_alternatives_that_no_path_reaches_do_not_count() -> None:
    layout = layout_of([13], [5])
    q = smoothed(layout, np.array([*DECILES, 50, 40, 30, 20, 0], dtype=float))
    bets = bets_of(layout, q, [[math.inf, 1e6], [50.0, 50.0], [0.3, 0.3]])
    assert bets.alternatives[:2].tolist() == [[0, 0], [0, 0]]
    assert (bets.alternatives[2] > 0).all()
    for tier in range(2):
        assert tables(layout, bets, tier, 0) == tables(layout, bets, tier, 1) == []
    assert not np.isnan(np.concatenate([array.ravel() for array in (bets.moves, bets.tilts)])).any()


def test_rates_above_any_alternative_do_not_count() -> None:
    bets = bets_of(layout_of([], [2]), np.array([0.5, 0.5]), [[0.1]], np.array([[[0.63, 0.64]]]))
    assert bets.rate_alternatives.tolist() == [[[1.0, 0.0]]]  # 1.5 x 0.63 = 0.945
    assert (bets.rates[0, 0, 1] < -1e200).all()
    assert not bets.rates_inside[0, 0, 1].any()


@pytest.mark.parametrize(
    "baseline",
    [
        [0, 0, 0],  # nothing
        [0, 0, 500],  # missing altogether
        [0, 1000, 0],  # one value
        [0, 10**9, 0],
        [1, 0, 0],
        [10**12, 10**12, 1],
        [0] * 12 + [7],
    ],
)
@pytest.mark.parametrize("eps", [1e-9, 1e-3, 0.02, 5.0, math.inf])
def test_odd_columns_give_numbers(baseline: list[int], eps: float) -> None:
    """Neither NaN nor a warning; and the bets of a neighbour stay as they are."""
    size = len(baseline)
    layout = layout_of([size, 13], [size, 4])
    flat = np.array([*baseline, *DECILES, *baseline, 4, 3, 2, 1], dtype=np.float64)
    q = smoothed(layout, flat)
    bets = bets_of(layout, q, [[eps, 0.01, eps, 0.01]], np.array([1.0, 1e-9]))
    for name in Bets.__struct_fields__:
        assert np.isfinite(getattr(bets, name)).all(), name
    own = q[layout.offsets[1] : layout.offsets[2]].tolist()
    np.testing.assert_allclose(
        tables(layout, bets, 0, 1), expected_tables(own, 0.01, ordered=True), rtol=1e-9, atol=1e-10
    )


def test_no_columns_have_no_bets() -> None:
    bets = bets_of(layout_of([]), np.empty(0), np.empty((2, 0)).tolist())
    assert [getattr(bets, name).size for name in Bets.__struct_fields__] == [0] * len(Bets.__struct_fields__)


def test_only_categorical_columns_have_no_tilts() -> None:
    bets = bets_of(layout_of([], [3]), np.array([0.2, 0.3, 0.5]), [[0.01]])
    assert bets.tilts.shape[0] == 0
    assert bets.alternatives.tolist() == [[len(expected_tables([0.2, 0.3, 0.5], 0.01, ordered=False))]]


def test_a_copy_shares_no_memory() -> None:
    layout = layout_of([3])
    bets = bets_of(layout, np.array([0.2, 0.3, 0.5]), [[0.01]])
    copy = bets.copy()
    for name in Bets.__struct_fields__:
        assert not np.shares_memory(getattr(bets, name), getattr(copy, name))
        np.testing.assert_array_equal(getattr(bets, name), getattr(copy, name))
