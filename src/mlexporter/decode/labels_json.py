"""`application/json` of `POST /v1/labels`: row form, column form, a single label."""

from collections.abc import Sequence
from typing import Any, Final

from mlexporter.decode.forms import common_length, kind, name_of
from mlexporter.decode.json_text import loads
from mlexporter.decode.label_rows import FIELDS, all_good, decode_label_rows, decode_named_label_rows, one_of
from mlexporter.samples import DecodedLabels, DecodeError, Reason

_SHAPES: Final = '"labels" (a list of labels), "columns" (an object of columns) or "label" (one label)'


def decode(body: bytes) -> DecodedLabels:
    """Decode a JSON body.

    Raises:
        DecodeError: its framing is broken.

    """
    document = loads(body)
    if not isinstance(document, dict):
        raise DecodeError(Reason.INVALID_STRUCTURE, f"the body is an object with {_SHAPES}, not {kind(document)}")
    shapes = [shape for shape in ("labels", "columns", "label") if shape in document]
    if len(shapes) != 1:
        found = " and ".join(f'"{shape}"' for shape in shapes) or "none of them"
        raise DecodeError(Reason.INVALID_STRUCTURE, f"the body has one of {_SHAPES}, and here is {found}")
    model, version = name_of(document, "model"), name_of(document, "version")
    if shapes == ["label"]:
        return decode_label_rows([document], model, version, len(body))
    content = document[shapes[0]]
    if shapes == ["columns"]:
        return _decode_columns(content, model, version, len(body))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"labels" is a list of labels, not {kind(content)}')
    if _plain(content):
        return decode_label_rows(content, model, version, len(body))
    return decode_named_label_rows(content, model, version, len(body), len(content))


def _plain(rows: Sequence[object]) -> bool:
    """Whether all rows are objects, and none of them names a model or version of its own."""
    return all(isinstance(row, dict) and "model" not in row and "version" not in row for row in rows)


def _decode_columns(columns: object, model: str | None, version: str | None, weight: int) -> DecodedLabels:
    if not isinstance(columns, dict):
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns" is an object of columns, not {kind(columns)}')
    if columns.get("label") is None:
        what = kind(None) if "label" in columns else "absent"
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns.label" is a list of labels, not {what}')
    given: dict[str, list[Any]] = {name: columns[name] for name in FIELDS if columns.get(name) is not None}
    common_length({}, given)
    if all_good(given):
        return one_of(given, model, version, weight)
    rows = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    return decode_label_rows(rows, model, version, weight)
