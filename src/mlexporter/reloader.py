"""Reads the configuration again, on SIGHUP or on request: a good one takes the place of the old one, a bad one of none.

One thread does it, one reload after the other. Who asks while one is under way is answered by the next one, which sees
the files as they are after the question; and all that wait by then are answered by the same one.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from mlexporter.baseline import Baseline
from mlexporter.config import Config, ConfigError
from mlexporter.store import Store
from mlexporter.telemetry import Telemetry

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 2
"""Requests that may wait: each holds a thread of the server."""
_INTERNAL: Final = "internal error; the exporter's log says where"
_LABEL_SETTINGS: Final = ("store", "max_rows")

Loaded = tuple[Config, dict[tuple[str, str], Baseline]]


class BusyReloading(Exception):  # noqa: N818 - it says what is the case
    """Too many others wait for a reload."""


class _Waiting:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: str | None = _INTERNAL


class Reloader:
    """Reloads in a thread that runs `run`.

    Args:
        load: reads the configuration and its baselines; raises ConfigError.
        running: the configuration that holds.
        store: goes on with a new one.
        telemetry: tells how it went.
        users: are told of a new configuration, after the store.

    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        running: Config,
        store: Store,
        telemetry: Telemetry,
        users: tuple[Callable[[Config], None], ...] = (),
    ) -> None:
        self._load = load
        self._running = running
        self._store = store
        self._telemetry = telemetry
        self._users = users
        # of all queues the one that a signal handler may use, whatever it has interrupted
        self._asked: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def ask(self) -> None:
        """Have a reload done; for handlers of signals."""
        self._asked.put(_Waiting())

    def reload(self) -> str | None:
        """Have a reload done, and wait for it.

        Returns:
            What is wrong with the new configuration, a problem on each line; None where it holds now.

        Raises:
            BusyReloading: too many others wait.

        """
        if not self._places.acquire(blocking=False):
            raise BusyReloading("reloads wait for one that is under way; try again")
        try:
            waiting = _Waiting()
            self._asked.put(waiting)
            waiting.done.wait()
            return waiting.error
        finally:
            self._places.release()

    def run(self) -> None:
        """Reload whenever it is asked for; to be run in a thread of its own, for ever."""
        while True:
            self.once()

    def once(self) -> None:
        """Wait until somebody asks, and reload once for all who have asked."""
        waiting = [self._asked.get()]
        while not self._asked.empty():
            waiting.append(self._asked.get())
        error: str | None = _INTERNAL
        try:
            error = self._reload()
        except Exception:
            logger.error("reload failed; what could not be changed stays", exc_info=True)
        finally:
            self._telemetry.loaded(successful=error is None)
            for each in waiting:
                each.error = error
                each.done.set()

    def _reload(self) -> str | None:
        try:
            config, baselines = self._load()
        except ConfigError as error:
            logger.warning("the new configuration is refused; the old one stays", extra={"error": str(error)})
            return str(error)
        for name in _LABEL_SETTINGS:
            if getattr(config.labels, name) != getattr(self._running.labels, name):
                # not its value: a store's address may hold a password
                logger.warning("a setting that needs a restart has changed", extra={"key": f"labels.{name}"})
        config = msgspec.structs.replace(config, labels=self._running.labels)
        afresh = self._store.reload(config, baselines)
        self._running = config
        for use in self._users:
            use(config)
        for each in afresh:
            logger.warning("starts afresh", extra={"model": each.model, "version": each.version, "why": each.why})
        logger.info("configuration reloaded", extra={"models": len(config.models), "afresh": len(afresh)})
        return None
