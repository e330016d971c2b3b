"""Profiles of outcomes from training data; expected values by hand and from scikit-learn."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss

from mlexporter import profiling
from mlexporter.categories import Missing
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, ProfileError, RegressionProfile, profile_problem
from mlexporter.outcomes import OutcomeBinner
from mlexporter.profiling import OutcomeProfiler, Task

UNDER = math.nextafter(0.0, -math.inf)
TENTHS = [i / 10 for i in range(1, 10)]


def profiled(
    predictions: Sequence[object],
    labels: Sequence[object],
    task: Task | None = None,
    classes: tuple[str, ...] | None = None,
    threshold: float | None = None,
) -> OutcomeProfile | None:
    profiler = OutcomeProfiler(task, classes, threshold)
    profiler.add(predictions, labels)
    return profiler.result()


def binary(*arguments: Any, **keywords: Any) -> ClassProfile:
    profile = profiled(*arguments, **keywords)
    assert isinstance(profile, ClassProfile)
    assert profile_problem(profile) is None
    return profile


def regression(predictions: Sequence[object], labels: Sequence[object]) -> RegressionProfile:
    profile = profiled(predictions, labels, "regression")
    assert isinstance(profile, RegressionProfile)
    assert profile_problem(profile) is None
    return profile


# -- binary ------------------------------------------------------------------------------------------------------------


def test_binary_by_hand() -> None:
    profile = binary([0.2, 0.2, 0.7, 0.9, 1], ["no", "yes", "yes", "no", "yes"], threshold=0.7)
    assert (profile.task, profile.classes, profile.threshold, profile.rows) == ("binary", ("no", "yes"), 0.7, 5)
    # an edge at each of the few scores, at the tenths, and just under the threshold
    edges = [UNDER, *TENTHS[:6], math.nextafter(0.7, 0), *TENTHS[6:], 1.0]
    assert profile.score_edges == (tuple(edges),)
    assert profile.confidence_edges == ()
    # predicted by actual: 0.2 says no; 0.7, which is the threshold, 0.9 and 1 say yes
    assert profile.bins[:4] == (1, 1, 1, 2)
    cells = {edges[1 + i]: pair for i in range(11) if any(pair := profile.bins[4 + 2 * i : 6 + 2 * i])}
    assert cells == {0.2: (1, 1), 0.7: (0, 1), 0.9: (1, 0), 1.0: (0, 1)}
    assert sum(profile.sums[:11]) == pytest.approx(3.0)
    # of certainty that is right the loss is 2.2e-16
    assert profile.sums[11] == pytest.approx(-sum(map(math.log, (0.8, 0.2, 0.7, 0.1))))
    assert profile.sums[12] == pytest.approx(0.2**2 + 0.8**2 + 0.3**2 + 0.9**2)


def test_binary_like_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    scores = rng.beta(2, 3, 5000)
    truth = rng.random(5000) < scores
    profile = binary(scores, truth.tolist(), threshold=0.4)
    assert profile.classes == ("false", "true")
    expected = confusion_matrix(truth, scores >= 0.4).T  # it has the actual class first
    assert profile.bins[:4] == tuple(expected.ravel().tolist())
    assert profile.sums[-2] / 5000 == pytest.approx(log_loss(truth, scores))
    assert profile.sums[-1] / 5000 == pytest.approx(brier_score_loss(truth, scores))
    (edges,) = profile.score_edges
    assert {*TENTHS, math.nextafter(0.4, 0)} < set(edges)
    fiftieths = np.sort(scores)[99:-1:100].tolist()
    assert set(edges) == {UNDER, *TENTHS, math.nextafter(0.4, 0), *fiftieths, 1.0}


def test_binary_of_bare_classes_has_no_scores() -> None:
    profile = binary(["n", "y", "y", "y"], ["n", "n", "y", "y"])
    assert (profile.classes, profile.score_edges, profile.bins) == (("n", "y"), (), (1, 0, 1, 2))
    assert binary([False, True, True], [False, False, True]).bins == (1, 0, 1, 1)
    assert binary([-1, 1, 1, 1], [-1, -1, 1, 1], task="binary").bins == (1, 0, 1, 2)


def test_binary_of_probabilities() -> None:
    profile = binary([{"bad": 0.9, "good": 0.1}, {"good": 0.6, "bad": 0.4}], ["good", "good"], classes=("good", "bad"))
    assert profile.bins[:4] == (0 + 1, 0, 1, 0)
    assert profile.sums[-1] == pytest.approx(0.9**2 + 0.4**2)


# -- multiclass --------------------------------------------------------------------------------------------------------


def test_multiclass_by_hand() -> None:
    profile = binary(
        [{"cat": 0.75, "dog": 0.25}, {"dog": 1.0}, {"cat": 0.25, "dog": 0.25, "eel": 0.5}], ["cat", "cat", "dog"]
    )
    assert (profile.task, profile.classes) == ("multiclass", ("cat", "dog", "eel"))
    # predicted by actual; the last row and column are of all other classes
    assert profile.bins[:16] == (1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert [set(edges) - set(TENTHS) for edges in profile.score_edges] == [
        {UNDER, 0.0, 0.25, 0.75, 1.0}, {UNDER, 0.25, 1.0}, {UNDER, 0.0, 1.0},
    ]  # fmt: skip
    # most probable: 0.75, 1, 0.5
    assert set(profile.confidence_edges) == {UNDER, *TENTHS, 0.75, 1.0}
    binner = OutcomeBinner(profile)
    sums = np.array(profile.sums)
    assert [binner.score_sums(sums, k).sum() for k in range(3)] == [1.0, 1.5, 0.5]
    assert binner.confidence_sums(sums).sum(axis=1).tolist() == [0.75, 1.0, 0.5, 0.0]
    brier = (0.25**2 + 0.25**2) + (1 + 1) + (0.25**2 + 0.75**2 + 0.5**2)
    assert profile.sums[-1] == pytest.approx(brier)


def test_multiclass_of_bare_classes() -> None:
    profile = binary(["a", "b", "b", "c"], ["a", "b", "a", "d"])
    assert (profile.task, profile.classes, profile.score_edges) == ("multiclass", ("a", "b", "d", "c"), ())
    assert confusion_of(profile) == {("a", "a"): 1, ("b", "b"): 1, ("b", "a"): 1, ("c", "d"): 1}
    assert len(profile.sums) == 2


def confusion_of(profile: ClassProfile) -> dict[tuple[str, str], int]:
    binner = OutcomeBinner(profile)
    confusion = binner.confusion(np.array(profile.bins))
    found = zip(*(axis.tolist() for axis in confusion.nonzero()), strict=True)
    return {(binner.classes[i], binner.classes[j]): int(confusion[i, j]) for i, j in found}


def test_multiclass_of_codes() -> None:
    profile = binary([0, 1, 2, 2], [0.0, 1.0, 2.0, 1.0], "multiclass")
    assert profile.classes == ("1", "2", "0")  # by label, then as predicted
    assert confusion_of(profile) == {("0", "0"): 1, ("1", "1"): 1, ("2", "2"): 1, ("2", "1"): 1}


def test_the_20_most_frequent_classes_are_told_apart() -> None:
    names = [f"c{i:02}" for i in range(30) for _ in range(30 - i)]
    profile = binary(names, names)
    assert profile.classes == tuple(f"c{i:02}" for i in range(20))
    assert confusion_of(profile)["__other__", "__other__"] == sum(range(1, 11))


def test_given_classes_are_told_apart() -> None:
    profile = binary(["a", "b", "c"], ["a", "c", "c"], classes=("c", "a", "x"))
    assert (profile.task, profile.classes) == ("multiclass", ("c", "a", "x"))
    assert confusion_of(profile) == {("a", "a"): 1, ("__other__", "c"): 1, ("c", "c"): 1}


# -- regression --------------------------------------------------------------------------------------------------------


def test_regression_by_hand() -> None:
    profile = regression([float(i) for i in range(1, 11)], [1.0] * 5 + [6.0] * 5)
    assert profile.prediction_edges == tuple(float(i) for i in range(1, 10))
    # residuals 0 1 2 3 4 twice: distinct deciles 0 1 2 3; the largest is no edge
    assert profile.residual_edges == (0.0, 1.0, 2.0, 3.0)
    assert (profile.centre, profile.rows) == (3.5, 10)
    cells = np.array(profile.bins).reshape(10, 5)
    assert cells.argmax(axis=1).tolist() == [0, 1, 2, 3, 4] * 2
    # over, under, squared, fourth, |r / label|, how many; labels less 3.5: over, under, squared
    share = 10 / 1 + 10 / 6
    assert profile.sums == pytest.approx((20, 0, 60, 2 * (1 + 16 + 81 + 256), share, 10, 12.5, 12.5, 62.5))


def test_regression_of_few_values() -> None:
    profile = regression([7.0] * 30, [7.0] * 30)
    assert (profile.prediction_edges, profile.residual_edges, profile.bins) == ((), (), (30,))
    huge = regression([1e308, -1e308, 0.0], [-1e308, 1e308, math.inf])
    assert (huge.rows, sum(huge.bins)) == (2, 2)
    assert all(map(math.isfinite, huge.sums))


# -- task and classes --------------------------------------------------------------------------------------------------

PROBABLE = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("predictions", "labels", "keywords", "expected"),
    [
        ([0.1, 0.9], [0, 1], {}, ("0", "1")),
        ([0.1, 0.9], [0.0, 0.0], {}, ("0", "1")),  # nobody was positive
        ([0.1, 0.9], [True, False], {}, ("false", "true")),
        ([0.1, 0.9], ["Yes", "No"], {}, ("No", "Yes")),
        ([0.1, 0.9], ["Y", "N"], {}, ("N", "Y")),
        ([0.1, 0.9], ["positive", "negative"], {}, ("negative", "positive")),
        ([0.1, 0.9], [-1, 1], {}, ("-1", "1")),
        ([0.1, 0.9], ["bad", "good"], {"classes": ("good", "bad")}, ("good", "bad")),
        ([0.1, 0.9], [0.3, 0.8, 0.9], {}, "regression"),
        ([0.1, 1.1], [0, 1], {}, "regression"),
        ([0.1, 1.1], [0, 1], {"task": "binary"}, ("0", "1")),
        ([0.1, 1.1], [0, 1], {"threshold": 0.5}, ("0", "1")),
        ([3, 4], [3, 5], {}, "regression"),
        (["no", "yes"], ["yes", "yes"], {}, ("no", "yes")),
        (["no", "yes"], ["yes", "maybe"], {}, "multiclass"),
        (["bad", "good"], ["good", "bad"], {}, "multiclass"),
        (["bad", "good"], ["good", "bad"], {"classes": ("bad", "good")}, ("bad", "good")),
        (["no", "yes"], ["yes", "no"], {"task": "multiclass"}, "multiclass"),
        ([{"no": 0.5, "yes": 0.5}], ["yes"], {}, ("no", "yes")),
        ([PROBABLE, PROBABLE], ["a", "b"], {}, "multiclass"),
        # junk among the labels does not hide the two classes
        ([0.1] * 9, [0, 1, 0, 1, 0, 1, 0, 1, "x"], {"task": "binary"}, ("0", "1")),
    ],
)
def test_task_and_classes(
    predictions: list[object], labels: list[object], keywords: dict[str, Any], expected: str | tuple[str, str]
) -> None:
    times = len(labels)
    profile = profiled((predictions * times)[:times], labels, **keywords)
    if isinstance(expected, tuple):
        assert isinstance(profile, ClassProfile)
        assert (profile.task, profile.classes) == ("binary", expected)
    elif expected == "multiclass":
        assert isinstance(profile, ClassProfile)
        assert profile.task == expected
    else:
        assert isinstance(profile, RegressionProfile)


UNKNOWN = (
    'which of the labels "bad", "good" is the positive class is not known; set prediction.classes of the model in the '
    "configuration, the negative one first"
)


def test_classes_that_only_people_know() -> None:
    with pytest.raises(ProfileError) as error:
        profiled([0.1, 0.9, 0.8], ["good", "bad", "bad"], "binary")
    assert str(error.value) == UNKNOWN
    # where nobody asked for a task the rest of the baseline is of use without
    profiler = OutcomeProfiler()
    profiler.add([0.1, 0.9, 0.8], ["good", "bad", "bad"])
    assert profiler.result() is None
    assert profiler.warnings == [f"no outcomes: {UNKNOWN}"]


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_that_lack_one_of_both_are_left_out() -> None:
    profiler = OutcomeProfiler()
    profiler.add([0.1, None, 0.9, math.nan, 0.6], [0, 1, None, 1, 1])
    profile = profiler.result()
    assert profile is not None
    assert (profile.rows, profiler.warnings) == (2, [])
    profiler = OutcomeProfiler()
    profiler.add(np.array([0.1, np.nan, 0.7]), np.array([np.nan, 1.0, 1.0]))
    profile = profiler.result()
    assert profile is not None
    assert profile.rows == 1
    assert OutcomeProfiler().result() is None
    assert profiled([None], [1]) is None


@pytest.mark.parametrize(
    ("task", "predictions", "labels", "warning"),
    [
        (
            "binary", [0.1, 0.9, 0.8, 7.0, "?", Missing.INVALID, [1]], ["no", "yes", "maybe", "no", "no", "no", "no"],
            'a label is not "no" or "yes", or a prediction neither that nor a score from 0 to 1: '
            "5 of 7 rows are not counted",
        ),
        (
            "regression", [1.0, "x", 3.0, math.inf], [1.0, 2.0, "y", 4.0],
            "a prediction or a label is no number, as task regression needs: 3 of 4 rows are not counted",
        ),
        (
            "multiclass", ["a", "b", "c"], ["a", "b", {"c": 1}],
            "a prediction or a label is no class: 1 of 3 rows are not counted",
        ),
    ],
)  # fmt: skip
def test_rows_of_no_use_are_told(task: Task, predictions: list[object], labels: list[object], warning: str) -> None:
    profiler = OutcomeProfiler(task, ("no", "yes") if task == "binary" else None)
    profiler.add(predictions, labels)
    profile = profiler.result()
    assert profile is not None
    assert profile.rows == len(labels) - int(warning.partition(" of ")[0].rpartition(" ")[2])
    assert profiler.warnings == [f"outcomes: {warning}"]


def test_no_row_of_use() -> None:
    profiler = OutcomeProfiler("regression")
    profiler.add(["a", "b"], ["a", "b"])
    assert profiler.result() is None
    assert profiler.warnings[0].endswith("2 of 2 rows are not counted")


KINDS: dict[str, st.SearchStrategy[tuple[object, object]]] = {
    "binary": st.tuples(st.floats(0, 1), st.sampled_from([0, 1])),
    "multiclass": st.tuples(
        st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), min_size=1) | st.sampled_from("abc"),
        st.sampled_from("abcd"),
    ),
    "regression": st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
}


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(sorted(KINDS)), st.sampled_from([0, 1 << 20]))
def test_chunks_and_memory_do_not_change_the_counts(data: st.DataObject, task: Task, kept: int) -> None:
    rows = data.draw(st.lists(KINDS[task], min_size=1, max_size=60))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    predictions, labels = zip(*rows, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "_BLOCK_ROWS", 16)
        patch.setattr(profiling, "_KEPT_BYTES", kept)
        whole = profiled(predictions, labels, task)
        profiler = OutcomeProfiler(task)
        for begin, end in pairwise([0, *cuts, len(rows)]):
            profiler.add(predictions[begin:end], labels[begin:end])
        assert profiler.result() == whole
        first = profiled(predictions[:16], labels[:16], task)
    assert whole is not None
    assert first is not None
    assert profile_problem(whole) is None
    binner = OutcomeBinner(whole)
    reference, counted = binner.reference, binner.count(predictions, labels)
    assert reference is not None
    assert reference.bins.tolist() == counted.bins.tolist()
    np.testing.assert_allclose(reference.sums, counted.sums, rtol=1e-9, atol=1e-9)
    if not kept and isinstance(whole, ClassProfile) and isinstance(first, ClassProfile):
        # the first block alone has fixed classes and edges
        assert (whole.classes, whole.score_edges) == (first.classes, first.score_edges)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.sampled_from(["no", "yes", "", "1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["no", "yes", "b"]), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=30), st.sampled_from([None, "binary", "multiclass", "regression"]))
def test_any_values_give_a_profile_or_a_reason(rows: list[tuple[object, object]], task: Task | None) -> None:
    profiler = OutcomeProfiler(task)
    try:
        profiler.add([row[0] for row in rows], [row[1] for row in rows])
        profile = profiler.result()
    except ProfileError:
        return
    assert profile is None or (profile_problem(profile) is None and 0 < profile.rows <= len(rows))
