"""Reading PromQL: the metrics and labels of an expression, and which of them exist."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlexporter import metrics

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
FILES = sorted(RULES.glob("*.yaml"))

Rule = Mapping[str, Any]


def rules_of(path: Path, kind: str) -> list[Rule]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


RECORDED = [rule for path in FILES for rule in rules_of(path, "record")]
ALERTS = {rule["alert"]: rule for path in FILES for rule in rules_of(path, "alert")}

# What Prometheus gives to every target, and the operator for it on Kubernetes.
TARGET = {"job", "instance", "namespace", "pod", "container", "endpoint", "service"}
# Series that Prometheus writes itself.
OWN = {
    "up": TARGET,
    "scrape_duration_seconds": TARGET,
    "scrape_samples_post_metric_relabeling": TARGET,
    "scrape_sample_limit": TARGET,
    "ALERTS": TARGET | {"alertname", "alertstate", "severity"},
}
# What every client library of Prometheus' tells of its process.
PROCESS = dict.fromkeys(
    ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"), TARGET
)
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right", "Inf"}

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^{}]*)\}")
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")


def label_lists(expr: str) -> set[str]:
    """Labels that aggregations and matches name."""
    return {label.strip() for found in _LABEL_LIST.findall(expr) for label in found.split(",") if label.strip()}


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics with the labels that they are selected by."""
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expr)):
        yield name, {re.split(r"[=!]", matcher)[0].strip() for matcher in matchers.split(",") if matcher.strip()}


def names(expr: str) -> set[str]:
    """The metrics of an expression."""
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", "", _STRING.sub('""', expr))
    bare = re.sub(r"\boffset\s+\w+", "", _LABEL_LIST.sub("", bare))
    return set(_NAME.findall(bare)) - WORDS


def made(expr: str) -> set[str]:
    """Labels that label_replace writes."""
    return set(re.findall(r'"(\w+)",\s*"\$1"', expr))


def raw_metrics() -> dict[str, set[str]]:
    """Every series name of the exporter's page with its labels."""
    known: dict[str, set[str]] = {}
    for metric in metrics.ALL:
        if metric.type == "histogram":
            known |= {f"{metric.name}{suffix}": {*metric.labels} for suffix in ("_sum", "_count")}
            known[f"{metric.name}_bucket"] = {*metric.labels, "le"}
        else:
            known[metric.name] = {*metric.labels}
    return {name: labels | TARGET for name, labels in known.items()}


def known_metrics() -> dict[str, set[str]]:
    """Every series name that a rule may use, with the labels that it may have at most."""
    known = raw_metrics() | OWN | PROCESS
    for _ in range(2):  # a rule may read what it recorded before
        for rule in RECORDED:
            labels = set(rule.get("labels", {})) | made(rule["expr"])
            for name in names(rule["expr"]):
                labels |= known.get(name, set())
            known[rule["record"]] = known.get(rule["record"], set()) | labels
    for rule in ALERTS.values():  # alerts have the labels of what they look at
        known["ALERTS"] = known["ALERTS"].union(*(known[name] for name in names(rule["expr"])))
    return known


KNOWN = known_metrics()


def strangers(expr: str) -> set[str]:
    """Metrics and labels of an expression that do not exist."""
    used = names(expr)
    wrong = used - KNOWN.keys()
    for name, labels in selectors(expr):
        wrong |= {f"{name}{{{label}}}" for label in labels - KNOWN.get(name, labels)}
    existing = made(expr).union(*(KNOWN.get(name, set()) for name in used))
    return wrong | {f"({label})" for label in label_lists(expr) - existing}
