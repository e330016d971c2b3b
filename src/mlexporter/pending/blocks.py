"""Predictions of one version that came one after another, as columns: what memory holds of them, and a file.

In memory there are the sorted hashes of their ids with their order (12 bytes a row), the times at which they came (12
bytes for each change of it), and 17 bytes a row for labels where there are any. What was predicted is in the file.
"""

from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.pending.hashing import Hashes, ordered
from mlexporter.pending.records import json_value

Places = NDArray[np.int64]
Numbers = NDArray[np.float64]
Values = Numbers | Sequence[bytes]
"""Predictions: numbers, or JSON."""
Piece = bytes | memoryview
"""A part of what is written."""

NUMBER: Final = 1
TEXT: Final = 2
EVERY: Final = 4
"""Bits of the kind of a label: a number, or a text in a list of its own; given for all versions. 0 is none."""

LABELLED: Final = np.dtype([("version", "<i4"), ("row", "<i8"), ("kind", "u1"), ("value", "<f8"), ("time", "<i8")])
"""A label as it is written: of a row of a version; the value of a text is its index in a list beside it."""

_NUMBERS: Final = b"numbers "
_TEXTS: Final = b"texts   "
_NUMBER_TYPES: Final = frozenset({int, float})
_STEP: Final = 2
_MERGED: Final = 4
_LARGE: Final = 32_768
"""So many rows are no longer merged: a block is given up whole."""


class Labels:
    """Labels of the rows of a block.

    Attributes:
        kinds: bits as above.
        values: numbers, or indices of texts.
        times: in microseconds.

    """

    def __init__(self, size: int) -> None:
        self.kinds = np.zeros(size, np.uint8)
        self.values = np.zeros(size)
        self.times = np.zeros(size, np.int64)
        self._texts: list[bytes] = []
        self._codes: dict[bytes, int] = {}

    def put(self, places: Places, told: "NDArray[np.void]", texts: Sequence[bytes]) -> None:
        """Set labels; of several of a row the last one stands."""
        values = told["value"].copy()
        of_texts = np.flatnonzero(told["kind"] & TEXT)
        if len(of_texts):
            used, inverse = np.unique(values[of_texts].astype(np.int64), return_inverse=True)
            codes = np.array([self._code(texts[index]) for index in used], np.float64)
            values[of_texts] = codes[inverse]
        self.kinds[places] = told["kind"]
        self.values[places] = values
        self.times[places] = told["time"]

    def json(self, place: int) -> bytes:
        """A label, at a place that has one."""
        if self.kinds[place] & NUMBER:
            return json_value(float(self.values[place]))
        return self._texts[int(self.values[place])]

    def written(self, version: int, first: int, places: Places) -> "tuple[NDArray[np.void], list[bytes]]":
        """Labels at some places of a block as they are put again, and the texts of them."""
        told = np.zeros(len(places), LABELLED)
        told["version"], told["row"] = version, places + first
        told["kind"], told["value"], told["time"] = self.kinds[places], self.values[places], self.times[places]
        return told, self._texts

    def _code(self, text: bytes) -> int:
        code = self._codes.setdefault(text, len(self._texts))
        if code == len(self._texts):
            self._texts.append(text)
        return code


def label_number(value: bytes) -> float | None:
    """The number that a label is, if it comes back as it was from a float.

    >>> label_number(b"0.5"), label_number(b"true"), label_number(b"18446744073709551615")
    (0.5, None, None)
    """
    try:
        number = float(value)
    except ValueError:
        return None
    return number if json_value(number) == value else None


class Block(msgspec.Struct, eq=False):
    """Rows of one version, numbered one after another.

    Attributes:
        number: under which the file knows it.
        first: number of its first row in its version.
        hashes: of ids, sorted.
        order: the row of each of them, from 0; that of equal ones ascending.
        starts, times: rows, ascending from 0, from which on another time holds, and these in microseconds.
        labels: where there are any.
        earliest: the first of the times.

    """

    number: int
    first: int
    hashes: Hashes
    order: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    times: NDArray[np.int64]
    labels: Labels | None = None
    earliest: int = 0

    def __post_init__(self) -> None:
        """Look at the times once: whether rows are too old is asked again and again."""
        self.earliest = int(self.times.min())

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.hashes)

    @property
    def end(self) -> int:
        """Number of the row after its last one."""
        return self.first + len(self.hashes)

    @staticmethod
    def of(number: int, first: int, hashes: Hashes, starts: NDArray[np.uint32], times: NDArray[np.int64]) -> "Block":
        """One of hashes in the order of arrival."""
        order, found = ordered(hashes)
        return Block(number, first, found, order.astype(np.uint32), starts, times)

    def arrived(self) -> Hashes:
        """Hashes in the order of arrival."""
        hashes = np.empty_like(self.hashes)
        hashes[self.order] = self.hashes
        return hashes

    def times_at(self, places: Places) -> NDArray[np.int64]:
        """When rows came, in microseconds."""
        return self.times[np.searchsorted(self.starts, places, side="right") - 1]

    def row_times(self) -> NDArray[np.int64]:
        """When each row came, in microseconds."""
        return np.repeat(self.times, np.diff(self.starts, append=self.size))

    def kept(self, first: int, before: int) -> NDArray[np.bool_]:
        """Rows that are not given up: with this number or a later one, and not from before this time."""
        kept = np.ones(self.size, np.bool_)
        kept[: max(0, first - self.first)] = False
        if self.earliest < before:
            kept &= self.row_times() >= before
        return kept

    def whole(self, first: int, before: int) -> bool:
        """Whether all rows are `kept`."""
        return self.first >= first and self.earliest >= before

    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a label."""
        return np.zeros(self.size, np.bool_) if self.labels is None else self.labels.kinds != 0

    def find(self, wanted: Hashes, first: int, before: int) -> tuple[Places, Places]:
        """Where rows have sorted hashes: indices of these, and the rows; at most one each, of those that are kept."""
        at = np.searchsorted(self.hashes, wanted)
        which = np.flatnonzero(self.hashes[np.minimum(at, self.size - 1)] == wanted)
        at = at[which]
        found, rows = which[:0], which[:0]
        while len(which):
            places = self.order[at].astype(np.int64)
            good = (places + self.first >= first) & (self.times_at(places) >= before)
            found, rows = np.append(found, which[good]), np.append(rows, places[good])
            # an id that came again after it was given up
            more = ~good & (at + 1 < self.size)
            more[more] = self.hashes[at[more] + 1] == wanted[which[more]]
            which, at = which[more], at[more] + 1
        return found, rows

    def put_labels(self, places: Places, told: "NDArray[np.void]", texts: Sequence[bytes]) -> None:
        """Set labels of rows."""
        if self.labels is None:
            self.labels = Labels(self.size)
        self.labels.put(places, told, texts)


def mergeable(sizes: Sequence[int]) -> int:
    """How many of the last blocks, by their rows, are to be merged into one: few remain, and each row moves rarely.

    >>> mergeable([40_000, 7, 5, 4, 6]), mergeable([40_000] * 4), mergeable([5, 5, 300])
    (4, 0, 0)
    """
    taken, rows = 1, sizes[-1]
    while True:
        level = rows.bit_length() // _STEP
        count = taken
        while count < len(sizes) and sizes[-count - 1] < _LARGE and sizes[-count - 1].bit_length() // _STEP <= level:
            count += 1
        if count - taken + 1 < _MERGED or rows >= _LARGE:
            return taken if taken > 1 else 0
        taken, rows = count, sum(sizes[-count:])


def merged(number: int, blocks: Sequence[Block]) -> Block:
    """One block of several, one after another."""
    first = blocks[0].first
    hashes = np.concatenate([block.hashes for block in blocks])
    rows = np.concatenate([block.order + np.uint32(block.first - first) for block in blocks])
    order = hashes.argsort(kind="stable")  # quick where runs are sorted
    starts = np.concatenate([block.starts + np.uint32(block.first - first) for block in blocks])
    times = np.concatenate([block.times for block in blocks])
    changed = np.append(True, times[1:] != times[:-1])
    block = Block(number, first, hashes[order], rows[order], starts[changed], times[changed])
    for part in blocks:
        if part.labels is not None:
            places = np.flatnonzero(part.labels.kinds)
            told, texts = part.labels.written(0, part.first, places)
            block.put_labels(places + (part.first - first), told, texts)
    return block


# -- predictions ------------------------------------------------------------------------------------------------------


def pack(values: Values) -> list[Piece]:
    """Predictions as parts of one piece, whose first 8 bytes say whether they are numbers."""
    if isinstance(values, np.ndarray):
        return [_NUMBERS, values.astype("<f8", copy=False).data]
    lengths = np.fromiter(map(len, values), "<u4", len(values))
    return [_TEXTS, len(values).to_bytes(4, "little"), lengths.data, b"".join(values)]


class Packed:
    """Predictions that were packed.

    Attributes:
        weight: bytes that they take.

    """

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = memoryview(content)
        self._numbers: Numbers | None = None
        self._ends: Places = np.zeros(0, np.int64)
        if content[:8] == _NUMBERS:
            self._numbers = np.frombuffer(content, "<f8", offset=8)
        else:
            size = int.from_bytes(content[8:12], "little")
            lengths = np.frombuffer(content, "<u4", size, offset=12)
            self._ends = np.cumsum(np.append(12 + 4 * size, lengths.astype(np.int64)))
        self.weight = len(content) + self._ends.nbytes

    def json(self, places: Places) -> Iterator[bytes]:
        """Predictions of rows, one by one."""
        if self._numbers is not None:
            yield from map(json_value, self._numbers[places].tolist())
        else:
            for begin, end in zip(self._ends[places].tolist(), self._ends[places + 1].tolist(), strict=True):
                yield bytes(self._content[begin:end])

    def all(self) -> Values:
        """All of them."""
        return self._numbers if self._numbers is not None else [*self.json(np.arange(len(self._ends) - 1))]


def together(parts: Sequence[Values]) -> Values:
    """One column of several: numbers, or JSON where one of them is."""
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    if len(numbers) == len(parts):
        return np.concatenate(numbers)
    return [value for part in parts for value in _json_of(part)]


def _json_of(values: Values) -> Iterator[bytes]:
    return map(json_value, values.tolist()) if isinstance(values, np.ndarray) else iter(values)


def numbers_of(values: Sequence[object]) -> Numbers | None:
    """Numbers that come back as they were from floats; None where there are others among them.

    >>> numbers_of([1, 0.5]), numbers_of([True]), numbers_of([2**53]), numbers_of([float("nan")])
    (array([1. , 0.5]), None, None, None)
    """
    kinds = set(map(type, values))
    if not kinds <= _NUMBER_TYPES:
        return None
    numbers = cast(Sequence[float], values)
    if int in kinds and any(type(number) is int and abs(number) >= 2**53 for number in numbers):
        return None
    found = np.fromiter(numbers, np.float64, len(values))
    return found if bool(np.isfinite(found).all()) else None
