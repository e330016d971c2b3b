"""One column: what it was, what it is, since when, and how sure that is."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from grafana.generate import evidence, layout, links, panels, shared, style, variables
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import (
    ALL_VERSIONS,
    HOUR,
    MARGIN,
    ONE_COLUMN,
    ONE_COLUMN_REPLICAS,
    WINDOW,
    bin_shares,
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
            *evidence.alarm(),
            *evidence.distances(),
            *layout.section("Behind it", [_samples(), _invalid(), evidence.tolerance()]),
        ],
    )


def _numbers() -> list[Panel]:
    return [
        _state(),
        _margin(),
        _psi_now(),
        _missing_now(),
        _strange_now(),
        _samples_now(),
    ]


def _state() -> Panel:
    drifted = f'fleet:mlexporter_column_drifted:bool{{tier="%s", {ONE_COLUMN}}}'
    return panels.number(
        1,
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
    )


def _margin() -> Panel:
    margin = f'max(fleet:mlexporter_column_drift_log_margin:max{{tier="page", {ONE_COLUMN}}})'
    return panels.number(
        2,
        About(
            "Evidence over threshold",
            "Of the page tier, in nats, of the replica that sees most of it; less ln R for R exporters.",
            "below 0.",
            "from 0 on the column has drifted: the bars below show what moved, the evidence since when.",
        ),
        Query(f"{margin} - {MARGIN}"),
        unit="none",
        thresholds=style.bad_from(0),
        decimals=1,
    )


def _psi_now() -> Panel:
    return panels.number(
        3,
        About(
            "PSI beyond chance, 1h",
            "Population stability index of all replicas together over an hour, less what chance gives on average.",
            "near 0.",
            "it says how large the difference is, not how sure. With a state that is quiet there is nothing to do; "
            "otherwise the bars below show what moved.",
        ),
        Query(f"max({recent('fleet:mlexporter_column_psi_excess:pooled', HOUR, ONE_COLUMN)})"),
        unit="none",
        decimals=3,
    )


def _missing_now() -> Panel:
    return panels.number(
        4,
        About(
            "Missing, 1h",
            "Share of samples without a value over an hour, all replicas.",
            "as in the baseline.",
            "has the source of the column failed? Does a client send it under another name or type?",
        ),
        Query(f"max({recent('fleet:mlexporter_column_missing_ratio:pooled', HOUR, ONE_COLUMN)})"),
        unit="percentunit",
        decimals=1,
    )


def _strange_now() -> Panel:
    return panels.number(
        5,
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
    )


def _samples_now() -> Panel:
    return panels.number(
        6,
        About(
            "Samples, 1h",
            "Samples of all replicas over an hour, which the figures rest on.",
            "1,000 or more; under 200 nothing is said.",
            "take a longer window for a model with little traffic.",
        ),
        Query(f"sum({recent('fleet:mlexporter_column_samples:increase', HOUR, ONE_COLUMN)})"),
        unit="short",
    )


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
        "a step has a cause at that minute: see what was released then, marked above. A slope is drift of the world: "
        "retrain when it hurts.",
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
    # The baseline as it is at the end of the time shown: asked of all replicas once, not at each step.
    edges = f"mlexporter_column_baseline_value_ratio{{{ONE_COLUMN_REPLICAS}}} @ end()"
    # The baseline's buckets end at its maximum; all of its values are under infinity.
    baseline_buckets = (
        f'label_replace(max by (edge) ({edges}), "le", "$1", "edge", "(.*)")\n'
        f'or label_replace(max({edges}) ^ 0, "le", "+Inf", "", "")'
    )
    buckets = f"sum_over_time(fleet:mlexporter_column_value_bucket:increase5m{{{ONE_COLUMN}}}[$__interval])"
    baseline_shares = f"max by (bin) (mlexporter_column_baseline_ratio{{{ONE_COLUMN_REPLICAS}}} @ end())"
    top = f"topk(5, {baseline_shares})"
    live = Query(_lines(buckets, f"{bin_shares(ONE_COLUMN)}\nand on (bin) {top}", edges), "{{bin}}", step=POOLED)
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
