"""Which of a model's classes a prediction or a label names, however it is written: as text, number or boolean."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from mlexporter.categories import category_of
from mlexporter.edges import Ints

NO_CLASS: Final = -1


class ClassLookup:
    """Values to the indices of classes. Immutable.

    Args:
        classes: as text.
        others: whether a value that is none of them is one class more; else it is `NO_CLASS`.

    """

    def __init__(self, classes: Sequence[str], *, others: bool) -> None:
        self.others = others
        self._indices = _by_value(classes)
        self._other = len(classes) if others else NO_CLASS

    def index(self, value: object) -> int:
        """The class of a value: that of unlisted ones, or -1, where it is none of them."""
        try:
            found = self._indices.get(value)
        except TypeError:  # an array or an object
            return NO_CLASS
        if found is not None:
            return found
        category = category_of(value)
        return self._indices.get(category, self._other) if isinstance(category, str) else NO_CLASS

    def indices(self, values: Sequence[object]) -> Ints:
        """(n,) the class of each value."""
        return np.fromiter(map(self.index, values), np.int64, len(values))


def _by_value(classes: Sequence[str]) -> dict[object, int]:
    """Class to its index, also by the number or the boolean that its name stands for.

    >>> lookup = _by_value(("0", "1"))
    >>> lookup[1.0], lookup[False], lookup["1"], lookup["true"]
    (1, 0, 1, 1)
    """
    lookup: dict[object, int] = {}
    for index, name in enumerate(classes):
        for alias in {"0": ("false",), "1": ("true",), "false": ("0",), "true": ("1",)}.get(name, ()):
            if alias not in classes:
                lookup[alias] = index
                lookup[float(alias == "1" or alias == "true")] = index
    for index, name in enumerate(classes):
        lookup[name] = index
        if name.removeprefix("-").isdecimal() and category_of(int(name)) == name:
            lookup[int(name)] = index
    return lookup
