"""What is let through to the application, and how the rest is answered."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pytest

from conftest import Clock
from mlexporter.authentication import Authenticator, PasswordChecks, Token
from mlexporter.guard import Guard, Rules
from mlexporter.rate_limit import RateLimiter
from mlexporter.telemetry import Telemetry

HASH = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # crypt_blowfish: the password is U*U
NAMES = {"pusher": {"push"}, "scraper": {"scrape"}, "admin": {"push", "scrape"}}
TOKENS = {f"{name}-0123456789": permissions for name, permissions in NAMES.items()}
CHALLENGES = ['Basic realm="mlexporter", charset="UTF-8"', 'Bearer realm="mlexporter"']


def authenticator() -> Authenticator:
    tokens = [Token(hashlib.sha256(text.encode()).digest(), frozenset(may)) for text, may in TOKENS.items()]
    permissions = {name: frozenset(may) for name, may in NAMES.items()}
    return Authenticator(dict.fromkeys(NAMES, HASH), permissions, tokens, PasswordChecks(contextlib.nullcontext))


class Site:
    """A guard, and an application behind it that answers everything."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.reached: list[str] = []
        self.telemetry = Telemetry(Clock())
        self._guard = Guard(self._application, lambda: self.rules, self.telemetry)

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.reached.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"reached"]

    def ask(self, method: str, path: str, authorization: str | None = None) -> tuple[int, list[tuple[str, str]], bytes]:
        answers: list[tuple[int, list[tuple[str, str]]]] = []
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path}
        if authorization is not None:
            environ["HTTP_AUTHORIZATION"] = authorization
        body = b"".join(self._guard(environ, lambda status, headers: answers.append((int(status[:3]), headers))))
        ((code, headers),) = answers
        assert (len(self.reached) > 0) == (code == 200)
        self.reached.clear()
        return code, headers, body


@pytest.fixture
def site() -> Site:
    return Site(Rules(authenticator()))


# rows: who may, 200 or not, as pusher, scraper and admin
TABLE = {
    ("POST", "/v1/samples"): (200, 403, 200),
    ("POST", "/v1/labels"): (200, 403, 200),
    ("GET", "/v1/samples"): (403, 200, 200),
    ("GET", "/metrics"): (403, 200, 200),
    ("HEAD", "/metrics"): (403, 200, 200),
    ("GET", "/"): (403, 200, 200),
    ("GET", "/api/v1/status"): (403, 200, 200),
    ("GET", "/openapi.json"): (403, 200, 200),
    ("GET", "/nowhere"): (403, 200, 200),
    ("OPTIONS", "/metrics"): (403, 200, 200),
    ("POST", "/metrics"): (403, 403, 200),
    ("POST", "/-/reload"): (403, 403, 200),
    ("PUT", "/-/reload"): (403, 403, 200),
    ("DELETE", "/v1/samples"): (403, 403, 200),
    ("BREW", "/v1/samples"): (403, 403, 200),
    ("GET", "/-/healthy"): (200, 200, 200),
    ("GET", "/-/ready"): (200, 200, 200),
}


@pytest.mark.parametrize("request_", TABLE)
def test_permissions(site: Site, request_: tuple[str, str]) -> None:
    for name, expected in zip(NAMES, TABLE[request_], strict=True):
        password = "Basic " + base64.b64encode(f"{name}:U*U".encode()).decode()
        for authorization in (f"Bearer {name}-0123456789", password):
            assert site.ask(*request_, authorization)[0] == expected, name


@pytest.mark.parametrize("request_", TABLE)
@pytest.mark.parametrize("authorization", [None, "", "Bearer nobody-0123456789", "Basic YTpi"])
def test_without_credentials_only_probes_are_answered(
    site: Site, request_: tuple[str, str], authorization: str | None
) -> None:
    code, headers, body = site.ask(*request_, authorization)
    if request_[1].startswith("/-/") and request_[1] != "/-/reload":
        assert (code, body) == (200, b"reached")
        return
    assert code == 401
    assert [value for name, value in headers if name == "WWW-Authenticate"] == CHALLENGES
    assert body == b"" if request_[0] == "HEAD" else json.loads(body) == {"error": "credentials are missing or wrong"}


@pytest.mark.parametrize(
    "path", ["/-/healthy/", "//-/healthy", "/-/healthy/../../metrics", "/-/Healthy", "/-/ready\0", "/-/healthy?"]
)
def test_what_only_looks_like_a_probe_is_none(site: Site, path: str) -> None:
    assert site.ask("GET", path)[0] == 401


def test_what_is_refused_is_counted(site: Site) -> None:
    site.ask("GET", "/metrics")
    site.ask("POST", "/v1/samples", "Bearer scraper-0123456789")
    site.ask("BREW", "/somewhere")
    page = site.telemetry.page(openmetrics=False).decode()
    for labels in (
        'code="401",handler="/metrics",method="GET"',
        'code="403",handler="/v1/samples",method="POST"',
        'code="401",handler="other",method="other"',
    ):
        assert f"mlexporter_http_requests_total{{{labels}}} 1.0" in page


def test_a_403_says_what_is_missing(site: Site) -> None:
    _, headers, body = site.ask("POST", "/-/reload", "Bearer scraper-0123456789")
    assert json.loads(body) == {"error": "these credentials do not permit to push"}
    assert dict(headers)["Content-Length"] == str(len(body))


def test_headers_are_on_every_answer(site: Site) -> None:
    extra = ("X-Frame-Options", "deny")
    site.rules = Rules(authenticator(), (extra,))
    for path in ("/-/healthy", "/metrics"):
        assert extra in site.ask("GET", path)[1]
    assert extra in site.ask("GET", "/metrics", "Bearer admin-0123456789")[1]


def test_nothing_is_asked_where_nobody_is_named() -> None:
    nobody = Authenticator({}, {}, (), PasswordChecks(contextlib.nullcontext))
    site = Site(Rules(nobody))
    assert site.ask("POST", "/v1/samples")[0] == 200
    assert site.ask("GET", "/metrics", "Bearer whatever")[0] == 200


def test_too_many_checks_are_a_503_that_is_to_be_tried_again() -> None:
    checks = PasswordChecks(contextlib.nullcontext)
    vars(checks)["_going_on"].update({str(number).encode(): None for number in range(4)})
    site = Site(Rules(Authenticator({"a": HASH}, {"a": frozenset({"push"})}, (), checks)))
    code, headers, _ = site.ask("POST", "/v1/samples", "Basic YTpi")
    assert (code, dict(headers)["Retry-After"]) == (503, "1")
    assert site.ask("GET", "/-/healthy")[0] == 200


def test_a_fault_lets_nobody_through() -> None:
    def fail(_: bytes, __: bytes) -> bool:
        raise RuntimeError("secret")

    checks = PasswordChecks(contextlib.nullcontext, fail)
    site = Site(Rules(Authenticator({"a": HASH}, {"a": frozenset({"push"})}, (), checks)))
    code, _, body = site.ask("POST", "/v1/samples", "Basic YTpi")
    assert (code, b"secret" in body) == (500, False)


# -- rate limit --------------------------------------------------------------------------------------------------------


def test_a_bucket_by_hand() -> None:
    clock = Clock(0.0)
    limiter = RateLimiter(2.0, 3, clock)
    assert [limiter.allow() for _ in range(4)] == [True, True, True, False]
    clock.now = 1.9
    assert not limiter.allow()
    clock.now = 2.1
    assert [limiter.allow() for _ in range(2)] == [True, False]
    clock.now = 1000.0  # it never holds more than the burst
    assert [limiter.allow() for _ in range(4)] == [True, True, True, False]


def test_a_burst_of_none_lets_nobody_through() -> None:
    clock = Clock(0.0)
    limiter = RateLimiter(1.0, 0, clock)
    clock.now = 1000.0
    assert not limiter.allow()


def test_beyond_the_limit_requests_are_refused_and_probes_are_not() -> None:
    clock = Clock(0.0)
    nobody = Authenticator({}, {}, (), PasswordChecks(contextlib.nullcontext))
    site = Site(Rules(nobody, (), RateLimiter(2.5, 1, clock), 2.5))
    assert site.ask("GET", "/metrics")[0] == 200
    code, headers, _ = site.ask("GET", "/metrics")
    assert (code, dict(headers)["Retry-After"]) == (429, "3")
    assert site.ask("GET", "/-/ready")[0] == 200
    clock.now = 2.5
    assert site.ask("GET", "/metrics")[0] == 200
