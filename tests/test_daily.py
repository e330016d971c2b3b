"""The rows of a data file by day and hour: seasons, days, and what becomes of rows that fit in neither."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from mlexporter import daily, history
from mlexporter.baseline import Baseline, Column, Season, encode, read
from mlexporter.binning import alarm_starts
from mlexporter.builder import build
from mlexporter.commands.baseline import baseline_group
from mlexporter.config import ColumnConfig, DataConfig
from mlexporter.dataset import Dataset, DatasetError, open_dataset, source
from mlexporter.labels import alarm_labels

Row = dict[str, Any]
UTC = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
TIMED = DataConfig(time="at")
SEASON = ColumnConfig(season=True)


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[Row]) -> Path:
    lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    return path


def opened(path: Path, rows: list[Row], zone: ZoneInfo = UTC) -> Dataset:
    return open_dataset(write(path / "data.jsonl", rows), TIMED, zone)


def column(baseline: Baseline, name: str) -> Column:
    (found,) = (column for column in baseline.columns if column.name == name)
    return found


def season(baseline: Baseline, name: str) -> Season:
    found = column(baseline, name).season
    assert found is not None
    return found


def by_label(found: Column, counts: tuple[int, ...]) -> dict[str, int]:
    return {label: count for label, count in zip(alarm_labels(found), counts, strict=True) if count}


def moments(begin: datetime, days: int, a_day: int) -> list[str]:
    """Times spread evenly over days."""
    step = timedelta(days=1) / a_day
    return [(begin + i * step).isoformat() for i in range(days * a_day)]


BEGIN = datetime(2026, 3, 2, tzinfo=UTC)


def everyday(days: int = 10, a_day: int = 480) -> list[Row]:
    """Columns of every kind, two of which are another thing at night."""
    draw = np.random.default_rng(1)
    rows = []
    for i, at in enumerate(moments(BEGIN, days, a_day)):
        night = i % a_day < a_day // 4
        rows.append(
            {
                "at": at,
                "wave": float(draw.normal(-1 if night else 0)),
                "flat": None if draw.random() < 0.05 else float(draw.normal()),
                "plan": draw.choice(["free", "pro"], p=[0.9, 0.1] if night else [0.5, 0.5]).item(),
                "paid": bool(draw.random() < 0.3),
                "prediction": {"yes": 0.75, "no": 0.25} if draw.random() < 0.5 else {"yes": 0.2, "no": 0.8},
            }
        )
    return rows


# -- profiles ----------------------------------------------------------------------------------------------------------


def test_profiles_add_up_to_the_rows(tmp_path: Path) -> None:
    rows = everyday()
    names = ("wave", "flat", "plan", "paid", "prediction", "confidence")
    learned = build(opened(tmp_path, rows), settings=dict.fromkeys(names, SEASON))
    assert len(learned.columns) == 6
    for found in learned.columns:
        hours = np.array(season(learned, found.name).hours)
        assert season(learned, found.name).timezone == "UTC"
        # the bins of the alarm are sums of those of the file
        assert hours.sum(axis=0).tolist() == np.add.reduceat(found.counts, alarm_starts(found)).tolist()
        assert hours.sum(axis=1).tolist() == [10 * 20] * 24
    plan = column(learned, "plan")
    for hour, counts in enumerate(season(learned, "plan").hours):
        expected = Counter(row["plan"] for row in rows if row["at"][11:13] == f"{hour:02}")
        assert by_label(plan, counts) == expected


def test_which_columns_have_a_season(tmp_path: Path) -> None:
    learned = build(opened(tmp_path, everyday()))
    assert {found.name for found in learned.columns if found.season is not None} == {"wave", "plan"}
    for found in learned.columns:
        assert found.days is not None
        assert found.days.count == 10
        assert found.days.missing.usual < 0.03
        assert found.days.strange.usual == 0.0


def test_what_the_configuration_says_of_seasons(tmp_path: Path) -> None:
    settings = {
        "wave": ColumnConfig(season=False),
        "flat": ColumnConfig(season=True, timezone="Asia/Kathmandu"),
        "plan": ColumnConfig(timezone="America/New_York"),
    }
    learned = build(opened(tmp_path, everyday()), settings=settings, timezone="Europe/Berlin")
    seasons = {found.name: found.season and found.season.timezone for found in learned.columns}
    assert seasons == {
        "wave": None, "flat": "Asia/Kathmandu", "plan": "America/New_York", "paid": None, "prediction": None,
        "confidence": None,
    }  # fmt: skip
    assert column(learned, "wave").days is not None
    # the night is from 0 to 6 o'clock in UTC: five hours earlier in New York, until the clocks change on the 8th
    shares = [by_label(column(learned, "plan"), counts) for counts in season(learned, "plan").hours]
    nightly = [hour for hour, own in enumerate(shares) if own["free"] > 0.85 * sum(own.values())]
    assert set(nightly) == {20, 21, 22, 23, 0}


@pytest.mark.parametrize(
    ("begin", "doubled", "halved"),
    # clocks went back at 3, and forward at 2: that day has one hour twice, and that one lacks one
    [(datetime(2026, 10, 20), 2, None), (datetime(2026, 3, 25), None, 2)],
)
def test_hours_over_a_change_of_clocks(
    begin: datetime, doubled: int | None, halved: int | None, tmp_path: Path
) -> None:
    start = begin.replace(tzinfo=BERLIN).timestamp()
    end = (begin + timedelta(days=10)).replace(tzinfo=BERLIN).timestamp()
    assert (end - start) / 3600 == (241 if doubled else 239)
    # a row each five minutes of the time that went by
    rows = [{"at": start + 300 * i, "x": i % 10} for i in range(int(end - start) // 300)]
    learned = build(opened(tmp_path, rows), settings={"x": SEASON}, timezone="Europe/Berlin")
    hours = [sum(counts) for counts in season(learned, "x").hours]
    assert hours == [12 * (11 if hour == doubled else 9 if hour == halved else 10) for hour in range(24)]
    assert column(learned, "x").days == build(opened(tmp_path, rows), timezone="Europe/Berlin").columns[0].days


def test_times_that_say_no_zone_are_local(tmp_path: Path) -> None:
    rows = [{"at": f"2026-07-{day:02} 23:30", "x": i % 7} for day in range(1, 9) for i in range(200)]
    learned = build(opened(tmp_path, rows, BERLIN), settings={"x": SEASON}, timezone="Europe/Berlin")
    assert [hour for hour, counts in enumerate(season(learned, "x").hours) if sum(counts)] == [23]
    learned = build(opened(tmp_path, rows, BERLIN), settings={"x": SEASON}, timezone="UTC")
    assert [hour for hour, counts in enumerate(season(learned, "x").hours) if sum(counts)] == [21]


# -- values ------------------------------------------------------------------------------------------------------------


def test_categories(tmp_path: Path) -> None:
    """True and 1 are two; the alarm has the 20 most frequent ones; what is no category is missing."""
    values: list[object] = [True, 1, 1.0, "1", 0, False, "true", None, [2], *(f"c{i % 25:02}" for i in range(191))]
    rows = [{"at": f"2026-07-{day:02}T08:00Z", "x": value} for day in range(1, 9) for value in values]
    learned = build(opened(tmp_path, rows), settings={"x": ColumnConfig(season=True, type="categorical")})
    found = column(learned, "x")
    hour = by_label(found, season(learned, "x").hours[8])
    # 8 days; of 25 names 16 are there 8 times a day and 9 are there 7 times; "1" is there thrice, "true" twice
    often, rest = [f"c{i:02}" for i in range(16)], [f"c{i:02}" for i in range(16, 25)]
    expected = dict.fromkeys(often, 64) | dict.fromkeys(rest[:4], 56)
    expected |= {"__other__": 8 * (5 * 7 + 3 + 1 + 1 + 2), "__missing__": 16}
    assert hour == expected


def test_booleans_and_numbers_of_a_wrong_type(tmp_path: Path) -> None:
    flags: list[object] = [True, 1, "true", "True", False, 0, "maybe", None, {}, *[True, False] * 100]
    numbers: list[object] = [True, "5", None, [], *range(205)]
    rows = [
        {"at": f"2026-07-{day:02}T08:00Z", "flag": flag, "x": number}
        for day in range(1, 8)
        for flag, number in zip(flags, numbers, strict=True)
    ]
    settings = {"flag": ColumnConfig(season=True, type="boolean"), "x": ColumnConfig(season=True, type="numeric")}
    learned = build(opened(tmp_path, rows), settings=settings)
    flag = by_label(column(learned, "flag"), season(learned, "flag").hours[8])
    # "True" and "maybe" are no booleans, but they were there: others
    assert flag == {"true": 7 * 103, "false": 7 * 102, "__other__": 14, "__missing__": 14}
    x = by_label(column(learned, "x"), season(learned, "x").hours[8])
    assert x["__missing__"] == 21  # True is 1
    assert sum(x.values()) == 7 * 209


# -- days --------------------------------------------------------------------------------------------------------------


def normal_days(days: int, rows: int, means: dict[int, float]) -> list[Row]:
    draw = np.random.default_rng(3)
    return [
        {
            "at": (BEGIN + timedelta(days=day, seconds=int(second))).isoformat(),
            "x": float(draw.normal(means.get(day, 0))),
        }
        for day in range(days)
        for second in np.sort(draw.integers(0, 86_400, rows))
    ]


def test_a_day_that_is_off_is_listed_and_does_not_count_as_usual(tmp_path: Path) -> None:
    learned = build(opened(tmp_path, normal_days(30, 400, {12: 2.0})))
    (found,) = learned.columns
    days = found.days
    assert days is not None
    ((date, off), *others) = sorted(days.beyond, key=lambda day: -day[1])
    # two standard deviations: 2, less what is lost where the other 29 days and the bins take a part of it
    assert date == "2026-03-14"
    assert 1.0 < off < 2.0
    assert all(own < 0.1 for _, own in others)
    assert days.divergence.usual < 0.05
    assert days.count == 30


@pytest.mark.parametrize(("days", "rows", "kept"), [(6, 300, 6), (12, 150, 0)])
def test_too_few_days_or_too_short_ones(days: int, rows: int, kept: int, tmp_path: Path) -> None:
    dataset = opened(tmp_path, normal_days(days, rows, {}))
    learned = build(dataset)
    assert dataset.warnings == [
        f"days with 200 rows or more: {kept}; a season and a tolerance are learned from 7 of them or more"
    ]
    assert all(found.season is None and found.days is None for found in learned.columns)
    # what is not told by days is the same as without times
    plain = open_dataset(dataset.path, DataConfig(id="at"))
    assert encode(learned) == encode(build(plain))


def test_rows_without_a_time(tmp_path: Path) -> None:
    rows = everyday()
    for row in rows[5::10]:
        row["at"] = None
    dataset = opened(tmp_path, rows)
    learned = build(dataset, settings={"flat": SEASON})
    assert dataset.warnings == ["480 rows have no time; they are in the baseline, and in no hour or day of it"]
    assert learned.rows == sum(column(learned, "flat").counts) == 4800
    assert [sum(counts) for counts in season(learned, "flat").hours] == [180] * 24


def test_too_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_DAYS", 9)
    path = write(tmp_path / "data.jsonl", everyday())
    message = f"{path}: more than 9 days; no history is as long: is the time of all rows right?"
    with pytest.raises(DatasetError) as error:
        build(open_dataset(path, TIMED))
    assert str(error.value) == message
    result = run("build", path, "-o", tmp_path / "b.json", "--time-column=at")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {message}\n")
    assert not (tmp_path / "b.json").exists()


# -- the same data, the same bytes -------------------------------------------------------------------------------------


def test_chunks_are_not_to_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = opened(tmp_path, everyday()).path
    settings = {"flat": SEASON, "plan": ColumnConfig(timezone="Asia/Tokyo")}

    def built(memory_limit: int = 1 << 30) -> bytes:
        return encode(build(open_dataset(path, TIMED), settings=settings, memory_limit=memory_limit))

    whole = built()
    monkeypatch.setattr(source, "CHUNK_CELLS", 1)
    assert built() == whole
    monkeypatch.setattr(daily, "_BLOCK", 100)
    assert built() == whole


@pytest.mark.parametrize("memory_limit", [1 << 30, 0])
def test_the_order_of_the_rows_does_not_matter(memory_limit: int, tmp_path: Path) -> None:
    """To hours and days; a mean is off by a rounding."""
    rows = everyday()
    mixed = [rows[i] for i in np.random.default_rng(2).permutation(len(rows)).tolist()]
    there, here = (
        build(opened(tmp_path, own), settings={"flat": SEASON}, memory_limit=memory_limit) for own in (rows, mixed)
    )
    assert [(c.season, c.days) for c in there.columns] == [(c.season, c.days) for c in here.columns]


def write_parquet(path: Path, rows: list[Row]) -> Path:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["at"] = pa.array([datetime.fromisoformat(text) for text in columns["at"]], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(("suffix", "write_file"), [("csv", write_csv), ("parquet", write_parquet)])
def test_every_format_tells_the_same(
    suffix: str, write_file: Callable[[Path, list[Row]], Path], tmp_path: Path
) -> None:
    rows = [{name: value for name, value in row.items() if name != "prediction"} for row in everyday()]
    settings = {"flat": SEASON, "paid": SEASON}
    other = open_dataset(write_file(tmp_path / f"data.{suffix}", rows), TIMED)
    assert encode(build(other, settings=settings)) == encode(build(opened(tmp_path, rows), settings=settings))


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(baseline_group, [str(argument) for argument in arguments])


CONFIG = """
detection: {timezone: Europe/Berlin}
models:
- name: m
  baseline: b.json
  data: {time: at}
  columns: {wave: {season: false}, flat: {season: true, timezone: Asia/Tokyo, page_tolerance: 0.5}}
"""


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    rows = everyday()
    for row in rows[480 * 5 : 480 * 6]:
        row["flat"] = 100.0
    data, output, config = write(tmp_path / "data.jsonl", rows), tmp_path / "b.json", tmp_path / "c.yml"
    config.write_text(CONFIG)
    result = run("build", data, "-o", output, "--config.file", config)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"{output}: 4,800 rows, 6 columns ")
    assert len(result.stderr.splitlines()) == 1
    learned = read(output)
    assert (season(learned, "flat").timezone, season(learned, "plan").timezone) == ("Asia/Tokyo", "Europe/Berlin")
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in result.stdout.splitlines()]
    assert lines[0] == ["role", "name", "season", "days", "warn", "page", "days beyond (and how far)"]
    # in Berlin and in Tokyo the data begin or end with a day of fewer than 200 rows
    assert [line[:4] for line in lines[1:]] == [
        ["feature", "flat", "Asia/Tokyo", "10"],
        ["feature", "paid", "-", "10"],
        ["feature", "plan", "Europe/Berlin", "10"],
        ["feature", "wave", "-", "10"],
        ["prediction", "confidence", "-", "10"],
        ["prediction", "prediction", "-", "10"],
    ]
    flat = lines[1]
    assert flat[5] == "0.5000"
    assert "2026-03-07" in flat[6]


def test_without_times_there_is_no_table(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "at"} for row in everyday()]
    result = run("build", write(tmp_path / "data.jsonl", rows), "-o", tmp_path / "b.json")
    assert (result.exit_code, result.stdout) == (0, "")
    shown = run("show", tmp_path / "b.json").stdout
    assert "\nalarm: tolerances as Kullback-Leibler divergence, without a configuration\nrole " in shown


def test_progress_tells_the_third_pass(tmp_path: Path) -> None:
    dataset = opened(tmp_path, everyday())
    for limit, passes in ((1 << 30, {1, 3}), (0, {1, 2, 3})):
        done: Counter[int] = Counter()

        def progress(number: int, units: int, done: Counter[int] = done) -> None:
            done[number] += units

        build(dataset, memory_limit=limit, progress=progress)
        assert done == dict.fromkeys(passes, dataset.units)


def test_a_file_that_grows_before_the_last_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("at,x\n" + "".join(f"{1.77e9 + 60 * i},{i % 7}\n" for i in range(12_000)))
    passes: set[int] = set()

    def progress(number: int, _: int) -> None:
        if number == 3 and 3 not in passes:
            with path.open("a") as file:
                file.write("1770000000,3\n" * 5000)
        passes.add(number)

    with pytest.raises(DatasetError, match="it changed while it was read"):
        build(open_dataset(path, TIMED), progress=progress)
    assert 3 in passes
