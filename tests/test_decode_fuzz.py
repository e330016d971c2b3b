"""Whatever the bytes, decoding gives what it held or a `DecodeError`, and no sample and no label gets lost in it."""

import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter import decode
from mlexporter.samples import Decoded, DecodedLabels, DecodeError

JSON = "application/json"
NDJSON = "application/x-ndjson"
LIMIT = 4096

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**330)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "features", "\ud800", "\0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["a", "b", "c"])
fields = st.sampled_from(["id", "prediction", "label", "latency_seconds", "error", "model", "version", "features"])
features = st.dictionaries(names, values, max_size=3)
# Samples that are often good, and now and then anything at all.
samples = (
    st.fixed_dictionaries(
        {"features": features},
        optional={
            "id": st.text(max_size=3) | st.none(),
            "prediction": st.floats() | st.dictionaries(names, st.floats(0, 1), max_size=3),
            "label": scalars,
            "latency_seconds": st.floats(0, 10) | st.none(),
            "error": st.booleans() | st.text(max_size=3),
        },
    )
    | st.fixed_dictionaries({"features": features | values}, optional=dict.fromkeys(["id", "prediction"], values))
    | st.dictionaries(fields, values, max_size=4)
    | values
)


# Labels, likewise.
label_values = st.booleans() | st.floats(-9, 9) | st.integers(0, 3) | st.text("ab", min_size=1, max_size=2)
labels = (
    st.fixed_dictionaries(
        {"label": label_values, "id": st.text("ab", max_size=2)},
        optional={"prediction": label_values | st.dictionaries(names, st.floats(0, 1), max_size=3)},
    )
    | st.fixed_dictionaries({"label": label_values | values}, optional=dict.fromkeys(["id", "prediction"], values))
    | st.dictionaries(st.sampled_from(["label", "id", "prediction", "model", "version"]), values, max_size=4)
    | values
)


def check(decoded: Decoded) -> int:
    """Hold a result to what `Batch` promises; returns the number of samples it accounts for."""
    for batch in decoded.batches:
        assert batch.size > 0
        assert batch.weight >= 0
        assert 0 <= sum(batch.error_reasons.values()) <= batch.errors <= batch.size
        assert len(batch.error_reasons) <= 20
        for column in batch.features.values():
            assert len(column) == batch.size
        for more in (
            batch.prediction, batch.confidence, batch.probabilities, batch.label, batch.ids, batch.latency_seconds,
        ):  # fmt: skip
            assert more is None or len(more) == batch.size
        assert all(given is None or isinstance(given, str) for given in batch.ids or ())
        for latency in batch.latency_seconds or ():
            assert latency is None or 0 <= float(latency) < math.inf
        for name in (batch.model, batch.version):
            assert name is None or (0 < len(name) <= 128 and name.isprintable())
    indices = [rejection.index for rejection in decoded.rejections]
    assert len(set(indices)) == len(indices)
    return sum(batch.size for batch in decoded.batches) + sum(rejection.count for rejection in decoded.rejections)


def check_labels(decoded: DecodedLabels) -> int:
    """Hold a result to what `Labels` promises; returns the number of labels it accounts for."""
    for labels in decoded.labels:
        assert labels.size > 0
        assert labels.weight >= 0
        absent = (None,) * labels.size
        ids, predictions = labels.ids or absent, labels.prediction or absent
        assert len(labels.label) == len(ids) == len(predictions) == labels.size
        assert all(given is None or (isinstance(given, str) and 0 < len(given) <= 256) for given in ids)
        for value in labels.label:
            assert isinstance(value, int | float | str)
        for value in (*labels.label, *predictions):
            assert not isinstance(value, float) or math.isfinite(value)
            assert not isinstance(value, str) or 0 < len(value) <= 256
            orjson.dumps(value)  # they are kept as JSON
        for value in predictions:
            assert value is None or isinstance(value, int | float | str | dict)
        assert all(pair != (None, None) for pair in zip(ids, predictions, strict=True))
        assert labels.ids is None or any(given is not None for given in ids)
        assert labels.prediction is None or any(prediction is not None for prediction in predictions)
        for name in (labels.model, labels.version):
            assert name is None or (0 < len(name) <= 128 and name.isprintable())
    indices = [rejection.index for rejection in decoded.rejections]
    assert len(set(indices)) == len(indices)
    return sum(labels.size for labels in decoded.labels) + sum(rejection.count for rejection in decoded.rejections)


def decode_any(body: bytes, content_type: str) -> Decoded | None:
    """What it holds as samples; as labels it is decoded, too."""
    decode_any_labels(body, content_type)
    try:
        decoded = decode.decode(body, content_type)
    except DecodeError as error:
        if len(error.message) > 500:
            raise
        return None
    check(decoded)
    return decoded


def decode_any_labels(body: bytes, content_type: str) -> DecodedLabels | None:
    try:
        decoded = decode.decode_labels(body, content_type)
    except DecodeError as error:
        if len(error.message) > 500:
            raise
        return None
    check_labels(decoded)
    return decoded


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@given(st.binary(max_size=200), st.sampled_from([JSON, NDJSON, "", "text/plain"]))
def test_any_bytes(body: bytes, content_type: str) -> None:
    decode_any(body, content_type)


@given(st.binary(max_size=100), st.text(max_size=8) | st.sampled_from(["", "gzip"]), st.booleans())
def test_any_bytes_that_may_be_compressed(body: bytes, encoding: str, compressed: bool) -> None:
    sent = gzip.compress(body) + body if compressed else body
    try:
        given_back = decode.decompress(sent, encoding, LIMIT)
    except DecodeError:
        return
    assert len(given_back) <= LIMIT
    assert given_back in (body, sent)


@given(st.lists(st.binary(max_size=30), max_size=6), st.data())
def test_gzip_that_is_cut_or_changed(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(gzip.compress, parts))
    if whole:
        assert decode.decompress(whole, "gzip", LIMIT) == b"".join(parts)
    position = data.draw(st.integers(0, len(whole)))
    for changed in (whole[:position], whole[:position] + b"\xff" + whole[position + 1 :]):
        try:
            assert len(decode.decompress(changed, "gzip", LIMIT)) <= LIMIT
        except DecodeError:
            continue


VALID = {
    "rows": (JSON, b'{"model": "m", "samples": [{"id": "", "features": {"x": 1.5, "y": "b"}, "prediction": {"p": 0.5}},'
             b' {"features": {"x": NaN}, "label": true, "latency_seconds": 0.1, "error": "e"}]}'),
    "columns": (JSON, b'{"version": 7, "columns": {"features": {"x": [1, 1e400], "y": ["a", null]}, "id": ["a", "b"],'
                b' "prediction": [0.5, "c"], "latency_seconds": [0, 1], "error": [null, ""]}}'),
    "ndjson": (NDJSON, b'{"model": "a", "features": {"x": 1}}\n\n{"features": {"x": -0.5e-3}, "label": "\\u00e9"}\n'),
}  # fmt: skip


VALID_LABELS = {
    "rows": (JSON, b'{"model": "m", "version": "1", "labels": [{"id": "a", "label": 1, "prediction": 0.5},'
             b' {"label": "no", "prediction": {"yes": 0.9, "no": 0.1}}, {"model": "n", "id": "c", "label": NaN}]}'),
    "columns": (JSON, b'{"model": "m", "columns": {"id": ["a", null, "c"], "label": [1, "no", true],'
                b' "prediction": [null, {"yes": 0.9}, 2.5]}}'),
    "lines": (NDJSON, b'{"model": "m", "id": "a", "label": 1}\n{"version": 2, "id": "b", "label": "\\u00e9"}\n'),
}  # fmt: skip


def changed_at_random(body: bytes, data: st.DataObject) -> bytes:
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(begin, min(begin + 10, len(body))))
        put = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"}", b"[", b"]", b",", b"\n", b'"', b"null", b"1"])
        )
        body = body[:begin] + put + body[end:]
    return body


@pytest.mark.parametrize("form", VALID)
@given(data=st.data())
def test_valid_bodies_that_are_changed(form: str, data: st.DataObject) -> None:
    content_type, body = VALID[form]
    assert decode_any(body, content_type) is not None
    decode_any(changed_at_random(body, data), content_type)


@given(st.lists(samples, max_size=30), st.none() | names)
@settings(max_examples=200)
def test_no_row_is_lost(rows: list[Any], model: str | None) -> None:
    decoded = decode_any(dumped({"model": model, "samples": rows}), JSON)
    if decoded is None:
        # only a text that cannot be written as UTF-8 breaks the framing
        assert any("\\ud8" in json.dumps(row) for row in rows)
    else:
        assert check(decoded) == len(rows)
        assert all(batch.model == model for batch in decoded.batches)


@given(st.lists(samples, max_size=30), st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
@settings(max_examples=200)
def test_no_line_is_lost(rows: list[Any], ending: bytes) -> None:
    decoded = decode.decode(ending.join(map(dumped, rows)), NDJSON)
    assert check(decoded) == len(rows)


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and line.strip() != b""), max_size=8))
def test_no_line_is_lost_whatever_is_in_it(lines: list[bytes]) -> None:
    assert check(decode.decode(b"\n".join(lines), NDJSON)) == len(lines)


@given(st.integers(0, 25), st.data())
def test_no_row_of_columns_is_lost(size: int, data: st.DataObject) -> None:
    def column(element: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(element, min_size=size, max_size=size)

    others = {name: column(values) for name in ("id", "prediction", "label", "latency_seconds", "error")}
    usual = {"id": column(st.text(max_size=2)), "latency_seconds": column(st.floats(0, 1)), "error": column(st.none())}
    content = data.draw(
        st.fixed_dictionaries({"features": st.dictionaries(names, column(values), min_size=1)}, optional=others)
        | st.fixed_dictionaries({"features": st.dictionaries(names, column(values), min_size=1)}, optional=usual)
    )
    decoded = decode_any(dumped({"columns": content}), JSON)
    if decoded is None:
        assert "\\ud8" in json.dumps(content)
    else:
        assert check(decoded) == size


def put_everywhere(document: Any, value: object) -> Iterator[Any]:
    """The document with `value` in the place of each of its parts."""
    yield value
    if isinstance(document, dict):
        for key, part in document.items():
            yield from ({**document, key: changed} for changed in put_everywhere(part, value))
    elif isinstance(document, list):
        for i, part in enumerate(document):
            yield from ([*document[:i], changed, *document[i + 1 :]] for changed in put_everywhere(part, value))


@pytest.mark.parametrize("form", ["rows", "columns"])
@given(value=values)
@settings(max_examples=50)
def test_any_value_in_every_position(form: str, value: object) -> None:
    document = json.loads(VALID[form][1])
    changed = list(put_everywhere(document, value))
    assert len(changed) > 15
    for body in map(dumped, changed):
        decode_any(body, JSON)
        decode_any(body, NDJSON)


# -- labels


@pytest.mark.parametrize("form", VALID_LABELS)
@given(data=st.data())
def test_valid_bodies_of_labels_that_are_changed(form: str, data: st.DataObject) -> None:
    content_type, body = VALID_LABELS[form]
    assert decode_any_labels(body, content_type) is not None
    decode_any_labels(changed_at_random(body, data), content_type)


@given(st.lists(labels, max_size=30), st.none() | names)
@settings(max_examples=200)
def test_no_row_of_labels_is_lost(rows: list[Any], model: str | None) -> None:
    decoded = decode_any_labels(dumped({"model": model, "labels": rows}), JSON)
    if decoded is None:
        assert any("\\ud8" in json.dumps(row) for row in rows)
    else:
        assert check_labels(decoded) == len(rows)


@given(st.lists(labels, max_size=30), st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
@settings(max_examples=200)
def test_no_line_of_labels_is_lost(rows: list[Any], ending: bytes) -> None:
    assert check_labels(decode.decode_labels(ending.join(map(dumped, rows)), NDJSON)) == len(rows)


@given(st.lists(labels, min_size=1, max_size=10))
@settings(max_examples=200)
def test_a_label_is_good_or_bad_whatever_its_neighbours(rows: list[Any]) -> None:
    """Columns that are good as a whole and rows one by one are decided alike."""
    alone = [decode.decode_labels(dumped(row), NDJSON) for row in rows]
    together = decode.decode_labels(b"\n".join(map(dumped, rows)), NDJSON)
    assert sum(labels.size for labels in together.labels) == sum(len(decoded.labels) for decoded in alone)
    told = [
        (i, rejection.reason, rejection.message) for i, decoded in enumerate(alone) for rejection in decoded.rejections
    ]
    assert [(rejection.index, rejection.reason, rejection.message) for rejection in together.rejections] == told


@given(st.lists(labels.filter(lambda row: isinstance(row, dict) and "label" in row), max_size=10))
def test_columns_of_labels_are_as_their_rows(rows: list[dict[str, Any]]) -> None:
    fields = ("label", "id", "prediction")
    columns = {name: [row.get(name) for row in rows] for name in fields}
    by_columns = decode_any_labels(dumped({"columns": columns}), JSON)
    by_rows = decode_any_labels(dumped({"labels": [{name: row.get(name) for name in fields} for row in rows]}), JSON)
    assert (by_columns is None) == (by_rows is None)
    if by_columns is not None and by_rows is not None:
        assert by_columns.rejections == by_rows.rejections
        assert [(dumped(each.label), dumped(each.ids), dumped(each.prediction)) for each in by_columns.labels] == [
            (dumped(each.label), dumped(each.ids), dumped(each.prediction)) for each in by_rows.labels
        ]


@pytest.mark.parametrize("form", ["rows", "columns"])
@given(value=values)
@settings(max_examples=50)
def test_any_value_in_every_position_of_labels(form: str, value: object) -> None:
    changed = list(put_everywhere(json.loads(VALID_LABELS[form][1]), value))
    assert len(changed) > 10
    for body in map(dumped, changed):
        decode_any_labels(body, JSON)
        decode_any_labels(body, NDJSON)
