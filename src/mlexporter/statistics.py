"""From counts to the numbers on the page: arranges flat counts as matrices and applies the minimum sample rules.

Pure: arrays in, arrays out. NaN means absent: too little data, or a statistic that the column cannot have.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter import drift
from mlexporter.baseline import Column, NumericColumn
from mlexporter.binning import Binner, coarse_starts
from mlexporter.edges import Floats, Ints

Number = TypeVar("Number", np.int64, np.float64)


class Reference(msgspec.Struct, frozen=True):
    """The baseline's side of every comparison, in the flat order of a binner.

    Attributes:
        bins: fine bins.
        sums: sums of the values in the fine bins of the numeric columns.
        stddevs: standard deviation per numeric column.
        rows: number of rows.

    """

    bins: Ints
    sums: Floats
    stddevs: Floats
    rows: int


class WindowStatistics(msgspec.Struct, frozen=True):
    """(C,) arrays, one number per column in the binner's order; NaN where a number is absent."""

    samples: Floats
    psi: Floats
    psi_noise_floor: Floats
    js_distance: Floats
    hellinger_distance: Floats
    ks_distance: Floats
    wasserstein_stddevs: Floats
    missing_ratio: Floats
    out_of_range_ratio: Floats
    new_category_ratio: Floats


class _GroupReference(msgspec.Struct, frozen=True):
    """A baseline's side of the statistics of one group.

    (C, B) shares of the exported bins, their square roots, smoothed shares of the deciles or categories; (C,) rows,
    rows with a value, and the live rows from which on PSI is shown.
    """

    shares: Floats
    roots: Floats
    smoothed: Floats
    rows: Floats
    values: Floats
    psi_min_rows: Floats


class _OrderedReference(msgspec.Struct, frozen=True):
    """A baseline's side of the statistics that need an order, over the fine bins of the numeric columns.

    `positions` are the means of the bins, and a point inside of those without rows.
    """

    shares: Floats
    filled: NDArray[np.bool_]
    positions: Floats
    stddevs: Floats


class _PreparedReference(msgspec.Struct, frozen=True):
    """What follows from a reference alone."""

    reference: Reference
    groups: tuple[_GroupReference, ...]
    ordered: _OrderedReference | None


class _Picks:
    """Takes a padded (C, B) matrix out of a flat vector: which elements, and which of the matrix are padding."""

    def __init__(self, starts: Sequence[Sequence[int]]) -> None:
        """`starts[c]` are the indices of column c's elements."""
        width = max((len(indices) for indices in starts), default=0)
        # Stored bin by bin: a sum over the bins of a column then runs along many columns at once, twice as fast.
        valid = np.zeros((width, len(starts)), dtype=np.bool_)
        self._index: Ints = np.zeros((width, len(starts)), dtype=np.int64)
        for row, indices in enumerate(starts):
            valid[: len(indices), row] = True
            self._index[: len(indices), row] = indices
        self._padding = ~valid if not valid.all() else None
        self.valid: NDArray[np.bool_] = valid.T

    def __call__(self, flat: NDArray[Number]) -> NDArray[Number]:
        """The matrix, 0 where padded."""
        matrix = flat[self._index]
        if self._padding is not None:
            matrix[self._padding] = 0
        return matrix.T


class _Group:
    """Columns of one kind, so that a table of 13 bins is not padded to the 53 of its neighbour."""

    def __init__(self, binner: Binner, first: int, columns: Sequence[Column]) -> None:
        self.columns = slice(first, first + len(columns))
        starts = coarse_starts(binner)
        exported = np.concatenate([[0], np.cumsum([len(c) for c in _exported(binner.columns)])])
        spans = [range(int(exported[i]), int(exported[i + 1])) for i in range(first, first + len(columns))]
        self.exported = _Picks(spans)
        # PSI is over values only, and a value out of range belongs to the outermost decile.
        self._psi_starts = starts.copy()
        picks: list[Sequence[int]] = []
        for span, column in zip(spans, columns, strict=True):
            if isinstance(column, NumericColumn):
                self._psi_starts[span[1]] = starts[span[0]]
                self._psi_starts[span[-2]] = starts[span[-1]]
                picks.append(span[1:-2])
            else:
                picks.append(span[:-1])
        self._psi_picks = _Picks(picks)

        self.psi_widths: Ints = self._psi_picks.valid.sum(axis=1)

    @property
    def psi_valid(self) -> NDArray[np.bool_]:
        return self._psi_picks.valid

    def psi_bins(self, fine: NDArray[Number]) -> NDArray[Number]:
        """(C, B) values per decile or category."""
        # reduceat gives the element at the start where two starts are equal; both such bins are among those left out
        return self._psi_picks(np.add.reduceat(fine, self._psi_starts))


def _exported(columns: Iterable[Column]) -> Iterable[range]:
    for column in columns:
        yield range(len(column.coarse) + 2 if isinstance(column, NumericColumn) else len(column.counts))


class Statistician:
    """Computes the statistics of one binner's columns. What depends on the bins only is made once."""

    def __init__(self, binner: Binner) -> None:
        self._starts = coarse_starts(binner)
        self._columns = len(binner.columns)
        numeric = len(binner.numeric)
        self._groups = [
            _Group(binner, first, columns)
            for first, columns in ((0, binner.numeric), (numeric, binner.categorical))
            if columns
        ]
        # the values of numeric columns in their fine bins, below and above among them, missing not
        self._fine = _Picks([range(int(a), int(b) - 1) for a, b in pairwise(binner.offsets[: numeric + 1])])
        # a point inside of each fine bin, and the last one again where a column has fewer bins than another
        self._inside = np.full(self._fine.valid.T.shape, 0.0).T
        for row, column in enumerate(binner.numeric):
            inside = (*column.edges, column.edges[-1])
            self._inside[row, : len(inside)] = inside
            self._inside[row, len(inside) :] = inside[-1]
        self._prepared: _PreparedReference | None = None
        last = binner.offsets[1:] - 1
        self._missing = last
        self._below = binner.offsets[:numeric]
        self._above = last[:numeric] - 1
        self._new = last[numeric:] - 1
        self._numeric = slice(0, numeric)
        self._categorical = slice(numeric, self._columns)
        self._complete = np.array([column.complete for column in binner.categorical], dtype=np.bool_)

    def exported(self, fine: Ints) -> Ints:
        """Flat exported bins from flat fine bins."""
        if not len(self._starts):
            return fine
        merged: Ints = np.add.reduceat(fine, self._starts)
        return merged

    def baseline_ratios(self, reference: Reference) -> Floats:
        """Flat smoothed shares of the exported bins in the baseline."""
        exported = self.exported(reference.bins)
        return np.concatenate(
            [
                drift.smoothed_shares(group.exported(exported), group.exported.valid)[group.exported.valid]
                for group in self._groups
            ]
            or [np.empty(0)]
        )

    def compute(self, reference: Reference, bins: Ints, sums: Floats) -> WindowStatistics:
        """All statistics of one window.

        Args:
            reference: the baseline's counts.
            bins: the window's counts in fine bins, flat.
            sums: the window's sums of values, flat, of the numeric columns.

        """
        prepared = self._prepare(reference)
        statistics = {name: np.full(self._columns, np.nan) for name in WindowStatistics.__struct_fields__}
        exported = self.exported(bins)
        enough = np.zeros(self._columns, dtype=np.bool_)
        for group, baseline in zip(self._groups, prepared.groups, strict=True):
            here = group.columns
            counts, values = group.exported(exported), group.psi_bins(bins)
            n = values.sum(axis=1)
            p = drift.shares(counts)
            rows = counts.sum(axis=1)
            statistics["samples"][here] = rows
            enough[here] = (n >= drift.MIN_ROWS) & (baseline.values >= drift.MIN_ROWS)
            statistics["psi"][here] = np.where(
                (n >= baseline.psi_min_rows) & enough[here],
                drift.psi_between(baseline.smoothed, drift.smoothed_shares(values, group.psi_valid), group.psi_valid),
                np.nan,
            )
            statistics["psi_noise_floor"][here] = drift.psi_noise_floor(n, baseline.values, group.psi_widths)
            # these two take missing as a bin like any other, so a column that went missing altogether has them too
            few = (rows < drift.MIN_ROWS) | (baseline.rows < drift.MIN_ROWS)
            statistics["js_distance"][here] = np.where(few, np.nan, drift.js_between(baseline.shares, p))
            roots = np.sqrt(p)
            statistics["hellinger_distance"][here] = np.where(
                few, np.nan, drift.hellinger_between(baseline.roots, roots)
            )
        if prepared.ordered is not None:
            self._compute_ordered(prepared.ordered, bins, sums, statistics)
        for name in ("ks_distance", "wasserstein_stddevs"):
            statistics[name][~enough] = np.nan
        statistics["psi_noise_floor"][np.isnan(statistics["psi"])] = np.nan
        self._compute_ratios(bins, statistics)
        return WindowStatistics(**statistics)

    def psi(self, reference: Reference, bins: Floats) -> Floats:
        """(C,) population stability index of flat fine bins, however few samples are in them; NaN without any."""
        result = np.full(self._columns, np.nan)
        for group, baseline in zip(self._groups, self._prepare(reference).groups, strict=True):
            values = group.psi_bins(bins)
            live = drift.smoothed_shares(values, group.psi_valid)
            psi = drift.psi_between(baseline.smoothed, live, group.psi_valid)
            result[group.columns] = np.where(values.sum(axis=1) > 0, psi, np.nan)
        return result

    def psi_between(self, before: Ints, after: Ints) -> Floats:
        """(C,) population stability index of two windows' flat fine bins; NaN where either has too few values."""
        result = np.full(self._columns, np.nan)
        for group in self._groups:
            q, p = group.psi_bins(before), group.psi_bins(after)
            # the rule for a baseline of so many rows, and the other way round, for neither side is one
            sizes = [values.sum(axis=1).astype(np.float64) for values in (q, p)]
            enough = np.logical_and.reduce(
                [sizes[i] >= drift.psi_min_rows(sizes[1 - i], group.psi_widths) for i in (0, 1)]
            )
            psi = drift.psi(q, p, group.psi_valid)
            result[group.columns] = np.where(enough & (group.psi_widths > 1), psi, np.nan)
        return result

    def _compute_ordered(
        self, baseline: _OrderedReference, bins: Ints, sums: Floats, statistics: dict[str, Floats]
    ) -> None:
        """Statistics that need an order, from all fine bins of the numeric columns."""
        counts = self._fine(bins)
        p = drift.shares(counts)
        difference = np.cumsum(p - baseline.shares, axis=1)
        statistics["ks_distance"][self._numeric] = drift.ks_between(difference)
        filled = counts > 0
        means = np.divide(self._fine(sums), counts, out=baseline.positions.copy(order="K"), where=filled)
        q_at = np.where(baseline.filled | ~filled, baseline.positions, means)
        distance = drift.wasserstein_between(baseline.shares, q_at, p, means, difference)
        statistics["wasserstein_stddevs"][self._numeric] = distance / baseline.stddevs

    def _prepare(self, reference: Reference) -> _PreparedReference:
        """The baseline's side of the statistics, made once for a baseline that stays."""
        known = self._prepared
        if known is not None and known.reference is reference:
            return known
        exported = self.exported(reference.bins)
        groups: list[_GroupReference] = []
        for group in self._groups:
            counts, values = group.exported(exported), group.psi_bins(reference.bins)
            q = drift.shares(counts)
            valued = values.sum(axis=1).astype(np.float64)
            least = drift.psi_min_rows(valued, group.psi_widths)
            groups.append(
                _GroupReference(
                    shares=q,
                    roots=np.sqrt(q),
                    smoothed=drift.smoothed_shares(values, group.psi_valid),
                    rows=counts.sum(axis=1).astype(np.float64),
                    values=valued,
                    psi_min_rows=np.where(group.psi_widths > 1, least, np.inf),
                )
            )
        prepared = _PreparedReference(reference, tuple(groups), self._prepare_ordered(reference))
        self._prepared = prepared
        return prepared

    def _prepare_ordered(self, reference: Reference) -> _OrderedReference | None:
        if not self._fine.valid.size:
            return None
        counts = self._fine(reference.bins)
        filled = counts > 0
        return _OrderedReference(
            shares=drift.shares(counts),
            filled=filled,
            positions=np.divide(self._fine(reference.sums), counts, out=self._inside.copy(order="K"), where=filled),
            stddevs=np.where(reference.stddevs > 0, reference.stddevs, np.nan),
        )

    def _compute_ratios(self, bins: Ints, statistics: dict[str, Floats]) -> None:
        samples = np.where(statistics["samples"] > 0, statistics["samples"], np.nan)
        statistics["missing_ratio"][:] = bins[self._missing] / samples
        out_of_range = bins[self._below] + bins[self._above]
        statistics["out_of_range_ratio"][self._numeric] = out_of_range / samples[self._numeric]
        new = bins[self._new] / samples[self._categorical]
        statistics["new_category_ratio"][self._categorical] = np.where(self._complete, new, np.nan)


def reference_of(binner: Binner) -> Reference:
    """The reference that a baseline holds."""
    bins = np.array([count for column in binner.columns for count in column.counts], dtype=np.int64)
    sums = np.array(
        [
            0.0 if mean is None else mean * count
            for column in binner.numeric
            for mean, count in zip((*column.means, None), column.counts, strict=True)
        ],
        dtype=np.float64,
    )
    rows = max((sum(column.counts) for column in binner.columns), default=0)
    return Reference(
        bins=bins,
        sums=sums,
        stddevs=np.array([column.stddev for column in binner.numeric], dtype=np.float64),
        rows=rows,
    )
