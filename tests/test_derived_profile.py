"""The profile that live outcomes are held against: the baseline's own, or one that its columns tell."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mlexporter.baseline import Baseline
from mlexporter.columns import learn_column
from mlexporter.derived_profile import profile_of
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, ProfileError, RegressionProfile, profile_problem
from mlexporter.outcomes import OutcomeBinner
from mlexporter.samples import Role
from mlexporter.score_edges import uniform_score_edges

SCORES = [i / 200 for i in range(201)]
NUMBERS = [float(i) for i in range(1000)]
BINARY = ClassProfile(task="binary", classes=("no", "yes"), threshold=0.4, rows=3, bins=(1, 1, 0, 1), sums=(0.0, 0.0))
DIGITS = ClassProfile(task="multiclass", classes=("b", "a"), rows=1, bins=(1, *[0] * 8), sums=(0.0, 0.0))


def baseline(
    prediction: Sequence[object] | None = None,
    label: Sequence[object] | None = None,
    confidence: Sequence[object] | None = None,
    outcomes: OutcomeProfile | None = None,
) -> Baseline:
    given = [
        (Role.PREDICTION, "prediction", prediction),
        (Role.PREDICTION, "confidence", confidence),
        (Role.LABEL, "label", label),
        (Role.FEATURE, "prediction", ["a", "b"]),  # a feature may have any name
    ]
    columns = tuple(learn_column(role, name, cells, None) for role, name, cells in given if cells is not None)
    built = Baseline(rows=100, columns=columns)
    return built if outcomes is None else msgspec.structs.replace(built, outcomes=outcomes)


def profile(
    known: Baseline, task: str | None = None, classes: tuple[str, ...] | None = None, threshold: float | None = None
) -> Any:
    found = profile_of(known, task, classes, threshold)
    assert found is None or profile_problem(found) is None
    return found


def test_the_baseline_has_one() -> None:
    assert profile(baseline(SCORES, outcomes=BINARY)) == BINARY
    assert profile(baseline(outcomes=BINARY), "binary", ("no", "yes"), 0.4) == BINARY
    # of several classes none is the positive one, so their order tells nothing
    assert profile(baseline(outcomes=DIGITS), "multiclass", ("a", "b")) == DIGITS
    numbers = RegressionProfile(rows=1, bins=(1,), sums=(0.0,) * 9)
    assert profile(baseline(outcomes=numbers), "regression") == numbers


AGAIN = "; build the baseline again with this configuration"


@pytest.mark.parametrize(
    ("outcomes", "given", "message"),
    [
        (BINARY, ("regression", None, None), "task is regression, but its baseline was built for task binary"),
        (DIGITS, ("binary", None, None), "task is binary, but its baseline was built for task multiclass"),
        (RegressionProfile(), ("binary", None, None), "task is binary, but its baseline was built for task regression"),
        (
            RegressionProfile(), (None, ("a", "b"), None),
            "prediction.classes are set, but the baseline was built for task regression",
        ),
        (
            RegressionProfile(),
            (None, None, 0.5),
            "prediction.threshold is set, which is for task binary, but the baseline was built for task regression",
        ),
        (
            ClassProfile(task="multiclass", classes=("no", "yes")),
            (None, None, 0.5),
            "prediction.threshold is set, which is for task binary, but the baseline was built for task multiclass",
        ),
        (
            BINARY, (None, ("yes", "no"), None),
            'prediction.classes are "yes", "no", but those of the baseline are "no", "yes"',
        ),
        (DIGITS, (None, ("a", "c"), None), 'prediction.classes are "a", "c", but those of the baseline are "b", "a"'),
        (BINARY, ("binary", None, 0.5), "prediction.threshold is 0.5, but the baseline was built with 0.4"),
    ],
)  # fmt: skip
def test_the_configuration_contradicts_the_baseline(
    outcomes: OutcomeProfile, given: tuple[Any, Any, Any], message: str
) -> None:
    with pytest.raises(ProfileError) as error:
        profile_of(baseline(outcomes=outcomes), *given)
    assert str(error.value) == message + AGAIN


def test_no_predictions() -> None:
    assert profile(baseline()) is None
    assert profile(baseline(label=[0, 1])) is None
    assert profile(baseline([None, None])) is None


@pytest.mark.parametrize(
    ("label", "given", "classes", "threshold"),
    [
        (None, (), ("0", "1"), 0.5),
        ([0, 1, 1], (), ("0", "1"), 0.5),
        ([None, None], (), ("0", "1"), 0.5),
        ([True, False], (), ("false", "true"), 0.5),
        (["Yes", "No"], ("binary", None, 0.3), ("No", "Yes"), 0.3),
        (["bad", "good"], (None, ("good", "bad"), 0.25), ("good", "bad"), 0.25),
        ([0.25, 0.5], ("binary",), ("0", "1"), 0.5),
    ],
)
def test_scores(label: Sequence[object] | None, given: Any, classes: tuple[str, str], threshold: float) -> None:
    expected = ClassProfile(
        task="binary", classes=classes, threshold=threshold, score_edges=(uniform_score_edges(threshold),)
    )
    assert profile(baseline(SCORES, label), *given) == expected


def test_numbers() -> None:
    found = profile(baseline(NUMBERS))
    # the inner deciles of 0..999
    assert found == RegressionProfile(prediction_edges=tuple(float(i) for i in range(99, 999, 100)))
    assert profile(baseline(SCORES), "regression").residual_edges == ()
    # labels that are neither 0 nor 1 are no classes
    assert isinstance(profile(baseline(SCORES, [0.0, 1.0, 0.5])), RegressionProfile)
    assert isinstance(profile(baseline(SCORES, NUMBERS)), RegressionProfile)
    assert profile(baseline(NUMBERS), "binary").task == "binary"
    assert profile(baseline([0, 1, 2], [0, 1, 2]), "multiclass", ("0", "1", "2")).classes == ("0", "1", "2")
    assert profile(baseline([0, 1, 2]), None, ("0", "1", "2")).task == "multiclass"


def test_classes() -> None:
    assert profile(baseline([True, False])) == ClassProfile(task="binary", classes=("false", "true"))
    assert profile(baseline(["no", "yes"])).classes == ("no", "yes")
    assert profile(baseline(["no", "yes"], [None, None])).classes == ("no", "yes")
    assert profile(baseline(["no", "yes"]), "multiclass").task == "multiclass"
    assert profile(baseline(["b", "a", "b"])) == ClassProfile(task="multiclass", classes=("b", "a"))
    assert profile(baseline(["b", "a", "b"]), None, ("b", "a")).task == "binary"
    assert profile(baseline(["b", "a", "b"]), "binary", ("a", "b")).classes == ("a", "b")
    assert profile(baseline(["b", "a", "c"]), None, ("a", "c", "x")).classes == ("a", "c", "x")
    assert len(profile(baseline([f"c{i}" for i in range(30)])).classes) == 20


def test_classes_with_their_probability() -> None:
    found = profile(baseline(["a", "b", "c"], confidence=SCORES))
    assert found.score_edges == (uniform_score_edges(),) * 3
    assert found.confidence_edges == uniform_score_edges()
    found = profile(baseline(["no", "yes"], confidence=SCORES), threshold=0.3)
    assert (found.threshold, found.score_edges, found.confidence_edges) == (0.3, (uniform_score_edges(0.3),), ())
    assert OutcomeBinner(found).count([{"no": 0.6, "yes": 0.4}], ["yes"]).bins[3] == 1


@pytest.mark.parametrize(
    ("known", "given", "message"),
    [
        (
            baseline(SCORES, ["good", "bad"]), (None, None, None),
            'which of "bad", "good" in the label column of the baseline is the positive class is not known; set '
            "prediction.classes, the negative one first",
        ),
        (
            baseline(["a", "b", "c"]), ("binary", None, None),
            'which of "a", "b", "c" in the prediction column of the baseline is the positive class is not known; set '
            "prediction.classes, the negative one first",
        ),
        (
            baseline(["a", "b"]), ("regression", None, None),
            "task is regression, but the predictions in the baseline are no numbers; build it again from data with "
            "numbers, or set another task",
        ),
        (
            baseline(NUMBERS), ("multiclass", None, None),
            "task is multiclass, but the predictions in the baseline are numbers; set prediction.classes, or build the "
            "baseline again with columns.prediction.type: categorical",
        ),
    ],
)  # fmt: skip
def test_what_only_people_know(known: Baseline, given: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(ProfileError) as error:
        profile_of(known, *given)
    assert str(error.value) == message
