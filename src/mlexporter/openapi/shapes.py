"""What the requests of the API are made of, as types: JSON Schemas are made from these.

The decoders (`mlexporter.decode`) work on columns, and say of each sample why it is refused, which no decoder of
structs does. So these shapes are not what decodes, and tests hold the two together: whatever a schema takes is
accepted, and what is accepted without a complaint is in the schema.
"""

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from mlexporter.decode.forms import NAME_LENGTH
from mlexporter.decode.label_rows import TEXT_LENGTH

_LARGEST: Final = 1.7976931348623157e308
# What Python can print: no separator but the space, and no control, format or unassigned character.
_PRINTABLE: Final = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$"

NameText = Annotated[
    str, Meta(min_length=1, max_length=NAME_LENGTH, extra_json_schema={"pattern": _PRINTABLE, "examples": ["churn"]})
]
NameNumber = Annotated[int, Meta(ge=-(1 << 63), extra_json_schema={"maximum": (1 << 64) - 1})]
Name = NameText | NameNumber | None
Model = Annotated[Name, Meta(description="May be left out if the exporter knows exactly one model.")]
Version = Annotated[
    Name, Meta(description="May be left out: then it is the first configured one, or the only one known.")
]
Number = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH)]
Probabilities = Annotated[dict[str, float], Meta(min_length=1, description="Class to probability.")]

Value = Annotated[Any, Meta(description="A number, text, boolean or null; of another type it counts as invalid.")]
Features = Annotated[dict[str, Value], Meta(description="Column to value.")]
Prediction = Annotated[Any, Meta(description="A number, a class, or an object of class to probability.")]
Label = Annotated[Any, Meta(description="The truth, where it is known already: a number, text or a boolean.")]
Id = Annotated[str | None, Meta(description="Under which the prediction waits for a label that comes later.")]
Latency = Annotated[
    Annotated[float, Meta(ge=0, le=_LARGEST)] | None, Meta(description="How long the model took, in seconds.")
]
Error = Annotated[
    str | bool | dict[str, Any] | None, Meta(description="Anything but null, false and what is empty is an error.")
]

TrueLabel = Annotated[Number | Text | bool, Meta(description="The truth.")]
LabelId = Annotated[Text | None, Meta(description="Of the prediction that the label is for.")]
LabelPrediction = Annotated[
    Number | Text | bool | Probabilities | None, Meta(description="What the model said, for who has kept it.")
]


class _OfVersion(Struct, kw_only=True):
    model: Model | UnsetType = UNSET
    version: Version | UnsetType = UNSET


class Sample(_OfVersion, kw_only=True):
    """A sample."""

    features: Features
    id: Id | UnsetType = UNSET
    prediction: Prediction | UnsetType = UNSET
    label: Label | UnsetType = UNSET
    latency_seconds: Latency | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class SampleRows(_OfVersion, kw_only=True):
    """Samples one by one; `model` and `version` hold for those that name none of their own."""

    samples: list[Sample] | Sample


class SampleColumnLists(Struct, kw_only=True):
    """Lists of equal length."""

    features: dict[str, list[Value]]
    id: list[Id] | UnsetType | None = UNSET
    prediction: list[Prediction] | UnsetType | None = UNSET
    label: list[Label] | UnsetType | None = UNSET
    latency_seconds: list[Latency] | UnsetType | None = UNSET
    error: list[Error] | UnsetType | None = UNSET


class SampleColumns(_OfVersion, kw_only=True):
    """Samples column by column, several times as fast as rows on both sides."""

    columns: SampleColumnLists


class TruthOf(_OfVersion, kw_only=True):
    """A label of an `id`, of a `prediction`, or of both."""

    label: TrueLabel
    id: LabelId | UnsetType = UNSET
    prediction: LabelPrediction | UnsetType = UNSET


class LabelRows(_OfVersion, kw_only=True):
    """Labels one by one; `model` and `version` hold for those that name none of their own."""

    labels: list[TruthOf] | TruthOf


class LabelColumnLists(Struct, kw_only=True):
    """Lists of equal length; each label has an `id`, a `prediction` or both."""

    label: list[TrueLabel]
    id: list[LabelId] | UnsetType | None = UNSET
    prediction: list[LabelPrediction] | UnsetType | None = UNSET


class LabelColumns(_OfVersion, kw_only=True):
    """Labels column by column."""

    columns: LabelColumnLists
