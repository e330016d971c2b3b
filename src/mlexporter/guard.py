"""Stands before the application: nothing of a request is done before it is known that it may be.

Probes stay open. The kubelet sends no credentials, and what it asks is whether the process lives and takes in samples:
an answer that anybody gets by sending something.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import orjson

from mlexporter.authentication import Authenticator, BusyError
from mlexporter.rate_limit import RateLimiter
from mlexporter.telemetry import Telemetry

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., object]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]

OPEN_PATHS: Final = frozenset({"/-/healthy", "/-/ready"})
_HANDLERS: Final = frozenset({"/v1/samples", "/v1/labels", "/metrics"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PUSH: Final = frozenset({"push"})
_SCRAPE: Final = frozenset({"scrape"})
_BOTH: Final = _PUSH | _SCRAPE
_STATUS: Final = {
    401: "401 Unauthorized",
    403: "403 Forbidden",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


class Rules(msgspec.Struct, frozen=True):
    """What holds for requests now; replaced as a whole."""

    authenticator: Authenticator
    headers: tuple[tuple[str, str], ...] = ()
    limiter: RateLimiter | None = None
    retry_after: float = 1.0


class Guard:
    """A WSGI application around another one.

    Args:
        application: gets what is let through.
        rules: what holds for requests at the moment.
        telemetry: counts what is not let through.

    """

    def __init__(self, application: Wsgi, rules: Callable[[], Rules], telemetry: Telemetry) -> None:
        self._application = application
        self._rules = rules
        self._telemetry = telemetry

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or have it answered."""
        start = time.perf_counter()
        rules = self._rules()
        refused = None
        if environ["PATH_INFO"] not in OPEN_PATHS:
            try:
                refused = _refusal(rules, environ)
            except Exception:
                logger.error("request failed", exc_info=True)
                refused = 500, "internal error; the exporter's log says where", []
        if refused is None:
            if not rules.headers:
                return self._application(environ, start_response)

            def started(status: str, headers: Headers, *rest: object) -> object:
                return start_response(status, [*headers, *rules.headers], *rest)

            return self._application(environ, started)
        code, message, more = refused
        body = orjson.dumps({"error": message}, option=orjson.OPT_APPEND_NEWLINE)
        length = ("Content-Length", str(len(body)))
        start_response(_STATUS[code], [("Content-Type", "application/json"), length, *more, *rules.headers])
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        handler = path if path in _HANDLERS else "other"
        self._telemetry.request(handler, method, code, time.perf_counter() - start)
        return [b""] if method == "HEAD" else [body]


def permissions_needed(method: str, path: str) -> frozenset[str]:
    """What a request has to be permitted: all of these.

    >>> sorted(permissions_needed("POST", "/-/reload"))
    ['push', 'scrape']
    """
    if method in _READING:
        return _SCRAPE
    return _PUSH if method == "POST" and path.startswith("/v1/") else _BOTH


def _refusal(rules: Rules, environ: Environ) -> tuple[int, str, Headers] | None:
    """Status, message and headers of the answer to a request that is not let through."""
    if rules.limiter is not None and not rules.limiter.allow():
        return 429, "too many requests", [("Retry-After", str(math.ceil(rules.retry_after)))]
    authenticator = rules.authenticator
    if not authenticator.required:
        return None
    try:
        permissions = authenticator.permissions_of(environ.get("HTTP_AUTHORIZATION", ""))
    except BusyError:
        return 503, "too many passwords are being checked; try again", [("Retry-After", "1")]
    if permissions is None:
        return 401, "credentials are missing or wrong", list(authenticator.challenges)
    missing = permissions_needed(environ["REQUEST_METHOD"], environ["PATH_INFO"]) - permissions
    if missing:
        return 403, f"these credentials do not permit to {' and '.join(sorted(missing))}", []
    return None
