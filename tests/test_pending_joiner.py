"""The thread that joins: with stores that fail, hang and are killed."""

import json
import logging
import math
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pending_child
from mlexporter.pending import joiner as module
from mlexporter.pending import queue
from mlexporter.pending.joiner import Joiner, Overloaded
from mlexporter.pending.offers import Offer
from mlexporter.pending.queue import OfferQueue
from mlexporter.pending.records import (
    Arrival,
    Arrivals,
    Direct,
    Joined,
    Label,
    Lost,
    PendingStore,
    Prediction,
    StoreError,
    Totals,
    Waiting,
    single,
)
from mlexporter.pending.runs import Came, Packed, Run, packed
from mlexporter.pending.sqlite import SqliteStore
from mlexporter.samples import Batch

ENOUGH = 30.0  # seconds after which a test that waits gives up


class Sum(msgspec.Struct, frozen=True):
    """Rows that were counted."""

    tracked: int = 0
    matched: int = 0
    repeated: int = 0
    direct: int = 0

    @property
    def totals(self) -> Totals:
        return {"sum": msgspec.json.encode(self)}


class Sink:
    """Counts; every state that it was in is kept."""

    def __init__(self) -> None:
        self.sum = Sum()
        self.tallies = 0
        self.given_up: list[Lost] = []
        self.shown = Waiting()
        self.broken = False

    def tally(self, joined: Joined, direct: Sequence[Direct]) -> Sum:
        self.tallies += 1
        if self.broken:
            raise ZeroDivisionError("secret value")
        return Sum(
            self.sum.tracked + sum(joined.tracked.values()),
            self.sum.matched + len(joined.matches),
            self.sum.repeated + sum(joined.repeated.values()),
            self.sum.direct + sum(len(each.labels) for each in direct),
        )

    def install(self, tally: Sum) -> None:
        self.sum = tally

    def lost(self, lost: Lost) -> None:
        self.given_up.append(lost)

    def waiting(self, waiting: Waiting) -> None:
        self.shown = waiting


class Store:
    """A store in memory that fails as often as it is told to, and works only while `open` is set."""

    def __init__(self) -> None:
        self.real = SqliteStore(None, lambda model: 86400.0)
        self.failures = 0
        self.at_commit = False
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.applied: list[tuple[list[Prediction], list[Label]]] = []

    def apply(self, predictions: Arrivals, labels: Sequence[Label], totals: Callable[[Joined], Totals]) -> Joined:
        self.entered.set()
        assert self.open.wait(ENOUGH)
        if not self.failures:
            self.applied.append(([*single(predictions)], list(labels)))
            return self.real.apply(predictions, labels, totals)
        self.failures -= 1

        def failing(joined: Joined) -> Totals:
            totals(joined)
            raise StoreError("no commit")

        if self.at_commit:
            return self.real.apply(predictions, labels, failing)
        raise StoreError("down")

    def forget(self, now: float) -> Lost:
        if self.failures:
            raise StoreError("down")
        return self.real.forget(now)

    def waiting(self) -> Waiting:
        return self.real.waiting()

    def totals(self) -> Totals:
        return self.real.totals()

    def close(self) -> None:
        self.real.close()


@contextmanager
def failing_threads() -> Iterator[list[threading.ExceptHookArgs]]:
    """What threads raise."""
    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        yield failed
    finally:
        threading.excepthook = before


@contextmanager
def running(store: PendingStore, sink: Sink, clock: Callable[[], float] = lambda: 100.0) -> Iterator[Joiner]:
    joiner = Joiner(store, sink, clock)
    thread = threading.Thread(target=joiner.run)
    thread.start()
    try:
        yield joiner
    finally:
        joiner.stop()
        thread.join(ENOUGH)
        assert not thread.is_alive()


def batch(names: Sequence[str | None], prediction: Sequence[object] | None = None, **columns: Any) -> Batch:
    values = [0.5] * len(names) if prediction is None else prediction
    return Batch(len(names), {"x": [1] * len(names)}, ids=names, prediction=values, **columns)


def told(*names: str, value: bytes = b"1", time: float = 10) -> list[Label]:
    return [Label("m", None, name, time, value) for name in names]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + ENOUGH
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(module, "LAST_RETRY_SECONDS", 0.01)


def test_predictions_and_labels_meet() -> None:
    store, sink = Store(), Sink()
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(["a", "b", None]), 5.0)
        joiner.submit(told("a", "c"))
        joiner.submit([Label("m", "1", "b", 11.0, b"0")], [Prediction("m", "2", "b", 5.0, b"1")])
        joiner.submit(told("a"))
    assert sink.sum == Sum(tracked=3, matched=2, repeated=1)
    assert store.totals() == sink.sum.totals
    health = joiner.health()
    assert (health.up, health.errors, health.queued_rows, health.dropped) == (True, 0, 0, 0)
    assert health.writes == len(store.applied)
    assert health.write_seconds > 0


def test_what_a_batch_offers() -> None:
    store, sink = Store(), Sink()
    names = ["number", "class", "flag", "object", "none", "nan", "list", "huge", "x" * 256, "x" * 257, None, "bad"]
    values = [1, "a", True, "top", None, float("nan"), [1], 2**70, 0.5, 0.5, 0.5, {1: 2}]
    objects = [None, None, None, {"top": 0.75}, *[None] * 8]
    labels = [0, "a", False, None, 1, 1, 1, 1, float("inf"), 1, 1, 1]
    with running(store, sink) as joiner:
        joiner.offer("m", "7", batch(names, values, probabilities=objects, label=labels), 5.0)
        joiner.offer("m", "7", Batch(1, {"x": [1]}, prediction=[1]), 5.0)
        joiner.offer("m", "7", Batch(1, {"x": [1]}, ids=["a"]), 5.0)
    ((predictions, told),) = store.applied
    assert predictions == [
        Prediction("m", "7", "number", 5.0, b"1"),
        Prediction("m", "7", "class", 5.0, b'"a"'),
        Prediction("m", "7", "flag", 5.0, b"true"),
        Prediction("m", "7", "object", 5.0, b'{"top":0.75}'),
        Prediction("m", "7", "x" * 256, 5.0, b"0.5"),
    ]
    assert told == [
        Label("m", "7", "number", 5.0, b"0"),
        Label("m", "7", "class", 5.0, b'"a"'),
        Label("m", "7", "flag", 5.0, b"false"),
    ]
    assert joiner.health().dropped == 3  # huge, 257 characters, and the object that is no JSON


@pytest.mark.parametrize("values", [[0.1, 1, True, None, float("nan"), -1e300], (2**64, 1, 0.1), ("a,b", 1), (None,)])
def test_each_row_keeps_its_own_value(values: Sequence[object]) -> None:
    names = [f"{i}" for i in range(len(values))]
    offer = Offer.of("m", "1", batch(names, values), 5.0)
    assert offer is not None
    predictions: list[Arrival] = []
    dropped = offer.encode(0, 1, predictions, [], []) + offer.encode(1, len(values), predictions, [], [])
    # the standard library's word for it
    written = {name: json.dumps(value) for name, value in zip(names, values, strict=True)}
    expected = {name: text for name, text in written.items() if text not in ("null", "NaN", str(2**64))}
    assert {prediction.id: json.loads(prediction.value) for prediction in single(predictions)} == {
        name: json.loads(text) for name, text in expected.items()
    }
    assert dropped == (2**64 in values)


def test_large_batches_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 100)
    monkeypatch.setattr(module, "CHUNK_LABELS", 30)
    monkeypatch.setattr("mlexporter.pending.queue.RUN_ROWS", 20)
    store, sink = Store(), Sink()
    names = [f"{i}" for i in range(1050)]
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(names[:450], ["yes"] * 450), 5.0)
        for begin in range(450, 1000, 10):
            joiner.offer("m", "1", batch(names[begin : begin + 10]), 5.0)
        joiner.submit(told(*names), [Prediction("m", "1", name, 5.0, b"1") for name in names[1000:]], timeout=ENOUGH)
    assert sink.sum == Sum(tracked=1050, matched=1050)
    # the last run goes whole, and a request with labels brings its predictions beside those of the queue
    assert 100 <= max(len(predictions) for predictions, _ in store.applied) < 100 + 20 + 30
    assert max(len(labels) for _, labels in store.applied) == 30


values_of_batches = (
    st.floats(allow_nan=True) | st.integers(-(2**60), 2**60) | st.booleans() | st.sampled_from(["yes", None])
)
batches = st.lists(
    st.tuples(
        st.sampled_from(["1", "2"]),
        st.lists(
            st.tuples(st.sampled_from(["a", "b\0", "ß", "", None, "x" * 256, "x" * 257, "ß" * 200]), values_of_batches),
            min_size=1,
            max_size=3,
        ),
    ),
    max_size=12,
)


@given(batches, st.integers(1, 5))
def test_batches_that_are_packed_together_are_what_they_are_one_by_one(
    sent: list[tuple[str, list[tuple[str | None, Any]]]], together: int
) -> None:
    offered = OfferQueue(threading.Lock())
    found: dict[str, list[tuple[str, Any, float]]] = {"1": [], "2": []}
    expected: dict[str, list[tuple[str, Any, float]]] = {"1": [], "2": []}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(queue, "FRESH_BATCHES", together)
        for time_of_it, (version, rows) in enumerate(sent):
            names, values = zip(*rows, strict=True)
            if offered.add("m", version, batch(names, values), float(time_of_it)):
                offered.pack(wait=False)
            expected[version] += [
                (name, value, time_of_it)
                for name, value in rows
                if name and len(name) <= 256 and value is not None and (isinstance(value, str) or math.isfinite(value))
            ]
    assert offered.rows == sum(len(rows) for _, rows in sent)
    arrived: list[Any] = []
    for taken in offered.take(10**6):
        if isinstance(taken, Run):
            arrived.append(taken.predictions())
        else:
            offer, begin, end = taken
            offer.encode(begin, end, arrived, [], [])
    for row in single(arrived):
        found[row.version].append((row.id, orjson.loads(row.value), row.time))
    assert found == expected
    assert [type(value) is bool for _, value, _ in found["1"]] == [type(value) is bool for _, value, _ in expected["1"]]


def test_a_label_never_goes_before_its_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "FRESH_BATCHES", 2)
    packing, go_on = threading.Event(), threading.Event()

    def slow(batches: Sequence[Came]) -> Packed | None:
        packing.set()
        assert go_on.wait(ENOUGH)
        return packed(batches)

    monkeypatch.setattr(queue, "packed", slow)
    store, sink = Store(), Sink()
    with running(store, sink) as joiner:
        monkeypatch.setattr(module, "LINGER_SECONDS", ENOUGH)
        joiner.offer("m", "1", batch(["a"]), 5.0)
        sender = threading.Thread(target=joiner.offer, args=("m", "1", batch(["b"]), 5.0))
        teller = threading.Thread(target=joiner.submit, args=(told("a"),), kwargs={"timeout": ENOUGH})
        sender.start()
        assert packing.wait(ENOUGH)  # by the sender, or by the joiner
        teller.start()
        time.sleep(0.1)
        assert not any(labels for _, labels in store.applied)
        go_on.set()
        sender.join()
        teller.join()
    assert sink.sum == Sum(tracked=2, matched=1)


@pytest.mark.parametrize("at_commit", [False, True])
def test_a_store_that_fails_and_recovers_counts_once(at_commit: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store, sink = Store(), Sink()
    store.failures, store.at_commit = 7, at_commit
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(["a", "b"]), 5.0)
        joiner.submit(told("a"), timeout=ENOUGH)
        assert joiner.health().up
        store.failures = 5
        joiner.submit(told("b", "a"), timeout=ENOUGH)
        until(lambda: joiner.health().queued_rows == 0)
    assert sink.sum == Sum(tracked=2, matched=2, repeated=1)
    assert store.totals() == sink.sum.totals
    assert joiner.health().errors >= 12
    assert joiner.health().dropped == 0
    assert (sink.tallies > joiner.health().writes) == at_commit
    # an outage is told once, not with every try, and so is its end
    told_once = [record.levelname for record in caplog.records]
    assert told_once == ["WARNING", "INFO"] * (len(told_once) // 2)
    assert 2 <= len(told_once) <= 6


def test_offers_never_wait_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlexporter.pending.queue.QUEUE_ROWS", 50)
    store, sink = Store(), Sink()
    store.open.clear()
    with running(store, sink) as joiner:
        try:
            for i in range(20):
                joiner.offer("m", "1", batch([f"{i}-{j}" for j in range(10)]), 5.0)
            assert joiner.health().queued_rows == 50
            assert joiner.health().dropped == 150
        finally:
            store.open.set()
        until(lambda: joiner.health().queued_rows == 0)
    assert sink.sum.tracked == 50


def test_the_queue_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlexporter.pending.queue.QUEUE_BYTES", 1000)
    monkeypatch.setattr("mlexporter.pending.queue.FRESH_BATCHES", 1)
    joiner = Joiner(Store(), Sink(), time.time)
    for _ in range(3):
        joiner.offer("m", "1", batch(["a", "b"], ["yes", "no"], weight=400), 5.0)
    joiner.offer("m", "1", batch([f"{i:0100}" for i in range(4)]), 5.0)
    assert (joiner.health().queued_rows, joiner.health().dropped) == (4, 6)


def test_a_storm_of_labels_is_refused_at_once() -> None:
    store, sink = Store(), Sink()
    store.open.clear()
    answers: Counter[str] = Counter()

    def send(name: str) -> None:
        joiner.submit(told(name), timeout=ENOUGH)
        answers["kept"] += 1

    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch([f"{i}" for i in range(module.WAITING_REQUESTS)]), 5.0)
        senders = [threading.Thread(target=send, args=(f"{i}",)) for i in range(module.WAITING_REQUESTS)]
        try:
            for sender in senders:
                sender.start()
            until(lambda: joiner._submitting == module.WAITING_REQUESTS)
            for _ in range(100):
                with pytest.raises(Overloaded):
                    joiner.submit(told("more"), timeout=ENOUGH)
        finally:
            store.open.set()
            for sender in senders:
                sender.join(ENOUGH)
        assert answers == {"kept": module.WAITING_REQUESTS}
        joiner.submit(told("0"))
    assert sink.sum == Sum(tracked=module.WAITING_REQUESTS, matched=module.WAITING_REQUESTS, repeated=1)


def test_labels_are_bounded_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LABEL_ROWS", 10)
    store = Store()
    store.open.clear()
    with running(store, Sink()) as joiner:
        senders = [threading.Thread(target=joiner.submit, args=(told(*"abcdefgh"), (), (), ENOUGH)) for _ in range(2)]
        try:
            senders[0].start()
            assert store.entered.wait(ENOUGH)  # the first ones are being written
            senders[1].start()
            until(lambda: joiner._submitting == 2)
            with pytest.raises(Overloaded):
                joiner.submit(told("i", "j", "k"), timeout=ENOUGH)
        finally:
            store.open.set()
            for sender in senders:
                sender.join(ENOUGH)


def test_labels_that_took_too_long_may_come_again() -> None:
    store, sink = Store(), Sink()
    store.open.clear()
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(["a", "b"]), 5.0)
        assert store.entered.wait(ENOUGH)
        for _ in range(6):
            with pytest.raises(StoreError, match="within"):
                joiner.submit(told("a", "b"), timeout=0.01)
        assert not joiner._requests  # nobody waits for them any more
        store.open.set()
        joiner.submit(told("a", "b"))
    assert sink.sum.matched == 2


@pytest.mark.parametrize("at_commit", [False, True])
def test_outcomes_without_an_id_that_took_too_long_may_come_again(at_commit: bool) -> None:
    store, sink = Store(), Sink()
    store.open.clear()
    store.failures, store.at_commit = int(at_commit), at_commit
    outcomes = [Direct("m", "1", [0.5, 0.25], [1, 0], 5.0)]
    with running(store, sink) as joiner:
        for _ in range(3):  # the first one is being written; nobody waits for the others any more
            with pytest.raises(StoreError, match="within"):
                joiner.submit((), direct=outcomes, timeout=0.01)
        store.open.set()
        joiner.submit((), direct=outcomes, timeout=ENOUGH)
    assert sink.sum.direct == 2


def test_nobody_is_told_to_send_again_what_is_being_counted() -> None:
    store, sink = Store(), Sink()
    counting, go_on = threading.Event(), threading.Event()
    apply = store.real.apply

    def slow(predictions: Arrivals, labels: Sequence[Label], totals: Callable[[Joined], Totals]) -> Joined:
        def waiting(joined: Joined) -> Totals:
            counted = totals(joined)
            counting.set()
            assert go_on.wait(ENOUGH)
            return counted

        return apply(predictions, labels, waiting)

    store.real.apply = slow  # type: ignore[method-assign]
    with running(store, sink) as joiner:
        outcomes = [Direct("m", "1", [0.5, 0.25], [1, 0], 5.0)]
        sender = threading.Thread(target=joiner.submit, args=((), (), outcomes, 0.01))
        with failing_threads() as failed:
            sender.start()
            assert counting.wait(ENOUGH)
            sender.join(0.1)  # many times its timeout
            assert sender.is_alive()
            go_on.set()
            sender.join(ENOUGH)
        assert failed == []
    assert sink.sum.direct == 2


def test_a_store_that_is_down_is_told_at_once() -> None:
    store, sink = Store(), Sink()
    store.failures = sys.maxsize
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(["a"]), 5.0)
        until(lambda: not joiner.health().up)
        time.sleep(0.02)
        with pytest.raises(StoreError, match="down"):
            joiner.submit(told("a"), timeout=0.01)
        store.failures = 0
        until(lambda: joiner.health().up)
        joiner.submit(told("a"))
    assert sink.sum == Sum(tracked=1, matched=1)


def test_a_bug_costs_one_chunk(caplog: pytest.LogCaptureFixture) -> None:
    store, sink = Store(), Sink()
    sink.broken = True
    with running(store, sink) as joiner:
        joiner.offer("m", "1", batch(["a", "b"]), 5.0)
        until(lambda: joiner.health().dropped == 2)
        joiner.offer("m", "1", batch([1, 2, 3]), 5.0)  # type: ignore[list-item]
        until(lambda: joiner.health().dropped == 5)
        with pytest.raises(StoreError, match="joined"):
            joiner.submit(told("a"))
        sink.broken = False
        joiner.offer("m", "1", batch(["c"]), 5.0)
        joiner.submit(told("c"))
    assert sink.sum == Sum(tracked=1, matched=1)
    assert joiner.health().errors == 0
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    assert not any("secret" in record.getMessage() for record in errors)


def test_stop_writes_what_is_queued() -> None:
    store, sink = Store(), Sink()
    store.open.clear()
    with running(store, sink) as joiner:
        for i in range(100):
            joiner.offer("m", "1", batch([f"{i}"]), 5.0)
        threading.Timer(0.05, store.open.set).start()
    assert sink.sum.tracked == 100
    joiner.offer("m", "1", batch(["late"]), 5.0)
    assert (joiner.health().queued_rows, joiner.health().dropped) == (0, 1)
    with pytest.raises(StoreError, match="stopping"):
        joiner.submit(told("a"))


def test_stop_does_not_wait_for_a_store_that_is_down() -> None:
    store, sink = Store(), Sink()
    store.failures = sys.maxsize
    joiner = Joiner(store, sink, time.time)
    thread = threading.Thread(target=joiner.run)
    thread.start()
    joiner.offer("m", "1", batch(["a"]), 5.0)
    until(lambda: not joiner.health().up)
    joiner.offer("m", "1", batch(["b", "c"]), 5.0)
    joiner.stop(0.1)
    thread.join(ENOUGH)
    assert not thread.is_alive()
    assert (joiner.health().queued_rows, joiner.health().dropped) == (0, 3)


def test_what_is_given_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_SECONDS", 0.0)
    now = [0.0]
    store, sink = Store(), Sink()
    with running(store, sink, lambda: now[0]) as joiner:
        joiner.offer("m", "1", batch(["a", "b"]), 0.0)
        until(lambda: sink.shown == Waiting({("m", "1"): 2}))
        now[0] = 86401.0
        until(lambda: Lost({("m", "1", "horizon"): 2}) in sink.given_up)
        until(lambda: sink.shown == Waiting())


def test_the_limit_holds_under_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_CHANGES", 100)
    store, sink = Store(), Sink()
    store.real = SqliteStore(None, lambda model: 86400.0, max_rows=50)
    with running(store, sink) as joiner:
        for i in range(20):
            joiner.submit([], [Prediction("m", "1", f"{i}-{j}", 5.0, b"1") for j in range(50)])
            assert sum(store.waiting().predictions.values()) <= 200


# -- killed -----------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_every_label_counts_once(tmp_path: Path) -> None:
    generator = random.Random(11)
    path = tmp_path / "pending.db"
    numbers = list(range(20_000))
    predicted, labelled = [*numbers[:15_000], *numbers[:1000]], [*numbers[5000:], *numbers[8000:9000]]
    generator.shuffle(predicted)
    generator.shuffle(labelled)
    lines = [orjson.dumps([predicted[i::150], labelled[i::150]]) + b"\n" for i in range(150)]
    kills, lives = 0, 0
    while lines:
        lives += 1
        child = subprocess.Popen(
            [sys.executable, pending_child.__file__, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        killer = threading.Timer(generator.uniform(0, 0.05), child.kill)
        try:
            while lines:
                child.stdin.write(lines[0])
                child.stdin.flush()
                if child.stdout.readline() != b"kept\n":
                    break
                if lives <= 8 and not killer.ident:
                    killer.start()
                lines.pop(0)
                if generator.random() < 0.2 and lines:
                    lines.insert(generator.randrange(len(lines)), lines[0])  # a client that sends twice
        except BrokenPipeError:
            pass
        finally:
            killer.cancel()
            with suppress(BrokenPipeError):  # it still holds what a child that was killed did not take
                child.stdin.close()
            kills += child.wait(ENOUGH) == -9
            child.stdout.close()
    assert kills >= 5
    both = set(predicted) & set(labelled)
    store = SqliteStore(path, lambda model: 86400.0)
    expected = len(both), sum(both), sum(number**2 for number in both)
    assert store.totals() == pending_child.Counted(expected).totals
    waiting = store.waiting()
    assert waiting == Waiting({("m", "1"): 5000}, {"m": 5000})
    store.close()


def test_huge_values_do_not_wait() -> None:
    """The store is bounded in rows; a text of a megabyte as a prediction, or a label, would make that no bound."""
    huge = "x" * 20_000
    values: list[object] = [huge, "a", "b"]
    offered = Batch(3, {}, prediction=values, label=["c", huge, "d"], ids=["1", "2", "3"])
    offer = Offer.of("m", "1", offered, 1.0)
    assert offer is not None
    predictions: list[Any] = []
    labels: list[Label] = []
    dropped = offer.encode(0, 3, predictions, labels, [])
    assert (dropped, [label.id for label in labels]) == (1, ["3"])
