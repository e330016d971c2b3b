"""Every metric as data. The page, the documentation, rules and dashboards are held to this table by tests."""

from typing import Final

from mlexporter.metrics.feedback import FEEDBACK_METRICS
from mlexporter.metrics.metric import Metric
from mlexporter.metrics.trigger import TRIGGER_METRICS

__all__ = ["ALL", "EXPORTER_METRICS", "FEEDBACK_METRICS", "MODEL_METRICS", "TRIGGER_METRICS", "Metric"]


_VERSION: Final = ("model", "version")
_COLUMN: Final = (*_VERSION, "role", "column")
_BIN: Final = (*_COLUMN, "bin")
_WINDOW: Final = (*_COLUMN, "window")
_TIER: Final = (*_COLUMN, "tier")

SAMPLES = Metric("mlexporter_samples_total", "counter", "Accepted samples.", _VERSION)
LAST_SAMPLE = Metric(
    "mlexporter_last_sample_timestamp_seconds", "gauge", "Unix time of the last accepted sample.", _VERSION
)
MODEL_INFO = Metric(
    "mlexporter_model_info",
    "gauge",
    "Always 1; what the model version is compared with.",
    (*_VERSION, "task", "baseline_hash", "baseline_source"),
)
BASELINE_ROWS = Metric("mlexporter_baseline_rows", "gauge", "Rows that the baseline was built from.", _VERSION)
COLUMN_BIN = Metric("mlexporter_column_bin_total", "counter", "Values per bin of a column.", _BIN)
COLUMN_BASELINE_RATIO = Metric(
    "mlexporter_column_baseline_ratio",
    "gauge",
    "Share of a bin in the baseline, smoothed: (k + 0.5) / (m + 0.5 B).",
    _BIN,
)
COLUMN_VALUE = Metric(
    "mlexporter_column_value",
    "histogram",
    "Values of a numeric column; buckets end at the baseline's deciles.",
    _COLUMN,
)
COLUMN_BASELINE_VALUE_RATIO = Metric(
    "mlexporter_column_baseline_value_ratio",
    "gauge",
    "Share of the baseline's values of a numeric column up to the edge of a bucket, missing values apart.",
    (*_COLUMN, "edge"),
)
WINDOW_SAMPLES = Metric(
    "mlexporter_column_window_samples", "gauge", "Samples in the window, missing values among them.", _WINDOW
)
PSI = Metric(
    "mlexporter_column_psi",
    "gauge",
    "Population stability index against the baseline, over its deciles or categories.",
    _WINDOW,
)
PSI_NOISE_FLOOR = Metric(
    "mlexporter_column_psi_noise_floor",
    "gauge",
    "What the population stability index stays under in 999 of 1000 looks where nothing drifted.",
    _WINDOW,
)
JS_DISTANCE = Metric(
    "mlexporter_column_js_distance",
    "gauge",
    "Jensen-Shannon distance to the baseline, natural logarithm, over all exported bins.",
    _WINDOW,
)
HELLINGER_DISTANCE = Metric(
    "mlexporter_column_hellinger_distance",
    "gauge",
    "Hellinger distance to the baseline, over all exported bins.",
    _WINDOW,
)
KS_DISTANCE = Metric(
    "mlexporter_column_ks_distance",
    "gauge",
    "Kolmogorov-Smirnov distance of a numeric column to the baseline, at the edges of the fine bins.",
    _WINDOW,
)
WASSERSTEIN = Metric(
    "mlexporter_column_wasserstein_stddevs",
    "gauge",
    "Wasserstein distance of a numeric column to the baseline, in baseline standard deviations.",
    _WINDOW,
)
MISSING_RATIO = Metric("mlexporter_column_missing_ratio", "gauge", "Share of samples without a value.", _WINDOW)
OUT_OF_RANGE_RATIO = Metric(
    "mlexporter_column_out_of_range_ratio",
    "gauge",
    "Share of samples with a value below the baseline's minimum or above its maximum.",
    _WINDOW,
)
NEW_CATEGORY_RATIO = Metric(
    "mlexporter_column_new_category_ratio", "gauge", "Share of samples with a category the baseline never saw.", _WINDOW
)
DRIFT_LOG_EVIDENCE = Metric(
    "mlexporter_column_drift_log_evidence",
    "gauge",
    "Natural logarithm of the evidence that a column drifted by more than its tolerance.",
    _TIER,
)
DRIFT_LOG_THRESHOLD = Metric(
    "mlexporter_drift_log_threshold",
    "gauge",
    "Log evidence at which a column has drifted; one false alarm in detection.false_alarm_every, of all columns.",
    ("tier",),
)
COLUMN_TOLERANCE = Metric(
    "mlexporter_column_tolerance",
    "gauge",
    "Drift of a column that is accepted, as Kullback-Leibler divergence from the baseline, in nats.",
    _TIER,
)
COLUMN_DISPERSION = Metric(
    "mlexporter_column_dispersion",
    "gauge",
    "How many times more the counts of a column vary from tick to tick than those of independent samples, at least 1.",
    _COLUMN,
)
VALUES_INVALID = Metric(
    "mlexporter_values_invalid_total", "counter", "Values of the wrong type; they count as missing.", _COLUMN
)
VALUES_UNKNOWN_COLUMN = Metric(
    "mlexporter_values_unknown_column_total",
    "counter",
    "Values in columns that the baseline does not have; they are ignored.",
    _VERSION,
)
INFERENCE_DURATION = Metric(
    "mlexporter_inference_duration_seconds", "histogram", "Latency of the model, as the samples tell it.", _VERSION
)
INFERENCE_ERRORS = Metric("mlexporter_inference_errors_total", "counter", "Samples that carry an error.", _VERSION)
INFERENCE_ERROR_REASONS = Metric(
    "mlexporter_inference_error_reasons_total",
    "counter",
    "Samples whose error names a reason; from the eleventh reason on it is __other__.",
    (*_VERSION, "reason"),
)

# What the exporter tells of itself.
PENDING_STORE_UP = Metric(
    "mlexporter_pending_store_up", "gauge", "Whether the store of pending predictions answered when last used."
)
PENDING_STORE_ERRORS = Metric(
    "mlexporter_pending_store_errors_total", "counter", "Failures of the store of pending predictions; it is retried."
)
PENDING_STORE_WRITES = Metric(
    "mlexporter_pending_store_writes_total", "counter", "Times that predictions and labels were written to the store."
)
PENDING_STORE_WRITE_SECONDS = Metric(
    "mlexporter_pending_store_write_seconds_total",
    "counter",
    "Time spent on writing predictions and labels to the store, on joining and counting them.",
)
PENDING_QUEUE = Metric(
    "mlexporter_pending_queue_rows", "gauge", "Predictions and labels that wait to be written to the store."
)
PENDING_DROPPED = Metric(
    "mlexporter_pending_dropped_total", "counter", "Predictions that no label will find, for the queue was full."
)
STATE_LAST_WRITE = Metric(
    "mlexporter_state_last_write_timestamp_seconds", "gauge", "Unix time at which the state was last written to disk."
)
STATE_WRITE_DURATION = Metric(
    "mlexporter_state_last_write_duration_seconds", "gauge", "Time to copy, encode and write the state, the last time."
)
STATE_SIZE = Metric("mlexporter_state_size_bytes", "gauge", "Size of the state on disk.")
STATE_WRITE_ERRORS = Metric(
    "mlexporter_state_write_errors_total",
    "counter",
    "Times that the state could not be written; it is retried.",
)
STATE_RESTORED = Metric("mlexporter_state_restored", "gauge", "Whether state of an earlier process was restored.")
STATE_DAMAGED = Metric(
    "mlexporter_state_damaged", "gauge", "Whether damaged state was found at the start, and set aside."
)
SAMPLES_REJECTED = Metric(
    "mlexporter_samples_rejected_total",
    "counter",
    "Samples refused, by reason; a request refused as a whole counts once.",
    ("reason",),
)
HTTP_REQUESTS = Metric(
    "mlexporter_http_requests_total", "counter", "HTTP requests answered.", ("handler", "method", "code")
)
HTTP_DURATION = Metric(
    "mlexporter_http_request_duration_seconds", "histogram", "Time to answer an HTTP request.", ("handler",)
)
BUILD_INFO = Metric("mlexporter_build_info", "gauge", "Always 1; what runs here.", ("version", "pythonversion"))
RELOAD_SUCCESSFUL = Metric(
    "mlexporter_config_last_reload_successful", "gauge", "Whether the last load of the configuration succeeded."
)
RELOAD_TIMESTAMP = Metric(
    "mlexporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Unix time of the last successful load of the configuration.",
)
WEB_CONFIG_SUCCESSFUL = Metric(
    "mlexporter_web_config_last_reload_successful",
    "gauge",
    "Whether the last load of the web configuration succeeded; 1 where there is none.",
)
WEB_CONFIG_FAILURES = Metric(
    "mlexporter_web_config_reload_failures_total",
    "counter",
    "Changes of the web configuration, or of a file that it names, that were refused.",
)
SERIES_LIMIT = Metric("mlexporter_series_limit", "gauge", "limits.max_series, which mlexporter_series stays under.")
SERIES = Metric("mlexporter_series", "gauge", "Series of the models on this page; limits.max_series bounds it.")
SCRAPE_DURATION = Metric(
    "mlexporter_scrape_duration_seconds",
    "histogram",
    "Time to snapshot the counts, compute the statistics and write the page.",
)

MODEL_METRICS: Final = (
    SAMPLES, LAST_SAMPLE, MODEL_INFO, BASELINE_ROWS, COLUMN_BIN, COLUMN_BASELINE_RATIO, COLUMN_VALUE,
    COLUMN_BASELINE_VALUE_RATIO, WINDOW_SAMPLES, PSI, PSI_NOISE_FLOOR, JS_DISTANCE, HELLINGER_DISTANCE, KS_DISTANCE,
    WASSERSTEIN, MISSING_RATIO, OUT_OF_RANGE_RATIO, NEW_CATEGORY_RATIO, DRIFT_LOG_EVIDENCE, DRIFT_LOG_THRESHOLD,
    COLUMN_TOLERANCE, COLUMN_DISPERSION, VALUES_INVALID, VALUES_UNKNOWN_COLUMN, INFERENCE_DURATION,
    INFERENCE_ERRORS, INFERENCE_ERROR_REASONS, *FEEDBACK_METRICS,
)  # fmt: skip
EXPORTER_METRICS: Final = (
    SAMPLES_REJECTED, HTTP_REQUESTS, HTTP_DURATION, BUILD_INFO, RELOAD_SUCCESSFUL, RELOAD_TIMESTAMP, SERIES,
    SERIES_LIMIT, SCRAPE_DURATION, PENDING_STORE_UP, PENDING_STORE_ERRORS, PENDING_STORE_WRITES,
    PENDING_STORE_WRITE_SECONDS, PENDING_QUEUE, PENDING_DROPPED, STATE_LAST_WRITE, STATE_WRITE_DURATION, STATE_SIZE,
    STATE_WRITE_ERRORS, STATE_RESTORED, STATE_DAMAGED,
    WEB_CONFIG_SUCCESSFUL, WEB_CONFIG_FAILURES,
)  # fmt: skip
ALL: Final = (*MODEL_METRICS, *EXPORTER_METRICS)
"""What is on the page of the exporter."""
