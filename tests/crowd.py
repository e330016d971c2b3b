"""Threads that do everything to one exporter at once, and what must have come of it. For tests."""

import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from conftest import Clock, baseline, numeric
from joining import running
from labelled import EDGES, profiled
from mlexporter.baseline import Baseline, sealed
from mlexporter.config import Config, DetectionConfig, DiscoveryConfig, LimitsConfig, ModelConfig, Window
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile
from mlexporter.pending.joiner import Joiner
from mlexporter.pending.sqlite import SqliteStore
from mlexporter.persistence import Saver, StateFolder, decode
from mlexporter.samples import Role
from mlexporter.server import Application
from mlexporter.slow_clients import BodyReader
from mlexporter.store import Store
from mlexporter.telemetry import Telemetry

THREADS: Final = 6
STEPS: Final = 14
LEARN: Final = 200
X_EDGES: Final = tuple(map(float, range(6)))
DAY: Final = 86400.0
KINDS: Final = {
    "samples": 6, "discovered": 2, "labels": 4, "outcomes": 2, "refused": 1, "scrape": 3, "status": 1, "tick": 2,
    "save": 2, "reload": 1,
}  # fmt: skip

Key = tuple[str, ...]


def profile() -> Baseline:
    """A binary model with one feature, whose outcomes are known."""
    source = np.random.default_rng(1)
    scores = source.integers(0, 17, 1000) / 16
    labels = (source.random(1000) < scores).astype(int)
    outcomes: OutcomeProfile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(EDGES,))
    columns = baseline(
        numeric("x", X_EDGES, source.uniform(-1, 6, 1000)),
        numeric("prediction", (0.0, 0.5, 1.0), scores, role=Role.PREDICTION),
    )
    outcomes = profiled(outcomes, scores.tolist(), labels.tolist())
    return sealed(msgspec.structs.replace(columns, outcomes=outcomes))


PROFILE: Final = profile()


class Told(Telemetry):
    """The exporter's own metrics; that of a failed write is an error here."""

    def failed(self) -> None:
        raise AssertionError("the state cannot be written")


class World:
    """An exporter in this process, without a server.

    Args:
        folder: for its state.

    """

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.config = Config(
            models=(ModelConfig(name="m", version="1", task="binary"), ModelConfig(name="m", version="2")),
            windows=(Window(DAY, "1d"), Window(7 * DAY, "7d")),
            discovery=DiscoveryConfig(enabled=True, learn_samples=LEARN, learn_period=10 * DAY, max_models=1),
            limits=LimitsConfig(max_versions=3),
        )
        self.store = Store(self.config, {("m", "1"): PROFILE, ("m", "2"): PROFILE}, self.clock)
        self.telemetry = Told(self.clock)
        self.telemetry.keeping_state(restored=False, damaged=False)
        self.joiner = Joiner(SqliteStore(None, lambda _: 7 * DAY), self.store.feedback, self.clock)
        reader = BodyReader(1 << 20)
        self.application = Application(self.store, self.joiner, self.telemetry, self.config, reader, self.clock)
        self.folder = folder
        self.saver = Saver(self.store, StateFolder(folder), self.telemetry, self.clock)

    def call(
        self, method: str, path: str, content: object = None, media_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode() if content else b""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "9877", "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": media_type, "CONTENT_LENGTH": str(len(body)), "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(),
        }  # fmt: skip
        codes: list[int] = []

        def start(status: str, *_: object) -> Callable[[bytes], object]:
            codes.append(int(status[:3]))
            return lambda _: None

        answer = b"".join(self.application(environ, start))
        return codes[0], answer

    def page(self) -> dict[Key, float]:
        """What a scrape finds: values by name and the values of labels in the order of their names."""
        code, body = self.call("GET", "/metrics")
        assert code == 200
        return {
            (
                sample.name.removeprefix("mlexporter_"),
                *(value for _, value in sorted(sample.labels.items())),
            ): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }


class Visitor:
    """One thread: what it does, one thing after the other, and what it was told has been done."""

    def __init__(self, world: World, number: int, seed: int) -> None:
        self.world = world
        self.expected: Counter[Key] = Counter()
        self.steps: list[tuple[str, float, float]] = []
        self._source = random.Random(seed)
        self._ids = (f"{number}-{i}" for i in itertools.count())
        self._unlabelled: list[tuple[str, str, float]] = []
        self._seen: dict[Key, float] = {}
        self._tracked = 0

    def run(self) -> None:
        """Some steps of all kinds."""
        for kind in self._source.choices(list(KINDS), list(KINDS.values()), k=STEPS):
            begin = time.perf_counter()
            getattr(self, f"_{kind}")()
            self.steps.append((kind, begin, time.perf_counter()))

    def _post(self, path: str, content: object) -> dict[str, Any]:
        """Send, again while there is no room, as clients are told to."""
        while True:
            code, body = self.world.call("POST", path, content)
            if code != 503:
                assert code == 200, body
                answer: dict[str, Any] = json.loads(body)
                return answer
            self.expected["http_requests_total", "503", path, "POST"] += 1

    def _count(self, path: str, code: str = "200", method: str = "POST") -> None:
        self.expected["http_requests_total", code, path, method] += 1

    # -- what is sent -------------------------------------------------------------------------------------------------

    def _samples(self) -> None:
        """Samples in columns, some of which cannot be used."""
        source = self._source
        version, rows = source.choice(("1", "2", "3")), source.choice((1, 1, 2, 20, 300))
        x = [source.choice((None, source.randrange(-1, 6) + 0.5)) for _ in range(rows)]
        scores = [source.randrange(17) / 16 for _ in range(rows)]
        ids = [next(self._ids) for _ in range(rows)]
        errors = ["timeout" if source.random() < 0.1 else None for _ in range(rows)]
        seconds = [source.choice((0.004, 0.2)) for _ in range(rows)]
        samples: list[object] = [
            {"id": id_, "features": {"x": value}, "prediction": score, "error": error, "latency_seconds": second}
            for id_, value, score, error, second in zip(ids, x, scores, errors, seconds, strict=True)
        ]
        bad = source.randrange(3)
        for _ in range(bad):
            samples.insert(source.randrange(len(samples) + 1), "no sample")
        answer = self._post("/v1/samples", {"model": "m", "version": version, "samples": samples})
        assert (answer["accepted"], answer["rejected"]) == (rows, bad)
        self._count("/v1/samples")
        add = self.expected.update
        add({("samples_total", "m", version): rows, ("samples_rejected_total", "not_an_object"): bad})
        add({("inference_errors_total", "m", version): rows - errors.count(None)})
        add({("inference_duration_seconds_count", "m", version): rows})
        add({("predictions_tracked_total", "m", version): rows})
        add(Counter(("x", version, bin_of(value)) for value in x))
        self._unlabelled += [(id_, version, score) for id_, score in zip(ids, scores, strict=True)]

    def _discovered(self) -> None:
        """A model that learns its baseline meanwhile."""
        rows = self._source.choice((1, 30, 150))
        values = [self._source.gauss(0, 1) for _ in range(rows)]
        self._post("/v1/samples", {"model": "d", "version": "1", "columns": {"features": {"y": values}}})
        self._count("/v1/samples")
        self.expected["samples_total", "d", "1"] += rows

    def _labels(self) -> None:
        """Labels of what this thread sent, some of them corrected, some said twice."""
        some = [self._unlabelled.pop() for _ in range(min(len(self._unlabelled), self._source.choice((1, 5, 50))))]
        labels: list[dict[str, Any]] = []
        for id_, version, score in some:
            said = [self._source.randrange(2)]
            if self._source.random() < 0.2:
                said.append(1 - said[0])
                self.expected["labels_corrected_total", "m", version] += 1
            elif self._source.random() < 0.2:
                said.append(said[0])
                self.expected["labels_repeated_total", "m", version] += 1
            labels += [{"id": id_, "version": version, "label": label} for label in said]
            self.expected["labels_total", "m", version] += 1
            self._outcome(version, score, said[-1])
            if said[-1] != said[0]:  # what is taken back stays in a counter, which must not fall
                self._outcome(version, score, said[0])
                self.expected["retracted", version] += 1
        if labels:
            assert self._post("/v1/labels", {"model": "m", "labels": labels})["accepted"] == len(labels)
            self._count("/v1/labels")

    def _outcome(self, version: str, score: float, label: int) -> None:
        self.expected["outcomes_total", str(label), "m", str(int(score >= 0.5)), version] += 1

    def _outcomes(self) -> None:
        """Labels with their predictions, of which nothing waits."""
        rows = self._source.choice((1, 40))
        scores = [self._source.randrange(17) / 16 for _ in range(rows)]
        said = [self._source.randrange(2) for _ in range(rows)]
        content = {"model": "m", "version": "1", "columns": {"label": said, "prediction": scores}}
        assert self._post("/v1/labels", content)["accepted"] == rows
        self._count("/v1/labels")
        self.expected["labels_total", "m", "1"] += rows
        for score, label in zip(scores, said, strict=True):
            self._outcome("1", score, label)

    def _refused(self) -> None:
        code, _ = self.world.call("POST", "/v1/samples", b"{")
        assert code == 400
        self._count("/v1/samples", "400")
        self.expected["samples_rejected_total", "invalid_json"] += 1

    # -- what is read -------------------------------------------------------------------------------------------------

    def _scrape(self) -> None:
        """All of a page is of one moment, holds what this thread was told is accepted, and no counter falls."""
        page = self.world.page()
        self._count("/metrics", method="GET")
        for version in ("1", "2", "3"):
            samples = page.get(("samples_total", "m", version), 0)
            assert samples >= self.expected["samples_total", "m", version]
            for window in ("1d", "7d"):
                size = page.get(("column_window_samples", "x", "m", "feature", version, window), 0)
                assert size == samples, (version, window)
            assert sum(values_of(page, "x", version).values()) == samples
        for key, value in page.items():
            if key[0].endswith(("_total", "_count", "_bucket")):
                assert value >= self._seen.get(key, 0), key
                self._seen[key] = value

    def _status(self) -> None:
        code, body = self.world.call("GET", "/api/v1/status")
        assert code == 200
        self._count("/api/v1/status", method="GET")
        for version in json.loads(body)["models"]:
            assert version["samples"] >= self.expected["samples_total", version["model"], version["version"]]

    # -- what goes on by itself ---------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.world.clock.now += 1.0
        self.world.store.tick()

    def _save(self) -> None:
        """What is on disk is whole, and holds what this thread was told is accepted."""
        self.world.saver.save()
        state = decode((self.world.folder / "state.bin").read_bytes())
        for version in state.versions:
            assert version.samples >= self.expected["samples_total", version.model, version.name]
            if version.model == "m":
                assert version.counts is not None
                assert version.counts.rows == version.samples
                for window in version.windows.values():
                    assert (window.bins.sum(axis=0) == version.counts.bins).all()

    def _reload(self) -> None:
        """Of what is counted nothing begins afresh; at times the evidence does, as what it is held against changes."""
        tolerance = self._source.choice([0.001, 0.002])
        config = msgspec.structs.replace(self.world.config, detection=DetectionConfig(warn_tolerance=tolerance))
        afresh = self.world.store.reload(config, {("m", "1"): PROFILE, ("m", "2"): PROFILE})
        assert all("evidence" in each.why for each in afresh)


def bin_of(value: float | None) -> str:
    """The bin of a value of `x`, as the page has it."""
    if value is None:
        return "__missing__"
    if value <= X_EDGES[0]:
        return "__below__"
    if value > X_EDGES[-1]:
        return "__above__"
    return f"{int(value) + 1:02d} {int(value)}..{int(value) + 1}"


def values_of(page: dict[Key, float], column: str, version: str) -> dict[str, float]:
    """Counts of a column of the model `m` by bin."""
    return {
        key[1]: value
        for key, value in page.items()
        if key[0] == "column_bin_total" and key[2:] == (column, "m", "feature", version)
    }


def visit(world: World, seed: int) -> list[Visitor]:
    """Let the threads run, all at once, and the joiner beside them; and wait for them."""
    visitors = [Visitor(world, number, 1000 * seed + number) for number in range(THREADS)]
    failures: list[BaseException] = []
    together = threading.Barrier(THREADS)

    def run(visitor: Visitor) -> None:
        try:
            together.wait()
            visitor.run()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=run, args=[visitor]) for visitor in visitors]
    with running(world.joiner):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "stuck"
    if failures:
        raise failures[0]
    return visitors
