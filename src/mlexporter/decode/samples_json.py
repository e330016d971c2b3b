"""`application/json` of `POST /v1/samples`: row form, column form, a single sample."""

import math
from collections.abc import Sequence
from typing import Any, Final

from mlexporter.decode.forms import Rejections, common_length, kind
from mlexporter.decode.json_document import decode_document
from mlexporter.decode.rows import (
    count_errors,
    decode_named_rows,
    decode_rows,
    error_reasons,
    field_problem,
    split_probabilities,
)
from mlexporter.samples import Batch, Decoded, DecodeError, Reason, Rejection

_FIELDS: Final = ("id", "latency_seconds", "error")


def decode(body: bytes) -> Decoded:
    """Decode a JSON body.

    Raises:
        DecodeError: its framing is broken.

    """
    return decode_document(body, "sample", "features", decode_rows, _decode_columns, _decode_list)


def _decode_list(rows: list[Any], model: str | None, version: str | None, weight: int) -> Decoded:
    if any("model" in row or "version" in row for row in rows if isinstance(row, dict)):
        return decode_named_rows(rows, model, version, weight, len(rows))
    return decode_rows(rows, model, version, weight)


def _decode_columns(columns: dict[str, Any], model: str | None, version: str | None, weight: int) -> Decoded:
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
