"""The demo's traffic to replicas, answered by two versions of its model, with labels; steady, until it is stopped."""

import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.conftest import Exporter, Start
from e2e.feedback import built
from mlexporter.demo.data import FEATURES, Flight, load_split
from mlexporter.demo.model import MODEL, Model, train
from mlexporter.demo.processes import StopSignals, build_baseline
from mlexporter.demo.stage import write_csv
from mlexporter.demo.traffic import Phase, Traffic

VERSIONS = ("1", "2")
MINUTES = "flight-minutes"
BATCH_FLIGHTS = 80
BATCH_SECONDS = 0.5
LABELLED_SHARE = 0.9
CORRECTED_SHARE = 0.02
LABELS_AFTER_BATCHES = 4
# After what went wrong: requests that are refused, samples that failed, values of a wrong type, labels of nobody.
ERROR_SHARE = 0.3


def minutes(flights: Sequence[Flight], rng: random.Random) -> list[dict[str, Any]]:
    """Rows of a model that foretells the delay on arrival in minutes: that at departure, more or less."""
    rows: list[dict[str, Any]] = []
    for flight in flights:
        delay, carrier = flight.features["dep_delay"], flight.features["carrier"]
        known = float(delay) if isinstance(delay, float | int) else 0.0
        rows.append(
            {"dep_delay": delay, "carrier": carrier, "prediction": known + rng.gauss(-5, 3), "label": flight.delay}
        )
    return rows


class Replica:
    """One exporter, and what is sent to it: the same flights to both versions, and later what became of them."""

    def __init__(self, exporter: Exporter, flights: Sequence[Flight], models: Mapping[str, Model], seed: int) -> None:
        self._exporter = exporter
        self._models = models
        self._traffic = Traffic(flights, seed)
        self._rng = random.Random(seed)
        self._name = f"flight-{seed}"
        self._sent = 0
        self._unlabelled: deque[tuple[list[str], list[Flight], Sequence[str]]] = deque()

    def send(self, phase: Phase, versions: Sequence[str]) -> None:
        """One batch of samples to these versions, and the labels of one that is old enough."""
        flights = self._traffic.batch(BATCH_FLIGHTS, phase)
        ids = [f"{self._name}-{self._sent + i}" for i in range(len(flights))]
        self._sent += len(flights)
        rows = [flight.features for flight in flights]
        for version in versions:
            columns: dict[str, Any] = {
                "id": ids,
                "features": {name: [row[name] for row in rows] for name in FEATURES},
                "prediction": self._models[version].predict(rows),
                "latency_seconds": [self._rng.lognormvariate(-4, 0.5) for _ in rows],
            }
            if phase != Phase.CLEAN:
                columns["features"]["gate"] = ["B12"] * len(rows)
                columns["features"]["distance"] = ["far"] * len(rows)
                columns["error"] = ["timeout" if self._rng.random() < ERROR_SHARE else None for _ in rows]
            answer = self._exporter.post({"model": MODEL, "version": version, "columns": columns})
            assert answer.status_code == 200, answer.text
        if phase != Phase.CLEAN:
            self._exporter.post(b"{")
            self._exporter.label({"model": MODEL, "columns": {"id": ["nobody"] * 5, "label": [True] * 5}})
        self._send_minutes(ids, flights, versions)
        self._unlabelled.append((ids, flights, versions))
        if len(self._unlabelled) > LABELS_AFTER_BATCHES:
            self._label(*self._unlabelled.popleft())

    def _send_minutes(self, ids: Sequence[str], flights: Sequence[Flight], versions: Sequence[str]) -> None:
        """The other model knows at once how right it was."""
        for version in versions:
            rows = minutes(flights, self._rng)
            columns = {name: [row[name] for row in rows] for name in ("prediction", "label")}
            features = {"features": {name: [row[name] for row in rows] for name in ("dep_delay", "carrier")}}
            latency = {"latency_seconds": [self._rng.lognormvariate(-4, 0.5) for _ in rows]}
            content = {"model": MINUTES, "version": version, "columns": {"id": ids, **features, **columns, **latency}}
            answer = self._exporter.post(content)
            assert answer.status_code == 200, answer.text

    def _label(self, ids: Sequence[str], flights: Sequence[Flight], versions: Sequence[str]) -> None:
        known = [(i, flight) for i, flight in zip(ids, flights, strict=True) if self._rng.random() < LABELLED_SHARE]
        wrong = [(i, not flight.late) for i, flight in known if self._rng.random() < CORRECTED_SHARE]
        for told in (wrong, [(i, flight.late) for i, flight in known]):
            for version in versions:
                columns = {"id": [i for i, _ in told], "label": [late for _, late in told]}
                self._exporter.label({"model": MODEL, "version": version, "columns": columns})


class LiveFleet:
    """Sends to all replicas from a thread, at first clean flights to the first version."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.phase = Phase.CLEAN
        self.versions: Sequence[str] = VERSIONS[:1]
        self.failed: BaseException | None = None
        self._replicas = replicas
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "LiveFleet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def check(self) -> None:
        assert self.failed is None, self.failed

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                for replica in self._replicas:
                    replica.send(self.phase, self.versions)
                due = max(due + BATCH_SECONDS, time.monotonic())
        except BaseException as error:  # noqa: BLE001 - told by check()
            self.failed = error


@contextmanager
def running_fleet(
    folder: Path, start: Start, replicas: int = 2, seed: int = 20
) -> Iterator[tuple[list[Exporter], LiveFleet]]:
    """Exporters of the demo's model under traffic; of its versions they know the first, the other is a rollout."""
    split = load_split(12_000, 12_000, 12_000, seed)
    models = {
        version: train(split.training[half :: len(VERSIONS)], split.validation, seed)
        for half, version in enumerate(VERSIONS)
    }
    write_csv(folder / "validation.csv", split.validation, models[VERSIONS[0]])
    build_baseline(folder / "validation.csv", folder / "baseline.json", StopSignals())
    rows = minutes(split.validation, random.Random(seed))
    other = {"name": MINUTES, "version": "1", "task": "regression", "baseline": built(folder, "minutes", rows)}
    own = {"name": MODEL, "version": VERSIONS[0], "task": "binary", "baseline": str(folder / "baseline.json")}
    config = {"models": [own | {"labels": {"horizon": "1m"}}, other], "windows": ["1h", "24h"]}
    started = []
    for number in range(replicas):
        storage = folder / f"state-{number}"
        storage.mkdir()
        started.append(start(f"--storage.path={storage}", config=config))
    served = [Replica(exporter, split.live[i::replicas], models, seed + i) for i, exporter in enumerate(started)]
    with LiveFleet(served) as fleet:
        yield started, fleet
