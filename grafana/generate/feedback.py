"""How good a model is, and the labels that say so: the part of the dashboard Model."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel, RowPanel

from grafana.generate import alerts, layout, panels, shared, style
from grafana.generate.layout import Line
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import ALL_VERSIONS, DAY, MARGIN, ONE_MODEL, ONE_MODEL_REPLICAS, recent

LEGEND: Final = "{{version}}"


def performance() -> list[RowPanel | Line]:
    """Figures, against those of the training data."""
    lost = shared.performance_loss(32, (8, 8), ONE_MODEL, "version, figure", "{{version}} {{figure}}")
    return layout.section("Performance", [_figure(30, *_FIRST), _figure(31, *_SECOND)], [lost, _concept(), _classes()])


def labels() -> list[RowPanel | Line]:
    """How many labels come, how late, and of what share."""
    covered = shared.coverage(42, (12, 8), ONE_MODEL, "version", LEGEND)
    return layout.section("Labels", [_labels(), _delay()], [covered, _waiting()])


_FIRST: Final = (
    "Accuracy, or mean absolute error",
    "accuracy_ratio|mean_absolute_error",
    "Accuracy of a classifier, or the mean absolute error of a regression",
)


_SECOND: Final = (
    "Area under the ROC curve, or root mean squared error",
    "roc_auc_ratio|root_mean_squared_error",
    "Area under the ROC curve of a classifier with scores, of several classes their mean; or the root mean squared "
    "error of a regression. Empty for classes without scores",
)


def _figure(id_: int, title: str, figures: str, shows: str) -> Panel:
    about = About(
        title,
        f"{shows}: realised, as labels of 24 hours and 7 days show it; estimated, as scores of 24 hours promise it "
        "without labels (classifiers only); and in the training data, dashed.",
        "realised and estimated near the dashed line.",
        "both fall: the inputs have become harder, and the model knows it. Realised falls and estimated does not: "
        "concept drift, or wrong labels. Only estimated falls: labels are late, and at "
        f"{alerts.ESTIMATE_LOSS:g} under training MLExporterEstimatedPerformanceDropped fires. "
        "docs/performance-monitoring.md has the whole table.",
    )
    chosen = f'figure=~"{figures}", {ONE_MODEL}'
    realised = recent("fleet:mlexporter_performance:pooled", chosen)
    estimated = f'fleet:mlexporter_performance_estimated:min{{window="24h", {chosen}}}'
    baseline = recent("fleet:mlexporter_performance_baseline:max", chosen)
    if "roc_auc_ratio" in figures:  # of several classes the rules have no mean but that of labels
        mean = f'class="__macro__", {ONE_MODEL_REPLICAS}'
        estimated += f'\nor mlexporter_performance_estimated_roc_auc_ratio{{window="24h", {mean}}}'
        baseline += f"\nor mlexporter_performance_baseline_roc_auc_ratio{{{mean}}}"
    queries = [
        Query(f"max by (version, window) ({realised})", "{{version}} realised {{window}}", style.BLUE, step=POOLED),
        Query(f"min by (version) ({estimated})", "{{version}} estimated 24h", style.ORANGE),
        Query(f"max by (version) ({baseline})", "{{version}} training", style.GREY, dashed=True, step=POOLED),
    ]
    return panels.lines(id_, (12, 9), about, queries, unit="short", minimum=None)


def _concept() -> Panel:
    about = About(
        "Evidence of concept drift",
        "Evidence that the same prediction comes with other labels than in training, less its threshold, in nats; of "
        "the replica where it is most. The dashed line is what it takes.",
        "well below the line.",
        "at the line MLExporterConceptDriftSuspected fires for the warn tier, and MLExporterConceptDrift pages for the "
        "page tier: are the labels right? If so, retrain on recent ones. Empty for models without "
        "labels, and for baselines with under 2,000 outcomes.",
    )
    margin = f"max by (version, tier) (fleet:mlexporter_concept_drift_log_margin:max{{{ONE_MODEL}}})"
    queries = [
        Query(margin, "{{version}} {{tier}}"),
        Query(MARGIN, "drifted", style.VERMILION, dashed=True),
    ]
    return panels.lines(33, (8, 8), about, queries, unit="none", minimum=None)


def _classes() -> Panel:
    about = About(
        "Classes, or mean error",
        "Precision and recall of each class over 24 hours; of a regression the mean error: above 0 its predictions are "
        "too high.",
        "steady; the mean error near 0.",
        "one class falls: look at its features and at the threshold. A mean error that leaves 0: predictions lie on "
        "one side, recalibrate or retrain.",
    )
    classes = recent(
        "fleet:mlexporter_class_performance:pooled", 'figure=~"precision_ratio|recall_ratio"', DAY, ONE_MODEL
    )
    bias = recent("fleet:mlexporter_performance:pooled", 'figure="mean_error"', DAY, ONE_MODEL)
    by = "version, class, figure"
    query = Query(f"max by ({by}) ({classes}\nor {bias})", "{{version}} {{figure}} {{class}}", step=POOLED)
    return panels.lines(34, (8, 8), about, [query], unit="short", minimum=None)


def _labels() -> Panel:
    about = About(
        "Labels",
        "Labels in 24 hours: matched to a prediction, those of them that the task can use, and given up without a "
        "prediction.",
        "as many as ever, nearly all of them usable, hardly any given up.",
        "none: does the sender run (MLExporterLabelsStopped)? "
        f"{alerts.LABELS_UNMATCHED:.0%} given up: do ids fit, does the label come before `labels.horizon`, does its "
        "replica share the store (MLExporterLabelsUnmatched)? Few usable: another coding of classes.",
    )
    queries = [
        Query(
            f"sum by (version) ({recent('fleet:mlexporter_labels:increase', ONE_MODEL)})",
            "{{version}} matched",
            step=POOLED,
        ),
        Query(
            f"sum by (version) ({recent('fleet:mlexporter_labels_usable:increase', ONE_MODEL)})",
            "{{version}} usable",
            style.SKY,
            dashed=True,
            step=POOLED,
        ),
        Query(
            f"sum({recent('fleet:mlexporter_labels_unmatched:increase', ALL_VERSIONS)})",
            "given up",
            style.VERMILION,
            step=POOLED,
        ),
    ]
    return panels.lines(40, (12, 8), about, queries, unit="short")


def _delay() -> Panel:
    about = About(
        "Delay of labels",
        "Time from a prediction to its label: median, and what nine of ten labels stay under, of 24 hours.",
        "steady. With a median of ten days, today's performance is that of the model ten days ago.",
        "rising towards `labels.horizon`: what comes later finds no prediction. Raise the horizon, or hurry "
        "the labels.",
    )
    buckets = recent("fleet:mlexporter_label_delay_seconds_bucket:increase", DAY, ONE_MODEL)
    queries = [
        Query(
            f"histogram_quantile({quantile}, sum by (version, le) ({buckets})) >= 0",
            f"{LEGEND} p{quantile * 100:g}",
            color,
            step=POOLED,
        )
        for quantile, color in ((0.5, style.BLUE), (0.9, style.PURPLE))
    ]
    return panels.lines(41, (12, 8), about, queries, unit="s")


def _waiting() -> Panel:
    about = About(
        "Predictions that wait for their label",
        "Per replica. With Redis as a shared store every replica tells of the whole store.",
        "level.",
        "falling to 0: predictions carry no `id` any more. At `labels.max_rows`: the oldest ones make room.",
    )
    expr = f"sum by (version, instance) (mlexporter_predictions_pending{{{ONE_MODEL_REPLICAS}}})"
    return panels.lines(43, (12, 8), about, [Query(expr, "{{version}} {{instance}}")], unit="short")
