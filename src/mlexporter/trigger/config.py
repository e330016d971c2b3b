"""The configuration of the trigger: which alerts start what. Durations are seconds and sizes are bytes once read."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from mlexporter import config, scalars
from mlexporter.config_document import Document, KeyPath, key_path
from mlexporter.scalars import Scalar, did_you_mean, shown
from mlexporter.strict_yaml import Items, Tree, read
from mlexporter.trigger.matchers import Matcher, matcher
from mlexporter.trigger.templates import Template, template, url_template

KINDS: Final = ("http", "github", "argo", "command")
"""Keys of an action, of which it has exactly one."""

GITHUB_PAYLOAD_KEYS: Final = 10
"""How many keys GitHub takes in a client_payload."""

_S = TypeVar("_S", bound=msgspec.Struct)
_Name = Annotated[str, scalars.text(1, 128)]
_Path = Annotated[Path, scalars.path()]
_Template = Annotated[Template, template()]
_Tree = Annotated[object, Tree(template())]
_Timeout = Annotated[float, scalars.duration("1s", "5m")]


def _pattern(expression: str, accepts: str) -> Scalar[str]:
    """Text that a regular expression matches."""

    def parse(value: str) -> str:
        if not re.fullmatch(expression, value):
            raise ValueError(f"{shown(value)} cannot stand here")
        return value

    return Scalar(parse, accepts)


def _base_url() -> Scalar[str]:
    accepts = "http:// or https://, a host, perhaps a port and a path, and nothing else, such as https://argo:2746"
    return _pattern(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?", accepts)


_KubernetesName = Annotated[
    str, _pattern(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "a name of Kubernetes: small letters, digits, - and .")
]
_RepositoryPart = Annotated[str, _pattern(r"(?!\.+$)[A-Za-z0-9._-]{1,100}", "letters, digits, dots, - and _")]
_HeaderName = Annotated[str, _pattern(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", "the name of an HTTP header")]
_VariableName = Annotated[str, _pattern(r"[A-Za-z_][A-Za-z0-9_]{0,127}", "the name of an environment variable")]


class HttpAction(msgspec.Struct, frozen=True, kw_only=True):
    """A request to anything that speaks HTTP; `body` becomes JSON."""

    url: Annotated[Template, url_template()]
    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = "POST"
    headers: dict[_HeaderName, _Template] = {}
    body: _Tree = None
    bearer_token_file: _Path | None = None
    timeout: _Timeout = 30.0


class GithubAction(msgspec.Struct, frozen=True, kw_only=True):
    """A `repository_dispatch` event for a workflow of GitHub Actions."""

    owner: _RepositoryPart
    repository: _RepositoryPart
    event_type: Annotated[str, scalars.text(1, 100)]
    token_file: _Path
    client_payload: dict[_Name, _Tree] = {}
    api_url: Annotated[str, _base_url()] = "https://api.github.com"
    timeout: _Timeout = 30.0


class ArgoAction(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow from a WorkflowTemplate of Argo Workflows."""

    server: Annotated[str, _base_url()]
    namespace: _KubernetesName
    workflow_template: _KubernetesName
    parameters: dict[Annotated[str, _pattern(r"[^=\s]{1,128}", "a name without = and blanks")], _Template] = {}
    token_file: _Path | None = None
    timeout: _Timeout = 30.0


class CommandAction(msgspec.Struct, frozen=True, kw_only=True):
    """A program on this machine, started without a shell.

    `environment` is all that it gets beside PATH, LANG and MLEXPORTER_RUN.
    """

    arguments: Annotated[tuple[_Template, ...], Items(1, 256)]
    environment: dict[_VariableName, _Template] = {}
    directory: _Path = Path("/")
    timeout: Annotated[float, scalars.duration("1s", "7d")] = 600.0


class ActionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: exactly one of these."""

    http: HttpAction | None = None
    github: GithubAction | None = None
    argo: ArgoAction | None = None
    command: CommandAction | None = None

    def only(self) -> HttpAction | GithubAction | ArgoAction | CommandAction:
        """The one that is given."""
        given = self.http or self.github or self.argo or self.command
        assert given is not None
        return given


class RouteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that fulfil all `matchers` start `action`; `cooldown` is the least time between two starts of a group."""

    name: _Name
    matchers: Annotated[tuple[Annotated[Matcher, matcher()], ...], Items(1, 32)]
    action: _Name
    cooldown: Annotated[float, scalars.duration("0s", "365d")] = 86400.0


class WebConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the webhook takes in: who knows the token of this file, and bodies up to a size."""

    bearer_token_file: _Path
    max_body_bytes: Annotated[int, scalars.size("1KiB", "64MiB")] = 2 * 1024**2


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log, the size from which on it is rotated, and how long a group is taken to fire if it is silent."""

    file: _Path
    max_bytes: Annotated[int, scalars.size("64KiB", "1GiB")] = 10 * 1024**2
    # Alertmanager repeats at least every five days, as it forgets by then that it has sent something
    forget_after: Annotated[float, scalars.duration("1h", "365d")] = 6 * 86400.0


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs go on at once, and how many may wait."""

    workers: Annotated[int, scalars.whole(1, 32)] = 2
    length: Annotated[int, scalars.whole(1, 10_000)] = 100


class RetriesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often a request is tried in a run, and the delays between, which double."""

    attempts: Annotated[int, scalars.whole(1, 20)] = 5
    first_delay: Annotated[float, scalars.duration("10ms", "5m")] = 1.0
    longest_delay: Annotated[float, scalars.duration("10ms", "1h")] = 60.0


class TriggerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration."""

    web: WebConfig
    journal: JournalConfig
    actions: dict[_Name, ActionConfig]
    routes: Annotated[tuple[RouteConfig, ...], Items(1, 100)]
    queue: QueueConfig = QueueConfig()
    retries: RetriesConfig = RetriesConfig()


def load(path: Path) -> TriggerConfig:
    """Read the file at `path`. Raises ConfigError, also where there is no such file."""
    return parse(config.text_of(path), name=str(path), folder=path.parent)


def parse(text: str, *, name: str, folder: Path = Path()) -> TriggerConfig:
    """Read `text`; `name` stands before each error, and relative file names start from `folder`.

    Raises ConfigError with every problem that the text has.
    """
    document = read(text, TriggerConfig, name=name)
    if not document.stopped:
        _check_actions(document)
        _check_routes(document)
        _check_delays(document)
    return _resolved(document.result(), folder)


def _resolved(struct: _S, folder: Path) -> _S:
    """The struct with every file name in it resolved against the folder."""

    def convert(value: Any) -> Any:
        if isinstance(value, Path):
            return folder / value
        if isinstance(value, dict):
            return {key: convert(each) for key, each in value.items()}
        return _resolved(value, folder) if isinstance(value, msgspec.Struct) else value

    if isinstance(struct, Template):
        return struct
    given = {field: convert(getattr(struct, field)) for field in struct.__struct_fields__}
    return msgspec.structs.replace(struct, **given)


def _check_actions(document: Document[TriggerConfig]) -> None:
    for action in _children(document, ("actions",)):
        kinds = [kind for kind in KINDS if (*action, kind) in document.places]
        if document.is_mapping(action) and len(kinds) != 1:
            which = f"has {' and '.join(kinds)}" if kinds else "has nothing to do"
            document.refuse(action, f"{which}; give exactly one of {', '.join(KINDS)}")
        payload = document.get((*action, "github", "client_payload")) or {}
        if len(payload) > GITHUB_PAYLOAD_KEYS:
            message = f"has {len(payload)} keys, and GitHub takes {GITHUB_PAYLOAD_KEYS}; put some of them under one"
            document.refuse((*action, "github", "client_payload"), message)
        program = (*action, "command", "arguments", 0)
        if (first := document.get(program)) is not None and "{" in first.source:
            document.refuse(program, "the program is a template; no alert may choose what runs here")
        headers = (*action, "http", "headers")
        for path in _children(document, headers):
            if str(path[-1]).lower() in ("authorization", "content-length", "host", "idempotency-key"):
                document.refuse(path, "is set by mlexporter itself; for a token, give bearer_token_file")


def _check_routes(document: Document[TriggerConfig]) -> None:
    known = tuple(str(path[-1]) for path in _children(document, ("actions",)))
    first: dict[str, KeyPath] = {}
    for route in document.items(("routes",)):
        action, name = document.get((*route, "action")), document.get((*route, "name"))
        if action is not None and action not in known:
            near = did_you_mean(action, known) or f"known here are {', '.join(known) or 'none'}"
            document.refuse((*route, "action"), f"{shown(action)} is no action; {near}")
        if name is not None and (before := first.setdefault(name, route)) != route:
            document.refuse((*route, "name"), f"{shown(name)} is {key_path(before)} already; give it another name")


def _check_delays(document: Document[TriggerConfig]) -> None:
    least, most = ("retries", "first_delay"), ("retries", "longest_delay")
    if document.failed(least) or document.failed(most):
        return
    default = RetriesConfig()
    if document.get(least, default.first_delay) > document.get(most, default.longest_delay):
        document.refuse(most if most in document.places else least, "longest_delay is under first_delay")


def _children(document: Document[TriggerConfig], section: KeyPath) -> list[KeyPath]:
    return [path for path in document.places if path[:-1] == section]
