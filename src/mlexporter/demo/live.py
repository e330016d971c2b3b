"""The demo to be watched: traffic that goes on, and its numbers on show until somebody has seen enough."""

import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime

from mlexporter.demo import report
from mlexporter.demo.model import MODEL, VERSION
from mlexporter.demo.processes import StopRequestedError
from mlexporter.demo.readings import Readings
from mlexporter.demo.report import say
from mlexporter.demo.stage import Stage
from mlexporter.demo.traffic import LiveTraffic, Phase

TABLE_SECONDS = 5.0
# From the drift of the features to that of the concept.
CONCEPT_AFTER_SECONDS = 60.0


def run_live(stage: Stage) -> int:
    """Clean traffic, then what goes wrong; gives 0 when it is asked to end."""
    report.where_to_look(stage.exporter.address, stage.server.address, stage.exporter.pid)
    report.what_to_try(stage.exporter.address, stage.server.address, stage.example)
    say(f"Traffic flows, clean for {stage.plan.warm_up:.0f} s. Ctrl-C ends the demo.\n")
    live = LiveTraffic(stage.traffic, stage.client)
    with closing(live):
        live.start()
        try:
            _watch(stage, live)
        except StopRequestedError:
            say("\nending")
    stage.pusher.settle(stage.client.answered, 2.0)
    say(stage.account())
    return 0


def _watch(stage: Stage, live: LiveTraffic) -> None:
    """Print the tables every few seconds, and let things go wrong when it is time."""
    board = report.Board()
    before: Readings | None = None
    begins: dict[Phase, float] = {}
    if stage.plan.drift:
        features = time.monotonic() + stage.plan.warm_up
        begins = {Phase.FEATURES: features, Phase.CONCEPT: features + CONCEPT_AFTER_SECONDS}
    phase = Phase.CLEAN
    while True:
        until_next = min((at for each, at in begins.items() if each > phase), default=float("inf")) - time.monotonic()
        starts_now = until_next < TABLE_SECONDS
        stage.stop.wait(max(0.0, until_next) if starts_now else TABLE_SECONDS)
        try:
            readings = stage.readings()
        except OSError:
            stage.exporter.check()
            continue  # it is busy; the next look will tell
        table = report.table(readings, before, stage.missing_before)
        board.show([_state(stage, begins), *table, *report.feedback_table(readings)])
        before = readings
        if starts_now:
            phase = Phase(phase + 1)
            live.enter(phase)
            board = report.Board()
            say()
            report.announce(phase)
            say()


def _state(stage: Stage, begins: Mapping[Phase, float]) -> str:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    answered, dropped = stage.client.answered, stage.pusher.counts.dropped
    return (
        f"{now}  {MODEL} {VERSION}  window {stage.plan.windows[0]}  {answered:,} flights, {dropped:,} dropped  "
        f"{_what_drifts(begins, time.monotonic())}"
    )


def _what_drifts(begins: Mapping[Phase, float], now: float) -> str:
    if not begins:
        return "clean traffic"
    features, concept = now - begins[Phase.FEATURES], now - begins[Phase.CONCEPT]
    if features < 0:
        return f"clean traffic, drift begins in {-features:.0f} s"
    of_concept = f"in {-concept:.0f} s" if concept < 0 else f"since {concept:.0f} s"
    return f"drift since {features:.0f} s, of the concept {of_concept}"
