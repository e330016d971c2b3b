"""Predictions and labels of the training data, to the profile that live outcomes are held against.

Rows are kept, packed, until they take 32 MiB, which is nearly two million scores with their labels; from these the task
is told and the edges are chosen. All further rows are only counted. So memory is bounded (some 200 MB), every count is
exact, and the same rows give the same profile however they are cut into chunks.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from mlexporter.binning import floats_of
from mlexporter.columns import Tally
from mlexporter.dataset import Chunk
from mlexporter.decode.rows import split_probabilities
from mlexporter.edges import Floats
from mlexporter.outcome_profile import (
    DEFAULT_THRESHOLD,
    MAX_CLASSES,
    ClassProfile,
    OutcomeProfile,
    ProfileError,
    RegressionProfile,
    sign_classes,
)
from mlexporter.outcomes import OutcomeBinner
from mlexporter.samples import LABEL_COLUMN, PREDICTION_COLUMN, Role
from mlexporter.scalars import listed, shown
from mlexporter.score_edges import score_edges

Task = Literal["binary", "multiclass", "regression"]
Block = tuple[list[Any], list[Any]]
"""Predictions, and the label of each."""

_KEPT_BYTES: Final = 32 << 20
# Sums are taken block by block, so that they have the same bits whatever chunks the rows came in.
_BLOCK_ROWS: Final = 65_536
# Scores from which edges are chosen, of all classes together.
_MOST_SCORES: Final = 4_000_000
# Labels with more different values than this are no classes.
_MOST_NAMES: Final = 1000
# Predictions are numbers if at least this share of them are.
_NUMERIC_SHARE: Final = 0.95
_DECILES: Final = tuple(i / 10 for i in range(1, 10))
# No residual is larger for the counts, either, so that no power of one overflows.
_LARGEST: Final = 1e69
_VALUES: Final = frozenset((str, int, float, bool, dict))
# A draft only says that there are scores; edges come later.
_NO_EDGES: Final = (math.nextafter(0.0, -math.inf), 1.0)


class OutcomeProfiler:
    """Builds the profile of the outcomes of training data.

    Attributes:
        warnings: what people should know, once there is a result.

    """

    def __init__(
        self, task: Task | None = None, classes: tuple[str, ...] | None = None, threshold: float | None = None
    ) -> None:
        """Take what is known of the model; None is what the data shall tell.

        Args:
            task: of the model.
            classes: of a binary model the negative one and the positive one.
            threshold: score from which on a binary model says the positive class.

        """
        self.warnings: list[str] = []
        self._task = task
        self._classes = classes
        self._threshold = threshold
        self._waiting: Block = ([], [])
        self._kept: list[bytes] = []
        self._bytes = 0
        self._invalid = 0
        self._binner: OutcomeBinner | None = None
        self._given_up = False

    def add(self, predictions: Sequence[object] | Floats, labels: Sequence[object] | Floats) -> None:
        """Add rows, in the order of the data.

        A row without a prediction or a label is left out.

        Args:
            predictions: numbers, classes, or objects of class to probability; None or NaN where missing.
            labels: as many numbers, texts or booleans.

        Raises:
            ProfileError: as of `result`.

        """
        given, actual = self._waiting
        for prediction, label in zip(_as_list(predictions), _as_list(labels), strict=True):
            if prediction is None or label is None or prediction != prediction or label != label:
                continue
            if type(prediction) in _VALUES and type(label) in _VALUES:
                given.append(prediction)
                actual.append(label)
            else:
                self._invalid += 1
        while len(given) >= _BLOCK_ROWS:
            self._take((given[:_BLOCK_ROWS], actual[:_BLOCK_ROWS]))
            del given[:_BLOCK_ROWS], actual[:_BLOCK_ROWS]

    def add_chunk(self, chunk: Chunk) -> None:
        """Add the rows of a chunk of a data file; see `add`."""
        labels = chunk.columns.get((Role.LABEL, LABEL_COLUMN))
        predictions = chunk.columns.get((Role.PREDICTION, PREDICTION_COLUMN))
        if labels is not None and predictions is not None:
            self.add(predictions if chunk.predictions is None else chunk.predictions, labels)

    def result(self) -> OutcomeProfile | None:
        """The profile; None where there is no row with a prediction and a label of use. Nothing can be added then.

        Raises:
            ProfileError: the task is said to be binary, and nothing says which class is the positive one.

        """
        if self._waiting[0]:
            self._take(self._waiting)
        if self._binner is None and self._kept:
            self._settle()
        if self._binner is None:
            return None
        counts, profile = self._counts, self._binner.profile
        invalid = self._invalid + counts.invalid
        if invalid:
            self.warnings.append(f"{_unusable(profile)}: {invalid:,} of {invalid + counts.rows:,} rows are not counted")
        if not counts.rows:
            return None
        bins, sums = tuple(counts.bins.tolist()), tuple(counts.sums.tolist())
        return msgspec.structs.replace(profile, rows=counts.rows, bins=bins, sums=sums)

    def _take(self, block: Block) -> None:
        if self._given_up:
            return
        if self._binner is not None:
            self._counts += self._binner.count(*block)
            return
        self._kept.append(msgspec.msgpack.encode(block))
        self._bytes += len(self._kept[-1])
        if self._bytes > _KEPT_BYTES:
            self._settle()

    def _blocks(self) -> Iterator[Block]:
        return (msgspec.msgpack.decode(block, type=tuple[list[Any], list[Any]]) for block in self._kept)

    def _settle(self) -> None:
        """Fix the profile by what is kept, and count that."""
        try:
            draft = self._draft(_Survey.of(self._blocks()))
        except ProfileError as error:
            if self._task is not None:
                raise
            # nobody asked for outcomes: the baseline is of use without
            self.warnings.append(f"no outcomes: {error}")
            self._given_up, self._kept = True, []
            return
        if isinstance(draft, RegressionProfile):
            profile: OutcomeProfile = _regression_edges(self._blocks())
        else:
            profile = _class_edges(draft, self._blocks()) if draft.score_edges else draft
        self._binner = OutcomeBinner(profile)
        self._counts = self._binner.zero()
        for block in self._blocks():
            self._counts += self._binner.count(*block)
        self._kept = []

    def _draft(self, survey: "_Survey") -> OutcomeProfile:
        """Task and classes."""
        task = self._task or _task_of(survey, self._classes, self._threshold)
        if task == "regression":
            return RegressionProfile()
        if task == "multiclass":
            classes = self._classes or survey.classes()
            edges = (_NO_EDGES,) * len(classes) if survey.objects else ()
            return ClassProfile(
                task=task, classes=classes, score_edges=edges, confidence_edges=_NO_EDGES if edges else ()
            )
        threshold = DEFAULT_THRESHOLD if self._threshold is None else self._threshold
        scored = survey.objects or survey.fractions or 0 < survey.numbers == survey.inside
        return ClassProfile(
            task=task,
            classes=self._classes or _two_classes(survey),
            threshold=threshold,
            score_edges=(_NO_EDGES,) if scored else (),
        )


def _as_list(values: Sequence[object] | Floats) -> Sequence[object]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _unusable(profile: OutcomeProfile) -> str:
    """What is wrong with rows that are not counted."""
    if isinstance(profile, RegressionProfile):
        return "outcomes: a prediction or a label is no number, as task regression needs"
    if profile.task == "multiclass":
        return "outcomes: a prediction or a label is no class"
    classes = " or ".join(map(shown, profile.classes))
    return f"outcomes: a label is not {classes}, or a prediction neither that nor a score from 0 to 1"


class _Survey(msgspec.Struct):
    """What kinds of predictions and labels there are.

    Attributes:
        rows: how many.
        numbers: predictions that are numbers.
        inside, fractions: numbers from 0 to 1, and those of them that are neither.
        objects: predictions that are objects of class to probability.
        labels, said: rows per class, of the first classes that were met.
        named: classes that have a probability.

    """

    rows: int = 0
    numbers: int = 0
    inside: int = 0
    fractions: int = 0
    objects: int = 0
    labels: Counter[str] = msgspec.field(default_factory=Counter)
    said: Counter[str] = msgspec.field(default_factory=Counter)
    named: set[str] = msgspec.field(default_factory=set)

    @staticmethod
    def of(blocks: Iterable[Block]) -> "_Survey":
        survey = _Survey()
        for predictions, labels in blocks:
            survey.add(predictions, labels)
        return survey

    def add(self, predictions: list[Any], labels: list[Any]) -> None:
        numbers = [value for value in predictions if type(value) in (int, float)]
        self.rows += len(predictions)
        self.numbers += len(numbers)
        self.inside += sum(0 <= value <= 1 for value in numbers)
        self.fractions += sum(0 < value < 1 for value in numbers)
        objects = [value for value in predictions if type(value) is dict]
        self.objects += len(objects)
        if len(self.named) <= _MOST_NAMES:
            self.named.update(*objects)
        classes = [value for value in split_probabilities(predictions)[0] or () if type(value) is not dict]
        for values, counted in ((labels, self.labels), (classes, self.said)):
            if len(counted) <= _MOST_NAMES:
                values = [value for value in values if type(value) is not dict]
                counted.update(Tally.of(values, boolean=False).categories)

    @property
    def numeric(self) -> bool:
        """Whether predictions are numbers, but for a few that are wrong."""
        return self.numbers >= _NUMERIC_SHARE * self.rows

    def classes(self) -> tuple[str, ...]:
        """The classes to be told apart: those of the labels, then those that are predicted, the most frequent first."""
        names = sorted(self.labels.keys() | self.said.keys() | self.named)
        names.sort(key=lambda name: (self.labels[name], self.said[name]), reverse=True)
        return tuple(names[:MAX_CLASSES])


def _task_of(survey: _Survey, classes: tuple[str, ...] | None, threshold: float | None) -> Task:
    """The task that predictions and labels suggest; see docs/baselines.md."""
    if classes is not None:
        return "binary" if len(classes) == 2 else "multiclass"
    if threshold is not None:
        return "binary"
    if survey.numeric:
        two = len(survey.labels) == 2 or sign_classes(survey.labels) is not None
        return "binary" if survey.inside == survey.numbers and two else "regression"
    return "binary" if sign_classes(survey.labels.keys() | survey.said.keys()) is not None else "multiclass"


def _two_classes(survey: _Survey) -> tuple[str, ...]:
    """The negative and the positive class, where their names are signs of it."""
    names = sorted(survey.labels, key=lambda name: (-survey.labels[name], name))
    classes = sign_classes(names[:2])
    if classes is None:
        raise ProfileError(
            f"which of the labels {listed(names)} is the positive class is not known; set prediction.classes of the "
            "model in the configuration, the negative one first"
        )
    return classes


def _class_edges(draft: ClassProfile, blocks: Iterator[Block]) -> ClassProfile:
    """The draft with edges at the quantiles of the scores; without where no prediction gives any."""
    binner = OutcomeBinner(draft)
    parts: list[Floats] = []
    for predictions, _ in blocks:
        part = binner.read_scores(predictions)
        parts.append(part[~np.isnan(part).any(axis=1)])
        if sum(part.size for part in parts) >= _MOST_SCORES:
            break
    scores = np.concatenate(parts)
    if not len(scores):
        return msgspec.structs.replace(draft, score_edges=(), confidence_edges=())
    threshold = draft.threshold if draft.task == "binary" else None
    return msgspec.structs.replace(
        draft,
        score_edges=tuple(score_edges(column, threshold) for column in scores.T),
        confidence_edges=score_edges(scores.max(axis=1)) if draft.confidence_edges else (),
    )


def _regression_edges(blocks: Iterator[Block]) -> RegressionProfile:
    """Edges at the deciles of the predictions and of the residuals."""
    rows = [np.column_stack([floats_of(values) for values in block]) for block in blocks]
    values = np.concatenate(rows)
    values = np.clip(values[np.isfinite(values).all(axis=1)], -_LARGEST, _LARGEST)
    predictions, labels = values.T
    return RegressionProfile(
        prediction_edges=_deciles(predictions),
        residual_edges=_deciles(predictions - labels),
        centre=float(labels.mean()) if len(labels) else 0.0,
    )


def _deciles(values: Floats) -> tuple[float, ...]:
    """The distinct inner deciles, each a value of the data, so that no bin is empty."""
    if not len(values):
        return ()
    edges = np.unique(np.quantile(values, _DECILES, method="inverted_cdf")) + 0.0
    return tuple(edges[edges < values.max()].tolist())
