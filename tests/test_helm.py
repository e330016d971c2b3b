"""The application chart: what it renders is valid, restricted and current; what is wrong is refused with a reason."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import APIS, CI, NEWEST, abridged, check, kinds, objects, pods, refused, render, run
from helm.charts import CHART, ROOT, comments, documents, matcher

MONITORED = CHART / "ci" / "monitored-values.yaml"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

each_use = pytest.mark.parametrize("path", CI, ids=lambda path: path.stem.removesuffix("-values"))


# -- what is made from elsewhere ---------------------------------------------------------------------------------------


def test_everything_that_is_made_is_current() -> None:
    made = documents()
    assert {path for path, content in made.items() if not path.exists() or path.read_bytes() != content} == set()
    assert {path for path in CHART.glob("files/**/*") if path.is_file()} <= made.keys(), "make charts"


def test_the_versions_are_those_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_every_value_has_its_comment() -> None:
    assert [
        key for key, comment in comments((CHART / "values.yaml").read_text(encoding="utf-8")).items() if not comment
    ] == []


def unlike(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys that the values have and the schema has not, or the other way around, and objects that take any key."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema:
        return
    if schema["additionalProperties"] is not False:
        yield path
    for key in values.keys() ^ (schema["properties"].keys() - {"global"}):
        yield f"{path}.{key}"
    for key in values.keys() & schema["properties"].keys():
        if isinstance(values[key], dict):
            yield from unlike(values[key], schema["properties"][key], f"{path}.{key}")


def test_the_schema_has_the_keys_of_the_values() -> None:
    assert list(unlike(VALUES, SCHEMA)) == []


# -- renderings --------------------------------------------------------------------------------------------------------


def test_lint_has_nothing_to_say() -> None:
    for path in CI:
        done = run("lint", "--strict", CHART, "--values", path, "--set", ",".join(
            f"{key}.enabled=false" for key in ("podMonitor", "serviceMonitor", "prometheusRule", "alertmanagerConfig")
        ))  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(re.findall(r"\[(?:INFO|WARNING|ERROR)\] .*", done.stdout)) <= {
            "[INFO] Chart.yaml: icon is recommended"
        }


@each_use
@pytest.mark.parametrize("version", ["1.29", "1.32", NEWEST])
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    rendered = objects(render("--values", path, version=version))
    assert rendered
    for one in rendered:
        check(one, version)
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("use", "kind"), [("monitored", "PodMonitor"), ("monitored", "PrometheusRule"), ("secured", "Service")]
)
def test_a_key_that_nobody_knows_is_found(use: str, kind: str) -> None:
    one = kinds(render("--values", CHART / "ci" / f"{use}-values.yaml"))[kind][0]
    check(one, NEWEST)
    one["spec"]["selektor"] = {}
    with pytest.raises(Exception, match="selektor"):
        check(one, NEWEST)


def test_the_uses_together_make_everything() -> None:
    made = {kind for path in CI for kind in kinds(render("--values", path))}
    assert made == {
        "AlertmanagerConfig", "ConfigMap", "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor",
        "PrometheusRule", "Secret", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
    }  # fmt: skip


@each_use
def test_golden(path: Path, golden: Path, request: pytest.FixtureRequest) -> None:
    file = golden / "helm" / path.name.replace("-values", "")
    text = abridged(render("--values", path))
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_a_package_renders_the_same(tmp_path: Path) -> None:
    done = run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert render("--values", MONITORED, chart=package) == render("--values", MONITORED)


def test_an_install_is_rehearsed_and_its_notes_are_loud() -> None:
    done = run("install", "r", CHART, "--dry-run=client", "--namespace=ml")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "http://r-mlexporter.ml.svc:9877/v1/samples" in notes
    for warning in ("NOBODY SCRAPES IT", "THE STATE IS GONE WITH THE POD", "IT ANSWERS EVERYBODY"):
        assert f"WARNING: {warning}" in notes


# -- security ----------------------------------------------------------------------------------------------------------


@each_use
def test_pods_pass_the_restricted_standard(path: Path) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted; and no token."""
    made = list(pods(render("--values", path)))
    assert len(made) == 2
    for pod in made:
        assert pod["automountServiceAccountToken"] is False
        assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        assert all(volume.keys() - {"name"} <= allowed for volume in pod.get("volumes", ()))
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert all("hostPort" not in port for port in container.get("ports", ()))


def test_the_service_account_has_no_token() -> None:
    (account,) = kinds(render())["ServiceAccount"]
    assert account["automountServiceAccountToken"] is False


def test_the_service_and_the_budget_do_not_take_the_test_for_one_of_theirs() -> None:
    made = kinds(render("--values", CHART / "ci" / "secured-values.yaml"))
    (test,), (workload,) = made["Pod"], made["Deployment"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selectors = [
        made["Service"][0]["spec"]["selector"],
        made["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test["metadata"]["labels"].items()
    let_in = made["NetworkPolicy"][0]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert let_in.items() <= test["metadata"]["labels"].items()


# -- state -------------------------------------------------------------------------------------------------------------


def test_two_pods_never_share_a_volume() -> None:
    assert kinds(render())["Deployment"][0]["spec"]["template"]["spec"]["volumes"][1]["emptyDir"]
    (workload,) = kinds(render("--set=persistence.enabled=true,replicas=3"))["StatefulSet"]
    assert [claim["metadata"]["name"] for claim in workload["spec"]["volumeClaimTemplates"]] == ["state"]
    assert "state" not in [volume["name"] for volume in workload["spec"]["template"]["spec"]["volumes"]]


# -- rules, dashboards, routing ----------------------------------------------------------------------------------------


def test_rules_are_those_of_the_project_byte_for_byte() -> None:
    rendered = render("--values", MONITORED)
    copies = re.findall(r"^kind: PrometheusRule$.*?^spec:\n(.*?)(?=^---$|\Z)", rendered, flags=re.M | re.S)
    plain = {re.sub(r"^  ", "", copy, flags=re.M).rstrip() + "\n" for copy in copies}
    assert plain == {path.read_text(encoding="utf-8") for path in (ROOT / "prometheus" / "rules").glob("*.yaml")}


def test_promtool_accepts_the_rendered_rules_and_their_tests(promtool: str, tmp_path: Path) -> None:
    folder = tmp_path / "prometheus" / "rules"
    folder.mkdir(parents=True)
    for one in kinds(render("--values", MONITORED))["PrometheusRule"]:
        name = one["metadata"]["name"].removeprefix("r-mlexporter-")
        (folder / f"mlexporter.{name}.yaml").write_text(yaml.safe_dump(one["spec"], sort_keys=False), encoding="utf-8")
    assert len(list(folder.iterdir())) == 2
    done = subprocess.run([promtool, "check", "rules", *folder.iterdir()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for alert in ("MLExporterDown", "MLExporterFeatureDrift"):
        test = tmp_path / "tests" / "rules" / f"{alert}.test.yaml"
        test.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / "rules" / test.name, test)
        command = [promtool, "test", "rules", test.name]
        done = subprocess.run(command, cwd=test.parent, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_those_of_the_project_byte_for_byte() -> None:
    maps = [
        one
        for one in kinds(render("--values", MONITORED))["ConfigMap"]
        if "grafana_dashboard" in one["metadata"]["labels"]
    ]
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in maps)
    copies = {name.removeprefix("mlexporter-"): text.encode() for one in maps for name, text in one["data"].items()}
    assert copies == {path.name: path.read_bytes() for path in (ROOT / "grafana" / "dashboards").glob("*.json")}


def test_texts_of_the_values_are_not_rendered() -> None:
    maps = kinds(render("--values", CHART / "ci" / "config-values.yaml"))["ConfigMap"]
    texts = {name: text for one in maps for name, text in one["data"].items()}
    assert texts["notes.json"] == '{"template": "{{ not.rendered }}"}\n'
    assert 'version: "1.10"' in texts["mlexporter.yml"]
    assert "max_rows: 1000000" in texts["mlexporter.yml"]


def test_inhibition_is_that_of_the_example() -> None:
    (config,) = kinds(render("--values", MONITORED))["AlertmanagerConfig"]
    example = yaml.safe_load((ROOT / "prometheus/alertmanager/alertmanager.example.yml").read_text(encoding="utf-8"))
    written = [
        [f'{m["name"]}{m["matchType"]}"{m["value"]}"' for m in rule["targetMatch"]]
        for rule in config["spec"]["inhibitRules"]
    ]
    assert written == [rule["target_matchers"] for rule in example["inhibit_rules"]]
    (route,) = [route for route in example["route"]["routes"] if "MLExporter" in route["matchers"][0]]
    assert config["spec"]["route"]["groupBy"] == route["group_by"]
    names = {receiver["name"] for receiver in config["spec"]["receivers"]}
    assert {one["receiver"] for one in config["spec"]["route"]["routes"]} <= names
    with pytest.raises(ValueError, match="not a matcher"):
        matcher("a")


# -- what is refused ---------------------------------------------------------------------------------------------------

BAD = {
    "podMonitr.enabled=true": "additional properties 'podMonitr' not allowed",
    "podMonitor.enable=true": "at '/podMonitor': additional properties 'enable' not allowed",
    "replicas=0": "at '/replicas': minimum: got 0, want 1",
    "replicas=two": "at '/replicas': got string, want integer",
    "log.level=verbose": "at '/log/level': value must be one of 'debug', 'info', 'warning', 'error'",
    "image.digest=sha256:1": "at '/image/digest'",
    "resources.limits.memory=1GB": "at '/resources/limits/memory'",
    "config.key=a/b": "at '/config/key'",
    "webConfig.scheme=HTTPS": "at '/webConfig/scheme': value must be one of 'http', 'https'",
    "podMonitor.interval=15": "at '/podMonitor/interval': got number, want string",
    "podLabels.tier=1": "at '/podLabels/tier': got number, want string",
    "config.inline=x,config.existingSecret=y": "config.inline, config.existingSecret: give one of them",
    "config.inline=x,baselines.existingClaim=y,baselines.download.image=z": (
        "baselines.existingClaim, baselines.download.image: give one of them"
    ),
    "baselines.existingClaim=x": "baselines: without a configuration nobody reads them",
    "webConfig.inline=tls_server_config:": "webConfig.scheme: webConfig.inline has tls_server_config",
    "webConfig.scheme=https": "webConfig: scheme https, tlsSecret and clientCertificates do nothing without",
    "webConfig.inline=RequireAndVerifyClientCert": "webConfig.clientCertificates: webConfig.inline asks for",
    "persistence.existingClaim=x": "persistence.existingClaim: set persistence.enabled to true, too",
    "persistence.enabled=true,persistence.existingClaim=x,replicas=2": "one volume is for one pod",
    "podMonitor.enabled=true,serviceMonitor.enabled=true": "each pod is scraped twice",
    "podDisruptionBudget.enabled=true,podDisruptionBudget.maxUnavailable=0": "0 keeps its node from ever being drained",
    "podMonitor.enabled=true": "podMonitor.enabled: this cluster has no PodMonitor of monitoring.coreos.com/v1",
    "serviceMonitor.enabled=true": "serviceMonitor.enabled: this cluster has no ServiceMonitor",
    "prometheusRule.enabled=true": "prometheusRule.enabled: this cluster has no PrometheusRule",
    "alertmanagerConfig.enabled=true": "alertmanagerConfig.enabled: this cluster has no AlertmanagerConfig",
}


@pytest.mark.parametrize("settings", BAD)
def test_what_is_wrong_is_refused_with_the_reason(settings: str) -> None:
    assert BAD[settings] in refused("--set", settings)


def test_a_receiver_that_is_not_there_is_refused() -> None:
    options = ["--set", "alertmanagerConfig.enabled=true,alertmanagerConfig.receiver=x", f"--api-versions={APIS[1]}"]
    assert '"x" is none of alertmanagerConfig.receivers' in refused(*options)


def test_an_older_kubernetes_is_refused() -> None:
    assert "requires kubeVersion: >=1.29.0-0" in refused("--kube-version=1.28")
