import math
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter.baseline import LARGEST, Baseline, CategoricalColumn, NumericColumn, encode, sealed
from mlexporter.binning import Binner
from mlexporter.categories import Missing
from mlexporter.columns import (
    MOMENT_ROWS,
    Moments,
    Outside,
    Tally,
    categorical_column,
    column_from_grid,
    column_type_of,
    learn_column,
)
from mlexporter.edges import Grid
from mlexporter.learning import Learner, absorbed, extended
from mlexporter.samples import Batch, Role
from mlexporter.statistics import reference_of


def numeric(values: Sequence[object]) -> NumericColumn:
    column = learn_column(Role.FEATURE, "x", values, "numeric")
    assert isinstance(column, NumericColumn)
    return column


def categorical(values: Sequence[object], boolean: bool = False) -> CategoricalColumn:
    column = learn_column(Role.FEATURE, "x", values, "boolean" if boolean else "categorical")
    assert isinstance(column, CategoricalColumn)
    return column


def test_counts_and_means_are_those_of_the_values() -> None:
    x = np.random.default_rng(1).lognormal(size=20_000)
    column = numeric(x.tolist())
    index = np.searchsorted(column.edges, x, side="left")
    assert column.counts == (*np.bincount(index, minlength=len(column.edges) + 1).tolist(), 0)
    assert column.means[0] is None
    assert column.means[-1] is None
    expected = [x[index == i].mean() for i in range(1, len(column.edges))]
    np.testing.assert_allclose(np.array(column.means[1:-1], dtype=float), expected, rtol=1e-12)
    assert column.mean == pytest.approx(x.mean(), rel=1e-13)
    assert column.stddev == pytest.approx(x.std(), rel=1e-12)
    assert (column.minimum, column.maximum) == (x.min(), x.max())


def test_missing_infinite_and_invalid_values() -> None:
    column = numeric([1.0] * 60 + [2.0] * 60 + [None, math.nan, math.inf, math.inf, -math.inf, "x", Missing.INVALID])
    assert column.counts == (1, 60, 60, 2, 4)
    assert column.invalid == 2
    assert (column.mean, column.stddev) == (1.5, 0.5)


@pytest.mark.parametrize("value", [0.1, 1e6 / 3, -7.7, 1e308, 5e-324, 0.0])
def test_constant_has_its_mean_and_no_deviation(value: float) -> None:
    column = numeric([value] * 1234)
    assert column.mean == min(value, LARGEST)
    assert column.stddev == 0.0
    assert column.counts == (0, 1234, 0, 0)
    assert column.means == (None, min(value, LARGEST), None)


def test_all_missing_and_all_infinite() -> None:
    assert numeric([None] * 30).counts == (0, 0, 0, 30)
    column = numeric([math.inf] * 20 + [-math.inf] * 10)
    assert column.counts == (10, 0, 20, 0)
    assert (column.minimum, column.mean, column.stddev, column.maximum) == (0.0, 0.0, 0.0, 0.0)


def test_smallest_double_counts_as_below_as_it_does_live() -> None:
    column = numeric([-sys.float_info.max] * 5 + [1.0] * 100)
    assert column.counts == (5, 100, 0, 0)
    assert column.minimum == 1.0


def test_huge_values_of_both_signs_in_one_bin_have_a_mean() -> None:
    column = numeric([1e308, -1e308] * 20)
    assert column.means[1] == 0.0
    assert column.stddev == LARGEST


@given(st.lists(st.floats(), min_size=1, max_size=400), st.integers(0, 10))
@settings(deadline=None)
def test_any_floats_give_a_column_that_can_be_written_and_read(values: list[float], times: int) -> None:
    column = numeric([*values, *values[:1] * 50 * times])
    assert sum(column.counts) == len(values) + 50 * times
    assert all(math.isfinite(mean) for mean in column.means if mean is not None)
    assert math.isfinite(column.mean)
    assert math.isfinite(column.stddev)
    baseline = sealed(Baseline(rows=len(values), columns=(column,)))
    assert msgspec.json.decode(encode(baseline), type=Baseline) == baseline


@given(st.integers(0, 5), st.integers(0, MOMENT_ROWS), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_moments_do_not_depend_on_the_chunks(blocks: int, rest: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(1e6, 1, size=blocks * MOMENT_ROWS + rest)
    x[rng.random(len(x)) < 0.1] = math.nan
    whole, parts = Moments(), Moments()
    whole.add(x)
    cut = int(rng.integers(0, blocks + 1)) * MOMENT_ROWS
    parts.add(x[:cut])
    parts.add(x[cut:])
    assert (whole.rows, whole.mean, whole.squares) == (parts.rows, parts.mean, parts.squares)
    present = x[~np.isnan(x)]
    if len(present):
        assert whole.mean == pytest.approx(present.mean(), rel=1e-14)
        assert whole.squares == pytest.approx(((present - present.mean()) ** 2).sum(), rel=1e-6, abs=1e-6)


def test_edges_that_a_grid_cannot_rank_are_left_out() -> None:
    # two thirds of the rows in one cell: several quantiles fall in it, but it is no atom
    values = np.array([0.0, 1.0, 2.0, 3.0])
    counts = np.array([100, 100, 2000, 800])
    grid = Grid(values=values, counts=counts, sums=values * counts, exact=False)
    moments = Moments()
    moments.rows, moments.mean, moments.squares = 3000, 1.5, 3000.0
    column = column_from_grid(Role.FEATURE, "x", grid, Outside(0, 0, 0, 0), moments)
    assert set(column.edges[1:]) <= set(values)
    assert sum(column.counts) == 3000
    assert column.rank_error == pytest.approx(2000 / 3000)
    assert [column.edges[i] for i in column.coarse][-1] == 3.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], "numeric"),
        ([True, False, None], "boolean"),
        ([True, 1], "categorical"),
        (["a"], "categorical"),
        ([1] * 95 + ["a"] * 5, "numeric"),
        ([1] * 94 + ["a"] * 6, "categorical"),
        ([None, None], None),
        ([], None),
    ],
)
def test_types(values: list[object], expected: str | None) -> None:
    assert column_type_of(values) == expected


def test_categories_by_frequency_then_by_name() -> None:
    column = categorical(["b", "a", "c", "c", None, 3, 3.0, Missing.INVALID])
    assert column.categories == ("3", "c", "a", "b")
    assert column.counts == (2, 2, 1, 1, 0, 0, 2)
    assert column.invalid == 1


def test_true_and_one_are_two_categories() -> None:
    column = categorical([1, True, 1.0, "true"])
    assert column.categories == ("1", "true")
    assert column.counts == (2, 2, 0, 0, 0)
    assert categorical([1, True, False], boolean=True).counts == (1, 2, 0, 0, 0)


def test_rare_categories() -> None:
    values: list[object] = [f"c{i:03}" for i in range(60) for _ in range(60 - i)]
    column = categorical(values)
    assert column.categories == tuple(f"c{i:03}" for i in range(50))
    assert column.rare == tuple(f"c{i:03}" for i in range(50, 60))
    assert column.counts[50:] == (sum(range(1, 11)), 0, 0)
    assert column.complete


def test_more_rare_categories_than_are_listed() -> None:
    column = categorical([f"c{i}" for i in range(1051)])
    assert (column.rare, column.complete, column.counts[50]) == ((), False, 1001)
    assert categorical([f"c{i}" for i in range(1050)]).complete


def test_unlisted_rows_are_other_and_make_a_column_incomplete() -> None:
    column = categorical_column(Role.FEATURE, "x", Tally(Counter(a=3), 1, 0, unlisted=7), boolean=False)
    assert (column.categories, column.counts, column.complete) == (("a",), (3, 7, 0, 1), False)


def test_boolean_has_both_categories() -> None:
    column = categorical([True, True, 1, None, "yes"], boolean=True)
    assert column.categories == ("false", "true")
    assert (column.rare, column.counts) == (("yes",), (0, 3, 1, 0, 1))


def test_learner_learns_what_it_was_given() -> None:
    learner = Learner(max_columns=2)
    learner.add(Batch(size=2, features={"age": [1, 2], "plan": ["a", [1]]}, prediction=[0.5, 0.5]))
    learner.add(Batch(size=1, features={"age": [3]}))
    baseline = learner.learn("m", "1", {"age": "categorical"})
    age, plan = baseline.columns
    assert isinstance(age, CategoricalColumn)
    assert age.counts == (1, 1, 1, 0, 0, 0)
    assert isinstance(plan, CategoricalColumn)
    assert (plan.counts, plan.invalid) == ((1, 0, 0, 2), 1)
    assert (learner.rows, learner.unknown, baseline.rows) == (3, 2, 3)
    assert (baseline.source, baseline.provisional) == ("learned", True)


def test_what_was_absorbed_and_what_comes_then_is_what_came_together() -> None:
    """Where the stream moves away from where its bins were fixed, too; the expected moments are those of the values."""
    random = np.random.default_rng(4)
    first, second, third = random.normal(0, 1, 300), random.normal(2, 3, 500), random.normal(-5, 0.5, 400)
    learner = Learner(2)
    learner.add(Batch(300, {"x": first.tolist()}))
    baseline = learner.learn("m", "1", {})
    binner = Binner(baseline)
    counts = [binner.count([Batch(len(x), {"x": x.tolist()})], squares=True) for x in (second, third)]
    reference = reference_of(binner)
    together = extended(binner, reference, counts[0] + counts[1])
    parts = extended(binner, absorbed(binner, reference, counts[0]), counts[1])
    assert parts.bins.tolist() == together.bins.tolist()
    assert parts.rows == together.rows == 1200
    everything = np.concatenate([first, second, third])
    for found in (together, parts, extended(binner, absorbed(binner, reference, counts[0] + counts[1]), binner.zero())):
        assert found.stddevs == pytest.approx([everything.std()], rel=1e-9)
        assert found.sums.sum() == pytest.approx(everything.sum(), rel=1e-9)
