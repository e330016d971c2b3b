"""Estimates of performance without labels, beside NannyML's on the data sets that NannyML brings along.

NannyML is not needed otherwise. In an environment of its own: `pip install . nannyml statsmodels` (NannyML 0.13.1
imports statsmodels without asking for it), then `python -m benchmarks estimation`.

NannyML calibrates the scores of a class only where that does better on ten random splits of the training data, drawn
from a fixed seed; we calibrate always. Where the draw decides against a class, its estimates are shown once more with
that class calibrated too, and how many of other seeds decide against any: what is apart then is the luck of one draw.
"""

import importlib
import os
import warnings
from functools import partial
from typing import Any, Final
from unittest import mock

import msgspec
import numpy as np

from benchmarks.harness import Report
from mlexporter.edges import Floats
from mlexporter.estimates import estimated
from mlexporter.outcome_profile import ClassProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.performance import MACRO, FigureValue, realised
from mlexporter.score_edges import score_edges

CHUNK: Final = 5000
METRICS: Final = ("roc_auc", "f1", "precision", "recall", "accuracy")
BUDGET: Final = 0.0015
SEEDS: Final = range(20)
"""Of the splits on which NannyML decides whether to calibrate; it ships with 42."""
CARDS: Final = tuple(f"{kind}_card" for kind in ("prepaid", "highstreet", "upmarket"))


class Data(msgspec.Struct, frozen=True):
    """Frames of training data, and of live data with their labels; the columns that NannyML is told of."""

    name: str
    reference: Any
    live: Any
    label: str
    scores: Any

    @property
    def is_binary(self) -> bool:
        return isinstance(self.scores, str)

    def predictions(self, frame: Any) -> list[Any]:
        """As they are sent to the exporter."""
        if self.is_binary:
            return list(frame[self.scores].tolist())
        columns = [frame[column].tolist() for column in self.scores.values()]
        return [dict(zip(self.scores, row, strict=True)) for row in zip(*columns, strict=True)]

    def labels(self, frame: Any) -> list[Any]:
        return list(frame[self.label].tolist())


def data_sets(nannyml: Any) -> list[Data]:
    def data(name: str, frames: Any, label: str, scores: Any) -> Data:
        reference, live, labels = frames
        return Data(name, reference, live.assign(**{label: labels[label].to_numpy()}), label, scores)

    cards = {card: f"y_pred_proba_{card}" for card in CARDS}
    return [
        data("car loan", nannyml.load_synthetic_car_loan_dataset(), "repaid", "y_pred_proba"),
        data(
            "work from home",
            nannyml.load_synthetic_binary_classification_dataset(),
            "work_home_actual",
            "y_pred_proba",
        ),
        data("credit cards (macro)", nannyml.load_synthetic_multiclass_classification_dataset(), "y_true", cards),
    ]


def binner_of(data: Data) -> OutcomeBinner:
    """With the profile of the training data."""
    frame = data.reference
    if data.is_binary:
        threshold = float(frame.loc[frame["y_pred"] == 1, data.scores].min())
        scores = frame[data.scores].to_numpy()
        profile = ClassProfile(
            task="binary", classes=("0", "1"), threshold=threshold, score_edges=(score_edges(scores, threshold),)
        )
    else:
        columns = frame[list(data.scores.values())].to_numpy()
        profile = ClassProfile(
            task="multiclass",
            classes=tuple(data.scores),
            score_edges=tuple(score_edges(own) for own in columns.T),
            confidence_edges=score_edges(columns.max(axis=1)),
        )
    counts = OutcomeBinner(profile).count(data.predictions(frame), data.labels(frame))
    return OutcomeBinner(
        msgspec.structs.replace(
            profile, rows=counts.rows, bins=tuple(counts.bins.tolist()), sums=tuple(counts.sums.tolist())
        )
    )


def row_of(values: list[FigureValue], *, is_binary: bool) -> list[float]:
    """In the order of `METRICS`."""
    named = {(value.figure, value.of_class): value.value for value in values}
    of_class = None if is_binary else MACRO
    return [named[f"{metric}_ratio", None if metric == "accuracy" else of_class] for metric in METRICS]


def tables(data: Data) -> tuple[Floats, Floats]:
    """(chunks, metrics) what we estimate, and what labels show."""
    binner = binner_of(data)
    ours, shown = [], []
    for start in range(0, len(data.live), CHUNK):
        chunk = data.live.iloc[start : start + CHUNK]
        predictions = data.predictions(chunk)
        ours.append(row_of(estimated(binner, binner.count_scores(predictions)), is_binary=data.is_binary))
        shown.append(row_of(realised(binner, binner.count(predictions, data.labels(chunk))), is_binary=data.is_binary))
    return np.array(ours), np.array(shown)


def peer_table(nannyml: Any, data: Data) -> Floats:
    """(chunks, metrics) what NannyML estimates."""
    problem = "classification_binary" if data.is_binary else "classification_multiclass"
    peer = nannyml.CBPE(
        metrics=list(METRICS),
        y_pred_proba=data.scores,
        y_true=data.label,
        y_pred="y_pred",
        problem_type=problem,
        chunk_size=CHUNK,
    )
    peer.fit(data.reference)
    result = peer.estimate(data.live.drop(columns=data.label)).filter(period="analysis").to_df()
    return np.stack([result[(metric, "value")].to_numpy(dtype=np.float64) for metric in METRICS], axis=1)


def calibrating_seeds(data: Data) -> int:
    """Of `SEEDS`, how many have NannyML calibrate the scores of every class."""
    calibration = importlib.import_module("nannyml.calibration")
    splits = calibration.StratifiedShuffleSplit
    columns = {1: data.scores} if data.is_binary else data.scores
    labels, count = data.reference[data.label], 0
    for seed in SEEDS:
        seeded = partial(_seeded, splits, seed)
        with mock.patch.object(calibration, "StratifiedShuffleSplit", seeded):
            count += all(
                calibration.needs_calibration(
                    (labels == name).to_numpy(dtype=np.int64),
                    data.reference[column].to_numpy(),
                    calibration.IsotonicCalibrator(),
                )
                for name, column in columns.items()
            )
    return count


def _seeded(splits: Any, seed: int, **options: Any) -> Any:
    return splits(**{**options, "random_state": seed})


def compare(report: Report, nannyml: Any, data: Data) -> None:
    """Rows of one data set."""
    ours, shown = tables(data)
    theirs = peer_table(nannyml, data)
    _add_rows(report, data.name, ours, theirs, shown)
    with mock.patch("nannyml.performance_estimation.confidence_based.cbpe.needs_calibration", return_value=True):
        calibrated = peer_table(nannyml, data)
    if np.array_equal(calibrated, theirs):
        return
    _add_rows(report, f"{data.name}, all calibrated", ours, calibrated, shown)
    themselves = np.abs(calibrated - theirs).max(axis=0)
    report.add(
        f"{data.name}: seeds that calibrate every class",
        f"{calibrating_seeds(data)} of {len(SEEDS)}",
        peer="NannyML with them and as it ships, largest distance: "
        + ", ".join(f"{metric} {apart:.4f}" for metric, apart in zip(METRICS, themselves, strict=True)),
    )


def _add_rows(report: Report, name: str, ours: Floats, theirs: Floats, shown: Floats) -> None:
    apart, our_error, their_error = np.abs(ours - theirs), np.abs(ours - shown), np.abs(theirs - shown)
    for i, metric in enumerate(METRICS):
        report.add(
            f"{name}: {metric}",
            f"{apart[:, i].mean():.4f} / {apart[:, i].max():.4f}",
            f"{BUDGET}",
            f"off the labels: ours {our_error[:, i].mean():.4f} / {our_error[:, i].max():.4f}, "
            f"NannyML {their_error[:, i].mean():.4f} / {their_error[:, i].max():.4f}",
        )


def run(report: Report) -> None:
    """All of them."""
    os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")  # else NannyML tells its makers of every call
    try:
        nannyml = importlib.import_module("nannyml")
    except ImportError as error:
        print(f"\nEstimates without labels: not compared, for NannyML is not here ({error}).\n{__doc__}")
        return
    report.heading(
        f"Estimates without labels in chunks of {CHUNK}: mean / largest distance to NannyML {nannyml.__version__}"
    )
    for data in data_sets(nannyml):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compare(report, nannyml, data)
