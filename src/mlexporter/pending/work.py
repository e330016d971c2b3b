"""What the thread that writes is asked to do, and how it fares."""

import threading
from collections.abc import Sequence

import msgspec

from mlexporter.pending.records import Arrival, Direct, Label, Prediction


class Health(msgspec.Struct, frozen=True):
    """How the store fares.

    Attributes:
        up: whether its last call worked.
        errors: calls of it that failed.
        queued_rows: predictions that are not written yet; rows without an id among them.
        dropped: predictions that were given up before they were written: the queue was full, their id too long, or
            they cannot be written.
        writes: transactions that were committed.
        write_seconds: time that they took.

    """

    up: bool = True
    errors: int = 0
    queued_rows: int = 0
    dropped: int = 0
    writes: int = 0
    write_seconds: float = 0.0


class LabelRequest(msgspec.Struct, eq=False):
    """Labels that somebody waits for, and how far they are written.

    Outcomes without an id would count once more when they are sent again. So those of a request that is `forsaken`,
    whose sender was told to send it again, are not counted; and while they are `counting`, nobody is told so.
    """

    labels: Sequence[Label]
    predictions: Sequence[Prediction]
    direct: Sequence[Direct]
    done: threading.Event
    taken: int = 0
    error: str | None = None
    counting: bool = False
    forsaken: bool = False

    @property
    def size(self) -> int:
        """Rows to write; outcomes that need no join are counted at once, with the first one."""
        return max(len(self.labels), len(self.predictions), 1)


class Work(msgspec.Struct):
    """One write: rows, who brings outcomes without an id, who waits for it, and how much of the queue it is."""

    predictions: list[Arrival] = []
    labels: list[Label] = []
    direct: list[Direct] = []
    bringing: list[LabelRequest] = []
    finished: list[LabelRequest] = []
    rows: int = 0
