"""Labels to the real exporter: what it makes of them is what scikit-learn and a count by hand make of the same rows."""

import json
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from e2e.conftest import Exporter, Start, exporters, poll
from e2e.feedback import (
    SECONDS,
    WINDOW,
    Binary,
    built,
    cells_of,
    config_of,
    kept,
    model,
    outcomes,
    tracked,
)

TRAINING = Binary(1, 6000, "t")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baselines of a model with scores and of one that has classes only."""
    folder = tmp_path_factory.mktemp("profiles")
    TRAINING.baseline(folder)
    rows = [{"x": i, "prediction": ["cat", "dog"][i % 2], "label": ["cat", "dog", "cow"][i % 3]} for i in range(600)]
    built(folder, "classes", rows)
    return folder


@pytest.fixture
def churn(start_exporter: Start, tmp_path: Path, profiles: Path) -> Exporter:
    """Two versions of the one model, and the other one."""
    scores = str(profiles / "binary.json")
    pets = model("pets", str(profiles / "classes.json"), task="multiclass")
    models = model("churn", scores), model("churn", scores, "2"), pets
    return start_exporter(f"--storage.path={tmp_path}/state", config=config_of(*models))


def test_every_form_of_samples_and_labels(churn: Exporter) -> None:
    data = Binary(2, 4000)
    ids, scores = data.ids, data.scores.tolist()
    of = {"model": "churn", "version": "1"}
    rows = [{"id": i, "features": {"x": 0}, "prediction": score} for i, score in zip(ids, scores, strict=True)]
    assert churn.post(of | data.columns(0, 1000)).json()["accepted"] == 1000
    assert churn.post(of | {"samples": rows[1000:2000]}).json()["accepted"] == 1000
    for row in rows[2000:2050]:
        assert churn.post(of | row).json()["accepted"] == 1
    lines = "\n".join(json.dumps(of | row) for row in rows[2050:4000]).encode()
    assert churn.post(lines, Content_Type="application/x-ndjson").json()["accepted"] == 1950
    tracked(churn, "churn", 4000)
    order = random.Random(1).sample(range(4000), 4000)
    truth: list[Any] = [int(label) for label in data.labels]
    for i in order[:1500]:  # the same said in other words
        truth[i] = [truth[i], float(truth[i]), str(truth[i]), bool(truth[i])][i % 4]
    told = [{"id": ids[i], "label": truth[i]} for i in order]
    parts: list[tuple[Any, dict[str, str], int]] = [
        ({"model": "churn", "labels": told[:1000]}, {}, 1000),
        (of | {"columns": {"id": [r["id"] for r in told[1000:2500]], "label": [r["label"] for r in told[1000:2500]]}},
         {}, 1500),
        ("\n".join(json.dumps({"model": "churn"} | row) for row in told[2500:3980]).encode(),
         {"Content_Type": "application/x-ndjson"}, 1480),
        *(({"model": "churn"} | row, {}, 1) for row in told[3980:]),
    ]  # fmt: skip
    for content, headers, size in parts:
        answer = churn.label(content, **headers)
        assert (answer.status_code, answer.json()) == (200, {"accepted": size, "rejected": 0, "errors": []})
    page = churn.scrape()
    assert outcomes(page, "churn") == data.cells()
    assert outcomes(page, "churn", "2") == Counter()
    for name, value in {"labels": 4000, "labels_repeated": 0, "labels_corrected": 0, "labels_invalid": 0}.items():
        assert churn.total(f"mlexporter_{name}_total", model="churn", version="1") == value
    assert churn.total("mlexporter_label_delay_seconds_count", model="churn") == 4000
    poll(lambda: churn.total("mlexporter_predictions_pending", model="churn") == 0, SECONDS)


def test_labels_that_come_with_samples_and_predictions_that_come_with_labels(churn: Exporter) -> None:
    data = Binary(3, 1000)
    scores, labels, of = data.scores.tolist(), data.labels.tolist(), {"model": "churn", "version": "1"}
    bare = [{"features": {"x": 0}, "prediction": scores[i], "label": labels[i]} for i in range(200)]
    assert churn.post(of | {"samples": bare}).json()["accepted"] == 200
    request = of | data.columns(200, 400)
    request["columns"]["label"] = labels[200:400]
    assert churn.post(request).json()["accepted"] == 200
    together = [{"prediction": scores[i], "label": labels[i]} for i in range(400, 600)]
    assert churn.label(of | {"labels": together}).json()["accepted"] == 200
    named = [{"id": data.ids[i], "prediction": scores[i], "label": labels[i]} for i in range(600, 1000)]
    assert churn.label(of | {"labels": named}).json()["accepted"] == 400
    poll(lambda: outcomes(churn.scrape(), "churn") == data.cells(), SECONDS)
    # those with an id count once, however often they come
    assert churn.post(request).json()["accepted"] == 200
    assert churn.label(of | {"labels": named}).json()["accepted"] == 400
    poll(lambda: churn.total("mlexporter_labels_repeated_total", model="churn") == 600, SECONDS)
    assert outcomes(churn.scrape(), "churn") == data.cells()
    assert churn.total("mlexporter_labels_total", model="churn") == 1000
    assert churn.total("mlexporter_predictions_tracked_total", model="churn") == 600


def test_labels_that_come_first_repeat_and_correct(churn: Exporter) -> None:
    data = Binary(4, 1200)
    of = {"model": "churn"}
    assert churn.label(of | data.truth()).json()["accepted"] == 1200
    poll(lambda: churn.total("mlexporter_labels_waiting", model="churn") == 1200, SECONDS)
    assert churn.total("mlexporter_labels_total", model="churn") == 0
    assert churn.post(of | {"version": "1"} | data.columns()).json()["accepted"] == 1200
    tracked(churn, "churn", 1200)
    assert outcomes(churn.scrape(), "churn") == data.cells()
    poll(lambda: churn.total("mlexporter_labels_waiting", model="churn") == 0, SECONDS)
    for _ in range(2):
        assert churn.label(of | data.truth(0, 500)).json()["accepted"] == 500
    assert outcomes(churn.scrape(), "churn") == data.cells()
    assert churn.total("mlexporter_labels_repeated_total", model="churn") == 1000
    # a correction counts anew in the counters, and in their place in the gauges
    first = data.cells()
    before = data.cells(0, 300)
    data.labels[:300] = 1 - data.labels[:300]
    assert churn.label(of | data.truth(0, 300)).json()["accepted"] == 300
    page = churn.scrape()
    assert outcomes(page, "churn") == data.cells()
    assert outcomes(page, "churn", net=False) == first + data.cells(0, 300)
    taken = outcomes(page, "churn", net=False)
    taken.subtract(outcomes(page, "churn"))
    assert +taken == before
    assert churn.total("mlexporter_labels_corrected_total", model="churn") == 300
    assert churn.total("mlexporter_labels_total", model="churn") == 1200
    right = float(((data.scores >= 0.5) == data.labels).mean())
    accuracy = churn.total("mlexporter_performance_accuracy_ratio", model="churn", window=WINDOW)
    assert accuracy == pytest.approx(right, abs=1e-12)
    net = churn.total("mlexporter_log_loss_sum_total", model="churn") - churn.total(
        "mlexporter_log_loss_sum_retracted_total", model="churn"
    )
    truth = np.where(data.labels == 1, data.scores, 1 - data.scores)
    assert net == pytest.approx(-np.log(truth).sum(), rel=1e-12)


def test_labels_that_match_nothing(churn: Exporter) -> None:
    data = Binary(5, 300)
    assert churn.post({"model": "churn", "version": "1"} | data.columns()).json()["accepted"] == 300
    unknown = [{"id": f"nobody-{i}", "label": 1} for i in range(100)]
    for _ in range(2):
        assert churn.label({"model": "churn", "labels": unknown}).json()["accepted"] == 100
    poll(lambda: churn.total("mlexporter_labels_waiting", model="churn") == 100, SECONDS)
    assert churn.total("mlexporter_labels_total") == 0
    nowhere = churn.label({"model": "nobody", "labels": unknown})
    assert nowhere.status_code == 404
    assert nowhere.json()["errors"][0]["reason"] == "unknown_model"
    mixed = {"model": "churn", "labels": [{"id": data.ids[0], "label": int(data.labels[0])}, {"id": "x"}, {"label": 1}]}
    answer = churn.label(mixed).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 2)
    assert [error["index"] for error in answer["errors"]] == [1, 2]
    # a label that is no class of the model, and a label of another version
    assert churn.label({"model": "churn", "labels": [{"id": data.ids[1], "label": "maybe"}]}).json()["accepted"] == 1
    assert churn.label({"model": "churn", "version": "2", "id": data.ids[2], "label": 1}).json()["accepted"] == 1
    page = churn.scrape()
    assert outcomes(page, "churn") == data.cells(0, 1)
    assert churn.total("mlexporter_labels_invalid_total", model="churn", version="1") == 1
    for body, code in ((b"{", 400), (b"[]", 400), (b'{"model":"churn"}', 400)):
        assert churn.label(body).status_code == code
    assert churn.label(b"x", Content_Type="text/plain").status_code == 415
    assert churn.get("/v1/labels").status_code == 405
    assert outcomes(churn.scrape(), "churn") == data.cells(0, 1)


def test_classes_as_text(churn: Exporter) -> None:
    draw = random.Random(6)
    said = [draw.choice(["cat", "dog", "cow"]) for _ in range(900)]
    actual = [draw.choice([name, "cat", "dog", "cow", "yeti"]) for name in said]
    ids = [f"p{i}" for i in range(900)]
    columns = {"id": ids, "features": {"x": [1] * 900}, "prediction": said}
    assert churn.post({"model": "pets", "columns": columns}).json()["accepted"] == 900
    assert churn.label({"model": "pets", "columns": {"id": ids, "label": actual}}).json()["accepted"] == 900
    tracked(churn, "pets", 900)
    exported = [name if name != "yeti" else "__other__" for name in actual]
    assert outcomes(churn.scrape(), "pets") == cells_of(said, exported)


def test_champion_and_challenger(churn: Exporter) -> None:
    """Both versions are asked of the same requests; the labels judge them."""
    data = Binary(7, 2000)
    other = np.where(np.random.default_rng(8).random(2000) < 0.3, 1 - data.scores, data.scores)
    assert churn.post({"model": "churn", "version": "1"} | data.columns()).json()["accepted"] == 2000
    request = {"model": "churn", "version": "2"} | data.columns(0, 1500)
    request["columns"]["prediction"] = other[:1500].tolist()
    assert churn.post(request).json()["accepted"] == 1500
    tracked(churn, "churn", 3500)
    champion, challenger = (data.scores >= 0.5).astype(int), (other >= 0.5).astype(int)
    agree = champion[:1500] == challenger[:1500]
    names = {"model": "churn", "version": "2", "previous_version": "1"}
    assert churn.total("mlexporter_version_agreement_total", **names, agree="true") == agree.sum()
    assert churn.total("mlexporter_version_agreement_total", **names, agree="false") == (~agree).sum()
    assert churn.total("mlexporter_version_right_total", **names) == 0
    assert churn.label({"model": "churn"} | data.truth(0, 1200)).json()["accepted"] == 1200
    mine, its = challenger[:1200] == data.labels[:1200], champion[:1200] == data.labels[:1200]
    expected = {"this": mine & ~its, "previous": its & ~mine, "both": its & mine, "neither": ~its & ~mine}
    for right, rows in expected.items():
        assert rows.sum() > 0 or right in ("both", "neither")
        assert churn.total("mlexporter_version_right_total", **names, right=right) == rows.sum(), right
    page = churn.scrape()
    assert outcomes(page, "churn", "1") == data.cells(0, 1200)
    assert outcomes(page, "churn", "2") == cells_of(challenger[:1200].tolist(), data.labels[:1200].tolist())
    assert churn.total("mlexporter_version_agreement_total", **names) == 1500


def test_nothing_is_served_back(churn: Exporter, tmp_path: Path) -> None:
    data = Binary(9, 1000, "jane.doe@example.com")
    of = {"model": "churn", "version": "1"}
    assert churn.post(of | data.columns()).json()["accepted"] == 1000
    assert churn.label(of | data.truth(0, 900)).json()["accepted"] == 900
    said = {"id": "jane.doe@example.com-1", "prediction": "jane.doe", "label": "jane.doe"}
    refused = churn.label(of | {"labels": [said, {"id": "jane.doe@example.com", "label": None}, {"id": ["jane.doe"]}]})
    assert refused.json()["rejected"] == 2
    tracked(churn, "churn", 1000)
    assert churn.total("mlexporter_labels_total", model="churn") == 900
    pages = [
        "/metrics", "/", "/api/v1/status", "/api/v1/models/churn/versions/1/baseline",
        "/api/v1/models/churn/versions/1/drift",
    ]  # fmt: skip
    texts = [churn.get(page) for page in pages]
    assert [answer.status_code for answer in texts] == [200] * len(pages)
    for text in (*(answer.text for answer in texts), refused.text, churn.log()):
        assert "jane.doe" not in text
        assert "example.com" not in text
    # not even kept
    state = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"example.com" not in state
    assert len(state) > 10_000
    for path in ("/v1/labels", "/v1/samples", "/v1/labels/jane.doe@example.com-1"):
        assert churn.get(path).status_code in (404, 405)


def test_model_that_nobody_configured(start_exporter: Start, tmp_path: Path) -> None:
    """It is learned from its traffic, and labels count from then on, also after a restart."""
    exporter = start_exporter(f"--storage.path={tmp_path}/state")
    data = Binary(10, 5000)
    assert exporter.label({"model": "new"} | data.truth()).status_code == 404
    assert exporter.post({"model": "new"} | data.columns(0, 3000)).json()["accepted"] == 3000
    assert exporter.label({"model": "new"} | data.truth(0, 2500)).json()["accepted"] == 2500
    tracked(exporter, "new", 3000)
    assert outcomes(exporter.scrape(), "new", "unversioned") == data.cells(0, 2500)
    exporter.stop(signal.SIGKILL)
    exporter = start_exporter(f"--storage.path={tmp_path}/state")
    assert exporter.post({"model": "new"} | data.columns(3000)).json()["accepted"] == 2000
    kept(exporter, {"model": "new"} | data.truth())
    tracked(exporter, "new", 5000)
    assert outcomes(exporter.scrape(), "new", "unversioned") == data.cells()


# -- performance without labels, and concept drift --------------------------------------------------------------------


def test_concept_drift_and_performance_without_labels(tmp_path: Path, profiles: Path) -> None:
    """Labels that turn against their scores are told by the alarm and by the gap; the estimate cannot see them."""
    names = "steady", "turning"
    with exporters(tmp_path) as start:
        exporter = start(config=config_of(*(model(name, str(profiles / "binary.json")) for name in names)))

        def send(seed: int, *turned: str) -> None:
            for number, name in enumerate(names):
                data = Binary(seed + number, 4000, f"{seed}")
                assert exporter.post({"model": name} | data.columns()).json()["accepted"] == 4000
                if name in turned:
                    data.labels[:] = 1 - data.labels
                truth.append({"model": name} | data.truth())

        def label() -> None:
            for content in truth:
                kept(exporter, content)
            truth.clear()

        def evidence(name: str, tier: str) -> float:
            key = (
                "mlexporter_concept_drift_log_evidence",
                frozenset({"model": name, "version": "1", "tier": tier}.items()),
            )
            return exporter.scrape().get(key, -np.inf)

        def figure(kind: str, name: str) -> float:
            return exporter.total(f"mlexporter_performance_{kind}accuracy_ratio", model=name, window=WINDOW)

        truth: list[dict[str, Any]] = []
        send(20)
        both = [Binary(20, 4000), Binary(21, 4000)]
        for name, data in zip(names, both, strict=True):
            scores, labels = data.scores, TRAINING.labels
            expected = np.maximum(scores, 1 - scores).mean()  # they are calibrated
            assert figure("estimated_", name) == pytest.approx(expected, abs=0.02)
            # and an isotonic regression on the same rows comes to the same, but for the bins
            rates = IsotonicRegression(out_of_bounds="clip").fit(TRAINING.scores, labels).predict(scores)
            estimate = np.where(scores >= 0.5, rates, 1 - rates).mean()
            assert figure("estimated_", name) == pytest.approx(estimate, abs=0.005)
        page = exporter.get("/metrics").text
        assert "mlexporter_performance_accuracy_ratio{" not in page
        assert "mlexporter_performance_gap_accuracy_ratio{" not in page
        label()
        poll(lambda: min(evidence(name, "warn") for name in names) > -np.inf, 2 * SECONDS, exporter.log)
        threshold = exporter.total("mlexporter_drift_log_threshold", tier="warn")
        assert threshold == exporter.total("mlexporter_drift_log_threshold", tier="page") > 5
        assert max(evidence(name, tier) for name in names for tier in ("warn", "page")) < threshold
        for name, data in zip(names, both, strict=True):
            right = float(((data.scores >= 0.5) == data.labels).mean())
            assert figure("", name) == pytest.approx(right, abs=1e-12)
            assert figure("gap_", name) == pytest.approx(right - figure("estimated_", name), abs=1e-9)
            assert abs(figure("gap_", name)) < 0.03
        send(30, "turning")
        label()
        poll(lambda: evidence("turning", "page") >= threshold, 2 * SECONDS, exporter.log)
        assert evidence("turning", "warn") >= threshold
        assert max(evidence("steady", tier) for tier in ("warn", "page")) < threshold
        assert figure("gap_", "turning") < -0.2
        assert abs(figure("gap_", "steady")) < 0.03
        assert figure("estimated_", "turning") > 0.65
