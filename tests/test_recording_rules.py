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

RULES = Path(__file__).parents[1] / "prometheus" / "rules" / "mlexporter.rules.yaml"
EXACT, BURSTS = 1e-9, 0.02
HOUR, DAY = 60, 1440  # minutes
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
    return {"window": {HOUR: "1h", DAY: "24h"}[minutes]}


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
