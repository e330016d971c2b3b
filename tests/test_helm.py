"""The application chart: what it renders is valid, restricted, and has the rules and dashboards as they are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from charts import (
    CI,
    NEEDS,
    VERSIONS,
    abridged,
    check,
    each_helm,
    kinds,
    objects,
    pods,
    render,
    run,
    same_as_golden,
    without_blank_lines,
)  # fmt: skip
from helm.charts import CHART, ROOT, matcher
from pod_security import violations

MONITORED = CHART / "ci" / "monitored-values.yaml"
each_use = pytest.mark.parametrize("path", CI, ids=lambda path: path.stem.removesuffix("-values"))


# -- renderings --------------------------------------------------------------------------------------------------------


@each_helm
@each_use
def test_lint_has_nothing_to_say(path: Path, program: str) -> None:
    options = [f"--set={key}.enabled=false" for key in NEEDS]
    done = run("lint", "--strict", CHART, "--values", path, "--kube-version=1.32", *options, program=program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"\[(?:INFO|WARNING|ERROR)\] .*", done.stdout)) <= {"[INFO] Chart.yaml: icon is recommended"}


@each_use
def test_helm_3_renders_the_same(path: Path) -> None:
    rendered = render("--values", path, program="helm3")
    assert without_blank_lines(rendered) == without_blank_lines(render("--values", path))


@each_use
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(path: Path, version: str) -> None:
    rendered = objects(render("--values", path, version=version))
    assert rendered
    for one in rendered:
        check(one, version)
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        ("monitored", "PodMonitor"),
        ("monitored", "PrometheusRule"),
        ("monitored", "AlertmanagerConfig"),
        ("secured", "ServiceMonitor"),
        ("secured", "Service"),
    ],
)
def test_a_key_that_nobody_knows_is_found(use: str, kind: str) -> None:
    one = kinds(render("--values", CHART / "ci" / f"{use}-values.yaml"))[kind][0]
    check(one, VERSIONS[-1])
    one["spec"]["selektor"] = {}
    with pytest.raises(Exception, match="selektor"):
        check(one, VERSIONS[-1])


def test_a_key_below_a_route_is_found() -> None:
    (one,) = kinds(render("--values", MONITORED))["AlertmanagerConfig"]
    one["spec"]["route"]["routes"][0]["matchers"][0]["regex_"] = True
    with pytest.raises(Exception, match="regex_"):
        check(one, VERSIONS[-1])


def test_the_uses_together_make_everything() -> None:
    made = {kind for path in CI for kind in kinds(render("--values", path))}
    assert made == {
        "AlertmanagerConfig", "ConfigMap", "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor",
        "PrometheusRule", "Secret", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
    }  # fmt: skip


@each_use
def test_golden(path: Path, golden: Path, request: pytest.FixtureRequest) -> None:
    name = path.name.replace("-values", "")
    same_as_golden(abridged(render("--values", path)), golden / "helm" / name, request)


@each_helm
def test_a_package_renders_the_same(program: str, tmp_path: Path) -> None:
    done = run("package", CHART, "--destination", tmp_path, program=program)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert render("--values", MONITORED, chart=package) == render("--values", MONITORED)


# -- security ----------------------------------------------------------------------------------------------------------


@each_use
def test_pods_pass_the_restricted_standard(path: Path) -> None:
    made = list(pods(render("--values", path)))
    assert len(made) == 2
    for pod in made:
        assert violations(pod) == set()
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_labels_are_there_once_and_what_selects_stays() -> None:
    """The API server refuses a key that is there twice; `kinds` does, too."""
    more = "additionalLabels.release=a,podLabels.release=c,podLabels.app\\.kubernetes\\.io/name=other"
    own = "podMonitor.enabled=true,podMonitor.additionalLabels.release=b"
    made = kinds(render("--set", f"{more},{own}"))
    (workload,), (monitor,), (service,) = made["Deployment"], made["PodMonitor"], made["Service"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    found = [one["metadata"]["labels"]["release"] for one in (service, workload, monitor)]
    assert (found, labels["release"]) == (["a", "a", "b"], "c")
    assert service["spec"]["selector"].items() <= labels.items()


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
    """Two of the tests: all of them run on the same bytes, in tests/test_alert_rules.py."""
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
