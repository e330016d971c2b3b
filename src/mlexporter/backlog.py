"""How long requests wait before anybody takes them on, as the kernel tells it, so that samples are refused in time.

The server takes requests in their order, a probe behind all the samples that came before it, and it does not say how
many there are. But a connection that data came in on, and none has gone out on since, waits for its answer; and the
kernel knows since when. Where many wait, what pushes samples and waited for too long is sent away, which costs far less
than to count it. That is told for each request: they are taken on in the order in which they came.
"""

import bisect
import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from mlexporter.crew import Crew

LATE_SECONDS: Final = 0.01
FEW: Final = 16
"""So many clients that wait for their answers may wait: they send no more meanwhile."""
WORK_SECONDS: Final = 0.025
"""Or as many as take so long, all together."""
_FORGOTTEN_SECONDS: Final = 2.0
"""Whoever is silent for longer has not sent all of a request, and waits for nothing."""
_LOOK_SECONDS: Final = 0.008
_LOOK_SHARE: Final = 0.1
_BUSY_SHARE: Final = 0.5
_BUSY_SECONDS: Final = 0.006
# A request gives Python's lock away several times. Where a tick or a writer is at work it comes back after 5 ms each
# time, as Python has it: with few clients that is best, with many the queue grows by dozens meanwhile.
_SWITCH_SECONDS: Final = 0.0005
# Who refuses mostly waits for the server to read a body of a new connection. Where so many are late at once two threads
# do so; where some are accepted they would be in each other's way.
_MANY_LATE: Final = 64
_REFUSING: Final = 2
_LEAST_SECONDS: Final = 1e-5  # that a request takes
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
    """Tells which requests waited too long.

    Args:
        crew: the threads of the server.
        look: the descriptors of this process.
        ask: tells of a descriptor, if it is a connection.
        clock: monotonic seconds.
        spent: seconds of processor time of the thread; it may be kept waiting in the middle of a look.

    """

    def __init__(
        self,
        crew: Crew,
        look: Callable[[], Sequence[int]] | None = None,
        ask: Callable[[int], Connection | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._crew = crew
        self._look = look or _descriptors
        self._ask = ask or told_of
        self._clock = clock
        self._spent = spent
        self._lock = threading.Lock()
        now = clock()
        self._look_at = now + _LOOK_SECONDS
        # when, and how long the threads had been busy then
        self._before = self._last = (now, crew.busy_seconds)
        self._arrivals: list[float] = []
        self._first = 0  # the number of the request that came first of those
        self._switch_seconds = sys.getswitchinterval()

    def is_late(self) -> bool:
        """Whether a request that has just been taken on waited for too long; most calls cost next to nothing."""
        with self._lock:
            if self._clock() >= self._look_at:
                self._look_around()
            place = self._crew.number - self._first
            if not 0 <= place < len(self._arrivals):
                return False
            return self._clock() - self._arrivals[place] >= LATE_SECONDS

    def _look_around(self) -> None:
        """See who waits, and have the threads work as that asks for."""
        start, spent = self._clock(), self._spent()
        in_hand = self._crew.in_hand
        self._first = self._crew.taken_on - in_hand + 1
        # with the one that looks, which waited until now; others in hand wait for something else
        few = in_hand - 1 + max(FEW, round(WORK_SECONDS / max(self._crew.seconds_each, _LEAST_SECONDS)))
        descriptors = self._look()
        crowded = len(descriptors) > few
        # Where the threads had time to spare nobody can be waiting.
        waiting = self._waiting_since(start, descriptors) if self._were_busy(start) and crowded else []
        self._look_at = start + max(_LOOK_SECONDS, (self._spent() - spent) / _LOOK_SHARE)
        # In the order in which they came, in which they are taken on, too: those in hand are the first.
        self._arrivals = waiting if len(waiting) > few else []
        late = bisect.bisect_right(self._arrivals, start - LATE_SECONDS)
        sys.setswitchinterval(_SWITCH_SECONDS if crowded else self._switch_seconds)
        self._crew.let_work(_REFUSING if late >= _MANY_LATE else 1)

    def _were_busy(self, now: float) -> bool:
        busy = self._crew.busy_seconds
        if now - self._last[0] >= _BUSY_SECONDS:
            self._before, self._last = self._last, (now, busy)
        return busy - self._before[1] >= _BUSY_SHARE * (now - self._before[0])

    def _waiting_since(self, now: float, descriptors: Sequence[int]) -> list[float]:
        told = (self._ask(descriptor) for descriptor in descriptors)
        return sorted(
            now - each.since_received
            for each in told
            if each is not None and each.waits and each.since_received <= _FORGOTTEN_SECONDS
        )


def connections() -> Iterator[Connection]:
    """The TCP connections of this process; none on systems without /proc."""
    for descriptor in _descriptors():
        found = told_of(descriptor)
        if found is not None:
            yield found


def listening_ports() -> Iterator[int]:
    """The TCP ports that this process listens on."""
    for descriptor in _descriptors():
        if _info(descriptor)[:1] == bytes((_LISTENING,)):
            with contextlib.suppress(OSError), copy_of(descriptor) as found:
                yield found.getsockname()[1]


def told_of(descriptor: int) -> Connection | None:
    """What the kernel tells of a descriptor, if it is a connection."""
    info = _info(descriptor)
    if len(info) < _INFO_SIZE or info[0] != _ESTABLISHED:
        return None
    sent, _, received, _ = struct.unpack_from("4I", info, _TIMES_AT)
    bytes_sent, bytes_received = struct.unpack_from("2Q", info, _BYTES_AT)
    (unsent,) = struct.unpack_from("I", info, _UNSENT_AT)
    return Connection(sent / 1000, received / 1000, bytes_sent, bytes_received, unsent, descriptor)


def copy_of(descriptor: int) -> socket.socket:
    """A socket of its own, whose closing leaves the connection as it is. Raises OSError where it is closed."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor))


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - there are many
    except OSError:
        return []


def _info(descriptor: int) -> bytes:
    """The struct tcp_info of a descriptor, if it is a TCP socket; fast, for all of them are looked at."""
    try:
        # a socket of this descriptor, not a copy; family and type as given are not looked up, and do not matter
        found = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    except OSError:
        return b""
    try:
        return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return b""
    finally:
        found.detach()  # or it would be closed
