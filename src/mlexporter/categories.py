"""Categories: which text stands for a value, and which text a label may show."""

import enum
import hashlib
import math
from typing import Final

LABEL_LENGTH: Final = 64
# Longer categories are known by their beginning and a hash, so that none of them costs memory.
LONGEST: Final = 256


class Missing(enum.Enum):
    """A value that is no category."""

    MISSING = enum.auto()
    INVALID = enum.auto()


def category_of(value: object, *, boolean: bool = False) -> str | Missing:
    """The category that a value stands for.

    Whole numbers lose their ".0" (3 and 3.0 are the same category), booleans are "true" and "false". In a boolean
    column 1 and 0 are true and false.

    >>> category_of(3.0), category_of(True), category_of(1, boolean=True), category_of("pro")
    ('3', 'true', 'true', 'pro')
    """
    if type(value) is str:
        return value if len(value) <= LONGEST else _bounded(value)
    if value is None:
        return Missing.MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not value.is_integer():
        return Missing.MISSING if math.isnan(value) else repr(value)
    if isinstance(value, int | float):
        if boolean and value in (0, 1):
            return "true" if value else "false"
        return _whole(int(value))
    return Missing.INVALID


def shorten(category: str) -> str:
    """A category as a label value: at most 64 characters, printable, and different for different categories.

    Names like `__other__` belong to the exporter, so a category that looks so is marked too.

    >>> shorten("pro"), len(shorten("x" * 1000))
    ('pro', 64)
    """
    printable = "".join(character if character.isprintable() else "?" for character in category)
    if printable == category and len(category) <= LABEL_LENGTH and not is_reserved(category) and category:
        return category
    return f"{printable[: LABEL_LENGTH - 9]}~{_digest(category)[:8]}"


def is_reserved(category: str) -> bool:
    """Whether it is a name such as `__other__`, which belong to the exporter."""
    return category.startswith("__") and category.endswith("__")


def _whole(value: int) -> str:
    # Python refuses to write thousands of decimal digits, but not hexadecimal ones
    text = str(value) if value.bit_length() < 3 * LONGEST else hex(value)
    return text if len(text) <= LONGEST else _bounded(text)


def _bounded(category: str) -> str:
    return f"{category[: LONGEST - 33]}~{_digest(category)[:32]}"


def _digest(category: str) -> str:
    return hashlib.sha256(category.encode("utf-8", "surrogatepass")).hexdigest()
