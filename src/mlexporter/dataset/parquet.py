"""Parquet files, with pyarrow."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from mlexporter.columns import ColumnType
from mlexporter.dataset.source import Cells, Chunk, Dataset, Key, Progress, Types, bounded, chunk_rows
from mlexporter.edges import Floats
from mlexporter.scalars import shown
from mlexporter.timezones import seconds_of, unix_times, utc_of, within_years

_TEXT: Final = ("string", "large_string", "string_view", "null")
_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class ParquetDataset(Dataset):
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
        self._check_time(schema)
        self._kinds = {field.name: self._kind(field) for field in schema if self.key(field.name) is not None}
        return int(self._file.num_row_groups)

    def _kind(self, field: Any) -> ColumnType | None:
        is_, given = self._arrow.types, self._plain(field.type)
        if self._is_number(given):
            return "numeric"
        if is_.is_boolean(given):
            return "boolean"
        if str(given) in _TEXT:
            return "categorical"
        message = f"its type is {field.type}; accepted are numbers, booleans and text"
        self.warn(f"column {shown(field.name)} is left out: {message}")
        return None

    def _plain(self, given: Any) -> Any:
        """A type; that of its values where it is a dictionary."""
        return given.value_type if self._arrow.types.is_dictionary(given) else given

    def _is_number(self, given: Any) -> bool:
        is_ = self._arrow.types
        return bool(is_.is_integer(given) or is_.is_floating(given) or is_.is_decimal(given))

    def _check_time(self, schema: Any) -> None:
        if self._time is None:
            return
        is_, given = self._arrow.types, self._plain(schema.field(self._time).type)
        if not (is_.is_timestamp(given) or is_.is_date(given) or self._is_number(given) or str(given) in _TEXT):
            message = f"column {shown(self._time)} is of type {given}, which is no time"
            raise self.error(f"{message}; accepted are timestamps, dates, numbers and text")

    def chunks(
        self, types: Types, progress: Progress | None = None, only: Collection[Key] | None = None
    ) -> Iterator[Chunk]:
        """The rows of the file; see `Dataset`."""
        wanted = {
            name: column_type
            for name, column_type in self._kinds.items()
            if column_type is not None and (only is None or self.key(name) in only)
        }
        read = [*wanted] if self._time is None else [*wanted, self._time]
        waiting: list[Any] = []
        done = 0
        size = chunk_rows(len(self._file.schema_arrow.names))
        try:
            for group in range(self._file.num_row_groups):
                for batch in self._file.iter_batches(size, row_groups=[group], columns=read):
                    waiting.append(batch)
                    while sum(b.num_rows for b in waiting) >= size:
                        table = self._arrow.Table.from_batches(waiting)
                        yield self._chunk(table.slice(0, size), wanted, types, done)
                        done += size
                        waiting = table.slice(size).to_batches()
                if progress is not None:
                    progress(1)
        except (self._arrow.ArrowException, OSError) as error:
            raise self.error(f"cannot be read as Parquet: {_first_line(error)}") from error
        if waiting:
            yield self._chunk(self._arrow.Table.from_batches(waiting), wanted, types, done)

    def _chunk(self, table: Any, kinds: Mapping[str, ColumnType], types: Types, before: int) -> Chunk:
        columns: dict[Key, Cells] = {}
        for name, column_type in kinds.items():
            key, column = self.key(name), table.column(name)
            assert key is not None
            if column_type == "numeric" and types.get(key[1]) in (None, "numeric"):
                columns[key] = self._floats(column)
            else:
                columns[key] = [bounded(value) for value in column.to_pylist()]
        times = None if self._time is None else self._parquet_times(table.column(self._time), before)
        return Chunk(table.num_rows, columns, times)

    def _floats(self, column: Any) -> Floats:
        floats = column.cast(self._plain(column.type)).cast(self._arrow.float64(), safe=False)
        return np.array(floats.to_numpy(zero_copy_only=False), dtype=np.float64)

    def _parquet_times(self, column: Any, before: int) -> Floats:
        """Times of the rows after the first `before` ones."""
        arrow, given = self._arrow, self._plain(column.type)
        column = column.cast(given)
        if str(given) in _TEXT:
            times, wrong = unix_times(column.to_pylist(), self.zone)
        else:
            if self._is_number(given):
                times = seconds_of(self._floats(column))
            elif arrow.types.is_date32(given):
                times = utc_of(self._floats(column.cast(arrow.int32())) * 86_400, self.zone)
            else:
                unit = 1000 if arrow.types.is_date64(given) else _UNITS[given.unit]
                times = self._floats(column.cast(arrow.int64())) / unit
                if getattr(given, "tz", None) is None:
                    times = utc_of(times, self.zone)
            times, wrong = within_years(times)
        if wrong >= 0:
            # Arrow writes it, for Python has no dates beyond the year 9999
            value = column[wrong].cast(arrow.string()).as_py()
            raise self.no_time(value, place=f"row {before + wrong + 1}: ")
        return times


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
