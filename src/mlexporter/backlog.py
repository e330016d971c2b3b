"""How long requests wait before anybody takes them on, as the kernel tells it, so that samples are refused in time.

The server takes requests in their order, a probe behind all the samples that came before it, and it does not say how
many there are. But a connection that data came in on, and none has gone out on since, waits for its answer; and the
kernel knows since when. Where many have waited for long, what pushes samples is sent away, which costs far less
than to count them, until the others are through.
"""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec

from mlexporter.crew import Crew

LATE_SECONDS: Final = 0.015
_FORGOTTEN_SECONDS: Final = 2.0
"""Whoever is silent for longer has not sent all of a request, and waits for nothing."""
FEW: Final = 16
"""So many clients that wait for their answers may wait: they send no more meanwhile."""
_LOOK_SECONDS: Final = 0.02
_LOOK_SECONDS_WHILE_LATE: Final = 0.005
_LOOK_SHARE: Final = 0.1
_BUSY_SHARE: Final = 0.5
_BUSY_SECONDS: Final = 0.1
# struct tcp_info of Linux: the state, milliseconds since data was last sent and received, bytes acknowledged and
# received, bytes that wait to be sent
_INFO_SIZE: Final = 148
_ESTABLISHED: Final = 1
_LISTENING: Final = 10
_TIMES_AT: Final = 8 + 9 * 4
_BYTES_AT: Final = 8 + 24 * 4 + 2 * 8
_UNSENT_AT: Final = _BYTES_AT + 2 * 8 + 2 * 4


class Connection(msgspec.Struct, frozen=True):
    """What the kernel tells of a connection: seconds since data last went out and came in, bytes each way so far.

    `sent` counts what the other side has acknowledged, its first packet too; `unsent` is what the kernel still has to
    send for lack of room there.
    """

    since_sent: float
    since_received: float
    sent: int
    received: int
    unsent: int = 0
    descriptor: int = -1

    @property
    def silent(self) -> float:
        """Seconds since anything came or went."""
        return min(self.since_sent, self.since_received)

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
        now = clock()
        self._look_at = now + _LOOK_SECONDS
        # when, and how long the threads had been busy then
        self._before = self._last = (now, 0.0)

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
        now = start, self._crew.busy_seconds
        if now[0] - self._last[0] >= _BUSY_SECONDS:
            self._before, self._last = self._last, now
        busy = now[1] - self._before[1] >= _BUSY_SHARE * (now[0] - self._before[0])
        found = busy and self._more_wait_than(max(FEW, self._crew.in_hand))
        took = self._clock() - start
        self._look_at = start + max(_LOOK_SECONDS_WHILE_LATE if found else _LOOK_SECONDS, took / _LOOK_SHARE)
        return found

    def _more_wait_than(self, few: int) -> bool:
        """Whether more requests than these have waited for too long; where many do, few of all have to be looked at."""
        waiting = (
            each for each in self._look() if each.waits and LATE_SECONDS <= each.since_received <= _FORGOTTEN_SECONDS
        )
        return next(islice(waiting, few, None), None) is not None


def connections() -> Iterator[Connection]:
    """The TCP connections of this process; none on systems without /proc."""
    for descriptor in _descriptors():
        found = told_of(descriptor)
        if found is not None:
            yield found


def listening_ports() -> Iterator[int]:
    """The TCP ports that this process listens on."""
    for descriptor in _descriptors():
        with _lent(descriptor) as found:
            if found is not None and _info(found)[:1] == bytes((_LISTENING,)):
                with contextlib.suppress(OSError):
                    yield found.getsockname()[1]


def told_of(descriptor: int) -> Connection | None:
    """What the kernel tells of a descriptor, if it is a connection."""
    with _lent(descriptor) as found:
        info = _info(found) if found is not None else b""
    if len(info) < _INFO_SIZE or info[0] != _ESTABLISHED:
        return None
    sent, _, received, _ = struct.unpack_from("4I", info, _TIMES_AT)
    bytes_sent, bytes_received = struct.unpack_from("2Q", info, _BYTES_AT)
    (unsent,) = struct.unpack_from("I", info, _UNSENT_AT)
    return Connection(sent / 1000, received / 1000, bytes_sent, bytes_received, unsent, descriptor)


def _descriptors() -> list[int]:
    try:
        with os.scandir("/proc/self/fd") as entries:
            return [int(entry.name) for entry in entries]
    except OSError:
        return []


@contextlib.contextmanager
def _lent(descriptor: int) -> Iterator[socket.socket | None]:
    """A descriptor as a socket, neither copied nor closed; None where there is nothing like it."""
    try:
        # family and type as given: they are not looked up, and do not matter
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except OSError:
        yield None
        return
    try:
        yield found
    finally:
        found.detach()


def _info(found: socket.socket) -> bytes:
    try:
        return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return b""  # no TCP
