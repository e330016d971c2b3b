"""Traffic of all kinds at a moderate rate, and an account of what it must have added up to."""

import contextlib
import gzip
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

COLUMNS = 20
NAMES = [f"feature_{i:03d}" for i in range(COLUMNS)]
UNKNOWN_IDS = 500
"""Labels whose prediction never comes have one of so many ids: each waits for an hour."""
LABEL_SECONDS = (2.0, 30.0)
"""How long a label stays away; below the shortest horizon there is."""
TRIES = 5
"""For labels, as their clients are told: a second apart."""
_JSON = {"Content-Type": "application/json"}
_LINES = {"Content-Type": "application/x-ndjson"}
_GZIP = {**_JSON, "Content-Encoding": "gzip"}


class Account:
    """What was acknowledged, by version, and what went otherwise than it should."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count

    def error(self, what: str) -> None:
        with self._lock:
            self.errors[what] += 1


class Client:
    """One connection that is kept. Every answer has to be the one that is expected."""

    def __init__(self, port: int, account: Account) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._account = account

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, code: int = 200
    ) -> bytes:
        """The body of the answer; empty after an error, which is counted."""
        status, content = self._exchange(method, path, body, headers or {})
        if status not in (None, code):
            self._account.error(f"{method} {path}: {status} instead of {code}: {content[:80]!r}")
        return content

    def send(self, path: str, body: bytes, headers: dict[str, str], accepted: int) -> None:
        """Send samples or labels, so many of which have to be accepted."""
        content = self.ask("POST", path, body, headers)
        self._compare(path, content, accepted)

    def send_labels(self, body: bytes, accepted: int) -> None:
        """Send labels, again if the store is busy: those that were kept meanwhile are not counted twice."""
        for _ in range(TRIES):
            status, content = self._exchange("POST", "/v1/labels", body, _JSON)
            if status != 503:
                break
            self._account.add("labels sent again")
            time.sleep(1)
        if status not in (None, 200):
            self._account.error(f"POST /v1/labels: {status}: {content[:80]!r}")
        self._compare("/v1/labels", content, accepted)

    def _compare(self, path: str, content: bytes, accepted: int) -> None:
        if content and (found := json.loads(content).get("accepted")) != accepted:
            self._account.error(f"POST {path}: {found} accepted instead of {accepted}")

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int | None, bytes]:
        """Status and body; neither after an error, which is counted."""
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._account.error(f"{method} {path}: {type(error).__name__}")
            return None, b""
        self._account.add(f"{method} {path} {answer.status}")
        return answer.status, content


class Traffic:
    """Samples and labels in every form, wrong ones among them, and pages: one thread, one request at a time.

    Args:
        port: of the exporter.
        account: to be filled.
        seed: of what is drawn.

    """

    def __init__(self, port: int, account: Account, seed: int) -> None:
        self.account = account
        self._client = Client(port, account)
        self._source = random.Random(seed)
        self._number = 0
        self._due: deque[tuple[float, str, int]] = deque()
        self._bomb = gzip.compress(bytes(17 << 20))
        self._values = [round(self._source.gauss(0, 1), 4) for _ in range(5000)]
        self._kinds: list[tuple[Callable[[], None], int]] = [
            (self._one, 50), (self._rows, 12), (self._columns, 8), (self._lines, 6), (self._with_labels, 4),
            (self._found, 4), (self._labels, 10), (self._label_columns, 3), (self._bad, 6), (self._page, 2),
        ]  # fmt: skip

    def run(self, rate: float, stopped: threading.Event) -> None:
        """So many requests a second, until it is stopped; where it falls behind it leaves out, and never hurries."""
        kinds, weights = zip(*self._kinds, strict=True)
        self._found()  # before a stranger takes its place
        due = time.monotonic()
        while not stopped.wait(max(due - time.monotonic(), 0)):
            self._source.choices(kinds, weights)[0]()
            due = max(due + self._source.expovariate(rate), time.monotonic() - 0.1)

    def finish(self) -> None:
        """Send the labels that are left, and leave."""
        while self._due:
            self._labels(all_of_them=True)
        self._client.close()

    # -- samples ------------------------------------------------------------------------------------------------------

    def _features(self) -> dict[str, float | None]:
        begin = self._source.randrange(len(self._values) - COLUMNS)
        values: list[float | None] = list(self._values[begin : begin + COLUMNS])
        values[self._source.randrange(COLUMNS)] = None
        return dict(zip(NAMES, values, strict=True))

    def _id(self) -> str:
        """An id whose label comes later; of one in ten it never does."""
        self._number += 1
        name = f"r-{self._number}"
        if self._number % 10:
            self._due.append((time.monotonic() + self._source.uniform(*LABEL_SECONDS), name, self._source.randrange(2)))
        return name

    def _sample(self) -> dict[str, Any]:
        sample = {"id": self._id(), "features": self._features(), "prediction": round(self._source.random(), 4)}
        if self._source.random() < 0.05:
            sample["error"] = self._source.choice(("timeout", {"code": 503}))
        return sample | {"latency_seconds": 0.01}

    def _version(self) -> str:
        return "1" if self._source.random() < 0.7 else "2"

    def _sent(self, version: str, count: int, ids: int) -> None:
        self.account.add(f"samples {version}", count)
        self.account.add(f"tracked {version}", ids)

    def _one(self) -> None:
        version = self._version()
        body = json.dumps({"model": "bench", "version": version, **self._sample()}).encode()
        self._client.send("/v1/samples", body, _JSON, 1)
        self._sent(version, 1, 1)

    def _rows(self) -> None:
        """20 rows; one in ten requests has one that is no sample."""
        version, bad = self._version(), self._source.random() < 0.1
        samples = [*(self._sample() for _ in range(20)), *(["none"] if bad else [])]
        body = json.dumps({"model": "bench", "version": version, "samples": samples}).encode()
        self._client.send("/v1/samples", body, _JSON, 20)
        self._sent(version, 20, 20)

    def _columns(self) -> None:
        version, rows = self._version(), 100
        columns = {
            "id": [self._id() for _ in range(rows)],
            "features": {name: self._source.sample(self._values, rows) for name in NAMES},
            "prediction": [round(self._source.random(), 4) for _ in range(rows)],
        }
        body = json.dumps({"model": "bench", "version": version, "columns": columns}).encode()
        zipped = self._source.random() < 0.5
        self._client.send("/v1/samples", gzip.compress(body, 1) if zipped else body, _GZIP if zipped else _JSON, rows)
        self._sent(version, rows, rows)

    def _lines(self) -> None:
        """Lines, one of which is broken."""
        version = self._version()
        lines = [json.dumps({"model": "bench", "version": version, **self._sample()}) for _ in range(10)]
        self._client.send("/v1/samples", "\n".join([*lines, '{"model": "bench"']).encode(), _LINES, 10)
        self._sent(version, 10, 10)

    def _with_labels(self) -> None:
        """Samples that have their labels and no ids, and values of the wrong type."""
        version, rows = self._version(), 50
        features: dict[str, list[object]] = {name: [*self._source.sample(self._values, rows)] for name in NAMES}
        features[NAMES[0]][0] = "text"
        columns = {
            "features": features,
            "prediction": [self._source.random() for _ in range(rows)],
            "label": [self._source.randrange(2) for _ in range(rows)],
        }
        body = json.dumps({"model": "bench", "version": version, "columns": columns}).encode()
        self._client.send("/v1/samples", body, _JSON, rows)
        self._sent(version, rows, 0)
        self.account.add("labels", rows)

    def _found(self) -> None:
        """A model that is in no configuration, and learns its baseline."""
        samples = [
            {"features": {"x": value, "kind": self._source.choice("abcd")}}
            for value in self._source.sample(self._values, 20)
        ]
        self._client.send("/v1/samples", json.dumps({"model": "found", "samples": samples}).encode(), _JSON, 20)
        self.account.add("samples found", 20)

    # -- labels -------------------------------------------------------------------------------------------------------

    def _labels(self, *, all_of_them: bool = False) -> None:
        """Labels that are due, in one request; corrections, repetitions, and some of which nobody knows the id."""
        labels: list[dict[str, Any]] = []
        corrections: list[dict[str, Any]] = []  # on their own: both once more would be two corrections more
        now = time.monotonic()
        for _ in range(min(len(self._due), 2000)):
            due, name, label = self._due.popleft()
            if due > now and not all_of_them:
                self._due.append((due, name, label))
                continue
            labels.append({"id": name, "label": label})
            if self._source.random() < 0.05:
                corrections.append({"id": name, "label": 1 - label})
        self.account.add("labels", len(labels))
        self.account.add("corrections", len(corrections))
        if self._source.random() < 0.2:
            labels.append({"id": f"unknown-{self._source.randrange(UNKNOWN_IDS)}", "label": 1})
        for each in (labels, corrections):
            if each:
                self._client.send_labels(json.dumps({"model": "bench", "labels": each}).encode(), len(each))

    def _label_columns(self) -> None:
        rows = 20
        columns = {
            "label": [self._source.randrange(2) for _ in range(rows)],
            "prediction": [self._source.random() for _ in range(rows)],
        }
        body = json.dumps({"model": "bench", "version": "1", "columns": columns}).encode()
        self._client.send_labels(body, rows)
        self.account.add("labels", rows)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _bad(self) -> None:
        """What is refused: each with the code that it has to get."""
        name = f"stranger-{self._source.randrange(10**9)}"
        stranger = json.dumps({"model": name, "features": {"x": 1}}).encode()
        other = json.dumps({"model": "bench", "version": name, "features": {"x": 1}}).encode()
        method, path, body, headers, code = self._source.choice((
            ("POST", "/v1/samples", b'{"model": "bench", "samples": [', _JSON, 400),
            ("POST", "/v1/samples", b"[" * 100_000, _JSON, 400),
            ("POST", "/v1/samples", b"\xff\xfe\x00", _JSON, 400),
            ("POST", "/v1/samples", b"a=1", {"Content-Type": "text/plain"}, 415),
            ("POST", "/v1/samples", self._bomb, _GZIP, 413),
            ("POST", "/v1/samples", b"\x1f\x8b\x08 no more", _GZIP, 400),
            ("POST", "/v1/samples", stranger, _JSON, 404),
            ("POST", "/v1/samples", other, _JSON, 404),
            ("POST", "/v1/labels", b'{"model": "nobody", "id": "x", "label": 1}', _JSON, 404),
            ("GET", "/v1/samples", None, {}, 405),
            ("GET", f"/{name}", None, {}, 404),
        ))  # fmt: skip
        self._client.ask(method, path, body, headers, code)

    def _page(self) -> None:
        base = "/api/v1/models/bench/versions/1"
        path = self._source.choice(("/", "/api/v1/status", f"{base}/baseline", f"{base}/drift", "/-/ready"))
        self._client.ask("GET", path)


def scrape(port: int, account: Account, pause: float, stopped: threading.Event) -> None:
    """Pages in turn as each kind of scraper asks for them."""
    client = Client(port, account)
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    zipped = {"Accept-Encoding": "gzip"}
    number = 0
    while not stopped.wait(pause):
        headers = ({}, zipped, openmetrics, openmetrics | zipped)[number % 4]
        page = client.ask("GET", "/metrics", None, headers)
        if page and "Accept-Encoding" in headers:
            page = gzip.decompress(page)
        if page and page.endswith(b"# EOF\n") != ("Accept" in headers):
            account.error("GET /metrics: not the form that was asked for")
        number += 1
    client.close()


def dawdle(port: int, account: Account, pause: float, stopped: threading.Event) -> None:
    """Clients that send slowly, stop in the middle, or read slowly. What becomes of them is not asked."""
    head = b"POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    number = 0
    while not stopped.wait(pause):
        number += 1
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            if number % 4 == 0:  # no end of the headers
                client.sendall(head[:40])
                stopped.wait(2 * pause)
            elif number % 4 == 1:  # half a body, and gone
                client.sendall(head + b"{")
            elif number % 4 == 2:  # a byte now and then, which never is all
                client.sendall(head)
                for _ in range(10):
                    client.sendall(b" ")
                    stopped.wait(pause / 5)
            else:  # does not read its page
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                stopped.wait(2 * pause)
        account.add("slow clients")
