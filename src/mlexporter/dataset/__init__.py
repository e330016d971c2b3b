"""Recorded samples in files, read as a stream of chunks: CSV, JSONL (both also gzipped) and Parquet.

A chunk holds columns as the exporter knows them, by role and name. Memory is bounded by the size of a chunk, whatever
the size of the file; a file can be read as often as one likes.
"""

from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final

from mlexporter.config import DataConfig
from mlexporter.dataset.csv_file import MISSING_TOKENS, CsvDataset
from mlexporter.dataset.jsonl import JsonlDataset
from mlexporter.dataset.parquet import ParquetDataset
from mlexporter.dataset.source import CHUNK_ROWS, Cells, Chunk, Dataset, DatasetError, Key, Progress, Types

__all__ = [
    "CHUNK_ROWS",
    "FORMATS",
    "MISSING_TOKENS",
    "Cells",
    "Chunk",
    "Dataset",
    "DatasetError",
    "Key",
    "Progress",
    "Types",
    "open_dataset",
]

FORMATS: Final = ".csv, .tsv, .jsonl, .ndjson (each also with .gz), .parquet"


def open_dataset(path: Path, names: DataConfig | None = None, zone: tzinfo = UTC) -> Dataset:
    """A data file, by the ending of its name.

    Args:
        path: the file.
        names: of its columns that are not known by name.
        zone: of its times that say none.

    Raises:
        DatasetError: it cannot be read, or is of no known format.

    """
    names = names or DataConfig()
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        return CsvDataset(path, names, zone)
    if plain.endswith((".jsonl", ".ndjson")):
        return JsonlDataset(path, names, zone)
    if name.endswith((".parquet", ".pq")):
        return ParquetDataset(path, names, zone)
    raise DatasetError(f"{path}: unknown format; accepted are {FORMATS}")
