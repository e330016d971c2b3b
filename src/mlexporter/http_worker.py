"""granian's HTTP worker in this process, and how one takes over from another without a lost request."""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian.http import HTTP1Settings

from mlexporter.connections import MOST
from mlexporter.tls import Material, as_files

_NEVER: Final = 10**9
# This closes connections that are idle between requests too, so it is longer than clients pause.
HEADER_TIMEOUT_MS: Final = 75_000
BACKLOG: Final = 1024
HEADER_BYTES: Final = 64 << 10
"""Of a request, all headers together; also what is read of a body in one go."""
_SO_ATTACH_FILTER: Final = 26  # of Linux, as is struct sock_fprog
_BPF_RETURN: Final = 0x06

Handle = Callable[[Any, dict[str, Any]], None]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an IP address and port.

    Raises:
        OSError: nothing can listen there.

    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _unreachable() -> socket.socket:
    """A socket that listens, and drops whatever comes, where the system can do that."""
    listener = socket.socket()
    program = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))  # of each packet, 0 bytes
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    listener.setblocking(False)
    return listener


class Worker:
    """A worker that takes connections from a listening socket; it is at work once this returns.

    Args:
        listener: stays the caller's.
        handle: is called with each request, in threads of Python that the worker makes as requests queue up.
        threads: most of them.
        tls: plain HTTP without it. It was checked with `tls.problem_with`: the worker ends the process over a bad one.

    """

    def __init__(self, listener: socket.socket, handle: Handle, *, threads: int, tls: Material | None = None) -> None:
        self.ended = threading.Event()
        self._stopped = False
        self._signal = WorkerSignal()
        self._signal.add_cb(self.ended.set)
        self._descriptor = os.dup(listener.fileno())  # which the worker closes
        loop = asyncio.new_event_loop()  # granian asks for one and leaves it alone
        self._loop = loop
        scheduler = _new_cbscheduler(loop, handle, impl_asyncio=True)  # type: ignore[no-untyped-call]
        with contextlib.ExitStack() as stack:
            files = stack.enter_context(as_files(tls)) if tls is not None else None
            worker = WSGIWorker(  # type: ignore[call-arg]
                worker_id=1,
                sock=(None, SocketHolder(self._descriptor, False, BACKLOG)),  # type: ignore[call-arg]
                ipc=None,
                threads=1,
                blocking_threads=4,
                py_threads=threads,
                # a resting thread must not be taken for one that has ended
                py_threads_idle_timeout=_NEVER,
                backpressure=MOST,
                http_mode="1",
                http1_opts=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEADER_BYTES),
                ssl_enabled=files is not None,
                ssl_cert=files.certificate if files else None,
                ssl_key=files.key if files else None,
                ssl_key_password=None,
                ssl_protocol_min=tls.minimum if tls else "tls1.3",
                ssl_ca=files.client_ca if files else None,
                ssl_crl=[],
                ssl_client_verify=bool(tls and tls.required),
                metrics=(None, None),
            )
            serve = worker.serve_mtr  # type: ignore[attr-defined]
            server = threading.Thread(name="server", target=serve, args=(scheduler, loop, self._signal))
            server.start()
            server.join()  # it has begun to serve, in threads of its own

    def stop_accepting(self) -> None:
        """Leave new connections to others that listen on the same socket; those that are there go on.

        The worker cannot be told, but its descriptor of the listening socket can be made one of a socket to which
        nobody can connect. What waits in the queue of the real one is taken by another worker.
        """
        with _unreachable() as nowhere:  # of the same kind, as the worker may not have begun to listen yet
            os.dup2(nowhere.fileno(), self._descriptor, inheritable=False)

    def stop(self) -> None:
        """Finish what was begun, then end; `ended` tells when. Idle connections are closed."""
        if not self._stopped:  # a second signal would find nobody to take it, and wait
            self._stopped = True
            self._signal.set()

    def close(self) -> None:
        """Give back what the worker held, once it has ended."""
        self._loop.close()


def probe(certificate: str, key: str, client_ca: str, minimum: str) -> None:
    """Begin to serve TLS with these files, where nobody connects, and end the process: with 0 if it went well."""

    def content(path: str) -> bytes:
        with open(path, "rb") as file:  # noqa: PTH123 - a descriptor's path, which must not be resolved
            return file.read()

    listener = listen("127.0.0.1", 0)
    authorities = content(client_ca) if client_ca else None
    assert minimum in ("tls1.2", "tls1.3")
    material = Material(content(certificate), content(key), authorities, authorities is not None, minimum)  # type: ignore[arg-type]
    Worker(listener, lambda *_: None, threads=1, tls=material)
    os._exit(0)
