"""Runs the application under a server, in this one process, until a signal ends it."""

import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from mlexporter import memory
from mlexporter.authentication import FOLLOWERS, PLACES
from mlexporter.crew import Crew
from mlexporter.guard import Guard, Wsgi
from mlexporter.http_worker import HEADER_TIMEOUT_MS, Worker, listen
from mlexporter.logs import where
from mlexporter.server import Application
from mlexporter.slow_clients import BodyReader
from mlexporter.store import Store
from mlexporter.tls import Material
from mlexporter.web_access import WebAccess

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 15.0
# Threads of Python, one of which is at work (see crew), and how many of them may read bodies at once.
THREADS: Final = 10
BODIES_AT_ONCE: Final = 7
# A server that another one has taken over from: by then its connections are closed, after their next answer or as idle.
_RETIRED_SECONDS: Final = HEADER_TIMEOUT_MS / 1000 + 15.0
_SIGNAL_SECONDS: Final = 0.1
_DRAIN_SECONDS: Final = 1.0
_GIVE_UP_SECONDS: Final = 4.5


class _Started:
    """WSGI's start_response: keeps what it is told."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[str, str]] = []

    def __call__(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = int(status.split(" ", 1)[0]), headers


class _Server:
    """A worker and its crew. Retired, it closes each connection with the answer to its next request."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.worker: Worker | None = None
        self.retired_at: float | None = None

    def stop(self) -> None:
        assert self.worker is not None
        self.worker.stop()
        self.crew.dismiss()


class Granian:
    """granian's HTTP worker, in this process.

    The granian command forks its worker from a master, and replaces it on SIGHUP: the state would go with it, and every
    page of it would be paid for twice. The worker itself is a Rust class that calls a function with each request, in
    threads of Python that it makes as requests queue up.

    It reads certificates once. With a new one a new worker is made, which listens on the same socket, and the old one
    is left to finish: that is how Prometheus's servers do it too, for which a certificate is that of a connection.
    """

    def __init__(self, application: Application, reader: BodyReader, crew: Crew, access: WebAccess | None) -> None:
        self._application = application
        self._reader = reader
        self._crew = crew
        self._access = access
        self._answering: Wsgi = application
        if access is not None:
            self._answering = Guard(application, access.rules, access.telemetry)
        self._base = {
            "SCRIPT_NAME": "",
            "wsgi.errors": sys.stderr,
            "wsgi.input_terminated": True,
            "wsgi.multiprocess": False,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.version": (1, 0),
        }
        self._lock = threading.Lock()
        self._servers: list[_Server] = []
        self._listener: socket.socket | None = None
        self._signalled = False
        self._stopping = threading.Event()

    def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT."""
        _on_end(self._note_signal)
        self._listener = listen(host, port)
        self.renew(self._access.tls if self._access is not None else None)
        if self._access is not None:
            self._access.on_new_tls(self.renew)
        # The system may hand a signal to any thread, and Python runs its handler in this one, once it wakes.
        while not (self._signalled or self._stopping.wait(_SIGNAL_SECONDS)):
            self._end_retired()
        self._begin_to_end()
        with self._lock:
            for server in self._servers:
                server.stop()
        for server in self._servers:
            assert server.worker is not None
            while not server.worker.ended.wait(_SIGNAL_SECONDS):
                pass
        self._listener.close()

    def renew(self, tls: Material | None) -> None:
        """Serve new connections with this certificate from now on."""
        threads = THREADS + (PLACES + FOLLOWERS if self._access is not None else 0)  # those may all wait
        with self._lock:
            if self._stopping.is_set():
                return
            assert self._listener is not None
            server = _Server(self._crew if not self._servers else self._crew.another())
            handle = functools.partial(self._handle, server)
            server.worker = Worker(self._listener, handle, threads=threads, tls=tls)
            for before in self._servers:
                if before.retired_at is None:
                    assert before.worker is not None
                    before.worker.stop_accepting()
                    before.retired_at = time.monotonic()
            self._servers.append(server)

    def _end_retired(self) -> None:
        """End workers whose connections are gone."""
        with self._lock:
            for server in self._servers.copy():
                assert server.worker is not None
                if server.worker.ended.is_set():
                    if server.retired_at is None:
                        self._stopping.set()  # nobody serves: whoever started the process starts it again
                    self._crew.disband(server.crew)
                    server.worker.close()
                    self._servers.remove(server)
                elif server.retired_at is not None and time.monotonic() > server.retired_at + _RETIRED_SECONDS:
                    server.stop()

    def _note_signal(self, _: int, __: FrameType | None) -> None:
        """A handler may interrupt whoever holds a lock, so it takes none."""
        self._signalled = True

    def _begin_to_end(self) -> None:
        """Finish what was begun, within seconds."""
        logger.info("stopping")
        self._application.ready.clear()
        self._reader.hurry(_DRAIN_SECONDS)
        _give_up_later()
        self._stopping.set()

    def _handle(self, server: _Server, protocol: Any, scope: dict[str, Any]) -> None:
        """Answer a request."""
        server.crew.arrive()
        status = self._answer(protocol, self._base | scope, closing=server.retired_at is not None)
        # A thread that rests keeps nothing of the request. If it was refused its body may not have been read, and its
        # connection stays open until this thread is back.
        scope.clear()
        server.crew.depart(rest=status < 300)

    def _answer(self, protocol: Any, environ: dict[str, Any], *, closing: bool) -> int:
        started = _Started()
        body = b"".join(self._answering(environ, started))
        headers = [*started.headers, ("Connection", "close")] if closing else started.headers
        protocol.response_bytes(started.status, headers, body)
        return started.status


def hold_signals() -> None:
    """Have signals that end the process come again and again, until there are the handlers of a server for them."""

    def later(number: int, _: FrameType | None) -> None:
        # no thread: starting one takes a lock, which whoever is interrupted may hold
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _SIGNAL_SECONDS)

    _on_end(later)


def _on_end(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _give_up_later() -> None:
    """End the process even if a request never ends."""

    def give_up() -> None:
        logger.error("a request did not end in time; leaving without it")
        os._exit(1)

    timer = threading.Timer(_GIVE_UP_SECONDS, give_up)
    timer.daemon = True
    timer.start()


def serve_granian(
    application: Application, reader: BodyReader, crew: Crew, access: WebAccess | None, host: str, port: int
) -> None:
    """Serve with granian until a signal ends it."""
    Granian(application, reader, crew, access).run(host, port)


def serve_waitress(
    application: Application, reader: BodyReader, _: Crew, access: WebAccess | None, host: str, port: int
) -> None:
    """Serve with waitress (pure Python, extra `[waitress]`), which has no TLS, until a signal ends it."""
    import waitress

    guarded = application if access is None else Guard(application, access.rules, access.telemetry)
    threads = 8 + (PLACES + FOLLOWERS if access is not None else 0)
    server = waitress.create_server(
        guarded,
        host=host,
        port=port,
        threads=threads,
        ident=None,
        channel_timeout=30,
        # It keeps whole bodies, in files if they are large, before anybody asks whose they are. What is a little too
        # large gets a better answer of ours.
        max_request_body_size=2 * reader.limit,
    )

    def stop(*_: object) -> None:
        _on_end(signal.SIG_IGN)
        logger.info("stopping")
        application.ready.clear()
        _give_up_later()
        raise SystemExit(0)

    with contextlib.closing(server), contextlib.suppress(SystemExit):
        _on_end(stop)
        server.run()


class Ticker:
    """Calls `store.tick()` every 15 seconds, never on a scrape, and gives back memory that requests left."""

    def __init__(self, store: Store, seconds: float = TICK_SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Tick until `stop`; to be run in a thread of its own. A late tick is one tick; the next is in time again."""
        due = time.monotonic() + self._seconds
        while not self._stopped.wait(due - time.monotonic()):
            due += self._seconds
            if due <= (now := time.monotonic()):
                due = now + self._seconds
            try:
                self._store.tick()
            except Exception as error:  # noqa: BLE001 - a bug in one tick must not end the next ones
                logger.error("tick failed", extra={"error": where(error)})
            memory.give_back()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep the process alive."""
    thread = threading.Thread(name=name, target=target, daemon=True)
    thread.start()
    return thread
