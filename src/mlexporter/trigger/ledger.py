"""The state of all groups and the journal that it comes from: first the record is on disk, then the state changes."""

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from mlexporter.trigger import groups
from mlexporter.trigger.actions import Result
from mlexporter.trigger.groups import Decision, Event, Group, Phase, Record
from mlexporter.trigger.journal import Journal, JournalError

logger = logging.getLogger(__name__)

HEARD_EVERY: Final = 3600.0
"""Seconds between records that a group still fires, however often Alertmanager says so."""


class Ledger:
    """What is known of groups. Safe to call from one thread at a time; each method that writes may raise JournalError.

    Args:
        journal: where it begins, and where it is written to.
        clock: Unix time in seconds.
        forget_after: a group that was not heard of for so many seconds is over, though nobody said so.
        dry_run: what the records say of it.

    """

    def __init__(
        self, journal: Journal, clock: Callable[[], float], forget_after: float, *, dry_run: bool = False
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._forget_after = forget_after
        self._dry_run = dry_run
        self.groups: dict[str, Group] = {}
        journal.replay(lambda record: groups.apply(self.groups, record))
        self.interrupt("the trigger ended before the run did")

    def decide(self, key: str, cooldown: float) -> Decision:
        """What a firing group gets; writes down what is to be remembered of it, unless that is a start."""
        group = self.groups.get(key)
        if group is not None and (self._now() - group.heard).total_seconds() > self._forget_after:
            # its end was lost, with an Alertmanager that was down for instance, and this is a new beginning
            self.resolved(key, "was not heard of for longer than journal.forget_after")
            group = self.groups[key]
        decision = groups.decide(group, cooldown, self._now())
        if group is None:
            return decision
        if decision is Decision.COOLDOWN and not group.waiting:
            self._write("cooldown", key, detail="fires again before the cool-down is over")
        elif decision is not Decision.START and (self._now() - group.heard).total_seconds() >= HEARD_EVERY:
            self._write("repeat", key)
        return decision

    def start(self, key: str, *, route: str, action: str, labels: dict[str, str]) -> str:
        """Note that a run is started, and return its name: that of a run that was interrupted, as it may have begun."""
        group = self.groups.get(key)
        resumed = group is not None and group.phase == "interrupted"
        run = group.run if group is not None and resumed else _run_of(key, self._now())
        self._write("start", key, run=run, route=route, action=action, labels=labels)
        return run

    def end(self, key: str, run: str, result: Result, *, route: str, attempts: int, seconds: float) -> None:
        """Note how a run ended."""
        outcome: Phase = "failed" if result.outcome == "again" else result.outcome
        self._write(
            "end", key, run=run, route=route, outcome=outcome,
            detail=result.detail, attempts=attempts, seconds=round(seconds, 3),
        )  # fmt: skip

    def resolved(self, key: str, why: str = "") -> None:
        """Note that a group fires no longer; of groups that nothing is known of, nothing is noted."""
        group = self.groups.get(key)
        if group is not None and (group.firing or group.phase == "interrupted"):
            self._write("resolved", key, detail=why)

    def interrupt(self, why: str) -> None:
        """Note of every run that has not ended that it was interrupted."""
        for key, group in list(self.groups.items()):
            if group.phase == "pending":
                self._write("end", key, run=group.run, outcome="interrupted", detail=why)

    def _write(
        self,
        event: Event,
        key: str,
        *,
        run: str = "",
        route: str = "",
        action: str = "",
        outcome: Phase | None = None,
        detail: str = "",
        labels: dict[str, str] | None = None,
        attempts: int = 0,
        seconds: float | None = None,
    ) -> None:
        record = Record(
            time=self._now(), event=event, group=key, run=run, route=route, action=action, outcome=outcome,
            detail=detail, labels=labels or {}, attempts=attempts, seconds=seconds, dry_run=self._dry_run,
        )  # fmt: skip
        self._journal.append(record)
        groups.apply(self.groups, record)
        if self._journal.full:
            self._rotate()

    def _rotate(self) -> None:
        now = self._now()
        try:
            self._journal.rotate(
                Record(time=now, event="group", group=key, state=group) for key, group in self.groups.items()
            )
        except JournalError as error:
            logger.error("rotation failed", extra={"error": str(error)})

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _run_of(key: str, now: datetime) -> str:
    """The name of a run, from its group and its start."""
    return hashlib.sha256(f"{key}\n{now.isoformat()}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
