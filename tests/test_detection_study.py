"""The drift alarm on simulated streams: a short version of `python -m benchmarks.detection`, with its goals.

What is expected here is what the alarm is meant to do, not what it happened to do.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

sys.path.append(str(Path(__file__).parents[1]))  # `pytest` alone, unlike `python -m pytest`, does not

from benchmarks.detection import clearing, clusters, comparison, days, patience, peers, seasons
from benchmarks.detection.calendar_streams import DAY, Volume
from benchmarks.detection.report import delay, median
from benchmarks.detection.streams import CATEGORY_SHARES, PAGE, TICK_ROWS, WARN, Watch, normal_baseline

ROWS = 10_000
STREAMS = 15


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def streams(rng: np.random.Generator) -> comparison.Streams:
    return comparison.Streams.of(rng, rng.normal(size=(STREAMS, ROWS)))


@pytest.mark.parametrize("rows", [1_000, 10_000, 100_000])
def test_no_drift_no_alarm(rows: int) -> None:
    rng = generator()

    found = comparison.quiet(rng, rng.normal(size=(20, rows)), 300, peers=False)

    assert found.onsets.tolist() == [0] * len(comparison.ALL)


@pytest.mark.parametrize(
    ("tier", "name"),
    [
        (WARN, "1 sd"),
        (WARN, "0.5 sd"),
        (WARN, "0.25 sd"),
        (WARN, "variance x 1.5"),
        (WARN, "2 % missing"),
        (WARN, "10 % missing"),
        (WARN, "category + 20 points"),
        (PAGE, "0.5 sd"),
        (PAGE, "1 sd"),
    ],
)
def test_drift_is_found_soon(tier: int, name: str) -> None:
    rng = generator()
    (change,) = [change for change in (*comparison.CHANGES, *comparison.MORE_CHANGES) if change.name == name]

    samples = streams(rng).delays(rng, change, lead=50, peers=False)

    assert median(samples[tier]) <= comparison.MOST_SAMPLES[tier, name]


def test_a_shift_too_small_to_matter_does_not_alarm_however_long_it_lasts() -> None:
    rng = generator()
    (change,) = [change for change in comparison.CHANGES if change.name == "0.02 sd"]

    samples = streams(rng).delays(rng, change, lead=0, peers=False)

    assert change.ticks * TICK_ROWS == 200_000
    assert np.isinf(samples[[WARN, PAGE]]).all()


@pytest.mark.parametrize("effect", [1.5, 4.0])
def test_clustered_traffic_is_told_from_drift(effect: float) -> None:
    size = clusters.Size(streams=STREAMS, ticks=500)

    found = clusters.watched(generator(), size, effect, divide=True)

    assert found.dispersion.mean() == pytest.approx(effect, rel=0.15)
    assert found.onsets.tolist() == [0, 0]  # once the dispersion is known
    assert found.early[PAGE] == 0


def test_clustered_traffic_would_alarm_everywhere_without_the_division() -> None:
    size = clusters.Size(streams=STREAMS, ticks=300)

    found = clusters.watched(generator(), size, 8.0, divide=False)

    assert found.streams[WARN] == STREAMS


@pytest.mark.parametrize("rows", [1_000, 10_000, 100_000])
def test_an_alarm_ends_soon_after_its_drift(rows: int) -> None:
    size = clearing.Size(streams=5, ticks=300, after=50)

    ends = clearing.clearing(generator(), rows, size)

    assert np.isfinite(ends.ticks[:, size.shifts.index(1.0)]).all()  # it was on in all of them, and went off
    assert np.nanmax(ends.ticks) <= clearing.MOST_TICKS


def test_a_learned_season_is_silent_and_drift_on_top_of_it_is_found() -> None:
    size = seasons.Size(Volume(days=14, seconds=120.0), streams=3, days=1)

    found = seasons.season(generator(), size)

    assert found.seasonal == size.streams
    assert not found.onsets[:, 0].any()
    assert found.delays[:, 0].max() <= DAY
    assert found.onsets[PAGE, 1].all()  # the wave pages where the history had no times


def test_ordinary_days_do_not_page_and_an_incident_does() -> None:
    size = days.Size(Volume(days=30, rows=50, seconds=240.0), streams=4, days=7)

    found = days.days(generator(), size)

    assert not found.onsets[:, PAGE, 0].any()
    assert found.delays[PAGE, 0].max() <= 3600


@pytest.mark.parametrize("tier", [WARN, PAGE])
@pytest.mark.parametrize("name", ["surface, mean shifted", "surface, to and fro every 500 ticks"])
def test_the_mean_time_to_a_false_alarm_within_the_tolerance_is_what_was_asked_for(tier: int, name: str) -> None:
    rng = generator()
    size = patience.Size(streams=STREAMS, ticks=1_000, patience=(100,))
    baseline = normal_baseline(rng.normal(size=(size.streams, size.rows)))
    walk = patience.walks(rng, patience.Ball(Watch(baseline), tier))[name]

    (first,) = patience.first_ticks(rng, Watch(baseline, log_threshold=np.log(100)), tier, walk, size)

    mean, _ = patience.mean_ticks(first, size.ticks)
    assert mean >= 100


# -- the peers' rules are what the libraries compute ------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 100])
def test_peers_for_numbers(missing: int) -> None:
    rng = generator()
    baseline = rng.normal(size=(1, 1_500))
    live = rng.normal(0.1, 1.2, size=(1, 1_000))
    live[:, :missing] = np.nan
    rules = peers.NumericPeers(baseline)
    window, there = np.sort(live, axis=1), live[:, missing:]
    ranks = np.sort(np.searchsorted(np.sort(baseline[0]), live), axis=1)
    rows = np.array([there.shape[1]])

    expected = stats.ks_2samp(there[0], baseline[0], method="asymp")
    (ks,) = rules.kolmogorov_smirnov(ranks, rows)
    assert ks == pytest.approx(expected.statistic, rel=1e-9)
    for level in (0.9, 0.05, 1e-6):
        assert (ks > peers.critical_distance(int(rows[0]), 1_500, level)) == (expected.pvalue < level)
    (wasserstein,) = rules.wasserstein(window, ranks, rows)
    assert wasserstein == pytest.approx(stats.wasserstein_distance(there[0], baseline[0]), rel=1e-9)


def test_peers_for_categories() -> None:
    rng = generator()
    baseline, live = rng.multinomial(2_000, CATEGORY_SHARES, size=1), rng.multinomial(1_000, CATEGORY_SHARES, size=1)

    (p,) = peers.CategoricalPeers(baseline).chi_square_p(live.astype(float))
    assert p == pytest.approx(stats.chi2_contingency(np.concatenate([live, baseline])).pvalue, rel=1e-9)
    (js,) = peers.jensen_shannon(live.astype(float), baseline.astype(float))
    assert js == pytest.approx(distance.jensenshannon(live[0], baseline[0]), rel=1e-9)


def test_peers_see_large_drift_with_a_full_window() -> None:
    rng = generator()
    rules = peers.NumericPeers(rng.normal(size=(2, 1_000)))

    fires = [rules.tick(rng.normal(2.0, 1.0, size=(2, 200))) for _ in range(peers.WINDOW_TICKS)]

    assert not any(fired.any() for fired in fires[:-1])
    assert fires[-1].all()


def test_delays_are_shown_with_what_was_not_found() -> None:
    assert delay(np.array([200.0, 400.0, np.inf])) == "400 (67%)"
    assert delay(np.array([200.0, np.inf, np.inf])) == "- (33%)"
    assert delay(np.array([np.nan])) == "n/a"
