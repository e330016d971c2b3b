"""The trigger's own metrics."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from mlexporter.metrics import trigger as metrics
from mlexporter.telemetry import Families

_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
RUN_OUTCOMES: Final = ("succeeded", "failed", "interrupted")


class Outcome(StrEnum):
    """What a notification led to."""

    STARTED = "started"
    REPEAT = "repeat"
    COOLDOWN = "cooldown"
    RESOLVED = "resolved"
    NO_ROUTE = "no_route"
    QUEUE_FULL = "queue_full"
    STOPPING = "stopping"
    NOT_RECORDED = "not_recorded"
    INVALID = "invalid"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"


class TriggerTelemetry(Families):
    """Counters of notifications and runs.

    Args:
        routes: names, whose series are there from the start.
        queue_length: how many runs wait.

    """

    def __init__(self, routes: tuple[str, ...], queue_length: Callable[[], float]) -> None:
        super().__init__()
        self._notifications = self._counter(metrics.TRIGGER_NOTIFICATIONS)
        self._runs = self._counter(metrics.TRIGGER_RUNS)
        self._duration = self._histogram(metrics.TRIGGER_RUN_DURATION, _BUCKETS)
        self._last_start = self._gauge(metrics.TRIGGER_LAST_START)
        self._gauge(metrics.TRIGGER_QUEUE).set_function(queue_length)
        # all are there from the start: an increase from a counter that is born at 1 is 0
        for outcome in Outcome:
            self._notifications.labels(outcome.value)
        for route in routes:
            self._duration.labels(route)
            for ending in RUN_OUTCOMES:
                self._runs.labels(route, ending)

    def notified(self, outcome: Outcome) -> None:
        """Count a notification."""
        self._notifications.labels(outcome.value).inc()

    def started(self, route: str, now: float) -> None:
        """Note that a run was started; `now` is Unix time in seconds."""
        self._last_start.labels(route).set(now)

    def ended(self, route: str, outcome: str, seconds: float) -> None:
        """Count a run."""
        self._runs.labels(route, "failed" if outcome == "again" else outcome).inc()
        self._duration.labels(route).observe(seconds)
