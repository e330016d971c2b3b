"""Reloads one after the other: a bad configuration changes nothing, and who asks is told."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Clock, baseline, numeric
from mlexporter import baseline as baseline_files
from mlexporter import config
from mlexporter.config import Config, LabelsConfig, ModelConfig
from mlexporter.loading import load_baselines
from mlexporter.pending.opening import Horizons
from mlexporter.reloader import MOST_WAITING, BusyReloading, Loaded, Reloader
from mlexporter.store import Store
from mlexporter.telemetry import Telemetry

DEADLINE = 10.0
PROFILE = baseline(numeric("x", (0.0, 1.0, 2.0), [0.5, 1.5] * 400))
GOOD = "models: [{name: m, version: '1', baseline: m.json}]\n"
SUCCESSFUL = "mlexporter_config_last_reload_successful"
TIMESTAMP = "mlexporter_config_last_reload_success_timestamp_seconds"


class World:
    """A reloader on a file, and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mlexporter.yml"
        self.file.write_text(GOOD)
        (folder / "m.json").write_bytes(baseline_files.encode(PROFILE))
        self.clock = Clock()
        self.telemetry = Telemetry(self.clock)
        self.telemetry.loaded()
        settings, baselines = self.load()
        self.store = Store(settings, baselines, self.clock)
        self.used: list[Config] = []
        self.reloader = Reloader(self.load, settings, self.store, self.telemetry, (self.used.append,))

    def load(self) -> Loaded:
        settings = config.load(self.file)
        return settings, load_baselines(settings, self.file)

    def reload(self) -> str | None:
        """Ask from another thread, and let this one do it."""
        answers: list[str | None] = []
        asking = threading.Thread(target=lambda: answers.append(self.reloader.reload()))
        asking.start()
        self.reloader.once()
        asking.join(DEADLINE)
        (answer,) = answers
        return answer

    def told(self, name: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_good_configuration_holds_from_then_on(world: World) -> None:
    world.clock.now += 100
    world.file.write_text(GOOD + "windows: [6h]\nlimits: {max_body_bytes: 1KiB}\n")
    assert world.reload() is None
    (version,) = world.store.snapshot().versions
    assert [label for label, _, _ in version.windows] == ["6h"]
    (used,) = world.used
    assert used.limits.max_body_bytes == 1024
    assert (world.told(SUCCESSFUL), world.told(TIMESTAMP)) == (1, world.clock.now)


BAD: dict[str, tuple[str, str]] = {
    "unknown key": ("windwos: [1h]\n", ":1:1: windwos: unknown key; did you mean windows?"),
    "unit": ("windows: [1h, 7]\n", ':1:15: windows[1]: "7" has no unit'),
    "syntax": ("models: [\n", ":2:1: "),
    "missing baseline": (GOOD.replace("m.json", "n.json"), "models[0].baseline: "),
    "too many series": (GOOD + "limits: {max_series: 100}\nwindows: [1h, 2h, 3h, 4h, 5h]\n", "limits.max_series: "),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_changes_nothing(world: World, case: str, caplog: pytest.LogCaptureFixture) -> None:
    text, problem = BAD[case]
    before, at = world.store.snapshot().versions, world.told(TIMESTAMP)
    world.clock.now += 100
    world.file.write_text(text)
    answer = world.reload()
    assert answer is not None
    assert problem in answer
    assert answer.startswith(f"{world.file}:")
    (after,) = world.store.snapshot().versions
    assert after.monitor is before[0].monitor
    assert world.used == []
    assert (world.told(SUCCESSFUL), world.told(TIMESTAMP)) == (0, at)
    (record,) = (record for record in caplog.records if record.name == "mlexporter.reloader")
    assert (record.levelno, record.__dict__["error"]) == (logging.WARNING, answer)
    # and the next good one is taken
    world.file.write_text(GOOD)
    assert world.reload() is None
    assert (world.told(SUCCESSFUL), world.told(TIMESTAMP)) == (1, world.clock.now)


def test_no_file_any_more(world: World) -> None:
    world.file.unlink()
    answer = world.reload()
    assert answer is not None
    assert "cannot be read: No such file or directory" in answer


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff"])
def test_a_baseline_that_is_broken(world: World, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    answer = world.reload()
    assert answer is not None
    assert "models[0].baseline: " in answer
    (version,) = world.store.snapshot().versions
    assert version.monitor is not None


def test_what_needs_a_restart_is_named_each_time_and_not_shown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.file.write_text(GOOD + "labels: {store: 'redis://:hunter2@redis:6379/0', max_rows: 5000}\nwindows: [6h]\n")
    for _ in range(2):
        caplog.clear()
        assert world.reload() is None
        keys = [record.__dict__["key"] for record in caplog.records if "key" in record.__dict__]
        assert keys == ["labels.store", "labels.max_rows"]
        assert "hunter2" not in str([record.__dict__ for record in caplog.records])
    assert world.used[-1].labels == Config().labels
    (version,) = world.store.snapshot().versions
    assert [label for label, _, _ in version.windows] == ["6h"]


def test_a_bug_is_told_and_the_next_reload_has_its_chance(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("4929-1111-2222-3333")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "reload", broken)
        assert world.reload() == "internal error; the exporter's log says where"
    assert world.told(SUCCESSFUL) == 0
    assert "reload failed" in caplog.text
    assert world.reload() is None
    assert world.told(SUCCESSFUL) == 1


def test_one_after_the_other_and_one_for_all_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    loads: list[int] = []
    load = world.load

    def slow() -> Loaded:
        loads.append(1)
        begun.release()
        assert go_on.acquire(timeout=DEADLINE)
        return load()

    world.reloader = Reloader(slow, world.load()[0], world.store, world.telemetry)
    threading.Thread(target=world.reloader.run, daemon=True).start()
    answers: list[str | None] = []

    def ask() -> None:
        answers.append(world.reloader.reload())

    first = threading.Thread(target=ask)
    first.start()
    assert begun.acquire(timeout=DEADLINE)
    second = threading.Thread(target=ask)
    second.start()
    for _ in range(5):
        world.reloader.ask()  # signals take no place
    _until(lambda: world.reloader._asked.qsize() == 6)
    with pytest.raises(BusyReloading):
        world.reloader.reload()
    go_on.release()
    first.join(DEADLINE)
    assert begun.acquire(timeout=DEADLINE)
    assert len(loads) == 2
    assert len(answers) == 1
    go_on.release()
    second.join(DEADLINE)
    assert answers == [None, None]
    assert len(loads) == 2
    assert MOST_WAITING == 2
    # its place is free again
    third = threading.Thread(target=ask)
    third.start()
    go_on.release()
    third.join(DEADLINE)
    assert answers == [None, None, None]


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(DEADLINE / 0.01)):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to it")


def test_predictions_wait_as_long_as_the_configuration_that_holds_says() -> None:
    def of(*horizons: tuple[str, str, float]) -> Config:
        models = (
            ModelConfig(name=name, version=version, labels=LabelsConfig(horizon=seconds))
            for name, version, seconds in horizons
        )
        return Config(models=tuple(models))

    horizons = Horizons(of(("m", "1", 60.0), ("m", "2", 120.0), ("n", "1", 600.0)))
    assert (horizons("m"), horizons("n"), horizons("other")) == (120.0, 600.0, 7 * 86400.0)
    horizons.use(of(("m", "1", 60.0), ("other", "1", 3600.0)))
    assert (horizons("m"), horizons("n"), horizons("other")) == (60.0, 7 * 86400.0, 3600.0)
