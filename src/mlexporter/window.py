"""A sliding window as a ring of panes of counts. The clock is an argument."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from mlexporter.edges import Floats, Ints

PANES: Final = 60


class Countable(Protocol):
    """Flat counts and sums that add."""

    @property
    def bins(self) -> Ints:
        """Whole numbers."""

    @property
    def sums(self) -> Floats:
        """Sums."""


class Span(Protocol):
    """A window as it is configured."""

    @property
    def seconds(self) -> float:
        """Its length."""

    @property
    def label(self) -> str:
        """By which it is known."""


class WindowState(msgspec.Struct, frozen=True):
    """A window at one moment, to be kept over a restart.

    Attributes:
        width: of a pane, in seconds.
        number: of the pane that was filling, counted in panes since 1970; None before the first one.
        slot: of that pane.
        bins, sums: (60, ...) of each pane.
        total_sums: over all panes. They were added up in another order, so the last digits may differ from `sums`.

    """

    width: float
    number: int | None
    slot: int
    bins: Ints
    sums: Floats
    total_sums: Floats


class Window:
    """Counts of the last `seconds`, in 60 panes.

    The newest pane is filling, so the window reaches back between 59/60 of its length and all of it.

    Args:
        seconds: length of the window.
        like: counts of the same shape.

    """

    def __init__(self, seconds: float, like: Countable) -> None:
        self.width = seconds / PANES
        self._bins: Ints = np.zeros((PANES, len(like.bins)), dtype=np.int64)
        self._sums: Floats = np.zeros((PANES, len(like.sums)), dtype=np.float64)
        self._total_bins: Ints = np.zeros(len(like.bins), dtype=np.int64)
        self._total_sums: Floats = np.zeros(len(like.sums), dtype=np.float64)
        self._slot = 0
        self._number: int | None = None

    def advance(self, now: float) -> None:
        """Forget the panes that `now`, in seconds, leaves behind."""
        number = int(now // self.width)
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

    def add(self, counts: Countable) -> None:
        """Add to the pane that is filling."""
        self._add(self._slot, counts.bins, counts.sums)

    def add_at(self, counts: Countable, time: float, *, sign: int = 1) -> None:
        """Add to the pane of a time, in seconds, or take out of it; nothing where the window has left it behind."""
        assert self._number is not None
        age = max(self._number - int(time // self.width), 0)
        if age < PANES:
            self._add((self._slot - age) % PANES, sign * counts.bins, sign * counts.sums)

    def _add(self, slot: int, bins: Ints, sums: Floats) -> None:
        self._bins[slot] += bins
        self._sums[slot] += sums
        self._total_bins += bins
        self._total_sums += sums

    def total(self) -> tuple[Ints, Floats]:
        """Bins and sums over the window, as copies."""
        return self._total_bins.copy(), self._total_sums.copy()

    def state(self) -> WindowState:
        """All of it, as copies."""
        return WindowState(
            self.width, self._number, self._slot, self._bins.copy(), self._sums.copy(), self._total_sums.copy()
        )

    def restore(self, state: WindowState) -> bool:
        """Go on from a state; False, and nothing is changed, where it is of another length or shape."""
        shapes = (state.bins.shape, state.sums.shape, state.total_sums.shape)
        fits = shapes == (self._bins.shape, self._sums.shape, self._total_sums.shape) and 0 <= state.slot < PANES
        if not fits or state.width != self.width:
            return False
        self._number, self._slot = state.number, state.slot
        self._bins, self._sums = state.bins.copy(), state.sums.copy()
        self._total_bins, self._total_sums = state.bins.sum(axis=0), state.total_sums.copy()
        return True


def refitted(windows: Sequence[tuple[str, Window]], spans: Iterable[Span], like: Countable) -> list[tuple[str, Window]]:
    """Windows by label as they are wanted now: those that are there already, and new ones.

    Args:
        windows: that are there, by label.
        spans: that are wanted.
        like: counts of the shape of theirs.

    """
    known = {(label, window.width): window for label, window in windows}
    wanted = ((span.label, span.seconds) for span in spans)
    return [(label, known.get((label, seconds / PANES)) or Window(seconds, like)) for label, seconds in wanted]
