"""From samples to the page: two exporters, Prometheus with the shipped rules, Alertmanager, and who is paged.

One scenario serves all tests: clean traffic, a drift, the page, clean traffic again, the resolution. The exporters tick
at their real pace. Of the rules, copies are loaded in which durations are shorter, and nothing else is changed.
"""

import json
import math
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests

from conftest import baseline, categorical, needs, numeric
from e2e.conftest import Exporter, exporters, free_port, poll
from e2e.prometheus import Prometheus, program, running
from mlexporter.baseline import encode
from mlexporter.samples import Role

# Debian's name, and the one that everybody else has.
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = [
    needs("prometheus"),
    needs("prometheus-alertmanager", "alertmanager"),
]

RULES = Path(__file__).parents[2] / "prometheus" / "rules"
# What is an hour and a day in the shipped rules is 15 and 30 seconds here: a drift that is over is soon forgotten.
SHORTER = {
    "interval: 5m": "interval: 5s",
    "keep_firing_for: 15m": "keep_firing_for: 5s",
    "keep_firing_for: 30m": "keep_firing_for: 5s",
    # of 288 five-minute steps of a day, and of 6 here
    ">= 260": ">= 4",
    "[5m]": "[5s]",
    "[59m]": "[14s]",
    "[1439m]": "[29s]",
}
DURATION = re.compile(r"(\[|(?:interval|keep_firing_for): |\]\)+ >= )\d+[smhd]?\b")

# Two ticks of 15 seconds, and as long again as a busy machine may take.
TICKED_SECONDS = 60.0
PAGE_SECONDS = 120.0
RESOLVED_SECONDS = 180.0
# Longer than a tick: the alerts on pooled counts, which see a drift before the tick, wait for those that come with it.
GROUP_WAIT_SECONDS = 25

GRAFANA = "https://grafana.example"
# Some hundred samples a tick, and drifts that are clear but not wild.
ROWS = 40
BODIES = 100
EDGES = (-3.0, -1.3, -0.8, -0.5, -0.25, 0.0, 0.25, 0.5, 0.8, 1.3, 3.0)
NORMAL = np.clip(np.random.default_rng(0).normal(0, 1, ROWS * BODIES), -2.9, 2.9).round(4)
PLANS = np.repeat(np.array(list("abcdefgh")), np.array([30, 20, 10, 10, 10, 10, 5, 5]) * ROWS * BODIES // 100)
PLANS_REVERSED = np.repeat(np.array(list("hgfedcba")), np.array([30, 20, 10, 10, 10, 10, 5, 5]) * ROWS * BODIES // 100)
WIDE = [f"sensor_{number:02}" for number in range(50)]
CHURN_DRIFTS = {("feature", "income"), ("feature", "plan"), ("prediction", "prediction")}

Alert = dict[str, Any]
Notification = dict[str, Any]


# -- the models and their traffic -------------------------------------------------------------------------------------


def profiles() -> dict[str, bytes]:
    """A baseline file for each model."""
    share = {plan: PLANS.tolist().count(plan) for plan in "abcdefgh"}
    churn = baseline(
        numeric("income", EDGES, NORMAL),
        numeric("age", EDGES, NORMAL),
        categorical("plan", share),
        categorical("region", share),
        numeric("prediction", EDGES, NORMAL, role=Role.PREDICTION),
    )
    return {"churn": encode(churn), "wide": encode(baseline(*(numeric(name, EDGES, NORMAL) for name in WIDE)))}


def bodies(*, drifting: bool) -> list[bytes]:
    """Requests for both models; all of them together are as the baseline, but for what drifts."""
    rng = np.random.default_rng(1)
    moved = NORMAL + 0.7 if drifting else NORMAL
    plans = np.where(rng.random(len(PLANS)) < 0.5, PLANS, PLANS_REVERSED) if drifting else PLANS
    churn = {
        "income": rng.permutation(moved),
        "age": rng.permutation(NORMAL),
        "plan": rng.permutation(plans),
        "region": rng.permutation(PLANS),
    }
    prediction = rng.permutation(moved)
    wide = {name: rng.permutation(moved) for name in WIDE}

    def part(values: Any, number: int) -> Any:
        return values[number * ROWS : (number + 1) * ROWS].tolist()

    requests_: list[bytes] = []
    for number in range(BODIES):
        columns = {
            "features": {name: part(values, number) for name, values in churn.items()},
            "prediction": part(prediction, number),
        }
        requests_.append(json.dumps({"model": "churn", "version": "7", "columns": columns}).encode())
        columns = {"features": {name: part(values, number) for name, values in wide.items()}}
        requests_.append(json.dumps({"model": "wide", "version": "3", "columns": columns}).encode())
    return requests_


class Traffic:
    """Some ten samples a second of each model to each exporter, from a thread."""

    def __init__(self, targets: list[Exporter]) -> None:
        self._targets = targets
        self._clean, self._drifted = bodies(drifting=False), bodies(drifting=True)
        self.drifting = threading.Event()
        self.refused: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(0.5):
            chosen = self._drifted if self.drifting.is_set() else self._clean
            for place, exporter in enumerate(self._targets):
                # each exporter gets other samples than its neighbour at the time
                body = chosen[(number + BODIES * place) % len(chosen)]
                try:
                    answer = exporter.post(body)
                    if answer.status_code != 200 or answer.json()["accepted"] != ROWS:
                        self.refused.append(answer.text)
                except requests.RequestException as error:
                    self.refused.append(repr(error))
            number += 1


# -- Prometheus, Alertmanager, and who is paged -----------------------------------------------------------------------


class Receiver(ThreadingHTTPServer):
    """A webhook that keeps what it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Webhook)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.received: list[Notification] = []

    def of(self, model: str) -> list[Notification]:
        return [told for told in list(self.received) if told["groupLabels"].get("model") == model]

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Receiver)
        self.server.received.append(content | {"at": time.time()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def shortened(text: str) -> str:
    """Rules with shorter durations."""
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


@contextmanager
def alertmanager(folder: Path, receiver: Receiver) -> Iterator[str]:
    assert ALERTMANAGER is not None
    url = f"http://127.0.0.1:{free_port()}"
    config = {
        "route": {
            "receiver": "page",
            "group_by": ["namespace", "job", "model"],
            "group_wait": f"{GROUP_WAIT_SECONDS}s",
            "group_interval": "5s",
            "repeat_interval": "1h",
            "routes": [{"matchers": ["severity = info"], "receiver": "nobody"}],
        },
        "receivers": [{"name": "page", "webhook_configs": [{"url": receiver.url}]}, {"name": "nobody"}],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    command = [
        ALERTMANAGER, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager",
        f"--web.listen-address={url.removeprefix('http://')}", f"--web.external-url={url}",
        "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    with program(command, url, folder / "alertmanager.log"):
        yield url


@contextmanager
def prometheus(folder: Path, targets: list[Exporter], alerts_to: str) -> Iterator[Prometheus]:
    for path in RULES.glob("*.yaml"):
        (folder / path.name).write_text(shortened(path.read_text()))
    config = {
        "global": {
            "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s",
            "external_labels": {"grafana_url": GRAFANA},
        },
        "rule_files": [f"{folder}/mlexporter.*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alerts_to.removeprefix("http://")]}]}]},
        "scrape_configs": [
            {"job_name": "mlexporter", "static_configs": [{"targets": [f"127.0.0.1:{one.port}" for one in targets]}]}
        ],
    }  # fmt: skip
    with running(folder, config) as started:
        yield started


# -- the scenario -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What happened, in Unix time, and what was told of it."""

    prometheus_url: str
    alertmanager_url: str
    alerts_before: list[Alert]
    drift_began: float
    drift_ended: float
    resolved: float
    rules: list[dict[str, Any]]
    notifications: list[Notification]
    refused: list[str]
    prometheus_log: str

    def of(self, model: str) -> list[Notification]:
        return [told for told in self.notifications if told["groupLabels"].get("model") == model]

    def page(self, model: str) -> Notification:
        """The first notification of a model."""
        return self.of(model)[0]


def is_resolved(told: list[Notification]) -> bool:
    return bool(told) and told[-1]["status"] == "resolved"


def has_ticked(exporter: Exporter) -> bool:
    return "\nmlexporter_column_drift_log_evidence{" in exporter.get("/metrics").text


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    folder = tmp_path_factory.mktemp("alerting")
    models = [{"name": "churn", "version": "7"}, {"name": "wide", "version": "3"}]
    for name, content in profiles().items():
        (folder / f"{name}.json").write_bytes(content)
    config = {"models": [model | {"baseline": f"{model['name']}.json"} for model in models]}
    with ExitStack() as stack:
        start = stack.enter_context(exporters(folder))
        targets = [start(config=config, wait=False) for _ in range(2)]
        for exporter in targets:
            exporter.wait_until_ready()
        receiver = stack.enter_context(Receiver())
        alertmanager_url = stack.enter_context(alertmanager(folder, receiver))
        watcher = stack.enter_context(prometheus(folder, targets, alertmanager_url))
        traffic = stack.enter_context(Traffic(targets))

        # A drift that begins just after a tick fills the next one.
        poll(lambda: all(map(has_ticked, targets)), TICKED_SECONDS, lambda: "no tick")
        poll(
            lambda: watcher.value("count(count by (instance) (mlexporter_column_drift_log_evidence))") == 2,
            TICKED_SECONDS,
            lambda: "Prometheus has not seen the evidence of both exporters",
        )
        before = requests.get(f"{watcher.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        told_before = list(receiver.received)
        drift_began = time.time()
        traffic.drifting.set()
        poll(lambda: receiver.of("churn") and receiver.of("wide"), PAGE_SECONDS, lambda: str(receiver.received))
        drift_ended = time.time()
        traffic.drifting.clear()
        poll(
            lambda: is_resolved(receiver.of("churn")) and is_resolved(receiver.of("wide")),
            RESOLVED_SECONDS,
            lambda: "\n".join(told["status"] + " " + str(names(told["alerts"])) for told in receiver.received),
        )
        groups = requests.get(f"{watcher.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
        yield Scenario(
            prometheus_url=watcher.url,
            alertmanager_url=alertmanager_url,
            alerts_before=before + [alert for told in told_before for alert in told["alerts"]],
            drift_began=drift_began,
            drift_ended=drift_ended,
            resolved=time.time(),
            rules=[rule for group in groups for rule in group["rules"]],
            notifications=list(receiver.received),
            refused=list(traffic.refused),
            prometheus_log=(folder / "prometheus.log").read_text(),
        )


def names(alerts: list[Alert]) -> set[tuple[str, str | None, str | None]]:
    return {(a["labels"]["alertname"], a["labels"].get("role"), a["labels"].get("column")) for a in alerts}


def find(notification: Notification, name: str, column: str) -> Alert:
    (alert,) = (
        alert
        for alert in notification["alerts"]
        if (alert["labels"]["alertname"], alert["labels"].get("column")) == (name, column)
    )
    assert isinstance(alert, dict)
    return alert


# -- the tests --------------------------------------------------------------------------------------------------------


def test_the_rules_are_the_shipped_ones_with_shorter_durations() -> None:
    shipped = {path.name: path.read_text() for path in RULES.glob("*.yaml")}
    assert set(shipped) == {"mlexporter.alerts.yaml", "mlexporter.rules.yaml"}
    for name, text in shipped.items():
        assert shortened(text) != text
        assert DURATION.sub(r"\1", shortened(text)) == DURATION.sub(r"\1", text), name
    for long in SHORTER:
        assert any(long in text for text in shipped.values()), f"no rule has {long} any more"


def test_clean_traffic_alerts_nobody(scenario: Scenario) -> None:
    assert scenario.refused == []
    assert scenario.alerts_before == []


def test_prometheus_evaluates_every_rule(scenario: Scenario) -> None:
    assert len(scenario.rules) > 50
    assert {rule["name"]: rule["lastError"] for rule in scenario.rules if rule.get("lastError")} == {}
    assert {rule["health"] for rule in scenario.rules} == {"ok"}
    assert scenario.prometheus_log == ""


def test_the_page_names_what_drifts_and_nothing_else(scenario: Scenario) -> None:
    found = names(scenario.page("churn")["alerts"])
    assert {(role, column) for _, role, column in found} == CHURN_DRIFTS
    assert found == {
        ("MLExporterFeatureDrift", "feature", "income"),
        ("MLExporterFeatureDrift", "feature", "plan"),
        ("MLExporterPredictionDrift", "prediction", "prediction"),
        *(("MLExporterFleetDrift", role, column) for role, column in CHURN_DRIFTS),
    }


def test_every_field_of_the_page_is_filled(scenario: Scenario) -> None:
    page = scenario.page("churn")
    assert page["status"] == "firing"
    assert page["version"] == "4"
    assert page["groupLabels"] == {"job": "mlexporter", "model": "churn"}
    assert page["groupKey"] == '{}:{job="mlexporter", model="churn"}'
    assert page["receiver"] == "page"
    assert page["externalURL"] == scenario.alertmanager_url
    assert page["truncatedAlerts"] == 0
    assert page["commonLabels"].items() >= {"job": "mlexporter", "model": "churn", "version": "7"}.items()

    alert = find(page, "MLExporterFeatureDrift", "income")
    assert alert["status"] == "firing"
    assert alert["labels"] == {
        "alertname": "MLExporterFeatureDrift",
        "severity": "warning",
        "job": "mlexporter",
        "model": "churn",
        "version": "7",
        "role": "feature",
        "column": "income",
        "grafana_url": GRAFANA,
    }
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "evidence", "psi", "runbook_url", "dashboard_url"}
    assert notes["summary"] == "feature income of churn 7 has drifted"
    assert "feature income of model churn 7 has left the tolerance of the page tier" in notes["description"]
    assert f"{notes['evidence']} nats over its threshold" in notes["description"]
    # of two replicas, each has to pass its threshold by ln 2; and it is held 8 over it at most
    assert round(math.log(2), 1) <= float(notes["evidence"]) <= 8.0
    assert 0.1 < float(notes["psi"]) < 10
    assert notes["runbook_url"].endswith("/docs/runbooks/MLExporterFeatureDrift.md")
    link = urlsplit(notes["dashboard_url"])
    assert f"{link.scheme}://{link.netloc}{link.path}" == f"{GRAFANA}/d/mlexporter-column"
    assert parse_qs(link.query, strict_parsing=True) == {
        "var-model": ["churn"], "var-version": ["7"], "var-role": ["feature"], "var-column": ["income"],
        "viewPanel": ["20"],
    }  # fmt: skip
    assert scenario.drift_began <= datetime.fromisoformat(alert["startsAt"]).timestamp() <= page["at"]
    assert alert["generatorURL"].startswith(f"{scenario.prometheus_url}/graph?g0.expr=")
    assert re.fullmatch("[0-9a-f]{16}", alert["fingerprint"])


def test_drift_of_predictions_is_critical(scenario: Scenario) -> None:
    alert = find(scenario.page("churn"), "MLExporterPredictionDrift", "prediction")
    assert (alert["labels"]["severity"], alert["labels"]["role"]) == ("critical", "prediction")


def test_no_alert_has_an_empty_field(scenario: Scenario) -> None:
    by_kind = {
        "MLExporterFeatureDrift": {"evidence", "psi"},
        "MLExporterPredictionDrift": {"evidence", "psi"},
        "MLExporterFleetDrift": {"psi"},
        "MLExporterManyColumnsDrift": set(),
    }
    seen = set()
    for alert in (alert for told in scenario.notifications for alert in told["alerts"]):
        name = alert["labels"]["alertname"]
        seen.add(name)
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"} | by_kind[name]
        assert alert["labels"]["severity"] in {"warning", "critical"}
        for text in (*alert["labels"].values(), *alert["annotations"].values()):
            assert text.strip()
            assert "<" not in text, "a template that failed, or found no value"
        assert (Path(urlsplit(alert["annotations"]["runbook_url"]).path)).stem == name
    assert seen == set(by_kind)


def test_fifty_columns_that_drift_together_are_one_notification(scenario: Scenario) -> None:
    firing = [told for told in scenario.of("wide") if names(told["alerts"]) - names(resolved(told))]
    (page, *later) = firing
    assert page["groupLabels"] == {"job": "mlexporter", "model": "wide"}
    assert names(page["alerts"]) == {
        ("MLExporterManyColumnsDrift", None, None),
        *(("MLExporterFeatureDrift", "feature", column) for column in WIDE),
        *(("MLExporterFleetDrift", "feature", column) for column in WIDE),
    }
    # what is told later is the end of some of it, never anything new
    assert all(resolved(told) for told in later)
    assert all(names(told["alerts"]) <= names(page["alerts"]) for told in later)


def resolved(told: Notification) -> list[Alert]:
    return [alert for alert in told["alerts"] if alert["status"] == "resolved"]


@pytest.mark.parametrize("model", ["churn", "wide"])
def test_the_end_of_the_drift_is_told(scenario: Scenario, model: str) -> None:
    page, *later = scenario.of(model)
    assert resolved(page) == []
    over = [alert for told in later for alert in resolved(told)]
    assert names(over) == names(page["alerts"])
    assert later[-1]["status"] == "resolved"
    assert later[-1]["groupKey"] == page["groupKey"]
    began = {alert["fingerprint"]: alert["startsAt"] for alert in page["alerts"]}
    for alert in over:
        assert alert["startsAt"] == began[alert["fingerprint"]]
        ended = datetime.fromisoformat(alert["endsAt"]).timestamp()
        assert scenario.drift_ended < ended <= scenario.resolved
