"""How good a model would be, without labels: what its scores have been worth in training is what they are worth now.

That is confidence-based performance estimation: scores are calibrated by isotonic regression on the training data, and
expected counts of right and wrong predictions take the place of counted ones (NannyML's documentation, "Estimation of
Performance of the Monitored Model"; Garg, Balakrishnan, Lipton, Neyshabur and Sedghi, "Leveraging unlabeled data to
predict out-of-distribution performance", ICLR 2022, for the idea and its limits). It sees what a change of the data
does to a model; it cannot see concept drift, where the same score is worth something else: that is what `gap` is for.
"""

import math
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
    ClassTotals,
    FigureValue,
    class_figures,
    roc_figures,
    scored_rows,
    without_debts,
)

MIN_REFERENCE: Final = 2000
"""Rows with labels and scores in the training data that an estimate takes."""
MIN_OF_CLASS: Final = 50
"""Of them, rows of a class, and of others, that its area takes; of a binary model everything."""
_ESTIMATED: Final = frozenset(("accuracy_ratio", "precision_ratio", "recall_ratio", "f1_ratio", "roc_auc_ratio"))
# Beyond so many outcomes without scores, estimates are not of the same predictions as what labels show.
_UNSCORED: Final = 0.01


class _Rates(msgspec.Struct, frozen=True):
    """What scores were worth in the training data.

    Attributes:
        of_class: scored class to (N,) share of that class per bin of its score.
        rare: scored classes that are too rare, or too common, for an area of their own.
        scored: share of the rows whose actual class is a scored one; of multiclass models.
        right: (K, N) share of right predictions by predicted class and bin of its probability; likewise.

    """

    of_class: dict[str, Floats]
    rare: frozenset[str]
    scored: float = 1.0
    right: Floats = msgspec.field(default_factory=lambda: np.empty((0, 0)))


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
        live, rate = binner.live_scores(scores, k), rates.of_class[name]
        cells[name] = np.stack([live * (1 - rate), live * rate], axis=1)
    if binner.profile.task == "binary":
        positive = cells[binner.scored[0]]
        # The edge just under the threshold is one of the bins: those from there on say the positive class.
        first = int(np.searchsorted(binner.profile.score_edges[0], np.nextafter(binner.profile.threshold, -np.inf)))
        totals = ClassTotals.of(np.stack([positive[:first].sum(axis=0), positive[first:].sum(axis=0)]))
    else:
        totals = _expected_totals(binner, binner.live_confidence(scores), cells, rates)
    of_area = {name: cell for name, cell in cells.items() if name not in rates.rare}
    values = class_figures(binner, totals) + roc_figures(binner, of_area)
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


def _expected_totals(binner: OutcomeBinner, live: Ints, cells: dict[str, Floats], rates: _Rates) -> ClassTotals:
    """Expected outcomes by class of a multiclass model.

    Args:
        binner: of the outcomes.
        live: (K, N) predictions by class and bin of its probability.
        cells: scored class to (N, 2) expected outcomes per bin of its score: of other classes, and of this one.
        rates: what scores were worth in the training data.

    """
    predicted = live.sum(axis=1)
    right = (live * rates.right).sum(axis=1)
    expected = np.array([cells[name][:, 1].sum() if name in cells else 0.0 for name in binner.classes])
    # Each class is calibrated by itself: only in training do they add up to one a prediction. They are made to.
    expected *= predicted.sum() * rates.scored / max(expected.sum(), 1.0)
    return ClassTotals(predicted, np.maximum(expected, right), right)


# -- of the training data ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _rates(binner: OutcomeBinner) -> _Rates | None:
    """What scores were worth in the training data; None where these have too few rows with labels."""
    reference, profile = binner.reference, binner.profile
    if reference is None or scored_rows(binner, reference.bins) < MIN_REFERENCE:
        return None
    assert isinstance(profile, ClassProfile)
    of_class, rare, actual = {}, set(), 0
    for k, name in enumerate(binner.scored):
        cells = binner.scores(reference.bins, k)
        others, own = cells.sum(axis=0)
        of_class[name] = hit_rates(cells, binner.score_sums(reference.sums, k), np.array(profile.score_edges[k]))
        actual += own
        if min(others, own) < MIN_OF_CLASS:
            rare.add(name)
    if profile.task == "binary":
        return None if rare else _Rates(of_class, frozenset())
    scored = actual / scored_rows(binner, reference.bins)
    return _Rates(of_class, frozenset(rare), scored, _right(binner, reference))


def _right(binner: OutcomeBinner, reference: OutcomeCounts) -> Floats:
    """(K, N) share of right predictions by predicted class and bin of its probability.

    Few rows tell little: the share of a class in a bin is drawn towards what all classes have there, moved by how much
    more often than all this class is right; and that towards 0. How much is told by how far classes and bins are apart
    beyond what chance explains: the variance between classes after DerSimonian and Laird (1986), Controlled Clinical
    Trials 7; that between bins as a beta-binomial distribution by moments, Williams (1982), Applied Statistics 31.
    """
    assert isinstance(binner.profile, ClassProfile)
    cells, sums = binner.confidence(reference.bins), binner.confidence_sums(reference.sums)
    of_all = hit_rates(cells.sum(axis=0), sums.sum(axis=0), np.array(binner.profile.confidence_edges))
    rows, hits = cells.sum(axis=2), cells[:, :, 1]
    excess = _excess((hits - rows * of_all).sum(axis=1), (rows * of_all * (1 - of_all)).sum(axis=1), rows.sum(axis=1))
    prior = np.clip(of_all + excess[:, None], 0.0, 1.0)
    weight = _rows_worth(rows, hits, prior)
    if weight == math.inf:
        return prior
    weights = rows + weight
    shares = (hits + weight * prior) / weights
    return np.stack([isotonic(*own) for own in zip(shares, weights, strict=True)])


def _excess(hits: Floats, variance: Floats, rows: Ints) -> Floats:
    """(K,) shares of hits of groups beyond what was expected, each drawn towards 0 by how little its rows tell.

    Args:
        hits: (K,) number of hits beyond what was expected.
        variance: (K,) variance of that number.
        rows: (K,) of the group.

    """
    drawn, known = np.zeros(len(hits)), variance > 0
    excess, weights = hits[known] / rows[known], rows[known] ** 2 / variance[known]
    total = float(weights.sum())
    beyond = float((weights * excess**2).sum()) - (len(excess) - 1)
    if beyond > 0 and len(excess) > 1:
        between = beyond / (total - float((weights**2).sum()) / total)
        drawn[known] = excess * between * weights / (1 + between * weights)
    return drawn


def _rows_worth(rows: Ints, hits: Ints, expected: Floats) -> float:
    """How many rows the expected shares of hits are worth, beside the counted ones; infinite where chance explains all.

    Args:
        rows: (K, N) of a class in a bin.
        hits: (K, N) of them.
        expected: (K, N) shares of hits, fitted to the sums over classes and over bins.

    """
    variance = rows * expected * (1 - expected)
    known = variance > 0
    square = float(((hits - rows * expected)[known] ** 2 / variance[known]).sum())
    free = int(known.sum() - known.any(axis=0).sum() - known.any(axis=1).sum() + 1)
    others = int((rows[known] - 1).sum())
    if square <= free or not others:
        return math.inf
    correlation = (square - free) / others
    return max(1.0, (1 - correlation) / correlation)


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
