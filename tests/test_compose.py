"""docker-compose.yml and what it mounts: no container engine is needed to see that the parts fit."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import needs
from dashboards import FOLDER, UIDS
from image import stages
from mlexporter.cli import main

ROOT = Path(__file__).parents[1]
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Mapping[str, Any] = COMPOSE["services"]
PROVISIONING = ROOT / "grafana" / "provisioning"
EXPORTERS = ("exporter-1", "exporter-2")

each_service = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> Iterator[tuple[str, str]]:
    """What is mounted into a service, and where."""
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *_ = volume.split(":")
        yield source, target


def as_mounted(name: str, root: Path) -> Path:
    """The files of a service as its container sees them, under `root`."""
    for source, target in mounts(name):
        if source.startswith("."):
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, place)
    return root


def served(address: str) -> bool:
    """Whether host and port are those of a service here."""
    ports = {"prometheus": "9090", "alertmanager": "9093", "grafana": "3000", **dict.fromkeys(EXPORTERS, "9877")}
    host, _, port = address.rpartition(":")
    return ports.get(host) == port


@each_service
def test_everything_that_is_mounted_exists(name: str) -> None:
    for source, target in mounts(name):
        assert target.startswith("/")
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source


@each_service
def test_images_are_built_here_or_pinned(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or re.fullmatch(r"[\w.-]+/[\w.-]+:v?\d+\.\d+\.\d+", service["image"])


def test_the_image_of_the_traffic_fits_that_of_the_exporter() -> None:
    """The same base and user: what the one writes into the volume, the other reads."""
    arguments, (*_, exporter) = stages()
    assert SERVICES["exporter-1"]["build"] == "."
    build = SERVICES["traffic"]["build"]
    dockerfile = (ROOT / build["context"] / build["dockerfile"]).read_text(encoding="utf-8")
    _, (traffic,) = stages(dockerfile)
    assert traffic.base == arguments["PYTHON_IMAGE"]
    assert traffic.one("USER") == exporter.one("USER") == "65532:65532"
    (folder,) = {target for source, target in mounts("traffic") if not source.startswith(".")}
    assert f"install -d -o 65532 -g 65532 {folder}" in traffic.one("RUN")
    for step in traffic.all("COPY"):
        assert all((ROOT / build["context"] / name).exists() for name in step.split()[:-1])


@each_service
def test_nothing_listens_outside_of_this_machine(name: str) -> None:
    ports = SERVICES[name].get("ports", ())
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_no_port_is_taken_twice() -> None:
    taken = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(taken) == len(set(taken))


@each_service
def test_what_a_service_waits_for_exists(name: str) -> None:
    assert set(SERVICES[name].get("depends_on", ())) <= SERVICES.keys()


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_exporters_are_started_with_options_that_exist(name: str) -> None:
    command, *options = SERVICES[name]["command"]
    known = {option for parameter in main.commands[command].params for option in parameter.opts}
    assert {option.split("=")[0] for option in options} <= known


def test_the_traffic_goes_to_the_exporters_and_waits_for_nobody() -> None:
    service = SERVICES["traffic"]
    told = [option.split("=")[1] for option in service["command"] if option.startswith("--exporter=")]
    assert told == [f"{name}:9877" for name in EXPORTERS]
    written = service["healthcheck"]["test"][-1]
    assert all(f"--config.file={written}" in SERVICES[name]["command"] for name in EXPORTERS)


@needs("promtool")
def test_promtool_accepts_the_configuration_and_its_rules(promtool: str, tmp_path: Path) -> None:
    config = as_mounted("prometheus", tmp_path) / "etc" / "prometheus" / "prometheus.yml"
    done = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(list((ROOT / "prometheus" / "rules").glob("*.yaml")))


def test_prometheus_knows_everybody() -> None:
    config = yaml.safe_load((ROOT / "examples/compose/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{name}:9877" for name in EXPORTERS]
    (alertmanager,) = config["alerting"]["alertmanagers"]
    assert all(map(served, alertmanager["static_configs"][0]["targets"]))
    assert config["global"]["external_labels"]["grafana_url"] == "http://localhost:3000"
    assert "127.0.0.1:3000:3000" in SERVICES["grafana"]["ports"]


@needs("amtool")
def test_amtool_accepts_the_configuration(tmp_path: Path) -> None:
    config = as_mounted("alertmanager", tmp_path) / "etc" / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(["amtool", "check-config", config], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# -- what Grafana is provisioned with ----------------------------------------------------------------------------------


def test_grafana_finds_the_dashboards(tmp_path: Path) -> None:
    root = as_mounted("grafana", tmp_path)
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "mlexporter.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    found = root / provider["options"]["path"].lstrip("/")
    assert {path.stem for path in found.glob("*.json")} == UIDS.keys()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (root / home.lstrip("/")).read_bytes() == (FOLDER / "fleet.json").read_bytes()
    assert (root / "etc/grafana/provisioning/datasources").is_dir()


def test_the_data_source_is_the_prometheus_that_runs() -> None:
    config = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    (source,) = config["datasources"]
    assert served(source["url"].removeprefix("http://"))
    scraping = yaml.safe_load((ROOT / "examples/compose/prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
