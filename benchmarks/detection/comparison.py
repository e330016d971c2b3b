"""False alarms and delays of our two tiers and of other tools' rules, side by side on the same streams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.detection.peers import RULES, WINDOW_TICKS, CategoricalPeers, NumericPeers, Peers
from benchmarks.detection.report import Report, delay, median, number
from benchmarks.detection.streams import (
    CATEGORY_SHARES,
    PAGE,
    TICK_ROWS,
    TICKS_A_DAY,
    WARN,
    Generator,
    Watch,
    category_baseline,
    category_batch,
    generator,
    normal_baseline,
    number_batch,
)
from mlexporter.edges import Floats, Ints

OURS: Final = ("mlexporter, warn", "mlexporter, page")
ALL: Final = (*OURS, *RULES)
_RAMP_TICKS: Final = 500

Shape = tuple[int, int]
Draw = Callable[[Generator, Shape, int], Floats]


@dataclass(frozen=True)
class Change:
    """A drift.

    Attributes:
        name: of the drift.
        draw: values of the given shape, so many ticks after the change.
        ticks: after which a stream counts as not found.
        categorical: whether values are categories, by their numbers.

    """

    name: str
    draw: Draw
    ticks: int = 200
    categorical: bool = False


def moved(by: float) -> Draw:
    return lambda rng, shape, _: rng.normal(size=shape) + by


def missing(share: float) -> Draw:
    return lambda rng, shape, _: np.where(rng.random(shape) < share, np.nan, rng.normal(size=shape))


def outliers(share: float) -> Draw:
    return lambda rng, shape, _: np.where(rng.random(shape) < share, 8.0, rng.normal(size=shape))


def ramp(to: float) -> Draw:
    return lambda rng, shape, since: rng.normal(size=shape) + to * min(since / _RAMP_TICKS, 1.0)


def categories(gain: float) -> Draw:
    """The third of the categories gains, the first one loses."""
    shares = CATEGORY_SHARES.copy()
    shares[[0, 2]] += (-gain, gain)
    return lambda rng, shape, _: rng.choice(len(shares), size=shape, p=shares).astype(np.float64)


CHANGES: Final = (
    Change("0.02 sd", moved(0.02), ticks=1000),
    Change("0.1 sd", moved(0.1), ticks=1000),
    Change("0.25 sd", moved(0.25)),
    Change("0.5 sd", moved(0.5)),
    Change("1 sd", moved(1.0)),
    Change("variance x 1.5", lambda rng, shape, _: rng.normal(size=shape) * np.sqrt(1.5)),
    Change("2 % missing", missing(0.02)),
    Change("10 % missing", missing(0.1)),
    Change("category + 5 points", categories(0.05), categorical=True),
)
MORE_CHANGES: Final = (
    Change("0.35 sd", moved(0.35)),
    Change("0.5 % beyond the range", outliers(0.005)),
    Change("ramp to 0.5 sd in 500 ticks", ramp(0.5), ticks=_RAMP_TICKS),
    Change("category + 20 points", categories(0.2), categorical=True),
)
"""Of our tiers alone, for the goals."""


@dataclass(frozen=True)
class Size:
    """How much is simulated: baseline rows, columns and ticks without drift, streams of each drift, ticks before it."""

    rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    columns: int = 100
    ticks: int = 1_800
    streams: int = 100
    lead: int = 100
    changes: tuple[Change, ...] = CHANGES

    @property
    def feature_days(self) -> float:
        return self.columns * self.ticks / TICKS_A_DAY


@dataclass(frozen=True)
class Quiet:
    """Without drift: (8,) onsets of alarms, of (8,) rules; and the greatest evidence of the (2,) tiers."""

    onsets: Ints
    evidence: Floats


def quiet(rng: Generator, values: Floats, ticks: int, *, peers: bool = True) -> Quiet:
    """The alarms of streams without drift, held against (C, m) baseline values."""
    watch = Watch(normal_baseline(values))
    others = NumericPeers(values) if peers else None
    shape = (len(values), TICK_ROWS)
    before = np.zeros((len(ALL), len(values)), dtype=np.bool_)
    onsets = np.zeros(len(ALL), dtype=np.int64)
    evidence = np.full(2, -np.inf)
    for _ in range(ticks):
        live = rng.normal(size=shape)
        firing = before & False
        firing[: len(OURS)] = watch.observe(number_batch(live))
        if others:
            firing[len(OURS) :] = others.tick(live)
        onsets += (firing & ~before).sum(axis=1)
        before = firing
        evidence = np.maximum(evidence, watch.state.evidence.log_evidence.max(axis=1))
    return Quiet(onsets, evidence)


@dataclass(frozen=True)
class Streams:
    """Streams with baselines of their own, to be drifted again and again: (C, m) values; (C, 8) category counts."""

    values: Floats
    counts: Ints

    @staticmethod
    def of(rng: Generator, values: Floats) -> "Streams":
        return Streams(values, rng.multinomial(values.shape[1], CATEGORY_SHARES, size=len(values)))

    def delays(self, rng: Generator, change: Change, lead: int, *, peers: bool = True) -> Floats:
        """(8, C) samples from the change to the first tick at which each rule fires, infinite where it never does.

        A rule that fires at the change already, by a false alarm, counts as having found it with the first tick.
        """
        watch = Watch(category_baseline(self.counts) if change.categorical else normal_baseline(self.values))
        batch = category_batch if change.categorical else number_batch
        calm = categories(0.0) if change.categorical else moved(0.0)
        others: Peers | None = None
        if peers:
            others = CategoricalPeers(self.counts) if change.categorical else NumericPeers(self.values)
        found = np.full((len(ALL), len(self.values)), np.inf)
        for since in range(-lead, change.ticks):
            live = (calm if since < 0 else change.draw)(rng, (len(self.values), TICK_ROWS), since)
            firing = np.zeros(found.shape, dtype=np.bool_)
            firing[: len(OURS)] = watch.observe(batch(live))[:, -len(self.values) :]  # numbers come first
            if others and since > -WINDOW_TICKS:
                firing[len(OURS) :] = others.tick(live)
            if since >= 0:
                found[firing & np.isinf(found)] = (since + 1) * TICK_ROWS
            if np.isfinite(found if others else found[: len(OURS)]).all():
                break
        if change.categorical:
            found[ALL.index("Wasserstein > 0.1 sd")] = np.nan
        return found


def run(report: Report, seed: int, size: Size) -> None:
    report.heading(
        "False alarms and delays",
        f"Columns of normal values, each held against a baseline of its own, {TICK_ROWS} samples a tick. Peers look at "
        f"the last {WINDOW_TICKS * TICK_ROWS:,} samples with each tick, and so do our tiers at all samples since the "
        "start. False alarms: times that a rule began to fire without drift, per column and day. Drifts: median number "
        f"of samples until it fires, and the share of {size.streams} streams on which it did; - is more than half not "
        f"found within {_limits(size.changes)}.",
    )
    for rows in size.rows:
        rng = generator(seed, "comparison", str(rows))
        values = rng.normal(size=(size.columns, rows))
        none = quiet(rng, values, size.ticks)
        streams = Streams.of(rng, values[: size.streams])
        delays = {change.name: streams.delays(rng, change, size.lead) for change in size.changes}
        _show(report, rows, size, none, delays)
        if rows == 10_000:
            for change in MORE_CHANGES:
                delays[change.name] = streams.delays(rng, change, size.lead, peers=False)
        _goals(report, rows, size, none, delays)


def _limits(changes: Sequence[Change]) -> str:
    few = {change.ticks * TICK_ROWS for change in changes}
    long = ", ".join(change.name for change in changes if change.ticks * TICK_ROWS == max(few))
    return f"{number(min(few))} samples" + (f" ({number(max(few))} of {long})" if len(few) > 1 else "")


def _show(report: Report, rows: int, size: Size, none: Quiet, delays: dict[str, Floats]) -> None:
    print(
        f"\n**Baseline of {rows:,} rows.** Without drift: {size.columns} columns, {size.ticks:,} ticks, "
        f"{size.feature_days:.1f} column-days; greatest log evidence {none.evidence[WARN]:.1f} (warn) and "
        f"{none.evidence[PAGE]:.1f} (page), an alarm is at 16.7."
    )
    report.table(
        ("rule", "false alarms per column-day", *delays),
        [
            (
                rule,
                number(none.onsets[i] / size.feature_days),
                *(delay(found[i]) for found in delays.values()),
            )
            for i, rule in enumerate(ALL)
        ],
    )


def _goals(report: Report, rows: int, size: Size, none: Quiet, delays: dict[str, Floats]) -> None:
    base = f"baseline of {rows:,}"
    for tier, name in enumerate(OURS):
        onsets = int(none.onsets[tier])
        what = f"{name}: false alarms in {size.feature_days:.1f} column-days, {base}"
        report.goal(what, "0", str(onsets), met=onsets == 0)
    if "0.02 sd" in delays:
        for tier, name in enumerate(OURS):
            fired = int(np.isfinite(delays["0.02 sd"][tier]).sum())
            what = f"{name}: alarms in 200,000 samples of 0.02 sd, {base}"
            report.goal(what, "0", f"{fired} of {size.streams}", met=fired == 0)
    if rows == 10_000:
        for (tier, name), most in MOST_SAMPLES.items():
            if name in delays:
                report.at_most(f"{OURS[tier]}: {name}, {base}", most, median(delays[name][tier]), "samples")


MOST_SAMPLES: Final = {
    (WARN, "1 sd"): 200,
    (WARN, "0.5 sd"): 400,
    (WARN, "0.25 sd"): 1_600,
    (WARN, "0.1 sd"): 25_000,
    (WARN, "variance x 1.5"): 2_000,
    (WARN, "0.5 % beyond the range"): 5_000,
    (WARN, "2 % missing"): 800,
    (WARN, "10 % missing"): 200,
    (WARN, "ramp to 0.5 sd in 500 ticks"): 30_000,
    (WARN, "category + 5 points"): 5_000,
    (WARN, "category + 20 points"): 400,
    (PAGE, "0.35 sd"): 2_500,
    (PAGE, "0.5 sd"): 800,
    (PAGE, "1 sd"): 200,
}
"""The goals for the median delay, by tier and drift, with a baseline of 10,000 rows."""
