"""What is known of each group of alerts, and what follows from it. Pure: records in, decisions out.

The same fold makes the state while the trigger runs and when it starts from its journal, so both agree.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

import msgspec

Phase = Literal["pending", "succeeded", "failed", "interrupted"]
Event = Literal["start", "end", "cooldown", "repeat", "resolved", "group"]

MAX_GROUPS: Final = 10_000
"""Groups that are remembered; beyond, those that were not heard of for longest are forgotten."""


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One group of alerts.

    Attributes:
        heard: when the last record of it was written.
        served: whether the group fires and has had its run.
        waiting: whether it fires, and was told to wait for the end of the cool-down.
        run: the last run.
        route: which one started it.
        phase: how far that is.
        started: when that was started.
        cooling: the start from which the cool-down counts, that of the last run that did not fail.

    """

    heard: datetime
    firing: bool = False
    served: bool = False
    waiting: bool = False
    run: str = ""
    route: str = ""
    phase: Phase | None = None
    started: datetime | None = None
    cooling: datetime | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the journal. `group` is Alertmanager's key; `detail` is for people."""

    time: datetime
    event: Event
    group: str
    route: str = ""
    action: str = ""
    run: str = ""
    outcome: Phase | None = None
    attempts: int = 0
    seconds: float | None = None
    detail: str = ""
    labels: dict[str, str] = {}
    dry_run: bool = False
    state: Group | None = None


class Decision(StrEnum):
    """What a firing group gets."""

    START = "start"
    REPEAT = "repeat"
    COOLDOWN = "cooldown"


Groups = Mapping[str, Group]


def decide(group: Group | None, cooldown: float, now: datetime) -> Decision:
    """What a notification that the group fires leads to; `cooldown` in seconds.

    A run that failed or was interrupted has not served the group, so that it is started again.
    """
    if group is None:
        return Decision.START
    if group.served or group.phase == "pending":
        return Decision.REPEAT
    if group.phase == "interrupted":
        return Decision.START
    # a clock that was set back a little does not end the cool-down, one that was far in the future does not prolong it
    if group.cooling is not None and abs((now - group.cooling).total_seconds()) < cooldown:
        return Decision.COOLDOWN
    return Decision.START


def apply(groups: dict[str, Group], record: Record) -> None:
    """Take a record into the state."""
    before = groups.pop(record.group, None)  # to the end of the order in which groups are forgotten
    group = _after(before or Group(heard=record.time), record)
    groups[record.group] = group
    if len(groups) > MAX_GROUPS:
        oldest = next((key for key, each in groups.items() if each.phase != "pending"), record.group)
        del groups[oldest]


def _after(group: Group, record: Record) -> Group:
    change = msgspec.structs.replace
    if record.event == "group" and record.state is not None:
        return record.state
    group = change(group, heard=record.time)
    if record.event == "start":
        group = change(group, firing=True, served=False, waiting=False)
        return change(group, run=record.run, route=record.route, phase="pending", started=record.time)
    if record.event == "end" and record.run == group.run:
        succeeded = record.outcome == "succeeded"
        cooling = group.started if succeeded else group.cooling
        return change(group, phase=record.outcome, served=succeeded and group.firing, cooling=cooling)
    if record.event == "cooldown":
        return change(group, firing=True, waiting=True)
    if record.event == "resolved":
        # what was interrupted is not to be taken up again for an alert that is over
        phase = "failed" if group.phase == "interrupted" else group.phase
        return change(group, firing=False, served=False, waiting=False, phase=phase)
    return group
