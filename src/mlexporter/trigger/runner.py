"""Runs actions in a few threads, one attempt after the other, until one succeeds or is not worth another."""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from mlexporter.logs import where
from mlexporter.trigger import command, http_request
from mlexporter.trigger.actions import Action, Command, Request, Result, described, prepare
from mlexporter.trigger.config import QueueConfig, RetriesConfig
from mlexporter.trigger.templates import Context, TemplateError

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 3.0
"""How long a stop waits for runs to end."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was started: for which group, by which route, and what it is to do."""

    group: str
    route: str
    action_name: str
    action: Action
    context: Context
    run: str


class Ended(msgspec.Struct, frozen=True):
    """How a run ended, after how many attempts and how many seconds."""

    result: Result
    attempts: int
    seconds: float


Perform = Callable[[Request | Command, threading.Event], Result]


def perform(prepared: Request | Command, stopping: threading.Event) -> Result:
    """Do it, once."""
    return command.run(prepared, stopping) if isinstance(prepared, Command) else http_request.send(prepared)


def rehearse(prepared: Request | Command, _: threading.Event) -> Result:
    """Say what would be done."""
    return Result("succeeded", f"dry run, would {described(prepared)}")


def delay_before(attempt: int, retries: RetriesConfig, asked: float, chance: float) -> float:
    """Seconds to wait before an attempt, counted from 1: they double, and half of them is left to chance.

    Args:
        attempt: the next one, 2 or more.
        retries: the first and the longest delay.
        asked: what the other side asked for, which counts up to the longest delay.
        chance: from 0 to 1.

    >>> delay_before(4, RetriesConfig(first_delay=1.0, longest_delay=60.0), 0.0, 1.0)
    4.0

    """
    doubled = min(retries.first_delay * 2.0 ** (attempt - 2), retries.longest_delay)
    return max(doubled * (0.5 + chance / 2), min(asked, retries.longest_delay))


class Runner:
    """Threads that take runs from a queue.

    Args:
        settings: how many threads.
        retries: how often and when to try again.
        ended: told of each run that ended, in the thread that ran it.
        perform: does one attempt.

    """

    def __init__(
        self,
        settings: QueueConfig,
        retries: RetriesConfig,
        ended: Callable[[Job, Ended], None],
        perform: Perform = perform,
    ) -> None:
        self._retries = retries
        self._ended = ended
        self._perform = perform
        self._length = settings.length
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(name=f"worker-{i}", target=self._work, daemon=True) for i in range(settings.workers)
        ]

    def begin(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many runs wait for a thread."""
        return self._jobs.qsize()

    @property
    def has_room(self) -> bool:
        """Whether another run can be taken; stays so until `put` is called."""
        return self.waiting < self._length and not self._stopping.is_set()

    def put(self, job: Job) -> None:
        """Take a run."""
        self._jobs.put(job)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Interrupt what waits and what runs, and wait so long for it."""
        self._stopping.set()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            start = time.perf_counter()
            try:
                result, attempts = self._run(job)
            except Exception as error:  # noqa: BLE001 - a bug in one run must not end the thread of the next ones
                logger.error("run failed", extra={"run": job.run, "error": where(error)})
                result, attempts = Result("failed", f"internal error: {type(error).__name__}"), 1
            self._ended(job, Ended(result, attempts, time.perf_counter() - start))

    def _run(self, job: Job) -> tuple[Result, int]:
        """The last result, and the number of attempts."""
        try:
            prepared = prepare(job.action, job.context, job.run)
        except TemplateError as error:
            return Result("failed", str(error)), 0
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            result = self._perform(prepared, self._stopping)
            if result.outcome != "again" or attempt == self._retries.attempts:
                return result, attempt
            delay = delay_before(attempt + 1, self._retries, result.wait, random.random())  # noqa: S311 - no secret
            told = {"run": job.run, "route": job.route, "attempt": attempt, "reason": result.detail, "delay": delay}
            logger.warning("attempt failed", extra=told)
            self._stopping.wait(delay)
        return Result("interrupted", "the trigger was stopped"), attempt
