"""A stream by day and hour, in the time zones that its columns are told in, as a baseline is learned from it."""

from collections.abc import Mapping

import msgspec
import numpy as np

from mlexporter.alarm_bins import AlarmBins
from mlexporter.baseline import Baseline, sealed
from mlexporter.binning import Binner, Counts, in_order
from mlexporter.config import ColumnConfig
from mlexporter.edges import Floats, Ints
from mlexporter.history import History, HistoryState
from mlexporter.timezones import local_calendar, zone_of

QUARTER = 900
"""Seconds by which moments are told apart: local hours begin and end at quarters of an hour in every time zone."""


class DiaryState(msgspec.Struct, frozen=True):
    """A diary at one moment, to be kept over a restart.

    Attributes:
        seen: counts since the start, up to the last note; None before it.
        histories: by time zone.

    """

    seen: Ints | None
    histories: dict[str, HistoryState]


class Diary:
    """The histories of all columns.

    Args:
        binner: of the columns.
        settings: what the configuration says of columns.
        timezone: of those of which it says none.

    Attributes:
        bins: of the alarm, which is what is counted.

    """

    def __init__(self, binner: Binner, settings: Mapping[str, ColumnConfig], timezone: str) -> None:
        self.bins = AlarmBins(binner)
        self._binner = binner
        own = [settings.get(column.name, ColumnConfig()) for column in binner.columns]
        self._wanted = [each.season for each in own]
        self._names = [each.timezone or timezone for each in own]
        self._histories = {name: (History(self.bins.layout, name), zone_of(name)) for name in sorted(set(self._names))}
        self._seen: Ints | None = None

    @property
    def days(self) -> int:
        """The number of days so far that have enough rows to tell something."""
        return max((history.days for history, _ in self._histories.values()), default=0)

    def add(self, quarters: Ints, counts: Floats) -> None:
        """Add (G, T) counts of G quarters of an hour, numbered since 1970.

        Raises:
            HistoryError: too many days.

        """
        for history, zone in self._histories.values():
            days, hours = local_calendar(quarters.astype(np.float64) * QUARTER, zone)
            for day, hour, own in zip(days.tolist(), hours.tolist(), counts, strict=True):
                history.add(day, hour, own)

    def note(self, counts: Counts, now: float) -> None:
        """Add what was counted since the last note; `counts` are since the start."""
        bins = counts.bins if self._seen is None else counts.bins - self._seen
        self._seen = counts.bins
        self.add(np.array([now // QUARTER], dtype=np.int64), self.bins.counts(bins)[None])

    def state(self) -> DiaryState:
        """All of it, as copies."""
        return DiaryState(self._seen, {name: history.state() for name, (history, _) in self._histories.items()})

    def restore(self, state: DiaryState) -> bool:
        """Go on from a state; False where some time zones are not in it, whose histories begin now."""
        self._seen = state.seen
        known = [
            name in state.histories and history.restore(state.histories[name])
            for name, (history, _) in self._histories.items()
        ]
        return all(known)

    def learn(self, baseline: Baseline) -> Baseline:
        """The baseline, of the same columns, with the seasons and days that the histories tell."""
        columns = in_order(baseline, self._binner)
        learned = list(columns)
        for name, (history, _) in self._histories.items():
            for i, column in enumerate(history.learn(self.bins, columns, self._wanted)):
                if self._names[i] == name:
                    learned[i] = column
        return sealed(msgspec.structs.replace(baseline, columns=tuple(learned)))
