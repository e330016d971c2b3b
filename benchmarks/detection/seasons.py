"""A daily wave, in the history and in live traffic."""

from dataclasses import dataclass

import numpy as np

from benchmarks.detection.calendar_streams import DAY, Live, Means, Volume, learned
from benchmarks.detection.report import Report, median, number
from benchmarks.detection.streams import PAGE, WARN, Generator, generator
from mlexporter.edges import Floats

WEEKS = Volume(days=28)
HEIGHT = 0.3
SHIFT = 0.5
TIMES = ("history with times", "history without")


@dataclass(frozen=True)
class Size:
    """Volume, streams, live days, and hours of the day at which the drift begins."""

    volume: Volume = WEEKS
    streams: int = 8
    days: int = 30
    hours: tuple[int, ...] = (0, 6, 12, 18)


def wave(columns: int) -> Means:
    return lambda now: np.full(columns, HEIGHT * np.sin(2 * np.pi * now / DAY))


@dataclass(frozen=True)
class Season:
    """(2, 2, C) onsets without drift, of tiers, with and without times; (2, 2, C, hours) seconds to find the drift;
    and how many of the baselines with times learned a season.
    """

    onsets: Floats
    delays: Floats
    seasonal: int


def season(rng: Generator, size: Size) -> Season:
    means = wave(size.streams)
    baseline = learned(rng, means, size.volume)
    live = Live(rng, baseline, means, size.volume)
    onsets = live.onsets(size.days * DAY)
    delays = []
    for before, hour in zip((0, *size.hours), size.hours, strict=False):
        onsets += live.onsets((hour - before) * 3600)
        delays.append(live.delays(SHIFT, DAY))
    seasonal = sum(column.season is not None for column in baseline.columns)
    return Season(onsets, np.stack(delays, axis=-1), seasonal)


def run(report: Report, seed: int, size: Size) -> None:
    found = season(generator(seed, "seasons"), size)
    report.heading(
        "Seasons",
        f"A daily wave of {HEIGHT} sd (sine), {size.volume.days} days of history with "
        f"{size.volume.rows * 96:,} rows each, then {size.days} live days and more of the same wave, "
        f"{size.streams} streams. Each is held against a baseline that knows the times of its rows "
        f"({found.seasonal} of {size.streams} learned a season) and one that does not. Then {SHIFT} sd on top of the "
        f"wave, from {', '.join(map(str, size.hours))} o'clock on; it counts as found if it is within a day.",
    )
    rows = []
    for tier, name in ((WARN, "warn"), (PAGE, "page")):
        for with_times, times in enumerate(TIMES):
            onsets, delays = found.onsets[tier, with_times], found.delays[tier, with_times]
            rows.append(
                (
                    name,
                    times,
                    number(float(onsets.sum())),
                    f"{(onsets > 0).mean():.0%}",
                    f"{np.isfinite(delays).mean():.0%}",
                    *(number(seconds / 60) for seconds in (median(delays.ravel()), float(delays.max()))),
                )
            )
    header = ("tier", "baseline", "false alarms", "streams with one", "drift found", "median minutes", "most")
    report.table(header, rows)
    for tier, name in ((WARN, "warnings"), (PAGE, "pages")):
        onsets = float(found.onsets[tier, 0].sum())
        report.goal(f"{name} in {size.days} days of a learned season", "0", number(onsets), met=onsets == 0)
        most = float(found.delays[tier, 0].max())
        shown = f"{number(most / 60)} minutes" if np.isfinite(most) else "not all"
        report.goal(f"{name} for {SHIFT} sd on top of it, all streams", "within a day", shown, met=most <= DAY)
