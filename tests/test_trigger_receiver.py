"""Notifications to runs, over real sockets: what is answered, what is started, what is counted."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alertmanager import Target, alert, body, serving
from conftest import Clock
from mlexporter.metrics import trigger as metrics
from mlexporter.trigger import config
from mlexporter.trigger.actions import Command, Request, Result
from mlexporter.trigger.app import Incoming, TriggerApplication
from mlexporter.trigger.journal import Journal
from mlexporter.trigger.ledger import Ledger
from mlexporter.trigger.listener import Listener
from mlexporter.trigger.receiver import Receiver
from mlexporter.trigger.runner import Perform, perform, rehearse
from mlexporter.trigger.telemetry import Outcome

TOKEN = "w3bhook"
CONFIG = """
web: {bearer_token_file: token, max_body_bytes: 64KiB}
journal: {file: journal}
actions:
  a: {http: {url: "%s/a", body: {model: "{{ labels.model }}"}}}
  b: {http: {url: "%s/b", headers: {X-Key: "s3cret"}, bearer_token_file: target-token}}
  broken: {http: {url: "%s/c", body: "{{ labels.nope }}"}}
routes:
  - {name: broken, matchers: [model=broken], action: broken}
  - {name: critical, matchers: [severity=critical, 'alertname=~"MLExporter.*"'], action: a, cooldown: 1h}
  - {name: rest, matchers: ['severity=~"warning|info"'], action: b}
queue: {workers: 1, length: 2}
retries: {attempts: 3, first_delay: 10ms, longest_delay: 20ms}
"""


class Trigger:
    """A whole trigger but the command line, with a clock of its own."""

    def __init__(self, folder: Path, url: str, perform: Perform = perform, *, dry_run: bool = False) -> None:
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "target-token").write_text("t4rget")
        self.folder = folder
        self.clock = Clock()
        text = CONFIG % (url, url, url)
        self.settings = config.parse(text, name="t", folder=folder)
        self.done = threading.Semaphore(0)
        self._perform = perform
        self._dry_run = dry_run
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal", 1 << 20)
        forget_after = self.settings.journal.forget_after
        ledger = Ledger(self.journal, self.clock, forget_after, dry_run=self._dry_run)
        self.receiver = Receiver(self.settings, ledger, self.clock, self._perform)
        ended = self.receiver._runner._ended

        def note(*given: Any) -> None:
            ended(*given)
            self.done.release()

        self.receiver._runner._ended = note
        self.app = TriggerApplication(self.settings.web, self.receiver)
        self.app.ready.set()

    def close(self) -> None:
        self.receiver.stop()
        self.journal.close()

    def send(self, content: bytes) -> tuple[int, dict[str, Any]]:
        reply = self.app.answer(
            Incoming(
                method="POST",
                path="/v1/alerts",
                body=lambda length: content[:length],
                authorization=f"Bearer {TOKEN}",
                length=str(len(content)),
            )
        )
        return reply.code, json.loads(reply.body)

    def outcome(self, content: bytes) -> str:
        return str(self.send(content)[1]["outcome"])

    def wait(self) -> None:
        assert self.done.acquire(timeout=5)

    def value(self, name: str, **labels: str) -> float:
        page = self.receiver.telemetry.page(openmetrics=False).decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        raise AssertionError(name, labels)


Build = Callable[..., Trigger]


@pytest.fixture
def target() -> Iterator[Target]:
    with serving(Target(200)) as target:
        yield target


@pytest.fixture
def build(tmp_path: Path, target: Target) -> Iterator[Build]:
    built: list[Trigger] = []

    def build(perform: Perform = perform, **more: Any) -> Trigger:
        built.append(Trigger(tmp_path, target.url, perform, **more))
        return built[-1]

    yield build
    for trigger in built:
        trigger.receiver.stop()


def test_once_for_each_time_that_a_group_fires(build: Build, target: Target) -> None:
    trigger = build()
    code, answer = trigger.send(body())
    assert (code, answer["outcome"], answer["route"], len(answer["run"])) == (202, "started", "critical", 32)
    trigger.wait()
    ((_, path, headers, content),) = target.requests
    assert (path, json.loads(content), headers["idempotency-key"]) == ("/a", {"model": "churn"}, answer["run"])
    for _ in range(5):
        assert trigger.send(body(alert(), alert(column="confidence")))[0] == 200
    assert trigger.outcome(body(alert(), alert("resolved", column="x"))) == "repeat"
    assert trigger.outcome(body(alert("resolved"))) == "resolved"
    assert trigger.outcome(body()) == "cooldown"
    trigger.clock.now += 3600
    assert trigger.outcome(body()) == "started"
    trigger.wait()
    assert len(target.requests) == 2
    assert target.requests[0][2]["idempotency-key"] != target.requests[1][2]["idempotency-key"]
    for outcome, count in {"started": 2, "repeat": 6, "cooldown": 1, "resolved": 1, "invalid": 0}.items():
        assert trigger.value(metrics.TRIGGER_NOTIFICATIONS.name, outcome=outcome) == count
    assert trigger.value(metrics.TRIGGER_RUNS.name, route="critical", outcome="succeeded") == 2
    assert trigger.value(metrics.TRIGGER_LAST_START.name, route="critical") == trigger.clock.now
    assert trigger.value(f"{metrics.TRIGGER_RUN_DURATION.name}_count", route="critical") == 2


def test_many_at_once_start_one(build: Build, target: Target) -> None:
    trigger = build()
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(trigger.outcome(body()))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["repeat"] * 15 + ["started"]
    trigger.wait()
    assert len(target.requests) == 1


def test_the_first_route_that_one_alert_fulfils(build: Build, target: Target) -> None:
    trigger = build()
    assert trigger.send(body(alert(severity="none"), key="1"))[1] == {"outcome": "no_route", "route": "", "run": ""}
    warning, critical = alert(severity="warning", model="w"), alert(model="c")
    assert trigger.send(body(warning, critical, key="2"))[1]["route"] == "critical"
    trigger.wait()
    assert json.loads(target.requests[0][3]) == {"model": "c"}
    assert trigger.send(body(warning, {**critical, "status": "resolved"}, key="3"))[1]["route"] == "rest"
    trigger.wait()
    assert trigger.send(body(alert(alertname="Other"), key="4"))[1]["outcome"] == "no_route"


def test_a_target_that_fails_is_tried_again_within_bounds(build: Build, target: Target) -> None:
    trigger = build()
    target.answers = [503, 500, 200]
    trigger.send(body())
    trigger.wait()
    assert len(target.requests) == 3
    assert len({headers["idempotency-key"] for _, _, headers, _ in target.requests}) == 1
    assert trigger.outcome(body()) == "repeat"
    target.answers = [503]
    trigger.send(body(key="other"))
    trigger.wait()
    assert len(target.requests) == 6
    assert trigger.value(metrics.TRIGGER_RUNS.name, route="critical", outcome="failed") == 1
    # the target is there again when Alertmanager repeats
    target.answers = [200]
    assert trigger.outcome(body(key="other")) == "started"
    trigger.wait()
    assert trigger.outcome(body(key="other")) == "repeat"
    lines = [json.loads(line) for line in (trigger.folder / "journal").read_text().splitlines()]
    assert [(line["outcome"], line["attempts"]) for line in lines if line["event"] == "end"] == [
        ("succeeded", 3), ("failed", 3), ("succeeded", 1),
    ]  # fmt: skip


def test_a_refusal_is_not_tried_again(build: Build, target: Target) -> None:
    trigger = build()
    target.answers = [400]
    trigger.send(body())
    trigger.wait()
    assert len(target.requests) == 1


def test_a_template_that_does_not_fit_the_alert(build: Build, target: Target) -> None:
    trigger = build()
    assert trigger.send(body(alert(model="broken")))[1]["route"] == "broken"
    trigger.wait()
    assert target.requests == []
    assert "has no attribute 'nope'" in (trigger.folder / "journal").read_text()


def test_state_survives_a_restart(build: Build, target: Target) -> None:
    trigger = build()
    trigger.send(body())
    trigger.wait()
    started = trigger.clock.now
    trigger.close()
    trigger.clock.now += 60
    trigger.open()
    assert trigger.outcome(body()) == "repeat"
    assert trigger.value(metrics.TRIGGER_LAST_START.name, route="critical") == started
    trigger.receiver.stop()


class Blocked:
    """Attempts that go on until they are let go or the trigger stops."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, _: Request | Command, stopping: threading.Event) -> Result:
        self.begun.release()
        while not self.go.wait(0.01):
            if stopping.is_set():
                return Result("interrupted", "stopped")
        return Result("succeeded", "done")


def test_a_full_queue_is_told_so_that_alertmanager_comes_again(build: Build) -> None:
    blocked = Blocked()
    trigger = build(blocked)
    assert trigger.outcome(body(key="0")) == "started"
    assert blocked.begun.acquire(timeout=5)
    assert [trigger.outcome(body(key=str(i))) for i in (1, 2, 3)] == ["started", "started", "queue_full"]
    assert trigger.value(metrics.TRIGGER_QUEUE.name) == 2
    assert trigger.send(body(key="3"))[0] == 503
    blocked.go.set()
    for _ in range(3):
        trigger.wait()
    assert trigger.outcome(body(key="3")) == "started"
    trigger.wait()


def test_what_runs_and_waits_at_the_end_is_tried_again(build: Build) -> None:
    blocked = Blocked()
    trigger = build(blocked)

    def send_three() -> list[dict[str, str]]:
        first = trigger.send(body(key="0"))[1]
        assert blocked.begun.acquire(timeout=5)  # or it is one of the two that may wait
        return [first, *(trigger.send(body(key=str(i)))[1] for i in (1, 2))]

    runs = [each["run"] for each in send_three()]
    trigger.close()
    assert trigger.send(body(key="new"))[0] == 503
    lines = [json.loads(line) for line in (trigger.folder / "journal").read_text().splitlines()]
    ends = [line for line in lines if line["event"] == "end"]
    assert sorted(line["run"] for line in ends) == sorted(runs)
    assert {line["outcome"] for line in ends} == {"interrupted"}
    blocked.go.set()
    trigger.open()
    again = send_three()
    assert [each["outcome"] for each in again] == ["started"] * 3
    assert [each["run"] for each in again] == runs


def test_nothing_starts_that_cannot_be_recorded(build: Build, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = build()

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlexporter.trigger.journal.os.write", fail)
    code, answer = trigger.send(body())
    monkeypatch.undo()
    assert (code, answer["outcome"]) == (503, "not_recorded")
    assert target.requests == []
    assert trigger.outcome(body()) == "started"
    trigger.wait()


def test_a_dry_run_says_what_it_would_do(build: Build, target: Target) -> None:
    trigger = build(rehearse, dry_run=True)
    assert trigger.outcome(body()) == "started"
    trigger.wait()
    assert trigger.outcome(body()) == "repeat"
    assert target.requests == []
    start, end = (json.loads(line) for line in (trigger.folder / "journal").read_text().splitlines())
    assert (start["dry_run"], end["dry_run"]) == (True, True)
    assert end["detail"] == f'dry run, would POST {target.url}/a {{"model":"churn"}}'


def test_no_secret_is_written_down(build: Build, target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    trigger = build()
    target.answers = [500]
    trigger.send(body(alert(severity="warning")))
    trigger.wait()
    assert target.requests[0][2]["x-key"] == "s3cret"
    assert target.requests[0][2]["authorization"] == "Bearer t4rget"
    written = "".join(str(vars(record)) for record in caplog.records) + (trigger.folder / "journal").read_text()
    assert not re.search(f"s3cret|t4rget|{TOKEN}", written)


# -- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening(build: Build) -> Iterator[tuple[Trigger, int]]:
    trigger = build()
    listener = Listener(trigger.app, "127.0.0.1", 0, seconds=0.5)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield trigger, listener.port
    listener.shutdown()
    listener.server_close()
    thread.join()


def ask(port: int, method: str, path: str, content: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=content or None, headers=named)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    connection.close()
    return found


GOOD = {"Authorization": f"Bearer {TOKEN}"}


def test_the_routes(listening: tuple[Trigger, int]) -> None:
    trigger, port = listening
    assert ask(port, "POST", "/v1/alerts", body(), **GOOD)[0] == 202
    trigger.wait()
    assert ask(port, "GET", "/-/healthy")[::2] == (200, b"mlexporter trigger is healthy.\n")
    assert ask(port, "HEAD", "/-/ready")[::2] == (200, b"")
    trigger.app.ready.clear()
    assert ask(port, "GET", "/-/ready?x=1")[0] == 503
    assert ask(port, "GET", "/nowhere")[0] == 404
    assert ask(port, "GET", "/v1/alerts")[:2][1]["allow"] == "POST"
    code, headers, _ = ask(port, "PUT", "/metrics", b"x")
    assert (code, headers["allow"]) == (405, "GET, HEAD")


def test_metrics_in_both_formats(listening: tuple[Trigger, int]) -> None:
    _, port = listening
    code, headers, page = ask(port, "GET", "/metrics")
    assert (code, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# EOF" not in page
    _, headers, page = ask(port, "GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xff"]
)
def test_without_the_token(listening: tuple[Trigger, int], header: str) -> None:
    trigger, port = listening
    code, headers, content = ask(port, "POST", "/v1/alerts", body(), Authorization=header)
    assert (code, headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN.encode() not in content
    assert trigger.value(metrics.TRIGGER_NOTIFICATIONS.name, outcome="unauthorized") == 1


def test_the_token_is_read_anew(listening: tuple[Trigger, int]) -> None:
    trigger, port = listening
    (trigger.folder / "token").write_text("another")
    assert ask(port, "POST", "/v1/alerts", body(), **GOOD)[0] == 401
    assert ask(port, "POST", "/v1/alerts", body(), Authorization="bearer another")[0] == 202
    (trigger.folder / "token").unlink()
    code, headers, _ = ask(port, "POST", "/v1/alerts", body(), Authorization="Bearer ")
    assert (code, headers["retry-after"]) == (503, "10")


def test_bodies_that_are_refused(listening: tuple[Trigger, int]) -> None:
    trigger, port = listening
    code, _, content = ask(port, "POST", "/v1/alerts", b"{}", **GOOD)
    assert code == 400
    assert b"Object missing required field `version`" in content
    assert ask(port, "POST", "/v1/alerts", b"x" * (64 * 1024 + 1), **GOOD)[0] == 413
    assert ask(port, "POST", "/v1/alerts", b"x" * (3 << 20), **GOOD)[0] == 413
    assert ask(port, "POST", "/v1/alerts", b"", **GOOD, Content_Length="x")[0] == 411
    assert ask(port, "POST", "/v1/alerts", b"", **GOOD, Transfer_Encoding="chunked")[0] == 411
    assert trigger.value(metrics.TRIGGER_NOTIFICATIONS.name, outcome="too_large") == 2


def test_a_body_that_does_not_come(listening: tuple[Trigger, int]) -> None:
    _, port = listening
    head = f"POST /v1/alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head.encode() + b"{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HT")
        assert connection.recv(100) == b""


def test_too_many_connections(listening: tuple[Trigger, int], monkeypatch: pytest.MonkeyPatch) -> None:
    trigger, _ = listening
    monkeypatch.setattr("mlexporter.trigger.listener.MAX_CONNECTIONS", 2)
    listener = Listener(trigger.app, "127.0.0.1", 0, seconds=5)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    idle = [socket.create_connection(("127.0.0.1", listener.port), timeout=5) for _ in range(2)]
    with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 503 ")
    for each in idle:
        each.sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n")
        assert each.recv(100).startswith(b"HTTP/1.1 200 ")
        each.close()
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_a_bug_is_an_answer_too(listening: tuple[Trigger, int], monkeypatch: pytest.MonkeyPatch) -> None:
    trigger, port = listening

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(trigger.receiver, "receive", fail)
    code, _, content = ask(port, "POST", "/v1/alerts", body(), **GOOD)
    assert code == 500
    assert b"secret" not in content


def test_every_outcome_is_there_from_the_start(build: Build) -> None:
    trigger = build()
    for outcome in Outcome:
        assert trigger.value(metrics.TRIGGER_NOTIFICATIONS.name, outcome=outcome.value) == 0
