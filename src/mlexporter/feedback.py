"""What labels tell of a version's predictions: totals, which are kept through restarts, and windows.

Nothing here locks. Totals are replaced whole and never changed, so that what is counted of a set of matches can be
written down together with them before anyone sees it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from mlexporter.concept import ConceptState
from mlexporter.config import Window as WindowConfig
from mlexporter.edges import Ints
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.window import Window, refitted

DELAY_BUCKETS: Final = (1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 259200.0, 604800.0, 1209600.0, 2592000.0)
"""Upper ends, in seconds, of the buckets of label delays: from a second to 30 days."""
RIGHT: Final = ("this", "previous", "both", "neither")
"""Which of two versions was right."""


class FeedbackTotals(msgspec.Struct, frozen=True):
    """What was counted of one version since its counting began.

    Attributes:
        outcomes, retracted: as labels came, and what corrections took back of it.
        labels, corrected, repeated, tracked: as the metrics of these names.
        last_label: Unix time, None before the first one.
        delay_counts, delay_sum: (K+1,) per bucket of `DELAY_BUCKETS`, not cumulative; and their sum, in seconds.
        previous: name of the version that the next two are against; empty before the first request of both.
        agreement: (2,) requests that it answered otherwise than that version, and likewise.
        right: (4,) labelled requests, by `RIGHT`.
        since: Unix time at which the counting of outcomes began, in these bins: none of an earlier label is in them.

    """

    outcomes: OutcomeCounts
    retracted: OutcomeCounts
    labels: int
    corrected: int
    repeated: int
    tracked: int
    last_label: float | None
    delay_counts: Ints
    delay_sum: float
    agreement: Ints
    right: Ints
    previous: str = ""
    since: float = 0.0

    def against(self, previous: str) -> tuple[Ints, Ints]:
        """Agreement with a version and which of them was right; nothing where they were counted against another."""
        if previous == self.previous:
            return self.agreement, self.right
        return np.zeros(2, np.int64), np.zeros(len(RIGHT), np.int64)

    @staticmethod
    def zero(binner: OutcomeBinner | None) -> "FeedbackTotals":
        """Of no label."""
        none = binner.zero() if binner is not None else OutcomeCounts(np.zeros(0, np.int64), np.zeros(0), 0, 0)
        delays = np.zeros(len(DELAY_BUCKETS) + 1, np.int64)
        return FeedbackTotals(
            none, none, 0, 0, 0, 0, None, delays, 0.0, np.zeros(2, np.int64), np.zeros(len(RIGHT), np.int64)
        )

    def for_binner(self, binner: OutcomeBinner, now: float) -> "FeedbackTotals":
        """The same with outcomes counted afresh from now on, in other bins."""
        return msgspec.structs.replace(self, outcomes=binner.zero(), retracted=binner.zero(), since=now)


class FeedbackSnapshot(msgspec.Struct, frozen=True):
    """What labels tell of one version.

    Attributes:
        totals: since the counting began.
        windows: label, and the outcomes in each, as corrected.
        scores: label, and the scores of all predictions in each.
        pending: predictions that wait for their label.
        expired: predictions that were given up, by reason.
        concept: None until the first tick, and where there is no such alarm.

    """

    totals: FeedbackTotals
    windows: tuple[tuple[str, OutcomeCounts], ...]
    scores: tuple[tuple[str, Ints], ...]
    pending: int
    expired: Mapping[str, int]
    concept: ConceptState | None


class Feedback:
    """The feedback of one version. Changed under the store's lock only.

    Attributes:
        binner: of outcomes; None while there is no baseline, or where it has no predictions.
        totals: since the counting began.
        windows: of outcomes, corrected where labels were, by the time of the label.
        score_windows: of the scores of all predictions.
        kept: what an exporter before this one kept, as long as nothing was added to it.
        pending, expired: predictions that wait, and that were given up, by reason.
        concept: the alarm of concept drift, from the first tick on; `concept_from` is what was counted before.
        since: Unix time at which the windows began: none of an earlier label is in them.

    """

    def __init__(self, kept: bytes | None = None) -> None:
        self.binner: OutcomeBinner | None = None
        self.kept = kept
        self.totals = decoded(kept, None) if kept is not None else FeedbackTotals.zero(None)
        self.windows: list[tuple[str, Window]] = []
        self.score_windows: list[tuple[str, Window]] = []
        self.pending = 0
        self.expired = {"horizon": 0, "limit": 0}
        self.concept: ConceptState | None = None
        self.concept_from: OutcomeCounts | None = None
        self.since = 0.0

    def watch(self, binner: OutcomeBinner | None, windows: Sequence[WindowConfig], now: float) -> None:
        """Begin to count in these bins; what an exporter before this one kept goes on where it is of the same bins."""
        if binner is None:
            if self.binner is not None:
                none = FeedbackTotals.zero(None).outcomes
                self.totals = msgspec.structs.replace(self.totals, outcomes=none, retracted=none, since=now)
                self.windows, self.score_windows, self.concept, self.concept_from = [], [], None, None
            self.binner = None
            return
        self.binner = binner
        self.totals = decoded(self.kept, binner, now) if self.kept is not None else self.totals.for_binner(binner, now)
        self.since = now
        scores = OutcomeCounts(binner.zero_scores(), np.zeros(0), 0, 0)
        self.windows = [(window.label, Window(window.seconds, self.totals.outcomes)) for window in windows]
        self.score_windows = [(window.label, Window(window.seconds, scores)) for window in windows]
        self.concept = None
        self.concept_from = self.totals.outcomes

    def rewindow(self, windows: Sequence[WindowConfig], now: float) -> None:
        """Go on in these windows; those that are new begin empty."""
        if self.binner is None:
            return
        scores = OutcomeCounts(self.binner.zero_scores(), np.zeros(0), 0, 0)
        before = self.windows
        self.windows = refitted(before, windows, self.totals.outcomes)
        self.score_windows = refitted(self.score_windows, windows, scores)
        if any(window not in before for window in self.windows):
            self.since = now  # a window that is new holds nothing that a correction could take back

    def copy(self) -> FeedbackSnapshot:
        """All of it at this moment."""
        binner = self.binner
        return FeedbackSnapshot(
            totals=self.totals,
            windows=tuple(
                (label, binner.of_window(*window.total())) for label, window in self.windows if binner is not None
            ),
            scores=tuple((label, window.total()[0]) for label, window in self.score_windows),
            pending=self.pending,
            expired=dict(self.expired),
            concept=self.concept,
        )


class _Kept(msgspec.Struct, frozen=True):
    """Totals as they are written down; arrays as bytes, little-endian."""

    profile: str
    outcomes: tuple[bytes, bytes, int, int]
    retracted: tuple[bytes, bytes, int, int]
    labels: int
    corrected: int
    repeated: int
    tracked: int
    last_label: float | None
    delay_counts: bytes
    delay_sum: float
    agreement: bytes
    right: bytes
    previous: str
    since: float


def encoded(totals: FeedbackTotals, binner: OutcomeBinner | None) -> bytes:
    """Totals as bytes, for `decoded`."""
    fields = msgspec.structs.asdict(totals)
    for name in ("outcomes", "retracted"):
        counts: OutcomeCounts = fields[name]
        fields[name] = (counts.bins.tobytes(), counts.sums.tobytes(), counts.rows, counts.invalid)
    for name in ("delay_counts", "agreement", "right"):
        fields[name] = fields[name].tobytes()
    return msgspec.msgpack.encode(_Kept(profile=fingerprint_of(binner), **fields))


def decoded(kept: bytes, binner: OutcomeBinner | None, now: float = 0.0) -> FeedbackTotals:
    """Totals from their bytes; outcomes begin afresh where they were counted in other bins, all where it is damaged."""
    zero = msgspec.structs.replace(FeedbackTotals.zero(binner), since=now)
    try:
        fields = msgspec.structs.asdict(msgspec.msgpack.decode(kept, type=_Kept))
        same = fields.pop("profile") == fingerprint_of(binner)
        for name in ("outcomes", "retracted"):
            bins, sums, rows, invalid = fields[name]
            counts = OutcomeCounts(_ints(bins), np.frombuffer(sums, np.float64), rows, invalid)
            fields[name] = counts if same else getattr(zero, name)
        fields["since"] = fields["since"] if same else now
        for name in ("delay_counts", "agreement", "right"):
            fields[name] = _ints(fields[name])
        totals = FeedbackTotals(**fields)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return zero
    fits = all(
        len(getattr(totals, name)) == len(getattr(zero, name)) for name in ("delay_counts", "agreement", "right")
    )
    return totals if fits and len(totals.outcomes.bins) == len(zero.outcomes.bins) else zero


def _ints(data: bytes) -> Ints:
    return np.frombuffer(data, np.int64)


def fingerprint_of(binner: OutcomeBinner | None) -> str:
    """Of the bins, as in `OutcomeBinner`. Empty where there are none."""
    return binner.fingerprint if binner is not None else ""
