import math
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlexporter.edges import FINE_QUANTILES, Edges, Grid, choose_edges

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e308, max_value=1e308)
# many rows of few values, so that bins fill up
VALUES = st.one_of(
    arrays.arrays(np.float64, st.integers(1, 40), elements=FINITE).flatmap(
        lambda pool: st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).choice(pool, size=1 + seed % 3000)
        )
    ),
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).standard_cauchy(1 + seed % 3000)),
    arrays.arrays(np.float64, st.integers(1, 300), elements=FINITE),
)


def edges_of(values: np.ndarray) -> Edges:
    with np.errstate(over="ignore"):
        return choose_edges(Grid.of(np.asarray(values, dtype=np.float64)))


def counts_of(edges: Edges, values: np.ndarray) -> list[int]:
    return [int(((values > low) & (values <= high)).sum()) for low, high in pairwise(edges.fine)]


def coarse_of(edges: Edges) -> list[float]:
    return [edges.fine[i] for i in edges.coarse]


def test_coarse_edges_are_deciles_and_fine_ones_quantiles() -> None:
    values = np.random.default_rng(7).normal(size=100_000)
    edges = edges_of(values)
    lowest = math.nextafter(values.min(), -math.inf)
    deciles = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
    assert coarse_of(edges) == [lowest, *deciles, values.max()]
    # the k-th smallest of the rows; numpy takes the next one where 0.55 * 100,000 comes out above 55,000
    fine = np.sort(values)[[round(q * 100_000) - 1 for q in FINE_QUANTILES]]
    assert edges.fine == (lowest, *fine, values.max())
    assert edges.rank_error == 0.0


def test_deciles_of_a_hundred_rows_a_bin() -> None:
    # 1..1000: the decile i/10 is the value 100 i; a tail of 1 row (0.1 %) or 9 rows (1 %) is too thin for a bin
    edges = edges_of(np.arange(1.0, 1001.0))
    assert coarse_of(edges)[1:] == [100.0 * i for i in range(1, 11)]
    assert counts_of(edges, np.arange(1.0, 1001.0)) == [50] * 20


def test_fewer_bins_for_few_rows() -> None:
    values = np.arange(1.0, 201.0)
    assert coarse_of(edges_of(values))[1:] == [50.0, 100.0, 150.0, 200.0]
    assert coarse_of(edges_of(np.arange(1.0, 50.0)))[1:] == [49.0]


def test_zero_inflated_column_gives_zero_a_bin_of_its_own() -> None:
    rng = np.random.default_rng(3)
    values = np.where(rng.random(20_000) < 0.7, 0.0, rng.lognormal(size=20_000))
    edges = edges_of(values)
    coarse = coarse_of(edges)
    assert coarse[:2] == [math.nextafter(0.0, -math.inf), 0.0]
    assert counts_of(edges, values)[0] == int((values == 0).sum())
    # the other deciles lie within the positive values
    assert len(coarse) == 5


def test_atom_in_the_middle_is_cut_off_on_both_sides() -> None:
    rng = np.random.default_rng(4)
    values = np.where(rng.random(20_000) < 0.4, 2.5, rng.normal(2.5, 1, size=20_000))
    edges = edges_of(values)
    coarse = coarse_of(edges)
    i = coarse.index(2.5)
    assert coarse[i - 1] == math.nextafter(2.5, -math.inf)
    assert counts_of(edges, values)[edges.fine.index(2.5) - 1] == int((values == 2.5).sum())


def test_integer_column_with_few_values_has_a_bin_for_each() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 7.0], [100, 400, 300, 200])
    edges = edges_of(values)
    assert coarse_of(edges) == [math.nextafter(1.0, -math.inf), 1.0, 2.0, 3.0, 7.0]
    assert counts_of(edges, values) == [100, 400, 300, 200]


def test_rare_value_joins_a_neighbour() -> None:
    values = np.repeat([1.0, 2.0, 3.0], [500, 10, 500])
    edges = edges_of(values)
    assert counts_of(edges, values) == [500, 510] or counts_of(edges, values) == [510, 500]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 5e-324, 1e308])
def test_constant_has_one_bin(value: float) -> None:
    edges = edges_of(np.full(1000, value))
    assert edges.fine == (math.nextafter(value, -math.inf), value)
    assert edges.coarse == (0, 1)


def test_empty_column_has_no_edges() -> None:
    assert edges_of(np.empty(0)) == Edges((), (), 0.0)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_edges_ascend_and_hold_all_values(values: np.ndarray) -> None:
    values = values + 0.0
    edges = edges_of(values)
    counts = counts_of(edges, values)
    assert all(low < high for low, high in pairwise(edges.fine))
    assert all(map(math.isfinite, edges.fine))
    assert sum(counts) == len(values)
    assert edges.fine[-1] == values.max()
    assert edges.coarse[0] == 0
    assert edges.coarse[-1] == len(edges.fine) - 1
    assert all(low < high for low, high in pairwise(edges.coarse))
    assert len(edges.coarse) <= 24
    if len(counts) > 1:
        coarse = np.add.reduceat(counts, edges.coarse[:-1])
        assert min(coarse) >= 50
        assert min(counts) >= 50 or len(set(edges.fine) - set(coarse_of(edges))) == 0
    assert edges.rank_error == 0.0


def test_edges_of_a_coarse_grid_tell_how_far_they_are_off() -> None:
    values = np.sort(np.random.default_rng(5).normal(size=50_000))
    points = np.unique(np.concatenate([values[:1], values[99::100]]))  # 100 rows a cell
    index = np.searchsorted(points, values, side="left")
    sums = np.bincount(index, values, len(points)).astype(np.float64)
    edges = choose_edges(Grid(values=points, counts=np.bincount(index), sums=sums, exact=False))
    assert edges.rank_error == pytest.approx(100 / 50_000)
    deciles = np.arange(1, 10) / 10
    ranks = np.searchsorted(values, coarse_of(edges)[1:-1], side="right") / len(values)
    assert np.abs(ranks - deciles).max() <= edges.rank_error


def test_smallest_normal_numbers() -> None:
    tiny = sys.float_info.min
    edges = edges_of(np.repeat([-tiny, 0.0, 5e-324, tiny], 100))
    assert counts_of(edges, np.repeat([-tiny, 0.0, 5e-324, tiny], 100)) == [100] * 4
