"""The recording rules in a real Prometheus: 20 replicas of 100 numeric columns, a day of recorded increases behind.

The model has ten classes with scores, and labels.
"""

import json
import statistics
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from benchmarks import prometheus
from benchmarks.harness import Report

RULES = Path(__file__).parents[1] / "prometheus" / "rules" / "mlexporter.rules.yaml"
REPLICAS, COLUMNS = 20, 100
INNER_BINS = 10
CLASSES, SCORE_BINS = 10, 50
SCRAPE_SECONDS, INTERVAL_SECONDS = 8, 20
FILL_SECONDS = 110
"""Then five minutes hold 14 to 26 scrapes while it measures: 20 as at 15 seconds, in less time."""
EVALUATIONS = 5
HASH = "0123456789abcdef"
OWN = {"model": "churn", "version": "7"}
BINS = ["__below__", *(f"{i:02d} {i - 1}..{i}" for i in range(1, INNER_BINS + 1)), "__above__", "__missing__"]
EDGES = [f"{i}.0" for i in range(1, INNER_BINS + 1)]


def series(name: str, **labels: str) -> str:
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in (OWN | labels).items()) + "}"


def outcomes() -> Iterator[tuple[str, dict[str, str]]]:
    """Counters of outcomes: name without `mlexporter_` and `_total`, and labels."""
    classes = [f"class {i}" for i in range(CLASSES)]
    for name in classes:
        for actual in classes:
            yield "outcomes", {"predicted": name, "actual": actual}
        for i in range(SCORE_BINS):
            score = {"class": name, "bin": f"{i:02d} {i / SCORE_BINS:g}..{(i + 1) / SCORE_BINS:g}"}
            yield "score_cumulative", score
            for actual in ("true", "false"):
                yield "score_bin", score | {"actual": actual}


class Page:
    """The page of a replica; all of them have the same, for Prometheus tells them apart by their addresses."""

    def __init__(self) -> None:
        self._start = time.time()
        fixed = [f"{series('mlexporter_model_info', task='', baseline_hash=HASH, baseline_source='file')} 1"]
        fixed.append(f"{series('mlexporter_baseline_rows')} 10000")
        fixed.append('mlexporter_build_info{version="0.1.0",pythonversion="3.12"} 1')
        fixed += [f'mlexporter_drift_log_threshold{{tier="{tier}"}} 16.7' for tier in ("warn", "page")]
        self._counters = [(series("mlexporter_samples_total"), 130), (series("mlexporter_inference_errors_total"), 1)]
        self._counters += [
            (series("mlexporter_inference_duration_seconds_bucket", le=le), 8 * i)
            for i, le in enumerate([*(str(2.0**-i) for i in range(14, 0, -1)), "+Inf"])
        ]
        for number in range(COLUMNS):
            column = {"role": "feature", "column": f"feature_{number:03d}"}
            for i, name in enumerate(BINS):
                bin_series = series("mlexporter_column_bin_total", bin=name, **column)
                self._counters.append((bin_series, 4 + (i + number) % 13))
                baseline = series("mlexporter_column_baseline_ratio", bin=name, **column)
                fixed.append(f"{baseline} {1 / len(BINS)}")
            for i, le in enumerate([*EDGES, "+Inf"]):
                self._counters.append((series("mlexporter_column_value_bucket", le=le, **column), 10 * (i + 1)))
            for i, edge in enumerate(EDGES):
                ratio = series("mlexporter_column_baseline_value_ratio", edge=edge, **column)
                fixed.append(f"{ratio} {(i + 1) / len(EDGES)}")
            fixed.append(f"{series('mlexporter_column_dispersion', **column)} 1.1")
            for tier in ("warn", "page"):
                fixed.append(f"{series('mlexporter_column_tolerance', tier=tier, **column)} 0.02")
                fixed.append(f"{series('mlexporter_column_drift_log_evidence', tier=tier, **column)} -3.5")
        for name, labels in outcomes():
            self._counters.append((series(f"mlexporter_{name}_total", **labels), 40))
            self._counters.append((series(f"mlexporter_{name}_retracted_total", **labels), 1))
        self._fixed = "\n".join(fixed)
        self.lines = len(fixed) + len(self._counters)

    def __call__(self) -> bytes:
        seconds = int(time.time() - self._start)
        counters = "\n".join(f"{name} {rate * seconds}" for name, rate in self._counters)
        return f"{self._fixed}\n{counters}\n".encode()


def history(end: float) -> Iterator[str]:
    """A day of the increases that the rules have recorded, as OpenMetrics."""
    own = {"job": "mlexporter", "namespace": "ml", "baseline_hash": HASH, "role": "feature"}
    times = [end - 300 * i for i in range(288, 0, -1)]
    for name, label, values in (("column_bin", "bin", BINS), ("column_value_bucket", "le", [*EDGES, "+Inf"])):
        record = f"fleet:mlexporter_{name}:increase5m"
        yield f"# TYPE {record} gauge\n"
        for number in range(COLUMNS):
            for value in values:
                full = series(record, column=f"feature_{number:03d}", **own, **{label: value})
                for at in times:
                    yield f"{full} 180000 {at:.0f}\n"
    names = {name for name, _ in outcomes()}
    for name in sorted(names):
        for step, count in (("5m", 288), ("1h", 168)):
            record = f"fleet:mlexporter_{name}:increase{step}"
            yield f"# TYPE {record} gauge\n"
            guard = {} if name == "outcomes" else {"baseline_hash": HASH}
            of_name = [labels for other, labels in outcomes() if other == name]
            for labels in of_name:
                full = series(record, job="mlexporter", namespace="ml", **guard, **labels)
                for i in range(count, 0, -1):
                    yield f"{full} 10000 {end - i * (300 if step == '5m' else 3600):.0f}\n"
    yield "# EOF\n"


@contextmanager
def _serving(page: Page) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def _configuration(folder: Path, target: int) -> dict[str, Any]:
    """Scrapes of all replicas, and the rules, which are written to `folder`."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = f"{INTERVAL_SECONDS}s"
    (folder / "rules.json").write_text(json.dumps(rules))  # which is YAML too
    targets = [
        {
            "targets": [f"127.0.0.1:{target}"],
            "labels": {"instance": f"10.0.0.{i}:8000", "namespace": "ml", "pod": f"mlexporter-{i}"},
        }
        for i in range(REPLICAS)
    ]
    scrape = {"job_name": "mlexporter", "scrape_interval": f"{SCRAPE_SECONDS}s", "static_configs": targets}
    # The addresses are the same: a parameter of each makes them different targets.
    for i, each in enumerate(targets):
        each["labels"]["__param_replica"] = str(i)  # type: ignore[index]
    return {"scrape_configs": [scrape], "rule_files": ["rules.json"]}


def _groups(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=10) as response:
        groups: list[dict[str, Any]] = json.load(response)["data"]["groups"]
    return groups


def _measured(url: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each evaluation, of the groups and of the rules."""
    time.sleep(FILL_SECONDS)
    seen: set[tuple[str, str]] = set()
    groups: dict[str, list[float]] = defaultdict(list)
    rules: dict[str, list[float]] = defaultdict(list)
    deadline = time.monotonic() + (EVALUATIONS + 2) * INTERVAL_SECONDS
    while time.monotonic() < deadline and (not groups or min(map(len, groups.values())) < EVALUATIONS):
        for group in _groups(url):
            if (group["name"], group["lastEvaluation"]) in seen:
                continue
            seen.add((group["name"], group["lastEvaluation"]))
            groups[group["name"]].append(group["evaluationTime"])
            for rule in group["rules"]:
                if rule["health"] != "ok":
                    raise RuntimeError(f"{rule['name']}: {rule.get('lastError', rule['health'])}")
                name = " ".join((rule["name"], *rule.get("labels", {}).values()))
                rules[name].append(rule["evaluationTime"])
        time.sleep(1)
    return groups, rules


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def _least(seconds: list[float]) -> str:
    """Whatever else runs on the machine takes its share of the median, and little of this."""
    return f"(the fastest of {len(seconds)}: {_milliseconds(min(seconds))})"


def run(report: Report) -> None:
    """Evaluate the rules for some three minutes and report the slowest."""
    report.heading(f"Recording rules, {REPLICAS} replicas of {COLUMNS} columns")
    if not prometheus.is_installed(report):
        return
    page = Page()
    with tempfile.TemporaryDirectory() as name, _serving(page) as port:
        folder = Path(name)
        prometheus.write_blocks(folder, history(time.time() - 600))
        with prometheus.running(folder, _configuration(folder, port)) as url:
            groups, rules = _measured(url)
            with urllib.request.urlopen(f"{url}/api/v1/status/tsdb", timeout=30) as response:
                head = json.load(response)["data"]["headStats"]["numSeries"]
    report.add("series of all replicas, and recorded", f"{REPLICAS * page.lines}, {head - REPLICAS * page.lines}")
    for group, seconds in groups.items():
        report.add(f"group {group}", _milliseconds(statistics.median(seconds)), "", _least(seconds))
    for rule, seconds in sorted(rules.items(), key=lambda item: -statistics.median(item[1]))[:5]:
        name = rule.removeprefix("fleet:mlexporter_")
        report.add(name, _milliseconds(statistics.median(seconds)), "500 ms", _least(seconds))
