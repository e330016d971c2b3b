"""Rules and alerts: what they name exists, and promtool finds that each alert fires and stays silent when it should."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from promql import ALERTS, FILES, KNOWN, RECORDED, RULES, Rule, made, names, strangers

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests" / "rules").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"

each_alert = pytest.mark.parametrize("name", ALERTS)
each_test = pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('sum without (pod) (rate(mlexporter_samples_total{model="a{b}"}[5m] offset 1d)) > bool 1e3', set()),
        ("up == 0 and on (job) mlexporter_nothing", {"mlexporter_nothing"}),
        ("mlexporter_inference_duration_seconds", {"mlexporter_inference_duration_seconds"}),
        ("fleet:mlexporter_samples:rate6m * ln(2)", {"fleet:mlexporter_samples:rate6m"}),
        ('mlexporter_samples_total{reason="x",model!="y"}', {"mlexporter_samples_total{reason}"}),
        ("max by (model, tier) (mlexporter_samples_total)", {"(tier)"}),
        ('sum without (new) (label_replace(up, "new", "$1", "job", "(.*)"))', set()),
    ],
)
def test_strangers_are_found(expr: str, expected: set[str]) -> None:
    assert strangers(expr) == expected


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RECORDED, ids=[f"{rule['record']}-{i}" for i, rule in enumerate(RECORDED)])
def test_recording_rules_read_what_exists(rule: Rule) -> None:
    assert strangers(rule["expr"]) == set()


@each_alert
def test_alerts_read_what_exists(name: str) -> None:
    assert strangers(ALERTS[name]["expr"]) == set()


@each_alert
def test_annotations_read_what_exists(name: str) -> None:
    rule = ALERTS[name]
    text = "\n".join(rule["annotations"].values())
    read = set(re.findall(r"(?:fleet:)?mlexporter_[\w:]+", text))
    assert read - KNOWN.keys() == set()
    existing = made(rule["expr"]).union(*(KNOWN[metric] for metric in names(rule["expr"])))
    assert set(re.findall(r"\$labels\.(\w+)", text)) - existing == set()
    # the queries of templates, whose labels are written label=%q and label='...'
    asked = set(re.findall(r"(\w+)=(?:%q|')", text))
    assert asked - existing.union(*(KNOWN[metric] for metric in read)) == set()


def test_every_recorded_name_has_its_form() -> None:
    wrong = {rule["record"] for rule in RECORDED if not re.fullmatch(r"fleet:mlexporter_\w+:\w+", rule["record"])}
    assert wrong == set()


# -- alerts ------------------------------------------------------------------------------------------------------------


def test_every_alert_has_a_test_and_every_test_an_alert() -> None:
    assert {path.name.removesuffix(".test.yaml") for path in TESTS} == ALERTS.keys()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("MLExporter*.md")} == ALERTS.keys()


@each_alert
def test_alerts_say_what_is_to_be_done(name: str) -> None:
    rule = ALERTS[name]
    annotations = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert annotations["summary"]
    assert " first" in annotations["description"], "the first thing to look at"
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
    grafana = re.escape('{{ or $externalLabels.grafana_url "http://localhost:3000" }}')
    link = re.fullmatch(
        grafana + r"/d/mlexporter-(?:column|model|exporter)(?:\?(var-.*)&|\?)viewPanel=\d+",
        annotations["dashboard_url"],
    )
    assert link
    assert (link[1] or "").count("=") == (link[1] or "").count("| urlquery }}")


@each_alert
def test_alerts_fire_and_stay_silent_in_their_tests(name: str) -> None:
    path = ROOT / "tests" / "rules" / f"{name}.test.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {(path.parent / file).resolve() for file in content["rule_files"]} == set(FILES)
    asked = [rule for test in content["tests"] for rule in test.get("alert_rule_test", []) if rule["alertname"] == name]
    told = [alert for rule in asked for alert in rule["exp_alerts"]]
    assert told, "fires"
    assert any(not rule["exp_alerts"] for rule in asked), "stays silent"
    annotations = ALERTS[name]["annotations"].keys()
    assert all(alert["exp_annotations"].keys() == annotations for alert in told)


def test_lines_are_no_longer_than_120() -> None:
    lines = (RULES / "mlexporter.alerts.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and "_url: " not in line] == []


# -- promtool ----------------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", *FILES], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@each_test
def test_promtool_rules(promtool: str, path: Path) -> None:
    command = [promtool, "test", "rules", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
