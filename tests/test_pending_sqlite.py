"""Predictions that wait in SQLite, held against a reference of dicts; files that are locked, full, damaged or gone."""

import itertools
import random
import re
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlexporter.pending import waiting
from mlexporter.pending.records import Joined, Label, Lost, Match, Pair, Prediction, StoreError, Totals, Waiting
from mlexporter.pending.sqlite import SqliteStore

DAY = 86400.0
HORIZONS = {"short": 100.0, "long": 10_000.0}


def nothing(joined: Joined) -> Totals:
    return {}


def horizon(model: str) -> float:
    return HORIZONS.get(model, DAY)


def predicted(name: str, value: bytes = b"0.5", *, version: str = "1", time: float = 0, model: str = "m") -> Prediction:
    return Prediction(model, version, name, time, value)


def told(name: str, value: bytes = b"1", *, version: str | None = None, time: float = 10, model: str = "m") -> Label:
    return Label(model, version, name, time, value)


def store_of(path: Path | None = None, **options: int) -> SqliteStore:
    return SqliteStore(path, horizon, **options)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_a_label_finds_its_prediction() -> None:
    store = store_of()
    joined = store.apply([predicted("a"), predicted("b"), predicted("a", b"0.9")], [], nothing)
    assert joined == Joined({("m", "1"): 2}, [], [])
    assert store.waiting() == Waiting({("m", "1"): 2})
    joined = store.apply([], [told("a"), told("b", b'"x"', version="1"), told("c")], nothing)
    assert list(joined.matches) == [
        Match("m", "1", b"0.5", b"1", 10.0, 10.0),
        Match("m", "1", b"0.5", b'"x"', 10.0, 10.0),
    ]
    assert store.waiting() == Waiting({}, {"m": 1})


def test_corrections_and_repeats() -> None:
    store = store_of()
    store.apply([predicted("a", time=2.5)], [told("a", b"0", time=2)], nothing)
    joined = store.apply([], [told("a", b"0"), told("a", b"1", time=11.25), told("a", b"1", time=12)], nothing)
    assert joined.repeated == {("m", "1"): 2}
    assert joined.matches == [Match("m", "1", b"0.5", b"1", 8.75, 11.25, (b"0", 2.0))]


def test_a_label_for_all_versions_is_for_those_to_come() -> None:
    store = store_of()
    store.apply([predicted("a")], [told("a")], nothing)
    joined = store.apply([predicted("a", b"0.7", version="2", time=4)], [], nothing)
    assert joined.matches == [Match("m", "2", b"0.7", b"1", 6.0, 10.0)]
    versions, predictions = ("1", "2"), (b"0.5", b"0.7")
    assert joined.pairs == [Pair("m", versions, predictions, None), Pair("m", versions, predictions, b"1")]


def test_a_label_for_one_version_is_no_label_of_another_but_the_truth_of_their_pair() -> None:
    store = store_of()
    store.apply([predicted("a", version="2"), predicted("a", b"0.7", version="1")], [], nothing)
    joined = store.apply([], [told("a", version="2")], nothing)
    assert [match.version for match in joined.matches] == ["2"]
    assert joined.pairs == [Pair("m", ("1", "2"), (b"0.7", b"0.5"), b"1")]
    joined = store.apply([], [told("a", version="1"), told("a", b"2")], nothing)
    assert joined.pairs == []
    assert store.waiting() == Waiting()


def test_equal_ids_of_different_models_are_different() -> None:
    store = store_of()
    store.apply([predicted("a"), predicted("a", model="n")], [], nothing)
    joined = store.apply([], [told("a", model="n")], nothing)
    assert [match.model for match in joined.matches] == ["n"]
    assert joined.pairs == []


@pytest.mark.parametrize("name", ["", "a\0b", "ß🙂", "\ud800", '"\\', "x" * 10_000])
def test_ids_may_be_any_text(name: str) -> None:
    store = store_of()
    assert store.apply([predicted(name), predicted(name + "\0"), predicted("a")], [], nothing).tracked == {
        ("m", "1"): 3
    }
    assert len(store.apply([], [told(name)], nothing).matches) == 1


@pytest.mark.parametrize(
    "value", ["a\0b", "ß🙂\u2028", '"\\\\"', "", 1e-300, 0.1 + 0.2, -(2**63), 2**64 - 1, {"k\0": 0.5}, True]
)
def test_values_come_back_as_they_were(value: object) -> None:
    store = store_of()
    written = orjson.dumps(value)
    store.apply([predicted("a", written)], [told("b", written)], nothing)
    (match,) = store.apply([], [told("a", written)], nothing).matches
    assert (match.prediction, match.label) == (written, written)
    (match,) = store.apply([predicted("b")], [], nothing).matches
    assert match.label == written
    (match,) = store.apply([], [told("b", b"0")], nothing).matches
    assert match.replaced == (written, 10.0)


def test_a_label_waits_for_an_hour_and_never_beyond_the_horizon() -> None:
    store = store_of()
    store.apply([], [told("a", model="short", time=0), told("a", model="long", time=0)], nothing)
    assert store.forget(100) == Lost()
    assert store.forget(100.001) == Lost({}, {("short", "horizon"): 1})
    assert store.forget(3600) == Lost()
    assert store.forget(3600.001) == Lost({}, {("long", "horizon"): 1})
    assert not store.apply([predicted("a", model="long")], [], nothing).matches


def test_the_oldest_go_first_with_or_without_a_label() -> None:
    store = store_of(max_rows=40)
    given = [predicted(f"{i}", time=i, version=str(i % 2), model="long") for i in range(65)]
    store.apply(given, [told(f"{i}", model="long") for i in range(15)], nothing)
    # 25 are too many: 15 with a label, and from 15 to 24 five even and five odd ones
    assert store.forget(0) == Lost({("long", "0", "limit"): 5, ("long", "1", "limit"): 5})
    assert store.waiting().predictions == {("long", "0"): 20, ("long", "1"): 20}
    assert not store.apply([], [told("24", model="long")], nothing).matches
    assert len(store.apply([], [told("25", model="long")], nothing).matches) == 1
    # those from 26 to 49 have no label yet, and the label of 24 still waits
    lost = {("long", "0", "horizon"): 12, ("long", "1", "horizon"): 12}
    assert store.forget(10_050) == Lost(lost, {("long", "horizon"): 1})
    assert store.forget(10_050) == Lost()


def test_totals_are_kept_with_what_they_count(tmp_path: Path) -> None:
    store = store_of(tmp_path / "pending.db")
    store.apply([predicted("a")], [told("a")], lambda joined: {"x": b"%d" % len(joined.matches), "y": b"\xff\0"})
    store.apply([], [], lambda joined: {"x": b"2"})
    store.close()
    assert store.totals() == {"x": b"2", "y": b"\xff\0"}


def test_an_error_of_who_counts_undoes_all() -> None:
    store = store_of()
    store.apply([], [told("b")], nothing)

    def broken(joined: Joined) -> Totals:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.apply([predicted("a", version="new"), predicted("b")], [told("a")], broken)
    assert store.waiting() == Waiting({}, {"m": 1})
    joined = store.apply([predicted("a", version="new"), predicted("b")], [told("a")], nothing)
    assert joined.tracked == {("m", "new"): 1, ("m", "1"): 1}
    assert len(joined.matches) == 2


# -- against a reference ----------------------------------------------------------------------------------------------


class Kept(msgspec.Struct):
    number: int
    model: str
    id: str
    version: str
    time: float
    value: bytes
    label: bytes | None = None
    label_time: float = 0
    every: bool = False


class Reference:
    """What a store does, over plain lists in the order of arrival."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.rows: list[Kept] = []
        self.labels: list[Label] = []
        self.numbers = itertools.count()
        self.paired: set[tuple[int, int]] = set()
        self.judged: set[tuple[int, int]] = set()

    def of(self, model: str, name: str) -> list[Kept]:
        return [row for row in self.rows if (row.model, row.id) == (model, name)]

    def apply(self, predictions: list[Prediction], labels: list[Label]) -> Joined:
        tracked: Counter[tuple[str, str]] = Counter()
        repeated: Counter[tuple[str, str]] = Counter()
        matches: list[Match] = []
        pairs: list[Pair] = []

        def match(row: Kept, value: bytes, time: float, every: bool) -> None:
            replaced = (row.label, row.label_time) if row.label is not None else None
            matches.append(Match(row.model, row.version, row.value, value, max(0.0, time - row.time), time, replaced))
            row.label, row.label_time, row.every = value, time, every

        def settle(family: list[Kept]) -> None:
            """Each two predictions are told once as such, and once with the label that one of them got first."""
            for one, other in itertools.combinations(family, 2):
                first, second = (one, other) if one.version < other.version else (other, one)
                said = (first.version, second.version), (first.value, second.value)
                if (one.number, other.number) not in self.paired:
                    self.paired.add((one.number, other.number))
                    pairs.append(Pair(one.model, *said, None))
                truth = other.label or one.label
                if truth and (one.number, other.number) not in self.judged:
                    self.judged.add((one.number, other.number))
                    pairs.append(Pair(one.model, *said, truth))

        for new in predictions:
            family = self.of(new.model, new.id)
            if new.version in [row.version for row in family]:
                continue
            tracked[(new.model, new.version)] += 1
            row = Kept(next(self.numbers), new.model, new.id, new.version, new.time, new.value)
            for version in (new.version, None):
                found = [
                    label
                    for label in self.labels
                    if (label.model, label.id, label.version) == (row.model, row.id, version)
                ]
                if found and row.label is None:
                    self.labels.remove(found[0])
                    match(row, found[0].value, found[0].time, version is None)
            for_all = [other for other in family if other.every]
            if row.label is None and for_all:
                last = max(for_all, key=lambda other: other.label_time)
                assert last.label is not None
                match(row, last.label, last.label_time, True)
            self.rows.append(row)
            settle([*family, row])
        for label in labels:
            family = self.of(label.model, label.id)
            meant = [row for row in family if label.version in (None, row.version)]
            self._wait(label, bool(meant))
            for row in meant:
                if row.label == label.value:
                    repeated[(row.model, row.version)] += 1
                    row.every = row.every or label.version is None
                else:
                    match(row, label.value, label.time, label.version is None)
            settle(family)
        return Joined(tracked, matches, pairs, repeated)

    def _wait(self, label: Label, found: bool) -> None:
        said = [other for other in self.labels if (other.model, other.id) == (label.model, label.id)]
        same = [other for other in said if (other.version, other.value) == (label.version, label.value)]
        replaced = [other for other in said if label.version is None or other.version == label.version]
        for other in replaced:
            if found or other not in same:
                if found and label.version is not None:
                    continue
                self.labels.remove(other)
        if not found and not same:
            self.labels.append(label)

    def forget(self, now: float) -> Lost:
        predictions: Counter[tuple[str, str, str]] = Counter()
        labels: Counter[tuple[str, str]] = Counter()

        def give_up(row: Kept, reason: str) -> None:
            self.rows.remove(row)
            if row.label is None:
                predictions[(row.model, row.version, reason)] += 1

        for row in list(self.rows):
            if row.time < now - HORIZONS[row.model]:
                give_up(row, "horizon")
        for row in self.rows[: max(0, len(self.rows) - self.max_rows)]:
            give_up(row, "limit")
        for label in list(self.labels):
            if label.time < now - min(3600, HORIZONS[label.model]):
                self.labels.remove(label)
                labels[(label.model, "horizon")] += 1
        for label in self.labels[: max(0, len(self.labels) - self.max_rows)]:
            self.labels.remove(label)
            labels[(label.model, "limit")] += 1
        return Lost(predictions, labels)

    def waiting(self) -> Waiting:
        return Waiting(
            Counter((row.model, row.version) for row in self.rows if row.label is None),
            Counter(label.model for label in self.labels),
        )


def comparable(joined: Joined) -> tuple[object, ...]:
    return (
        dict(joined.tracked),
        Counter(map(repr, joined.matches)),
        Counter(map(repr, joined.pairs)),
        dict(joined.repeated),
    )


MODELS = st.sampled_from(sorted(HORIZONS))
IDS = st.sampled_from("abcd")
VERSIONS = st.sampled_from("123")
PREDICTIONS = st.lists(st.tuples(MODELS, VERSIONS, IDS, st.sampled_from([b"0.25", b'"x"'])), max_size=6)
LABELS = st.lists(st.tuples(MODELS, st.none() | VERSIONS, IDS, st.sampled_from([b"0", b"1"])), max_size=6)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["apply", "apply", "apply", "forget", "reopen"]),
        PREDICTIONS,
        LABELS,
        st.sampled_from([0, 1, 60, 2000]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([3, 1000]), st.sampled_from([0, 1000]))
def test_like_the_reference(tmp_path_factory: pytest.TempPathFactory, steps: Any, max_rows: int, pieces: int) -> None:
    waiting._TOLD_ENTRIES = pieces  # type: ignore[misc]
    path = tmp_path_factory.mktemp("pending") / "pending.db"
    store, reference = store_of(path, max_rows=max_rows), Reference(max_rows)
    clock = 1e9
    try:
        for kind, predictions, labels, pause in steps:
            clock += pause
            times = (clock + 0.125 * i for i in itertools.count())
            if kind == "apply":
                given = [
                    Prediction(model, version, name, next(times), value) for model, version, name, value in predictions
                ]
                then = [Label(model, version, name, next(times), value) for model, version, name, value in labels]
                assert comparable(store.apply(given, then, nothing)) == comparable(reference.apply(given, then))
            elif kind == "forget":
                assert store.forget(clock) == reference.forget(clock)
            else:
                store.close()
                store = store_of(path, max_rows=max_rows)
            clock = next(times)
            assert store.waiting() == reference.waiting()
    finally:
        waiting._TOLD_ENTRIES = 1000  # type: ignore[misc]
        store.close()


def test_a_hundred_thousand_in_random_order(tmp_path: Path) -> None:
    generator = random.Random(5)
    path = tmp_path / "pending.db"
    names = [f"{i:x}-{generator.getrandbits(64):x}" for i in range(100_000)]
    known = set(names[:90_000])
    events: list[Prediction | Label] = [predicted(name) for name in known]
    events += [told(name) for name in names] + [told(name) for name in generator.sample(names, 10_000)]
    events += [predicted(name, b"0.1") for name in generator.sample(sorted(known), 10_000)]
    generator.shuffle(events)
    store = store_of(path)
    tracked = matched = repeated = at = 0
    while at < len(events):
        part = events[at : at + generator.choice([1, 100, 20_000])]
        at += len(part)
        joined = store.apply(
            [event for event in part if isinstance(event, Prediction)],
            [event for event in part if isinstance(event, Label)],
            nothing,
        )
        tracked += joined.tracked.get(("m", "1"), 0)
        matched += len(joined.matches)
        repeated += sum(joined.repeated.values())
        if generator.random() < 0.2:
            store.close()
            store = store_of(path)
    assert (tracked, matched) == (90_000, 90_000)
    assert 0 < repeated <= 10_000
    assert store.waiting() == Waiting({}, {"m": 10_000})
    store.close()


# -- files that cannot be used ----------------------------------------------------------------------------------------


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlexporter.pending.sqlite._BUSY_SECONDS", 0.05)
    path = tmp_path / "pending.db"
    store = store_of(path)
    store.apply([predicted("a")], [], nothing)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(2):
        with pytest.raises(StoreError, match="locked"):
            store.apply([predicted("b")], [told("a")], nothing)
    late = store_of(path)
    with pytest.raises(StoreError, match="locked"):
        late.apply([predicted("b")], [], nothing)
    other.execute("COMMIT")
    assert len(store.apply([predicted("b")], [told("a")], nothing).matches) == 1
    assert store.waiting() == Waiting({("m", "1"): 1})
    store.close()
    late.close()
    other.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pending.db"]


def limited(pages: list[int]) -> Callable[..., sqlite3.Connection]:
    """Connections to a disk with room for as many pages."""
    connect = sqlite3.connect

    def limited_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return connection

    return limited_connect


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [60]
    monkeypatch.setattr(sqlite3, "connect", limited(pages))
    store = store_of(tmp_path / "pending.db")
    kept = 0
    with suppress(StoreError):
        while kept < 100_000:
            store.apply([predicted(f"{kept}-{j}") for j in range(100)], [], nothing)
            kept += 100
    assert 0 < kept < 100_000
    assert store.waiting() == Waiting({("m", "1"): kept})
    with pytest.raises(StoreError, match="full"):
        store.apply([predicted(f"more-{j}") for j in range(100)], [told("0-0")], nothing)
    # what is too old makes room again
    assert store.forget(2 * DAY).predictions == {("m", "1", "horizon"): kept}
    assert store.apply([predicted(f"more-{j}") for j in range(100)], [], nothing).tracked == {("m", "1"): 100}
    pages[0] = 10_000
    store.close()
    assert store.apply([predicted(f"{i}") for i in range(10_000)], [], nothing).tracked == {("m", "1"): 10_000}
    store.close()


def test_a_folder_that_cannot_be_made_and_then_can(tmp_path: Path) -> None:
    path = tmp_path / "later" / "pending.db"
    path.parent.touch()  # a file in its place
    store = store_of(path)
    for call in (lambda: store.apply([], [], nothing), lambda: store.forget(0), store.waiting, store.totals):
        with pytest.raises(StoreError, match=f"cannot be opened: {re.escape(str(path))}: "):
            call()
    path.parent.unlink()
    assert store.apply([predicted("a")], [], nothing).tracked
    store.close()


def test_only_the_owner_may_read_what_is_written(tmp_path: Path) -> None:
    store = store_of(tmp_path / "pending.db")
    store.apply([predicted("a")], [], nothing)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["pending.db", "pending.db-wal", "pending.db-shm"], 0o600)
    store.close()


def test_a_file_that_was_deleted_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "pending.db"
    store = store_of(path)
    store.apply([predicted("a")], [], lambda joined: {"x": b"1"})
    for entry in tmp_path.iterdir():
        entry.unlink()
    assert store.apply([predicted("b")], [told("a")], nothing).matches == []
    store.close()
    assert store_of(path).waiting() == Waiting({("m", "1"): 1}, {"m": 1})


def small_file(path: Path) -> bytes:
    store = store_of(path)
    store.apply([predicted("a"), predicted("b")], [told("b"), told("c")], lambda joined: {"x": b"1"})
    store.close()
    return path.read_bytes()


def lengths(size: int) -> list[int]:
    """Every one within the header, then around the ends of pages and in the midst of them.

    Not within the last page: SQLite takes what is missing of it for zeros.
    """
    return [
        *range(101),
        *(page + offset for page in range(4096, size - 4096, 4096) for offset in (-2048, -1, 0, 1)),
    ]


def test_a_file_that_was_cut_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = small_file(tmp_path / "whole.db")
    for length in lengths(len(content)):
        path = tmp_path / f"{length}.db"
        path.write_bytes(content[:length])
        caplog.clear()
        store = store_of(path)
        joined = store.apply([predicted("a", b"0.9")], [told("a")], nothing)
        store.close()
        # nothing of a file that is not whole is believed; one of a single byte is empty to SQLite
        assert [match.prediction for match in joined.matches] == [b"0.9"]
        aside = list(tmp_path.glob(f"{length}.db.damaged-*"))
        assert [entry.read_bytes() for entry in aside] == ([content[:length]] if length > 1 else [])
        assert ("set aside" in caplog.text) == (length > 1)


def test_damage_within_a_file_never_ends_the_store(tmp_path: Path) -> None:
    content = small_file(tmp_path / "whole.db")
    generator = random.Random(3)
    damaged = 0
    for i in range(150):
        path = tmp_path / f"{i}.db"
        begin = generator.randrange(len(content))
        noise = generator.randbytes(generator.choice([1, 16, 4096]))
        path.write_bytes((content[:begin] + noise + content[begin + len(noise) :])[: len(content)])
        store = store_of(path)
        errors = 0
        for _ in range(3):
            try:
                store.apply(
                    [predicted(f"new-{j}") for j in range(100)], [told(f"new-{j}") for j in range(100)], nothing
                )
            except StoreError:
                errors += 1
        damaged += bool(list(tmp_path.glob(f"{i}.db.damaged-*")))
        assert errors <= 2
        store.close()
    assert damaged > 20


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 1", "PRAGMA user_version = 0"])
def test_a_file_of_another_schema_is_set_aside(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "pending.db"
    small_file(path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    store = store_of(path)
    assert store.waiting() == Waiting()
    store.close()
    assert len(list(tmp_path.glob("pending.db.damaged-*"))) == 1


def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store_of(tmp_path).waiting()
