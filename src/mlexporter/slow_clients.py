"""Reading request bodies so that a slow client costs itself and nobody else.

One thread of the server is at work (see `crew`), and it is relieved if a request takes long. Most clients are near, and
their bodies are there or almost, so a body is read at once; but for some minutes after one that was slow another thread
goes on whenever a body is read.

A watcher ends reads that stall. It asks the kernel which connections owe data and closes their receiving side: the read
then ends short, and the client still gets its answer.
"""

import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from mlexporter.backlog import Backlog, Connection, copy_of, told_of
from mlexporter.connections import accepted
from mlexporter.crew import LONG_SECONDS, Crew
from mlexporter.decode.compression import too_large
from mlexporter.samples import DecodeError, Reason

logger = logging.getLogger(__name__)

_CAREFUL_SECONDS: Final = 300.0
_WATCH_SECONDS: Final = 0.25
_TURN_SECONDS: Final = 3.0
_HURRIED_SECONDS: Final = 2.0  # more for a body that keeps coming while the exporter ends
# A burst of clients is no overload: wait so long for a place, unless nobody has come to a place for as long.
_PLACE_SECONDS: Final = 0.25
_PLACE_POLL_SECONDS: Final = 0.005
_READ_ANYWAY: Final = 256 << 10  # bytes


class BodyReader:
    """Reads bodies up to a limit of bytes and of time.

    Args:
        limit: bytes of a body.
        crew: the threads that read; None where the server has others.
        most: bodies that may be read at once, which leaves the other threads for scrapes and probes.
        timeout: seconds that the client may stay silent in the middle of a body.
        longest: seconds, about, that a body may take when it is sent drop by drop.
        backlog: tells when too many requests wait; None where nobody does.
        clock: monotonic seconds.

    Attributes:
        limit: as above; it may be another for the next request.

    """

    def __init__(
        self,
        limit: int,
        crew: Crew | None = None,
        *,
        backlog: Backlog | None = None,
        most: int = 7,
        timeout: float = 10.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._crew = crew or Crew()
        self._backlog = backlog
        self._most = most
        self._timeout = timeout
        self._longest = longest
        self._clock = clock
        self._drops = Drops()
        self._last_closed = -math.inf
        self._reading: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._turn = threading.Lock()
        self._careful_until = -math.inf
        self._stopped = threading.Event()

    def read(self, environ: Mapping[str, Any]) -> bytes:
        """The body of a request as it was sent.

        Raises:
            DecodeError: it is too large, it did not come in time, or too many others keep their readers waiting.

        """
        length = _content_length(environ)
        if length is not None and length > self.limit:
            raise too_large(self.limit)
        if length == 0:
            return b""
        # Threads that pass here at the same moment may be a few too many, which a lock would cost more than.
        if self._is_full() and not self._wait_for_place():
            raise DecodeError(Reason.OVERLOADED, "too many requests are being read; try again")
        size = self.limit + 1 if length is None else length
        start = self._clock()
        late = self._backlog is not None and self._backlog.is_late()
        if not late or size <= _READ_ANYWAY:  # for who closes on a client that still sends takes the answer from it
            body = self._read_in_time(environ, size, start)
        if late:
            raise DecodeError(Reason.OVERLOADED, "too many requests wait; try again")
        if len(body) > self.limit:
            raise too_large(self.limit)
        if length is not None and len(body) < length:
            raise DecodeError(
                Reason.REQUEST_TIMEOUT, f"the body ended after {len(body)} of the {length} bytes of Content-Length"
            )
        if length is None and start <= self._last_closed:
            # Of chunks nobody tells how they ended: this may be a connection that was closed meanwhile.
            raise DecodeError(Reason.REQUEST_TIMEOUT, "the body took too long")
        return body

    def _is_full(self) -> bool:
        return len(self._reading) + len(self._waiting) >= self._most

    def _wait_for_place(self) -> bool:
        """Wait a moment for a place; False where there is none, and at once where all are held by who stalls."""
        end = self._clock() + _PLACE_SECONDS
        while (now := self._clock()) < end:
            if now - max(self._reading.copy().values(), default=now) >= _PLACE_SECONDS:
                return False
            time.sleep(_PLACE_POLL_SECONDS)
            if not self._is_full():
                return True
        return False

    def _read_in_time(self, environ: Mapping[str, Any], size: int, start: float) -> bytes:
        if start >= self._careful_until:
            return self._read(environ, size, start)
        with self._crew.held_up():
            return self._read(environ, size, start)

    def _read(self, environ: Mapping[str, Any], size: int, start: float) -> bytes:
        thread = threading.get_ident()
        self._reading[thread] = start
        try:
            body: bytes = environ["wsgi.input"].read(size)
        finally:
            del self._reading[thread]
        end = self._clock()
        if end - start > LONG_SECONDS:
            self._careful_until = end + _CAREFUL_SECONDS
        return body

    def held_up(self) -> AbstractContextManager[None]:
        """Wait for something other than Python while another thread goes on."""
        return self._crew.held_up()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other body that is large, or may become so, is decoded.

        A body takes up to thirty times its size while it is decoded. Python decodes one at a time anyway, so no time is
        lost if large ones wait for each other, and memory is bounded. A thread that waits here is not free for scrapes
        either, so it counts as one that reads, and does not wait for long.

        Raises:
            DecodeError: it waited for too long.

        """
        thread = threading.get_ident()
        self._waiting.add(thread)
        try:
            if not self._turn.acquire(timeout=_TURN_SECONDS):
                raise DecodeError(Reason.OVERLOADED, "too many large bodies are waiting to be decoded; try again")
        finally:
            self._waiting.discard(thread)
        try:
            yield
        finally:
            self._turn.release()

    def watch(self) -> None:
        """End stalled reads until `stop`; to be run in a thread of its own."""
        while not self._stopped.wait(_WATCH_SECONDS):
            self.end_stalled()

    def end_stalled(self) -> int:
        """End the reads that stall now; returns how many connections were closed for it."""
        now = self._clock()
        longest = now - min(self._reading.copy().values(), default=now)
        if longest < self._timeout:
            return 0
        # A connection that was used before and stalled within a millisecond of its last answer looks like an idle
        # one, so it is closed only after a second time-out.
        before, self._last_closed = self._last_closed, now  # a read that ends now may end for this
        closed = close_stalled(self._timeout, doubtful=longest >= 2 * self._timeout)
        closed += self._drops.close(now, self._longest - self._timeout)
        if not closed:
            self._last_closed = before
        else:
            logger.warning("closed connections that stalled in the middle of a request", extra={"count": closed})
        return closed

    def hurry(self, timeout: float) -> None:
        """Shorten the time-out, as at shutdown."""
        self._timeout = timeout
        self._longest = timeout + _HURRIED_SECONDS

    def stop(self) -> None:
        """End `watch`."""
        self._stopped.set()


def _content_length(environ: Mapping[str, Any]) -> int | None:
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        # neither a length nor chunks: there is no body
        return None if environ.get("HTTP_TRANSFER_ENCODING") else 0
    if not (text.isascii() and text.isdigit()):
        raise DecodeError(Reason.INVALID_STRUCTURE, "Content-Length is not a number")
    return int(text)


class Drops:
    """Ends requests that never stall and never end: a byte now and then would hold a place for ever.

    A request has gone on since its connection was first seen to owe data, as long as nothing was answered on it.
    """

    def __init__(self) -> None:
        self._since: dict[object, tuple[int, float]] = {}

    def close(self, now: float, longest: float) -> int:
        """Look at all connections, and close the receiving side of those whose request goes on for so long.

        Args:
            now: monotonic seconds.
            longest: seconds since they were first seen.

        Returns:
            How many there were.

        """
        before, self._since = self._since, {}
        closed = 0
        for connection, told in _clients():
            if told.since_sent <= told.since_received and told.sent > 1:
                continue
            with contextlib.suppress(OSError):  # closed meanwhile
                peer = connection.getpeername()
                known, since = before.get(peer, (told.sent, now))
                self._since[peer] = told.sent, since if known == told.sent else now
                if now - self._since[peer][1] >= longest:
                    connection.shutdown(socket.SHUT_RD)
                    closed += 1
        return closed


def close_stalled(silence: float, *, doubtful: bool = False) -> int:
    """Close the receiving side of connections whose client owes data for `silence` seconds.

    Args:
        silence: seconds.
        doubtful: also those on which data was last sent and received in the same millisecond.

    Returns:
        How many there were; 0 on systems without /proc.

    """
    closed = 0
    for connection, told in _clients():
        # An idle connection was last written to, a stalled one was last read from or never written to.
        sent, received = told.since_sent, told.since_received
        owing = sent > received or told.sent <= 1 or (doubtful and sent == received)
        if received >= silence and owing:
            with contextlib.suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RD)
                closed += 1
    return closed


def _clients() -> Iterator[tuple[socket.socket, Connection]]:
    """The connections that others made to this process: a copy of each, and what the kernel tells of it."""
    for each in accepted():
        with contextlib.suppress(OSError), copy_of(each.descriptor) as copy:
            told = told_of(copy.fileno())
            if told is not None:
                yield copy, told
