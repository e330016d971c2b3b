"""What labels tell as JSON: the same numbers as on the page."""

import json

import msgspec
import numpy as np
import pytest

from conftest import Clock, baseline
from labelled import labelled_store, profiled
from mlexporter.baseline import sealed
from mlexporter.config import ColumnConfig, Config, ModelConfig
from mlexporter.explanation import drift_of
from mlexporter.exposition import Exposition
from mlexporter.feedback_status import labels_of, outcomes_of
from mlexporter.outcome_profile import ClassProfile
from mlexporter.pending.records import Direct, Joined
from mlexporter.snapshot import VersionSnapshot
from mlexporter.store import Store


def version_of(store: Store, model: str) -> VersionSnapshot:
    return next(each for each in store.snapshot().versions if (each.model, each.version) == (model, "1"))


@pytest.mark.parametrize(
    ("model", "figure"), [("binary", "roc_auc_ratio"), ("multiclass", "accuracy_ratio"), ("regression", "r2_ratio")]
)
def test_status_tells_performance(model: str, figure: str) -> None:
    told = labels_of(version_of(labelled_store(Clock()), model))
    assert told is not None
    json.dumps(told, allow_nan=False)
    # 1,990 with their predictions and ten later ones; one of those was corrected, which is no label more
    assert (told["labels"], told["windows"]["1h"]["outcomes"]) == (2000, 2000)
    assert told["predictions_pending"] == (7 if model == "binary" else 0)
    # training data and live data were drawn alike
    assert told["windows"]["1h"]["realised"][figure] == pytest.approx(told["baseline"][figure], abs=0.08)
    assert (figure in told["windows"]["1h"]["estimated"]) == (model != "regression")


def test_concept_drift_is_explained_by_what_was_said() -> None:
    clock = Clock()
    store = labelled_store(clock)
    quiet = outcomes_of(version_of(store, "binary"))
    assert quiet is not None
    assert {tier: told["state"] for tier, told in quiet["tiers"].items()} == {"warn": "quiet", "page": "quiet"}
    assert "predictions" not in quiet["tiers"]["warn"]
    # whatever the score is, the label is now its opposite
    random = np.random.default_rng(5)
    scores = (random.integers(0, 17, 4000) / 16).tolist()
    direct = Direct("binary", "1", scores, [int(random.random() > score) for score in scores], clock.now)
    store.feedback.install(store.feedback.tally(Joined(), [direct]))
    clock.now += 15
    store.tick()
    told = drift_of(store.snapshot(), "binary", "1")
    assert told is not None
    json.dumps(told, allow_nan=False)
    page = told["outcomes"]["tiers"]["page"]
    assert (page["state"], page["fired"]) == ("firing", clock.now)
    assert page["log_evidence"] > told["log_threshold"]
    highest = page["predictions"][-1]
    assert highest["expected"]["1"] > 0.8
    assert highest["seen"]["1"] < 0.2
    assert sum(each["rows"] for each in page["predictions"]) == pytest.approx(4000)


def test_classes_that_are_personal_are_shown_nowhere() -> None:
    clock = Clock()
    people = ("Ann Li", "Bo Xu", "Cy Ng")
    said: list[object] = [*people] * 1000
    known: list[object] = ["Ann Li", "Bo Xu", "Bo Xu"] * 1000
    profile = profiled(ClassProfile(task="multiclass", classes=people), said, known)
    settings = {"prediction": ColumnConfig(export_names=False)}
    config = Config(models=(ModelConfig(name="who", version="1", columns=settings),))
    store = Store(config, {("who", "1"): sealed(msgspec.structs.replace(baseline(), outcomes=profile))}, clock)
    store.tick()
    store.feedback.install(store.feedback.tally(Joined(), [Direct("who", "1", said, said, clock.now)]))
    store.tick()
    snapshot = store.snapshot()
    page = Exposition().page(snapshot).decode()
    assert 'mlexporter_outcomes_total{actual="01",model="who",predicted="01",version="1"} 1000.0' in page
    assert 'mlexporter_performance_recall_ratio{class="02",model="who",version="1",window="24h"} 1.0' in page
    drift = json.dumps(drift_of(snapshot, "who", "1"))
    assert '"said": "01"' in drift
    for name in people:
        assert name not in page + drift
