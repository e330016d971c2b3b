"""`mlexporter demo --once`: all that the demo shows, as fast as it goes, and judged."""

import time
from collections.abc import Callable

from mlexporter.demo import report
from mlexporter.demo.data import FEATURES
from mlexporter.demo.readings import Readings, drifted_features
from mlexporter.demo.report import say
from mlexporter.demo.stage import Stage
from mlexporter.demo.traffic import DRIFTED, Phase

# The concept drifts for more than half of the flights: the exporter may take all of their labels in one look.
FLIGHTS = {Phase.CLEAN: 4_000, Phase.FEATURES: 4_000, Phase.CONCEPT: 10_000}
REQUEST_FLIGHTS = 500
# What the exporter answered with 200 has to be on its page well before that.
COUNTED_SECONDS = 15.0
# The alarms look every 15 seconds; labels that come just after a look are in the next.
ALARM_SECONDS = 35.0


def run_once(stage: Stage) -> int:
    """Clean traffic, then what goes wrong, as fast as it goes; 0 if the numbers tell them apart."""
    say(f"sending {FLIGHTS[Phase.CLEAN]:,} clean flights through the model, and what became of them ...")
    clean = _send_and_read(stage, Phase.CLEAN)
    too_early = drifted_features(clean.columns, stage.missing_before)
    features = _next(stage, Phase.FEATURES)
    concept_too_early = _concept_shown(features)
    after = _next(stage, Phase.CONCEPT)
    say("waiting for the alarms' next look, every 15 s ...")
    after = _wait(stage, after, lambda readings: _alarms_have_looked(stage, readings), ALARM_SECONDS)
    say(f"\nwindow {stage.plan.windows[0]}, which holds all flights; arrows: since the clean ones")
    say("\n".join(report.table(after, clean, stage.missing_before)))
    say("\n" + "\n".join(report.feedback_table(after)))
    say(f"\n{report.prediction_line(after.prediction)}")
    say(stage.account(after))
    shown = drifted_features(after.columns, stage.missing_before)
    problems = [
        *_lost(stage, after),
        *(f"drift before there was any: {name}" for name in sorted(too_early)),
        *(f"no drift shown: {name}" for name in sorted(DRIFTED - shown)),
        *(f"drift shown that is none: {name}" for name in sorted(shown - DRIFTED)),
        *(f"no PSI for: {name}" for name in FEATURES if not _has_psi(after, name)),
        *(f"concept drift before there was any: {sign}" for sign in sorted(concept_too_early)),
        *(f"no concept drift shown: {sign}" for sign in sorted({"gap", "alarm"} - _concept_shown(after))),
    ]
    if problems:
        say("FAILED\n  " + "\n  ".join(problems))
        return 1
    say(f"OK: drift in {', '.join(sorted(shown))}, and in no other of {len(FEATURES)} features; and concept drift")
    return 0


def _next(stage: Stage, phase: Phase) -> Readings:
    say(f"sending {FLIGHTS[phase]:,} more ...")
    if not stage.plan.drift:
        return _send_and_read(stage, phase, Phase.CLEAN)
    report.announce(phase)
    return _send_and_read(stage, phase)


def _send_and_read(stage: Stage, phase: Phase, what: Phase | None = None) -> Readings:
    """Send the flights of a phase through the model, or as many of another, wait until all is told, and scrape."""
    left = FLIGHTS[phase]
    while left > 0:
        size = min(left, REQUEST_FLIGHTS)
        stage.client.ask(stage.traffic.batch(size, phase if what is None else what))
        left -= size
        stage.stop.check()
    stage.pusher.settle(stage.client.answered, COUNTED_SECONDS)
    stage.labels.settle(COUNTED_SECONDS)
    return _wait(stage, stage.readings(), lambda readings: not _uncounted(stage, readings), COUNTED_SECONDS)


def _wait(stage: Stage, readings: Readings, done: Callable[[Readings], bool], seconds: float) -> Readings:
    """Scrape until it is done, or for so many seconds."""
    end = time.monotonic() + seconds
    while not done(readings) and time.monotonic() < end:
        stage.stop.wait(0.2)
        readings = stage.readings()
    return readings


def _alarms_have_looked(stage: Stage, readings: Readings) -> bool:
    """Whether the concept pages; where nothing drifts, whether its evidence is there."""
    return readings.alarms(readings.feedback) if stage.plan.drift else readings.feedback.evidence is not None


def _concept_shown(readings: Readings) -> frozenset[str]:
    """The signs of concept drift."""
    feedback = readings.feedback
    signs = {"gap": feedback.gap_shown, "alarm": readings.alarms(feedback)}
    return frozenset(sign for sign, shown in signs.items() if shown)


def _has_psi(readings: Readings, name: str) -> bool:
    return any(column.name == name and column.psi is not None for column in readings.features)


def _uncounted(stage: Stage, readings: Readings) -> list[str]:
    """What the exporter accepted and does not show."""
    accepted, labels = stage.pusher.counts.accepted, stage.labels.counts.accepted
    counted = readings.feedback.labels + readings.feedback.corrected
    problems = []
    if readings.samples != accepted:
        problems.append(f"{accepted:,} samples accepted, but {readings.samples:,} counted")
    if not readings.features or any(column.samples != accepted for column in readings.features):
        problems.append(f"{accepted:,} samples accepted, but not in the window of each feature")
    if counted != labels:
        problems.append(f"{labels:,} labels accepted, but {counted:,.0f} found their prediction")
    return problems


def _lost(stage: Stage, readings: Readings) -> list[str]:
    """What did not get from the traffic to the page."""
    samples, labels = stage.pusher.counts, stage.labels.counts
    problems = _uncounted(stage, readings)
    if stage.client.failed:
        problems.append(f"{stage.client.failed:,} flights got no prediction")
    if samples.rejected or samples.dropped:
        problems.append(f"{samples.rejected:,} samples rejected and {samples.dropped:,} dropped")
    if labels.rejected or labels.lost:
        problems.append(f"{labels.rejected:,} labels rejected and {labels.lost:,} lost")
    return problems
