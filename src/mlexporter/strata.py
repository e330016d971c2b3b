"""Outcomes told apart by what the model said: the strata that the alarm on concept drift holds each to its own.

Within a stratum the outcome should not depend on which rows come, so that a change of inputs alone changes how many
rows a stratum has, and not what becomes of them. So strata are made narrow in what the model said. They are chosen by
the scores alone and never by the outcomes, which would make the reference look more certain than it is.

    binary with scores      stratum: bins of the score                              outcome: negative, positive
    other classes           stratum: bins of the probability of the predicted       outcome: wrong, right
                            class, or the predicted class where there are none
    regression              stratum: bins of the prediction                         outcome: bins of the residual
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts

LEAST_ROWS: Final = 200
"""Reference outcomes of a stratum, at least."""
MOST_SCORES: Final = 10
"""Strata of a score or a probability, at most."""
# A stratum of a regression has many outcomes, each of which widens what the reference can resolve.
_MOST_PREDICTIONS: Final = 5
_MOST_RESIDUALS: Final = 8
_WRONG_RIGHT: Final = ("wrong", "right")


class Strata:
    """How the counts of a binner go into S strata by O outcomes. Immutable.

    Args:
        binner: with a reference.
        reference: of the binner.

    Attributes:
        names: (S,) what the model said.
        outcomes: (O,) what became of it.
        ordered: whether the outcomes are in an order.

    """

    def __init__(self, binner: OutcomeBinner, reference: OutcomeCounts) -> None:
        self._binner = binner
        profile = binner.profile
        cells = self._cells(reference.bins)
        rows = cells.sum(axis=1)
        self.ordered = isinstance(profile, RegressionProfile)
        outcome_groups: Ints = np.arange(cells.shape[1])
        if isinstance(profile, RegressionProfile):
            groups = merged(rows, _midranks(rows), _MOST_PREDICTIONS)
            of_outcomes = cells.sum(axis=0)
            outcome_groups = merged(of_outcomes, _midranks(of_outcomes), _MOST_RESIDUALS)
            self.names = _open_spans(profile.prediction_edges, groups)
            self.outcomes = _open_spans(profile.residual_edges, outcome_groups)
        elif (edges := self._score_edges(profile)) is not None:
            groups = merged(rows, _stabilised(rows, self._score_sums(reference.sums), np.array(edges)), MOST_SCORES)
            self.names = tuple(f"{max(edges[i], 0.0):.3g}..{edges[j]:.3g}" for i, j in _spans(groups))
            self.outcomes = profile.classes if profile.task == "binary" else _WRONG_RIGHT
        else:
            groups, self.names = _of_classes(rows, binner.classes)
            self.outcomes = _WRONG_RIGHT
        self._into = (np.arange(len(self.names))[:, None] == groups).astype(np.float64)
        self._outcomes = (outcome_groups[:, None] == np.arange(len(self.outcomes))).astype(np.float64)

    def counts(self, bins: NDArray[Any]) -> Floats:
        """(S, O) counts, from the flat bins of the binner."""
        counts: Floats = self._into @ self._cells(bins) @ self._outcomes
        return counts

    def _cells(self, bins: NDArray[Any]) -> NDArray[Any]:
        """(G, O') counts in the finest bins of what the model said and of what became of it."""
        binner = self._binner
        if isinstance(binner.profile, RegressionProfile):
            return binner.residuals(bins)
        if binner.confidence_bins:
            confidences: Ints = binner.confidence(bins).sum(axis=0)
            return confidences
        if binner.profile.task == "binary" and binner.score_bins:
            return binner.scores(bins, 0)
        confusion = binner.confusion(bins)
        right = np.diagonal(confusion)
        return np.stack([confusion.sum(axis=1) - right, right], axis=1)

    def _score_edges(self, profile: ClassProfile) -> tuple[float, ...] | None:
        if self._binner.confidence_bins:
            return profile.confidence_edges
        return profile.score_edges[0] if profile.task == "binary" and profile.score_edges else None

    def _score_sums(self, sums: Floats) -> Floats:
        if self._binner.confidence_bins:
            total: Floats = self._binner.confidence_sums(sums).sum(axis=0)
            return total
        return self._binner.score_sums(sums, 0)


def merged(rows: NDArray[Any], values: Floats, most: int) -> Ints:
    """(G,) groups of neighbouring bins, ascending: at most so many, each with `LEAST_ROWS` if there are as many at all.

    The two neighbours are merged whose merging adds least to the variance within groups (Ward, "Hierarchical grouping
    to optimize an objective function", JASA 58, 1963), first of all those with too few rows.

    Args:
        rows: (G,) of each bin.
        values: (G,) what is to differ little within a group.
        most: number of groups.

    >>> merged(np.array([300, 300, 50, 500]), np.array([0.1, 0.2, 0.8, 0.9]), 2).tolist()
    [0, 0, 1, 1]

    """
    weights: Floats = rows.astype(np.float64)
    means: Floats = values.copy()
    sizes: Ints = np.ones(len(rows), np.int64)
    while len(weights) > 1:
        both = weights[:-1] + weights[1:]
        cost = weights[:-1] * weights[1:] / np.maximum(both, 1.0) * np.diff(means) ** 2
        few = weights < LEAST_ROWS
        if few.any():
            cost = np.where(few[:-1] | few[1:], cost, np.inf)
        elif len(weights) <= most:
            break
        i = int(cost.argmin())
        if both[i] > 0:
            means[i] = (weights[i] * means[i] + weights[i + 1] * means[i + 1]) / both[i]
        weights[i], sizes[i] = both[i], sizes[i] + sizes[i + 1]
        weights, means, sizes = np.delete(weights, i + 1), np.delete(means, i + 1), np.delete(sizes, i + 1)
    return np.repeat(np.arange(len(sizes)), sizes)


def _stabilised(rows: NDArray[Any], sums: Floats, edges: Floats) -> Floats:
    """(G,) mean scores, on the scale on which a share of so many rows has the same error everywhere: its arcsine."""
    means = np.where(rows > 0, sums / np.maximum(rows, 1), (edges[1:] + edges[:-1]) / 2)
    stabilised: Floats = np.arcsin(np.sqrt(np.clip(means, 0.0, 1.0)))
    return stabilised


def _midranks(rows: NDArray[Any]) -> Floats:
    """(G,) share of the rows in the bins before, and half of those in the bin."""
    midranks: Floats = (np.cumsum(rows) - rows / 2) / max(int(rows.sum()), 1)
    return midranks


def _of_classes(rows: NDArray[Any], classes: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """(K,) stratum of each predicted class, -1 for none, and names. Classes with few rows share one."""
    many = rows >= LEAST_ROWS
    groups = np.where(many, np.cumsum(many) - 1, -1)
    names = tuple(name for name, own in zip(classes, many.tolist(), strict=True) if own)
    if rows[~many].sum() >= LEAST_ROWS:
        groups[~many] = len(names)
        names = (*names, "other classes")
    return groups, names


def _spans(groups: Ints) -> list[tuple[int, int]]:
    """First bin, and the one after the last, of each group."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(groups)], strict=True))


def _open_spans(edges: Sequence[float], groups: Ints) -> tuple[str, ...]:
    """Names of groups of bins between inner edges, open at both ends."""
    ends = ("", *(f"{edge:.4g}" for edge in edges), "")
    return tuple(f"{ends[i]}..{ends[j]}" for i, j in _spans(groups))
