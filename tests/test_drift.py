"""Every statistic against scipy on the same counts, and the reference vectors V1 to V4."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlexporter import drift

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

# (baseline counts, live counts, PSI smoothed, noise floor, JS distance in nats, Hellinger, KS)
V1 = (
    [1000] * 10,
    [62, 71, 80, 95, 99, 104, 110, 118, 127, 134],
    0.0527653468951, 0.0306648813584, 0.0814228560775, 0.0815309238556, 0.093,
)  # fmt: skip
V2 = (
    [3000, 2000, 1400, 1000, 800, 600, 500, 400, 300, 0],
    [280, 190, 150, 110, 70, 60, 50, 40, 30, 20],
    0.127282072616, 0.0306648813584, 0.086833958549, 0.102998923129, 0.03,
)  # fmt: skip
V3 = ([50, 50, 50, 50], [10, 0, 5, 5], 0.691936917664, 0.894642990793, 0.328452092655, 0.382683432365, 0.25)
Vector = tuple[list[int], list[int], float, float, float, float, float]


def _row(values: list[int]) -> Counts:
    return np.array([values], dtype=np.int64)


def _everywhere(counts: Counts) -> NDArray[np.bool_]:
    return np.ones(counts.shape, dtype=np.bool_)


def _tables(bins: int) -> tuple[Counts, Counts]:
    """40 columns of baseline and live counts, a third of the bins empty."""
    random = np.random.default_rng(bins)
    k, c = (random.integers(0, 300, (40, bins)) * (random.random((40, bins)) < 0.7) for _ in range(2))
    k[:, 0] += 1
    c[:, -1] += 1
    return k, c


def _psi(k: Counts, c: Counts) -> Floats:
    return drift.psi(k, c, _everywhere(k))


@pytest.mark.parametrize("vector", [V1, V2, V3], ids=["V1", "V2", "V3"])
def test_reference_vectors(vector: Vector) -> None:
    baseline, live, psi, floor, js, hellinger, ks = vector
    k, c = _row(baseline), _row(live)
    rows = np.array([float(sum(live))]), np.array([float(sum(baseline))]), np.array([len(live)])
    assert _psi(k, c) == pytest.approx(psi, rel=1e-9)
    assert drift.psi_noise_floor(*rows) == pytest.approx(floor, rel=1e-9)
    assert drift.js_distance(k, c) == pytest.approx(js, rel=1e-9)
    assert drift.hellinger_distance(k, c) == pytest.approx(hellinger, rel=1e-9)
    assert drift.ks_distance(k, c) == pytest.approx(ks, rel=1e-9)


def test_reference_vector_wasserstein() -> None:
    k, c = _row([100, 150, 250, 250, 150, 100]), _row([60, 110, 220, 270, 200, 140])
    k_means = np.array([[-1.6, -0.72, -0.24, 0.25, 0.73, 1.7]])
    c_means = np.array([[-1.5, -0.7, -0.22, 0.26, 0.75, 1.9]])
    assert drift.wasserstein_distance(k, k_means, c, c_means) == pytest.approx(0.2568, rel=1e-9)
    assert drift.ks_distance(k, c) == pytest.approx(0.11, rel=1e-9)


@pytest.mark.parametrize("bins", [2, 13, 53])
def test_equal_to_scipy(bins: int) -> None:
    baseline, live = _tables(bins)
    psi, js = _psi(baseline, live), drift.js_distance(baseline, live)
    hellinger, ks = drift.hellinger_distance(baseline, live), drift.ks_distance(baseline, live)
    for i, (k, c) in enumerate(zip(baseline, live, strict=True)):
        q, p = (k + 0.5) / (k.sum() + 0.5 * bins), (c + 0.5) / (c.sum() + 0.5 * bins)
        assert psi[i] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=1e-9, abs=1e-15)
        # scipy normalises, and its distance has the natural logarithm unless told
        assert js[i] == pytest.approx(jensenshannon(k, c), rel=1e-9, abs=1e-15)
        affinity = math.fsum(math.sqrt(a * b) for a, b in zip(k / k.sum(), c / c.sum(), strict=True))
        assert hellinger[i] ** 2 == pytest.approx(1 - affinity, rel=1e-9, abs=1e-15)
        expanded = [np.repeat(np.arange(bins), counts) for counts in (k, c)]
        assert ks[i] == pytest.approx(stats.ks_2samp(*expanded, method="asymp").statistic, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("bins", [1, 2, 7, 27])
def test_wasserstein_equal_to_scipy(bins: int) -> None:
    baseline, live = _tables(bins)
    random = np.random.default_rng(1)
    # bin i holds values in (i, i + 1]; a third of the means of live data coincide with the baseline's
    k_means, c_means = (np.arange(bins) + 1 - random.random((40, bins)) for _ in range(2))
    c_means = np.where(random.random((40, bins)) < 0.3, k_means, c_means)
    k_means, c_means = np.where(baseline > 0, k_means, np.nan), np.where(live > 0, c_means, np.nan)
    ours = drift.wasserstein_distance(baseline, k_means, live, c_means)
    for i in range(len(ours)):
        k, c = baseline[i] > 0, live[i] > 0
        theirs = stats.wasserstein_distance(k_means[i][k], c_means[i][c], baseline[i][k], live[i][c])
        assert ours[i] == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_noise_floor_equal_to_scipy() -> None:
    n, m, bins = np.array([200.0, 1e6, 5.0, 9.0]), np.array([1e4, 1e4, 1e9, 9.0]), np.array([10, 53, 2, 1000])
    expected = (1 / n + 1 / m) * stats.chi2.isf(0.001, bins - 1)
    assert drift.psi_noise_floor(n, m, bins) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("baseline_rows", "bins", "rows"),
    [(10_000, 10, 470), (10_000, 20, 681), (10_000, 2, 246), (100, 10, math.inf)],
)
def test_psi_min_rows(baseline_rows: int, bins: int, rows: float) -> None:
    # 470 and 681 are those of the study; 246 is 23.93 / (0.1 - 23.93 / 10000), with the 1e-6 point of one degree
    least = float(drift.psi_min_rows(np.array([float(baseline_rows)]), np.array([bins]))[0])
    assert (math.ceil(least) if math.isfinite(least) else least) == rows


def _wasserstein(k: Counts, c: Counts) -> Floats:
    means = np.where(np.arange(k.shape[1]) < 5, np.arange(k.shape[1]) + 0.5, np.nan)
    return drift.wasserstein_distance(k, np.where(k > 0, means, np.nan), c, np.where(c > 0, means + 0.25, np.nan))


DISTANCES: dict[str, Callable[[Counts, Counts], Floats]] = {
    "js": drift.js_distance,
    "hellinger": drift.hellinger_distance,
    "ks": drift.ks_distance,
    "wasserstein": _wasserstein,
}


@pytest.mark.parametrize("name", DISTANCES)
def test_padding_changes_nothing(name: str) -> None:
    baseline, live = _tables(5)
    padded = [np.pad(counts, ((0, 0), (0, 4))) for counts in (baseline, live)]
    np.testing.assert_allclose(DISTANCES[name](padded[0], padded[1]), DISTANCES[name](baseline, live), rtol=1e-12)


def test_padding_changes_no_psi() -> None:
    baseline, live = _tables(5)
    padded = [np.pad(counts, ((0, 0), (0, 4))) for counts in (baseline, live)]
    valid = np.arange(9) < 5
    np.testing.assert_allclose(
        drift.psi(padded[0], padded[1], np.tile(valid, (40, 1))), _psi(baseline, live), rtol=1e-12
    )
    np.testing.assert_allclose(
        drift.smoothed_shares(padded[0], np.tile(valid, (40, 1))),
        np.pad((baseline + 0.5) / (baseline.sum(axis=1, keepdims=True) + 2.5), ((0, 0), (0, 4))),
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", [*DISTANCES, "psi"])
def test_columns_without_rows_are_nan_and_harm_no_other(name: str) -> None:
    # warnings are errors in these tests
    distance = {**DISTANCES, "psi": _psi}[name]
    full, empty = [3, 4, 5, 0, 0], [0] * 5
    baseline, live = np.array([full, full, empty, empty]), np.array([full, empty, full, empty])
    result = distance(baseline, live)
    assert np.isnan(result).tolist() == [False, True, True, True]
    assert result[0] == pytest.approx(0.25 if name == "wasserstein" else 0.0, abs=1e-15)
    none = np.zeros((0, 5), dtype=np.int64)
    assert distance(none, none).shape == (0,)


def test_noise_floor_without_rows_or_with_one_bin_is_nan() -> None:
    floor = drift.psi_noise_floor(np.array([0.0, 9.0, 9.0, 9.0]), np.array([9.0, 0, 9, 9]), np.array([3, 3, 1, 3]))
    assert np.isnan(floor).tolist() == [True, True, True, False]


def test_no_overflow_at_large_counts() -> None:
    huge = np.array([[2**62, 2**60]])
    assert drift.js_distance(huge, huge) == 0
    assert drift.shares(huge)[0].tolist() == [0.8, 0.2]
