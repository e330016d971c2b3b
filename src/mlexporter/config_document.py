"""A configuration as it was read: its value, where each key stands, and every mistake that was found in it."""

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from mlexporter.scalars import shown

T = TypeVar("T", bound=msgspec.Struct)
KeyPath = tuple[str | int, ...]

MAX_PROBLEMS = 100
"""Problems of one document that are told."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class ConfigProblem(msgspec.Struct, frozen=True):
    """One mistake: `path` is the key path ("" for the document), line and column count from 1, 0 for the whole file."""

    path: str
    line: int
    column: int
    message: str


class ConfigError(Exception):
    """A document that was refused, with everything that is wrong with it in the order of its lines."""

    def __init__(self, name: str, errors: tuple[ConfigProblem, ...]) -> None:
        super().__init__(name, errors)
        self.name = name
        self.errors = errors

    def __str__(self) -> str:
        """Write one problem per line, the way compilers do: ``file:line:column: key.path: message``."""
        return "\n".join(self._line(error) for error in self.errors)

    def _line(self, error: ConfigProblem) -> str:
        place = f"{self.name}:{error.line}:{error.column}" if error.line else self.name
        return f"{place}: {error.path}: {error.message}" if error.path else f"{place}: {error.message}"


class Document(Generic[T]):
    """A document that was read: its value, where each key stands, and what is wrong so far.

    Checks that span several keys ask `get` and `failed`, and report with `refuse`. `result` ends the reading.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.value: T | None = None
        self.stopped = False
        self.places: dict[KeyPath, tuple[int, int]] = {}
        self.values: dict[KeyPath, object] = {}
        self.mappings: set[KeyPath] = set()
        self.problems: list[ConfigProblem] = []

    def get(self, path: KeyPath, default: object = None) -> Any:
        """Return the value that the document gives at `path`, or `default` where it gives none or a wrong one."""
        return self.values.get(path, default)

    def failed(self, path: KeyPath) -> bool:
        """Tell whether the document has a value at `path` that was refused."""
        return path in self.places and path not in self.values

    def is_mapping(self, path: KeyPath) -> bool:
        """Tell whether the document has a mapping at `path`, or an empty value that counts as one."""
        return path in self.mappings

    def items(self, path: KeyPath) -> Iterator[KeyPath]:
        """Yield the paths of the items of the list at `path`, refused ones too."""
        index = 0
        while (*path, index) in self.places:
            yield (*path, index)
            index += 1

    def refuse(self, path: KeyPath, message: str, *, at: tuple[int, int] | None = None) -> None:
        """Note a problem at `path`; it is placed at `at`, or else at the nearest of its parents that has a place."""
        if at is None:
            at = next(self.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.places)
        self.problems.append(ConfigProblem(key_path(path), *at, message))

    def result(self) -> T:
        """Return the value, or raise ConfigError with every problem, sorted by line."""
        if self.problems or self.value is None:
            problems = sorted(self.problems, key=lambda problem: (problem.line, problem.column))
            if len(problems) > MAX_PROBLEMS:
                note = f"there are more problems; these are the first {MAX_PROBLEMS}"
                problems = [*problems[:MAX_PROBLEMS], ConfigProblem("", 0, 0, note)]
            raise ConfigError(self.name, tuple(problems))
        return self.value


def key_path(path: KeyPath) -> str:
    """Write a key path the way people do: ``models[0].columns.age``, ``columns["a.b"]``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif len(key) <= 64 and _PLAIN_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{shown(key)}]"
    return text
