"""Mean ticks until a false alarm while the stream stays within the tolerance: at least A is promised."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from benchmarks.detection.report import Report, number
from benchmarks.detection.streams import (
    PAGE,
    TICK_ROWS,
    WARN,
    Generator,
    Watch,
    generator,
    normal_baseline,
)
from mlexporter.binning import alarm_starts
from mlexporter.dictionary import normal_scores, smoothed
from mlexporter.edges import Floats, Ints

_PERIOD = 1_000
"""Ticks in which a stream wanders through the ball and back."""


@dataclass(frozen=True)
class Size:
    """Baseline rows (enough for the tolerance of the warn tier to be its least), streams, ticks, and A."""

    rows: int = 20_000
    streams: int = 100
    ticks: int = 6_000
    patience: tuple[int, ...] = (100, 1_000)


class Ball:
    """All the distributions that a tier accepts: (C, 13) shares of each column.

    Attributes:
        centre: what the baseline expects.

    """

    def __init__(self, watch: Watch, tier: int) -> None:
        layout = watch.alarm.bins.layout
        counts = watch.alarm.bins.counts(watch.monitor.reference.bins)
        self.centre = smoothed(layout, counts).reshape(watch.state.tolerance.shape[1], -1)
        self._tolerance = watch.state.tolerance[tier]

    def edge(self, scores: Floats) -> Floats:
        """The points of the ball's surface on the paths q exp(t s), t > 0."""
        q = self.centre
        scores = scores - (q * scores).sum(axis=1, keepdims=True)
        t = [
            optimize.brentq(lambda t, q=own, s=s, e=tolerance: np.log((q * np.exp(t * s)).sum()) - e, 0.0, 5.0)
            for own, s, tolerance in zip(q, scores, self._tolerance, strict=True)
        ]
        p: Floats = q * np.exp(np.array(t)[:, None] * scores)
        p /= p.sum(axis=1, keepdims=True)
        return p

    def mean_scores(self) -> Floats:
        """Along these the mean moves."""
        values = self.centre.copy()
        values[:, -1] = 0.0  # missing
        return normal_scores(values)[0]


Walk = Callable[[int], Floats]


def walks(rng: Generator, ball: Ball) -> dict[str, Walk]:
    """Ways to stay in the ball: (C, 13) shares at each tick."""
    up, down = ball.edge(ball.mean_scores()), ball.edge(-ball.mean_scores())
    anywhere = ball.edge(rng.normal(size=up.shape))

    def wave(tick: int) -> Floats:
        height = math.sin(2 * math.pi * tick / _PERIOD)
        return ball.centre + abs(height) * ((up if height > 0 else down) - ball.centre)

    return {
        "centre": lambda _: ball.centre,
        "surface, mean shifted": lambda _: up,
        "surface, to and fro every 500 ticks": lambda tick: up if tick % _PERIOD < _PERIOD // 2 else down,
        "sine within the ball": wave,
        "surface, random direction": lambda _: anywhere,
    }


def first_ticks(rng: Generator, watch: Watch, tier: int, walk: Walk, size: Size) -> Floats:
    """(patience, C) ticks until the evidence reaches ln A, infinite where it does not."""
    starts = _fine_bins(watch)
    levels = np.log(size.patience)[:, None]
    first = np.full((len(levels), size.streams), np.inf)
    fine = np.zeros(len(watch.state.seen.bins), dtype=np.int64)
    for tick in range(size.ticks):
        fine[starts] = rng.multinomial(TICK_ROWS, walk(tick)).ravel()
        watch.count(fine)
        reached = watch.state.evidence.log_evidence[tier] >= levels
        first[reached & np.isinf(first)] = tick + 1
    return first


def _fine_bins(watch: Watch) -> Ints:
    """A fine bin of each bin of the alarm."""
    binner = watch.monitor.binner
    return np.array(
        [
            int(offset) + start
            for offset, column in zip(binner.offsets, binner.columns, strict=False)
            for start in alarm_starts(column)
        ]
    )


def run(report: Report, seed: int, size: Size) -> None:
    report.heading(
        "Patience",
        f"One column, an alarm at ln A. Streams that stay within the tolerance around what the baseline ({size.rows:,} "
        "rows) says: at its centre, on its surface, where a false alarm is likeliest, and wandering. Mean ticks until "
        f"the first alarm: all ticks before it over the alarms, of {size.streams} streams of {size.ticks:,} ticks.",
    )
    rng = generator(seed, "patience")
    baseline = normal_baseline(rng.normal(size=(size.streams, size.rows)))
    log_threshold = float(np.log(max(size.patience)))
    rows = []
    for tier, tier_name in ((WARN, "warn"), (PAGE, "page")):
        least = np.full(len(size.patience), np.inf)
        for name, walk in walks(rng, Ball(Watch(baseline), tier)).items():
            first = first_ticks(rng, Watch(baseline, log_threshold=log_threshold), tier, walk, size)
            means = [mean_ticks(own, size.ticks) for own in first]
            least = np.minimum(least, [mean for mean, _ in means])
            rows.append((tier_name, name, *(_shown(mean, alarms) for mean, alarms in means)))
        for patience, mean in zip(size.patience, least.tolist(), strict=True):
            what = f"{tier_name}: mean ticks to a false alarm within the tolerance, A = {patience:,}, worst stream"
            report.goal(what, f">= {patience:,}", number(mean), met=mean >= patience)
    report.table(("tier", "stream", *(f"A = {patience:,}" for patience in size.patience)), rows)


def _shown(mean: float, alarms: int) -> str:
    return f"{number(mean)} ({alarms} alarm{'s' * (alarms > 1)})" if alarms else f"over {number(mean)} (no alarm)"


def mean_ticks(first: Floats, ticks: int) -> tuple[float, int]:
    """Ticks simulated, over alarms, or over one where there was none; and the alarms."""
    alarms = int(np.isfinite(first).sum())
    return float(np.minimum(first, ticks).sum() / max(alarms, 1)), alarms
