"""Days that differ from each other, and a history with one incident in it."""

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.calendar_streams import DAY, LIVE, Live, Means, Volume, learned
from benchmarks.detection.report import Report, number
from benchmarks.detection.seasons import TIMES
from benchmarks.detection.streams import PAGE, WARN, Generator, generator
from mlexporter.edges import Floats

MONTH = Volume(days=30)
SPREAD = 0.15
INCIDENT = 2.0


@dataclass(frozen=True)
class Size:
    """Volume, streams and live days."""

    volume: Volume = MONTH
    streams: int = 20
    days: int = 30


def daily(rng: Generator, size: Size) -> Means:
    """A mean of its own for each day and stream, 0.15 sd from the usual; one day of the history is an incident."""
    past = size.volume.days
    means = rng.normal(size=(past + size.days + 1, size.streams)) * SPREAD
    means[rng.integers(past, size=size.streams), np.arange(size.streams)] = INCIDENT
    return lambda now: means[int((now - LIVE) // DAY) + past]


@dataclass(frozen=True)
class Days:
    """(D, 2, 2, C) onsets on ordinary days, of tiers, with and without times; (2, 2, C) seconds to find an incident;
    and (2, 2, C) tolerances.
    """

    onsets: Floats
    delays: Floats
    tolerance: Floats


def days(rng: Generator, size: Size) -> Days:
    means = daily(rng, size)
    baseline = learned(rng, means, size.volume)
    live = Live(rng, baseline, means, size.volume)
    onsets = np.stack([live.onsets(DAY) for _ in range(size.days)])
    return Days(onsets, live.delays(INCIDENT, DAY), live.tolerance)


def run(report: Report, seed: int, size: Size) -> None:
    found = days(generator(seed, "days"), size)
    stream_days = size.streams * size.days
    report.heading(
        "Days",
        f"Each day the mean is off by a number of its own, normal with {SPREAD} sd. {size.volume.days} days of history "
        f"with {size.volume.rows * 96:,} rows each, one of them an incident of {INCIDENT:g} sd; then {size.days} "
        f"ordinary live days; {size.streams} streams with histories of their own, so {stream_days} stream-days. Then a "
        f"live day {INCIDENT:g} sd off. Tolerances are Kullback-Leibler divergences, the median over the streams.",
    )
    rows = []
    for tier, name in ((WARN, "warn"), (PAGE, "page")):
        for with_times, times in enumerate(TIMES):
            onsets, delays = found.onsets[:, tier, with_times], found.delays[tier, with_times]
            rows.append(
                (
                    name,
                    times,
                    number(float(np.median(found.tolerance[tier, with_times]))),
                    number(float(onsets.sum())),
                    f"{(onsets > 0).sum()} of {stream_days}",
                    f"{(onsets > 0).any(axis=0).sum()} of {size.streams}",
                    f"{np.isfinite(delays).mean():.0%}",
                    number(float(delays.max())),
                )
            )
    report.table(
        ("tier", "baseline", "tolerance", "alarms", "days with one", "streams with one", "incident found", "most s"),
        rows,
    )
    paged = int((found.onsets[:, PAGE, 0] > 0).sum())
    report.goal(f"days with a page, of {stream_days} ordinary ones", "0", str(paged), met=paged == 0)
    most = float(found.delays[PAGE, 0].max())
    shown = f"{number(most)} seconds" if np.isfinite(most) else "not all"
    report.goal("a page on a day like the incident, all streams", "within an hour", shown, met=most <= 3600)
