"""The metrics of what labels tell: counts of outcomes, performance, concept drift, versions side by side."""

from typing import Final

import msgspec

from mlexporter.metrics.metric import Metric

_VERSION: Final = ("model", "version")

# Predictions and their true labels.
LABELS = Metric("mlexporter_labels_total", "counter", "Labels that found their prediction, or came with it.", _VERSION)
LABELS_CORRECTED = Metric(
    "mlexporter_labels_corrected_total", "counter", "Labels that replaced an earlier label.", _VERSION
)
LABELS_REPEATED = Metric(
    "mlexporter_labels_repeated_total", "counter", "Labels that said again what was known; they count once.", _VERSION
)
LABELS_INVALID = Metric(
    "mlexporter_labels_invalid_total",
    "counter",
    "Labels that the task of the model cannot use, or whose prediction it cannot.",
    _VERSION,
)
LABELS_UNMATCHED = Metric(
    "mlexporter_labels_unmatched_total",
    "counter",
    "Labels that were given up without a prediction: after an hour, or beyond the limit on rows.",
    ("model", "reason"),
)
LABELS_WAITING = Metric("mlexporter_labels_waiting", "gauge", "Labels that wait for their prediction.", ("model",))
LAST_LABEL = Metric(
    "mlexporter_last_label_timestamp_seconds", "gauge", "Unix time of the last label that was counted.", _VERSION
)
LABEL_DELAY = Metric(
    "mlexporter_label_delay_seconds", "histogram", "Time from a prediction to its label, of labels by id.", _VERSION
)
PREDICTIONS_TRACKED = Metric(
    "mlexporter_predictions_tracked_total", "counter", "Predictions with an id, which their label can find.", _VERSION
)
PREDICTIONS_PENDING = Metric("mlexporter_predictions_pending", "gauge", "Predictions that wait for a label.", _VERSION)
PREDICTIONS_EXPIRED = Metric(
    "mlexporter_predictions_expired_total",
    "counter",
    "Predictions that were given up without a label: beyond labels.horizon, or beyond the limit on rows.",
    (*_VERSION, "reason"),
)

# Counts of outcomes, a prediction and its label each, which add up over replicas and time. What a correction takes back
# is counted apart, for a counter must not fall.
OUTCOMES = Metric(
    "mlexporter_outcomes_total",
    "counter",
    "Labelled predictions of a classifier, by predicted and actual class.",
    (*_VERSION, "predicted", "actual"),
)
SCORE_BIN = Metric(
    "mlexporter_score_bin_total",
    "counter",
    "Labelled predictions per bin of the score of a class, by whether that was the actual class.",
    (*_VERSION, "class", "bin", "actual"),
)
SCORE_CUMULATIVE = Metric(
    "mlexporter_score_cumulative_total",
    "counter",
    "Labelled predictions of another actual class, with a score up to the end of the bin.",
    (*_VERSION, "class", "bin"),
)
SCORE_SUM = Metric(
    "mlexporter_score_sum_total", "counter", "Sum of the scores of a class in a bin.", (*_VERSION, "class", "bin")
)
LOG_LOSS_SUM = Metric(
    "mlexporter_log_loss_sum_total", "counter", "Sum of the log loss of labelled predictions with scores.", _VERSION
)
SQUARED_ERROR_SUM = Metric(
    "mlexporter_squared_error_sum_total",
    "counter",
    "Sum of squared errors: of numbers, or of scores against 0 and 1.",
    _VERSION,
)
RESIDUALS = Metric("mlexporter_residuals_total", "counter", "Labelled predictions of a number.", _VERSION)
ABSOLUTE_ERROR_SUM = Metric(
    "mlexporter_absolute_error_sum_total",
    "counter",
    "Sum of distances from prediction to label, by whether the prediction was over or under it.",
    (*_VERSION, "direction"),
)
QUARTIC_ERROR_SUM = Metric(
    "mlexporter_quartic_error_sum_total",
    "counter",
    "Sum of fourth powers of residuals, which tells how certain the mean of their squares is.",
    _VERSION,
)
PERCENTAGE_ERROR_SUM = Metric(
    "mlexporter_percentage_error_sum_total",
    "counter",
    "Sum of distances from prediction to label as shares of the label, where it is not 0.",
    _VERSION,
)
PERCENTAGE_ERRORS = Metric(
    "mlexporter_percentage_errors_total", "counter", "Labelled predictions whose label is not 0.", _VERSION
)
LABEL_DEVIATION_SUM = Metric(
    "mlexporter_label_deviation_sum_total",
    "counter",
    "Sum of distances of labels from a fixed value near their mean, by whether they are over or under it.",
    (*_VERSION, "direction"),
)
LABEL_SQUARED_DEVIATION_SUM = Metric(
    "mlexporter_label_squared_deviation_sum_total", "counter", "Sum of the squares of these distances.", _VERSION
)

# Performance. Each figure of `FIGURES` has a gauge of what labels show, one of the baseline, and those of `ESTIMATES`
# one of what is estimated without labels and one of how far the two are apart.
PERFORMANCE_OUTCOMES = Metric(
    "mlexporter_performance_outcomes", "gauge", "Labelled predictions in the window.", (*_VERSION, "window")
)
PERFORMANCE_BASELINE_OUTCOMES = Metric(
    "mlexporter_performance_baseline_outcomes", "gauge", "Labelled predictions in the baseline.", _VERSION
)
CONCEPT_LOG_EVIDENCE = Metric(
    "mlexporter_concept_drift_log_evidence",
    "gauge",
    "Natural logarithm of the evidence that outcomes, given the prediction, changed by more than the tolerance.",
    (*_VERSION, "tier"),
)
CONCEPT_TOLERANCE = Metric(
    "mlexporter_concept_drift_tolerance",
    "gauge",
    "Change of the outcomes that is accepted given any one prediction, as Kullback-Leibler divergence, in nats.",
    (*_VERSION, "tier"),
)

# Versions of a model side by side.
VERSION_PREVIOUS_INFO = Metric(
    "mlexporter_version_previous_info",
    "gauge",
    "Always 1; which version of the model came before this one.",
    (*_VERSION, "previous_version"),
)
VERSION_PSI = Metric(
    "mlexporter_version_psi",
    "gauge",
    "Population stability index of a version's live data against those of the version before, on the same bins.",
    (*_VERSION, "previous_version", "role", "column", "window"),
)
VERSION_AGREEMENT = Metric(
    "mlexporter_version_agreement_total",
    "counter",
    "Requests that this version and the one before both answered, by whether they said the same.",
    (*_VERSION, "previous_version", "agree"),
)
VERSION_RIGHT = Metric(
    "mlexporter_version_right_total",
    "counter",
    "Labelled requests that both versions answered, by which of them was right, or for numbers nearer.",
    (*_VERSION, "previous_version", "right"),
)


class Figure(msgspec.Struct, frozen=True):
    """A number that says how good a model is.

    Attributes:
        name: as in `mlexporter_performance_<name>`.
        help: what it is.
        tasks: that have it.
        by_class: whether it is told per class, too, and as their mean.
        estimated: whether it can be estimated without labels.

    """

    name: str
    help: str
    tasks: frozenset[str]
    by_class: bool = False
    estimated: bool = False


_CLASSES: Final = frozenset(("binary", "multiclass"))
_NUMBERS: Final = frozenset(("regression",))
FIGURES: Final = (
    Figure("accuracy_ratio", "Share of predictions that are right", _CLASSES, estimated=True),
    Figure("precision_ratio", "Share of a class's predictions that are right", _CLASSES, by_class=True, estimated=True),
    Figure("recall_ratio", "Share of a class that is predicted as such", _CLASSES, by_class=True, estimated=True),
    Figure("f1_ratio", "Harmonic mean of precision and recall", _CLASSES, by_class=True, estimated=True),
    Figure("roc_auc_ratio", "Area under the ROC curve, from score bins", _CLASSES, by_class=True, estimated=True),
    Figure("roc_auc_error_bound_ratio", "How far the area from score bins may be off at most", _CLASSES, by_class=True),
    Figure("pr_auc_ratio", "Average precision, from score bins", _CLASSES, by_class=True),
    Figure("log_loss", "Mean log loss, in nats", _CLASSES),
    Figure("brier_score", "Mean squared distance of the scores from 0 and 1, summed over the classes", _CLASSES),
    Figure("calibration_error_ratio", "Expected calibration error over ten bins of 0.1", _CLASSES),
    Figure("mean_absolute_error", "Mean distance from prediction to label", _NUMBERS),
    Figure("root_mean_squared_error", "Root of the mean squared distance from prediction to label", _NUMBERS),
    Figure("mean_error", "Mean of prediction less label", _NUMBERS),
    Figure("r2_ratio", "Share of the variance of the labels that the predictions explain", _NUMBERS),
    Figure(
        "mean_absolute_percentage_error_ratio", "Mean distance as a share of the label, where it is not 0", _NUMBERS
    ),
)
"""Of binary models precision, recall, F1 and the areas are those of the positive class, without a label `class`."""


def _figure_labels(figure: Figure, *more: str) -> tuple[str, ...]:
    return (*_VERSION, *(("class",) if figure.by_class else ()), *more)


PERFORMANCE: Final = {
    figure.name: Metric(
        f"mlexporter_performance_{figure.name}", "gauge", f"{figure.help}.", _figure_labels(figure, "window")
    )
    for figure in FIGURES
}
PERFORMANCE_STANDARD_ERROR: Final = Metric(
    "mlexporter_performance_standard_error",
    "gauge",
    "Sampling error of a figure of performance, which `figure` names, as a standard deviation.",
    (*_VERSION, "figure", "window"),
)
PERFORMANCE_BASELINE: Final = {
    figure.name: Metric(
        f"mlexporter_performance_baseline_{figure.name}",
        "gauge",
        f"{figure.help}, in the training data.",
        _figure_labels(figure),
    )
    for figure in FIGURES
}
PERFORMANCE_BASELINE_STANDARD_ERROR: Final = Metric(
    "mlexporter_performance_baseline_standard_error",
    "gauge",
    "Sampling error of a figure of performance in the training data, as a standard deviation.",
    (*_VERSION, "figure"),
)
PERFORMANCE_ESTIMATED: Final = {
    figure.name: Metric(
        f"mlexporter_performance_estimated_{figure.name}",
        "gauge",
        f"{figure.help}, estimated without labels; it assumes that there is no concept drift.",
        _figure_labels(figure, "window"),
    )
    for figure in FIGURES
    if figure.estimated
}
PERFORMANCE_GAP: Final = {
    figure.name: Metric(
        f"mlexporter_performance_gap_{figure.name}",
        "gauge",
        f"{figure.help}: as labels show it, less as estimated, for the same predictions; far from 0 is concept drift.",
        _figure_labels(figure, "window"),
    )
    for figure in FIGURES
    if figure.estimated
}
_COUNTS: Final = (
    OUTCOMES, SCORE_BIN, SCORE_CUMULATIVE, SCORE_SUM, LOG_LOSS_SUM, SQUARED_ERROR_SUM, RESIDUALS, ABSOLUTE_ERROR_SUM,
    QUARTIC_ERROR_SUM, PERCENTAGE_ERROR_SUM, PERCENTAGE_ERRORS, LABEL_DEVIATION_SUM, LABEL_SQUARED_DEVIATION_SUM,
)  # fmt: skip


def retracted(metric: Metric) -> Metric:
    """The counter of what corrections of labels took back of a counter of outcomes."""
    name = metric.name.removesuffix("_total") + "_retracted_total"
    return Metric(name, "counter", f"What corrected labels took back of {metric.name}.", metric.labels)


OUTCOME_METRICS: Final = (*_COUNTS, *map(retracted, _COUNTS))
FEEDBACK_METRICS: Final = (
    LABELS, LABELS_CORRECTED, LABELS_REPEATED, LABELS_INVALID, LABELS_UNMATCHED,
    LABELS_WAITING, LAST_LABEL, LABEL_DELAY, PREDICTIONS_TRACKED, PREDICTIONS_PENDING, PREDICTIONS_EXPIRED,
    *OUTCOME_METRICS, PERFORMANCE_OUTCOMES, *PERFORMANCE.values(), PERFORMANCE_STANDARD_ERROR,
    PERFORMANCE_BASELINE_OUTCOMES, *PERFORMANCE_BASELINE.values(), PERFORMANCE_BASELINE_STANDARD_ERROR,
    *PERFORMANCE_ESTIMATED.values(), *PERFORMANCE_GAP.values(), CONCEPT_LOG_EVIDENCE, CONCEPT_TOLERANCE,
    VERSION_PREVIOUS_INFO, VERSION_PSI, VERSION_AGREEMENT, VERSION_RIGHT,
)  # fmt: skip
