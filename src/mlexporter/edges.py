"""Where to cut a numeric column into bins, from its baseline values alone.

The bins of a column are half-open to the left, (edge, next edge], which is what the buckets of a Prometheus
histogram count. Values at or under the first edge are `below`, values over the last one `above`.
"""

import math
from collections import Counter
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_ROWS_PER_BIN: Final = 50
COARSE_BINS: Final = 10
FINE_QUANTILES: Final = (0.001, 0.01, *(i / 20 for i in range(1, 20)), 0.99, 0.999)


class Grid(msgspec.Struct, frozen=True):
    """The values of a column, counted on a grid.

    Attributes:
        values: G ascending, finite values; cell i holds what lies in (values[i-1], values[i]].
        counts: G numbers of rows in the cells.
        sums: G sums of the values in the cells.
        exact: True where every distinct value has a cell of its own.

    """

    values: Floats
    counts: Ints
    sums: Floats
    exact: bool

    @staticmethod
    def of(values: Floats) -> "Grid":
        """The exact grid of an array of finite values."""
        distinct, counts = np.unique(values, return_counts=True)
        return Grid(values=distinct, counts=counts.astype(np.int64), sums=distinct * counts, exact=True)


class Edges(msgspec.Struct, frozen=True):
    """The N+1 edges of the N fine bins of a column.

    Attributes:
        fine: ascending edges.
        coarse: indices into `fine` of the edges of the exported bins, the first and last one among them.
        rank_error: how far, as a share of the rows, a quantile edge may lie from the true quantile: the weight of
            the widest cell that a quantile fell in; 0 where the grid is exact.

    """

    fine: tuple[float, ...]
    coarse: tuple[int, ...]
    rank_error: float


def choose_edges(grid: Grid) -> Edges:
    """Cut at the deciles, and finer at the vigintiles and in both tails (0.1 %, 1 %, 99 %, 99.9 %).

    A value that takes two or more quantiles at once is an atom and gets a bin of its own. A bin has at least 50 rows:
    sparser ones are merged with a neighbour.

    Returns:
        The edges; none where the grid is empty.

    """
    total = int(grid.counts.sum())
    if not total:
        return Edges((), (), 0.0)
    cumulative = np.cumsum(grid.counts)
    lowest = math.nextafter(float(grid.values[np.flatnonzero(grid.counts)[0]]), -math.inf)
    highest = float(grid.values[-1])
    bins = min(COARSE_BINS, total // MIN_ROWS_PER_BIN)
    coarse, coarse_error = _cut(grid, cumulative, COARSE_BINS, tuple(i / bins for i in range(1, bins)))
    coarse_edges = _merge_sparse(sorted({lowest, highest, *coarse}), grid, cumulative, keep=frozenset())
    fine, fine_error = _cut(grid, cumulative, len(FINE_QUANTILES) + 1, FINE_QUANTILES)
    keep = frozenset(coarse_edges)
    fine_edges = _merge_sparse(sorted({*coarse_edges, *fine}), grid, cumulative, keep=keep)
    return Edges(
        fine=tuple(fine_edges),
        coarse=tuple(i for i, edge in enumerate(fine_edges) if edge in keep),
        rank_error=0.0 if grid.exact else max(coarse_error, fine_error),
    )


def _cut(grid: Grid, cumulative: Ints, most: int, probabilities: tuple[float, ...]) -> tuple[set[float], float]:
    """Edges at the quantiles with the atoms isolated, and the weight of the heaviest cell that is no atom."""
    if grid.exact and len(grid.values) <= most:
        return set(grid.values.tolist()), 0.0
    total = int(cumulative[-1])
    # The smallest value with at least p of the rows at or under it ("inverted CDF", type 1 of Hyndman and Fan); the
    # small tolerance keeps p = 3/10 of 10 rows at the third one.
    cells = np.searchsorted(cumulative, np.asarray(probabilities) * total * (1 - 1e-12), side="left")
    edges: set[float] = set()
    error = 0.0
    for cell, quantiles in Counter(cells.tolist()).items():
        value = float(grid.values[cell])
        below = math.nextafter(value, -math.inf)
        edges.add(value)
        # only of a cell with one value is it known that all of its rows lie above the edge just under it
        if not (grid.exact or not cell or grid.values[cell - 1] == below):
            error = max(error, float(grid.counts[cell]) / total)
        elif quantiles > 1 or cell == len(grid.values) - 1:
            edges.add(below)
    return edges, error


def _merge_sparse(edges: list[float], grid: Grid, cumulative: Ints, *, keep: frozenset[float]) -> list[float]:
    """Drop edges until every bin has MIN_ROWS_PER_BIN rows, never one of `keep` nor the outermost two."""
    edges = list(edges)
    ranks = _ranks(edges, grid, cumulative)
    while len(edges) > 2:
        rows = [after - before for before, after in pairwise(ranks)]
        candidates = [
            (rows[i], i, drop)
            for i in range(len(rows))
            if rows[i] < MIN_ROWS_PER_BIN
            for drop in (i, i + 1)
            if 0 < drop < len(edges) - 1 and edges[drop] not in keep
        ]
        if not candidates:
            break
        # The emptiest bin first, into the smaller of its neighbours; of two alike into the upper one, which keeps an
        # edge that is a value of the data and drops the one just under an atom.
        _, i, _ = min(candidates)
        drop = min((d for _, j, d in candidates if j == i), key=lambda d: (rows[d - 1] if d == i else rows[d], -d))
        del edges[drop], ranks[drop]
    return edges


def _ranks(edges: list[float], grid: Grid, cumulative: Ints) -> list[int]:
    """The number of rows at or under each edge."""
    cells = np.searchsorted(grid.values, np.asarray(edges), side="right")
    padded = np.concatenate([[0], cumulative])
    return [int(rank) for rank in padded[cells]]
