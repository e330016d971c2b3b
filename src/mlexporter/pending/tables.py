"""The tables of the SQLite store: what is asked of them, and in which words.

An id is kept as a 64-bit hash of it only: nothing personal stays, and the index, where most of the cost of a write
lies, is a third of what ids would make of it. Among a million ids, two have the same hash with a probability of 3e-8.

Rows go in and out by the thousand in one statement over a JSON array. sqlite3 lets go of the interpreter's lock for
each step of a statement and has to wait to get it back, which beside busy threads takes up to 5 ms a row otherwise.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from mlexporter.pending.family import MICROSECONDS, Early, Family, Outcome, Row
from mlexporter.pending.records import Prediction, VersionKey

SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE versions (number INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, UNIQUE (model, version));
CREATE TABLE predictions (
    number INTEGER PRIMARY KEY,  -- in the order of arrival
    version INTEGER NOT NULL,    -- its number
    id INTEGER NOT NULL,         -- hash
    time INTEGER NOT NULL,       -- times are in microseconds
    value TEXT NOT NULL,         -- values are JSON
    label TEXT,
    label_time INTEGER,
    every INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX predictions_by_id ON predictions (id, version);
CREATE INDEX predictions_by_time ON predictions (version, time);
CREATE INDEX predictions_labelled ON predictions (label_time) WHERE label_time IS NOT NULL;
CREATE TABLE labels (  -- that wait for their prediction
    number INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    version TEXT,  -- NULL: every one
    id INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value TEXT NOT NULL
);
CREATE INDEX labels_by_id ON labels (id);
CREATE INDEX labels_by_time ON labels (model, time);
CREATE TABLE totals (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_INSERT: Final = """
INSERT INTO predictions (version, id, time, value)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)
WHERE true ON CONFLICT DO NOTHING
"""
# the plus sign keeps SQLite from going through all rows of the version
_NEW_BESIDE_OTHERS: Final = """
SELECT json_group_array(new.id) FROM predictions new
JOIN predictions other ON other.id = new.id AND other.version <> new.version
WHERE new.number > ? AND +new.version IN (SELECT value FROM json_each(?))
"""
_NEW_BESIDE_LABELS: Final = """
SELECT json_group_array(new.id) FROM predictions new JOIN labels ON labels.id = new.id WHERE new.number > ?
"""
_ROWS_OF_IDS: Final = """
SELECT json_group_array(json_array(number, version, id, time, value, label, label_time, every))
FROM predictions WHERE id IN (SELECT value FROM json_each(?))
"""
_LABELS_OF_IDS: Final = """
SELECT json_group_array(json_array(model, version, id, time, value))
FROM labels WHERE id IN (SELECT value FROM json_each(?))
"""
_UPDATE: Final = """
UPDATE predictions SET label = new.value ->> 1, label_time = new.value ->> 2, every = new.value ->> 3
FROM json_each(?) new WHERE predictions.number = new.value ->> 0
"""
_FORGET_LABELS_OF: Final = """
DELETE FROM labels WHERE number IN (
    SELECT labels.number FROM json_each(?) gone
    JOIN labels ON labels.id = gone.value ->> 1 AND labels.model = gone.value ->> 0
)
"""
_INSERT_LABELS: Final = """
INSERT INTO labels (model, version, id, time, value)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
"""
# what to delete, oldest first: the place of each is taken by the parameters :key, :before and :most
PAST_PREDICTIONS: Final = """
SELECT number FROM predictions WHERE version = :key AND time < :before ORDER BY time, number LIMIT :most
"""
LABELLED: Final = """
SELECT number FROM predictions WHERE label_time IS NOT NULL ORDER BY label_time, number LIMIT :most
"""
OLDEST: Final = "SELECT number FROM predictions ORDER BY number LIMIT :most"
PAST_LABELS: Final = "SELECT number FROM labels WHERE model = :key AND time < :before ORDER BY time, number LIMIT :most"
OLDEST_LABELS: Final = "SELECT number FROM labels ORDER BY number LIMIT :most"


class Counts(msgspec.Struct):
    """Rows: predictions without and with a label by version, and labels that wait by model."""

    waiting: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labelled: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labels: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def predictions(self) -> int:
        """With and without a label."""
        return self.waiting.total() + self.labelled.total()

    def several_versions(self) -> set[str]:
        """Models of which more than one version has predictions."""
        versions = Counter(model for model, _ in self.waiting + self.labelled)
        return {model for model, count in versions.items() if count > 1}

    def copy(self) -> "Counts":
        """One that can be changed."""
        return Counts(self.waiting.copy(), self.labelled.copy(), self.labels.copy())


Families = dict[tuple[str, int], Family]
"""By model and the hash of an id."""


class Tables:
    """The tables over a connection. Every method raises sqlite3.Error; none begins or ends a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[VersionKey, int] = {}
        self._versions: dict[int, VersionKey] = {}
        self.read_versions()

    @property
    def versions(self) -> Mapping[VersionKey, int]:
        """Numbers of all versions that ever had a prediction."""
        return self._numbers

    def read_versions(self) -> None:
        """Take the numbers of versions from the file, also after one of them was rolled back."""
        rows = self._connection.execute("SELECT number, model, version FROM versions").fetchall()
        self._versions = {number: (model, version) for number, model, version in rows}
        self._numbers = {key: number for number, key in self._versions.items()}

    def count(self) -> Counts:
        """Count all rows."""
        counts = Counts()
        for version, rows, labelled in self._connection.execute(
            "SELECT version, count(*), count(label_time) FROM predictions GROUP BY version"
        ):
            key = self._versions[version]
            counts.waiting[key], counts.labelled[key] = rows - labelled, labelled
        counts.labels.update(dict(self._connection.execute("SELECT model, count(*) FROM labels GROUP BY model")))
        return counts

    def last(self) -> int:
        """The number of the newest prediction; later ones have larger numbers."""
        number: int = self._single("SELECT coalesce(max(number), 0) FROM predictions")
        return number

    def insert(self, predictions: Sequence[Prediction]) -> dict[VersionKey, int]:
        """Add the predictions whose id is not there yet; how many were added, by version."""
        last = self.last()
        for key in sorted({(row.model, row.version) for row in predictions} - self._numbers.keys()):
            number = self._connection.execute("INSERT INTO versions (model, version) VALUES (?, ?)", key).lastrowid
            assert number is not None
            self._numbers[key], self._versions[number] = number, key
        numbers = self._numbers
        rows = [
            (numbers[(row.model, row.version)], hash_of(row.id), round(row.time * MICROSECONDS), row.value.decode())
            for row in predictions
        ]
        self._connection.execute(_INSERT, (_json(rows),))
        counted = self._connection.execute(
            "SELECT version, count(*) FROM predictions WHERE number > ? GROUP BY version", (last,)
        )
        return {self._versions[version]: count for version, count in counted}

    def new_beside_others(self, last: int, versions: Iterable[VersionKey]) -> list[int]:
        """Hashes of ids of predictions beyond a number, of some versions, which other versions have predicted, too."""
        numbers = [self._numbers[key] for key in versions]
        found: list[int] = orjson.loads(self._single(_NEW_BESIDE_OTHERS, last, _json(numbers)))
        return found

    def new_beside_labels(self, last: int) -> list[int]:
        """Hashes of ids of predictions beyond a number for which a label waits."""
        found: list[int] = orjson.loads(self._single(_NEW_BESIDE_LABELS, last))
        return found

    def load(self, ids: Iterable[int], last: int, outcome: Outcome) -> Families:
        """All that is known of ids, by their hashes; predictions beyond a number arrive now."""
        families: Families = {}
        wanted = _json(list(ids))
        for model, version, hashed, time, value in orjson.loads(self._single(_LABELS_OF_IDS, wanted)):
            family = families.setdefault((model, hashed), Family(model))
            family.early[version] = Early(value.encode(), time)
            family.waited += 1
        rows = sorted(orjson.loads(self._single(_ROWS_OF_IDS, wanted)))
        for number, version, hashed, time, value, label, label_time, every in rows:
            model, name = self._versions[version]
            told = label.encode() if label is not None else None
            row = Row(number, name, time, value.encode(), told, label_time or 0, bool(every))
            family = families.setdefault((model, hashed), Family(model))
            if number > last:
                family.arrive(row, outcome)
            else:
                family.rows.append(row)
        return families

    def keep(self, families: Families, counts: Counts) -> None:
        """Write what changed, and count the labels that wait."""
        rows = [
            (row.number, row.label.decode(), row.label_time, int(row.every))
            for family in families.values()
            for row in family.rows
            if row.changed and row.label is not None
        ]
        if rows:
            self._connection.execute(_UPDATE, (_json(rows),))
        changed = [(key, family) for key, family in families.items() if family.early_changed]
        if not changed:
            return
        self._connection.execute(_FORGET_LABELS_OF, (_json([key for key, _ in changed]),))
        early = [
            (model, version, hashed, label.time, label.value.decode())
            for (model, hashed), family in changed
            for version, label in family.early.items()
        ]
        self._connection.execute(_INSERT_LABELS, (_json(early),))
        for (model, _), family in changed:
            counts.labels[model] += len(family.early) - family.waited

    def delete(self, rows: str, limits: Mapping[str, object], counts: Counts) -> dict[VersionKey, int]:
        """Delete the predictions that a query tells; how many of them had no label, by version."""
        query = (
            f"SELECT version, count(*), count(label_time) FROM predictions WHERE number IN ({rows}) GROUP BY version"  # noqa: S608
        )
        found = self._connection.execute(query, limits).fetchall()
        if found:
            self._connection.execute(f"DELETE FROM predictions WHERE number IN ({rows})", limits)  # noqa: S608
        lost: dict[VersionKey, int] = {}
        for version, deleted, labelled in found:
            key = self._versions[version]
            counts.waiting[key] -= deleted - labelled
            counts.labelled[key] -= labelled
            if deleted > labelled:
                lost[key] = deleted - labelled
        return lost

    def delete_labels(self, rows: str, limits: Mapping[str, object], counts: Counts) -> dict[str, int]:
        """Delete the waiting labels that a query tells; how many, by model."""
        query = f"SELECT model, count(*) FROM labels WHERE number IN ({rows}) GROUP BY model"  # noqa: S608
        lost: dict[str, int] = dict(self._connection.execute(query, limits).fetchall())
        if lost:
            self._connection.execute(f"DELETE FROM labels WHERE number IN ({rows})", limits)  # noqa: S608
            counts.labels.subtract(lost)
        return lost

    def _single(self, query: str, *parameters: object) -> Any:
        return self._connection.execute(query, parameters).fetchone()[0]


def hash_of(name: str) -> int:
    """64 bits of an id, the same in every process."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _json(rows: Sequence[object]) -> str:
    return orjson.dumps(rows).decode()
