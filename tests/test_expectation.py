"""What is expected at an hour, and what is accepted: by hand, per tier."""

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np
import pytest
from scipy import optimize, stats

from conftest import baseline, categorical, numeric
from mlexporter.baseline import Baseline, Column, Days, NumericColumn, Season, Variation
from mlexporter.binning import Binner, alarm_starts
from mlexporter.config import ColumnConfig, DetectionConfig
from mlexporter.expectation import TIERS, Expectations
from mlexporter.statistics import reference_of

NONE = Variation(typical=0.0, usual=0.0)
EDGES = tuple(np.linspace(0, 10, 11).tolist())


def expectations(
    profile: Baseline, settings: dict[str, ColumnConfig] | None = None, detection: DetectionConfig | None = None
) -> Expectations:
    binner = Binner(profile)
    return Expectations(profile, binner, reference_of(binner).bins, detection or DetectionConfig(), settings or {})


def amount(rows: int = 10_000, missing: int = 0, name: str = "amount") -> NumericColumn:
    """A column with as many rows in each of ten bins, none out of range."""
    inside = (np.arange(rows - missing) % 10) + 0.5
    return numeric(name, EDGES, np.append(inside, np.full(missing, np.nan)))


def with_days(
    column: NumericColumn, divergence: Variation = NONE, missing: Variation = NONE, strange: Variation = NONE
) -> NumericColumn:
    days = Days(count=30, divergence=divergence, missing=missing, strange=strange)
    return msgspec.structs.replace(column, days=days)


def seasonal(column: NumericColumn, hours: dict[int, Sequence[int]], timezone: str = "UTC") -> NumericColumn:
    """The column with these counts at some hours, and none at the others."""
    nothing = (0,) * len(alarm_starts(column))
    season = Season(timezone=timezone, hours=tuple(tuple(hours.get(hour, nothing)) for hour in range(24)))
    return msgspec.structs.replace(column, season=season)


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


CHI2_12 = 32.90949040736021
LEAST = CHI2_12 / 20_000


# -- drift of the shape ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "own", "expected"),
    [
        # what a baseline of 10,000 rows can resolve, and what a page accepts at least
        (amount(), {}, (LEAST, 0.02)),
        (amount(100_000), {}, (0.001, 0.02)),
        (amount(500), {}, (CHI2_12 / 1000, CHI2_12 / 1000)),
        # what days usually differ by; and for a page what they do once in 20,000 days
        (with_days(amount(), divergence=Variation(typical=0.01, usual=0.05)), {}, (0.05, 0.25)),
        (with_days(amount(), divergence=Variation(typical=0.0001, usual=0.0002)), {}, (LEAST, 0.02)),
        (with_days(amount(500), divergence=Variation(typical=0.01, usual=0.02)), {}, (CHI2_12 / 1000, 0.07)),
        # said by the configuration, whatever the days say; but never less than what can be resolved
        (with_days(amount(), divergence=Variation(typical=0.01, usual=0.05)), {"warn_tolerance": 0.1}, (0.1, 0.25)),
        # and where it says one tier, the other one follows: no page for less than a warning
        (with_days(amount(), divergence=Variation(typical=0.01, usual=0.05)), {"warn_tolerance": 0.3}, (0.3, 0.3)),
        (
            with_days(amount(), divergence=Variation(typical=0.01, usual=0.05)),
            {"page_tolerance": 0.004},
            (0.004, 0.004),
        ),
        (amount(), {"warn_tolerance": 0.0, "page_tolerance": 0.0}, (LEAST, LEAST)),
        (amount(0), {}, (math.inf, math.inf)),
    ],
)
def test_tolerance(column: NumericColumn, own: dict[str, float], expected: tuple[float, float]) -> None:
    settings = {"amount": msgspec.convert(own, ColumnConfig)}
    found = expectations(baseline(column), settings).at(())
    assert TIERS == ("warn", "page")
    assert found.tolerance[:, 0] == pytest.approx(expected, rel=1e-9)


def test_tolerance_by_default_is_configured() -> None:
    detection = DetectionConfig(warn_tolerance=0.05, page_tolerance=0.5)
    found = expectations(baseline(amount()), detection=detection).at(())
    assert found.tolerance.tolist() == [[0.05], [0.5]]


def test_columns_have_tolerances_of_their_own() -> None:
    profile = baseline(
        categorical("plan", {"a": 6000, "b": 4000}),
        with_days(amount(name="x"), divergence=Variation(typical=0.0, usual=0.1)),
        amount(1000, name="y"),
    )
    binner = Binner(profile)
    assert [column.name for column in binner.columns] == ["x", "y", "plan"]
    found = expectations(profile, {"plan": ColumnConfig(page_tolerance=0.7)}).at(())
    expected = [[0.1, CHI2_12 / 2000, 0.001], [0.6, 0.02, 0.7]]
    assert found.tolerance == pytest.approx(np.array(expected), rel=1e-9)
    part = found.part(np.array([1, 2]), np.arange(13, 31))
    assert part.tolerance.tolist() == found.tolerance[:, 1:].tolist()
    assert part.shares.tolist() == found.shares[13:].tolist()
    assert part.rate_tolerance.tolist() == found.rate_tolerance[1:].tolist()


def test_shares_are_smoothed() -> None:
    found = expectations(baseline(amount(1000, missing=100), categorical("plan", {"a": 3}, rare={"b": 1}))).at(())
    numbers = [0.5, *[90.5] * 10, 0.5, 100.5]
    assert found.shares == pytest.approx([*(k / 1006.5 for k in numbers), *(k / 6 for k in (3.5, 1.5, 0.5, 0.5))])


def test_singletons_are_expected_to_be_new() -> None:
    plan = categorical("plan", {f"p{i}": 50 for i in range(20)}, rare={f"r{i}": 1 for i in range(40)})
    plan = msgspec.structs.replace(plan, singletons=40)
    found = expectations(baseline(plan)).at(())
    assert found.shares[-3:] == pytest.approx([0.5 / 1051.5, 40.5 / 1051.5, 0.5 / 1051.5])
    # Clopper and Pearson of 40 new ones in 1040 rows
    bound = stats.beta.ppf(0.999, 41, 1000)
    assert found.rate_tolerance[0, :, 1] == pytest.approx([bound, max(bound, 40 / 1040 + 0.01)], rel=1e-9)


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "rows", "expected"),
    [
        # the larger one of the published bound and the rate and a thousandth; or a hundredth, for a page
        (0, 10_000, (0.001, 0.01)),
        (0, 1000, (0.00688395157907, 0.01)),
        (120, 10_000, (0.0157559821093, 0.022)),
        (500, 1000, (0.548620546, 0.548620546)),
        (1000, 1000, (1.0, 1.0)),
    ],
)
def test_accepted_rate_of_missing_values(missing: int, rows: int, expected: tuple[float, float]) -> None:
    found = expectations(baseline(amount(rows, missing))).at(())
    if missing == 500:
        expected = (float(stats.beta.ppf(0.999, 501, 500)),) * 2
    assert found.rate_tolerance[0, :, 0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("rows", "expected"), [(10_000, (0.001, 0.01)), (1000, (0.00919549763539, 0.01)), (0, (1.0, 1.0))]
)
def test_accepted_rate_out_of_range(rows: int, expected: tuple[float, float]) -> None:
    found = expectations(baseline(amount(rows))).at(())
    assert found.rate_tolerance[0, :, 1] == pytest.approx(expected, rel=1e-9)


def test_accepted_rates_are_learned_from_days() -> None:
    usual = Variation(typical=0.02, usual=0.05)
    column = with_days(amount(10_000, 120), missing=usual, strange=Variation(typical=0.0, usual=0.4))
    found = expectations(baseline(column)).at(())
    # the rate and 0.05; and, of 30 days, 0.02 + 6 x 0.03. Out of range 6 x 0.4 is more than all.
    assert found.rate_tolerance[0] == pytest.approx(np.array([[0.062, 0.4], [0.212, 1.0]]), rel=1e-9)


def test_whoever_accepts_more_drift_accepts_that_of_rates() -> None:
    """A tolerance that is said holds for the divergence of two coins, too."""
    profile = baseline(amount(10_000, 120), amount(name="other"))
    found = expectations(profile, {"amount": ColumnConfig(warn_tolerance=0.3)}).at(())
    plain = expectations(profile).at(())
    for kind, count in enumerate((120, 0)):
        q = (count + 0.5 * (1 + kind)) / 10_006.5  # out of range is two bins

        def excess(x: float, q: float = q) -> float:
            return q * math.log(q / x) + (1 - q) * math.log((1 - q) / (1 - x)) - 0.3

        assert found.rate_tolerance[0, 0, kind] == pytest.approx(optimize.brentq(excess, q, 0.9), rel=1e-9)
    # it is said of one tier of one column
    assert found.rate_tolerance[0, 1].tolist() == plain.rate_tolerance[0, 1].tolist()
    assert found.rate_tolerance[1].tolist() == plain.rate_tolerance[1].tolist()
    # and takes nothing away
    strict = expectations(profile, {"amount": ColumnConfig(warn_tolerance=0.0)}).at(())
    assert strict.rate_tolerance[0, 0] == pytest.approx(plain.rate_tolerance[0, 0], rel=1e-9)


# -- hours -------------------------------------------------------------------------------------------------------------

NIGHT = (0, *[10] * 5, *[90] * 5, 0, 10)  # 510 rows
NOON = (0, *[300] * 10, 0, 0)
FEW = (0, *[19] * 10, 0, 9)  # 199 rows
CLOCK = seasonal(amount(), {3: NIGHT, 12: NOON, 20: FEW})


def test_hours_have_their_own_shares_and_what_their_rows_resolve() -> None:
    expected = expectations(baseline(CLOCK, amount(name="plain")))
    assert expected.seasonal.tolist() == [0]
    night = expected.at((3,))
    assert night.shares[:13] == pytest.approx([(k + 0.5) / 516.5 for k in NIGHT], rel=1e-12)
    assert night.tolerance[:, 0] == pytest.approx([CHI2_12 / 1020] * 2, rel=1e-9)
    bound = stats.beta.ppf(0.999, 11, 500)
    assert night.rate_tolerance[0, :, 0] == pytest.approx([bound, bound], rel=1e-9)
    noon = expected.at((12,))
    assert noon.shares[:13] == pytest.approx([(k + 0.5) / 3006.5 for k in NOON], rel=1e-12)
    assert noon.tolerance[:, 0] == pytest.approx([CHI2_12 / 6000, 0.02], rel=1e-9)
    # the column beside it does not know of hours
    for found in (night, noon):
        assert found.tolerance[:, 1] == pytest.approx([LEAST, 0.02], rel=1e-9)
        assert found.shares[13:] == pytest.approx([(k + 0.5) / 10_006.5 for k in (0, *[1000] * 10, 0, 0)])


def test_hours_with_fewer_than_200_rows_are_those_of_the_whole() -> None:
    """Within what so few rows resolve, of the shape and of the rates."""
    expected = expectations(baseline(CLOCK))
    few = expected.at((20,))
    assert few.shares == pytest.approx([(k + 0.5) / 10_006.5 for k in (0, *[1000] * 10, 0, 0)], rel=1e-12)
    assert few.tolerance[:, 0] == pytest.approx([CHI2_12 / 398] * 2, rel=1e-9)
    assert few.rate_tolerance[0, 0, 0] == pytest.approx(stats.beta.ppf(0.999, 10, 190), rel=1e-9)
    nothing = expected.at((4,))
    assert nothing.shares.tolist() == few.shares.tolist()
    assert nothing.tolerance.tolist() == [[math.inf], [math.inf]]
    assert nothing.rate_tolerance.tolist() == [[[1, 1], [1, 1]]]
    enough = expectations(baseline(seasonal(amount(), {20: (0, *[19] * 10, 0, 10)}))).at((20,))
    assert enough.shares[12] == pytest.approx(10.5 / 206.5)


def test_hours_are_local_in_the_zone_of_the_season() -> None:
    columns: list[Column] = [
        seasonal(amount(name="a"), {3: NIGHT}, "Europe/Berlin"),
        seasonal(amount(name="b"), {3: NIGHT}, "Asia/Kathmandu"),
        seasonal(amount(name="c"), {3: NIGHT}, "Europe/Berlin"),
        seasonal(amount(name="d"), {3: NIGHT}, "UTC"),
        amount(name="e"),
    ]
    settings = {"c": ColumnConfig(timezone="Asia/Kathmandu"), "d": ColumnConfig(season=False)}
    expected = expectations(baseline(*columns), settings)
    assert expected.seasonal.tolist() == [0, 1, 2]
    # in the order of their names: Kathmandu, 5:45 ahead, and Berlin, an hour ahead and two in summer
    for text, hours in [
        ("2026-01-31T02:00:00+00:00", (7, 3)),
        ("2026-01-30T21:15:00+00:00", (3, 22)),
        ("2026-03-29T00:59:59+00:00", (6, 1)),
        ("2026-03-29T01:00:00+00:00", (6, 3)),
        ("2026-10-25T00:30:00+00:00", (6, 2)),
        ("2026-10-25T01:30:00+00:00", (7, 2)),
        ("2026-10-25T02:00:00+00:00", (7, 3)),
    ]:
        assert expected.hours(unix(text)) == hours
    berlin, kathmandu = expected.at((7, 3)), expected.at((3, 22))
    flat = expected.at((7, 22)).shares.reshape(5, 13)
    for found, own in ((berlin, [0]), (kathmandu, [1, 2])):
        moved = [i for i, row in enumerate(found.shares.reshape(5, 13)) if row.tolist() != flat[i].tolist()]
        assert moved == own


def test_no_seasons_have_no_hours() -> None:
    expected = expectations(baseline(amount()))
    assert (expected.hours(unix("2026-01-31T12:00:00+00:00")), expected.seasonal.tolist()) == ((), [])


def test_singletons_of_an_hour() -> None:
    """As many of them as the hour has of all rows."""
    plan = categorical("plan", {f"p{i}": 200 for i in range(10)}, rare={f"r{i}": 1 for i in range(50)}, missing=0)
    season = Season(timezone="UTC", hours=tuple((*[50] * 10, 12, 0, 0) for _ in range(24)))
    plan = msgspec.structs.replace(plan, singletons=41, season=season)
    found = expectations(baseline(plan)).at((0,))
    part = 41 * 512 / 2050
    assert found.shares[-3:] == pytest.approx([x / (512 + 6.5) for x in (12.5 - part, part + 0.5, 0.5)])


def test_the_order_of_a_baseline_file_is_not_that_of_the_bins() -> None:
    last = categorical("c", {"x": 100})
    days = Days(count=9, divergence=Variation(typical=0.0, usual=0.25), missing=NONE, strange=NONE)
    columns: list[Column] = [
        categorical("a", {"x": 5000}),
        amount(name="b"),
        msgspec.structs.replace(last, days=days),
        amount(300, name="d"),
    ]
    found = expectations(baseline(*columns)).at(())
    # b and d, which are numbers, come first
    chi2_3 = stats.chi2.isf(0.001, 3)
    assert found.tolerance[0] == pytest.approx([LEAST, CHI2_12 / 600, chi2_3 / 10_000, 0.25], rel=1e-9)
    assert found.tolerance[1] == pytest.approx([0.02, CHI2_12 / 600, 0.02, 0.25 * 4 * (1 + 15 / 9)], rel=1e-9)


def test_an_hour_of_the_day_in_whatever_zone() -> None:
    zones = {"a": "Europe/Berlin", "b": "Asia/Kathmandu"}
    expected = expectations(baseline(*(seasonal(amount(name=name), {3: NIGHT}, zone) for name, zone in zones.items())))
    for hour in (2, 3):
        assert expected.at_hour(hour).shares.tolist() == expected.at((hour, hour)).shares.tolist()
