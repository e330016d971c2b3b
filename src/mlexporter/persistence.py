"""State to disk and back, atomically: `state.bin` in the folder of `--storage.path`.

The file is written beside itself, flushed to the disk and renamed, so at every moment it is whole: the old one or the
new one. It begins with a line that names its format, then a SHA-256 of all that follows, then the state as msgpack.

A stop on request also leaves `state.clean`, which holds the checksum of the state that it belongs to: nothing was
counted after it, so counters go on where they were. The mark is deleted, for good, before its state is used. Without
it the process was killed, and counted things that the state does not know, and that Prometheus may have seen: a counter
that came back lower than it was scraped would count for Prometheus as a reset followed by an increase of its whole
value. So all counters begin at 0 then, and everything else comes back as it was, at most `SECONDS` old.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, get_args

import msgspec
import numpy as np

from mlexporter.restoring import kept_totals
from mlexporter.state import State
from mlexporter.store import Store

logger = logging.getLogger(__name__)

FILE_NAME: Final = "state.bin"
MARK_NAME: Final = "state.clean"
LOCK_NAME: Final = "state.lock"
SECONDS: Final = 30.0
"""Between two writes; the state on disk is older by no more than that and the time of a write."""
_MAGIC: Final = b"mlexporter-state 1\n"
_DIGEST: Final = 32
_ARRAY_TYPES: Final = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f8")


class StateError(Exception):
    """A file of state that cannot be used; the message says why."""


class InUseError(OSError):
    """Another process keeps its state in the same folder."""


# -- bytes ------------------------------------------------------------------------------------------------------------


def encode(state: State) -> bytes:
    """The bytes of a file."""
    return b"".join(_parts(state))


def _parts(state: State) -> tuple[bytes, bytes, bytes]:
    payload = msgspec.msgpack.encode(state, enc_hook=_array_out)
    return _MAGIC, hashlib.sha256(payload).digest(), payload


def decode(data: bytes) -> State:
    """A state from its bytes.

    Raises:
        StateError: they are cut off, were changed, or are of another format.

    """
    if not data.startswith(_MAGIC):
        known = data[: len(_MAGIC)].startswith(_MAGIC[:-2])
        raise StateError("it is of another version" if known else "it is no state of this program, or is cut off")
    begin = len(_MAGIC) + _DIGEST
    payload = memoryview(data)[begin:]
    if hashlib.sha256(payload).digest() != data[len(_MAGIC) : begin]:
        raise StateError("its checksum is wrong: it is cut off, or was changed")
    try:
        return msgspec.msgpack.decode(payload, type=State, dec_hook=_array_in)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise StateError(f"it is of another form: {error}") from error


def _array_out(array: Any) -> Any:
    """Type, shape and bytes of an array; whole numbers in the fewest bytes that hold them all."""
    if isinstance(array, np.generic):
        return array.item()
    own = array.dtype
    if own.kind == "i" and array.size:
        own = np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))
        own = own if own.kind in "iu" and own.itemsize < array.dtype.itemsize else array.dtype
    return own.newbyteorder("<").str, array.shape, array.astype(own.newbyteorder("<"), copy=False).tobytes()


def _array_in(wanted: Any, given: Any) -> Any:
    """An array of the type that is wanted; not to be written to."""
    if not (isinstance(given, list) and len(given) == 3):
        raise ValueError("no array")
    name, shape, data = given
    if name not in _ARRAY_TYPES:  # numpy reads far more than that as a type, some of it as Python
        raise ValueError("an array of another type")
    array = np.frombuffer(data, np.dtype(name)).reshape(shape)
    dtype = np.dtype(get_args(get_args(wanted)[1])[0])
    if array.dtype.kind == dtype.kind or (array.dtype.kind == "u" and dtype.kind == "i"):
        return array.astype(dtype, copy=False)
    raise ValueError(f"an array of {array.dtype}, not of {dtype}")


# -- files ------------------------------------------------------------------------------------------------------------


class Found(msgspec.Struct, frozen=True):
    """What was in the folder at the start.

    Attributes:
        state: None where there was none that can be used.
        clean: whether the process that wrote it was stopped, and counted nothing after it.
        damaged: whether there was one that cannot be used.

    """

    state: State | None = None
    clean: bool = False
    damaged: bool = False

    @property
    def totals(self) -> Mapping[str, bytes]:
        """Totals of outcomes, for versions of which the store of pending predictions kept none."""
        return kept_totals(self.state) if self.state is not None and self.clean else {}


class StateFolder:
    """The files. One process at a time uses a folder.

    Args:
        path: of the folder, which is made where it is missing.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path / FILE_NAME
        self._mark = path / MARK_NAME
        self._lock = path / LOCK_NAME
        self._exclusive = False
        self._locked: int | None = None

    def lock(self) -> None:
        """Keep others out, until this process ends.

        A file system that cannot lock, or be written to, is told in the log, and used as far as it goes.

        Raises:
            InUseError: another process was here first.

        """
        self._exclusive = True
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._hold()
        except InUseError:
            raise
        except OSError as error:
            logger.warning("the folder of --storage.path cannot be locked", extra={"error": str(error)})

    def _hold(self) -> None:
        """Lock the file that is there now, unless that is done: the folder may be another one than at the start."""
        if self._locked is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._locked), self._lock.stat()):
                    return
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                message = f"{self._path} is in use by another process; give each its own --storage.path"
                raise InUseError(message) from error
            raise
        if self._locked is not None:
            os.close(self._locked)
        self._locked = descriptor  # never closed while it is of use: the lock ends with it

    def take(self) -> Found:
        """Read what is there, and take away the mark of a clean stop. Never fails: what is damaged is set aside."""
        marked = self._take_mark()
        try:
            data = self._read()
            if data is None:
                return Found()
            return Found(decode(data), clean=marked == data[len(_MAGIC) : len(_MAGIC) + _DIGEST])
        except (StateError, OSError) as error:
            self._set_aside(str(error))
            return Found(damaged=True)

    def _read(self) -> bytes | None:
        try:
            # a pipe in its place must not hold up the start
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StateError("it is no file")
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def _take_mark(self) -> bytes | None:
        """The checksum of the state that was left by a clean stop; None where there is none, or where it stays."""
        try:
            with self._mark.open("rb") as file:
                marked = file.read(_DIGEST + 1)
            self._mark.unlink()
            self._flush_folder()
        except FileNotFoundError:
            return None
        except OSError as error:
            # a mark that stays would be believed after the next crash as well
            logger.warning("the mark of a clean stop cannot be removed", extra={"error": str(error)})
            return None
        return marked

    def _set_aside(self, why: str) -> None:
        aside = f"{self._file}.damaged-{int(time.time())}"
        try:
            self._file.rename(aside)
        except OSError as error:
            logger.error("damaged state cannot be set aside", extra={"error": str(error), "why": why})
        else:
            logger.error("damaged state is set aside", extra={"file": aside, "why": why})

    def write(self, state: State, *, clean: bool = False) -> int:
        """Replace the file; `clean` where nothing is counted any more.

        Returns:
            Its size, in bytes.

        Raises:
            OSError: it cannot be written, and what was there is still there.
            InUseError: the folder was replaced, and another process has the new one.

        """
        parts = _parts(state)
        self._path.mkdir(parents=True, exist_ok=True)  # the disk may have been away, or read-only, at the start
        if self._exclusive:
            try:
                self._hold()
            except InUseError:
                raise
            except OSError:
                pass  # where nothing can be locked, or made, the write says what is wrong
        self._replace(self._file, *parts)
        if clean:
            self._replace(self._mark, parts[1])
        return sum(map(len, parts))

    def _replace(self, path: Path, *parts: bytes) -> None:
        beside = path.with_name(f"{path.name}.new")
        try:
            # readable by nobody else: names of categories may be personal
            descriptor = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(descriptor)
            beside.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk what was written of it takes the room of others
                beside.unlink()
            raise
        self._flush_folder()

    def _flush_folder(self) -> None:
        """Make a rename, or a deletion, last."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# -- the thread -------------------------------------------------------------------------------------------------------


class Gauges(Protocol):
    """Who is told how writing fares."""

    def written(self, time: float, seconds: float, size: int) -> None:
        """A write succeeded, at a Unix time, in so many seconds and bytes."""

    def failed(self) -> None:
        """A write failed."""


class Saver:
    """Writes the state of a store, in a thread that runs `run`.

    Args:
        store: whose state it is.
        folder: to write to.
        gauges: that tell of it.
        clock: Unix time in seconds.
        seconds: between two writes.

    """

    def __init__(
        self, store: Store, folder: StateFolder, gauges: Gauges, clock: Callable[[], float], seconds: float = SECONDS
    ) -> None:
        self._store = store
        self._folder = folder
        self._gauges = gauges
        self._clock = clock
        self._seconds = seconds
        self._stopped = threading.Event()
        self._writing = threading.Lock()
        self._failing = False

    def run(self) -> None:
        """Write now, which shows whether that is possible, and again and again until `finish`."""
        self.save()
        while not self._stopped.wait(self._seconds):
            self.save()

    def finish(self) -> None:
        """End `run`, and write what there is at the end; nothing may be counted any more."""
        self._stopped.set()
        self.save(clean=True)

    def save(self, *, clean: bool = False) -> None:
        """Write the state. A failure is told and counted, and the next write is the next chance."""
        with self._writing:
            if self._stopped.is_set() and not clean:
                return
            begin = time.perf_counter()
            try:
                size = self._folder.write(self._store.state(), clean=clean)
            except Exception as error:  # noqa: BLE001 - neither a full disk nor a bug may end the exporter, or the thread
                self._failed(error)
                return
            self._gauges.written(self._clock(), time.perf_counter() - begin, size)
            if self._failing:
                logger.info("state is written again")
            self._failing = False

    def _failed(self, error: Exception) -> None:
        self._gauges.failed()
        if not self._failing:
            known = isinstance(error, OSError)
            level = logging.WARNING if known else logging.ERROR  # a full disk is tried again; a bug is for us
            logger.log(level, "state cannot be written", extra={"error": str(error)}, exc_info=None if known else error)
        self._failing = True


def begin(store: Store, found: Found) -> None:
    """Bring what was found back into a new store, and say what does not come back."""
    state = found.state
    if state is None:
        return
    try:
        afresh = store.restore(state, clean=found.clean)
    except Exception:
        logger.exception("state cannot be restored: what is missing starts afresh")
        return
    for each in afresh:
        logger.warning("starts afresh", extra={"model": each.model, "version": each.version, "why": each.why})
    age = round(time.time() - state.time, 1)
    logger.info("state restored", extra={"versions": len(state.versions), "age_seconds": age, "clean": found.clean})
