"""The sidecar that is rendered is run, by a user who may write only the state."""

from pathlib import Path

import pytest

from charts import kinds
from conftest import baseline as made
from conftest import numeric
from consumer import complete, kustomized, pod_of, rendered, sidecar_of
from mlexporter.baseline import encode
from pods import Pod, answers, reachable

BASELINE = encode(made(numeric("age", [20.0, 40.0, 60.0], [25.0, 35.0, 45.0, 55.0] * 50)))


@pytest.mark.parametrize("origin", ["native", "ordinary", "kustomize"])
def test_what_is_rendered_runs(origin: str, tmp_path: Path) -> None:
    if origin == "kustomize":
        text = kustomized()
    else:
        text = rendered(complete(tmp_path), f"--set=mlexporter-sidecar.native={str(origin == 'native').lower()}")
    pod = Pod(text, reachable(tmp_path) / "root", {"churn-baselines": {"churn-7.json": BASELINE}})
    with pod.running() as process:
        assert pod.probe("livenessProbe")
        annotations = pod_of(text)["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(pod.named_port["containerPort"])
        assert answers(f"http://127.0.0.1:{pod.port}/metrics")
        process.terminate()
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said
    assert (pod.places["/var/lib/mlexporter"] / "state.clean").exists()
    assert list(pod.places["/tmp"].iterdir()) == []


def test_the_model_is_told_where_to_send(tmp_path: Path) -> None:
    chart = complete(tmp_path)
    for settings, scheme in (("port=9900", "http"), ("port=9900,mlexporter-sidecar.tls=true", "https")):
        secret = "mlexporter-sidecar.webConfigSecret=web"
        pod = pod_of(rendered(chart, f"--set={secret},mlexporter-sidecar.{settings}"))
        (model,) = pod["spec"]["containers"]
        assert model["env"] == [{"name": "MLEXPORTER_URL", "value": f"{scheme}://localhost:9900/v1/samples"}]
        assert sidecar_of(pod)["ports"][0]["containerPort"] == 9900


def test_nothing_is_left_where_it_is_not_enabled(tmp_path: Path) -> None:
    made = kinds(rendered(complete(tmp_path), "--set=mlexporter-sidecar.enabled=false"))
    assert made.keys() == {"Deployment", "Service"}
    assert "mlexporter" not in str(made["Deployment"][0]["spec"]["template"]["spec"].get("volumes", ""))
