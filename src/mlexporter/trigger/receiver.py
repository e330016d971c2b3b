"""A notification to what follows from it: at most one run for each time that a group fires."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from mlexporter.trigger.actions import context_of
from mlexporter.trigger.config import RouteConfig, TriggerConfig
from mlexporter.trigger.groups import Decision
from mlexporter.trigger.journal import JournalError
from mlexporter.trigger.ledger import Ledger
from mlexporter.trigger.notification import Alert, Notification
from mlexporter.trigger.runner import Ended, Job, Perform, Runner, perform
from mlexporter.trigger.telemetry import Outcome, TriggerTelemetry

logger = logging.getLogger(__name__)

_OUTCOMES: Final = {Decision.REPEAT: Outcome.REPEAT, Decision.COOLDOWN: Outcome.COOLDOWN}


class Answer(msgspec.Struct, frozen=True):
    """What a notification led to; `route` and `run` where there are any."""

    outcome: Outcome
    route: str = ""
    run: str = ""


class Receiver:
    """The one place where runs are started. Safe to call from many threads.

    Its lock is held while a record goes to disk: no second notification of a group may be judged before that.

    Args:
        config: routes and actions.
        ledger: what is known of groups.
        clock: Unix time in seconds.
        perform: does one attempt of an action.

    """

    def __init__(
        self, config: TriggerConfig, ledger: Ledger, clock: Callable[[], float], perform: Perform = perform
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._runner = Runner(config.queue, config.retries, self._ended, perform)
        routes = tuple(route.name for route in config.routes)
        self.telemetry = TriggerTelemetry(routes, lambda: float(self._runner.waiting))
        starts = [(each.started, each.route) for each in ledger.groups.values() if each.started is not None]
        for started, route in sorted(starts):
            if route in routes:
                self.telemetry.started(route, started.timestamp())
        self._runner.begin()

    def receive(self, notification: Notification) -> Answer:
        """Take a notification: start a run, or say why there is none."""
        try:
            answer = self._receive(notification)
        except JournalError as error:
            # nothing may be started that could be forgotten: Alertmanager is to come again
            logger.error("notification refused", extra={"error": str(error)})
            answer = Answer(Outcome.NOT_RECORDED)
        self.telemetry.notified(answer.outcome)
        return answer

    def _receive(self, notification: Notification) -> Answer:
        key = notification.group_key
        with self._lock:
            if self._closed:
                return Answer(Outcome.STOPPING)
            if notification.status == "resolved":
                self._ledger.resolved(key)
                return Answer(Outcome.RESOLVED)
            found = choose(self._config.routes, tuple(notification.firing()))
            if found is None:
                return Answer(Outcome.NO_ROUTE)
            route, alerts = found
            decision = self._ledger.decide(key, route.cooldown)
            if decision is not Decision.START:
                return Answer(_OUTCOMES[decision], route.name)
            if not self._runner.has_room:
                return Answer(Outcome.QUEUE_FULL, route.name)
            run = self._ledger.start(key, route=route.name, action=route.action, labels=alerts[0].labels)
            self.telemetry.started(route.name, self._clock())
            self._runner.put(self._job(notification, route, alerts, run))
        logger.info("run started", extra={"run": run, "route": route.name, "action": route.action, "group": key})
        return Answer(Outcome.STARTED, route.name, run)

    def _job(self, notification: Notification, route: RouteConfig, alerts: tuple[Alert, ...], run: str) -> Job:
        return Job(
            group=notification.group_key,
            route=route.name,
            action_name=route.action,
            action=self._config.actions[route.action].only(),
            context=context_of(notification, alerts, route=route.name, run=run),
            run=run,
        )

    def _ended(self, job: Job, ended: Ended) -> None:
        result = ended.result
        with self._lock:
            if self._closed:
                return
            try:
                self._ledger.end(
                    job.group, job.run, result, route=job.route, attempts=ended.attempts, seconds=ended.seconds
                )
            except JournalError as error:
                # after a restart it counts as interrupted, and is started again under the same name
                logger.error("end of a run not recorded", extra={"run": job.run, "error": str(error)})
        self.telemetry.ended(job.route, result.outcome, ended.seconds)
        logger.log(
            logging.INFO if result.outcome == "succeeded" else logging.ERROR,
            "run ended",
            extra={
                "run": job.run, "route": job.route, "action": job.action_name, "outcome": result.outcome,
                "detail": result.detail, "attempts": ended.attempts, "seconds": round(ended.seconds, 3),
            },
        )  # fmt: skip

    def stop(self) -> None:
        """Take nothing more, end what runs, and record as interrupted what did not end."""
        self._runner.stop()
        with self._lock:
            self._closed = True
            try:
                self._ledger.interrupt("the trigger was stopped before the run had ended")
            except JournalError as error:
                logger.error("interrupted runs not recorded", extra={"error": str(error)})


def choose(routes: tuple[RouteConfig, ...], alerts: tuple[Alert, ...]) -> tuple[RouteConfig, tuple[Alert, ...]] | None:
    """The first route that one of the alerts fulfils, and those that do; None where there is none."""
    for route in routes:
        found = tuple(alert for alert in alerts if all(matcher.matches(alert.labels) for matcher in route.matchers))
        if found:
            return route, found
    return None
