"""One column: what it was, what it is, since when, and how sure that is."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.generate import alerts, layout, links, panels, shared, style, variables
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import (
    ALL_VERSIONS,
    HOUR,
    MARGIN,
    ONE_COLUMN,
    ONE_COLUMN_REPLICAS,
    REPLICAS,
    WINDOW,
    previous_psi,
    recent,
)


def dashboard() -> Dashboard:
    """The dashboard Column."""
    return layout.dashboard(
        "column",
        "mlexporter / Column",
        "One column of one version: its live values beside the baseline's, the evidence that they differ, and what is "
        "missing, new or out of range. Needs the recording rules of prometheus/rules/mlexporter.rules.yaml.",
        variables=[
            variables.datasource(),
            variables.job(),
            variables.namespace(),
            variables.instance(),
            variables.model(),
            variables.version(),
            variables.role(),
            variables.column(),
            variables.window(),
        ],
        links=[links.to(*links.MODEL), links.to(*links.FLEET), links.to(*links.EXPORTER)],
        annotations=[
            links.firing(
                ONE_COLUMN,
                f'{ALL_VERSIONS}, version="$version", column=""',
                f'{ALL_VERSIONS}, version=""',
            ),
            links.deployments(ALL_VERSIONS),
        ],
        items=[
            _numbers(),
            *layout.section("Values", [_distribution(), _over_time()], [_quantiles(), _quality()]),
            *layout.section("Alarm", [_evidence(), _replicas()]),
            *layout.section("How far from the baseline", [_psi(), _distances(), _statistic()]),
            *layout.section("Behind it", [_samples(), _invalid(), _tolerance()]),
        ],
    )


def _numbers() -> list[Panel]:
    size = (4, 4)
    drifted = f'fleet:mlexporter_column_drifted:bool{{tier="%s", {ONE_COLUMN}}}'
    margin = f'max(fleet:mlexporter_column_drift_log_margin:max{{tier="page", {ONE_COLUMN}}})'
    return [
        panels.number(
            1,
            size,
            About(
                "State",
                "suspected is outside the narrow tolerance of the warn tier, drifted outside that of the page tier.",
                "quiet.",
                "the bars below show what moved, the evidence since when. GET /api/v1/models/.../drift of the exporter "
                "says it in words.",
            ),
            Query(f"max({drifted % 'page'}) + max({drifted % 'warn'})"),
            unit="none",
            states=style.DRIFT,
        ),
        panels.number(
            2,
            size,
            About(
                "Evidence over threshold",
                "Of the page tier, in nats, of the replica that sees most of it; less ln R for R exporters.",
                "below 0.",
                "from 0 on the column has drifted.",
            ),
            Query(f"{margin} - {MARGIN}"),
            unit="none",
            thresholds=style.steps([(None, style.GOOD), (0, style.BAD)]),
            decimals=1,
        ),
        panels.number(
            3,
            size,
            About(
                "PSI beyond chance, 1h",
                "Population stability index of all replicas together over an hour, less what chance gives on average.",
                "near 0.",
                "it says how large the difference is, not how sure: see the evidence for that.",
            ),
            Query(f"max({recent('fleet:mlexporter_column_psi_excess:pooled', HOUR, ONE_COLUMN)})"),
            unit="none",
            decimals=3,
        ),
        panels.number(
            4,
            size,
            About(
                "Missing, 1h",
                "Share of samples without a value over an hour, all replicas.",
                "as in the baseline.",
                "has the source of the column failed? Does a client send it under another name or type?",
            ),
            Query(f"max({recent('fleet:mlexporter_column_missing_ratio:pooled', HOUR, ONE_COLUMN)})"),
            unit="percentunit",
            decimals=1,
        ),
        panels.number(
            5,
            size,
            About(
                "New or out of range, 1h",
                "Share of samples with a category, or a number, that the baseline never saw, over an hour.",
                "as in the baseline, mostly 0.",
                "another spelling or unit, or really new cases, which call for a new training.",
            ),
            Query(
                f"max({recent('fleet:mlexporter_column_new_category_ratio:pooled', HOUR, ONE_COLUMN)}\n"
                f"or {recent('fleet:mlexporter_column_out_of_range_ratio:pooled', HOUR, ONE_COLUMN)})"
            ),
            unit="percentunit",
            decimals=1,
        ),
        panels.number(
            6,
            size,
            About(
                "Samples, 1h",
                "Samples of all replicas over an hour, which the figures rest on.",
                "1,000 or more; under 200 nothing is said.",
                "take a longer window for a model with little traffic.",
            ),
            Query(f"sum({recent('fleet:mlexporter_column_samples:increase', HOUR, ONE_COLUMN)})"),
            unit="short",
        ),
    ]


def _distribution() -> Panel:
    about = About(
        "Live values and the baseline's",
        "Share of each bin in the time shown, all replicas together, beside its share in the baseline. Zoom into a "
        "time to see its values.",
        "bars of equal height.",
        "bars that grow tell what came instead: missing or new, another unit (all at one end), another mix of "
        "categories.",
    )
    return shared.distribution(10, (12, 10), about, ONE_COLUMN)


def _over_time() -> Panel:
    about = About(
        "Values over time",
        "Share of each bin over time, all replicas together: darker is more.",
        "even stripes from left to right; hours of the day may show.",
        "a step has a cause at that minute; a slope is drift of the world.",
    )
    return shared.shares(11, (12, 10), about, ONE_COLUMN)


def _quantiles() -> Panel:
    about = About(
        "Quantiles, or shares of the commonest categories",
        "Of a numeric column p10, p50 and p90, to the precision of its deciles; of a categorical one the shares of its "
        "five commonest categories. Dashed what they are in the baseline.",
        "solid lines on the dashed ones.",
        "all quantiles moved alike: another unit or offset. Only one moved: another kind of cases. One share takes "
        "from another: categories were renamed.",
    )
    edges = f"mlexporter_column_baseline_value_ratio{{{ONE_COLUMN_REPLICAS}}}"
    # The baseline's buckets end at its maximum; all of its values are under infinity.
    baseline_buckets = (
        f'label_replace(max by (edge) ({edges}), "le", "$1", "edge", "(.*)")\n'
        f'or label_replace(max({edges}) ^ 0, "le", "+Inf", "", "")'
    )
    buckets = f"sum_over_time(fleet:mlexporter_column_value_bucket:increase5m{{{ONE_COLUMN}}}[$__interval])"
    counts = f"sum_over_time(fleet:mlexporter_column_bin:increase5m{{{ONE_COLUMN}}}[$__interval])"
    shares = f"sum by (bin) ({counts}) / on () group_left () (sum({counts}) > 0)"
    baseline_shares = f"max by (bin) (mlexporter_column_baseline_ratio{{{ONE_COLUMN_REPLICAS}}})"
    top = f"topk(5, {baseline_shares})"
    live = Query(_lines(buckets, f"{shares}\nand on (bin) {top}", edges), "{{bin}}", step=POOLED)
    baseline = Query(_lines(baseline_buckets, top, edges), "baseline {{bin}}", style.GREY, dashed=True)
    return panels.lines(12, (12, 9), about, [live, baseline], unit="short", minimum=None)


def _lines(buckets: str, shares: str, edges: str) -> str:
    """Quantiles of a column that has edges, as `bin`, or shares of one that has none."""
    quantiles = "\nor\n".join(
        f'label_replace(histogram_quantile({q}, sum by (le) ({buckets})), "bin", "p{q * 100:g}", "", "")'
        for q in (0.1, 0.5, 0.9)
    )
    return f"{quantiles}\nor\n({shares}\nunless on () max({edges}))"


def _quality() -> Panel:
    about = About(
        "Missing, new, out of range",
        "Shares of the samples of an hour, all replicas together: without a value; and with a category, or a number, "
        "that the baseline never saw. Dashed what is surely over the baseline's share plus five points.",
        "below the dashed line of the same kind.",
        "MLExporterMissingValues, MLExporterNewCategories or MLExporterValuesOutOfRange fires. Has a source failed, a "
        "unit or a spelling changed, or are there really new cases?",
    )
    missing, new, out = ("fleet:mlexporter_column_" + kind for kind in ("missing", "new_category", "out_of_range"))
    queries = []
    for what, name in (("pooled", ""), ("limit", " alert")):
        either = (
            f"{recent(f'{new}_ratio:{what}', HOUR, ONE_COLUMN)}\nor {recent(f'{out}_ratio:{what}', HOUR, ONE_COLUMN)}"
        )
        dashed = what == "limit"
        queries += [
            Query(
                f"max({recent(f'{missing}_ratio:{what}', HOUR, ONE_COLUMN)})",
                f"missing{name}",
                style.BLUE,
                dashed=dashed,
                step=POOLED,
            ),
            Query(f"max({either})", f"new or out of range{name}", style.ORANGE, dashed=dashed, step=POOLED),
        ]
    return panels.lines(13, (12, 9), about, queries, unit="percentunit")


def _evidence() -> Panel:
    about = About(
        "Evidence and its threshold",
        "Logarithm of the evidence that the column drifted by more than it may, of the replica that sees most, for "
        "both tiers; dashed the thresholds, ln R for R exporters among them.",
        "below the dashed lines. Evidence wanders, and a rise that stops short of its line says nothing.",
        "from the line on the column has drifted. It began when the evidence began to rise.",
    )
    colors = {"page": (style.BLUE, style.VERMILION), "warn": (style.SKY, style.ORANGE)}
    queries = []
    for tier, (color, limit) in colors.items():
        queries += [
            Query(f'max(mlexporter_column_drift_log_evidence{{tier="{tier}", {ONE_COLUMN_REPLICAS}}})', tier, color),
            Query(
                f'max(mlexporter_drift_log_threshold{{tier="{tier}", {REPLICAS}}}) + {MARGIN}',
                f"{tier} threshold",
                limit,
                dashed=True,
            ),
        ]
    return panels.lines(20, (12, 9), about, queries, unit="none", minimum=None)


def _replicas() -> Panel:
    about = About(
        "Evidence by replica",
        "Evidence of the page tier on each replica.",
        "all replicas alike.",
        "some high, others low: part of the traffic is different, or part of the replicas (zone, client, cache, "
        "release). MLExporterReplicasDisagree fires after an hour.",
    )
    query = Query(
        f'max by (instance) (mlexporter_column_drift_log_evidence{{tier="page", {ONE_COLUMN_REPLICAS}}})',
        "{{instance}}",
    )
    limit = Query(
        f'max(mlexporter_drift_log_threshold{{tier="page", {REPLICAS}}}) + {MARGIN}',
        "threshold",
        style.VERMILION,
        dashed=True,
    )
    return panels.lines(21, (12, 9), about, [query, limit], unit="none", minimum=None)


def _psi() -> Panel:
    about = About(
        "PSI and its noise floor",
        "Population stability index of each replica in the chosen window; dashed what it stays under in 999 of 1,000 "
        "looks if nothing drifted; purple of all replicas together, less chance; "
        "orange against the live data of the version before, over an hour.",
        "under the noise floor.",
        "over it the difference is more than chance, and PSI says how large it is. No threshold on it is right for all "
        f"numbers of samples: the alarm is the evidence. Over {alerts.VERSION_PSI:g} and more than chance between "
        "versions: do both get the same traffic, and prepare it alike (MLExporterVersionDiffers)?",
    )
    queries = [
        Query(
            f"max by (instance, window) (mlexporter_column_psi{{{WINDOW}, {ONE_COLUMN_REPLICAS}}})",
            "{{instance}} {{window}}",
        ),
        Query(
            f"max by (window) (mlexporter_column_psi_noise_floor{{{WINDOW}, {ONE_COLUMN_REPLICAS}}})",
            "noise floor {{window}}",
            style.GREY,
            dashed=True,
        ),
        Query(
            f"max by (window) ({recent('fleet:mlexporter_column_psi_excess:pooled', WINDOW, ONE_COLUMN)})",
            "beyond chance, all {{window}}",
            style.PURPLE,
            step=POOLED,
        ),
        Query(
            f"max by (previous_version) ({previous_psi(ONE_COLUMN, ONE_COLUMN_REPLICAS)})",
            "against version {{previous_version}}",
            style.ORANGE,
            step=POOLED,
        ),
    ]
    return panels.lines(30, (8, 9), about, queries, unit="none")


def _distances() -> Panel:
    about = About(
        "Distances",
        "Distances between the live values and the baseline's, all replicas together, in the chosen window: "
        "Jensen-Shannon (0 to 0.83), Hellinger and, of numeric columns, Kolmogorov-Smirnov (0 to 1).",
        "low and level; they are never 0, for chance makes a part of them.",
        "Kolmogorov-Smirnov rises alone: values moved a little everywhere. The others rise alone: new or missing bins.",
    )
    names = {"js": ("Jensen-Shannon", style.BLUE), "hellinger": ("Hellinger", style.PURPLE)}
    names["ks"] = ("Kolmogorov-Smirnov", style.ORANGE)
    queries = [
        Query(
            f"max by (window) ({recent(f'fleet:mlexporter_column_{name}_distance:pooled', WINDOW, ONE_COLUMN)})",
            f"{title} {{{{window}}}}",
            color,
            step=POOLED,
        )
        for name, (title, color) in names.items()
    ]
    return panels.lines(31, (8, 9), about, queries, unit="none")


def _statistic() -> Panel:
    about = About(
        "Test of all replicas together",
        "The test statistic of the pooled counts, divided by its critical value: what no replica can see alone.",
        f"under {alerts.FLEET_DRIFT:g}.",
        f"over {alerts.FLEET_DRIFT:g} with 24 hours MLExporterFleetDrift fires, once a whole day is there: a small or "
        "slow drift.",
    )
    statistic = recent("fleet:mlexporter_column_drift_statistic:pooled", ONE_COLUMN)
    query = Query(f"max by (window) ({statistic})", "{{window}}", step=POOLED)
    limit = style.thresholds(bad=alerts.FLEET_DRIFT)
    return panels.lines(32, (8, 9), about, [query], unit="none", thresholds=limit, maximum=1.1)


def _samples() -> Panel:
    about = About(
        "Samples in the window",
        "Samples that each replica holds in the chosen window.",
        "1,000 or more; replicas alike.",
        "under 200 a replica says nothing: take a longer window.",
    )
    expr = f"max by (instance, window) (mlexporter_column_window_samples{{{WINDOW}, {ONE_COLUMN_REPLICAS}}})"
    return panels.lines(40, (8, 8), about, [Query(expr, "{{instance}} {{window}}")], unit="short")


def _invalid() -> Panel:
    about = About(
        "Values of the wrong type",
        "Values per second that could not be read as this column's type. They count as missing.",
        "0.",
        "a client sends text for a number, or another format: see what it released.",
    )
    expr = f"sum by (instance) (rate(mlexporter_values_invalid_total{{{ONE_COLUMN_REPLICAS}}}[$__rate_interval]))"
    return panels.lines(41, (8, 8), about, [Query(expr, "{{instance}}", style.VERMILION)], unit="cps", maximum=0.1)


def _tolerance() -> Panel:
    about = About(
        "Tolerance and dispersion",
        "Drift that is accepted at this hour, in nats, for both tiers; and how many times more the counts vary than "
        "independent samples would, on the right.",
        "the configured tolerance; a dispersion of 1.",
        "a large tolerance hides drift: the baseline is small, or its history varied much. A large dispersion: traffic "
        "comes in clumps, and the alarm takes longer.",
    )
    tolerance = f"max by (tier) (mlexporter_column_tolerance{{{ONE_COLUMN_REPLICAS}}} < Inf)"
    dispersion = f"max(mlexporter_column_dispersion{{{ONE_COLUMN_REPLICAS}}})"
    queries = [
        Query(tolerance, "tolerance {{tier}}"),
        Query(dispersion, "dispersion", style.ORANGE, right=True),
    ]
    return panels.lines(42, (8, 8), about, queries, unit="none")
