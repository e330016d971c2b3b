"""The Dockerfile without a container engine: its steps, read, and run in an empty folder in place of `/`.

Every absolute path of a step is moved into that folder, and each stage begins with a copy of the Python that runs the
tests, pip and setuptools included, in place of the base image. The folder has the same name in every stage, as `/` has.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR",
}  # fmt: skip
# Absolute paths that the steps may name: all that is moved, and so all that may stand there.
PATHS = re.compile(r"(?<![\w.:*}$/-])(?=/(?:build|opt/mlexporter|usr/local|var/lib/mlexporter)\b)")
ANY_PATH = re.compile(r"(?<![\w.:*}$/-])/\w")


@dataclass
class Stage:
    """A stage of the Dockerfile: its base, its name, and its instructions in their order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for name, argument in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (argument,) = self.all(instruction)
        return argument


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    r"""Instructions with their arguments; lines that go on are joined, comments are left out, among them as well.

    >>> list(instructions("# x\nFROM a\nRUN b \\\n# y\n  && c\n"))
    [('FROM', 'a'), ('RUN', 'b && c')]
    """
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, argument = line.split(maxsplit=1)
            if name not in INSTRUCTIONS:
                raise ValueError(f"not known here: {line}")
            yield name, argument.strip()


def pairs(argument: str) -> dict[str, str]:
    """What LABEL, ENV and ARG set."""
    return dict(pair.partition("=")[::2] for pair in shlex.split(argument))


def stages(dockerfile: str = DOCKERFILE) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage, and the stages."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for name, argument in instructions(dockerfile):
        if name == "FROM":
            base, _, stage = argument.partition(" AS ")
            found.append(Stage(base, stage))
        elif found:
            found[-1].steps.append((name, argument))
        else:
            assert name == "ARG", "only ARG may stand before FROM"
            arguments |= pairs(argument)
    return arguments, found


# -- .dockerignore -----------------------------------------------------------------------------------------------------


def _pattern(text: str) -> re.Pattern[str]:
    parts = [{"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
             for part in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", text.strip("/"))]  # fmt: skip
    return re.compile("".join(parts))


def is_sent(path: str, dockerignore: str) -> bool:
    """Whether a file is sent to the builder: the last pattern that fits it, or a folder that it is in, decides.

    >>> [is_sent(path, "*\\n!src\\n**/*.pyc") for path in ("a", "src/b/c.py", "src/b/c.pyc", "b/src/c.py")]
    [False, True, False, False]
    """
    sent = True
    above = [path, *map(str, Path(path).parents)]
    for line in map(str.strip, dockerignore.splitlines()):
        if line and not line.startswith("#") and any(map(_pattern(line.removeprefix("!")).fullmatch, above)):
            sent = line.startswith("!")
    return sent


# -- running it --------------------------------------------------------------------------------------------------------


def place_python(root: Path) -> None:
    """A copy of this Python as the base image has it: in /usr/local, without its tests and bytecode, with its pip."""
    local, library = root / "usr/local", Path(sysconfig.get_path("stdlib"))
    left_out = ("test", "tests", "idle_test", "site-packages", "dist-packages", "config-*", "__pycache__", "*.pyc")
    shutil.copytree(library, local / "lib" / library.name, ignore=shutil.ignore_patterns(*left_out))
    (local / "bin").mkdir()
    python = local / "bin" / library.name
    shutil.copy(Path(sys._base_executable).resolve(), python)  # type: ignore[attr-defined]
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(python.name)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        for found in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
            shutil.copy(found, local / "lib")
    run("python -m ensurepip --default-pip", root, {}, root)


def environment(root: Path, given: dict[str, str]) -> dict[str, str]:
    """The environment of a step: what the Dockerfile sets, and where pip is told of its index; nothing else."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    local = root / "usr/local"
    base = {"PATH": f"{local}/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    return {**kept, "LD_LIBRARY_PATH": f"{local}/lib", **base, **given}


def run(command: str, root: Path, given: dict[str, str], folder: Path) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-euc", command],
        cwd=folder,
        env=environment(root, given),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"


@dataclass
class Built:
    """The file system of a stage, and the environment that its programs get."""

    root: Path
    environment: dict[str, str]


def build_stage(stage: Stage, root: Path, context: Path, earlier: dict[str, Path]) -> Built:
    """Runs the steps of a stage in an empty folder; those that only describe the image are left to who asks."""
    place_python(root)
    given: dict[str, str] = {}
    folder = root
    for name, argument in stage.steps:
        moved = PATHS.sub(str(root), argument)
        if name == "WORKDIR":
            folder = Path(moved)
            folder.mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            path = given.get("PATH", environment(root, {})["PATH"])
            given |= {key: value.replace("$PATH", path) for key, value in pairs(moved).items()}
        elif name == "RUN":
            run(moved, root, given, folder)
        elif name == "COPY":
            _copy(argument, root, folder, context, earlier)
    return Built(root, given)


def _copy(argument: str, root: Path, folder: Path, context: Path, earlier: dict[str, Path]) -> None:
    words = argument.split()
    options = pairs(" ".join(word for word in words if word.startswith("--")))
    *sources, target = [word for word in words if not word.startswith("--")]
    assert set(options) <= {"--from", "--chown"}
    of = earlier[options["--from"]] if "--from" in options else context
    to = root / target.lstrip("/") if target.startswith("/") else folder / target
    for source in (of / source.lstrip("/") for source in sources):
        if source.is_dir():  # its contents are copied, not itself
            shutil.copytree(source, to, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(source, to / source.name if target.endswith("/") else to)
    if "--chown" in options and os.geteuid() == 0:
        user, group = map(int, options["--chown"].split(":"))
        for path in (to, *to.rglob("*")):
            os.chown(path, user, group)


def entry(stage: Stage) -> list[str]:
    """The command that a container runs."""
    return [*json.loads(stage.one("ENTRYPOINT")), *json.loads(stage.one("CMD"))]
