"""The examples for Alertmanager and Prometheus, held against the programs that read them."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from conftest import needs
from e2e.conftest import free_port, poll
from e2e.prometheus import program

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "prometheus"
EXAMPLE = FOLDER / "alertmanager" / "alertmanager.example.yml"
TEMPLATES = FOLDER / "alertmanager" / "templates"
SECONDS = 30.0

Labels = dict[str, str]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def example() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return config


# -- the configuration ------------------------------------------------------------------------------------------------


@needs("amtool")
def test_amtool_accepts_the_example() -> None:
    assert "SUCCESS" in run("amtool", "check-config", str(EXAMPLE))


@needs("amtool")
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=MLExporterPredictionDrift severity=critical", "mlexporter-trigger,ml-pager"),
        ("alertname=MLExporterInferenceErrors severity=critical", "ml-pager"),
        ("alertname=MLExporterPerformanceDropped severity=critical", "mlexporter-trigger,ml-pager"),
        ("alertname=MLExporterConceptDrift severity=critical", "mlexporter-trigger,ml-pager"),
        ("alertname=MLExporterConceptDriftSuspected severity=info", "nobody"),
        ("alertname=MLExporterEstimatedPerformanceDropped severity=warning", "ml-slack"),
        ("alertname=MLExporterChallengerBetter severity=info", "nobody"),
        ("alertname=MLExporterDown severity=critical namespace=shop", "ml-pager"),
        ("alertname=MLExporterFeatureDrift severity=warning", "mlexporter-trigger,ml-slack"),
        ("alertname=MLExporterMissingValues severity=warning", "ml-slack"),
        ("alertname=MLExporterDriftSuspected severity=info", "nobody"),
        ("alertname=MLExporterTooFewSamples severity=info team=pricing", "nobody"),
        ("alertname=MLExporterPredictionDrift severity=critical team=pricing", "mlexporter-trigger,pricing-pager"),
        ("alertname=MLExporterDown severity=critical team=pricing", "pricing-pager"),
        ("alertname=MLExporterFeatureDrift severity=warning team=pricing", "mlexporter-trigger,pricing-slack"),
        ("alertname=MLExporterNoSamples severity=warning team=unheard-of", "ml-slack"),
        ("alertname=NodeDown severity=critical team=pricing", "ml-slack"),  # not ours
    ],
)
def test_routes(labels: str, receivers: str) -> None:
    found = run("amtool", "config", "routes", "test", f"--config.file={EXAMPLE}", *labels.split())
    assert found.strip() == receivers


def test_one_group_for_one_model_whatever_the_alert() -> None:
    (ours,) = example()["route"]["routes"]
    assert ours["group_by"] == ["cluster", "namespace", "model"]
    below = [route for route in every_route(ours) if route is not ours and "group_by" in route]
    assert [(route["receiver"], route["group_by"]) for route in below] == [
        ("mlexporter-trigger", ["cluster", "namespace", "model", "version", "severity"])
    ]


def every_route(route: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield route
    for below in route.get("routes", ()):
        yield from every_route(below)


def test_warnings_keep_to_working_hours_and_criticals_do_not() -> None:
    timed = {
        (route["matchers"][0], "active_time_intervals" in route)
        for route in every_route(example()["route"])
        if "severity" in str(route.get("matchers")) and "continue" not in route
    }
    assert timed == {('severity="info"', False), ('severity="warning"', True), ('severity="critical"', False)}


def test_secrets_are_files() -> None:
    keys = set(re.findall(r"^\s*-? ?(\w*(?:url|key|password|credentials|token|secret)\w*):", EXAMPLE.read_text(), re.M))
    assert {key for key in keys if not key.endswith("_file")} == {"url"}  # of the webhook, without credentials
    assert "@" not in re.findall(r"- url: (\S+)", EXAMPLE.read_text())[0]


def test_every_alert_that_is_routed_or_inhibited_is_documented() -> None:
    text = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(MLExporter\w+)` \|", text, re.M))
    named = set(re.findall(r"\bMLExporter[A-Z]\w+", EXAMPLE.read_text()))
    for alternatives in re.findall(r"MLExporter\(([\w|]+)\)", EXAMPLE.read_text()):
        named |= {f"MLExporter{name}" for name in alternatives.split("|")}
    assert len(named) > 10
    assert named <= documented


# -- the messages -----------------------------------------------------------------------------------------------------

RUNBOOKS = "https://github.com/mlexporter/mlexporter/blob/main/docs/runbooks"
DASHBOARD = "https://grafana.example.com/d/mlexporter?var-model=churn&var-column=age"
KUBERNETES: dict[str, Any] = {"namespace": "shop", "job": "mlexporter"}


def alert(
    name: str, annotations: dict[str, str] | None = None, *, status: str = "firing", **labels: str
) -> dict[str, Any]:
    given = {"alertname": name, "severity": "warning", "model": "churn", "version": "7"} | labels
    return {
        "status": status,
        "labels": {key: value for key, value in given.items() if value},
        "annotations": {
            "summary": f"Column {labels.get('column')} of churn 7 has drifted",
            "description": "Long.",
            "runbook_url": f"{RUNBOOKS}/{name}.md",
            "dashboard_url": DASHBOARD,
            "evidence": "3.2",
            "psi": "0.25",
        }
        | (annotations or {}),
        "startsAt": "2026-11-21T11:30:00+01:00",
        "endsAt": "2026-11-21T13:00:00+01:00" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "0123456789abcdef",
    }


def drift(column: str = "age", **others: Any) -> Any:
    return alert("MLExporterFeatureDrift", role="feature", column=column, **KUBERNETES, **others)


def common(alerts: list[Any], key: str) -> dict[str, str]:
    first: dict[str, str] = alerts[0][key]
    return {name: value for name, value in first.items() if all(one[key].get(name) == value for one in alerts)}


@pytest.fixture
def render(tmp_path: Path) -> Any:
    def render(template: str, *alerts: Any, html: bool = False) -> str:
        listed = list(alerts)
        labels = common(listed, "labels")
        data = {
            "receiver": "ml-slack",
            "status": "firing" if any(one["status"] == "firing" for one in listed) else "resolved",
            "alerts": listed,
            "groupLabels": {key: labels[key] for key in ("namespace", "model") if key in labels},
            "commonLabels": labels,
            "commonAnnotations": common(listed, "annotations"),
            "externalURL": "http://alertmanager.example.com",
        }
        (tmp_path / "data.json").write_text(json.dumps(data))
        return run(
            "amtool", "template", "render", f"--template.glob={TEMPLATES}/*.tmpl",
            f'--template.text={{{{ template "mlexporter.{template}" . }}}}',
            f"--template.type={'html' if html else 'text'}", f"--template.data={tmp_path}/data.json",
        )  # fmt: skip

    return render


@needs("amtool")
def test_one_firing_in_slack(render: Any) -> None:
    title = "[FIRING:1] MLExporterFeatureDrift model churn version 7 column age namespace shop"
    assert render("slack.title", drift()) == title
    assert render("slack.color", drift()) == "warning"
    assert render("slack.color", drift(severity="critical")) == "danger"
    assert render("link", drift()) == DASHBOARD
    assert render("slack.text", drift()) == (
        "*MLExporterFeatureDrift* model `churn` version `7` feature column `age`\n"
        "Column age of churn 7 has drifted\n"
        "evidence 3.2 nats over the threshold, PSI 0.25, since 2026-11-21 10:30 UTC\n"
        f"<{RUNBOOKS}/MLExporterFeatureDrift.md|What to do> "
        "<https://grafana.example.com/d/mlexporter?var-model=churn&amp;var-column=age|Dashboard>\n"
    )


@needs("amtool")
def test_one_firing_in_plain_text(render: Any) -> None:
    title = "[FIRING:1] MLExporterFeatureDrift model=churn version=7 role=feature column=age namespace=shop"
    assert render("title", drift()) == title
    assert render("text.firing", drift()) == (
        "MLExporterFeatureDrift: model=churn version=7 role=feature column=age namespace=shop\n"
        "  Column age of churn 7 has drifted\n"
        "  evidence 3.2 nats over the threshold, PSI 0.25, since 2026-11-21 10:30 UTC\n"
        f"  what to do: {RUNBOOKS}/MLExporterFeatureDrift.md\n"
        f"  dashboard: {DASHBOARD}\n"
    )
    assert render("text.resolved", drift()) == ""
    mail = render("email.text", drift())
    assert mail.startswith(title)
    assert "\nFiring\n" in mail
    assert "Resolved" not in mail


@needs("amtool")
def test_one_firing_in_html(render: Any) -> None:
    mail = render("email.html", drift(), html=True)
    for part in (
        "<b>MLExporterFeatureDrift</b><br> model=churn version=7 role=feature column=age namespace=shop</td>",
        "evidence 3.2 nats over the threshold, PSI 0.25, since 2026-11-21 10:30 UTC",
        f'<a href="{RUNBOOKS}/MLExporterFeatureDrift.md">What to do</a>',
        f'<a href="{DASHBOARD.replace("&", "&amp;")}">Dashboard</a>',
    ):
        assert part in mail


@needs("amtool")
@pytest.mark.parametrize("template", ["slack.text", "text.firing", "email.text", "email.html"])
def test_fifty_columns_are_ten_lines_and_a_number(render: Any, template: str) -> None:
    message = render(template, *(drift(f"c{i:02}") for i in range(50)), html=template == "email.html")
    assert len(re.findall(r"Column c\d\d of", message)) == 10
    assert "and 40 more" in message
    assert "Column c09 of" in message
    assert "c10" not in message
    assert len(message) < 10_000
    few = render(template, *(drift(f"c{i:02}") for i in range(10)), html=template == "email.html")
    assert len(re.findall(r"Column c\d\d of", few)) == 10
    assert "more" not in few


@needs("amtool")
def test_several_alerts_of_one_model(render: Any) -> None:
    both = (drift(), alert("MLExporterMissingValues", {"evidence": ""}, role="feature", column="plan", **KUBERNETES))
    assert render("title", *both) == "[FIRING:2] 2 mlexporter alerts model=churn version=7 role=feature namespace=shop"
    text = render("slack.text", *both)
    assert text.count("evidence") == 1
    assert "*MLExporterMissingValues* model `churn` version `7` feature column `plan`" in text
    assert "MLExporterMissingValues.md|What to do" in text


@needs("amtool")
def test_resolved(render: Any) -> None:
    gone = drift(status="resolved")
    assert render("slack.title", gone).startswith("[RESOLVED] MLExporterFeatureDrift model churn")
    assert render("slack.color", gone) == "good"
    assert "from 2026-11-21 10:30 UTC to 2026-11-21 12:00 UTC\n" in render("slack.text", gone)
    assert render("text.firing", gone) == ""
    assert "to 2026-11-21 12:00 UTC" in render("text.resolved", gone)
    mail = render("email.html", gone, html=True)
    assert "Resolved</h3>" in mail
    assert "Firing</h3>" not in mail


@needs("amtool")
def test_some_fire_and_some_are_resolved(render: Any) -> None:
    both = (drift("age"), drift("plan", status="resolved"))
    assert render("slack.title", *both).startswith("[FIRING:1] ")
    text = render("slack.text", *both)
    assert "`age`" in text
    assert "plan" not in text
    assert text.endswith("\n1 resolved\n")


@needs("amtool")
def test_without_kubernetes_and_without_grafana(render: Any) -> None:
    bare = alert("MLExporterPredictionDrift", {"dashboard_url": "", "psi": ""}, role="prediction", column="prediction")
    assert render("slack.title", bare) == (
        "[FIRING:1] MLExporterPredictionDrift model churn version 7 column prediction"
    )
    text = render("slack.text", bare)
    assert "Dashboard" not in text
    assert "evidence 3.2 nats over the threshold, since 2026-11-21 10:30 UTC" in text
    assert render("link", bare) == "http://alertmanager.example.com"
    assert "Dashboard" not in render("email.html", bare, html=True)
    assert "namespace" not in render("title", bare)


@needs("amtool")
def test_an_alert_of_the_exporter_itself(render: Any) -> None:
    nothing = {"evidence": "", "psi": ""}
    down = alert("MLExporterDown", nothing, severity="critical", model="", version="", instance="10.0.0.1:9877")
    assert render("title", down) == "[FIRING:1] MLExporterDown instance=10.0.0.1:9877"
    assert render("slack.text", down).startswith("*MLExporterDown* instance `10.0.0.1:9877`\n")
    assert "\nsince 2026-11-21 10:30 UTC\n" in render("slack.text", down)
    assert render("pagerduty.severity", down) == "critical"
    assert render("pagerduty.severity", alert("MLExporterDown", severity="odd")) == "critical"


@needs("amtool")
def test_an_alert_without_annotations(render: Any) -> None:
    bare = alert("MLExporterFeatureDrift", role="feature", column="age")
    bare["annotations"] = {}
    for template in ("slack.text", "text.firing", "email.text", "email.html"):
        message = render(template, bare, html=template == "email.html")
        assert "no value" not in message
        assert "since 2026-11-21 10:30 UTC" in message
    assert render("runbook", bare).startswith("https://")


HOSTILE = "<script>alert(1)</script> <!channel> & `code` | a|b \"q\" '{{ .Labels }}'\n*new line*"


@needs("amtool")
def test_hostile_names(render: Any) -> None:
    links = {"runbook_url": "https://e.com/?a=<!here>|b", "dashboard_url": "javascript:alert(1)", "summary": HOSTILE}
    odd = alert("MLExporterFeatureDrift", links, role="feature", column=HOSTILE, model=HOSTILE)
    title, text = render("slack.title", odd), render("slack.text", odd)
    for message in (title, text):
        assert "<script>" not in message
        assert "<!" not in message
        assert "&lt;!channel&gt; &amp; 'code' | a|b" in message or "&lt;!channel&gt; &amp; `code`" in message
    assert "\n" not in title
    assert len(text.splitlines()) == 4  # what, summary, measure, links
    assert re.findall(r"<[^>]*>", text) == ["<https://e.com/?a=%3C!here%3E%7Cb|What to do>"]
    assert text.splitlines()[0].count("`") == 6
    assert "{{ .Labels }}" in text  # as it came, not executed
    mail = render("email.html", odd, html=True)
    assert "<script>" not in mail
    assert "&lt;script&gt;" in mail
    assert "javascript:" not in mail
    assert "\n" not in render("title", odd)  # a header of the mail


@needs("amtool")
def test_a_message_has_a_bound(render: Any) -> None:
    long = {
        "summary": "&" * 10_000,
        "evidence": "9" * 1000,
        "psi": "9" * 1000,
        "dashboard_url": "https://e.com/" + "x" * 9000,
    }
    alerts = [alert("MLExporterFeatureDrift", long, role="feature", column=f"{i}" + "ü" * 5000) for i in range(50)]
    for template in ("slack.title", "title"):
        assert len(render(template, *alerts)) < 1000
    for template in ("slack.text", "text.firing", "email.text", "email.html"):
        message = render(template, *alerts, html=template == "email.html")
        assert len(message) < 40_000
        assert "\ufffd" not in message  # cut between characters
    assert len(render("title", alerts[0])) < 1024  # what PagerDuty takes


# -- the real Alertmanager --------------------------------------------------------------------------------------------


class Sink:
    """Takes whatever is posted to it and keeps it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.got: list[tuple[str, str | None, Any]] = []

    def bodies(self, path: str) -> list[Any]:
        return [body for at, _, body in list(self.got) if at == path]


@contextmanager
def sinks() -> Iterator[Sink]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.got.append((self.path, self.headers["Authorization"], body))
            self.send_response(202 if self.path == "/pagerduty" else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}" if self.path == "/pagerduty" else b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept = Sink(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with sinks() as sink:
        yield sink


@contextmanager
def running(*command: str, url: str, log: Path) -> Iterator[str]:
    """A server until it is no longer needed."""
    with program(command, url, log):
        yield url


def for_the_test(folder: Path, sink: Sink) -> dict[str, Any]:
    """The example with other secrets and addresses, without waits and at any hour of the day."""
    (folder / "slack-url").write_text(f"{sink.url}/slack")
    for name in ("pagerduty-ml", "pagerduty-pricing", "trigger-token", "smtp-password"):
        (folder / name).write_text(name)
    text = EXAMPLE.read_text(encoding="utf-8").replace("/etc/alertmanager/secrets", str(folder))
    config: dict[str, Any] = yaml.safe_load(text)
    config["global"] |= {"pagerduty_url": f"{sink.url}/pagerduty", "smtp_smarthost": "127.0.0.1:9"}
    config["templates"] = [f"{TEMPLATES}/*.tmpl"]
    for route in every_route(config["route"]):
        route.pop("active_time_intervals", None)
        for wait in ("group_wait", "group_interval"):
            if wait in route:
                route[wait] = "1s"
    for receiver in config["receivers"]:
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = f"{sink.url}/trigger"
    return config


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "alertmanager.yml").write_text(json.dumps(for_the_test(folder, sink)))
    port = free_port()
    with running(
        "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn",
        url=f"http://127.0.0.1:{port}", log=folder / "log",
    ) as url:  # fmt: skip
        yield url


def post(url: str, alerts: list[Any], **times: str) -> None:
    """Alerts as Prometheus sends them; times are startsAt, which is now if it is not given, and endsAt."""
    bodies = [{"labels": one["labels"], "annotations": one.get("annotations", {})} | times for one in alerts]
    answer = requests.post(f"{url}/api/v2/alerts", json=bodies, timeout=10)
    assert answer.status_code == 200, answer.text


def now() -> str:
    return datetime.now(UTC).isoformat()


@needs("prometheus-alertmanager")
def test_fifty_columns_are_one_message(alertmanager: str, sink: Sink) -> None:
    columns = [drift(f"c{i:02}", model="one-page") for i in range(50)]
    others = [alert("MLExporterMissingValues", model="one-page", role="feature", column="c01", **KUBERNETES)]
    start = now()
    post(alertmanager, columns + others, startsAt=start)
    poll(lambda: "one-page" in str(sink.bodies("/slack")), SECONDS)
    poll(lambda: any("one-page" in str(body) for body in sink.bodies("/trigger")), SECONDS)
    (message,) = (body for body in sink.bodies("/slack") if "one-page" in str(body))
    assert message["channel"] == "#ml-alerts"
    (attachment,) = message["attachments"]
    assert attachment["title"] == "[FIRING:51] 51 mlexporter alerts model one-page version 7 namespace shop"
    assert attachment["text"].endswith("and 41 more\n")
    assert attachment["color"] == "warning"
    post(alertmanager, columns + others, startsAt=start, endsAt=now())
    poll(lambda: "[RESOLVED] 51 mlexporter alerts" in str(sink.bodies("/slack")), SECONDS)
    assert len([body for body in sink.bodies("/slack") if "one-page" in str(body)]) == 2


@needs("prometheus-alertmanager")
def test_a_page(alertmanager: str, sink: Sink) -> None:
    names: dict[str, Any] = {"severity": "critical", "model": "a-page", "team": "pricing", **KUBERNETES}
    predictions = alert("MLExporterPredictionDrift", role="prediction", column="prediction", **names)
    start = now()
    post(alertmanager, [predictions, alert("MLExporterInferenceErrors", {"evidence": ""}, **names)], startsAt=start)
    for path in ("/pagerduty", "/slack", "/trigger"):
        poll(lambda path=path: any("a-page" in str(body) for body in sink.bodies(path)), SECONDS)  # type: ignore[misc]
    (page,) = (body for body in sink.bodies("/pagerduty") if "a-page" in str(body))
    assert page["routing_key"] == "pagerduty-pricing"
    assert page["event_action"] == "trigger"
    payload = page["payload"]
    assert payload["summary"] == "[FIRING:2] 2 mlexporter alerts model=a-page version=7 namespace=shop"
    assert (payload["severity"], payload["component"], payload["group"]) == ("critical", "a-page", "shop")
    details = payload["custom_details"]
    assert (details["model"], details["version"], details["resolved"]) == ("a-page", "7", "")
    since = start.replace("T", " ")[:16]
    assert f"evidence 3.2 nats over the threshold, PSI 0.25, since {since} UTC" in details["firing"]
    assert details["firing"].count("what to do") == 2
    assert [link["text"] for link in page["links"]] == ["What to do", "Dashboard"]
    (told,) = (body for body in sink.bodies("/slack") if "a-page" in str(body))
    assert told["channel"] == "#pricing-alerts"
    # the trigger gets the drift alone, with its token
    (seen,) = ((token, body) for at, token, body in sink.got if at == "/trigger" and "a-page" in str(body))
    assert seen[0] == "Bearer trigger-token"
    assert [one["labels"]["alertname"] for one in seen[1]["alerts"]] == ["MLExporterPredictionDrift"]
    assert seen[1]["groupLabels"]["version"] == "7"


JOB = ("job",)
MODEL = (*JOB, "model")
VERSION = (*MODEL, "version")
COLUMN = (*VERSION, "role", "column")
INHIBITED = [
    ("MLExporterDown", "MLExporterDriftSuspected", JOB),
    ("MLExporterDown", "MLExporterFeatureDrift", JOB),
    ("MLExporterDown", "MLExporterFleetDrift", JOB),
    ("MLExporterDown", "MLExporterNoSamples", JOB),
    ("MLExporterDown", "MLExporterTooFewSamples", JOB),
    ("MLExporterDown", "MLExporterReplicasDisagree", JOB),
    ("MLExporterManyColumnsDrift", "MLExporterFeatureDrift", VERSION),
    ("MLExporterManyColumnsDrift", "MLExporterDriftSuspected", VERSION),
    ("MLExporterManyColumnsDrift", "MLExporterFleetDrift", VERSION),
    ("MLExporterBaselinesDiffer", "MLExporterFleetDrift", VERSION),
    ("MLExporterNoSamples", "MLExporterTooFewSamples", MODEL),
    ("MLExporterFleetDrift", "MLExporterFeatureDrift", COLUMN),
    ("MLExporterFeatureDrift", "MLExporterDriftSuspected", COLUMN),
    ("MLExporterPredictionDrift", "MLExporterDriftSuspected", COLUMN),
    ("MLExporterPredictionDrift", "MLExporterFleetDrift", COLUMN),
    ("MLExporterDown", "MLExporterConceptDriftSuspected", JOB),
    ("MLExporterDown", "MLExporterLabelsStopped", JOB),
    ("MLExporterNoSamples", "MLExporterLabelsStopped", MODEL),
    ("MLExporterPendingStoreDown", "MLExporterLabelsStopped", JOB),
    ("MLExporterPendingStoreDown", "MLExporterLabelCoverageLow", JOB),
    ("MLExporterPendingStoreDown", "MLExporterLabelsUnmatched", JOB),
    ("MLExporterLabelsStopped", "MLExporterLabelCoverageLow", MODEL),
    ("MLExporterPerformanceDropped", "MLExporterEstimatedPerformanceDropped", VERSION),
    ("MLExporterConceptDrift", "MLExporterConceptDriftSuspected", VERSION),
]
INFO = ("MLExporterDriftSuspected", "MLExporterTooFewSamples", "MLExporterConceptDriftSuspected")


@needs("prometheus-alertmanager")
@pytest.mark.parametrize("where", [{}, {"namespace": "shop"}, {"cluster": "a", "namespace": "shop"}], ids=len)
@pytest.mark.parametrize(("source", "target", "equal"), INHIBITED)
def test_inhibition(alertmanager: str, source: str, target: str, equal: tuple[str, ...], where: Labels) -> None:
    place = where | {"job": f"{source}-{target}-{len(where)}"}
    labels = place | {"model": "churn", "version": "7", "role": "feature", "column": "age"}
    severity = "info" if target in INFO else "warning"
    cause = {key: labels[key] for key in (*equal, *where)} | {"alertname": source, "severity": "critical", "from": "x"}
    result = labels | {"alertname": target, "severity": severity}
    others = [result | {key: f"another {place['job']}"} for key in (*equal, *where)]
    if not where:
        others.append(result | {"namespace": "shop"})
    post(alertmanager, [{"labels": one} for one in (cause, result, *others)])

    def inhibited(one: Labels) -> bool:
        found = requests.get(f"{alertmanager}/api/v2/alerts", timeout=10).json()
        (status,) = (listed["status"] for listed in found if listed["labels"] == one)
        return bool(status["inhibitedBy"])

    poll(lambda: inhibited(result), SECONDS)
    assert not inhibited(cause)
    assert [one for one in others if inhibited(one)] == []


@needs("prometheus-alertmanager")
def test_an_exporter_that_is_down_silences_nothing_critical(alertmanager: str) -> None:
    labels = {"job": "critical", "severity": "critical", "model": "churn", "version": "7"}
    prediction = labels | {"alertname": "MLExporterPredictionDrift", "role": "prediction", "column": "prediction"}
    warning = labels | {
        "alertname": "MLExporterFeatureDrift",
        "severity": "warning",
        "role": "feature",
        "column": "age",
    }
    down = {"alertname": "MLExporterDown", "job": "critical", "severity": "critical", "instance": "a"}
    post(alertmanager, [{"labels": one} for one in (down, prediction, warning)])

    def inhibited() -> set[str]:
        found = requests.get(f"{alertmanager}/api/v2/alerts?filter=job=critical", timeout=10).json()
        return {one["labels"]["alertname"] for one in found if one["status"]["inhibitedBy"]}

    poll(lambda: inhibited() == {"MLExporterFeatureDrift"}, SECONDS)


@needs("prometheus-alertmanager")
@needs("amtool")
def test_silences_as_they_are_documented(alertmanager: str) -> None:
    section = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8").split("\n## Silence\n")[1].split("\n## ")[0]
    shown = "\n".join(re.findall(r"^```console\n(.*?)^```$", section, re.M | re.S))
    commands = re.findall(r"^\$ (amtool .*)$", re.sub(r"\\\n\s*", "", shown), re.M)

    def amtool(command: str) -> str:
        return run("bash", "-c", command.replace("$ALERTMANAGER", alertmanager))

    try:
        told = [amtool(command) for command in commands]
        silences = requests.get(f"{alertmanager}/api/v2/silences", timeout=10).json()
        assert len(silences) == sum(" silence add " in command for command in commands) == 3
        assert {one["createdBy"] for one in silences} == {"ana"}
        assert told[-2].count("churn") >= 2
        labels = {
            "alertname": "MLExporterFleetDrift",
            "model": "churn",
            "version": "7",
            "column": "age",
            "job": "quiet",
        }
        post(alertmanager, [{"labels": labels}])
        poll(lambda: "MLExporterFleetDrift" in amtool(f"{commands[-1]} job=quiet"), SECONDS)
    finally:
        ids = amtool("amtool --alertmanager.url=$ALERTMANAGER silence query --quiet").split()
        amtool(f"amtool --alertmanager.url=$ALERTMANAGER silence expire {' '.join(ids)}")


# -- the real Prometheus ----------------------------------------------------------------------------------------------

POD = "__meta_kubernetes_pod_"


def without_discovery(pods: list[Labels]) -> dict[str, Any]:
    """The example with pods that are told instead of asked for: not every build of Prometheus knows Kubernetes."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.example.yml").read_text(encoding="utf-8"))
    _, kubernetes = config["scrape_configs"]
    assert kubernetes.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    kubernetes["static_configs"] = [{"targets": ["10.0.0.9:1"], "labels": pod} for pod in pods]
    return config


@needs("promtool")
def test_promtool_accepts_the_example(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    path.write_text(json.dumps(without_discovery([])))
    assert "SUCCESS" in run("promtool", "check", "config", str(path))
    if (FOLDER / "rules").exists():
        shutil.copytree(FOLDER / "rules", tmp_path / "rules")
        assert "SUCCESS" in run("promtool", "check", "config", str(path))


def pod(name: str, ip: str, *, scrape: str = "true", phase: str = "Running", team: str = "pricing") -> Labels:
    return {
        f"{POD}annotation_prometheus_io_scrape": scrape,
        f"{POD}annotation_prometheus_io_port": "9877",
        f"{POD}phase": phase,
        f"{POD}ip": ip,
        f"{POD}name": name,
        f"{POD}label_team": team,
        "__meta_kubernetes_namespace": "shop",
    }


@needs("prometheus")
def test_labels_as_prometheus_sets_them(tmp_path: Path) -> None:
    """Of pods, and of alerts on their way to Alertmanager."""
    two_ports = [pod("churn-1", "10.0.0.1")] * 2
    others = [pod("no", "10.0.0.3", scrape=""), pod("over", "10.0.0.4", phase="Succeeded")]
    config = without_discovery([*two_ports, pod("churn-2", "fd00::2", team=""), *others])
    config["scrape_configs"] = config["scrape_configs"][1:]
    config["scrape_configs"][0]["scrape_interval"] = "1h"
    config["global"]["evaluation_interval"] = "1s"
    rules = [
        {"alert": "ByNamespace", "expr": "vector(1)", "labels": {"namespace": "pricing-eu"}},
        {"alert": "ByModel", "expr": "vector(1)", "labels": {"namespace": "shop", "model": "price-2"}},
        {"alert": "Nobody", "expr": "vector(1)", "annotations": {"link": "{{ $externalLabels.grafana_url }}/d/x"}},
        {"alert": "Kept", "expr": "vector(1)", "labels": {"team": "fraud", "model": "price-2"}},
    ]
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "test.yaml").write_text(json.dumps({"groups": [{"name": "test", "rules": rules}]}))
    port = free_port()
    with sinks() as sink:
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [sink.url.removeprefix("http://")]}]}]
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with running(
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", "--rules.alert.resend-delay=1s",
            url=f"http://127.0.0.1:{port}", log=tmp_path / "log",
        ) as url:  # fmt: skip

            def sent() -> dict[str, Any]:
                return {one["labels"]["alertname"]: one for body in sink.bodies("/api/v2/alerts") for one in body}

            poll(lambda: len(sent()) == len(rules), SECONDS)
            targets = requests.get(f"{url}/api/v1/targets?state=active", timeout=10).json()["data"]["activeTargets"]
    job = {"job": "mlexporter-kubernetes", "namespace": "shop"}
    assert sorted((one["labels"] for one in targets), key=str) == [
        job | {"instance": "10.0.0.1:9877", "pod": "churn-1", "team": "pricing"},
        job | {"instance": "[fd00::2]:9877", "pod": "churn-2"},
    ]
    teams = {name: one["labels"].get("team") for name, one in sent().items()}
    assert teams == {"ByNamespace": "pricing", "ByModel": "pricing", "Nobody": None, "Kept": "fraud"}
    assert sent()["Nobody"]["labels"] == {"alertname": "Nobody", "cluster": "production"}
    assert sent()["Nobody"]["annotations"] == {"link": "https://grafana.example.com/d/x"}
