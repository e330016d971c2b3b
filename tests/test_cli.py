"""The command line up to the moment of serving: what it accepts, and what it says where it does not."""

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from conftest import baseline, categorical, numeric
from mlexporter import __version__, serving
from mlexporter.baseline import encode
from mlexporter.cli import main
from mlexporter.commands.serve import load_baselines
from mlexporter.config import load

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
            "baseline", "check", "demo", "serve",
        ]  # fmt: skip
    output = run("serve", "--help").output
    for option in ("--config.file", "--web.listen-address", "--web.server", "--log.level", "--log.format"):
        assert option in output
    assert run("check", "--help").exit_code == 0


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


def test_models_that_take_too_many_series_are_refused_at_the_start(run: Run, write: Write) -> None:
    write("churn.json", encode(PROFILE))
    text = """
models: [{name: churn, version: "7", baseline: churn.json}]
windows: [5m, 15m, 1h, 6h, 24h]
limits: {max_series: 127}
"""
    # 23 of the version; age: 5 bins twice, a histogram of 5, 1 and 9 a window; plan: 4 bins twice, 1 and 7 a window
    expected = (
        "limits.max_series: the models take up to 128 series, more than 127; raise it, or leave out columns or windows"
    )
    path = write("mlexporter.yml", text)
    assert one_line(run("check", "config", path)) == expected
    assert one_line(run("serve", f"--config.file={path}")) == f"mlexporter: {expected}"
    assert run("check", "config", write("mlexporter.yml", text.replace("127", "128"))).exit_code == 0


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
    assert line.startswith(f"models[0].baseline: {tmp_path}/churn.json: ")
    assert len(line) < 400


def test_every_bad_baseline_is_named(run: Run, write: Write) -> None:
    write("good.json", encode(PROFILE))
    write("bad.json", "{")
    models = [{"name": f"m{i}", "baseline": name} for i, name in enumerate(["bad.json", "good.json", "none.json"])]
    path = write("mlexporter.yml", json.dumps({"models": models}))
    result = run("check", "config", path)
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["models[0].baseline", "models[2].baseline"]


def test_baselines_are_those_of_their_models(write: Write) -> None:
    write("churn.json", encode(PROFILE))
    path = write(
        "mlexporter.yml", "models: [{name: a, version: 7, baseline: churn.json}, {name: b}]\ndiscovery: {enabled: true}"
    )
    assert load_baselines(load(path)) == {("a", "7"): PROFILE}
    path = write("mlexporter.yml", "models: [{name: a, baseline: churn.json}]")
    assert load_baselines(load(path)) == {("a", "unversioned"): PROFILE}


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
    assert serving.split_address(address) == (host, port)


def test_the_server_is_imported_only_to_serve() -> None:
    """`--help` and `check config` answer at once."""
    script = (
        "import sys; from mlexporter.cli import main\n"
        "print({'granian', 'flask', 'prometheus_client', 'sklearn', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "set()\n"
