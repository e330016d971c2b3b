"""What SECURITY.md says of hostile clients, where no other test shows it."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path

from e2e.conftest import Exporter, Start, answer_of

TOKEN = "0123456789abcdef"
SAMPLE = {"model": "churn", "features": {"age": 1}}


def test_scrapers_that_do_not_read_hold_up_nobody(exporter: Exporter) -> None:
    """Each of them asks for far more than its connection holds, and reads none of it."""
    exporter.post(SAMPLE)
    page = len(exporter.get("/metrics").content)
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(40):  # more than there are threads
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", exporter.port))
            connection.settimeout(5)
            connection.sendall(request * (16 * 1024 * 1024 // page))
        for _ in range(20):
            assert exporter.get("/metrics").status_code == 200
            assert exporter.get("/-/healthy").status_code == 200
            assert exporter.post(SAMPLE).json()["accepted"] == 1


def test_a_client_without_credentials_is_refused_before_its_body_comes(tmp_path: Path, start_exporter: Start) -> None:
    token = {"name": "model", "token": TOKEN, "permissions": ["push"]}
    (tmp_path / "web.yml").write_text(json.dumps({"bearer_tokens": [token]}))
    exporter = start_exporter("--web.config.file=web.yml")
    head = "POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n"
    for authorization, code in (("", b"401"), ("Authorization: Bearer 0123456789abcdeF\r\n", b"401")):
        with exporter.connect() as connection:
            connection.sendall(f"{head}{authorization}\r\n".encode())
            assert answer_of(connection).split(b" ")[1] == code
    # what follows such an answer is no request of anybody
    with exporter.connect() as connection:
        inner = f"POST /v1/samples HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(f"{head.replace('15000000', str(len(inner)))}\r\n{inner}".encode())
        first = answer_of(connection)
        connection.shutdown(socket.SHUT_WR)
        rest = answer_of(connection)
    assert first.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1" not in first[10:] + rest
