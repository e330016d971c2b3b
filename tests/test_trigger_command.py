"""`mlexporter trigger` as a process: start, end, crash, and the real Alertmanager in front of it."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from alertmanager import Target, body, serving
from conftest import needs
from mlexporter.cli import main

TOKEN = "w3bhook"
SECONDS = 10.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(true: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """What the function gives, once that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := true():
                return found
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"not in {seconds} s: {what}")


class Process:
    """A trigger in a process of its own."""

    def __init__(self, folder: Path, action: str, *options: str, cooldown: str = "1h") -> None:
        (folder / "token").write_text(TOKEN)
        self.folder = folder
        (folder / "trigger.yml").write_text(
            f"""
web: {{bearer_token_file: token}}
journal: {{file: journal}}
actions:
  act: {action}
routes:
  - {{name: drift, matchers: ['alertname=~"MLExporter.*Drift"', severity=critical], action: act, cooldown: {cooldown}}}
retries: {{attempts: 2, first_delay: 10ms}}
"""
        )
        self.port = free_port()
        self.options = options
        self.begin()

    def begin(self) -> None:
        command = [
            sys.executable, "-m", "mlexporter", "trigger", f"--config.file={self.folder / 'trigger.yml'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.format=json", *self.options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        until(lambda: self.get("/-/ready"), "the trigger is ready")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def post(self, content: bytes) -> dict[str, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/alerts", content, {"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            found: dict[str, str] = json.loads(answer.read())
            return found

    def notifications(self, outcome: str) -> float:
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == "mlexporter_trigger_notifications_total" and sample.labels["outcome"] == outcome:
                    return sample.value
        return 0.0

    def journal(self, name: str = "journal") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=SECONDS)


Begin = Callable[..., Process]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    begun: list[Process] = []

    def begin(action: str, *options: str, **more: str) -> Process:
        begun.append(Process(tmp_path, action, *options, **more))
        return begun[-1]

    yield begin
    for each in begun:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_it_ends_at_once_when_it_has_nothing_to_do(begin: Begin) -> None:
    trigger = begin("{http: {url: 'http://127.0.0.1:9/'}}")
    trigger.process.send_signal(signal.SIGHUP)
    until(lambda: any("SIGHUP ignored" in line["msg"] for line in trigger.log()), "SIGHUP is logged")
    start = time.monotonic()
    assert trigger.stop() == 0
    assert time.monotonic() - start < 2
    assert [line["msg"] for line in trigger.log()][-2:] == ["stopping", "stopped"]


def test_a_command_that_runs_at_the_end_is_ended_and_started_again(begin: Begin, tmp_path: Path) -> None:
    script = f"trap '' TERM; echo $$ $MLEXPORTER_RUN >> {tmp_path}/runs; while :; do sleep 0.05; done"
    trigger = begin(f"{{command: {{arguments: [/bin/sh, -c, {json.dumps(script)}]}}}}")
    run = trigger.post(body())["run"]
    runs = tmp_path / "runs"
    until(lambda: runs.exists() and runs.read_text().endswith("\n"), "the command runs")
    pid = int(runs.read_text().split()[0])
    start = time.monotonic()
    assert trigger.stop() == 0
    assert time.monotonic() - start < 5
    until(lambda: not Path(f"/proc/{pid}").exists(), "the command has ended")
    assert [(line["event"], line.get("outcome")) for line in trigger.journal()] == [
        ("start", None), ("end", "interrupted"),
    ]  # fmt: skip
    trigger.begin()
    assert trigger.post(body()) == {"outcome": "started", "route": "drift", "run": run}
    until(lambda: runs.read_text().count("\n") == 2, "the command runs again")
    assert [line.split()[1] for line in runs.read_text().splitlines()] == [run, run]
    assert trigger.stop() == 0


def test_a_request_that_hangs_does_not_hold_up_the_end(begin: Begin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        trigger = begin(f"{{http: {{url: 'http://127.0.0.1:{silent.getsockname()[1]}/', timeout: 1m}}}}")
        trigger.post(body())
        connection, _ = silent.accept()
        start = time.monotonic()
        assert trigger.stop() == 0
        assert time.monotonic() - start < 5
        connection.close()
    assert trigger.journal()[-1]["outcome"] == "interrupted"


def test_a_crash_in_the_middle_of_a_run(begin: Begin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        trigger = begin(f"{{http: {{url: 'http://127.0.0.1:{silent.getsockname()[1]}/', timeout: 1m}}}}")
        run = trigger.post(body())["run"]
        trigger.stop(signal.SIGKILL)
        with (trigger.folder / "journal").open("ab") as file:
            file.write(b'{"time":"2026-02-0')
        trigger.begin()
        assert any("cut off" in line["msg"] for line in trigger.log())
        assert trigger.post(body())["run"] == run
        assert trigger.stop() == 0


def test_a_dry_run(begin: Begin) -> None:
    with serving(Target()) as target:
        trigger = begin(f"{{http: {{url: '{target.url}/x', body: {{m: '{{{{ labels.model }}}}'}}}}}}", "--dry-run")
        assert trigger.post(body())["outcome"] == "started"
        said = until(
            lambda: [line for line in trigger.log() if line["msg"] == "run ended"], "the log says what it would do"
        )
        assert said[0]["detail"] == f'dry run, would POST {target.url}/x {{"m":"churn"}}'
        assert trigger.stop() == 0
        assert target.requests == []
        assert not (trigger.folder / "journal").exists()
        assert [line["event"] for line in trigger.journal("journal.dry-run")] == ["start", "end"]
    assert TOKEN not in (trigger.folder / "log").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": None}, "web.bearer_token_file: {folder}/token: cannot be read: No such file or directory"),
        ({"token": " \n"}, "web.bearer_token_file: {folder}/token: holds no token; a token is printable ASCII"),
        ({"trigger.yml": "web: 1\n"}, "{folder}/trigger.yml:1:1: journal: missing, and required"),
        ({"journal": "no/journal"}, "journal.file: {folder}/no/journal: cannot be opened: No such file or directory"),
    ],
)
def test_what_keeps_it_from_starting(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    files = {
        "token": "x",
        "trigger.yml": f"journal: {{file: {change.pop('journal', 'journal')}}}\n"
        "web: {bearer_token_file: token}\n"
        "actions: {a: {argo: {server: 'http://a', namespace: n, workflow_template: t, token_file: token}}}\n"
        "routes: [{name: r, matchers: [a=b], action: a}]",
        **change,
    }
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_text(content)
    address = f"--web.listen-address=127.0.0.1:{free_port()}"
    result = CliRunner().invoke(main, ["trigger", f"--config.file={tmp_path / 'trigger.yml'}", address])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mlexporter: " + message.format(folder=tmp_path))


# -- with the real Alertmanager ---------------------------------------------------------------------------------------

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
AMTOOL = shutil.which("amtool")


class Alertmanager:
    """The real one, which sends all that it has to a trigger, and repeats every second."""

    def __init__(self, folder: Path, trigger: Process) -> None:
        self.file = folder / "alertmanager.yml"
        self.file.write_text(
            f"""
route:
  receiver: mlexporter-trigger
  group_by: [namespace, model, alertname]
  group_wait: 100ms
  group_interval: 500ms
  repeat_interval: 1s
receivers:
  - name: mlexporter-trigger
    webhook_configs:
      - url: http://127.0.0.1:{trigger.port}/v1/alerts
        send_resolved: true
        http_config:
          authorization:
            credentials_file: {folder / "token"}
"""
        )
        self.port = free_port()
        with (folder / "alertmanager.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(ALERTMANAGER), f"--config.file={self.file}", f"--storage.path={folder / 'am'}",
                    f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip
        until(lambda: self.ask("/-/ready"), "Alertmanager is ready")

    def ask(self, path: str, content: object = None) -> bool:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)

    def post(self, *, firing: bool, **labels: str) -> None:
        now = datetime.now(UTC)
        alert = {
            "labels": {
                "alertname": "MLExporterPredictionDrift", "severity": "critical", "namespace": "prod",
                "model": "churn", "version": "7", "role": "prediction", "column": "prediction", **labels,
            },
            "annotations": {"summary": "drift"},
            "startsAt": (now - timedelta(seconds=1)).isoformat(),
            "endsAt": (now + timedelta(minutes=5) if firing else now).isoformat(),
        }  # fmt: skip
        assert self.ask("/api/v2/alerts", [alert])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=SECONDS)


@needs("amtool")
def test_the_receiver_in_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "retraining.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(route:\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "alertmanager.yml").write_text(shown)
    done = subprocess.run(
        ["amtool", "check-config", tmp_path / "alertmanager.yml"], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 0, done.stderr


@needs("prometheus-alertmanager", "alertmanager")
def test_with_alertmanager(begin: Begin, tmp_path: Path) -> None:
    with serving(Target()) as target:
        body = "{model: '{{ labels.model }}', alerts: '{{ alerts | length }}'}"
        trigger = begin(f"{{http: {{url: '{target.url}/retrain', body: {body}}}}}", cooldown="4s")
        alertmanager = Alertmanager(tmp_path, trigger)
        try:
            started = time.monotonic()
            alertmanager.post(firing=True)
            assert target.came.acquire(timeout=SECONDS)
            assert json.loads(target.requests[0][3]) == {"model": "churn", "alerts": "1"}
            # repeats, and an alert that joins the group, start nothing
            alertmanager.post(firing=True, column="confidence")
            until(lambda: trigger.notifications("repeat") >= 2, "Alertmanager repeats")
            alertmanager.post(firing=False)
            alertmanager.post(firing=False, column="confidence")
            until(lambda: trigger.notifications("resolved") >= 1, "the group is resolved")
            assert len(target.requests) == 1
            # it fires again, which waits for the end of the cool-down
            alertmanager.post(firing=True)
            if time.monotonic() - started < 2.5:
                until(lambda: trigger.notifications("cooldown") >= 1, "the cool-down holds it back")
                assert len(target.requests) == 1
            assert target.came.acquire(timeout=SECONDS)
            assert time.monotonic() - started >= 4
            until(lambda: trigger.notifications("repeat") >= 4, "Alertmanager repeats")
            assert len(target.requests) == 2
            keys = [headers["idempotency-key"] for _, _, headers, _ in target.requests]
            assert len(set(keys)) == 2
            if AMTOOL is not None:
                subprocess.run([AMTOOL, "check-config", alertmanager.file], check=True, capture_output=True, timeout=10)
        finally:
            alertmanager.stop()
        assert trigger.stop() == 0
