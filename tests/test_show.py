from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from mlexporter.baseline import Baseline, CategoricalColumn, Column, Days, NumericColumn, Season, Variation, sealed
from mlexporter.binning import alarm_starts
from mlexporter.columns import learn_column
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.samples import Role
from mlexporter.show import WIDTH, render, warnings
from mlexporter.show_alarm import alarm_table


def baseline(*columns: Column, rows: int = 1000, **fields: object) -> Baseline:
    return sealed(Baseline(rows=rows, columns=columns, **fields))  # type: ignore[arg-type]


def column(values: Sequence[object], name: str = "x", role: Role = Role.FEATURE) -> Column:
    return learn_column(role, name, values, None)


def line(shown: str, name: str) -> str:
    (found,) = (text for text in shown.splitlines() if f" {name} " in text)
    return found


def shape(values: Sequence[object]) -> str:
    return line(render(baseline(column(values))), "x").rpartition("  ")[2]


def test_whole_page() -> None:
    page = render(
        baseline(
            column([0.0] * 500 + [float(i) for i in range(1, 501)], "amount"),
            column(["pro"] * 500 + ["free"] * 250 + ["team"] * 240 + [None] * 10, "plan"),
            column([True] * 100 + [False] * 900, "flag"),
            column([0.25, 0.75] * 500, "prediction", Role.PREDICTION),
            model="churn",
            version="7",
        )
    )
    lines = page.splitlines()
    assert lines[:4] == ["model    churn", "version  7", "rows     1,000", "columns  4"]
    assert lines[4].startswith("hash     ")
    assert lines[5:8] == ["source   file", "format   2", ""]
    assert lines[8:] == [
        "role        name        type         rows missing               min mean   sd  max bins  shape",
        # half of the values are 0, which has a bin of its own; the others lie evenly from 1 to 500
        "feature     amount      numeric     1,000    0.0%                 0  125  162  500    6  █▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
        "feature     flag        boolean     1,000    0.0% 2: false 90%, true 10%              2  █▁",
        "feature     plan        categorical 1,000    1.0% 3: pro 51%, free 25%, team 24%      3  █▄▄",
        "prediction  prediction  numeric     1,000    0.0%              0.25  0.5 0.25 0.75    2  ██",
    ]


def test_numeric_line() -> None:
    x = np.arange(1.0, 1001.0)
    text = line(render(baseline(column([*x.tolist(), *[None] * 250], "amount"), rows=1250)), "amount")
    cells = text.split()
    # 1..1000: mean 500.5, variance (1000² - 1) / 12
    assert cells[:10] == ["feature", "amount", "numeric", "1,250", "20.0%", "1", "500", "289", "1e+03", "10"]
    assert cells[10] == "█" * 20


def test_categorical_line() -> None:
    values = ["a"] * 600 + ["b"] * 300 + ["c"] * 90 + ["d"] * 10
    text = line(render(baseline(column(values))), "x")
    assert "4: a 60%, b 30%, c 9.0%" in text
    assert text.endswith("  4  █▄▂▁")


def test_boolean_line() -> None:
    text = line(render(baseline(column([True] * 250 + [False] * 750))), "x")
    assert "boolean" in text
    assert "2: false 75%, true 25%" in text


def test_shapes() -> None:
    rng = np.random.default_rng(1)
    normal = shape(rng.normal(size=50_000).tolist())
    assert len(normal) == 20
    middle, tails = normal[8:12], normal[:2] + normal[-2:]
    assert set(middle) <= set("▇█")
    assert set(tails) <= set("▁▂")
    falling = shape(rng.exponential(size=50_000).tolist())
    assert falling[0] == "█"
    assert list(falling) == sorted(falling, reverse=True)
    assert shape([5.0] * 100) == "█"
    assert shape([1.0] * 100 + [2.0] * 400 + [9.0] * 800) == "▁▄█"  # a bar for each value
    assert shape([0.0] * 800 + [1.0] * 100) == "█▁"


@pytest.mark.parametrize("values", [[1e308, -1e308, 0.0, 5.0], [5e-324, 1e-323, 0.0], [float("inf")], [None]])
def test_odd_columns_are_shown(values: list[object]) -> None:
    page = render(baseline(learn_column(Role.FEATURE, "x", values * 100, "numeric")))
    assert "numeric" in page
    assert "nan" not in page
    assert all(len(text) <= WIDTH for text in page.splitlines())


def test_page_fits_its_width() -> None:
    rng = np.random.default_rng(1)
    columns = [
        column((rng.normal(size=1000) * -1e-200).tolist(), "long" * 60),
        column([f"category {'x' * 90} {i % 70}" for i in range(1000)], "\u8cb7\u3044\u7269" * 20),
        column([1e300, -1e300] * 500, "odd\nname\t\x1b[31m", Role.PREDICTION),
    ]
    big: list[Column] = [msgspec.structs.replace(c, counts=tuple(k * 1_000_000 for k in c.counts)) for c in columns]
    page = render(baseline(*big, rows=10**9, model="m" * 300))
    assert all(len(text) <= WIDTH for text in page.splitlines())
    assert "\x1b" not in page
    assert "odd?nam" in page
    assert "\u2026" in page


def test_no_columns() -> None:
    assert "columns  0" in render(baseline())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (199, ["only 199 rows: below 200 there are no distances, only rates"]),
        (200, ["only 200 rows: below 820 the baseline's own error hides shifts of 0.2 standard deviations"]),
        (819, ["only 819 rows: below 820 the baseline's own error hides shifts of 0.2 standard deviations"]),
        (820, []),
    ],
)
def test_warning_of_few_rows(rows: int, expected: list[str]) -> None:
    assert warnings(baseline(column([1.0, 2.0] * 500), rows=rows)) == expected


def test_warnings() -> None:
    numeric = column([*range(980), *["x"] * 20], "age")
    assert isinstance(numeric, NumericColumn)
    plan = column(["a", "b"] * 500, "plan")
    assert isinstance(plan, CategoricalColumn)
    given = baseline(
        msgspec.structs.replace(numeric, rank_error=0.00042),
        msgspec.structs.replace(plan, complete=False, invalid=3),
        column([None] * 1000, "gone"),
    )
    assert warnings(given) == [
        "edges by sketch, within 0.04% of the rows of their quantiles: age",
        "feature age: 20 values (2.0%) are no numbers and count as missing",
        "feature gone: all values are missing",
        "feature plan: 3 values (0.3%) are no categories and count as missing",
        "feature plan: too many categories to list, so one that is new counts as __other__",
    ]
    assert render(given).count("\nwarning: ") == 5


def test_provisional() -> None:
    assert "source   learned, provisional\n" in render(baseline(source="learned", provisional=True))


# -- the table of the alarm --------------------------------------------------------------------------------------------

HEADINGS = ["role", "name", "season", "days", "warn", "page", "days", "beyond", "(and", "how", "far)"]
NONE = Variation(typical=0.0, usual=0.0)


def amount(name: str = "amount", rows: int = 40_000) -> Column:
    """Ten bins with as many rows each."""
    return column([float(i % 10) for i in range(rows)], name)


def with_days(of: Column, divergence: Variation, *beyond: tuple[str, float]) -> Column:
    days = Days(count=30, divergence=divergence, missing=NONE, strange=NONE, beyond=beyond)
    return msgspec.structs.replace(of, days=days)


def seasonal(of: Column, rows: Sequence[int]) -> Column:
    """With so many rows at each hour, spread evenly over ten bins."""
    empty = len(alarm_starts(of)) - 12
    hours = tuple((0, *[count // 10] * 10, *[0] * (empty + 1)) for count in rows)
    return msgspec.structs.replace(of, season=Season(timezone="Europe/Berlin", hours=hours))


def alarm_cells(
    *columns: Column, detection: DetectionConfig | None = None, **settings: ColumnConfig
) -> dict[str, list[str]]:
    """The cells of each line of the table, by the name of the column."""
    headings, *lines = alarm_table(baseline(*columns), detection or DetectionConfig(), settings)
    assert headings.split() == HEADINGS
    return {cells[1]: cells for cells in map(str.split, lines)}


def test_alarm_table_of_a_baseline_without_times() -> None:
    plan = column(["free", "pro"] * 20_000, "plan")
    score = column([0.25, 0.75] * 20_000, "prediction", Role.PREDICTION)
    assert alarm_table(baseline(amount(), plan, score), DetectionConfig(), {}) == [
        "role        name        season  days    warn    page  days beyond (and how far)",
        "feature     amount      -          -  0.0010  0.0200",
        "feature     plan        -          -  0.0010  0.0200",
        "prediction  prediction  -          -  0.0010  0.0200",
    ]


def test_alarm_table_tells_what_is_accepted() -> None:
    small, wild = amount("small", 1000), with_days(amount("wild"), Variation(typical=0.01, usual=0.05))
    shown = alarm_cells(small, wild)
    # chi-square with 12 degrees of freedom at 0.999 is 32.909; over 2 x 1,000
    assert shown["small"][2:] == ["-", "-", "0.0165", "0.0200"]
    # the 95 % quantile of the days; and the median plus four times the way to it
    assert shown["wild"][2:] == ["-", "30", "0.0500", "0.2500"]
    own = ColumnConfig(warn_tolerance=0.002, page_tolerance=0.3)
    assert alarm_cells(small, wild, wild=own, small=own)["wild"][4:] == ["0.0020", "0.3000"]
    assert alarm_cells(small, wild, wild=own, small=own)["small"][4:] == ["0.0165", "0.3000"]
    calm = DetectionConfig(warn_tolerance=0.07, page_tolerance=0.1)
    assert alarm_cells(small, wild, detection=calm)["wild"][4:] == ["0.0700", "0.2500"]


def test_alarm_table_lists_the_worst_days_in_order() -> None:
    days = [(f"2026-01-{day:02}", off) for day, off in enumerate([0.3, 0.02, 1.8213, 0.03, 0.04, 0.05], start=1)]
    few, many = alarm_table(
        baseline(with_days(amount("few"), NONE, *days[:2]), with_days(amount("many"), NONE, *days)),
        DetectionConfig(),
        {},
    )[1:]
    assert few.endswith("  2026-01-01 (0.3), 2026-01-02 (0.02)")
    assert many.endswith("  2026-01-01 (0.3), 2026-01-03 (1.82), 2026-01-05 (0.04), 2026-01-06 (0.05) and 2 more")


def test_alarm_table_of_a_column_with_a_season() -> None:
    # three hours with few rows do not move the median of the hours: 32.909 over 2 x 5,000
    wave = seasonal(amount("wave", 105_600), [*[200] * 3, *[5000] * 21])
    assert alarm_cells(wave)["wave"][2:] == ["Europe/Berlin", "-", "0.0033", "0.0200"]
    assert alarm_cells(wave, wave=ColumnConfig(season=False))["wave"][2:] == ["-", "-", "0.0010", "0.0200"]


def test_alarm_table_is_safe_to_print() -> None:
    page = "\n".join(alarm_table(baseline(column([1.0, 2.0] * 100, "odd\x1b[31m" * 20)), DetectionConfig(), {}))
    assert "\x1b" not in page
    assert "odd?[31m" in page
    assert "\u2026" in page
