"""Outcomes of models that tests make up: scores and labels, and the profiles to count them with."""

from collections.abc import Sequence

import numpy as np

from mlexporter.edges import Floats, Ints
from mlexporter.outcome_profile import ClassProfile
from mlexporter.outcomes import OutcomeBinner, OutcomeCounts
from mlexporter.score_edges import score_edges

SHAPES = ("easy", "hard", "rare", "overconfident")
CLASSES = ("a", "b", "c", "d")


def binary_scores(shape: str, n: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Scores of one of the shapes and labels: sharp and right, vague, of 2 % positives, and sharper than is right."""
    rng = np.random.default_rng([seed, SHAPES.index(shape)])
    rate = 0.02 if shape == "rare" else 0.4
    labels = (rng.random(n) < rate).astype(np.int64)
    spread = {"easy": 4.0, "hard": 0.8, "rare": 2.0, "overconfident": 1.5}[shape]
    logit = rng.normal(spread * (labels - 0.5), 1.0) * spread + np.log(rate / (1 - rate))
    if shape == "overconfident":
        logit = logit * 4
    return 1 / (1 + np.exp(-logit)), labels


def class_scores(n: int, seed: int = 0, classes: int = len(CLASSES)) -> tuple[Floats, Ints]:
    """(n, classes) probabilities that are calibrated, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.5, (n, classes)) + np.linspace(0.6, -0.6, classes)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > np.cumsum(probabilities, axis=1)).sum(axis=1)
    return probabilities, np.minimum(labels, classes - 1)


def binary_profile(scores: Floats, threshold: float = 0.5) -> ClassProfile:
    return ClassProfile(
        task="binary", classes=("0", "1"), threshold=threshold, score_edges=(score_edges(scores, threshold),)
    )


def class_profile(probabilities: Floats, classes: tuple[str, ...] = CLASSES) -> ClassProfile:
    return ClassProfile(
        task="multiclass",
        classes=classes,
        score_edges=tuple(score_edges(own) for own in probabilities.T),
        confidence_edges=score_edges(probabilities.max(axis=1)),
    )


def objects(probabilities: Floats, classes: tuple[str, ...] = CLASSES) -> list[dict[str, float]]:
    """Predictions as they are sent."""
    return [dict(zip(classes, row, strict=True)) for row in probabilities.tolist()]


def trained(profile: ClassProfile, predictions: Sequence[object], labels: Sequence[object]) -> OutcomeBinner:
    """A binner whose profile knows the outcomes of the training data."""
    counts = OutcomeBinner(profile).count(predictions, labels)
    return with_reference(profile, counts)


def with_reference(profile: ClassProfile, counts: OutcomeCounts) -> OutcomeBinner:
    return OutcomeBinner(
        ClassProfile(
            task=profile.task,
            classes=profile.classes,
            threshold=profile.threshold,
            score_edges=profile.score_edges,
            confidence_edges=profile.confidence_edges,
            rows=counts.rows,
            bins=tuple(counts.bins.tolist()),
            sums=tuple(counts.sums.tolist()),
        )
    )
