"""A clock that is set, forward or back, by seconds or by years: nothing breaks, is counted twice or falls."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crowd import DAY, PROFILE, World, values_of
from joining import running
from mlexporter.store import Store

YEAR = 365 * DAY
JUMPS = st.sampled_from(
    [0.5, 15.0, 61.0, 3600.0, DAY, 8 * DAY, 10 * YEAR, -0.5, -15.0, -61.0, -3600.0, -DAY, -8 * DAY, -10 * YEAR]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("jump"), JUMPS),
        st.tuples(st.just("samples"), st.integers(1, 20)),
        st.tuples(st.just("labels"), st.integers(1, 5)),
        st.tuples(st.just("tick"), st.none()),
        st.tuples(st.just("restart"), JUMPS),
    ),
    min_size=5,
    max_size=40,
)


class Life:
    """An exporter whose clock is not to be trusted."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.sent = 0
        self.labelled = 0
        self.seen: dict[Any, float] = {}

    def samples(self, rows: int) -> None:
        samples = [{"id": f"r{self.sent + i}", "features": {"x": i % 5 + 0.5}, "prediction": 0.25} for i in range(rows)]
        code, _ = self.world.call("POST", "/v1/samples", {"model": "m", "version": "1", "samples": samples})
        assert code == 200
        self.sent += rows

    def labels(self, most: int) -> None:
        ids = range(self.labelled, min(self.labelled + most, self.sent))
        if ids:
            labels = [{"id": f"r{i}", "label": i % 2} for i in ids]
            code, _ = self.world.call("POST", "/v1/labels", {"model": "m", "version": "1", "labels": labels})
            assert code == 200
        self.labelled += len(ids)

    def jump(self, seconds: float) -> None:
        self.world.clock.now = max(self.world.clock.now + seconds, 0.0)

    def tick(self, _: None) -> None:
        self.world.store.tick()

    def restart(self, seconds: float) -> None:
        """What goes on from a state tells the same as what was never stopped, whatever the clock did meanwhile."""
        state = self.world.store.state()
        self.jump(seconds)
        other = Store(self.world.config, {("m", "1"): PROFILE, ("m", "2"): PROFILE}, self.world.clock)
        other.restore(state, clean=True)
        for one, again in zip(self.world.store.snapshot().versions, other.snapshot().versions, strict=True):
            assert again.samples == one.samples
            assert [w[1].tolist() for w in again.windows] == [w[1].tolist() for w in one.windows]

    def check(self) -> None:
        page = self.world.page()
        assert page.get(("samples_total", "m", "1"), 0) == sum(values_of(page, "x", "1").values()) == self.sent
        for key, value in page.items():
            if key[0].endswith(("_total", "_count", "_bucket", "_sum")):
                assert value >= self.seen.get(key, 0), key
                self.seen[key] = value
            if key[0] == "column_window_samples":
                assert 0 <= value <= self.sent


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_clock_that_is_set(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]) -> None:
    life = Life(tmp_path_factory.mktemp("life"))
    with running(life.world.joiner):
        for name, argument in steps:
            getattr(life, name)(argument)
            life.check()
    life.check()
    page = life.world.page()
    tracked, labels, expired = (
        sum(value for key, value in page.items() if key[0] == name)
        for name in ("predictions_tracked_total", "labels_total", "predictions_expired_total")
    )
    assert tracked == life.sent
    assert labels <= life.labelled
    assert labels + expired <= tracked
    if not expired and not sum(value for key, value in page.items() if key[0] == "labels_unmatched_total"):
        assert labels == life.labelled


@pytest.mark.parametrize("back", [30.0, 3600.0, 10 * YEAR])
def test_a_clock_that_was_ahead_at_the_start_holds_nothing_up(tmp_path: Path, back: float) -> None:
    """As of a machine whose clock is set soon after it was started: windows fill, and the alarm speaks."""
    life = Life(tmp_path)
    life.samples(20)
    life.tick(None)
    life.jump(-back)
    for _ in range(40):
        life.samples(20)
        life.jump(15.0)
        life.tick(None)
    page = life.world.page()
    assert page["column_window_samples", "x", "m", "feature", "1", "1d"] == 820
    # x is never above 5 and never missing here, as it is in the baseline
    assert page["column_drift_log_evidence", "x", "m", "feature", "page", "1"] > 0
