"""Replicas share predictions in a real Redis, which is killed, hangs and comes back: every label counts once."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.conftest import Exporter, Start, free_port, poll
from e2e.feedback import (
    OF,
    SECONDS,
    Binary,
    Cells,
    comes_back,
    config_of,
    goes_down,
    kept,
    model,
    outcomes,
    refused,
    send,
)  # fmt: skip


class Redis:
    """A redis-server that keeps what it was told through a kill."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder),
            "--appendonly", "yes", "--appendfsync", "always",
        ]  # fmt: skip
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    try:
        yield server
    finally:
        server.kill()


def test_redis_that_replicas_share_gone_and_back(start_exporter: Start, redis: Redis, tmp_path: Path) -> None:
    """Predictions come to one replica and labels to the other; together they count each once."""
    config = config_of(model("churn", Binary(1, 3000).baseline(tmp_path)), labels={"store": redis.url})
    replicas = [start_exporter(config=config) for _ in range(2)]
    data = Binary(12, 16_000)

    def counted() -> Cells:
        total: Cells = Counter()
        for replica in replicas:
            total.update(outcomes(replica.scrape(), "churn", net=False))
        return total

    def both(name: str) -> float:
        return sum(replica.total(name, **OF) for replica in replicas)

    def written(rows: int) -> None:
        poll(lambda: both("mlexporter_predictions_tracked_total") == rows, SECONDS, replicas[0].log)

    def told(replica: Exporter) -> None:
        for begin in range(0, 16_000, 1000):
            kept(replica, OF | data.truth(begin, begin + 1000))

    send(replicas[0], data, 0, 4000)
    send(replicas[1], data, 4000, 8000)
    written(8000)
    kept(replicas[1], OF | data.truth(0, 3000))
    kept(replicas[0], OF | data.truth(4000, 6000))
    assert counted() == data.cells(0, 3000) + data.cells(4000, 6000)
    redis.kill()
    for number, replica in enumerate(replicas):
        send(replica, data, 8000 + 4000 * number, 12_000 + 4000 * number)
        refused(replica, OF | data.truth(0, 10_000))
        goes_down(replica)
        assert replica.total("mlexporter_pending_queue_rows") == 4000
        assert replica.total("mlexporter_samples_total", **OF) == 8000
    assert counted() == data.cells(0, 3000) + data.cells(4000, 6000)
    redis.start()
    for replica in replicas:
        comes_back(replica)
    written(16_000)
    # labels are joined there, and the answer does not arrive
    redis.process.send_signal(signal.SIGSTOP)
    try:
        refused(replicas[1], OF | data.truth(6000, 8000))
        goes_down(replicas[1])
    finally:
        redis.process.send_signal(signal.SIGCONT)
    comes_back(replicas[1])
    # killed once more, in the middle of labels that both are told: what no answer came for is sent again
    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(told, replica) for replica in replicas]
        poll(lambda: counted().total() > 7000, SECONDS)
        redis.kill()
        for replica in replicas:
            goes_down(replica)
        redis.start()
        for client in clients:
            client.result(60)
    for replica in replicas:
        comes_back(replica)
    assert counted() == data.cells()
    assert both("mlexporter_labels_total") == 16_000
    assert both("mlexporter_labels_corrected_total") == 0
    assert both("mlexporter_labels_repeated_total") >= 16_000
    assert both("mlexporter_pending_dropped_total") == 0
    for replica in replicas:
        poll(lambda: replica.total("mlexporter_predictions_pending", **OF) == 0, SECONDS)  # noqa: B023
