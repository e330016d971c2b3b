"""The demo from beginning to end: train, build the baseline, start everything, send traffic, look."""

import csv
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlexporter.demo import report
from mlexporter.demo.data import FEATURES, DemoError, Features, Flight, Split, load_split, missing_ratios
from mlexporter.demo.model import MODEL, VERSION, Model, train
from mlexporter.demo.model_server import ModelServer, SamplePusher
from mlexporter.demo.processes import (
    Exporter,
    StopRequestedError,
    StopSignals,
    build_baseline,
    listen_address,
    write_config,
)
from mlexporter.demo.readings import Readings, drifted_features, parse
from mlexporter.demo.report import say
from mlexporter.demo.traffic import DRIFTED, Client, LiveTraffic, Traffic
from mlexporter.demo.wire import Connection

TRAINING_ROWS = 40_000
HELD_OUT_ROWS = 60_000

ONCE_WINDOWS = ("1h", "24h")
ONCE_CLEAN_ROWS = 6_000
ONCE_DRIFTED_ROWS = 12_000
ONCE_REQUEST_ROWS = 500
# What the exporter answered with 200 has to be on its page well before that.
COUNTED_SECONDS = 15.0

# A short window first: the table shows it, and its numbers move while one watches.
LIVE_WINDOWS = ("5m", "1h")
LIVE_TABLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How this run goes."""

    once: bool
    seed: int
    drift: bool
    warm_up: float

    @property
    def windows(self) -> tuple[str, ...]:
        """The exporter's windows; the demo looks at the first."""
        return ONCE_WINDOWS if self.once else LIVE_WINDOWS


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs while traffic flows, and what the training data were like."""

    plan: Plan
    stop: StopSignals
    exporter: Exporter
    scraper: Connection
    server: ModelServer
    pusher: SamplePusher
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


def run_demo(once: bool, listen: str | None, seed: int, *, drift: bool = True, warm_up: float = 60.0) -> int:
    """Run the demo; gives the exit code.

    With `once`: 0 if the drifted features, and only those, show drift. Else it goes on until it is
    interrupted, after `warm_up` seconds of clean traffic, and gives 0.

    Raises DemoError where something is missing or broken, and says what.
    """
    plan = Plan(once, seed, drift, warm_up)
    began = time.monotonic()
    with StopSignals() as stop:
        try:
            with _set_up(plan, listen, stop) as stage:
                say(f"everything runs after {time.monotonic() - began:.1f} s")
                return _run_once(stage) if once else _run_live(stage)
        except StopRequestedError:
            say("stopped before the end")
            return 128 + (stop.received or 0)


@contextmanager
def _set_up(plan: Plan, listen: str | None, stop: StopSignals) -> Iterator[Stage]:
    """Train the model and start exporter and model server; stops whatever was started, come what may."""
    bind, address = listen_address(listen)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlexporter-demo-")))
        split, model = prepare(folder, plan.seed, stop)
        write_config(folder / "mlexporter.yml", folder / "baseline.json", plan.windows)
        say("starting the exporter and the model server ...")
        exporter = stack.enter_context(Exporter(folder / "mlexporter.yml", bind, address, stop))
        pusher = stack.enter_context(closing(SamplePusher(address)))
        server = stack.enter_context(closing(ModelServer(model, pusher)))
        client = stack.enter_context(closing(Client(server.address)))
        pusher.start()
        server.start()
        yield Stage(
            plan=plan,
            stop=stop,
            exporter=exporter,
            scraper=stack.enter_context(Connection(address)),
            server=server,
            pusher=pusher,
            client=client,
            traffic=Traffic(split.held_out, plan.seed),
            missing_before=missing_ratios([flight.features for flight in split.training]),
            example=_example(split.held_out),
        )


def prepare(folder: Path, seed: int, stop: StopSignals) -> tuple[Split, Model]:
    """Train the model, and have its baseline built as `baseline.json` in the folder."""
    say("reading a year of flights out of New York ...")
    split = load_split(TRAINING_ROWS, HELD_OUT_ROWS, seed)
    stop.check()
    say(f"training a model on {len(split.training):,} of them: will a flight that left the gate be late?")
    model = train(split.training, split.held_out, seed)
    say(f"  AUC {model.auc:.3f} on {len(split.held_out):,} flights that it has not seen")
    stop.check()
    say("building the baseline: mlexporter baseline build ...")
    write_csv(folder / "training.csv", [flight.features for flight in split.training], model)
    build_baseline(folder / "training.csv", folder / "baseline.json", stop)
    return split, model


def write_csv(path: Path, rows: Sequence[Features], model: Model) -> None:
    """The training data with the model's predictions on them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "prediction"])
        for row, prediction in zip(rows, model.predict(rows), strict=True):
            writer.writerow([_cell(row[name]) for name in FEATURES] + [prediction])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _example(flights: Sequence[Flight]) -> Features:
    """A flight for the examples: the first that lacks nothing."""
    return next(flight.features for flight in flights if None not in flight.features.values())


def _run_once(stage: Stage) -> int:
    """Clean traffic, then drifted traffic, as fast as it goes; 0 if the numbers tell them apart."""
    say(f"sending {ONCE_CLEAN_ROWS:,} clean flights through the model ...")
    clean = _send_and_read(stage, ONCE_CLEAN_ROWS, drifting=False)
    too_early = drifted_features(clean.columns, stage.missing_before)
    say(f"sending {ONCE_DRIFTED_ROWS:,} more ...")
    if stage.plan.drift:
        report.announce_drift()
    after = _send_and_read(stage, ONCE_DRIFTED_ROWS, drifting=stage.plan.drift)
    say(
        f"\nwindow {stage.plan.windows[0]}, which holds the clean and the drifted flights; arrows: since the clean ones"
    )
    report.say("\n".join(report.table(after, clean, stage.missing_before)))
    say(f"\n{report.prediction_line(after.prediction)}")
    shown = drifted_features(after.columns, stage.missing_before)
    problems = [
        *_lost(stage, after),
        *(f"drift before there was any: {name}" for name in sorted(too_early)),
        *(f"no drift shown: {name}" for name in sorted(DRIFTED - shown)),
        *(f"drift shown that is none: {name}" for name in sorted(shown - DRIFTED)),
        *(f"no PSI for: {name}" for name in FEATURES if not _has_psi(after, name)),
    ]
    if problems:
        say("FAILED\n  " + "\n  ".join(problems))
        return 1
    say(f"OK: drift in {', '.join(sorted(shown))}, and in no other of {len(FEATURES)} features")
    return 0


def _has_psi(readings: Readings, name: str) -> bool:
    return any(column.name == name and column.psi is not None for column in readings.features)


def _lost(stage: Stage, readings: Readings) -> list[str]:
    """What did not get from the traffic to the page."""
    counts = stage.pusher.counts
    say(_account(stage, readings.samples))
    problems = []
    if stage.client.failed:
        problems.append(f"{stage.client.failed:,} flights got no prediction")
    if counts.rejected or counts.dropped:
        problems.append(f"{counts.rejected:,} samples rejected and {counts.dropped:,} dropped")
    if readings.samples != counts.accepted:
        problems.append(f"{counts.accepted:,} samples accepted, but {readings.samples:,} counted")
    return problems


def _account(stage: Stage, counted: int | None) -> str:
    counts = stage.pusher.counts
    on_page = "" if counted is None else f", {counted:,} on its page"
    return (
        f"{stage.client.answered:,} flights predicted; samples: {counts.accepted:,} accepted by the exporter{on_page}, "
        f"{counts.rejected:,} rejected, {counts.dropped:,} dropped before it"
    )


def _send_and_read(stage: Stage, rows: int, *, drifting: bool) -> Readings:
    """Send so many flights through the model, wait until all are told, and scrape."""
    left = rows
    while left > 0:
        size = min(left, ONCE_REQUEST_ROWS)
        stage.client.ask(stage.traffic.batch(size, drifting=drifting))
        left -= size
        stage.stop.check()
    stage.pusher.settle(stage.client.answered, COUNTED_SECONDS)
    end = time.monotonic() + COUNTED_SECONDS
    while True:
        readings = stage.readings()
        if _all_counted(readings, stage.pusher.counts.accepted) or time.monotonic() > end:
            return readings
        stage.stop.wait(0.2)


def _all_counted(readings: Readings, accepted: int) -> bool:
    columns = readings.features
    return readings.samples == accepted and bool(columns) and all(column.samples == accepted for column in columns)


def _run_live(stage: Stage) -> int:
    """Clean traffic, then drifted traffic, with the numbers on show until somebody has seen enough."""
    report.where_to_look(stage.exporter.address, stage.server.address, stage.exporter.pid)
    report.what_to_try(stage.exporter.address, stage.server.address, stage.example)
    say(f"Traffic flows, clean for {stage.plan.warm_up:.0f} s. Ctrl-C ends the demo.\n")
    live = LiveTraffic(stage.traffic, stage.client)
    with closing(live):
        live.start()
        try:
            _watch(stage, live)
        except StopRequestedError:
            say("\nending")
    stage.pusher.settle(stage.client.answered, 2.0)
    say(_account(stage, None))
    return 0


def _watch(stage: Stage, live: LiveTraffic) -> None:
    """Print the table every few seconds, and let the drift begin when it is time."""
    board = report.Board()
    before: Readings | None = None
    drift_at = time.monotonic() + stage.plan.warm_up
    drifting = False
    while True:
        until_drift = drift_at - time.monotonic()
        starts_now = stage.plan.drift and not drifting and until_drift < LIVE_TABLE_SECONDS
        stage.stop.wait(max(0.0, until_drift) if starts_now else LIVE_TABLE_SECONDS)
        try:
            readings = stage.readings()
        except OSError:
            stage.exporter.check()
            continue  # it is busy; the next look will tell
        board.show(_state(stage, drift_at, drifting) + report.table(readings, before, stage.missing_before))
        before = readings
        if starts_now:
            live.drift()
            drifting = True
            board = report.Board()
            say()
            report.announce_drift()
            say()


def _state(stage: Stage, drift_at: float, drifting: bool) -> list[str]:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    since = time.monotonic() - drift_at
    if drifting:
        state = f"drift since {since:.0f} s"
    else:
        state = f"clean traffic, drift begins in {max(0.0, -since):.0f} s" if stage.plan.drift else "clean traffic"
    answered, dropped = stage.client.answered, stage.pusher.counts.dropped
    return [
        f"{now}  {MODEL} {VERSION}  window {stage.plan.windows[0]}  {answered:,} flights, {dropped:,} dropped  {state}"
    ]
