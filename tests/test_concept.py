"""The alarm on concept drift on simulated outcomes, and its parts against the detector alone."""

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from scipy import special

from mlexporter import detector
from mlexporter.concept import LEAST_REFERENCE, ConceptAlarm, ConceptState
from mlexporter.config import DetectionConfig
from mlexporter.detector import CAP, CLEAR
from mlexporter.dictionary import Layout, make_bets, smoothed
from mlexporter.edges import Floats
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts

Generator = np.random.Generator
# one column, and one false alarm in 30 days
THRESHOLD = 12.06
WARN, PAGE = 0, 1
DETECTION = DetectionConfig()


def filled(profile: OutcomeProfile, predictions: list[object], labels: list[object]) -> OutcomeBinner:
    counts = OutcomeBinner(profile).count(predictions, labels)
    bins, sums = tuple(counts.bins.tolist()), tuple(counts.sums.tolist())
    return OutcomeBinner(msgspec.structs.replace(profile, rows=counts.rows, bins=bins, sums=sums))


def rows_of(
    rng: Generator, rows: int, said: float = 0.0, more: Callable[[Floats], Floats] | None = None
) -> list[Floats]:
    """Scores of a calibrated model and outcomes; `more` makes the truth's log-odds of the model's."""
    log_odds = rng.normal(said, 1.5, rows)
    truth = special.expit(log_odds if more is None else more(log_odds))
    return [special.expit(log_odds), (rng.random(rows) < truth).astype(float)]


class Stream:
    """Outcomes of a binary model with a reference of its own, and the alarm on them."""

    def __init__(self, rng: Generator, reference: int = 10_000, threshold: float = THRESHOLD) -> None:
        scores, truth = rows_of(rng, reference)
        edges = (-1e-9, *np.quantile(scores, np.linspace(0, 1, 41)[1:-1]).tolist(), 1.0)
        profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(edges,))
        self.rng, self.threshold, self.now = rng, threshold, 0.0
        self.binner = filled(profile, scores.tolist(), truth.tolist())
        alarm, counts = ConceptAlarm.of(self.binner, DETECTION), self.binner.reference
        assert alarm is not None
        assert counts is not None
        self.alarm, self.seen = alarm, self.binner.zero()
        self.reference = alarm.strata.counts(counts.bins)
        self.state = alarm.start(self.seen)

    def tick(self, rows: int = 200, said: float = 0.0, more: Callable[[Floats], Floats] | None = None) -> ConceptState:
        scores, truth = rows_of(self.rng, rows, said, more)
        self.now += 15.0
        self.seen += self.binner.count(scores.tolist(), truth.tolist())
        self.state = self.alarm.advance(self.state, self.seen, self.now, self.threshold)
        return self.state

    def until(self, tier: int, ticks: int, more: Callable[[Floats], Floats]) -> int:
        """Outcomes until a tier alarms."""
        for tick in range(1, ticks + 1):
            if self.tick(more=more).firing[tier]:
                return 200 * tick
        raise AssertionError(self.state.log_evidence)


# -- no concept drift --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [lambda tick: 0.0, lambda tick: 1.5 * math.sin(tick / 8), lambda tick: 2.0, lambda tick: -2.0],
    ids=["as in the reference", "swinging", "higher", "lower"],
)
def test_inputs_alone_do_not_alarm(said: Callable[[int], float]) -> None:
    most = -np.inf
    for seed in range(4):
        stream = Stream(np.random.default_rng(seed))
        for tick in range(150):
            most = max(most, float(stream.tick(said=said(tick)).log_evidence.max()))
    assert most < THRESHOLD - 5


def test_mean_time_to_a_false_alarm() -> None:
    """At least A, on the surface of what is accepted, where the bets have their mean of 1."""
    rng = np.random.default_rng(2)
    patience, most, times = 100, 400, []
    for _ in range(12):
        stream = Stream(rng, 4000, math.log(patience))
        alarm = stream.alarm
        q = alarm.expected
        shares = stream.reference.sum(axis=1) / stream.reference.sum()
        tilt = 0.0
        p = q
        while True:  # log-odds up everywhere, until a ball is full
            odds = q[:, 1] / q[:, 0] * math.exp(tilt)
            further = np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)
            of_strata = (q * np.log(q / further)).sum(axis=1)
            if (of_strata > alarm.stratum_tolerance[WARN]).any() or shares @ of_strata > alarm.tolerance[WARN]:
                break
            p, tilt = further, tilt + 0.005
        assert tilt > 0.05
        tick = 0
        while tick < most and not stream.state.firing[WARN]:
            n = rng.multinomial(200, shares)
            positive = rng.binomial(n, p[:, 1])
            _advanced(stream, np.stack([n - positive, positive], axis=1))
            tick += 1
        times.append(tick)
    assert np.mean(times) >= patience


def _advanced(stream: Stream, counts: Floats) -> ConceptState:
    """The state after a tick with (S, 2) outcomes, which go to the first bins of their strata."""
    profile = stream.binner.profile
    assert isinstance(profile, ClassProfile)
    names = [f"{max(edge, 0):.3g}" for edge in profile.score_edges[0]]
    zero = stream.binner.zero()
    firsts = [names.index(name.split("..")[0]) for name in stream.alarm.strata.names]
    stream.binner.scores(zero.bins, 0)[firsts] = counts
    stream.seen += OutcomeCounts(zero.bins, zero.sums, int(counts.sum()), 0)
    stream.now += 15.0
    stream.state = stream.alarm.advance(stream.state, stream.seen, stream.now, stream.threshold)
    return stream.state


# -- concept drift -----------------------------------------------------------------------------------------------------


def raised(by: float, low: float = 0.0, high: float = 1.0) -> Callable[[Floats], Floats]:
    """Rates of positives grow where the model says between two scores."""

    def more(log_odds: Floats) -> Floats:
        p = special.expit(log_odds)
        rate = np.where((p >= low) & (p < high), p + by, p)
        odds: Floats = special.logit(np.clip(rate, 0.001, 0.999))
        return odds

    return more


@pytest.mark.parametrize(
    ("tier", "more", "most"),
    [
        (WARN, raised(0.1), 2_000),
        (PAGE, raised(0.1), 12_000),
        (WARN, raised(0.3, 0.5, 0.62), 3_000),
        (WARN, lambda log_odds: 0.5 * log_odds, 3_000),
        (WARN, lambda log_odds: log_odds + 0.5, 4_000),
        (PAGE, lambda log_odds: -log_odds, 200),
    ],
    ids=["everywhere", "everywhere, page", "one stratum", "flatter", "log-odds", "upside down, page"],
)
def test_drift_is_found(tier: int, more: Callable[[Floats], Floats], most: int) -> None:
    found = []
    for seed in range(5):
        stream = Stream(np.random.default_rng(seed))
        for _ in range(10):
            stream.tick()
        assert not stream.state.firing.any()
        found.append(stream.until(tier, 2 * most // 200, more))
        assert stream.state.fired[tier] == stream.now
    assert np.median(found) <= most


def test_joint_bets_find_what_no_stratum_shows() -> None:
    stream = Stream(np.random.default_rng(3))
    stream.until(WARN, 50, lambda log_odds: log_odds + 0.45)
    assert stream.state.strata.log_evidence[WARN].max() < THRESHOLD - 3


def test_explanation() -> None:
    stream = Stream(np.random.default_rng(4))
    stream.until(WARN, 50, raised(0.3, 0.5, 0.62))
    stream.tick(2000, more=raised(0.3, 0.5, 0.62))
    table = stream.alarm.explain(stream.state, WARN)
    top = max(table, key=lambda row: row.log_evidence)
    low, high = map(float, top.said.split(".."))
    assert 0.4 < low < high < 0.75
    assert top.seen["1"] - top.expected["1"] > 0.15
    assert sum(row.rows for row in table) >= 2000
    for row in table:
        assert sum(row.expected.values()) == pytest.approx(1)
        assert sum(row.seen.values()) == pytest.approx(1)


def regression(rng: Generator, rows: int, bias: float = 0.0, spread: float = 1.0) -> tuple[list[float], list[float]]:
    predicted = rng.normal(size=rows) * 10
    return predicted.tolist(), (predicted - rng.normal(bias, spread, rows)).tolist()


@pytest.mark.parametrize(("bias", "spread", "found"), [(0.0, 1.0, False), (0.3, 1.0, True), (0.0, 1.3, True)])
def test_residuals(bias: float, spread: float, found: bool) -> None:
    rng = np.random.default_rng(5)
    edges = tuple(np.linspace(-2, 2, 17).tolist())
    profile = RegressionProfile(prediction_edges=tuple(np.linspace(-20, 20, 11).tolist()), residual_edges=edges)
    binner = filled(profile, *regression(rng, 20_000))  # type: ignore[arg-type]
    alarm = ConceptAlarm.of(binner, DETECTION)
    assert alarm is not None
    seen, state = binner.zero(), alarm.start(binner.zero())
    for tick in range(20):
        seen += binner.count(*regression(rng, 200, bias, spread))
        state = alarm.advance(state, seen, tick * 15.0, THRESHOLD)
    assert bool(state.firing[WARN]) is found


def test_classes_without_scores() -> None:
    rng = np.random.default_rng(6)
    profile = ClassProfile(task="multiclass", classes=("a", "b", "c"))

    def outcomes(rows: int, wrong: float) -> tuple[list[object], list[object]]:
        said = rng.integers(0, 3, rows)
        truth = np.where(rng.random(rows) < wrong, (said + 1) % 3, said)
        return ["abc"[i] for i in said], ["abc"[i] for i in truth]

    binner = filled(profile, *outcomes(10_000, 0.1))
    alarm = ConceptAlarm.of(binner, DETECTION)
    assert alarm is not None
    seen, state = binner.zero(), alarm.start(binner.zero())
    for tick in range(100):
        seen += binner.count(*outcomes(200, 0.1 if tick < 90 else 0.25))
        state = alarm.advance(state, seen, tick * 15.0, THRESHOLD)
        assert not state.firing.any() or tick >= 90
    assert state.firing.all()


# -- recursion ---------------------------------------------------------------------------------------------------------


def test_stratum_alone_is_a_column_of_the_detector() -> None:
    """It knows of no other stratum, and not of the blocks in which it has no outcomes."""
    stream = Stream(np.random.default_rng(7))
    stratum, size = 3, len(stream.reference)
    layout = Layout(np.array([0, 2]), 0)
    q = smoothed(layout, stream.reference[stratum])
    eps = stream.alarm.stratum_tolerance[:, stratum : stratum + 1]
    bets = make_bets(layout, q, eps, np.ones((1, 2, 2)))
    expected = detector.start(layout, 2)
    left_out = 0
    for tick in range(40):
        n = stream.rng.integers(0, 40, size)
        positive = stream.rng.binomial(n, stream.alarm.expected[:, 1])
        counts = np.stack([n - positive, positive], axis=1)
        counts[stratum] = [0, 0] if tick % 3 == 0 else [5 + tick % 5, tick % 4]
        left_out += not counts[stratum].any()
        stream.threshold = 200.0  # no cap
        state = _advanced(stream, counts)
        if counts[stratum].any():
            expected = detector.advance(layout, bets, expected, counts[stratum].astype(float), np.zeros((1, 2)), 240.0)
        assert state.strata.log_evidence[:, stratum] == pytest.approx(expected.log_evidence[:, 0], rel=1e-9)
        assert state.strata.dispersion.ratio[stratum] == pytest.approx(expected.dispersion.ratio[0], rel=1e-9)
    assert left_out > 10
    # half of the mean over the strata, and half of that over the joint bets
    joint = state.joint.sum(axis=1) / (state.joint > 0).sum(axis=1)
    total = (np.exp(state.strata.log_evidence).mean(axis=1) + joint) / 2
    assert state.log_evidence == pytest.approx(np.log(total), rel=1e-9)


def test_outcomes_wait_for_a_block() -> None:
    drops, whole = (Stream(np.random.default_rng(8)) for _ in range(2))
    scores, truth = rows_of(np.random.default_rng(9), 100)
    begin = drops.state
    for i in range(99):
        drops.seen += drops.binner.count(scores[i : i + 1].tolist(), truth[i : i + 1].tolist())
        assert drops.alarm.advance(begin, drops.seen, 0.0, THRESHOLD) is begin
    drops.seen += drops.binner.count(scores[-1:].tolist(), truth[-1:].tolist())
    last = drops.alarm.advance(begin, drops.seen, 0.0, THRESHOLD)
    assert last is not begin
    assert drops.alarm.advance(last, drops.seen, 15.0, THRESHOLD) is last  # nothing came
    seen = whole.binner.count(scores.tolist(), truth.tolist())
    at_once = whole.alarm.advance(whole.state, seen, 0.0, THRESHOLD)
    assert last.log_evidence.tolist() == at_once.log_evidence.tolist()


def test_outcomes_without_scores_are_no_evidence() -> None:
    stream = Stream(np.random.default_rng(10))
    stream.seen += stream.binner.count(["1"] * 500, [0] * 500)
    assert stream.alarm.advance(stream.state, stream.seen, 0.0, THRESHOLD) is stream.state


def test_a_flood_of_labels_is_held_under_the_cap_and_clears() -> None:
    stream = Stream(np.random.default_rng(11))
    for _ in range(3):
        state = stream.tick(100_000, more=lambda log_odds: -log_odds)
        assert state.log_evidence == pytest.approx([THRESHOLD + CAP] * 2)
        assert np.isfinite(state.joint).all()
        assert np.isfinite(state.strata.moves).all()
    fired = state.fired
    assert fired.tolist() == [15.0, 15.0]
    ticks = 0
    while stream.state.firing.any():
        stream.tick()
        ticks += 1
        on = stream.state.firing
        assert (stream.state.log_evidence >= THRESHOLD - CLEAR).tolist() == on.tolist()
        assert np.isnan(stream.state.fired).tolist() == (~on).tolist()
    assert ticks <= 20


def test_alarm_clears_however_long_the_drift_lasted() -> None:
    stream = Stream(np.random.default_rng(15))
    for _ in range(300):
        stream.tick(more=lambda log_odds: log_odds + 0.7)
    assert stream.state.firing.all()
    for _ in range(20):
        stream.tick()
    assert not stream.state.firing.any()


def test_one_stratum_reaches_the_cap() -> None:
    stream = Stream(np.random.default_rng(12))
    for _ in range(5):
        stream.tick(10_000, more=raised(0.45, 0.45, 0.55))
    assert stream.state.log_evidence[WARN] == pytest.approx(THRESHOLD + CAP)
    # of which the joint bets have a part: it alone has more than the average over the strata
    assert stream.state.strata.log_evidence[WARN].max() > THRESHOLD + CAP + math.log(5)


def test_clumps_do_not_alarm() -> None:
    """Each label comes four times; and in each tick all strata err in the same direction."""
    for seed in range(3):
        stream = Stream(np.random.default_rng(seed))
        for _ in range(150):
            scores, truth = rows_of(stream.rng, 50)
            stream.seen += stream.binner.count(np.tile(scores, 4).tolist(), np.tile(truth, 4).tolist())
            stream.state = stream.alarm.advance(stream.state, stream.seen, 0.0, THRESHOLD)
            assert not stream.state.firing.any()
        assert 2 < stream.state.dispersion.ratio[0] < 6


# -- tolerance ---------------------------------------------------------------------------------------------------------


def test_tolerance_is_what_the_tier_accepts_or_the_reference_resolves() -> None:
    small, large = (Stream(np.random.default_rng(13), rows) for rows in (10_000, 100_000))
    # chi-square at 0.9995 with 10 degrees of freedom is 31.42 (tables), over twice the rows
    assert small.state.tolerance == pytest.approx([31.42 / 20_000, 0.02], rel=1e-3)
    assert large.state.tolerance.tolist() == [0.001, 0.02]
    # with 1 degree, at 0.99995 as there are ten strata: 16.448
    assert small.alarm.stratum_tolerance[WARN] == pytest.approx(16.448 / (2 * small.reference.sum(axis=1)), rel=1e-3)
    assert [len(small.reference), len(large.reference)] == [10, 20]


@pytest.mark.parametrize("rows", [0, LEAST_REFERENCE - 1, LEAST_REFERENCE])
def test_reference_that_is_too_small(rows: int) -> None:
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=((-1e-9, 0.5, 1.0),))
    scores, truth = rows_of(np.random.default_rng(14), rows)
    binner = filled(profile, scores.tolist(), truth.tolist())
    assert (ConceptAlarm.of(binner, DETECTION) is not None) is (rows == LEAST_REFERENCE)


def test_reference_without_scores() -> None:
    """The classes of three thousand outcomes are known, but not the scores that the model sends now."""
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=((-1e-9, 0.5, 1.0),))
    assert ConceptAlarm.of(filled(profile, ["1"] * 3000, [1] * 3000), DETECTION) is None


@pytest.mark.parametrize("right", [True, False], ids=["always right", "always wrong"])
def test_reference_that_is_certain(right: bool) -> None:
    """Nothing else came in training; the same again is no evidence, and the contrary is."""
    profile = ClassProfile(task="multiclass", classes=("a", "b"))
    binner = filled(profile, ["a"] * 3000, ["a" if right else "b"] * 3000)
    alarm = ConceptAlarm.of(binner, DETECTION)
    assert alarm is not None
    seen, state = binner.zero(), alarm.start(binner.zero())
    for tick in range(12):
        seen += binner.count(["a"] * 150, ["a" if right == (tick < 10) else "b"] * 150)
        state = alarm.advance(state, seen, tick * 15.0, THRESHOLD)
        assert state.firing.tolist() == [tick >= 10] * 2


def test_residuals_that_are_all_alike_make_no_alarm() -> None:
    profile = RegressionProfile(prediction_edges=(1.0, 2.0), residual_edges=(0.0,))
    assert ConceptAlarm.of(filled(profile, [1.5] * 3000, [1.5] * 3000), DETECTION) is None
