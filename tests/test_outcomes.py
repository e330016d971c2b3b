import math
import warnings

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile
from mlexporter.outcomes import RESIDUAL_SUMS, OutcomeBinner, OutcomeCounts
from outcome_data import CLASSES, binary_profile, binary_scores, class_profile, class_scores, objects, with_reference

EXACT = pytest.approx
EDGES = (-5e-324, 0.25, math.nextafter(0.5, 0), 0.75, 1.0)
BINARY = ClassProfile(task="binary", classes=("0", "1"), score_edges=(EDGES,))
BARE = ClassProfile(task="binary", classes=("no", "yes"))
MULTI = ClassProfile(
    task="multiclass", classes=("a", "b", "c"), score_edges=(EDGES,) * 3, confidence_edges=(-5e-324, 0.5, 0.8, 1.0)
)
NUMBERS = RegressionProfile(prediction_edges=(0.0, 10.0), residual_edges=(-1.0, 0.0, 1.0), centre=5.0)

# What may come, right and wrong, of every task.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.sampled_from(["a", "b", "c", "0", "1", "no", "yes", "true", "zebra", ""]),
)
ANYTHING = st.one_of(
    SCALARS,
    st.lists(st.floats(0, 1), max_size=2),
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "0", "1", "zebra"]), st.one_of(st.floats(0, 1), SCALARS), max_size=4
    ),
)
ROWS = st.lists(st.tuples(ANYTHING, ANYTHING), max_size=30)
PROFILES = st.sampled_from([BINARY, BARE, MULTI, NUMBERS])


def count(profile: OutcomeProfile, *rows: tuple[object, object]) -> OutcomeCounts:
    return OutcomeBinner(profile).count([said for said, _ in rows], [label for _, label in rows])


def confusion(profile: ClassProfile, *rows: tuple[object, object]) -> list[list[int]]:
    """By predicted and actual class."""
    cells: list[list[int]] = OutcomeBinner(profile).confusion(count(profile, *rows).bins).tolist()
    return cells


def same(some: OutcomeCounts, other: OutcomeCounts) -> bool:
    return (
        bool((some.bins == other.bins).all())
        and np.allclose(some.sums, other.sums, rtol=1e-9, atol=1e-12)
        and (some.rows, some.invalid) == (other.rows, other.invalid)
    )


# -- binary -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.9])
def test_confusion_is_that_of_scikit_learn(threshold: float) -> None:
    scores, labels = binary_scores("hard", 5000)
    binner = OutcomeBinner(binary_profile(scores, threshold))
    counts = binner.count(scores.tolist(), labels.tolist())
    # scikit-learn has actual classes first
    expected = sk.confusion_matrix(labels, scores >= threshold).T
    assert binner.confusion(counts.bins).tolist() == expected.tolist()
    assert (counts.rows, counts.invalid) == (5000, 0)


def test_a_score_at_the_threshold_is_positive() -> None:
    assert confusion(BINARY, (0.5, 0), (math.nextafter(0.5, 0), 0)) == [[1, 0], [1, 0]]


@pytest.mark.parametrize("shape", ["easy", "overconfident"])
def test_losses_are_those_of_scikit_learn(shape: str) -> None:
    scores, labels = binary_scores(shape, 5000)
    scores[:3], labels[:3] = (0.0, 1.0, 0.0), (0, 1, 1)  # one that is certain and wrong
    binner = OutcomeBinner(binary_profile(scores))
    log_loss, squares = binner.losses(binner.count(scores.tolist(), labels.tolist()).sums)
    assert log_loss == EXACT(sk.log_loss(labels, scores, normalize=False), rel=1e-12)
    assert squares / 5000 == EXACT(sk.brier_score_loss(labels, scores), rel=1e-12)


def test_scores_by_bin_and_label() -> None:
    counts = count(BINARY, (0.0, 0), (0.25, 1), (0.26, 0), (0.5, 0), (0.75, 1), (0.8, 1), (1.0, 1), (1.0, 0))
    binner = OutcomeBinner(BINARY)
    assert binner.scores(counts.bins, 0).tolist() == [[1, 1], [1, 0], [1, 1], [1, 2]]
    assert binner.score_sums(counts.sums, 0).tolist() == EXACT([0.25, 0.26, 1.25, 2.8])
    assert binner.scored == ("1",)


@pytest.mark.parametrize("label", [1, 1.0, True, "1", "true"])
@pytest.mark.parametrize("prediction", [0.7, 1, True, "1", "true", {"1": 0.7, "0": 0.3}, {"0": 0.3}, {"true": 0.7}])
def test_ways_to_say_positive(prediction: object, label: object) -> None:
    assert confusion(BINARY, (prediction, label)) == [[0, 0], [0, 1]]


@pytest.mark.parametrize("label", [0, 0.0, False, "0", "false", -0.0])
@pytest.mark.parametrize("prediction", [0.2, 0, False, "0", "false", {"1": 0.2, "0": 0.8}, {"0": 0.8}, {"false": 0.8}])
def test_ways_to_say_negative(prediction: object, label: object) -> None:
    assert confusion(BINARY, (prediction, label)) == [[1, 0], [0, 0]]


def test_classes_named_true_and_false() -> None:
    profile = ClassProfile(task="binary", classes=("false", "true"))
    rows = [("true", True), ("false", False), (True, 1), (False, 0), ("1", "true"), ("0", "false")]
    assert confusion(profile, *rows) == [[3, 0], [0, 3]]


def test_classes_that_only_look_like_numbers() -> None:
    binner = OutcomeBinner(ClassProfile(task="multiclass", classes=("--1", "-1", "-", "-0", "\u0663")))
    # -1 is the class "-1"; 0 is none of them, for nobody writes it "-0", and neither is an Arabic 3 a 3
    assert binner.said(["--1", -1, "-", 0, 3, "\u0663"]).tolist() == [0, 1, 2, 5, 5, 4]


def test_classes_with_names_of_the_exporter_are_marked() -> None:
    """Unmarked they would be taken for the class of all others, and for the means over the classes."""
    names = ("__macro__", "__other__", "plain")
    edges = (-5e-324, 0.5, 1.0)
    binner = OutcomeBinner(
        ClassProfile(task="multiclass", classes=names, score_edges=(edges,) * 3, confidence_edges=edges)
    )
    assert len(set(binner.classes) - {"__macro__", "__weighted__"}) == 4
    assert (binner.classes[2:], binner.scored) == (("plain", "__other__"), binner.classes[:3])
    said = {"__macro__": 0.75, "__other__": 0.25}
    assert binner.said([said, "__other__", "else"]).tolist() == [0, 1, 3]
    assert binner.read_scores([said]).tolist() == [[0.75, 0.25, 0.0]]


def test_classes_of_numbers_that_are_not_whole() -> None:
    profile = ClassProfile(task="multiclass", classes=("1.5", "-2", "30"))
    assert confusion(profile, (1.5, "1.5"), (-2, -2.0), (30.0, 30)) == [
        [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0],
    ]  # fmt: skip


def test_bare_classes() -> None:
    assert confusion(BARE, ("yes", "no"), ("yes", "yes"), ("no", "yes"), ("no", "yes")) == [[0, 2], [1, 1]]
    assert OutcomeBinner(BARE).scored == ()
    assert len(OutcomeBinner(BARE).count_scores(["yes", "no"])) == 0


def test_a_bare_class_beside_scores_has_no_score() -> None:
    counts = count(BINARY, ("1", 1), (0.9, 1))
    binner = OutcomeBinner(BINARY)
    assert binner.confusion(counts.bins).tolist() == [[0, 0], [0, 2]]
    assert binner.scores(counts.bins, 0).sum() == 1
    assert binner.losses(counts.sums) == EXACT((-math.log(0.9), 0.1**2))


@pytest.mark.parametrize("label", [None, 2, 0.5, "zebra", math.nan, [1], {"1": 1.0}, ""])
def test_labels_that_a_binary_model_cannot_use(label: object) -> None:
    counts = count(BINARY, (0.7, label), (0.7, 1))
    assert (counts.rows, counts.invalid) == (1, 1)
    assert same(counts, msgspec.structs.replace(count(BINARY, (0.7, 1)), invalid=1))


@pytest.mark.parametrize(
    "prediction",
    [
        None,
        1.5,
        -0.1,
        math.nan,
        math.inf,
        "zebra",
        [0.7],
        {},
        {"x": 1.0},
        {"1": 2.0},
        {"1": "0.7"},
        10**400,
        {"1": 10**400},
    ],
)
def test_predictions_that_a_binary_model_cannot_use(prediction: object) -> None:
    counts = count(BINARY, (prediction, 1))
    assert (counts.rows, counts.invalid) == (0, 1)
    assert not counts.bins.any()
    assert not counts.sums.any()
    assert not OutcomeBinner(BINARY).count_scores([prediction]).any()


# -- multiclass -------------------------------------------------------------------------------------------------------


def test_multiclass_counts_are_those_of_scikit_learn() -> None:
    probabilities, labels = class_scores(5000)
    binner = OutcomeBinner(class_profile(probabilities))
    counts = binner.count(objects(probabilities), [CLASSES[i] for i in labels])
    said = probabilities.argmax(axis=1)
    expected = sk.confusion_matrix(labels, said, labels=range(5)).T
    assert binner.classes == (*CLASSES, "__other__")
    assert binner.confusion(counts.bins).tolist() == expected.tolist()
    log_loss, squares = binner.losses(counts.sums)
    assert log_loss == EXACT(sk.log_loss(labels, probabilities, normalize=False), rel=1e-12)
    assert squares / 5000 == EXACT(sk.brier_score_loss(labels, probabilities, scale_by_half=False), rel=1e-12)
    for k in range(4):
        assert binner.scores(counts.bins, k).sum(axis=0).tolist() == [(labels != k).sum(), (labels == k).sum()]
        assert binner.score_sums(counts.sums, k).sum() == EXACT(probabilities[:, k].sum(), rel=1e-12)
    confidence = binner.confidence(counts.bins)
    assert confidence.sum(axis=1).tolist() == [
        [((said == k) & (labels != k)).sum(), ((said == k) & (labels == k)).sum()] for k in range(5)
    ]
    by_class = [probabilities.max(axis=1)[said == k].sum() for k in range(5)]
    assert binner.confidence_sums(counts.sums).sum(axis=1).tolist() == EXACT(by_class, rel=1e-12)


def test_scores_by_hand() -> None:
    rows = [({"a": 0.7, "b": 0.3}, "a"), ({"a": 0.2, "b": 0.1, "c": 0.7}, "b"), ({"zebra": 0.9, "a": 0.1}, "yak")]
    counts, binner = count(MULTI, *rows), OutcomeBinner(MULTI)
    assert binner.confusion(counts.bins).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert binner.scores(counts.bins, 0).tolist() == [[2, 0], [0, 0], [0, 1], [0, 0]]
    assert binner.scores(counts.bins, 1).tolist() == [[1, 1], [1, 0], [0, 0], [0, 0]]
    # by predicted class, then bin of its probability, then wrong and right; zebra is as sure as it says
    assert binner.confidence(counts.bins).tolist() == [
        [[0, 0], [0, 1], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
        [[0, 0], [1, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 1]],
    ]
    assert binner.confidence_sums(counts.sums).sum(axis=1).tolist() == EXACT([0.7, 0.0, 0.7, 0.9])
    assert binner.losses(counts.sums)[0] == EXACT(-math.log(0.7) - math.log(0.1) + 36.04365, abs=1e-4)


def test_unlisted_classes_are_one() -> None:
    rows = [("a", "zebra"), ("zebra", "a"), ("yak", 5), ("__other__", True), ("b", "b")]
    assert confusion(MULTI, *rows) == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 2]]


@pytest.mark.parametrize("value", [None, math.nan, [1], {}])
def test_what_is_no_class(value: object) -> None:
    assert count(MULTI, ("a", value)).invalid == count(MULTI, (value, "a")).invalid == 1


@pytest.mark.parametrize(
    "said", [{"a": 1.2}, {"a": -0.1, "b": 1.0}, {"a": "x"}, {"a": None, "b": 1.0}, {"a": math.nan}]
)
def test_probabilities_that_are_none(said: object) -> None:
    assert count(MULTI, (said, "a")).invalid == 1


# -- regression -------------------------------------------------------------------------------------------------------


def test_residuals_by_hand() -> None:
    counts = count(NUMBERS, (1, 2), (11.0, 8.5), (-3.0, -3.0), (4.0, 0.0), (True, 1))
    binner = OutcomeBinner(NUMBERS)
    # residuals -1, 2.5, 0, 4, 0, by bin of the prediction and (-inf, -1], (-1, 0], (0, 1], (1, inf)
    assert binner.residuals(counts.bins).tolist() == [[0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]]
    assert dict(zip(RESIDUAL_SUMS, counts.sums.tolist(), strict=True)) == EXACT(
        {
            "over": 6.5,
            "under": 1.0,
            "squared": 1 + 6.25 + 16,
            "fourth": 1 + 6.25**2 + 256,
            "percentage": 0.5 + 2.5 / 8.5,
            "percentages": 4,
            "label_over": 3.5,
            "label_under": 3 + 8 + 5 + 4,
            "label_squared": 9 + 3.5**2 + 64 + 25 + 16,
        }
    )
    assert (counts.rows, counts.invalid) == (5, 0)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "7", [7], {"a": 1.0}])
def test_what_is_no_number(value: object) -> None:
    for row in ((1.0, value), (value, 1.0)):
        counts = count(NUMBERS, row)
        assert (counts.rows, counts.invalid) == (0, 1)
        assert not counts.bins.any()
        assert not counts.sums.any()


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), max_size=20))
def test_sums_of_the_largest_numbers_are_finite(rows: list[tuple[float, float]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = count(NUMBERS, *rows, (1e308, -1e308), (1e308, 5e-324), (-1e308, 1e308))
    assert np.isfinite(counts.sums).all()
    assert counts.rows == len(rows) + 3


# -- all --------------------------------------------------------------------------------------------------------------


@given(PROFILES, ROWS, st.integers(0, 30))
def test_counts_add(profile: OutcomeProfile, rows: list[tuple[object, object]], cut: int) -> None:
    assert same(count(profile, *rows[:cut]) + count(profile, *rows[cut:]), count(profile, *rows))
    zero = OutcomeBinner(profile).zero()
    assert same(count(profile, *rows) + zero, count(profile, *rows))


@given(PROFILES, ROWS, st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(
    profile: OutcomeProfile, rows: list[tuple[object, object]], seed: int
) -> None:
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    assert same(count(profile, *shuffled), count(profile, *rows))


@settings(max_examples=300)
@given(PROFILES, ROWS)
def test_every_row_is_counted_once(profile: OutcomeProfile, rows: list[tuple[object, object]]) -> None:
    binner, counts = OutcomeBinner(profile), count(profile, *rows)
    assert counts.rows + counts.invalid == len(rows)
    assert (counts.bins >= 0).all()
    assert (counts.bins.shape, counts.sums.shape) == (binner.zero().bins.shape, binner.zero().sums.shape)
    if isinstance(profile, RegressionProfile):
        assert binner.residuals(counts.bins).sum() == counts.rows
        return
    assert binner.confusion(counts.bins).sum() == counts.rows
    scored = {int(binner.scores(counts.bins, k).sum()) for k in range(len(binner.scored))}
    if binner.confidence_bins:
        scored.add(int(binner.confidence(counts.bins).sum()))
    assert len(scored) <= 1
    assert all(rows <= counts.rows for rows in scored)


@settings(max_examples=300)
@given(st.sampled_from([BINARY, BARE, MULTI]), ROWS)
def test_scores_of_predictions_are_those_of_their_outcomes(
    profile: ClassProfile, rows: list[tuple[object, object]]
) -> None:
    binner = OutcomeBinner(profile)
    label = profile.classes[0]
    scores = binner.count_scores([said for said, _ in rows])
    outcomes = binner.count([said for said, _ in rows], [label] * len(rows))
    assert scores.tolist() == binner.score_counts(outcomes.bins).tolist()
    assert scores.shape == binner.zero_scores().shape
    for k in range(len(binner.scored)):
        assert binner.live_scores(scores, k).tolist() == binner.scores(outcomes.bins, k).sum(axis=1).tolist()
    if binner.confidence_bins:
        assert binner.live_confidence(scores).tolist() == binner.confidence(outcomes.bins).sum(axis=2).tolist()


@given(st.sampled_from([BINARY, MULTI]), ROWS)
def test_the_reference_is_what_was_counted(profile: ClassProfile, rows: list[tuple[object, object]]) -> None:
    counts = count(profile, *rows, (profile.classes[1], profile.classes[1]))
    reference = with_reference(profile, counts).reference
    assert reference is not None
    assert same(reference, msgspec.structs.replace(counts, invalid=0))
    assert OutcomeBinner(profile).reference is None


def test_how_wrong_and_what_was_said() -> None:
    binner = OutcomeBinner(BINARY)
    np.testing.assert_equal(binner.wrongness([0.9, 0.1, 0.9, 7], [1, 1, 0, 1]), [0.0, 1.0, 1.0, np.nan])
    assert binner.said([0.9, 0.1, None]).tolist() == [1, 0, -1]
    binner = OutcomeBinner(NUMBERS)
    np.testing.assert_equal(binner.wrongness([1.0, 5.0, None], [4.0, 5.0, 1.0]), [3.0, 0.0, np.nan])
    assert binner.said([-1.0, 0.0, 5.0, 11.0, math.nan]).tolist() == [0, 0, 1, 2, -1]
