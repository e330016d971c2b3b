"""The tables of the SQLite store: what is asked of them, and in which words.

Predictions and their labels go into them in blocks, thousands of rows in one: a row of its own for each, and an index
over them, would cost 8 us a row, several times what it takes to count a sample. What finds a row is in memory, and made
from the blocks when a file is opened. Each block begins with a checksum.

Labels that wait have rows of their own, which go in and out by the thousand in one statement over a JSON array. sqlite3
lets go of the interpreter's lock for each step of a statement and has to wait to get it back, which beside busy threads
takes up to 5 ms a row otherwise.
"""

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from mlexporter.pending.blocks import LABELLED, Block, Packed, Piece, Values, pack
from mlexporter.pending.hashing import Hashes
from mlexporter.pending.records import VersionKey

SCHEMA_VERSION: Final = 2
SCHEMA: Final = """
CREATE TABLE versions (
    number INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    first INTEGER NOT NULL,   -- rows with lower numbers are given up
    before INTEGER NOT NULL,  -- rows of earlier times are given up; in microseconds
    UNIQUE (model, version)
);
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,  -- its number
    first INTEGER NOT NULL,    -- number of its first row within the version
    hashes BLOB NOT NULL,      -- of ids, in the order of arrival
    times BLOB NOT NULL        -- in microseconds, of runs of rows
);
CREATE TABLE predictions (block INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE told (number INTEGER PRIMARY KEY, content BLOB NOT NULL);  -- labels of rows; later ones replace earlier
CREATE TABLE labels (  -- that wait for their prediction
    number INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    version TEXT,  -- NULL: every one
    id INTEGER NOT NULL,  -- hash
    time INTEGER NOT NULL,
    value TEXT NOT NULL  -- JSON
);
CREATE INDEX labels_by_id ON labels (id);
CREATE INDEX labels_by_time ON labels (model, time);
CREATE TABLE totals (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_LABELS_OF_IDS: Final = """
SELECT json_group_array(json_array(number, version, id, time, value))
FROM labels WHERE id IN (SELECT value FROM json_each(?)) AND model = ?
"""
_FORGET_LABELS_OF: Final = """
DELETE FROM labels WHERE number IN (
    SELECT labels.number FROM json_each(?) gone
    JOIN labels ON labels.id = gone.value ->> 1 AND labels.model = gone.value ->> 0
)
"""
_INSERT_LABELS: Final = """
INSERT INTO labels (number, model, version, id, time, value)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?)
"""
# what to delete, oldest first: the place of each is taken by the parameters :key, :before and :most
PAST_LABELS: Final = "SELECT number FROM labels WHERE model = :key AND time < :before"
OLDEST_LABELS: Final = "SELECT number FROM labels ORDER BY number LIMIT :most"

_RUN: Final = np.dtype([("start", "<u4"), ("time", "<i8")])
_CACHE_BYTES: Final = 32 * 1024 * 1024

EarlyRow = tuple[int | None, str, str | None, int, int, str]
"""A label that waits: its number, model, version, hash of the id, microseconds, JSON."""


class DamagedError(sqlite3.DatabaseError):
    """A block is not what was written."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Tables:
    """The tables over a connection. Every method raises sqlite3.Error; none begins or ends a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._packed: OrderedDict[int, Packed] = OrderedDict()
        # numbers are not used again, not even after what they were given to was rolled back
        self._last_block: int = self._single("SELECT coalesce(max(number), 0) FROM blocks")

    # -- versions -----------------------------------------------------------------------------------------------------

    def versions(self) -> Iterator[tuple[VersionKey, int, int, int]]:
        """Names, number, first row and time, of every version that ever had a prediction."""
        for number, model, version, first, before in self._connection.execute("SELECT * FROM versions ORDER BY number"):
            yield (model, version), number, first, before

    def add_version(self, key: VersionKey, before: int) -> int:
        """Its number."""
        statement = "INSERT INTO versions (model, version, first, before) VALUES (?, ?, 0, ?)"
        number = self._connection.execute(statement, (*key, before)).lastrowid
        assert number is not None
        return number

    def give_up(self, version: int, first: int, before: int) -> None:
        """Note that rows with lower numbers, and from earlier times, are given up."""
        self._connection.execute("UPDATE versions SET first = ?, before = ? WHERE number = ?", (first, before, version))

    # -- blocks -------------------------------------------------------------------------------------------------------

    def new_number(self) -> int:
        """A number for a block."""
        self._last_block += 1
        return self._last_block

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Every block with the number of its version; one after another."""
        rows = self._connection.execute("SELECT number, version, first, hashes, times FROM blocks ORDER BY first")
        for number, version, first, hashes, times in rows:
            runs = np.frombuffer(_unsealed(times), _RUN)
            arrived = np.frombuffer(_unsealed(hashes), "<u8")
            yield version, Block.of(number, first, arrived, runs["start"].copy(), runs["time"].copy())

    def add_block(self, version: int, block: Block, hashes: Hashes, values: Values) -> None:
        """Write one, of hashes in the order of arrival."""
        runs = np.empty(len(block.starts), _RUN)
        runs["start"], runs["time"] = block.starts, block.times
        self._connection.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?, ?)",
            (block.number, version, block.first, _sealed(hashes.data), _sealed(runs.data)),
        )
        self._connection.execute("INSERT INTO predictions VALUES (?, ?)", (block.number, _sealed(*pack(values))))

    def packed(self, block: int) -> Packed:
        """What was predicted in a block; those that were asked for last are kept in memory."""
        found = self._packed.pop(block, None)
        if found is None:
            found = Packed(_unsealed(self._single("SELECT content FROM predictions WHERE block = ?", block)))
        self._packed[block] = found
        weight = sum(packed.weight for packed in self._packed.values())
        while weight > _CACHE_BYTES and len(self._packed) > 1:
            weight -= self._packed.popitem(last=False)[1].weight
        return found

    def delete_blocks(self, blocks: Sequence[Block]) -> None:
        """Delete some."""
        for block in blocks:
            self._packed.pop(block.number, None)
            self._connection.execute("DELETE FROM blocks WHERE number = ?", (block.number,))
            self._connection.execute("DELETE FROM predictions WHERE block = ?", (block.number,))

    # -- labels of rows -----------------------------------------------------------------------------------------------

    def told(self) -> "Iterator[tuple[np.ndarray[Any, Any], list[bytes]]]":
        """Labels of rows, with the texts among them, in the order in which they were told."""
        for (content,) in self._connection.execute("SELECT content FROM told ORDER BY number"):
            view = _unsealed(content)
            size = int.from_bytes(view[:4], "little")
            end = 4 + size * LABELLED.itemsize
            yield np.frombuffer(view[:end], LABELLED, offset=4), [text.encode() for text in orjson.loads(view[end:])]

    def add_told(self, told: "np.ndarray[Any, Any]", texts: Sequence[bytes]) -> None:
        """Write labels of rows."""
        written = orjson.dumps([text.decode() for text in texts])
        content = _sealed(len(told).to_bytes(4, "little"), told.data, written)
        self._connection.execute("INSERT INTO told (content) VALUES (?)", (content,))

    def delete_told(self) -> None:
        """Delete all labels of rows, to be written anew."""
        self._connection.execute("DELETE FROM told")

    # -- labels that wait ---------------------------------------------------------------------------------------------

    def early_counts(self) -> dict[str, int]:
        """How many labels wait, by model."""
        return dict(self._connection.execute("SELECT model, count(*) FROM labels GROUP BY model").fetchall())

    def early_hashes(self) -> Hashes:
        """Ids of all labels that wait."""
        found = orjson.loads(self._single("SELECT json_group_array(id) FROM labels"))
        return np.array(found, np.int64).view(np.uint64)

    def early(self, model: str, ids: Hashes) -> list[tuple[int, str | None, int, int, str]]:
        """Number, version, hash of the id, time and JSON of the labels that wait for some ids of a model."""
        found: list[tuple[int, str | None, int, int, str]] = []
        if len(ids):
            found = orjson.loads(self._single(_LABELS_OF_IDS, _json(ids.view(np.int64).tolist()), model))
        return found

    def replace_early(self, ids: Sequence[tuple[str, int]], rows: Sequence[EarlyRow]) -> None:
        """Write which labels wait for some ids of models."""
        self._connection.execute(_FORGET_LABELS_OF, (_json(ids),))
        self._connection.execute(_INSERT_LABELS, (_json(rows),))

    def delete_early(self, rows: str, limits: Mapping[str, object]) -> dict[str, int]:
        """Delete the waiting labels that a query tells; how many, by model."""
        query = f"SELECT model, count(*) FROM labels WHERE number IN ({rows}) GROUP BY model"  # noqa: S608
        lost: dict[str, int] = dict(self._connection.execute(query, limits).fetchall())
        if lost:
            self._connection.execute(f"DELETE FROM labels WHERE number IN ({rows})", limits)  # noqa: S608
        return lost

    # -- totals -------------------------------------------------------------------------------------------------------

    def totals(self) -> dict[str, bytes]:
        """What was kept last."""
        return dict(self._connection.execute("SELECT name, value FROM totals"))

    def keep_totals(self, totals: Iterable[tuple[str, bytes]]) -> None:
        """Keep what is counted."""
        self._connection.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", totals)

    def _single(self, query: str, *parameters: object) -> Any:
        found = self._connection.execute(query, parameters).fetchone()
        if found is None:
            raise DamagedError("a block is missing")
        return found[0]


def _sealed(*parts: Piece) -> bytes:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([checksum.to_bytes(8, "little"), *parts])


def _unsealed(content: object) -> memoryview:
    if not isinstance(content, bytes):
        raise DamagedError("a block is none")
    view = memoryview(content)
    if zlib.crc32(view[8:]) != int.from_bytes(view[:8], "little"):
        raise DamagedError("a block is not what was written")
    return view[8:]  # where numbers are aligned


def _json(rows: Sequence[object]) -> str:
    return orjson.dumps(rows).decode()
