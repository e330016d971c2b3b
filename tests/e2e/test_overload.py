"""Far more than the exporter can take: what it acknowledges is what it counts, and who asks for a page gets it."""

import json
import resource
import socket
import time
from pathlib import Path

import pytest

from benchmarks.feedback import judged_baseline
from benchmarks.overload import COLUMNS, Sender, Watch, offer
from e2e.conftest import Exporter, Start, poll
from mlexporter.baseline import encode
from mlexporter.connections import MOST

CONNECTIONS = 128
SECONDS = 4.0


def bench(start_exporter: Start, folder: Path) -> Exporter:
    (folder / "bench.json").write_bytes(encode(judged_baseline(COLUMNS)))
    return start_exporter(config={"models": [{"name": "bench", "version": "1", "baseline": "bench.json"}]})


def test_what_is_acknowledged_is_counted_and_nothing_else(start_exporter: Start, tmp_path: Path) -> None:
    exporter = bench(start_exporter, tmp_path)
    watches = [Watch(exporter.port, path, 0.05) for path in ("/-/healthy", "/-/ready", "/metrics")]
    try:
        told = offer(exporter.port, 5000, SECONDS, CONNECTIONS)
    finally:
        for watch in watches:
            watch.end()
    for watch in watches:
        assert watch.failed == 0
        assert len(watch.seconds) >= 3
        assert max(watch.seconds) < 10  # not stuck; how long it takes is measured by benchmarks/overload.py
    by_status = {status for _, status in told.answers}
    assert by_status == {200, 503}, "too fast a machine for this test"
    assert told.lost == 0
    refused = sum(number for (_, status), number in told.answers.items() if status == 503)
    assert exporter.total("mlexporter_samples_rejected_total", reason="overloaded") == refused
    assert exporter.total("mlexporter_samples_rejected_total") == refused
    assert exporter.total("mlexporter_samples_total") == told.rows["samples"] > 0

    def labels() -> float:
        # those whose samples were refused wait
        names = ("mlexporter_labels_total", "mlexporter_labels_waiting", "mlexporter_labels_unmatched_total")
        return sum(exporter.total(name) for name in names)

    poll(lambda: labels() == told.rows["labels"] > 0, 15, lambda: f"{labels()} of {told.rows['labels']}")
    # and it is through with it
    calm = Sender(exporter.port, None, 1, 99).run(0.5)
    assert {status for _, status in calm.answers} == {200}


def test_a_few_clients_that_do_their_best_are_not_refused(start_exporter: Start, tmp_path: Path) -> None:
    exporter = bench(start_exporter, tmp_path)
    told = Sender(exporter.port, None, 6, 1).run(2.0)
    assert {status for _, status in told.answers} == {200}
    assert exporter.total("mlexporter_samples_total") == told.rows["samples"] > 0


def test_clients_that_stall_make_nobody_late(start_exporter: Start, tmp_path: Path) -> None:
    """They owe data, and look to the kernel as those do that wait for an answer."""
    exporter = bench(start_exporter, tmp_path)
    stalled = [exporter.connect() for _ in range(50)]
    try:
        for connection in stalled:
            connection.sendall(b"POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-")
        body = json.dumps({"model": "bench", "version": "1", "features": {"feature_000": 1}}).encode()
        end = time.monotonic() + 2.2
        while time.monotonic() < end:
            assert exporter.post(body).json().get("accepted") == 1
            time.sleep(0.05)
    finally:
        for connection in stalled:
            connection.close()


def test_a_page_that_nobody_reads_holds_up_nobody(start_exporter: Start, tmp_path: Path) -> None:
    exporter = bench(start_exporter, tmp_path)
    lazy = []
    try:
        for _ in range(30):  # more than there are threads
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", exporter.port))
            lazy.append(connection)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        for connection in lazy:
            assert connection.recv(1) == b"H"  # and no more for now
        for path in ("/-/healthy", "/metrics", "/api/v1/status") * 5:
            start = time.monotonic()
            assert exporter.get(path).status_code == 200
            assert time.monotonic() - start < 5
        assert Sender(exporter.port, None, 2, 1).run(0.5).rows["samples"] > 0
    finally:
        for connection in lazy:
            connection.close()


def test_connections_that_say_nothing_make_room(start_exporter: Start, tmp_path: Path) -> None:
    """Twice as many as the server takes at a time."""
    exporter = bench(start_exporter, tmp_path)
    raise_own_limit(3 * MOST)
    opened: list[socket.socket] = []
    try:
        for number in range(2 * MOST):
            opened.append(exporter.connect())
            if number % 100 == 0:
                opened[-1].sendall(b"POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-")
        poll(lambda: answers(exporter), 20)
        assert exporter.post({"model": "bench", "version": "1", "features": {}}).json()["accepted"] == 1
    finally:
        for connection in opened:
            connection.close()
    assert "closed connections that were silent" in exporter.log()


def answers(exporter: Exporter) -> bool:
    """Whether a probe on a new connection is answered, and not late."""
    try:
        with exporter.connect(2) as connection:
            connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 200"
    except TimeoutError:
        return False


def raise_own_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        if hard < files:
            pytest.skip(f"no more than {hard} files may be open here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
