"""Times of rows as Unix seconds, and the day and hour that they are in some time zone."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from mlexporter.edges import Floats, Ints
from mlexporter.scalars import did_you_mean, shown

ZONES: Final = "an IANA name such as Europe/Berlin or UTC"
TIMES: Final = "ISO 8601 such as 2026-01-31T12:00:00Z, or Unix time, in the years 1000 to 4999"

# Numbers up to here are seconds, milliseconds and microseconds, larger ones nanoseconds: each ends in the year 5138.
_SECONDS: Final = 1e11
_MILLISECONDS: Final = 1e14
_MICROSECONDS: Final = 1e17
# Times beyond are mistakes or stand for "never"; within, no calendar overflows in any zone.
_FIRST: Final = datetime(1000, 1, 1, tzinfo=UTC).timestamp()
_END: Final = datetime(5000, 1, 1, tzinfo=UTC).timestamp()
_DAY: Final = 86_400
# Since 1972 clocks are changed at such moments only, and by such steps.
_QUARTER: Final = 900
_QUARTERS: Final = _DAY // _QUARTER
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", re.ASCII)
# The first is what this machine is set to; the second says that it is set to nothing.
_NO_ZONES: Final = frozenset(("localtime", "Factory"))


def zone_of(name: str) -> ZoneInfo:
    """The time zone of a name. Raises ValueError, with what is accepted, where there is none.

    >>> zone_of("Europe/Berlin")
    zoneinfo.ZoneInfo(key='Europe/Berlin')
    """
    # a list to look it up in, for ZoneInfo takes names of files and folders too, and fails in many ways
    zones = available_timezones() - _NO_ZONES
    if name not in zones:
        near = did_you_mean(name, tuple(sorted(zones)))
        raise ValueError(f"{shown(name)} is no time zone; {near}{' ' if near else ''}accepted is {ZONES}")
    return ZoneInfo(name)


def unix_times(values: Sequence[object], zone: tzinfo) -> tuple[Floats, int]:
    """Times as they stand in files, as Unix seconds.

    Args:
        values: None where missing; ISO 8601 as `datetime.fromisoformat` takes it; or a number or the text of one,
            which is Unix time in seconds, milliseconds, microseconds or nanoseconds, told apart by its size.
        zone: of those that say none.

    Returns:
        Seconds, NaN where missing or no time, and the index of the first value that is no time, or -1.

    """
    seconds = [math.nan] * len(values)
    numbers: list[int] = []
    local: list[int] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        try:
            read = _read(value)
        except (ValueError, OverflowError):
            seconds[index] = math.inf
            continue
        if isinstance(read, float):
            numbers.append(index)
            seconds[index] = read
            continue
        if read.tzinfo is None:
            local.append(index)
            seconds[index] = (read - _LOCAL_EPOCH).total_seconds()
        else:
            seconds[index] = read.timestamp()
    times = np.array(seconds, dtype=np.float64)
    times[numbers] = seconds_of(times[numbers])
    times[local] = utc_of(times[local], zone)
    return within_years(times)


def seconds_of(numbers: Floats) -> Floats:
    """Unix times in any unit, each told by its size, as seconds."""
    size = np.abs(numbers)
    units = np.select([size < _SECONDS, size < _MILLISECONDS, size < _MICROSECONDS], [1.0, 1e3, 1e6], 1e9)
    return np.asarray(numbers / units, dtype=np.float64)


def utc_of(local: Floats, zone: tzinfo) -> Floats:
    """Unix seconds of what clocks in `zone` showed, as seconds since 1970-01-01 of the same clocks; NaN stays.

    An hour that they showed twice is the first of the two.
    """
    known = np.isfinite(local)
    times = local.copy()
    times[known] -= _offsets(local[known], zone, of_local=True)
    return times


def within_years(times: Floats) -> tuple[Floats, int]:
    """Times with NaN for those outside the accepted years, and the index of the first of these, or -1."""
    outside = (times < _FIRST) | (times >= _END)
    if not outside.any():
        return times, -1
    return np.where(outside, math.nan, times), int(outside.argmax())


def local_calendar(times: Floats, zone: tzinfo) -> tuple[Ints, Ints]:
    """The local day, as days since 1970-01-01, and the local hour of finite Unix seconds.

    >>> local_calendar(np.array([0.0, 82_800.0]), zone_of("Europe/Berlin"))
    (array([0, 1]), array([1, 0]))
    """
    seconds = np.floor(times).astype(np.int64) + _offsets(times, zone, of_local=False)
    return seconds // _DAY, seconds % _DAY // 3600


def local_hour(now: float, zone: tzinfo) -> int:
    """The local hour of one moment, 0 to 23."""
    return datetime.fromtimestamp(now, zone).hour


def date_of(day: int) -> str:
    """The ISO date of a number of days since 1970-01-01.

    >>> date_of(20_000)
    '2024-10-04'
    """
    return date.fromordinal(_EPOCH_DAY + day).isoformat()


def _read(value: object) -> datetime | float:
    """A number, or a time that may be without a zone. Raises ValueError or OverflowError where it is neither."""
    if isinstance(value, str):
        text = value.strip()
        if text.endswith(" UTC"):  # as BigQuery writes them
            text = f"{text[:-4]}+00:00"
        if text[4:5] == "-":  # nearly all texts; the rest is for others
            return datetime.fromisoformat(text)
        # fromisoformat takes 1712121212123 for a time of 1712-12-12; but 20260131 is a date
        if _NUMBER.fullmatch(text) and not (len(text) == 8 and text.isdecimal()):
            return float(text)
        return datetime.fromisoformat(text)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("neither text nor a number")


def _offsets(seconds: Floats, zone: tzinfo, *, of_local: bool) -> Ints:
    """What local clocks are ahead of UTC, in seconds, at Unix seconds or at times of these clocks."""
    # a look-up takes far longer than all else: two a day, and one a quarter of an hour on days with a change
    quarters = np.floor(np.clip(seconds, _FIRST, _END) / _QUARTER).astype(np.int64)
    days, index = np.unique(quarters // _QUARTERS, return_inverse=True)
    starts = _looked_up(days * _QUARTERS, zone, of_local=of_local)
    ends = _looked_up((days + 1) * _QUARTERS, zone, of_local=of_local)
    offsets = starts[index]
    changing = (starts != ends)[index]
    distinct, index = np.unique(quarters[changing], return_inverse=True)
    offsets[changing] = _looked_up(distinct, zone, of_local=of_local)[index]
    return offsets


def _looked_up(quarters: Ints, zone: tzinfo, *, of_local: bool) -> Ints:
    offsets = np.empty(len(quarters), dtype=np.int64)
    for i, quarter in enumerate(quarters.tolist()):
        moment = _EPOCH + timedelta(seconds=quarter * _QUARTER)
        moment = moment.replace(tzinfo=zone) if of_local else moment.astimezone(zone)
        offset = moment.utcoffset()
        assert offset is not None
        offsets[i] = round(offset.total_seconds())
    return offsets
