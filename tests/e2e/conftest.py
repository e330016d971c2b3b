"""The real exporter, as a process of its own on a free port of this machine."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

READY_SECONDS = 20.0
STOP_SECONDS = 10.0

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
Start = Callable[..., "Exporter"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Exporter:
    """A running exporter."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self.session = requests.Session()
        self.session.trust_env = False

    def wait_until_ready(self) -> None:
        poll(lambda: self._is_ready(), READY_SECONDS, lambda: f"not ready: {self.log()}")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log()}"
        try:
            return self.get("/-/ready").status_code == 200
        except requests.ConnectionError:
            return False

    def get(self, path: str, **headers: str) -> requests.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(self.url + path, headers=given, timeout=20)

    def post(self, content: object, *, path: str = "/v1/samples", **headers: str) -> requests.Response:
        """Send samples; bytes as they are, anything else as JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        given = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.session.post(self.url + path, data=body, headers=given, timeout=60)

    def label(self, content: object, **headers: str) -> requests.Response:
        """Send labels, likewise."""
        return self.post(content, path="/v1/labels", **headers)

    def connect(self, timeout: float = 15.0) -> socket.socket:
        """A connection for requests that no HTTP client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def scrape(self) -> Series:
        """All series of the page."""
        return series_of(self.get("/metrics").text)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series of that name with these labels."""
        lines = self.get("/metrics").text.splitlines(keepends=True)
        page = "".join(line for line in lines if line.startswith((f"{name}{{", f"{name} ")))  # to read all takes long
        return sum_of(series_of(page), name, **labels)

    def memory(self, field: str = "VmRSS") -> float:
        """Resident memory in MiB, or with VmHWM the most it ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kilobytes) / 1024

    def log(self) -> str:
        return self._log.read_text()

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; returns the exit code and how many seconds it took."""
        start = time.monotonic()
        self.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        return code, time.monotonic() - start


def series_of(page: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def sum_of(series: Series, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (found, given), value in series.items() if found == name and given >= wanted)


def poll(condition: Callable[[], Any], seconds: float, complaint: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint()
        time.sleep(0.05)


def answer_of(connection: socket.socket) -> bytes:
    """One answer from a connection, whole or as far as it came; empty where the other side closed."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        if found and length and len(body) >= int(length[1]):
            return data
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return data
        if not part:
            return data
        data += part


def is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return bool(found and length and len(body) == int(length[1]))


@contextmanager
def exporters(folder: Path) -> Iterator[Start]:
    """Starts exporters, and ends them by their own process ids."""
    started: list[Exporter] = []

    def start(
        *options: str,
        program: Sequence[str] = ("-m", "mlexporter", "serve"),
        config: object = None,
        wait: bool = True,
        before: Callable[[], None] | None = None,
        prepare: Callable[[Exporter], None] = lambda _: None,
    ) -> Exporter:
        port, number = free_port(), len(started)
        if config is not None:
            path = folder / f"mlexporter-{number}.yml"
            path.write_text(json.dumps(config))  # which is YAML too
            options = (*options, f"--config.file={path}")
        log = folder / f"exporter-{number}.log"
        command = [sys.executable, *program, f"--web.listen-address=127.0.0.1:{port}", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder, preexec_fn=before)
        exporter = Exporter(process, port, log)
        prepare(exporter)
        started.append(exporter)
        if wait:
            exporter.wait_until_ready()
        return exporter

    try:
        yield start
    finally:
        for exporter in started:
            exporter.session.close()
            if exporter.process.poll() is None:
                exporter.send_signal(signal.SIGTERM)
            try:
                exporter.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                exporter.process.kill()
                exporter.process.wait()
    for exporter in started:
        assert "Traceback" not in exporter.log(), exporter.log()
        assert "level=error" not in exporter.log(), exporter.log()


@pytest.fixture
def start_exporter(tmp_path: Path) -> Iterator[Start]:
    with exporters(tmp_path) as start:
        yield start


@pytest.fixture
def exporter(start_exporter: Start) -> Exporter:
    """An exporter without a configuration: it learns what comes."""
    return start_exporter()
