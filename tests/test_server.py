"""The HTTP surface: the WSGI application, called as a server would call it."""

import gzip
import html
import io
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from wsgiref.validate import validator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import Clock, baseline, categorical, numeric
from joining import joiner_of, running
from labelled import labelled_parts
from mlexporter import __version__, decode, server, slow_clients
from mlexporter import baseline as baseline_files
from mlexporter.baseline import Baseline
from mlexporter.config import Config, DiscoveryConfig, LimitsConfig, ModelConfig
from mlexporter.logs import Formatter
from mlexporter.pending.joiner import Overloaded
from mlexporter.pending.records import StoreError
from mlexporter.reloader import BusyReloading
from mlexporter.samples import Reason, Role
from mlexporter.server import Application
from mlexporter.slow_clients import BodyReader
from mlexporter.store import Store
from mlexporter.telemetry import Telemetry

LIMIT = 65_536
SECRET = "4929-1111-2222-3333"
HOSTILE = '<script>alert("x")</script>/..?a=1#\'&amp;'
DEADLINE = 10.0

PROFILE = baseline(
    numeric("age", [0.0, 10.0, 20.0, 30.0], [1, 5, 12, 18, 25, 25, 7, 13]),
    categorical("plan", {"pro": 5, "free": 3}),
)


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status[:3])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exporter:
    """An application and what it stands on."""

    def __init__(
        self, config: Config, baselines: dict[tuple[str, str], Baseline] | None = None, most: int = 48
    ) -> None:
        self.clock = Clock()
        self.store = Store(config, baselines or {}, self.clock)
        self.telemetry = Telemetry(self.clock)
        self.joiner = joiner_of(self.store, self.clock)
        reader = BodyReader(config.limits.max_body_bytes, most=most)
        self.application = Application(self.store, self.joiner, self.telemetry, config, reader, self.clock)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | io.RawIOBase = b"",
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """Answer a request; `path` is percent-decoded, as a server hands it over."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "9877",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:9877",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if isinstance(body, bytes) and body:
            environ["CONTENT_LENGTH"] = str(len(body))
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, given: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            started.append((status, given))
            return lambda _: None

        parts: Iterable[bytes] = self.application(environ, start_response)
        try:
            content = b"".join(parts)
        finally:
            getattr(parts, "close", lambda: None)()
        ((status, given),) = started
        assert len({name for name, _ in given}) == len(given)
        return Answer(status, dict(given), content)

    def post(self, content: object, **headers: str) -> Answer:
        """Send samples."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.call("POST", "/v1/samples", body, {name.replace("_", "-"): text for name, text in headers.items()})

    def counted(self, name: str, **labels: str) -> float:
        """A number on the page; 0 where it is not there."""
        page = self.call("GET", "/metrics").body.decode()
        return sum(
            sample.value
            for family in parse_text(page)
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def rejected(self) -> dict[str, float]:
        """Refused samples by reason, those that were not refused left out."""
        page = self.call("GET", "/metrics").body.decode()
        found = re.findall(r'^mlexporter_samples_rejected_total\{reason="(\w+)"\} (.*)$', page, re.MULTILINE)
        assert [reason for reason, _ in found] == [reason.value for reason in Reason]
        return {reason: float(value) for reason, value in found if float(value)}


LIMITS = LimitsConfig(max_body_bytes=LIMIT)


@pytest.fixture
def exporter() -> Exporter:
    """An exporter that knows the model churn in version 7, and no other."""
    model = ModelConfig(name="churn", version="7", task="binary")
    return Exporter(Config(models=(model,), limits=LIMITS), {("churn", "7"): PROFILE})


@pytest.fixture
def discovering() -> Exporter:
    """An exporter that learns what comes."""
    discovery = DiscoveryConfig(enabled=True, learn_samples=200, max_models=2, max_columns=3)
    return Exporter(Config(limits=LimitsConfig(max_body_bytes=1 << 20, max_versions=2), discovery=discovery))


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """Everything that is logged, as it would be written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter("logfmt"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


ROW = {"features": {"age": 15, "plan": "pro"}}


# -- the configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_reload_is_forbidden_unless_it_is_enabled(exporter: Exporter, method: str) -> None:
    answer = exporter.call(method, "/-/reload")
    assert (answer.status, answer.body) == ("403 FORBIDDEN", b"Lifecycle API is not enabled.\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_reload_is_not_for_reading(exporter: Exporter, method: str) -> None:
    exporter.application.reload = lambda: pytest.fail("it was reloaded")
    answer = exporter.call(method, "/-/reload")
    assert answer.code == 405
    assert answer.headers["Allow"] == "POST, PUT"


def test_reload_answers_as_prometheus_does(exporter: Exporter) -> None:
    answers: list[str | None] = [None, "a.yml:1:1: windwos: unknown key\na.yml:2:1: models: too many"]
    exporter.application.reload = lambda: answers.pop(0)
    good, bad = exporter.call("POST", "/-/reload"), exporter.call("PUT", "/-/reload")
    assert (good.code, good.body) == (200, b"")
    assert (bad.code, bad.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert bad.body == (b"failed to reload config: a.yml:1:1: windwos: unknown key\na.yml:2:1: models: too many\n")
    name = "mlexporter_http_requests_total"
    assert exporter.counted(name, handler="/-/reload", code="500", method="PUT") == 1


def test_too_many_reloads(exporter: Exporter) -> None:
    def busy() -> None:
        raise BusyReloading("others wait")

    exporter.application.reload = busy
    answer = exporter.call("POST", "/-/reload")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")


def test_limits_and_the_landing_page_follow_the_configuration(exporter: Exporter) -> None:
    body = json.dumps({"model": "churn", "version": "7", "samples": [ROW] * 100}).encode()
    assert exporter.post(body, content_type="application/json").code == 200
    assert exporter.counted("mlexporter_series_limit") == LIMITS.max_series
    smaller = LimitsConfig(max_body_bytes=1024, max_series=1234)
    exporter.application.use(Config(limits=smaller, discovery=DiscoveryConfig(enabled=True)))
    assert exporter.post(body, content_type="application/json").code == 413
    assert exporter.post(gzip.compress(body), content_type="application/json").code == 413
    assert exporter.counted("mlexporter_series_limit") == 1234
    assert exporter.call("GET", "/api/v1/status").json["series"]["limit"] == 1234


# -- samples -----------------------------------------------------------------------------------------------------------


def test_good_samples(exporter: Exporter) -> None:
    answer = exporter.post({"model": "churn", "version": "7", "samples": [ROW, ROW]}, content_type="application/json")
    assert (answer.status, answer.body) == ("200 OK", b'{"accepted":2,"rejected":0,"errors":[]}\n')
    assert answer.headers == {"Content-Type": "application/json", "Content-Length": "40"}
    assert exporter.post({"columns": {"features": {"age": [15, 25, None]}}}).json["accepted"] == 3
    assert exporter.post(ROW).json == {"accepted": 1, "rejected": 0, "errors": []}
    assert exporter.post(b'{"features": {"age": 5}}\n' * 4, content_type="application/x-ndjson").json["accepted"] == 4
    assert exporter.post(gzip.compress(json.dumps(ROW).encode())).json["accepted"] == 1
    assert exporter.post(gzip.compress(json.dumps(ROW).encode()), content_encoding="gzip").json["accepted"] == 1
    assert exporter.counted("mlexporter_samples_total", model="churn", version="7") == 2 + 3 + 1 + 4 + 1 + 1
    ages = {"__below__": 0, "01 0..10": 4, "02 10..20": 2 + 1 + 1 + 2, "03 20..30": 1, "__above__": 0, "__missing__": 1}
    for label, count in ages.items():
        assert exporter.counted("mlexporter_column_bin_total", column="age", bin=label) == count
    assert exporter.rejected() == {}


def test_a_body_in_chunks(exporter: Exporter) -> None:
    body = io.BytesIO(json.dumps(ROW).encode())
    assert exporter.call("POST", "/v1/samples", body, {"Transfer-Encoding": "chunked"}).json["accepted"] == 1  # type: ignore[arg-type]


def test_nothing_sent_is_nothing_accepted(exporter: Exporter) -> None:
    assert exporter.post({"samples": []}).body == b'{"accepted":0,"rejected":0,"errors":[]}\n'
    assert exporter.call("POST", "/v1/samples", b"", {"Content-Type": "application/x-ndjson"}).json["accepted"] == 0


def test_one_bad_sample_never_costs_its_neighbours(exporter: Exporter) -> None:
    samples = [ROW, {**ROW, "id": 7}, {"features": {"age": "old", "plan": "pro"}}, {**ROW, "latency_seconds": -1}, 5]
    answer = exporter.post({"samples": samples})
    assert answer.code == 200
    assert answer.json == {
        "accepted": 2,
        "rejected": 3,
        "errors": [
            {"index": 1, "reason": "invalid_id", "message": '"id" is text, not a number', "column": "id"},
            {
                "index": 3,
                "reason": "invalid_latency",
                "message": '"latency_seconds" is finite and not negative',
                "column": "latency_seconds",
            },
            {"index": 4, "reason": "not_an_object", "message": "a sample is an object, not a number"},
        ],
    }
    assert exporter.rejected() == {"invalid_id": 1, "invalid_latency": 1, "not_an_object": 1}
    assert exporter.counted("mlexporter_samples_total") == 2
    assert exporter.counted("mlexporter_values_invalid_total", column="age") == 1


def test_all_samples_bad_is_still_an_answer_about_samples(exporter: Exporter) -> None:
    answer = exporter.post({"samples": [1]})
    assert (answer.code, answer.json["accepted"], answer.json["rejected"]) == (200, 0, 1)


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_at_most_20_errors_are_listed_and_all_are_counted(exporter: Exporter, form: str) -> None:
    rows = [[1, "x", None, [], True][i % 5] if i % 7 else ROW for i in range(600)]
    content = json.dumps({"samples": rows}) if form == "application/json" else "\n".join(map(json.dumps, rows))
    answer = exporter.post(content.encode(), content_type=form)
    good = len(range(0, 600, 7))
    assert (answer.json["accepted"], answer.json["rejected"]) == (good, 600 - good)
    assert [error["index"] for error in answer.json["errors"]] == [i for i in range(24) if i % 7][:20]
    assert exporter.rejected() == {"not_an_object": 600 - good}


def test_values_of_samples_are_not_echoed(exporter: Exporter) -> None:
    content = {
        "model": "churn",
        "samples": [SECRET, {"features": SECRET}, {**ROW, "id": [SECRET]}, {**ROW, "error": 1}],
    }
    answer = exporter.post(content)
    assert answer.json["rejected"] == 3 + 1
    assert SECRET.encode() not in answer.body


# -- requests that are refused as a whole ------------------------------------------------------------------------------

Refused = tuple[bytes, dict[str, str], str, Reason]
REFUSED: dict[str, Refused] = {
    "no json": (b"{", {}, "400 Bad Request", Reason.INVALID_JSON),
    "nothing": (b"", {}, "400 Bad Request", Reason.INVALID_JSON),
    "no utf-8": (b'{"features": {"a": "\xff"}}', {}, "400 Bad Request", Reason.INVALID_JSON),
    "no gzip": (b"{}", {"Content-Encoding": "gzip"}, "400 Bad Request", Reason.INVALID_GZIP),
    "half a gzip": (gzip.compress(b"{}" * 9)[:-3], {}, "400 Bad Request", Reason.INVALID_GZIP),
    "structure": (b"[]", {}, "400 Bad Request", Reason.INVALID_STRUCTURE),
    "length": (b"{}", {"Content-Length": "-5"}, "400 Bad Request", Reason.INVALID_STRUCTURE),
    "columns": (b'{"columns": {"features": {"a": [1], "b": []}}}', {}, "400 Bad Request", Reason.UNEQUAL_COLUMNS),
    "name": (b'{"model": 1.5, "features": {}}', {}, "400 Bad Request", Reason.INVALID_MODEL),
    "too short": (b"{}", {"Content-Length": "3"}, "408 Request Timeout", Reason.REQUEST_TIMEOUT),
    "too long": (bytes(LIMIT + 1), {}, "413 Content Too Large", Reason.BODY_TOO_LARGE),
    "gzip bomb": (gzip.compress(bytes(10 * LIMIT)), {}, "413 Content Too Large", Reason.BODY_TOO_LARGE),
    "a form": (
        b"a=1", {"Content-Type": "application/x-www-form-urlencoded"},
        "415 Unsupported Media Type", Reason.UNSUPPORTED_MEDIA_TYPE,
    ),
    "brotli": (b"{}", {"Content-Encoding": "br"}, "415 Unsupported Media Type", Reason.UNSUPPORTED_MEDIA_TYPE),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests(exporter: Exporter, case: str) -> None:
    body, headers, status, reason = REFUSED[case]
    answer = exporter.call("POST", "/v1/samples", body, headers)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert ("Connection" in answer.headers) == (answer.code in (408, 413))
    assert "Retry-After" not in answer.headers
    assert set(answer.json) == {"error", "reason", "column"}
    assert answer.json["reason"] == reason.value
    assert answer.json["column"] == ("b" if reason is Reason.UNEQUAL_COLUMNS else None)
    assert answer.json["error"]
    assert exporter.rejected() == {reason.value: 1}
    code = status[:3]
    assert exporter.counted("mlexporter_http_requests_total", handler="/v1/samples", method="POST", code=code) == 1
    assert exporter.post(ROW).json["accepted"] == 1


class Untouchable(io.RawIOBase):
    """A body that must not be read."""

    def read(self, size: int = -1, /) -> bytes:
        raise AssertionError("the body was read")


def test_too_large_is_said_before_reading(exporter: Exporter) -> None:
    answer = exporter.call("POST", "/v1/samples", Untouchable(), {"Content-Length": str(LIMIT + 1)})
    assert (answer.code, answer.headers["Connection"]) == (413, "close")
    assert answer.json["error"] == "the body is larger than limits.max_body_bytes (65536 bytes); send smaller batches"


class Held(io.RawIOBase):
    """A body that comes when it is let go."""

    def __init__(self, body: bytes) -> None:
        self.body, self.begun, self.let_go = body, threading.Event(), threading.Event()

    def read(self, size: int = -1, /) -> bytes:
        self.begun.set()
        assert self.let_go.wait(DEADLINE)
        return self.body


def test_no_more_bodies_are_read_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "_PLACE_SECONDS", 0.0)
    exporter = Exporter(Config(discovery=DiscoveryConfig(enabled=True)), most=2)
    body = json.dumps({"model": "m", **ROW}).encode()
    bodies, answers = [Held(body), Held(body)], []
    threads = [
        threading.Thread(
            target=lambda held=held: answers.append(
                exporter.call("POST", "/v1/samples", held, {"Content-Length": str(len(body))})
            )
        )
        for held in bodies
    ]
    for thread, held in zip(threads, bodies, strict=True):
        thread.start()
        assert held.begun.wait(DEADLINE)
    answer = exporter.call("POST", "/v1/samples", Untouchable(), {"Content-Length": "2"})
    assert (answer.status, answer.headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert answer.json["reason"] == "overloaded"
    assert exporter.call("GET", "/-/healthy").code == 200
    assert exporter.rejected() == {"overloaded": 1}
    for thread, held in zip(threads, bodies, strict=True):
        held.let_go.set()
        thread.join(DEADLINE)
    assert [given.json["accepted"] for given in answers] == [1, 1]
    assert exporter.post(body).json["accepted"] == 1


@pytest.mark.parametrize("small", [False, True])
def test_large_and_compressed_bodies_wait_for_their_turn(
    discovering: Exporter, monkeypatch: pytest.MonkeyPatch, *, small: bool
) -> None:
    body = json.dumps({"model": "m", **ROW}).encode()
    large = body + b" " * server.LARGE_BODY
    monkeypatch.setattr(slow_clients, "_TURN_SECONDS", 0.0)
    begun, let_go = threading.Event(), threading.Event()
    observe = discovering.store.observe

    def hold(batches: Any) -> Any:
        begun.set()
        assert let_go.wait(DEADLINE)
        return observe(batches)

    monkeypatch.setattr(discovering.store, "observe", hold)
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(discovering.post(body if small else large)))
    first.start()
    assert begun.wait(DEADLINE)
    monkeypatch.setattr(discovering.store, "observe", observe)
    for second in (large, gzip.compress(body)):
        answer = discovering.post(second)
        assert answer.code == (200 if small else 503)
        assert ("Retry-After" in answer.headers) != small
    assert discovering.post(body).code == 200
    let_go.set()
    first.join(DEADLINE)
    assert [answer.json["accepted"] for answer in answers] == [1]
    assert discovering.post(large).code == 200


@pytest.mark.parametrize("place", ["observe", "decode"])
@pytest.mark.parametrize("large", [False, True])
def test_a_fault_of_ours_tells_nothing(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str], place: str, *, large: bool
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError(f"cannot count {SECRET}")

    target = exporter.store if place == "observe" else decode
    with monkeypatch.context() as patched:
        patched.setattr(target, place, fail)
        body = json.dumps({"features": {"card": SECRET}}).encode()
        answer = exporter.post(gzip.compress(body) if large else body)
    assert answer.status == "500 Internal Server Error"
    assert answer.json == {
        "error": "internal error; the exporter's log says where",
        "reason": "internal_error",
        "column": None,
    }
    assert 'msg="request failed" path=/v1/samples error="RuntimeError at test_server.py:' in log()
    assert SECRET not in log()
    assert exporter.rejected() == {"internal_error": 1}
    assert exporter.post(gzip.compress(json.dumps(ROW).encode())).json["accepted"] == 1


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/status", "/", "/api/v1/models/churn/versions/7/baseline"])
def test_a_fault_of_ours_while_reading_tells_nothing(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str], path: str
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError(f"cannot read {SECRET}")

    with monkeypatch.context() as patched:
        patched.setattr(exporter.store, "snapshot", fail)
        answer = exporter.call("GET", path)
    assert answer.code == 500
    assert answer.json["error"] == "internal error; the exporter's log says where"
    assert SECRET.encode() not in answer.body
    assert f'msg="request failed" path={path} error="RuntimeError at test_server.py:' in log()
    assert SECRET not in log()
    assert exporter.call("GET", path).code == 200


def test_refusals_are_logged_for_who_looks_without_what_was_sent(exporter: Exporter, log: Callable[[], str]) -> None:
    exporter.post(json.dumps({"samples": [SECRET]}).encode())
    exporter.post(SECRET.encode())
    assert 'level=debug logger=mlexporter.server msg="samples refused" reasons=not_an_object' in log()
    assert 'level=debug logger=mlexporter.server msg="request refused" reason=invalid_json' in log()
    assert SECRET not in log()


# -- models that are not monitored -------------------------------------------------------------------------------------


def test_unknown_models_are_404(exporter: Exporter) -> None:
    answer = exporter.post({"model": "fraud", "samples": [ROW, ROW, ROW]})
    assert answer.status == "404 Not Found"
    assert answer.json == {
        "accepted": 0,
        "rejected": 3,
        "errors": [
            {
                "index": 0,
                "reason": "unknown_model",
                "message": "model 'fraud' is not configured; known: churn",
                "count": 3,
            }
        ],
    }
    assert exporter.rejected() == {"unknown_model": 3}


def test_unknown_models_cost_their_neighbours_nothing(exporter: Exporter) -> None:
    lines = [{"model": model, **ROW} for model in ("churn", "fraud", "churn", "spam", "fraud")]
    answer = exporter.post("\n".join(map(json.dumps, lines)).encode(), content_type="application/x-ndjson")
    assert (answer.code, answer.json["accepted"], answer.json["rejected"]) == (200, 2, 3)
    assert [(error["reason"], error.get("count", 1)) for error in answer.json["errors"]] == [
        ("unknown_model", 2),
        ("unknown_model", 1),
    ]


def test_models_and_versions_have_caps(discovering: Exporter) -> None:
    assert discovering.post(ROW).json["errors"][0]["reason"] == "unknown_model"
    assert discovering.post({"model": "a", "version": "1", **ROW}).code == 200
    assert discovering.post({"model": "b", **ROW}).code == 200
    for i in range(50):
        answer = discovering.post({"model": f"m{i}", **ROW})
        assert (answer.code, answer.json["errors"][0]["reason"]) == (404, "model_limit")
    assert discovering.post({"model": "a", "version": "2", **ROW}).code == 200
    for i in range(50):
        answer = discovering.post({"model": "a", "version": f"v{i}", **ROW})
        assert (answer.code, answer.json["errors"][0]["reason"]) == (404, "version_limit")
    assert discovering.rejected() == {"unknown_model": 1, "model_limit": 50, "version_limit": 50}
    page = discovering.call("GET", "/metrics").body.decode()
    assert set(re.findall(r'model="(\w+)"', page)) == {"a", "b"}


# -- methods and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/samples", {"POST"}),
        ("PUT", "/v1/samples", {"POST"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("BREW", "/metrics", {"GET", "HEAD"}),
        ("POST", "/-/healthy", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/api/v1/status", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/api/v1/models/churn/versions/7/baseline", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_other_methods_are_405_with_those_that_are_allowed(
    exporter: Exporter, method: str, path: str, allowed: set[str]
) -> None:
    answer = exporter.call(method, path, Untouchable(), {"Content-Length": "10"})
    assert answer.status.upper() == "405 METHOD NOT ALLOWED"
    assert set(answer.headers["Allow"].split(", ")) == allowed
    assert answer.json["error"] == f"method not allowed; allowed: {answer.headers['Allow']}"
    assert exporter.rejected() == {}


def test_head(exporter: Exporter) -> None:
    for path in ("/metrics", "/-/healthy", "/", "/api/v1/status"):
        answer = exporter.call("HEAD", path)
        assert (answer.code, answer.body) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "path", ["/v1/samples/", "/metric", "/metrics/", "/api/v1/models/x/baseline", "/v1/label", "*"]
)
def test_other_paths_are_404(exporter: Exporter, path: str) -> None:
    answer = exporter.call("GET", path)
    assert answer.code == 404
    assert answer.json == {"error": "no such page; GET / lists what is here"}


def test_a_query_is_passed_over(exporter: Exporter) -> None:
    assert exporter.call("GET", "/metrics", query="name[]=x").body.startswith(b"# HELP mlexporter_samples_total")
    assert exporter.call("GET", "/-/healthy", query="x").code == 200


HANDLERS = {
    "/v1/samples", "/v1/labels", "/metrics", "/", "/-/healthy", "/-/ready", "/api/v1/status",
    "/api/v1/models/<path:model>/versions/<path:version>/baseline", "other",
}  # fmt: skip


@given(st.text(max_size=20), st.sampled_from(["GET", "POST", "TRACE", "PROPFIND", "x"]), st.text(max_size=10))
@settings(max_examples=60)
def test_label_values_never_come_from_a_client(path: str, method: str, host: str) -> None:
    exporter = Exporter(Config())
    for given_path in ("/" + path, path, f"/api/v1/models/{path}/versions/{path}/baseline"):
        exporter.call(method, given_path, headers={"Host": host})
    page = exporter.application.page(openmetrics=False).decode()
    assert set(re.findall(r'handler="([^"]*)"', page)) <= HANDLERS
    assert set(re.findall(r'method="([^"]*)"', page)) <= {"GET", "POST", "other"}
    assert set(re.findall(r'code="([^"]*)"', page)) <= {"200", "308", "400", "404", "405"}


def test_unknown_paths_and_methods_are_counted_as_other(exporter: Exporter) -> None:
    for i in range(30):
        exporter.call("GET", f"/random/{i}")
        exporter.call(f"M{i}", "/metrics")
        exporter.call("GET", f"/api/v1/models/m{i}/versions/1/baseline")
    assert exporter.counted("mlexporter_http_requests_total", handler="other", method="GET", code="404") == 30
    assert exporter.counted("mlexporter_http_requests_total", handler="/metrics", method="other", code="405") == 30
    baselines = "/api/v1/models/<path:model>/versions/<path:version>/baseline"
    assert exporter.counted("mlexporter_http_requests_total", handler=baselines, code="404") == 30
    page = exporter.call("GET", "/metrics").body.decode()
    assert len(re.findall("^mlexporter_http_requests_total", page, re.MULTILINE)) == 4


def test_the_application_keeps_to_wsgi(exporter: Exporter) -> None:
    """`validator` raises where the application does not do as PEP 3333 says."""
    exporter.application = validator(exporter.application)  # type: ignore[assignment]
    for path in ("/metrics", "/", "/-/ready", "/nowhere"):
        exporter.call("GET", path)
    assert exporter.post(ROW, content_type="application/json").code == 200


# -- the page ----------------------------------------------------------------------------------------------------------

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain; version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        (PROMETHEUS, OPENMETRICS),
        ("application/json", TEXT),
        (";;,,q=", TEXT),
        ("application/openmetrics-text;version=1.0.0+q=0.5", OPENMETRICS),
        ("application/openmetrics-text;version=x;q=\xff", OPENMETRICS),
        ("application/openmetrics-text;q=0", TEXT),
    ],
)
def test_the_form_of_the_page(exporter: Exporter, accept: str, content_type: str) -> None:
    answer = exporter.call("GET", "/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert "Content-Encoding" not in answer.headers
    ends = answer.body.count(b"# EOF")
    assert ends == (1 if content_type is OPENMETRICS else 0)
    assert answer.body.endswith(b"\n# EOF\n" if ends else b"\n")


@pytest.mark.parametrize(
    ("accept", "compressed"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br , x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip ; Q = 0.", False),
        ("gzip;q=0.5", True),
        ("gzip;q=0.05", True),
        ("identity", False),
        ("deflate, br", False),
        ("gzipped", False),
    ],
)
def test_the_page_is_compressed_where_that_is_welcome(exporter: Exporter, accept: str, *, compressed: bool) -> None:
    answer = exporter.call("GET", "/metrics", headers={"Accept-Encoding": accept})
    assert answer.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    page = gzip.decompress(answer.body) if compressed else answer.body
    assert page.startswith(b"# HELP mlexporter_samples_total Accepted samples.\n")
    assert answer.headers["Content-Length"] == str(len(answer.body))


def test_both_forms_tell_the_same(exporter: Exporter) -> None:
    samples = [{"features": {"age": i % 40, "plan": ["pro", "free", "new", None][i % 4]}} for i in range(100)]
    for i, sample in enumerate(samples):
        exporter.post({**sample, "latency_seconds": i / 10, "error": i % 9 == 0, "prediction": 0.5})
    text = exporter.call("GET", "/metrics").body.decode()
    other = exporter.call("GET", "/metrics", headers={"Accept": OPENMETRICS}).body.decode()
    pages = [parse_text(text), parse_openmetrics(other)]  # type: ignore[no-untyped-call]
    first, second = (
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
            if sample.labels.get("model") or sample.name.startswith("mlexporter_samples_rejected")
            if not sample.name.endswith("_created")
        }
        for families in pages
    )
    assert first == second
    assert len(first) > 80
    assert first["mlexporter_samples_total", (("model", "churn"), ("version", "7"))] == 100
    assert first["mlexporter_inference_errors_total", (("model", "churn"), ("version", "7"))] == 12
    assert first["mlexporter_inference_duration_seconds_count", (("model", "churn"), ("version", "7"))] == 100


def test_the_page_of_an_exporter_that_knows_nothing(discovering: Exporter) -> None:
    text = discovering.call("GET", "/metrics").body.decode()
    assert {family.name for family in parse_text(text)} >= {"mlexporter_samples_rejected", "mlexporter_build_info"}
    other = discovering.call("GET", "/metrics", headers={"Accept": OPENMETRICS}).body.decode()
    assert list(parse_openmetrics(other))  # type: ignore[no-untyped-call]
    assert discovering.counted("mlexporter_series") == 0


# -- probes, status, baselines, landing page ---------------------------------------------------------------------------


def test_probes(exporter: Exporter) -> None:
    healthy = exporter.call("GET", "/-/healthy")
    assert (healthy.code, healthy.body) == (200, b"mlexporter is healthy.\n")
    ready = exporter.call("GET", "/-/ready")
    assert (ready.code, ready.body) == (503, b"mlexporter is not ready.\n")
    exporter.application.ready.set()
    ready = exporter.call("GET", "/-/ready")
    assert (ready.code, ready.body) == (200, b"mlexporter is ready.\n")
    exporter.application.ready.clear()
    assert exporter.call("GET", "/-/ready").code == 503


def test_status(exporter: Exporter) -> None:
    started = exporter.clock.now
    exporter.clock.now += 60
    ages: list[object] = [5, 15, 25, 35, None, "old"]
    rows = [{"features": {"age": age, "plan": "gold", "x": 1}, "error": age == 5} for age in ages]
    exporter.post({"samples": rows})
    status = exporter.call("GET", "/api/v1/status").json
    assert {key: status[key] for key in ("version", "started")} == {"version": __version__, "started": started}
    assert status["series"]["limit"] == 50_000
    assert status["series"]["used"] > 0
    (model,) = status["models"]
    columns = {column["column"]: column for column in model.pop("columns")}
    assert model == {
        "model": "churn",
        "version": "7",
        "task": "binary",
        "samples": 6,
        "last_sample": started + 60,
        "inference_errors": 1,
        "values_in_unknown_columns": 6,
        "feedback": None,
        "state": "watching",
        "baseline": {"source": "file", "hash": PROFILE.hash, "rows": 8},
    }
    assert {name: (column["role"], column["type"], column["invalid"]) for name, column in columns.items()} == {
        "age": ("feature", "numeric", 1),
        "plan": ("feature", "categorical", 0),
    }
    hour = columns["age"]["windows"]["1h"]
    assert hour["samples"] == 6
    assert hour["missing_ratio"] == pytest.approx(2 / 6)
    assert hour["new_category_ratio"] is None
    assert columns["plan"]["windows"]["24h"]["new_category_ratio"] == 1.0


def test_status_of_a_model_that_is_learned(discovering: Exporter) -> None:
    assert discovering.call("GET", "/api/v1/status").json["models"] == []
    discovering.post({"model": "m", "samples": [{"features": {"x": i % 17, "b": i % 2 == 0}} for i in range(150)]})
    (model,) = discovering.call("GET", "/api/v1/status").json["models"]
    assert (model["state"], model["samples"], model["learned_samples"], model["columns"]) == ("learning", 150, 150, [])
    assert model["task"] is None
    discovering.post({"model": "m", "samples": [{"features": {"x": i % 17, "b": i % 2 == 0}} for i in range(100)]})
    (model,) = discovering.call("GET", "/api/v1/status").json["models"]
    assert (model["state"], model["samples"]) == ("provisional", 250)
    assert model["baseline"] == {"source": "learned", "hash": None, "rows": 250}
    assert [column["type"] for column in model["columns"]] == ["numeric", "boolean"]


def test_a_baseline_is_given_out_as_the_file_it_would_be(
    exporter: Exporter, discovering: Exporter, tmp_path: Path
) -> None:
    path = tmp_path / "baseline.json"
    answer = exporter.call("GET", "/api/v1/models/churn/versions/7/baseline")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/json")
    path.write_bytes(answer.body)
    assert baseline_files.read(path) == PROFILE
    discovering.post({"model": "m", "samples": [{"features": {"x": i % 17, "c": f"k{i % 3}"}} for i in range(300)]})
    path.write_bytes(discovering.call("GET", "/api/v1/models/m/versions/unversioned/baseline").body)
    learned = baseline_files.read(path)
    assert (learned.model, learned.version, learned.source, learned.rows) == ("m", "unversioned", "learned", 300)
    assert [(column.name, sum(column.counts)) for column in learned.columns] == [("c", 300), ("x", 300)]


def strict(body: bytes) -> Any:
    """JSON as it is specified, without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(body, parse_constant=refuse)


DRIFT = "/api/v1/models/churn/versions/7/drift"


def test_drift_is_explained(exporter: Exporter) -> None:
    exporter.store.tick()
    exporter.post({"columns": {"features": {"age": [15, 1000, None] * 400, "plan": ["new"] * 1200}}})
    exporter.clock.now += 15
    exporter.store.tick()
    answer = exporter.call("GET", DRIFT)
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/json")
    told = strict(answer.body)
    assert (told["model"], told["version"], told["state"]) == ("churn", "7", "watching")
    assert told["log_threshold"] == pytest.approx(math.log(2 * 30 * 86400 / 15))
    # a baseline of eight rows knows little, but that much
    plan = next(column for column in told["columns"] if column["column"] == "plan")["tiers"]["page"]
    assert (plan["state"], plan["fired"], plan["samples"]) == ("firing", exporter.clock.now, 1200)
    assert plan["since"] == exporter.clock.now - 15
    assert [reason["direction"] for reason in plan["reasons"]] == ["new_categories_up"]
    assert exporter.call("HEAD", DRIFT).code == 200
    assert exporter.call("POST", DRIFT).headers["Allow"] == "GET, HEAD, OPTIONS"
    route = "/api/v1/models/<path:model>/versions/<path:version>/drift"
    assert exporter.counted("mlexporter_http_requests_total", handler=route) == 2


def test_drift_of_a_version_that_is_not_there(exporter: Exporter) -> None:
    for path in ("churn/versions/8", "fraud/versions/7", "churn/versions/7/x", "../versions/7"):
        answer = exporter.call("GET", f"/api/v1/models/{path}/drift")
        assert (answer.status, answer.headers["Content-Type"]) == ("404 NOT FOUND", "application/json")
        assert answer.json == {"error": "no such model version; see /api/v1/status"}


def test_drift_while_a_baseline_is_learned(discovering: Exporter) -> None:
    for model in ("m", "a/b"):
        discovering.post({"model": model, "version": "v/1", "features": {"x": 1.0}})
        told = strict(discovering.call("GET", f"/api/v1/models/{model}/versions/v/1/drift").body)
        expected: dict[str, Any] = {
            "model": model,
            "version": "v/1",
            "state": "learning",
            "log_threshold": None,
            "columns": [],
            "outcomes": None,
        }
        assert told == expected
    discovering.post({"model": "m", "version": "v/1", "columns": {"features": {"x": [1.0, 2.0] * 120}}})
    told = strict(discovering.call("GET", "/api/v1/models/m/versions/v/1/drift").body)
    assert (told["state"], told["log_threshold"]) == ("provisional", None)


def test_drift_is_finite_whatever_the_baseline() -> None:
    """One of no rows accepts everything, which is no number in JSON."""
    empty = baseline(numeric("age", [0.0, 10.0, 20.0], []), categorical("plan", {}))
    exporter = Exporter(Config(models=(ModelConfig(name="churn", version="7"),)), {("churn", "7"): empty})
    for ages in ([1e308, math.inf, None], [5.0]):
        assert strict(exporter.call("GET", DRIFT).body)["state"] == "watching"
        exporter.post({"columns": {"features": {"age": ages * 500, "plan": ["a"] * 500 * len(ages)}}})
        exporter.clock.now += 15
        exporter.store.tick()
    told = strict(exporter.call("GET", DRIFT).body)
    assert [column["column"] for column in told["columns"]]
    for column in told["columns"]:
        for tier in column["tiers"].values():
            assert (tier["state"], tier["tolerance"]) == ("quiet", None)


def test_no_baseline_is_404(exporter: Exporter, discovering: Exporter) -> None:
    discovering.post({"model": "m", **ROW})
    for known, path in (
        (exporter, "churn/versions/8"),
        (exporter, "x/versions/7"),
        (discovering, "m/versions/unversioned"),
    ):
        answer = known.call("GET", f"/api/v1/models/{path}/baseline")
        assert answer.code == 404
        assert answer.json == {"error": "no such model version, or no baseline yet; see /api/v1/status"}


@pytest.mark.parametrize("name", [HOSTILE, "模型 7", "a/b/c", 'quote"\\back', "{{7*7}}", "100%", "x" * 128])
def test_odd_names_are_shown_safely_and_their_links_work(discovering: Exporter, name: str) -> None:
    rows = [{"features": {name: i, "x": i}, "prediction": name} for i in range(200)]
    assert discovering.post({"model": name, "version": name, "samples": rows}).json["accepted"] == 200
    answer = discovering.call("GET", "/")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert "<script" not in page
    assert f"<h3>{html.escape(name)} <small>".replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    (link,) = re.findall(r'href="(/api/v1/models/[^"]*)"', page)
    assert re.fullmatch(r"[A-Za-z0-9/%_.~-]+", link)
    found = discovering.call("GET", unquote(link))
    assert found.code == 200
    assert (found.json["model"], found.json["version"]) == (name, name)
    text = discovering.call("GET", "/metrics").body.decode()
    assert name in {sample.labels.get("model") for family in parse_text(text) for sample in family.samples}


NOT_KNOWN = "\N{EN DASH}"


def test_the_landing_page_shows_performance() -> None:
    exporter = Exporter(*labelled_parts())
    columns = {"prediction": [0.875, 0.125, 0.75, 0.25] * 100, "label": [1, 0, 0, 0] * 100}
    body = json.dumps({"model": "binary", "columns": columns}).encode()
    with running(exporter.joiner):
        assert exporter.call("POST", "/v1/labels", body, {"Content-Type": "application/json"}).code == 200
    page = exporter.call("GET", "/").body.decode()
    rows = {
        model: {
            name: re.findall(r'number">([^<]*)', cells)
            for name, cells in re.findall(r"<tr><td>(\w+)</td>(<td class=\"number\".*?)</tr>", part, re.DOTALL)
        }
        for model, part in re.findall(r"<h3>(\w+) <small>(.*?)(?=<h3>|</body>)", page, re.DOTALL)
    }
    assert "400 labels; 0 predictions wait for theirs." in page
    told = next(each for each in exporter.call("GET", "/api/v1/status").json["models"] if each["model"] == "binary")
    trained = told["feedback"]["baseline"]
    # three of four are right, in both windows; nothing was predicted, so nothing is estimated
    assert rows["binary"]["accuracy_ratio"] == [
        f"{trained['accuracy_ratio']:.4g}",
        "0.75",
        NOT_KNOWN,
        "0.75",
        NOT_KNOWN,
    ]
    assert rows["binary"].keys() == trained.keys()
    assert rows["regression"]["r2_ratio"][1:] == [NOT_KNOWN] * 4


def test_the_landing_page_says_what_runs_and_links_to_it(exporter: Exporter, discovering: Exporter) -> None:
    exporter.post({"samples": [ROW] * 1234})
    page = exporter.call("GET", "/").body.decode()
    for text in (
        f"mlexporter <small>{__version__}</small>",
        "churn <small>version 7</small>",
        "1,234 samples",
        PROFILE.hash,
    ):
        assert text in page
    for link in re.findall(r'href="([^"]*)"', page):
        exporter.application.ready.set()
        assert exporter.call("GET", link).code == 200, link
    page = discovering.call("GET", "/").body.decode()
    assert "No model yet." in page
    assert "a baseline is learned from them" in page
    discovering.post({"model": "m", **ROW})
    assert "Learning: 1 samples" in discovering.call("GET", "/").body.decode()


def test_a_model_that_nobody_monitors_is_404_whatever_else_is_wrong(exporter: Exporter) -> None:
    answer = exporter.post({"model": "other", "samples": [ROW, {"features": 3}, 7]}, content_type="application/json")
    assert answer.code == 404
    assert [(error["index"], error["reason"]) for error in answer.json["errors"]] == [
        (0, "unknown_model"),
        (1, "invalid_features"),
        (2, "not_an_object"),
    ]
    assert exporter.post({"model": "churn", "samples": [7]}, content_type="application/json").code == 200


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def judged() -> Iterator[Exporter]:
    """An exporter of a binary model whose join runs."""
    profile = baseline(numeric("prediction", (0.0, 0.5, 1.0), [0.25, 0.75] * 500, role=Role.PREDICTION))
    made = Exporter(Config(models=(ModelConfig(name="m", version="1", task="binary"),)), {("m", "1"): profile})
    with running(made.joiner):
        yield made


def sent(exporter: Exporter, path: str, document: object) -> Answer:
    return exporter.call("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})


def outcomes(exporter: Exporter) -> dict[tuple[str, str], float]:
    """By predicted and actual class, once what was offered is joined."""
    text = exporter.call("GET", "/metrics").body.decode()
    found = re.findall(
        r'^mlexporter_outcomes_total\{actual="(.)",model="m",predicted="(.)",version="1"\} (\S+)$', text, re.M
    )
    return {(predicted, actual): float(count) for actual, predicted, count in found if float(count)}


def test_labels_by_id_are_joined(judged: Exporter) -> None:
    samples = [{"id": f"r{i}", "features": {}, "prediction": score} for i, score in enumerate((0.9, 0.8, 0.2))]
    assert sent(judged, "/v1/samples", {"samples": samples}).json["accepted"] == 3
    answer = sent(judged, "/v1/labels", {"labels": [{"id": "r0", "label": 1}, {"id": "r1", "label": 0}]})
    assert (answer.code, answer.json) == (200, {"accepted": 2, "rejected": 0, "errors": []})
    # a label of a prediction that comes later, in columns
    assert sent(judged, "/v1/labels", {"columns": {"id": ["r2", "r3"], "label": [0, True]}}).json["accepted"] == 2
    assert sent(judged, "/v1/samples", {"id": "r3", "features": {}, "prediction": 0.6}).code == 200
    sent(judged, "/v1/labels", {"id": "r0", "label": 1})  # said again, and a wait for what was offered
    eventually(lambda: sum(outcomes(judged).values()) == 4)
    assert outcomes(judged) == {("1", "1"): 2, ("1", "0"): 1, ("0", "0"): 1}
    assert judged.counted("mlexporter_labels_repeated_total") == 1


def test_labels_with_their_predictions_are_counted(judged: Exporter) -> None:
    together = [
        {"prediction": 0.9, "label": 1},
        {"prediction": "0", "label": "1"},
        {"id": "x", "prediction": 0.1, "label": 0},
    ]
    assert sent(judged, "/v1/labels", {"labels": together}).json["accepted"] == 3
    at_once = [{"features": {}, "prediction": 0.7, "label": 0}, {"features": {}, "prediction": 0.7}]
    assert sent(judged, "/v1/samples", {"samples": at_once}).json["accepted"] == 2
    eventually(lambda: sum(outcomes(judged).values()) == 4)
    assert outcomes(judged) == {("1", "1"): 1, ("0", "1"): 1, ("0", "0"): 1, ("1", "0"): 1}


def test_a_label_by_id_is_of_every_version_whatever_comes_with_it(judged: Exporter) -> None:
    """The prediction beside it is of version 1, the default; the label alone is of version 2, which made its own."""
    sample = {"model": "m", "version": "2", "id": "a", "features": {}, "prediction": 0.9}
    assert sent(judged, "/v1/samples", sample).code == 200
    labels = [{"id": "a", "label": 1}, {"prediction": 0.2, "label": 0}]
    assert sent(judged, "/v1/labels", {"labels": labels}).json["accepted"] == 2
    eventually(lambda: sum(outcomes(judged).values()) == 1)
    text = judged.call("GET", "/metrics").body.decode()
    assert 'mlexporter_outcomes_total{actual="1",model="m",predicted="1",version="2"} 1.0' in text


def test_labels_of_unknown_models_are_404_and_make_none_known(judged: Exporter) -> None:
    answer = sent(judged, "/v1/labels", {"model": "n", "labels": [{"id": "a", "label": 1}]})
    assert (answer.code, answer.json["errors"][0]["reason"]) == (404, "unknown_model")
    assert 'model="n"' not in judged.call("GET", "/metrics").body.decode()


def test_one_bad_label_never_costs_its_neighbours(judged: Exporter) -> None:
    labels = [{"id": "a", "label": None}, {"id": "b", "label": 1}, {"label": 1}, 7]
    answer = sent(judged, "/v1/labels", {"labels": labels}).json
    assert (answer["accepted"], answer["rejected"]) == (1, 3)
    assert [error["reason"] for error in answer["errors"]] == ["invalid_label", "missing_id", "not_an_object"]


def test_labels_are_refused_while_they_cannot_be_kept(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(exporter.joiner, "submit", down)
    answer = sent(exporter, "/v1/labels", {"id": "a", "label": 1})
    assert (answer.code, answer.json["reason"], answer.headers["Retry-After"]) == (503, "store_unavailable", "1")
    monkeypatch.setattr(exporter.joiner, "submit", overloaded)
    answer = sent(exporter, "/v1/labels", {"id": "a", "label": 1})
    assert (answer.code, answer.json["reason"], answer.headers["Retry-After"]) == (503, "overloaded", "1")


def overloaded(*_: object) -> None:
    raise Overloaded("too many labels wait")


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
