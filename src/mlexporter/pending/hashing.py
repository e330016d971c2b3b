"""Ids as 64-bit hashes, the same in every process, and a filter that knows which ones may be there.

Nothing of an id but its hash is kept. Among a million ids, two have the same hash with a probability of 3e-8.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)
_SLOTS: Final = 16
"""Bits of a filter per hash, at least; up to twice as many after it was made."""
_LEAST_BITS: Final = 16


class Ids(msgspec.Struct, frozen=True, eq=False):
    """Ids as one column, in which no id is an object of its own.

    Attributes:
        content: with the UTF-8 of all of them.
        starts, lengths: where each of them is, in bytes.

    """

    content: bytes | bytearray
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(names: Sequence[str]) -> "Ids":
        """Of a sequence."""
        parts = [name.encode("utf-8", "surrogatepass") for name in names]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        return Ids(b"".join(parts), np.cumsum(lengths) - lengths, lengths)

    @staticmethod
    def split(content: bytes | bytearray) -> "Ids":
        """Of UTF-8 in which each has a zero at its end."""
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == 0)
        starts = np.append(0, ends[:-1] + 1)[: len(ends)]
        return Ids(content, starts, ends - starts)

    def names(self) -> Iterator[str]:
        """One by one."""
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield self.content[start : start + length].decode("utf-8", "surrogatepass")


def hashes_of(ids: Ids) -> Hashes:
    """MurmurHash64A with seed 0 of the UTF-8 of each id (Austin Appleby, https://github.com/aappleby/smhasher).

    All of them at once, a word of 8 bytes at a time: some 50 ns an id of 15 characters.
    """
    content, starts, lengths = ids.content, ids.starts, ids.lengths
    # the word that begins at each byte; there are zeros beyond the end
    words: Hashes = np.ndarray((len(content) + 1,), dtype="<u8", buffer=content + bytes(8), strides=(1,))
    hashes = lengths.astype(np.uint64) * _MULTIPLIER
    full = lengths >> 3
    rows: NDArray[np.int64] | slice = slice(None)
    shortest = int(full.min()) if len(full) else 0
    for index in range(int(full.max(initial=0))):
        if index >= shortest:
            rows = np.flatnonzero(full > index)
        word = words[starts[rows] + 8 * index] * _MULTIPLIER
        word ^= word >> _SHIFT
        hashes[rows] = (hashes[rows] ^ (word * _MULTIPLIER)) * _MULTIPLIER
    rest = (lengths & 7).astype(np.uint64)
    last = words[starts + 8 * full] & ((np.uint64(1) << (rest << np.uint64(3))) - np.uint64(1))
    hashes = np.where(rest > 0, (hashes ^ last) * _MULTIPLIER, hashes)
    hashes ^= hashes >> _SHIFT
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    return hashes


def ordered(hashes: Hashes) -> tuple[NDArray[np.int64], Hashes]:
    """The order that sorts hashes, equal ones as they stand, and them in it: a third of the time of a general sort.

    Numbers of 16 bits are sorted by counting them. Two such passes sort by the upper 32 bits; where that leaves a few
    hashes out of order, a merge sort finds all others in place.
    """
    low = (hashes >> np.uint64(32)).astype(np.uint16).argsort(kind="stable")
    order = low[(hashes >> np.uint64(48)).astype(np.uint16)[low].argsort(kind="stable")]
    found = hashes[order]
    if (found[1:] < found[:-1]).any():
        again = found.argsort(kind="stable")
        order, found = order[again], found[again]
    return order, found


class Filter:
    """Says of most hashes that were never added that they were not: of all but one of 100.

    A Bloom filter of 3 bits a hash, all in one word; it takes some 4 bytes a hash. What was given up is forgotten by
    making a new one.

    Args:
        known: hashes in parts.

    """

    def __init__(self, known: Sequence[Hashes] = ()) -> None:
        self._size = 0
        wanted = 2 * _SLOTS * sum(map(len, known))
        bits = max(_LEAST_BITS, wanted.bit_length())
        self._shift = np.uint64(64 - bits + 6)
        self._words = np.zeros(1 << (bits - 6), np.uint64)
        for part in known:
            self.add(part)

    @property
    def full(self) -> bool:
        """Whether it takes more than it was made for, and a new one should be made."""
        return self._size * _SLOTS > 64 * len(self._words)

    def add(self, hashes: Hashes) -> Hashes:
        """Take note of some, and tell those that may have been added before; quick where they are sorted."""
        at, bits = self._where(hashes), _bits(hashes)
        again = self._those(hashes, at, bits)
        np.bitwise_or.at(self._words, at, bits)
        self._size += len(hashes)
        return again

    def having(self, hashes: Hashes) -> Hashes:
        """Those of some hashes that may have been added; quick where they are sorted."""
        return self._those(hashes, self._where(hashes), _bits(hashes)) if self._size else hashes[:0]

    def _those(self, hashes: Hashes, at: NDArray[np.int64], bits: Hashes) -> Hashes:
        found: Hashes = hashes[(self._words[at] & bits) == bits] if self._size else hashes[:0]
        return found

    def _where(self, hashes: Hashes) -> NDArray[np.int64]:
        """The word of each."""
        return (hashes >> self._shift).view(np.int64)


def _bits(hashes: Hashes) -> Hashes:
    one, low = np.uint64(1), np.uint64(63)
    bits: Hashes = one << (hashes & low)
    bits |= one << (hashes >> np.uint64(6) & low)
    bits |= one << (hashes >> np.uint64(12) & low)
    return bits
