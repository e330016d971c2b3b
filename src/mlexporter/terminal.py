"""Text for a terminal: as wide as it looks, and safe to print."""

import unicodedata
from collections.abc import Collection, Sequence


def printable(text: str) -> str:
    """A text without what a terminal could take for a command."""
    return "".join(character if character.isprintable() else "?" for character in text)


def width(text: str) -> int:
    """How many cells of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clipped(text: str, cells: int) -> str:
    """A text that takes at most so many cells.

    >>> clipped("transaction_amount", 8)
    'transac…'
    """
    if width(text) <= cells:
        return text
    while width(text) > cells - 1:
        text = text[:-1]
    return text + "…"


def padded(text: str, cells: int, *, left: bool) -> str:
    """A text in so many cells, at their left or right end."""
    fill = " " * (cells - width(text))
    return text + fill if left else fill + text


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Rows of cells as lines; the columns in `left` begin at their left end, the others end at their right one.

    >>> aligned([["a", "10"], ["bcd", "9"]], left=[0])
    ['a    10', 'bcd   9']
    """
    widths = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            padded(cell, cells, left=i in left) for i, (cell, cells) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
