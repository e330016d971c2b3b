"""The library chart helm/mlexporter-sidecar, by what a model server's chart renders with it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from charts import GROUP, OPERATOR, VERSIONS, check, each_helm, objects, run, same_as_golden, without_blank_lines
from consumer import (
    CONSUMER,
    KSERVE,
    KUSTOMIZE,
    USES,
    complete,
    only,
    pod_of,
    rendered,
    sidecar_of,
    template,
    values_of,
)  # fmt: skip
from helm.charts import LIBRARY
from mlexporter import __version__
from pod_security import violations


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete(tmp_path_factory.mktemp("charts"))


each_use = pytest.mark.parametrize("use", ["default", *USES])


# -- renderings --------------------------------------------------------------------------------------------------------


@each_use
def test_golden(use: str, consumer: Path, golden: Path, request: pytest.FixtureRequest) -> None:
    same_as_golden(rendered(consumer, *values_of(use)), golden / "helm-sidecar" / f"{use}.yaml", request)


@each_use
def test_helm_3_renders_the_same(use: str, consumer: Path) -> None:
    rendering = rendered(consumer, *values_of(use), program="helm3")
    assert without_blank_lines(rendering) == without_blank_lines(rendered(consumer, *values_of(use)))


@each_helm
@each_use
def test_lint_has_nothing_to_say(use: str, program: str, consumer: Path) -> None:
    options = ("--set=mlexporter-sidecar.scrape=none", "--kube-version=1.32")
    done = run("lint", "--strict", consumer, *values_of(use)[:1], *options, program=program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"\[(?:INFO|WARNING|ERROR)\] .*", done.stdout)) <= {"[INFO] Chart.yaml: icon is recommended"}


@pytest.mark.parametrize("version", VERSIONS)
@each_use
def test_kubernetes_takes_it(use: str, version: str, consumer: Path) -> None:
    made = objects(rendered(consumer, *values_of(use), f"--kube-version={version}"))
    assert made
    for one in made:
        check(one, version)


@each_helm
def test_the_library_is_found_where_the_chart_says(program: str, tmp_path: Path) -> None:
    copy = tmp_path / "examples" / "kubernetes" / "model-server"
    shutil.copytree(CONSUMER, copy, ignore=shutil.ignore_patterns("charts"))
    shutil.copytree(LIBRARY, tmp_path / "helm" / LIBRARY.name)
    done = run("dependency", "build", copy, program=program)
    assert done.returncode == 0, done.stderr
    assert [one.name for one in (copy / "charts").iterdir()] == [f"mlexporter-sidecar-{__version__}.tgz"]
    assert "restartPolicy: Always" in rendered(copy)


@each_helm
def test_a_package_renders_the_same(program: str, consumer: Path, tmp_path: Path) -> None:
    done = run("package", consumer, "--destination", tmp_path, program=program)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("model-server-*.tgz")
    use = values_of("prometheus-operator")
    assert rendered(package, *use) == rendered(consumer, *use)


def test_an_install_is_rehearsed(consumer: Path) -> None:
    done = run("install", "churn", consumer, "--dry-run=client", "--namespace=shop")
    assert done.returncode == 0, done.stderr
    assert "restartPolicy: Always" in done.stdout
    alone = run("install", "churn", LIBRARY, "--dry-run=client")
    assert "library charts are not installable" in alone.stderr


# -- the pod -----------------------------------------------------------------------------------------------------------


@each_use
def test_pods_pass_the_restricted_standard(use: str, consumer: Path) -> None:
    pod = pod_of(rendered(consumer, *values_of(use)))
    assert violations(pod) == set()
    assert pod["spec"]["automountServiceAccountToken"] is False
    if use != "without":
        assert sidecar_of(pod)["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_container_passes_whatever_the_pod_says(consumer: Path) -> None:
    pod = pod_of(rendered(consumer))
    pod["spec"]["securityContext"] = {}
    assert {who for _, who in violations(pod)} == {"model"}


def test_a_native_sidecar_starts_before_the_model_and_stops_after_it(consumer: Path) -> None:
    """Kubernetes promises it of init containers that restart always, once their startup probe has passed."""
    spec = pod_of(rendered(consumer))["spec"]
    (sidecar,) = spec["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("mlexporter", "Always")
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/-/ready"
    assert "lifecycle" not in sidecar
    assert [one["name"] for one in spec["containers"]] == ["model"]


def test_an_ordinary_one_outlives_the_model_within_the_grace_of_the_pod(consumer: Path) -> None:
    spec = pod_of(rendered(consumer, *values_of("ordinary"), "--kube-version=1.25"))["spec"]
    assert "initContainers" not in spec
    model, sidecar = spec["containers"]
    assert (model["name"], sidecar["name"]) == ("model", "mlexporter")
    assert "restartPolicy" not in sidecar
    python, *rest = sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, rest) == ("python", ["-c", "import time; time.sleep(10)"])
    # five seconds are what the exporter takes to end
    assert spec["terminationGracePeriodSeconds"] >= 10 + 5


def test_the_pod_monitor_finds_the_pod_and_its_port(consumer: Path) -> None:
    text = rendered(consumer, *values_of("prometheus-operator"))
    monitor, pod = only("PodMonitor", text), pod_of(text)
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted
    assert wanted.items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in sidecar_of(pod)["ports"]}
    assert not any(key.startswith("prometheus.io/") for key in pod["metadata"]["annotations"]), "scraped twice"


@each_use
def test_every_mount_has_its_volume(use: str, consumer: Path) -> None:
    pod = pod_of(rendered(consumer, *values_of(use)))
    mounted = set() if use == "without" else {mount["name"] for mount in sidecar_of(pod)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", ())}


def test_the_claim_of_a_stateful_set_stands_in_for_the_volume(consumer: Path, tmp_path: Path) -> None:
    chart = shutil.copytree(consumer, tmp_path / "chart")
    claims = 'kind: Claims\nitems:\n{{ include "mlexporter-sidecar.volumeClaimTemplates" . }}\n'
    (chart / "templates" / "claims.yaml").write_text(claims, encoding="utf-8")
    text = rendered(chart, "--set=mlexporter-sidecar.state.kind=volumeClaim,mlexporter-sidecar.state.storageClass=fast")
    (claim,) = only("Claims", text)["items"]
    pod = pod_of(text)
    assert (claim["metadata"]["name"], claim["spec"]["storageClassName"]) == ("mlexporter-state", "fast")
    assert "mlexporter-state" in {mount["name"] for mount in sidecar_of(pod)["volumeMounts"]}
    assert "mlexporter-state" not in {volume["name"] for volume in pod["spec"]["volumes"]}


def test_a_change_of_the_configuration_is_a_rollout(consumer: Path) -> None:
    sums = {
        pod_of(rendered(consumer, f"--set-string=mlexporter-sidecar.config={config}"))["metadata"]["annotations"][
            "mlexporter.io/config-checksum"
        ]
        for config in ("windows: [1h]", "windows: [2h]", "windows: [1h]")
    }
    assert len(sums) == 2


# -- what is refused ---------------------------------------------------------------------------------------------------

MONITOR = "scrape=podMonitor"
BAD = {
    MONITOR: (
        "mlexporter-sidecar.scrape: this cluster has no monitoring.coreos.com/v1/PodMonitor. Install the CRDs of the "
        "Prometheus Operator first (kube-prometheus-stack has them), or say scrape=annotations; for `helm template`, "
        "say --api-versions=monitoring.coreos.com/v1/PodMonitor"
    ),
    "existingConfigMap=mine": "mlexporter-sidecar: config and existingConfigMap are two configurations: give one",
    "tls=true": "mlexporter-sidecar.tls: it needs webConfigSecret, whose web.yml has the certificate",
    "natvie=false": "additional properties 'natvie' not allowed",
    "image.tga=1": "at '/image': additional properties 'tga' not allowed",
    "native=maybe": "at '/native': got string, want boolean",
    "port=80": "at '/port': minimum: got 80, want 1,024",
    "scrape=both": "at '/scrape': value must be one of 'annotations', 'podMonitor', 'none'",
    "state.kind=disk": "at '/state/kind': value must be one of 'emptyDir', 'volumeClaim', 'none'",
    "state.size=1GB": "at '/state/size': '1GB' does not match pattern",
    "config.windows=1h": "at '/config': got object, want string",
    "image.digest=abc": "at '/image/digest': 'abc' does not match pattern",
    "baselines.secret.secretName=b": "at '/baselines': maxProperties: got 2, want 1",
    "resources.limits.memory=1GB": "at '/resources/limits/memory': '1GB' does not match pattern",
    "image=null": "missing property 'image'",
    "state.kind=null": "at '/state': missing property 'kind'",
    "podMonitor.intervall=1m": "at '/podMonitor': additional properties 'intervall' not allowed",
}


@each_helm
@pytest.mark.parametrize("settings", BAD)
def test_what_is_wrong_is_refused_with_the_reason(settings: str, program: str, consumer: Path) -> None:
    done = template(consumer, f"--set=mlexporter-sidecar.{settings}", program=program)
    assert done.returncode != 0
    assert BAD[settings] in done.stderr


def test_a_cluster_with_other_kinds_of_the_operator_is_refused(consumer: Path) -> None:
    others = [one for one in OPERATOR if not one.endswith("PodMonitor")]
    done = template(consumer, f"--set=mlexporter-sidecar.{MONITOR}", *GROUP, *others)
    assert BAD[MONITOR] in done.stderr


def test_an_older_kubernetes_is_refused(consumer: Path) -> None:
    done = template(consumer, "--kube-version=1.28.9")
    assert (
        "mlexporter-sidecar.native: native sidecars need Kubernetes 1.29, and this is v1.28.9: say native=false"
        in done.stderr
    )


# -- what is made from elsewhere ---------------------------------------------------------------------------------------


def test_the_versions_are_those_of_the_package() -> None:
    chart = yaml.safe_load((LIBRARY / "Chart.yaml").read_text(encoding="utf-8"))
    (dependency,) = yaml.safe_load((CONSUMER / "Chart.yaml").read_text(encoding="utf-8"))["dependencies"]
    tag = yaml.safe_load((LIBRARY / "values.yaml").read_text(encoding="utf-8"))["image"]["tag"]
    images = [
        image["newTag"]
        for folder in (KUSTOMIZE, KSERVE)
        for image in yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    ]
    assert {chart["version"], chart["appVersion"], dependency["version"], tag, *images} == {__version__}
