"""A store that has all that labels can tell: each task, late and corrected labels, versions side by side."""

import math

import msgspec
import numpy as np
import orjson

from conftest import Clock, baseline, numeric
from mlexporter.baseline import Baseline, sealed
from mlexporter.config import Config, ModelConfig, Window
from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.pending.records import Direct, Joined, Lost, Match, Pair, Waiting
from mlexporter.samples import Batch, Values
from mlexporter.store import Store

WINDOWS = (Window(3600.0, "1h"), Window(86400.0, "24h"))
EDGES = (math.nextafter(0, -1), *(i / 20 for i in range(1, 20)), 1.0)
REASONS = {"timeout": 2, "oom": 1}


def profiled(profile: OutcomeProfile, predictions: list[object], labels: list[object]) -> OutcomeProfile:
    """A profile with the counts of training data."""
    counts = OutcomeBinner(profile).count(predictions, labels)
    bins, sums = tuple(counts.bins.tolist()), tuple(counts.sums.tolist())
    return msgspec.structs.replace(profile, rows=counts.rows, bins=bins, sums=sums)


def outcomes_of(task: str, rows: int, seed: int) -> tuple[list[object], list[object]]:
    """Predictions in sixteenths, which add without rounding, and their labels."""
    random = np.random.default_rng(seed)
    if task == "regression":
        return (random.integers(0, 160, rows) / 16).tolist(), (random.integers(0, 160, rows) / 16).tolist()
    scores = random.integers(0, 17, rows) / 16
    if task == "binary":
        return scores.tolist(), (random.random(rows) < scores).astype(int).tolist()
    said: list[object] = [{"cat": score, "dog": 1 - score} for score in scores.tolist()]
    return said, random.choice(["cat", "dog", "bird"], rows).tolist()


def labelled_parts(
    others: dict[tuple[str, str], Baseline] | None = None,
) -> tuple[Config, dict[tuple[str, str], Baseline]]:
    """Models of each task, and `others`: the configuration and the baselines."""
    profiles: dict[str, OutcomeProfile] = {
        "binary": ClassProfile(task="binary", classes=("0", "1"), score_edges=(EDGES,)),
        "multiclass": ClassProfile(
            task="multiclass", classes=("cat", "dog"), score_edges=(EDGES, EDGES), confidence_edges=EDGES
        ),
        "regression": RegressionProfile(prediction_edges=(2.0, 8.0), residual_edges=(-1.0, 1.0), centre=5.0),
    }
    profile = baseline(numeric("x", (0.0, 1.0, 2.0), [0.5, 1.5] * 400))
    baselines = {
        (task, "1"): sealed(msgspec.structs.replace(profile, outcomes=profiled(each, *outcomes_of(task, 4000, 1))))
        for task, each in profiles.items()
    }
    models = tuple(ModelConfig(name=task, version="1", task=task) for task in profiles)  # type: ignore[arg-type]
    baselines |= others or {}
    models += tuple(ModelConfig(name=model, version=version) for model, version in others or {})
    return Config(models=models, windows=WINDOWS), baselines


def labelled_store(clock: Clock, others: dict[tuple[str, str], Baseline] | None = None) -> Store:
    """Models of each task with labels at once and later, corrections, a version that is held against another.

    And `others`, which nothing is sent to.
    """
    store = Store(*labelled_parts(others), clock)
    store.tick()
    for task in ("binary", "multiclass", "regression"):
        for version in ("1", "2"):
            said, known = outcomes_of(task, 2000, int(version))
            rows: dict[str, Values] = {"x": [0.5, 1.5] * 1000}
            store.observe([Batch(2000, rows, task, version, said, error_reasons=REASONS, errors=4)])
            _join(store, clock, task, version, said, known)
    sink = store.feedback
    sink.waiting(Waiting({("binary", "1"): 7}, {"binary": 3}))
    sink.lost(Lost({("binary", "1", "horizon"): 2, ("binary", "2", "limit"): 1}, {("binary", "limit"): 5}))
    clock.now += 15
    store.tick()
    return store


def _join(store: Store, clock: Clock, model: str, version: str, said: list[object], known: list[object]) -> None:
    """Most labels come with their predictions, ten later, and one is corrected."""
    late = [
        Match(model, version, orjson.dumps(a), orjson.dumps(b), 90.0, clock.now)
        for a, b in zip(said[:10], known[:10], strict=True)
    ]
    again = msgspec.structs.replace(late[0], label=late[1].label, replaced=(late[0].label, clock.now))
    pairs = [Pair(model, ("2", "1"), (b"0.75", b"0.25"), label) for label in (None, b"1")]
    joined = Joined({(model, version): 12}, [*late, again], pairs, {(model, version): 1})
    direct = Direct(model, version, said[10:], known[10:], clock.now)
    store.feedback.install(store.feedback.tally(joined, [direct]))
