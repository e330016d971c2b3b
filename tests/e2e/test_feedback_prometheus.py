"""The real Prometheus pools what labels tell two replicas, and promtool has nothing to say about their page."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from sklearn import metrics as sk

from conftest import needs
from e2e.conftest import Exporter, Start, poll
from e2e.feedback import SECONDS, Binary, built, config_of, kept, model, tracked
from e2e.prometheus import Prometheus, running, scraping
from mlexporter.metrics import MODEL_METRICS

OF = {"model": "churn"}
CLASSES = ("ant", "bee", "cat", "dog")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def replicas(start_exporter: Start, tmp_path: Path) -> list[Exporter]:
    config = config_of(model("churn", Binary(80, 4000).baseline(tmp_path)))
    return [start_exporter(config=config) for _ in range(2)]


@pytest.fixture
def prometheus(replicas: list[Exporter], tmp_path: Path) -> Iterator[Prometheus]:
    with running(tmp_path, scraping(*replicas)) as started:
        yield started


def net(name: str, labels: str = "", by: str = "") -> str:
    """The sum of a counter over the replicas, less what corrections took back."""
    return f"(sum by ({by}) ({name}_total{labels}) - sum by ({by}) ({name}_retracted_total{labels}))"


@needs("prometheus")
def test_performance_of_pooled_data(replicas: list[Exporter], prometheus: Prometheus, tmp_path: Path) -> None:
    """Neither replica has enough to tell it: they see different customers, and the labels of some are corrected."""
    data = Binary(81, 6000)
    first = np.argsort(data.x)  # the one replica has low scores, but for a few
    data.scores, data.labels, data.x = data.scores[first], data.labels[first], data.x[first]
    truth = data.labels.copy()
    data.labels[1000:1400] = 1 - data.labels[1000:1400]
    for replica, begin, end in ((replicas[0], 0, 3500), (replicas[1], 3500, 5000)):
        assert replica.post(OF | data.columns(begin, end)).json()["accepted"] == end - begin
        tracked(replica, "churn", end - begin)
        kept(replica, OF | data.truth(begin, end))
    rows = [{"prediction": s, "label": y} for s, y in zip(data.scores.tolist(), truth.tolist(), strict=True)][5000:]
    kept(replicas[1], OF | {"labels": rows[:800]})
    kept(replicas[0], OF | {"labels": rows[800:]})
    data.labels = truth
    kept(replicas[0], OF | data.truth(1000, 1400))

    counted = net("mlexporter_outcomes")
    poll(lambda: prometheus.value(counted) == 6000, SECONDS, lambda: f"{prometheus.value(counted)} of 6000")
    taken = prometheus.value("sum(mlexporter_outcomes_retracted_total)")
    assert taken == 400
    said = (data.scores >= 0.5).astype(int)
    cells = {(p, a): net("mlexporter_outcomes", f'{{predicted="{p}",actual="{a}"}}') for p in (0, 1) for a in (0, 1)}
    for (p, a), expression in cells.items():
        assert prometheus.value(expression) == ((said == p) & (truth == a)).sum()
    expected = {
        f"({cells[0, 0]} + {cells[1, 1]}) / {counted}": sk.accuracy_score(truth, said),
        f"{cells[1, 1]} / ({cells[1, 1]} + {cells[1, 0]})": sk.precision_score(truth, said),
        f"{cells[1, 1]} / ({cells[1, 1]} + {cells[0, 1]})": sk.recall_score(truth, said),
        f"{net('mlexporter_log_loss_sum')} / {counted}": sk.log_loss(truth, data.scores),
        f"{net('mlexporter_squared_error_sum')} / {counted}": sk.brier_score_loss(truth, data.scores),
    }
    for expression, value in expected.items():
        assert prometheus.value(expression) == pytest.approx(value, rel=1e-12), expression
    (edges,) = orjson.loads((tmp_path / "binary.json").read_bytes())["outcomes"]["score_edges"]
    positives = net("mlexporter_score_bin", '{actual="true"}', "bin")
    negatives = net("mlexporter_score_bin", '{actual="false"}', "bin")
    under = net("mlexporter_score_cumulative", by="bin")
    area = f"sum({positives} * ({under} - {negatives} / 2)) / (sum({positives}) * sum({negatives}))"
    tied = sk.roc_auc_score(truth, np.searchsorted(edges, data.scores, side="left"))
    assert prometheus.value(area) == pytest.approx(tied, rel=1e-12)
    assert prometheus.value(area) == pytest.approx(sk.roc_auc_score(truth, data.scores), abs=1e-3)
    # the mean of what the replicas say by themselves is something else
    assert prometheus.value("count(mlexporter_performance_roc_auc_ratio)") == 4  # two windows each
    assert prometheus.value("avg(mlexporter_performance_roc_auc_ratio)") != pytest.approx(tied, abs=0.02)


@pytest.fixture
def labelled(start_exporter: Start, tmp_path: Path) -> Exporter:
    """An exporter that has labels for models of every task, corrections, unknown ids and two versions."""
    draw = np.random.default_rng(82)
    numbers: list[dict[str, Any]] = [{"x": 0, "prediction": i % 7, "label": i % 11} for i in range(3000)]
    given = [dict(zip(CLASSES, row, strict=True)) for row in draw.dirichlet([1, 1, 1, 1], 3000).tolist()]
    classes: list[dict[str, Any]] = [{"x": 0, "prediction": p, "label": CLASSES[i % 4]} for i, p in enumerate(given)]
    scores = Binary(83, 3000).baseline(tmp_path)
    exporter = start_exporter(
        f"--storage.path={tmp_path}/state",
        config=config_of(
            model("churn", scores),
            model("churn", scores, "2"),
            model("price", built(tmp_path, "numbers", numbers), task="regression"),
            model('an"im\\al é', built(tmp_path, "classes", classes), task="multiclass"),
        ),
    )
    data = Binary(84, 1000)
    for version in ("1", "2"):
        assert exporter.post(OF | {"version": version} | data.columns()).json()["accepted"] == 1000
    tracked(exporter, "churn", 2000)
    kept(exporter, OF | data.truth())
    data.labels[:50] = 1 - data.labels[:50]
    kept(exporter, OF | data.truth())
    kept(exporter, OF | {"labels": [{"id": "nobody", "label": 1}]})
    for name, rows in (("price", numbers), ('an"im\\al é', classes)):
        for row in rows:
            row["features"] = {"x": row.pop("x")}
        assert exporter.post({"model": name, "samples": rows}).json()["accepted"] == 3000
        poll(lambda: exporter.total("mlexporter_labels_total", model=name) == 3000, SECONDS)  # noqa: B023
    exporter.label({"model": "nobody", "id": "x", "label": 1})
    poll(lambda: exporter.total("mlexporter_labels_waiting") == 1, SECONDS)
    return exporter


@needs("promtool")
def test_promtool_has_nothing_to_say(labelled: Exporter) -> None:
    page = labelled.get("/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    for name in (
        "outcomes_total", "outcomes_retracted_total", "score_bin_total", "residuals_total", "labels_waiting",
        "performance_accuracy_ratio", "performance_r2_ratio", "performance_estimated_roc_auc_ratio",
        "performance_gap_recall_ratio", "performance_baseline_f1_ratio", "performance_standard_error",
        "version_agreement_total", "version_right_total", "pending_store_up", "label_delay_seconds_bucket",
    ):  # fmt: skip
        assert f"\nmlexporter_{name}{{".encode() in page or f"\nmlexporter_{name} ".encode() in page, name
    openmetrics = labelled.get("/metrics", Accept=OPENMETRICS)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    samples = [
        sample.value
        for family in parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name.startswith("mlexporter_performance_")
    ]
    assert len(samples) > 100
    assert np.isfinite(samples).all()
    # limits.max_series is held against what they take, so that must not be less than they do
    families = {metric.name for metric in MODEL_METRICS}
    names = [re.sub(r"[{ ].*", "", line) for line in page.decode().splitlines() if line and not line.startswith("#")]
    shown = [name for name in names if name in families or re.sub("_(bucket|sum|count)$", "", name) in families]
    assert 1000 < len(shown) <= labelled.total("mlexporter_series")
