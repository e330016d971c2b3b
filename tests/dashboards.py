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
    """Panels in the order of the file, those in closed rows among them; rows themselves only if asked for."""
    for panel in dashboard["panels"]:
        if rows or panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def repeated(dashboard: Json, panel: Json) -> set[str]:
    """The variables that a panel, or the row that it stands in, is repeated for: it sees one value of each."""
    found: set[str] = set()
    row: Json = {}
    for other in dashboard["panels"]:
        row = other if other["type"] == "row" else row
        if other is panel or any(inner is panel for inner in other.get("panels", ())):
            found = {each["repeat"] for each in (row, panel) if each.get("repeat")}
    return found


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
        single: variables that have one value here whatever is chosen.

    """

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool
    step: int = SCRAPE_SECONDS
    single: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel} {self.ref}".rstrip()


def queries(name: str) -> Iterator[Query]:
    """All queries of the panels of a dashboard."""
    dashboard = load(name)
    for panel in panels(dashboard):
        single = frozenset(repeated(dashboard, panel))
        for target in panel.get("targets", ()):
            instant = bool(target.get("instant"))
            kinds = [True] * instant + [False] * (bool(target.get("range")) or not instant)
            for kind in kinds:
                step = seconds(target.get("interval") or panel.get("interval") or "")
                yield Query(name, panel["title"], target["refId"], target["expr"], kind, step, single)


def seconds(interval: str) -> int:
    """A least interval as Grafana writes it; that of the data source where there is none."""
    found = re.fullmatch(r">?(\d+)([smh])", interval)
    return max(SCRAPE_SECONDS, int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]) if found else SCRAPE_SECONDS


def annotations(name: str) -> Iterator[Query]:
    """The queries of the annotations of a dashboard."""
    for annotation in load(name).get("annotations", {}).get("list", ()):
        expr = annotation.get("expr") or annotation.get("target", {}).get("expr")
        if expr:
            step = seconds(annotation.get("step", ""))
            yield Query(name, f"annotation {annotation['name']}", "", expr, False, step)


# -- variables --------------------------------------------------------------------------------------------------------


def variables(dashboard: Json) -> list[Json]:
    found: list[Json] = dashboard["templating"]["list"]
    return found


def query_of(variable: Json) -> str:
    """The query of a variable of type `query`; Grafana has it as text or as an object."""
    query = variable["query"]
    text: str = query if isinstance(query, str) else query["query"]
    return text


def has_all(variable: Json) -> bool:
    return bool(variable.get("includeAll"))


_REFERENCE = re.compile(r"\$\{(\w+)(?::([^}]+))?\}|\$(\w+)|\[\[(\w+)(?::(\w+))?\]\]")


def referenced(text: str) -> Iterator[tuple[str, str]]:
    """Names and formats of the variables in a text."""
    for found in _REFERENCE.finditer(text):
        yield (found[1] or found[3] or found[4]), (found[2] or found[5] or "")


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

    def written(self, form: str) -> str:
        """As Grafana writes it into a query, by `form`, or as its Prometheus data source does."""
        if self.text is not None:
            return self.text
        match form:
            case "":
                return self._as_promql()
            case "raw" | "text":
                return ",".join(self.values)
            case "pipe":
                return "|".join(self.values)
            case "regex":
                return _either([re.escape(value) for value in self.values])
            case _:
                raise ValueError(f"a format that is not known here: {form}")

    def _as_promql(self) -> str:
        if self.regex:
            return _either([_escaped(value) for value in self.values])
        (value,) = self.values
        return value.replace("\\", "\\\\").replace('"', '\\"')


def _either(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({'|'.join(values)})"


def _escaped(value: str) -> str:
    """As part of a regular expression in a string of PromQL: a backslash is four, and any other sign gets two."""
    return re.sub(r"[$^*{}\[\]'+?.()|]", lambda found: "\\\\" + found[0], value.replace("\\", "\\\\\\\\"))


def interpolated(text: str, chosen: Mapping[str, Chosen], own: Mapping[str, str]) -> str:
    """The text with the variables in it as Grafana would send it; `own` are those that Grafana has itself.

    Raises KeyError where a variable is not known.
    """

    def written(found: re.Match[str]) -> str:
        name, form = found[1] or found[3] or found[4], found[2] or found[5] or ""
        if name.isdecimal():  # a group of a regular expression, which is left alone
            return found[0]
        return own[name] if name in own else chosen[name].written(form)

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
