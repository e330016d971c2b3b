"""What a baseline knows of outcomes: how predictions are held against true labels, and what came of it in training.

Part of the baseline file. The counts are flat, in the layout that `outcomes.py` gives to the same profile.
"""

import math
from collections.abc import Collection
from itertools import pairwise
from typing import Final, Literal

import msgspec

MAX_CLASSES: Final = 20
"""Classes that are told apart; those beyond are counted as one."""
DEFAULT_THRESHOLD: Final = 0.5
EXPORTED_OF_MANY: Final = 20
"""Score bins that are exported of each class of a multiclass model; of a binary one, all are."""
_RESIDUAL_SUMS: Final = 9
# Names that say by themselves which class is the negative one and which the positive one.
_SIGNS: Final = (("0", "1"), ("-1", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("negative", "positive"))
_MOST_EDGES: Final = 1000
_MOST_ROWS: Final = 1 << 53


class ProfileError(Exception):
    """Outcomes of which no profile can be made; the message says why and what to do."""


class ClassProfile(msgspec.Struct, frozen=True, kw_only=True, tag="classification", tag_field="kind"):
    """Of a model that predicts classes, or the score of one.

    Attributes:
        task: binary or multiclass.
        classes: as text; of a binary model the negative one and the positive one. Of a multiclass model at most
            `MAX_CLASSES`, the most frequent first; labels of others are one class more.
        threshold: score from which on a binary model says the positive class.
        score_edges: of each scored class, N+1 ascending edges of N bins (edge, next edge], from just under 0 to 1. A
            binary model with scores has one scored class, the positive one; a multiclass model that sends
            probabilities has all of them. Empty where predictions are bare classes.
        confidence_edges: likewise of the probability of the predicted class; of multiclass models only.
        rows: with a prediction and a label, in the training data; 0 where nobody has labels for them.
        bins, sums: what was counted of them; empty where there are none.

    """

    task: Literal["binary", "multiclass"]
    classes: tuple[str, ...]
    threshold: float = DEFAULT_THRESHOLD
    score_edges: tuple[tuple[float, ...], ...] = ()
    confidence_edges: tuple[float, ...] = ()
    rows: int = 0
    bins: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()


class RegressionProfile(msgspec.Struct, frozen=True, kw_only=True, tag="regression", tag_field="kind"):
    """Of a model that predicts numbers.

    Attributes:
        prediction_edges: S-1 ascending inner edges of S bins of predictions, open at both ends.
        residual_edges: O-1 ascending inner edges of O bins of prediction less label, open at both ends; none where
            nobody has labels for the training data.
        centre: about the mean of the labels: sums of squares are taken from it, for accuracy.
        rows, bins, sums: as for classes.

    """

    prediction_edges: tuple[float, ...] = ()
    residual_edges: tuple[float, ...] = ()
    centre: float = 0.0
    rows: int = 0
    bins: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()


OutcomeProfile = ClassProfile | RegressionProfile


def task_of(profile: OutcomeProfile) -> Literal["binary", "multiclass", "regression"]:
    """The task of the model."""
    return profile.task if isinstance(profile, ClassProfile) else "regression"


def sign_classes(names: Collection[str]) -> tuple[str, ...] | None:
    """The negative and the positive class, where names are signs of one or of both; None where they are not.

    >>> sign_classes(["Yes", "No"]), sign_classes(["1"]), sign_classes(["cat", "dog"])
    (('No', 'Yes'), ('0', '1'), None)
    """
    given = {name.lower(): name for name in names}
    for signs in _SIGNS:
        if given and given.keys() <= set(signs) and len(given) == len(names):
            return tuple(given.get(sign, sign) for sign in signs)
    return None


def profile_problem(profile: OutcomeProfile) -> str | None:
    """What is wrong with a profile that came from a file; None where nothing is."""
    problem = _class_problem(profile) if isinstance(profile, ClassProfile) else _regression_problem(profile)
    if problem is not None:
        return problem
    bins, sums, outcomes = _sizes(profile) if profile.rows else (0, 0, 0)
    if not 0 <= profile.rows <= _MOST_ROWS:
        return f"{profile.rows} rows"
    if (len(profile.bins), len(profile.sums)) != (bins, sums):
        return f"{profile.rows} rows go with {bins} bins and {sums} sums"
    if not all(0 <= count <= profile.rows for count in profile.bins) or sum(profile.bins[:outcomes]) != profile.rows:
        return f"its bins do not count {profile.rows} rows"
    return None if all(map(math.isfinite, profile.sums)) else "a sum is not finite"


def _sizes(profile: OutcomeProfile) -> tuple[int, int, int]:
    """Numbers of bins and of sums, and how many of the bins, the first ones, have every outcome once."""
    if isinstance(profile, RegressionProfile):
        bins = (len(profile.prediction_edges) + 1) * (len(profile.residual_edges) + 1)
        return bins, _RESIDUAL_SUMS, bins
    classes = len(profile.classes) + (profile.task == "multiclass")
    scores = sum(len(edges) - 1 for edges in profile.score_edges)
    confidences = classes * max(len(profile.confidence_edges) - 1, 0)
    return classes**2 + 2 * (scores + confidences), scores + confidences + 2, classes**2


def _class_problem(profile: ClassProfile) -> str | None:
    classes, binary = len(profile.classes), profile.task == "binary"
    if classes != 2 if binary else not 1 <= classes <= MAX_CLASSES:
        return f"{classes} classes; accepted are {2 if binary else f'1 to {MAX_CLASSES}'} with task {profile.task}"
    if len(set(profile.classes)) != classes:
        return "a class is there twice"
    if not 0 <= profile.threshold <= 1:
        return "its threshold is not between 0 and 1"
    scored = 1 if binary else classes
    if len(profile.score_edges) not in (0, scored):
        return f"scores of {len(profile.score_edges)} classes; accepted are none or {scored}"
    if bool(profile.confidence_edges) != bool(profile.score_edges and not binary):
        return "edges of confidence go with the scores of a multiclass model"
    edges = (*profile.score_edges, *((profile.confidence_edges,) if profile.confidence_edges else ()))
    if any(len(each) < 2 or each[0] >= 0 or each[-1] != 1 for each in edges) or not all(map(_ascend, edges)):
        return "the edges of its scores do not ascend from below 0 to 1"
    return None


def _regression_problem(profile: RegressionProfile) -> str | None:
    if not _ascend(profile.prediction_edges) or not _ascend(profile.residual_edges):
        return "its edges do not ascend"
    return None if math.isfinite(profile.centre) else "its centre is not finite"


def _ascend(edges: tuple[float, ...]) -> bool:
    return (
        len(edges) <= _MOST_EDGES
        and all(map(math.isfinite, edges))
        and all(low < high for low, high in pairwise(edges))
    )
