"""Which text stands for a value, and what a label shows of it."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.categories import LABEL_LENGTH, LONGEST, Missing, category_of, shorten


@pytest.mark.parametrize(
    ("value", "category"),
    [
        ("pro", "pro"),
        ("", ""),
        ("3", "3"),
        (3, "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (1e22, "10000000000000000000000"),
        (10**40, "1" + "0" * 40),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (5e-324, "5e-324"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0, "0"),
        (None, Missing.MISSING),
        (math.nan, Missing.MISSING),
        ([1], Missing.INVALID),
        ({"a": 1}, Missing.INVALID),
        ((), Missing.INVALID),
        (b"pro", Missing.INVALID),
        (1j, Missing.INVALID),
    ],
)
def test_category_of(value: object, category: str | Missing) -> None:
    assert category_of(value) == category


@pytest.mark.parametrize(
    ("value", "category"),
    [
        (True, "true"),
        (1, "true"),
        (1.0, "true"),
        (0, "false"),
        (-0.0, "false"),
        ("true", "true"),
        (2, "2"),
        (0.5, "0.5"),
    ],
)
def test_boolean_columns_take_1_and_0(value: object, category: str) -> None:
    assert category_of(value, boolean=True) == category


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, "\U0001f600" * 300, "\ud800" * 300, 10**400, -(10**5000), 1e300],
    ids=["1 MB", "astral", "surrogates", "400 digits", "5000 digits", "float"],
)
def test_long_categories_are_bounded_and_differ(value: str | float) -> None:
    category = category_of(value)
    assert isinstance(category, str)
    assert len(category) <= LONGEST
    assert category_of(value) == category
    other = value[:-1] + "!" if isinstance(value, str) else value * 2
    assert category_of(other) != category


def test_a_text_of_the_largest_length_is_kept() -> None:
    assert category_of("y" * 256) == "y" * 256
    shortened = category_of("y" * 257)
    assert isinstance(shortened, str)
    assert shortened.startswith("y" * 223 + "~")


@given(st.integers(-(10**300), 10**300))
def test_whole_numbers_are_one_category_however_they_come(value: int) -> None:
    if abs(value) < 2**53:
        assert category_of(float(value)) == category_of(value) == category_of(str(value))
    assert isinstance(category_of(value), str)


@pytest.mark.parametrize("name", ["pro", "New York", "München", "x" * 64, "__a", "a__", "_other_", '"quoted"', "\\"])
def test_ordinary_names_are_shown_as_they_are(name: str) -> None:
    assert shorten(name) == name


@pytest.mark.parametrize("name", ["", "__other__", "____", "__", "x" * 65, "a\nb", "\ud800", "a\u2028b", "\0"])
def test_odd_names_are_marked(name: str) -> None:
    label = shorten(name)
    assert label != name
    assert label[-9] == "~"
    assert set(label[-8:]) <= set(string.hexdigits.lower())


@given(st.text(max_size=300) | st.text("ab\n\ud800", max_size=100), st.text(max_size=300))
def test_labels_are_short_printable_and_different(one: str, other: str) -> None:
    label = shorten(one)
    assert 0 < len(label) <= LABEL_LENGTH
    assert label.isprintable()
    assert not (label.startswith("__") and label.endswith("__"))
    label.encode()  # no lone surrogate
    assert (shorten(other) == label) == (other == one)


def test_names_that_differ_where_it_is_not_shown_get_different_labels() -> None:
    assert shorten("x" * 100 + "a") != shorten("x" * 100 + "b")
    assert shorten("\ud800") != shorten("\ud801")
