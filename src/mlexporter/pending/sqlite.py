"""Predictions that wait, in SQLite: a file, or memory.

An id is kept as a 64-bit hash of it only: nothing personal stays, and the index is a third of what ids would make of it,
which is most of the cost of a write. Among a million ids, two have the same hash with a probability of 3e-8.

Rows go in and out by the thousand in one statement over a JSON array. sqlite3 lets go of the interpreter's lock for each
step of a statement and has to wait to get it back, which beside busy threads takes up to 5 ms a row otherwise.
"""

import hashlib
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import orjson

from mlexporter.pending.family import MICROSECONDS, Early, Family, Outcome, Row
from mlexporter.pending.records import Joined, Label, Lost, Prediction, StoreError, Totals, VersionKey, Waiting

EARLY_LABEL_SECONDS: Final = 3600
"""A label waits for its prediction for at most this long."""

FORGET_ROWS: Final = 50_000
"""One call of `forget` deletes at most this many rows of each kind, so that it takes a fraction of a second."""

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
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
_NEW_BESIDE_OTHERS: Final = """
SELECT json_group_array(DISTINCT new.id) FROM predictions new
JOIN predictions other ON other.id = new.id AND other.version <> new.version
WHERE new.number > ? AND new.version IN (SELECT value FROM json_each(?))
"""
_NEW_BESIDE_LABELS: Final = """
SELECT json_group_array(DISTINCT new.id) FROM predictions new JOIN labels ON labels.id = new.id WHERE new.number > ?
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
_PAST_PREDICTIONS: Final = """
SELECT number FROM predictions WHERE version = :key AND time < :before ORDER BY time, number LIMIT :most
"""
_LABELLED: Final = """
SELECT number FROM predictions WHERE label_time IS NOT NULL ORDER BY label_time, number LIMIT :most
"""
_OLDEST: Final = "SELECT number FROM predictions ORDER BY number LIMIT :most"
_PAST_LABELS: Final = (
    "SELECT number FROM labels WHERE model = :key AND time < :before ORDER BY time, number LIMIT :most"
)
_OLDEST_LABELS: Final = "SELECT number FROM labels ORDER BY number LIMIT :most"

_CACHE_KIB: Final = 16_384
_BUSY_SECONDS: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WORTH_A_RETRY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_log = logging.getLogger(__name__)


class _OtherSchemaError(Exception):
    """The file was written by another version of this program, or by another one."""


class _Counts(msgspec.Struct):
    """Rows in the file: predictions without and with a label by version, and labels that wait by model."""

    waiting: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labelled: Counter[VersionKey] = msgspec.field(default_factory=Counter)
    labels: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def predictions(self) -> int:
        return self.waiting.total() + self.labelled.total()

    def copy(self) -> "_Counts":
        return _Counts(self.waiting.copy(), self.labelled.copy(), self.labels.copy())


class SqliteStore:
    """A `PendingStore` in a file that outlives a restart, or in memory.

    A file that is damaged, or of another version of the schema, is renamed to `<name>.damaged-<Unix time>`, and a new
    one is begun. A file that was deleted is begun anew.

    Predictions with a label are kept for repeats and corrections until the horizon; of too many rows they go first,
    those that were labelled first before the others.

    Args:
        path: of the file; None for memory.
        horizons: seconds for which predictions of a model wait.
        max_rows: predictions that are kept, and labels that wait, each.

    """

    def __init__(self, path: Path | None, horizons: Callable[[str], float], *, max_rows: int = 1_000_000) -> None:
        self._path = path
        self._horizons = horizons
        self._max_rows = max_rows
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._numbers: dict[VersionKey, int] = {}
        self._versions: dict[int, VersionKey] = {}
        self._counts = _Counts()

    # -- the store ----------------------------------------------------------------------------------------------------

    def apply(
        self, predictions: Sequence[Prediction], labels: Sequence[Label], totals: Callable[[Joined], Totals]
    ) -> Joined:
        """See `PendingStore.apply`."""
        with self._transaction() as (connection, counts):
            last = _single(connection, "SELECT coalesce(max(number), 0) FROM predictions")
            tracked = self._insert(connection, predictions, last)
            counts.waiting.update(tracked)
            outcome = Outcome()
            self._join(connection, counts, (last, tracked), labels, outcome)
            joined = outcome.joined(tracked)
            for key, labelled in outcome.labelled.items():
                counts.waiting[key] -= labelled
                counts.labelled[key] += labelled
            connection.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", totals(joined).items())
        return joined

    def forget(self, now: float) -> Lost:
        """See `PendingStore.forget`. Each call deletes at most FORGET_ROWS of each kind; the next one goes on."""
        with self._transaction() as (connection, counts):
            lost_predictions: Counter[tuple[str, str, str]] = Counter()
            lost_labels: Counter[tuple[str, str]] = Counter()
            for key, number in self._numbers.items():
                before = round((now - self._horizons(key[0])) * MICROSECONDS)
                past = {"key": number, "before": before, "most": FORGET_ROWS}
                for version, lost in _delete(connection, self._versions, counts, _PAST_PREDICTIONS, past).items():
                    lost_predictions[(*version, "horizon")] += lost
            for model in list(counts.labels):
                before = round((now - min(EARLY_LABEL_SECONDS, self._horizons(model))) * MICROSECONDS)
                past = {"key": model, "before": before, "most": FORGET_ROWS}
                for name, lost in _delete_labels(connection, counts, _PAST_LABELS, past).items():
                    lost_labels[(name, "horizon")] += lost
            # labelled ones first: one without a label may still get it
            for rows in (_LABELLED, _OLDEST):
                most = min(FORGET_ROWS, counts.predictions - self._max_rows)
                if most > 0 and (rows is _LABELLED or not counts.labelled.total()):
                    for version, lost in _delete(connection, self._versions, counts, rows, {"most": most}).items():
                        lost_predictions[(*version, "limit")] += lost
            most = min(FORGET_ROWS, counts.labels.total() - self._max_rows)
            if most > 0:
                for name, lost in _delete_labels(connection, counts, _OLDEST_LABELS, {"most": most}).items():
                    lost_labels[(name, "limit")] += lost
        return Lost(dict(lost_predictions), dict(lost_labels))

    def waiting(self) -> Waiting:
        """See `PendingStore.waiting`. Counted as rows come and go: costs nothing."""
        self._opened()
        return Waiting(dict(+self._counts.waiting), dict(+self._counts.labels))

    def totals(self) -> Totals:
        """See `PendingStore.totals`."""
        connection = self._opened()
        try:
            return dict(connection.execute("SELECT name, value FROM totals"))
        except sqlite3.Error as error:
            self._failed(error)

    def close(self) -> None:
        """See `PendingStore.close`."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    # -- joining ------------------------------------------------------------------------------------------------------

    def _insert(
        self, connection: sqlite3.Connection, predictions: Sequence[Prediction], last: int
    ) -> dict[VersionKey, int]:
        """Add what is new; how many were, by version."""
        if not predictions:
            return {}
        numbers = self._numbers
        for key in {(prediction.model, prediction.version) for prediction in predictions} - numbers.keys():
            added = connection.execute("INSERT INTO versions (model, version) VALUES (?, ?)", key).lastrowid
            assert added is not None
            numbers[key], self._versions[added] = added, key
        rows = [
            (numbers[(row.model, row.version)], _hash(row.id), round(row.time * MICROSECONDS), row.value.decode())
            for row in predictions
        ]
        connection.execute(_INSERT, (_json(rows),))
        counted = connection.execute(
            "SELECT version, count(*) FROM predictions WHERE number > ? GROUP BY version", [last]
        )
        return {self._versions[number]: count for number, count in counted}

    def _join(
        self,
        connection: sqlite3.Connection,
        counts: _Counts,
        new: tuple[int, dict[VersionKey, int]],
        labels: Sequence[Label],
        outcome: Outcome,
    ) -> None:
        """Join new predictions, those beyond a number, and new labels with what is there and with each other."""
        last, tracked = new
        labelled = [(label, _hash(label.id)) for label in labels]
        ids = {hashed for _, hashed in labelled}
        models = Counter(model for model, _ in +(counts.waiting + counts.labelled))
        beside = [self._numbers[key] for key in tracked if models[key[0]] > 1]
        if beside:
            ids.update(orjson.loads(_single(connection, _NEW_BESIDE_OTHERS, last, _json(beside))))
        if tracked and counts.labels.total():
            ids.update(orjson.loads(_single(connection, _NEW_BESIDE_LABELS, last)))
        if not ids:
            return
        families = self._load(connection, ids, last, outcome, waiting=bool(counts.labels.total()))
        for label, hashed in labelled:
            family = families.setdefault((label.model, hashed), Family(label.model))
            family.tell(label, outcome)
        _keep(connection, counts, families)

    def _load(
        self, connection: sqlite3.Connection, ids: set[int], last: int, outcome: Outcome, *, waiting: bool
    ) -> dict[tuple[str, int], Family]:
        """All that is known of some ids; predictions beyond a number arrive now."""
        families: dict[tuple[str, int], Family] = {}
        wanted = _json(list(ids))
        if waiting:
            for model, version, hashed, when, value in orjson.loads(_single(connection, _LABELS_OF_IDS, wanted)):
                family = families.setdefault((model, hashed), Family(model))
                family.early[version] = Early(value.encode(), when)
                family.waited += 1
        for number, version, hashed, when, value, label, label_time, every in sorted(
            orjson.loads(_single(connection, _ROWS_OF_IDS, wanted))
        ):
            model, name = self._versions[version]
            known = label.encode() if label is not None else None
            row = Row(number, name, when, value.encode(), known, label_time or 0, bool(every))
            family = families.setdefault((model, hashed), Family(model))
            if number > last:
                family.arrive(row, outcome)
            else:
                family.rows.append(row)
        return families

    # -- the connection -----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, _Counts]]:
        """One that is committed with the counts that were changed in it, or leaves everything as it was."""
        connection = self._opened()
        counts = self._counts.copy()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection, counts
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
        except BaseException:
            self._roll_back(connection)
            raise
        self._counts = counts

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._read_versions(connection)

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        """Go back to before the call, get ready for the next one, and tell."""
        code = _code(error)
        if self._connection is not None:
            self._roll_back(self._connection)
        if self._path is not None and code not in _WORTH_A_RETRY:
            self.close()
        if self._path is not None and code in _DAMAGED:
            self._set_aside(str(error))
        raise StoreError(f"the store of pending predictions cannot be used: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        """The connection; a new one where there is none, or where the file is not the one that was opened."""
        if self._connection is not None and self._path is not None:
            try:
                inode = self._path.stat().st_ino
            except OSError:
                inode = 0
            if inode != self._inode:
                _log.warning("file of pending predictions is gone; beginning a new one, path=%s", self._path)
                self.close()
        if self._connection is None:
            try:
                self._open()
            except _OtherSchemaError as error:
                self.close()
                self._set_aside(str(error))
                self._open_again()
            except sqlite3.Error as error:
                self.close()
                if self._path is None or _code(error) not in _DAMAGED:
                    raise StoreError(f"the store of pending predictions cannot be opened: {error}") from error
                self._set_aside(str(error))
                self._open_again()
        assert self._connection is not None
        return self._connection

    def _open_again(self) -> None:
        try:
            self._open()
        except (sqlite3.Error, _OtherSchemaError) as error:
            self.close()
            raise StoreError(f"the store of pending predictions cannot be opened: {error}") from error

    def _open(self) -> None:
        """Connect; create the tables in an empty file; count what is there."""
        if self._path is not None:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        version = _single(connection, "PRAGMA user_version")
        if version != _SCHEMA_VERSION and _single(connection, "SELECT count(*) FROM sqlite_schema") + version:
            raise _OtherSchemaError(f"its schema has version {version}, not {_SCHEMA_VERSION}")
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if version != _SCHEMA_VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        self._read_versions(connection)
        self._counts = self._counted(connection)
        self._inode = self._path.stat().st_ino if self._path is not None else 0

    def _read_versions(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT number, model, version FROM versions").fetchall()
        self._versions = {number: (model, version) for number, model, version in rows}
        self._numbers = {key: number for number, key in self._versions.items()}

    def _counted(self, connection: sqlite3.Connection) -> _Counts:
        counts = _Counts()
        for version, rows, labelled in connection.execute(
            "SELECT version, count(*), count(label_time) FROM predictions GROUP BY version"
        ):
            key = self._versions[version]
            counts.waiting[key], counts.labelled[key] = rows - labelled, labelled
        counts.labels.update(dict(connection.execute("SELECT model, count(*) FROM labels GROUP BY model")))
        return counts

    def _set_aside(self, why: str) -> None:
        """Rename the file and what belongs to it."""
        assert self._path is not None
        aside = f"{self._path}.damaged-{int(time.time())}"
        _log.warning(
            "file of pending predictions cannot be read; set aside, path=%s, as=%s: %s", self._path, aside, why
        )
        for suffix in ("", "-wal", "-shm"):
            try:
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"a damaged file of pending predictions cannot be set aside: {error}") from error


def _keep(connection: sqlite3.Connection, counts: _Counts, families: dict[tuple[str, int], Family]) -> None:
    """Write what changed."""
    rows = [
        (row.number, row.label.decode(), row.label_time, int(row.every))
        for family in families.values()
        for row in family.rows
        if row.changed and row.label is not None
    ]
    if rows:
        connection.execute(_UPDATE, (_json(rows),))
    changed = [(key, family) for key, family in families.items() if family.early_changed]
    if not changed:
        return
    connection.execute(_FORGET_LABELS_OF, (_json([key for key, _ in changed]),))
    early = [
        (model, version, hashed, label.time, label.value.decode())
        for (model, hashed), family in changed
        for version, label in family.early.items()
    ]
    connection.execute(_INSERT_LABELS, (_json(early),))
    for (model, _), family in changed:
        counts.labels[model] += len(family.early) - family.waited


def _delete(
    connection: sqlite3.Connection, versions: dict[int, VersionKey], counts: _Counts, rows: str, limits: dict[str, Any]
) -> dict[VersionKey, int]:
    """Delete some predictions; how many of them had no label, by version."""
    query = f"SELECT version, count(*), count(label_time) FROM predictions WHERE number IN ({rows}) GROUP BY version"  # noqa: S608
    found = connection.execute(query, limits).fetchall()
    if not found:
        return {}
    connection.execute(f"DELETE FROM predictions WHERE number IN ({rows})", limits)  # noqa: S608
    lost: dict[VersionKey, int] = {}
    for version, deleted, labelled in found:
        counts.waiting[versions[version]] -= deleted - labelled
        counts.labelled[versions[version]] -= labelled
        if deleted > labelled:
            lost[versions[version]] = deleted - labelled
    return lost


def _delete_labels(
    connection: sqlite3.Connection, counts: _Counts, rows: str, limits: dict[str, Any]
) -> dict[str, int]:
    """Delete some labels that wait; how many, by model."""
    query = f"SELECT model, count(*) FROM labels WHERE number IN ({rows}) GROUP BY model"  # noqa: S608
    lost = dict(connection.execute(query, limits).fetchall())
    if lost:
        connection.execute(f"DELETE FROM labels WHERE number IN ({rows})", limits)  # noqa: S608
        counts.labels.subtract(lost)
    return lost


def _single(connection: sqlite3.Connection, query: str, *parameters: object) -> Any:
    """The one value that a query gives."""
    return connection.execute(query, parameters).fetchone()[0]


def _json(rows: Sequence[object]) -> str:
    return orjson.dumps(rows).decode()


def _hash(name: str) -> int:
    """64 bits of an id, the same in every process."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 where the error is not its own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
