"""The profile of outcomes that a baseline stands for: its own, or what its columns tell where nobody had labels."""

import logging
import math

import msgspec
from msgspec import UNSET

from mlexporter.baseline import Baseline, CategoricalColumn, Column, NumericColumn
from mlexporter.config import ModelConfig
from mlexporter.outcome_profile import (
    DEFAULT_THRESHOLD,
    MAX_CLASSES,
    ClassProfile,
    OutcomeProfile,
    ProfileError,
    RegressionProfile,
    sign_classes,
    task_of,
)
from mlexporter.samples import CONFIDENCE_COLUMN, LABEL_COLUMN, PREDICTION_COLUMN, Role
from mlexporter.scalars import listed
from mlexporter.score_edges import uniform_score_edges

logger = logging.getLogger(__name__)


def profile_of(
    baseline: Baseline, task: str | None, classes: tuple[str, ...] | None, threshold: float | None
) -> OutcomeProfile | None:
    """The profile that live outcomes are held against.

    Args:
        baseline: of the model version.
        task: what the configuration says of the model, as classes and threshold; None where it says nothing.
        classes: of a binary model the negative one and the positive one.
        threshold: score from which on a binary model says the positive class.

    Returns:
        That of the baseline. Where it has none, one without counts that fits its predictions; None where it knows of
        no predictions.

    Raises:
        ProfileError: the configuration contradicts the baseline, or says too little.

    """
    if baseline.outcomes is not UNSET:
        problem = _contradiction(baseline.outcomes, task, classes, threshold)
        if problem is not None:
            raise ProfileError(f"{problem}; build the baseline again with this configuration")
        return baseline.outcomes
    prediction = _column(baseline, Role.PREDICTION, PREDICTION_COLUMN)
    if prediction is None or _is_empty(prediction):
        return None
    label = _column(baseline, Role.LABEL, LABEL_COLUMN)
    if label is not None and _is_empty(label):  # sent as null until the truth is known: it tells nothing
        label = None
    if isinstance(prediction, NumericColumn):
        return _of_numbers(prediction, label, task, classes, threshold)
    profile = _of_classes(prediction, label, task, classes)
    if _column(baseline, Role.PREDICTION, CONFIDENCE_COLUMN) is None:
        return profile
    if profile.task == "binary":
        return _scored(profile, threshold)
    edges = uniform_score_edges()
    return msgspec.structs.replace(profile, score_edges=(edges,) * len(profile.classes), confidence_edges=edges)


def _contradiction(
    profile: OutcomeProfile, task: str | None, classes: tuple[str, ...] | None, threshold: float | None
) -> str | None:
    built = task_of(profile)
    if task not in (None, built):
        return f"task is {task}, but its baseline was built for task {built}"
    if threshold is not None and built != "binary":
        return f"prediction.threshold is set, which is for task binary, but the baseline was built for task {built}"
    if isinstance(profile, RegressionProfile):
        return "prediction.classes are set, but the baseline was built for task regression" if classes else None
    # those of a binary model are negative and positive one, those of another are just several
    same = classes == profile.classes if built == "binary" else set(classes or ()) == set(profile.classes)
    if classes is not None and not same:
        return f"prediction.classes are {listed(classes)}, but those of the baseline are {listed(profile.classes)}"
    if threshold not in (None, profile.threshold):
        return f"prediction.threshold is {threshold}, but the baseline was built with {profile.threshold}"
    return None


def _of_numbers(
    column: NumericColumn,
    label: Column | None,
    task: str | None,
    classes: tuple[str, ...] | None,
    threshold: float | None,
) -> OutcomeProfile:
    """Of predictions that are numbers: scores, quantities, or classes with numbers for names."""
    if task is None:
        task = _task_of(column, label, classes)
    if task == "regression":
        return RegressionProfile(prediction_edges=tuple(column.edges[i] for i in column.coarse[1:-1]))
    if task == "multiclass":
        if classes is None:
            raise ProfileError(
                "task is multiclass, but the predictions in the baseline are numbers; set prediction.classes, or build "
                "the baseline again with columns.prediction.type: categorical"
            )
        return ClassProfile(task="multiclass", classes=classes)
    if classes is None:
        classes = ("0", "1") if not isinstance(label, CategoricalColumn) else _two_classes(label)
    return _scored(ClassProfile(task="binary", classes=classes), threshold)


def _task_of(column: NumericColumn, label: Column | None, classes: tuple[str, ...] | None) -> str:
    if classes is not None:
        return "binary" if len(classes) == 2 else "multiclass"
    if not _within(column):
        return "regression"
    # of numbers from 0 to 1 only those that are all 0 or 1 have the variance p (1 - p)
    quantities = isinstance(label, NumericColumn) and not (
        _within(label) and math.isclose(label.stddev**2, label.mean * (1 - label.mean), abs_tol=1e-9)
    )
    return "regression" if quantities else "binary"


def _within(column: NumericColumn) -> bool:
    return column.minimum >= 0 and column.maximum <= 1


def _of_classes(
    column: CategoricalColumn, label: Column | None, task: str | None, classes: tuple[str, ...] | None
) -> ClassProfile:
    """Of predictions that are classes, without the scores."""
    if task == "regression":
        raise ProfileError(
            "task is regression, but the predictions in the baseline are no numbers; build it again from data with "
            "numbers, or set another task"
        )
    if task is None and classes is not None:
        task = "binary" if len(classes) == 2 else "multiclass"
    known = sign_classes(column.categories)
    if task == "binary" or (task is None and known is not None):
        truth = label if isinstance(label, CategoricalColumn) else column
        return ClassProfile(task="binary", classes=classes or _two_classes(truth))
    return ClassProfile(task="multiclass", classes=classes or column.categories[:MAX_CLASSES])


def _two_classes(column: CategoricalColumn) -> tuple[str, ...]:
    classes = sign_classes(column.categories)
    if classes is None:
        raise ProfileError(
            f"which of {listed(column.categories)} in the {column.role} column of the baseline is the positive class "
            "is not known; set prediction.classes, the negative one first"
        )
    return classes


def _scored(profile: ClassProfile, threshold: float | None) -> ClassProfile:
    """A binary profile with even edges of the scores."""
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    return msgspec.structs.replace(profile, threshold=threshold, score_edges=(uniform_score_edges(threshold),))


def _column(baseline: Baseline, role: Role, name: str) -> Column | None:
    return next((column for column in baseline.columns if (column.role, column.name) == (role, name)), None)


def _is_empty(column: Column) -> bool:
    """Whether every value was missing, of which the last bin is."""
    return not sum(column.counts[:-1])


def counted_profile(baseline: Baseline, config: ModelConfig | None) -> OutcomeProfile | None:
    """What outcomes are counted in; None, and a warning, where baseline and configuration do not tell."""
    said = config or ModelConfig(name="")
    try:
        return profile_of(baseline, said.task, said.prediction.classes, said.prediction.threshold)
    except ProfileError as error:
        extra = {"model": baseline.model, "version": baseline.version, "error": str(error)}
        logger.warning("outcomes are not counted", extra=extra)
        return None
