"""Workers that take over from each other, with real sockets; and who ends them, with workers that only take notes."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from certificates import Authority
from conftest import Clock
from mlexporter import serving
from mlexporter.crew import Crew
from mlexporter.http_worker import Worker, listen
from mlexporter.serving import Granian
from mlexporter.tls import Material

DEADLINE = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0) as listener:
        yield listener


def answering(text: bytes) -> Callable[[Any, dict[str, Any]], None]:
    def handle(protocol: Any, _: dict[str, Any]) -> None:
        protocol.response_bytes(200, [("Content-Length", str(len(text)))], text)

    return handle


@contextmanager
def worker(listener: socket.socket, text: bytes, tls: Material | None = None) -> Iterator[Worker]:
    found = Worker(listener, answering(text), threads=2, tls=tls)
    try:
        yield found
    finally:
        found.stop()
        assert found.ended.wait(DEADLINE)
        found.close()


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def connection_to(listener: socket.socket) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=DEADLINE)


def test_new_connections_are_those_of_the_new_worker_and_old_ones_go_on(listener: socket.socket) -> None:
    with worker(listener, b"old") as old:
        kept = connection_to(listener)
        assert ask(kept) == b"old"
        with worker(listener, b"new"):
            old.stop_accepting()
            for _ in range(50):
                fresh = connection_to(listener)
                assert ask(fresh) == b"new"
                fresh.close()
            assert ask(kept) == b"old"
            kept.close()


def test_what_waits_to_be_accepted_is_not_lost_between_two_workers(listener: socket.socket) -> None:
    """Connections that come while nobody accepts are taken by the next worker."""
    with worker(listener, b"old") as old:
        old.stop_accepting()
        waiting = [connection_to(listener) for _ in range(20)]
        for connection in waiting:
            connection.request("GET", "/")
        with worker(listener, b"new"):
            assert {connection.getresponse().read() for connection in waiting} == {b"new"}
        for connection in waiting:
            connection.close()


def test_a_worker_may_be_retired_before_it_has_begun(listener: socket.socket) -> None:
    for _ in range(30):
        with worker(listener, b"old") as old:
            old.stop_accepting()


def test_nobody_can_connect_to_where_a_retired_worker_listens(listener: socket.socket) -> None:
    with worker(listener, b"old") as old:
        old.stop_accepting()
        with socket.socket(fileno=os.dup(vars(old)["_descriptor"])) as nowhere, socket.socket() as client:
            assert nowhere.getsockname() != listener.getsockname()
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.connect(nowhere.getsockname())


def test_stopping_twice_is_stopping_once(listener: socket.socket) -> None:
    with worker(listener, b"x") as found:
        for _ in range(5):
            found.stop()


def test_workers_have_certificates_of_their_own(listener: socket.socket) -> None:
    authorities = Authority(), Authority()

    def trusts(authority: Authority) -> bool:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        plain = socket.create_connection(listener.getsockname(), timeout=DEADLINE)
        try:
            with plain, context.wrap_socket(plain, server_hostname="localhost"):
                return True
        except ssl.SSLCertVerificationError:
            return False

    with worker(listener, b"old", authorities[0].material()) as old:
        assert [trusts(authority) for authority in authorities] == [True, False]
        with worker(listener, b"new", authorities[1].material()):
            old.stop_accepting()
            assert [trusts(authority) for authority in authorities] == [False, True]


def test_listening_where_somebody_listens_is_an_error(listener: socket.socket) -> None:
    with pytest.raises(OSError, match="in use"):
        listen(*listener.getsockname())


# -- who ends them -----------------------------------------------------------------------------------------------------


class Note:
    """A worker that notes what it is told."""

    def __init__(self, _: socket.socket, handle: Any, *, threads: int, tls: Material | None) -> None:
        self.handle, self.threads, self.tls = handle, threads, tls
        self.said: list[str] = []
        self.ended = threading.Event()

    def stop_accepting(self) -> None:
        self.said.append("stop accepting")

    def stop(self) -> None:
        self.said.append("stop")

    def close(self) -> None:
        self.said.append("close")


class Protocol:
    """What a worker gives to answer with."""

    def response_bytes(self, code: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answer = code, dict(headers), body


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Note]:
    made: list[Note] = []

    def make(*arguments: Any, **more: Any) -> Note:
        made.append(Note(*arguments, **more))
        return made[-1]

    monkeypatch.setattr(serving, "Worker", make)
    return made


def application(_: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{}"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(100.0)
    monkeypatch.setattr("mlexporter.serving.time.monotonic", clock)
    return clock


def test_a_worker_is_retired_then_ended_then_forgotten(
    notes: list[Note], clock: Clock, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    granian = Granian(cast(Any, application), cast(Any, None), Crew(), None)
    monkeypatch.setattr(granian, "_listener", listener)
    granian.renew(None)
    first = notes[0]
    granian._end_retired()
    assert first.said == []
    protocol = Protocol()
    first.handle(protocol, {})
    assert protocol.answer == (200, {"Content-Type": "text/plain"}, b"{}")
    granian.renew(None)
    assert first.said == ["stop accepting"]
    first.handle(protocol, {})
    assert protocol.answer == (200, {"Content-Type": "text/plain", "Connection": "close"}, b"{}")
    notes[1].handle(protocol, {})
    assert "Connection" not in protocol.answer[1]
    clock.now += 89  # the time after which a connection counts as idle, 75 s, and some more
    granian._end_retired()
    assert first.said == ["stop accepting"]
    clock.now += 2
    granian._end_retired()
    assert first.said == ["stop accepting", "stop"]
    first.ended.set()
    granian._end_retired()
    granian._end_retired()
    assert first.said == ["stop accepting", "stop", "close"]
    assert notes[1].said == []
    assert json.loads(protocol.answer[2]) == {}


def test_only_the_last_worker_accepts(
    notes: list[Note], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    granian = Granian(cast(Any, application), cast(Any, None), Crew(), None)
    monkeypatch.setattr(granian, "_listener", listener)
    for _ in range(4):
        granian.renew(None)
    assert [note.said for note in notes] == [["stop accepting"]] * 3 + [[]]


STOPPED_AT_ANY_LINE = """
import signal, sys, threading
from mlexporter import serving

class Worker:
    def __init__(self, *_, **__):
        self.ended = threading.Event()
        self.ended.set()

    def __getattr__(self, _):
        return lambda: None

class Application:
    ready = threading.Event()

class Reader:
    def hurry(self, _):
        pass

def stopped_at(line):
    left = line
    def trace(frame, event, _):
        nonlocal left
        left -= event == "line"
        if left == 0:
            signal.raise_signal(signal.SIGTERM)
        return trace
    granian = serving.Granian(Application(), Reader(), serving.Crew(), None)
    granian._end_retired = lambda: None  # which would find that nobody serves
    renew = granian.renew
    def renewed(tls):
        renew(tls)
        sys.settrace(trace)
        sys._getframe(1).f_trace = trace
    granian.renew = renewed
    granian.run("127.0.0.1", 0)
    sys.settrace(None)

serving.Worker = Worker
serving._give_up_later = lambda: None
serving._SIGNAL_SECONDS = 0.001
for line in range(1, 120):
    print(line, flush=True)
    stopped_at(line)
"""


def test_a_signal_may_come_at_any_line() -> None:
    """It interrupts the main thread, which may hold a lock just then."""
    command = [sys.executable, "-c", STOPPED_AT_ANY_LINE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "119"


# -- ticks ---------------------------------------------------------------------------------------------------------


class _Waits:
    """An event that moves the clock instead of waiting, and is set after so many times."""

    def __init__(self, clock: Clock, times: int) -> None:
        self.clock = clock
        self.left = times

    def wait(self, seconds: float) -> bool:
        self.clock.now += max(seconds, 0.0)
        self.left -= 1
        return self.left < 0


def test_ticks_keep_to_their_time_whatever_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0)
    monkeypatch.setattr("mlexporter.serving.time.monotonic", clock)
    begun: list[float] = []
    took = iter([4.0, 14.0, 40.0, 1.0, 0.0, 0.0])

    class Slow:
        def tick(self) -> None:
            begun.append(clock.now)
            clock.now += next(took)

    ticker = serving.Ticker(cast("Any", Slow()))
    ticker._stopped = cast("Any", _Waits(clock, 6))
    given_back: list[float] = []
    monkeypatch.setattr("mlexporter.memory.give_back", lambda: given_back.append(clock.now))
    ticker.run()
    # those that the third one was in the way of are one
    assert begun == [15.0, 30.0, 45.0, 85.0, 100.0, 115.0]
    assert given_back == [19.0, 44.0, 85.0, 86.0, 100.0, 115.0]
