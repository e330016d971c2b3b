"""`application/x-ndjson`: a sample or a label in row form per line, each with its own model and version."""

from collections.abc import Iterable

import orjson

from mlexporter.decode.json_text import loads
from mlexporter.decode.label_rows import decode_named_label_rows
from mlexporter.decode.rows import decode_named_rows
from mlexporter.samples import Decoded, DecodedLabels, DecodeError


def decode(body: bytes) -> Decoded:
    """Decode lines of samples; empty ones are passed over. A broken line costs only itself.

    The index of a rejection is the number of the sample, from 0, empty lines not counted.
    """
    lines = _lines(body)
    return decode_named_rows(_parse(lines), None, None, len(body), len(lines))


def decode_labels(body: bytes) -> DecodedLabels:
    """Decode lines of labels, as those of samples."""
    lines = _lines(body)
    return decode_named_label_rows(_parse(lines), None, None, len(body), len(lines))


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line and not line.isspace()]


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
        # One that was never raised: the way that this one came leads to whoever keeps it, and so back to it. That ring
        # would hold the whole request until the garbage collector comes by.
        return DecodeError(error.reason, error.message, error.column)
