"""What requests offered and is not written yet: bounded in rows and bytes, as memory is."""

import threading
from collections import deque
from typing import Final

from mlexporter.pending.offers import Offer, Part
from mlexporter.pending.records import VersionKey
from mlexporter.pending.runs import Packed, Run

QUEUE_ROWS: Final = 600_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
RUN_ROWS: Final = 10_000
"""A run that has as many is full: runs are written whole."""


class OfferQueue:
    """Offers in their order; the usual ones, numbers with an id, go into a run of their version.

    Requests add, one thread takes.

    Args:
        lock: to be held for everything but `take`, which holds it for moments: requests wait for it.

    Attributes:
        rows: that are not written yet; those that were taken among them, until they are `written`.

    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._added: deque[Offer | Run] = deque()
        self._open: dict[VersionKey, Run] = {}
        self._bytes = 0
        self.rows = 0
        # of the thread
        self._taken: deque[Offer | Run] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._added or self._taken)

    def add(self, offer: Offer) -> bool:
        """Add an offer, if there is room."""
        if not self._room(offer.size, offer.weight):
            return False
        self._added.append(offer)
        self._open.pop((offer.model, offer.version), None)  # what comes now comes after it
        return True

    def add_packed(self, model: str, version: str, rows: Packed, time: float) -> bool:
        """Add predictions that came at a Unix time, if there is room."""
        if not self._room(len(rows[1]), len(rows[0]) + 8 * len(rows[1]) + 16):
            return False
        run = self._open.get((model, version))
        if run is None or len(run) >= RUN_ROWS:
            run = self._open[model, version] = Run(model, version)
            self._added.append(run)
        run.add(rows, time)
        return True

    def take(self, most: int) -> list[Run | Part]:
        """The oldest rows, so many of them, or more by less than a run."""
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
        self._added.clear()
        self._taken.clear()
        self._open.clear()
        self.rows = self._bytes = 0
        return left

    def _room(self, size: int, weight: int) -> bool:
        """Take room for rows, if there is enough."""
        rows, total = self.rows + size, self._bytes + weight
        if rows > QUEUE_ROWS or total > QUEUE_BYTES:
            return False
        self.rows, self._bytes = rows, total
        return True

    def _swap(self) -> bool:
        """Go on with what was added meanwhile; False where nothing was."""
        with self._lock:
            self._added, self._taken = self._taken, self._added
            self._open.clear()
        return bool(self._taken)
