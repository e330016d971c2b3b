"""What all forms have in common, of samples and of labels: names, lengths, and the list of what was refused."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from mlexporter.samples import Decoded, DecodedLabels, DecodeError, Reason, Rejection

NAME_LENGTH: Final = 128
REJECTIONS_LISTED: Final = 20

Row = dict[str, Any]
Names = tuple[str | None, str | None]
"""A model and a version of it, as far as they are named."""
_Part = TypeVar("_Part", Decoded, DecodedLabels)


class Rejections:
    """Rejections of one body: the first 20 one by one, the others as a count per reason.

    So millions of wrong samples in one body cost no memory. `add` them in the order of their index.
    """

    def __init__(self) -> None:
        self._first: list[Rejection] = []
        self._others: dict[Reason, list[Any]] = {}

    def add(self, rejection: Rejection) -> None:
        """Count a rejection."""
        if len(self._first) < REJECTIONS_LISTED:
            self._first.append(rejection)
        else:
            self._others.setdefault(rejection.reason, [rejection, 0])[1] += rejection.count

    def listed(self) -> tuple[Rejection, ...]:
        """The first ones, then one per reason that counts all others of it."""
        others = (msgspec.structs.replace(first, count=count) for first, count in self._others.values())
        return (*self._first, *others)


def _in_order(rejections: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """Rejections of several groups of one body, as those of the body."""
    together = Rejections()
    for rejection in sorted(rejections, key=lambda rejection: rejection.index):
        together.add(rejection)
    return together.listed()


def by_name(
    rows: Iterable[object],
    model: str | None,
    version: str | None,
    weight: int,
    total: int,
    what: str,
    decode: Callable[[list[Row], str | None, str | None, int, list[int]], _Part],
) -> tuple[list[_Part], tuple[Rejection, ...]]:
    """Decode rows that may each name a model and a version of their own.

    Args:
        rows: what should be objects; a DecodeError stands for one that could not be read.
        model: of those that name none.
        version: of those that name none.
        weight: bytes they were decoded from.
        total: how many there are.
        what: a row is, with its article.
        decode: rows of one model and version, with their share of the bytes and their indices among all.

    Returns:
        What became of each model and version, and the rejections of all, in order.

    """
    broken = Rejections()
    groups: dict[Names, tuple[list[Row], list[int]]] = {}
    for index, row in enumerate(rows):
        if isinstance(row, DecodeError):
            broken.add(Rejection(index, row.reason, row.message))
            continue
        if not isinstance(row, dict):
            broken.add(Rejection(index, Reason.NOT_AN_OBJECT, f"{what} is an object, not {kind(row)}"))
            continue
        try:
            names = name_of(row, "model") or model, name_of(row, "version") or version
        except DecodeError as error:
            broken.add(Rejection(index, error.reason, error.message))
            continue
        group, indices = groups.setdefault(names, ([], []))
        group.append(row)
        indices.append(index)
    parts = [decode(group, *names, weight * len(group) // total, indices) for names, (group, indices) in groups.items()]
    return parts, _in_order(chain(broken.listed(), *(part.rejections for part in parts)))


def common_length(features: Mapping[str, object], others: Mapping[str, object]) -> int:
    """The length that all columns share.

    Raises:
        DecodeError: one is no list, or is of another length than those before it.

    """
    size: int | None = None
    for path, values in (("features", features), ("", others)):
        for name, column in values.items():
            where = f"{path}.{name}" if path else name
            if not isinstance(column, list):
                raise DecodeError(
                    Reason.INVALID_STRUCTURE,
                    f'column "{where[:200]}" is a list of values, not {kind(column)}',
                    name[:200],
                )
            if size is None:
                size = len(column)
            elif len(column) != size:
                raise DecodeError(
                    Reason.UNEQUAL_COLUMNS,
                    f'column "{where[:200]}" has {len(column)} values, the columns before it have {size}',
                    name[:200],
                )
    return size or 0


def name_of(document: Mapping[str, Any], key: str) -> str | None:
    """The model or version that a request names.

    Raises:
        DecodeError: it is no name.

    """
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**NAME_LENGTH else value
    if not isinstance(value, str):
        raise DecodeError(Reason.INVALID_MODEL, f'"{key}" is a text, not {kind(value)}')
    if not 0 < len(value) <= NAME_LENGTH or not value.isprintable():
        raise DecodeError(Reason.INVALID_MODEL, f'"{key}" has 1 to {NAME_LENGTH} characters, all of them printable')
    return value


def kind(value: object) -> str:
    """What a value is, in the words of JSON; never the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an array" if isinstance(value, list | tuple) else "an object"
