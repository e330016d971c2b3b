"""Outcomes as text; figures from scikit-learn."""

import msgspec
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score, recall_score

from mlexporter.baseline import Baseline, sealed
from mlexporter.concept import ConceptAlarm
from mlexporter.config import DetectionConfig
from mlexporter.edges import Floats
from mlexporter.estimates import estimated
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.performance import realised
from mlexporter.profiling import OutcomeProfiler, Task
from mlexporter.show import WIDTH, render, warnings
from mlexporter.show_outcomes import outcome_warnings, outcomes_table

RNG = np.random.default_rng(8)


def profiled(predictions: Floats | list[str], labels: Floats | list[str], task: Task) -> OutcomeProfile:
    profiler = OutcomeProfiler(task)
    profiler.add(predictions, labels)
    profile = profiler.result()
    assert profile is not None
    return profile


def figures(lines: list[str]) -> dict[str, list[str]]:
    return {cells[0]: cells[1:] for cells in map(str.split, lines)}


def test_binary() -> None:
    scores = RNG.random(3000)
    truth = (RNG.random(3000) < scores).astype(float)
    first, *lines = outcomes_table(profiled(scores, truth, "binary"))
    assert first == "outcomes of 3,000 rows, binary, classes 0, 1, threshold 0.5"
    shown = figures(lines)
    accuracy = accuracy_score(truth, scores >= 0.5)
    # with the binomial error
    error = np.sqrt(accuracy * (1 - accuracy) / 3000)
    assert shown["accuracy_ratio"] == [f"{accuracy:.4g}", "±", f"{error:.2g}"]
    assert shown["recall_ratio"][0] == f"{recall_score(truth, scores >= 0.5):.4g}"
    assert shown["log_loss"][1:] == []


def test_multiclass() -> None:
    truth = RNG.choice(["ant", "bee", "cow"], 3000, p=[0.5, 0.3, 0.2])
    said = np.where(RNG.random(3000) < 0.7, truth, RNG.choice(["ant", "bee", "cow"], 3000))
    first, *lines = outcomes_table(profiled(said.tolist(), truth.tolist(), "multiclass"))
    assert first == "outcomes of 3,000 rows, multiclass, classes ant, bee, cow"
    shown = figures(lines)
    assert shown["class"] == ["precision", "recall", "f1"]
    expected = f1_score(truth, said, average=None, labels=["ant", "bee", "cow"])
    assert [shown[name][2] for name in ("ant", "bee", "cow")] == [f"{value:.4g}" for value in expected]
    assert shown["__macro__"][2] == f"{expected.mean():.4g}"


def test_regression() -> None:
    labels = RNG.normal(5, 2, 3000)
    predictions = labels + RNG.normal(0.5, 1, 3000)
    first, *lines = outcomes_table(profiled(predictions, labels, "regression"))
    assert first == "outcomes of 3,000 rows, regression"
    shown = figures(lines)
    assert shown["mean_absolute_error"][0] == f"{mean_absolute_error(labels, predictions):.4g}"
    assert shown["r2_ratio"] == [f"{r2_score(labels, predictions):.4g}"]


def test_many_classes() -> None:
    labels = [f"c{i % 20:02}" for i in range(3000)]
    first = outcomes_table(profiled(labels, labels, "multiclass"))[0]
    assert first == "outcomes of 3,000 rows, multiclass, classes c00, c01, c02, c03, c04 and 15 more"


def test_without_labels() -> None:
    assert outcomes_table(RegressionProfile()) == ["outcomes of 0 rows, regression"]


FEW = "nothing is estimated without labels, and there is no alarm on concept drift"
NO_FIGURES = "below 200 there are no figures to compare live performance with"


@pytest.mark.parametrize(
    ("no", "yes", "expected"),
    [
        (1000, 1000, []),
        (1000, 999, [f"only 1,999 outcomes: below 2,000 {FEW}"]),
        (100, 100, [f"only 200 outcomes: below 2,000 {FEW}"]),
        (100, 99, [f"only 199 outcomes: {NO_FIGURES}", f"only 199 outcomes: below 2,000 {FEW}"]),
        (2000, 49, ["few outcomes of class 1 (49): below 50 nothing is estimated without labels"]),
        (2000, 50, []),
    ],
)
def test_warnings_of_few_outcomes(no: int, yes: int, expected: list[str]) -> None:
    """Each holds: figures, estimates and the alarm are there where it does not warn, and are not where it does."""
    truth = np.repeat([0.0, 1.0], [no, yes])
    profile = profiled(0.2 + 0.6 * truth, truth, "binary")
    assert outcome_warnings(profile) == expected
    baseline = sealed(Baseline(rows=5000, columns=(), outcomes=profile))
    assert warnings(baseline) == expected
    assert render(baseline).count("\nwarning: ") == len(expected)
    binner = OutcomeBinner(profile)
    assert binner.reference is not None
    said = " ".join(expected)
    assert bool(realised(binner, binner.reference)) == ("no figures" not in said)
    live = binner.score_counts(binner.reference.bins)
    assert bool(estimated(binner, live * 1000)) == ("nothing is estimated" not in said)
    assert (ConceptAlarm.of(binner, DetectionConfig()) is None) == ("no alarm" in said)


def test_warnings_of_few_numbers() -> None:
    profile = profiled(np.arange(1999.0), np.arange(1999.0), "regression")
    assert outcome_warnings(profile) == ["only 1,999 outcomes: below 2,000 there is no alarm on concept drift"]
    profile = profiled(np.arange(100.0), np.arange(100.0), "regression")
    assert outcome_warnings(profile)[0] == f"only 100 outcomes: {NO_FIGURES}"


def test_warning_of_rare_classes() -> None:
    labels = ["ant"] * 2000 + ["bee"] * 60 + ["cow"] * 49
    assert outcome_warnings(profiled(labels, labels, "multiclass")) == [
        "few outcomes of class cow (49): below 50 the area under its ROC curve is not estimated without labels"
    ]


def test_warning_of_two_classes_that_nobody_called_binary() -> None:
    labels = ["benign", "malignant"] * 1000
    assert outcome_warnings(profiled(labels, labels, "multiclass")) == [
        "multiclass, of two classes, benign, malignant: if the model is binary, set prediction.classes, the "
        "negative one first, and build again"
    ]


def test_the_page_fits_its_width_and_is_safe_to_print() -> None:
    names = [f"odd\x1b[31m{i} {'x' * 60}" for i in range(20)]
    labels = [names[i % 20] for i in range(3000)]
    profile = profiled(labels, labels, "multiclass")
    page = render(sealed(Baseline(rows=3000, columns=(), outcomes=profile)))
    assert all(len(line) <= WIDTH for line in page.splitlines())
    assert "\x1b" not in page
    few = msgspec.structs.replace(profile, classes=("\x1b", *names[1:]))
    assert isinstance(few, ClassProfile)
    assert "\x1b" not in "".join(outcomes_table(few))
