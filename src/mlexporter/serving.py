"""Runs the application under a server, in this one process, until a signal ends it."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from granian._futures import _new_cbscheduler
from granian._granian import ListenerSpec, WorkerSignal, WSGIWorker
from granian.http import HTTP1Settings

from mlexporter.crew import Crew
from mlexporter.logs import where
from mlexporter.server import Application
from mlexporter.slow_clients import BodyReader
from mlexporter.store import Store

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 15.0
# Threads of Python, one of which is at work (see crew), and how many of them may read bodies at once.
THREADS: Final = 10
BODIES_AT_ONCE: Final = 7
_NEVER: Final = 10**9
# This closes connections that are idle between requests too, so it is longer than clients pause.
HEADER_TIMEOUT_MS: Final = 75_000
BACKLOG: Final = 1024
_M_ARENA_MAX: Final = -8
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


class Granian:
    """granian's HTTP worker, in this process.

    The granian command forks its worker from a master, and replaces it on SIGHUP: the state would go with it, and every
    page of it would be paid for twice. The worker itself is a Rust class that calls a function with each request, in
    threads of Python that it makes as requests queue up.
    """

    def __init__(self, application: Application, reader: BodyReader, crew: Crew) -> None:
        self._application = application
        self._reader = reader
        self._crew = crew
        self._base = {
            "SCRIPT_NAME": "",
            "wsgi.errors": sys.stderr,
            "wsgi.input_terminated": True,
            "wsgi.multiprocess": False,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.version": (1, 0),
        }
        self._signal = WorkerSignal()

    def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT."""
        ended = threading.Event()
        self._signal.add_cb(ended.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, _stay)
        loop = asyncio.new_event_loop()  # granian asks for one and leaves it alone
        worker = WSGIWorker(  # type: ignore[call-arg]
            worker_id=1,
            sock=(ListenerSpec(host, port, BACKLOG), None),
            ipc=None,
            threads=1,
            blocking_threads=4,
            py_threads=THREADS,
            # a resting thread must not be taken for one that has ended
            py_threads_idle_timeout=_NEVER,
            backpressure=BACKLOG,
            http_mode="1",
            http1_opts=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
            metrics=(None, None),
        )
        scheduler = _new_cbscheduler(loop, self._handle, impl_asyncio=True)  # type: ignore[no-untyped-call]
        serve = worker.serve_mtr  # type: ignore[attr-defined]
        server = threading.Thread(name="server", target=serve, args=(scheduler, loop, self._signal))
        server.start()
        # The system may hand a signal to any thread, and Python runs its handler in this one, once it wakes.
        while not ended.wait(_SIGNAL_SECONDS):
            pass
        server.join()
        loop.close()

    def _stop(self, _: int, __: FrameType | None) -> None:
        """Finish what was begun, within seconds."""
        logger.info("stopping")
        self._application.ready.clear()
        self._reader.hurry(_DRAIN_SECONDS)
        _give_up_later()
        self._signal.set()
        self._crew.dismiss()

    def _handle(self, protocol: Any, scope: dict[str, Any]) -> None:
        """Answer a request."""
        self._crew.arrive()
        status = self._answer(protocol, self._base | scope)
        # A thread that rests keeps nothing of the request. If it was refused its body may not have been read, and its
        # connection stays open until this thread is back.
        scope.clear()
        self._crew.depart(rest=status < 300)

    def _answer(self, protocol: Any, environ: dict[str, Any]) -> int:
        started = _Started()
        body = b"".join(self._application(environ, started))
        protocol.response_bytes(started.status, started.headers, body)
        return started.status


def _stay(_: int, __: FrameType | None) -> None:
    logger.info("SIGHUP ignored: there is nothing to reload")


def _give_up_later() -> None:
    """End the process even if a request never ends."""

    def give_up() -> None:
        logger.error("a request did not end in time; leaving without it")
        os._exit(1)

    timer = threading.Timer(_GIVE_UP_SECONDS, give_up)
    timer.daemon = True
    timer.start()


def serve_granian(application: Application, reader: BodyReader, crew: Crew, host: str, port: int) -> None:
    """Serve with granian until a signal ends it."""
    Granian(application, reader, crew).run(host, port)


def serve_waitress(application: Application, _: BodyReader, __: Crew, host: str, port: int) -> None:
    """Serve with waitress (pure Python, extra `[waitress]`) until a signal ends it."""
    import waitress

    server = waitress.create_server(application, host=host, port=port, threads=8, ident=None, channel_timeout=30)

    def stop(*_: object) -> None:
        logger.info("stopping")
        application.ready.clear()
        _give_up_later()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, _stay)
    try:
        server.run()
    finally:
        server.close()


def tune_memory() -> None:
    """Fit the garbage collector and the allocator to a process that decodes JSON in many threads.

    A request makes thousands of containers that die with it: with the default threshold they set off a collection
    every few hundred, which costs a quarter of the decoding. And glibc gives each thread an arena of its own, which
    keeps what it once needed: two arenas serve as well, for Python's lock lets one thread allocate at a time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


class Ticker:
    """Calls `store.tick()` every 15 seconds, never on a scrape."""

    def __init__(self, store: Store, seconds: float = TICK_SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Tick until `stop`; to be run in a thread of its own. A late tick is one tick."""
        while not self._stopped.wait(self._seconds):
            try:
                self._store.tick()
            except Exception as error:  # noqa: BLE001 - a bug in one tick must not end the next ones
                logger.error("tick failed", extra={"error": where(error)})

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep the process alive."""
    thread = threading.Thread(name=name, target=target, daemon=True)
    thread.start()
    return thread
