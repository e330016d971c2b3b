"""In process: binning, statistics, the page."""

import gzip

import numpy as np
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from scipy import stats
from scipy.spatial import distance

from benchmarks.harness import Report, medians
from mlexporter.baseline import Baseline, sealed
from mlexporter.binning import _Workspace, count_numbers
from mlexporter.columns import learn_column
from mlexporter.config import Config, DetectionConfig, LimitsConfig, ModelConfig
from mlexporter.exposition import Exposition
from mlexporter.samples import Batch, Role
from mlexporter.snapshot import Monitor
from mlexporter.store import Store


def baseline_of(columns: int, rows: int = 10_000) -> Baseline:
    """A baseline of normal columns."""
    rng = np.random.default_rng(1)
    return sealed(
        Baseline(
            model="bench",
            version="1",
            rows=rows,
            columns=tuple(
                learn_column(Role.FEATURE, f"feature_{i:03d}", rng.normal(size=rows).tolist(), "numeric")
                for i in range(columns)
            ),
        )
    )


def store_of(columns: int) -> Store:
    """A store with one model of so many columns."""
    config = Config(models=(ModelConfig(name="bench", version="1"),), limits=LimitsConfig(max_series=1_000_000))
    return Store(config, {("bench", "1"): baseline_of(columns)}, lambda: 1000.0)


def binning(report: Report) -> None:
    report.heading("Binning numbers in memory (20 columns x 8,192 rows, 2 % missing)")
    rng = np.random.default_rng(2)
    values = rng.normal(size=(20, 8192))
    values[:, ::50] = np.nan
    monitor = Monitor.of(baseline_of(20), DetectionConfig(), {})
    columns = monitor.binner.numeric
    fine = [np.asarray(column.edges) for column in columns]
    deciles = [edges[list(column.coarse)] for edges, column in zip(fine, columns, strict=True)]
    work = _Workspace(8192)

    def ours(edges: list[np.ndarray]) -> None:
        for i, column in enumerate(columns):
            np.copyto(work.values, values[i])
            count_numbers(work, edges[i], column.sum_limits)

    def searchsorted() -> None:
        for i in range(20):
            index = fine[i].searchsorted(values[i])
            np.bincount(index, minlength=30)
            np.bincount(index, weights=values[i], minlength=30)

    def histogram() -> None:
        for i in range(20):
            np.histogram(values[i][~np.isnan(values[i])], fine[i])

    registry = CollectorRegistry()
    peer = Histogram("peer", "peer", buckets=tuple(deciles[0]), registry=registry)
    some = values[0][~np.isnan(values[0])][:2000].tolist()

    def observe() -> None:
        for value in some:
            peer.observe(value)

    times = medians(
        {
            "fine": lambda: ours(fine),
            "deciles": lambda: ours(deciles),
            "searchsorted": searchsorted,
            "histogram": histogram,
            "observe": observe,
        }
    )
    rate = {name: values.size / seconds / 1e6 for name, seconds in times.items()}
    rate["observe"] = len(some) / times["observe"] / 1e6
    report.add(
        f"fine bins ({len(fine[0]) - 1}) and their sums",
        f"{rate['fine']:.0f} M values/s",
        "250 M (10 bins)",
        f"searchsorted {rate['searchsorted']:.0f} M, np.histogram {rate['histogram']:.0f} M",
    )
    report.add(
        f"deciles ({len(deciles[0]) - 1}) and their sums",
        f"{rate['deciles']:.0f} M values/s",
        "250 M (10 bins)",
        f"prometheus_client observe {rate['observe']:.2f} M",
    )


def statistics(report: Report) -> None:
    report.heading("Drift statistics (1,000 columns x 13 bins, one window)")
    monitor = Monitor.of(baseline_of(1000, rows=2000), DetectionConfig(), {})
    bins, sums = monitor.reference.bins, monitor.reference.sums
    psi_rows = 100
    exported = monitor.statistician.exported(bins).reshape(1000, -1)[:psi_rows].astype(float)

    def scipy_loop() -> None:
        for row in exported:
            distance.jensenshannon(row + 1, row + 2)
            stats.wasserstein_distance(np.arange(len(row)), np.arange(len(row)), row + 1, row + 2)
            stats.chi2_contingency([row + 1, row + 2])

    times = medians({"ours": lambda: monitor.statistician.compute(monitor.reference, bins, sums), "scipy": scipy_loop})
    report.add(
        "all ten numbers, all columns",
        f"{times['ours'] * 1e3:.2f} ms",
        "1 ms",
        f"scipy per column, three of them: {times['scipy'] * 1000 / psi_rows * 1e3:.0f} ms",
    )


class _SamePage(Collector):
    """The families of a page as prometheus_client would be given them."""

    def __init__(self, page: bytes) -> None:
        self._series: dict[str, list[tuple[list[str], list[str], float]]] = {}
        for line in page.decode().splitlines():
            if line.startswith("#"):
                continue
            series, value = line.rsplit(" ", 1)
            name, _, rest = series.partition("{")
            pairs = [pair.split("=", 1) for pair in rest.rstrip("}").split('",') if pair]
            self._series.setdefault(name, []).append(
                ([key for key, _ in pairs], [text.strip('"') for _, text in pairs], float(value))
            )

    def collect(self) -> list[Metric]:
        families: list[Metric] = []
        for name, series in self._series.items():
            family = GaugeMetricFamily(name, "A family.", labels=series[0][0])
            for _, labels, value in series:
                family.add_metric(labels, value)
            families.append(family)
        return families


def page(report: Report) -> None:
    columns = 180
    store = store_of(columns)
    rng = np.random.default_rng(3)
    for _ in range(4):
        rows = 2000
        store.observe(
            [Batch(rows, {f"feature_{i:03d}": rng.normal(size=rows).tolist() for i in range(columns)}, "bench", "1")]
        )
    exposition = Exposition()
    snapshot = store.snapshot()
    text = exposition.page(snapshot)
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    report.heading(f"The page ({series:,} series, {len(text) / 1e6:.2f} MB)")
    registry = CollectorRegistry()
    registry.register(_SamePage(text))
    times = medians(
        {
            "page": lambda: exposition.page(snapshot),
            "snapshot": lambda: exposition.page(store.snapshot()),
            "gzip": lambda: gzip.compress(exposition.page(snapshot), compresslevel=1, mtime=0),
            "peer": lambda: generate_latest(registry),
            "peer gzip": lambda: gzip.compress(generate_latest(registry)),
        }
    )
    per_12k = 12_000 / series * 1e3
    report.add(
        "write it, statistics of two windows included",
        f"{times['page'] * 1e3:.1f} ms",
        f"{2 / per_12k * 1e3:.1f} ms",
        f"generate_latest {times['peer'] * 1e3:.0f} ms: {times['peer'] / times['page']:.0f}x",
    )
    report.add("with the snapshot", f"{times['snapshot'] * 1e3:.1f} ms")
    report.add(
        "with gzip",
        f"{times['gzip'] * 1e3:.1f} ms",
        f"{8 / per_12k * 1e3:.1f} ms",
        f"with its gzip {times['peer gzip'] * 1e3:.0f} ms: {times['peer gzip'] / times['gzip']:.0f}x",
    )


def run(report: Report) -> None:
    """All of them."""
    binning(report)
    statistics(report)
    page(report)
