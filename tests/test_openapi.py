"""The description of the HTTP API says what the decoders take and what the routes answer: no more and no less."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import test_decode_fuzz as fuzz
from conftest import Clock, baseline, numeric
from labelled import labelled_store
from mlexporter import baseline as baselines
from mlexporter import decode
from mlexporter.answers import Problem, Refusal, Refused, Taken, encoded
from mlexporter.columns import learn_column
from mlexporter.explanation import drift_of
from mlexporter.openapi import document, reports
from mlexporter.pending.records import Direct, Joined
from mlexporter.samples import Decoded, DecodedLabels, DecodeError, Reason, Rejection, Role
from mlexporter.server import _described
from mlexporter.status import status_of
from mlexporter.store import Store
from test_explanation import Stream, drawn

JSON = "application/json"
DOCUMENT = document()
Schema = dict[str, Any]


def validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def of(name: str) -> jsonschema_rs.Draft202012Validator:
    return validator({"$ref": f"#/components/schemas/{name}"})


def taken_by(path: str) -> jsonschema_rs.Draft202012Validator:
    return validator(DOCUMENT["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"])


SAMPLES, LABELS = taken_by("/v1/samples"), taken_by("/v1/labels")


def strict(schema: Any) -> Any:
    """The schema with every member that it does not name forbidden."""
    if isinstance(schema, dict):
        closed = {"additionalProperties": False} if "properties" in schema else {}
        return {key: strict(part) for key, part in schema.items()} | closed
    return [strict(part) for part in schema] if isinstance(schema, list) else schema


def check_answer(name: str, content: object) -> None:
    """Hold an answer to its shape: all that has to be there is there, and nothing else."""
    written = json.loads(orjson.dumps(content))
    schemas = {"components": strict(DOCUMENT["components"]), "$ref": f"#/components/schemas/{name}"}
    jsonschema_rs.Draft202012Validator(schemas).validate(written)


# -- the document -----------------------------------------------------------------------------------------------------


def test_every_reference_leads_somewhere() -> None:
    found = set(re.findall(r'"#/components/schemas/([^"]*)"', json.dumps(DOCUMENT)))
    assert found <= DOCUMENT["components"]["schemas"].keys()
    assert "#/$defs" not in json.dumps(DOCUMENT)


def test_every_schema_is_one() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "components": DOCUMENT["components"]}
        )
        assert schema.get("type") == "object" or "enum" in schema, name


def test_operations_have_names_of_their_own() -> None:
    operations = [
        operation
        for routes in DOCUMENT["paths"].values()
        for method, operation in routes.items()
        if method != "parameters"
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) == 12


def test_probes_are_open_and_nothing_else_is() -> None:
    for path, routes in DOCUMENT["paths"].items():
        for method in routes.keys() - {"parameters"}:
            guarded = path not in ("/-/healthy", "/-/ready")
            assert ("security" in routes[method]) is guarded
            assert ({"401", "403", "429"} <= routes[method]["responses"].keys()) is guarded


# -- what is sent -----------------------------------------------------------------------------------------------------

names = (
    st.none()
    | st.text("aä1 \u200b\u00a0\x07\U0001f600", max_size=3)
    | st.integers(-(1 << 64), 1 << 65)
    | st.sampled_from(["x" * 128, "x" * 129, 1.5, True, []])
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    ["x" * 256, "x" * 257, 1e308, -1e308, 1 << 70, "", None, True, [], {}, {"a": 1}, {"a": None}]
)
values = fuzz.values.filter(lambda value: not isinstance(value, float) or math.isfinite(value)) | odd
numbers = st.floats(allow_nan=False, allow_infinity=False)


def members(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Objects that are good often enough, and now and then lack what is required."""
    named = {**optional, "model": names, "version": names}
    return st.fixed_dictionaries(required, optional=named) | st.fixed_dictionaries({}, optional={**required, **named})


def lists(element: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(element, min_size=1, max_size=1) | st.lists(element, max_size=2) | odd


sample_fields = {
    "id": st.text(max_size=2) | odd,
    "prediction": values,
    "label": values,
    "latency_seconds": numbers | odd,
    "error": st.booleans() | st.text(max_size=2) | odd,
}
features = st.dictionaries(st.text("ab", max_size=1), values, max_size=2)
samples = members({"features": features | odd}, sample_fields)
truth = numbers | st.text("ab", min_size=1, max_size=2) | st.booleans() | odd
probabilities = st.dictionaries(st.text("ab", max_size=1), numbers | odd, max_size=2)
label_fields = {"id": st.text("ab", min_size=1, max_size=2) | odd, "prediction": truth | probabilities}
labels = members({"label": truth}, label_fields)


def columns_of(features: Any, fields: dict[str, Any]) -> st.SearchStrategy[Any]:
    lists_of = {name: lists(each) for name, each in fields.items()}
    return st.fixed_dictionaries(features, optional=lists_of) | st.fixed_dictionaries({}, optional=lists_of)


sample_columns = columns_of(
    {"features": st.dictionaries(st.text("ab", max_size=1), lists(values), max_size=2) | odd}, sample_fields
)
label_columns = columns_of({"label": lists(truth)}, label_fields)


def documents(
    what: str, row: st.SearchStrategy[Any], columns: st.SearchStrategy[Any], single: str
) -> st.SearchStrategy[Any]:
    named = {"model": names, "version": names}
    rows = row | st.lists(row, max_size=3) | odd
    return (
        st.fixed_dictionaries({what: rows}, optional=named)
        | st.fixed_dictionaries({"columns": columns | odd}, optional=named)
        | row
        | st.fixed_dictionaries({}, optional={**named, what: rows, "columns": columns, single: odd})
        | odd
    )


def sent(value: Any) -> bytes | None:
    """The document as it is sent; None where it cannot be: a name in it is half a surrogate pair."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (UnicodeEncodeError, ValueError):
        return None


def complaints(decoder: Callable[[bytes, str], Decoded | DecodedLabels], body: bytes) -> tuple[set[Reason], int]:
    """Reasons that something is refused for, and how many samples or labels are taken."""
    try:
        decoded = decoder(body, JSON)
    except DecodeError as error:
        return {error.reason}, 0
    size = sum(each.size for each in (decoded.batches if isinstance(decoded, Decoded) else decoded.labels))
    return {each.reason for each in decoded.rejections}, size


ANY_SAMPLES = documents("samples", samples, sample_columns, "features")
ANY_LABELS = documents("labels", labels, label_columns, "label")


@given(ANY_SAMPLES)
@settings(max_examples=600)
@example({"features": {}, "version": 1 << 64})
@example({"features": {}, "version": (1 << 64) - 1})
@example({"features": {}, "latency_seconds": 0})
def test_samples_are_taken_as_the_schema_says(content: Any) -> None:
    body = sent(content)
    if body is None:
        return
    reasons, _ = complaints(decode.decode, body)
    if SAMPLES.is_valid(content):
        # that lists are of equal length is what a schema cannot say
        assert reasons <= {Reason.UNEQUAL_COLUMNS} if "columns" in content else not reasons
    else:
        assert reasons


@given(ANY_LABELS)
@settings(max_examples=600)
def test_labels_are_taken_as_the_schema_says(content: Any) -> None:
    body = sent(content)
    if body is None:
        return
    reasons, size = complaints(decode.decode_labels, body)
    if LABELS.is_valid(content):
        told = {Reason.UNEQUAL_COLUMNS, Reason.MISSING_ID} if "columns" in content else set()
        assert reasons <= told
    else:
        assert reasons or (size == 0 and "columns" in content)  # of no labels none lacks an id


@pytest.mark.parametrize(
    ("what", "any_document", "validated"), [("samples", ANY_SAMPLES, SAMPLES), ("labels", ANY_LABELS, LABELS)]
)
def test_the_generators_reach_both_sides(what: str, any_document: st.SearchStrategy[Any], validated: Any) -> None:
    """The tests above compare something: documents of every form, good ones and bad ones."""
    seen: dict[tuple[str, bool], int] = {}

    @given(any_document)
    @settings(max_examples=1500, database=None, derandomize=True)
    def look(content: Any) -> None:
        if sent(content) is not None and isinstance(content, dict):
            form = next((member for member in (what, "columns") if member in content), "single")
            key = form, validated.is_valid(content)
            seen[key] = seen.get(key, 0) + 1

    look()
    assert len(seen) == 6, seen
    assert min(seen.values()) >= 5, seen


@pytest.mark.parametrize("form", fuzz.VALID | fuzz.VALID_LABELS)
def test_lines_are_rows(form: str) -> None:
    """Each line of NDJSON is what the description says that it is."""
    if form in ("ndjson", "lines"):
        (_, body), name = (fuzz.VALID[form], "Sample") if form == "ndjson" else (fuzz.VALID_LABELS[form], "TruthOf")
        for line in filter(None, body.split(b"\n")):
            of(name).validate(json.loads(line))
        content = DOCUMENT["paths"]["/v1/samples" if name == "Sample" else "/v1/labels"]["post"]["requestBody"][
            "content"
        ]
        assert content["application/x-ndjson"]["schema"]["description"].endswith(f" {name}.")


# -- what is answered -------------------------------------------------------------------------------------------------


def test_answers_to_who_sends() -> None:
    refused = (
        Refused(3, Reason.INVALID_ID, "m"),
        _described(Rejection(1, Reason.INVALID_LATENCY, 'is "x"', "latency_seconds", count=7)),
    )
    taken = encoded(Taken(2, 8, list(refused)))
    assert taken == (
        b'{"accepted":2,"rejected":8,"errors":[{"index":3,"reason":"invalid_id","message":"m"},{"index":1,'
        b'"reason":"invalid_latency","message":"is \\"x\\"","column":"latency_seconds","count":7}]}\n'
    )
    refusal = encoded(Refusal("e", Reason.OVERLOADED, None))
    assert refusal == b'{"error":"e","reason":"overloaded","column":null}\n'
    for name, written in (("Taken", taken), ("Refusal", refusal), ("Problem", encoded(Problem("e")))):
        check_answer(name, json.loads(written))
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Taken"]["required"] == ["accepted", "rejected", "errors"]
    assert schemas["Refused"]["required"] == ["index", "reason", "message"]
    assert sorted(schemas["Reason"]["enum"]) == sorted(Reason)


def check_reports(store: Store) -> list[dict[str, Any]]:
    """Hold status, drift and baselines of a store to their shapes; returns what was told of drift."""
    snapshot = store.snapshot()
    status = status_of(snapshot, started=1.5, max_series=9)
    check_answer("Status", status)
    told = []
    for version in status["models"]:
        drift = drift_of(snapshot, version["model"], version["version"])
        check_answer("Drift", drift)
        assert drift is not None
        told.append(drift)
        found = store.baseline(version["model"], version["version"])
        if found is not None:
            check_answer("Baseline", json.loads(baselines.encode(found)))
    return told


def test_reports_of_labels_and_of_concept_drift() -> None:
    clock = Clock()
    store = labelled_store(clock, {("silent", "1"): baseline(numeric("x", (0.0, 1.0), [0.5] * 9))})
    check_reports(store)
    scores = (np.random.default_rng(5).integers(0, 17, 4000) / 16).tolist()
    direct = Direct("binary", "1", scores, [int(score < 0.5) for score in scores], clock.now)
    store.feedback.install(store.feedback.tally(Joined(), [direct]))
    clock.now += 15
    store.tick()
    (binary, *_) = check_reports(store)
    assert binary["outcomes"]["tiers"]["page"]["predictions"]


def test_reports_of_drift() -> None:
    random = np.random.default_rng(3)
    history = drawn(random, 5000, drift=False)
    learned = tuple(learn_column(Role.FEATURE, name, values, None) for name, values in history.items())
    stream = Stream(baselines.sealed(baselines.Baseline(rows=5000, columns=learned)))
    check_reports(stream.store)
    for _ in range(5):
        stream.tick(drawn(random, 1000, drift=True))
    (told,) = check_reports(stream.store)
    assert any("reasons" in column["tiers"]["page"] for column in told["columns"])


def test_the_shapes_of_reports_are_no_wider_than_they_have_to_be() -> None:
    """A member too many is found: shapes that took everything would make the tests above worthless."""
    status = status_of(labelled_store(Clock()).snapshot(), started=1.5, max_series=9)
    for changed in (status | {"more": 1}, {"version": "1"}, status | {"started": "1"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check_answer("Status", changed)
    assert msgspec.convert(status, reports.Status).version == status["version"]
