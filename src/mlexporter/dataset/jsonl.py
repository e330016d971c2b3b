"""Files of a JSON object a line."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import orjson

from mlexporter.columns import MOMENT_ROWS
from mlexporter.dataset.source import (
    CHUNK_BYTES,
    MAX_COLUMNS,
    Cells,
    Chunk,
    Key,
    Types,
    bounded,
    chunk_rows,
    kept_values,
)
from mlexporter.dataset.text import LONG_LINE, LONGEST_LINE, Bytes, TextDataset
from mlexporter.decode.forms import kind
from mlexporter.decode.rows import split_probabilities
from mlexporter.samples import CONFIDENCE_COLUMN, PREDICTION_COLUMN, Role
from mlexporter.scalars import shown


class JsonlDataset(TextDataset):
    """An object a line: all columns in it, or the features under `features` as `POST /v1/samples` takes them."""

    def _open(self) -> int:
        self._nested: bool | None = None
        return super()._open()

    def _chunks(self, file: Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]:
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        names: dict[str, None] = {}
        size = 0
        seen: dict[str, None] = {}
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise self._too_long(number)
            row = self._row(line, number)
            if row is None:
                continue
            if len(line) > LONG_LINE:
                row = self._shortened(row)
            rows.append(row)
            lines.append(number)
            size += len(line)
            names |= dict.fromkeys(row["features"] if self._nested else row)
            if len(names) > MAX_COLUMNS:
                raise self.error(f"more than {MAX_COLUMNS} columns up to here; accepted are at most so many", number)
            if len(rows) % MOMENT_ROWS == 0 and (len(rows) >= chunk_rows(len(names)) or size >= CHUNK_BYTES):
                yield self._chunk(rows, lines, seen, only)
                rows, lines, size = [], [], 0
        if rows:
            yield self._chunk(rows, lines, seen, only)
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
            return {name: value if self._is_prediction(name) else bounded(value) for name, value in row.items()}
        return row | {"features": {name: bounded(value) for name, value in row["features"].items()}}

    def _is_prediction(self, name: str) -> bool:
        return self.key(name) == (Role.PREDICTION, PREDICTION_COLUMN)

    def _chunk(
        self, rows: list[dict[str, Any]], lines: list[int], seen: dict[str, None], only: Collection[Key] | None
    ) -> Chunk:
        columns: dict[Key, Cells] = {}
        if self._nested:
            features = [row["features"] for row in rows]
            keys = ((Role.FEATURE, name) for name in _union(features))
            columns = {key: _column(features, key[1]) for key in keys if only is None or key in only}
        names = _union(rows)
        seen |= names
        predictions: list[object] | None = None
        for name in names:
            if self._nested and name not in self._fields:
                if name not in ("features", "model", "error"):
                    self.warn(f'{shown(name)} is left out: it stands beside "features" and is no known field')
                continue
            key = self.key(name)
            if self._is_prediction(name):
                predictions = self._add_prediction(columns, [row.get(name) for row in rows], only)
            elif key is not None and (only is None or key in only):
                # the probability of a predicted class is the confidence, whatever else says so
                columns.setdefault(key, _column(rows, name))
        times = None if self._time is None else self._times([row.get(self._time) for row in rows], lines)
        return Chunk(len(rows), columns, times, predictions)

    @staticmethod
    def _add_prediction(
        columns: dict[Key, Cells], values: list[object], only: Collection[Key] | None
    ) -> list[object] | None:
        """Add classes and their probabilities; the predictions as they are where these are not all of them."""
        classes, confidences, _ = split_probabilities(values)
        for name, given in ((PREDICTION_COLUMN, classes), (CONFIDENCE_COLUMN, confidences)):
            key = (Role.PREDICTION, name)
            if given is not None and (only is None or key in only):
                columns[key] = kept_values(list(given))
        return values if confidences is not None else None


def _union(rows: Sequence[dict[str, Any]]) -> dict[str, None]:
    names: dict[str, None] = {}
    previous: dict[str, Any] = {}
    for row in rows:
        if row.keys() != previous.keys():
            names |= dict.fromkeys(row)
            previous = row
    return names


def _column(rows: Sequence[dict[str, Any]], name: str) -> list[object]:
    return kept_values([row.get(name) for row in rows])
