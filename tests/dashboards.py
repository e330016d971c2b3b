"""The dashboards as Grafana reads them: panels with their places, queries, variables with their values, links."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "grafana" / "dashboards"
UIDS = {name: f"mlexporter-{name}" for name in ("fleet", "model", "column", "exporter")}
ALL = "$__all"
# The scrape interval of the data source, which is the least step of a query.
SCRAPE_SECONDS = 15

Json = Mapping[str, Any]


def load(name: str) -> Json:
    content: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


# -- panels and their queries -----------------------------------------------------------------------------------------


def panels(dashboard: Json, *, rows: bool = False) -> Iterator[Json]:
    """Panels in the order of the file; rows, which are all open and stand there once, only if asked for."""
    for panel in dashboard["panels"]:
        assert not panel.get("panels"), "nobody looks into a closed row here"
        assert not panel.get("repeat"), "nobody repeats a panel here"
        if rows or panel["type"] != "row":
            yield panel


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel or an annotation.

    Attributes:
        dashboard: name of its file.
        panel: the title.
        ref: the query's letter.
        expr: PromQL with Grafana's variables.
        instant: asked at one time, not over a range.
        step: seconds between values, at least.

    """

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool
    step: int = SCRAPE_SECONDS

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel} {self.ref}".rstrip()


def queries(name: str) -> Iterator[Query]:
    """All queries of the panels of a dashboard."""
    for panel in panels(load(name)):
        for target in panel.get("targets", ()):
            instant, step = bool(target.get("instant")), seconds(target.get("interval", ""))
            assert instant != bool(target.get("range")), panel["title"]
            yield Query(name, panel["title"], target["refId"], target["expr"], instant, step)


def seconds(interval: str) -> int:
    """A least interval as Grafana writes it; that of the data source where there is none."""
    found = re.fullmatch(r">?(\d+)([smh])", interval)
    return max(SCRAPE_SECONDS, int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]) if found else SCRAPE_SECONDS


def annotations(name: str) -> Iterator[Query]:
    """The queries of the annotations of a dashboard."""
    for annotation in load(name)["annotations"]["list"]:
        title, step = f"annotation {annotation['name']}", seconds(annotation["step"])
        yield Query(name, title, "", annotation["expr"], False, step)


# -- variables --------------------------------------------------------------------------------------------------------


def variables(dashboard: Json) -> list[Json]:
    found: list[Json] = dashboard["templating"]["list"]
    return found


def query_of(variable: Json) -> str:
    """The query of a variable of type `query`."""
    text: str = variable["query"]
    return text


def has_all(variable: Json) -> bool:
    return bool(variable.get("includeAll"))


_REFERENCE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")


def referenced(text: str) -> Iterator[str]:
    """Names of the variables in a text."""
    for found in _REFERENCE.finditer(text):
        yield found[1] or found[2]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is chosen for a variable.

    Attributes:
        values: one, or several.
        regex: the variable may have several values, so that they are written as a regular expression.
        text: stands for All as it is, where the variable says so.

    """

    values: Sequence[str]
    regex: bool = False
    text: str | None = None

    def written(self) -> str:
        """As Grafana's data source for Prometheus writes it into a query."""
        if self.text is not None:
            return self.text
        if self.regex:
            values = [_escaped(value) for value in self.values]
            return values[0] if len(values) == 1 else f"({'|'.join(values)})"
        (value,) = self.values
        return value.replace("\\", "\\\\").replace('"', '\\"')


def _escaped(value: str) -> str:
    """As part of a regular expression in a string of PromQL: a backslash is four, and any other sign gets two."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", lambda found: "\\\\" + found[0], value.replace("\\", "\\\\\\\\"))


def interpolated(text: str, chosen: Mapping[str, Chosen], own: Mapping[str, str]) -> str:
    """The text with the variables in it as Grafana would send it; `own` are those that Grafana has itself.

    Raises KeyError where a variable is not known.
    """

    def written(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name.isdecimal():  # a group of a regular expression, which is left alone
            return found[0]
        assert ":" not in found[0], "formats are not known here"
        return own[name] if name in own else chosen[name].written()

    return _REFERENCE.sub(written, text)


# -- links ------------------------------------------------------------------------------------------------------------


def links(content: object) -> Iterator[str]:
    """Every address in a dashboard: of its links, of panels, of data links and their overrides."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "url" and isinstance(value, str) and value:
                yield value
            else:
                yield from links(value)
    elif isinstance(content, list):
        for value in content:
            yield from links(value)
