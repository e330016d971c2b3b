"""What a baseline knows of outcomes: how predictions are held against true labels, and what came of it in training.

Part of the baseline file. The counts are flat, in the layout that `outcomes.py` gives to the same profile.
"""

from typing import Final, Literal

import msgspec

MAX_CLASSES: Final = 20
"""Classes that are told apart; those beyond are counted as one."""
DEFAULT_THRESHOLD: Final = 0.5


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
