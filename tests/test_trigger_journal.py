"""The journal and the state that comes from it, whatever a crash left."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Clock
from mlexporter.trigger import groups
from mlexporter.trigger.actions import Result
from mlexporter.trigger.groups import Decision, Group, Record
from mlexporter.trigger.journal import Journal, JournalError
from mlexporter.trigger.ledger import HEARD_EVERY, Ledger

DAY = 86400.0
DONE = Result("succeeded", "answered 200")
FAILED = Result("failed", "answered 400")


def opened(path: Path, clock: Clock, max_bytes: int = 1 << 20) -> tuple[Ledger, Journal]:
    journal = Journal(path, max_bytes)
    return Ledger(journal, clock, forget_after=6 * DAY), journal


def start(ledger: Ledger, key: str = "g") -> str:
    return ledger.start(key, route="retrain", action="argo", labels={"model": "churn"})


def end(ledger: Ledger, run: str, result: Result = DONE, key: str = "g") -> None:
    ledger.end(key, run, result, route="retrain", attempts=1, seconds=0.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trigger.jsonl"


def test_one_run_for_each_time_that_a_group_fires(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    assert ledger.decide("g", DAY) is Decision.START
    run = start(ledger)
    assert ledger.decide("g", DAY) is Decision.REPEAT  # while it runs
    end(ledger, run)
    for _ in range(10):
        clock.now += 5 * DAY
        assert ledger.decide("g", DAY) is Decision.REPEAT  # however long it fires
    assert ledger.decide("other", DAY) is Decision.START
    ledger.resolved("g")
    assert ledger.decide("g", DAY) is Decision.START


def test_the_cool_down_counts_from_the_last_start(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    run = start(ledger)
    clock.now += 3600
    end(ledger, run)
    ledger.resolved("g")
    clock.now += DAY - 3601
    assert ledger.decide("g", DAY) is Decision.COOLDOWN
    clock.now += 1
    assert ledger.decide("g", DAY) is Decision.START


def test_a_group_whose_end_was_lost(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    end(ledger, start(ledger))
    clock.now += 6 * DAY
    assert ledger.decide("g", 30 * DAY) is Decision.REPEAT
    clock.now += 6 * DAY + 1
    assert ledger.decide("g", 30 * DAY) is Decision.COOLDOWN
    assert ledger.decide("g", DAY) is Decision.START
    assert "was not heard of for longer" in file.read_text()


def test_what_still_fires_after_the_cool_down_is_started(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    end(ledger, start(ledger))
    ledger.resolved("g")
    assert ledger.decide("g", DAY) is Decision.COOLDOWN
    clock.now += DAY
    assert ledger.decide("g", DAY) is Decision.START


def test_a_run_that_failed_is_tried_again_under_another_name(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    first = start(ledger)
    end(ledger, first, FAILED)
    clock.now += 1
    assert ledger.decide("g", DAY) is Decision.START
    assert start(ledger) != first


def test_a_run_that_was_interrupted_is_tried_again_under_its_name(file: Path) -> None:
    clock = Clock()
    ledger, journal = opened(file, clock)
    run = start(ledger)
    journal.close()
    clock.now += 60
    ledger, _ = opened(file, clock)
    assert ledger.groups["g"].phase == "interrupted"
    assert ledger.decide("g", DAY) is Decision.START
    assert start(ledger) == run


def test_a_run_that_was_interrupted_is_over_with_its_alert(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    run = start(ledger)
    ledger.interrupt("stopped")
    ledger.resolved("g")
    clock.now += 60
    assert ledger.decide("g", DAY) is Decision.START
    assert start(ledger) != run


def test_an_alert_that_resolves_while_its_run_goes_on(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    run = start(ledger)
    ledger.resolved("g")
    assert ledger.decide("g", DAY) is Decision.REPEAT
    end(ledger, run)
    assert ledger.decide("g", DAY) is Decision.COOLDOWN
    clock.now += DAY
    assert ledger.decide("g", DAY) is Decision.START


def test_the_log_is_for_people_too(file: Path) -> None:
    clock = Clock(1_700_000_000.0)
    ledger, _ = opened(file, clock)
    run = start(ledger)
    end(ledger, run)
    ledger.resolved("g")
    ledger.resolved("g")  # once is enough
    ledger.resolved("never heard of")
    ledger.decide("g", DAY)
    ledger.decide("g", DAY)  # as well
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "end", "resolved", "cooldown"]
    assert lines[0] == {
        "time": "2023-11-14T22:13:20Z", "event": "start", "group": "g", "route": "retrain", "action": "argo",
        "run": run, "labels": {"model": "churn"},
    }  # fmt: skip
    assert lines[1]["outcome"] == "succeeded"
    assert len(run) == 32


def test_repeats_are_noted_once_an_hour(file: Path) -> None:
    clock = Clock()
    ledger, _ = opened(file, clock)
    end(ledger, start(ledger))
    for _ in range(12 * 4):
        clock.now += HEARD_EVERY / 12
        ledger.decide("g", DAY)
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()].count("repeat") == 4


def story(path: Path) -> list[dict[str, Group]]:
    """A journal of all kinds of records, and the state after each."""
    clock = Clock()
    states: list[dict[str, Group]] = [{}]
    ledger, journal = opened(path, clock)

    def step(*_: object) -> None:
        clock.now += 100
        states.append(dict(ledger.groups))

    run = start(ledger, 'é\n"quoted"')
    step()
    step(end(ledger, run, key='é\n"quoted"'))  # type: ignore[func-returns-value]
    run = start(ledger, "b")
    step()
    step(end(ledger, run, FAILED, "b"))  # type: ignore[func-returns-value]
    step(ledger.resolved('é\n"quoted"'))  # type: ignore[func-returns-value]
    step(ledger.decide('é\n"quoted"', DAY))
    journal.close()
    return states


def test_a_journal_cut_at_every_length(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    states = story(file)
    content = file.read_bytes()
    assert content.count(b"\n") == len(states) - 1 == 6
    cut = tmp_path / "cut.jsonl"
    for length in range(len(content) + 1):
        caplog.clear()
        cut.write_bytes(content[:length])
        ledger, journal = opened(cut, Clock())
        whole = content[:length].count(b"\n")
        expected = {key: each for key, each in states[whole].items() if each.phase != "pending"}
        found = {key: each for key, each in ledger.groups.items() if each.phase != "interrupted"}
        assert found == expected, length
        torn = bool(content[:length]) and not content[:length].endswith(b"\n")
        assert ("cut off" in caplog.text) == torn
        # what is written next stands on a line of its own
        start(ledger, "after")
        journal.close()
        again, journal = opened(cut, Clock())
        assert again.groups["after"].phase == "interrupted"
        journal.close()


def test_a_broken_line_in_the_middle_is_left_out(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    story(file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"\xff{]\n", b"\n", b'{"event": "no such"}\n', *lines[2:]]))
    ledger, _ = opened(file, Clock())
    assert set(ledger.groups) == {'é\n"quoted"', "b"}
    assert caplog.text.count("left out") == 3


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("fsxrdi"), st.integers(0, 90_000)), max_size=25))
def test_replayed_is_the_same_as_lived(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    """With rotations all the time; at most one run goes on for a group, and none that was served starts again."""
    path, clock = tmp_path_factory.mktemp("journal") / "j", Clock()
    ledger, journal = opened(path, clock, max_bytes=700)
    for key, what, seconds in steps:
        clock.now += seconds
        group = ledger.groups.get(key)
        if what == "f" and ledger.decide(key, DAY) is Decision.START:
            now = ledger.groups.get(key)  # a group that was silent for long was resolved meanwhile
            assert now is None or (now.phase != "pending" and not now.served)
            start(ledger, key)
        elif what in "sx" and group is not None and group.phase == "pending":
            end(ledger, group.run, DONE if what == "s" else FAILED, key)
        elif what == "r":
            ledger.resolved(key)
        elif what == "i":
            ledger.interrupt("stopped")
    ledger.interrupt("stopped")
    journal.close()
    again, journal = opened(path, clock)
    assert again.groups == ledger.groups
    journal.close()


def test_rotation_bounds_the_size_and_keeps_the_state(file: Path) -> None:
    clock = Clock()
    ledger, journal = opened(file, clock, max_bytes=5000)
    for i in range(300):
        clock.now += 2 * DAY
        end(ledger, start(ledger, f"g{i % 3}"), key=f"g{i % 3}")
        ledger.resolved(f"g{i % 3}")
        assert file.stat().st_size < 5500
    before = dict(ledger.groups)
    journal.close()
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "trigger.jsonl", "trigger.jsonl.1", "trigger.jsonl.lock",
    ]  # fmt: skip
    assert opened(file, clock)[0].groups == before
    assert oct(file.stat().st_mode)[-3:] == "640"


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_rotation_that_fails_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    clock = Clock()
    ledger, journal = opened(file, clock)
    end(ledger, start(ledger))
    content = file.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(JournalError, match="cannot be rotated: No space left on device"):
        journal.rotate([Record(time=datetime.now(UTC), event="group", group="g", state=ledger.groups["g"])])
    monkeypatch.undo()
    assert file.read_bytes() == content
    ledger.resolved("g")
    assert file.read_bytes().startswith(content)
    journal.close()
    assert opened(file, clock)[0].groups == ledger.groups


def test_what_cannot_be_recorded_does_not_happen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, journal = opened(file, Clock())
    write = os.write

    def half(descriptor: int, content: bytes) -> int:
        if len(content) < 40:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:20])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(JournalError, match="No space left on device"):
        start(ledger)
    monkeypatch.undo()
    assert ledger.groups == {}
    assert file.read_bytes() == b""
    start(ledger)
    journal.close()


def test_two_processes_cannot_write_one_journal(file: Path) -> None:
    journal = Journal(file, 1 << 20)
    with pytest.raises(JournalError, match="another process writes it"):
        Journal(file, 1 << 20)
    journal.close()
    Journal(file, 1 << 20).close()


def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened: No such file or directory"):
        Journal(tmp_path / "no" / "file", 1 << 20)


def test_groups_are_forgotten_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MAX_GROUPS", 3)
    state: dict[str, Group] = {}
    now = datetime.now(UTC)
    for key in ("running", "a", "b"):
        groups.apply(state, Record(time=now, event="start", group=key, run=key))
    for key in ("a", "b"):
        groups.apply(state, Record(time=now, event="end", group=key, run=key, outcome="succeeded"))
    groups.apply(state, Record(time=now, event="repeat", group="a"))
    groups.apply(state, Record(time=now, event="start", group="new", run="n"))
    assert set(state) == {"running", "a", "new"}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
