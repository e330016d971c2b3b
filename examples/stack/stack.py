"""The whole way of a page, to be watched on one machine: `make stack`.

Two replicas of the demo's model, each with its exporter, and clean traffic that starts to drift, at last in its
concept; the truth, which goes to the exporter that saw the prediction; Prometheus with the rules as they are shipped;
Alertmanager; and a webhook that prints each notification as it comes. All of it runs on loopback in processes of its
own, and all of it is gone at the end.
"""

import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
from pages import Notification, Receiver, problems, told

from mlexporter.demo.data import DemoError, Split
from mlexporter.demo.model import MODEL, VERSION, Model
from mlexporter.demo.model_server import ModelServer, SamplePusher
from mlexporter.demo.processes import Exporter, Program, StopRequestedError, StopSignals, write_config
from mlexporter.demo.report import announce, say
from mlexporter.demo.stage import prepare
from mlexporter.demo.traffic import Client, LiveTraffic, Phase, Traffic
from mlexporter.demo.truth import LabelSender
from mlexporter.demo.wire import Address

RULES = Path(__file__).resolve().parents[2] / "prometheus" / "rules"
REPLICAS = 2
EXPORTER_PORTS = (9877, 9878)
PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093

WARM_UP_SECONDS = 60.0
# With --once: longer than a tick of the alarm, so that clean traffic could page by mistake.
ONCE_WARM_UP_SECONDS = 20.0
# A tick of 15 seconds, a scrape, an evaluation and a wait for company make half a minute; a busy machine takes longer.
PAGE_SECONDS = 120.0
# From the drift of the features to that of the concept: the first page is to come alone.
CONCEPT_AFTER_SECONDS = 120.0
# From a prediction to its label, least and most.
LABEL_DELAY_SECONDS = (5.0, 15.0)

PROMETHEUS_NAMES = ("prometheus",)
ALERTMANAGER_NAMES = ("prometheus-alertmanager", "alertmanager")  # Debian's, and everybody else's
INSTALL = """install them first:
  Debian, Ubuntu  sudo apt-get install prometheus prometheus-alertmanager
  macOS           brew install prometheus alertmanager
  elsewhere       https://prometheus.io/download/ (and put them on the PATH)"""


# -- what is there on this machine ------------------------------------------------------------------------------------


def find_programs() -> tuple[str, str]:
    """Prometheus and Alertmanager.

    Raises DemoError where one is missing, and says how to install it.
    """
    found = [next(filter(None, map(shutil.which, names)), None) for names in (PROMETHEUS_NAMES, ALERTMANAGER_NAMES)]
    prometheus, alertmanager = found
    if prometheus is None or alertmanager is None:
        missing = [name for name, path in zip(("prometheus", "alertmanager"), found, strict=True) if path is None]
        raise DemoError(f"not installed: {', '.join(missing)}; {INSTALL}")
    return prometheus, alertmanager


def pick_ports(given: Sequence[int | None], usual: Sequence[int]) -> list[int]:
    """A free port for each: the given one, any one where 0 is given, the usual one or any one where nothing is.

    Raises DemoError where a given port is taken.
    """
    with ExitStack() as held:  # all at once, so that none is picked twice

        def bind(port: int) -> int:
            bound: int = held.enter_context(socket.create_server(("127.0.0.1", port))).getsockname()[1]
            return bound

        picked = []
        for wanted, default in zip(given, usual, strict=True):
            try:
                picked.append(bind(default if wanted is None else wanted))
            except OSError as error:
                if wanted is not None:
                    raise DemoError(f"cannot listen at 127.0.0.1:{wanted}; is something else there?") from error
                picked.append(bind(0))
        return picked


# -- Prometheus and Alertmanager --------------------------------------------------------------------------------------


def alertmanager_config(receiver: str) -> dict[str, Any]:
    """One notification for each model; what is only to be looked at goes to nobody."""
    return {
        "route": {
            "receiver": "terminal",
            "group_by": ["namespace", "job", "model"],
            "group_wait": "10s",
            "group_interval": "30s",
            "repeat_interval": "4h",
            "routes": [{"matchers": ["severity = info"], "receiver": "nobody"}],
        },
        "receivers": [{"name": "terminal", "webhook_configs": [{"url": receiver}]}, {"name": "nobody"}],
    }


def prometheus_config(exporters: Sequence[Address], alertmanager: Address) -> dict[str, Any]:
    """The shipped rules as they are, looked at every five seconds."""
    targets = [f"{address.host}:{address.port}" for address in exporters]
    return {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "5s"},
        "rule_files": sorted(map(str, RULES.glob("*.yaml"))),
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"{alertmanager.host}:{alertmanager.port}"]}]}]
        },
        "scrape_configs": [{"job_name": "mlexporter", "static_configs": [{"targets": targets}]}],
    }


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that runs."""

    exporters: list[Exporter]
    prometheus: Program
    alertmanager: Program
    receiver: Receiver
    traffic: list[LiveTraffic]
    clients: list[Client]

    def check(self) -> None:
        """Raise DemoError if one of the programs is no longer there."""
        for program in (*self.exporters, self.prometheus, self.alertmanager):
            program.check()

    def notifications(self) -> list[Notification]:
        """Those that came since the last call, printed."""
        came = []
        while not self.receiver.notifications.empty():
            came.append(self.receiver.notifications.get())
            say("\n".join(told(came[-1])) + "\n")
        return came


def start(stack: ExitStack, ports: Sequence[int | None], seed: int, stop: StopSignals) -> Stack:
    """Start everything, to be stopped with `stack`.

    Args:
        stack: takes what has to be stopped.
        ports: given for the exporters, Prometheus and Alertmanager.
        seed: of the data and the traffic.
        stop: signals.

    """
    prometheus_path, alertmanager_path = find_programs()
    usual = (*EXPORTER_PORTS, PROMETHEUS_PORT, ALERTMANAGER_PORT)
    pick_ports(ports, usual)  # to say at once what is taken; picked when they are needed
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlexporter-stack-")))
    split, model = prepare(folder, seed, stop)
    *exporter_ports, prometheus_port, alertmanager_port = (
        Address("127.0.0.1", port) for port in pick_ports(ports, usual)
    )
    say("starting two exporters, Prometheus and Alertmanager ...")
    exporters = [_exporter(folder, number, address, stop) for number, address in enumerate(exporter_ports, 1)]
    for exporter in exporters:
        stack.enter_context(exporter)
    receiver = stack.enter_context(Receiver())
    (folder / "alertmanager.yml").write_text(json.dumps(alertmanager_config(receiver.url)), encoding="utf-8")
    alertmanager = Program(
        "Alertmanager",
        [
            alertmanager_path, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager",
            "--cluster.listen-address=", *_web(alertmanager_port),
        ],
        alertmanager_port, folder / "alertmanager.log", stop,
    )  # fmt: skip
    stack.enter_context(alertmanager)
    config = prometheus_config(exporter_ports, alertmanager_port)
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    prometheus = Program(
        "Prometheus",
        [
            prometheus_path, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus",
            *_web(prometheus_port),
        ],
        prometheus_port, folder / "prometheus.log", stop,
    )  # fmt: skip
    stack.enter_context(prometheus)
    served = [_replica(stack, split, model, address, seed + number) for number, address in enumerate(exporter_ports)]
    clients, traffic = map(list, zip(*served, strict=True))
    return Stack(exporters, prometheus, alertmanager, receiver, cast("list[LiveTraffic]", traffic), clients)


def _web(address: Address) -> tuple[str, str]:
    return f"--web.listen-address={address.host}:{address.port}", f"--web.external-url={address.url}"


def _exporter(folder: Path, number: int, address: Address, stop: StopSignals) -> Exporter:
    own = folder / f"exporter-{number}"
    own.mkdir()
    write_config(own / "mlexporter.yml", folder / "baseline.json", ("1h", "24h"))
    return Exporter(own / "mlexporter.yml", f"{address.host}:{address.port}", address, stop)


def _replica(stack: ExitStack, split: Split, model: Model, exporter: Address, seed: int) -> tuple[Client, LiveTraffic]:
    """A model server beside an exporter, clean traffic to it, and the truth to the exporter."""
    pusher = stack.enter_context(closing(SamplePusher(exporter)))
    labels = stack.enter_context(closing(LabelSender(exporter, seed, LABEL_DELAY_SECONDS)))
    server = stack.enter_context(closing(ModelServer(model, pusher)))
    client = stack.enter_context(closing(Client(server.address, labels)))
    live = stack.enter_context(closing(LiveTraffic(Traffic(split.live, seed), client)))
    pusher.start()
    labels.start()
    server.start()
    live.start()
    return client, live


# -- the run ----------------------------------------------------------------------------------------------------------


def where_to_look(running: Stack) -> None:
    """The addresses."""
    prometheus, alertmanager = running.prometheus, running.alertmanager
    lines = [
        *(f"  exporter      {one.address.url}/  (process {one.pid})" for one in running.exporters),
        f"  Prometheus    {prometheus.address.url}/alerts  (process {prometheus.pid})",
        f"  Alertmanager  {alertmanager.address.url}/  (process {alertmanager.pid})",
        f"                or: amtool --alertmanager.url={alertmanager.address.url} alert",
    ]
    say("\nOpen:\n\n" + "\n".join(lines))
    say(
        f"""
Queries to try in Prometheus:

  fleet:mlexporter_column_drift_log_margin:max{{model="{MODEL}",version="{VERSION}",tier="page"}}
  mlexporter_column_psi{{window="1h"}}
  mlexporter_performance_accuracy_ratio{{window="1h"}}
  mlexporter_performance_gap_accuracy_ratio{{window="1h"}}
"""
    )


def run(*, once: bool, warm_up: float | None, ports: Sequence[int | None], seed: int, drift: bool) -> int:
    """Run the stack; gives the exit code.

    Raises DemoError where something is missing or broken, and says what.
    """
    if warm_up is None:
        warm_up = ONCE_WARM_UP_SECONDS if once else WARM_UP_SECONDS
    with StopSignals() as stop:
        try:
            with ExitStack() as stack:
                running = start(stack, ports, seed, stop)
                where_to_look(running)
                say(f"Clean traffic for {warm_up:.0f} s{'' if once else '; Ctrl-C ends it all'}.\n")
                early = _watch(running, stop, warm_up)
                if drift:
                    _enter(running, Phase.FEATURES)
                if once:
                    return _first_page(running, stop, early)
                say("\nThe page should come within a minute, and be printed here.\n")
                if drift:
                    _watch(running, stop, CONCEPT_AFTER_SECONDS)
                    _enter(running, Phase.CONCEPT)
                    say()
                _watch(running, stop, None)
                return 0
        except StopRequestedError:
            say("stopped")
            return 128 + (stop.received or 0) if once else 0


def _enter(running: Stack, phase: Phase) -> None:
    """Let it go wrong in all replicas."""
    announce(phase)
    for traffic in running.traffic:
        traffic.enter(phase)


def _watch(running: Stack, stop: StopSignals, seconds: float | None) -> list[Notification]:
    """Print notifications as they come, for so many seconds or until it is time to end."""
    end = None if seconds is None else time.monotonic() + seconds
    came = []
    while end is None or time.monotonic() < end:
        stop.wait(0.2)
        running.check()
        came += running.notifications()
    return came


def _first_page(running: Stack, stop: StopSignals, early: Sequence[Notification]) -> int:
    """Wait for the first page; 0 if it is as it should be, and none came before the drift."""
    say(f"\nwaiting for the page, {PAGE_SECONDS:.0f} s at most ...\n")
    began = time.monotonic()
    pages: list[Notification] = []
    while not pages and time.monotonic() - began < PAGE_SECONDS:
        pages = [one for one in _watch(running, stop, 0.2) if one["status"] == "firing"]
    took = time.monotonic() - began
    failed = sum(client.failed for client in running.clients)
    found = [
        *(["somebody was paged before there was any drift"] if early else []),
        *([f"{failed:,} flights got no prediction"] if failed else []),
        *(problems(pages[0]) if pages else [f"no page in {took:.0f} s"]),
    ]
    if found:
        say("FAILED\n  " + "\n  ".join(found))
        return 1
    say(f"OK: paged {took:.0f} s after the drift began")
    return 0


@click.command()
@click.option("--once", is_flag=True, help="End after the first page: exit 0 only if it came and is about the drift.")
@click.option("--warm-up", type=click.FloatRange(min=0), default=None, help="Seconds of clean traffic. Default: 60.")
@click.option(
    "--exporter-ports",
    type=click.IntRange(0, 65535),
    nargs=REPLICAS,
    default=None,
    help="Ports of the two exporters; 0 is any free one. Default: 9877 and 9878, or free ones where they are taken.",
)
@click.option("--prometheus-port", type=click.IntRange(0, 65535), default=None, help="The same. Default: 9090.")
@click.option("--alertmanager-port", type=click.IntRange(0, 65535), default=None, help="The same. Default: 9093.")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Of the data and the traffic.")
@click.option("--no-drift", is_flag=True, hidden=True, help="Leave the traffic clean: --once then has to fail.")
def main(
    once: bool,
    warm_up: float | None,
    exporter_ports: tuple[int, int] | None,
    prometheus_port: int | None,
    alertmanager_port: int | None,
    seed: int,
    no_drift: bool,
) -> None:
    """Watch a page arrive: exporters, traffic that drifts, Prometheus, Alertmanager, and who is paged."""
    ports = (*(exporter_ports or (None,) * REPLICAS), prometheus_port, alertmanager_port)
    raise SystemExit(run(once=once, warm_up=warm_up, ports=ports, seed=seed, drift=not no_drift))


if __name__ == "__main__":
    # Line by line also into a pipe: a page is to be seen when it comes.
    cast(Any, sys.stdout).reconfigure(line_buffering=True)
    main(prog_name="make stack")
