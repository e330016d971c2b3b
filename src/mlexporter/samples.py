"""The one shape that flows through the exporter: a batch of samples, column by column.

Also the closed set of reasons for which samples are refused. This module imports nothing of ours.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

Values = Sequence[object]
"""One column of a batch as it was sent: numbers, strings, booleans, None; anything else is of the wrong type."""


class Role(enum.StrEnum):
    """What a column is to the model."""

    FEATURE = "feature"
    PREDICTION = "prediction"
    LABEL = "label"


PREDICTION_COLUMN: Final = "prediction"
CONFIDENCE_COLUMN: Final = "confidence"
LABEL_COLUMN: Final = "label"


class Reason(enum.StrEnum):
    """Why a sample, or a whole request, was refused. A closed set: it is a label of a metric."""

    # the request as a whole
    INVALID_JSON = "invalid_json"
    INVALID_GZIP = "invalid_gzip"
    INVALID_STRUCTURE = "invalid_structure"
    UNEQUAL_COLUMNS = "unequal_columns"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_TIMEOUT = "request_timeout"
    OVERLOADED = "overloaded"
    STORE_UNAVAILABLE = "store_unavailable"
    INTERNAL_ERROR = "internal_error"
    # one sample; its neighbours are kept
    NOT_AN_OBJECT = "not_an_object"
    INVALID_FEATURES = "invalid_features"
    INVALID_ID = "invalid_id"
    INVALID_LATENCY = "invalid_latency"
    INVALID_ERROR = "invalid_error"
    INVALID_LABEL = "invalid_label"
    MISSING_ID = "missing_id"
    # the model or version that the samples name
    INVALID_MODEL = "invalid_model"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_LIMIT = "model_limit"
    VERSION_LIMIT = "version_limit"
    SERIES_LIMIT = "series_limit"


class Rejection(msgspec.Struct, frozen=True):
    """Samples that were refused: the first one's index in the request, how many, why, and where in it."""

    index: int
    reason: Reason
    message: str
    column: str | None = None
    count: int = 1


class Batch(msgspec.Struct, frozen=True):
    """Samples of one model and version, column by column.

    Every column has `size` values, in the order of the samples; a feature that a sample lacks is None there.
    `model` and `version` are None where the request named none. `index` is where its first sample stood in the request.
    `probabilities` are the objects, class to probability, that predictions were given as; None for another one.
    `weight` is the number of bytes it was decoded from, by which the store bounds what may wait to be counted.
    `errors` is the number of samples that carry an error; `error_reasons` counts those of them that name a reason.
    """

    size: int
    features: dict[str, Values]
    model: str | None = None
    version: str | None = None
    prediction: Values | None = None
    confidence: Values | None = None
    probabilities: Values | None = None
    label: Values | None = None
    ids: Sequence[str | None] | None = None
    latency_seconds: Sequence[float | None] | None = None
    errors: int = 0
    error_reasons: Mapping[str, int] = {}
    index: int = 0
    weight: int = 0

    def values(self, role: Role, name: str) -> Values | None:
        """The values of one column, or None where no sample of the batch has it."""
        if role is Role.FEATURE:
            return self.features.get(name)
        if role is Role.LABEL:
            return self.label
        return self.prediction if name == PREDICTION_COLUMN else self.confidence

    def raw_predictions(self) -> Values | None:
        """Predictions as they were sent: numbers, classes, or objects of class to probability."""
        if self.prediction is None or self.probabilities is None:
            return self.prediction
        return [
            prediction if probabilities is None else probabilities
            for prediction, probabilities in zip(self.prediction, self.probabilities, strict=True)
        ]

    def columns(self) -> Iterator[tuple[Role, str, Values]]:
        """Every column that is there."""
        for name, values in self.features.items():
            yield Role.FEATURE, name, values
        for role, name, given in (
            (Role.PREDICTION, PREDICTION_COLUMN, self.prediction),
            (Role.PREDICTION, CONFIDENCE_COLUMN, self.confidence),
            (Role.LABEL, LABEL_COLUMN, self.label),
        ):
            if given is not None:
                yield role, name, given


class Decoded(msgspec.Struct, frozen=True):
    """What a request body held: batches to count and samples that were refused."""

    batches: tuple[Batch, ...]
    rejections: tuple[Rejection, ...] = ()


class Labels(msgspec.Struct, frozen=True):
    """True labels of one model: by the id of the prediction, or together with it, for who keeps the prediction.

    Every column has `size` values. A label is a number, a text or a boolean. `ids` and `prediction` are None where no
    label has one; a label has at least one of the two. Predictions are as they were sent: a number, a class, or an
    object of class to probability. `model` and `version` are None where the request named none; an id without a version
    stands for that of all versions. `index` is where the first label stood in the request; `weight` the bytes it was
    decoded from.
    """

    size: int
    label: Values
    model: str | None = None
    version: str | None = None
    ids: Sequence[str | None] | None = None
    prediction: Values | None = None
    index: int = 0
    weight: int = 0


class DecodedLabels(msgspec.Struct, frozen=True):
    """What a body of labels held: labels to join and labels that were refused."""

    labels: tuple[Labels, ...]
    rejections: tuple[Rejection, ...] = ()


class DecodeError(Exception):
    """The framing of a body is broken: nothing of it can be used."""

    def __init__(self, reason: Reason, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.column = column
