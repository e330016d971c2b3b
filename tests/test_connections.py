"""Which connections are closed: where there are too many, those that are silent; and those that do not read."""

import time
from collections.abc import Iterator

import pytest

from conftest import Clock
from mlexporter.backlog import Connection
from mlexporter.connections import CROWDED, UNREAD_BYTES, UNREAD_SECONDS, Keeper, accepted, close_unless_changed
from sockets import DEADLINE, Pair, connected, of


class Site:
    """Connections that are there, and those that were closed."""

    def __init__(self) -> None:
        self.clock = Clock(100.0)
        self.found: list[Connection] = []
        self.closed: list[int] = []
        self.keeper = Keeper(lambda: self.found, self._close, self.clock)

    def _close(self, connection: Connection) -> bool:
        self.closed.append(connection.descriptor)
        return True


@pytest.fixture
def site() -> Site:
    return Site()


def idle(descriptor: int, seconds: float) -> Connection:
    return Connection(seconds, seconds + 0.1, 500, 500, 0, descriptor)


def waiting(descriptor: int, seconds: float) -> Connection:
    return Connection(seconds + 9.0, seconds, 500, 500, 0, descriptor)


def test_nobody_has_to_go_while_there_is_room(site: Site) -> None:
    site.found = [idle(i, 60.0) for i in range(767)]
    assert CROWDED == 768
    assert site.keeper.tend() == 0
    assert site.closed == []


def test_of_too_many_the_most_silent_go(site: Site) -> None:
    site.found = [idle(i, 1.0 + i) for i in range(768)]
    assert site.keeper.tend() == 256
    assert sorted(site.closed) == list(range(512, 768))


def test_who_is_at_it_stays(site: Site) -> None:
    site.found = [idle(i, 0.9) for i in range(400)] + [waiting(400 + i, 3.9) for i in range(400)]
    assert site.keeper.tend() == 0
    site.found += [waiting(800, 4.0), idle(801, 1.0)]  # who sent half a request, and who pauses
    assert site.keeper.tend() == 2
    assert site.closed == [800, 801]


def unread(sent: int, unsent: int = 1000) -> Connection:
    return Connection(0.0, 0.0, sent, 500, unsent, 7)


def test_who_does_not_read_is_cut_off(site: Site) -> None:
    for second in range(int(UNREAD_SECONDS)):
        site.found = [unread(1000 + second)]  # a byte a second
        site.clock.now = 100.0 + second
        assert site.keeper.tend() == 0
    site.clock.now = 100.0 + UNREAD_SECONDS
    assert site.keeper.tend() == 1
    assert site.closed == [7]


@pytest.mark.parametrize(
    "after", [unread(1000 + UNREAD_BYTES), unread(1000, 0), unread(10)], ids=["reads", "all is sent", "another one"]
)
def test_who_reads_is_not(site: Site, after: Connection) -> None:
    site.found = [unread(1000)]
    assert site.keeper.tend() == 0
    site.clock.now += UNREAD_SECONDS - 1
    site.found = [after]
    assert site.keeper.tend() == 0
    site.clock.now += 1
    site.found = [unread(after.sent)]
    assert site.keeper.tend() == 0


def test_watching_ends_when_it_is_stopped(site: Site) -> None:
    site.keeper.stop()
    site.keeper.watch()


# -- what the kernel tells ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected() as sides:
        yield sides


def test_only_connections_that_others_made_are_looked_at(pair: Pair) -> None:
    client, server = pair
    found = [each.descriptor for each in accepted()]
    assert server.fileno() in found
    assert client.fileno() not in found


def test_a_silent_connection_is_closed(pair: Pair) -> None:
    client, server = pair
    assert close_unless_changed(of(server))
    assert server.recv(10) == b""
    server.sendall(b"bye")
    assert client.recv(10) == b"bye"


def test_a_connection_that_goes_on_is_left_alone(pair: Pair) -> None:
    client, server = pair
    before = of(server)
    client.sendall(b"GET")
    assert server.recv(10) == b"GET"
    assert not close_unless_changed(before)
    client.sendall(b"more")
    assert server.recv(10) == b"more"


def test_a_connection_that_is_gone(pair: Pair) -> None:
    _, server = pair
    before = of(server)
    server.close()
    assert not close_unless_changed(before)


def test_what_is_not_read_is_not_sent(pair: Pair) -> None:
    _, server = pair
    server.setblocking(False)
    end = time.monotonic() + DEADLINE
    while not of(server).unsent:
        assert time.monotonic() < end
        try:
            server.send(bytes(1 << 20))
        except BlockingIOError:
            time.sleep(0.01)
    assert close_unless_changed(of(server))
    with pytest.raises(OSError, match="Broken pipe"):
        server.send(b"x")
