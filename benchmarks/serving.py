"""Over HTTP, against the running exporter: requests and values per second of its processor time, memory, start-up."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Histogram

from benchmarks.compute import baseline_of
from benchmarks.harness import Report
from mlexporter import baseline
from mlexporter.baseline import Baseline

TICKS = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 32


class Exporter:
    """A running exporter: its address, its process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, started: float) -> None:
        self.process = process
        self.port = port
        self.started = started

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_mib(self) -> float:
        """Resident memory of the process; it has no children."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            content: bytes = response.read()
        return content

    def samples(self) -> int:
        """Accepted samples, as the page has them."""
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith("mlexporter_samples_total"):
                return int(float(line.rsplit(" ", 1)[1]))
        return 0


@contextlib.contextmanager
def exporter(
    profile: Baseline,
    *options: str,
    stores: bool = False,
    prelude: str = "",
    context: ssl.SSLContext | None = None,
) -> Iterator[Exporter]:
    """An exporter with a model of this baseline, perhaps with a folder for its state; stopped by its process id.

    With a prelude, Python that is run before it, a part of it is taken out. With a context it is reached by TLS.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "baseline.json").write_bytes(baseline.encode(profile))
        config = Path(folder) / "mlexporter.yml"
        config.write_text(
            "models:\n  - {name: bench, version: '1', baseline: baseline.json}\nlimits: {max_series: 1000000}\n"
        )
        start = time.perf_counter()
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{prelude}\nfrom mlexporter.cli import main\nmain()",
                "serve",
                f"--config.file={config}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warning",
                *([f"--storage.path={folder}/state"] if stores else []),
                *options,
            ]
        )
        try:
            while True:
                with contextlib.suppress(OSError):
                    url = f"{'https' if context else 'http'}://127.0.0.1:{port}/-/ready"
                    urllib.request.urlopen(url, timeout=1, context=context).close()
                    break
                if process.poll() is not None or time.perf_counter() - start > 30:
                    raise RuntimeError("the exporter did not start")
                time.sleep(0.005)
            yield Exporter(process, port, time.perf_counter() - start)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def request_of(body: bytes) -> bytes:
    return (
        b"POST /v1/samples HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def drive(port: int, body: bytes, seconds: float, connections: int) -> str:
    """Send the same request for some seconds; wrk where it is installed, else threads of Python."""
    if shutil.which("wrk"):
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            quoted = "]==]"
            assert quoted.encode() not in body
            script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
            script.write(f"wrk.body = [==[{body.decode()}]==]\n")
            script.flush()
            subprocess.run(
                [
                    "wrk",
                    "-t1",
                    f"-c{connections}",
                    f"-d{seconds:.0f}s",
                    "-s",
                    script.name,
                    f"http://127.0.0.1:{port}/v1/samples",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        return "wrk"
    end = time.perf_counter() + seconds
    request = request_of(body)

    def client() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while time.perf_counter() < end:
                connection.sendall(request)
                connection.recv(65536)

    threads = [threading.Thread(target=client) for _ in range(min(connections, 8))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "a Python client"


def rates(columns: int, body: bytes, rows: int, connections: int, rounds: int = 5) -> tuple[float, float, str]:
    """Median samples per processor second and per second of the exporter."""
    per_cpu: list[float] = []
    per_second: list[float] = []
    client = ""
    with exporter(baseline_of(columns)) as running:
        drive(running.port, body, 1, connections)
        for _ in range(rounds):
            before, cpu, start = running.samples(), running.cpu_seconds(), time.perf_counter()
            client = drive(running.port, body, 2, connections)
            counted, elapsed = running.samples() - before, time.perf_counter() - start
            per_cpu.append(counted / (running.cpu_seconds() - cpu))
            per_second.append(counted / elapsed)
    assert counted % rows == 0
    return float(np.median(per_cpu)), float(np.median(per_second)), client


def bodies(columns: int, rows: int) -> tuple[bytes, bytes]:
    """The same samples in column form and in row form, 2 % of the values missing."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(columns, rows)).tolist()
    for column in values:
        for i in range(0, rows, 50):
            column[i] = None
    names = [f"feature_{i:03d}" for i in range(columns)]
    by_column = {"model": "bench", "version": "1", "columns": {"features": dict(zip(names, values, strict=True))}}
    by_row = {
        "model": "bench",
        "version": "1",
        "samples": [{"features": {n: v[i] for n, v in zip(names, values, strict=True)}} for i in range(rows)],
    }
    return json.dumps(by_column, separators=(",", ":")).encode(), json.dumps(by_row, separators=(",", ":")).encode()


def peer_rate() -> float:
    """Samples of 20 values per processor second that prometheus_client's histograms take in process, without HTTP."""
    registry = CollectorRegistry()
    histograms = [
        Histogram(f"peer_{i}", "peer", buckets=tuple(np.linspace(-1.3, 1.3, 9)), registry=registry) for i in range(20)
    ]
    rows = np.random.default_rng(5).normal(size=(2000, 20)).tolist()
    start = time.process_time()
    for row in rows:
        for histogram, value in zip(histograms, row, strict=True):
            histogram.observe(value)
    return len(rows) / (time.process_time() - start)


def throughput(report: Report) -> None:
    report.heading("Over HTTP, per second of the exporter's processor time (20 columns)")
    peer = peer_rate()
    one = json.dumps(
        {"model": "bench", "version": "1", "features": {f"feature_{i:03d}": round(0.1 * i - 1, 4) for i in range(20)}}
    ).encode()
    cpu, wall, client = rates(20, one, 1, CONNECTIONS)
    report.add(
        f"one sample a request ({client})",
        f"{cpu:,.0f} requests",
        "25,000",
        f"prometheus_client, observe only, no HTTP: {peer:,.0f} samples ({wall:,.0f} requests a second here)",
    )
    by_column, by_row = bodies(20, 1000)
    for what, body, budget in (("column form", by_column, 12), ("row form", by_row, 5.5)):
        cpu, wall, _ = rates(20, body, 1000, 4)
        report.add(
            f"{what}, 1,000 rows a request ({len(body) // 1000} kB)",
            f"{cpu * 20 / 1e6:.1f} M values",
            f"{budget} M",
            f"prometheus_client, observe only: {peer * 20 / 1e6:.2f} M: {cpu / peer:.0f}x",
        )


def footprint(report: Report) -> None:
    report.heading("The process")
    with exporter(baseline_of(20)) as running:
        report.add("start to ready", f"{running.started:.2f} s", "1 s")
        report.add("resident, idle", f"{running.resident_mib():.0f} MiB", "110 MiB")
    with exporter(baseline_of(100)) as running:
        by_column, _ = bodies(100, 1000)
        sizes: list[float] = []
        for _ in range(6):
            drive(running.port, by_column, 2, 4)
            running.get("/metrics")
            sizes.append(running.resident_mib())
        report.add("resident, 100 columns under load", f"{max(sizes):.0f} MiB", "150 MiB")
        counted = running.samples()
        report.add(
            "growth from the third to the last load",
            f"{sizes[-1] - sizes[2]:+.1f} MiB",
            "flat",
            f"after {counted * 100 / 1e6:,.0f} M values",
        )


def run(report: Report) -> None:
    """All of them."""
    throughput(report)
    footprint(report)
