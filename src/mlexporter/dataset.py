"""Recorded samples in files, read as a stream of chunks: CSV, JSONL (both also gzipped) and Parquet.

A chunk holds columns as the exporter knows them, by role and name. Memory is bounded by the size of a chunk, whatever
the size of the file; a file can be read as often as one likes.
"""

import csv
import gzip
import io
import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import numpy as np
import orjson

from mlexporter.categories import LONGEST, Missing, category_of
from mlexporter.config import DataConfig
from mlexporter.decode.rows import kind, split_probabilities
from mlexporter.edges import Floats
from mlexporter.learning import MOMENT_ROWS, ColumnType
from mlexporter.samples import CONFIDENCE_COLUMN, LABEL_COLUMN, PREDICTION_COLUMN, Role
from mlexporter.scalars import shown

Key = tuple[Role, str]
Cells = list[object] | Floats
"""Values of a column: of any kind, None where missing; or numbers, NaN where missing."""
Types = Mapping[str, ColumnType | None]
Progress = Callable[[int], None]
"""Called with the units of work done since the call before."""
_Bytes = BinaryIO | gzip.GzipFile

CHUNK_ROWS: Final = 65_536
# A chunk ends earlier, at a multiple of MOMENT_ROWS, where it has this many cells or came from this many bytes.
_CHUNK_CELLS: Final = 1 << 20
_CHUNK_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 10_000
LONGEST_LINE: Final = 16 << 20
# The values of lines beyond this are looked at one by one for those too long to keep.
_LONG_LINE: Final = 1 << 15
MISSING_TOKENS: Final = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"))
FORMATS: Final = ".csv, .tsv, .jsonl, .ndjson (each also with .gz), .parquet"

_DELIMITERS: Final = ",;\t"
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_SCALARS: Final = frozenset((str, int, float, bool, type(None)))
_QUOTED: Final = re.compile(r'"[^"]*"')
_WHOLE: Final = re.compile(r"-?[0-9]+\.0")
_DECIMAL_COMMA: Final = re.compile(r"-?[0-9]+,[0-9]+")


class DatasetError(Exception):
    """A data file that cannot be used; the message says where and what is accepted."""


class Chunk(msgspec.Struct, frozen=True):
    """Some rows of a data file. Every chunk but the last one has a multiple of MOMENT_ROWS rows."""

    rows: int
    columns: dict[Key, Cells]


def _chunk_rows(columns: int) -> int:
    """The rows of a chunk, fewer where there are many columns: a multiple of MOMENT_ROWS."""
    blocks = -(-_CHUNK_CELLS // (max(columns, 1) * MOMENT_ROWS))
    return min(blocks * MOMENT_ROWS, CHUNK_ROWS)


class Dataset(ABC):
    """A data file.

    Attributes:
        path: the file.
        units: how much work it is to read it once, in the units in which progress is reported.
        warnings: what was left out so far, for people.

    """

    def __init__(self, path: Path, names: DataConfig) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._names = names
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
        kept = {column: self._fields.pop(field) for column, field in self._renamed.items()}
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
            only: the columns to read; None is all of them.

        Raises:
            DatasetError: the file is broken; the chunks before that are good.

        """

    def key(self, name: str) -> Key | None:
        """What a column of the file stands for; None where it is left out."""
        return self._fields.get(name, (Role.FEATURE, name))

    def error(self, message: str, line: int = 0, column: int = 0) -> DatasetError:
        """An error at a place of the file."""
        place = f":{line}:{column}" if column else f":{line}" if line else ""
        return DatasetError(f"{self.path}{place}: {message}")

    def warn(self, message: str) -> None:
        """Warn once, however often the file is read."""
        if message not in self.warnings:
            self.warnings.append(message)

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


def open_dataset(path: Path, names: DataConfig | None = None) -> Dataset:
    """A data file, by the ending of its name; `names` are those of its columns that are not known by name.

    Raises:
        DatasetError: it cannot be read, or is of no known format.

    """
    names = names or DataConfig()
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        return _Csv(path, names)
    if plain.endswith((".jsonl", ".ndjson")):
        return _Jsonl(path, names)
    if name.endswith((".parquet", ".pq")):
        return _Parquet(path, names)
    raise DatasetError(f"{path}: unknown format; accepted are {FORMATS}")


class _Watched(io.RawIOBase):
    """Tells how much of a file was read."""

    def __init__(self, raw: io.RawIOBase, progress: Progress | None) -> None:
        self._raw = raw
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        if self._progress is not None:
            self._progress(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Text(Dataset):
    """A file of lines in UTF-8, gzipped or not."""

    def _open(self) -> int:
        try:
            if not self.path.is_file():
                problem = "not a regular file" if self.path.exists() else "no such file"
                raise self.error(f"{problem}; accepted is a file, which may be read twice")
            with self.path.open("rb") as file:
                first = file.read(2)
            size = self.path.stat().st_size
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self.error(f"cannot be read: {reason}") from error
        self._gzipped = first == b"\x1f\x8b"
        return size

    @contextmanager
    def _bytes(self, progress: Progress | None) -> Iterator[_Bytes]:
        watched = _Watched(self.path.open("rb", buffering=0), progress)
        with cast(BinaryIO, io.BufferedReader(watched, 1 << 18)) as plain:
            if not self._gzipped:
                yield plain
                return
            with gzip.GzipFile(fileobj=plain, mode="rb") as unzipped:
                yield unzipped

    def chunks(
        self, types: Types, progress: Progress | None = None, only: Collection[Key] | None = None
    ) -> Iterator[Chunk]:
        try:
            with self._bytes(progress) as file:
                yield from self._chunks(file, types, only)
        except UnicodeDecodeError as error:
            raise self._bad_utf8() from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(f"its gzip data is broken: {error}") from error
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from error

    @abstractmethod
    def _chunks(self, file: _Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]: ...

    def _bad_utf8(self) -> DatasetError:
        """Where the file is no UTF-8: the reader knows it by block only, so look again line by line."""
        with self._bytes(None) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    column = len(line[: error.start].decode()) + 1
                    hint = "; it looks like UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") and number == 1 else ""
                    message = f"not UTF-8: the byte 0x{line[error.start]:02x}{hint}; save the file as UTF-8"
                    return self.error(message, number, column)
        return self.error("not UTF-8; save the file as UTF-8")

    def _too_long(self, line: int) -> DatasetError:
        return self.error(f"the line is longer than {LONGEST_LINE} bytes; no sample is", line)


class _Csv(_Text):
    """Comma, semicolon or tab between the cells, which the header line decides, and quotes as in RFC 4180."""

    def _open(self) -> int:
        # filled as the first chunk with a value of a column is met, and kept
        self._types: dict[str, ColumnType] = {}
        self._whole: set[str] = set()
        self._line = 0
        self._long = False
        self._size = 0
        return super()._open()

    def _chunks(self, file: _Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]:
        self._line = 0
        lines = self._lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        first = next((line for line in lines if line.strip("\r\n")), None)
        if first is None:
            raise self.error("empty; accepted is a header line and a line for each sample")
        header_line = self._line
        self._delimiter = max(_DELIMITERS, key=_QUOTED.sub("", first).count)
        reader = csv.reader(chain((first,), lines), delimiter=self._delimiter, strict=True)
        names = [name.strip() for name in next(self._rows(reader, None, header_line), [])]
        numbers = [str(number) for number in range(len(names))]  # what pandas calls columns without a name
        if names != numbers and all(_as_number(name) is not None for name in names):
            message = "a header line is needed, with the names of the columns; this one has numbers only"
            raise self.error(message, header_line)
        self._check_header(names, header_line)
        most = _chunk_rows(len(names))
        rows: list[list[str]] = []
        any_rows = False
        for row in self._rows(reader, len(names), self._line + 1):
            rows.append(row)
            if len(rows) % MOMENT_ROWS == 0 and (len(rows) >= most or self._size >= _CHUNK_BYTES):
                yield self._chunk(names, rows, types, only)
                rows, any_rows, self._size = [], True, 0
        if rows:
            yield self._chunk(names, rows, types, only)
        elif not any_rows:
            raise self.error("a header and no rows; accepted is a line for each sample after it")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        self._size = 0
        while line := text.readline(LONGEST_LINE):
            self._line += 1
            if "\0" in line:
                message = "a NUL byte; save the file as text, in UTF-8"
                raise self.error(message, self._line, line.index("\0") + 1)
            size = len(line)
            if size > _LONG_LINE:
                if size == LONGEST_LINE:
                    raise self._too_long(self._line)
                self._long = True
            self._size += size
            yield line

    def _rows(self, reader: Iterator[list[str]], width: int | None, line: int) -> Iterator[list[str]]:
        """Rows from `line` on, each of `width` cells unless that is None; empty lines are left out."""
        try:
            for row in reader:
                if len(row) != width and width is not None and row:
                    raise self.error(f"{_cells(len(row))}, but the header has {_cells(width)}", line)
                line = self._line + 1
                if self._long:
                    row = [_bounded(cell) for cell in row]
                    self._long = False
                if row:
                    yield row
        except csv.Error as error:
            raise self._csv_error(str(error), line) from error

    def _csv_error(self, message: str, line: int) -> DatasetError:
        if message == "unexpected end of data":
            message = 'a cell that begins with " has no closing "'
        elif message.startswith("field larger"):
            limit = csv.field_size_limit()
            message = f'a cell is longer than {limit} characters; is a " not closed?'
        else:
            message = f'{message}; a " within a quoted cell is written twice'
        return self.error(message, line)

    def _chunk(self, names: list[str], rows: list[list[str]], types: Types, only: Collection[Key] | None) -> Chunk:
        columns: dict[Key, Cells] = {}
        for name, cells in zip(names, zip(*rows, strict=True), strict=True):
            key = self.key(name)
            if key is not None and (only is None or key in only):
                columns[key] = self._typed(name, cells, types.get(key[1]))
        return Chunk(len(rows), columns)

    def _typed(self, name: str, cells: tuple[str, ...], given: ColumnType | None) -> Cells:
        column_type = self._types.get(name)
        if column_type is None:
            column_type = self._decide(name, cells, given)
            if column_type is None:
                return [None] * len(cells)
            self._types[name] = column_type
        if column_type == "numeric":
            return _numbers(cells)
        if column_type == "boolean":
            return [None if c in MISSING_TOKENS else _BOOLEANS.get(c.lower(), c) for c in cells]
        if name in self._whole:
            return [None if c in MISSING_TOKENS else c[:-2] if c.endswith(".0") else c for c in cells]
        return [None if c in MISSING_TOKENS else c for c in cells]

    def _decide(self, name: str, cells: tuple[str, ...], given: ColumnType | None) -> ColumnType | None:
        """The type of a column from its first chunk with a value."""
        if given is None:
            floats = _parse(cells)
            if floats is not None and not np.isnan(floats).all():
                return "numeric"
        values = frozenset(cells) - MISSING_TOKENS
        if not values:
            return None
        if given == "categorical" and all(map(_WHOLE.fullmatch, values)):
            # whole numbers that pandas wrote as 3.0, because some are missing: in live data they are 3
            self._whole.add(name)
        if given is not None:
            return given
        if all(value.lower() in ("true", "false") for value in values):
            return "boolean"
        if self._delimiter != "," and all(map(_DECIMAL_COMMA.fullmatch, values)):
            self.warn(
                f"column {shown(name)}: numbers with a decimal comma are read as categories; write them with a point"
            )
        return "categorical"


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _as_number(cell: str) -> float | None:
    """The number that a cell holds; None where it holds none."""
    # float() takes 1_000 and the digits of all scripts too
    if "_" in cell or not cell.isascii():
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _parse(cells: Sequence[str]) -> Floats | None:
    """Cells as numbers, NaN where missing; None where some are something else."""
    missing = False
    for _ in range(2):
        try:
            # twice as fast as float(); no cell but a number gives one number
            numbers = orjson.loads(f"[{','.join(cells)}]")
        except orjson.JSONDecodeError:
            if missing:
                break
            cells = ["null" if cell in MISSING_TOKENS else cell for cell in cells]
            missing = True
        else:
            if len(numbers) == len(cells) and set(map(type, numbers)) <= {int, float, type(None)}:
                return np.array(numbers, dtype=np.float64)
            return None
    text = "".join(cells)
    if "_" in text or not text.isascii():
        return None
    try:
        return np.array([math.nan if cell == "null" else float(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        return None


def _numbers(cells: tuple[str, ...]) -> Cells:
    """Cells of a numeric column: an array, or a list where some are no numbers."""
    floats = _parse(cells)
    if floats is not None:
        return floats
    mixed: list[object] = []
    for cell in cells:
        number = _as_number(cell)
        mixed.append(None if cell in MISSING_TOKENS else cell if number is None else number)
    return mixed


def _bounded(value: Any) -> Any:
    """A value that takes little memory and means the same."""
    if type(value) is str:
        return value if len(value) <= LONGEST else category_of(value)
    return value if type(value) in _SCALARS else Missing.INVALID


class _Jsonl(_Text):
    """An object a line: all columns in it, or the features under `features` as `POST /v1/samples` takes them."""

    def _open(self) -> int:
        self._nested: bool | None = None
        return super()._open()

    def _chunks(self, file: _Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]:
        rows: list[dict[str, Any]] = []
        names: dict[str, None] = {}
        size = 0
        seen: dict[str, None] = {}
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise self._too_long(number)
            row = self._row(line, number)
            if row is None:
                continue
            if len(line) > _LONG_LINE:
                row = self._shortened(row)
            rows.append(row)
            size += len(line)
            names |= dict.fromkeys(row["features"] if self._nested else row)
            if len(names) > MAX_COLUMNS:
                raise self.error(f"more than {MAX_COLUMNS} columns up to here; accepted are at most so many", number)
            if len(rows) % MOMENT_ROWS == 0 and (len(rows) >= _chunk_rows(len(names)) or size >= _CHUNK_BYTES):
                yield self._chunk(rows, seen, only)
                rows, size = [], 0
        if rows:
            yield self._chunk(rows, seen, only)
        elif not seen:
            raise self.error("empty; accepted is an object a line, one for each sample")
        if only is None:
            self._check_renamed(seen)

    def _row(self, line: bytes, number: int) -> dict[str, Any] | None:
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.isspace() or not line:
            return None
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if "UTF-8" in error.msg:
                raise self._bad_utf8() from error
            hint = " (JSON has no NaN or Infinity: write null)" if b"NaN" in line or b"Infinity" in line else ""
            if line.startswith((b"[\n", b"[\r", b"{\n", b"{\r")):
                hint = " (a document over several lines: write an object a line)"
            raise self.error(f"not JSON: {error.msg}{hint}", number, error.colno) from error
        if not isinstance(row, dict):
            raise self.error(f"{kind(row)}; accepted is an object a line, one for each sample", number)
        nested = isinstance(row.get("features"), dict)
        if self._nested is None:
            self._nested = nested
        elif nested != self._nested:
            forms = ("without", "with") if self._nested else ("with", "without")
            raise self.error(f'an object {forms[0]} "features" after objects {forms[1]}; use one form', number)
        return row

    def _shortened(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._nested:
            return {name: value if self._is_prediction(name) else _bounded(value) for name, value in row.items()}
        return row | {"features": {name: _bounded(value) for name, value in row["features"].items()}}

    def _is_prediction(self, name: str) -> bool:
        return self.key(name) == (Role.PREDICTION, PREDICTION_COLUMN)

    def _chunk(self, rows: list[dict[str, Any]], seen: dict[str, None], only: Collection[Key] | None) -> Chunk:
        columns: dict[Key, Cells] = {}
        if self._nested:
            features = [row["features"] for row in rows]
            keys = ((Role.FEATURE, name) for name in _union(features))
            columns = {key: _column(features, key[1]) for key in keys if only is None or key in only}
        names = _union(rows)
        seen |= names
        for name in names:
            if self._nested and name not in self._fields:
                if name not in ("features", "model", "error"):
                    self.warn(f'{shown(name)} is left out: it stands beside "features" and is no known field')
                continue
            key = self.key(name)
            if self._is_prediction(name):
                self._add_prediction(columns, [row.get(name) for row in rows], only)
            elif key is not None and (only is None or key in only):
                # the probability of a predicted class is the confidence, whatever else says so
                columns.setdefault(key, _column(rows, name))
        return Chunk(len(rows), columns)

    @staticmethod
    def _add_prediction(columns: dict[Key, Cells], values: list[object], only: Collection[Key] | None) -> None:
        classes, confidences = split_probabilities(values)
        for name, given in ((PREDICTION_COLUMN, classes), (CONFIDENCE_COLUMN, confidences)):
            key = (Role.PREDICTION, name)
            if given is not None and (only is None or key in only):
                columns[key] = _kept(list(given))


def _union(rows: Sequence[dict[str, Any]]) -> dict[str, None]:
    names: dict[str, None] = {}
    previous: dict[str, Any] = {}
    for row in rows:
        if row.keys() != previous.keys():
            names |= dict.fromkeys(row)
            previous = row
    return names


def _column(rows: Sequence[dict[str, Any]], name: str) -> list[object]:
    return _kept([row.get(name) for row in rows])


def _kept(values: list[object]) -> list[object]:
    """Values with a mark in place of those that can be no value, and long ones cut to what tells them apart."""
    return values if set(map(type, values)) <= _SCALARS else [_bounded(value) for value in values]


class _Parquet(Dataset):
    """Columns of numbers, booleans and text, dictionaries of them included; others are left out with a warning."""

    def _open(self) -> int:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise self.error("reading Parquet needs pyarrow: pip install 'mlexporter[arrow]'") from error
        self._arrow = pyarrow
        try:
            self._file = pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise self.error(f"cannot be read as Parquet: {_first_line(error)}") from error
        schema = self._file.schema_arrow
        self._check_header(schema.names)
        if not self._file.metadata.num_rows:
            raise self.error("no rows; accepted is a row for each sample")
        self._kinds = {field.name: self._kind(field) for field in schema if self.key(field.name) is not None}
        return int(self._file.num_row_groups)

    def _kind(self, field: Any) -> ColumnType | None:
        is_, given = self._arrow.types, field.type
        if is_.is_dictionary(given):
            given = given.value_type
        if is_.is_integer(given) or is_.is_floating(given) or is_.is_decimal(given):
            return "numeric"
        if is_.is_boolean(given):
            return "boolean"
        if str(given) in ("string", "large_string", "string_view", "null"):
            return "categorical"
        message = f"its type is {field.type}; accepted are numbers, booleans and text"
        self.warn(f"column {shown(field.name)} is left out: {message}")
        return None

    def chunks(
        self, types: Types, progress: Progress | None = None, only: Collection[Key] | None = None
    ) -> Iterator[Chunk]:
        wanted = {
            name: column_type
            for name, column_type in self._kinds.items()
            if column_type is not None and (only is None or self.key(name) in only)
        }
        waiting: list[Any] = []
        size = _chunk_rows(len(self._file.schema_arrow.names))
        try:
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(size, row_groups=[group], columns=list(wanted)):
                    waiting.append(batch)
                    while sum(b.num_rows for b in waiting) >= size:
                        table = self._arrow.Table.from_batches(waiting)
                        yield self._chunk(table.slice(0, size), wanted, types)
                        waiting = table.slice(size).to_batches()
                if progress is not None:
                    progress(1)
        except (self._arrow.ArrowException, OSError) as error:
            raise self.error(f"cannot be read as Parquet: {_first_line(error)}") from error
        if waiting:
            yield self._chunk(self._arrow.Table.from_batches(waiting), wanted, types)

    def _chunk(self, table: Any, kinds: Mapping[str, ColumnType], types: Types) -> Chunk:
        columns: dict[Key, Cells] = {}
        for name, column_type in kinds.items():
            key, column = self.key(name), table.column(name)
            assert key is not None
            if column_type == "numeric" and types.get(key[1]) in (None, "numeric"):
                if self._arrow.types.is_dictionary(column.type):
                    column = column.cast(column.type.value_type)
                floats = column.cast(self._arrow.float64(), safe=False)
                columns[key] = np.array(floats.to_numpy(zero_copy_only=False), dtype=np.float64)
            else:
                columns[key] = [_bounded(value) for value in column.to_pylist()]
        return Chunk(table.num_rows, columns)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
