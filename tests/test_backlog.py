"""When requests wait too long: by what the kernel tells of connections, and only where the server has much to do."""

import socket
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


class Site:
    """A server whose one thread answers a request each second, and the connections that it has."""

    def __init__(self) -> None:
        self.clock = Clock(100.0)
        self.crew = Crew(self.clock)
        self.connections: list[Connection] = []
        self.looks = 0
        self.backlog = Backlog(self.crew, self._look, self.clock)

    def _look(self) -> Iterator[Connection]:
        self.looks += 1
        return iter(self.connections)

    def work(self, seconds: float) -> None:
        self.crew.arrive()
        self.clock.now += seconds
        self.crew.depart(rest=False)

    def is_late(self, *, after: float = 1.0) -> bool:
        """Whether it is late when the next request is taken on after so many seconds of work."""
        self.work(after)
        self.crew.arrive()
        try:
            return self.backlog.is_late()
        finally:
            self.crew.depart(rest=False)


@pytest.fixture
def site() -> Site:
    return Site()


def test_it_is_late_where_many_wait(site: Site) -> None:
    site.connections = [WAITS] * 17
    assert site.is_late()
    site.connections = []
    assert not site.is_late()


@pytest.mark.parametrize(
    ("connection", "waits"),
    [
        (WAITS, True),
        (Connection(9.0, 0.014, 500, 500), False),  # not for long
        (Connection(9.0, 0.015, 500, 500), True),
        (Connection(0.05, 0.06, 500, 500), False),  # it has its answer
        (Connection(0.06, 0.06, 500, 500), False),  # in the same millisecond, as far as that can be told
        (Connection(0.06, 0.06, 1, 500), True),  # it never had one
        (Connection(9.0, 0.06, 1, 0), False),  # it has asked for nothing
        (Connection(9.0, 2.0, 500, 500), True),
        (Connection(9.0, 2.1, 500, 500), False),  # a request that was never sent to its end
    ],
)
def test_who_waits(site: Site, connection: Connection, waits: bool) -> None:
    site.connections = [connection] * 17
    assert site.is_late() == waits


def test_a_few_may_wait(site: Site) -> None:
    site.connections = [WAITS] * 16
    assert not site.is_late()


def test_requests_that_are_in_hand_do_not_wait(site: Site) -> None:
    """As those of labels, while they are written."""
    begun, over = threading.Barrier(21), threading.Event()

    def hold() -> None:
        site.crew.arrive()
        begun.wait(DEADLINE)
        assert over.wait(DEADLINE)

    threads = [threading.Thread(target=hold) for _ in range(20)]
    for thread in threads:
        thread.start()
    begun.wait(DEADLINE)
    try:
        site.connections = [WAITS] * 21  # twenty of them and this one
        assert not site.is_late()
        site.connections = [WAITS] * 22
        assert site.is_late()
    finally:
        over.set()
        for thread in threads:
            thread.join(DEADLINE)


def test_nobody_waits_for_a_server_that_has_time_to_spare(site: Site) -> None:
    """Clients that stall in the middle of their request look as if they waited."""
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


def test_one_request_that_takes_long_does_not_make_it_busy(site: Site) -> None:
    site.connections = [WAITS] * 100
    for _ in range(20):
        site.clock.now += 0.019
        assert not site.is_late(after=0.001)
    assert not site.is_late(after=0.04)


def test_looking_takes_a_small_part_of_the_time(site: Site) -> None:
    site.connections = [WAITS] * 17
    assert not site.is_late(after=0.019)
    assert site.looks == 0
    assert site.is_late(after=0.002)
    assert site.looks == 1
    site.connections = []
    assert site.is_late(after=0.004)  # until it looks again, which is soon
    assert site.looks == 1
    assert not site.is_late(after=0.002)
    assert site.looks == 2
    assert not site.is_late(after=0.019)
    assert site.looks == 2


def test_looking_that_takes_long_is_rare(site: Site) -> None:
    def slowly() -> Iterator[Connection]:
        site.clock.now += 0.1
        return iter([WAITS] * 17)

    site.backlog = Backlog(site.crew, slowly, site.clock)
    assert site.is_late()
    looked_at = site.clock.now - 0.1
    while site.clock.now < looked_at + 0.98:
        site.is_late(after=0.01)
    assert site.clock.now < looked_at + 1.0  # it has not looked again
    site.is_late(after=0.03)
    assert site.clock.now > looked_at + 1.1


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
