"""The drift alarm of a model version: what becomes of its evidence with each tick.

`Alarm` is shared by the versions that share a baseline, and never changes but for the bets that it keeps at hand;
`AlarmState` is what one version has gathered, and is replaced with each tick. Nothing here locks: one thread ticks.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter import detector
from mlexporter.binning import Binner, Counts
from mlexporter.detector import CAP, CLEAR, TICK_SECONDS, Evidence
from mlexporter.dictionary import Bets, Layout, make_bets
from mlexporter.edges import Floats, Ints
from mlexporter.expectation import Expectation, Expectations, Hours

# Bets of so many bytes are kept at hand: those of all 24 hours of a small model, of two hours of a large one.
_KEPT_BYTES: Final = 6 << 20
# The bets of the next hours are made ahead, so many columns with each tick: half a millisecond each.
_COLUMNS_AHEAD: Final = 4
Seconds = NDArray[np.int32]
_LONGEST: Final = np.iinfo(np.int32).max  # seconds: 68 years
# Clocks change hours, and summer time, at quarters of an hour.
_QUARTER: Final = 900.0

# Samples that explain evidence count half each time that there are so many.
_FADING_ROWS: Final = 1000
NOTABLE: Final = 4.0
"""Log evidence from which on samples are kept to explain it: more than a stream without drift reaches in weeks."""


class Rise(msgspec.Struct, frozen=True):
    """The samples since the log evidence was last under `NOTABLE`, the older ones fading. E tiers, C columns.

    Attributes:
        bins: (E, fine bins) counts.
        sums: (E, numeric fine bins) sums of values.
        expected: (E, T) what the baseline expects of as many samples at their hours, in the bins of the alarm.

    """

    bins: Floats
    sums: Floats
    expected: Floats


class Starts(msgspec.Struct, frozen=True):
    """Since when each bet has won: seconds since `origin`, a Unix time, for the statistics of `Evidence`.

    It is where the statistic last was at most 1: if the bet is right, the likeliest moment for the drift to have begun.
    """

    origin: float
    moves: Seconds
    tilts: Seconds
    rates: Seconds

    def after(self, before: Evidence, begin: float) -> "Starts":
        """The starts after a tick that began at a Unix time, with the evidence before it."""
        seconds = np.int32(np.clip(begin - self.origin, -_LONGEST, _LONGEST))
        return Starts(
            self.origin,
            np.where(before.moves <= 1.0, seconds, self.moves),
            np.where(before.tilts <= 1.0, seconds, self.tilts),
            np.where(before.rates <= 1.0, seconds, self.rates),
        )


class AlarmState(msgspec.Struct, frozen=True):
    """What the alarm of one version has gathered. E tiers, C columns.

    Attributes:
        seen: counts since the start, up to the last tick.
        evidence: of drift.
        bets: at the last tick, None before it.
        hours: of the last tick, by which its bets are found again; None before it.
        tolerance: (E, C) accepted divergences at the last tick.
        firing: (E, C) which alarms are on.
        fired: (E, C) Unix time at which they went on; NaN where they are off.
        since: (E, C) Unix time at which what set them off began; NaN where they are off.
        starts: of all bets.
        rise: what the evidence is made of.

    """

    seen: Counts
    evidence: Evidence
    bets: Bets | None
    tolerance: Floats
    firing: NDArray[np.bool_]
    fired: Floats
    since: Floats
    starts: Starts
    rise: Rise
    hours: Hours | None = None


class Alarm:
    """The drift alarm of one baseline."""

    def __init__(self, binner: Binner, expectations: Expectations) -> None:
        self._expectations = expectations
        self.bins = expectations.bins
        self._layout = self.bins.layout
        self._sizes: Ints = np.diff(binner.offsets)
        self._numeric_sizes = self._sizes[: len(binner.numeric)]
        self._kept: dict[Hours, _Prepared] = {}

    def start(self, seen: Counts, now: float) -> AlarmState:
        """No evidence yet; what was counted before is not held against anything."""
        expectation = self._expectations.at(self._expectations.hours(now))
        shape = expectation.tolerance.shape
        evidence = detector.start(self._layout, shape[0])
        return AlarmState(
            seen=seen,
            evidence=evidence,
            bets=None,
            tolerance=expectation.tolerance,
            firing=np.zeros(shape, dtype=np.bool_),
            fired=np.full(shape, np.nan),
            since=np.full(shape, np.nan),
            starts=Starts(
                now,
                np.zeros(evidence.moves.shape, dtype=np.int32),
                np.zeros(evidence.tilts.shape, dtype=np.int32),
                np.zeros(evidence.rates.shape, dtype=np.int32),
            ),
            rise=Rise(
                bins=np.zeros((shape[0], len(seen.bins))),
                sums=np.zeros((shape[0], len(seen.sums))),
                expected=np.zeros((shape[0], len(expectation.shares))),
            ),
        )

    def advance(self, state: AlarmState, seen: Counts, now: float, log_threshold: float) -> AlarmState:
        """The state after a tick; without new samples, the state as it was.

        Args:
            state: before the tick.
            seen: counts since the start.
            now: Unix time, in seconds.
            log_threshold: of the evidence, at which an alarm goes on.

        """
        if seen.rows == state.seen.rows:
            return state
        hours = self._expectations.hours(now - TICK_SECONDS / 2)
        prepared = self._prepared(hours)
        bins, sums = seen.bins - state.seen.bins, seen.sums - state.seen.sums
        counts = self.bins.counts(bins)
        before = state.evidence
        evidence = detector.advance(
            self._layout, prepared.bets, before, counts, self.bins.rates(counts), log_threshold + CAP
        )
        level = evidence.log_evidence
        firing = level >= np.where(state.firing, log_threshold - CLEAR, log_threshold)
        begun = firing & ~state.firing
        fired = np.where(firing, np.where(begun, now, state.fired), np.nan)
        starts = state.starts.after(before, now - TICK_SECONDS)
        since = np.where(firing, state.since, np.nan)
        for tier, column in np.argwhere(begun).tolist():
            since[tier, column] = self._start(prepared.bets, evidence, starts, tier, column)
        expected = prepared.expectation.shares * self._layout.spread(self._layout.totals(counts))
        return AlarmState(
            seen=seen,
            evidence=evidence,
            bets=prepared.bets,
            tolerance=prepared.expectation.tolerance,
            firing=firing,
            fired=fired,
            since=since,
            starts=starts,
            rise=self._risen(state.rise, before.log_evidence > NOTABLE, bins, sums, expected),
            hours=hours,
        )

    def fingerprint(self) -> str:
        """Of the null hypothesis: what was gathered against one goes on only against the same one."""
        return self._expectations.fingerprint()

    def restored(self, state: AlarmState) -> AlarmState:
        """A state of an alarm of the same fingerprint, as it was kept without its bets, with them."""
        bets = self._prepared(state.hours).bets if state.hours is not None else None
        return msgspec.structs.replace(state, bets=bets)

    def _start(self, bets: Bets, evidence: Evidence, starts: Starts, tier: int, column: int) -> float:
        """The Unix time since when the bet has won that carries most of a column's evidence."""
        span = slice(self._layout.offsets[column], self._layout.offsets[column + 1])
        shape = max(float(bets.alternatives[tier, column]), 1.0)
        shares = [(evidence.moves[tier, span] / shape, starts.moves[tier, span])]
        if column < self._layout.ordered:
            tilts, begun = (
                array[column].reshape(len(bets.alternatives), -1)[tier] for array in (evidence.tilts, starts.tilts)
            )
            shares.append((tilts / shape, begun))
        alternatives = np.maximum(bets.rate_alternatives[column, tier], 1.0)
        shares.append((evidence.rates[column, tier] / alternatives[:, None], starts.rates[column, tier]))
        _, start = max((float(share.max()), int(begun.flat[share.argmax()])) for share, begun in shares)
        return starts.origin + start

    def _risen(self, rise: Rise, rising: NDArray[np.bool_], bins: Ints, sums: Floats, expected: Floats) -> Rise:
        """The samples of a tick added where the evidence was notable already, and alone where it was not."""
        rows = self._layout.totals(rise.expected)
        kept = np.where(rising, np.where(rows > _FADING_ROWS, 0.5, 1.0), 0.0)
        numeric = kept[:, : len(self._numeric_sizes)]
        return Rise(
            bins=rise.bins * np.repeat(kept, self._sizes, axis=1) + bins,
            sums=rise.sums * np.repeat(numeric, self._numeric_sizes, axis=1) + sums,
            expected=rise.expected * self._layout.spread(kept) + expected,
        )

    # -- bets by the hour ---------------------------------------------------------------------------------------------

    def prepare(self, now: float) -> None:
        """Do some of the work for the next hour, so that no tick has to do all of it."""
        hours = self._expectations.hours
        middle = now - TICK_SECONDS / 2  # as of the tick: what it needs is not to be thrown away
        present = hours(middle)
        coming = next((h for i in range(1, 5) if (h := hours(middle + i * _QUARTER)) != present), present)
        self._begin(coming).make(_COLUMNS_AHEAD)

    def _prepared(self, hours: Hours) -> "_Prepared":
        prepared = self._begin(hours)
        prepared.make()
        return prepared

    def _begin(self, hours: Hours) -> "_Prepared":
        """The bets of these hours, perhaps not made yet; the oldest ones go where room is needed."""
        prepared = self._kept.pop(hours, None)
        if prepared is None:
            expectation = self._expectations.at(hours)
            another = next((known for known in self._kept.values() if known.ready), None)
            prepared = _Prepared(self._layout, expectation, another, self._expectations.seasonal)
        self._kept[hours] = prepared  # at the end: the one used last
        while len(self._kept) > 2 and len(self._kept) * prepared.bytes > _KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return prepared


class _Prepared:
    """The bets of one hour. They are made whole, or out of those of another hour, which differ in seasonal columns."""

    def __init__(self, layout: Layout, expectation: Expectation, another: "_Prepared | None", seasonal: Ints) -> None:
        self._layout = layout
        self._left = seasonal
        self.expectation = expectation
        if another is None:
            self.bets = make_bets(layout, *msgspec.structs.astuple(expectation))
            self.bets.bounded(layout, seasonal)
            self._left = seasonal[:0]
        else:
            self.bets = another.bets.copy()

    @property
    def ready(self) -> bool:
        """Whether all bets are made."""
        return not len(self._left)

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(array.nbytes for array in msgspec.structs.astuple(self.bets))

    def make(self, most: int | None = None) -> None:
        """Make the bets of so many columns more, or of all that are left."""
        columns, self._left = self._left[:most], self._left[len(self._left[:most]) :]
        if len(columns):
            layout, bins = self._layout.subset(columns)
            part = self.expectation.part(columns, bins)
            self.bets.replace(make_bets(layout, *msgspec.structs.astuple(part)), columns, bins)
            self.bets.bounded(self._layout, columns)
