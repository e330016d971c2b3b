"""Which bins the alarm holds together, what is missing or strange of a column, and what is to be expected of it."""

import numpy as np
import pytest

from conftest import Clock, baseline, categorical, numeric
from mlexporter.alarm_bins import AlarmBins
from mlexporter.baseline import CategoricalColumn, Column
from mlexporter.binning import Binner
from mlexporter.columns import Tally, categorical_column
from mlexporter.config import Config, ModelConfig
from mlexporter.dictionary import upper_rate
from mlexporter.edges import Floats
from mlexporter.samples import Batch, Role
from mlexporter.store import Store

# below, five fine bins of which two are exported, above, missing
AMOUNT = numeric("amount", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), [0.5] * 9, coarse=(0, 2, 5))
FLAG = categorical("flag", {"false": 6, "true": 3}, boolean=True)
# 30 categories of a name of their own, and two that have none
CITY = categorical("city", {f"c{i:02}": 60 - i for i in range(30)}, rare={"x": 1, "y": 1}, missing=4)
WORD = categorical("word", {f"w{i}": 9 for i in range(20)}, rare={"x": 5}, complete=False)
TWENTY = categorical("twenty", {f"t{i}": 9 for i in range(20)})


def bins_of(*columns: Column) -> tuple[AlarmBins, Binner]:
    binner = Binner(baseline(*columns))
    return AlarmBins(binner), binner


def rows_of(*columns: Column) -> Floats:
    """The rows of their baselines, in the bins of the alarm."""
    bins, binner = bins_of(*columns)
    return bins.counts(np.array([k for column in binner.columns for k in column.counts], dtype=np.int64))


def test_numeric_columns_have_the_exported_bins() -> None:
    bins, _ = bins_of(AMOUNT)
    counts = bins.counts(np.array([1, 2, 4, 8, 16, 32, 64, 128]))
    assert counts.tolist() == [1, 2 + 4, 8 + 16 + 32, 64, 128]
    assert bins.rates(counts).tolist() == [[128, 1 + 64]]


def test_a_column_of_deciles_has_13_bins() -> None:
    edges = np.linspace(0, 20, 21).tolist()
    bins, _ = bins_of(numeric("x", edges, np.linspace(0.1, 19.9, 500), coarse=range(0, 21, 2)))
    assert bins.layout.sizes.tolist() == [13]


def test_boolean_columns_have_all_their_bins() -> None:
    bins, _ = bins_of(FLAG)
    counts = bins.counts(np.array([1, 2, 4, 8, 16]))
    assert counts.tolist() == [1, 2, 4, 8, 16]
    # the fourth is what is neither false nor true
    assert bins.rates(counts).tolist() == [[16, 8]]


def test_categories_beyond_the_20_most_frequent_go_with_other() -> None:
    bins, _ = bins_of(CITY)
    fine = np.arange(1, 34)
    counts = bins.counts(fine)
    assert counts.tolist() == [*range(1, 21), sum(range(21, 32)), 32, 33]
    assert bins.rates(counts).tolist() == [[33, 32]]
    few, _ = bins_of(TWENTY)
    assert few.counts(np.arange(1, 24)).tolist() == list(range(1, 24))


def test_new_categories_lie_in_other_where_the_list_is_not_complete() -> None:
    bins, _ = bins_of(WORD)
    counts = bins.counts(np.array([*range(1, 22), 0, 23]))
    assert bins.rates(counts).tolist() == [[23, 21]]


def test_columns_lie_one_after_another_in_the_order_of_the_binner() -> None:
    bins, binner = bins_of(CITY, FLAG, AMOUNT, WORD)
    assert [column.name for column in binner.columns] == ["amount", "city", "flag", "word"]
    assert bins.layout.offsets.tolist() == [0, 5, 28, 33, 56]
    assert bins.layout.ordered == 1
    fine = np.arange(int(binner.offsets[-1]))
    parts = np.split(fine, binner.offsets[1:-1])
    alone = [bins_of(column)[0] for column in binner.columns]
    together = bins.counts(fine)
    assert together.tolist() == [k for own, part in zip(alone, parts, strict=True) for k in own.counts(part)]
    assert bins.rates(together).tolist() == [
        own.rates(own.counts(part))[0].tolist() for own, part in zip(alone, parts, strict=True)
    ]
    # of several ticks at once
    assert bins.rates(np.stack([together, 2 * together]))[1].tolist() == (2 * bins.rates(together)).tolist()


def test_upper_rates() -> None:
    bins, _ = bins_of(AMOUNT, FLAG)
    ours = bins.upper_rates(np.array([1.0, 500, 470, 9, 20, 300, 600, 0, 0, 100]))
    amount = [upper_rate(np.array([20.0]), np.array([1000.0])), upper_rate(np.array([10.0]), np.array([1000.0]))]
    assert ours[0, 0] == amount[0][0]
    # the range ends at the baseline's own extremes: one row more
    assert ours[0, 1] == pytest.approx(float(upper_rate(np.array([11.0]), np.array([1001.0]))[0]), rel=0.01)
    assert ours[0, 1] > amount[1][0]
    assert ours[1].tolist() == [
        upper_rate(np.array([100.0]), np.array([1000.0]))[0],
        upper_rate(np.array([0.0]), np.array([1000.0]))[0],
    ]


def tallied(name: str, rows: dict[str, int]) -> CategoricalColumn:
    return categorical_column(Role.FEATURE, name, Tally(rows, 0, 0), boolean=False)


def test_expected_counts_by_hand() -> None:
    """Of 10 rows 3 are of a category that is there once: with itself left out, each of them would be new."""
    plan = tallied("plan", {"a": 5, "b": 2, "c": 1, "d": 1, "e": 1})
    # 45 of two rows each, 10 of one; the alarm has a bin for 20 of them
    tale = tallied("tale", {f"w{i:02}": 1 if i >= 45 else 2 for i in range(55)})
    assert (plan.singletons, tale.singletons) == (3, 10)
    bins, _ = bins_of(AMOUNT, plan, tale, WORD)
    counts = rows_of(AMOUNT, plan, tale, WORD)
    expected = bins.expected(counts, bins.layout.totals(counts))
    amount, plans, tales, words = np.split(expected, bins.layout.offsets[1:-1])
    assert amount.tolist() == [0, 9, 0, 0, 0]
    # five categories, other, new, missing: `other` has no row to give, for all five have a bin of their own
    assert plans.tolist() == [5, 2, 1, 1, 1, 0, 3, 0]
    # of the 60 rows of the others 10 are singletons
    assert tales.tolist() == [2.0] * 20 + [50, 10, 0]
    # one that does not list all cannot tell new ones from rare ones, and need not
    assert words.tolist() == [9.0] * 20 + [5, 0, 0]
    # of a part of the rows, as of an hour, so is the part of the singletons
    part = bins.expected(counts / 4, bins.layout.totals(counts))
    assert np.split(part, bins.layout.offsets[1:-1])[2].tolist() == [0.5] * 20 + [12.5, 2.5, 0]


def test_expected_counts_of_no_rows() -> None:
    bins, _ = bins_of(tallied("plan", {}), FLAG)
    nothing = np.zeros(int(bins.layout.offsets[-1]))
    assert bins.expected(nothing, bins.layout.totals(nothing)).tolist() == nothing.tolist()


def test_no_columns() -> None:
    bins, _ = bins_of()
    assert (bins.counts(np.empty(0, dtype=np.int64)).tolist(), bins.layout.offsets.tolist()) == ([], [0])
    assert bins.rates(np.empty(0)).shape == bins.upper_rates(np.empty(0)).shape == (0, 2)
    assert bins.expected(np.empty(0), np.empty(0)).tolist() == []


def test_a_column_of_many_rare_categories_does_not_alarm_on_new_ones() -> None:
    """500 categories by Zipf: 2,000 rows of a baseline have met some of them only, and every hour brings new ones."""
    chance = 1 / np.arange(1, 501)
    chance /= chance.sum()
    random = np.random.default_rng(12)

    def draw(rows: int) -> list[object]:
        return [f"word {i}" for i in random.choice(500, rows, p=chance)]

    seen = draw(2000)
    column = categorical_column(Role.FEATURE, "word", Tally.of(seen, boolean=False), boolean=False)
    assert column.complete
    assert column.singletons > 50
    # a number beside it, for no other reason than that the alarm is held to a whole model
    profile = baseline(numeric("x", (0.0, 0.5, 1.0), np.linspace(0.01, 0.99, 2000)), column)
    clock = Clock()
    store = Store(Config(models=(ModelConfig(name="m"),)), {("m", "unversioned"): profile}, clock)
    new = 0
    for _ in range(150):
        clock.now += 15
        words = draw(100)
        new += len([word for word in words if word not in set(seen)])
        store.observe([Batch(100, {"x": random.uniform(0, 1, 100).tolist(), "word": words}, model="m")])
        store.tick()
    snapshot = store.snapshot()
    assert snapshot.log_threshold is not None
    alarm = snapshot.versions[0].alarm
    assert alarm is not None
    assert new > 150 * 100 * 0.02, "new ones are common here"
    assert (alarm.evidence.log_evidence < snapshot.log_threshold - 5).all()
    # but of new ones in earnest it speaks at once
    for _ in range(10):
        words = [word if random.random() < 0.7 else "a word unheard of" for word in draw(100)]
        store.observe([Batch(100, {"x": random.uniform(0, 1, 100).tolist(), "word": words}, model="m")])
        store.tick()
    alarm = store.snapshot().versions[0].alarm
    assert alarm is not None
    assert alarm.firing.tolist() == [[False, True], [False, True]]
