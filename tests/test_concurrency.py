"""Threads that push, label, scrape, tick, reload and write the state at once: at the end every count is exact.

`MLEXPORTER_CONCURRENCY_ROUNDS=1000 python -m pytest tests/test_concurrency.py -s` runs as many rounds and prints what
met what.
"""

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crowd import KINDS, PROFILE, THREADS, Key, Visitor, World, values_of, visit
from mlexporter.alarm import Alarm
from mlexporter.feedback_sink import FeedbackSink
from mlexporter.fold import counted_of
from mlexporter.persistence import StateFolder
from mlexporter.store import Store

ROUNDS = int(os.environ.get("MLEXPORTER_CONCURRENCY_ROUNDS", "12"))
EXACT = (
    "samples_total", "samples_rejected_total", "inference_errors_total", "inference_duration_seconds_count",
    "predictions_tracked_total", "labels_total", "labels_corrected_total", "labels_repeated_total", "outcomes_total",
    "http_requests_total",
)  # fmt: skip


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads that take turns all the time, and that stop where something is half done and no lock is held."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    source = random.Random(0)

    def dawdling(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            done = call(*given, **named)
            if source.random() < 0.2:
                time.sleep(source.uniform(0, 0.003))
            return done

        return called

    monkeypatch.setattr("mlexporter.store.counted_of", dawdling(counted_of))
    monkeypatch.setattr(FeedbackSink, "tally", dawdling(FeedbackSink.tally))
    monkeypatch.setattr(Alarm, "advance", dawdling(Alarm.advance))
    yield
    sys.setswitchinterval(interval)


def check(world: World, visitors: list[Visitor]) -> None:
    """Every number is what the threads were told, added up."""
    expected: Counter[Key] = sum((visitor.expected for visitor in visitors), Counter())
    page = world.page()
    for name in EXACT:
        found = {key: value for key, value in page.items() if key[0] == name and value}
        # the request that reads the page is counted after it
        assert found == {key: count for key, count in expected.items() if key[0] == name and count}, name
    for version in ("1", "2", "3"):
        bins = {name: count for name, count in values_of(page, "x", version).items() if count}
        assert bins == {key[2]: count for key, count in expected.items() if key[:2] == ("x", version)}, version
        tracked, labelled = (expected[name, "m", version] for name in ("predictions_tracked_total", "labels_total"))
        total = sum(value for key, value in page.items() if key[0] == "outcomes_total" and key[4] == version)
        assert total == labelled + expected["retracted", version]
        assert tracked >= 0
    assert page["pending_dropped_total",] == page["pending_store_errors_total",] == 0
    kept(world)


def kept(world: World) -> None:
    """What is written at the end is what is known at the end."""
    before = world.page()
    world.saver.finish()
    found = StateFolder(world.folder).take()
    assert found.state is not None
    assert found.clean
    store = Store(world.store._config, {("m", "1"): PROFILE, ("m", "2"): PROFILE}, world.clock, found.totals)
    # what it learns from is not kept until there is enough of it
    assert {note.model for note in store.restore(found.state, clean=True)} <= {"d"}
    other = {(each.model, each.version): each for each in store.snapshot().versions}
    for version in world.store.snapshot().versions:
        again = other[version.model, version.version]
        assert again.samples == version.samples == before["samples_total", version.model, version.version]
        if version.counts is not None:
            assert again.counts is not None
            assert again.counts.bins.tolist() == version.counts.bins.tolist()
        assert again.feedback.totals.labels == version.feedback.totals.labels
        assert [w[1].tolist() for w in again.windows] == [w[1].tolist() for w in version.windows]


def meetings(visitors: list[Visitor]) -> Counter[tuple[str, str]]:
    """How often a step of one kind went on at the same time as one of another thread of another kind, or the same."""
    met: Counter[tuple[str, str]] = Counter()
    for one, other in itertools.combinations(visitors, 2):
        for kind, begin, end in one.steps:
            for another, start, stop in other.steps:
                if start < end and begin < stop:
                    first, second = sorted((kind, another))
                    met[first, second] += 1
    return met


def order(visitors: list[Visitor]) -> tuple[int, ...]:
    """Whose step ended after whose."""
    ends = [(end, number) for number, visitor in enumerate(visitors) for _, _, end in visitor.steps]
    return tuple(number for _, number in sorted(ends))


def test_everything_at_once_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    met: Counter[tuple[str, str]] = Counter()
    orders: set[tuple[int, ...]] = set()
    switches = steps = samples = 0
    begin = time.perf_counter()
    for seed in range(ROUNDS):
        world = World(tmp_path / str(seed))
        visitors = visit(world, seed)
        check(world, visitors)
        met += meetings(visitors)
        one = order(visitors)
        orders.add(one)
        steps += len(one)
        switches += sum(a != b for a, b in itertools.pairwise(one))
        samples += sum(count for v in visitors for key, count in v.expected.items() if key[0] == "samples_total")
    pairs = len(KINDS) * (len(KINDS) + 1) // 2
    rarest = min(met.items(), key=lambda item: item[1])
    elapsed = time.perf_counter() - begin
    print(  # noqa: T201
        f"\n{ROUNDS} rounds of {THREADS} threads in {elapsed:.0f} s: {steps} steps, {samples} samples, {len(orders)} "
        f"different orders, a step of another thread came next {switches} times; {sum(met.values())} steps at once "
        f"in {len(met)} of {pairs} pairs of kinds, least often {rarest[1]} times: {' with '.join(rarest[0])}"
    )
    assert len(met) > pairs / 2
