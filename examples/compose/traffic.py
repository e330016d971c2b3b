"""The demo's traffic for docker-compose.yml: trains the model, writes what the exporters need, then keeps them busy.

It writes `baseline.json` and, last of all, `mlexporter.yml`; the exporters start when that is there.
"""

import time
from contextlib import ExitStack, closing
from pathlib import Path

import click

from mlexporter.demo.data import Split
from mlexporter.demo.model import Model
from mlexporter.demo.model_server import ModelServer, SamplePusher
from mlexporter.demo.processes import StopRequestedError, StopSignals, write_config
from mlexporter.demo.report import announce, say
from mlexporter.demo.stage import prepare
from mlexporter.demo.traffic import Client, LiveTraffic, Phase, Traffic
from mlexporter.demo.truth import LabelSender
from mlexporter.demo.wire import Address, Connection

WINDOWS = ("1h", "24h")
# From a prediction to its label, least and most.
LABEL_DELAY_SECONDS = (5.0, 60.0)
POLL_SECONDS = 0.5


def wait_until_ready(exporter: Address, stop: StopSignals) -> None:
    """Wait for an exporter, which starts when its configuration is there.

    Raises StopRequestedError where it is time to end.
    """
    with Connection(exporter) as connection:
        while True:
            try:
                if connection.get("/-/ready").status == 200:
                    return
            except OSError:
                pass  # it does not listen yet
            stop.wait(POLL_SECONDS)


def replica(stack: ExitStack, split: Split, model: Model, exporter: Address, seed: int) -> LiveTraffic:
    """A model server for one exporter, clean traffic to it, and the truth to the exporter."""
    pusher = stack.enter_context(closing(SamplePusher(exporter)))
    labels = stack.enter_context(closing(LabelSender(exporter, seed, LABEL_DELAY_SECONDS)))
    server = stack.enter_context(closing(ModelServer(model, pusher)))
    client = stack.enter_context(closing(Client(server.address, labels)))
    live = stack.enter_context(closing(LiveTraffic(Traffic(split.live, seed), client)))
    for each in (pusher, labels, server, live):
        each.start()
    return live


def addresses(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[Address]:
    """Each `host:port` as an address.

    Raises click.BadParameter where one is none.
    """
    found = []
    for text in given:
        host, _colon, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65535:
            raise click.BadParameter(f"{text!r} is not host:port")
        found.append(Address(host, int(port)))
    return found


@click.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    required=True,
    help="Of the exporters.",
)
@click.option(
    "--exporter",
    "exporters",
    metavar="HOST:PORT",
    multiple=True,
    required=True,
    callback=addresses,
    help="Once for each.",
)
@click.option("--features-drift-after", metavar="SECONDS", type=float, default=600.0, show_default=True)
@click.option("--concept-drifts-after", metavar="SECONDS", type=float, default=1200.0, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(
    folder: Path, exporters: list[Address], features_drift_after: float, concept_drifts_after: float, seed: int
) -> None:
    """Keep the exporters busy with the demo's traffic until a signal comes."""
    with StopSignals() as stop, ExitStack() as stack:
        try:
            split, model = prepare(folder, seed, stop)
            write_config(folder / "mlexporter.yml", folder / "baseline.json", WINDOWS)
            for exporter in exporters:
                wait_until_ready(exporter, stop)
            say("clean traffic flows")
            live = [replica(stack, split, model, exporter, seed + i) for i, exporter in enumerate(exporters)]
            began = time.monotonic()
            for phase, after in ((Phase.FEATURES, features_drift_after), (Phase.CONCEPT, concept_drifts_after)):
                stop.wait(max(0.0, began + after - time.monotonic()))
                announce(phase)
                for each in live:
                    each.enter(phase)
            while True:
                stop.wait(3600.0)
        except StopRequestedError:
            say("stopped")


if __name__ == "__main__":
    main()
