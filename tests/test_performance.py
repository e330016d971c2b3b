import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlexporter.edges import Floats, Ints
from mlexporter.metrics.feedback import FIGURES
from mlexporter.outcome_profile import ClassProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.performance import MACRO, MIN_OUTCOMES, WEIGHTED, FigureValue, realised
from outcome_data import (
    CLASSES,
    SHAPES,
    binary_profile,
    binary_scores,
    class_profile,
    class_scores,
    objects,
)

N = 20_000
EXACT = pytest.approx


def values_of(values: list[FigureValue]) -> dict[tuple[str, str | None], float]:
    named = {(value.figure, value.of_class): value.value for value in values}
    assert len(named) == len(values), "a figure is told twice"
    return named


def errors_of(values: list[FigureValue]) -> dict[tuple[str, str | None], float]:
    return {(value.figure, value.of_class): value.standard_error for value in values}


def binary(scores: Floats, labels: Ints, profile: ClassProfile | None = None) -> list[FigureValue]:
    binner = OutcomeBinner(profile or binary_profile(scores))
    return realised(binner, binner.count(scores.tolist(), labels.tolist()))


def multiclass(probabilities: Floats, labels: Ints) -> list[FigureValue]:
    binner = OutcomeBinner(class_profile(probabilities))
    return realised(binner, binner.count(objects(probabilities), [CLASSES[i] for i in labels]))


def regression(predictions: Floats, labels: Floats, centre: float = 0.0) -> list[FigureValue]:
    binner = OutcomeBinner(RegressionProfile(prediction_edges=(0.0,), residual_edges=(0.0,), centre=centre))
    return realised(binner, binner.count(predictions.tolist(), labels.tolist()))


def tied(scores: Floats, profile: ClassProfile, k: int = 0) -> Ints:
    """Scores replaced by their bin."""
    return np.searchsorted(profile.score_edges[k], scores)


def calibration_error(confidence: Floats, hits: Ints) -> float:
    """From the rows: over (0, 0.1], (0.1, 0.2], ..."""
    tenth = np.clip(np.ceil(confidence * 10), 1, 10)
    return float(
        sum(abs(hits[tenth == i].mean() - confidence[tenth == i].mean()) * (tenth == i).mean() for i in set(tenth))
    )


def delong(positives: Ints, negatives: Ints) -> float:
    """The standard error from its definition, of all pairs."""
    wins = (positives[:, None] > negatives) + (positives[:, None] == negatives) / 2
    p, n = wins.shape
    return math.sqrt(wins.mean(axis=1).var(ddof=1) / p + wins.mean(axis=0).var(ddof=1) / n)


# -- binary -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threshold", [0.5, 0.213])
def test_binary_figures_are_those_of_scikit_learn(shape: str, threshold: float) -> None:
    scores, labels = binary_scores(shape, N)
    profile = binary_profile(scores, threshold)
    values = values_of(binary(scores, labels, profile))
    said = scores >= threshold
    assert {figure for figure, _ in values} == {figure.name for figure in FIGURES if "binary" in figure.tasks}
    assert {name for _, name in values} == {None}
    for figure, expected in {
        "accuracy_ratio": sk.accuracy_score(labels, said),
        "precision_ratio": sk.precision_score(labels, said),
        "recall_ratio": sk.recall_score(labels, said),
        "f1_ratio": sk.f1_score(labels, said),
        "roc_auc_ratio": sk.roc_auc_score(labels, tied(scores, profile)),
        "pr_auc_ratio": sk.average_precision_score(labels, tied(scores, profile)),
        "log_loss": sk.log_loss(labels, scores),
        "brier_score": sk.brier_score_loss(labels, scores),
        "calibration_error_ratio": calibration_error(scores, labels),
    }.items():
        assert values[figure, None] == EXACT(expected, rel=1e-12, abs=1e-14), figure


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_area_from_bins_is_near_that_of_the_scores_and_within_its_bound(shape: str, seed: int) -> None:
    scores, labels = binary_scores(shape, N, seed)
    values = values_of(binary(scores, labels))
    off = abs(values["roc_auc_ratio", None] - sk.roc_auc_score(labels, scores))
    assert off <= 1e-3
    assert off <= values["roc_auc_error_bound_ratio", None] <= 0.02


def test_scores_counted_by_hand() -> None:
    # reference vector: bins of positives and negatives from the lowest score up
    positives, negatives = [2, 5, 18, 40, 60, 75], [90, 70, 50, 30, 12, 4]
    edges = (-5e-324, 0.2, 0.4, math.nextafter(0.5, 0), 0.6, 0.8, 1.0)
    binner = OutcomeBinner(ClassProfile(task="binary", classes=("0", "1"), score_edges=(edges,)))
    middles = [0.1, 0.3, 0.45, 0.55, 0.7, 0.9]
    scores = np.repeat(middles + middles, positives + negatives).tolist()
    values = values_of(realised(binner, binner.count(scores, [1] * 200 + [0] * 256)))
    assert values["roc_auc_ratio", None] == EXACT(0.91513671875, rel=1e-12)
    assert values["roc_auc_error_bound_ratio", None] == EXACT(0.03564453125, rel=1e-12)
    assert values["accuracy_ratio", None] == EXACT((175 + 210) / 456, rel=1e-12)
    assert values["precision_ratio", None] == EXACT(175 / 221, rel=1e-12)
    assert values["recall_ratio", None] == EXACT(175 / 200, rel=1e-12)


def test_calibration_error_of_bins_that_tenths_cut_is_near_that_of_the_rows() -> None:
    scores, labels = binary_scores("overconfident", N)
    edges = (-5e-324, *np.unique(np.quantile(scores, np.arange(1, 50) / 50)).tolist(), 1.0)
    profile = ClassProfile(task="binary", classes=("0", "1"), score_edges=(edges,))
    measured = values_of(binary(scores, labels, profile))["calibration_error_ratio", None]
    assert measured == EXACT(calibration_error(scores, labels), abs=1e-3)


@pytest.mark.parametrize("each", [20, 30])  # the mean of twenty times 0.1 comes out over 0.1
def test_scores_on_the_edges_of_the_tenths(each: int) -> None:
    scores = np.repeat(np.arange(11) / 10, each)
    labels = np.arange(11).repeat(each) % 2  # too high and too low in turn, so that no two tenths may be confused
    tenth = np.clip(np.arange(11), 1, 10).repeat(each)
    expected = sum(abs((labels - scores)[tenth == i].sum()) for i in range(1, 11)) / (11 * each)
    assert values_of(binary(scores, labels))["calibration_error_ratio", None] == EXACT(expected, rel=1e-12)


def test_bare_classes_have_no_figures_of_scores() -> None:
    binner = OutcomeBinner(ClassProfile(task="binary", classes=("no", "yes")))
    said, labels = ["yes", "no"] * 150, ["yes", "no", "no"] * 100
    values = values_of(realised(binner, binner.count(said, labels)))
    assert {figure for figure, _ in values} == {"accuracy_ratio", "precision_ratio", "recall_ratio", "f1_ratio"}
    assert values["f1_ratio", None] == EXACT(sk.f1_score(labels, said, pos_label="yes"), rel=1e-12)


def test_what_cannot_be_had_is_absent() -> None:
    scores = np.linspace(0.0, 0.4, 300)
    values = values_of(binary(scores, np.zeros(300, np.int64)))
    assert {figure for figure, _ in values} == {
        "accuracy_ratio", "log_loss", "brier_score", "calibration_error_ratio",
    }  # fmt: skip
    values = values_of(binary(scores, (scores > 0.3).astype(np.int64)))
    assert ("precision_ratio", None) not in values  # nothing is said to be positive
    assert values["recall_ratio", None] == values["f1_ratio", None] == 0.0
    assert values["roc_auc_ratio", None] > 0.99


def test_too_few_outcomes_have_no_figures() -> None:
    scores, labels = binary_scores("hard", MIN_OUTCOMES)
    assert binary(scores, labels)
    assert not binary(scores[1:], labels[1:])
    binner = OutcomeBinner(binary_profile(scores))
    few_scored: list[object] = [0.7, *["1"] * MIN_OUTCOMES]
    values = values_of(realised(binner, binner.count(few_scored, [1, *[0, 1] * (MIN_OUTCOMES // 2)])))
    assert {figure for figure, _ in values} == {"accuracy_ratio", "precision_ratio", "recall_ratio", "f1_ratio"}


# -- multiclass -------------------------------------------------------------------------------------------------------


def test_multiclass_figures_are_those_of_scikit_learn() -> None:
    probabilities, labels = class_scores(N)
    profile = class_profile(probabilities)
    values = values_of(multiclass(probabilities, labels))
    said = probabilities.argmax(axis=1)
    truth = np.eye(len(CLASSES))[labels]
    bins = np.stack([tied(probabilities[:, k], profile, k) for k in range(len(CLASSES))], axis=1)
    assert {figure for figure, _ in values} == {figure.name for figure in FIGURES if "multiclass" in figure.tasks}
    for average, names in ((None, CLASSES), ("macro", [MACRO]), ("weighted", [WEIGHTED])):
        for figure, expected in {
            "precision_ratio": sk.precision_score(labels, said, average=average),
            "recall_ratio": sk.recall_score(labels, said, average=average),
            "f1_ratio": sk.f1_score(labels, said, average=average),
            "roc_auc_ratio": sk.roc_auc_score(truth, bins, average=average),
            "pr_auc_ratio": sk.average_precision_score(truth, bins, average=average),
        }.items():
            for name, one in zip(names, np.atleast_1d(expected), strict=True):
                assert values[figure, name] == EXACT(one, rel=1e-12), (figure, name)
    assert values["accuracy_ratio", None] == EXACT(sk.accuracy_score(labels, said), rel=1e-12)
    assert values["log_loss", None] == EXACT(sk.log_loss(labels, probabilities), rel=1e-12)
    assert values["brier_score", None] == EXACT(((probabilities - truth) ** 2).sum(axis=1).mean(), rel=1e-12)
    confidence = probabilities.max(axis=1)
    expected = calibration_error(confidence, (said == labels).astype(np.int64))
    assert values["calibration_error_ratio", None] == EXACT(expected, rel=1e-10)
    for name in (*CLASSES, MACRO, WEIGHTED):
        k = CLASSES.index(name) if name in CLASSES else slice(None)
        average = {MACRO: "macro", WEIGHTED: "weighted"}.get(name)
        area = sk.roc_auc_score(truth[:, k], probabilities[:, k], average=average)
        assert abs(values["roc_auc_ratio", name] - area) <= values["roc_auc_error_bound_ratio", name] < 0.02


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
def test_classes_without_predictions_or_labels(seed: int, said_classes: int, actual_classes: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array([*CLASSES, "zebra"])  # an unlisted class is __other__
    said = rng.permutation(5)[:said_classes][rng.integers(said_classes, size=250)]
    labels = rng.permutation(5)[:actual_classes][rng.integers(actual_classes, size=250)]
    binner = OutcomeBinner(ClassProfile(task="multiclass", classes=CLASSES))
    values = values_of(realised(binner, binner.count(names[said].tolist(), names[labels].tolist())))
    for average, name in (("macro", MACRO), ("weighted", WEIGHTED)):
        for figure, score in (
            ("precision_ratio", sk.precision_score),
            ("recall_ratio", sk.recall_score),
            ("f1_ratio", sk.f1_score),
        ):
            expected = score(labels, said, average=average, zero_division=0)
            assert values[figure, name] == EXACT(expected, rel=1e-12, abs=1e-15), figure
    named = [*CLASSES, "__other__"]
    assert {name for figure, name in values if figure == "recall_ratio"} == {
        MACRO, WEIGHTED, *(named[i] for i in set(labels)),
    }  # fmt: skip
    assert {name for figure, name in values if figure == "precision_ratio"} == {
        MACRO, WEIGHTED, *(named[i] for i in set(said)),
    }  # fmt: skip
    assert "roc_auc_ratio" not in {figure for figure, _ in values}


def test_a_class_without_labels_has_no_area_and_is_in_no_mean() -> None:
    probabilities, labels = class_scores(5000)
    labels[labels == 3] = 0
    values = values_of(multiclass(probabilities, labels))
    assert ("roc_auc_ratio", "d") not in values
    assert ("pr_auc_ratio", "d") not in values
    areas = [values["roc_auc_ratio", name] for name in CLASSES[:3]]
    assert values["roc_auc_ratio", MACRO] == EXACT(np.mean(areas), rel=1e-12)
    assert values["roc_auc_ratio", WEIGHTED] == EXACT(np.average(areas, weights=np.bincount(labels)[:3]), rel=1e-12)


# -- standard errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_error_of_the_area_is_that_of_delong(shape: str) -> None:
    scores, labels = binary_scores(shape, 3000)
    profile = binary_profile(scores)
    error = errors_of(binary(scores, labels, profile))["roc_auc_ratio", None]
    bins = tied(scores, profile)
    assert error == EXACT(delong(bins[labels == 1], bins[labels == 0]), rel=1e-9)


def test_errors_of_shares_are_binomial() -> None:
    scores, labels = binary_scores("hard", 3000)
    values = binary(scores, labels)
    named, errors = values_of(values), errors_of(values)
    for figure, n in (
        ("accuracy_ratio", 3000),
        ("precision_ratio", (scores >= 0.5).sum()),
        ("recall_ratio", sum(labels)),
    ):
        share = named[figure, None]
        assert errors[figure, None] == EXACT(math.sqrt(share * (1 - share) / n), rel=1e-12)


@pytest.mark.parametrize("figure", ["f1_ratio", "accuracy_ratio", "roc_auc_ratio"])
def test_errors_are_as_far_as_samples_differ(figure: str) -> None:
    scores, labels = binary_scores("hard", 400_000)
    profile = binary_profile(scores)
    samples = [binary(scores[i::800], labels[i::800], profile) for i in range(800)]
    spread = np.std([values_of(values)[figure, None] for values in samples])
    # 800 samples tell a standard deviation to 2.5 %
    assert np.median([errors_of(values)[figure, None] for values in samples]) == EXACT(spread, rel=0.1)


@pytest.mark.parametrize("right", [True, False])
def test_no_error_is_0(right: bool) -> None:
    scores = np.repeat([0.2, 0.9], 150)
    errors = errors_of(binary(scores, (scores > 0.5) == right))
    told = {figure for (figure, _), error in errors.items() if not math.isnan(error)}
    assert told == {"accuracy_ratio", "precision_ratio", "recall_ratio", "f1_ratio", "roc_auc_ratio"}
    assert all(0 < errors[figure, None] < 0.05 for figure in told)
    # (n + 1/2) / (n + 1) of n
    assert errors["accuracy_ratio", None] == EXACT(math.sqrt(300.5 * 0.5) / 301 / math.sqrt(300), rel=1e-9)


def test_one_positive_has_an_area_without_an_error() -> None:
    labels = np.zeros(300, np.int64)
    labels[200] = 1
    values = binary(np.linspace(0, 1, 300), labels)
    assert math.isnan(errors_of(values)["roc_auc_ratio", None])
    assert 0.5 < values_of(values)["roc_auc_ratio", None] < 1


# -- regression -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [0.0, 1000.0, 1003.0])
def test_regression_figures_are_those_of_scikit_learn(centre: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.normal(1000.0, 20.0, N)
    predictions = labels + rng.gamma(2.0, 3.0, N) - 4
    values = regression(predictions, labels, centre)
    named, errors = values_of(values), errors_of(values)
    assert {figure for figure, _ in named} == {figure.name for figure in FIGURES if "regression" in figure.tasks}
    residual = predictions - labels
    for figure, expected in {
        "mean_absolute_error": sk.mean_absolute_error(labels, predictions),
        "root_mean_squared_error": sk.root_mean_squared_error(labels, predictions),
        "mean_error": residual.mean(),
        "mean_absolute_percentage_error_ratio": sk.mean_absolute_percentage_error(labels, predictions),
    }.items():
        assert named[figure, None] == EXACT(expected, rel=1e-12), figure
    # the further the centre from the mean of the labels, the more digits the sum of squares loses
    expected = sk.r2_score(labels, predictions)
    assert named["r2_ratio", None] == EXACT(expected, rel=1e-12 if centre else 1e-9)
    assert errors["mean_absolute_error", None] == EXACT(np.abs(residual).std() / math.sqrt(N), rel=1e-9)
    assert errors["mean_error", None] == EXACT(residual.std() / math.sqrt(N), rel=1e-9)
    root = math.sqrt((residual**2).mean())
    assert errors["root_mean_squared_error", None] == EXACT((residual**2).std() / math.sqrt(N) / (2 * root), rel=1e-9)


def test_error_of_the_root_mean_square_is_as_far_as_samples_differ() -> None:
    residual = np.random.default_rng(4).normal(0.0, 2.0, (800, 500))
    samples = [regression(row, np.zeros(500)) for row in residual]
    spread = np.std([values_of(values)["root_mean_squared_error", None] for values in samples])
    told = np.median([errors_of(values)["root_mean_squared_error", None] for values in samples])
    assert told == EXACT(spread, rel=0.1)


def test_labels_that_are_all_alike_or_0() -> None:
    named = values_of(regression(np.linspace(0, 1, 300), np.full(300, 0.1), centre=7.3))
    assert "r2_ratio" not in {figure for figure, _ in named}
    named = values_of(regression(np.linspace(0, 1, 300), np.zeros(300)))
    assert {figure for figure, _ in named} == {"mean_absolute_error", "root_mean_squared_error", "mean_error"}
    perfect = regression(np.arange(300.0), np.arange(300.0), centre=150.0)
    assert values_of(perfect)["r2_ratio", None] == 1.0
    assert errors_of(perfect)["root_mean_squared_error", None] == 0.0


# -- all --------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(200, 400), st.integers(1, 6), st.booleans())
def test_every_value_is_a_number_that_makes_sense(seed: int, n: int, levels: int, signal: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice(rng.random(levels), n)
    labels = (rng.random(n) < (scores if signal else rng.random())).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = binary(scores, labels)
    assert {"accuracy_ratio", "log_loss", "brier_score"} <= {value.figure for value in values}
    for value in values:
        assert math.isfinite(value.value)
        assert value.value >= 0
        assert math.isnan(value.standard_error) or 0 < value.standard_error <= 1
        if value.figure.endswith("_ratio"):
            assert value.value <= 1 + 1e-12


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_counts_of_two_halves_give_the_figures_of_the_whole(task: str) -> None:
    predictions: list[object]
    labels: list[object]
    if task == "binary":
        scores, truth = binary_scores("hard", 4000)
        binner, predictions, labels = OutcomeBinner(binary_profile(scores)), scores.tolist(), truth.tolist()
    elif task == "multiclass":
        probabilities, truth = class_scores(4000)
        binner = OutcomeBinner(class_profile(probabilities))
        predictions, labels = [*objects(probabilities)], [CLASSES[i] for i in truth]
    else:
        rng = np.random.default_rng(5)
        binner = OutcomeBinner(RegressionProfile(prediction_edges=(0.0,), residual_edges=(0.0,)))
        predictions, labels = rng.normal(size=4000).tolist(), rng.normal(size=4000).tolist()
    pooled: OutcomeCounts = binner.count(predictions[:1500], labels[:1500]) + binner.count(
        predictions[1500:], labels[1500:]
    )
    whole = values_of(realised(binner, binner.count(predictions, labels)))
    assert values_of(realised(binner, pooled)) == EXACT(whole, rel=1e-12)
    assert len(whole) > 4


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_correction_of_what_came_before_the_window(task: str) -> None:
    predictions: list[object]
    right: list[object]
    wrong: list[object]
    if task == "binary":
        scores, truth = binary_scores("easy", 400)
        binner, predictions = OutcomeBinner(binary_profile(scores)), [*scores.tolist()]
        right, wrong = truth.tolist(), (1 - truth).tolist()
    else:
        probabilities, truth = class_scores(400)
        binner, predictions = OutcomeBinner(class_profile(probabilities)), [*objects(probabilities)]
        right, wrong = [CLASSES[i] for i in truth], [CLASSES[i - 1] for i in truth]
    before, after = binner.count(predictions, wrong), binner.count(predictions, right)
    window = OutcomeCounts(3 * after.bins - before.bins, 3 * after.sums - before.sums, 800, 0)
    assert (window.bins < 0).any()
    values = realised(binner, window)
    assert values_of(values)["accuracy_ratio", None] > values_of(realised(binner, after))["accuracy_ratio", None] - 0.05
    assert all(math.isfinite(value.value) for value in values)
    shares = [value.value for value in values if value.figure.endswith("_ratio") and "calibration" not in value.figure]
    assert all(0 <= share <= 1 for share in shares)


def test_only_figures_of_the_table_are_told() -> None:
    probabilities, labels = class_scores(1000)
    by_class = {figure.name: figure.by_class for figure in FIGURES}
    values = multiclass(probabilities, labels)
    assert {by_class[value.figure] for value in values} == {True, False}
    for value in values:
        assert by_class[value.figure] == (value.of_class is not None)
