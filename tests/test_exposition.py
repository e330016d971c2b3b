"""The page against prometheus_client: byte for byte, and read back to the same values."""

import gc
import math
import re
import subprocess
import weakref
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from conftest import Clock, baseline, categorical, needs, numeric
from labelled import labelled_store
from mlexporter import metrics
from mlexporter.baseline import Baseline, NumericColumn
from mlexporter.budget import series_of
from mlexporter.config import ColumnConfig, Config, DiscoveryConfig, ModelConfig, Window
from mlexporter.exposition import Exposition, numbers, prefix
from mlexporter.labels import bin_labels
from mlexporter.samples import Batch, Role
from mlexporter.snapshot import Latency, Snapshot, VersionSnapshot
from mlexporter.store import Store
from slow_feedback import SlowFeedback

NASTY = 'a "quoted" \\ back\\n slash\nand a line, ünï 漢字 \U0001f600 {le="+Inf"} # HELP \t\r\x7f\x85'
WINDOWS = (Window(3600.0, "1h"), Window(86400.0, "24h"))
LATENCY = (
    "0.001",
    "0.0025",
    "0.005",
    "0.01",
    "0.025",
    "0.05",
    "0.1",
    "0.25",
    "0.5",
    "1.0",
    "2.5",
    "5.0",
    "10.0",
    "30.0",
)


class SlowCollector:
    """The same page as prometheus_client's own families, written one number at a time."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        families = {metric.name: self._family(metric) for metric in metrics.MODEL_METRICS}
        for version in self.snapshot.versions:
            self._add(families, version)
            self._add_alarm(families, version)
            if version.monitor is not None and version.monitor.outcomes is not None:
                SlowFeedback(families, version, version.monitor.outcomes).collect()
            self._add_comparison(families, version)
        for model, count in self.snapshot.labels_waiting.items():
            for name, labels, value in (
                ("labels_waiting", [model], count),
                (
                    "labels_unmatched_total",
                    [model, "horizon"],
                    self.snapshot.labels_unmatched.get((model, "horizon"), 0),
                ),
                ("labels_unmatched_total", [model, "limit"], self.snapshot.labels_unmatched.get((model, "limit"), 0)),
            ):
                family = families["mlexporter_" + name]
                assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
                family.add_metric(labels, value)
        if self.snapshot.log_threshold is not None:
            threshold = families["mlexporter_drift_log_threshold"]
            assert isinstance(threshold, GaugeMetricFamily)
            for tier in ("warn", "page"):
                threshold.add_metric([tier], self.snapshot.log_threshold)
        yield from (family for family in families.values() if family.samples)

    @staticmethod
    def _family(metric: metrics.Metric) -> Metric:
        if metric.type == "counter":
            return CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
        if metric.type == "gauge":
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)

    def _add(self, families: dict[str, Metric], version: VersionSnapshot) -> None:
        def add(name: str, value: float, *labels: str) -> None:
            family = families["mlexporter_" + name]
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            if not math.isnan(value):
                family.add_metric([version.model, version.version, *labels], value)

        add("samples_total", version.samples)
        add("inference_errors_total", version.errors)
        for reason, count in sorted(version.error_reasons.items()):
            add("inference_error_reasons_total", count, reason)
        add("values_unknown_column_total", version.unknown)
        if version.last_sample is not None:
            add("last_sample_timestamp_seconds", version.last_sample)
        latency = families["mlexporter_inference_duration_seconds"]
        assert isinstance(latency, HistogramMetricFamily)
        buckets = [(le, int(version.latency.counts[: i + 1].sum())) for i, le in enumerate((*LATENCY, "+Inf"))]
        latency.add_metric([version.model, version.version], buckets, version.latency.sum)
        if version.monitor is None:
            return
        profile, reference, counts = version.monitor.baseline, version.reference, version.counts
        assert reference is not None
        assert counts is not None
        label = "provisional" if profile.provisional else profile.hash
        add("model_info", 1, version.task, label, profile.source)
        add("baseline_rows", reference.rows)
        begin = 0
        for i, column in enumerate(version.monitor.binner.columns):
            own = (column.role.value, column.name)
            size = len(column.counts)
            live = self._merge(column, counts.bins[begin : begin + size].tolist())
            there = self._merge(column, reference.bins[begin : begin + size].tolist())
            names = bin_labels(column, export_names=column.name not in version.hidden)
            for name, count, k in zip(names, live, there, strict=True):
                add("column_bin_total", count, *own, name)
                add("column_baseline_ratio", (k + 0.5) / (sum(there) + 0.5 * len(there)), *own, name)
            add("values_invalid_total", int(counts.invalid[i]), *own)
            if isinstance(column, NumericColumn):
                fine = counts.bins[begin : begin + size].tolist()
                reference_fine = reference.bins[begin : begin + size].tolist()
                for le, upto in self._buckets(column, reference_fine):
                    if sum(reference_fine[:-1]):
                        add("column_baseline_value_ratio", upto / sum(reference_fine[:-1]), *own, le)
                histogram = families["mlexporter_column_value"]
                assert isinstance(histogram, HistogramMetricFamily)
                histogram.add_metric(
                    [version.model, version.version, *own],
                    [*self._buckets(column, fine), ("+Inf", sum(fine[:-1]))],
                    # a sum that may fall is no counter: prometheus_client then leaves out the count too
                    math.fsum(counts.sums[begin : begin + size]) if column.minimum >= 0 else None,
                )
            begin += size
        for window, bins, sums in version.windows:
            # the numbers of the statistics have their own tests; here it is about how they are written
            statistics = version.monitor.statistician.compute(reference, bins, sums)
            for i, column in enumerate(version.monitor.binner.columns):
                for field in statistics.__struct_fields__:
                    name = "column_window_samples" if field == "samples" else f"column_{field}"
                    add(name, float(getattr(statistics, field)[i]), column.role.value, column.name, window)

    @staticmethod
    def _add_alarm(families: dict[str, Metric], version: VersionSnapshot) -> None:
        """Per tier and column; before the first samples of a tick there is no evidence, and no number for it."""
        if version.alarm is None or version.monitor is None:
            return
        alarm = version.alarm
        dispersion = alarm.evidence.dispersion.ratio
        names = [[version.model, version.version, c.role.value, c.name] for c in version.monitor.binner.columns]

        def add(name: str, labels: list[str], value: float) -> None:
            family = families["mlexporter_column_" + name]
            assert isinstance(family, GaugeMetricFamily)
            family.add_metric(labels, value)

        for i, own in enumerate(names):
            add("dispersion", own, dispersion[i])
        for tier, label in enumerate(("warn", "page")):
            for i, own in enumerate(names):
                add("tolerance", [*own, label], alarm.tolerance[tier, i])
                if alarm.evidence.log_evidence[tier, i] > -math.inf:
                    add("drift_log_evidence", [*own, label], alarm.evidence.log_evidence[tier, i])

    @staticmethod
    def _add_comparison(families: dict[str, Metric], version: VersionSnapshot) -> None:
        comparison = version.comparison
        if comparison is None:
            return

        def add(name: str, value: float, *labels: str) -> None:
            family = families["mlexporter_version_" + name]
            assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
            family.add_metric([version.model, version.version, comparison.previous, *labels], value)

        add("previous_info", 1)
        for agree, count in zip(("false", "true"), version.feedback.totals.agreement, strict=True):
            add("agreement_total", count, agree)
        for right, count in zip(("this", "previous", "both", "neither"), version.feedback.totals.right, strict=True):
            add("right_total", count, right)
        for window, before, after in comparison.windows:
            assert comparison.monitor is not None
            psi = comparison.monitor.statistician.psi_between(before, after)
            for column, value in zip(comparison.monitor.binner.columns, psi, strict=True):
                if not math.isnan(value):
                    add("psi", value, column.role.value, column.name, window)

    @staticmethod
    def _merge(column: object, fine: list[int]) -> list[int]:
        if not isinstance(column, NumericColumn):
            return fine
        inner = [sum(fine[a + 1 : b + 1]) for a, b in pairwise(column.coarse)]
        return [fine[0], *inner, fine[-2], fine[-1]]

    @staticmethod
    def _buckets(column: NumericColumn, fine: list[int]) -> Iterator[tuple[str, int]]:
        """Exported edges but the lowest, and but those that end right under the value of an atom."""
        edges = [(column.edges[i], sum(fine[: i + 1])) for i in column.coarse[1:]]
        for i, (edge, count) in enumerate(edges):
            if i + 1 == len(edges) or edges[i + 1][0] != math.nextafter(edge, math.inf):
                yield floatToGoString(edge), count  # type: ignore[no-untyped-call]


def both(snapshot: Snapshot) -> Iterable[tuple[bytes, bytes]]:
    """Our page and prometheus_client's, in both formats."""
    registry = CollectorRegistry()
    registry.register(SlowCollector(snapshot))
    openmetrics: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    yield Exposition().page(snapshot), generate_latest(registry)
    yield Exposition().page(snapshot, openmetrics=True) + b"# EOF\n", openmetrics


def training() -> Baseline:
    """Columns of every kind. Values are eighths, which add without rounding in any order."""
    random = np.random.default_rng(5)
    positive = random.integers(0, 80, 3000) / 8
    signed = random.integers(-80, 80, 3000) / 8
    atom = np.where(random.random(3000) < 0.5, 0.0, positive)
    return baseline(
        numeric("amount", np.quantile(positive, np.linspace(0, 1, 21)).tolist(), positive, coarse=range(0, 21, 2)),
        numeric("balance", (-10.0, -5.0, -1.0, 0.0, 1.0, 5.0, 10.0), signed, coarse=(0, 2, 3, 4, 6)),
        numeric("change", (-10.0, 0.0, 10.0), signed),
        numeric("clicks", (math.nextafter(0, -1), 0.0, 2.0, math.nextafter(5, 0), 5.0, 1e7), atom),
        numeric("constant", (math.nextafter(3, 0), 3.0), np.full(3000, 3.0)),
        categorical(NASTY, {"pro": 1500, "": 1000, "\n": 400, NASTY: 100}),
        categorical("email", {"a@example.com": 2000, "b@example.com": 1000}),
        categorical("flag", {"false": 2000, "true": 900}, missing=100, boolean=True),
        numeric("prediction", (0.0, 0.25, 0.5, 1.0), random.integers(1, 9, 3000) / 8, role=Role.PREDICTION),
    )


def live(rows: int, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)

    def eighths(low: int, high: int) -> list[object]:
        values: list[object] = (random.integers(low, high, rows) / 8).tolist()
        return values

    return Batch(
        rows,
        {
            "amount": [value if i % 10 else None for i, value in enumerate(eighths(0, 100))],
            "balance": eighths(-90, 70),
            "change": eighths(-90, 70),
            "clicks": [value if i % 17 else "many" for i, value in enumerate(eighths(0, 60))],
            "constant": [3] * rows,
            NASTY: random.choice(["pro", "", NASTY, "new"], rows).tolist(),
            "email": random.choice(["a@example.com", "c@example.com"], rows).tolist(),
            "flag": random.choice([True, False], rows).tolist(),
            "no such column": ["x"] * rows,
        },
        prediction=eighths(0, 10),
        latency_seconds=[0.0009765625, None, 0.25, 64.0][:rows] + [None] * (rows - 4),
        errors=3,
    )


def scrape(rows: int = 2000, model: str = "churn") -> Snapshot:
    """A configured model with live data and an alarm, and three more versions that say less."""
    columns = {"email": ColumnConfig(export_names=False)}
    entry = ModelConfig(name=model, version="7", task="binary", columns=columns)
    config = Config(models=(entry,), windows=WINDOWS, discovery=DiscoveryConfig(enabled=True))
    clock = Clock()
    store = Store(config, {(model, "7"): training()}, clock)
    store.observe([msgspec.structs.replace(live(rows), model=model)])
    clock.now += 7200
    store.tick()
    store.observe([msgspec.structs.replace(live(rows // 8, 1), model=model), Batch(1, {}, model=model, version="8")])
    store.observe([Batch(2, {"x": [1, 2]}, model=NASTY, version=NASTY)])
    return store.snapshot()


def test_byte_for_byte_with_labels() -> None:
    snapshot = labelled_store(Clock()).snapshot()
    for ours, theirs in both(snapshot):
        assert ours.decode().splitlines() == theirs.decode().splitlines()
        assert ours == theirs
    shown = set(re.findall(r"^# TYPE (\S+)", Exposition().page(snapshot).decode(), re.MULTILINE))
    # of all that can be shown, here are: no column is categorical or has a season, all that labels tell is there
    assert {metric.name for metric in metrics.FEEDBACK_METRICS} <= shown


@pytest.mark.parametrize("rows", [0, 100, 2000, 20_000])
def test_byte_for_byte(rows: int) -> None:
    snapshot = scrape(max(rows, 4)) if rows else Store(Config(), {}, Clock()).snapshot()
    for ours, theirs in both(snapshot):
        assert ours.decode().splitlines() == theirs.decode().splitlines()
        assert ours == theirs


def test_pages_of_one_exposition_are_those_of_a_new_one() -> None:
    """What is kept from page to page is not seen on the next."""
    exposition = Exposition()
    # other columns under the same name, a model that went away, and back
    entry = ModelConfig(name="churn", version="7")
    other = baseline(categorical("amount", {"a": 9}))
    changed = Store(Config(models=(entry,), windows=WINDOWS), {("churn", "7"): other}, Clock()).snapshot()
    first, grown = scrape(), scrape(3000)
    silent = msgspec.structs.replace(
        first, versions=tuple(msgspec.structs.replace(version, alarm=None) for version in first.versions)
    )
    empty = Store(Config(), {}, Clock()).snapshot()
    # a baseline that is learned grows under the same bins
    learning = Store(Config(discovery=DiscoveryConfig(enabled=True, learn_samples=200)), {}, Clock())
    learned = []
    for value in (1.0, 2.0, 3.0):
        learning.observe([Batch(200, {"x": [0.0, value] * 100}, model="churn", version="7")])
        learned.append(learning.snapshot())
    for snapshot in (first, first, silent, changed, empty, grown, *learned, first):
        for openmetrics in (False, True):
            expected = Exposition().page(snapshot, openmetrics=openmetrics)
            assert exposition.page(snapshot, openmetrics=openmetrics) == expected


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(0, 4e9), st.integers(0, 10**18))
def test_any_text_and_any_number(name: str, timestamp: float, samples: int) -> None:
    profile = baseline(numeric("x", (0.0, 1e-7, 1e22), [0.5]), categorical(name, {name: 1, name + "!": 1}))
    entry = ModelConfig(name=name, version=name[::-1])
    store = Store(Config(models=(entry,), windows=WINDOWS), {(name, name[::-1]): profile}, Clock(timestamp))
    store.observe([Batch(3, {"x": [1e-300, 1e21, 0.1], name: [name, "?", None]})])
    (version,) = store.snapshot().versions
    assert version.counts is not None
    assert version.alarm is None
    # counts as large as years of traffic
    many = msgspec.structs.replace(version.counts, bins=version.counts.bins + samples)
    changed = msgspec.structs.replace(version, samples=samples, counts=many)
    for ours, theirs in both(Snapshot((changed,), 0, None)):
        assert ours == theirs


def test_lone_surrogates_become_question_marks() -> None:
    """prometheus_client cannot write them at all; one odd name must not cost the page."""
    odd, plain = "\ud800x\udfff", "?x?"
    pages = []
    for name in (odd, plain):
        entry = ModelConfig(name=name, version=name)
        profile = baseline(numeric("x", (0.0, 1.0), [0.5]), categorical("c", {"a": 1}))
        pages.append(Store(Config(models=(entry,)), {(name, name): profile}, Clock()).snapshot())
    with pytest.raises(UnicodeEncodeError):
        list(both(pages[0]))
    assert Exposition().page(pages[0]) == next(iter(both(pages[1])))[1]
    assert prefix("a", {"b": odd}) == b'\na{b="?x?"} '


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1e6, 999999.5, 1e-4, 9.999e-5, 1e16, 1e22, 2.0**63, 5e-324, -1e7, math.inf]
)
def test_numbers_at_the_turns_of_the_notation(value: float) -> None:
    assert numbers(np.array([value])) == [floatToGoString(value).encode()]  # type: ignore[no-untyped-call]


@given(st.lists(st.floats(allow_nan=False) | st.integers(-(2**62), 2**62).map(float)))
def test_numbers_as_prometheus_client_writes_them(values: list[float]) -> None:
    expected = [floatToGoString(value).encode() for value in values]  # type: ignore[no-untyped-call]
    assert numbers(np.array(values, dtype=np.float64)) == expected


def values_of(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def test_both_parsers_read_the_same_values_back() -> None:
    snapshot = scrape()
    expected = values_of(SlowCollector(snapshot).collect())
    assert len(expected) > 400
    text = Exposition().page(snapshot).decode()
    openmetrics = Exposition().page(snapshot, openmetrics=True).decode() + "# EOF\n"
    assert values_of(parse_text(text)) == expected
    assert values_of(parse_openmetrics(openmetrics)) == expected  # type: ignore[no-untyped-call]
    types = {metric.name: metric.type for metric in metrics.MODEL_METRICS if metric.name in text}
    for family in parse_text(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert types.pop(name) == family.type
    assert not types


def test_what_is_unknown_is_absent() -> None:
    text = Exposition().page(scrape(4)).decode()
    assert " NaN" not in text
    assert "mlexporter_column_psi{" not in text
    assert "mlexporter_column_ks_distance{" not in text
    assert "mlexporter_column_missing_ratio{" in text


def alarm_lines(snapshot: Snapshot, name: str) -> list[str]:
    lines = Exposition().page(snapshot).decode().splitlines()
    return [line for line in lines if line.startswith(f"mlexporter_{name}{{")]


def test_alarm_speaks_from_the_first_tick_on_and_evidence_from_the_first_samples() -> None:
    profile = baseline(numeric("x", (0.0, 1.0), [0.5] * 1000), categorical("plan", {"a": 1000}))
    models = (ModelConfig(name="m", version="1"), ModelConfig(name="n", version="1"))
    store = Store(Config(models=models), {("m", "1"): profile, ("n", "1"): profile}, Clock())
    families = ("column_drift_log_evidence", "column_tolerance", "column_dispersion")

    def counted() -> list[int]:
        return [len(alarm_lines(store.snapshot(), name)) for name in families]

    # two columns of two models watched: ln(4 x 30 d / 15 s)
    threshold = f" {floatToGoString(math.log(4 * 30 * 5760))}"  # type: ignore[no-untyped-call]
    for tier, line in zip(("warn", "page"), alarm_lines(store.snapshot(), "drift_log_threshold"), strict=True):
        assert line == f'mlexporter_drift_log_threshold{{tier="{tier}"}}{threshold}'
    assert counted() == [0, 0, 0]
    store.tick()
    assert counted() == [0, 8, 4]
    store.observe([Batch(1, {"x": [0.5], "plan": ["a"]}, model="m")])
    assert counted() == [0, 8, 4]
    store.tick()
    assert counted() == [4, 8, 4]
    assert all('model="m"' in line for line in alarm_lines(store.snapshot(), families[0]))
    assert not alarm_lines(Store(Config(), {}, Clock()).snapshot(), "drift_log_threshold")


def test_no_sum_and_no_count_below_zero() -> None:
    """OpenMetrics forbids a sum that may fall, and a count without a sum."""
    text = Exposition().page(scrape()).decode()
    for suffix in ("_sum", "_count"):
        lines = [line for line in text.splitlines() if line.startswith(f"mlexporter_column_value{suffix}")]
        columns = {line.split('column="')[1].split('"')[0] for line in lines if 'version="7"' in line}
        assert columns == {"amount", "clicks", "constant", "prediction"}


@needs("promtool")
def test_promtool_says_nothing() -> None:
    page = Exposition().page(scrape())
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def series(page: bytes) -> int:
    return sum(not line.startswith(b"#") for line in page.splitlines())


def test_budget_is_the_number_of_series_of_a_full_page() -> None:
    random = np.random.default_rng(0)
    amounts = random.exponential(1, 5000)
    profile = baseline(
        numeric("amount", [0.0, *np.quantile(amounts, np.linspace(0.1, 1, 10))], amounts),
        categorical("plan", {"a": 3000, "b": 2000}),
    )
    store = Store(Config(models=(ModelConfig(name="m"),), windows=WINDOWS), {("m", "unversioned"): profile}, Clock())
    reasons = {f"reason-{i}": 1 for i in range(12)}  # of which ten are told apart
    store.observe([Batch(5000, {"amount": amounts.tolist(), "plan": ["a", "b"] * 2500}, error_reasons=reasons)])
    store.tick()
    snapshot = store.snapshot()
    # the thresholds of both tiers are the exporter's, not the version's
    assert series(Exposition().page(snapshot)) - 2 == series_of(profile.columns, 2) == snapshot.series


def test_budget_is_an_upper_bound_whatever_the_columns_are() -> None:
    snapshot = scrape(20_000)
    # the larger part of the rest are counts of outcomes, which show once labels may come
    assert 0.3 * snapshot.series < series(Exposition().page(snapshot)) < snapshot.series


def test_budget_is_an_upper_bound_of_what_labels_show() -> None:
    snapshot = labelled_store(Clock()).snapshot()
    assert 0.8 * snapshot.series < series(Exposition().page(snapshot)) < snapshot.series


def test_latency_that_nobody_sent() -> None:
    known = next(version for version in scrape().versions if version.model == "churn")
    version = msgspec.structs.replace(known, monitor=None, latency=Latency(np.zeros(15, dtype=np.int64), 0.0))
    for ours, theirs in both(Snapshot((version,), 0, None)):
        assert ours == theirs
        assert b'le="+Inf",model="churn",version="7"} 0.0\n' in ours


def test_golden(golden: Path, request: pytest.FixtureRequest) -> None:
    """A whole small scrape, so that review sees each change of it."""
    random = np.random.default_rng(11)
    ages = random.integers(18, 80, 1000) / 1.0
    profile = baseline(
        numeric("age", [17.5, *np.quantile(ages, np.linspace(0.1, 1, 10))], ages),
        categorical("plan", {"free": 600, "pro": 300}, rare={"edu": 60}, missing=40),
        numeric("prediction", (0.0, 0.25, 0.5, 0.75, 1.0), random.integers(1, 9, 1000) / 8, role=Role.PREDICTION),
    )
    profile = msgspec.structs.replace(profile, hash="0123456789abcdef")
    entry = ModelConfig(name="churn", version="7", task="binary")
    config = Config(models=(entry,), windows=(Window(3600.0, "1h"),), discovery=DiscoveryConfig(enabled=True))
    store = Store(config, {("churn", "7"): profile}, Clock())
    store.observe(
        [
            Batch(
                1000,
                {
                    "age": [*(ages[:900] + 5).tolist(), *[None] * 98, "old", 17.0],
                    "plan": ["free"] * 400 + ["pro"] * 500 + ["edu"] * 60 + ["team"] * 40,
                    "plam": ["pro"] * 1000,
                },
                prediction=(random.integers(1, 9, 1000) / 8).tolist(),
                latency_seconds=[0.001, 0.004, 0.25, 45.0] + [None] * 996,
                errors=2,
            ),
            Batch(3, {"age": [1, 2, 3]}, model="fraud", version="1.0"),
        ]
    )
    store.tick()
    page = Exposition().page(store.snapshot())
    # the last digits of a logarithm differ between processors
    rounded = re.compile(
        rb"^(mlexporter_(?:column_(?:psi|js|hellinger|ks|wasserstein|tolerance|drift)|drift)\S+ )(\S+)$", re.MULTILINE
    )
    text = rounded.sub(lambda line: line[1] + b"%.9g" % float(line[2]), page).decode()
    path = golden / "metrics.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text.splitlines() == path.read_text(encoding="utf-8").splitlines()


def test_nothing_is_kept_of_versions_that_are_gone() -> None:
    snapshot = labelled_store(Clock()).snapshot()
    exposition = Exposition()
    exposition.page(snapshot)
    kept = [weakref.ref(lines) for lines in exposition._feedback_lines.values()]
    assert len(kept) == len(snapshot.versions)
    exposition.page(msgspec.structs.replace(snapshot, versions=()))
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)
