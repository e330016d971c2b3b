"""The real exporter: nothing that was sent is lost or counted twice, and it starts and ends as it should."""

import gzip
import json
import math
import random
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from conftest import baseline, categorical, numeric
from e2e.conftest import Exporter, Series, Start, answer_of, free_port, is_whole, poll, series_of, sum_of
from mlexporter import __version__
from mlexporter.baseline import encode
from mlexporter.samples import Role

CLIENTS = 8
ROWS = 200_000
EDGES = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
AGES = (18.0, 30.0, 45.0, 60.0, 90.0)
PLANS = ("pro", "free", "team")
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TARGETS = [("churn", "7"), ("churn", "8"), ("fraud", "1"), ("fraud", "2")]

PROFILE = baseline(
    numeric("income", EDGES, np.random.default_rng(0).normal(0, 1, 1000)),
    numeric("age", AGES, np.random.default_rng(1).integers(18, 91, 1000)),
    categorical("plan", {"pro": 500, "free": 300, "team": 150}, rare={"trial": 50}),
    categorical("paid", {"false": 400, "true": 600}, boolean=True),
    numeric("prediction", (0.0, 0.25, 0.5, 0.75, 1.0), np.random.default_rng(2).random(1000), role=Role.PREDICTION),
)


def config_with_baselines(folder: Path) -> dict[str, Any]:
    """The four versions of `TARGETS`, each held against the same baseline."""
    (folder / "profile.json").write_bytes(encode(PROFILE))
    models = [{"name": name, "version": version, "baseline": "profile.json"} for name, version in TARGETS]
    return {"models": models}


class Data:
    """Raw samples of one model version, drawn so that every kind of value is there."""

    def __init__(self, seed: int, rows: int) -> None:
        draw = np.random.default_rng(seed)
        self.rows = rows
        self.columns: dict[str, list[Any]] = {
            "income": self._spoilt(draw, np.round(draw.normal(0.3, 1.2, rows), 3).tolist(), [math.inf, -math.inf, "?"]),
            "age": self._spoilt(draw, draw.integers(10, 100, rows).tolist(), [[1], 1e300]),
            "plan": self._spoilt(draw, draw.choice([*PLANS, "trial", "new", "x" * 300], rows).tolist(), [{}]),
            "paid": self._spoilt(draw, (draw.random(rows) < 0.5).tolist(), [0, 1, "true", "maybe", []]),
            "unknown": [None if skip else 1 for skip in draw.random(rows) < 0.9],
        }
        self.prediction = self._spoilt(draw, np.round(draw.random(rows), 3).tolist(), ["yes"])
        self.latency = [
            None if skip else round(x, 4)
            for skip, x in zip(draw.random(rows) < 0.5, draw.exponential(0.1, rows), strict=True)
        ]
        self.error = [bool(x) for x in draw.random(rows) < 0.01]

    @staticmethod
    def _spoilt(draw: np.random.Generator, values: list[Any], odd: list[Any]) -> list[Any]:
        """Values, a tenth of them missing or odd."""
        for i in np.flatnonzero(draw.random(len(values)) < 0.1).tolist():
            values[i] = ([None, math.nan, *odd])[i % (2 + len(odd))]
        return values

    def row(self, i: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"features": {name: values[i] for name, values in self.columns.items()}, "id": f"r{i}"}
        if i % 3:  # what is missing may as well not be there
            sample["features"] = {name: value for name, value in sample["features"].items() if value is not None}
        return sample | {"prediction": self.prediction[i], "latency_seconds": self.latency[i], "error": self.error[i]}

    def bodies(self, model: str, version: str, draw: random.Random) -> list[tuple[bytes, dict[str, str], int]]:
        """Requests that hold every row once, in all forms and sizes."""
        requests_: list[tuple[bytes, dict[str, str], int]] = []
        start = 0
        while start < self.rows:
            form = draw.choice(["row", "column", "column", "single", "ndjson"])
            size = 1 if form == "single" else draw.choice([1, 2, 17, 255, 256, 257, 1000, 3000])
            end = min(start + size, self.rows)
            names = {"model": model, "version": version}
            headers = {"Content-Type": "application/json"}
            if form == "single":
                body = json.dumps(names | self.row(start))
            elif form == "row":
                body = json.dumps(names | {"samples": [self.row(i) for i in range(start, end)]})
            elif form == "ndjson":
                headers["Content-Type"] = "application/x-ndjson"
                body = "\n".join(json.dumps(names | self.row(i)) for i in range(start, end))
            else:
                columns = {
                    "features": {name: values[start:end] for name, values in self.columns.items()},
                    "prediction": self.prediction[start:end],
                    "latency_seconds": self.latency[start:end],
                    "error": self.error[start:end],
                }
                body = json.dumps(names | {"columns": columns})
            sent = body.encode()
            if draw.random() < 0.3:
                sent = gzip.compress(sent, 1)
                if draw.random() < 0.5:
                    headers["Content-Encoding"] = "gzip"
            requests_.append((sent, headers, end - start))
            start = end
        return requests_

    def expected(self, model: str, version: str) -> Series:
        """What the page must say of these rows, by numpy on the raw values."""
        numbers: Series = {}

        def put(name: str, value: float, **labels: str) -> None:
            key = name, frozenset({"model": model, "version": version, **labels}.items())
            assert key not in numbers
            numbers[key] = float(value)

        def put_numeric(role: str, column: str, values: list[Any], edges: tuple[float, ...]) -> None:
            odd = [isinstance(value, str | list) for value in values]
            x = np.array([math.nan if bad or v is None else v for v, bad in zip(values, odd, strict=True)], np.float64)
            counts = {
                "__below__": (x <= edges[0]).sum(),
                "__above__": (x > edges[-1]).sum(),
                "__missing__": np.isnan(x).sum(),
            }
            for i in range(len(edges) - 1):
                label = f"{i + 1:02d} {edges[i]:g}..{edges[i + 1]:g}"
                counts[label] = ((x > edges[i]) & (x <= edges[i + 1])).sum()
            for label, count in counts.items():
                put("mlexporter_column_bin_total", count, role=role, column=column, bin=label)
            put("mlexporter_values_invalid_total", sum(odd), role=role, column=column)
            put("mlexporter_column_value_bucket", (~np.isnan(x)).sum(), role=role, column=column, le="+Inf")
            for window in ("1h", "24h"):
                put("mlexporter_column_window_samples", self.rows, role=role, column=column, window=window)

        put("mlexporter_samples_total", self.rows)
        put("mlexporter_inference_errors_total", sum(self.error))
        put("mlexporter_values_unknown_column_total", sum(value is not None for value in self.columns["unknown"]))
        put_numeric("feature", "income", self.columns["income"], EDGES)
        put_numeric("feature", "age", self.columns["age"], AGES)
        put_numeric("prediction", "prediction", self.prediction, (0.0, 0.25, 0.5, 0.75, 1.0))
        plans = Counter(v if isinstance(v, str) else "__missing__" for v in self.columns["plan"])
        plans["__other__"] = plans.pop("trial")
        plans["__new__"] = plans.pop("new") + plans.pop("x" * 300)
        paid = Counter(
            "__missing__" if value is None or value != value or value == []
            else "true" if value in (True, 1, "true") else "false" if value in (False, 0) else "__new__"
            for value in self.columns["paid"]
        ) + Counter()  # fmt: skip
        for column, counts in (("plan", plans), ("paid", paid)):
            for label, count in counts.items():
                put("mlexporter_column_bin_total", count, role="feature", column=column, bin=label)
            wrong = sum(isinstance(value, list | dict) for value in self.columns[column])
            put("mlexporter_values_invalid_total", wrong, role="feature", column=column)
        put("mlexporter_column_bin_total", 0, role="feature", column="paid", bin="__other__")
        latency: NDArray[np.float64] = np.array([v for v in self.latency if v is not None])
        put("mlexporter_inference_duration_seconds_count", len(latency))
        for bucket in LATENCIES:
            put("mlexporter_inference_duration_seconds_bucket", (latency <= bucket).sum(), le=str(bucket))
        return numbers


def test_counts_are_those_of_the_raw_data(start_exporter: Start, tmp_path: Path) -> None:
    """Every form, batches of all sizes, compressed or not, from eight threads, while others scrape."""
    exporter = start_exporter(config=config_with_baselines(tmp_path))
    data = {target: Data(seed, ROWS // len(TARGETS)) for seed, target in enumerate(TARGETS)}
    draw = random.Random(1)
    work = [request for (model, version), each in data.items() for request in each.bodies(model, version, draw)]
    draw.shuffle(work)
    lock = threading.Lock()
    begun = answered = 0
    done = threading.Event()
    local = threading.local()

    def send(request: tuple[bytes, dict[str, str], int]) -> None:
        nonlocal begun, answered
        body, headers, rows = request
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False
        with lock:
            begun += rows
        answer = local.session.post(f"{exporter.url}/v1/samples", data=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"accepted": rows, "rejected": 0, "errors": []})
        with lock:
            answered += rows

    def watch() -> int:
        """Scrape all the while: what was answered is there, what was not sent is not, nothing ever falls."""
        scrapes, last = 0, Counter[Any]()
        with requests.Session() as session:
            session.trust_env = False
            while not done.is_set():
                least = answered
                series = series_of(session.get(f"{exporter.url}/metrics", timeout=60).text)
                seen = sum_of(series, "mlexporter_samples_total")
                assert least <= seen <= begun
                for role, column in (("feature", "income"), ("feature", "plan"), ("prediction", "prediction")):
                    bins = sum_of(series, "mlexporter_column_bin_total", role=role, column=column)
                    assert bins == seen  # every column has a value, or a missing one, of every sample
                now = Counter({key: value for key, value in series.items() if key[0] == "mlexporter_column_bin_total"})
                assert all(value >= last[key] for key, value in now.items())
                last = now
                scrapes += 1
        return scrapes

    with ThreadPoolExecutor(2) as watchers, ThreadPoolExecutor(CLIENTS) as clients:
        watching = [watchers.submit(watch) for _ in range(2)]
        try:
            assert len(list(clients.map(send, work))) == len(work)
        finally:
            done.set()
        assert all(watcher.result() >= 3 for watcher in watching)
    series = exporter.scrape()
    for (model, version), each in data.items():
        expected = each.expected(model, version)
        assert len(expected) > 60
        wrong = {key: (series.get(key), value) for key, value in expected.items() if series.get(key) != value}
        assert wrong == {}
    assert sum_of(series, "mlexporter_samples_total") == ROWS
    assert sum_of(series, "mlexporter_samples_rejected_total") == 0
    posts = sum_of(series, "mlexporter_http_requests_total", handler="/v1/samples", method="POST", code="200")
    assert posts == len(work)


def test_it_says_what_it_is(exporter: Exporter) -> None:
    assert exporter.get("/-/healthy").text == "mlexporter is healthy.\n"
    assert exporter.get("/-/ready").text == "mlexporter is ready.\n"
    assert exporter.get("/api/v1/status").json()["version"] == __version__
    assert "No model yet" in exporter.get("/").text
    assert exporter.get("/nowhere").status_code == 404
    head = exporter.session.head(f"{exporter.url}/metrics", timeout=5)
    assert (head.status_code, head.text) == (200, "")
    page = exporter.get("/metrics", Accept_Encoding="identity")
    assert "Content-Encoding" not in page.headers
    assert exporter.get("/metrics", Accept_Encoding="gzip").headers["Content-Encoding"] == "gzip"
    assert "msg=listening" in exporter.log()


IN_MEMORY = "no --storage.path: what is counted and learned is in memory, and gone after a restart"


def test_two_exporters_side_by_side(start_exporter: Start) -> None:
    first, second = start_exporter(), start_exporter("--log.format=json", "--log.level=debug")
    for _ in range(3):
        first.post({"model": "m", "features": {"x": 1}})
    second.post({"model": "m", "features": {"x": 1}})
    second.post(b"{")
    assert (first.total("mlexporter_samples_total"), second.total("mlexporter_samples_total")) == (3, 1)
    lines = [json.loads(line) for line in second.log().splitlines()]
    messages = [line["msg"] for line in lines if line["logger"].startswith("mlexporter")]
    assert messages == [IN_MEMORY, "listening", "request refused"]


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_when_nothing_goes_on(exporter: Exporter, number: int) -> None:
    exporter.post({"model": "m", "features": {"x": 1}})
    code, seconds = exporter.stop(number)
    assert code == 0
    assert seconds < 2
    own = [line for line in exporter.log().splitlines() if "logger=mlexporter." in line]
    assert IN_MEMORY in own[0]
    assert [line.partition("msg=")[2].split(" ")[0] for line in own[1:]] == ["listening", "stopping", "stopped"]


BODY = json.dumps({"model": "m", "samples": [{"features": {"x": i}} for i in range(50)]}).encode()
HEAD = f"POST /v1/samples HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
REQUEST = HEAD.encode() + BODY


def test_no_answer_is_cut_short_by_the_end(exporter: Exporter) -> None:
    ended = threading.Event()

    def load() -> Counter[str]:
        outcomes: Counter[str] = Counter()
        while not ended.is_set():
            try:
                with exporter.connect() as connection:
                    for _ in range(20):
                        connection.sendall(REQUEST)
                        answer = answer_of(connection)
                        if not answer:
                            outcomes["closed"] += 1
                            break
                        whole = is_whole(answer) and answer.startswith(b"HTTP/1.1 200") and b'"accepted":50' in answer
                        outcomes["whole" if whole else "half"] += 1
            except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
                outcomes["refused"] += 1
        return outcomes

    with ThreadPoolExecutor(CLIENTS) as clients:
        loads = [clients.submit(load) for _ in range(CLIENTS)]
        poll(lambda: exporter.total("mlexporter_samples_total") > 2000, 10)
        try:
            code, seconds = exporter.stop()
        finally:
            ended.set()
        outcomes = sum((each.result() for each in loads), Counter[str]())
    assert code == 0
    assert seconds < 5
    assert outcomes["half"] == 0
    assert outcomes["whole"] > 40
    assert outcomes["refused"] + outcomes["closed"] > 0


def test_a_request_that_was_begun_is_finished(exporter: Exporter) -> None:
    with exporter.connect() as begun, exporter.connect() as idle, exporter.connect() as used:
        used.sendall(REQUEST)
        assert is_whole(answer_of(used))
        begun.sendall(REQUEST[:-10])
        poll(lambda: exporter.total("mlexporter_samples_total") == 50, 5)
        start = time.monotonic()
        exporter.send_signal(signal.SIGTERM)
        poll(lambda: "msg=stopping" in exporter.log(), 5)
        begun.sendall(REQUEST[-10:])
        answer = answer_of(begun)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert is_whole(answer)
        assert b'"accepted":50,' in answer
        assert exporter.process.wait(5) == 0
        assert time.monotonic() - start < 5
        assert answer_of(idle) == b""
        assert answer_of(used) == b""


def test_clients_that_stall_do_not_hold_it(exporter: Exporter) -> None:
    """In the body of a first and of a later request, in the headers, in a chunk; and some that just stay."""
    chunked = HEAD.replace(f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked").encode()
    with (
        exporter.connect() as body, exporter.connect() as later, exporter.connect() as headers,
        exporter.connect() as chunk, exporter.connect(), exporter.connect(),
    ):  # fmt: skip
        later.sendall(REQUEST)
        assert is_whole(answer_of(later))
        poll(lambda: exporter.total("mlexporter_samples_total") == 50, 5)
        body.sendall(REQUEST[:-10])
        later.sendall(REQUEST[:-10])
        headers.sendall(REQUEST[:20])
        chunk.sendall(chunked + b"ff\r\n{")
        start = time.monotonic()
        code, seconds = exporter.stop()
        assert code == 0
        assert seconds < 5
        for stalled in (body, later, chunk):
            answer = answer_of(stalled)
            assert answer.startswith(b"HTTP/1.1 408")
            assert is_whole(answer)
            assert b'"reason":"request_timeout"' in answer
        assert time.monotonic() - start < 5


def test_sighup_keeps_everything(exporter: Exporter) -> None:
    session = requests.Session()
    for i in range(5):
        for _ in range(10):
            assert session.post(f"{exporter.url}/v1/samples", data=BODY, timeout=5).status_code == 200
        exporter.send_signal(signal.SIGHUP)
        so_far = i + 1
        poll(lambda: exporter.log().count("configuration reloaded") == so_far, 5)  # noqa: B023 - called at once
    session.close()
    assert exporter.total("mlexporter_samples_total") == 5 * 10 * 50
    assert exporter.process.poll() is None


# -- the beginning -----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(start_exporter: Start, tmp_path: Path) -> None:
    first = start_exporter()
    second = start_exporter(f"--web.listen-address=127.0.0.1:{first.port}", wait=False)
    assert second.process.wait(30) == 1
    assert second.log() == f"mlexporter: cannot listen on 127.0.0.1:{first.port}: Address already in use\n"
    assert first.get("/-/healthy").status_code == 200
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        third = start_exporter(f"--web.listen-address=127.0.0.1:{port}", wait=False)
        assert third.process.wait(30) == 1
    assert third.log() == f"mlexporter: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_what_cannot_be_started_says_why(start_exporter: Start, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"rows": 1}')
    config = start_exporter(config={"models": [{"name": "m", "baseline": "none.json"}], "windows": 5}, wait=False)
    missing = start_exporter(config={"models": [{"name": "m", "baseline": "none.json"}]}, wait=False)
    bad = start_exporter(config={"models": [{"name": "m", "baseline": "bad.json"}]}, wait=False)
    for exporter, told in (
        (config, "windows"),
        (missing, "none.json: cannot be read"),
        (bad, "bad.json: not a baseline"),
    ):
        assert exporter.process.wait(30) == 1
        (line,) = exporter.log().splitlines()
        assert line.startswith("mlexporter: ")
        assert told in line


@pytest.mark.parametrize("address", ["localhost", "[::1]", ""])
def test_other_addresses(start_exporter: Start, address: str) -> None:
    if address == "[::1]" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    port = free_port()
    exporter = start_exporter(f"--web.listen-address={address}:{port}", wait=False)
    exporter.url, exporter.port = f"http://{address or '127.0.0.1'}:{port}", port
    exporter.wait_until_ready()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_waitress_serves_too(start_exporter: Start) -> None:
    pytest.importorskip("waitress", reason="waitress")
    exporter = start_exporter("--web.server=waitress")
    assert exporter.post({"model": "m", "features": {"x": 1}}).json()["accepted"] == 1
    exporter.send_signal(signal.SIGHUP)
    assert exporter.post(gzip.compress(BODY)).json()["accepted"] == 50
    assert exporter.total("mlexporter_samples_total") == 51
    with exporter.connect() as connection:  # a body that would fill the disk is refused before it comes
        connection.sendall(b"POST /v1/samples HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 413 ")
    code, seconds = exporter.stop()
    assert code == 0
    assert seconds < 5
