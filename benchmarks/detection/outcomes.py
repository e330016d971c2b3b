"""The alarm on concept drift on simulated outcomes of a binary model, beside two rules of the field."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy import special

from benchmarks.detection.report import Report, delay, number
from benchmarks.detection.streams import FLEET, TICK_ROWS, TICKS_A_DAY, Generator, generator
from mlexporter.concept import ConceptAlarm
from mlexporter.config import DetectionConfig
from mlexporter.detector import TICK_SECONDS
from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts

RULES = ("mlexporter, warn", "mlexporter, page", "accuracy of 1,000 < baseline - 2 sd", "DDM")
_SCORE_BINS = 50
_SPREAD = 1.5
"""Standard deviation of the log-odds that the model gives to rows."""
_WINDOW = 1_000
_PERIOD = 50
"""Ticks in which inputs move there and back."""

Draw = Callable[[Generator, float, int, int], tuple[Floats, Ints]]


@dataclass(frozen=True)
class Size:
    """Reference rows, base rates without drift and with it, streams, ticks without drift, and most ticks with it."""

    rows: tuple[int, ...] = (10_000, 50_000)
    rates: tuple[float, ...] = (0.5, 0.1, 0.02)
    drifting: tuple[float, ...] = (0.5, 0.1)
    streams: int = 10
    ticks: int = 150
    most: int = 100


@dataclass(frozen=True)
class Change:
    """What the truth makes of the log-odds that the model gives, and how the log-odds of rows move with the ticks.

    The model is calibrated before, so that its log-odds are the true ones.
    """

    name: str
    truth: Callable[[Floats, float], Floats] = lambda said, middle: said
    inputs: Callable[[int], float] = lambda tick: 0.0
    prior: float = 0.0

    def draw(self, rng: Generator, middle: float, rows: int, tick: int) -> tuple[Floats, Ints]:
        """(n,) scores and outcomes."""
        said = rng.normal(middle + self.inputs(tick), _SPREAD, rows)
        if self.prior:  # rows as before, given the class, but the classes in other shares
            many = rng.normal(middle, _SPREAD, 20 * rows)
            positive = rng.random(len(many)) < special.expit(many)
            rate = special.expit(special.logit(positive.mean()) + self.prior)
            truth = rng.random(rows) < rate
            said = np.where(truth, rng.choice(many[positive], rows), rng.choice(many[~positive], rows))
        else:
            truth = rng.random(rows) < special.expit(self.truth(said, middle))
        return special.expit(said), truth.astype(np.int64)


def _one_tenth(said: Floats, middle: float) -> Floats:
    """Rows in the seventh tenth have the rate of positives + 0.2."""
    tenth = np.floor(10 * special.ndtr((said - middle) / _SPREAD))
    return np.where(tenth == 6, special.logit(np.minimum(special.expit(said) + 0.2, 0.99)), said)


STILL = (
    Change("as in the reference"),
    Change("inputs swing by 1 sd", inputs=lambda tick: _SPREAD * math.sin(2 * math.pi * tick / _PERIOD)),
    Change("inputs move by 1 sd", inputs=lambda tick: _SPREAD),
)
DRIFT = (
    Change("log-odds + 0.5", lambda said, middle: said + 0.5),
    Change("log-odds + 0.25", lambda said, middle: said + 0.25),
    Change("rate of one tenth + 0.2", _one_tenth),
    Change("log-odds half as far apart", lambda said, middle: middle + 0.5 * (said - middle)),
    Change("log-odds of the classes + 1", prior=1.0),
)


def reference(scores: Floats, truth: Ints) -> OutcomeBinner:
    """The binner with what was counted of training."""
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(tuple(_edges(scores).tolist()),))
    counts = OutcomeBinner(profile).count(scores.tolist(), truth.tolist())
    bins, sums = tuple(counts.bins.tolist()), tuple(counts.sums.tolist())
    return OutcomeBinner(msgspec.structs.replace(profile, rows=counts.rows, bins=bins, sums=sums))


def _edges(scores: Floats) -> Floats:
    inner = np.quantile(scores, np.arange(1, _SCORE_BINS) / _SCORE_BINS)
    return np.concatenate([[-1e-9], inner, [1.0]])


class Watch:
    """One stream of outcomes, and the rules that look at it with each tick."""

    def __init__(self, rng: Generator, rate: float, rows: int) -> None:
        self._rng = rng
        # the mean of the log-odds for which so many rows are positive
        self.middle = float(special.logit(rate) * np.sqrt(1 + np.pi * _SPREAD**2 / 8))
        scores, truth = Change("").draw(rng, self.middle, rows, 0)
        binner = reference(scores, truth)
        alarm = ConceptAlarm.of(binner, DetectionConfig())
        assert alarm is not None
        self._alarm, self._binner, self._seen = alarm, binner, binner.zero()
        self._edges = _edges(scores)
        self.state = alarm.start(self._seen)
        accuracy = float(((scores >= 0.5) == truth).mean())
        self._least = accuracy - 2 * math.sqrt(accuracy * (1 - accuracy) / _WINDOW)
        self._right = np.zeros(0)
        self._ddm = Ddm()

    def tick(self, change: Change, tick: int) -> tuple[bool, ...]:
        """Which rules fire after a tick."""
        scores, truth = change.draw(self._rng, self.middle, TICK_ROWS, tick)
        counts = self._binner.zero()
        index = self._edges.searchsorted(scores) - 1
        np.add.at(self._binner.scores(counts.bins, 0), (index, truth), 1)
        self._seen += OutcomeCounts(counts.bins, counts.sums, TICK_ROWS, 0)
        self.state = self._alarm.advance(self.state, self._seen, tick * TICK_SECONDS, FLEET)
        right = (scores >= 0.5) == truth
        self._right = np.append(self._right, right)[-_WINDOW:]
        low = len(self._right) == _WINDOW and self._right.mean() < self._least
        warn, page = self.state.firing.tolist()
        return warn, page, low, self._ddm.count(~right)


class Ddm:
    """Gama, Medas, Castillo, Rodrigues, "Learning with drift detection", SBIA 2004; as published: 3 sd, 30 samples."""

    def __init__(self) -> None:
        self._n, self._wrong = 0, 0
        self._least = (math.inf, math.inf)

    def count(self, wrong: Floats) -> bool:
        """Whether it found drift within these outcomes; it begins anew thereafter."""
        found = False
        for value in wrong.tolist():
            self._n, self._wrong = self._n + 1, self._wrong + value
            p = self._wrong / self._n
            s = math.sqrt(p * (1 - p) / self._n)
            if self._n < 30:
                continue
            if p + s < sum(self._least):
                self._least = (p, s)
            if p + s > self._least[0] + 3 * self._least[1]:
                found = True
                self._n, self._wrong, self._least = 0, 0, (math.inf, math.inf)
        return found


def quiet(rng: Generator, rate: float, rows: int, change: Change, size: Size) -> tuple[Floats, Floats]:
    """(4,) times a day that a rule began to fire without drift; (2,) greatest log evidence of the tiers."""
    onsets, most = np.zeros(len(RULES)), np.full(2, -np.inf)
    for _ in range(size.streams):
        watch, before = Watch(rng, rate, rows), np.zeros(len(RULES), np.bool_)
        for tick in range(size.ticks):
            firing = np.array(watch.tick(change, tick))
            onsets, before = onsets + (firing & ~before), firing
            most = np.maximum(most, watch.state.log_evidence)
    return onsets / (size.streams * size.ticks) * TICKS_A_DAY, most


def delays(rng: Generator, rate: float, rows: int, change: Change, size: Size) -> Floats:
    """(4, streams) outcomes until a rule fires, from the start of the drift; infinite where it does not."""
    found = np.full((len(RULES), size.streams), np.inf)
    for stream in range(size.streams):
        watch = Watch(rng, rate, rows)
        for tick in range(20):
            watch.tick(STILL[0], tick)
        for tick in range(1, size.most + 1):
            firing = np.array(watch.tick(change, tick))
            found[firing & np.isinf(found[:, stream]), stream] = tick * TICK_ROWS
            if np.isfinite(found[:, stream]).all():
                break
    return found


def run(report: Report, seed: int, size: Size) -> None:
    report.heading(
        "Concept drift",
        f"Outcomes of a binary model that is calibrated, its log-odds normal with a standard deviation of {_SPREAD}, "
        f"{TICK_ROWS} a tick, each stream with a reference of its own. The threshold is that of 100 columns.",
        f"Without concept drift: times a day that a rule began to fire ({size.streams} streams of {size.ticks} ticks).",
    )
    rows = []
    for m in size.rows:
        false = 0.0
        for rate in size.rates:
            for change in STILL:
                rng = generator(seed, "outcomes", change.name, str(m), str(rate))
                onsets, most = quiet(rng, rate, m, change, size)
                evidence = " / ".join(number(value) for value in most)
                rows.append((f"{m:,}", str(rate), change.name, *(number(value) for value in onsets), evidence))
                false += float(onsets[:2].sum())
        report.at_most(f"false alarms of concept drift, reference of {m:,}, all rates and inputs", 0, false, "a day")
    report.table(("reference", "rate", "inputs", *RULES, "greatest log evidence, warn / page"), rows)
    report.heading(
        "Concept drift: delays",
        f"Median outcomes until a rule fires, and share of {size.streams} streams within {size.most * TICK_ROWS:,}.",
    )
    rows = []
    for m in size.rows:
        for rate in size.drifting:
            for change in DRIFT:
                rng = generator(seed, "outcomes", change.name, str(m), str(rate))
                found = delays(rng, rate, m, change, size)
                rows.append((f"{m:,}", str(rate), change.name, *(delay(own) for own in found)))
    report.table(("reference", "rate", "drift", *RULES), rows)
