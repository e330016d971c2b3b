"""The drift alarm: time and memory of a tick, and what a change of the hour costs a request that comes then."""

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from statistics import median

import msgspec
import numpy as np
from scipy import stats

from benchmarks.compute import baseline_of
from benchmarks.harness import Report, medians
from mlexporter import decode
from mlexporter.alarm import Alarm, AlarmState
from mlexporter.baseline import Baseline, Season, sealed
from mlexporter.binning import Counts
from mlexporter.config import DetectionConfig
from mlexporter.detector import log_threshold
from mlexporter.snapshot import Monitor

COLUMNS = 300
ROWS = 200
HOUR = 3600.0
MB = 1e6


def seasonal(baseline: Baseline) -> Baseline:
    """The same baseline with a profile for every hour of every column."""
    rng = np.random.default_rng(6)
    columns = [
        msgspec.structs.replace(
            column,
            season=Season(
                timezone="UTC",
                hours=tuple(tuple(map(int, hour)) for hour in rng.multinomial(400, [1 / 13] * 13, 24).tolist()),
            ),
        )
        for column in baseline.columns
    ]
    return sealed(msgspec.structs.replace(baseline, columns=tuple(columns)))


def alarm_of(baseline: Baseline) -> tuple[Monitor, Alarm]:
    monitor = Monitor.of(baseline, DetectionConfig(), {})
    assert monitor.alarm is not None
    return monitor, monitor.alarm


def ticks_of(monitor: Monitor, count: int) -> list[Counts]:
    """Counts since the start after each of so many ticks of samples as the baseline expects them."""
    rng = np.random.default_rng(7)
    seen, sizes = monitor.binner.zero(), np.diff(monitor.binner.offsets)
    ticks: list[Counts] = []
    for _ in range(count):
        live = [
            rng.multinomial(ROWS, own / own.sum())
            for own in np.split(monitor.reference.bins.astype(float), np.cumsum(sizes)[:-1])
        ]
        seen = msgspec.structs.replace(seen, bins=seen.bins + np.concatenate(live), rows=seen.rows + ROWS)
        ticks.append(seen)
    return ticks


def run_ticks(alarm: Alarm, state: AlarmState, ticks: list[Counts], now: float = 0.0) -> AlarmState:
    threshold = log_threshold(COLUMNS, 30 * 86400)
    for i, seen in enumerate(ticks):
        state = alarm.advance(state, seen, now + 15.0 * i, threshold)
    return state


def tick(report: Report) -> None:
    report.heading(f"A tick of the drift alarm ({COLUMNS} columns, both tiers, {ROWS} samples)")
    monitor, alarm = alarm_of(baseline_of(COLUMNS))
    ticks = ticks_of(monitor, 20)
    begin = alarm.start(monitor.binner.zero(), 0.0)
    rng = np.random.default_rng(8)
    reference, window = rng.normal(size=10_000), rng.normal(size=1000)

    def peer() -> None:
        for _ in range(5):
            stats.ks_2samp(reference, window, method="asymp")

    times = medians({"ours": lambda: run_ticks(alarm, begin, ticks), "peer": peer})
    per_tick, per_test = times["ours"] / len(ticks), times["peer"] / 5
    report.add(
        "advance the evidence",
        f"{per_tick * 1e3:.2f} ms",
        "3 ms",
        f"scipy ks_2samp per column: {per_test * COLUMNS * 1e3:.0f} ms: {per_test * COLUMNS / per_tick:.0f}x",
    )


def memory(report: Report) -> None:
    for name, baseline, budget, hours in (
        ("memory, no season", baseline_of(COLUMNS), "5 MB", 1),
        ("memory, all columns seasonal, after a day", seasonal(baseline_of(COLUMNS)), "20 MB", 24),
    ):
        monitor, alarm = alarm_of(baseline)
        ticks = ticks_of(monitor, 3)
        tracemalloc.start()
        state = alarm.start(monitor.binner.zero(), 0.0)
        for hour in range(hours):
            state = run_ticks(alarm, alarm.start(monitor.binner.zero(), 0.0), ticks, hour * HOUR)
            for _ in range(240):
                alarm.prepare(hour * HOUR)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert state.bets is not None
        report.add(name, f"{held / MB:.1f} MB", budget)


def hour_change(report: Report) -> None:
    """Requests are decoded, one after the other, while the bets of another hour are made in a second thread."""
    monitor, alarm = alarm_of(seasonal(baseline_of(COLUMNS)))
    begin, ticks = alarm.start(monitor.binner.zero(), 0.0), ticks_of(monitor, 1)
    body = json.dumps({"model": "m", "features": {f"feature_{i}": 0.1 * i for i in range(20)}}).encode()
    run_ticks(alarm, begin, ticks)

    def longest(work: Callable[[], object]) -> float:
        """The longest of the requests that come while some work goes on."""
        thread = threading.Thread(target=work)
        longest = 0.0
        thread.start()
        while thread.is_alive():
            start = time.perf_counter()
            decode.decode(body, "application/json")
            longest = max(longest, time.perf_counter() - start)
        return longest

    def ahead(hour: int) -> None:
        for _ in range(COLUMNS):
            alarm.prepare(hour * HOUR)

    rounds = range(7)
    quiet = median(longest(lambda: time.sleep(0.1)) for _ in rounds)
    made_ahead = median(longest(partial(ahead, 2 * i)) for i in rounds)
    at_once = median(longest(partial(run_ticks, alarm, begin, ticks, (30 + 5 * i) * HOUR)) for i in rounds)
    report.heading(f"The longest request beside the alarm's own work ({COLUMNS} seasonal columns, median of 7 rounds)")
    report.add("nothing else going on", f"{quiet * 1e3:.2f} ms")
    report.add("bets of the next hour, made ahead", f"{made_ahead * 1e3:.2f} ms", "10 ms")
    report.add("bets of an hour, made all at once", f"{at_once * 1e3:.2f} ms", "10 ms")


def run(report: Report) -> None:
    """All of them."""
    tick(report)
    memory(report)
    hour_change(report)
