"""The one mutable state: nothing that was accepted is lost, whoever writes and reads at the same time."""

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Clock, baseline, bin_counts, categorical, numeric
from mlexporter.alarm import Alarm, AlarmState
from mlexporter.baseline import Baseline, NumericColumn
from mlexporter.binning import Binner, Counts
from mlexporter.config import (
    ColumnConfig,
    Config,
    DetectionConfig,
    DiscoveryConfig,
    LimitsConfig,
    ModelConfig,
    Window,
)
from mlexporter.learning import Learner
from mlexporter.pending.records import Direct, Joined, Match
from mlexporter.samples import Batch, Reason, Rejection, Role
from mlexporter.snapshot import Monitor, VersionSnapshot
from mlexporter.store import FOLD_BATCHES, FOLD_BYTES, FOLD_ROWS, Store

EDGES = (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0)
PROFILE = baseline(
    numeric("x", EDGES, np.random.default_rng(0).normal(0, 1, 1000)),
    categorical("plan", {"pro": 600, "free": 400}),
)
WINDOWS = (Window(60.0, "1m"), Window(3600.0, "1h"))
LEARN = 300
PERIOD = 1000.0


def configured(clock: Clock, *versions: str) -> Store:
    """A store that knows the model m in these versions, and nothing else."""
    models = tuple(ModelConfig(name="m", version=version) for version in versions or ("1",))
    return Store(
        Config(models=models, windows=WINDOWS), {("m", version): PROFILE for version in versions or ("1",)}, clock
    )


def discovering(clock: Clock, **limits: int) -> Store:
    """A store that knows nothing and learns what comes."""
    discovery = DiscoveryConfig(enabled=True, learn_samples=LEARN, learn_period=PERIOD, max_models=3, max_columns=4)
    return Store(Config(windows=WINDOWS, discovery=discovery, limits=LimitsConfig(**limits)), {}, clock)


def numbers(rows: int, seed: int = 0, *, model: str | None = "m", version: str | None = None) -> Batch:
    values: list[object] = np.random.default_rng(seed).normal(0, 1, rows).tolist()
    return Batch(rows, {"x": values}, model=model, version=version)


def find(store: Store, version: str, model: str = "m") -> VersionSnapshot:
    (found,) = (known for known in store.snapshot().versions if (known.model, known.version) == (model, version))
    return found


def bins(store: Store, version: str = "1") -> list[int]:
    counts = find(store, version).counts
    assert counts is not None
    counted: list[int] = counts.bins.tolist()
    return counted


def names(store: Store) -> list[tuple[str, str]]:
    return [(version.model, version.version) for version in store.snapshot().versions]


# -- counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [1] * 50, [FOLD_ROWS - 1, 1, 1], [3 * FOLD_ROWS], [1] * (FOLD_BATCHES + 3)])
def test_a_snapshot_right_after_observe_holds_it(sizes: list[int]) -> None:
    store = configured(Clock())
    batches = [numbers(size, i) for i, size in enumerate(sizes)]
    assert store.observe(batches).accepted == sum(sizes)
    raw = [value for batch in batches for value in batch.features["x"]]
    version = find(store, "1")
    assert version.samples == sum(sizes)
    assert bins(store) == [*bin_counts(EDGES, np.array(raw, dtype=float)).tolist(), 0, 0, 0, 0, sum(sizes)]
    for _, window, sums in version.windows:
        assert window.tolist() == bins(store)
        assert sums.sum() == pytest.approx(sum(map(float, np.array(raw, dtype=float))))


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows, in batches and in bytes; nobody needs to read for it to be counted."""
    folded: list[int] = []
    count = Binner.count

    def counting(self: Binner, batches: Sequence[Batch], *, squares: bool = False) -> Counts:
        folded.append(len(batches))
        return count(self, batches, squares=squares)

    monkeypatch.setattr(Binner, "count", counting)
    store = configured(Clock())
    half = numbers(FOLD_ROWS // 2)
    store.observe([half, half, half])
    assert folded == [2]
    store.observe([half])
    assert folded == [2, 2]
    store.observe([numbers(1)] * (FOLD_BATCHES + 1))
    assert folded == [2, 2, FOLD_BATCHES]
    store.snapshot()
    assert folded == [2, 2, FOLD_BATCHES, 1]
    heavy = Batch(1, {"x": [1.0]}, model="m", weight=FOLD_BYTES // 2)
    store.observe([heavy, heavy])
    assert folded == [2, 2, FOLD_BATCHES, 1, 2]


def test_other_things_that_samples_tell() -> None:
    clock = Clock()
    store = configured(clock)
    assert find(store, "1").last_sample is None
    clock.now += 5
    latencies = [0.001, 0.0011, None, 30.0, 31.0, 0.0]
    store.observe([Batch(6, {"x": [1] * 6, "y": ["?"] * 6}, model="m", latency_seconds=latencies, errors=2)])
    clock.now += 5
    version = find(store, "1")
    assert version.last_sample == clock.now - 5
    assert (version.errors, version.unknown, version.samples) == (2, 6, 6)
    assert version.latency.counts.tolist() == [2, 1, *[0] * 11, 1, 1]
    assert version.latency.sum == pytest.approx(61.0021)


def test_windows_forget_by_the_clock() -> None:
    clock = Clock(1_700_000_000.0)
    store = configured(clock)
    store.observe([numbers(10)])
    store.tick()
    clock.now += 60
    store.observe([numbers(5)])
    held = [(label, int(window.sum()) // 2) for label, window, _ in find(store, "1").windows]
    assert held == [("1m", 5), ("1h", 15)]
    clock.now += 3600
    store.tick()
    held = [(label, int(window.sum()) // 2) for label, window, _ in find(store, "1").windows]
    assert held == [("1m", 0), ("1h", 0)]
    assert find(store, "1").samples == 15


# -- models and versions -----------------------------------------------------------------------------------------------


def test_versions_are_counted_apart() -> None:
    store = configured(Clock(), "1", "2")
    store.observe([numbers(3, version="2"), numbers(4, version="1"), numbers(5)])
    # samples without a version are of the first one that is configured
    assert (find(store, "1").samples, find(store, "2").samples) == (9, 3)
    assert sum(bins(store, "1")) == 18
    assert sum(bins(store, "2")) == 6


def test_unknown_model_costs_its_neighbours_nothing() -> None:
    store = configured(Clock())
    outcome = store.observe([numbers(2), numbers(3, model="other"), numbers(4)])
    assert outcome.accepted == 6
    assert [(one.reason, one.count) for one in outcome.rejections] == [(Reason.UNKNOWN_MODEL, 3)]
    assert names(store) == [("m", "1")]


def test_rollout_is_held_against_the_newest_baseline() -> None:
    entries = ModelConfig(name="m", version="1", task="binary"), ModelConfig(name="m", version="2")
    newest = baseline(numeric("x", (0.0, 1.0), [0.5]))
    store = Store(Config(models=entries, windows=WINDOWS), {("m", "1"): PROFILE, ("m", "2"): newest}, Clock())
    store.observe([Batch(2, {"x": [0.5, 9]}, model="m", version="3")])
    version = find(store, "3")
    assert version.monitor is not None
    assert version.monitor.baseline.hash == newest.hash
    assert version.task == "binary"
    assert bins(store, "3") == [0, 1, 1, 0]
    assert bins(store, "1") == [0] * 13
    assert store.baseline("m", "3") == newest


# -- learning ----------------------------------------------------------------------------------------------------------


def learned(store: Store, version: str = "unversioned") -> Baseline:
    found = store.baseline("m", version)
    assert found is not None
    return found


def column_x(profile: Baseline) -> NumericColumn:
    column = next(column for column in profile.columns if column.name == "x")
    assert isinstance(column, NumericColumn)
    return column


def check_baseline(profile: Baseline, raw: NDArray[np.float64]) -> None:
    """Its counts and moments are those of the raw data, whatever its edges are."""
    column = column_x(profile)
    assert list(column.counts) == bin_counts(column.edges, raw).tolist()
    assert profile.rows == len(raw)
    assert column.mean == pytest.approx(np.nanmean(raw), rel=1e-9)
    assert column.stddev == pytest.approx(np.nanstd(raw), rel=1e-9)
    index = np.searchsorted(np.asarray(column.edges), raw, side="left")
    for i, mean in enumerate(column.means):
        inside = raw[(index == i) & ~np.isnan(raw)]
        assert mean == (pytest.approx(inside.mean(), rel=1e-9) if len(inside) else None)


def test_discovery_from_first_sample_to_frozen_baseline() -> None:
    clock = Clock()
    store = discovering(clock)
    drawn = np.random.default_rng(1).normal(5, 2, 1000)
    drawn[::7] = np.nan
    sent = 0

    def send(rows: int) -> VersionSnapshot:
        nonlocal sent
        store.observe([Batch(rows, {"x": drawn[sent : sent + rows].tolist()}, model="m")])
        sent += rows
        return find(store, "unversioned")

    first = send(LEARN - 1)
    assert (first.monitor, first.counts, first.learned_rows, first.samples) == (None, None, LEARN - 1, LEARN - 1)
    assert first.windows == ()
    assert store.baseline("m", "unversioned") is None
    second = send(1)
    assert (second.learned_rows, second.samples) == (None, LEARN)
    assert second.monitor is not None
    assert second.monitor.baseline.provisional
    check_baseline(learned(store), drawn[:LEARN])
    # bins are fixed, and counts begin at 0: samples that were learned from do not count as live ones
    assert second.counts is not None
    assert second.counts.bins.sum() == 0
    edges = column_x(learned(store)).edges
    for rows in (1, 99, 100):
        third = send(rows)
        assert third.reference is not None
        assert third.reference.rows == sent
        check_baseline(learned(store), drawn[:sent])
        assert column_x(learned(store)).edges == edges
        assert learned(store).provisional
    assert third.counts is not None
    assert third.counts.bins.tolist() == bin_counts(edges, drawn[LEARN:sent]).tolist()
    clock.now += PERIOD - 1
    store.tick()
    assert learned(store).provisional
    clock.now += 1
    store.tick()
    frozen = learned(store)
    assert not frozen.provisional
    assert frozen.source == "learned"
    assert (frozen.model, frozen.version) == ("m", "unversioned")
    check_baseline(frozen, drawn[:sent])
    fourth = send(100)
    clock.now += PERIOD
    store.tick()
    assert learned(store) == frozen
    assert fourth.counts is not None
    assert fourth.counts.bins.tolist() == bin_counts(edges, drawn[LEARN:sent]).tolist()
    assert fourth.reference is not None
    assert fourth.reference.rows == 500


def test_a_configured_model_without_a_baseline_learns_with_its_types() -> None:
    entry = ModelConfig(name="m", version="1", columns={"zip": ColumnConfig(type="categorical")})
    discovery = DiscoveryConfig(enabled=True, learn_samples=LEARN)
    store = Store(Config(models=(entry,), windows=WINDOWS, discovery=discovery), {}, Clock())
    store.observe([Batch(LEARN, {"zip": [10115 + i % 3 for i in range(LEARN)]}, model="m")])
    (column,) = learned(store, "1").columns
    assert column.counts == (100, 100, 100, 0, 0, 0)


def test_a_rollout_of_a_learning_model_freezes_with_it() -> None:
    clock = Clock()
    store = discovering(clock)
    store.observe([numbers(LEARN, version="1"), numbers(50, 2, version="2")])
    rolled = find(store, "2")
    assert rolled.samples == 50
    assert rolled.monitor is not None
    assert rolled.monitor.baseline.provisional
    clock.now += PERIOD
    store.tick()
    assert not learned(store, "2").provisional
    assert learned(store, "2") == learned(store, "1")


def test_columns_beyond_the_cap_are_not_learned() -> None:
    store = discovering(Clock())
    store.observe([Batch(LEARN, {f"x{i}": [1.5] * LEARN for i in range(6)}, model="m")])
    assert [column.name for column in learned(store).columns] == ["x0", "x1", "x2", "x3"]
    assert find(store, "unversioned").unknown == 2 * LEARN
    store.observe([Batch(1, {f"x{i}": [1.5] for i in range(6)}, model="m")])
    assert find(store, "unversioned").unknown == 2 * LEARN + 2


# -- caps --------------------------------------------------------------------------------------------------------------


def test_max_versions_and_retirement_of_idle_ones() -> None:
    clock = Clock()
    config = Config(models=(ModelConfig(name="m", version="1"),), windows=WINDOWS, limits=LimitsConfig(max_versions=3))
    store = Store(config, {("m", "1"): PROFILE}, clock)
    series = store.snapshot().series
    store.observe([numbers(1, version="2"), numbers(1, version="3")])
    assert store.snapshot().series == 3 * series + 2 * (7 + 2 * 2)
    outcome = store.observe([numbers(7, version="4")])
    assert [(one.reason, one.count) for one in outcome.rejections] == [(Reason.VERSION_LIMIT, 7)]
    clock.now += 3600  # the longest window
    store.observe([numbers(1, version="3")])
    assert store.observe([numbers(7, version="4")]).accepted == 0
    clock.now += 1
    assert store.observe([numbers(7, version="4")]).accepted == 7
    # the configured one has been idle for ever, and stays
    assert names(store) == [("m", "1"), ("m", "3"), ("m", "4")]
    assert store.snapshot().series == 3 * series + 2 * (7 + 2 * 2)
    # one that comes back is a new one
    clock.now += 3601
    store.observe([numbers(5, version="2")])
    assert find(store, "2").samples == 5


def test_a_version_that_others_learn_from_is_not_retired() -> None:
    clock = Clock()
    discovery = DiscoveryConfig(enabled=True, learn_samples=LEARN, learn_period=86_400.0)
    store = Store(Config(windows=WINDOWS, discovery=discovery, limits=LimitsConfig(max_versions=2)), {}, clock)
    store.observe([numbers(LEARN, version="1"), numbers(1, version="2")])
    clock.now += 7200
    store.observe([numbers(1, version="3")])
    assert names(store) == [("m", "1"), ("m", "3")]
    clock.now += 86_400
    store.tick()
    assert not learned(store, "3").provisional
    # then it may go
    store.observe([numbers(1, version="3"), numbers(1, version="4")])
    assert names(store) == [("m", "3"), ("m", "4")]


def test_max_series_refuses_models_versions_and_baselines() -> None:
    store = discovering(Clock(), max_series=80)
    # 34 series a version before it has a baseline
    outcome = store.observe([numbers(1, model=name) for name in "abc"])
    assert (outcome.accepted, outcome.rejections[0].reason) == (2, Reason.SERIES_LIMIT)
    assert store.snapshot().series == 68
    outcome = store.observe([numbers(1, model="a", version="2")])
    assert outcome.rejections[0].reason is Reason.SERIES_LIMIT
    # learned, but with no room for its columns
    assert store.observe([numbers(LEARN, model="a")]).accepted == LEARN
    outcome = store.observe([numbers(5, model="a")])
    assert [(one.reason, one.count) for one in outcome.rejections] == [(Reason.SERIES_LIMIT, 5)]
    version = find(store, "unversioned", "a")
    assert (version.samples, version.monitor, version.learned_rows) == (LEARN + 1, None, None)
    assert store.snapshot().series == 68
    # the other one goes on
    assert store.observe([numbers(5, model="b")]).accepted == 5


# -- bugs and threads --------------------------------------------------------------------------------------------------


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fail, instead of hanging for ever, if work does not end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the store is stuck"


@pytest.mark.parametrize("learning", [False, True])
def test_a_bug_in_counting_wedges_nothing(monkeypatch: pytest.MonkeyPatch, learning: bool) -> None:
    clock = Clock()
    entries = tuple(ModelConfig(name=name, version="1") for name in "mno")
    profiles = {} if learning else {(name, "1"): PROFILE for name in "mno"}
    store = Store(Config(models=entries, windows=WINDOWS), profiles, clock)

    def broken(*_: object, **__: object) -> Counts:
        raise ZeroDivisionError

    # all three wait when the snapshot takes them, and the first one breaks
    store.observe([numbers(3, model=name) for name in "mno"])
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "add", broken)
        patch.setattr(Binner, "count", broken)
        with pytest.raises(ZeroDivisionError):
            store.snapshot()
        store.observe([numbers(3, model=name) for name in "mno"])
        with pytest.raises(ZeroDivisionError):
            store.tick()

    def later() -> None:
        store.observe([numbers(5, model=name) for name in "mno"])
        store.tick()
        assert [version.samples for version in store.snapshot().versions] == [5, 5, 5]

    within(10, later)
    assert [version.samples for version in store.snapshot().versions] == [5, 5, 5]


def test_a_learner_that_breaks_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has collected could break it again, and would grow without end."""
    store = discovering(Clock())
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", lambda *_: 1 // 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                store.observe([numbers(LEARN)])
    assert store.observe([numbers(LEARN - 1)]).accepted == LEARN - 1
    assert find(store, "unversioned").learned_rows == LEARN - 1
    store.observe([numbers(1)])
    assert learned(store).rows == LEARN


def test_a_bug_in_one_model_costs_no_other_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(ModelConfig(name=name, version="1") for name in "mno")
    other = baseline(numeric("y", (0.0, 1.0), [0.5]))
    profiles = {("m", "1"): PROFILE, ("n", "1"): other, ("o", "1"): PROFILE}
    store = Store(Config(models=entries, windows=WINDOWS), profiles, Clock())
    store.observe([numbers(3, model=name) for name in "mno"])
    count = Binner.count

    def broken(self: Binner, batches: Sequence[Batch], *, squares: bool = False) -> Counts:
        assert self.columns[0].name != "y"
        return count(self, batches, squares=squares)

    with monkeypatch.context() as patch:
        patch.setattr(Binner, "count", broken)
        with pytest.raises(AssertionError):
            store.snapshot()
    assert [version.samples for version in store.snapshot().versions] == [3, 0, 3]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_a_snapshot_waits_for_what_another_thread_is_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    store = configured(Clock())
    counting, go_on = threading.Event(), threading.Event()
    count = Binner.count

    def slow(self: Binner, batches: Sequence[Batch], *, squares: bool = False) -> Counts:
        counting.set()
        assert go_on.wait(30)
        return count(self, batches, squares=squares)

    monkeypatch.setattr(Binner, "count", slow)
    writer = threading.Thread(target=store.observe, args=([numbers(FOLD_ROWS)],))
    writer.start()
    assert counting.wait(30)
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.append(find(store, "1").samples))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive(), "it did not wait"
    # counting holds up readers, never writers
    within(10, lambda: store.observe([numbers(1)]))
    go_on.set()
    writer.join(30)
    reader.join(30)
    assert read == [FOLD_ROWS]
    assert find(store, "1").samples == FOLD_ROWS + 1


def test_one_thread_at_a_time_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    store = discovering(Clock())
    learning, go_on = threading.Event(), threading.Event()
    add = Learner.add
    entered: list[int] = []

    def slow(self: Learner, batch: Batch) -> None:
        entered.append(batch.size)
        learning.set()
        assert go_on.wait(30)
        add(self, batch)

    monkeypatch.setattr(Learner, "add", slow)
    first = threading.Thread(target=store.observe, args=([numbers(LEARN, 1)],))
    first.start()
    assert learning.wait(30)
    # what comes meanwhile waits, without holding up who brings it
    within(10, lambda: store.observe([numbers(LEARN + 1, 2)]))
    assert entered == [LEARN]
    # and a reader waits for it
    reader = threading.Thread(target=store.snapshot)
    reader.start()
    reader.join(0.05)
    assert reader.is_alive(), "it did not wait"
    assert entered == [LEARN]
    go_on.set()
    first.join(30)
    reader.join(30)
    version = find(store, "unversioned")
    assert entered == [LEARN]
    assert version.samples == 2 * LEARN + 1
    assert version.counts is not None
    assert version.counts.rows == LEARN + 1
    assert version.monitor is not None
    assert version.monitor.baseline.rows == LEARN


PLANS = ("pro", "free", "new", None)
MODELS = (("m", "1"), ("m", "2"), ("n", "unversioned"))


class Crowd:
    """Threads that write and read one store at random, and what they wrote."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self.store = store
        self.clock = clock
        self.seed = seed
        self.sent: list[list[Batch]] = []
        self.errors: list[BaseException] = []
        self.lock = threading.Lock()

    def run(self, threads: int) -> None:
        workers = [threading.Thread(target=self._work, args=(self.seed + i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive(), "the store is stuck"
        if self.errors:
            raise self.errors[0]

    def _work(self, seed: int) -> None:
        own: list[Batch] = []
        try:
            chance, source = random.Random(seed), np.random.default_rng(seed)
            for _ in range(60):
                batches = [self._batch(chance, source) for _ in range(chance.randint(1, 3))]
                outcome = self.store.observe(batches)
                assert outcome.accepted == sum(batch.size for batch in batches)
                own += batches
                if chance.random() < 0.2:
                    self._read(own)
                if chance.random() < 0.05:
                    self.store.tick()
                with self.lock:
                    self.clock.now += chance.choice([0, 0, 1])
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.errors.append(error)
        self.sent.append(own)

    @staticmethod
    def _batch(chance: random.Random, source: np.random.Generator) -> Batch:
        model, version = chance.choice(MODELS)
        size = chance.choice([1, 1, 1, 5, 300, 2500])
        x: list[object] = [None if chance.random() < 0.1 else value for value in source.normal(0, 2, size).tolist()]
        plan = [chance.choice(PLANS) for _ in range(size)]
        return Batch(
            size, {"x": x, "plan": plan}, model=model, version=version, errors=chance.randint(0, 1), weight=size
        )

    def _read(self, own: list[Batch]) -> None:
        """A snapshot holds at least what this thread sent, and all its counts are of one moment."""
        for version in self.store.snapshot().versions:
            mine = sum(batch.size for batch in own if (batch.model, batch.version) == (version.model, version.version))
            assert version.samples >= mine
            counts = version.counts
            assert counts is not None
            assert counts.rows == version.samples
            x, plan = counts.bins[:8].sum(), counts.bins[8:].sum()
            assert x == plan == version.samples
            for _, window, _ in version.windows:
                assert window[:8].sum() == window[8:].sum() == version.samples


def expected_counts(batches: Sequence[Batch]) -> list[int]:
    """The bins of PROFILE by numpy and by hand."""
    x = np.array([value for batch in batches for value in batch.features["x"]], dtype=np.float64)
    plans = Counter(value for batch in batches for value in batch.features["plan"])
    return [*bin_counts(EDGES, x).tolist(), plans["pro"], plans["free"], 0, plans["new"], plans[None]]


@pytest.mark.usefixtures("restless")
def test_threads_lose_nothing() -> None:
    clock = Clock()
    entries = ModelConfig(name="m", version="1"), ModelConfig(name="m", version="2"), ModelConfig(name="n")
    config = Config(models=entries, windows=(Window(86_400.0, "24h"), Window(7 * 86_400.0, "7d")))
    store = Store(config, dict.fromkeys(MODELS, PROFILE), clock)
    crowd = Crowd(store, clock, seed=100)
    crowd.run(8)
    sent = [batch for own in crowd.sent for batch in own]
    assert len(crowd.sent) == 8
    for version in store.snapshot().versions:
        batches = [batch for batch in sent if (batch.model, batch.version) == (version.model, version.version)]
        expected = expected_counts(batches)
        assert version.samples == sum(batch.size for batch in batches)
        assert version.errors == sum(batch.errors for batch in batches)
        assert version.counts is not None
        assert version.counts.bins.tolist() == expected
        for _, window, sums in version.windows:
            assert window.tolist() == expected
            assert sums == pytest.approx(version.counts.sums, rel=1e-9)


@pytest.mark.usefixtures("restless")
def test_threads_lose_nothing_while_a_baseline_is_learned() -> None:
    """Whatever samples the bins come from: all of them are in the baseline when it freezes, each once."""
    clock = Clock()
    store = discovering(clock)
    sent: list[NDArray[np.float64]] = []

    together = threading.Barrier(8)

    def work(seed: int) -> None:
        together.wait()
        source = np.random.default_rng(seed)
        for rows in source.integers(1, 60, 50):
            x = source.normal(0, 1, rows)
            sent.append(x)
            store.observe([Batch(int(rows), {"x": x.tolist()}, model="m")])
            if rows % 7 == 0:
                assert find(store, "unversioned").samples >= rows
            if rows % 11 == 0:
                store.tick()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the store is stuck"
    raw = np.concatenate(sent)
    assert find(store, "unversioned").samples == len(raw)
    clock.now += PERIOD
    store.tick()
    check_baseline(learned(store), raw)


def test_no_thread_sets_back_the_windows_of_another() -> None:
    """The clock is read under the lock: whoever read it first also comes first."""
    clock = Clock()
    store = configured(clock)
    store.observe([numbers(4)])
    store.tick()
    lock = store._lock
    held: list[bool] = []

    def watching() -> float:
        held.append(lock.locked())
        return clock.now

    store._clock = watching
    store.observe([numbers(1)])
    store.snapshot()
    store.tick()
    assert held
    assert all(held)


def test_roles_are_told_apart() -> None:
    profile = baseline(
        numeric("x", (0.0, 1.0), [0.5]),
        numeric("prediction", (0.0, 1.0), [0.5], role=Role.PREDICTION),
        categorical("prediction", {"a": 1}),
        categorical("label", {"a": 1}, role=Role.LABEL),
    )
    store = Store(Config(models=(ModelConfig(name="m", version="1"),)), {("m", "1"): profile}, Clock())
    store.observe([Batch(1, {"prediction": ["a"]}, model="m", prediction=[0.5], label=["b"])])
    assert bins(store) == [0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]


# -- the drift alarm ---------------------------------------------------------------------------------------------------


def alarm_of(store: Store, version: str = "1", model: str = "m") -> AlarmState:
    found = store.alarm(model, version)
    assert found is not None
    assert find(store, version, model).alarm is found
    return found


def told(state: AlarmState) -> int:
    """The number of samples of the last tick."""
    return int(state.evidence.dispersion.previous[:8].sum())


def drifted(rows: int, seed: int = 0, *, version: str | None = None) -> Batch:
    x: list[object] = np.random.default_rng(seed).normal(3, 1, rows).tolist()
    return Batch(rows, {"x": x, "plan": ["pro"] * rows}, model="m", version=version)


def steady(rows: int, seed: int = 0, *, version: str | None = None) -> Batch:
    """As PROFILE has it."""
    random = np.random.default_rng(seed)
    plan: list[object] = random.choice(["pro", "free"], rows, p=[0.6, 0.4]).tolist()
    return Batch(rows, {"x": random.normal(0, 1, rows).tolist(), "plan": plan}, model="m", version=version)


def test_only_ticks_with_samples_change_an_alarm() -> None:
    clock = Clock()
    store = configured(clock)
    assert store.alarm("m", "1") is None
    store.tick()
    first = alarm_of(store)
    assert (first.evidence.log_evidence == -np.inf).all()
    # neither scrapes, nor ticks without samples, nor samples before the tick
    for _ in range(5):
        store.snapshot()
        clock.now += 15
        store.tick()
        assert alarm_of(store) is first
    store.observe([drifted(70)])
    store.snapshot()
    assert alarm_of(store) is first
    # one tick, however late, with all that came since the last one; before the first one, too
    clock.now += 3600
    store.observe([drifted(30, 1)])
    store.tick()
    second = alarm_of(store)
    assert told(second) == 100
    assert second.firing.all()
    assert (second.fired == clock.now).all()
    for _ in range(5):
        clock.now += 15
        store.tick()
        store.snapshot()
        assert alarm_of(store) is second
    assert store.alarm("m", "2") is store.alarm("x", "1") is None


def test_samples_from_before_the_first_tick_count() -> None:
    store = configured(Clock())
    store.observe([drifted(40)])
    store.tick()
    assert told(alarm_of(store)) == 40


def test_a_rollout_has_evidence_of_its_own() -> None:
    clock = Clock()
    store = configured(clock)
    for tick in range(20):
        store.observe([steady(50, tick), drifted(50, tick, version="2")])
        clock.now += 15
        store.tick()
    first, second = alarm_of(store), alarm_of(store, "2")
    assert not first.firing.any()
    assert second.firing.all()
    assert (told(first), told(second)) == (50, 50)
    # of the same baseline: they share what is bet
    assert first.bets is second.bets


def test_the_threshold_is_for_all_columns_that_are_watched() -> None:
    def threshold(store: Store) -> float:
        found = store.snapshot().log_threshold
        assert found is not None
        return found

    store = configured(Clock(), "1", "2")
    assert threshold(store) == pytest.approx(np.log(2 * 2 * 30 * 5760))
    store.observe([numbers(1, version="3")])
    assert threshold(store) == pytest.approx(np.log(3 * 2 * 30 * 5760))
    detection = DetectionConfig(false_alarm_every=3600.0)
    hourly = Store(
        Config(models=(ModelConfig(name="m"),), detection=detection), {("m", "unversioned"): PROFILE}, Clock()
    )
    assert threshold(hourly) == pytest.approx(np.log(2 * 240))
    # none of a model that still learns
    learning = discovering(Clock())
    learning.observe([numbers(LEARN)])
    assert learning.snapshot().log_threshold is None
    learning.tick()
    assert learning.alarm("m", "unversioned") is None


def test_tolerances_are_those_of_the_configuration() -> None:
    columns = {"plan": ColumnConfig(warn_tolerance=0.5, page_tolerance=0.6)}
    config = Config(
        models=(ModelConfig(name="m", version="1", columns=columns),),
        detection=DetectionConfig(warn_tolerance=0.1, page_tolerance=0.4),
    )
    store = Store(config, {("m", "1"): PROFILE}, Clock())
    store.observe([drifted(40)])
    store.tick()
    assert alarm_of(store).tolerance.tolist() == [[0.1, 0.5], [0.4, 0.6]]
    assert alarm_of(store).firing.tolist() == [[True, False], [True, False]]


def test_a_model_that_learns_is_not_held_against_what_it_learns_from() -> None:
    clock = Clock()
    store = discovering(clock)
    # it drifts while it learns, and a rollout of it does
    for tick in range(20):
        store.observe([steady(50, tick, version="1"), drifted(50, 100 + tick, version="1")])
        if tick >= 5:  # by then there is a baseline, though it is not frozen
            store.observe([drifted(20, 200 + tick, version="2")])
        clock.now += 15
        store.tick()
        assert store.alarm("m", "1") is store.alarm("m", "2") is None
    assert learned(store, "1").provisional
    clock.now += PERIOD
    store.tick()
    assert not learned(store, "1").provisional
    for version in "12":
        assert (alarm_of(store, version).evidence.log_evidence == -np.inf).all()
    store.observe([drifted(30, 300, version="1"), drifted(10, 301, version="2")])
    clock.now += 15
    store.tick()
    first, second = alarm_of(store, "1"), alarm_of(store, "2")
    assert (first.seen.rows, second.seen.rows) == (20 * 100 - LEARN + 30, 15 * 20 + 10)
    assert first.evidence.dispersion.previous.sum() == 2 * 30
    assert second.evidence.dispersion.previous.sum() == 2 * 10


def test_samples_that_come_while_a_baseline_freezes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not in the baseline, so they are held against it; each once."""
    clock = Clock()
    store = discovering(clock)
    store.observe([steady(LEARN + 200, 1, version="1"), steady(50, 2, version="2")])
    frozen = Monitor.frozen

    def busy(self: Monitor, *args: object) -> Monitor:
        store.observe([steady(40, 3, version="1"), steady(30, 4, version="2")])
        store.snapshot()
        return frozen(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Monitor, "frozen", busy)
    clock.now += PERIOD
    store.tick()
    assert learned(store, "1").rows == LEARN + 200
    assert not learned(store, "1").provisional
    # the alarm begins with what the baseline has not seen
    assert alarm_of(store, "1").evidence.dispersion.previous.sum() == 2 * 40
    # of another version nothing is in it, and what came before there was one is held against nothing
    assert (alarm_of(store, "2").evidence.log_evidence == -np.inf).all()
    assert alarm_of(store, "2").seen.rows == 80
    store.observe([steady(5, 5, version="1"), steady(6, 6, version="2")])
    store.tick()
    assert alarm_of(store, "1").evidence.dispersion.previous.sum() == 2 * 5
    assert alarm_of(store, "2").evidence.dispersion.previous.sum() == 2 * 6


@pytest.mark.parametrize(("days", "rows", "knows"), [(7, 8, True), (6.9, 8, False), (7, 1, False)])
def test_a_model_that_learns_for_a_week_learns_its_season(days: float, rows: int, knows: bool) -> None:
    """If there is enough of it: a day with fewer than 200 rows tells nothing."""
    clock = Clock(1_700_006_400.0)  # midnight UTC
    discovery = DiscoveryConfig(enabled=True, learn_samples=200, learn_period=days * 86_400.0)
    columns = {"zone": ColumnConfig(season=True, timezone="Asia/Kathmandu"), "flat": ColumnConfig(season=False)}
    config = Config(models=(ModelConfig(name="m", columns=columns),), windows=WINDOWS, discovery=discovery)
    store = Store(config, {}, clock)
    random = np.random.default_rng(9)

    def send(n: int) -> None:
        x: list[object] = random.normal(np.sin(clock.now % 86_400 / 86_400 * 2 * np.pi), 1, n).tolist()
        still: list[object] = random.normal(0, 1, n).tolist()
        store.observe([Batch(n, {"wave": x, "zone": still, "flat": x, "still": still}, model="m")])

    send(200)
    store.tick()
    for _ in range(7 * 96):
        clock.now += 900
        send(rows)
        store.tick()
    profile = learned(store)
    assert not profile.provisional
    seasons = {column.name: column.season for column in profile.columns}
    assert {name for name, season in seasons.items() if season is not None} == ({"wave", "zone"} if knows else set())
    assert {column.days is not None for column in profile.columns} == {knows}
    if not knows:
        return
    wave, zone = seasons["wave"], seasons["zone"]
    assert wave is not None
    assert zone is not None
    assert (wave.timezone, zone.timezone) == ("UTC", "Asia/Kathmandu")
    # what was counted is in the profiles; the samples that the bins come from had no hour yet
    assert sum(map(sum, wave.hours)) == sum(map(sum, zone.hours)) == 7 * 96 * rows
    assert sum(next(column.counts for column in profile.columns)) == 7 * 96 * rows + 200
    state = alarm_of(store, "unversioned")
    assert (state.evidence.log_evidence == -np.inf).all()
    expected = []
    # from then on hours differ
    for _ in range(2):
        send(5)
        clock.now += 15
        store.tick()
        expected.append(alarm_of(store, "unversioned").rise.expected[0])
        clock.now += 6 * 3600
    assert not np.allclose(*expected)


def test_a_version_that_is_gone_has_no_alarm() -> None:
    clock = Clock()
    config = Config(models=(ModelConfig(name="m", version="1"),), windows=WINDOWS, limits=LimitsConfig(max_versions=2))
    store = Store(config, {("m", "1"): PROFILE}, clock)
    store.observe([drifted(200, version="2")])
    store.tick()
    assert alarm_of(store, "2").firing.all()
    clock.now += 3601
    store.observe([steady(1, version="3")])
    assert store.alarm("m", "2") is None
    clock.now += 3601
    # one that comes back begins anew
    store.observe([steady(50, 2, version="2")])
    store.tick()
    assert not alarm_of(store, "2").firing.any()


def test_each_tick_prepares_the_next_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """With samples or without."""
    prepared: list[float] = []
    monkeypatch.setattr(Alarm, "prepare", lambda _, now: prepared.append(now))
    clock = Clock()
    store = configured(clock)
    for rows in (0, 5, 0):
        store.observe([steady(rows)] if rows else [])
        clock.now += 15
        store.tick()
        store.snapshot()
    assert prepared == [clock.now - 30, clock.now - 15, clock.now]


def test_a_bug_in_the_alarm_of_one_version_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(
        Config(models=tuple(ModelConfig(name="m", version=version) for version in "123")),
        {("m", version): baseline(*PROFILE.columns) for version in "123"},
        Clock(),
    )
    advance = Alarm.advance
    broken = find(store, "2").monitor

    def advancing(self: Alarm, state: AlarmState, *arguments: Any) -> AlarmState:
        assert broken is not None
        if self is broken.alarm:
            raise RuntimeError("a bug")
        return advance(self, state, *arguments)

    monkeypatch.setattr(Alarm, "advance", advancing)
    store.observe([drifted(40, version=version) for version in "123"])
    with pytest.raises(RuntimeError, match="a bug"):
        store.tick()
    assert store.alarm("m", "2") is None
    assert alarm_of(store, "1").firing.any()
    assert alarm_of(store, "3").firing.any()


def test_a_baseline_file_that_was_saved_while_it_was_learned_is_watched() -> None:
    """It goes on no more."""
    provisional = msgspec.structs.replace(PROFILE, provisional=True)
    store = Store(Config(models=(ModelConfig(name="m", version="1"),)), {("m", "1"): provisional}, Clock())
    store.observe([drifted(40)])
    store.tick()
    assert alarm_of(store).firing.any()
    assert store.snapshot().versions[0].reference is not None


# -- what labels tell --------------------------------------------------------------------------------------------------

SCORES = baseline(numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75] * 500, role=Role.PREDICTION))


def judging(clock: Clock, kept: Mapping[str, bytes] | None = None, **limits: int) -> Store:
    entry = ModelConfig(name="m", version="1", task="binary")
    config = Config(models=(entry,), windows=WINDOWS, limits=LimitsConfig(**limits))
    return Store(config, {("m", "1"): SCORES}, clock, kept)


def label(store: Store, version: str, scores: list[object], labels: list[object], time: float) -> Mapping[str, bytes]:
    """Count predictions that came with their labels; what is to be written down of it."""
    tally = store.feedback.tally(Joined(), [Direct("m", version, scores, labels, time)])
    store.feedback.install(tally)
    return tally.totals


def test_outcomes_go_on_after_a_restart() -> None:
    clock = Clock()
    kept = label(judging(clock), "1", [0.9, 0.2], [1, 1], clock.now)
    again = judging(clock, kept)
    assert find(again, "1").feedback.totals.outcomes.rows == 2
    assert find(again, "1").feedback.windows[0][1].rows == 0, "windows are not kept"
    label(again, "1", [0.9], [1], clock.now)
    assert find(again, "1").feedback.totals.labels == 3


def test_a_correction_after_a_restart_leaves_no_debt_in_the_windows() -> None:
    """Of numbers a debt would be seen as an error under 0."""
    clock = Clock()
    profile = baseline(numeric("prediction", (0.0, 5.0, 10.0), [2.0, 8.0] * 500, role=Role.PREDICTION))

    def begun(kept: Mapping[str, bytes] | None = None) -> Store:
        config = Config(models=(ModelConfig(name="m", version="1", task="regression"),), windows=WINDOWS)
        return Store(config, {("m", "1"): profile}, clock, kept)

    first = Match("m", "1", b"5", b"1005", 1.0, clock.now)
    tally = (store := begun()).feedback.tally(Joined(matches=[first] * 300), ())
    store.feedback.install(tally)
    clock.now += 30.0
    store = begun(tally.totals)
    again = msgspec.structs.replace(first, label=b"6", time=clock.now, replaced=(first.label, first.time))
    store.feedback.install(store.feedback.tally(Joined(matches=[again] * 300), ()))
    feedback = find(store, "1").feedback
    for _, counts in feedback.windows:
        assert (counts.rows, counts.sums[:3].tolist()) == (300, [0.0, 300.0, 300.0])
    # the totals go on: what was counted before is taken back of them
    assert (feedback.totals.outcomes.rows, feedback.totals.retracted.rows) == (600, 300)


def test_a_tally_that_is_not_installed_changes_nothing() -> None:
    clock = Clock()
    store = judging(clock)
    store.feedback.tally(Joined(), [Direct("m", "1", [0.9], [1], clock.now)])
    assert find(store, "1").feedback.totals.labels == 0


def test_a_baseline_that_is_learned_between_tally_and_install_costs_outcomes_only() -> None:
    """They are in no bin of it; what has no bins is counted, as it is written down already."""
    clock = Clock()
    config = Config(windows=WINDOWS, discovery=DiscoveryConfig(enabled=True, learn_samples=200))
    store = Store(config, {}, clock)
    scores = [i / 200 for i in range(200)]
    store.observe([Batch(size=1, features={}, model="m", version="1", prediction=[0.5])])
    again = Match("m", "1", b"0.5", b"1", 7.0, clock.now)
    tally = store.feedback.tally(Joined({("m", "1"): 60}, [again], [], {("m", "1"): 2}), ())
    store.observe([Batch(size=200, features={}, model="m", version="1", prediction=scores)])
    assert find(store, "1").monitor is not None
    store.feedback.install(tally)
    totals = find(store, "1").feedback.totals
    assert (totals.tracked, totals.labels, totals.repeated, totals.delay_sum) == (60, 1, 2, 7.0)
    assert totals.outcomes.rows == 0
    assert label(store, "1", [0.9], [1], clock.now)
    totals = find(store, "1").feedback.totals
    assert (totals.tracked, totals.labels, totals.outcomes.rows) == (60, 2, 1)


def test_a_reload_between_tally_and_install_loses_nothing() -> None:
    """What was counted goes on in bins that are the same, wherever they come from."""
    clock = Clock()
    models = tuple(ModelConfig(name="m", version=name, task="binary") for name in "12")
    baselines, config = {("m", name): SCORES for name in "12"}, Config(models=models, windows=WINDOWS)
    store = Store(config, baselines, clock)
    store.observe([Batch(1, {}, "m", "3", [0.5])])
    begun = [find(store, name).feedback.totals.since for name in "123"]
    tally = store.feedback.tally(Joined(), [Direct("m", name, [0.9, 0.2], [1, 0], clock.now) for name in "123"])
    store.reload(msgspec.structs.replace(config, detection=DetectionConfig(warn_tolerance=0.002)), baselines)
    store.feedback.install(tally)
    for name, since in zip("123", begun, strict=True):
        feedback = find(store, name).feedback
        assert (feedback.totals.outcomes.rows, feedback.totals.since) == (2, since)
        assert [counts.rows for _, counts in feedback.windows] == [2, 2]


def test_outcomes_leave_the_windows_and_stay_in_the_totals() -> None:
    clock = Clock()
    store = judging(clock)
    label(store, "1", [0.9, 0.2], [1, 1], clock.now)
    rows = [counts.rows for _, counts in find(store, "1").feedback.windows]
    assert rows == [2, 2]
    clock.now += 61
    rows = [counts.rows for _, counts in find(store, "1").feedback.windows]
    assert rows == [0, 2]
    assert find(store, "1").feedback.totals.outcomes.rows == 2


def test_a_version_known_from_labels_alone_is_held_against_none_and_goes_first() -> None:
    """Its predictions waited since before a restart; no version that gets samples has to give way to it."""
    clock = Clock()
    store = judging(clock, max_versions=2)
    label(store, "0", [0.9], [1], clock.now)
    assert find(store, "0").feedback.totals.labels == 1
    assert find(store, "0").comparison is None
    assert store.observe([Batch(1, {}, "m", "2", [0.5])]).accepted == 1
    assert names(store) == [("m", "1"), ("m", "2")]
    comparison = find(store, "2").comparison
    assert comparison is not None
    assert comparison.previous == "1"


def test_predictions_that_come_with_their_labels_make_no_more_versions_than_samples_do() -> None:
    """Each version has counts that are kept in the file for good: they must not be had for the asking."""
    clock = Clock()
    store = judging(clock, max_versions=2)
    assert store.locate("m", "2", one=True) == ("m", "2")
    clock.now += 3600.0
    assert store.locate("m", "2", one=True) == ("m", "2")
    refused = store.locate("m", "3", one=True)
    assert isinstance(refused, Rejection)
    assert refused.reason is Reason.VERSION_LIMIT
    clock.now += 3601.0  # longer than the longest window
    assert store.locate("m", "3", one=True) == ("m", "3")
    assert names(store) == [("m", "1"), ("m", "3")]


def test_versions_with_other_bins_are_compared_in_those_of_the_one_before() -> None:
    clock = Clock()
    values = np.random.default_rng(1).normal(size=4000)
    coarse = baseline(numeric("x", np.quantile(values, np.linspace(0, 1, 11)).tolist(), values))
    fine = baseline(numeric("x", np.quantile(values, np.linspace(0, 1, 9)).tolist(), values))
    models = tuple(ModelConfig(name="m", version=version) for version in "123")
    profiles = {("m", "1"): coarse, ("m", "2"): fine, ("m", "3"): fine}
    store = Store(Config(models=models, windows=WINDOWS), profiles, clock)
    shifted = values + 1.0
    for version, sent in (("1", values), ("2", shifted), ("3", shifted)):
        store.observe([Batch(4000, {"x": sent.tolist()}, "m", version)])
    second, third = find(store, "2").comparison, find(store, "3").comparison
    assert second is not None
    assert third is not None
    assert (second.previous, third.previous) == ("1", "2")
    assert second.monitor is not None
    for comparison, before, after in ((second, values, shifted), (third, shifted, shifted)):
        assert comparison.monitor is not None
        (psi,) = comparison.monitor.statistician.psi_between(*comparison.windows[1][1:])
        # the same by hand, over the deciles of the version before; what is out of range goes to the outermost ones
        (column,) = comparison.monitor.binner.numeric
        edges = [column.edges[i] for i in column.coarse[1:-1]]
        q, p = (np.bincount(np.searchsorted(edges, sent), minlength=len(edges) + 1) + 0.5 for sent in (before, after))
        q, p = q / q.sum(), p / p.sum()
        assert psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()), abs=1e-9)
