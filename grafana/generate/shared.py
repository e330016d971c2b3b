"""Panels that several dashboards have."""

from grafana_foundation_sdk.models.dashboard import Panel

from grafana.generate import alerts, panels, queries, style
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import JOBS, bin_shares, loss_of_limit, or_zero, ordered_bins, recent


def rules_evaluated(id_: int) -> Panel:
    """Whether the recording rules are there, which panels of all replicas together need."""
    about = About(
        "Recording rules",
        "Whether Prometheus evaluates `prometheus/rules/mlexporter.rules.yaml`, which every panel on all replicas "
        "together reads. They keep a year over hundreds of replicas quick.",
        "evaluated.",
        "name both files of `prometheus/rules/` under `rule_files` of Prometheus, and reload it. Six minutes after the "
        "first baseline the pooled figures are there.",
    )
    series = f"last_over_time(fleet:mlexporter_samples:rate5m{{{JOBS}}}[10m])"
    query = Query(f"count({series}) ^ 0\nor vector(0)")
    return panels.number(id_, about, query, unit="none", states=style.RULES)


def firing(id_: int, severity: str, selector: str, witness: str, otherwise: str) -> Panel:
    """How many alerts of a severity fire."""
    limit = {"critical": style.bad_from, "warning": style.warn_from}[severity](1)
    about = About(
        f"{severity.capitalize()} alerts",
        f"How many alerts of severity {severity} fire now.",
        "0.",
        otherwise,
    )
    alerts_firing = queries.firing(f'severity="{severity}"', selector)
    query = Query(or_zero(f"count({alerts_firing})", witness))
    return panels.number(id_, about, query, unit="none", thresholds=limit, decimals=0)


def distribution(id_: int, size: tuple[int, int], about: About, selector: str) -> Panel:
    """Baseline and live shares of a column's bins side by side, of the time that is shown."""
    live = f"sum_over_time(fleet:mlexporter_column_bin:increase5m{{{selector}}}[$__range])"
    baseline = f"mlexporter_column_baseline_ratio{{{selector}}}"
    by = "version, bin"
    expr = ordered_bins(
        f'label_replace(max by ({by}) ({baseline}), "series", "baseline $1", "version", "(.*)")\nor\n'
        f"label_replace(\n  sum by ({by}) ({live}) / on (version) group_left () (sum by (version) ({live}) > 0),\n"
        '  "series", "live $1", "version", "(.*)"\n)'
    )
    query = Query(expr)
    colors = {"baseline": style.GREY, "live": style.BLUE}
    return panels.bars(id_, size, about, query, by="bin", series="series", colors=colors)


def shares(id_: int, size: tuple[int, int], about: About, selector: str) -> Panel:
    """Shares of a column's bins over time."""
    query = Query(ordered_bins(bin_shares(selector)), "{{bin}}", step=POOLED)
    return panels.shares_over_time(id_, size, about, query)


def performance_loss(id_: int, size: tuple[int, int], selector: str, by: str, legend: str) -> Panel:
    """Loss of performance, as a share of what the alert asks for."""
    about = About(
        "Performance lost, of what pages",
        "How much worse than in training the labels of a day or a week show a model to be, divided by what it takes "
        "to page: more than chance explains, and more than is accepted. The figure that has lost most.",
        "under 1; below 0 the model is better than in training.",
        "at 1 MLExporterPerformanceDropped pages. Open the model: did its inputs drift too, are the labels right? If "
        "both are well, the concept has changed: retrain on recent labels.",
    )
    query = Query(loss_of_limit(selector, by), legend, step=POOLED)
    return panels.lines(
        id_, size, about, [query], unit="percentunit", thresholds=style.bad_from(1.0), minimum=None, maximum=1.1
    )


def error_ratio(id_: int, size: tuple[int, int], selector: str, by: str, legend: str) -> Panel:
    """Share of predictions that failed."""
    about = About(
        "Predictions that failed",
        "Share of samples that carry an `error`, over five minutes.",
        f"under {alerts.INFERENCE_ERRORS:.0%}, and near 0.",
        f"over {alerts.INFERENCE_ERRORS:.0%}, for five minutes and over an hour, MLExporterInferenceErrors pages. Look "
        "at the log of the model server, and at what was released.",
    )
    query = Query(queries.error_ratio(selector, by), legend)
    limit = style.bad_from(alerts.INFERENCE_ERRORS)
    return panels.lines(
        id_, size, about, [query], unit="percentunit", thresholds=limit, maximum=alerts.INFERENCE_ERRORS
    )


def latency(
    id_: int, size: tuple[int, int], selector: str, by: str, legend: str, quantiles: tuple[float, ...]
) -> Panel:
    """Quantiles of latency."""
    about = About(
        "Latency",
        "How long predictions take, as `latency_seconds` of samples says: "
        + ", ".join(f"{quantile:.0%} are quicker than p{quantile * 100:g}" for quantile in quantiles)
        + ".",
        "as it was yesterday at this hour.",
        "twice yesterday's p95, and over 50 ms, is MLExporterInferenceLatency. Look at load and CPU of the model "
        "server, and at what was released. Empty where samples carry no latency.",
    )
    colors = {0.5: style.SKY, 0.95: style.BLUE, 0.99: style.PURPLE}
    each = [
        Query(queries.latency(quantile, selector, by), f"p{quantile * 100:g} {legend}", colors[quantile])
        for quantile in quantiles
    ]
    return panels.lines(id_, size, about, each, unit="s")


def throughput(id_: int, size: tuple[int, int], selector: str, by: str, legend: str) -> Panel:
    """Samples per second."""
    about = About(
        "Samples",
        "Accepted samples per second, of all replicas.",
        "as much as the model is asked, in its usual rhythm.",
        "at 0: does the model serve, and can its client reach the exporter? MLExporterNoSamples tells where it is "
        "news, and MLExporterTooFewSamples of under 200 a day. Drift and quality are not watched meanwhile.",
    )
    expr = f"sum by ({by}) (fleet:mlexporter_samples:rate5m{{{selector}}})"
    return panels.lines(id_, size, about, [Query(expr, legend)], unit="cps")


def coverage(id_: int, size: tuple[int, int], selector: str, by: str, legend: str) -> Panel:
    """Share of predictions that get a label."""
    about = About(
        "Label coverage",
        "Of the predictions whose time is over, the share that got a label, over 24 hours and 7 days. From 200 such "
        "predictions on.",
        "steady, at whatever share is labelled; performance is that of the labelled ones only.",
        "half of the week before is MLExporterLabelCoverageLow: a part of the labels comes late, from fewer sources, "
        "or with ids that fit no prediction.",
    )
    ratios = recent("fleet:mlexporter_label_coverage:ratio", selector)
    query = Query(f"min by ({by}, window) ({ratios})", f"{legend} {{{{window}}}}", step=POOLED)
    return panels.lines(id_, size, about, [query], unit="percentunit", maximum=1)
