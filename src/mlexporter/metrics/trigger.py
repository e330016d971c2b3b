"""The metrics of `mlexporter trigger`, on a page of its own."""

from typing import Final

from mlexporter.metrics.metric import Metric

TRIGGER_NOTIFICATIONS = Metric(
    "mlexporter_trigger_notifications_total",
    "counter",
    "Notifications of Alertmanager, by what they led to.",
    ("outcome",),
)
TRIGGER_RUNS = Metric(
    "mlexporter_trigger_runs_total", "counter", "Runs of actions that ended, by how.", ("route", "outcome")
)
TRIGGER_RUN_DURATION = Metric(
    "mlexporter_trigger_run_duration_seconds",
    "histogram",
    "Time from the beginning of a run to its end, with its retries.",
    ("route",),
)
TRIGGER_LAST_START = Metric(
    "mlexporter_trigger_last_start_timestamp_seconds",
    "gauge",
    "Unix time at which a run was last started.",
    ("route",),
)
TRIGGER_QUEUE = Metric("mlexporter_trigger_queue_length", "gauge", "Runs that wait for a worker.")

TRIGGER_METRICS: Final = (
    TRIGGER_NOTIFICATIONS, TRIGGER_RUNS, TRIGGER_RUN_DURATION, TRIGGER_LAST_START, TRIGGER_QUEUE,
)  # fmt: skip
