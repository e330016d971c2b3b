"""Streams that follow the clock, and baselines that learned it from a history."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from benchmarks.detection.streams import TICK_ROWS, Generator, NormalBins, Watch, normal_baseline, number_batch
from mlexporter.baseline import Baseline, sealed
from mlexporter.binning import Binner, Bools
from mlexporter.detector import TICK_SECONDS
from mlexporter.diary import QUARTER, Diary
from mlexporter.edges import Floats

DAY: Final = 86_400
QUARTERS: Final = DAY // QUARTER
LIVE: Final = 19_676 * DAY
"""When the live traffic begins, Unix time; the history ends then."""

Means = Callable[[float], Floats]
"""(C,) means of the columns at a Unix time; the standard deviation is 1."""


@dataclass(frozen=True)
class Volume:
    """Days of history, its rows a quarter of an hour, and seconds between live ticks."""

    days: int
    rows: int = 100
    seconds: float = TICK_SECONDS


def learned(rng: Generator, means: Means, volume: Volume) -> Baseline:
    """C columns whose baseline knows the times of its rows, and the same columns again without times."""
    begin = LIVE // QUARTER - volume.days * QUARTERS
    quarters = np.arange(begin, begin + volume.days * QUARTERS)
    values = np.concatenate([_drawn(rng, means(q * QUARTER + QUARTER / 2), volume.rows) for q in quarters], axis=1)
    flat = normal_baseline(values)
    binner = Binner(flat)
    diary = Diary(binner, {}, "UTC")
    for i, quarter in enumerate(quarters):
        own = values[:, i * volume.rows : (i + 1) * volume.rows]
        diary.add(np.array([quarter]), diary.bins.counts(binner.count([number_batch(own)]).bins)[None])
    again = tuple(msgspec.structs.replace(column, name=f"y{column.name}") for column in flat.columns)
    return sealed(msgspec.structs.replace(flat, columns=(*diary.learn(flat).columns, *again)))


def _drawn(rng: Generator, mean: Floats, rows: int) -> Floats:
    return rng.normal(size=(len(mean), rows)) + mean[:, None]


class Live:
    """Live traffic of C streams, each held against its column with times and its column without.

    Attributes:
        now: Unix time.

    """

    def __init__(self, rng: Generator, baseline: Baseline, means: Means, volume: Volume) -> None:
        self._rng = rng
        self._watch = Watch(baseline, start=LIVE)
        half = baseline.columns[: len(baseline.columns) // 2]
        self._bins = NormalBins(Binner(msgspec.structs.replace(baseline, columns=half)))
        self._means = means
        self._seconds = volume.seconds

    @property
    def now(self) -> float:
        return self._watch.now

    @property
    def firing(self) -> Bools:
        """(2, 2, C) what fires: tiers, with and without times, streams."""
        return self._watch.state.firing.reshape(2, 2, -1)

    @property
    def tolerance(self) -> Floats:
        """(2, 2, C) divergences that are accepted."""
        return self._watch.state.tolerance.reshape(2, 2, -1)

    def tick(self, shift: float = 0.0) -> Bools:
        """A tick later; `shift` is added to all means."""
        bins = self._bins.draw(self._rng, self._means(self.now + self._seconds / 2) + shift)
        self._watch.count(np.concatenate([bins, bins]), TICK_ROWS, self._seconds)
        return self.firing

    def onsets(self, seconds: float) -> Floats:
        """(2, 2, C) times that alarms began in so many seconds."""
        before = self.firing
        onsets = np.zeros(before.shape)
        for _ in range(round(seconds / self._seconds)):
            firing = self.tick()
            onsets += firing & ~before
            before = firing
        return onsets

    def delays(self, shift: float, seconds: float) -> Floats:
        """(2, 2, C) seconds until alarms fire after a shift, which this stream forgets again; infinite where never."""
        other = copy.copy(self)
        other._watch = copy.copy(self._watch)
        found = np.full(self.firing.shape, np.inf)
        for tick in range(round(seconds / self._seconds)):
            firing = other.tick(shift)
            found[firing & np.isinf(found)] = (tick + 1) * self._seconds
            if np.isfinite(found).all():
                break
        return found
