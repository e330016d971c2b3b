"""How far a column is from its baseline, and how sure that is: the part of the dashboard Column."""

from grafana_foundation_sdk.models.dashboard import Panel, RowPanel

from grafana.generate import alerts, layout, panels, style
from grafana.generate.layout import Line
from grafana.generate.panels import POOLED, About, Query
from grafana.generate.queries import MARGIN, ONE_COLUMN, ONE_COLUMN_REPLICAS, REPLICAS, WINDOW, previous_psi, recent


def alarm() -> list[RowPanel | Line]:
    """Evidence, of the replica that sees most and of each."""
    return layout.section("Alarm", [_evidence(), _replicas()])


def distances() -> list[RowPanel | Line]:
    """How large the difference is."""
    return layout.section("How far from the baseline", [_psi(), _distances(), _statistic()])


def _evidence() -> Panel:
    about = About(
        "Evidence and its threshold",
        "Logarithm of the evidence that the column drifted by more than it may, of the replica that sees most, for "
        "both tiers; dashed the thresholds, ln R for R exporters among them.",
        "below the dashed lines. Evidence wanders, and a rise that stops short of its line says nothing.",
        "from the line on the column has drifted (MLExporterFeatureDrift, MLExporterPredictionDrift; of the warn tier "
        "MLExporterDriftSuspected). It began when the evidence began to rise. The bars above say what moved.",
    )
    colors = {"page": (style.BLUE, style.VERMILION), "warn": (style.SKY, style.ORANGE)}
    queries = []
    for tier, (color, limit) in colors.items():
        queries += [
            Query(f'max(mlexporter_column_drift_log_evidence{{tier="{tier}", {ONE_COLUMN_REPLICAS}}})', tier, color),
            _threshold(tier, f"{tier} threshold", limit),
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
    queries = [query, _threshold("page", "threshold", style.VERMILION)]
    return panels.lines(21, (12, 9), about, queries, unit="none", minimum=None)


def _threshold(tier: str, legend: str, color: str) -> Query:
    expr = f'max(mlexporter_drift_log_threshold{{tier="{tier}", {REPLICAS}}}) + {MARGIN}'
    return Query(expr, legend, color, dashed=True)


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
            previous_psi(ONE_COLUMN, ONE_COLUMN_REPLICAS),
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
        "slow drift, which the bars above show over some days.",
    )
    statistic = recent("fleet:mlexporter_column_drift_statistic:pooled", ONE_COLUMN)
    query = Query(f"max by (window) ({statistic})", "{{window}}", step=POOLED)
    limit = style.bad_from(alerts.FLEET_DRIFT)
    return panels.lines(32, (8, 9), about, [query], unit="none", thresholds=limit, maximum=1.1)


def tolerance() -> Panel:
    """What is accepted, and how clumped the traffic is."""
    about = About(
        "Tolerance and dispersion",
        "Drift that is accepted at this hour, in nats, for both tiers; and how many times more the counts vary than "
        "independent samples would, on the right.",
        "the configured tolerance; a dispersion of 1.",
        "a large tolerance hides drift: the baseline is small, so build it from more rows, or its history varied much. "
        "A large dispersion: traffic comes in clumps, and the alarm takes longer. Does a client send the same samples "
        "again?",
    )
    tolerance = f"max by (tier) (mlexporter_column_tolerance{{{ONE_COLUMN_REPLICAS}}} < Inf)"
    dispersion = f"max(mlexporter_column_dispersion{{{ONE_COLUMN_REPLICAS}}})"
    queries = [
        Query(tolerance, "tolerance {{tier}}"),
        Query(dispersion, "dispersion", style.ORANGE, right=True),
    ]
    return panels.lines(42, (8, 8), about, queries, unit="none")
