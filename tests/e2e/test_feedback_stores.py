"""Where predictions wait is killed, full, locked, gone or damaged: samples go on, and every label counts once.

Each trouble is a real one of the file or the server that the running exporter uses, and ends while it runs.
"""

import contextlib
import ctypes
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from e2e.conftest import Exporter, Start, poll
from e2e.feedback import (
    OF,
    SECONDS,
    Binary,
    comes_back,
    config_of,
    goes_down,
    holds,
    is_up,
    kept,
    model,
    refused,
    send,
    tracked,
)  # fmt: skip

FILE = "pending.sqlite"
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("profile")
    return str(folder / Binary(1, 3000).baseline(folder))


@pytest.fixture
def started(start_exporter: Start, tmp_path: Path, profile: str) -> Callable[..., Exporter]:
    """Starts an exporter whose predictions wait in `state`, again and again."""

    def start(before: Callable[[], None] | None = None) -> Exporter:
        config = config_of(model("churn", profile))
        return start_exporter(f"--storage.path={tmp_path}/state", config=config, before=before)

    return start


@pytest.fixture
def exporter(started: Callable[..., Exporter]) -> Exporter:
    return started()


# -- killed -----------------------------------------------------------------------------------------------------------


class Killed:
    """An exporter that is killed and started anew while clients send; each knows where it is now."""

    def __init__(self, start: Callable[..., Exporter]) -> None:
        self._start = start
        self.current = start()
        self.kills = 0

    def kill(self) -> None:
        self.current.stop(signal.SIGKILL)
        self.kills += 1
        self.current = self._start()

    def deliver(self, session: requests.Session, content: object) -> int:
        """Send labels until they are written down; how often they had to be sent again."""
        again = 0
        while True:
            with contextlib.suppress(requests.ConnectionError):
                answer = session.post(f"{self.current.url}/v1/labels", json=content, timeout=30)
                if answer.status_code == 200:
                    assert answer.json()["rejected"] == 0
                    return again
                assert answer.status_code == 503, answer.text
            again += 1
            time.sleep(0.02)


def test_every_label_counts_once_through_kills(started: Callable[..., Exporter]) -> None:
    """100,000 predictions; their labels in random order, some twice, with unknown ids between them."""
    draw, data = random.Random(3), Binary(3, 100_000)
    killed = Killed(started)
    send(killed.current, data, 0, 40_000)
    killed.kill()  # some of them are lost, and only the client can know
    send(killed.current, data)
    tracked(killed.current, "churn", 100_000, 3 * SECONDS)
    assert killed.current.total("mlexporter_predictions_tracked_total") == 100_000

    unknown = [f"nobody-{i}" for i in range(5000)]
    told = [{"id": name, "label": int(label)} for name, label in zip(data.ids, data.labels, strict=True)]
    told += draw.sample(told, 20_000) + [{"id": name, "label": 1} for name in unknown]
    draw.shuffle(told)
    bodies = [OF | {"labels": told[i : i + 1000]} for i in range(0, len(told), 1000)]
    moments = sorted(draw.sample(range(5, len(bodies) - 10), 4))
    delivered = threading.Semaphore(0)

    def client(mine: list[Any]) -> int:
        with requests.Session() as session:
            session.trust_env = False
            again = 0
            for body in mine:
                again += killed.deliver(session, body)
                delivered.release()
            return again

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client, bodies[i::3]) for i in range(3)]
        done = 0
        for moment in moments:
            while done < moment:
                assert delivered.acquire(timeout=60)
                done += 1
            time.sleep(draw.random() / 20)  # somewhere in the middle of a request
            killed.kill()
        again = sum(each.result(120) for each in clients)
    assert killed.kills == 5
    assert again >= 1
    exporter = killed.current
    holds(exporter, data.cells())
    assert exporter.total("mlexporter_labels_repeated_total") >= 20_000
    poll(lambda: exporter.total("mlexporter_labels_waiting", **OF) == len(unknown), SECONDS, exporter.log)
    assert exporter.total("mlexporter_predictions_pending", **OF) == 0
    assert exporter.total("mlexporter_predictions_tracked_total", **OF) == 100_000
    assert exporter.total("mlexporter_label_delay_seconds_count", **OF) == 100_000
    # and a start after an orderly end has it all, too
    assert exporter.stop()[0] == 0
    holds(started(), data.cells())


# -- too many labels --------------------------------------------------------------------------------------------------


def test_label_storm(exporter: Exporter) -> None:
    data = Binary(4, 30_000)
    send(exporter, data)
    tracked(exporter, "churn", 30_000)
    bodies = [OF | data.truth(begin, begin + 10_000) for begin in range(0, 30_000, 10_000)]
    over = threading.Event()

    def samples(seed: int) -> int:
        more = Binary(seed, 100, f"more-{seed}")
        count = 0
        with requests.Session() as session:
            while not over.is_set() or not count:
                answer = session.post(f"{exporter.url}/v1/samples", json=OF | more.columns(), timeout=30)
                assert (answer.status_code, answer.json()["accepted"]) == (200, 100)
                count += 100
        return count

    def labels(number: int) -> int:
        """Send everything once more, beginning somewhere else."""
        refusals = 0
        with requests.Session() as session:
            for body in bodies[number % 3 :] + bodies[: number % 3]:
                while (answer := session.post(f"{exporter.url}/v1/labels", json=body, timeout=60)).status_code != 200:
                    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
                    refusals += 1
                    time.sleep(0.1)
                assert answer.json() == {"accepted": 10_000, "rejected": 0, "errors": []}
        return refusals

    senders = 10  # more than may wait at once
    with ThreadPoolExecutor(senders + 2) as pool:
        writers = [pool.submit(samples, seed) for seed in (5, 6)]
        storm = [pool.submit(labels, number) for number in range(senders)]
        try:
            refusals = sum(each.result(120) for each in storm)
        finally:
            over.set()
        count = sum(each.result(60) for each in writers)
    assert refusals >= 1
    assert exporter.total("mlexporter_samples_total", **OF) == 30_000 + count
    holds(exporter, data.cells())
    assert exporter.total("mlexporter_labels_repeated_total", **OF) >= (senders - 1) * 30_000
    assert exporter.total("mlexporter_pending_dropped_total") == 0
    assert is_up(exporter)


# -- troubles of the file ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(exporter: Exporter, folder: Path) -> Iterator[None]:
    """No file can grow beyond the largest one there is: a write fails as late as when it is to be committed."""
    largest = max(path.stat().st_size for path in folder.iterdir())
    before = resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def locked(_: Exporter, folder: Path) -> Iterator[None]:
    """Another program writes, and is not through with it."""
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("trouble", [full_disk, locked])
def test_file_that_cannot_be_written(
    exporter: Exporter, tmp_path: Path, trouble: Callable[[Exporter, Path], contextlib.AbstractContextManager[None]]
) -> None:
    data = Binary(7, 20_000)
    send(exporter, data, 0, 5000)
    kept(exporter, OF | data.truth(0, 3000))
    tracked(exporter, "churn", 5000)
    with trouble(exporter, tmp_path / "state"):
        send(exporter, data, 5000, 20_000)
        refused(exporter, OF | data.truth(2000, 6000))
        goes_down(exporter)
        refused(exporter, OF | data.truth(2000, 6000))
        assert exporter.total("mlexporter_pending_queue_rows") == 15_000
        assert exporter.total("mlexporter_samples_total", **OF) == 20_000
        assert exporter.total("mlexporter_samples_rejected_total", reason="store_unavailable") >= 1
        holds(exporter, data.cells(0, 3000))
    comes_back(exporter)
    tracked(exporter, "churn", 20_000)
    for begin in range(0, 20_000, 4000):
        kept(exporter, OF | data.truth(begin, begin + 4000))
    holds(exporter, data.cells())
    assert exporter.total("mlexporter_predictions_tracked_total", **OF) == 20_000
    assert exporter.total("mlexporter_pending_dropped_total") == 0
    assert exporter.total("mlexporter_samples_total", **OF) == 20_000


def test_file_that_is_locked_at_the_start(started: Callable[..., Exporter], tmp_path: Path) -> None:
    """What was counted is read in spite of it, and goes on."""
    exporter = started()
    data = Binary(13, 4000)
    send(exporter, data)
    kept(exporter, OF | data.truth(0, 3000))
    tracked(exporter, "churn", 4000)
    exporter.stop(signal.SIGKILL)
    with locked(exporter, tmp_path / "state"):
        exporter = started()
        holds(exporter, data.cells(0, 3000))
        refused(exporter, OF | data.truth())
    kept(exporter, OF | data.truth())
    holds(exporter, data.cells())


def test_outcomes_without_an_id_that_are_refused(exporter: Exporter, tmp_path: Path) -> None:
    """Nothing tells them apart when they are sent again, so what was refused is not counted."""
    data = Binary(15, 3000)
    rows = zip(data.scores.tolist(), data.labels.tolist(), strict=True)
    content = OF | {"labels": [{"prediction": score, "label": label} for score, label in rows]}
    with locked(exporter, tmp_path / "state"):
        for _ in range(2):
            refused(exporter, content)
    comes_back(exporter)
    holds(exporter, Counter())
    kept(exporter, content)
    holds(exporter, data.cells())


def test_more_than_may_wait(start_exporter: Start, tmp_path: Path, profile: str) -> None:
    """The oldest make room: their labels find nothing and are given up in turn, which is counted."""
    config = config_of(model("churn", profile), labels={"max_rows": 1000})
    exporter = start_exporter(f"--storage.path={tmp_path}/state", config=config)
    data = Binary(14, 3000)
    send(exporter, data, step=500)

    def given_up(name: str, reason: str = "limit") -> float:
        return exporter.total(name, **OF, reason=reason)

    poll(lambda: given_up("mlexporter_predictions_expired_total") == 2000, SECONDS, exporter.log)
    poll(lambda: exporter.total("mlexporter_predictions_pending", **OF) == 1000, SECONDS, exporter.log)
    kept(exporter, OF | data.truth())
    holds(exporter, data.cells(2000, 3000))
    poll(lambda: given_up("mlexporter_labels_unmatched_total") == 1000, SECONDS, exporter.log)
    assert exporter.total("mlexporter_labels_waiting", **OF) == 1000
    assert given_up("mlexporter_predictions_expired_total") == 2000
    assert given_up("mlexporter_predictions_expired_total", "horizon") == 0
    assert exporter.total("mlexporter_predictions_pending", **OF) == 0


def test_queue_that_is_full(exporter: Exporter, tmp_path: Path) -> None:
    """What waits in memory is bounded; what is beyond it is counted, and its samples are still accepted."""
    data = Binary(8, 620_000)
    send(exporter, data, 0, 1000)
    tracked(exporter, "churn", 1000)
    with locked(exporter, tmp_path / "state"):
        send(exporter, data, 0, 620_000, 20_000)
        goes_down(exporter)
        assert exporter.total("mlexporter_pending_dropped_total") == 20_000
        assert exporter.total("mlexporter_pending_queue_rows") == 600_000
        assert exporter.total("mlexporter_samples_total", **OF) == 621_000
    comes_back(exporter)
    # the first of them were there already
    assert exporter.total("mlexporter_predictions_tracked_total", **OF) == 600_000
    kept(exporter, OF | data.truth(595_000, 605_000))
    holds(exporter, data.cells(595_000, 600_000))


def obey_permissions() -> None:
    """Before it starts: root may write in spite of permissions; take that away, for whom it is true."""
    prctl = ctypes.CDLL(None).prctl
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 or os.geteuid() != 0


def test_folder_that_is_read_only(started: Callable[..., Exporter], tmp_path: Path) -> None:
    data = Binary(9, 6000)
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o555)
    try:
        exporter = started(before=obey_permissions)
        send(exporter, data)
        refused(exporter, OF | data.truth(0, 1000))
        goes_down(exporter)
        assert exporter.total("mlexporter_pending_queue_rows") == 6000
        holds(exporter, Counter())
        assert list(folder.iterdir()) == []
    finally:
        folder.chmod(0o755)
    comes_back(exporter)
    kept(exporter, OF | data.truth())
    holds(exporter, data.cells())
    assert (folder / FILE).stat().st_size > 0


def test_file_that_is_deleted(started: Callable[..., Exporter], tmp_path: Path) -> None:
    """What waited is gone with it; what was counted goes on, and is not counted again."""
    exporter = started()
    data = Binary(10, 9000)
    send(exporter, data, 0, 6000)
    kept(exporter, OF | data.truth(0, 3000))
    tracked(exporter, "churn", 6000)
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    send(exporter, data, 6000, 9000)
    tracked(exporter, "churn", 9000)
    kept(exporter, OF | data.truth())
    expected = data.cells(0, 3000) + data.cells(6000, 9000)
    holds(exporter, expected)
    poll(lambda: exporter.total("mlexporter_labels_waiting", **OF) == 6000, SECONDS, exporter.log)
    assert "is gone" in exporter.log()
    exporter.stop(signal.SIGKILL)
    holds(started(), expected)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """Its header is well."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(2).randbytes(path.stat().st_size - 4096))


@pytest.mark.parametrize("damage", [garbage, truncated, overwritten])
def test_file_that_is_damaged(started: Callable[..., Exporter], tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """It is set aside, and a new one begun; what was counted comes back from the state that a stop has written."""
    first = started()
    data = Binary(11, 12_000)
    send(first, data, 0, 9000)
    kept(first, OF | data.truth(0, 3000))
    tracked(first, "churn", 9000)
    assert first.stop()[0] == 0
    path = tmp_path / "state" / FILE
    with contextlib.closing(sqlite3.connect(path)) as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    damage(path)
    exporter = started()
    send(exporter, data, 9000)
    kept(exporter, OF | data.truth(9000))
    poll(lambda: is_up(exporter) and exporter.total("mlexporter_pending_queue_rows") == 0, SECONDS, exporter.log)
    holds(exporter, data.cells(0, 3000) + data.cells(9000))
    assert exporter.total("mlexporter_samples_total", **OF) == 12_000
    (aside,) = path.parent.glob("*.damaged-*[0-9]")
    assert aside.stat().st_size > 0
    assert "set aside" in exporter.log()
