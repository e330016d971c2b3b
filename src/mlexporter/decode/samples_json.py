"""`application/json` of `POST /v1/samples`: row form, column form, a single sample."""

import math
from collections.abc import Sequence
from typing import Any, Final

from mlexporter.decode.forms import Rejections, common_length, kind, name_of
from mlexporter.decode.json_text import loads
from mlexporter.decode.rows import (
    count_errors,
    decode_named_rows,
    decode_rows,
    error_reasons,
    field_problem,
    split_probabilities,
)
from mlexporter.samples import Batch, Decoded, DecodeError, Reason, Rejection

_SHAPES: Final = '"samples" (a list of samples), "columns" (an object of columns) or "features" (one sample)'
_FIELDS: Final = ("id", "latency_seconds", "error")


def decode(body: bytes) -> Decoded:
    """Decode a JSON body.

    Raises:
        DecodeError: its framing is broken.

    """
    document = loads(body)
    if not isinstance(document, dict):
        raise DecodeError(Reason.INVALID_STRUCTURE, f"the body is an object with {_SHAPES}, not {kind(document)}")
    shapes = [shape for shape in ("samples", "columns", "features") if shape in document]
    if len(shapes) != 1:
        found = " and ".join(f'"{shape}"' for shape in shapes) or "none of them"
        raise DecodeError(Reason.INVALID_STRUCTURE, f"the body has one of {_SHAPES}, and here is {found}")
    model, version = name_of(document, "model"), name_of(document, "version")
    if shapes == ["features"]:
        return decode_rows([document], model, version, len(body))
    content = document[shapes[0]]
    if shapes == ["columns"]:
        return _decode_columns(content, model, version, len(body))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"samples" is a list of samples, not {kind(content)}')
    if any("model" in row or "version" in row for row in content if isinstance(row, dict)):
        return decode_named_rows(content, model, version, len(body), len(content))
    return decode_rows(content, model, version, len(body))


def _decode_columns(columns: object, model: str | None, version: str | None, weight: int) -> Decoded:
    if not isinstance(columns, dict):
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns" is an object of columns, not {kind(columns)}')
    features = columns.get("features")
    if not isinstance(features, dict):
        what = kind(features) if "features" in columns else "absent"
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns.features" is an object of columns, not {what}')
    others = {
        name: columns[name]
        for name in ("id", "prediction", "label", "latency_seconds", "error")
        if columns.get(name) is not None
    }
    size = common_length(features, others)
    rejections, kept = _row_problems(others, size)
    if rejections:
        features = {name: [values[i] for i in kept] for name, values in features.items()}
        others = {name: [values[i] for i in kept] for name, values in others.items()}
        size = len(kept)
    if not size:
        return Decoded((), rejections)
    prediction, confidence, probabilities = split_probabilities(others.get("prediction"))
    batch = Batch(
        size=size,
        features=features,
        model=model,
        version=version,
        prediction=prediction,
        confidence=confidence,
        probabilities=probabilities,
        label=others.get("label"),
        ids=others.get("id"),
        latency_seconds=others.get("latency_seconds"),
        errors=count_errors(others.get("error")),
        error_reasons=error_reasons(others.get("error")),
        weight=weight,
    )
    return Decoded((batch,), rejections)


def _row_problems(others: dict[str, Any], size: int) -> tuple[tuple[Rejection, ...], Sequence[int]]:
    """Samples whose id, latency or error is not what it should be, and the indices of the others."""
    given: dict[str, list[Any]] = {name: others[name] for name in _FIELDS if name in others}
    if _plain(given):
        return (), range(size)
    rejections = Rejections()
    kept: list[int] = []
    for i in range(size):
        problem = field_problem({name: values[i] for name, values in given.items()})
        if problem is None:
            kept.append(i)
        else:
            reason, message, column = problem
            rejections.add(Rejection(i, reason, message, column))
    return rejections.listed(), kept


def _plain(given: dict[str, list[Any]]) -> bool:
    """Whether no field can be wrong, without a look at each sample."""
    latencies = given.get("latency_seconds", [])
    return (
        set(map(type, given.get("id", ()))) <= {str, type(None)}
        and set(map(type, given.get("error", ()))) <= {str, bool, type(None)}
        and set(map(type, latencies)) <= {float, int, type(None)}
        and all(0 <= latency < math.inf for latency in latencies if latency is not None)
    )
