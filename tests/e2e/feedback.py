"""Predictions with labels, baselines that the real command builds of them, and the counts that they must come to."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e.conftest import Exporter, Series, poll

SECONDS = 20.0
WINDOW = "5m"
OF = {"model": "churn"}
Cells = Counter[tuple[str, str]]


class Binary:
    """Scores that are the share of positives among their like, and labels, 0 or 1, drawn from them."""

    def __init__(self, seed: int, rows: int, name: str = "r") -> None:
        draw = np.random.default_rng(seed)
        self.x = draw.normal(0, 1, rows).round(3)
        self.scores: NDArray[np.float64] = (1 / (1 + np.exp(-1.5 * self.x))).round(6)
        self.labels: NDArray[np.int64] = (draw.random(rows) < self.scores).astype(np.int64)
        self.ids = [f"{name}-{i}" for i in range(rows)]

    def columns(self, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """A request of samples in column form, without its model."""
        rows = slice(begin, end)
        return {
            "columns": {
                "id": self.ids[rows],
                "features": {"x": self.x[rows].tolist()},
                "prediction": self.scores[rows].tolist(),
            }
        }

    def truth(self, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """A request of labels in column form, without its model."""
        return {"columns": {"id": self.ids[begin:end], "label": self.labels[begin:end].tolist()}}

    def cells(self, begin: int = 0, end: int | None = None) -> Cells:
        """Rows by predicted and actual class."""
        return cells_of((self.scores[begin:end] >= 0.5).astype(int).tolist(), self.labels[begin:end].tolist())

    def baseline(self, folder: Path, name: str = "binary") -> str:
        """The baseline of these rows; its file name."""
        rows = zip(self.x.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return built(folder, name, [{"x": x, "prediction": score, "label": label} for x, score, label in rows])


def cells_of(predicted: Sequence[object], actual: Sequence[object]) -> Cells:
    """Rows by predicted and actual class, which are as they are exported."""
    return Counter((str(a), str(b)) for a, b in zip(predicted, actual, strict=True))


def built(folder: Path, name: str, rows: Sequence[dict[str, Any]], *options: str) -> str:
    """Have `mlexporter baseline build` make a baseline of JSONL; its file name."""
    data, output = folder / f"{name}.jsonl", folder / f"{name}.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "mlexporter", "baseline", "build", str(data), "-o", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return output.name


def model(name: str, baseline: str, version: str = "1", task: str = "binary", **more: Any) -> dict[str, Any]:
    """A model of a configuration."""
    return {"name": name, "version": version, "task": task, "baseline": baseline, **more}


def config_of(*models: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"models": list(models), "windows": [WINDOW, "1h"], **more}


def outcomes(series: Series, model: str, version: str = "1", *, net: bool = True) -> Cells:
    """Counted outcomes by predicted and actual class, less what corrections took back unless only that is asked."""
    cells: Cells = Counter()
    for (name, labels), value in series.items():
        own = dict(labels)
        sign = {"mlexporter_outcomes_total": 1, "mlexporter_outcomes_retracted_total": -1}.get(name, 0)
        if sign and (own["model"], own["version"]) == (model, version) and (net or sign > 0):
            cells[own["predicted"], own["actual"]] += sign * int(value)
    return +cells


def tracked(exporter: Exporter, model: str, rows: int, seconds: float = SECONDS) -> None:
    """Wait until so many predictions are written down: they are answered before that."""
    poll(
        lambda: exporter.total("mlexporter_predictions_tracked_total", model=model) >= rows,
        seconds,
        lambda: f"{exporter.total('mlexporter_predictions_tracked_total', model=model)} of {rows}: {exporter.log()}",
    )


def kept(exporter: Exporter, content: object, seconds: float = SECONDS, **headers: str) -> list[int]:
    """Send labels again and again until they are written down; the codes of the answers before."""
    codes: list[int] = []

    def sent() -> bool:
        answer = exporter.label(content, **headers)
        if answer.status_code == 200:
            return True
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), answer.text
        codes.append(answer.status_code)
        return False

    poll(sent, seconds, exporter.log)
    return codes


def value_of(series: Series, metric: str, **labels: str) -> float | None:
    """The value of the one series with exactly these labels; None where there is none."""
    return series.get((metric, frozenset(labels.items())))


# -- of the one model `churn`, whose store has its troubles ------------------------------------------------------------


def send(exporter: Exporter, data: Binary, begin: int = 0, end: int | None = None, step: int = 5000) -> None:
    """Send samples, which are accepted whatever happens to the store."""
    last = len(data.ids) if end is None else end
    for first in range(begin, last, step):
        answer = exporter.post(OF | data.columns(first, min(first + step, last)))
        assert (answer.status_code, answer.json()["accepted"]) == (200, min(first + step, last) - first)


def holds(exporter: Exporter, cells: Cells) -> None:
    """These outcomes are counted, neither more nor less."""
    page = exporter.scrape()
    assert outcomes(page, "churn", net=False) == cells
    assert exporter.total("mlexporter_labels_total", **OF) == cells.total()
    assert exporter.total("mlexporter_labels_corrected_total", **OF) == 0
    assert exporter.total("mlexporter_labels_invalid_total", **OF) == 0


def is_up(exporter: Exporter) -> bool:
    return exporter.total("mlexporter_pending_store_up") == 1


def goes_down(exporter: Exporter) -> None:
    poll(lambda: not is_up(exporter), SECONDS, exporter.log)
    assert exporter.total("mlexporter_pending_store_errors_total") >= 1


def comes_back(exporter: Exporter) -> None:
    """It recovers by itself, and writes what waited in memory."""
    poll(
        lambda: is_up(exporter) and exporter.total("mlexporter_pending_queue_rows") == 0,
        SECONDS,
        lambda: f"{exporter.total('mlexporter_pending_queue_rows')} rows wait: {exporter.log()}",
    )


def refused(exporter: Exporter, content: object) -> None:
    """Labels that cannot be written down are not accepted."""
    answer = exporter.label(content)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), answer.text
    assert answer.json()["reason"] in ("store_unavailable", "overloaded")
