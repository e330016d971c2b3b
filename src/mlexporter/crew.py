"""Keeps one thread of the server at work, and others ready for when it has to wait.

Threads that take turns with Python's lock make a request three times as expensive. The server adds a thread whenever
requests queue up; here the surplus rests after its first request, and comes back when the one at work is held up by a
client.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Member:
    """A thread of the server: whether it is at work, and what it rests on."""

    __slots__ = ("resting", "working")

    def __init__(self) -> None:
        self.working = False
        self.resting = threading.Event()


class Crew:
    """The threads of the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._working = 0
        self._resting: list[Member] = []
        self._dismissed = False

    def arrive(self) -> Member:
        """Begin with a request."""
        member = self.member()
        if member is None:
            member = self._local.member = Member()
        self.come_back(member)
        return member

    def rest(self, member: Member) -> None:
        """After a request: rest until needed, unless this is the only thread at work."""
        if self._working <= 1:
            return
        with self._lock:
            if self._working <= 1 or self._dismissed:
                return
            self._end(member)
            member.resting.clear()
            self._resting.append(member)
        member.resting.wait()

    def member(self) -> Member | None:
        """The present thread, if it is of the crew."""
        member: Member | None = getattr(self._local, "member", None)
        return member

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Wait for a client while another thread goes on."""
        member = self.member()
        if member is None:
            yield
            return
        self.relieve(member)
        try:
            yield
        finally:
            self.come_back(member)

    def relieve(self, member: Member) -> None:
        """Let another thread go on in place of one that waits."""
        with self._lock:
            self._end(member)
            if not self._working and self._resting:
                self._wake()

    def come_back(self, member: Member) -> None:
        """Go on after having been relieved, if so it was."""
        if not member.working:
            with self._lock:
                self._begin(member)

    def dismiss(self) -> None:
        """Wake everybody, and let nobody rest any more."""
        with self._lock:
            self._dismissed = True
            while self._resting:
                self._wake()

    def _begin(self, member: Member) -> None:
        if not member.working:
            member.working = True
            self._working += 1

    def _end(self, member: Member) -> None:
        if member.working:
            member.working = False
            self._working -= 1

    def _wake(self) -> None:
        member = self._resting.pop()
        self._begin(member)
        member.resting.set()
