"""Keeps room for whoever connects next, and gives up on who does not read what it asked for.

The server takes `MOST` connections at a time. Somebody who opens as many and says nothing would keep probes and scrapes
out, so those that were silent for the longest are closed before that, as a client that pauses has to expect anyway. And
a page that is not read stays in memory, so who takes next to nothing of one for half a minute is cut off.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mlexporter import backlog
from mlexporter.backlog import Connection

logger = logging.getLogger(__name__)

MOST: Final = 1024
CROWDED: Final = MOST * 3 // 4
"""From so many on, silent ones are closed."""
_LEFT: Final = MOST // 2
_IDLE_SECONDS: Final = 1.0
_IN_HAND_SECONDS: Final = 4.0
"""No request takes longer, so who waits for so long has not sent all of it."""
UNREAD_SECONDS: Final = 30.0
UNREAD_BYTES: Final = 32 << 10
_WATCH_SECONDS: Final = 0.5


class Keeper:
    """Looks at connections now and then.

    Args:
        look: the connections that others made to this process.
        close: closes one, unless it is another one by now or something went on.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        look: Callable[[], Iterable[Connection]] | None = None,
        close: Callable[[Connection], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look or accepted
        self._close = close or close_unless_changed
        self._clock = clock
        # by descriptor: when it was first seen with something to send, and how much of it had arrived by then
        self._slow: dict[int, tuple[float, int]] = {}
        self._stopped = threading.Event()

    def watch(self) -> None:
        """Look until `stop`; to be run in a thread of its own."""
        while not self._stopped.wait(_WATCH_SECONDS):
            self.tend()

    def stop(self) -> None:
        """End `watch`."""
        self._stopped.set()

    def tend(self) -> int:
        """Close those that have to make room, and those that do not read; how many there were."""
        found = list(self._look())
        surplus = self._surplus(found)
        unread = self._unread(found)
        closed = 0
        for each in dict.fromkeys((*surplus, *unread)):
            closed += self._close(each)
        if closed:
            logger.warning("closed connections that were silent, or did not read", extra={"count": closed})
        return closed

    def _surplus(self, found: list[Connection]) -> list[Connection]:
        """Where there are many: those that were silent for the longest, as many as are too many."""
        if len(found) < CROWDED:
            return []
        silent = [each for each in found if each.silent >= (_IN_HAND_SECONDS if each.waits else _IDLE_SECONDS)]
        silent.sort(key=lambda each: each.silent, reverse=True)
        return silent[: len(found) - _LEFT]

    def _unread(self, found: list[Connection]) -> list[Connection]:
        """Those that took next to nothing of what they asked for, for long."""
        now, before = self._clock(), self._slow
        self._slow = {}
        unread: list[Connection] = []
        for each in found:
            if not each.unsent:
                continue
            since, arrived = before.get(each.descriptor, (now, each.sent))
            if not 0 <= each.sent - arrived < UNREAD_BYTES:  # it reads, or it is another one
                since, arrived = now, each.sent
            self._slow[each.descriptor] = since, arrived
            if now - since >= UNREAD_SECONDS:
                unread.append(each)
        return unread


def accepted() -> Iterator[Connection]:
    """The TCP connections that others made to this process."""
    ports = set(backlog.listening_ports())
    for each in backlog.connections():
        with contextlib.suppress(OSError), backlog.copy_of(each.descriptor) as copy:
            if copy.getsockname()[1] in ports:
                yield each


def close_unless_changed(connection: Connection) -> bool:
    """Shut down a connection, unless its descriptor is that of another by now, or anything came or went since."""
    with contextlib.suppress(OSError), backlog.copy_of(connection.descriptor) as copy:
        now = backlog.told_of(copy.fileno())
        if now is not None and (now.sent, now.received) == (connection.sent, connection.received):
            copy.shutdown(socket.SHUT_RDWR if connection.unsent else socket.SHUT_RD)
            return True
    return False
