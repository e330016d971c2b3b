"""The configuration of the trigger: good ones, and each mistake with its place and its message."""

import re
from pathlib import Path

import pytest

from mlexporter.config_document import ConfigError
from mlexporter.trigger import config
from mlexporter.trigger.config import ArgoAction, CommandAction, HttpAction, TriggerConfig

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "prometheus" / "trigger.example.yml"

LEAST = """web: {bearer_token_file: token}
journal: {file: trigger.jsonl}
actions: {x: {http: {url: "https://h.example/"}}}
routes: [{name: r, matchers: ['severity="critical"'], action: x}]
"""


def parse(text: str) -> TriggerConfig:
    return config.parse(text, name="t", folder=Path("/etc/x"))


def test_the_least() -> None:
    found = parse(LEAST)
    assert (found.web.bearer_token_file, found.journal.file) == (Path("/etc/x/token"), Path("/etc/x/trigger.jsonl"))
    assert found.routes[0].cooldown == 86400
    action = found.actions["x"].only()
    assert isinstance(action, HttpAction)
    assert (action.method, action.body, action.timeout) == ("POST", None, 30)


def test_the_example_is_valid_and_is_the_one_in_the_documentation() -> None:
    found = config.load(EXAMPLE)
    assert [route.name for route in found.routes] == ["roll-back", "retrain-churn", "retrain", "versions"]
    assert {route.action for route in found.routes} == set(found.actions)
    assert isinstance(found.actions["retrain"].only(), ArgoAction)
    assert isinstance(found.actions["note-versions"].only(), CommandAction)
    assert EXAMPLE.read_text() in (ROOT / "docs" / "retraining.md").read_text()


def test_actions_in_the_documentation_are_valid() -> None:
    text = (ROOT / "docs" / "retraining.md").read_text()
    shown = re.findall(r"^```yaml\n(actions:\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(shown) == 4
    for actions in shown:
        name = actions.split()[1].strip(":")
        parse(
            LEAST.replace('actions: {x: {http: {url: "https://h.example/"}}}\n', actions).replace(
                "action: x", f"action: {name}"
            )
        )


@pytest.mark.parametrize("body", ["&a [*a]", "&a {k: *a}", "&a [*a, *a, *a]"])
def test_a_body_that_holds_itself_ends(body: str) -> None:
    with pytest.raises(ConfigError, match="nested more than 32 deep"):
        parse(changed(URL, f'{{url: "https://h/", body: {body}}}'))


def test_absolute_names_stay() -> None:
    assert config.load(EXAMPLE).journal.file == Path("/var/lib/mlexporter/trigger.jsonl")


def changed(before: str, after: str) -> str:
    assert before in LEAST
    return LEAST.replace(before, after)


URL = '{url: "https://h.example/"}'
ACTION = f"http: {URL}"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (
            "",
            [
                "1:1: web: missing, and required; use a mapping, \"key: value\" lines",
                "1:1: journal: missing, and required; use a mapping, \"key: value\" lines",
                "1:1: actions: missing, and required; use a mapping, \"key: value\" lines",
                '1:1: routes: missing, and required; use a list, each item on a line of its own after "- " or all of '
                "them in [brackets]",
            ],
        ),
        (changed("action: x", "action: y"), ['4:63: routes[0].action: "y" is no action; known here are x']),
        (
            changed("'severity=\"critical\"'", "'severity=~\"(\"', nonsense"),
            [
                '4:31: routes[0].matchers[0]: "(" is no regular expression: missing ), unterminated subpattern at '
                'position 0; use a label, one of = != =~ !~, and a value in double quotes, such as severity="critical"',
                '4:48: routes[0].matchers[1]: "nonsense" is no matcher; '
                'use a label, one of = != =~ !~, and a value in double quotes, such as severity="critical"',
            ],
        ),
        (changed("['severity=\"critical\"']", "[]"), ["4:30: routes[0].matchers: has 0 items; use 1 to 32"]),
        (
            LEAST.rstrip()[:-1] + ", {name: r, matchers: [a=b], action: x}]",
            ['4:74: routes[1].name: "r" is routes[0] already; give it another name'],
        ),
        (changed(ACTION, ""), ["3:14: actions.x: has nothing to do; give exactly one of http, github, argo, command"]),
        (
            changed(ACTION, ACTION + ", command: {arguments: [a]}"),
            ["3:14: actions.x: has http and command; give exactly one of http, github, argo, command"],
        ),
        (
            changed(ACTION, "command: {arguments: ['{{ labels.model }}', b]}"),
            [
                "3:37: actions.x.command.arguments[0]: the program is a template; no alert may choose what runs here",
            ],
        ),
        (
            changed(URL, '{url: "https://h/{{ lables.x }}", body: {a: [1, "{{ nope( }}"]}}'),
            [
                '3:27: actions.x.http.url: "https://h/{{ lables.x }}" names the unknown variable lables; '
                "did you mean labels?",
                '3:69: actions.x.http.body.a[1]: "{{ nope( }}" is no valid template: '
                "unexpected '}', expected ')'",
            ],
        ),
        (
            changed(URL, '{url: "https://h/", headers: {Authorization: x, "a b": y}}'),
            [
                "3:66: actions.x.http.headers.Authorization: is set by mlexporter itself; "
                "for a token, give bearer_token_file",
                '3:69: actions.x.http.headers["a b"]: "a b" cannot stand here; use the name of an HTTP header',
            ],
        ),
        (
            LEAST + "retries: {first_delay: 5m, longest_delay: 1m}",
            ["5:43: retries.longest_delay: longest_delay is under first_delay"],
        ),
        (
            changed(URL, '{url: "https://h/", body: {a: 1, a: 2, "": 3}}'),
            [
                "3:54: actions.x.http.body.a: given twice, first on line 3; keep one",
                '3:60: actions.x.http.body[""]: "" has 0 characters; use text of 1 to 256 characters without control '
                "characters",
            ],
        ),
        (LEAST + "queue: {worker: 2}", ["5:9: queue.worker: unknown key; did you mean workers?"]),
        (
            changed(ACTION, "github: {owner: a/b, repository: .., event_type: e, token_file: t}"),
            [
                '3:31: actions.x.github.owner: "a/b" cannot stand here; use letters, digits, dots, - and _',
                '3:48: actions.x.github.repository: ".." cannot stand here; use letters, digits, dots, - and _',
            ],
        ),
        (
            changed(
                ACTION,
                "github: {owner: a, repository: b, event_type: e, token_file: t, "
                f"client_payload: {{{', '.join(f'k{i}: 1' for i in range(11))}}}}}",
            ),
            [
                "3:95: actions.x.github.client_payload: has 11 keys, and GitHub takes 10; put some of them under one",
            ],
        ),
    ],
)  # fmt: skip
def test_mistakes(text: str, errors: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).splitlines() == [f"t:{error}" for error in errors]
