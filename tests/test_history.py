"""What the days and hours of a stream tell: a season where there is one, and by how far days differ."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from conftest import baseline, categorical, numeric
from mlexporter.alarm_bins import AlarmBins
from mlexporter.baseline import Column, Days, Variation
from mlexporter.binning import Binner
from mlexporter.edges import Floats
from mlexporter.history import HOURS, MAX_DAYS, History, HistoryError, unusual
from mlexporter.timezones import date_of

FIRST_DAY = 20_000  # 2024-10-04
DECILES = stats.norm.ppf(np.arange(1, 10) / 10)
PLAN = categorical("plan", {"a": 1})


def normals(columns: int) -> tuple[AlarmBins, tuple[Column, ...]]:
    """Numeric columns cut at the deciles of a standard normal."""
    edges = (-5.0, *DECILES.tolist(), 5.0)
    binner = Binner(baseline(*(numeric(f"x{i:02}", edges, [0.0]) for i in range(columns))))
    return AlarmBins(binner), binner.columns


def shares_of(mean: Floats) -> Floats:
    """(..., 13) shares of normals with these means in the bins of `normals`."""
    cuts = np.array([-math.inf, -5.0, *DECILES, 5.0, math.inf])
    inner = np.diff(stats.norm.cdf(cuts - mean[..., None]), axis=-1)
    return np.concatenate([inner, np.zeros((*mean.shape, 1))], axis=-1)


def history_of(bins: AlarmBins, counts: NDArray[np.float64], timezone: str = "UTC") -> History:
    """The history of (days, 24, T) counts."""
    history = History(bins.layout, timezone)
    for day, hours in enumerate(counts):
        for hour, own in enumerate(hours):
            history.add(FIRST_DAY + day, hour, own)
    return history


def found_seasons(means: Floats, rows: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which of (days, 24, C) means of as many columns are found to have a season, from so many rows an hour."""
    bins, columns = normals(means.shape[2])
    p = shares_of(means)
    drawn = random.multinomial(rows, p / p.sum(axis=-1, keepdims=True)).astype(float)
    history = history_of(bins, drawn.reshape(*means.shape[:2], -1))
    learned = history.learn(bins, columns, [None] * len(columns))
    assert all(column.days is not None for column in learned)
    return np.array([column.season is not None for column in learned])


WAVE = np.sin(np.arange(HOURS) / HOURS * 2 * np.pi)[None, :, None]


@pytest.mark.parametrize(("days", "rows", "height"), [(7, 500, 0.25), (14, 100, 0.3), (60, 40, 0.15), (28, 400, 0.1)])
def test_a_wave_is_a_season(days: int, rows: int, height: float) -> None:
    random = np.random.default_rng(days)
    means = np.broadcast_to(height * WAVE, (days, HOURS, 50))
    assert found_seasons(means, rows, random).all()


@pytest.mark.parametrize(("days", "rows"), [(7, 10), (7, 500), (14, 100), (28, 40), (60, 400)])
def test_noise_is_no_season(days: int, rows: int) -> None:
    random = np.random.default_rng(days + rows)
    assert found_seasons(np.zeros((days, HOURS, 300)), rows, random).sum() <= 1


@pytest.mark.parametrize(("days", "rows", "offset"), [(8, 100, 0.5), (30, 100, 0.3), (56, 40, 1.0)])
def test_days_that_differ_are_no_season(days: int, rows: int, offset: float) -> None:
    random = np.random.default_rng(days)
    means = np.broadcast_to(random.normal(0, offset, (days, 1, 200)), (days, HOURS, 200))
    assert found_seasons(means, rows, random).sum() <= 1


def test_an_incident_is_no_season() -> None:
    """Five hours of one day, far off: what one half of the days knows of and the other one does not."""
    means = np.zeros((30, HOURS, 100))
    means[11, 9:14] = 3.0
    assert not found_seasons(means, 100, np.random.default_rng(1)).any()


def test_a_wave_too_small_to_matter_is_no_season() -> None:
    means = np.broadcast_to(0.03 * WAVE, (60, HOURS, 20))
    assert not found_seasons(means, 4000, np.random.default_rng(2)).any()


def test_a_season_among_columns_that_have_none() -> None:
    means = np.zeros((21, HOURS, 5))
    means[:, :, [1, 3]] = 0.4 * WAVE
    assert found_seasons(means, 200, np.random.default_rng(3)).tolist() == [False, True, False, True, False]


def test_a_season_of_categories() -> None:
    random = np.random.default_rng(4)
    binner = Binner(baseline(categorical("plan", {"a": 1, "b": 1}), categorical("still", {"a": 1, "b": 1})))
    bins = AlarmBins(binner)
    counts = np.zeros((14, HOURS, 10))
    for hour in range(HOURS):
        counts[:, hour, :2] = random.multinomial(300, [0.8, 0.2] if 8 <= hour < 18 else [0.6, 0.4], 14)
        counts[:, hour, 5:7] = random.multinomial(300, [0.7, 0.3], 14)
    learned = history_of(bins, counts).learn(bins, binner.columns, [None, None])
    assert [column.season is not None for column in learned] == [True, False]


def test_whether_there_is_a_season_may_be_said() -> None:
    bins, columns = normals(3)
    random = np.random.default_rng(5)
    means = np.broadcast_to(np.array([0.0, 0.4, 0.4]) * WAVE, (9, HOURS, 3))
    counts = random.multinomial(200, shares_of(means)).astype(float).reshape(9, HOURS, -1)
    learned = history_of(bins, counts).learn(bins, columns, [True, False, None])
    assert [column.season is not None for column in learned] == [True, False, True]


def test_profiles_are_the_counts_of_the_hours() -> None:
    bins, columns = normals(2)
    random = np.random.default_rng(6)
    counts = random.integers(0, 40, (10, HOURS, 26)).astype(float)
    counts[:, 4] = 0  # nobody is awake
    learned = history_of(bins, counts, "Asia/Kathmandu").learn(bins, columns, [True, True])
    for i, column in enumerate(learned):
        assert column.season is not None
        assert column.season.timezone == "Asia/Kathmandu"
        own = counts[:, :, 13 * i : 13 * i + 13]
        assert [list(hour) for hour in column.season.hours] == own.sum(axis=0).tolist()
        assert column.season.hours[4] == (0,) * 13


# -- days --------------------------------------------------------------------------------------------------------------


def kl(q: Sequence[float], p: Sequence[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(q, p, strict=True))


def smooth(counts: Floats) -> list[float]:
    return [(k + 0.5) / (counts.sum() + 0.5 * len(counts)) for k in counts.tolist()]


def learned_days(counts: NDArray[np.float64], want: bool) -> Days:
    """What the history of one column says of its days."""
    bins, columns = normals(1)
    (column,) = history_of(bins, counts).learn(bins, columns, [want])
    assert (column.season is not None) == want
    assert column.days is not None
    return column.days


def expected_divergences(counts: NDArray[np.float64], *, season: bool) -> list[float]:
    """By hand: KL of what is expected of a day from the day, less (B - 1) / 2n."""
    flat = smooth(counts.sum(axis=(0, 1)))
    hours = counts.sum(axis=0)
    profiles = [smooth(hour) if season and hour.sum() >= 200 else flat for hour in hours]
    found = []
    for day in counts:
        n = day.sum()
        mix = [sum(day[h].sum() * profiles[h][i] for h in range(HOURS)) / n for i in range(13)]
        found.append(kl(mix, smooth(day.sum(axis=0))) - 12 / (2 * n))
    return found


@pytest.mark.parametrize("season", [False, True])
@pytest.mark.parametrize(("days", "largest"), [(7, 1), (8, 1), (20, 1), (21, 1), (22, 2), (40, 2), (41, 2), (42, 3)])
def test_typical_and_usual_divergence_of_days(days: int, largest: int, season: bool) -> None:
    """The 95 % quantile is one of the days, and never the largest: `largest` of them are beyond it."""
    random = np.random.default_rng(days)
    means = 0.5 * WAVE[:, :, 0] + random.normal(0, 0.2, (days, 1))
    counts = random.multinomial(30, shares_of(means)).astype(float)
    counts[:, 2] = 0
    counts[:, 3] //= 6  # an hour with too few rows for a profile
    assert counts[:, 3].sum() < 200
    found = learned_days(counts, season)
    expected = sorted(expected_divergences(counts, season=season))
    assert found.count == days
    assert found.divergence.usual == pytest.approx(expected[-1 - largest], rel=1e-9)
    assert found.divergence.typical == pytest.approx(max(float(np.median(expected)), 0.0), rel=1e-9)
    assert found.divergence.usual < expected[-1]


def test_days_of_a_season_are_held_against_their_own_hours() -> None:
    """A day with rows in the morning only is no odd day where the season tells what mornings are like."""
    random = np.random.default_rng(8)
    counts = random.multinomial(200, shares_of(np.broadcast_to(WAVE[:, :, 0], (20, HOURS)))).astype(float)
    counts[5, 12:] = 0
    assert [date for date, _ in learned_days(counts, want=False).beyond] == ["2024-10-09"]
    assert learned_days(counts, want=True).beyond == ()


def test_incidents_are_listed_and_are_not_what_is_usual() -> None:
    random = np.random.default_rng(9)
    means = np.zeros((30, HOURS))
    means[17] = 1.5
    counts = random.multinomial(100, shares_of(means)).astype(float)
    found = learned_days(counts, want=False)
    expected = expected_divergences(counts, season=False)
    # two of 30 are beyond the 95 % quantile: the incident, and one that is hardly off
    second = int(np.argsort(expected)[-2])
    beyond = {date_of(FIRST_DAY + day): expected[day] for day in (17, second)}
    assert dict(found.beyond) == pytest.approx(beyond, abs=1e-6)
    assert [date for date, _ in found.beyond] == sorted(beyond)
    assert ("2024-10-21", expected[17] > 0.5) == (date_of(FIRST_DAY + 17), True)
    assert found.divergence.usual < expected[second] < 0.01


def test_days_that_are_hardly_off_are_not_listed() -> None:
    """Not by less than the warn tier accepts by default, nor by less than the history can resolve."""
    random = np.random.default_rng(10)
    many = random.multinomial(20_000, shares_of(np.zeros((10, HOURS)))).astype(float)
    assert learned_days(many, want=False).beyond == ()
    few = random.multinomial(10, shares_of(np.zeros((8, HOURS)))).astype(float)
    divergences = expected_divergences(few, season=False)
    assert max(divergences) > 0.001
    assert max(divergences) < 32.909 / (2 * few.sum())
    assert learned_days(few, want=False).beyond == ()


def test_rates_of_days() -> None:
    """Missing and out of range, over what is expected."""
    counts = np.zeros((10, HOURS, 13))
    counts[:, :, 1:11] = 10
    counts[:9, :, 12] = np.arange(9)[:, None]  # from 0 to 8 of 100 to 108
    counts[9, :, 0] = counts[9, :, 11] = 50
    found = learned_days(counts, want=False)
    flat = smooth(counts.sum(axis=(0, 1)))
    missing = sorted(day[:, 12].sum() / day.sum() - flat[12] for day in counts)
    assert found.missing.usual == pytest.approx(missing[-2], rel=1e-9)
    assert found.missing.typical == pytest.approx(float(np.median(missing)), rel=1e-9)
    # but for one day nothing is out of range, which is less than is expected of a day
    assert found.strange == Variation(typical=0.0, usual=0.0)


def test_unusual_days() -> None:
    # an exponential tail: from one in 2 to one in 20, and four times as far to one in 20,000; half as much more with
    # 30 days, and nothing more with a million
    assert unusual(Variation(typical=0.01, usual=0.05), 30) == pytest.approx(0.25)
    assert unusual(Variation(typical=0.02, usual=0.02), 7) == 0.02
    tail = stats.expon(scale=7.0)
    variation = Variation(typical=tail.ppf(0.5), usual=tail.ppf(0.95))
    assert unusual(variation, 10**6) == pytest.approx(tail.ppf(1 - 1 / 20000), rel=1e-4)


# -- too little, and too much ------------------------------------------------------------------------------------------


def test_fewer_than_7_days_with_enough_rows_tell_nothing() -> None:
    bins, columns = normals(2)
    history = History(bins.layout, "UTC")
    counts = np.concatenate([[0, *[1] * 10, 0, 0]] * 2).astype(float)
    for day in range(6):
        for hour in range(20):
            history.add(FIRST_DAY + day, hour, counts)
    for hour in range(19):
        history.add(FIRST_DAY + 8, hour, counts)
    assert history.days == 6
    for column in history.learn(bins, columns, [True, None]):
        assert (column.season, column.days) == (None, None)
    history.add(FIRST_DAY + 8, 23, counts)
    assert history.days == 7
    learned = history.learn(bins, columns, [True, None])
    assert [column.season is not None for column in learned] == [True, False]
    assert [column.days.count for column in learned if column.days is not None] == [7, 7]


def test_what_was_learned_before_is_forgotten() -> None:
    bins, columns = normals(1)
    old = history_of(bins, np.full((7, HOURS, 13), 5.0)).learn(bins, columns, [True])
    assert old[0].season is not None
    (again,) = History(bins.layout, "UTC").learn(bins, old, [True])
    assert (again.season, again.days) == (None, None)
    (flat,) = history_of(bins, np.full((7, HOURS, 13), 5.0)).learn(bins, old, [False])
    assert flat.season is None
    assert flat.days is not None


def test_a_history_is_bounded() -> None:
    bins, _ = normals(1)
    history = History(bins.layout, "UTC")
    for day in range(MAX_DAYS):
        history.add(day, 0, np.ones(13))
    history.add(7, 1, np.ones(13))
    with pytest.raises(HistoryError, match="more than 3660 days; no history is as long: is the time of all rows right"):
        history.add(MAX_DAYS, 0, np.ones(13))
