"""All that is known of one id of one model, predictions and labels: the join itself, without storage."""

from collections import Counter
from itertools import combinations

import msgspec

from mlexporter.pending.records import Joined, Label, Match, Pair, VersionKey

MICROSECONDS = 1_000_000
"""Times are kept as whole microseconds, so that a stored one compares equal to what was counted."""


class Row(msgspec.Struct):
    """A prediction that is kept, with its label where there is one.

    Attributes:
        number: by which storage knows it.
        version: of the model.
        time: at which it came, in microseconds.
        value: as JSON.
        label: as JSON; None as long as it waits.
        label_time: in microseconds.
        every: whether the label was given for all versions, so that another version's prediction takes it, too.
        changed: whether storage has to be told.

    """

    number: int
    version: str
    time: int
    value: bytes
    label: bytes | None = None
    label_time: int = 0
    every: bool = False
    changed: bool = False


class Early(msgspec.Struct, frozen=True):
    """A label that waits for its prediction: JSON, microseconds, and the number by which storage knows it already."""

    value: bytes
    time: int
    number: int | None = None


class Outcome:
    """What comes of predictions and labels, as it comes.

    Attributes:
        labelled: predictions that got their first label, by version.

    """

    def __init__(self) -> None:
        self.matches: list[Match] = []
        self.pairs: list[Pair] = []
        self.repeated: Counter[VersionKey] = Counter()
        self.labelled: Counter[VersionKey] = Counter()

    def joined(self, tracked: dict[VersionKey, int]) -> Joined:
        """All of it, for whoever counts."""
        return Joined(tracked, self.matches, self.pairs, dict(self.repeated))


class Family:
    """One id of one model.

    Attributes:
        model: its name.
        rows: predictions, at most one per version, in the order of arrival.
        early: labels that wait, by version; that under None is for every version without one of its own.
        waited: labels that waited when storage was read.
        early_changed: whether storage has to be told of `early`.

    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.early: dict[str | None, Early] = {}
        self.waited = 0
        self.early_changed = False

    def arrive(self, row: Row, outcome: Outcome) -> None:
        """A prediction came: it takes the label that waits for it, or that of another version if it was for all."""
        early = self.early.pop(row.version, None)
        every = early is None
        if early is None:
            early = self.early.pop(None, None)
        if early is not None:
            self.early_changed = True
            self._label(row, early.value, early.time, outcome, every=every)
        else:
            # they say the same, and the last one to say it was the one for all
            every_version = (other for other in self.rows if other.every)
            told = max(every_version, key=lambda other: other.label_time, default=None)
            if told is not None and told.label is not None:
                self._label(row, told.label, told.label_time, outcome, every=True)
        for other in self.rows:
            self._pair(other, row, None, outcome)
            label = row.label if row.label is not None else other.label
            if label is not None:
                self._pair(other, row, label, outcome)
        self.rows.append(row)

    def tell(self, label: Label, outcome: Outcome) -> None:
        """A label came. One for all versions replaces whatever was said before."""
        time = round(label.time * MICROSECONDS)
        every = label.version is None
        targets = self.rows if every else [row for row in self.rows if row.version == label.version]
        if self.early or not targets:
            self._wait(label, time, waits=not targets)
        unlabelled = [row for row in self.rows if row.label is None]
        for row in targets:
            if row.label != label.value:
                self._label(row, label.value, time, outcome, every=every)
                continue
            outcome.repeated[(self.model, row.version)] += 1
            if every and not row.every:
                row.every = row.changed = True
        # a pair of which one was labelled was told with that label
        for first, second in combinations(unlabelled, 2):
            if first.label is not None or second.label is not None:
                self._pair(first, second, label.value, outcome)

    def _wait(self, label: Label, time: int, *, waits: bool) -> None:
        """Keep a label for a prediction to come; one that says the same again waits no longer for that."""
        known = self.early.get(label.version)
        kept = known if known is not None and known.value == label.value else Early(label.value, time)
        before = dict(self.early)
        if label.version is None:
            self.early.clear()
        if waits:
            self.early[label.version] = kept
        self.early_changed = self.early_changed or self.early != before

    def _label(self, row: Row, value: bytes, time: int, outcome: Outcome, *, every: bool) -> None:
        replaced = None if row.label is None else (row.label, row.label_time / MICROSECONDS)
        if replaced is None:
            outcome.labelled[(self.model, row.version)] += 1
        delay = max(0, time - row.time) / MICROSECONDS
        outcome.matches.append(
            Match(self.model, row.version, row.value, value, delay, time / MICROSECONDS, replaced),
        )
        row.label, row.label_time, row.every, row.changed = value, time, every, True

    def _pair(self, one: Row, other: Row, label: bytes | None, outcome: Outcome) -> None:
        first, second = sorted((one, other), key=lambda row: row.version)
        versions, predictions = (first.version, second.version), (first.value, second.value)
        outcome.pairs.append(Pair(self.model, versions, predictions, label))
