"""What schemathesis is told of this API beyond its description; its command reads this file."""

import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

import test_decode_fuzz as fuzz

# What a schema cannot say: lists of one length, an id or a prediction in each row of columns, a body that is gzip where
# a header says so.
UNSAID = {"unequal_columns", "missing_id", "invalid_gzip"}
# Nor that a name is 7 and not 7.0, which is an integer to JSON Schema.
UNSAID_OF_FRACTIONS = UNSAID | {"invalid_model"}


def lines_of(rows: list[Any]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


schemathesis.openapi.media_type("application/x-ndjson", st.lists(fuzz.samples | fuzz.labels, max_size=4).map(lines_of))


def has_fraction_as_name(body: object) -> bool:
    """Whether a model or a version, anywhere in it, is a number with a point."""
    if isinstance(body, dict):
        names = (body.get("model"), body.get("version"))
        return any(isinstance(name, float) for name in names) or any(map(has_fraction_as_name, body.values()))
    return isinstance(body, list) and any(map(has_fraction_as_name, body))


@schemathesis.check
def valid_data_is_taken(
    _: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """A document that is in the schema is refused for nothing that the schema could have said."""
    if case.meta is None or case.media_type != "application/json" or not case.meta.generation.mode.is_positive:
        return
    told = answer.json()
    unsaid = UNSAID_OF_FRACTIONS if has_fraction_as_name(case.body) else UNSAID
    if answer.status_code == 400:
        assert told["reason"] in unsaid, told
    elif "errors" in told and answer.status_code == 200:
        assert {each["reason"] for each in told["errors"]} <= unsaid, told


@schemathesis.check
def only_503_of_5xx(_: schemathesis.CheckContext, answer: schemathesis.Response, __: schemathesis.Case[Any]) -> None:
    assert answer.status_code < 500 or answer.status_code == 503
