"""Who counts what is joined, as the joiner sees it."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from mlexporter.pending.records import Direct, Joined, Lost, Totals, Waiting


class Tally(Protocol):
    """Matches that were counted, ready to be installed once they are kept."""

    @property
    def totals(self) -> Totals:
        """What is to be kept of it."""


T = TypeVar("T", bound=Tally)


class Sink(Protocol[T]):
    """Who counts matches. Called from the joiner's thread."""

    def tally(self, joined: Joined, direct: Sequence[Direct]) -> T:
        """What the installed counts become with these matches. Changes nothing: the write may fail after it."""

    def install(self, tally: T) -> None:
        """Take the last tally over: it is kept now."""

    def lost(self, lost: Lost) -> None:
        """Count what was given up."""

    def waiting(self, waiting: Waiting) -> None:
        """Show what waits now."""
