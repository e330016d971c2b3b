"""Who may import whom. A new module has to be entered here, and a new direction has to be thought about."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlexporter

ROOT = Path(mlexporter.__file__).parent

# Modules, or whole packages, in the order in which data meets them; with what of ours they may import.
ALLOWED = {
    # leaves that anyone may import
    "samples": "",
    "metrics": "",
    "outcome_profile": "",
    "baseline": "outcome_profile samples",
    "scalars": "",
    "config_document": "scalars",
    "strict_yaml": "config_document scalars",
    "timezones": "edges scalars",
    "config": "config_document outcome_profile scalars strict_yaml timezones",
    # predictions that wait for their labels
    "pending": "config samples",
    # bytes to batches
    "decode": "samples",
    # batches to counts
    "categories": "",
    "edges": "",
    "score_edges": "edges",
    "binning": "baseline categories edges samples",
    "class_lookup": "categories edges",
    "outcomes": "baseline binning categories class_lookup edges outcome_profile",
    "window": "edges",
    # counts to numbers: no clock, no state, no text
    "drift": "edges",
    "statistics": "baseline binning drift edges",
    "performance": "edges outcome_profile outcomes score_edges",
    "estimates": "edges outcome_profile outcomes performance",
    "dictionary": "edges",
    "detector": "dictionary edges",
    # counts by the hour: what is expected of it, and the alarm that is held to that; the clock is an argument
    "alarm_bins": "baseline binning dictionary edges",
    "history": "alarm_bins baseline dictionary drift edges timezones",
    "diary": "alarm_bins baseline binning config edges history timezones",
    "expectation": "alarm_bins baseline binning config dictionary drift edges history timezones",
    "alarm": "binning detector dictionary edges expectation",
    # outcomes to the alarm on concept drift
    "strata": "edges outcome_profile outcomes",
    "joint_bets": "dictionary edges",
    "concept": "alarm config detector dictionary edges joint_bets outcomes strata",
    # baselines, from traffic and from files
    "columns": "baseline binning categories edges samples",
    "learning": "baseline binning categories columns samples statistics",
    "dataset": "categories columns config decode edges samples scalars timezones",
    "daily": "baseline binning categories config dataset diary drift edges history",
    "profiling": "binning columns dataset decode edges outcome_profile outcomes samples scalars score_edges",
    "builder": "baseline binning columns config daily dataset edges outcome_profile profiling",
    "terminal": "",
    "show": "baseline categories drift edges show_outcomes terminal",
    "show_outcomes": "outcome_profile outcomes performance terminal",
    "show_alarm": "baseline binning config expectation history statistics terminal",
    # what labels tell of predictions
    "feedback": "concept config edges outcomes window",
    "tally": "edges feedback outcomes pending",
    # state, and what it hands out
    "snapshot": (
        "alarm baseline binning concept config edges expectation feedback outcome_profile outcomes samples statistics"
    ),
    "budget": "baseline metrics outcome_profile",
    "derived_profile": "baseline config outcome_profile samples scalars score_edges",
    "registry": (
        "alarm baseline binning budget config derived_profile diary edges feedback learning samples snapshot window"
    ),
    "feedback_sink": "feedback pending registry samples tally",
    "fold": "binning edges learning outcomes registry samples snapshot",
    # state to disk and back
    "state": (
        "alarm baseline binning concept diary edges feedback feedback_sink outcomes registry snapshot statistics window"
    ),
    "restoring": (
        "baseline config derived_profile diary feedback feedback_sink learning outcomes registry samples snapshot "
        "state window"
    ),
    "reloading": "alarm baseline concept config derived_profile diary feedback registry restoring samples snapshot",
    "tick": "binning concept config detector diary history learning registry snapshot",
    "store": (
        "alarm baseline config derived_profile feedback_sink fold learning outcomes registry reloading restoring "
        "samples snapshot state tick window"
    ),
    "persistence": "restoring state store",
    "loading": "baseline budget config config_document derived_profile outcome_profile",
    # recorded samples through all of it
    "backtest": "alarm baseline categories config dataset decode detector edges expectation samples snapshot store",
    # snapshots to text
    "labels": "baseline binning categories",
    "exposition": (
        "alarm baseline binning categories edges estimates expectation feedback labels metrics outcome_profile "
        "outcomes performance snapshot statistics"
    ),
    "feedback_status": "alarm concept estimates expectation outcomes performance snapshot",
    "explanation": "alarm alarm_bins dictionary edges expectation feedback_status labels snapshot",
    "status": "baseline feedback_status snapshot statistics",
    "telemetry": "metrics pending samples",
    # who may do what: TLS, users, tokens
    "tls": "",
    "web_config": "config config_document scalars strict_yaml",
    "authentication": "",
    "rate_limit": "",
    "web_files": "authentication config_document tls web_config",
    "guard": "authentication rate_limit telemetry",
    "web_access": "authentication config_document guard rate_limit telemetry tls web_files",
    # HTTP
    "reloader": "baseline config store telemetry",
    "answers": "samples",
    "negotiation": "",
    "openapi": "answers baseline decode samples",
    "label_intake": "pending samples snapshot store",
    "crew": "",
    "backlog": "crew",
    "connections": "backlog",
    "slow_clients": "backlog connections crew decode samples",
    "server": (
        "answers baseline config decode explanation exposition label_intake negotiation openapi pending reloader "
        "samples slow_clients snapshot status store telemetry"
    ),
    "http_worker": "connections tls",
    "memory": "",
    "serving": "authentication crew guard http_worker logs memory server slow_clients store tls web_access",
    "addresses": "",
    "logs": "",
    # the receiver of alerts: a program of its own, which knows nothing of samples and drift
    "trigger": "config config_document logs metrics negotiation scalars strict_yaml telemetry",
    # the command line wires it all; the demo knows the exporter as a stranger does
    "commands": (
        "addresses backlog backtest baseline builder columns config connections crew dataset expectation loading logs "
        "memory outcome_profile pending persistence profiling reloader scalars server serving show show_alarm "
        "slow_clients store telemetry terminal timezones trigger web_access web_files"
    ),
    "cli": "commands demo",
    "__main__": "cli",
    "demo": "",
    "__init__": "",
}
# Packages of others with a place of their own; those that cost much memory or time are imported nowhere else.
CONFINED = {
    "flask": "server",
    "click": "cli commands demo",
    "granian": "http_worker",
    "bcrypt": "authentication",
    "jinja2": "trigger",
    "waitress": "serving",
    "scipy": "dictionary drift",
    "prometheus_client": "commands demo exposition telemetry trigger",
    "yaml": "strict_yaml",
    "pyarrow": "dataset",
    "redis": "pending",
    "datasketches": "builder",
    "sklearn": "demo",
    "threadpoolctl": "demo",
    "requests": "",
    "pandas": "",
}
ANYWHERE = {"msgspec", "numpy", "orjson"}


def unit_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all imported modules, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            assert node.module is not None
            if node.module == "mlexporter":
                yield from (f"mlexporter.{name.name}" for name in node.names)
            else:
                yield from (f"{node.module}.{name.name}" for name in node.names)


IMPORTS: dict[str, set[str]] = {}
for module in sorted(ROOT.rglob("*.py")):
    IMPORTS.setdefault(unit_of(module), set()).update(imports(module))


def test_every_module_is_in_the_table() -> None:
    assert set(IMPORTS) == set(ALLOWED)


@pytest.mark.parametrize("unit", ALLOWED)
def test_imports_of_ours(unit: str) -> None:
    ours = {name.split(".")[1] for name in IMPORTS[unit] if name.startswith("mlexporter.")}
    assert " ".join(sorted(ours - {unit, "__version__"})) == ALLOWED[unit]


@pytest.mark.parametrize("unit", ALLOWED)
def test_imports_of_others(unit: str) -> None:
    for name in IMPORTS[unit]:
        package, _, rest = name.partition(".")
        if package not in sys.stdlib_module_names | ANYWHERE | {"mlexporter"}:
            assert unit in CONFINED.get(package, "").split(), f"{unit} may not import {package}"
            assert package != "scipy" or rest.startswith("special"), "all but scipy.special costs too much memory"


def test_there_are_no_circles() -> None:
    left = {unit: set(others.split()) for unit, others in ALLOWED.items()}
    while left:
        free = {unit for unit, others in left.items() if not others & left.keys()}
        assert free, f"circle among {sorted(left)}"
        left = {unit: others for unit, others in left.items() if unit not in free}
