"""Where to cut scores between 0 and 1 into bins, from the scores of the training data alone.

A bin is (edge, next edge], as everywhere; the first edge lies just under 0, so that a score of 0 has a bin.
"""

import math
from typing import Final

import numpy as np

from mlexporter.edges import Floats

SCORE_QUANTILES: Final = 50
STANDARD_SCORE_EDGES: Final = tuple(i / 10 for i in range(1, 10))
"""Of the ten bins over which calibration is told: they are edges always, so that it is exact."""


def score_edges(scores: Floats, threshold: float | None = None) -> tuple[float, ...]:
    """Edges at the 1/50, 2/50, ... 49/50 quantiles of the scores and at 0.1, 0.2, ... 0.9.

    A score that takes two or more quantiles at once is an atom and gets a bin of its own, as do all where there are at
    most 50 distinct ones.

    Args:
        scores: of the training data, in any order; those outside 0 to 1, NaN among them, are left out.
        threshold: score from which on the positive class is predicted: no bin has scores on both sides of it.

    Returns:
        N+1 ascending edges of N bins.

    >>> score_edges(np.array([0.05, 0.05, 0.85]), threshold=0.5)
    (-5e-324, 0.05, 0.1, 0.2, 0.3, 0.4, 0.49999999999999994, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0)

    """
    inside = scores[(scores >= 0) & (scores <= 1)]
    distinct, counts = np.unique(inside, return_counts=True)
    if len(distinct) <= SCORE_QUANTILES:
        return _edges(distinct.tolist(), threshold)
    # the smallest score with at least i/50 of the rows at or under it, in whole numbers
    ranks = np.arange(1, SCORE_QUANTILES) * len(inside)
    quantiles, hits = np.unique(
        distinct[np.searchsorted(np.cumsum(counts) * SCORE_QUANTILES, ranks)], return_counts=True
    )
    return _edges([*quantiles.tolist(), *np.nextafter(quantiles[hits > 1], -np.inf).tolist()], threshold)


def uniform_score_edges(threshold: float | None = None) -> tuple[float, ...]:
    """Edges at every 0.02, for where there are no scores to choose them from; the threshold as in `score_edges`."""
    return _edges([i / SCORE_QUANTILES for i in range(1, SCORE_QUANTILES)], threshold)


def _edges(inner: list[float], threshold: float | None) -> tuple[float, ...]:
    """These edges, the standard ones, that just under the threshold, and the outermost two."""
    lowest = math.nextafter(0.0, -math.inf)
    at_threshold = () if threshold is None else (math.nextafter(threshold, -math.inf),)
    edges = {edge for edge in (*inner, *STANDARD_SCORE_EDGES, *at_threshold) if lowest < edge < 1.0}
    return (lowest, *sorted(edges), 1.0)
