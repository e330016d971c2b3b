"""Predictions that wait, in SQLite: a file that outlives a restart, or memory."""

import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from mlexporter.pending.family import MICROSECONDS, Family, Outcome
from mlexporter.pending.hashing import Hashes, Ids, hashes_of
from mlexporter.pending.records import EARLY_LABEL_SECONDS, Arrivals, Joined, Label, Lost, StoreError, Totals, Waiting
from mlexporter.pending.state import State
from mlexporter.pending.tables import OLDEST_LABELS, PAST_LABELS, SCHEMA, SCHEMA_VERSION, Tables
from mlexporter.pending.waiting import Rows

_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "cache_size = -4096",  # KiB
    # some builds write zeros over all that is deleted: as much again as was written, and it is soon written over anyway
    "secure_delete = FAST",
)
_BUSY_SECONDS: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TEMPORARY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_log = logging.getLogger(__name__)


class _OtherSchemaError(Exception):
    """The file was written by another version of this program, or by another one."""


class SqliteStore:
    """A `PendingStore` in a file that outlives a restart, or in memory.

    A file that is damaged, or of another version of the schema, is renamed to `<name>.damaged-<Unix time>`, and a new
    one is begun. A file that was deleted is begun anew, as is its folder. Only the owner may read it.

    Predictions with a label are kept for repeats and corrections until the horizon. Of too many rows the oldest go
    first, with or without a label. Labels wait for EARLY_LABEL_SECONDS or the horizon.

    Args:
        path: of the file; None for memory.
        horizons: seconds for which predictions of a model wait.
        max_rows: predictions that are kept, and labels that wait, each.

    """

    def __init__(self, path: Path | None, horizons: Callable[[str], float], *, max_rows: int = 1_000_000) -> None:
        self._path = path
        self._horizons = horizons
        self._max_rows = max_rows
        self._open: tuple[sqlite3.Connection, Tables, Rows] | None = None
        self._inode = 0
        self._data_version = 0

    # -- the store ----------------------------------------------------------------------------------------------------

    def apply(self, predictions: Arrivals, labels: Sequence[Label], totals: Callable[[Joined], Totals]) -> Joined:
        """See `PendingStore.apply`."""
        with self._transaction() as (tables, rows, state):
            outcome = Outcome()
            added = rows.insert(predictions)
            told = hashes_of(Ids.of([label.id for label in labels]))
            wanted = dict(added.ids)
            for model, ids in _by_model(labels, told).items():
                wanted[model] = [*wanted.get(model, ()), ids]
            families = rows.load(wanted, added, outcome)
            for label, hashed in zip(labels, told.view(np.int64).tolist(), strict=True):
                families.setdefault((label.model, hashed), Family(label.model)).tell(label, outcome)
            rows.keep(families)
            state.waiting.subtract(outcome.labelled)
            state.labelled.update(outcome.labelled)
            joined = outcome.joined(added.tracked)
            tables.keep_totals(totals(joined).items())
        return joined

    def forget(self, now: float) -> Lost:
        """See `PendingStore.forget`."""
        with self._transaction() as (tables, rows, state):
            past = rows.give_up_past(lambda model: round((now - self._horizons(model)) * MICROSECONDS))
            predictions = {(*key, "horizon"): lost for key, lost in past.items()}
            labels = {(model, "horizon"): lost for model, lost in self._past_labels(now, tables, state).items()}
            if state.rows > self._max_rows:
                oldest = rows.give_up_oldest(state.rows - self._max_rows)
                predictions |= {(*key, "limit"): lost for key, lost in oldest.items()}
            most = state.labels.total() - self._max_rows
            if most > 0:
                lost_labels = tables.delete_early(OLDEST_LABELS, {"most": most})
                state.labels.subtract(lost_labels)
                labels |= {(model, "limit"): number for model, number in lost_labels.items()}
            rows.compact()
        return Lost(predictions, labels)

    def waiting(self) -> Waiting:
        """See `PendingStore.waiting`. Counted as rows come and go: costs nothing."""
        state = self._opened()[2].state
        return Waiting(dict(+state.waiting), dict(+state.labels))

    def totals(self) -> Totals:
        """See `PendingStore.totals`."""
        _, tables, _ = self._opened()
        try:
            return tables.totals()
        except sqlite3.Error as error:
            self._failed(error)

    def close(self) -> None:
        """See `PendingStore.close`."""
        if self._open is not None:
            with suppress(sqlite3.Error):
                self._open[0].close()
            self._open = None

    # -- parts of them ------------------------------------------------------------------------------------------------

    def _past_labels(self, now: float, tables: Tables, state: State) -> dict[str, int]:
        """Delete labels that waited too long."""
        lost: Counter[str] = Counter()
        for model in list(+state.labels):
            before = round((now - min(EARLY_LABEL_SECONDS, self._horizons(model))) * MICROSECONDS)
            lost.update(tables.delete_early(PAST_LABELS, {"key": model, "before": before}))
        state.labels.subtract(lost)
        return lost

    # -- the connection -----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Tables, Rows, State]]:
        """One that is committed together with what it changed in memory, or leaves everything as it was."""
        connection, tables, rows = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._changed_by_others(connection):
                rows = Rows(tables)
                self._open = connection, tables, rows
            yield tables, rows, rows.begin()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
        except BaseException:
            self._roll_back(connection)
            raise
        rows.commit()

    def _changed_by_others(self, connection: sqlite3.Connection) -> bool:
        """Whether another process wrote to the file since it was read, as at a change of replicas."""
        before, (self._data_version,) = self._data_version, connection.execute("PRAGMA data_version").fetchone()
        return before != self._data_version

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            if self._path is not None:
                self.close()

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        """Go back to before the call, get ready for the next one, and tell."""
        code = _code(error)
        if self._open is not None:
            self._roll_back(self._open[0])
        if self._path is not None and code not in _TEMPORARY:
            self.close()  # the file may have gone, or its disk be mounted anew: the next call looks again
        if code in _DAMAGED:
            self._set_aside(str(error))
        raise StoreError(f"the store of pending predictions cannot be used: {error}") from error

    def _opened(self) -> tuple[sqlite3.Connection, Tables, Rows]:
        """What is open; opened where nothing is, or where the file is not the one that was opened."""
        if self._open is not None and self._path is not None and _inode(self._path) != self._inode:
            _log.warning("file of pending predictions is gone, and begun anew: %s", self._path)
            self.close()
        for _ in range(2):  # a file that is set aside makes room for a new one
            if self._open is not None:
                return self._open
            try:
                self._open = self._connect()
            except (sqlite3.Error, _OtherSchemaError) as error:
                if isinstance(error, sqlite3.Error) and _code(error) not in _DAMAGED:
                    raise StoreError(
                        f"the store of pending predictions cannot be opened: {self._path}: {error}"
                    ) from error
                self._set_aside(str(error))
        if self._open is None:
            raise StoreError("the store of pending predictions cannot be opened: a new file is damaged, too")
        return self._open

    def _connect(self) -> tuple[sqlite3.Connection, Tables, Rows]:
        """Connect; create the tables in an empty file; read what is there."""
        if self._path is not None:
            _make(self._path)
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (entries,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if version != SCHEMA_VERSION and (version or entries):
                raise _OtherSchemaError(f"its schema has version {version}, not {SCHEMA_VERSION}")
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").fetchall()
            if not version:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            self._changed_by_others(connection)
            tables = Tables(connection)
            rows = Rows(tables)
        except BaseException:
            connection.close()
            raise
        self._inode = _inode(self._path) if self._path is not None else 0
        return connection, tables, rows

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


def _by_model(labels: Sequence[Label], ids: Hashes) -> dict[str, Hashes]:
    """Hashes of the ids of labels."""
    if len({label.model for label in labels}) <= 1:
        return {label.model: ids for label in labels[:1]}
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label.model, []).append(index)
    return {model: ids[indices] for model, indices in found.items()}


def _make(path: Path) -> None:
    """Make a file that is missing, and its folder: the disk may have been away, or read-only, at the start."""
    with suppress(OSError):  # it is there, or what is wrong is what SQLite says
        path.parent.mkdir(parents=True, exist_ok=True)
        # It holds predictions and labels; what SQLite writes beside it may be read by the same users. One that is there
        # is not opened: closing it would free the locks that this process has on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _inode(path: Path) -> int:
    """By which a file is known; 0 where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 where the error is not its own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
