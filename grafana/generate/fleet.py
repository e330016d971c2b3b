"""All models: who needs somebody."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.generate import alerts, layout, links, panels, shared, style, tables, variables
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import JOBS, MARGIN, firing, latency, loss_of_limit, or_zero, recent, worst
from grafana.generate.tables import Cell

MODELS: Final = f'{JOBS}, model=~"$model"'
BY: Final = "job, namespace, model"
LEGEND: Final = "{{namespace}} {{model}}"
# Of each version; the states of single columns are a hundred times as many.
DRIFTED: Final = f'fleet:mlexporter_drifted_columns:ratio{{tier="page", {MODELS}}}'
SAMPLES: Final = f"fleet:mlexporter_samples:rate5m{{{MODELS}}}"

# As many as a panel can show a row for each.
MODELS_SHOWN: Final = 20

_KEPT: Final = ("datasource", "namespace")
_TO_MODEL: Final = [
    links.down("model", "Open the model", _KEPT, {"job": links.of_series("job"), "model": links.of_series("model")})
]


def dashboard() -> Dashboard:
    """The dashboard Fleet."""
    return layout.dashboard(
        "fleet",
        "mlexporter / Fleet",
        "All models: which alarms are on, who drifts, who has no data, who has no labels. Click a model to open it. "
        "Needs the recording rules of prometheus/rules/mlexporter.rules.yaml.",
        variables=[variables.datasource(), variables.job(), variables.namespace(), variables.models()],
        links=[links.to(*links.EXPORTER)],
        annotations=[links.deployments(MODELS)],
        items=[
            _numbers(),
            *layout.section("Who", [_models()], [_alarms(), _alerts_over_time()]),
            *layout.section("Drift", [_drifted(), _margin()]),
            *layout.section(
                "Traffic",
                [
                    shared.throughput(40, (8, 8), MODELS, BY, LEGEND),
                    shared.error_ratio(41, (8, 8), MODELS, BY, LEGEND),
                    shared.latency(42, (8, 8), MODELS, BY, LEGEND, (0.95,)),
                ],
            ),
            *layout.section(
                "Labels and performance",
                [
                    shared.performance_loss(50, (8, 8), MODELS, BY, LEGEND),
                    _labels(),
                    shared.coverage(52, (8, 8), MODELS, BY, LEGEND),
                ],
            ),
        ],
    )


def _numbers() -> list[Panel]:
    return [
        shared.firing(1, "critical", MODELS, SAMPLES, "find the model below, open it, and follow the alert's runbook."),
        shared.firing(2, "warning", MODELS, SAMPLES, "in working hours: find the model below, and open it."),
        _drifting(),
        _silent(),
        _unlabelled(),
        shared.rules_evaluated(6),
    ]


def _drifting() -> Panel:
    return panels.number(
        3,
        About(
            "Models that drift",
            "Models of which a column, or more, is outside the tolerance of the page tier.",
            "0.",
            "open the model below, and there the column with the most evidence.",
        ),
        Query(f"sum(max by ({BY}) ({DRIFTED}) > bool 0)"),
        unit="none",
        thresholds=style.warn_from(1.0),
        decimals=0,
    )


def _silent() -> Panel:
    return panels.number(
        4,
        About(
            "Models without samples",
            "Models of which no version had a sample for 30 minutes.",
            "0, or those that are known to be at rest.",
            "see whether they serve, and whether their clients reach the exporter. MLExporterNoSamples fires only "
            "where samples came at the same time of the week before, or, of a young model, of the day before.",
        ),
        Query(f"sum(max by ({BY}) (max_over_time({SAMPLES}[30m])) == bool 0)"),
        unit="none",
        thresholds=style.warn_from(1.0),
        decimals=0,
    )


def _unlabelled() -> Panel:
    return panels.number(
        5,
        About(
            "Models without labels",
            "Models of which no usable label came in 24 hours: their performance is not known.",
            "0, or those that are known to have no labels, or get them more rarely.",
            "send labels (docs/performance-monitoring.md). MLExporterLabelsStopped fires where they came a week "
            "ago and come no more.",
        ),
        Query(f"sum(max by ({BY}) ({recent('fleet:mlexporter_labels_usable:increase', MODELS)}) == bool 0)"),
        unit="none",
        decimals=0,
    )


def _models() -> Panel:
    loss = loss_of_limit(MODELS, BY)
    drifted = f'sum by ({BY}, version) (fleet:mlexporter_column_drifted:bool{{tier="page", {MODELS}}})'
    labels = recent("fleet:mlexporter_labels_usable:increase", MODELS)
    queries = [
        Query(f"count by ({BY}) (last_over_time({SAMPLES}[1d]))", "Versions"),
        Query(_severity(), "Alarm"),
        Query(f"max by ({BY}) ({drifted})", "Drifted columns"),
        Query(loss, "Performance lost"),
        Query(f"sum by ({BY}) ({SAMPLES})", "Samples"),
        Query(
            f"sum by ({BY}) (fleet:mlexporter_inference_errors:rate5m{{{MODELS}}}) / (sum by ({BY}) ({SAMPLES}) > 0)",
            "Failed",
        ),
        Query(latency(0.95, MODELS, BY), "p95"),
        Query(f"sum by ({BY}) ({labels})", "Labels a day"),
    ]
    to_model = links.down(
        "model", "Open the model", _KEPT, {"job": links.of_row("Job"), "model": links.of_row("Model")}
    )
    about = About(
        "Models",
        "One row for each model, all replicas and versions together. Performance lost is a share of what pages. Click "
        "a model to open it.",
        "every alarm quiet, no drifted column, under 100 % of performance lost, samples and labels flow.",
        "open the model. An empty cell: the model has no labels, no latency, or too few samples for a figure.",
    )
    return tables.rows(
        10,
        (24, 9),
        about,
        queries,
        labels={"model": "Model", "namespace": "Namespace", "job": "Job"},
        cells={
            "Model": Cell(links=[to_model], width=180),
            "Alarm": Cell(states=style.ALARM, width=110),
            "Versions": Cell(unit="none", decimals=0, width=90),
            "Drifted columns": Cell(unit="none", decimals=0, thresholds=style.warn_from(1.0), width=140),
            "Performance lost": Cell(unit="percentunit", decimals=0, thresholds=style.bad_from(1.0), width=150),
            "Samples": Cell(unit="cps"),
            "Failed": Cell(
                unit="percentunit", decimals=1, thresholds=style.bad_from(alerts.INFERENCE_ERRORS), width=100
            ),
            "p95": Cell(unit="s"),
            "Labels a day": Cell(unit="short", decimals=0),
        },
        sort_by="Alarm",
    )


def _severity() -> str:
    """2 where a critical alert of a model fires, 1 where a warning does, else 0."""
    critical, warning = (firing(MODELS, 'model!=""', f'severity="{severity}"') for severity in ("critical", "warning"))
    return f"2 * max by ({BY}) ({critical})\nor max by ({BY}) ({warning})\nor 0 * sum by ({BY}) ({SAMPLES})"


def _alarms() -> Panel:
    about = About(
        "Alarm of each model",
        "The worst alert of each model over time: critical pages, warning is for working hours. Infos do not show. Of "
        f"more than {MODELS_SHOWN} models those that were worst.",
        "quiet throughout.",
        "click a bar to open the model at that time. Many models at once: look first at what they share.",
    )
    severity = _severity()
    shown = worst(MODELS_SHOWN, severity)
    query = Query(f"({severity})\nand {shown}", LEGEND)
    return panels.timeline(20, (12, 9), about, query, states=style.ALARM, links=_TO_MODEL)


def _alerts_over_time() -> Panel:
    about = About(
        "Alerts that fire",
        "How many alerts fire at a time, by severity.",
        "none, or a few infos, which are sent to nobody.",
        "a step of many at once is a release or a broken pipeline, not drift: look at what changed then.",
    )
    colors = {"critical": style.VERMILION, "warning": style.ORANGE, "info": style.SKY}
    queries = []
    for severity, color in colors.items():
        alerts_firing = firing(f'severity="{severity}"', MODELS)
        queries.append(Query(or_zero(f"count({alerts_firing})", SAMPLES), severity, color))
    return panels.lines(21, (12, 9), about, queries, unit="none", maximum=1)


def _drifted() -> Panel:
    about = About(
        "Share of columns that drift",
        "Columns outside the tolerance of the page tier, as a share of all, of the version with most of them.",
        "0.",
        f"one column: open the model and look at it. From {alerts.DRIFTED_COLUMNS:.0%} on this is no drift of the "
        "world, but something that broke before the model (MLExporterManyColumnsDrift).",
    )
    query = Query(f"max by ({BY}) ({DRIFTED})", LEGEND)
    limit = style.bad_from(alerts.DRIFTED_COLUMNS)
    return panels.lines(
        30,
        (12, 8),
        about,
        [query],
        unit="percentunit",
        thresholds=limit,
        maximum=alerts.DRIFTED_COLUMNS,
        links=_TO_MODEL,
    )


def _margin() -> Panel:
    about = About(
        "Evidence of drift, over its threshold",
        "Evidence of the page tier less the threshold, in nats, of the column and the replica where it is most. The "
        "dashed line is ln R for R exporters: what it takes so that all of them together alarm falsely as seldom as "
        "one.",
        "well below the dashed line. Evidence wanders: a rise that stops short of the line says nothing.",
        "at the line the column has drifted, and its alert fires. Open the model.",
    )
    queries = [
        Query(f'max by ({BY}) (fleet:mlexporter_column_drift_log_margin:max{{tier="page", {MODELS}}})', LEGEND),
        Query(MARGIN, "drifted", style.VERMILION, dashed=True),
    ]
    # A series for each column of the fleet is behind every point.
    return panels.lines(31, (12, 8), about, queries, unit="none", minimum=None, points=200, links=_TO_MODEL)


def _labels() -> Panel:
    about = About(
        "Labels in 24 hours",
        "Labels that found their prediction and that the task can use.",
        "the usual number, day by day.",
        "at 0: does the job that sends labels run, are its labels refused, do their ids fit? "
        "(MLExporterLabelsStopped, MLExporterLabelsUnmatched)",
    )
    labels = recent("fleet:mlexporter_labels_usable:increase", MODELS)
    return panels.lines(51, (8, 8), about, [Query(f"sum by ({BY}) ({labels})", LEGEND, step=POOLED)], unit="short")
