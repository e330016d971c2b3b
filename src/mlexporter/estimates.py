"""How good a model would be, without labels: what its scores have been worth in training is what they are worth now.

That is confidence-based performance estimation: scores are calibrated by isotonic regression on the training data, and
expected counts of right and wrong predictions take the place of counted ones (NannyML's documentation, "Estimation of
Performance of the Monitored Model"; Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging unlabeled data to
predict out-of-distribution performance", ICLR 2022, for the idea and its limits). It sees what a change of the data
does to a model; it cannot see concept drift, where the same score is worth something else: that is what `gap` is for.
"""

from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.performance import (
    MACRO,
    MIN_OUTCOMES,
    WEIGHTED,
    FigureValue,
    confusion_figures,
    roc_figures,
    scored_rows,
    without_debts,
)

MIN_REFERENCE: Final = 2000
"""Rows with labels and scores in the training data that an estimate takes."""
MIN_OF_CLASS: Final = 50
"""Of them, rows of a class, and of others, that it takes to calibrate the score of that class."""
_ESTIMATED: Final = frozenset(("accuracy_ratio", "precision_ratio", "recall_ratio", "f1_ratio", "roc_auc_ratio"))
# Beyond so many outcomes without scores, estimates are not of the same predictions as what labels show.
_UNSCORED: Final = 0.01


class _Rates(msgspec.Struct, frozen=True):
    """What scores were worth in the training data.

    Attributes:
        of_class: scored class to (N,) share of that class per bin of its score; without classes that are too rare.
        right: (K, N) share of right predictions by predicted class and bin of its probability; of multiclass models.
        instead: (K, K) share of each actual class among the wrong predictions of each predicted class; likewise.

    """

    of_class: dict[str, Floats]
    right: Floats
    instead: Floats


def estimated(binner: OutcomeBinner, scores: Ints) -> list[FigureValue]:
    """What is expected of predictions without labels, from counts of `OutcomeBinner.count_scores`.

    Returns:
        The figures that can be estimated; none below `MIN_OUTCOMES` predictions with scores, or where the training data
        have too few rows with labels.

    """
    if not binner.scored or binner.live_scores(scores, 0).sum() < MIN_OUTCOMES or not (rates := _rates(binner)):
        return []
    assert isinstance(binner.profile, ClassProfile)
    cells: dict[str, Floats] = {}
    for k, name in enumerate(binner.scored):
        if (rate := rates.of_class.get(name)) is not None:
            live = binner.live_scores(scores, k)
            cells[name] = np.stack([live * (1 - rate), live * rate], axis=1)
    if binner.profile.task == "binary":
        positive = cells[binner.scored[0]]
        # The edge just under the threshold is one of the bins: those from there on say the positive class.
        first = int(np.searchsorted(binner.profile.score_edges[0], np.nextafter(binner.profile.threshold, -np.inf)))
        confusion = np.stack([positive[:first].sum(axis=0), positive[first:].sum(axis=0)])
    else:
        confusion = _expected_confusion(binner.live_confidence(scores), rates)
    values = confusion_figures(binner, confusion) + roc_figures(binner, cells)
    # The errors that counts would have are not those of an estimate.
    return [FigureValue(value.figure, value.of_class, value.value) for value in values if value.figure in _ESTIMATED]


def gap(binner: OutcomeBinner, counts: OutcomeCounts, shown: list[FigureValue]) -> list[FigureValue]:
    """What labels show less what is estimated, for the very same predictions: far from 0, a score is worth something
    else than it was in training, which is concept drift.

    Args:
        binner: of the outcomes.
        counts: of predictions and their labels.
        shown: figures of these counts.

    Returns:
        Of each figure that is both shown and estimated. The mean over classes is left out where the two are not over
        the same classes, and everything where more than one outcome in a hundred has no score.

    """
    counts = without_debts(counts)
    if not binner.scored or scored_rows(binner, counts.bins) < (1 - _UNSCORED) * counts.rows:
        return []
    expected = _by_name(estimated(binner, binner.score_counts(counts.bins)))
    found = _by_name(shown)
    values = []
    for (figure, name), value in found.items() if expected else ():
        # which classes a mean is over: for precision and recall, too, those that have an F1
        over = figure if figure == "roc_auc_ratio" else "f1_ratio"
        alike = name not in (MACRO, WEIGHTED) or _classes_with(over, found) == _classes_with(over, expected)
        if (figure, name) in expected and alike:
            values.append(FigureValue(figure, name, value - expected[figure, name]))
    return values


def _by_name(values: list[FigureValue]) -> dict[tuple[str, str | None], float]:
    return {(value.figure, value.of_class): value.value for value in values}


def _classes_with(figure: str, values: dict[tuple[str, str | None], float]) -> set[str | None]:
    return {name for of, name in values if of == figure}


def _expected_confusion(live: Ints, rates: _Rates) -> Floats:
    """(K, K) expected outcomes by predicted and actual class, of (K, N) predictions by class and bin of probability."""
    right = (live * rates.right).sum(axis=1)
    wrong = live.sum(axis=1) - right
    confusion: Floats = np.diag(right) + wrong[:, None] * rates.instead
    return confusion


# -- of the training data ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _rates(binner: OutcomeBinner) -> _Rates | None:
    """What scores were worth in the training data; None where these have too few rows with labels."""
    reference, profile = binner.reference, binner.profile
    if reference is None or scored_rows(binner, reference.bins) < MIN_REFERENCE:
        return None
    assert isinstance(profile, ClassProfile)
    of_class = {}
    for k, name in enumerate(binner.scored):
        cells = binner.scores(reference.bins, k)
        if cells.sum(axis=0).min() >= MIN_OF_CLASS:
            sums = binner.score_sums(reference.sums, k)
            of_class[name] = hit_rates(cells, sums, np.array(profile.score_edges[k]))
    if profile.task == "binary":
        return _Rates(of_class, np.empty((0, 0)), np.empty((0, 0))) if of_class else None
    return _Rates(of_class, _right(binner, reference), _instead(binner.confusion(reference.bins)))


def _right(binner: OutcomeBinner, reference: OutcomeCounts) -> Floats:
    """(K, N) share of right predictions by predicted class and bin; of all classes where one was rarely predicted."""
    assert isinstance(binner.profile, ClassProfile)
    edges = np.array(binner.profile.confidence_edges)
    cells, sums = binner.confidence(reference.bins), binner.confidence_sums(reference.sums)
    of_all = hit_rates(cells.sum(axis=0), sums.sum(axis=0), edges)
    return np.stack(
        [
            hit_rates(own, own_sums, edges) if own.sum() >= MIN_OF_CLASS else of_all
            for own, own_sums in zip(cells, sums, strict=True)
        ]
    )


def _instead(confusion: Ints) -> Floats:
    """(K, K) share of each actual class among the wrong predictions of each; of all rows where none was wrong."""
    off = ~np.eye(len(confusion), dtype=np.bool_)
    wrong = np.where(off, confusion, 0).astype(np.float64)
    none = wrong.sum(axis=1) == 0
    # half a row each, so that there is a class to be instead of even the only one
    wrong[none] = np.where(off, confusion.sum(axis=0) + 0.5, 0.0)[none]
    shares: Floats = wrong / wrong.sum(axis=1, keepdims=True)
    return shares


def hit_rates(cells: Ints, sums: Floats, edges: Floats) -> Floats:
    """Share of hits per bin, made to rise with the mean score; between its neighbours' where a bin is empty.

    Args:
        cells: (N, 2) misses and hits per bin, of which some is not empty.
        sums: (N,) sums of the scores.
        edges: the N+1 edges.

    """
    rows = cells.sum(axis=1)
    filled = rows > 0
    scores = np.where(filled, sums / np.maximum(rows, 1), (edges[1:] + edges[:-1]) / 2)
    rates: Floats = np.interp(scores, scores[filled], isotonic(cells[filled, 1] / rows[filled], rows[filled]))
    return rates


def isotonic(values: Floats, weights: Ints | Floats) -> Floats:
    """The ascending values nearest to these, by weighted squares: pool adjacent violators.

    Barlow, Bartholomew, Bremner and Brunk (1972), Statistical Inference under Order Restrictions.

    >>> isotonic(np.array([1.0, 3.0, 2.0, 4.0]), np.array([1, 1, 3, 1])).tolist()
    [1.0, 2.25, 2.25, 4.0]
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, length = value, 1
        while blocks and blocks[-1][0] >= mean:
            before, before_weight, before_length = blocks.pop()
            mean = (before * before_weight + mean * weight) / (before_weight + weight)
            weight, length = weight + before_weight, length + before_length
        blocks.append((mean, weight, length))
    return np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])
