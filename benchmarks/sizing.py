"""What a pod of the exporter needs, by columns and by traffic: the figures of docs/kubernetes.md#sizing.

An exporter of one model version of numeric columns, with two windows, without outcomes, with its state on disk.
"""

import json
import re
import tempfile
import time
from pathlib import Path

from benchmarks.compute import baseline_of
from benchmarks.harness import Report
from benchmarks.serving import CONNECTIONS, Exporter, bodies, drive, exporter

COLUMNS = (20, 100, 300, 600)
ROWS = 1000
SECONDS = 2
TOUCHED = "import numpy; numpy.zeros = lambda shape, dtype=float: numpy.full(shape, 0, dtype)"
"""Windows take their memory as they fill, the longest for a day; so all of theirs is taken at the start."""


def peak_mib(running: Exporter) -> float:
    """The most that has been resident, in MiB, scrapes and requests included."""
    status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(kilobytes) / 1024


def series(running: Exporter) -> int:
    """The series that the model may take on the page."""
    (value,) = re.findall(r"^mlexporter_series (\S+)$", running.get("/metrics").decode(), flags=re.MULTILINE)
    return int(float(value))


def loaded(running: Exporter, body: bytes, connections: int, rounds: int) -> tuple[float, float]:
    """Samples a second, and samples a second of the exporter's processor time, with a scrape after each round."""
    drive(running.port, body, 1, connections)
    counted, cpu, started = running.samples(), running.cpu_seconds(), time.perf_counter()
    for _ in range(rounds):
        drive(running.port, body, SECONDS, connections)
        running.get("/metrics")
    counted = running.samples() - counted
    return counted / (time.perf_counter() - started), counted / (running.cpu_seconds() - cpu)


def by_columns(report: Report) -> None:
    report.heading(f"By numeric columns, requests of {ROWS:,} rows in column form, as fast as it takes them")
    for columns in COLUMNS:
        by_column, _ = bodies(columns, ROWS)
        with tempfile.TemporaryDirectory() as folder:
            with exporter(baseline_of(columns), f"--storage.path={folder}", prelude=TOUCHED) as running:
                idle = running.resident_mib()
                wall, cpu = loaded(running, by_column, 4, 4)
                peak, taken = peak_mib(running), series(running)
            disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        report.add(f"{columns} columns: series", f"{taken:,}")
        report.add(f"{columns} columns: resident, idle", f"{idle:.0f} MiB")
        report.add(f"{columns} columns: resident, highest under load", f"{peak:.0f} MiB")
        report.add(f"{columns} columns: state on disk", f"{disk / 1e6:.1f} MB")
        report.add(
            f"{columns} columns: processor", f"{cpu * columns / 1e6:.1f} M values", peer=f"{wall:,.0f} samples/s"
        )


def by_traffic(report: Report) -> None:
    report.heading("By traffic, 20 columns: cores that 10,000 samples a second take, and memory")
    one = json.dumps(
        {"model": "bench", "version": "1", "features": {f"feature_{i:03d}": round(0.1 * i - 1, 4) for i in range(20)}}
    )
    by_column, by_row = bodies(20, ROWS)
    forms = (
        ("a sample a request", one.encode(), CONNECTIONS),
        ("in columns, 1,000 rows a request", by_column, 4),
        ("in rows, 1,000 rows a request", by_row, 4),
    )
    for what, body, connections in forms:
        with exporter(baseline_of(20), stores=True, prelude=TOUCHED) as running:
            wall, cpu = loaded(running, body, connections, 4)
            after = peak_mib(running)
            loaded(running, body, connections, 4)
            more = peak_mib(running) - after
        report.add(f"{what}: cores", f"{10_000 / cpu:.3f}", peer=f"{cpu:,.0f} samples a second of processor time")
        report.add(f"{what}: highest", f"{after:.0f} MiB", peer=f"{more:+.1f} MiB after twice as many, {wall:,.0f}/s")


def run(report: Report) -> None:
    """Both."""
    by_columns(report)
    by_traffic(report)
