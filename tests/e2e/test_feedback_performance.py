"""Every figure of performance on the page of the real exporter, against scikit-learn on the same rows."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

from e2e.conftest import Exporter, Series, Start, poll
from e2e.feedback import SECONDS, WINDOW, Binary, built, config_of, kept, model

Figures = dict[tuple[str, str | None], float]
"""By name and class, which is None where a figure has none."""

EXACT = 1e-9
NEAR = 1e-3  # of areas from bins, V8
CLASSES = ("ant", "bee", "cat", "dog")
TENTHS = [i / 10 for i in range(1, 10)]


def figures_on(page: Series, kind: str, **labels: str) -> Figures:
    """The gauges `mlexporter_performance_<kind><name>` with these labels, standard errors apart."""
    found: Figures = {}
    for (name, given), value in page.items():
        own = dict(given)
        figure = name.removeprefix(f"mlexporter_performance_{kind}")
        if name == figure or figure.startswith(("baseline_", "estimated_", "gap_", "standard_error")):
            continue
        if labels.items() <= own.items() and figure not in ("outcomes", "baseline_outcomes"):
            found[figure, own.get("class")] = value
    return found


def calibration_error(confidence: NDArray[np.float64], right: NDArray[Any]) -> float:
    """Expected calibration error over ten bins (0.1 k, 0.1 (k + 1)]."""
    bins = np.searchsorted(TENTHS, confidence, side="left")
    gaps = [abs((confidence - right)[bins == b].sum()) for b in range(10)]
    return float(sum(gaps) / len(confidence))


def binned(scores: NDArray[np.float64], edges: list[float]) -> NDArray[np.intp]:
    """Scores by the bin that they are in."""
    return np.searchsorted(edges, scores, side="left")


def edges_of(path: Path) -> list[list[float]]:
    found: list[list[float]] = orjson.loads(path.read_bytes())["outcomes"]["score_edges"]
    return found


def of_binary(scores: NDArray[np.float64], labels: NDArray[Any], threshold: float, edges: list[float]) -> Figures:
    said = (scores >= threshold).astype(int)
    tied = binned(scores, edges)
    return {
        ("accuracy_ratio", None): sk.accuracy_score(labels, said),
        ("precision_ratio", None): sk.precision_score(labels, said),
        ("recall_ratio", None): sk.recall_score(labels, said),
        ("f1_ratio", None): sk.f1_score(labels, said),
        ("roc_auc_ratio", None): sk.roc_auc_score(labels, tied),
        ("pr_auc_ratio", None): sk.average_precision_score(labels, tied),
        ("log_loss", None): sk.log_loss(labels, scores),
        ("brier_score", None): sk.brier_score_loss(labels, scores),
        ("calibration_error_ratio", None): calibration_error(scores, labels),
    }


def of_classes(said: ArrayLike, labels: ArrayLike) -> Figures:
    expected: Figures = {("accuracy_ratio", None): sk.accuracy_score(labels, said)}
    for average in (None, "macro", "weighted"):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            labels, said, labels=CLASSES, average=average, zero_division=0
        )
        for figure, value in (("precision_ratio", precision), ("recall_ratio", recall), ("f1_ratio", f1)):
            for name, one in zip((f"__{average}__",) if average else CLASSES, np.atleast_1d(value), strict=True):
                expected[figure, name] = float(one)
    return expected


def of_probabilities(given: NDArray[np.float64], labels: NDArray[Any], edges: list[list[float]]) -> Figures:
    """Of (n, 4) probabilities and (n,) classes by number; `edges` by class."""
    said = given.argmax(axis=1)
    expected = of_classes(np.array(CLASSES)[said], np.array(CLASSES)[labels])
    truth = np.eye(len(CLASSES))[labels]
    tied = np.column_stack([binned(given[:, k], edges[k]) for k in range(len(CLASSES))])
    for figure, score in (("roc_auc_ratio", sk.roc_auc_score), ("pr_auc_ratio", sk.average_precision_score)):
        for k, name in enumerate(CLASSES):
            expected[figure, name] = float(score(truth[:, k], tied[:, k]))
        for average in ("macro", "weighted"):
            expected[figure, f"__{average}__"] = float(score(truth, tied, average=average))
    expected["log_loss", None] = sk.log_loss(labels, given)
    expected["brier_score", None] = float(((given - truth) ** 2).sum(axis=1).mean())
    expected["calibration_error_ratio", None] = calibration_error(given.max(axis=1), said == labels)
    return expected


def of_numbers(said: NDArray[np.float64], labels: NDArray[np.float64]) -> Figures:
    there = labels != 0
    return {
        ("mean_absolute_error", None): sk.mean_absolute_error(labels, said),
        ("root_mean_squared_error", None): sk.root_mean_squared_error(labels, said),
        ("mean_error", None): float((said - labels).mean()),
        ("r2_ratio", None): sk.r2_score(labels, said),
        ("mean_absolute_percentage_error_ratio", None): sk.mean_absolute_percentage_error(labels[there], said[there]),
    }


def matches(found: Figures, expected: Figures) -> None:
    """The same figures, with the same values, but for bounds, which only the page has."""
    assert {key for key in found if key[0] != "roc_auc_error_bound_ratio"} == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=EXACT, abs=EXACT), key


def near(found: Figures, of: str | None, area: float, precision: float) -> None:
    """Areas from bins against those of the scores themselves; nobody promises much of that under precision."""
    off = abs(found["roc_auc_ratio", of] - area)
    assert off <= min(found["roc_auc_error_bound_ratio", of] + 1e-12, NEAR)
    assert off > 0 or found["roc_auc_error_bound_ratio", of] == 0
    assert found["pr_auc_ratio", of] == pytest.approx(precision, abs=20 * NEAR)


def sent(exporter: Exporter, name: str, predictions: list[Any], labels: list[Any]) -> None:
    """Predictions by column, and their labels in another order."""
    ids = [f"{name}{i}" for i in range(len(labels))]
    columns = {"id": ids, "features": {"x": [0] * len(ids)}, "prediction": predictions}
    assert exporter.post({"model": name, "columns": columns}).json()["accepted"] == len(ids)
    kept(exporter, {"model": name, "columns": {"id": ids[::-1], "label": labels[::-1]}})
    poll(lambda: exporter.total("mlexporter_labels_total", model=name) == len(ids), SECONDS, exporter.log)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_binary(start_exporter: Start, tmp_path: Path, threshold: float) -> None:
    training, live = Binary(40, 8000), Binary(41, 5000)
    live.labels[:700] = 1 - live.labels[:700]
    words = ["no", "yes"]
    rows = [
        {"x": 0, "prediction": score, "label": words[label]}
        for score, label in zip(training.scores.tolist(), training.labels.tolist(), strict=True)
    ]
    own = model("m", "words.json", prediction={"threshold": threshold, "classes": words})
    (tmp_path / "build.yml").write_text(json.dumps(config_of(own)))
    name = built(tmp_path, "words", rows, f"--config.file={tmp_path}/build.yml")
    exporter = start_exporter(config=config_of(own))
    sent(exporter, "m", live.scores.tolist(), [words[label] for label in live.labels])
    page, (edges,) = exporter.scrape(), edges_of(tmp_path / name)
    found = figures_on(page, "", window=WINDOW)
    matches(found, of_binary(live.scores, live.labels, threshold, edges))
    assert found == figures_on(page, "", window="1h")
    area, precision = (score(live.labels, live.scores) for score in (sk.roc_auc_score, sk.average_precision_score))
    near(found, None, area, precision)
    matches(figures_on(page, "baseline_"), of_binary(training.scores, training.labels, threshold, edges))
    rows_of = {"": 5000, "baseline_": 8000}
    for kind, count in rows_of.items():
        assert exporter.total(f"mlexporter_performance_{kind}outcomes", **({} if kind else {"window": WINDOW})) == count
    error = exporter.total("mlexporter_performance_standard_error", figure="accuracy_ratio", window=WINDOW)
    right = found["accuracy_ratio", None]
    assert error == pytest.approx(math.sqrt(right * (1 - right) / 5000), rel=1e-9)


def four_classes(seed: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, 4) probabilities, in parts of 4096 so that they add to 1 exactly, and the class of each row."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet([1.2, 0.9, 0.6, 0.3], rows)
    parts = np.stack([draw.multinomial(4096, share) for share in shares]) / 4096
    labels = np.array([draw.choice(4, p=share) for share in shares])
    return parts, labels


def test_four_classes_with_probabilities(start_exporter: Start, tmp_path: Path) -> None:
    def sayings(given: NDArray[np.float64]) -> list[dict[str, float]]:
        return [dict(zip(CLASSES, row, strict=True)) for row in given.tolist()]

    training, live = four_classes(50, 6000), four_classes(51, 4000)
    rows = [
        {"x": 0, "prediction": said, "label": CLASSES[label]}
        for said, label in zip(sayings(training[0]), training[1], strict=True)
    ]
    name = built(tmp_path, "four", rows)
    exporter = start_exporter(config=config_of(model("m", name, task="multiclass")))
    sent(exporter, "m", sayings(live[0]), [CLASSES[label] for label in live[1]])
    page = exporter.scrape()
    profile = orjson.loads((tmp_path / name).read_bytes())["outcomes"]
    by_class = dict(zip(profile["classes"], profile["score_edges"], strict=True))
    edges = [by_class[of] for of in CLASSES]
    found = figures_on(page, "", window=WINDOW)
    matches(found, of_probabilities(*live, edges))
    matches(figures_on(page, "baseline_"), of_probabilities(*training, edges))
    truth = np.eye(4)[live[1]]
    for k, of in enumerate(CLASSES):
        area = float(sk.roc_auc_score(truth[:, k], live[0][:, k]))
        near(found, of, area, float(sk.average_precision_score(truth[:, k], live[0][:, k])))
    for average in ("macro", "weighted"):
        area = float(sk.roc_auc_score(truth, live[0], average=average))
        precision = float(sk.average_precision_score(truth, live[0], average=average))
        near(found, f"__{average}__", area, precision)


def test_four_classes_as_text(start_exporter: Start, tmp_path: Path) -> None:
    draw = np.random.default_rng(60)

    def rows(count: int) -> tuple[list[str], list[str]]:
        labels = draw.choice(CLASSES, count, p=[0.4, 0.3, 0.2, 0.1])
        said = np.where(draw.random(count) < 0.7, labels, draw.choice(CLASSES[:3], count))
        return said.tolist(), labels.tolist()

    training, live = rows(3000), rows(2000)
    of_training = [{"x": 0, "prediction": said, "label": label} for said, label in zip(*training, strict=True)]
    exporter = start_exporter(config=config_of(model("m", built(tmp_path, "text", of_training), task="multiclass")))
    sent(exporter, "m", *live)
    page = exporter.scrape()
    matches(figures_on(page, "", window=WINDOW), of_classes(*live))
    matches(figures_on(page, "baseline_"), of_classes(*training))


def test_regression(start_exporter: Start, tmp_path: Path) -> None:
    def rows(seed: int, count: int, shift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        draw = np.random.default_rng(seed)
        labels = np.where(draw.random(count) < 0.1, 0.0, draw.gamma(3.0, 20.0, count)).round(3)
        return (labels * 0.9 + draw.normal(3 + shift, 5, count)).round(3), labels

    training, live = rows(70, 3000, 0), rows(71, 2000, 4)
    data = [
        {"x": 0, "prediction": said, "label": label}
        for said, label in zip(training[0].tolist(), training[1].tolist(), strict=True)
    ]
    exporter = start_exporter(config=config_of(model("m", built(tmp_path, "numbers", data), task="regression")))
    sent(exporter, "m", live[0].tolist(), live[1].tolist())
    page = exporter.scrape()
    matches(figures_on(page, "", window=WINDOW), of_numbers(*live))
    matches(figures_on(page, "baseline_"), of_numbers(*training))
    # the same from the counters, which is what PromQL has over replicas
    total = exporter.total
    count = total("mlexporter_residuals_total")
    assert count == 2000
    over, under = (total("mlexporter_absolute_error_sum_total", direction=which) for which in ("over", "under"))
    assert (over + under) / count == pytest.approx(sk.mean_absolute_error(live[1], live[0]), rel=EXACT)
    assert (over - under) / count == pytest.approx((live[0] - live[1]).mean(), rel=EXACT)
    square = total("mlexporter_squared_error_sum_total") / count
    assert square == pytest.approx(sk.mean_squared_error(live[1], live[0]), rel=EXACT)
