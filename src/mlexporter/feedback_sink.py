"""Where matches of predictions and labels come in: counted for the versions, and installed once they are written."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from mlexporter.feedback import encoded, fingerprint_of
from mlexporter.pending.records import Direct, Joined, Lost, Totals, VersionKey, Waiting
from mlexporter.registry import Registry, Version, key_of
from mlexporter.samples import Rejection
from mlexporter.tally import Increment, Side, increments


class FeedbackTally(msgspec.Struct, frozen=True):
    """What a set of matches adds to the versions, and the totals to be written down with it."""

    totals: Totals
    increments: Mapping[VersionKey, Increment]


class FeedbackSink:
    """Counts matches. Called from the joiner's thread alone.

    Args:
        registry: of the versions.
        lock: that guards them; held to look up and to install, never to count.
        clock: Unix time in seconds.

    Attributes:
        labels_waiting: labels without a prediction yet, by model.
        labels_unmatched: labels that were given up, by model and reason.

    """

    def __init__(self, registry: Registry, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._lock = lock
        self._clock = clock
        self.labels_waiting: dict[str, int] = {}
        self.labels_unmatched: dict[tuple[str, str], int] = {}

    def tally(self, joined: Joined, direct: Sequence[Direct]) -> FeedbackTally:
        """What matches add; nothing is changed by it."""
        keys = {(match.model, match.version) for match in joined.matches}
        keys |= {(each.model, each.version) for each in direct} | joined.tracked.keys() | joined.repeated.keys()
        keys |= {(pair.model, version) for pair in joined.pairs for version in pair.versions}
        with self._lock:
            versions = {key: found for key in sorted(keys) if (found := self._version(*key)) is not None}
            sides = {key: _side(version) for key, version in versions.items()}
            before = {
                key: previous.name
                for key, version in versions.items()
                if (previous := self._registry.before(version)) is not None
            }
        added = increments(sides, before, joined, direct)
        totals = {key_of(*key): encoded(each.totals, each.binner) for key, each in added.items()}
        return FeedbackTally(totals, added)

    def _version(self, model: str, version: str) -> Version | None:
        """A version, made if need be: its predictions may have waited since before a restart."""
        found = self._registry.resolve(model, version, self._clock())
        return None if isinstance(found, Rejection) else found

    def install(self, tally: FeedbackTally) -> None:
        """Let what was tallied and written down be seen."""
        with self._lock:
            now = self._clock()
            for (model, name), increment in tally.increments.items():
                version = self._registry.find(model, name)
                if version is None:
                    continue
                feedback, totals = version.feedback, increment.totals
                begun = feedback.totals
                if totals.since != begun.since or fingerprint_of(feedback.binner) != fingerprint_of(increment.binner):
                    # a baseline came in between: outcomes that were counted before it are in no bin of it
                    outcomes = {"outcomes": begun.outcomes, "retracted": begun.retracted, "since": begun.since}
                    feedback.totals, feedback.kept = msgspec.structs.replace(totals, **outcomes), None
                    continue
                feedback.totals, feedback.kept = totals, None
                by_width = dict(zip(increment.widths, increment.by_window, strict=False))
                for _, window in feedback.windows:  # there may be others by now
                    window.advance(now)
                    for each in by_width.get(window.width, ()):
                        window.add_at(each.counts, each.time, sign=each.sign)

    def only(self, models: Collection[str]) -> None:
        """Forget labels of all models but these; under the lock."""
        self.labels_waiting = {model: count for model, count in self.labels_waiting.items() if model in models}
        self.labels_unmatched = {key: count for key, count in self.labels_unmatched.items() if key[0] in models}

    def lost(self, lost: Lost) -> None:
        """Count what was given up."""
        with self._lock:
            for (model, name, reason), count in lost.predictions.items():
                version = self._registry.find(model, name)
                if version is not None:
                    version.feedback.expired[reason] += count
            for key, count in lost.labels.items():
                self.labels_unmatched[key] = self.labels_unmatched.get(key, 0) + count

    def waiting(self, waiting: Waiting) -> None:
        """Note what waits."""
        with self._lock:
            for version in self._registry:
                version.feedback.pending = waiting.predictions.get((version.model, version.name), 0)
            self.labels_waiting = {model: waiting.labels.get(model, 0) for model in self._registry.models}


def _side(version: Version) -> Side:
    feedback = version.feedback
    widths = tuple(window.width for _, window in feedback.windows)
    return Side(feedback.binner, feedback.totals, widths, feedback.since)
