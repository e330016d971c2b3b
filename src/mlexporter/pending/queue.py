"""What requests offered and is not written yet: bounded in rows and bytes, as memory is."""

import threading
from collections import deque
from typing import Final

from mlexporter.pending.offers import Offer, Part

QUEUE_ROWS: Final = 200_000
QUEUE_BYTES: Final = 32 * 1024 * 1024


class OfferQueue:
    """Offers in their order. Requests add them, one thread takes them.

    Args:
        lock: to be held for everything but `take`, which holds it for a moment: requests wait for it.

    Attributes:
        rows: that are not written yet; those that were taken among them, until they are `written`.

    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._added: deque[Offer] = deque()
        self._bytes = 0
        self.rows = 0
        # of the thread
        self._taken: deque[Offer] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._added or self._taken)

    def add(self, offer: Offer) -> bool:
        """Add an offer, if there is room."""
        rows, weight = self.rows + offer.size, self._bytes + offer.weight
        if rows > QUEUE_ROWS or weight > QUEUE_BYTES:
            return False
        self._added.append(offer)
        self.rows, self._bytes = rows, weight
        return True

    def take(self, most: int) -> list[Part]:
        """The oldest rows, so many of them, or a few more where they are packed together."""
        parts: list[Part] = []
        weight = 0
        while most > 0 and (self._taken or self._swap()):
            offer = self._taken[0]
            begin, end = offer.taken, min(offer.size, offer.taken + max(most, offer.least))
            parts.append((offer, begin, end))
            offer.taken = end
            most -= end - begin
            if end == offer.size:
                self._taken.popleft()
                weight += offer.weight
        with self._lock:
            self._bytes -= weight
        return parts

    def _swap(self) -> bool:
        """Go on with what was added meanwhile; False where nothing was."""
        with self._lock:
            self._added, self._taken = self._taken, self._added
        return bool(self._taken)

    def written(self, rows: int) -> None:
        """Make room for others: so many rows are written, or given up."""
        self.rows -= rows

    def clear(self) -> int:
        """Give up everything; how many rows nobody took."""
        left = sum(offer.size - offer.taken for offer in (*self._taken, *self._added))
        self._added.clear()
        self._taken.clear()
        self.rows = self._bytes = 0
        return left
