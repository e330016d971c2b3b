"""How long an alarm goes on after its drift has ended."""

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.comparison import OURS
from benchmarks.detection.report import Report, median, number
from benchmarks.detection.streams import TICKS_A_DAY, Generator, NormalBins, Watch, generator, normal_baseline
from mlexporter.edges import Floats

MOST_TICKS = 20
"""The goal."""


@dataclass(frozen=True)
class Size:
    """Baseline rows, streams, drifts in standard deviations, ticks of drift, and ticks after it."""

    rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    streams: int = 50
    shifts: tuple[float, ...] = (0.25, 0.5, 1.0)
    ticks: int = 1_000
    after: int = 200


@dataclass(frozen=True)
class Ends:
    """What becomes of alarms; 2 tiers, D drifts, C streams.

    Attributes:
        ticks: (2, D, C) after the drift until the alarm is off for good; NaN where it was off when the drift ended,
            infinite where it is never off.
        breaks: (2, D) times a day that an alarm went off while the drift lasted.
        on: (2, D) share of the ticks, from the first alarm to the end of the drift, with the alarm on.

    """

    ticks: Floats
    breaks: Floats
    on: Floats


def clearing(rng: Generator, rows: int, size: Size) -> Ends:
    """Drift, then none."""
    means = np.repeat(size.shifts, size.streams)
    watch = Watch(normal_baseline(rng.normal(size=(len(means), rows))))
    bins = NormalBins(watch.monitor.binner)
    firing = ever = watch.state.firing
    since, on, breaks = np.zeros((3, *firing.shape))
    for _ in range(size.ticks):
        before, firing = firing, watch.count(bins.draw(rng, means))
        ever = ever | firing
        since, on, breaks = since + ever, on + firing, breaks + (before & ~firing)
    ticks = np.where(firing, 1.0, np.nan)
    for tick in range(1, size.after + 1):
        firing = watch.count(bins.draw(rng))
        ticks[firing & ~np.isnan(ticks)] = tick + 1.0
    ticks[firing & ~np.isnan(ticks)] = np.inf
    shape = (2, len(size.shifts), size.streams)
    since, on, breaks = (each.reshape(shape).sum(axis=2) for each in (since, on, breaks))
    since = np.maximum(since, 1.0)
    return Ends(ticks.reshape(shape), breaks / since * TICKS_A_DAY, on / since)


def run(report: Report, seed: int, size: Size) -> None:
    report.heading(
        "Ends of alarms",
        f"{size.ticks:,} ticks of drift, then none. Ticks until the alarm is off, and stays off for the rest of "
        f"{size.after} ticks: median and most of the streams (of {size.streams}) in which it was on. Before that: how "
        "often a day an alarm ended although the drift lasted, and the share of the time that it was on.",
    )
    rows = []
    for baseline in size.rows:
        ends = clearing(generator(seed, "clearing", str(baseline)), baseline, size)
        for tier, name in enumerate(OURS):
            for i, shift in enumerate(size.shifts):
                on = ends.ticks[tier, i][~np.isnan(ends.ticks[tier, i])]
                most = float(on.max(initial=0.0))
                rows.append(
                    (
                        f"{baseline:,}",
                        name,
                        f"{shift} sd",
                        number(ends.breaks[tier, i]),
                        f"{ends.on[tier, i]:.1%}",
                        str(len(on)),
                        number(median(on)) if len(on) else "-",
                        _shown(most) if len(on) else "-",
                    )
                )
            worst = float(np.nanmax(ends.ticks[tier], initial=0.0))
            what = f"{name}: off after the drift, baseline of {baseline:,}, all drifts and streams"
            report.goal(what, f"<= {MOST_TICKS} ticks", _shown(worst), met=worst <= MOST_TICKS)
    report.table(
        (
            "baseline",
            "tier",
            "drift",
            "interrupted, times a day",
            "on",
            "streams with it on at the end",
            "median ticks",
            "most",
        ),
        rows,
    )


def _shown(ticks: float) -> str:
    return number(ticks) if np.isfinite(ticks) else "not off"
