"""What becomes of the evidence of a model version from tick to tick, and the bets that are kept at hand."""

import math
from datetime import datetime
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import baseline, categorical, numeric
from mlexporter import alarm as alarm_module
from mlexporter import detector
from mlexporter.alarm import NOTABLE, Alarm, AlarmState
from mlexporter.baseline import Baseline, NumericColumn, Season
from mlexporter.binning import Binner, Counts
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.detector import CAP, CLEAR
from mlexporter.dictionary import Bets, Layout, make_bets
from mlexporter.edges import Floats
from mlexporter.expectation import Expectations
from mlexporter.samples import Batch
from mlexporter.snapshot import alarm_of
from mlexporter.statistics import reference_of

EDGES = tuple(np.linspace(0, 1, 11).tolist())
PROFILE = baseline(
    numeric("x", EDGES, np.random.default_rng(0).uniform(0, 1, 10_000), coarse=(0, 2, 4, 6, 8, 10)),
    categorical("plan", {"a": 6000, "b": 4000}),
)
HIGH = 1e3
THRESHOLD = 12.0


class Stream:
    """The counts since the start of one version, that batches are added to."""

    def __init__(self, profile: Baseline) -> None:
        self.binner = Binner(profile)
        self.seen = self.binner.zero()

    def add(self, x: NDArray[np.float64], plan: list[str] | None = None) -> Counts:
        names = [column.name for column in self.binner.numeric]
        features: dict[str, list[object]] = dict.fromkeys(names, x.tolist())
        # six of ten, as in the baseline
        batch = Batch(len(x), {**features, "plan": list(plan or ["a", "b", "a", "b", "a"] * len(x))[: len(x)]})
        self.seen = self.seen + self.binner.count([batch])
        return self.seen


def made(profile: Baseline, settings: dict[str, ColumnConfig] | None = None) -> Alarm:
    binner = Binner(profile)
    return alarm_of(profile, binner, reference_of(binner), DetectionConfig(), settings or {})


def expected_at(profile: Baseline) -> Expectations:
    binner = Binner(profile)
    return Expectations(profile, binner, reference_of(binner).bins, DetectionConfig(), {})


def same_bets(one: Bets | None, other: Bets | None) -> None:
    assert one is not None
    assert other is not None
    for name in Bets.__struct_fields__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, err_msg=name)


# -- ticks -------------------------------------------------------------------------------------------------------------


def test_before_the_first_tick() -> None:
    alarm, stream = made(PROFILE), Stream(PROFILE)
    before = stream.add(np.full(500, 0.95))
    state = alarm.start(before, 0.0)
    assert state.seen is before
    assert state.bets is None
    assert (state.evidence.log_evidence == -np.inf).all()
    assert not state.firing.any()
    assert np.isnan(state.fired).all()
    assert np.isnan(state.since).all()
    assert not state.rise.bins.any()
    assert state.tolerance.shape == (2, 2)
    # what was counted before is not held against anything
    assert alarm.advance(state, before, 15.0, THRESHOLD) is state
    after = alarm.advance(state, stream.add(np.full(3, 0.5)), 30.0, THRESHOLD)
    assert after.evidence.dispersion.previous.sum() == 2 * 3


def test_a_tick_without_samples_changes_nothing() -> None:
    alarm, stream = made(PROFILE), Stream(PROFILE)
    state = alarm.start(stream.seen, 0.0)
    state = alarm.advance(state, stream.add(np.full(50, 0.95)), 15.0, THRESHOLD)
    for tick in range(1000):
        again = alarm.advance(state, stream.binner.zero() + stream.seen, 30.0 + 15 * tick, THRESHOLD)
        assert again is state


def test_a_tick_is_the_detector_s_with_the_bets_of_the_hour() -> None:
    """However late it comes: what was counted since the last one is one tick."""
    alarm, stream, expected = made(PROFILE), Stream(PROFILE), expected_at(PROFILE).at(())
    random = np.random.default_rng(1)
    layout = alarm.bins.layout
    bets = make_bets(layout, expected.shares, expected.tolerance, expected.rate_tolerance)
    state, evidence, now = alarm.start(stream.seen, 0.0), detector.start(layout, 2), 0.0
    for gap, parts in [(15, 1), (15, 3), (600, 7), (15, 1)]:
        now += gap
        before = stream.seen
        for _ in range(parts):
            stream.add(random.uniform(-0.1, 1.1, 20))
        counts = alarm.bins.counts(stream.seen.bins - before.bins)
        evidence = detector.advance(layout, bets, evidence, counts, alarm.bins.rates(counts), THRESHOLD + CAP)
        state = alarm.advance(state, stream.seen, now, THRESHOLD)
        np.testing.assert_array_equal(state.evidence.log_evidence, evidence.log_evidence)
        np.testing.assert_array_equal(state.evidence.dispersion.ratio, evidence.dispersion.ratio)
        assert state.seen is stream.seen
        same_bets(state.bets, bets)
        assert state.tolerance.tolist() == expected.tolerance.tolist()


def test_each_column_speaks_for_itself() -> None:
    alarm, stream = made(PROFILE), Stream(PROFILE)
    random = np.random.default_rng(2)
    state = alarm.start(stream.seen, 0.0)
    for tick in range(1, 30):
        plan = random.choice(["a", "b"], 50, p=[0.1, 0.9]).tolist()
        state = alarm.advance(state, stream.add(random.uniform(0, 1, 50), plan), 15.0 * tick, THRESHOLD)
    assert state.firing.tolist() == [[False, True], [False, True]]
    assert state.evidence.log_evidence[:, 1] == pytest.approx([THRESHOLD + CAP] * 2)


# -- on and off --------------------------------------------------------------------------------------------------------


def test_an_alarm_goes_on_at_the_threshold_and_off_well_under_it() -> None:
    """Whatever the level is: the threshold is put beside it."""
    alarm, stream = made(PROFILE), Stream(PROFILE)
    state = alarm.start(stream.seen, 0.0)
    state = alarm.advance(state, stream.add(np.full(60, 0.95), ["a"] * 60), 15.0, HIGH)
    found: list[tuple[bool, float]] = []
    for tick, under in enumerate([0.01, -0.01, 1.0, CLEAR - 0.01, CLEAR + 0.01, 0.01, CLEAR - 0.01, 0.0, 0.5], start=2):
        seen = stream.add(np.array([0.95]), ["a"])
        level = float(alarm.advance(state, seen, 0.0, HIGH).evidence.log_evidence[1, 0])
        state = alarm.advance(state, seen, 15.0 * tick, level + under)
        assert state.evidence.log_evidence[1, 0] == level
        found.append((bool(state.firing[1, 0]), float(state.fired[1, 0])))
    assert found == [
        (False, pytest.approx(math.nan, nan_ok=True)),
        (True, 45.0),
        (True, 45.0),
        (True, 45.0),
        (False, pytest.approx(math.nan, nan_ok=True)),
        (False, pytest.approx(math.nan, nan_ok=True)),
        (False, pytest.approx(math.nan, nan_ok=True)),
        (True, 135.0),
        (True, 135.0),
    ]


def test_evidence_is_capped_by_the_threshold_and_clears() -> None:
    alarm, stream = made(PROFILE), Stream(PROFILE)
    random = np.random.default_rng(3)
    state, now = alarm.start(stream.seen, 0.0), 0.0

    def tick(low: float) -> AlarmState:
        return alarm.advance(state, stream.add(random.uniform(low, 1, 100)), now, THRESHOLD)

    for _ in range(300):
        now += 15
        state = tick(0.5)
        assert (state.evidence.log_evidence <= THRESHOLD + CAP + 1e-9).all()
    assert state.firing[:, 0].all()
    for _ in range(20):
        now += 15
        state = tick(0.0)
    assert not state.firing.any()
    assert np.isnan(state.fired).all()


# -- what the evidence is made of --------------------------------------------------------------------------------------


def drifting(ticks: int, drifts: list[range], seed: int = 4) -> list[tuple[AlarmState, Counts]]:
    """The state before each tick, and the counts since the start after it; from time 0, each 15 seconds."""
    alarm, stream, random = made(PROFILE), Stream(PROFILE), np.random.default_rng(seed)
    state = alarm.start(stream.seen, 0.0)
    found = []
    for tick in range(1, ticks + 1):
        low = 0.3 if any(tick in drift for drift in drifts) else 0.0
        before = state
        seen = stream.add(random.uniform(low, 1, 41), random.choice(["a", "b"], 41, p=[0.6, 0.4]).tolist())
        state = alarm.advance(state, seen, 15.0 * tick, THRESHOLD)
        found.append((before, seen))
    return [*found, (state, stream.seen)]


def test_the_rise_is_made_of_the_samples_since_the_evidence_was_notable() -> None:
    """Tick by tick, for both tiers and columns; the older half of more than 1,000 samples counts half."""
    expected = expected_at(PROFILE).at(())
    spans, alarm_spans = [slice(0, 13), slice(13, 18)], [slice(0, 8), slice(8, 13)]
    found = drifting(120, [range(10, 14), range(60, 121)])
    seen = Stream(PROFILE).seen
    # per tier and column: rows, bins and sums
    kept: dict[tuple[int, int], tuple[float, Floats, Floats]] = {
        (tier, column): (0.0, np.zeros(1), np.zeros(1)) for tier in range(2) for column in range(2)
    }
    rising: list[int] = []
    for (before, now), (after, _) in pairwise(found):
        bins, sums, seen = now.bins - seen.bins, now.sums - seen.sums, now
        rising.append(int((before.evidence.log_evidence > NOTABLE).sum()))
        for (tier, column), (rows, own_bins, own_sums) in kept.items():
            factor = 0.0 if before.evidence.log_evidence[tier, column] <= NOTABLE else 0.5 if rows > 1000 else 1.0
            own = (factor * rows + 41, factor * own_bins + bins[spans[column]], factor * own_sums + sums)
            kept[tier, column] = own
            assert after.rise.bins[tier, spans[column]] == pytest.approx(own[1])
            share = expected.shares[alarm_spans[column]]
            assert after.rise.expected[tier, alarm_spans[column]] == pytest.approx(share * own[0], rel=1e-9)
            if column == 0:
                assert after.rise.sums[tier] == pytest.approx(own[2], rel=1e-9)
    assert rising[9] == 0
    assert rising[-1] >= 2
    assert max(rows for rows, _, _ in kept.values()) > 700


def test_since_when_a_drift_has_lasted() -> None:
    found = drifting(120, [range(61, 81)])
    states = [state for state, _ in found]
    on = [i for i, state in enumerate(states) if state.firing[0, 0]]
    # it goes on once, after the 61st tick, and off once, after the 80th
    assert on == list(range(on[0], on[-1] + 1))
    assert 61 < on[0] < 72
    assert 80 < on[-1] < 120
    assert len({float(states[i].since[0, 0]) for i in on}) == 1
    assert {float(states[i].fired[0, 0]) for i in on} == {15.0 * on[0]}
    # the 61st tick begins at 900 s; chance may have favoured the bet a little earlier
    assert states[on[0]].since[0, 0] == pytest.approx(900, abs=45)
    for state in (*states[: on[0]], *states[on[-1] + 1 :]):
        assert math.isnan(state.since[0, 0])
    assert np.isnan([state.since[:, 1] for state in states]).all()


def test_since_is_told_by_the_bet_that_wins_most() -> None:
    """A third of the values is missing from the 41st tick on, which a bet on the rate knows from no tick before."""
    alarm, stream, random = made(PROFILE), Stream(PROFILE), np.random.default_rng(6)
    state = alarm.start(stream.seen, 1e9)
    for tick in range(1, 60):
        x = random.uniform(0, 1, 40)
        if tick > 40:
            x[:12] = np.nan
        state = alarm.advance(state, stream.add(x), 1e9 + 15 * tick, THRESHOLD)
        assert state.firing[:, 0].any() <= (tick > 40)
    assert state.firing[:, 0].all()
    assert (state.since[:, 0] - 1e9).tolist() == [600, 600]


# -- hours -------------------------------------------------------------------------------------------------------------


def clock_column(name: str, timezone: str = "UTC") -> NumericColumn:
    """A column that lies in another place at each hour."""
    hours = []
    for hour in range(24):
        weights = 1 + 9 * (np.arange(10) == hour % 10)
        hours.append((0, *(40 * weights).tolist(), 0, 5))
    column = numeric(name, EDGES, np.random.default_rng(5).uniform(0, 1, 10_000))
    return msgspec.structs.replace(column, season=Season(timezone=timezone, hours=tuple(hours)))


def daily(seasonal: int, timezone: str = "UTC") -> Baseline:
    return baseline(
        *(clock_column(f"c{i:03}", timezone) for i in range(seasonal)),
        numeric("still", EDGES, np.random.default_rng(6).uniform(0, 1, 5000)),
        categorical("plan", {"a": 6000, "b": 4000}),
    )


MIDNIGHT = 1_700_006_400.0  # 2023-11-15


def ticked(alarm: Alarm, profile: Baseline, now: float) -> AlarmState:
    """The state after one tick at a time, on its own."""
    stream = Stream(profile)
    return alarm.advance(alarm.start(stream.seen, now), stream.add(np.linspace(0, 1, 20)), now, THRESHOLD)


@pytest.mark.parametrize(
    ("seconds", "hour"), [(8, 0), (3600, 0), (3607, 0), (3608, 1), (3615, 1), (86_400, 23), (86_408, 0)]
)
def test_a_tick_belongs_to_the_hour_in_which_its_middle_lies(seconds: float, hour: int) -> None:
    profile = daily(1)
    expected = expected_at(profile).at((hour,))
    state = ticked(made(profile), profile, MIDNIGHT + seconds)
    layout = made(profile).bins.layout
    bets = make_bets(layout, expected.shares, expected.tolerance, expected.rate_tolerance)
    # however many alternatives are within reach at this hour, as many are counted as there can be at all: of 13 bins
    # two times five, and five to each of four tilts; of a rate six
    bets.alternatives[:, 0], bets.rate_alternatives[0] = 150, 6
    same_bets(state.bets, bets)
    assert state.tolerance.tolist() == expected.tolerance.tolist()
    n = layout.spread(np.full(3, 20.0))
    np.testing.assert_allclose(state.rise.expected, np.stack([expected.shares * n] * 2))


def test_hours_are_local() -> None:
    """On the day of the change to summer time there is no hour from two to three."""
    profile = daily(1, "Europe/Berlin")
    for text, hour in [("2026-03-29T00:30:00+00:00", 1), ("2026-03-29T01:30:00+00:00", 3)]:
        state = ticked(made(profile), profile, datetime.fromisoformat(text).timestamp())
        expected = expected_at(profile).at((hour,))
        assert state.rise.expected[0] == pytest.approx(expected.shares * 20, rel=1e-9)


def test_a_stream_that_follows_its_season_raises_no_alarm() -> None:
    """And one that lies where another hour would have it does."""
    profile, random = daily(1), np.random.default_rng(7)
    alarm = made(profile)
    for late, fires in ((0, False), (5, True)):
        stream = Stream(profile)
        state, now = alarm.start(stream.seen, MIDNIGHT), MIDNIGHT
        peak: Floats = np.full((2, 3), -np.inf)
        for tick in range(24 * 12):
            now = MIDNIGHT + 300 * tick + 60
            weights = 1 + 9 * (np.arange(10) == (tick // 12 + late) % 10)
            x = (random.choice(10, 50, p=weights / weights.sum()) + random.random(50)) / 10
            missing = random.random(50) < 5 / 765
            state = alarm.advance(state, stream.add(np.where(missing, np.nan, x)), now, THRESHOLD)
            alarm.prepare(now)
            peak = np.maximum(peak, state.evidence.log_evidence)
        assert bool((peak[:, 0] >= THRESHOLD).all()) == fires
        assert bool(peak[0, 0] >= THRESHOLD) == fires


@pytest.fixture
def makings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of columns of each set of bets that is made."""
    found: list[int] = []

    def counting(layout: Layout, q: Floats, tolerance: Floats, rate_tolerance: Floats) -> Bets:
        found.append(len(layout.sizes))
        return make_bets(layout, q, tolerance, rate_tolerance)

    monkeypatch.setattr(alarm_module, "make_bets", counting)
    return found


def test_bets_of_the_next_hour_are_made_ahead_a_few_columns_a_tick(makings: list[int]) -> None:
    profile = daily(10)
    alarm = made(profile)
    ticked(alarm, profile, MIDNIGHT + 20)
    assert makings == [12]
    for tick in range(6):
        alarm.prepare(MIDNIGHT + 20 + 15 * tick)
    assert makings == [12, 4, 4, 2]
    ahead = ticked(alarm, profile, MIDNIGHT + 3620)
    assert makings == [12, 4, 4, 2]
    at_once = ticked(made(profile), profile, MIDNIGHT + 3620)
    same_bets(ahead.bets, at_once.bets)
    np.testing.assert_allclose(ahead.evidence.log_evidence, at_once.evidence.log_evidence, rtol=1e-9)
    # and what is left when the hour comes is made then: all ten, for nothing of the third hour was prepared
    del makings[:]
    late = ticked(alarm, profile, MIDNIGHT + 7220)
    assert makings == [10]
    same_bets(late.bets, ticked(made(profile), profile, MIDNIGHT + 7220).bets)
    alarm.prepare(MIDNIGHT + 7220)
    part = ticked(alarm, profile, MIDNIGHT + 10_820)
    same_bets(part.bets, ticked(made(profile), profile, MIDNIGHT + 10_820).bets)


def test_the_hours_of_a_small_model_are_made_once(makings: list[int]) -> None:
    profile = daily(1)
    alarm = made(profile)
    for hour in range(48):
        for tick in range(3):
            ticked(alarm, profile, MIDNIGHT + 3600 * hour + 20 + 15 * tick)
            alarm.prepare(MIDNIGHT + 3600 * hour + 20 + 15 * tick)
    assert makings == [3] + [1] * 23
    assert len(alarm._kept) == 24


def test_memory_of_bets_is_bounded(makings: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    profile = daily(6)
    alarm = made(profile)
    ticked(alarm, profile, MIDNIGHT + 20)
    (one,) = alarm._kept.values()
    assert one.bytes == sum(getattr(one.bets, name).nbytes for name in Bets.__struct_fields__)
    # room for five hours, and for less than two, which are always kept
    for room, most in ((5.5, 5), (0.5, 2)):
        monkeypatch.setattr(alarm_module, "_KEPT_BYTES", int(room * one.bytes))
        del makings[:]
        for hour in range(30):
            for tick in range(3):
                now = MIDNIGHT + 3600 * hour + 20 + 15 * tick
                state = ticked(alarm, profile, now)
                alarm.prepare(now)
                assert len(alarm._kept) <= most
            same_bets(state.bets, ticked(made(profile), profile, now).bets)
        # nobody has to wait: what is kept are the present hour and the next one, made ahead four columns a tick
        assert [size for size in makings if size != 8].count(6) <= 1


def test_a_model_without_seasons_has_one_set_of_bets(makings: list[int]) -> None:
    alarm = made(PROFILE)
    for hour in range(30):
        ticked(alarm, PROFILE, MIDNIGHT + 3600 * hour)
        alarm.prepare(MIDNIGHT + 3600 * hour)
    assert makings == [2]
    assert len(alarm._kept) == 1
