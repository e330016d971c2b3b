"""What a restart brings back: a store that was kept, and one that goes on from it, side by side."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from conftest import Clock, baseline, categorical, numeric
from labelled import labelled_parts, labelled_store
from mlexporter.baseline import Baseline, NumericColumn, Season
from mlexporter.config import (
    ColumnConfig,
    Config,
    DetectionConfig,
    DiscoveryConfig,
    LimitsConfig,
    ModelConfig,
    PredictionConfig,
    Window,
)
from mlexporter.explanation import drift_of
from mlexporter.exposition import Exposition
from mlexporter.pending.records import Direct, Joined, Match
from mlexporter.persistence import decode, encode
from mlexporter.restoring import Afresh, alike, kept_totals, plus
from mlexporter.samples import Batch, Role
from mlexporter.state import State
from mlexporter.store import Store

DAY = 86_400.0
WINDOWS = (Window(3600.0, "1h"), Window(DAY, "24h"))
NORMAL = np.random.default_rng(3).normal(0, 1, 4000)
EDGES = np.quantile(NORMAL, np.linspace(0, 1, 11)).tolist()


def seasonal(column: NumericColumn) -> NumericColumn:
    """A column that is one bin lower in the morning."""
    bins = len(column.coarse) + 2
    noon, morning = (0, *(40,) * (bins - 3), 0, 0), (0, 80, *(36,) * (bins - 4), 0, 0)
    hours = tuple(morning if hour < 12 else noon for hour in range(24))
    return msgspec.structs.replace(column, season=Season(timezone="Europe/Berlin", hours=hours))


OLD = baseline(seasonal(numeric("x", EDGES, NORMAL)), categorical("plan", {"pro": 2400, "free": 1600}))
NEW = baseline(numeric("x", EDGES[::2], NORMAL), categorical("plan", {"pro": 2400, "free": 1600}))
CONFIG = Config(
    models=(ModelConfig(name="churn", version="7"), ModelConfig(name="churn", version="9")),
    windows=WINDOWS,
    discovery=DiscoveryConfig(enabled=True, learn_samples=300, learn_period=8 * DAY),
)
BASELINES = {("churn", "7"): OLD, ("churn", "9"): NEW}


def samples(model: str, version: str, rows: int, seed: int, shift: float = 0.0) -> Batch:
    """Of normal numbers, with everything else that a sample can have."""
    random = np.random.default_rng(seed)
    x: list[object] = (random.normal(0, 1, rows) + shift).tolist()
    x[0], x[1] = None, "text"
    plan: list[object] = random.choice(["pro", "free", "new"], rows, p=[0.6, 0.39, 0.01]).tolist()
    return Batch(
        rows,
        {"x": x, "plan": plan, "other": [1.0] * rows},
        model,
        version,
        latency_seconds=random.exponential(0.1, rows).tolist(),
        errors=3,
        error_reasons={f"reason {seed % 12}": 2},
    )


def drive(clock: Clock, stores: list[Store], seed: int, ticks: int = 3) -> None:
    """The same traffic for stores of one clock."""
    for tick in range(ticks):
        clock.now += 15
        for store in stores:
            for i, (model, version) in enumerate(SENT):
                # version 8 has drifted, so that its alarm is on
                store.observe([samples(model, version, 120, seed + 100 * tick + i, 2.0 if version == "8" else 0.0)])
            store.tick()


SENT = (("churn", "7"), ("churn", "8"), ("churn", "9"), ("early", "1"), ("late", "1"))


def world(clock: Clock) -> Store:
    """Configured versions, one with bins of its own; one rolled out that has drifted; one that has learned its
    baseline, and one that is learning it, with the season.
    """
    store = Store(CONFIG, BASELINES, clock)
    for hour in range(0, 9 * 24, 2):
        store.observe([samples("early", "1", 200, hour)])
        if hour > 36:
            store.observe([samples("late", "1", 200, hour)])
        clock.now += 7200
        store.tick()
    drive(clock, [store], 10_000, ticks=8)
    return store


def kept(store: Store) -> State:
    """The state of a store, through bytes."""
    return decode(encode(store.state()))


def restarted(
    state: State,
    clock: Clock,
    config: Config = CONFIG,
    baselines: dict[tuple[str, str], Baseline] | None = None,
    *,
    clean: bool = True,
) -> tuple[Store, list[Afresh]]:
    store = Store(config, BASELINES if baselines is None else baselines, clock, kept_totals(state) if clean else {})
    return store, store.restore(state, clean=clean)


def page(store: Store) -> str:
    return Exposition().page(store.snapshot()).decode()


Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(text: str) -> tuple[Series, Series]:
    """Gauges, and what only grows."""
    gauges: Series = {}
    growing: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found = gauges if family.type == "gauge" else growing
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return gauges, growing


@pytest.fixture(scope="module")
def lived() -> tuple[float, State, str]:
    """When, the state, and the page of a store that has lived for some days."""
    clock = Clock()
    store = world(clock)
    return clock.now, kept(store), page(store)


Lived = tuple[float, State, str]


def test_the_world_has_everything(lived: Lived) -> None:
    _, state, text = lived
    by_key = {(version.model, version.name): version for version in state.versions}
    assert [(version.model, version.name) for version in state.versions] == [
        ("churn", "7"), ("churn", "9"), ("churn", "8"), ("early", "1"), ("late", "1"),
    ]  # fmt: skip
    rolled_out = by_key["churn", "8"].alarm
    assert rolled_out is not None
    assert rolled_out.firing.any()
    assert by_key["churn", "8"].beside is None
    assert by_key["churn", "9"].beside is not None
    assert [each.baseline.provisional for each in state.learned] == [False, True]
    assert by_key["late", "1"].diary is not None
    for metric in ("version_psi", "column_drift_log_evidence", "inference_error_reasons_total"):
        assert f"\nmlexporter_{metric}{{" in text


def test_after_a_clean_stop_everything_goes_on(lived: Lived) -> None:
    clock = Clock(lived[0])
    store, afresh = restarted(lived[1], clock)
    assert afresh == []
    assert page(store) == lived[2]


def test_alarms_can_be_explained_at_once(lived: Lived) -> None:
    """The bets are not kept, and made again."""
    clock = Clock()
    whole = world(clock)
    store, _ = restarted(kept(whole), clock)
    explained = drift_of(whole.snapshot(), "churn", "8")
    assert drift_of(store.snapshot(), "churn", "8") == explained
    assert explained is not None
    assert explained["columns"][0]["tiers"]


def test_what_goes_on_is_the_same_from_then_on() -> None:
    """Through a tick that freezes what was being learned, season and all."""
    clock = Clock()
    store = world(clock)
    again, _ = restarted(kept(store), clock)
    both = [store, again]
    drive(clock, both, 20_000)
    assert page(again) == page(store)
    clock.now += DAY
    drive(clock, both, 30_000)
    assert store.baseline("late", "1") == again.baseline("late", "1")
    assert not getattr(store.baseline("late", "1"), "provisional", True)
    assert page(again) == page(store)


def test_after_a_crash_counters_begin_at_0_and_the_rest_goes_on(lived: Lived) -> None:
    clock = Clock(lived[0])
    store, afresh = restarted(lived[1], clock, clean=False)
    assert afresh == []
    gauges, growing = series(page(store))
    before, grown = series(lived[2])
    assert growing.keys() == grown.keys()
    assert set(growing.values()) == {0.0}
    assert gauges.keys() == before.keys()
    # what is learned is added up in another order
    assert [gauges[key] for key in before] == pytest.approx(list(before.values()), rel=1e-9)


def test_after_a_crash_evidence_and_windows_go_on_as_they_would_have() -> None:
    clock = Clock()
    store = world(clock)
    again, _ = restarted(kept(store), clock, clean=False)
    _, at_crash = series(page(store))
    drive(clock, [store, again], 20_000)
    (gauges, growing), (expected, grown) = series(page(again)), series(page(store))
    assert [gauges[key] for key in expected] == pytest.approx(list(expected.values()), rel=1e-9)
    more = {key: value - at_crash.get(key, 0.0) for key, value in grown.items()}
    assert [growing[key] for key in more] == pytest.approx(list(more.values()), rel=1e-6, abs=1e-6)
    clock.now += DAY
    drive(clock, [store, again], 30_000)
    learned, other = store.baseline("late", "1"), again.baseline("late", "1")
    assert learned is not None
    assert other is not None
    assert [column.counts for column in learned.columns] == [column.counts for column in other.columns]
    assert [column.season for column in learned.columns] == [column.season for column in other.columns]


def test_samples_that_no_tick_has_seen_count_as_evidence_after_a_crash() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.tick()
    store.observe([samples("churn", "7", 500, 1, 2.0)])
    again, _ = restarted(kept(store), clock, clean=False)
    clock.now += 15
    for each in (store, again):
        each.tick()
    one, other = store.alarm("churn", "7"), again.alarm("churn", "7")
    assert one is not None
    assert other is not None
    assert one.evidence.log_evidence.max() > 3
    assert one.evidence.log_evidence.tolist() == other.evidence.log_evidence.tolist()


def test_windows_forget_while_nobody_runs(lived: Lived) -> None:
    clock = Clock(lived[0] + 7200)
    store, _ = restarted(lived[1], clock)
    gauges, _ = series(page(store))
    rows = {
        dict(labels)["window"]: value
        for (name, labels), value in gauges.items()
        if name == "mlexporter_column_window_samples" and {"7", "x"} <= set(dict(labels).values())
    }
    # a window with too few samples for its numbers has none
    assert rows.get("1h", 0.0) == 0.0
    assert rows["24h"] == 8 * 120


# -- labels -----------------------------------------------------------------------------------------------------------


def test_what_labels_told_goes_on() -> None:
    clock = Clock()
    store = labelled_store(clock)
    again, afresh = restarted(kept(store), clock, *labelled_parts())
    assert afresh == []
    assert page(again) == page(store)


def test_totals_that_were_kept_with_the_labels_go_on_after_a_crash() -> None:
    clock = Clock()
    store = labelled_store(clock)
    state = kept(store)
    again = Store(*labelled_parts(), clock, kept_totals(state))
    assert again.restore(state, clean=False) == []
    (gauges, growing), (expected, grown) = series(page(again)), series(page(store))
    kept_names = ("outcomes", "score_bin", "labels_total", "label_delay_seconds")
    for key, value in grown.items():
        if key[0].startswith(tuple(f"mlexporter_{name}" for name in kept_names)):
            assert growing[key] == value, key
    assert gauges == expected


def test_labels_after_the_last_state_are_in_the_windows_after_a_crash_and_can_be_corrected() -> None:
    clock = Clock()
    store = labelled_store(clock)
    state = kept(store)

    def tell(into: Store, prediction: bytes, label: bytes, replaced: tuple[bytes, float] | None = None) -> None:
        match = Match("binary", "1", prediction, label, 1.0, clock.now, replaced)
        into.feedback.install(into.feedback.tally(Joined(matches=[match]), ()))

    def windows(of: Store) -> dict[str, tuple[list[int], list[float]]]:
        feedback = next(
            each for each in of.snapshot().versions if (each.model, each.version) == ("binary", "1")
        ).feedback
        return {label: (counts.bins.tolist(), counts.sums.tolist()) for label, counts in feedback.windows}

    clock.now += 10
    first = clock.now
    for score in (b"0.25", b"0.75"):
        tell(store, score, b"1")
    tell(store, b"0.75", b"0", (b"1", first))  # one is corrected before the crash
    totals = dict(kept_totals(store.state()).items())
    clock.now += 10
    again = Store(*labelled_parts(), clock, totals)
    assert again.restore(state, clean=False) == []
    assert windows(again) == windows(store)
    for each in (store, again):  # and one after it
        tell(each, b"0.25", b"0", (b"1", first))
    assert windows(again) == windows(store)
    before = {label: sum(bins[:4]) for label, (bins, _) in windows(labelled_store(Clock())).items()}
    assert {label: sum(bins[:4]) for label, (bins, _) in windows(again).items()} == {
        label: rows + 2 for label, rows in before.items()
    }


def test_outcomes_that_nobody_kept_begin_at_0_after_a_crash_and_their_evidence_goes_on() -> None:
    clock = Clock()
    store = labelled_store(clock)
    again, afresh = restarted(kept(store), clock, *labelled_parts(), clean=False)
    assert afresh == []
    (gauges, growing), (expected, _) = series(page(again)), series(page(store))
    assert gauges == expected
    assert set(growing.values()) == {0.0}
    found = {(version.model, version.version): version.feedback for version in again.snapshot().versions}
    concept = found["binary", "1"].concept
    assert concept is not None
    assert concept.seen.rows == found["binary", "1"].totals.outcomes.rows == 0
    clock.now += 15
    again.tick()
    assert series(page(again))[0].keys() >= gauges.keys()


# -- what does not fit any more ---------------------------------------------------------------------------------------


def version_of(text: str, model: str, version: str) -> str:
    """The lines of one version."""
    return "\n".join(line for line in text.splitlines() if f'model="{model}",version="{version}"' in line)


def changed(**settings: Any) -> Config:
    return msgspec.structs.replace(CONFIG, **settings)


def model_with(**settings: Any) -> tuple[ModelConfig, ...]:
    return (ModelConfig(name="churn", version="7", **settings), CONFIG.models[1])


def whys(afresh: list[Afresh]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for each in afresh:
        found.setdefault((each.model, each.version), []).append(each.why)
    return found


def evidence(store: Store, model: str = "churn", version: str = "7") -> float | None:
    alarm = store.alarm(model, version)
    return float(alarm.evidence.log_evidence.max()) if alarm is not None else None


def test_another_baseline(lived: Lived) -> None:
    """It, and what was held against it, counts afresh; what is of no baseline goes on."""
    other = baseline(numeric("x", EDGES, NORMAL + 1), categorical("plan", {"pro": 1, "free": 1600}))
    store, afresh = restarted(lived[1], Clock(lived[0]), CONFIG, {**BASELINES, ("churn", "7"): other})
    assert whys(afresh) == {("churn", "7"): ["its baseline changed"]}
    assert evidence(store) is None
    text = page(store)
    for version in ("9", "8"):
        same = {line for line in version_of(lived[2], "churn", version).splitlines() if "previous_version" not in line}
        now = {line for line in version_of(text, "churn", version).splitlines() if "previous_version" not in line}
        assert now == same, version
    assert version_of(text, "early", "1") == version_of(lived[2], "early", "1")
    (_, growing), (_, grown) = series(text), series(lived[2])
    for key, value in growing.items():
        if {"churn", "7"} <= set(dict(key[1]).values()):
            goes_on = not key[0].startswith(("mlexporter_column", "mlexporter_values_invalid"))
            assert value == (grown[key] if goes_on else 0.0), key


def test_no_baseline_any_more(lived: Lived) -> None:
    store, afresh = restarted(lived[1], Clock(lived[0]), CONFIG, {("churn", "9"): NEW})
    assert whys(afresh) == {("churn", "7"): ["its baseline changed"]}
    (found,) = (version for version in store.snapshot().versions if (version.model, version.version) == ("churn", "7"))
    assert (found.learned_rows, found.monitor) == (0, None)
    assert found.samples == 8 * 120


def test_the_baseline_of_a_version_that_was_rolled_out_has_gone(lived: Lived) -> None:
    other = baseline(numeric("x", EDGES, NORMAL + 1))
    store, afresh = restarted(lived[1], Clock(lived[0]), CONFIG, {("churn", "7"): OLD, ("churn", "9"): other})
    assert whys(afresh) == {("churn", "9"): ["its baseline changed"], ("churn", "8"): ["its baseline changed"]}
    (found,) = (version for version in store.snapshot().versions if version.version == "8")
    assert found.monitor is not None
    assert found.monitor.baseline.hash == other.hash


def test_another_window(lived: Lived) -> None:
    windows = (WINDOWS[0], Window(6 * 3600.0, "6h"))
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(windows=windows))
    assert {tuple(why) for why in whys(afresh).values()} == {("window 6h is new",)}
    hour = [line for line in lived[2].splitlines() if 'window="1h"' in line]
    assert hour
    assert [line for line in page(store).splitlines() if 'window="1h"' in line] == hour
    assert evidence(store) is not None


def test_a_window_of_another_length_with_the_same_label(lived: Lived) -> None:
    _, afresh = restarted(lived[1], Clock(lived[0]), changed(windows=(WINDOWS[0], Window(7200.0, "24h"))))
    assert {tuple(why) for why in whys(afresh).values()} == {("window 24h is new",)}


CHANGED_NULL = "what its drift alarm accepts changed: the evidence"


@pytest.mark.parametrize(
    ("config", "starts_afresh"),
    [
        (changed(detection=DetectionConfig(false_alarm_every=7 * DAY)), []),
        (changed(detection=DetectionConfig(timezone="Asia/Kathmandu")), []),
        (changed(detection=DetectionConfig(warn_tolerance=0.1)), ["7", "9", "8"]),
        # below what a baseline of so few rows can resolve
        (changed(detection=DetectionConfig(warn_tolerance=0.0011)), ["7", "9", "8"]),
        (changed(models=model_with(columns={"x": ColumnConfig(page_tolerance=0.5)})), ["7"]),
        (changed(models=model_with(columns={"x": ColumnConfig(season=False)})), ["7"]),
        (changed(models=model_with(columns={"x": ColumnConfig(timezone="Asia/Tokyo")})), ["7"]),
        (changed(models=model_with(columns={"plan": ColumnConfig(export_names=False)})), []),
    ],
)
def test_evidence_is_of_use_only_against_the_same_null_hypothesis(
    lived: Lived, config: Config, starts_afresh: list[str]
) -> None:
    store, afresh = restarted(lived[1], Clock(lived[0]), config)
    found = {key[1]: why for key, why in whys(afresh).items() if key[0] == "churn"}
    assert found == {version: [CHANGED_NULL] for version in starts_afresh}
    for version in ("7", "8", "9"):
        assert (evidence(store, version=version) is None) == (version in starts_afresh)
    # everything else of them goes on, and no samples of before are held against the new one
    (_, growing), (_, grown) = series(page(store)), series(lived[2])
    assert sum(growing.values()) == sum(grown.values())
    store.tick()
    for version in starts_afresh:
        assert evidence(store, version=version) == -np.inf


def test_a_model_that_is_not_to_be_discovered_any_more(lived: Lived) -> None:
    config = changed(discovery=DiscoveryConfig(enabled=False))
    store, afresh = restarted(lived[1], Clock(lived[0]), config)
    assert whys(afresh) == {
        (model, "1"): [f"model '{model}' is not configured; known: churn"] for model in ("early", "late")
    }
    assert {version.model for version in store.snapshot().versions} == {"churn"}


def test_a_version_that_is_not_configured_any_more(lived: Lived) -> None:
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(models=CONFIG.models[1:]), {("churn", "9"): NEW})
    assert whys(afresh) == {("churn", "7"): ["it is not configured any more"]}
    assert [version.version for version in store.snapshot().versions if version.model == "churn"] == ["8", "9"]


def test_limits_hold_for_what_comes_back(lived: Lived) -> None:
    _, afresh = restarted(lived[1], Clock(lived[0]), changed(limits=LimitsConfig(max_versions=2)))
    assert whys(afresh) == {("churn", "8"): ["version '8' is one more than limits.max_versions (2)"]}
    configured = Store(CONFIG, BASELINES, Clock(lived[0])).snapshot().series
    most = configured + 40  # of a version that was never counted for there are 34
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(limits=LimitsConfig(max_series=most)))
    assert whys(afresh).keys() == {("churn", "8"), ("early", "1"), ("late", "1")}
    assert all(f"would pass limits.max_series ({most})" in why for (why,) in whys(afresh).values())
    assert store.snapshot().series <= most


def test_columns_that_are_to_be_learned_with_another_type(lived: Lived) -> None:
    models = (*CONFIG.models, ModelConfig(name="early", version="1", columns={"x": ColumnConfig(type="categorical")}))
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(models=models))
    assert whys(afresh) == {("early", "1"): ["its baseline changed"]}
    models = (*CONFIG.models, ModelConfig(name="early", version="1", columns={"x": ColumnConfig(type="numeric")}))
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(models=models))
    assert afresh == []
    assert version_of(page(store), "early", "1") == version_of(lived[2], "early", "1")


def test_a_season_that_is_learned_in_another_time_zone_begins_anew(lived: Lived) -> None:
    """And what was counted before is in no hour of it."""
    models = (*CONFIG.models, ModelConfig(name="late", version="1", columns={"x": ColumnConfig(timezone="Asia/Tokyo")}))
    clock = Clock(lived[0])
    store, afresh = restarted(lived[1], clock, changed(models=models))
    assert whys(afresh) == {("late", "1"): ["time zones changed: the season it is learning"]}
    store.observe([samples("late", "1", 500, 1)])
    store.tick()
    (version,) = (version for version in store.state().versions if version.model == "late")
    assert version.diary is not None
    assert version.counts is not None
    rows = {zone: history.rows.sum() for zone, history in version.diary.histories.items()}
    assert rows == {"Asia/Tokyo": 500.0, "UTC": version.counts.rows}
    assert version.samples == version.counts.rows + 400  # the two batches of which its bins were learned


def test_a_baseline_that_was_learned_and_is_a_file_now(lived: Lived) -> None:
    learned = lived[1].learned[0].baseline
    models = (*CONFIG.models, ModelConfig(name="early", version="1"))
    store, afresh = restarted(lived[1], Clock(lived[0]), changed(models=models), {**BASELINES, ("early", "1"): learned})
    assert afresh == []
    assert evidence(store, "early", "1") is not None


def scored(threshold: float) -> Config:
    """A binary model whose baseline knows no labels: the configuration says what its scores are held against."""
    model = ModelConfig(name="s", version="1", task="binary", prediction=PredictionConfig(threshold=threshold))
    return Config(models=(model,), windows=WINDOWS)


def test_outcomes_in_other_bins() -> None:
    """Of the same number, too: a prediction of 0.45 was of the other class."""
    clock = Clock()
    scores = numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75] * 500, role=Role.PREDICTION)
    baselines = {("s", "1"): baseline(numeric("x", EDGES, NORMAL), scores)}
    store = Store(scored(0.5), baselines, clock)
    store.observe([Batch(100, {"x": [0.0] * 100}, "s", prediction=[0.45] * 100)])
    sink = store.feedback
    sink.install(sink.tally(Joined({}, [], [], {}), [Direct("s", "1", [0.45] * 100, [1] * 100, clock.now)]))
    state = kept(store)

    def outcomes(threshold: float) -> tuple[list[int], list[int], list[Afresh]]:
        again, afresh = restarted(state, clock, scored(threshold), baselines)
        (version,) = again.snapshot().versions
        feedback = version.feedback
        assert int(version.windows[0][1].sum()) == 200  # of columns, which are the same
        return [feedback.windows[0][1].rows, int(feedback.scores[0][1].sum())], [feedback.totals.outcomes.rows], afresh

    assert outcomes(0.5) == ([100, 100], [100], [])
    assert outcomes(0.4) == ([0, 0], [0], [Afresh("s", "1", "outcomes are counted in other bins")])


def test_concept_drift_is_held_against_the_same_null_hypothesis_only() -> None:
    clock = Clock()
    store = labelled_store(clock)
    config, baselines = labelled_parts()

    def concepts(detection: DetectionConfig) -> set[bool]:
        changed_config = msgspec.structs.replace(config, detection=detection)
        again, afresh = restarted(kept(store), clock, changed_config, baselines)
        said = [each.why for each in afresh if "concept" in each.why]
        found = [version.feedback.concept is None for version in again.snapshot().versions]
        assert len(said) == sum(found)
        return set(found)

    assert concepts(DetectionConfig(false_alarm_every=DAY)) == {False}
    assert concepts(DetectionConfig(page_tolerance=0.5)) == {True}


def test_nothing_is_held_against_what_nobody_learns_any_more() -> None:
    """A version that was rolled out against a provisional baseline, which a file has replaced since."""
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.observe([samples("young", "1", 300, 1)])
    store.tick()
    store.observe([samples("young", "2", 300, 2)])
    config = changed(models=(*CONFIG.models, ModelConfig(name="young", version="1")))
    state = kept(store)
    again, afresh = restarted(state, clock, config, {**BASELINES, ("young", "1"): NEW})
    assert whys(afresh) == {("young", version): ["its baseline changed"] for version in "12"}
    monitors = [version.monitor for version in again.snapshot().versions if version.model == "young"]
    assert [monitor.baseline.hash for monitor in monitors if monitor is not None] == [NEW.hash] * 2
    # while somebody does, they share it
    shared, afresh = restarted(state, clock)
    assert afresh == []
    one, other = (version.monitor for version in shared.snapshot().versions if version.model == "young")
    assert one is other
    assert one is not None
    assert one.baseline.provisional


# -- any life ---------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(("7", "8", "9", "10", "11")), st.integers(1, 200)),
        st.tuples(st.just("pass"), st.sampled_from((15.0, 15.0, 100.0, 4000.0, 90_000.0))),
        st.tuples(st.just("tick")),
        st.tuples(st.just("stop")),
        st.tuples(st.just("crash")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_in_any_life_restarts_change_no_gauge_and_stops_no_counter(steps: list[tuple[Any, ...]]) -> None:
    """Beside a store that is never restarted; where no crash has been, not a byte of the page differs."""
    clock = Clock()
    config = changed(limits=LimitsConfig(max_versions=4))
    store = Store(config, BASELINES, clock)
    again = Store(config, BASELINES, clock)
    crashed = False
    lost: Series = {}
    for number, (kind, *arguments) in enumerate(steps):
        if kind == "send":
            for each in (store, again):
                each.observe([samples("churn", arguments[0], max(arguments[1], 2), number)])
        elif kind == "pass":
            clock.now += arguments[0]
        elif kind == "tick":
            store.tick()
            again.tick()
        else:
            store.snapshot()  # samples belong to the moment in which they are counted, and a state counts them
            if kind == "crash":
                crashed = True
                lost = series(page(store))[1]
            again, afresh = restarted(kept(again), clock, config, clean=kind == "stop")
            assert afresh == []
    if not crashed:
        assert page(again) == page(store)
        return
    (gauges, growing), (expected, grown) = series(page(again)), series(page(store))
    assert gauges.keys() == expected.keys()
    assert [gauges[key] for key in expected] == pytest.approx(list(expected.values()), rel=1e-9)
    assert growing.keys() == grown.keys()
    # a version that has made room for others since the crash is counted from 0 in both, if it comes back
    for key, value in growing.items():
        assert value == pytest.approx(grown[key] - lost.get(key, 0.0), abs=1e-6) or value == grown[key]


# -- what is never written --------------------------------------------------------------------------------------------


def test_raw_samples_are_never_written() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    values: list[object] = [f"secret {i}" for i in range(100)]
    store.observe([Batch(100, {"who": values}, "young", "1")])
    state = store.state()
    assert b"secret" not in encode(state)
    again, afresh = restarted(decode(encode(state)), clock)
    why = "it was learning its baseline, and no samples are kept to learn from"
    assert whys(afresh) == {("young", "1"): [why]}
    (found,) = (version for version in again.snapshot().versions if version.model == "young")
    assert (found.samples, found.learned_rows, found.last_sample) == (100, 0, clock.now)
    # the period in which it learns begins with what it learns from
    clock.now += 7 * DAY
    again.observe([Batch(300, {"who": [1.0, 2.0, 3.0] * 100}, "young", "1")])
    clock.now += 2 * DAY
    again.tick()
    learned = again.baseline("young", "1")
    assert learned is not None
    assert learned.provisional


# -- small parts ------------------------------------------------------------------------------------------------------


class Pair(msgspec.Struct, frozen=True):
    array: Any
    number: int


def pairs() -> Iterator[tuple[Pair, Pair, bool]]:
    one = Pair(np.arange(3), 1)
    yield one, Pair(np.zeros(3, np.int64), 5), True
    yield one, Pair(np.zeros(3), 1), False
    yield one, Pair(np.zeros((3, 1), np.int64), 1), False
    yield one, Pair(None, 1), False


def test_alike() -> None:
    for one, other, expected in pairs():
        assert alike(one, other) == expected
    assert not alike(Pair(np.arange(3), 1), np.arange(3))


def test_plus() -> None:
    found = plus(Pair(np.array([5, 7]), 3), Pair(np.array([1, 2]), 1), -1)
    assert (found.array.tolist(), found.number) == ([4, 5], 2)
