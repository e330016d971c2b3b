"""What each body decodes to: every form, every rule, and every refusal with its exact words."""

import gzip
import json
import math
import zlib
from typing import Any

import pytest

from mlexporter import decode
from mlexporter.samples import Batch, Decoded, DecodeError, Reason, Rejection

JSON = "application/json"
NDJSON = "application/x-ndjson"
MIB = 1 << 20

SHAPES = '"samples" (a list of samples), "columns" (an object of columns) or "features" (one sample)'


def batches_of(body: str | bytes, content_type: str = JSON) -> tuple[Batch, ...]:
    decoded = decoded_of(body, content_type)
    assert decoded.rejections == ()
    return decoded.batches


def decoded_of(body: str | bytes, content_type: str = JSON) -> Decoded:
    return decode.decode(body.encode() if isinstance(body, str) else body, content_type)


def error_of(body: str | bytes, content_type: str = JSON) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decoded_of(body, content_type)
    assert str(caught.value) == caught.value.message
    return caught.value


def plain(batch: Batch) -> dict[str, Any]:
    """A batch with lists for all sequences, and without what is not there."""
    fields: dict[str, Any] = {"size": batch.size, "features": {k: list(v) for k, v in batch.features.items()}}
    for name in ("prediction", "confidence", "label", "ids", "latency_seconds"):
        values = getattr(batch, name)
        if values is not None:
            fields[name] = list(values)
    for name in ("model", "version"):
        if getattr(batch, name) is not None:
            fields[name] = getattr(batch, name)
    return fields | ({"errors": batch.errors} if batch.errors else {})


ROWS = """{"model": "churn", "version": "7", "samples": [
    {"id": "r-1", "features": {"age": 41, "plan": "pro"}, "prediction": 0.83, "label": 1,
     "latency_seconds": 0.012, "error": null},
    {"id": "r-2", "features": {"age": 29.5, "plan": null}, "prediction": 0.25, "label": 0,
     "latency_seconds": 2, "error": "timeout"}]}"""
COLUMNS = """{"model": "churn", "version": "7", "columns": {
    "id": ["r-1", "r-2"], "features": {"age": [41, 29.5], "plan": ["pro", null]}, "prediction": [0.83, 0.25],
    "label": [1, 0], "latency_seconds": [0.012, 2], "error": [null, "timeout"]}}"""
TWO = {
    "size": 2,
    "features": {"age": [41, 29.5], "plan": ["pro", None]},
    "prediction": [0.83, 0.25],
    "label": [1, 0],
    "ids": ["r-1", "r-2"],
    "latency_seconds": [0.012, 2],
    "model": "churn",
    "version": "7",
    "errors": 1,
}


def test_row_form_and_column_form_are_the_same() -> None:
    assert [plain(batch) for batch in batches_of(ROWS)] == [TWO]
    assert [plain(batch) for batch in batches_of(COLUMNS)] == [TWO]


def test_ndjson_is_the_same() -> None:
    document = json.loads(ROWS)
    lines = [json.dumps({"model": "churn", "version": "7", **sample}) for sample in document["samples"]]
    for body in (
        "\n".join(lines),
        "\n".join(lines) + "\n",
        "\r\n".join(lines),
        f"\n\n  {lines[0]}\n \t\n{lines[1]}\n\n",
    ):
        assert [plain(batch) for batch in batches_of(body, NDJSON)] == [TWO]


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "m", "features": {"age": 41}, "prediction": "yes", "label": "no", "id": "a"}',
        '{"model": "m", "samples": [{"features": {"age": 41}, "prediction": "yes", "label": "no", "id": "a"}]}',
        '{"model": "m", "samples": {"features": {"age": 41}, "prediction": "yes", "label": "no", "id": "a"}}',
    ],
    ids=["alone", "list of one", "alone under samples"],
)
def test_a_single_sample(body: str) -> None:
    expected = {
        "size": 1, "features": {"age": [41]}, "prediction": ["yes"], "label": ["no"], "ids": ["a"], "model": "m",
    }  # fmt: skip
    assert [plain(batch) for batch in batches_of(body)] == [expected]


def test_ndjson_groups_by_model_and_version() -> None:
    lines = [
        '{"model": "a", "version": "1", "features": {"x": 1}}',
        '{"model": "b", "features": {"x": 2}}',
        '{"model": "a", "version": 1, "features": {"x": 3}, "prediction": 9}',
        '{"model": "a", "version": "2", "features": {"x": 4}}',
        '{"features": {"x": 5}}',
    ]
    assert [plain(batch) for batch in batches_of("\n".join(lines), NDJSON)] == [
        {"model": "a", "version": "1", "size": 2, "features": {"x": [1, 3]}, "prediction": [None, 9]},
        {"model": "b", "size": 1, "features": {"x": [2]}},
        {"model": "a", "version": "2", "size": 1, "features": {"x": [4]}},
        {"size": 1, "features": {"x": [5]}},
    ]


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "APPLICATION/JSON", "application/json; charset=utf-8", " application/json ;x=y"],
)
def test_json_media_types(content_type: str) -> None:
    assert batches_of('{"features": {"x": 1}}', content_type)[0].size == 1


@pytest.mark.parametrize(
    "content_type", ["application/x-ndjson", "application/ndjson", "application/jsonl", "Application/X-NDJSON; q=1"]
)
def test_ndjson_media_types(content_type: str) -> None:
    assert batches_of('{"features": {"x": 1}}\n{"features": {"x": 2}}', content_type)[0].size == 2


def test_other_media_types_are_refused() -> None:
    error = error_of("a=1", "Text/CSV; charset=utf-8")
    assert error.reason is Reason.UNSUPPORTED_MEDIA_TYPE
    assert error.message == (
        "Content-Type 'text/csv' is not known; accepted are application/json and application/x-ndjson"
    )
    assert len(error_of("", "x" * 10_000).message) < 250


# -- values of samples: all are taken as they are, what they mean is decided against the baseline


@pytest.mark.parametrize("form", ["rows", "columns"])
@pytest.mark.parametrize(
    ("predictions", "classes", "confidences", "objects"),
    [
        ("0.5, 2", [0.5, 2], None, ()),
        ('"yes", "no"', ["yes", "no"], None, ()),
        ('{"yes": 0.9, "no": 0.1}, {"yes": 0.25, "no": 0.75}', ["yes", "no"], [0.9, 0.75], (0, 1)),
        ('{"a": 1, "b": 0}, "b"', ["a", "b"], [1, None], (0,)),
        ('"b", {"a": -3, "b": 7.5}', ["b", "b"], [None, 7.5], (1,)),
        ('{"a": 0.5, "b": 0.5}, null', ["a", None], [0.5, None], (0,)),
        ('{"a": 0.5, "b": NaN, "c": 0.4}, 1', ["a", 1], [0.5, None], (0,)),
        ('{"b": NaN, "a": 0.5}, {"a": "x"}', ["a", {"a": "x"}], [0.5, None], (0,)),
        ('{}, {"a": "x"}', [{}, {"a": "x"}], [None, None], ()),
        ('{"a": true}, {"a": null}', [{"a": True}, {"a": None}], [None, None], ()),
        ("[1], true", [[1], True], None, ()),
        ("null, null", [None, None], None, ()),
    ],
)
def test_predictions(
    form: str,
    predictions: str,
    classes: list[object],
    confidences: list[object] | None,
    objects: tuple[int, ...],
) -> None:
    """`objects` are the indices of those that are probabilities."""
    parts = json.loads(f"[{predictions}]")
    rows = [{"features": {"x": 1}, "prediction": part} for part in parts]
    columns = {"features": {"x": [1, 1]}, "prediction": parts}
    (batch,) = batches_of(json.dumps({"samples": rows} if form == "rows" else {"columns": columns}))
    assert list(batch.prediction or ()) == classes
    assert batch.confidence == confidences
    # as text, for NaN is not equal to itself
    expected = [parts[i] if i in objects else None for i in range(2)] if objects else None
    assert json.dumps(batch.probabilities) == json.dumps(expected)


def test_what_all_samples_lack_is_absent_and_what_one_lacks_is_none() -> None:
    samples = [{"features": {"a": 1, "b": 2}}, {"features": {"a": 3}, "label": "x"}, {"features": {}, "id": None}]
    (batch,) = batches_of(json.dumps({"samples": samples}))
    assert plain(batch) == {
        "size": 3,
        "features": {"a": [1, 3, None], "b": [2, None, None]},
        "label": [None, "x", None],
        "ids": [None, None, None],
    }
    (batch,) = batches_of('{"columns": {"features": {"a": [1]}, "label": null, "id": null, "error": null}}')
    assert plain(batch) == {"size": 1, "features": {"a": [1]}}


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        ("null, null", 0),
        ('"timeout", "oom"', 2),
        ('"", false', 0),
        ('true, {"code": 7}', 2),
        ("{}, true", 1),
    ],
)
def test_errors_of_the_model_are_counted(errors: str, count: int) -> None:
    parts = json.loads(f"[{errors}]")
    rows = {"samples": [{"features": {}, "error": part} for part in parts]}
    assert batches_of(json.dumps(rows))[0].errors == count
    assert batches_of(json.dumps({"columns": {"features": {}, "error": parts}}))[0].errors == count


@pytest.mark.parametrize(
    ("errors", "reasons"),
    [
        ("null, null", {}),
        ('"timeout", "oom"', {"timeout": 1, "oom": 1}),
        ('"timeout", "timeout"', {"timeout": 2}),
        ('"E.1:a_b-c", "é"', {"E.1:a_b-c": 1}),
        (f'"{"a" * 64}", "{"a" * 65}"', {"a" * 64: 1}),
        ('"no such customer: Jones", "7"', {}),
        ('"timeout\\n", "-x"', {}),
        ('"", true', {}),
        ('{"reason": "a", "code": "b", "type": "c"}, {"type": "c", "code": "b"}', {"a": 1, "b": 1}),
        ('{"reason": null, "type": "c"}, {"reason": "free text", "code": "b"}', {"c": 1, "b": 1}),
        ('{"code": 503}, {"code": 0}', {"503": 1, "0": 1}),
        ('{"code": 99999}, {"reason": 503}', {"99999": 1, "503": 1}),
        ('{"code": 100000}, {"code": -1}', {}),
        ('{"code": 5.0}, {"code": true}', {}),
        ('{"code": ["a"]}, {"message": "a"}', {}),
        ('{"code": {"code": "a"}}, {}', {}),
    ],
)
def test_errors_that_name_a_reason_are_counted_by_it(errors: str, reasons: dict[str, int]) -> None:
    parts = json.loads(f"[{errors}]")
    rows = {"samples": [{"features": {}, "error": part} for part in parts]}
    assert batches_of(json.dumps(rows))[0].error_reasons == reasons
    assert batches_of(json.dumps({"columns": {"features": {}, "error": parts}}))[0].error_reasons == reasons
    lines = "\n".join(map(json.dumps, rows["samples"]))
    assert batches_of(lines, NDJSON)[0].error_reasons == reasons


def test_of_many_reasons_of_errors_the_first_are_named() -> None:
    errors = [*(f"e{i}" for i in range(25)), "e19", "e20", {"code": "e0"}]
    (batch,) = batches_of(json.dumps({"columns": {"features": {}, "error": errors}}))
    assert batch.errors == 28
    assert batch.error_reasons == {f"e{i}": 1 for i in range(20)} | {"e0": 2, "e19": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("1e400", math.inf),
        ("-1e400", -math.inf),
        ("1" + "0" * 400, math.inf),
        ("-1" + "0" * 5000, -math.inf),
        ("1e-400", 0.0),
        ("5e-324", 5e-324),
        ("-0.0", -0.0),
        ("9007199254740993", 9007199254740993),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("184467440737095516160", 184467440737095516160.0),
        ("true", True),
        ("null", None),
        ('"\\u00e9\\ud83d\\ude00\\u0000"', "é😀\0"),
        ('[1, {"a": []}]', [1, {"a": []}]),
    ],
)
@pytest.mark.parametrize("beside", ["1", "NaN"])
def test_values(text: str, value: object, beside: str) -> None:
    body = f'{{"features": {{"x": {text}, "y": {beside}}}}}'
    for content_type in (JSON, NDJSON):
        (batch,) = batches_of(body, content_type)
        (decoded,) = batch.features["x"]
        if isinstance(value, float) and math.isnan(value):
            assert isinstance(decoded, float)
            assert math.isnan(decoded)
        else:
            assert decoded == value
            assert isinstance(decoded, bool) == isinstance(value, bool)


def test_of_equal_keys_the_last_one_counts() -> None:
    body = (
        '{"model": "a", "model": "b", "features": {"x": 9}, "features": {"x": 1, "y": 2, "x": 3}, "id": 1, "id": "c"}'
    )
    expected = {"size": 1, "model": "b", "features": {"x": [3], "y": [2]}, "ids": ["c"]}
    assert [plain(batch) for batch in batches_of(body)] == [expected]
    assert [plain(batch) for batch in batches_of(body, NDJSON)] == [expected]
    body = '{"columns": {"features": {"x": [1, 2], "x": [3]}, "label": [1, 2, 3], "label": [4]}}'
    assert [plain(batch) for batch in batches_of(body)] == [{"size": 1, "features": {"x": [3]}, "label": [4]}]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"samples": []}', JSON),
        ('{"columns": {"features": {}}}', JSON),
        ('{"columns": {"features": {"x": [], "y": []}, "label": []}}', JSON),
        ("", NDJSON),
        ("\n \n\r\n", NDJSON),
    ],
)
def test_empty_batches_are_nothing(body: str, content_type: str) -> None:
    assert decoded_of(body, content_type) == Decoded(())


def test_features_may_be_empty() -> None:
    assert plain(batches_of('{"features": {}, "prediction": 1}')[0]) == {"size": 1, "features": {}, "prediction": [1]}
    body = '{"columns": {"features": {}, "prediction": [1, 2]}}'
    assert plain(batches_of(body)[0]) == {"size": 2, "features": {}, "prediction": [1, 2]}


# -- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('"churn"', "churn"),
        ("7", "7"),
        ("-7", "-7"),
        ("null", None),
        ('"' + "x" * 128 + '"', "x" * 128),
        ('"模型 é"', "模型 é"),
        ('"<script>\\"\\\\"', '<script>"\\'),
    ],
)
def test_names(text: str, name: str | None) -> None:
    for content_type in (JSON, NDJSON):
        (batch,) = batches_of(f'{{"model": {text}, "version": {text}, "features": {{}}}}', content_type)
        assert (batch.model, batch.version) == (name, name)


PRINTABLE = "has 1 to 128 characters, all of them printable"
BAD_NAMES = [
    ('""', PRINTABLE),
    ('"' + "x" * 129 + '"', PRINTABLE),
    ('"a\\nb"', PRINTABLE),
    ('"\\u0000"', PRINTABLE),
    ('"\\u202e"', PRINTABLE),
    ("true", "is a text, not a boolean"),
    ("1.5", "is a text, not a number"),
    ("1e400", "is a text, not a number"),
    ("[]", "is a text, not an array"),
    ("{}", "is a text, not an object"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_NAMES)
@pytest.mark.parametrize("key", ["model", "version"])
def test_bad_names(key: str, text: str, problem: str) -> None:
    error = error_of(f'{{"{key}": {text}, "features": {{}}}}')
    assert (error.reason, error.message) == (Reason.INVALID_MODEL, f'"{key}" {problem}')
    lines = f'{{"features": {{"x": 1}}}}\n{{"{key}": {text}, "features": {{"x": 2}}}}\n{{"features": {{"x": 3}}}}'
    decoded = decoded_of(lines, NDJSON)
    assert decoded.rejections == (Rejection(1, Reason.INVALID_MODEL, f'"{key}" {problem}'),)
    assert [plain(batch) for batch in decoded.batches] == [{"size": 2, "features": {"x": [1, 3]}}]


# -- one bad sample never costs its neighbours

BAD_SAMPLES: list[tuple[str, Reason, str, str | None]] = [
    ("null", Reason.NOT_AN_OBJECT, "a sample is an object, not null", None),
    ("1", Reason.NOT_AN_OBJECT, "a sample is an object, not a number", None),
    ('"x"', Reason.NOT_AN_OBJECT, "a sample is an object, not text", None),
    ("false", Reason.NOT_AN_OBJECT, "a sample is an object, not a boolean", None),
    ('["features"]', Reason.NOT_AN_OBJECT, "a sample is an object, not an array", None),
    ("{}", Reason.INVALID_FEATURES, '"features" is an object of column to value, not absent', None),
    ('{"features": null}', Reason.INVALID_FEATURES, '"features" is an object of column to value, not null', None),
    ('{"features": [1]}', Reason.INVALID_FEATURES, '"features" is an object of column to value, not an array', None),
    ('{"features": "x"}', Reason.INVALID_FEATURES, '"features" is an object of column to value, not text', None),
    ('{"features": {}, "id": 7}', Reason.INVALID_ID, '"id" is text, not a number', "id"),
    ('{"features": {}, "id": true}', Reason.INVALID_ID, '"id" is text, not a boolean', "id"),
    ('{"features": {}, "id": {}}', Reason.INVALID_ID, '"id" is text, not an object', "id"),
    (
        '{"features": {}, "latency_seconds": "1"}',
        Reason.INVALID_LATENCY, '"latency_seconds" is a number of seconds, not text', "latency_seconds",
    ),
    (
        '{"features": {}, "latency_seconds": true}',
        Reason.INVALID_LATENCY, '"latency_seconds" is a number of seconds, not a boolean', "latency_seconds",
    ),
    (
        '{"features": {}, "latency_seconds": [0]}',
        Reason.INVALID_LATENCY, '"latency_seconds" is a number of seconds, not an array', "latency_seconds",
    ),
    *(
        (
            f'{{"features": {{}}, "latency_seconds": {text}}}',
            Reason.INVALID_LATENCY, '"latency_seconds" is finite and not negative', "latency_seconds",
        )
        for text in ("-0.1", "-1", "NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400)
    ),
    (
        '{"features": {}, "error": 1}',
        Reason.INVALID_ERROR, '"error" is null, text, a boolean or an object, not a number', "error",
    ),
    (
        '{"features": {}, "error": []}',
        Reason.INVALID_ERROR, '"error" is null, text, a boolean or an object, not an array', "error",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "reason", "message", "column"), BAD_SAMPLES)
def test_one_bad_sample_costs_only_itself(sample: str, reason: Reason, message: str, column: str | None) -> None:
    good = ('{"features": {"x": 1}}', '{"features": {"x": 3}, "id": "c", "latency_seconds": 0}')
    kept = {"size": 2, "features": {"x": [1, 3]}, "ids": [None, "c"], "latency_seconds": [None, 0]}
    for body, content_type in (
        (f'{{"samples": [{good[0]}, {sample}, {good[1]}]}}', JSON),
        (f"{good[0]}\n{sample}\n{good[1]}", NDJSON),
    ):
        decoded = decoded_of(body, content_type)
        assert decoded.rejections == (Rejection(1, reason, message, column),)
        assert [plain(batch) for batch in decoded.batches] == [kept]


@pytest.mark.parametrize(("sample", "reason", "message", "column"), BAD_SAMPLES)
def test_a_bad_sample_alone(sample: str, reason: Reason, message: str, column: str | None) -> None:
    expected = Decoded((), (Rejection(0, reason, message, column),))
    assert decoded_of(f'{{"samples": [{sample}]}}') == expected
    assert decoded_of(sample, NDJSON) == expected


@pytest.mark.parametrize(("sample", "reason", "message", "column"), [bad for bad in BAD_SAMPLES if bad[3] is not None])
def test_one_bad_row_of_columns_costs_only_itself(sample: str, reason: Reason, message: str, column: str) -> None:
    text = sample.split(f'"{column}": ')[1][:-1]
    body = (
        f'{{"columns": {{"features": {{"x": [1, 2, 3]}}, "{column}": [null, {text}, null], "label": [4, 5, 6],'
        ' "prediction": [{"a": 0.5}, {"b": 0.25}, "c"]}}'
    )
    decoded = decoded_of(body)
    assert decoded.rejections == (Rejection(1, reason, message, column),)
    (batch,) = decoded.batches
    assert batch.size == 2
    assert plain(batch)["features"] == {"x": [1, 3]}
    assert (batch.label, batch.prediction, batch.confidence) == ([4, 6], ["a", "c"], [0.5, None])


def test_all_rows_of_columns_bad() -> None:
    decoded = decoded_of('{"columns": {"features": {"x": [1, 2]}, "id": [1, 2]}}')
    assert decoded.batches == ()
    assert [rejection.index for rejection in decoded.rejections] == [0, 1]


def test_a_broken_line_costs_only_itself() -> None:
    lines = ['{"features": {"x": 1}}', '{"features": {"x": 2}', '{"features": {"x": NaN}}', "{} {}", '{"features": {}}']
    decoded = decoded_of("\n".join(lines), NDJSON)
    assert [(rejection.index, rejection.reason) for rejection in decoded.rejections] == [
        (1, Reason.INVALID_JSON),
        (3, Reason.INVALID_JSON),
    ]
    assert decoded.rejections[0].message == "the body is not valid JSON: unexpected end of data (line 1, column 22)"
    assert [batch.size for batch in decoded.batches] == [3]


def test_lines_that_make_sense_only_together_are_broken() -> None:
    lines = ['{"features": {"x": 1}},{"features": {"x": 2}}', '{"features": {"x": [1', "2]}}"]
    decoded = decoded_of("\n".join(lines), NDJSON)
    assert [rejection.index for rejection in decoded.rejections] == [0, 1, 2]
    assert decoded.batches == ()


def test_rejections_of_ndjson_are_in_order() -> None:
    lines = [
        '{"model": "a", "features": 1}',
        "1",
        '{"model": "b", "features": 2}',
        '{"model": ""}',
        "{",
        '{"model": "a"}',
    ]
    decoded = decoded_of("\n".join(lines), NDJSON)
    assert [(rejection.index, rejection.reason) for rejection in decoded.rejections] == [
        (0, Reason.INVALID_FEATURES),
        (1, Reason.NOT_AN_OBJECT),
        (2, Reason.INVALID_FEATURES),
        (3, Reason.INVALID_MODEL),
        (4, Reason.INVALID_JSON),
        (5, Reason.INVALID_FEATURES),
    ]


@pytest.mark.parametrize("form", ["rows", "columns", "ndjson"])
def test_of_many_rejections_the_first_are_listed_and_all_are_counted(form: str) -> None:
    """Each costs memory otherwise, and a body has room for millions."""
    samples = [{"features": {}, "id": i} if i % 2 else {"features": {}, "latency_seconds": -1} for i in range(1001)]
    if form == "rows":
        decoded = decoded_of(json.dumps({"samples": samples}))
    elif form == "ndjson":
        decoded = decoded_of("\n".join(map(json.dumps, samples)), NDJSON)
    else:
        columns = {key: [sample.get(key) for sample in samples] for key in ("id", "latency_seconds")}
        decoded = decoded_of(json.dumps({"columns": {"features": {}} | columns}))
    assert decoded.batches == ()
    assert [rejection.index for rejection in decoded.rejections] == [*range(20), 20, 21]
    assert [(rejection.reason, rejection.count) for rejection in decoded.rejections[-2:]] == [
        (Reason.INVALID_LATENCY, 491),  # 20, 22, ... 1000
        (Reason.INVALID_ID, 490),
    ]


# -- broken framing: the whole body is refused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[]", f"the body is an object with {SHAPES}, not an array"),
        ("null", f"the body is an object with {SHAPES}, not null"),
        ('"text"', f"the body is an object with {SHAPES}, not text"),
        ("{}", f"the body has one of {SHAPES}, and here is none of them"),
        ('{"sample": []}', f"the body has one of {SHAPES}, and here is none of them"),
        (
            '{"samples": [], "columns": {}}',
            f'the body has one of {SHAPES}, and here is "samples" and "columns"',
        ),
        (
            '{"samples": [], "columns": {}, "features": {}}',
            f'the body has one of {SHAPES}, and here is "samples" and "columns" and "features"',
        ),
        ('{"samples": 1}', '"samples" is a list of samples, not a number'),
        ('{"samples": null}', '"samples" is a list of samples, not null'),
        ('{"samples": "x"}', '"samples" is a list of samples, not text'),
        ('{"columns": []}', '"columns" is an object of columns, not an array'),
        ('{"columns": {}}', '"columns.features" is an object of columns, not absent'),
        ('{"columns": {"features": []}}', '"columns.features" is an object of columns, not an array'),
        ('{"columns": {"features": null}}', '"columns.features" is an object of columns, not null'),
    ],
)
def test_broken_structure(body: str, message: str) -> None:
    error = error_of(body)
    assert (error.reason, error.message, error.column) == (Reason.INVALID_STRUCTURE, message, None)


@pytest.mark.parametrize(
    ("columns", "message", "column"),
    [
        ('"features": {"x": 1}', 'column "features.x" is a list of values, not a number', "x"),
        ('"features": {"x": null}', 'column "features.x" is a list of values, not null', "x"),
        ('"features": {"x": [1], "y": "ab"}', 'column "features.y" is a list of values, not text', "y"),
        ('"features": {"x": [1]}, "label": {}', 'column "label" is a list of values, not an object', "label"),
        ('"features": {"x": [1]}, "id": "a"', 'column "id" is a list of values, not text', "id"),
    ],
)
def test_columns_that_are_no_lists(columns: str, message: str, column: str) -> None:
    error = error_of(f'{{"columns": {{{columns}}}}}')
    assert (error.reason, error.message, error.column) == (Reason.INVALID_STRUCTURE, message, column)


@pytest.mark.parametrize(
    ("columns", "message", "column"),
    [
        (
            '"features": {"x": [1, 2], "y": [1]}',
            'column "features.y" has 1 values, the columns before it have 2', "y",
        ),
        ('"features": {"x": []}, "label": [1]', 'column "label" has 1 values, the columns before it have 0', "label"),
        (
            '"features": {}, "id": ["a"], "latency_seconds": []',
            'column "latency_seconds" has 0 values, the columns before it have 1', "latency_seconds",
        ),
    ],
)  # fmt: skip
def test_columns_of_unequal_length(columns: str, message: str, column: str) -> None:
    error = error_of(f'{{"columns": {{{columns}}}}}')
    assert (error.reason, error.message, error.column) == (Reason.UNEQUAL_COLUMNS, message, column)


def test_the_name_of_a_column_is_not_echoed_in_full() -> None:
    error = error_of(json.dumps({"columns": {"features": {"n" * MIB: 1}}}))
    assert error.column == "n" * 200
    assert len(error.message) < 300


BROKEN = [
    (b"", "(line 1, column 1)"),
    (b"{", "(line 1, column 2)"),
    (b'{"features": {"x": 1}', "(line 1, column 22)"),
    (b'{"features":\n {"x": 1}}}', "(line 2, column 11)"),
    (b'{"features": {"x": 01}}', "(line 1, column 20)"),
    (b"{'features': {}}", "(line 1, column 2)"),
    (b'{"features": {},}', "(line 1, column 16)"),
    (b'\xef\xbb\xbf{"features": {}}', "(line 1, column 1)"),
    (b'{"features": {"x": "\xff"}}', ""),
    (b'{"features": {"x": "\xed\xa0\x80"}}', ""),
    (b'{"features": {"x": "\\ud800"}}', ""),
    (b'{"features": {"\\udc00": 1}}', ""),
    (b'{"features": {"x": "a\nb"}}', ""),
    (b"PAR1\x00\x01", ""),
    ("{}".encode("utf-16"), ""),
    (b'{"features": {"x": nan}}', ""),
    (b'{"features": {"x": +1}}', ""),
    (b"[" * 100_000, ""),
    (b'{"features":' * 100_000 + b"1" + b"}" * 100_000, ""),
]


@pytest.mark.parametrize(("body", "place"), BROKEN)
@pytest.mark.parametrize("word", [b"", b" NaN,"], ids=["", "with a word that is tried again"])
def test_what_is_no_json(body: bytes, place: str, word: bytes) -> None:
    error = error_of(body + word)
    assert error.reason is Reason.INVALID_JSON
    assert error.message.startswith("the body is not valid JSON: ")
    if not word:
        assert error.message.endswith(place)
    assert len(error.message) < 250
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "body", [b'{"features": {"x": NaN, "y": "\\ud800"}}', b'{"features": {"x": NaN, "\\udc00": 1}}']
)
def test_what_cannot_be_written_as_utf_8_is_no_json(body: bytes) -> None:
    error = error_of(body)
    assert error.reason is Reason.INVALID_JSON
    assert "surrogates not allowed" in error.message


@pytest.mark.parametrize("text", ["NaN", "1"])
def test_deep_nesting_inside_a_valid_sample_is_a_value_or_broken(text: str) -> None:
    fine = f'{{"features": {{"x": {"[" * 900}{text}{"]" * 900}}}}}'
    assert batches_of(fine)[0].size == 1
    deep = f'{{"features": {{"x": {"[" * 50_000}{text}{"]" * 50_000}}}}}'
    assert error_of(deep).reason is Reason.INVALID_JSON


# -- gzip


def test_gzip_by_header_and_by_its_first_bytes() -> None:
    body = ROWS.encode()
    for encoding in ("gzip", "GZIP", " x-gzip ", "", "identity"):
        assert decode.decompress(gzip.compress(body, mtime=0), encoding, MIB) == body
    for encoding in ("", "identity"):
        assert decode.decompress(body, encoding, MIB) == body
    assert decode.decompress(b"", "gzip", MIB) == b""


def test_gzip_members_may_follow_each_other() -> None:
    parts = [b'{"features":', b"", b" {}", b"}" * 200_000, b""]
    together = b"".join(map(gzip.compress, parts))
    assert decode.decompress(together, "gzip", MIB) == b"".join(parts)
    random = b"".join(zlib.crc32(bytes([i % 251, i % 7])).to_bytes(4) for i in range(100_000))
    assert decode.decompress(gzip.compress(random, 0) + gzip.compress(b"end", mtime=0), "gzip", MIB) == random + b"end"


def test_gzip_of_many_members() -> None:
    """Their number is bounded, for an empty one is 20 bytes and used to cost a copy of all that follow."""
    empty = gzip.compress(b"", mtime=0)
    assert decode.decompress(empty * 10_000, "gzip", MIB) == b""
    with pytest.raises(DecodeError) as caught:
        decode.decompress(empty * 10_001, "gzip", MIB)
    assert caught.value.reason is Reason.INVALID_GZIP
    assert caught.value.message == "the gzip body has more than 10000 members"


def test_the_limit_holds_for_what_comes_out() -> None:
    for size, inside in ((MIB, True), (MIB + 1, False)):
        for body in (
            bytes(size),
            gzip.compress(bytes(size)),
            gzip.compress(bytes(MIB)) + gzip.compress(bytes(size - MIB)),
        ):
            if inside:
                assert decode.decompress(body, "", MIB) == bytes(size)
                continue
            with pytest.raises(DecodeError) as caught:
                decode.decompress(body, "", MIB)
            assert caught.value.reason is Reason.BODY_TOO_LARGE
            assert caught.value.message == (
                "the body is larger than limits.max_body_bytes (1048576 bytes); send smaller batches"
            )


def test_gzip_within_gzip_is_opened_once() -> None:
    inner = gzip.compress(b"{}", mtime=0)
    assert decode.decompress(gzip.compress(inner, mtime=0), "gzip", MIB) == inner
    assert error_of(inner).reason is Reason.INVALID_JSON


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b'{"features": {}}', "gzip", "Content-Encoding is gzip, but the body does not begin like gzip"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-1], "", "the gzip body ends too early"),
        (gzip.compress(b"x", mtime=0)[:3], "", "the gzip body ends too early"),
        (b"\x1f\x8b", "", "the gzip body ends too early"),
        (gzip.compress(b"x", mtime=0) + b"\x1f", "", "the gzip body ends too early"),
        (gzip.compress(b"x", mtime=0) + b"rubbish", "", "the body is not valid gzip: "),
        (gzip.compress(b"x", mtime=0)[:-8] + bytes(8), "", "the body is not valid gzip: "),
        (b"\x1f\x8brubbish rubbish", "", "the body is not valid gzip: "),
    ],
)
def test_broken_gzip(body: bytes, encoding: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode.decompress(body, encoding, MIB)
    assert caught.value.reason is Reason.INVALID_GZIP
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd", "x" * 10_000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode.decompress(b"{}", encoding, MIB)
    assert caught.value.reason is Reason.UNSUPPORTED_MEDIA_TYPE
    assert caught.value.message == f"Content-Encoding {encoding[:100]!r} is not known; accepted is gzip"


# -- sizes


def test_rows_that_share_no_column_do_not_fill_a_table() -> None:
    samples = [{"features": {f"c{i}": i}, "id": str(i)} for i in range(5000)]
    samples.append({"features": [], "id": "bad"})
    decoded = decoded_of(json.dumps({"samples": samples}))
    assert sum(len(values) for batch in decoded.batches for values in batch.features.values()) < 8 * 5000 + 20_000
    assert [batch.size for batch in decoded.batches] == [1] * 5000
    assert [plain(batch) for batch in decoded.batches[:2]] == [
        {"size": 1, "features": {"c0": [0]}, "ids": ["0"]},
        {"size": 1, "features": {"c1": [1]}, "ids": ["1"]},
    ]
    assert [rejection.index for rejection in decoded.rejections] == [5000]


def test_weight_is_the_bytes_of_the_request() -> None:
    assert [batch.weight for batch in batches_of(ROWS)] == [len(ROWS)]
    assert [batch.weight for batch in batches_of(COLUMNS)] == [len(COLUMNS)]
    lines = '{"model": "a", "features": {}}\n{"model": "b", "features": {}}\n'
    assert sum(batch.weight for batch in batches_of(lines, NDJSON)) == len(lines)


def test_columns_and_values_of_a_batch() -> None:
    (batch,) = batches_of('{"features": {"a": 1}, "prediction": {"x": 0.75}, "label": "y"}')
    assert [(role.value, name, list(values)) for role, name, values in batch.columns()] == [
        ("feature", "a", [1]),
        ("prediction", "prediction", ["x"]),
        ("prediction", "confidence", [0.75]),
        ("label", "label", ["y"]),
    ]
