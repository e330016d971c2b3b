"""The numbers of the demo's model, read back from `/metrics`, and what counts as drift here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from mlexporter.demo.data import FEATURES
from mlexporter.demo.model import MODEL, VERSION

# The folklore's limit of a population stability index worth a look.
PSI_LIMIT = 0.1
# PSI passes its noise floor by chance once in 1,000 looks, and the demo looks often; twice the floor, never.
NOISE_MARGIN = 2.0
MISSING_LIMIT = 0.05
# With --once, the drift of the features makes the estimated accuracy wrong by less than two points, that of the concept
# by eight and more: the limit is at least six standard errors from either.
GAP_LIMIT = 0.04

_GAUGES = {
    "mlexporter_column_window_samples": "samples",
    "mlexporter_column_psi": "psi",
    "mlexporter_column_psi_noise_floor": "noise_floor",
    "mlexporter_column_js_distance": "js",
    "mlexporter_column_ks_distance": "ks",
    "mlexporter_column_wasserstein_stddevs": "wasserstein",
    "mlexporter_column_missing_ratio": "missing",
    "mlexporter_column_drift_log_evidence": "evidence",
}
FIGURES = ("accuracy_ratio", "roc_auc_ratio")
_FIGURES = {
    f"mlexporter_performance_{kind}{figure}": (figure, field)
    for figure in FIGURES
    for kind, field in (("", "realised"), ("estimated_", "estimated"), ("baseline_", "baseline"), ("gap_", "gap"))
}
_LABELS = {
    "mlexporter_labels_total": "labels",
    "mlexporter_labels_corrected_total": "corrected",
    "mlexporter_predictions_tracked_total": "tracked",
    "mlexporter_label_delay_seconds_sum": "delay_sum",
    "mlexporter_label_delay_seconds_count": "delay_count",
}


@dataclass(frozen=True, slots=True)
class Column:
    """What `/metrics` says of one column over one window; None for what it does not say."""

    role: str
    name: str
    samples: float | None = None
    psi: float | None = None
    noise_floor: float | None = None
    js: float | None = None
    ks: float | None = None
    wasserstein: float | None = None
    missing: float | None = None
    evidence: float | None = None

    @property
    def above_noise(self) -> bool:
        """Whether chance alone does not explain its PSI."""
        return self.psi is not None and self.noise_floor is not None and self.psi > NOISE_MARGIN * self.noise_floor


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of performance over one window: what labels show, what is estimated without them, what the baseline
    promised, and how far the estimate is off for the predictions with labels.
    """

    realised: float | None = None
    estimated: float | None = None
    baseline: float | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What labels say since the exporter began: how many found their prediction and how many replaced an earlier one,
    of how many predictions; the figures by `FIGURES`; and the log evidence that the concept drifted.
    """

    labels: float = 0
    corrected: float = 0
    tracked: float = 0
    delay_sum: float = 0
    delay_count: float = 0
    figures: Mapping[str, Figure] = field(default_factory=dict)
    evidence: float | None = None

    @property
    def delay(self) -> float | None:
        """Mean seconds from a prediction to its label."""
        return self.delay_sum / self.delay_count if self.delay_count else None

    @property
    def gap_shown(self) -> bool:
        """Whether labels show another accuracy than was estimated."""
        gap = self.figures["accuracy_ratio"].gap if "accuracy_ratio" in self.figures else None
        return gap is not None and abs(gap) > GAP_LIMIT


@dataclass(frozen=True, slots=True)
class Readings:
    """One scrape: samples counted since the exporter began, the columns, features in their order first, the log
    evidence at which one of them or the concept alarms, and what labels say.
    """

    samples: int
    columns: tuple[Column, ...]
    threshold: float | None = None
    feedback: Feedback = Feedback()

    def alarms(self, watched: Column | Feedback) -> bool:
        """Whether a column, or the concept, pages."""
        return self.threshold is not None and watched.evidence is not None and watched.evidence >= self.threshold

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that the model reads."""
        return tuple(column for column in self.columns if column.role == "feature")

    @property
    def prediction(self) -> Column | None:
        """The column that the model writes."""
        return next((column for column in self.columns if column.role == "prediction"), None)


def parse(page: str, window: str) -> Readings:
    """Read a page in the text format of Prometheus.

    Raises ValueError where it is no such page.
    """
    samples, threshold = 0, None
    found: dict[tuple[str, str], dict[str, float]] = {}
    figures: dict[str, dict[str, float]] = {}
    feedback: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            if name == "mlexporter_drift_log_threshold" and labels.get("tier") == "page":
                threshold = value
            if labels.get("model") != MODEL or labels.get("version") != VERSION:
                continue
            if name == "mlexporter_samples_total":
                samples = int(value)
            elif name in _LABELS:
                feedback[_LABELS[name]] = value
            elif labels.get("window", window) != window or labels.get("tier", "page") != "page":
                continue
            elif name in _FIGURES:
                figure, kind = _FIGURES[name]
                figures.setdefault(figure, {})[kind] = value
            elif name == "mlexporter_concept_drift_log_evidence":
                feedback["evidence"] = value
            elif name in _GAUGES and labels["role"] != "label":  # no label comes with its sample
                found.setdefault((labels["role"], labels["column"]), {})[_GAUGES[name]] = value
    order = {("feature", name): place for place, name in enumerate(FEATURES)}
    keys = sorted(found, key=lambda key: (order.get(key, len(order)), key))
    return Readings(
        samples,
        tuple(Column(role, name, **found[role, name]) for role, name in keys),
        threshold,
        Feedback(figures={name: Figure(**values) for name, values in figures.items()}, **feedback),
    )


def signs(column: Column, missing_before: Mapping[str, float]) -> list[str]:
    """Why this column counts as drifted; empty where it does not."""
    reasons = []
    if column.above_noise and column.psi is not None and column.psi > PSI_LIMIT:
        reasons.append("PSI")
    if column.missing is not None and column.missing - missing_before.get(column.name, 0.0) > MISSING_LIMIT:
        reasons.append("missing")
    return reasons


def drifted_features(columns: Iterable[Column], missing_before: Mapping[str, float]) -> frozenset[str]:
    """Names of the features among the columns that count as drifted."""
    return frozenset(column.name for column in columns if column.role == "feature" and signs(column, missing_before))
