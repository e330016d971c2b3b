"""The shapes of `GET /api/v1/status` and of `GET /api/v1/models/{model}/versions/{version}/drift`, as types.

`mlexporter.status`, `mlexporter.explanation` and `mlexporter.feedback_status` write them as JSON values; tests hold
these shapes to what they write. The members are told of in docs/http-api.md, the numbers in docs/statistics.md.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from mlexporter.samples import Role

Numbers = dict[str, float | None]
Figures = dict[str, float]


class Series(Struct):
    """Series on the metrics page."""

    used: int
    limit: int


class Reference(Struct):
    """The baseline that a version is held against."""

    source: Literal["file", "learned"]
    hash: str | None
    rows: int


class ColumnStatus(Struct):
    """A column and its numbers in each window; null where one is absent."""

    role: Role
    column: str
    type: Literal["numeric", "categorical", "boolean"]
    invalid: int
    windows: dict[str, Numbers]


class Performance(Struct):
    """Performance in a window: as labels show it, and as scores let expect it."""

    outcomes: float
    realised: Figures
    estimated: Figures


class Feedback(Struct):
    """What labels tell."""

    labels: int
    last_label: float | None
    predictions_pending: int | None
    baseline: Figures | None
    windows: dict[str, Performance]


class VersionStatus(Struct, kw_only=True):
    """A model version. Times are in Unix seconds."""

    model: str
    version: str
    task: str | None
    samples: int
    last_sample: float | None
    inference_errors: int
    values_in_unknown_columns: int
    feedback: Feedback | None
    state: Literal["learning", "provisional", "watching"]
    learned_samples: int | UnsetType = UNSET
    baseline: Reference | UnsetType = UNSET
    columns: list[ColumnStatus]


class Status(Struct):
    """Models, versions, columns, baselines and current numbers."""

    version: str
    started: float
    series: Series
    models: list[VersionStatus]


class DriftReason(Struct):
    """A direction that the samples went, and its share of the evidence."""

    direction: str
    bin: str | None
    share: float
    text: str


class BinShares(Struct):
    """What the baseline expects of a bin of the alarm, and what came."""

    bin: str
    baseline: float
    live: float


class DriftTier(Struct, kw_only=True):
    """The alarm of a column in a tier; the last four only where there is evidence worth telling."""

    state: Literal["firing", "quiet"]
    log_evidence: float | None
    tolerance: float
    fired: float | None
    since: float | None
    samples: int | UnsetType = UNSET
    psi: float | UnsetType | None = UNSET
    reasons: list[DriftReason] | UnsetType = UNSET
    bins: list[BinShares] | UnsetType = UNSET


class DriftColumn(Struct):
    """The alarm of a column, by tier."""

    role: Role
    column: str
    dispersion: float
    tiers: dict[str, DriftTier]


class OutcomesOfPredictions(Struct):
    """What became of predictions of one kind: the share of each outcome, expected and seen."""

    said: str
    rows: float
    expected: dict[str, float]
    seen: dict[str, float]
    log_evidence: float


class OutcomeTier(Struct, kw_only=True):
    """The alarm on concept drift in a tier."""

    state: Literal["firing", "quiet"]
    log_evidence: float | None
    tolerance: float
    fired: float | None
    predictions: list[OutcomesOfPredictions] | UnsetType = UNSET


class Outcomes(Struct):
    """The alarm on concept drift, by tier."""

    tiers: dict[str, OutcomeTier]


class Drift(Struct):
    """What the alarms of a version have found."""

    model: str
    version: str
    state: Literal["learning", "provisional", "watching"]
    log_threshold: float | None
    columns: list[DriftColumn]
    outcomes: Outcomes | None
