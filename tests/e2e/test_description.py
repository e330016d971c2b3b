"""Requests made from the description that a real exporter serves: each is answered as it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson

from conftest import baseline, categorical, numeric, skip_without
from e2e.conftest import Start, sum_of
from mlexporter.baseline import encode
from mlexporter.openapi import document

skip_without("schemathesis")

TESTS = Path(__file__).parents[1]
CHECKS = (
    "only_503_of_5xx", "valid_data_is_taken", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method", "allow_header_conformance",
)  # fmt: skip


def test_every_request_is_answered_as_the_description_says(start_exporter: Start, tmp_path: Path) -> None:
    profile = baseline(numeric("age", (0.0, 10.0), [5.0] * 60), categorical("plan", {"pro": 100}))
    (tmp_path / "churn.json").write_bytes(encode(profile))
    exporter = start_exporter(
        config={
            "models": [{"name": "churn", "version": "7", "baseline": "churn.json"}],
            "discovery": {"enabled": True, "learn_samples": 200, "max_models": 3, "max_columns": 20},
        }
    )
    assert exporter.get("/openapi.json").json() == json.loads(orjson.dumps(document()))
    good = {"model": "churn", "samples": [{"features": {"age": 5, "plan": "pro"}}] * 7}
    assert exporter.post(good).json()["accepted"] == 7
    exporter.get("/metrics")
    before = exporter.memory()
    # Its seed is fixed, so that a commit fails for what is in it. No request may take ten seconds.
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{exporter.url}/openapi.json", f"--checks={','.join(CHECKS)}",
        "--generation-deterministic", "--max-examples=25", "--request-timeout=10", "--continue-on-failure",
        "--no-color", "--suppress-health-check=all",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, (str(TESTS), str(TESTS / "e2e"), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "NO_PROXY": "*"}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]

    series = exporter.scrape()
    requests = {
        (dict(labels)["handler"], dict(labels)["code"]): value
        for (name, labels), value in series.items() if name == "mlexporter_http_requests_total"
    }  # fmt: skip
    handlers = {handler for handler, code in requests if code == "200"}
    assert handlers >= {
        "/v1/samples", "/v1/labels", "/metrics", "/api/v1/status", "/openapi.json", "/-/healthy", "/-/ready",
        "/api/v1/models/<path:model>/versions/<path:version>/baseline",
        "/api/v1/models/<path:model>/versions/<path:version>/drift",
    }  # fmt: skip
    assert sum(requests.values()) > 500
    assert not [code for _, code in requests if code[0] == "5" and code != "503"]
    assert sum_of(series, "mlexporter_samples_rejected_total", reason="internal_error") == 0
    assert exporter.memory() < before + 40
    counted = exporter.total("mlexporter_column_bin_total", model="churn", column="plan", bin="pro")
    assert exporter.post(good).json()["accepted"] == 7
    assert exporter.total("mlexporter_column_bin_total", model="churn", column="plan", bin="pro") == counted + 7
