"""The command line up to the moment of serving: what it accepts, and what it says where it does not."""

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from click.testing import CliRunner, Result

from conftest import baseline, categorical, numeric
from mlexporter import __version__, addresses
from mlexporter.baseline import encode
from mlexporter.cli import main
from mlexporter.config import load
from mlexporter.loading import load_baselines
from mlexporter.samples import Role

PROFILE = baseline(numeric("age", [0.0, 10.0, 20.0], [1, 5, 12]), categorical("plan", {"pro": 3}))

Write = Callable[[str, str | bytes], Path]
Run = Callable[..., Result]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def run() -> Run:
    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def one_line(result: Result) -> str:
    """The one line that a command which fails says on standard error."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_version_and_help(run: Run) -> None:
    assert run("--version").output == f"mlexporter, version {__version__}\n"
    for option in ("--help", "-h"):
        output = run(option).output
        assert [line.split()[0] for line in output.partition("Commands:\n")[2].splitlines()] == [
            "backtest", "baseline", "check", "demo", "serve", "trigger",
        ]  # fmt: skip
    output = run("serve", "--help").output
    for option in ("--config.file", "--web.listen-address", "--web.server", "--log.level", "--log.format"):
        assert option in output
    output = run("trigger", "--help").output
    for option in ("--config.file", "--web.listen-address", "--dry-run", "--log.level", "--log.format"):
        assert option in output
    assert run("check", "--help").exit_code == 0
    for command in (("backtest",), ("baseline", "build")):
        output = run(*command, "--help").output
        for option in ("--time-column", "--timezone", "--config.file", "--prediction-column"):
            assert option in output


# -- check config ------------------------------------------------------------------------------------------------------


def test_check_config_good(run: Run, write: Write) -> None:
    write("churn.json", encode(PROFILE))
    model = "- {name: churn, version: '%d', baseline: churn.json}"
    for text, found in (
        ("models:\n" + model % 7, "1 model"),
        (f"models:\n{model % 7}\n{model % 8}", "2 models"),
        ("", "0 models"),
    ):
        path = write("mlexporter.yml", text)
        result = run("check", "config", path)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: valid, {found}\n", "")


def test_check_config_prints_every_mistake(run: Run, write: Write) -> None:
    path = write("mlexporter.yml", "windows: [1x]\nlimits: {max_series: 1}\nmodel: []\n")
    result = run("check", "config", path)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line, (number, key) in zip(lines, [(1, "windows[0]"), (2, "limits.max_series"), (3, "model")], strict=True):
        assert line.startswith(f"{path}:{number}:")
        assert key in line


def test_outcomes_that_cannot_be_counted_are_told_of(run: Run, write: Write) -> None:
    predictions = categorical("prediction", {"cat": 60, "dog": 40}, role=Role.PREDICTION)
    write("pets.json", encode(baseline(predictions)))
    path = write("mlexporter.yml", "models: [{name: pets, task: binary, baseline: pets.json}]")
    result = run("check", "config", path)
    assert result.exit_code == 0
    assert 'warning: model \'pets\': outcomes are not counted: which of "cat", "dog"' in result.stderr
    assert "set prediction.classes, the negative one first" in result.stderr
    text = "models: [{name: pets, task: binary, baseline: pets.json, prediction: {classes: [dog, cat]}}]"
    assert run("check", "config", write("mlexporter.yml", text)).stderr == ""


def test_a_shared_store_needs_its_extra(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "models: [{name: churn}]\ndiscovery: {enabled: true}\nlabels: {store: 'redis://127.0.0.1:1'}"
    path = write("mlexporter.yml", text)
    assert run("check", "config", path).stderr == ""
    monkeypatch.setitem(sys.modules, "redis", None)
    said = "labels.store needs the extra: pip install 'mlexporter[redis]'"
    checked = run("check", "config", path)
    assert (checked.exit_code, checked.stderr) == (0, f"{path}: warning: {said}\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    served = run("serve", f"--config.file={path}", f"--web.listen-address=127.0.0.1:{free}")
    assert one_line(served) == f"mlexporter: {said}"


def test_the_series_of_a_comparison_are_held_to_the_limit(run: Run, write: Write) -> None:
    write("churn.json", encode(PROFILE))
    text = """
models:
  - {name: churn, version: "7", baseline: churn.json}
  - {name: churn, version: "8", baseline: churn.json}
windows: [5m, 15m, 1h, 6h, 24h]
limits: {max_series: 318}
"""
    # each version as below; the second against the first: 7, and 2 columns in 5 windows
    error = one_line(run("check", "config", write("mlexporter.yml", text)))
    assert f"the models take up to {151 + 151 + 7 + 2 * 5} series, more than 318" in error


def test_models_that_take_too_many_series_are_refused_at_the_start(run: Run, write: Write) -> None:
    write("churn.json", encode(PROFILE))
    text = """
models: [{name: churn, version: "7", baseline: churn.json}]
windows: [5m, 15m, 1h, 6h, 24h]
limits: {max_series: 150}
"""
    # 34 of the version; age: 5 bins twice, a histogram of 5 and 2 edges, 1 and 9 a window; plan: 4 bins twice, 1 and 7
    # a window; each 5 of the alarm
    path = write("mlexporter.yml", text)
    expected = (
        f"{path}:4:22: limits.max_series: the models take up to 151 series, more than 150; "
        "raise it, or leave out columns or windows"
    )
    assert one_line(run("check", "config", path)) == expected
    assert one_line(run("serve", f"--config.file={path}")) == f"mlexporter: {expected}"
    assert run("check", "config", write("mlexporter.yml", text.replace("150", "151"))).exit_code == 0


def test_check_trigger_config(run: Run, write: Write) -> None:
    text = """
web: {bearer_token_file: token}
journal: {file: journal}
actions: {a: {command: {arguments: [/bin/true, "{{ %s.model }}"]}}}
routes: [{name: r, matchers: [severity=critical], action: a}]
"""
    path = write("trigger.yml", text % "labels")
    result = run("check", "trigger-config", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: valid, 1 route, 1 action\n", "")
    assert one_line(run("check", "trigger-config", write("trigger.yml", text % "label"))) == (
        f'{path}:4:48: actions.a.command.arguments[1]: "{{{{ label.model }}}}" names the unknown variable label; '
        "did you mean labels?"
    )


def test_check_config_of_no_file(run: Run, tmp_path: Path) -> None:
    assert one_line(run("check", "config", tmp_path / "nowhere.yml")) == (
        f"{tmp_path}/nowhere.yml: cannot be read: No such file or directory"
    )
    assert "cannot be read: Is a directory" in one_line(run("check", "config", tmp_path))


BAD_BASELINES: dict[str, bytes | None] = {
    "absent": None,
    "empty": b"",
    "no json": b"{",
    "no utf-8": b'{"rows": "\xff"}',
    "no baseline": b'{"rows": 1}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "of another format": encode(msgspec.structs.replace(PROFILE, format_version=99)),
    "changed": encode(PROFILE).replace(b'"rows": 3', b'"rows": 4'),
}


@pytest.mark.parametrize("case", BAD_BASELINES)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_bad_baseline_is_one_clear_line(run: Run, write: Write, tmp_path: Path, command: str, case: str) -> None:
    content = BAD_BASELINES[case]
    if content is not None:
        write("churn.json", content)
    path = write("mlexporter.yml", "models: [{name: churn, baseline: churn.json}]")
    result = run("check", "config", path) if command == "check" else run("serve", f"--config.file={path}")
    line = one_line(result).removeprefix("mlexporter: ")
    assert line.startswith(f"{path}:1:34: models[0].baseline: {tmp_path}/churn.json: ")
    assert len(line) < 500


def test_every_bad_baseline_is_named(run: Run, write: Write) -> None:
    write("good.json", encode(PROFILE))
    write("bad.json", "{")
    models = [{"name": f"m{i}", "baseline": name} for i, name in enumerate(["bad.json", "good.json", "none.json"])]
    path = write("mlexporter.yml", "models:\n" + "".join(f"- {json.dumps(model)}\n" for model in models))
    result = run("check", "config", path)
    assert result.exit_code == 1
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        [f"{path}:2:30", "models[0].baseline"],
        [f"{path}:4:30", "models[2].baseline"],
    ]


def test_baselines_are_those_of_their_models(write: Write) -> None:
    write("churn.json", encode(PROFILE))
    path = write(
        "mlexporter.yml", "models: [{name: a, version: 7, baseline: churn.json}, {name: b}]\ndiscovery: {enabled: true}"
    )
    assert load_baselines(load(path), path) == {("a", "7"): PROFILE}
    path = write("mlexporter.yml", "models: [{name: a, baseline: churn.json}]")
    assert load_baselines(load(path), path) == {("a", "unversioned"): PROFILE}


# -- the alarm: baseline build, baseline show, backtest ----------------------------------------------------------------


def table(values: Iterable[float], *, minutes: int | None = None) -> str:
    """A CSV file of one column, or of two with a row in so many minutes."""
    if minutes is None:
        return "".join(f"{line}\n" for line in ("x", *values))
    begin = datetime(2026, 1, 1)
    rows = (f"{(begin + i * timedelta(minutes=minutes)).isoformat()},{value}" for i, value in enumerate(values))
    return "".join(f"{line}\n" for line in ("at,x", *rows))


def even(rows: int) -> Iterator[float]:
    """As many rows at each of ten values."""
    return (i * 7 % 10 + 0.5 for i in range(rows))


def test_baseline_build_and_show_print_the_alarm(run: Run, write: Write, tmp_path: Path) -> None:
    data = write("history.csv", table(even(8 * 288), minutes=5))
    built = run("baseline", "build", data, "-o", tmp_path / "b.json", "--time-column=at", "--timezone=America/New_York")
    assert built.exit_code == 0
    headings, line = built.stdout.splitlines()
    assert headings.split()[:6] == ["role", "name", "season", "days", "warn", "page"]
    # 00:00 UTC is 19:00 of the day before: of the nine local days the first has five hours, and too few rows
    assert line.split()[:4] == ["feature", "x", "-", "8"]
    shown = run("baseline", "show", tmp_path / "b.json").stdout.splitlines()
    at = shown.index("alarm: tolerances as Kullback-Leibler divergence, without a configuration")
    assert shown[at - 1 : at] == [""]
    assert shown[at + 1 :] == [headings, line]


def test_baseline_build_without_times_prints_no_table(run: Run, write: Write, tmp_path: Path) -> None:
    built = run("baseline", "build", write("data.csv", table(even(1000))), "-o", tmp_path / "b.json")
    assert (built.exit_code, built.stdout) == (0, "")
    assert "alarm: tolerances" in run("baseline", "show", tmp_path / "b.json").stdout


def test_baseline_build_with_too_few_days_says_so(run: Run, write: Write, tmp_path: Path) -> None:
    data = write("history.csv", table(even(6 * 288), minutes=5))
    built = run("baseline", "build", data, "-o", tmp_path / "b.json", "--time-column=at")
    assert built.exit_code == 0
    assert (
        "warning: days with 200 rows or more: 6; a season and a tolerance are learned from 7 of them or" in built.stderr
    )
    assert built.stdout.splitlines()[1].split()[:4] == ["feature", "x", "-", "-"]


@pytest.fixture
def built(run: Run, write: Write, tmp_path: Path) -> Path:
    """A baseline of `even` values."""
    path = tmp_path / "b.json"
    assert run("baseline", "build", write("training.csv", table(even(5000))), "-o", path).exit_code == 0
    return path


def test_backtest_without_drift(run: Run, write: Write, built: Path) -> None:
    result = run("backtest", write("live.csv", table(even(2000))), f"--baseline={built}")
    assert (result.exit_code, result.stderr) == (0, "")
    headings, *rest = result.stdout.splitlines()
    assert headings.split() == ["tick", "time", "rows", "role", "column", "tier", "state", "evidence", "PSI"]
    # ln(1 column x 172,800 ticks in 30 days)
    assert rest == [
        "",
        "2,000 rows in 10 ticks with samples, 1 columns; an alarm goes on at an evidence of 12.06",
        "no alarm: it would neither have warned nor paged",
    ]


def test_backtest_tells_when_alarms_go_on_and_off(run: Run, write: Write, built: Path) -> None:
    live = write("live.csv", table([*even(2000), *[9.5] * 1000, *even(12_000)]))
    result = run("backtest", live, f"--baseline={built}", "--rows-per-tick=100")
    assert result.exit_code == 0
    _, *lines = result.stdout.partition("\n\n")[0].splitlines()
    changes = [line.split() for line in lines]
    for tier in ("warn", "page"):
        on, off = (cells for cells in changes if cells[5] == tier)
        assert on[3:7] == ["feature", "x", tier, "firing"]
        assert off[6] == "resolved"
        # the drift lasts from row 2,001, in tick 21, to row 3,000
        assert int(on[0]) in (21, 22)
        assert int(on[2].replace(",", "")) == 100 * int(on[0])
        assert float(on[7]) >= 12.06 > 12.06 - 2 > float(off[7])
        assert int(off[0]) > 30
    assert [line.split()[:4] for line in result.stdout.splitlines()[-2:]] == [
        ["feature", "x", "page", "1"],
        ["feature", "x", "warn", "1"],
    ]


def test_backtest_for_machines(run: Run, write: Write, built: Path) -> None:
    # a row a minute from the first of January on; the drift begins at 16:40
    live = write("live.csv", table([*even(1000), *[9.5] * 300], minutes=1))
    result = run("backtest", live, f"--baseline={built}", "--json", "--time-column=at", "--timezone=Europe/Berlin")
    assert (result.exit_code, result.stderr) == (0, "")
    warn, page = sorted(map(json.loads, result.stdout.splitlines()), key=lambda change: -ord(change["tier"][0]))
    for change, tier in ((warn, "warn"), (page, "page")):
        fields = ["tick", "time", "rows", "role", "column", "tier", "state", "log_evidence", "psi"]
        assert list(change) == fields
        assert [change[field] for field in fields[3:7]] == ["feature", "x", tier, "firing"]
        assert change["log_evidence"] >= 12.06
        assert "2026-01-01T16:40:00+01:00" < change["time"] < "2026-01-01T17:40:00+01:00"
        assert change["rows"] > 1000
        # ticks without samples count, so the tick tells the time: the first one ends at 00:00:15
        seconds = (
            datetime.fromisoformat(change["time"]) - datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
        ).seconds
        assert seconds == 15 * change["tick"]


def test_backtest_goes_by_the_configuration(run: Run, write: Write, built: Path) -> None:
    # half of the samples move to the last bin: 0.9 ln(0.1 / 0.05) + 0.1 ln(0.1 / 0.55) = 0.45
    drifted = [value for pair in zip(even(500), [9.5] * 500, strict=True) for value in pair]
    live = write("live.csv", table([*even(1000), *drifted]))
    assert "firing" in run("backtest", live, f"--baseline={built}").stdout
    text = """
models: [{name: a, baseline: b.json, columns: {x: {warn_tolerance: 2, page_tolerance: 3}}}]
detection: {false_alarm_every: 300d}
"""
    result = run("backtest", live, f"--baseline={built}", f"--config.file={write('mlexporter.yml', text)}")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "2,000 rows in 10 ticks with samples, 1 columns; an alarm goes on at an evidence of 14.36",
        "no alarm: it would neither have warned nor paged",
    ]


def test_backtest_without_times_warns_of_seasons(run: Run, write: Write, tmp_path: Path) -> None:
    write("mlexporter.yml", "models: [{name: a, baseline: b.json, columns: {x: {season: true}}}]")
    data, config = write("history.csv", table(even(8 * 288), minutes=5)), f"--config.file={tmp_path / 'mlexporter.yml'}"
    built = run("baseline", "build", data, "-o", tmp_path / "b.json", "--time-column=at", config)
    assert built.stdout.splitlines()[1].split()[2] == "UTC"
    result = run("backtest", data, f"--baseline={tmp_path / 'b.json'}")
    assert result.stderr.startswith('warning: the season of "x" needs the time of each row; ')
    assert run("backtest", data, f"--baseline={tmp_path / 'b.json'}", "--time-column=at").stderr == ""


def test_a_season_in_another_time_zone_is_warned_of(run: Run, write: Write, tmp_path: Path) -> None:
    config = write("learn.yml", "models: [{name: a, baseline: b.json, columns: {x: {season: true}}}]")
    data = write("history.csv", table(even(8 * 288), minutes=5))
    run("baseline", "build", data, "-o", tmp_path / "b.json", "--time-column=at", f"--config.file={config}")
    column = "models: [{name: a, baseline: b.json, columns: {x: {timezone: %s}}}]"
    there = run("check", "config", write("there.yml", column % "Asia/Kathmandu"))
    assert there.exit_code == 0
    assert (
        "model 'a', column 'x': the season was learned by hours of UTC, and is held against hours of Asia/Kathmandu"
    ) in there.stderr
    assert run("check", "config", write("here.yml", column % "UTC")).stderr == ""


def test_backtest_warns_of_what_is_odd(run: Run, write: Write, built: Path) -> None:
    back = write("live.csv", "at,y\n2026-01-02T00:00:00,1\n2026-01-01T00:00:00,2\n")
    stderr = run("backtest", back, f"--baseline={built}", "--time-column=at").stderr
    assert "warning: 1 rows have no time, or one before that of a row above them; they count when they come." in stderr
    assert 'warning: not in the data, and counted as missing: "x" of the baseline' in stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time-column=at", "--rows-per-tick=5"], "--rows-per-tick and a time column exclude each other; give one"),
        (["--timezone=UTC"], "--timezone is of use with --time-column only; name the column of the times"),
        (["--timezone=Europe/Berlim"], '"Europe/Berlim" is no time zone; did you mean Europe/Berlin?'),
        (["--rows-per-tick=0"], "0 is not in the range x>=1"),
    ],
)
def test_backtest_with_options_that_do_not_fit(
    run: Run, write: Write, built: Path, options: list[str], message: str
) -> None:
    result = run("backtest", write("live.csv", table(even(10), minutes=1)), f"--baseline={built}", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_backtest_of_files_that_are_none(run: Run, write: Write, built: Path, tmp_path: Path) -> None:
    live = write("live.csv", table(even(10), minutes=1))
    assert "cannot be read" in one_line(run("backtest", live, f"--baseline={tmp_path / 'none.json'}"))
    assert "none.csv" in one_line(run("backtest", tmp_path / "none.csv", f"--baseline={built}"))
    old = write("old.json", built.read_bytes().replace(b'"format_version": 2', b'"format_version": 1'))
    assert one_line(run("backtest", live, f"--baseline={old}")).endswith("format_version is 1, accepted is 2")
    wrong = write("wrong.csv", "at,x\nyesterday,1\n")
    line = one_line_after_headings(run("backtest", wrong, f"--baseline={built}", "--time-column=at"))
    assert line.startswith(f'Error: {wrong}:2: "yesterday" in column "at" is no time; accepted is ISO 8601')


def one_line_after_headings(result: Result) -> str:
    """The one line on standard error of a command that fails after it has begun to print."""
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    return line


# -- serve, up to serving ----------------------------------------------------------------------------------------------


def test_serve_with_a_bad_configuration(run: Run, write: Write, tmp_path: Path) -> None:
    path = write("mlexporter.yml", "windows: []\n")
    assert one_line(run("serve", f"--config.file={path}")).startswith(f"mlexporter: {path}:1:")
    line = one_line(run("serve", f"--config.file={tmp_path}/none.yml"))
    assert line == f"mlexporter: {tmp_path}/none.yml: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "address", ["", "9877", ":", ":0", ":65536", ":-1", ":http", ":٣", "::1:80", "[::1]", "a:b:80"]
)
def test_serve_with_a_bad_address(run: Run, address: str) -> None:
    line = one_line(run("serve", f"--web.listen-address={address}"))
    assert line.startswith(f"mlexporter: {address!r} is no address; ")


def test_serve_where_somebody_else_listens(run: Run, port: int) -> None:
    for server in ("granian", "waitress"):
        line = one_line(run("serve", f"--web.listen-address=127.0.0.1:{port}", f"--web.server={server}"))
        assert line == f"mlexporter: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_serve_where_nobody_may_listen(run: Run) -> None:
    line = one_line(run("serve", "--web.listen-address=192.0.2.1:9877"))
    assert line == "mlexporter: cannot listen on 192.0.2.1:9877: Cannot assign requested address"
    line = one_line(run("serve", "--web.listen-address=host.invalid:9877"))
    assert line.startswith("mlexporter: cannot listen on host.invalid:9877: ")


def test_serve_with_waitress_where_it_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    line = one_line(run("serve", f"--web.listen-address=127.0.0.1:{free}", "--web.server=waitress"))
    assert line == "mlexporter: --web.server=waitress needs the extra: pip install 'mlexporter[waitress]'"


@pytest.mark.parametrize(
    "option", ["--web.server=gunicorn", "--log.level=trace", "--log.format=xml", "--config=x", "x"]
)
def test_serve_with_other_options(run: Run, option: str) -> None:
    result = run("serve", option)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (":9877", "0.0.0.0", 9877),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:80", "::1", 80),
        ("[::]:80", "::", 80),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert addresses.split_address(address) == (host, port)


def test_the_server_is_imported_only_to_serve() -> None:
    """`--help` and `check config` answer at once."""
    script = (
        "import sys; from mlexporter.cli import main\n"
        "print({'granian', 'flask', 'jinja2', 'prometheus_client', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "set()\n"
