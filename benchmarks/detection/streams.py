"""Simulated streams, and the alarm as `mlexporter serve` runs it on them."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from scipy import special

from mlexporter.alarm import AlarmState
from mlexporter.baseline import Baseline, sealed
from mlexporter.binning import Binner, Bools
from mlexporter.columns import Tally, categorical_column, numeric_column
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.detector import TICK_SECONDS, Dispersion, log_threshold
from mlexporter.edges import Floats, Ints
from mlexporter.samples import Batch, Role
from mlexporter.snapshot import Monitor

Generator = np.random.Generator

TICK_ROWS: Final = 200
TICKS_A_DAY: Final = 5760
FLEET: Final = log_threshold(100, 30 * 86400.0)
"""The threshold of 100 columns and one false alarm in 30 days."""
WARN, PAGE = 0, 1
CATEGORIES: Final = tuple("abcdefgh")
CATEGORY_SHARES: Final = (1.0 / np.arange(1, 9)) / (1.0 / np.arange(1, 9)).sum()


def generator(seed: int, *names: str) -> Generator:
    """A stream of random numbers of its own for each study, so that leaving one out does not change the others."""
    return np.random.default_rng([seed, *(int.from_bytes(name.encode()) for name in names)])


def name_of(column: int) -> str:
    return f"x{column:03d}"


def normal_baseline(values: Floats) -> Baseline:
    """The baseline of (C, m) values."""
    columns = tuple(numeric_column(Role.FEATURE, name_of(i), own, 0) for i, own in enumerate(values))
    return sealed(Baseline(rows=values.shape[1], columns=columns))


def category_baseline(counts: Ints) -> Baseline:
    """The baseline of (C, 8) counts, with a number that is always 0 before them: a model has numbers, too."""
    rows = int(counts[0].sum())
    columns = tuple(
        categorical_column(
            Role.FEATURE, name_of(i), Tally(dict(zip(CATEGORIES, own.tolist(), strict=True)), 0, 0), boolean=False
        )
        for i, own in enumerate(counts)
    )
    number = numeric_column(Role.FEATURE, "number", np.zeros(rows), 0)
    return sealed(Baseline(rows=rows, columns=(number, *columns)))


def number_batch(values: Floats) -> Batch:
    """(C, n) numbers, NaN where missing."""
    return Batch(size=values.shape[1], features={name_of(i): own.tolist() for i, own in enumerate(values)})


def category_batch(values: Floats) -> Batch:
    """(C, n) categories by their numbers; and the number."""
    names = np.array(CATEGORIES, dtype=object)[values.astype(np.int64)]
    features = {name_of(i): own.tolist() for i, own in enumerate(names)}
    return Batch(size=values.shape[1], features={"number": [0.0] * values.shape[1], **features})


class Watch:
    """The alarm of one baseline, tick by tick.

    Args:
        baseline: what the streams are held against.
        settings: of columns.
        log_threshold: of the evidence.
        start: Unix time.
        divide: False holds the dispersion at 1.

    """

    def __init__(
        self,
        baseline: Baseline,
        settings: Mapping[str, ColumnConfig] | None = None,
        *,
        log_threshold: float = FLEET,
        start: float = 0.0,
        divide: bool = True,
    ) -> None:
        self.monitor = Monitor.of(baseline, DetectionConfig(), settings or {})
        assert self.monitor.alarm is not None
        self.alarm = self.monitor.alarm
        self.now = start
        self.state: AlarmState = self.alarm.start(self.monitor.binner.zero(), start)
        self._log_threshold = log_threshold
        self._undivided = None if divide else Dispersion.start(self.alarm.bins.layout)

    def observe(self, batch: Batch) -> Bools:
        """A tick with these samples; (2, C) what fires after it."""
        counts = self.monitor.binner.count([batch])
        return self.count(counts.bins, counts.rows)

    def count(self, bins: Ints, rows: int = TICK_ROWS, seconds: float = TICK_SECONDS) -> Bools:
        """A tick with these counts in all fine bins; (2, C) what fires after it."""
        state = self.state
        if self._undivided is not None:
            evidence = msgspec.structs.replace(state.evidence, dispersion=self._undivided)
            state = msgspec.structs.replace(state, evidence=evidence)
        seen = msgspec.structs.replace(state.seen, bins=state.seen.bins + bins, rows=state.seen.rows + rows)
        self.now += seconds
        self.state = self.alarm.advance(state, seen, self.now, self._log_threshold)
        return self.state.firing


class NormalBins:
    """Counts of normal values in the fine bins of a binner with numeric columns only, without drawing the values."""

    def __init__(self, binner: Binner) -> None:
        sizes = np.diff(binner.offsets)
        self._edges = np.full((len(binner.numeric), int(sizes.max()) - 2), np.inf)
        for own, column in zip(self._edges, binner.numeric, strict=True):
            own[: len(column.edges)] = column.edges
        self._there = np.arange(int(sizes.max())) < sizes[:, None]

    def shares(self, mean: Floats | float = 0.0) -> Floats:
        """(C, W) chances of the bins, 0 where a column has fewer; `mean` of each column, the deviation is 1."""
        below = special.ndtr(self._edges - np.broadcast_to(mean, len(self._edges))[:, None])
        ends = np.ones((len(below), 1))
        return np.diff(np.concatenate([0.0 * ends, below, ends, ends], axis=1), axis=1)

    def flat(self, counts: Ints) -> Ints:
        """(C, W) counts as a vector."""
        return counts[self._there]

    def draw(self, rng: Generator, mean: Floats | float = 0.0, rows: int = TICK_ROWS) -> Ints:
        """The counts of so many samples."""
        return self.flat(rng.multinomial(rows, self.shares(mean)))
