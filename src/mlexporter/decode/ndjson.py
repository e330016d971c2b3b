"""`application/x-ndjson` of `POST /v1/samples`: a sample in row form per line, each with its own model and version."""

from collections.abc import Iterable

import orjson

from mlexporter.decode.json_text import loads
from mlexporter.decode.rows import Rejections, decode_rows, kind, name_of
from mlexporter.samples import Batch, Decoded, DecodeError, Reason, Rejection


def decode(body: bytes) -> Decoded:
    """Decode lines; empty ones are passed over. A broken line costs only itself.

    The index of a rejection is the number of the sample, from 0, empty lines not counted.
    """
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    broken = Rejections()
    groups: dict[tuple[str | None, str | None], tuple[list[object], list[int]]] = {}
    for index, row in enumerate(_parse(lines)):
        if isinstance(row, DecodeError):
            broken.add(Rejection(index, row.reason, row.message))
            continue
        if not isinstance(row, dict):
            broken.add(Rejection(index, Reason.NOT_AN_OBJECT, f"a sample is an object, not {kind(row)}"))
            continue
        try:
            names = name_of(row, "model"), name_of(row, "version")
        except DecodeError as error:
            broken.add(Rejection(index, error.reason, error.message))
            continue
        rows, indices = groups.setdefault(names, ([], []))
        rows.append(row)
        indices.append(index)
    batches: list[Batch] = []
    rejections = [*broken.listed()]
    for (model, version), (rows, indices) in groups.items():
        decoded = decode_rows(rows, model, version, len(body) * len(rows) // len(lines), indices)
        batches += decoded.batches
        rejections += decoded.rejections
    together = Rejections()
    for rejection in sorted(rejections, key=lambda rejection: rejection.index):
        together.add(rejection)
    return Decoded(tuple(batches), together.listed())


def _parse(lines: list[bytes]) -> Iterable[object]:
    """The value of each line, or the error of one that is broken."""
    try:
        return list(map(orjson.loads, lines))  # without a step of Python per line, unless a line is broken
    except orjson.JSONDecodeError:
        return map(_parse_line, lines)  # one at a time: millions of errors would cost gigabytes


def _parse_line(line: bytes) -> object:
    try:
        return loads(line)
    except DecodeError as error:
        return error
