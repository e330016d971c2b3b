"""Predictions that wait, in SQLite: a file that outlives a restart, or memory."""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from mlexporter.pending import tables
from mlexporter.pending.family import MICROSECONDS, Family, Outcome
from mlexporter.pending.records import Joined, Label, Lost, Prediction, StoreError, Totals, VersionKey, Waiting
from mlexporter.pending.tables import Counts, Tables

EARLY_LABEL_SECONDS: Final = 3600
"""A label waits for its prediction for at most this long."""

FORGET_ROWS: Final = 50_000
"""One call of `forget` deletes at most about this many rows of each kind, so that it takes a fraction of a second."""

_CACHE_KIB: Final = 16_384
_BUSY_SECONDS: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TEMPORARY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_log = logging.getLogger(__name__)


class _OtherSchemaError(Exception):
    """The file was written by another version of this program, or by another one."""


class SqliteStore:
    """A `PendingStore` in a file that outlives a restart, or in memory.

    A file that is damaged, or of another version of the schema, is renamed to `<name>.damaged-<Unix time>`, and a new
    one is begun. A file that was deleted is begun anew.

    Predictions with a label are kept for repeats and corrections until the horizon; of too many rows they go first,
    those that were labelled first before the others. Labels wait for EARLY_LABEL_SECONDS or the horizon.

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
        self._tables: Tables
        self._counts = Counts()

    # -- the store ----------------------------------------------------------------------------------------------------

    def apply(
        self, predictions: Sequence[Prediction], labels: Sequence[Label], totals: Callable[[Joined], Totals]
    ) -> Joined:
        """See `PendingStore.apply`."""
        with self._transaction() as (connection, counts):
            outcome = Outcome()
            last = self._tables.last()
            tracked = self._tables.insert(predictions) if predictions else {}
            counts.waiting.update(tracked)
            self._join(tracked, last, labels, outcome, counts)
            for key, labelled in outcome.labelled.items():
                counts.waiting[key] -= labelled
                counts.labelled[key] += labelled
            joined = outcome.joined(tracked)
            connection.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?)", totals(joined).items())
        return joined

    def forget(self, now: float) -> Lost:
        """See `PendingStore.forget`. What one call leaves because of FORGET_ROWS, the next one deletes."""
        with self._transaction() as (_, counts):
            predictions = {(*key, "horizon"): lost for key, lost in self._past(now, counts).items()}
            labels = {(model, "horizon"): lost for model, lost in self._past_labels(now, counts).items()}
            # those with a label first: one without it may still get it
            for rows in (tables.LABELLED, tables.OLDEST):
                most = min(FORGET_ROWS, counts.predictions - self._max_rows)
                if most > 0 and (rows is tables.LABELLED or not counts.labelled.total()):
                    lost = self._tables.delete(rows, {"most": most}, counts)
                    predictions |= {(*key, "limit"): number for key, number in lost.items()}
            most = min(FORGET_ROWS, counts.labels.total() - self._max_rows)
            if most > 0:
                lost_labels = self._tables.delete_labels(tables.OLDEST_LABELS, {"most": most}, counts)
                labels |= {(model, "limit"): number for model, number in lost_labels.items()}
        return Lost(predictions, labels)

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

    # -- parts of them ------------------------------------------------------------------------------------------------

    def _join(
        self, tracked: dict[VersionKey, int], last: int, labels: Sequence[Label], outcome: Outcome, counts: Counts
    ) -> None:
        """Join new predictions, those beyond the number `last`, and new labels with what is there and each other."""
        told = [(label, tables.hash_of(label.id)) for label in labels]
        ids = {hashed for _, hashed in told}
        several = counts.several_versions()
        beside_others = [key for key in tracked if key[0] in several]
        if beside_others:
            ids.update(self._tables.new_beside_others(last, beside_others))
        if tracked and counts.labels.total():
            ids.update(self._tables.new_beside_labels(last))
        if ids:
            families = self._tables.load(ids, last, outcome)
            for label, hashed in told:
                families.setdefault((label.model, hashed), Family(label.model)).tell(label, outcome)
            self._tables.keep(families, counts)

    def _past(self, now: float, counts: Counts) -> dict[VersionKey, int]:
        """Delete predictions beyond their horizon."""
        lost: Counter[VersionKey] = Counter()
        for key, number in self._tables.versions.items():
            before = round((now - self._horizons(key[0])) * MICROSECONDS)
            limits = {"key": number, "before": before, "most": FORGET_ROWS}
            lost.update(self._tables.delete(tables.PAST_PREDICTIONS, limits, counts))
        return lost

    def _past_labels(self, now: float, counts: Counts) -> dict[str, int]:
        """Delete labels that waited too long."""
        lost: Counter[str] = Counter()
        for model in list(+counts.labels):
            before = round((now - min(EARLY_LABEL_SECONDS, self._horizons(model))) * MICROSECONDS)
            limits = {"key": model, "before": before, "most": FORGET_ROWS}
            lost.update(self._tables.delete_labels(tables.PAST_LABELS, limits, counts))
        return lost

    # -- the connection -----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, Counts]]:
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
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._tables.read_versions()
        except sqlite3.Error:
            if self._path is not None:
                self.close()

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        """Go back to before the call, get ready for the next one, and tell."""
        code = _code(error)
        if self._connection is not None:
            self._roll_back(self._connection)
        if self._path is not None and code not in _TEMPORARY:
            self.close()  # the file may have gone, or its disk be mounted anew: the next call looks again
        if code in _DAMAGED:
            self._set_aside(str(error))
        raise StoreError(f"the store of pending predictions cannot be used: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        """The connection; a new one where there is none, or where the file is not the one that was opened."""
        if self._connection is not None and self._path is not None and _inode(self._path) != self._inode:
            _log.warning("file of pending predictions is gone, and begun anew: %s", self._path)
            self.close()
        for _ in range(2):  # a file that is set aside makes room for a new one
            if self._connection is not None:
                return self._connection
            try:
                self._connection = self._open()
            except (sqlite3.Error, _OtherSchemaError) as error:
                if isinstance(error, sqlite3.Error) and _code(error) not in _DAMAGED:
                    raise StoreError(f"the store of pending predictions cannot be opened: {error}") from error
                self._set_aside(str(error))
        if self._connection is None:
            raise StoreError("the store of pending predictions cannot be opened: a new file is damaged, too")
        return self._connection

    def _open(self) -> sqlite3.Connection:
        """Connect; create the tables in an empty file; count what is there."""
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (entries,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if version != tables.SCHEMA_VERSION and (version or entries):
                raise _OtherSchemaError(f"its schema has version {version}, not {tables.SCHEMA_VERSION}")
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{_CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            if not version:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {tables.SCHEMA} PRAGMA user_version = {tables.SCHEMA_VERSION}; COMMIT;"
                )
            self._tables = Tables(connection)
            self._counts = self._tables.count()
        except BaseException:
            connection.close()
            raise
        self._inode = _inode(self._path) if self._path is not None else 0
        return connection

    def _set_aside(self, why: str) -> None:
        """Rename the file and what belongs to it."""
        if self._path is None:
            return
        aside = f"{self._path}.damaged-{int(time.time())}"
        _log.warning("file of pending predictions is set aside as %s: %s", aside, why)
        for suffix in ("", "-wal", "-shm"):
            try:
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"a damaged file of pending predictions cannot be set aside: {error}") from error


def _inode(path: Path) -> int:
    """By which a file is known; 0 where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 where the error is not its own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
