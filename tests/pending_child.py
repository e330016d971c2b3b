"""A process to be killed: joins what it reads, a line at a time, and says when a line is kept.

A line is two lists of numbers: of predictions, and of labels. The number is the id and the predicted value; matches are
counted by number, sum and sum of squares, so that one that is lost or counted twice shows.
"""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import orjson

from mlexporter.pending.joiner import Joiner
from mlexporter.pending.records import Direct, Joined, Label, Lost, Prediction, Totals, Waiting
from mlexporter.pending.sqlite import SqliteStore

NAMES = ("count", "sum", "squares")


class Counted(msgspec.Struct, frozen=True):
    values: tuple[int, ...]

    @property
    def totals(self) -> Totals:
        return {name: b"%d" % value for name, value in zip(NAMES, self.values, strict=True)}


class Counter:
    def __init__(self, totals: Totals) -> None:
        self.counted = Counted(tuple(int(totals.get(name, b"0")) for name in NAMES))

    def tally(self, joined: Joined, direct: Sequence[Direct]) -> Counted:
        numbers = [int(match.prediction) for match in joined.matches if match.replaced is None]
        added = len(numbers), sum(numbers), sum(number**2 for number in numbers)
        return Counted(tuple(old + new for old, new in zip(self.counted.values, added, strict=True)))

    def install(self, tally: Counted) -> None:
        self.counted = tally

    def lost(self, lost: Lost) -> None:
        pass

    def waiting(self, waiting: Waiting) -> None:
        pass


def main(path: Path) -> None:
    store = SqliteStore(path, lambda model: 86400.0)
    joiner = Joiner(store, Counter(store.totals()), time.time)
    threading.Thread(target=joiner.run, daemon=True).start()
    for line in sys.stdin:
        predictions, labels = orjson.loads(line)
        now = time.time()
        joiner.submit(
            [Label("m", None, f"id-{number}", now, b"1") for number in labels],
            [Prediction("m", "1", f"id-{number}", now, b"%d" % number) for number in predictions],
            timeout=60,
        )
        sys.stdout.write("kept\n")
        sys.stdout.flush()
    joiner.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
