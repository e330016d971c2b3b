"""What each body of labels decodes to: every form, every rule, and every refusal with its exact words."""

import json
from typing import Any

import pytest

from mlexporter import decode
from mlexporter.samples import DecodedLabels, DecodeError, Labels, Reason, Rejection

JSON = "application/json"
NDJSON = "application/x-ndjson"

SHAPES = '"labels" (a list of labels), "columns" (an object of columns) or "label" (one label)'


def decoded_of(body: str | bytes, content_type: str = JSON) -> DecodedLabels:
    return decode.decode_labels(body.encode() if isinstance(body, str) else body, content_type)


def labels_of(body: str | bytes, content_type: str = JSON) -> list[dict[str, Any]]:
    decoded = decoded_of(body, content_type)
    assert decoded.rejections == ()
    return [plain(labels) for labels in decoded.labels]


def error_of(body: str | bytes, content_type: str = JSON) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decoded_of(body, content_type)
    return caught.value


def plain(labels: Labels) -> dict[str, Any]:
    """Labels with lists for all sequences, and without what is not there."""
    fields: dict[str, Any] = {"size": labels.size, "label": list(labels.label)}
    for name in ("ids", "prediction"):
        values = getattr(labels, name)
        if values is not None:
            fields[name] = list(values)
    return fields | {name: getattr(labels, name) for name in ("model", "version") if getattr(labels, name) is not None}


# -- forms

ROWS = """{"model": "churn", "version": "7", "labels": [
    {"id": "r-1", "label": 1, "prediction": 0.83}, {"id": "r-2", "label": "yes"},
    {"label": false, "prediction": {"yes": 0.25, "no": 0.75}}]}"""
COLUMNS = """{"model": "churn", "version": "7", "columns": {"id": ["r-1", "r-2", null], "label": [1, "yes", false],
    "prediction": [0.83, null, {"yes": 0.25, "no": 0.75}]}}"""
LINES = """
{"model": "churn", "version": "7", "id": "r-1", "label": 1, "prediction": 0.83}
{"model": "churn", "version": 7, "id": "r-2", "label": "yes"}\r

{"model": "churn", "version": "7", "label": false, "prediction": {"yes": 0.25, "no": 0.75}}
"""
THREE = {
    "size": 3,
    "model": "churn",
    "version": "7",
    "label": [1, "yes", False],
    "ids": ["r-1", "r-2", None],
    "prediction": [0.83, None, {"yes": 0.25, "no": 0.75}],
}


def test_all_forms_are_the_same() -> None:
    assert labels_of(ROWS) == [THREE]
    assert labels_of(COLUMNS) == [THREE]
    for content_type in (NDJSON, "application/ndjson", "Application/JSONL; charset=utf-8"):
        assert labels_of(LINES, content_type) == [THREE]
    for content_type in ("", "APPLICATION/JSON; charset=utf-8"):
        assert labels_of(ROWS, content_type) == [THREE]


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "churn", "id": "r-1", "label": 1}',
        '{"model": "churn", "labels": [{"id": "r-1", "label": 1}]}',
        '{"model": "churn", "labels": {"id": "r-1", "label": 1}}',
        '{"model": "churn", "labels": [{"model": "churn", "id": "r-1", "label": 1, "prediction": null}]}',
        '{"model": "churn", "columns": {"id": ["r-1"], "label": [1], "prediction": null}}',
        '{"model": "churn", "columns": {"id": ["r-1"], "label": [1], "prediction": [null], "score": 1}}',
    ],
    ids=["alone", "list of one", "alone under labels", "with its model", "columns", "columns with null"],
)
def test_one_label(body: str) -> None:
    assert labels_of(body) == [{"size": 1, "model": "churn", "label": [1], "ids": ["r-1"]}]


def test_a_label_with_its_prediction_needs_no_id() -> None:
    expected = [{"size": 2, "label": [1, 0], "prediction": [0.83, True]}]
    assert labels_of('{"labels": [{"label": 1, "prediction": 0.83}, {"label": 0, "prediction": true}]}') == expected
    assert labels_of('{"columns": {"label": [1, 0], "prediction": [0.83, true], "id": [null, null]}}') == expected


def test_labels_are_grouped_by_model_and_version() -> None:
    rows = [
        '{"id": "a", "label": 1}',
        '{"id": "b", "label": 2, "version": 7}',
        '{"id": "c", "label": 3, "model": "fraud"}',
        '{"id": "d", "label": 4, "version": "8", "prediction": "x"}',
        '{"id": "e", "label": 5, "model": "churn", "version": "7"}',
        '{"id": "f", "label": 6, "version": null}',
    ]
    expected = [
        {"size": 2, "model": "churn", "label": [1, 6], "ids": ["a", "f"]},
        {"size": 2, "model": "churn", "version": "7", "label": [2, 5], "ids": ["b", "e"]},
        {"size": 1, "model": "fraud", "label": [3], "ids": ["c"]},
        {"size": 1, "model": "churn", "version": "8", "label": [4], "ids": ["d"], "prediction": ["x"]},
    ]
    body = f'{{"model": "churn", "labels": [{", ".join(rows)}]}}'
    assert labels_of(body) == expected
    assert [labels.index for labels in decoded_of(body).labels] == [0, 1, 2, 3]
    lines = '{"id": "a", "label": 1, "model": "churn"}\n{"id": "b", "label": 2}\n{"label": 3, "prediction": 0}'
    assert labels_of(lines, NDJSON) == [
        {"size": 1, "model": "churn", "label": [1], "ids": ["a"]},
        {"size": 2, "label": [2, 3], "ids": ["b", None], "prediction": [None, 0]},
    ]


def test_weight_is_the_bytes_of_the_request() -> None:
    assert [labels.weight for labels in decoded_of(ROWS).labels] == [len(ROWS)]
    assert [labels.weight for labels in decoded_of(COLUMNS).labels] == [len(COLUMNS)]
    lines = '{"model": "a", "label": 1, "id": "b"}\n{"model": "b", "label": 1, "id": "b"}\n'
    assert [labels.weight for labels in decoded_of(lines, NDJSON).labels] == [len(lines) // 2] * 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"labels": []}', JSON),
        ('{"columns": {"label": []}}', JSON),
        ('{"columns": {"label": [], "id": [], "prediction": []}}', JSON),
        ("", NDJSON),
        ("\n \n\r\n", NDJSON),
    ],
)
def test_no_labels_are_nothing(body: str, content_type: str) -> None:
    assert decoded_of(body, content_type) == DecodedLabels(())


# -- values


@pytest.mark.parametrize("beside", ["1", "NaN"], ids=["", "with the slower parser"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1.5", -1.5),
        ("1e300", 1e300),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775809", -(2.0**63)),
        ("99999999999999999999", 1e20),
        ("true", True),
        ('"no"', "no"),
        ('"é😀"', "é😀"),
        ('"' + "x" * 256 + '"', "x" * 256),
    ],
)
def test_values(text: str, value: object, beside: str) -> None:
    body = f'{{"labels": [{{"id": "a", "label": {text}, "other": {beside}}}]}}'
    (labels,) = decoded_of(body).labels
    assert list(labels.label) == [value]
    assert type(labels.label[0]) is type(value)
    (labels,) = decoded_of(f'{{"columns": {{"label": [{text}], "prediction": [{text}]}}, "other": {beside}}}').labels
    assert (list(labels.label), list(labels.prediction or ())) == ([value], [value])


@pytest.mark.parametrize("text", ['{"a": 0.5}', '{"a": 1, "b": -3}', '{"a": 0.5, "b": 1e400}'])
def test_probabilities_are_passed_on_as_they_are(text: str) -> None:
    expected = [json.loads(text)]
    assert labels_of(f'{{"label": 1, "prediction": {text}}}')[0]["prediction"] == expected
    assert labels_of(f'{{"columns": {{"label": [1], "prediction": [{text}]}}}}')[0]["prediction"] == expected


# -- one bad label never costs its neighbours

LABEL = '"label" is a number, text or a boolean, not '
PREDICTION = '"prediction" is a number, text, a boolean or an object of class to probability, not an array'
CLASSES = '"prediction" has at least one class, and a number for each'
LONG = '"' + "x" * 257 + '"'
LENGTH = "has 1 to 256 characters, not "
BAD_FIELDS: list[tuple[str, Reason, str, str]] = [
    ('"label": null, "id": "a"', Reason.INVALID_LABEL, LABEL + "null", "label"),
    ('"label": [1], "id": "a"', Reason.INVALID_LABEL, LABEL + "an array", "label"),
    ('"label": {"x": 1}, "id": "a"', Reason.INVALID_LABEL, LABEL + "an object", "label"),
    ('"label": "", "id": "a"', Reason.INVALID_LABEL, f'"label" {LENGTH}0', "label"),
    (f'"label": {LONG}, "id": "a"', Reason.INVALID_LABEL, f'"label" {LENGTH}257', "label"),
    *(
        (f'"label": {text}, "id": "a"', Reason.INVALID_LABEL, f'"label" is finite, not {what}', "label")
        for text, what in (
            ("NaN", "nan"),
            ("Infinity", "inf"),
            ("-Infinity", "-inf"),
            ("1e400", "inf"),
            ("1" + "0" * 400, "inf"),
        )
    ),
    ('"label": 1, "id": 7', Reason.INVALID_ID, '"id" is text, not a number', "id"),
    ('"label": 1, "id": true', Reason.INVALID_ID, '"id" is text, not a boolean', "id"),
    ('"label": 1, "id": {}', Reason.INVALID_ID, '"id" is text, not an object', "id"),
    ('"label": 1, "id": "", "prediction": 1', Reason.INVALID_ID, f'"id" {LENGTH}0', "id"),
    (f'"label": 1, "id": {LONG}', Reason.INVALID_ID, f'"id" {LENGTH}257', "id"),
    ('"label": 1, "id": "a", "prediction": [1]', Reason.INVALID_LABEL, PREDICTION, "prediction"),
    ('"label": 1, "prediction": NaN', Reason.INVALID_LABEL, '"prediction" is finite, not nan', "prediction"),
    ('"label": 1, "prediction": -1e400', Reason.INVALID_LABEL, '"prediction" is finite, not -inf', "prediction"),
    ('"label": 1, "prediction": ""', Reason.INVALID_LABEL, f'"prediction" {LENGTH}0', "prediction"),
    (f'"label": 1, "prediction": {LONG}', Reason.INVALID_LABEL, f'"prediction" {LENGTH}257', "prediction"),
    ('"label": 1, "prediction": {}', Reason.INVALID_LABEL, CLASSES, "prediction"),
    ('"label": 1, "prediction": {"a": "x"}', Reason.INVALID_LABEL, CLASSES, "prediction"),
    ('"label": 1, "prediction": {"a": 0.5, "b": true}', Reason.INVALID_LABEL, CLASSES, "prediction"),
    ('"label": 1, "prediction": {"a": null}', Reason.INVALID_LABEL, CLASSES, "prediction"),
    *(
        (text, Reason.MISSING_ID, "a label needs the id of its prediction, or the prediction itself", "id")
        for text in ('"label": 1', '"label": 1, "id": null', '"label": 1, "id": null, "prediction": null')
    ),
]
BAD_ROWS: list[tuple[str, Reason, str, str | None]] = [
    *((f"{{{fields}}}", reason, message, column) for fields, reason, message, column in BAD_FIELDS),
    ("null", Reason.NOT_AN_OBJECT, "a label is an object, not null", None),
    ("1", Reason.NOT_AN_OBJECT, "a label is an object, not a number", None),
    ('"r-1"', Reason.NOT_AN_OBJECT, "a label is an object, not text", None),
    ('["label", 1]', Reason.NOT_AN_OBJECT, "a label is an object, not an array", None),
    ("{}", Reason.INVALID_LABEL, LABEL + "absent", "label"),
    ('{"id": "a"}', Reason.INVALID_LABEL, LABEL + "absent", "label"),
    ('{"model": "", "id": "a", "label": 1}', Reason.INVALID_MODEL,
     '"model" has 1 to 128 characters, all of them printable', None),
    ('{"version": 1.5, "id": "a", "label": 1}', Reason.INVALID_MODEL, '"version" is a text, not a number', None),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason", "message", "column"), BAD_ROWS)
def test_one_bad_label_costs_only_itself(row: str, reason: Reason, message: str, column: str | None) -> None:
    good = ('{"id": "b", "label": 1}', '{"id": "c", "label": 3, "prediction": {"x": 1.0}}')
    for body, content_type in (
        (f'{{"labels": [{good[0]}, {row}, {good[1]}]}}', JSON),
        (f"{good[0]}\n{row}\n{good[1]}", NDJSON),
    ):
        decoded = decoded_of(body, content_type)
        assert decoded.rejections == (Rejection(1, reason, message, column),)
        (labels,) = decoded.labels
        kept = {"size": 2, "label": [1, 3], "ids": ["b", "c"], "prediction": [None, {"x": 1.0}]}
        assert plain(labels) == kept
        assert 0 < labels.weight < len(body)


@pytest.mark.parametrize(("row", "reason", "message", "column"), BAD_ROWS)
def test_a_bad_label_alone(row: str, reason: Reason, message: str, column: str | None) -> None:
    expected = DecodedLabels((), (Rejection(0, reason, message, column),))
    assert decoded_of(f'{{"labels": [{row}]}}') == expected
    assert decoded_of(row, NDJSON) == expected
    if '"label"' in row and column is not None:
        assert decoded_of(row) == expected


@pytest.mark.parametrize(("fields", "reason", "message", "column"), BAD_FIELDS)
def test_one_bad_row_of_columns_costs_only_itself(fields: str, reason: Reason, message: str, column: str) -> None:
    bad = json.loads(f"{{{fields}}}")
    columns = {
        "label": [4, bad["label"], 6],
        "id": ["b", bad.get("id"), "d"],
        "prediction": [0.5, bad.get("prediction"), None],
    }
    decoded = decoded_of(json.dumps({"columns": columns}))
    assert decoded.rejections == (Rejection(1, reason, message, column),)
    kept = {"size": 2, "label": [4, 6], "ids": ["b", "d"], "prediction": [0.5, None]}
    assert [plain(labels) for labels in decoded.labels] == [kept]


def test_labels_without_a_column_of_ids_or_predictions() -> None:
    decoded = decoded_of('{"columns": {"label": [1, 2]}}')
    assert decoded.labels == ()
    assert [(rejection.index, rejection.reason) for rejection in decoded.rejections] == [
        (0, Reason.MISSING_ID),
        (1, Reason.MISSING_ID),
    ]


def test_index_is_that_of_the_first_label_that_is_kept() -> None:
    rows = ['{"id": "a"}', '{"id": "b", "label": 2}', "1", '{"id": "c", "model": "m", "label": 3}']
    decoded = decoded_of(f'{{"labels": [{", ".join(rows)}]}}')
    assert [(labels.index, labels.label) for labels in decoded.labels] == [(1, [2]), (3, [3])]
    assert [rejection.index for rejection in decoded.rejections] == [0, 2]


def test_a_broken_line_costs_only_itself() -> None:
    decoded = decoded_of('{"id": "a", "label": 1}\n{"id": "b", "label": 2\n{"id": "c", "label": 3}', NDJSON)
    message = "the body is not valid JSON: unexpected end of data (line 1, column 23)"
    assert decoded.rejections == (Rejection(1, Reason.INVALID_JSON, message),)
    assert [plain(labels) for labels in decoded.labels] == [{"size": 2, "label": [1, 3], "ids": ["a", "c"]}]


@pytest.mark.parametrize("form", ["rows", "columns", "lines"])
def test_of_many_rejections_the_first_are_listed_and_all_are_counted(form: str) -> None:
    rows = [{"label": 1, "id": i, "prediction": 1} if i % 2 else {"label": 1} for i in range(1001)]
    if form == "rows":
        decoded = decoded_of(json.dumps({"labels": rows}))
    elif form == "lines":
        decoded = decoded_of("\n".join(map(json.dumps, rows)), NDJSON)
    else:
        columns = {key: [row.get(key) for row in rows] for key in ("label", "id", "prediction")}
        decoded = decoded_of(json.dumps({"columns": columns}))
    assert decoded.labels == ()
    assert [rejection.index for rejection in decoded.rejections] == [*range(20), 20, 21]
    assert [(rejection.reason, rejection.count) for rejection in decoded.rejections[-2:]] == [
        (Reason.MISSING_ID, 491),  # 20, 22, ... 1000
        (Reason.INVALID_ID, 490),
    ]


def test_no_value_is_ever_echoed() -> None:
    """Of every bad label with a value that is easy to find again."""
    for value in ("secret" * 100, ["secret"], {"secret": "secret"}, {"secret": [1]}):
        rows = [{"label": 1, "id": value}, {"label": value, "id": "a"}, {"label": 1, "prediction": value}]
        decoded = decoded_of(json.dumps({"labels": rows}))
        assert [rejection.index for rejection in decoded.rejections] == [0, 1, 2]
        assert not any("secret" in rejection.message for rejection in decoded.rejections)


# -- broken framing: the whole body is refused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[]", f"the body is an object with {SHAPES}, not an array"),
        ("null", f"the body is an object with {SHAPES}, not null"),
        ("{}", f"the body has one of {SHAPES}, and here is none of them"),
        ('{"id": "a"}', f"the body has one of {SHAPES}, and here is none of them"),
        ('{"labels": [], "label": 1}', f'the body has one of {SHAPES}, and here is "labels" and "label"'),
        (
            '{"labels": [], "columns": {}, "label": 1}',
            f'the body has one of {SHAPES}, and here is "labels" and "columns" and "label"',
        ),
        ('{"labels": 1}', '"labels" is a list of labels, not a number'),
        ('{"labels": null}', '"labels" is a list of labels, not null'),
        ('{"columns": []}', '"columns" is an object of columns, not an array'),
        ('{"columns": {}}', '"columns.label" is a list of labels, not absent'),
        ('{"columns": {"id": ["a"], "label": null}}', '"columns.label" is a list of labels, not null'),
    ],
)
def test_broken_structure(body: str, message: str) -> None:
    error = error_of(body)
    assert (error.reason, error.message, error.column) == (Reason.INVALID_STRUCTURE, message, None)


@pytest.mark.parametrize(
    ("columns", "reason", "message", "column"),
    [
        (
            '"label": 1, "id": ["a"]',
            Reason.INVALID_STRUCTURE, 'column "label" is a list of values, not a number', "label",
        ),
        ('"label": [1], "id": "a"', Reason.INVALID_STRUCTURE, 'column "id" is a list of values, not text', "id"),
        (
            '"label": [1, 2], "id": ["a"]',
            Reason.UNEQUAL_COLUMNS, 'column "id" has 1 values, the columns before it have 2', "id",
        ),
        (
            '"label": [1], "prediction": []',
            Reason.UNEQUAL_COLUMNS, 'column "prediction" has 0 values, the columns before it have 1', "prediction",
        ),
    ],
)  # fmt: skip
def test_broken_columns(columns: str, reason: Reason, message: str, column: str) -> None:
    error = error_of(f'{{"columns": {{{columns}}}}}')
    assert (error.reason, error.message, error.column) == (reason, message, column)


@pytest.mark.parametrize("key", ["model", "version"])
def test_a_bad_name_beside_the_labels(key: str) -> None:
    for rest in ('"label": 1, "id": "a"', '"labels": []', '"columns": {"label": []}'):
        error = error_of(f'{{"{key}": "", {rest}}}')
        assert error.reason is Reason.INVALID_MODEL
        assert error.message == f'"{key}" has 1 to 128 characters, all of them printable'


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"label": NaN', b"[" * 100_000, b"PAR1\x00"])
def test_what_is_no_json(body: bytes) -> None:
    assert error_of(body).reason is Reason.INVALID_JSON


def test_other_media_types_are_refused() -> None:
    error = error_of("id,label", "Text/CSV; charset=utf-8")
    assert error.reason is Reason.UNSUPPORTED_MEDIA_TYPE
    assert error.message == (
        "Content-Type 'text/csv' is not known; accepted are application/json and application/x-ndjson"
    )
