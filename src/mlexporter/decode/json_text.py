"""JSON as it comes: strict and fast, with a second try for NaN, Infinity and numbers beyond the range of a double."""

import json
from typing import Final

import orjson

from mlexporter.samples import DecodeError, Reason

_LENIENT: Final = (b"NaN", b"Infinity")
# What orjson takes for an integer, and can write again: of 64 bits, with a sign or without. None has more digits.
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
_INTEGER_DIGITS: Final = 20


def loads(body: bytes) -> object:
    """Parse JSON. NaN, Infinity and -Infinity are taken as Python's json writes them, 1e400 as infinity.

    Of equal keys in one object the last one counts, as in every common parser.

    Raises:
        DecodeError: it is not JSON; the message says where.

    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if any(word in body for word in _LENIENT) or "infinity" in error.msg:
            return _loads_lenient(body)
        raise _invalid(error) from error


def _loads_lenient(body: bytes) -> object:
    try:
        document: object = json.loads(body.decode("utf-8"), parse_int=_number)
        # A lone surrogate cannot be written as UTF-8 again: refuse it here, as orjson does.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise _invalid(error) from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(Reason.INVALID_JSON, f"the body is not valid JSON: {error}") from error
    return document


def _number(digits: str) -> int | float:
    """An integer, or beyond the range of those the number it is nearest to, as orjson has it; 1e400 is infinity."""
    if len(digits) <= _INTEGER_DIGITS and (number := int(digits)) in _INTEGERS:
        return number
    return float(digits)


def _invalid(error: json.JSONDecodeError) -> DecodeError:
    return DecodeError(
        Reason.INVALID_JSON, f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    )
