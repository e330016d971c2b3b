"""Hashes of ids, the filter over them, blocks that are merged, and labels that are written anew."""

import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.pending import waiting
from mlexporter.pending.blocks import Packed, mergeable, pack, together
from mlexporter.pending.hashing import Filter, Ids, hashes_of, ordered
from mlexporter.pending.offers import Offer
from mlexporter.pending.records import Joined, Label, Prediction, Totals
from mlexporter.pending.runs import Run, packed
from mlexporter.pending.sqlite import SqliteStore
from mlexporter.samples import Batch

M, MASK = 0xC6A4A7935BD1E995, 2**64 - 1


def murmur(content: bytes, seed: int = 0) -> int:
    """MurmurHash64A after its source in C, a word at a time."""
    value = seed ^ (len(content) * M & MASK)
    whole = len(content) // 8 * 8
    for begin in range(0, whole, 8):
        word = int.from_bytes(content[begin : begin + 8], "little") * M & MASK
        word = (word ^ word >> 47) * M & MASK
        value = (value ^ word) * M & MASK
    if content[whole:]:
        value = (value ^ int.from_bytes(content[whole:], "little")) * M & MASK
    value = (value ^ value >> 47) * M & MASK
    return value ^ value >> 47


def test_the_reference_is_the_published_hash() -> None:
    # SMHasher's verification value of MurmurHash64A: main.cpp, "Murmur2B"
    hashes = b"".join(struct.pack("<Q", murmur(bytes(range(size)), 256 - size)) for size in range(256))
    assert murmur(hashes) & 0xFFFFFFFF == 0x1F0D3804


@given(st.lists(st.text() | st.text("ab0", max_size=40)))
def test_hashes_of_ids(names: list[str]) -> None:
    assert hashes_of(Ids.of(names)).tolist() == [murmur(name.encode()) for name in names]
    assert [*Ids.of(names).names()] == names


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_ids_in_one_text(names: list[str]) -> None:
    split = Ids.split("".join(f"{name}\0" for name in names).encode())
    assert [*split.names()] == names
    assert hashes_of(split).tolist() == hashes_of(Ids.of(names)).tolist()


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3).map(lambda low: 7 << 32 | low), max_size=60))
def test_ordered_hashes(values: list[int]) -> None:
    # equal ones, and such that differ in the lower half only, keep their order or get it
    order, found = ordered(np.array(values, np.uint64))
    assert order.tolist() == sorted(range(len(values)), key=values.__getitem__)
    assert found.tolist() == sorted(values)


def test_a_filter_misses_none_and_is_rarely_wrong() -> None:
    hashes = np.random.default_rng(7).integers(0, 2**64, 200_000, np.uint64)
    known = Filter([hashes[:50_000]])
    assert len(known.add(hashes[50_000:100_000])) < 500
    assert (known.add(hashes[40_000:60_000]) == hashes[40_000:60_000]).all()
    assert len(known.having(hashes[:100_000])) == 100_000
    assert len(known.having(hashes[100_000:])) < 1000
    while not known.full:
        known.add(hashes)
    assert len(Filter().having(hashes)) == len(Filter().add(hashes)) == 0


@given(st.lists(st.integers(1, 50_000), max_size=200))
def test_few_blocks_remain(sizes: list[int]) -> None:
    blocks: list[int] = []
    for size in sizes:
        blocks.append(size)
        count = mergeable(blocks)
        if count:
            blocks[-count:] = [sum(blocks[-count:])]
    assert sum(blocks) == sum(sizes)
    # at most 3 of each power of 4 below the size that is not merged any more, between any two that are not
    large = sum(size >= 32_768 for size in blocks)
    assert len(blocks) - large <= 24 * (large + 1)


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False)) | st.lists(st.binary(max_size=5))))
def test_packed_predictions(parts: list[list[float] | list[bytes]]) -> None:
    columns = [np.array(part) if all(isinstance(each, float) for each in part) else part for part in parts]
    found = [value for column in columns for value in _json(Packed(b"".join(pack(column))))]  # type: ignore[arg-type]
    if columns:
        assert _json(Packed(b"".join(pack(together(columns))))) == found  # type: ignore[arg-type]
    given = [value for part in parts for value in part]
    assert [
        float(back) if isinstance(value, float) else back for back, value in zip(found, given, strict=True)
    ] == given


def _json(packed: Packed) -> list[bytes]:
    return [*packed.json(np.arange(len(packed.all())))]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_numbers_with_an_id_come_back_in_their_order() -> None:
    run = Run("m", "1")
    rows = [(f"ß{i}", i / 2, time) for time, size in ((5.0, 1), (6.0, 20), (6.5, 1000)) for i in range(size)]
    for time in (5.0, 6.0, 6.5):
        ids, values = [name for name, _, at in rows if at == time], [value for _, value, at in rows if at == time]
        content = packed([(Batch(len(ids), {}, ids=ids, prediction=values), time)])
        assert content is not None
        run.add(content)
    assert len(run) == 1021
    assert run.weight == sum(len(name.encode()) + 1 for name, _, _ in rows) + 8 * 1021 + 16 * 3
    assert [(row.id, float(row.value), row.time) for row in run.predictions().rows()] == rows


def test_rows_with_too_long_an_id_are_left_out() -> None:
    run, long = Run("m", "1"), "x" * 257
    for time, ids in ((5.0, [long]), (6.0, ["a", long, "ß" * 256]), (7.0, [long, long]), (8.0, ["b"])):
        content = packed([(Batch(len(ids), {}, ids=ids, prediction=[time] * len(ids)), time)])
        assert content is not None
        run.add(content)
    assert len(run) == 7
    expected = [("a", 6.0, b"6"), ("ß" * 256, 6.0, b"6"), ("b", 8.0, b"8")]
    assert [(row.id, row.time, row.value) for row in run.predictions().rows()] == expected


def test_a_run_of_nothing_but_long_ids_does_no_harm() -> None:
    run = Run("m", "1")
    content = packed([(Batch(1, {}, ids=["x" * 257], prediction=[1]), 5.0)])
    assert content is not None
    run.add(content)
    store = SqliteStore(None, lambda _: 60.0)
    assert store.apply([run.predictions()], [], lambda _: {}).tracked == {}
    store.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", 1),
        (None, 1),
        ("a\0b", 1),
        ("a", None),
        ("a", "1"),
        ("a", True),
        ("a", 2**53),
        ("a", np.inf),
        ("a", np.nan),
    ],
)
def test_anything_else_is_encoded_row_by_row(name: str | None, value: object) -> None:
    batch = Batch(20, {}, ids=[*(f"{i}" for i in range(19)), name], prediction=[*[0.5] * 19, value])
    assert packed([(batch, 5.0)]) is None
    offer = Offer.of("m", "1", batch, 5.0)
    assert offer is not None
    predictions: list[Prediction] = []
    dropped = offer.encode(0, 20, predictions, [], [])  # type: ignore[arg-type]
    rows = [row for part in predictions for row in part.rows()]  # type: ignore[attr-defined]
    kept = name in ("a", "a\0b") and value is not None and value not in (np.inf,) and value == value
    assert (len(rows), dropped) == (19 + kept, 0)


def test_labels_and_classes_are_encoded_row_by_row() -> None:
    assert packed([(Batch(1, {}, ids=["a"], prediction=[1], label=[1]), 5.0)]) is None
    assert packed([(Batch(1, {}, ids=["a"], prediction=["yes"], probabilities=[{"yes": 0.5}]), 5.0)]) is None
    assert packed([(Batch(1, {}, ids=["a"]), 5.0)]) is None
    assert packed([(Batch(1, {}, prediction=[1]), 5.0)]) is None
    assert (
        packed([(Batch(2, {}, ids=["a", "b"], prediction=[1e308, 1e308]), 5.0)]) is None
    )  # their sum is no finite number


# -- the store --------------------------------------------------------------------------------------------------------


def nothing(joined: Joined) -> Totals:
    return {}


def test_labels_are_written_anew_when_most_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_TOLD_ROWS", 10)
    path = tmp_path / "pending.sqlite"
    store = SqliteStore(path, lambda model: 1e6)
    store.apply([Prediction("m", "1", f"{i}", 0.0, b"0.5") for i in range(10)], [], nothing)
    for turn in range(10):
        value = [b"1", b'"yes"'][turn % 2]
        store.apply([], [Label("m", None, f"{i}", float(turn), value) for i in range(10)], nothing)
        store.forget(10.0)
    store.close()
    store = SqliteStore(path, lambda model: 1e6)
    (match,) = store.apply([], [Label("m", None, "3", 11.0, b"0")], nothing).matches
    assert match.replaced == (b'"yes"', 9.0)
    store.close()
    with sqlite3.connect(path) as connection:
        (entries,) = connection.execute("SELECT count(*) FROM told").fetchone()
    connection.close()
    assert entries < 5


def test_what_another_process_wrote_is_seen(tmp_path: Path) -> None:
    one, other = (SqliteStore(tmp_path / "pending.sqlite", lambda model: 1e6) for _ in range(2))
    one.apply([Prediction("m", "1", "a", 0.0, b"0.5")], [], nothing)
    other.apply([Prediction("m", "1", "b", 0.0, b"0.5")], [], nothing)
    for store, name in ((one, "b"), (other, "a")):
        assert len(store.apply([], [Label("m", None, name, 1.0, b"1")], nothing).matches) == 1
    assert one.apply([], [Label("m", None, "a", 2.0, b"1")], nothing).repeated == {("m", "1"): 1}
    one.close()
    other.close()
