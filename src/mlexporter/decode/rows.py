"""Samples in row form, to batches of columns. Used by every format that sends one object per sample."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, TypeGuard

import msgspec

from mlexporter.decode.forms import Rejections, Row, by_name, kind
from mlexporter.samples import Batch, Decoded, Reason, Rejection, Values

# Rows that hardly share a column would fill a table that is mostly empty, and far larger than the request.
_TABLE_CELLS_PER_VALUE: Final = 8
_FREE_TABLE_CELLS: Final = 20_000
_ID_TYPES: Final = frozenset((str, type(None)))
_LATENCY_TYPES: Final = frozenset((float, int, type(None)))
_NUMBER_TYPES: Final = frozenset((float, int))
REASONS_NAMED: Final = 20
_REASON: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_REASON_MEMBERS: Final = ("reason", "code", "type")
_HIGHEST_CODE: Final = 99_999


def decode_rows(
    rows: Sequence[object], model: str | None, version: str | None, weight: int, indices: Sequence[int] | None = None
) -> Decoded:
    """Samples of one model and version.

    Args:
        rows: what should be objects with `features`.
        model: or None where the request names none.
        version: or None.
        weight: bytes they were decoded from.
        indices: where each row stood in the request, if not at its index.

    """
    good: list[Row] = rows  # type: ignore[assignment]
    rejections = Rejections()
    if len(rows) <= 1 or not _all_good(good):
        good = []
        for i, row in enumerate(rows):
            problem = _problem(row)
            if problem is None:
                good.append(row)  # type: ignore[arg-type]
            else:
                reason, message, column = problem
                rejections.add(Rejection(i if indices is None else indices[i], reason, message, column))
    batches = [
        _batch(part, features, model, version, weight * len(part) // len(rows)) for part, features in _tables(good)
    ]
    if indices and batches:
        batches[0] = msgspec.structs.replace(batches[0], index=indices[0])
    return Decoded(tuple(batches), rejections.listed())


def decode_named_rows(
    rows: Iterable[object], model: str | None, version: str | None, weight: int, total: int
) -> Decoded:
    """Samples that may each name a model and a version of their own, in objects with `features`; see `by_name`."""
    parts, rejections = by_name(rows, model, version, weight, total, "a sample", decode_rows)
    return Decoded(tuple(chain.from_iterable(part.batches for part in parts)), rejections)


def _all_good(rows: list[Row]) -> bool:
    """Whether no row has a problem, decided column by column: the common case, and several times as fast."""
    try:
        if set(map(type, map(itemgetter("features"), rows))) != {dict}:
            return False
    except (KeyError, TypeError, IndexError):
        return False
    members = set().union(*rows)
    if "id" in members and not set(map(type, (row.get("id") for row in rows))) <= _ID_TYPES:
        return False
    if "latency_seconds" in members:
        latencies = [row.get("latency_seconds") for row in rows]
        if not set(map(type, latencies)) <= _LATENCY_TYPES:
            return False
        if not all(0 <= latency < math.inf for latency in latencies if latency is not None):
            return False
    return "error" not in members or all(row.get("error") is None for row in rows)


def _problem(row: object) -> tuple[Reason, str, str | None] | None:
    """Why a sample is refused."""
    if not isinstance(row, dict):
        return Reason.NOT_AN_OBJECT, f"a sample is an object, not {kind(row)}", None
    features = row.get("features")
    if not isinstance(features, dict):
        what = kind(features) if "features" in row else "absent"
        return Reason.INVALID_FEATURES, f'"features" is an object of column to value, not {what}', None
    return field_problem(row)


def field_problem(fields: Mapping[str, Any]) -> tuple[Reason, str, str | None] | None:
    """Why the fields of a sample other than its columns are refused."""
    given = fields.get("id")
    if not isinstance(given, str | None):
        return Reason.INVALID_ID, f'"id" is text, not {kind(given)}', "id"
    latency = fields.get("latency_seconds")
    if latency is not None:
        name = "latency_seconds"
        if isinstance(latency, bool) or not isinstance(latency, int | float):
            return Reason.INVALID_LATENCY, f'"{name}" is a number of seconds, not {kind(latency)}', name
        if not 0 <= latency < math.inf:
            return Reason.INVALID_LATENCY, f'"{name}" is finite and not negative', name
    error = fields.get("error")
    if not isinstance(error, str | bool | dict | None):
        return Reason.INVALID_ERROR, f'"error" is null, text, a boolean or an object, not {kind(error)}', "error"
    return None


def _tables(rows: list[Row]) -> list[tuple[list[Row], dict[str, Values]]]:
    """Rows with their features as columns: one table of all, unless most of it would be empty."""
    if not rows:
        return []
    features: list[Row] = [row["features"] for row in rows]
    columns = _uniform_columns(features)
    if columns is not None:
        return [(rows, columns)]
    names = list(dict.fromkeys(chain.from_iterable(features)))
    if len(names) * len(rows) <= _TABLE_CELLS_PER_VALUE * sum(map(len, features)) + _FREE_TABLE_CELLS:
        return [(rows, {name: [row.get(name) for row in features] for name in names})]
    return [([row], _single_row(row["features"])) for row in rows]


def _single_row(features: Row) -> dict[str, Values]:
    return dict(zip(features, zip(features.values(), strict=True), strict=True))


def _uniform_columns(features: list[Row]) -> dict[str, Values] | None:
    """Objects to columns, the fast way; None where they do not all have the same names."""
    if len(features) == 1:
        return _single_row(features[0])
    names = list(features[0])
    if len(names) < 2 or set(map(len, features)) != {len(names)}:
        return None
    try:
        return dict(zip(names, zip(*map(itemgetter(*names), features), strict=True), strict=True))
    except KeyError:
        return None


def _batch(rows: list[Row], features: dict[str, Values], model: str | None, version: str | None, weight: int) -> Batch:
    members = rows[0].keys() if len(rows) == 1 else set().union(*rows)

    def column(name: str) -> list[Any] | None:
        return [row.get(name) for row in rows] if name in members else None

    prediction, confidence, probabilities = split_probabilities(column("prediction"))
    errors = column("error")
    return Batch(
        size=len(rows),
        features=features,
        model=model,
        version=version,
        prediction=prediction,
        confidence=confidence,
        probabilities=probabilities,
        label=column("label"),
        ids=column("id"),
        latency_seconds=column("latency_seconds"),
        errors=count_errors(errors),
        error_reasons=error_reasons(errors),
        weight=weight,
    )


def split_probabilities(predictions: Values | None) -> tuple[Values | None, Values | None, Values | None]:
    """Predictions given as class to probability, to the top class and its probability.

    Returns:
        The predictions with each such object replaced by its most probable class; the probabilities of these classes;
        the objects themselves, and None for another prediction. The second is None where no prediction is an object,
        the third where none is one of class to number.

    >>> split_probabilities([{"yes": 0.9, "no": 0.1}, "no"])
    (['yes', 'no'], [0.9, None], [{'yes': 0.9, 'no': 0.1}, None])

    """
    if predictions is None or dict not in set(map(type, predictions)):
        return predictions, None, None
    classes: list[object] = []
    confidences: list[float | None] = []
    objects: list[object] = []
    for prediction in predictions:
        top, probability, given = prediction, None, None
        if is_probabilities(prediction):
            given = prediction
            top = max(prediction, key=prediction.__getitem__)
            if math.isnan(prediction[top]):  # it came first, and nothing is greater
                top = max(prediction, key=lambda name: -math.inf if math.isnan(prediction[name]) else prediction[name])
            probability = prediction[top]
        classes.append(top)
        confidences.append(probability)
        objects.append(given)
    return classes, confidences, objects if any(objects) else None


def is_probabilities(prediction: object) -> TypeGuard[dict[str, float]]:
    """Whether a prediction is an object of class to number, with at least one class."""
    return isinstance(prediction, dict) and len(prediction) > 0 and set(map(type, prediction.values())) <= _NUMBER_TYPES


def count_errors(errors: Sequence[object] | None) -> int:
    """How many samples carry an error: anything but null, false and an empty text or object."""
    return sum(map(bool, errors)) if errors else 0


def error_reasons(errors: Sequence[object] | None) -> dict[str, int]:
    """How many errors name each reason; of more than 20 different ones those that came first.

    A reason is a short name or code: what is free text may hold personal data, and would be a new series each time.

    >>> error_reasons(["timeout", {"code": 503}, "timeout", "no plan for Mr. Jones", None, True])
    {'timeout': 2, '503': 1}

    """
    counts: dict[str, int] = {}
    for error in filter(None, errors or ()):
        reason = _reason_of(error)
        if reason is not None and (reason in counts or len(counts) < REASONS_NAMED):
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def _reason_of(error: object) -> str | None:
    """The short name in an error: itself, or the first member of it that is one."""
    for part in map(error.get, _REASON_MEMBERS) if isinstance(error, dict) else (error,):
        if isinstance(part, str) and _REASON.fullmatch(part):
            return part
        if type(part) is int and 0 <= part <= _HIGHEST_CODE:
            return str(part)
    return None
