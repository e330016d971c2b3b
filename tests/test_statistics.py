"""From counts to the numbers on the page: which bins go into which statistic, and when a number is absent."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from conftest import baseline, bin_counts, categorical, numeric
from mlexporter.baseline import Baseline, Column, NumericColumn
from mlexporter.binning import Binner
from mlexporter.statistics import Statistician, WindowStatistics, reference_of

Floats = NDArray[np.float64]

RANDOM = np.random.default_rng(7)
TRAINING = RANDOM.normal(40, 10, 10_000)
TRAINING[:300] = np.nan
# 20 fine bins, their even edges exported; the training data reach beyond both ends
FINE = np.nanquantile(TRAINING, np.linspace(0.01, 0.99, 21)).tolist()
DECILES = FINE[::2]
LIVE = RANDOM.normal(44, 12, 1500)
LIVE[:200] = np.nan
LIVE[200:260] = 500.0
LIVE[260:290] = -math.inf

PLANS = {"free": 6000, "pro": 3000, "team": 700}
RARE = {"edu": 200, "gov": 90}
LIVE_PLANS = ["free"] * 700 + ["pro"] * 400 + ["edu"] * 30 + ["crypto"] * 50 + [None] * 20


def age(values: Floats = TRAINING) -> NumericColumn:
    return numeric("age", FINE, values, coarse=range(0, 21, 2))


def plan(*, complete: bool = True) -> Column:
    return categorical("plan", PLANS, rare=RARE, missing=10, complete=complete)


def plan_counts(values: Sequence[str | None]) -> list[int]:
    """The bins of `plan`, by hand."""
    tally = Counter(values)
    other = tally["edu"] + tally["gov"]
    named = tally["free"] + tally["pro"] + tally["team"]
    new = len(values) - named - other - tally[None]
    return [tally["free"], tally["pro"], tally["team"], other, new, tally[None]]


def compute(profile: Baseline, live: dict[str, Floats], plans: Sequence[str | None] | None = None) -> WindowStatistics:
    """The statistics of live data, whose counts come from numpy and by hand."""
    binner = Binner(profile)
    bins: list[NDArray[np.int64]] = []
    sums: list[Floats] = []
    for column in binner.numeric:
        x = live[column.name]
        bins.append(bin_counts(column.edges, x))
        index = np.searchsorted(np.asarray(column.edges), x, side="left")
        value = np.clip(np.nan_to_num(x, nan=0.0), *column.sum_limits)
        index[np.isnan(x)] = len(column.edges) + 1
        value[np.isnan(x)] = 0
        sums.append(np.bincount(index, value, minlength=len(column.edges) + 2).astype(np.float64))
    if plans is not None:
        bins.append(np.array(plan_counts(plans), dtype=np.int64))
    reference = reference_of(binner)
    return Statistician(binner).compute(reference, np.concatenate(bins), np.concatenate([*sums, np.empty(0)]))


def smoothed_psi(k: NDArray[np.int64], c: NDArray[np.int64]) -> float:
    q, p = (k + 0.5) / (k.sum() + 0.5 * len(k)), (c + 0.5) / (c.sum() + 0.5 * len(c))
    return float(stats.entropy(p, q) + stats.entropy(q, p))


def merged(x: Floats) -> NDArray[np.int64]:
    """Counts per decile, values out of range in the outermost ones; no missing."""
    return bin_counts(DECILES[1:-1], x)[:-1]


def test_numeric_column() -> None:
    result = compute(baseline(age()), {"age": LIVE})
    assert result.samples.tolist() == [1500]
    assert merged(LIVE).sum() == 1300
    assert result.psi == pytest.approx(smoothed_psi(merged(TRAINING), merged(LIVE)), rel=1e-9)
    floor = (1 / 1300 + 1 / 9700) * stats.chi2.isf(0.001, 9)
    assert result.psi_noise_floor == pytest.approx(floor, rel=1e-9)
    exported = [bin_counts(DECILES, x) for x in (TRAINING, LIVE)]
    assert len(exported[0]) == 13
    assert result.js_distance == pytest.approx(jensenshannon(*exported), rel=1e-9)
    q, p = (counts / counts.sum() for counts in exported)
    assert result.hellinger_distance == pytest.approx(math.sqrt(1 - np.sqrt(p * q).sum()), rel=1e-9)
    present = [x[~np.isnan(x)] for x in (TRAINING, LIVE)]
    fine = [np.searchsorted(FINE, x, side="left") for x in present]
    assert result.ks_distance == pytest.approx(stats.ks_2samp(*fine, method="asymp").statistic, rel=1e-9)
    assert result.missing_ratio == pytest.approx(200 / 1500)
    out = (FINE[0] >= LIVE).sum() + (FINE[-1] < LIVE).sum()
    assert out > 90
    assert result.out_of_range_ratio == pytest.approx(out / 1500)
    assert np.isnan(result.new_category_ratio).all()


def test_wasserstein_is_between_bin_means_in_stddevs() -> None:
    finite = np.where(np.isinf(LIVE), np.nan, LIVE)
    result = compute(baseline(age()), {"age": finite})
    means = []
    for x in (TRAINING, finite):
        x = x[~np.isnan(x)]
        index = np.searchsorted(FINE, x, side="left")
        means.append(np.array([x[index == i].mean() for i in index]))
    sd = float(np.nanstd(TRAINING))
    assert result.wasserstein_stddevs == pytest.approx(stats.wasserstein_distance(*means) / sd, rel=1e-9)
    # and the bins cost little against the raw data
    raw = stats.wasserstein_distance(TRAINING[~np.isnan(TRAINING)], finite[~np.isnan(finite)]) / sd
    assert result.wasserstein_stddevs == pytest.approx(raw, rel=0.02)


def test_an_infinity_is_far_away_and_no_more() -> None:
    result = compute(baseline(age()), {"age": LIVE})
    # 30 of 1300 values count as a million standard deviations away
    assert result.wasserstein_stddevs == pytest.approx(30 / 1300 * 1e6, rel=0.001)


def test_psi_of_a_table_with_one_bin_is_absent() -> None:
    constant = numeric("age", (math.nextafter(3.0, 0), 3.0), np.full(1000, 3.0))
    result = compute(baseline(constant), {"age": np.full(1000, 3.0)})
    assert np.isnan([result.psi[0], result.psi_noise_floor[0]]).all()
    # no standard deviation, nothing to measure a distance in
    assert np.isnan(result.wasserstein_stddevs[0])
    assert (result.js_distance[0], result.ks_distance[0]) == (0, 0)
    changed = compute(baseline(constant), {"age": np.where(np.arange(1000) < 250, 4.0, 3.0)})
    assert (changed.ks_distance[0], changed.out_of_range_ratio[0]) == (0.25, 0.25)


def test_categorical_column() -> None:
    result = compute(baseline(plan()), {}, LIVE_PLANS)
    # categories, other and new, without missing
    k, c = np.array([6000, 3000, 700, 290, 0]), np.array([700, 400, 0, 30, 50])
    assert result.samples.tolist() == [1200]
    assert result.psi == pytest.approx(smoothed_psi(k, c), rel=1e-9)
    assert result.psi_noise_floor == pytest.approx((1 / 1180 + 1 / 9990) * stats.chi2.isf(0.001, 4), rel=1e-9)
    assert result.js_distance == pytest.approx(jensenshannon([*k, 10], [*c, 20]), rel=1e-9)
    affinity = np.sqrt(np.append(k, 10) / 10_000 * np.append(c, 20) / 1200).sum()
    assert result.hellinger_distance == pytest.approx(math.sqrt(1 - affinity), rel=1e-9)
    assert result.missing_ratio == pytest.approx(20 / 1200)
    assert result.new_category_ratio == pytest.approx(50 / 1200)
    for absent in (result.ks_distance, result.wasserstein_stddevs, result.out_of_range_ratio):
        assert np.isnan(absent).all()


def test_new_categories_cannot_be_told_where_the_baseline_does_not_list_all() -> None:
    result = compute(baseline(plan(complete=False)), {}, LIVE_PLANS)
    assert np.isnan(result.new_category_ratio).all()
    assert result.missing_ratio == pytest.approx(20 / 1200)


def test_columns_do_not_touch_each_other() -> None:
    """Columns of other kinds and widths beside it change no number of a column."""
    small = numeric("small", (0.0, 1.0, 2.0), np.linspace(0.1, 1.9, 500))
    wide = categorical("wide", {str(i): 100 for i in range(50)})
    live = {"age": LIVE, "small": np.linspace(-1, 3, 700)}
    ages, smalls = compute(baseline(age()), live), compute(baseline(small), live)
    plans = compute(baseline(plan()), {}, LIVE_PLANS)
    together = compute(baseline(plan(), small, age()), live, LIVE_PLANS)
    widened = Binner(baseline(wide, plan()))
    counts = np.concatenate([plan_counts(LIVE_PLANS), np.full(53, 9)])
    beside = Statistician(widened).compute(reference_of(widened), counts, np.empty(0))
    for name in WindowStatistics.__struct_fields__:
        alone = [getattr(one, name)[0] for one in (ages, smalls, plans)]
        assert getattr(together, name) == pytest.approx(alone, rel=1e-12, nan_ok=True)
        assert getattr(beside, name)[0] == pytest.approx(alone[2], rel=1e-12, nan_ok=True)


def absent(result: WindowStatistics) -> set[str]:
    return {name for name in WindowStatistics.__struct_fields__ if np.isnan(getattr(result, name)[0])}


# over values; and over all exported bins, missing among them, so that a column that went missing shows
ORDERED = {"ks_distance", "wasserstein_stddevs"}
DISTANCES = {"js_distance", "hellinger_distance", *ORDERED}
PSI = {"psi", "psi_noise_floor"}


@pytest.mark.parametrize(
    ("rows", "missing", "expected"),
    [
        (0, 0, {*PSI, *DISTANCES, "missing_ratio", "out_of_range_ratio"}),
        (0, 199, {*PSI, *DISTANCES}),
        (0, 200, {*PSI, *ORDERED}),
        (0, 5000, {*PSI, *ORDERED}),
        (199, 0, {*PSI, *DISTANCES}),
        (199, 1, {*PSI, *ORDERED}),
        (199, 5000, {*PSI, *ORDERED}),
        (200, 0, PSI),
        (469, 0, PSI),
        (469, 5000, PSI),
        (470, 0, set()),
    ],
)
def test_too_few_live_rows(rows: int, missing: int, expected: set[str]) -> None:
    # 470 is the 1e-6 rule of the study for 10,000 baseline rows and 10 bins
    x = RANDOM.normal(40, 10, 10_000)
    live = np.append(x[:rows], np.full(missing, np.nan))
    result = compute(baseline(age(x)), {"age": live})
    assert absent(result) == expected | {"new_category_ratio"}
    assert result.samples.tolist() == [rows + missing]


@pytest.mark.parametrize(
    ("rows", "missing", "expected"),
    # chi2 at 1e-6 with 9 degrees is 45.08: of 450 rows PSI could pass 0.1 by chance however many live rows there are
    [
        (199, 0, {*PSI, *DISTANCES}),
        (199, 1, {*PSI, *ORDERED}),
        (200, 0, PSI),
        (450, 1000, PSI),
        (460, 0, set()),
    ],
)
def test_too_few_baseline_rows(rows: int, missing: int, expected: set[str]) -> None:
    profile = baseline(age(np.append(RANDOM.normal(40, 10, rows), np.full(missing, np.nan))))
    result = compute(profile, {"age": RANDOM.normal(40, 10, 100_000)})
    assert absent(result) == expected | {"new_category_ratio"}


def test_exported_bins_and_baseline_ratios() -> None:
    binner = Binner(baseline(age(), plan()))
    statistician, reference = Statistician(binner), reference_of(binner)
    ages, plans = bin_counts(DECILES, TRAINING), np.array([6000, 3000, 700, 290, 0, 10])
    assert statistician.exported(reference.bins).tolist() == [*ages, *plans]
    ratios = [*(ages + 0.5) / (10_000 + 6.5), *(plans + 0.5) / (10_000 + 3)]
    assert statistician.baseline_ratios(reference) == pytest.approx(ratios, rel=1e-12)
    assert reference.rows == 10_000
    assert reference.stddevs == pytest.approx(np.nanstd(TRAINING))
    assert reference.sums.sum() == pytest.approx(np.nansum(TRAINING))


def test_the_reference_may_change_between_calls() -> None:
    """A baseline that is being learned grows from scrape to scrape, under the same bins."""
    binner = Binner(baseline(age(), plan()))
    one = reference_of(binner)
    other = reference_of(Binner(baseline(age(LIVE), plan())))
    live = np.concatenate([bin_counts(FINE, LIVE), plan_counts(LIVE_PLANS)])
    statistician = Statistician(binner)
    for reference in (one, other, one):
        fresh = Statistician(binner).compute(reference, live, other.sums)
        again = statistician.compute(reference, live, other.sums)
        for name in WindowStatistics.__struct_fields__:
            np.testing.assert_array_equal(getattr(again, name), getattr(fresh, name))
    assert statistician.compute(other, live, other.sums).ks_distance[0] == 0
    assert statistician.compute(one, live, other.sums).ks_distance[0] > 0.1


def test_psi_however_few_samples_there_are() -> None:
    binner = Binner(baseline(age(), plan()))
    statistician, reference = Statistician(binner), reference_of(binner)
    few = np.concatenate([bin_counts(FINE, LIVE[195:205]), plan_counts(LIVE_PLANS[-22:])]).astype(np.float64)
    k, c = np.array([6000, 3000, 700, 290, 0]), np.array([0, 0, 0, 0, 2])
    expected = [smoothed_psi(merged(TRAINING), merged(LIVE[195:205])), smoothed_psi(k, c)]
    assert statistician.psi(reference, few) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(statistician.compute(reference, few.astype(np.int64), np.zeros(binner.numeric_size)).psi).all()
    assert np.isnan(statistician.psi(reference, np.zeros(len(few)))).all()


def test_a_baseline_without_columns() -> None:
    binner = Binner(baseline())
    statistician, reference = Statistician(binner), reference_of(binner)
    zero = binner.zero()
    assert statistician.exported(zero.bins).tolist() == []
    assert statistician.baseline_ratios(reference).tolist() == []
    assert statistician.compute(reference, zero.bins, zero.sums).psi.tolist() == []
