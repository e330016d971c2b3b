"""The demo from beginning to end: train, build the baseline, start everything, send traffic, look."""

import time

from mlexporter.demo.live import run_live
from mlexporter.demo.once import run_once
from mlexporter.demo.processes import StopRequestedError, StopSignals
from mlexporter.demo.report import say
from mlexporter.demo.stage import Plan, set_up


def run_demo(once: bool, listen: str | None, seed: int, *, drift: bool = True, warm_up: float = 60.0) -> int:
    """Run the demo; gives the exit code.

    With `once`: 0 if all labels found their prediction, the drifted features, and only those, show drift, and the
    drift of the concept is found. Else it goes on until it is interrupted, after `warm_up` seconds of clean traffic,
    and gives 0.

    Raises DemoError where something is missing or broken, and says what.
    """
    plan = Plan(once, seed, drift, warm_up)
    began = time.monotonic()
    with StopSignals() as stop:
        try:
            with set_up(plan, listen, stop) as stage:
                say(f"everything runs after {time.monotonic() - began:.1f} s")
                return run_once(stage) if once else run_live(stage)
        except StopRequestedError:
            say("stopped before the end")
            return 128 + (stop.received or 0)
