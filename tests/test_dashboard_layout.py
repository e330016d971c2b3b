"""Dashboards: where panels stand and what they say, links that lead somewhere, names that exist, Grafana's linter."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from dashboards import (
    FOLDER,
    UIDS,
    Chosen,
    Json,
    annotations,
    interpolated,
    links,
    load,
    panels,
    queries,
    query_of,
    referenced,
    variables,
)
from promql import ALERTS, KNOWN, TARGET, label_lists, names, selectors, strangers

ROOT = Path(__file__).parents[1]
LINTER = ROOT / "tools" / "dashboard-linter" / "bin" / "dashboard-linter"
WIDTH = 24

each = pytest.mark.parametrize("name", UIDS)


def grid(panel: Json) -> tuple[int, int, int, int]:
    place = panel["gridPos"]
    return place["x"], place["y"], place["w"], place["h"]


def cells(panel: Json) -> Iterator[tuple[int, int]]:
    left, top, width, height = grid(panel)
    yield from ((x, y) for x in range(left, left + width) for y in range(top, top + height))


# -- names and places --------------------------------------------------------------------------------------------------


def test_there_are_these_dashboards_and_no_others() -> None:
    assert {path.stem: load(path.stem)["uid"] for path in FOLDER.glob("*.json")} == UIDS


@each
def test_panels_neither_overlap_nor_leave_gaps(name: str) -> None:
    taken = [cell for panel in panels(load(name), rows=True) for cell in cells(panel)]
    assert len(taken) == len(set(taken)), "overlap"
    bottom = max(y for _, y in taken) + 1
    assert set(taken) == {(x, y) for x in range(WIDTH) for y in range(bottom)}, "gap, or over the edge"


@each
def test_panels_are_in_reading_order(name: str) -> None:
    places = [(grid(panel)[1], grid(panel)[0]) for panel in panels(load(name), rows=True)]
    assert places == sorted(places)


@each
def test_panel_ids_and_titles_are_unique(name: str) -> None:
    every = list(panels(load(name), rows=True))
    ids = [panel["id"] for panel in every]
    titles = [panel["title"] for panel in every if panel["type"] != "row"]
    assert len(ids) == len(set(ids))
    assert len(titles) == len(set(titles)), "tests and .lint name panels by their titles"


@each
def test_every_panel_says_what_it_shows(name: str) -> None:
    for panel in panels(load(name)):
        assert panel["title"], panel["id"]
        assert re.search(r"\*\*Good:\*\* .+\*\*Otherwise:\*\* ", panel.get("description", ""), re.DOTALL), panel[
            "title"
        ]
        assert units(panel), panel["title"]
        assert panel["targets"], panel["title"]


def units(panel: Json) -> set[str]:
    settings = panel.get("fieldConfig", {})
    own = [settings.get("defaults", {}).get("unit")]
    own += [
        part["value"]
        for override in settings.get("overrides", ())
        for part in override["properties"]
        if part["id"] == "unit"
    ]
    return {unit for unit in own if unit}


@each
def test_what_gets_a_look_is_there(name: str) -> None:
    """Grafana says nothing of an override, an order or an axis that is of no query or column of the panel."""
    for panel in panels(load(name)):
        transformations = {part["id"]: part["options"] for part in panel.get("transformations", ())}
        letters = {target["refId"] for target in panel["targets"]}
        renamed = transformations.get("organize", {}).get("renameByName", {})
        known = {"byFrameRefID": letters, "byName": set(renamed.values())}
        for override in panel["fieldConfig"].get("overrides", ()):
            kind, wanted = override["matcher"]["id"], override["matcher"]["options"]
            if kind == "byRegexp":
                start = wanted.strip("/^")
                assert wanted == "/.*/" or f'"{start} $1"' in panel["targets"][0]["expr"], f"{panel['title']}: {wanted}"
            else:
                assert wanted in known[kind], f"{panel['title']}: {wanted}"
        if panel["type"] == "table":
            assert {f"Value #{letter}" for letter in letters} <= renamed.keys(), panel["title"]
            assert {by["displayName"] for by in panel["options"]["sortBy"]} <= set(renamed.values()), panel["title"]
        if panel["type"] == "barchart":
            matrix = transformations["groupingToMatrix"]
            assert panel["options"]["xField"] == f"{matrix['rowField']}\\{matrix['columnField']}", panel["title"]


@each
def test_every_query_asks_the_data_source_that_is_chosen(name: str) -> None:
    dashboard = load(name)
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            source = target.get("datasource") or panel["datasource"]
            assert source["uid"] in ("$datasource", "${datasource}"), panel["title"]
    for variable in variables(dashboard):
        assert variable["type"] != "query" or variable["datasource"]["uid"] in ("$datasource", "${datasource}")


# -- links -------------------------------------------------------------------------------------------------------------


def broken(url: str, here: str) -> list[str]:
    """What is wrong with an address on dashboard `here`."""
    parts = urlsplit(re.sub(r"\$\{([^}]*)\}", r"$\1", url))
    found = re.fullmatch(r"/d/([\w-]+)(?:/[\w-]*)?", parts.path)
    if parts.scheme:
        return [] if re.match(r"https://github\.com/mlexporter/mlexporter/blob/main/docs/", url) else ["strange"]
    if found is None or found[1] not in UIDS.values():
        return ["no such dashboard"]
    target = load(next(name for name, uid in UIDS.items() if uid == found[1]))
    there = {variable["name"] for variable in variables(target)}
    wrong = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key.startswith("var-"):
            wrong += [f"no variable {key}"] * (key.removeprefix("var-") not in there)
        elif key == "viewPanel":
            wrong += [f"no panel {value}"] * (
                value.removeprefix("panel-") not in {str(p["id"]) for p in panels(target)}
            )
        elif key not in ("from", "to") and not key.startswith("$"):
            wrong.append(f"no parameter {key}")
    own = {variable["name"] for variable in variables(load(here))}
    used = {name for name in referenced(url) if not name.startswith("__")}
    return wrong + [f"no variable {name} here" for name in sorted(used - own)]


@each
def test_links_lead_to_what_exists(name: str) -> None:
    wrong = {url: broken(url, name) for url in links(load(name))}
    assert {url: why for url, why in wrong.items() if why} == {}


@each
def test_links_carry_the_time(name: str) -> None:
    dashboard = load(name)
    for link in dashboard["links"]:
        assert link["keepTime"], link["title"]
        assert link["includeVars"], link["title"]
    for url in links({key: value for key, value in dashboard.items() if key != "links"}):
        assert not url.startswith("/d/") or "${__url_time_range}" in url, url


@each
def test_links_of_values_use_labels_and_columns_that_are_there(name: str) -> None:
    for panel in panels(load(name)):
        urls = " ".join(links(panel))
        exprs = [plain(target["expr"]) for target in panel.get("targets", ())]
        labels = set[str]().union(*map(label_lists, exprs))
        assert set(re.findall(r"\$\{__field\.labels\.(\w+)", urls)) <= labels, panel["title"]
        renamed = [part["options"].get("renameByName", {}) for part in panel.get("transformations", ())]
        columns = {new for names_ in renamed for old, new in names_.items() if old in labels}
        assert set(re.findall(r"\$\{__data\.fields\.(\w+)", urls)) <= columns, panel["title"]


def reached(name: str) -> set[str]:
    """Dashboards that are one click away."""
    found = {part for url in links(load(name)) for part in UIDS if f"/d/{UIDS[part]}" in url}
    return found - {name}


def test_links_lead_down_and_up() -> None:
    assert {"model", "exporter"} <= reached("fleet")
    assert {"fleet", "column"} <= reached("model")
    assert {"fleet", "model"} <= reached("column")
    assert "fleet" in reached("exporter")


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_lead_to_what_exists(alert: str) -> None:
    url = ALERTS[alert]["annotations"]["dashboard_url"]
    path = re.sub(r"^\{\{.*?\}\}", "", url)
    assert path.startswith("/d/"), url
    path = re.sub(r"\{\{[^}]*\}\}", "x", path)
    name = next(name for name, uid in UIDS.items() if re.match(rf"/d/{uid}\b", path))
    assert "viewPanel=" in path, "it leads to a panel, not to a dashboard"
    assert broken(path, name) == []


# -- how all of this is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Chosen(["a.b"]), 'x="a.b"'),
        (Chosen(['a"b']), r'x="a\"b"'),
        (Chosen(["a.b"], regex=True), r'x="a\\.b"'),
        (Chosen(["a", "b|c"], regex=True), r'x="(a|b\\|c)"'),
        (Chosen(["a", "b"], regex=True, text=".+"), 'x=".+"'),
    ],
)
def test_variables_are_written_as_grafana_writes_them(chosen: Chosen, expected: str) -> None:
    """As its data source for Prometheus: in a string of PromQL a sign of a regular expression takes two backslashes."""
    for text in ('x="$it"', 'x="${it}"'):
        assert interpolated(text, {"it": chosen}, {}) == expected
    assert interpolated('label_replace(x[$__range], "$1")', {}, {"__range": "1h"}) == 'label_replace(x[1h], "$1")'


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/d/mlexporter-model?${__url_time_range}&var-model=${__data.fields.model}&${job:queryparam}", []),
        ("/d/mlexporter-models?var-model=x", ["no such dashboard"]),
        ("/d/mlexporter-fleet?var-column=x", ["no variable var-column"]),
        ("/d/mlexporter-fleet?viewPanel=999", ["no panel 999"]),
        ("/d/mlexporter-fleet?panel=1", ["no parameter panel"]),
        ("/d/mlexporter-fleet?var-model=${column}", ["no variable column here"]),
        ("https://example.com/", ["strange"]),
    ],
)
def test_broken_links_are_found(url: str, expected: list[str]) -> None:
    assert broken(url, "fleet") == expected


# -- metrics and labels ------------------------------------------------------------------------------------------------


def plain(expr: str) -> str:
    """Without Grafana's variables: durations are five minutes, matchers are of something, words are no names."""
    expr = re.sub(r"\[\$\{?__\w+\}?(:[^\]]*)?\]", "[5m]", expr)
    expr = re.sub(r"\$\{?__(interval|rate_interval|range)\}?", "5m", expr)
    return re.sub(r"\$\{(\w+)(:\w+)?\}|\$([a-z]\w*)", "1", expr)


@each
def test_queries_read_what_exists(name: str) -> None:
    wrong = {}
    for query in (*queries(name), *annotations(name)):
        assert names(plain(query.expr)), str(query)
        wrong[str(query)] = strangers(plain(query.expr))
    assert {query: why for query, why in wrong.items() if why} == {}


@each
def test_what_may_be_several_is_a_regular_expression_and_nothing_else_is(name: str) -> None:
    """Grafana escapes the values of those only: a column named `a(b` would break the query."""
    every = variables(load(name))
    several = {variable["name"] for variable in every if variable.get("multi") or variable.get("includeAll")}
    texts = {str(query): query.expr for query in (*queries(name), *annotations(name))}
    texts |= {variable["name"]: query_of(variable) for variable in every if variable["type"] == "query"}
    for where, text in texts.items():
        for operator, value in re.findall(r'(=~|!~|!=|=)\s*"([^"]*)"', text):
            used = {variable for variable in referenced(value) if not variable.isdecimal()}
            assert used <= several if "~" in operator else not used & several, f"{where}: {value}"


@each
def test_variables_read_what_exists(name: str) -> None:
    for variable in variables(load(name)):
        if variable["type"] != "query":
            continue
        text = plain(query_of(variable))
        found = re.fullmatch(r"label_values\((.+),\s*(\w+)\s*\)", text, re.DOTALL)
        assert found is not None, text
        assert strangers(found[1]) == set(), variable["name"]
        labels = TARGET.union(*(KNOWN[metric] for metric in names(found[1])), *(own for _, own in selectors(found[1])))
        assert found[2] in labels, variable["name"]


# -- Grafana's linter --------------------------------------------------------------------------------------------------


def lint(dashboard: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINTER), "lint", "--strict", f"--config={config}", str(dashboard)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


needs_linter = pytest.mark.skipif(
    not LINTER.exists(), reason="the linter is not built: make tools/dashboard-linter/bin/dashboard-linter"
)


@needs_linter
@each
def test_the_linter_of_grafana_has_nothing_to_say(name: str) -> None:
    done = lint(FOLDER / f"{name}.json", FOLDER / ".lint")
    assert done.returncode == 0, done.stdout + done.stderr


def exclusions() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / ".lint").read_text(encoding="utf-8"))
    assert content.keys() == {"exclusions"}, "nothing is let pass as a warning"
    return content["exclusions"] or {}


def test_every_exclusion_has_a_reason() -> None:
    for rule, content in exclusions().items():
        for entry in content.get("entries", [content]):
            assert len(entry.get("reason", content.get("reason", ""))) > 20, rule


@needs_linter
def test_every_exclusion_is_needed(tmp_path: Path) -> None:
    for rule, content in exclusions().items():
        for left_out in content.get("entries", [None]):
            rest = [entry for entry in content.get("entries", []) if entry is not left_out]
            fewer = {name: other for name, other in exclusions().items() if name != rule}
            if rest:
                fewer[rule] = {**content, "entries": rest}
            (tmp_path / "lint.yml").write_text(yaml.safe_dump({"exclusions": fewer}))
            codes = {lint(FOLDER / f"{name}.json", tmp_path / "lint.yml").returncode for name in UIDS}
            assert codes - {0}, f"{rule}: {left_out}"
