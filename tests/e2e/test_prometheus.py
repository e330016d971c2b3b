"""The real Prometheus scrapes the real exporter, and promtool has nothing to say about its page."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from conftest import baseline, categorical, needs, numeric
from e2e.conftest import Exporter, Start
from e2e.prometheus import Prometheus, running, scraping
from mlexporter.baseline import encode

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


PROFILE = baseline(
    numeric("age", (0.0, 10.0, 20.0, 30.0), np.random.default_rng(0).uniform(1, 30, 500)),
    categorical("plan", {"pro": 300, "free": 200}),
)


@pytest.fixture
def exporter(start_exporter: Start, tmp_path: Path) -> Exporter:
    """One model with a baseline, and others that are learned, with odd names and values."""
    (tmp_path / "churn.json").write_bytes(encode(PROFILE))
    model = {"name": "churn", "version": "7", "task": "binary", "baseline": "churn.json"}
    exporter = start_exporter(config={"models": [model], "discovery": {"enabled": True, "learn_samples": 200}})
    rows = [
        {
            "features": {"age": i % 40, "plan": ["pro", "free", "gold", None][i % 4], "new": 1},
            "latency_seconds": i / 100,
        }
        for i in range(400)
    ]
    assert exporter.post({"model": "churn", "samples": rows}).json()["accepted"] == 400
    odd = 'q"uo\\te é模 <b>{}=,#'
    rows = [
        {
            "features": {
                odd: [odd, "__other__", "x" * 500, ""][i % 4],
                "zero": 0,
                "wide": 10.0 ** (i % 300 - 150),
                "none": None,
            },
            "prediction": {odd: 0.9, "b": 0.1} if i % 2 else {"b": 1.0},
            "label": i % 3 == 0,
            "error": i % 10 == 0,
        }
        for i in range(500)
    ]
    assert exporter.post({"model": odd, "version": odd, "samples": rows}).json()["accepted"] == 500
    exporter.post({"model": "learning", "features": {"x": 1}})
    exporter.post(b"{")
    exporter.get("/nowhere")
    exporter.get("/metrics")
    return exporter


@needs("promtool")
def test_promtool_has_nothing_to_say(exporter: Exporter) -> None:
    page = exporter.get("/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert page.count(b"\n") > 400


@needs("promtool")
def test_promtool_does_say_something_of_a_bad_page() -> None:
    page = b"# TYPE bad_name gauge\nbad_name 1\n"
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False, timeout=30)
    assert done.returncode != 0


def test_both_forms_hold_the_same_series(exporter: Exporter) -> None:
    openmetrics = exporter.get("/metrics", Accept=OPENMETRICS)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("\n# EOF\n")
    assert openmetrics.text.count("# EOF") == 1
    changing = ("mlexporter_http_", "mlexporter_scrape_", "process_")
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if not sample.name.startswith(changing)
    }
    text = {key: value for key, value in exporter.scrape().items() if not key[0].startswith(changing)}
    assert found == text
    assert len(text) > 250


@pytest.fixture
def prometheus(exporter: Exporter, tmp_path: Path) -> Iterator[Prometheus]:
    with running(tmp_path, scraping(exporter)) as started:
        yield started


@needs("prometheus")
def test_prometheus_scrapes_it(exporter: Exporter, prometheus: Prometheus) -> None:
    prometheus.becomes('up{job="mlexporter"}', 1)
    prometheus.becomes('mlexporter_samples_total{model="churn", version="7"}', 400)
    for expression, value in {
        'mlexporter_column_bin_total{column="age", bin="02 10..20"}': 100,  # 11 to 20, ten times each
        'mlexporter_column_bin_total{column="plan", bin="__new__"}': 100,
        'mlexporter_column_bin_total{column="plan", bin="__missing__"}': 100,
        'mlexporter_values_unknown_column_total{model="churn"}': 400,
        'mlexporter_column_value_bucket{column="age", le="10.0"}': 110,  # 0 to 10
        'mlexporter_inference_duration_seconds_bucket{model="churn", le="1.0"}': 101,
        'mlexporter_inference_errors_total{model!="churn"} > 0': 50,
        'mlexporter_samples_rejected_total{reason="invalid_json"}': 1,
        'mlexporter_column_missing_ratio{model="churn", column="plan", window="1h"}': 0.25,
        'mlexporter_column_out_of_range_ratio{model="churn", column="age", window="24h"}': 0.25,  # above 30 or 0
        "sum(mlexporter_build_info)": 1,
    }.items():
        assert prometheus.value(expression) == value, expression
    assert prometheus.query("scrape_samples_scraped > 250")
    # between two scrapes: counters move by what was sent, and quantiles come out of the histogram
    rows = [{"features": {"age": 15, "plan": "pro"}}] * 60
    assert exporter.post({"model": "churn", "samples": rows}).json()["accepted"] == 60
    prometheus.becomes('mlexporter_samples_total{model="churn"}', 460)
    bins = 'mlexporter_column_bin_total{column="age", bin="02 10..20"}'
    prometheus.becomes(f"max_over_time({bins}[1m]) - min_over_time({bins}[1m])", 60)
    assert prometheus.query("count_over_time(up[1m]) >= 2")
    assert prometheus.query("min_over_time(up[1m]) == 0") == []
    median = prometheus.value('histogram_quantile(0.5, mlexporter_column_value_bucket{model="churn", column="age"})')
    assert median is not None
    assert 10 < median <= 20
