"""Docs and code together: what the documentation names exists, and what exists is documented."""

import io
import json
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import msgspec
import numpy as np
import prometheus_client
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from conftest import Clock, baseline, categorical, needs, numeric
from joining import joiner_of, running
from labelled import labelled_store
from mlexporter import cli, metrics, openapi
from mlexporter.config import Config
from mlexporter.samples import Reason, Role
from mlexporter.server import _PATHS, Application
from mlexporter.slow_clients import BodyReader
from mlexporter.statistics import WindowStatistics
from mlexporter.telemetry import Telemetry
from mlexporter.trigger.config import TriggerConfig
from mlexporter.trigger.matchers import Matcher
from mlexporter.trigger.telemetry import Outcome, TriggerTelemetry
from mlexporter.trigger.templates import VARIABLES, Template

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
_IDS = [str(path.relative_to(ROOT)) for path in DOCS]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Names of recorded series: level:metric:operations.
_RECORDED = re.compile(r"\bfleet:\w+:\w+")


def rules_of(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


# -- reading Markdown -------------------------------------------------------------------------------------------------


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced blocks, of these languages if any are given."""
    return [content for language, content in _FENCE.findall(text) if not languages or language in languages]


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    kept = [c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN"]
    return "".join(kept).replace(" ", "-")


def rows(text: str, first_column: str) -> Iterator[dict[str, str]]:
    """Rows of the tables whose first column has this title, by column title."""
    titles: list[str] = []
    for line in prose(text).splitlines():
        if not line.startswith("|"):
            titles = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not titles:
            titles = cells
        elif titles[0] == first_column and set(line) - set("|- "):
            assert len(cells) == len(titles), line
            yield dict(zip(titles, cells, strict=True))


def code(cell: str) -> str:
    """The inline code that a cell begins with."""
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


# -- metrics ----------------------------------------------------------------------------------------------------------


def series_names(metric: metrics.Metric) -> list[str]:
    if metric.type != "histogram":
        return [metric.name]
    return [f"{metric.name}{suffix}" for suffix in ("_bucket", "_count", "_sum")]


# the page of the exporter, and that of the trigger
_DOCUMENTED = (*metrics.ALL, *metrics.TRIGGER_METRICS)
_BY_SERIES = {name: metric for metric in _DOCUMENTED for name in series_names(metric)}
_NAMES = {metric.name for metric in _DOCUMENTED} | _BY_SERIES.keys()


def check_series(name: str, labels: set[str]) -> None:
    """The series is one of a known metric and has exactly its labels."""
    assert name in _BY_SERIES, f"no such metric: {name}"
    expected = {*_BY_SERIES[name].labels, *(["le"] if name.endswith("_bucket") else [])}
    # figures of a binary model are those of its positive class, which is not named
    optional = {"class"} if name.startswith("mlexporter_performance_") else set()
    assert labels | optional == expected | optional, f"labels of {name}"


def test_metrics_are_documented_with_type_and_labels() -> None:
    documented = [
        (code(row["metric"]), row["type"], tuple(re.findall(r"`([^`]+)`", row["labels"])))
        for row in rows(text_of("docs/metrics.md"), "metric")
    ]
    assert sorted(documented) == sorted((metric.name, metric.type, metric.labels) for metric in _DOCUMENTED)


def test_every_metric_says_what_it_means_and_when_it_is_absent() -> None:
    for row in rows(text_of("docs/metrics.md"), "metric"):
        assert row["meaning, unit"], row
        assert row["absent"], row


def test_every_metric_has_an_example() -> None:
    used = set(re.findall(r"mlexporter_\w+", "".join(blocks(text_of("docs/metrics.md"), "promql"))))
    assert [metric.name for metric in _DOCUMENTED if not used & {metric.name, *series_names(metric)}] == []


@pytest.mark.parametrize("path", DOCS, ids=_IDS)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    text = _RECORDED.sub("", path.read_text(encoding="utf-8"))
    named = set(re.findall(r"(?<![\w/])mlexporter_[a-z0-9_]*[a-z0-9](?![a-z0-9_(])", text))
    assert sorted(named - _NAMES) == []


@pytest.mark.parametrize("path", DOCS, ids=_IDS)
def test_every_series_that_is_shown_exists(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8"), "console", "text"):
        shown = [line for line in block.splitlines() if re.match(r"mlexporter_\w+(\{.*\})? [-+.\deInfNa]+$", line)]
        for family in text_string_to_metric_families("\n".join(shown) + "\n"):
            for sample in family.samples:
                check_series(sample.name, set(sample.labels))


def test_readme_shows_a_scrape_and_nothing_else() -> None:
    (scrape,) = (block for block in blocks(text_of("README.md"), "text") if "mlexporter_" in block)
    shown = [sample for family in text_string_to_metric_families(scrape) for sample in family.samples]
    for sample in shown:
        check_series(sample.name, set(sample.labels))
    assert {metrics.SAMPLES.name, metrics.COLUMN_BIN.name, metrics.PSI.name} <= {sample.name for sample in shown}


# -- rules and alerts -------------------------------------------------------------------------------------------------

RULES = [rule for path in sorted((ROOT / "prometheus" / "rules").glob("*.yaml")) for rule in rules_of(path)]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def test_every_recorded_series_that_is_named_exists() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    if recorded:
        named = {(path.name, name) for path in DOCS for name in _RECORDED.findall(path.read_text(encoding="utf-8"))}
        assert sorted((path, name) for path, name in named if name not in recorded) == []


def test_every_alert_that_is_named_exists() -> None:
    known = {path.stem for path in RUNBOOKS}
    for path in DOCS:
        assert set(re.findall(r"\bMLExporter[A-Z]\w+", path.read_text(encoding="utf-8"))) <= known, path


def test_every_alert_has_a_runbook_and_a_line_in_the_table() -> None:
    lines = list(rows(text_of("docs/alerting.md"), "alert"))
    listed = {code(line["alert"]): (line["severity"], line["for"]) for line in lines}
    assert [name for line in lines for name in re.findall(r"runbooks/(\w+)\.md", line["fires when"])] == list(listed)
    assert sorted(listed) == [path.stem for path in RUNBOOKS]
    alerts = {rule["alert"]: (rule["labels"]["severity"], rule.get("for", "0m")) for rule in RULES if "alert" in rule}
    if alerts:
        assert listed == alerts


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_runbooks_have_the_same_parts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert headings(text) == [path.stem, "Meaning", "Impact", "Diagnosis", "Mitigation"]
    severities = {code(line["alert"]): line["severity"] for line in rows(text_of("docs/alerting.md"), "alert")}
    assert f"\nSeverity: {severities[path.stem]}. " in text
    assert blocks(text, "promql")
    assert blocks(text, "console")


def queries(text: str) -> list[str]:
    """Expressions, which are kept apart by empty lines and by comments."""
    lines = re.sub(r"^#.*$", "", "\n".join(blocks(text, "promql")), flags=re.MULTILINE)
    return [query.strip() for query in re.split(r"\n\s*\n", lines) if query.strip()]


@needs("promtool")
def test_queries_are_promql(tmp_path: Path) -> None:
    found = [query for path in DOCS for query in queries(path.read_text(encoding="utf-8"))]
    assert len(found) > 100
    rules = [{"record": "query", "expr": query, "labels": {"n": str(n)}} for n, query in enumerate(found)]
    (tmp_path / "queries.yaml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(tmp_path / "queries.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


_TARGET_LABELS = {"cluster", "instance", "job", "namespace", "pod", "team"}


@pytest.mark.parametrize("path", DOCS, ids=_IDS)
def test_queries_select_by_labels_that_exist(path: Path) -> None:
    for query in queries(path.read_text(encoding="utf-8")):
        for prefix, name, selector in re.findall(r"(fleet:)?\b(mlexporter_\w+)[:\w]*\{([^}]*)\}", query):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector))
            known = set(_BY_SERIES[name].labels) | {"le"} if not prefix else COLUMN_LABELS
            assert wanted <= known | _TARGET_LABELS, query


COLUMN_LABELS = {"model", "version", "previous_version", "role", "column", "bin", "tier", "window", "baseline_hash"}
COLUMN_LABELS |= {"figure", "class", "predicted", "actual"}  # of the series of outcomes


# -- the running exporter ---------------------------------------------------------------------------------------------


@pytest.fixture
def application() -> Iterator[Application]:
    """An exporter with a model whose every metric has something to show."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # as `mlexporter serve` does
    with _application() as made:
        yield made
    prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]


@contextmanager
def _application() -> Iterator[Application]:
    rng = np.random.default_rng(1)
    values = rng.uniform(1.0, 2.0, 5000)
    age = numeric("age", [0.0, *np.linspace(1.1, 2.0, 10)], values)
    plan = categorical("plan", {"free": 3000, "pro": 2000})
    score = numeric("prediction", [0.0, 0.5, 1.0], rng.uniform(0.0, 1.0, 5000), role=Role.PREDICTION)
    config = Config()
    clock = Clock()
    store = labelled_store(clock, {("churn", "7"): baseline(age, plan, score)})
    telemetry = Telemetry(clock)
    telemetry.loaded()
    telemetry.keeping_state(restored=True, damaged=False)
    telemetry.written(clock.now, 0.02, 400_000)
    reader = BodyReader(config.limits.max_body_bytes)
    joiner = joiner_of(store, clock)
    application = Application(store, joiner, telemetry, config, reader, clock)
    application.ready.set()
    ages = ",".join(str(value) for value in values[:2000])
    plans = ",".join(['"pro"'] * 2000)
    body = f'{{"model":"churn","columns":{{"features":{{"age":[{ages}],"plan":[{plans}]}},"prediction":[{ages}]}}}}'
    assert call(application, "POST", "/v1/samples", body.encode())[0] == 200
    store.tick()  # the drift alarm has looked at them
    with running(joiner):
        yield application


def call(application: Application, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """The status and the body of the answer."""
    statuses: list[str] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "9877",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
    }
    parts = application(environ, lambda status, headers, *_: statuses.append(status))
    return int(statuses[-1].split()[0]), b"".join(parts)


def test_page_has_every_metric_and_no_other(application: Application) -> None:
    page = call(application, "GET", "/metrics")[1].decode()
    families = set(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    own = {(name, kind) for name, kind in families if not name.startswith("process_")}
    assert own == {(metric.name, metric.type) for metric in metrics.ALL}


def test_every_metric_on_the_page_has_its_labels(application: Application) -> None:
    call(application, "GET", "/metrics")  # so that the second page tells of a scrape
    page = call(application, "GET", "/metrics")[1].decode()
    seen: set[str] = set()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not sample.name.startswith("process_"):
                check_series(sample.name, set(sample.labels))
                seen.add(sample.name)
    assert seen == {name for metric in metrics.ALL for name in series_names(metric)}


def test_page_of_the_trigger_has_its_metrics_and_no_other() -> None:
    telemetry = TriggerTelemetry(("retrain",), lambda: 0.0)
    telemetry.started("retrain", 1_700_000_000.0)
    page = telemetry.page(openmetrics=False).decode()
    families = set(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    own = {(name, kind) for name, kind in families if not name.startswith("process_")}
    assert own == {(metric.name, metric.type) for metric in metrics.TRIGGER_METRICS}
    told = dict(re.findall(r"^# HELP (mlexporter_\S+) (.+)$", page, re.MULTILINE))
    assert told == {metric.name: metric.help for metric in metrics.TRIGGER_METRICS}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not sample.name.startswith("process_"):
                check_series(sample.name, set(sample.labels))


def test_outcomes_of_the_trigger_are_documented() -> None:
    documented = [code(row["outcome"]) for row in rows(text_of("docs/retraining.md"), "outcome")]
    assert documented == [outcome.value for outcome in Outcome]


def test_variables_of_templates_are_documented() -> None:
    documented = [code(row["variable"]) for row in rows(text_of("docs/retraining.md"), "variable")]
    assert sorted(documented) == sorted(VARIABLES)


def test_settings_of_the_trigger_are_documented() -> None:
    documented = {code(row["setting"]) for row in rows(text_of("docs/retraining.md"), "setting")}
    assert documented == set(settings_of(TriggerConfig))


def settings_of(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Key paths of all settings, with a star for the names of a mapping and the items of a list."""
    for field in msgspec.structs.fields(struct):
        inner = [each for each in types_in(field.type) if issubclass(each, msgspec.Struct) and each not in _VALUES]
        star = ".*" if get_origin(strip(field.type)) in (dict, tuple) else ""
        for each in inner:
            yield from settings_of(each, f"{prefix}{field.encode_name}{star}.")
        if not inner:
            yield f"{prefix}{field.encode_name}"


_VALUES = (Template, Matcher)


def strip(shape: Any) -> Any:
    return get_args(shape)[0] if get_origin(shape) is Annotated else shape


def types_in(shape: Any) -> Iterator[type]:
    """The classes that a type is made of."""
    if get_origin(shape) is Literal:
        return
    arguments = (strip(shape),) if get_origin(shape) is Annotated else get_args(shape)
    if isinstance(shape, type) and not arguments:
        yield shape
    for argument in arguments:
        yield from types_in(argument)


def test_process_metrics_are_documented(application: Application) -> None:
    page = call(application, "GET", "/metrics")[1].decode()
    on_page = set(re.findall(r"^# TYPE (process_\w+) ", page, re.MULTILINE))
    documented = {span for span in spans(text_of("docs/metrics.md")) if span.startswith("process_")}
    assert on_page <= documented


def test_page_has_the_documentation_of_its_metrics(application: Application) -> None:
    page = call(application, "GET", "/metrics")[1].decode()
    told = dict(re.findall(r"^# HELP (mlexporter_\S+) (.+)$", page, re.MULTILINE))
    assert told == {metric.name: metric.help for metric in metrics.ALL}


# -- HTTP -------------------------------------------------------------------------------------------------------------


def test_reasons_are_documented() -> None:
    documented = [code(row["reason"]) for row in rows(text_of("docs/http-api.md"), "reason")]
    assert sorted(documented) == sorted(reason.value for reason in Reason)


def documented_routes() -> set[str]:
    return {code(row["route"]) for row in rows(text_of("docs/http-api.md"), "route")}


def test_routes_are_documented(application: Application) -> None:
    routes = {f"{method} {path}" for path, method in _PATHS.items()}
    for rule in application._flask.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        routes |= {f"{method} {path}" for method in rule.methods or () if method not in ("HEAD", "OPTIONS")}
    assert documented_routes() == routes
    described = openapi.document()["paths"]
    assert {
        f"{method.upper()} {path}" for path in described for method in described[path].keys() - {"parameters"}
    } == routes


def test_documented_routes_answer(application: Application) -> None:
    bodies = {
        "/v1/samples": b'{"model": "churn", "features": {}}',
        "/v1/labels": b'{"model": "binary", "id": "a", "label": 1}',
    }
    application.reload = lambda: None
    for route in documented_routes():
        method, path = route.split(" ")
        path = path.replace("{model}", "churn").replace("{version}", "7")
        assert call(application, method, path, bodies.get(path, b""))[0] == 200, route


# -- the command line -------------------------------------------------------------------------------------------------


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands that do something, with their words."""
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            if not command.hidden:
                yield from commands(command, (*path, name))
    else:
        yield path, group


_COMMANDS = dict(commands(cli.main))


def options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def invocations(text: str) -> Iterator[list[str]]:
    """The words after each `mlexporter` that stands for a command, in console blocks and in inline code."""
    lines = [line[2:] for block in blocks(text, "console") for line in _joined(block) if line.startswith("$ ")]
    lines += [line for block in blocks(text, "sh", "yaml", "dockerfile", "ini") for line in _joined(block)]
    for line in (*lines, *spans(text)):
        found = re.search(r"(?:^|[/ ;|&])mlexporter ((?:-|[a-z]).*)$", line)
        if found is not None:
            words = re.split(r"[|;&#>]", found[1])[0].split()
            if words[0] in cli.main.commands or words[0].startswith("-") or line.startswith("mlexporter "):
                yield words


def _joined(block: str) -> list[str]:
    """Lines, with those that end in a backslash joined to the next."""
    return re.sub(r"\\\n\s*", "", block).splitlines()


@pytest.mark.parametrize("path", DOCS, ids=_IDS)
def test_every_command_that_is_shown_exists(path: Path) -> None:
    for words in invocations(path.read_text(encoding="utf-8")):
        command: click.Command = cli.main
        known = {"--help", "-h", "--version"}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.split("=")[0] in known, f"{word} in: mlexporter {' '.join(words)}"
            elif isinstance(command, click.Group):
                assert word in command.commands, f"{word} in: mlexporter {' '.join(words)}"
                command = command.commands[word]
                known = {"--help", "-h", *(name for option in options(command) for name in option.opts)}


def test_every_command_is_shown() -> None:
    shown = {tuple(words) for path in DOCS for words in invocations(path.read_text(encoding="utf-8"))}
    missing = [words for words in _COMMANDS if not any(line[: len(words)] == words for line in shown)]
    assert missing == []


def test_every_option_is_documented() -> None:
    """In a table with the command's name above it."""
    documented = {
        (command, re.split(r"[ =]", option)[0])
        for command, section in command_sections().items()
        for row in rows(section, "option")
        for option in re.findall(r"`(-[^`]+)`", row["option"])
    }
    existing = {
        (" ".join(words), name)
        for words, command in _COMMANDS.items()
        for option in options(command)
        if not option.hidden
        for name in option.opts
    }
    assert documented == existing


def command_sections() -> dict[str, str]:
    """Text under each heading that is a command."""
    sections: dict[str, str] = {}
    for path in DOCS:
        parts = re.split(r"^#+ `mlexporter ([^`]+)`$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for name, content in zip(parts[1::2], parts[2::2], strict=True):
            sections[name] = re.split(r"^#+ ", content, maxsplit=1, flags=re.MULTILINE)[0]
    return sections


# -- statistics, links, targets ---------------------------------------------------------------------------------------


def test_statistics_are_explained() -> None:
    explained = [found[1] for heading in headings(text_of("docs/statistics.md")) if (found := _NAMED.search(heading))]
    assert sorted(explained) == sorted(WindowStatistics.__struct_fields__)


_NAMED = re.compile(r"\(`(\w+)`\)$")


@pytest.mark.parametrize("path", DOCS, ids=_IDS)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if fragment:
            assert fragment in map(anchor, headings(file.read_text(encoding="utf-8"))), target


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", text_of("README.md")))
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")} <= linked


def test_every_target_of_make_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        shown = {found for span in spans(text) for found in re.findall(r"^make ([a-z]+)", span)}
        shown |= {found for block in blocks(text) for found in re.findall(r"^\$ make ([a-z]+)", block, re.MULTILINE)}
        assert shown <= targets, path
