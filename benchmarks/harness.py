"""Timing and printing: medians of interleaved rounds, for the machine's speed drifts from one second to the next."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


def medians(candidates: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each candidate; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


@dataclass
class Report:
    """Rows of: what, measured, budget, peer."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, measured: str, budget: str = "", peer: str = "") -> None:
        self.rows.append((what, measured, budget, peer))
        print(f"{what:<52} {measured:>16}  {budget:<18} {peer}", flush=True)

    @staticmethod
    def heading(title: str) -> None:
        print(f"\n{title}\n{'':<52} {'measured':>16}  {'budget':<18} peer, in the same run", flush=True)
