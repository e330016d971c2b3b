"""The baseline profile of a model version: bins and counts per column, no raw rows. Reading and writing it.

A baseline file is JSON: diffable, small, and the same bytes for the same data.
"""

import hashlib
import math
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from mlexporter.outcome_profile import OutcomeProfile, profile_problem
from mlexporter.samples import Role

FORMAT_VERSION: Final = 2
# Sums and moments take a value beyond this as if it were this large, so that no square of it overflows.
LARGEST: Final = 1e140
# A value enters the mean of its bin as if it lay within this many standard deviations of the baseline's mean.
_LIMIT_STDDEVS: Final = 1e6


class Season(msgspec.Struct, frozen=True, kw_only=True):
    """How a column looks at each hour of the day.

    Attributes:
        timezone: in which the hours are told.
        hours: 24 times the numbers of rows in the bins of the drift alarm (`binning.alarm_starts`).

    """

    timezone: str
    hours: tuple[tuple[int, ...], ...]


class Variation(msgspec.Struct, frozen=True, kw_only=True):
    """How far ordinary days of the history are from what the baseline expects of them.

    Attributes:
        typical, usual: median and 95 % quantile over the days of a number that says how far a day is off.

    """

    typical: float
    usual: float


class Days(msgspec.Struct, frozen=True, kw_only=True):
    """What the days of a column's history tell, each held against what the baseline, by the hour, expects of it.

    Attributes:
        count: number of days.
        divergence: Kullback-Leibler divergence of the expectation from the day, less what chance adds.
        missing: share of missing values over the expectation.
        strange: share of values out of range, or of new categories, over the expectation.
        beyond: dates of the days that are off by more than is usual, and how far.

    """

    count: int
    divergence: Variation
    missing: Variation
    strange: Variation
    beyond: tuple[tuple[str, float], ...] = ()


class NumericColumn(msgspec.Struct, frozen=True, kw_only=True, tag="numeric", tag_field="type"):
    """A column of numbers.

    Attributes:
        edges: N+1 ascending edges of N fine bins (edge, next edge].
        coarse: indices into `edges` of the edges of the exported bins.
        counts: N+3 numbers of rows: below, the N bins, above, missing.
        means: N+2 means of the values in them (not of missing), null where there is no row.
        mean, stddev: of the finite values; the standard deviation is the population's (divisor n).
        rank_error: how far, as a share of the rows, an edge may lie from the quantile it stands for; 0 is exact.
        invalid: rows whose value was no number; they count as missing.
        season, days: where the rows had a time, and the column needs it.

    """

    role: Role
    name: str
    edges: tuple[float, ...]
    coarse: tuple[int, ...]
    counts: tuple[int, ...]
    means: tuple[float | None, ...]
    mean: float
    stddev: float
    minimum: float
    maximum: float
    rank_error: float = 0.0
    invalid: int = 0
    season: Season | None = None
    days: Days | None = None

    @property
    def sum_limits(self) -> tuple[float, float]:
        """The range within which values enter sums."""
        reach = _LIMIT_STDDEVS * (self.stddev or max(abs(self.mean), 1.0))
        return max(self.mean - reach, -LARGEST), min(self.mean + reach, LARGEST)


class CategoricalColumn(msgspec.Struct, frozen=True, kw_only=True, tag="categorical", tag_field="type"):
    """A column of categories or of booleans.

    Attributes:
        boolean: the categories are "true" and "false".
        categories: the most frequent ones, most frequent first.
        rare: the other ones that the baseline has seen.
        complete: whether `rare` lists all of them. If not, a category that is listed nowhere counts as other, for it
            may have been there.
        counts: numbers of rows: the categories, other, new (only where live traffic was learned from), missing.
        invalid: rows whose value was no category; they count as missing.
        singletons: number of categories with a single row. Had that row been left out its category would be new, so
            their share is what is to be expected of new categories (Good and Turing).
        season, days: where the rows had a time, and the column needs it.

    """

    role: Role
    name: str
    boolean: bool
    categories: tuple[str, ...]
    rare: tuple[str, ...] = ()
    complete: bool = True
    counts: tuple[int, ...]
    invalid: int = 0
    singletons: int = 0
    season: Season | None = None
    days: Days | None = None


Column = NumericColumn | CategoricalColumn


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The reference that live data is compared with.

    Attributes:
        format_version: of the file.
        hash: first 16 hexadecimal digits of the SHA-256 of all other fields; replicas compare it.
        model, version: what it is of, if it was said when it was built.
        source: `file` (built from training data) or `learned` (from the model's own traffic).
        provisional: learned, and not frozen yet.
        rows: number of rows it was built from.
        columns: ordered by role and name.
        outcomes: what came of the predictions, where the rows had a prediction and a label.

    """

    format_version: int = FORMAT_VERSION
    hash: str = ""
    model: str | None = None
    version: str | None = None
    source: str = "file"
    provisional: bool = False
    rows: int
    columns: tuple[Column, ...]
    outcomes: OutcomeProfile | UnsetType = UNSET


class BaselineError(Exception):
    """A baseline file that cannot be used; the message says why and what to do."""


def sealed(baseline: Baseline) -> Baseline:
    """The baseline with its columns in order and its content hash."""
    columns = tuple(sorted(baseline.columns, key=lambda column: (column.role, column.name)))
    ordered = msgspec.structs.replace(baseline, columns=columns)
    return msgspec.structs.replace(ordered, hash=_content_hash(ordered))


def _content_hash(baseline: Baseline) -> str:
    content = msgspec.json.encode(msgspec.structs.replace(baseline, hash=""))
    return hashlib.sha256(content).hexdigest()[:16]


def encode(baseline: Baseline) -> bytes:
    """The bytes of a baseline file."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n"


def read(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        BaselineError: it cannot be read, is of another format, or was changed after it was built.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        baseline = msgspec.json.decode(data, type=Baseline)
        _check(baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BaselineError) as error:
        raise BaselineError(f"{path}: not a baseline that this version reads: {error}") from error
    if _content_hash(baseline) != baseline.hash:
        raise BaselineError(
            f"{path}: its content does not match its hash {baseline.hash}: it was changed after it was built; "
            "build it again with `mlexporter baseline build`"
        )
    return baseline


def _check(baseline: Baseline) -> None:
    if baseline.format_version != FORMAT_VERSION:
        raise BaselineError(f"format_version is {baseline.format_version}, accepted is {FORMAT_VERSION}")
    names = [(column.role, column.name) for column in baseline.columns]
    for role, name in {name for name in names if names.count(name) > 1}:
        raise BaselineError(f"{role} column {name!r} is there twice")
    for column in baseline.columns:
        problem = _numeric_problem(column) if isinstance(column, NumericColumn) else _categorical_problem(column)
        if problem is not None:
            raise BaselineError(f"{column.role} column {column.name!r}: {problem}")
    if baseline.outcomes is not UNSET and (problem := profile_problem(baseline.outcomes)) is not None:
        raise BaselineError(f"outcomes: {problem}")


def _numeric_problem(column: NumericColumn) -> str | None:
    bins = len(column.edges) - 1
    if bins < 1 or bins > 200:
        return f"{bins} bins, accepted are 1 to 200"
    if not all(low < high for low, high in pairwise(column.edges)) or not all(map(math.isfinite, column.edges)):
        return "its edges do not ascend"
    if len(column.counts) != bins + 3 or len(column.means) != bins + 2 or min(column.counts) < 0:
        return f"{bins} bins go with {bins + 3} counts and {bins + 2} means, none of the counts negative"
    inner = column.coarse
    if len(inner) < 2 or inner[0] != 0 or inner[-1] != bins or not all(a < b for a, b in pairwise(inner)):
        return f"its coarse edges do not ascend from 0 to {bins}"
    return None


def _categorical_problem(column: CategoricalColumn) -> str | None:
    bins = len(column.categories) + 3
    if len(column.counts) != bins or min(column.counts) < 0:
        return f"{len(column.categories)} categories go with {bins} counts, none negative"
    listed = (*column.categories, *column.rare)
    if len(set(listed)) != len(listed):
        return "a category is there twice"
    return None
