"""How long requests wait before anybody takes them on, as the kernel tells it, so that samples are refused in time.

The server takes requests in their order, a probe behind all the samples that came before it, and it does not say how
many there are. But a connection that data came in on, and none has gone out on since, waits for its answer; and the
kernel knows since when. Where many have waited for long, what pushes samples is sent away, which costs far less
than to count them, until the others are through.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from mlexporter.crew import Crew

LATE_SECONDS: Final = 0.05
_FORGOTTEN_SECONDS: Final = 2.0
"""Whoever is silent for longer has not sent all of a request, and waits for nothing."""
_FEW: Final = 8
_LOOK_SECONDS: Final = 0.02
_LOOK_SECONDS_WHILE_LATE: Final = 0.005
_LOOK_SHARE: Final = 0.1
_BUSY_SHARE: Final = 0.5
# struct tcp_info of Linux: the state, milliseconds since data was last sent and received, bytes acknowledged and
# received
_INFO_SIZE: Final = 136
_ESTABLISHED: Final = 1
_TIMES_AT: Final = 8 + 9 * 4
_BYTES_AT: Final = 8 + 24 * 4 + 2 * 8


class Connection(msgspec.Struct, frozen=True):
    """What the kernel tells of a connection: seconds since data last went out and came in, bytes each way so far.

    `sent` counts what the other side has acknowledged, its first packet too.
    """

    since_sent: float
    since_received: float
    sent: int
    received: int

    @property
    def waits(self) -> bool:
        """Whether data came since something last went out."""
        return self.received > 0 and (self.since_sent > self.since_received or self.sent <= 1)


class Backlog:
    """Tells when requests wait too long.

    Args:
        crew: the threads of the server.
        look: the connections of this process.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        crew: Crew,
        look: Callable[[], Iterator[Connection]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crew = crew
        self._look = look or connections
        self._clock = clock
        self._lock = threading.Lock()
        self._late = False
        self._looked_at = clock()
        self._look_at = self._looked_at + _LOOK_SECONDS
        self._busy = 0.0

    def is_late(self) -> bool:
        """Whether more requests wait, and for longer, than should; most calls cost next to nothing."""
        if self._clock() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._late = self._found_late()
            finally:
                self._lock.release()
        return self._late

    def _found_late(self) -> bool:
        """Look, unless nobody can be waiting: the threads had time to spare."""
        start = self._clock()
        elapsed, self._looked_at = start - self._looked_at, start
        busy, self._busy = self._crew.busy_seconds - self._busy, self._crew.busy_seconds
        found = False
        if busy >= _BUSY_SHARE * elapsed:
            found = self._waiting() > max(_FEW, self._crew.in_hand)
        took = self._clock() - start
        self._look_at = start + max(_LOOK_SECONDS_WHILE_LATE if found else _LOOK_SECONDS, took / _LOOK_SHARE)
        return found

    def _waiting(self) -> int:
        """How many requests have waited for too long."""
        return sum(each.waits and LATE_SECONDS <= each.since_received <= _FORGOTTEN_SECONDS for each in self._look())


def connections() -> Iterator[Connection]:
    """The TCP connections of this process; none on systems without /proc."""
    try:
        with os.scandir("/proc/self/fd") as entries:
            descriptors = [entry.name for entry in entries]
    except OSError:
        return
    for descriptor in descriptors:
        found = _told_of(int(descriptor))
        if found is not None:
            yield found


def _told_of(descriptor: int) -> Connection | None:
    """What the kernel tells of a descriptor, if it is a connection; it is neither copied nor closed."""
    try:
        # family and type as given: they are not looked up, and do not matter
        looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        return None
    try:
        info = looked_at.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return None
    finally:
        looked_at.detach()
    if len(info) < _INFO_SIZE or info[0] != _ESTABLISHED:
        return None
    sent, _, received, _ = struct.unpack_from("4I", info, _TIMES_AT)
    bytes_sent, bytes_received = struct.unpack_from("2Q", info, _BYTES_AT)
    return Connection(sent / 1000, received / 1000, bytes_sent, bytes_received)
