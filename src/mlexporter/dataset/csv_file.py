"""CSV files."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np
import orjson

from mlexporter.columns import MOMENT_ROWS, ColumnType
from mlexporter.dataset.source import (
    CHUNK_BYTES,
    Cells,
    Chunk,
    DatasetError,
    Key,
    Types,
    bounded,
    chunk_rows,
)
from mlexporter.dataset.text import LONG_LINE, LONGEST_LINE, Bytes, TextDataset
from mlexporter.edges import Floats
from mlexporter.scalars import shown

MISSING_TOKENS: Final = frozenset(("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"))
_DELIMITERS: Final = ",;\t"
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_QUOTED: Final = re.compile(r'"[^"]*"')
_WHOLE: Final = re.compile(r"-?[0-9]+\.0")
_DECIMAL_COMMA: Final = re.compile(r"-?[0-9]+,[0-9]+")


class CsvDataset(TextDataset):
    """Comma, semicolon or tab between the cells, which the header line decides, and quotes as in RFC 4180."""

    def _open(self) -> int:
        # filled as the first chunk with a value of a column is met, and kept
        self._types: dict[str, ColumnType] = {}
        self._whole: set[str] = set()
        self._line = 0
        self._long = False
        self._size = 0
        return super()._open()

    def _chunks(self, file: Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]:
        self._line = 0
        lines = self._lines(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        first = next((line for line in lines if line.strip("\r\n")), None)
        if first is None:
            raise self.error("empty; accepted is a header line and a line for each sample")
        header_line = self._line
        self._delimiter = max(_DELIMITERS, key=_QUOTED.sub("", first).count)
        reader = csv.reader(chain((first,), lines), delimiter=self._delimiter, strict=True)
        names = [name.strip() for name in next(self._rows(reader, None, header_line), (0, []))[1]]
        numbers = [str(number) for number in range(len(names))]  # what pandas calls columns without a name
        if names != numbers and all(_as_number(name) is not None for name in names):
            message = "a header line is needed, with the names of the columns; this one has numbers only"
            raise self.error(message, header_line)
        self._check_header(names, header_line)
        most = chunk_rows(len(names))
        rows: list[list[str]] = []
        starts: list[int] = []
        any_rows = False
        for start, row in self._rows(reader, len(names), self._line + 1):
            rows.append(row)
            starts.append(start)
            if len(rows) % MOMENT_ROWS == 0 and (len(rows) >= most or self._size >= CHUNK_BYTES):
                yield self._chunk(names, rows, starts, types, only)
                rows, starts, any_rows, self._size = [], [], True, 0
        if rows:
            yield self._chunk(names, rows, starts, types, only)
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
            if size > LONG_LINE:
                if size == LONGEST_LINE:
                    raise self._too_long(self._line)
                self._long = True
            self._size += size
            yield line

    def _rows(self, reader: Iterator[list[str]], width: int | None, line: int) -> Iterator[tuple[int, list[str]]]:
        """Rows from `line` on, and where each begins; of `width` cells unless None; empty lines are left out."""
        try:
            for row in reader:
                if len(row) != width and width is not None and row:
                    raise self.error(f"{_cells(len(row))}, but the header has {_cells(width)}", line)
                if self._long:
                    row = [bounded(cell) for cell in row]
                    self._long = False
                if row:
                    yield line, row
                line = self._line + 1
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

    def _chunk(
        self,
        names: list[str],
        rows: list[list[str]],
        starts: list[int],
        types: Types,
        only: Collection[Key] | None,
    ) -> Chunk:
        columns: dict[Key, Cells] = {}
        times: Floats | None = None
        for name, cells in zip(names, zip(*rows, strict=True), strict=True):
            key = self.key(name)
            if key is not None and (only is None or key in only):
                columns[key] = self._typed(name, cells, types.get(key[1]))
            elif name == self._time:
                times = self._times([None if cell in MISSING_TOKENS else cell for cell in cells], starts)
        return Chunk(len(rows), columns, times)

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
