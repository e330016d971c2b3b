"""Killed at any call, stopped in the middle, a folder that is taken away, a disk that is full for a while."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import Clock
from mlexporter.persistence import InUseError, Saver, StateFolder
from mlexporter.samples import Batch
from mlexporter.store import Store
from test_persistence import Told, samples_of, small
from test_restart import Exporter, labelled, until

SECONDS = 30.0


@pytest.fixture
def store() -> Store:
    return small()


# -- killed at any call -----------------------------------------------------------------------------------------------


class Killer:
    """Kills this process at its n-th call of the system, before it is made or after."""

    def __init__(self, calls: int, *, after: bool) -> None:
        self.left = calls
        self.after = after

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            self.left -= 1
            if not self.left and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*given, **named)
            if not self.left and self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return wrapped


CALLS = [(os, "open"), (os, "fsync"), (os, "close"), (os, "fdopen"), (Path, "replace"), (Path, "unlink")]


def killed_at(call: int, *, after: bool, work: Callable[[], object]) -> bool:
    """Do this in a process of its own, which dies at that call; False where it came to its end before that."""
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            killer = Killer(call, after=after)
            for owner, name in CALLS:
                setattr(owner, name, killer.wrap(getattr(owner, name)))
            work()
            code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call_of_a_write(tmp_path: Path, store: Store, *, after: bool) -> None:
    """The old state or the new one, whole; and clean only where the new one is there and was marked."""
    old = store.state()
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    new = store.state()
    seen: list[tuple[int, bool]] = []
    for call in range(1, 100):
        folder = tmp_path / str(call)
        StateFolder(folder).write(old)
        if not killed_at(call, after=after, work=partial(StateFolder(folder).write, new, clean=True)):
            break
        found = StateFolder(folder).take()
        assert not found.damaged
        seen.append((samples_of(found.state), found.clean))
        # what was left half done is in nobody's way
        StateFolder(folder).write(new)
        assert samples_of(StateFolder(folder).take().state) == 11
    # in this order, each of them at some calls
    assert sorted(set(seen)) == [(10, False), (11, False), (11, True)]
    assert seen == sorted(seen)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call_of_a_start(tmp_path: Path, store: Store, *, after: bool) -> None:
    """The mark of a clean stop is there for the next start, or is not; the state is."""
    seen: list[bool] = []
    for call in range(1, 100):
        folder = tmp_path / str(call)
        StateFolder(folder).write(store.state(), clean=True)
        if not killed_at(call, after=after, work=StateFolder(folder).take):
            break
        found = StateFolder(folder).take()
        assert samples_of(found.state) == 10
        seen.append(found.clean)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == ({False} if after else {True, False})  # its first call takes the mark away


def test_a_mark_that_is_cut_or_changed_is_not_believed(tmp_path: Path, store: Store) -> None:
    StateFolder(tmp_path).write(store.state(), clean=True)
    path = tmp_path / "state.clean"
    mark = path.read_bytes()
    assert len(mark) == 32
    wrong = [mark[:length] for length in range(32)] + [mark + b"\n"]
    wrong += [bytes([*mark[:i], mark[i] ^ 1 << i % 8, *mark[i + 1 :]]) for i in range(32)]
    for data in wrong:
        path.write_bytes(data)
        found = StateFolder(tmp_path).take()
        assert (samples_of(found.state), found.clean) == (10, False)
    path.write_bytes(mark)
    assert StateFolder(tmp_path).take().clean


# -- stopped in the middle --------------------------------------------------------------------------------------------


def test_a_stop_while_a_write_is_under_way_waits_for_it_and_writes_all(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        writing.set()
        assert go_on.wait(SECONDS)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    told = Told()
    saver = Saver(store, StateFolder(tmp_path), told, Clock())
    thread = threading.Thread(target=saver.run)
    thread.start()
    assert writing.wait(SECONDS)
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    stop = threading.Thread(target=saver.finish)
    stop.start()
    stop.join(0.05)
    assert stop.is_alive(), "it did not wait"
    go_on.set()
    for each in (stop, thread):
        each.join(SECONDS)
        assert not each.is_alive()
    found = StateFolder(tmp_path).take()
    assert (samples_of(found.state), found.clean, len(told.writes)) == (11, True, 2)


STOPPED_AT_START = """
import os, signal, sys
from mlexporter.cli import main
from mlexporter.persistence import StateFolder
take = StateFolder.take
def taken(folder):
    found = take(folder)
    os.kill(os.getpid(), signal.SIGTERM)
    return found
StateFolder.take = taken
main(["serve", *sys.argv[1:]])
"""


@pytest.mark.parametrize("server", ["granian", "waitress"])
def test_a_stop_while_it_starts_loses_no_counter(tmp_path: Path, server: str) -> None:
    """The mark of the last stop is gone by then, and has to be there again."""
    exporter = Exporter(tmp_path)
    exporter.start()
    exporter.ready()
    assert exporter.post(labelled(7, 1))
    assert exporter.stop() == 0
    command = [
        sys.executable, "-c", STOPPED_AT_START, f"--config.file={tmp_path / 'mlexporter.yml'}",
        f"--storage.path={tmp_path / 'state'}", f"--web.listen-address=127.0.0.1:{exporter.port}",
        f"--web.server={server}",
    ]  # fmt: skip
    stopped = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert stopped.returncode == 0, stopped.stderr
    exporter.start()
    try:
        exporter.ready()
        assert exporter.one("samples_total") == 7
    finally:
        exporter.kill()


@pytest.mark.parametrize("server", ["granian", "waitress"])
def test_signals_in_a_row_are_one_stop(tmp_path: Path, server: str) -> None:
    """Who is impatient must not turn a stop into a crash."""
    exporter = Exporter(tmp_path)
    exporter.start(f"--storage.path={tmp_path / 'state'}", f"--web.server={server}")
    try:
        exporter.ready()
        for _ in range(8):
            exporter.process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        assert exporter.process.wait(SECONDS) == 0
    finally:
        exporter.kill()
    assert (tmp_path / "state" / "state.clean").exists()


# -- a folder that is taken away --------------------------------------------------------------------------------------


def test_a_folder_that_was_replaced_is_locked_again(tmp_path: Path, store: Store) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    folder.write(store.state())
    shutil.rmtree(tmp_path / "state")
    folder.write(store.state())
    with pytest.raises(InUseError):
        StateFolder(tmp_path / "state").lock()


def test_a_folder_that_was_replaced_and_that_another_one_has_is_left_alone(tmp_path: Path, store: Store) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    folder.write(store.state())
    (tmp_path / "state").rename(tmp_path / "old")
    other = StateFolder(tmp_path / "state")
    other.lock()
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    other.write(store.state())
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    for _ in range(2):
        with pytest.raises(InUseError, match="is in use by another process"):
            folder.write(store.state())
    assert samples_of(other.take().state) == 11
    # who has it may go on, and once it is gone the first one may
    other.write(store.state())
    shutil.rmtree(tmp_path / "state")
    folder.write(store.state())
    assert samples_of(folder.take().state) == 12


def test_where_nothing_can_be_locked_the_state_is_written_all_the_same(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("fcntl.flock", refuse)
    folder = StateFolder(tmp_path)
    folder.lock()
    for _ in range(3):
        folder.write(store.state())
    assert [record.message for record in caplog.records] == ["the folder of --storage.path cannot be locked"]
    assert samples_of(folder.take().state) == 10
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- a disk that is full for a while ----------------------------------------------------------------------------------


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path, pause=0.05)
    exporter.start()
    exporter.ready()
    yield exporter
    if exporter.process.poll() is None:
        exporter.kill()


def room(exporter: Exporter, most: int) -> None:
    """How large the exporter may make files from now on, as on a disk that is full."""
    _, hard = resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(exporter.process.pid, resource.RLIMIT_FSIZE, (most, hard))


def errors(exporter: Exporter) -> float:
    return exporter.one("state_write_errors_total") or 0.0


def send_labels(exporter: Exporter, ids: list[str]) -> int:
    content = json.dumps({"model": "m", "labels": [{"id": name, "label": 1} for name in ids]}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{exporter.port}/v1/labels", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def predicted(ids: list[str]) -> list[dict[str, Any]]:
    return [{"id": name, "features": {"x": 0.5}, "prediction": 0.75} for name in ids]


def test_a_disk_that_is_full_for_a_while_costs_nothing(exporter: Exporter) -> None:
    """Samples are taken, labels sent later, and once there is room again all of it is on disk."""
    early, late = [f"a{i}" for i in range(50)], [f"b{i}" for i in range(2000)]
    assert exporter.post(predicted(early))
    assert send_labels(exporter, early) == 200
    room(exporter, 0)
    until(lambda: errors(exporter) >= 3, "errors are counted")
    assert exporter.post(predicted(late))
    assert send_labels(exporter, late) == 503
    assert exporter.get("/-/ready")
    assert exporter.one("samples_total") == 2050
    assert exporter.one("pending_store_up") == 0.0
    room(exporter, resource.RLIM_INFINITY)
    until(lambda: exporter.said("state is written again"), "it goes on")
    until(lambda: send_labels(exporter, late) == 200, "labels are taken")
    until(lambda: exporter.one("labels_total") == 2050, "labels are counted")
    assert len(exporter.said("state cannot be written")) == 1
    assert exporter.stop() == 0
    exporter.start()
    exporter.ready()
    assert (exporter.one("samples_total"), exporter.one("labels_total")) == (2050, 2050)


def test_a_stop_while_the_disk_is_full_is_a_crash_for_who_comes_next(exporter: Exporter) -> None:
    assert exporter.post(predicted(["a"]))
    last = exporter.one("state_last_write_timestamp_seconds") or 0.0
    until(lambda: (exporter.one("state_last_write_timestamp_seconds") or 0.0) > last, "it is written")
    until(lambda: exporter.one("predictions_tracked_total") == 1, "it waits for its label")
    room(exporter, 0)
    until(lambda: errors(exporter) >= 1, "errors are counted")
    assert exporter.post(predicted(["b"]))
    assert exporter.stop() == 0
    exporter.start()
    exporter.ready()
    assert exporter.one("samples_total") == 0
    assert exporter.one("column_window_samples", column="x", window="24h") == 1
    assert exporter.one("state_damaged") == 0
