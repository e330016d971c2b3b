"""Outcomes, which are predictions with their true label, to counts that add. No clock and no lock here.

All counts of a model version lie in one flat vector of whole numbers and one of sums:

    classification  confusion, predicted by actual | per scored class: bins by (another class, this class)
                    | predicted by bins of its probability by (wrong, right)
        sums        per scored class: scores per bin | predicted by bins: probabilities | log loss | squared error
    regression      bins of the prediction by bins of the residual
        sums        as `RESIDUAL_SUMS`

A score enters the bin (edge, next edge]. What cannot be used, such as a label that is no class of a binary model, is
counted as invalid and nowhere else.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.baseline import LARGEST
from mlexporter.binning import Bools, floats_of, to_floats
from mlexporter.categories import is_reserved, shorten
from mlexporter.class_lookup import NO_CLASS, ClassLookup
from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile

RESIDUAL_SUMS: Final = (
    "over",  # of residuals (prediction less label) above 0
    "under",  # of residuals below 0, without their sign
    "squared",  # of squared residuals
    "fourth",  # of the fourth powers of residuals
    "percentage",  # of |residual / label| where the label is not 0
    "percentages",  # how many those are
    "label_over",  # of labels less the profile's centre, above 0
    "label_under",  # the same below 0, without their sign
    "label_squared",  # of their squares
)
# The fourth power of a residual must not overflow, nor the sum of many.
_LARGEST_RESIDUAL: Final = math.sqrt(LARGEST) / 2
# As scikit-learn has it for numbers of double precision: a certain prediction that is wrong costs 36, not infinity.
LOG_LOSS_CLIP: Final = float(np.finfo(np.float64).eps)


class OutcomeCounts(msgspec.Struct, frozen=True):
    """What was counted of a number of outcomes, in the layout of their binner; they add.

    Attributes:
        bins, sums: flat.
        rows: number of outcomes, invalid ones not among them.
        invalid: number of predictions or labels that the task cannot use.

    """

    bins: Ints
    sums: Floats
    rows: int
    invalid: int

    def __add__(self, other: "OutcomeCounts") -> "OutcomeCounts":
        """The counts of both together."""
        return OutcomeCounts(
            self.bins + other.bins, self.sums + other.sums, self.rows + other.rows, self.invalid + other.invalid
        )


class OutcomeBinner:
    """Counts outcomes in the bins of a profile. Immutable once made, so any thread may use it.

    Attributes:
        profile: of the outcomes.
        classes: predicted and actual ones, `__other__` among them for a multiclass model; () for regression. One whose
            name belongs to the exporter, such as `__macro__`, is marked.
        scored: the classes that have scores, likewise.
        score_bins, confidence_bins: numbers of bins, per scored class and of the probability of the predicted one.
        reference: what was counted of the training data; None where nobody has labels for them.
        fingerprint: of the profile: counts of equal fingerprints add.

    """

    def __init__(self, profile: OutcomeProfile) -> None:
        self.profile = profile
        # both are asked for with each scrape or write, and take longer to make than what is done with them
        self.reference = _counts_of(profile) if profile.rows else None
        self.fingerprint = hashlib.sha256(msgspec.json.encode(profile)).hexdigest()[:16]
        if isinstance(profile, ClassProfile):
            other = ("__other__",) if profile.task == "multiclass" else ()
            named = tuple(shorten(name) if is_reserved(name) else name for name in profile.classes)
            self.classes: tuple[str, ...] = (*named, *other)
            self._class_of = ClassLookup(profile.classes, others=bool(other))
            self._edges = [np.asarray(edges) for edges in profile.score_edges]
            self._confidence_edges = np.asarray(profile.confidence_edges)
            self.score_bins: tuple[int, ...] = tuple(len(edges) - 1 for edges in profile.score_edges)
            self.confidence_bins = max(len(profile.confidence_edges) - 1, 0)
            begin = len(named) - len(self.score_bins)
            self.scored, self._given = named[begin:], profile.classes[begin:]
        else:
            self.classes, self.scored, self.score_bins, self.confidence_bins = (), (), (), 0
            self._prediction_edges = np.asarray(profile.prediction_edges, dtype=np.float64)
            self._residual_edges = np.asarray(profile.residual_edges, dtype=np.float64)
        self._score_starts = np.concatenate([[0], np.cumsum(self.score_bins)]).astype(np.int64)
        self._scores_at = len(self.classes) ** 2
        self._confidence_at = self._scores_at + 2 * int(self._score_starts[-1])

    def zero(self) -> OutcomeCounts:
        """The counts of no outcomes."""
        if isinstance(self.profile, RegressionProfile):
            bins = (len(self._prediction_edges) + 1) * (len(self._residual_edges) + 1)
            return OutcomeCounts(np.zeros(bins, np.int64), np.zeros(len(RESIDUAL_SUMS)), 0, 0)
        confidences = len(self.classes) * self.confidence_bins
        sums = int(self._score_starts[-1]) + confidences + 2
        return OutcomeCounts(np.zeros(self._confidence_at + 2 * confidences, np.int64), np.zeros(sums), 0, 0)

    def zero_scores(self) -> Ints:
        """The scores of no predictions, as `count_scores` counts them."""
        return np.zeros(int(self._score_starts[-1]) + len(self.classes) * self.confidence_bins, np.int64)

    # -- counting -----------------------------------------------------------------------------------------------------

    def count(self, predictions: Sequence[object], labels: Sequence[object]) -> OutcomeCounts:
        """Count outcomes.

        Args:
            predictions: as they were sent: numbers, classes, or objects of class to probability.
            labels: numbers, texts or booleans.

        """
        if isinstance(self.profile, RegressionProfile):
            return self._count_residuals(predictions, labels)
        read = self._read(predictions)
        actual = self._class_of.indices(labels)
        usable = (read.predicted != NO_CLASS) & (actual != NO_CLASS)
        read, actual = read.of(usable), actual[usable]
        predicted = read.predicted
        counts = self.zero()
        width = len(self.classes)
        counts.bins[: self._scores_at] = np.bincount(predicted * width + actual, minlength=width * width)
        if self.score_bins:
            self._count_scored(counts, read.of(read.scored), actual[read.scored])
        return OutcomeCounts(counts.bins, counts.sums, len(predicted), len(labels) - len(predicted))

    def _count_scored(self, counts: OutcomeCounts, read: "_Read", actual: Ints) -> None:
        """Add outcomes with scores to counts, in place."""
        if not len(actual):
            return
        predicted, scores, confidence = read.predicted, read.scores, read.confidence
        first = len(self.classes) - len(self.scored) - self._class_of.others
        truth = actual[:, None] == np.arange(first, first + len(self.scored))
        bins, sums = counts.bins, counts.sums
        for k, edges in enumerate(self._edges):
            index = _bin(edges, scores[:, k])
            begin, end = self._score_starts[k], self._score_starts[k + 1]
            cells = np.bincount(2 * index + truth[:, k], minlength=2 * int(end - begin))
            bins[self._scores_at + 2 * begin : self._scores_at + 2 * end] = cells
            sums[begin:end] = np.bincount(index, scores[:, k], int(end - begin))
        if self.confidence_bins:
            index = predicted * self.confidence_bins + _bin(self._confidence_edges, confidence)
            size = len(self.classes) * self.confidence_bins
            bins[self._confidence_at :] = np.bincount(2 * index + (predicted == actual), minlength=2 * size)
            sums[self._score_starts[-1] : -2] = np.bincount(index, confidence, size)
        of_truth = np.where(truth, scores, 0.0).sum(axis=1)
        if len(self.scored) == 1:
            of_truth = np.where(truth[:, 0], scores[:, 0], 1.0 - scores[:, 0])
        sums[-2] = -np.log(np.clip(of_truth, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)).sum()
        sums[-1] = ((scores - truth) ** 2).sum()

    def _count_residuals(self, predictions: Sequence[object], labels: Sequence[object]) -> OutcomeCounts:
        predicted, actual = floats_of(predictions), floats_of(labels)
        usable = np.isfinite(predicted) & np.isfinite(actual)
        predicted = np.clip(predicted[usable], -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
        actual = np.clip(actual[usable], -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
        residual = predicted - actual
        width = len(self._residual_edges) + 1
        cells = width * self._prediction_edges.searchsorted(predicted) + self._residual_edges.searchsorted(residual)
        assert isinstance(self.profile, RegressionProfile)
        label = actual - self.profile.centre
        with np.errstate(over="ignore"):
            share = np.abs(residual[actual != 0] / actual[actual != 0])
        sums = np.array(
            [
                residual[residual > 0].sum(),
                -residual[residual < 0].sum(),
                (residual**2).sum(),
                (residual**4).sum(),
                np.minimum(share, LARGEST).sum(),
                len(share),
                label[label > 0].sum(),
                -label[label < 0].sum(),
                (label**2).sum(),
            ]
        )
        bins = np.bincount(cells, minlength=width * (len(self._prediction_edges) + 1))
        return OutcomeCounts(bins, sums, len(residual), len(labels) - len(residual))

    def count_scores(self, predictions: Sequence[object]) -> Ints:
        """Count the scores of predictions, with labels or without: per scored class; and predicted class by bin."""
        counts = self.zero_scores()
        if not self.score_bins:
            return counts
        read = self._read(predictions)
        read = read.of(read.scored)
        for k, edges in enumerate(self._edges):
            begin, end = self._score_starts[k], self._score_starts[k + 1]
            counts[begin:end] = np.bincount(_bin(edges, read.scores[:, k]), minlength=int(end - begin))
        if self.confidence_bins:
            index = read.predicted * self.confidence_bins + _bin(self._confidence_edges, read.confidence)
            counts[self._score_starts[-1] :] = np.bincount(index, minlength=len(self.classes) * self.confidence_bins)
        return counts

    def read_scores(self, predictions: Sequence[object]) -> Floats:
        """(n, scored classes) scores that predictions give, NaN where they give none."""
        return self._read(predictions).scores

    def wrongness(self, predictions: Sequence[object], labels: Sequence[object]) -> Floats:
        """(n,) how wrong each prediction is: 0 or 1 of a class, the distance of a number; NaN where it is unusable."""
        if isinstance(self.profile, RegressionProfile):
            return np.abs(floats_of(predictions) - floats_of(labels))
        predicted, actual = self._read(predictions).predicted, self._class_of.indices(labels)
        usable = (predicted != NO_CLASS) & (actual != NO_CLASS)
        return np.where(usable, (predicted != actual).astype(np.float64), np.nan)

    def said(self, predictions: Sequence[object]) -> Ints:
        """(n,) which class, or bin of a number, each prediction says; -1 where it is unusable."""
        if isinstance(self.profile, RegressionProfile):
            values = floats_of(predictions)
            return np.where(np.isfinite(values), self._prediction_edges.searchsorted(values), NO_CLASS)
        return self._read(predictions).predicted

    # -- reading predictions and labels -------------------------------------------------------------------------------

    def _read(self, predictions: Sequence[object]) -> "_Read":
        """Classes and scores that predictions give."""
        if len(self.scored) == 1:
            return self._read_binary(predictions)
        n, width = len(predictions), len(self.scored)
        predicted, scores, confidence = np.full(n, NO_CLASS, np.int64), np.full((n, width), np.nan), np.full(n, np.nan)
        rows: list[int] = []
        given = []
        for i, value in enumerate(predictions):
            if not isinstance(value, dict):
                predicted[i] = self._class_of.index(value)
            elif _are_probabilities(value.values()):
                top = max(value, key=value.__getitem__)
                predicted[i], confidence[i] = self._class_of.index(top), value[top]
                rows.append(i)
                given.append([value.get(name, 0.0) for name in self._given])
        if width and rows:
            scores[rows] = given
        return _Read(predicted, scores, confidence)

    def _read_binary(self, predictions: Sequence[object]) -> "_Read":
        assert isinstance(self.profile, ClassProfile)
        scores = np.empty(len(predictions))
        wrong = to_floats(predictions, scores)
        predicted = np.full(len(predictions), NO_CLASS, np.int64)
        if wrong:  # classes, or objects of class to probability
            for i in np.flatnonzero(np.isnan(scores)).tolist():
                value = predictions[i]
                if isinstance(value, dict):
                    scores[i] = self._positive_probability(value)
                else:
                    predicted[i] = self._class_of.index(value)
        with np.errstate(invalid="ignore"):
            inside = (scores >= 0) & (scores <= 1)
        scores[~inside] = np.nan
        predicted[inside] = scores[inside] >= self.profile.threshold
        return _Read(predicted, scores[:, None], np.maximum(scores, 1.0 - scores))

    def _positive_probability(self, probabilities: Mapping[Any, Any]) -> float:
        by_class = {self._class_of.index(name): value for name, value in probabilities.items()}
        value = by_class.get(1)
        if value is None and (against := by_class.get(0)) is not None and isinstance(against, int | float):
            value = 1.0 - against
        return float(value) if isinstance(value, int | float) and abs(value) <= 1 else math.nan

    # -- views of the flat vectors ------------------------------------------------------------------------------------

    def confusion(self, bins: Ints) -> Ints:
        """(K, K) outcomes by predicted and actual class, in the order of `classes`."""
        return bins[: self._scores_at].reshape(len(self.classes), len(self.classes))

    def scores(self, bins: Ints, k: int) -> Ints:
        """(N, 2) outcomes by bin of the score of the k-th scored class: of another class, and of this one."""
        begin, end = (self._scores_at + 2 * int(start) for start in self._score_starts[k : k + 2])
        return bins[begin:end].reshape(-1, 2)

    def score_sums(self, sums: Floats, k: int) -> Floats:
        """(N,) sums of the scores of the k-th scored class per bin."""
        return sums[self._score_starts[k] : self._score_starts[k + 1]]

    def confidence(self, bins: Ints) -> Ints:
        """(K, N, 2) outcomes by predicted class and bin of its probability: wrong, and right."""
        return bins[self._confidence_at :].reshape(len(self.classes), self.confidence_bins, 2)

    def confidence_sums(self, sums: Floats) -> Floats:
        """(K, N) sums of the probabilities of the predicted class."""
        return sums[self._score_starts[-1] : -2].reshape(len(self.classes), self.confidence_bins)

    def losses(self, sums: Floats) -> tuple[float, float]:
        """Sum of the log loss, and of the squared distances of the scores from 0 and 1, over the scored outcomes."""
        return float(sums[-2]), float(sums[-1])

    def live_scores(self, scores: Ints, k: int) -> Ints:
        """(N,) predictions by bin of the score of the k-th scored class, of what `count_scores` gave."""
        return scores[self._score_starts[k] : self._score_starts[k + 1]]

    def live_confidence(self, scores: Ints) -> Ints:
        """(K, N) predictions by predicted class and bin of its probability, of what `count_scores` gave."""
        return scores[self._score_starts[-1] :].reshape(len(self.classes), self.confidence_bins)

    def of_window(self, bins: Ints, sums: Floats) -> OutcomeCounts:
        """Counts of a window, with their number of rows."""
        of_rows = bins[: self._scores_at] if self.classes else bins
        return OutcomeCounts(bins, sums, int(of_rows.sum()), 0)

    def score_counts(self, bins: Ints) -> Ints:
        """What `count_scores` would give for the predictions of these outcomes that have scores."""
        counts: Ints = bins[self._scores_at :].reshape(-1, 2).sum(axis=1)
        return counts

    def residuals(self, bins: Ints) -> Ints:
        """(S, O) outcomes of a regression by bin of the prediction and bin of the residual."""
        return bins.reshape(len(self._prediction_edges) + 1, len(self._residual_edges) + 1)


def _counts_of(profile: OutcomeProfile) -> OutcomeCounts:
    """What a profile tells of the training data, as arrays that nobody changes."""
    bins, sums = np.array(profile.bins, np.int64), np.array(profile.sums, np.float64)
    bins.flags.writeable = sums.flags.writeable = False
    return OutcomeCounts(bins, sums, profile.rows, 0)


class _Read(msgspec.Struct, frozen=True):
    """Predictions as arrays.

    Attributes:
        predicted: (n,) class, -1 where unusable.
        scores: (n, scored classes), NaN where there are none.
        confidence: (n,) probability of the predicted class, which need not be a scored one; NaN likewise.

    """

    predicted: Ints
    scores: Floats
    confidence: Floats

    @property
    def scored(self) -> Bools:
        """(n,) whether a prediction has scores."""
        scored: Bools = (self.predicted != NO_CLASS) & ~np.isnan(self.scores).any(axis=1)
        return scored

    def of(self, rows: Bools) -> "_Read":
        """Those of some rows."""
        return _Read(self.predicted[rows], self.scores[rows], self.confidence[rows])


def _are_probabilities(given: Collection[Any]) -> bool:
    """Whether there are any, and all are numbers from 0 to 1; many times as fast as by an array for each prediction."""
    try:
        return len(given) > 0 and min(given) >= 0 and max(given) <= 1 and not math.isnan(sum(given))
    except TypeError:  # null, or a text
        return False


def _bin(edges: Floats, values: Floats) -> NDArray[np.intp]:
    """The bin (edge, next edge] of values within the edges."""
    return np.clip(edges.searchsorted(values, side="left") - 1, 0, len(edges) - 2)
