"""An `application/json` body, of samples or of labels: row form, column form, or a single one."""

from collections.abc import Callable
from typing import Any, TypeVar

from mlexporter.decode.forms import Row, kind, name_of
from mlexporter.decode.json_text import loads
from mlexporter.samples import DecodeError, Reason

_Result = TypeVar("_Result")


def decode_document(
    body: bytes,
    what: str,
    single: str,
    of_single: Callable[[list[Row], str | None, str | None, int], _Result],
    of_columns: Callable[[dict[str, Any], str | None, str | None, int], _Result],
    of_list: Callable[[list[Any], str | None, str | None, int], _Result],
) -> _Result:
    """Decode a body by its form.

    Args:
        body: JSON.
        what: one of what it holds; the member of the row form is its plural.
        single: the member that tells a single one.
        of_single: decodes a list of one row; this and the others get model, version and the bytes of the body, too.
        of_columns: decodes the column form.
        of_list: decodes the row form, whatever its items are.

    Raises:
        DecodeError: the framing of the body is broken.

    """
    document = loads(body)
    several = f"{what}s"
    if not isinstance(document, dict):
        raise DecodeError(
            Reason.INVALID_STRUCTURE, f"the body is an object with {_forms(what, single)}, not {kind(document)}"
        )
    found = [member for member in (several, "columns", single) if member in document]
    if len(found) != 1:
        given = " and ".join(f'"{member}"' for member in found) or "none of them"
        raise DecodeError(Reason.INVALID_STRUCTURE, f"the body has one of {_forms(what, single)}, and here is {given}")
    model, version = name_of(document, "model"), name_of(document, "version")
    (form,) = found
    if form == single:
        return of_single([document], model, version, len(body))
    content = document[form]
    if form == "columns":
        if not isinstance(content, dict):
            raise DecodeError(Reason.INVALID_STRUCTURE, f'"columns" is an object of columns, not {kind(content)}')
        return of_columns(content, model, version, len(body))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise DecodeError(Reason.INVALID_STRUCTURE, f'"{several}" is a list of {several}, not {kind(content)}')
    return of_list(content, model, version, len(body))


def _forms(what: str, single: str) -> str:
    return f'"{what}s" (a list of {what}s), "columns" (an object of columns) or "{single}" (one {what})'
