"""The HTTP surface: a WSGI application that answers the two hot routes itself and hands the rest to Flask.

Flask costs some 80 microseconds a request, which is more than the whole way of a sample into the store.
"""

import gzip
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import flask
import msgspec
import orjson

from mlexporter import __version__, baseline, decode
from mlexporter.answers import Problem, Refusal, Refused, Taken, encoded
from mlexporter.config import Config
from mlexporter.explanation import drift_of
from mlexporter.exposition import Exposition
from mlexporter.label_intake import LabelIntake
from mlexporter.negotiation import accepts
from mlexporter.pending.joiner import Joiner, Overloaded
from mlexporter.pending.records import StoreError
from mlexporter.reloader import BusyReloading
from mlexporter.samples import DecodeError, Reason, Rejection
from mlexporter.slow_clients import BodyReader
from mlexporter.snapshot import Receipt
from mlexporter.status import status_of
from mlexporter.store import Store
from mlexporter.telemetry import Telemetry

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
T = TypeVar("T")
StartResponse = Callable[[str, list[tuple[str, str]]], object]

LARGE_BODY: Final = 64 << 10  # bytes
MAX_ERRORS_LISTED: Final = decode.REJECTIONS_LISTED
_PATHS: Final = {"/v1/samples": "POST", "/v1/labels": "POST", "/metrics": "GET"}
_STATUS: Final = {
    200: "200 OK", 400: "400 Bad Request", 404: "404 Not Found", 405: "405 Method Not Allowed",
    408: "408 Request Timeout", 413: "413 Content Too Large", 415: "415 Unsupported Media Type",
    500: "500 Internal Server Error", 503: "503 Service Unavailable",
}  # fmt: skip
_CODE_OF: Final = {
    Reason.BODY_TOO_LARGE: 413,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.REQUEST_TIMEOUT: 408,
    Reason.OVERLOADED: 503,
    Reason.STORE_UNAVAILABLE: 503,
    Reason.INTERNAL_ERROR: 500,
}
# A request of which nothing is accepted, and something for one of these, is answered 404: nobody monitors that here.
_NOT_MONITORED: Final = frozenset((Reason.UNKNOWN_MODEL, Reason.MODEL_LIMIT, Reason.VERSION_LIMIT, Reason.SERIES_LIMIT))
_JSON: Final = ("Content-Type", "application/json")
_OPENMETRICS_END: Final = b"# EOF\n"


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer of the hot routes."""

    code: int
    headers: list[tuple[str, str]]
    body: bytes


class Application:
    """The WSGI application.

    Args:
        store: where samples go and snapshots come from.
        joiner: where predictions wait for their labels.
        telemetry: the exporter's own metrics.
        config: limits, and whether discovery is on.
        reader: reads request bodies.
        clock: Unix time in seconds.

    Attributes:
        config: as above; `use` changes it.
        ready: whether samples are taken.
        reload: reads the configuration again and says what is wrong with it; None where nobody may ask for that.

    """

    def __init__(
        self,
        store: Store,
        joiner: Joiner,
        telemetry: Telemetry,
        config: Config,
        reader: BodyReader,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._joiner = joiner
        self._labels = LabelIntake(store, joiner, clock, reader.held_up)
        self._clock = clock
        self._telemetry = telemetry
        self.config = config
        self._reader = reader
        self._exposition = Exposition()
        self._exposition_lock = threading.Lock()
        self.ready = threading.Event()
        self.reload: Callable[[], str | None] | None = None
        self._flask = _flask_application(self, store, clock)

    def use(self, config: Config) -> None:
        """Go by another configuration."""
        self.config, self._reader.limit = config, config.limits.max_body_bytes

    def reloaded(self) -> flask.Response:
        """The answer to a request to reload, which is that of Prometheus."""
        if self.reload is None:
            return _text("Lifecycle API is not enabled.\n", 403)
        try:
            with self._reader.held_up():
                problems = self.reload()
        except BusyReloading as error:
            answer = _text(f"failed to reload config: {error}\n", 503)
            answer.headers["Retry-After"] = "1"
            return answer
        return _text("", 200) if problems is None else _text(f"failed to reload config: {problems}\n", 500)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        start = time.perf_counter()
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path not in _PATHS:
            return self._delegate(environ, start_response, start)
        try:
            if path == "/v1/samples":
                answer = self._samples(environ) if method == "POST" else _not_allowed("POST")
            elif path == "/v1/labels":
                answer = self._take_labels(environ) if method == "POST" else _not_allowed("POST")
            else:
                answer = self._metrics(environ) if method in ("GET", "HEAD") else _not_allowed("GET, HEAD")
        except Exception:
            logger.error("request failed", exc_info=True, extra={"path": path})
            answer = self._refusal(Reason.INTERNAL_ERROR, "internal error; the exporter's log says where")
        return self._send(answer, environ, start_response, start)

    def _send(self, answer: Answer, environ: Environ, start_response: StartResponse, start: float) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        start_response(_STATUS[answer.code], [*answer.headers, ("Content-Length", str(len(answer.body)))])
        self._telemetry.request(path, method, answer.code, time.perf_counter() - start)
        return [b""] if method == "HEAD" else [answer.body]

    # -- samples and labels -------------------------------------------------------------------------------------------

    def _samples(self, environ: Environ) -> Answer:
        try:
            return self._read(environ, self._count)
        except DecodeError as error:
            return self._refusal(error.reason, error.message, error.column)

    def _count(self, body: bytes, media_type: str) -> Answer:
        decoded = decode.decode(body, media_type)
        receipt = self._store.observe(decoded.batches)
        for model, version, batch in receipt.awaiting:
            self._joiner.offer(model, version, batch, self._clock())
        return self._answer(receipt, decoded.rejections)

    def _take_labels(self, environ: Environ) -> Answer:
        try:
            decoded = self._read(environ, decode.decode_labels)
            receipt = self._labels.take(decoded.labels)
        except DecodeError as error:
            return self._refusal(error.reason, error.message, error.column)
        except Overloaded as error:
            return self._refusal(Reason.OVERLOADED, str(error))
        except StoreError as error:
            return self._refusal(Reason.STORE_UNAVAILABLE, str(error))
        return self._answer(receipt, decoded.rejections)

    def _read(self, environ: Environ, use: Callable[[bytes, str], T]) -> T:
        """What `use` makes of a body and its media type; large bodies are used one at a time. Raises DecodeError."""
        sent = self._reader.read(environ)
        if len(sent) <= LARGE_BODY and not decode.is_gzip(sent):
            return self._use(sent, environ, use)
        with self._reader.turn():
            return self._use(sent, environ, use)

    def _use(self, sent: bytes, environ: Environ, use: Callable[[bytes, str], T]) -> T:
        encoding = environ.get("HTTP_CONTENT_ENCODING", "")
        body = decode.decompress(sent, encoding, self.config.limits.max_body_bytes)
        return use(body, environ.get("CONTENT_TYPE", ""))

    def _answer(self, receipt: Receipt, refused: Sequence[Rejection]) -> Answer:
        rejections = sorted((*refused, *receipt.rejections), key=lambda rejection: rejection.index)
        if not rejections:
            return Answer(200, [_JSON], b'{"accepted":%d,"rejected":0,"errors":[]}\n' % receipt.accepted)
        return self._partial(receipt.accepted, rejections)

    def _partial(self, accepted: int, rejections: Sequence[Rejection]) -> Answer:
        """The answer where some samples were refused, or all of them."""
        for rejection in rejections:
            self._telemetry.rejected(rejection)
        logger.debug("samples refused", extra={"reasons": ",".join(sorted({r.reason for r in rejections}))})
        not_monitored = not accepted and any(rejection.reason in _NOT_MONITORED for rejection in rejections)
        rejected = sum(rejection.count for rejection in rejections)
        listed = [_described(rejection) for rejection in rejections[:MAX_ERRORS_LISTED]]
        return Answer(404 if not_monitored else 200, [_JSON], encoded(Taken(accepted, rejected, listed)))

    def _refusal(self, reason: Reason, message: str, column: str | None = None) -> Answer:
        """The answer to a request that is refused as a whole."""
        self._telemetry.refused(reason)
        logger.debug("request refused", extra={"reason": reason.value})
        code = _CODE_OF.get(reason, 400)
        headers = [_JSON]
        if code == 503:
            headers.append(("Retry-After", "1"))
        if code in (408, 413):
            headers.append(("Connection", "close"))  # the rest of the body is not going to be read
        return Answer(code, headers, encoded(Refusal(message, reason, column)))

    # -- metrics ------------------------------------------------------------------------------------------------------

    def _metrics(self, environ: Environ) -> Answer:
        openmetrics = accepts(environ.get("HTTP_ACCEPT", ""), "application/openmetrics-text")
        page = self.page(openmetrics=openmetrics)
        headers = [("Content-Type", _content_type(openmetrics=openmetrics)), ("Vary", "Accept, Accept-Encoding")]
        if accepts(environ.get("HTTP_ACCEPT_ENCODING", ""), "gzip", "x-gzip"):
            # level 1: a ninth of the time of the usual 9 for a page that is a seventh larger
            page = gzip.compress(page, compresslevel=1, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return Answer(200, headers, page)

    def page(self, *, openmetrics: bool) -> bytes:
        """The whole page: the models, then the exporter itself."""
        start = time.perf_counter()
        with self._exposition_lock:
            snapshot = self._store.snapshot()
            models = self._exposition.page(snapshot, openmetrics=openmetrics)
            self._telemetry.joined(self._joiner.health())
        self._telemetry.series.set(snapshot.series)
        self._telemetry.series_limit.set(self.config.limits.max_series)
        self._telemetry.scrape_duration.observe(time.perf_counter() - start)
        own = self._telemetry.page(openmetrics=openmetrics)
        return b"".join((models, own, _OPENMETRICS_END if openmetrics else b""))

    # -- the rest -----------------------------------------------------------------------------------------------------

    def _delegate(self, environ: Environ, start_response: StartResponse, start: float) -> Iterable[bytes]:
        codes: list[int] = []

        def started(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            codes.append(int(status.split(" ", 1)[0]))
            start_response(status, headers)
            return _write

        body = list(self._flask(environ, started))
        rule = environ.get("mlexporter.route", "other")
        code = codes[-1] if codes else 500
        self._telemetry.request(rule, environ["REQUEST_METHOD"], code, time.perf_counter() - start)
        return body


def _write(_: bytes) -> object:
    """The imperative way to answer, which WSGI has kept from the nineties and Flask does not use."""
    raise RuntimeError("write() is not supported")


def _json(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def _described(rejection: Rejection) -> Refused:
    return Refused(rejection.index, rejection.reason, rejection.message, rejection.column, rejection.count)


def _not_allowed(allowed: str) -> Answer:
    return Answer(405, [_JSON, ("Allow", allowed)], encoded(Problem(f"method not allowed; allowed: {allowed}")))


def _content_type(*, openmetrics: bool) -> str:
    if openmetrics:
        return "application/openmetrics-text; version=1.0.0; charset=utf-8"
    return "text/plain; version=0.0.4; charset=utf-8"


def _text(text: str, status: int = 200) -> flask.Response:
    return flask.Response(text, status=status, mimetype="text/plain")


def _flask_application(app: Application, store: Store, clock: Callable[[], float]) -> flask.Flask:
    """The routes that are not hot."""
    web = flask.Flask(__name__, static_folder=None)

    @web.before_request
    def note_route() -> None:
        # the rule, not the path: a label value must not come from a client
        if flask.request.url_rule is not None:
            flask.request.environ["mlexporter.route"] = flask.request.url_rule.rule

    _add_lifecycle(web, app)
    _add_reports(web, app, store, started=clock())
    _add_errors(web)
    return web


def _add_lifecycle(web: flask.Flask, app: Application) -> None:
    @web.get("/-/healthy")
    def healthy() -> flask.Response:
        return _text("mlexporter is healthy.\n")

    @web.get("/-/ready")
    def ready() -> flask.Response:
        if app.ready.is_set():
            return _text("mlexporter is ready.\n")
        return _text("mlexporter is not ready.\n", 503)

    @web.route("/-/reload", methods=["POST", "PUT"], provide_automatic_options=False)
    def reload() -> flask.Response:
        return app.reloaded()


def _add_reports(web: flask.Flask, app: Application, store: Store, *, started: float) -> None:
    @web.get("/api/v1/status")
    def status() -> flask.Response:
        content = status_of(store.snapshot(), started=started, max_series=app.config.limits.max_series)
        return flask.Response(_json(content), mimetype="application/json")

    @web.get("/api/v1/models/<path:model>/versions/<path:version>/baseline")
    def model_baseline(model: str, version: str) -> flask.Response:
        found = store.baseline(model, version)
        if found is None:
            content = orjson.dumps({"error": "no such model version, or no baseline yet; see /api/v1/status"})
            return flask.Response(content, status=404, mimetype="application/json")
        return flask.Response(baseline.encode(found), mimetype="application/json")

    @web.get("/api/v1/models/<path:model>/versions/<path:version>/drift")
    def model_drift(model: str, version: str) -> flask.Response:
        content = drift_of(store.snapshot(), model, version)
        if content is None:
            content = {"error": "no such model version; see /api/v1/status"}
            return flask.Response(_json(content), status=404, mimetype="application/json")
        return flask.Response(_json(content), mimetype="application/json")

    @web.get("/openapi.json")
    def description() -> flask.Response:
        from mlexporter import openapi  # some ten milliseconds that few exporters need

        return flask.Response(_json(openapi.document()), mimetype="application/json")

    @web.get("/")
    def landing() -> str:
        content = status_of(store.snapshot(), started=started, max_series=app.config.limits.max_series)
        return flask.render_template(
            "landing.html", status=content, discovery=app.config.discovery.enabled, version=__version__
        )


def _add_errors(web: flask.Flask) -> None:
    @web.errorhandler(404)
    def not_found(_: Exception) -> tuple[dict[str, str], int]:
        return {"error": "no such page; GET / lists what is here"}, 404

    @web.errorhandler(405)
    def not_allowed(error: Exception) -> tuple[dict[str, str], int, list[tuple[str, str]]]:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        return {"error": f"method not allowed; allowed: {allowed}"}, 405, [("Allow", allowed)]

    @web.errorhandler(500)
    def failed(error: Exception) -> tuple[dict[str, str], int]:
        original = getattr(error, "original_exception", None) or error
        logger.error("request failed", exc_info=original, extra={"path": flask.request.path})
        return {"error": "internal error; the exporter's log says where"}, 500

    web.log_exception = lambda _: None  # type: ignore[method-assign,assignment]  # its text may hold a sample's value
