"""From matches of predictions and labels to the totals of versions, pure: nothing is changed until it is installed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import orjson

from mlexporter.edges import Floats, Ints
from mlexporter.feedback import DELAY_BUCKETS, RIGHT, FeedbackTotals
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.pending.records import Direct, Joined, Match, Pair, VersionKey


class Timed(msgspec.Struct, frozen=True):
    """Outcomes that enter a window, or leave it, in the pane of one time."""

    counts: OutcomeCounts
    time: float
    sign: int


class Increment(msgspec.Struct, frozen=True):
    """What matches add to one version.

    Attributes:
        binner: they were counted with; None where nothing can be counted yet.
        totals: of the version with these matches.
        by_window: what goes into each of the windows, in their order.
        widths: of the panes of these windows.

    """

    binner: OutcomeBinner | None
    totals: FeedbackTotals
    by_window: tuple[tuple[Timed, ...], ...]
    widths: tuple[float, ...] = ()


class Side(msgspec.Struct, frozen=True):
    """What matches of one version are counted with and added to; no window has outcomes of labels before `since`."""

    binner: OutcomeBinner | None
    totals: FeedbackTotals
    widths: tuple[float, ...]
    since: float = 0.0


class _Rows:
    """Predictions with labels of one version, and when the labels came."""

    def __init__(self) -> None:
        self.predictions: list[object] = []
        self.labels: list[object] = []
        self.times: list[float] = []

    def add(self, prediction: object, label: object, time: float) -> None:
        self.predictions.append(prediction)
        self.labels.append(label)
        self.times.append(time)

    def later(self, since: float) -> "_Rows":
        """Those whose labels came then or later."""
        if all(time >= since for time in self.times):
            return self
        rows = _Rows()
        for row in zip(self.predictions, self.labels, self.times, strict=True):
            if row[2] >= since:
                rows.add(*row)
        return rows

    def counts(self, binner: OutcomeBinner) -> OutcomeCounts:
        return binner.count(self.predictions, self.labels)

    def timed(self, binner: OutcomeBinner, counts: OutcomeCounts, width: float, sign: int) -> list[Timed]:
        """The outcomes by the pane of their time; `counts` are those of all of them."""
        if not self.times:
            return []
        panes = np.array(self.times) // width
        if panes.min() == panes.max():
            return [Timed(counts, self.times[0], sign)]
        timed: list[Timed] = []
        for pane in np.unique(panes).tolist():
            rows = np.flatnonzero(panes == pane).tolist()
            part = binner.count([self.predictions[i] for i in rows], [self.labels[i] for i in rows])
            timed.append(Timed(part, self.times[rows[0]], sign))
        return timed


def increments(
    sides: Mapping[VersionKey, Side],
    before: Mapping[VersionKey, str],
    joined: Joined,
    direct: Sequence[Direct],
) -> dict[VersionKey, Increment]:
    """What one application of predictions and labels adds, by version.

    Args:
        sides: versions that can be counted for; of others nothing is counted.
        before: which version came before each one that has any.
        joined: matches, pairs and counts.
        direct: predictions that came together with their labels, without an id.

    """
    matches: dict[VersionKey, list[Match]] = defaultdict(list)
    for match in joined.matches:
        matches[match.model, match.version].append(match)
    together: dict[VersionKey, list[Direct]] = defaultdict(list)
    for each in direct:
        together[each.model, each.version].append(each)
    pairs = _oriented(joined.pairs, before)
    touched = matches.keys() | together.keys() | pairs.keys() | joined.tracked.keys() | joined.repeated.keys()
    return {
        key: _increment(
            sides[key],
            matches[key],
            together[key],
            before[key] if pairs.get(key) else sides[key].totals.previous,
            _compared(sides, key, before.get(key, ""), pairs.get(key, [])),
            joined.tracked.get(key, 0),
            joined.repeated.get(key, 0),
        )
        for key in touched
        if key in sides
    }


def _increment(
    side: Side,
    matches: Sequence[Match],
    direct: Sequence[Direct],
    previous: str,
    compared: tuple[Ints, Ints],
    tracked: int,
    repeated: int,
) -> Increment:
    added, taken = _rows_of(matches, direct)
    totals, binner = side.totals, side.binner
    outcomes, retracted = totals.outcomes, totals.retracted
    by_window: tuple[tuple[Timed, ...], ...] = ()
    if binner is not None and added.labels:
        # what was counted before a restart, or in other bins, cannot be taken out of what began since
        taken = taken.later(totals.since)
        out = taken.later(side.since)
        counts, back = added.counts(binner), taken.counts(binner)
        outcomes, retracted = outcomes + counts, retracted + back
        gone = back if out is taken else out.counts(binner)
        by_window = tuple(
            (*added.timed(binner, counts, width, 1), *out.timed(binner, gone, width, -1)) for width in side.widths
        )
    first = [match.delay for match in matches if match.replaced is None]
    agreement, right = (old + new for old, new in zip(totals.against(previous), compared, strict=True))
    return Increment(
        binner,
        FeedbackTotals(
            outcomes=outcomes,
            retracted=retracted,
            labels=totals.labels + len(first) + sum(len(each.labels) for each in direct),
            corrected=totals.corrected + len(matches) - len(first),
            repeated=totals.repeated + repeated,
            tracked=totals.tracked + tracked,
            last_label=max(added.times, default=totals.last_label),
            delay_counts=totals.delay_counts + _delays(first),
            delay_sum=totals.delay_sum + sum(first),
            agreement=agreement,
            right=right,
            previous=previous,
            since=totals.since,
        ),
        by_window,
        side.widths,
    )


def _rows_of(matches: Sequence[Match], direct: Sequence[Direct]) -> tuple[_Rows, _Rows]:
    """What labels say now, and what was said before of those that are corrections."""
    added, taken = _Rows(), _Rows()
    for match in matches:
        prediction = orjson.loads(match.prediction)
        added.add(prediction, orjson.loads(match.label), match.time)
        if match.replaced is not None:
            label, time = match.replaced
            taken.add(prediction, orjson.loads(label), time)
    for each in direct:
        added.predictions += each.predictions
        added.labels += each.labels
        added.times += [each.time] * len(each.labels)
    return added, taken


def _delays(delays: Sequence[float]) -> Ints:
    buckets = np.searchsorted(np.asarray(DELAY_BUCKETS), np.asarray(delays, np.float64), side="left")
    return np.bincount(buckets, minlength=len(DELAY_BUCKETS) + 1).astype(np.int64)


def _oriented(pairs: Sequence[Pair], before: Mapping[VersionKey, str]) -> dict[VersionKey, list[Pair]]:
    """Pairs of a version and the one before it, with that version first, by its key; other pairs are left out."""
    oriented: dict[VersionKey, list[Pair]] = defaultdict(list)
    for pair in pairs:
        this, other = pair.versions
        if before.get((pair.model, this)) == other:
            oriented[pair.model, this].append(pair)
        elif before.get((pair.model, other)) == this:
            turned = Pair(pair.model, (other, this), pair.predictions[::-1], pair.label)
            oriented[pair.model, other].append(turned)
    return oriented


def _compared(
    sides: Mapping[VersionKey, Side], key: VersionKey, previous: str, pairs: Sequence[Pair]
) -> tuple[Ints, Ints]:
    """How often two versions agreed, and which of them was right, by `RIGHT`."""
    agreement, right = np.zeros(2, np.int64), np.zeros(len(RIGHT), np.int64)
    other = sides.get((key[0], previous))
    mine, its = sides[key].binner, other.binner if other is not None else None
    if not pairs or mine is None or its is None:
        return agreement, right
    made = [pair for pair in pairs if pair.label is None]
    if made:
        # by the bins of one of them, so that numbers can agree
        said = mine.said([orjson.loads(pair.predictions[0]) for pair in made])
        its_said = mine.said([orjson.loads(pair.predictions[1]) for pair in made])
        usable = (said >= 0) & (its_said >= 0)
        agreement = np.bincount((said == its_said)[usable], minlength=2).astype(np.int64)
    judged = [pair for pair in pairs if pair.label is not None]
    if judged:
        labels = [orjson.loads(pair.label or b"null") for pair in judged]
        wrong = mine.wrongness([orjson.loads(pair.predictions[0]) for pair in judged], labels)
        its_wrong = its.wrongness([orjson.loads(pair.predictions[1]) for pair in judged], labels)
        right = _who_was_right(wrong, its_wrong, numbers=not mine.classes)
    return agreement, right


def _who_was_right(wrong: Floats, its_wrong: Floats, *, numbers: bool) -> Ints:
    """How often this version, the previous one, both or neither were right; the nearer number is."""
    this, previous = int((wrong < its_wrong).sum()), int((wrong > its_wrong).sum())
    alike = wrong == its_wrong
    both = alike if numbers else alike & (wrong == 0)
    return np.array([this, previous, int(both.sum()), int((alike & ~both).sum())], np.int64)
