"""What labels tell of a version as JSON values: for the status, and for who asks what drifted."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from mlexporter.alarm import NOTABLE
from mlexporter.concept import StratumRise
from mlexporter.estimates import estimated
from mlexporter.expectation import TIERS
from mlexporter.outcomes import OutcomeBinner
from mlexporter.performance import FigureValue, realised
from mlexporter.snapshot import VersionSnapshot


def labels_of(version: VersionSnapshot) -> dict[str, Any] | None:
    """Labels, predictions that wait, and performance; None where outcomes cannot be counted."""
    binner = version.monitor.outcomes if version.monitor is not None else None
    if binner is None:
        return None
    feedback, totals = version.feedback, version.feedback.totals
    return {
        "labels": totals.labels,
        "last_label": totals.last_label,
        "predictions_pending": feedback.pending,
        "baseline": _figures(realised(binner, binner.reference)) if binner.reference is not None else None,
        "windows": {
            window: {
                "outcomes": counts.rows,
                "realised": _figures(realised(binner, counts)),
                "estimated": _estimated(binner, version, window),
            }
            for window, counts in feedback.windows
        },
    }


def _estimated(binner: OutcomeBinner, version: VersionSnapshot, window: str) -> dict[str, float]:
    return _figures(estimated(binner, dict(version.feedback.scores)[window]))


def _figures(values: Sequence[FigureValue]) -> dict[str, float]:
    """Those of the model as a whole."""
    return {each.figure: each.value for each in values if each.of_class is None}


def outcomes_of(version: VersionSnapshot) -> dict[str, Any] | None:
    """The alarm on concept drift, tier by tier; None where there is none, or before its first outcomes."""
    concept = version.monitor.concept if version.monitor is not None else None
    state = version.feedback.concept
    if concept is None or state is None:
        return None
    tiers: dict[str, Any] = {}
    for tier, name in enumerate(TIERS):
        evidence, fired = float(state.log_evidence[tier]), float(state.fired[tier])
        tiers[name] = {
            "state": "firing" if state.firing[tier] else "quiet",
            "log_evidence": evidence if math.isfinite(evidence) else None,
            "tolerance": float(state.tolerance[tier]),
            "fired": fired if math.isfinite(fired) else None,
        }
        if evidence > NOTABLE:
            tiers[name]["predictions"] = [
                _explained(each, number, hidden=version.hides_classes)
                for number, each in enumerate(concept.explain(state, tier), start=1)
            ]
    return {"tiers": tiers}


def _explained(rise: StratumRise, number: int, *, hidden: bool) -> dict[str, Any]:
    """What the evidence is made of in one stratum; numbers instead of names where these are personal."""
    told: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(rise, log_evidence=_finite(rise.log_evidence)))
    if hidden:
        told["said"] = f"{number:02d}"
        for shares in ("expected", "seen"):
            told[shares] = {f"{i:02d}": share for i, share in enumerate(told[shares].values(), start=1)}
    return told


def _finite(evidence: float) -> float:
    """Evidence that JSON can write: none at all is less than any that counts."""
    return max(evidence, -1e3)
