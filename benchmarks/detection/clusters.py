"""Traffic whose samples come in clusters: sessions, batches, retries; and what the division by the dispersion does."""

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.report import Report, number
from benchmarks.detection.streams import (
    PAGE,
    TICK_ROWS,
    TICKS_A_DAY,
    WARN,
    Generator,
    NormalBins,
    Watch,
    generator,
    normal_baseline,
)
from mlexporter.edges import Floats, Ints

EARLY_TICKS = 100
"""While the estimate of the dispersion is still held down by what it began with."""


@dataclass(frozen=True)
class Size:
    """Baseline rows, streams, ticks and design effects."""

    rows: int = 10_000
    streams: int = 40
    ticks: int = 2_000
    effects: tuple[float, ...] = (1.0, 1.5, 4.0, 8.0)


@dataclass(frozen=True)
class Clustered:
    """(2,) onsets of alarms in the first 100 ticks and (2,) after them, (2,) streams with one, per tier; and (C,)
    estimates of the dispersion.
    """

    early: Ints
    onsets: Ints
    streams: Ints
    dispersion: Floats


def clustered(rng: Generator, shares: Floats, effect: float, rows: int = TICK_ROWS) -> Ints:
    """(C, W) counts of so many samples, with a variance that is `effect` times that of independent ones.

    The shares of a tick are from a Dirichlet distribution of concentration s, and the variance of such counts is
    (n + s) / (1 + s) times that of independent samples.
    """
    if effect > 1.0:
        weights = rng.standard_gamma(shares * (rows - effect) / (effect - 1.0))
        shares = weights / weights.sum(axis=1, keepdims=True)
    return rng.multinomial(rows, shares)


def watched(rng: Generator, size: Size, effect: float, *, divide: bool) -> Clustered:
    """What becomes of the alarm in clustered traffic without drift."""
    watch = Watch(normal_baseline(rng.normal(size=(size.streams, size.rows))), divide=divide)
    bins = NormalBins(watch.monitor.binner)
    shares = bins.shares()
    onsets = np.zeros((2, 2), dtype=np.int64)
    before = ever = np.zeros((2, size.streams), dtype=np.bool_)
    for tick in range(size.ticks):
        firing = watch.count(bins.flat(clustered(rng, shares, effect)))
        onsets[int(tick >= EARLY_TICKS)] += (firing & ~before).sum(axis=1)
        before, ever = firing, ever | firing
    return Clustered(onsets[0], onsets[1], ever.sum(axis=1), watch.state.evidence.dispersion.ratio)


def run(report: Report, seed: int, size: Size) -> None:
    days = size.streams * size.ticks / TICKS_A_DAY
    report.heading(
        "Clustered traffic",
        f"No drift, but the samples of a tick resemble each other: Dirichlet-multinomial counts whose variance is so "
        f"many times (the design effect) that of independent samples. {size.streams} streams, {size.ticks:,} ticks, "
        f"{days:.1f} column-days, baselines of {size.rows:,} rows. Alarms: those that began in the first {EARLY_TICKS} "
        "ticks + those that began later (streams with any).",
    )
    rows = []
    for effect in size.effects:
        for divide in (True, False):
            found = watched(generator(seed, "clusters", str(effect)), size, effect, divide=divide)
            rows.append(
                (
                    number(effect),
                    "yes" if divide else "no",
                    f"{found.dispersion.mean():.2f}",
                    *(
                        f"{found.early[tier]} + {found.onsets[tier]} ({found.streams[tier] / size.streams:.0%})"
                        for tier in (WARN, PAGE)
                    ),
                )
            )
            if divide:
                what = f"false alarms of both tiers in {days:.1f} column-days, design effect {number(effect)}"
                onsets = int(found.early.sum() + found.onsets.sum())
                report.goal(what, "0", str(onsets), met=not onsets)
    report.table(
        ("design effect", "divided by it", "estimate, mean", "warnings", "pages"),
        rows,
    )
