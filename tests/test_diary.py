"""A stream by day and hour, in the time zones of its columns."""

from datetime import datetime

import msgspec
import numpy as np
import pytest

from conftest import baseline, categorical, numeric
from mlexporter.baseline import Baseline, Season, sealed
from mlexporter.binning import Binner, Counts
from mlexporter.config import ColumnConfig
from mlexporter.diary import QUARTER, Diary
from mlexporter.history import MAX_DAYS, HistoryError
from mlexporter.samples import Batch

# "a" comes first in the file, and last among the bins: numbers lie before categories
PROFILE = baseline(
    categorical("a", {"yes": 1, "no": 1}),
    numeric("x", (0.0, 1.0, 2.0, 3.0), [0.5], coarse=(0, 1, 3)),
    numeric("y", (0.0, 1.0), [0.5]),
)
BINNER = Binner(PROFILE)
ROW = BINNER.count([Batch(1, {"x": [2.5], "y": [None], "a": ["no"]})])


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def times(counts: Counts, factor: int) -> Counts:
    total = BINNER.zero()
    for _ in range(factor):
        total = total + counts
    return total


def seasons(profile: Baseline) -> dict[str, Season | None]:
    return {column.name: column.season for column in profile.columns}


def rows_by_hour(season: Season | None) -> dict[int, int]:
    assert season is not None
    return {hour: sum(own) for hour, own in enumerate(season.hours) if sum(own)}


ALWAYS = {"x": ColumnConfig(season=True), "a": ColumnConfig(season=True, timezone="Asia/Kathmandu")}


def test_columns_learn_in_their_own_zones() -> None:
    diary = Diary(BINNER, ALWAYS, "Europe/Berlin")
    # 20 rows in each quarter of an hour, of eight days around a change of clocks: at 01:00 UTC it was two, and is three
    begin, end = unix("2026-03-25T00:00:00+00:00"), unix("2026-04-02T00:00:00+00:00")
    quarters = np.arange(begin // QUARTER, end // QUARTER, dtype=np.int64)
    own = diary.bins.counts(times(ROW, 20).bins)
    diary.add(quarters, np.tile(own, (len(quarters), 1)))
    assert diary.days == 9
    learned = diary.learn(PROFILE)
    found = seasons(learned)
    assert found["y"] is None
    berlin, kathmandu = found["x"], found["a"]
    assert berlin is not None
    assert kathmandu is not None
    assert (berlin.timezone, kathmandu.timezone) == ("Europe/Berlin", "Asia/Kathmandu")
    # what was 02:00 to 03:00 on one of eight days was not; and the last hours are of summer time
    assert rows_by_hour(berlin) == {hour: 80 * (7 if hour == 2 else 9 if hour == 1 else 8) for hour in range(24)}
    assert rows_by_hour(kathmandu) == dict.fromkeys(range(24), 640)
    # in the bins of the alarm: below, two exported ones, above, missing
    assert berlin.hours[12] == (0, 0, 640, 0, 0)
    assert kathmandu.hours[12] == (0, 640, 0, 0, 0)
    days = [column.days for column in learned.columns]
    # in Berlin the ninth day has fewer than 200 rows
    assert [own.count for own in days if own is not None] == [9, 8, 8]


def test_a_quarter_of_an_hour_belongs_to_one_hour_in_zones_that_are_off_by_quarters() -> None:
    diary = Diary(BINNER, ALWAYS, "UTC")
    own = diary.bins.counts(times(ROW, 200).bins)
    for day in range(8):
        moment = unix("2026-01-01T00:00:00+00:00") + 86_400 * day + 10 * 3600 + 900  # 10:15, in Kathmandu 16:00
        diary.add(np.array([moment // QUARTER - 1, moment // QUARTER], dtype=np.int64), np.stack([own, own]))
    found = seasons(diary.learn(PROFILE))
    assert rows_by_hour(found["x"]) == {10: 3200}
    assert rows_by_hour(found["a"]) == {15: 1600, 16: 1600}


def test_notes_are_of_counts_since_the_start() -> None:
    """And what was counted before the first one is of the first one."""
    diary = Diary(BINNER, ALWAYS, "UTC")
    counts = BINNER.zero()
    for day in range(7):
        counts = counts + times(ROW, 150)
        diary.note(counts, unix(f"2026-01-0{day + 1}T09:59:59+00:00"))
        diary.note(counts, unix(f"2026-01-0{day + 1}T10:00:00+00:00"))
        counts = counts + times(ROW, 50)
        diary.note(counts, unix(f"2026-01-0{day + 1}T10:00:15+00:00"))
        assert diary.days == day + 1
    assert rows_by_hour(seasons(diary.learn(PROFILE))["x"]) == {9: 1050, 10: 350}


def test_what_is_learned_is_a_baseline_like_any_other() -> None:
    diary = Diary(BINNER, ALWAYS, "UTC")
    own = diary.bins.counts(times(ROW, 300).bins)
    quarters = np.arange(96 * 8, dtype=np.int64) + 96 * 20_000
    diary.add(quarters, np.tile(own, (len(quarters), 1)))
    # the counts may have grown since the binner was made
    grown = sealed(
        msgspec.structs.replace(
            PROFILE, columns=tuple(msgspec.structs.replace(column, invalid=7) for column in PROFILE.columns)
        )
    )
    learned = diary.learn(grown)
    assert [column.name for column in learned.columns] == ["a", "x", "y"]
    assert [column.invalid for column in learned.columns] == [7, 7, 7]
    assert learned.hash == sealed(learned).hash
    assert len({PROFILE.hash, grown.hash, learned.hash}) == 3


def test_too_short_a_diary_tells_nothing() -> None:
    diary = Diary(BINNER, ALWAYS, "UTC")
    assert diary.days == 0
    diary.note(times(ROW, 300), 0.0)
    assert diary.days == 1
    assert diary.learn(PROFILE) == PROFILE


def test_too_long_a_diary_is_refused() -> None:
    diary = Diary(BINNER, {}, "UTC")
    quarters = 96 * np.arange(MAX_DAYS + 1, dtype=np.int64)
    with pytest.raises(HistoryError):
        diary.add(quarters, np.zeros((len(quarters), 14)))
