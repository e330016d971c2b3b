"""How long an alarm goes on after its drift has ended."""

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.comparison import OURS
from benchmarks.detection.report import Report, median, number
from benchmarks.detection.streams import Generator, NormalBins, Watch, generator, normal_baseline
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


def clearing(rng: Generator, rows: int, size: Size) -> Floats:
    """(2, shifts, streams) ticks after the drift until the alarm is off for good; NaN where it was off at the end of
    the drift, infinite where it is on at the end.
    """
    means = np.repeat(size.shifts, size.streams)
    watch = Watch(normal_baseline(rng.normal(size=(len(means), rows))))
    bins = NormalBins(watch.monitor.binner)
    firing = watch.state.firing
    for _ in range(size.ticks):
        firing = watch.count(bins.draw(rng, means))
    ticks = np.where(firing, 1.0, np.nan)
    for tick in range(1, size.after + 1):
        firing = watch.count(bins.draw(rng))
        ticks[firing & ~np.isnan(ticks)] = tick + 1.0
    ticks[firing & ~np.isnan(ticks)] = np.inf
    return ticks.reshape(2, len(size.shifts), size.streams)


def run(report: Report, seed: int, size: Size) -> None:
    report.heading(
        "Ends of alarms",
        f"{size.ticks:,} ticks of drift, then none. Ticks until the alarm is off, and stays off for the rest of "
        f"{size.after} ticks: median and most of the streams (of {size.streams}) in which it was on.",
    )
    rows = []
    for baseline in size.rows:
        ticks = clearing(generator(seed, "clearing", str(baseline)), baseline, size)
        for i, shift in enumerate(size.shifts):
            cells = []
            for tier, name in enumerate(OURS):
                on = ticks[tier, i][~np.isnan(ticks[tier, i])]
                most = float(on.max(initial=0.0))
                cells += [str(len(on)), *((number(median(on)), _shown(most)) if len(on) else ("", ""))]
                if len(on):
                    what = f"{name}: off after {shift} sd, baseline of {baseline:,}, all streams"
                    report.goal(what, f"<= {MOST_TICKS} ticks", _shown(most), met=most <= MOST_TICKS)
            rows.append((f"{baseline:,}", f"{shift} sd", *cells))
    report.table(
        ("baseline", "drift", "warn: on in", "median ticks", "most", "page: on in", "median ticks", "most"), rows
    )


def _shown(ticks: float) -> str:
    return number(ticks) if np.isfinite(ticks) else "not off"
