"""Everything that runs while traffic flows: trained, built and started, and stopped at the end."""

import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlexporter.demo.data import FEATURES, DemoError, Features, Flight, Split, load_split, missing_ratios
from mlexporter.demo.model import Model, train
from mlexporter.demo.model_server import ModelServer, SamplePusher
from mlexporter.demo.processes import Exporter, StopSignals, build_baseline, listen_address, write_config
from mlexporter.demo.readings import Readings, parse
from mlexporter.demo.report import say
from mlexporter.demo.traffic import Client, Traffic
from mlexporter.demo.truth import LabelSender
from mlexporter.demo.wire import Connection

TRAINING_ROWS = 30_000
VALIDATION_ROWS = 40_000
LIVE_ROWS = 60_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How this run goes.

    Attributes:
        once: fast, without waiting.
        seed: of the data and the traffic.
        drift: whether anything goes wrong.
        warm_up: seconds of clean traffic.

    """

    once: bool
    seed: int
    drift: bool
    warm_up: float

    @property
    def windows(self) -> tuple[str, ...]:
        """The exporter's windows; the demo looks at the first. A short one is quick to show what changed."""
        return ("1h", "24h") if self.once else ("5m", "1h")

    @property
    def label_delay(self) -> tuple[float, float]:
        """Seconds from a prediction to its label, least and most."""
        return (0.5, 1.5) if self.once else (5.0, 15.0)


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs while traffic flows, and what the baseline's data were like."""

    plan: Plan
    stop: StopSignals
    exporter: Exporter
    scraper: Connection
    server: ModelServer
    pusher: SamplePusher
    labels: LabelSender
    client: Client
    traffic: Traffic
    missing_before: dict[str, float]
    example: Features

    def readings(self) -> Readings:
        """Scrape the exporter.

        Raises DemoError where the exporter is gone, or its page is none.
        Raises OSError where it does not answer.
        """
        self.exporter.check()
        answer = self.scraper.get("/metrics")
        if answer.status != 200:
            raise DemoError(f"GET /metrics answered {answer.status}")
        try:
            return parse(answer.body.decode("utf-8"), self.plan.windows[0])
        except ValueError as error:
            raise DemoError(f"GET /metrics gave a page that cannot be read: {error}") from error

    def account(self, readings: Readings | None = None) -> str:
        """What became of flights, samples and labels, in two lines; with readings, by the exporter's page, too."""
        samples, labels = self.pusher.counts, self.labels.counts
        on_page = "" if readings is None else f", {readings.samples:,} on its page"
        return (
            f"{self.client.answered:,} flights predicted; samples: {samples.accepted:,} accepted by the exporter"
            f"{on_page}, {samples.rejected:,} rejected, {samples.dropped:,} dropped before it\n"
            f"labels, corrections among them: {labels.accepted:,} accepted, {labels.rejected:,} rejected, "
            f"{labels.lost:,} lost"
        )


@contextmanager
def set_up(plan: Plan, listen: str | None, stop: StopSignals) -> Iterator[Stage]:
    """Train the model and start exporter and model server; stops whatever was started, come what may."""
    bind, address = listen_address(listen)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlexporter-demo-")))
        split, model = prepare(folder, plan.seed, stop)
        write_config(folder / "mlexporter.yml", folder / "baseline.json", plan.windows)
        say("starting the exporter and the model server ...")
        exporter = stack.enter_context(Exporter(folder / "mlexporter.yml", bind, address, stop))
        pusher = stack.enter_context(closing(SamplePusher(address)))
        labels = stack.enter_context(closing(LabelSender(address, plan.seed, plan.label_delay)))
        server = stack.enter_context(closing(ModelServer(model, pusher)))
        client = stack.enter_context(closing(Client(server.address, labels)))
        pusher.start()
        labels.start()
        server.start()
        yield Stage(
            plan=plan,
            stop=stop,
            exporter=exporter,
            scraper=stack.enter_context(Connection(address)),
            server=server,
            pusher=pusher,
            labels=labels,
            client=client,
            traffic=Traffic(split.live, plan.seed),
            missing_before=missing_ratios([flight.features for flight in split.validation]),
            example=_example(split.live),
        )


def prepare(folder: Path, seed: int, stop: StopSignals) -> tuple[Split, Model]:
    """Train the model, and have its baseline built as `baseline.json` in the folder."""
    say("reading a year of flights out of New York ...")
    split = load_split(TRAINING_ROWS, VALIDATION_ROWS, LIVE_ROWS, seed)
    stop.check()
    say(f"training a model on {len(split.training):,} of them: will a flight that left the gate be late?")
    model = train(split.training, split.validation, seed)
    say(f"  AUC {model.auc:.3f} on {len(split.validation):,} flights that it has not seen")
    stop.check()
    # A model scores the rows that it has learned from more sharply than new ones, and is right more often.
    say("building the baseline of those, with predictions and labels: mlexporter baseline build ...")
    write_csv(folder / "validation.csv", split.validation, model)
    build_baseline(folder / "validation.csv", folder / "baseline.json", stop)
    return split, model


def write_csv(path: Path, flights: Sequence[Flight], model: Model) -> None:
    """The flights with the model's predictions on them and what became of them."""
    predictions = model.predict([flight.features for flight in flights])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "prediction", "label"])
        for flight, prediction in zip(flights, predictions, strict=True):
            writer.writerow([_cell(flight.features[name]) for name in FEATURES] + [prediction, _cell(flight.late)])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _example(flights: Sequence[Flight]) -> Features:
    """A flight for the examples: the first that lacks nothing."""
    return next(flight.features for flight in flights if None not in flight.features.values())
