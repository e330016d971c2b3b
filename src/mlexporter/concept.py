"""The alarm on concept drift: whether what becomes of predictions is what the reference says it is.

The null hypothesis is about outcomes in `Strata` of what the model said, never about how many rows a stratum has: drift
of the inputs alone does not count. In each stratum s the outcomes' shares p_s have KL(q_s || p_s) <= eps_s, and on
average over the strata, weighted as in the reference, they have at most eps. For any such p, wandering as it likes,

* each stratum alone has the bets of `detector`: R_k <- (1 + R_k) exp(s_k) with each block in which it has outcomes;
* all strata together have those of `joint_bets`, with the same recursion and each block. They find what is small
  everywhere, and the former find what is large somewhere.

All of them are e-detectors, E R_k <= number of blocks, so their average with fixed weights is one, too:

    evidence = ln ((mean over strata of their evidence + mean over the joint bets of R_k) / 2)

On average it takes A blocks at least to reach ln A, and there are at most as many blocks as ticks. It counts as one
watched column. Both parts of the null are confidence sets of 99.95 % for what the reference was drawn from (that of
the strata by Bonferroni), so one reference in a thousand is too unlucky for the promise.

Labels come late, in drops and in floods. Outcomes are therefore taken in blocks: a tick in which fewer than
`BLOCK_ROWS` have come since the last block leaves them for the next. The joint null allows for the worst within a
block, which for a single outcome is no better than its stratum alone. Pure; one thread ticks. Natural logarithms.
"""

import hashlib
import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter import detector
from mlexporter.alarm import NOTABLE
from mlexporter.config import DetectionConfig
from mlexporter.detector import CAP, CLEAR, Dispersion, Evidence
from mlexporter.dictionary import Layout, make_bets, radius, smoothed
from mlexporter.edges import Floats
from mlexporter.joint_bets import JointBets, dispersion_ratio
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.strata import Strata

LEAST_REFERENCE: Final = 2000
"""Outcomes that a reference must have for the alarm."""
BLOCK_ROWS: Final = 100
"""Outcomes that are judged at once, at least."""
_CONFIDENCE: Final = 0.9995
# Outcomes that explain evidence count half each time that a stratum has so many.
_FADING_ROWS: Final = 1000
_LEAST: Final = 1e-250


class ConceptState(msgspec.Struct, frozen=True):
    """What the alarm of one version has gathered. E tiers, S strata, O outcomes, K joint bets; no array ever changes.

    Attributes:
        seen: counts since the start, up to the last block.
        strata: evidence of each stratum alone.
        joint: (E, K) statistics R of the joint bets.
        dispersion: of the blocks, over all strata.
        log_evidence: (E,) minus infinity before the first block.
        tolerance: (E,) accepted divergence of outcomes, averaged over the strata as they are in the reference.
        firing: (E,) which tiers alarm.
        fired: (E,) Unix time at which they went on; NaN where they are off.
        rise: (E, S, O) outcomes since the evidence was last not notable, the older ones fading.

    """

    seen: OutcomeCounts
    strata: Evidence
    joint: Floats
    dispersion: Dispersion
    log_evidence: Floats
    tolerance: Floats
    firing: NDArray[np.bool_]
    fired: Floats
    rise: Floats


class StratumRise(msgspec.Struct, frozen=True):
    """What the evidence of a tier is made of in one stratum.

    Attributes:
        said: by the model: a class, or a span of scores or predictions.
        rows: outcomes since the evidence rose.
        expected, seen: share of each outcome in the reference and since then; `seen` is 0 without rows.
        log_evidence: of this stratum alone.

    """

    said: str
    rows: float
    expected: dict[str, float]
    seen: dict[str, float]
    log_evidence: float


class ConceptAlarm:
    """The alarm on concept drift of one baseline. Immutable.

    Args:
        strata: of the outcomes.
        reference: (S, O) counts.
        detection: the tolerances of both tiers.

    Attributes:
        strata: of the outcomes.
        tolerance: as in `ConceptState`.
        stratum_tolerance: (E, S) accepted divergence of each stratum.

    """

    def __init__(self, strata: Strata, reference: Floats, detection: DetectionConfig) -> None:
        self.strata = strata
        self._reference = np.ascontiguousarray(reference)
        self._shape = count, outcomes = reference.shape
        rows = reference.sum(axis=1)
        least = np.array([[detection.warn_tolerance], [detection.page_tolerance]])
        sizes = np.full(count, outcomes)
        of_strata = radius(sizes, rows, 1.0 - (1.0 - _CONFIDENCE) / count)
        self.stratum_tolerance: Floats = np.maximum(least, of_strata)
        of_all = radius(np.array([count * (outcomes - 1) + 1]), rows.sum(keepdims=True), _CONFIDENCE)
        self.tolerance: Floats = np.maximum(least, of_all)[:, 0]
        self._layout = Layout(np.arange(count + 1) * outcomes, count if strata.ordered else 0, last_is_missing=False)
        q = smoothed(self._layout, reference.ravel())
        any_rate = np.ones((count, len(least), 2))
        self._bets = make_bets(self._layout, q, self.stratum_tolerance, any_rate)
        self.expected: Floats = q.reshape(self._shape)
        self._joint = JointBets.of(
            reference, self.expected, self.tolerance, self.stratum_tolerance, ordered=strata.ordered
        )
        self._alternatives = np.maximum(self._joint.there.sum(axis=1), 1)

    @staticmethod
    def of(binner: OutcomeBinner, detection: DetectionConfig) -> "ConceptAlarm | None":
        """The alarm of a binner; None if its reference has too few outcomes to hold others against them."""
        reference = binner.reference
        if reference is None or reference.rows < LEAST_REFERENCE:
            return None
        strata = Strata(binner, reference)
        counts = strata.counts(reference.bins)
        if counts.sum() < LEAST_REFERENCE or counts.shape[1] < 2:
            return None
        return ConceptAlarm(strata, counts, detection)

    def fingerprint(self) -> str:
        """Of the null hypothesis: what was gathered against one goes on only against the same one."""
        arrays = (self._reference, self.tolerance, self.stratum_tolerance)
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]

    def start(self, seen: OutcomeCounts) -> ConceptState:
        """No evidence yet; what was counted before is not held against anything."""
        tiers = len(self.tolerance)
        pooled = Layout(np.array([0, int(np.prod(self._shape))]), 0)
        return ConceptState(
            seen=seen,
            strata=detector.start(self._layout, tiers),
            joint=np.zeros(self._joint.there.shape),
            dispersion=Dispersion.start(pooled),
            log_evidence=np.full(tiers, -np.inf),
            tolerance=self.tolerance,
            firing=np.zeros(tiers, dtype=np.bool_),
            fired=np.full(tiers, np.nan),
            rise=np.zeros((tiers, *self._shape)),
        )

    def advance(self, state: ConceptState, seen: OutcomeCounts, now: float, log_threshold: float) -> ConceptState:
        """The state after a tick; the state as it was until a block of new outcomes is complete.

        Args:
            state: before the tick.
            seen: counts since the start.
            now: Unix time, in seconds.
            log_threshold: of the evidence, at which an alarm goes on.

        """
        if seen.rows - state.seen.rows < BLOCK_ROWS:
            return state
        counts = self.strata.counts(seen.bins - state.seen.bins)
        if counts.sum() < BLOCK_ROWS:  # the others have no scores, or a class that has no stratum
            return state
        log_cap = log_threshold + CAP
        strata = self._advance_strata(state.strata, counts, log_cap)
        joint = self._advance_joint(state, counts, log_cap)
        total = (np.exp(strata.log_evidence).mean(axis=1) + joint.sum(axis=1) / self._alternatives) / 2
        over = _factor(total, log_cap)
        if over.min() < 1.0:
            strata, joint = _shrunk(strata, over), joint * over[:, None]
        level = np.log(np.maximum(total * over, _LEAST))
        firing = level >= np.where(state.firing, log_threshold - CLEAR, log_threshold)
        return ConceptState(
            seen=seen,
            strata=strata,
            joint=joint,
            dispersion=self._dispersion(state.dispersion, counts),
            log_evidence=level,
            tolerance=self.tolerance,
            firing=firing,
            fired=np.where(firing, np.where(state.firing, state.fired, now), np.nan),
            rise=_risen(state, counts),
        )

    def explain(self, state: ConceptState, tier: int) -> list[StratumRise]:
        """What the evidence of a tier is made of, stratum after stratum."""
        rows = state.rise[tier].sum(axis=1)
        shares = state.rise[tier] / np.maximum(rows, 1.0)[:, None]
        outcomes = self.strata.outcomes
        return [
            StratumRise(
                said=said,
                rows=float(rows[s]),
                expected=dict(zip(outcomes, self.expected[s].tolist(), strict=True)),
                seen=dict(zip(outcomes, shares[s].tolist(), strict=True)),
                log_evidence=float(state.strata.log_evidence[tier, s]),
            )
            for s, said in enumerate(self.strata.names)
        ]

    def _advance_strata(self, before: Evidence, counts: Floats, log_cap: float) -> Evidence:
        """The evidence of each stratum alone; one without outcomes in the block has it as it was."""
        count = self._shape[0]
        none = np.zeros((count, 2))
        # one stratum is to reach the cap by itself
        cap = log_cap + math.log(2 * count)
        after = detector.advance(self._layout, self._bets, before, counts.ravel(), none, cap)
        came = counts.sum(axis=1) > 0
        bins = self._layout.spread(came)
        return Evidence(
            moves=np.where(bins[:, None], after.moves, before.moves),
            tilts=np.where(came[: self._layout.ordered, None], after.tilts, before.tilts),
            rates=before.rates,
            log_evidence=np.where(came, after.log_evidence, before.log_evidence),
            dispersion=Dispersion(
                total=np.where(came, after.dispersion.total, before.dispersion.total),
                weight=np.where(came, after.dispersion.weight, before.dispersion.weight),
                previous=np.where(bins, counts.ravel(), before.dispersion.previous),
            ),
        )

    def _advance_joint(self, state: ConceptState, counts: Floats, log_cap: float) -> Floats:
        """(E, K) statistics of the joint bets, which can reach the cap alone, and leave room to the strata."""
        joint = detector.grown(state.joint, self._joint.scores(counts / float(state.dispersion.divisor[0])))
        factor = _factor(joint.sum(axis=1) / self._alternatives, log_cap + math.log(2.0))
        capped: Floats = joint * factor[:, None]
        return capped

    def _dispersion(self, before: Dispersion, counts: Floats) -> Dispersion:
        """The dispersion of what strata have in common, with one block more."""
        ratio = dispersion_ratio(counts, before.previous.reshape(self._shape))
        return before.told(np.array([ratio or 0.0]), np.array([ratio is not None]), counts.ravel())


def _factor(statistics: Floats, log_cap: float) -> Floats:
    """What takes statistics down to their cap; 1 for those under it."""
    factor: Floats = np.minimum(math.exp(log_cap) / np.maximum(statistics, _LEAST), 1.0)
    return factor


def _shrunk(strata: Evidence, factor: Floats) -> Evidence:
    """The evidence with all statistics times the (E,) factor of their tier, which leaves the best bet ahead."""
    return Evidence(
        moves=strata.moves * factor[:, None, None],
        tilts=strata.tilts * np.repeat(factor, strata.tilts.shape[1] // len(factor)),
        rates=strata.rates,
        log_evidence=strata.log_evidence + np.log(factor)[:, None],
        dispersion=strata.dispersion,
    )


def _risen(state: ConceptState, counts: Floats) -> Floats:
    """The outcomes of a block added where the evidence was notable already, and alone where it was not."""
    rows = state.rise.sum(axis=2, keepdims=True)
    kept = np.where(rows > _FADING_ROWS, 0.5, 1.0)
    risen: Floats = np.where(state.log_evidence[:, None, None] > NOTABLE, state.rise * kept, 0.0) + counts
    return risen
