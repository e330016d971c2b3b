"""The real program, stopped, killed at any moment, and started again on what it left."""

import itertools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import baseline, numeric
from mlexporter import baseline as baseline_files
from mlexporter.baseline import Baseline
from mlexporter.edges import Ints
from mlexporter.persistence import decode
from mlexporter.samples import Role

SECONDS = 30.0
ROUNDS = int(os.environ.get("MLEXPORTER_CRASH_ROUNDS", "8"))
CHILD = Path(__file__).with_name("exporter_child.py")
EDGES = tuple(map(float, range(11)))
ROWS = 7
WARNING = "no --storage.path: what is counted and learned is in memory, and gone after a restart"


def profile() -> Baseline:
    x = numeric("x", EDGES, np.random.default_rng(1).uniform(0, 10, 5000))
    scores = numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75] * 500, role=Role.PREDICTION)
    labels = numeric("label", (0.0, 0.5, 1.0), [0.0, 1.0] * 500, role=Role.LABEL)
    return baseline(x, scores, labels)


class Exporter:
    """The program in a folder, and who talks to it."""

    def __init__(self, folder: Path, pause: float = 30.0, limit: int | None = None) -> None:
        self.folder = folder
        self.pause = pause
        self.limit = limit
        baseline_file = folder / "baseline.json"
        if not baseline_file.exists():
            baseline_file.write_bytes(baseline_files.encode(profile()))
            (folder / "mlexporter.yml").write_text(
                "models: [{name: m, version: '1', task: binary, baseline: baseline.json}]\nwindows: [1h, 24h]\n"
            )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.process: subprocess.Popen[bytes]

    def start(self, *options: str) -> None:
        command = [
            sys.executable, str(CHILD), str(self.pause), f"--config.file={self.folder / 'mlexporter.yml'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.format=json",
            *(options or [f"--storage.path={self.folder / 'state'}"]),
        ]  # fmt: skip

        def limit() -> None:
            if self.limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))

        # a pipe: a limit on files is none on it
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=limit)
        self.lines: list[dict[str, Any]] = []
        threading.Thread(target=self._read_log, args=(self.process,), daemon=True).start()

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.lines.append(json.loads(line) if line.startswith(b"{") else {"msg": line.decode()})

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line["msg"] == message]

    def ready(self) -> None:
        until(lambda: self.get("/-/ready") or self.process.poll() is not None, "ready")
        assert self.process.poll() is None, self.lines

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=SECONDS) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def post(self, samples: list[dict[str, Any]], version: str = "1") -> bool:
        """Whether they were accepted, all of them."""
        content = json.dumps({"model": "m", "version": version, "samples": samples}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/samples", content, headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return bool(json.loads(answer.read())["accepted"] == len(samples))

    def series(self, prefix: str) -> dict[tuple[str, ...], float]:
        """Values of the metrics that begin so, by name and label values."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name.startswith(f"mlexporter_{prefix}")
        }

    def one(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == f"mlexporter_{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


Begin = Callable[..., Exporter]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    begun: list[Exporter] = []

    def begin(*options: str, **settings: Any) -> Exporter:
        exporter = Exporter(tmp_path, **settings)
        begun.append(exporter)
        exporter.start(*options)
        return exporter

    yield begin
    for exporter in begun:
        if exporter.process.poll() is None:
            exporter.kill()


def test_what_is_written_down_after_a_reload_is_of_the_new_configuration(begin: Begin, tmp_path: Path) -> None:
    """After a crash there is no word of anything that would not fit, and what came since is there."""
    exporter = begin(pause=0.2)
    exporter.ready()
    assert exporter.post(labelled(500, 1))
    other = baseline(numeric("x", EDGES[::2], np.random.default_rng(2).uniform(0, 10, 5000)), *profile().columns[1:])
    (tmp_path / "baseline.json").write_bytes(baseline_files.encode(other))
    exporter.process.send_signal(signal.SIGHUP)
    until(lambda: exporter.said("configuration reloaded"), "reloaded")
    assert [line["why"] for line in exporter.said("starts afresh")] == ["its baseline changed"]
    assert sum(exporter.series("column_bin_total").values()) == 0
    assert exporter.one("samples_total") == 500
    assert exporter.post(labelled(300, 2))

    def written() -> bool:
        (version,) = decode((tmp_path / "state" / "state.bin").read_bytes()).versions
        return version.baseline == other.hash and version.samples == 800

    until(written, "written")
    exporter.kill()
    exporter.start()
    exporter.ready()
    assert exporter.said("state restored")
    assert not exporter.said("starts afresh")
    assert exporter.one("column_window_samples", column="x", window="1h") == 300


def labelled(count: int, seed: int) -> list[dict[str, Any]]:
    source = random.Random(seed)
    return [
        {"features": {"x": source.uniform(0, 10)}, "prediction": source.random(), "label": source.randrange(2),
         "latency_seconds": 0.01, "error": "timeout" if source.random() < 0.1 else None}
        for _ in range(count)
    ]  # fmt: skip


GROWING = (
    "samples_total", "column_bin_total", "column_value_count", "inference_", "labels_total", "outcomes_total",
    "score_bin_total", "values_",
)  # fmt: skip


@pytest.mark.parametrize("server", ["granian", "waitress"])
def test_a_stop_loses_nothing(begin: Begin, tmp_path: Path, server: str) -> None:
    """Labels, a version that was rolled out and all: what is scraped after it is what was scraped before it."""
    options = (f"--storage.path={tmp_path / 'state'}", f"--web.server={server}")
    exporter = begin(*options)
    exporter.ready()
    assert exporter.post(labelled(500, 1))
    assert exporter.post(labelled(300, 2), version="2")
    until(lambda: exporter.one("labels_total", version="2") == 300, "labels are counted")
    before = {name: exporter.series(name) for name in GROWING}
    windows = exporter.series("column_window_samples")
    assert before["samples_total"] == {
        ("mlexporter_samples_total", "m", "1"): 500.0,
        ("mlexporter_samples_total", "m", "2"): 300.0,
    }
    for _ in range(2):
        assert exporter.stop() == 0
        exporter.start(*options)
        exporter.ready()
        assert {name: exporter.series(name) for name in GROWING} == before
        assert exporter.series("column_window_samples") == windows
        assert exporter.one("state_restored") == 1.0
        until(lambda: exporter.said("state restored"), "it is told")
        (restored,) = exporter.said("state restored")
        assert (restored["clean"], restored["versions"]) == (True, 2)


def test_a_stop_under_load_counts_what_was_acknowledged(begin: Begin) -> None:
    exporter = begin()
    exporter.ready()
    acknowledged: list[int] = []
    unsure: list[int] = []

    def send(seed: int) -> None:
        for number in itertools.count():
            try:
                acknowledged.append(ROWS * exporter.post(labelled(ROWS, 1000 * seed + number)))
            except (urllib.error.URLError, OSError) as error:
                # who could not even connect knows that nothing was taken
                refused = isinstance(getattr(error, "reason", error), ConnectionRefusedError)
                unsure.append(0 if refused else ROWS)
                return

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 100, "load")
    assert exporter.stop() == 0
    for thread in threads:
        thread.join(SECONDS)
    exporter.start()
    exporter.ready()
    for name in ("samples_total", "labels_total"):
        found = exporter.one(name)
        assert found is not None
        assert sum(acknowledged) <= found <= sum(acknowledged) + sum(unsure), name


def test_killed_at_any_moment(begin: Begin) -> None:
    """What comes back is what had been acknowledged at some moment, no earlier than the last write that was told of.

    The n-th request brings `ROWS` values of bin n mod 10, so counts per bin tell which requests are in a state.
    """
    source = random.Random(7)
    folder = None
    base: Ints = np.zeros(10, np.int64)
    requests = itertools.count()
    ages: list[float] = []
    for number in range(ROUNDS):
        exporter = begin(pause=0.1)
        folder = exporter.folder / "state"
        if number % 4 == 3:  # while it starts
            time.sleep(source.uniform(0, 1))
            exporter.kill()
            assert bins_of(folder)[0].tolist() == base.tolist()
            continue
        exporter.ready()
        assert exporter.one("state_damaged") == 0.0
        assert exporter.one("samples_total") == 0.0
        if base.sum():
            assert exporter.one("column_window_samples", column="x", window="24h") == base.sum()
        sent, at_write = load(exporter, requests, source.uniform(0.05, 0.8))
        killed = time.time()
        found, when = bins_of(folder)
        ages.append(killed - when)
        prefixes = [
            base + ROWS * np.bincount([n % 10 for n in sent[:end]], minlength=10) for end in range(len(sent) + 1)
        ]
        (taken,) = [end for end, prefix in enumerate(prefixes) if prefix.tolist() == found.tolist()][-1:]
        assert taken >= at_write
        base = found
    assert base.sum() > 0
    print(f"{ROUNDS} rounds, {base.sum()} values kept, oldest state {max(ages):.2f} s before the kill")  # noqa: T201
    exporter = begin()
    exporter.ready()
    assert exporter.one("column_window_samples", column="x", window="24h") == base.sum()
    assert not list(exporter.folder.glob("state/state.bin.damaged*"))


def load(exporter: Exporter, requests: Iterator[int], seconds: float) -> tuple[list[int], int]:
    """Send requests one after the other, and kill the exporter in the middle.

    Returns:
        What was sent, the last of it perhaps not acknowledged; and how many were acknowledged before the last write
        that was told of.

    """
    sent: list[int] = []
    marks: list[tuple[float, int]] = []
    killer = threading.Timer(seconds, exporter.kill)
    killer.start()
    acknowledged = 0
    at_write = 0
    written = 0.0
    while True:
        number = next(requests)
        sent.append(number)
        try:
            assert exporter.post([{"features": {"x": number % 10 + 0.5}}] * ROWS)
            acknowledged += 1
            marks.append((time.time(), acknowledged))
            if acknowledged % 10 == 0:
                last = exporter.one("state_last_write_timestamp_seconds") or 0.0
                if last > written:
                    # it was copied after the write before it was told of
                    at_write = max((count for at, count in marks if at <= written), default=0)
                    written = last
        except (urllib.error.URLError, OSError):
            killer.join()
            return sent, at_write


def bins_of(folder: Path) -> tuple[Ints, float]:
    """Counts of the values in the longest window of the state on disk, and when it was copied."""
    file = folder / "state.bin"
    if not file.exists():
        return np.zeros(10, np.int64), time.time()
    state = decode(file.read_bytes())
    (version,) = state.versions
    total = version.windows["24h"].bins.sum(axis=0)
    columns = profile().columns
    begin = sum(len(column.counts) for column in columns[: [column.name for column in columns].index("x")])
    return total[begin + 1 : begin + 11], state.time


def test_the_second_one_in_a_folder_says_so_and_goes(begin: Begin) -> None:
    first = begin()
    first.ready()
    second = begin()
    assert second.process.wait(SECONDS) == 1
    until(lambda: second.lines, "what it says")
    assert second.lines == [
        {"msg": f"mlexporter: {first.folder}/state is in use by another process; give each its own --storage.path\n"}
    ]
    assert first.get("/-/ready")


def test_where_nothing_can_be_written_it_serves_and_tells(begin: Begin) -> None:
    """Files may not grow at all, as on a full disk."""
    exporter = begin(limit=0, pause=0.05)
    exporter.ready()
    assert exporter.post([{"features": {"x": 0.5}}] * ROWS)
    until(lambda: (exporter.one("state_write_errors_total") or 0) >= 3, "errors are counted")
    assert exporter.one("samples_total") == ROWS
    assert exporter.one("state_last_write_timestamp_seconds") is None
    assert len(exporter.said("state cannot be written")) == 1
    assert exporter.stop() == 0


def test_on_a_damaged_file_it_starts_and_tells(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.bin").write_bytes(b"mlexporter-state 1\nand no more")
    exporter = begin()
    exporter.ready()
    until(lambda: exporter.said("damaged state is set aside"), "it is told")
    (said,) = exporter.said("damaged state is set aside")
    assert Path(said["file"]).exists()
    assert (exporter.one("state_damaged"), exporter.one("state_restored")) == (1.0, 0.0)


def test_without_a_folder_it_warns(begin: Begin) -> None:
    exporter = begin("--log.level=info")
    exporter.ready()
    until(
        lambda: exporter.said(WARNING),
        "it is told",
    )
    (said,) = exporter.said(WARNING)
    assert said["level"] == "warning"
    assert exporter.series("state_") == {}
    assert exporter.stop() == 0
