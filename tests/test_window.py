"""The ring of panes: it holds what came within its length, and nothing of what came before."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter.binning import Counts
from mlexporter.window import PANES, Window

WIDTH = 60.0  # of a pane of an hour
START = 1_700_000_000.0 - 1_700_000_000.0 % WIDTH


def counts(*bins: int, sums: tuple[float, ...] = (0.0, 0.0)) -> Counts:
    none = np.zeros(0)
    return Counts(
        bins=np.array(bins), sums=np.array(sums), squares=none, invalid=none.astype(np.int64), unknown=0, rows=0
    )


def window() -> Window:
    return Window(3600.0, counts(0, 0))


def held(ring: Window) -> list[int]:
    bins: list[int] = ring.total()[0].tolist()
    return bins


def test_holds_its_length_and_forgets_by_panes() -> None:
    ring = window()
    ring.advance(START)
    ring.add(counts(1, 0))
    ring.advance(START + WIDTH - 0.001)
    ring.add(counts(1, 1))
    ring.advance(START + WIDTH)
    ring.add(counts(0, 5))
    assert held(ring) == [2, 6]
    ring.advance(START + 3600 - 0.001)
    assert held(ring) == [2, 6]
    ring.advance(START + 3600)
    assert held(ring) == [0, 5]
    ring.advance(START + 3600 + WIDTH)
    assert held(ring) == [0, 0]


@given(
    st.lists(
        st.tuples(st.floats(0, 2000), st.integers(0, 9), st.integers(-1000, 1000).map(lambda i: i / 8)), max_size=60
    ),
    st.floats(0, 4000),
)
def test_window_is_the_sum_of_the_panes_that_are_left(events: list[tuple[float, int, float]], wait: float) -> None:
    ring, now = window(), START
    ring.advance(now)
    seen: list[tuple[int, int, float]] = []
    for step, count, value in events:
        now += step
        ring.advance(now)
        ring.add(counts(count, 1, sums=(value, -value)))
        seen.append((math.floor(now / WIDTH), count, value))
    now += wait
    ring.advance(now)
    kept = [event for event in seen if event[0] > math.floor(now / WIDTH) - PANES]
    bins, sums = ring.total()
    assert bins.tolist() == [sum(count for _, count, _ in kept), len(kept)]
    # eighths add without rounding
    assert sums.tolist() == [sum(value for _, _, value in kept), -sum(value for _, _, value in kept)]


def test_float_sums_leave_nothing_behind() -> None:
    ring = window()
    ring.advance(START)
    ring.add(counts(1, 0, sums=(1e17, 0.1)))
    ring.advance(START + WIDTH)
    ring.add(counts(1, 0, sums=(0.1, 1e17)))
    ring.advance(START + 3600)
    assert ring.total()[1].tolist() == [0.1, 1e17]
    ring.advance(START + 3600 + WIDTH)
    assert ring.total()[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("idle", [3600.0, 3601.0, 7200.0, 1e9])
def test_forgets_all_after_a_long_idle_time(idle: float) -> None:
    ring = window()
    ring.advance(START)
    ring.add(counts(3, 4, sums=(0.1, 0.2)))
    ring.advance(START + idle)
    assert held(ring) == [0, 0]
    assert ring.total()[1].tolist() == [0, 0]
    ring.add(counts(1, 1))
    assert held(ring) == [1, 1]
    ring.advance(START + idle + 3600)
    assert held(ring) == [0, 0]


def test_a_clock_set_back_forgets_nothing_and_sticks_nowhere() -> None:
    ring = window()
    ring.advance(START)
    ring.add(counts(1, 0))
    back = START - 86_400
    ring.advance(back)
    ring.add(counts(0, 1))
    assert held(ring) == [1, 1]
    ring.advance(back + 3600 - WIDTH)
    assert held(ring) == [1, 1]
    ring.advance(back + 3600)
    assert held(ring) == [0, 0]


def test_totals_are_copies() -> None:
    ring = window()
    ring.advance(START)
    bins, sums = ring.total()
    ring.add(counts(1, 2, sums=(3.0, 4.0)))
    assert bins.tolist() == [0, 0]
    assert sums.tolist() == [0, 0]
    ring.total()[0][:] = 99
    assert held(ring) == [1, 2]


def test_zero_counts_are_not_written_to() -> None:
    zero = counts(0, 0)
    ring = Window(3600.0, zero)
    ring.advance(START)
    ring.add(counts(1, 2, sums=(3.0, 4.0)))
    assert zero.bins.tolist() == [0, 0]
    assert zero.sums.tolist() == [0, 0]


def filled() -> Window:
    """A window with sums that depend on the order in which they are added."""
    ring = window()
    for i in range(90):
        ring.advance(START + i * WIDTH)
        ring.add(counts(i, 1, sums=(0.1 * i, 1e-9)))
    return ring


def test_goes_on_from_a_state() -> None:
    one, other = filled(), window()
    state = one.state()
    assert other.restore(state)
    for ring in (one, other):  # the state is a copy, for either of them
        ring.advance(START + 100 * WIDTH)
        ring.add(counts(7, 7, sums=(0.7, 0.7)))
    for here, there in zip(one.total(), other.total(), strict=True):
        assert here.tolist() == there.tolist()
    again = window()
    assert again.restore(state)
    assert held(again) == [sum(range(30, 90)), 60]
    again.advance(START + 148 * WIDTH)
    assert held(again) == [89, 1]
    again.advance(START + 149 * WIDTH)
    assert held(again) == [0, 0]


def test_another_state_is_refused() -> None:
    state = filled().state()
    for changed in (
        msgspec.structs.replace(state, width=61.0),
        msgspec.structs.replace(state, slot=PANES),
        msgspec.structs.replace(state, slot=-1),
        msgspec.structs.replace(state, bins=state.bins[1:]),
        msgspec.structs.replace(state, bins=state.bins[:, 1:]),
        msgspec.structs.replace(state, sums=state.sums[:, 1:]),
        msgspec.structs.replace(state, total_sums=state.total_sums[1:]),
    ):
        ring = window()
        ring.advance(START)
        ring.add(counts(1, 2))
        assert not ring.restore(changed)
        assert held(ring) == [1, 2]
