"""The numbers that alerts compare with, read from the rules: a dashboard cannot say anything else than its pager."""

import re
from pathlib import Path

import yaml

_RULES = Path(__file__).parents[2] / "prometheus" / "rules" / "mlexporter.alerts.yaml"


def _expressions() -> dict[str, str]:
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: " ".join(rule["expr"].split()) for group in groups for rule in group["rules"]}


_EXPRESSIONS = _expressions()


def threshold(alert: str, before: str) -> float:
    """The number that follows `before` in the expression of an alert, white space being one space each.

    Raises ValueError where it is not there, or is not the same everywhere: the rule has changed, and so has this to.
    """
    found = set(re.findall(re.escape(before) + r" ?(-?[\d.]+)", _EXPRESSIONS[alert]))
    if len(found) != 1:
        raise ValueError(f"{alert}: {before!r} is followed by {sorted(found) or 'no number'}")
    return float(found.pop())


INFERENCE_ERRORS = threshold("MLExporterInferenceErrors", "fleet:mlexporter_inference_errors:ratio_rate5m >")
SAMPLES_REJECTED = threshold("MLExporterSamplesRejected", "(increase(mlexporter_samples_rejected_total[15m])) ) ) >")
DRIFTED_COLUMNS = threshold("MLExporterManyColumnsDrift", 'fleet:mlexporter_drifted_columns:ratio{tier="page"}) >=')
FLEET_DRIFT = threshold("MLExporterFleetDrift", 'fleet:mlexporter_column_drift_statistic:pooled{window="24h"} >')
VERSION_PSI = threshold("MLExporterVersionDiffers", "> ignoring (previous_version) group_left () (")
ESTIMATE_LOSS = threshold("MLExporterEstimatedPerformanceDropped", '{window="24h"} >')
ADVANTAGE = threshold("MLExporterChallengerBetter", "fleet:mlexporter_version_advantage:ratio >")
LABELS_UNMATCHED = threshold("MLExporterLabelsUnmatched", ") ) >")
SCRAPE_SECONDS = threshold("MLExporterScrapeSlow", "mlexporter_scrape_duration_seconds_bucket[15m])) >")
SCRAPE_SECONDS_OUTSIDE = threshold("MLExporterScrapeSlow", "avg_over_time(scrape_duration_seconds[15m]) >")
STATE_SECONDS = threshold("MLExporterStateNotWritten", "mlexporter_state_last_write_timestamp_seconds >")
SERIES = threshold("MLExporterSeriesLimitNear", "mlexporter_series / mlexporter_series_limit >")
