"""examples/kubernetes with Kustomize: the sidecar as a component, and the translator for KServe."""

from pathlib import Path

import pytest
import yaml

from charts import VERSIONS, check, objects
from consumer import KSERVE, KUSTOMIZE, complete, kustomized, only, pod_of, rendered, sidecar_of
from pod_security import violations

each_folder = pytest.mark.parametrize("folder", [KUSTOMIZE, KSERVE], ids=["kustomize", "kserve"])


def test_kustomize_makes_what_the_library_makes(tmp_path: Path) -> None:
    mine, theirs = (
        pod_of(kustomized()),
        pod_of(rendered(complete(tmp_path), "--set=mlexporter-sidecar.baselines=null")),
    )
    assert sidecar_of(mine) == sidecar_of(theirs)
    assert mine["metadata"]["annotations"].items() <= theirs["metadata"]["annotations"].items()


def test_kustomize_gives_the_name_of_its_config_map_to_the_pod() -> None:
    text = kustomized()
    (volume,) = [one for one in pod_of(text)["spec"]["volumes"] if one["name"] == "mlexporter-config"]
    assert volume["configMap"]["name"] == only("ConfigMap", text)["metadata"]["name"] != "mlexporter"


@each_folder
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(folder: Path, version: str) -> None:
    made = objects(kustomized(folder))
    assert made
    for one in made:
        check(one, version)


@each_folder
def test_pods_pass_the_restricted_standard(folder: Path) -> None:
    assert violations(pod_of(kustomized(folder))) == set()


def test_the_logger_is_pointed_at_the_translator() -> None:
    """The logger's URL is the Service's name, namespace and port; its target is where the translator listens."""
    text = kustomized(KSERVE)
    service = only("Service", text)
    inference = yaml.safe_load((KSERVE / "inference-service.yaml").read_text(encoding="utf-8"))
    where = "{name}.{namespace}".format(**service["metadata"])
    assert inference["spec"]["predictor"]["logger"] == {"mode": "all", "url": f"http://{where}/"}
    (port,) = service["spec"]["ports"]
    assert port["port"] == 80
    (container,) = pod_of(text)["spec"]["containers"]
    (listening,) = container["ports"]
    assert (listening["name"], listening["containerPort"]) == (port["targetPort"], 8080)
    assert "8080" in (KSERVE / "translate.py").read_text(encoding="utf-8")
