"""What every data file has in common: chunks, columns by role and name, errors with their place."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final

import msgspec

from mlexporter.categories import LONGEST, Missing, category_of
from mlexporter.columns import MOMENT_ROWS, ColumnType
from mlexporter.config import DataConfig
from mlexporter.decode.forms import kind
from mlexporter.edges import Floats
from mlexporter.samples import CONFIDENCE_COLUMN, LABEL_COLUMN, PREDICTION_COLUMN, Role
from mlexporter.scalars import shown
from mlexporter.timezones import TIMES, unix_times

Key = tuple[Role, str]
Cells = list[object] | Floats
"""Values of a column: of any kind, None where missing; or numbers, NaN where missing."""
Types = Mapping[str, ColumnType | None]
Progress = Callable[[int], None]
"""Called with the units of work done since the call before."""
CHUNK_ROWS: Final = 65_536
# A chunk ends earlier, at a multiple of MOMENT_ROWS, where it has this many cells or came from this many bytes.
CHUNK_CELLS: Final = 1 << 20
CHUNK_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 10_000
SCALARS: Final = frozenset((str, int, float, bool, type(None)))


class DatasetError(Exception):
    """A data file that cannot be used; the message says where and what is accepted."""


class Chunk(msgspec.Struct, frozen=True):
    """Some rows of a data file. Every chunk but the last one has a multiple of MOMENT_ROWS rows.

    Attributes:
        rows: how many.
        columns: `rows` cells each.
        times: of the rows, as Unix seconds, NaN where missing; None where no column was named for them.
        predictions: as they were sent, where some are objects of class to probability: `columns` has the most probable
            class and its probability in their place. None where `columns` has them as they were sent.

    """

    rows: int
    columns: dict[Key, Cells]
    times: Floats | None = None
    predictions: list[object] | None = None


def chunk_rows(columns: int) -> int:
    """The rows of a chunk, fewer where there are many columns: a multiple of MOMENT_ROWS."""
    blocks = -(-CHUNK_CELLS // (max(columns, 1) * MOMENT_ROWS))
    return min(blocks * MOMENT_ROWS, CHUNK_ROWS)


class Dataset(ABC):
    """A data file.

    Attributes:
        path: the file.
        units: how much work it is to read it once, in the units in which progress is reported.
        warnings: what was left out so far, for people.
        zone: of the times that say none.

    """

    def __init__(self, path: Path, names: DataConfig, zone: tzinfo = UTC) -> None:
        self.path = path
        self.zone = zone
        self.warnings: list[str] = []
        # by the name in the file: what a column that is no feature stands for; None: it is left out
        self._fields: dict[str, Key | None] = {
            PREDICTION_COLUMN: (Role.PREDICTION, PREDICTION_COLUMN),
            CONFIDENCE_COLUMN: (Role.PREDICTION, CONFIDENCE_COLUMN),
            LABEL_COLUMN: (Role.LABEL, LABEL_COLUMN),
            "id": None,
            "version": None,
            "latency_seconds": None,
        }
        self._renamed: dict[str, str] = {}
        for field in DataConfig.__struct_fields__:
            column: str | None = getattr(names, field)
            if column is None:
                continue
            if column in self._renamed:
                raise DatasetError(f"{shown(column)} is named for {self._renamed[column]} and for {field}; name two")
            self._renamed[column] = field
        self._time = names.time
        kept = {column: self._fields.pop(field, None) for column, field in self._renamed.items()}
        self._fields.update(kept)
        self.units = self._open()

    @abstractmethod
    def _open(self) -> int:
        """See that the file can be read; returns `units`."""

    @abstractmethod
    def chunks(
        self, types: Types, progress: Progress | None = None, only: Collection[Key] | None = None
    ) -> Iterator[Chunk]:
        """The rows of the file.

        Args:
            types: types that are given, by column name; a column of text cells that has none gets the one that fits
                the first chunk in which it has a value, and keeps it when the file is read again.
            progress: called with the units done since the call before.
            only: the columns to read; None is all of them. The times come with any.

        Raises:
            DatasetError: the file is broken; the chunks before that are good.

        """

    @property
    def timed(self) -> bool:
        """Whether a column was named for the times of the rows."""
        return self._time is not None

    def key(self, name: str) -> Key | None:
        """What a column of the file stands for; None where it is left out."""
        return self._fields.get(name, (Role.FEATURE, name))

    def error(self, message: str, line: int = 0, column: int = 0) -> DatasetError:
        """An error at a place of the file."""
        place = f":{line}:{column}" if column else f":{line}" if line else ""
        return DatasetError(f"{self.path}{place}: {message}")

    def changed(self) -> DatasetError:
        """The error of a file that one pass found otherwise than the pass before."""
        return self.error("it changed while it was read; build the baseline again when it is written whole")

    def no_time(self, value: object, line: int = 0, place: str = "") -> DatasetError:
        """The error of a value in the column of times that is none; `place` where there is no line."""
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        what = shown(str(value)) if plain else kind(value)
        return self.error(f"{place}{what} in column {shown(self._time or '')} is no time; accepted is {TIMES}", line)

    def warn(self, message: str) -> None:
        """Warn once, however often the file is read."""
        if message not in self.warnings:
            self.warnings.append(message)

    def _times(self, values: Sequence[object], lines: Sequence[int]) -> Floats:
        """Times of rows that begin on `lines`."""
        times, wrong = unix_times(values, self.zone)
        if wrong >= 0:
            raise self.no_time(values[wrong], lines[wrong])
        return times

    def _check_header(self, names: Sequence[str], line: int = 0) -> None:
        """Refuse columns without a name, of the same name, or too many, and renamed ones that are not there."""
        if len(names) > MAX_COLUMNS:
            raise self.error(f"{len(names)} columns; accepted are at most {MAX_COLUMNS}", line)
        first: dict[str, int] = {}
        for number, name in enumerate(names, start=1):
            if not name:
                hint = " (from pandas, write with index=False)" if number == 1 and len(names) > 1 else ""
                raise self.error(f"column {number} has no name{hint}; every column needs one", line)
            if name in first:
                message = f"{shown(name)} is the name of columns {first[name]} and {number}; give each its own"
                raise self.error(message, line)
            first[name] = number
        self._check_renamed(names, line)

    def _check_renamed(self, names: Collection[str], line: int = 0) -> None:
        for column, field in self._renamed.items():
            if column not in names:
                there = ", ".join(map(shown, list(names)[:20])) + (", ..." if len(names) > 20 else "")
                message = f"no column {shown(column)}, which is named for {field}; the columns are {there}"
                raise self.error(message, line)


def bounded(value: Any) -> Any:
    """A value that takes little memory and means the same."""
    if type(value) is str:
        return value if len(value) <= LONGEST else category_of(value)
    return value if type(value) in SCALARS else Missing.INVALID


def kept_values(values: list[object]) -> list[object]:
    """Values with a mark in place of those that can be no value, and long ones cut to what tells them apart."""
    return values if set(map(type, values)) <= SCALARS else [bounded(value) for value in values]
