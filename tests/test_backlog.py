"""When requests wait too long: by what the kernel tells of connections, and only where the server has much to do."""

import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from conftest import Clock
from mlexporter import backlog
from mlexporter.backlog import Backlog, Connection, connections
from mlexporter.crew import Crew
from sockets import DEADLINE, Pair, connected, of

WAITS = Connection(since_sent=9.0, since_received=0.06, sent=500, received=500)


def waiting(seconds: float) -> Connection:
    return Connection(since_sent=9.0, since_received=seconds, sent=500, received=500)


class Site:
    """A server whose one thread takes so many seconds for a request, as a rule, and the connections that it has."""

    def __init__(self, usual: float = 1.0) -> None:
        self.clock = Clock(100.0)
        self.crew = Crew(self.clock)
        self.connections: list[Connection] = []
        self.looks = 0
        for _ in range(40):
            self.work(usual)
        self.backlog = self.made()

    def made(self, look_seconds: float = 0.0) -> Backlog:
        """Counts its looks at connections in `looks`, each of which takes so long."""

        def ask(number: int) -> Connection:
            if number == 0:
                self.looks += 1
                self.clock.now += look_seconds
            return self.connections[number]

        return Backlog(self.crew, lambda: range(len(self.connections)), ask, self.clock, self.clock)

    def work(self, seconds: float) -> None:
        self.crew.arrive()
        self.clock.now += seconds
        self.crew.depart()

    def is_late(self, *, after: float = 1.0) -> bool:
        """Whether the next request is late, taken on after so many seconds of work; it is refused in no time."""
        if after:
            self.work(after)
        self.crew.arrive()
        try:
            return self.backlog.is_late()
        finally:
            self.crew.depart(rest=False)


@pytest.fixture(autouse=True)
def usual_turns() -> Iterator[float]:
    """How often threads take turns, which a look may change for the whole process."""
    usual = sys.getswitchinterval()
    yield usual
    sys.setswitchinterval(usual)


@pytest.fixture
def site() -> Site:
    return Site()


def test_it_is_late_where_many_wait(site: Site) -> None:
    site.connections = [WAITS] * 17
    assert site.is_late()
    site.connections = []
    assert not site.is_late()


@pytest.mark.parametrize(
    ("connection", "late"),
    [
        (WAITS, True),
        (Connection(9.0, 0.009, 500, 500), False),  # not for long
        (Connection(9.0, 0.011, 500, 500), True),
        (Connection(0.05, 0.06, 500, 500), False),  # it has its answer
        (Connection(0.06, 0.06, 500, 500), False),  # in the same millisecond, as far as that can be told
        (Connection(0.06, 0.06, 1, 500), True),  # it never had one
        (Connection(9.0, 0.06, 1, 0), False),  # it has asked for nothing
        (Connection(9.0, 2.0, 500, 500), True),
        (Connection(9.0, 2.1, 500, 500), False),  # a request that was never sent to its end
    ],
)
def test_who_is_late(site: Site, connection: Connection, late: bool) -> None:
    site.connections = [connection] * 17
    assert site.is_late() == late


def test_a_few_may_wait(site: Site) -> None:
    site.connections = [WAITS] * 16
    assert not site.is_late()


@pytest.mark.parametrize(("waits", "late"), [(25, False), (26, True)])
def test_more_may_wait_where_they_take_little(waits: int, late: bool) -> None:
    """25 milliseconds of work."""
    site = Site(usual=0.001)
    site.connections = [WAITS] * waits
    assert site.is_late(after=0.02) == late


def test_each_request_is_judged_by_how_long_it_waited_itself(site: Site) -> None:
    site.connections = [*[waiting(0.004)] * 10, *[waiting(0.008)] * 10, *[waiting(0.03)] * 2]
    assert [site.is_late(after=1.0), *(site.is_late(after=0.0) for _ in range(2))] == [True, True, False]
    site.clock.now += 0.003
    assert [site.is_late(after=0.0) for _ in range(10)] == [True] * 9 + [False]
    site.clock.now += 0.004
    assert [site.is_late(after=0.0) for _ in range(9)] == [True] * 9
    assert not site.is_late(after=0.0)  # it came after the look
    assert site.looks == 1


def hold(site: Site, count: int) -> tuple[threading.Event, list[threading.Thread]]:
    """Threads with a request in hand each that waits for something, as those of labels while they are written."""
    begun, over = threading.Barrier(count + 1), threading.Event()

    def run() -> None:
        site.crew.arrive()
        with site.crew.held_up():
            begun.wait(DEADLINE)
            assert over.wait(DEADLINE)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.wait(DEADLINE)
    return over, threads


@pytest.mark.parametrize(
    ("connections", "late"),
    [
        ([WAITS] * 36, False),  # twenty in hand, this one, and fifteen more
        ([WAITS] * 37, True),
        ([*[waiting(0.002)] * 20, *[WAITS] * 20], False),  # this one came after those in hand
        ([*[waiting(0.002)] * 20, *[WAITS] * 21], True),
    ],
)
def test_requests_that_are_in_hand_do_not_wait(site: Site, connections: list[Connection], late: bool) -> None:
    over, threads = hold(site, 20)
    try:
        site.connections = connections
        assert site.is_late() == late
    finally:
        over.set()
        for thread in threads:
            thread.join(DEADLINE)


def test_nobody_waits_for_a_server_that_has_time_to_spare() -> None:
    """Clients that stall in the middle of their request look as if they waited."""
    site = Site(usual=0.02)
    site.connections = [WAITS] * 100
    for _ in range(100):
        site.clock.now += 0.03
        assert not site.is_late(after=0.02)
    assert site.looks == 0
    found = []
    for _ in range(100):
        site.clock.now += 0.015
        found.append(site.is_late(after=0.02))
    assert all(found[10:])


def test_one_request_that_takes_long_says_nothing_of_the_others() -> None:
    site = Site(usual=0.001)
    site.connections = [*[WAITS] * 25, *[Connection(0.05, 0.06, 500, 500)] * 10]
    for _ in range(20):
        site.clock.now += 0.019
        assert not site.is_late(after=0.001)
    assert site.looks == 0
    assert not site.is_late(after=0.04)
    assert site.looks == 1
    site.connections = [WAITS] * 26
    assert site.is_late(after=0.02)


def test_the_threads_take_turns_more_often_where_many_are_connected(site: Site, usual_turns: float) -> None:
    for count, expected in ((17, 0.0005), (16, usual_turns)):
        site.connections = [Connection(9.0, 9.0, 500, 500)] * count
        assert not site.is_late()
        assert sys.getswitchinterval() == pytest.approx(expected)


def test_two_threads_refuse_where_very_many_are_late(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    monkeypatch.setattr(site.crew, "let_work", at_once.append)
    for late in (63, 64, 63):
        site.connections = [*[waiting(0.03)] * late, *[waiting(0.009)] * 50]
        assert site.is_late()
    site.connections = [waiting(0.03)] * 16
    assert not site.is_late()
    assert at_once == [1, 2, 1, 1]


def test_each_request_is_judged_by_its_own_wait_whichever_asks_first(site: Site) -> None:
    site.connections = [*[waiting(0.03)] * 2, *[waiting(0.005)] * 18]
    site.work(1.0)
    taken_on, late = threading.Barrier(3), [False] * 3
    turns = [threading.Event() for _ in range(3)]

    def run(place: int) -> None:
        turns[place].wait(DEADLINE)
        site.crew.arrive()
        if place < 2:
            turns[place + 1].set()
        taken_on.wait(DEADLINE)
        late[place] = site.backlog.is_late()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    turns[0].set()
    for thread in threads:
        thread.join(DEADLINE)
    assert late == [True, True, False]


def test_requests_that_do_not_ask_are_taken_on_in_their_order_too(site: Site) -> None:
    site.connections = [*[waiting(0.03)] * 4, *[waiting(0.005)] * 18]
    assert site.is_late()
    site.work(0.0)
    assert site.is_late(after=0.0)
    site.work(0.0)
    assert not site.is_late(after=0.0)
    assert site.looks == 1


def test_looking_takes_a_small_part_of_the_time(site: Site) -> None:
    site.clock.now += 0.1
    site.connections = [WAITS] * 20
    assert site.is_late()
    assert site.looks == 1
    site.connections = [waiting(0.0)] * 20
    assert site.is_late(after=0.007)  # as it was found then
    assert site.looks == 1
    assert not site.is_late(after=0.002)
    assert site.looks == 2
    assert not site.is_late(after=0.007)
    assert site.looks == 2


def test_looking_that_takes_long_is_rare(site: Site) -> None:
    site.backlog = site.made(look_seconds=0.15)
    site.connections = [WAITS] * 17
    assert site.is_late()
    looked_at = site.clock.now - 0.15
    while site.clock.now < looked_at + 1.48:
        site.is_late(after=0.01)
    assert site.looks == 1
    site.is_late(after=0.03)
    assert site.looks == 2


# -- what the kernel tells ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected() as sides:
        yield sides


def test_a_request_waits_from_its_last_byte_to_its_answer(pair: Pair) -> None:
    client, server = pair
    assert not of(server).waits
    for _ in range(2):
        client.sendall(b"GET")
        assert server.recv(10) == b"GET"
        time.sleep(0.02)  # the kernel tells in milliseconds, of a clock with a step of up to ten
        assert of(server).waits
        assert of(server).since_received >= 0.01
        server.sendall(b"200")
        assert client.recv(10) == b"200"
        assert not of(server).waits
        time.sleep(0.02)
    assert of(server).received == 6


def test_connections_are_found_and_left_as_they_are(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"GET")
    assert server.recv(10) == b"GET"
    before = list(connections())
    assert [each for each in before if each.received == 3 and each.sent <= 1]
    assert [each for each in before if each.received == 0 and each.sent == 4]
    assert len(list(connections())) == len(before)
    server.sendall(b"200")
    assert client.recv(10) == b"200"


def test_what_is_no_connection_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = (tmp_path_factory.mktemp("file") / "x").open("wb")
    left, right = socket.socketpair()
    with file, left, right, socket.create_server(("127.0.0.1", 0)) as listener:
        for descriptor in (file.fileno(), left.fileno(), listener.fileno(), 1_000_000):
            assert backlog.told_of(descriptor) is None
        left.sendall(b"x")
        assert right.recv(1) == b"x"
