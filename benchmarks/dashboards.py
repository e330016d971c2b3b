"""The queries of the Column dashboard in a real Prometheus: 20 replicas of 100 numeric columns, over 24 hours.

The series that the dashboard reads are there for all columns. Those of the column that is looked at have a value for
each scrape, or for each evaluation of the rules. Those of the others, which a query passes by in the index, have one
for every half hour: blocks take long to write.
"""

import json
import re
import statistics
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import prometheus
from benchmarks.harness import Report
from benchmarks.rules import BINS, EDGES

DASHBOARD = Path(__file__).parents[1] / "grafana" / "dashboards" / "column.json"
REPLICAS, COLUMNS = 20, 100
DAY_SECONDS = 24 * 3600
SCRAPE_SECONDS, RULES_SECONDS, POOLED_SECONDS, OTHERS_SECONDS = 15, 30, 300, 1800
STEP_SECONDS = 60
"""What Grafana asks for where 24 hours are as wide as a screen of 1,280 pixels."""
ROUNDS = 7
BUDGET_SECONDS = 0.2
LOOKED_AT = "feature_050"
CHOSEN = {
    "job": ".+", "namespace": ".*", "instance": ".+", "model": "churn", "version": "7", "role": "feature",
    "column": LOOKED_AT, "window": ".*",
}  # fmt: skip

Series = tuple[str, dict[str, str], int]
"""Name, labels, seconds between values."""


def _of_replica(column: str) -> Iterator[Series]:
    """What one exporter tells of one column, as far as the dashboard reads it."""
    seconds = SCRAPE_SECONDS if column == LOOKED_AT else OTHERS_SECONDS
    of = {"model": "churn", "version": "7", "role": "feature", "column": column}
    labelled = [("column_baseline_ratio", "bin", BINS), ("column_baseline_value_ratio", "edge", EDGES)]
    labelled += [(name, "tier", ["warn", "page"]) for name in ("column_drift_log_evidence", "column_tolerance")]
    names = ("column_psi", "column_psi_noise_floor", "column_window_samples")
    labelled += [(name, "window", ["1h", "24h"]) for name in names]
    for name, label, values in labelled:
        yield from ((f"mlexporter_{name}", of | {label: value}, seconds) for value in values)
    yield "mlexporter_column_dispersion", of, seconds
    yield "mlexporter_values_invalid_total", of, seconds


def _of_fleet(column: str) -> Iterator[Series]:
    """What the recording rules tell of one column."""
    looked_at = column == LOOKED_AT
    pooled = POOLED_SECONDS if looked_at else OTHERS_SECONDS
    of = {"model": "churn", "version": "7", "role": "feature", "column": column}
    for tier in ("warn", "page"):
        for name in ("column_drift_log_margin:max", "column_drifted:bool"):
            yield f"fleet:mlexporter_{name}", of | {"tier": tier}, RULES_SECONDS if looked_at else OTHERS_SECONDS
    of["baseline_hash"] = "0123456789abcdef"
    yield "fleet:mlexporter_version_psi_excess:pooled", of | {"previous_version": "6"}, pooled
    for bin_ in BINS:
        yield "fleet:mlexporter_column_bin:increase5m", of | {"bin": bin_}, pooled
    for le in (*EDGES, "+Inf"):
        yield "fleet:mlexporter_column_value_bucket:increase5m", of | {"le": le}, pooled
    for name in (
        "js_distance:pooled", "hellinger_distance:pooled", "ks_distance:pooled", "psi_excess:pooled",
        "drift_statistic:pooled", "samples:increase", "missing_ratio:pooled", "missing_ratio:limit",
        "out_of_range_ratio:pooled", "out_of_range_ratio:limit",
    ):  # fmt: skip
        yield from ((f"fleet:mlexporter_column_{name}", of | {"window": window}, pooled) for window in ("1h", "24h"))


def _every() -> Iterator[Series]:
    columns = [f"feature_{number:03d}" for number in range(COLUMNS)]
    job = {"job": "mlexporter", "namespace": "ml"}
    for i in range(REPLICAS):
        pod = job | {"pod": f"mlexporter-{i}", "instance": f"10.0.0.{i}:9877"}
        yield "mlexporter_build_info", pod | {"version": "0.1.0"}, SCRAPE_SECONDS
        for tier in ("warn", "page"):
            yield "mlexporter_drift_log_threshold", pod | {"tier": tier}, SCRAPE_SECONDS
        yield from ((name, pod | of, seconds) for column in columns for name, of, seconds in _of_replica(column))
    of_model = {"model": "churn", "version": "7"}
    yield "fleet:mlexporter_version_first_seen:timestamp", job | of_model, POOLED_SECONDS
    yield from ((name, job | of, seconds) for column in columns for name, of, seconds in _of_fleet(column))


def history(begin: float) -> Iterator[str]:
    """A day of all series, as OpenMetrics."""
    families: dict[str, list[Series]] = defaultdict(list)
    for one in _every():
        families[one[0]].append(one)
    for family, series in families.items():
        yield f"# TYPE {family} unknown\n"
        for number, (name, labels, seconds) in enumerate(series):
            text = ",".join(f'{label}="{value}"' for label, value in labels.items())
            for i in range(DAY_SECONDS // seconds + 1):
                # Values that differ from one to the next: what does not change takes next to no room and time.
                yield f"{name}{{{text}}} {(number % 13 + 1) * (1 + i * 7919 % 101)} {begin + i * seconds:.0f}\n"
    yield "# EOF\n"


def _queries() -> Iterator[tuple[str, str, bool, int]]:
    """Panel, PromQL, whether it is asked at one time, and the seconds between values."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            minutes = re.fullmatch(r"(\d+)m", target.get("interval", ""))
            step = max(STEP_SECONDS, 60 * int(minutes[1]) if minutes else 0)
            own = {"__interval": f"{step}s", "__rate_interval": f"{step + SCRAPE_SECONDS}s", "__range": "24h"}
            values = CHOSEN | own
            expr = re.sub(r"\$([a-z_]+)", lambda found, values=values: values[found[1]], target["expr"])  # type: ignore[misc]
            yield f"{panel['title']} {target['refId']}", expr, bool(target.get("instant")), step


def _ask(url: str, expr: str, instant: bool, step: int, end: float) -> tuple[float, Any]:
    """Seconds that an answer takes, and its series."""
    window = {"time": end} if instant else {"start": end - DAY_SECONDS, "end": end, "step": step}
    data = urllib.parse.urlencode({"query": expr, **window}).encode()
    start = time.perf_counter()
    with urllib.request.urlopen(f"{url}/api/v1/query{'' if instant else '_range'}", data, timeout=60) as response:
        body = response.read()
    return time.perf_counter() - start, json.loads(body)["data"]["result"]


def run(report: Report) -> None:
    """Write a day of blocks, then ask each query of the dashboard some times."""
    report.heading(f"Column dashboard, {REPLICAS} replicas of {COLUMNS} columns over 24 hours")
    if not prometheus.is_installed(report):
        return
    end = time.time() // POOLED_SECONDS * POOLED_SECONDS - 3600
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prometheus.write_blocks(folder, history(end - DAY_SECONDS))
        blocks = [json.loads(path.read_text())["stats"] for path in folder.glob("data/*/meta.json")]
        size = sum(path.stat().st_size for path in folder.rglob("data/**/*") if path.is_file())
        series, samples = sum(1 for _ in _every()), sum(block["numSamples"] for block in blocks)
        report.add("series; values; on disk", f"{series}; {samples}; {size / 2**20:.0f} MiB")
        with prometheus.running(folder, {}) as url:
            _report(report, url, end)


def _report(report: Report, url: str, end: float) -> None:
    slowest = 0.0
    for title, expr, instant, step in _queries():
        _, found = _ask(url, expr, instant, step, end)
        seconds = [_ask(url, expr, instant, step, end)[0] for _ in range(ROUNDS)]
        slowest = max(slowest, max(seconds))
        most = f"(slowest of {ROUNDS}: {max(seconds) * 1e3:.0f} ms; {len(found)} series)"
        report.add(title, f"{statistics.median(seconds) * 1e3:.1f} ms", f"{BUDGET_SECONDS * 1e3:.0f} ms", most)
    report.add("slowest of all", f"{slowest * 1e3:.1f} ms", f"{BUDGET_SECONDS * 1e3:.0f} ms")
