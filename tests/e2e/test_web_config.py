"""TLS, users and tokens with the real exporter, the real Prometheus, and files that change under load."""

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests

from certificates import Authority, write_pair
from conftest import needs
from e2e.conftest import Exporter, Start, free_port, poll
from e2e.prometheus import running, scraping

SECONDS = 30.0
TOKEN = "0123456789abcdef"
SAMPLE = {"model": "churn", "features": {"age": 1}}
TLS = {"cert_file": "server.crt", "key_file": "server.key"}
MTLS = TLS | {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "clients.crt"}
PUSH_TOKEN = {"name": "model", "token": TOKEN, "permissions": ["push"]}


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


class Site:
    """A folder with a web configuration, certificates, and an exporter that uses them."""

    def __init__(self, folder: Path, start: Start) -> None:
        self.folder = folder
        self._start = start
        self.authority = Authority()
        self.clients = Authority()
        write_pair(folder, self.authority.server())
        write_pair(folder, self.clients.client(), "client")
        (folder / "ca.crt").write_bytes(self.authority.pem)
        (folder / "clients.crt").write_bytes(self.clients.pem)
        self.certificate = (str(folder / "client.crt"), str(folder / "client.key"))

    def write(self, **settings: Any) -> None:
        new = self.folder / "web.yml.new"
        new.write_text(json.dumps(settings))
        new.replace(self.folder / "web.yml")

    def start(self, *options: str, tls: bool = True, client: bool = False, **settings: Any) -> Exporter:
        """An exporter, and a session that trusts it and, as a `client`, shows a certificate."""
        self.write(**settings)

        def prepare(exporter: Exporter) -> None:
            if tls:
                exporter.url = exporter.url.replace("http:", "https:")
                exporter.session.verify = str(self.folder / "ca.crt")
            if client:
                exporter.session.cert = self.certificate

        return self._start("--web.config.file=web.yml", *options, prepare=prepare)

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if client:
            context.load_cert_chain(*self.certificate)
        return context


@pytest.fixture
def site(tmp_path: Path, start_exporter: Start) -> Site:
    return Site(tmp_path, start_exporter)


def shown_by(exporter: Exporter, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection is shown."""
    plain = socket.create_connection(("127.0.0.1", exporter.port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return found


def becomes(found: Callable[[], object], expected: object, *, same: bool = True) -> None:
    """Wait until what is found is as expected, or another thing."""
    poll(lambda: (found() == expected) is same, SECONDS)


def spoken(exporter: Exporter, context: ssl.SSLContext) -> str | None:
    """The version of TLS over which a request was answered; None where it was not."""
    try:
        plain = socket.create_connection(("127.0.0.1", exporter.port), timeout=10)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answered = connection.recv(100).startswith(b"HTTP/1.1 200")
            return connection.version() if answered else None
    except (ssl.SSLError, ConnectionError):
        return None


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_and_its_versions(site: Site) -> None:
    exporter = site.start(tls_server_config=TLS, http_server_config={"headers": {"X-Frame-Options": "deny"}})
    assert exporter.post(SAMPLE).json()["accepted"] == 1
    for path, code in (("/metrics", 200), ("/", 200), ("/nowhere", 404), ("/-/healthy", 200), ("/v1/samples", 405)):
        answer = exporter.get(path)
        assert (answer.status_code, answer.headers["X-Frame-Options"]) == (code, "deny")
    assert spoken(exporter, site.context()) == "TLSv1.3"
    old = site.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert spoken(exporter, old) == "TLSv1.2"
    with exporter.connect() as plain:  # HTTP without TLS
        plain.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" not in plain.recv(1000)
    assert exporter.stop()[0] == 0


def test_least_version(site: Site) -> None:
    exporter = site.start(tls_server_config=TLS | {"min_version": "TLS13"})
    old = site.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert spoken(exporter, old) is None
    assert spoken(exporter, site.context()) == "TLSv1.3"


def test_clients_need_a_certificate(site: Site) -> None:
    exporter = site.start(client=True, tls_server_config=MTLS)
    assert exporter.post(SAMPLE).json()["accepted"] == 1
    assert spoken(exporter, site.context()) is None
    stranger = site.context()
    write_pair(site.folder, site.authority.client(), "stranger")
    stranger.load_cert_chain(site.folder / "stranger.crt", site.folder / "stranger.key")
    assert spoken(exporter, stranger) is None
    assert spoken(exporter, site.context(client=True)) == "TLSv1.3"


def test_a_certificate_is_verified_if_given(site: Site) -> None:
    exporter = site.start(tls_server_config=MTLS | {"client_auth_type": "VerifyClientCertIfGiven"})
    stranger = site.context()
    write_pair(site.folder, site.authority.client(), "stranger")
    stranger.load_cert_chain(site.folder / "stranger.crt", site.folder / "stranger.key")
    answers = [spoken(exporter, context) for context in (site.context(), site.context(client=True), stranger)]
    assert answers == ["TLSv1.3", "TLSv1.3", None]


# -- rotation ----------------------------------------------------------------------------------------------------------


@contextmanager
def load(
    site: Site, exporter: Exporter, threads: int = 6, authorization: str = f"Bearer {TOKEN}"
) -> Iterator[list[int]]:
    """Pushes and scrapes without a pause, on connections that are kept and on new ones; any failure is raised.

    Gives the count of pushed samples, by thread.
    """
    done = threading.Event()
    pushed = [0] * threads

    def work(number: int) -> None:
        with ExitStack() as stack:
            session = stack.enter_context(requests.Session())
            while not done.is_set():
                session.trust_env = False
                session.verify = str(site.folder / "ca.crt")
                session.headers["Authorization"] = authorization
                if number % 3 == 2:
                    answer = session.get(f"{exporter.url}/metrics", timeout=20)
                    assert answer.status_code == 200
                else:
                    answer = session.post(f"{exporter.url}/v1/samples", json=SAMPLE, timeout=20)
                    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
                    pushed[number] += 1
                if number % 2:
                    session.close()  # which makes the next connection a new one

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, number) for number in range(threads)]
        try:
            yield pushed
        finally:
            done.set()
        for future in running:
            future.result()


def test_certificates_are_replaced_under_load_without_a_failed_request(site: Site) -> None:
    both = {"name": "all", "token": TOKEN, "permissions": ["push", "scrape"]}
    exporter = site.start(tls_server_config=TLS, bearer_tokens=[both])
    exporter.session.headers["Authorization"] = f"Bearer {TOKEN}"
    context = site.context()
    with load(site, exporter) as pushed:
        seen = {shown_by(exporter, context)}
        for number in range(4):
            pair = site.authority.server()
            write_pair(site.folder, pair)
            expected = ssl.PEM_cert_to_DER_cert(pair[0].decode().partition("-----END")[0] + "-----END CERTIFICATE-----")
            becomes(lambda: shown_by(exporter, context), expected)
            seen.add(expected)
            if number == 1:  # something broken in between
                (site.folder / "server.key").write_text("broken")
                becomes(lambda: exporter.total("mlexporter_web_config_reload_failures_total"), 1.0)
                assert shown_by(exporter, context) == expected
            before = pushed.copy()
            becomes(lambda: pushed[0], before[0], same=False)  # on a connection that is kept
            becomes(lambda: pushed[1], before[1], same=False)  # on new ones
        assert len(seen) == 5
    assert exporter.total("mlexporter_samples_total") == sum(pushed)
    assert exporter.total("mlexporter_web_config_last_reload_successful") == 1
    codes = {dict(labels)["code"] for name, labels in exporter.scrape() if name == "mlexporter_http_requests_total"}
    assert codes == {"200"}
    code, seconds = exporter.stop()
    assert (code, seconds < 5) == (0, True)


def test_a_new_client_ca_holds_for_new_connections(site: Site) -> None:
    exporter = site.start(client=True, tls_server_config=MTLS)
    others = Authority()
    new = site.folder / "clients.new"
    new.write_bytes(others.pem)
    new.replace(site.folder / "clients.crt")
    poll(lambda: spoken(exporter, site.context(client=True)) is None, SECONDS, exporter.log)
    write_pair(site.folder, others.client(), "client")
    assert spoken(exporter, site.context(client=True)) == "TLSv1.3"


def test_users_are_replaced_under_load_without_a_failed_request(site: Site) -> None:
    """Their hashes stay, so what is known of them does: nobody waits for a check, and one that is gone is out."""
    both = {"name": "all", "token": TOKEN, "permissions": ["push", "scrape"]}
    alice, bob = hashed("a", 10), hashed("b", 10)
    exporter = site.start(tls=False, basic_auth_users={"alice": alice, "bob": bob}, bearer_tokens=[both])

    def code(name: str, password: str) -> int:
        return requests.get(f"{exporter.url}/metrics", auth=(name, password), timeout=20).status_code

    assert (code("alice", "a"), code("bob", "b"), code("bob", "a")) == (200, 200, 401)
    with load(site, exporter):
        site.write(basic_auth_users={"alice": alice}, bearer_tokens=[both])
        poll(lambda: code("bob", "b") == 401, SECONDS)
        for _ in range(20):
            assert code("alice", "a") == 200


def test_a_new_hash_of_the_same_password_fails_no_request(site: Site) -> None:
    """What is remembered does not count for it, and so all clients bring their password to be checked at once."""
    exporter = site.start(tls=False, basic_auth_users={"alice": hashed("a", 10)})
    exporter.session.auth = ("alice", "a")
    with load(site, exporter, 12, "Basic YWxpY2U6YQ==") as pushed:
        for number in range(3):
            site.write(basic_auth_users={"alice": hashed("a", 10)})
            becomes(lambda: exporter.log().count("read the web configuration again"), number + 1)
            before = pushed.copy()
            becomes(lambda: any(now == was for now, was in zip(pushed, before, strict=True) if was), False)  # noqa: B023
    assert exporter.total("mlexporter_samples_total") == sum(pushed) > 0


# -- passwords ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["granian", "waitress"])
def test_who_tries_passwords_keeps_nobody_out(site: Site, server: str) -> None:
    exporter = site.start(
        f"--web.server={server}", tls=False, basic_auth_users={"alice": hashed("a", 12)}, bearer_tokens=[PUSH_TOKEN]
    )
    url = exporter.url
    known = requests.Session()
    known.trust_env = False
    known.auth = ("alice", "a")
    assert known.get(f"{url}/metrics", timeout=20).status_code == 200
    done = threading.Event()
    codes: set[int] = set()

    def try_passwords(number: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not done.is_set():
                answer = session.get(f"{url}/metrics", auth=("alice", f"wrong{number}"), timeout=30)
                codes.add(answer.status_code)

    with ThreadPoolExecutor(16) as pool:
        attackers = [pool.submit(try_passwords, number) for number in range(16)]
        try:
            poll(lambda: codes == {401, 503}, SECONDS)
            for _ in range(20):
                assert known.get(f"{url}/metrics", timeout=10).status_code == 200
                assert requests.get(f"{url}/-/healthy", timeout=10).status_code == 200
                pushed = requests.post(
                    f"{url}/v1/samples", json=SAMPLE, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
                )
                assert pushed.json()["accepted"] == 1
        finally:
            done.set()
        for attacker in attackers:
            attacker.result()
    known.close()
    assert codes == {401, 503}


# -- the commands ------------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "mlexporter", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_check_and_serve_refuse_the_same(site: Site) -> None:
    site.write(tls_server_config=TLS, basic_auth_users={"a": hashed("a")}, bearer_tokens=[PUSH_TOKEN])
    assert run(site.folder, "check", "web-config", "web.yml") == (0, "web.yml: valid, TLS, 1 user, 1 token\n", "")
    address = f"--web.listen-address=127.0.0.1:{free_port()}"
    code, _, said = run(site.folder, "serve", address, "--web.config.file=web.yml", "--web.server=waitress")
    assert (code, said) == (
        1, "mlexporter: waitress has no TLS: leave out --web.server=waitress, or tls_server_config\n",
    )  # fmt: skip
    (site.folder / "web.yml").write_text("tls_server_config:\n  cert_file: server.crt\n  key_file: nowhere.key\n")
    problem = "web.yml:3:13: tls_server_config.key_file: nowhere.key cannot be read: No such file or directory\n"
    assert run(site.folder, "check", "web-config", "web.yml") == (1, "", problem)
    assert run(site.folder, "serve", address, "--web.config.file=web.yml") == (1, "", f"mlexporter: {problem}")


# -- Prometheus --------------------------------------------------------------------------------------------------------

Scheme = tuple[dict[str, Any], dict[str, Any]]
ALICE = {"basic_auth_users": {"alice": hashed("wonderland", 10)}, "user_permissions": {"alice": ["scrape"]}}
SCRAPE_TOKEN = {"bearer_tokens": [{"name": "prometheus", "token": TOKEN, "permissions": ["scrape"]}]}
CA_ALONE = {"ca_file": "ca.crt", "server_name": "localhost"}
CA_AND_CLIENT = CA_ALONE | {"cert_file": "client.crt", "key_file": "client.key"}
CA = {"scheme": "https", "tls_config": CA_ALONE}
SCHEMES: dict[str, Scheme] = {
    "basic": (ALICE, {"basic_auth": {"username": "alice", "password": "wonderland"}}),
    "bearer": (SCRAPE_TOKEN, {"authorization": {"type": "Bearer", "credentials": TOKEN}}),
    "tls": ({"tls_server_config": TLS}, CA),
    "client_certificate": (
        {"tls_server_config": MTLS}, CA | {"tls_config": CA_AND_CLIENT},
    ),
    "all": (
        {"tls_server_config": MTLS, **ALICE},
        CA | {"tls_config": CA_AND_CLIENT, "basic_auth": {"username": "alice", "password": "wonderland"}},
    ),
}  # fmt: skip
WRONG: dict[str, Scheme] = {
    "wrong_password": (ALICE, {"basic_auth": {"username": "alice", "password": "Wonderland"}}),
    "no_credentials": (SCRAPE_TOKEN, {}),
    "no_certificate": ({"tls_server_config": MTLS}, CA),
    "no_tls": ({"tls_server_config": TLS}, {}),
    "push_only": ({"bearer_tokens": [PUSH_TOKEN]}, {"authorization": {"credentials": TOKEN}}),
}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator["Prometheus"]:
    """Starts a Prometheus that scrapes an exporter in a way; gives its `up`."""
    with ExitStack() as stack:

        def start(exporter: Exporter, way: dict[str, Any]) -> Callable[[], float | None]:
            started = stack.enter_context(running(tmp_path, scraping(exporter, **way)))
            return lambda: started.value("up")

        yield start


Prometheus = Callable[[Exporter, dict[str, Any]], Callable[[], float | None]]


@needs("prometheus")
@pytest.mark.parametrize("name", SCHEMES)
def test_prometheus_scrapes_with_each_scheme(site: Site, prometheus: Prometheus, name: str) -> None:
    settings, way = SCHEMES[name]
    exporter = site.start(tls="tls_server_config" in settings, client=True, **settings)
    up = prometheus(exporter, way)
    poll(lambda: up() == 1, SECONDS)


@needs("prometheus")
@pytest.mark.parametrize("name", WRONG)
def test_prometheus_is_refused_without(site: Site, prometheus: Prometheus, name: str) -> None:
    settings, way = WRONG[name]
    exporter = site.start(tls="tls_server_config" in settings, client=True, **settings)
    up = prometheus(exporter, way)
    poll(lambda: up() is not None, SECONDS)
    end = time.monotonic() + 1.5  # three scrapes
    while time.monotonic() < end:
        assert up() == 0
        time.sleep(0.1)


@needs("prometheus")
def test_prometheus_goes_on_over_a_rotation(site: Site, prometheus: Prometheus) -> None:
    exporter = site.start(client=True, tls_server_config=MTLS)
    up = prometheus(exporter, CA | {"tls_config": CA_AND_CLIENT})
    poll(lambda: up() == 1, SECONDS)
    context = site.context(client=True)
    for _ in range(2):
        before = shown_by(exporter, context)
        write_pair(site.folder, site.authority.server())
        becomes(lambda: shown_by(exporter, context), before, same=False)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert up() == 1
            time.sleep(0.1)


def test_header_of_basic_authentication_by_hand(site: Site) -> None:
    """RFC 7617, section 2: user `Aladdin`, password `open sesame`."""
    exporter = site.start(tls=False, basic_auth_users={"Aladdin": hashed("open sesame")})
    value = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert base64.b64decode(value[6:]) == b"Aladdin:open sesame"
    assert exporter.get("/metrics", Authorization=value).status_code == 200
    refused = exporter.get("/metrics")
    assert (refused.status_code, refused.headers["WWW-Authenticate"].split(" ")[0]) == (401, "Basic")
