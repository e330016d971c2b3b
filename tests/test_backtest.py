"""A backtest says what `serve` would have said: rows sent one tick after the other, by hand, tell the same."""

import csv
import functools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from conftest import baseline, categorical, numeric
from mlexporter import backtest as backtest_module
from mlexporter import decode
from mlexporter.backtest import Backtest
from mlexporter.baseline import Baseline, encode, sealed
from mlexporter.builder import build
from mlexporter.cli import main
from mlexporter.columns import ColumnType
from mlexporter.config import ColumnConfig, Config, DataConfig, ModelConfig
from mlexporter.dataset import open_dataset, source
from mlexporter.samples import Role
from mlexporter.store import Store

TICK = 15
BEGIN = 1_780_000_005  # a tick begins here: 2026-05-28, 20:26:45 UTC
CONFIG = Config(models=(ModelConfig(name="m", version="1"),))

Row = dict[str, Any]


class Told(NamedTuple):
    """A change of an alarm, but for numbers that are not exact."""

    tick: int
    time: float | None
    rows: int
    role: str
    column: str
    tier: str
    state: str


def profile() -> Baseline:
    draw = np.random.default_rng(0)
    ages = draw.normal(40, 10, 5000)
    ages[:100] = np.nan
    return baseline(
        numeric("age", np.quantile(ages[100:], np.linspace(0, 1, 11)).tolist(), ages),
        categorical("plan", {"free": 3000, "pro": 1500, "3": 500}),
        categorical("paid", {"false": 4000, "true": 1000}, boolean=True),
        categorical("prediction", {"yes": 2500, "no": 2500}, role=Role.PREDICTION),
        numeric("confidence", np.linspace(0.5, 1, 11).tolist(), draw.uniform(0.5, 1, 5000), role=Role.PREDICTION),
        numeric("label", [-0.5, 0.5, 1.5], draw.integers(0, 2, 5000), role=Role.LABEL),
    )


PROFILE = profile()
TYPES: dict[str, ColumnType | None] = {
    "age": "numeric", "plan": "categorical", "paid": "boolean", "prediction": "categorical",
    "confidence": "numeric", "label": "numeric",
}  # fmt: skip


@functools.cache
def samples(rows: int, seed: int = 1) -> list[Row]:
    """As a client sends them. In the second third all columns but one are off, the last third is as the first."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(rows):
        off = rows <= 3 * i < 2 * rows
        score = float(draw.uniform(0.5, 0.8 if off else 1))
        yes = draw.random() < (0.8 if off else 0.5)
        odd = draw.random()
        age = draw.normal(40, 20 if off else 10)
        found.append(
            {
                "features": {
                    "age": None
                    if odd < 0.02
                    else "?"
                    if odd < (0.15 if off else 0.03)
                    else age
                    if odd < 0.9
                    else int(age),
                    "plan": "new" if off and odd < 0.1 else draw.choice(["free", "pro", "3"], p=[0.6, 0.3, 0.1]).item(),
                    "paid": bool(draw.random() < (0.5 if off else 0.2)),
                },
                "prediction": {"yes": score if yes else 1 - score, "no": 1 - score if yes else score},
                "label": int(draw.random() < (0.8 if off else 0.5)),
            }
        )
    return found


def by_hand(profile: Baseline, groups: Sequence[tuple[float, list[Row]]], config: Config = CONFIG) -> Iterator[Any]:
    """What the exporter says of the samples of ticks that end at these times: each tick's alarm, after it."""
    now = groups[0][0]
    store = Store(config, {("m", "1"): profile}, lambda: now)
    for time, rows in groups:
        now = time
        for i in range(0, len(rows), 37):
            body = json.dumps({"model": "m", "version": "1", "samples": rows[i : i + 37]}).encode()
            decoded = decode.decode(body, "application/json")
            assert store.observe(decoded.batches).accepted == len(rows[i : i + 37])
        store.tick()
        yield store.alarm("m", "1")


def changes(
    profile: Baseline, groups: Sequence[tuple[int, float, list[Row]]], *, timed: bool, config: Config = CONFIG
) -> tuple[list[Told], list[float]]:
    """The changes, with the evidence of each, of ticks with these numbers."""
    told: list[Told] = []
    evidence: list[float] = []
    columns = Backtest(config, profile).columns
    alarms = by_hand(profile, [(time, rows) for _, time, rows in groups], config)
    was = np.zeros((2, len(columns)), dtype=bool)
    seen = 0
    for (number, time, rows), alarm in zip(groups, alarms, strict=True):
        seen += len(rows)
        for i, column in enumerate(columns):
            for tier, name in enumerate(("warn", "page")):
                if alarm.firing[tier, i] != was[tier, i]:
                    state = "firing" if alarm.firing[tier, i] else "resolved"
                    told.append(Told(number, time if timed else None, seen, column.role, column.name, name, state))
                    evidence.append(float(alarm.evidence.log_evidence[tier, i]))
        was = alarm.firing
    return told, evidence


def replayed(
    profile: Baseline,
    path: Path,
    rows_per_tick: int | None,
    data: DataConfig | None = None,
    zone: ZoneInfo | None = None,
    config: Config = CONFIG,
) -> tuple[list[Told], list[float], Backtest]:
    backtest = Backtest(config, profile)
    found = list(backtest.replay(open_dataset(path, data, zone or UTC), TYPES, rows_per_tick))
    told = [Told(c.tick, c.time, c.rows, c.role, c.column, c.tier, c.state) for c in found]
    return told, [c.log_evidence for c in found], backtest


def write_nested(path: Path, rows: list[Row]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def flat(row: Row) -> Row:
    return {**row["features"], **{name: value for name, value in row.items() if name != "features"}}


def write_flat(path: Path, rows: list[Row]) -> Path:
    return write_nested(path, [flat(row) for row in rows])


def with_top_class(row: Row) -> Row:
    given = flat(row)
    top = max(row["prediction"], key=row["prediction"].__getitem__)
    return given | {"prediction": top, "confidence": row["prediction"][top]}


def write_csv(path: Path, rows: list[Row]) -> Path:
    path = path.with_suffix(".csv")
    given = [with_top_class(row) for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(given[0]))
        writer.writeheader()
        writer.writerows(given)
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    """Which knows no values of a wrong type: they are missing there, as they are to the alarm."""
    path = path.with_suffix(".parquet")
    given = [with_top_class(row) for row in rows]
    columns = {name: [row[name] for row in given] for name in given[0]}
    columns["age"] = [None if isinstance(value, str) else value for value in columns["age"]]
    pq.write_table(pa.table(columns), path)
    return path


def groups_of(rows: list[Row], size: int) -> list[tuple[int, float, list[Row]]]:
    """Rows a tick, whenever it is: without seasons the time does not matter."""
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(number, 1e9 + TICK * number, part) for number, part in enumerate(parts, start=1)]


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 1,024 rows, and requests of 100."""
    monkeypatch.setattr(source, "CHUNK_CELLS", 1)
    monkeypatch.setattr(backtest_module, "_MOST_ROWS", 100)


# -- rows per tick -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_nested, write_flat, write_csv, write_parquet])
@pytest.mark.parametrize("size", [200, 333])
@pytest.mark.usefixtures("short_chunks")
def test_it_says_what_the_exporter_would(write: Callable[[Path, list[Row]], Path], size: int, tmp_path: Path) -> None:
    rows = samples(9_100)
    told, evidence = changes(PROFILE, groups_of(rows, size), timed=False)
    found, found_evidence, backtest = replayed(PROFILE, write(tmp_path / "data", rows), size)
    assert found == told
    assert found_evidence == pytest.approx(evidence, rel=1e-12, abs=1e-12)
    # there is something to say: all columns drift, and are well again
    assert {(each.column, each.state) for each in told if each.tier == "warn"} == {
        (column.name, state) for column in PROFILE.columns for state in ("firing", "resolved")
    }
    assert backtest.totals.rows == 9_100
    assert backtest.totals.ticks == math.ceil(9_100 / size)
    assert (backtest.totals.late, backtest.totals.rejected) == (0, 0)
    assert backtest.log_threshold == pytest.approx(math.log(6 * 30 * 86400 / 15), abs=1e-12)
    assert backtest.seen == {(column.role, column.name) for column in PROFILE.columns}


def test_chunks_are_not_to_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_flat(tmp_path / "data", samples(5_000))
    whole = replayed(PROFILE, path, 300)[:2]
    monkeypatch.setattr(source, "CHUNK_CELLS", 1)
    assert replayed(PROFILE, path, 300)[:2] == whole
    assert whole[0]


def test_totals(tmp_path: Path) -> None:
    rows = samples(9_000)
    backtest = replayed(PROFILE, write_flat(tmp_path / "data", rows), 200)[2]
    alarms = list(by_hand(PROFILE, [(1e9 + TICK * i, rows[200 * i : 200 * (i + 1)]) for i in range(45)]))
    firing = np.array([alarm.firing for alarm in alarms])
    begun = np.diff(firing.astype(int), axis=0, prepend=0) == 1
    assert backtest.totals.firing.tolist() == firing.sum(axis=0).tolist()
    assert backtest.totals.alarms.tolist() == begun.sum(axis=0).tolist()
    assert backtest.totals.alarms[0].min() >= 1


def test_tolerances_of_the_configuration(tmp_path: Path) -> None:
    columns = {"age": ColumnConfig(warn_tolerance=2, page_tolerance=3)}
    config = Config(models=(ModelConfig(name="m", version="1", columns=columns),))
    rows = samples(6_000)
    found, evidence, _ = replayed(PROFILE, write_flat(tmp_path / "data", rows), 200, config=config)
    told, expected = changes(PROFILE, groups_of(rows, 200), timed=False, config=config)
    assert found == told
    assert evidence == pytest.approx(expected, rel=1e-12)
    assert "age" not in {each.column for each in found}
    assert "plan" in {each.column for each in found}


# -- recorded time -----------------------------------------------------------------------------------------------------


def groups_by_time(rows: list[Row], times: list[float | None]) -> list[tuple[int, float, list[Row]]]:
    """A row comes in the tick of its time, or in the one that is where its own is over, or not known."""
    current = next(int(time // TICK) for time in times if time is not None)
    first = current
    groups: dict[int, list[Row]] = {}
    for row, time in zip(rows, times, strict=True):
        current = current if time is None else max(current, int(time // TICK))
        groups.setdefault(current, []).append(row)
    return [(number - first + 1, TICK * (number + 1.0), part) for number, part in groups.items()]


def moments(rows: int, seconds: float) -> list[float]:
    draw = np.random.default_rng(9)
    return [round(float(time), 2) for time in sorted(BEGIN + draw.uniform(0, seconds, rows))]


@pytest.mark.parametrize("write", [write_nested, write_flat, write_csv, write_parquet])
@pytest.mark.usefixtures("short_chunks")
def test_recorded_time(write: Callable[[Path, list[Row]], Path], tmp_path: Path) -> None:
    """With an hour, and with a week, in which nothing came; 20 rows in most of the ticks, none in some."""
    rows, times = samples(6_000), moments(6_000, 4_500)
    times = [time + (3600 if i > 2_100 else 0) + (7 * 86_400 if i > 4_500 else 0) for i, time in enumerate(times)]
    stamped = [
        row | {"at": datetime.fromtimestamp(time, UTC).isoformat()} for row, time in zip(rows, times, strict=True)
    ]
    groups = groups_by_time(rows, [*times])
    assert groups[-1][0] > 40_000 > 400 > len(groups)
    found, evidence, backtest = replayed(PROFILE, write(tmp_path / "data", stamped), None, DataConfig(time="at"))
    told, expected = changes(PROFILE, groups, timed=True)
    assert found == told
    assert evidence == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert len(told) > 6
    assert (backtest.totals.late, backtest.totals.ticks) == (0, len(groups))


@pytest.mark.usefixtures("short_chunks")
def test_rows_out_of_order_and_without_a_time(tmp_path: Path) -> None:
    rows = samples(6_000)
    draw = np.random.default_rng(4)
    times: list[float | None] = [time - (200 if draw.random() < 0.05 else 0) for time in moments(6_000, 3_000)]
    for i in [0, 1, *draw.integers(0, 6_000, 200).tolist(), *range(2000, 2100)]:
        times[i] = None
    groups = groups_by_time(rows, times)
    ends = [time for _, time, part in groups for _ in part]
    late = sum(time is None or time < end - TICK for time, end in zip(times, ends, strict=True))
    stamped = [row | {"at": time} for row, time in zip(rows, times, strict=True)]
    found, evidence, backtest = replayed(PROFILE, write_flat(tmp_path / "data", stamped), None, DataConfig(time="at"))
    told, expected = changes(PROFILE, groups, timed=True)
    assert found == told
    assert evidence == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert backtest.totals.late == late > 300


def wave(day: int, rows: int, zone: ZoneInfo, draw: np.random.Generator) -> list[Row]:
    """Rows of a local day in 2026, of a column that is higher in the afternoon."""
    start = datetime(2026, 5, 1 + day, tzinfo=zone).timestamp()
    times = np.sort(draw.integers(0, 288, rows)) * 300.0
    x = draw.normal(np.where(times < 43_200, -0.5, 0.5))
    return [{"x": value, "at": start + time} for value, time in zip(x.tolist(), times.tolist(), strict=True)]


def test_seasons_go_by_the_local_hour(tmp_path: Path) -> None:
    zone = ZoneInfo("Asia/Kathmandu")
    draw = np.random.default_rng(8)
    history = [row for day in range(10) for row in wave(day, 3_000, zone, draw)]
    dataset = open_dataset(write_nested(tmp_path / "history", history), DataConfig(time="at"), zone)
    learned = build(dataset, timezone="Asia/Kathmandu")
    (column,) = learned.columns
    assert column.season is not None
    # as usual, then half a day late
    live = wave(12, 3_000, zone, draw) + [row | {"at": row["at"] + 43_200} for row in wave(13, 3_000, zone, draw)]
    path = write_nested(tmp_path / "live", live)
    rows = [{"features": {"x": row["x"]}} for row in live]
    groups = groups_by_time(rows, [row["at"] for row in live])
    found, evidence, _ = replayed(learned, path, None, DataConfig(time="at"), zone)
    told, expected = changes(learned, groups, timed=True)
    assert found == told
    assert evidence == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert ("page", "firing") in {(each.tier, each.state) for each in told}
    assert all(each.time is not None and each.time > live[2_999]["at"] for each in told)


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["backtest", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def profile_file(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    path.write_bytes(encode(PROFILE))
    return path


def test_lines_for_machines(profile_file: Path, tmp_path: Path) -> None:
    rows = samples(9_000)
    data = write_flat(tmp_path / "data", rows)
    result = run(data, "--baseline", profile_file, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told, evidence = changes(PROFILE, groups_of(rows, 200), timed=False)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    fields = ["tick", "time", "rows", "role", "column", "tier", "state", "log_evidence", "psi"]
    assert all(list(line) == fields for line in lines)
    assert [Told(*list(line.values())[:7]) for line in lines] == told
    assert [line["log_evidence"] for line in lines] == pytest.approx(evidence, rel=1e-12)
    assert all(line["psi"] > 0 for line in lines if line["column"] == "paid" and line["state"] == "firing")


def test_lines_for_machines_with_times(profile_file: Path, tmp_path: Path) -> None:
    rows, times = samples(6_000), moments(6_000, 3_000)
    stamped = [row | {"at": time} for row, time in zip(rows, times, strict=True)]
    data = write_flat(tmp_path / "data", stamped)
    result = run(data, "--baseline", profile_file, "--json", "--time-column=at", "--timezone=Asia/Kolkata")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    told, _ = changes(PROFILE, groups_by_time(rows, [*times]), timed=True)
    assert [(line["tick"], datetime.fromisoformat(line["time"]).timestamp()) for line in lines] == [
        (each.tick, each.time) for each in told
    ]
    assert all(line["time"].endswith("+05:30") for line in lines)


TIMELINE = re.compile(r"(\d+)  (\S+(?: \S+)?) +([\d,]+)  (\w+) +(\S+) +(warn|page)  (\w+) +(-?[\d.]+) +([\d.]+|-)")


def test_lines_for_people(profile_file: Path, tmp_path: Path) -> None:
    rows = samples(9_000)
    data = write_flat(tmp_path / "data", rows)
    result = run(data, "--baseline", profile_file)
    assert (result.exit_code, result.stderr) == (0, "")
    head, *timeline = result.stdout[: result.stdout.index("\n\n")].splitlines()
    assert head.split() == ["tick", "time", "rows", "role", "column", "tier", "state", "evidence", "PSI"]
    told, evidence = changes(PROFILE, groups_of(rows, 200), timed=False)
    found = [match.groups() for line in timeline if (match := TIMELINE.fullmatch(line.strip()))]
    assert [(int(a), b, int(c.replace(",", "")), *rest) for a, b, c, *rest, _, _ in found] == [
        (each.tick, "-", *each[2:]) for each in told
    ]
    assert [float(each[7]) for each in found] == pytest.approx(evidence, abs=0.005)
    first, *summary = result.stdout[result.stdout.index("\n\n") + 2 :].splitlines()
    assert first == "9,000 rows in 45 ticks with samples, 6 columns; an alarm goes on at an evidence of 13.85"
    assert math.log(6 * 30 * 86400 / 15) == pytest.approx(13.85, abs=0.005)
    alarms = list(by_hand(PROFILE, [(1e9 + TICK * i, rows[200 * i : 200 * (i + 1)]) for i in range(45)]))
    firing = np.array([alarm.firing for alarm in alarms]).sum(axis=0)
    begun = [(each.role, each.column, each.tier) for each in told if each.state == "firing"]
    columns = [(column.role.value, column.name) for column in Backtest(CONFIG, PROFILE).columns]
    expected = sorted(
        (*key, str(begun.count(key)), f"{firing[('warn', 'page').index(key[2]), columns.index(key[:2])] / 45:.1%}")
        for key in set(begun)
    )
    heading, *table = [line.split() for line in summary]
    assert heading == ["role", "column", "tier", "alarms", "ticks", "firing"]
    assert table == [list(line) for line in expected]


def test_times_for_people_are_local(profile_file: Path, tmp_path: Path) -> None:
    rows = [flat(row) | {"age": 300, "at": "2026-01-31 23:30:07"} for row in samples(600)]
    data = write_nested(tmp_path / "data", rows)
    result = run(data, "--baseline", profile_file, "--time-column=at", "--timezone=Asia/Kolkata")
    line = next(line for line in result.stdout.splitlines() if " age " in line)
    assert line.split()[:4] == ["1", "2026-01-31", "23:30:15", "600"]


def test_nothing_to_say(profile_file: Path, tmp_path: Path) -> None:
    data = write_flat(tmp_path / "data", samples(6_000)[:2_000])
    result = run(data, "--baseline", profile_file, "--rows-per-tick=100")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "",
        "2,000 rows in 20 ticks with samples, 6 columns; an alarm goes on at an evidence of 13.85",
        "no alarm: it would neither have warned nor paged",
    ]


def test_settings_of_the_configuration(profile_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "mlexporter.yml"
    config.write_text(
        "detection: {false_alarm_every: 1d}\n"
        "models:\n- {name: m, version: '1', baseline: none.json, data: {prediction: said},"
        " columns: {age: {warn_tolerance: 2, page_tolerance: 3}}}\n"
        "- {name: other, baseline: none.json}\n"
    )
    rows = [
        {"said" if name == "prediction" else name: value for name, value in flat(row).items()} for row in samples(6000)
    ]
    data = write_nested(tmp_path / "data", rows)
    result = run(data, "--baseline", profile_file, "--config.file", config, "--model=m")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"at an evidence of {math.log(6 * 86400 / 15):.2f}\n" in result.stdout
    assert " age " not in result.stdout
    assert " prediction " in result.stdout
    result = run(data, "--baseline", profile_file, "--config.file", config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {config}: several models (m 1, other); choose one with --model and --version\n"


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_columns_that_are_not_there_count_as_missing(profile_file: Path, tmp_path: Path) -> None:
    data = write_nested(tmp_path / "data", [{"age": 40 + i % 7, "extra": 1} for i in range(1000)])
    result = run(data, "--baseline", profile_file, "--json")
    assert result.stderr == (
        'warning: not in the data, and counted as missing: "paid" and 4 more of the baseline\'s columns\n'
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"plan", "paid", "prediction", "confidence"} <= {line["column"] for line in lines}
    assert "extra" not in result.stdout


def test_late_rows_are_told(profile_file: Path, tmp_path: Path) -> None:
    rows = [flat(row) | {"at": BEGIN + i} for i, row in enumerate(samples(300))]
    rows[100]["at"] = None
    rows[200]["at"] -= 100
    rows[202]["at"] -= 1  # in the same tick: not late
    data = write_nested(tmp_path / "data", rows)
    result = run(data, "--baseline", profile_file, "--time-column=at")
    assert result.stderr == (
        "warning: 2 rows have no time, or one before that of a row above them; they count when they come. Is the file "
        "in the order of time?\n"
    )


def test_seasons_need_times(tmp_path: Path) -> None:
    """Without times what is usual at some hour of the day is held against all of it."""
    draw = np.random.default_rng(8)
    zone = ZoneInfo("UTC")
    history = [row for day in range(10) for row in wave(day, 2_000, zone, draw)]
    learned = build(open_dataset(write_nested(tmp_path / "history", history), DataConfig(time="at")))
    (tmp_path / "b.json").write_bytes(encode(learned))
    shuffled = [{"x": history[i]["x"]} for i in draw.permutation(len(history)).tolist()]
    data = write_nested(tmp_path / "data", shuffled)
    result = run(data, "--baseline", tmp_path / "b.json")
    assert result.stderr == (
        'warning: the season of "x" needs the time of each row; without --time-column it is left out, and the '
        "whole day stands in\n"
    )
    assert result.stdout.splitlines()[-1].startswith("no alarm: ")
    ordered = write_nested(tmp_path / "ordered", history)
    result = run(ordered, "--baseline", tmp_path / "b.json", "--time-column=at")
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1].startswith("no alarm: ")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_usage_errors(profile_file: Path, tmp_path: Path) -> None:
    data = write_nested(tmp_path / "data", [{"age": 1, "at": 1}])
    for options, message in [
        (["--rows-per-tick=5", "--time-column=at"], "--rows-per-tick and a time column exclude each other; give one"),
        (["--timezone=UTC"], "--timezone is of use with --time-column only; name the column of the times"),
        (
            ["--time-column=at", "--timezone=Europe/Berlim"],
            '"Europe/Berlim" is no time zone; did you mean Europe/Berlin?',
        ),
        (["--rows-per-tick=0"], "Invalid value for '--rows-per-tick': 0 is not in the range x>=1."),
    ]:
        result = run(data, "--baseline", profile_file, *options)
        assert (result.exit_code, result.stdout) == (2, "")
        last = result.stderr.splitlines()[-1]
        assert last.startswith("Error: ")
        assert message in last


def test_errors_are_a_line(profile_file: Path, tmp_path: Path) -> None:
    data = write_nested(tmp_path / "data", [{"age": 1, "at": 1}])
    broken = tmp_path / "broken.json"
    broken.write_bytes(encode(PROFILE).replace(b'"rows": 5000', b'"rows": 5001'))
    bad = write_nested(tmp_path / "bad", [{"age": 1, "at": "yesterday"}])
    config = tmp_path / "bad.yml"
    config.write_text("models: 5\n")
    cases: list[tuple[list[str | Path], str]] = [
        ([tmp_path / "none.csv", "--baseline", profile_file], f"{tmp_path / 'none.csv'}: no such file"),
        ([tmp_path / "data.txt", "--baseline", profile_file], "unknown format"),
        ([data, "--baseline", tmp_path / "none.json"], f"{tmp_path / 'none.json'}: cannot be read"),
        ([data, "--baseline", data], f"{data}: not a baseline"),
        ([data, "--baseline", broken], f"{broken}: its content does not match its hash"),
        ([data, "--baseline", profile_file, "--config.file", config], f"{config}:1:9: "),
        ([bad, "--baseline", profile_file, "--time-column=at"], f"{bad}:1: "),
    ]
    for arguments, message in cases:
        result = run(*arguments, "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert message in line


def test_what_was_said_before_a_broken_line_stands(profile_file: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"age": 300}) for _ in range(70_000)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([*rows, "{"]) + "\n")
    result = run(data, "--baseline", profile_file, "--json", "--rows-per-tick=1000")
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[0])["tick"] == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {data}:70001:")


def test_a_closed_pipe_is_no_error_to_see(profile_file: Path, tmp_path: Path) -> None:
    data = write_flat(tmp_path / "data", samples(9_000))
    command = [sys.executable, "-m", "mlexporter", "backtest", str(data), "--baseline", str(profile_file), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(20)


# -- rows that no request would hold as they are -----------------------------------------------------------------------

NORMAL = np.random.default_rng(0).normal(size=5000)
ONE = baseline(numeric("x", np.quantile(NORMAL, np.linspace(0, 1, 11)).tolist(), NORMAL))


def of_file(
    path: Path, profile: Baseline, data: DataConfig | None = None, types: dict[str, ColumnType | None] | None = None
) -> tuple[Backtest, list[Any]]:
    backtest = Backtest(CONFIG, profile)
    rows_per_tick = 200 if data is None else None
    return backtest, list(backtest.replay(open_dataset(path, data), types or {}, rows_per_tick))


def test_infinity_is_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "inf\n-inf\n1\n" * 500)
    backtest, _ = of_file(path, ONE, types={"x": "numeric"})
    assert backtest.totals.rejected == 0
    counts = backtest._store.snapshot().versions[0].counts
    assert counts is not None
    assert (counts.bins[0], counts.bins[-2], counts.bins[-1]) == (500, 500, 0)


@pytest.mark.parametrize(
    "rows",
    [
        # class to probability and a class alone, by turns
        [{"prediction": {"yes": 0.9, "no": 0.1}, "x": 1.0}, {"prediction": "no", "x": 1.0}],
        # a confidence that is missing, and classes that are no text
        [{"prediction": "yes", "confidence": 0.9}, {"prediction": "no"}],
        [{"prediction": True, "confidence": 0.9}, {"prediction": False, "confidence": 0.8}],
        [{"prediction": 1, "confidence": 0.9}, {"prediction": 0, "confidence": 0.8}],
    ],
)
def test_a_file_against_its_own_baseline_is_quiet(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows * 1000))
    profile = build(open_dataset(path))
    assert {column.name for column in profile.columns} >= {"prediction", "confidence"}
    assert of_file(path, profile)[1] == []


def test_rows_before_the_first_time_come_in_its_tick(tmp_path: Path) -> None:
    """More of them than a chunk holds"""
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n' * 70_000 + '{"x": 9, "t": "2026-01-01"}\n' * 200)
    backtest, found = of_file(path, ONE, DataConfig(time="t"))
    assert {change.tick for change in found} == {1}
    assert (backtest.totals.ticks, backtest.totals.late, backtest.totals.rows) == (1, 70_000, 70_200)


def test_no_time_at_all_is_an_error(profile_file: Path, tmp_path: Path) -> None:
    data = write_nested(tmp_path / "data", [{"features": {"age": 40}, "at": None}] * 300)
    result = run(data, "--baseline", profile_file, "--time-column=at")
    assert result.exit_code == 1
    assert "no row has a time" in result.stderr


def test_times_68_years_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,x\n1900-01-01,1\n" + "2026-01-01,1\n" * 500)
    _, found = of_file(path, ONE, DataConfig(time="t"))
    assert sorted((change.tier, change.state) for change in found) == [("page", "firing"), ("warn", "firing")]


@pytest.mark.parametrize("change", [{"model": "x" * 200}, {"version": "a\nb"}, {"provisional": True}])
def test_baselines_of_any_name_and_unfinished_ones(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(encode(sealed(msgspec.structs.replace(ONE, **change))))
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 500)
    result = run(tmp_path / "a.csv", "--baseline", tmp_path / "b.json", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[0])["state"] == "firing"
