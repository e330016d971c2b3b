"""`python -m benchmarks.soak --minutes=60`: mixed traffic for a long time, and whether anything grows, drifts or fails.

The exporter runs as users run it, with a storage path; only its ticks are noted in a file. Samples, labels and pages
are of all kinds, good and bad; at the end every counter has to be what was acknowledged.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.feedback import judged_baseline
from benchmarks.serving import Exporter, exporter
from benchmarks.soak_traffic import COLUMNS, Account, Traffic, dawdle, scrape
from mlexporter import baseline
from mlexporter.persistence import decode

TICK_SECONDS = 15.0
STATE_SECONDS = 30.0
WARM_UP = 1 / 3
"""Of the time: caches fill, threads are made, the first predictions are given up."""
ROOM_MIB = 4.0
"""By which memory may rise over the rest of the time; what a leak of a request's size would need is far more."""
_CONFIG = """
models:
  - {{name: bench, version: '1', task: binary, baseline: {folder}/baseline.json, labels: {{horizon: 2m}}}}
discovery: {{enabled: true, learn_samples: 200, learn_period: 1m, max_models: 1}}
limits: {{max_versions: 2}}
"""
# The log and the ticks go to files; the rest is as it is.
_PRELUDE = """
import os, time
from mlexporter import persistence, serving
from mlexporter.store import Store
os.dup2(os.open({folder!r} + "/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
persistence.SECONDS = {state}
serving.Ticker.__init__.__defaults__ = ({tick},)
ticks = open({folder!r} + "/ticks", "w", buffering=1)
tick = Store.tick
def noted(store):
    begin = time.monotonic()
    tick(store)
    print(begin, time.monotonic() - begin, file=ticks)
Store.tick = noted
"""


class Sight(msgspec.Struct, frozen=True):
    """The process at one moment; memory in MiB, sizes in kB."""

    time: float
    resident: float
    page: float
    series: int
    descriptors: int
    threads: int
    state: float
    pending: float
    wal: float
    cpu: float


class Verdict(msgspec.Struct, frozen=True):
    """One thing that was to be shown: what, the figure, and whether it is as it should be."""

    what: str
    figure: str
    good: bool


def _size(path: Path) -> float:
    return path.stat().st_size / 1e3 if path.exists() else 0.0


def look(running: Exporter, folder: Path, begin: float) -> Sight:
    """The process now."""
    page = running.get("/metrics")
    process = Path(f"/proc/{running.process.pid}")
    return Sight(
        time=time.monotonic() - begin,
        resident=running.resident_mib(),
        page=len(page) / 1e3,
        series=sum(not line.startswith(b"#") for line in page.splitlines()),
        descriptors=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
        state=_size(folder / "state" / "state.bin"),
        pending=_size(folder / "state" / "pending.sqlite"),
        wal=_size(folder / "state" / "pending.sqlite-wal"),
        cpu=running.cpu_seconds(),
    )


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Per second: the median of the slopes between all pairs (Theil 1950, Sen 1968), which a few peaks do not move."""
    x, y = np.asarray(times), np.asarray(values)
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def counted(page: str) -> dict[str, float]:
    """What the page says of that which the account knows."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name, labels = sample.name.removeprefix("mlexporter_"), sample.labels
            version = labels.get("version", "") if labels.get("model") != "found" else "found"
            key = {
                "samples_total": f"samples {version}",
                "predictions_tracked_total": f"tracked {version}",
                "labels_total": "labels",
                "labels_corrected_total": "corrections",
                "pending_dropped_total": "dropped",
                "pending_store_errors_total": "store errors",
                "state_write_errors_total": "write errors",
            }.get(name)
            if key is not None:
                found[key] = found.get(key, 0.0) + sample.value
    return {key: value for key, value in found.items() if value}


def totals(account: Account, page: str) -> Verdict:
    """Whether every counter is what was acknowledged."""
    known = ("samples", "tracked", "labels", "corrections")
    expected = {key: float(count) for key, count in account.counts.items() if count and key.split()[0] in known}
    found = counted(page)
    wrong = {
        key: (found.get(key), expected.get(key)) for key in found | expected if found.get(key) != expected.get(key)
    }
    samples = sum(count for key, count in expected.items() if key.startswith("samples"))
    figure = f"{samples:,.0f} samples, {expected.get('labels', 0):,.0f} labels"
    return Verdict("counters are what was acknowledged", f"{figure}; {wrong}" if wrong else figure, not wrong)


def ticks(file: Path, seconds: float) -> list[Verdict]:
    """Whether ticks come as often as they should, none of them late, and take no longer than at first."""
    rows = [tuple(map(float, line.split())) for line in file.read_text().splitlines()]
    begun = np.array([row[0] for row in rows])
    took = [row[1] for row in rows]
    if len(rows) < 3:
        return [Verdict("ticks", f"{len(rows)}", good=False)]
    gaps = np.diff(begun)
    half = len(took) // 2
    early, late = median(took[:half]), median(took[half:])
    mean = float(gaps.mean())
    return [
        Verdict(
            f"{len(rows)} ticks, {seconds:g} s apart",
            f"mean {mean:.4f} s, from {gaps.min():.3f} to {gaps.max():.3f} s",
            abs(mean - seconds) < 0.02 * seconds + 0.05,
        ),
        Verdict("a tick takes", f"{1e3 * early:.1f} ms, then {1e3 * late:.1f} ms", late < 2 * early + 0.02),
    ]


def flat(sights: Sequence[Sight]) -> list[Verdict]:
    """Whether what the process has stays as it was, after the warm-up."""
    end = sights[-1].time
    rest = [sight for sight in sights if sight.time >= WARM_UP * end]
    times = [sight.time for sight in rest]
    per_second = slope(times, [sight.resident for sight in rest])
    rise = per_second * (times[-1] - times[0])
    verdicts = [
        Verdict(
            "resident memory",
            f"{sights[0].resident:.1f} at first, then {rest[0].resident:.1f} to {rest[-1].resident:.1f} MiB, highest "
            f"{max(sight.resident for sight in rest):.1f}; {3600 * per_second:+.2f} MiB/h",
            rise < ROOM_MIB,
        )
    ]
    half = len(rest) // 2

    def compared(what: str, of: Callable[[Sight], float], room: float, share: float) -> None:
        before, after = max(map(of, rest[:half])), max(map(of, rest[half:]))
        figure = f"at most {before:,.0f}, then {after:,.0f}"
        verdicts.append(Verdict(what, figure, after <= before * (1 + share) + room))

    compared("series on the page", lambda sight: sight.series, 5, 0.0)
    compared("page, kB", lambda sight: sight.page, 1, 0.02)
    compared("file descriptors", lambda sight: sight.descriptors, 3, 0.0)
    compared("threads", lambda sight: sight.threads, 3, 0.0)
    compared("state.bin, kB", lambda sight: sight.state, 5, 0.1)
    compared("pending.sqlite, kB", lambda sight: sight.pending, 500, 0.25)
    compared("its write-ahead log, kB", lambda sight: sight.wal, 500, 0.25)
    return verdicts


def soak(minutes: float, rate: float, seed: int = 1) -> list[Verdict]:
    """Run it, and print a line of figures now and then.

    Args:
        minutes: how long. Below ten of them ticks and writes come more often than they do for users.
        rate: requests per second.
        seed: of the traffic.

    """
    seconds = 60 * minutes
    tick, pause = min(TICK_SECONDS, seconds / 30), min(STATE_SECONDS, seconds / 15)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        profile = judged_baseline(COLUMNS)
        (folder / "baseline.json").write_bytes(baseline.encode(profile))
        (folder / "mlexporter.yml").write_text(_CONFIG.format(folder=name))
        options = (f"--config.file={folder}/mlexporter.yml", f"--storage.path={folder}/state")
        prelude = _PRELUDE.format(folder=name, tick=tick, state=pause)
        account, stopped = Account(), threading.Event()
        with exporter(profile, *options, prelude=prelude) as running:
            traffic = Traffic(running.port, account, seed)
            sights, took, page = _watch(running, folder, traffic, seconds, rate, stopped)
        verdicts = flat(sights)
        verdicts += ticks(folder / "ticks", tick)
        log = (folder / "log").read_text()
        requests = sum(count for key, count in account.counts.items() if "/" in key)
        errors = sum(account.errors.values())
        verdicts += [
            Verdict("answers other than expected", f"{errors} of {requests:,}, {dict(account.errors)}", not errors),
            Verdict("lines in the log, warnings or worse", f"{len(log.splitlines())} {log[:500]}", not log),
            totals(account, page),
            _kept(folder, account),
        ]
    dawdled, again = account.counts["slow clients"], account.counts["labels sent again"]
    print(f"{dawdled} slow clients, {again} requests with labels that had to be sent again")
    print(f"{took[0]:.0%} of a core here, {took[1]:.0%} the exporter")
    return verdicts


def _watch(
    running: Exporter, folder: Path, traffic: Traffic, seconds: float, rate: float, stopped: threading.Event
) -> tuple[list[Sight], tuple[float, float], str]:
    account, port = traffic.account, running.port
    short = min(5.0, seconds / 20)
    threads = [
        threading.Thread(target=traffic.run, args=(rate, stopped)),
        threading.Thread(target=scrape, args=(port, account, short, stopped)),
        threading.Thread(target=dawdle, args=(port, account, short, stopped)),
    ]
    begin, cpu = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    sights: list[Sight] = []
    print(
        f"{'s':>6} {'MiB':>7} {'page kB':>8} {'series':>6} {'fds':>4} {'thr':>4} {'state kB':>8} {'pending+wal kB':>15}"
    )
    try:
        while not stopped.wait(max(begin + len(sights) * seconds / 60 - time.monotonic(), 0.05)):
            one = look(running, folder, begin)
            sights.append(one)
            print(
                f"{one.time:6.0f} {one.resident:7.1f} {one.page:8.1f} {one.series:6} {one.descriptors:4} "
                f"{one.threads:4} {one.state:8.1f} {one.pending:8.0f}+{one.wal:.0f}",
                flush=True,
            )
            if one.time > seconds:
                break
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    elapsed = time.monotonic() - begin
    took = (time.process_time() - cpu) / elapsed, sights[-1].cpu / elapsed
    traffic.finish()
    time.sleep(3)  # predictions wait a second for company
    return sights, took, running.get("/metrics").decode()


def _kept(folder: Path, account: Account) -> Verdict:
    """Whether the stop has left all of it on the disk."""
    state = decode((folder / "state" / "state.bin").read_bytes())
    found = sum(version.samples for version in state.versions)
    sent = sum(count for key, count in account.counts.items() if key.startswith("samples"))
    marked = (folder / "state" / "state.clean").exists()
    return Verdict("samples in the state that SIGTERM left", f"{found:,}", found == sent and marked)


def show(verdicts: Sequence[Verdict]) -> bool:
    """Print them; whether all are good."""
    for each in verdicts:
        print(f"{'pass' if each.good else 'FAIL'}  {each.what}: {each.figure}")
    return all(each.good for each in verdicts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=25.0, help="requests per second")
    chosen = parser.parse_args()
    sys.exit(not show(soak(chosen.minutes, chosen.rate)))


if __name__ == "__main__":
    main()
