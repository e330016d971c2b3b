"""What outcomes are told apart by: groups of bins, and counts that agree with the rows they were counted from."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.strata import LEAST_ROWS, Strata, merged


def strata_of(
    profile: OutcomeProfile, predictions: Sequence[object], labels: Sequence[object]
) -> tuple[Strata, OutcomeBinner]:
    counts = OutcomeBinner(profile).count(predictions, labels)
    filled = msgspec.structs.replace(
        profile, rows=counts.rows, bins=tuple(counts.bins.tolist()), sums=tuple(counts.sums.tolist())
    )
    binner = OutcomeBinner(filled)
    assert binner.reference is not None
    return Strata(binner, binner.reference), binner


@given(st.lists(st.tuples(st.integers(0, 900), st.floats(0, 1)), min_size=1, max_size=60), st.integers(1, 12))
def test_groups_are_runs_with_enough_rows(bins: list[tuple[int, float]], most: int) -> None:
    rows, values = np.array([n for n, _ in bins]), np.sort([value for _, value in bins])
    groups = merged(rows, values, most)
    assert set(np.diff(groups).tolist()) <= {0, 1}
    assert groups[0] == 0
    of_groups = np.bincount(groups, rows)
    assert len(of_groups) <= most
    assert len(of_groups) == 1 or of_groups.min() >= LEAST_ROWS


def test_groups_differ_in_what_the_model_said() -> None:
    values = np.array([0.10, 0.11, 0.12, 0.50, 0.51, 0.90])
    assert merged(np.full(6, 1000), values, 3).tolist() == [0, 0, 0, 1, 1, 2]
    # rows count: few of them are no reason for a group of their own
    assert merged(np.array([1000, 1000, 1000, 1000, 1000, 10]), values, 2).tolist() == [0, 0, 0, 1, 1, 1]


def test_scores_of_a_binary_model() -> None:
    edges = (-1e-9, 0.2, 0.4, 0.6, 1.0)
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(edges,))
    scores = np.repeat([0.1, 0.3, 0.35, 0.5, 0.9], [300, 250, 50, 40, 400])
    truth = np.arange(len(scores)) % 4 == 0
    strata, binner = strata_of(profile, scores.tolist(), truth.astype(int).tolist())
    # 40 rows of 0.5 are too few: they are nearer to 0.3 than to 0.9
    assert strata.names == ("0..0.2", "0.2..0.6", "0.6..1")
    assert strata.outcomes == ("0", "1")
    assert not strata.ordered
    seen = binner.count([0.15, 0.2, 0.55, 0.95, 0.95, "1"], [1, 0, 1, 1, 0, 1])
    assert strata.counts(seen.bins).tolist() == [[1, 1], [0, 1], [1, 1]]  # a class without a score tells nothing


def test_probabilities_of_a_multiclass_model() -> None:
    """Each predicted class has strata of its own: how right it is depends on the class as well."""
    profile = ClassProfile(
        task="multiclass",
        classes=("a", "b", "c"),
        score_edges=((-1e-9, 0.5, 1.0),) * 3,
        confidence_edges=(-1e-9, 0.5, 0.8, 1.0),
    )
    sure, unsure = {"a": 0.9, "b": 0.1}, {"a": 0.4, "b": 0.3, "c": 0.3}
    other, rare = {"b": 0.7, "a": 0.3}, {"c": 0.7, "a": 0.3}
    said = [sure] * 400 + [unsure] * 300 + [other] * 250 + [rare] * 100
    strata, binner = strata_of(profile, said, ["a"] * 525 + ["b"] * 525)
    assert strata.names == ("a 0..0.8", "a 0.8..1", "b")
    assert strata.outcomes == ("wrong", "right")
    seen = binner.count([sure, sure, unsure, unsure, other, {"b": 1.0}, rare], ["a", "c", "a", "z", "b", "b", "c"])
    # both sides of 0.8 are one stratum of b; too few rows say c
    assert strata.counts(seen.bins).tolist() == [[1, 1], [1, 1], [0, 2]]


@pytest.mark.parametrize(("rare", "names"), [(250, ("a", "b", "other classes")), (90, ("a", "b"))])
def test_classes_without_scores(rare: int, names: tuple[str, ...]) -> None:
    profile = ClassProfile(task="multiclass", classes=("a", "c", "b", "d"))
    said = ["a"] * 500 + ["b"] * 300 + ["c"] * (rare // 2) + ["d"] * (rare - rare // 2)
    strata, binner = strata_of(profile, said, ["a"] * len(said))
    assert strata.names == names
    assert strata.outcomes == ("wrong", "right")
    seen = binner.count(["a", "a", "b", "c", "d", "new"], ["a", "b", "b", "a", "d", "z"])
    assert strata.counts(seen.bins).tolist() == [[1, 1], [0, 1], [1, 2]][: len(names)]  # new is right: both unlisted


def test_residuals() -> None:
    profile = RegressionProfile(prediction_edges=(10.0, 20.0), residual_edges=tuple(np.linspace(-2, 2, 21).tolist()))
    rng = np.random.default_rng(0)
    predicted = rng.choice([5.0, 15.0, 25.0], 3000, p=[0.05, 0.45, 0.5])
    strata, binner = strata_of(profile, predicted.tolist(), (predicted - rng.normal(size=3000)).tolist())
    assert strata.ordered
    assert strata.names == ("..20", "20..")  # 150 rows are too few
    assert 5 <= len(strata.outcomes) <= 8
    assert strata.outcomes[0].startswith("..")
    assert strata.outcomes[-1].endswith("..")
    assert binner.reference is not None
    reference = strata.counts(binner.reference.bins)
    assert reference.sum() == 3000
    assert reference.sum(axis=0).min() >= LEAST_ROWS
    # residuals are prediction less label: far over, far under
    seen = binner.count([5.0, 25.0], [0.0, 40.0])
    assert np.argwhere(strata.counts(seen.bins)).tolist() == [[0, len(strata.outcomes) - 1], [1, 0]]
