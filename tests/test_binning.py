"""Counts against numpy on the raw data, and what becomes of values that are not what a column should hold."""

import math
import sys
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import baseline, bin_counts, categorical, numeric
from mlexporter.baseline import Column
from mlexporter.binning import SEARCHSORTED_ROWS, Binner, Counts, alarm_starts, coarse_starts, in_order
from mlexporter.categories import category_of
from mlexporter.samples import Batch, Role

EDGES = (-2.0, -1.0, math.nextafter(0.0, -1.0), 0.0, 5e-324, 0.5, 1.0, 4.0)
TRAINING = np.random.default_rng(3).normal(0, 1, 1000)
HUGE = 10**400

ROWS = [0, 1, 2, SEARCHSORTED_ROWS - 1, SEARCHSORTED_ROWS, SEARCHSORTED_ROWS + 1, 5000]


def raw(rows: int) -> NDArray[np.float64]:
    """Numbers with every edge, its neighbours and all special floats among them."""
    random = np.random.default_rng(rows)
    around = [near for edge in EDGES for near in (edge, math.nextafter(edge, 9), math.nextafter(edge, -9))]
    tiny, largest = sys.float_info.min, sys.float_info.max
    special = [math.nan, math.inf, -math.inf, -0.0, 5e-324, -5e-324, tiny / 2, tiny, largest, -largest]
    drawn = np.concatenate([random.choice(around + special, rows), random.normal(0, 2, rows)])
    random.shuffle(drawn)
    return drawn[:rows]


def count(column: Column, values: Sequence[object], *, squares: bool = False) -> Counts:
    return Binner(baseline(column)).count([Batch(len(values), {column.name: values})], squares=squares)


@pytest.mark.parametrize("rows", ROWS)
def test_counts_equal_numpy(rows: int) -> None:
    x = raw(rows)
    counts = count(numeric("x", EDGES, TRAINING), x.tolist())
    assert counts.bins.tolist() == bin_counts(EDGES, x).tolist()
    assert counts.bins.sum() == counts.rows == rows
    assert counts.invalid.tolist() == [0]


@pytest.mark.parametrize("rows", ROWS)
def test_sums_equal_numpy(rows: int) -> None:
    x = np.random.default_rng(rows).normal(0, 2, rows)
    x[: rows // 10] = np.nan
    column = numeric("x", EDGES, TRAINING)
    counts = count(column, x.tolist(), squares=True)
    present = x[~np.isnan(x)]
    index = np.searchsorted(EDGES, present, side="left")
    sums = [present[index == i].sum() for i in range(len(EDGES) + 1)]
    assert counts.sums == pytest.approx([*sums, 0], rel=1e-12, abs=1e-12)
    assert counts.squares == pytest.approx([((present - TRAINING.mean()) ** 2).sum()], rel=1e-9)
    assert count(column, x.tolist()).squares.tolist() == [0]


@pytest.mark.parametrize("padding", [0, SEARCHSORTED_ROWS])
@pytest.mark.parametrize(
    ("value", "index", "invalid"),
    [
        (-2.0, 0, 0),  # at or under the first edge: below
        (math.nextafter(-2.0, 9), 1, 0),
        (-1, 1, 0),
        (0, 3, 0),
        (-0.0, 3, 0),
        (-5e-324, 2, 0),
        (5e-324, 4, 0),
        (4, 7, 0),
        (math.nextafter(4.0, 9), 8, 0),
        (math.inf, 8, 0),
        (-math.inf, 0, 0),
        (HUGE, 8, 0),
        (-HUGE, 0, 0),
        (2**63, 8, 0),
        (True, 6, 0),
        (False, 3, 0),
        (None, 9, 0),
        (math.nan, 9, 0),
        ("3", 9, 1),
        ("", 9, 1),
        ("NaN", 9, 1),
        ("x" * 1_000_000, 9, 1),
        ([1.0], 9, 1),
        ([], 9, 1),
        ([[[]]], 9, 1),
        ({"a": 1}, 9, 1),
        (b"1", 9, 1),
        (1j, 9, 1),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_one_value_of_any_kind(value: object, index: int, invalid: int, padding: int) -> None:
    """Alone and among many others: one bad value never costs its neighbours."""
    x = np.random.default_rng(0).normal(0, 2, padding)
    counts = count(numeric("x", EDGES, TRAINING), [*x.tolist(), value, None])
    expected = bin_counts(EDGES, x)
    expected[[index, -1]] += 1
    if index == 9:
        expected[9] = 2
    assert counts.bins.tolist() == expected.tolist()
    assert counts.invalid.tolist() == [invalid]
    assert np.isfinite(counts.sums).all()


def test_all_kinds_of_values_in_one_column() -> None:
    values: list[object] = [1, 2.5, True, None, math.nan, "1", [], {}, HUGE, -HUGE, math.inf, "x", -1.0]
    counts = count(numeric("x", EDGES, TRAINING), values)
    numbers = [1, 2.5, 1, math.nan, math.nan, *[math.nan] * 3, math.inf, -math.inf, math.inf, math.nan, -1]
    assert counts.bins.tolist() == bin_counts(EDGES, numbers).tolist()
    assert counts.invalid.tolist() == [4]


@pytest.mark.parametrize("padding", [0, SEARCHSORTED_ROWS])
def test_sums_are_winsorised_at_a_million_stddevs(padding: int) -> None:
    column = numeric("x", (0.0, 10.0), [4.0, 6.0])  # mean 5, standard deviation 1
    values = [math.inf, 1e300, 2e6, HUGE, -math.inf, -2e6, 7.0, math.nan] + [math.nan] * padding
    counts = count(column, [*values, "x"], squares=True)
    assert counts.sums.tolist() == [2 * (5 - 1e6), 7.0, 4 * (5 + 1e6), 0.0]
    assert counts.squares.tolist() == [6 * 1e12 + 4]


def test_sums_of_missing_values_are_0_where_0_lies_outside_the_limits() -> None:
    column = numeric("x", (1e9, 1e9 + 8), [1e9 + 4 - 0.0001, 1e9 + 4 + 0.0001])
    assert column.sum_limits[0] > 0
    counts = count(column, [1e9 + 1, None, math.nan, math.inf], squares=True)
    assert counts.sums[[1, 3]].tolist() == [1e9 + 1, 0]
    assert counts.squares == pytest.approx([9 + 100**2], rel=1e-3)


def test_extreme_baselines_overflow_nothing() -> None:
    column = numeric("x", (-1e308, 0.0, 1e308), [0.5])
    column = msgspec.structs.replace(column, mean=-1e139, stddev=1e140)  # moments stop at 1e140
    counts = count(column, [1e308, -1e308, math.inf, -math.inf] * 500, squares=True)
    assert counts.bins.tolist() == [1000, 0, 500, 500, 0]
    assert np.isfinite(counts.sums).all()
    assert np.isfinite(counts.squares).all()


@pytest.mark.parametrize("bins", [1, 2, 200])
def test_any_number_of_bins(bins: int) -> None:
    edges = np.linspace(0, 1, bins + 1).tolist()
    x = np.random.default_rng(bins).uniform(-0.1, 1.1, 2000)
    assert count(numeric("x", edges, [0.5]), x.tolist()).bins.tolist() == bin_counts(edges, x).tolist()


PLAN = categorical("plan", {"pro": 5, "3": 4, "true": 3, "0.5": 1}, rare={"edu": 1, "gov": 1})


@pytest.mark.parametrize(
    ("value", "index", "invalid"),
    [
        ("pro", 0, 0),
        (3, 1, 0),
        (3.0, 1, 0),
        (True, 2, 0),
        (0.5, 3, 0),
        ("edu", 4, 0),
        ("Pro", 5, 0),
        ("", 5, 0),
        (1, 5, 0),
        (0, 5, 0),
        (False, 5, 0),
        (HUGE, 5, 0),
        (10**5000, 5, 0),
        (math.inf, 5, 0),
        ("x" * 1_000_000, 5, 0),
        ("\ud800", 5, 0),
        (None, 6, 0),
        (math.nan, 6, 0),
        ([], 6, 1),
        (["pro"], 6, 1),
        ({"pro": 1}, 6, 1),
        ((), 6, 1),
        (b"pro", 6, 1),
    ],
    ids=lambda value: "huge" if isinstance(value, int) and value > 10**9 else repr(value)[:20],
)
def test_one_category_of_any_kind(value: object, index: int, invalid: int) -> None:
    for others in ([], ["pro", None], [1, True, 0, False, 1.0]):
        beside = count(PLAN, others).bins
        counts = count(PLAN, [value, *others])
        assert (counts.bins - beside).tolist() == np.eye(7, dtype=int)[index].tolist()
        assert counts.invalid.tolist() == [invalid]
        # whoever comes first
        assert count(PLAN, [*others, value]).bins.tolist() == counts.bins.tolist()


def test_true_is_not_1_except_in_a_boolean_column() -> None:
    column = categorical("x", {"true": 1, "1": 1, "false": 1, "0": 1})
    assert count(column, [1, True, True, 1.0, False, 0, -0.0, 0, "true", "1", [True]]).bins.tolist() == [
        3, 3, 1, 3, 0, 0, 1,
    ]  # fmt: skip


def test_boolean_column() -> None:
    column = categorical("flag", {"false": 5, "true": 5}, boolean=True)
    values = [True, 1, 1.0, "true", False, 0, -0.0, "false", 2, "yes", 0.5, None, math.nan, []]
    counts = count(column, values)
    assert counts.bins.tolist() == [4, 4, 0, 3, 3]
    assert counts.invalid.tolist() == [1]


def test_category_that_is_listed_nowhere_is_other_where_the_list_is_not_complete() -> None:
    column = categorical("x", {"a": 1}, rare={"b": 1}, complete=False)
    assert count(column, ["a", "b", "c", None]).bins.tolist() == [1, 2, 0, 1]


def test_long_categories_are_known_again() -> None:
    long = "x" * 1_000_000
    column = categorical("x", {str(category_of(long)): 1})
    assert count(column, [long, long + "y", long[:-1]]).bins.tolist() == [1, 0, 2, 0]


def test_columns_lie_one_after_another_numeric_ones_first() -> None:
    binner = Binner(
        baseline(
            PLAN,
            numeric("b", (0.0, 1.0), [0.5]),
            numeric("a", (0.0, 1.0, 2.0), [0.5]),
            numeric("prediction", (0.0, 0.5), [0.5], role=Role.PREDICTION),
            numeric("confidence", (0.0, 0.5, 1.0), [0.5], role=Role.PREDICTION),
            categorical("label", {"no": 1, "yes": 1}, role=Role.LABEL),
        )
    )
    assert [column.name for column in binner.columns] == ["a", "b", "confidence", "prediction", "plan", "label"]
    assert binner.offsets.tolist() == [0, 5, 9, 14, 18, 25, 30]
    assert binner.numeric_size == 18
    first = Batch(
        3,
        {"a": [0.5, 1.5, 9], "b": [-1, None, 1], "plan": ["pro", 3, "edu"]},
        prediction=[0.1, 0.2, 0.9],
        confidence=[1.0, 0.75, 0.25],
        label=["yes", "no", "maybe"],
    )
    # a batch without some of the columns: missing
    second = Batch(2, {"a": [1, 1]})
    counts = binner.count([first, second])
    assert counts.bins.tolist() == [
        0, 3, 1, 1, 0,
        1, 1, 0, 3,
        0, 1, 2, 0, 2,
        0, 2, 1, 2,
        1, 1, 0, 0, 1, 0, 2,
        1, 1, 0, 1, 0,  # labels that did not come are not missing
    ]  # fmt: skip
    assert counts.rows == 5
    assert counts.unknown == 0
    assert counts.sums[:5].tolist() == [0, 2.5, 1.5, 9, 0]


def test_values_in_unknown_columns_are_counted_and_nothing_else() -> None:
    binner = Binner(baseline(numeric("x", (0.0, 1.0), [0.5])))
    known = Batch(2, {"x": [0.5, 0.5]})
    assert binner.count([known]).unknown == 0
    batch = Batch(
        3,
        {"x": [0.5, 0.5, 2], "y": [1, None, "a"], "z": [None, None, []]},
        prediction=["a", "b", "c"],
        confidence=[0.5, None, 0.5],
        label=["a", "b", "c"],  # labels are not drift: they have their own way
    )
    counts = binner.count([known, batch])
    assert counts.unknown == 2 + 1 + 3 + 2
    assert counts.bins.tolist() == [0, 4, 1, 0]


def test_unknown_columns_do_not_depend_on_the_form() -> None:
    """Samples one by one and in one batch, where they are padded to a table, count alike."""
    binner = Binner(baseline(numeric("x", (0.0, 1.0), [0.5])))
    together = binner.count([Batch(3, {"x": [0.5] * 3, "y": [1, None, None], "z": [None, 2, None]})])
    alone = binner.count([Batch(1, {"x": [0.5], "y": [1]}), Batch(1, {"x": [0.5], "z": [2]}), Batch(1, {"x": [0.5]})])
    assert together.unknown == alone.unknown == 2


def test_single_samples_whose_columns_come_in_another_order() -> None:
    binner = Binner(baseline(numeric("x", (0.0, 1.0, 2.0), [0.5]), PLAN, numeric("y", (0.0, 1.0), [0.5])))
    singles = [
        Batch(1, {"x": [1.5], "y": [0.5], "plan": ["pro"]}),
        Batch(1, {"y": [0.5], "x": [1.5], "plan": ["pro"]}, prediction=["a"]),
        Batch(1, {"plan": ["pro"], "x": [1.5], "y": [0.5], "z": [1]}, confidence=[0.5]),
        Batch(1, {"x": [1.5]}),
        Batch(1, {}),
        Batch(1, {"x": [1.5], "y": [None], "plan": [[]]}, label=["a"]),
        Batch(2, {"x": [1.5, 0.5], "y": [9, 9], "plan": ["pro", 3]}),
        Batch(1, {"x": [1.5], "y": [0.5], "plan": ["pro"]}),
        Batch(1, {"x": ["?"], "y": [0.5], "plan": ["pro"]}, prediction=["a"]),
    ]
    counts = binner.count(singles)
    assert counts.bins.tolist() == [0, 1, 7, 0, 2, 0, 5, 2, 3, 6, 1, 0, 0, 0, 0, 3]
    assert counts.invalid.tolist() == [1, 0, 1]
    assert (counts.rows, counts.unknown) == (10, 4)


def test_no_batches_and_no_rows() -> None:
    binner = Binner(baseline(numeric("x", (0.0, 1.0), [0.5]), PLAN))
    for counts in (binner.zero(), binner.count([]), binner.count([Batch(0, {}), Batch(0, {"x": [], "plan": []})])):
        assert counts.bins.tolist() == [0] * 11
        assert (counts.rows, counts.unknown) == (0, 0)
    nothing = Binner(baseline()).count([Batch(2, {"x": [1, 2]})])
    assert (nothing.bins.tolist(), nothing.rows, nothing.unknown) == ([], 2, 2)


def test_counts_add() -> None:
    binner = Binner(baseline(numeric("x", (0.0, 1.0), [0.25, 0.75]), PLAN))
    a = binner.count([Batch(2, {"x": [0.5, "x"], "plan": ["pro", []], "u": [1, 2]})], squares=True)
    b = binner.count([Batch(1, {"x": [0.25], "plan": ["edu"]})], squares=True)
    both = a + b
    assert both.bins.tolist() == [0, 2, 0, 1, 1, 0, 0, 0, 1, 0, 1]
    assert both.sums.tolist() == [0, 0.75, 0, 0]
    assert both.squares.tolist() == [0.0625]
    assert both.invalid.tolist() == [1, 1]
    assert (both.unknown, both.rows) == (2, 3)
    assert a.bins.sum() == 4, "the sum changed its terms"


def test_coarse_starts_merge_fine_bins() -> None:
    binner = Binner(baseline(numeric("x", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), [0.5], coarse=(0, 2, 5)), PLAN))
    fine = np.array([1, 2, 4, 8, 16, 32, 64, 128, *[1] * 7])
    merged = np.add.reduceat(fine, coarse_starts(binner))
    assert merged.tolist() == [1, 2 + 4, 8 + 16 + 32, 64, 128, *[1] * 7]


def test_alarm_starts() -> None:
    ages = numeric("x", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), [0.5], coarse=(0, 2, 5))
    assert alarm_starts(ages) == (0, 1, 3, 6, 7)
    assert alarm_starts(categorical("flag", {"false": 1, "true": 1}, boolean=True)) == (0, 1, 2, 3, 4)
    # up to 20 categories have a bin of their own; beyond them one begins that ends with `other`; then new, and missing
    for categories, expected in ((20, range(23)), (21, [*range(21), 22, 23]), (50, [*range(21), 51, 52])):
        column = categorical("city", {f"c{i}": 1 for i in range(categories)})
        assert alarm_starts(column) == tuple(expected)


def test_columns_of_another_state_in_the_order_of_a_binner() -> None:
    before = baseline(PLAN, numeric("b", (0.0, 1.0), [0.5]), numeric("prediction", (0.0, 1.0), [0.5]))
    after = baseline(
        numeric("prediction", (0.0, 1.0), [0.5] * 9), numeric("b", (0.0, 1.0), [0.5] * 8), categorical("plan", {"a": 7})
    )
    found = in_order(after, Binner(before))
    assert [(column.name, sum(column.counts)) for column in found] == [("b", 8), ("prediction", 9), ("plan", 7)]
    assert [column.name for column in after.columns] == ["b", "plan", "prediction"]
