"""Text for a terminal: as wide as it looks, and safe to print."""

import pytest

from mlexporter.terminal import aligned, clipped, padded, printable, width


def test_printable() -> None:
    assert printable("a\x1b[31mb\nc\u202ed\x00") == "a?[31mb?c?d?"
    assert printable("Straße 東京 ä e\u0301") == "Straße 東京 ä e\u0301"


@pytest.mark.parametrize(
    ("text", "cells"), [("", 0), ("abc", 3), ("東京", 4), ("\uff46", 2), ("e\u0301", 1), ("é", 1), ("a…", 2), ("🎉", 2)]
)
def test_width(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("東京都", 6, "東京都"),
        ("東京都", 5, "東京…"),
        ("東京都", 4, "東…"),  # half a character is none
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
        ("ab", 1, "…"),
    ],
)
def test_clipped(text: str, cells: int, expected: str) -> None:
    assert clipped(text, cells) == expected
    assert width(clipped(text, cells)) <= cells


def test_padded() -> None:
    assert padded("東京", 6, left=True) == "東京  "
    assert padded("9", 3, left=False) == "  9"
    assert padded("long", 2, left=True) == "long"


def test_aligned() -> None:
    rows = [("name", "rows", "note"), ("東京", "5", "x"), ("a", "12345", "")]
    assert aligned(rows, left=(0, 2)) == ["name   rows  note", "東京      5  x", "a     12345"]
