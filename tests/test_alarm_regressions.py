"""Faults of the alarm that were found once, so that they stay away."""

import numpy as np
import pytest

from conftest import Clock, baseline, categorical, numeric
from mlexporter import alarm as alarm_module
from mlexporter import detector
from mlexporter.config import ColumnConfig, Config, DiscoveryConfig, ModelConfig
from mlexporter.exposition import Exposition
from mlexporter.samples import Batch
from mlexporter.store import Store
from test_alarm import MIDNIGHT, daily, made, makings, ticked
from test_dictionary import bets_of, layout_of

_ = makings


def test_a_model_of_categories_only() -> None:
    """It keeps ticking."""
    profile = baseline(categorical("plan", {"pro": 600, "free": 400}))
    store = Store(Config(models=(ModelConfig(name="m"),)), {("m", "unversioned"): profile}, Clock())
    store.observe([Batch(40, {"plan": ["free"] * 40}, model="m")])
    store.tick()
    alarm = store.alarm("m", "unversioned")
    assert alarm is not None
    assert alarm.firing.all()


@pytest.mark.parametrize("beside", [False, True])
def test_a_model_without_columns(beside: bool) -> None:
    """As one that sends latencies only; alone, and beside one that has columns"""
    profiles = {("m", "unversioned"): baseline()}
    models = [ModelConfig(name="m")]
    if beside:
        profiles["n", "unversioned"] = baseline(numeric("x", (0.0, 1.0), [0.5] * 1000))
        models.append(ModelConfig(name="n"))
    store = Store(Config(models=tuple(models)), profiles, Clock())
    for _ in range(2):
        store.observe([Batch(3, {}, model="m", latency_seconds=[0.1] * 3)])
        if beside:
            store.observe([Batch(50, {"x": [2.0] * 50}, model="n")])
        store.tick()
    snapshot = store.snapshot()
    assert [version.samples for version in snapshot.versions] == ([6, 100] if beside else [6])
    Exposition().page(snapshot)
    if beside:
        alarm = store.alarm("n", "unversioned")
        assert alarm is not None
        assert alarm.firing.all()


def test_a_model_without_columns_that_learns_for_a_week() -> None:
    """It keeps ticking."""
    clock = Clock()
    discovery = DiscoveryConfig(enabled=True, learn_samples=200, learn_period=7 * 86_400.0)
    store = Store(Config(discovery=discovery), {}, clock)
    for _ in range(9):
        store.observe([Batch(300, {}, model="m", latency_seconds=[0.1] * 300)])
        store.tick()
        clock.now += 86_400
    found = store.baseline("m", "unversioned")
    assert found is not None
    assert not found.provisional


def test_no_bets_are_no_evidence_and_no_warning() -> None:
    """With the threshold of 100 columns"""
    layout = layout_of([3], [2])
    bets = bets_of(layout, np.array([0.2, 0.3, 0.5, 0.5, 0.5]), [[np.inf, np.inf]], 1.0)
    counts, cap = np.array([5.0, 0, 0, 5, 0]), detector.log_threshold(1000, 3650 * 86_400.0) + detector.CAP
    evidence = detector.advance(layout, bets, detector.start(layout, 1), counts, np.zeros((2, 2)), cap)
    assert (evidence.log_evidence < -500).all()


def test_a_column_that_accepts_everything_warns_nobody() -> None:
    """No RuntimeWarning"""
    profile = baseline(numeric("x", (0.0, 0.5, 1.0), np.linspace(0.01, 0.99, 1000)))
    model = ModelConfig(name="m", columns={"x": ColumnConfig(warn_tolerance=5.0, page_tolerance=6.0)})
    store = Store(Config(models=(model,)), {("m", "unversioned"): profile}, Clock())
    store.observe([Batch(100, {"x": [0.2] * 100}, model="m")])
    store.tick()
    alarm = store.alarm("m", "unversioned")
    assert alarm is not None
    assert not alarm.firing.any()


def test_a_huge_tick_without_drift_warns_nobody() -> None:
    """A backlog of 200,000 rows in one tick leaves no bet anything"""
    profile = baseline(numeric("x", (0.0, 0.5, 1.0), np.linspace(0.01, 0.99, 1000)))
    store = Store(Config(models=(ModelConfig(name="m"),)), {("m", "unversioned"): profile}, Clock())
    store.observe([Batch(200_000, {"x": np.linspace(0.01, 0.99, 200_000).tolist()}, model="m")])
    store.tick()
    alarm = store.alarm("m", "unversioned")
    assert alarm is not None
    assert (alarm.evidence.log_evidence < -100).all()


@pytest.mark.parametrize("second", [1, 5, 7, 8, 14])
def test_no_tick_makes_the_bets_of_an_hour_at_once(
    second: int, makings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two hours; also where a tick ends in an hour and its middle lies before it"""
    monkeypatch.setattr(alarm_module, "_KEPT_BYTES", 0)
    profile = daily(8)
    alarm = made(profile)
    begin = MIDNIGHT + 3600 - 10 * 15 + second
    ticked(alarm, profile, begin)
    alarm.prepare(begin)
    assert makings[0] == 10
    for tick in range(1, 260):
        ticked(alarm, profile, begin + 15 * tick)
        alarm.prepare(begin + 15 * tick)
    assert set(makings[1:]) == {4}
    assert makings[1:].count(4) <= 6
