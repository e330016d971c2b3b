import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from mlexporter.edges import Floats, Ints
from mlexporter.estimates import MIN_OF_CLASS, MIN_REFERENCE, estimated, gap, hit_rates, isotonic
from mlexporter.metrics.feedback import FIGURES
from mlexporter.outcome_profile import ClassProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.performance import MACRO, MIN_OUTCOMES, WEIGHTED, FigureValue, realised
from outcome_data import (
    CLASSES,
    binary_profile,
    binary_scores,
    class_profile,
    class_scores,
    objects,
    trained,
    with_reference,
)

EXACT = pytest.approx
ESTIMATED = {figure.name for figure in FIGURES if figure.estimated}


def values_of(values: list[FigureValue]) -> dict[tuple[str, str | None], float]:
    named = {(value.figure, value.of_class): value.value for value in values}
    assert len(named) == len(values), "a figure is told twice"
    assert all(math.isfinite(value.value) and math.isnan(value.standard_error) for value in values)
    return named


def gap_of(binner: OutcomeBinner, counts: OutcomeCounts) -> list[FigureValue]:
    return gap(binner, counts, realised(binner, counts))


def names_of(labels: Ints) -> list[object]:
    return [CLASSES[i] for i in labels]


def trained_binary(scores: Floats, labels: Ints) -> OutcomeBinner:
    return trained(binary_profile(scores), scores.tolist(), labels.tolist())


# -- isotonic regression ----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 1000)), min_size=1, max_size=60))
def test_isotonic_regression_is_that_of_scikit_learn(cells: list[tuple[int, int]]) -> None:
    values, weights = np.array(cells, dtype=np.float64).T
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values, sample_weight=weights)
    np.testing.assert_allclose(isotonic(values, weights), expected, rtol=1e-10, atol=1e-12)


def test_rates_of_empty_bins_lie_between_those_of_their_neighbours() -> None:
    cells = np.array([[0, 0], [9, 1], [0, 0], [5, 5], [0, 0], [0, 0]])
    sums = np.array([0.0, 10 * 0.15, 0.0, 10 * 0.35, 0.0, 0.0])
    rates = hit_rates(cells, sums, np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]))
    # the middle of the empty bin, 0.25, is half way from 0.15 to 0.35
    assert rates.tolist() == EXACT([0.1, 0.1, 0.3, 0.5, 0.5, 0.5])


# -- binary -----------------------------------------------------------------------------------------------------------


def test_reference_vector() -> None:
    edges = (-5e-324, 0.2, 0.4, math.nextafter(0.5, 0), 0.6, 0.8, 1.0)
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(edges,))
    positives = np.array([30, 100, 300, 550, 800, 950])
    binner = OutcomeBinner(profile)
    zero = binner.zero()
    bins = zero.bins.copy()
    bins[4:] = np.stack([1000 - positives, positives], axis=1).ravel()
    sums = zero.sums.copy()
    sums[:6] = 1000 * np.array([0.1, 0.3, 0.45, 0.55, 0.7, 0.9])
    binner = with_reference(profile, OutcomeCounts(bins, sums, 6000, 0))
    values = values_of(estimated(binner, np.array([120, 100, 90, 80, 70, 40])))
    assert values == {
        ("accuracy_ratio", None): EXACT(0.8148, rel=1e-11),
        ("precision_ratio", None): EXACT(0.726315789474, rel=1e-11),
        ("recall_ratio", None): EXACT(0.772676371781, rel=1e-11),
        ("f1_ratio", None): EXACT(0.748779164406, rel=1e-11),
        ("roc_auc_ratio", None): EXACT(0.880840123452, rel=1e-11),
    }


@pytest.mark.parametrize("shape", ["easy", "hard", "overconfident"])
def test_estimates_are_near_what_labels_show_where_only_the_data_drifted(shape: str) -> None:
    scores, labels = binary_scores(shape, 200_000)
    rng = np.random.default_rng(1)
    train = rng.random(len(scores)) < 0.5
    # more of the high scores: what a score is worth stays as it is
    drifted = ~train & (rng.random(len(scores)) < 0.2 + 0.8 * scores)
    binner = trained_binary(scores[train], labels[train])
    shown = values_of_realised(binner, scores[drifted], labels[drifted])
    values = values_of(estimated(binner, binner.count_scores(scores[drifted].tolist())))
    in_training = values_of_realised(binner, scores[train], labels[train])
    assert {figure for figure, _ in values} == ESTIMATED
    for figure, value in values.items():
        assert value == EXACT(shown[figure], abs=0.006), figure
    # which is not for want of change
    assert max(abs(in_training[figure] - shown[figure]) for figure in values) > 0.012


def values_of_realised(binner: OutcomeBinner, scores: Floats, labels: Ints) -> dict[tuple[str, str | None], float]:
    counts = binner.count(scores.tolist(), labels.tolist())
    return {(value.figure, value.of_class): value.value for value in realised(binner, counts)}


def test_scores_that_are_not_calibrated_are_worth_what_they_were() -> None:
    # calibrated scores and their squares order the rows alike, so that they must give the same estimates
    rng = np.random.default_rng(2)
    scores = rng.random(20_000)
    labels = (rng.random(20_000) < scores).astype(np.int64)
    live = rng.random(1000).tolist()
    calibrated = trained(binary_profile(scores, 0.5), scores.tolist(), labels.tolist())
    squared = trained(binary_profile(scores**2, 0.25), (scores**2).tolist(), labels.tolist())
    expected = values_of(estimated(calibrated, calibrated.count_scores(live)))
    values = values_of(estimated(squared, squared.count_scores([score**2 for score in live])))
    assert values.keys() == expected.keys() > {("accuracy_ratio", None)}
    for figure, value in values.items():
        # not the same edges at the tenths
        assert value == EXACT(expected[figure], abs=2e-3), figure


def test_a_threshold_between_edges_of_others() -> None:
    scores, labels = binary_scores("hard", 20_000)
    for threshold in (0.0, 0.3337, 1.0, 2.0):
        binner = trained(binary_profile(scores, threshold), scores.tolist(), labels.tolist())
        values = values_of(estimated(binner, binner.count_scores(scores.tolist())))
        # of the training data themselves, the estimate pools neighbouring bins only
        assert values["accuracy_ratio", None] == EXACT(((scores >= threshold) == labels).mean(), abs=2e-3)


def test_what_it_takes() -> None:
    scores, labels = binary_scores("hard", 4000)
    live = scores[:MIN_OUTCOMES].tolist()
    full = trained_binary(scores[:MIN_REFERENCE], labels[:MIN_REFERENCE])
    assert estimated(full, full.count_scores(live))
    assert not estimated(full, full.count_scores(live[1:]))
    small = trained_binary(scores[: MIN_REFERENCE - 1], labels[: MIN_REFERENCE - 1])
    assert not estimated(small, small.count_scores(live))
    none = OutcomeBinner(binary_profile(scores))
    assert not estimated(none, none.count_scores(live))
    for rare in (0, 1):
        few = np.full(4000, 1 - rare)
        few[: MIN_OF_CLASS - 1] = rare
        lacking = trained_binary(scores, few)
        assert not estimated(lacking, lacking.count_scores(live))
        few[:MIN_OF_CLASS] = rare
        enough = trained_binary(scores, few)
        assert estimated(enough, enough.count_scores(live))


def test_models_without_scores_have_no_estimates() -> None:
    bare = OutcomeBinner(ClassProfile(task="binary", classes=("no", "yes")))
    said = ["yes", "no"] * 2000
    bare = with_reference(ClassProfile(task="binary", classes=("no", "yes")), bare.count(said, said))
    assert not estimated(bare, bare.count_scores(said))
    assert not gap_of(bare, bare.count(said, said))
    numbers = OutcomeBinner(RegressionProfile(prediction_edges=(0.0,), residual_edges=(0.0,)))
    assert not estimated(numbers, numbers.count_scores([1.0] * 500))
    assert not gap_of(numbers, numbers.count([1.0] * 500, [1.0] * 500))


# -- multiclass -------------------------------------------------------------------------------------------------------


def trained_multiclass(n: int = 40_000) -> OutcomeBinner:
    probabilities, labels = class_scores(n)
    return trained(class_profile(probabilities), [*objects(probabilities)], names_of(labels))


def test_multiclass_estimates_are_near_what_labels_show() -> None:
    binner = trained_multiclass()
    probabilities, labels = class_scores(100_000, seed=1)
    keep = np.random.default_rng(2).random(100_000) < probabilities[:, 1] + 0.1  # many more of the second class
    predictions = objects(probabilities[keep])
    counts = binner.count(predictions, names_of(labels[keep]))
    found = realised(binner, counts)
    shown = {(value.figure, value.of_class): value.value for value in found}
    noise = {(value.figure, value.of_class): value.standard_error for value in found}
    values = values_of(estimated(binner, binner.count_scores(predictions)))
    assert {figure for figure, _ in values} == ESTIMATED
    assert {name for figure, name in values if figure == "f1_ratio"} == {*CLASSES, MACRO, WEIGHTED}
    for figure, value in values.items():
        assert value == EXACT(shown[figure], abs=0.01 + 2 * np.nan_to_num(noise[figure])), figure
    for figure in (
        ("accuracy_ratio", None),
        ("precision_ratio", MACRO),
        ("recall_ratio", MACRO),
        ("roc_auc_ratio", "a"),
    ):
        assert values[figure] == EXACT(shown[figure], abs=0.01), figure


def test_multiclass_estimates_are_near_those_of_rows() -> None:
    """CBPE of the rows themselves: isotonic regression per class, and what it gives adds up to 1 in each row."""
    probabilities, labels = class_scores(40_000)
    binner = trained(class_profile(probabilities), objects(probabilities), names_of(labels))
    live = class_scores(50_000, seed=1)[0]
    live = live[live.max(axis=1) < 0.6]  # where calibrated probabilities add up to less than elsewhere
    each = np.stack(
        [
            IsotonicRegression(out_of_bounds="clip").fit(probabilities[:, k], labels == k).predict(live[:, k])
            for k in range(len(CLASSES))
        ],
        axis=1,
    )
    each /= each.sum(axis=1, keepdims=True)
    predicted = live.argmax(axis=1)
    values = values_of(estimated(binner, binner.count_scores(objects(live))))
    assert values["accuracy_ratio", None] == EXACT(each.max(axis=1).mean(), abs=0.002)
    for k, name in enumerate(CLASSES):
        right = each[predicted == k, k].sum()
        assert values["precision_ratio", name] == EXACT(right / (predicted == k).sum(), abs=0.01), name
        assert values["recall_ratio", name] == EXACT(right / each[:, k].sum(), abs=0.01), name


def test_multiclass_estimate_of_the_training_data_is_what_labels_show() -> None:
    binner = trained_multiclass()
    assert binner.reference is not None
    noise = {(value.figure, value.of_class): value.standard_error for value in realised(binner, binner.reference)}
    apart = values_of(gap_of(binner, binner.reference))
    assert len(apart) == 1 + 4 * (len(CLASSES) + 2)
    assert abs(apart["accuracy_ratio", None]) < 1e-4
    for (figure, name), value in apart.items():
        # of a class it is drawn towards what all show, by less than its noise
        error = np.nan_to_num(noise[figure, name], nan=2e-3)
        assert abs(value) < (2e-3 if figure == "roc_auc_ratio" else error), (figure, name)


@pytest.mark.parametrize("rows", [2500, 20_000])
def test_classes_that_are_right_alike_tell_of_each_other(rows: int) -> None:
    names = tuple("abcdefghij")
    probabilities, labels = class_scores(rows, classes=len(names))
    binner = trained(
        class_profile(probabilities, names), objects(probabilities, names), [names[label] for label in labels]
    )
    live, truth = class_scores(100_000, seed=1, classes=len(names))
    values = values_of(estimated(binner, binner.count_scores(objects(live, names))))
    assert binner.reference is not None
    shown = {(value.figure, value.of_class): value.value for value in realised(binner, binner.reference)}
    predicted = live.argmax(axis=1)
    borrowed, own = (
        np.mean(
            [abs(said["precision_ratio", name] - (truth[predicted == k] == k).mean()) for k, name in enumerate(names)]
        )
        for said in (values, shown)
    )
    assert borrowed < 0.6 * own


def test_classes_that_are_not_right_alike_tell_of_themselves() -> None:
    probabilities, labels = class_scores(40_000)
    biased = probabilities * np.array([0.4, 1.0, 1.0, 2.5])  # so that d is predicted too often, and a too rarely
    biased /= biased.sum(axis=1, keepdims=True)
    binner = trained(class_profile(biased), objects(biased), names_of(labels))
    assert binner.reference is not None
    shown = {
        value.of_class: value
        for value in realised(binner, binner.reference)
        if value.figure == "precision_ratio" and value.of_class in CLASSES
    }
    assert max(own.value for own in shown.values()) - min(own.value for own in shown.values()) > 0.2
    values = values_of(estimated(binner, binner.count_scores(objects(biased))))
    for name, own in shown.items():
        assert values["precision_ratio", name] == EXACT(own.value, abs=own.standard_error), name


def test_rare_classes_have_no_area_and_borrow_how_often_they_are_right() -> None:
    probabilities, labels = class_scores(20_000)
    rare = (labels == 3) | (probabilities.argmax(axis=1) == 3)
    rare[np.flatnonzero(rare)[:30]] = False
    binner = trained(class_profile(probabilities), [*objects(probabilities[~rare])], names_of(labels[~rare]))
    values = values_of(estimated(binner, binner.count_scores(objects(probabilities))))
    assert ("roc_auc_ratio", "d") not in values
    assert ("roc_auc_ratio", "a") in values
    assert values["precision_ratio", "d"] == EXACT(values["accuracy_ratio", None], abs=0.1)


def test_multiclass_by_hand() -> None:
    edges = (-5e-324, 0.5, 1.0)
    profile = ClassProfile(task="multiclass", classes=("a", "b", "c"), score_edges=(edges,) * 3, confidence_edges=edges)
    said = [{"a": 0.9}] * 3000 + [{"b": 0.9}] * 1000 + [{"c": 0.9}] * 10
    # each class was right in four of five cases, wrong ones were b and a
    labels = ["a"] * 2400 + ["b"] * 600 + ["b"] * 800 + ["a"] * 200 + ["c"] * 8 + ["a"] * 2
    binner = trained(profile, [*said], labels)
    values = values_of(estimated(binner, binner.count_scores([{"a": 0.9}] * 500 + [{"c": 0.9}] * 500)))
    assert values["precision_ratio", "a"] == EXACT(0.8)
    assert values["precision_ratio", "c"] == EXACT(0.8)
    assert ("precision_ratio", "b") not in values
    # a high score of a or of c was worth 0.8; a low one, where another class was predicted, 202 of 1,010, 600 of 3,010
    # and 0 of 4,000
    expected = {"a": 400 + 500 * 202 / 1010, "b": 1000 * 600 / 3010, "c": 400}
    scale = 1000 / sum(expected.values())
    assert values["recall_ratio", "a"] == EXACT(400 / (expected["a"] * scale))
    assert values["recall_ratio", "b"] == 0.0
    assert values["recall_ratio", "c"] == 1.0  # not more, though 400 * scale are expected
    assert values["accuracy_ratio", None] == EXACT(0.8)


def test_multiclass_scores_that_tell_nothing_by_hand() -> None:
    edges = (-5e-324, 1.0)
    profile = ClassProfile(task="multiclass", classes=("a", "b", "c"), score_edges=(edges,) * 3, confidence_edges=edges)
    said = [{"a": 0.9}] * 3000 + [{"b": 0.9}] * 1000
    # forty rows are of a class that has no scores
    binner = trained(profile, [*said], ["a"] * 2400 + ["b"] * 600 + ["b"] * 800 + ["a"] * 160 + ["z"] * 40)
    values = values_of(estimated(binner, binner.count_scores([{"a": 0.9}] * 500 + [{"c": 0.9}] * 500)))
    # a class that was never predicted is right as often as others
    assert values["precision_ratio", "c"] == EXACT(0.8)
    # as many are expected of each as in training, though not fewer than are right
    assert [values["recall_ratio", name] for name in "abc"] == EXACT([400 / (1000 * 2560 / 4000), 0.0, 1.0])


def test_how_much_classes_tell_of_each_other_by_hand() -> None:
    edges = (-5e-324, 1.0)
    profile = ClassProfile(task="multiclass", classes=("a", "b"), score_edges=(edges,) * 2, confidence_edges=edges)
    said = [{"a": 0.9}] * 2000 + [{"b": 0.9}] * 2000
    binner = trained(profile, [*said], ["a"] * 1640 + ["b"] * 360 + ["b"] * 1560 + ["a"] * 440)
    values = values_of(estimated(binner, binner.count_scores(said)))
    # 0.8 are right of both together, 0.02 more of a and less of b, with a variance of 0.8 x 0.2 / 2000 = 0.00008 each:
    # Q = 2 x 0.0004 / 0.00008 = 10, and the variance between them (10 - 1) / (25000 - 2 x 12500^2 / 25000) = 0.00072
    drawn = 0.02 * 0.00072 / (0.00072 + 0.00008)
    assert drawn == EXACT(0.018)
    assert values["precision_ratio", "a"] == EXACT(0.818, abs=1e-4)
    assert values["precision_ratio", "b"] == EXACT(0.782, abs=1e-4)


# -- the gap ----------------------------------------------------------------------------------------------------------


def test_gap_is_what_labels_show_less_what_is_estimated() -> None:
    scores, labels = binary_scores("hard", 20_000)
    binner = trained_binary(scores, labels)
    live, truth = binary_scores("hard", 50_000, seed=1)
    flipped = np.where(np.random.default_rng(1).random(50_000) < 0.2, 1 - truth, truth)
    shown = values_of_realised(binner, live, flipped)
    expected = values_of(estimated(binner, binner.count_scores(live.tolist())))
    apart = values_of(gap_of(binner, binner.count(live.tolist(), flipped.tolist())))
    assert apart == {figure: EXACT(shown[figure] - expected[figure], abs=1e-12) for figure in expected}
    assert apart["accuracy_ratio", None] < -0.05
    unchanged = values_of(gap_of(binner, binner.count(live.tolist(), truth.tolist())))
    assert all(abs(value) < 0.02 for value in unchanged.values())


def test_gap_needs_scores_of_nearly_all_outcomes() -> None:
    scores, labels = binary_scores("hard", 5000)
    binner = trained_binary(scores, labels)
    counts = binner.count(scores[:990].tolist(), labels[:990].tolist())
    assert gap_of(binner, counts + binner.count(["1"] * 10, [1] * 10))
    assert not gap_of(binner, counts + binner.count(["1"] * 11, [1] * 11))
    assert not gap_of(binner, binner.count(scores[:199].tolist(), labels[:199].tolist()))


def test_what_a_correction_takes_back_of_an_earlier_window_is_not_of_this_one() -> None:
    scores, labels = binary_scores("hard", 5000)
    binner = trained_binary(scores, labels)
    low = scores < 0.5
    counts = binner.count(scores[low].tolist(), labels[low].tolist())
    debts = binner.count([0.9] * 10, [0] * 10).bins  # of bins that are empty in this window
    apart = values_of(gap_of(binner, msgspec.structs.replace(counts, bins=counts.bins - debts)))
    assert apart == values_of(gap_of(binner, counts))
    assert len(apart) > 2


def test_gap_has_no_mean_over_other_classes() -> None:
    binner = trained_multiclass()
    probabilities, labels = class_scores(2000, seed=3)
    only = (labels != 3) & (probabilities.argmax(axis=1) != 3)
    counts = binner.count(objects(probabilities[only]), names_of(labels[only]))
    apart = values_of(gap_of(binner, counts))
    # a few of the fourth class are expected, but there are none: means over three and over four do not compare
    assert ("f1_ratio", "a") in apart
    assert not {name for _, name in apart} & {MACRO, WEIGHTED, "d"}
    counts = binner.count(objects(probabilities), names_of(labels))
    assert {MACRO, WEIGHTED, "d"} <= {name for _, name in values_of(gap_of(binner, counts))}


# -- all --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_estimates_are_shares(seed: int, levels: int, live_levels: int, multiclass: bool) -> None:
    rng = np.random.default_rng(seed)
    if multiclass:
        probabilities, labels = class_scores(levels, seed)
        rows = rng.integers(levels, size=2500)
        some = class_scores(live_levels, seed + 1)[0][rng.integers(live_levels, size=300)]
        binner = trained(class_profile(probabilities), [*objects(probabilities[rows])], names_of(labels[rows]))
        live: Ints = binner.count_scores(objects(some))
    else:
        scores = rng.choice(rng.random(levels), 2500)
        binner = trained_binary(scores, (rng.random(2500) < rng.random() * 0.9 + 0.05).astype(np.int64))
        live = binner.count_scores(rng.choice(rng.random(live_levels), 300).tolist())
    values = values_of(estimated(binner, live))
    assert ("accuracy_ratio", None) in values
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in values.values())


def test_estimates_do_not_hang_on_the_scale_of_the_reference() -> None:
    scores, labels = binary_scores("hard", 5000)
    binner = trained_binary(scores, labels)
    reference = binner.reference
    assert reference is not None
    profile = binner.profile
    assert isinstance(profile, ClassProfile)
    twice = with_reference(msgspec.structs.replace(profile, rows=0, bins=(), sums=()), reference + reference)
    live = binner.count_scores(scores[:700].tolist())
    assert values_of(estimated(twice, live)) == EXACT(values_of(estimated(binner, live)), rel=1e-12)
