"""Takes the events of KServe's inference logger, joins request and response, and sends samples to mlexporter.

It needs nothing but Python, so it runs in the exporter's image. The logger is answered before anything is decoded, as
a slow receiver costs the model's pod memory. Everything it holds is bounded: what is too much is dropped and counted in
a line of the log, once a minute at most.
"""

import argparse
import gzip
import io
import itertools
import json
import logging
import queue
import threading
import time
import urllib.request
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

MAX_BODY: Final = 128 * 1024
MAX_EVENTS: Final = 1_000
"""Most events that wait to be decoded, and most that wait for the other half."""
BATCH: Final = 500

logger = logging.getLogger("translate")


class Event(NamedTuple):
    """Half of a prediction: its request or its response."""

    id: str
    kind: str
    model: str
    body: bytes


def flat(data: object) -> Iterator[Any]:
    """The values of nested lists, row by row."""
    if isinstance(data, list):
        yield from itertools.chain.from_iterable(map(flat, data))
    else:
        yield data


def tensor(one: Mapping[str, Any]) -> list[list[Any]]:
    """The rows of a tensor of the V2 protocol, whose data is nested or flat."""
    if "data" not in one:
        raise ValueError("binary tensors are not understood")
    values, rows = list(flat(one["data"])), int(one["shape"][0])
    width = len(values) // rows if rows else 0
    if rows * width != len(values):
        raise ValueError("a tensor has another shape than its data")
    return [values[index * width : (index + 1) * width] for index in range(rows)]


def features(request: Mapping[str, Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The features of each row; lists of V1, and V2 tensors of several columns, get their names from `columns`."""
    if "instances" in request:
        return [
            row if isinstance(row, dict) else dict(named(row if isinstance(row, list) else [row], "feature", columns))
            for row in request["instances"]
        ]
    tensors = [(one["name"], tensor(one)) for one in request["inputs"]]
    found: list[dict[str, Any]] = [{} for _ in tensors[0][1]]
    for name, rows in tensors:
        for sample, row in zip(found, rows, strict=True):
            sample.update(named(row, name, columns))
    return found


def named(row: Sequence[Any], name: str, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The values of a row with the names of their columns."""
    if len(row) == 1 and name != "feature":
        return iter([(name, row[0])])
    return zip(
        columns if len(columns) == len(row) else (f"{name}-{index}" for index in range(len(row))), row, strict=True
    )


def prediction(value: object) -> object:
    """A number or a class as it is; of several numbers, which are scores, an object of class to score."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else {str(index): score for index, score in enumerate(value)}
    return value


def samples(request: Event, response: Event, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The samples of one prediction, of one row or of many. Other bodies raise what Python does: see `_joined`."""
    asked, answered = json.loads(unzipped(request.body)), json.loads(unzipped(response.body))
    rows = features(asked, columns)
    found = answered["predictions"] if "predictions" in answered else tensor(answered["outputs"][0])
    common = {"model": request.model} | ({"version": str(v)} if (v := answered.get("model_version")) else {})
    return [
        {
            **common,
            "id": request.id if len(rows) == 1 else f"{request.id}-{index}",
            "features": row,
            "prediction": prediction(one),
        }
        for index, (row, one) in enumerate(zip(rows, found, strict=True))
    ]


class Translator:
    """Joins events by their id, and sends what came of them from a thread of its own."""

    def __init__(self, url: str, columns: Sequence[str]) -> None:
        self.dropped = 0
        self._url, self._columns = url, columns
        self._events: queue.Queue[Event] = queue.Queue(MAX_EVENTS)
        self._waiting: OrderedDict[str, Event] = OrderedDict()

    def take(self, event: Event) -> None:
        """Queue an event; never waits."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def run(self) -> None:
        """Join and send, for good."""
        told, said = 0, time.monotonic()
        while True:
            event: Event | None = self._events.get()
            found: list[dict[str, Any]] = []
            while event is not None:
                found += self._joined(event)
                event = None if len(found) >= BATCH or self._events.empty() else self._events.get()
            if found:
                self._send(found)
            if self.dropped > told and time.monotonic() > said + 60:
                logger.warning("%d events or samples dropped since the start", self.dropped)
                told, said = self.dropped, time.monotonic()

    def _joined(self, event: Event) -> list[dict[str, Any]]:
        other = self._waiting.pop(event.id, None)
        if other is None or other.kind == event.kind:
            self._waiting[event.id] = event
            if len(self._waiting) > MAX_EVENTS:  # the logger sends no response but those of status 200
                self._waiting.popitem(last=False)
                self.dropped += 1
            return []
        request, response = (event, other) if event.kind == "request" else (other, event)
        try:
            return samples(request, response, self._columns)
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            OSError,
            EOFError,
            zlib.error,
        ) as error:
            logger.debug("not understood: %s", error)
            self.dropped += 1
            return []

    def _send(self, found: list[dict[str, Any]]) -> None:
        body = json.dumps({"samples": found}).encode()
        # The address is the operator's own.
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                self.dropped += json.load(answer)["rejected"]
        except (OSError, ValueError) as error:
            logger.warning("%d samples not sent: %s", len(found), error)
            self.dropped += len(found)


class Handler(BaseHTTPRequestHandler):
    """Answers the logger, with the 200 that it takes for success, and the probes."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    translator: Translator

    def do_POST(self) -> None:
        """Take an event."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MAX_BODY:
            self.translator.dropped += 1
            self.close_connection = True
            self._answer(413)
            return
        body, kind = self.rfile.read(length), self.headers.get("Ce-Type", "").rpartition(".")[2]
        if kind in {"request", "response"} and "Ce-Id" in self.headers:
            model = self.headers.get("Ce-Inferenceservicename", "kserve")
            self.translator.take(Event(self.headers["Ce-Id"], kind, model, body))
        self._answer(200)

    def do_GET(self) -> None:
        """Answer a probe."""
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log no request: there is one for each half of a prediction."""


def unzipped(body: bytes) -> bytes:
    """The body, decompressed if it begins like gzip: KServe does not say so. No more than MAX_BODY of it."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    with gzip.open(io.BytesIO(body)) as file:
        return file.read(MAX_BODY)


def main() -> None:
    """Listen until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exporter", default="http://localhost:9877/v1/samples")
    parser.add_argument("--address", default="0.0.0.0")  # noqa: S104
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--columns", default="", help="names of the columns, where requests have none: age,income,plan")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="level=%(levelname)s msg=%(message)r")
    Handler.translator = Translator(options.exporter, [name for name in options.columns.split(",") if name])
    threading.Thread(target=Handler.translator.run, daemon=True).start()
    ThreadingHTTPServer((options.address, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
