"""The audit log: JSON lines that are only ever appended, each on disk before anything follows from it.

It is the trigger's memory as well: after a restart the state is read from it. Past its size a new file begins with the
state of every group, and the one before is kept under the same name with `.1` behind.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from mlexporter.trigger.groups import Record

logger = logging.getLogger(__name__)

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Record)
_MODE: Final = 0o640


class JournalError(Exception):
    """The journal cannot be read or written; its text says why."""


class Journal:
    """One file, which this process alone writes. Safe to call from one thread at a time.

    Args:
        path: of the file; its folder has to exist.
        max_bytes: size from which on it is rotated.

    Raises:
        JournalError: it cannot be opened, or another process has it.

    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._rotate_at = max_bytes
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
            self._size = os.fstat(self._file).st_size
            self._sync_folder()
        except BlockingIOError:
            raise JournalError(f"journal.file: {path}: another process writes it") from None
        except OSError as error:
            raise JournalError(f"journal.file: {path}: cannot be opened: {error.strerror}") from error

    def replay(self, take: Callable[[Record], None]) -> None:
        """Hand out every record in order.

        A line that a crash left unfinished at the end is cut off; a broken line elsewhere is left out. Both are logged.

        Raises:
            JournalError: the file cannot be read.

        """
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        self._cut(len(line), number)
                        break
                    try:
                        record = _DECODER.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        logger.warning("line of the journal left out: it is broken", extra={"line": number})
                    else:
                        take(record)
        except OSError as error:
            raise JournalError(f"journal.file: {self._path}: cannot be read: {error.strerror}") from error

    def _cut(self, length: int, number: int) -> None:
        os.ftruncate(self._file, self._size - length)
        self._size -= length
        logger.warning("last line of the journal cut off: it is unfinished", extra={"line": number, "bytes": length})

    def append(self, record: Record) -> None:
        """Write a record, and wait until it is on disk.

        Raises:
            JournalError: it is not, and the file is as it was before.

        """
        line = _ENCODER.encode(record) + b"\n"
        try:
            _write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error
        self._size += len(line)

    @property
    def full(self) -> bool:
        """Whether it is time to rotate."""
        return self._size >= self._rotate_at

    def rotate(self, records: Iterable[Record]) -> None:
        """Begin a new file with these records. At every moment there is a whole file under the journal's name.

        Raises:
            JournalError: that failed, and the journal goes on in the old file.

        """
        fresh, kept = Path(f"{self._path}.new"), Path(f"{self._path}.1")
        try:
            file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, _MODE)
            try:
                _write(file, b"".join(_ENCODER.encode(record) + b"\n" for record in records))
                os.fsync(file)
                with contextlib.suppress(FileNotFoundError):
                    kept.unlink()
                kept.hardlink_to(self._path)
                fresh.replace(self._path)
                self._sync_folder()
            except OSError:
                os.close(file)
                raise
        except OSError as error:
            self._rotate_at = 2 * self._size
            raise JournalError(f"the journal cannot be rotated: {error.strerror}") from error
        os.close(self._file)
        self._file, self._size = file, os.fstat(file).st_size
        # a state that is itself near the bound must not be written anew with each record
        self._rotate_at = max(self._max_bytes, 2 * self._size)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._file)
        os.close(self._lock)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
