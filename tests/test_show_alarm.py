"""The table of what the drift alarm makes of a baseline."""

import msgspec
import numpy as np
import pytest
from scipy import stats

from conftest import baseline, categorical, numeric
from mlexporter.baseline import Baseline, Column, Days, Season, Variation, sealed
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.samples import Role
from mlexporter.show_alarm import alarm_table

ROWS = 100_000
UNIFORM = np.linspace(0.0005, 0.9995, ROWS)
EDGES = [0.0, 0.25, 0.5, 0.75, 1.0]
NONE = Variation(typical=0.0, usual=0.0)


def history(typical: float, usual: float, *beyond: tuple[str, float]) -> Days:
    return Days(
        count=30, divergence=Variation(typical=typical, usual=usual), missing=NONE, strange=NONE, beyond=tuple(beyond)
    )


def with_days(column: Column, days: Days, season: Season | None = None) -> Column:
    return msgspec.structs.replace(column, days=days, season=season)


def table(
    *columns: Column, settings: dict[str, ColumnConfig] | None = None, detection: DetectionConfig | None = None
) -> list[str]:
    profile = sealed(Baseline(rows=ROWS, columns=columns))
    return alarm_table(profile, detection or DetectionConfig(), settings or {})


def cells(line: str) -> list[str]:
    """Columns are two blanks or more apart."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_without_times() -> None:
    small = numeric("a", EDGES, UNIFORM[:: ROWS // 1000])
    lines = table(small, numeric("b", EDGES, UNIFORM), categorical("c", {"x": 10}, role=Role.LABEL))
    assert cells(lines[0]) == ["role", "name", "season", "days", "warn", "page", "days beyond (and how far)"]
    # what 1,000 rows in 7 bins, and 10 rows in 4, can resolve
    least = [stats.chi2.ppf(0.999, 6) / 2000, stats.chi2.ppf(0.999, 3) / 20]
    assert [cells(line) for line in lines[1:]] == [
        ["feature", "a", "-", "-", f"{least[0]:.4f}", "0.0200"],
        ["feature", "b", "-", "-", "0.0010", "0.0200"],
        ["label", "c", "-", "-", f"{least[1]:.4f}", f"{least[1]:.4f}"],
    ]
    assert least[0] == pytest.approx(0.0112, abs=5e-5)


def test_tolerances_of_days_and_of_the_configuration() -> None:
    column = numeric("a", EDGES, UNIFORM)
    days = history(0.01, 0.03)
    # a day in twenty to warn; four steps of ten from the median to page: 0.01 + 4 (0.03 - 0.01)
    assert cells(table(with_days(column, days))[1])[3:6] == ["30", "0.0300", "0.1300"]
    own = {"a": ColumnConfig(warn_tolerance=0.002)}
    assert cells(table(with_days(column, days), settings=own)[1])[4:6] == ["0.0020", "0.1300"]
    detection = DetectionConfig(warn_tolerance=0.04, page_tolerance=0.05)
    assert cells(table(with_days(column, days), detection=detection)[1])[4:6] == ["0.0400", "0.1300"]


def test_a_season_is_told_by_its_zone_and_its_median() -> None:
    """Eleven hours have 1,000 rows, the others 100 times as many: the median of the hours is one of the others."""
    column = numeric("a", EDGES, UNIFORM)
    hours = tuple((0, *[250 if hour < 11 else 25_000] * 4, 0, 0) for hour in range(24))
    season = Season(timezone="Asia/Kathmandu", hours=hours)
    seasonal = with_days(column, history(0.0, 0.0), season)
    assert cells(table(seasonal)[1])[2:6] == ["Asia/Kathmandu", "30", "0.0010", "0.0200"]
    scarce = msgspec.structs.replace(season, hours=hours[:11] + hours[:11] + hours[-2:])
    expected = f"{stats.chi2.ppf(0.999, 6) / 2000:.4f}"
    assert cells(table(with_days(column, history(0.0, 0.0), scarce))[1])[4] == expected
    off = {"a": ColumnConfig(season=False)}
    assert cells(table(seasonal, settings=off)[1])[2:6] == ["-", "30", "0.0010", "0.0200"]


def test_days_beyond() -> None:
    """The four that are furthest off, in the order of time."""
    column = numeric("a", EDGES, UNIFORM)
    days = [(f"2026-01-{day:02}", off) for day, off in [(1, 0.2), (5, 0.123456), (7, 1.5), (9, 0.3), (20, 0.05)]]
    told = cells(table(with_days(column, history(0, 0, *days)))[1])[-1]
    assert told == "2026-01-01 (0.2), 2026-01-05 (0.123), 2026-01-07 (1.5), 2026-01-09 (0.3) and 1 more"
    told = cells(table(with_days(column, history(0, 0, *days[:2])))[1])[-1]
    assert told == "2026-01-01 (0.2), 2026-01-05 (0.123)"


def test_hostile_and_long_names_keep_the_table_whole() -> None:
    lines = table(numeric("\x1b[2J\n", EDGES, UNIFORM), numeric("n" * 200, EDGES, UNIFORM))
    assert cells(lines[1])[1] == "?[2J?"
    assert cells(lines[2])[1] == "n" * 39 + "…"
    assert len(lines) == 3
    assert len({line.index("0.0200") for line in lines[1:]}) == 1


def test_an_empty_baseline_accepts_everything() -> None:
    (column,) = baseline(numeric("a", EDGES, [])).columns
    assert cells(table(column)[1])[4:] == ["inf", "inf"]
