"""What the project is made of: locked and hashed packages, and no code that runs what it reads."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mlexporter

ROOT = Path(__file__).parents[1]
SOURCE = Path(mlexporter.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# a lock, and the extras that are locked in it
LOCKS = {"requirements.lock": ("redis",), "requirements-dev.lock": ("dev",)}

# One package as it is locked: name, version, perhaps for whom, and hashes. Nothing else may stand in a lock: no
# address, no option, no range.
LOCKED = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][0-9a-z.+]*)(?: ; (?P<marker>[A-Za-z0-9_.'=!<> ]+))?"
    r"(?: --hash=sha256:[0-9a-f]{64})+"
)


# -- the locks ---------------------------------------------------------------------------------------------------------


def packages(lock: str) -> dict[str, list[re.Match[str]]]:
    """The packages of a lock, by name: several of one name are for several Pythons.

    >>> packages("--index-url https://example.com")
    Traceback (most recent call last):
    ...
    ValueError: no package with its hashes: --index-url https://example.com
    """
    found: dict[str, list[re.Match[str]]] = {}
    lines = re.sub(r" *\\\n *", " ", lock).splitlines()
    for line in (line for line in lines if line.strip() and not line.lstrip().startswith("#")):
        match = LOCKED.fullmatch(line)
        if match is None:
            raise ValueError(f"no package with its hashes: {line}")
        found.setdefault(match["name"], []).append(match)
    return found


def asked_for(extras: Iterable[str]) -> Iterator[Requirement]:
    """What pyproject.toml asks for with these extras."""
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if requirement.name == PROJECT["project"]["name"]:
            yield from asked_for(requirement.extras)
        else:
            yield requirement


def unmet(lock: str, wanted: Iterable[Requirement]) -> list[str]:
    """Requirements that a lock does not have, or not within their range."""
    locked = packages(lock)
    problems = []
    for requirement in wanted:
        versions = [match["version"] for match in locked.get(canonicalize_name(requirement.name), ())]
        if not versions or not all(requirement.specifier.contains(version) for version in versions):
            problems.append(f"{requirement}: {versions}")
    return problems


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_what_pyproject_asks_for(name: str) -> None:
    """Where this fails, pyproject.toml has changed: `make lock`."""
    assert unmet(text_of(name), asked_for(LOCKS[name])) == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_what_its_packages_ask_for(name: str) -> None:
    """As far as they are installed here: pip would refuse the lock otherwise, but on another machine perhaps."""
    locked = packages(text_of(name))
    for package in locked:
        try:
            required = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{package} needs {requirement}"


def test_both_locks_have_the_same_versions() -> None:
    """What is tested is what is shipped."""
    shipped, tested = (packages(text_of(name)) for name in LOCKS)
    for name, entries in shipped.items():
        assert [match[0] for match in tested[name]] == [match[0] for match in entries]


def test_what_is_shipped_is_small() -> None:
    """Every package that is added is one more to trust: it is entered here, and thought about."""
    assert set(packages(text_of("requirements.lock"))) == {
        "async-timeout", "bcrypt", "blinker", "click", "datasketches", "flask", "granian", "itsdangerous", "jinja2",
        "markupsafe", "msgspec", "numpy", "orjson", "prometheus-client", "pyyaml", "redis", "scipy", "tzdata",
        "werkzeug",
    }  # fmt: skip


HASHED = f"--hash=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "line",
    [
        "flask==3.1.3", f"flask>=3.1 {HASHED}", f"flask {HASHED}", "flask==3.1.3 --hash=md5:0",
        f"flask==3.1.* {HASHED}", f"flask @ https://example.com/flask.whl {HASHED}", "--index-url https://example.com",
        "-e .", "-r other.txt",
        "--find-links wheels", f"flask==3.1.3 {HASHED} --hash=sha256:0", f"https://example.com/flask.whl {HASHED}",
    ],
)  # fmt: skip
def test_anything_else_in_a_lock_is_found(line: str) -> None:
    with pytest.raises(ValueError, match="no package with its hashes"):
        packages(f"# flask\n{line}\n    # via flask\n")


def test_a_lock_that_is_behind_is_found() -> None:
    lock = f"# no address\nflask==3.1.3 ; python_full_version < '3.12' \\\n    {HASHED} \\\n    {HASHED}\n    # via x\n"
    assert unmet(lock, map(Requirement, ["flask>=3", "Flask<4"])) == []
    assert unmet(lock, map(Requirement, ["flask>=3.2", "redis"])) == ["flask>=3.2: ['3.1.3']", "redis: []"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_tests_are_installed_from_the_lock() -> None:
    """Nothing is fetched for them but what is in the lock, the tools that build the package among it."""
    command = ["make", "--dry-run", "--always-make", ".venv/.dev"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    installs = [line.partition(" install ")[2].split() for line in said.splitlines() if " install " in line]
    assert [set(arguments) - {"--quiet"} for arguments in installs] == [
        {"--require-hashes", "--requirement", "requirements-dev.lock"},
        {"--no-deps", "--no-build-isolation", "--editable", "."},
    ]
    built_by = map(Requirement, PROJECT["build-system"]["requires"])
    assert unmet(text_of("requirements-dev.lock"), built_by) == []
    assert "pip install" not in text_of(".ci/run")  # CI has make do it


# -- the source --------------------------------------------------------------------------------------------------------

# Calls that run or build what they are given. ruff has rules for most (S102, S301, S307, S506, S602 to S607), which a
# comment switches off; nothing does here.
RUNS = {
    "eval", "exec", "compile", "__import__", "breakpoint", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "importlib.import_module", "runpy.run_path",
    "runpy.run_module", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "numpy.load", "np.load",
    "pandas.read_pickle", "pd.read_pickle", "flask.render_template_string", "tempfile.mktemp",
}  # fmt: skip
RUNS_STARTING = ("os.exec", "os.spawn", "pty.")
# Formats that run code as they are read.
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "pandas",
    "code",
}
# The only places that start programs, and which.
STARTS_PROGRAMS = {
    "tls.py",  # this very Python, to try certificates
    "trigger/command.py",  # what the operator's configuration names, with templates in its arguments alone
    "demo/processes.py",  # the demo's own exporters, and Prometheus
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def suspicious(source: str) -> list[str]:
    """What in a module runs or builds what it reads.

    >>> suspicious("import re; re.compile('x'); subprocess.run(['ls'])")
    []
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in RUNS or name.startswith(RUNS_STARTING):
                found.append(name)
            given = [(keyword.arg, keyword.value) for keyword in node.keywords]
            found += [f"{name}=" for name, value in given if name in ("shell", "allow_pickle") and not is_false(value)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += [name for name in imported(node) if name.partition(".")[0] in UNSAFE_MODULES or name in RUNS]
    return found


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [prefix + alias.name for alias in node.names]


MODULES = {str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_that_is_read_is_run(name: str) -> None:
    assert suspicious(MODULES[name]) == []


def test_few_modules_start_programs() -> None:
    starting = {
        name
        for name, source in MODULES.items()
        if any(
            module.partition(".")[0] in ("subprocess", "multiprocessing", "pty")
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for module in imported(node)
        )
    }
    assert starting == STARTS_PROGRAMS


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "exec('1')", "import pickle", "from pickle import loads", "import joblib.memory", "yaml.load(x, y)",
        "from yaml import unsafe_load", "subprocess.run('ls', shell=True)", "subprocess.run('ls', shell=x)",
        "os.execv('/bin/sh', [])", "np.load(x, allow_pickle=True)", "def f():\n    import marshal", "os.popen('ls')",
        "from os import system", "import importlib; importlib.import_module(x)",
    ],
)  # fmt: skip
def test_what_runs_something_is_found(source: str) -> None:
    assert suspicious(source)


# -- what SECURITY.md promises -----------------------------------------------------------------------------------------


def test_every_test_that_the_threat_model_names_is_there() -> None:
    """And the links of the page lead somewhere."""
    page = text_of("SECURITY.md")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in text_of(file), f"{file} has no {name}"
    for target in re.findall(r"\]\((?!https:)([^)#]*)", page):
        assert (ROOT / target).exists(), target
