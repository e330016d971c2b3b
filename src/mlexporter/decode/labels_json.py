"""`application/json` of `POST /v1/labels`: row form, column form, a single label."""

from collections.abc import Sequence
from typing import Any

from mlexporter.decode.forms import common_length, kind
from mlexporter.decode.json_document import decode_document
from mlexporter.decode.label_rows import FIELDS, all_good, decode_label_rows, decode_named_label_rows, one_of
from mlexporter.samples import DecodedLabels, DecodeError, Reason


def decode(body: bytes) -> DecodedLabels:
    """Decode a JSON body.

    Raises:
        DecodeError: its framing is broken.

    """
    return decode_document(body, "label", "label", decode_label_rows, _decode_columns, _decode_list)


def _decode_list(rows: list[Any], model: str | None, version: str | None, weight: int) -> DecodedLabels:
    if _plain(rows):
        return decode_label_rows(rows, model, version, weight)
    return decode_named_label_rows(rows, model, version, weight, len(rows))


def _plain(rows: Sequence[object]) -> bool:
    """Whether all rows are objects, and none of them names a model or version of its own."""
    return all(isinstance(row, dict) and "model" not in row and "version" not in row for row in rows)


def _decode_columns(columns: dict[str, Any], model: str | None, version: str | None, weight: int) -> DecodedLabels:
    if columns.get("label") is None:
        what = kind(None) if "label" in columns else "absent"
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns.label" is a list of labels, not {what}')
    given: dict[str, list[Any]] = {name: columns[name] for name in FIELDS if columns.get(name) is not None}
    common_length({}, given)
    if all_good(given):
        return one_of(given, model, version, weight)
    rows = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    return decode_label_rows(rows, model, version, weight)
