"""An action of the configuration and what an alert says, to what is really sent or started."""

import json
import re
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from mlexporter import __version__
from mlexporter.trigger.config import ArgoAction, CommandAction, GithubAction, HttpAction
from mlexporter.trigger.notification import Alert, Notification
from mlexporter.trigger.templates import Context, Template, TemplateError

Action = HttpAction | GithubAction | ArgoAction | CommandAction

USER_AGENT: Final = f"mlexporter/{__version__}"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_WORKFLOW_NAME: Final = 63  # it becomes the value of a label of Kubernetes
_UNSAFE_IN_HEADER: Final = re.compile("[^\t\x20-\x7e\xa0-\xff]")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP request. `done` are statuses beside 2xx which say that what was asked for is there already."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    token_file: Path | None
    timeout: float
    done: frozenset[int] = frozenset()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A program to start, with its whole environment."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    timeout: float


class Result(msgspec.Struct, frozen=True):
    """How an attempt ended. "again" may be tried again, not before `wait` seconds. `detail` is for people."""

    outcome: Literal["succeeded", "failed", "again", "interrupted"]
    detail: str
    wait: float = 0.0


def context_of(notification: Notification, alerts: tuple[Alert, ...], *, route: str, run: str) -> Context:
    """What the templates of an action can name; `alerts` are those that fulfil the route's matchers."""
    return {
        "alerts": [msgspec.structs.asdict(alert) for alert in alerts],
        "labels": alerts[0].labels,
        "annotations": alerts[0].annotations,
        "group_key": notification.group_key,
        "group_labels": notification.group_labels,
        "common_labels": notification.common_labels,
        "common_annotations": notification.common_annotations,
        "external_url": notification.external_url,
        "receiver": notification.receiver,
        "route": route,
        "run": run,
    }


def prepare(action: Action, context: Context, run: str) -> Request | Command:
    """Fill in the templates of an action. `run` goes with it, so that the other side can tell repetitions.

    Raises:
        TemplateError: they cannot be filled in.

    """
    if isinstance(action, HttpAction):
        return _http(action, context, run)
    if isinstance(action, GithubAction):
        return _github(action, context, run)
    if isinstance(action, ArgoAction):
        return _argo(action, context, run)
    return _command(action, context, run)


def described(prepared: Request | Command) -> str:
    """What would be done, in words: without headers, which may hold secrets, and without the query of a URL."""
    if isinstance(prepared, Command):
        return f"start {json.dumps(prepared.arguments)}"
    url = urlsplit(prepared.url)
    what = f"{prepared.method} {url.scheme}://{url.netloc}{url.path}"
    return what if prepared.body is None else f"{what} {prepared.body.decode()}"


def _http(action: HttpAction, context: Context, run: str) -> Request:
    headers = [(name, _header(name, value, context)) for name, value in action.headers.items()]
    body = None if action.body is None else _json(_rendered(action.body, context))
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return Request(
        method=action.method,
        url=action.url.render(context),
        headers=(*headers, ("Idempotency-Key", run)),
        body=body,
        token_file=action.bearer_token_file,
        timeout=action.timeout,
    )


def _github(action: GithubAction, context: Context, run: str) -> Request:
    content = {"event_type": action.event_type, "client_payload": _rendered(action.client_payload, context)}
    return Request(
        method="POST",
        url=f"{action.api_url.rstrip('/')}/repos/{action.owner}/{action.repository}/dispatches",
        headers=(
            ("Accept", "application/vnd.github+json"),
            ("X-GitHub-Api-Version", "2022-11-28"),
            ("Content-Type", "application/json"),
            ("Idempotency-Key", run),
        ),
        body=_json(content),
        token_file=action.token_file,
        timeout=action.timeout,
    )


def _argo(action: ArgoAction, context: Context, run: str) -> Request:
    # Argo knows no keys of idempotency, but it takes each name once and answers 409 to the second
    name = f"{action.workflow_template[: _MAX_WORKFLOW_NAME - 17].rstrip('-.')}-{run[:16]}"
    parameters = [f"{key}={value.render(context)}" for key, value in action.parameters.items()]
    content = {
        "namespace": action.namespace,
        "resourceKind": "WorkflowTemplate",
        "resourceName": action.workflow_template,
        "submitOptions": {"name": name, "parameters": parameters},
    }
    return Request(
        method="POST",
        url=f"{action.server.rstrip('/')}/api/v1/workflows/{action.namespace}/submit",
        headers=(("Content-Type", "application/json"), ("Idempotency-Key", run)),
        body=_json(content),
        token_file=action.token_file,
        timeout=action.timeout,
        done=frozenset((409,)),
    )


def _command(action: CommandAction, context: Context, run: str) -> Command:
    arguments = tuple(argument.render(context) for argument in action.arguments)
    given = {name: value.render(context) for name, value in action.environment.items()}
    if any("\0" in text for text in (*arguments, *given.values())):
        raise TemplateError("a value holds the character NUL, which no argument can hold")
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", **given, "MLEXPORTER_RUN": run}
    return Command(arguments=arguments, environment=environment, directory=action.directory, timeout=action.timeout)


def _rendered(tree: Any, context: Context) -> Any:
    """A tree with each of its templates filled in: a text stays one text, whatever is filled in."""
    if isinstance(tree, Template):
        return tree.render(context)
    if isinstance(tree, dict):
        return {key: _rendered(each, context) for key, each in tree.items()}
    if isinstance(tree, tuple):
        return [_rendered(each, context) for each in tree]
    return tree


def _header(name: str, value: Template, context: Context) -> str:
    text = value.render(context)
    if _UNSAFE_IN_HEADER.search(text):
        raise TemplateError(f"the header {name} would hold a character that no header may hold, such as a line break")
    return text


def _json(content: object) -> bytes:
    return msgspec.json.encode(content)
