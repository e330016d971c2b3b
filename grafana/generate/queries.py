"""Selectors and forms of PromQL that recur.

`fleet:` series come from the recording rules: they are of all replicas together and have no `instance`.
"""

from typing import Final

JOBS: Final = 'job=~"$job", namespace=~"$namespace"'
REPLICAS: Final = f'{JOBS}, instance=~"$instance"'
# On the dashboards of one model and one column these have a single value: `=`, as a value is no regular expression.
MODEL: Final = 'model="$model", version=~"$version"'
COLUMN: Final = 'model="$model", version="$version", role="$role", column="$column"'

# What the exporters keep, and what the recording rules do.
WINDOW: Final = 'window=~"$window"'
HOUR: Final = 'window="1h"'
DAY: Final = 'window="24h"'

ALL_VERSIONS: Final = f'{JOBS}, model="$model"'
ONE_MODEL: Final = f"{JOBS}, {MODEL}"
ONE_MODEL_REPLICAS: Final = f"{REPLICAS}, {MODEL}"
ONE_COLUMN: Final = f"{JOBS}, {COLUMN}"
ONE_COLUMN_REPLICAS: Final = f"{REPLICAS}, {COLUMN}"

# What an exporter has to pass over its own threshold, so that R of them alarm falsely as seldom as one. All of this
# Prometheus count, whichever are chosen: the alerts say so.
MARGIN: Final = "ln(count(mlexporter_build_info))"


def recent(series: str, *matchers: str) -> str:
    """What a rule that is evaluated every five minutes said last: at the edges of the lookback it would have gaps."""
    return f"last_over_time({series}{{{', '.join(matchers)}}}[10m])"


def or_zero(expr: str, witness: str) -> str:
    """`expr`, or 0 where it gives nothing and there are series of `witness`: 0 is the truth only if somebody looked."""
    return f"{expr}\nor 0 * count({witness})"


def firing(*matchers: str) -> str:
    """Alerts of ours that fire."""
    return f'ALERTS{{alertname=~"MLExporter.+", alertstate="firing", {", ".join(matchers)}}}'


def latency(quantile: float, selector: str, by: str) -> str:
    """A quantile of latency, of models that tell of theirs."""
    buckets = f"sum by ({by}, le) (fleet:mlexporter_inference_duration_seconds_bucket:rate5m{{{selector}}})"
    return f"histogram_quantile({quantile}, {buckets}) >= 0"


def error_ratio(selector: str, by: str) -> str:
    """Share of predictions that failed."""
    return (
        f"sum by ({by}) (fleet:mlexporter_inference_errors:rate5m{{{selector}}})\n"
        f"/ (sum by ({by}) (fleet:mlexporter_samples:rate5m{{{selector}}}) > 0)"
    )


def bin_shares(selector: str) -> str:
    """Share of each bin of a column, of all replicas together."""
    counts = f"sum_over_time(fleet:mlexporter_column_bin:increase5m{{{selector}}}[$__interval])"
    return f"sum by (bin) ({counts}) / on () group_left () (sum({counts}) > 0)"


def worst(number: int, expr: str) -> str:
    """The series of `expr` with the largest values in the time shown, the same ones at every point."""
    return f"topk({number}, max_over_time(({expr})[$__range:$__interval] @ end()))"


def ordered_bins(expr: str) -> str:
    """Bins under names that sort as they lie: under the baseline's range, in it, over it, and what is no value."""
    names = {"__below__": "00 below", "__above__": "95 above", "__other__": "96 other", "__new__": "97 new"}
    for bin_, name in (names | {"__missing__": "99 missing"}).items():
        expr = f'label_replace({expr}, "bin", "{name}", "bin", "{bin_}")'
    return expr


def loss_of_limit(selector: str, by: str) -> str:
    """How much of what MLExporterPerformanceDropped asks for a loss of performance is: over 1, it is there.

    The alert asks for a loss over the limit of chance and over what is accepted, so the lesser ratio decides.
    """
    loss = recent("fleet:mlexporter_performance_loss:pooled", selector)
    limit = recent("fleet:mlexporter_performance_loss:limit", selector)
    accepted = recent("fleet:mlexporter_performance_loss:accepted", selector)
    return (
        f"max by ({by}) (\n"
        f"  {loss} / {limit} < ({loss} / ignoring (window) group_left () {accepted})\n"
        f"  or {loss} / ignoring (window) group_left () {accepted}\n"
        ")"
    )


def previous_psi(selector: str, replicas: str) -> str:
    """PSI of an hour against the version before, at most of the columns: of all replicas, less what chance makes of it.

    Where the two have different baselines their bins cannot be pooled, and it is that of the replica with most of it.
    """
    by = "version, previous_version"
    return (
        f"max by ({by}) ({recent('fleet:mlexporter_version_psi_excess:pooled', selector)})\n"
        f"or max by ({by}) (mlexporter_version_psi{{{HOUR}, {replicas}}})"
    )
