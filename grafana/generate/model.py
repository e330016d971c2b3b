"""One model: what drifts, what it predicts, how good it is, which version is which."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.generate import alerts, feedback, layout, links, panels, shared, style, tables, variables
from grafana.generate.panels import About, Query
from grafana.generate.queries import (
    ALL_VERSIONS,
    DAY,
    MARGIN,
    ONE_MODEL,
    ONE_MODEL_REPLICAS,
    WINDOW,
    error_ratio,
    latency,
    loss_of_limit,
    previous_psi,
    recent,
    worst,
)
from grafana.generate.tables import Cell

PREDICTIONS: Final = f'{ONE_MODEL}, role="prediction", column="prediction"'
LEGEND: Final = "{{version}}"
SAMPLES: Final = f"fleet:mlexporter_samples:rate5m{{{ONE_MODEL}}}"
# As many as a panel can show a row for each.
COLUMNS_SHOWN: Final = 20

_KEPT: Final = ("datasource", "job", "namespace", "instance", "model", "window")


def dashboard() -> Dashboard:
    """The dashboard Model."""
    return layout.dashboard(
        "model",
        "mlexporter / Model",
        "One model: which columns drift and since when, what it predicts, how good labels and estimates show it to be, "
        "and its versions beside each other. Click a column to open it. Needs the recording rules of "
        "prometheus/rules/mlexporter.rules.yaml.",
        variables=[
            variables.datasource(),
            variables.job(),
            variables.namespace(),
            variables.instance(),
            variables.model(),
            variables.versions(),
            variables.window(),
        ],
        links=[links.to(*links.FLEET), links.to(*links.EXPORTER)],
        annotations=[
            links.firing(ALL_VERSIONS),
            links.deployments(ALL_VERSIONS),
        ],
        items=[
            _numbers(),
            *layout.section("Drift", [_drifted_columns()], [_columns()]),
            *layout.section("Predictions", [_predictions(), _predictions_over_time()]),
            *feedback.performance(),
            *feedback.labels(),
            *layout.section(
                "Versions and operation",
                [_versions()],
                [
                    shared.throughput(51, (8, 8), ONE_MODEL, "version", LEGEND),
                    shared.error_ratio(52, (8, 8), ONE_MODEL, "version", LEGEND),
                    shared.latency(53, (8, 8), ONE_MODEL, "version", LEGEND, (0.5, 0.95, 0.99)),
                ],
            ),
        ],
    )


def _numbers() -> list[Panel]:
    of_alerts = f'{ALL_VERSIONS}, version=~"$version|"'
    return [
        shared.firing(1, "critical", of_alerts, SAMPLES, "the panels below show which; follow the alert's runbook."),
        shared.firing(2, "warning", of_alerts, SAMPLES, "in working hours: the panels below show which."),
        _drifted(),
        _age(),
        _baseline_rows(),
        _baselines(),
    ]


def _drifted() -> Panel:
    return panels.number(
        3,
        About(
            "Drifted columns",
            "Columns outside the tolerance of the page tier, of the version with most of them.",
            "0.",
            "the table of columns below has the one with the most evidence on top: click it.",
        ),
        Query(f'max(sum by (version) (fleet:mlexporter_column_drifted:bool{{tier="page", {ONE_MODEL}}}))'),
        unit="none",
        thresholds=style.warn_from(1.0),
        decimals=0,
    )


def _age() -> Panel:
    return panels.number(
        4,
        About(
            "Since the last sample",
            "Time since any of the versions had a sample.",
            "seconds, while the model is asked.",
            "does it serve, and does its client reach the exporter?",
        ),
        Query(f"time() - max(mlexporter_last_sample_timestamp_seconds{{{ONE_MODEL_REPLICAS}}})"),
        unit="s",
        decimals=0,
    )


def _baseline_rows() -> Panel:
    return panels.number(
        5,
        About(
            "Rows of the baseline",
            "Rows that the smallest of the baselines was built from. It grows while it is learned.",
            "2,000 or more: from there on small drifts are seen too.",
            "under 500 PSI says little. Build the baseline from more rows, or let it learn for longer.",
        ),
        Query(f"min(mlexporter_baseline_rows{{{ONE_MODEL_REPLICAS}}})"),
        unit="short",
    )


def _baselines() -> Panel:
    return panels.number(
        6,
        About(
            "Different baselines",
            "The most baselines that replicas of one version hold.",
            "1.",
            "replicas cannot be pooled: a rollout is stuck, or each replica learns its own. Give all of them the "
            "same file (MLExporterBaselinesDiffer).",
        ),
        Query(f"max({recent('fleet:mlexporter_baselines:count', ONE_MODEL)})"),
        unit="none",
        thresholds=style.warn_from(2.0),
        decimals=0,
    )


_MARGIN_OF_COLUMN: Final = (
    f'max by (version, role, column) (fleet:mlexporter_column_drift_log_margin:max{{tier="page", {ONE_MODEL}}})'
)


def _drifted_columns() -> Panel:
    about = About(
        "Columns that drift",
        f"Of the {COLUMNS_SHOWN} columns with the most evidence in the time shown: quiet, suspected (outside the "
        "narrow tolerance of the warn tier) or drifted (outside that of the page tier), over time.",
        "quiet. A suspected column is surely no chance, but may not matter.",
        "click a bar to open the column. Predictions first: whoever uses them is affected now. Then features that "
        f"drifted just before. With {alerts.DRIFTED_COLUMNS:.0%} of all at once MLExporterManyColumnsDrift fires: look "
        "for what broke before the model.",
    )
    by = "version, role, column"
    state = (
        f'max by ({by}) (fleet:mlexporter_column_drifted:bool{{tier="page", {ONE_MODEL}}})\n'
        f'+ max by ({by}) (fleet:mlexporter_column_drifted:bool{{tier="warn", {ONE_MODEL}}})'
    )
    shown = worst(COLUMNS_SHOWN, _MARGIN_OF_COLUMN)
    query = Query(f"({state})\nand {shown}", "{{version}} {{role}} {{column}}")
    values = {label: links.of_series(label) for label in ("version", "role", "column")}
    link = links.down("column", "Open the column", _KEPT, values)
    return panels.timeline(10, (24, 10), about, query, states=style.DRIFT, links=[link])


def _columns() -> Panel:
    by = "version, role, column"

    def pooled(name: str) -> str:
        return f"max by ({by}) ({recent(f'fleet:mlexporter_column_{name}:pooled', WINDOW, ONE_MODEL)})"

    queries = [
        Query(f"{_MARGIN_OF_COLUMN} - on () group_left () {MARGIN}", "Evidence over threshold"),
        Query(pooled("psi_excess"), "PSI beyond chance"),
        Query(pooled("missing_ratio"), "Missing"),
        Query(pooled("out_of_range_ratio"), "Out of range"),
        Query(pooled("new_category_ratio"), "New categories"),
    ]
    values = {"version": links.of_row("Version"), "role": links.of_row("Role"), "column": links.of_row("Column")}
    about = About(
        "Columns",
        "Each column now, the most evidence of drift on top. Evidence is that of the page tier less its threshold, in "
        "nats; from 0 on the column has drifted. The rest is of all replicas in the chosen window, from 200 samples "
        "on. Click a column to open it.",
        "evidence well below 0; PSI beyond chance near 0; nothing missing, new or out of range that was not so in "
        "training.",
        "open the column on top. Many columns with the same share missing: one source has failed.",
    )
    link = links.down("column", "Open the column", _KEPT, values)
    return tables.rows(
        11,
        (24, 9),
        about,
        queries,
        labels={"column": "Column", "role": "Role", "version": "Version"},
        cells={
            "Column": Cell(links=[link]),
            "Evidence over threshold": Cell(
                unit="none", decimals=1, thresholds=style.steps([(None, style.GOOD), (-3, style.WARN), (0, style.BAD)])
            ),
            "PSI beyond chance": Cell(unit="none", decimals=3),
            "Missing": Cell(unit="percentunit", decimals=1),
            "Out of range": Cell(unit="percentunit", decimals=1),
            "New categories": Cell(unit="percentunit", decimals=1),
        },
        sort_by="Evidence over threshold",
    )


def _predictions() -> Panel:
    about = About(
        "Predictions and the baseline's",
        "Share of each bin or class among the predictions of the time shown, beside its share in the baseline.",
        "bars of equal height.",
        "the model says other things than in training. Look which features drifted with it; where none did, the model "
        "itself is another one.",
    )
    return shared.distribution(20, (12, 10), about, PREDICTIONS)


def _predictions_over_time() -> Panel:
    about = About(
        "Predictions over time",
        "The same shares over time, all chosen versions together: a row for each bin or class, darker is more.",
        "even stripes from left to right.",
        "a step is a release or a broken input; a slope is drift. Compare with the marks of deployments above.",
    )
    return shared.shares(21, (12, 10), about, PREDICTIONS)


def _versions() -> Panel:
    about = About(
        "Versions",
        "Versions beside each other. PSI of predictions (over an hour), agreement (24 hours) and "
        "advantage (labelled requests that both answered, 7 days: by what share it is right more often) are against "
        "the version before, and empty for the first one.",
        "a new version with as many errors, as much latency and as few drifted columns as the old one, and an "
        "advantage of 0 or more.",
        f"PSI over {alerts.VERSION_PSI:g}: the versions say, or are asked, different things. Advantage under "
        f"{-alerts.ADVANTAGE:.0%}: stop the rollout (MLExporterChallengerWorse); over "
        f"{alerts.ADVANTAGE:.0%}: give it the traffic (MLExporterChallengerBetter).",
    )
    return tables.rows(
        50,
        (24, 6),
        about,
        _of_versions(),
        labels={"version": "Version"},
        cells={
            "First seen": Cell(unit="dateTimeAsIso", width=170),
            "Samples": Cell(unit="cps"),
            "Failed": Cell(unit="percentunit", decimals=1, thresholds=style.bad_from(alerts.INFERENCE_ERRORS)),
            "p95": Cell(unit="s"),
            "Drifted columns": Cell(unit="none", decimals=0, thresholds=style.warn_from(1.0)),
            "Accuracy or error": Cell(unit="none", decimals=3),
            "Performance lost": Cell(unit="percentunit", decimals=0, thresholds=style.bad_from(1.0)),
            "PSI of predictions": Cell(unit="none", decimals=3, thresholds=style.warn_from(alerts.VERSION_PSI)),
            "Agrees": Cell(unit="percentunit", decimals=1),
            "Advantage": Cell(
                unit="percentunit",
                decimals=1,
                thresholds=style.steps(
                    [(None, style.BAD), (-alerts.ADVANTAGE, style.NEUTRAL), (alerts.ADVANTAGE, style.GOOD)]
                ),
            ),
        },
        sort_by="First seen",
    )


def _of_versions() -> list[Query]:
    """What versions are compared by."""
    by = "version"
    seen = recent("fleet:mlexporter_version_first_seen:timestamp", ONE_MODEL)
    accuracy = recent(
        "fleet:mlexporter_performance:pooled", 'figure=~"accuracy_ratio|mean_absolute_error"', DAY, ONE_MODEL
    )
    psi = previous_psi(f'role="prediction", {ONE_MODEL}', f'role="prediction", {ONE_MODEL_REPLICAS}')
    return [
        Query(f"1000 * max by ({by}) ({seen})", "First seen"),
        Query(f"sum by ({by}) ({SAMPLES})", "Samples"),
        Query(error_ratio(ONE_MODEL, by), "Failed"),
        Query(latency(0.95, ONE_MODEL, by), "p95"),
        Query(f'sum by ({by}) (fleet:mlexporter_column_drifted:bool{{tier="page", {ONE_MODEL}}})', "Drifted columns"),
        Query(f"max by ({by}) ({accuracy})", "Accuracy or error"),
        Query(loss_of_limit(ONE_MODEL, by), "Performance lost"),
        Query(f"max by ({by}) ({psi})", "PSI of predictions"),
        Query(f"max by ({by}) ({recent('fleet:mlexporter_version_agreement:ratio', ONE_MODEL)})", "Agrees"),
        Query(f"max by ({by}) ({recent('fleet:mlexporter_version_advantage:ratio', ONE_MODEL)})", "Advantage"),
    ]
