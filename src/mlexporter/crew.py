"""Keeps one thread of the server at work, and others ready for when it is held up.

Threads that take turns with Python's lock make a request three times as expensive. The server adds a thread whenever
requests queue up; here the surplus rests after its first request. One of them goes on when the thread at work waits for
a client, and when a request takes long for whatever reason: probes and scrapes never wait for it. Where nearly all are
refused more than one may be at work.
"""

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

LONG_SECONDS: Final = 0.1
_WATCH_SECONDS: Final = 0.05
_RECENT: Final = 32


class Member:
    """A thread of the server.

    Attributes:
        number: of its latest request, in the order in which all of them were taken on.
        working: whether it is at work, and does not rest on `resting`.
        since: when its present request began.
        busy: seconds that it was on requests before.

    """

    __slots__ = ("busy", "crew", "number", "resting", "since", "working")

    def __init__(self, crew: "Crew") -> None:
        self.crew = crew
        self.number = 0
        self.working = False
        self.since = math.inf
        self.busy = 0.0
        self.resting = threading.Event()


class Crew:
    """The threads of the server.

    Where one server takes over from another, each has a crew: `another` makes the next one. The first is asked for all.

    Args:
        clock: monotonic seconds.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._local = threading.local()
        self._working: set[Member] = set()
        self._resting: list[Member] = []
        self._dismissed = False
        self._at_once = 1
        self._stopped = threading.Event()
        self._crews = [self]
        self._members: list[Member] = []
        self._recent = deque[float](maxlen=_RECENT)
        self._numbers = itertools.count(1)

    @property
    def in_hand(self) -> int:
        """How many requests were taken on, and are not answered."""
        return sum(member.since < math.inf for member in self._everybody())

    @property
    def taken_on(self) -> int:
        """How many requests were taken on so far."""
        return max((member.number for member in self._everybody()), default=0)

    @property
    def number(self) -> int:
        """How many had been taken on when the present request of this thread was, itself among them; 0 of others."""
        member: Member | None = getattr(self._local, "member", None)
        return member.number if member is not None else 0

    @property
    def busy_seconds(self) -> float:
        """How long all threads were on requests that have been answered, together."""
        return sum(member.busy for member in self._everybody())

    @property
    def seconds_each(self) -> float:
        """How long the thread at work is on a request: the mean of the last few taken ones but for the longest."""
        recent = self._recent.copy()
        return (sum(recent) - max(recent, default=0.0)) / max(1, len(recent) - 1)

    def _everybody(self) -> Iterator[Member]:
        for crew in self._crews.copy():
            yield from crew._members.copy()

    def another(self) -> "Crew":
        """A crew for the threads of another server."""
        crew = Crew(self._clock)
        crew._local, crew._recent, crew._at_once = self._local, self._recent, self._at_once
        crew._numbers = self._numbers
        self._crews.append(crew)
        return crew

    def disband(self, crew: "Crew") -> None:
        """Let the threads of a crew go, for good."""
        crew.dismiss()
        if crew is not self:
            self._crews.remove(crew)

    def arrive(self) -> None:
        """Begin with a request."""
        member: Member | None = getattr(self._local, "member", None)
        if member is None:
            member = self._local.member = Member(self)
            self._members.append(member)
        member.number = next(self._numbers)
        member.since = self._clock()
        if not member.working:
            with self._lock:
                self._begin(member)

    def depart(self, *, rest: bool = True) -> None:
        """After a request: rest until needed, unless no more are at work than may be, or this one must not rest."""
        member: Member = self._local.member
        took = self._clock() - member.since
        member.busy += took
        member.since = math.inf
        if rest and member.working:  # not what was refused, nor what waited while another thread went on
            self._recent.append(took)
        if not rest or (member.working and len(self._working) <= self._at_once):
            return
        with self._lock:
            self._working.discard(member)
            if len(self._working) < self._at_once or self._dismissed:
                self._begin(member)
                return
            member.working = False
            member.resting.clear()
            self._resting.append(member)
        member.resting.wait()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Wait for a client while another thread goes on."""
        member: Member | None = getattr(self._local, "member", None)
        if member is not None:
            with member.crew._lock:
                member.crew._relieve(member)
        yield

    def let_work(self, at_once: int) -> None:
        """Have so many threads at work, of each server, as far as there are as many."""
        for crew in self._crews.copy():
            if crew._at_once != at_once:
                with crew._lock:
                    crew._at_once = at_once
                    while len(crew._working) < at_once and crew._resting:
                        crew._wake()

    def watch(self) -> None:
        """Relieve threads whose request takes long, until `stop`; to be run in a thread of its own."""
        while not self._stopped.wait(_WATCH_SECONDS):
            self.relieve_late()

    def relieve_late(self) -> None:
        """Let another thread go on in place of those whose request takes long now."""
        late = self._clock() - LONG_SECONDS
        for crew in self._crews.copy():
            with crew._lock:
                for member in [member for member in crew._working if member.since < late]:
                    crew._relieve(member)

    def dismiss(self) -> None:
        """Wake everybody, and let nobody rest any more."""
        with self._lock:
            self._dismissed = True
            while self._resting:
                self._wake()

    def stop(self) -> None:
        """End `watch`."""
        self._stopped.set()

    def _begin(self, member: Member) -> None:
        member.working = True
        self._working.add(member)

    def _relieve(self, member: Member) -> None:
        """Count a thread as away until its request is done, and let another one go on."""
        self._working.discard(member)
        member.working = False
        if len(self._working) < self._at_once and self._resting:
            self._wake()

    def _wake(self) -> None:
        member = self._resting.pop()
        member.since = math.inf
        self._begin(member)
        member.resting.set()
