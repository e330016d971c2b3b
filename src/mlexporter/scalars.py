"""Single values as people write them: text, numbers, durations such as ``1h30m``, sizes such as ``16MiB``.

Each factory returns a `Scalar`: how text becomes a value within a range, and words for what is accepted. Nothing here
knows where the text came from.
"""

import difflib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

T = TypeVar("T")

_DURATION_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("".join(f"(?:([0-9]{{1,15}}){unit})?" for unit in _DURATION_UNITS))
_SIZE_UNITS = {
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "KB": 1000,
    "B": 1,
    "": 1,
}
_SIZE = re.compile(f"([0-9]{{1,20}})({'|'.join(_SIZE_UNITS)})")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
# A store's URL may hold its password, and does wherever it landed by mistake.
_SECRET = re.compile(r"(rediss?|unix)://.+", re.DOTALL | re.IGNORECASE)
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Scalar(msgspec.Struct, Generic[T], frozen=True):
    """How the text of a single value becomes a value: an annotation of a field's type.

    `parse` raises ValueError with what is wrong; `accepts` says what would be right ("a number from 0 to 1"). `quoted`
    tells whether quoted text is welcome, `spoken` that what `parse` raises says already what is accepted.
    """

    parse: Callable[[str], T]
    accepts: str
    quoted: bool = True
    spoken: bool = False


def text(low: int, high: int) -> Scalar[str]:
    """Text of `low` to `high` characters, none of them a control character, a line break or half a surrogate pair."""

    def parse(value: str) -> str:
        if _UNSAFE.search(value):
            raise ValueError(f"{shown(value)} has a control character")
        if not low <= len(value) <= high:
            raise ValueError(f"{shown(value)} has {len(value)} characters")
        return value

    return Scalar(parse, f"text of {low} to {high} characters without control characters")


def path() -> Scalar[Path]:
    """Name of a file, as text."""
    name = text(1, 4096)
    return Scalar(lambda value: Path(name.parse(value)), "the name of a file")


def one_of(*choices: str) -> Scalar[str]:
    """One of a few words; the message alone names them all, and the nearest."""
    words = ", ".join(choices)

    def parse(value: str) -> str:
        if value not in choices:
            near = did_you_mean(value, choices)
            raise ValueError(f"{shown(value)} is not one of {words}{'; ' if near else ''}{near}")
        return value

    return Scalar(parse, f"one of {words}", spoken=True)


def boolean() -> Scalar[bool]:
    """Boolean: true or false, and not the yes, no, on and off that YAML 1.1 takes for booleans as well."""

    def parse(value: str) -> bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{shown(value)} is not a boolean")
        return value.lower() == "true"

    return Scalar(parse, "true or false", quoted=False)


def whole(low: int, high: int) -> Scalar[int]:
    """Whole number from `low` to `high`, in decimal digits."""

    def parse(value: str) -> int:
        if not _WHOLE.fullmatch(value):
            raise ValueError(f"{shown(value)} is not a whole number")
        if len(value) > 20 or not low <= int(value) <= high:
            raise ValueError(f"{_shortened(value)} is out of range")
        return int(value)

    return Scalar(parse, f"a whole number from {low} to {high}", quoted=False)


def number(low: float, high: float) -> Scalar[float]:
    """Finite number from `low` to `high`."""

    def parse(value: str) -> float:
        if not _NUMBER.fullmatch(value):
            raise ValueError(f"{shown(value)} is not a number")
        if not low <= float(value) <= high:
            raise ValueError(f"{_shortened(value)} is out of range")
        return float(value)

    return Scalar(parse, f"a number from {low:g} to {high:g}", quoted=False)


def duration(low: str, high: str) -> Scalar[float]:
    """Duration from `low` to `high`, as seconds."""
    least, most = parse_duration(low), parse_duration(high)

    def parse(value: str) -> float:
        seconds = parse_duration(value)
        if not least <= seconds <= most:
            raise ValueError(f"{value} is out of range")
        return seconds

    accepts = f"a duration from {low} to {high}, in units w, d, h, m, s, ms, largest first, such as 7d or 1h30m"
    return Scalar(parse, accepts)


def size(low: str, high: str) -> Scalar[int]:
    """Size from `low` to `high`, as bytes."""
    least, most = parse_size(low), parse_size(high)

    def parse(value: str) -> int:
        count = parse_size(value)
        if not least <= count <= most:
            raise ValueError(f"{value} is out of range")
        return count

    return Scalar(parse, f"a size from {low} to {high}: bytes, or a number with B, kB, MB, GB, KiB, MiB or GiB")


def store_url() -> Scalar[str]:
    """URL of a Redis server; no message shows it, for it may hold a password."""

    def parse(value: str) -> str:
        if _UNSAFE.search(value) or " " in value:
            raise ValueError("has a space or a control character")
        try:
            url = urlsplit(value)
            given = url.path if url.scheme == "unix" else url.hostname and (url.port is None or url.port > 0)
        except ValueError:  # a port that is no number, a bracket that is not closed
            given = None
        else:
            if url.scheme not in ("redis", "rediss", "unix"):
                raise ValueError("is no URL of a Redis server")
        if not given:
            raise ValueError("names no server, or no port of one")
        return value

    return Scalar(parse, "redis://HOST:PORT/DATABASE, rediss://... for TLS, or unix:///PATH")


def parse_duration(value: str) -> float:
    """Return the seconds of a duration such as ``500ms``, ``90s``, ``1h30m`` or ``2w``.

    Raises ValueError on anything else; a number with no unit is not taken for seconds.

    >>> parse_duration("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(value)
    if not value or match is None:
        reason = "has no unit" if _NUMBER.fullmatch(value) else "is not a duration"
        raise ValueError(f"{shown(value)} {reason}")
    parts = zip(match.groups("0"), _DURATION_UNITS.values(), strict=True)
    return sum(int(count) * unit for count, unit in parts) / 1000


def format_duration(seconds: float) -> str:
    """Write a duration the way Prometheus does; parts of a millisecond are lost.

    >>> format_duration(5400), format_duration(0.25)
    ('1h30m', '250ms')
    """
    rest = round(seconds * 1000)
    written = ""
    for unit, length in _DURATION_UNITS.items():
        count = rest // length
        if count and (unit != "w" or rest % length == 0):  # whole weeks only: 8d, not 1w1d
            written += f"{count}{unit}"
            rest -= count * length
    return written or "0s"


def parse_size(value: str) -> int:
    """Return the bytes of a size such as ``16MiB``, ``10MB`` or ``4096``; raises ValueError on anything else.

    >>> parse_size("16MiB")
    16777216
    """
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f"{shown(value)} is not a size")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def shown(value: str) -> str:
    """Quote text for a message: on one line, printable, not endless, and without a store's password.

    >>> shown("redis://:secret@cache")
    '"redis://..."'
    """
    short = _shortened(_SECRET.sub(r"\1://...", value))
    return json.dumps(short, ensure_ascii=not short.isprintable())


def listed(names: Sequence[str]) -> str:
    """The first five names as a message shows them, and dots for more.

    >>> listed(["a", "b"])
    '"a", "b"'

    """
    return ", ".join(map(shown, names[:5])) + (", ..." if len(names) > 5 else "")


def did_you_mean(word: str, choices: tuple[str, ...]) -> str:
    """Return ``did you mean X?`` with the nearest of `choices`, or "" where none is near."""
    near = difflib.get_close_matches(word[:64].lower().replace("-", "_"), choices, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _shortened(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "..."
