"""Live traffic: flights that the model has not seen, at first as they are, then with three things gone wrong.

What goes wrong changes values and nothing else. Which flights are sent never depends on them, so a column that
is not named in `DRIFTS` keeps its distribution.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from mlexporter.demo.data import Features, Flight, Value
from mlexporter.demo.wire import Address, Connection

# The last carrier code is one that the model and its baseline have never seen.
RENAMED_CARRIERS = {"US": "AA", "EV": "XE"}
MISSING_SHARE = 0.6

LIVE_ROWS = 5
LIVE_SECONDS = 0.05


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


class Traffic:
    """An endless supply of held-out flights in random order, each once before any comes again."""

    def __init__(self, flights: Sequence[Flight], seed: int) -> None:
        self._rows = [flight.features for flight in flights]
        self._rng = random.Random(seed)  # noqa: S311 - which flights are drawn is no secret
        self._next = len(self._rows)

    def batch(self, size: int, *, drifting: bool) -> list[Features]:
        """The next `size` flights, with what has gone wrong where `drifting`."""
        rows = [self._row() for _ in range(size)]
        return [drifted(row, self._rng) for row in rows] if drifting else rows

    def _row(self) -> Features:
        if self._next == len(self._rows):
            self._rng.shuffle(self._rows)
            self._next = 0
        self._next += 1
        return self._rows[self._next - 1]


def drifted(row: Features, rng: random.Random) -> Features:
    """A copy of the row with every drift in it."""
    return row | {drift.column: drift.change(row[drift.column], rng) for drift in DRIFTS}


class Client:
    """Asks the model server for predictions and counts what it got."""

    def __init__(self, model_server: Address) -> None:
        self._connection = Connection(model_server)
        self.answered = 0
        self.failed = 0

    def ask(self, rows: Sequence[Features]) -> None:
        """Have these flights predicted."""
        try:
            status = self._connection.post("/predict", orjson.dumps(rows)).status
        except OSError:
            status = 0
        if status == 200:
            self.answered += len(rows)
        else:
            self.failed += len(rows)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class LiveTraffic:
    """A steady stream of small requests from a thread of its own, some hundred flights a second."""

    def __init__(self, traffic: Traffic, client: Client) -> None:
        self._traffic = traffic
        self._client = client
        self._stop = threading.Event()
        self._drifting = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-traffic", daemon=True)

    def start(self) -> None:
        """Begin with clean flights."""
        self._thread.start()

    def drift(self) -> None:
        """From now on things go wrong."""
        self._drifting.set()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._client.ask(self._traffic.batch(LIVE_ROWS, drifting=self._drifting.is_set()))
            # A machine that slept or was busy does not make up for it with a burst.
            due = max(due + LIVE_SECONDS, time.monotonic())
