"""The model behind HTTP, as a team would run it, and the thread that tells the exporter what it served.

The model answers first; its samples then go to a bounded queue, and what does not fit is dropped and counted.
A slow or absent exporter can cost samples, never latency.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import orjson

from mlexporter.demo.data import FEATURES, Features
from mlexporter.demo.model import MODEL, VERSION, Model
from mlexporter.demo.wire import Address, Connection, push

MAX_ROWS = 10_000
MAX_BODY_BYTES = 8 * 1024 * 1024
QUEUE_SAMPLES = 20_000
BATCH_SAMPLES = 1_000
BATCH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Served:
    """One prediction as it was made."""

    id: str
    features: Features
    prediction: float
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class PushCounts:
    """What became of the samples: taken by the exporter, refused by it, or dropped on this side."""

    accepted: int
    rejected: int
    dropped: int


class SamplePusher:
    """Sends samples to the exporter from a thread of its own, in batches of the column form."""

    def __init__(self, exporter: Address, capacity: int = QUEUE_SAMPLES) -> None:
        self._exporter = exporter
        self._capacity = capacity
        self._changed = threading.Condition()
        # Guarded by the condition.
        self._queue: deque[Served] = deque()
        self._accepted = self._rejected = self._dropped = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sample-pusher", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def offer(self, samples: Iterable[Served]) -> None:
        """Queue what there is room for, drop and count the rest; never waits."""
        with self._changed:
            offered = list(samples)
            room = 0 if self._closing else max(0, self._capacity - len(self._queue))
            self._queue.extend(offered[:room])
            self._dropped += len(offered[room:])
            self._changed.notify_all()

    def settle(self, total: int, timeout: float) -> bool:
        """Wait until the fate of `total` samples since the start is known; False after `timeout` seconds.

        An empty queue would not do to wait for: the model answers before it queues.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._accepted + self._rejected + self._dropped >= total, timeout)

    def close(self) -> None:
        """Stop sending; what is still queued counts as dropped."""
        with self._changed:
            self._closing = True
            self._dropped += len(self._queue)
            self._queue.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    @property
    def counts(self) -> PushCounts:
        """What became of the samples so far."""
        with self._changed:
            return PushCounts(self._accepted, self._rejected, self._dropped)

    def _run(self) -> None:
        with Connection(self._exporter) as connection:
            while batch := self._take():
                accepted, rejected = self._send(connection, batch)
                with self._changed:
                    self._accepted += accepted
                    self._rejected += rejected
                    self._dropped += len(batch) - accepted - rejected
                    self._changed.notify_all()

    def _take(self) -> list[Served]:
        """The next batch, full or as old as a batch may become; empty when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH_SAMPLES or self._closing, BATCH_SECONDS)
            return [self._queue.popleft() for _ in range(min(BATCH_SAMPLES, len(self._queue)))]

    def _send(self, connection: Connection, batch: Sequence[Served]) -> tuple[int, int]:
        """How many the exporter accepted and rejected."""
        return push(connection, "/v1/samples", column_form(batch), len(batch), self._pause)

    def _pause(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)


def column_form(batch: Sequence[Served]) -> bytes:
    """The body of `POST /v1/samples` for these predictions, column by column."""
    return orjson.dumps(
        {
            "model": MODEL,
            "version": VERSION,
            "columns": {
                "id": [sample.id for sample in batch],
                "features": {name: [sample.features.get(name) for sample in batch] for name in FEATURES},
                "prediction": [sample.prediction for sample in batch],
                "latency_seconds": [sample.latency_seconds for sample in batch],
            },
        }
    )


class ModelServer(ThreadingHTTPServer):
    """`POST /predict` with a list of feature objects gives their probabilities of a late arrival."""

    daemon_threads = True

    def __init__(self, model: Model, pusher: SamplePusher, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.model = model
        self.pusher = pusher
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="model-server", daemon=True)

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self.server_address[:2]
        return Address(str(host), port)

    def start(self) -> None:
        """Serve from a thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving and let go of the port."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def predict(self, rows: Sequence[Features]) -> list[Served]:
        """Predictions with their ids and the time they took.

        Raises ValueError or TypeError where a value does not fit its feature.
        """
        began = time.perf_counter()
        scores = self.model.predict(rows)
        took = time.perf_counter() - began
        return [Served(f"flight-{next(self._ids)}", row, score, took) for row, score in zip(rows, scores, strict=True)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go out in two writes: without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = cast(ModelServer, self.server)
        if self.path != "/predict":
            self._answer(404, {"error": "the model answers POST /predict"}, keep=False)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._answer(413, {"error": f"a body of known length up to {MAX_BODY_BYTES} bytes, please"}, keep=False)
            return
        try:
            served = server.predict(_rows(self.rfile.read(int(length))))
        except (ValueError, TypeError) as error:
            self._answer(400, {"error": str(error)})
            return
        self._answer(200, {"ids": [one.id for one in served], "predictions": [one.prediction for one in served]})
        server.pusher.offer(served)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Nothing: requests are many, and the exporter counts them."""

    def _answer(self, status: int, content: dict[str, object], *, keep: bool = True) -> None:
        body = orjson.dumps(content)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if not keep:  # what is left of the body was not read
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _rows(body: bytes) -> list[Features]:
    """The rows of a request, one alone or a list."""
    content = orjson.loads(body)
    rows = content if isinstance(content, list) else [content]
    if len(rows) > MAX_ROWS:
        raise ValueError(f"at most {MAX_ROWS} rows at a time")
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects, each with the features of one flight, please")
    return rows
