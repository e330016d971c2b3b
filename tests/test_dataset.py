import gzip
import math
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlexporter.categories import Missing
from mlexporter.columns import MOMENT_ROWS
from mlexporter.config import DataConfig
from mlexporter.dataset import CHUNK_ROWS, Cells, Chunk, DatasetError, Key, Types, csv_file, jsonl, open_dataset, text
from mlexporter.samples import Role

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def columns(path: Path, types: Types | None = None, names: DataConfig | None = None) -> dict[Key, Cells]:
    """All chunks as one, arrays as lists with None for NaN."""
    whole: dict[Key, list[object]] = {}
    rows = 0
    for chunk in open_dataset(path, names).chunks(types or {}):
        for key in {**whole, **chunk.columns}:
            cells = chunk.columns.get(key, [None] * chunk.rows)
            listed = [None if math.isnan(x) else x for x in cells.tolist()] if isinstance(cells, np.ndarray) else cells
            whole.setdefault(key, [None] * rows).extend(listed)
        rows += chunk.rows
    return dict(whole)


def features(path: Path, types: Types | None = None, names: DataConfig | None = None) -> dict[str, Cells]:
    return {name: cells for (role, name), cells in columns(path, types, names).items() if role is Role.FEATURE}


def message(path: Path, names: DataConfig | None = None) -> str:
    """What is wrong with a file, without its folder."""
    with pytest.raises(DatasetError) as error:
        list(open_dataset(path, names).chunks({}))
    return str(error.value).replace(f"{path.parent}/", "")


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_csv_types(write: Write) -> None:
    path = write("a.csv", "age,plan,flag,none\n41,pro,true,\n,NA,False,null\n3.5,free,,NaN\n-inf,5,TRUE,None\n")
    assert features(path) == {
        "age": [41.0, None, 3.5, -math.inf],
        "plan": ["pro", None, "free", "5"],
        "flag": [True, False, None, True],
        "none": [None] * 4,
    }


def test_csv_numbers_as_people_write_them(write: Write) -> None:
    path = write("a.csv", "x\n1\n+2\n.5\n5.\n1e3\n007\n 8 \nInfinity\n1e400\n123456789012345678901234567890\n")
    assert features(path)["x"] == [1, 2, 0.5, 5, 1000, 7, 8, math.inf, math.inf, 123456789012345678901234567890.0]


@pytest.mark.parametrize("cell", ["1_000", "0x10", "1,5", "\uff11", "[1]", "true", "1 2", "--1"])
def test_csv_what_is_no_number(write: Write, cell: str) -> None:
    path = write("a.csv", f"x;y\n1;1\n{cell};2\n")
    assert features(path)["x"] == ["1", cell]


@pytest.mark.parametrize("token", ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"])
def test_csv_missing_tokens(write: Write, token: str) -> None:
    path = write("a.csv", f"x,y\n1,a\n{token},{token}\n")
    assert features(path) == {"x": [1.0, None], "y": ["a", None]}


def test_csv_cell_that_does_not_fit_a_later_chunk(write: Write) -> None:
    rows = ["1,true"] * CHUNK_ROWS + ["oops,maybe", "2,FALSE", ",", "1_0,1"]
    cells = features(write("a.csv", "x,flag\n" + "\n".join(rows) + "\n"))
    assert cells["x"][CHUNK_ROWS:] == ["oops", 2.0, None, "1_0"]
    assert cells["flag"][CHUNK_ROWS:] == ["maybe", False, None, True]


def test_csv_type_is_decided_where_there_is_a_value(write: Write) -> None:
    rows = [",a"] * CHUNK_ROWS + ["5,a"]
    assert features(write("a.csv", "x,y\n" + "\n".join(rows)))["x"][-1] == 5.0


def test_csv_given_types(write: Write) -> None:
    path = write("a.csv", "zip,flag,shop,app,n\n007,1,3.0,1.0,x\n123,0,,1.1,4\n,true,5.0,,\n")
    types: Types = {
        "zip": "categorical",
        "flag": "boolean",
        "shop": "categorical",
        "app": "categorical",
        "n": "numeric",
    }
    assert features(path, types) == {
        "zip": ["007", "123", None],
        "flag": [True, False, True],
        "shop": ["3", None, "5"],  # whole numbers with gaps, as pandas writes them
        "app": ["1.0", "1.1", None],
        "n": ["x", 4.0, None],
    }


def test_csv_roles(write: Write) -> None:
    path = write("a.csv", "id,version,latency_seconds,age,prediction,confidence,label\nr,7,0.1,41,yes,0.9,1\n")
    assert columns(path) == {
        (Role.FEATURE, "age"): [41.0],
        (Role.PREDICTION, "prediction"): ["yes"],
        (Role.PREDICTION, "confidence"): [0.9],
        (Role.LABEL, "label"): [1.0],
    }


def test_csv_renamed_roles(write: Write) -> None:
    path = write("a.csv", "uuid,score,churned,prediction,id\nr,0.3,1,2,3\n")
    assert columns(path, None, DataConfig(prediction="score", label="churned", id="uuid")) == {
        (Role.PREDICTION, "prediction"): [0.3],
        (Role.LABEL, "label"): [1.0],
        (Role.FEATURE, "prediction"): [2.0],
        (Role.FEATURE, "id"): [3.0],
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_delimiter_is_that_of_the_header(write: Write, delimiter: str) -> None:
    header, row = delimiter.join(['"a,;b"', "c"]), delimiter.join(["1", '"x,y;z\tw"'])
    assert features(write("a.csv", f"{header}\n{row}\n")) == {"a,;b": [1.0], "c": ["x,y;z\tw"]}


def test_csv_bom_crlf_blank_lines_and_quoted_line_breaks(write: Write) -> None:
    path = write("a.csv", b'\xef\xbb\xbf\r\nage,note\r\n1,"a\r\nb ""c"""\r\n\r\n2,d')
    assert features(path) == {"age": [1.0, 2.0], "note": ['a\r\nb "c"', "d"]}


def test_csv_names_are_stripped_and_cells_are_not(write: Write) -> None:
    assert features(write("a.csv", "a, b\nx, y\n")) == {"a": ["x"], "b": [" y"]}


def test_csv_gzip(write: Write) -> None:
    content = gzip.compress(b"a\n1\n") + gzip.compress(b"2\n")
    assert features(write("a.csv.gz", content)) == {"a": [1.0, 2.0]}
    assert features(write("a.csv", content)) == {"a": [1.0, 2.0]}


def test_csv_long_cells_are_cut_to_what_tells_them_apart(write: Write) -> None:
    path = write("a.csv", "a\n" + "x" * 100_000 + "\n" + "x" * 100_001 + "\n")
    first, second = features(path)["a"]
    assert first != second
    assert isinstance(first, str)
    assert len(first) == 256


def test_csv_columns_that_pandas_numbers(write: Write) -> None:
    assert features(write("a.csv", "0,1\n5,6\n")) == {"0": [5.0], "1": [6.0]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "a.csv: empty; accepted is a header line and a line for each sample"),
        ("\n\n", "a.csv: empty; accepted is a header line and a line for each sample"),
        ("a,b\n", "a.csv: a header and no rows; accepted is a line for each sample after it"),
        (
            "1,2.5\n3,4\n",
            "a.csv:1: a header line is needed, with the names of the columns; this one has numbers only",
        ),
        ("a,b,a\n1,2,3\n", 'a.csv:1: "a" is the name of columns 1 and 3; give each its own'),
        ("a,,b\n1,2,3\n", "a.csv:1: column 2 has no name; every column needs one"),
        (
            ",a\n0,1\n",
            "a.csv:1: column 1 has no name (from pandas, write with index=False); every column needs one",
        ),
        ("a,b\n1,2\n\n1\n", "a.csv:4: 1 cell, but the header has 2 cells"),
        ("a,b\n1,2,3\n", "a.csv:2: 3 cells, but the header has 2 cells"),
        ('a,b\n"x\ny",2\n1,2,3\n', "a.csv:4: 3 cells, but the header has 2 cells"),
        ('a,b\n1,"x\n2,y\n', 'a.csv:2: a cell that begins with " has no closing "'),
        ('a,b\n1,"x"y\n', "a.csv:2: ',' expected after '\"'; a \" within a quoted cell is written twice"),
        ("a,b\n1,2\n3,\0\n", "a.csv:3:3: a NUL byte; save the file as text, in UTF-8"),
        (b"a,b\n1,caf\xe9\n", "a.csv:2:6: not UTF-8: the byte 0xe9; save the file as UTF-8"),
        (
            "a,b\n1,2\n".encode("utf-16"),
            "a.csv:1:1: not UTF-8: the byte 0xff; it looks like UTF-16; save the file as UTF-8",
        ),
        ('a,b\n1,"' + "x" * 140_000, 'a.csv:2: a cell is longer than 131072 characters; is a " not closed?'),
        (",".join(f"c{i}" for i in range(10_001)), "a.csv:1: 10001 columns; accepted are at most 10000"),
    ],
)
def test_csv_errors(write: Write, content: str | bytes, expected: str) -> None:
    assert message(write("a.csv", content)) == expected


def test_endless_line(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text, csv_file, jsonl):
        monkeypatch.setattr(module, "LONGEST_LINE", 40_000)
    expected = "the line is longer than 40000 bytes; no sample is"
    assert message(write("a.csv", "a\n" + "x" * 50_000)) == f"a.csv:2: {expected}"
    assert message(write("a.jsonl", "{}\n" + "[" * 50_000)) == f"a.jsonl:2: {expected}"


def test_csv_decimal_comma_is_told(write: Write) -> None:
    dataset = open_dataset(write("a.csv", "x;y\n1,5;a\n2,5;b\n"))
    list(dataset.chunks({}))
    list(dataset.chunks({}))
    assert dataset.warnings == [
        'column "x": numbers with a decimal comma are read as categories; write them with a point'
    ]


# -- JSONL ------------------------------------------------------------------------------------------------------------


def test_jsonl_predictions_are_given_as_they_were_sent_too(write: Write) -> None:
    def predictions(text: str, name: str = "prediction") -> object:
        (chunk,) = open_dataset(write("a.jsonl", text), DataConfig(prediction=name)).chunks({})
        return chunk.predictions

    given = '{"score": {"yes": 0.25, "no": 0.75}, "x": 1}\n{"score": "no"}\n{"x": 3}\n'
    assert predictions(given, "score") == [{"yes": 0.25, "no": 0.75}, "no", None]
    assert predictions('{"prediction": "yes"}\n{"prediction": 0.5}\n') is None


def test_jsonl_flat(write: Write) -> None:
    path = write(
        "a.jsonl",
        '{"id": "r", "age": 1, "plan": "pro", "prediction": 0.3}\n\n{"age": null, "ok": true, "prediction": 1}\n'
        '{"age": [1], "plan": {"a": 1}, "label": "yes"}',
    )
    assert columns(path) == {
        (Role.FEATURE, "age"): [1, None, Missing.INVALID],
        (Role.FEATURE, "plan"): ["pro", None, Missing.INVALID],
        (Role.FEATURE, "ok"): [None, True, None],
        (Role.PREDICTION, "prediction"): [0.3, 1, None],
        (Role.LABEL, "label"): [None, None, "yes"],
    }


def test_jsonl_nested(write: Write) -> None:
    path = write(
        "a.ndjson",
        b'\xef\xbb\xbf{"id": "r", "model": "m", "error": null, "features": {"age": 1, "prediction": 5},'
        b' "label": 1, "w": 2}\n'
        b'{"features": {}, "prediction": {"yes": 0.2, "no": 0.8}}\n',
    )
    dataset = open_dataset(path)
    assert columns(path) == {
        (Role.FEATURE, "age"): [1, None],
        (Role.FEATURE, "prediction"): [5, None],
        (Role.PREDICTION, "prediction"): [None, "no"],
        (Role.PREDICTION, "confidence"): [None, 0.8],
        (Role.LABEL, "label"): [1, None],
    }
    list(dataset.chunks({}))
    assert dataset.warnings == ['"w" is left out: it stands beside "features" and is no known field']


def test_jsonl_renamed_and_gzip(write: Write) -> None:
    path = write("a.jsonl.gz", gzip.compress(b'{"score": {"a": 1.0}, "x": "y"}\n'))
    assert columns(path, None, DataConfig(prediction="score")) == {
        (Role.PREDICTION, "prediction"): ["a"],
        (Role.PREDICTION, "confidence"): [1.0],
        (Role.FEATURE, "x"): ["y"],
    }


def test_jsonl_long_values(write: Write) -> None:
    path = write("a.jsonl", '{"x": "' + "x" * 50_000 + '", "y": [1, 2], "z": 1}')
    x, y, z = (features(path)[name][0] for name in "xyz")
    assert isinstance(x, str)
    assert (len(x), y, z) == (256, Missing.INVALID, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "a.jsonl: empty; accepted is an object a line, one for each sample"),
        ("\n \n", "a.jsonl: empty; accepted is an object a line, one for each sample"),
        ('{"a": 1}\n\n{"a": }\n', "a.jsonl:3:7: not JSON: unexpected character, expected a JSON value"),
        ('[{"a": 1}]\n', "a.jsonl:1: an array; accepted is an object a line, one for each sample"),
        ("5\n", "a.jsonl:1: a number; accepted is an object a line, one for each sample"),
        ('{"a": 1}\n{"features": {}}\n', 'a.jsonl:2: an object with "features" after objects without; use one form'),
        ('{"features": {}}\n{"a": 1}\n', 'a.jsonl:2: an object without "features" after objects with; use one form'),
        (b'{"a": 1}\n{"a": "caf\xe9"}\n', "a.jsonl:2:11: not UTF-8: the byte 0xe9; save the file as UTF-8"),
    ],
)
def test_jsonl_errors(write: Write, content: str | bytes, expected: str) -> None:
    assert message(write("a.jsonl", content)) == expected


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ('{"a": NaN}\n', "(JSON has no NaN or Infinity: write null)"),
        ('{\n"a": 1\n}\n', "(a document over several lines: write an object a line)"),
    ],
)
def test_jsonl_hints(write: Write, content: str, hint: str) -> None:
    text = message(write("a.jsonl", content))
    assert text.startswith("a.jsonl:1:")
    assert text.endswith(hint)


def test_jsonl_too_many_columns(write: Write) -> None:
    content = "{" + ",".join(f'"c{i}": 1' for i in range(10_001)) + "}"
    expected = "a.jsonl:1: more than 10000 columns up to here; accepted are at most so many"
    assert message(write("a.jsonl", content)) == expected


# -- Parquet ----------------------------------------------------------------------------------------------------------


def parquet(path: Path, table: pa.Table, **options: object) -> Path:
    pq.write_table(table, path, **options)
    return path


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int64()),
            "f": pa.array([0.5, math.nan, None], pa.float32()),
            "d": pa.array([Decimal("1.5"), None, None], pa.decimal128(10, 2)),
            "b": [True, None, False],
            "s": ["a", None, "b"],
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
            "n": pa.array([None] * 3, pa.null()),
            "t": [datetime(2026, 1, 1)] * 3,
            "l": [[1]] * 3,
            "prediction": [1, 2, 3],
            "id": [datetime(2026, 1, 1)] * 3,
        }
    )
    path = parquet(tmp_path / "a.parquet", table)
    assert columns(path) == {
        (Role.FEATURE, "i"): [1.0, None, 3.0],
        (Role.FEATURE, "f"): [0.5, None, None],
        (Role.FEATURE, "d"): [1.5, None, None],
        (Role.FEATURE, "b"): [True, None, False],
        (Role.FEATURE, "s"): ["a", None, "b"],
        (Role.FEATURE, "c"): ["x", "y", "x"],
        (Role.FEATURE, "n"): [None] * 3,
        (Role.PREDICTION, "prediction"): [1.0, 2.0, 3.0],
    }
    assert open_dataset(path).warnings == [
        'column "t" is left out: its type is timestamp[us]; accepted are numbers, booleans and text',
        'column "l" is left out: its type is list<element: int64>; accepted are numbers, booleans and text',
    ]
    assert features(path, {"i": "categorical", "b": "categorical"})["i"] == [1, None, 3]


def test_parquet_row_groups_are_joined_to_chunks(tmp_path: Path) -> None:
    x = np.arange(150_000.0)
    path = parquet(tmp_path / "a.pq", pa.table({"x": x}), row_group_size=10_000)
    done: list[int] = []
    chunks = list(open_dataset(path).chunks({}, done.append))
    assert [chunk.rows for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 150_000 - 2 * CHUNK_ROWS]
    assert np.concatenate([chunk.columns[Role.FEATURE, "x"] for chunk in chunks]).tolist() == x.tolist()
    assert sum(done) == open_dataset(path).units == 15


def test_parquet_errors(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = message(write("a.parquet", "PAR1 or not"))
    assert text.startswith("a.parquet: cannot be read as Parquet: ")
    assert "\n" not in text
    assert message(tmp_path / "none.parquet").startswith("none.parquet: cannot be read as Parquet: ")
    empty = parquet(tmp_path / "empty.parquet", pa.table({"x": pa.array([], pa.float64())}))
    assert message(empty) == "empty.parquet: no rows; accepted is a row for each sample"
    twice = parquet(tmp_path / "twice.parquet", pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]))
    assert message(twice) == 'twice.parquet: "x" is the name of columns 1 and 2; give each its own'
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert message(empty) == "empty.parquet: reading Parquet needs pyarrow: pip install 'mlexporter[arrow]'"


# -- all formats ------------------------------------------------------------------------------------------------------


def test_unknown_format(write: Write) -> None:
    expected = "unknown format; accepted are .csv, .tsv, .jsonl, .ndjson (each also with .gz), .parquet"
    assert message(write("a.json", "[]")) == f"a.json: {expected}"


def test_files_that_are_none(tmp_path: Path) -> None:
    assert message(tmp_path / "a.csv") == "a.csv: no such file; accepted is a file, which may be read twice"
    (tmp_path / "b.csv").mkdir()
    assert message(tmp_path / "b.csv") == "b.csv: not a regular file; accepted is a file, which may be read twice"


@pytest.mark.parametrize("end", [30, -4])
def test_broken_gzip(write: Write, end: int) -> None:
    content = gzip.compress(b"a\n" + b"".join(b"%d\n" % i for i in range(1000)))
    assert message(write("a.csv.gz", content[:end])).startswith("a.csv.gz: its gzip data is broken: ")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "age,x\n1,2\n"), ("a.jsonl", '{"age": 1, "x": 2}'), ("a.parquet", "")]
)
def test_renamed_column_that_is_not_there(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    if name.endswith("parquet"):
        parquet(path, pa.table({"age": [1], "x": [2]}))
    line = ":1" if name.endswith("csv") else ""
    expected = f'{name}{line}: no column "score", which is named for prediction; the columns are "age", "x"'
    assert message(path, DataConfig(prediction="score")) == expected


def test_column_named_twice(write: Write) -> None:
    text = message(write("a.csv", "a\n1\n"), DataConfig(prediction="a", label="a"))
    assert text == '"a" is named for prediction and for label; name two'


def chunk_rows(chunks: list[Chunk]) -> list[int]:
    return [chunk.rows for chunk in chunks]


def test_chunks_are_whole_blocks_and_fewer_rows_where_there_are_many_columns(write: Write) -> None:
    names = [f"c{i}" for i in range(300)]
    rows = 4 * 4096 + 5
    path = write("a.csv", ",".join(names) + "\n" + (",".join("1" * 300) + "\n") * rows)
    got = chunk_rows(list(open_dataset(path).chunks({})))
    assert got == [4096] * 4 + [5]
    assert 4096 % MOMENT_ROWS == 0


def test_only_some_columns_and_progress(write: Write) -> None:
    path = write("a.csv", "a,b\n" + "1,2\n" * 100_000)
    dataset = open_dataset(path)
    done: list[int] = []
    chunks = list(dataset.chunks({}, done.append, {(Role.FEATURE, "b")}))
    assert chunk_rows(chunks) == [CHUNK_ROWS, 100_000 - CHUNK_ROWS]
    assert all(chunk.columns.keys() == {(Role.FEATURE, "b")} for chunk in chunks)
    assert sum(done) == dataset.units == path.stat().st_size


# -- times ------------------------------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
TS = DataConfig(time="ts")
# Noon of 2026-01-31 in UTC, as `date +%s` has it.
NOON = 1769860800
ACCEPTED = "accepted is ISO 8601 such as 2026-01-31T12:00:00Z, or Unix time, in the years 1000 to 4999"


def times(path: Path, names: DataConfig = TS, only: set[Key] | None = None) -> list[float | None]:
    """Times of all chunks, None where missing; naive ones are of Berlin."""
    listed: list[float | None] = []
    for chunk in open_dataset(path, names, BERLIN).chunks({}, None, only):
        assert chunk.times is not None
        assert chunk.times.shape == (chunk.rows,)
        listed += [None if math.isnan(time) else time for time in chunk.times.tolist()]
    return listed


def test_no_times_where_no_column_is_named(write: Write) -> None:
    path = write("a.csv", f"ts,time\n{NOON},{NOON}\n")
    assert [chunk.times for chunk in open_dataset(path).chunks({})] == [None]
    assert features(path) == {"ts": [NOON], "time": [NOON]}


def test_column_of_times_is_no_feature(write: Write) -> None:
    content = f"x,ts,time,id\n1,{NOON},2,3\n"
    assert features(write("a.csv", content), None, TS) == {"x": [1.0], "time": [2.0]}
    path = write("b.csv", content)
    assert features(path, None, DataConfig(time="id")) == {"x": [1.0], "ts": [NOON], "time": [2.0]}
    assert times(path, DataConfig(time="id")) == [3]


def test_csv_times(write: Write) -> None:
    rows = ["2026-01-31T12:00:00Z", "2026-01-31 13:00:00", f"{NOON}", f"{NOON}000", "", "NA", "nan", "2026-01-31"]
    path = write("a.csv", "ts,x\n" + "".join(f"{row},1\n" for row in rows))
    assert times(path) == [NOON] * 4 + [None] * 3 + [NOON - 13 * 3600]


def test_times_are_utc_unless_a_zone_is_given(write: Write) -> None:
    path = write("a.csv", "ts,x\n2026-01-31T12:00,1\n")
    (chunk,) = open_dataset(path, TS).chunks({})
    assert chunk.times is not None
    assert chunk.times.tolist() == [NOON]


@pytest.mark.parametrize(
    ("content", "line", "value"),
    [
        ("ts,x\nyesterday,1\n", 2, '"yesterday"'),
        ("ts,x\n1,1\n\n\n31.01.2026,1\n", 5, '"31.01.2026"'),
        ('ts,x\n1,"a\nb\n"\ntrue,"c\nd"\n', 5, '"true"'),
        ('x,ts\n"a\n\nb",1e300\n', 2, '"1e300"'),
        ("\n\nts,x\n1,2\n,3\ninf,1\n", 6, '"inf"'),
        ("ts,x\n" + "1,2\n" * 70_000 + "5000-01-01,1\n", 70_002, '"5000-01-01"'),
        ("ts,x\n" + "y" * 100_000 + ",1\n", 2, '"' + "y" * 57 + '..."'),
    ],
)
def test_csv_what_is_no_time(write: Write, content: str, line: int, value: str) -> None:
    assert message(write("a.csv", content), TS) == f'a.csv:{line}: {value} in column "ts" is no time; {ACCEPTED}'


def test_jsonl_flat_times(write: Write) -> None:
    lines = [f'{{"ts": {value}, "x": 1}}' for value in (NOON, f'"{NOON}"', '"2026-01-31T13:00:00"', "null", NOON + 0.5)]
    path = write("a.jsonl", "\n\n".join([*lines, '{"x": 2}']))
    assert times(path) == [NOON, NOON, NOON, None, NOON + 0.5, None]
    assert features(path, None, TS) == {"x": [1, 1, 1, 1, 1, 2]}


def test_jsonl_nested_times(write: Write) -> None:
    path = write("a.jsonl", f'{{"features": {{"x": 1, "ts": 5}}, "ts": {NOON}}}\n{{"features": {{"x": 2, "ts": 6}}}}\n')
    dataset = open_dataset(path, TS)
    list(dataset.chunks({}))
    assert dataset.warnings == []
    assert times(path) == [NOON, None]
    # the column of times stands beside the features
    assert features(path, None, TS) == {"x": [1, 2], "ts": [5, 6]}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('"soon"', '"soon"'),
        ('""', '""'),
        ("98000000000", '"98000000000"'),
        ("true", "a boolean"),
        ("[1]", "an array"),
        ('{"$date": 1}', "an object"),
    ],
)
def test_jsonl_what_is_no_time(write: Write, value: str, told: str) -> None:
    expected = f'{told} in column "ts" is no time; {ACCEPTED}'
    flat = write("a.jsonl", f'{{"ts": 1}}\n\n{{"ts": null}}\n{{"ts": {value}}}\n')
    assert message(flat, TS) == f"a.jsonl:4: {expected}"
    nested = write("b.jsonl", f'{{"features": {{}}, "ts": {value}}}\n')
    assert message(nested, TS) == f"b.jsonl:1: {expected}"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        *((pa.array([datetime(2026, 1, 31, 13), None], pa.timestamp(unit)), NOON) for unit in ("s", "ms", "us", "ns")),
        *(
            (pa.array([datetime(2026, 1, 31, 12, tzinfo=UTC), None], pa.timestamp(unit, "America/New_York")), NOON)
            for unit in ("s", "ms", "us", "ns")
        ),
        (pa.array([datetime(2026, 1, 31, 13, microsecond=250_000), None], pa.timestamp("us")), NOON + 0.25),
        # an hour that comes twice is the first one
        (pa.array([datetime(2026, 10, 25, 2, 30), None], pa.timestamp("us")), 1792888200),
        (pa.array([date(2026, 1, 31), None], pa.date32()), NOON - 13 * 3600),
        (pa.array([date(2026, 1, 31), None], pa.date64()), NOON - 13 * 3600),
        (pa.array([NOON, None], pa.int64()), NOON),
        (pa.array([NOON, None], pa.uint32()), NOON),
        (pa.array([NOON * 1000, None], pa.int64()), NOON),
        (pa.array([NOON * 10**9, None], pa.uint64()), NOON),
        (pa.array([NOON + 0.5, math.nan], pa.float64()), NOON + 0.5),
        (pa.array([Decimal("1769860800.25"), None], pa.decimal128(20, 2)), NOON + 0.25),
        (pa.array(["2026-01-31T13:00:00", None]), NOON),
        (pa.array(["2026-01-31T12:00:00Z", None], pa.large_string()), NOON),
        (pa.array(["2026-01-31T12:00:00Z", None]).dictionary_encode(), NOON),
        (pa.array([None, None], pa.null()), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_times(tmp_path: Path, array: pa.Array, expected: float | None) -> None:
    path = parquet(tmp_path / "a.parquet", pa.table({"x": [1.0, 2.0], "ts": array}))
    assert times(path) == [expected, None]
    assert open_dataset(path, TS).warnings == []
    assert features(path, None, TS) == {"x": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (pa.array(["2026-01-31", "soon"]), '"soon"'),
        (pa.array([1.0, math.inf]), '"inf"'),
        (pa.array([1, 98_000_000_000]), '"98000000000"'),
        (pa.array([datetime(2026, 1, 1), datetime(9999, 12, 31)], pa.timestamp("ms")), '"9999-12-31 00:00:00.000"'),
        (pa.array([date(2026, 1, 1), date(1, 1, 1)], pa.date32()), '"0001-01-01"'),
        (pa.array([date(2026, 1, 1), date(9999, 12, 31)], pa.date64()), '"9999-12-31"'),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_what_is_no_time(tmp_path: Path, array: pa.Array, value: str) -> None:
    path = parquet(tmp_path / "a.parquet", pa.table({"ts": array}))
    assert message(path, TS) == f'a.parquet: row 2: {value} in column "ts" is no time; {ACCEPTED}'


@pytest.mark.parametrize(
    "array",
    [
        pa.array([10**18], pa.timestamp("ms")),
        pa.array([-(2**63)], pa.timestamp("us", "Europe/Berlin")),
        pa.array([2**31 - 1], pa.date32()),
    ],
)
def test_parquet_times_beyond_what_python_has(tmp_path: Path, array: pa.Array) -> None:
    text = message(parquet(tmp_path / "a.parquet", pa.table({"ts": array})), TS)
    assert text.startswith('a.parquet: row 1: "')
    assert text.endswith(f'" in column "ts" is no time; {ACCEPTED}')


def test_parquet_row_of_a_later_chunk(tmp_path: Path) -> None:
    array = pa.array(["2026-01-31"] * 70_000 + ["soon"])
    path = parquet(tmp_path / "a.parquet", pa.table({"ts": array}), row_group_size=10_000)
    assert message(path, TS) == f'a.parquet: row 70001: "soon" in column "ts" is no time; {ACCEPTED}'


@pytest.mark.parametrize(
    "array", [pa.array([True]), pa.array([{"a": 1}]), pa.array([timedelta(1)]), pa.array([b"2026"])]
)
def test_parquet_column_that_holds_no_times(tmp_path: Path, array: pa.Array) -> None:
    path = parquet(tmp_path / "a.parquet", pa.table({"x": [1], "ts": array}))
    expected = f'a.parquet: column "ts" is of type {array.type}, which is no time'
    assert message(path, TS) == f"{expected}; accepted are timestamps, dates, numbers and text"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_times_come_with_any_columns(write: Write, name: str) -> None:
    rows = 70_000
    path = write(name, "")
    stamps = list(range(NOON, NOON + rows))
    if name == "a.csv":
        path.write_text("x,ts,y\n" + "".join(f"1,{stamp},2\n" for stamp in stamps))
    elif name == "a.jsonl":
        path.write_text("".join(f'{{"x": 1, "ts": {stamp}, "y": 2}}\n' for stamp in stamps))
    else:
        parquet(path, pa.table({"x": [1] * rows, "ts": stamps, "y": [2] * rows}))
    for only in (None, {(Role.FEATURE, "y")}, set[Key]()):
        assert times(path, TS, only) == stamps
    (first, second) = open_dataset(path, TS).chunks({}, None, {(Role.FEATURE, "y")})
    assert first.columns.keys() == second.columns.keys() == {(Role.FEATURE, "y")}


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "x\n1\n"), ("a.jsonl", '{"x": 2}'), ("b.jsonl", '{"features": {"ts": 1}}'), ("a.parquet", "")],
)
def test_column_of_times_that_is_not_there(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    if name.endswith("parquet"):
        parquet(path, pa.table({"x": [2]}))
    line = ":1" if name.endswith("csv") else ""
    there = "features" if name == "b.jsonl" else "x"
    expected = f'{name}{line}: no column "ts", which is named for time; the columns are "{there}"'
    assert message(path, TS) == expected


def test_column_of_times_that_is_another_too(write: Write) -> None:
    text = message(write("a.csv", "a\n1\n"), DataConfig(label="a", time="a"))
    assert text == '"a" is named for label and for time; name two'
