"""The library chart helm/mlexporter-sidecar and examples/kubernetes: what they render, and whether it runs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlexporter import __version__

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "helm" / "mlexporter-sidecar"
CONSUMER = ROOT / "examples" / "kubernetes" / "model-server"
KSERVE = ROOT / "examples" / "kubernetes" / "kserve"
KUSTOMIZE = ROOT / "examples" / "kubernetes" / "kustomize"
BUILT = ROOT / "tools" / "helm" / "bin" / "helm"
HELM = str(BUILT) if BUILT.exists() else shutil.which("helm")
OPERATOR = "--api-versions=monitoring.coreos.com/v1/PodMonitor"
CI = sorted(path.name.removesuffix("-values.yaml") for path in CONSUMER.glob("ci/*-values.yaml"))
HEADING = "| key | default | meaning |"
VALUES: Mapping[str, Any] = yaml.safe_load((LIBRARY / "values.yaml").read_text(encoding="utf-8"))

KUSTOMIZE_BUILT = ROOT / "tools" / "kustomize" / "bin" / "kustomize"
KUSTOMIZE_COMMAND = [str(KUSTOMIZE_BUILT), "build"] if KUSTOMIZE_BUILT.exists() else ["kubectl", "kustomize"]
needs_kustomize = pytest.mark.skipif(
    shutil.which(KUSTOMIZE_COMMAND[0]) is None, reason="kustomize is not installed: make tools/kustomize/bin/kustomize"
)
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed: make tools/helm/bin/helm")


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="session")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The consumer's chart with the library in its place, as `helm dependency build` would put it."""
    chart = tmp_path_factory.mktemp("charts") / "model-server"
    shutil.copytree(CONSUMER, chart, ignore=shutil.ignore_patterns("charts"))
    shutil.copytree(LIBRARY, chart / "charts" / LIBRARY.name)
    return chart


def template(chart: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return helm("template", "churn", str(chart), "--namespace=shop", *arguments)


def rendered(chart: Path, *arguments: str) -> str:
    done = template(chart, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values_of(name: str) -> tuple[str, str]:
    return f"--values={CONSUMER / 'ci' / name}-values.yaml", OPERATOR


def documents(text: str) -> dict[str, Any]:
    """Objects by their kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one}


def pod_of(text: str) -> dict[str, Any]:
    pod: dict[str, Any] = documents(text)["Deployment"]["spec"]["template"]
    return pod


def sidecar_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    spec = pod["spec"]
    (found,) = [one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == "mlexporter"]
    assert isinstance(found, dict)
    return found


def restricted(pod: Mapping[str, Any]) -> Iterator[str]:
    """What the restricted Pod Security Standard forbids in a pod, of what can be in these."""
    spec = pod["spec"]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    yield from (str(volume) for volume in spec.get("volumes", ()) if not set(volume) - {"name"} <= allowed)
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        own, name = container.get("securityContext", {}), container["name"]
        context = {**spec.get("securityContext", {}), **own}
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or "add" in own["capabilities"]:
            yield f"{name}: capabilities"
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            yield f"{name}: root"
        if context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            yield f"{name}: seccomp"
        yield from (f"{name}: host port" for port in container.get("ports", ()) if "hostPort" in port)


@needs_helm
@pytest.mark.parametrize("name", ["default", *CI])
def test_consumer_renders_as_it_did(name: str, consumer: Path, golden: Path, request: pytest.FixtureRequest) -> None:
    text = rendered(consumer, *(() if name == "default" else values_of(name)))
    kept = golden / "helm-sidecar" / f"{name}.yaml"
    if request.config.getoption("--update-golden"):
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8")


@needs_helm
@pytest.mark.parametrize("name", CI)
def test_lint_is_content(name: str, consumer: Path) -> None:
    done = helm("lint", "--strict", str(consumer), values_of(name)[0], "--set=mlexporter-sidecar.scrape=none")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
def test_dependency_is_found_where_the_chart_says(tmp_path: Path) -> None:
    copy = tmp_path / "examples" / "kubernetes" / "model-server"
    shutil.copytree(CONSUMER, copy, ignore=shutil.ignore_patterns("charts"))
    shutil.copytree(LIBRARY, tmp_path / "helm" / LIBRARY.name)
    done = helm("dependency", "build", str(copy))
    assert done.returncode == 0, done.stderr
    assert [one.name for one in (copy / "charts").iterdir()] == [f"mlexporter-sidecar-{__version__}.tgz"]
    assert "restartPolicy: Always" in rendered(copy)


@needs_helm
@pytest.mark.parametrize("kubernetes", ["1.29", "1.32", "1.36"])
@pytest.mark.parametrize("name", CI)
def test_valid_for_kubernetes(name: str, kubernetes: str, consumer: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    text = rendered(consumer, *values_of(name), f"--kube-version={kubernetes}")
    for kind, document in documents(text).items():
        if kind != "PodMonitor":
            validate(document, kubernetes, strict=True)


@needs_helm
@pytest.mark.parametrize("name", CI)
def test_pod_passes_the_restricted_standard(name: str, consumer: Path) -> None:
    pod = pod_of(rendered(consumer, *values_of(name)))
    assert list(restricted(pod)) == []
    if name != "without":
        assert sidecar_of(pod)["securityContext"]["readOnlyRootFilesystem"] is True


@needs_helm
def test_native_sidecar_starts_before_the_model_and_stops_after_it(consumer: Path) -> None:
    """Kubernetes promises it of init containers that restart always, once their startup probe has passed."""
    spec = pod_of(rendered(consumer))["spec"]
    (sidecar,) = spec["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("mlexporter", "Always")
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/-/ready"
    assert "lifecycle" not in sidecar
    assert [one["name"] for one in spec["containers"]] == ["model"]


@needs_helm
def test_ordinary_one_outlives_the_model_within_the_grace_of_the_pod(consumer: Path) -> None:
    spec = pod_of(rendered(consumer, *values_of("ordinary"), "--kube-version=1.25"))["spec"]
    assert "initContainers" not in spec
    model, sidecar = spec["containers"]
    assert (model["name"], sidecar["name"]) == ("model", "mlexporter")
    assert "restartPolicy" not in sidecar
    python, *rest = sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert (python, rest) == ("python", ["-c", "import time; time.sleep(10)"])
    # five seconds are what the exporter takes to end
    assert spec["terminationGracePeriodSeconds"] >= 10 + 5


@needs_helm
def test_pod_monitor_finds_the_pod_and_its_port(consumer: Path) -> None:
    text = rendered(consumer, *values_of("prometheus-operator"))
    monitor, pod = documents(text)["PodMonitor"], pod_of(text)
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted
    assert wanted.items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in sidecar_of(pod)["ports"]}
    assert not any(key.startswith("prometheus.io/") for key in pod["metadata"]["annotations"]), "scraped twice"


@needs_helm
def test_every_mount_has_its_volume(consumer: Path) -> None:
    for name in set(CI) - {"without"}:
        pod = pod_of(rendered(consumer, *values_of(name)))
        mounted = {mount["name"] for mount in sidecar_of(pod)["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}, name


@needs_helm
def test_claim_of_a_stateful_set_stands_in_for_the_volume(consumer: Path, tmp_path: Path) -> None:
    chart = shutil.copytree(consumer, tmp_path / "chart")
    claims = 'kind: Claims\nitems:\n{{ include "mlexporter-sidecar.volumeClaimTemplates" . }}\n'
    (chart / "templates" / "claims.yaml").write_text(claims, encoding="utf-8")
    text = rendered(chart, "--set=mlexporter-sidecar.state.kind=volumeClaim,mlexporter-sidecar.state.storageClass=fast")
    (claim,) = documents(text)["Claims"]["items"]
    pod = pod_of(text)
    assert (claim["metadata"]["name"], claim["spec"]["storageClassName"]) == ("mlexporter-state", "fast")
    assert "mlexporter-state" in {mount["name"] for mount in sidecar_of(pod)["volumeMounts"]}
    assert "mlexporter-state" not in {volume["name"] for volume in pod["spec"]["volumes"]}


@needs_helm
def test_change_of_the_configuration_is_a_rollout(consumer: Path) -> None:
    sums = {
        pod_of(rendered(consumer, f"--set-string=mlexporter-sidecar.config={config}"))["metadata"]["annotations"][
            "mlexporter.io/config-checksum"
        ]
        for config in ("windows: [1h]", "windows: [2h]", "windows: [1h]")
    }
    assert len(sums) == 2


@needs_helm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kube-version=1.28.9"], "native sidecars need Kubernetes 1.29, and this is v1.28.9"),
        (["--set=mlexporter-sidecar.scrape=podMonitor"], "scrape=podMonitor needs the Prometheus Operator"),
        (["--set=mlexporter-sidecar.existingConfigMap=mine"], "config and existingConfigMap are two configurations"),
        (["--set=mlexporter-sidecar.tls=true"], "tls needs webConfigSecret"),
        (["--set=mlexporter-sidecar.natvie=false"], "additional properties 'natvie' not allowed"),
        (["--set=mlexporter-sidecar.image.tga=1"], "additional properties 'tga' not allowed"),
        (["--set=mlexporter-sidecar.native=maybe"], "at '/native': got string, want boolean"),
        (["--set=mlexporter-sidecar.port=80"], "at '/port': minimum: got 80, want 1,024"),
        (["--set=mlexporter-sidecar.scrape=both"], "at '/scrape': value must be one of 'annotations'"),
        (["--set=mlexporter-sidecar.state.kind=disk"], "at '/state/kind': value must be one of 'emptyDir'"),
        (["--set=mlexporter-sidecar.config.windows=1h"], "at '/config': got object, want string"),
        (["--set=mlexporter-sidecar.image.digest=abc"], "at '/image/digest': 'abc' does not match pattern"),
        (["--set=mlexporter-sidecar.baselines.secret.secretName=b"], "at '/baselines': maxProperties: got 2, want 1"),
    ],
)  # fmt: skip
def test_bad_values_say_what_is_wrong(arguments: list[str], message: str, consumer: Path) -> None:
    done = template(consumer, *arguments)
    assert done.returncode != 0
    assert message in done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def exporter(container: Mapping[str, Any], root: Path, port: int) -> list[str]:
    """The command of a container, with its files under `root` and on a port that is free."""
    moved = [argument.replace("=/", f"={root}/") for argument in container["args"]]
    return [sys.executable, "-m", "mlexporter", *(one.replace(":9877", f"127.0.0.1:{port}") for one in moved)]


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@needs_kustomize
@needs_helm
@pytest.mark.parametrize("origin", ["helm", "kustomize"])
def test_what_is_rendered_runs(origin: str, consumer: Path, tmp_path: Path) -> None:
    text = rendered(consumer, "--set=mlexporter-sidecar.baselines=null") if origin == "helm" else kustomized()
    container, port = sidecar_of(pod_of(text)), free_port()
    (config,) = documents(text)["ConfigMap"]["data"].items()
    for mount in container["volumeMounts"]:
        (tmp_path / mount["mountPath"].lstrip("/")).mkdir(parents=True)
    # the example's baseline is the user's: without it the model has to be learned
    text = config[1].replace("    baseline: /etc/mlexporter/baselines/churn-7.json\n", "")
    text += "" if "discovery" in text else "discovery: {enabled: true}\n"
    (tmp_path / "etc/mlexporter/config" / config[0]).write_text(text, encoding="utf-8")
    with subprocess.Popen(exporter(container, tmp_path, port), stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 60
            while not answers(port, container["startupProbe"]["httpGet"]["path"]):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.1)
            assert answers(port, container["livenessProbe"]["httpGet"]["path"])
            assert answers(port, "/metrics")
        finally:
            process.terminate()
        assert process.wait(30) == 0
    assert (tmp_path / "var/lib/mlexporter/state.clean").exists()


def kustomized(folder: Path = KUSTOMIZE) -> str:
    return subprocess.run(
        [*KUSTOMIZE_COMMAND, str(folder)], check=True, capture_output=True, text=True, timeout=60
    ).stdout


@needs_kustomize
@needs_helm
def test_kustomize_makes_what_the_library_makes(consumer: Path) -> None:
    mine, theirs = pod_of(kustomized()), pod_of(rendered(consumer, "--set=mlexporter-sidecar.baselines=null"))
    assert sidecar_of(mine) == sidecar_of(theirs)
    assert list(restricted(mine)) == []
    assert mine["metadata"]["annotations"].items() <= theirs["metadata"]["annotations"].items()


@needs_kustomize
def test_kustomize_gives_the_name_of_its_config_map_to_the_pod() -> None:
    text = kustomized()
    (volume,) = [one for one in pod_of(text)["spec"]["volumes"] if one["name"] == "mlexporter-config"]
    assert volume["configMap"]["name"] == documents(text)["ConfigMap"]["metadata"]["name"] != "mlexporter"


@needs_kustomize
@pytest.mark.parametrize("folder", [KUSTOMIZE, KSERVE], ids=["kustomize", "kserve"])
def test_kustomizations_are_valid_and_restricted(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    text = kustomized(folder)
    for document in documents(text).values():
        validate(document, "1.29", strict=True)
    assert list(restricted(pod_of(text))) == []


@needs_kustomize
def test_logger_is_pointed_at_the_translator() -> None:
    """The logger's URL is the Service's name, namespace and port; its target is where the translator listens."""
    service = documents(kustomized(KSERVE))["Service"]
    inference = yaml.safe_load((KSERVE / "inference-service.yaml").read_text(encoding="utf-8"))
    where = "{name}.{namespace}".format(**service["metadata"])
    assert inference["spec"]["predictor"]["logger"] == {"mode": "all", "url": f"http://{where}/"}
    (port,) = service["spec"]["ports"]
    assert port["port"] == 80
    (container,) = pod_of(kustomized(KSERVE))["spec"]["containers"]
    (listening,) = container["ports"]
    assert (listening["name"], listening["containerPort"]) == (port["targetPort"], 8080)
    assert "8080" in (KSERVE / "translate.py").read_text(encoding="utf-8")


def test_versions_are_those_of_the_package() -> None:
    chart = yaml.safe_load((LIBRARY / "Chart.yaml").read_text(encoding="utf-8"))
    (dependency,) = yaml.safe_load((CONSUMER / "Chart.yaml").read_text(encoding="utf-8"))["dependencies"]
    images = yaml.safe_load((KUSTOMIZE / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    images += yaml.safe_load((KSERVE / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    found = {
        chart["version"],
        chart["appVersion"],
        VALUES["image"]["tag"],
        dependency["version"],
        *(one["newTag"] for one in images),
    }
    assert found == {__version__}


SECTIONS = ("image", "state", "podMonitor")


def test_schema_has_every_value_and_no_other() -> None:
    schema = json.loads((LIBRARY / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*VALUES, "global"}
    for section in SECTIONS:
        assert set(schema["properties"][section]["properties"]) == set(VALUES[section])


def table() -> str:
    """The values with their defaults and comments, as the README has them."""
    lines, above, section = [HEADING, "|---|---|---|"], "", ""
    for line in (LIBRARY / "values.yaml").read_text(encoding="utf-8").splitlines():
        key = line.strip().partition(":")[0]
        if line.strip().startswith("#"):
            above += line.strip().removeprefix("#")
        elif above and key:
            section = section if line.startswith(" ") else key
            value = VALUES[section] if section == key else VALUES[section][key]
            path = key if section == key else f"{section}.{key}"
            default = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            lines.append(f"| `{path}` | {'' if path in SECTIONS else f'`{default}`'} | {above.strip()} |")
            above = ""
        else:
            above = ""
    return "\n".join(lines) + "\n"


def test_each_value_has_a_comment() -> None:
    paths = {*VALUES, *(f"{section}.{key}" for section in SECTIONS for key in VALUES[section])}
    assert set(re.findall(r"^\| `([\w.]+)`", table(), re.MULTILINE)) == paths


def test_readme_has_the_values(request: pytest.FixtureRequest) -> None:
    readme = LIBRARY / "README.md"
    before = readme.read_text(encoding="utf-8").partition(HEADING)[0]
    if request.config.getoption("--update-golden"):
        readme.write_text(before + table(), encoding="utf-8")
    assert readme.read_text(encoding="utf-8") == before + table()
