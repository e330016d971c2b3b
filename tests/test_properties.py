"""What holds for any data: counts merge in any order and any split, distances behave as distances."""

import math
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from conftest import Clock, baseline, bin_counts, categorical, numeric
from mlexporter import drift
from mlexporter.binning import Binner, Counts
from mlexporter.config import Config, ModelConfig, Window
from mlexporter.samples import Batch, Role
from mlexporter.statistics import Statistician, reference_of
from mlexporter.store import Store

Table = NDArray[np.int64]
Floats = NDArray[np.float64]

EDGES = (-1e9, -1.0, math.nextafter(0.0, -1.0), 0.0, 1.5, 1e9)
PROFILE = baseline(
    numeric("x", EDGES, np.random.default_rng(0).normal(0, 2, 500)),
    numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75], role=Role.PREDICTION),
    categorical("plan", {"pro": 9, "1": 5, "true": 3}, rare={"edu": 1}),
    categorical("flag", {"false": 5, "true": 5}, boolean=True),
)
BINNER = Binner(PROFILE)

# -- counts ------------------------------------------------------------------------------------------------------------

# eighths, whose sums are exact in any order
EIGHTHS = st.integers(-(2**20), 2**20).map(lambda i: i / 8)
ODD: st.SearchStrategy[object] = st.sampled_from(
    [None, math.nan, math.inf, -math.inf, True, False, 0, 1, 10**400, "1", "", "pro", "edu", [], {}]
)
VALUES = EIGHTHS | ODD
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), max_size=40)
Row = tuple[object, object, object, object]


def batch(rows: list[Row]) -> Batch:
    columns = list(zip(*rows, strict=True)) or [()] * 4
    x, plan, flag, prediction = (list(column) for column in columns)
    return Batch(len(rows), {"x": x, "plan": plan, "flag": flag, "other": x}, prediction=prediction)


def split(rows: list[Row], cuts: list[int]) -> list[list[Row]]:
    ends = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
    return [rows[a:b] for a, b in pairwise(ends)]


def same(one: Counts, other: Counts) -> None:
    for field in ("bins", "invalid", "unknown", "rows"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_allclose(one.sums, other.sums, rtol=1e-12)
    np.testing.assert_allclose(one.squares, other.squares, rtol=1e-9)


@given(ROWS, st.lists(st.integers(0, 100), max_size=6), st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_the_split_nor_on_the_order(rows: list[Row], cuts: list[int], chance: object) -> None:
    together = BINNER.count([batch(rows)], squares=True)
    parts = split(rows, cuts)
    chance.shuffle(parts)  # type: ignore[attr-defined]
    batches = [batch(part) for part in parts]
    same(BINNER.count(batches, squares=True), together)
    same(reduce(add, (BINNER.count([one], squares=True) for one in batches), BINNER.zero()), together)
    same(BINNER.count([batch([row]) for row in rows], squares=True), together)
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    same(BINNER.count([batch(shuffled)], squares=True), together)


@given(ROWS, ROWS, ROWS)
def test_counts_are_a_commutative_monoid(a: list[Row], b: list[Row], c: list[Row]) -> None:
    x, y, z = (BINNER.count([batch(rows)], squares=True) for rows in (a, b, c))
    same(x + y, y + x)
    same((x + y) + z, x + (y + z))
    same(x + BINNER.zero(), x)


@given(ROWS)
def test_every_value_lands_in_exactly_one_bin(rows: list[Row]) -> None:
    counts = BINNER.count([batch(rows)])
    per_column = np.add.reduceat(counts.bins, BINNER.offsets[:-1])
    assert per_column.tolist() == [len(rows)] * 4
    assert (counts.bins >= 0).all()
    assert (counts.invalid <= counts.bins[BINNER.offsets[1:] - 1]).all()


@given(hnp.arrays(np.float64, st.integers(0, 400), elements=st.floats(width=64)), st.integers(0, 3))
def test_bins_of_any_floats_equal_numpys(x: Floats, repeat: int) -> None:
    x = np.tile(x, repeat)  # on both sides of the row count at which the method changes
    counts = Binner(baseline(numeric("x", EDGES, [0.5]))).count([Batch(len(x), {"x": x.tolist()})])
    assert counts.bins.tolist() == bin_counts(EDGES, x).tolist()


@settings(max_examples=30)
@given(ROWS, st.lists(st.integers(0, 100), max_size=6), st.lists(st.sampled_from(["snapshot", "tick", ""]), min_size=7))
def test_store_counts_the_same_whatever_comes_between(rows: list[Row], cuts: list[int], between: list[str]) -> None:
    windows = (Window(3600.0, "1h"),)
    store = Store(Config(models=(ModelConfig(name="m", version="1"),), windows=windows), {("m", "1"): PROFILE}, Clock())
    for part, action in zip(split(rows, cuts), between, strict=False):
        store.observe([batch(part)])
        if action:
            getattr(store, action)()
    (version,) = store.snapshot().versions
    assert version.counts is not None
    expected = BINNER.count([batch(rows)])
    same(version.counts, expected)
    np.testing.assert_array_equal(version.windows[0][1], expected.bins)


# -- distances ---------------------------------------------------------------------------------------------------------

BINS = 6
COUNTS = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.just(BINS)), elements=st.integers(0, 10**6))


def psi(k: Table, c: Table) -> Floats:
    return drift.psi(k, c, np.ones(k.shape, dtype=np.bool_))


def wasserstein(k: Table, c: Table) -> Floats:
    means = np.arange(BINS) + 0.5
    return drift.wasserstein_distance(k, np.where(k > 0, means, np.nan), c, np.where(c > 0, means, np.nan))


DISTANCES: dict[str, tuple[Callable[[Table, Table], Floats], float]] = {
    "psi": (psi, math.inf),
    "js": (drift.js_distance, math.sqrt(math.log(2))),
    "hellinger": (drift.hellinger_distance, 1.0),
    "ks": (drift.ks_distance, 1.0),
    "wasserstein": (wasserstein, BINS - 1.0),
}
ALL = pytest.mark.parametrize("name", DISTANCES)


def filled(*tables: Table) -> list[Table]:
    """Tables of one shape without empty columns."""
    columns = min(len(table) for table in tables)
    cut = [table[:columns] for table in tables]
    for table in cut:
        assume(table.any(axis=1).all())
    return cut


@ALL
@given(table=COUNTS, factor=st.integers(1, 1000))
def test_0_on_equal_input_of_any_size(name: str, table: Table, factor: int) -> None:
    distance, _ = DISTANCES[name]
    (k,) = filled(table)
    assert distance(k, k) == pytest.approx(0, abs=1e-7)
    if name != "psi":  # smoothing weighs less in the larger one
        assert distance(k, k * factor) == pytest.approx(0, abs=1e-7)


@ALL
@given(one=COUNTS, other=COUNTS)
def test_bounded_and_symmetric(name: str, one: Table, other: Table) -> None:
    distance, most = DISTANCES[name]
    k, c = filled(one, other)
    result = distance(k, c)
    assert (result >= 0).all()
    assert (result <= most + 1e-12).all()
    np.testing.assert_allclose(distance(c, k), result, rtol=1e-9, atol=1e-7)


@ALL
@given(table=COUNTS)
def test_larger_than_0_where_something_moved(name: str, table: Table) -> None:
    distance, _ = DISTANCES[name]
    (k,) = filled(table)
    assume((k[:, 0] > 100).all())
    c = k.copy()
    c[:, -1] += c[:, 0]
    c[:, 0] = 0
    assert (distance(k, c) > 1e-6).all()


@pytest.mark.parametrize("name", ["js", "hellinger", "ks", "wasserstein"])
@given(one=COUNTS, other=COUNTS, third=COUNTS)
def test_triangle_inequality(name: str, one: Table, other: Table, third: Table) -> None:
    distance, _ = DISTANCES[name]
    a, b, c = filled(one, other, third)
    assert (distance(a, c) <= distance(a, b) + distance(b, c) + 1e-7).all()


@pytest.mark.parametrize("name", ["psi", "js", "hellinger"])
@given(one=COUNTS, other=COUNTS, order=st.permutations(range(BINS)))
def test_order_of_bins_does_not_matter_to_those_without_one(
    name: str, one: Table, other: Table, order: list[int]
) -> None:
    distance, _ = DISTANCES[name]
    k, c = filled(one, other)
    np.testing.assert_allclose(distance(k[:, order], c[:, order]), distance(k, c), rtol=1e-9, atol=1e-7)


@settings(max_examples=50)
@given(
    hnp.arrays(np.float64, st.integers(200, 400), elements=st.floats(-100, 100)),
    hnp.arrays(np.float64, st.integers(200, 400), elements=st.floats(-100, 100)),
)
def test_statistics_of_a_whole_column_are_0_on_its_own_data_and_bounded_on_any(base: Floats, live: Floats) -> None:
    edges = np.unique(np.quantile(base, np.linspace(0, 1, 9)))
    assume(len(edges) > 2)
    assume(base.std() > 1e-3)
    binner = Binner(baseline(numeric("x", [math.nextafter(float(edges[0]), -math.inf), *edges], base)))
    statistician, reference = Statistician(binner), reference_of(binner)

    def compute(x: Floats) -> dict[str, float]:
        counts = binner.count([Batch(len(x), {"x": x.tolist()})])
        result = statistician.compute(reference, counts.bins, counts.sums)
        return {name: float(getattr(result, name)[0]) for name in result.__struct_fields__}

    own = compute(base)
    for name in ("js_distance", "hellinger_distance", "ks_distance", "wasserstein_stddevs"):
        assert own[name] == pytest.approx(0, abs=1e-7)
    other = compute(live)
    assert 0 <= other["ks_distance"] <= 1
    assert 0 <= other["hellinger_distance"] <= 1 + 1e-12
    assert 0 <= other["js_distance"] <= math.sqrt(math.log(2)) + 1e-12
    spread = max(base.max(), live.max()) - min(base.min(), live.min())
    assert -1e-12 <= other["wasserstein_stddevs"] <= spread / base.std() * (1 + 1e-9)
    assert other["out_of_range_ratio"] == pytest.approx(((live < edges[0]) | (live > edges[-1])).mean())
