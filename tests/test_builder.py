import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from msgspec import UNSET

from mlexporter import builder
from mlexporter.baseline import Baseline, CategoricalColumn, NumericColumn, encode, read, sealed
from mlexporter.builder import build
from mlexporter.columns import learn_column
from mlexporter.commands.baseline import baseline_group
from mlexporter.config import ColumnConfig, DataConfig
from mlexporter.dataset import CHUNK_ROWS, DatasetError, open_dataset
from mlexporter.edges import FINE_QUANTILES, Floats
from mlexporter.outcome_profile import ClassProfile, RegressionProfile
from mlexporter.profiling import OutcomeProfiler
from mlexporter.samples import Role

ROWS = 100_000


def table(rows: int = ROWS) -> dict[str, list[object]]:
    """Columns of every kind, as Python values."""
    rng = np.random.default_rng(11)
    gaps = rng.random(rows)
    normal, amount = rng.normal(50, 10, rows), np.where(rng.random(rows) < 0.6, 0.0, rng.lognormal(3, 2, rows))
    return {
        "normal": normal.tolist(),
        "amount": amount.tolist(),
        "age": rng.integers(18, 90, rows).tolist(),
        "gaps": [None if gap < 0.1 else gap for gap in gaps.tolist()],
        "huge": rng.choice([1e308, -1e308, 5e-324, -0.0, 3.5], rows).tolist(),
        "constant": [0.1] * rows,
        "absent": [None] * rows,
        "plan": rng.choice(["free", "pro", "team"], rows, p=[0.6, 0.3, 0.1]).tolist(),
        "city": [f"c{i}" for i in rng.integers(0, 70, rows).tolist()],
        "flag": (rng.random(rows) < 0.2).tolist(),
        "prediction": rng.random(rows).tolist(),
        "label": rng.integers(0, 2, rows).tolist(),
    }


def write_csv(path: Path, columns: dict[str, list[object]]) -> Path:
    rows = zip(*(["" if x is None else str(x) for x in column] for column in columns.values()), strict=True)
    path.write_text("\n".join([",".join(columns), *map(",".join, rows)]) + "\n")
    return path


def write_jsonl(path: Path, columns: dict[str, list[object]]) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return path


def write_parquet(path: Path, columns: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def role(name: str) -> Role:
    return {"prediction": Role.PREDICTION, "label": Role.LABEL}.get(name, Role.FEATURE)


@pytest.fixture(scope="module")
def columns() -> dict[str, list[object]]:
    return table()


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[object]]) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "data.csv", columns)


@pytest.fixture(scope="module")
def exact(csv_file: Path) -> Baseline:
    return build(open_dataset(csv_file))


@pytest.fixture(scope="module")
def sketched(csv_file: Path) -> Baseline:
    return build(open_dataset(csv_file), memory_limit=0)


def numeric(baseline: Baseline, name: str) -> NumericColumn:
    (column,) = (column for column in baseline.columns if column.name == name)
    assert isinstance(column, NumericColumn)
    return column


def categorical(baseline: Baseline, name: str) -> CategoricalColumn:
    (column,) = (column for column in baseline.columns if column.name == name)
    assert isinstance(column, CategoricalColumn)
    return column


# -- exact ------------------------------------------------------------------------------------------------------------


def test_exact_baseline_is_that_of_the_whole_columns(columns: dict[str, list[object]], exact: Baseline) -> None:
    expected = [learn_column(role(name), name, values, None) for name, values in columns.items()]
    profiler = OutcomeProfiler("binary", ("0", "1"))
    profiler.add(columns["prediction"], columns["label"])
    outcomes = profiler.result()
    assert outcomes is not None
    assert encode(exact) == encode(sealed(Baseline(rows=ROWS, columns=tuple(expected), outcomes=outcomes)))


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_every_format_gives_the_same_baseline(
    write: Callable[[Path, dict[str, list[object]]], Path],
    columns: dict[str, list[object]],
    exact: Baseline,
    sketched: Baseline,
    tmp_path: Path,
) -> None:
    path = write(tmp_path / write.__name__.replace("write_", "data."), columns)
    assert encode(build(open_dataset(path))) == encode(exact)
    assert encode(build(open_dataset(path), memory_limit=0)) == encode(sketched)


def test_column_that_comes_and_goes(tmp_path: Path) -> None:
    """Missing before its first chunk, between, and after its last one."""
    x = [None] * CHUNK_ROWS + list(range(100)) * 10 + [None] * CHUNK_ROWS + [5, "bad"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join('{"y": 1}\n' if v is None else json.dumps({"y": 1, "x": v}) + "\n" for v in x))
    baseline = build(open_dataset(path))
    assert numeric(baseline, "x") == learn_column(Role.FEATURE, "x", x, "numeric")
    assert numeric(baseline, "x").invalid == 1


def test_given_types(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,z\n" + "1,1,\n" * 60)
    baseline = build(
        open_dataset(path),
        model="m",
        version="2",
        settings={
            "x": ColumnConfig(type="categorical"),
            "y": ColumnConfig(type="boolean"),
            "z": ColumnConfig(type="boolean"),
        },
    )
    assert categorical(baseline, "x").counts == (60, 0, 0, 0)
    assert categorical(baseline, "y").counts == (0, 60, 0, 0, 0)
    assert categorical(baseline, "z").counts == (0, 0, 0, 0, 60)
    assert (baseline.model, baseline.version, baseline.source, baseline.rows) == ("m", "2", "file", 60)


def test_nothing_but_fields_that_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\nr\n")
    with pytest.raises(DatasetError, match="no columns; accepted is at least one feature, prediction or label"):
        build(open_dataset(path))


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_no_outcomes_without_predictions_and_labels(tmp_path: Path) -> None:
    for name in ("prediction", "label"):
        path = write_csv(tmp_path / "a.csv", {"x": [1.0, 2.0], name: [0.5, 1.0]})
        assert build(open_dataset(path)).outcomes is UNSET
    path = tmp_path / "a.jsonl"
    path.write_text('{"prediction": 0.5}\n{"label": 1}\n')
    assert build(open_dataset(path)).outcomes is UNSET


def test_outcomes_of_classes_with_probabilities(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        {"prediction": [{"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}, "b", {"b": 1}, None], "label": [*"abab", "a"]},
    )
    outcomes = build(open_dataset(path)).outcomes
    assert isinstance(outcomes, ClassProfile)
    assert (outcomes.classes, outcomes.rows) == (("a", "b"), 4)
    assert outcomes.bins[:9] == (1, 1, 0, 1, 1, 0, 0, 0, 0)
    # of one half and one half the first is the greater; "b" alone has no scores
    assert len(outcomes.score_edges) == 2
    assert outcomes.sums[-1] == pytest.approx(2 * (0.25**2 + 0.5**2))


def test_outcomes_of_a_row_in_nested_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"features": {"label": 3}, "prediction": 10, "label": 12.5}\n' * 10)
    outcomes = build(open_dataset(path)).outcomes
    assert isinstance(outcomes, RegressionProfile)
    assert (outcomes.rows, outcomes.centre, outcomes.sums[:3]) == (10, 12.5, (0.0, 25.0, 62.5))


def test_outcomes_by_the_hour(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    at = (1_700_000_000 + np.arange(5000) * 300.0).tolist()
    scores = rng.random(5000)
    truth = (rng.random(5000) < scores).tolist()
    path = write_csv(tmp_path / "a.csv", {"prediction": scores.tolist(), "label": truth, "at": at})
    baseline = build(open_dataset(path, DataConfig(time="at")))
    assert any(column.days is not None for column in baseline.columns)
    assert isinstance(baseline.outcomes, ClassProfile)
    assert (baseline.outcomes.rows, sum(baseline.outcomes.bins[1:4:2])) == (5000, sum(truth))
    assert read(write_bytes(tmp_path / "b.json", encode(baseline))) == baseline


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# -- beyond the memory limit ------------------------------------------------------------------------------------------


def test_counts_are_exact_beyond_the_limit(columns: dict[str, list[object]], sketched: Baseline) -> None:
    for name in ("normal", "amount", "age", "gaps", "huge", "prediction"):
        column = numeric(sketched, name)
        x = np.array(columns[name], dtype=np.float64)
        x = x[~np.isnan(x)]
        index = np.searchsorted(column.edges, x, side="left")
        assert list(column.counts[:-1]) == np.bincount(index, minlength=len(column.edges) + 1).tolist()
        means = [np.clip(x[index == i], -1e140, 1e140).mean() for i in range(1, len(column.edges))]
        np.testing.assert_allclose(np.array(column.means[1:-1], dtype=float), means, rtol=1e-9)


def test_moments_are_the_same_beyond_the_limit(exact: Baseline, sketched: Baseline) -> None:
    for name in ("normal", "amount", "age", "gaps", "huge", "constant"):
        a, b = numeric(exact, name), numeric(sketched, name)
        assert (a.mean, a.stddev, a.minimum, a.maximum) == (b.mean, b.stddev, b.minimum, b.maximum)


def test_columns_of_few_values_stay_exact(exact: Baseline, sketched: Baseline) -> None:
    for name in ("huge", "constant", "absent", "plan", "city", "flag", "label"):
        (a,), (b,) = ([c for c in baseline.columns if c.name == name] for baseline in (exact, sketched))
        assert a == b


def rank_errors(column: NumericColumn, x: Floats, probabilities: Sequence[float]) -> list[float]:
    """For each edge that is a quantile, how far the nearest wanted rank lies from the ranks of its value."""
    x = np.sort(x)
    edges = np.array(column.edges[1:-1])
    high = np.searchsorted(x, edges, side="right") / len(x)
    low = np.searchsorted(x, edges, side="left") / len(x)
    wanted = np.array(probabilities)
    return [float(np.maximum(np.maximum(a - wanted, wanted - b), 0).min()) for a, b in zip(low, high, strict=True)]


@pytest.mark.parametrize("shape", ["normal", "lognormal", "cauchy", "atoms", "sorted", "integers"])
def test_edges_lie_within_the_error_in_the_file(shape: str, tmp_path: Path) -> None:
    rows = 1_000_000
    rng = np.random.default_rng(2)
    shapes: dict[str, Callable[[], Floats]] = {
        "normal": lambda: rng.normal(size=rows),
        "lognormal": lambda: rng.lognormal(0, 3, rows),
        "cauchy": lambda: rng.standard_cauchy(rows),
        "atoms": lambda: np.where(rng.random(rows) < 0.5, rng.choice([0.0, 1.0, 2.5], rows), rng.normal(size=rows)),
        "sorted": lambda: np.sort(rng.normal(size=rows)),
        "integers": lambda: rng.poisson(300, rows).astype(float),
    }
    x = shapes[shape]()
    path = write_parquet(tmp_path / "x.parquet", {"x": x})  # type: ignore[dict-item]
    exact, sketched = (numeric(build(open_dataset(path), memory_limit=m), "x") for m in (1 << 30, 0))
    assert exact.rank_error == 0.0
    assert 0.0 < sketched.rank_error < 0.002 or shape == "integers"
    assert len(sketched.edges) == len(exact.edges)
    assert len(sketched.coarse) == len(exact.coarse)
    # an edge just below an atom is no quantile, but its rank is that of one all the same
    atoms = {low for low, high in pairwise(sketched.edges) if np.nextafter(low, np.inf) == high}
    quantile_edges = [e for e in sketched.edges[1:-1] if e not in atoms]
    errors = dict(zip(sketched.edges[1:-1], rank_errors(sketched, x, FINE_QUANTILES), strict=True))
    assert max(errors[edge] for edge in quantile_edges) <= sketched.rank_error + 1e-9
    for value in (0.0, 1.0, 2.5) if shape == "atoms" else ():
        i = sketched.edges.index(value)
        assert sketched.counts[i] == int((x == value).sum())


def test_many_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "MAX_CATEGORIES", 1000)
    rng = np.random.default_rng(6)
    frequent = [f"f{i:02}" for i in rng.integers(0, 60, ROWS).tolist()]
    unique = [f"u{i}" for i in range(ROWS)]
    x = [a if keep else b for a, b, keep in zip(frequent, unique, (rng.random(ROWS) < 0.8).tolist(), strict=True)]
    path = write_csv(tmp_path / "a.csv", {"x": list(x), "y": [1.0] * ROWS})
    column = categorical(build(open_dataset(path)), "x")
    names, counts = np.unique([v for v in x if v[0] == "f"], return_counts=True)
    order = sorted(zip(-counts, names, strict=True))
    assert column.categories == tuple(name for _, name in order[:50])
    assert list(column.counts[:50]) == [-count for count, _ in order[:50]]
    assert column.counts[50:] == (ROWS - sum(column.counts[:50]), 0, 0)
    assert not column.complete


def test_long_categories_are_held_to_the_limit(tmp_path: Path) -> None:
    x: list[object] = [f"{i % 20_000:k>200}" for i in range(100_000)]
    path = write_csv(tmp_path / "a.csv", {"x": x})
    column = categorical(build(open_dataset(path), memory_limit=4 << 20), "x")
    assert (sum(column.counts), column.complete) == (100_000, False)
    assert column.counts[:50] == (5,) * 50


class Growing:
    """A progress callback that changes the file between the passes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passes: list[int] = []

    def __call__(self, number: int, units: int) -> None:
        if number == 2 and 2 not in self.passes:
            with self.path.open("a") as file:
                file.write("99999\n")
        self.passes.append(number)


def test_file_that_changes_between_the_passes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {"x": [float(i) for i in range(1000)]})
    with pytest.raises(DatasetError) as error:
        build(open_dataset(path), memory_limit=0, progress=Growing(path))
    assert str(error.value) == (
        f"{path}: it changed while it was read; build the baseline again when it is written whole"
    )


def test_progress_tells_the_whole_file_in_each_pass(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", table(3000))
    for limit, passes in ((1 << 30, 1), (0, 2)):
        done: dict[int, int] = {}

        def progress(number: int, units: int, done: dict[int, int] = done) -> None:
            done[number] = done.get(number, 0) + units

        dataset = open_dataset(path)
        build(dataset, memory_limit=limit, progress=progress)
        assert done == dict.fromkeys(range(1, passes + 1), dataset.units)


# -- other processes --------------------------------------------------------------------------------------------------

PEAK = r"""
import re, sys
from pathlib import Path
from mlexporter.builder import build
from mlexporter.dataset import open_dataset
def peak():  # of this program, in KiB; ru_maxrss would begin with that of the program before
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
baseline = build(open_dataset(Path(sys.argv[1])), memory_limit=int(sys.argv[2]))
print((peak() - before) / 1024, baseline.columns[0].rank_error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int, limit: int) -> tuple[float, float]:
        path = tmp_path / f"{rows}.csv"
        if not path.exists():
            x = np.random.default_rng(1).random(rows).tolist()
            path.write_text("\n".join(["x", *map(str, x)]) + "\n")
        command = [sys.executable, "-c", PEAK, str(path), str(limit)]
        memory, error = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return float(memory), float(error)

    small, _ = peak(200_000, 1 << 20)
    large, error = peak(1_500_000, 1 << 20)  # 12 MB of numbers, and 72 to sort them
    assert error > 0
    assert large < small + 10
    whole, error = peak(1_500_000, 1 << 30)
    assert error == 0
    assert whole > large + 30
    assert whole < 150


@pytest.mark.parametrize("limit", ["1GiB", "100kB"])
def test_same_bytes_whatever_the_hash_seed(limit: str, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", table(5000))
    outputs = []
    code = "from mlexporter.commands.baseline import baseline_group; baseline_group()"
    for seed in ("1", "2"):
        output = tmp_path / f"{seed}.json"
        command = [sys.executable, "-c", code, "build", str(data), "-o", str(output), f"--memory-limit={limit}"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]
    rank_error = max(c.rank_error for c in read(tmp_path / "1.json").columns if isinstance(c, NumericColumn))
    assert (rank_error > 0) == (limit == "100kB")


# -- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(baseline_group, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("age,plan,score\n" + "".join(f"{i},pro,{i % 7 / 7}\n" for i in range(1000)))
    return path


def test_command_builds(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    result = run("build", data, "-o", output, "--model=m", "--version=1", "--prediction-column=score")
    baseline = read(output)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == (f"{output}: 1,000 rows, 3 columns (2 numeric, 1 categorical), hash {baseline.hash}\n")
    assert (baseline.model, baseline.version) == ("m", "1")
    assert [(c.role, c.name) for c in baseline.columns][-1] == (Role.PREDICTION, "prediction")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert output.stat().st_mode & 0o777 == 0o666 & ~umask


CONFIG = """
models:
  - {name: churn, version: "7", baseline: b.json, columns: {age: {type: categorical}, gone: {}}, data: {label: score}}
  - {name: churn, version: "8", baseline: b.json}
  - {name: fraud, baseline: b.json}
"""


def test_command_takes_names_and_types_from_the_configuration(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text(CONFIG)
    output = tmp_path / "b.json"
    result = run("build", data, "-o", output, "--config.file", config, "--model=churn", "--version=7")
    assert result.exit_code == 0
    baseline = read(output)
    assert isinstance(baseline.columns[0], CategoricalColumn)
    assert baseline.columns[-1].role == Role.LABEL
    assert f'warning: the configuration names column "gone", which is not in {data}\n' in result.stderr
    result = run("build", data, "-o", output, "--config.file", config, "--model=fraud", "--version=3")
    assert (read(output).model, read(output).version) == ("fraud", "3")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "several models (churn 7, churn 8, fraud); choose one with --model and --version"),
        (["--model=churn"], "several models (churn 7, churn 8, fraud); choose one with --model and --version"),
        (["--model=churn", "--version=9"], "no model churn 9; there are churn 7, churn 8, fraud"),
        (["--model=x"], "no model x; there are churn 7, churn 8, fraud"),
    ],
)
def test_command_needs_to_know_the_model(data: Path, tmp_path: Path, options: list[str], expected: str) -> None:
    config = tmp_path / "c.yml"
    config.write_text(CONFIG)
    result = run("build", data, "-o", tmp_path / "b.json", "--config.file", config, *options)
    assert (result.exit_code, result.stderr) == (1, f"Error: {config}: {expected}\n")


def test_command_refuses_to_write_over_the_data(data: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(data)
    before = data.read_bytes()
    for output in (data, link):
        result = run("build", data, "-o", output)
        expected = f"Error: {output}: is the data itself; give another file to write\n"
        assert (result.exit_code, result.stderr) == (1, expected)
    assert data.read_bytes() == before


def test_command_errors_are_a_line(data: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "b.json"
    result = run("build", data, "-o", nowhere)
    assert result.stderr == f"Error: {nowhere}: there is no folder {nowhere.parent}; make it first\n"
    result = run("build", data, "-o", tmp_path)
    assert result.stderr == f"Error: {tmp_path}: is no regular file; give the name of a file to write\n"
    result = run("build", tmp_path / "x.csv", "-o", tmp_path / "b.json")
    assert result.stderr == f"Error: {tmp_path / 'x.csv'}: no such file; accepted is a file, which may be read twice\n"
    assert result.exit_code == 1
    result = run("build", data, "-o", tmp_path / "b.json", "--config.file", tmp_path / "c.yml")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    result = run("build", data, "-o", tmp_path / "b.json", "--memory-limit=lots")
    assert result.exit_code == 2
    assert '"lots" is not a size' in result.stderr


def test_command_keeps_the_old_file_where_the_data_are_broken(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    output.write_text("old")
    data.write_text(data.read_text() + "1,2\n")
    result = run("build", data, "-o", output)
    assert result.stderr == f"Error: {data}:1002: 2 cells, but the header has 3 cells\n"
    assert output.read_text() == "old"


def test_command_draws_a_progress_bar_on_a_terminal(data: Path, tmp_path: Path) -> None:
    code = "from mlexporter.commands.baseline import baseline_group; baseline_group()"
    command = [sys.executable, "-c", code, "build", str(data), "-o", str(tmp_path / "b.json"), "--memory-limit=0"]
    ours, theirs = pty.openpty()
    process = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, check=True)
    os.close(theirs)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "Reading" in text
    assert "Counting" in text
    assert "100%" in text
    assert process.stdout == b""


def test_command_shows(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.json"
    run("build", data, "-o", output, "--model=m")
    result = run("show", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("model    m\n")
    result = run("show", data)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {data}: not a baseline that this version reads: ")


OUTCOMES = """
models:
  - name: churn
    task: binary
    baseline: b.json
    prediction: {classes: [stays, leaves], threshold: 0.25}
    data: {prediction: score, label: churned}
  - {name: raw, task: binary, baseline: b.json, data: {prediction: score, label: churned}}
"""


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Of scores 0, 1/10, ... 9/10 in turn, those of 1/2 and more leave."""
    path = tmp_path / "labelled.csv"
    rows = (f"{i},{i % 10 / 10},{'leaves' if i % 10 >= 5 else 'stays'}\n" for i in range(1000))
    path.write_text("age,score,churned\n" + "".join(rows))
    return path


def test_command_learns_outcomes_with_the_configuration(labelled: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text(OUTCOMES)
    output = tmp_path / "b.json"
    result = run("build", labelled, "-o", output, "--config.file", config, "--model=churn")
    baseline = read(output)
    assert result.stderr == (
        f"{output}: 1,000 rows, 3 columns (2 numeric, 1 categorical), outcomes of 1,000 rows (binary), hash "
        f"{baseline.hash}\n"
        "warning: only 1,000 outcomes: below 2,000 nothing is estimated without labels, and there is no alarm on "
        "concept drift\n"
    )
    assert isinstance(baseline.outcomes, ClassProfile)
    # said leaves from 0.25 on: of 3 in 10 wrongly not, of 0.3 and 0.4 wrongly
    assert baseline.outcomes.bins[:4] == (300, 0, 200, 500)
    shown = run("show", output).stdout
    assert "\noutcomes of 1,000 rows, binary, classes stays, leaves, threshold 0.25\n" in shown
    # the binomial error of 0.8 in 1,000
    assert "\naccuracy_ratio             0.8 ± 0.013\n" in shown
    assert "\nroc_auc_ratio              1 ± " in shown
    result = run("build", labelled, "-o", output, "--config.file", config, "--model=raw")
    assert (result.exit_code, result.stderr) == (
        1,
        f'Error: {labelled}: which of the labels "leaves", "stays" is the positive class is not known; set '
        "prediction.classes of the model in the configuration, the negative one first\n",
    )
    result = run("build", labelled, "-o", output, "--prediction-column=score", "--label-column=churned")
    assert result.exit_code == 0
    assert read(output).outcomes is UNSET
    assert 'warning: no outcomes: which of the labels "leaves", "stays" is the positive class' in result.stderr
