"""The image: what its Dockerfile may not do, and a build of it without a container engine, which is then started."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from image import (
    ANY_PATH,
    DOCKERFILE,
    PATHS,
    ROOT,
    Built,
    Stage,
    build_stage,
    entry,
    environment,
    is_sent,
    pairs,
    stages,
)
from test_supply import packages, unmet

ARGUMENTS, (BUILD, LAST) = stages()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8")
USER = 65532
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


# -- the Dockerfile ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
@pytest.mark.parametrize("name", ["Dockerfile", "examples/compose/Dockerfile"])
def test_hadolint_finds_nothing(name: str) -> None:
    ended = subprocess.run([str(HADOLINT), ROOT / name], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_both_stages_are_of_one_pinned_slim_base() -> None:
    """Pinned to a patch release and a release of Debian; of a Python that the project is for."""
    assert [stage.base for stage in (BUILD, LAST)] == ["${PYTHON_IMAGE}"] * 2
    found = re.fullmatch(
        r"docker\.io/library/python:(3\.\d+)\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", ARGUMENTS["PYTHON_IMAGE"]
    )
    assert found
    assert f"Programming Language :: Python :: {found[1]}" in PROJECT["project"]["classifiers"]


def test_everything_that_is_installed_is_locked() -> None:
    """Each pip in the file: locked with hashes and built by nobody, or the package itself and nothing it needs."""
    commands = [command.split() for step in BUILD.all("RUN") for command in step.split(" && ") if " pip " in command]
    said = [set(words) & {"install", "wheel", "--require-hashes", ":all:", "--no-deps", "--no-index",
                          "--no-build-isolation"} for words in commands]  # fmt: skip
    assert said == [
        {"install", "--require-hashes", ":all:"},
        {"install", "--require-hashes", ":all:"},
        {"wheel", "--no-deps", "--no-build-isolation"},
        {"install", "--no-deps", "--no-index"},
    ]
    assert not re.search(r"\b(apt|apt-get|apk|curl|wget|ADD|SHELL)\b", DOCKERFILE)


def test_lock_of_what_builds_is_that_of_the_tests() -> None:
    """Where this fails, pyproject.toml has changed: `make lock`."""
    builds, tests = (packages((ROOT / f"requirements-{name}.lock").read_text("utf-8")) for name in ("build", "dev"))
    assert (
        unmet(
            (ROOT / "requirements-build.lock").read_text("utf-8"), map(Requirement, PROJECT["build-system"]["requires"])
        )
        == []
    )
    assert {name: entry[0][0] for name, entry in builds.items()}.items() <= {
        name: entry[0][0] for name, entry in tests.items()
    }.items()


def test_last_stage_is_not_root_and_says_what_it_is() -> None:
    assert LAST.one("USER") == f"{USER}:{USER}"
    # nothing is done as that user, so nothing belongs to it but the state
    assert [name for name, _ in LAST.steps][-4:] == ["USER", "EXPOSE", "ENTRYPOINT", "CMD"]
    assert [step for step in LAST.all("COPY") if "--chown" in step] == [
        f"--from=build --chown={USER}:{USER} /build/state /var/lib/mlexporter"
    ]
    assert LAST.one("EXPOSE") == "9877"
    assert entry(LAST) == ["mlexporter", "serve"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in pairs(LAST.one("LABEL")).items()}
    project = PROJECT["project"]
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "version": project["version"],
        "revision": "${REVISION}",
        "licenses": project["license"],
        "source": project["urls"]["Source"],
        "documentation": project["urls"]["Documentation"],
        "base.name": "${PYTHON_IMAGE}",
    }


@pytest.mark.parametrize("stage", [BUILD, LAST], ids=["build", "last"])
def test_every_path_is_one_that_these_tests_move(stage: Stage) -> None:
    """Else a step would write outside of its folder here."""
    for name, argument in stage.steps:
        if name not in ("LABEL", "USER"):
            assert len(ANY_PATH.findall(argument)) == len(PATHS.findall(argument)), argument


# -- .dockerignore -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".env", ".venv/bin/python", "tests/test_image.py", "state/state.lock", "mlexporter.yml",
        "web.yml", "tls.key", "labels.sqlite", "requirements-dev.lock", "src/mlexporter/__pycache__/a.pyc",
        "src/mlexporter.egg-info/PKG-INFO", "docs/src/x.md", "Dockerfile", "dist/mlexporter.whl",
    ],
)  # fmt: skip
def test_what_the_image_is_not_made_of_is_not_sent(path: str) -> None:
    assert not is_sent(path, IGNORED)


def test_what_it_is_made_of_is_sent() -> None:
    """And nothing else that is under version control or lies about here."""
    sent = {path.split("/")[0] for path in context_files()}
    copied = {word for step in BUILD.all("COPY") for word in step.split()[:-1]}
    assert sent == copied


def context_files() -> list[str]:
    found = [path.name for path in ROOT.iterdir() if path.is_file()]
    found += [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*") if path.is_file()]
    found += [f"{path.name}/x" for path in ROOT.iterdir() if path.is_dir() and path.name != "src"]
    return [path for path in found if is_sent(path, IGNORED)]


# -- the image that comes out ------------------------------------------------------------------------------------------


@dataclass
class Image:
    first: Path
    """The file system of the build stage."""
    built: Built
    """The last stage."""
    wheels: list[str]
    """The hash of the wheel, and that of one built of the same source at another time in another folder."""


def wheel_hash(folder: Path) -> str:
    (wheel,) = folder.glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def wheel_again(build: Built, context: Path) -> str:
    """Another wheel, by the Python of the build stage, of files that are a day older."""
    (command,) = (part for step in BUILD.all("RUN") for part in step.split(" && ") if " pip wheel " in part)
    for path in context.rglob("*"):
        os.utime(path, (time.time() - 86_400,) * 2)
    arguments = {**environment(build.root, build.environment), "PIP_NO_INDEX": "1"}
    subprocess.run(
        ["/bin/sh", "-euc", command], cwd=context, env=arguments, check=True, capture_output=True, timeout=300
    )
    return wheel_hash(context / "dist")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Both stages, one after the other, from what .dockerignore lets through; the last one's files are read-only."""
    top = Path(tempfile.mkdtemp(prefix="image-"))  # not below pytest's folder, which only its owner may enter
    top.chmod(0o755)
    context, root, first = top / "context", top / "root", top / "build"
    for name in context_files():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    try:
        root.mkdir()
        build = build_stage(BUILD, root, context, {})
        wheels = [wheel_hash(root / "build/dist"), wheel_again(build, context)]
        root.rename(first)
        root.mkdir()
        last = build_stage(LAST, root, context, {"build": first})
        for path in (root, *root.rglob("*")):
            if not path.is_symlink() and not path.is_relative_to(root / "var/lib/mlexporter"):
                path.chmod(path.stat().st_mode & ~0o222)
        yield Image(first, last, wheels)
    finally:
        for path in (path for path in (root, *root.rglob("*")) if path.is_dir() and not path.is_symlink()):
            path.chmod(0o755)
        shutil.rmtree(top)


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file, but for the state's."""
    state = root / "var/lib/mlexporter"
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_relative_to(state)
    }


INSTALLS = re.compile(
    r"(^|/)(pip|setuptools|wheel|pkg_resources|ensurepip|hatchling)([-.\d]|/|$)"
    r"|/bin/(cc|gcc|g\+\+|c\+\+|clang|ld|make|cargo|rustc|go)$|\.whl$"
)


def test_nothing_that_installs_or_compiles_is_left(image: Image) -> None:
    there, left = ({name for name in files(root) if INSTALLS.search(name)} for root in (image.first, image.built.root))
    assert {"usr/local/bin/pip", *(name for name in there if name.endswith("/site-packages/pip"))} <= there
    assert len([name for name in there if name.endswith(("/ensurepip", "/site-packages/hatchling"))]) == 2
    assert left == set()


def test_what_is_installed_is_what_is_locked(image: Image) -> None:
    script = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    python = image.built.root / "opt/mlexporter/bin/python"
    said = subprocess.run(
        [python, "-c", script], env=environment(image.built.root, {}), capture_output=True, check=True
    )
    found = {name.lower().replace("_", "-"): version for name, version in json.loads(said.stdout).items()}
    assert found.pop("mlexporter") == PROJECT["project"]["version"]
    locked = packages((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert all(version in [match["version"] for match in locked[name]] for name, version in found.items())
    assert set(locked) - set(found) <= {"async-timeout"}  # for an older Python


def test_the_same_source_is_the_same_wheel(image: Image) -> None:
    assert image.wheels[0] == image.wheels[1]


def test_bytecode_is_there_and_holds_no_time(image: Image) -> None:
    """Else it would be another in each build, and read-only files would be compiled at each start."""
    root = image.built.root
    for folder in (
        next(root.glob("usr/local/lib/python3.*")),
        next(root.glob("opt/mlexporter/lib/python3.*/site-packages")),
    ):
        compiled = list(folder.rglob("*.pyc"))
        assert len(compiled) > 500
        assert {path.read_bytes()[4:8] for path in compiled} == {b"\1\0\0\0"}  # by hash, not checked: PEP 552


def ask(url: str, body: bytes | None = None) -> str:
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        try:
            ask(f"{url}/-/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("not ready within a minute")


def test_it_runs_and_writes_only_where_it_may(image: Image) -> None:
    """As the image's user where the tests are root's, as their own user otherwise: nobody may write in its files."""
    root = image.built.root
    before = files(root)
    state = root / "var/lib/mlexporter"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {key: value for key, value in environment(root, image.built.environment).items() if key[:4] != "PIP_"}
    variables["HOME"] = "/"
    program = shutil.which(entry(LAST)[0], path=variables["PATH"])
    assert program == str(root / "opt/mlexporter/bin/mlexporter")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [program, *entry(LAST)[1:], f"--web.listen-address=127.0.0.1:{port}", f"--storage.path={state}"],
        cwd=root,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **({"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
    )
    try:
        wait_until_ready(url, process)
        ask(f"{url}/v1/samples", b'{"model": "churn", "version": "7", "features": {"age": 41}, "prediction": 0.8}')
        assert 'mlexporter_samples_total{model="churn",version="7"} 1.0' in ask(f"{url}/metrics")
        if os.geteuid() == 0:
            assert f"Uid:\t{USER}\t" in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert (state / "state.lock").exists()
    assert files(root) == before
