import math
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter.timezones import date_of, local_calendar, local_hour, seconds_of, unix_times, utc_of, zone_of

BERLIN = ZoneInfo("Europe/Berlin")
KATHMANDU = ZoneInfo("Asia/Kathmandu")  # 5:45 ahead
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # summer time is half an hour
ZONES = [
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",  # changes at midnight
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Pacific/Apia",  # left out a day
    )
]
# Noon of 2026-01-31 in UTC, as `date +%s` has it.
NOON = 1769860800
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
# from 1972 on, when the last clocks had left odd minutes, to 2100
zones = st.sampled_from(ZONES)
moments = st.lists(st.integers(2 * 366 * 86_400, 4_102_444_800), max_size=20)


def read(values: Sequence[object], zone: ZoneInfo = BERLIN) -> list[float | None]:
    """Times, None where missing; all of the values have to be times."""
    times, wrong = unix_times(values, zone)
    assert wrong == -1
    assert times.dtype == np.float64
    return [None if math.isnan(time) else time for time in times.tolist()]


# -- zones ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_system_zones() -> Iterator[None]:
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5", "EST5EDT"])
def test_zone_of(name: str) -> None:
    assert zone_of(name).key == name


@pytest.mark.usefixtures("no_system_zones")
def test_zone_of_without_a_system_database() -> None:
    assert zone_of("Europe/Berlin").utcoffset(datetime(2026, 7, 1)) == BERLIN.utcoffset(datetime(2026, 7, 1))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " UTC",
        "utc",
        "Berlin",
        "Europe",
        "Europe/",
        "Europe/Berlin/",
        "Europe//Berlin",
        "./UTC",
        "../zoneinfo/UTC",
        "/etc/passwd",
        "/usr/share/zoneinfo/UTC",
        "tzdata.zi",
        "zone.tab",
        "localtime",
        "Factory",
        "right/UTC",
        "+02:00",
        "a\0b",
        "\ud800",
        "x" * 5000,
    ],
)
def test_what_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no time zone; .*accepted is an IANA name such as Europe/Berlin or UTC"):
        zone_of(name)


def test_a_zone_that_is_misspelt() -> None:
    expected = (
        '"europe/berlin" is no time zone; did you mean Europe/Berlin? '
        "accepted is an IANA name such as Europe/Berlin or UTC"
    )
    with pytest.raises(ValueError, match="no time zone") as error:
        zone_of("europe/berlin")
    assert str(error.value) == expected


# -- times from values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31 12:00Z", NOON),
        ("2026-01-31 12:00:00 UTC", NOON),
        ("2026-01-31 12:00:00.5 UTC", NOON + 0.5),
        ("2026-01-31T12Z", NOON),
        ("20260131T120000Z", NOON),
        ("2026-01-31T12:00:00.25Z", NOON + 0.25),
        ("2026-01-31T12:00:00.250000999Z", NOON + 0.25),  # more than microseconds is cut
        ("2026-01-31T14:00:00+02:00", NOON),
        ("2026-01-31 14:00:00+02", NOON),
        ("2026-01-31T06:30:00-0530", NOON),
        ("2026-01-31T13:00:00", NOON),  # from here on in Berlin
        (" 2026-01-31 13:00:00 ", NOON),
        ("2026-01-31", NOON - 13 * 3600),
        ("20260131", NOON - 13 * 3600),
        ("2026-W05-6", NOON - 13 * 3600),
        ("1769860800", NOON),
        (" 1769860800.5", NOON + 0.5),
        ("1.7698608e9", NOON),
        ("1769860800000", NOON),
        ("1712121212123", 1712121212.123),  # and not 21:23 of a day in 1712
        ("1712121212123.5", 1712121212.1235),
        ("17121212123", 17121212123),
        ("-86400", -86400),
        ("0", 0),
        ("2026", 2026),
    ],
)
def test_texts(text: str, expected: float) -> None:
    assert read([text]) == [expected]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (NOON, NOON),
        (NOON + 0.5, NOON + 0.5),
        (NOON * 10**3, NOON),
        (NOON * 10**6 + 250_000, NOON + 0.25),
        (NOON * 10**9, NOON),
        (95_000_000_000, 95_000_000_000),  # seconds of the year 4980
        (100_000_000_000, 100_000_000),
        (95_000_000_000_000, 95_000_000_000),
        (100_000_000_000_000, 100_000_000),
        (100_000_000_000_000_000, 100_000_000),
        (-NOON, -NOON),
        (-NOON * 10**3, -NOON),
        (0, 0),
        (math.nan, None),
        (None, None),
    ],
)
def test_numbers(number: float | None, expected: float | None) -> None:
    assert read([number]) == [expected]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "nan",
        "inf",
        "1_000",
        "\uff11",
        "2026-01",
        "2026-02-30",
        "20261399",
        "2026-01-31T25:00",
        "2026-01-31T12:00:00 CET",
        "31.01.2026",
        "01/31/2026",
        "0001-01-01",  # what stands for no time in some systems, and
        "9999-12-31T23:59:59Z",  # what stands for never
        "0999-12-31T23:59:59Z",
        "5000-01-01T00:00:00Z",
        "1e400",
        "9" * 5000,
        math.inf,
        -math.inf,
        1e300,
        10**400,
        98_000_000_000,
        -98_000_000_000,
        True,
        [NOON],
        {},
        object(),
    ],
)
def test_what_is_no_time(value: object) -> None:
    times, wrong = unix_times([NOON, None, value, "x", NOON], BERLIN)
    assert wrong == 2
    assert np.isnan(times).tolist() == [False, True, True, True, False]


def test_values_of_all_kinds() -> None:
    values = ["2026-01-31T13:00:00", None, NOON, "2026-01-31T12:00:00Z", str(NOON * 1000), math.nan]
    assert read(values) == [NOON, None, NOON, NOON, NOON, None]
    assert read([]) == []
    assert read([None, None]) == [None, None]


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        # an hour that is left out is that of clocks that were not changed: 02:30 is 03:30
        ("2026-03-29T01:59:00", BERLIN, "2026-03-29T00:59:00"),
        ("2026-03-29T02:30:00", BERLIN, "2026-03-29T01:30:00"),
        ("2026-03-29T03:00:00", BERLIN, "2026-03-29T01:00:00"),
        # an hour that comes twice is the first one
        ("2026-10-25T01:59:59", BERLIN, "2026-10-24T23:59:59"),
        ("2026-10-25T02:30:00", BERLIN, "2026-10-25T00:30:00"),
        ("2026-10-25T03:00:00", BERLIN, "2026-10-25T02:00:00"),
        ("2026-01-31T12:00:00", KATHMANDU, "2026-01-31T06:15:00"),
        ("2026-10-04T01:59:59", LORD_HOWE, "2026-10-03T15:29:59"),
        ("2026-10-04T02:30:00", LORD_HOWE, "2026-10-03T15:30:00"),
        ("2026-04-05T01:29:59", LORD_HOWE, "2026-04-04T14:29:59"),
        ("2026-04-05T02:00:00", LORD_HOWE, "2026-04-04T15:30:00"),
    ],
)
def test_local_times_around_changes_of_clocks(text: str, zone: ZoneInfo, utc: str) -> None:
    assert read([text], zone) == read([f"{utc}Z"])


@settings(deadline=None)
@given(moments, zones)
def test_local_times_are_those_of_datetime(seconds: list[int], zone: ZoneInfo) -> None:
    clocks = [datetime.fromtimestamp(second, UTC).replace(tzinfo=None) for second in seconds]
    assert read([clock.isoformat() for clock in clocks], zone) == [
        clock.replace(tzinfo=zone).timestamp() for clock in clocks
    ]


@settings(deadline=None)
@given(moments, zones)
def test_local_times_and_back(seconds: list[int], zone: ZoneInfo) -> None:
    texts = [datetime.fromtimestamp(second, zone).isoformat() for second in seconds]
    assert read(texts) == seconds


@settings(deadline=None)
@given(st.lists(st.none() | st.text() | st.integers() | st.floats() | st.booleans()), zones)
def test_anything_is_a_time_or_told(values: list[object], zone: ZoneInfo) -> None:
    times, wrong = unix_times(values, zone)
    assert len(times) == len(values)
    assert not np.isinf(times).any()
    assert wrong == -1 or math.isnan(times[wrong])
    local_calendar(times[~np.isnan(times)], zone)


def test_missing_stays_missing() -> None:
    assert np.isnan(utc_of(np.array([math.nan]), BERLIN)).all()
    assert np.isnan(seconds_of(np.array([math.nan]))).all()


# -- calendars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("utc", "zone", "day", "hour"),
    [
        ("2026-01-31T22:59:59.999", BERLIN, "2026-01-31", 23),
        ("2026-01-31T23:00:00", BERLIN, "2026-02-01", 0),
        ("2026-03-29T00:59:59", BERLIN, "2026-03-29", 1),
        ("2026-03-29T01:00:00", BERLIN, "2026-03-29", 3),
        ("2026-10-25T00:59:59", BERLIN, "2026-10-25", 2),
        ("2026-10-25T01:00:00", BERLIN, "2026-10-25", 2),
        ("2026-10-25T02:00:00", BERLIN, "2026-10-25", 3),
        ("2026-01-31T18:14:59", KATHMANDU, "2026-01-31", 23),
        ("2026-01-31T18:15:00", KATHMANDU, "2026-02-01", 0),
        ("2026-10-03T15:29:59", LORD_HOWE, "2026-10-04", 1),
        ("2026-10-03T15:30:00", LORD_HOWE, "2026-10-04", 2),
        ("2026-04-04T14:59:59", LORD_HOWE, "2026-04-05", 1),
        ("2026-04-04T15:00:00", LORD_HOWE, "2026-04-05", 1),
        ("2011-12-30T09:59:59", ZoneInfo("Pacific/Apia"), "2011-12-29", 23),
        ("2011-12-30T10:00:00", ZoneInfo("Pacific/Apia"), "2011-12-31", 0),
        ("1969-12-31T22:30:00", ZoneInfo("UTC"), "1969-12-31", 22),
        ("1000-01-01T12:00:00", ZoneInfo("UTC"), "1000-01-01", 12),
        ("4999-12-31T12:00:00", BERLIN, "4999-12-31", 13),
    ],
)
def test_day_and_hour(utc: str, zone: ZoneInfo, day: str, hour: int) -> None:
    time = datetime.fromisoformat(f"{utc}+00:00").timestamp()
    days, hours = local_calendar(np.array([time]), zone)
    assert days.dtype == hours.dtype == np.dtype(np.int64)
    assert days.tolist() == [date.fromisoformat(day).toordinal() - EPOCH_ORDINAL]
    assert hours.tolist() == [hour]
    assert date_of(int(days[0])) == day
    assert local_hour(time, zone) == hour


@settings(deadline=None)
@given(moments, zones)
def test_calendar_is_that_of_datetime(seconds: list[int], zone: ZoneInfo) -> None:
    days, hours = local_calendar(np.array(seconds, dtype=np.float64), zone)
    clocks = [datetime.fromtimestamp(second, zone) for second in seconds]
    assert days.tolist() == [clock.toordinal() - EPOCH_ORDINAL for clock in clocks]
    assert hours.tolist() == [clock.hour for clock in clocks]


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_calendar_of_every_quarter_of_some_years(zone: ZoneInfo) -> None:
    quarters = np.arange(1_262_304_000, 1_356_998_400, 900)  # 2010 to 2012
    days, hours = local_calendar(quarters.astype(np.float64), zone)
    clocks = [datetime.fromtimestamp(quarter, zone) for quarter in quarters.tolist()]
    assert days.tolist() == [clock.toordinal() - EPOCH_ORDINAL for clock in clocks]
    assert hours.tolist() == [clock.hour for clock in clocks]


def test_old_times_of_odd_offsets_do_not_fail() -> None:
    paris = ZoneInfo("Europe/Paris")  # 9:21 ahead until 1911
    times, wrong = unix_times(["1900-06-01T12:00:00", "1911-03-10T23:55:00"], paris)
    assert wrong == -1
    assert local_calendar(times, paris)[1].tolist()[0] == 12
