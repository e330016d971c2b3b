"""What the evidence of drift is made of, in words that a person understands.

The evidence of a column is a sum over bets, each on a direction away from the baseline: the shares of that sum tell in
which direction the samples went. How far they went is told by the samples since the evidence began to rise.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from mlexporter.alarm import NOTABLE, AlarmState
from mlexporter.alarm_bins import AlarmBins
from mlexporter.dictionary import SIZES, TILTS, normal_scores
from mlexporter.edges import Floats
from mlexporter.expectation import TIERS
from mlexporter.feedback_status import outcomes_of
from mlexporter.labels import MISSING, NEW, alarm_labels
from mlexporter.snapshot import Monitor, Snapshot

_MOST_REASONS: Final = 3
_LEAST_SHARE: Final = 0.05


class Reason(msgspec.Struct, frozen=True):
    """A direction that the samples went.

    Attributes:
        direction: `mean_up`, `mean_down`, `variance_up`, `variance_down`, `gain`, `loss`, `missing_up`,
            `out_of_range_up` or `new_categories_up`.
        bin: of a gain or a loss.
        share: of the evidence that it carries.
        text: what happened.

    """

    direction: str
    bin: str | None
    share: float
    text: str


def drift_of(snapshot: Snapshot, model: str, version: str) -> dict[str, Any] | None:
    """The drift alarm of a model version as JSON values; None where there is no such version.

    Columns are in the order of their evidence, the strongest first.
    """
    found = next((each for each in snapshot.versions if (each.model, each.version) == (model, version)), None)
    if found is None:
        return None
    monitor, alarm = found.monitor, found.alarm
    state = "learning" if monitor is None else "provisional" if monitor.alarm is None else "watching"
    columns: list[dict[str, Any]] = []
    if monitor is not None and alarm is not None:
        explainer = _Explainer(monitor, alarm, found.hidden)
        strongest = np.argsort(-alarm.evidence.log_evidence.max(axis=0), kind="stable")
        columns = [explainer.column(i) for i in strongest.tolist()]
    return {
        "model": model,
        "version": version,
        "state": state,
        "log_threshold": snapshot.log_threshold,
        "columns": columns,
        "outcomes": outcomes_of(found),
    }


class _Case(msgspec.Struct, frozen=True):
    """A column in a tier: names of its bins, and their shares, live and as the baseline expects them."""

    tier: int
    column: int
    names: tuple[str, ...]
    live: Floats
    expected: Floats


class _Explainer:
    """Explains the columns of one version."""

    def __init__(self, monitor: Monitor, alarm: AlarmState, hidden: frozenset[str]) -> None:
        self._monitor = monitor
        self._columns = monitor.binner.columns
        self._alarm = alarm
        self._hidden = hidden
        self._bins = AlarmBins(monitor.binner)
        self._layout = self._bins.layout
        self._samples = [self._layout.totals(self._bins.counts(bins)) for bins in alarm.rise.bins]
        # shares of the samples since the rise, and what the baseline expects of them
        self._live = [self._shares(self._bins.counts(bins)) for bins in alarm.rise.bins]
        self._expected = [self._shares(counts) for counts in alarm.rise.expected]
        self._rates = [
            (self._bins.rates(live), self._bins.rates(expected))
            for live, expected in zip(self._live, self._expected, strict=True)
        ]
        self._psi = [monitor.statistician.psi(monitor.reference, bins) for bins in alarm.rise.bins]

    def _shares(self, counts: Floats) -> Floats:
        shares: Floats = counts / self._layout.spread(np.maximum(self._layout.totals(counts), 1e-300))
        return shares

    def column(self, i: int) -> dict[str, Any]:
        """One column, tier by tier."""
        column = self._columns[i]
        return {
            "role": column.role.value,
            "column": column.name,
            "dispersion": float(self._alarm.evidence.dispersion.ratio[i]),
            "tiers": {name: self._tier(tier, i) for tier, name in enumerate(TIERS)},
        }

    def _tier(self, tier: int, i: int) -> dict[str, Any]:
        alarm = self._alarm
        evidence = float(alarm.evidence.log_evidence[tier, i])
        told: dict[str, Any] = {
            "state": "firing" if alarm.firing[tier, i] else "quiet",
            "log_evidence": evidence if math.isfinite(evidence) else None,
            "tolerance": float(alarm.tolerance[tier, i]),
            "fired": _time(alarm.fired[tier, i]),
            "since": _time(alarm.since[tier, i]),
        }
        if evidence <= NOTABLE:
            return told
        case = self._case(tier, i)
        psi = float(self._psi[tier][i])
        return told | {
            "samples": round(float(self._samples[tier][i])),
            "psi": psi if math.isfinite(psi) else None,
            "reasons": [msgspec.to_builtins(reason) for reason in self._reasons(case)],
            "bins": [
                {"bin": name, "baseline": before, "live": now}
                for name, before, now in zip(case.names, case.expected.tolist(), case.live.tolist(), strict=True)
            ],
        }

    def _span(self, i: int) -> slice:
        return slice(int(self._layout.offsets[i]), int(self._layout.offsets[i + 1]))

    def _case(self, tier: int, i: int) -> _Case:
        names = alarm_labels(self._columns[i], export_names=self._columns[i].name not in self._hidden)
        return _Case(tier, i, names, self._live[tier][self._span(i)], self._expected[tier][self._span(i)])

    # -- reasons ------------------------------------------------------------------------------------------------------

    def _reasons(self, case: _Case) -> list[Reason]:
        """The directions that carry most of the evidence."""
        weights: dict[tuple[str, int | None], float] = {}
        for direction, index, weight in self._weights(case.tier, case.column):
            key = self._same(direction, index, case)
            weights[key] = weights.get(key, 0.0) + weight
        total = sum(weights.values()) or 1.0
        ordered = sorted(weights.items(), key=lambda item: -item[1])
        return [
            Reason(
                direction=direction,
                bin=None if index is None else case.names[index],
                share=weight / total,
                text=self._text(case, direction, index),
            )
            for (direction, index), weight in ordered[:_MOST_REASONS]
            if weight >= _LEAST_SHARE * total
        ]

    def _weights(self, tier: int, i: int) -> Iterator[tuple[str, int | None, float]]:
        """What the bets on each direction add to the evidence, but for a factor that they have in common."""
        evidence, bets = self._alarm.evidence, self._alarm.bets
        assert bets is not None
        shape = max(float(bets.alternatives[tier, i]), 1.0)
        moves = evidence.moves[tier, self._span(i)].reshape(-1, 2, len(SIZES)).sum(axis=2) / shape
        for index, (gain, loss) in enumerate(moves.tolist()):
            yield "gain", index, gain
            yield "loss", index, loss
        if i < self._layout.ordered:
            tilts = evidence.tilts[i].reshape(len(TIERS), len(TILTS), -1)[tier].sum(axis=1) / shape
            yield from ((direction, None, weight) for direction, weight in zip(TILTS, tilts.tolist(), strict=True))
        rates = evidence.rates[i, tier].sum(axis=1) / np.maximum(bets.rate_alternatives[i, tier], 1.0)
        yield "missing_up", None, float(rates[0])
        yield self._strange(i), None, float(rates[1])

    def _strange(self, i: int) -> str:
        return "out_of_range_up" if i < self._layout.ordered else "new_categories_up"

    def _same(self, direction: str, index: int | None, case: _Case) -> tuple[str, int | None]:
        """One name for a direction that two bets are on: a rate, and a gain of its bin."""
        name = case.names[index] if direction == "gain" and index is not None else None
        if name == MISSING:
            return "missing_up", None
        if name == NEW:
            return "new_categories_up", None
        return direction, index

    def _text(self, case: _Case, direction: str, index: int | None) -> str:
        if direction in ("mean_up", "mean_down"):
            return self._mean_text(case, up=direction == "mean_up")
        if direction in ("variance_up", "variance_down"):
            return _variance_text(case, up=direction == "variance_up")
        if index is None:
            rate = 0 if direction == "missing_up" else 1
            live, expected = self._rates[case.tier]
            return f"{_RATES[direction]} {_rose(expected[case.column, rate], live[case.column, rate])}"
        before, now = case.expected[index], case.live[index]
        verb = "gained" if direction == "gain" else "lost"
        what = "bin" if case.column < self._layout.ordered else "category"
        points = _points(abs(now - before))
        return f"{what} {case.names[index]} {verb} {points}, from {percent(before)} to {percent(now)}"

    def _mean_text(self, case: _Case, *, up: bool) -> str:
        """How far the mean moved, in standard deviations of the baseline.

        What the baseline expects of the mean at these hours follows from its shares and the means of its bins.
        """
        i, reference, binner = case.column, self._monitor.reference, self._monitor.binner
        fine = slice(int(binner.offsets[i]), int(binner.offsets[i + 1]))
        values = slice(fine.start, fine.stop - 1)
        sums, rows = self._bins.merged(reference.sums, i), self._bins.merged(reference.bins, i)
        expected = np.where(rows > 0, case.expected, 0.0)[:-1]
        before = float((expected * sums[:-1] / np.maximum(rows[:-1], 1.0)).sum() / max(expected.sum(), 1e-300))
        rise = self._alarm.rise
        now = float(rise.sums[case.tier, values].sum() / max(rise.bins[case.tier, values].sum(), 1))
        moved, stddev = now - before, float(reference.stddevs[i])
        way = "up" if up else "down"
        if (moved > 0) is not up or not stddev:
            return f"values moved {way}; their mean went from {before:.3g} to {now:.3g}"
        return f"mean {way} by about {abs(moved) / stddev:.2g} standard deviations, from {before:.3g} to {now:.3g}"


_RATES: Final = {
    "missing_up": "missing",
    "out_of_range_up": "values out of the baseline's range",
    "new_categories_up": "categories that the baseline does not know",
}


def _variance_text(case: _Case, *, up: bool) -> str:
    """How the variance changed, on the scale on which the baseline is normal."""
    z, v = normal_scores(case.expected[None, :-1])

    def variance(shares: Floats) -> float:
        own = shares[:-1] / max(shares[:-1].sum(), 1e-300)
        return float((own * (v[0] + 1.0)).sum() - (own * z[0]).sum() ** 2)

    ratio = variance(case.live) / max(variance(case.expected), 1e-300)
    return f"spread {'up' if up else 'down'}: about {ratio:.2g} times the baseline's variance"


def _rose(before: float, now: float) -> str:
    return f"{'rose' if now > before else 'went'} from {percent(before)} to {percent(now)}"


def percent(share: float) -> str:
    """A share as people say it.

    >>> percent(0.001), percent(0.04), percent(0.123), percent(0.00004), percent(1.0)
    ('0.1 %', '4 %', '12 %', '<0.01 %', '100 %')
    """
    if share < 0.0001:
        return "0 %" if share == 0 else "<0.01 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def _points(share: float) -> str:
    return f"{100 * share:.0f} points" if share >= 0.0995 else f"{100 * share:.2g} points"


def _time(time: float) -> float | None:
    return float(time) if math.isfinite(time) else None
