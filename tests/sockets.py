"""Both sides of a connection, and what the kernel tells of them."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from mlexporter import backlog
from mlexporter.backlog import Connection

DEADLINE = 10.0

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def connected() -> Iterator[Pair]:
    """A client and the server's side of its connection; neither waits for longer than the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=DEADLINE)
        server, _ = listener.accept()
        server.settimeout(DEADLINE)
        with client, server:
            yield client, server


def of(side: socket.socket) -> Connection:
    """What the kernel tells of a side."""
    found = backlog.told_of(side.fileno())
    assert found is not None
    return found
