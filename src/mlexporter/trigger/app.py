"""What the trigger answers over HTTP, without the sockets."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mlexporter.logs import where
from mlexporter.negotiation import accepts
from mlexporter.trigger import notification
from mlexporter.trigger.config import WebConfig
from mlexporter.trigger.notification import NotificationError
from mlexporter.trigger.receiver import Receiver
from mlexporter.trigger.telemetry import Outcome
from mlexporter.trigger.token import TokenError, is_authorized, read_token

logger = logging.getLogger(__name__)

WEBHOOK: Final = "/v1/alerts"
_ALLOWED: Final = {
    WEBHOOK: ("POST",),
    "/metrics": ("GET", "HEAD"),
    "/-/healthy": ("GET", "HEAD"),
    "/-/ready": ("GET", "HEAD"),
}
# Alertmanager tries again after a 5xx and gives up after a 4xx, until it would repeat the notification anyway.
_CODES: Final = {
    Outcome.STARTED: 202,
    Outcome.QUEUE_FULL: 503,
    Outcome.STOPPING: 503,
    Outcome.NOT_RECORDED: 503,
}
_RETRY_AFTER: Final = "10"  # seconds
_PLAIN: Final = ("Content-Type", "text/plain; charset=utf-8")


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A request. `body` reads so many bytes, and may raise TimeoutError, or EOFError where the client left."""

    method: str
    path: str
    body: Callable[[int], bytes]
    authorization: str = ""
    accept: str = ""
    length: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """An answer."""

    code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class TriggerApplication:
    """The routes of the trigger."""

    def __init__(self, settings: WebConfig, receiver: Receiver) -> None:
        self._token_file: Path = settings.bearer_token_file
        self._max_body = settings.max_body_bytes
        self._receiver = receiver
        self.ready = threading.Event()

    def answer(self, incoming: Incoming) -> Reply:
        """Answer a request."""
        try:
            return self._answer(incoming)
        except Exception as error:  # noqa: BLE001 - a bug in one request must not end the server
            logger.error("request failed", extra={"path": incoming.path[:200], "error": where(error)})
            return _problem(500, "internal error; the log of the trigger says where")

    def _answer(self, incoming: Incoming) -> Reply:
        allowed = _ALLOWED.get(incoming.path)
        if allowed is None:
            return _problem(404, f"no such page; here are {', '.join(_ALLOWED)}")
        if incoming.method not in allowed:
            names = ", ".join(allowed)
            return _problem(405, f"method not allowed; allowed: {names}", ("Allow", names))
        if incoming.path == WEBHOOK:
            return self._webhook(incoming)
        if incoming.path == "/metrics":
            return self._metrics(incoming.accept)
        if incoming.path == "/-/healthy":
            return Reply(200, (_PLAIN,), b"mlexporter trigger is healthy.\n")
        if self.ready.is_set():
            return Reply(200, (_PLAIN,), b"mlexporter trigger is ready.\n")
        return Reply(503, (_PLAIN,), b"mlexporter trigger is not ready.\n")

    def _webhook(self, incoming: Incoming) -> Reply:
        try:
            token = read_token(self._token_file)
        except TokenError as error:
            logger.error("no notification can be taken", extra={"error": f"web.bearer_token_file: {error}"})
            return _problem(503, "the token of the webhook cannot be read", ("Retry-After", _RETRY_AFTER))
        if not is_authorized(incoming.authorization, token):
            challenge = ("WWW-Authenticate", "Bearer")
            return self._refused(Outcome.UNAUTHORIZED, 401, "a bearer token is needed, and not this one", challenge)
        length = incoming.length
        if length is None or not (length.isascii() and length.isdigit()) or len(length) > 15:
            return self._refused(Outcome.INVALID, 411, "Content-Length is missing or no number")
        if int(length) > self._max_body:
            return self._refused(Outcome.TOO_LARGE, 413, f"the body is larger than {self._max_body} bytes")
        try:
            found = notification.decode(incoming.body(int(length)))
        except NotificationError as error:
            return self._refused(Outcome.INVALID, 400, str(error))
        except (OSError, EOFError):
            return self._refused(Outcome.INVALID, 408, "the body did not come in time")
        answer = self._receiver.receive(found)
        code = _CODES.get(answer.outcome, 200)
        content = {"outcome": answer.outcome.value, "route": answer.route, "run": answer.run}
        return _json(code, content, *([("Retry-After", _RETRY_AFTER)] if code == 503 else []))

    def _refused(self, outcome: Outcome, code: int, message: str, *headers: tuple[str, str]) -> Reply:
        self._receiver.telemetry.notified(outcome)
        logger.warning("notification refused", extra={"outcome": outcome.value, "reason": message})
        return _problem(code, message, *headers)

    def _metrics(self, accept: str) -> Reply:
        openmetrics = accepts(accept, "application/openmetrics-text")
        page = self._receiver.telemetry.page(openmetrics=openmetrics)
        if openmetrics:
            content_type, page = "application/openmetrics-text; version=1.0.0; charset=utf-8", page + b"# EOF\n"
        else:
            content_type = "text/plain; version=0.0.4; charset=utf-8"
        return Reply(200, (("Content-Type", content_type), ("Vary", "Accept")), page)


def _json(code: int, content: object, *headers: tuple[str, str]) -> Reply:
    return Reply(code, (("Content-Type", "application/json"), *headers), msgspec.json.encode(content) + b"\n")


def _problem(code: int, message: str, *headers: tuple[str, str]) -> Reply:
    return _json(code, {"error": message}, *headers)
