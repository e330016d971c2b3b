"""Predictions that wait, over the tables: finds rows by the ids of labels, and gives up old ones.

What is in memory changes together with the tables: a transaction works on a copy of `State`, which stands in for the
old one once it is committed; labels of rows are set then, too.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlexporter.pending.arrivals import Column, columns_of
from mlexporter.pending.blocks import (
    EVERY,
    LABELLED,
    NUMBER,
    TEXT,
    Block,
    Values,
    label_number,
    mergeable,
    merged,
    together,
)
from mlexporter.pending.family import Early, Family, Outcome, Row
from mlexporter.pending.hashing import Filter, Hashes, ordered
from mlexporter.pending.records import Arrivals, VersionKey
from mlexporter.pending.state import EVER, Added, State, Version
from mlexporter.pending.tables import EarlyRow, Tables

_TOLD_ENTRIES: Final = 1000
_TOLD_ROWS: Final = 10_000

Families = dict[tuple[str, int], Family]
"""By model and the hash of an id."""


class Rows:
    """Predictions and their labels.

    Attributes:
        state: as of the last commit.

    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._filters: dict[str, Filter] = {}
        self._early = Filter([tables.early_hashes()])
        self._staged: list[tuple[Block, NDArray[np.int64], NDArray[Any], Sequence[bytes]]] = []
        self._places: list[tuple[int, Block, int]] = []
        self.state = self._read()
        self._draft = self.state

    # -- transactions -------------------------------------------------------------------------------------------------

    def begin(self) -> State:
        """Have what follows change a copy."""
        self._staged.clear()
        self._draft = self.state.copy()
        return self._draft

    def commit(self) -> None:
        """Take over what was changed."""
        self.state = self._draft
        for block, places, told, texts in self._staged:
            block.put_labels(places, told, texts)
        self._staged.clear()

    def _read(self) -> State:
        """All that is written."""
        state = State(labels=Counter(self._tables.early_counts()))
        blocks: dict[int, list[Block]] = {}
        for number, block in self._tables.blocks():
            blocks.setdefault(number, []).append(block)
        for key, number, first, before in self._tables.versions():
            state.versions[key] = Version(number, tuple(blocks.get(number, ())), first, before)
        for told, texts in self._tables.told():
            state.told_entries += 1
            state.told_rows += len(told)
            for version in state.versions.values():
                _put(version, told[told["version"] == version.number], texts)
        for key, version in state.versions.items():
            for block in version.blocks:
                kept, labelled = block.kept(version.first, version.before), block.labelled()
                state.waiting[key] += int((kept & ~labelled).sum())
                state.labelled[key] += int((kept & labelled).sum())
        return state

    # -- predictions come ---------------------------------------------------------------------------------------------

    def insert(self, predictions: Arrivals) -> Added:
        """Add predictions whose id is not there yet."""
        added = Added()
        for key, column in columns_of(predictions).items():
            self._insert(key, column, added)
        self._draft.waiting.update(added.tracked)
        return added

    def _insert(self, key: VersionKey, column: Column, added: Added) -> None:
        model = key[0]
        known = self._filter(model)
        hashes = column.hashes()
        order, found = ordered(hashes)
        again = np.append(False, found[1:] == found[:-1])
        wanted = known.add(found)
        for other, version in self._versions(model) if len(wanted) else ():
            for _, which, _ in _find(version, wanted):
                if other == key:
                    again |= np.isin(found, wanted[which])
                else:
                    added.ids.setdefault(model, []).append(wanted[which])
        if again.any():
            chosen = np.sort(order[~again])
            column, hashes = column.rows(chosen), hashes[chosen]
            order, found = ordered(hashes)
        if not len(hashes):
            return
        early = self._early.having(found) if self._draft.labels[model] else found[:0]
        added.ids.setdefault(model, []).append(early)
        version = self._draft.versions.get(key) or Version(self._tables.add_version(key, EVER))
        added.tracked[key], added.firsts[key], added.orders[key] = len(hashes), version.end, column.order
        block = Block(0, version.end, found, order.astype(np.uint32), *column.runs())
        self._append(key, version, block, hashes, column.values())

    def _append(self, key: VersionKey, version: Version, block: Block, hashes: Hashes, values: Values) -> None:
        """Write a block of hashes in the order of arrival, together with small ones before it."""
        block.number = number = self._tables.new_number()
        more = mergeable([*(old.size for old in version.blocks), block.size]) - 1
        if more > 0:
            old = version.blocks[-more:]
            block = merged(number, [*old, block])
            hashes = block.arrived()
            values = together([*(self._tables.packed(part.number).all() for part in old), values])
            self._tables.delete_blocks(old)
        blocks = (*version.blocks[: len(version.blocks) - max(0, more)], block)
        self._tables.add_block(version.number, block, hashes, values)
        self._draft.versions[key] = msgspec.structs.replace(version, blocks=blocks)

    def _filter(self, model: str) -> Filter:
        """Of ids of a model; a new one where rows were added that it was not made for."""
        known = self._filters.get(model)
        if known is None or known.full:
            blocks = [block for _, version in self._versions(model) for block in version.blocks]
            known = self._filters[model] = Filter([block.hashes for block in blocks])
        return known

    def _versions(self, model: str) -> list[tuple[VersionKey, Version]]:
        return [(key, version) for key, version in self._draft.versions.items() if key[0] == model]

    # -- the join -----------------------------------------------------------------------------------------------------

    def load(self, ids: dict[str, list[Hashes]], added: Added, outcome: Outcome) -> Families:
        """All that is known of ids, by their model; rows that were added arrive now."""
        families: Families = {}
        arrivals: list[tuple[int, Family, Row]] = []
        self._places.clear()
        for model, parts in ids.items():
            wanted = np.unique(np.concatenate(parts))
            for number, told_for, hashed, time, value in self._tables.early(model, self._early.having(wanted)):
                family = families.setdefault((model, hashed), Family(model))
                family.early[told_for] = Early(value.encode(), time, number)
                family.waited += 1
            for key, version in self._versions(model):
                for block, which, rows in _find(version, wanted):
                    first = added.firsts.get(key, version.end)
                    order = added.orders[key]() if block.end > first else None
                    names = wanted[which].view(np.int64).tolist()
                    for hashed, place, row in zip(
                        names, rows.tolist(), self._rows(key, version, block, rows), strict=True
                    ):
                        family = families.setdefault((model, hashed), Family(model))
                        if order is None or block.first + place < first:
                            family.rows.append(row)
                        else:
                            arrivals.append((int(order[block.first + place - first]), family, row))
        for _, family, row in sorted(arrivals, key=lambda arrival: arrival[0]):
            family.arrive(row, outcome)
        return families

    def _rows(self, key: VersionKey, version: Version, block: Block, rows: NDArray[np.int64]) -> list[Row]:
        """Rows of a block."""
        labels = block.labels
        kinds = labels.kinds[rows].tolist() if labels is not None else [0] * len(rows)
        found = []
        values = self._tables.packed(block.number).json(rows)
        for place, time, value, kind in zip(rows.tolist(), block.times_at(rows).tolist(), values, kinds, strict=True):
            row = Row(len(self._places), key[1], time, value)
            if kind and labels is not None:
                row.label, row.label_time = labels.json(place), int(labels.times[place])
                row.every = bool(kind & EVERY)
            self._places.append((version.number, block, place))
            found.append(row)
        return found

    def keep(self, families: Families) -> None:
        """Write what changed."""
        self._keep_told([row for family in families.values() for row in family.rows if row.changed])
        changed = [(key, family) for key, family in families.items() if family.early_changed]
        if not changed:
            return
        early: list[EarlyRow] = [
            (label.number, model, version, hashed, label.time, label.value.decode())
            for (model, hashed), family in changed
            for version, label in family.early.items()
        ]
        early.sort(key=lambda row: row[4])  # they are numbered in the order in which they came
        self._tables.replace_early([key for key, _ in changed], early)
        for (model, _), family in changed:
            self._draft.labels[model] += len(family.early) - family.waited
        if self._early.full:
            self._early = Filter([self._tables.early_hashes()])
        else:
            self._early.add(np.array([row[3] for row in early], np.int64).view(np.uint64))

    def _keep_told(self, rows: Sequence[Row]) -> None:
        """Write labels of rows, and have them set."""
        if not rows:
            return
        told = np.zeros(len(rows), LABELLED)
        texts: dict[bytes, int] = {}
        by_block: dict[int, list[int]] = {}
        values, kinds = [], []
        for index, row in enumerate(rows):
            assert row.label is not None
            number = label_number(row.label)
            values.append(texts.setdefault(row.label, len(texts)) if number is None else number)
            kinds.append((TEXT if number is None else NUMBER) | (EVERY if row.every else 0))
            by_block.setdefault(self._places[row.number][1].number, []).append(index)
        places = [self._places[row.number] for row in rows]
        told["version"] = [version for version, _, _ in places]
        told["row"] = [block.first + place for _, block, place in places]
        told["kind"], told["value"], told["time"] = kinds, values, [row.label_time for row in rows]
        for indices in by_block.values():
            block = places[indices[0]][1]
            self._staged.append((block, told["row"][indices] - block.first, told[indices], [*texts]))
        self._tables.add_told(told, [*texts])
        self._draft.told_entries += 1
        self._draft.told_rows += len(told)

    # -- rows go ------------------------------------------------------------------------------------------------------

    def give_up_past(self, before: Callable[[str], int]) -> dict[VersionKey, int]:
        """Give up rows from before a time, in microseconds, by model; how many of them had no label, by version."""
        lost = {}
        for key, version in list(self._draft.versions.items()):
            limit = max(version.before, before(key[0]))
            old = [block for block in version.blocks if block.earliest < limit]
            if any(((block.times >= version.before) & (block.times < limit)).any() for block in old):
                lost[key] = self._give_up(key, version.first, limit)
        return {key: number for key, number in lost.items() if number}

    def give_up_oldest(self, most: int) -> dict[VersionKey, int]:
        """Give up as many rows as that; how many of them had no label, by version."""
        keys, numbers, times = [], [], []
        for key, version in self._draft.versions.items():
            oldest, came = _oldest(version, most)
            keys.append(key)
            numbers.append(oldest)
            times.append(came)
        owners = np.repeat(np.arange(len(keys)), [len(part) for part in numbers])
        chosen = owners[np.concatenate(times).argsort(kind="stable")[:most]]
        lost = {}
        for index, count in enumerate(np.bincount(chosen, minlength=len(keys)).tolist()):
            if count:
                first = int(numbers[index][count - 1]) + 1
                lost[keys[index]] = self._give_up(keys[index], first, self._draft.versions[keys[index]].before)
        return {key: number for key, number in lost.items() if number}

    def _give_up(self, key: VersionKey, first: int, before: int) -> int:
        """Give up rows with lower numbers or from earlier times; how many of them had no label."""
        version = self._draft.versions[key]
        waiting = labelled = empty = 0
        leading = True
        for block in version.blocks:
            if block.whole(first, before):
                leading = False
                continue
            kept = block.kept(first, before)
            gone, told = block.kept(version.first, version.before) & ~kept, block.labelled()
            waiting += int((gone & ~told).sum())
            labelled += int((gone & told).sum())
            leading = leading and not kept.any()
            empty += leading
        self._draft.waiting[key] -= waiting
        self._draft.labelled[key] -= labelled
        if empty:
            self._tables.delete_blocks(version.blocks[:empty])
            first = max(first, version.blocks[empty - 1].end)
        self._tables.give_up(version.number, first, before)
        self._draft.versions[key] = Version(version.number, version.blocks[empty:], first, before)
        return waiting

    def compact(self) -> None:
        """Write the labels of rows anew where most of what is written does not hold any more, or it is in pieces."""
        labelled = self._draft.labelled.total()
        pieces = self._draft.told_entries > _TOLD_ENTRIES + labelled // 100
        if not pieces and self._draft.told_rows <= _TOLD_ROWS + 2 * labelled:
            return
        self._tables.delete_told()
        self._draft.told_entries = self._draft.told_rows = 0
        for version in self._draft.versions.values():
            for block in version.blocks:
                places = np.flatnonzero(block.kept(version.first, version.before) & block.labelled())
                if block.labels is not None and len(places):
                    told, texts = block.labels.written(version.number, block.first, places)
                    self._tables.add_told(told, texts)
                    self._draft.told_entries += 1
                    self._draft.told_rows += len(told)


def _find(version: Version, wanted: Hashes) -> list[tuple[Block, NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks with rows of sorted hashes: indices of these, and the rows."""
    found = []
    for block in version.blocks:
        which, rows = block.find(wanted, version.first, version.before)
        if len(which):
            found.append((block, which, rows))
    return found


def _oldest(version: Version, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the first rows that are kept, about as many as that at least, and when they or one before came."""
    numbers, times, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for block in version.blocks:
        if rows >= most:
            break
        kept = block.kept(version.first, version.before)
        numbers.append(np.flatnonzero(kept) + block.first)
        times.append(block.row_times()[kept])
        rows += len(numbers[-1])
    return np.concatenate(numbers), np.maximum.accumulate(np.concatenate(times))


def _put(version: Version, told: NDArray[Any], texts: Sequence[bytes]) -> None:
    """Set labels of rows of a version."""
    for block in version.blocks if len(told) else ():
        here = told[(told["row"] >= block.first) & (told["row"] < block.end)]
        if len(here):
            block.put_labels(here["row"] - block.first, here, texts)
