import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.score_edges import STANDARD_SCORE_EDGES, score_edges, uniform_score_edges

LOWEST = math.nextafter(0.0, -math.inf)
SCORES = st.one_of(
    st.lists(st.floats(0, 1), max_size=60).map(np.array),
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(0, 80, 500) ** 2 / 6400),
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).beta(0.3, 2.0, 1 + seed % 3000)),
)


def share_in_bins(edges: tuple[float, ...], scores: np.ndarray) -> list[float]:
    return [float(((scores > low) & (scores <= high)).mean()) for low, high in pairwise(edges)]


def test_quantiles_and_standard_edges() -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1, 1001) / 1001)
    # 1/1001 ... 1000/1001: the quantile i/50 is the score at rank 20 i
    quantiles = {20 * i / 1001 for i in range(1, 50)}
    assert score_edges(scores) == (LOWEST, *sorted(quantiles | set(STANDARD_SCORE_EDGES)), 1.0)


def test_an_atom_has_a_bin_of_its_own() -> None:
    scores = np.concatenate([np.full(500, 0.37), np.random.default_rng(2).random(500), np.full(200, 1.0)])
    edges = score_edges(scores)
    assert math.nextafter(0.37, 0.0) in edges
    assert 0.37 in edges
    assert edges[-2:] == (math.nextafter(1.0, 0.0), 1.0)


def test_few_distinct_scores_have_a_bin_each() -> None:
    scores = np.repeat([0.0, 0.013, 0.014, 0.55], [1, 1, 1, 10_000])
    edges = score_edges(scores)
    assert max(share_in_bins(edges, scores)) == 10_000 / 10_003
    assert sum(share > 0 for share in share_in_bins(edges, scores)) == 4


@pytest.mark.parametrize("threshold", [0.5, 0.37, 0.0, 1.0, 0.1])
def test_no_bin_has_scores_on_both_sides_of_the_threshold(threshold: float) -> None:
    for edges in (score_edges(np.random.default_rng(3).random(1000), threshold), uniform_score_edges(threshold)):
        assert math.nextafter(threshold, -math.inf) in edges


@pytest.mark.parametrize("threshold", [-1.0, 2.0, math.inf, math.nan, None])
def test_a_threshold_beyond_all_scores_is_no_edge(threshold: float | None) -> None:
    assert uniform_score_edges(threshold) == (LOWEST, *(i / 50 for i in range(1, 50)), 1.0)


@given(SCORES, st.floats(0, 1))
def test_edges_ascend_and_hold_every_score(scores: np.ndarray, threshold: float) -> None:
    edges = score_edges(scores, threshold)
    assert edges[0] == LOWEST
    assert edges[-1] == 1.0
    assert all(low < high for low, high in pairwise(edges))
    assert set(STANDARD_SCORE_EDGES) <= set(edges)
    assert len(edges) <= 2 + 2 * 49 + 9 + 1
    if len(scores):
        assert sum(share_in_bins(edges, scores)) == pytest.approx(1.0)


@given(SCORES)
def test_a_bin_of_several_scores_has_less_than_two_fiftieths_of_them(scores: np.ndarray) -> None:
    edges = score_edges(scores)
    for low, high in pairwise(edges):
        inside = scores[(scores > low) & (scores <= high)]
        assert len(inside) * 50 < 2 * len(scores) or len(np.unique(inside)) <= 1


def test_scores_that_are_none_are_left_out() -> None:
    scores = np.random.default_rng(4).random(1000)
    assert score_edges(np.concatenate([scores, [math.nan, -0.5, 1.5, math.inf]])) == score_edges(scores)
    assert score_edges(np.array([])) == (LOWEST, *STANDARD_SCORE_EDGES, 1.0)
