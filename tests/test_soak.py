"""The soak, for seconds: that its traffic is taken, its account is right, and that it would tell what grows."""

import os

import numpy as np
import pytest

from benchmarks.soak import Sight, flat, show, slope, soak

MINUTES = float(os.environ.get("MLEXPORTER_SOAK_MINUTES", "0.4"))
LONG = 15.0
"""Minutes after which what waits for labels, and with it memory, has reached its size."""


def test_nothing_fails_and_everything_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = soak(MINUTES, 30.0)
    with capsys.disabled():
        show(verdicts if MINUTES >= LONG else [])
    by_time = ("resident memory", "series on the page", "page, kB", "state.bin", "pending.sqlite", "its write-ahead")
    if MINUTES < LONG:
        verdicts = [each for each in verdicts if not each.what.startswith((*by_time, "a tick takes"))]
        verdicts = [each for each in verdicts if " ticks, " not in each.what]  # machines of tests are slow at times
        assert len(verdicts) == 6
    assert [each for each in verdicts if not each.good] == []


def sights(resident: list[float], descriptors: list[int] | None = None) -> list[Sight]:
    more = descriptors or [20] * len(resident)
    return [
        Sight(60.0 * i, one, 500.0, 4000, open_, 20, 1000.0, 4000.0, 4000.0, 1.0 * i)
        for i, (one, open_) in enumerate(zip(resident, more, strict=True))
    ]


def bad(found: list[Sight]) -> list[str]:
    return [each.what for each in flat(found) if not each.good]


def test_what_is_flat_passes() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 60)
    # a steep rise at first, noise, and a peak
    resident = [90.0 + min(i, 15) * 3 + noise[i] for i in range(60)]
    resident[40] += 40
    assert bad(sights(resident)) == []


def test_what_leaks_fails() -> None:
    noise = np.random.default_rng(2).normal(0, 1, 60)
    assert bad(sights([90.0 + 0.2 * i + noise[i] for i in range(60)])) == ["resident memory"]
    assert bad(sights([90.0] * 60, [20 + i // 5 for i in range(60)])) == ["file descriptors"]


def test_a_slope_is_that_of_most_pairs() -> None:
    # (0, 0), (1, 2), (2, 4), and one that is far off: slopes 2, 2, 2, 33.3, 49, 96
    assert slope([0, 1, 2, 3], [0, 2, 4, 100]) == pytest.approx((2 + 100 / 3) / 2)
    assert slope([0, 10, 20, 30, 40], [5, 6, 7, 8, 90]) == pytest.approx(0.1)
