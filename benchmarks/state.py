"""State to disk and back: time, size, and how long the store's lock is held."""

import itertools
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.compute import baseline_of
from benchmarks.harness import Report, medians
from mlexporter.config import Config, ModelConfig, Window
from mlexporter.persistence import StateFolder, decode, encode
from mlexporter.samples import Batch
from mlexporter.state import Copier
from mlexporter.store import Store

COLUMNS = 100
CONFIG = Config(models=(ModelConfig(name="m", version="1"),), windows=(Window(3600.0, "1h"), Window(86400.0, "24h")))
ROUNDS = 25
MB = 1e6


def full(clock: "itertools.count[float]") -> Store:
    """A store of one version with samples in every pane of both windows."""
    baseline = baseline_of(COLUMNS)
    store = Store(CONFIG, {("m", "1"): baseline}, lambda: float(next(clock)))
    rng = np.random.default_rng(2)
    for _ in range(130):
        columns = {column.name: rng.normal(0, 1, 200).tolist() for column in baseline.columns}
        store.observe([Batch(200, columns, "m")])
        store.tick()
    return store


def held(store: Store) -> float:
    """Median seconds for which the lock is held to copy a version."""
    (version,) = store._registry
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        Copier().add(version)
        times.append(time.perf_counter() - start)
    return median(times)


def run(report: Report) -> None:
    report.heading(f"State on disk (one version, {COLUMNS} numeric columns, two windows)")
    # each look at the clock moves it by three minutes: 130 rounds fill a day
    store = full(itertools.count(1_700_000_000.0, 180.0))
    state = store.state()
    data = encode(state)
    report.add("size", f"{len(data) / MB:.1f} MB")
    report.add("lock held to copy it", f"{1e3 * held(store):.2f} ms")
    with tempfile.TemporaryDirectory() as name:
        folder = StateFolder(Path(name))
        found = medians(
            {
                "copy": store.state,
                "encode": lambda: encode(state),
                "encode, write and flush to the disk": lambda: folder.write(state),
                "decode": lambda: decode(data),
                "restore": lambda: store.restore(state, clean=True),
            },
            ROUNDS,
        )
    for what, seconds in found.items():
        report.add(what, f"{1e3 * seconds:.1f} ms")
