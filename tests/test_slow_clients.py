"""Reading bodies within limits, and ending the reads of clients that stall and of no others."""

import gc
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Clock
from mlexporter import slow_clients
from mlexporter.backlog import Connection
from mlexporter.samples import DecodeError, Reason
from mlexporter.slow_clients import BodyReader, Drops, close_stalled
from sockets import DEADLINE, Pair, connected

LIMIT = 100


class Untouchable(io.RawIOBase):
    """An input that must not be read."""

    def read(self, size: int = -1, /) -> bytes:
        raise AssertionError("the body was read")


class Held(io.RawIOBase):
    """An input whose data comes when it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def read(self, size: int = -1, /) -> bytes:
        self.begun.set()
        assert self.let_go.wait(DEADLINE)
        return b"x"


def environ(body: bytes | io.RawIOBase, **headers: str) -> dict[str, Any]:
    given = io.BytesIO(body) if isinstance(body, bytes) else body
    return {"REQUEST_METHOD": "POST", "wsgi.input": given, **headers}


def error_of(reader: BodyReader, request: dict[str, Any]) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        reader.read(request)
    return caught.value


@pytest.mark.parametrize("size", [1, LIMIT])
def test_a_body_is_read(size: int) -> None:
    reader, body = BodyReader(LIMIT), bytes(size)
    assert reader.read(environ(body + b"next request", CONTENT_LENGTH=str(size))) == body
    assert reader.read(environ(body, HTTP_TRANSFER_ENCODING="chunked")) == body


def test_no_body_is_not_read() -> None:
    reader = BodyReader(LIMIT)
    for headers in ({}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "0"}):
        assert reader.read(environ(Untouchable(), **headers)) == b""


@pytest.mark.parametrize("length", [LIMIT + 1, 10**30])
def test_a_length_over_the_limit_is_refused_before_reading(length: int) -> None:
    error = error_of(BodyReader(LIMIT), environ(Untouchable(), CONTENT_LENGTH=str(length)))
    assert error.reason is Reason.BODY_TOO_LARGE
    assert error.message == "the body is larger than limits.max_body_bytes (100 bytes); send smaller batches"


def test_chunks_over_the_limit_are_read_no_further() -> None:
    body = io.BytesIO(bytes(10 * LIMIT))
    request = {"wsgi.input": body, "HTTP_TRANSFER_ENCODING": "chunked"}
    assert error_of(BodyReader(LIMIT), request).reason is Reason.BODY_TOO_LARGE
    assert body.tell() == LIMIT + 1


@pytest.mark.parametrize("length", ["-1", "1.5", "0x10", "1e3", "²"])
def test_a_length_that_is_no_number(length: str) -> None:
    error = error_of(BodyReader(LIMIT), environ(Untouchable(), CONTENT_LENGTH=length))
    assert (error.reason, error.message) == (Reason.INVALID_STRUCTURE, "Content-Length is not a number")


def test_a_body_that_ends_early() -> None:
    error = error_of(BodyReader(LIMIT), environ(b"12345", CONTENT_LENGTH="6"))
    assert error.reason is Reason.REQUEST_TIMEOUT
    assert error.message == "the body ended after 5 of the 6 bytes of Content-Length"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a place."""
    monkeypatch.setattr(slow_clients, "_PLACE_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_only_so_many_bodies_are_read_at_once() -> None:
    reader, inputs = BodyReader(LIMIT, most=3), [Held() for _ in range(3)]
    threads = [threading.Thread(target=reader.read, args=[environ(held, CONTENT_LENGTH="1")]) for held in inputs]
    for thread, held in zip(threads, inputs, strict=True):
        thread.start()
        assert held.begun.wait(DEADLINE)
    try:
        error = error_of(reader, environ(Untouchable(), CONTENT_LENGTH="1"))
        assert (error.reason, error.message) == (Reason.OVERLOADED, "too many requests are being read; try again")
        assert reader.read(environ(Untouchable(), CONTENT_LENGTH="0")) == b""  # needs no place
        inputs[1].let_go.set()
        threads[1].join(DEADLINE)
        assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"
    finally:
        for held in inputs:
            held.let_go.set()
        for thread in threads:
            thread.join(DEADLINE)


def test_a_read_that_fails_gives_its_place_back() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError("connection reset")

    reader = BodyReader(LIMIT, most=1)
    for _ in range(3):
        with pytest.raises(OSError, match="connection reset"):
            reader.read(environ(Broken(), CONTENT_LENGTH="1"))
    assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"


@pytest.mark.usefixtures("impatient")
def test_who_waits_for_a_turn_counts_as_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "_TURN_SECONDS", DEADLINE)
    reader = BodyReader(LIMIT, most=2)
    outcomes: list[str] = []

    def wait() -> None:
        with reader.turn():
            outcomes.append("had its turn")

    threads = [threading.Thread(target=wait) for _ in range(2)]
    with reader.turn():
        assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"  # who has its turn does not count
        for thread in threads:
            thread.start()
        end = time.monotonic() + DEADLINE
        while len(reader._waiting) < 2:
            assert time.monotonic() < end
        assert error_of(reader, environ(Untouchable(), CONTENT_LENGTH="1")).reason is Reason.OVERLOADED
        assert outcomes == []
    for thread in threads:
        thread.join(DEADLINE)
    assert outcomes == ["had its turn"] * 2
    assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "_TURN_SECONDS", 0.0)
    reader = BodyReader(LIMIT, most=1)
    with reader.turn():
        for _ in range(3):
            with pytest.raises(DecodeError) as caught, reader.turn():
                pytest.fail("two had their turn at once")
            assert caught.value.reason is Reason.OVERLOADED
            assert caught.value.message == "too many large bodies are waiting to be decoded; try again"
    with reader.turn():
        assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"


@pytest.fixture
def reading() -> Iterator[Callable[[BodyReader], Held]]:
    """Starts reads that stall, and lets them go at the end."""
    held: list[Held] = []
    threads: list[threading.Thread] = []

    def start(reader: BodyReader) -> Held:
        held.append(Held())
        threads.append(threading.Thread(target=reader.read, args=[environ(held[-1], CONTENT_LENGTH="1")]))
        threads[-1].start()
        assert held[-1].begun.wait(DEADLINE)
        return held[-1]

    yield start
    for each in held:
        each.let_go.set()
    for thread in threads:
        thread.join(DEADLINE)


def test_a_burst_waits_for_a_place(monkeypatch: pytest.MonkeyPatch, reading: Callable[[BodyReader], Held]) -> None:
    monkeypatch.setattr(slow_clients, "_PLACE_SECONDS", DEADLINE)
    reader = BodyReader(LIMIT, most=1)
    held = reading(reader)
    monkeypatch.setattr(time, "sleep", lambda _: held.let_go.set())
    assert reader.read(environ(b"x", CONTENT_LENGTH="1")) == b"x"


def test_nobody_waits_for_a_place_that_is_held_by_who_stalls(
    monkeypatch: pytest.MonkeyPatch, reading: Callable[[BodyReader], Held]
) -> None:
    clock = Clock(100.0)
    reader = BodyReader(LIMIT, most=2, clock=clock)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    reading(reader)
    clock.now = 100.1
    reading(reader)
    clock.now = 100.4
    assert error_of(reader, environ(Untouchable(), CONTENT_LENGTH="1")).reason is Reason.OVERLOADED


def test_waiting_for_a_place_has_an_end(monkeypatch: pytest.MonkeyPatch, reading: Callable[[BodyReader], Held]) -> None:
    clock = Clock(100.0)
    reader = BodyReader(LIMIT, most=1, clock=clock)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        for thread in reader._reading:  # others come and go
            reader._reading[thread] = clock.now

    monkeypatch.setattr(time, "sleep", sleep)
    reading(reader)
    assert error_of(reader, environ(Untouchable(), CONTENT_LENGTH="1")).reason is Reason.OVERLOADED
    assert 0.2 < clock.now - 100.0 < 0.3


def test_connections_are_looked_at_only_when_a_read_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, reading: Callable[[BodyReader], Held]
) -> None:
    looked: list[tuple[float, bool]] = []

    def look(silence: float, *, doubtful: bool = False) -> int:
        looked.append((silence, doubtful))
        return 1

    monkeypatch.setattr(slow_clients, "close_stalled", look)
    monkeypatch.setattr(slow_clients, "_clients", lambda: iter(()))
    clock = Clock(100.0)
    reader = BodyReader(LIMIT, timeout=10.0, clock=clock)
    assert reader.end_stalled() == 0
    reading(reader)
    clock.now = 109.9
    reading(reader)
    assert reader.end_stalled() == 0
    assert looked == []
    clock.now = 110.0
    assert reader.end_stalled() == 1
    clock.now = 119.9
    assert reader.end_stalled() == 1
    clock.now = 120.0
    assert reader.end_stalled() == 1
    assert looked == [(10.0, False), (10.0, False), (10.0, True)]
    reader.hurry(1.0)
    clock.now = 121.0
    assert reader.end_stalled() == 1
    assert looked[-1] == (1.0, True)


def test_watching_ends_when_it_is_stopped() -> None:
    reader = BodyReader(LIMIT)
    thread = threading.Thread(target=reader.watch)
    thread.start()
    reader.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


# -- which connections stall, as the kernel tells it -------------------------------------------------------------------


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A client and the server's side of its connection, which is the only one that is looked at."""
    found = slow_clients._clients

    def only_this() -> Iterator[tuple[socket.socket, Connection]]:
        return (each for each in found() if each[0].getpeername() == client.getsockname())

    monkeypatch.setattr(slow_clients, "_clients", only_this)
    with connected() as (client, server):
        yield client, server


def test_a_client_that_never_sent_all_of_its_first_request_stalls(
    connection: Pair,
) -> None:
    client, server = connection
    client.sendall(b"POST")
    assert server.recv(100) == b"POST"
    assert close_stalled(3600.0) == 0  # silent, but not for that long
    assert close_stalled(0.0) == 1
    assert server.recv(100) == b""  # the read ends,
    server.sendall(b"408")
    assert client.recv(100) == b"408"  # and the client still gets an answer


def test_a_client_that_waits_for_its_next_request_is_idle(connection: Pair) -> None:
    client, server = connection
    client.sendall(b"GET")
    assert server.recv(100) == b"GET"
    server.sendall(b"200")
    assert client.recv(100) == b"200"
    assert close_stalled(0.0) == 0
    client.sendall(b"GET")
    assert server.recv(100) == b"GET"


def test_a_client_that_stalls_in_a_later_request(connection: Pair) -> None:
    client, server = connection
    client.sendall(b"GET")
    assert server.recv(100) == b"GET"
    server.sendall(b"200")
    assert client.recv(100) == b"200"
    end = time.monotonic() + DEADLINE
    while not close_stalled(0.0):  # until the kernel's clock has gone on a millisecond since the answer
        client.sendall(b"P")
        assert server.recv(100)
        assert time.monotonic() < end
    assert server.recv(100) == b""


def test_a_connection_in_doubt_is_closed_only_when_asked(connection: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data went in and out in one millisecond: idle, or stalled just after an answer."""
    client, server = connection
    told = Connection(since_sent=10.0, since_received=10.0, sent=500, received=500)
    monkeypatch.setattr(slow_clients, "_clients", lambda: iter([(server, told)]))
    assert close_stalled(10.0) == 0
    client.sendall(b"x")
    assert server.recv(10) == b"x"
    assert close_stalled(10.0, doubtful=True) == 1
    assert server.recv(10) == b""


def test_a_client_that_sends_drops_is_ended_after_a_time(connection: Pair) -> None:
    client, server = connection
    drops = Drops()
    for now in (100.0, 130.0, 149.9):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert drops.close(now, 50.0) == 0
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    assert drops.close(150.0, 50.0) == 1
    assert server.recv(1) == b""
    server.sendall(b"408")
    assert client.recv(100) == b"408"


def test_a_client_that_gets_answers_sends_no_drops(connection: Pair) -> None:
    """However long it has been there, its time begins again with each answer, and stands still between requests."""
    client, server = connection
    drops = Drops()
    for now in (100.0, 140.0, 180.0, 220.0):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert drops.close(now, 50.0) == 0
        server.sendall(b"200")
        assert client.recv(100) == b"200"
        time.sleep(0.01)  # the kernel counts in milliseconds
    assert drops.close(230.0, 50.0) == 0
    assert drops.close(400.0, 50.0) == 0  # idle
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    assert drops.close(500.0, 50.0) == 0  # begins


def test_chunks_that_were_cut_off_are_not_taken_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that came before a client stalled are good lines: only the watcher knows that more should have come."""
    monkeypatch.setattr(slow_clients, "close_stalled", lambda *_, **__: 1)
    monkeypatch.setattr(slow_clients, "_clients", lambda: iter(()))
    clock = Clock(100.0)
    reader = BodyReader(LIMIT, timeout=10.0, clock=clock)

    class Cut(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            clock.now += 10.0
            assert reader.end_stalled() == 1
            return b'{"features": {}}\n'

    error = error_of(reader, environ(Cut(), HTTP_TRANSFER_ENCODING="chunked"))
    assert error.reason is Reason.REQUEST_TIMEOUT
    # one that begins after that is not concerned, and neither is one during which nobody was closed
    clock.now += 0.1
    assert reader.read(environ(b"{}", HTTP_TRANSFER_ENCODING="chunked")) == b"{}"
    monkeypatch.setattr(slow_clients, "close_stalled", lambda *_, **__: 0)

    class Slow(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            clock.now += 10.0
            assert reader.end_stalled() == 0
            return b"{}"

    assert reader.read(environ(Slow(), HTTP_TRANSFER_ENCODING="chunked")) == b"{}"


def test_connections_that_the_exporter_made_are_left_alone() -> None:
    """To Redis, say: after an answer there, data came last, as from a client that stalls."""
    gc.collect()  # connections of clients in other tests
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = socket.create_connection(listener.getsockname(), timeout=DEADLINE)
        store, _ = listener.accept()
        with own, store:
            own.sendall(b"GET")
            assert store.recv(100) == b"GET"
            time.sleep(0.01)  # the kernel counts in milliseconds
            store.sendall(b"OK")
            assert own.recv(100) == b"OK"
            assert close_stalled(0.0) == 0
            drops = Drops()
            assert [drops.close(now, 50.0) for now in (100.0, 200.0)] == [0, 0]


def test_what_is_no_connection_is_left_alone() -> None:
    gc.collect()  # connections of clients in other tests
    pair = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, pair[0], pair[1]:
        assert close_stalled(0.0, doubtful=True) == 0
        assert Drops().close(0.0, 0.0) == 0
        pair[0].sendall(b"x")
        assert pair[1].recv(10) == b"x"
        with socket.create_connection(listener.getsockname(), timeout=DEADLINE):
            pass
