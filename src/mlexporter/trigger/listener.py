"""The HTTP server, by the standard library: some requests a minute come, from Alertmanager and from Prometheus.

A connection is one request, has a time by which it ends, and there is a bound on how many there are.
"""

import io
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

from mlexporter.logs import where
from mlexporter.trigger.app import Incoming, TriggerApplication

logger = logging.getLogger(__name__)

CONNECTION_SECONDS: Final = 15.0
MAX_CONNECTIONS: Final = 64
_DRAINED: Final = 4 * 1024**2  # bytes of a body that nobody asked for, read so that the client can read the answer
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _TimedSocket(io.RawIOBase):
    """Reads from a socket until a deadline, however slowly the bytes come."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version = "mlexporter"
    sys_version = ""
    server: "Listener"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_TimedSocket(self.connection, time.monotonic() + self.server.seconds))
        self._read = 0

    def _handle(self) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length")
        incoming = Incoming(
            method=self.command,
            path=self.path.partition("?")[0],
            body=self._body,
            authorization=self.headers.get("Authorization", ""),
            accept=self.headers.get("Accept", ""),
            length=None if "Transfer-Encoding" in self.headers else length,
        )
        reply = self.server.application.answer(incoming)
        self.send_response(reply.code)
        for name, value in (*reply.headers, ("Content-Length", str(len(reply.body))), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()
        self._drain(length)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _handle  # noqa: N815 - the base's names

    def _body(self, length: int) -> bytes:
        body = self.rfile.read(length)
        self._read = len(body)
        if len(body) < length:
            raise EOFError
        return body

    def _drain(self, length: str | None) -> None:
        """Read what was sent and not read: closed before that, the client may lose the answer."""
        if length is not None and length.isascii() and length.isdigit():
            self.rfile.read(min(int(length[:15]) - self._read, _DRAINED))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: requests are counted, and refusals logged where they are made."""


class Listener(ThreadingMixIn, TCPServer):
    """Listens on an address.

    Args:
        application: what answers.
        ip: an IPv4 or IPv6 address.
        port: 0 for any that is free.
        seconds: by when a connection ends.

    Raises:
        OSError: nothing can listen there.

    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, application: TriggerApplication, ip: str, port: int, seconds: float = CONNECTION_SECONDS
    ) -> None:
        self.application = application
        self.seconds = seconds
        self.address_family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((ip, port), _Handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or, where there are too many, at once and the same to all."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.settimeout(0.1)
            request.sendall(_BUSY)
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are slow or leave are no news; all else is a bug."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            logger.error("connection failed", extra={"error": where(error)})
