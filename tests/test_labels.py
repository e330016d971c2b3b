"""Names of bins: what people read, and never two of the same."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import categorical, numeric
from mlexporter.labels import bin_labels


def under(value: float) -> float:
    return math.nextafter(value, -math.inf)


@pytest.mark.parametrize(
    ("edges", "labels"),
    [
        ((0.5, 1.2, 3.4), ["01 0.5..1.2", "02 1.2..3.4"]),
        ((under(2.0), 2.0), ["01 2"]),
        # 0 is an atom, and the smallest value
        ((under(0.0), 0.0, 2.5), ["01 0", "02 0..2.5"]),
        # the smallest value is 0 without being an atom: no "-0", no "-5e-324"
        ((under(0.0), 2.5), ["01 0..2.5"]),
        ((-2.5, -0.0), ["01 -2.5..0"]),
        # an atom inside: its neighbours end and begin at it
        ((-1.0, under(7.0), 7.0, 9.0), ["01 -1..7", "02 7", "03 7..9"]),
        ((under(1.0), 1e6, 1234567.0, 1e300), ["01 1..1e+06", "02 1e+06..1.23457e+06", "03 1.23457e+06..1e+300"]),
        # six digits do not tell these apart, but their numbers do
        ((1.0, 1.0000001, 1.0000002), ["01 1..1", "02 1..1"]),
    ],
)
def test_numeric(edges: tuple[float, ...], labels: list[str]) -> None:
    assert bin_labels(numeric("x", edges, [1.0])) == ("__below__", *labels, "__above__", "__missing__")


def test_only_exported_edges_show() -> None:
    column = numeric("x", (0.0, 1.0, 2.0, 3.0, 4.0), [1.0], coarse=(0, 3, 4))
    assert bin_labels(column) == ("__below__", "01 0..3", "02 3..4", "__above__", "__missing__")


def test_categorical() -> None:
    column = categorical("x", {"pro": 2, "__new__": 1, "": 1, "a" * 70: 1})
    labels = bin_labels(column)
    assert labels[0] == "pro"
    assert labels[1].startswith("__new__~")
    assert labels[2].startswith("~")
    assert labels[3].startswith("a" * 55 + "~")
    assert labels[4:] == ("__other__", "__new__", "__missing__")


def test_personal_categories_are_numbers() -> None:
    column = categorical("x", {"alice@example.com": 2, "bob@example.com": 1})
    assert bin_labels(column, export_names=False) == ("01", "02", "__other__", "__new__", "__missing__")


def test_categories_whose_labels_would_collide_are_numbers() -> None:
    taken = bin_labels(categorical("x", {"a" * 70: 1}))[0]
    column = categorical("x", {"a" * 70: 1, taken: 1})
    assert bin_labels(column) == ("01", "02", "__other__", "__new__", "__missing__")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=30, unique=True))
def test_numeric_labels_are_unique_bounded_and_sorted(edges: list[float]) -> None:
    ascending = sorted(edges)
    labels = bin_labels(numeric("x", ascending, [1.0]))
    assert len(labels) == len(ascending) + 2
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 32
    assert list(labels[1:-2]) == sorted(labels[1:-2])
    for label, (low, high) in zip(labels[1:-2], pairwise(ascending), strict=True):
        ends = [float(text) for text in label[3:].split("..")]
        assert ends[0] == pytest.approx(low if len(ends) == 2 else high, rel=1e-5, abs=1e-323)
        assert ends[-1] == pytest.approx(high, rel=1e-5)


@given(st.lists(st.text(max_size=90), unique=True, max_size=20))
def test_category_labels_are_unique(categories: list[str]) -> None:
    labels = bin_labels(categorical("x", dict.fromkeys(categories, 1)))
    assert len(set(labels)) == len(labels) == len(categories) + 3
