"""What requests offered and is not written yet: bounded in rows and bytes, as memory is."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from mlexporter.pending.offers import Offer, Part
from mlexporter.pending.records import VersionKey
from mlexporter.pending.runs import Came, Run, packed
from mlexporter.samples import Batch

QUEUE_ROWS: Final = 600_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
RUN_ROWS: Final = 50_000
"""A run that has as many is full: runs are written whole. Few large ones: each takes 40 turns with Python's lock."""
FRESH_BATCHES: Final = 128
FRESH_ROWS: Final = 2048
FRESH_BYTES: Final = 1024 * 1024
"""Batches wait as they came until there are as many; they wait to be counted as well. One by one, with the rest of a
request in between, each would take several times as long to pack as among others."""


class OfferQueue:
    """What batches offer, in their order; the usual ones, numbers with an id, go into a run of their version.

    Requests add, one thread takes.

    Args:
        lock: to be held for everything but `pack` and `take`, which hold it for moments: requests wait for it.

    Attributes:
        rows: that are not written yet; those that were taken among them, until they are `written`.
        dropped: rows for which there was no room.

    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._fresh: list[tuple[VersionKey, Came]] = []
        self._fresh_rows = self._fresh_bytes = 0
        self._added: deque[Offer | Run] = deque()
        self._open: dict[VersionKey, Run] = {}
        self._bytes = 0
        self.rows = self.dropped = 0
        # one thread at a time packs, so that all stays in its order
        self._packing = threading.Lock()
        # of the thread that takes
        self._taken: deque[Offer | Run] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._fresh or self._added or self._taken)

    def add(self, model: str, version: str, batch: Batch, time: float) -> bool:
        """Add a batch that came at a Unix time, if there is room; whether it is time to `pack`."""
        if self.rows + batch.size > QUEUE_ROWS:
            self.dropped += batch.size
            return False
        self._fresh.append(((model, version), (batch, time)))
        self.rows += batch.size
        self._fresh_rows += batch.size
        self._fresh_bytes += batch.weight
        return len(self._fresh) >= FRESH_BATCHES or self._fresh_rows >= FRESH_ROWS or self._fresh_bytes >= FRESH_BYTES

    def pack(self, *, wait: bool) -> None:
        """Make columns of what came; with `wait` also where another thread is at it, else that is left to the next."""
        if not self._packing.acquire(blocking=wait):
            return
        try:
            with self._lock:
                fresh, self._fresh = self._fresh, []
                self._fresh_rows = self._fresh_bytes = 0
            for key, batches in _by_version(fresh).items():
                if not self._pack(key, batches):
                    for each in batches:
                        if len(batches) == 1 or not self._pack(key, [each]):
                            self._offer(key, each)
        finally:
            self._packing.release()

    def _pack(self, key: VersionKey, batches: Sequence[Came]) -> bool:
        """Put batches of a version into a run, if they can be."""
        rows = packed(batches)
        if rows is None:
            return False
        with self._lock:
            if not self._room(len(rows), rows.weight):
                return True
            run = self._open.get(key)
            if run is None or len(run) >= RUN_ROWS:
                run = self._open[key] = Run(*key)
                self._added.append(run)
            run.add(rows)
        return True

    def _offer(self, key: VersionKey, came: Came) -> None:
        """Queue a batch as it is, whatever it offers."""
        batch, time = came
        offer = Offer.of(*key, batch, time)
        with self._lock:
            if offer is None:
                self.rows -= batch.size
            elif self._room(batch.size, batch.weight):
                self._added.append(offer)
                self._open.pop(key, None)  # what comes now comes after it

    def take(self, most: int) -> list[Run | Part]:
        """The oldest rows, so many of them, or more by less than a run, which is taken whole."""
        self.pack(wait=True)
        taken: list[Run | Part] = []
        weight = 0
        while most > 0 and (self._taken or self._swap()):
            first = self._taken[0]
            if isinstance(first, Run):
                taken.append(first)
                most -= len(first)
            else:
                begin, first.taken = first.taken, min(first.size, first.taken + most)
                taken.append((first, begin, first.taken))
                most -= first.taken - begin
                if first.taken < first.size:
                    continue
            self._taken.popleft()
            weight += first.weight
        with self._lock:
            self._bytes -= weight
        return taken

    def written(self, rows: int) -> None:
        """Make room for others: so many rows are written, or given up."""
        self.rows -= rows

    def clear(self) -> int:
        """Give up everything; how many rows nobody took."""
        left = sum(
            len(each) if isinstance(each, Run) else each.size - each.taken for each in (*self._taken, *self._added)
        )
        left += sum(batch.size for _, (batch, _) in self._fresh)
        self._fresh.clear()
        self._added.clear()
        self._taken.clear()
        self._open.clear()
        self.rows = self._bytes = 0
        return left

    def _room(self, size: int, weight: int) -> bool:
        """Take room for the bytes of rows; without enough of it they are dropped."""
        if self._bytes + weight > QUEUE_BYTES:
            self.rows -= size
            self.dropped += size
            return False
        self._bytes += weight
        return True

    def _swap(self) -> bool:
        """Go on with what was added meanwhile; False where nothing was."""
        with self._lock:
            self._added, self._taken = self._taken, self._added
            self._open.clear()
        return bool(self._taken)


def _by_version(fresh: Sequence[tuple[VersionKey, Came]]) -> dict[VersionKey, list[Came]]:
    found: dict[VersionKey, list[Came]] = {}
    for key, came in fresh:
        found.setdefault(key, []).append(came)
    return found
