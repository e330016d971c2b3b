"""Actions: what is sent and started, held against real servers and real processes."""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertmanager import LABELS, Target, alert, body, serving
from mlexporter.trigger import command, config, http_request
from mlexporter.trigger.actions import Command, Request, Result, context_of, described, prepare
from mlexporter.trigger.config import RetriesConfig
from mlexporter.trigger.notification import decode
from mlexporter.trigger.runner import delay_before
from mlexporter.trigger.templates import TemplateError
from test_trigger_templates import HOSTILE

RUN = "0123456789abcdef0123456789abcdef"


def action(text: str, folder: Path = Path()) -> Any:
    """An action from its YAML."""
    frame = """
web: {bearer_token_file: t}
journal: {file: j}
routes: [{name: r, matchers: [a=b], action: x}]
actions:
  x:
"""
    lines = "".join(f"    {line}\n" for line in text.strip().splitlines())
    return config.parse(frame + lines, name="test", folder=folder).actions["x"].only()


def prepared(text: str, folder: Path = Path(), **labels: str) -> Any:
    found = decode(body(alert(**labels)))
    context = context_of(found, tuple(found.firing()), route="r", run=RUN)
    return prepare(action(text, folder), context, RUN)


# -- what is sent -----------------------------------------------------------------------------------------------------

HTTP = """
http:
  url: https://h.example/models/{{ labels.model }}/retrain
  method: PUT
  headers: {X-Team: "{{ labels.namespace }}"}
  body:
    model: "{{ labels.model }}"
    text: 'say "{{ labels.model }}"'
    plain: hello
    epochs: 10
    rate: 0.5
    force: true
    note: null
    version: "1.10"
    list: [1, "{{ labels.version }}", {k: "{{ run }}"}]
"""


def test_an_http_request() -> None:
    request = prepared(HTTP)
    assert isinstance(request, Request)
    assert (request.method, request.url) == ("PUT", "https://h.example/models/churn/retrain")
    assert dict(request.headers) == {"X-Team": "prod", "Content-Type": "application/json", "Idempotency-Key": RUN}
    assert request.body is not None
    assert json.loads(request.body) == {
        "model": "churn", "text": 'say "churn"', "plain": "hello", "epochs": 10, "rate": 0.5, "force": True,
        "note": None, "version": "1.10", "list": [1, "7", {"k": RUN}],
    }  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_no_label_changes_the_structure_of_a_body(value: str) -> None:
    request = prepared(HTTP.replace("/{{ labels.model }}", ""), model=value)
    content = json.loads(request.body)
    assert content["model"] == value
    assert content["text"] == f'say "{value}"'
    assert len(content) == 9


@settings(max_examples=50)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_label_changes_the_parameters_of_argo(value: str) -> None:
    request = prepared(ARGO, model=value)
    assert json.loads(request.body)["submitOptions"]["parameters"][0] == f"model={value}"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "☃"])
def test_no_label_adds_a_header(value: str) -> None:
    with pytest.raises(TemplateError, match="the header X-Team would hold a character"):
        prepared(HTTP, namespace=value)


GITHUB = """
github:
  owner: example
  repository: churn-model
  event_type: retrain
  token_file: token
  client_payload: {model: "{{ labels.model }}", nested: {summary: "{{ annotations.summary }}"}}
"""


def test_a_repository_dispatch() -> None:
    request = prepared(GITHUB)
    assert (request.method, request.url) == ("POST", "https://api.github.com/repos/example/churn-model/dispatches")
    assert json.loads(request.body) == {
        "event_type": "retrain",
        "client_payload": {"model": "churn", "nested": {"summary": "Predictions of churn drift"}},
    }
    headers = dict(request.headers)
    assert (headers["Accept"], headers["X-GitHub-Api-Version"]) == ("application/vnd.github+json", "2022-11-28")
    assert request.token_file == Path("token")


ARGO = """
argo:
  server: https://argo:2746/
  namespace: ml
  workflow_template: retrain-a-model-with-a-very-long-name-that-goes-on-and-on-and-on
  parameters: {model: "{{ labels.model }}", why: "a=b {{ labels.alertname }}"}
"""


def test_a_workflow_of_argo() -> None:
    request = prepared(ARGO)
    assert (request.method, request.url) == ("POST", "https://argo:2746/api/v1/workflows/ml/submit")
    content = json.loads(request.body)
    name = content["submitOptions"].pop("name")
    assert content == {
        "namespace": "ml",
        "resourceKind": "WorkflowTemplate",
        "resourceName": "retrain-a-model-with-a-very-long-name-that-goes-on-and-on-and-on",
        "submitOptions": {"parameters": ["model=churn", "why=a=b MLExporterPredictionDrift"]},
    }
    assert name == "retrain-a-model-with-a-very-long-name-that-goe-0123456789abcdef"
    assert len(name) <= 63


def test_what_a_dry_run_says_holds_no_headers_and_no_query() -> None:
    text = HTTP.replace("/retrain", "/retrain?key=secret").replace("{{ labels.namespace }}", "secret")
    said = described(prepared(text))
    assert said.startswith('PUT https://h.example/models/churn/retrain {"model":"churn",')
    assert "secret" not in said
    assert described(prepared("command: {arguments: [/bin/echo, '{{ labels.model }}']}", model='a "b"')) == (
        r'start ["/bin/echo", "a \"b\""]'
    )


# -- sending it -------------------------------------------------------------------------------------------------------


def to(target: Target, tmp_path: Path, more: str = "") -> Request:
    (tmp_path / "token").write_text("s3cret\n")
    text = f"http: {{url: '{target.url}/go', body: {{m: '{{{{ labels.model }}}}'}}, bearer_token_file: token{more}}}"
    request = prepared(text, tmp_path)
    assert isinstance(request, Request)
    return request


def test_a_request_arrives(tmp_path: Path) -> None:
    with serving(Target(204)) as target:
        assert http_request.send(to(target, tmp_path)) == Result("succeeded", "answered 204")
    ((method, path, headers, content),) = target.requests
    assert (method, path, json.loads(content)) == ("POST", "/go", {"m": "churn"})
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["idempotency-key"] == RUN
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("mlexporter/")


@pytest.mark.parametrize(
    ("answer", "outcome", "wait"),
    [
        (200, "succeeded", 0), (400, "failed", 0), (401, "failed", 0), (404, "failed", 0), (409, "failed", 0),
        (500, "again", 0), (502, "again", 0), (503, "again", 0), ((503, {"Retry-After": "7"}), "again", 7),
        ((429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), "again", 0), (0, "again", 0),
    ],
)  # fmt: skip
def test_what_is_worth_another_attempt(tmp_path: Path, answer: Any, outcome: str, wait: float) -> None:
    with serving(Target(answer)) as target:
        result = http_request.send(to(target, tmp_path))
    assert (result.outcome, result.wait) == (outcome, wait)
    assert "s3cret" not in result.detail


def test_a_workflow_that_is_there_already_is_a_success(tmp_path: Path) -> None:
    with serving(Target(409)) as target:
        request = prepared(ARGO.replace("https://argo:2746/", target.url))
        assert http_request.send(request) == Result("succeeded", "answered 409: it was started before")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(tmp_path: Path, code: int) -> None:
    with serving(Target()) as other, serving(Target((code, {"Location": f"{other.url}/steal"}))) as target:
        result = http_request.send(to(target, tmp_path))
    assert result.outcome == "failed"
    assert "redirects are not followed" in result.detail
    assert other.requests == []


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = Target()
        target.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        slow = http_request.send(to(target, tmp_path, ", timeout: 1s"))
    assert (slow.outcome, slow.detail) == ("again", "no answer: timed out")
    refused = http_request.send(to(target, tmp_path))
    assert (refused.outcome, "refused" in refused.detail) == ("again", True)


def test_a_token_is_read_anew_and_its_lack_is_told(tmp_path: Path) -> None:
    with serving(Target()) as target:
        request = to(target, tmp_path)
        http_request.send(request)
        (tmp_path / "token").write_text("another")
        http_request.send(request)
        (tmp_path / "token").unlink()
        result = http_request.send(request)
    assert [headers["authorization"] for _, _, headers, _ in target.requests] == ["Bearer s3cret", "Bearer another"]
    assert result.outcome == "failed"
    assert result.detail.endswith("token: cannot be read: No such file or directory")


def test_delays_double_up_to_a_bound_and_half_is_chance() -> None:
    retries = RetriesConfig(first_delay=1.0, longest_delay=5.0)
    assert [delay_before(attempt, retries, 0.0, 1.0) for attempt in range(2, 7)] == [1, 2, 4, 5, 5]
    assert [delay_before(attempt, retries, 0.0, 0.0) for attempt in range(2, 7)] == [0.5, 1, 2, 2.5, 2.5]
    assert [delay_before(2, retries, asked, 1.0) for asked in (3.0, 60.0)] == [3.0, 5.0]


# -- commands ---------------------------------------------------------------------------------------------------------

SHOW = """
command:
  arguments: [%s, -c, "%s", "{{ labels.model }}", "--model={{ labels.model }}"]
  environment: {MODEL: "{{ labels.model }}"}
  timeout: 10s
"""


def shown(tmp_path: Path, **labels: str) -> Any:
    """What a program is given, as it says itself."""
    code = (
        f"import json, os, sys; json.dump([sys.argv[1:], dict(os.environ), os.getcwd()], open('{tmp_path}/out', 'w'))"
    )
    found = prepared(SHOW % (sys.executable, code), tmp_path, **labels)
    assert isinstance(found, Command)
    assert command.run(found, threading.Event()) == Result("succeeded", "ended with 0")
    return json.loads((tmp_path / "out").read_text())


@pytest.mark.parametrize("value", [*HOSTILE, "a b", "*", "~", "$HOME", "|cat", "&", ">x"])
def test_each_argument_is_one_argument(tmp_path: Path, value: str) -> None:
    arguments, environment, folder = shown(tmp_path, model=value)
    assert arguments == [value, f"--model={value}"]
    assert environment["MODEL"] == value
    assert folder == "/"


def test_the_environment_is_minimal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    environment = shown(tmp_path)[1]
    environment.pop("LC_CTYPE", None)  # Python sets it for itself
    assert set(environment) == {"PATH", "LANG", "MODEL", "MLEXPORTER_RUN"}
    assert environment["MLEXPORTER_RUN"] == RUN


def test_nul_in_an_argument_fails() -> None:
    with pytest.raises(TemplateError, match="NUL"):
        prepared("command: {arguments: [/bin/echo, '{{ labels.model }}']}", model="a\0b")


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ("[/bin/false]", "ended with 1"),
        ("[/no/such/program]", "cannot be started: No such file or directory"),
        ("[/etc/passwd]", "cannot be started: Permission denied"),
        ("[/bin/sh, -c, 'kill -9 $$']", "was ended by signal 9"),
    ],
)
def test_a_command_that_fails(arguments: str, detail: str) -> None:
    found = prepared(f"command: {{arguments: {arguments}, timeout: 5s}}")
    assert command.run(found, threading.Event()) == Result("failed", detail)


def stubborn(tmp_path: Path, timeout: str) -> Command:
    """A program with a child, both of which do not end when they are asked to."""
    script = (
        f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/child; while :; do sleep 0.05; done' & wait; wait"
    )
    found = prepared(f"command: {{arguments: [/bin/sh, -c, {json.dumps(script)}], timeout: {timeout}}}")
    assert isinstance(found, Command)
    return found


def has_gone(pid: int) -> bool:
    """Whether a process has ended, if perhaps nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_whole_process_group_ends_at_the_timeout(tmp_path: Path) -> None:
    start = time.monotonic()
    result = command.run(stubborn(tmp_path, "1s"), threading.Event())
    assert result == Result("failed", "ended after 1 s, its timeout")
    assert time.monotonic() - start < 4
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 2
    while not has_gone(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert has_gone(child)


def test_a_command_ends_with_the_trigger(tmp_path: Path) -> None:
    stopping = threading.Event()
    timer = threading.Timer(0.3, stopping.set)
    timer.start()
    start = time.monotonic()
    assert command.run(stubborn(tmp_path, "60s"), stopping) == Result("interrupted", "ended with the trigger")
    assert time.monotonic() - start < 3
    timer.join()


def test_labels_of_the_context_are_those_of_the_alert() -> None:
    found = decode(body(alert()))
    context = context_of(found, tuple(found.firing()), route="r", run=RUN)
    assert context["labels"] == LABELS
