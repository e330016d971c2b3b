"""Another configuration for a store that runs: held against a store that was started again with it."""

import re
import threading
from collections import Counter

import msgspec
import numpy as np
import pytest

from conftest import Clock, baseline, categorical, numeric
from labelled import labelled_parts, labelled_store
from mlexporter.baseline import Baseline
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
from mlexporter.pending.records import Direct, Joined, Lost, Waiting
from mlexporter.restoring import Afresh
from mlexporter.samples import Rejection, Role
from mlexporter.state import State
from mlexporter.store import FOLD_ROWS, Store
from test_restoring import (
    BASELINES,
    CONFIG,
    DAY,
    EDGES,
    NEW,
    NORMAL,
    OLD,
    WINDOWS,
    changed,
    drive,
    evidence,
    kept,
    model_with,
    page,
    restarted,
    samples,
    series,
    whys,
    world,
)

OTHER = baseline(numeric("x", EDGES, NORMAL + 1), categorical("plan", {"pro": 1, "free": 1600}))
KEYS = tuple(BASELINES)


@pytest.fixture(scope="module")
def lived() -> tuple[float, State]:
    """When, and the state of a store that has lived for some days."""
    clock = Clock()
    store = world(clock)
    return clock.now, kept(store)


Lived = tuple[float, State]


def model(name: str, version: str, **settings: object) -> ModelConfig:
    return ModelConfig(name=name, version=version, **settings)  # type: ignore[arg-type]


CHURN = CONFIG.models
CHANGES: dict[str, tuple[Config, dict[tuple[str, str], Baseline]]] = {
    "nothing": (CONFIG, BASELINES),
    "a baseline": (CONFIG, {**BASELINES, KEYS[0]: OTHER}),
    "the newest baseline": (CONFIG, {**BASELINES, KEYS[1]: OTHER}),
    "both baselines": (CONFIG, {KEYS[0]: OTHER, KEYS[1]: OTHER}),
    "baselines change places": (CONFIG, {KEYS[0]: NEW, KEYS[1]: OLD}),
    "no baseline": (CONFIG, {KEYS[1]: NEW}),
    "no baselines": (CONFIG, {}),
    "the first version is gone": (changed(models=CHURN[1:]), {KEYS[1]: NEW}),
    "the last version is gone": (changed(models=CHURN[:1]), {KEYS[0]: OLD}),
    "a model is gone": (changed(models=()), {}),
    "a version more": (changed(models=(*CHURN, model("churn", "10"))), {**BASELINES, ("churn", "10"): OTHER}),
    "a model more": (changed(models=(*CHURN, model("fraud", "1"))), {**BASELINES, ("fraud", "1"): OTHER}),
    "the rollout is configured": (changed(models=(*CHURN, model("churn", "8"))), {**BASELINES, ("churn", "8"): NEW}),
    "the rollout has the file of another": (
        changed(models=(*CHURN, model("churn", "8"))), {**BASELINES, ("churn", "8"): OLD}
    ),
    "what was learned is configured": (changed(models=(*CHURN, model("early", "1"))), BASELINES),
    "what is learned gets a file": (changed(models=(*CHURN, model("late", "1"))), {**BASELINES, ("late", "1"): OTHER}),
    "a learned model has another version now": (
        changed(models=(*CHURN, model("early", "2"))), {**BASELINES, ("early", "2"): OTHER}
    ),
    "a shorter window": (changed(windows=(WINDOWS[0], Window(6 * 3600.0, "6h"))), BASELINES),
    "a window of another length": (changed(windows=(WINDOWS[0], Window(7200.0, "24h"))), BASELINES),
    "one window": (changed(windows=WINDOWS[1:]), BASELINES),
    "windows change places": (changed(windows=WINDOWS[::-1]), BASELINES),
    "a calmer pager": (changed(detection=DetectionConfig(false_alarm_every=90 * DAY)), BASELINES),
    "tolerances": (changed(detection=DetectionConfig(warn_tolerance=0.1, page_tolerance=0.2)), BASELINES),
    "the zone of what is learned": (changed(detection=DetectionConfig(timezone="Asia/Tokyo")), BASELINES),
    "the tolerance of a column": (
        changed(models=model_with(columns={"x": ColumnConfig(page_tolerance=0.5)})), BASELINES
    ),
    "the season of a column": (changed(models=model_with(columns={"x": ColumnConfig(season=False)})), BASELINES),
    "names are hidden": (changed(models=model_with(columns={"plan": ColumnConfig(export_names=False)})), BASELINES),
    "another type, of no matter to a file": (
        changed(models=model_with(columns={"x": ColumnConfig(type="categorical")})), BASELINES
    ),
    "another type of a learned column": (
        changed(models=(*CHURN, model("early", "1", columns={"x": ColumnConfig(type="categorical")}))), BASELINES
    ),
    "another type of a column being learned": (
        changed(models=(*CHURN, model("late", "1", columns={"plan": ColumnConfig(type="numeric")}))), BASELINES
    ),
    "no discovery": (changed(discovery=DiscoveryConfig()), BASELINES),
    "one model may be discovered": (
        changed(discovery=msgspec.structs.replace(CONFIG.discovery, max_models=1)), BASELINES
    ),
    "a shorter time to learn": (
        changed(discovery=msgspec.structs.replace(CONFIG.discovery, learn_period=DAY)), BASELINES
    ),
    "fewer versions": (changed(limits=LimitsConfig(max_versions=2)), BASELINES),
    "fewer series": (changed(limits=LimitsConfig(max_series=420)), BASELINES),
    "another order": (changed(models=CHURN[::-1]), BASELINES),
}  # fmt: skip


def reasons(afresh: list[Afresh]) -> dict[tuple[str, str], set[str]]:
    """Why versions begin afresh, without numbers of series: the two ways book them one after the other."""
    return {key: {re.sub(r"\d+ (series|more)", r"N \1", why) for why in found} for key, found in whys(afresh).items()}


@pytest.mark.parametrize("change", CHANGES)
def test_a_reload_comes_to_what_a_restart_comes_to(lived: Lived, change: str) -> None:
    config, baselines = CHANGES[change]
    clock = Clock(lived[0])
    store, _ = restarted(lived[1], clock)
    page(store)
    afresh = store.reload(config, baselines)
    again, expected = restarted(lived[1], clock, config, baselines)
    assert reasons(afresh) == reasons(expected)
    assert page(store) == page(again)
    assert store.snapshot().series <= again.snapshot().series
    drive(clock, [store, again], 20_000)
    assert page(store) == page(again)
    # and what is written down then is of the new configuration
    third, nothing = restarted(kept(store), clock, config, baselines)
    assert nothing == []
    assert page(third) == page(store)
    clock.now += DAY
    drive(clock, [store, again], 30_000)
    assert page(store) == page(again)


def test_a_reload_that_changes_nothing_is_not_to_be_seen() -> None:
    clock = Clock()
    store, other = world(clock), world(Clock())
    before = page(store)
    for _ in range(3):
        assert store.reload(CONFIG, BASELINES) == []
        assert page(store) == before
    assert page(other) == before


def test_there_and_back(lived: Lived) -> None:
    """Evidence against one baseline never becomes evidence against another, nor comes back."""
    clock = Clock(lived[0])
    store, _ = restarted(lived[1], clock)
    assert (evidence(store, version="8") or 0) > 12
    store.reload(CONFIG, {**BASELINES, KEYS[1]: OTHER})
    assert evidence(store, version="8") is None
    store.reload(CONFIG, BASELINES)
    assert evidence(store, version="8") is None
    store.tick()
    assert evidence(store, version="8") == -np.inf
    # what was counted against it has begun at 0 twice
    (_, growing), (_, grown) = series(page(store)), series(page(restarted(lived[1], clock)[0]))
    for key, value in growing.items():
        own = dict(key[1])
        if (own.get("model"), own.get("version")) == ("churn", "7"):
            assert value == grown[key], key


# -- outcomes ---------------------------------------------------------------------------------------------------------

BINARY = labelled_parts()[0].models[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"windows": (Window(3600.0, "1h"),)},
        {"windows": (Window(3600.0, "1h"), Window(7 * DAY, "7d"))},
        {"detection": DetectionConfig(warn_tolerance=0.01, page_tolerance=0.3)},
        {"models": labelled_parts()[0].models[1:]},
        {"models": labelled_parts()[0].models[:1]},
        {"models": (msgspec.structs.replace(BINARY, columns={"prediction": ColumnConfig(export_names=False)}),)},
    ],
)
def test_outcomes_come_to_what_a_restart_comes_to(changes: dict[str, object]) -> None:
    clock = Clock()
    store = labelled_store(clock)
    state = kept(store)
    parts, baselines = labelled_parts()
    config = msgspec.structs.replace(parts, **changes)
    afresh = store.reload(config, baselines)
    again, expected = restarted(state, clock, config, baselines)
    assert reasons(afresh) == reasons(expected)
    assert page(store) == page(again)
    clock.now += 15
    for each in (store, again):
        direct = Direct("binary", "1", [0.75] * 300, [True, False, False] * 100, clock.now)
        if any(model.name == "binary" for model in config.models):
            each.feedback.install(each.feedback.tally(Joined({("binary", "1"): 300}, [], [], {}), [direct]))
        each.tick()
    assert page(store) == page(again)


def test_another_threshold_counts_outcomes_afresh() -> None:
    clock = Clock()

    def config(threshold: float) -> Config:
        said = PredictionConfig(threshold=threshold)
        return Config(models=(ModelConfig(name="m", version="1", task="binary", prediction=said),))

    profile = _with_predictions()
    store = Store(config(0.5), {("m", "1"): profile}, clock)
    direct = Direct("m", "1", [0.6, 0.2], [True, False], clock.now)
    tally = store.feedback.tally(Joined({("m", "1"): 2}, [], [], {}), [direct])
    store.feedback.install(tally)
    (before,) = store.snapshot().versions
    assert before.feedback.totals.outcomes.rows == 2
    late = store.feedback.tally(Joined({("m", "1"): 2}, [], [], {}), [direct])
    (why,) = store.reload(config(0.7), {("m", "1"): profile})
    assert why.why == "outcomes are counted in other bins"
    store.feedback.install(late)  # counted in the old bins, so it is not to be added to the new ones
    (found,) = store.snapshot().versions
    assert found.feedback.totals.outcomes.rows == 0
    assert found.feedback.totals.labels == 4
    store.feedback.install(store.feedback.tally(Joined({("m", "1"): 2}, [], [], {}), [direct]))
    (found,) = store.snapshot().versions
    assert found.feedback.totals.outcomes.rows == 2
    assert "mlexporter_outcomes_total" in page(store)


def _with_predictions() -> Baseline:
    return baseline(
        numeric("x", (0.0, 1.0, 2.0), [0.5, 1.5] * 400),
        numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75] * 400, role=Role.PREDICTION),
    )


def test_labels_that_were_being_written_go_into_the_windows_that_are_there_then() -> None:
    clock = Clock()
    model = ModelConfig(name="m", version="1", task="binary")
    hour, day = Window(3600.0, "1h"), Window(DAY, "24h")
    store = Store(Config(models=(model,), windows=(hour, day)), {("m", "1"): _with_predictions()}, clock)
    direct = Direct("m", "1", [0.6, 0.2], [True, False], clock.now)
    tally = store.feedback.tally(Joined({("m", "1"): 2}, [], [], {}), [direct])
    store.reload(Config(models=(model,), windows=(day, Window(60.0, "1m"))), {("m", "1"): _with_predictions()})
    store.feedback.install(tally)
    (found,) = store.snapshot().versions
    assert [(label, counts.rows) for label, counts in found.feedback.windows] == [("24h", 2), ("1m", 0)]


def test_labels_of_models_that_are_gone_are_forgotten() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.feedback.waiting(Waiting({}, {"churn": 3}))
    store.feedback.lost(Lost({}, {("churn", "limit"): 5}))
    store.reload(Config(), {})
    assert page(store) == ""


# -- what is under way ------------------------------------------------------------------------------------------------


def test_what_waits_to_be_counted_is_counted_once() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.observe([samples("churn", "7", 50, 1), samples("churn", "9", 60, 2)])
    store.reload(CONFIG, {**BASELINES, KEYS[0]: OTHER})
    store.observe([samples("churn", "7", 70, 3)])
    versions = store.snapshot().versions
    rows = {version.version: (version.samples, version.counts.rows) for version in versions if version.counts}
    assert rows == {"7": (120, 70), "9": (60, 60)}


def test_samples_that_wait_to_be_learned_from_are_kept() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.observe([samples("fraud", "1", 200, 1)])
    assert store.reload(changed(windows=WINDOWS[:1]), BASELINES) == []
    store.observe([samples("fraud", "1", 200, 2)])
    (found,) = (version for version in store.snapshot().versions if version.model == "fraud")
    assert found.samples == 400
    assert found.monitor is not None
    assert found.monitor.baseline.rows == 400


def test_a_model_that_was_being_learned_gets_a_file() -> None:
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    store.observe([samples("fraud", "1", 200, 1)])
    config = changed(models=(*CHURN, model("fraud", "1")))
    assert store.reload(config, {**BASELINES, ("fraud", "1"): OTHER}) == []
    store.observe([samples("fraud", "1", 200, 2)])
    (found,) = (version for version in store.snapshot().versions if version.model == "fraud")
    assert (found.samples, found.learned_rows) == (400, None)
    assert found.counts is not None
    assert found.counts.rows == 200


def test_what_was_refused_for_want_of_room_is_taken_in_again() -> None:
    clock = Clock()
    small = Config(
        discovery=DiscoveryConfig(enabled=True, learn_samples=200), windows=WINDOWS, limits=LimitsConfig(max_series=100)
    )
    store = Store(small, {}, clock)
    store.observe([samples("m", "1", 300, 1)])
    (refused,) = store.observe([samples("m", "1", 300, 2)]).rejections
    assert isinstance(refused, Rejection)
    store.reload(msgspec.structs.replace(small, limits=LimitsConfig()), {})
    assert store.observe([samples("m", "1", 300, 3)]).rejections == ()
    (found,) = store.snapshot().versions
    assert found.monitor is not None


def test_threads_that_push_scrape_tick_reload_and_snapshot() -> None:
    """Every sample counts once, whatever it was sent to; a version that nobody changes counts all of them in bins."""
    clock = Clock()
    store = Store(CONFIG, BASELINES, clock)
    changing = [
        (CONFIG, {**BASELINES, KEYS[0]: OTHER}),
        (changed(windows=WINDOWS[:1]), BASELINES),
        (changed(detection=DetectionConfig(warn_tolerance=0.1, page_tolerance=0.2)), BASELINES),
        (changed(models=(*CHURN, model("fraud", "1"))), {**BASELINES, ("fraud", "1"): OTHER}),
        (CONFIG, BASELINES),
    ]
    stop = threading.Event()
    accepted: Counter[str] = Counter()
    failed: list[BaseException] = []
    lock = threading.Lock()

    def push(seed: int) -> None:
        for i in range(60):
            version = ("7", "8", "9")[(seed + i) % 3]
            rows = FOLD_ROWS // 4 + i
            receipt = store.observe([samples("churn", version, rows, seed * 100 + i)])
            with lock:
                accepted[version] += receipt.accepted

    def until_stopped(work: object) -> None:
        while not stop.is_set():
            work()  # type: ignore[operator]

    seen: Counter[str] = Counter()

    def scrape() -> None:
        for version in store.snapshot().versions:
            assert version.samples >= seen[version.version], version
            if version.model == "churn":
                seen[version.version] = version.samples
        page(store)

    def reload() -> None:
        for config, baselines in changing:
            store.reload(config, baselines)

    def guarded(work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - to be raised in the test's own thread
            failed.append(error)

    pushers = [threading.Thread(target=guarded, args=(push, seed)) for seed in range(3)]
    works = (scrape, store.tick, reload, store.state)
    others = [threading.Thread(target=guarded, args=(until_stopped, work)) for work in works]
    for thread in (*pushers, *others):
        thread.start()
    for thread in pushers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    assert failed == []
    found = {version.version: version for version in store.snapshot().versions if version.model == "churn"}
    assert {name: version.samples for name, version in found.items()} == accepted
    nine = found["9"].counts
    assert nine is not None
    assert nine.rows == accepted["9"]
    again, nothing = restarted(kept(store), clock, CONFIG, BASELINES)
    assert nothing == []
    assert page(again) == page(store)
