"""Files of lines in UTF-8, gzipped or not."""

import gzip
import io
import zlib
from abc import abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast

from mlexporter.dataset.source import Chunk, Dataset, DatasetError, Key, Progress, Types

Bytes = BinaryIO | gzip.GzipFile
LONGEST_LINE: Final = 16 << 20
# The values of lines beyond this are looked at one by one for those too long to keep.
LONG_LINE: Final = 1 << 15


class Watched(io.RawIOBase):
    """Tells how much of a file was read."""

    def __init__(self, raw: io.RawIOBase, progress: Progress | None) -> None:
        self._raw = raw
        self._progress = progress

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read, and tell how much."""
        count = self._raw.readinto(buffer) or 0
        if self._progress is not None:
            self._progress(count)
        return count

    def close(self) -> None:
        """Close the file too."""
        self._raw.close()
        super().close()


class TextDataset(Dataset):
    """A file of lines in UTF-8, gzipped or not."""

    def _open(self) -> int:
        try:
            if not self.path.is_file():
                problem = "not a regular file" if self.path.exists() else "no such file"
                raise self.error(f"{problem}; accepted is a file, which may be read twice")
            with self.path.open("rb") as file:
                first = file.read(2)
            size = self.path.stat().st_size
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self.error(f"cannot be read: {reason}") from error
        self._gzipped = first == b"\x1f\x8b"
        return size

    @contextmanager
    def _bytes(self, progress: Progress | None) -> Iterator[Bytes]:
        watched = Watched(self.path.open("rb", buffering=0), progress)
        with cast(BinaryIO, io.BufferedReader(watched, 1 << 18)) as plain:
            if not self._gzipped:
                yield plain
                return
            with gzip.GzipFile(fileobj=plain, mode="rb") as unzipped:
                yield unzipped

    def chunks(
        self, types: Types, progress: Progress | None = None, only: Collection[Key] | None = None
    ) -> Iterator[Chunk]:
        """The rows of the file; see `Dataset`."""
        try:
            with self._bytes(progress) as file:
                yield from self._chunks(file, types, only)
        except UnicodeDecodeError as error:
            raise self._bad_utf8() from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.error(f"its gzip data is broken: {error}") from error
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from error

    @abstractmethod
    def _chunks(self, file: Bytes, types: Types, only: Collection[Key] | None) -> Iterator[Chunk]: ...

    def _bad_utf8(self) -> DatasetError:
        """Where the file is no UTF-8: the reader knows it by block only, so look again line by line."""
        with self._bytes(None) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    column = len(line[: error.start].decode()) + 1
                    hint = "; it looks like UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") and number == 1 else ""
                    message = f"not UTF-8: the byte 0x{line[error.start]:02x}{hint}; save the file as UTF-8"
                    return self.error(message, number, column)
        return self.error("not UTF-8; save the file as UTF-8")

    def _too_long(self, line: int) -> DatasetError:
        return self.error(f"the line is longer than {LONGEST_LINE} bytes; no sample is", line)
