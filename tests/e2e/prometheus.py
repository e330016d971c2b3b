"""The real Prometheus, and programs like it, as processes of their own on free ports of this machine."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from e2e.conftest import Exporter, free_port, poll
from mlexporter.demo.processes import Program, StopSignals
from mlexporter.demo.wire import Address

SECONDS = 30.0


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The value of the one series that an expression gives; None while there is none."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def becomes(self, expression: str, value: float) -> None:
        poll(
            lambda: self.value(expression) == value,
            SECONDS,
            lambda: f"{expression} is {self.value(expression)}, not {value}",
        )


def scraping(*targets: Exporter, **how: Any) -> dict[str, Any]:
    """A configuration that scrapes these exporters twice a second; `how` are more settings of the job."""
    addresses = [f"127.0.0.1:{target.port}" for target in targets]
    job = {"job_name": "mlexporter", "static_configs": [{"targets": addresses}], **how}
    return {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [job]}


def program(command: Sequence[str], url: str, log: Path) -> Program:
    """A program that as a context is ready, and is stopped by its own process id."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return Program(command[0], command, Address(host, int(port)), log, StopSignals())


@contextmanager
def running(folder: Path, config: object) -> Iterator[Prometheus]:
    """Run Prometheus in a folder, where its log is left as `prometheus.log`."""
    url = f"http://127.0.0.1:{free_port()}"
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={url.removeprefix('http://')}", f"--web.external-url={url}", "--log.level=warn",
    ]  # fmt: skip
    with program(command, url, folder / "prometheus.log"):
        yield Prometheus(url)
