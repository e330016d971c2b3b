"""A sliding window as a ring of panes of counts. The clock is an argument."""

from typing import Final

import numpy as np

from mlexporter.binning import Counts
from mlexporter.edges import Floats, Ints

PANES: Final = 60


class Window:
    """Counts of the last `seconds`, in 60 panes.

    The newest pane is filling, so the window reaches back between 59/60 of its length and all of it.

    Args:
        seconds: length of the window.
        zero: counts of no samples, for their shape.

    """

    def __init__(self, seconds: float, zero: Counts) -> None:
        self._width = seconds / PANES
        self._bins: Ints = np.zeros((PANES, len(zero.bins)), dtype=np.int64)
        self._sums: Floats = np.zeros((PANES, len(zero.sums)), dtype=np.float64)
        self._total_bins: Ints = zero.bins.copy()
        self._total_sums: Floats = zero.sums.copy()
        self._slot = 0
        self._number: int | None = None

    def advance(self, now: float) -> None:
        """Forget the panes that `now`, in seconds, leaves behind."""
        number = int(now // self._width)
        if self._number is None:
            self._number = number
        # A clock that was set back takes the panes along: nothing is forgotten, nothing is stuck until it catches up.
        steps = number - self._number
        self._number = number
        if steps <= 0:
            return
        for _ in range(min(steps, PANES)):
            self._slot = (self._slot + 1) % PANES
            self._total_bins -= self._bins[self._slot]
            self._bins[self._slot] = 0
            self._sums[self._slot] = 0.0
        # added up afresh, for a difference of floats would leave something behind
        self._total_sums = self._sums.sum(axis=0)

    def add(self, counts: Counts) -> None:
        """Add to the pane that is filling."""
        self._bins[self._slot] += counts.bins
        self._sums[self._slot] += counts.sums
        self._total_bins += counts.bins
        self._total_sums += counts.sums

    def total(self) -> tuple[Ints, Floats]:
        """Bins and sums over the window, as copies."""
        return self._total_bins.copy(), self._total_sums.copy()
