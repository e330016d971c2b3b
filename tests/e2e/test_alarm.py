"""The drift alarm of the real exporter, at its real pace: a tick each 15 seconds."""

import math
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import baseline, categorical, numeric
from e2e.conftest import Exporter, Start, poll
from mlexporter.baseline import encode

PATIENCE = 25.0
ROWS = 1000
EDGES = (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0)
X = np.clip(np.random.default_rng(0).normal(0, 1, 10_000), -2.9, 2.9)
PROFILE = baseline(
    numeric("income", EDGES, X), numeric("steady", EDGES, X), categorical("plan", {"pro": 7000, "free": 3000})
)
EVIDENCE = "mlexporter_column_drift_log_evidence"


def evidence(exporter: Exporter, column: str, tier: str) -> float:
    return exporter.total(EVIDENCE, model="churn", version="7", role="feature", column=column, tier=tier)


def test_an_alarm_goes_on_with_a_tick_and_no_scrape(start_exporter: Start, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(encode(PROFILE))
    model = {"name": "churn", "version": "7", "baseline": "profile.json", "columns": {"plan": {"export_names": False}}}
    exporter = start_exporter(config={"models": [model]})
    begin = time.time()
    features = {
        "income": np.random.default_rng(1).normal(1, 1, ROWS).round(6).tolist(),
        "steady": X[:ROWS].tolist(),
        "plan": ["free"] * ROWS,
    }
    assert exporter.post({"columns": {"features": features}}).json()["accepted"] == ROWS
    ticked = []

    def has_ticked() -> bool:
        ticked.append(
            (EVIDENCE, "income") in {(name, dict(labels).get("column")) for name, labels in exporter.scrape()}
        )
        return ticked[-1]

    poll(has_ticked, PATIENCE)
    assert len(ticked) > 1, "it ticked before anything was there"
    for tier in ("warn", "page"):
        threshold = exporter.total("mlexporter_drift_log_threshold", tier=tier)
        assert threshold == pytest.approx(math.log(3 * 30 * 86400 / 15))
        for column in ("income", "plan"):
            assert evidence(exporter, column, tier) >= threshold
        assert evidence(exporter, "steady", tier) < 4
    first = [evidence(exporter, column, "page") for column in features]
    for _ in range(20):
        assert [evidence(exporter, column, "page") for column in features] == first
    drift = exporter.get("/api/v1/models/churn/versions/7/drift").json()
    told = {column["column"]: column["tiers"]["page"] for column in drift["columns"]}
    assert {name: tier["state"] for name, tier in told.items()} == {
        "income": "firing",
        "steady": "quiet",
        "plan": "firing",
    }
    assert told["income"]["reasons"][0]["direction"] == "mean_up"
    assert told["income"]["reasons"][0]["text"].startswith("mean up by about ")
    assert "category 02 gained 70 points, from 30 % to 100 %" in [reason["text"] for reason in told["plan"]["reasons"]]
    assert begin - 1 < told["income"]["fired"] < time.time() + 1
    assert "free" not in exporter.get("/metrics").text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    page = exporter.get("/metrics").content
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
