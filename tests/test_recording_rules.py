"""Every recording rule gives what numpy gives on the pooled raw counts; promtool evaluates the real rules."""

import json
import math
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import ncx2, norm
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    precision_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

RULES = Path(__file__).parents[1] / "prometheus" / "rules" / "mlexporter.rules.yaml"
EXACT, BURSTS = 1e-9, 0.02
HOUR, DAY, WEEK = 60, 1440, 10080  # minutes
ALPHA = norm.sf(5.94)
ALL = '{__name__=~"fleet:.+"}'

Floats = NDArray[np.float64]
Labels = Mapping[str, str]


# -- the statistics, straight from their definitions -------------------------------------------------------------------


def smoothed(counts: Floats) -> Floats:
    return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))


def psi(p: Floats, q: Floats) -> float:
    return float(np.sum((p - q) * np.log(p / q)))


def js_distance(p: Floats, q: Floats) -> float:
    middle = (p + q) / 2
    return math.sqrt((rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2)


def hellinger_distance(p: Floats, q: Floats) -> float:
    return float(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2))


def ks_distance(live: Floats, reference: Floats) -> float:
    """Of ordered bins without the missing values; the last edge is the baseline's maximum."""
    return float(np.abs(np.cumsum(live) / live.sum() - np.cumsum(reference) / reference.sum())[1:-1].max())


def critical_value(freedom: float, noncentrality: float, z: float = 5.94) -> float:
    """Of the non-central chi-square: Patnaik's two moments, Wilson and Hilferty's cube root."""
    h = (freedom + noncentrality) ** 2 / (freedom + 2 * noncentrality)
    return float((freedom + noncentrality) * (1 - 2 / (9 * h) + z * math.sqrt(2 / (9 * h))) ** 3)


def quantile(share: float, edges: Sequence[float], cumulative: Floats) -> float:
    """As histogram_quantile is defined: linear in the bucket that holds the rank, the last finite edge beyond it."""
    rank = share * cumulative[-1]
    bucket = int(np.searchsorted(cumulative, rank))
    if bucket == len(edges):
        return edges[-1]
    low, before = (edges[bucket - 1], cumulative[bucket - 1]) if bucket else (0.0, 0.0)
    return float(low + (edges[bucket] - low) * (rank - before) / (cumulative[bucket] - before))


def test_the_critical_value_is_conservative_and_near() -> None:
    """Near where there are many samples or many bins; of few, up to a third too high."""
    for bins in (3, 4, 5, 13, 23, 53):
        for noncentrality in (2, 4, 8, 16, 40, 144, 400, 4e3, 4e4):
            ratio = critical_value(bins - 1, noncentrality) / ncx2.isf(ALPHA, bins - 1, noncentrality)
            assert 1 <= ratio < (1.05 if noncentrality >= 144 else 1.1 if bins >= 13 else 1.31)


# -- columns, replicas, scrapes ----------------------------------------------------------------------------------------

NUMERIC = ("__below__", *(f"{i:02d} {i - 1}..{i}" for i in range(1, 11)), "__above__", "__missing__")
EDGES = tuple(f"{i}.0" for i in range(1, 11))
PLAN = ("free", "pro", 'q"uo\\te é {}', "__other__", "__new__", "__missing__")


@dataclass(frozen=True)
class Column:
    name: str
    bins: tuple[str, ...]
    reference: Floats
    role: str = "feature"
    dispersion: float = 1.0
    tolerance: float = 0.02

    @property
    def numeric(self) -> bool:
        return self.bins is NUMERIC

    @property
    def labels(self) -> dict[str, str]:
        return {"role": self.role, "column": self.name}


def counts(*values: int) -> Floats:
    return np.array(values, dtype=np.float64)


AGE = Column("age", NUMERIC, counts(0, *[1000] * 9, 900, 0, 100), dispersion=1.7, tolerance=0.031)
PLANS = Column("plan", PLAN, counts(6000, 3000, 500, 300, 0, 200))
PREDICTION = Column("prediction", NUMERIC, counts(0, *range(1500, 500, -100), 0, 0), role="prediction", dispersion=1.2)
# of an older exporter: no bin for new categories
LABEL = Column("label", ("false", "true", "__missing__"), counts(9000, 1000, 0), role="label", tolerance=0.05)
COLUMNS = (AGE, PLANS, PREDICTION, LABEL)

LIVE = {
    "age": counts(3, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 4, 8),
    "plan": counts(50, 30, 10, 10, 7, 13),
    "prediction": counts(0, 10, 10, 11, 12, 12, 12, 13, 13, 13, 13, 1, 0),
    "label": counts(100, 20, 0),
}
"""120 samples a scrape, for each column."""


@dataclass(frozen=True)
class Version:
    model: str = "churn"
    version: str = "7"
    columns: tuple[Column, ...] = COLUMNS
    baseline_hash: str = "0123456789abcdef"
    rows: int = 10_000

    @property
    def labels(self) -> dict[str, str]:
        return {"model": self.model, "version": self.version}


@dataclass(frozen=True)
class Check:
    """An expression, and the series that it gives."""

    expression: str
    minute: int
    series: tuple[tuple[Labels, float], ...]
    record: str = ""

    def as_promtool(self) -> dict[str, Any]:
        samples = [{"labels": selector("", labels), "value": value} for labels, value in self.series]
        return {"expr": self.expression, "eval_time": f"{self.minute}m", "exp_samples": samples}


def selector(name: str, labels: Labels) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return name + "{" + ", ".join(f'{label}="{quoted(value)}"' for label, value in labels.items()) + "}"


def window_of(minutes: int) -> dict[str, str]:
    return {"window": {HOUR: "1h", DAY: "24h", WEEK: "7d"}[minutes]}


@dataclass
class Fleet:
    """The scrapes of the replicas of one job, and what is expected of them."""

    replicas: int = 2
    minutes: int = 65
    interval: int = 60
    kubernetes: bool = False
    tolerance: float = EXACT
    series: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    expected: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    @property
    def scrapes(self) -> int:
        return self.minutes * 60 // self.interval + 1

    @property
    def own(self) -> dict[str, str]:
        """Labels that are the same for all replicas."""
        return {"job": "mlexporter"} | ({"namespace": "ml", "container": "exporter"} if self.kubernetes else {})

    def target(self, replica: int) -> dict[str, str]:
        pod = {"pod": f"mlexporter-{replica}"} if self.kubernetes else {}
        return {**self.own, **pod, "instance": f"10.0.0.{replica}:8000"}

    # -- series --

    def add(self, name: str, replica: int, labels: Labels, values: Floats | float) -> None:
        """Scraped values; NaN where there was none."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), self.scrapes)
        if np.isfinite(values).all() and np.ptp(steps := np.diff(values)) == 0:
            text = f"{values[0]:.17g}{steps[0]:+.17g}x{self.scrapes - 1}"
        else:
            texts = ["_" if math.isnan(v) else f"{v:.17g}".replace("inf", "Inf") for v in values.tolist()]
            for i in np.flatnonzero(np.diff(np.isnan(values).astype(np.int64)) == 1).tolist():
                texts[i + 1] = "stale"  # what Prometheus writes where a series is no longer on the page
            text = " ".join(texts)
        self.series[selector(name, {**self.target(replica), **labels})] = text

    def present(self, values: Floats | float, join: int = 0, leave: int | None = None) -> Floats:
        """The values from one scrape to another."""
        shown = np.full(self.scrapes, np.nan)
        shown[join:leave] = np.broadcast_to(np.asarray(values, dtype=np.float64), self.scrapes)[join:leave]
        return shown

    def counter(self, increments: Floats, *, join: int = 0, leave: int | None = None, reset: int = 0) -> Floats:
        """(T,) values of a counter from its increments (T,): 0 when it joins, and again just before the reset."""
        gained = np.where(np.arange(self.scrapes) <= join, 0.0, increments)
        total = np.cumsum(gained)
        if reset:
            total[reset:] -= total[reset - 1]
        return self.present(total, join, leave)

    def serve(
        self,
        version: Version,
        replica: int,
        live: Mapping[str, Floats],
        *,
        join: int = 0,
        leave: int | None = None,
        reset: int = 0,
    ) -> None:
        """A replica's page: (B,) increments of each scrape, or (T, B)."""

        def shown(value: float) -> Floats:
            return self.present(value, join, leave)

        def counted(increments: Floats) -> Floats:
            return self.counter(increments, join=join, leave=leave, reset=reset)

        always = {"task": "", "baseline_source": "file", "baseline_hash": version.baseline_hash}
        self.add("mlexporter_model_info", replica, version.labels | always, shown(1.0))
        self.add("mlexporter_baseline_rows", replica, version.labels, shown(version.rows))
        samples = np.zeros(self.scrapes)
        for column in version.columns:
            labels = version.labels | column.labels
            increments = np.broadcast_to(live[column.name], (self.scrapes, len(column.bins)))
            samples = increments.sum(axis=1)
            for i, name in enumerate(column.bins):
                self.add("mlexporter_column_bin_total", replica, labels | {"bin": name}, counted(increments[:, i]))
                share = shown(smoothed(column.reference)[i])
                self.add("mlexporter_column_baseline_ratio", replica, labels | {"bin": name}, share)
            if column.numeric:
                below = np.cumsum(increments[:, :-1], axis=1)[:, 1:]
                shares = np.cumsum(column.reference[:-1])[1:-1] / column.reference[:-1].sum()
                for i, le in enumerate((*EDGES, "+Inf")):
                    self.add("mlexporter_column_value_bucket", replica, labels | {"le": le}, counted(below[:, i]))
                for le, share_below in zip(EDGES, shares, strict=True):
                    edge = labels | {"edge": le}
                    self.add("mlexporter_column_baseline_value_ratio", replica, edge, shown(share_below))
            # each replica has learned its own, and the largest is taken
            less = 0.9 if replica % 2 else 1.0
            self.add("mlexporter_column_dispersion", replica, labels, shown(column.dispersion * less))
            for tier, size in (("page", 1.0), ("warn", 3.0)):
                accepted = shown(column.tolerance * less * size)
                self.add("mlexporter_column_tolerance", replica, labels | {"tier": tier}, accepted)
        self.add("mlexporter_samples_total", replica, version.labels, counted(samples))

    # -- expectations --

    def expect(self, record: str, labels: Labels, number: float, minute: int, tolerance: float | None = None) -> None:
        """The record has one series with just these labels and the fleet's, and that is its value."""
        labels = {**self.own, **labels}
        tolerance, number = self.tolerance if tolerance is None else tolerance, float(number)
        found = selector(record, labels)
        close = f"abs({found} / {number!r} - 1)" if number else f"abs({found})"
        self.checks.append(Check(f"{close} <= bool {tolerance!r}", minute, ((labels, 1.0),), record))
        self.expected[record, labels.get("window", ""), minute] += 1

    def expect_nothing(self, minute: int, *records: str, **labels: str) -> None:
        for record in records:
            self.checks.append(Check(f"count({selector(record, labels)})", minute, ()))

    def expect_finite(self, minute: int) -> None:
        finite = f"count({ALL}) - count({ALL} < Inf > -Inf)"
        self.checks.append(Check(finite, minute, (({}, 0),)))

    def expect_nothing_else(self) -> None:
        """Of the records that are expected there are no other series of that window, and nothing is NaN or infinite."""
        for (record, window, minute), number in self.expected.items():
            self.checks.append(Check(f"count({selector(record, {'window': window})})", minute, (({}, number),)))
        for minute in {minute for _, _, minute in self.expected}:
            self.expect_finite(minute)

    def expect_pooled(self, version: Version, live: Mapping[str, Floats], minute: int, minutes: int = HOUR) -> None:
        """All of the statistics of a window, from its pooled (B,) counts."""
        window = window_of(minutes)
        own = version.labels | {"baseline_hash": version.baseline_hash}
        if minutes == HOUR:
            self.expect("fleet:mlexporter_baselines:count", version.labels, 1, minute)
            self.expect("fleet:mlexporter_baseline:info", own, 1, minute)
            self.expect("fleet:mlexporter_baseline_rows:max", own, version.rows, minute)
        for column in version.columns:
            c, k, m = live[column.name], column.reference, version.rows
            n, freedom = c.sum(), len(c) - 1
            p, q, raw = smoothed(c), smoothed(k), c / c.sum()
            labels = own | column.labels | window

            def gives(name: str, number: float, labels: Labels = labels, **more: str) -> None:
                self.expect(f"fleet:mlexporter_column_{name}", {**labels, **more}, float(number), minute)

            for i, name in enumerate(column.bins):
                gives("bin:increase", c[i], bin=name)
                gives("bin:share", raw[i], bin=name)
                gives("bin:smoothed_share", p[i], bin=name)
                gives("baseline:share", q[i], bin=name)
            gives("bins:count", len(c))
            gives("samples:increase", n)
            gives("samples:enough", n)
            gives("psi:pooled", psi(p, q))
            gives("psi_excess:pooled", max(psi(p, q) - freedom * (1 / n + 1 / m), 0))
            gives("js_distance:pooled", js_distance(raw, q))
            gives("hellinger_distance:pooled", hellinger_distance(raw, q))
            if column.numeric:
                for le, below in zip((*EDGES, "+Inf"), np.cumsum(c[:-1])[1:], strict=True):
                    gives("value_bucket:increase", below, le=le)
                gives("ks_distance:pooled", ks_distance(c[:-1], k[:-1]))

            effective = n / column.dispersion**1.25
            noncentrality = 2 * effective * column.tolerance
            statistic = 2 * effective * rel_entr(raw, q).sum()
            spread = 2 * (freedom + 2 * noncentrality) / (9 * (freedom + noncentrality) ** 2)
            gives("samples:effective", effective)
            gives("drift:noncentrality", noncentrality)
            gives("drift:spread", spread)
            gives("drift_statistic:pooled", statistic / critical_value(freedom, noncentrality))
            self.expect(
                "fleet:mlexporter_column_drift_statistic:pooled",
                labels,
                statistic / ncx2.isf(ALPHA, freedom, noncentrality),
                minute,
                tolerance=0.05 if noncentrality > 144 else 0.31,
            )
            self.expected["fleet:mlexporter_column_drift_statistic:pooled", window["window"], minute] -= 1

            for name, bins in (
                ("missing", ["__missing__"]),
                ("new_category", ["__new__"]),
                ("out_of_range", ["__below__", "__above__"]),
            ):
                at = [i for i, label in enumerate(column.bins) if label in bins]
                if at:
                    accepted = min(q[at].sum() + 0.05, 1)
                    limit = accepted + 5.94 * math.sqrt(accepted * (1 - accepted) / effective)
                    gives(f"{name}_ratio:pooled", raw[at].sum())
                    gives(f"{name}_ratio:accepted", accepted)
                    gives(f"{name}_ratio:limit", limit)


def times(live: Mapping[str, Floats], factor: float) -> dict[str, Floats]:
    return {name: increments * factor for name, increments in live.items()}


SCENARIOS: dict[str, Callable[[], Fleet]] = {}
Scenario = Callable[..., Fleet]


def scenario(name: str, *arguments: object) -> Callable[[Scenario], Scenario]:
    def register(build: Scenario) -> Scenario:
        SCENARIOS[name] = lambda: build(*arguments)
        return build

    return register


# -- scenarios ---------------------------------------------------------------------------------------------------------


@scenario("two replicas", 2, False)
@scenario("two replicas, Kubernetes", 2, True)
@scenario("twenty replicas", 20, False)
@scenario("twenty replicas, Kubernetes", 20, True)
def steady(replicas: int, kubernetes: bool) -> Fleet:
    """Two models, one in two versions with baselines of their own; the replicas see different things."""
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=75)
    rng = np.random.default_rng(1)
    odd = Version('q"uo\\te 模\n', "1.0\n", (AGE, LABEL), "fedcba9876543210", 3_000)
    for version in (Version(), Version(version="8", baseline_hash="1" * 16), odd):
        pooled = {column.name: np.zeros(len(column.bins)) for column in version.columns}
        for replica in range(replicas):
            live = {name: np.floor(rng.uniform(0.2, 2) * rates) for name, rates in LIVE.items()}
            fleet.serve(version, replica, live)
            for name in pooled:
                pooled[name] += live[name]
        # more evaluations: the window moves on
        for minute in (60, 75):
            fleet.expect_pooled(version, times(pooled, 60), minute)
        own = version.labels | {"baseline_hash": version.baseline_hash}
        for column in version.columns:
            labels = own | column.labels
            of_five = pooled[column.name] * 5
            for name, number in zip(column.bins, of_five.tolist(), strict=True):
                fleet.expect("fleet:mlexporter_column_bin:increase5m", labels | {"bin": name}, number, 75)
            if column.numeric:
                for le, number in zip((*EDGES, "+Inf"), np.cumsum(of_five[:-1])[1:].tolist(), strict=True):
                    fleet.expect("fleet:mlexporter_column_value_bucket:increase5m", labels | {"le": le}, number, 75)
    fleet.expect_nothing_else()
    return fleet


@scenario("a day")
def a_day() -> Fleet:
    """The long window holds 288 times five minutes, the short one 12: not one more."""
    fleet = Fleet(minutes=1500)
    version = Version(columns=(AGE, PLANS))
    for replica in range(2):
        fleet.serve(version, replica, LIVE)
    fleet.expect_pooled(version, times(LIVE, 2 * HOUR), 1500)
    fleet.expect_pooled(version, times(LIVE, 2 * DAY), 1500, DAY)
    fleet.expect_pooled(version, times(LIVE, 2 * 600), 600, DAY)
    fleet.expect_nothing_else()
    return fleet


@scenario("bursts, two replicas", 2, False)
@scenario("bursts, twenty replicas", 20, True)
def bursts(replicas: int, kubernetes: bool) -> Fleet:
    """Traffic that comes and goes, of a mixture that changes, scraped out of step with the rules.

    One replica joins late and restarts later; another one leaves.
    """
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, interval=13, tolerance=BURSTS)
    rng = np.random.default_rng(2)
    version = Version(columns=(AGE, PLANS))
    when = np.arange(fleet.scrapes) * fleet.interval
    pooled = {column.name: np.zeros(len(column.bins)) for column in version.columns}
    for replica in range(replicas):
        blocks = rng.gamma(1.0, size=fleet.scrapes // 4 + 1).repeat(4)[: fleet.scrapes, None]
        join, leave, reset = 0, None, 0
        if replica == 1:
            join, reset = 90, 150
        elif replica == 2:
            leave = 200
        live = {}
        for column in version.columns:
            other = rng.permuted(LIVE[column.name])
            mixture = np.where(blocks > 1.5, 0.5 * (LIVE[column.name] + other), LIVE[column.name])
            live[column.name] = rng.poisson(5 * blocks * mixture).astype(np.float64)
            counted = (when > 300) & (when <= 3900) & (np.arange(fleet.scrapes) > join)
            counted &= np.arange(fleet.scrapes) < (leave or fleet.scrapes)
            pooled[column.name] += live[column.name][counted].sum(axis=0)
        fleet.serve(version, replica, live, join=join, leave=leave, reset=reset)
    fleet.expect_pooled(version, pooled, 65)
    fleet.expect_nothing_else()
    return fleet


@scenario("restarts in step")
def restarts() -> Fleet:
    """Scraped in step with the rules, nothing is lost: a restart, a late start and an end cost no count."""
    fleet = Fleet(replicas=4, interval=15)
    version = Version(columns=(AGE, PLANS))
    fleet.serve(version, 0, LIVE)
    fleet.serve(version, 1, LIVE, reset=133)
    fleet.serve(version, 2, LIVE, join=100)
    fleet.serve(version, 3, LIVE, leave=161)
    scrapes = 240 + 240 + (260 - 100) + (160 - 20)
    fleet.expect_pooled(version, times(LIVE, scrapes), 65)
    fleet.expect_nothing_else()
    return fleet


GATHERED = (
    "fleet:mlexporter_baseline:info",
    "fleet:mlexporter_baseline_rows:max",
    "fleet:mlexporter_column_baseline:share",
    "fleet:mlexporter_column_bin:increase",
    "fleet:mlexporter_column_bin:increase5m",
    "fleet:mlexporter_column_bins:count",
    "fleet:mlexporter_column_missing_ratio:accepted",
    "fleet:mlexporter_column_new_category_ratio:accepted",
    "fleet:mlexporter_column_out_of_range_ratio:accepted",
    "fleet:mlexporter_column_samples:increase",
    "fleet:mlexporter_column_value_bucket:increase",
    "fleet:mlexporter_column_value_bucket:increase5m",
)
"""What is recorded of replicas with the same baseline, however little they have seen."""
STATISTICS = tuple(
    rule["record"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    if group["name"] == "mlexporter.pooled"
    for rule in group["rules"]
    if rule["record"].startswith("fleet:mlexporter_column_") and rule["record"] not in GATHERED
)
PER_COLUMN = GATHERED + STATISTICS


@scenario("few samples", Version(), 199)
@scenario("few rows", Version(rows=199), 7200)
def too_few(version: Version, samples: int) -> Fleet:
    fleet = Fleet(minutes=60)
    for replica in range(2):
        fleet.serve(version, replica, times(LIVE, samples / 14400))
    labels = version.labels | {"baseline_hash": version.baseline_hash}
    for column in version.columns:
        of_hour = labels | column.labels | window_of(HOUR)
        fleet.expect("fleet:mlexporter_column_samples:increase", of_hour, samples, 60)
    fleet.expect_nothing(60, *STATISTICS)
    fleet.expect_finite(60)
    return fleet


@scenario("just enough")
def just_enough() -> Fleet:
    """Increases are no whole numbers: a little more than 200. Without the missing ones they are too few for KS."""
    fleet = Fleet(minutes=60)
    version = Version(columns=(replace(AGE, name="missing"), PREDICTION, PLANS), rows=200)
    live = times(LIVE | {"missing": LIVE["age"]}, 200.01 / 120)
    for replica in range(2):
        fleet.serve(version, replica, times(live, 1 / 120))
    fleet.expect_pooled(version, live, 60)
    ks = "fleet:mlexporter_column_ks_distance:pooled"
    fleet.checks = [check for check in fleet.checks if check.record != ks or "missing" not in check.expression]
    fleet.expect_nothing(60, ks, column="missing")
    return fleet


@scenario("provisional")
def provisional() -> Fleet:
    fleet = Fleet()
    version = Version(baseline_hash="provisional")
    for replica in range(2):
        fleet.serve(version, replica, LIVE)
    fleet.expect("fleet:mlexporter_baselines:count", version.labels, 1, 65)
    fleet.expect_nothing(65, *PER_COLUMN)
    return fleet


@scenario("different baselines")
def different_baselines() -> Fleet:
    """Only of that version nothing is recorded; and nothing once one replica in a window had another baseline."""
    fleet = Fleet(minutes=90)
    one, other, whole = Version(), Version(baseline_hash="f" * 16), Version(version="8")
    fleet.serve(one, 0, LIVE)
    fleet.serve(other, 1, LIVE)
    for replica in range(2):
        fleet.serve(whole, replica, LIVE)
    # alone at first, then with another for some minutes, gone before the rules are evaluated again
    visited = Version(version="9")
    fleet.serve(visited, 0, LIVE)
    fleet.serve(replace(visited, baseline_hash="e" * 16), 1, LIVE, join=82, leave=84)
    fleet.expect("fleet:mlexporter_baselines:count", one.labels, 2, 65)
    fleet.expect_nothing(65, *PER_COLUMN, version="7")
    fleet.expect_pooled(whole, times(LIVE, 120), 65)
    fleet.expect("fleet:mlexporter_baselines:count", visited.labels, 2, 85)
    fleet.expect_nothing(85, *PER_COLUMN, version="9")
    fleet.expect_pooled(visited, times(LIVE, 55), 90)
    fleet.expect_finite(65)
    return fleet


@scenario("a provisional replica")
def a_provisional_replica() -> Fleet:
    fleet = Fleet()
    fleet.serve(Version(), 0, LIVE)
    fleet.serve(Version(baseline_hash="provisional"), 1, LIVE)
    fleet.expect("fleet:mlexporter_baselines:count", Version().labels, 2, 65)
    fleet.expect_nothing(65, *PER_COLUMN)
    return fleet


@scenario("a new baseline")
def a_new_baseline() -> Fleet:
    """Both replicas restart with it, one after the other, and then the windows hold nothing of before.

    Some of the bins are the same, some are others; so are the edges.
    """
    fleet = Fleet(minutes=120, kubernetes=True)
    plan = Column("plan", (*PLAN[:2], "new plan", *PLAN[3:]), counts(5000, 2000, 2000, 800, 0, 200), tolerance=0.05)
    old, new = Version(), Version(columns=(AGE, plan), baseline_hash="a" * 16)
    before = {name: np.ceil(rates[::-1]) for name, rates in LIVE.items()}
    for replica, restart in enumerate((61, 62)):
        fleet.serve(old, replica, before, leave=restart)
        # another pod in place of the old one
        fleet.serve(new, replica + 2, LIVE, join=restart)
    fleet.expect_pooled(old, times(before, 120), 60)
    fleet.expect("fleet:mlexporter_baselines:count", new.labels, 2, 65)
    fleet.expect_nothing(65, *PER_COLUMN)
    fleet.expect_pooled(new, times(LIVE, 2 * 5), 70)
    fleet.expect_pooled(new, times(LIVE, 2 * 50), 115)
    fleet.expect_nothing_else()
    return fleet


@scenario("a new baseline in the same process")
def a_learned_baseline() -> Fleet:
    """The series go on, from 0; nothing is counted of the five minutes in which it changed."""
    fleet = Fleet(replicas=1, minutes=90)
    old, new = Version(columns=(AGE,), baseline_hash="provisional"), Version(columns=(AGE,))
    fleet.serve(old, 0, LIVE, leave=32)
    provisional = {name: text for name, text in fleet.series.items() if "provisional" in name}
    fleet.serve(new, 0, LIVE, reset=32)
    info = new.labels | {"task": "", "baseline_source": "file", "baseline_hash": new.baseline_hash}
    fleet.add("mlexporter_model_info", 0, info, fleet.present(1.0, join=32))
    fleet.series |= provisional
    fleet.expect_nothing(30, *PER_COLUMN)
    fleet.expect_nothing(35, *PER_COLUMN)
    fleet.expect_pooled(new, times(LIVE, 55), 90)
    fleet.expect_nothing_else()
    return fleet


@scenario("odd numbers")
def odd_numbers() -> Fleet:
    """No limit to the tolerance, evidence of nothing, a column of one bin's traffic: never NaN."""
    fleet = Fleet()
    unbounded = replace(PLANS, name="unbounded", tolerance=math.inf)
    silent = replace(AGE, name="silent")
    same = replace(PLANS, name="same")
    live = {
        "unbounded": LIVE["plan"],
        "silent": np.zeros(13),
        "same": counts(0, 0, 0, 0, 0, 120),
    }
    version = Version(columns=(unbounded, silent, same))
    for replica in range(2):
        fleet.serve(version, replica, live)
    fleet.expect_pooled(replace(version, columns=(same,)), times(live, 120), 65)
    own = version.labels | {"baseline_hash": version.baseline_hash}
    labels = own | unbounded.labels | window_of(HOUR)
    expected = psi(smoothed(LIVE["plan"] * 120), smoothed(PLANS.reference))
    fleet.expect("fleet:mlexporter_column_psi:pooled", labels, expected, 65)
    unsaid = "fleet:mlexporter_column_drift:noncentrality", "fleet:mlexporter_column_drift_statistic:pooled"
    fleet.expect_nothing(65, *unsaid, column="unbounded")
    fleet.expect_nothing(65, *STATISTICS, column="silent")
    fleet.expect_finite(65)
    return fleet


# -- versions --


def expect_versions(
    fleet: Fleet, version: Version, previous: Version, live: Mapping[str, Floats], before: Mapping[str, Floats]
) -> None:
    """The statistics between two versions, from their counts of the last hour."""
    minute = fleet.minutes
    own = {"model": version.model, "baseline_hash": version.baseline_hash} | window_of(HOUR)
    for column in version.columns:
        labels = own | column.labels | {"previous_version": previous.version}
        p, q = smoothed(live[column.name]), smoothed(before[column.name])
        n, m = live[column.name].sum(), before[column.name].sum()
        for name, share in zip(column.bins, q, strict=True):
            bin_labels = labels | {"bin": name}
            fleet.expect("fleet:mlexporter_previous_version_bin:smoothed_share", bin_labels, float(share), minute)
        fleet.expect("fleet:mlexporter_previous_version_samples:enough", labels, float(m), minute)
        labels = labels | {"version": version.version}
        fleet.expect("fleet:mlexporter_version_psi:pooled", labels, psi(p, q), minute)
        excess = max(psi(p, q) - (len(p) - 1) * (1 / n + 1 / m), 0)
        fleet.expect("fleet:mlexporter_version_psi_excess:pooled", labels, excess, minute)


def expect_seen(fleet: Fleet, seen: Mapping[str, float], **rank: str) -> None:
    """Versions with the minute in which they were first seen; newest and previous by name."""
    for version, minute in seen.items():
        labels = {"model": "churn", "version": version}
        fleet.expect("fleet:mlexporter_version_first_seen:timestamp", labels, minute * 60, fleet.minutes)
        if minute < max(seen.values()):
            fleet.expect("fleet:mlexporter_version_older:timestamp", labels, minute * 60, fleet.minutes)
    for which, version in rank.items():
        labels = {"model": "churn", "version": version}
        fleet.expect(f"fleet:mlexporter_version_{which}:timestamp", labels, seen[version] * 60, fleet.minutes)


VERSION_PSI = ("fleet:mlexporter_version_psi:pooled", "fleet:mlexporter_version_psi_excess:pooled")
STEADY = {"age": LIVE["age"][::-1].copy(), "plan": counts(60, 30, 5, 3, 0, 22)}


@scenario("a canary", 2, False, ("6", "7"))
@scenario("a canary, twenty replicas", 20, True, ("6", "7"))
@scenario("a canary, odd names", 2, False, ('a"b\\\n', "é\nc"))
def canary(replicas: int, kubernetes: bool, names: tuple[str, str]) -> Fleet:
    """On one of the replicas, half an hour later."""
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=70)
    old, new = (Version(version=name, columns=(AGE, PLANS)) for name in names)
    for replica in range(replicas):
        fleet.serve(old, replica, STEADY)
    fleet.serve(new, 0, LIVE, join=30)
    expect_versions(fleet, new, old, times(LIVE, 40), times(STEADY, 60 * replicas))
    expect_seen(fleet, {names[0]: 0, names[1]: 30}, newest=names[1], previous=names[0])
    fleet.expect_nothing_else()
    return fleet


@scenario("three versions")
def three_versions() -> Fleet:
    fleet = Fleet(minutes=70)
    old, middle, new = (Version(version=name, columns=(AGE, PLANS)) for name in "679")
    fleet.serve(old, 0, times(LIVE, 3))
    fleet.serve(middle, 0, STEADY, join=20)
    fleet.serve(middle, 1, STEADY, join=10)
    fleet.serve(new, 1, LIVE, join=40)
    expect_versions(fleet, new, middle, times(LIVE, 30), times(STEADY, 110))
    expect_seen(fleet, {"6": 0, "7": 10, "9": 40}, newest="9", previous="7")
    fleet.expect_nothing_else()
    return fleet


@scenario("two versions at the same time")
def at_the_same_time() -> Fleet:
    """Neither comes before the other."""
    fleet = Fleet()
    for name in "67":
        fleet.serve(Version(version=name), 0, LIVE)
    fleet.expect_nothing(65, *VERSION_PSI, "fleet:mlexporter_version_previous:timestamp")
    return fleet


@scenario("a version after two at the same time")
def after_two() -> Fleet:
    """Compared with one of the two, and not in error."""
    fleet = Fleet()
    for name in "67":
        fleet.serve(Version(version=name, columns=(AGE,)), 0, STEADY)
    fleet.serve(Version(version="8", columns=(AGE,)), 0, LIVE, join=20)
    compared = psi(smoothed(LIVE["age"] * 45), smoothed(STEADY["age"] * 60))
    found = selector("fleet:mlexporter_version_psi:pooled", {"version": "8"})
    close = f"sum(abs({found} / {compared!r} - 1) <= bool 1e-9)"
    fleet.checks.append(Check(close, 65, (({}, 1.0),), "fleet:mlexporter_version_psi:pooled"))
    fleet.checks.append(Check(f"count({found})", 65, (({}, 1.0),)))
    fleet.checks.append(Check("count(fleet:mlexporter_version_previous:timestamp)", 65, (({}, 1.0),)))
    return fleet


@scenario("two versions after one")
def two_after_one() -> Fleet:
    """Both are compared with the one before."""
    fleet = Fleet()
    old = Version(version="6", columns=(AGE, PLANS))
    fleet.serve(old, 0, STEADY)
    for name in "78":
        new = replace(old, version=name)
        fleet.serve(new, 1, LIVE, join=20)
        expect_versions(fleet, new, old, times(LIVE, 45), times(STEADY, 60))
    return fleet


@scenario("a silent version")
def a_silent_version() -> Fleet:
    """No samples of the version before: nothing to compare with. When it was first seen is kept."""
    fleet = Fleet(minutes=130)
    old, new = (Version(version=name, columns=(AGE, PLANS)) for name in "67")
    early = {name: np.outer(np.arange(fleet.scrapes) <= 60, rates) for name, rates in STEADY.items()}
    fleet.serve(old, 0, early)
    fleet.serve(new, 0, LIVE, join=20)
    expect_seen(fleet, {"6": 0, "7": 20}, newest="7", previous="6")
    fleet.expect_nothing(130, *VERSION_PSI, "fleet:mlexporter_previous_version_samples:enough")
    fleet.expect_nothing_else()
    return fleet


@scenario("a version that comes back")
def comes_back() -> Fleet:
    """It stays the older one: what comes back within a day is not new. While it is gone, it is not compared with."""
    fleet = Fleet(minutes=90)
    old, new = (Version(version=name, columns=(AGE,)) for name in "67")
    fleet.serve(old, 0, STEADY, leave=31)
    fleet.serve(old, 1, STEADY, join=60)
    fleet.serve(new, 2, LIVE, join=20)
    fleet.expect_nothing(50, *VERSION_PSI, "fleet:mlexporter_version_previous:timestamp")
    expect_seen(fleet, {"6": 0, "7": 20}, newest="7", previous="6")
    # (30, 90]: the last hour holds nothing of the first pod
    expect_versions(fleet, new, old, times(LIVE, 60), times(STEADY, 30))
    return fleet


@scenario("versions with baselines of their own")
def other_baselines() -> Fleet:
    """Their bins do not compare."""
    fleet = Fleet()
    fleet.serve(Version(version="6"), 0, LIVE)
    fleet.serve(Version(version="7", baseline_hash="d" * 16), 0, LIVE, join=20)
    fleet.expect_nothing(65, *VERSION_PSI)
    return fleet


# -- outcomes: predictions and their labels --


@dataclass(frozen=True)
class Outcomes:
    """Labelled predictions (N,), and the five minutes in which each is counted; what a later correction takes back.

    A correction is the index of an outcome that is taken back, and the five minutes in which that is counted. A count
    is spread over the five minutes evenly, which any version of Prometheus gets exactly.
    """

    predicted: NDArray[Any]
    actual: NDArray[Any]
    step: NDArray[np.int64]
    scores: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    corrections: tuple[tuple[int, int], ...] = ()

    @property
    def left(self) -> NDArray[np.bool_]:
        """(N,) those that no correction took back."""
        return ~np.isin(np.arange(len(self.step)), [index for index, _ in self.corrections])


ODD = 'q"uo\\te é\n'
LABELS = ("no", ODD)
SCORE_BINS = tuple(f"{i:02d} {i / 20:g}..{(i + 1) / 20:g}" for i in range(20))


def accuracy_error(right: float, n: float) -> float:
    """Agresti and Coull: as many outcomes more as z^2, half of them right."""
    share = (right + 11.81) / (n + 23.62)
    return math.sqrt(share * (1 - share) / (n + 23.62))


def area_error(area: float, positives: float, negatives: float) -> float:
    """Hanley and McNeil (1982), equation 2."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(variance / (positives * negatives))


def increments(fleet: Fleet, outcomes: Outcomes, weights: Floats) -> tuple[Floats, Floats]:
    """(T,) what a counter gains in each scrape, and what its twin does, of outcomes with weights (N,)."""
    gained, taken = np.zeros((2, fleet.minutes // 5))
    np.add.at(gained, outcomes.step, weights)
    for index, step in outcomes.corrections:
        taken[step] += weights[index]
    return np.append(0, gained.repeat(5) / 5), np.append(0, taken.repeat(5) / 5)


def serve_outcomes(fleet: Fleet, labels: Labels, replica: int, outcomes: Outcomes, reset: int = 0) -> None:
    """The counters of a replica, by their definitions."""

    def counted(name: str, more: Labels, weights: Floats | NDArray[np.bool_]) -> None:
        both = increments(fleet, outcomes, np.asarray(weights, dtype=np.float64))
        for suffix, gained in zip(("_total", "_retracted_total"), both, strict=True):
            fleet.add(f"mlexporter_{name}{suffix}", replica, {**labels, **more}, fleet.counter(gained, reset=reset))

    if outcomes.predicted.dtype.kind == "f":
        residual = outcomes.predicted - outcomes.actual
        counted("residuals", {}, np.ones(len(residual)))
        counted("absolute_error_sum", {"direction": "over"}, np.maximum(residual, 0))
        counted("absolute_error_sum", {"direction": "under"}, np.maximum(-residual, 0))
        counted("squared_error_sum", {}, residual**2)
        counted("quartic_error_sum", {}, residual**4)
        return
    classes = sorted({*outcomes.predicted.tolist(), *outcomes.actual.tolist()})
    for predicted in classes:
        for actual in classes:
            cell = (outcomes.predicted == predicted) & (outcomes.actual == actual)
            counted("outcomes", {"predicted": predicted, "actual": actual}, cell)
    counted("squared_error_sum", {}, np.full(len(outcomes.actual), 0.25))
    for k, name in enumerate(classes[-outcomes.scores.shape[1] :] if outcomes.scores.size else ()):
        bins, positive = binned(outcomes.scores[:, k]), outcomes.actual == name
        for b, text in enumerate(SCORE_BINS):
            here = {"class": name, "bin": text}
            counted("score_bin", here | {"actual": "true"}, (bins == b) & positive)
            counted("score_bin", here | {"actual": "false"}, (bins == b) & ~positive)
            counted("score_cumulative", here, (bins <= b) & ~positive)


def binned(scores: Floats) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.ceil(scores * 20) - 1, 0, 19), dtype=np.int64)


def serve_baseline(fleet: Fleet, labels: Labels, replica: int, figures: Mapping[str, float], **info: str) -> None:
    """What a replica tells of the training data."""
    always = {"task": "", "baseline_source": "file", "baseline_hash": "0123456789abcdef"} | info
    fleet.add("mlexporter_model_info", replica, {**labels, **always}, 1)
    for figure, value in figures.items():
        fleet.add(f"mlexporter_performance_baseline_{figure}", replica, labels, value)
        error = {**labels, "figure": figure}
        fleet.add("mlexporter_performance_baseline_standard_error", replica, error, value / 100)


def expect_figures(
    fleet: Fleet, labels: Labels, figures: Mapping[str, tuple[float, float]], baseline: Mapping[str, float]
) -> None:
    """Live figures with their sampling errors, against the baseline's; the labels have the window."""
    for figure, (value, error) in figures.items():
        own = {**labels, "figure": figure}
        fleet.expect("fleet:mlexporter_performance:pooled", own, value, fleet.minutes)
        if figure == "mean_error":
            continue
        fleet.expect("fleet:mlexporter_performance:standard_error", own, error, fleet.minutes)
        if figure not in baseline:
            continue
        loss = (value - baseline[figure]) * (-1 if figure.endswith("_ratio") else 1)
        limit = norm.isf(1 / (100 * 8640 * 2)) * math.hypot(error, baseline[figure] / 100)
        fleet.expect("fleet:mlexporter_performance_loss:pooled", own, loss, fleet.minutes)
        fleet.expect("fleet:mlexporter_performance_loss:limit", own, limit, fleet.minutes, tolerance=1e-3)


def expect_baseline(fleet: Fleet, labels: Labels, baseline: Mapping[str, float]) -> None:
    for figure, value in baseline.items():
        own = {**labels, "figure": figure}
        accepted = 0.02 if figure.endswith("_ratio") else 0.05 * value
        fleet.expect("fleet:mlexporter_performance_baseline:max", own, value, fleet.minutes)
        fleet.expect("fleet:mlexporter_performance_loss:accepted", own, accepted, fleet.minutes)


def expect_classes(fleet: Fleet, labels: Labels, outcomes: Sequence[Outcomes]) -> Mapping[str, Any]:
    """Confusion, precision, recall and areas, by scikit-learn; gives the figures of the version."""
    predicted, actual, scores = (
        np.concatenate([getattr(each, name)[each.left] for each in outcomes])
        for name in ("predicted", "actual", "scores")
    )
    classes = sorted({*predicted.tolist(), *actual.tolist()})
    n = len(actual)
    fleet.expect("fleet:mlexporter_performance_outcomes:increase", labels, n, fleet.minutes)
    fleet.expect("fleet:mlexporter_performance_outcomes:enough", labels, n, fleet.minutes)
    areas, errors = [], []
    for name in classes:
        for other in classes:
            cell = {**labels, "predicted": name, "actual": other}
            count = ((predicted == name) & (actual == other)).sum()
            fleet.expect("fleet:mlexporter_outcomes:increase", cell, count, fleet.minutes)
        own = {**labels, "class": name}
        right = ((predicted == name) & (actual == name)).sum()
        fleet.expect("fleet:mlexporter_outcomes_right:increase", own, right, fleet.minutes)
        for figure, score in (("precision_ratio", precision_score), ("recall_ratio", recall_score)):
            value = score(actual, predicted, labels=[name], average="macro")
            here = {**own, "figure": figure}
            fleet.expect("fleet:mlexporter_class_performance:pooled", here, value, fleet.minutes)
    for k, name in enumerate(classes[-scores.shape[1] :]):
        own, positive, bins = {**labels, "class": name}, actual == name, binned(scores[:, k])
        number = {"true": positive.sum(), "false": n - positive.sum()}
        for truth, count in number.items():
            fleet.expect("fleet:mlexporter_score_samples:enough", {**own, "actual": truth}, count, fleet.minutes)
        hashed = {**own, "baseline_hash": "0123456789abcdef"}
        for b, text in enumerate(SCORE_BINS):
            here = {**hashed, "bin": text}
            for truth, of_truth in (("true", positive), ("false", ~positive)):
                cell, count = {**here, "actual": truth}, ((bins == b) & of_truth).sum()
                fleet.expect("fleet:mlexporter_score_bin:increase", cell, count, fleet.minutes)
            count = ((bins <= b) & ~positive).sum()
            fleet.expect("fleet:mlexporter_score_cumulative:increase", here, count, fleet.minutes)
        areas.append(roc_auc_score(positive, bins))
        errors.append(area_error(areas[-1], number["true"], number["false"]))
        area = {**own, "figure": "roc_auc_ratio"}
        fleet.expect("fleet:mlexporter_class_performance:pooled", area, areas[-1], fleet.minutes)
        fleet.expect("fleet:mlexporter_class_performance:standard_error", area, errors[-1], fleet.minutes)
    accuracy = accuracy_score(actual, predicted)
    return {
        "accuracy_ratio": (accuracy, accuracy_error(accuracy * n, n)),
        "roc_auc_ratio": (np.mean(areas), np.mean(errors)),
    }


def expect_numbers(fleet: Fleet, labels: Labels, outcomes: Sequence[Outcomes]) -> Mapping[str, Any]:
    """The parts of the errors; gives the figures of the version."""
    predicted, actual = (
        np.concatenate([getattr(each, name)[each.left] for each in outcomes]) for name in ("predicted", "actual")
    )
    residual, n = predicted - actual, len(actual)
    fleet.expect("fleet:mlexporter_performance_outcomes:increase", labels, n, fleet.minutes)
    fleet.expect("fleet:mlexporter_performance_outcomes:enough", labels, n, fleet.minutes)
    parts = {
        "count": n,
        "over": residual[residual > 0].sum(),
        "under": -residual[residual < 0].sum(),
        "squared": (residual**2).sum(),
        "fourth": (residual**4).sum(),
    }
    for part, value in parts.items():
        fleet.expect("fleet:mlexporter_residual:increase", {**labels, "part": part}, value, fleet.minutes)
    root = root_mean_squared_error(actual, predicted)
    return {
        "mean_absolute_error": (mean_absolute_error(actual, predicted), np.abs(residual).std() / math.sqrt(n)),
        "root_mean_squared_error": (root, (residual**2).std() / math.sqrt(n) / (2 * root)),
        "mean_error": (residual.mean(), 0),
    }


RESTART = 20
"""The five minutes in which a replica restarts; nothing is counted then."""


def steps(rng: np.random.Generator, n: int, last: int) -> NDArray[np.int64]:
    """(n,) five minutes, in order."""
    drawn = rng.integers(0, last, n)
    return np.asarray(np.sort(np.where(drawn == RESTART, RESTART + 1, drawn)))


def classified(rng: np.random.Generator, names: Sequence[str], n: int) -> Outcomes:
    """Of classes in the order of their names; binary models have scores of the last one alone."""
    truth = rng.choice(len(names), n, p=np.arange(1, len(names) + 1) / np.arange(1, len(names) + 1).sum())
    scores = rng.dirichlet(np.ones(len(names)), n) + 0.8 * np.eye(len(names))[truth]
    scores /= scores.sum(axis=1, keepdims=True)
    of_names = np.array(names, dtype=object)
    return Outcomes(
        predicted=of_names[scores.argmax(axis=1)],
        actual=of_names[truth],
        step=steps(rng, n, 35),
        scores=scores if len(names) > 2 else scores[:, 1:],
        corrections=tuple((index, 35) for index in range(0, 60, 3)),
    )


def expect_parts(fleet: Fleet, labels: Labels, outcomes: Sequence[Outcomes]) -> None:
    """Counts of the last five minutes and the last hour; less what corrections took back in that time."""
    classes = sorted({*outcomes[0].actual.tolist()})
    hashed = {**labels, "baseline_hash": "0123456789abcdef"}

    def counted(name: str, own: Labels, choose: Callable[[Outcomes], NDArray[np.bool_]]) -> None:
        for kind, first in (("increase5m", 35), ("increase1h", 24)):
            number = 0
            for each in outcomes:
                chosen = choose(each)
                number += int((chosen & (each.step >= first)).sum())
                number -= sum(bool(chosen[index]) for index, step in each.corrections if step >= first)
            fleet.expect(f"fleet:mlexporter_{name}:{kind}", own, number, fleet.minutes)

    for first in classes:
        for second in classes:
            cell = {**labels, "predicted": first, "actual": second}
            counted("outcomes", cell, lambda each, p=first, a=second: (each.predicted == p) & (each.actual == a))  # type: ignore[misc]
    for k, name in enumerate(classes[-outcomes[0].scores.shape[1] :]):
        for b, text in enumerate(SCORE_BINS):
            own = {**hashed, "class": name, "bin": text}

            def above(each: Outcomes, k: int = k, b: int = b) -> NDArray[np.int64]:
                """(N,) how many bins the score lies over this one."""
                return binned(each.scores[:, k]) - b

            def other(each: Outcomes, name: str = name) -> NDArray[np.bool_]:
                return np.asarray(each.actual != name)

            counted("score_cumulative", own, lambda each: (above(each) <= 0) & other(each))
            counted("score_bin", own | {"actual": "true"}, lambda each: (above(each) == 0) & ~other(each))
            counted("score_bin", own | {"actual": "false"}, lambda each: (above(each) == 0) & other(each))


BASELINES = {"accuracy_ratio": 0.9, "roc_auc_ratio": 0.95, "mean_absolute_error": 1.0, "root_mean_squared_error": 1.5}


@scenario("outcomes, two replicas", 2, False)
@scenario("outcomes, five replicas, Kubernetes", 5, True)
def outcomes(replicas: int, kubernetes: bool) -> Fleet:
    """A binary, a multiclass and a regression model; a restart, and corrections of what was counted before it.

    Three hours: the week has three whole hours.
    """
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=180)
    rng = np.random.default_rng(5)
    for model, names in (("churn", LABELS), ("kinds", ("a", "b", "c", "d"))):
        labels = {"model": model, "version": "7"}
        baseline = {name: BASELINES[name] for name in ("accuracy_ratio", "roc_auc_ratio")}
        of_replica = [classified(rng, names, 1000 // replicas) for _ in range(replicas)]
        for replica, each in enumerate(of_replica):
            serve_outcomes(fleet, labels, replica, each, reset=5 * RESTART + 1 if replica else 0)
            serve_baseline(fleet, labels, replica, baseline)
        for minutes in (DAY, WEEK):
            of_window = labels | window_of(minutes)
            expect_figures(fleet, of_window, expect_classes(fleet, of_window, of_replica), baseline)
        expect_baseline(fleet, labels, baseline)
        expect_parts(fleet, labels, of_replica)
    labels = {"model": "price", "version": "7"}
    baseline = {name: BASELINES[name] for name in ("mean_absolute_error", "root_mean_squared_error")}
    of_replica = []
    for replica in range(replicas):
        actual = rng.normal(50, 20, 400)
        predicted = actual + rng.standard_t(5, 400) * 2 + 0.5
        of_replica.append(Outcomes(predicted, actual, steps(rng, 400, 33), corrections=((3, 34), (50, 35), (51, 35))))
        serve_outcomes(fleet, labels, replica, of_replica[-1], reset=5 * RESTART + 1 if replica else 0)
        serve_baseline(fleet, labels, replica, baseline)
    for minutes in (DAY, WEEK):
        of_window = labels | window_of(minutes)
        expect_figures(fleet, of_window, expect_numbers(fleet, of_window, of_replica), baseline)
    expect_baseline(fleet, labels, baseline)
    fleet.expect_nothing_else()
    return fleet


FIGURES = ("fleet:mlexporter_performance:pooled", "fleet:mlexporter_class_performance:pooled")


@scenario("few outcomes")
def few_outcomes() -> Fleet:
    """Under 200 of them are counted, and nothing is said."""
    fleet = Fleet(minutes=180)
    labels = {"model": "churn", "version": "7"}
    for replica in range(2):
        serve_outcomes(fleet, labels, replica, classified(np.random.default_rng(6), LABELS, 99 + 20))
        serve_baseline(fleet, labels, replica, {"accuracy_ratio": 0.9})
    for minutes in (DAY, WEEK):
        counted = labels | window_of(minutes)
        fleet.expect("fleet:mlexporter_performance_outcomes:increase", counted, 198, 180)
    silent = "fleet:mlexporter_performance:standard_error", "fleet:mlexporter_performance_loss:pooled"
    fleet.expect_nothing(180, *FIGURES, *silent, "fleet:mlexporter_score_samples:enough")
    fleet.expect_nothing_else()
    return fleet


@scenario("few positives")
def few_positives() -> Fleet:
    """Enough for accuracy, but 19 of a class are not enough for an area."""
    fleet = Fleet(minutes=120, replicas=1)
    labels = {"model": "churn", "version": "7"}
    actual = np.array([ODD] * 19 + ["no"] * 381, dtype=object)
    predicted = np.where(np.arange(400) < 40, ODD, "no").astype(object)
    scores = np.linspace(1, 0.01, 400)[:, None]
    serve_outcomes(fleet, labels, 0, Outcomes(predicted, actual, np.arange(400) % 20, scores))
    serve_baseline(fleet, labels, 0, {})
    accuracy = {**labels, "figure": "accuracy_ratio", "window": "24h"}
    fleet.expect("fleet:mlexporter_performance:pooled", accuracy, (400 - 21) / 400, 120)
    fleet.expect_nothing(120, "fleet:mlexporter_class_performance:standard_error", model="churn")
    fleet.expect_nothing(120, "fleet:mlexporter_performance:pooled", figure="roc_auc_ratio")
    fleet.expect_finite(120)
    return fleet


@scenario("outcomes with different baselines")
def outcomes_with_different_baselines() -> Fleet:
    """Classes add up all the same, bins of scores do not; and there is nothing to compare with."""
    fleet = Fleet(minutes=180)
    labels = {"model": "churn", "version": "7"}
    of_replica = [classified(np.random.default_rng(7 + i), LABELS, 300) for i in range(2)]
    for replica, each in enumerate(of_replica):
        serve_outcomes(fleet, labels, replica, each)
        serve_baseline(fleet, labels, replica, {"accuracy_ratio": 0.9}, baseline_hash=str(replica) * 16)
    right = np.mean([each.predicted[each.left] == each.actual[each.left] for each in of_replica])
    accuracy = {**labels, "figure": "accuracy_ratio", "window": "24h"}
    fleet.expect("fleet:mlexporter_performance:pooled", accuracy, float(right), 180)
    unsaid = "fleet:mlexporter_score_bin:increase5m", "fleet:mlexporter_performance_baseline:max"
    fleet.expect_nothing(180, *unsaid, "fleet:mlexporter_performance_loss:pooled")
    return fleet


@scenario("a version that is gone")
def a_version_that_is_gone() -> Fleet:
    """What it did is of no interest any more; and it says nothing of what corrections take back of nothing."""
    fleet = Fleet(minutes=120, replicas=1)
    labels = {"model": "churn", "version": "6"}
    fleet.add("mlexporter_model_info", 0, labels | {"baseline_hash": "0"}, fleet.present(1.0, leave=60))
    for suffix in ("_total", "_retracted_total"):
        cell = labels | {"predicted": "no", "actual": "no"}
        fleet.add(f"mlexporter_outcomes{suffix}", 0, cell, fleet.counter(np.full(121, 9.0), leave=60))
    fleet.expect_nothing(120, "fleet:mlexporter_outcomes:increase")
    labels = {"model": "churn", "version": "7"}
    serve_baseline(fleet, labels, 0, {})
    cell = labels | {"predicted": "no", "actual": "no"}
    fleet.add("mlexporter_outcomes_total", 0, cell, 0)
    fleet.add("mlexporter_outcomes_retracted_total", 0, cell, fleet.counter(np.full(121, 9.0)))
    fleet.checks = []
    fleet.expect("fleet:mlexporter_outcomes:increase", cell | {"window": "24h"}, 0, 120)
    fleet.expect("fleet:mlexporter_outcomes:increase", cell | {"window": "7d"}, 0, 120)
    fleet.expect_nothing_else()
    return fleet


@scenario("a week")
def a_week() -> Fleet:
    """The week is its last 168 whole hours, however often it is looked at; the day is 288 times five minutes."""
    fleet = Fleet(minutes=WEEK + 205, replicas=1)
    labels = {"model": "price", "version": "7"}
    serve_baseline(fleet, labels, 0, {})
    for name in ("residuals", "squared_error_sum", "quartic_error_sum"):
        fleet.add(f"mlexporter_{name}_total", 0, labels, fleet.counter(np.full(fleet.scrapes, 3.0)))
        fleet.add(f"mlexporter_{name}_retracted_total", 0, labels, fleet.counter(np.full(fleet.scrapes, 1.0)))
    for minute in range(WEEK + 150, WEEK + 205, 5):
        for window in (DAY, WEEK):
            count = labels | window_of(window)
            fleet.expect("fleet:mlexporter_performance_outcomes:increase", count, 2 * window, minute)
    count = {**labels, "part": "count"}
    fleet.expect("fleet:mlexporter_residual:increase5m", count, 10, WEEK + 205)
    fleet.expect("fleet:mlexporter_residual:increase1h", count, 120, WEEK + 180)
    fleet.expect_nothing(WEEK + 190, "fleet:mlexporter_residual:increase1h")
    return fleet


# -- labels, versions side by side --

DELAYS = ("60.0", "3600.0", "86400.0", "+Inf")


@scenario("labels, two replicas", 2, False)
@scenario("labels, twenty replicas", 20, True)
def labels_of_replicas(replicas: int, kubernetes: bool) -> Fleet:
    """How many come, how late, for which share of the predictions; and how many find none."""
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=125)
    rng = np.random.default_rng(8)

    def pooled(name: str, labels: dict[str, str], rates: Floats, record: str, *windows: int) -> float:
        """Pooled rate, of rates (R,) a minute."""
        for replica, rate in enumerate(rates.tolist()):
            fleet.add(name, replica, labels, fleet.counter(np.full(fleet.scrapes, rate)))
        total = float(rates.sum())
        fleet.expect(f"fleet:mlexporter_{record}:increase5m", labels, 5 * total, 125)
        if WEEK in windows:
            fleet.expect(f"fleet:mlexporter_{record}:increase1h", labels, 60 * total, 120)
            fleet.expect(f"fleet:mlexporter_{record}:increase", labels | window_of(WEEK), 120 * total, 125)
        fleet.expect(f"fleet:mlexporter_{record}:increase", labels | window_of(DAY), 125 * total, 125)
        return total

    def some(low: int) -> Floats:
        return rng.integers(low, 2 * low, replicas).astype(np.float64)

    labelled_of_all, settled_of_all, waiting = 0.0, 0.0, 0.0
    for version in ("7", "8"):
        names = {"model": "churn", "version": version}
        usable = pooled("mlexporter_labels_total", names, some(10), "labels", DAY)
        for replica, rate in enumerate(some(4).tolist()):
            fleet.add("mlexporter_labels_invalid_total", replica, names, fleet.counter(np.full(fleet.scrapes, rate)))
            usable -= rate
        fleet.expect("fleet:mlexporter_labels_usable:increase5m", names, 5 * usable, 125)
        fleet.expect("fleet:mlexporter_labels_usable:increase", names | window_of(DAY), 125 * usable, 125)
        within = np.cumsum([some(2 * (i + 1)) for i in range(4)], axis=0)
        bucket, found = "label_delay_seconds_bucket", []
        for i, le in enumerate(DELAYS):
            found.append(pooled(f"mlexporter_{bucket}", names | {"le": le}, within[i], bucket, DAY, WEEK))
        expired = {
            reason: pooled(
                "mlexporter_predictions_expired_total",
                names | {"reason": reason},
                some(3),
                "predictions_expired",
                DAY,
                WEEK,
            )
            for reason in ("horizon", "limit")
        }
        labelled, settled = found[-1], found[-1] + expired["horizon"]
        for window, minutes in ((DAY, 125), (WEEK, 120)):
            own = names | window_of(window)
            median = quantile(0.5, [float(le) for le in DELAYS[:-1]], np.array(found))
            fleet.expect("fleet:mlexporter_label_delay_seconds:p50", own, median, 125)
            fleet.expect("fleet:mlexporter_predictions_labelled:increase", own, labelled * minutes, 125)
            fleet.expect("fleet:mlexporter_predictions_settled:increase", own, settled * minutes, 125)
            fleet.expect("fleet:mlexporter_label_coverage:ratio", own, labelled / settled, 125)
        for replica in range(replicas):
            fleet.add("mlexporter_predictions_pending", replica, names, 50)
        labelled_of_all, settled_of_all = labelled_of_all + 120 * labelled, settled_of_all + 120 * settled
        waiting += 50 * replicas
    least = labelled_of_all / (settled_of_all + waiting)
    fleet.expect("fleet:mlexporter_label_coverage:least", {"model": "churn", "window": "7d"}, least, 125)
    for reason in ("horizon", "limit"):
        unmatched = {"model": "churn", "reason": reason}
        pooled("mlexporter_labels_unmatched_total", unmatched, some(2), "labels_unmatched", DAY)
    fleet.expect_nothing_else()
    return fleet


@scenario("no labels")
def no_labels() -> Fleet:
    """No median of nothing, no share of nothing."""
    fleet = Fleet(minutes=125, replicas=1)
    names = {"model": "churn", "version": "7"}
    for le in DELAYS:
        fleet.add("mlexporter_label_delay_seconds_bucket", 0, names | {"le": le}, 0)
    fleet.add("mlexporter_predictions_expired_total", 0, names | {"reason": "horizon"}, 0)
    fleet.add("mlexporter_predictions_pending", 0, names, 0)
    fleet.expect("fleet:mlexporter_predictions_settled:increase", names | window_of(DAY), 0, 125)
    unsaid = "fleet:mlexporter_label_coverage:ratio", "fleet:mlexporter_label_coverage:least"
    fleet.expect_nothing(125, *unsaid, "fleet:mlexporter_label_delay_seconds:p50")
    fleet.expect_finite(125)
    return fleet


@scenario("side by side, two replicas", 2, False)
@scenario("side by side, twenty replicas", 20, True)
def side_by_side(replicas: int, kubernetes: bool) -> Fleet:
    """Two pairs of versions, of the second of which there are too few."""
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=125)
    for version, scale in (("8", 1.0), ("9", 0.01 / replicas)):
        names = {"model": "churn", "version": version, "previous_version": "7"}
        for replica in range(replicas):
            serve_baseline(fleet, {"model": "churn", "version": version}, replica, {})
        rates = {"this": 3, "previous": 2, "both": 20, "neither": 4}
        total = {right: rate * scale * replicas for right, rate in rates.items()}
        for counter, label, values in (
            ("right", "right", rates),
            ("agreement", "agree", {"true": 24, "false": 8}),
        ):
            for value, rate in values.items():
                own = names | {label: value}
                for replica in range(replicas):
                    steady = fleet.counter(np.full(fleet.scrapes, rate * scale))
                    fleet.add(f"mlexporter_version_{counter}_total", replica, own, steady)
                pooled = rate * scale * replicas
                record = f"fleet:mlexporter_version_{counter}"
                fleet.expect(f"{record}:increase5m", own, 5 * pooled, 125)
                if counter == "right":
                    fleet.expect(f"{record}:increase1h", own, 60 * pooled, 120)
                    fleet.expect(f"{record}:increase", own | window_of(WEEK), 120 * pooled, 125)
                else:
                    fleet.expect(f"{record}:increase", own | window_of(DAY), 125 * pooled, 125)
        if scale == 1:
            week = names | window_of(WEEK)
            fleet.expect("fleet:mlexporter_version_agreement:ratio", names | window_of(DAY), 0.75, 125)
            fleet.expect("fleet:mlexporter_version_advantage:ratio", week, 1 / 29, 125)
            # the square of McNemar's z is his chi-square without a correction
            b, c = 120 * total["this"], 120 * total["previous"]
            expected = math.sqrt((b - c) ** 2 / (b + c))
            fleet.expect("fleet:mlexporter_version_advantage:z", week, expected, 125)
    fleet.expect_nothing_else()
    return fleet


# -- the alarm and the operation --


@scenario("alarm, two replicas", 2, False)
@scenario("alarm, twenty replicas", 20, True)
def alarm(replicas: int, kubernetes: bool) -> Fleet:
    """The margin of the replica that sees most, against ln R; each replica has a threshold of its own."""
    fleet = Fleet(replicas=replicas, kubernetes=kubernetes, minutes=5)
    rng = np.random.default_rng(3)
    thresholds = {tier: rng.uniform(12, 16, replicas) for tier in ("warn", "page")}
    for replica in range(replicas):
        fleet.add("mlexporter_build_info", replica, {"version": "0.1.0", "pythonversion": "3.12"}, 1)
        for tier, threshold in thresholds.items():
            fleet.add("mlexporter_drift_log_threshold", replica, {"tier": tier}, threshold[replica])
    for model, version in (("churn", "7"), ("churn", "8"), ("fraud", "1")):
        for tier, threshold in thresholds.items():
            drifted = []
            names = {"model": model, "version": version, "tier": tier}
            for i, column in enumerate(COLUMNS):
                evidence = rng.uniform(-10, 8 + 4 * i, replicas)
                evidence[0] = -math.inf if i else evidence[0]
                for replica in range(replicas):
                    labels = names | column.labels
                    fleet.add("mlexporter_column_drift_log_evidence", replica, labels, evidence[replica])
                margin = float((evidence - threshold).max())
                drifted.append(margin >= math.log(replicas))
                labels = names | column.labels
                fleet.expect("fleet:mlexporter_column_drift_log_margin:max", labels, margin, 5)
                fleet.expect("fleet:mlexporter_column_drifted:bool", labels, float(drifted[-1]), 5)
            fleet.expect("fleet:mlexporter_drifted_columns:ratio", names, float(np.mean(drifted)), 5)
            evidence = rng.uniform(-10, 20, replicas)
            for replica in range(replicas):
                fleet.add("mlexporter_concept_drift_log_evidence", replica, names, evidence[replica])
            margin = float((evidence - threshold).max())
            fleet.expect("fleet:mlexporter_concept_drift_log_margin:max", names, margin, 5)
    for figure in ("accuracy_ratio", "roc_auc_ratio"):
        names = {"model": "churn", "version": "7", "window": "24h"}
        estimates = rng.uniform(0.5, 1, replicas)
        for replica in range(replicas):
            fleet.add(f"mlexporter_performance_estimated_{figure}", replica, names, estimates[replica])
        if figure == "roc_auc_ratio":
            fleet.add(f"mlexporter_performance_estimated_{figure}", 0, names | {"class": "yes"}, 0.1)
        own = names | {"figure": figure}
        fleet.expect("fleet:mlexporter_performance_estimated:min", own, estimates.min(), 5)
    fleet.expect_nothing_else()
    return fleet


LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@scenario("operation, two replicas", 2, False, False)
@scenario("operation, twenty replicas", 20, True, False)
@scenario("operation, bursts", 20, True, True)
def operation(replicas: int, kubernetes: bool, bursty: bool) -> Fleet:
    """Requests, errors, refusals, latency: of a busy version, a silent one, and one slower than the last bucket."""
    fleet = Fleet(
        replicas=replicas, kubernetes=kubernetes, minutes=20, interval=15, tolerance=BURSTS if bursty else EXACT
    )
    rng = np.random.default_rng(4)
    shape = (replicas, fleet.scrapes)
    last = slice(fleet.scrapes - 20, fleet.scrapes)  # of five minutes

    def traffic(mean: float) -> Floats:
        """(R, T) increments."""
        burst = rng.gamma(2, 0.5, shape) if bursty else rng.uniform(0.5, 1.5, replicas)[:, None]
        return np.broadcast_to(np.round(mean * burst), shape)

    def pooled(name: str, labels: Labels, increments: Floats) -> float:
        for replica in range(replicas):
            fleet.add(name, replica, labels, fleet.counter(increments[replica], reset=70 if replica else 0))
        return float(increments[:, last].sum() / 300)

    for version, busy in (("7", True), ("8", False)):
        names = {"model": "churn", "version": version}
        samples = pooled("mlexporter_samples_total", names, traffic(900.0 * busy))
        errors = pooled("mlexporter_inference_errors_total", names, traffic(60.0 * busy))
        fleet.expect("fleet:mlexporter_samples:rate5m", names, samples, 20)
        fleet.expect("fleet:mlexporter_inference_errors:rate5m", names, errors, 20)
        if busy:
            fleet.expect("fleet:mlexporter_inference_errors:ratio_rate5m", names, errors / samples, 20)
    slow = {"7": [*range(20, 160, 10), 3], "8": [0] * 15, "9": [0] * 14 + [50]}
    for version, rates in slow.items():
        names = {"model": "churn", "version": version}
        within = np.cumsum([traffic(10.0 * rate) for rate in rates], axis=0)
        bucket = "mlexporter_inference_duration_seconds_bucket"
        found = []
        for i, le in enumerate((*map(str, LATENCIES), "+Inf")):
            found.append(pooled(bucket, names | {"le": le}, within[i]))
            fleet.expect(f"fleet:{bucket}:rate5m", names | {"le": le}, found[-1], 20)
        if found[-1]:
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
                expected = quantile(share, LATENCIES, np.array(found))
                fleet.expect(f"fleet:mlexporter_inference_duration_seconds:{name}_5m", names, expected, 20)
    for reason in ("model_unknown", "value_invalid"):
        refused = pooled("mlexporter_samples_rejected_total", {"reason": reason}, traffic(200))
        fleet.expect("fleet:mlexporter_samples_rejected:rate5m", {"reason": reason}, refused, 20)
    fleet.expect_nothing_else()
    return fleet


# -- the tests ---------------------------------------------------------------------------------------------------------


def evaluate(promtool: str, fleet: Fleet, folder: Path) -> subprocess.CompletedProcess[str]:
    test = {
        "interval": f"{fleet.interval}s",
        "input_series": [{"series": series, "values": values} for series, values in fleet.series.items()],
        "promql_expr_test": [check.as_promtool() for check in fleet.checks],
    }
    # promtool evaluates all groups at this interval, whatever their own is
    content = {"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": [test]}
    path = folder / "test.json"
    path.write_text(json.dumps(content))  # which is YAML too
    return subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", SCENARIOS)
def test_records(name: str, promtool: str, tmp_path: Path) -> None:
    done = evaluate(promtool, SCENARIOS[name](), tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4_000]


def test_every_record_is_held_to_a_number() -> None:
    records = {rule["record"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    checked = {check.record for build in SCENARIOS.values() for check in build().checks}
    assert checked - {""} == records


def _wrong_number(fleet: Fleet) -> None:
    fleet.expect("fleet:mlexporter_samples:rate5m", {"model": "churn", "version": "7"}, 5 * (1 + 3e-9), 5)


def _wrong_label(fleet: Fleet) -> None:
    fleet.expect("fleet:mlexporter_samples:rate5m", {"model": "churn"}, 5, 5)


def _absent(fleet: Fleet) -> None:
    fleet.expect("fleet:mlexporter_samples:rate5m", {"model": "churn", "version": "8"}, 5, 5)


def _one_too_many(fleet: Fleet) -> None:
    fleet.expect_nothing(5, "fleet:mlexporter_samples:rate5m")


@pytest.mark.parametrize("expect", [_wrong_number, _wrong_label, _absent, _one_too_many])
def test_the_checks_can_fail(expect: Callable[[Fleet], None], promtool: str, tmp_path: Path) -> None:
    fleet = Fleet(minutes=5)
    fleet.add("mlexporter_samples_total", 0, {"model": "churn", "version": "7"}, fleet.counter(np.full(6, 300.0)))
    fleet.expect("fleet:mlexporter_samples:rate5m", {"model": "churn", "version": "7"}, 5, 5)
    fleet.expect_nothing_else()
    assert evaluate(promtool, fleet, tmp_path).returncode == 0
    expect(fleet)
    assert "FAILED" in evaluate(promtool, fleet, tmp_path).stderr
