"""Live traffic: flights that the model has not seen, at first as they are, then with things gone wrong.

First three features drift. That changes values and nothing else: which flights are sent never depends on them, so a
column that is not named in `DRIFTS` keeps its distribution. Then the concept drifts: flights with the same features
arrive later than they used to. No feature and no prediction shows that, only the truth does.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import orjson

from mlexporter.demo.data import Flight, Value
from mlexporter.demo.truth import LabelSender
from mlexporter.demo.wire import Address, Connection

# The last carrier code is one that the model and its baseline have never seen.
RENAMED_CARRIERS = {"US": "AA", "EV": "XE"}
MISSING_SHARE = 0.6

LATER_MINUTES = 20

LIVE_ROWS = 5
LIVE_SECONDS = 0.05


class Phase(IntEnum):
    """What has gone wrong so far; what went wrong stays so."""

    CLEAN = 0
    FEATURES = 1
    CONCEPT = 2


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that goes wrong with one feature."""

    column: str
    what: str
    change: Callable[[Value, random.Random], Value]


def to_celsius(value: Value, rng: random.Random) -> Value:
    """Degrees Fahrenheit as degrees Celsius."""
    return round((value - 32) * 5 / 9, 2) if isinstance(value, (int, float)) else value


def rename_carrier(value: Value, rng: random.Random) -> Value:
    """The carrier's code after a merger and a change of name."""
    return RENAMED_CARRIERS.get(value, value) if isinstance(value, str) else value


def lose(value: Value, rng: random.Random) -> Value:
    """Nothing, more often than not."""
    return None if rng.random() < MISSING_SHARE else value


DRIFTS = (
    Drift("temp", "the weather feed now reports degrees Celsius, the model still expects Fahrenheit", to_celsius),
    Drift("carrier", "US flies as AA after a merger, and EV as XE, a code never seen before", rename_carrier),
    Drift("visib", f"the visibility sensor's feed broke: {MISSING_SHARE:.0%} of its values are null", lose),
)
DRIFTED = frozenset(drift.column for drift in DRIFTS)
CONCEPT_DRIFT = f"arrivals are congested: every flight lands {LATER_MINUTES} minutes later than it used to"


class Traffic:
    """An endless supply of flights in random order, each once before any comes again."""

    def __init__(self, flights: Sequence[Flight], seed: int) -> None:
        self._flights = list(flights)
        self._rng = random.Random(seed)  # noqa: S311 - which flights are drawn is no secret
        self._next = len(self._flights)

    def batch(self, size: int, phase: Phase) -> list[Flight]:
        """The next `size` flights, with what has gone wrong by then."""
        flights = [self._flight() for _ in range(size)]
        return [drifted(flight, phase, self._rng) for flight in flights]

    def _flight(self) -> Flight:
        if self._next == len(self._flights):
            self._rng.shuffle(self._flights)
            self._next = 0
        self._next += 1
        return self._flights[self._next - 1]


def drifted(flight: Flight, phase: Phase, rng: random.Random) -> Flight:
    """The flight with all that has gone wrong by then."""
    if phase == Phase.CLEAN:
        return flight
    row = flight.features
    features = row | {drift.column: drift.change(row[drift.column], rng) for drift in DRIFTS}
    return Flight(features, flight.delay + LATER_MINUTES if phase == Phase.CONCEPT else flight.delay)


class Client:
    """Asks the model server for predictions, counts what it got, and notes what becomes of the flights."""

    def __init__(self, model_server: Address, labels: LabelSender) -> None:
        self._connection = Connection(model_server)
        self._labels = labels
        self.answered = 0
        self.failed = 0

    def ask(self, flights: Sequence[Flight]) -> None:
        """Have these flights predicted."""
        try:
            answer = self._connection.post("/predict", orjson.dumps([flight.features for flight in flights]))
        except OSError:
            self.failed += len(flights)
            return
        if answer.status == 200:
            self._labels.learn(orjson.loads(answer.body)["ids"], flights)
            self.answered += len(flights)
        else:
            self.failed += len(flights)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class LiveTraffic:
    """A steady stream of small requests from a thread of its own, some hundred flights a second."""

    def __init__(self, traffic: Traffic, client: Client) -> None:
        self._traffic = traffic
        self._client = client
        self._stop = threading.Event()
        self._phase = Phase.CLEAN
        self._thread = threading.Thread(target=self._run, name="live-traffic", daemon=True)

    def start(self) -> None:
        """Begin with clean flights."""
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        """From now on this goes wrong."""
        self._phase = phase

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._client.ask(self._traffic.batch(LIVE_ROWS, self._phase))
            # A machine that slept or was busy does not make up for it with a burst.
            due = max(due + LIVE_SECONDS, time.monotonic())
