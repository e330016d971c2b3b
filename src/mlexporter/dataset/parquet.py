"""Parquet files, with pyarrow."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mlexporter.columns import ColumnType
from mlexporter.dataset.source import Cells, Chunk, Dataset, Key, Progress, Types, bounded, chunk_rows
from mlexporter.scalars import shown


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
        """The rows of the file; see `Dataset`."""
        wanted = {
            name: column_type
            for name, column_type in self._kinds.items()
            if column_type is not None and (only is None or self.key(name) in only)
        }
        waiting: list[Any] = []
        size = chunk_rows(len(self._file.schema_arrow.names))
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
                columns[key] = [bounded(value) for value in column.to_pylist()]
        return Chunk(table.num_rows, columns)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
