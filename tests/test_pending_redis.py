"""Predictions that wait in Redis: against a real redis-server, which is killed, stopped and started again."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings

from mlexporter.pending.records import (
    Joined,
    Label,
    Lost,
    Match,
    Pair,
    PendingStore,
    Prediction,
    StoreError,
    Waiting,
)
from mlexporter.pending.redis import RedisStore

HORIZON = 86_400.0


class Server:
    """A redis-server on a free port of this machine."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.options = options
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert any("Ready to accept connections" in line for line in self.process.stdout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def hang(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving("--appendonly", "no") as server:
        yield server


@pytest.fixture
def client(shared: Server) -> Iterator["redis.Redis"]:
    """Redis itself, empty."""
    with redis.Redis.from_url(shared.url) as client:
        client.flushall()
        yield client


Opener = Callable[..., RedisStore]


@pytest.fixture
def replica(shared: Server, client: "redis.Redis") -> Iterator[Opener]:
    """Opens stores on the same empty Redis."""
    with contextlib.ExitStack() as stack:

        def opened(horizon: float = HORIZON, *, max_rows: int = 1_000_000, url: str = shared.url) -> RedisStore:
            return stack.enter_context(contextlib.closing(RedisStore(url, lambda _: horizon, max_rows=max_rows)))

        yield opened


@pytest.fixture
def store(replica: Opener) -> PendingStore:
    return replica()


def prediction(
    name: str, time: float = 0.0, value: bytes = b"0.5", *, model: str = "m", version: str = "1"
) -> Prediction:
    return Prediction(model=model, version=version, id=name, time=time, value=value)


def label(name: str, time: float = 0.0, value: bytes = b"1", *, model: str = "m", version: str | None = None) -> Label:
    return Label(model=model, version=version, id=name, time=time, value=value)


def put(store: PendingStore, *rows: Prediction | Label) -> Joined:
    """Apply these, in this order within their kind."""
    return store.apply(
        [row for row in rows if isinstance(row, Prediction)],
        [row for row in rows if isinstance(row, Label)],
        lambda _: {},
    )


# One replica


def test_a_label_finds_its_prediction(store: PendingStore) -> None:
    assert put(store, prediction("a", 100.25)) == Joined(tracked={("m", "1"): 1}, matches=[], pairs=[], repeated={})
    assert store.waiting() == Waiting(predictions={("m", "1"): 1}, labels={})
    assert put(store, label("a", 160.75, b'"yes"')).matches == [
        Match(model="m", version="1", prediction=b"0.5", label=b'"yes"', delay=60.5, time=160.75)
    ]
    assert store.waiting().predictions == {}


def test_times_and_values_pass_unchanged(store: PendingStore) -> None:
    value = '{"höher": 0.30000000000000004, "": 1e-300}'.encode() * 1000
    put(store, prediction("ïd", 1_700_000_000.1234567, value))
    (match,) = put(store, label("ïd", 1_700_000_001.7654321)).matches
    assert (match.prediction, match.time) == (value, 1_700_000_001.7654321)
    assert match.delay == 1_700_000_001.7654321 - 1_700_000_000.1234567


def test_a_delay_is_never_negative(store: PendingStore) -> None:
    put(store, prediction("a", 100.0))
    assert put(store, label("a", 99.0)).matches[0].delay == 0


def test_the_first_prediction_stands(store: PendingStore) -> None:
    put(store, prediction("a", 1.0, b"0.1"))
    assert put(store, prediction("a", 2.0, b"0.2")).tracked == {}
    (match,) = put(store, label("a", 5.0)).matches
    assert (match.prediction, match.delay) == (b"0.1", 4.0)
    assert put(store, prediction("a", 6.0, b"0.3")) == Joined(tracked={}, matches=[], pairs=[], repeated={})


def test_labels_repeat_and_correct(store: PendingStore) -> None:
    put(store, prediction("a", 1.0), label("a", 2.0, b"0"))
    assert put(store, label("a", 3.0, b"0")) == Joined(tracked={}, matches=[], pairs=[], repeated={("m", "1"): 1})
    (corrected,) = put(store, label("a", 4.0, b"1", version="1")).matches
    assert (corrected.label, corrected.time, corrected.replaced) == (b"1", 4.0, (b"0", 2.0))
    (again,) = put(store, label("a", 5.0, b"0")).matches
    assert again.replaced == (b"1", 4.0)


def test_a_label_may_come_first(store: PendingStore) -> None:
    assert put(store, label("a", 1.0), label("b", 1.0, version="1"), label("c", 1.0, version="2")).matches == []
    assert store.waiting() == Waiting(predictions={}, labels={"m": 3})
    joined = put(store, prediction("a", 2.0), prediction("b", 2.0), prediction("c", 2.0))
    assert joined.tracked == {("m", "1"): 3}
    assert [(match.delay, match.time) for match in joined.matches] == [(0.0, 1.0), (0.0, 1.0)]
    assert store.waiting() == Waiting(predictions={("m", "1"): 1}, labels={"m": 1})


def test_of_labels_that_wait_the_last_one_counts(store: PendingStore) -> None:
    put(store, label("a", 1.0, b"1"), label("a", 2.0, b"2"), label("a", 3.0, b"2"))
    put(store, label("b", 1.0, b"1", version="1"), label("b", 1.0, b"2"))
    put(store, label("c", 1.0, b"1"), label("c", 1.0, b"2", version="1"))
    assert store.waiting().labels == {"m": 4}
    matches = put(store, *(prediction(name, 9.0) for name in "abc")).matches
    assert [(match.label, match.time) for match in matches] == [(b"2", 2.0), (b"2", 1.0), (b"2", 1.0)]
    assert store.waiting() == Waiting()


def test_a_label_for_all_versions_is_for_those_to_come_too(store: PendingStore) -> None:
    put(store, prediction("a", version="1"), prediction("a", version="2"))
    assert {match.version for match in put(store, label("a")).matches} == {"1", "2"}
    assert [match.version for match in put(store, prediction("a", version="3")).matches] == ["3"]
    put(store, prediction("b", version="1"), label("b", version="1"))
    assert put(store, prediction("b", version="2")).matches == []


def test_each_pair_of_versions_is_told_without_and_with_its_label(store: PendingStore) -> None:
    put(store, prediction("a", value=b"0.2", version="2"))
    (pair,) = put(store, prediction("a", value=b"0.1", version="1")).pairs
    assert pair == Pair(model="m", versions=("1", "2"), predictions=(b"0.1", b"0.2"), label=None)
    (labelled,) = put(store, label("a", version="1")).pairs
    assert labelled == msgspec.structs.replace(pair, label=b"1")
    assert put(store, label("a")).pairs == []
    assert put(store, label("a", value=b"0"), prediction("a", version="1")).pairs == []
    third = put(store, prediction("a", value=b"0.3", version="3")).pairs
    assert Counter((pair.versions, pair.label) for pair in third) == {
        (("1", "3"), None): 1, (("2", "3"), None): 1, (("1", "3"), b"0"): 1, (("2", "3"), b"0"): 1,
    }  # fmt: skip


def test_what_is_given_up_is_counted_by_reason(replica: Opener) -> None:
    store = replica(10_000.0)
    put(store, prediction("a", 0.0), prediction("b", 0.0), prediction("c", 1.0), label("b", 5.0))
    put(store, label("x", 5.0, version="1"), label("y", 6_400.0))
    assert store.forget(3605.0) == Lost()
    assert store.forget(3605.5) == Lost(predictions={}, labels={("m", "horizon"): 1})
    assert store.forget(10_000.0) == Lost()
    # b had its label
    assert store.forget(10_000.5) == Lost(predictions={("m", "1", "horizon"): 1}, labels={("m", "horizon"): 1})
    assert put(store, label("a"), label("b")).matches == []
    assert [match.delay for match in put(store, label("c", 10_001.0)).matches] == [10_000.0]


def test_a_label_waits_no_longer_than_a_prediction(replica: Opener) -> None:
    store = replica(60.0)
    put(store, label("a", 0.0))
    assert store.forget(60.0) == Lost()
    assert store.forget(60.5).labels == {("m", "horizon"): 1}


def test_horizons_are_of_models(replica: Opener, shared: Server) -> None:
    with contextlib.closing(RedisStore(shared.url, {"m": 10.0, "n": 20.0}.__getitem__)) as store:
        put(store, prediction("a"), prediction("a", model="n"))
        assert store.forget(15.0).predictions == {("m", "1", "horizon"): 1}
        assert store.forget(25.0).predictions == {("n", "1", "horizon"): 1}


def test_beyond_the_limit_the_oldest_go(replica: Opener) -> None:
    store = replica(max_rows=2)
    put(store, prediction("c", 3.0), prediction("b", 2.0, model="n"), prediction("a", 1.0), prediction("d", 4.0))
    put(store, label("x", 0.5), label("y", 9.0, model="n"), label("z", 8.0, version="1"))
    assert store.forget(10.0) == Lost(
        predictions={("m", "1", "limit"): 1, ("n", "1", "limit"): 1}, labels={("m", "limit"): 1}
    )
    assert store.forget(10.0) == Lost()
    assert len(put(store, label("c", 10.0), label("d", 10.0)).matches) == 2
    assert len(put(store, prediction("y", model="n"), prediction("z")).matches) == 2


def test_beyond_the_limit_those_with_a_label_go_first(replica: Opener) -> None:
    store = replica(max_rows=2)
    put(store, *(prediction(name, time) for time, name in enumerate("abcd")), label("c"), label("d"))
    assert store.forget(10.0) == Lost()
    assert store.waiting().predictions == {("m", "1"): 2}
    put(store, prediction("e", 5.0))
    assert store.forget(10.0) == Lost(predictions={("m", "1", "limit"): 1})
    assert len(put(store, label("b"), label("e")).matches) == 2


def test_a_label_that_waits_outlives_the_prediction_of_another_version(replica: Opener) -> None:
    store = replica(60.0)
    put(store, prediction("a", 0.0), label("a", 50.0, version="2"))
    assert store.forget(60.5) == Lost(predictions={("m", "1", "horizon"): 1})
    assert len(put(store, prediction("a", 61.0, version="2")).matches) == 1


def test_when_the_predictions_go_so_does_their_label(replica: Opener, client: "redis.Redis") -> None:
    store = replica(60.0)
    put(store, prediction("a", 0.0), label("a", 50.0))
    store.forget(60.5)
    assert put(store, prediction("a", 61.0, version="2")).matches == []
    store.forget(1000.0)
    store.forget(1000.0)
    assert [key for key in client.scan_iter() if b":answer:" not in key] == []


def test_many_rows_are_applied_and_given_up_in_steps(replica: Opener) -> None:
    store = replica(max_rows=1_500)
    ids = [str(i) for i in range(2_700)]
    joined = put(store, *(prediction(name) for name in ids), *(label(name) for name in ids[:1_800]))
    assert joined.tracked == {("m", "1"): 2_700}
    assert len(joined.matches) == 1_800
    assert store.waiting().predictions == {("m", "1"): 900}
    put(store, *(prediction(name, 5.0 + i, version="2") for i, name in enumerate(ids)))
    # All 3,600 with a label, and the oldest 300 of those without.
    assert store.forget(HORIZON - 1.0).predictions == {("m", "1", "limit"): 300}
    assert store.waiting().predictions == {("m", "1"): 600, ("m", "2"): 900}
    # Beyond their time: what is left of version 1, and of version 2 the times 1,805 to 1,999.
    lost = store.forget(HORIZON + 2_000.0).predictions
    assert lost == {("m", "1", "horizon"): 600, ("m", "2", "horizon"): 195}
    assert store.forget(HORIZON + 9_000.0).predictions == {("m", "2", "horizon"): 705}


def test_odd_names_are_kept_apart(store: PendingStore, client: "redis.Redis") -> None:
    names = ["a", "a}:id:b", "{a}", "id:", "b:", "", "é", "b}:id:a"]
    rows = [(model, version, name) for model in names for version in names for name in names]
    put(store, *(prediction(name, model=model, version=version) for model, version, name in rows))
    joined = put(store, *(label(name, model=model, version=version) for model, version, name in rows))
    assert joined.repeated == {}
    assert Counter((match.model, match.version) for match in joined.matches) == {
        (model, version): len(names) for model in names for version in names
    }


def test_keys_have_the_prefix_and_an_end(replica: Opener, client: "redis.Redis") -> None:
    store = replica(1000.0)
    put(store, prediction("a"), prediction("b"), label("a"), label("c"), label("d", version="9"))
    store.forget(0.0)
    store.waiting()
    keys = [*client.scan_iter()]
    assert len(keys) > 3
    for key in keys:
        assert bytes(key).startswith(b"mlexporter:")
        assert 1000 < client.ttl(key) <= 1000 + 3600 or b":answer:" in key
        assert client.ttl(key) > 0


# Any order, against dictionaries


class Dictionaries:
    """The same in memory, with one entry for each prediction and each label that waits."""

    def __init__(self, horizon: float) -> None:
        self.horizon = horizon
        self.predictions: dict[tuple[str, str], Prediction] = {}  # by id and version
        self.counted: dict[tuple[str, str], Label] = {}
        self.early: dict[tuple[str, str | None], Label] = {}
        self.for_all: dict[str, Label] = {}

    def versions(self, name: str) -> list[str]:
        return [version for at, version in self.predictions if at == name]

    def apply(self, predictions: Sequence[Prediction], labels: Sequence[Label]) -> tuple[Counter[Any], ...]:
        self.told: tuple[Counter[Any], ...] = (Counter(), Counter(), Counter(), Counter())
        for row in predictions:
            self.predict(row)
        for each in labels:
            for version in self.versions(each.id) if each.version is None else [each.version]:
                self.learn(each, version)
            if each.version is None:
                self.learn_for_all(each)
        return self.told

    def predict(self, row: Prediction) -> None:
        if (row.id, row.version) in self.predictions:
            return
        self.told[0][row.version] += 1
        self.predictions[row.id, row.version] = row
        waiting = self.early.pop((row.id, None), None)
        if waiting is not None:
            self.for_all[row.id] = waiting
        found = self.early.pop((row.id, row.version), None) or self.for_all.get(row.id)
        if found is not None:
            self.learn(found, row.version, new=True)
        for other in self.versions(row.id):
            if other != row.version:
                self.pair(row.id, row.version, other, None)
                truth = found or self.counted.get((row.id, other))
                if truth is not None:
                    self.pair(row.id, row.version, other, truth.value)

    def learn(self, row: Label, version: str, *, new: bool = False) -> None:
        at = row.id, version
        before = self.counted.get(at)
        if at not in self.predictions:
            if at not in self.early or self.early[at].value != row.value:
                self.early[at] = row
        elif before is not None and before.value == row.value:
            self.told[3][version] += 1
        else:
            self.counted[at] = row
            made = self.predictions[at]
            replaced = None if before is None else (before.value, before.time)
            delay = max(0.0, row.time - made.time)
            self.told[1][Match("m", version, made.value, row.value, delay, row.time, replaced)] += 1
            if before is None and not new:
                for other in self.versions(row.id):
                    if (row.id, other) not in self.counted:
                        self.pair(row.id, version, other, row.value)

    def learn_for_all(self, row: Label) -> None:
        for at in [at for at in self.early if at[0] == row.id and at[1] is not None]:
            del self.early[at]
        known = self.for_all.get(row.id) or self.early.get((row.id, None))
        if known is None or known.value != row.value:
            if self.versions(row.id):
                self.for_all[row.id] = row
            else:
                self.early[row.id, None] = row

    def pair(self, name: str, version: str, other: str, told: bytes | None) -> None:
        a, b = sorted([version, other])
        of = (self.predictions[name, a].value, self.predictions[name, b].value)
        self.told[2][Pair("m", (a, b), of, told)] += 1

    def forget(self, now: float) -> tuple[Counter[str], int]:
        lost: Counter[str] = Counter()
        for at in [at for at, row in self.predictions.items() if row.time < now - self.horizon]:
            lost[at[1]] += at not in self.counted
            del self.predictions[at]
            self.counted.pop(at, None)
            if not self.versions(at[0]):
                self.for_all.pop(at[0], None)
        gone = [at for at, row in self.early.items() if row.time < now - min(3600, self.horizon)]
        for at_early in gone:
            del self.early[at_early]
        return +lost, len(gone)


VERSIONS = st.sampled_from(["1", "2", "3"])
IDS = st.sampled_from("abc")
PREDICTED = st.tuples(VERSIONS, IDS, st.sampled_from([b"0.1", b"0.9"]))
TOLD = st.tuples(st.none() | VERSIONS, IDS, st.sampled_from([b"0", b"1"]))
STEP = st.tuples(
    st.integers(0, 1), st.integers(0, 2000), st.lists(PREDICTED, max_size=4), st.lists(TOLD, max_size=4), st.booleans()
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1500.0, 6000.0]), st.lists(STEP, max_size=8))
def test_two_replicas_are_one_dictionary(
    client: "redis.Redis",
    shared: Server,
    horizon: float,
    steps: list[tuple[int, int, list[tuple[str, str, bytes]], list[tuple[str | None, str, bytes]], bool]],
) -> None:
    client.flushall()
    reference, now = Dictionaries(horizon), 1_700_000_000.0
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(contextlib.closing(RedisStore(shared.url, lambda _: horizon))) for _ in "ab"]
        for which, pause, predicted, told, forget in steps:
            now += pause
            predictions = [prediction(name, now, value, version=version) for version, name, value in predicted]
            labels = [label(name, now + 0.5, value, version=version) for version, name, value in told]
            joined = put(stores[which], *predictions, *labels)
            expected = reference.apply(predictions, labels)
            assert {version: count for (_, version), count in joined.tracked.items()} == expected[0]
            assert Counter(joined.matches) == expected[1]
            assert Counter(joined.pairs) == expected[2]
            assert {version: count for (_, version), count in joined.repeated.items()} == expected[3]
            if forget:
                lost = stores[1 - which].forget(now)
                predictions_lost, labels_lost = reference.forget(now)
                assert {version: count for (_, version, _), count in lost.predictions.items()} == predictions_lost
                assert sum(lost.labels.values()) == labels_lost
            waiting = stores[which].waiting()
            assert sum(waiting.labels.values()) == len(reference.early)
            assert waiting.predictions == Counter(
                ("m", version) for name, version in reference.predictions if (name, version) not in reference.counted
            )


# Several replicas


def test_predictions_to_one_replica_labels_to_another(replica: Opener) -> None:
    """Both at once, in any order, with duplicates: every label is counted once, in total."""
    ids = [str(i) for i in range(3_000)]
    rows: list[Prediction | Label] = [prediction(name, value=name.encode()) for name in ids for _ in range(2)]
    rows += [label(name, value=name.encode()) for name in ids[:2_500] for _ in range(3)]
    rows += [label(f"unknown {name}") for name in ids[:100]]
    random.Random(5).shuffle(rows)
    halves = [
        [row for row in rows if isinstance(row, Prediction)],
        [row for row in rows if isinstance(row, Label)],
    ]

    def feed(half: Sequence[Prediction | Label]) -> list[Joined]:
        store = replica()
        return [put(store, *half[first : first + 97]) for first in range(0, len(half), 97)]

    with ThreadPoolExecutor(2) as threads:
        joined = list(itertools.chain.from_iterable(threads.map(feed, halves)))
    matches = [match for each in joined for match in each.matches]
    assert sorted(match.label for match in matches) == sorted(name.encode() for name in ids[:2_500])
    assert all(match.prediction == match.label and match.replaced is None for match in matches)
    assert sum(each.tracked.get(("m", "1"), 0) for each in joined) == 3_000
    assert replica().waiting() == Waiting(predictions={("m", "1"): 500}, labels={"m": 100})


def test_each_loss_is_told_to_one_replica(replica: Opener) -> None:
    put(replica(), *(prediction(str(i)) for i in range(6_000)))
    together = threading.Barrier(3)

    def forget(store: RedisStore) -> int:
        together.wait()
        return store.forget(HORIZON + 1).predictions.get(("m", "1", "horizon"), 0)

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(forget, [replica(), replica(), replica()])) == 6_000


# Redis in trouble


def test_redis_is_gone_and_comes_back(tmp_path: Path) -> None:
    """Killed again and again in between; with its file it knows what it knew, and nothing is told twice."""
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))
    rows = [prediction(str(i)) for i in range(400)]
    labels = [label(str(i)) for i in range(400)] * 2
    random.Random(1).shuffle(labels)
    matches: list[Match] = []
    with serving(*options) as server, contextlib.ExitStack() as stack:
        stores = [stack.enter_context(contextlib.closing(RedisStore(server.url, lambda _: HORIZON))) for _ in range(2)]
        put(stores[0], *rows)
        for turn in range(4):
            part = labels[turn * 200 : (turn + 1) * 200]
            server.kill()
            for store in stores:
                with pytest.raises(StoreError, match=rf"Redis at 127\.0\.0\.1:{server.port}: .*refused"):
                    put(store, *part)
            with pytest.raises(StoreError):
                stores[0].waiting()
            with pytest.raises(StoreError):
                stores[0].forget(0.0)
            server.start()
            matches += put(stores[turn % 2], *part).matches
            assert stores[0].forget(0.0) == Lost()
        assert len(matches) == 400
        assert stores[1].waiting().predictions == {}


def test_an_answer_that_comes_too_late_is_given_again() -> None:
    """Redis hangs, and does what it was asked after the caller has given up."""
    with serving() as server, contextlib.closing(RedisStore(server.url, lambda _: 60.0)) as store:
        put(store, prediction("a"), prediction("b"))
        server.hang()
        with pytest.raises(StoreError, match=r"Redis at 127\.0\.0\.1"):
            put(store, label("a"))
        server.go_on()
        # Redis serves the connections in turn: when it answers here, it has done what came before.
        assert store.waiting().predictions == {("m", "1"): 1}
        joined = put(store, label("a"))
        assert (len(joined.matches), joined.repeated) == (1, {})
        assert put(store, label("a")).repeated == {("m", "1"): 1}


class Deaf:
    """A script that runs, and whose answer now and then does not arrive."""

    def __init__(self, store: RedisStore, *lost: int) -> None:
        self.script: Callable[..., Any] = store._script
        self.lost = lost
        self.calls = 0

    def __call__(self, **arguments: Any) -> Any:
        answer = self.script(**arguments)
        self.calls += 1
        if self.calls in self.lost:
            raise redis.TimeoutError("Timeout reading from socket")
        return answer


@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (1, 2), (1, 2, 4)])
def test_a_retry_finishes_what_was_begun(
    replica: Opener, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    store = replica()
    monkeypatch.setattr(store, "_script", Deaf(store, *lost))
    rows: list[Prediction | Label] = [prediction(str(i)) for i in range(1_400)]
    rows += [label(str(i)) for i in range(1_400)]
    for _ in lost:
        with pytest.raises(StoreError, match="Timeout"):
            put(store, *rows)
    joined = put(store, *rows)
    assert joined.tracked == {("m", "1"): 1_400}
    assert (len(joined.matches), joined.repeated) == (1_400, {})


def test_what_was_answered_before_a_failure_comes_with_the_next_call(
    replica: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = replica()
    put(store, *(prediction(str(i)) for i in range(1_500)))
    monkeypatch.setattr(store, "_script", Deaf(store, 2))
    with pytest.raises(StoreError):
        put(store, *(label(str(i)) for i in range(1_500)))
    assert len(put(store, prediction("other")).matches) == 500


@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (1, 3)])
def test_losses_whose_answer_is_lost_are_still_told(
    replica: Opener, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    store = replica()
    put(store, *(prediction(str(i)) for i in range(1_500)))
    monkeypatch.setattr(store, "_script", Deaf(store, *lost))
    for later in range(len(lost)):
        with pytest.raises(StoreError):
            store.forget(HORIZON + 1 + later)
    assert store.forget(HORIZON + 9) == Lost(predictions={("m", "1", "horizon"): 1_500})


def test_a_prediction_that_redis_dropped_is_lost_and_a_label_since_then_waits(
    replica: Opener, client: "redis.Redis"
) -> None:
    """When all exporters were away for longer than the horizon, only its place in an index is left of a row."""
    store = replica(60.0)
    put(store, prediction("a", 0.0))
    assert client.delete("mlexporter:{m}:id:a") == 1
    assert put(store, label("a", 50.0)).matches == []
    assert store.forget(61.0) == Lost(predictions={("m", "1", "horizon"): 1})
    assert len(put(store, prediction("a", 62.0)).matches) == 1


def test_redis_is_asked_once_and_not_for_long() -> None:
    """A port that takes connections and says nothing: the caller is told, and decides when to try again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with contextlib.closing(RedisStore(url, lambda _: 60.0)) as store, pytest.raises(StoreError, match="Timeout"):
            put(store, prediction("a"))
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_scripts_that_redis_forgot_are_loaded_again(store: PendingStore, client: "redis.Redis") -> None:
    put(store, prediction("a"))
    client.script_flush()
    assert len(put(store, label("a")).matches) == 1


def test_redis_that_is_full_changes_nothing(store: PendingStore, client: "redis.Redis") -> None:
    put(store, prediction("a"))
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreError, match="maxmemory"):
            put(store, prediction("b"), label("a"))
        assert store.waiting().predictions == {("m", "1"): 1}
    finally:
        client.config_set("maxmemory", "0")
    assert len(put(store, prediction("b"), label("a")).matches) == 1


def test_the_password_is_in_no_message() -> None:
    with serving("--requirepass", "right") as server:
        for url in (
            f"redis://:s3cret-word@127.0.0.1:{server.port}",
            f"redis://user:s3cret-word@127.0.0.1:{server.port}/7",
            "redis://:s3cret-word@127.0.0.1:1",
            f"redis://127.0.0.1:{server.port}",
        ):
            with contextlib.closing(RedisStore(url, lambda _: HORIZON)) as store:
                with pytest.raises(StoreError, match=r"Redis at 127\.0\.0\.1:") as caught:
                    put(store, prediction("a"))
                with pytest.raises(StoreError) as also:
                    store.forget(0.0)
                for error in (caught.value, also.value):
                    assert "s3cret" not in "".join(traceback.format_exception(error))
        with contextlib.closing(RedisStore(f"redis://:right@127.0.0.1:{server.port}", lambda _: HORIZON)) as store:
            assert put(store, prediction("a")).tracked == {("m", "1"): 1}


@pytest.mark.parametrize("text", ["s3cret-word is wrong", "cannot use redis://:s3cret%2Dword@127.0.0.1:1"])
def test_the_password_is_taken_out_of_what_redis_says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def refuse(**_: object) -> None:
        raise redis.RedisError(text)

    with contextlib.closing(RedisStore("redis://:s3cret%2Dword@127.0.0.1:1", lambda _: HORIZON)) as store:
        monkeypatch.setattr(store, "_script", refuse)
        with pytest.raises(StoreError, match=r"Redis at 127\.0\.0\.1:1: .*\*\*\*") as caught:
            store.waiting()
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://:s3cret-word@h", "redis://:s3cret-word/@h", "redis://:x@h:s3cret", "s3cret"])
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL such as redis://host:6379/0") as caught:
        RedisStore(url, lambda _: HORIZON)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_redis_is_imported_only_when_a_store_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, mlexporter.pending.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError):
        RedisStore("redis://127.0.0.1", lambda _: HORIZON)


def test_totals_stay_with_the_replica(store: PendingStore) -> None:
    seen: list[Joined] = []

    def totals(joined: Joined) -> dict[str, bytes]:
        seen.append(joined)
        return {"a": b"1"}

    joined = store.apply([prediction("a")], [label("a")], totals)
    assert seen == [joined]
    assert store.totals() == {}
