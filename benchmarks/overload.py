"""Offered load at five times the capacity: probes, scrapes, and whether what was acknowledged is what was counted."""

import contextlib
import json
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.feedback import judged_baseline
from benchmarks.harness import Report
from benchmarks.serving import Exporter, exporter

COLUMNS = 20
ROWS = 100
SECONDS = 60.0
TIMES = 5
SENDERS = 2
CONNECTIONS = 256
LABELS_EACH = 10
"""One request in so many has labels; the others have samples."""
_CAPACITY_SECONDS = 5.0
_CAPACITY_CONNECTIONS = 4
_BODIES = 50
_PATIENCE_SECONDS = 30.0
# labels whose samples were refused wait; how many is noted each three seconds
_SETTLED_SECONDS = 5.0
_PROBE_PAUSE_SECONDS = 0.02
_SCRAPE_PAUSE_SECONDS = 1.0
_ONSET_SECONDS = 1.0
"""In which the connections are made, and the first requests of all come at once."""
_ROUND = b"@@@@@@@@"
"""Stands in each id; replaced with the number of the round, so that no id comes twice."""
_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


@dataclass
class Told:
    """What a sender was told: answers by route and status, rows of the accepted ones, seconds by status.

    Of what it offered; `unsent` was due while all connections waited, `lost` had no answer.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    offered: int = 0
    unsent: int = 0
    lost: int = 0

    def add(self, other: "Told") -> None:
        """Add what another one was told."""
        self.answers += other.answers
        self.rows += other.rows
        for status, seconds in other.seconds.items():
            self.seconds.setdefault(status, []).extend(seconds)
        self.offered += other.offered
        self.unsent += other.unsent
        self.lost += other.lost


def requests_of(seed: int) -> list[tuple[str, bytes]]:
    """Requests of samples with ids, and of labels for them, in the order in which they are sent."""
    rng = np.random.default_rng(seed)
    made: list[tuple[str, bytes]] = []
    for number in range(_BODIES):
        ids = [f"{seed}-{_ROUND.decode()}-{number}-{row}" for row in range(ROWS)]
        values = rng.normal(size=(COLUMNS, ROWS)).round(4).tolist()
        rows = [
            {
                "id": name,
                "features": {f"feature_{i:03d}": values[i][row] for i in range(COLUMNS)},
                "prediction": float(rng.random()),
            }
            for row, name in enumerate(ids)
        ]
        made.append(_request("samples", {"samples": rows}))
        if number % LABELS_EACH == LABELS_EACH - 1:
            made.append(_request("labels", {"columns": {"id": ids, "label": rng.integers(0, 2, ROWS).tolist()}}))
    return made


def _request(route: str, content: dict[str, object]) -> tuple[str, bytes]:
    body = json.dumps({"model": "bench", "version": "1", **content}, separators=(",", ":")).encode()
    head = f"POST /v1/{route} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return route, head.encode() + b"\r\n\r\n" + body


class _Line:
    """A connection: what is still to be sent on it, and what came back."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.route = ""
        self.left = memoryview(b"")
        self.came = b""
        self.begun = 0.0


class Sender:
    """Sends requests at a rate, whether or not earlier ones were answered, over a bounded number of connections.

    Args:
        port: of the exporter.
        rate: requests a second; None sends the next one on each answer.
        connections: those that are due while all of these wait for an answer are not sent, and counted.
        seed: of the samples.

    """

    def __init__(self, port: int, rate: float | None, connections: int, seed: int) -> None:
        self._port = port
        self._rate = rate
        self._requests = requests_of(seed)
        self._selector = selectors.DefaultSelector()
        self._idle = [_Line(port) for _ in range(connections)]
        self._busy: set[_Line] = set()
        self.told = Told()

    def run(self, seconds: float) -> Told:
        """Send for so long, then wait for the last answers."""
        start = time.perf_counter()
        due = 0
        while (now := time.perf_counter()) - start < seconds:
            due = int((now - start) * self._rate) if self._rate is not None else self.told.offered + len(self._idle)
            while self.told.offered + self.told.unsent < due:
                if not self._idle:
                    self.told.unsent = due - self.told.offered
                    break
                self._begin(self._idle.pop())
            self._serve(0.002)
        while self._busy and time.perf_counter() - start < seconds + _PATIENCE_SECONDS:
            self._serve(0.1)
        self.told.lost += len(self._busy)
        for line in (*self._idle, *self._busy):
            line.socket.close()
        self._selector.close()
        return self.told

    def _begin(self, line: _Line) -> None:
        number, which = divmod(self.told.offered, len(self._requests))
        line.route, request = self._requests[which]
        request = request.replace(_ROUND, b"%08d" % number)
        line.left, line.came, line.begun = memoryview(request), b"", time.perf_counter()
        self.told.offered += 1
        self._busy.add(line)
        self._selector.register(line.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, line)
        self._write(line)

    def _serve(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            line: _Line = key.data
            if events & selectors.EVENT_READ:
                self._read(line)
            elif line.left:
                self._write(line)

    def _write(self, line: _Line) -> None:
        try:
            while line.left:
                line.left = line.left[line.socket.send(line.left) :]
        except BlockingIOError:
            return
        except OSError:
            line.left = memoryview(b"")  # it was answered and closed before all of it was read: the answer is there
        self._selector.modify(line.socket, selectors.EVENT_READ, line)

    def _read(self, line: _Line) -> None:
        try:
            part = line.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        line.came += part
        head, found, body = line.came.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is not None and len(body) >= int(length[1]):
            self._answered(line, int(head[9:12]), body)
            self._end(line, keep=b"connection: close" not in head.lower() and not line.left)
        elif not part:
            self.told.lost += 1
            self._end(line, keep=False)

    def _answered(self, line: _Line, status: int, body: bytes) -> None:
        self.told.answers[line.route, status] += 1
        self.told.seconds.setdefault(status, []).append(time.perf_counter() - line.begun)
        if status == 200:
            self.told.rows[line.route] += json.loads(body)["accepted"]

    def _end(self, line: _Line, *, keep: bool) -> None:
        self._selector.unregister(line.socket)
        self._busy.discard(line)
        if not keep:
            line.socket.close()
            line = _Line(self._port)
        self._idle.append(line)


def _sender(port: int, rate: float, connections: int, seed: int, seconds: float, to: Connection) -> None:
    to.send(Sender(port, rate, connections, seed).run(seconds))


class Watch:
    """Asks for a page again and again, each time on a new connection, as the kubelet does, and notes the time."""

    def __init__(self, port: int, path: str, pause: float) -> None:
        self.seconds: list[float] = []
        self.asked_at: list[float] = []
        self.failed = 0
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            start = time.perf_counter()
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
                    connection.sendall(self._request)
                    answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
            except OSError:
                answer = b""
            self.failed += not answer.startswith(b"HTTP/1.1 200")
            self.asked_at.append(start)
            self.seconds.append(time.perf_counter() - start)

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()


def _answer_probes(listener: socket.socket) -> None:
    """A server that does nothing else than to answer probes."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@contextlib.contextmanager
def peer() -> Iterator[int]:
    """The port of a server that has no load: what a probe of it takes is what the machine takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=_answer_probes, args=(listener,), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


def capacity(port: int) -> float:
    """Requests a second that are answered with 200 while as many are sent as are answered."""
    start = time.perf_counter()
    told = Sender(port, None, _CAPACITY_CONNECTIONS, 1).run(_CAPACITY_SECONDS)
    return sum(n for (_, status), n in told.answers.items() if status == 200) / (time.perf_counter() - start)


def offer(port: int, rate: float, seconds: float, connections: int, senders: int = SENDERS) -> Told:
    """What senders were told, each a process of its own, that together send at this rate."""
    context = multiprocessing.get_context("fork")
    processes, ends = [], []
    for number in range(senders):
        end, to = context.Pipe(duplex=False)
        arguments = (port, rate / senders, connections // senders, 10 + number, seconds, to)
        processes.append(context.Process(target=_sender, args=arguments))
        ends.append(end)
    for process in processes:
        process.start()
    told = Told()
    for end, process in zip(ends, processes, strict=True):
        told.add(end.recv())
        process.join()
    return told


def counts(running: Exporter) -> tuple[int, int]:
    """Samples and labels that were counted, once what waits has been looked at."""
    time.sleep(_SETTLED_SECONDS)
    labels = ("mlexporter_labels_total", "mlexporter_labels_waiting", "mlexporter_labels_unmatched_total")
    return total(running, "mlexporter_samples_total"), sum(total(running, name) for name in labels)


def total(running: Exporter, name: str) -> int:
    """The sum of all series of that name."""
    lines = running.get("/metrics").decode().splitlines()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if re.match(rf"{name}[{{ ]", line))


def _percentiles(seconds: list[float]) -> Iterator[tuple[str, float]]:
    for name, quantile in (("p50", 50), ("p99", 99), ("max", 100)):
        yield name, float(np.percentile(seconds or [float("nan")], quantile))


def run(report: Report, seconds: float = SECONDS, connections: int = CONNECTIONS) -> None:
    """The whole of it: what fits, then five times that."""
    report.heading(f"Overload: {TIMES} times what fits, for {seconds:.0f} s, over {connections} connections")
    with exporter(judged_baseline(COLUMNS)) as running, peer() as idle:
        found = capacity(running.port)
        report.add("capacity", f"{found:,.0f} requests/s", "", f"of {ROWS} rows, one in {LABELS_EACH + 1} of labels")
        before = counts(running)
        probes = Watch(running.port, "/-/healthy", _PROBE_PAUSE_SECONDS)
        peers = Watch(idle, "/-/healthy", _PROBE_PAUSE_SECONDS)
        scrapes = Watch(running.port, "/metrics", _SCRAPE_PAUSE_SECONDS)
        cpu = running.cpu_seconds()
        start = time.perf_counter()
        told = offer(running.port, TIMES * found, seconds, connections)
        elapsed, cpu = time.perf_counter() - start, running.cpu_seconds() - cpu
        for watch in (probes, peers, scrapes):
            watch.end()
        _report(report, told, elapsed, found)
        report.add("load of the machine", f"{os.getloadavg()[0]:.1f}", "", f"{os.cpu_count()} cores")
        report.add("processor time of the exporter", f"{cpu / elapsed:.0%}", "", "of one core")
        for (name, value), (_, machine) in zip(_percentiles(probes.seconds), _percentiles(peers.seconds), strict=True):
            beside = f"a server without load: {1000 * machine:.1f} ms"
            report.add(f"probe, {name}", f"{1000 * value:.1f} ms", "100 ms", beside)
        largest = int(np.argmax(probes.seconds))
        later = [took for took, at in zip(probes.seconds, probes.asked_at, strict=True) if at > start + _ONSET_SECONDS]
        report.add(
            f"probe, max after the first {_ONSET_SECONDS:g} s",
            f"{1000 * max(later, default=float('nan')):.1f} ms",
            "100 ms",
            f"the largest of all came after {probes.asked_at[largest] - start:.1f} s",
        )
        for name, value in _percentiles(scrapes.seconds):
            report.add(f"scrape, {name}", f"{1000 * value:.1f} ms", "1,000 ms", f"{len(scrapes.seconds)} scrapes")
        report.add("probes and scrapes not answered with 200", f"{probes.failed + scrapes.failed}", "0")
        report.add("resident", f"{running.resident_mib():.0f} MiB", "150 MiB")
        for what, earlier, now in zip(("samples", "labels"), before, counts(running), strict=True):
            counted = now - earlier
            verdict = "equal" if counted == told.rows[what] else "NOT EQUAL"
            report.add(f"{what} counted", f"{counted:,}", "as acknowledged", f"{told.rows[what]:,}: {verdict}")


def _report(report: Report, told: Told, elapsed: float, found: float) -> None:
    answered = sum(told.answers.values())
    by_status = Counter[int]()
    for (_, status), number in told.answers.items():
        by_status[status] += number
    report.add(
        "offered",
        f"{told.offered / elapsed:,.0f} requests/s",
        "",
        f"{told.offered / elapsed / found:.1f} times what fits; {told.unsent:,} more found all connections busy",
    )
    for status, number in sorted(by_status.items()):
        middle = statistics.median(told.seconds[status])
        latest = float(np.percentile(told.seconds[status], 99))
        report.add(
            f"answered {status}",
            f"{number / elapsed:,.0f} requests/s",
            "",
            f"{number / answered:.1%}; p50 {1000 * middle:.1f} ms, p99 {1000 * latest:.1f} ms",
        )
    report.add("requests without an answer", f"{told.lost}", "0")
