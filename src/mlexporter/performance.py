"""How good a model is, as labels show: counts of outcomes to accuracy, areas under curves, losses and errors.

Figures of classes follow scikit-learn's definitions. A figure that cannot be had, such as recall where no outcome is
positive, is absent; it is never 0 or NaN for that. No clock, no state.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile
from mlexporter.outcomes import RESIDUAL_SUMS, OutcomeBinner, OutcomeCounts
from mlexporter.score_edges import STANDARD_SCORE_EDGES

MIN_OUTCOMES: Final = 200
"""Below so many rows a figure is more noise than news."""
MACRO: Final = "__macro__"
WEIGHTED: Final = "__weighted__"
# Estimates count parts of rows: a class of which less than half a row is expected most likely has none.
_PRESENT: Final = 0.5
# Labels vary if their spread is more than the rounding of its sum.
_VARIES: Final = 1e-9


class FigureValue(msgspec.Struct, frozen=True):
    """What a figure comes to.

    Attributes:
        figure: as in the table of figures.
        of_class: None for the model as a whole, or the positive class of a binary one; else a class, or `MACRO` (the
            mean over the classes) or `WEIGHTED` (the same, by how many rows each class has).
        value: as the figure's name says: a share, nats, or in units of the label.
        standard_error: sampling error of the value as a standard deviation; NaN where none is given.

    """

    figure: str
    of_class: str | None
    value: float
    standard_error: float = math.nan


class ClassTotals(msgspec.Struct, frozen=True):
    """(K,) outcomes per class: whole numbers, or expected ones.

    Attributes:
        predicted: of which it was the predicted class.
        actual: of which it was the actual one.
        right: of which it was both.

    """

    predicted: Ints | Floats
    actual: Ints | Floats
    right: Ints | Floats

    @classmethod
    def of(cls, confusion: Ints | Floats) -> "ClassTotals":
        """Of (K, K) outcomes by predicted and actual class."""
        return cls(confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal())


def realised(binner: OutcomeBinner, counts: OutcomeCounts) -> list[FigureValue]:
    """What labels show.

    Returns:
        The figures that can be had: none below `MIN_OUTCOMES` rows, and none that takes scores below so many with them.

    """
    if counts.rows < MIN_OUTCOMES:
        return []
    if not isinstance(binner.profile, ClassProfile):
        return _error_figures(dict(zip(RESIDUAL_SUMS, counts.sums.tolist(), strict=True)), counts.rows)
    counts = without_debts(counts)
    values = class_figures(binner, ClassTotals.of(binner.confusion(counts.bins)))
    if scored_rows(binner, counts.bins) >= MIN_OUTCOMES:
        cells = {name: binner.scores(counts.bins, k) for k, name in enumerate(binner.scored)}
        values += roc_figures(binner, cells)
        values += _average_precisions(binner, cells)
        values += _loss_figures(binner, counts)
    return values


def without_debts(counts: OutcomeCounts) -> OutcomeCounts:
    """Counts of which none is under 0, as it is where a correction took back what was counted before the window."""
    return msgspec.structs.replace(counts, bins=np.maximum(counts.bins, 0))


def scored_rows(binner: OutcomeBinner, bins: Ints) -> int:
    """How many of the outcomes have scores."""
    return int(binner.scores(bins, 0).sum()) if binner.scored else 0


def _is_binary(binner: OutcomeBinner) -> bool:
    return isinstance(binner.profile, ClassProfile) and binner.profile.task == "binary"


def _averages(figure: str, values: Floats, rows: Ints | Floats) -> list[FigureValue]:
    """The means of the values of classes that have so many rows."""
    return [
        FigureValue(figure, MACRO, float(values.mean())),
        FigureValue(figure, WEIGHTED, float((values * rows).sum() / rows.sum())),
    ]


# -- of predicted and actual classes ----------------------------------------------------------------------------------


def class_figures(binner: OutcomeBinner, totals: ClassTotals) -> list[FigureValue]:
    """Accuracy, precision, recall and F1.

    In the means over the classes the precision of a class that was never predicted is 0, as is the recall of one that
    never was actual; a class that was neither is left out.

    Args:
        binner: of the outcomes.
        totals: outcomes by class.

    """
    said, actual, right = totals.predicted, totals.actual, totals.right
    all_right, rows = right.sum(keepdims=True), said.sum(keepdims=True)
    values = [
        FigureValue("accuracy_ratio", None, float((all_right / rows)[0]), float(_share_error(all_right, rows)[0]))
    ]
    present = said + actual >= _PRESENT
    for figure, hits, of in (
        ("precision_ratio", right, said),
        ("recall_ratio", right, actual),
        ("f1_ratio", 2 * right, said + actual),
    ):
        had = of >= _PRESENT
        of = np.where(had, of, 1)
        shares, errors = np.where(had, hits / of, 0.0), _share_error(hits, of)
        if figure == "f1_ratio":
            # The delta method on TP, FP and FN gives F (1 - F) (2 - F) / (2 TP + FP + FN) as the variance.
            errors = errors * np.sqrt(2 - shares)
        if _is_binary(binner):
            values += [FigureValue(figure, None, float(shares[1]), float(errors[1]))] if had[1] else []
            continue
        each = zip(binner.classes, shares.tolist(), errors.tolist(), had.tolist(), strict=True)
        values += [FigureValue(figure, name, share, error) for name, share, error, exists in each if exists]
        values += _averages(figure, shares[present], actual[present])
    return values


def _share_error(hits: Ints | Floats, of: Ints | Floats) -> Floats:
    """Standard error of hits / of, from the binomial distribution.

    Where the share is 0 or 1 it is taken as (hits + 1/2) / (of + 1) for that: all of few is not certainty.
    """
    extreme = (hits <= 0) | (hits >= of)
    share = np.where(extreme, (hits + 0.5) / (of + 1.0), hits / of)
    error: Floats = np.sqrt(share * (1 - share) / of)
    return error


# -- of scores --------------------------------------------------------------------------------------------------------


def roc_figures(binner: OutcomeBinner, cells: Mapping[str, Ints | Floats]) -> list[FigureValue]:
    """The area under the ROC curve of each class against all others, and how far it may be off for the bins.

    Args:
        binner: of the outcomes.
        cells: scored class to (N, 2) outcomes per bin of its score: of other classes, and of this one. A class of which
            there is no outcome, or nothing else, has no area.

    """
    areas = {name: _area(cell[:, 1], cell[:, 0]) for name, cell in cells.items() if _both(cell)}
    values = [FigureValue("roc_auc_ratio", name, area, error) for name, (area, _, error) in areas.items()]
    values += [FigureValue("roc_auc_error_bound_ratio", name, bound) for name, (_, bound, _) in areas.items()]
    if _is_binary(binner):
        return [FigureValue(value.figure, None, value.value, value.standard_error) for value in values]
    if areas:
        rows = np.array([cells[name][:, 1].sum() for name in areas])
        table = np.array(list(areas.values()))
        values += _averages("roc_auc_ratio", table[:, 0], rows)
        values += _averages("roc_auc_error_bound_ratio", table[:, 1], rows)
    return values


def _both(cell: Ints | Floats) -> bool:
    """Whether there are outcomes of the class and others."""
    return bool((cell.sum(axis=0) >= _PRESENT).all())


def _area(positives: Ints | Floats, negatives: Ints | Floats) -> tuple[float, float, float]:
    """The area under the ROC curve where scores in one bin are tied, its distance at most to that of the scores
    themselves, and its standard error.

    The error is that of DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44(3), 837-845, exact for scores that are
    tied in this way. Where it is 0, as for classes that are wholly apart, it is at most sqrt(A (1 - A) / min(P, N)) for
    an area A, which is smoothed as a share of so many is. NaN where there are fewer than two of either class.
    """
    p, n = float(positives.sum()), float(negatives.sum())
    # Share of the negatives that lie under a positive of each bin, and of the positives above a negative.
    under = (np.cumsum(negatives) - negatives / 2) / n
    above = 1 - (np.cumsum(positives) - positives / 2) / p
    area = float(positives @ under) / p
    bound = float(positives @ negatives) / (2 * p * n)
    if min(p, n) < 2:
        return area, bound, math.nan
    variance = float(positives @ (under - area) ** 2) / (p * (p - 1)) + float(negatives @ (above - area) ** 2) / (
        n * (n - 1)
    )
    few = min(p, n)
    if variance * few < np.finfo(np.float64).eps:
        smooth = (area * few + 0.5) / (few + 1)
        variance = smooth * (1 - smooth) / few
    return area, bound, math.sqrt(variance)


def _average_precisions(binner: OutcomeBinner, cells: Mapping[str, Ints]) -> list[FigureValue]:
    """Average precision of each class where scores in one bin are tied."""
    precisions = {}
    for name, cell in cells.items():
        if _both(cell):
            negatives, positives = np.cumsum(cell[::-1], axis=0).T
            precision = positives / np.maximum(positives + negatives, 1)
            precisions[name] = float(cell[::-1, 1] @ precision) / float(positives[-1])
    if _is_binary(binner):
        return [FigureValue("pr_auc_ratio", None, value) for value in precisions.values()]
    values = [FigureValue("pr_auc_ratio", name, value) for name, value in precisions.items()]
    if values:
        rows = np.array([cells[name][:, 1].sum() for name in precisions])
        values += _averages("pr_auc_ratio", np.array(list(precisions.values())), rows)
    return values


def _loss_figures(binner: OutcomeBinner, counts: OutcomeCounts) -> list[FigureValue]:
    """Log loss, Brier score and calibration error, of the outcomes with scores."""
    profile = binner.profile
    assert isinstance(profile, ClassProfile)
    rows = scored_rows(binner, counts.bins)
    log_loss, squares = binner.losses(counts.sums)
    if profile.task == "binary":
        edges, cells, sums = profile.score_edges[0], binner.scores(counts.bins, 0), binner.score_sums(counts.sums, 0)
    else:
        edges = profile.confidence_edges
        cells, sums = binner.confidence(counts.bins).sum(axis=0), binner.confidence_sums(counts.sums).sum(axis=0)
    return [
        FigureValue("log_loss", None, log_loss / rows),
        FigureValue("brier_score", None, squares / rows),
        FigureValue("calibration_error_ratio", None, _calibration_error(np.array(edges), cells, sums)),
    ]


def _calibration_error(edges: Floats, cells: Ints, sums: Floats) -> float:
    """Expected calibration error over ten bins: how far shares of hits are from mean scores, by rows.

    Naeini, Cooper and Hauskrecht (2015), AAAI. Exact where 0.1, 0.2, ... 0.9 are among the edges; else a bin that one
    of them cuts goes where its mean score is.
    """
    rows = cells.sum(axis=1)
    means = np.divide(sums, rows, out=edges[1:].copy(), where=rows > 0)
    # The mean of equal scores may come out beside them, so it is kept in its bin.
    means = np.clip(means, np.nextafter(edges[:-1], np.inf), edges[1:])
    tenths = np.searchsorted(STANDARD_SCORE_EDGES, means)
    return float(np.abs(np.bincount(tenths, sums - cells[:, 1])).sum() / rows.sum())


# -- of numbers -------------------------------------------------------------------------------------------------------


def _error_figures(sums: Mapping[str, float], rows: int) -> list[FigureValue]:
    """The errors of predicted numbers, from the sums that `RESIDUAL_SUMS` names.

    The standard error of the root of a mean is by the delta method that of the mean by twice the root.
    """
    absolute, bias = (sums["over"] + sums["under"]) / rows, (sums["over"] - sums["under"]) / rows
    square = sums["squared"] / rows
    root = math.sqrt(max(square, 0.0))
    square_error = _mean_error(square, sums["fourth"] / rows, rows)
    values = [
        FigureValue("mean_absolute_error", None, absolute, _mean_error(absolute, square, rows)),
        FigureValue("root_mean_squared_error", None, root, square_error / (2 * root) if root else 0.0),
        FigureValue("mean_error", None, bias, _mean_error(bias, square, rows)),
    ]
    shift = sums["label_over"] - sums["label_under"]
    spread = sums["label_squared"] - shift**2 / rows
    if spread > _VARIES * sums["label_squared"]:
        values.append(FigureValue("r2_ratio", None, 1 - sums["squared"] / spread))
    if sums["percentages"] > 0:
        share = sums["percentage"] / sums["percentages"]
        values.append(FigureValue("mean_absolute_percentage_error_ratio", None, share))
    return values


def _mean_error(mean: float, square: float, rows: int) -> float:
    """Standard error of a mean of values whose squares have this mean."""
    return math.sqrt(max(square - mean**2, 0.0) / rows)
