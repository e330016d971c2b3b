"""True labels in row form, to columns. Used by every form of `POST /v1/labels`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from mlexporter.decode.forms import Rejections, Row, by_name, kind
from mlexporter.decode.rows import is_probabilities
from mlexporter.samples import DecodedLabels, Labels, Reason, Rejection

TEXT_LENGTH: Final = 256
# of each field: the types of its values, the reason to refuse another one, and what is accepted, in words
_FIELDS: Final[Mapping[str, tuple[frozenset[type], Reason, str]]] = {
    "label": (frozenset((float, int, str, bool)), Reason.INVALID_LABEL, "a number, text or a boolean"),
    "id": (frozenset((str, type(None))), Reason.INVALID_ID, "text"),
    "prediction": (
        frozenset((float, int, str, bool, dict, type(None))),
        Reason.INVALID_LABEL,
        "a number, text, a boolean or an object of class to probability",
    ),
}
FIELDS: Final = tuple(_FIELDS)

Columns = Mapping[str, Sequence[Any]]
"""Those of the fields that at least one label has, each with a value per label, None where it is absent."""


def decode_label_rows(
    rows: Sequence[Row], model: str | None, version: str | None, weight: int, indices: Sequence[int] | None = None
) -> DecodedLabels:
    """Labels of one model and version.

    Args:
        rows: objects with `label`, and with `id`, `prediction` or both.
        model: or None where the request names none.
        version: or None.
        weight: bytes they were decoded from.
        indices: where each row stood in the request, if not at its index.

    """
    columns = _columns_of(rows)
    if not rows or all_good(columns):
        return one_of(columns, model, version, weight, indices[0] if indices else 0)
    rejections = Rejections()
    kept: list[Row] = []
    first = 0
    for i, row in enumerate(rows):
        index = i if indices is None else indices[i]
        problem = _problem(row)
        if problem is not None:
            rejections.add(Rejection(index, *problem))
            continue
        if not kept:
            first = index
        kept.append(row)
    labels = one_of(_columns_of(kept), model, version, weight * len(kept) // len(rows), first).labels
    return DecodedLabels(labels, rejections.listed())


def decode_named_label_rows(
    rows: Iterable[object], model: str | None, version: str | None, weight: int, total: int
) -> DecodedLabels:
    """Labels that may each name a model and a version of their own, in objects with `label`; see `by_name`."""
    parts, rejections = by_name(rows, model, version, weight, total, "a label", decode_label_rows)
    return DecodedLabels(tuple(chain.from_iterable(part.labels for part in parts)), rejections)


def one_of(columns: Columns, model: str | None, version: str | None, weight: int, index: int = 0) -> DecodedLabels:
    """Columns in which all is good, as labels; none at all where they are empty."""
    if not columns.get("label"):
        return DecodedLabels(())
    ids, prediction = (_unless_absent(columns.get(name)) for name in ("id", "prediction"))
    labels = Labels(
        size=len(columns["label"]),
        label=columns["label"],
        model=model,
        version=version,
        ids=ids,
        prediction=prediction,
        index=index,
        weight=weight,
    )
    return DecodedLabels((labels,))


def _columns_of(rows: Sequence[Row]) -> Columns:
    members = set().union(*rows)
    return {name: [row.get(name) for row in rows] for name in FIELDS if name in members}


def _unless_absent(values: Sequence[Any] | None) -> Sequence[Any] | None:
    return None if values is None or set(map(type, values)) == {type(None)} else values


def all_good(columns: Columns) -> bool:
    """Whether no label has a problem, decided column by column: the common case, and several times as fast."""
    if not all(_good_values(columns.get(name, (None,)), types) for name, (types, _, _) in _FIELDS.items()):
        return False
    ids, predictions = columns.get("id"), columns.get("prediction")
    if ids is None or predictions is None:
        return None not in (ids or predictions or (None,))
    return None not in ids or all(
        given is not None or prediction is not None for given, prediction in zip(ids, predictions, strict=True)
    )


def _good_values(values: Sequence[Any], types: frozenset[type]) -> bool:
    """Whether all are of these types, all numbers finite, all texts of good length and all objects probabilities."""
    found = set(map(type, values))
    return (
        found <= types
        and (float not in found or all(math.isfinite(value) for value in values if type(value) is float))
        and (str not in found or all(0 < len(value) <= TEXT_LENGTH for value in values if type(value) is str))
        and (dict not in found or all(is_probabilities(value) for value in values if type(value) is dict))
    )


def _problem(row: Row) -> tuple[Reason, str, str] | None:
    """Why a label is refused."""
    for name, (types, reason, accepted) in _FIELDS.items():
        value = row.get(name)
        if type(value) not in types:
            what = kind(value) if name in row else "absent"
            return reason, f'"{name}" is {accepted}, not {what}', name
        wrong = _wrong_value(value)
        if wrong is not None:
            return reason, f'"{name}" {wrong}', name
    if row.get("id") is None and row.get("prediction") is None:
        return Reason.MISSING_ID, "a label needs the id of its prediction, or the prediction itself", "id"
    return None


def _wrong_value(value: object) -> str | None:
    """What is wrong with a value of a good type."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"is finite, not {value}"
    if isinstance(value, str) and not 0 < len(value) <= TEXT_LENGTH:
        return f"has 1 to {TEXT_LENGTH} characters, not {len(value)}"
    if isinstance(value, dict) and not is_probabilities(value):
        return "has at least one class, and a number for each"
    return None
