"""State on disk: bytes that are whole or refused, files that are replaced or left alone, a thread that never dies."""

import errno
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from conftest import Clock, baseline, numeric
from mlexporter import persistence
from mlexporter.config import Config, ModelConfig, Window
from mlexporter.edges import Floats, Ints
from mlexporter.exposition import Exposition
from mlexporter.persistence import Found, InUseError, Saver, StateError, StateFolder, begin, decode, encode
from mlexporter.samples import Batch
from mlexporter.state import State
from mlexporter.store import Store

PROFILE = baseline(numeric("x", (0.0, 1.0, 2.0), [0.5, 1.5] * 200))
CONFIG = Config(models=(ModelConfig(name="m", version="1"),), windows=(Window(60.0, "1m"),))


def small() -> Store:
    """A store that has counted 10 samples, all of whose state takes few bytes."""
    store = Store(CONFIG, {("m", "1"): PROFILE}, Clock())
    store.observe([Batch(10, {"x": [0.5] * 10}, "m")])
    store.tick()
    return store


@pytest.fixture
def store() -> Store:
    return small()


DATA = encode(small().state())
PAYLOAD = DATA[51:]


def samples_of(state: State | None) -> int:
    assert state is not None
    (version,) = state.versions
    return version.samples


def numbers_of(store: Store) -> dict[str, float]:
    """What is on the page, by name and labels."""
    lines = Exposition().page(store.snapshot()).decode().splitlines()
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def sealed(payload: bytes) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    return b"mlexporter-state 1\n" + hashlib.sha256(payload).digest() + payload


# -- bytes ------------------------------------------------------------------------------------------------------------


class Arrays(msgspec.Struct, frozen=True):
    ints: Ints
    floats: Floats
    seconds: NDArray[np.int32]
    bools: NDArray[np.bool_]
    none: Floats | None = None


_SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@given(
    arrays.arrays(np.int64, _SHAPES),
    arrays.arrays(np.float64, _SHAPES),
    arrays.arrays(np.int32, _SHAPES),
    arrays.arrays(np.bool_, _SHAPES),
)
def test_arrays_come_back_as_they_were(ints: Any, floats: Any, seconds: Any, bools: Any) -> None:
    """Every bit of them: NaN, infinities and the sign of zero; turned or sliced, too."""
    for given_arrays in ((ints, floats, seconds, bools), (ints.T, floats.T, seconds[::-1], bools[..., ::-1])):
        one = Arrays(*given_arrays)
        data = msgspec.msgpack.encode(one, enc_hook=persistence._array_out)
        other = msgspec.msgpack.decode(data, type=Arrays, dec_hook=persistence._array_in)
        for name in ("ints", "floats", "seconds", "bools"):
            here, there = getattr(one, name), getattr(other, name)
            assert (here.dtype, here.shape, here.tobytes()) == (there.dtype, there.shape, there.tobytes())


def test_whole_numbers_take_few_bytes() -> None:
    def size(*values: int) -> int:
        return len(persistence._array_out(np.array(values, dtype=np.int64))[2]) // len(values)

    assert [size(0, 255), size(-1, 127), size(0, 256), size(-1, 255), size(0, 2**32), size(0, -(2**63))] == [
        1, 2, 2, 2, 8, 8,
    ]  # fmt: skip


def test_the_file_is_what_it_is_said_to_be() -> None:
    """A line, the SHA-256 of the rest, msgpack: whoever reads it without this program finds it so."""
    assert DATA.startswith(b"mlexporter-state 1\n")
    assert hashlib.sha256(PAYLOAD).digest() == DATA[19:51]
    plain = msgspec.msgpack.decode(PAYLOAD)
    (version,) = plain["versions"]
    assert (version["model"], version["name"], version["samples"]) == ("m", "1", 10)
    # below, (0, 1], (1, 2], above, missing
    assert version["counts"]["bins"] == ["|u1", [5], bytes([0, 10, 0, 0, 0])]
    assert len(DATA) < 20_000


def test_what_this_version_wrote_once_is_still_read(golden: Path, request: pytest.FixtureRequest) -> None:
    """Whoever changes the form of a state has to name another version in its first line, and to begin another file."""
    path = golden / "state-1.bin"
    if request.config.getoption("--update-golden"):
        path.write_bytes(DATA)
    store = Store(CONFIG, {("m", "1"): PROFILE}, Clock())
    assert store.restore(decode(path.read_bytes()), clean=True) == []
    found, expected = numbers_of(store), numbers_of(small())
    assert found.keys() == expected.keys()
    # evidence has other last digits on other machines
    assert list(found.values()) == pytest.approx([expected[key] for key in found], rel=1e-9)


def test_a_file_that_is_cut_off_at_any_length_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(StateError):
            decode(DATA[:length])
    assert samples_of(decode(DATA)) == 10


def test_a_file_with_any_byte_changed_is_refused() -> None:
    changed = bytearray(DATA)
    for place in range(len(DATA)):
        changed[place] ^= 1 << place % 8
        with pytest.raises(StateError):
            decode(bytes(changed))
        changed[place] ^= 1 << place % 8


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is no state of this program, or is cut off"),
        (b"mlexporter-state 2\n" + DATA[19:], "it is of another version"),
        (b"PK\x03\x04" + DATA, "it is no state of this program, or is cut off"),
        (DATA + b"\n", "its checksum is wrong: it is cut off, or was changed"),
        (sealed(b""), "it is of another form: Input data was truncated"),
        (sealed(msgspec.msgpack.encode({"time": 1.0})), "it is of another form: Object missing required field"),
        (sealed(PAYLOAD.replace(b"\xa3|u1", b"\xa3|O8")), "it is of another form: "),
        (sealed(PAYLOAD.replace(b"\xa3<f8", b"\xa3<f4")), "it is of another form: "),
        (sealed(PAYLOAD.replace(b"\xa3|u1", b"\xa3( ,")), "it is of another form: "),
        (sealed(PAYLOAD.replace(b"\xa3|u1", b"\xa3|V0")), "it is of another form: "),
        (sealed(b"\x81\xa1x" + b"\x91" * 200_000 + b"\xc0"), "it is of another form: maximum recursion depth"),
    ],
)
def test_what_else_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(StateError) as caught:
        decode(data)
    assert str(caught.value).startswith(why)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_file_whose_checksum_is_right_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Whoever can write to the folder can make the exporter forget; but it starts."""
    changed = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = decode(sealed(bytes(changed)))
    except StateError:
        return
    store = Store(CONFIG, {("m", "1"): PROFILE}, Clock())
    begin(store, Found(state, clean=True))
    store.observe([Batch(1, {"x": [0.5]}, "m", "1")])
    assert store.snapshot().versions


# -- files ------------------------------------------------------------------------------------------------------------


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "a" / "b")
    folder.lock()
    assert folder.take() == Found()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_state_comes_back(tmp_path: Path, store: Store) -> None:
    folder = StateFolder(tmp_path)
    assert folder.write(store.state()) == (tmp_path / "state.bin").stat().st_size
    found = folder.take()
    assert (samples_of(found.state), found.clean, found.damaged, found.totals) == (10, False, False, {})
    assert (tmp_path / "state.bin").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.bin"]


def test_a_clean_stop_is_believed_once(tmp_path: Path, store: Store) -> None:
    StateFolder(tmp_path).write(store.state(), clean=True)
    found = StateFolder(tmp_path).take()
    assert found.clean
    assert list(found.totals) == ['["m", "1"]']
    # whoever is killed after it has taken the state was not stopped cleanly
    assert not StateFolder(tmp_path).take().clean


def test_the_mark_of_a_clean_stop_belongs_to_one_state(tmp_path: Path, store: Store) -> None:
    StateFolder(tmp_path).write(store.state(), clean=True)
    mark = (tmp_path / "state.clean").read_bytes()
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    StateFolder(tmp_path).write(store.state())
    found = StateFolder(tmp_path).take()
    assert (samples_of(found.state), found.clean) == (11, False)
    (tmp_path / "state.clean").write_bytes(mark + b"x")
    (tmp_path / "state.bin").write_bytes(DATA)
    assert not StateFolder(tmp_path).take().clean


def test_a_mark_that_cannot_be_removed_is_not_believed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = StateFolder(tmp_path)
    folder.write(store.state(), clean=True)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    found = folder.take()
    assert (samples_of(found.state), found.clean) == (10, False)
    assert "the mark of a clean stop cannot be removed" in caplog.text


def directory(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(DATA[:-1]),
    "changed": lambda path: path.write_bytes(DATA[:-1] + b"\x00"),
    "newer": lambda path: path.write_bytes(b"mlexporter-state 2\n" + DATA[19:]),
    "directory": directory,
    "pipe": os.mkfifo,
    "socket": lambda path: os.mknod(path, 0o140600),
    "link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_set_aside(
    tmp_path: Path, store: Store, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGE[kind](tmp_path / "state.bin")
    folder = StateFolder(tmp_path)
    assert folder.take() == Found(damaged=True)
    (aside,) = tmp_path.glob("state.bin.damaged-*")
    assert aside.name.removeprefix("state.bin.damaged-").isdecimal()
    assert f"{aside}" in caplog.records[-1].__dict__["file"]
    # and there is room for a new one
    assert folder.take() == Found()
    folder.write(store.state())
    assert samples_of(folder.take().state) == 10


def test_what_cannot_be_read_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.bin").write_bytes(DATA)
    opened = os.open

    def refuse(path: Any, *arguments: Any) -> int:
        if Path(path).name == "state.bin":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    assert StateFolder(tmp_path).take() == Found(damaged=True)
    assert len(list(tmp_path.glob("state.bin.damaged-*"))) == 1


def test_what_cannot_even_be_set_aside_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.bin").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    assert StateFolder(tmp_path).take() == Found(damaged=True)
    assert "damaged state cannot be set aside" in caplog.text


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "write"])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = StateFolder(tmp_path)
    folder.write(store.state())
    store.observe([Batch(1, {"x": [0.5]}, "m")])
    with monkeypatch.context() as patched:
        if call == "write":  # the disk fills up in the middle
            full = os.memfd_create("full", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(full, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
            patched.setattr(os, "open", lambda *_: full)
        else:

            def refuse(*_: object, **__: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(Path if call == "replace" else os, call, refuse)
        with pytest.raises(OSError, match=r"No space left|not permitted"):
            folder.write(store.state())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.bin"]
    assert samples_of(folder.take().state) == 10
    folder.write(store.state())
    assert samples_of(folder.take().state) == 11


def test_what_is_written_lasts_before_anything_relies_on_it(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power that fails keeps what was flushed, in the file and in the folder, and nothing else for sure."""
    done: list[str] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def flushed(descriptor: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name}")
        return replace(path, target)

    def deleted(path: Path) -> None:
        done.append(f"delete {path.name}")
        unlink(path)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", deleted)
    folder = StateFolder(tmp_path / "folder")
    folder.write(store.state(), clean=True)
    assert done[:3] == ["flush state.bin.new", "rename state.bin.new", "flush folder"]
    assert done[3:] == ["flush state.clean.new", "rename state.clean.new", "flush folder"]
    done.clear()
    assert folder.take().clean
    assert done == ["delete state.clean", "flush folder"]


def test_what_a_crash_left_half_written_is_in_nobodys_way(tmp_path: Path, store: Store) -> None:
    (tmp_path / "state.bin.new").write_bytes(DATA[:100] * 1000)
    folder = StateFolder(tmp_path)
    assert folder.take() == Found()
    folder.write(store.state())
    assert samples_of(folder.take().state) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.bin"]


def test_no_link_is_followed_out_of_the_folder(tmp_path: Path, store: Store) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "state.bin.new").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        StateFolder(folder).write(store.state())
    assert precious.read_text() == "x"


def test_a_folder_is_for_one_process(tmp_path: Path) -> None:
    lock = "import pathlib, sys; from mlexporter.persistence import *; StateFolder(pathlib.Path(sys.argv[1])).lock()"
    subprocess.run([sys.executable, "-c", lock, str(tmp_path)], check=True, timeout=60)  # it lets go by ending
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    first.lock()
    with pytest.raises(InUseError) as caught:
        second.lock()
    assert str(caught.value) == f"{tmp_path} is in use by another process; give each its own --storage.path"


def test_a_folder_in_which_nothing_can_be_made(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Not even by root."""
    folder = StateFolder(Path("/proc/self"))
    folder.lock()
    assert "the folder of --storage.path cannot be locked" in caplog.text
    assert folder.take() == Found()
    with pytest.raises(OSError, match=r"state\.bin\.new"):
        folder.write(store.state())


def test_a_folder_that_cannot_be_made(tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    folder = StateFolder(tmp_path / "file" / "folder")
    folder.lock()
    assert "cannot be locked" in caplog.text
    assert folder.take().state is None
    with pytest.raises(NotADirectoryError):
        folder.write(store.state())
    (tmp_path / "file").unlink()
    folder.write(store.state())
    assert StateFolder(tmp_path / "file" / "folder").take().state is not None


# -- the thread -------------------------------------------------------------------------------------------------------


class Told:
    """What was told of writing."""

    def __init__(self) -> None:
        self.writes: list[tuple[float, float, int]] = []
        self.failures = 0
        self.changed = threading.Condition()

    def written(self, time: float, seconds: float, size: int) -> None:
        with self.changed:
            self.writes.append((time, seconds, size))
            self.changed.notify_all()

    def failed(self) -> None:
        with self.changed:
            self.failures += 1
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30)


def test_it_writes_at_once_and_again_and_again_and_at_the_end(tmp_path: Path, store: Store) -> None:
    told, clock = Told(), Clock()
    saver = Saver(store, StateFolder(tmp_path), told, clock, 0.01)
    thread = threading.Thread(target=saver.run)
    thread.start()
    told.until(lambda: len(told.writes) >= 3)
    saver.finish()
    thread.join(30)
    assert not thread.is_alive()
    time, seconds, size = told.writes[-1]
    assert (time, size) == (clock.now, (tmp_path / "state.bin").stat().st_size)
    assert 0 < seconds < 30
    # nothing is written after the end, which would take the mark its meaning
    writes = len(told.writes)
    saver.save()
    assert len(told.writes) == writes
    assert StateFolder(tmp_path).take().clean


def test_a_failure_is_told_once_and_counted_always(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = Told()
    saver = Saver(store, StateFolder(tmp_path), told, Clock())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        saver.save()
        saver.save()
    assert (told.failures, told.writes) == (2, [])
    saver.save()
    assert len(told.writes) == 1
    assert [record.message for record in caplog.records] == ["state cannot be written", "state is written again"]
    assert caplog.records[0].__dict__["error"] == "[Errno 28] No space left on device"


def test_a_bug_does_not_end_the_thread(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    saver = Saver(store, StateFolder(tmp_path), told, Clock(), 0.01)

    def fail() -> State:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(store, "state", fail)
        thread = threading.Thread(target=saver.run)
        thread.start()
        told.until(lambda: told.failures >= 2)
    told.until(lambda: len(told.writes) >= 1)
    saver.finish()
    thread.join(30)


def test_samples_are_taken_while_a_state_is_encoded_and_written(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the store is not held: this would never end."""
    written = StateFolder._replace

    def write(self: StateFolder, path: Path, *parts: bytes) -> None:
        store.observe([Batch(1, {"x": [0.5]}, "m")])
        assert store.snapshot().versions[0].samples == 11
        written(self, path, *parts)

    out = persistence._array_out

    def encode_array(array: Any) -> Any:
        store.tick()
        return out(array)

    monkeypatch.setattr(StateFolder, "_replace", write)
    monkeypatch.setattr(persistence, "_array_out", encode_array)
    told = Told()
    Saver(store, StateFolder(tmp_path), told, Clock()).save()
    assert len(told.writes) == 1
    assert samples_of(StateFolder(tmp_path).take().state) == 10


# -- the start --------------------------------------------------------------------------------------------------------


def test_the_log_says_what_came_back_and_what_did_not(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = Store(CONFIG, {("m", "1"): baseline(numeric("x", (0.0, 2.0), [0.5]))}, Clock())
    begin(other, Found(store.state(), clean=True))
    changed, restored = caplog.records
    assert (changed.levelname, changed.message) == ("WARNING", "starts afresh")
    fields = changed.__dict__
    assert (fields["model"], fields["version"], fields["why"]) == ("m", "1", "its baseline changed")
    assert (restored.levelname, restored.message) == ("INFO", "state restored")
    assert (restored.__dict__["versions"], restored.__dict__["clean"]) == (1, True)


def test_a_bug_in_restoring_does_not_end_the_start(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(store, "restore", fail)
    begin(store, Found(decode(DATA)))
    assert "state cannot be restored: what is missing starts afresh" in caplog.text
