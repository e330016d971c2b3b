"""Recorded samples through the whole exporter but its server: when it would have warned, paged and cleared.

Rows become requests, which are decoded, stored and ticked by the code that `serve` runs; only the clock is simulated.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from mlexporter import decode
from mlexporter.alarm import AlarmState
from mlexporter.baseline import Baseline
from mlexporter.categories import Missing
from mlexporter.config import UNVERSIONED, Config
from mlexporter.dataset import Cells, Chunk, Dataset, Key, Types
from mlexporter.dataset.source import Progress
from mlexporter.detector import TICK_SECONDS
from mlexporter.edges import Ints
from mlexporter.expectation import TIERS
from mlexporter.samples import CONFIDENCE_COLUMN, LABEL_COLUMN, PREDICTION_COLUMN, Batch, Role
from mlexporter.snapshot import Monitor
from mlexporter.store import Store

# Many small requests as one: the counts are the same, for they add.
_MOST_ROWS: Final = 8192


class Change(msgspec.Struct, frozen=True):
    """An alarm that went on or off.

    Attributes:
        tick: counted from 1; with recorded time those without samples count, too.
        time: Unix time of the tick; None without recorded time.
        rows: rows so far.
        role, column, tier: what alarm.
        state: `firing` or `resolved`.
        log_evidence: after the tick.
        psi: of the samples since the evidence became notable; None where no bin tells.

    """

    tick: int
    time: float | None
    rows: int
    role: str
    column: str
    tier: str
    state: str
    log_evidence: float
    psi: float | None


class Totals(msgspec.Struct):
    """What the alarms of a replay did in all. C columns.

    Attributes:
        rows, ticks: replayed; `ticks` are those with samples.
        alarms, firing: (2, C) how often the alarm of each tier went on, and the ticks with samples on which it was.
        late: rows with a time before that of a row before them, or without one; they count at once.
        rejected: rows that the exporter refused.

    """

    alarms: Ints
    firing: Ints
    rows: int = 0
    ticks: int = 0
    late: int = 0
    rejected: int = 0


class Backtest:
    """A replay of recorded samples against a baseline.

    Args:
        config: with one model, which is what the baseline is of.
        baseline: of the model.

    Attributes:
        columns: of the baseline, in the order of `totals`.
        log_threshold: of the evidence, at which an alarm goes on.
        seen: the columns of the data so far.

    """

    def __init__(self, config: Config, baseline: Baseline) -> None:
        (model,) = config.models
        self._names = model.name, model.version or UNVERSIONED
        self._now = 0.0
        self._latest: float | None = None
        self.seen: set[Key] = set()
        self._store = Store(config, {self._names: baseline}, lambda: self._now)
        (version,) = self._store.snapshot().versions
        assert version.monitor is not None
        self._monitor: Monitor = version.monitor
        self.columns = self._monitor.binner.columns
        threshold = self._store.snapshot().log_threshold
        self.log_threshold = threshold if threshold is not None else math.inf
        zeros = np.zeros((len(TIERS), len(self.columns)), dtype=np.int64)
        self.totals = Totals(alarms=zeros, firing=zeros.copy())

    def replay(
        self, dataset: Dataset, types: Types, rows_per_tick: int | None, progress: Progress | None = None
    ) -> Iterator[Change]:
        """The changes of all alarms, in the order of time.

        Args:
            dataset: the rows, with times unless `rows_per_tick` is given.
            types: of columns, by name, where text does not tell.
            rows_per_tick: so many rows make a tick; None goes by the recorded time.
            progress: called with the units of work done since the call before.

        """
        first: int | None = None
        current = 0
        before: AlarmState | None = None
        waiting = False
        for chunk in dataset.chunks(types, progress):
            ticks = self._ticks(chunk, rows_per_tick)
            self.seen.update(chunk.columns)
            if ticks is None:  # whenever the first tick is, they come in it
                self._observe(chunk, 0, chunk.rows)
                continue
            starts = np.flatnonzero(np.diff(ticks, prepend=ticks[0] - 1)).tolist()
            for start, stop in zip(starts, [*starts[1:], chunk.rows], strict=True):
                number = int(ticks[start])
                if first is None:
                    first = current = number
                if number != current:
                    yield from self._tick(before, current, first, timed=rows_per_tick is None)
                    before = self._alarm()
                    current = number
                self._observe(chunk, start, stop)
                waiting = True
        if waiting and first is not None:
            yield from self._tick(before, current, first, timed=rows_per_tick is None)

    def _ticks(self, chunk: Chunk, rows_per_tick: int | None) -> Ints | None:
        """(rows,) the number of the tick in which each row comes; None before the first row with a time."""
        if rows_per_tick is not None:
            return (self.totals.rows + np.arange(chunk.rows)) // rows_per_tick
        assert chunk.times is not None
        known = np.isfinite(chunk.times)
        if self._latest is None:
            if not known.any():
                self.totals.late += chunk.rows
                return None
            self._latest = float(chunk.times[known.argmax()])
        own = np.floor(np.where(known, chunk.times, -math.inf) / TICK_SECONDS)
        ticks = np.maximum.accumulate(np.maximum(own, self._latest // TICK_SECONDS))
        self.totals.late += int((own < ticks).sum())
        self._latest = float(ticks[-1]) * TICK_SECONDS
        return ticks.astype(np.int64)

    def _alarm(self) -> AlarmState | None:
        return self._store.alarm(*self._names)

    def _observe(self, chunk: Chunk, start: int, stop: int) -> None:
        """Send rows as a model server would."""
        for first in range(start, stop, _MOST_ROWS):
            body = _request(*self._names, chunk, first, min(first + _MOST_ROWS, stop))
            decoded = decode.decode(body, "application/json")
            outcome = self._store.observe(_with_confidence(decoded.batches, chunk, first))
            self.totals.rejected += sum(r.count for r in (*decoded.rejections, *outcome.rejections))
        self.totals.rows += stop - start

    def _tick(self, before: AlarmState | None, number: int, first: int, *, timed: bool) -> Iterator[Change]:
        self._now = (number + 1) * TICK_SECONDS
        self._store.tick()
        alarm = self._alarm()
        assert alarm is not None
        self.totals.ticks += 1
        self.totals.firing += alarm.firing
        was = before.firing if before is not None else np.zeros_like(alarm.firing)
        self.totals.alarms += alarm.firing & ~was
        for i, tier in np.argwhere((alarm.firing != was).T).tolist():
            column = self.columns[i]
            psi = float(self._monitor.statistician.psi(self._monitor.reference, alarm.rise.bins[tier])[i])
            yield Change(
                tick=number - first + 1,
                time=self._now if timed else None,
                rows=self.totals.rows,
                role=column.role.value,
                column=column.name,
                tier=TIERS[tier],
                state="firing" if alarm.firing[tier, i] else "resolved",
                log_evidence=float(alarm.evidence.log_evidence[tier, i]),
                psi=psi if math.isfinite(psi) else None,
            )


def _request(model: str, version: str, chunk: Chunk, start: int, stop: int) -> bytes:
    """Rows of a chunk as the body of a request, in column form."""
    columns: dict[str, Any] = {"features": {}}
    for (role, name), cells in chunk.columns.items():
        if role is Role.FEATURE:
            columns["features"][name] = _sent(cells[start:stop])
        elif name in (PREDICTION_COLUMN, LABEL_COLUMN):
            columns[name] = _sent(cells[start:stop])
    content: Mapping[str, Any] = {"model": model, "version": version, "columns": columns}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _sent(cells: Cells) -> Cells:
    """Values as a client sends them: what a data file marks as of the wrong type is an object again.

    JSON has no infinity; the largest number lies in the same bin.
    """
    if isinstance(cells, np.ndarray):
        return np.clip(cells, -sys.float_info.max, sys.float_info.max) if cells.dtype.kind == "f" else cells
    special = {float, Missing} & set(map(type, cells))
    return [_sent_value(value) for value in cells] if special else cells


def _sent_value(value: object) -> object:
    if isinstance(value, float) and math.isinf(value):
        return math.copysign(sys.float_info.max, value)
    return {} if isinstance(value, Missing) else value


def _with_confidence(batches: Sequence[Batch], chunk: Chunk, start: int) -> Iterator[Batch]:
    """The batches with the confidence of their rows, of which the first one is `start`.

    Clients send it as the probability of the predicted class, recorded data have a column of it, and that of a batch
    comes out of either.
    """
    confidence = chunk.columns.get((Role.PREDICTION, CONFIDENCE_COLUMN))
    for batch in batches:
        stop = start + batch.size
        yield (
            batch if confidence is None else msgspec.structs.replace(batch, confidence=_values(confidence[start:stop]))
        )
        start = stop


def _values(cells: Cells) -> list[object]:
    sent = _sent(cells)
    return sent.tolist() if isinstance(sent, np.ndarray) else list(sent)
